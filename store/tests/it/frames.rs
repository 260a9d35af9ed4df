//! Frames as received: never waited for, never lost behind what they told of, dropped when they are old.

use std::path::Path;

use recount_store::{
    ConnectionId, Error, Event, Expected, Frame, FrameContent, FrameNumber, FramesBefore, Log,
    LogReader, Options, Position, Timestamp, verify,
};
use redb::{ReadableTable as _, TableDefinition};

use crate::{runtime, said, session};

const CONNECTION: ConnectionId = ConnectionId::from_bytes([9; 10]);

fn frame(number: u64, text: &str) -> Frame {
    Frame {
        number: FrameNumber(number),
        connection: CONNECTION,
        at: Timestamp(number),
        content: FrameContent::Received(text.as_bytes().to_vec()),
    }
}

/// Keeps a frame that came at the time of its number.
fn keep(log: &Log, number: u64, text: &str) {
    let kept = log.keep_frame(CONNECTION, Timestamp(number), text.as_bytes());
    assert_eq!(kept, Some(FrameNumber(number)));
}

fn frames(log: &LogReader, from: u64) -> Vec<Frame> {
    let frames = log.frames(FrameNumber(from));
    frames.collect::<Result<_, _>>().expect("they are whole")
}

/// Records what a frame told.
async fn record(log: &Log, frame: u64) {
    let event = said("it").from_frame(FrameNumber(frame));
    let appended = log.append(session(1), Expected::Any, vec![event]);
    let recorded = appended.await.expect("appended");
    assert_eq!(recorded[0].frame, Some(FrameNumber(frame)));
}

#[test]
fn a_frame_is_durable_with_what_it_told_and_outlives_the_log_that_kept_it() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let log = Log::open(folder.path()).expect("a log");
        keep(&log, 1, "one");
        keep(&log, 2, "");
        record(&log, 2).await;
        keep(&log, 3, "three");
        // Another process sees what is durable: with the event came all that was kept before it.
        let other = LogReader::open(folder.path()).expect("a reader");
        assert_eq!(frames(&other, 1), [frame(1, "one"), frame(2, "")]);
        let named = other
            .read_all(Position::FIRST)
            .map(|event| event.expect("whole").frame);
        assert_eq!(named.collect::<Vec<_>>(), [Some(FrameNumber(2))]);
        drop(other);
        // Nothing told of the third one, and it is kept all the same.
        log.close().await.expect("closed");

        let all = [frame(1, "one"), frame(2, ""), frame(3, "three")];
        let settled = LogReader::open(folder.path()).expect("a reader");
        assert_eq!(frames(&settled, 1), all);
        assert_eq!(frames(&settled, 3), all[2..]);
        assert_eq!(frames(&settled, 4), []);
        drop(settled);

        let log = Log::open(folder.path()).expect("a log");
        keep(&log, 4, "four");
        record(&log, 4).await;
        assert_eq!(frames(&log, 3), [frame(3, "three"), frame(4, "four")]);
        // The fourth has not settled.
        assert_eq!(verify(&log, None).expect("whole").frames, 3);
        log.close().await.expect("closed");
    });
}

#[test]
fn many_frames_are_written_though_nothing_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let log = Log::open(folder.path()).expect("a log");
        let text = "x".repeat(1000);
        for number in 1..=300 {
            keep(&log, number, &text);
        }
        let reader = LogReader::open(folder.path()).expect("a reader");
        for _ in 0..1000 {
            if !frames(&reader, 250).is_empty() {
                return log.close().await.expect("closed");
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("they are never written");
    });
}

#[test]
fn what_is_not_to_be_kept_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let skipped = |number, at, frames| Frame {
        number: FrameNumber(number),
        connection: CONNECTION,
        at: Timestamp(at),
        content: FrameContent::Skipped(frames),
    };
    runtime().block_on(async {
        let options = Options {
            keep_frames: false,
            ..Options::default()
        };
        let log = Log::open_with(folder.path(), options).expect("a log");
        for at in 5..8 {
            assert_eq!(log.keep_frame(CONNECTION, Timestamp(at), b"x"), None);
        }
        log.close().await.expect("closed");
        let log = Log::open(folder.path()).expect("a log");
        keep(&log, 2, "two");
        record(&log, 2).await;
        assert_eq!(frames(&log, 1), [skipped(1, 5, 3), frame(2, "two")]);
        log.close().await.expect("closed");
    });
}

#[test]
fn old_frames_are_dropped_and_the_log_is_whole_without_them() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        // A chunk for each: settled when the log is closed.
        for number in 1..=3 {
            let log = Log::open(folder.path()).expect("a log");
            keep(&log, number, "text");
            record(&log, number).await;
            log.close().await.expect("closed");
        }
        let log = Log::open(folder.path()).expect("a log");
        keep(&log, 4, "text");
        record(&log, 4).await;
        let remaining = log.drop_frames(FramesBefore::Time(Timestamp(3))).await;
        assert_eq!(remaining.expect("dropped"), FrameNumber(3));
        assert_eq!(frames(&log, 1), [frame(3, "text"), frame(4, "text")]);
        verify(&log, None).expect("whole");
        let remaining = log.drop_frames(FramesBefore::Number(FrameNumber(4))).await;
        assert_eq!(remaining.expect("dropped"), FrameNumber(4));
        assert_eq!(frames(&log, 1), [frame(4, "text")]);
        assert_eq!(log.read_all(Position::FIRST).count(), 4);
        log.close().await.expect("closed");
        assert!(matches!(
            log.drop_frames(FramesBefore::Number(FrameNumber(9))).await,
            Err(Error::Closed)
        ));

        let log = Log::open(folder.path()).expect("a log");
        let remaining = log.drop_frames(FramesBefore::Number(FrameNumber(9))).await;
        assert_eq!(remaining.expect("dropped"), FrameNumber(5));
        log.close().await.expect("closed");
        // With all gone, numbers go on where they were.
        let log = Log::open(folder.path()).expect("a log");
        keep(&log, 5, "text");
        record(&log, 5).await;
        assert_eq!(frames(&log, 1), [frame(5, "text")]);
        verify(&log, None).expect("whole");
        log.close().await.expect("closed");
    });
}

/// Changes the table of frames from outside.
fn damage(folder: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let database = redb::Builder::new()
        .set_concurrency_mode(redb::ConcurrencyMode::SingleWriter)
        .open(folder.join("log.redb"))
        .expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    let table: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("frames");
    change(&mut transaction.open_table(table).expect("a table"));
    transaction.commit().expect("a commit");
}

#[test]
fn damaged_frames_are_found_and_events_are_read_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        for number in [1, 2] {
            let log = Log::open(folder.path()).expect("a log");
            keep(&log, number, "text");
            record(&log, number).await;
            log.close().await.expect("closed");
        }
    });
    damage(folder.path(), |table| {
        let mut bytes = table
            .get(2)
            .expect("read")
            .expect("a chunk")
            .value()
            .to_vec();
        *bytes.last_mut().expect("a byte") ^= 1;
        table.insert(2, bytes.as_slice()).expect("written");
    });
    let log = LogReader::open(folder.path()).expect("a reader");
    let read: Vec<_> = log
        .frames(FrameNumber::FIRST)
        .map(|frame| frame.map_err(|error| error.to_string()))
        .collect();
    let what = "the frames as received are damaged at number 2: \
                the checksum of its chunk is not that of its bytes";
    assert_eq!(read, [Ok(frame(1, "text")), Err(what.to_owned())]);
    assert_eq!(
        verify(&log, None).map_err(|error| error.to_string()),
        Err(what.to_owned())
    );
    let events: Result<Vec<_>, _> = log.read_all(Position::FIRST).collect();
    assert!(matches!(events.expect("whole").as_slice(), [one, two]
        if matches!(one.event, Event::StreamLost { .. }) && two.frame == Some(FrameNumber(2))));
    drop(log);

    damage(folder.path(), |table| {
        table.remove(1).expect("removed");
    });
    let log = LogReader::open(folder.path()).expect("a reader");
    assert_eq!(
        verify(&log, None).map_err(|error| error.to_string()),
        Err("the frames as received are damaged at number 1: it is missing".to_owned())
    );
}
