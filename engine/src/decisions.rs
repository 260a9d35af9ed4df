//! Decisions, derived again: do today's machines choose what the log says was chosen?
//!
//! What came from outside is in the log as observed, what somebody wanted as asked. The walk folds both, stops at each
//! decided event, and has the machine that runs today decide from the same fold at the same time. What a process knew
//! and the log does not tell is tried in every way in which it may have been (`machine/*/stances.rs`), so a decision
//! counts as derived where *some* such way leads to it, and as different where none does. Words for people are not compared:
//! a reason may be put better and stay the same decision.
//!
//! A decision that is lacking shows in what comes after it: an outcome of what was never begun, a step of a machine that
//! the log goes along with and then leaves, something else decided while this one was owed. Where nothing comes after
//! it, or where the world may have done the same by itself, it does not show: a turn may fail without having stalled, a
//! question may be refused elsewhere before it expires, a server may end that nobody stopped.
//!
//! The same walk under another policy says what that one would have chosen at each point of what really happened.
//! From the first difference on the world would have gone another way, so each answer stands for itself.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use recount_engine::{OpenSession, Options, SessionManager, decisions};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let data = folder.path();
//! # let here = data.display().to_string();
//! let options = Options::new(data);
//! let manager = SessionManager::start(options.clone()).await?;
//! let session = manager.open(OpenSession::new("scripted", here)).await?;
//! let message = session.send("hello", None).await?;
//! session.settled(message).await?;
//! manager.shut_down().await?;
//!
//! let log = recount_store::LogReader::open(data)?;
//! let derived = decisions::derive(&log, None, &options.adapters)?;
//! assert_eq!(derived.first_difference, None);
//! assert!(derived.decisions > 0);
//! # Ok::<_, recount_engine::Error>(()) }).unwrap();
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use recount_projections::{Breaker, Connection, MessageState, Projection, Session};
use recount_store::{
    Class, ConnectionId, ConnectionState, Event, LogReader, NewEvent, Position, Progress, Recorded,
    Rerun, Seq, SessionId, StreamId, Timestamp, Verdict,
};

use crate::adapter::AgentAdapter;
use crate::error::Error;
use crate::machine::connection::stances::Standing;
use crate::machine::session::Identity;
use crate::machine::session::stances::{self, Moment, Stance};
use crate::policy::{self, Policy};

/// How many events one step of a machine has at most, with room to spare.
const STEP_EVENTS_MAX: usize = 64;

/// Why a message is given up whose log was damaged and salvaged. Of all reasons this one is not for people alone: no rule
/// leads to that, and none is asked for. Logs have it, so it stays as it is.
pub const SALVAGED: &str =
    "its log was damaged and salvaged: what became of it after that is not known";

/// How many events go by between two words on how far it has come.
const STRIDE: u64 = 1 << 12;

/// What a walk over a log's decisions found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Derived {
    /// How many decisions there are; a person's word is none.
    pub decisions: u64,
    /// How many of them differ.
    pub different: u64,
    /// The first that differs, by its position.
    pub first_difference: Option<Difference>,
    /// The keys of recorded policies that this build does not know, each once: what another build decided by them is not
    /// derived.
    pub unknown_keys: Vec<String>,
}

/// A decision that is not what it would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where the log has it; where it lacks a decision, the event that stands in its place.
    pub recorded: Recorded,
    /// What would be decided there, in each way in which the rest may have been; nothing where nothing would.
    pub derived: Vec<Event>,
}

/// Derives the decisions of a log again, under the policies that it names, and compares.
///
/// `only` limits it to these streams. `adapters` give the identities that agents know messages by; sessions of an agent that
/// is not among them are compared without. Streams whose front was cut are passed over: what their decisions followed
/// from is gone.
///
/// # Errors
///
/// Where the log cannot be read, or has a policy with a value that this build cannot read.
pub fn derive(
    log: &LogReader,
    only: Option<&[StreamId]>,
    adapters: &[Arc<dyn AgentAdapter>],
) -> Result<Derived, Error> {
    derive_telling(log, only, adapters, |_| {})
}

/// The same, and tells now and then how far it has come: a log of gigabytes takes a while.
///
/// # Errors
///
/// As [`derive()`].
pub fn derive_telling(
    log: &LogReader,
    only: Option<&[StreamId]>,
    adapters: &[Arc<dyn AgentAdapter>],
    tell: impl FnMut(Progress),
) -> Result<Derived, Error> {
    let engine = Engine::of(log)?;
    let mut derived = Derived {
        unknown_keys: engine.unknown_keys.iter().cloned().collect(),
        ..Derived::default()
    };
    walk(log, &engine, only, adapters, tell, |judged| {
        derived.decisions += 1;
        let Some(alternatives) = judged.instead else {
            return;
        };
        derived.different += 1;
        let earlier = derived.first_difference.as_ref();
        if earlier.is_none_or(|first| judged.recorded.position < first.recorded.position) {
            derived.first_difference = Some(Difference {
                recorded: judged.recorded.clone(),
                derived: alternatives,
            });
        }
    })?;
    Ok(derived)
}

/// What another policy would have decided, where it is not what was decided, in the order of the log.
///
/// `change` makes the other policy from each one that was in force, so that a single key can be another and all else
/// stay as it was. `tell` hears now and then how far it has come.
///
/// # Errors
///
/// As [`derive()`], and where `change` gives one.
pub fn what_if(
    log: &LogReader,
    only: Option<&[StreamId]>,
    adapters: &[Arc<dyn AgentAdapter>],
    change: impl Fn(&Policy) -> Result<Policy, policy::Error>,
    tell: impl FnMut(Progress),
) -> Result<Vec<Difference>, Error> {
    let mut differences = Vec::new();
    let mut engine = Engine::of(log)?;
    let others = engine.policies.iter().map(|(_, policy)| change(policy));
    engine.others = Some(others.collect::<Result<_, _>>()?);
    walk(log, &engine, only, adapters, tell, |judged| {
        if let Some(derived) = judged.instead {
            let recorded = judged.recorded.clone();
            differences.push(Difference { recorded, derived });
        }
    })?;
    differences.sort_by_key(|difference| difference.recorded.position);
    Ok(differences)
}

/// A decision of the log, and what it would be instead where it would be another.
struct Judged<'a> {
    recorded: &'a Recorded,
    instead: Option<Vec<Event>>,
}

fn walk(
    log: &LogReader,
    engine: &Engine,
    only: Option<&[StreamId]>,
    adapters: &[Arc<dyn AgentAdapter>],
    mut tell: impl FnMut(Progress),
    mut report: impl FnMut(Judged<'_>),
) -> Result<(), Error> {
    let mut streams = log.streams()?;
    streams.retain(|(stream, head)| {
        only.is_none_or(|only| only.contains(stream)) && head.from == Seq::FIRST
    });
    let total = streams.iter().map(|(_, head)| head.seq.0).sum();
    let mut done = 0;
    for (stream, head) in streams {
        let mut tell = |read| {
            tell(Progress {
                doing: "deriving decisions",
                done: done + read,
                total,
            });
        };
        let ahead = Ahead::of(log, stream, &mut tell);
        let judge = Judge {
            engine,
            report: &mut report,
        };
        match stream {
            StreamId::Session(id) => judge.session(ahead, id, adapters)?,
            StreamId::Connection(id) => judge.connection(ahead, id)?,
            StreamId::Engine => {}
        }
        tell(head.seq.0);
        done += head.seq.0;
    }
    Ok(())
}

/// What the engine's own stream says of all others: which policy was in force, and where a process began.
struct Engine {
    policies: Vec<(Position, Policy)>,
    unknown_keys: BTreeSet<String>,
    /// What is asked about in place of each.
    others: Option<Vec<Policy>>,
    starts: Vec<Position>,
}

impl Engine {
    fn of(log: &LogReader) -> Result<Self, Error> {
        let mut engine = Self {
            policies: vec![(Position::default(), Policy::default())],
            unknown_keys: BTreeSet::new(),
            others: None,
            starts: Vec::new(),
        };
        for recorded in log.read(StreamId::Engine, Seq::FIRST) {
            let recorded = recorded?;
            match &recorded.event {
                Event::EngineStarted { .. } => engine.starts.push(recorded.position),
                Event::PolicyAdopted { policy } => {
                    let position = recorded.position;
                    let (policy, unknown) = Policy::from_recorded(policy).map_err(|error| {
                        let reason = error.to_string();
                        Error::RecordedPolicy { position, reason }
                    })?;
                    engine.unknown_keys.extend(unknown);
                    engine.policies.push((recorded.position, policy));
                }
                _ => {}
            }
        }
        Ok(engine)
    }

    fn policy_at(&self, position: Position) -> &Policy {
        &self.policies[self.in_force(position)].1
    }

    /// The policy that is asked about, where one is.
    fn other_at(&self, position: Position) -> Option<&Policy> {
        let others = self.others.as_ref()?;
        Some(&others[self.in_force(position)])
    }

    fn in_force(&self, position: Position) -> usize {
        let after = self.policies.partition_point(|(from, _)| *from <= position);
        after.saturating_sub(1)
    }

    /// Whether a process began between the two.
    fn began_between(&self, before: Position, after: Position) -> bool {
        let next = self.starts.partition_point(|start| *start <= before);
        self.starts.get(next).is_some_and(|start| *start < after)
    }
}

struct Judge<'a, F> {
    engine: &'a Engine,
    report: &'a mut F,
}

impl<F: FnMut(Judged<'_>)> Judge<'_, F> {
    fn session(
        mut self,
        mut ahead: Ahead<'_>,
        id: SessionId,
        adapters: &[Arc<dyn AgentAdapter>],
    ) -> Result<(), Error> {
        let mut state = Session::default();
        let mut heard = Timestamp::default();
        ahead.fill()?;
        while let Some(first) = ahead.events.front() {
            let identity = identity(&state, first, adapters);
            let moment = Moment {
                first: &first.event,
                now: first.at,
                heard,
            };
            let policy = self.engine.policy_at(first.position);
            let decide = |policy: &Policy| {
                Stance::ALL
                    .map(|stance| stance.decide(&policy.session, &identity, &state, id, moment))
            };
            let length = match first.class {
                Class::Decided if is_salvages(&first.event) => 1,
                Class::Decided if is_a_persons_word(&state, &first.event) => {
                    // Giving up is two events, and both are that word.
                    let next = ahead.events.get(1);
                    1 + usize::from(next.is_some_and(|next| is_given_up(&first.event, &next.event)))
                }
                Class::Decided => {
                    let other = self.engine.other_at(first.position).map(decide);
                    let other = other.as_ref().map(<[_; _]>::as_slice);
                    self.judge(&ahead, (&decide(policy), &[]), other)
                }
                Class::Observed if stances::answers_nothing(&state, first) => {
                    let begun =
                        Stance::Ready.decide(&policy.session, &identity, &state, id, moment);
                    self.lacks(first, begun);
                    1
                }
                Class::Observed => {
                    self.overdue(first, &state, || {
                        stances::owed(&policy.session, &identity, &state, id, moment)
                    });
                    1
                }
                Class::Asked => 1,
            };
            for recorded in ahead.take(length) {
                if recorded.frame.is_some() {
                    heard = recorded.at;
                }
                state.apply(&recorded);
            }
            ahead.fill()?;
        }
        Ok(())
    }

    fn connection(mut self, mut ahead: Ahead<'_>, id: ConnectionId) -> Result<(), Error> {
        let (mut connection, mut breaker) = (Connection::default(), Breaker::default());
        let (mut tried, mut untaken) = (Position::default(), Vec::new());
        ahead.fill()?;
        while let Some(first) = ahead.events.front() {
            let standing = Standing {
                id,
                policy: &self.engine.policy_at(first.position).connection,
                connection: &connection,
                breaker: &breaker,
                untried: self.engine.began_between(tried, first.position),
                now: first.at,
            };
            if let Some(begun) = standing.begun_before(&first.event) {
                self.lacks(first, begun);
            }
            let derived = standing.steps(&first.event);
            let other = self.engine.other_at(first.position);
            let other = other.map(|other| standing.under(&other.connection).steps(&first.event));
            if first.class == Class::Observed && !derived.is_empty() {
                // Should what follows not be a whole step, these say what it might have been.
                untaken.clone_from(&derived);
            }
            let length = self.judge(&ahead, (&derived, &untaken), other.as_deref());
            for recorded in ahead.take(length) {
                if matches!(
                    recorded.event,
                    Event::ConnectionChanged {
                        to: ConnectionState::Connecting,
                        ..
                    }
                ) {
                    tried = recorded.position;
                }
                connection.apply(&recorded);
                breaker.apply(&recorded);
            }
            ahead.fill()?;
        }
        Ok(())
    }

    /// Reports on the step that the log goes on with, and gives how many events it has.
    fn judge(
        &mut self,
        ahead: &Ahead<'_>,
        (derived, untaken): (&[Vec<NewEvent>], &[Vec<NewEvent>]),
        other: Option<&[Vec<NewEvent>]>,
    ) -> usize {
        let ways = derived.iter().enumerate();
        let way = ways
            .filter(|(_, step)| ahead.begins_with(step))
            .max_by_key(|(way, step)| (step.len(), usize::MAX - way));
        let Some((way, step)) = way else {
            if let Some(length) = self.departs(ahead, derived) {
                return length;
            }
            if let Some(first) = ahead.decision() {
                // What does not follow under its own policy says nothing about another.
                let steps = derived.iter().chain(untaken).cloned();
                let all = || distinct(steps.flat_map(decided));
                let instead = self.engine.others.is_none().then(all);
                self.report(first, instead);
            }
            return 1;
        };
        // Under another policy, with all else as it was.
        let mut would = other
            .and_then(|other| other.get(way))
            .map(|step| VecDeque::from(decided(step.clone())));
        for recorded in ahead.events.iter().take(step.len()) {
            if recorded.class != Class::Decided {
                continue;
            }
            let same = would.as_ref().is_none_or(|would| {
                let next = would.front().map(wordless);
                next == Some(wordless(&recorded.event))
            });
            let instead = (!same).then(|| would.take().unwrap_or_default().into());
            if let Some(would) = &mut would {
                would.pop_front();
            }
            self.report(recorded, instead);
        }
        step.len()
    }

    /// Reports where the log goes along with a step and leaves it before one of its decisions, and gives how many events
    /// that takes; none where it does not so much as begin one, or leaves it elsewhere.
    fn departs(&mut self, ahead: &Ahead<'_>, derived: &[Vec<NewEvent>]) -> Option<usize> {
        let along = derived.iter().map(|step| (ahead.along(step), step));
        let along: Vec<_> = along.collect();
        let farthest = along.iter().map(|(length, _)| *length).max()?;
        let next = along
            .iter()
            .filter(|(length, _)| *length == farthest)
            .filter_map(|(length, step)| step.get(*length))
            .map(|new| new.event.clone())
            .filter(|event| event.class() == Class::Decided);
        let next = distinct(next);
        if farthest == 0 || next.is_empty() {
            return None;
        }
        for recorded in ahead.events.iter().take(farthest) {
            if recorded.class == Class::Decided {
                self.report(recorded, None);
            }
        }
        // Where the log ends there, nothing stands in its place.
        let Some(recorded) = ahead.events.get(farthest) else {
            return Some(farthest);
        };
        let type_number = recorded.event.type_number();
        let changed = next.iter().any(|event| event.type_number() == type_number);
        let instead = self.engine.others.is_none().then_some(next);
        self.report(recorded, instead);
        Some(farthest + usize::from(changed))
    }

    /// Reports that a decision is lacking before what only follows from it.
    fn lacks(&mut self, next: &Recorded, begun: Vec<NewEvent>) {
        if self.engine.others.is_none() {
            self.report(next, Some(decided(begun)));
        }
    }

    /// Reports where a decision is lacking: something else was observed while one was owed by the same process.
    fn overdue(&mut self, next: &Recorded, state: &Session, owed: impl FnOnce() -> Vec<NewEvent>) {
        // What one step found out besides comes at the same time.
        let same_step = next.at == state.last_at;
        let died = self.engine.began_between(state.last, next.position);
        if self.engine.others.is_some() || same_step || died {
            return;
        }
        let owed = decided(owed());
        if !owed.is_empty() {
            self.report(next, Some(owed));
        }
    }

    fn report(&mut self, recorded: &Recorded, instead: Option<Vec<Event>>) {
        (self.report)(Judged { recorded, instead });
    }
}

/// The events of a stream that come next.
struct Ahead<'a> {
    stream: Box<dyn Iterator<Item = recount_store::Result<Recorded>>>,
    events: VecDeque<Recorded>,
    read: u64,
    /// Hears now and then how many were read.
    tell: &'a mut dyn FnMut(u64),
}

impl<'a> Ahead<'a> {
    fn of(log: &LogReader, stream: StreamId, tell: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            stream: Box::new(log.read(stream, Seq::FIRST)),
            events: VecDeque::new(),
            read: 0,
            tell,
        }
    }

    /// Reads on: as many as a step may have are looked at.
    fn fill(&mut self) -> Result<(), Error> {
        while self.events.len() < STEP_EVENTS_MAX
            && let Some(recorded) = self.stream.next()
        {
            self.events.push_back(recorded?);
            self.read += 1;
            if self.read.is_multiple_of(STRIDE) {
                (self.tell)(self.read);
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> impl Iterator<Item = Recorded> {
        self.events.drain(..length)
    }

    /// The next event, if it is a decision.
    fn decision(&self) -> Option<&Recorded> {
        self.events
            .front()
            .filter(|next| next.class == Class::Decided)
    }

    /// Whether the log goes on with this step.
    fn begins_with(&self, step: &[NewEvent]) -> bool {
        !step.is_empty() && self.along(step) == step.len()
    }

    /// How many events of this step the log goes on with.
    fn along(&self, step: &[NewEvent]) -> usize {
        step.iter()
            .zip(&self.events)
            .take_while(|(new, recorded)| {
                new.provenance == recorded.provenance
                    && wordless(&new.event) == wordless(&recorded.event)
            })
            .count()
    }
}

/// Each once, words for people apart.
fn distinct(events: impl Iterator<Item = Event>) -> Vec<Event> {
    let mut distinct: Vec<Event> = Vec::new();
    for event in events {
        if !distinct
            .iter()
            .any(|known| wordless(known) == wordless(&event))
        {
            distinct.push(event);
        }
    }
    distinct
}

fn decided(step: Vec<NewEvent>) -> Vec<Event> {
    let events = step.into_iter().map(|new| new.event);
    events
        .filter(|event| event.class() == Class::Decided)
        .collect()
}

/// How the agent's identities are made here; as recorded, where the agent is not known.
fn identity(state: &Session, next: &Recorded, adapters: &[Arc<dyn AgentAdapter>]) -> Identity {
    let agent = state.opening.as_ref().map(|opening| opening.agent.as_str());
    let adapter = adapters
        .iter()
        .find(|adapter| Some(adapter.name()) == agent);
    if let Some(adapter) = adapter.cloned() {
        return Arc::new(move |message, now| adapter.identity(message, now));
    }
    let recorded = match &next.event {
        Event::DeliveryStarted { agent_message, .. } => agent_message.clone(),
        _ => String::new(),
    };
    Arc::new(move |_, _| recorded.clone())
}

/// Whether a person settled what waited for a person: that is nobody's rule.
fn is_a_persons_word(state: &Session, event: &Event) -> bool {
    let waits = |message| {
        let known = state.queue.get(message);
        known.is_some_and(|known| known.state == MessageState::Waiting)
    };
    match event {
        Event::RerunDecided { message, rerun, .. } => *rerun != Rerun::Wait && waits(*message),
        Event::UnknownDecided {
            message, verdict, ..
        } => *verdict != Verdict::Wait && waits(*message),
        _ => false,
    }
}

/// Whether a message was given up since its log was salvaged: that is nobody's rule, either.
fn is_salvages(event: &Event) -> bool {
    matches!(event, Event::MessageDeadLettered { reason, .. } if reason == SALVAGED)
}

/// Whether a message is a dead letter by the word that it is given up.
fn is_given_up(word: &Event, next: &Event) -> bool {
    match (word, next) {
        (
            Event::UnknownDecided {
                message, verdict, ..
            },
            Event::MessageDeadLettered {
                message: given_up, ..
            },
        ) => *verdict == Verdict::GiveUp && message == given_up,
        _ => false,
    }
}

/// The event without its words for people.
fn wordless(event: &Event) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::DeliveryRejected { reason, .. }
        | Event::DeliveryUnknown { reason, .. }
        | Event::TurnFailed { reason, .. }
        | Event::MessageDeadLettered { reason, .. }
        | Event::TurnStalled { reason, .. }
        | Event::RerunDecided { reason, .. }
        | Event::UnknownDecided { reason, .. }
        | Event::QuestionExpired { reason, .. }
        | Event::ServerExited { how: reason }
        | Event::ConnectFailed { reason, .. }
        | Event::StreamLost { reason }
        | Event::ServerStopDecided { reason } => reason.clear(),
        _ => {}
    }
    event
}

#[cfg(test)]
mod tests;
