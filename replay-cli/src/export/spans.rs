//! What lasted, and what happened meanwhile: events as spans with marks, for pictures over time.

use std::collections::HashMap;

use recount_projections::Turn;
use recount_projections::turn::Asks;
use recount_store::{
    ConnectionState, Event, Json, MessageId, Position, Prompt, Recorded, Refusal, Seq, SessionId,
    StreamId, Target, Timestamp, ToolOutcome,
};

use crate::render::event::{name, summary};

/// Something that lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// The stream that its events are in.
    pub(crate) stream: StreamId,
    /// What it was.
    pub(crate) what: What,
    /// The number of the event that it began with.
    pub(crate) seq: Seq,
    /// When it began.
    pub(crate) begin: Timestamp,
    /// When it ended, never before it began; of one that is open, the last moment that is known.
    pub(crate) end: Timestamp,
    /// How it ended.
    pub(crate) ending: Ending,
    /// The span that it is a part of, by its place among all.
    pub(crate) parent: Option<usize>,
    /// The span that it follows from.
    pub(crate) cause: Option<usize>,
    /// What happened meanwhile.
    pub(crate) marks: Vec<Mark>,
}

/// What lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A message, from queueing to its end.
    Message { message: MessageId, text: String },
    /// An attempt to deliver it.
    Attempt { message: MessageId, attempt: u32 },
    /// A run of the agent's turn.
    Run {
        message: MessageId,
        run: u32,
        /// What it answered, without what was thought on the way.
        answer: String,
    },
    /// A tool call in it.
    Call {
        message: MessageId,
        run: u32,
        call: String,
        tool: String,
        input: String,
        output: String,
    },
    /// A wait for somebody to answer the agent.
    Wait {
        message: MessageId,
        id: String,
        asks: String,
    },
    /// A state of a connection.
    Link(ConnectionState),
    /// A breaker that let nothing through, or only a probe.
    Breaker { half_open: bool },
    /// A server's process.
    Server { pid: u32 },
}

impl What {
    /// The message that it is about.
    pub(crate) fn message(&self) -> Option<MessageId> {
        match self {
            Self::Message { message, .. }
            | Self::Attempt { message, .. }
            | Self::Run { message, .. }
            | Self::Call { message, .. }
            | Self::Wait { message, .. } => Some(*message),
            Self::Link(_) | Self::Breaker { .. } | Self::Server { .. } => None,
        }
    }
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It did not, as far as the log goes.
    Open,
    /// As it should.
    Well(String),
    /// Not as it should.
    Badly {
        /// What went wrong, in a word for machines; `docs/export.md` lists them.
        kind: &'static str,
        /// The same for a person.
        why: String,
    },
}

impl Ending {
    fn badly(kind: &'static str, why: impl Into<String>) -> Self {
        Self::Badly {
            kind,
            why: why.into(),
        }
    }
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of its event.
    pub(crate) seq: Seq,
    /// When.
    pub(crate) at: Timestamp,
    /// The name of its event's type.
    pub(crate) name: String,
    /// What it says, in a line.
    pub(crate) says: String,
}

/// Who a session talks to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    /// The agent's name.
    pub(crate) agent: String,
    /// The model, as `PROVIDER/MODEL`.
    pub(crate) model: Option<String>,
    /// What the conversation is called.
    pub(crate) title: Option<String>,
    /// Of a connection, where its server is.
    pub(crate) url: Option<String>,
    /// Of a connection, what its server calls its version.
    pub(crate) version: Option<String>,
    /// Of a session, its connection.
    pub(crate) connection: Option<StreamId>,
    /// Of a session that goes on from another one, that one and the last event of it that belongs to both.
    pub(crate) fork: Option<(SessionId, Seq)>,
}

/// Events as spans.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// All spans, in the order in which they began.
    pub(crate) all: Vec<Span>,
    /// What happened while nothing lasted that it belongs to.
    pub(crate) marks: Vec<(StreamId, Mark)>,
    /// What each stream says about itself, in the order of their first events.
    pub(crate) about: Vec<(StreamId, About)>,
    /// The spans that have not ended.
    open: HashMap<Key, usize>,
    /// The turns whose runs are open, for what they answer.
    turns: HashMap<Key, Turn>,
    /// The span that each event belongs to.
    belongs: HashMap<Position, usize>,
    last: Timestamp,
}

/// What a span is found by while it is open. There is one of each at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Message(StreamId, MessageId),
    Attempt(StreamId, MessageId),
    Run(StreamId, MessageId),
    Call(StreamId, MessageId, String),
    Wait(StreamId, MessageId, String),
    Link(StreamId),
    Breaker(StreamId),
    Server(StreamId),
}

impl Key {
    /// What it is a part of, as far as that is open: the first that is.
    fn parents(&self) -> [Option<Self>; 2] {
        match self {
            Self::Attempt(stream, message) | Self::Run(stream, message) => {
                [Some(Self::Message(*stream, *message)), None]
            }
            Self::Call(stream, message, _) | Self::Wait(stream, message, _) => [
                Some(Self::Run(*stream, *message)),
                Some(Self::Message(*stream, *message)),
            ],
            Self::Message(..) | Self::Link(_) | Self::Breaker(_) | Self::Server(_) => [None, None],
        }
    }
}

impl Spans {
    /// The spans of these events, which come in the order of the log.
    pub(crate) fn of<E>(events: impl IntoIterator<Item = Result<Recorded, E>>) -> Result<Self, E> {
        let mut spans = Self::default();
        for recorded in events {
            spans.apply(&recorded?);
        }
        // What is open lasts as long as anything is known.
        for (key, index) in &spans.open {
            let span = &mut spans.all[*index];
            span.end = span.end.max(spans.last);
            if let (What::Run { answer, .. }, Some(turn)) = (&mut span.what, spans.turns.get(key)) {
                *answer = turn.text();
            }
        }
        Ok(spans)
    }

    /// What a stream says about itself.
    pub(crate) fn about(&self, stream: StreamId) -> Option<&About> {
        self.about
            .iter()
            .find(|(known, _)| *known == stream)
            .map(|(_, about)| about)
    }

    fn apply(&mut self, recorded: &Recorded) {
        self.last = self.last.max(recorded.at);
        let stream = recorded.stream;
        if self.about(stream).is_none() {
            self.about.push((stream, About::default()));
        }
        match &recorded.event {
            Event::SessionOpened {
                connection,
                agent,
                model,
                title,
                ..
            } => {
                let connection = Some(StreamId::Connection(*connection));
                let about = self.about_mut(stream);
                about.agent.clone_from(agent);
                about.model.clone_from(model);
                about.title.clone_from(title);
                about.connection = connection;
                self.mark(recorded, None);
            }
            Event::SessionForked { from, at, .. } => {
                self.about_mut(stream).fork = Some((*from, *at));
                self.mark(recorded, None);
            }
            Event::ConnectionOpened { agent, target } => {
                let about = self.about_mut(stream);
                about.agent.clone_from(agent);
                if let Target::Url(url) = target {
                    about.url = Some(url.clone());
                }
                self.mark(recorded, None);
            }
            Event::ServerReady { url, version } => {
                let about = self.about_mut(stream);
                about.url = Some(url.clone());
                about.version = Some(version.clone());
                self.mark(recorded, Some(Key::Link(stream)));
            }

            // ---- what begins
            Event::MessageQueued { message, text, .. } => {
                let (message, text) = (*message, text.clone());
                let what = What::Message { message, text };
                self.begin(recorded, Key::Message(stream, message), what);
            }
            Event::DeliveryStarted {
                message, attempt, ..
            } => {
                let (message, attempt) = (*message, *attempt);
                let what = What::Attempt { message, attempt };
                self.begin(recorded, Key::Attempt(stream, message), what);
            }
            // One that steers is taken up without having been asked for.
            Event::TurnRequested { message, run } | Event::TurnStarted { message, run } => {
                let (message, run) = (*message, *run);
                let key = Key::Run(stream, message);
                let turn = self.turns.entry(key.clone());
                turn.or_insert_with(|| Turn::begin(message, recorded))
                    .apply(recorded);
                if self.open.contains_key(&key) {
                    // It begins, or nothing had begun and it is asked for again.
                    self.mark(recorded, Some(key));
                } else {
                    let answer = String::new();
                    let what = What::Run {
                        message,
                        run,
                        answer,
                    };
                    self.begin(recorded, key, what);
                }
            }
            Event::ToolCallStarted {
                message,
                run,
                call,
                tool,
                input: Json(input),
            } => {
                let what = What::Call {
                    message: *message,
                    run: *run,
                    call: call.clone(),
                    tool: tool.clone(),
                    input: String::from_utf8_lossy(input).into_owned(),
                    output: String::new(),
                };
                self.begin(recorded, Key::Call(stream, *message, call.clone()), what);
            }
            Event::PermissionAsked {
                message,
                permission,
                action,
                detail,
                ..
            } => {
                let (action, detail) = (action.clone(), detail.clone());
                let asks = Asks::Permission { action, detail }.to_string();
                self.wait(recorded, *message, permission, asks);
            }
            Event::QuestionAsked {
                message,
                question,
                prompts,
                ..
            } => {
                let prompts: Vec<Prompt> = prompts.read().unwrap_or_default();
                let asks = Asks::Words(prompts).to_string();
                self.wait(recorded, *message, question, asks);
            }
            // What it was before the first of them, nobody knows since when.
            Event::ConnectionChanged { to, .. } => {
                let key = Key::Link(stream);
                self.end(recorded, &key, Ending::Well(link(*to).to_owned()));
                self.begin(recorded, key, What::Link(*to));
            }
            Event::CircuitOpened { .. } | Event::CircuitHalfOpened => {
                let key = Key::Breaker(stream);
                let half_open = recorded.event == Event::CircuitHalfOpened;
                let ending = if half_open {
                    Ending::Well("a probe is let through".to_owned())
                } else {
                    Ending::badly("probe_failed", "the probe failed")
                };
                self.end(recorded, &key, ending);
                self.begin(recorded, key, What::Breaker { half_open });
            }
            Event::ServerSpawned { pid, .. } => {
                self.begin(recorded, Key::Server(stream), What::Server { pid: *pid });
            }

            // ---- what ends
            Event::MessageCancelled { message } => {
                self.settle(recorded, *message, &Ending::Well("cancelled".to_owned()));
            }
            Event::TurnCompleted {
                message, finish, ..
            } => self.settle(recorded, *message, &Ending::Well(finish.clone())),
            Event::TurnAborted { message, .. } => {
                self.settle(recorded, *message, &Ending::Well("aborted".to_owned()));
            }
            Event::TurnFailed {
                message, reason, ..
            } => self.settle(recorded, *message, &Ending::badly("turn_failed", reason)),
            Event::MessageDeadLettered { message, reason } => {
                self.settle(recorded, *message, &Ending::badly("dead_lettered", reason));
            }
            Event::TurnInterrupted {
                message, evidence, ..
            } => self.end_run(
                recorded,
                *message,
                &Ending::badly("turn_interrupted", evidence),
            ),
            Event::DeliveryAccepted { message, .. } => {
                let ending = Ending::Well("accepted".to_owned());
                self.end(recorded, &Key::Attempt(stream, *message), ending);
            }
            Event::DeliveryRejected {
                message,
                refusal,
                reason,
                ..
            } => {
                let kind = match refusal {
                    Refusal::NeverSent => "never_sent",
                    Refusal::ForNow { .. } => "refused_for_now",
                    Refusal::ForGood => "refused_for_good",
                };
                let ending = Ending::badly(kind, format!("rejected: {reason}"));
                self.end(recorded, &Key::Attempt(stream, *message), ending);
            }
            Event::DeliveryUnknown {
                message, reason, ..
            } => {
                let ending = Ending::badly("outcome_unknown", format!("unknown: {reason}"));
                self.end(recorded, &Key::Attempt(stream, *message), ending);
            }
            Event::ToolCallEnded {
                message,
                call,
                outcome,
                output,
                ..
            } => {
                let key = Key::Call(stream, *message, call.clone());
                if let Some(What::Call { output: gave, .. }) = self.what_mut(&key) {
                    gave.clone_from(output);
                }
                let ending = match outcome {
                    ToolOutcome::Completed => Ending::Well("completed".to_owned()),
                    ToolOutcome::Failed => Ending::badly("tool_failed", "failed"),
                    ToolOutcome::Lost => Ending::badly("tool_lost", "lost"),
                };
                self.end(recorded, &key, ending);
            }
            Event::PermissionAnswered {
                message,
                permission: id,
                ..
            }
            | Event::PermissionSettled {
                message,
                permission: id,
                ..
            }
            | Event::QuestionAnswered {
                message,
                question: id,
                ..
            }
            | Event::QuestionSettled {
                message,
                question: id,
                ..
            } => {
                let key = Key::Wait(stream, *message, id.clone());
                self.end(recorded, &key, Ending::Well("answered".to_owned()));
            }
            Event::QuestionExpired {
                message,
                question,
                reason,
            } => {
                let key = Key::Wait(stream, *message, question.clone());
                self.end(recorded, &key, Ending::badly("question_expired", reason));
            }
            Event::CircuitClosed => {
                let ending = Ending::Well("closed".to_owned());
                self.end(recorded, &Key::Breaker(stream), ending);
            }
            Event::ServerExited { how } => {
                self.end(recorded, &Key::Server(stream), Ending::Well(how.clone()));
            }

            // ---- what happens meanwhile
            Event::OutputAppended { message, .. } => {
                let key = Key::Run(stream, *message);
                self.goes_on(recorded, &key);
                self.belongs_to(recorded, &key);
            }
            Event::OutputReplaced { message, .. } | Event::OutputOrdered { message, .. } => {
                let key = Key::Run(stream, *message);
                self.goes_on(recorded, &key);
                self.mark(recorded, Some(key));
            }
            Event::AgentRetried { message, .. }
            | Event::AgentErrorReported { message, .. }
            | Event::TurnAbortAsked { message }
            | Event::TurnStalled { message, .. } => {
                self.mark(recorded, Some(Key::Run(stream, *message)));
            }
            Event::DeliveryResolved { message, .. }
            | Event::RetryScheduled { message, .. }
            | Event::RerunDecided { message, .. }
            | Event::UnknownDecided { message, .. }
            | Event::MessageRequeued { message, .. }
            | Event::ContextAdded { message }
            | Event::MessageSteered { message } => {
                self.mark(recorded, Some(Key::Message(stream, *message)));
            }
            Event::ConnectFailed { .. }
            | Event::StreamOpened
            | Event::StreamLost { .. }
            | Event::ProbeFailed { .. }
            | Event::ProbeRecovered
            | Event::GapFound { .. }
            | Event::GapFilled { .. }
            | Event::CapabilitiesFound { .. }
            | Event::ServerStartDecided { .. }
            | Event::ServerStopDecided { .. }
            | Event::ReconnectScheduled { .. } => self.mark(recorded, Some(Key::Link(stream))),
            Event::SessionClosed
            | Event::AgentSessionBound { .. }
            | Event::AgentSessionForked { .. }
            | Event::AgentForkRefused { .. }
            | Event::AgentSessionRequested { .. }
            | Event::AgentSessionLost { .. }
            | Event::FrameUnrecognised { .. }
            | Event::EngineStarted { .. }
            | Event::RecoveryStarted { .. }
            | Event::RecoveryFinished { .. }
            | Event::EngineStopped
            | Event::StreamCut { .. }
            | Event::PolicyAdopted { .. }
            | Event::TaskPanicked { .. }
            | Event::Unknown { .. } => self.mark(recorded, None),
        }
    }

    fn about_mut(&mut self, stream: StreamId) -> &mut About {
        let known = self.about.iter().position(|(known, _)| *known == stream);
        let index = known.expect("it was noted when its event came");
        &mut self.about[index].1
    }

    fn what_mut(&mut self, key: &Key) -> Option<&mut What> {
        let index = self.open.get(key)?;
        Some(&mut self.all[*index].what)
    }

    fn begin(&mut self, recorded: &Recorded, key: Key, what: What) {
        let index = self.all.len();
        let cause = recorded.cause.and_then(|cause| self.belongs.get(&cause));
        let parent = key.parents().into_iter().flatten();
        let parent = { parent }.find_map(|key| self.open.get(&key).copied());
        self.all.push(Span {
            stream: recorded.stream,
            what,
            seq: recorded.seq,
            begin: recorded.at,
            end: recorded.at,
            ending: Ending::Open,
            parent,
            cause: cause.copied(),
            marks: Vec::new(),
        });
        self.belongs.insert(recorded.position, index);
        self.open.insert(key, index);
    }

    fn wait(&mut self, recorded: &Recorded, message: MessageId, id: &str, asks: String) {
        let id = id.to_owned();
        let key = Key::Wait(recorded.stream, message, id.clone());
        self.begin(recorded, key, What::Wait { message, id, asks });
    }

    fn end(&mut self, recorded: &Recorded, key: &Key, ending: Ending) {
        let Some(index) = self.open.remove(key) else {
            return;
        };
        let span = &mut self.all[index];
        // Clocks may go back.
        span.end = recorded.at.max(span.begin);
        span.ending = ending;
        self.belongs.entry(recorded.position).or_insert(index);
    }

    /// Ends a run, and what was open in it.
    fn end_run(&mut self, recorded: &Recorded, message: MessageId, ending: &Ending) {
        let stream = recorded.stream;
        let key = Key::Run(stream, message);
        let text = self.turns.remove(&key).map(|turn| turn.text());
        if let (Some(What::Run { answer, .. }), Some(text)) = (self.what_mut(&key), text) {
            *answer = text;
        }
        self.end(recorded, &key, ending.clone());
        let left: Vec<Key> = self
            .open
            .keys()
            .filter(|key| match key {
                Key::Call(of, about, _) | Key::Wait(of, about, _) => {
                    (*of, *about) == (stream, message)
                }
                _ => false,
            })
            .cloned()
            .collect();
        for key in left {
            let ending = Ending::badly("end_not_seen", "its end was not seen");
            self.end(recorded, &key, ending);
        }
    }

    /// Ends a message, and what was open of it.
    fn settle(&mut self, recorded: &Recorded, message: MessageId, ending: &Ending) {
        let stream = recorded.stream;
        self.end_run(recorded, message, ending);
        for key in [Key::Attempt(stream, message), Key::Message(stream, message)] {
            self.end(recorded, &key, ending.clone());
        }
    }

    fn mark(&mut self, recorded: &Recorded, key: Option<Key>) {
        let mark = Mark {
            seq: recorded.seq,
            at: recorded.at,
            name: name(&recorded.event),
            says: summary(&recorded.event),
        };
        // A message outlasts its runs.
        let message = recorded.event.message();
        let message = message.map(|message| Key::Message(recorded.stream, message));
        let keys = [key, message];
        let open = keys.iter().flatten().find_map(|key| self.open.get(key));
        match open {
            Some(&index) => {
                self.all[index].marks.push(mark);
                self.belongs.insert(recorded.position, index);
            }
            None => self.marks.push((recorded.stream, mark)),
        }
    }

    /// Takes in what the agent says in a run.
    fn goes_on(&mut self, recorded: &Recorded, run: &Key) {
        if let Some(turn) = self.turns.get_mut(run) {
            turn.apply(recorded);
        }
    }

    fn belongs_to(&mut self, recorded: &Recorded, key: &Key) {
        if let Some(&index) = self.open.get(key) {
            self.belongs.insert(recorded.position, index);
        }
    }
}

/// The word for a state of a connection.
pub(crate) const fn link(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Disconnected => "disconnected",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Connected => "connected",
    }
}
