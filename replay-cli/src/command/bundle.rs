//! `recount bundle`: a session with its proof, for somebody who has no log.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use recount_store::{Head, LogReader, Piece, Position, Progress, Select, SignedHead, StreamId};
use serde_json::json;

use super::export::{NewFile, Sink};
use crate::args::Bundle;
use crate::export::bundle::{Checker, Writer, Wrong, streams};
use crate::export::jsonl::NotSaid;
use crate::export::redact::Redaction;
use crate::failure::Failure;
use crate::key_file;
use crate::output::Output;
use crate::pick;
use crate::progress::{Bar, with_bar};
use crate::render::time;
use crate::timeline::Timeline;

/// Writes a session with its proof.
pub(crate) fn run(
    reader: &LogReader,
    wanted: &Bundle,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let (Some(id), Some(file)) = (&wanted.id, &wanted.signed) else {
        unreachable!("the command line asks for both, or for neither");
    };
    let signed = super::verify::read(file)?;
    signed.verify_signature(None).map_err(|error| {
        Failure::because(
            format!("cannot use the signed head {}", file.display()),
            error,
        )
    })?;
    if signed.head.position > reader.head()?.position {
        return Err(other_log(&signed, "the log ends before it"));
    }
    let timeline = Timeline::of(reader, pick::session(reader, id)?)?;
    let mut redaction = Redaction::of(&wanted.redact);
    let events = timeline.events(reader, signed.head.position, true);
    for recorded in with_bar(events, "looking through it", timeline.count(reader)?) {
        redaction.look(&recorded?);
    }
    let withheld = redaction.finish();
    let Some(path) = &wanted.out else {
        let sink = &mut |text: &str| output.text(text);
        return write(reader, timeline, &signed, &withheld, sink);
    };
    let mut file = NewFile::begin(path)?;
    let sink = &mut |text: &str| file.text(text);
    write(reader, timeline, &signed, &withheld, sink)?;
    let bytes = file.finish(path)?;
    let withheld = withheld.len();
    if json {
        let file = path.display().to_string();
        output.json(&json!({ "file": file, "bytes": bytes, "withheld": withheld }))?;
    } else {
        output.line(&format!(
            "written: {}, {bytes} bytes, {withheld} events withheld",
            path.display()
        ))?;
    }
    Ok(())
}

fn write(
    reader: &LogReader,
    timeline: Timeline,
    signed: &SignedHead,
    withheld: &BTreeSet<Position>,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let session = StreamId::Session(timeline.session);
    let connection = timeline.connection.map(StreamId::Connection);
    let mut print = |lines: Vec<String>| -> Result<(), Failure> {
        for line in lines {
            sink(&line)?;
            sink("\n")?;
        }
        Ok(())
    };
    let mut bar = Bar::new();
    let mut head = Head::default();
    let mut after = HashMap::new();
    let mut writer = None;
    let mut excerpt = reader.excerpt(Select::All)?;
    while head.position < signed.head.position {
        let Some(piece) = excerpt.next() else {
            return Err(other_log(signed, "the log ends before it"));
        };
        bar.show(excerpt.progress());
        let raw = match piece? {
            Piece::Event(raw) => raw,
            Piece::Gone { events, head: hash } if writer.is_none() => {
                let position = Position(head.position.0 + u64::from(events));
                head = Head { position, hash };
                continue;
            }
            Piece::Gone { .. } => {
                let what = "what happened beside this session was compacted away, and its hashes with it: nothing can be bundled";
                return Err(
                    Failure::new(what).try_next("recount export ID    needs no hashes of others")
                );
            }
        };
        let recorded = raw.decode()?;
        let stream = recorded.stream;
        if stream == session && writer.is_none() {
            if recorded.seq != recount_store::Seq::FIRST {
                let what = "the front of this session was cut off: its beginning cannot be proven";
                return Err(Failure::new(what).try_next("recount export ID    holds what is left"));
            }
            let (begun, line) = Writer::begin(head, streams(session, connection, &after))?;
            print(vec![line])?;
            writer = Some(begun);
        }
        head = head.after(raw.hash());
        match &mut writer {
            None if Some(stream) == connection => drop(after.insert(stream, raw.hash())),
            None => {}
            Some(writer) if stream == session || Some(stream) == connection => {
                let lines = writer.event(&raw, withheld.contains(&recorded.position));
                print(lines.map_err(|error| match error {
                    NotSaid::Read(error) => Failure::from(error),
                    NotSaid::Json(error) => Failure::from(error),
                })?)?;
            }
            Some(writer) => print(writer.other(raw.hash())?)?,
        }
    }
    if head != signed.head {
        return Err(other_log(signed, "the log has another one there"));
    }
    let Some(writer) = writer else {
        return Err(other_log(signed, "the session began after it"));
    };
    print(writer.finish(signed)?)
}

fn other_log(signed: &SignedHead, why: &str) -> Failure {
    let position = signed.head.position;
    Failure::new(format!(
        "the head that was signed at position {position} is of no use: {why}"
    ))
    .try_next("recount sign --key FILE --out head.json    signs where the log stands now")
}

/// Checks a bundle, which needs no log.
pub(crate) fn check(
    file: &Path,
    public_key: Option<&str>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let trusted = public_key.map(key_file::public).transpose()?;
    let cannot =
        |error: io::Error| Failure::because(format!("cannot read {}", file.display()), error);
    let mut checker = Checker::default();
    let opened = File::open(file).map_err(cannot)?;
    let total = opened.metadata().map_err(cannot)?.len();
    let (mut bar, mut done) = (Bar::over("bytes"), 0);
    let mut lines = BufReader::new(opened);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).map_err(cannot)?;
        if length == 0 {
            break;
        }
        done += length as u64;
        // What comes through a pipe has no length that is known.
        if total > 0 {
            let doing = "checking";
            bar.show(Progress { doing, done, total });
        }
        let text = String::from_utf8_lossy(&line);
        let whole = text.strip_suffix('\n');
        let taken = checker.take(whole.unwrap_or(&text), trusted.as_ref());
        taken.map_err(|wrong| {
            let what = format!("not proven: {}, line {number}", file.display());
            match wrong {
                Wrong::NoLine if whole.is_none() => Failure::because(what, Wrong::CutShort),
                wrong => Failure::because(what, wrong),
            }
        })?;
    }
    drop(bar);
    let proven = checker.finish().map_err(|wrong| {
        Failure::because(format!("not proven: {}, its end", file.display()), wrong)
    })?;
    let signed = proven.signed;
    if json {
        output.json(&json!({
            "proven": true,
            "streams": proven.streams,
            "events": proven.events,
            "withheld": proven.withheld,
            "others": proven.others,
            "position": signed.head.position,
            "hash": signed.head.hash.to_string(),
            "at": time::rfc3339(signed.at),
            "public_key": signed.public_key.to_string(),
            "trusted": trusted.is_some(),
        }))?;
    } else {
        output.line(&format!(
            "proven: {} events of {}, {} withheld",
            proven.events,
            proven.streams.join(" and "),
            proven.withheld
        ))?;
        output.line(&format!(
            "by the head at position {}, signed at {} by {}",
            signed.head.position,
            time::rfc3339(signed.at),
            signed.public_key
        ))?;
    }
    output.flush()?;
    key_file::note_trust(trusted.as_ref());
    Ok(())
}
