//! What a person is asked, with what that person has to know to answer.

use recount_store::Timestamp;

use crate::queue::{Message, WaitsFor};
use crate::session::Session;
use crate::turn::{Call, Item, Question, Run};

/// What of a session waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits<'a> {
    /// The message that goes no further.
    pub message: &'a Message,
    /// Since when.
    pub since: Timestamp,
    /// What a person has to decide; `None` where it is the questions that wait.
    pub decision: Option<WaitsFor>,
    /// What the agent asks and nobody has answered.
    pub questions: Vec<&'a Question>,
    /// The tools that had begun, each with the number of its run: they may have done work, and another run may do it again.
    pub calls: Vec<(u32, &'a Call)>,
    /// What the agent had said by then, in the last run in which it said something.
    pub text: String,
    /// Whether something of that text was missed.
    pub has_hole: bool,
}

impl Session {
    /// What waits for a person, and what that person has to know; `None` where nothing does.
    #[must_use]
    pub fn waits(&self) -> Option<Waits<'_>> {
        let (message, turn) = self.head()?;
        let questions: Vec<_> = match turn {
            Some(turn) if self.questions_open() => turn.open_questions().collect(),
            _ => Vec::new(),
        };
        let asked = questions.iter().map(|question| question.asked_at).min();
        let since = message.waits_since.or(asked)?;
        let runs = turn.map(|turn| turn.runs.as_slice()).unwrap_or_default();
        let calls = runs
            .iter()
            .flat_map(|run| run.calls().map(|call| (run.number, call)));
        let spoke = |run: &&Run| {
            run.items
                .iter()
                .any(|item| matches!(item, Item::Part(part) if !part.reasoning && !part.is_empty()))
        };
        let said = runs.iter().rev().find(spoke);
        Some(Waits {
            message,
            since,
            decision: message.waits_for,
            questions,
            calls: calls.collect(),
            text: said.map(Run::text).unwrap_or_default(),
            has_hole: said.is_some_and(Run::has_hole),
        })
    }
}
