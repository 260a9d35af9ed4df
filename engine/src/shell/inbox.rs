//! What the agent said of one session and the session has not taken yet: bounded in bytes, and never in the way
//! of the connection that fills it.
//!
//! Pieces of one part that wait side by side are joined, so a session that is slow for a moment finds one long
//! piece and not a thousand. Where even that does not fit, the rest is dropped and the session is told that
//! something is missing: the same to it as a frame that was lost on the way, and mended by the same look.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::Prompt;
use tokio::sync::Notify;

use super::connection::FromAgent;
use crate::adapter::{Observation, ToolState};
use crate::limits;

/// A session's inbox. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct Inbox(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Inbox {
    /// An empty one with room for this many bytes; whatever it is, one observation always fits.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::new(Waiting::new(bytes_max)),
            filled: Notify::new(),
        }))
    }

    /// Puts in what the agent said. Never waits.
    pub(super) fn put(&self, said: FromAgent) {
        self.waiting().put(said);
        self.0.filled.notify_one();
    }

    /// What the agent said next, as soon as there is something. Dropping the future loses nothing.
    ///
    /// [`Observation::Missed`] where it said more than there was room for, after everything that came out before.
    ///
    /// For one reader: of two who wait, only one is woken.
    pub async fn next(&self) -> FromAgent {
        loop {
            if let Some(said) = self.waiting().take() {
                return said;
            }
            self.0.filled.notified().await;
        }
    }

    /// Whether both are the same inbox.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting {
    said: VecDeque<FromAgent>,
    /// What all of it weighs.
    bytes: usize,
    bytes_max: usize,
    /// In which opening of the stream something was dropped behind all of it. Until the reader has come to that,
    /// nothing is taken in: there is one hole at a time, and what is behind it takes a look anyway.
    missed: Option<u64>,
}

impl Waiting {
    fn new(bytes_max: usize) -> Self {
        Self {
            said: VecDeque::new(),
            bytes: 0,
            bytes_max,
            missed: None,
        }
    }

    fn put(&mut self, said: FromAgent) {
        let weight = weight(&said.observation);
        let full = self.bytes + weight > self.bytes_max && !self.said.is_empty();
        if full || self.missed.is_some() {
            self.missed = Some(said.epoch);
            return;
        }
        match self.said.back_mut() {
            Some(last) if goes_on(last, &said) => self.bytes += join(last, said),
            _ => {
                self.bytes += weight;
                self.said.push_back(said);
            }
        }
    }

    fn take(&mut self) -> Option<FromAgent> {
        if let Some(said) = self.said.pop_front() {
            self.bytes -= weight(&said.observation);
            return Some(said);
        }
        // A burst is over: its room is given back.
        self.said.shrink_to(limits::INBOX_ROOM_KEPT);
        Some(hole(self.missed.take()?))
    }
}

/// What says that something is missing.
fn hole(epoch: u64) -> FromAgent {
    FromAgent {
        epoch,
        frame: None,
        observation: Observation::Missed,
        from_child: false,
    }
}

/// Whether the later one is a piece of the same part, right behind the earlier one.
fn goes_on(earlier: &FromAgent, later: &FromAgent) -> bool {
    let of = |said: &FromAgent| (said.epoch, said.from_child);
    match (&earlier.observation, &later.observation) {
        (
            Observation::Delta { answer, part, .. },
            Observation::Delta {
                answer: its_answer,
                part: its_part,
                ..
            },
        ) => of(earlier) == of(later) && part == its_part && answer == its_answer,
        _ => false,
    }
}

/// Joins two that [`goes_on`] said yes to, and gives the bytes that were added. The last frame tells of both.
fn join(earlier: &mut FromAgent, later: FromAgent) -> usize {
    let (Observation::Delta { text, .. }, Observation::Delta { text: more, .. }) =
        (&mut earlier.observation, later.observation)
    else {
        return 0;
    };
    text.push_str(&more);
    earlier.frame = later.frame;
    more.len()
}

/// The memory that an observation takes, more or less.
fn weight(observation: &Observation) -> usize {
    size_of::<FromAgent>()
        + match observation {
            Observation::Delta { text, .. } => text.len(),
            Observation::PartEnded { part, .. } => part.text.len(),
            Observation::Tool { call, .. } => match &call.state {
                ToolState::Pending => 0,
                ToolState::Running { input } => input.0.len(),
                ToolState::Completed { input, output } => input.0.len() + output.len(),
                ToolState::Failed { input, error } => input.0.len() + error.len(),
            },
            Observation::PermissionAsked(permission) => permission.detail.len(),
            Observation::QuestionAsked(question) => {
                let bytes = |prompt: &Prompt| {
                    let options = prompt.options.iter();
                    let options = options.map(|option| option.label.len() + option.about.len());
                    prompt.text.len() + options.sum::<usize>()
                };
                question.prompts.iter().map(bytes).sum()
            }
            Observation::QuestionReplied { answers, .. } => {
                answers.iter().flatten().flatten().map(String::len).sum()
            }
            Observation::Unrecognised { frame, .. } => frame.0.len(),
            // Words of a few dozen bytes.
            Observation::Connected
            | Observation::Ignored
            | Observation::Heartbeat
            | Observation::Counted { .. }
            | Observation::Missed
            | Observation::ChildOf { .. }
            | Observation::AnswerUpdated(_)
            | Observation::PartOpened { .. }
            | Observation::PermissionReplied { .. }
            | Observation::Busy
            | Observation::Idle
            | Observation::Retrying { .. }
            | Observation::Error { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use recount_store::FrameNumber;

    use super::*;

    fn said(frame: u64, observation: Observation) -> FromAgent {
        FromAgent {
            epoch: 1,
            frame: Some(FrameNumber(frame)),
            observation,
            from_child: false,
        }
    }

    fn delta(frame: u64, part: &str, text: &str) -> FromAgent {
        let observation = Observation::Delta {
            answer: "answer".to_owned(),
            part: part.to_owned(),
            text: text.to_owned(),
        };
        said(frame, observation)
    }

    fn drain(waiting: &mut Waiting) -> Vec<FromAgent> {
        std::iter::from_fn(|| waiting.take()).collect()
    }

    #[test]
    fn pieces_of_one_part_side_by_side_are_one() {
        let mut waiting = Waiting::new(1 << 20);
        waiting.put(delta(1, "a", "one "));
        waiting.put(delta(2, "a", "two"));
        waiting.put(delta(3, "b", "three"));
        waiting.put(said(4, Observation::Busy));
        waiting.put(delta(5, "b", "four"));
        waiting.put(FromAgent {
            epoch: 2,
            ..delta(6, "b", "five")
        });
        let expected = [
            delta(2, "a", "one two"),
            delta(3, "b", "three"),
            said(4, Observation::Busy),
            delta(5, "b", "four"),
            FromAgent {
                epoch: 2,
                ..delta(6, "b", "five")
            },
        ];
        assert_eq!(drain(&mut waiting), expected);
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn what_does_not_fit_is_one_hole_and_then_there_is_room_again() {
        let busy = weight(&Observation::Busy);
        let mut waiting = Waiting::new(2 * busy);
        for frame in 1..=5 {
            waiting.put(said(frame, Observation::Busy));
        }
        let first = waiting.take();
        assert_eq!(first, Some(said(1, Observation::Busy)));
        // Behind the hole, though there is room.
        waiting.put(said(6, Observation::Idle));
        let rest = [said(2, Observation::Busy), hole(1)];
        assert_eq!(drain(&mut waiting), rest);
        waiting.put(said(7, Observation::Idle));
        let after = [said(7, Observation::Idle)];
        assert_eq!(drain(&mut waiting), after);
    }

    #[test]
    fn one_that_is_larger_than_the_bound_fits_alone() {
        let mut waiting = Waiting::new(0);
        waiting.put(delta(1, "a", "long"));
        waiting.put(delta(2, "a", "longer"));
        let expected = [delta(1, "a", "long"), hole(1)];
        assert_eq!(drain(&mut waiting), expected);
    }

    proptest! {
        /// Whatever is put in and taken out, in whatever order: the bound holds, and what comes out is what
        /// went in, in its order, but for the holes, each of which is told.
        #[test]
        fn what_comes_out_is_what_went_in_but_for_holes_that_are_told(
            steps in prop::collection::vec(prop_oneof![
                3 => (0..3_u8, 0..40_usize).prop_map(Some),
                2 => Just(None),
            ], 0..200),
        ) {
            let mut waiting = Waiting::new(600);
            let (mut put, mut dropped) = (String::new(), false);
            let (mut taken, mut told) = (String::new(), false);
            let mut take = |said| match said {
                FromAgent { observation: Observation::Delta { text, .. }, .. } => taken.push_str(&text),
                said => told |= said == hole(1),
            };
            for (frame, step) in (0..).zip(steps) {
                match step {
                    Some((part, length)) => {
                        let text = format!("<{frame}{}>", "x".repeat(length));
                        let before = (waiting.bytes, waiting.said.len());
                        waiting.put(delta(frame, &part.to_string(), &text));
                        if (waiting.bytes, waiting.said.len()) == before {
                            prop_assert!(waiting.missed.is_some());
                            dropped = true;
                        } else {
                            put.push_str(&text);
                        }
                    }
                    None => waiting.take().into_iter().for_each(&mut take),
                }
                prop_assert!(waiting.bytes <= 600 || waiting.said.len() == 1);
            }
            drain(&mut waiting).into_iter().for_each(&mut take);
            prop_assert_eq!(taken, put);
            prop_assert_eq!(told, dropped);
            prop_assert_eq!(waiting.bytes, 0);
        }
    }
}
