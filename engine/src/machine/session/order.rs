//! The order of what an agent said and did.
//!
//! It is recorded as it comes to light. What was missed comes to light late, and until then the stream goes on: so a look
//! may find an answer's beginning when its end is in the log already.

use std::collections::HashSet;

use recount_projections::Turn;
use recount_projections::turn::Item;
use recount_store::{Event, Provenance};

use super::draft::Draft;
use crate::adapter::AnswerItem;

/// What the agent calls a thing that it said or did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Name {
    Part(String),
    Call(String),
}

impl Name {
    pub(super) fn reported(item: &AnswerItem) -> Self {
        match item {
            AnswerItem::Output(part) => Self::Part(part.id.clone()),
            AnswerItem::Tool(call) => Self::Call(call.id.clone()),
        }
    }

    fn recorded(item: &Item) -> Self {
        match item {
            Item::Part(part) => Self::Part(part.id.clone()),
            Item::Call(call) => Self::Call(call.id.clone()),
        }
    }

    /// Of what an event begins or goes on with.
    fn drafted(event: &Event) -> Option<Self> {
        match event {
            Event::OutputAppended { part, .. } | Event::OutputReplaced { part, .. } => {
                Some(Self::Part(part.clone()))
            }
            Event::ToolCallStarted { call, .. } => Some(Self::Call(call.clone())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Part(name) | Self::Call(name) => name.clone(),
        }
    }
}

/// Keeps the agent's order on record where that of the log, with what is drafted, is another.
pub(super) fn keep(draft: &mut Draft, turn: &Turn, theirs: &[Name]) {
    let run = turn.run();
    let recorded = run.items.iter().map(Name::recorded);
    let drafted = draft.events().filter_map(Name::drafted);
    let ours: Vec<Name> = recorded.chain(drafted).collect();
    if let Some(moved) = moved(&ours, theirs) {
        let order = Event::OutputOrdered {
            message: turn.message,
            run: run.number,
            items: moved.into_iter().map(Name::text).collect(),
        };
        draft.push(order, Provenance::Backfilled);
    }
}

/// What stands elsewhere with us than with the agent, in the agent's order; `None` where nothing does.
///
/// What only one of the two has is passed over: a report is older than what came since. So is the order of tool calls with
/// no words between them: an agent lists those in the order in which it thought of them, and they are recorded as they begin.
fn moved<'a>(ours: &'a [Name], theirs: &'a [Name]) -> Option<Vec<&'a Name>> {
    let (ours, theirs) = (in_both(ours, theirs), in_both(theirs, ours));
    if calls_sorted(&ours) == calls_sorted(&theirs) {
        return None;
    }
    let same = |(ours, theirs): &(&&Name, &&Name)| ours == theirs;
    let front = ours.iter().zip(&theirs).take_while(same).count();
    let pairs = ours.iter().rev().zip(theirs.iter().rev());
    let back = pairs.take_while(same).count();
    Some(theirs[front..theirs.len() - back].to_vec())
}

/// Those that others have, too, each where it comes first.
fn in_both<'a>(names: &'a [Name], others: &[Name]) -> Vec<&'a Name> {
    let mut left: HashSet<&Name> = others.iter().collect();
    names.iter().filter(|name| left.remove(name)).collect()
}

/// The same with the calls of each stretch without words in the order of their names.
fn calls_sorted<'a>(names: &[&'a Name]) -> Vec<&'a Name> {
    let mut sorted = names.to_vec();
    for stretch in sorted.chunk_by_mut(|a, b| matches!((a, b), (Name::Call(_), Name::Call(_)))) {
        stretch.sort_unstable();
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a`, `b` are parts, `A`, `B` calls.
    fn names(line: &str) -> Vec<Name> {
        let name = |letter: char| match letter {
            'a'..='z' => Name::Part(letter.into()),
            _ => Name::Call(letter.into()),
        };
        line.chars().map(name).collect()
    }

    fn moves(ours: &str, theirs: &str) -> Option<String> {
        let (ours, theirs) = (names(ours), names(theirs));
        Some(moved(&ours, &theirs)?.into_iter().map(Name::text).collect())
    }

    #[test]
    fn what_stands_elsewhere_is_told_in_the_agents_order() {
        for (ours, theirs, told) in [
            ("", "", None),
            ("aAb", "aAb", None),
            // The beginning was missed, and found last.
            ("Bca", "aBc", Some("aBc")),
            // What stands in its place before and behind is left out.
            ("abdce", "abcde", Some("cd")),
            // Calls at once.
            ("aBAc", "aABc", None),
            ("aBcA", "aABc", Some("ABc")),
            // What came since the report, and what the log does not have.
            ("aAbz", "yaAxb", None),
            ("bzxa", "ayxb", Some("axb")),
            // An agent that says a name twice.
            ("aab", "ab", None),
            ("ba", "aba", Some("ab")),
        ] {
            assert_eq!(moves(ours, theirs).as_deref(), told, "{ours} for {theirs}");
        }
    }
}
