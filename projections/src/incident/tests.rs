//! Given events, exactly these incidents; and whatever the events, no panic and a few laws.

use proptest::prelude::*;
use recount_store::{
    ConnectionState, Event, NewEvent, OutputKind, Placement, Recorded, Rerun, Seq, StreamId, Target,
};

use super::*;

const S: SessionId = SessionId::from_bytes([1; 10]);
const T: SessionId = SessionId::from_bytes([2; 10]);
const C: ConnectionId = ConnectionId::from_bytes([3; 10]);
const M: MessageId = MessageId::from_bytes([4; 10]);
const N: MessageId = MessageId::from_bytes([5; 10]);

/// An event of one of the streams, at a time in seconds.
type Told = (StreamId, u64, Event);

fn session(at: u64, event: Event) -> Told {
    (StreamId::Session(S), at, event)
}

fn other(at: u64, event: Event) -> Told {
    (StreamId::Session(T), at, event)
}

fn connection(at: u64, event: Event) -> Told {
    (StreamId::Connection(C), at, event)
}

fn engine(at: u64, event: Event) -> Told {
    (StreamId::Engine, at, event)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn recorded(story: Vec<Told>) -> Vec<Recorded> {
    let numbered = (1..).zip(story);
    numbered
        .map(|(n, (stream, seconds, event))| {
            NewEvent::live(event, at(seconds)).recorded(stream, Seq(n), Position(n))
        })
        .collect()
}

/// A log that begins with two sessions on one connection and goes on with a story, whose first event is at position 6.
fn log(story: impl IntoIterator<Item = Told>) -> Vec<Recorded> {
    let opened = |message| {
        let opened = Event::SessionOpened {
            connection: C,
            agent: "opencode".to_owned(),
            directory: "/project".to_owned(),
            model: None,
            title: None,
        };
        let queued = Event::MessageQueued {
            message,
            key: None,
            text: "do it".to_owned(),
        };
        (opened, queued)
    };
    let ((opened, queued), (opened_too, queued_too)) = (opened(M), opened(N));
    let beginning = [
        connection(
            0,
            Event::ConnectionOpened {
                agent: "opencode".to_owned(),
                target: Target::Url("http://127.0.0.1:4096".to_owned()),
            },
        ),
        session(0, opened),
        other(0, opened_too),
        session(0, queued),
        other(0, queued_too),
    ];
    recorded(beginning.into_iter().chain(story).collect())
}

/// The incidents of such a log.
fn incidents(story: impl IntoIterator<Item = Told>) -> Vec<Incident> {
    let mut found = Incidents::default();
    for recorded in log(story) {
        found.apply(&recorded);
    }
    found.finish()
}

fn lost(reason: &str) -> Event {
    Event::StreamLost {
        reason: reason.to_owned(),
    }
}

fn again() -> Event {
    Event::ReconnectScheduled {
        attempt: 1,
        at: at(0),
    }
}

fn changed(to: ConnectionState) -> Event {
    Event::ConnectionChanged {
        from: ConnectionState::Connecting,
        to,
    }
}

fn connected() -> Event {
    changed(ConnectionState::Connected)
}

fn interrupted() -> Event {
    Event::TurnInterrupted {
        message: M,
        run: 1,
        answers: Vec::new(),
        evidence: "it is gone".to_owned(),
    }
}

fn decided(rerun: Rerun) -> Event {
    Event::RerunDecided {
        message: M,
        run: 1,
        rerun,
        reason: "so".to_owned(),
    }
}

fn completed(message: MessageId) -> Event {
    Event::TurnCompleted {
        message,
        run: 1,
        finish: "stop".to_owned(),
    }
}

fn failed(message: MessageId) -> Event {
    Event::TurnFailed {
        message,
        run: 1,
        reason: "APIError: no".to_owned(),
    }
}

fn unknown(message: MessageId) -> Event {
    Event::DeliveryUnknown {
        message,
        attempt: 1,
        reason: "connection reset".to_owned(),
    }
}

fn started() -> Event {
    Event::EngineStarted {
        version: "0.1.0".to_owned(),
        pid: 1,
    }
}

fn said(placement: Placement) -> Event {
    Event::OutputAppended {
        message: M,
        run: 1,
        part: "prt".to_owned(),
        kind: OutputKind::Text,
        placement,
        text: "so".to_owned(),
    }
}

/// An incident that is over, of the first session's message.
fn expected(name: u64, begin: u64, end: u64, kinds: &[Kind]) -> Incident {
    Incident {
        name: Name(Position(name)),
        begin: at(begin),
        end: Some(at(end)),
        ending: Ending::Healed,
        kinds: kinds.iter().map(|kind| (*kind, 1)).collect(),
        cause: None,
        connections: [C].into(),
        sessions: [(S, [M].into())].into(),
        messages_left_out: 0,
        evidence: [Position(name)].into(),
        evidence_left_out: 0,
    }
}

fn cause(position: u64, text: &str) -> Cause {
    Cause {
        position: Position(position),
        text: text.to_owned(),
    }
}

fn positions(positions: &[u64]) -> BTreeSet<Position> {
    positions.iter().copied().map(Position).collect()
}

#[test]
fn a_link_that_falls_is_one_incident_with_all_that_follows() {
    let found = incidents([
        connection(10, lost("connection reset")),
        connection(10, changed(ConnectionState::Disconnected)),
        connection(10, again()),
        connection(
            11,
            Event::ConnectFailed {
                attempt: 1,
                reason: "connection refused".to_owned(),
            },
        ),
        connection(
            11,
            Event::CircuitOpened {
                failures: 1,
                until: at(20),
            },
        ),
        connection(20, connected()),
        session(21, interrupted()),
        session(21, decided(Rerun::Run)),
        session(25, completed(M)),
        other(26, completed(N)),
    ]);
    let kinds = [Kind::Connection, Kind::Breaker, Kind::Interruption];
    let expected = Incident {
        cause: Some(cause(6, "connection reset")),
        sessions: [(S, [M].into()), (T, [N].into())].into(),
        evidence: positions(&[6, 8, 9, 10, 11, 12, 13, 14]),
        ..expected(6, 10, 25, &kinds)
    };
    assert_eq!(found, [expected]);
}

#[test]
fn what_is_wanted_or_tried_again_is_no_incident() {
    let found = incidents([
        connection(10, lost("it is not wanted any more")),
        connection(10, changed(ConnectionState::Disconnected)),
        connection(20, changed(ConnectionState::Connecting)),
        connection(20, connected()),
        connection(
            30,
            Event::ProbeFailed {
                reason: "no answer".to_owned(),
            },
        ),
        connection(31, Event::ProbeRecovered),
        connection(
            40,
            Event::ServerStopDecided {
                reason: "done".to_owned(),
            },
        ),
        connection(
            41,
            Event::ServerExited {
                how: "signal: 15".to_owned(),
            },
        ),
    ]);
    assert_eq!(found, []);
}

#[test]
fn a_link_that_falls_again_within_the_minute_had_not_come_back() {
    let falls = |seconds| {
        [
            connection(seconds, lost("connection reset")),
            connection(seconds, again()),
            connection(seconds + 1, connected()),
        ]
    };
    let found = incidents(falls(10).into_iter().chain(falls(60)).chain(falls(130)));
    let kinds: Vec<_> = found
        .iter()
        .map(|found| (found.name.0.0, found.kinds[&Kind::Connection]))
        .collect();
    assert_eq!(kinds, [(6, 2), (12, 1)]);
    assert_eq!(found[0].end, Some(at(61)));
}

#[test]
fn a_call_that_notices_first_belongs_to_the_fall() {
    let found = incidents([
        session(10, unknown(M)),
        connection(12, lost("connection reset")),
        connection(12, again()),
        connection(13, connected()),
        session(
            14,
            Event::DeliveryAccepted {
                message: M,
                attempt: 1,
            },
        ),
    ]);
    let expected = Incident {
        cause: Some(cause(7, "connection reset")),
        sessions: [(S, [M].into()), (T, [N].into())].into(),
        evidence: positions(&[6, 7, 8, 9, 10]),
        ..expected(6, 10, 14, &[Kind::Connection, Kind::Unknown])
    };
    assert_eq!(found, [expected]);
}

#[test]
fn a_probe_that_failed_before_the_fall_is_its_beginning() {
    let found = incidents([
        connection(
            10,
            Event::ProbeFailed {
                reason: "no answer".to_owned(),
            },
        ),
        connection(40, lost("nothing came for 40 s")),
        connection(40, again()),
        connection(41, connected()),
    ]);
    let expected = Incident {
        cause: Some(cause(7, "nothing came for 40 s")),
        sessions: [(S, [M].into()), (T, [N].into())].into(),
        evidence: positions(&[6, 7, 8, 9]),
        ..expected(6, 10, 41, &[Kind::Connection])
    };
    assert_eq!(found, [expected]);
}

#[test]
fn an_engine_that_ends_without_a_word_has_crashed() {
    let found = incidents([
        engine(10, started()),
        other(20, completed(N)),
        engine(100, started()),
        connection(100, lost("the engine ended")),
        connection(100, changed(ConnectionState::Disconnected)),
        engine(100, Event::RecoveryStarted { sessions: 1 }),
        session(101, interrupted()),
        session(101, decided(Rerun::Run)),
        session(105, completed(M)),
        engine(
            106,
            Event::RecoveryFinished {
                sessions: 1,
                resolved: 0,
                completed: 1,
                dead_lettered: 0,
                waiting: 0,
            },
        ),
        engine(200, Event::EngineStopped),
        engine(300, started()),
    ]);
    let expected = Incident {
        evidence: positions(&[8, 9, 11, 12, 13, 14, 15]),
        ..expected(8, 20, 106, &[Kind::Crash, Kind::Interruption])
    };
    assert_eq!(found, [expected]);
}

#[test]
fn what_waits_for_a_person_is_open_until_that_is_settled() {
    let waits = [
        session(10, interrupted()),
        session(10, decided(Rerun::Wait)),
    ];
    let open = Incident {
        end: None,
        ending: Ending::Waits,
        cause: Some(cause(6, "it is gone")),
        evidence: positions(&[6, 7]),
        ..expected(6, 10, 10, &[Kind::Interruption])
    };
    assert_eq!(incidents(waits.clone()), std::slice::from_ref(&open));
    let settled = [
        session(9000, decided(Rerun::Run)),
        session(9001, completed(M)),
    ];
    let over = Incident {
        end: Some(at(9001)),
        ending: Ending::Settled,
        evidence: positions(&[6, 7, 8, 9]),
        ..open
    };
    assert_eq!(incidents(waits.into_iter().chain(settled)), [over]);
}

#[test]
fn a_question_that_nobody_answers_in_time_is_one_of_its_own() {
    let asked = Event::PermissionAsked {
        message: M,
        permission: "per".to_owned(),
        action: "edit".to_owned(),
        detail: "a.rs".to_owned(),
        call: None,
    };
    let expired = Event::QuestionExpired {
        message: M,
        question: "per".to_owned(),
        reason: "nobody answered within 900s".to_owned(),
    };
    let settled = Event::PermissionSettled {
        message: M,
        permission: "per".to_owned(),
        answer: None,
    };
    let begins = [
        session(10, asked),
        session(910, expired),
        session(911, settled),
    ];
    // It was over as it was noticed: the agent is told no, in nobody's name.
    let alone = Incident {
        ending: Ending::GivenUp,
        cause: Some(cause(7, "nobody answered within 900s")),
        ..expected(7, 910, 910, &[Kind::Expiry])
    };
    let goes_on = session(920, completed(M));
    assert_eq!(
        incidents(begins.clone().into_iter().chain([goes_on])),
        std::slice::from_ref(&alone)
    );
    // A turn that fails for want of an answer belongs to it, and what expired explains it.
    let failed = session(912, failed(M));
    let with_its_turn = Incident {
        end: Some(at(912)),
        kinds: [(Kind::Expiry, 1), (Kind::Failure, 1)].into(),
        evidence: positions(&[7, 9]),
        ..alone
    };
    assert_eq!(
        incidents(begins.into_iter().chain([failed])),
        [with_its_turn]
    );
}

#[test]
fn a_hole_is_filled_or_stays() {
    let hole = || session(10, said(Placement::AfterHole));
    let filled = incidents([
        hole(),
        session(11, said(Placement::IntoHole)),
        session(12, completed(M)),
    ]);
    let expected = Incident {
        ending: Ending::Filled,
        evidence: positions(&[6, 7]),
        ..expected(6, 10, 11, &[Kind::Gap])
    };
    assert_eq!(filled, std::slice::from_ref(&expected));
    let stays = incidents([hole(), session(12, completed(M))]);
    let expected = Incident {
        ending: Ending::Lost,
        end: Some(at(12)),
        ..expected
    };
    assert_eq!(stays, [expected]);
}

#[test]
fn sessions_fail_each_for_itself() {
    let found = incidents([session(10, failed(M)), other(11, failed(N))]);
    let of_first = Incident {
        ending: Ending::GivenUp,
        cause: Some(cause(6, "APIError: no")),
        ..expected(6, 10, 10, &[Kind::Failure])
    };
    let of_second = Incident {
        cause: Some(cause(7, "APIError: no")),
        sessions: [(T, [N].into())].into(),
        ..Incident {
            ending: Ending::GivenUp,
            ..expected(7, 11, 11, &[Kind::Failure])
        }
    };
    assert_eq!(found, [of_first, of_second]);
}

#[test]
fn an_incident_has_bounds() {
    let tries = (0..500).map(|n| {
        connection(
            10 + n,
            Event::ConnectFailed {
                attempt: 1,
                reason: "connection refused".to_owned(),
            },
        )
    });
    let [found] = &incidents(tries)[..] else {
        panic!("it is one incident");
    };
    assert_eq!(found.evidence.len(), EVIDENCE_MAX);
    assert_eq!(found.evidence_left_out, 500 - EVIDENCE_MAX as u64);
    assert_eq!(found.evidence.first(), Some(&Position(6)));
    assert_eq!(found.evidence.last(), Some(&Position(505)));
    assert!(found.is_open());
}

fn any_link_event() -> impl Strategy<Value = Event> {
    let gap = |filled| {
        let agent_session = "ses".to_owned();
        if filled {
            Event::GapFilled { agent_session }
        } else {
            Event::GapFound {
                agent_session,
                from: 1,
                to: 3,
            }
        }
    };
    let reason = || "so".to_owned();
    prop::sample::select(vec![
        lost("so"),
        again(),
        again(),
        connected(),
        connected(),
        changed(ConnectionState::Connecting),
        changed(ConnectionState::Disconnected),
        Event::ConnectFailed {
            attempt: 1,
            reason: reason(),
        },
        Event::CircuitOpened {
            failures: 1,
            until: at(0),
        },
        Event::CircuitClosed,
        Event::ProbeFailed { reason: reason() },
        Event::ProbeRecovered,
        Event::ServerStopDecided { reason: reason() },
        Event::ServerExited { how: reason() },
        Event::TaskPanicked { reason: reason() },
        gap(false),
        gap(true),
    ])
}

fn any_engine_event() -> impl Strategy<Value = Event> {
    prop::sample::select(vec![
        started(),
        started(),
        Event::EngineStopped,
        Event::RecoveryStarted { sessions: 1 },
        Event::RecoveryFinished {
            sessions: 1,
            resolved: 0,
            completed: 0,
            dead_lettered: 0,
            waiting: 0,
        },
    ])
}

/// A story of all streams, of which sessions have most.
fn any_story() -> impl Strategy<Value = Vec<Told>> {
    let sessions = prop::sample::select(vec![StreamId::Session(S), StreamId::Session(T)]);
    let told = prop_oneof![
        3 => (sessions, 0..40_u64, crate::tests::any_event()),
        2 => (Just(StreamId::Connection(C)), 0..40_u64, any_link_event()),
        1 => (Just(StreamId::Engine), 0..40_u64, any_engine_event()),
    ];
    prop::collection::vec(told, 0..80).prop_map(|told| {
        let mut now = 0;
        told.into_iter()
            .map(|(stream, later, event)| {
                now += later;
                (stream, now, event)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn whatever_happens_incidents_have_a_name_a_beginning_and_an_end(story in any_story()) {
        let events = log(story);
        let (mut incidents, mut at_once) = (Incidents::default(), Incidents::default());
        let mut found = Vec::new();
        for recorded in &events {
            at_once.apply(recorded);
            incidents.apply(recorded);
            found.extend(incidents.take());
        }
        found.extend(incidents.finish());
        let mut names = BTreeSet::new();
        for incident in &found {
            prop_assert!(!incident.kinds.is_empty());
            prop_assert_eq!(incident.evidence.first(), Some(&incident.name.0));
            prop_assert!(names.insert(incident.name));
            prop_assert!(incident.end.is_none_or(|end| incident.begin <= end));
            prop_assert_eq!(incident.is_open(), incident.ending >= Ending::Open);
        }
        prop_assert_eq!(found, at_once.finish());
    }
}
