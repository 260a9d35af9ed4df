//! OpenCode's JSON, as far as it means something here. Unknown fields are passed over, and what may be
//! absent in any version that is taken is optional.

use std::borrow::Cow;
use std::collections::HashMap;

use recount_store::{Choice, Json, OutputKind, Prompt, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::adapter::{
    Activity, AgentError, Answer, AnswerItem, OutputPart, Permission, Question, ToolCall, ToolState,
};

/// The longest word of an agent that is kept in a reason, in bytes; errors quote whole responses.
const REASON_BYTES_MAX: usize = 2 << 10;

/// A frame: bare as on `/event`, or wrapped as on `/global/event`, where `payload` holds the rest.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    payload: Option<Payload<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

/// What a frame says, its kind apart.
#[derive(Deserialize)]
pub(super) struct Payload<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) properties: Option<&'a RawValue>,
    #[serde(borrow, rename = "syncEvent")]
    pub(super) sync: Option<Sync<'a>>,
}

impl<'a> Envelope<'a> {
    pub(super) fn payload(self) -> Option<Payload<'a>> {
        self.payload.or(self.kind.map(|kind| Payload {
            kind,
            properties: self.properties,
            sync: None,
        }))
    }
}

/// The frame that repeats a durable event with its number.
#[derive(Deserialize)]
pub(super) struct Sync<'a> {
    pub(super) seq: u64,
    #[serde(borrow, rename = "aggregateID")]
    pub(super) aggregate: Cow<'a, str>,
}

/// A frame of a piece of output, wrapped as on `/global/event`. At full speed nearly all frames are such: they are
/// read in one pass, where [`Envelope`] reads the rest twice.
#[derive(Deserialize)]
pub(super) struct DeltaFrame<'a> {
    #[serde(borrow)]
    pub(super) payload: DeltaPayload<'a>,
}

#[derive(Deserialize)]
pub(super) struct DeltaPayload<'a> {
    #[serde(rename = "type")]
    _kind: DeltaKind,
    #[serde(borrow)]
    pub(super) properties: Delta<'a>,
}

/// Anything else fails at once.
#[derive(Deserialize)]
enum DeltaKind {
    #[serde(rename = "message.part.delta")]
    Delta,
}

/// `message.part.delta`: the hot one.
#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, rename = "sessionID")]
    pub(super) session: Cow<'a, str>,
    #[serde(borrow, rename = "messageID")]
    pub(super) message: Cow<'a, str>,
    #[serde(borrow, rename = "partID")]
    pub(super) part: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) field: Cow<'a, str>,
    #[serde(rename = "delta")]
    pub(super) text: String,
}

#[derive(Deserialize)]
pub(super) struct InSession {
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
}

/// `session.created` and the like.
#[derive(Deserialize)]
pub(super) struct SessionChanged {
    pub(super) info: SessionInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionInfo {
    pub(super) id: String,
    #[serde(default)]
    pub(super) title: String,
    #[serde(rename = "parentID")]
    pub(super) parent: Option<String>,
}

/// `session.status`.
#[derive(Deserialize)]
pub(super) struct StatusChanged {
    #[serde(rename = "sessionID")]
    pub(super) session: String,
    pub(super) status: Status,
}

/// Whether a session is worked on. In `GET /session/status` an idle one is absent.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub(super) enum Status {
    Idle,
    Busy,
    Retry {
        #[serde(default)]
        attempt: u32,
        #[serde(default)]
        message: String,
        /// Milliseconds since 1970.
        next: Option<f64>,
    },
}

/// `GET /session/status`, by session.
pub(super) type Statuses = HashMap<String, Status>;

impl From<Status> for Activity {
    fn from(status: Status) -> Self {
        match status {
            Status::Idle => Self::Idle,
            Status::Busy => Self::Busy,
            Status::Retry {
                attempt,
                message,
                next,
            } => Self::Retrying {
                attempt,
                reason: bounded(message),
                next: next.map(moment),
            },
        }
    }
}

/// `message.updated`.
#[derive(Deserialize)]
pub(super) struct MessageChanged {
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
    pub(super) info: MessageInfo,
}

/// A message, the user's or the agent's.
#[derive(Deserialize)]
pub(super) struct MessageInfo {
    pub(super) id: String,
    pub(super) role: Role,
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
    /// The message that it answers: only an assistant's has one.
    #[serde(rename = "parentID", default)]
    pub(super) parent: String,
    #[serde(default)]
    pub(super) time: Span,
    pub(super) finish: Option<String>,
    pub(super) error: Option<ErrorInfo>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
}

/// Times in milliseconds; only their presence is used.
#[derive(Deserialize, Default)]
pub(super) struct Span {
    pub(super) completed: Option<f64>,
    pub(super) end: Option<f64>,
}

impl From<MessageInfo> for Answer {
    fn from(info: MessageInfo) -> Self {
        Self {
            id: info.id,
            parent: info.parent,
            completed: info.time.completed.is_some(),
            finish: info.finish,
            error: info.error.map(AgentError::from),
        }
    }
}

/// `{"name":"APIError","data":{"message":"…"}}`
#[derive(Deserialize)]
pub(super) struct ErrorInfo {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) data: ErrorData,
    #[serde(default)]
    pub(super) message: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct ErrorData {
    pub(super) message: Option<String>,
}

impl From<ErrorInfo> for AgentError {
    fn from(error: ErrorInfo) -> Self {
        Self {
            aborted: error.name == "MessageAbortedError",
            reason: bounded(error.data.message.or(error.message).unwrap_or_default()),
            name: error.name,
        }
    }
}

/// `session.error`; it never names a message, and not always a session.
#[derive(Deserialize)]
pub(super) struct SessionFailed {
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
    pub(super) error: Option<ErrorInfo>,
}

/// `message.part.updated`.
#[derive(Deserialize)]
pub(super) struct PartChanged<'a> {
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
    #[serde(borrow)]
    pub(super) part: Part<'a>,
}

/// A part of a message: the fields of all kinds in one, since each kind has few.
#[derive(Deserialize)]
pub(super) struct Part<'a> {
    #[serde(default)]
    pub(super) id: String,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(rename = "sessionID")]
    pub(super) session: Option<String>,
    #[serde(rename = "messageID", default)]
    pub(super) message: String,
    // Text and reasoning.
    #[serde(default)]
    pub(super) text: String,
    pub(super) time: Option<Span>,
    #[serde(default)]
    pub(super) synthetic: bool,
    // Compaction.
    #[serde(default)]
    pub(super) auto: bool,
    // Tools.
    #[serde(default)]
    pub(super) tool: String,
    #[serde(rename = "callID", default)]
    pub(super) call: String,
    #[serde(borrow)]
    pub(super) state: Option<PartState<'a>>,
}

/// Where a tool call stands.
#[derive(Deserialize)]
pub(super) struct PartState<'a> {
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) output: String,
    #[serde(default)]
    pub(super) error: String,
}

/// What a part is to us.
pub(super) enum Meaning {
    /// Of an answer: text, reasoning or a tool call.
    Item(AnswerItem),
    /// Known, and nothing to us.
    Nothing,
    /// Not known.
    Unknown,
}

/// What a tool's error says where a person refused what the tool wanted, which ends the agent's work. A refusal with
/// a word of advice says more, and does not end it.
const REFUSALS: [&str; 2] = [
    "The user rejected permission to use this specific tool call.",
    "The user dismissed this question",
];

impl Part<'_> {
    /// Whether it is a tool call that a person refused.
    pub(super) fn is_refused(&self) -> bool {
        let state = self.state.as_ref().filter(|state| state.status == "error");
        state.is_some_and(|state| REFUSALS.contains(&state.error.as_str()))
    }

    pub(super) fn meaning(self) -> Meaning {
        let kind = match &*self.kind {
            "text" => OutputKind::Text,
            "reasoning" => OutputKind::Reasoning,
            "tool" => {
                return match self.tool_state() {
                    Some(state) => Meaning::Item(AnswerItem::Tool(ToolCall {
                        id: self.call,
                        tool: self.tool,
                        state,
                    })),
                    None => Meaning::Unknown,
                };
            }
            "step-start" | "step-finish" | "snapshot" | "patch" | "file" | "agent" | "subtask"
            | "retry" | "compaction" => return Meaning::Nothing,
            _ => return Meaning::Unknown,
        };
        // A part does not say whose message it is in. The text that a user sent has no time, and what
        // the agent writes in the user's name ("Continue if you have next steps…") is marked synthetic.
        match self.time {
            Some(time) if !self.synthetic => Meaning::Item(AnswerItem::Output(OutputPart {
                id: self.id,
                kind,
                text: self.text,
                ended: time.end.is_some(),
            })),
            _ => Meaning::Nothing,
        }
    }

    fn tool_state(&self) -> Option<ToolState> {
        let state = self.state.as_ref()?;
        let input = Json(match state.input {
            Some(input) => input.get().as_bytes().to_vec(),
            None => b"{}".to_vec(),
        });
        Some(match &*state.status {
            "pending" => ToolState::Pending,
            "running" => ToolState::Running { input },
            "completed" => ToolState::Completed {
                input,
                output: state.output.clone(),
            },
            "error" => ToolState::Failed {
                input,
                error: state.error.clone(),
            },
            _ => return None,
        })
    }
}

/// A message with its parts, as `GET /session/ID/message` lists it.
#[derive(Deserialize)]
pub(super) struct Listed<'a> {
    pub(super) info: MessageInfo,
    #[serde(borrow, default)]
    pub(super) parts: Vec<Part<'a>>,
}

/// A permission, as `permission.asked` brings it and `GET /permission` lists it.
#[derive(Deserialize)]
pub(super) struct PermissionAsked {
    pub(super) id: String,
    #[serde(rename = "sessionID")]
    pub(super) session: String,
    #[serde(default)]
    pub(super) permission: String,
    #[serde(default)]
    pub(super) patterns: Vec<String>,
    #[serde(default)]
    pub(super) metadata: AskedMetadata,
    pub(super) tool: Option<AskedBy>,
}

#[derive(Deserialize, Default)]
pub(super) struct AskedMetadata {
    /// The whole command, where the patterns hold its pieces.
    #[serde(default)]
    command: serde_json::Value,
}

#[derive(Deserialize)]
pub(super) struct AskedBy {
    #[serde(rename = "callID")]
    call: String,
}

impl From<PermissionAsked> for Permission {
    fn from(asked: PermissionAsked) -> Self {
        Self {
            id: asked.id,
            action: asked.permission,
            detail: match asked.metadata.command {
                serde_json::Value::String(command) => command,
                _ => asked.patterns.join(", "),
            },
            call: asked.tool.map(|tool| tool.call),
        }
    }
}

/// `permission.replied`; older servers say `permissionID`.
#[derive(Deserialize)]
pub(super) struct PermissionReplied {
    #[serde(rename = "sessionID")]
    pub(super) session: String,
    #[serde(rename = "requestID", alias = "permissionID")]
    pub(super) request: String,
    #[serde(alias = "response")]
    pub(super) reply: Option<String>,
}

/// A question in words, as `question.asked` brings it and `GET /question` lists it.
#[derive(Deserialize)]
pub(super) struct QuestionAsked {
    id: String,
    #[serde(rename = "sessionID")]
    pub(super) session: String,
    questions: Vec<QuestionPrompt>,
    tool: Option<AskedBy>,
}

#[derive(Deserialize)]
struct QuestionPrompt {
    #[serde(default)]
    header: String,
    question: String,
    #[serde(default)]
    options: Vec<QuestionOption>,
    #[serde(default)]
    multiple: bool,
    /// Absent where another answer may be written.
    custom: Option<bool>,
}

#[derive(Deserialize)]
struct QuestionOption {
    label: String,
    #[serde(default)]
    description: String,
}

impl From<QuestionAsked> for Question {
    fn from(asked: QuestionAsked) -> Self {
        let choice = |option: QuestionOption| Choice {
            label: option.label,
            about: option.description,
        };
        let prompt = |prompt: QuestionPrompt| Prompt {
            header: prompt.header,
            text: prompt.question,
            options: prompt.options.into_iter().map(choice).collect(),
            multiple: prompt.multiple,
            custom: prompt.custom.unwrap_or(true),
        };
        Self {
            id: asked.id,
            prompts: asked.questions.into_iter().map(prompt).collect(),
            call: asked.tool.map(|tool| tool.call),
        }
    }
}

/// `question.replied`, with the answers, and `question.rejected`, without.
#[derive(Deserialize)]
pub(super) struct QuestionReplied {
    #[serde(rename = "sessionID")]
    pub(super) session: String,
    #[serde(rename = "requestID")]
    pub(super) request: String,
    pub(super) answers: Option<Vec<Vec<String>>>,
}

/// What is asked in a session: a permission, or a question in words.
pub(super) trait AskedIn {
    /// The session.
    fn session(&self) -> &str;
}

impl AskedIn for PermissionAsked {
    fn session(&self) -> &str {
        &self.session
    }
}

impl AskedIn for QuestionAsked {
    fn session(&self) -> &str {
        &self.session
    }
}

/// `GET /global/health`.
#[derive(Deserialize)]
pub(super) struct HealthInfo {
    pub(super) healthy: bool,
    pub(super) version: String,
}

/// A text of bounded length; what is cut off is marked.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and a time before 1970 or after all times is no worse than that"
)]
fn moment(millis: f64) -> Timestamp {
    Timestamp::from_millis(millis as u64)
}
