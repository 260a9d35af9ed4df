//! Frames from the moment that they are kept to the one that they are dropped.

use proptest::prelude::*;
use redb::{Database, ReadableDatabase as _, backends::InMemoryBackend};

use super::chunk::{Chunk, cut};
use super::gathering::Kept;
use super::run::{Content, Item};
use super::*;
use crate::frame::{Frame, FrameContent};
use crate::id::{ConnectionId, Timestamp};
use crate::limits;

const A: ConnectionId = ConnectionId::from_bytes([1; 10]);
const B: ConnectionId = ConnectionId::from_bytes([2; 10]);

fn frame(number: u64, connection: ConnectionId, at: u64, content: FrameContent) -> Frame {
    Frame {
        number: FrameNumber(number),
        connection,
        at: Timestamp(at),
        content,
    }
}

fn received(bytes: &[u8]) -> FrameContent {
    FrameContent::Received(bytes.to_vec())
}

fn run_of(frames: &[Frame]) -> Run {
    let mut run = Run::starting(
        frames
            .first()
            .map_or(FrameNumber::FIRST, |frame| frame.number),
    );
    for frame in frames {
        run.push(Item {
            connection: frame.connection,
            at: frame.at,
            content: match &frame.content {
                FrameContent::Received(bytes) => Content::Received(bytes),
                FrameContent::Skipped(frames) => Content::Skipped(*frames),
            },
        });
    }
    run
}

/// So many frames from `first` on, each of this length, a microsecond apart.
fn many(first: u64, count: u64, length: usize) -> Run {
    let frames: Vec<_> = (first..first + count)
        .map(|number| frame(number, A, number, received(&vec![b'x'; length])))
        .collect();
    run_of(&frames)
}

/// What is in a chunk, or why it cannot be read.
fn read(first: FrameNumber, bytes: &[u8]) -> Result<Vec<Frame>, String> {
    Chunk::parse(first, bytes)
        .and_then(|chunk| chunk.frames())
        .map(|run| run.frames().collect())
        .map_err(|error| error.to_string())
}

fn any_frames() -> impl Strategy<Value = Vec<Frame>> {
    let content = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(FrameContent::Received),
        1 => (200_000_usize..300_000).prop_map(|length| received(&vec![b'x'; length])),
        1 => any::<u32>().prop_map(FrameContent::Skipped),
    ];
    let item = (prop_oneof![Just(A), Just(B)], any::<u64>(), content);
    (1_u64..1 << 40, prop::collection::vec(item, 0..12)).prop_map(|(first, items)| {
        (first..)
            .zip(items)
            .map(|(number, (connection, at, content))| frame(number, connection, at, content))
            .collect()
    })
}

proptest! {
    #[test]
    fn a_run_reads_back_and_says_where_it_ends(frames in any_frames(), after in any::<[u8; 3]>()) {
        let run = run_of(&frames);
        let mut bytes = Vec::new();
        run.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), run.encoded_len());
        bytes.extend(after);
        let (read, rest) = Run::split(&bytes).expect("it is one");
        prop_assert_eq!(rest, after);
        prop_assert_eq!(&read, &run);
        prop_assert_eq!(read.frames().collect::<Vec<_>>(), frames);
    }

    #[test]
    fn a_run_cut_anywhere_is_no_run(frames in any_frames(), end in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        run_of(&frames).encode(&mut bytes);
        prop_assert!(Run::split(&bytes[..end.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_a_run_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok((run, rest)) = Run::split(&bytes) {
            let mut again = Vec::new();
            run.encode(&mut again);
            again.extend_from_slice(rest);
            prop_assert_eq!(again, bytes);
        }
    }

    /// However the frames came to be written, the chunks hold them all, in order, each within its bounds.
    #[test]
    fn chunks_hold_what_the_runs_did(
        frames in any_frames(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(frames.len() + 1)).collect();
        cuts.extend([0, frames.len()]);
        cuts.sort_unstable();
        let runs: Vec<_> = cuts
            .windows(2)
            .filter(|cut| cut[0] < cut[1])
            .map(|cut| run_of(&frames[cut[0]..cut[1]]))
            .collect();
        let mut held = Vec::new();
        for (first, bytes) in cut(&runs) {
            let frames = read(first, &bytes).expect("it was just written");
            prop_assert_eq!(frames[0].number, first);
            let run = run_of(&frames);
            prop_assert!(frames.len() == 1 || run.items().len() <= limits::FRAMES_CHUNK_BYTES_MAX);
            held.extend(frames);
        }
        prop_assert_eq!(held, frames);
    }

    #[test]
    fn a_chunk_that_was_changed_is_never_read(
        frames in any_frames().prop_filter("frames", |frames| !frames.is_empty()),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let (first, mut bytes) = cut([&run_of(&frames)]).swap_remove(0);
        let at = at.index(bytes.len());
        prop_assert!(read(first, &bytes[..at]).is_err());
        prop_assert!(read(first.next(), &bytes).is_err());
        bytes[at] ^= change;
        prop_assert!(read(first, &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_a_chunk_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(FrameNumber::FIRST, &bytes).is_err());
    }
}

/// A chunk whose checksum is right and whose content is this.
fn forged(count: u32, raw_length: u32, stream: &[u8]) -> Vec<u8> {
    let mut header = vec![1];
    header.extend(count.to_le_bytes());
    header.extend(raw_length.to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&1_u64.to_le_bytes());
    hasher.update(&header);
    hasher.update(stream);
    header.extend(hasher.finalize().as_bytes());
    header.extend(stream);
    header
}

#[test]
fn a_chunk_that_lies_is_refused_before_it_takes_memory() {
    let compress = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("there is memory");
    let bomb = compress(&vec![0; 100 << 20]);
    let largest = u32::try_from(limits::FRAMES_WAITING_BYTES_MAX).expect("it is small");
    let damaged = |what: &str| {
        Err(format!(
            "the frames as received are damaged at number 1: {what}"
        ))
    };
    let cases = [
        (
            forged(1, u32::MAX, &bomb),
            damaged("a chunk of 4294967295 bytes"),
        ),
        (
            forged(1, largest, &bomb),
            damaged(&format!(
                "its chunk cannot be read: Destination buffer is too small: {} bytes needed, {largest} given",
                100 << 20
            )),
        ),
        (forged(0, 0, &compress(&[])), damaged("a chunk of 0 frames")),
        (
            forged(1, 50, &compress(&[0; 23])),
            damaged("its chunk has another length than it says"),
        ),
        (
            forged(2, 23, &compress(&[0; 23])),
            damaged("it is cut short")
                .map_err(|error: String| error.replace("number 1", "number 2")),
        ),
        (
            forged(1, 24, &compress(&[0; 24])),
            damaged("bytes follow the last frame"),
        ),
        (
            forged(1, 23, &compress(&[0; 23])),
            Ok(vec![frame(
                1,
                ConnectionId::from_bytes([0; 10]),
                0,
                received(b""),
            )]),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(FrameNumber::FIRST, &bytes), expected);
    }
}

#[test]
fn a_chunk_is_full_by_bytes_or_by_frames_and_a_long_frame_has_its_own() {
    let lengths = |runs: &[Run]| -> Vec<usize> {
        let chunks = cut(runs);
        let frames = chunks.iter().map(|(first, bytes)| read(*first, bytes));
        frames
            .map(|frames| frames.expect("it is whole").len())
            .collect()
    };
    let count = u64::from(limits::FRAMES_CHUNK_COUNT_MAX);
    assert_eq!(lengths(&[many(1, count + 1, 0)]), [1024, 1]);
    // With their headers these are four to a chunk.
    let quarter = limits::FRAMES_CHUNK_BYTES_MAX / 4 - 23;
    assert_eq!(lengths(&[many(1, 3, quarter), many(4, 3, quarter)]), [4, 2]);
    let long = limits::FRAMES_CHUNK_BYTES_MAX;
    assert_eq!(
        lengths(&[many(1, 1, 1), many(2, 2, long), many(4, 1, 1)]),
        [1, 1, 1, 1]
    );
    assert_eq!(lengths(&[]), [0_usize; 0]);
}

#[test]
fn frames_that_say_the_same_words_take_a_fraction_of_their_bytes() {
    let run = many(1, 500, 400);
    let chunks = cut([&run]);
    let compressed: usize = chunks.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(compressed * 10 < run.items().len(), "{compressed} bytes");
}

#[test]
fn what_gathers_is_numbered_taken_once_and_goes_on() {
    let gathering = Gathering::starting(FrameNumber(7));
    assert_eq!(gathering.take(), None);
    let kept = |number| Kept {
        number: Some(FrameNumber(number)),
        is_much: false,
    };
    assert_eq!(gathering.keep(A, Timestamp(1), b"one"), kept(7));
    gathering.skip(B, Timestamp(2));
    gathering.skip(B, Timestamp(3));
    gathering.skip(A, Timestamp(4));
    assert_eq!(gathering.keep(A, Timestamp(5), b""), kept(9));
    assert_eq!(
        gathering.take(),
        Some(run_of(&[
            frame(7, A, 1, received(b"one")),
            frame(8, A, 4, FrameContent::Skipped(1)),
            frame(9, A, 5, received(b"")),
            frame(10, B, 2, FrameContent::Skipped(2)),
        ]))
    );
    assert_eq!(gathering.take(), None);
    assert_eq!(gathering.keep(B, Timestamp(6), b"two"), kept(11));
    assert_eq!(
        gathering.take(),
        Some(run_of(&[frame(11, B, 6, received(b"two"))]))
    );
}

#[test]
fn much_is_said_once_and_too_much_is_counted() {
    let gathering = Gathering::starting(FrameNumber::FIRST);
    let quarter = vec![0; limits::FRAMES_WAITING_BYTES_MAX / 4 - 23];
    let keep = |bytes: &[u8]| {
        let kept = gathering.keep(A, Timestamp(1), bytes);
        (kept.number.map(|number| number.0), kept.is_much)
    };
    assert_eq!(keep(b"small"), (Some(1), false));
    assert_eq!(keep(&quarter), (Some(2), true));
    assert_eq!(keep(&quarter), (Some(3), false));
    assert_eq!(keep(&quarter), (Some(4), false));
    assert_eq!(keep(&quarter), (None, false));
    assert_eq!(keep(&quarter), (None, false));
    // There is room for this one, and for what says that two are missing before it.
    assert_eq!(keep(b"small"), (Some(6), false));
    let missing = frame(5, A, 1, FrameContent::Skipped(2));
    let run = gathering.take().expect("frames wait");
    assert_eq!(run.frames().nth(4), Some(missing));
    assert!(run.items().len() <= limits::FRAMES_WAITING_BYTES_MAX);
    assert_eq!(keep(&quarter), (Some(7), true));
    // Longer than all that may wait.
    let longest = vec![0; limits::FRAMES_WAITING_BYTES_MAX];
    assert_eq!(
        Gathering::starting(FrameNumber::FIRST)
            .keep(A, Timestamp(1), &longest)
            .number,
        None
    );
}

/// A database in memory, with these chunks' runs settled one after the other.
fn settled(settlings: &[Vec<Run>]) -> Database {
    let database = Database::builder()
        .create_with_backend(InMemoryBackend::new())
        .expect("a database");
    for runs in settlings {
        change(&database, |transaction| settle(transaction, runs));
    }
    database
}

fn change<T>(database: &Database, change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> T {
    let transaction = database.begin_write().expect("a transaction");
    let changed = change(&transaction).expect("a change");
    transaction.commit().expect("a commit");
    changed
}

fn look<T>(database: &Database, look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> T {
    let transaction = database.begin_read().expect("a transaction");
    look(&transaction).expect("a look")
}

fn ends_of(database: &Database) -> (u64, u64) {
    let ends = look(database, ends);
    (ends.from.0, ends.next.0)
}

#[test]
fn settled_frames_are_found_by_any_of_their_numbers() {
    let database = settled(&[]);
    assert_eq!(ends_of(&database), (1, 1));
    assert_eq!(look(&database, |t| at(t, FrameNumber::FIRST)), None);
    assert_eq!(look(&database, |t| verify(t, FrameNumber::FIRST)), None);

    let database = settled(&[vec![many(1, 3, 5), many(4, 2, 5)], vec![many(6, 1, 5)]]);
    assert_eq!(ends_of(&database), (1, 7));
    let found = |number| look(&database, |t| at(t, FrameNumber(number)));
    for number in 1..=5 {
        assert_eq!(found(number), Some(many(1, 5, 5)), "{number}");
    }
    assert_eq!(found(6), Some(many(6, 1, 5)));
    assert_eq!(found(7), None);
    let verified = |number| look(&database, |t| verify(t, FrameNumber(number)));
    assert_eq!(verified(1), Some(many(1, 5, 5)));
    assert_eq!(verified(6), Some(many(6, 1, 5)));
    assert_eq!(verified(7), None);
}

#[test]
fn old_frames_go_in_whole_chunks_and_numbers_go_on() {
    let database = settled(&[
        vec![many(1, 5, 5)],
        vec![many(6, 5, 5)],
        vec![many(11, 5, 5)],
    ]);
    let drop_before = |old| change(&database, |t| drop_old(t, old)).0;
    assert_eq!(drop_before(FramesBefore::Number(FrameNumber(5))), 1);
    assert_eq!(ends_of(&database), (1, 16));
    assert_eq!(drop_before(FramesBefore::Number(FrameNumber(10))), 6);
    assert_eq!(ends_of(&database), (6, 16));
    // The frame of that very time stays.
    assert_eq!(drop_before(FramesBefore::Time(Timestamp(10))), 6);
    assert_eq!(drop_before(FramesBefore::Time(Timestamp(11))), 11);
    assert_eq!(
        look(&database, |t| at(t, FrameNumber::FIRST)),
        Some(many(11, 5, 5))
    );
    assert_eq!(drop_before(FramesBefore::Time(Timestamp(u64::MAX))), 16);
    assert_eq!(drop_before(FramesBefore::Number(FrameNumber(99))), 16);
    assert_eq!(ends_of(&database), (16, 16));
    change(&database, |t| settle(t, [&many(16, 1, 5)]));
    assert_eq!(ends_of(&database), (16, 17));
    let first = look(&database, |t| verify(t, FrameNumber::FIRST));
    assert_eq!(first, Some(many(16, 1, 5)));
}

#[test]
fn a_missing_chunk_and_a_damaged_one_are_found() {
    let database = settled(&[
        vec![many(1, 5, 5)],
        vec![many(6, 5, 5)],
        vec![many(11, 5, 5)],
    ]);
    let verified = |number| {
        let transaction = database.begin_read().expect("a transaction");
        verify(&transaction, FrameNumber(number))
            .map_err(|fault| fault.near(crate::id::Position::FIRST).to_string())
    };
    change(&database, |t| {
        let mut frames = t.open_table(table::FRAMES)?;
        frames.remove(6)?;
        let mut bytes = frames.get(11)?.expect("it is there").value().to_vec();
        *bytes.last_mut().expect("a byte") ^= 1;
        frames.insert(11, bytes.as_slice())?;
        Ok(())
    });
    assert_eq!(verified(1), Ok(Some(many(1, 5, 5))));
    let damaged = |number, what| {
        Err(format!(
            "the frames as received are damaged at number {number}: {what}"
        ))
    };
    assert_eq!(
        verified(11),
        damaged(11, "the checksum of its chunk is not that of its bytes")
    );
    change(&database, |t| {
        t.open_table(table::FRAMES)?.remove(11)?;
        settle(t, [&many(11, 5, 5)])
    });
    assert_eq!(verified(6), damaged(6, "it is missing"));
}
