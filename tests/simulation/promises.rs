//! The nine promises, as code. Each is a function with the promise's name, which says what broke it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::AgentAdapter;
use recount_engine::adapter::http::Request;
use recount_engine::adapter::opencode::OpenCode;
use recount_engine::machine::session::policy::Retry;
use recount_engine::{MessageState, Policy, SessionManager, Status, decisions};
use recount_projections::queue::RefusedHow;
use recount_projections::state_store::load;
use recount_projections::turn::Item;
use recount_projections::{Projection, Session, Transcript, Turn, fold};
use recount_store::{
    ConnectionState, Event, Json, LogReader, MessageId, PermissionAnswer, Placement, Position,
    Provenance, Recorded, Rerun, Resolution, Seq, SessionId, StreamId, Timestamp, Verdict, verify,
};
use serde_json::Value;

use crate::book::{Broken, Pages};

/// How the messages begin that somebody writes in the agent itself.
pub(crate) const STRANGE: &str = "msg_zzzz";

/// Fails with this promise where a condition does not hold.
macro_rules! holds {
    ($promise:ident, $condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(Broken { promise: stringify!($promise), what: format!($($what)+) });
        }
    };
}

/// What a request asks that has to be on record before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    MakeSession {
        title: String,
    },
    /// `session` is what is copied.
    Copy {
        session: String,
    },
    /// What was copied gets its name.
    Rename {
        title: String,
    },
    Keep {
        agent_message: String,
    },
    Work {
        agent_message: String,
    },
    Abort {
        agent_session: String,
    },
    /// `says` is the word for a permission, the texts for a question in words, and nothing for its refusal.
    Answer {
        question: String,
        says: Value,
    },
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let body = request.body.as_deref().unwrap_or(b"null");
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path: Vec<&str> = request.url.path_segments().into_iter().flatten().collect();
        match (request.method.as_str(), &path[..]) {
            ("POST", ["session"]) => Some(Self::MakeSession {
                title: text(&body["title"]),
            }),
            ("POST", ["session", id, "fork"]) => Some(Self::Copy {
                session: (*id).to_owned(),
            }),
            ("PATCH", ["session", _]) => Some(Self::Rename {
                title: text(&body["title"]),
            }),
            ("POST", ["session", _, "message"]) => Some(Self::Keep {
                agent_message: text(&body["messageID"]),
            }),
            ("POST", ["session", _, "prompt_async"]) => Some(Self::Work {
                agent_message: text(&body["messageID"]),
            }),
            ("POST", ["session", id, "abort"]) => Some(Self::Abort {
                agent_session: (*id).to_owned(),
            }),
            ("POST", [kind, id, "reply" | "reject"]) => Some(Self::Answer {
                question: (*id).to_owned(),
                says: body[if *kind == "permission" {
                    "reply"
                } else {
                    "answers"
                }]
                .clone(),
            }),
            _ => None,
        }
    }
}

/// What was acknowledged, or shown to any reader, is there after a death: whole, and in its place.
pub(crate) fn promise_1_acknowledged_means_durable(
    pages: &Pages,
    log: &LogReader,
) -> Result<(), Broken> {
    let found: Result<Vec<_>, _> = log.read_all(Position::FIRST).collect();
    let found = found.map_err(|error| Broken {
        promise: "promise_1_acknowledged_means_durable",
        what: error.to_string(),
    })?;
    for (n, known) in pages.events.iter().enumerate() {
        holds!(
            promise_1_acknowledged_means_durable,
            found.get(n) == Some(known),
            "{known:?} was durable, and now there is {:?}",
            found.get(n)
        );
    }
    for receipt in &pages.receipts {
        let stream = StreamId::Session(receipt.session);
        let queued = found.iter().any(|recorded| {
            recorded.stream == stream
                && matches!(&recorded.event, Event::MessageQueued { message, text, .. }
                    if *message == receipt.message && *text == receipt.text)
        });
        holds!(
            promise_1_acknowledged_means_durable,
            queued,
            "{receipt:?} was given, and the log knows nothing of it"
        );
    }
    Ok(())
}

/// Whatever is sent to an agent was decided on record before, and is sent no more often than that.
pub(crate) fn promise_2_recorded_before_it_is_done(
    events: &[Recorded],
    asked: &Asked,
    sent: usize,
) -> Result<(), Broken> {
    let message_of = |wanted: &str| {
        events.iter().find_map(|recorded| match &recorded.event {
            Event::DeliveryStarted {
                message,
                agent_message,
                ..
            } if agent_message == wanted => Some(*message),
            _ => None,
        })
    };
    let count = |decides: &dyn Fn(&Event) -> bool| {
        events
            .iter()
            .filter(|recorded| decides(&recorded.event))
            .count()
    };
    let decided = match asked {
        // One that a look does not find is asked for again, by the same name.
        Asked::MakeSession { title } | Asked::Rename { title } => count(&|event| {
            matches!(event, Event::AgentSessionRequested { marker } if title.contains(marker.as_str()))
        })
        .saturating_mul(sent),
        // The same for a copy.
        Asked::Copy { session } => {
            let forks = events.iter().filter(|recorded| {
                matches!(&recorded.event, Event::SessionForked { agent_session, .. }
                    if agent_session.as_ref() == Some(session))
            });
            let forks: BTreeSet<StreamId> = forks.map(|recorded| recorded.stream).collect();
            let requested = events.iter().filter(|recorded| {
                forks.contains(&recorded.stream)
                    && matches!(recorded.event, Event::AgentSessionRequested { .. })
            });
            requested.count().saturating_mul(sent)
        }
        Asked::Keep {
            agent_message: wanted,
        } => count(
            &|event| matches!(event, Event::DeliveryStarted { agent_message, .. } if agent_message == wanted),
        ),
        Asked::Work { agent_message } => {
            let asked = message_of(agent_message);
            count(
                &|event| matches!(event, Event::TurnRequested { message, .. } if Some(*message) == asked),
            )
        }
        // These are safe to repeat, and are repeated until they are heard.
        Asked::Abort { .. } => count(&|event| {
            matches!(
                event,
                Event::TurnAbortAsked { .. } | Event::TurnStalled { .. }
            )
        })
        .saturating_mul(sent),
        Asked::Answer {
            question: wanted,
            says,
        } => count(&|event| match event {
            Event::PermissionAnswered {
                permission, answer, ..
            } => permission == wanted && says == word_for(*answer),
            Event::QuestionAnswered {
                question, answers, ..
            } => {
                let texts = answers.as_ref().and_then(Json::read::<Value>);
                question == wanted && *says == texts.unwrap_or_default()
            }
            Event::QuestionExpired { question, .. } => {
                question == wanted && (says.is_null() || says == "reject")
            }
            _ => false,
        })
        .saturating_mul(sent),
    };
    holds!(
        promise_2_recorded_before_it_is_done,
        sent <= decided,
        "{asked:?} was sent {sent} times, and the log has {decided} decisions for it"
    );
    Ok(())
}

/// The agent's word for an answer.
const fn word_for(answer: PermissionAnswer) -> &'static str {
    match answer {
        PermissionAnswer::Once => "once",
        PermissionAnswer::Always => "always",
        PermissionAnswer::Reject => "reject",
    }
}

/// The same for processes: one is started once its mark and its port are on record.
pub(crate) fn promise_2_started_on_record(
    events: &[Recorded],
    wanted: &str,
    wanted_port: u16,
) -> Result<(), Broken> {
    let decided = events.iter().any(|recorded| {
        matches!(&recorded.event, Event::ServerStartDecided { mark, port }
            if mark == wanted && *port == wanted_port)
    });
    holds!(
        promise_2_recorded_before_it_is_done,
        decided,
        "a server is started as {wanted} on port {wanted_port}, and nobody had decided that"
    );
    Ok(())
}

/// And one is ended once that was decided, or its server is known to be gone.
pub(crate) fn promise_2_ended_on_record(events: &[Recorded], wanted: &str) -> Result<(), Broken> {
    let mut after = events.iter().skip_while(|recorded| {
        !matches!(&recorded.event, Event::ServerStartDecided { mark, .. } if mark == wanted)
    });
    let stream = after.next().map(|recorded| recorded.stream);
    let decided = after.any(|recorded| {
        Some(recorded.stream) == stream
            && matches!(
                recorded.event,
                Event::ServerStopDecided { .. } | Event::ServerExited { .. }
            )
    });
    holds!(
        promise_2_recorded_before_it_is_done,
        decided,
        "what carries {wanted} is ended, and nobody had decided that"
    );
    Ok(())
}

/// The part of promise 3 that is looked at all along: nothing overtakes what was queued before it, and nothing but
/// what steers is sent while another message is open.
pub(crate) fn promise_3_nothing_overtakes(
    events: &[Recorded],
    agent_message: &str,
) -> Result<(), Broken> {
    let sent = events.iter().find(|recorded| {
        matches!(&recorded.event, Event::DeliveryStarted { agent_message: name, .. } if name == agent_message)
    });
    // What was not decided breaks promise 2.
    let Some(stream) = sent.map(|recorded| recorded.stream) else {
        return Ok(());
    };
    let here = events.iter().filter(|recorded| recorded.stream == stream);
    let session: Session = fold(here);
    let messages = session.queue.messages().iter();
    let before =
        messages.take_while(|message| message.agent_message.as_deref() != Some(agent_message));
    let open: Vec<_> = before
        .filter(|message| !message.state.is_settled())
        .collect();
    let steers = session.queue.steering();
    let steers =
        steers.is_some_and(|message| message.agent_message.as_deref() == Some(agent_message));
    let beside = steers && open.iter().all(|head| head.state == MessageState::Running);
    holds!(
        promise_3_once_in_order_and_answered,
        open.is_empty() || beside,
        "{agent_message} is sent before what was queued before it: {open:?}"
    );
    Ok(())
}

/// The part of promise 3 that is looked at all along: asked to work on an older message, an agent answers a newer one
/// that somebody wrote there.
pub(crate) fn promise_3_only_the_newest_is_worked_on(
    agent_message: &String,
    newest: Option<&String>,
) -> Result<(), Broken> {
    holds!(
        promise_3_once_in_order_and_answered,
        newest.is_none_or(|newest| newest == agent_message),
        "the agent is asked to work on {agent_message}, and had shown that {newest:?} is newer"
    );
    Ok(())
}

/// The part of promise 3 that is looked at all along: what an agent has shown its answer to is answered, and asked to
/// work on it the agent would do nothing.
pub(crate) fn promise_3_what_is_answered_is_left(
    agent_message: &String,
    answered: Option<&BTreeSet<String>>,
) -> Result<(), Broken> {
    holds!(
        promise_3_once_in_order_and_answered,
        !answered.is_some_and(|answered| answered.contains(agent_message)),
        "the agent is asked to work on {agent_message}, and had shown its answer"
    );
    Ok(())
}

/// What an agent's session holds at the end, by its own word.
#[derive(Debug)]
pub(crate) struct History {
    /// Where its agent is.
    pub(crate) host: String,
    /// The agent's name for the session.
    pub(crate) id: String,
    /// The messages in it, as they are listed.
    pub(crate) messages: Vec<Value>,
}

/// What is known of a world when it has come to rest.
pub(crate) struct Ended<'a> {
    pub(crate) pages: &'a Pages,
    pub(crate) manager: &'a SessionManager,
    pub(crate) policy: &'a Policy,
    /// What the agents still hold.
    pub(crate) histories: &'a [History],
    /// Where the agents of sessions are.
    pub(crate) hosts: &'a BTreeMap<SessionId, String>,
    /// How often the model was asked, by the text of a message.
    pub(crate) asked: &'a dyn Fn(&str) -> u32,
}

impl Ended<'_> {
    fn sessions(&self) -> BTreeMap<SessionId, Vec<Recorded>> {
        let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for recorded in &self.pages.events {
            if let StreamId::Session(id) = recorded.stream {
                sessions.entry(id).or_default().push(recorded.clone());
            }
        }
        sessions
    }

    /// What the agent of a session still holds.
    fn histories_of(&self, id: SessionId) -> impl Iterator<Item = &History> {
        let host = self.hosts.get(&id);
        let histories = self.histories.iter();
        histories.filter(move |history| Some(&history.host) == host)
    }
}

/// Whether somebody wrote a message in the agent itself.
fn is_strange(message: &Value) -> bool {
    let id = message["info"]["id"].as_str();
    id.is_some_and(|id| id.starts_with(STRANGE))
}

/// Whether the agent gave a message its name: so it does with what it copies.
fn is_copied(message: &Value) -> bool {
    let id = message["info"]["id"].as_str();
    id.is_some_and(|id| id.ends_with("Scripted000000"))
}

/// The answers to a message that an agent lists.
fn answers<'a>(history: &'a History, agent_message: &'a str) -> impl Iterator<Item = &'a Value> {
    let answers = history.messages.iter();
    answers.filter(move |message| message["info"]["parentID"] == agent_message)
}

/// Each message is with its agent at most once, in the order of queueing; the model was asked for the runs that
/// were decided and no others; and each message has ended, answered once or visibly not.
pub(crate) fn promise_3_once_in_order_and_answered(ended: &Ended) -> Result<(), Broken> {
    for (id, events) in ended.sessions() {
        let mut order: Vec<(MessageId, String)> = Vec::new();
        let mut keys: BTreeMap<String, MessageId> = BTreeMap::new();
        let mut names: BTreeMap<MessageId, String> = BTreeMap::new();
        let mut runs: BTreeMap<MessageId, BTreeSet<u32>> = BTreeMap::new();
        let mut settled: BTreeMap<MessageId, &Event> = BTreeMap::new();
        let mut unknown: BTreeSet<MessageId> = BTreeSet::new();
        let mut reruns: BTreeSet<(MessageId, u32)> = BTreeSet::new();
        let mut steered: BTreeSet<MessageId> = BTreeSet::new();
        let mut absences: BTreeMap<MessageId, usize> = BTreeMap::new();
        let mut sessions: Vec<String> = Vec::new();
        let mut said_before = None;
        for recorded in &events {
            let event = &recorded.event;
            match event {
                Event::SessionForked { context, .. } => said_before.clone_from(context),
                Event::AgentSessionBound { agent_session }
                | Event::AgentSessionForked { agent_session } => {
                    sessions.push(agent_session.clone());
                }
                Event::MessageQueued { message, key, text } => {
                    order.push((*message, text.clone()));
                    if let Some(key) = key {
                        let before = keys.insert(key.clone(), *message);
                        holds!(
                            promise_3_once_in_order_and_answered,
                            before.is_none(),
                            "{id}: {before:?} and {message} were queued with the same key"
                        );
                    }
                }
                Event::DeliveryStarted {
                    message,
                    agent_message,
                    attempt,
                } => {
                    let name = names
                        .entry(*message)
                        .or_insert_with(|| agent_message.clone());
                    holds!(
                        promise_3_once_in_order_and_answered,
                        name == agent_message,
                        "{id}: {message} is known by {name} and by {agent_message}"
                    );
                    holds!(
                        promise_3_once_in_order_and_answered,
                        !unknown.contains(message),
                        "{id}: {message} is sent again, and nobody knows whether it had arrived"
                    );
                    // The engine may believe that it knows. The network knows whether it can.
                    let sent = (agent_message.clone(), *attempt);
                    if ended.pages.untold.contains(&sent) {
                        unknown.insert(*message);
                    }
                }
                Event::DeliveryUnknown { message, .. } => {
                    unknown.insert(*message);
                }
                Event::DeliveryResolved {
                    message,
                    resolution: Resolution::Stored | Resolution::Absent,
                    ..
                }
                | Event::UnknownDecided {
                    message,
                    verdict: Verdict::Resend | Verdict::Arrived,
                    ..
                } => {
                    unknown.remove(message);
                    let again = !matches!(
                        event,
                        Event::DeliveryResolved {
                            resolution: Resolution::Stored,
                            ..
                        } | Event::UnknownDecided {
                            verdict: Verdict::Arrived,
                            ..
                        }
                    );
                    *absences.entry(*message).or_default() += usize::from(again);
                }
                Event::RerunDecided {
                    message,
                    run,
                    rerun: Rerun::Run,
                    ..
                } => {
                    reruns.insert((*message, *run));
                }
                Event::MessageSteered { message } => {
                    steered.insert(*message);
                }
                // A run that it was sent beside took it up.
                Event::TurnStarted { message, run } => {
                    let unasked = runs.entry(*message).or_default().insert(*run);
                    if unasked {
                        steered.remove(message);
                    }
                }
                Event::TurnRequested { message, run } => {
                    holds!(
                        promise_3_once_in_order_and_answered,
                        *run == 1 || reruns.contains(&(*message, run - 1)),
                        "{id}: run {run} of {message} was requested, and nobody had decided that"
                    );
                    runs.entry(*message).or_default().insert(*run);
                }
                _ => {}
            }
            if let Event::TurnCompleted { message, .. }
            | Event::TurnFailed { message, .. }
            | Event::TurnAborted { message, .. }
            | Event::MessageCancelled { message }
            | Event::MessageDeadLettered { message, .. } = event
            {
                let before = settled.insert(*message, event);
                holds!(
                    promise_3_once_in_order_and_answered,
                    before.is_none(),
                    "{id}: {message} ended twice: {before:?}, {event:?}"
                );
            }
        }
        for (message, name) in &names {
            let written = ended.pages.written.get(name).copied().unwrap_or(0);
            let absences = absences.get(message).copied().unwrap_or(0);
            holds!(
                promise_3_once_in_order_and_answered,
                written <= 1 + absences,
                "{id}: the agent wrote {message} {written} times, and it was found absent {absences} times"
            );
        }
        // Where somebody else has the agent work, it goes on by itself with what it holds: a message that was stored
        // and taken back is answered there all the same.
        let is_shared = sessions.iter().any(|id| ended.pages.shared.contains(id));
        for (message, text) in &order {
            let end = settled.get(message);
            // Told of what was said before, or in a copy that holds it.
            let told = said_before.as_ref().map(|before| format!("{before}{text}"));
            let asked = (ended.asked)(text) + told.map_or(0, |told| (ended.asked)(&told));
            // A dead letter that was queued again is another message with the same text.
            let same = order.iter().filter(|(_, other)| other == text);
            let decided: usize = same
                .map(|(message, _)| runs.get(message).map_or(0, BTreeSet::len))
                .sum();
            holds!(
                promise_3_once_in_order_and_answered,
                end.is_some(),
                "{id}: {message} has no end"
            );
            // And a run may take up what it was sent beside, and die with all that could tell of it.
            let unseen = steered.contains(message);
            let by_itself = usize::from((is_shared && decided == 0) || unseen);
            holds!(
                promise_3_once_in_order_and_answered,
                asked as usize <= decided + by_itself,
                "{id}: the model was asked {asked} times about {message}, and {decided} runs were decided"
            );
            let completed = matches!(end, Some(Event::TurnCompleted { .. }));
            holds!(
                promise_3_once_in_order_and_answered,
                !completed || asked > 0,
                "{id}: {message} is completed, and the model was never asked"
            );
        }
        let queued: Vec<&String> = order.iter().filter_map(|(id, _)| names.get(id)).collect();
        for history in ended
            .histories_of(id)
            .filter(|history| sessions.contains(&history.id))
        {
            let mut place = 0;
            for message in history
                .messages
                .iter()
                .filter(|m| m["info"]["role"] == "user" && !is_strange(m) && !is_copied(m))
            {
                let name = message["info"]["id"].as_str().unwrap_or_default();
                let found = queued[place..].iter().position(|queued| *queued == name);
                holds!(
                    promise_3_once_in_order_and_answered,
                    found.is_some(),
                    "{id}: the agent holds {name} twice, or out of order, or nobody queued it"
                );
                place += found.unwrap_or_default() + 1;
                let parts = message["parts"].as_array().map_or(0, Vec::len);
                holds!(
                    promise_3_once_in_order_and_answered,
                    parts == 1,
                    "{id}: {name} has {parts} texts"
                );
                let whole = |answer: &&Value| {
                    let info = &answer["info"];
                    info["time"]["completed"].is_u64()
                        && info["error"].is_null()
                        && info["finish"] == "stop"
                };
                let whole = answers(history, name).filter(whole).count();
                holds!(
                    promise_3_once_in_order_and_answered,
                    whole <= 1,
                    "{id}: {name} was answered {whole} times"
                );
            }
        }
    }
    Ok(())
}

/// The part of promise 3 for a session that goes on from another one. A copy begins with what the agent held of that one
/// through a message, and with nothing else; where there is no copy, the first message says what was said.
pub(crate) fn promise_3_a_fork_knows_what_was_said(ended: &Ended) -> Result<(), Broken> {
    for (id, events) in ended.sessions() {
        let held = |name: &String| ended.histories_of(id).find(|history| history.id == *name);
        let (mut origin, mut said) = (None, None);
        let (mut copies, mut others) = (Vec::new(), Vec::new());
        for recorded in &events {
            match &recorded.event {
                Event::SessionForked {
                    agent_session,
                    through,
                    context,
                    ..
                } => {
                    origin = agent_session.as_ref().zip(through.as_deref());
                    said = context.as_deref();
                }
                Event::AgentSessionForked { agent_session } => copies.extend(held(agent_session)),
                Event::AgentSessionBound { agent_session } => others.extend(held(agent_session)),
                _ => {}
            }
        }
        // What an agent has forgotten says nothing.
        if let Some((old, through)) = origin
            && let Some(old) = held(old)
        {
            let old: Vec<_> = users(old).collect();
            let last = old.iter().position(|m| m["info"]["id"] == through);
            let through = last.map_or(&old[..0], |last| &old[..=last]);
            let expected: Vec<_> = through.iter().map(|message| text_of(message)).collect();
            for copy in copies {
                let begins = users(copy).filter(|message| is_copied(message));
                let begins: Vec<_> = begins.map(text_of).collect();
                holds!(
                    promise_3_once_in_order_and_answered,
                    !expected.is_empty() && begins == expected,
                    "{id}: the copy {} begins with {begins:?} instead of {expected:?}",
                    copy.id
                );
            }
        }
        let Some(said) = said else { continue };
        for other in others {
            let mut own = users(other).filter(|message| !is_strange(message));
            let first = own.next().map_or(said, text_of);
            holds!(
                promise_3_once_in_order_and_answered,
                first.starts_with(said),
                "{id}: {} begins with {first:?}, and nobody told the agent what was said before",
                other.id
            );
        }
    }
    Ok(())
}

/// The messages in the user's name that an agent holds.
fn users(history: &History) -> impl Iterator<Item = &Value> {
    let messages = history.messages.iter();
    messages.filter(|message| message["info"]["role"] == "user")
}

/// The text of a message in the user's name.
fn text_of(message: &Value) -> &str {
    message["parts"][0]["text"].as_str().unwrap_or_default()
}

/// With the world calm nothing is open any more: recovery ended, and nobody is busy with nothing alive behind it.
pub(crate) fn promise_4_everything_has_an_end(ended: &Ended) -> Result<(), Broken> {
    let pending = ended.manager.pending().map_err(|error| Broken {
        promise: "promise_4_everything_has_an_end",
        what: error.to_string(),
    })?;
    holds!(
        promise_4_everything_has_an_end,
        pending.sessions.is_empty(),
        "still open: {:?}",
        pending.sessions
    );
    let (mut begun, mut finished) = (0, 0);
    for recorded in &ended.pages.events {
        match recorded.event {
            Event::EngineStarted { .. } => (begun, finished) = (0, 0),
            Event::RecoveryStarted { .. } => begun += 1,
            Event::RecoveryFinished { .. } => finished += 1,
            _ => {}
        }
    }
    holds!(
        promise_4_everything_has_an_end,
        begun == finished,
        "{begun} recoveries began, {finished} ended"
    );
    for (id, events) in ended.sessions() {
        let status = fold::<Session>(&events).status();
        holds!(
            promise_4_everything_has_an_end,
            matches!(status, Status::Idle | Status::Closed),
            "{id} is {}",
            status.name()
        );
    }
    a_server_that_is_started_is_reached(ended)?;
    a_new_stream_brings_a_look(ended)
}

/// In a calm world a server that the engine starts is connected to. An engine that dials in vain ends every message
/// visibly, and serves nobody.
fn a_server_that_is_started_is_reached(ended: &Ended) -> Result<(), Broken> {
    let mut in_vain: BTreeMap<StreamId, u32> = BTreeMap::new();
    for recorded in &ended.pages.events {
        match recorded.event {
            // The last life is the calm one.
            Event::EngineStarted { .. } => in_vain.clear(),
            Event::ServerSpawned { .. } => *in_vain.entry(recorded.stream).or_default() += 1,
            Event::ConnectionChanged {
                to: ConnectionState::Connected,
                ..
            } => {
                in_vain.remove(&recorded.stream);
            }
            _ => {}
        }
    }
    holds!(
        promise_4_everything_has_an_end,
        in_vain.values().all(|starts| *starts <= 1),
        "servers were started and not reached: {in_vain:?}"
    );
    Ok(())
}

/// The part of promise 4 that is looked at all along: what is ended carries the mark of a server that the engine
/// started. Gives the mark.
pub(crate) fn promise_4_no_stranger_is_ended(pid: u32, mark: Option<&str>) -> Result<&str, Broken> {
    mark.ok_or_else(|| Broken {
        promise: "promise_4_everything_has_an_end",
        what: format!("process {pid} is ended, and is a stranger"),
    })
}

/// An engine that has ended on request leaves nothing of the servers that any engine started.
pub(crate) fn promise_4_nothing_is_left(left: &[String]) -> Result<(), Broken> {
    holds!(
        promise_4_everything_has_an_end,
        left.is_empty(),
        "processes and files of servers are left: {left:?}"
    );
    Ok(())
}

/// How soon a new opening of the stream has brought a look: calls that were slow are over by then, and the look
/// that the turn gets in any case is still to come.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// For how long a call that hangs may keep its session from the next one.
const HANG_MAX: Duration = Duration::from_secs(50);

/// Whatever happens to a turn while nobody listens is found out as soon as somebody listens again.
fn a_new_stream_brings_a_look(ended: &Ended) -> Result<(), Broken> {
    let mut sessions: BTreeMap<SessionId, Session> = BTreeMap::new();
    // Those that this life of the engine works on, and since when a look is due.
    let mut awake: BTreeSet<SessionId> = BTreeSet::new();
    let mut due: BTreeMap<SessionId, Timestamp> = BTreeMap::new();
    let host_of = |id: &SessionId| ended.hosts.get(id).map_or("", String::as_str);
    for recorded in &ended.pages.events {
        if let Event::EngineStarted { .. } | Event::EngineStopped = recorded.event {
            awake.clear();
            due.clear();
        }
        for (id, since) in &due {
            let agent_session = &sessions[id].agent_session;
            let last = since.plus(LOOK_MAX);
            let looked = || {
                ended.pages.looks.iter().any(|(at, host, session)| {
                    (since..=&last).contains(&at)
                        && host == host_of(id)
                        && (session.is_none() || session == agent_session)
                })
            };
            holds!(
                promise_4_everything_has_an_end,
                recorded.at <= last || looked(),
                "{id}: its turn was not looked at since the stream was opened anew at {since:?}"
            );
        }
        due.retain(|_, since| recorded.at <= since.plus(LOOK_MAX));
        match recorded.stream {
            StreamId::Session(id) => {
                let session = sessions.entry(id).or_default();
                session.apply(recorded);
                awake.insert(id);
                if !is_at_work(session) {
                    due.remove(&id);
                }
            }
            StreamId::Connection(connection) => {
                let Event::ConnectionChanged { to, .. } = recorded.event else {
                    continue;
                };
                let on_it = |session: &Session| {
                    let opening = session.opening.as_ref();
                    opening.is_some_and(|opening| opening.connection == connection)
                };
                for (id, session) in sessions.iter().filter(|(_, session)| on_it(session)) {
                    let hangs = ended.pages.hung.iter().any(|(at, host)| {
                        let from = Timestamp(recorded.at.0.saturating_sub(micros(HANG_MAX)));
                        host == host_of(id) && (from..=recorded.at.plus(LOOK_MAX)).contains(at)
                    });
                    due.remove(id);
                    let open = to == ConnectionState::Connected && !hangs;
                    if open && awake.contains(id) && is_at_work(session) {
                        due.insert(*id, recorded.at);
                    }
                }
            }
            StreamId::Engine => {}
        }
    }
    Ok(())
}

/// Whether the agent was asked to work, and has not ended that.
fn is_at_work(session: &Session) -> bool {
    let state = session.head().map(|(message, _)| message.state);
    matches!(state, Some(MessageState::Requested | MessageState::Running))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A fold of the whole log, one that begins with a snapshot, and what the engine held in memory are the same.
pub(crate) fn promise_5_the_log_is_the_only_truth(
    log: &LogReader,
    live: &BTreeMap<SessionId, Session>,
) -> Result<(), Broken> {
    for (id, live) in live {
        let stream = StreamId::Session(*id);
        let events: Result<Vec<_>, _> = log.read(stream, Seq::FIRST).collect();
        let cold: Session = fold(&events.unwrap_or_default());
        holds!(
            promise_5_the_log_is_the_only_truth,
            cold == *live,
            "{id}: in memory {live:?}, from the log {cold:?}"
        );
        let warm = load::<Session>(log, stream).ok();
        holds!(
            promise_5_the_log_is_the_only_truth,
            warm.as_ref() == Some(live),
            "{id}: in memory {live:?}, from a snapshot {warm:?}"
        );
    }
    Ok(())
}

/// What is called live came over a stream, as it was said; and what an agent holds of an answer that it completed
/// is what the log has of it.
pub(crate) fn promise_6_what_was_not_seen_live_says_so(ended: &Ended) -> Result<(), Broken> {
    let mut pieces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ((part, _), text) in &ended.pages.pieces {
        pieces.entry(part).or_default().push(text);
    }
    for (part, wholes) in &ended.pages.wholes {
        pieces
            .entry(part)
            .or_default()
            .extend(wholes.iter().map(String::as_str));
    }
    for recorded in &ended.pages.events {
        if let Event::OutputAppended {
            part,
            text,
            placement,
            ..
        } = &recorded.event
            && recorded.provenance == Provenance::Live
            && let StreamId::Session(id) = recorded.stream
        {
            let host = ended.hosts.get(&id).map_or("", String::as_str);
            let came = pieces.get(format!("{host} {part}").as_str());
            holds!(
                promise_6_what_was_not_seen_live_says_so,
                came.is_some_and(|pieces| pieces.iter().any(|piece| piece.contains(text.as_str()))),
                "{part}: {text:?} is called live ({placement:?}), and came over no stream: {came:?}"
            );
            holds!(
                promise_6_what_was_not_seen_live_says_so,
                *placement != Placement::IntoHole || came.is_some(),
                "{part}: what filled a hole is called live"
            );
        }
    }
    for (id, events) in ended.sessions() {
        let transcript: Transcript = fold(&events);
        let session: Session = fold(&events);
        whose_answer_it_is(ended, id, &events, &session)?;
        let names = session.queue.messages().iter();
        for message in names.filter(|message| message.state == MessageState::Completed) {
            let turn = transcript.turn_of(message.id);
            let name = message.agent_message.as_deref().unwrap_or_default();
            let run = turn.map(Turn::run);
            for history in ended.histories_of(id) {
                let said = answers(history, name).flat_map(parts);
                let said = said.filter_map(|part| part["id"].as_str());
                let theirs: Vec<&str> = said
                    .filter(|id| run.is_some_and(|run| run.part(id).is_some()))
                    .collect();
                let ours = run.iter().flat_map(|run| &run.items);
                let ours: Vec<&str> = ours
                    .filter_map(|item| match item {
                        Item::Part(part) => Some(part.id.as_str()),
                        Item::Call(_) => None,
                    })
                    .filter(|id| theirs.contains(id))
                    .collect();
                holds!(
                    promise_6_what_was_not_seen_live_says_so,
                    ours == theirs,
                    "{id}: the agent said {theirs:?} in this order, and the log has {ours:?}"
                );
                for part in answers(history, name)
                    .filter(|answer| answer["info"]["finish"] == "stop")
                    .flat_map(parts)
                    .filter(|part| part["time"]["end"].is_u64())
                {
                    let part_id = part["id"].as_str().unwrap_or_default();
                    let known = turn.and_then(|turn| turn.run().part(part_id));
                    let known = known.map(|part| part.text.as_str());
                    holds!(
                        promise_6_what_was_not_seen_live_says_so,
                        known == part["text"].as_str(),
                        "{id}: the agent holds {part}, the log {known:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// What an answer consists of, in the agent's order.
fn parts(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["parts"].as_array().into_iter().flatten()
}

/// No words in the agent's answer to one message are recorded as an answer to another.
fn whose_answer_it_is(
    ended: &Ended,
    id: SessionId,
    events: &[Recorded],
    session: &Session,
) -> Result<(), Broken> {
    let messages = session.queue.messages().iter();
    let named: BTreeMap<_, _> = messages
        .filter_map(|message| Some((message.agent_message.as_deref()?, message.id)))
        .collect();
    let answers = ended.histories_of(id).flat_map(|history| &history.messages);
    let mut answered: BTreeMap<&str, MessageId> = BTreeMap::new();
    for answer in answers {
        let parent = answer["info"]["parentID"].as_str().unwrap_or_default();
        let parts = parts(answer).filter_map(|part| part["id"].as_str());
        if let Some(message) = named.get(parent) {
            answered.extend(parts.map(|part| (part, *message)));
        }
    }
    for recorded in events {
        if let Event::OutputAppended { message, part, .. } = &recorded.event {
            let theirs = answered.get(part.as_str());
            holds!(
                promise_6_what_was_not_seen_live_says_so,
                theirs.is_none_or(|theirs| theirs == message),
                "{id}: {part} is recorded as an answer to {message}, and answers {theirs:?}"
            );
        }
    }
    Ok(())
}

/// The log proves that it is whole.
pub(crate) fn promise_7_the_log_proves_that_it_is_whole(log: &LogReader) -> Result<(), Broken> {
    let verified = verify(log, None);
    holds!(
        promise_7_the_log_proves_that_it_is_whole,
        verified.is_ok(),
        "{verified:?}"
    );
    Ok(())
}

/// Today's machines decide over what was observed as they did.
pub(crate) fn promise_8_decisions_can_be_derived_again(log: &LogReader) -> Result<(), Broken> {
    let adapters: [Arc<dyn AgentAdapter>; 1] = [Arc::new(OpenCode::new())];
    let derived = decisions::derive(log, None, &adapters);
    holds!(
        promise_8_decisions_can_be_derived_again,
        derived.as_ref().is_ok_and(|derived| derived.different == 0),
        "{derived:#?}"
    );
    Ok(())
}

/// The part of promise 9 that is looked at all along: nothing goes round in a circle.
pub(crate) fn promise_9_calls_are_bounded(calls: usize, max: usize) -> Result<(), Broken> {
    holds!(
        promise_9_everything_is_bounded,
        calls <= max,
        "more than {max} calls were made"
    );
    Ok(())
}

/// Where a server is started, no other one of the same connection is alive.
pub(crate) fn promise_9_one_server_at_a_time(name: &str, others: &[u32]) -> Result<(), Broken> {
    holds!(
        promise_9_everything_is_bounded,
        others.is_empty(),
        "a server of {name} is started beside {others:?}"
    );
    Ok(())
}

/// Queues, attempts, runs and delays are within their bounds.
pub(crate) fn promise_9_everything_is_bounded(ended: &Ended) -> Result<(), Broken> {
    let connection = &ended.policy.connection;
    let policy = &ended.policy.session;
    let retries = &policy.retries;
    let kinds = [
        retries.never_sent,
        retries.for_now,
        retries.for_good,
        retries.unknown,
    ];
    let attempts_max = kinds
        .iter()
        .map(|kind| kind.attempts_max)
        .max()
        .unwrap_or(0);
    let mut sessions: BTreeMap<SessionId, Session> = BTreeMap::new();
    for recorded in &ended.pages.events {
        match &recorded.event {
            Event::DeliveryStarted {
                message, attempt, ..
            } => holds!(
                promise_9_everything_is_bounded,
                *attempt <= attempts_max,
                "{message}: attempt {attempt} of {attempts_max}"
            ),
            Event::ReconnectScheduled { attempt, at } => {
                let (wait, backoff) = (at.since(recorded.at), connection.backoff);
                holds!(
                    promise_9_everything_is_bounded,
                    *attempt <= connection.circuit_failures,
                    "try {attempt} of {}, and the circuit is closed",
                    connection.circuit_failures
                );
                holds!(
                    promise_9_everything_is_bounded,
                    (backoff.delay_min * 3 / 4..=backoff.delay_max * 5 / 4).contains(&wait),
                    "connected again after {wait:?}"
                );
            }
            Event::TurnRequested { message, run } => holds!(
                promise_9_everything_is_bounded,
                *run <= policy.runs_max,
                "{message}: run {run} of {}",
                policy.runs_max
            ),
            _ => {}
        }
        if let StreamId::Session(id) = recorded.stream {
            let session = sessions.entry(id).or_default();
            a_pause_is_kept(ended.policy, session, recorded)?;
            session.apply(recorded);
            let depth = session.queue.open().count();
            holds!(
                promise_9_everything_is_bounded,
                depth <= policy.queue_depth_max,
                "{id}: {depth} messages wait, and {} may",
                policy.queue_depth_max
            );
        }
    }
    Ok(())
}

/// After a refusal the next attempt has a pause that is neither too short nor too long, and waits for its end.
fn a_pause_is_kept(policy: &Policy, session: &Session, recorded: &Recorded) -> Result<(), Broken> {
    let (connection, policy) = (&policy.connection, &policy.session);
    let retries = &policy.retries;
    let known = |message: &MessageId| session.queue.get(*message);
    match &recorded.event {
        // The pause is over, and the connection's sessions have no retry left among them: as long as one takes to
        // come back, and no longer.
        Event::RetryScheduled { message, at, .. }
            if known(message).is_some_and(|message| message.retry_at.is_some()) =>
        {
            let due = known(message).and_then(|message| message.retry_at);
            let (wait, longest) = (at.since(recorded.at), connection.retry_refill);
            holds!(
                promise_9_everything_is_bounded,
                due.is_none_or(|due| due <= recorded.at) && wait <= longest,
                "{message}: put off for {wait:?}, at {:?}, when its try was due at {due:?}",
                recorded.at
            );
        }
        Event::RetryScheduled { message, at, .. } => {
            let least = |retry: &Retry| retry.backoff.delay_min * 3 / 4;
            let shortest = match known(message).and_then(|message| message.refused) {
                Some(RefusedHow::ForNow(asked)) => Duration::from_millis(asked.unwrap_or(0))
                    .min(retries.retry_after_max)
                    .max(least(&retries.for_now)),
                Some(RefusedHow::NeverSent) => least(&retries.never_sent),
                Some(RefusedHow::Absent | RefusedHow::ForGood) | None => Duration::ZERO,
            };
            let most = retries
                .for_now
                .backoff
                .delay_max
                .max(policy.request_grace_max);
            let longest = most.max(retries.retry_after_max) * 5 / 4;
            let wait = at.since(recorded.at);
            holds!(
                promise_9_everything_is_bounded,
                (shortest..=longest).contains(&wait),
                "{message}: tried again after {wait:?}, and not between {shortest:?} and {longest:?}"
            );
        }
        Event::DeliveryStarted { message, .. } => {
            let due = known(message).and_then(|message| message.retry_at);
            holds!(
                promise_9_everything_is_bounded,
                due.is_none_or(|due| due <= recorded.at),
                "{message}: tried at {:?}, and the next try was due at {due:?}",
                recorded.at
            );
        }
        _ => {}
    }
    Ok(())
}
