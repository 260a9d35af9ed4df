//! What the codec promises: old bytes keep their meaning, everything reads back, nothing breaks it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::arbitrary::{Arbitrary, Source};
use super::*;

/// Payloads of released versions: `number version payload event`, the payload in hexadecimal, the event as JSON.
const GOLDEN: &str = include_str!("golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn golden() -> impl Iterator<Item = (u16, u8, Vec<u8>, &'static str)> {
    GOLDEN.lines().map(|line| {
        let mut columns = line.splitn(4, ' ');
        let mut next = || columns.next().expect("four columns");
        let number = next().parse().expect("a type number");
        let version = next().parse().expect("a version");
        let payload = match next() {
            "-" => Vec::new(),
            payload => unhex(payload),
        };
        (number, version, payload, next())
    })
}

fn json(event: &Event) -> String {
    serde_json::to_string(event).expect("an event can be shown")
}

/// The one record that an append of `new` gives, at position 9 with number 4.
fn record(stream: StreamId, new: NewEvent) -> Vec<u8> {
    let mut bytes = Vec::new();
    Draft::encode(stream, &[new]).expect("it is small").place(
        Position(9),
        Seq(4),
        Hash([3; 32]),
        |record| {
            bytes.extend_from_slice(record.bytes());
        },
    );
    bytes
}

fn engine_record(event: Event) -> Vec<u8> {
    record(StreamId::Engine, NewEvent::live(event, Timestamp(7)))
}

fn decode(bytes: &[u8]) -> Result<Recorded> {
    let (record, rest) = Record::split(bytes).expect("a whole record");
    assert!(rest.is_empty());
    record.decode()
}

#[test]
fn golden_payloads_keep_their_meaning() {
    for (number, version, payload, shown) in golden() {
        assert_eq!(version, v1::VERSION);
        let event = v1::decode(number, &payload)
            .expect("a type of the table")
            .expect("a payload that can be read");
        assert_eq!(json(&event), shown);
        assert_eq!(event.type_number(), number);
        let mut again = Vec::new();
        v1::encode(&event, &mut again);
        assert_eq!(hex(&again), hex(&payload), "{shown}");
    }
}

#[test]
fn every_type_has_golden_bytes_and_a_class_that_its_number_tells() {
    let golden: BTreeSet<u16> = golden().map(|(number, ..)| number).collect();
    let table: BTreeSet<u16> = v1::TYPES.iter().map(|known| known.number).collect();
    let missing: String = table
        .difference(&golden)
        .copied()
        .map(golden_lines)
        .collect();
    assert!(missing.is_empty(), "to be added to golden.txt:\n{missing}");
    assert_eq!(golden, table);
    assert_eq!(table.len(), v1::TYPES.len(), "a number was given twice");
    for known in v1::TYPES {
        let unknown = Event::Unknown {
            type_number: known.number,
            type_version: 0,
            payload: Vec::new(),
        };
        assert_eq!(unknown.class(), known.class, "{}", known.name);
    }
}

/// What the format's page calls a type of a field.
fn word_for(wire: &str) -> String {
    let wire = wire.replace(' ', "").replace("<'a>", "");
    let inner = |of: &str| {
        let rest = wire
            .strip_prefix(of)?
            .strip_prefix('<')?
            .strip_suffix('>')?;
        Some(word_for(rest))
    };
    if let Some(inner) = inner("Option") {
        return format!("option of {inner}");
    }
    if let Some(inner) = inner("Vec") {
        return format!("list of {inner}");
    }
    match wire.as_str() {
        "&'astr" => "text".to_owned(),
        "Bytes" => "json".to_owned(),
        "Digest" => "hash".to_owned(),
        "Id" => "id".to_owned(),
        "Number" => "number".to_owned(),
        "Time" => "time".to_owned(),
        other => other.to_owned(),
    }
}

/// `GiveUp` as JSON has it: `give_up`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// The rows of the table of the format's page that has this head.
fn rows_of_the_page(head: &str) -> Vec<&'static str> {
    let page = include_str!("../../FORMAT.md");
    let table = page.lines().skip_while(|line| *line != head).skip(2);
    table.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn the_page_of_the_format_lists_the_types_that_there_are() {
    let row = |known: &v1::Type| {
        let fields: Vec<_> = known
            .fields
            .iter()
            .map(|(name, wire)| format!("{name}: {}", word_for(wire)))
            .collect();
        let (number, class, name) = (known.number, known.class.name(), known.name);
        let fields = match fields.join(", ") {
            none if none.is_empty() => none,
            some => format!("`{some}` "),
        };
        format!(
            "| {number} | {} | {class} | `{name}` | {fields}|",
            v1::VERSION
        )
    };
    let rows: Vec<String> = v1::TYPES.iter().map(row).collect();
    let page = rows_of_the_page("| number | version | class | name | fields |");
    assert_eq!(page, rows, "it should be:\n{}", rows.join("\n"));

    // The two choices with fields are held to the page by the parser that reads by it.
    let with_fields = ["| `Refusal`", "| `Target`"];
    let rows: Vec<String> = v1::CHOICES
        .iter()
        .flat_map(|(choice, names)| (0..).zip(*names).map(move |name| (choice, name)))
        .map(|(choice, (number, name))| format!("| `{choice}` | {number} | `{}` | |", snake(name)))
        .collect();
    let mut page = rows_of_the_page("| choice | number | name | fields |");
    page.retain(|row| !with_fields.iter().any(|choice| row.starts_with(choice)));
    assert_eq!(page, rows, "it should be:\n{}", rows.join("\n"));
}

#[test]
fn another_crate_reads_and_writes_the_same_bytes() {
    for (number, _, payload, shown) in golden() {
        assert_eq!(
            hex(&v1::reencode_elsewhere(number, &payload)),
            hex(&payload),
            "{shown}"
        );
    }
}

/// Lines for `golden.txt`, for a type that is new there. Lines that are there already are never changed.
fn golden_lines(number: u16) -> String {
    let line = |seed: u8| {
        let mut bytes = blake3::Hasher::new();
        bytes.update(&number.to_le_bytes()).update(&[seed]);
        let mut entropy = vec![0; 300];
        bytes.finalize_xof().fill(&mut entropy);
        let event = Event::arbitrary_of(number, &mut Source::new(entropy));
        let mut payload = Vec::new();
        v1::encode(&event, &mut payload);
        let payload = if payload.is_empty() {
            "-".to_owned()
        } else {
            hex(&payload)
        };
        format!("{number} {} {payload} {}\n", v1::VERSION, json(&event))
    };
    (0..4).map(line).collect()
}

#[test]
fn the_envelope_is_what_the_table_says() {
    let session = crate::SessionId::from_bytes([0xab; 10]);
    let new = NewEvent::live(Event::SessionClosed, Timestamp(0x0102))
        .because(Cause::At(Position(5)))
        .known(Provenance::Inferred);
    let bytes = record(StreamId::Session(session), new);
    let envelope = concat!(
        "56000000",               // length: 86
        "01",                     // record format
        "0600",                   // SessionClosed
        "01",                     // type version
        "0900000000000000",       // position
        "01abababababababababab", // stream
        "0400000000000000",       // number
        "0201000000000000",       // time
        "0500000000000000",       // cause
        "00",                     // asked
        "02",                     // inferred
        "00",                     // neither an id nor a frame
    );
    let (before, hash) = bytes.split_at(bytes.len() - HASH_LEN);
    assert_eq!(hex(before), envelope);
    let mut chained = vec![3; 32];
    chained.extend_from_slice(before);
    assert_eq!(*hash, *blake3::hash(&chained).as_bytes());
}

/// What stands in a record of `new` between its fixed fields and its hash, flags first.
fn after_the_fixed_fields(new: NewEvent) -> String {
    let bytes = record(StreamId::Engine, new);
    hex(&bytes[FLAGS..bytes.len() - HASH_LEN])
}

#[test]
fn an_id_and_a_frame_stand_before_the_payload() {
    let new = || {
        let event = Event::RecoveryStarted { sessions: 0x77 };
        NewEvent::live(event, Timestamp(7))
    };
    let id = EventId::from_bytes(*b"0123456789abcdef");
    let frame = FrameNumber(0x0102);
    let (id_bytes, frame_bytes) = ("30313233343536373839616263646566", "0201000000000000");
    let payload = "7700000000000000";
    for (new, expected) in [
        (new(), format!("00{payload}")),
        (new().with_id(id), format!("01{id_bytes}{payload}")),
        (new().from_frame(frame), format!("02{frame_bytes}{payload}")),
        (
            new().with_id(id).from_frame(frame),
            format!("03{id_bytes}{frame_bytes}{payload}"),
        ),
    ] {
        let known = (new.id, new.frame, new.event.clone());
        let bytes = record(StreamId::Engine, new.clone());
        assert_eq!(after_the_fixed_fields(new), expected);
        let (record, _) = Record::split(&bytes).expect("a whole record");
        assert_eq!((record.id(), record.frame()), (known.0, known.1));
        assert_eq!(hex(record.payload()), payload);
        assert_eq!(record.type_number(), 601);
        let recorded = record.decode().expect("it is whole");
        assert_eq!((recorded.id, recorded.frame, recorded.event), known);
    }
}

#[test]
fn flags_of_later_are_refused() {
    for flags in 0..=u8::MAX {
        let id = EventId::from_bytes([9; 16]);
        let new = NewEvent::live(Event::SessionClosed, Timestamp(7)).with_id(id);
        let mut bytes = record(StreamId::Engine, new.from_frame(FrameNumber(1)));
        bytes[FLAGS] = flags;
        let refused = Error::Corrupt {
            position: Position(9),
            what: format!("its flags cannot be {flags:#010b}"),
        };
        match decode(&bytes) {
            Ok(recorded) => assert_eq!((flags, recorded.event), (3, Event::SessionClosed)),
            // The fields that are not announced are taken for a payload, and a closed session has none.
            Err(error) if flags < 4 => assert!(error.to_string().contains("too many"), "{error}"),
            Err(error) => assert_eq!(error.to_string(), refused.to_string()),
        }
    }
}

#[test]
fn a_record_holds_all_that_its_flags_announce() {
    let mut bytes = engine_record(Event::SessionClosed);
    assert!(Record::split(&bytes).is_some());
    for flags in 1..4 {
        bytes[FLAGS] = flags;
        assert!(Record::split(&bytes).is_none(), "{flags}");
    }
    for length in 0..bytes.len() {
        bytes[FLAGS] = 0;
        let short = u32::try_from(length).expect("it is short");
        bytes[..4].copy_from_slice(&short.to_le_bytes());
        assert!(Record::split(&bytes).is_none(), "{length}");
    }
}

#[test]
fn siblings_become_positions() {
    let event = |cause| NewEvent::live(Event::StreamOpened, Timestamp(1)).because(cause);
    let mut draft = Draft::encode(
        StreamId::Engine,
        &[
            event(Cause::None),
            event(Cause::Sibling(0)),
            event(Cause::At(Position(2))),
            event(Cause::Sibling(1)),
        ],
    )
    .expect("it is small");
    let mut places = Vec::new();
    draft.place(Position(10), Seq(3), Hash([0; 32]), |record| {
        let recorded = record.decode().expect("it is whole");
        places.push((
            recorded.position.0,
            recorded.seq.0,
            recorded.cause.map(|at| at.0),
        ));
    });
    assert_eq!(
        places,
        [
            (10, 3, None),
            (11, 4, Some(10)),
            (12, 5, Some(2)),
            (13, 6, Some(11))
        ]
    );
}

#[test]
#[should_panic(expected = "event 0 of an append cannot follow from event 0 of it")]
fn a_cause_comes_first() {
    let new = NewEvent::live(Event::StreamOpened, Timestamp(1)).because(Cause::Sibling(0));
    let _ = Draft::encode(StreamId::Engine, &[new]);
}

#[test]
fn a_type_or_a_version_of_later_stays_what_it_is() {
    for (type_number, type_version) in [(99, 1), (60_000, 1), (106, 2), (106, 0)] {
        let event = Event::Unknown {
            type_number,
            type_version,
            payload: vec![1, 2, 3],
        };
        let id = EventId::from_bytes([5; 16]);
        let new = NewEvent::live(event.clone(), Timestamp(7))
            .with_id(id)
            .from_frame(FrameNumber(6));
        let bytes = record(StreamId::Engine, new);
        assert_eq!(
            decode(&bytes).expect("it is whole"),
            Recorded {
                position: Position(9),
                stream: StreamId::Engine,
                seq: Seq(4),
                at: Timestamp(7),
                cause: None,
                class: event.class(),
                provenance: Provenance::Live,
                id: Some(id),
                frame: Some(FrameNumber(6)),
                event,
            }
        );
    }
}

#[test]
fn an_append_has_a_limit() {
    let text = "x".repeat(limits::APPEND_BYTES_MAX);
    let message = crate::MessageId::from_bytes([0; 10]);
    let new = NewEvent::live(
        Event::MessageQueued {
            message,
            key: None,
            text,
        },
        Timestamp(1),
    );
    assert!(matches!(
        Draft::encode(StreamId::Engine, &[new]),
        Err(Error::TooLarge { bytes, limit: limits::APPEND_BYTES_MAX }) if bytes > limits::APPEND_BYTES_MAX
    ));
}

proptest! {
    #[test]
    fn every_event_reads_back(entropy in prop::collection::vec(any::<u8>(), 0..300)) {
        let source = &mut Source::new(entropy);
        let (id, frame) = (Option::arbitrary(source), Option::arbitrary(source));
        let event = Event::arbitrary(source);
        let bytes = record(
            StreamId::Engine,
            NewEvent { id, frame, ..NewEvent::live(event.clone(), Timestamp(7)) },
        );
        let recorded = decode(&bytes).expect("it is whole");
        prop_assert_eq!(recorded.class, event.class());
        prop_assert_eq!(&recorded.event, &event);
        prop_assert_eq!(recorded, Recorded {
            position: Position(9),
            stream: StreamId::Engine,
            seq: Seq(4),
            at: Timestamp(7),
            cause: None,
            class: event.class(),
            provenance: Provenance::Live,
            id,
            frame,
            event,
        });
        prop_assert!(Record::split(&bytes).expect("a whole record").0.follows(Hash([3; 32])));
    }

    #[test]
    fn any_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Some((record, _)) = Record::split(&bytes) {
            let _ = (record.id(), record.frame(), record.payload());
            let _ = record.decode();
        }
        for known in v1::TYPES {
            if let Some(Ok(event)) = v1::decode(known.number, &bytes) {
                // What is read is not larger than what it was read from.
                let mut again = Vec::new();
                v1::encode(&event, &mut again);
                prop_assert!(again.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_changed_bit_is_noticed(
        entropy in prop::collection::vec(any::<u8>(), 0..100),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = engine_record(Event::arbitrary(&mut Source::new(entropy)));
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Some((record, rest)) = Record::split(&bytes) {
            prop_assert!(!rest.is_empty() || !record.follows(Hash([3; 32])));
        }
    }

    #[test]
    fn derived_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode_derived::<(String, Vec<u64>, Option<Vec<String>>)>(&bytes);
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // A text of 2^63 bytes, of which none is there.
    let payload = [&[0; 10][..], &[0], &(1_u64 << 63).to_le_bytes()].concat();
    assert!(v1::decode(2, &payload).expect("MessageQueued").is_err());
    assert!(decode_derived::<String>(&(1_u64 << 63).to_le_bytes()).is_err());
    assert!(decode_derived::<Vec<u64>>(&(1_u64 << 40).to_le_bytes()).is_err());
}

#[test]
fn derived_data_reads_back() {
    let value = ("text".to_owned(), vec![1_u64, 2, 3]);
    let bytes = encode_derived(&value);
    assert_eq!(decode_derived(&bytes), Ok(value));
    assert!(decode_derived::<(String, Vec<u64>)>(&bytes[1..]).is_err());
    assert!(decode_derived::<String>(&bytes).is_err());
}
