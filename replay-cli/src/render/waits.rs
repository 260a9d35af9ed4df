//! What waits for a person, with what that person has to know.

use std::fmt::Write as _;

use recount_projections::turn::{Call, CallOutcome};
use recount_projections::{Session, WaitsFor};
use recount_store::{MessageId, SessionId};
use serde::Serialize;

use super::{scene, text, time};

/// How many columns of a tool's input or output are shown.
const DETAIL_WIDTH: usize = 60;

/// What of a session waits for a person.
#[derive(Debug, Serialize)]
pub(crate) struct Waits {
    session: SessionId,
    pub(crate) message: MessageId,
    /// What that person has to decide; none where it is a question of the agent's.
    #[serde(skip)]
    pub(crate) decision: Option<WaitsFor>,
    since: String,
    /// What the agent asks.
    questions: Vec<String>,
    /// The tools that had begun.
    tools: Vec<Begun>,
    settle_with: Vec<String>,
}

/// A tool that had begun.
#[derive(Debug, Serialize)]
struct Begun {
    run: u32,
    tool: String,
    input: String,
    outcome: Option<CallOutcome>,
    output: Option<String>,
}

impl Waits {
    /// What of a session waits; none where nothing does.
    pub(crate) fn of(id: SessionId, session: &Session) -> Option<Self> {
        let (message, turn) = session.head()?;
        let commands = scene::settled_by(message, turn);
        let waits = session.waits().filter(|_| !commands.is_empty())?;
        let begun = |(run, call): &(u32, &Call)| Begun {
            run: *run,
            tool: call.tool.clone(),
            input: call.input.clone(),
            outcome: call.outcome.as_ref().map(|(outcome, _)| *outcome),
            output: call.outcome.as_ref().map(|(_, output)| output.clone()),
        };
        Some(Self {
            session: id,
            message: message.id,
            decision: waits.decision,
            since: time::rfc3339(waits.since),
            questions: waits.questions.iter().map(|q| q.asks.to_string()).collect(),
            tools: waits.calls.iter().map(begun).collect(),
            settle_with: commands.into_iter().map(|(command, _)| command).collect(),
        })
    }

    /// The lines for people about what is known.
    pub(crate) fn known(&self) -> String {
        let mut out = format!("  waits since {}\n", self.since);
        for question in &self.questions {
            let _ = writeln!(out, "  the agent asks: {}", text::one_line(question));
        }
        for tool in &self.tools {
            let what = format!("{} {}", tool.tool, tool.input);
            let fate = match (tool.outcome, &tool.output) {
                (Some(CallOutcome::Completed), Some(output)) => format!("gave {}", output.trim()),
                (Some(CallOutcome::Failed), Some(output)) => format!("failed: {}", output.trim()),
                (Some(CallOutcome::Lost), _) => "nobody knows how far it came".to_owned(),
                _ => "it runs".to_owned(),
            };
            let fate = text::one_line(&fate);
            let _ = writeln!(
                out,
                "  tool {}: {}",
                text::clip(&text::one_line(&what), DETAIL_WIDTH),
                text::clip(&fate, DETAIL_WIDTH)
            );
        }
        out
    }

    /// The lines for people about how it is settled.
    pub(crate) fn commands(&self) -> String {
        let mut out = String::new();
        for command in &self.settle_with {
            let _ = writeln!(out, "  {command}");
        }
        out
    }
}
