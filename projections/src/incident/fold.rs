//! Which event begins, continues and ends what.

use std::collections::{BTreeMap, BTreeSet};

use recount_store::{
    ConnectionId, ConnectionState, Event, MessageId, Placement, Position, Recorded, Rerun,
    SessionId, StreamId, Timestamp, ToolOutcome, Verdict,
};

use super::{
    Cause, EVIDENCE_LAST, EVIDENCE_MAX, Ending, Incident, Kind, MESSAGES_MAX, Name, SETTLE,
};
use crate::{Pending, Projection as _};

/// The incidents of a log, as its events come in.
#[derive(Debug, Default)]
pub struct Incidents {
    over: Vec<Incident>,
    live: BTreeMap<Name, Live>,
    /// Where each open thread is.
    threads: BTreeMap<Thread, Name>,
    /// Where the events are that something may follow from.
    evidence: BTreeMap<Position, Name>,
    links: BTreeMap<ConnectionId, Link>,
    sessions: BTreeMap<SessionId, Known>,
    /// The last crash of an engine, and when the next one had recovered; `None` where it has not yet.
    crash: Option<(Name, Option<Timestamp>)>,
    /// Whether an engine has started and has not stopped.
    running: bool,
    pending: Pending,
    /// When the last event happened.
    last: Option<Timestamp>,
    /// Before that, nothing that is live can be over.
    look_at: Timestamp,
}

/// Something that takes time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thread {
    /// A link is down.
    Link(ConnectionId),
    /// Something of an agent's session never arrived.
    Gap(ConnectionId, String),
    /// Nobody knows whether a message arrived.
    Delivery(MessageId),
    /// A turn was interrupted, or fell silent.
    Turn(MessageId),
    /// A part of an answer has a hole.
    Hole(MessageId, String),
    /// An engine recovers from a crash.
    Recovery,
}

/// How an open thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Open,
    /// A person has decided.
    Decided,
    /// A person has to decide.
    Waits,
}

/// An incident that is not over.
#[derive(Debug)]
struct Live {
    incident: Incident,
    open: BTreeMap<Thread, Standing>,
    /// When something of it was heard last.
    last: Timestamp,
    /// How much the cause explains.
    rank: Rank,
}

/// How much of an incident something explains: the server's exit more than the stream that ended with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It says that something was given up.
    End,
    /// It says what a call met.
    Call,
    /// It says why a turn failed.
    Turn,
    /// It says what the agent lost.
    Agent,
    /// It says that nothing is known, and what follows from that explains nothing.
    Silence,
    /// It says how a stream ended.
    Stream,
    /// It says how a server ended.
    Server,
    /// It says which mistake was made.
    Mistake,
    /// An engine cannot say how it died.
    Death,
}

/// What is remembered of a connection.
#[derive(Debug, Default)]
struct Link {
    /// The engine is about to stop its server.
    stopping: bool,
    /// Its stream ended, and has not shown yet whether that was wanted.
    lost: Option<Recorded>,
    /// A probe failed, and none has passed since.
    probe: Option<(Position, Timestamp)>,
    /// What was last wrong with it, and since when it is back.
    trouble: Option<(Name, Option<Timestamp>)>,
}

/// What is remembered of a session.
#[derive(Debug)]
struct Known {
    connection: ConnectionId,
    /// What was last wrong in it, and when.
    trouble: Option<(Name, Timestamp)>,
}

/// Where something happened.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    session: Option<SessionId>,
    message: Option<MessageId>,
    connection: Option<ConnectionId>,
}

impl Incidents {
    /// Takes one event in. Events come in the order of the log, each once, from its first one on.
    pub fn apply(&mut self, recorded: &Recorded) {
        if recorded.at >= self.look_at {
            self.end_what_is_over(recorded.at);
        }
        match recorded.stream {
            StreamId::Session(id) => self.in_session(id, recorded),
            StreamId::Connection(id) => self.on_connection(id, recorded),
            StreamId::Engine => self.of_engine(recorded),
        }
        self.pending.apply(recorded);
        self.last = Some(recorded.at);
    }

    /// The incidents that are over and were not taken yet, in the order in which they ended.
    pub fn take(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.over)
    }

    /// The rest, where the log ends here: those that go on, and those of which nobody knows yet that they are over.
    #[must_use]
    pub fn finish(mut self) -> Vec<Incident> {
        let live = std::mem::take(&mut self.live);
        self.over.extend(live.into_values().map(Live::told));
        self.over
    }

    fn in_session(&mut self, session: SessionId, recorded: &Recorded) {
        if let Event::SessionOpened { connection, .. } = &recorded.event {
            let known = Known {
                connection: *connection,
                trouble: None,
            };
            self.sessions.insert(session, known);
            return;
        }
        let place = Place {
            session: Some(session),
            message: recorded.event.message(),
            connection: self.sessions.get(&session).map(|known| known.connection),
        };
        match &recorded.event {
            Event::DeliveryUnknown {
                message, reason, ..
            } => {
                let known = Some((Rank::Call, reason));
                self.begin(
                    Kind::Unknown,
                    Thread::Delivery(*message),
                    known,
                    place,
                    recorded,
                );
            }
            Event::TurnInterrupted {
                message, evidence, ..
            } => {
                let known = Some((Rank::End, evidence));
                self.begin(
                    Kind::Interruption,
                    Thread::Turn(*message),
                    known,
                    place,
                    recorded,
                );
            }
            Event::TurnStalled { message, .. } => {
                let thread = Thread::Turn(*message);
                let name = self.begin(Kind::Stall, thread, None, place, recorded);
                self.explain(name, Rank::Silence, None);
            }
            Event::OutputAppended {
                message,
                part,
                placement: Placement::AfterHole,
                ..
            } => {
                let thread = Thread::Hole(*message, part.clone());
                if !self.threads.contains_key(&thread) {
                    self.begin(Kind::Gap, thread, None, place, recorded);
                }
            }
            Event::OutputAppended {
                message,
                part,
                placement: Placement::IntoHole,
                ..
            }
            | Event::OutputReplaced { message, part, .. } => {
                let thread = Thread::Hole(*message, part.clone());
                self.settle(&thread, Ending::Filled, recorded);
            }
            Event::AgentSessionLost { agent_session } => {
                let text = format!("the agent does not know its session {agent_session} any more");
                let known = Some((Rank::Agent, &text));
                self.add(Kind::Amnesia, Ending::Lost, known, place, recorded);
            }
            Event::QuestionExpired { reason, .. } => {
                let known = Some((Rank::Turn, reason));
                self.add(Kind::Expiry, Ending::GivenUp, known, place, recorded);
            }
            Event::TaskPanicked { reason } => {
                let known = Some((Rank::Mistake, reason));
                self.add(Kind::Panic, Ending::Healed, known, place, recorded);
            }
            Event::TurnFailed {
                message, reason, ..
            } => {
                let known = Some((Rank::Turn, reason));
                self.add(Kind::Failure, Ending::GivenUp, known, place, recorded);
                self.settle_message(*message, Ending::GivenUp, recorded);
            }
            Event::MessageDeadLettered { message, reason } => {
                let known = Some((Rank::End, reason));
                self.add(Kind::DeadLetter, Ending::GivenUp, known, place, recorded);
                self.settle_message(*message, Ending::GivenUp, recorded);
            }
            Event::TurnCompleted { message, .. } => {
                self.settle_message(*message, Ending::Healed, recorded);
            }
            Event::TurnAborted { message, .. } => {
                let stalled = self.has(*message, Kind::Stall);
                let ending = if stalled {
                    Ending::GivenUp
                } else {
                    Ending::Settled
                };
                self.settle_message(*message, ending, recorded);
            }
            Event::MessageCancelled { message } => {
                self.settle_message(*message, Ending::Settled, recorded);
            }
            Event::DeliveryAccepted { message, .. } | Event::DeliveryResolved { message, .. } => {
                self.settle(&Thread::Delivery(*message), Ending::Healed, recorded);
            }
            Event::UnknownDecided {
                message, verdict, ..
            } => match verdict {
                Verdict::Wait => self.stand(&Thread::Delivery(*message), Standing::Waits, recorded),
                Verdict::Resend | Verdict::Arrived => {
                    let thread = Thread::Delivery(*message);
                    self.stand(&thread, Standing::Decided, recorded);
                    self.settle(&thread, Ending::Healed, recorded);
                }
                Verdict::GiveUp => self.follow(place, recorded),
            },
            Event::RerunDecided { message, rerun, .. } => {
                let standing = match rerun {
                    Rerun::Wait => Standing::Waits,
                    Rerun::Run | Rerun::GiveUp => Standing::Decided,
                };
                self.stand(&Thread::Turn(*message), standing, recorded);
            }
            Event::DeliveryStarted { .. }
            | Event::DeliveryRejected { .. }
            | Event::RetryScheduled { .. }
            | Event::TurnRequested { .. }
            | Event::TurnAbortAsked { .. }
            | Event::AgentErrorReported { .. }
            | Event::ToolCallEnded {
                outcome: ToolOutcome::Lost,
                ..
            } => self.follow(place, recorded),
            Event::MessageQueued { message, .. } => self.touch_if_down(session, *message),
            // Whatever else happens in a session went well.
            _ => {}
        }
    }

    fn on_connection(&mut self, connection: ConnectionId, recorded: &Recorded) {
        let place = Place {
            connection: Some(connection),
            ..Place::default()
        };
        let link = self.links.entry(connection).or_default();
        match &recorded.event {
            Event::ServerStopDecided { .. } => link.stopping = true,
            Event::ServerStartDecided { .. }
            | Event::ServerSpawned { .. }
            | Event::ServerReady { .. } => link.stopping = false,
            Event::ServerExited { .. } if link.stopping => link.stopping = false,
            Event::ServerExited { how } => {
                let known = Some((Rank::Server, how));
                let name = self.add(Kind::Exit, Ending::Healed, known, place, recorded);
                self.back(connection, name, recorded.at);
            }
            Event::ProbeFailed { .. } => link.probe = Some((recorded.position, recorded.at)),
            Event::ProbeRecovered => link.probe = None,
            Event::StreamLost { .. } => link.lost = Some(recorded.clone()),
            Event::ReconnectScheduled { .. } => {
                self.down(connection, recorded);
            }
            Event::ConnectFailed { reason, .. } => {
                let name = self.down(connection, recorded);
                self.explain(name, Rank::Call, Some((recorded.position, reason)));
            }
            Event::CircuitOpened { .. } => {
                let name = self.down(connection, recorded);
                self.count(name, Kind::Breaker);
            }
            Event::CircuitClosed => self.follow(place, recorded),
            Event::ConnectionChanged { to, .. } => self.changed(connection, *to, recorded),
            Event::GapFound { agent_session, .. } => {
                let thread = Thread::Gap(connection, agent_session.clone());
                self.begin(Kind::Gap, thread, None, place, recorded);
            }
            Event::GapFilled { agent_session } => {
                let thread = Thread::Gap(connection, agent_session.clone());
                self.settle(&thread, Ending::Filled, recorded);
            }
            Event::TaskPanicked { reason } => {
                let known = Some((Rank::Mistake, reason));
                let name = self.add(Kind::Panic, Ending::Healed, known, place, recorded);
                self.back(connection, name, recorded.at);
            }
            // Whatever else happens to a connection is part of its making.
            _ => {}
        }
    }

    fn of_engine(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::EngineStarted { .. } => {
                if self.running {
                    self.crashed(recorded);
                }
                self.running = true;
            }
            Event::RecoveryStarted { .. } => {
                if let Some(name) = self.recent_crash(recorded.at) {
                    self.open(name, Thread::Recovery);
                    self.note(name, Place::default(), recorded);
                    self.crash = Some((name, None));
                }
            }
            Event::RecoveryFinished { .. } => self.recovered(recorded),
            Event::EngineStopped => {
                self.running = false;
                self.recovered(recorded);
                // Nobody needs these links now, and nobody tries.
                let links: Vec<_> = self
                    .threads
                    .keys()
                    .filter(|thread| matches!(thread, Thread::Link(_)))
                    .cloned()
                    .collect();
                for thread in links {
                    self.settle(&thread, Ending::GivenUp, recorded);
                }
            }
            Event::TaskPanicked { reason } => {
                let known = Some((Rank::Mistake, reason));
                self.add(
                    Kind::Panic,
                    Ending::Healed,
                    known,
                    Place::default(),
                    recorded,
                );
            }
            _ => {}
        }
    }

    // ---- links

    /// The link is down: it was lost, or could not be made, and is tried again.
    fn down(&mut self, connection: ConnectionId, recorded: &Recorded) -> Name {
        let place = Place {
            connection: Some(connection),
            ..Place::default()
        };
        let thread = Thread::Link(connection);
        let link = self.links.entry(connection).or_default();
        let (lost, probe) = (link.lost.take(), link.probe.take());
        if let Some(name) = self.threads.get(&thread).copied() {
            if let Some(lost) = &lost {
                self.note(name, place, lost);
            }
            self.note(name, place, recorded);
            return name;
        }
        let first = lost.as_ref().unwrap_or(recorded);
        let known = match &first.event {
            Event::StreamLost { reason } => Some((Rank::Stream, reason)),
            _ => None,
        };
        let mut name = self.begin(Kind::Connection, thread, known, place, first);
        let lost = lost.map(|lost| (lost.position, lost.at));
        for sign in lost.into_iter().chain(probe) {
            name = self.reach_back(name, sign);
        }
        self.note(name, place, recorded);
        let name = self.take_in(name, connection, recorded.at);
        let link = self.links.entry(connection).or_default();
        link.trouble = Some((name, None));
        self.touch_open(name, |known| known.connection == connection);
        name
    }

    fn changed(&mut self, connection: ConnectionId, to: ConnectionState, recorded: &Recorded) {
        let crash = self.recent_crash(recorded.at);
        let link = self.links.entry(connection).or_default();
        match to {
            ConnectionState::Disconnected => {
                // What ended with an engine is not tried again by it.
                if let Some(name) = crash
                    && let Some(lost) = link.lost.take()
                {
                    let place = Place {
                        connection: Some(connection),
                        ..Place::default()
                    };
                    let name = self.reach_back(name, (lost.position, lost.at));
                    self.note(name, place, &lost);
                }
            }
            ConnectionState::Connecting => link.lost = None,
            ConnectionState::Connected => {
                (link.lost, link.probe) = (None, None);
                let thread = Thread::Link(connection);
                if let Some(name) = self.threads.get(&thread).copied() {
                    self.settle(&thread, Ending::Healed, recorded);
                    self.back(connection, name, recorded.at);
                }
            }
        }
    }

    /// Something was wrong with a link that is not down, or not any more.
    fn back(&mut self, connection: ConnectionId, name: Name, at: Timestamp) {
        if !self.threads.contains_key(&Thread::Link(connection)) {
            let link = self.links.entry(connection).or_default();
            link.trouble = Some((name, Some(at)));
        }
    }

    /// A link that falls takes in what began on it shortly before, and is open.
    fn take_in(&mut self, name: Name, connection: ConnectionId, at: Timestamp) -> Name {
        let of_message = |thread: &Thread| matches!(thread, Thread::Delivery(_) | Thread::Turn(_));
        let noticed: Vec<Name> = self
            .live
            .iter()
            .filter(|(other, live)| {
                **other != name
                    && at.since(live.incident.begin) < SETTLE
                    && live.incident.connections.contains(&connection)
                    && live.open.keys().any(of_message)
            })
            .map(|(other, _)| *other)
            .collect();
        noticed
            .into_iter()
            .fold(name, |name, other| self.merge(name, other))
    }

    fn touch_if_down(&mut self, session: SessionId, message: MessageId) {
        let connection = self.sessions.get(&session).map(|known| known.connection);
        let name = connection.and_then(|id| self.threads.get(&Thread::Link(id)));
        if let Some(live) = name.and_then(|name| self.live.get_mut(name)) {
            live.touch(session, Some(message));
        }
    }

    /// All open messages of these sessions are under way while this goes on.
    fn touch_open(&mut self, name: Name, of: impl Fn(&Known) -> bool) {
        let Some(live) = self.live.get_mut(&name) else {
            return;
        };
        for (session, messages) in &self.pending.sessions {
            if self.sessions.get(session).is_some_and(&of) {
                for message in messages {
                    live.touch(*session, Some(*message));
                }
            }
        }
    }

    // ---- engines

    fn crashed(&mut self, recorded: &Recorded) {
        let name = self.add(
            Kind::Crash,
            Ending::Healed,
            None,
            Place::default(),
            recorded,
        );
        self.explain(name, Rank::Death, None);
        if let (Some(last), Some(live)) = (self.last, self.live.get_mut(&name)) {
            live.incident.begin = live.incident.begin.min(last);
        }
        let opened = self.threads.contains_key(&Thread::Recovery);
        self.crash = Some((name, (!opened).then_some(recorded.at)));
        self.touch_open(name, |_| true);
    }

    fn recovered(&mut self, recorded: &Recorded) {
        self.settle(&Thread::Recovery, Ending::Healed, recorded);
        if let Some((_, recovered @ None)) = &mut self.crash {
            *recovered = Some(recorded.at);
        }
    }

    fn recent_crash(&self, at: Timestamp) -> Option<Name> {
        let (name, recovered) = self.crash?;
        self.is_recent(name, recovered, at).then_some(name)
    }

    // ---- incidents

    /// Something begins that takes time.
    fn begin(
        &mut self,
        kind: Kind,
        thread: Thread,
        known: Option<(Rank, &String)>,
        place: Place,
        recorded: &Recorded,
    ) -> Name {
        let name = self.add(kind, Ending::Healed, known, place, recorded);
        self.open(name, thread);
        name
    }

    /// Something goes wrong: in the incident that it belongs to, or in one of its own.
    fn add(
        &mut self,
        kind: Kind,
        ending: Ending,
        known: Option<(Rank, &String)>,
        place: Place,
        recorded: &Recorded,
    ) -> Name {
        let name = self.home(place, recorded).unwrap_or_else(|| {
            let name = Name(recorded.position);
            self.live.insert(name, Live::new(name, recorded.at));
            name
        });
        self.note(name, place, recorded);
        self.count(name, kind);
        if let Some((rank, text)) = known {
            self.explain(name, rank, Some((recorded.position, text)));
        }
        if let Some(live) = self.live.get_mut(&name) {
            live.incident.ending = live.incident.ending.max(ending);
        }
        name
    }

    /// The incident that something belongs to, by the rules of this module.
    fn home(&self, place: Place, recorded: &Recorded) -> Option<Name> {
        let at = recorded.at;
        let by_thread = || {
            let of_message = place.message.and_then(|message| self.of_message(message));
            of_message.or_else(|| {
                let link = Thread::Link(place.connection.filter(|_| place.session.is_none())?);
                self.threads.get(&link).copied()
            })
        };
        let by_cause = || {
            // What moves a link follows from its last move, however long ago that was.
            let cause = recorded.cause.filter(|_| place.session.is_some())?;
            self.evidence.get(&cause).copied()
        };
        let by_session = || {
            let (name, last) = self.sessions.get(&place.session?)?.trouble?;
            self.is_recent(name, Some(last), at).then_some(name)
        };
        let by_connection = || {
            let (name, since) = self.links.get(&place.connection?)?.trouble?;
            self.is_recent(name, since, at).then_some(name)
        };
        by_thread()
            .or_else(by_cause)
            .or_else(by_session)
            .or_else(by_connection)
            .or_else(|| self.recent_crash(at))
    }

    /// Where a thread of the message is open.
    fn of_message(&self, message: MessageId) -> Option<Name> {
        let threads = [Thread::Delivery(message), Thread::Turn(message)];
        let mut found = threads.iter().filter_map(|thread| self.threads.get(thread));
        found
            .next()
            .or_else(|| {
                let hole = self.holes(message).next()?;
                self.threads.get(hole)
            })
            .copied()
    }

    fn holes(&self, message: MessageId) -> impl Iterator<Item = &Thread> {
        let from = Thread::Hole(message, String::new());
        let holes = self.threads.range(from..).map(|(thread, _)| thread);
        holes.take_while(move |thread| matches!(thread, Thread::Hole(of, _) if *of == message))
    }

    /// Whether an incident is live, and what was over in it at a time, if it is, was so not long ago.
    fn is_recent(&self, name: Name, over: Option<Timestamp>, at: Timestamp) -> bool {
        self.live.contains_key(&name) && over.is_none_or(|over| at.since(over) < SETTLE)
    }

    fn has(&self, message: MessageId, kind: Kind) -> bool {
        let name = self.of_message(message);
        let live = name.and_then(|name| self.live.get(&name));
        live.is_some_and(|live| live.incident.kinds.contains_key(&kind))
    }

    /// Something happens that may be part of an incident, and begins none.
    fn follow(&mut self, place: Place, recorded: &Recorded) {
        let of_message = place.message.and_then(|message| self.of_message(message));
        let of_link = || {
            let (name, since) = self.links.get(&place.connection?)?.trouble?;
            // A session that goes on when the link is back is no part of it.
            let is_part = since.is_none() || place.session.is_none();
            (is_part && self.is_recent(name, since, recorded.at)).then_some(name)
        };
        if let Some(name) = of_message.or_else(of_link) {
            self.note(name, place, recorded);
        }
    }

    fn open(&mut self, name: Name, thread: Thread) {
        if let Some(live) = self.live.get_mut(&name) {
            live.open.entry(thread.clone()).or_insert(Standing::Open);
            self.threads.insert(thread, name);
        }
    }

    fn stand(&mut self, thread: &Thread, standing: Standing, recorded: &Recorded) {
        let Some(name) = self.threads.get(thread).copied() else {
            return;
        };
        if let Some(live) = self.live.get_mut(&name)
            && let Some(now) = live.open.get_mut(thread)
        {
            // A policy decides without anybody having waited.
            if standing == Standing::Waits || *now == Standing::Waits {
                *now = standing;
            }
        }
        self.note(name, Place::default(), recorded);
    }

    /// A thread ends.
    fn settle(&mut self, thread: &Thread, ending: Ending, recorded: &Recorded) {
        let Some(name) = self.threads.remove(thread) else {
            return;
        };
        if let Some(live) = self.live.get_mut(&name) {
            let decided = live.open.remove(thread) == Some(Standing::Decided);
            let ending = if decided {
                ending.max(Ending::Settled)
            } else {
                ending
            };
            live.incident.ending = live.incident.ending.max(ending);
        }
        self.note(name, Place::default(), recorded);
    }

    /// All that is open of a message ends with it; what is missing from its answer then stays so.
    fn settle_message(&mut self, message: MessageId, ending: Ending, recorded: &Recorded) {
        self.settle(&Thread::Delivery(message), ending, recorded);
        self.settle(&Thread::Turn(message), ending, recorded);
        let holes: Vec<_> = self.holes(message).cloned().collect();
        for hole in holes {
            self.settle(&hole, ending.max(Ending::Lost), recorded);
        }
    }

    /// An event shows something of an incident.
    fn note(&mut self, name: Name, place: Place, recorded: &Recorded) {
        let Some(live) = self.live.get_mut(&name) else {
            return;
        };
        live.last = live.last.max(recorded.at);
        live.incident.connections.extend(place.connection);
        if let Some(session) = place.session {
            live.touch(session, place.message);
            if let Some(known) = self.sessions.get_mut(&session) {
                known.trouble = Some((name, recorded.at));
            }
        }
        self.look_at = self.look_at.min(live.last.plus(SETTLE));
        self.show(name, recorded.position);
    }

    /// An incident names an event. Where there are too many, another one is left out for it.
    fn show(&mut self, name: Name, position: Position) {
        let Some(live) = self.live.get_mut(&name) else {
            return;
        };
        let evidence = &mut live.incident.evidence;
        evidence.insert(position);
        self.evidence.insert(position, name);
        if evidence.len() > EVIDENCE_MAX
            && let Some(out) = evidence.iter().nth_back(EVIDENCE_LAST).copied()
        {
            evidence.remove(&out);
            self.evidence.remove(&out);
            live.incident.evidence_left_out += 1;
        }
    }

    fn count(&mut self, name: Name, kind: Kind) {
        if let Some(live) = self.live.get_mut(&name) {
            *live.incident.kinds.entry(kind).or_default() += 1;
        }
    }

    /// What explains more than all before it, is the cause.
    fn explain(&mut self, name: Name, rank: Rank, cause: Option<(Position, &String)>) {
        if let Some(live) = self.live.get_mut(&name)
            && (rank > live.rank || live.incident.cause.is_none() && rank == live.rank)
        {
            live.rank = rank;
            live.incident.cause = cause.map(|(position, text)| Cause {
                position,
                text: text.clone(),
            });
        }
    }

    /// It began sooner than it was noticed.
    fn reach_back(&mut self, name: Name, (position, at): (Position, Timestamp)) -> Name {
        let Some(live) = self.live.get_mut(&name) else {
            return name;
        };
        live.incident.begin = live.incident.begin.min(at);
        self.show(name, position);
        if position >= name.0 {
            return name;
        }
        let to = Name(position);
        self.rename(name, to);
        to
    }

    /// Two incidents are one: the one that began first.
    fn merge(&mut self, a: Name, b: Name) -> Name {
        let (into, from) = (a.min(b), a.max(b));
        let Some(mut absorbed) = self.live.remove(&from) else {
            return into;
        };
        let evidence = std::mem::take(&mut absorbed.incident.evidence);
        if let Some(live) = self.live.get_mut(&into) {
            live.absorb(absorbed);
        }
        self.point(from, into);
        for position in evidence {
            self.show(into, position);
        }
        into
    }

    fn rename(&mut self, from: Name, to: Name) {
        if let Some(mut live) = self.live.remove(&from) {
            live.incident.name = to;
            self.live.insert(to, live);
        }
        self.point(from, to);
    }

    /// Whatever names an incident names another one from here on.
    fn point(&mut self, from: Name, to: Name) {
        let of_links = self.links.values_mut().filter_map(|l| l.trouble.as_mut());
        let of_sessions = self.sessions.values_mut();
        let of_sessions = of_sessions.filter_map(|known| known.trouble.as_mut());
        let names = (self.threads.values_mut())
            .chain(self.evidence.values_mut())
            .chain(of_links.map(|(name, _)| name))
            .chain(of_sessions.map(|(name, _)| name))
            .chain(self.crash.as_mut().map(|(name, _)| name));
        for name in names.filter(|name| **name == from) {
            *name = to;
        }
    }

    fn end_what_is_over(&mut self, now: Timestamp) {
        let mut look_at = Timestamp(u64::MAX);
        let mut over = Vec::new();
        for (name, live) in &self.live {
            let due = live.last.plus(SETTLE);
            if live.open.is_empty() && now >= due {
                over.push(*name);
            } else if live.open.is_empty() {
                look_at = look_at.min(due);
            }
        }
        for live in over.into_iter().filter_map(|name| self.live.remove(&name)) {
            for position in &live.incident.evidence {
                self.evidence.remove(position);
            }
            self.over.push(live.told());
        }
        self.look_at = look_at;
    }
}

impl Live {
    fn new(name: Name, begin: Timestamp) -> Self {
        Self {
            incident: Incident {
                name,
                begin,
                end: None,
                ending: Ending::default(),
                kinds: BTreeMap::new(),
                cause: None,
                connections: BTreeSet::new(),
                sessions: BTreeMap::new(),
                messages_left_out: 0,
                evidence: BTreeSet::new(),
                evidence_left_out: 0,
            },
            open: BTreeMap::new(),
            last: begin,
            rank: Rank::End,
        }
    }

    fn touch(&mut self, session: SessionId, message: Option<MessageId>) {
        let named: usize = self.incident.sessions.values().map(BTreeSet::len).sum();
        let messages = self.incident.sessions.entry(session).or_default();
        match message {
            Some(message) if named < MESSAGES_MAX => {
                messages.insert(message);
            }
            Some(message) if !messages.contains(&message) => self.incident.messages_left_out += 1,
            Some(_) | None => {}
        }
    }

    fn absorb(&mut self, other: Self) {
        let from = other.incident;
        let into = &mut self.incident;
        into.begin = into.begin.min(from.begin);
        into.ending = into.ending.max(from.ending);
        for (kind, times) in from.kinds {
            *into.kinds.entry(kind).or_default() += times;
        }
        if other.rank > self.rank {
            (self.rank, into.cause) = (other.rank, from.cause);
        }
        into.connections.extend(from.connections);
        into.messages_left_out += from.messages_left_out;
        into.evidence_left_out += from.evidence_left_out;
        self.open.extend(other.open);
        self.last = self.last.max(other.last);
        for (session, messages) in from.sessions {
            self.touch(session, None);
            for message in messages {
                self.touch(session, Some(message));
            }
        }
    }

    /// The incident, as it stands.
    fn told(mut self) -> Incident {
        match self.open.values().max() {
            None => self.incident.end = Some(self.last),
            Some(Standing::Waits) => self.incident.ending = Ending::Waits,
            Some(Standing::Open | Standing::Decided) => self.incident.ending = Ending::Open,
        }
        self.incident
    }
}
