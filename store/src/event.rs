//! The vocabulary: everything that Recount ever records, past tense, each with what it moves.
//!
//! Three streams, three classes. What came from an application is *asked*, what came from the world
//! is *observed*, what the engine chose is *decided*. The wire forms are apart, in `codec`, so that a
//! change here cannot change what old bytes mean; the `Serialize` here is the JSON that people and
//! scripts are shown, and nothing reads it back.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{
    ConnectionId, EventId, FrameNumber, MessageId, Position, Seq, SessionId, StreamId, Timestamp,
};
use crate::log::Hash;

/// Who an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// An application or a person wanted it.
    Asked,
    /// The world did it, and the engine saw it.
    Observed,
    /// The engine chose it; the same observations must give it again.
    Decided,
}

impl Class {
    /// The word for it, as `recount log --json` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Observed => "observed",
            Self::Decided => "decided",
        }
    }
}

/// How an event became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// Seen as it happened.
    Live,
    /// Read later, from the agent's own history.
    Backfilled,
    /// Concluded from what else is known.
    Inferred,
}

impl Provenance {
    /// The word for it, as `recount log --json` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfilled => "backfilled",
            Self::Inferred => "inferred",
        }
    }
}

/// What an event follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// Nothing in the log.
    #[default]
    None,
    /// The event at this position.
    At(Position),
    /// An event appended by the same call: its index there, which must be smaller than one's own.
    Sibling(usize),
}

/// An event that is to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What happened.
    pub event: Event,
    /// When, by the caller's clock.
    pub at: Timestamp,
    /// What it follows from.
    pub cause: Cause,
    /// How it became known.
    pub provenance: Provenance,
    /// By which it is known when it is appended again.
    pub id: Option<EventId>,
    /// The frame that told of it.
    pub frame: Option<FrameNumber>,
}

impl NewEvent {
    /// An event seen or decided as it happens, following from nothing.
    #[must_use]
    pub const fn live(event: Event, at: Timestamp) -> Self {
        Self {
            event,
            at,
            cause: Cause::None,
            provenance: Provenance::Live,
            id: None,
            frame: None,
        }
    }

    /// The same event, following from `cause`.
    #[must_use]
    pub const fn because(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// The same event, known by `provenance`.
    #[must_use]
    pub const fn known(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// The same event, known by `id` when it is appended again.
    #[must_use]
    pub const fn with_id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// The same event, told of by the frame of this number.
    #[must_use]
    pub const fn from_frame(mut self, frame: FrameNumber) -> Self {
        self.frame = Some(frame);
        self
    }
}

/// An event as the log holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Where it stands in the whole log.
    pub position: Position,
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Its number in that stream.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// The position of the event that it follows from.
    pub cause: Option<Position>,
    /// Who it came from.
    pub class: Class,
    /// How it became known.
    pub provenance: Provenance,
    /// By which it is known when it is appended again.
    pub id: Option<EventId>,
    /// The frame that told of it.
    pub frame: Option<FrameNumber>,
    /// What happened.
    pub event: Event,
}

/// What is known of an event before its payload is read: enough to pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Where it stands in the whole log.
    pub position: Position,
    /// The stream that it belongs to; none of a kind that this build does not know.
    pub stream: Option<StreamId>,
    /// When it happened.
    pub at: Timestamp,
    /// The position of the event that it follows from.
    pub cause: Option<Position>,
    /// The number of its type, as [`Event::type_number`] gives it.
    pub type_number: u16,
}

/// JSON of an agent, kept as the bytes that it sent.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Json(pub Vec<u8>);

impl Json {
    /// The JSON of a value.
    ///
    /// # Panics
    ///
    /// Where the value has none: a map whose keys are no texts.
    #[must_use]
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::to_vec(value).expect("what is recorded has its JSON"))
    }

    /// The value that it is of; `None` where it is of another kind, or cut off.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.0).ok()
    }
}

impl Serialize for Json {
    /// As the JSON that it is; as text where it is none, being cut off.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_slice::<&serde_json::value::RawValue>(&self.0) {
            Ok(json) => json.serialize(serializer),
            Err(_) => serializer.serialize_str(&String::from_utf8_lossy(&self.0)),
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({})", String::from_utf8_lossy(&self.0))
    }
}

/// Which server a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A server that somebody else runs, at this URL. It is used and never stopped.
    Url(String),
    /// A server that the engine starts and stops.
    Managed {
        /// The program to start; `None` is the agent's own name, looked up on the `PATH`.
        program: Option<String>,
        /// The folder that it is started in: absolute.
        directory: String,
    },
}

/// What a piece of output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// The answer.
    Text,
    /// What the model thought on the way.
    Reasoning,
}

/// Where the text of an [`Event::OutputAppended`] goes in its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// At the end of what is known without a hole.
    End,
    /// After a hole of unknown length: the stream was away, and what it carried is not known yet.
    AfterHole,
    /// Into the hole: what it carried is known now, and closes it.
    IntoHole,
}

/// What a person or a program answered when the agent asked for permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionAnswer {
    /// Yes, this time.
    Once,
    /// Yes, and whatever is like it.
    Always,
    /// No.
    Reject,
}

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It did its work.
    Completed,
    /// It failed, or was refused.
    Failed,
    /// Nobody knows: the agent died while it ran.
    Lost,
}

/// Why a delivery was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It never left: no connection could be made.
    NeverSent,
    /// The agent refused for now, and may say for how long, in milliseconds.
    ForNow {
        /// The agent's `Retry-After`, in milliseconds.
        retry_after: Option<u64>,
    },
    /// The agent refused for good.
    ForGood,
}

/// What was found out about an unknown delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The agent holds the message.
    Stored,
    /// The agent does not hold it: it may be sent again.
    Absent,
}

/// What is to become of a turn that the agent died in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rerun {
    /// The agent is asked to run it again; the model is asked again.
    Run,
    /// A person has to say, since a tool had begun.
    Wait,
    /// It is given up: the turn has failed.
    GiveUp,
}

/// What becomes of a delivery of which nobody can find out whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A person has to say.
    Wait,
    /// It is sent again, which may double it.
    Resend,
    /// It is given up: dead-lettered.
    GiveUp,
    /// It is taken as arrived.
    Arrived,
}

/// One prompt of a question that an agent asks in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// A word or two for it.
    pub header: String,
    /// The question.
    pub text: String,
    /// The answers to choose from.
    pub options: Vec<Choice>,
    /// Whether more than one may be chosen.
    pub multiple: bool,
    /// Whether another answer may be written.
    pub custom: bool,
}

/// One of the answers that a [`Prompt`] offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The answer.
    pub label: String,
    /// What it means, for a person.
    pub about: String,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Nothing is open and nothing is tried at this moment.
    #[default]
    Disconnected,
    /// A server is looked for, started or adopted, and its stream opened.
    Connecting,
    /// The stream of events is open.
    Connected,
}

/// Everything that can be recorded.
///
/// The order of the variants is for the reader; what a type is called in the log is in `codec`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    // ---- session, asked
    /// A session was opened. Begins its stream: nothing to `Open`.
    SessionOpened {
        /// The connection that leads to its agent.
        connection: ConnectionId,
        /// The agent's name: `opencode`, `scripted`.
        agent: String,
        /// The folder that the agent works in: absolute.
        directory: String,
        /// The model, as `PROVIDER/MODEL`; `None` leaves it to the agent.
        model: Option<String>,
        /// What the conversation is called.
        title: Option<String>,
    },
    /// A message was accepted for delivery. Moves it to `Queued`.
    MessageQueued {
        /// The message.
        message: MessageId,
        /// The application's idempotency key.
        key: Option<String>,
        /// What the agent is to read.
        text: String,
    },
    /// A message was taken back before it was sent. Moves it from `Queued` to `Cancelled`.
    MessageCancelled {
        /// The message.
        message: MessageId,
    },
    /// Somebody answered when the agent asked for permission.
    PermissionAnswered {
        /// The message whose turn asked.
        message: MessageId,
        /// The agent's name for what it asked.
        permission: String,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// Somebody wanted the turn ended. The turn ends when the agent says so.
    TurnAbortAsked {
        /// The message whose turn it is.
        message: MessageId,
    },
    /// The session was closed. Moves it from `Open` to `Closed`; nothing can be queued any more.
    SessionClosed,
    /// A dead letter was queued again, as another message with the same text: an identity that the agent may know
    /// is never used for a second life. The event that queues the other one stands beside this one.
    MessageRequeued {
        /// The message that was given up; it stays so.
        message: MessageId,
        /// The message that it is now.
        again: MessageId,
    },
    /// The message that was queued beside this is to reach the agent while it works, not after, if nothing is queued before
    /// it.
    MessageSteered {
        /// The message.
        message: MessageId,
    },
    /// Somebody answered a question of the agent's, or would not.
    QuestionAnswered {
        /// The message whose turn asked.
        message: MessageId,
        /// The agent's name for what it asked.
        question: String,
        /// A JSON array with the chosen or written texts of each prompt, themselves an array; `None` is a refusal.
        answers: Option<Json>,
    },
    /// The session begins where another one stood, to try again from there. Stands beside the event that opened it.
    SessionForked {
        /// The other session.
        from: SessionId,
        /// The last event of it that belongs to this one, too.
        at: Seq,
        /// Where the agent keeps what was said in it; none where the agent keeps nothing of that.
        agent_session: Option<String>,
        /// The last message of it that belongs to this one, too, by the identity that the agent knows it by.
        through: Option<String>,
        /// What was said in it, for an agent that does not copy it; none where nothing was.
        context: Option<String>,
    },

    // ---- session, observed
    /// The agent has a session of its own for this one, known there by this name.
    AgentSessionBound {
        /// The agent's name for it.
        agent_session: String,
    },
    /// The agent does not know its session any more, and so nothing of what was said in it. The next
    /// delivery asks for a new one.
    AgentSessionLost {
        /// The name that it had.
        agent_session: String,
    },
    /// The agent has a session of its own for this one, which goes on from a copy of another one.
    AgentSessionForked {
        /// The agent's name for it.
        agent_session: String,
    },
    /// The agent does not copy the session that this one was forked from. What was said there goes along with the first
    /// message instead.
    AgentForkRefused {
        /// Why, for a person.
        reason: String,
    },
    /// The agent holds the message. Moves it from `Sending` to `Accepted`.
    DeliveryAccepted {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
    },
    /// The agent does not hold the message, and this is certain. Moves it from `Sending` to `Refused`.
    DeliveryRejected {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
        /// Whether it may be tried again.
        refusal: Refusal,
        /// What went wrong, for a person.
        reason: String,
    },
    /// Nobody knows whether the agent holds the message. Moves it from `Sending` to `Unknown`.
    DeliveryUnknown {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
        /// What went wrong, for a person.
        reason: String,
    },
    /// The agent was asked about an unknown delivery. Moves it from `Unknown` to `Accepted` or `Refused`.
    DeliveryResolved {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
        /// What was found.
        resolution: Resolution,
        /// What proves it, for a person.
        evidence: String,
    },
    /// The agent began to work. Moves the turn from `Requested` to `Running`, or begins the first run of one that was not
    /// asked for: of a message that steers, which the run at work took up.
    TurnStarted {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1; a turn that the agent died in may run again.
        run: u32,
    },
    /// The agent said something. Each piece is recorded once.
    OutputAppended {
        /// The message whose turn it is.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's name for the part of its answer.
        part: String,
        /// What it is.
        kind: OutputKind,
        /// Where in the part it goes.
        placement: Placement,
        /// The text.
        text: String,
    },
    /// The agent's own record of a part is not what it had streamed. The part now reads `text`.
    OutputReplaced {
        /// The message whose turn it is.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's name for the part of its answer.
        part: String,
        /// What it is.
        kind: OutputKind,
        /// The text that holds now; empty where the agent took the part back.
        text: String,
    },
    /// What the agent said and did was recorded in another order than it has it: a part that was missed came to light
    /// after later ones.
    OutputOrdered {
        /// The message whose turn it is.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's names of parts and of tool calls, in its order. The places that they take among all of the run
        /// are theirs together; the rest stays where it is.
        items: Vec<String>,
    },
    /// A tool began. From here on a run that is lost may have done work.
    ToolCallStarted {
        /// The message whose turn it is.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's name for the call.
        call: String,
        /// The tool.
        tool: String,
        /// What it was given.
        input: Json,
    },
    /// A tool ended.
    ToolCallEnded {
        /// The message whose turn it is.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's name for the call.
        call: String,
        /// How it ended.
        outcome: ToolOutcome,
        /// What it gave back, or its error.
        output: String,
    },
    /// The agent asked for permission. The turn waits.
    PermissionAsked {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's name for what it asked.
        permission: String,
        /// What for: `bash`, `edit`.
        action: String,
        /// What exactly: the command, the file.
        detail: String,
        /// The tool call that waits for it.
        call: Option<String>,
    },
    /// A permission is settled at the agent: an answer arrived, ours or somebody else's, or the
    /// question is gone.
    PermissionSettled {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's name for what it asked.
        permission: String,
        /// The answer that it took, where it says so: it may be another than ours.
        answer: Option<PermissionAnswer>,
    },
    /// The agent asked a question in words, with answers to choose from or without. The turn waits.
    QuestionAsked {
        /// The message whose turn asked.
        message: MessageId,
        /// The agent's name for what it asked.
        question: String,
        /// A JSON array of [`Prompt`]s.
        prompts: Json,
        /// The tool call that waits for it.
        call: Option<String>,
    },
    /// A question is settled at the agent: an answer arrived, ours or somebody else's, or the question is gone.
    QuestionSettled {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's name for what it asked.
        question: String,
        /// The answers that it took, where it says so, as in [`Event::QuestionAnswered`]; the word `null` is a refusal.
        answers: Option<Json>,
    },
    /// The agent has trouble with its model and tries again by itself.
    AgentRetried {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's count of its attempts.
        attempt: u32,
        /// What went wrong, in the agent's words.
        reason: String,
        /// When it will try again, by its own word.
        next: Option<Timestamp>,
    },
    /// The agent reported an error while this turn ran. The turn's end says whether it was the end.
    AgentErrorReported {
        /// The message whose turn it is.
        message: MessageId,
        /// The error's name.
        name: String,
        /// What went wrong, in the agent's words.
        reason: String,
    },
    /// The agent finished its answer. Ends the turn.
    TurnCompleted {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's word for how it ended: `stop`, `length`.
        finish: String,
    },
    /// The turn ended without a whole answer. Ends the turn.
    TurnFailed {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1; 0 where none had been requested.
        run: u32,
        /// What went wrong, for a person.
        reason: String,
    },
    /// The turn ended since somebody wanted it ended. Ends the turn.
    TurnAborted {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1; 0 where none had been requested.
        run: u32,
    },
    /// The agent died in the middle of a run. Moves the turn from `Requested` or `Running` to `Interrupted`.
    TurnInterrupted {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// The agent's names of the answers that the dead run left behind; they will never end.
        answers: Vec<String>,
        /// What proves it, for a person.
        evidence: String,
    },
    /// The agent sent something that this build does not know. Kept for later; moves nothing.
    FrameUnrecognised {
        /// The agent's name for the kind of frame.
        kind: String,
        /// The frame, or its beginning where it is long.
        frame: Json,
    },

    // ---- session, decided
    /// The agent is about to be asked for a session of its own.
    AgentSessionRequested {
        /// What the engine will look for, should the answer be lost.
        marker: String,
    },
    /// A message is about to be sent. Moves it from `Queued` or `Refused` to `Sending`.
    DeliveryStarted {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
        /// The identity by which the agent knows the message: chosen once, the same for all attempts.
        agent_message: String,
    },
    /// The agent is about to be asked to work on a message that it holds. Moves the turn to `Requested`.
    TurnRequested {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1; the same again where nothing had begun.
        run: u32,
    },
    /// What was said in the session that this one was forked from goes along with this message, before its own text.
    ContextAdded {
        /// The message.
        message: MessageId,
    },
    /// A delivery or a request will be tried again at a time.
    RetryScheduled {
        /// The message.
        message: MessageId,
        /// The attempt that will be made.
        attempt: u32,
        /// Not before.
        at: Timestamp,
    },
    /// A message was given up. Moves it to `DeadLettered`.
    MessageDeadLettered {
        /// The message.
        message: MessageId,
        /// Why, for a person.
        reason: String,
    },
    /// Nothing came from the agent for too long, or it will be silent for too long. The turn is ended.
    TurnStalled {
        /// The message.
        message: MessageId,
        /// Which run of the turn, from 1.
        run: u32,
        /// Which bound was passed, for a person.
        reason: String,
    },
    /// What becomes of an interrupted turn, by policy or by a person's word.
    RerunDecided {
        /// The message.
        message: MessageId,
        /// Which run was interrupted, from 1.
        run: u32,
        /// What becomes of it.
        rerun: Rerun,
        /// By which rule, for a person.
        reason: String,
    },
    /// Nobody can find out whether a delivery arrived: what becomes of it, by policy or by a person's word. Moves the
    /// message from `Unknown` or `Waiting` to `Waiting`, `Refused` or `Accepted`.
    UnknownDecided {
        /// The message.
        message: MessageId,
        /// The attempt, from 1.
        attempt: u32,
        /// What becomes of it.
        verdict: Verdict,
        /// By which rule, for a person.
        reason: String,
    },
    /// A permission or a question waited for an answer for too long. It is refused in nobody's name.
    QuestionExpired {
        /// The message whose turn asked.
        message: MessageId,
        /// The agent's name for what it asked.
        question: String,
        /// Which bound was passed, for a person.
        reason: String,
    },

    // ---- connection, asked
    /// A connection was named. Begins its stream.
    ConnectionOpened {
        /// The agent's name.
        agent: String,
        /// Where it leads.
        target: Target,
    },

    // ---- connection, observed
    /// The server's process was started.
    ServerSpawned {
        /// Its process id.
        pid: u32,
        /// When the system says that it began, in clock ticks since boot; tells it from a later process of the same id. 0 where unknown.
        started: u64,
    },
    /// The server answers.
    ServerReady {
        /// Where.
        url: String,
        /// Its version, by its own word.
        version: String,
    },
    /// The server's process is gone.
    ServerExited {
        /// How, for a person: `exit status: 1`, `not running any more`.
        how: String,
    },
    /// A try to connect failed. The connection is `Disconnected` after it.
    ConnectFailed {
        /// Which try since the last that held, from 1.
        attempt: u32,
        /// What went wrong, for a person.
        reason: String,
    },
    /// The stream of events is open.
    StreamOpened,
    /// The stream of events ended or was given up.
    StreamLost {
        /// Why, for a person.
        reason: String,
    },
    /// The server did not answer a probe of its health; the first after one that passed.
    ProbeFailed {
        /// What went wrong, for a person.
        reason: String,
    },
    /// The server answers probes again.
    ProbeRecovered,
    /// Something that the agent sent never arrived.
    GapFound {
        /// The agent's name of the session.
        agent_session: String,
        /// The first of the agent's numbers that is missing; 0 where the agent does not count.
        from: u64,
        /// The number that came instead; 0 where the agent does not count.
        to: u64,
    },
    /// The gap was read from the agent's own history.
    GapFilled {
        /// The agent's name of the session.
        agent_session: String,
    },
    /// What the server can do, as it told when it was asked; recorded where it is not what was known.
    CapabilitiesFound {
        /// The words for it, in order: `history`, `questions`, `steer`.
        capabilities: Vec<String>,
    },

    // ---- connection, decided
    /// The connection moved.
    ConnectionChanged {
        /// From.
        from: ConnectionState,
        /// To.
        to: ConnectionState,
    },
    /// A server is about to be started. Recorded first, so that one whose start was not seen can be found.
    ServerStartDecided {
        /// The mark that the process carries in its environment, as `RECOUNT_SERVER`, and the name of its password's file.
        mark: String,
        /// The port that it is told to listen on.
        port: u16,
    },
    /// The server that the engine started is about to be stopped.
    ServerStopDecided {
        /// Why, for a person.
        reason: String,
    },
    /// The next try to connect comes at a time.
    ReconnectScheduled {
        /// Which try it will be.
        attempt: u32,
        /// Not before.
        at: Timestamp,
    },
    /// Too many tries failed: none is made until a time. Moves the breaker to `Open`.
    CircuitOpened {
        /// How many failed in a row; 0 where the last one had held: then the connection comes and goes.
        failures: u32,
        /// Closed for calls until then.
        until: Timestamp,
    },
    /// One probe is let through. Moves the breaker from `Open` to `HalfOpen`.
    CircuitHalfOpened,
    /// The connection held. Moves the breaker to `Closed`.
    CircuitClosed,

    // ---- engine, observed
    /// An engine opened this log.
    EngineStarted {
        /// Its version.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// It began to look for what an earlier one left open.
    RecoveryStarted {
        /// The sessions with something open.
        sessions: u64,
    },
    /// Nothing is open any more that can be carried to its end.
    RecoveryFinished {
        /// The sessions that had something open.
        sessions: u64,
        /// Deliveries whose outcome was unknown and was found out.
        resolved: u64,
        /// Turns that completed.
        completed: u64,
        /// Messages given up.
        dead_lettered: u64,
        /// Turns that wait for a person.
        waiting: u64,
    },
    /// The engine ended by itself.
    EngineStopped,

    // ---- any stream, asked
    /// The front of this stream was cut off. Moves nothing in any fold: what the events before told is
    /// in snapshots, or forgotten on purpose.
    StreamCut {
        /// The first number that remains. All before it are gone.
        before: Seq,
        /// The hash of the last record that is gone: the first that remains follows it.
        hash: Hash,
    },

    /// How sessions and connections behave from here on. Decisions after it follow from it.
    PolicyAdopted {
        /// The whole policy, as a JSON object with the names of the policy file.
        policy: Json,
    },

    // ---- any stream, observed
    /// The engine's own part that owns this stream failed by a mistake of its own, and begins anew from the log.
    /// Nothing that was recorded is lost; calls that were under way have an unknown outcome.
    TaskPanicked {
        /// What it said, for whoever mends it.
        reason: String,
    },

    /// An event of a type or version that this build does not know: from a newer one. Moves nothing.
    Unknown {
        /// The number of its type.
        type_number: u16,
        /// The version of its type.
        type_version: u8,
        /// Its payload as it stands in the log.
        payload: Vec<u8>,
    },
}

impl Event {
    /// The message that the event is about.
    #[must_use]
    pub const fn message(&self) -> Option<MessageId> {
        match self {
            Self::MessageQueued { message, .. }
            | Self::MessageCancelled { message }
            | Self::PermissionAnswered { message, .. }
            | Self::TurnAbortAsked { message }
            | Self::DeliveryAccepted { message, .. }
            | Self::DeliveryRejected { message, .. }
            | Self::DeliveryUnknown { message, .. }
            | Self::DeliveryResolved { message, .. }
            | Self::TurnStarted { message, .. }
            | Self::OutputAppended { message, .. }
            | Self::OutputReplaced { message, .. }
            | Self::OutputOrdered { message, .. }
            | Self::ToolCallStarted { message, .. }
            | Self::ToolCallEnded { message, .. }
            | Self::PermissionAsked { message, .. }
            | Self::PermissionSettled { message, .. }
            | Self::AgentRetried { message, .. }
            | Self::AgentErrorReported { message, .. }
            | Self::TurnCompleted { message, .. }
            | Self::TurnFailed { message, .. }
            | Self::TurnAborted { message, .. }
            | Self::TurnInterrupted { message, .. }
            | Self::DeliveryStarted { message, .. }
            | Self::TurnRequested { message, .. }
            | Self::ContextAdded { message }
            | Self::RetryScheduled { message, .. }
            | Self::MessageDeadLettered { message, .. }
            | Self::TurnStalled { message, .. }
            | Self::RerunDecided { message, .. }
            | Self::MessageRequeued { message, .. }
            | Self::MessageSteered { message }
            | Self::QuestionAnswered { message, .. }
            | Self::QuestionAsked { message, .. }
            | Self::QuestionSettled { message, .. }
            | Self::UnknownDecided { message, .. }
            | Self::QuestionExpired { message, .. } => Some(*message),
            Self::SessionOpened { .. }
            | Self::SessionForked { .. }
            | Self::SessionClosed
            | Self::AgentSessionBound { .. }
            | Self::AgentSessionLost { .. }
            | Self::AgentSessionForked { .. }
            | Self::AgentForkRefused { .. }
            | Self::FrameUnrecognised { .. }
            | Self::AgentSessionRequested { .. }
            | Self::ConnectionOpened { .. }
            | Self::ServerSpawned { .. }
            | Self::ServerReady { .. }
            | Self::ServerExited { .. }
            | Self::ConnectFailed { .. }
            | Self::StreamOpened
            | Self::StreamLost { .. }
            | Self::ProbeFailed { .. }
            | Self::ProbeRecovered
            | Self::GapFound { .. }
            | Self::GapFilled { .. }
            | Self::ConnectionChanged { .. }
            | Self::ServerStartDecided { .. }
            | Self::ServerStopDecided { .. }
            | Self::ReconnectScheduled { .. }
            | Self::CircuitOpened { .. }
            | Self::CircuitHalfOpened
            | Self::CircuitClosed
            | Self::EngineStarted { .. }
            | Self::RecoveryStarted { .. }
            | Self::RecoveryFinished { .. }
            | Self::EngineStopped
            | Self::StreamCut { .. }
            | Self::CapabilitiesFound { .. }
            | Self::PolicyAdopted { .. }
            | Self::TaskPanicked { .. }
            | Self::Unknown { .. } => None,
        }
    }
}
