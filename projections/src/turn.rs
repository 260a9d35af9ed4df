//! One turn: the agent's work on one message, over all its runs.

use std::collections::HashMap;
use std::fmt;

use recount_store::{
    Event, Json, MessageId, OutputKind, PermissionAnswer, Placement, Position, Prompt, Provenance,
    Recorded, Rerun, Timestamp, ToolOutcome,
};
use serde::{Deserialize, Serialize};

/// Where a turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// The agent was, or is being, asked to begin.
    Requested,
    /// The agent works.
    Running,
    /// The agent died in it; what becomes of it is about to be decided.
    Interrupted,
    /// A person has to say what becomes of it.
    Waiting,
    /// It ended with a whole answer.
    Completed,
    /// It ended without one.
    Failed,
    /// It was ended on request.
    Aborted,
}

/// A part of the agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The agent's name for it.
    pub id: String,
    /// Whether it is the answer, or what was thought on the way.
    pub reasoning: bool,
    /// Its text, from the beginning and without a hole.
    pub text: String,
    /// Text after a hole of unknown length, until the hole is closed.
    pub after_hole: String,
    /// Text that was streamed and that the agent then took back or wrote anew.
    pub withdrawn: Option<String>,
}

impl Part {
    /// Whether nothing of it is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.after_hole.is_empty()
    }
}

/// A tool call of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The agent's name for it.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// What it was given, as JSON.
    pub input: String,
    /// How it ended and what it gave; none while it runs.
    pub outcome: Option<(CallOutcome, String)>,
}

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// It did its work.
    Completed,
    /// It failed, or was refused.
    Failed,
    /// Nobody knows.
    Lost,
}

/// One thing in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Text or reasoning.
    Part(Part),
    /// A tool call.
    Call(Call),
}

impl Item {
    /// The agent's name for it.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Part(part) => &part.id,
            Self::Call(call) => &call.id,
        }
    }
}

/// A question of the agent's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The agent's name for it.
    pub id: String,
    /// What it asks.
    pub asks: Asks,
    /// When it became known.
    pub asked_at: Timestamp,
    /// The answer, once there is one: ours, until the agent says that it took another.
    pub answer: Option<Answered>,
    /// Which bound it passed, where nobody answered in time: then the answer is a refusal in nobody's name.
    pub expired: Option<String>,
    /// Whether it is settled at the agent.
    pub settled: bool,
}

/// What a question asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asks {
    /// Whether the agent may do something.
    Permission {
        /// What for.
        action: String,
        /// What exactly.
        detail: String,
    },
    /// Something in words.
    Words(Vec<Prompt>),
}

impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission { action, detail } => write!(f, "{action} {detail}"),
            Self::Words(prompts) => {
                let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
                f.write_str(&texts.join(" / "))
            }
        }
    }
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// Yes, this time.
    Once,
    /// Yes, and whatever is like it.
    Always,
    /// No; to a question in words, that it will not be answered.
    Reject,
    /// The chosen or written texts of each prompt.
    Words(Vec<Vec<String>>),
}

impl From<PermissionAnswer> for Answered {
    fn from(answer: PermissionAnswer) -> Self {
        match answer {
            PermissionAnswer::Once => Self::Once,
            PermissionAnswer::Always => Self::Always,
            PermissionAnswer::Reject => Self::Reject,
        }
    }
}

impl Answered {
    /// It as an answer to a permission; `None` for one in words.
    #[must_use]
    pub fn permission(&self) -> Option<PermissionAnswer> {
        match self {
            Self::Once => Some(PermissionAnswer::Once),
            Self::Always => Some(PermissionAnswer::Always),
            Self::Reject => Some(PermissionAnswer::Reject),
            Self::Words(_) => None,
        }
    }

    /// It as an answer in words: the texts of each prompt; `None` refuses.
    #[must_use]
    pub fn words(&self) -> Option<&[Vec<String>]> {
        match self {
            Self::Words(answers) => Some(answers),
            Self::Once | Self::Always | Self::Reject => None,
        }
    }

    /// What the JSON of an event says: the texts of each prompt, or `null` for a refusal. What cannot be read is
    /// kept as the one text that it is.
    fn in_words(json: &Json) -> Self {
        match json.read::<Option<Vec<Vec<String>>>>() {
            Some(Some(answers)) => Self::Words(answers),
            Some(None) => Self::Reject,
            None => Self::Words(vec![vec![String::from_utf8_lossy(&json.0).into_owned()]]),
        }
    }
}

/// One run of a turn. A turn has more than one only where the agent died in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number, from 1.
    pub number: u32,
    /// Whether the agent was seen to begin.
    pub started: bool,
    /// What it said and did, in the order in which it began.
    pub items: Vec<Item>,
}

impl Run {
    /// The part with this name.
    #[must_use]
    pub fn part(&self, id: &str) -> Option<&Part> {
        self.items.iter().rev().find_map(|item| match item {
            Item::Part(part) if part.id == id => Some(part),
            Item::Part(_) | Item::Call(_) => None,
        })
    }

    /// The tool call with this name.
    #[must_use]
    pub fn call(&self, id: &str) -> Option<&Call> {
        self.calls().find(|call| call.id == id)
    }

    /// The tool calls, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.items.iter().filter_map(|item| match item {
            Item::Call(call) => Some(call),
            Item::Part(_) => None,
        })
    }

    /// Whether something that the agent said in it was missed, and is still not known.
    #[must_use]
    pub fn has_hole(&self) -> bool {
        self.items.iter().any(|item| match item {
            Item::Part(part) => !part.after_hole.is_empty(),
            Item::Call(_) => false,
        })
    }

    /// What it answered: its text without reasoning, in order; what came after a hole is left out until the hole is
    /// closed ([`Run::has_hole`]).
    #[must_use]
    pub fn text(&self) -> String {
        self.items
            .iter()
            .filter_map(|item| match item {
                Item::Part(part) if !part.reasoning => Some(part.text.as_str()),
                Item::Part(_) | Item::Call(_) => None,
            })
            .collect()
    }

    /// Puts these in this order, at the places that they take now.
    fn order(&mut self, names: &[String]) {
        let names: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        let places: Vec<usize> = (0..self.items.len())
            .filter(|at| names.contains_key(self.items[*at].id()))
            .collect();
        let mut moved: Vec<Item> = places.iter().map(|at| self.items[*at].clone()).collect();
        moved.sort_by_key(|item| names[item.id()]);
        for (at, item) in places.into_iter().zip(moved) {
            self.items[at] = item;
        }
    }

    fn part_mut(&mut self, id: &str, kind: OutputKind) -> &mut Part {
        let known = self
            .items
            .iter()
            .rposition(|item| matches!(item, Item::Part(part) if part.id == id));
        let index = known.unwrap_or_else(|| {
            self.items.push(Item::Part(Part {
                id: id.to_owned(),
                reasoning: kind == OutputKind::Reasoning,
                text: String::new(),
                after_hole: String::new(),
                withdrawn: None,
            }));
            self.items.len() - 1
        });
        match &mut self.items[index] {
            Item::Part(part) => part,
            Item::Call(_) => unreachable!("the index was taken from a part"),
        }
    }
}

/// The agent's work on one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The message.
    pub message: MessageId,
    /// Where it stands.
    pub state: TurnState,
    /// Its runs, oldest first; never empty.
    pub runs: Vec<Run>,
    /// When the agent was last asked to begin.
    pub requested_at: Timestamp,
    /// When the agent was first asked to begin the last run.
    pub begun_at: Timestamp,
    /// Since when the time of the last run counts: it was first asked for then, or its last question was
    /// answered or gone.
    pub counts_from: Timestamp,
    /// What the agent asked.
    pub questions: Vec<Question>,
    /// Answers that dead runs left at the agent; they will never end.
    pub dead_answers: Vec<String>,
    /// Whether it ended without a word of the agent's, which may still work on it, or on what it was sent beside it.
    pub ended_unseen: bool,
    /// Which bound its last run passed, once it did.
    pub stalled: Option<String>,
    /// How often it passed one, over all its runs.
    pub stalls: u32,
    /// The agent's last wait for its model in this run: which try it was, and when the next one was due.
    pub agent_retry: Option<(u32, Option<Timestamp>)>,
    /// The last error that the agent reported in this run.
    pub agent_error: Option<String>,
    /// Why it failed, or its agent's word for how it ended.
    pub ending: Option<String>,
    /// The last event that moved it.
    pub moved: Position,
}

impl Turn {
    /// The turn that begins with a request for its first run, or with the agent's taking it up by itself.
    #[must_use]
    pub fn begin(message: MessageId, recorded: &Recorded) -> Self {
        Self {
            message,
            state: TurnState::Requested,
            runs: vec![Run {
                number: 1,
                started: false,
                items: Vec::new(),
            }],
            requested_at: recorded.at,
            begun_at: recorded.at,
            counts_from: recorded.at,
            questions: Vec::new(),
            dead_answers: Vec::new(),
            ended_unseen: false,
            stalled: None,
            stalls: 0,
            agent_retry: None,
            agent_error: None,
            ending: None,
            moved: recorded.position,
        }
    }

    /// The run that counts: the last.
    ///
    /// # Panics
    ///
    /// Never: a turn begins with a run.
    #[must_use]
    pub fn run(&self) -> &Run {
        self.runs.last().expect("a turn begins with a run")
    }

    /// What was answered: the text of the last run.
    #[must_use]
    pub fn text(&self) -> String {
        self.run().text()
    }

    /// The tools that a dead run may have done work with, in the order in which they began.
    pub fn tools_begun(&self) -> impl Iterator<Item = &str> {
        self.runs
            .iter()
            .flat_map(Run::calls)
            .map(|call| call.tool.as_str())
    }

    /// The question with this name.
    #[must_use]
    pub fn question(&self, id: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.id == id)
    }

    /// The questions that nobody has answered and that the agent still holds.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        self.questions
            .iter()
            .filter(|question| !question.settled && question.answer.is_none())
    }

    /// Takes one event in; what is about another message is passed over.
    pub fn apply(&mut self, recorded: &Recorded) {
        let event = &recorded.event;
        if event.message() != Some(self.message) {
            return;
        }
        match event {
            Event::TurnRequested { run, .. } => {
                if *run > self.run().number {
                    self.runs.push(Run {
                        number: *run,
                        started: false,
                        items: Vec::new(),
                    });
                    self.begun_at = recorded.at;
                    self.counts_from = recorded.at;
                    self.stalled = None;
                    self.agent_retry = None;
                    self.agent_error = None;
                }
                self.requested_at = recorded.at;
                self.go(TurnState::Requested, recorded);
            }
            Event::TurnStarted { .. } => {
                self.run_mut().started = true;
                self.go(TurnState::Running, recorded);
            }
            Event::OutputAppended {
                part,
                kind,
                placement,
                text,
                ..
            } => {
                let part = self.run_mut().part_mut(part, *kind);
                match placement {
                    Placement::End => part.text.push_str(text),
                    Placement::AfterHole => part.after_hole.push_str(text),
                    Placement::IntoHole => {
                        part.text.push_str(text);
                        let after = std::mem::take(&mut part.after_hole);
                        part.text.push_str(&after);
                    }
                }
            }
            Event::OutputOrdered { items, .. } => self.run_mut().order(items),
            Event::OutputReplaced {
                part, kind, text, ..
            } => {
                let part = self.run_mut().part_mut(part, *kind);
                let mut old = std::mem::replace(&mut part.text, text.clone());
                old.push_str(&std::mem::take(&mut part.after_hole));
                part.withdrawn = Some(old);
            }
            Event::ToolCallStarted {
                call, tool, input, ..
            } if self.run().call(call).is_none() => {
                let Json(input) = input;
                let call = Call {
                    id: call.clone(),
                    tool: tool.clone(),
                    input: String::from_utf8_lossy(input).into_owned(),
                    outcome: None,
                };
                self.run_mut().items.push(Item::Call(call));
            }
            Event::ToolCallEnded {
                call,
                outcome,
                output,
                ..
            } => {
                let outcome = match outcome {
                    ToolOutcome::Completed => CallOutcome::Completed,
                    ToolOutcome::Failed => CallOutcome::Failed,
                    ToolOutcome::Lost => CallOutcome::Lost,
                };
                for item in &mut self.run_mut().items {
                    if let Item::Call(known) = item
                        && known.id == *call
                    {
                        known.outcome = Some((outcome, output.clone()));
                    }
                }
            }
            Event::PermissionAsked {
                permission,
                action,
                detail,
                ..
            } => {
                let asks = Asks::Permission {
                    action: action.clone(),
                    detail: detail.clone(),
                };
                self.ask(permission, asks, recorded.at);
            }
            Event::QuestionAsked {
                question, prompts, ..
            } => self.ask(question, Asks::Words(self::prompts(prompts)), recorded.at),
            Event::PermissionAnswered {
                permission, answer, ..
            } => self.answer(permission, (*answer).into(), recorded.at),
            Event::QuestionAnswered {
                question, answers, ..
            } => {
                let answer = answers
                    .as_ref()
                    .map_or(Answered::Reject, Answered::in_words);
                self.answer(question, answer, recorded.at);
            }
            Event::QuestionExpired {
                question, reason, ..
            } => {
                self.answer(question, Answered::Reject, recorded.at);
                if let Some(question) = self.question_mut(question) {
                    question.expired = Some(reason.clone());
                }
            }
            Event::PermissionSettled {
                permission, answer, ..
            } => self.settle(permission, answer.map(Into::into), recorded.at),
            Event::QuestionSettled {
                question, answers, ..
            } => {
                let answer = answers.as_ref().map(Answered::in_words);
                self.settle(question, answer, recorded.at);
            }
            Event::TurnStalled { reason, .. } => {
                self.stalled = Some(reason.clone());
                self.stalls += 1;
            }
            Event::AgentRetried { attempt, next, .. } => self.agent_retry = Some((*attempt, *next)),
            Event::AgentErrorReported { name, reason, .. } => {
                self.agent_error = Some(format!("{name}: {reason}"));
            }
            Event::TurnInterrupted { answers, .. } => {
                self.dead_answers.extend_from_slice(answers);
                // What the dead process asked died with it.
                for question in &mut self.questions {
                    question.settled = true;
                }
                self.go(TurnState::Interrupted, recorded);
            }
            Event::RerunDecided {
                rerun: Rerun::Wait, ..
            } => self.go(TurnState::Waiting, recorded),
            Event::TurnCompleted { finish, .. } => {
                self.ending = Some(finish.clone());
                self.go(TurnState::Completed, recorded);
            }
            Event::TurnFailed { reason, .. } | Event::MessageDeadLettered { reason, .. } => {
                self.ending = Some(reason.clone());
                self.go(TurnState::Failed, recorded);
            }
            Event::TurnAborted { .. } => self.go(TurnState::Aborted, recorded),
            // About the message's delivery, or about no message: a turn is not moved by it.
            _ => {}
        }
    }

    fn ask(&mut self, id: &str, asks: Asks, now: Timestamp) {
        self.questions.push(Question {
            id: id.to_owned(),
            asks,
            asked_at: now,
            answer: None,
            expired: None,
            settled: false,
        });
    }

    fn answer(&mut self, id: &str, answer: Answered, now: Timestamp) {
        if let Some(question) = self.question_mut(id) {
            question.answer = Some(answer);
            self.counts_from = now;
        }
    }

    fn settle(&mut self, id: &str, answer: Option<Answered>, now: Timestamp) {
        if let Some(question) = self.question_mut(id) {
            question.settled = true;
            if let Some(answer) = answer {
                if answer != Answered::Reject {
                    // Somebody was a moment earlier than the refusal.
                    question.expired = None;
                }
                question.answer = Some(answer);
            }
            self.counts_from = now;
        }
    }

    fn question_mut(&mut self, id: &str) -> Option<&mut Question> {
        self.questions.iter_mut().find(|question| question.id == id)
    }

    fn go(&mut self, state: TurnState, recorded: &Recorded) {
        use TurnState as State;
        if matches!(
            self.state,
            State::Completed | State::Failed | State::Aborted
        ) {
            return;
        }
        let at_work = matches!(self.state, State::Requested | State::Running);
        let ended = matches!(state, State::Failed | State::Aborted);
        self.ended_unseen = at_work && ended && recorded.provenance == Provenance::Inferred;
        self.state = state;
        self.moved = recorded.position;
    }

    fn run_mut(&mut self) -> &mut Run {
        self.runs.last_mut().expect("a turn begins with a run")
    }
}

/// The prompts that the JSON of an event holds; what cannot be read is one prompt with the text that it is.
fn prompts(json: &Json) -> Vec<Prompt> {
    json.read().unwrap_or_else(|| {
        vec![Prompt {
            header: String::new(),
            text: String::from_utf8_lossy(&json.0).into_owned(),
            options: Vec::new(),
            multiple: false,
            custom: true,
        }]
    })
}
