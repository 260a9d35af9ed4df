//! Whether decisions and frames are read as they were: `verify --decisions`, `whatif`, `replay --wire`, on logs of
//! which a build with a mistake wrote a part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use recount_engine::Options;
use recount_engine::decisions::{self, Derived};
use recount_store::{
    Cause, Class, Event, Expected, FrameContent, FrameNumber, Json, Log, LogReader, NewEvent,
    Position, Provenance, Recorded, Rerun, Seq, SessionId, StreamId, Timestamp, ToolOutcome,
    Verdict,
};
use recount_tests::command::objects;
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use serde_json::{Value, json};

/// The exit code of a verb that prints JSON, and the objects.
fn json_of(place: &Place, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let finished = place.run(&[args, &["--json"]].concat());
    (finished.status.code(), objects(finished.stdout.lines()))
}

/// A log of a session in which a server dies in a turn, and a tool works in another; made once.
fn good() -> &'static Place {
    static GOOD: OnceLock<Place> = OnceLock::new();
    GOOD.get_or_init(|| {
        let place = Place::new();
        let run = |session: &[&str], script: &str| {
            let args = ["run", "--agent", "scripted", "--permission", "allow"];
            place.printed(&[&args[..], session, &[script]].concat());
        };
        run(&[], "script: words=30 delay=5ms die-once");
        run(&["--session", "latest"], "script: tool words=5");
        place
    })
}

/// A log of a session whose agent is not there, until the breaker opened.
fn unreachable() -> Place {
    let place = Place::new();
    // A port that something listens on and nobody answers at would take longer.
    let args = [
        "run",
        "--agent",
        "scripted",
        "--url",
        "http://127.0.0.1:9",
        "hello",
    ];
    let finished = place.run(&args);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    place
}

/// The good log, frames and all, as a build with a mistake would have written it, and what that changed.
fn mistaken(mistake: impl Fn(&Recorded) -> Option<Event>) -> (Place, Vec<Recorded>) {
    rewritten(good(), mistake)
}

fn rewritten(good: &Place, mistake: impl Fn(&Recorded) -> Option<Event>) -> (Place, Vec<Recorded>) {
    let place = Place::new();
    let good = LogReader::open(good.data()).unwrap();
    let mut changed = Vec::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Log::open(place.data()).unwrap();
        for frame in good.frames(FrameNumber::FIRST) {
            let frame = frame.unwrap();
            let FrameContent::Received(bytes) = &frame.content else {
                continue;
            };
            let kept = log.keep_frame(frame.connection, frame.at, bytes);
            assert!(kept.is_some());
        }
        for recorded in good.read_all(Position::FIRST) {
            let recorded = recorded.unwrap();
            let event = mistake(&recorded);
            if event.as_ref() != Some(&recorded.event) {
                changed.push(recorded.clone());
            }
            let new = event.map(|event| NewEvent {
                event,
                at: recorded.at,
                cause: recorded.cause.map_or(Cause::None, Cause::At),
                provenance: recorded.provenance,
                id: recorded.id,
                frame: recorded.frame,
            });
            if let Some(new) = new {
                let appended = log.append(recorded.stream, Expected::Any, vec![new]);
                appended.await.unwrap();
            }
        }
        log.close().await.unwrap();
    });
    (place, changed)
}

/// What `verify --decisions` says of such a log: its exit code, and where the first difference is, and what it is.
fn first_difference(mistake: impl Fn(&mut Event)) -> (Option<i32>, Value, Recorded) {
    let (place, changed) = mistaken(|recorded| {
        let mut event = recorded.event.clone();
        mistake(&mut event);
        Some(event)
    });
    let (code, told) = json_of(&place, &["verify", "--decisions"]);
    assert_eq!(told[0]["ok"], false, "{told:#?}");
    assert_eq!(told[0]["reason"], "decisions");
    let first = told[0]["decided"]["first_difference"].clone();
    (code, first, changed[0].clone())
}

#[test]
fn a_log_of_this_release_is_decided_and_read_as_today() {
    let (code, told) = json_of(good(), &["verify", "--decisions"]);
    assert_eq!((code, &told[0]["ok"]), (Some(0), &json!(true)));
    let decisions = told[0]["decided"]["decisions"].as_u64().unwrap();
    assert!(decisions > 15, "{told:#?}");
    let (_, of_session) = json_of(good(), &["verify", "latest", "--decisions"]);
    assert_eq!(of_session[0]["decided"], told[0]["decided"]);

    let (code, told) = json_of(good(), &["replay", "latest", "--wire"]);
    let expected = json!({
        "ok": true,
        "frames": told[0]["frames"],
        "events": told[0]["events"],
        "not_kept": 0,
        "different": 0,
        "differences": [],
    });
    assert_eq!((code, &told[0]), (Some(0), &expected));
    assert!(told[0]["events"].as_u64() > Some(10), "{told:#?}");
}

#[test]
fn a_week_of_incidents_is_read_as_then() {
    let week = fixture("week");
    let sessions = week.json(&["sessions", "--json"]);
    assert_eq!(sessions.len(), 14);
    for session in sessions {
        let id = session["session"].as_str().unwrap();
        let (code, told) = json_of(&week, &["replay", id, "--wire"]);
        assert_eq!((code, &told[0]["ok"]), (Some(0), &json!(true)), "{told:#?}");
    }
}

#[test]
fn a_changed_backoff_is_told_apart() {
    let (code, first, changed) = first_difference(|event| {
        if let Event::ReconnectScheduled { at, .. } = event {
            *at = at.plus(Duration::from_millis(250));
        }
    });
    assert_eq!(code, Some(1));
    assert_eq!(first["position"], changed.position.0);
    assert_eq!(first["stream"], changed.stream.to_string());
    assert_eq!(first["seq"], changed.seq.0);
    // What it was before the mistake is what would be decided.
    let Event::ReconnectScheduled { at, attempt } = changed.event else {
        panic!("it is the backoff that was changed");
    };
    let today = json!({"type": "ReconnectScheduled", "data": {"attempt": attempt, "at": at.0}});
    assert!(
        first["today"].as_array().unwrap().contains(&today),
        "{first:#}"
    );
    let why = first["why"].as_str().unwrap();
    assert!(why.starts_with("at is 2"), "{why}");
    assert!(why.contains(", and would be 2"), "{why}");
}

#[test]
fn a_turn_that_runs_again_against_the_rule_is_told_apart() {
    let (code, first, changed) = first_difference(|event| {
        if let Event::RerunDecided { rerun, .. } = event {
            *rerun = Rerun::Wait;
        }
    });
    assert_eq!(code, Some(1));
    assert_eq!(first["position"], changed.position.0);
    assert_eq!(first["why"], r#"rerun is "wait", and would be "run""#);
}

#[test]
fn a_resend_without_a_look_is_told_apart() {
    // A delivery is begun a second time, with nothing between that says what became of the first.
    let (code, first, changed) = first_difference(|event| {
        if let Event::DeliveryAccepted { message, attempt } = event {
            *event = Event::DeliveryStarted {
                message: *message,
                attempt: *attempt + 1,
                agent_message: "again".to_owned(),
            };
        }
    });
    assert_eq!(code, Some(1));
    assert_eq!(first["position"], changed.position.0);
    assert_eq!(first["recorded"]["type"], "DeliveryStarted");
}

#[test]
fn a_decision_that_was_forgotten_is_told_apart() {
    let (place, changed) = mistaken(|recorded| match recorded.event {
        Event::RetryScheduled { .. } => None,
        ref event => Some(event.clone()),
    });
    let (code, told) = json_of(&place, &["verify", "--decisions"]);
    let first = &told[0]["decided"]["first_difference"];
    assert_eq!(code, Some(1), "{told:#?}");
    assert_eq!(first["stream"], changed[0].stream.to_string());
    // What came after it moved up into its place.
    assert_eq!(first["seq"], changed[0].seq.0);
    assert_eq!(first["today"][0]["type"], "RetryScheduled", "{first:#}");
    let why = "another decision would be made in its place, or before it";
    assert_eq!(first["why"], why);
}

#[test]
fn a_forgotten_breaker_is_told_apart() {
    let good = unreachable();
    // After the last failure that it may have, it tries again as after the others.
    let (place, changed) = rewritten(&good, |recorded| match recorded.event {
        Event::CircuitOpened { failures, until } => Some(Event::ReconnectScheduled {
            attempt: failures + 1,
            at: until,
        }),
        ref event => Some(event.clone()),
    });
    let (code, told) = json_of(&place, &["verify", "latest", "--decisions"]);
    assert_eq!(code, Some(1), "{told:#?}");
    let first = &told[0]["decided"]["first_difference"];
    assert_eq!(first["seq"], changed[0].seq.0);
    assert_eq!(first["recorded"]["type"], "ReconnectScheduled");
    let today = first["today"].as_array().unwrap();
    assert!(
        today.iter().any(|event| event["type"] == "CircuitOpened"),
        "{first:#}"
    );
}

#[test]
fn a_person_reads_what_differs_and_why() {
    let (place, changed) = mistaken(|recorded| {
        let mut event = recorded.event.clone();
        if let Event::RerunDecided { rerun, .. } = &mut event {
            *rerun = Rerun::Wait;
        }
        Some(event)
    });
    let finished = place.run(&["verify", "latest", "--decisions"]);
    let seq = changed[0].seq;
    let lines: Vec<_> = finished.stdout.lines().skip(1).collect();
    assert!(
        lines[0].starts_with("not decided as today: "),
        "{finished:#?}"
    );
    assert!(lines[1].starts_with(&format!("first: event {seq} of session ")));
    let first_word = |line: &&str| line.split_whitespace().next().unwrap().to_owned();
    let words: Vec<_> = lines[2..].iter().map(first_word).collect();
    assert_eq!(
        words,
        ["recorded", "today", "today", "why", "follows"],
        "{finished:#?}"
    );
    assert!(finished.stderr.starts_with(
        "recount: the log holds a decision that today's rules would not make: another build wrote it, or it was changed\n  recount log "
    ), "{finished:#?}");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn another_policy_is_put_beside_what_was_decided() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().to_str().unwrap();
    let what_if = |policy: &str, more: &[&str]| {
        std::fs::write(file.path(), policy).unwrap();
        let args: Vec<_> = [&["whatif", "latest", "--policy", name], more].concat();
        json_of(good(), &args)
    };
    // An empty file changes nothing.
    let (code, rows) = what_if("", &[]);
    assert_eq!(code, Some(0));
    assert!(rows.len() > 15 && rows.iter().all(|row| row["would"].is_null()));
    assert_eq!(what_if("", &["--different"]), (Some(0), Vec::new()));

    let (code, others) = what_if("session.rerun = 'never'", &["--different"]);
    assert_eq!((code, others.len()), (Some(0), 1), "{others:#?}");
    assert_eq!(others[0]["recorded"]["data"]["rerun"], "run");
    assert_eq!(others[0]["would"][0]["data"]["rerun"], "give_up");
    assert_eq!(others[0]["first"], true);
    assert_eq!(
        others[0]["why"],
        r#"rerun is "run", and would be "give_up""#
    );

    let finished = good().run(&["whatif", "latest", "--policy", name]);
    let marked: Vec<_> = finished
        .stdout
        .lines()
        .filter(|line| line.starts_with('>'))
        .collect();
    assert_eq!(marked.len(), 1, "{finished:#?}");
    assert!(marked[0].contains("RerunDecided"), "{finished:#?}");
    assert!(
        finished
            .stdout
            .contains("the world would have gone another way"),
        "{finished:#?}"
    );

    std::fs::write(file.path(), "session.reruns = 1").unwrap();
    let refused = good().run(&["whatif", "latest", "--policy", name]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("cannot use the policy"),
        "{refused:#?}"
    );
    let missing = good().run(&["whatif", "latest", "--policy", "/nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        missing
            .stderr
            .contains("cannot read the policy /nowhere.toml"),
        "{missing:#?}"
    );
}

/// What `replay --wire` finds in a log in which an adapter made this mistake: kind, what was recorded, what would be.
fn read_otherwise(mistake: impl Fn(&Recorded) -> Option<Event>) -> Vec<[Value; 3]> {
    let (place, changed) = mistaken(mistake);
    assert!(!changed.is_empty());
    let (code, told) = json_of(&place, &["replay", "latest", "--wire"]);
    assert_eq!(code, Some(1), "{told:#?}");
    let differences = told[0]["differences"].as_array().unwrap();
    assert_eq!(told[0]["different"], differences.len());
    let row = |difference: &Value| {
        let of = |side: &str| difference[side]["type"].clone();
        [difference["kind"].clone(), of("recorded"), of("today")]
    };
    differences.iter().map(row).collect()
}

fn live(recorded: &Recorded) -> bool {
    recorded.provenance == Provenance::Live
}

#[test]
fn what_an_adapter_read_otherwise_is_named() {
    // A tool's output was cut.
    let found = read_otherwise(|recorded| {
        let mut event = recorded.event.clone();
        if let Event::ToolCallEnded { output, .. } = &mut event {
            output.truncate(1);
        }
        Some(event)
    });
    let same = |name: &str| [json!("other"), json!(name), json!(name)];
    assert_eq!(found, [same("ToolCallEnded")]);

    // A tool's end was not understood.
    let found = read_otherwise(|recorded| match recorded.event {
        Event::ToolCallEnded { .. } => None,
        ref event => Some(event.clone()),
    });
    assert_eq!(
        found,
        [[json!("extra"), Value::Null, json!("ToolCallEnded")]]
    );

    // A frame was not known then.
    let found = read_otherwise(|recorded| match &recorded.event {
        Event::ToolCallEnded { .. } => Some(Event::FrameUnrecognised {
            kind: "message.part.updated".to_owned(),
            frame: Json(b"{}".to_vec()),
        }),
        event => Some(event.clone()),
    });
    assert_eq!(
        found,
        [
            [json!("missing"), json!("FrameUnrecognised"), Value::Null],
            [json!("extra"), Value::Null, json!("ToolCallEnded")]
        ]
    );
}

#[test]
fn text_is_held_against_what_its_frames_add_up_to() {
    // Of the first piece of an answer, a letter was lost.
    let first = LogReader::open(good().data()).unwrap();
    let session = latest(&first);
    let first = first
        .read(StreamId::Session(session), Seq::FIRST)
        .map(Result::unwrap)
        .find(|recorded| live(recorded) && matches!(recorded.event, Event::OutputAppended { .. }))
        .unwrap();
    let found = read_otherwise(|recorded| {
        let mut event = recorded.event.clone();
        if recorded.position == first.position
            && let Event::OutputAppended { text, .. } = &mut event
        {
            text.remove(0);
        }
        Some(event)
    });
    let same = [
        json!("other"),
        json!("OutputAppended"),
        json!("OutputAppended"),
    ];
    assert_eq!(found[0], same, "{found:#?}");
}

#[test]
fn what_was_not_seen_live_comes_from_no_frame() {
    // Tools that are known to be lost were concluded, and an answer that was read later came from a look.
    let (place, _) = mistaken(|recorded| {
        let mut event = recorded.event.clone();
        if let (false, Event::OutputAppended { text, .. }) = (live(recorded), &mut event) {
            text.push('!');
        }
        if let (false, Event::ToolCallEnded { outcome, .. }) = (live(recorded), &mut event) {
            *outcome = ToolOutcome::Lost;
        }
        Some(event)
    });
    let (code, told) = json_of(&place, &["replay", "latest", "--wire"]);
    assert_eq!((code, &told[0]["ok"]), (Some(0), &json!(true)), "{told:#?}");
}

#[test]
fn frames_that_are_gone_are_counted() {
    let (place, _) = mistaken(|recorded| Some(recorded.event.clone()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Log::open(place.data()).unwrap();
        let all = recount_store::FramesBefore::Number(FrameNumber(u64::MAX));
        log.drop_frames(all).await.unwrap();
        log.close().await.unwrap();
    });
    let (code, told) = json_of(&place, &["replay", "latest", "--wire"]);
    assert_eq!((code, &told[0]["frames"]), (Some(0), &json!(0)));
    assert!(told[0]["not_kept"].as_u64() > Some(10), "{told:#?}");
}

fn latest(log: &LogReader) -> SessionId {
    let streams = log.streams().unwrap();
    let mut sessions = streams.into_iter().filter_map(|(stream, _)| match stream {
        StreamId::Session(id) => Some(id),
        _ => None,
    });
    sessions.next_back().unwrap()
}

/// One decided event of a log, the log without it and the log with it changed, each as derived today.
struct Broken {
    decision: Recorded,
    lacking: Derived,
    changed: Derived,
}

/// Breaks a log at some of its decisions of each type and movement, each time its stream alone.
fn broken(log: &LogReader) -> Vec<Broken> {
    let adapters = Options::new(log.path()).adapters;
    let mut of_kinds: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    for recorded in log.read_all(Position::FIRST) {
        let recorded = recorded.unwrap();
        if is_an_engines(&recorded) {
            let kind = kind(&recorded.event);
            of_kinds.entry(kind).or_default().push(recorded);
        }
    }
    // What the end of a stream lacks is not told: nothing stands in its place.
    let mut ends: BTreeMap<StreamId, Seq> = BTreeMap::new();
    for recorded in log.read_all(Position::FIRST).map(Result::unwrap) {
        if recorded.class != Class::Asked {
            ends.insert(recorded.stream, recorded.seq);
        }
    }
    let goes_on = |decision: &Recorded| ends.get(&decision.stream) > Some(&decision.seq);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut broken = Vec::new();
    for mut decisions in of_kinds.into_values() {
        decisions.retain(goes_on);
        for decision in decisions
            .iter()
            .step_by(decisions.len().div_ceil(OF_A_KIND).max(1))
        {
            let derive = |instead: Option<Event>| {
                let log = runtime.block_on(with(log, decision, instead));
                decisions::derive(&log, Some(&[decision.stream]), &adapters).unwrap()
            };
            broken.push(Broken {
                decision: decision.clone(),
                lacking: derive(None),
                changed: derive(Some(changed(&decision.event))),
            });
        }
    }
    broken
}

/// How many decisions of a kind a log is broken at.
const OF_A_KIND: usize = 2;

/// Whether an engine chose it by itself: a person's word follows from no rule.
fn is_an_engines(recorded: &Recorded) -> bool {
    match &recorded.event {
        Event::RerunDecided { reason, .. } | Event::UnknownDecided { reason, .. } => {
            !reason.starts_with("a person's word")
        }
        _ => recorded.class == Class::Decided,
    }
}

fn kind(event: &Event) -> String {
    let name = event.type_name();
    match event {
        Event::ConnectionChanged { from, to } => format!("{name} {from:?} {to:?}"),
        Event::RerunDecided { rerun, .. } => format!("{name} {rerun:?}"),
        Event::UnknownDecided { verdict, .. } => format!("{name} {verdict:?}"),
        _ => name.to_owned(),
    }
}

/// A decision's stream, and the engine's, with something else in the decision's place.
async fn with(log: &LogReader, decision: &Recorded, instead: Option<Event>) -> Log {
    let other = Log::in_memory().unwrap();
    for recorded in log.read_all(Position::FIRST) {
        let recorded = recorded.unwrap();
        let event = if recorded.position == decision.position {
            instead.clone()
        } else {
            Some(recorded.event)
        };
        if ![decision.stream, StreamId::Engine].contains(&recorded.stream) {
            continue;
        }
        let new = event.map(|event| NewEvent {
            event,
            at: recorded.at,
            cause: Cause::None,
            provenance: recorded.provenance,
            id: recorded.id,
            frame: recorded.frame,
        });
        let append = other.append(recorded.stream, Expected::Any, new.into_iter().collect());
        append.await.unwrap();
    }
    other
}

fn changed(event: &Event) -> Event {
    let mut event = event.clone();
    let later = |at: &mut Timestamp| *at = at.plus(Duration::from_millis(250));
    match &mut event {
        Event::AgentSessionRequested { marker } => marker.push('x'),
        Event::DeliveryStarted { attempt, .. } => *attempt += 1,
        Event::TurnRequested { run, .. } | Event::TurnStalled { run, .. } => *run += 1,
        Event::RetryScheduled { at, .. } | Event::ReconnectScheduled { at, .. } => later(at),
        Event::CircuitOpened { until, .. } => later(until),
        Event::RerunDecided { rerun, .. } => {
            *rerun = match rerun {
                Rerun::Run => Rerun::GiveUp,
                Rerun::Wait | Rerun::GiveUp => Rerun::Run,
            }
        }
        Event::UnknownDecided { verdict, .. } => {
            *verdict = match verdict {
                Verdict::Wait => Verdict::Resend,
                Verdict::Resend | Verdict::GiveUp | Verdict::Arrived => Verdict::Wait,
            }
        }
        Event::ConnectionChanged { from, to } => std::mem::swap(from, to),
        Event::QuestionExpired { question, .. } => question.push('x'),
        // One that says nothing, or nothing that follows from a rule, is another one.
        Event::MessageDeadLettered { message, .. } => {
            event = Event::RetryScheduled {
                message: *message,
                attempt: 2,
                at: Timestamp(0),
            }
        }
        Event::CircuitHalfOpened | Event::ServerStartDecided { .. } => event = Event::CircuitClosed,
        _ => event = Event::CircuitHalfOpened,
    }
    event
}

#[test]
fn every_decision_that_is_changed_or_lacking_is_told_apart() {
    let (week, gone) = (fixture("week"), unreachable());
    let logs = [week.data(), good().data(), gone.data()];
    let (mut types, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for data in logs {
        let log = LogReader::open(&data).unwrap();
        for Broken {
            decision,
            lacking,
            changed,
        } in broken(&log)
        {
            let name = decision.event.type_name();
            types.insert(name);
            let first = changed.first_difference.map(|first| first.recorded.seq);
            assert_eq!(first, Some(decision.seq), "{decision:?} changed");
            let Some(first) = lacking.first_difference else {
                silent.insert(name);
                continue;
            };
            assert!(first.recorded.seq >= decision.seq, "{decision:?} lacking");
            let instead: Vec<_> = first.derived.iter().map(Event::type_name).collect();
            assert!(instead.contains(&name), "{decision:?} lacking: {first:?}");
        }
    }
    // The others have logs of their own among the tests of the engine.
    let expected = [
        "AgentSessionRequested",
        "CircuitClosed",
        "CircuitHalfOpened",
        "CircuitOpened",
        "ConnectionChanged",
        "DeliveryStarted",
        "MessageDeadLettered",
        "ReconnectScheduled",
        "RerunDecided",
        "RetryScheduled",
        "ServerStartDecided",
        "ServerStopDecided",
        "TurnRequested",
        "TurnStalled",
    ];
    assert_eq!(types, BTreeSet::from(expected));
    // A server ends, and a turn fails, without them, too.
    assert_eq!(silent, BTreeSet::from(["ServerStopDecided", "TurnStalled"]));
}
