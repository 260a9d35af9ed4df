//! `recount export`: a session, or everything, as something else.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use jiff::tz::TimeZone;
use recount_projections::{Projection as _, Transcript};
use recount_store::{LogReader, Position, Recorded, Select, Seq, SessionId, StreamId};
use serde_json::json;

use crate::args::{Export, Format};
use crate::export::jsonl::{NotSaid, Writer};
use crate::export::markdown::markdown;
use crate::export::otlp::request;
use crate::export::spans::Spans;
use crate::export::trace::trace;
use crate::failure::Failure;
use crate::output::Output;
use crate::pick;
use crate::progress::{Bar, with_bar};
use crate::timeline::Timeline;

/// Writes what is wanted to standard output, or into a new file.
pub(crate) fn run(
    reader: &LogReader,
    wanted: &Export,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let session = match &wanted.id {
        Some(text) => Some(pick::session(reader, text)?),
        None => None,
    };
    if wanted.texts && matches!(wanted.format, Format::Jsonl | Format::Markdown) {
        let what = "--texts is for trace and otlp; jsonl and markdown hold what was said anyway";
        return Err(Failure::usage(what));
    }
    let zone = output.look.zone.clone();
    let Some(path) = &wanted.out else {
        return write(reader, session, wanted, &zone, &mut |text| {
            output.text(text)
        });
    };
    let mut file = NewFile::begin(path)?;
    write(reader, session, wanted, &zone, &mut |text| file.text(text))?;
    let bytes = file.finish(path)?;
    if json {
        let file = path.display().to_string();
        output.json(&json!({ "file": file, "bytes": bytes }))?;
    } else {
        output.line(&format!("written: {}, {bytes} bytes", path.display()))?;
    }
    Ok(())
}

/// Up to the end of the log.
const LAST: Position = Position(u64::MAX);

/// Where the text of an export goes, piece by piece.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

fn write(
    reader: &LogReader,
    session: Option<SessionId>,
    wanted: &Export,
    zone: &TimeZone,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let picture = |spans: &Spans| match wanted.format {
        Format::Trace => serde_json::to_string(&trace(spans, wanted.texts)),
        _ => serde_json::to_string(&request(spans, wanted.texts)),
    };
    match (wanted.format, session) {
        (Format::Jsonl, session) => jsonl(reader, session, sink),
        (Format::Markdown, Some(session)) => {
            let spans = Spans::of(of_session(reader, session)?)?;
            let mut transcript = Transcript::default();
            for recorded in reader.read(StreamId::Session(session), Seq::FIRST) {
                transcript.apply(&recorded?);
            }
            Ok(sink(&markdown(session, &transcript, &spans, zone))?)
        }
        (Format::Markdown, None) => Err(Failure::usage(
            "a transcript is of one session; everything at once has none",
        )
        .try_next("recount sessions    shows what there is")),
        (Format::Trace | Format::Otlp, session) => {
            let spans = if let Some(session) = session {
                Spans::of(of_session(reader, session)?)?
            } else {
                let total = reader.head()?.position.0;
                Spans::of(with_bar(reader.read_all(Position::FIRST), READING, total))?
            };
            let text = picture(&spans).map_err(io::Error::from)?;
            sink(&text)?;
            Ok(sink("\n")?)
        }
    }
}

/// What a bar says while events are read.
const READING: &str = "reading";

/// The events of a session and its connection.
fn of_session(
    reader: &LogReader,
    session: SessionId,
) -> Result<impl Iterator<Item = recount_store::Result<Recorded>>, Failure> {
    let timeline = Timeline::of(reader, session)?;
    let count = timeline.count(reader)?;
    Ok(with_bar(
        timeline.events(reader, LAST, false),
        READING,
        count,
    ))
}

fn jsonl(reader: &LogReader, session: Option<SessionId>, sink: Sink<'_>) -> Result<(), Failure> {
    let select = match session {
        None => Select::All,
        Some(session) => {
            let connection = Timeline::of(reader, session)?.connection;
            let mut streams = vec![StreamId::Engine, StreamId::Session(session)];
            streams.extend(connection.map(StreamId::Connection));
            Select::Streams(streams)
        }
    };
    let mut bar = Bar::new();
    let mut writer = Writer::default();
    let mut line = |text: &str| -> Result<(), Failure> {
        sink(text)?;
        Ok(sink("\n")?)
    };
    line(&Writer::first().map_err(io::Error::from)?)?;
    let mut excerpt = reader.excerpt(select)?;
    while let Some(piece) = excerpt.next() {
        let told = writer.line(&piece?).map_err(|error| match error {
            NotSaid::Read(error) => error.into(),
            NotSaid::Json(error) => Failure::from(error),
        })?;
        line(&told)?;
        bar.show(excerpt.progress());
    }
    line(&writer.last().map_err(io::Error::from)?)
}

/// A file that is there once it is whole.
pub(crate) struct NewFile {
    file: BufWriter<tempfile::NamedTempFile>,
    bytes: u64,
}

impl NewFile {
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(taken(path));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        // What a process that is killed leaves behind says what it is.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!("{name}.part-"))
            .tempfile_in(folder.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| cannot_make(path, error))?;
        Ok(Self {
            file: BufWriter::new(file),
            bytes: 0,
        })
    }

    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.bytes += text.len() as u64;
        self.file.write_all(text.as_bytes())
    }

    /// Gives it its name; gives how long it is.
    pub(crate) fn finish(self, path: &Path) -> Result<u64, Failure> {
        let file = self
            .file
            .into_inner()
            .map_err(|error| cannot_make(path, error.into_error()))?;
        let synced = file.as_file().sync_all();
        synced.map_err(|error| cannot_make(path, error))?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(self.bytes),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(taken(path)),
            Err(error) => Err(cannot_make(path, error.error)),
        }
    }
}

fn taken(path: &Path) -> Failure {
    let what = format!("{} is there already; it was left as it is", path.display());
    Failure::new(what).try_next("name a file that does not exist")
}

fn cannot_make(path: &Path, error: io::Error) -> Failure {
    Failure::because(format!("cannot make {}", path.display()), error)
}
