//! Recovery by hand, as the command's text: what was given up, what waits for a person, what is wrong with a data
//! directory, and what can still be had of a damaged one.

use std::fs;

use expect_test::expect;
use recount_store::{
    Event, Expected, Json, Log, MessageId, NewEvent, Rerun, StreamId, ToolOutcome, Verdict,
};
use recount_tests::command::objects;
use recount_tests::files::{copy, set_mode};
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::story::{self, BEGIN, CONNECTION, OTHER, SESSION, after};
use serde_json::json;

/// A place whose log holds these events, a second after each other.
fn holding(events: impl IntoIterator<Item = (StreamId, Event)>) -> Place {
    let events = (0..).zip(events);
    Place::holding(events.map(|(n, (stream, event))| {
        let event = NewEvent::live(event, after(n * 1000));
        (stream, vec![event])
    }))
}

fn message(number: u8) -> MessageId {
    MessageId::from_bytes([number; 10])
}

/// What comes before everything in two sessions.
fn opened() -> Vec<(StreamId, Event)> {
    let sessions = [SESSION, OTHER].map(StreamId::Session);
    let mut events = vec![(StreamId::Connection(CONNECTION), story::linked())];
    events.extend(sessions.map(|session| (session, story::opened())));
    events
}

fn queued(number: u8, text: &str) -> Event {
    story::queued(message(number), text)
}

fn sent(number: u8) -> Event {
    Event::DeliveryStarted {
        message: message(number),
        attempt: 1,
        agent_message: format!("msg{number}"),
    }
}

fn given_up(number: u8) -> Event {
    Event::MessageDeadLettered {
        message: message(number),
        reason: "the server could not be reached".to_owned(),
    }
}

/// Two dead letters of one session, of which the first certainly never left; one of another that is closed.
fn with_dead_letters() -> Place {
    let mut events = opened();
    let ours = [
        Event::MessageQueued {
            message: message(5),
            key: Some("nightly-42".to_owned()),
            text: "Update the changelog".to_owned(),
        },
        given_up(5),
        queued(6, "And the README\nwith it"),
        sent(6),
        given_up(6),
    ];
    events.extend(ours.map(|event| (StreamId::Session(SESSION), event)));
    let others = [queued(7, "too late"), given_up(7), Event::SessionClosed];
    events.extend(others.map(|event| (StreamId::Session(OTHER), event)));
    holding(events)
}

#[test]
fn what_was_given_up_is_listed_with_the_command_that_queues_it_again() {
    let place = with_dead_letters();
    place.check(&["dead-letters"], &expect![[r#"
        message 0w3ge1r70w3ge1r7  session 0c1g60r30c1g60r3, given up at 2026-11-22T09:14:12.000000Z after 0 attempts
          > too late
          the server could not be reached
          its session is closed and takes no message
        message 0r30c1g60r30c1g6  session 081040g2081040g2, given up at 2026-11-22T09:14:10.000000Z after 1 attempt
          > And the README\nwith it
          the server could not be reached
          the agent may have it all the same: queued again it may be answered twice
            recount requeue 0r30c1g60r30c1g6 --even-if-it-may-double
        message 0m2ga1850m2ga185  session 081040g2081040g2, given up at 2026-11-22T09:14:07.000000Z after 0 attempts
          > Update the changelog
          key "nightly-42"
          the server could not be reached
            recount requeue 0m2ga1850m2ga185
        --- exit 0
    "#]]);
    place.check(&["dead-letters", "--session", "latest"], &expect![[r#"
        message 0w3ge1r70w3ge1r7  session 0c1g60r30c1g60r3, given up at 2026-11-22T09:14:12.000000Z after 0 attempts
          > too late
          the server could not be reached
          its session is closed and takes no message
        --- exit 0
    "#]]);
    let listed = place.json(&["dead-letters", "--session", "081", "--json"]);
    assert_eq!(
        listed,
        [
            json!({
                "session": SESSION, "message": message(6), "key": null, "text": "And the README\nwith it",
                "attempts": 1, "reason": "the server could not be reached",
                "at": "2026-11-22T09:14:10.000000Z", "may_have_arrived": true,
                "requeue_with": format!("recount requeue {} --even-if-it-may-double", message(6)),
            }),
            json!({
                "session": SESSION, "message": message(5), "key": "nightly-42", "text": "Update the changelog",
                "attempts": 0, "reason": "the server could not be reached",
                "at": "2026-11-22T09:14:07.000000Z", "may_have_arrived": false,
                "requeue_with": format!("recount requeue {}", message(5)),
            }),
        ]
    );
    let place = holding(opened());
    place.check(
        &["dead-letters"],
        &expect![[r#"
            --- stderr
            recount: no dead letters
            --- exit 0
        "#]],
    );
    place.check(
        &["dead-letters", "--json"],
        &expect![[r#"
            --- stderr
            recount: no dead letters
            --- exit 0
        "#]],
    );
    let nowhere = Place::new();
    nowhere.check(
        &["dead-letters"],
        &expect![[r#"
        --- stderr
        recount: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 0
    "#]],
    );
    assert!(!nowhere.data().exists());
}

#[test]
fn a_dead_letter_is_queued_again_once() {
    let place = with_dead_letters();
    let five = message(5).to_string();
    let queued = &place.json(&["requeue", &five[..4], "--json"])[0];
    let again = queued["again"].clone();
    assert_eq!(
        queued,
        &json!({ "session": SESSION, "message": message(5), "again": again, "new": true })
    );
    let repeated = &place.json(&["requeue", &five[..4], "--json"])[0];
    assert_eq!(
        repeated,
        &json!({ "session": SESSION, "message": message(5), "again": again, "new": false })
    );
    let log = place.json(&["log", "081", "--json"]);
    let last: Vec<_> = log[log.len() - 2..]
        .iter()
        .map(|event| &event["data"])
        .collect();
    assert_eq!(
        last,
        [
            &json!({ "message": again, "key": null, "text": "Update the changelog" }),
            &json!({ "message": message(5), "again": again }),
        ]
    );
    let told = place.told(&["requeue", &five]);
    let already = format!(
        "queued again already as message {} of session {SESSION}\n--- exit 0\n",
        again.as_str().unwrap()
    );
    assert_eq!(told, already);
    assert_eq!(place.json(&["dead-letters", "--json"]).len(), 2);
}

#[test]
fn what_cannot_be_queued_again_is_refused_in_words() {
    let place = with_dead_letters();
    let six = message(6).to_string();
    place.check(&["requeue", &six], &expect![[r#"
        --- stderr
        recount: cannot queue it again: nobody found out whether the agent got the message 0r30c1g60r30c1g6 before it was given up: queued again it may be answered twice; say that it may, to queue it all the same
          recount requeue 0r30c1g60r30c1g6 --even-if-it-may-double    queues it all the same
        --- exit 1
    "#]]);
    let told = place.told(&["requeue", &six, "--even-if-it-may-double"]);
    assert!(told.starts_with("queued again as message "), "{told}");
    assert!(
        told.ends_with("--- stderr\n  recount recover    sends it\n--- exit 0\n"),
        "{told}"
    );
    let seven = message(7).to_string();
    place.check(
        &["requeue", &seven],
        &expect![[r#"
        --- stderr
        recount: cannot queue it again: the session is closed: open another one
          recount show 0c1g60r30c1g60r3    shows where it stands
        --- exit 1
    "#]],
    );
    place.check(
        &["requeue", "zz"],
        &expect![[r#"
        --- stderr
        recount: which dead letter: no dead letter is called "zz"; there are:
          0w3ge1r70w3ge1r7    session 0c1g60r30c1g60r3, the server could not be reached
          0m2ga1850m2ga185    session 081040g2081040g2, the server could not be reached
        --- exit 1
    "#]],
    );
    holding(opened()).check(
        &["requeue", "latest"],
        &expect![[r#"
            --- stderr
            recount: which dead letter: there is no dead letter
              recount show ID    shows a session's messages and where they stand
            --- exit 1
        "#]],
    );
    Place::new().check(
        &["requeue", "latest"],
        &expect![[r#"
        --- stderr
        recount: cannot open the log: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 1
    "#]],
    );
    let _writer = Log::open(place.data()).unwrap();
    place.check(&["requeue", &six], &expect![[r#"
        --- stderr
        recount: cannot open the log: another process is writing HERE/data/log.redb: wait for it to end, or name another data directory
          end that process, if it is to end, and run this again
          recount sessions, show, log, dead-letters, doctor    look at it meanwhile
        --- exit 1
    "#]]);
}

/// A turn that waits for its rerun, and a message of which nobody knows whether it arrived.
fn with_waits() -> Place {
    let mut events = opened();
    let rerun = [
        queued(5, "make it so"),
        sent(5),
        Event::DeliveryAccepted {
            message: message(5),
            attempt: 1,
        },
        Event::TurnRequested {
            message: message(5),
            run: 1,
        },
        Event::TurnStarted {
            message: message(5),
            run: 1,
        },
        Event::ToolCallStarted {
            message: message(5),
            run: 1,
            call: "call".to_owned(),
            tool: "bash".to_owned(),
            input: Json(br#"{"command":"make"}"#.to_vec()),
        },
        Event::ToolCallEnded {
            message: message(5),
            run: 1,
            call: "call".to_owned(),
            outcome: ToolOutcome::Completed,
            output: "made".to_owned(),
        },
        Event::TurnInterrupted {
            message: message(5),
            run: 1,
            answers: vec![],
            evidence: "it is gone".to_owned(),
        },
        Event::RerunDecided {
            message: message(5),
            run: 1,
            rerun: Rerun::Wait,
            reason: "a tool had begun".to_owned(),
        },
    ];
    events.extend(rerun.map(|event| (StreamId::Session(SESSION), event)));
    let unknown = [
        queued(6, "are you there?"),
        sent(6),
        Event::DeliveryUnknown {
            message: message(6),
            attempt: 1,
            reason: "the answer was lost".to_owned(),
        },
        Event::UnknownDecided {
            message: message(6),
            attempt: 1,
            verdict: Verdict::Wait,
            reason: "the agent has no memory".to_owned(),
        },
    ];
    events.extend(unknown.map(|event| (StreamId::Session(OTHER), event)));
    holding(events)
}

#[test]
fn what_waits_is_shown_before_a_word_is_given() {
    let place = with_waits();
    let before = fs::read(place.data().join("log.redb")).unwrap();
    place.check(
        &["resolve", &message(5).to_string()],
        &expect![[r#"
        session 081040g2081040g2 message 0m2ga1850m2ga185
          waits since 2026-11-22T09:14:14.000000Z
          tool bash {"command":"make"}: gave made
          recount resolve 0m2ga1850m2ga185 rerun
          recount resolve 0m2ga1850m2ga185 give-up
          recount recover --rerun auto
          recount recover --rerun never
        --- exit 0
    "#]],
    );
    place.check(
        &["resolve", "latest"],
        &expect![[r#"
        session 0c1g60r30c1g60r3 message 0r30c1g60r30c1g6
          waits since 2026-11-22T09:14:18.000000Z
          recount resolve 0r30c1g60r30c1g6 arrived
          recount resolve 0r30c1g60r30c1g6 resend
          recount resolve 0r30c1g60r30c1g6 dead-letter
          recount recover --unknown resend
          recount recover --unknown dead-letter
        --- exit 0
    "#]],
    );
    // It was only looked at.
    assert_eq!(fs::read(place.data().join("log.redb")).unwrap(), before);
}

#[test]
fn a_persons_word_is_recorded_as_one() {
    let place = with_waits();
    let (five, six) = (message(5).to_string(), message(6).to_string());
    place.check(
        &[
            "resolve",
            &five,
            "rerun",
            "--because",
            "make is safe to repeat",
        ],
        &expect![[r#"
            session 081040g2081040g2 message 0m2ga1850m2ga185
              waits since 2026-11-22T09:14:14.000000Z
              tool bash {"command":"make"}: gave made
            recorded: rerun: make is safe to repeat
            --- stderr
              recount recover    carries on with it
            --- exit 0
        "#]],
    );
    let log = place.json(&["log", &SESSION.to_string(), "--json"]);
    let last = log.last().unwrap();
    assert_eq!(
        (&last["type"], &last["data"]),
        (
            &json!("RerunDecided"),
            &json!({
                "message": five, "run": 1, "rerun": "run",
                "reason": "a person's word: make is safe to repeat",
            })
        )
    );
    let resolved = &place.object(&["resolve", &six, "dead-letter", "--json"]);
    assert_eq!(
        (
            &resolved["word"],
            &resolved["because"],
            &resolved["waits"]["message"]
        ),
        (&json!("dead-letter"), &json!(null), &json!(six))
    );
    let letters = place.json(&["dead-letters", "--json"]);
    assert_eq!(
        letters[0]["reason"],
        "nobody knows whether it arrived, and a person gave it up"
    );
    // There is nothing to say twice.
    place.check(
        &["resolve", &five, "rerun"],
        &expect![[r#"
        --- stderr
        recount: message 0m2ga1850m2ga185 is accepted: nothing about it waits for a person
          recount show 081040g2081040g2    shows where it stands
        --- exit 1
    "#]],
    );
    place.check(
        &["resolve", "latest", "arrived"],
        &expect![[r#"
        --- stderr
        recount: which waiting message: there is no waiting message
          recount show ID    shows a session's messages and where they stand
        --- exit 1
    "#]],
    );
}

#[test]
fn a_word_that_does_not_fit_is_told_with_code_2() {
    let place = with_waits();
    place.check(
        &["resolve", &message(5).to_string(), "arrived"],
        &expect![[r#"
            session 081040g2081040g2 message 0m2ga1850m2ga185
              waits since 2026-11-22T09:14:14.000000Z
              tool bash {"command":"make"}: gave made
            --- stderr
            recount: "arrived" does not fit: it waits for a word on whether its turn is run again
              recount resolve 0m2ga1850m2ga185 rerun
              recount resolve 0m2ga1850m2ga185 give-up
              recount recover --rerun auto
              recount recover --rerun never
            --- exit 2
        "#]],
    );
    place.check(
        &["resolve", &message(6).to_string(), "rerun"],
        &expect![[r#"
            session 0c1g60r30c1g60r3 message 0r30c1g60r30c1g6
              waits since 2026-11-22T09:14:18.000000Z
            --- stderr
            recount: "rerun" does not fit: it waits for a word on whether it arrived
              recount resolve 0r30c1g60r30c1g6 arrived
              recount resolve 0r30c1g60r30c1g6 resend
              recount resolve 0r30c1g60r30c1g6 dead-letter
              recount recover --unknown resend
              recount recover --unknown dead-letter
            --- exit 2
        "#]],
    );
    place.check(
        &["resolve", "latest", "--because", "I say so"],
        &expect![[r#"
            --- stderr
            error: the following required arguments were not provided:
              <WORD>

            Usage: recount resolve --because <TEXT> --data <DIR> <MESSAGE> <WORD>

            For more information, try '--help'.
            --- exit 2
        "#]],
    );
}

#[test]
fn what_a_person_settled_is_carried_on_by_recover() {
    let place = Place::new();
    let prompt = "script: words=6 delay=5ms tool die-once";
    let run = place.run(&[
        "run",
        "--agent",
        "scripted",
        "--permission",
        "allow",
        prompt,
    ]);
    assert_eq!(run.status.code(), Some(1));
    let resolved = &place.object(&["resolve", "latest", "rerun", "--json"]);
    let tool = &resolved["waits"]["tools"][0];
    assert_eq!(
        (&tool["tool"], &tool["outcome"]),
        (&json!("bash"), &json!("completed"))
    );
    let recovered = &place.object(&["recover", "--permission", "allow", "--json"]);
    assert_eq!(recovered["messages"][0]["state"], "completed");
}

/// What `doctor` says of a place, without the room on its disk, which is the machine's.
fn doctor(place: &Place) -> String {
    let told = place.told(&["doctor"]);
    assert!(
        !told.contains("its disk has"),
        "this machine has no room: {told}"
    );
    told
}

#[test]
fn of_a_directory_that_is_well_nothing_is_said() {
    let place = holding(opened());
    let before = fs::read(place.data().join("log.redb")).unwrap();
    assert_eq!(doctor(&place), "nothing needs doing\n--- exit 0\n");
    assert_eq!(
        place.json(&["doctor", "--json"]),
        [json!({ "directory": place.data(), "healthy": true, "findings": [] })]
    );
    assert_eq!(fs::read(place.data().join("log.redb")).unwrap(), before);
}

#[test]
fn what_is_open_or_left_is_told_with_what_to_do() {
    let place = with_waits();
    expect![[r#"
        warning: 2 messages wait for you
          only a person can say how it goes on
            recount resolve latest    shows the newest, and takes your word on it
            recount recover           lists all of them
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]]
    .assert_eq(&doctor(&place));
    expect![[r#"
        note: 3 messages were given up
          nothing is lost, and nothing happens by itself
            recount dead-letters    lists them
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&doctor(&with_dead_letters()));

    let mut events = opened();
    let mark = "5ca1ab1e".to_owned();
    let started = Event::ServerStartDecided { port: 4096, mark };
    events.push((StreamId::Connection(CONNECTION), started));
    let opens = queued(5, "hello");
    events.push((StreamId::Session(SESSION), opens));
    let place = holding(events);
    let servers = place.data().join("servers");
    fs::create_dir(&servers).unwrap();
    for name in ["5ca1ab1e", "5ca1ab1e.out", "0ddba11", "0ddba11.out"] {
        fs::write(servers.join(name), "secret").unwrap();
        set_mode(&servers.join(name), 0o600);
    }
    fs::write(place.data().join("log.redb.new-17-0"), "").unwrap();
    fs::write(
        place.data().join("recount.toml"),
        "[session]\nruns_max = 0\n",
    )
    .unwrap();
    set_mode(&place.data().join("log.redb"), 0o644);
    expect![[r#"
        error: cannot use the policy: HERE/data/recount.toml: session.runs_max is 0; it must be at least 1
          no engine starts with it
            recount policy check FILE    says what is allowed
        warning: HERE/data/log.redb has mode 0644
          others than its owner can read what was said, or passwords of servers
            chmod go= HERE/data/log.redb
        warning: 1 message is open, and nobody works on it
          the engine ended before that; nothing happens by itself
            recount recover    carries it to the end
        note: the server of connection 0g2081040g208104 is gone
          nobody has recorded that yet
            recount recover    does
        note: files of 1 server are left over
          their passwords are of no use any more
            recount recover    clears them away
        note: log.redb.new-17-0 was never finished
          a process was killed while it made a log; it is cleared away when the log is next opened to be written
        --- stderr
        recount: 3 things need doing in HERE/data
        --- exit 1
    "#]].assert_eq(&doctor(&place));
}

#[test]
fn a_process_that_writes_and_one_that_was_killed_are_told_apart() {
    let place = holding(opened());
    let log = Log::open(place.data()).unwrap();
    let more = NewEvent::live(queued(5, "hello"), BEGIN);
    let appended = log.append(StreamId::Session(SESSION), Expected::Any, vec![more]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(appended).unwrap();
    expect![[r#"
        note: another process writes the log
          it can be looked at meanwhile; whatever changes it has to wait for that process to end
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&doctor(&place));
    // As the files are at this moment: what a kill would leave.
    let killed = Place::new();
    copy(&place.data(), &killed.data());
    expect![[r#"
        warning: 1 message is open, and nobody works on it
          the engine ended before that; nothing happens by itself
            recount recover    carries it to the end
        note: the last process that wrote the log was killed
          nothing is lost: what its journal holds is read, and settles when the log is next opened to be written
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&doctor(&killed));
}

#[test]
fn what_is_no_log_or_a_damaged_one_is_told() {
    let nowhere = Place::new();
    expect![[r#"
        note: there is no directory HERE/data
          nothing was recorded there, or its name is mistyped
            recount run MESSAGE    begins a session, and makes it
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&doctor(&nowhere));
    assert!(!nowhere.data().exists());

    let empty = Place::new();
    fs::create_dir(empty.data()).unwrap();
    set_mode(&empty.data(), 0o700);
    expect![[r#"
        note: there is no log in HERE/data; nothing was recorded there yet
          it is empty, and ready to be used
            recount run MESSAGE    begins a session
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&doctor(&empty));
    fs::write(empty.data().join("letter.txt"), "dear").unwrap();
    expect![[r#"
        error: HERE/data is not a data directory of recount: it holds "letter.txt" and no log; name an empty or a new directory
          its name is mistyped, or the log was moved away
            name another one: --data DIR, or RECOUNT_DATA
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&doctor(&empty));
    fs::write(empty.data().join("log.redb"), "dear").unwrap();
    expect![[r#"
        error: HERE/data/log.redb is not a log of recount (Not a redb database: magic number mismatch); it was left as it is: move it away, or name another data directory
          another program's file stands in its place, or its first pages are damaged
            recount salvage HERE/data --into NEW-DIR    takes out what can still be proven
        warning: HERE/data/log.redb has mode 0664
          others than its owner can read what was said, or passwords of servers
            chmod go= HERE/data/log.redb
        --- stderr
        recount: 2 things need doing in HERE/data
        --- exit 1
    "#]].assert_eq(&doctor(&empty).replace("0644", "0664"));

    let place = with_dead_letters();
    damage(&place, b"Update the changelog");
    expect![[r#"
        error: the log is damaged at position 4: its hash does not follow from it and the event before it in its stream
          what was recorded before position 4 can be read; what follows may not be what was recorded
            recount salvage HERE/data --into NEW-DIR    takes out what can still be proven
        note: 3 messages were given up
          nothing is lost, and nothing happens by itself
            recount dead-letters    lists them
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&doctor(&place));
    let quick = place.told(&["doctor", "--quick"]);
    assert!(!quick.contains("damaged"), "{quick}");
}

/// Changes a byte of each place in the storage that says this.
fn damage(place: &Place, words: &[u8]) {
    let path = place.data().join("log.redb");
    let mut bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = (0..bytes.len() - words.len())
        .filter(|at| bytes[*at..].starts_with(words))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_can_be_proven_of_a_damaged_log_becomes_a_new_one() {
    let place = with_dead_letters();
    damage(&place, b"And the README");
    let damaged = fs::read(place.data().join("log.redb")).unwrap();
    place.check(
        &[
            "salvage",
            "data",
            "--into",
            "new",
            "--unproven",
            "rest.jsonl",
        ],
        &expect![[r#"
            8 events taken into new
              session/081040g2081040g2  events 1 to 3
              session/0c1g60r30c1g60r3  events 1 to 4
              connection/0g2081040g208104  event 1
            each stands where it stood; heads that were signed hold up to position 5
            not taken: session/081040g2081040g2  events 4 to 6
              event 4 is missing or damaged, and what follows it cannot be proven without it
            closed: 1 session, of which events are missing
            look at it with: recount --data new sessions
            --- stderr
            recount: not everything could be taken
            --- exit 1
        "#]],
    );
    assert_eq!(fs::read(place.data().join("log.redb")).unwrap(), damaged);
    let rest = fs::read_to_string(place.path("rest.jsonl")).unwrap();
    let rest = objects(rest.lines());
    let types: Vec<_> = rest
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    // The first of them is the one that is not what was recorded.
    let behind = ["MessageQueued", "DeliveryStarted", "MessageDeadLettered"];
    assert_eq!(types, behind);
    let verified = &place.object(&["--data", "new", "verify", "--json"]);
    assert_eq!(
        (&verified["ok"], &verified["events"]),
        (&json!(true), &json!(9))
    );
    let sessions = place.json(&["--data", "new", "sessions", "--json"]);
    let states: Vec<_> = sessions
        .iter()
        .map(|session| (&session["session"], &session["status"]))
        .collect();
    let closed = json!("closed");
    assert_eq!(
        states,
        [(&json!(OTHER), &closed), (&json!(SESSION), &closed)]
    );
    place.check(
        &["salvage", "data", "--into", "new"],
        &expect![[r#"
            --- stderr
            recount: cannot salvage: there is a log in new already; name a new directory
              recount --data new sessions    looks at that one
            --- exit 1
        "#]],
    );
    let salvaged = place.run(&["salvage", "data/log.redb", "--into", "again", "--json"]);
    let [salvaged] = &objects(salvaged.stdout.lines())[..] else {
        panic!("{salvaged:#?}");
    };
    assert_eq!(
        *salvaged,
        json!({
            "whole": false, "events": 8, "missing": 0, "last": 11, "whole_through": 5, "unreadable": 0,
            "dead_letters": 0, "closed": 1,
            "streams": [
                {
                    "stream": format!("session/{SESSION}"), "taken": [1, 3], "unproven": [[4, 6]],
                    "reason": "event 4 is missing or damaged, and what follows it cannot be proven without it",
                },
                { "stream": format!("session/{OTHER}"), "taken": [1, 4], "unproven": [], "reason": null },
                { "stream": format!("connection/{CONNECTION}"), "taken": [1, 1], "unproven": [], "reason": null },
            ],
        })
    );
}

#[test]
fn what_is_open_in_a_salvaged_log_is_sent_by_nobody() {
    let place = with_waits();
    // The first page leads to everything else.
    let path = place.data().join("log.redb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    fs::write(&path, bytes).unwrap();
    let told = place.told(&["sessions"]);
    assert!(told.contains("is not a log of recount"), "{told}");
    place.check(
        &["salvage", "data", "--into", "new"],
        &expect![[r#"
            16 events taken into new
              session/081040g2081040g2  events 1 to 10
              session/0c1g60r30c1g60r3  events 1 to 5
              connection/0g2081040g208104  event 1
            each stands where it stood; heads that were signed still hold
            given up: 2 messages that had not come to an end: nobody knows what came after
              recount --data new dead-letters
            look at it with: recount --data new sessions
            --- exit 0
        "#]],
    );
    place.check(
        &["--data", "new", "recover"],
        &expect![[r#"
        nothing was open
        --- exit 0
    "#]],
    );
    let letters = place.json(&["--data", "new", "dead-letters", "--json"]);
    assert_eq!(letters.len(), 2);
}

#[test]
fn what_is_given_up_in_a_salvaged_log_is_no_mistake_of_an_engine() {
    for name in ["mangled", "short"] {
        let place = fixture(name);
        let salvaged = place.run(&["salvage", "data", "--into", "new"]);
        assert!(salvaged.stdout.contains("given up: 1 message"));
        let decided = place.printed(&["--data", "new", "verify", "--decisions"]);
        assert!(decided.contains("\ndecided as today: "), "{decided}");
    }
}

#[test]
fn what_holds_no_log_is_not_salvaged() {
    let place = Place::new();
    fs::write(place.path("letter"), "dear").unwrap();
    place.check(&["salvage", "letter", "--into", "new"], &expect![[r#"
        --- stderr
        recount: cannot salvage: letter is not a log of recount (no event of a log can be proven in it); it was left as it is: move it away, or name another data directory
        --- exit 1
    "#]]);
    place.check(
        &["salvage", "nothing", "--into", "new"],
        &expect![[r#"
            --- stderr
            recount: cannot salvage: cannot open nothing: No such file or directory (os error 2)
            --- exit 1
        "#]],
    );
    assert!(!place.path("new").exists());
}

#[test]
fn each_log_that_is_kept_is_told_what_it_needs() {
    let told = |name: &str| fixture(name).told(&["doctor"]);
    expect![[r#"
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&told("clean"));
    expect![[r#"
        note: the last process that wrote the log was killed
          nothing is lost: what its journal holds is read, and settles when the log is next opened to be written
        note: 12 messages were given up
          nothing is lost, and nothing happens by itself
            recount dead-letters    lists them
        nothing needs doing
        --- exit 0
    "#]].assert_eq(&told("week"));
    expect![[r#"
        warning: 1 message is open, and nobody works on it
          the engine ended before that; nothing happens by itself
            recount recover    carries it to the end
        note: the last process that wrote the log was killed
          nothing is lost: what its journal holds is read, and settles when the log is next opened to be written
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&told("torn"));
    expect![[r#"
        error: the log is damaged at position 52: its hash does not follow from it and the event before it in its stream
          what was recorded before position 52 can be read; what follows may not be what was recorded
            recount salvage HERE/data --into NEW-DIR    takes out what can still be proven
        note: the last process that wrote the log was killed
          nothing is lost: what its journal holds is read, and settles when the log is next opened to be written
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&told("mangled"));
    expect![[r#"
        error: the log is damaged at position 1: its file is cut short
          it cannot be read from its beginning on; much of it may still be there
            recount salvage HERE/data --into NEW-DIR    takes out what can still be proven
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]]
    .assert_eq(&told("short"));
    expect![[r#"
        nothing needs doing
        --- exit 0
    "#]]
    .assert_eq(&told("newer_event"));
    expect![[r#"
        error: HERE/data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
          nothing is wrong with it
            recount --version    says which release this is
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
    "#]].assert_eq(&told("newer_format"));
}

#[test]
fn of_each_log_that_is_kept_what_can_be_proven_is_taken() {
    let told = |name: &str| fixture(name).told(&["salvage", "data", "--into", "new"]);
    expect![[r#"
        97 events taken into new
          engine  events 1 to 3
          session/040g2081040g2081  events 1 to 63
          session/081040g2081040g2  events 1 to 23
          connection/yqakrmzrfz07ze6h  events 1 to 8
        each stands where it stood; heads that were signed still hold
        look at it with: recount --data new sessions
        --- exit 0
    "#]]
    .assert_eq(&told("clean"));
    expect![[r#"
        84 events taken into new
          engine  events 1 to 2
          session/040g2081040g2081  events 1 to 63
          session/081040g2081040g2  events 1 to 13
          connection/yqakrmzrfz07ze6h  events 1 to 6
        each stands where it stood; heads that were signed still hold
        given up: 1 message that had not come to an end: nobody knows what came after
          recount --data new dead-letters
        look at it with: recount --data new sessions
        --- exit 0
    "#]]
    .assert_eq(&told("torn"));
    expect![[r#"
        64 events taken into new
          engine  events 1 to 2
          session/040g2081040g2081  events 1 to 43
          session/081040g2081040g2  events 1 to 13
          connection/yqakrmzrfz07ze6h  events 1 to 6
        each stands where it stood; heads that were signed hold up to position 51
        not taken: session/040g2081040g2081  events 51 to 63
          event 44 is missing or damaged, and what follows it cannot be proven without it
        not found: 7 events of those up to position 84; of which streams, nobody can say
        closed: 1 session, of which events are missing
        given up: 1 message that had not come to an end: nobody knows what came after
          recount --data new dead-letters
        look at it with: recount --data new sessions
        --- stderr
        recount: not everything could be taken
          --unproven FILE, and another --into    writes what was found and not taken to a file
        --- exit 1
    "#]]
    .assert_eq(&told("mangled"));
    expect![[r#"
        63 events taken into new
          engine  events 1 to 3
          session/040g2081040g2081  events 1 to 52
          connection/yqakrmzrfz07ze6h  events 1 to 8
        each stands where it stood; heads that were signed hold up to position 60
        not taken: session/081040g2081040g2  events 6 to 23
          event 1 is missing or damaged, and what follows it cannot be proven without it
        not found: 16 events of those up to position 97; of which streams, nobody can say
        given up: 1 message that had not come to an end: nobody knows what came after
          recount --data new dead-letters
        look at it with: recount --data new sessions
        --- stderr
        recount: not everything could be taken
          --unproven FILE, and another --into    writes what was found and not taken to a file
        --- exit 1
    "#]]
    .assert_eq(&told("short"));
    expect![[r#"
        98 events taken into new
          engine  events 1 to 3
          session/040g2081040g2081  events 1 to 63
          session/081040g2081040g2  events 1 to 24
          connection/yqakrmzrfz07ze6h  events 1 to 8
        each stands where it stood; heads that were signed still hold
        look at it with: recount --data new sessions
        --- exit 0
    "#]]
    .assert_eq(&told("newer_event"));
    expect![[r#"
        --- stderr
        recount: cannot salvage: data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
        --- exit 1
    "#]].assert_eq(&told("newer_format"));
}
