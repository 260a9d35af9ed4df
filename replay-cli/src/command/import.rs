//! `recount import`: a new log from what `recount export` wrote.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use recount_store::{Error, Head, LogReader, Progress};
use serde_json::json;

use crate::export::jsonl::{Reader, Wrong};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::text;

/// A record with its JSON, in which each of its bytes may be six.
const LINE_BYTES_MAX: u64 = 8 * recount_store::limits::APPEND_BYTES_MAX as u64;

/// Makes a log in `directory` of what is in `file`.
pub(crate) fn run(
    file: &Path,
    directory: &Path,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let cannot = |error| Failure::because(format!("cannot read {}", file.display()), error);
    let (mut lines, total): (Box<dyn BufRead>, _) = if file == Path::new("-") {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(file).map_err(cannot)?;
        let bytes = file.metadata().map_err(cannot)?.len();
        (Box::new(BufReader::new(file)), bytes)
    };
    let mut import = recount_store::Import::begin(directory).map_err(not_begun)?;
    let mut reader = Reader::default();
    let (mut line, mut number) = (Vec::new(), 0_u64);
    let (mut bar, mut done) = (Bar::over("bytes"), 0);
    loop {
        line.clear();
        let mut bounded = lines.by_ref().take(LINE_BYTES_MAX);
        let length = bounded.read_until(b'\n', &mut line).map_err(cannot)?;
        if length == 0 {
            break;
        }
        number += 1;
        done += length as u64;
        // What comes through a pipe has no length that is known.
        if total > 0 {
            let doing = "importing";
            bar.show(Progress { doing, done, total });
        }
        let refused = |error| refused(file, Some(number), error);
        let text = String::from_utf8_lossy(&line);
        let whole = text.strip_suffix('\n');
        let piece = reader.take(whole.unwrap_or(&text)).map_err(|wrong| {
            if wrong == Wrong::NoLine && whole.is_none() {
                return refused(Wrong::CutShort.into());
            }
            refused(wrong.into())
        })?;
        if let Some(piece) = piece {
            import.add(&piece).map_err(|error| match error {
                Error::Corrupt { what, .. } => refused(what.into()),
                error => error.into(),
            })?;
        }
    }
    reader
        .finish()
        .map_err(|wrong| refused(file, None, wrong.into()))?;
    drop(bar);
    let head = import.finish().map_err(|error| match error {
        Error::Corrupt { what, .. } => refused(file, None, what.into()),
        error @ Error::LogExists { .. } => not_begun(error),
        error => error.into(),
    })?;
    tell(directory, head, json, output)
}

fn tell(directory: &Path, head: Head, json: bool, output: &mut Output) -> Result<(), Failure> {
    let streams = LogReader::open(directory)?.streams()?;
    let events: u64 = streams
        .iter()
        .map(|(_, stream)| stream.seq.0 + 1 - stream.from.0)
        .sum();
    if json {
        return Ok(output.json(&json!({
            "directory": directory.display().to_string(),
            "events": events,
            "streams": streams.len(),
            "position": head.position,
            "hash": head.hash.to_string(),
        }))?);
    }
    output.line(&format!(
        "imported: {} of {}, proven",
        text::count(events, "event"),
        text::count(streams.len() as u64, "stream")
    ))?;
    output.line(&format!(
        "the log stands at position {} with hash {}",
        head.position, head.hash
    ))?;
    output.line(&format!(
        "look at it with: recount --data {} sessions",
        directory.display()
    ))?;
    Ok(())
}

/// It is no export, or not what was exported.
fn refused(
    file: &Path,
    line: Option<u64>,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> Failure {
    let place = line.map_or_else(|| "its end".to_owned(), |line| format!("line {line}"));
    let what = format!("nothing was imported: {}, {place}", file.display());
    Failure::because(what, Refused(error))
        .try_next("get the file again; recount export ID --out FILE writes what can be imported")
}

/// Why a line was refused, as one error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(Box<dyn std::error::Error + Send + Sync>);

fn not_begun(error: Error) -> Failure {
    let taken = matches!(
        error,
        Error::LogExists { .. } | Error::NotADataDirectory { .. }
    );
    let failure = Failure::because("nothing was imported", error);
    if taken {
        failure.try_next("recount import FILE --into DIR    makes a log of its own")
    } else {
        failure
    }
}
