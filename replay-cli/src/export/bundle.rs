//! A session with its proof, in one file for somebody who has no log.
//!
//! From the session's first event on, the file has something for each position of the log up to the one that was
//! signed: the event, or its hash. So the head that was signed can be made again, and every event is proven by that.

use std::collections::HashMap;
use std::io;

use recount_store::{
    CheckError, EventId, FrameNumber, Hash, Head, Position, PublicKey, RawEvent, Recorded, Seq,
    SignedHead, StreamId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::jsonl::{NotSaid, event_line, raw_event, says_the_same_of_an_unknown};
use crate::render::{event, time};

/// What the first line says that the file is.
const KIND: &str = "recount bundle v1";
/// The format of the log that the bytes are of.
const LOG_FORMAT: u32 = 1;
/// The hashes of one line, so that no line is long.
const OTHERS_MAX: usize = 256;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    kind: String,
    log_format: u32,
    /// The position before the first line that follows.
    position: Position,
    /// The head there.
    head: Hash,
    streams: Vec<Stream>,
}

/// A stream that the bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    /// Its name, as `recount log --json` gives it.
    pub(crate) stream: String,
    /// The hash that its first event here follows: zeros, where that is the first of all.
    pub(crate) after: Hash,
}

/// A line for an event that does not leave.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Withheld {
    position: Position,
    stream: String,
    seq: Seq,
    at: String,
    cause: Option<Position>,
    class: String,
    provenance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<FrameNumber>,
    r#type: String,
    #[serde(rename = "withheld")]
    hash: Hash,
}

/// A line for events of other streams.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Others {
    other: Vec<Hash>,
}

/// Writes the lines of a bundle, without line ends.
#[derive(Debug)]
pub(crate) struct Writer {
    others: Others,
}

impl Writer {
    /// Begins a bundle of these streams after a head; gives its first line.
    pub(crate) fn begin(before: Head, streams: Vec<Stream>) -> io::Result<(Self, String)> {
        let first = First {
            kind: KIND.to_owned(),
            log_format: LOG_FORMAT,
            position: before.position,
            head: before.hash,
            streams,
        };
        let others = Others::default();
        Ok((Self { others }, serde_json::to_string(&first)?))
    }

    /// The lines that an event of these streams needs.
    pub(crate) fn event(&mut self, raw: &RawEvent, withheld: bool) -> Result<Vec<String>, NotSaid> {
        let mut lines = self.others()?;
        lines.push(if withheld {
            let line = Withheld::of(&raw.decode()?, raw.hash());
            serde_json::to_string(&line).map_err(io::Error::from)?
        } else {
            event_line(raw)?
        });
        Ok(lines)
    }

    /// The line that an event of another stream fills, if it does.
    pub(crate) fn other(&mut self, hash: Hash) -> io::Result<Vec<String>> {
        self.others.other.push(hash);
        if self.others.other.len() < OTHERS_MAX {
            return Ok(Vec::new());
        }
        self.others()
    }

    /// The last lines.
    pub(crate) fn finish(mut self, signed: &SignedHead) -> io::Result<Vec<String>> {
        let mut lines = self.others()?;
        lines.push(serde_json::to_string(signed)?);
        Ok(lines)
    }

    fn others(&mut self) -> io::Result<Vec<String>> {
        let others = std::mem::take(&mut self.others);
        if others.other.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![serde_json::to_string(&others)?])
    }
}

impl Withheld {
    fn of(recorded: &Recorded, hash: Hash) -> Self {
        Self {
            position: recorded.position,
            stream: recorded.stream.to_string(),
            seq: recorded.seq,
            at: time::rfc3339(recorded.at),
            cause: recorded.cause,
            class: recorded.class.name().to_owned(),
            provenance: recorded.provenance.name().to_owned(),
            id: recorded.id,
            frame: recorded.frame,
            r#type: event::name(&recorded.event),
            hash,
        }
    }
}

/// What a bundle was proven to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Its streams.
    pub(crate) streams: Vec<String>,
    /// The events that it shows.
    pub(crate) events: u64,
    /// Those that it withholds.
    pub(crate) withheld: u64,
    /// Those of other streams.
    pub(crate) others: u64,
    /// The head that proves it.
    pub(crate) signed: SignedHead,
}

/// Why a bundle proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("the file is not a bundle: its first line is no {KIND:?}")]
    NoBundle,
    #[error("the bundle is of kind {0:?}, and this release reads {KIND:?}: use a newer one")]
    OtherKind(String),
    #[error("it is no line of a bundle")]
    NoLine,
    #[error("what it says is not what its record holds")]
    Differs,
    #[error("it is about another position than the one that comes next, {0}")]
    Misplaced(Position),
    #[error("its stream is none that the first line names")]
    Stranger,
    #[error("its number is not the one after the last of its stream")]
    Missing,
    #[error("its hash does not follow from it and the event before it in its stream")]
    DoesNotFollow,
    #[error("the events do not lead to the head that was signed")]
    OtherHead,
    #[error(transparent)]
    Signature(#[from] CheckError),
    #[error("lines follow the last one")]
    Surplus,
    #[error("the file is cut short: the signed head is missing")]
    CutShort,
}

/// Checks a bundle line by line.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    begun: bool,
    head: Head,
    streams: Vec<String>,
    /// By stream: the number of its last event here, and the hash that the next one follows.
    links: HashMap<String, (Option<Seq>, Hash)>,
    events: u64,
    withheld: u64,
    others: u64,
    signed: Option<SignedHead>,
}

/// What tells the kinds of lines apart.
#[derive(Deserialize)]
struct Any<'a> {
    kind: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    withheld: Option<&'a RawValue>,
    #[serde(borrow)]
    other: Option<&'a RawValue>,
}

impl Checker {
    /// Checks the next line.
    ///
    /// # Errors
    ///
    /// Where it cannot be the next line of a bundle that proves anything.
    pub(crate) fn take(&mut self, line: &str, trusted: Option<&PublicKey>) -> Result<(), Wrong> {
        if !self.begun {
            return self.first(line);
        }
        if self.signed.is_some() {
            return Err(Wrong::Surplus);
        }
        let any: Any<'_> = serde_json::from_str(line).map_err(|_| Wrong::NoLine)?;
        match any {
            Any {
                record: Some(record),
                ..
            } => self.event(record, line),
            Any {
                withheld: Some(_), ..
            } => self.withheld(line),
            Any { other: Some(_), .. } => {
                let others: Others = serde_json::from_str(line).map_err(|_| Wrong::NoLine)?;
                self.others += others.other.len() as u64;
                self.head = others.other.into_iter().fold(self.head, Head::after);
                Ok(())
            }
            Any { kind: Some(_), .. } => {
                let signed: SignedHead = serde_json::from_str(line).map_err(|_| Wrong::NoLine)?;
                if signed.head != self.head {
                    return Err(Wrong::OtherHead);
                }
                signed.verify_signature(trusted)?;
                self.signed = Some(signed);
                Ok(())
            }
            _ => Err(Wrong::NoLine),
        }
    }

    /// Nothing follows: gives what is proven.
    ///
    /// # Errors
    ///
    /// Where something should.
    pub(crate) fn finish(self) -> Result<Proven, Wrong> {
        if !self.begun {
            return Err(Wrong::NoBundle);
        }
        Ok(Proven {
            streams: self.streams,
            events: self.events,
            withheld: self.withheld,
            others: self.others,
            signed: self.signed.ok_or(Wrong::CutShort)?,
        })
    }

    fn first(&mut self, line: &str) -> Result<(), Wrong> {
        let any: Any<'_> = serde_json::from_str(line).map_err(|_| Wrong::NoBundle)?;
        match any.kind {
            Some(kind) if kind == KIND => {}
            Some(kind) if kind.starts_with("recount bundle ") => {
                return Err(Wrong::OtherKind(kind));
            }
            _ => return Err(Wrong::NoBundle),
        }
        let first: First = serde_json::from_str(line).map_err(|_| Wrong::NoBundle)?;
        // Positions are far from the largest number, and so is whatever is added to them.
        if first.log_format != LOG_FORMAT || first.position.0 > u64::MAX / 2 {
            return Err(Wrong::NoBundle);
        }
        self.begun = true;
        self.head = Head {
            position: first.position,
            hash: first.head,
        };
        for Stream { stream, after } in first.streams {
            self.links.insert(stream.clone(), (None, after));
            self.streams.push(stream);
        }
        Ok(())
    }

    fn event(&mut self, record: &RawValue, line: &str) -> Result<(), Wrong> {
        let raw = raw_event(record).ok_or(Wrong::NoLine)?;
        let recorded = raw.decode().map_err(|_| Wrong::Differs)?;
        let again = event_line(&raw).map_err(|_| Wrong::Differs)?;
        if again != line && !says_the_same_of_an_unknown(&again, line) {
            return Err(Wrong::Differs);
        }
        let stream = recorded.stream.to_string();
        let previous = self.place(recorded.position, &stream, recorded.seq, raw.hash())?;
        if !raw.follows(previous) {
            return Err(Wrong::DoesNotFollow);
        }
        self.events += 1;
        Ok(())
    }

    fn withheld(&mut self, line: &str) -> Result<(), Wrong> {
        let told: Withheld = serde_json::from_str(line).map_err(|_| Wrong::NoLine)?;
        self.place(told.position, &told.stream, told.seq, told.hash)?;
        self.withheld += 1;
        Ok(())
    }

    /// Puts an event in its places, in the log and in its stream; gives the hash that it follows.
    fn place(
        &mut self,
        position: Position,
        stream: &str,
        seq: Seq,
        hash: Hash,
    ) -> Result<Hash, Wrong> {
        let expected = self.head.position.next();
        if position != expected {
            return Err(Wrong::Misplaced(expected));
        }
        let (last, previous) = *self.links.get(stream).ok_or(Wrong::Stranger)?;
        let is_next = match last {
            Some(last) => Some(seq.0) == last.0.checked_add(1),
            // Only the first of all follows nothing.
            None => (seq == Seq::FIRST) == (previous == Hash::ZERO),
        };
        if !is_next {
            return Err(Wrong::Missing);
        }
        self.links.insert(stream.to_owned(), (Some(seq), hash));
        self.head = self.head.after(hash);
        Ok(previous)
    }
}

/// The streams of a bundle: the session, and its connection.
pub(crate) fn streams(
    session: StreamId,
    connection: Option<StreamId>,
    after: &HashMap<StreamId, Hash>,
) -> Vec<Stream> {
    let stream = |stream: StreamId| Stream {
        stream: stream.to_string(),
        after: after.get(&stream).copied().unwrap_or_default(),
    };
    [Some(session), connection]
        .into_iter()
        .flatten()
        .map(stream)
        .collect()
}
