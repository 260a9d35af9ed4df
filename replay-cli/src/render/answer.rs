//! The answer of an agent as it grows, so that no piece of it is printed twice.
//!
//! An agent that died in the middle of an answer is asked again, and begins from the beginning. What was
//! printed stays; of the new text comes only what goes on from there, where it begins with what was
//! printed. Where it does not, it stands apart.

use recount_projections::Turn;
use recount_projections::turn::Item;
use recount_store::{Event, MessageId, OutputKind, Placement, Recorded};

/// What is to be printed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that goes on from what was printed.
    On(String),
    /// Text that does not: the whole answer as it reads now.
    Anew(String),
}

/// The answer to one message, as it reads and as it was printed.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    message: MessageId,
    turn: Option<Turn>,
    /// What was printed since the last time that it had to stand apart.
    printed: String,
    /// How much of `printed` the answer reads now. Invariant: the answer is `printed[..reads]`.
    reads: usize,
}

impl Answer {
    /// The answer to a message that none of is known yet.
    pub(crate) fn new(message: MessageId) -> Self {
        Self {
            message,
            turn: None,
            printed: String::new(),
            reads: 0,
        }
    }

    /// Takes an event in, and says what is to be printed for it.
    pub(crate) fn take(&mut self, recorded: &Recorded) -> Option<Piece> {
        if recorded.event.message() != Some(self.message) {
            return None;
        }
        let turn = match (&mut self.turn, &recorded.event) {
            (Some(turn), _) => turn,
            // One that steers is taken up without having been asked for.
            (none, Event::TurnRequested { .. } | Event::TurnStarted { .. }) => {
                none.insert(Turn::begin(self.message, recorded))
            }
            (None, _) => return None,
        };
        turn.apply(recorded);
        match &recorded.event {
            Event::OutputAppended {
                kind: OutputKind::Text,
                placement: Placement::End,
                part,
                text,
                ..
            } if is_last(turn, part) => self.grow(text),
            Event::OutputAppended { .. }
            | Event::OutputReplaced { .. }
            | Event::OutputOrdered { .. }
            | Event::TurnRequested { .. } => {
                let text = turn.text();
                self.read(text)
            }
            Event::TurnCompleted { .. } => self.finish(),
            _ => None,
        }
    }

    /// The message that is answered.
    pub(crate) const fn message(&self) -> MessageId {
        self.message
    }

    /// What the answer reads by now, to be printed where nothing was; what was told before is forgotten.
    pub(crate) fn so_far(&mut self) -> Option<Piece> {
        self.printed = self.turn.as_ref().map(Turn::text).unwrap_or_default();
        self.reads = self.printed.len();
        (self.reads > 0).then(|| Piece::On(self.printed.clone()))
    }

    /// The answer has `more` at its end.
    fn grow(&mut self, more: &str) -> Option<Piece> {
        let ahead = &self.printed[self.reads..];
        if ahead.starts_with(more) {
            self.reads += more.len();
            None
        } else if let Some(rest) = more.strip_prefix(ahead) {
            let rest = rest.to_owned();
            self.printed.push_str(&rest);
            self.reads = self.printed.len();
            Some(Piece::On(rest))
        } else {
            let text = format!("{}{more}", &self.printed[..self.reads]);
            Some(self.anew(text))
        }
    }

    /// The answer reads `text`.
    fn read(&mut self, text: String) -> Option<Piece> {
        if self.printed.starts_with(&text) {
            self.reads = text.len();
            None
        } else if let Some(rest) = text.strip_prefix(&self.printed) {
            let rest = rest.to_owned();
            self.reads = text.len();
            self.printed = text;
            Some(Piece::On(rest))
        } else {
            Some(self.anew(text))
        }
    }

    /// The answer is whole: if more was printed than it holds, it is printed as it is.
    fn finish(&mut self) -> Option<Piece> {
        if self.reads == self.printed.len() {
            return None;
        }
        let text = self.printed[..self.reads].to_owned();
        Some(self.anew(text))
    }

    fn anew(&mut self, text: String) -> Piece {
        self.reads = text.len();
        self.printed.clone_from(&text);
        Piece::Anew(text)
    }
}

/// Whether no text of the answer comes after this part.
fn is_last(turn: &Turn, part: &str) -> bool {
    let last = turn.run().items.iter().rev().find_map(|item| match item {
        Item::Part(part) if !part.reasoning => Some(part),
        Item::Part(_) | Item::Call(_) => None,
    });
    // Text after a hole is no part of the answer until the hole is closed.
    last.is_some_and(|last| last.id == part && last.after_hole.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::{message, session_event};

    fn requested(run: u32) -> Event {
        Event::TurnRequested {
            message: message(),
            run,
        }
    }

    fn said(run: u32, part: &str, placement: Placement, text: &str) -> Event {
        Event::OutputAppended {
            message: message(),
            run,
            part: part.to_owned(),
            kind: OutputKind::Text,
            placement,
            text: text.to_owned(),
        }
    }

    fn end(run: u32, text: &str) -> Event {
        said(run, "p", Placement::End, text)
    }

    fn interrupted() -> Event {
        Event::TurnInterrupted {
            message: message(),
            run: 1,
            answers: Vec::new(),
            evidence: "gone".to_owned(),
        }
    }

    fn completed(run: u32) -> Event {
        Event::TurnCompleted {
            message: message(),
            run,
            finish: "stop".to_owned(),
        }
    }

    /// What is printed: pieces joined, `|` where one stands apart.
    fn printed(events: impl IntoIterator<Item = Event>) -> String {
        let mut answer = Answer::new(message());
        let mut out = String::new();
        for (n, event) in (1..).zip(events) {
            match answer.take(&session_event(n, event)) {
                Some(Piece::On(text)) => out.push_str(&text),
                Some(Piece::Anew(text)) => {
                    out.push('|');
                    out.push_str(&text);
                }
                None => {}
            }
        }
        out
    }

    #[test]
    fn an_answer_is_printed_as_it_grows() {
        assert_eq!(
            printed([requested(1), end(1, "Hel"), end(1, "lo"), completed(1)]),
            "Hello"
        );
    }

    #[test]
    fn one_that_is_run_again_goes_on_where_it_broke_off() {
        let events = [
            requested(1),
            end(1, "One, two, thr"),
            interrupted(),
            requested(2),
            end(2, "One,"),
            end(2, " two"),
            end(2, ", three"),
            end(2, ", four"),
            completed(2),
        ];
        assert_eq!(printed(events), "One, two, three, four");
    }

    #[test]
    fn one_that_reads_otherwise_stands_apart_as_soon_as_that_is_known() {
        let events = [
            requested(1),
            end(1, "One, two"),
            interrupted(),
            requested(2),
            end(2, "One, "),
            end(2, "zwei"),
            end(2, ", drei"),
            completed(2),
        ];
        assert_eq!(printed(events), "One, two|One, zwei, drei");
    }

    #[test]
    fn one_that_ends_earlier_is_printed_as_it_is() {
        let events = [
            requested(1),
            end(1, "One, two"),
            interrupted(),
            requested(2),
            end(2, "One"),
            completed(2),
        ];
        assert_eq!(printed(events), "One, two|One");
    }

    #[test]
    fn text_after_a_hole_waits_until_the_hole_is_closed() {
        let events = [
            requested(1),
            end(1, "a"),
            said(1, "p", Placement::AfterHole, "c"),
            said(1, "p", Placement::IntoHole, "b"),
            end(1, "d"),
            completed(1),
        ];
        assert_eq!(printed(events), "abcd");
    }

    #[test]
    fn parts_follow_each_other_and_a_late_piece_of_an_early_one_stands_apart() {
        let events = [
            requested(1),
            said(1, "p", Placement::End, "a"),
            said(1, "q", Placement::End, "c"),
            said(1, "p", Placement::End, "b"),
            said(1, "q", Placement::End, "d"),
            completed(1),
        ];
        assert_eq!(printed(events), "ac|abcd");
    }

    #[test]
    fn a_part_that_came_to_light_late_stands_apart_with_all() {
        let events = [
            requested(1),
            said(1, "q", Placement::End, "behind it"),
            said(1, "p", Placement::End, "in front, "),
            Event::OutputOrdered {
                message: message(),
                run: 1,
                items: vec!["p".to_owned(), "q".to_owned()],
            },
            said(1, "q", Placement::End, ", and on"),
            completed(1),
        ];
        let text = "behind itin front, |in front, behind it, and on";
        assert_eq!(printed(events), text);
    }

    #[test]
    fn a_part_that_the_agent_wrote_anew_goes_on_or_stands_apart() {
        let replaced = |text: &str| Event::OutputReplaced {
            message: message(),
            run: 1,
            part: "p".to_owned(),
            kind: OutputKind::Text,
            text: text.to_owned(),
        };
        let before = [requested(1), end(1, "Hello")];
        let with = |text| {
            before
                .clone()
                .into_iter()
                .chain([replaced(text), completed(1)])
        };
        assert_eq!(printed(with("Hello!")), "Hello!");
        assert_eq!(printed(with("Hallo")), "Hello|Hallo");
        assert_eq!(printed(with("Hell")), "Hello|Hell");
    }
}
