//! `recount verify`: that the log is whole, and is the one that was signed.

use std::path::Path;

use recount_store::{
    CheckError, Error, Head, LogReader, Position, SessionId, SignedHead, StreamId, Verified, check,
    verify, verify_all,
};
use serde_json::{Value, json};

use super::decisions;
use crate::failure::Failure;
use crate::key_file;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::{text, time};
use crate::timeline::Timeline;

/// Proves that everything is whole, or one session and its connection; with `decided`, too, that what was decided is
/// what today's rules decide.
pub(crate) fn run(
    reader: &LogReader,
    only: Option<SessionId>,
    decided: bool,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let verified = match only {
        None => {
            let mut bar = Bar::new();
            verify_all(reader, |progress| bar.show(progress))
        }
        Some(session) => parts(reader, session),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return Err(disproven(error.into(), json, output)?),
    };
    let derived = decided
        .then(|| decisions::derive(reader, only))
        .transpose()?;
    // Of a few streams nothing is proven about the whole.
    if json {
        let mut answer = told_json(&verified, only.is_none());
        if let Some(derived) = &derived {
            answer["decided"] = decisions::told_json(derived);
        }
        let difference = derived.and_then(|derived| derived.first_difference);
        if let Some(difference) = difference {
            answer["ok"] = json!(false);
            answer["reason"] = json!("decisions");
            output.json(&answer)?;
            output.flush()?;
            return Err(decisions::differs(reader, &difference.recorded));
        }
        output.json(&answer)?;
        return Ok(());
    }
    output.line(&told(&verified))?;
    if only.is_none() {
        output.line(&told_head(&verified))?;
    }
    match derived {
        Some(derived) => decisions::told(reader, &derived, output),
        None => Ok(()),
    }
}

/// Proves that everything is whole and is what was signed, by the word of a file.
pub(crate) fn signed(
    reader: &LogReader,
    file: &Path,
    public_key: Option<&str>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let signed = read(file)?;
    let trusted = public_key.map(key_file::public).transpose()?;
    let mut bar = Bar::new();
    let checked = check(reader, &signed, trusted.as_ref(), |progress| {
        bar.show(progress);
    });
    drop(bar);
    let verified = match checked {
        Ok(verified) => verified,
        Err(error) => return Err(disproven(error, json, output)?),
    };
    let SignedHead {
        head,
        at,
        public_key,
        ..
    } = signed;
    if json {
        let mut answer = told_json(&verified, true);
        answer["signed"] = json!({
            "position": head.position,
            "hash": head.hash.to_string(),
            "at": time::rfc3339(at),
            "public_key": public_key.to_string(),
            "trusted": trusted.is_some(),
        });
        output.json(&answer)?;
        return Ok(());
    }
    output.line(&told(&verified))?;
    output.line(&told_head(&verified))?;
    output.line(&format!(
        "as signed up to position {} at {} by {public_key}",
        head.position,
        time::rfc3339(at),
    ))?;
    output.flush()?;
    key_file::note_trust(trusted.as_ref());
    Ok(())
}

fn parts(reader: &LogReader, session: SessionId) -> Result<Verified, Error> {
    let mut sum = verify(reader, Some(StreamId::Session(session)))?;
    if let Some(connection) = Timeline::of(reader, session)?.connection {
        let link = verify(reader, Some(StreamId::Connection(connection)))?;
        sum.events += link.events;
        sum.streams += link.streams;
        sum.unknown += link.unknown;
    }
    Ok(sum)
}

/// The signed head in a file.
pub(crate) fn read(file: &Path) -> Result<SignedHead, Failure> {
    let cannot = || format!("cannot use the signed head {}", file.display());
    let next = "recount sign --key FILE    prints one";
    let text =
        key_file::read(file).map_err(|error| Failure::because(cannot(), error).try_next(next))?;
    serde_json::from_str(&text).map_err(|error| Failure::because(cannot(), error).try_next(next))
}

/// Says in a word on standard output that the log is not proven, and gives what else there is to say.
fn disproven(error: CheckError, json: bool, output: &mut Output) -> Result<Failure, Failure> {
    let verdict = match &error {
        CheckError::NewerFormat { .. } => Verdict {
            reason: "newer_format",
            position: None,
            word: "not proven",
            what: "the signed head proves nothing here",
            next: Some("recount --version    says which release this is"),
        },
        CheckError::OtherKey { .. } => Verdict {
            reason: "other_key",
            position: None,
            word: "not proven",
            what: "the signed head proves nothing",
            next: Some(
                "name the key that signed, if you trust it; else get the file again from where it was kept",
            ),
        },
        CheckError::BadSignature { .. } => Verdict {
            reason: "bad_signature",
            position: None,
            word: "not proven",
            what: "the signed head proves nothing",
            next: Some("get the file again from where it was kept; the log was not looked at"),
        },
        CheckError::Short { found, .. } => Verdict {
            reason: "short",
            position: Some(found.next()),
            word: "not as signed",
            what: "the log is not the one that was signed",
            next: Some("what is there is whole and can be read: recount sessions"),
        },
        CheckError::CutOff { .. } => Verdict {
            reason: "cut_off",
            position: None,
            word: "not proven",
            what: "the signed head is too old",
            next: Some("hold the log against a newer one; recount verify proves what is there"),
        },
        CheckError::Differs { position, .. } => Verdict {
            reason: "differs",
            position: Some(*position),
            word: "not as signed",
            what: "the log is not the one that was signed",
            next: Some(
                "it was written again, or is another log; older signed heads narrow down where it begins",
            ),
        },
        CheckError::Log(Error::Corrupt { position, .. }) => Verdict {
            reason: "corrupt",
            position: Some(*position),
            word: "not whole",
            what: "the log is not whole",
            // Whoever knows where the log is says what to do.
            next: None,
        },
        CheckError::Log(Error::CorruptFrame { .. }) => Verdict {
            reason: "corrupt_frame",
            position: None,
            word: "not whole",
            what: "the log is not whole",
            next: Some("all events are, and do not need the frames"),
        },
        CheckError::Log(_) => return Ok(Failure::because("cannot verify the log", error)),
    };
    if json {
        let (what, frame) = match &error {
            CheckError::Log(Error::Corrupt { what, .. }) => (what.clone(), None),
            CheckError::Log(Error::CorruptFrame { what, number }) => (what.clone(), Some(*number)),
            error => (error.to_string(), None),
        };
        output.json(&json!({
            "ok": false,
            "reason": verdict.reason,
            "position": verdict.position,
            "frame": frame,
            "what": what,
        }))?;
    } else {
        output.line(&output.look.bad(verdict.word))?;
    }
    output.flush()?;
    let failure = Failure::because(verdict.what, error);
    Ok(match verdict.next {
        Some(next) => failure.try_next(next),
        None => failure,
    })
}

/// How a log that is not proven is spoken of.
struct Verdict {
    /// For machines.
    reason: &'static str,
    /// The first bad place, where there is one.
    position: Option<Position>,
    word: &'static str,
    what: &'static str,
    next: Option<&'static str>,
}

fn told_json(verified: &Verified, of_everything: bool) -> Value {
    let head = of_everything.then_some(verified.head);
    json!({
        "ok": true,
        "events": verified.events,
        "streams": verified.streams,
        "unknown": verified.unknown,
        "frames": of_everything.then_some(verified.frames),
        "position": head.map(|head| head.position),
        "head": head.map(|head| head.hash.to_string()),
    })
}

fn told(verified: &Verified) -> String {
    let unknown = match verified.unknown {
        0 => String::new(),
        1 => ", 1 of them of a newer release".to_owned(),
        many => format!(", {many} of them of a newer release"),
    };
    let frames = match verified.frames {
        0 => String::new(),
        some => format!("; {}", text::count(some, "frame")),
    };
    format!(
        "whole: {} in {}{unknown}{frames}",
        text::count(verified.events, "event"),
        text::count(verified.streams, "stream")
    )
}

fn told_head(verified: &Verified) -> String {
    let Head { position, hash } = verified.head;
    format!("head {hash} at position {position}")
}
