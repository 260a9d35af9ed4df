//! Standard output and standard error, and how they want to be written to.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstream::{AutoStream, ColorChoice};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::render::Look;

/// Where answers go. What was written is there at the latest after [`Output::flush`].
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    /// Whether a person sees it at once.
    pub(crate) terminal: bool,
    /// How texts are to look there.
    pub(crate) look: Look,
}

impl Output {
    /// The process's standard output.
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let look = look(&out, terminal_size::terminal_size_of(&out));
        Self {
            terminal: out.is_terminal(),
            out: BufWriter::with_capacity(1 << 16, out),
            look,
        }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Writes a value as a line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }

    /// Hands over everything that was written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How texts are to look on standard error.
pub(crate) fn stderr_look() -> Look {
    let err = io::stderr();
    look(&err, terminal_size::terminal_size_of(&err))
}

fn look(
    stream: &impl anstream::stream::RawStream,
    size: Option<(terminal_size::Width, terminal_size::Height)>,
) -> Look {
    Look {
        colour: AutoStream::choice(stream) != ColorChoice::Never,
        width: size
            .filter(|_| stream.is_terminal())
            .map(|(width, _)| usize::from(width.0)),
        zone: TimeZone::system(),
    }
}
