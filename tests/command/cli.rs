//! The `recount` command as its text: what it prints where, and its exit code, with everything it may be given.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use expect_test::expect;
use recount_engine::{Policy, RerunPolicy};
use recount_store::{
    Event, Expected, FrameNumber, FramesBefore, Log, LogReader, NewEvent, Seq, StreamId,
};
use recount_tests::command::objects;
use recount_tests::place::Place;
use recount_tests::process::{Finished, Running};
use recount_tests::story::{CONNECTION, MESSAGE, SESSION, after, interrupted};
use serde_json::json;

#[test]
fn a_session_is_looked_at_from_each_side() {
    let place = Place::holding(interrupted());
    place.check(
        &["log", "081"],
        &expect![[r#"
        2026-11-22 UTC
        09:14:03.100     1  SessionOpened          opencode in /work
        09:14:03.200     2  MessageQueued          040g20 "Say it, с любовью"
        09:14:03.300    ~2  ConnectionChanged      disconnected to connecting
        09:14:03.400    ~3  ConnectionChanged      connecting to connected
        09:14:03.500     3  AgentSessionBound      ses
        09:14:03.600     4  DeliveryStarted        040g20 attempt 1 as msg
        09:14:03.700     5  DeliveryAccepted       040g20 at attempt 1
        09:14:03.800     6  TurnRequested          040g20
        09:14:03.900     7  TurnStarted            040g20
        09:14:04.000     8  OutputAppended         "Well, "
        09:14:04.100     9  ToolCallStarted        bash {"command": "true"} (call)
        09:14:04.200    10  ToolCallEnded          completed (call) "done"
        09:14:04.300    ~4  StreamLost             it broke
        09:14:04.400    ~5  ConnectionChanged      connected to disconnected
        09:14:04.500    ~6  ConnectionChanged      disconnected to connecting
        09:14:04.600    ~7  ConnectionChanged      connecting to connected
        09:14:04.700    11  TurnInterrupted        (inferred) 040g20: it is gone
        09:14:04.800    12  RerunDecided           040g20 runs again: the policy is auto
        09:14:04.900    13  TurnRequested          040g20 run 2
        09:14:05.000    14  TurnStarted            040g20 run 2
        09:14:05.100    15  OutputAppended         "Well, it is said 💛\n"
        09:14:05.200    16  TurnCompleted          040g20 run 2: stop
        --- exit 0
    "#]],
    );
    place.check(
        &["replay", "081", "--instant"],
        &expect![[r#"
        session 081040g2081040g2
        > Say it, с любовью
        · connected
        Well, 
        · tool bash {"command": "true"}
        · tool completed: done
        ! connection lost: it broke
        · connected
        ! the agent died in its turn: it is gone
        · running it again: the policy is auto
        Well, it is said 💛
        = completed
        --- exit 0
    "#]],
    );
    place.check(
        &["verify", "081"],
        &expect![[r#"
            whole: 23 events in 2 streams
            --- exit 0
        "#]],
    );
}

/// Adds frames to a log, and what they told of a session: the first of them nothing, the last one is dropped again.
fn with_frames() -> Place {
    let place = Place::holding(interrupted());
    let keep = |log: &Log, number: u64, text: &str| {
        let at = after(number * 100);
        let kept = log.keep_frame(CONNECTION, at, text.as_bytes());
        assert_eq!(kept, Some(FrameNumber(number)));
    };
    let told = |event, number| {
        let told = NewEvent::live(event, after(4000));
        told.from_frame(FrameNumber(number))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = Log::open(place.data()).unwrap();
        keep(&log, 1, r#"{"type":"gone"}"#);
        log.close().await.unwrap();
        let log = Log::open(place.data()).unwrap();
        keep(&log, 2, r#"{"type":"server.heartbeat"}"#);
        keep(&log, 3, "{\"type\":\n\"session.error\"}");
        let error = |name: &str| Event::AgentErrorReported {
            message: MESSAGE,
            name: name.to_owned(),
            reason: String::new(),
        };
        let events = vec![told(error("Old"), 1), told(error("New"), 3)];
        let stream = StreamId::Session(SESSION);
        log.append(stream, Expected::Any, events).await.unwrap();
        log.drop_frames(FramesBefore::Number(FrameNumber(2)))
            .await
            .unwrap();
        log.close().await.unwrap();
    });
    place
}

#[test]
fn frames_are_seen_as_they_came_and_under_what_was_made_from_them() {
    let place = with_frames();
    place.check(
        &["frames"],
        &expect![[r#"
        2026-11-22 UTC
        09:14:03.200     2  0g2081040g208104  {"type":"server.heartbeat"}
        09:14:03.300     3  0g2081040g208104  {"type":\n"session.error"}
        --- exit 0
    "#]],
    );
    place.check(
        &["frames", "--connection", "0G2", "--from", "3"],
        &expect![[r#"
            2026-11-22 UTC
            09:14:03.300     3  0g2081040g208104  {"type":\n"session.error"}
            --- exit 0
        "#]],
    );
    place.check(
        &["frames", "--from", "4"],
        &expect![[r#"
        --- stderr
        recount: no such frames are kept
        --- exit 0
    "#]],
    );
    place.check(
        &["frames", "--connection", "081"],
        &expect![[r#"
        --- stderr
        recount: which connection: no connection is called "081"; there are:
          0g2081040g208104    last event 2026-11-22T09:14:04.600000Z
        --- exit 1
    "#]],
    );
    let verified = place.told(&["verify"]);
    assert_eq!(
        verified.lines().next(),
        Some("whole: 26 events in 3 streams; 2 frames")
    );
    let shown = place.told(&["log", "081", "--frames"]);
    let (_, shown) = shown.split_once("run 2: stop\n").unwrap();
    expect![[r#"
        09:14:07.000    17  AgentErrorReported     Old:
                            frame 1  (not there any more)
        09:14:07.000    18  AgentErrorReported     New:
                            frame 3  {"type":\n"session.error"}
        --- exit 0
    "#]]
    .assert_eq(shown);

    let frame = json!({
        "frame": 3,
        "at": "2026-11-22T09:14:03.300000Z",
        "connection": "0g2081040g208104",
        "received": "{\"type\":\n\"session.error\"}",
    });
    let received = frame["received"].clone();
    assert_eq!(place.json(&["frames", "--from", "3", "--json"]), [frame]);
    let events = place.json(&["log", "081", "--frames", "--json"]);
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.get("frame").is_some())
        .map(|event| json!([event["frame"], event["received"]]))
        .collect();
    assert_eq!(told, [json!([1, null]), json!([3, received])]);
}

#[test]
fn who_wants_no_frames_kept_says_so() {
    let kept = |flag: &[&str], variable: Option<&str>| {
        let place = Place::new();
        let mut command = place.command(&["run", "--agent", "scripted"]);
        command.args(flag).arg("hello");
        if let Some(value) = variable {
            command.env("RECOUNT_FRAMES", value);
        }
        let output = Finished::of(&mut command);
        if !output.status.success() {
            return Err(output.status.code().unwrap());
        }
        let frames = place.json(&["frames", "--json"]);
        assert!(!frames.is_empty(), "what came is kept, or how much did");
        let events = place.json(&["log", "latest", "--json"]);
        let received = frames.iter().any(|frame| frame["received"].is_string());
        let named = events.iter().any(|event| event["frame"].is_u64());
        assert_eq!(named, received, "only what is kept can be named");
        Ok(received)
    };
    assert_eq!(kept(&[], None), Ok(true));
    assert_eq!(kept(&["--no-frames"], None), Ok(false));
    assert_eq!(kept(&["--no-frames"], Some("1")), Ok(false));
    assert_eq!(kept(&[], Some("0")), Ok(false));
    assert_eq!(kept(&[], Some("1")), Ok(true));
    assert_eq!(kept(&[], Some("perhaps")), Err(2));
}

#[test]
fn a_session_is_shown_as_it_stands_and_as_it_stood() {
    let place = Place::holding(interrupted());
    let shown = |args: &[&str]| {
        let text = place.told(args);
        // How long ago it was changes while one looks.
        let lines = text.lines().map(|line| match line.split_once(" (") {
            Some((before, age)) if age.ends_with("ago)") => before,
            _ => line,
        });
        lines.fold(String::new(), |text, line| text + line + "\n")
    };
    expect![[r#"
        session 081040g2081040g2  idle, 16 events
          agent      opencode
          directory  /work
          opened     2026-11-22 09:14:03
          last event 2026-11-22 09:14:05
          connection connected
          breaker    closed

        message 1 040g2081040g2081  completed, 1 attempt
          > Say it, с любовью
          run 1: the agent died in it
          Well, 
          [bash {"command": "true"}] completed
            done
          run 2
          Well, it is said 💛
          = completed (stop)
        --- exit 0
    "#]]
    .assert_eq(&shown(&["show", "081040"]));
    expect![[r#"
        session 081040g2081040g2  busy, as of event 8 of 16
          agent      opencode
          directory  /work
          opened     2026-11-22 09:14:03
          last event 2026-11-22 09:14:04
          connection connected
          breaker    closed

        message 1 040g2081040g2081  running, 1 attempt
          > Say it, с любовью
          Well, 
          = the agent works on it
        --- exit 0
    "#]]
    .assert_eq(&shown(&["show", "081040", "--at", "8"]));
    expect![[r#"
        session 081040g2081040g2  busy, as of event 10 of 16
          agent      opencode
          directory  /work
          opened     2026-11-22 09:14:03
          last event 2026-11-22 09:14:04
          as of      2026-11-22 09:14:04
          connection disconnected
          breaker    closed

        message 1 040g2081040g2081  running, 1 attempt
          > Say it, с любовью
          Well, 
          [bash {"command": "true"}] completed
            done
          = the agent works on it
        --- exit 0
    "#]]
    .assert_eq(&shown(&[
        "show",
        "081040",
        "--at",
        "2026-11-22T09:14:04.45Z",
    ]));
    expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 has 16 events, and none with number 99
          recount log 081040g2081040g2    numbers them
        --- exit 1
    "#]]
    .assert_eq(&shown(&["show", "081040", "--at", "99"]));
    expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 did not exist at 2020-01-01T00:00:00.000000Z: it was opened at 2026-11-22T09:14:03.100000Z
        --- exit 1
    "#]].assert_eq(&shown(&["show", "081040", "--at", "2020-01-01T00:00:00Z"]));
}

#[test]
fn json_has_what_was_agreed() {
    let place = Place::holding(interrupted());
    let events = place.json(&["log", "081", "--json"]);
    let members = [
        "at",
        "cause",
        "class",
        "data",
        "position",
        "provenance",
        "seq",
        "stream",
        "type",
    ];
    for event in &events {
        let event = event.as_object().unwrap();
        let mut found: Vec<_> = event.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, members);
    }
    let positions: Vec<_> = events
        .iter()
        .map(|event| event["position"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, (2..=23).collect::<Vec<_>>());
    let shown = place.json(&["show", "081", "--json"]);
    let [shown] = &shown[..] else {
        panic!("show prints one object: {shown:#?}");
    };
    assert_eq!(shown["session"], "081040g2081040g2");
    assert_eq!(shown["status"], "idle");
    assert_eq!(shown["messages"][0]["text"], "Say it, с любовью");
    assert_eq!(shown["messages"][0]["attempts"], 1);
    assert_eq!(shown["turns"][0]["text"], "Well, it is said 💛\n");
    assert_eq!(shown["turns"][0]["runs"][0]["text"], "Well, ");
    assert_eq!(shown["connection"]["state"], "connected");
    assert_eq!(shown["connection"]["attempt"], 1);
    assert_eq!(shown["breaker"], "closed");
    let sessions = place.json(&["sessions", "--json"]);
    let listed: Vec<_> = sessions
        .iter()
        .map(|row| {
            json!([
                row["session"],
                row["status"],
                row["messages"],
                row["events"]
            ])
        })
        .collect();
    // Newest first.
    assert_eq!(
        listed,
        [
            json!(["0c1g60r30c1g60r3", "idle", 0, 1]),
            json!(["081040g2081040g2", "idle", 1, 16])
        ]
    );
    let [verified] = &place.json(&["verify", "--json"])[..] else {
        panic!("verify prints one object");
    };
    assert_eq!(verified["ok"], true);
    assert_eq!(verified["events"], 24);
}

#[test]
fn what_is_typed_means_one_session_or_none() {
    let place = Place::holding(interrupted());
    place.check(
        &["log", "latest"],
        &expect![[r#"
        2026-11-22 UTC
        09:14:05.300     1  SessionOpened          opencode in /work
        --- exit 0
    "#]],
    );
    place.check(
        &["show", "0"],
        &expect![[r#"
        --- stderr
        recount: which session: "0" begins the names of 2 sessions:
          0c1g60r30c1g60r3    last event 2026-11-22T09:14:05.300000Z
          081040g2081040g2    last event 2026-11-22T09:14:05.200000Z
        --- exit 1
    "#]],
    );
    let mut told = Vec::new();
    for verb in [
        &["show", "nosuch"][..],
        &["log", "nosuch"],
        &["replay", "nosuch"],
        &["verify", "nosuch"],
        &["close", "nosuch"],
        &["cut", "nosuch", "--all"],
        &["cut", "nosuch", "--all", "--dry-run"],
        &["run", "--session", "nosuch", "hello"],
    ] {
        told.push(place.told(verb));
    }
    told.dedup();
    expect![[r#"
        --- stderr
        recount: which session: no session is called "nosuch"; there are:
          0c1g60r30c1g60r3    last event 2026-11-22T09:14:05.300000Z
          081040g2081040g2    last event 2026-11-22T09:14:05.200000Z
        --- exit 1
    "#]]
    .assert_eq(&told.concat());
}

#[test]
fn events_are_read_backwards_and_between_times() {
    let place = Place::holding(interrupted());
    let forward = place.json(&["log", "081", "--json"]);
    let mut backward = place.json(&["log", "081", "--json", "--reverse"]);
    assert_eq!(backward.len(), 22);
    backward.reverse();
    assert_eq!(backward, forward);
    place.check(
        &["log", "081", "--reverse", "--limit", "7"],
        &expect![[r#"
        2026-11-22 UTC
        09:14:05.200    16  TurnCompleted          040g20 run 2: stop
        09:14:05.100    15  OutputAppended         "Well, it is said 💛\n"
        09:14:05.000    14  TurnStarted            040g20 run 2
        09:14:04.900    13  TurnRequested          040g20 run 2
        09:14:04.800    12  RerunDecided           040g20 runs again: the policy is auto
        09:14:04.700    11  TurnInterrupted        (inferred) 040g20: it is gone
        09:14:04.600    ~7  ConnectionChanged      connecting to connected
        --- exit 0
    "#]],
    );
    place.check(
        &[
            "log",
            "081",
            "--since",
            "2026-11-22T09:14:04.3Z",
            "--until",
            "2026-11-22T09:14:04.7Z",
        ],
        &expect![[r#"
            2026-11-22 UTC
            09:14:04.300    ~4  StreamLost             it broke
            09:14:04.400    ~5  ConnectionChanged      connected to disconnected
            09:14:04.500    ~6  ConnectionChanged      disconnected to connecting
            09:14:04.600    ~7  ConnectionChanged      connecting to connected
            09:14:04.700    11  TurnInterrupted        (inferred) 040g20: it is gone
            --- exit 0
        "#]],
    );
    place.check(
        &[
            "log",
            "081",
            "--reverse",
            "--until",
            "2026-11-22T09:14:03.300Z",
            "--limit",
            "2",
        ],
        &expect![[r#"
            2026-11-22 UTC
            09:14:03.300    ~2  ConnectionChanged      disconnected to connecting
            09:14:03.200     2  MessageQueued          040g20 "Say it, с любовью"
            --- exit 0
        "#]],
    );
    place.check(
        &["log", "081", "--since", "2027-01-01T00:00:00Z"],
        &expect![[r#"
            --- stderr
            recount: session 081040g2081040g2 has no events then
            --- exit 0
        "#]],
    );
}

#[test]
fn who_reads_only_the_beginning_ends_it_normally() {
    let place = Place::holding(interrupted());
    // It learns of it when it has something to say.
    let ended = Finished::unread(&mut place.command(&["log", "081", "--follow"]));
    assert_eq!(ended.text(), "--- exit 0\n");
}

#[test]
fn a_repeated_command_gives_the_same_answer_and_asks_nobody() {
    let place = Place::new();
    let run = ["run", "--agent", "scripted", "--key", "k", "hello"];
    let first = place.printed(&run);
    let before = place.json(&["sessions", "--json"]);
    assert_eq!(place.printed(&run), first);
    assert_eq!(place.json(&["sessions", "--json"]), before);
    place.check(
        &["run", "--agent", "scripted", "--key", "k", "hello again"],
        &expect![[r#"
            --- stderr
            recount: cannot send this: the key "k" was used before for another text: a key names one message for ever
              use another --key, or the same message as before
            --- exit 1
        "#]],
    );
}

#[test]
fn what_waits_for_a_person_is_settled_by_the_command_that_is_named() {
    let place = Place::new();
    let run = [
        "run",
        "--agent",
        "scripted",
        "--permission",
        "allow",
        "script: words=6 delay=5ms tool die-once",
    ];
    let output = place.run(&run);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    let recovered = &place.object(&["recover", "--json"]);
    assert_eq!(
        (&recovered["waiting"], &recovered["open"]),
        (&json!(1), &json!(0))
    );
    let waits = &recovered["waits"][0];
    let input = r#"{"command":"echo scripted","description":"Show that tools work"}"#;
    assert_eq!(
        waits["tools"],
        json!([{
            "run": 1, "tool": "bash", "input": input, "outcome": "completed", "output": "scripted\n",
        }])
    );
    let told = place.told(&["recover"]);
    let line = "  tool bash {\"command\":\"echo scripted\",\"description\":\"Show that to…: gave scripted\n";
    assert!(told.contains(line), "{told}");
    let message = waits["message"].as_str().unwrap();
    assert_eq!(
        waits["settle_with"],
        json!([
            format!("recount resolve {message} rerun"),
            format!("recount resolve {message} give-up"),
            "recount recover --rerun auto",
            "recount recover --rerun never"
        ])
    );
    let recovered = &place.object(&["recover", "--rerun", "never", "--json"]);
    assert_eq!(
        (&recovered["waiting"], &recovered["open"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(recovered["messages"][0]["state"], "failed");
    assert_eq!(place.told(&["recover"]), "nothing was open\n--- exit 0\n");
}

#[test]
fn a_question_in_words_is_refused_where_nobody_can_answer_it() {
    let place = Place::new();
    let run = |policy: &str| {
        let prompt = "script: words=2 delay=0ms question";
        place.run(&["run", "--agent", "scripted", "--permission", policy, prompt])
    };
    let output = run("reject");
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    let stands = &place.object(&["show", "latest", "--json"]);
    assert_eq!(
        stands["turns"][0]["ending"],
        "its question was refused: Which colour shall it be?"
    );
    let question = &stands["turns"][0]["questions"][0];
    let asks = json!({"words": [{
        "header": "Colour", "text": "Which colour shall it be?", "multiple": false, "custom": true,
        "options": [{"label": "red", "about": "Like fire"}, {"label": "blue", "about": "Like water"}],
    }]});
    assert_eq!(
        (&question["asks"], &question["answer"], &question["settled"]),
        (&asks, &json!("reject"), &json!(true))
    );
    let told = place.told(&["show", "latest"]);
    assert!(
        told.contains("  question: Which colour shall it be?: no\n"),
        "{told}"
    );
}

#[test]
fn another_process_follows_and_ctrl_c_ends_the_turn() {
    let patience = Duration::from_secs(60);
    let place = Place::new();
    let prompt = "script: words=1000 delay=20ms";
    let run = Running::spawn(&mut place.command(&["run", "--agent", "scripted", prompt]));
    while place.run(&["show", "latest"]).status.code() != Some(0) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let follow = Running::spawn(&mut place.command(&["log", "latest", "--follow", "--json"]));
    follow
        .stdout_line("OutputAppended", patience)
        .expect("it follows");
    run.interrupt();
    follow
        .stdout_line("TurnAborted", patience)
        .expect("it follows to the end");
    let run = run.finish(patience);
    assert_eq!(run.status.code(), Some(130), "{run:#?}");
    assert!(run.stdout.starts_with("word1 word2 "), "{run:#?}");
    assert_eq!(place.told(&["recover"]), "nothing was open\n--- exit 0\n");
    follow.interrupt();
    let follow = follow.finish(patience);
    assert_eq!(
        (follow.status.code(), follow.stderr.as_str()),
        (Some(130), "")
    );
    // What was followed is what the log holds, the end of the connection included.
    let followed = objects(follow.stdout.lines());
    let held = place.json(&["log", "latest", "--json"]);
    assert_eq!(followed[..held.len()], held);
}

#[test]
fn the_demonstration_falls_and_recovers_in_ten_seconds() {
    let place = Place::new();
    let began = Instant::now();
    let output = place.run(&["demo"]);
    let text = place.text(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("message sent once, connection lost once, answer completed once."),
        "{text}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    // The answer is seen once, though its agent began it twice.
    assert_eq!(
        text.matches("This answer is streamed in small pieces")
            .count(),
        1,
        "{text}"
    );
    let events = place.json(&["log", "latest", "--json"]);
    let count = |name: &str| events.iter().filter(|event| event["type"] == name).count();
    let counts = [
        "DeliveryStarted",
        "StreamLost",
        "TurnInterrupted",
        "TurnCompleted",
    ]
    .map(count);
    assert_eq!(counts, [1, 1, 1, 1]);
    let told: String = events
        .iter()
        .filter(|event| event["type"] == "OutputAppended" && event["data"]["run"] == 2)
        .map(|event| event["data"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        place.object(&["show", "latest", "--json"])["turns"][0]["text"],
        told
    );
    place.printed(&["verify"]);
}

/// What the command does where it is told nothing: a person waits, so what cannot be reached is given up at once, and
/// a recovery goes on for as long as a turn may take.
fn of_the_command() -> Policy {
    let mut policy = Policy::default();
    policy.session.unreachable_patience = Duration::ZERO;
    policy.engine.recovery_max = policy.session.turn_max;
    policy
}

#[test]
fn the_policy_in_force_is_the_defaults_then_the_file_then_the_environment() {
    let place = Place::new();
    let printed = |command: &mut Command| {
        let told = Finished::of(command);
        Policy::from_toml(&told.stdout).unwrap_or_else(|error| panic!("{error}\n{told:#?}"))
    };
    let mut expected = of_the_command();
    assert_eq!(printed(&mut place.command(&["policy"])), expected);

    // The file of the data directory.
    fs::create_dir(place.data()).unwrap();
    fs::write(
        place.data().join("recount.toml"),
        "[session]\nruns_max = 4\nlooks_max = 4\nunreachable_patience = '1m'",
    )
    .unwrap();
    expected.session.runs_max = 4;
    expected.session.looks_max = 4;
    expected.session.unreachable_patience = Duration::from_secs(60);
    assert_eq!(printed(&mut place.command(&["policy"])), expected);

    // Over it the environment.
    let mut command = place.command(&["policy"]);
    command.env("RECOUNT_POLICY_SESSION_LOOKS_MAX", "2");
    expected.session.looks_max = 2;
    assert_eq!(printed(&mut command), expected);

    // Instead of it another file, whose name the environment gives, or a flag.
    fs::write(place.path("other.toml"), "session.rerun = 'never'").unwrap();
    let mut expected = of_the_command();
    expected.session.rerun = RerunPolicy::Never;
    let mut command = place.command(&["policy"]);
    command.env("RECOUNT_POLICY", "other.toml");
    assert_eq!(printed(&mut command), expected);
    let mut command = place.command(&["policy", "--policy", "other.toml"]);
    assert_eq!(printed(&mut command), expected);

    let object = place.json(&["policy", "--json", "--policy", "other.toml"]);
    assert_eq!(object, [serde_json::to_value(&expected).unwrap()]);
}

#[test]
fn a_policy_file_is_checked_key_by_key() {
    let place = Place::new();
    let write = |text: &str| fs::write(place.path("strict.toml"), text).unwrap();
    write("session.turn_max = '20m'");
    place.check(
        &["policy", "check", "strict.toml"],
        &expect![[r#"
            strict.toml can be used
            --- exit 0
        "#]],
    );
    write("[session]\nturn_max = '20 bananas'");
    place.check(&["policy", "check", "strict.toml"], &expect![[r#"
        --- stderr
        recount: cannot use the policy: strict.toml: session.turn_max: invalid value: string "20 bananas", expected a duration with its unit, such as "250ms", "30s", "5m" or "24h"
          recount policy    prints every key, and what is in force
        --- exit 1
    "#]]);
    write("connection.circuit.delay_min = '2m'");
    place.check(&["run", "--agent", "scripted", "--policy", "strict.toml", "hello"], &expect![[r#"
        --- stderr
        recount: cannot use the policy: strict.toml: connection.circuit.delay_min is 2m; it must be at most connection.circuit.delay_max, which is 1m
        --- exit 1
    "#]]);
    place.check(&["policy", "check", "none.toml"], &expect![[r#"
        --- stderr
        recount: cannot use the policy: cannot read the policy none.toml: No such file or directory (os error 2)
          recount policy    prints every key, and what is in force
        --- exit 1
    "#]]);
}

#[test]
fn a_run_records_the_policy_that_it_follows() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("recount.toml"), "session.runs_max = 4").unwrap();
    place.printed(&["run", "--agent", "scripted", "--rerun", "never", "hello"]);
    let reader = LogReader::open(place.data()).unwrap();
    let mut expected = of_the_command();
    expected.session.runs_max = 4;
    expected.session.rerun = RerunPolicy::Never;
    let adopted: Vec<_> = reader
        .read(StreamId::Engine, Seq::FIRST)
        .filter_map(|recorded| match recorded.unwrap().event {
            Event::PolicyAdopted { policy } => Some(policy),
            _ => None,
        })
        .collect();
    assert_eq!(adopted, [expected.to_json()]);
}
