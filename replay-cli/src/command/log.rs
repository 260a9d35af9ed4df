//! `recount log`: the events of a session, with those of its connection between them.

use recount_store::{Event, LogReader, Recorded, SessionId};

use crate::failure::Failure;
use crate::output::Output;
use crate::render::event::{Lines, json_line};
use crate::timeline::Timeline;

/// Prints the events of a session; with `follow`, those that come too, until it is closed.
pub(crate) async fn run(
    reader: &LogReader,
    id: SessionId,
    follow: bool,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let mut printer = Printer::new(json);
    let mut closed = false;
    for recorded in timeline.events(reader, through, follow) {
        let recorded = recorded?;
        closed = closed || recorded.event == Event::SessionClosed;
        printer.print(&recorded, output)?;
    }
    output.flush()?;
    let mut tail = timeline.tail(reader, through.next());
    while follow && !closed {
        let Some(recorded) = tail.next().await else {
            break;
        };
        let recorded = recorded?;
        closed = recorded.event == Event::SessionClosed;
        printer.print(&recorded, output)?;
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
        let line = if self.json {
            json_line(recorded)?
        } else {
            self.lines.next(recorded, &output.look)
        };
        output.line(&line)
    }
}
