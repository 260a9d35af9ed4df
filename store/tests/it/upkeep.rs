//! What a log is asked besides appending: cutting, compacting, rebuilding, reading backwards and by time.
//!
//! Chance chooses what happens, and a model that is a list of events says what must be read after it.

use proptest::prelude::*;
use recount_store::{
    Append, Error, Event, EventId, Expected, Log, LogReader, NewEvent, Options, Position, Recorded,
    Select, Seq, Snapshot, StreamId, Timestamp, verify,
};
use redb::{ReadableDatabase as _, ReadableTable as _};

use crate::{runtime, said, session};

/// So small that a log settles every few appends.
const OPTIONS: Options = Options {
    keep_frames: true,
    settle_bytes: 12 << 10,
};

#[derive(Debug, Clone)]
enum Step {
    /// Events for some streams, in one append: (stream, how many, how long).
    Append(Vec<(u8, usize, usize)>),
    /// The front of a stream goes, up to this part of it.
    Cut(u8, f64),
    Compact,
    Rebuild,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let part = (0..4_u8, 1..12_usize, 0..3000_usize);
    prop_oneof![
        6 => prop::collection::vec(part, 1..3).prop_map(Step::Append),
        2 => (0..4_u8, 0.0..=1.0).prop_map(|(stream, part)| Step::Cut(stream, part)),
        1 => Just(Step::Compact),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Reopen),
    ]
}

/// All that was ever appended, and where streams were cut.
#[derive(Debug, Default)]
struct Model {
    events: Vec<Recorded>,
    cuts: [Option<Seq>; 4],
    compacted: [Option<Seq>; 4],
}

impl Model {
    fn of(&self, n: u8) -> Vec<Recorded> {
        let from = self.cuts[usize::from(n)].unwrap_or(Seq::FIRST);
        let events = self.events.iter();
        events
            .filter(|event| event.stream == session(n) && event.seq >= from)
            .cloned()
            .collect()
    }

    fn last(&self, n: u8) -> Seq {
        let last = self.events.iter().rfind(|event| event.stream == session(n));
        last.map_or(Seq(0), |event| event.seq)
    }

    /// What reading everything must give, and may give besides.
    fn all(&self) -> (Vec<Recorded>, Vec<Recorded>) {
        let is_in = |event: &Recorded, cuts: &[Option<Seq>; 4]| {
            let n = (0..4).find(|n| event.stream == session(*n)).expect("ours");
            cuts[usize::from(n)].is_none_or(|cut| event.seq >= cut)
        };
        let of = |cuts| {
            let events = self.events.iter().filter(|event| is_in(event, cuts));
            events.cloned().collect()
        };
        (of(&self.cuts), of(&self.compacted))
    }
}

/// Events are long, so a difference is told by their places.
fn assert_same(read: &[Recorded], expected: &[Recorded]) {
    let places = |events: &[Recorded]| -> Vec<_> {
        events
            .iter()
            .map(|event| (event.position.0, event.seq.0))
            .collect()
    };
    assert!(
        read == expected,
        "{:?} is not {:?}",
        places(read),
        places(expected)
    );
}

fn check(model: &Model, reader: &LogReader) {
    for n in 0..4 {
        let expected = model.of(n);
        let read: Result<Vec<_>, _> = reader.read(session(n), Seq::FIRST).collect();
        assert_same(&read.expect("read"), &expected);
        let mut back: Vec<_> = reader
            .read_backwards(session(n), Seq(u64::MAX))
            .collect::<Result<_, _>>()
            .expect("read");
        back.reverse();
        assert_same(&back, &expected);
        if let Some(middle) = expected.get(expected.len() / 2) {
            let from = reader.read(session(n), middle.seq).next();
            assert_eq!(from.expect("an event").expect("read"), *middle);
            let to = reader.read_backwards(session(n), middle.seq).next();
            assert_eq!(to.expect("an event").expect("read"), *middle);
        }
        let head = reader.stream_head(session(n)).expect("a head");
        let last = expected
            .last()
            .map(|event| (event.seq, event.position, event.at));
        assert_eq!(head.map(|head| (head.seq, head.last, head.at)), last);
        let from = head.map(|head| head.from);
        assert_eq!(
            from,
            head.map(|_| model.cuts[usize::from(n)].unwrap_or(Seq::FIRST))
        );
    }
    let (must, may) = model.all();
    let all: Vec<_> = reader
        .read_all(Position::FIRST)
        .collect::<Result<_, _>>()
        .expect("read");
    assert!(
        must.iter().all(|event| all.contains(event)),
        "an event is gone"
    );
    assert!(
        all.iter().all(|event| may.contains(event)),
        "an event came back"
    );
    assert!(all.is_sorted_by_key(|event| event.position));
    let mut back: Vec<_> = reader
        .read_all_backwards(Position(u64::MAX))
        .collect::<Result<_, _>>()
        .expect("read");
    back.reverse();
    assert_eq!(back, all);
    if let Some(middle) = all.get(all.len() / 2) {
        // Times ascend here, one by one.
        let next = reader.position_at(middle.at).expect("a position");
        let first = reader.read_all(next).next();
        assert_eq!(first.expect("an event").expect("read"), *middle);
    }
    let verified = verify(reader, None).expect("whole");
    assert_eq!(verified.events, all.len() as u64);
    let last = model
        .events
        .last()
        .map_or(Position(0), |event| event.position);
    assert_eq!(verified.head.position, last);
    for n in 0..4 {
        verify(reader, Some(session(n))).expect("whole");
    }
}

fn live(steps: Vec<Step>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = Log::open_with(folder.path(), OPTIONS).expect("a log");
    let other = LogReader::open(folder.path()).expect("a reader");
    let mut tail = log.tail(Select::All, Position::FIRST);
    let mut model = Model::default();
    let mut clock = 0;
    runtime().block_on(async {
        for step in steps {
            match step {
                Step::Append(parts) => {
                    let appends = parts.into_iter().map(|(n, count, length)| Append {
                        stream: session(n),
                        expected: Expected::Any,
                        events: (0..count)
                            .map(|_| {
                                clock += 1;
                                let at = Timestamp(clock);
                                NewEvent {
                                    at,
                                    ..said("x".repeat(length))
                                }
                            })
                            .collect(),
                    });
                    let appended = log.append_all(appends.collect()).await.expect("appended");
                    model.events.extend(appended.into_iter().flatten());
                }
                Step::Cut(n, part) => {
                    let (last, from) = (model.last(n), model.cuts[usize::from(n)]);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        clippy::cast_precision_loss
                    )]
                    let before = Seq((part * (last.0 + 1) as f64) as u64);
                    clock += 1;
                    let cut = log.cut(session(n), before, Timestamp(clock)).await;
                    if before > from.unwrap_or(Seq::FIRST) {
                        model.events.push(cut.expect("cut"));
                        model.cuts[usize::from(n)] = Some(before);
                    } else {
                        let error = cut.expect_err("nothing is before it");
                        assert!(matches!(error, Error::NothingToCut { .. }), "{error:?}");
                    }
                }
                Step::Compact => {
                    let gone = |model: &Model| model.all().1.len() as u64;
                    let before = gone(&model);
                    model.compacted = model.cuts;
                    let compacted = log.compact(|_| {}).await.expect("compacted");
                    assert_eq!(compacted.events, before - gone(&model));
                }
                Step::Rebuild => {
                    let heads = |log: &Log| log.streams().expect("streams");
                    let before = heads(&log);
                    log.rebuild(|_| {}).await.expect("rebuilt");
                    let places = |heads: Vec<(StreamId, recount_store::StreamHead)>| {
                        let places = heads.into_iter();
                        places
                            .map(|(id, head)| (id, head.seq, head.last, head.from))
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(places(heads(&log)), places(before));
                }
                Step::Reopen => {
                    while tail.try_next().is_some() {}
                    log.close().await.expect("closed");
                    log = Log::open_with(folder.path(), OPTIONS).expect("a log");
                    let next = model
                        .events
                        .last()
                        .map_or(Position::FIRST, |event| event.position.next());
                    tail = log.tail(Select::All, next);
                }
            }
            check(&model, &log);
            check(&model, &other);
        }
        let end = log.head().expect("a head").position;
        let mut seen = Position(0);
        while let Some(event) = tail.try_next() {
            seen = event.expect("an event").position;
        }
        assert!(seen == Position(0) || seen == end);
        assert_eq!(tail.behind().expect("a number"), 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_log_stays_what_it_was(steps in prop::collection::vec(step(), 1..20)) {
        live(steps);
    }
}

#[test]
fn what_is_cut_gives_its_space_back() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let log = Log::open(folder.path()).expect("a log");
        for n in 0..2 {
            let events = (0..20_000).map(|_| said("x".repeat(400))).collect();
            log.append(session(n), Expected::Any, events)
                .await
                .expect("appended");
        }
        let head = verify(&log, None).expect("whole").head.hash;
        log.cut(session(0), Seq(20_001), Timestamp(1))
            .await
            .expect("cut");
        let compacted = log.compact(|_| {}).await.expect("compacted");
        assert_eq!(compacted.events, 20_000);
        assert!(
            compacted.bytes_after < compacted.bytes_before * 6 / 10,
            "{compacted:?}"
        );
        let verified = verify(&log, None).expect("whole");
        assert_eq!(verified.events, 20_001);
        assert_ne!(verified.head.hash, head);
        log.close().await.expect("closed");
    });
    let reader = LogReader::open(folder.path()).expect("a reader");
    let left: Vec<_> = reader
        .read(session(0), Seq::FIRST)
        .map(|event| event.expect("read"))
        .collect();
    assert_eq!(left.len(), 1);
    assert!(matches!(
        left[0].event,
        Event::StreamCut {
            before: Seq(20_001),
            ..
        }
    ));
    assert_eq!(reader.read(session(1), Seq::FIRST).count(), 20_000);
}

#[test]
fn a_snapshot_of_what_was_cut_is_not_given() {
    let log = Log::in_memory().expect("a log");
    runtime().block_on(async {
        let events = (0..3).map(|_| said("x")).collect();
        log.append(session(1), Expected::Any, events)
            .await
            .expect("appended");
        let snapshot = |seq| Snapshot {
            fold_version: 1,
            seq: Seq(seq),
            bytes: vec![1],
        };
        log.put_snapshot(session(1), "fold", snapshot(3));
        assert_eq!(
            log.snapshot(session(1), "fold").expect("read"),
            Some(snapshot(3))
        );
        log.cut(session(1), Seq(2), Timestamp(1))
            .await
            .expect("cut");
        assert_eq!(log.snapshot(session(1), "fold").expect("read"), None);
        log.put_snapshot(session(1), "fold", snapshot(4));
        assert_eq!(
            log.snapshot(session(1), "fold").expect("read"),
            Some(snapshot(4))
        );
    });
}

#[test]
fn compacting_deletes_the_snapshots_of_what_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let log = Log::open_with(folder.path(), OPTIONS).expect("a log");
        for n in [1, 2] {
            let events = (0..5).map(|_| said("x")).collect();
            let appended = log.append(session(n), Expected::Any, events).await;
            appended.expect("appended");
            for (name, seq) in [("fold", 5), ("fold@1", 2), ("fold@2", 4)] {
                let snapshot = Snapshot {
                    fold_version: 1,
                    seq: Seq(seq),
                    bytes: vec![1],
                };
                log.put_snapshot(session(n), name, snapshot);
            }
        }
        let cut = log.cut(session(1), Seq(3), Timestamp(1)).await;
        assert_eq!(cut.expect("cut").seq, Seq(6));
        let after = Snapshot {
            fold_version: 1,
            seq: Seq(6),
            bytes: vec![2],
        };
        log.put_snapshot(session(1), "after", after);
        log.close().await.expect("closed");
        let log = Log::open_with(folder.path(), OPTIONS).expect("a log");
        log.compact(|_| {}).await.expect("compacted");
        log.close().await.expect("closed");
    });
    let file = redb::Database::open(folder.path().join("log.redb")).expect("a file");
    let transaction = file.begin_read().expect("it is read");
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("snapshots");
    let table = transaction.open_table(table).expect("a table");
    let names = |stream: StreamId| -> Vec<String> {
        let rows = table.iter().expect("rows").map(|row| row.expect("a row"));
        rows.filter_map(|(key, _)| {
            let name = key.value().strip_prefix(stream.to_bytes().as_slice())?;
            Some(String::from_utf8_lossy(name).into_owned())
        })
        .collect()
    };
    assert_eq!(names(session(1)), ["after"]);
    assert_eq!(names(session(2)), ["fold", "fold@1", "fold@2"]);
}

#[test]
fn an_append_is_repeated_by_its_ids_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = EventId::from_text("order 7");
    let events = || vec![said("first"), said("second").with_id(id)];
    runtime().block_on(async {
        let log = Log::open_with(folder.path(), OPTIONS).expect("a log");
        let first = log
            .append(session(1), Expected::NoStream, events())
            .await
            .expect("appended");
        let again =
            |log: Log| async move { log.append(session(1), Expected::NoStream, events()).await };
        assert_eq!(again(log.clone()).await.expect("known"), first);
        // Until it has settled, and over a reopening, and over making the index anew.
        for n in 0..10 {
            let event = said("x".repeat(5000));
            log.append(session(n), Expected::Any, vec![event])
                .await
                .expect("appended");
            assert_eq!(again(log.clone()).await.expect("known"), first);
        }
        log.close().await.expect("closed");
        let log = Log::open_with(folder.path(), OPTIONS).expect("a log");
        assert_eq!(again(log.clone()).await.expect("known"), first);
        log.rebuild(|_| {}).await.expect("rebuilt");
        assert_eq!(again(log.clone()).await.expect("known"), first);
        let other = log
            .append(session(1), Expected::Any, vec![said("other").with_id(id)])
            .await
            .expect_err("it says something else");
        assert!(
            matches!(
                other,
                Error::IdTaken {
                    position: Position(2),
                    ..
                }
            ),
            "{other:?}"
        );
        // Two at once: one of them is appended.
        let twice = EventId::from_text("order 8");
        let event = || vec![said("twice").with_id(twice)];
        let (one, two) = tokio::join!(
            log.append(session(2), Expected::Any, event()),
            log.append(session(2), Expected::Any, event()),
        );
        assert_eq!(one.expect("appended"), two.expect("appended"));
        log.close().await.expect("closed");
    });
}
