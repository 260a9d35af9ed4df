//! What can go wrong, and when it does.

use crate::chance::{Chance, Deck};

/// One thing that goes wrong with a request or with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection is reset, and the server never sees the request.
    ResetBefore,
    /// The connection is reset once the server has answered: what was asked for is done, and nobody is told.
    ResetAfter,
    /// The connection is reset in the middle of the answer.
    ResetWithin,
    /// The connection is closed in the middle of the answer, as if it ended there: of a stream, within a frame.
    Cut,
    /// Nothing is passed on any more, and nothing closed: before the server sees the request.
    HalfOpenBefore,
    /// The same, in the middle of the answer.
    HalfOpenWithin,
    /// The answer is held back for a moment.
    Stall,
    /// The answer comes a few bytes at a time.
    Trickle,
    /// A page in HTML with this status, as a gateway sends it, instead of asking the server.
    PageBefore(u16),
    /// The same, instead of passing on what the server has answered.
    PageAfter(u16),
}

/// What goes wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Where the draws come from.
    pub chance: Chance,
    /// One request in so many meets a fault, on average.
    pub requests_each: u64,
    /// Which.
    pub of_requests: Vec<Fault>,
    /// A stream that was opened without one meets a fault each time that so many bytes went over it, on average.
    pub stream_bytes_each: u64,
    /// Which; of those that concern an answer that has begun.
    pub of_streams: Vec<Fault>,
}

/// What the next requests and streams meet.
#[derive(Debug, Default)]
pub(super) struct Draw(Option<Drawing>);

#[derive(Debug)]
struct Drawing {
    faults: Faults,
    requests: Deck<Fault>,
    streams: Deck<Fault>,
}

impl Draw {
    pub(super) fn of(faults: Faults) -> Self {
        Self(Some(Drawing {
            requests: Deck::new(faults.of_requests.as_slice()),
            streams: Deck::new(faults.of_streams.as_slice()),
            faults,
        }))
    }

    /// What a request meets.
    pub(super) fn of_request(&mut self) -> Option<Fault> {
        let Drawing {
            faults, requests, ..
        } = self.0.as_mut()?;
        let spared = faults.chance.below(faults.requests_each) > 0;
        (!spared).then(|| requests.draw(&mut faults.chance))
    }

    /// What a stream meets, and after how many bytes more.
    pub(super) fn of_stream(&mut self) -> Option<(Fault, usize)> {
        let Drawing {
            faults, streams, ..
        } = self.0.as_mut()?;
        let after = faults.chance.below(2 * faults.stream_bytes_each);
        let fault = streams.draw(&mut faults.chance);
        Some((fault, usize::try_from(after).expect("a length in memory")))
    }

    /// How long an answer is held back, in milliseconds.
    pub(super) fn stall(&mut self) -> u64 {
        match &mut self.0 {
            Some(Drawing { faults, .. }) => faults.chance.within(50..1_500),
            None => 0,
        }
    }
}
