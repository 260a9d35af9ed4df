//! The `recount` command as its text: what it prints where, and its exit code, with everything it may be given.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use recount_engine::{Policy, RerunPolicy};
use recount_store::{
    ConnectionState, Event, Expected, FrameNumber, FramesBefore, Head, Json, Log, LogReader,
    NewEvent, Provenance, Rerun, Seq, SessionId, SigningKey, StreamId, Timestamp, ToolOutcome,
};
use recount_tests::command::{VERB_TIMEOUT, objects};
use recount_tests::files::{set_mode, storage};
use recount_tests::place::Place;
use recount_tests::process::{Finished, Running};
use recount_tests::story::{
    BEGIN, CONNECTION, MESSAGE, OTHER, SESSION, after, linked, opened, queued, record, said,
};
use redb::{TableDefinition, TableHandle as _};
use serde_json::{Value, json};

/// A log with a session whose agent died in the middle of its turn, and one that was only opened; a tenth of a second
/// between any two events.
fn with_a_log() -> Place {
    let (session, connection) = (StreamId::Session(SESSION), StreamId::Connection(CONNECTION));
    let message = MESSAGE;
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (down, trying, up) = (
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    );
    let story = vec![
        (connection, linked()),
        (session, opened()),
        (session, queued(message, "Say it, с любовью")),
        (connection, changed(down, trying)),
        (connection, changed(trying, up)),
        (
            session,
            Event::AgentSessionBound {
                agent_session: "ses".to_owned(),
            },
        ),
        (
            session,
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: "msg".to_owned(),
            },
        ),
        (
            session,
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
        ),
        (session, Event::TurnRequested { message, run: 1 }),
        (session, Event::TurnStarted { message, run: 1 }),
        (session, said(message, 1, "Well, ")),
        (
            session,
            Event::ToolCallStarted {
                message,
                run: 1,
                call: "call".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command": "true"}"#.to_vec()),
            },
        ),
        (
            session,
            Event::ToolCallEnded {
                message,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Completed,
                output: "done".to_owned(),
            },
        ),
        (
            connection,
            Event::StreamLost {
                reason: "it broke".to_owned(),
            },
        ),
        (connection, changed(up, down)),
        (connection, changed(down, trying)),
        (connection, changed(trying, up)),
        (
            session,
            Event::TurnInterrupted {
                message,
                run: 1,
                answers: vec!["msg2".to_owned()],
                evidence: "it is gone".to_owned(),
            },
        ),
        (
            session,
            Event::RerunDecided {
                message,
                run: 1,
                rerun: Rerun::Run,
                reason: "the policy is auto".to_owned(),
            },
        ),
        (session, Event::TurnRequested { message, run: 2 }),
        (session, Event::TurnStarted { message, run: 2 }),
        (session, said(message, 2, "Well, it is said 💛\n")),
        (
            session,
            Event::TurnCompleted {
                message,
                run: 2,
                finish: "stop".to_owned(),
            },
        ),
        (StreamId::Session(OTHER), opened()),
    ];
    Place::holding((0..).zip(story).map(|(n, (stream, event))| {
        let inferred = matches!(event, Event::TurnInterrupted { .. });
        let mut event = NewEvent::live(event, after(n * 100));
        if inferred {
            event = event.known(Provenance::Inferred);
        }
        (stream, vec![event])
    }))
}

#[test]
fn a_session_is_looked_at_from_each_side() {
    let place = with_a_log();
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
    let place = with_a_log();
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
    let place = with_a_log();
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
    let place = with_a_log();
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

/// A key as `openssl genpkey -algorithm ed25519` writes it.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHc9mtqX5uB5QO61G0rYyRVi3F4cCLyxCJ9OvzH12Yf9
-----END PRIVATE KEY-----
";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/UuktVsBzQhoNk9Z0zmO+gstoC5YG9ah288LVD8+P0Y=
-----END PUBLIC KEY-----
";
const PUBLIC_KEY_HEX: &str = "fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46";

/// Puts the key in a place, for its owner alone.
fn with_a_key(place: Place) -> Place {
    place.write("key.pem", PRIVATE_KEY);
    place.write("key.pub", PUBLIC_KEY);
    set_mode(&place.path("key.pem"), 0o600);
    place
}

/// Writes the head of a log, signed at a time that never changes.
fn sign(place: &Place, name: &str, change: impl FnOnce(&mut Head)) {
    let mut head = LogReader::open(place.data()).unwrap().head().unwrap();
    change(&mut head);
    let key = SigningKey::from_pem(PRIVATE_KEY).unwrap();
    let signed = head.sign(BEGIN, &key);
    place.write(name, serde_json::to_string(&signed).unwrap());
}

/// Appends an event, which settles by itself.
fn append_one(place: &Place) {
    append(
        place,
        [(StreamId::Session(OTHER), Event::SessionClosed, BEGIN)],
    );
}

/// Changes the rows of blocks in the log's file; what is derived from them goes.
fn tamper(place: &Place, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let database = storage(&place.data());
    let transaction = database.begin_write().unwrap();
    for table in transaction.list_tables().unwrap().collect::<Vec<_>>() {
        if !["meta", "blocks"].contains(&table.name()) {
            transaction.delete_table(table).unwrap();
        }
    }
    let blocks: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
    change(&mut transaction.open_table(blocks).unwrap());
    transaction.commit().unwrap();
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let output = place.run(&["key", "new", "key.pem"]);
    let public = output.stdout.trim();
    let text = place.text(&output).replace(public, "PUBLIC");
    expect![[r#"
        PUBLIC
        --- stderr
        the private key is in key.pem: keep it from whoever can change the log
        --- exit 0
    "#]]
    .assert_eq(&text);
    let file = place.path("key.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode(), 0o100_600);
    let pem = fs::read_to_string(&file).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap();
    assert_eq!(key.public_key().to_string(), public);

    place.check(
        &["key", "new", "key.pem"],
        &expect![[r#"
        --- stderr
        recount: key.pem is there already; it was left as it is
          name a file that does not exist
        --- exit 1
    "#]],
    );
    place.check(
        &["key", "new", "no/where/key.pem"],
        &expect![[r#"
        --- stderr
        recount: cannot make no/where/key.pem: No such file or directory (os error 2)
        --- exit 1
    "#]],
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), pem);
    // No data directory was needed, and none was made.
    assert_eq!(place.contents().len(), 1);

    let made = place.object(&["key", "new", "other.pem", "--json"]);
    let other = fs::read_to_string(place.path("other.pem")).unwrap();
    assert_ne!(other, pem);
    let public = SigningKey::from_pem(&other).unwrap().public_key();
    assert_eq!(
        made,
        json!({"public_key": public.to_string(), "file": "other.pem"})
    );
}

#[test]
fn what_was_signed_is_proven_and_so_is_what_grew_out_of_it() {
    let place = with_a_key(with_a_log());
    let before = place.contents();
    let signed = place.object(&["sign", "--key", "key.pem"]);
    assert_eq!(place.contents(), before, "it only reads");
    let head = LogReader::open(place.data()).unwrap().head().unwrap();
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let at = Timestamp(signed["at_us"].as_u64().unwrap());
    assert!(at <= now && now.since(at) < VERB_TIMEOUT);
    let key = SigningKey::from_pem(PRIVATE_KEY).unwrap();
    assert_eq!(signed, serde_json::to_value(head.sign(at, &key)).unwrap());

    let told = place.told(&["sign", "--key", "key.pem", "--out", "head.json"]);
    expect![[r#"
        signed: position 24 with hash 5b6364fa81bc13f46f1f2326b10e1a5471e1aaa3e6e7a76ad24de6ede561742a
        --- exit 0
    "#]].assert_eq(&told);
    place.printed(&["verify", "--signed", "head.json", "--public-key", "key.pub"]);
    place.check(
        &["sign", "--key", "key.pem", "--out", "head.json"],
        &expect![[r#"
            --- stderr
            recount: head.json is there already; it was left as it is
              name a file that does not exist
            --- exit 1
        "#]],
    );

    // With a time that never changes, and events that came later.
    sign(&place, "head.json", |_| {});
    append_one(&place);
    place.check(
        &[
            "verify",
            "--signed",
            "head.json",
            "--public-key",
            PUBLIC_KEY_HEX,
        ],
        &expect![[r#"
            whole: 25 events in 3 streams
            head 8c47964f2a296c5f66888f72e99be85d4d1bfb66c198968ac8de05c89304673b at position 25
            as signed up to position 24 at 2026-11-22T09:14:03.000000Z by fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46
            --- exit 0
        "#]],
    );
    place.check(&["verify", "--signed", "head.json"], &expect![[r#"
        whole: 25 events in 3 streams
        head 8c47964f2a296c5f66888f72e99be85d4d1bfb66c198968ac8de05c89304673b at position 25
        as signed up to position 24 at 2026-11-22T09:14:03.000000Z by fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46
        --- stderr
        recount: whose key that is, the file alone says: name the one you trust
          --public-key KEY    64 hexadecimal digits, or a file of them or of PEM
        --- exit 0
    "#]]);
    let told = place.json(&["verify", "--signed", "head.json", "--json"]);
    assert_eq!(told[0]["events"], 25);
    assert_eq!(
        told[0]["signed"],
        json!({
            "position": 24,
            "hash": head.hash.to_string(),
            "at": "2026-11-22T09:14:03.000000Z",
            "public_key": PUBLIC_KEY_HEX,
            "trusted": false,
        })
    );
}

#[test]
fn what_is_not_as_it_was_signed_is_told_apart() {
    let place = with_a_key(with_a_log());
    append_one(&place);
    append_one(&place);
    sign(&place, "head.json", |_| {});
    let verify = ["verify", "--signed", "head.json", "--public-key", "key.pub"];

    // Somebody else's key; a changed head; a log of another time.
    let other = SigningKey::from_seed(&[8; 32]).public_key().to_string();
    place.check(
        &["verify", "--signed", "head.json", "--public-key", &other],
        &expect![[r#"
            not proven
            --- stderr
            recount: the signed head proves nothing: it was signed with the key fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46, not with 1398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca
              name the key that signed, if you trust it; else get the file again from where it was kept
            --- exit 1
        "#]],
    );
    let signed = fs::read_to_string(place.path("head.json")).unwrap();
    place.write("changed.json", signed.replace(":26,", ":25,"));
    place.check(&["verify", "--signed", "changed.json"], &expect![[r#"
        not proven
        --- stderr
        recount: the signed head proves nothing: the signature is not one by the key fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46 over this: one of them was changed
          get the file again from where it was kept; the log was not looked at
        --- exit 1
    "#]]);
    place.write(
        "newer.json",
        signed.replace("\"log_format\":1,", "\"log_format\":77,"),
    );
    place.check(&["verify", "--signed", "newer.json"], &expect![[r#"
        not proven
        --- stderr
        recount: the signed head proves nothing here: the signed head is of a log of format 77, and this release reads up to 1: use a newer one
          recount --version    says which release this is
        --- exit 1
    "#]]);
    sign(&place, "other.json", |head| head.hash.0 = [7; 32]);
    place.check(&["verify", "--signed", "other.json"], &expect![[r#"
        not as signed
        --- stderr
        recount: the log is not the one that was signed: an event at or before position 26 is not the one that was signed: the hash there is 4f800c985a7d76d021747adc3ef5374d2b23316e8c4156240bef6a02492a2872, and was 0707070707070707070707070707070707070707070707070707070707070707
          it was written again, or is another log; older signed heads narrow down where it begins
        --- exit 1
    "#]]);

    // The last event is gone: the log alone cannot know.
    tamper(&place, |blocks| drop(blocks.remove(26).unwrap()));
    place.printed(&["verify"]);
    place.check(&verify, &expect![[r#"
        not as signed
        --- stderr
        recount: the log is not the one that was signed: events are missing at the end: the log ends at position 25, and was signed up to 26
          what is there is whole and can be read: recount sessions
        --- exit 1
    "#]]);
    let json = |args: &[&str]| -> Value {
        let output = place.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:#?}");
        serde_json::from_str(&output.stdout).unwrap()
    };
    let short = json(&verify);
    assert_eq!(
        (&short["reason"], &short["position"]),
        (&json!("short"), &json!(26))
    );
    let changed = json(&["verify", "--signed", "changed.json"]);
    assert_eq!(
        (&changed["reason"], &changed["position"]),
        (&json!("bad_signature"), &Value::Null)
    );

    // An event before others is gone.
    append_one(&place);
    tamper(&place, |blocks| drop(blocks.remove(25).unwrap()));
    place.check(
        &verify,
        &expect![[r#"
            not whole
            --- stderr
            recount: the log is not whole: the log is damaged at position 25: it is missing
              recount doctor                        says how much of it can still be read
              recount salvage DIR --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    place.check(
        &["verify"],
        &expect![[r#"
            not whole
            --- stderr
            recount: the log is not whole: the log is damaged at position 25: it is missing
              recount doctor                        says how much of it can still be read
              recount salvage DIR --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    place.check(
        &["sign", "--key", "key.pem", "--out", "worse.json"],
        &expect![[r#"
            --- stderr
            recount: nothing was signed: the log is damaged at position 25: it is missing
              recount doctor                        says how much of it can still be read
              recount salvage DIR --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    assert!(!place.path("worse.json").exists());
    let damaged = json(&verify);
    assert_eq!(
        damaged,
        json!({
            "ok": false,
            "reason": "corrupt",
            "position": 25,
            "frame": null,
            "what": "it is missing",
        })
    );
}

#[test]
fn files_that_cannot_be_used_to_sign_or_verify() {
    let place = with_a_key(with_a_log());
    sign(&place, "head.json", |_| {});
    place.write("text", "once upon a time");
    set_mode(&place.path("text"), 0o600);
    place.write("open.pem", PRIVATE_KEY);
    set_mode(&place.path("open.pem"), 0o644);
    place.write("long", "x".repeat(100_000));
    let told = place.told_each(&[
        &["sign", "--key", "nosuch.pem"],
        &["sign", "--key", "open.pem"],
        &["sign", "--key", "text"],
        &["sign", "--key", "key.pub"],
        &["verify", "--signed", "nosuch.json"],
        &["verify", "--signed", "text"],
        &["verify", "--signed", "long"],
        &["verify", "--signed", "head.json", "--public-key", "nosuch"],
        &["verify", "--signed", "head.json", "--public-key", "key.pem"],
        &["verify", "--signed", "head.json", "latest"],
        &["verify", "--public-key", "key.pub"],
    ]);
    expect![[r#"
        $ recount sign --key nosuch.pem
        --- stderr
        recount: cannot use the key nosuch.pem: No such file or directory (os error 2)
          recount key new FILE    makes one
        --- exit 1
        $ recount sign --key open.pem
        --- stderr
        recount: cannot use the key open.pem: others may read or change it (its mode is 644)
          chmod 600 open.pem    keeps it to you; if others had it, make a new one
        --- exit 1
        $ recount sign --key text
        --- stderr
        recount: cannot use the key text: not a private ed25519 key in PEM (PKCS#8, not encrypted): it does not begin with -----BEGIN PRIVATE KEY-----
          recount key new FILE    makes one
        --- exit 1
        $ recount sign --key key.pub
        --- stderr
        recount: cannot use the key key.pub: not a private ed25519 key in PEM (PKCS#8, not encrypted): it begins with -----BEGIN PUBLIC KEY-----
          recount key new FILE    makes one
        --- exit 1
        $ recount verify --signed nosuch.json
        --- stderr
        recount: cannot use the signed head nosuch.json: No such file or directory (os error 2)
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed text
        --- stderr
        recount: cannot use the signed head text: expected value at line 1 column 1
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed long
        --- stderr
        recount: cannot use the signed head long: it is far longer than it should be
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed head.json --public-key nosuch
        --- stderr
        recount: cannot use the public key nosuch: No such file or directory (os error 2)
          --public-key takes 64 hexadecimal digits, or a file of them or of PEM
        --- exit 1
        $ recount verify --signed head.json --public-key key.pem
        --- stderr
        recount: cannot use the public key key.pem: not a public ed25519 key (PEM, or 64 hexadecimal digits): it begins with -----BEGIN PRIVATE KEY-----
          --public-key takes 64 hexadecimal digits, or a file of them or of PEM
        --- exit 1
        $ recount verify --signed head.json latest
        --- stderr
        error: the argument '--signed <FILE>' cannot be used with '[ID]'

        Usage: recount verify --signed <FILE> --data <DIR> [ID]

        For more information, try '--help'.
        --- exit 2
        $ recount verify --public-key key.pub
        --- stderr
        error: the following required arguments were not provided:
          --signed <FILE>

        Usage: recount verify --signed <FILE> --public-key <KEY|FILE> --data <DIR> [ID]

        For more information, try '--help'.
        --- exit 2
    "#]].assert_eq(&told);

    let empty = with_a_key(Place::new());
    drop(Log::open(empty.data()).unwrap());
    empty.check(
        &["sign", "--key", "key.pem"],
        &expect![[r#"
        --- stderr
        recount: the log is empty: there is nothing to sign
          recount sessions    shows what there is
        --- exit 1
    "#]],
    );
}

#[test]
fn what_is_typed_means_one_session_or_none() {
    let place = with_a_log();
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
fn where_nothing_is_one_is_told_how_to_begin_and_nothing_is_made() {
    let place = Place::new();
    place.check(
        &["sessions"],
        &expect![[r#"
        --- stderr
        recount: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 0
    "#]],
    );
    place.check(
        &["log", "latest"],
        &expect![[r#"
        --- stderr
        recount: cannot open the log: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 1
    "#]],
    );
    place.check(
        &["verify"],
        &expect![[r#"
        --- stderr
        recount: cannot open the log: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 1
    "#]],
    );
    place.check(
        &["recover"],
        &expect![[r#"
        nothing was open
        --- stderr
        recount: there is no log in HERE/data; nothing was recorded there yet
        --- exit 0
    "#]],
    );
    assert_eq!(place.contents(), []);
}

/// Has all verbs refuse a data directory, and leave it as it was.
fn refused(prepare: impl FnOnce(&Path), expected: &Expect) {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    prepare(&place.data());
    let before = place.contents();
    let run = ["run", "--agent", "scripted", "hello"];
    let mut told = String::new();
    for args in [
        &["sessions"][..],
        &["show", "latest"],
        &["log", "latest"],
        &["replay", "latest"],
        &["verify"],
        &["recover"],
        &run,
    ] {
        let output = place.run(args);
        let text = place.text(&output);
        assert_eq!(output.stdout, "", "{args:?}: {text}");
        // Most say the same.
        if !told.ends_with(&text) {
            told.extend(["recount ", args[0], "\n", &text]);
        }
        assert_eq!(place.contents(), before, "{args:?}: {text}");
    }
    expected.assert_eq(&told);
}

#[test]
fn a_directory_that_is_not_ours() {
    refused(
        |data| fs::write(data.join("thesis.txt"), "all my work").unwrap(),
        &expect![[r#"
            recount sessions
            --- stderr
            recount: cannot open the log: HERE/data is not a data directory of recount: it holds "thesis.txt" and no log; name an empty or a new directory
            --- exit 1
        "#]],
    );
}

#[test]
fn a_file_of_another_program() {
    refused(
        |data| fs::write(data.join("log.redb"), "a file of another program").unwrap(),
        &expect![[r#"
            recount sessions
            --- stderr
            recount: cannot open the log: HERE/data/log.redb is not a log of recount (Not a redb database: magic number mismatch); it was left as it is: move it away, or name another data directory
            --- exit 1
        "#]],
    );
}

#[test]
fn a_log_of_a_newer_release() {
    let newer = |data: &Path| {
        drop(Log::open(data).unwrap());
        let database = storage(data);
        let transaction = database.begin_write().unwrap();
        let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
        let mut table = transaction.open_table(meta).unwrap();
        table
            .insert("format", 2_u32.to_le_bytes().as_slice())
            .unwrap();
        drop(table);
        transaction.commit().unwrap();
    };
    refused(
        newer,
        &expect![[r#"
        recount sessions
        --- stderr
        recount: cannot open the log: HERE/data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
        --- exit 1
    "#]],
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_without_permission() {
    let place = Place::new();
    // Here not even root makes folders.
    for verb in [
        &[
            "--data",
            "/sys/recount",
            "run",
            "--agent",
            "scripted",
            "hello",
        ][..],
        &["--data", "/sys/recount", "demo"],
    ] {
        let text = place.told(verb);
        let expected =
            "--- stderr\nrecount: cannot open the log: cannot create the directory /sys/recount: ";
        let at = text.find("--- stderr").unwrap_or_default();
        assert!(text[at..].starts_with(expected), "{text}");
        assert!(text.ends_with("--- exit 1\n"), "{text}");
    }
}

#[test]
fn a_second_writer_is_refused_while_readers_are_not() {
    let place = with_a_log();
    let _writer = Log::open(place.data()).unwrap();
    let mut told = Vec::new();
    for verb in [
        &["run", "--agent", "scripted", "hello"][..],
        &["recover"],
        &["close", "latest"],
        &["cut", "latest", "--all"],
        &["retain", "--older-than", "30d"],
        &["compact"],
        &["rebuild"],
    ] {
        told.push(place.told(verb));
    }
    told.dedup();
    expect![[r#"
        --- stderr
        recount: cannot open the log: another process is writing HERE/data/log.redb: wait for it to end, or name another data directory
          end that process, if it is to end, and run this again
          recount sessions, show, log, dead-letters, doctor    look at it meanwhile
        --- exit 1
    "#]].assert_eq(&told.concat());
    assert_eq!(place.json(&["sessions", "--json"]).len(), 2);
}

fn append<const N: usize>(place: &Place, events: [(StreamId, Event, Timestamp); N]) {
    let events = events.map(|(stream, event, at)| (stream, vec![NewEvent::live(event, at)]));
    record(&place.data(), events);
}

/// A log whose first session is closed.
fn with_a_closed_session() -> Place {
    let place = with_a_log();
    let at = after(2400);
    let session = StreamId::Session(SESSION);
    append(&place, [(session, Event::SessionClosed, at)]);
    place
}

/// The text without what changes from day to day: when something was cut, and how long ago anything was.
fn steady(text: &str) -> String {
    let lines = text.lines().filter_map(|line| {
        if line.ends_with(" UTC") && line != "2026-11-22 UTC" {
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
    let place = with_a_log();
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
    let place = with_a_log();
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
        2026-11-22 UTC
        NOW    18  StreamCut              the events before number 18 were cut
        --- exit 0
        $ recount log 081 --reverse
        (the events before number 18 were cut on NOW)
        2026-11-22 UTC
        NOW    18  StreamCut              the events before number 18 were cut
        --- exit 0
        $ recount log 081 --follow
        (the events before number 18 were cut on NOW)
        2026-11-22 UTC
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
    let place = with_a_log();
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

#[test]
fn events_are_read_backwards_and_between_times() {
    let place = with_a_log();
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
            --- exit 0
        "#]],
    );
}

#[test]
fn a_message_that_cannot_be_sent_leaves_nothing_behind() {
    let place = Place::new();
    place.check(
        &["run", "--agent", "scripted", ""],
        &expect![[r#"
        --- stderr
        recount: cannot send this: the message is empty: there is nothing to send
        --- exit 2
    "#]],
    );
    let sent = |input: Vec<u8>| {
        let mut command = place.command(&["run", "--agent", "scripted", "-"]);
        place.text(&Finished::given(&mut command, input))
    };
    expect![[r#"
        --- stderr
        recount: cannot send this: the message is empty: there is nothing to send
        --- exit 2
    "#]]
    .assert_eq(&sent(b" \n".to_vec()));
    expect![[r#"
        --- stderr
        recount: cannot send this: the message has 50000000 bytes; at most 8388608 are taken: put long material into a file that the agent can read
        --- exit 2
    "#]].assert_eq(&sent(vec![b'x'; 50_000_000]));
    expect![[r#"
        --- stderr
        recount: cannot send this: it is no UTF-8 text: invalid utf-8 sequence of 1 bytes from index 1
        --- exit 2
    "#]].assert_eq(&sent(vec![b'x', 0xff]));
    assert_eq!(place.contents(), []);
}

#[test]
fn without_the_agents_program_nothing_is_queued() {
    let place = Place::new();
    let mut command = place.command(&["run", "hello"]);
    let output = Finished::of(command.env("PATH", "/nowhere"));
    expect![[r#"
        --- stderr
        recount: cannot find the program "opencode" on the PATH
          npm install -g opencode-ai    installs it
          --agent-bin PATH              names it where it is elsewhere
          --agent scripted              tries things out without it
        --- exit 1
    "#]]
    .assert_eq(&place.text(&output));
    assert_eq!(place.contents(), []);
}

/// What a run says at its end, and the names of the events of its message.
fn given_up(url: &str) -> (String, Vec<String>) {
    let place = Place::new();
    let began = Instant::now();
    let output = place.run(&["run", "--url", url, "hello"]);
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it took too long"
    );
    let text = place.text(&output).replace(url, "URL");
    let (_, end) = text.split_once("recount: ").unwrap_or(("", &text));
    let events = place.json(&["log", "latest", "--json"]);
    let session = events[0]["data"].to_string();
    assert!(session.contains("opencode"), "{session}");
    let names = events
        .iter()
        .filter(|event| event["stream"].as_str().unwrap().starts_with("session"))
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    let id = place.object(&["sessions", "--json"])["session"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(place.object(&["verify", "--json"])["ok"], true);
    (end.replace(&id, "ID"), names)
}

#[test]
fn a_server_that_cannot_be_reached() {
    // Bound and let go: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (end, events) = given_up(&format!("http://127.0.0.1:{port}"));
    expect![[r#"
        the message was given up: the agent cannot be reached: GET /global/health: Connection refused (os error 111)
          recount log ID    shows what happened
        --- exit 1
    "#]].assert_eq(&end);
    assert_eq!(
        events,
        ["SessionOpened", "MessageQueued", "MessageDeadLettered"]
    );
}

#[test]
fn a_server_that_answers_with_a_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "<!doctype html><title>Hello</title>";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
        }
    });
    let (end, events) = given_up(&url);
    expect![[r#"
        the message was given up: the agent cannot be reached: GET /global/health: no OpenCode server answers there: text/html where application/json was expected
          recount log ID    shows what happened
        --- exit 1
    "#]].assert_eq(&end);
    assert_eq!(
        events,
        ["SessionOpened", "MessageQueued", "MessageDeadLettered"]
    );
}

#[test]
fn wrong_use_is_told_with_code_2() {
    let place = with_a_log();
    for verb in [
        &["run"][..],
        &["run", "--agent", "nobody", "hello"],
        &["run", "--url", "127.0.0.1:4096", "hello"],
        &["run", "--url", "http://me:secret@127.0.0.1:4096", "hello"],
        &[
            "run",
            "--url",
            "http://127.0.0.1:1",
            "--agent-bin",
            "opencode",
            "hello",
        ],
        &["run", "--dir", "nowhere", "--agent", "scripted", "hello"],
        &["run", "--session", "081", "--agent", "scripted", "hello"],
        &[
            "run",
            "--session",
            "081",
            "--url",
            "http://127.0.0.1:1",
            "hello",
        ],
        &["show", "latest", "--at", "noon"],
        &["replay", "latest", "--speed", "-1"],
        &["log", "latest", "--limit", "0"],
        &["log", "latest", "--since", "yesterday"],
        &["cut", "latest"],
        &["cut", "latest", "--before", "0"],
        &["retain", "--older-than", "a month"],
        &["nosuchverb"],
    ] {
        let output = place.run(verb);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {output:#?}");
        assert_eq!(output.stdout, "", "{verb:?}");
        assert!(!output.stderr.contains("secret"), "{verb:?}");
    }
}

#[test]
fn who_reads_only_the_beginning_ends_it_normally() {
    let place = with_a_log();
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
