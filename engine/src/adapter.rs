//! The one seam to the outside: what an agent's protocol means.
//!
//! An adapter translates and nothing else. It holds no port, no retry, no state of a connection: the
//! endpoint comes in with every call, and what comes out says what happened, never what to do next.

pub mod capability;
pub mod http;
pub mod opencode;
pub mod scripted;
pub mod sse;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
pub use recount_projections::session::Origin;
use recount_store::{Json, MessageId, OutputKind, PermissionAnswer, Prompt, Timestamp};

use crate::policy::CallPolicy;

/// A password or token: never shown, neither in traces nor in the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Guards a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a server listens, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The server's address, without a path: `http://127.0.0.1:4096`.
    pub url: String,
    /// The password, where it wants one.
    pub password: Option<Secret>,
    /// How long calls to it may take, and how much they may bring.
    pub policy: CallPolicy,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its version.
    pub version: String,
}

/// What a server is to be started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The program; `None` is the agent's own name, looked up on the `PATH`.
    pub program: Option<String>,
    /// The folder to start in: absolute.
    pub directory: String,
    /// The port to listen on, on loopback.
    pub port: u16,
    /// What calls must bring.
    pub password: Secret,
}

/// How a server is started.
pub enum Launch {
    /// As a process of its own.
    Process {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// What is added to its environment; may hold secrets, so it is never shown.
        env: Vec<(String, String)>,
        /// The beginning of the line on standard output that says it listens; the address follows it.
        ready_prefix: &'static str,
    },
    /// Inside this process: the server listens once the future gives it.
    InProcess(futures_util::future::BoxFuture<'static, std::io::Result<Box<dyn InProcessServer>>>),
}

/// A server inside this process.
#[async_trait]
pub trait InProcessServer: Send + Sync {
    /// Where it listens.
    fn url(&self) -> String;
    /// Resolves when it has died by itself.
    async fn exited(&self);
    /// Ends it; its sockets are closed when this resolves.
    async fn stop(&self);
}

/// What a session at the agent is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// The folder that the agent works in: absolute.
    pub directory: String,
    /// What the agent calls it. It ends with the marker by which it can be found again.
    pub title: String,
}

/// A session at the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSession {
    /// The agent's name for it.
    pub id: String,
    /// The folder that it works in: absolute.
    pub directory: String,
}

/// One message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To where.
    pub session: AgentSession,
    /// The identity that the agent knows it by.
    pub agent_message: String,
    /// What it reads.
    pub text: String,
    /// The model, as `PROVIDER/MODEL`; `None` leaves it to the agent.
    pub model: Option<String>,
}

/// Why a call did not give what was asked. Each kind says what is certain about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection could be made: the request never left.
    #[error("{reason}")]
    NeverSent {
        /// What went wrong, for a person.
        reason: String,
    },
    /// The agent answered that it will not do it now.
    #[error("{reason}")]
    RefusedForNow {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
        /// What went wrong, for a person.
        reason: String,
    },
    /// The agent answered that it will not do it.
    #[error("{reason}")]
    RefusedForGood {
        /// What went wrong, for a person.
        reason: String,
    },
    /// The agent has no such session: it lost it, with everything that was said in it.
    #[error("{reason}")]
    NoSuchSession {
        /// What went wrong, for a person.
        reason: String,
    },
    /// The request may have arrived: the answer was lost, late, or says nothing about it.
    #[error("{reason}")]
    Unknown {
        /// What went wrong, for a person.
        reason: String,
    },
    /// Whatever answered is not such a server, or one that knows no such call: HTML with 200, say.
    #[error("{reason}")]
    Unsupported {
        /// What went wrong, for a person.
        reason: String,
    },
}

/// One item of the agent's stream, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its data.
    pub data: String,
}

/// What an open stream gives. It ends with `None` where the server ended it cleanly.
pub type FrameStream = BoxStream<'static, Result<StreamItem, StreamError>>;

/// What comes off a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// Bytes came; the link is alive, whatever they are.
    Alive,
    /// A whole frame, which is as good a sign of life.
    Frame(Frame),
}

/// Why a stream broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The bytes stopped in the middle.
    #[error("the stream broke: {reason}")]
    Broken {
        /// What went wrong, for a person.
        reason: String,
    },
    /// A frame is longer than is taken.
    #[error("a frame of more than {limit} bytes")]
    FrameTooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The bytes are no UTF-8.
    #[error("a frame is no UTF-8")]
    NotText,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// The agent's session that it is about.
    pub session: Option<String>,
    /// What it says.
    pub observation: Observation,
}

/// What an agent can say, in our words. An *answer* is one message of the agent; a turn may have several.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The stream is open.
    Connected,
    /// A sign of life that the agent sends at intervals, whether or not it has anything to say.
    Heartbeat,
    /// Known, and without meaning to us: plugins, file watchers.
    Ignored,
    /// The agent counts what it keeps about a session; this is where it stands.
    Counted {
        /// The agent's number, without gaps in one session.
        number: u64,
    },
    /// Something about the session never arrived: there is a hole in the agent's count, or the session was too
    /// slow to take everything in. No adapter says so.
    Missed,
    /// The session belongs to another one of the agent's: a sub-agent.
    ChildOf {
        /// The parent.
        parent: String,
    },
    /// An answer exists; repeated as it grows and when it ends.
    AnswerUpdated(Answer),
    /// A part of an answer was opened, still empty; deltas follow.
    PartOpened {
        /// The answer.
        answer: String,
        /// The part.
        part: String,
        /// What it is.
        kind: OutputKind,
    },
    /// A piece of a part.
    Delta {
        /// The answer.
        answer: String,
        /// The part.
        part: String,
        /// The text.
        text: String,
    },
    /// The whole text of a part that has ended.
    PartEnded {
        /// The answer.
        answer: String,
        /// The part.
        part: OutputPart,
    },
    /// Where a tool call stands.
    Tool {
        /// The answer.
        answer: String,
        /// The call.
        call: ToolCall,
    },
    /// The agent asks for permission.
    PermissionAsked(Permission),
    /// A permission was answered, by whomever.
    PermissionReplied {
        /// The agent's name for it.
        permission: String,
        /// The answer, where the agent says it in a word that is known.
        answer: Option<PermissionAnswer>,
    },
    /// The agent asks a question in words.
    QuestionAsked(Question),
    /// A question in words was answered or refused, by whomever.
    QuestionReplied {
        /// The agent's name for it.
        question: String,
        /// The texts that answer each prompt; `None` is a refusal.
        answers: Option<Vec<Vec<String>>>,
    },
    /// The agent works on this session.
    Busy,
    /// The agent does not work on this session. Not the end of a turn: that takes a look.
    Idle,
    /// The agent has trouble with its model and waits before it tries again.
    Retrying {
        /// Its count.
        attempt: u32,
        /// What went wrong, in its words.
        reason: String,
        /// When it will try again.
        next: Option<Timestamp>,
    },
    /// The agent reports an error; of which message, it does not say.
    Error {
        /// The error's name.
        name: String,
        /// What went wrong, in its words.
        reason: String,
    },
    /// This build does not know it.
    Unrecognised {
        /// The agent's name for the kind of frame.
        kind: String,
        /// The frame.
        frame: Json,
    },
}

/// One message of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The agent's name for it.
    pub id: String,
    /// The message that it answers, by the identity that the agent knows it by.
    pub parent: String,
    /// Whether it has ended.
    pub completed: bool,
    /// The agent's word for how it ended: `stop`, `tool-calls`.
    pub finish: Option<String>,
    /// The error that it ended with.
    pub error: Option<AgentError>,
}

/// An error in the agent's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentError {
    /// Its name.
    pub name: String,
    /// What went wrong.
    pub reason: String,
    /// Whether it is the agent's word for "somebody aborted it".
    pub aborted: bool,
}

/// A part of an answer, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPart {
    /// The agent's name for it.
    pub id: String,
    /// What it is.
    pub kind: OutputKind,
    /// Its whole text.
    pub text: String,
    /// Whether it has ended. A part that has not may hold less text than was streamed.
    pub ended: bool,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The agent's name for it.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// Where it stands.
    pub state: ToolState,
}

/// Where a tool call stands.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolState {
    /// The model is still writing what it wants.
    Pending,
    /// It runs, or waits for permission to.
    Running {
        /// What it was given.
        input: Json,
    },
    /// It did its work.
    Completed {
        /// What it was given.
        input: Json,
        /// What it gave back.
        output: String,
    },
    /// It failed, or was refused.
    Failed {
        /// What it was given.
        input: Json,
        /// Its error.
        error: String,
    },
}

/// What the agent wants to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The agent's name for the question.
    pub id: String,
    /// What for: `bash`, `edit`.
    pub action: String,
    /// What exactly.
    pub detail: String,
    /// The tool call that waits for it.
    pub call: Option<String>,
}

/// What the agent asks in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The agent's name for it.
    pub id: String,
    /// What it asks; one answer is to be given to each.
    pub prompts: Vec<Prompt>,
    /// The tool call that waits for it.
    pub call: Option<String>,
}

/// What the agent says when it is asked about one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whether it holds the message.
    pub stored: bool,
    /// Whether the message is the newest that it was sent: only such a one may be sent again.
    pub newest: bool,
    /// Whether it has begun to answer a newer message: nothing more comes for this one then.
    pub went_on: bool,
    /// Whether it works on the session now.
    pub activity: Activity,
    /// Its answers to the message, oldest first, each with its items in order. Answers to messages
    /// that the agent wrote itself while it worked on this one are among them.
    pub answers: Vec<ReportedAnswer>,
    /// The permissions that wait for an answer in this session and its children.
    pub permissions: Vec<Permission>,
    /// The questions in words that do.
    pub questions: Vec<Question>,
}

/// Whether the agent works on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// It does not.
    Idle,
    /// It does.
    Busy,
    /// It waits before it asks its model again.
    Retrying {
        /// Its count.
        attempt: u32,
        /// What went wrong, in its words.
        reason: String,
        /// When it will try again.
        next: Option<Timestamp>,
    },
}

/// One message of the agent, with what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedAnswer {
    /// The message.
    pub answer: Answer,
    /// Its items, in order.
    pub items: Vec<AnswerItem>,
    /// Whether a tool of it is known to have failed since a person refused what it wanted: that ends an agent's work.
    pub refused: bool,
}

/// What an answer is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerItem {
    /// Text or reasoning.
    Output(OutputPart),
    /// A tool call.
    Tool(ToolCall),
}

/// What an answer met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// The agent took it.
    Taken,
    /// The question is gone: answered before, or its process died.
    Gone,
}

/// An agent's protocol.
///
/// Every call is made against the endpoint that it is given, with its own limit in time, and is safe to
/// make again: what could double anything is guarded by the identity that the caller chose.
#[async_trait]
pub trait AgentAdapter: Send + Sync + 'static {
    /// The agent's name, as sessions record it.
    fn name(&self) -> &'static str;

    /// How a server of this agent is started.
    fn launch(&self, spec: &LaunchSpec) -> Launch;

    /// Where a process keeps what it knows, by its command line and its environment; `None` where it is no server of
    /// this agent, or where two of them do not see each other's sessions.
    fn data_home(&self, _: &[String], _: &BTreeMap<String, String>) -> Option<String> {
        None
    }

    /// Why a server of this version must not be used; `None` where it may.
    fn refuse_version(&self, version: &str) -> Option<String>;

    /// The identity by which the agent shall know a message that is first sent at `now`.
    ///
    /// The same arguments give the same identity; later ones sort after earlier ones.
    fn identity(&self, message: MessageId, now: Timestamp) -> String;

    /// Whether the agent reads between two steps of a run what it was sent meanwhile, and answers the newest message from
    /// there on. Where it does not, a message that is to steer is refused.
    fn can_steer(&self) -> bool {
        false
    }

    /// Asks the server how it is, within half a second, on a connection of its own.
    ///
    /// # Errors
    ///
    /// [`CallError::Unsupported`] where something else answers, the other kinds as they are named.
    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError>;

    /// Asks the server what it can do, in the words of [`capability`], in order.
    ///
    /// The answer may cost the server much: it is asked once for each version of it that a connection meets,
    /// beside the open stream.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says; [`CallError::Unsupported`] where it has no answer to that at all.
    async fn capabilities(&self, _: &Endpoint) -> Result<Vec<String>, CallError> {
        Ok(Vec::new())
    }

    /// Opens the stream of everything that the server's agent does.
    ///
    /// It resolves when what happens from now on will arrive.
    ///
    /// # Errors
    ///
    /// [`CallError::Unsupported`] where what answers is no stream of events.
    async fn open_stream(&self, endpoint: &Endpoint) -> Result<FrameStream, CallError>;

    /// What a frame says. Never fails: what it does not know is [`Observation::Unrecognised`].
    fn translate(&self, frame: &Frame) -> Translated;

    /// Makes a session at the agent, and gives the agent's name for it.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says. After an `Unknown` one, [`AgentAdapter::find_session`] finds it if it was made.
    async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError>;

    /// Finds the session that was made with this title.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says.
    async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError>;

    /// Copies the agent's session `origin.agent_session` up to and including its answers to the message that it knows as
    /// `origin.through`, and gives the agent's name for the copy. The copy bears `spec.title`, so
    /// [`AgentAdapter::find_session`] finds it; `spec.directory` is the folder of both. The session that is copied
    /// stays as it is. What the agent still works on is copied as far as it has come.
    ///
    /// # Errors
    ///
    /// - [`CallError::Unsupported`], [`CallError::RefusedForGood`], [`CallError::NoSuchSession`]: it will not, now or
    ///   later. The agent cannot copy sessions, does not know this one, or it has no such message, or one whose
    ///   answers cannot be told apart from what came after it.
    /// - [`CallError::NeverSent`], [`CallError::RefusedForNow`]: no copy bears the title.
    /// - [`CallError::Unknown`]: one may. [`AgentAdapter::find_session`] finds it if so; if not, fork anew.
    ///
    /// A copy bears the title only once it is known to hold what it should. One that failed on the way there stays at
    /// the agent, and nobody works on it.
    async fn fork_session(
        &self,
        _: &Endpoint,
        _: &SessionSpec,
        _: &Origin,
    ) -> Result<String, CallError> {
        Err(CallError::Unsupported {
            reason: "this agent cannot copy a session".to_owned(),
        })
    }

    /// Has the agent keep a message, without working on it: the first phase of a delivery.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says; only a look tells whether an `Unknown` one arrived.
    async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError>;

    /// Asks the agent to work on a message that it keeps: the second phase. Its success means "heard".
    ///
    /// # Errors
    ///
    /// As [`CallError`] says; only a look tells whether an `Unknown` one arrived.
    async fn start_turn(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<(), CallError>;

    /// Looks up everything that the agent knows of a message.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says.
    async fn look_up(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        agent_message: &str,
    ) -> Result<Report, CallError>;

    /// Ends what the agent does in a session.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says.
    async fn abort(&self, endpoint: &Endpoint, session: &AgentSession) -> Result<(), CallError>;

    /// Answers when the agent asks for permission.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says.
    async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError>;

    /// Answers a question in words, with the texts for each prompt; `None` refuses it.
    ///
    /// # Errors
    ///
    /// As [`CallError`] says.
    async fn answer_question(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        question: &str,
        answers: Option<&[Vec<String>]>,
    ) -> Result<AnswerOutcome, CallError>;
}
