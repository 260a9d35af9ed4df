//! `recount log`: the events of a session, with those of its connection between them.

use recount_store::{Event, Frame, LogReader, Recorded, SessionId};

use super::frames::Frames;
use crate::args;
use crate::failure::Failure;
use crate::output::Output;
use crate::render::event::{Lines, json_line};
use crate::render::frame;
use crate::timeline::Timeline;

/// Prints the events of a session, with `frames` those that they came from; with `follow`, those that come
/// too, until it is closed.
pub(crate) async fn run(
    reader: &LogReader,
    id: SessionId,
    args: &args::Log,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let follow = args.follow;
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let mut printer = Printer::new(json);
    let mut frames = args.frames.then(|| Frames::of(reader));
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
    let mut closed = false;
    for recorded in timeline.events(reader, through, follow) {
        let recorded = recorded?;
        closed = closed || recorded.event == Event::SessionClosed;
        print(&recorded, output)?;
    }
    output.flush()?;
    let mut tail = timeline.tail(reader, through.next());
    while follow && !closed {
        let Some(recorded) = tail.next().await else {
            break;
        };
        let recorded = recorded?;
        closed = recorded.event == Event::SessionClosed;
        print(&recorded, output)?;
        output.flush()?;
    }
    Ok(())
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
