//! `recount log`: the events of a session, with those of its connection between them.

use recount_store::{Event, Frame, LogReader, Recorded, SessionId, StreamId};

use super::frames::Frames;
use crate::args;
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::{Output, note};
use crate::render::event::{Lines, json_line};
use crate::render::frame;
use crate::timeline::Timeline;

/// Prints the events of a session, with `frames` those that they came from; with `follow`, those that come
/// too, until it is closed.
pub(crate) async fn run(
    reader: &LogReader,
    id: SessionId,
    wanted: &args::Log,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let session = StreamId::Session(id);
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let mut printer = Printer::new(json);
    let mut frames = wanted.frames.then(|| Frames::of(reader));
    let mut print = |recorded: &Recorded, output: &mut Output| {
        let number = recorded.frame.filter(|_| frames.is_some());
        let frame = match (&mut frames, number) {
            (Some(frames), Some(number)) => frames.get(number)?,
            _ => None,
        };
        printer.print_with(recorded, frame.as_ref(), output)?;
        if let (Some(number), false) = (number, json) {
            let line = frame::under_event(number, frame.as_ref(), &output.look);
            output.line(&line)?;
        }
        Ok::<_, Failure>(())
    };
    // What is cut is closed, though the event that says so may be gone.
    let mut closed = false;
    if let Some(cut) = Cut::of(reader, session)? {
        let told = cut.told(&output.look);
        if json {
            note(&format!("recount: {told}"));
        } else {
            output.line(&output.look.dim(&format!("({told})")))?;
        }
        closed = true;
    }
    let within = |recorded: &Recorded| {
        wanted.since.is_none_or(|since| recorded.at >= since)
            && wanted.until.is_none_or(|until| recorded.at <= until)
    };
    let events: Box<dyn Iterator<Item = _>> = if wanted.reverse {
        Box::new(timeline.backwards(reader))
    } else {
        Box::new(timeline.events(reader, through, wanted.follow))
    };
    let mut left = wanted.limit.unwrap_or(u64::MAX);
    for recorded in events {
        let recorded = recorded?;
        closed = closed || ends(&recorded, session);
        if within(&recorded) {
            print(&recorded, output)?;
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    output.flush()?;
    let is_empty = wanted.limit.unwrap_or(u64::MAX) == left;
    if is_empty && !wanted.follow && (wanted.since.is_some() || wanted.until.is_some()) {
        note(&format!("recount: session {id} has no events then"));
    }
    let mut tail = timeline.tail(reader, through.next());
    while wanted.follow && !closed {
        let Some(recorded) = tail.next().await else {
            break;
        };
        let recorded = recorded?;
        closed = ends(&recorded, session);
        if within(&recorded) {
            print(&recorded, output)?;
            output.flush()?;
        }
    }
    Ok(())
}

/// Whether nothing comes in a session any more.
fn ends(recorded: &Recorded, session: StreamId) -> bool {
    recorded.stream == session
        && matches!(
            recorded.event,
            Event::SessionClosed | Event::StreamCut { .. }
        )
}

/// Prints events as lines, of text or of JSON.
pub(crate) struct Printer {
    json: bool,
    lines: Lines,
}

impl Printer {
    /// A printer of JSON, or of text.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            lines: Lines::default(),
        }
    }

    /// Prints an event.
    pub(crate) fn print(
        &mut self,
        recorded: &Recorded,
        output: &mut Output,
    ) -> std::io::Result<()> {
        self.print_with(recorded, None, output)
    }

    /// Prints an event; in JSON, with the frame that told of it.
    fn print_with(
        &mut self,
        recorded: &Recorded,
        told_by: Option<&Frame>,
        output: &mut Output,
    ) -> std::io::Result<()> {
        let line = if self.json {
            json_line(recorded, told_by)?
        } else {
            self.lines.next(recorded, &output.look)
        };
        output.line(&line)
    }
}
