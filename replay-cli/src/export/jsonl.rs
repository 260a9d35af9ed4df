//! Events with their proof, as lines of JSON that can be read back.
//!
//! Each line says what an event is, for people and scripts, and holds the bytes of its record, for the proof. When
//! it is read back, the line is made again from the bytes: one that differs was changed.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use recount_store::{Error, Hash, Head, Piece, Position, RawEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::render::event;

/// What the first line says that the file is.
const KIND: &str = "recount export v1";
/// The format of the log that the bytes are of.
const LOG_FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct First {
    kind: String,
    log_format: u32,
}

/// A line for events that are not in the export.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gone {
    gone: u32,
    head: Hash,
}

/// The last line: a file that was cut short has none.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    events: u64,
    position: Position,
    head: Hash,
}

/// What is in a line, before anything of it is believed.
#[derive(Deserialize)]
struct Any<'a> {
    kind: Option<String>,
    log_format: Option<u32>,
    gone: Option<u32>,
    head: Option<Hash>,
    events: Option<u64>,
    position: Option<Position>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
}

/// Why a piece has no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSaid {
    #[error(transparent)]
    Read(#[from] Error),
    #[error(transparent)]
    Json(#[from] io::Error),
}

/// Writes the lines of an export, without line ends.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    events: u64,
    head: Head,
}

impl Writer {
    /// The first line.
    pub(crate) fn first() -> serde_json::Result<String> {
        serde_json::to_string(&First {
            kind: KIND.to_owned(),
            log_format: LOG_FORMAT,
        })
    }

    /// The line of a piece.
    ///
    /// # Errors
    ///
    /// Where an event cannot be read, or not be said in JSON.
    pub(crate) fn line(&mut self, piece: &Piece) -> Result<String, NotSaid> {
        self.head = after(self.head, piece);
        match piece {
            Piece::Event(raw) => {
                self.events += 1;
                event_line(raw)
            }
            Piece::Gone { events, head } => Ok(serde_json::to_string(&Gone {
                gone: *events,
                head: *head,
            })
            .map_err(io::Error::from)?),
        }
    }

    /// The last line.
    pub(crate) fn last(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Last {
            events: self.events,
            position: self.head.position,
            head: self.head.hash,
        })
    }
}

/// Reads the lines of an export, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    begun: bool,
    last: Option<Last>,
    writer: Writer,
}

/// Why a line is not one of an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("the file is not an export: its first line is no {KIND:?}")]
    NoExport,
    #[error("the export is of kind {0:?}, and this release reads {KIND:?}: use a newer one")]
    OtherKind(String),
    #[error(
        "the export is of a log of format {0}, and this release reads {LOG_FORMAT}: use a newer one"
    )]
    NewerLog(u32),
    #[error("it is no line of an export")]
    NoLine,
    #[error("its record is no record")]
    NoRecord,
    #[error("{0}")]
    Unreadable(String),
    #[error("what it says is not what its record holds")]
    Differs,
    #[error("the last line does not say what came before it")]
    OtherEnd,
    #[error("lines follow the last one")]
    Surplus,
    #[error("the file is cut short: its last line is missing")]
    CutShort,
}

impl Reader {
    /// Takes a line; gives the piece that it is, if it is one.
    ///
    /// # Errors
    ///
    /// Where it cannot be the next line of an export.
    pub(crate) fn take(&mut self, line: &str) -> Result<Option<Piece>, Wrong> {
        let any: Result<Any<'_>, _> = serde_json::from_str(line);
        if !self.begun {
            self.begun = true;
            let any = any.map_err(|_| Wrong::NoExport)?;
            let kind = any.kind.ok_or(Wrong::NoExport)?;
            return match any.log_format {
                _ if kind != KIND && kind.starts_with("recount export ") => {
                    Err(Wrong::OtherKind(kind))
                }
                Some(LOG_FORMAT) if kind == KIND => Ok(None),
                Some(newer) if kind == KIND => Err(Wrong::NewerLog(newer)),
                _ => Err(Wrong::NoExport),
            };
        }
        if self.last.is_some() {
            return Err(Wrong::Surplus);
        }
        let any = any.map_err(|_| Wrong::NoLine)?;
        let piece = match any {
            Any {
                record: Some(record),
                ..
            } => Piece::Event(raw_event(record).ok_or(Wrong::NoRecord)?),
            Any {
                gone: Some(events),
                head: Some(head),
                ..
            } => Piece::Gone { events, head },
            Any {
                events: Some(events),
                position: Some(position),
                head: Some(head),
                ..
            } => {
                let last = Last {
                    events,
                    position,
                    head,
                };
                if self.writer.last().ok().as_deref() != Some(line) {
                    return Err(Wrong::OtherEnd);
                }
                self.last = Some(last);
                return Ok(None);
            }
            _ => return Err(Wrong::NoLine),
        };
        let again = self
            .writer
            .line(&piece)
            .map_err(|error| Wrong::Unreadable(error.to_string()))?;
        if again == line || says_the_same_of_an_unknown(&again, line) {
            return Ok(Some(piece));
        }
        Err(Wrong::Differs)
    }

    /// Nothing follows.
    ///
    /// # Errors
    ///
    /// Where something should.
    pub(crate) fn finish(self) -> Result<(), Wrong> {
        match (self.begun, self.last) {
            (false, _) => Err(Wrong::NoExport),
            (true, None) => Err(Wrong::CutShort),
            (true, Some(_)) => Ok(()),
        }
    }
}

/// The event whose bytes a line holds; `None` where they are none.
pub(crate) fn raw_event(record: &RawValue) -> Option<RawEvent> {
    let text: String = serde_json::from_str(record.get()).ok()?;
    RawEvent::from_bytes(BASE64_STANDARD.decode(text).ok()?)
}

/// The line of an event.
pub(crate) fn event_line(raw: &RawEvent) -> Result<String, NotSaid> {
    let mut line = event::json_line(&raw.decode()?, None)?;
    let closed = line.pop();
    debug_assert_eq!(closed, Some('}'), "an object ends like that");
    line.push_str(",\"record\":\"");
    BASE64_STANDARD.encode_string(raw.as_bytes(), &mut line);
    line.push_str("\"}");
    Ok(line)
}

/// Where a log stands after a piece.
fn after(head: Head, piece: &Piece) -> Head {
    match piece {
        Piece::Event(event) => head.after(event.hash()),
        Piece::Gone { events, head: hash } => Head {
            position: Position(head.position.0.saturating_add(u64::from(*events))),
            hash: *hash,
        },
    }
}

/// Whether two lines of an event say the same, but for what this release does not know of it: a newer one has a name
/// for its type, and can read its payload.
pub(crate) fn says_the_same_of_an_unknown(ours: &str, line: &str) -> bool {
    let envelope = |line: &str| -> Option<Map<String, Value>> {
        let mut fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        fields.remove("data")?;
        Some(fields)
    };
    let (Some(mut ours), Some(mut theirs)) = (envelope(ours), envelope(line)) else {
        return false;
    };
    let unknown = Some(Value::from("Unknown"));
    let is_unknown = ours.remove("type") == unknown;
    let has_name = theirs
        .remove("type")
        .is_some_and(|name| Some(name) != unknown);
    is_unknown && has_name && ours == theirs
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use recount_store::{
        Cause, Event, Expected, Import, Json, Log, LogReader, MessageId, NewEvent, Provenance,
        Select, Seq, SessionId, StreamId, Timestamp, verify,
    };

    use super::*;
    use crate::render::fixture;

    fn written(reader: &LogReader, select: Select) -> Vec<String> {
        let mut writer = Writer::default();
        let mut lines = vec![Writer::first().expect("JSON")];
        for piece in reader.excerpt(select).expect("read") {
            lines.push(writer.line(&piece.expect("read")).expect("JSON"));
        }
        lines.push(writer.last().expect("JSON"));
        lines
    }

    fn read(lines: &[String]) -> Result<Vec<Piece>, (usize, Wrong)> {
        let mut reader = Reader::default();
        let mut pieces = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            pieces.extend(reader.take(line).map_err(|wrong| (number + 1, wrong))?);
        }
        reader.finish().map_err(|wrong| (lines.len(), wrong))?;
        Ok(pieces)
    }

    /// A log with all that is hard to say in JSON, and another session between.
    fn log(folder: &std::path::Path) -> Log {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let log = Log::open(folder.join("log")).expect("open");
        let at = fixture::at(0);
        let message = fixture::message();
        let tool = |input: &[u8]| {
            let event = Event::ToolCallStarted {
                message,
                run: 1,
                call: "call\u{0}\u{2028}".to_owned(),
                tool: "🦀 \"\\".to_owned(),
                input: Json(input.to_vec()),
            };
            NewEvent::live(event, at)
        };
        let queued = Event::MessageQueued {
            message,
            key: None,
            text: "line\nand \"quotes\"\r\t".to_owned(),
        };
        let unknown = Event::Unknown {
            type_number: 65_000,
            type_version: 9,
            payload: vec![0, 255, 10],
        };
        let hard = vec![
            NewEvent::live(queued, Timestamp(u64::MAX)),
            tool(b"{\"a\": 1e400,\r\n \"a\":\t2}").because(Cause::Sibling(0)),
            tool(b"{\"cut off"),
            tool(b"\"{\\\"cut off\""),
            tool(&[0xff, 0xfe]).known(Provenance::Backfilled),
            NewEvent::live(unknown, at).because(Cause::At(Position(1))),
        ];
        let session = StreamId::Session(fixture::session());
        let other = StreamId::Session(SessionId::from_bytes([9; 10]));
        let closed = || vec![NewEvent::live(Event::SessionClosed, at)];
        runtime.expect("a runtime").block_on(async {
            for (stream, events) in [(other, closed()), (session, hard), (other, closed())] {
                log.append(stream, Expected::Any, events)
                    .await
                    .expect("append");
            }
            log.append(session, Expected::Any, closed())
                .await
                .expect("append");
        });
        log
    }

    fn only() -> Select {
        Select::Streams(vec![StreamId::Session(fixture::session())])
    }

    #[test]
    fn it_reads_back_to_the_same_pieces_and_the_same_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(folder.path());
        for (select, name) in [(Select::All, "all"), (only(), "one")] {
            let lines = written(&log, select.clone());
            assert!(lines.iter().all(|line| !line.contains(['\n', '\r'])));
            let pieces = read(&lines).expect("read back");

            let mut import = Import::begin(folder.path().join(name)).expect("begin");
            for piece in &pieces {
                import.add(piece).expect("it follows");
            }
            import.finish().expect("finish");
            let imported = LogReader::open(folder.path().join(name)).expect("open");
            verify(&imported, None).expect("whole");
            assert_eq!(written(&imported, select), lines);
            let events = |reader: &LogReader| -> Vec<_> {
                let session = StreamId::Session(fixture::session());
                reader
                    .read(session, Seq::FIRST)
                    .map(|event| event.expect("read"))
                    .collect()
            };
            assert_eq!(events(&imported), events(&log));
        }
    }

    #[test]
    fn no_character_can_be_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = written(&log(folder.path()), only());
        // Of the bytes of a record, the chain of hashes proves that they are right: see the store.
        for (number, line) in lines.iter().enumerate() {
            // A type that this release does not know may have another name.
            let shown = line
                .find("Unknown\"")
                .or(line.find("\"record\""))
                .unwrap_or(line.len());
            for (place, character) in line.char_indices().filter(|(place, _)| *place < shown) {
                let other = if character == 'x' { "y" } else { "x" };
                let mut changed = lines.clone();
                changed[number].replace_range(place..place + character.len_utf8(), other);
                let head_of_gone =
                    line.starts_with("{\"gone\"") && place > line.find(':').unwrap_or(0);
                if !head_of_gone {
                    assert!(read(&changed).is_err(), "{}", changed[number]);
                }
            }
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = written(&log(folder.path()), only());
        let count = lines.len();
        assert_eq!(read(&[]), Err((0, Wrong::NoExport)));
        assert_eq!(read(&lines[1..]), Err((1, Wrong::NoExport)));
        assert_eq!(read(&lines[..count - 1]), Err((count - 1, Wrong::CutShort)));
        let twice = [lines.as_slice(), &lines[count - 1..]].concat();
        assert_eq!(read(&twice), Err((count + 1, Wrong::Surplus)));
        let mut without = lines.clone();
        without.remove(count - 2);
        assert_eq!(read(&without), Err((count - 1, Wrong::OtherEnd)));
        let newer = lines[0].replace("v1", "v2");
        let kind = "recount export v2".to_owned();
        assert_eq!(read(&[newer]), Err((1, Wrong::OtherKind(kind))));
        let newer = lines[0].replace("\"log_format\":1", "\"log_format\":7");
        assert_eq!(read(&[newer]), Err((1, Wrong::NewerLog(7))));
        for no_export in [
            "",
            "{}",
            "[]",
            "x",
            "{\"kind\":\"recount head v1\",\"log_format\":1}",
        ] {
            assert_eq!(
                read(&[no_export.to_owned()]),
                Err((1, Wrong::NoExport)),
                "{no_export}"
            );
        }
        for no_line in ["", "{}", "[]", "x", "{\"gone\":1}"] {
            let lines = [lines[0].clone(), no_line.to_owned()];
            assert_eq!(read(&lines), Err((2, Wrong::NoLine)), "{no_line}");
        }
    }

    #[test]
    fn a_type_of_a_newer_release_is_taken_by_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut lines = written(&log(folder.path()), only());
        let pieces = read(&lines).expect("read");
        let unknown = lines.iter_mut().find(|line| line.contains("\"Unknown\""));
        let line = unknown.expect("one is of no known type");
        let data =
            line.find(",\"type\"").expect("a type")..line.find(",\"record\"").expect("a record");
        line.replace_range(
            data,
            ",\"type\":\"MessageWhispered\",\"data\":{\"to\":\"you\"}",
        );
        assert_eq!(read(&lines), Ok(pieces));
        // But nothing else of it is.
        let line = lines.iter_mut().find(|line| line.contains("Whispered"));
        let line = line.expect("it was named");
        *line = line.replace("observed", "decided");
        assert!(matches!(read(&lines), Err((_, Wrong::Differs))));
    }

    #[test]
    fn the_lines_never_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(folder.path()).expect("open");
        let queued = Event::MessageQueued {
            message: MessageId::from_bytes([1; 10]),
            key: None,
            text: "hello".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            for stream in [StreamId::Engine, StreamId::Session(fixture::session())] {
                let event = NewEvent::live(queued.clone(), fixture::at(0));
                log.append(stream, Expected::Any, vec![event])
                    .await
                    .expect("append");
            }
        });
        expect![[r#"
            {"kind":"recount export v1","log_format":1}
            {"gone":1,"head":"ab850900aebf0ec3599dd8fb6dbee0dc465316a39239c3946648d4b4a0dc71db"}
            {"position":2,"stream":"session/081040g2081040g2","seq":1,"at":"2026-11-22T09:14:03.000000Z","cause":null,"class":"asked","provenance":"live","type":"MessageQueued","data":{"message":"040g2081040g2081","key":null,"text":"hello"},"record":"bgAAAAECAAECAAAAAAAAAAECAgICAgICAgICAQAAAAAAAADADP3l2WAGAAAAAAAAAAAAAAAAAQEBAQEBAQEBAQAFAAAAAAAAAGhlbGxvEvC781tSx7NFyrK/anKk1lX+IlmUDzp8Ekol54lJcSI="}
            {"events":1,"position":2,"head":"3f2da51e7f26c86129156bf54284b31e449b44d215cfd21edb35505fdc4de1c3"}"#]].assert_eq(&written(&log, only()).join("\n"));
    }
}
