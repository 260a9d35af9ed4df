//! `recount frames`: what agents sent, as it was received.

use recount_store::{ConnectionId, Frame, FrameNumber, LogReader, Result};

use crate::failure::Failure;
use crate::output::{Output, note};
use crate::render::frame;
use crate::render::time::Days;

/// How many frames are read over rather than looked up anew: about as many as are kept together.
const STEP_MAX: u64 = 1024;

/// Lists the frames from a number on, no more than so many, of all connections or of one.
pub(crate) fn run(
    reader: &LogReader,
    (from, limit): (FrameNumber, u64),
    only: Option<ConnectionId>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut days = Days::default();
    let mut listed = 0;
    for frame in reader.frames(from) {
        let frame = frame?;
        if listed == limit {
            break;
        }
        if only.is_some_and(|only| only != frame.connection) {
            continue;
        }
        listed += 1;
        if json {
            output.line(&frame::json_line(&frame).map_err(std::io::Error::from)?)?;
            continue;
        }
        if let Some(day) = days.next(frame.at, &output.look) {
            output.line(&day)?;
        }
        let line = frame::line(&frame, &output.look);
        output.line(&line)?;
    }
    if listed == 0 {
        note("recount: no such frames are kept");
    }
    Ok(())
}

/// Frames by their numbers, which mostly rise.
pub(super) struct Frames {
    reader: LogReader,
    /// The frames from `next` on.
    ahead: Box<dyn Iterator<Item = Result<Frame>>>,
    next: FrameNumber,
}

impl Frames {
    /// The frames of a log.
    pub(super) fn of(reader: &LogReader) -> Self {
        Self {
            reader: reader.clone(),
            ahead: Box::new(std::iter::empty()),
            next: FrameNumber(u64::MAX),
        }
    }

    /// The frame of this number; none where it is not kept.
    ///
    /// # Errors
    ///
    /// Where the frames cannot be read.
    pub(super) fn get(&mut self, number: FrameNumber) -> Result<Option<Frame>> {
        if number < self.next || number.0 - self.next.0 > STEP_MAX {
            self.ahead = Box::new(self.reader.frames(number));
        }
        for frame in self.ahead.by_ref() {
            let frame = frame?;
            if frame.number >= number {
                self.next = frame.number.next();
                return Ok((frame.number == number).then_some(frame));
            }
        }
        // What comes later is not ahead of this iterator.
        self.next = FrameNumber(u64::MAX);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{Event, Expected, Log, NewEvent, StreamId, Timestamp};

    use super::*;

    #[test]
    fn any_frame_is_found_whichever_was_asked_for_before() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let log = Log::in_memory().expect("a log");
        let connection = ConnectionId::from_bytes([1; 10]);
        let keep = |numbers: std::ops::RangeInclusive<u64>| {
            for number in numbers {
                let kept = log.keep_frame(connection, Timestamp(1), number.to_string().as_bytes());
                assert_eq!(kept, Some(FrameNumber(number)));
            }
            let event = NewEvent::live(Event::EngineStopped, Timestamp(1));
            let appended = log.append(StreamId::Engine, Expected::Any, vec![event]);
            runtime.block_on(appended).expect("appended");
        };
        keep(1..=3000);
        let mut frames = Frames::of(&log);
        let mut get = |number| {
            let frame = frames.get(FrameNumber(number)).expect("they are whole");
            frame.and_then(|frame| frame.bytes().map(<[u8]>::to_vec))
        };
        for number in [5, 6, 6, 9, 1, 3000, 2999, 1200, 1201] {
            assert_eq!(get(number), Some(number.to_string().into_bytes()));
        }
        assert_eq!(get(3001), None);
        keep(3001..=3002);
        assert_eq!(get(3001), Some(b"3001".to_vec()));
    }
}
