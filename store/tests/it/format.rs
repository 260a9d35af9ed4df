//! A log read by what `FORMAT.md` says, without a line of the store's own reading.
//!
//! The parser here takes the tables of types and choices from the page itself.

use std::collections::HashMap;

use recount_store::{
    Cause, ConnectionId, Event, EventId, Expected, FrameNumber, FramesBefore, Hash, Log, NewEvent,
    Options, Position, Provenance, Recorded, SessionId, StreamId, Timestamp, Verified, verify,
};
use redb::{ReadOnlyDatabase, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::{Map, Value};

use crate::runtime;

const PAGE: &str = include_str!("../../FORMAT.md");
const GOLDEN: &str = include_str!("../../src/codec/golden.txt");

// ---- the page

/// The tables of the page that payloads are read by.
struct Page {
    /// By number and version: the name and the fields.
    types: HashMap<(u16, u8), (String, Fields)>,
    /// By choice and number: the name and the fields.
    choices: HashMap<(String, u32), (String, Fields)>,
}

/// The fields of a type or a choice.
enum Fields {
    Named(Vec<(String, String)>),
    /// One field without a name.
    Bare(String),
}

impl Page {
    fn read() -> Self {
        let types = rows("| number | version | class | name | fields |").map(|row| {
            let [number, version, _, name, fields] = row[..] else {
                panic!("five columns: {row:?}")
            };
            let key = (number.parse().expect("u16"), version.parse().expect("u8"));
            (key, (name.to_owned(), self::fields(fields)))
        });
        let choices = rows("| choice | number | name | fields |").map(|row| {
            let [choice, number, name, fields] = row[..] else {
                panic!("four columns: {row:?}")
            };
            let key = (choice.to_owned(), number.parse().expect("u32"));
            (key, (name.to_owned(), self::fields(fields)))
        });
        Self {
            types: types.collect(),
            choices: choices.collect(),
        }
    }
}

/// The rows of the table with this head, each as its columns.
fn rows(head: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let table = PAGE.lines().skip_while(move |line| *line != head).skip(2);
    table.map_while(|line| {
        let inner = line.strip_prefix('|')?.strip_suffix('|')?;
        let column = |column: &'static str| column.trim().trim_matches('`');
        Some(inner.split('|').map(column).collect())
    })
}

fn fields(column: &str) -> Fields {
    if !column.is_empty() && !column.contains(": ") {
        return Fields::Bare(column.to_owned());
    }
    let named = column.split(", ").filter(|field| !field.is_empty());
    let field = |field: &str| {
        let (name, kind) = field.split_once(": ").expect("name: type");
        (name.to_owned(), kind.to_owned())
    };
    Fields::Named(named.map(field).collect())
}

// ---- bytes

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, width: usize) -> u64 {
        let bytes = self.take(width).iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn long(&mut self) -> &'a [u8] {
        let length = self.number(8);
        self.take(usize::try_from(length).expect("a length"))
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.long().to_vec()).expect("UTF-8")
    }

    /// The value of a type that the page names, as JSON shows it.
    fn value(&mut self, kind: &str, page: &Page) -> Value {
        if let Some(inner) = kind.strip_prefix("option of ") {
            return match self.number(1) {
                0 => Value::Null,
                1 => self.value(inner, page),
                other => panic!("an option cannot begin with {other}"),
            };
        }
        if let Some(inner) = kind.strip_prefix("list of ") {
            return (0..self.number(8))
                .map(|_| self.value(inner, page))
                .collect();
        }
        match kind {
            "u16" => self.number(2).into(),
            "u32" => self.number(4).into(),
            "u64" | "time" | "number" => self.number(8).into(),
            "id" => base32(self.take(10)).into(),
            "hash" => hex(self.take(32)).into(),
            "text" => self.text().into(),
            "json" => {
                let json = self.long();
                serde_json::from_slice(json)
                    .unwrap_or_else(|_| String::from_utf8_lossy(json).into_owned().into())
            }
            choice => {
                let number = u32::try_from(self.number(4)).expect("four bytes");
                let (name, fields) = &page.choices[&(choice.to_owned(), number)];
                match self.fields(fields, page) {
                    None => name.clone().into(),
                    Some(value) => Map::from_iter([(name.clone(), value)]).into(),
                }
            }
        }
    }

    fn fields(&mut self, fields: &Fields, page: &Page) -> Option<Value> {
        match fields {
            Fields::Named(fields) if fields.is_empty() => None,
            Fields::Named(fields) => {
                let field =
                    |(name, kind): &(String, String)| (name.clone(), self.value(kind, page));
                Some(Value::Object(fields.iter().map(field).collect()))
            }
            Fields::Bare(kind) => Some(self.value(kind, page)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let shown = digits.map(|digit| char::from_digit(digit.into(), 16).expect("a digit"));
    shown.collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Crockford's base 32, the highest bits first.
fn base32(id: &[u8]) -> String {
    let bits = id
        .iter()
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let symbol = |n: u32| {
        let symbol = usize::try_from(bits >> (75 - 5 * n) & 31).expect("five bits");
        char::from(b"0123456789abcdefghjkmnpqrstvwxyz"[symbol])
    };
    (0..16).map(symbol).collect()
}

// ---- blocks and records

/// What a record says, every part of it.
#[derive(Debug, PartialEq)]
struct Told {
    position: u64,
    stream: String,
    seq: u64,
    at: u64,
    cause: u64,
    class: &'static str,
    provenance: &'static str,
    id: Option<String>,
    frame: Option<u64>,
    event: Value,
}

impl Told {
    /// The same, from what the store reads.
    fn of(recorded: &Recorded) -> Self {
        Self {
            position: recorded.position.0,
            stream: recorded.stream.to_string(),
            seq: recorded.seq.0,
            at: recorded.at.0,
            cause: recorded.cause.map_or(0, |cause| cause.0),
            class: recorded.class.name(),
            provenance: recorded.provenance.name(),
            id: recorded.id.map(|id| id.to_string()),
            frame: recorded.frame.map(|frame| frame.0),
            event: serde_json::to_value(&recorded.event).expect("it can be shown"),
        }
    }
}

/// What a walk over the blocks has seen.
#[derive(Default)]
struct Walk {
    told: Vec<Told>,
    /// Of each stream, its last number and hash.
    streams: HashMap<String, (u64, [u8; 32])>,
    head: [u8; 32],
}

fn blake3_of(before: [u8; 32], bytes: &[u8]) -> [u8; 32] {
    blake3::hash(&[before.as_slice(), bytes].concat()).into()
}

impl Walk {
    fn block(&mut self, first: u64, bytes: &[u8], page: &Page) {
        let mut rest = Bytes(bytes);
        assert_eq!(rest.number(1), 1, "the format of a block");
        let count = rest.number(4);
        let head = rest.take(32);
        for position in first..first + count {
            let length = Bytes(rest.0).number(4);
            let record = rest.take(usize::try_from(length).expect("a length"));
            self.record(position, record, page);
        }
        assert!(rest.0.is_empty());
        assert_eq!(self.head, head);
    }

    fn record(&mut self, position: u64, record: &[u8], page: &Page) {
        let (before, hash) = record.split_at(record.len() - 32);
        let mut rest = Bytes(before);
        rest.take(4);
        assert_eq!(rest.number(1), 1, "the format of a record");
        let number = u16::try_from(rest.number(2)).expect("two bytes");
        let version = u8::try_from(rest.number(1)).expect("a byte");
        assert_eq!(rest.number(8), position);
        let (kind, id) = (rest.number(1), rest.take(10));
        let stream = match kind {
            0 => "engine".to_owned(),
            1 => format!("session/{}", base32(id)),
            2 => format!("connection/{}", base32(id)),
            other => panic!("no kind of stream: {other}"),
        };
        let (seq, at, cause) = (rest.number(8), rest.number(8), rest.number(8));
        let class = ["asked", "observed", "decided"][usize::from(rest.take(1)[0])];
        let provenance = ["live", "backfilled", "inferred"][usize::from(rest.take(1)[0])];
        let flags = rest.number(1);
        assert_eq!(flags & !3, 0);
        let id = (flags & 1 != 0).then(|| hex(rest.take(16)));
        let frame = (flags & 2 != 0).then(|| rest.number(8));
        let event = if let Some((name, fields)) = page.types.get(&(number, version)) {
            let mut event = Map::from_iter([("type".to_owned(), name.clone().into())]);
            if let Some(data) = rest.fields(fields, page) {
                event.insert("data".to_owned(), data);
            }
            assert!(rest.0.is_empty(), "bytes are left over");
            Value::Object(event)
        } else {
            let payload: Value = rest.0.to_vec().into();
            serde_json::json!({"type": "Unknown", "data": {
                "type_number": number, "type_version": version, "payload": payload,
            }})
        };

        let (last, last_hash) = self.streams.get(&stream).copied().unwrap_or_default();
        assert_eq!(seq, last + 1);
        let chained = blake3_of(last_hash, before);
        assert_eq!(chained, hash);
        self.streams.insert(stream.clone(), (seq, chained));
        self.head = blake3_of(self.head, hash);
        self.told.push(Told {
            position,
            stream,
            seq,
            at,
            cause,
            class,
            provenance,
            id,
            frame,
            event,
        });
    }
}

// ---- the log

/// An event of every line of the golden file, so of every type, and two that nobody knows. No two batches
/// have an id in common.
pub(crate) fn events(batch: u128) -> Vec<(NewEvent, Option<&'static str>)> {
    let golden = GOLDEN.lines().map(|line| {
        let columns: Vec<&str> = line.splitn(4, ' ').collect();
        let [number, version, payload, shown] = columns[..] else {
            panic!("four columns: {line}")
        };
        let number = number.parse().expect("u16");
        let version = version.parse().expect("u8");
        (
            number,
            version,
            unhex(payload.trim_matches('-')),
            Some(shown),
        )
    });
    let later = [(99, 1, vec![1, 2], None), (2, 200, Vec::new(), None)];
    let event = |(n, (type_number, type_version, payload, shown))| {
        // A type that is known is written by its bytes, and read back as itself.
        let event = Event::Unknown {
            type_number,
            type_version,
            payload,
        };
        let mut new = NewEvent::live(event, Timestamp(1_000 + n));
        new.id = (n % 3 == 0).then(|| EventId::from_random(u128::from(n) << 64 | batch));
        new.frame = (n % 4 == 1).then_some(FrameNumber(n + 1));
        new.provenance = match n % 5 {
            3 => Provenance::Backfilled,
            4 => Provenance::Inferred,
            _ => Provenance::Live,
        };
        new.cause = match n {
            0 => Cause::None,
            n => Cause::At(Position(n)),
        };
        (new, shown)
    };
    (0..).zip(golden.chain(later)).map(event).collect()
}

pub(crate) fn streams() -> [StreamId; 3] {
    [
        StreamId::Engine,
        StreamId::Session(SessionId::from_text("a")),
        StreamId::Connection(ConnectionId::from_text("b")),
    ]
}

/// Makes a log of these events; what the store reads of it, and what it has proven.
fn made(folder: &std::path::Path) -> (Vec<Told>, Verified) {
    let log = Log::open(folder).expect("a log");
    runtime().block_on(async {
        for (n, (new, _)) in events(1).into_iter().enumerate() {
            log.append(streams()[n % 3], Expected::Any, vec![new])
                .await
                .expect("appended");
        }
        // And a block of many.
        let many = events(2).into_iter().map(|(new, _)| new);
        log.append(StreamId::Engine, Expected::Any, many.collect())
            .await
            .expect("appended");
        let read = log
            .read_all(Position::FIRST)
            .map(|recorded| Told::of(&recorded.expect("read")));
        let read = read.collect();
        let verified = verify(&log, None).expect("whole");
        log.close().await.expect("closed");
        (read, verified)
    })
}

#[test]
fn a_log_is_what_the_page_says() {
    const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
    let folder = tempfile::tempdir().expect("a folder");
    let (read, verified) = made(folder.path());

    let database = ReadOnlyDatabase::open(folder.path().join("log.redb")).expect("a database");
    let transaction = database.begin_read().expect("a transaction");
    let meta = transaction.open_table(META).expect("a table");
    let row = |name| {
        meta.get(name)
            .expect("read")
            .expect("a row")
            .value()
            .to_vec()
    };
    assert_eq!(row("magic"), b"recount log");
    assert_eq!(row("format"), [1, 0, 0, 0]);

    let page = Page::read();
    let mut walk = Walk::default();
    let blocks = transaction.open_table(BLOCKS).expect("a table");
    for entry in blocks.iter().expect("read") {
        let (first, bytes) = entry.expect("read");
        walk.block(first.value(), bytes.value(), &page);
    }
    assert_eq!(Hash(walk.head), verified.head.hash);
    assert_eq!(walk.told.len() as u64, verified.events);
    let shown = events(1).into_iter().map(|(_, shown)| shown);
    for (told, shown) in walk.told.iter().zip(shown.clone().chain(shown)) {
        if let Some(shown) = shown {
            let shown: Value = serde_json::from_str(shown).expect("JSON");
            assert_eq!(told.event, shown);
        }
    }
    assert_eq!(walk.told, read);
}

#[test]
fn frames_are_what_the_page_says() {
    const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    const FRAMES: TableDefinition<u64, &[u8]> = TableDefinition::new("frames");
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = ([7; 10], [8; 10]);
    runtime().block_on(async {
        // A chunk that is dropped, then one of an entry, then one of a log that keeps none.
        for keep_frames in [true, true, false] {
            let options = Options {
                keep_frames,
                ..Options::default()
            };
            let log = Log::open_with(folder.path(), options).expect("a log");
            for (connection, at, text) in [(a, 5, "one"), (b, 6, ""), (a, 4, "three")] {
                let connection = ConnectionId::from_bytes(connection);
                let kept = log.keep_frame(connection, Timestamp(at), text.as_bytes());
                assert_eq!(kept.is_some(), keep_frames);
            }
            log.close().await.expect("closed");
        }
        let log = Log::open(folder.path()).expect("a log");
        let old = FramesBefore::Number(FrameNumber(4));
        let remaining = log.drop_frames(old).await;
        assert_eq!(remaining.expect("dropped"), FrameNumber(4));
        log.close().await.expect("closed");
    });

    let database = ReadOnlyDatabase::open(folder.path().join("log.redb")).expect("a database");
    let transaction = database.begin_read().expect("a transaction");
    let meta = transaction.open_table(META).expect("a table");
    let from = meta.get("frames_from").expect("read").expect("a row");
    let mut next = Bytes(from.value()).number(8);
    let mut told = Vec::new();
    let frames = transaction.open_table(FRAMES).expect("a table");
    for entry in frames.iter().expect("read") {
        let (first, bytes) = entry.expect("read");
        assert_eq!(first.value(), next);
        let (header, stream) = bytes.value().split_at(49);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&next.to_le_bytes());
        hasher.update(&header[..17]);
        hasher.update(stream);
        let mut header = Bytes(header);
        assert_eq!(header.number(1), 1);
        let (count, length) = (header.number(4), header.number(4));
        let latest = header.number(8);
        assert_eq!(header.take(32), hasher.finalize().as_bytes());
        let items = zstd::stream::decode_all(stream).expect("zstd");
        assert_eq!(items.len() as u64, length);
        let mut items = Bytes(&items);
        let mut times = Vec::new();
        for _ in 0..count {
            let (kind, connection) = (items.number(1), items.take(10).to_vec());
            let (at, number) = (items.number(8), items.number(4));
            times.push(at);
            told.push((
                next,
                connection,
                at,
                match kind {
                    0 => {
                        let bytes = items.take(usize::try_from(number).expect("a length"));
                        Ok(String::from_utf8(bytes.to_vec()).expect("text"))
                    }
                    1 => Err(number),
                    other => panic!("there is no kind {other}"),
                },
            ));
            next += 1;
        }
        assert_eq!(items.0, [0; 0]);
        assert_eq!(times.iter().max(), Some(&latest));
    }
    let expected = [
        (4, a.to_vec(), 5, Ok("one".to_owned())),
        (5, b.to_vec(), 6, Ok(String::new())),
        (6, a.to_vec(), 4, Ok("three".to_owned())),
        (7, a.to_vec(), 5, Err(2)),
        (8, b.to_vec(), 6, Err(1)),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_record_made_by_hand_has_the_hash_that_the_log_has() {
    // A session closed: the first record of a log, with an id, and from a frame.
    let parts: [&[u8]; 14] = [
        &(86_u32 + 16 + 8).to_le_bytes(),
        &[1],
        &6_u16.to_le_bytes(),
        &[1],
        &1_u64.to_le_bytes(),
        &[0; 11],
        &1_u64.to_le_bytes(),
        &1_800_000_000_000_000_u64.to_le_bytes(),
        &0_u64.to_le_bytes(),
        &[0],
        &[0],
        &[3],
        &[0xab; 16],
        &5_u64.to_le_bytes(),
    ];
    let before = parts.concat();
    let new = NewEvent::live(Event::SessionClosed, Timestamp(1_800_000_000_000_000))
        .with_id(EventId::from_bytes([0xab; 16]))
        .from_frame(FrameNumber(5));
    let log = Log::in_memory().expect("a log");
    let hash = runtime().block_on(async {
        log.append(StreamId::Engine, Expected::NoStream, vec![new])
            .await
            .expect("appended");
        verify(&log, None).expect("whole").head.hash
    });
    let record = blake3_of([0; 32], &before);
    assert_eq!(hash, Hash(blake3_of([0; 32], &record)));
}
