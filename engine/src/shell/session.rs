//! One task that owns one session's machine: take an input, record, then do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use recount_projections::{
    MessageState, Projection as _, SharedSession, StateStore, Status, Transcript,
};
use recount_store::{
    Event, Expected, MessageId, NewEvent, PermissionAnswer, Seq, SessionId, StreamId, Timestamp,
};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::connection::{Connection, FromAgent, Link};
use super::dead_letter::{self, DeadLetter};
use super::inbox::Inbox;
use super::panics;
use super::presence::{Begun, Visit};
use super::session_manager::SessionManager;
use super::subscription::{Subscription, Update};
use super::told;
use crate::adapter::{AgentAdapter, CallError, Endpoint, Observation};
use crate::clock::Clock;
use crate::command::{Command, Receipt, Word, decide};
use crate::error::Error;
use crate::machine::session::policy::SessionPolicy;
use crate::machine::session::{Effect, Input, SessionMachine, Step};
use crate::metrics::{self, Share};
use crate::watched;

/// What is asked of a session's task.
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) reply: Reply,
}

/// Where a call is answered. One that is lost on the way was lost by a panic, or with the task.
pub(super) struct Reply(Option<oneshot::Sender<Result<Receipt, Error>>>);

impl Reply {
    fn send(mut self, answer: Result<Receipt, Error>) {
        if let Some(sender) = self.0.take() {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(sender) = self.0.take()
        {
            let _ = sender.send(Err(Error::Panicked));
        }
    }
}

/// A session: a name and the engine that keeps it, cheap to hold by the hundred thousand.
///
/// Whatever else there is of it in memory is there while something is open in it, or somebody calls, waits or
/// listens. All handles on a session are the same one, whenever they were made.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    manager: SessionManager,
}

impl Session {
    pub(super) fn new(id: SessionId, manager: SessionManager) -> Self {
        Self { id, manager }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Where it stands now.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where it is not in memory and cannot be read.
    pub fn state(&self) -> Result<recount_projections::Session, Error> {
        self.with_state(Clone::clone)
    }

    /// Looks at where it stands, without copying it. Must not take long: its task waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where it is not in memory and cannot be read.
    pub fn with_state<T>(
        &self,
        look: impl FnOnce(&recount_projections::Session) -> T,
    ) -> Result<T, Error> {
        Ok(self.manager.states().session(self.id)?.with(look))
    }

    /// What was said and done in it, whole: read from the log each time, as long as the conversation.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where it cannot be read.
    pub fn transcript(&self) -> Result<Transcript, Error> {
        let mut transcript = Transcript::default();
        for recorded in self
            .manager
            .log()
            .read(StreamId::Session(self.id), Seq::FIRST)
        {
            transcript.apply(&recorded?);
        }
        Ok(transcript)
    }

    /// Tells from now on what happens.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let visit = self.manager.visit(self.id);
        Subscription::new(visit, self.manager.policy().subscriber_bytes)
    }

    /// Queues a message; when this resolves it is durable, and will be answered once or end visibly.
    ///
    /// With a `key`, it is safe to repeat: the same key and text give the same receipt.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where the session does not take it, [`Error::Log`] where it could not be recorded.
    pub async fn send(&self, text: &str, key: Option<&str>) -> Result<MessageId, Error> {
        let message = MessageId::from_random(self.manager.chance().number());
        let (key, text) = (key.map(str::to_owned), text.to_owned());
        let receipt = self.command(Command::Queue { message, key, text }).await?;
        Ok(receipt.message.unwrap_or(message))
    }

    /// Queues a message that is to reach the agent while it works, and is otherwise as [`Session::send`] says.
    ///
    /// The agent reads it after the step that it is at, and answers it from there on: the turn before it is completed
    /// then, with what it had said. Where nothing runs, where other messages wait before it, and where it comes too late or
    /// does not get through at once, it is read when its turn comes.
    ///
    /// # Errors
    ///
    /// As [`Session::send`], and [`Error::Rejected`] where the agent cannot be steered. Those that come with this crate
    /// can.
    pub async fn steer(&self, text: &str, key: Option<&str>) -> Result<MessageId, Error> {
        let message = MessageId::from_random(self.manager.chance().number());
        let (key, text) = (key.map(str::to_owned), text.to_owned());
        let receipt = self.command(Command::Steer { message, key, text }).await?;
        Ok(receipt.message.unwrap_or(message))
    }

    /// Ends the work on the oldest open message. Its end comes as an event.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where nothing is open.
    pub async fn abort(&self) -> Result<(), Error> {
        self.command(Command::Abort).await.map(drop)
    }

    /// Takes a message back that was not sent.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it was sent, or is not there.
    pub async fn cancel(&self, message: MessageId) -> Result<(), Error> {
        self.command(Command::Cancel { message }).await.map(drop)
    }

    /// Answers when the agent asks for permission; `None` is the oldest that it waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it asks for no such permission.
    pub async fn answer(
        &self,
        permission: Option<&str>,
        answer: PermissionAnswer,
    ) -> Result<(), Error> {
        let permission = permission.map(str::to_owned);
        self.command(Command::Answer { permission, answer })
            .await
            .map(drop)
    }

    /// Answers a question in words, with the chosen or written texts for each of its prompts; `None` is the oldest
    /// that the agent waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it asks no such question, or where the answers do not fit its prompts.
    pub async fn answer_question(
        &self,
        question: Option<&str>,
        answers: Vec<Vec<String>>,
    ) -> Result<(), Error> {
        let question = question.map(str::to_owned);
        let answers = Some(answers);
        self.command(Command::AnswerQuestion { question, answers })
            .await
            .map(drop)
    }

    /// Says that a question in words will not be answered, which ends the turn; `None` is the oldest that the
    /// agent waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it asks no such question.
    pub async fn refuse_question(&self, question: Option<&str>) -> Result<(), Error> {
        let question = question.map(str::to_owned);
        let answers = None;
        self.command(Command::AnswerQuestion { question, answers })
            .await
            .map(drop)
    }

    /// Says what becomes of a turn that waits for a person: run it again, or give it up.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where none waits.
    pub async fn rerun(&self, run: bool) -> Result<(), Error> {
        self.command(Command::Rerun { run }).await.map(drop)
    }

    /// Says what became of a message of which the agent could not say whether it arrived.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where none waits for that.
    pub async fn resolve(&self, word: Word) -> Result<(), Error> {
        self.command(Command::Resolve { word }).await.map(drop)
    }

    /// The messages that were given up and not queued again, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where their texts cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let state = self.manager.states().session(self.id)?;
        dead_letter::of(self.manager.log(), self.id, &state)
    }

    /// Queues a dead letter again, as a new message with the same text and without a key; gives its id.
    ///
    /// Safe to repeat: it is queued again once, whatever becomes of that. One that the agent may hold all the same is
    /// queued again only with `even_if_it_may_double`.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it is no dead letter, where it may double and that was not allowed, or where the
    /// session takes no message; [`Error::Log`] where it could not be recorded.
    pub async fn requeue(
        &self,
        message: MessageId,
        even_if_it_may_double: bool,
    ) -> Result<MessageId, Error> {
        let queued = self.with_state(|state| {
            let known = state.queue.get(message);
            known.map(|known| known.queued)
        })?;
        let text = match queued {
            Some(queued) => dead_letter::text_at(self.manager.log(), queued)?,
            None => None,
        };
        let again = MessageId::from_random(self.manager.chance().number());
        let command = Command::Requeue {
            message,
            again,
            // What was cut off is in a session that is closed by it, and takes nothing.
            text: text.unwrap_or_default(),
            even_if_it_may_double,
        };
        Ok(self.command(command).await?.message.unwrap_or(again))
    }

    /// Closes the session: nothing can be queued any more.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where it is closed already.
    pub async fn close(&self) -> Result<(), Error> {
        self.command(Command::Close).await.map(drop)
    }

    /// Waits until `reached` says yes to its state, and gives what it says.
    ///
    /// # Errors
    ///
    /// [`Error::ShutDown`], [`Error::Stopped`] or [`Error::StandsStill`] where it ends before that.
    pub async fn wait<T>(
        &self,
        mut reached: impl FnMut(&recount_projections::Session) -> Option<T>,
    ) -> Result<T, Error> {
        let visit = self.manager.touch(self.id).await?;
        let mut progress = visit.audience().progress();
        loop {
            let ended = progress.borrow_and_update().ended;
            if let Some(found) = self.with_state(&mut reached)? {
                return Ok(found);
            }
            if ended || progress.changed().await.is_err() {
                return Err(visit.ended());
            }
        }
    }

    /// Waits until a message is settled, and gives the state that it is in.
    ///
    /// # Errors
    ///
    /// As [`Session::wait`].
    pub async fn settled(
        &self,
        message: MessageId,
    ) -> Result<recount_projections::MessageState, Error> {
        self.wait(|state| {
            state
                .queue
                .get(message)
                .map(|known| known.state)
                .filter(|state| state.is_settled())
        })
        .await
    }

    /// Waits until nothing is open that can go on by itself: `Idle`, `Closed`, or `Waiting` for a person.
    ///
    /// # Errors
    ///
    /// As [`Session::wait`].
    pub async fn at_rest(&self) -> Result<Status, Error> {
        let visit = self.manager.touch(self.id).await?;
        rest(&visit).await?;
        self.with_state(recount_projections::Session::status)
    }

    async fn command(&self, command: Command) -> Result<Receipt, Error> {
        let (visit, calls) = self.manager.awake(self.id).await?;
        let (sender, answer) = oneshot::channel();
        let reply = Reply(Some(sender));
        if calls.send(Call { command, reply }).await.is_err() {
            return Err(visit.ended());
        }
        // Its task does not fall asleep before it has answered.
        drop(calls);
        answer.await.unwrap_or_else(|_| Err(visit.ended()))
    }
}

/// Waits until nothing is open that can go on by itself.
pub(super) async fn rest(visit: &Visit) -> Result<(), Error> {
    // One that sleeps has nothing open.
    if visit.calls()?.is_none() {
        return Ok(());
    }
    let mut progress = visit.audience().progress();
    let come = progress.wait_for(|progress| progress.at_rest || progress.ended);
    match come.await {
        Ok(progress) if progress.at_rest => Ok(()),
        _ => Err(visit.ended()),
    }
}

/// What a session's task works with.
pub(super) struct Setting {
    pub(super) states: StateStore,
    pub(super) connection: Connection,
    pub(super) policy: SessionPolicy,
    pub(super) clock: Clock,
}

/// How a task ended.
enum End {
    /// Nothing is open, and nobody calls.
    Asleep,
    /// It was told to.
    Stopped,
    /// Nothing that cannot be recorded is done: it stands still until the log is opened again.
    Failed(Error),
    /// By a mistake of the engine's own.
    Panicked(String),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Keeps a session as long as there is something to do: one task after the other, where one panics.
pub(super) async fn keep(setting: Setting, mut begun: Begun) {
    let mut in_a_row = 0;
    loop {
        match live(&setting, &mut begun, &mut in_a_row).await {
            End::Asleep => return,
            End::Stopped => return begun.end(Error::ShutDown),
            End::Failed(error) => {
                tracing::error!(%error, "session stopped");
                return begun.end(Error::Stopped);
            }
            End::Panicked(reason) => {
                in_a_row += 1;
                tracing::error!(reason, in_a_row, "session panicked");
                if let Err(error) = record_panic(&setting, &begun.visit, reason.clone()).await {
                    tracing::error!(%error, "session stopped");
                    return begun.end(Error::Stopped);
                }
                if in_a_row >= setting.policy.panics_max {
                    let session = begun.visit.id();
                    return begun.end(Error::StandsStill { session, reason });
                }
            }
        }
    }
}

/// One task, from its look at the log to its end. That it came to rest clears the count of panics.
async fn live(setting: &Setting, begun: &mut Begun, in_a_row: &mut u32) -> End {
    let visit = begun.visit.clone();
    let task = AssertUnwindSafe(async { Task::new(setting, visit) }).catch_unwind();
    let mut task = match task.await {
        Ok(Ok(task)) => task,
        Ok(Err(error)) => return End::Failed(error),
        Err(panic) => return End::Panicked(panics::words(panic.as_ref())),
    };
    let worked = AssertUnwindSafe(task.work(begun)).catch_unwind().await;
    if task.rested {
        *in_a_row = 0;
    }
    if let Some(agent_session) = task.attached {
        task.connection.detach(&agent_session, task.inbox).await;
    }
    match worked {
        Ok(Ok(end) | Err(end)) => end,
        Err(panic) => End::Panicked(panics::words(panic.as_ref())),
    }
}

/// Says in the session's stream that its task panicked, past the fold that may be what panics.
async fn record_panic(setting: &Setting, visit: &Visit, reason: String) -> Result<(), Error> {
    let Setting { states, clock, .. } = setting;
    let event = NewEvent::live(Event::TaskPanicked { reason }, clock.now());
    let stream = StreamId::Session(visit.id());
    let recorded = states.log().append(stream, Expected::Any, vec![event]);
    let recorded = recorded.await?;
    states.forget(visit.id());
    visit.audience().recorded(recorded);
    Ok(())
}

struct Task<'a> {
    states: &'a StateStore,
    visit: Visit,
    state: SharedSession,
    machine: SessionMachine,
    policy: &'a SessionPolicy,
    adapter: Arc<dyn AgentAdapter>,
    connection: &'a Connection,
    link: watched::Receiver<Link>,
    /// The agent's session whose frames come here.
    attached: Option<String>,
    clock: &'a Clock,
    inbox: Inbox,
    /// The effects under way. What they come to is wanted by nobody once the task has ended.
    effects: JoinSet<Input>,
    wake_at: Option<Timestamp>,
    /// Since when nothing is open and nobody has called.
    idle_since: Option<Timestamp>,
    /// Whether it came to rest.
    rested: bool,
    /// Whether the connection was told that there is work for it.
    wanted: bool,
    queue_depth: Share,
    /// One, as long as the session is in memory.
    in_memory: Share,
}

impl<'a> Task<'a> {
    fn new(setting: &'a Setting, visit: Visit) -> Result<Self, Error> {
        let Setting {
            states,
            connection,
            policy,
            clock,
        } = setting;
        let adapter = Arc::clone(connection.adapter());
        let identity = Arc::clone(&adapter);
        let machine = SessionMachine::new(
            visit.id(),
            policy.clone(),
            Arc::new(move |message, now| identity.identity(message, now)),
            clock.now(),
        );
        Ok(Self {
            states,
            state: states.session(visit.id())?,
            visit,
            machine,
            policy,
            adapter,
            connection,
            link: connection.link(),
            attached: None,
            clock,
            inbox: Inbox::new(policy.inbox_bytes),
            effects: JoinSet::new(),
            wake_at: None,
            idle_since: None,
            rested: false,
            wanted: false,
            queue_depth: Share::of(metrics::QUEUE_DEPTH),
            in_memory: Share::of(metrics::SESSIONS),
        })
    }

    /// Takes inputs until there is nothing to do, or it is told to end.
    async fn work(&mut self, begun: &mut Begun) -> Result<End, End> {
        self.gauge();
        self.attach().await;
        let first = self.link_input();
        self.settle(first).await?;
        loop {
            let sleeps_at = self.sleeps_at(begun);
            if sleeps_at.is_some_and(|at| at <= self.clock.now()) {
                if begun.fall_asleep() {
                    return Ok(End::Asleep);
                }
                // A call is on its way.
                self.idle_since = Some(self.clock.now());
            }
            let wake_at = [self.wake_at, sleeps_at].into_iter().flatten().min();
            let wake = wake_at.map(|at| at.since(self.clock.now()));
            let input = tokio::select! {
                biased;
                () = told_to_end(&mut begun.stop) => {
                    // What was gathered is recorded.
                    self.settle(Input::Unlinked { circuit_open: false, reason: None }).await?;
                    return Ok(End::Stopped);
                }
                Some(call) = begun.calls.recv() => {
                    self.idle_since = None;
                    self.called(call).await?;
                    continue;
                }
                Some(done) = self.effects.join_next() => outcome(done)?,
                said = self.inbox.next() => self.seen(said),
                changed = self.link.changed() => match changed {
                    Ok(()) => self.link_input(),
                    Err(_) => return Err(Error::Stopped.into()),
                },
                () = sleep(wake) => Input::Woke,
            };
            let looked = matches!(input, Input::Looked(Ok(_)));
            self.settle(input).await?;
            if looked && let Some(agent_session) = &self.attached {
                // What the look found is recorded: whatever the stream had missed is read from the history now.
                self.connection.gap_filled(agent_session).await;
            }
        }
    }

    /// When it may fall asleep, while nothing is open.
    fn sleeps_at(&self, begun: &Begun) -> Option<Timestamp> {
        let since = self.idle_since?;
        let lingers = if begun.is_crowded() {
            Duration::ZERO
        } else {
            self.policy.idle_after
        };
        Some(since.plus(lingers))
    }

    async fn called(&mut self, Call { command, reply }: Call) -> Result<(), Error> {
        let outcome = self.command(command).await;
        let fatal = matches!(outcome, Err(Error::Log(_)));
        reply.send(outcome);
        if fatal {
            return Err(Error::Stopped);
        }
        self.settle(Input::Woke).await
    }

    /// Records and does what follows from an input, until nothing does.
    async fn settle(&mut self, input: Input) -> Result<(), Error> {
        let (machine, clock) = (&mut self.machine, &self.clock);
        let mut step = self
            .state
            .with(|state| machine.handle(state, input, clock.now()));
        while !step.is_quiet() {
            self.perform(step).await?;
            let (machine, clock) = (&mut self.machine, &self.clock);
            step = self.state.with(|state| machine.advance(state, clock.now()));
        }
        self.wake_at = step.wake_at;
        let at_rest = self.state.with(|state| self.machine.is_at_rest(state));
        self.visit.audience().rests(at_rest);
        let head = self.state.with(|state| Some(state.queue.head()?.state));
        if head.is_none() {
            self.rested = true;
            self.idle_since.get_or_insert(self.clock.now());
        } else {
            self.idle_since = None;
        }
        // A turn that waits for a person needs no agent until that person has spoken.
        let wanted = head.is_some_and(|state| state != MessageState::Waiting);
        if wanted && !self.wanted {
            self.connection.want().await;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Says how much is open, to whoever counts.
    fn gauge(&mut self) {
        self.in_memory.set(1);
        let open = self.state.with(|state| state.queue.open().count());
        self.queue_depth.set(open);
    }

    /// Record, then do.
    async fn perform(&mut self, step: Step) -> Result<(), Error> {
        self.record(step.events).await?;
        for effect in step.effects {
            self.start(effect);
        }
        Ok(())
    }

    async fn record(&mut self, events: Vec<recount_store::NewEvent>) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let append = self.states.append(self.visit.id(), Expected::Any, events);
        let began = Instant::now();
        let recorded = append.await?;
        metrics::appended(began.elapsed());
        self.gauge();
        let bound = recorded.iter().any(|r| {
            matches!(
                r.event,
                Event::AgentSessionBound { .. } | Event::AgentSessionForked { .. }
            )
        });
        self.visit.audience().recorded(recorded);
        if bound {
            self.attach().await;
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<Receipt, Error> {
        let (bounds, now) = (
            self.policy.bounds(self.adapter.can_steer()),
            self.clock.now(),
        );
        let sends = matches!(
            command,
            Command::Queue { .. } | Command::Steer { .. } | Command::Requeue { .. }
        );
        let (events, receipt) = self
            .state
            .with(|state| decide(state, command, bounds, now))?;
        self.record(events).await?;
        if sends {
            // Somebody waits: the first try is made at once, whatever an earlier engine had scheduled.
            self.wanted = true;
            self.connection.want_now().await;
        }
        Ok(receipt)
    }

    /// Has the frames of the agent's session come here, once there is one. Before anything is started in it.
    async fn attach(&mut self) {
        let bound = self.state.with(|state| state.agent_session.clone());
        if let Some(agent_session) = bound
            && self.attached.as_ref() != Some(&agent_session)
        {
            if let Some(lost) = &self.attached {
                // What waits to be read is about the lost session, and must not be taken for the new one's.
                let lost_inbox =
                    std::mem::replace(&mut self.inbox, Inbox::new(self.policy.inbox_bytes));
                self.connection.detach(lost, lost_inbox).await;
            }
            self.connection
                .attach(&agent_session, self.inbox.clone())
                .await;
            self.attached = Some(agent_session);
        }
    }

    fn link_input(&mut self) -> Input {
        match &*self.link.borrow_and_update() {
            Link::Up { epoch, .. } => Input::Linked { epoch: *epoch },
            Link::Down {
                circuit_open,
                reason,
            } => Input::Unlinked {
                circuit_open: *circuit_open,
                reason: reason.clone(),
            },
        }
    }

    fn seen(&mut self, said: FromAgent) -> Input {
        let FromAgent {
            epoch,
            frame,
            observation,
            from_child,
        } = said;
        if let Observation::Delta { part, text, .. } = &observation
            && self.visit.audience().listens()
            && let Some(message) = self.state.with(|state| state.queue.head().map(|m| m.id))
        {
            let update = Update::Output {
                message,
                part: part.clone(),
                text: text.clone(),
            };
            self.visit.audience().tell(&update);
        }
        Input::Observed {
            epoch,
            frame,
            observation,
            from_child,
        }
    }

    /// Begins an effect; what comes of it comes back as an input.
    fn start(&mut self, effect: Effect) {
        let endpoint = match &*self.link.borrow() {
            Link::Up { endpoint, .. } => Some(endpoint.clone()),
            Link::Down { .. } => None,
        };
        match effect {
            Effect::Suspect => return self.connection.suspect(),
            Effect::MayRetry => {
                let leave = self.connection.may_retry(self.clock.now());
                self.effects.spawn(async move { Input::MayRetry(leave) });
                return;
            }
            _ => {}
        }
        let adapter = Arc::clone(&self.adapter);
        let connection = self.connection.clone();
        let call = told::call(&effect);
        let span = self.state.with(|state| told::call_span(call, state));
        self.effects.spawn(async move {
            let began = Instant::now();
            let input = perform(&*adapter, endpoint, effect).instrument(span).await;
            metrics::called(call, began.elapsed());
            if matches!(input, Input::Bound(Ok(_)) | Input::Stored(Ok(()))) {
                connection.succeeded();
            }
            input
        });
    }
}

/// What an effect came to.
fn outcome(done: Result<Input, JoinError>) -> Result<Input, End> {
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => End::Panicked(panics::words(panic.as_ref())),
        // Nothing but the end of the runtime cancels it.
        Err(_) => End::Failed(Error::Stopped),
    })
}

/// Does one effect through the adapter.
async fn perform(adapter: &dyn AgentAdapter, endpoint: Option<Endpoint>, effect: Effect) -> Input {
    let to = endpoint.ok_or_else(|| CallError::NeverSent {
        reason: "the connection was lost before it was sent".to_owned(),
    });
    match effect {
        Effect::CreateSession(spec) => {
            let call = async { adapter.create_session(&to?, &spec).await.map(Some) };
            Input::Bound(call.await)
        }
        Effect::ForkSession { spec, origin } => {
            let call = async { adapter.fork_session(&to?, &spec, &origin).await.map(Some) };
            Input::Bound(call.await)
        }
        Effect::FindSession(spec) => {
            let call = async { adapter.find_session(&to?, &spec).await };
            Input::Bound(call.await)
        }
        Effect::Store(delivery) => {
            let call = async { adapter.store_message(&to?, &delivery).await };
            Input::Stored(call.await)
        }
        Effect::Start(delivery) => {
            let call = async { adapter.start_turn(&to?, &delivery).await };
            Input::Started(call.await)
        }
        Effect::Look {
            session,
            agent_message: id,
        } => {
            let call = async { adapter.look_up(&to?, &session, &id).await };
            Input::Looked(call.await)
        }
        Effect::Abort(session) => {
            let call = async { adapter.abort(&to?, &session).await };
            Input::AbortSent(call.await)
        }
        Effect::AnswerPermission {
            session,
            permission: question,
            answer,
        } => {
            let call = async {
                let to = to?;
                let answered = adapter.answer_permission(&to, &session, &question, answer);
                answered.await
            };
            let outcome = call.await;
            Input::Answered { question, outcome }
        }
        Effect::AnswerQuestion {
            session,
            question,
            answers,
        } => {
            let call = async {
                let (to, answers) = (to?, answers.as_deref());
                let answered = adapter.answer_question(&to, &session, &question, answers);
                answered.await
            };
            let outcome = call.await;
            Input::Answered { question, outcome }
        }
        Effect::Suspect | Effect::MayRetry => Input::Woke,
    }
}

async fn told_to_end(stop: &mut watched::Receiver<bool>) {
    // An engine that is gone wants it to end, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_whose_task_panics_is_told_so() {
        let (sender, answer) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _reply = Reply(Some(sender));
            tokio::task::yield_now().await;
            panic!("a mistake");
        });
        let answer = answer.await.expect("it is answered");
        assert!(matches!(answer, Err(Error::Panicked)), "{answer:?}");
        let panic = task.await.expect_err("it panicked").into_panic();
        assert_eq!(panics::words(panic.as_ref()), "a mistake");
    }
}
