//! Parts of logs taken out, and put into new logs: all that is proven of them is proven there too.

use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;
use recount_store::{
    Error, Expected, FrameNumber, Hash, Head, Import, Log, LogReader, NewEvent, Options, Piece,
    Position, RawEvent, Recorded, Select, Seq, StreamId, Timestamp, verify,
};

use crate::{runtime, said, session};

/// So small that a log settles every few appends.
const OPTIONS: Options = Options {
    keep_frames: true,
    settle_bytes: 12 << 10,
};

#[derive(Debug, Clone)]
enum Step {
    /// Events for a stream: how many, how long, and the number of the frame that told of them.
    Append(u8, usize, usize, Option<u64>),
    /// The front of a stream goes, up to this part of it.
    Cut(u8, f64),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let frame = prop::option::of(1..40_u64);
    prop_oneof![
        8 => (0..4_u8, 1..8_usize, 0..2000_usize, frame)
            .prop_map(|(stream, count, length, frame)| Step::Append(stream, count, length, frame)),
        1 => (0..4_u8, 0.0..=1.0).prop_map(|(stream, part)| Step::Cut(stream, part)),
        1 => Just(Step::Compact),
    ]
}

async fn live(log: &Log, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Append(n, count, length, frame) => {
                let event = said("x".repeat(length));
                let event = NewEvent {
                    frame: frame.map(FrameNumber),
                    ..event
                };
                let events = vec![event; count];
                let appended = log.append(session(n), Expected::Any, events).await;
                appended.expect("append");
            }
            Step::Cut(n, part) => {
                let last = log.stream_head(session(n)).expect("read");
                let last = last.map_or(0, |head| head.seq.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "some number of few"
                )]
                let before = (part * last as f64) as u64 + 1;
                match log.cut(session(n), Seq(before), Timestamp(9)).await {
                    Ok(_) | Err(Error::NothingToCut { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Compact => {
                log.compact(|_| {}).await.expect("compact");
            }
        }
    }
}

fn pieces(reader: &LogReader, select: Select) -> Vec<Piece> {
    let excerpt = reader.excerpt(select).expect("read");
    excerpt.collect::<Result<_, _>>().expect("read")
}

fn import(directory: &std::path::Path, pieces: &[Piece]) -> Result<Head, Error> {
    let mut import = Import::begin(directory)?;
    pieces.iter().try_for_each(|piece| import.add(piece))?;
    import.finish()
}

fn events(reader: &LogReader, n: u8) -> Vec<Recorded> {
    let events = reader.read(session(n), Seq::FIRST);
    events.collect::<Result<_, _>>().expect("read")
}

/// The head after each position that is told of.
fn heads(pieces: &[Piece]) -> HashMap<Position, Hash> {
    let mut at = Head::default();
    let step = |piece: &Piece| {
        at = match piece {
            Piece::Gone { events, head } => Head {
                position: Position(at.position.0 + u64::from(*events)),
                hash: *head,
            },
            Piece::Event(event) => {
                let both = [at.hash.0, event.hash().0].concat();
                Head {
                    position: at.position.next(),
                    hash: Hash(blake3::hash(&both).into()),
                }
            }
        };
        (at.position, at.hash)
    };
    pieces.iter().map(step).collect()
}

fn streams(numbers: &[u8]) -> Select {
    Select::Streams(numbers.iter().map(|n| session(*n)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_imported_is_what_was_there(
        steps in prop::collection::vec(step(), 1..40),
        chosen in prop::sample::subsequence(vec![0_u8, 1, 2, 3], 1..=4),
        more in prop::collection::vec(step(), 0..10),
    ) {
        runtime().block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let log = Log::open_with(folder.path().join("old"), OPTIONS).expect("open");
            live(&log, &steps).await;
            let whole = pieces(&log, Select::All);
            let part = pieces(&log, streams(&chosen));

            let new = folder.path().join("new");
            let head = import(&new, &part).expect("import");
            prop_assert!(head == Head::default() || heads(&whole).get(&head.position) == Some(&head.hash));
            let reader = LogReader::open(&new).expect("open");
            let verified = verify(&reader, None).expect("whole");
            prop_assert_eq!(verified.head, head);
            for n in 0..4 {
                let expected = if chosen.contains(&n) { events(&log, n) } else { Vec::new() };
                prop_assert_eq!(events(&reader, n), expected);
            }
            prop_assert_eq!(pieces(&reader, streams(&chosen)), part.clone());
            prop_assert_eq!(pieces(&reader, Select::All), part);
            drop(reader);

            // It is a log as any other: it can be written, cut and compacted, and is whole after that.
            let imported = Log::open_with(&new, OPTIONS).expect("open");
            let told = chosen.iter().flat_map(|n| events(&log, *n)).filter_map(|event| event.frame).max();
            let connection = recount_store::ConnectionId::from_bytes([7; 10]);
            let kept = imported.keep_frame(connection, Timestamp(1), b"{}");
            prop_assert!(kept > told, "{:?} is the number of a frame that an event names", kept);
            live(&imported, &more).await;
            live(&imported, &[Step::Append(0, 1, 1, None)]).await;
            verify(&imported, None).expect("whole");
            imported.close().await.expect("close");
            let reader = LogReader::open(&new).expect("open");
            verify(&reader, None).expect("whole");

            // So is an import of everything.
            let copy = folder.path().join("copy");
            prop_assert_eq!(import(&copy, &whole).expect("import"), log.head().expect("read"));
            prop_assert_eq!(pieces(&LogReader::open(&copy).expect("open"), Select::All), whole);
            Ok(())
        })?;
    }

    #[test]
    fn nothing_that_was_changed_is_imported(
        steps in prop::collection::vec(step(), 1..20),
        chosen in prop::sample::subsequence(vec![0_u8, 1, 2, 3], 1..=3),
        place: prop::sample::Index, byte: prop::sample::Index, how in 0..4,
    ) {
        runtime().block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let log = Log::open_with(folder.path().join("old"), OPTIONS).expect("open");
            live(&log, &steps).await;
            let mut part = pieces(&log, streams(&chosen));
            let places: Vec<usize> = (0..part.len())
                .filter(|at| matches!(part[*at], Piece::Event(_)))
                .collect();
            if places.is_empty() {
                return Ok(());
            }
            let at = places[place.index(places.len())];
            let Piece::Event(event) = &part[at] else { unreachable!("an event") };
            match how {
                0 => {
                    let mut bytes = event.as_bytes().to_vec();
                    let byte = byte.index(bytes.len());
                    bytes[byte] ^= 1;
                    // What is not even a record is no piece.
                    let Some(changed) = RawEvent::from_bytes(bytes) else { return Ok(()) };
                    part[at] = Piece::Event(changed);
                }
                // The last of everything may be missing: only who knows how many there were can tell.
                1 if at + 1 < part.len() => drop(part.remove(at)),
                2 => part.insert(at, part[at].clone()),
                3 if at > 0 && part[at - 1] != part[at] => part.swap(at - 1, at),
                _ => return Ok(()),
            }
            let new = folder.path().join("new");
            let refused = import(&new, &part);
            prop_assert!(matches!(refused, Err(Error::Corrupt { .. })), "{:?}", refused);
            prop_assert!(!new.exists());
            Ok(())
        })?;
    }
}

#[test]
fn a_directory_that_has_something_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path().join("log")).expect("open");
    drop(log);
    let taken = Import::begin(folder.path().join("log")).expect_err("refused");
    assert!(matches!(taken, Error::LogExists { .. }), "{taken}");

    let foreign = Import::begin(folder.path()).expect_err("refused");
    assert!(
        matches!(&foreign, Error::NotADataDirectory { found, .. } if found == "log"),
        "{foreign}"
    );

    // Somebody else is faster.
    let both = folder.path().join("both");
    let slow = Import::begin(&both).expect("begin");
    let fast = Import::begin(&both).expect("begin");
    fast.finish().expect("finish");
    let late = slow.finish().expect_err("refused");
    assert!(matches!(late, Error::LogExists { .. }), "{late}");
    let names: Vec<_> = fs::read_dir(&both).expect("list").collect();
    assert_eq!(names.len(), 1);
    let reader = LogReader::open(&both).expect("open");
    assert_eq!(verify(&reader, None).expect("whole").head, Head::default());
}

#[test]
fn numbers_that_no_log_has_are_refused_and_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path().join("old")).expect("open");
    let appended = runtime().block_on(log.append(StreamId::Engine, Expected::Any, vec![said("")]));
    appended.expect("append");
    let [Piece::Event(event)] = &pieces(&log, Select::All)[..] else {
        panic!("one event");
    };
    // The position and the number, as the bytes of a record have them.
    for field in [8, 27] {
        let mut bytes = event.as_bytes().to_vec();
        bytes[field..field + 8].fill(0xff);
        let event = RawEvent::from_bytes(bytes).expect("a record");
        let refused = import(&folder.path().join("new"), &[Piece::Event(event)]);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    let gone = Piece::Gone {
        events: 0,
        head: Hash::ZERO,
    };
    let refused = import(&folder.path().join("new"), &[gone]);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}
