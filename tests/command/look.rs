//! `recount find`, `bisect`, `why` and `diff` as their text: what they print where, and their exit codes.

use expect_test::expect;
use recount_store::{
    Cause, ConnectionState, Event, Json, MessageId, NewEvent, Position, Provenance, Refusal, Rerun,
    SessionId, StreamId, ToolOutcome,
};
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::story::{
    CONNECTION, MESSAGE, OTHER, SESSION, after, linked, opened, queued, said,
};
use serde_json::json;

const SECOND: MessageId = MessageId::from_bytes([5; 10]);

/// An event of the log: its stream, what it follows from by position, and what it is; half a second apart.
type Told = (StreamId, u64, Event);

/// What two sessions did on one connection: the first is refused once, and its agent dies under a tool; the second
/// is answered.
fn story() -> Vec<Told> {
    let (session, other) = (StreamId::Session(SESSION), StreamId::Session(OTHER));
    let connection = StreamId::Connection(CONNECTION);
    let started = |message, attempt| Event::DeliveryStarted {
        message,
        attempt,
        agent_message: format!("msg_{message}"),
    };
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (down, trying, up) = (
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    );
    let policy = json!({"session": {"rerun": "ask", "runs_max": 10, "retries": {"for_now": {"attempts_max": 8}}}});
    vec![
        (
            StreamId::Engine,
            0,
            Event::PolicyAdopted {
                policy: Json::of(&policy),
            },
        ),
        (connection, 0, linked()),
        (session, 0, opened()),
        (session, 0, queued(MESSAGE, "Mend the Build")),
        (connection, 2, changed(down, trying)),
        (connection, 5, changed(trying, up)),
        (session, 4, started(MESSAGE, 1)),
        (
            session,
            7,
            Event::DeliveryRejected {
                message: MESSAGE,
                attempt: 1,
                refusal: Refusal::ForNow { retry_after: None },
                reason: "503: busy".to_owned(),
            },
        ),
        (
            session,
            8,
            Event::RetryScheduled {
                message: MESSAGE,
                attempt: 2,
                at: after(4500),
            },
        ),
        (session, 9, started(MESSAGE, 2)),
        (
            session,
            10,
            Event::DeliveryAccepted {
                message: MESSAGE,
                attempt: 2,
            },
        ),
        (
            session,
            11,
            Event::TurnRequested {
                message: MESSAGE,
                run: 1,
            },
        ),
        (
            session,
            12,
            Event::TurnStarted {
                message: MESSAGE,
                run: 1,
            },
        ),
        (session, 13, said(MESSAGE, 1, "Let me look. ")),
        (session, 13, said(MESSAGE, 1, "It says:")),
        (
            session,
            13,
            Event::ToolCallStarted {
                message: MESSAGE,
                run: 1,
                call: "call".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command": "rm -rf target"}"#.to_vec()),
            },
        ),
        (
            connection,
            0,
            Event::StreamLost {
                reason: "it broke".to_owned(),
            },
        ),
        (connection, 17, changed(up, down)),
        (
            session,
            17,
            Event::ToolCallEnded {
                message: MESSAGE,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Lost,
                output: String::new(),
            },
        ),
        (
            session,
            17,
            Event::TurnInterrupted {
                message: MESSAGE,
                run: 1,
                answers: Vec::new(),
                evidence: "its process is gone".to_owned(),
            },
        ),
        (
            session,
            20,
            Event::RerunDecided {
                message: MESSAGE,
                run: 1,
                rerun: Rerun::Wait,
                reason: "a tool had begun: bash".to_owned(),
            },
        ),
        (connection, 18, changed(down, trying)),
        (connection, 22, changed(trying, up)),
        (other, 0, opened()),
        (other, 0, queued(SECOND, "Mend the Build")),
        (other, 25, started(SECOND, 1)),
        (
            other,
            26,
            Event::DeliveryAccepted {
                message: SECOND,
                attempt: 1,
            },
        ),
        (
            other,
            27,
            Event::TurnRequested {
                message: SECOND,
                run: 1,
            },
        ),
        (
            other,
            28,
            Event::TurnStarted {
                message: SECOND,
                run: 1,
            },
        ),
        (other, 29, said(SECOND, 1, "Let me look. It says:")),
        (
            other,
            30,
            Event::TurnCompleted {
                message: SECOND,
                run: 1,
                finish: "stop".to_owned(),
            },
        ),
    ]
}

fn holding(told: Vec<Told>) -> Place {
    Place::holding((1..).zip(told).map(|(n, (stream, cause, event))| {
        let inferred = matches!(event, Event::TurnInterrupted { .. });
        let mut event = NewEvent::live(event, after(n * 500));
        if cause > 0 {
            event = event.because(Cause::At(Position(cause)));
        }
        if inferred {
            event = event.known(Provenance::Inferred);
        }
        (stream, vec![event])
    }))
}

fn with_a_log() -> Place {
    holding(story())
}

#[test]
fn events_are_found_by_what_they_are_like() {
    let place = with_a_log();
    let found = |args: &[&str]| -> Vec<u64> {
        let args = [&["find", "--json"], args].concat();
        let lines = place.json(&args);
        lines
            .iter()
            .map(|line| line["position"].as_u64().unwrap())
            .collect()
    };
    place.check(&["find", "--error"], &expect![[r#"
        2026-11-22 UTC
        09:14:07.000  081040g2081040g2     4  DeliveryRejected       040g20 at attempt 1, for now: 503: busy
        09:14:11.500  0g2081040g208104    ~4  StreamLost             it broke
        09:14:12.500  081040g2081040g2    13  ToolCallEnded          lost (call) ""
        09:14:13.000  081040g2081040g2    14  TurnInterrupted        (inferred) 040g20: its process is gone
        --- exit 0
    "#]]);
    place.check(&["find", "--longer-than", "1s"], &expect![[r#"
        2026-11-22 UTC
        09:14:12.500  081040g2081040g2    13  ToolCallEnded          lost (call) ""  (tool call took 1.5 s)
        09:14:14.500  0g2081040g208104    ~7  ConnectionChanged      connecting to connected  (outage took 2.5 s)
        09:14:18.500  0c1g60r30c1g60r3     8  TurnCompleted          0m2ga1: stop  (turn took 1.5 s)
        09:14:09.000  081040g2081040g2     8  TurnRequested          040g20  (turn goes on for 9.5 s)
        --- exit 0
    "#]]);
    place.check(
        &["find", "--type", "TurnInterrupted", "--json"],
        &expect![[r#"
            {"position":20,"stream":"session/081040g2081040g2","seq":14,"at":"2026-11-22T09:14:13.000000Z","cause":17,"class":"observed","provenance":"inferred","type":"TurnInterrupted","data":{"message":"040g2081040g2081","run":1,"answers":[],"evidence":"its process is gone"},"session":"081040g2081040g2"}
            --- exit 0
        "#]],
    );
    assert_eq!(
        found(&["--type", "StreamLost", "--type", "PolicyAdopted"]),
        [1, 17]
    );
    assert_eq!(found(&["--state", "connected"]), [6, 23]);
    assert_eq!(found(&["--text", r"mend\sthe"]), [4, 25]);
    assert_eq!(found(&["--text", "rm .*target$"]), [16]);
    assert_eq!(
        found(&["--class", "decided", "--session", "081"]),
        [5, 6, 7, 9, 10, 12, 18, 21, 22, 23]
    );
    assert_eq!(found(&["--provenance", "inferred"]), [20]);
    let time = "2026-11-22T09:14:12Z";
    assert_eq!(found(&["--since", time, "--until", time]), [18]);
    assert_eq!(
        found(&["--error", "--newest-first", "--limit", "2"]),
        [20, 19]
    );
    assert_eq!(
        found(&["--where", "data.attempt > 1 and class == \"decided\""]),
        [9, 10]
    );
    assert_eq!(
        found(&["--where", "data.input.command contains \"rm -rf\""]),
        [16]
    );
    assert_eq!(
        found(&["--longer-than", "1s", "--newest-first"]),
        [12, 31, 23, 19]
    );
    assert_eq!(found(&["--longer-than", "2s", "--limit", "1"]), [23]);
    assert_eq!(found(&[]).len(), story().len());
    let span = &place.json(&["find", "--longer-than", "2s", "--json"])[0]["span"];
    assert_eq!(
        span,
        &json!({"of": "outage", "milliseconds": 2500, "began": 18, "ended": true})
    );
}

#[test]
fn what_cannot_be_looked_for_is_said() {
    let place = with_a_log();
    place.check(
        &["find", "--type", "TurnFailed"],
        &expect![[r#"
        --- stderr
        recount: nothing is like that in 31 events
        --- exit 1
    "#]],
    );
    place.check(
        &["find", "--text", "("],
        &expect![[r#"
        --- stderr
        recount: "(" is no regular expression
          regex parse error:
              (
              ^
          error: unclosed group
        --- exit 2
    "#]],
    );
    place.check(
        &["find", "--where", "data.attempt >"],
        &expect![[r#"
        --- stderr
        recount: this is no condition: a number or a time belongs here, not the end
          data.attempt >
                        ^
        --- exit 2
    "#]],
    );
    place.check(&["find", "--where", "sesion == \"x\""], &expect![[r#"
        --- stderr
        recount: this is no condition: there is no `sesion` here
          sesion == "x"
          ^^^^^^
          there are: position, stream, session, seq, at, cause, class, provenance, id, frame, type, data
        --- exit 2
    "#]]);
    let finished = place.run(&["find", "--type", "StreamLos"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("StreamLost"), "{finished:#?}");
}

#[test]
fn the_moment_at_which_something_became_true_is_found() {
    let place = with_a_log();
    place.check(
        &[
            "bisect",
            "081",
            "connection.state == \"disconnected\" and events > 2",
        ],
        &expect![[r#"
            2026-11-22 UTC
            09:14:12.000    ~5  ConnectionChanged      connected to disconnected
                                became true: connection.state is "disconnected"; events is 12
            --- exit 0
        "#]],
    );
    place.check(
        &[
            "bisect",
            "081",
            "connection.state == \"connected\"",
            "--all",
        ],
        &expect![[r#"
            2026-11-22 UTC
            09:14:06.000    ~3  ConnectionChanged      connecting to connected
                                became true: connection.state is "connected"
            09:14:12.000    ~5  ConnectionChanged      connected to disconnected
                                became false: connection.state is "disconnected"
            09:14:14.500    ~7  ConnectionChanged      connecting to connected
                                became true: connection.state is "connected"
            --- exit 0
        "#]],
    );
    place.check(
        &[
            "bisect",
            "081",
            "turns.last.text contains \"says\"",
            "--json",
        ],
        &expect![[r#"
            {"position":15,"stream":"session/081040g2081040g2","seq":11,"at":"2026-11-22T09:14:10.500000Z","cause":13,"class":"observed","provenance":"live","type":"OutputAppended","data":{"message":"040g2081040g2081","run":1,"part":"prt","kind":"text","placement":"end","text":"It says:"},"holds":true,"there":{"turns.last.text":["Let me look. It says:"]}}
            --- exit 0
        "#]],
    );
    place.check(
        &["bisect", "081", "queue.dead_letters > 0"],
        &expect![[r#"
            --- stderr
            recount: of session 081040g2081040g2 it was never true that queue.dead_letters > 0, over 21 events
              recount show 081040g2081040g2 --json    shows what it is asked of
            --- exit 1
        "#]],
    );
    place.check(
        &["bisect", "081", "queue.deadletters > 0"],
        &expect![[r#"
            --- stderr
            recount: this is no condition: there is no `deadletters` here
              queue.deadletters > 0
                    ^^^^^^^^^^^
              there are: open, bytes, dead_letters
            --- exit 2
        "#]],
    );
}

#[test]
fn the_causes_of_an_event_are_told_with_what_was_known() {
    let place = with_a_log();
    place.check(
        &["why", "081", "last"],
        &expect![[r#"
        2026-11-22 UTC
        09:14:13.500    15  RerunDecided           040g20 waits for a person: a tool had begun: bash
                            knew: message interrupted, 2 attempts, last: 503: busy
                            knew: turn interrupted, run 1, tools had begun: bash
                            knew: connection disconnected
                            policy: session.rerun = "ask"
                            policy: session.runs_max = 10
        09:14:13.000    14  TurnInterrupted        (inferred) 040g20: its process is gone
        09:14:11.500    ~4  StreamLost             it broke
                            the world did it
        --- exit 0
    "#]],
    );
    place.check(&["why", "081", "last:RetryScheduled"], &expect![[r#"
        2026-11-22 UTC
        09:14:07.500     5  RetryScheduled         040g20 attempt 2 not before 2026-11-22T09:14:07.500000Z
                            knew: message refused, 1 attempt, last: 503: busy
                            knew: connection connected
                            policy: session.retries.for_now = {"attempts_max":8}
                            policy: session.retries.retry_after_max as it is by default
        09:14:07.000     4  DeliveryRejected       040g20 at attempt 1, for now: 503: busy
        09:14:06.500     3  DeliveryStarted        040g20 attempt 1 as msg_040g2081040g2081
                            knew: message queued, 0 attempts
                            knew: connection connected
        09:14:05.000     2  MessageQueued          040g20 "Mend the Build"
                            somebody asked for it
        --- exit 0
    "#]]);
    place.check(&["why", "081", "~4", "--effects"], &expect![[r#"
        2026-11-22 UTC
        09:14:11.500    ~4  StreamLost             it broke
        6 events followed from it, over 3.0 s
          09:14:12.000    ~5  ConnectionChanged      connected to disconnected
          09:14:14.000    ~6  ConnectionChanged      disconnected to connecting
          09:14:14.500    ~7  ConnectionChanged      connecting to connected
          09:14:12.500    13  ToolCallEnded          lost (call) ""
          09:14:13.000    14  TurnInterrupted        (inferred) 040g20: its process is gone
          09:14:13.500    15  RerunDecided           040g20 waits for a person: a tool had begun: bash
        --- exit 0
    "#]]);
    place.check(&["why", "081", "9", "--effects"], &expect![[r#"
        2026-11-22 UTC
        09:14:09.500     9  TurnStarted            040g20
        09:14:09.000     8  TurnRequested          040g20
                            knew: message accepted, 2 attempts, last: 503: busy
                            knew: connection connected
        09:14:08.500     7  DeliveryAccepted       040g20 at attempt 2
        09:14:08.000     6  DeliveryStarted        040g20 attempt 2 as msg_040g2081040g2081
                            knew: message refused, 1 attempt, not before 2026-11-22T09:14:07.500000Z, last: 503: busy
                            knew: connection connected
        09:14:07.500     5  RetryScheduled         040g20 attempt 2 not before 2026-11-22T09:14:07.500000Z
                            knew: message refused, 1 attempt, last: 503: busy
                            knew: connection connected
                            policy: session.retries.for_now = {"attempts_max":8}
                            policy: session.retries.retry_after_max as it is by default
        09:14:07.000     4  DeliveryRejected       040g20 at attempt 1, for now: 503: busy
        09:14:06.500     3  DeliveryStarted        040g20 attempt 1 as msg_040g2081040g2081
                            knew: message queued, 0 attempts
                            knew: connection connected
        09:14:05.000     2  MessageQueued          040g20 "Mend the Build"
                            somebody asked for it
        3 events followed from it, over 1.5 s
          09:14:10.000    10  OutputAppended         "Let me look. "  (and 1 more)
          09:14:11.000    12  ToolCallStarted        bash {"command": "rm -rf target"} (call)
        --- exit 0
    "#]]);
    place.check(
        &["why", "081", "99"],
        &expect![[r#"
            --- stderr
            recount: session 081040g2081040g2 has no event with number 99
              recount log 081040g2081040g2    numbers them
            --- exit 1
        "#]],
    );
    place.check(
        &["why", "081", "last:TurnFailed"],
        &expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 has no TurnFailed, and its connection none in its time
          recount log 081040g2081040g2    shows what there is
        --- exit 1
    "#]],
    );
    let told = place.json(&["why", "081", "last", "--json"]);
    let told: Vec<_> = told
        .iter()
        .map(|line| json!([line["is"], line["type"], line["knew"]["turn"]["tools"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["event", "RerunDecided", ["bash"]]),
            json!(["cause", "TurnInterrupted", null]),
            json!(["cause", "StreamLost", null])
        ]
    );
    let told = place.json(&["why", "081", "9", "--effects", "--json"]);
    let told: Vec<_> = told
        .iter()
        .filter(|line| line["is"] == "effect")
        .map(|line| json!([line["type"], line["depth"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["OutputAppended", 1]),
            json!(["OutputAppended", 1]),
            json!(["ToolCallStarted", 1])
        ]
    );
}

#[test]
fn two_moments_of_a_session_are_compared() {
    let place = with_a_log();
    place.check(&["diff", "081", "3", "9"], &expect![[r#"
        session 081040g2081040g2  from event 3 to event 9
          messages[040g2081040g2081].attempts: 1 -> 2
          messages[040g2081040g2081].reason: null -> "503: busy"
          messages[040g2081040g2081].state: "sending" -> "running"
          status: "queued" -> "busy"
          turns[040g2081040g2081]: new {"agent_error":null,"begun_at":"2026-11-22T09:14:09.000000Z","ending":null,"message":"040g2081040g2081","questions":[],"runs":[{"parts":[],"run":1,"started":true,"tools":[]}],"stalled":null,"state":"running"}
        between: DeliveryRejected, RetryScheduled, DeliveryStarted, DeliveryAccepted, TurnRequested, TurnStarted
        --- exit 0
    "#]]);
    place.check(
        &[
            "diff",
            "081",
            "2026-11-22T09:14:10Z",
            "2026-11-22T09:14:12Z",
        ],
        &expect![[r#"
            session 081040g2081040g2  from event 10 to event 12
              connection.since: "2026-11-22T09:14:06.000000Z" -> "2026-11-22T09:14:12.000000Z"
              connection.state: "connected" -> "disconnected"
              turns[040g2081040g2081].runs[1].parts[prt].text: went on "It says:"
              turns[040g2081040g2081].runs[1].tools[call]: new {"id":"call","input":{"command":"rm -rf target"},"outcome":null,"output":null,"tool":"bash"}
            between: OutputAppended, ToolCallStarted, StreamLost, ConnectionChanged
            --- exit 0
        "#]],
    );
    place.check(
        &["diff", "081", "5", "5"],
        &expect![[r#"
        session 081040g2081040g2  from event 5 to event 5
          nothing is otherwise
        between: no events
        --- exit 0
    "#]],
    );
    place.check(
        &["diff", "081", "5", "99"],
        &expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 has 15 events, and none with number 99
          recount log 081040g2081040g2    numbers them
        --- exit 1
    "#]],
    );
    place.check(
        &["diff", "081", "5"],
        &expect![[r#"
        --- stderr
        recount: compare 5 with which moment?
          recount diff 081040g2081040g2 5 B    names the other one
        --- exit 2
    "#]],
    );
    place.check(
        &["diff", "081", "9", "3"],
        &expect![[r#"
        --- stderr
        recount: the second moment is before the first
          name the earlier one first
        --- exit 2
    "#]],
    );
    place.check(&["diff", "081", "noon", "9"], &expect![[r#"
        --- stderr
        recount: "noon" is no moment: neither the number of an event nor a time like 2026-11-22T09:14:03Z, 2026-11-22 or 09:14
          recount log 081040g2081040g2    numbers the events
        --- exit 2
    "#]]);
    let told = place.json(&["diff", "081", "12", "13", "--json"]);
    assert_eq!(
        told,
        [json!({
            "session": SESSION,
            "from": 12,
            "to": 13,
            "changes": [
                {
                    "path": "connection.since",
                    "before": "2026-11-22T09:14:06.000000Z",
                    "after": "2026-11-22T09:14:12.000000Z",
                },
                {"path": "connection.state", "before": "connected", "after": "disconnected"},
                {
                    "path": "turns[040g2081040g2081].runs[1].tools[call].outcome",
                    "before": null,
                    "after": "lost",
                },
                {
                    "path": "turns[040g2081040g2081].runs[1].tools[call].output",
                    "before": null,
                    "after": "",
                },
            ],
            "events": {"StreamLost": 1, "ConnectionChanged": 1, "ToolCallEnded": 1},
        })]
    );
}

#[test]
fn two_sessions_are_laid_beside_each_other() {
    let place = with_a_log();
    place.check(
        &["diff", "081", "0c1"],
        &expect![[r#"
            - 081040g2081040g2 and + 0c1g60r30c1g60r3: 3 events alike, 4 differences
            the first difference
            - 09:14:05.500    ~2  ConnectionChanged      disconnected to connecting
                                  1 event followed from it
            and after it
            - 09:14:07.000     4  DeliveryRejected       040g20 at attempt 1, for now: 503: busy
                                  7 events followed from it
            + 09:14:16.500     4  DeliveryAccepted       0m2ga1 at attempt 1
                                  4 events followed from it
            - 09:14:11.500    ~4  StreamLost             it broke
                                  4 events followed from it
            --- exit 0
        "#]],
    );
    place.check(
        &["diff", "081", "081"],
        &expect![[r#"
        081040g2081040g2 and 081040g2081040g2 are alike: 18 events
        --- exit 0
    "#]],
    );
    let told = place.json(&["diff", "081", "0c1", "--json"]);
    let told: Vec<_> = told
        .iter()
        .map(|line| {
            json!([
                line["difference"],
                line["first"]["type"],
                line["second"]["type"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["only_first", "ConnectionChanged", null]),
            json!(["only_first", "DeliveryRejected", null]),
            json!(["only_second", null, "DeliveryAccepted"]),
            json!(["only_first", "StreamLost", null]),
            json!([null, null, null]),
        ]
    );
}

/// Two sessions, alike but for when, where and in how many pieces: nothing is different.
#[test]
fn what_differs_in_times_is_no_difference() {
    let mut told = story();
    // The first session's own, with the second's events after them once more under another name.
    let of_second: Vec<Told> = told
        .iter()
        .filter(|(stream, ..)| *stream == StreamId::Session(OTHER))
        .cloned()
        .collect();
    let third = SessionId::from_bytes([6; 10]);
    let (first_of_second, first_of_third) = (24, told.len() as u64 + 1);
    for (_, cause, event) in of_second {
        let cause = match cause {
            0 => 0,
            cause => cause - first_of_second + first_of_third,
        };
        told.push((StreamId::Session(third), cause, event));
    }
    let told = holding(told).told(&["diff", &OTHER.to_string(), &third.to_string()]);
    let alike = format!("{OTHER} and {third} are alike: 8 events\n--- exit 0\n");
    assert_eq!(told, alike);
}

#[test]
fn a_log_with_many_goes_is_searched_in_order() {
    let count: u64 = 40_000;
    let event = |n: u64| {
        let event = match n % 10_000 {
            0 => Event::SessionClosed,
            _ => Event::MessageCancelled { message: MESSAGE },
        };
        NewEvent::live(event, after(n))
    };
    let batches = (1..=count).step_by(2000).map(|first| {
        let batch = (first..first + 2000).map(event).collect();
        (StreamId::Session(SESSION), batch)
    });
    let place = Place::holding(batches);
    let found = |more: &[&str]| -> Vec<u64> {
        let args = [&["find", "--json", "--type", "SessionClosed"], more].concat();
        let lines = place.json(&args);
        lines
            .iter()
            .map(|line| line["position"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(found(&[]), [10_000, 20_000, 30_000, 40_000]);
    assert_eq!(found(&["--newest-first"]), [40_000, 30_000, 20_000, 10_000]);
    assert_eq!(found(&["--newest-first", "--limit", "1"]), [40_000]);
    let all = place.run(&["find", "--json"]);
    assert_eq!(all.stdout.lines().count() as u64, count);
}

/// What is printed can be typed: a time as it is told, in the zone that it is told in.
#[test]
fn times_are_read_as_they_are_told() {
    let place = with_a_log();
    let at = |args: &[&str]| place.json(&[&["show", "081", "--json", "--at"], args].concat());
    let shown = at(&["2026-11-22T09:14:08.5Z"]);
    assert_eq!(at(&["2026-11-22 09:14:08.5"]), shown);
    assert_eq!(at(&["2026-11-22 09:14:08.5", "--utc"]), shown);
    let of_day = |args: &[&str]| {
        place
            .json(&[&["log", "081", "--json"], args].concat())
            .len()
    };
    let all = of_day(&[]);
    assert_eq!(
        of_day(&["--since", "2026-11-22", "--until", "2026-11-23"]),
        all
    );
    place.check(
        &["log", "081", "--since", "2026-11-23"],
        &expect![[r#"
            --- stderr
            recount: session 081040g2081040g2 has no events then
            --- exit 0
        "#]],
    );
}

/// A connection's causes reach back to its first day: those that are near are told, and what began it.
#[test]
fn a_long_chain_is_told_by_its_ends() {
    let week = fixture("week");
    let told = |args: &[&str]| {
        week.run(&[&["why", "latest", "~139"], args].concat())
            .stdout
    };
    let events = |text: &str| text.lines().filter(|line| line.contains("  ~")).count();
    let short = told(&[]);
    assert_eq!(events(&short), 20, "{short}");
    let left_out = "                    69 causes before 2026-11-03 16:48:28, between these: --all shows them\n\
                    2026-11-02 UTC\n\
                    08:00:21.796    ~1  ConnectionOpened       opencode at http://agent-0.test:4096\n";
    assert!(short.contains(left_out), "{short}");
    assert_eq!(events(&told(&["--all"])), 89);
    assert_eq!(told(&["--json"]).lines().count(), 89);
}
