//! What lets go of something, or makes it anew: `recount close`, `cut`, `retain`, `compact` and `rebuild`. Killed at any
//! moment, they leave the log whole, and what is begun again is done.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::expect;
use recount_store::{
    Event, FrameNumber, Log, LogReader, NewEvent, Position, Recorded, Seq, SessionId, StreamId,
    Timestamp, Verified, verify,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::files::{copy, storage};
use recount_tests::place::Place;
use recount_tests::process::Running;
use recount_tests::story::{
    BEGIN, CONNECTION, MESSAGE, OTHER, SESSION, after, interrupted, linked, opened, queued, record,
    said,
};
use redb::TableDefinition;
use serde_json::{Value, json};

fn append<const N: usize>(place: &Place, events: [(StreamId, Event, Timestamp); N]) {
    let events = events.map(|(stream, event, at)| (stream, vec![NewEvent::live(event, at)]));
    record(&place.data(), events);
}

/// A log whose first session is closed.
fn with_a_closed_session() -> Place {
    let place = Place::holding(interrupted());
    let at = after(2400);
    let session = StreamId::Session(SESSION);
    append(&place, [(session, Event::SessionClosed, at)]);
    place
}

/// The text without what changes from day to day: when something was cut, and how long ago anything was.
fn steady(text: &str) -> String {
    let following = text.lines().skip(1).chain([""]);
    let lines = text.lines().zip(following).filter_map(|(line, next)| {
        if line.ends_with(" UTC") && next.contains("  StreamCut  ") {
            return None;
        }
        if line.contains("  StreamCut  ") {
            return Some(format!("NOW{}", &line[12..]));
        }
        if let Some((before, after)) = line.split_once(" were cut on ") {
            return Some(format!("{before} were cut on NOW{}", &after[19..]));
        }
        Some(
            line.split_once("  last event ")
                .map_or(line, |(before, _)| before)
                .to_owned(),
        )
    });
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

#[test]
fn only_what_nothing_follows_from_is_cut() {
    let place = Place::holding(interrupted());
    append(
        &place,
        [
            (
                StreamId::Engine,
                Event::EngineStarted {
                    version: "0.1.0".to_owned(),
                    pid: 7,
                },
                BEGIN,
            ),
            (StreamId::Engine, Event::EngineStopped, BEGIN),
            (StreamId::Session(OTHER), queued(MESSAGE, "hello"), BEGIN),
        ],
    );
    let before = place.json(&["verify", "--json"]);
    let told = place.told_each(&[
        &["cut", "081", "--before", "8"],
        &["cut", "081", "--all", "--dry-run"],
        &["close", "0c1"],
        &["cut", "connection/0g2081040g208104", "--before", "3"],
        &["cut", "connection/0g2081040g208105", "--before", "3"],
        &["cut", "connection/7", "--before", "3"],
        &["cut", "engine", "--all"],
        &["cut", "engine", "--before", "2"],
    ]);
    expect![[r#"
        $ recount cut 081 --before 8
        --- stderr
        recount: session 081040g2081040g2 is not closed: what the engine does next follows from its first event on, so a part of it could not go on
          recount close 081040g2081040g2    closes it for good; then it can be cut
        --- exit 1
        $ recount cut 081 --all --dry-run
        --- stderr
        recount: session 081040g2081040g2 is not closed: what the engine does next follows from its first event on, so a part of it could not go on
          recount close 081040g2081040g2    closes it for good; then it can be cut
        --- exit 1
        $ recount close 0c1
        --- stderr
        recount: session 0c1g60r30c1g60r3 is queued: what is open in it comes first
          recount recover    carries it to its end
        --- exit 1
        $ recount cut connection/0g2081040g208104 --before 3
        --- stderr
        recount: connection 0g2081040g208104 cannot be cut: the engine folds from its first event on where it leads, what server runs and whether it may be tried
          recount cut SESSION --all    sessions are what takes space, once they are closed
        --- exit 1
        $ recount cut connection/0g2081040g208105 --before 3
        --- stderr
        recount: which connection: no connection is called "connection/0g2081040g208105"; there are:
          0g2081040g208104    last event 2026-11-22T09:14:04.600000Z
        --- exit 1
        $ recount cut connection/7 --before 3
        --- stderr
        recount: which connection: no connection is called "connection/7"; there are:
          0g2081040g208104    last event 2026-11-22T09:14:04.600000Z
        --- exit 1
        $ recount cut engine --all
        --- stderr
        recount: the engine cannot be cut beyond event 1: its last start and its last policy stay, since they say who writes the log, and how
        --- exit 1
        $ recount cut engine --before 2
        --- stderr
        recount: the engine cannot be cut beyond event 1: its last start and its last policy stay, since they say who writes the log, and how
        --- exit 1
    "#]].assert_eq(&told);
    assert_eq!(place.json(&["verify", "--json"]), before);

    append(
        &place,
        [(StreamId::Session(OTHER), Event::SessionClosed, BEGIN)],
    );
    place.check(
        &["cut", "0c1", "--all"],
        &expect![[r#"
            --- stderr
            recount: session 0c1g60r30c1g60r3 is closed, but has 1 message open
              recount recover    carries what is open to its end
            --- exit 1
        "#]],
    );
}

#[test]
fn a_session_is_closed_once() {
    let place = Place::holding(interrupted());
    place.check(
        &["close", "081"],
        &expect![[r#"
        closed: session 081040g2081040g2
        --- exit 0
    "#]],
    );
    place.check(
        &["close", "081"],
        &expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 is closed already
        --- exit 1
    "#]],
    );
    let closed = place.object(&["close", "0c1", "--json"]);
    assert_eq!(
        closed,
        json!({"session": "0c1g60r30c1g60r3", "closed": true})
    );
    let states: Vec<_> = place
        .json(&["sessions", "--json"])
        .iter()
        .map(|row| row["status"].clone())
        .collect();
    assert_eq!(states, ["closed", "closed"]);
}

#[test]
fn what_was_cut_is_told_by_every_verb() {
    let place = with_a_closed_session();
    let before = place.json(&["log", "081", "--json"]);
    place.check(
        &["cut", "081", "--before", "11", "--dry-run"],
        &expect![[r#"
            would cut: 10 events of session 081040g2081040g2, numbers 1 to 10, 2026-11-22 09:14:03 to 2026-11-22 09:14:04
            --- exit 0
        "#]],
    );
    let dry = place.object(&["cut", "081", "--before", "11", "--dry-run", "--json"]);
    assert_eq!(
        dry,
        json!({
            "stream": "session/081040g2081040g2",
            "events": 10,
            "from": 1,
            "before": 11,
            "begin": "2026-11-22T09:14:03.100000Z",
            "end": "2026-11-22T09:14:04.200000Z",
            "cut": false,
        })
    );
    assert_eq!(place.json(&["log", "081", "--json"]), before);
    place.check(
        // The same event, by its time.
        &["cut", "081", "--before", "2026-11-22T09:14:04.700Z"],
        &expect![[r#"
            cut: 10 events of session 081040g2081040g2, numbers 1 to 10, 2026-11-22 09:14:03 to 2026-11-22 09:14:04
            --- stderr
            · recount compact    gives its space back
            --- exit 0
        "#]],
    );

    let told = steady(&place.told_each(&[
        &["log", "081"],
        &[
            "log",
            "081",
            "--follow",
            "--since",
            "2026-11-22T09:14:05.150Z",
        ],
        &["show", "081"],
        &["replay", "081", "--instant"],
        &["verify", "081"],
        &["show", "081", "--at", "14"],
        &["show", "081", "--at", "10"],
        &["show", "081", "--at", "2026-11-22T09:14:04.000Z"],
        &["cut", "081", "--before", "11"],
        &["cut", "081", "--before", "99"],
        &["cut", "081", "--before", "2026-11-22T09:14:04.000Z"],
        &["close", "081"],
        &["run", "--session", "081", "--agent", "scripted", "hello"],
    ]));
    expect![[r#"
        $ recount log 081
        (the events before number 11 were cut on NOW)
        2026-11-22 UTC
        09:14:04.700    11  TurnInterrupted        (inferred) 040g20: it is gone
        09:14:04.800    12  RerunDecided           040g20 runs again: the policy is auto
        09:14:04.900    13  TurnRequested          040g20 run 2
        09:14:05.000    14  TurnStarted            040g20 run 2
        09:14:05.100    15  OutputAppended         "Well, it is said 💛\n"
        09:14:05.200    16  TurnCompleted          040g20 run 2: stop
        09:14:05.400    17  SessionClosed
        NOW    18  StreamCut              the events before number 11 were cut
        --- exit 0
        $ recount log 081 --follow --since 2026-11-22T09:14:05.150Z
        (the events before number 11 were cut on NOW)
        2026-11-22 UTC
        09:14:05.200    16  TurnCompleted          040g20 run 2: stop
        09:14:05.400    17  SessionClosed
        NOW    18  StreamCut              the events before number 11 were cut
        --- exit 0
        $ recount show 081
        session 081040g2081040g2  closed, 18 events

          cut        the events before number 11 were cut on NOW

        message 040g2081040g2081  whose beginning was cut
          run 1: the agent died in it
          run 2
          Well, it is said 💛
          = completed (stop)
        --- exit 0
        $ recount replay 081 --instant
        session 081040g2081040g2
        (the events before number 11 were cut on NOW)
        ! the agent died in its turn: it is gone
        · running it again: the policy is auto
        Well, it is said 💛
        = completed
        · the events before number 11 were cut
        --- exit 0
        $ recount verify 081
        whole: 18 events in 1 stream
        --- exit 0
        $ recount show 081 --at 14
        session 081040g2081040g2  idle, as of event 14 of 18

          cut        the events before number 11 were cut on NOW

        message 040g2081040g2081  whose beginning was cut
          run 1: the agent died in it
          run 2
          = the agent works on it
        --- exit 0
        $ recount show 081 --at 10
        --- stderr
        recount: of session 081040g2081040g2, the events before number 11 were cut on NOW: event 10 is one of them
          recount log 081040g2081040g2    shows what remains
        --- exit 1
        $ recount show 081 --at 2026-11-22T09:14:04.000Z
        --- stderr
        recount: how session 081040g2081040g2 stood at 2026-11-22T09:14:04.000000Z is not known any more: the events before number 11 were cut on NOW
          recount log 081040g2081040g2    shows what remains
        --- exit 1
        $ recount cut 081 --before 11
        --- stderr
        recount: nothing was cut: session/081040g2081040g2 cannot be cut before event 11: it has the events 11 to 18, and can be cut before a later one of them or after the last
        --- exit 1
        $ recount cut 081 --before 99
        --- stderr
        recount: nothing was cut: session/081040g2081040g2 cannot be cut before event 99: it has the events 11 to 18, and can be cut before a later one of them or after the last
        --- exit 1
        $ recount cut 081 --before 2026-11-22T09:14:04.000Z
        --- stderr
        recount: nothing of session 081040g2081040g2 is older than 2026-11-22T09:14:04.000000Z
        --- exit 1
        $ recount close 081
        --- stderr
        recount: session 081040g2081040g2 is closed already
        --- exit 1
        $ recount run --session 081 --agent scripted hello
        --- stderr
        recount: session 081040g2081040g2 is closed, and its beginning was cut off: nothing can be said in it
          leave --session out, or choose another --key, to begin another session
        --- exit 1
    "#]].assert_eq(&told);
    let listed = place.told(&["sessions"]);
    assert!(
        listed.contains("(the events before number 11 were cut on "),
        "{listed}"
    );
    // What began earlier comes last, and so does what is cut.
    let rows = place.json(&["sessions", "--json"]);
    assert_eq!(rows[0]["cut"], Value::Null);
    assert_eq!(rows[1]["session"], "081040g2081040g2");
    assert_eq!(rows[1]["status"], "closed");
    assert_eq!(rows[1]["cut"]["before"], 11);
    let shown = place.json(&["show", "081", "--json"]);
    assert_eq!(shown[0]["cut"], rows[1]["cut"]);
    let remaining = place.json(&["log", "081", "--json"]);
    let of_session = |event: &&Value| {
        event["stream"] == "session/081040g2081040g2" && event["seq"].as_u64() >= Some(11)
    };
    let expected: Vec<_> = before.iter().filter(of_session).collect();
    assert_eq!(remaining.iter().take(7).collect::<Vec<_>>(), expected);
    assert_eq!(remaining[7]["type"], "StreamCut");
    assert_eq!(remaining.len(), 8);
}

#[test]
fn of_a_session_that_was_cut_whole_an_event_remains() {
    let place = with_a_closed_session();
    place.check(&["cut", "081", "--all"], &expect![[r#"
        cut: 17 events of session 081040g2081040g2, numbers 1 to 17, 2026-11-22 09:14:03 to 2026-11-22 09:14:05
        --- stderr
        · recount compact    gives its space back
        --- exit 0
    "#]]);
    let mut all = Vec::new();
    for round in ["cut", "compacted", "rebuilt"] {
        let told = steady(&place.told_each(&[
            &["log", "081"],
            &["log", "081", "--reverse"],
            &["log", "081", "--follow"],
            &["show", "081"],
            &["replay", "081", "--instant"],
            &["show", "081", "--at", "16"],
            &["show", "081", "--at", "19"],
            &["cut", "081", "--all"],
            &["run", "--session", "081", "--agent", "scripted", "hello"],
            &["show", "latest"],
        ]));
        let listed: Vec<_> = place
            .json(&["sessions", "--json"])
            .iter()
            .map(|row| json!([row["session"], row["status"], row["cut"]["before"]]))
            .collect();
        assert_eq!(
            listed,
            [
                json!(["0c1g60r30c1g60r3", "idle", null]),
                json!(["081040g2081040g2", "closed", 18])
            ],
            "{round}"
        );
        place.printed(&["verify", "081"]);
        all.push(told);
        let next = if round == "cut" { "compact" } else { "rebuild" };
        place.printed(&[next]);
    }
    all.dedup();
    expect![[r#"
        $ recount log 081
        (the events before number 18 were cut on NOW)
        NOW    18  StreamCut              the events before number 18 were cut
        --- exit 0
        $ recount log 081 --reverse
        (the events before number 18 were cut on NOW)
        NOW    18  StreamCut              the events before number 18 were cut
        --- exit 0
        $ recount log 081 --follow
        (the events before number 18 were cut on NOW)
        NOW    18  StreamCut              the events before number 18 were cut
        --- exit 0
        $ recount show 081
        session 081040g2081040g2  closed, 18 events

          cut        the events before number 18 were cut on NOW
        --- exit 0
        $ recount replay 081 --instant
        session 081040g2081040g2
        (the events before number 18 were cut on NOW)
        · the events before number 18 were cut
        --- exit 0
        $ recount show 081 --at 16
        --- stderr
        recount: of session 081040g2081040g2, the events before number 18 were cut on NOW: event 16 is one of them
          recount log 081040g2081040g2    shows what remains
        --- exit 1
        $ recount show 081 --at 19
        --- stderr
        recount: session 081040g2081040g2 has 18 events, and none with number 19
          recount log 081040g2081040g2    numbers them
        --- exit 1
        $ recount cut 081 --all
        --- stderr
        recount: session 081040g2081040g2 was cut already: nothing else is left of it
        --- exit 1
        $ recount run --session 081 --agent scripted hello
        --- stderr
        recount: session 081040g2081040g2 is closed, and its beginning was cut off: nothing can be said in it
          leave --session out, or choose another --key, to begin another session
        --- exit 1
        $ recount show latest
        session 0c1g60r30c1g60r3  idle, 1 event
          agent      opencode
          directory  /work
          opened     2026-11-22 09:14:05

          connection connected
          breaker    closed
        --- exit 0
    "#]].assert_eq(&all.concat());
}

#[test]
fn a_key_whose_answer_was_cut_off_is_not_asked_again() {
    let place = Place::holding(interrupted());
    let session = SessionId::from_text("build-17");
    let events = [opened(), Event::SessionClosed];
    append(
        &place,
        events.map(|event| (StreamId::Session(session), event, BEGIN)),
    );
    let id = session.to_string();
    place.printed(&["cut", &id, "--all"]);
    let told = place.told(&["run", "--agent", "scripted", "--key", "build-17", "why?"]);
    let expected = format!("session {id} is closed, and its beginning was cut off");
    assert!(
        told.contains(&expected) && told.ends_with("--- exit 1\n"),
        "{told}"
    );
    assert_eq!(place.json(&["log", &id, "--json"]).len(), 1);
}

#[test]
fn the_space_of_what_was_cut_comes_back() {
    let place = with_a_closed_session();
    place.printed(&["cut", "081", "--all"]);
    let compacted = place.object(&["compact", "--json"]);
    // The 17 of the session are gone, and one says so.
    assert_eq!(compacted["events_before"], 26);
    assert_eq!(compacted["events_after"], 9);
    let bytes = |name: &str| compacted[name].as_u64().unwrap();
    assert!(bytes("bytes_after") <= bytes("bytes_before") && bytes("bytes_after") > 0);
    let told = place.told(&["compact"]);
    assert!(
        told.starts_with("compacted: 9 events before, 9 now; ") && told.ends_with("--- exit 0\n"),
        "{told}"
    );
    let verified = place.json(&["verify", "--json"]);
    assert_eq!(verified[0]["events"], 9);
}

#[test]
fn what_is_derived_is_made_anew() {
    let place = with_a_closed_session();
    let looks = [
        &["sessions", "--json"][..],
        &["log", "081", "--json"],
        &["show", "081", "--json"],
        &["verify", "--json"],
    ];
    let before = looks.map(|look| place.json(look));
    place.check(
        &["rebuild"],
        &expect![[r#"
        rebuilt: the index up to position 25, 3 streams, 0 snapshots
        the same: every stream stands where it stood
        --- exit 0
    "#]],
    );
    assert_eq!(looks.map(|look| place.json(look)), before);

    // Somebody took a stream out of the index.
    let database = storage(&place.data());
    let transaction = database.begin_write().unwrap();
    let heads: TableDefinition<'_, &[u8; 11], &[u8; 112]> = TableDefinition::new("stream_heads");
    let mut table = transaction.open_table(heads).unwrap();
    let gone = table.remove(&StreamId::Session(OTHER).to_bytes()).unwrap();
    assert!(gone.is_some());
    drop(gone);
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(place.json(&["sessions", "--json"]).len(), 1);
    place.check(
        &["rebuild"],
        &expect![[r#"
        rebuilt: the index up to position 25, 3 streams, 0 snapshots
        --- stderr
        recount: the index was wrong before, about 1 stream: session/0c1g60r30c1g60r3; it is mended
          recount verify    proves that the events are whole
        --- exit 1
    "#]],
    );
    let rebuilt = place.object(&["rebuild", "--json"]);
    assert_eq!(
        rebuilt,
        json!({"position": 25, "streams": 3, "snapshots": 0, "same": true, "moved": []})
    );
    assert_eq!(looks.map(|look| place.json(look)), before);
}

#[test]
fn old_sessions_old_frames_and_old_starts_are_let_go_of() {
    let place = Place::new();
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let ago = |days: u64| Timestamp(now.0 - days * 86_400_000_000);
    let started = |pid| Event::EngineStarted {
        version: "0.1.0".to_owned(),
        pid,
    };
    let (old, young, open) = (SESSION, OTHER, SessionId::from_bytes([5; 10]));
    let unsettled = SessionId::from_bytes([6; 10]);
    // What is kept in one go stays or goes together.
    for days in [[40, 39], [38, 1], [2, 1]] {
        let log = Log::open(place.data()).unwrap();
        for day in days {
            assert!(log.keep_frame(CONNECTION, ago(day), b"{}").is_some());
        }
    }
    append(
        &place,
        [
            (StreamId::Engine, started(1), ago(40)),
            (StreamId::Connection(CONNECTION), linked(), ago(40)),
            (StreamId::Session(old), opened(), ago(40)),
            (StreamId::Session(open), opened(), ago(40)),
            (StreamId::Session(unsettled), opened(), ago(40)),
            (
                StreamId::Session(unsettled),
                queued(MESSAGE, "hello"),
                ago(40),
            ),
            (StreamId::Session(unsettled), Event::SessionClosed, ago(40)),
            (StreamId::Session(old), Event::SessionClosed, ago(39)),
            (StreamId::Engine, Event::EngineStopped, ago(38)),
            (StreamId::Session(young), opened(), ago(37)),
            (StreamId::Engine, started(2), ago(36)),
            (StreamId::Session(young), Event::SessionClosed, ago(2)),
            (StreamId::Engine, Event::EngineStopped, ago(1)),
        ],
    );
    let retain = ["retain", "--older-than", "30d", "--frames-older-than", "1w"];
    let verified = place.json(&["verify", "--json"]);
    let told = |args: &[&str]| {
        // The days change; the numbers do not.
        let text = place.told(args);
        let lines = text.lines().map(|line| {
            let line = line.split_once(", 20").map_or(line, |(before, _)| before);
            line.split_once("; ").map_or(line, |(before, _)| before)
        });
        lines.fold(String::new(), |text, line| text + line + "\n")
    };
    expect![[r#"
        would cut: 2 events of the engine, numbers 1 to 2
        would cut: 2 events of session 081040g2081040g2, numbers 1 to 2
        would drop: up to 3 frames
        --- exit 0
    "#]]
    .assert_eq(&told(&[&retain[..], &["--dry-run"]].concat()));
    assert_eq!(place.json(&["verify", "--json"]), verified);
    expect![[r#"
        cut: 2 events of the engine, numbers 1 to 2
        cut: 2 events of session 081040g2081040g2, numbers 1 to 2
        dropped: 2 frames
        compacted: 15 events before, 11 now
        --- exit 0
    "#]]
    .assert_eq(&told(&[&retain[..], &["--compact"]].concat()));
    let rows: Vec<_> = place
        .json(&["sessions", "--json"])
        .iter()
        .map(|row| json!([row["session"], row["events"], row["cut"]["before"]]))
        .collect();
    assert_eq!(
        rows,
        [
            json!([young.to_string(), 2, null]),
            json!([unsettled.to_string(), 3, null]),
            json!([open.to_string(), 1, null]),
            json!([old.to_string(), 3, 3]),
        ]
    );
    place.printed(&["verify"]);
    let frames = LogReader::open(place.data())
        .unwrap()
        .frames(FrameNumber::FIRST)
        .map(|frame| frame.unwrap().number.0);
    assert_eq!(frames.collect::<Vec<_>>(), [3, 4, 5, 6]);
    expect![[r#"
        nothing is so old
        --- exit 0
    "#]]
    .assert_eq(&told(&retain));
    expect![[r#"
        --- exit 0
    "#]]
    .assert_eq(&told(&["retain", "--older-than", "30d", "--json"]));
}

// ---- killed at any moment

/// How many sessions there are; every other one is closed.
const SESSIONS: u8 = 4;

/// How many events each of them has: enough to be worth a snapshot, and several steps of compacting together.
const EVENTS: usize = 2000;

/// At how many moments a verb is killed.
const MOMENTS: u32 = 8;

const fn session(n: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([n; 10]))
}

/// What a session said, long enough that many of it fill the log.
fn long(n: usize) -> NewEvent {
    let event = said(MESSAGE, 1, &format!("{n} ").repeat(1500));
    NewEvent::live(event, Timestamp(n as u64))
}

/// A log with sessions whose events stand between each other's.
fn written() -> Place {
    let sessions = || (0..SESSIONS).map(session);
    let closed = NewEvent::live(Event::SessionClosed, Timestamp(EVENTS as u64));
    let batches = (0..EVENTS).step_by(20).flat_map(|first| {
        let batch = move || (first..first + 20).map(long).collect();
        sessions().map(move |session| (session, batch()))
    });
    Place::holding(
        sessions()
            .map(|session| (session, vec![NewEvent::live(opened(), Timestamp(1))]))
            .chain(batches)
            .chain(
                sessions()
                    .step_by(2)
                    .map(|session| (session, vec![closed.clone()])),
            ),
    )
}

/// Runs a verb to its end, on the log in this directory of a place; gives how long that took.
fn finish(place: &Place, data: &str, args: &[&str]) -> Duration {
    let began = Instant::now();
    place.printed(&[&["--data", data], args].concat());
    began.elapsed()
}

/// What a log holds, for readers.
#[derive(Debug, PartialEq)]
struct Held {
    streams: Vec<(StreamId, Seq, Seq)>,
    events: Vec<Recorded>,
}

fn held(data: &Path) -> Held {
    let reader = LogReader::open(data).unwrap();
    let streams = reader.streams().unwrap();
    let events = streams.iter().flat_map(|(stream, _)| {
        let events = reader.read(*stream, Seq::FIRST);
        events.collect::<Result<Vec<_>, _>>().unwrap()
    });
    let events = events.collect();
    let stands = streams.iter().map(|(id, head)| (*id, head.from, head.seq));
    Held {
        streams: stands.collect(),
        events,
    }
}

fn verified(data: &Path) -> Verified {
    verify(&LogReader::open(data).unwrap(), None).unwrap()
}

/// Kills a verb at moments of its life, each on a copy of the log, and looks at what it leaves. `same` says whether
/// that is as it should be; the verb is then run to its end, and the log is to hold what one does that was not killed.
fn killed(place: &Place, args: &[&str], same: impl Fn(&Held)) {
    let whole = place.path("whole");
    copy(&place.data(), &whole);
    let long = finish(place, "whole", args);
    let (done, proven) = (held(&whole), verified(&whole));
    same(&done);
    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let name = format!("copy-{moment}");
        let data = place.path(&name);
        copy(&place.data(), &data);
        let mut command = place.command(args);
        let mut running = Running::spawn(command.env("RECOUNT_DATA", &data));
        std::thread::sleep(long * moment / MOMENTS);
        running.kill_9();
        cut_short += u32::from(running.finish(VERB_TIMEOUT).status.code().is_none());
        // First as it was left, by who only reads; then by who opens it to write.
        verified(&data);
        same(&held(&data));
        drop(Log::open(&data).unwrap());
        same(&held(&data));
        finish(place, &name, args);
        let after = verified(&data);
        assert_eq!(after.streams, proven.streams, "{moment}");
        assert!(held(&data).streams == done.streams, "{moment}");
        fs::remove_dir_all(data).unwrap();
    }
    assert!(cut_short > 0, "it was always over before it was killed");
}

#[test]
fn compacting_can_be_killed_at_any_moment() {
    let place = written();
    for n in (0..SESSIONS).step_by(2) {
        let id = session(n).to_string();
        place.printed(&["cut", &id, "--all"]);
    }
    let before = held(&place.data());
    // Each that was cut is one event; the others are whole.
    let halves = usize::from(SESSIONS / 2);
    assert_eq!(before.events.len(), halves * (EVENTS + 1) + halves);
    killed(&place, &["compact"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    let bytes = |data: &Path| fs::metadata(data.join("log.redb")).unwrap().len();
    assert!(bytes(&place.path("whole")) < bytes(&place.data()));
}

#[test]
fn rebuilding_can_be_killed_at_any_moment() {
    let place = written();
    place.printed(&["cut", &session(0).to_string(), "--before", "500"]);
    let before = held(&place.data());
    killed(&place, &["rebuild"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    // Looking back is quick at once: each long session has a snapshot, as new as its last event.
    let reader = LogReader::open(place.path("whole")).unwrap();
    for n in 0..SESSIONS {
        let snapshot = reader.snapshot(session(n), "session").unwrap();
        let head = reader.stream_head(session(n)).unwrap().unwrap();
        assert_eq!(snapshot.map(|snapshot| snapshot.seq), Some(head.seq));
    }
    let pending = reader.snapshot(StreamId::Engine, "pending").unwrap();
    let Position(last) = reader.head().unwrap().position;
    assert_eq!(pending.map(|pending| pending.seq), Some(Seq(last)));
}

#[test]
fn retaining_can_be_killed_at_any_moment() {
    let place = written();
    let before = held(&place.data());
    let open = |held: &Held| -> Vec<Recorded> {
        let is_open =
            |event: &&Recorded| (0..SESSIONS).any(|n| n % 2 == 1 && event.stream == session(n));
        held.events.iter().filter(is_open).cloned().collect()
    };
    let untouched = open(&before);
    killed(
        &place,
        &["retain", "--older-than", "1d", "--compact"],
        |held| {
            assert!(open(held) == untouched);
            for n in (0..SESSIONS).step_by(2) {
                // Whole, or nothing but the event that says that it is gone.
                let mut events = held
                    .events
                    .iter()
                    .filter(|event| event.stream == session(n));
                let first = events.next().unwrap();
                let rest = events.count();
                match first.event {
                    Event::StreamCut { before, .. } => assert_eq!((before, rest), (first.seq, 0)),
                    _ => assert_eq!((first.seq, rest), (Seq::FIRST, EVENTS + 1)),
                }
            }
        },
    );
}
