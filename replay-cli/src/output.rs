//! Standard output and standard error, and how they want to be written to.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::OnceLock;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::pager::Pager;
use crate::render::Look;

/// The zone in which times are told to people, where it is not the system's.
static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// Has times told in UTC from now on.
pub(crate) fn tell_times_in_utc() {
    ZONE.get_or_init(|| TimeZone::UTC);
}

/// The zone in which times are told to people, and read where they name none.
pub(crate) fn zone() -> TimeZone {
    ZONE.get().cloned().unwrap_or_else(TimeZone::system)
}

/// Where texts go. What was written is there at the latest after [`Output::flush`].
pub(crate) struct Output {
    out: BufWriter<Box<dyn Write + Send>>,
    /// Whether a person sees it at once.
    pub(crate) terminal: bool,
    /// How texts are to look there.
    pub(crate) look: Look,
}

impl Output {
    /// The process's standard output: where answers go.
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let size = terminal_size::terminal_size_of(&out);
        Self::of(out, size)
    }

    /// The same for an answer that may be long: on a terminal, through the person's pager.
    pub(crate) fn paged() -> Self {
        let plain = Self::stdout();
        match Pager::wanted() {
            Some(pager) if plain.terminal => Self::new(pager, true, plain.look),
            _ => plain,
        }
    }

    /// The process's standard error: where everything else goes.
    pub(crate) fn stderr() -> Self {
        let err = io::stderr();
        let size = terminal_size::terminal_size_of(&err);
        Self::of(err, size)
    }

    fn of(
        stream: impl RawStream + IsTerminal + Send + 'static,
        size: Option<(terminal_size::Width, terminal_size::Height)>,
    ) -> Self {
        let terminal = IsTerminal::is_terminal(&stream);
        let look = Look {
            colour: AutoStream::choice(&stream) != ColorChoice::Never,
            width: size
                .filter(|_| terminal)
                .map(|(width, _)| usize::from(width.0)),
            zone: zone(),
        };
        Self::new(stream, terminal, look)
    }

    /// Where `out` leads.
    pub(crate) fn new(out: impl Write + Send + 'static, terminal: bool, look: Look) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 16, Box::new(out)),
            terminal,
            look,
        }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(text)?;
        self.text("\n")
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Writes a value as a line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.text("\n")
    }

    /// Hands over everything that was written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says a line on standard error. Where that cannot be written, nobody can be told.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
