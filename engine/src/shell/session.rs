//! One task that owns one session's machine: take an input, record, then do.

use std::sync::Arc;
use std::time::Duration;

use recount_projections::{MessageState, SharedSession, StateStore, Status};
use recount_store::{
    Event, Expected, LogReader, MessageId, PermissionAnswer, Recorded, Seq, SessionId, Timestamp,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::connection::{Connection, FromAgent, Link};
use super::dead_letter::{self, DeadLetter};
use super::inbox::{Arrived, Inbox};
use crate::adapter::{AgentAdapter, CallError, Endpoint, Observation};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::command::{Bounds, Command, Receipt, Word, decide};
use crate::error::Error;
use crate::limits;
use crate::machine::session::policy::SessionPolicy;
use crate::machine::session::{Effect, Input, SessionMachine, Step};

/// What a subscriber of a session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The agent says something, at this moment. Not durable yet: the event that records it follows.
    Output {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's name for the part of its answer.
        part: String,
        /// The text.
        text: String,
    },
    /// An event is durable.
    Recorded(Arc<Recorded>),
}

/// What is asked of a session's task.
enum Call {
    Command(Command, oneshot::Sender<Result<Receipt, Error>>),
    Stop(oneshot::Sender<()>),
}

/// A session: a cheap handle, all clones of which are the same one.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    calls: mpsc::Sender<Call>,
    state: SharedSession,
    updates: broadcast::Sender<Update>,
    progress: watch::Receiver<Progress>,
    chance: Chance,
    log: LogReader,
}

/// How far a session has come, for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// The number of its last event.
    seq: Seq,
    /// Whether nothing is open that can go on without a person, by what this process knows.
    at_rest: bool,
}

/// Updates of one session, as they come.
pub struct Subscription(broadcast::Receiver<Update>);

impl Subscription {
    /// The next update; `None` when the session's task has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Lagged`] once, with the count, where this subscriber was too slow and missed some; what
    /// was recorded is in the log.
    pub async fn next(&mut self) -> Result<Option<Update>, Error> {
        match self.0.recv().await {
            Ok(update) => Ok(Some(update)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(Error::Lagged { missed }),
        }
    }
}

impl Session {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> recount_projections::Session {
        self.state.copy()
    }

    /// Looks at where it stands, without copying it.
    pub fn with_state<T>(&self, look: impl FnOnce(&recount_projections::Session) -> T) -> T {
        self.state.with(look)
    }

    /// Tells from now on what happens.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.updates.subscribe())
    }

    /// Queues a message; when this resolves it is durable, and will be answered once or end visibly.
    ///
    /// With a `key`, it is safe to repeat: the same key and text give the same receipt.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] where the session does not take it, [`Error::Log`] where it could not be recorded.
    pub async fn send(&self, text: &str, key: Option<&str>) -> Result<MessageId, Error> {
        let message = MessageId::from_random(self.chance.number());
        let (key, text) = (key.map(str::to_owned), text.to_owned());
        let receipt = self.command(Command::Queue { message, key, text }).await?;
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
        dead_letter::of(&self.log, self.id, &self.state)
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
        let queued = self.state.with(|state| {
            let known = state.queue.get(message);
            known.map(|known| known.queued)
        });
        let text = match queued {
            Some(queued) => dead_letter::text_at(&self.log, queued)?,
            None => None,
        };
        let again = MessageId::from_random(self.chance.number());
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
    /// [`Error::Stopped`] where the session's task ends before that.
    pub async fn wait<T>(
        &self,
        mut reached: impl FnMut(&recount_projections::Session) -> Option<T>,
    ) -> Result<T, Error> {
        let mut progress = self.progress.clone();
        loop {
            progress.borrow_and_update();
            if let Some(found) = self.state.with(&mut reached) {
                return Ok(found);
            }
            progress.changed().await.map_err(|_| Error::Stopped)?;
        }
    }

    /// Waits until a message is settled, and gives the state that it is in.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] where the session's task ends before that.
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
    /// [`Error::Stopped`] where the session's task ends before that.
    pub async fn at_rest(&self) -> Result<Status, Error> {
        let mut progress = self.progress.clone();
        progress
            .wait_for(|progress| progress.at_rest)
            .await
            .map_err(|_| Error::Stopped)?;
        Ok(self.state.with(recount_projections::Session::status))
    }

    /// Whether it is at rest now; see [`Session::at_rest`].
    pub(super) fn rests(&self) -> bool {
        self.progress.borrow().at_rest
    }

    /// Ends the task; what is open stays open in the log.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.calls.send(Call::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    async fn command(&self, command: Command) -> Result<Receipt, Error> {
        let (reply, answer) = oneshot::channel();
        self.calls
            .send(Call::Command(command, reply))
            .await
            .map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

/// Begins a session's task.
pub(super) fn spawn(
    id: SessionId,
    states: &StateStore,
    connection: Connection,
    policy: SessionPolicy,
    clock: Clock,
    chance: Chance,
) -> Result<Session, Error> {
    let state = states.session(id)?;
    let (calls, asked) = mpsc::channel(limits::SESSION_CALLS_MAX);
    let (updates, _) = broadcast::channel(limits::SUBSCRIBER_LAG_MAX);
    // Not at rest before the task has looked around.
    let seq = state.with(|session| session.seq);
    let (progress_in, progress) = watch::channel(Progress {
        seq,
        at_rest: false,
    });
    let (outcomes_in, outcomes) = mpsc::channel(limits::SESSION_CALLS_MAX);
    let adapter = Arc::clone(connection.adapter());
    let identity = Arc::clone(&adapter);
    let bounds = policy.bounds();
    let inbox_bytes = policy.inbox_bytes;
    let machine = SessionMachine::new(
        id,
        policy,
        Arc::new(move |message, now| identity.identity(message, now)),
        clock.now(),
    );
    let task = Task {
        id,
        states: states.clone(),
        state: state.clone(),
        machine,
        bounds,
        adapter,
        link: connection.link(),
        connection,
        attached: None,
        clock,
        calls: asked,
        inbox: Inbox::new(inbox_bytes),
        inbox_bytes,
        outcomes_in,
        outcomes,
        updates: updates.clone(),
        progress: progress_in,
        wake_at: None,
        wanted: false,
    };
    tokio::spawn(task.run());
    Ok(Session {
        id,
        calls,
        state,
        updates,
        progress,
        chance,
        log: LogReader::clone(states.log()),
    })
}

struct Task {
    id: SessionId,
    states: StateStore,
    state: SharedSession,
    machine: SessionMachine,
    bounds: Bounds,
    adapter: Arc<dyn AgentAdapter>,
    connection: Connection,
    link: watch::Receiver<Link>,
    /// The agent's session whose frames come here.
    attached: Option<String>,
    clock: Clock,
    calls: mpsc::Receiver<Call>,
    inbox: Inbox,
    inbox_bytes: usize,
    outcomes_in: mpsc::Sender<Input>,
    outcomes: mpsc::Receiver<Input>,
    updates: broadcast::Sender<Update>,
    progress: watch::Sender<Progress>,
    wake_at: Option<Timestamp>,
    /// Whether the connection was told that there is work for it.
    wanted: bool,
}

impl Task {
    async fn run(mut self) {
        let stopped = match self.work().await {
            Ok(stopped) => Some(stopped),
            Err(error) => {
                // Nothing that cannot be recorded is done: the session stands still until the log is opened again.
                tracing::error!(session = %self.id, %error, "session stopped");
                None
            }
        };
        if let Some(agent_session) = self.attached.take() {
            let inbox = self.inbox.clone();
            self.connection.detach(&agent_session, inbox).await;
        }
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    /// Takes inputs until it is told to stop, or nobody holds the session any more.
    async fn work(&mut self) -> Result<oneshot::Sender<()>, Error> {
        self.attach().await;
        let first = self.link_input();
        self.settle(first).await?;
        loop {
            let wake = self.wake_at.map(|at| at.since(self.clock.now()));
            let input = tokio::select! {
                biased;
                call = self.calls.recv() => match call {
                    Some(Call::Command(command, reply)) => {
                        let outcome = self.command(command).await;
                        let fatal = matches!(outcome, Err(Error::Log(_)));
                        let _ = reply.send(outcome);
                        if fatal {
                            return Err(Error::Stopped);
                        }
                        Input::Woke
                    }
                    Some(Call::Stop(done)) => {
                        self.settle(Input::Unlinked { circuit_open: false, reason: None }).await?;
                        return Ok(done);
                    }
                    None => return Err(Error::Stopped),
                },
                Some(outcome) = self.outcomes.recv() => outcome,
                arrived = self.inbox.next() => self.seen(arrived),
                changed = self.link.changed() => match changed {
                    Ok(()) => self.link_input(),
                    Err(_) => return Err(Error::Stopped),
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
        self.progress.send_if_modified(|progress| {
            std::mem::replace(&mut progress.at_rest, at_rest) != at_rest
        });
        // A turn that waits for a person needs no agent until that person has spoken.
        let wanted = self.state.with(|state| {
            let head = state.queue.head();
            head.is_some_and(|message| message.state != MessageState::Waiting)
        });
        if wanted && !self.wanted {
            self.connection.want().await;
        }
        self.wanted = wanted;
        Ok(())
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
        let recorded = self.states.append(self.id, Expected::Any, events).await?;
        let bound = recorded
            .iter()
            .any(|r| matches!(r.event, Event::AgentSessionBound { .. }));
        if let Some(last) = recorded.last() {
            // Whether it is at rest after this, the end of `settle` says.
            let progress = Progress {
                seq: last.seq,
                at_rest: false,
            };
            self.progress.send_replace(progress);
        }
        for event in recorded {
            // Nobody listening is fine.
            let _ = self.updates.send(Update::Recorded(Arc::new(event)));
        }
        if bound {
            self.attach().await;
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<Receipt, Error> {
        let (bounds, now) = (self.bounds, self.clock.now());
        let sends = matches!(command, Command::Queue { .. } | Command::Requeue { .. });
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
                let lost_inbox = std::mem::replace(&mut self.inbox, Inbox::new(self.inbox_bytes));
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

    fn seen(&mut self, arrived: Arrived) -> Input {
        let Arrived::Said(said) = arrived else {
            tracing::warn!(session = %self.id, "the session was too slow for its agent: it looks what it missed");
            return Input::Missed;
        };
        let FromAgent {
            epoch,
            frame,
            observation,
            from_child,
        } = said;
        if let Observation::Delta { part, text, .. } = &observation
            && self.updates.receiver_count() > 0
            && let Some(message) = self.state.with(|state| state.queue.head().map(|m| m.id))
        {
            let update = Update::Output {
                message,
                part: part.clone(),
                text: text.clone(),
            };
            let _ = self.updates.send(update);
        }
        Input::Observed {
            epoch,
            frame,
            observation,
            from_child,
        }
    }

    /// Begins an effect; what comes of it comes back as an input.
    fn start(&self, effect: Effect) {
        let endpoint = match &*self.link.borrow() {
            Link::Up { endpoint, .. } => Some(endpoint.clone()),
            Link::Down { .. } => None,
        };
        match effect {
            Effect::Suspect => return self.connection.suspect(),
            Effect::MayRetry => {
                let leave = self.connection.may_retry(self.clock.now());
                return self.come_back(async move { Input::MayRetry(leave) });
            }
            _ => {}
        }
        let adapter = Arc::clone(&self.adapter);
        let connection = self.connection.clone();
        self.come_back(async move {
            let input = perform(&*adapter, endpoint, effect).await;
            if matches!(input, Input::Bound(Ok(_)) | Input::Stored(Ok(()))) {
                connection.succeeded();
            }
            input
        });
    }

    fn come_back(&self, outcome: impl Future<Output = Input> + Send + 'static) {
        let back = self.outcomes_in.clone();
        tokio::spawn(async move {
            // A task that has ended wants no outcome; the next one will ask the agent.
            let _ = back.send(outcome.await).await;
        });
    }
}

/// Does one effect through the adapter.
async fn perform(adapter: &dyn AgentAdapter, endpoint: Option<Endpoint>, effect: Effect) -> Input {
    let endpoint = endpoint.ok_or_else(|| CallError::NeverSent {
        reason: "the connection was lost before it was sent".to_owned(),
    });
    match effect {
        Effect::CreateSession(spec) => Input::Bound(match endpoint {
            Ok(endpoint) => adapter.create_session(&endpoint, &spec).await.map(Some),
            Err(error) => Err(error),
        }),
        Effect::FindSession(spec) => Input::Bound(match endpoint {
            Ok(endpoint) => adapter.find_session(&endpoint, &spec).await,
            Err(error) => Err(error),
        }),
        Effect::Store(delivery) => Input::Stored(match endpoint {
            Ok(endpoint) => adapter.store_message(&endpoint, &delivery).await,
            Err(error) => Err(error),
        }),
        Effect::Start(delivery) => Input::Started(match endpoint {
            Ok(endpoint) => adapter.start_turn(&endpoint, &delivery).await,
            Err(error) => Err(error),
        }),
        Effect::Look {
            session,
            agent_message,
        } => Input::Looked(match endpoint {
            Ok(endpoint) => adapter.look_up(&endpoint, &session, &agent_message).await,
            Err(error) => Err(error),
        }),
        Effect::Abort(session) => Input::AbortSent(match endpoint {
            Ok(endpoint) => adapter.abort(&endpoint, &session).await,
            Err(error) => Err(error),
        }),
        Effect::AnswerPermission {
            session,
            permission,
            answer,
        } => {
            let outcome = match endpoint {
                Ok(endpoint) => {
                    adapter
                        .answer_permission(&endpoint, &session, &permission, answer)
                        .await
                }
                Err(error) => Err(error),
            };
            Input::Answered {
                question: permission,
                outcome,
            }
        }
        Effect::AnswerQuestion {
            session,
            question,
            answers,
        } => {
            let outcome = match endpoint {
                Ok(endpoint) => {
                    adapter
                        .answer_question(&endpoint, &session, &question, answers.as_deref())
                        .await
                }
                Err(error) => Err(error),
            };
            Input::Answered { question, outcome }
        }
        Effect::Suspect | Effect::MayRetry => Input::Woke,
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
