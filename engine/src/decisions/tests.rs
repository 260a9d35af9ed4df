use std::time::Duration;

use recount_projections::MessageState as State;
use recount_store::{Expected, Log, MessageId, Refusal, Timestamp};

use super::*;
use crate::adapter::scripted::{Fault, Script, Scripted, Step};
use crate::policy::Backoff;
use crate::{OpenSession, Options, RerunPolicy, Session as Handle, SessionManager};

/// A session in which much goes wrong: a server that dies in a turn, a tool that had begun, deliveries refused for
/// now and for good, an answer that is lost, a person's word.
async fn incidents(data: &std::path::Path) -> Vec<Arc<dyn AgentAdapter>> {
    let play = |prompt: &str, run: u32| match (prompt, run) {
        ("works", _) => vec![
            Step::text("half ", 1),
            Step::Gate("steered".to_owned()),
            Step::Tool {
                name: "bash".to_owned(),
                input: serde_json::json!({"command": "make"}),
                output: "made".to_owned(),
                permission: None,
                delay: Duration::ZERO,
            },
            Step::text("never", 1),
        ],
        ("dies", 1) => vec![Step::text("half ", 1), Step::Die],
        ("dies with a tool", 1) => vec![
            Step::Tool {
                name: "bash".to_owned(),
                input: serde_json::json!({"command": "make"}),
                output: "made".to_owned(),
                permission: None,
                delay: Duration::ZERO,
            },
            Step::Die,
        ],
        _ => vec![Step::text("done", 2)],
    };
    let agent = Scripted::new(Script::new(play));
    let options = Options::new(data).with_adapter(Arc::new(agent.clone()));
    let manager = SessionManager::start(options.clone())
        .await
        .expect("it starts");
    let here = data.display().to_string();
    let spec = OpenSession::new("scripted", here);
    let session = manager.open(spec).await.expect("it opens");

    assert_eq!(said(&session, "hello").await, State::Completed);
    assert_eq!(said(&session, "dies").await, State::Completed);
    let busy = || Fault::Refuse {
        status: 429,
        retry_after: None,
    };
    agent.fault("POST message", 3, busy());
    assert_eq!(said(&session, "later").await, State::Completed);
    agent.fault("POST message", 1, Fault::LoseAnswer);
    assert_eq!(said(&session, "lost").await, State::Completed);
    let never = Fault::Refuse {
        status: 400,
        retry_after: None,
    };
    agent.fault("POST message", 1, never);
    assert_eq!(said(&session, "never").await, State::DeadLettered);
    let works = session.send("works", None).await.expect("it is queued");
    let steers = session.steer("instead", None).await.expect("it is queued");
    let held = session.wait(|state| {
        let steers = state.queue.get(steers)?;
        (steers.state == State::Accepted).then_some(())
    });
    held.await.expect("it is held");
    agent.open_gate("steered");
    for message in [works, steers] {
        let state = session.settled(message).await.expect("it ends");
        assert_eq!(state, State::Completed);
    }
    let transcript = session.transcript().expect("it can be read");
    let text = |message| {
        transcript
            .turn_of(message)
            .map(recount_projections::Turn::text)
    };
    assert_eq!(text(works).as_deref(), Some("half "));
    assert_eq!(text(steers).as_deref(), Some("done"));
    assert_eq!(agent.runs("works") + agent.runs("instead"), 2);
    let waits = session.send("dies with a tool", None).await;
    let waits = waits.expect("it is queued");
    session.at_rest().await.expect("it comes to rest");
    session.rerun(true).await.expect("it waits for a person");
    assert_eq!(
        session.settled(waits).await.expect("it ends"),
        State::Completed
    );
    manager.shut_down().await.expect("it ends in order");

    // Once more, by another process.
    let manager = SessionManager::start(options.clone()).await;
    let manager = manager.expect("it starts again");
    manager.recover().await.expect("nothing is open");
    let session = manager.find(session.id()).await.expect("it is there");
    assert_eq!(said(&session, "hello again").await, State::Completed);
    manager.shut_down().await.expect("it ends in order");
    options.adapters
}

async fn said(session: &Handle, text: &str) -> State {
    let message = session.send(text, None).await.expect("it is queued");
    session.settled(message).await.expect("it ends")
}

/// The same log as a build with a mistake would have written it, and the positions of what that changed.
async fn mistaken(
    log: &LogReader,
    mistake: impl Fn(&Recorded) -> Option<(Event, Timestamp)>,
) -> (Log, Vec<Recorded>) {
    let other = Log::in_memory().expect("a log in memory");
    let mut changed = Vec::new();
    for recorded in log.read_all(Position::FIRST) {
        let recorded = recorded.expect("it can be read");
        let stream = recorded.stream;
        let new = mistake(&recorded).map(|(event, at)| NewEvent::live(event, at));
        if new.as_ref().map(|new| (&new.event, new.at)) != Some((&recorded.event, recorded.at)) {
            changed.push(recorded);
        }
        let append = other.append(stream, Expected::Any, new.into_iter().collect());
        append.await.expect("it is appended");
    }
    (other, changed)
}

fn decisions_in(log: &LogReader) -> u64 {
    let all = log.read_all(Position::FIRST);
    let decided = all.filter(|r| r.as_ref().is_ok_and(|r| r.class == Class::Decided));
    decided.count() as u64
}

#[tokio::test]
async fn a_log_full_of_incidents_is_derived_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = incidents(folder.path()).await;
    let log = LogReader::open(folder.path()).expect("a log");
    let derived = derive(&log, None, &adapters).expect("it can be read");
    assert_eq!(
        derived,
        Derived {
            // One is a person's word.
            decisions: decisions_in(&log) - 1,
            ..Derived::default()
        }
    );
    assert!(derived.decisions > 30, "{derived:?}");
}

#[tokio::test]
async fn a_changed_decision_is_named_and_what_it_would_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = incidents(folder.path()).await;
    let log = LogReader::open(folder.path()).expect("a log");
    let mistakes: [fn(&mut Event); 6] = [
        |event| {
            if let Event::RetryScheduled { at, .. } = event {
                *at = at.plus(Duration::from_millis(1));
            }
        },
        |event| {
            if let Event::ReconnectScheduled { at, .. } = event {
                *at = at.plus(Duration::from_millis(1));
            }
        },
        |event| {
            if let Event::DeliveryStarted { attempt, .. } = event {
                *attempt += 1;
            }
        },
        |event| {
            if let Event::DeliveryStarted { agent_message, .. } = event {
                agent_message.push('x');
            }
        },
        |event| {
            if let Event::TurnRequested { run, .. } = event {
                *run += 1;
            }
        },
        |event| {
            if let Event::RerunDecided { rerun, .. } = event
                && *rerun == Rerun::Wait
            {
                *rerun = Rerun::Run;
            }
        },
    ];
    for mistake in mistakes {
        let (other, changed) = mistaken(&log, |recorded| {
            let mut event = recorded.event.clone();
            mistake(&mut event);
            Some((event, recorded.at))
        })
        .await;
        let derived = derive(&other, None, &adapters).expect("it can be read");
        let first = derived.first_difference.expect("it is noticed");
        assert_eq!(first.recorded.position, changed[0].position);
        let derived: Vec<Event> = first.derived.iter().map(wordless).collect();
        assert!(
            derived.contains(&wordless(&changed[0].event)),
            "{derived:#?}"
        );
    }
}

#[tokio::test]
async fn a_decision_that_does_not_follow_from_what_was_observed_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = incidents(folder.path()).await;
    let log = LogReader::open(folder.path()).expect("a log");
    // Given up, though it was refused for now and no more.
    let (other, changed) = mistaken(&log, |recorded| {
        let mut event = recorded.event.clone();
        if let Event::DeliveryRejected { refusal, .. } = &mut event
            && *refusal == Refusal::ForGood
        {
            *refusal = Refusal::ForNow { retry_after: None };
        }
        Some((event, recorded.at))
    })
    .await;
    let derived = derive(&other, None, &adapters).expect("it can be read");
    let first = derived.first_difference.expect("it is noticed");
    assert_eq!(first.recorded.position, changed[0].position.next());
    assert!(
        matches!(
            first.derived[..],
            [Event::RetryScheduled { attempt: 2, .. }]
        ),
        "{first:#?}"
    );

    // Tried again before the time that was set for it.
    let (other, changed) = mistaken(&log, |recorded| {
        let early = match recorded.event {
            Event::ConnectionChanged {
                to: ConnectionState::Connecting,
                ..
            } if recorded.seq > Seq(5) => Duration::from_millis(60),
            _ => Duration::ZERO,
        };
        let at = Timestamp(recorded.at.0 - u64::try_from(early.as_micros()).expect("it is short"));
        Some((recorded.event.clone(), at))
    })
    .await;
    let derived = derive(&other, None, &adapters).expect("it can be read");
    let first = derived.first_difference.expect("it is noticed");
    assert_eq!(first.recorded.position, changed[0].position);
}

#[tokio::test]
async fn a_decision_that_is_lacking_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = incidents(folder.path()).await;
    let log = LogReader::open(folder.path()).expect("a log");
    let (other, lacking) = mistaken(&log, |recorded| match recorded.event {
        Event::RetryScheduled { .. } => None,
        ref event => Some((event.clone(), recorded.at)),
    })
    .await;
    let derived = derive(&other, None, &adapters).expect("it can be read");
    let first = derived.first_difference.expect("one is lacking");
    // The one after it moved up into its place.
    assert_eq!(first.recorded.position, lacking[0].position);
    assert!(
        matches!(
            first.derived[..],
            [Event::RetryScheduled { attempt: 2, .. }]
        ),
        "{first:#?}"
    );
}

#[tokio::test]
async fn another_policy_decides_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = incidents(folder.path()).await;
    let log = LogReader::open(folder.path()).expect("a log");
    let names = |policy: &Policy| -> Vec<(String, Vec<String>)> {
        let other = |_: &Policy| Ok(policy.clone());
        let differences = what_if(&log, None, &adapters, other, |_| {}).expect("it can be read");
        let name = |event: &Event| event.type_name().to_owned();
        differences
            .iter()
            .map(|d| {
                (
                    name(&d.recorded.event),
                    d.derived.iter().map(name).collect(),
                )
            })
            .collect()
    };
    let policy = Policy::default();
    assert_eq!(names(&policy), []);

    let mut never = policy.clone();
    never.session.rerun = RerunPolicy::Never;
    let row = |a: &str, b: &str| (a.to_owned(), vec![b.to_owned()]);
    assert_eq!(
        names(&never),
        [
            row("RerunDecided", "RerunDecided"),
            row("RerunDecided", "RerunDecided")
        ]
    );

    let mut impatient = policy.clone();
    impatient.session.retries.for_now.attempts_max = 2;
    assert_eq!(
        names(&impatient),
        [
            row("RetryScheduled", "MessageDeadLettered"),
            row("RetryScheduled", "MessageDeadLettered")
        ]
    );

    let mut slow = policy;
    slow.connection.backoff = Backoff {
        delay_min: Duration::from_secs(1),
        delay_max: Duration::from_secs(30),
    };
    assert_eq!(
        names(&slow),
        [
            row("ReconnectScheduled", "ReconnectScheduled"),
            row("ReconnectScheduled", "ReconnectScheduled")
        ]
    );
}

const ID: SessionId = SessionId::from_bytes([1; 10]);
const MESSAGE: MessageId = MessageId::from_bytes([2; 10]);

/// A session of one message whose first attempt is on its way to an agent.
fn sent() -> Vec<(u64, Event)> {
    let events = [
        Event::SessionOpened {
            connection: ConnectionId::from_bytes([3; 10]),
            agent: "opencode".to_owned(),
            directory: "/project".to_owned(),
            model: None,
            title: None,
        },
        Event::MessageQueued {
            message: MESSAGE,
            key: None,
            text: "hello".to_owned(),
        },
        Event::DeliveryStarted {
            message: MESSAGE,
            attempt: 1,
            agent_message: "msg".to_owned(),
        },
        Event::AgentSessionRequested {
            marker: ID.to_string(),
        },
        Event::AgentSessionBound {
            agent_session: "ses".to_owned(),
        },
    ];
    events.into_iter().map(|event| (1, event)).collect()
}

/// What is derived of a session, its events told with their times in seconds.
async fn derived(story: Vec<(u64, Event)>) -> Derived {
    let log = Log::in_memory().expect("a log in memory");
    for (seconds, event) in story {
        let event = NewEvent::live(event, Timestamp(seconds * 1_000_000));
        let append = log.append(StreamId::Session(ID), Expected::Any, vec![event]);
        append.await.expect("it is appended");
    }
    derive(&log, None, &[]).expect("it can be read")
}

/// The number and the type of the first event that differs, and the decisions that would be in its place.
fn first(derived: Derived) -> Option<(u64, &'static str, Vec<Event>)> {
    let first = derived.first_difference?;
    let instead = first.derived.iter().map(wordless).collect();
    Some((
        first.recorded.seq.0,
        first.recorded.event.type_name(),
        instead,
    ))
}

/// A delivery that was lost, and what becomes of it.
fn lost(verdicts: &[(Verdict, &str)]) -> Vec<(u64, Event)> {
    let unknown = Event::DeliveryUnknown {
        message: MESSAGE,
        attempt: 1,
        reason: "the connection was lost".to_owned(),
    };
    let decided = verdicts.iter().map(|(verdict, reason)| {
        let verdict = Event::UnknownDecided {
            message: MESSAGE,
            attempt: 1,
            verdict: *verdict,
            reason: (*reason).to_owned(),
        };
        (1, verdict)
    });
    let mut story = sent();
    story.push((1, unknown));
    story.extend(decided);
    story
}

#[tokio::test]
async fn a_person_who_gives_up_is_nobodys_rule() {
    let mut story = lost(&[
        (Verdict::Wait, "the policy is ask"),
        (Verdict::GiveUp, "a person's word"),
    ]);
    let reason = "the connection was lost".to_owned();
    let given_up = Event::MessageDeadLettered {
        message: MESSAGE,
        reason,
    };
    story.push((1, given_up));
    let expected = Derived {
        decisions: 3,
        ..Derived::default()
    };
    assert_eq!(derived(story).await, expected);
}

#[tokio::test]
async fn what_is_given_up_since_its_log_was_salvaged_is_nobodys_rule() {
    let mut story = sent();
    let given_up = Event::MessageDeadLettered {
        message: MESSAGE,
        reason: SALVAGED.to_owned(),
    };
    story.push((1, given_up));
    let expected = Derived {
        decisions: 2,
        ..Derived::default()
    };
    assert_eq!(derived(story).await, expected);
}

#[tokio::test]
async fn what_becomes_of_an_unknown_delivery_is_a_decision_that_can_lack_or_be_another() {
    let waits = || Event::UnknownDecided {
        message: MESSAGE,
        attempt: 1,
        verdict: Verdict::Wait,
        reason: String::new(),
    };
    let lacking = lost(&[(Verdict::Resend, "a person's word")]);
    let changed = lost(&[(Verdict::Arrived, "the policy is ask")]);
    for story in [lacking, changed] {
        assert_eq!(
            first(derived(story).await),
            Some((7, "UnknownDecided", vec![waits()]))
        );
    }
}

#[tokio::test]
async fn a_question_expires_when_its_time_is_over_and_no_other_does() {
    let story = |question: &str, seconds: u64| {
        let message = MESSAGE;
        let events = [
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
            Event::TurnRequested { message, run: 1 },
            Event::TurnStarted { message, run: 1 },
            Event::PermissionAsked {
                message,
                permission: "per".to_owned(),
                action: "edit".to_owned(),
                detail: "a.rs".to_owned(),
                call: None,
            },
        ];
        let expired = Event::QuestionExpired {
            message,
            question: question.to_owned(),
            reason: String::new(),
        };
        let mut story = sent();
        story.extend(events.into_iter().map(|event| (1, event)));
        story.push((seconds, expired));
        story
    };
    let patience = Policy::default().session.question_patience.as_secs();
    assert_eq!(first(derived(story("per", 1 + patience)).await), None);
    let other = derived(story("others", 1 + patience)).await;
    let expires = Event::QuestionExpired {
        message: MESSAGE,
        question: "per".to_owned(),
        reason: String::new(),
    };
    assert_eq!(
        first(other),
        Some((10, "QuestionExpired", vec![expires.clone()]))
    );
    let early = derived(story("per", patience)).await;
    assert_eq!(first(early), Some((10, "QuestionExpired", Vec::new())));
}

#[tokio::test]
async fn what_goes_along_with_the_first_message_of_a_fork_is_a_decision_that_can_lack_or_be_another()
 {
    let forked = Event::SessionForked {
        from: SessionId::from_bytes([8; 10]),
        at: Seq(40),
        agent_session: None,
        through: None,
        context: Some("What was said before".to_owned()),
    };
    let story = |context: Option<MessageId>| {
        let mut story = sent();
        story.insert(1, (1, forked.clone()));
        story.extend(context.map(|message| (1, Event::ContextAdded { message })));
        let accepted = Event::DeliveryAccepted {
            message: MESSAGE,
            attempt: 1,
        };
        story.push((1, accepted));
        story
    };
    assert_eq!(first(derived(story(Some(MESSAGE))).await), None);
    let added = vec![Event::ContextAdded { message: MESSAGE }];
    let other = derived(story(Some(MessageId::from_bytes([9; 10])))).await;
    assert_eq!(first(other), Some((7, "ContextAdded", added.clone())));
    let lacking = derived(story(None)).await;
    assert_eq!(first(lacking), Some((7, "DeliveryAccepted", added)));
}
