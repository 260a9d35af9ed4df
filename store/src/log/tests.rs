//! What a log promises, on one in memory and on files.

use std::time::Duration;

use super::*;
use crate::event::Event;
use crate::id::{EventId, FrameNumber, SessionId};
use crate::limits;

fn session(n: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([n; 10]))
}

/// An event that says `text`.
fn said(text: impl Into<String>) -> NewEvent {
    let reason = text.into();
    NewEvent::live(Event::StreamLost { reason }, Timestamp(7))
}

fn text(recorded: &Recorded) -> &str {
    match &recorded.event {
        Event::StreamLost { reason } => reason,
        other => panic!("not ours: {other:?}"),
    }
}

fn texts(events: impl IntoIterator<Item = Result<Recorded>>) -> Vec<String> {
    events
        .into_iter()
        .map(|recorded| text(&recorded.expect("an event")).to_owned())
        .collect()
}

async fn append(log: &Log, stream: StreamId, expected: Expected, text: &str) -> Result<Recorded> {
    let mut recorded = log.append(stream, expected, vec![said(text)]).await?;
    Ok(recorded.remove(0))
}

#[tokio::test]
async fn what_is_appended_is_read() {
    let log = Log::in_memory().expect("a log");
    assert_eq!(log.head().expect("a head").position, Position(0));
    let first = log
        .append(
            session(1),
            Expected::NoStream,
            vec![
                said("a").with_id(EventId::from_random(1)),
                said("b")
                    .because(Cause::Sibling(0))
                    .from_frame(FrameNumber(2)),
            ],
        )
        .await
        .expect("appended");
    let second = append(&log, session(2), Expected::Any, "c")
        .await
        .expect("appended");
    let third = append(&log, session(1), Expected::Exact(Seq(2)), "d")
        .await
        .expect("appended");

    let mut all = first;
    all.extend([second, third.clone()]);
    let places: Vec<_> = all
        .iter()
        .map(|r| (r.position.0, r.seq.0, r.cause))
        .collect();
    assert_eq!(
        places,
        [
            (1, 1, None),
            (2, 2, Some(Position(1))),
            (3, 1, None),
            (4, 3, None)
        ]
    );
    let known: Vec<_> = all.iter().map(|r| (r.id, r.frame)).collect();
    assert_eq!(
        known,
        [
            (Some(EventId::from_random(1)), None),
            (None, Some(FrameNumber(2))),
            (None, None),
            (None, None)
        ]
    );
    let read: Result<Vec<_>> = log.read_all(Position::FIRST).collect();
    assert_eq!(read.expect("read"), all);
    assert_eq!(texts(log.read_all(Position(3))), ["c", "d"]);
    assert_eq!(texts(log.read_all(Position(5))), Vec::<String>::new());
    let of_range = |from, through, stream| {
        let range = Position(from)..=Position(through);
        texts(log.read_range(range, move |envelope| envelope.stream == Some(stream)))
    };
    for (from, through) in [(1, 4), (2, 3), (3, 9), (4, 2)] {
        let within = |event: &&Recorded| (from..=through).contains(&event.position.0);
        let of_it = |event: &&Recorded| event.stream == session(1);
        let expected: Vec<&str> = all.iter().filter(within).filter(of_it).map(text).collect();
        assert_eq!(of_range(from, through, session(1)), expected);
    }
    assert_eq!(texts(log.read(session(1), Seq::FIRST)), ["a", "b", "d"]);
    assert_eq!(texts(log.read(session(1), Seq(3))), ["d"]);
    assert_eq!(texts(log.read(session(1), Seq(4))), Vec::<String>::new());
    assert_eq!(
        texts(log.read(session(9), Seq::FIRST)),
        Vec::<String>::new()
    );
    assert_eq!(log.head().expect("a head").position, Position(4));
    let head = StreamHead {
        seq: Seq(3),
        first: Position(1),
        last: Position(4),
        at: third.at,
        from: Seq::FIRST,
    };
    assert_eq!(log.stream_head(session(1)).expect("a head"), Some(head));
    assert_eq!(log.stream_head(session(9)).expect("a head"), None);
    let names: Vec<_> = log
        .streams()
        .expect("streams")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [session(1), session(2)]);
}

/// Nothing but where the work is done differs: the same appends make the same chain, settled or not.
#[tokio::test]
async fn a_log_without_threads_is_the_same_log() {
    let options = Options {
        settle_bytes: 4096,
        ..Options::default()
    };
    let journal = || [(); 2].map(|()| Arc::new(InMemoryBackend::new()) as Arc<dyn StorageBackend>);
    let with = Log::with_backends(InMemoryBackend::new(), journal(), options).expect("a log");
    let pace = || Duration::from_micros(1);
    let without = Log::without_threads(InMemoryBackend::new(), journal(), options, pace);
    let without = without.expect("a log");
    let mut heads = Vec::new();
    for log in [with, without] {
        let expected: Vec<_> = (0..200)
            .map(|n| format!("{n} {}", "x".repeat(200)))
            .collect();
        for text in &expected {
            append(&log, session(1), Expected::Any, text)
                .await
                .expect("appended");
        }
        log.compact(|_| {}).await.expect("compacted");
        assert_eq!(texts(log.read_all(Position::FIRST)), expected);
        heads.push(log.head().expect("a head"));
        log.close().await.expect("closed");
        let late = append(&log, session(1), Expected::Any, "late").await;
        assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    }
    assert_eq!(heads[0], heads[1]);
}

#[tokio::test]
async fn a_conflict_says_both_numbers_and_appends_nothing() {
    let log = Log::in_memory().expect("a log");
    append(&log, session(1), Expected::NoStream, "a")
        .await
        .expect("appended");
    for (expected, number) in [(Expected::NoStream, 0), (Expected::Exact(Seq(2)), 2)] {
        let error = append(&log, session(1), expected, "b")
            .await
            .expect_err("a conflict");
        assert!(
            matches!(error, Error::Conflict { stream, expected, actual }
                if stream == session(1) && expected == Seq(number) && actual == Seq(1)),
            "{error}"
        );
    }
    assert_eq!(texts(log.read_all(Position::FIRST)), ["a"]);
}

#[tokio::test]
async fn no_events_are_no_commit() {
    let log = Log::in_memory().expect("a log");
    let nothing = log
        .append(session(1), Expected::Exact(Seq(9)), Vec::new())
        .await;
    assert_eq!(nothing.expect("nothing"), []);
    assert_eq!(log.head().expect("a head").position, Position(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appenders_share_commits_and_each_stream_keeps_its_order() {
    const APPENDERS: u8 = 255;
    const EACH: u64 = 8;
    let log = Log::in_memory().expect("a log");
    let tasks: Vec<_> = (0..APPENDERS)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move {
                for seq in 0..EACH {
                    let text = format!("{n} {seq}");
                    append(&log, session(n), Expected::Exact(Seq(seq)), &text)
                        .await
                        .expect("appended");
                    // One of another opinion in the same batch harms nobody.
                    let wrong =
                        append(&log, session(n), Expected::Exact(Seq(EACH + 1)), "no").await;
                    assert!(matches!(wrong, Err(Error::Conflict { .. })));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("an appender");
    }
    for n in 0..APPENDERS {
        let expected: Vec<_> = (0..EACH).map(|seq| format!("{n} {seq}")).collect();
        assert_eq!(texts(log.read(session(n), Seq::FIRST)), expected);
    }
    let verified = verify(&log, None).expect("whole");
    assert_eq!(verified.events, u64::from(APPENDERS) * EACH);
    assert_eq!(verified.streams, u64::from(APPENDERS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_have_no_gap_and_no_repeat_at_the_seam() {
    const EVENTS: usize = 2000;
    let log = Log::in_memory().expect("a log");
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..EVENTS {
                let stream = session(u8::try_from(n % 3).expect("small"));
                append(&log, stream, Expected::Any, &n.to_string())
                    .await
                    .expect("appended");
            }
        }
    });
    let mut followers = Vec::new();
    for begun in 0..40 {
        // They begin at different moments, so their seams are at different places.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let one = begun % 2 == 1;
        let select = if one {
            Select::Streams(vec![session(1)])
        } else {
            Select::All
        };
        let mut tail = log.tail(select, Position::FIRST);
        followers.push(tokio::spawn(async move {
            let expected: Vec<usize> = (0..EVENTS).filter(|n| !one || n % 3 == 1).collect();
            for n in expected {
                let recorded = tail
                    .next()
                    .await
                    .expect("the log is open")
                    .expect("an event");
                assert_eq!(text(&recorded), n.to_string());
            }
            assert!(tail.try_next().is_none());
        }));
    }
    for follower in followers {
        follower.await.expect("a follower");
    }
    writer.await.expect("the writer");
}

#[tokio::test]
async fn dropping_the_wait_for_an_event_loses_none() {
    let log = Log::in_memory().expect("a log");
    let mut tail = log.tail(Select::All, Position::FIRST);
    for n in 0..50 {
        assert!(
            tokio::time::timeout(Duration::ZERO, tail.next())
                .await
                .is_err()
        );
        append(&log, session(1), Expected::Any, &n.to_string())
            .await
            .expect("appended");
        let recorded = tail.next().await.expect("open").expect("an event");
        assert_eq!(text(&recorded), n.to_string());
    }
}

#[tokio::test]
async fn closing_ends_everything() {
    let log = Log::in_memory().expect("a log");
    append(&log, session(1), Expected::Any, "a")
        .await
        .expect("appended");
    let mut tail = log.tail(Select::All, Position(2));
    let waiting = tokio::spawn(async move { tail.next().await.is_none() });
    log.close().await.expect("closed");
    log.close().await.expect("closed before");
    assert!(waiting.await.expect("the tail"));
    let late = append(&log, session(1), Expected::Any, "b").await;
    assert!(matches!(late, Err(Error::Closed)));
    assert!(matches!(
        log.read_all(Position::FIRST).next(),
        Some(Err(Error::Closed))
    ));
}

#[tokio::test]
async fn a_dropped_append_is_whole_or_absent() {
    let log = Log::in_memory().expect("a log");
    for n in 0..100 {
        let events = vec![said(format!("{n} a")), said(format!("{n} b"))];
        let append = log.append(session(1), Expected::Any, events);
        let _ = tokio::time::timeout(Duration::from_micros(n), append).await;
    }
    log.append(session(1), Expected::Any, vec![said("end")])
        .await
        .expect("appended");
    let read = texts(log.read(session(1), Seq::FIRST));
    let (end, pairs) = read.split_last().expect("an end");
    assert_eq!(end, "end");
    for pair in pairs.chunks(2) {
        assert_eq!(pair[0].replace('a', "b"), pair[1]);
    }
}

#[tokio::test]
async fn snapshots_are_kept_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = |seq| Snapshot {
        fold_version: 3,
        seq: Seq(seq),
        bytes: vec![1, 2, 3],
    };
    let log = Log::open(folder.path()).expect("a log");
    log.put_snapshot(session(1), "queue", snapshot(1));
    log.put_snapshot(session(1), "queue", snapshot(2));
    assert_eq!(
        log.snapshot(session(1), "queue").expect("read"),
        Some(snapshot(2))
    );
    drop(log);
    let log = Log::open(folder.path()).expect("a log");
    assert_eq!(
        log.snapshot(session(1), "queue").expect("read"),
        Some(snapshot(2))
    );
    assert_eq!(log.snapshot(session(1), "other").expect("read"), None);
    assert_eq!(log.snapshot(session(2), "queue").expect("read"), None);
    log.put_snapshot(session(1), "queue", snapshot(5));
    assert_eq!(
        log.snapshot(session(1), "queue").expect("read"),
        Some(snapshot(5))
    );
}

#[tokio::test]
async fn a_log_reopens_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("new").join("data");
    for round in 0..3_u64 {
        let log = Log::open(&directory).expect("a log");
        assert_eq!(log.head().expect("a head").position, Position(round * 3));
        for stream in 1..=3 {
            append(
                &log,
                session(stream),
                Expected::Exact(Seq(round)),
                &format!("{stream} {round}"),
            )
            .await
            .expect("appended");
        }
        if round == 1 {
            log.close().await.expect("closed");
        }
    }
    let reader = LogReader::open(&directory).expect("a reader");
    assert_eq!(
        texts(reader.read(session(2), Seq::FIRST)),
        ["2 0", "2 1", "2 2"]
    );
    assert_eq!(verify(&reader, None).expect("whole").events, 9);
}

#[tokio::test]
async fn another_handle_follows_a_live_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    let reader = LogReader::open(folder.path()).expect("a reader");
    let mut tail = reader.tail(Select::All, Position::FIRST);
    for n in 0..100_u64 {
        append(&log, session(1), Expected::Any, &n.to_string())
            .await
            .expect("appended");
        if n % 10 == 0 {
            assert_eq!(reader.head().expect("a head").position, Position(n + 1));
            let head = reader
                .stream_head(session(1))
                .expect("read")
                .expect("a head");
            assert_eq!(head.seq, Seq(n + 1));
        }
    }
    for n in 0..100 {
        let recorded = tail.next().await.expect("open").expect("an event");
        assert_eq!(text(&recorded), n.to_string());
    }
    let later = tokio::spawn(async move { tail.next().await.expect("open").expect("an event") });
    append(&log, session(2), Expected::Any, "later")
        .await
        .expect("appended");
    assert_eq!(text(&later.await.expect("the tail")), "later");
    assert_eq!(texts(reader.read(session(1), Seq::FIRST)).len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_moves_from_memory_to_tables_and_all_stays_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    let reader = LogReader::open(folder.path()).expect("a reader");
    // More than memory is to hold, several times, of sessions in turn.
    let rounds = limits::INDEX_STEP_EVENTS * 2 / 3000;
    let mut expected = 0;
    for round in 0..rounds {
        for stream in 0..3_u8 {
            let events = (0..1000)
                .map(|n| said(format!("{stream} {round} {n}")))
                .collect();
            log.append(session(stream), Expected::Exact(Seq(round * 1000)), events)
                .await
                .expect("appended");
        }
        expected += 1000;
    }
    for either in [&*log, &reader] {
        for stream in 0..3 {
            assert_eq!(either.read(session(stream), Seq::FIRST).count(), expected);
            let from = Seq(expected as u64 - 1);
            assert_eq!(texts(either.read(session(stream), from)).len(), 2);
        }
        let verified = verify(either, None).expect("whole");
        assert_eq!(verified.events, 3 * expected as u64);
        let verified = verify(either, Some(session(1))).expect("whole");
        assert_eq!((verified.events, verified.streams), (expected as u64, 1));
    }
}
