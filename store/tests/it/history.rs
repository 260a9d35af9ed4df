//! Many tasks at once on a log that is slowed, failed, killed and opened again: what they were told has
//! to be what one correct log could have told them.
//!
//! Each history is recorded while it happens, with a logical clock, and judged afterwards by the
//! [checker], which knows nothing of how a log works. What a seed chooses is the same each time; how
//! threads take turns is not, so a history that is wrong is printed whole. `RECOUNT_HISTORIES` says how
//! many there are to be, `RECOUNT_HISTORY_SEED` with which seed they begin.

mod checker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recount_store::{
    Append, Error, EventId, Expected, Log, Position, Recorded, Select, Seq, StreamId, verify,
};

use crate::chance::Chance;
use crate::disk::{Disk, Fate, Fault};
use crate::life::new_disk;
use crate::{runtime, said, session, text};
use checker::{Entry, History, Of, Operation, Outcome, Part, What, check};

/// How many histories a run of the tests makes.
const HISTORIES: u64 = 300;

#[test]
fn every_history_is_one_of_a_correct_log() {
    let from = |name: &str, otherwise| match std::env::var(name) {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => otherwise,
    };
    let first = from("RECOUNT_HISTORY_SEED", 1);
    let seeds = AtomicU64::new(first);
    let end = first + from("RECOUNT_HISTORIES", HISTORIES);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let seed = seeds.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let history = runtime.block_on(live(seed));
                    let violations = check(&history);
                    assert!(
                        violations.is_empty(),
                        "{history}\n{violations:#?}\nRECOUNT_HISTORY_SEED={seed}"
                    );
                }
            });
        }
    });
}

/// How a life of the log ends.
#[derive(Clone, Copy)]
enum End {
    /// It is closed, perhaps while some still append.
    Closed,
    /// The power is lost during some operation, or when all is quiet.
    PowerLost,
    /// A fault made it stop; the process is started again.
    Restarted(fn(u64) -> Fault),
    /// A fault made it stop, and then the power is lost.
    FailedAndLost(fn(u64) -> Fault),
}

const ENDS: [End; 6] = [
    End::Closed,
    End::PowerLost,
    End::PowerLost,
    End::Restarted(|from| Fault::FailedSync { from }),
    End::Restarted(|from| Fault::Full { from }),
    End::FailedAndLost(|from| Fault::FailedSync { from }),
];

/// Several lives of one log, and what they told.
async fn live(seed: u64) -> History {
    let mut chance = Chance::new(seed);
    let notes = Arc::new(Notes::default());
    let mut tails: Vec<_> = (0..3).map(|n| Tailed::new(n, &notes)).collect();
    let mut disk = new_disk();
    for life in 0..=chance.number() % 4 {
        let end = chance.pick(&ENDS);
        let due = disk.operations() + 1 + chance.number() % 150;
        match end {
            End::Closed => {}
            End::PowerLost => disk.expect(Fault::Crash { at: due }),
            End::Restarted(fault) | End::FailedAndLost(fault) => disk.expect(fault(due)),
        }
        let slow = chance.number() % 8;
        let slowed = disk.at_pace(move |operation| match slow {
            0..=3 => {}
            _ if operation % slow == 0 => std::thread::sleep(Duration::from_micros(50)),
            _ => std::thread::yield_now(),
        });
        // The fault may come while it is opened.
        if let Ok(log) = slowed.open() {
            let tailing: Vec<_> = tails
                .drain(..)
                .map(|tail| tokio::spawn(tail.follow(log.clone())))
                .collect();
            let working: Vec<_> = (0..2 + chance.number() % 4)
                .map(|n| {
                    let worker = Worker {
                        name: format!("{life}.{n}"),
                        log: log.clone(),
                        disk: disk.clone(),
                        notes: Arc::clone(&notes),
                        chance: Chance::new(chance.number()),
                    };
                    tokio::spawn(worker.work())
                })
                .collect();
            if matches!(end, End::Closed) && chance.percent(50) {
                // What comes after this is refused, or was before it.
                let _ = log.close().await;
            }
            for worker in working {
                worker.await.expect("no panic");
            }
            if matches!(end, End::PowerLost) {
                disk.crash();
            }
            let closed = log.close().await;
            assert!(
                closed.is_ok() || disk.failures() > 0 || disk.is_unreadable(),
                "{closed:?}"
            );
            for tail in tailing {
                tails.push(tail.await.expect("no panic"));
            }
        }
        notes.end_life();
        disk.mend();
        if matches!(end, End::PowerLost | End::FailedAndLost(_)) {
            disk = disk.survivors(Fate::Chance(chance.number()));
        }
    }
    let log = disk.open().expect("it opens");
    verify(&log, None).expect("whole");
    let all = log.read_all(Position::FIRST);
    let all = all.map(|recorded| entry(&recorded.expect("an event")));
    let mut operations = notes.take();
    operations.extend(tails.into_iter().map(Tailed::noted));
    History {
        operations,
        log: all.collect(),
    }
}

/// What was recorded so far.
#[derive(Default)]
struct Notes {
    clock: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Notes {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn add(&self, called: u64, returned: u64, what: What) {
        let operation = Operation {
            called,
            returned,
            what,
        };
        let mut operations = self.operations.lock().expect("no panic");
        operations.push(operation);
    }

    /// The writer is gone: what nobody waited for has happened by now, or never will.
    fn end_life(&self) {
        let now = self.now();
        let mut operations = self.operations.lock().expect("no panic");
        for operation in operations.iter_mut() {
            operation.returned = operation.returned.min(now);
        }
    }

    /// How many appends were never answered, in this life or in those before.
    fn forgotten(&self) -> usize {
        self.unknown().len()
    }

    /// One of them.
    fn again(&self, chance: &mut Chance) -> Vec<Part> {
        let unknown = self.unknown();
        unknown[chance.below(unknown.len())].clone()
    }

    fn unknown(&self) -> Vec<Vec<Part>> {
        let operations = self.operations.lock().expect("no panic");
        let unknown = operations
            .iter()
            .filter_map(|operation| match &operation.what {
                What::Append(parts, Outcome::Unknown) => Some(parts.clone()),
                _ => None,
            });
        unknown.collect()
    }

    fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.operations.lock().expect("no panic"))
    }
}

fn entry(recorded: &Recorded) -> Entry {
    let label = text(recorded).split(' ').next().expect("a word");
    Entry {
        position: recorded.position.0,
        stream: recorded.stream,
        seq: recorded.seq.0,
        label: label.to_owned(),
    }
}

/// What is asked of the log. Everything follows from the labels: the same ones are the same append again.
fn appended(part: &Part) -> Append {
    let event = |label: &String| {
        let seed = label
            .bytes()
            .fold(0, |seed, byte| seed * 31 + u64::from(byte));
        let mut chance = Chance::new(seed);
        let length = chance.pick(&[0, 10, 200, 200, 5_000, 20_000]);
        said(format!("{label} {}", chance.text(length))).with_id(EventId::from_text(label))
    };
    Append {
        stream: part.stream,
        expected: part.expected,
        events: part.labels.iter().map(event).collect(),
    }
}

/// Somebody who appends and reads.
struct Worker {
    name: String,
    log: Log,
    disk: Disk,
    notes: Arc<Notes>,
    chance: Chance,
}

impl Worker {
    async fn work(mut self) {
        for n in 0..12 {
            let stream = session(u8::try_from(self.chance.below(3)).expect("small"));
            match self.chance.below(100) {
                0..65 => self.append(n, stream).await,
                65..75 => {
                    let from = 1 + self.chance.number() % 20;
                    self.read(Of::All { from });
                }
                75..85 => {
                    let from = 1 + self.chance.number() % 10;
                    self.read(Of::Stream { stream, from });
                }
                85..92 => self.count(Of::All { from: 1 }),
                _ => self.count(Of::Stream { stream, from: 1 }),
            }
            if self.chance.percent(20) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn append(&mut self, n: u64, stream: StreamId) {
        let parts = if self.notes.forgotten() > 0 && self.chance.percent(30) {
            // Again, what somebody never heard of: it may be there already.
            self.notes.again(&mut self.chance)
        } else {
            let mut parts = vec![self.part(n, 0, stream)];
            if self.chance.percent(15) {
                let other = session(u8::try_from(self.chance.below(3)).expect("small"));
                let mut part = self.part(n, 1, other);
                if other == stream {
                    // A conflict would name the number that the first part would have left.
                    part.expected = Expected::Any;
                }
                parts.push(part);
            }
            parts
        };
        let appends = parts.iter().map(appended).collect();
        // Some lose their patience; what they asked for may happen all the same.
        let patience = match self.chance.below(10) {
            0 => Duration::from_micros(self.chance.number() % 300),
            _ => Duration::from_secs(600),
        };
        let called = self.notes.now();
        let answer = tokio::time::timeout(patience, self.log.append_all(appends)).await;
        let returned = match &answer {
            Ok(_) => self.notes.now(),
            // Only the end of the writer ends it.
            Err(_) => u64::MAX,
        };
        let outcome = match answer {
            Ok(Ok(placed)) => Outcome::Placed(placed.iter().flatten().map(entry).collect()),
            Ok(Err(Error::Conflict { stream, actual, .. })) => {
                let actual = actual.0;
                Outcome::Conflict { stream, actual }
            }
            Ok(Err(Error::Failed { .. } | Error::Closed)) | Err(_) => Outcome::Unknown,
            // The writer could not look up where the stream ends.
            Ok(Err(Error::Read { .. })) if self.disk.is_unreadable() => Outcome::Unknown,
            Ok(Err(error)) => panic!("{error:?}"),
        };
        self.notes
            .add(called, returned, What::Append(parts, outcome));
    }

    /// Something new to append.
    fn part(&mut self, n: u64, part: u64, stream: StreamId) -> Part {
        let expected = match self.chance.below(5) {
            0 => Expected::NoStream,
            1 | 2 => match self.log.stream_head(stream) {
                Ok(Some(head)) => Expected::Exact(head.seq),
                _ => Expected::NoStream,
            },
            _ => Expected::Any,
        };
        let count = self.chance.pick(&[1, 1, 1, 2, 3, 5]);
        let labels = (0..count).map(|i| format!("{}.{n}.{part}.{i}", self.name));
        Part {
            stream,
            expected,
            labels: labels.collect(),
        }
    }

    fn read(&self, of: Of) {
        let called = self.notes.now();
        let mut found = Vec::new();
        let mut whole = true;
        let mut take = |recorded: Result<Recorded, Error>| match recorded {
            Ok(recorded) => found.push(entry(&recorded)),
            Err(error) => {
                self.may_not_read(&error);
                whole = false;
            }
        };
        match of {
            Of::All { from } => self.log.read_all(Position(from)).for_each(&mut take),
            Of::Stream { stream, from } => self.log.read(stream, Seq(from)).for_each(&mut take),
        }
        let what = What::Read { of, found, whole };
        self.notes.add(called, self.notes.now(), what);
    }

    fn count(&self, of: Of) {
        let called = self.notes.now();
        let count = match of {
            Of::All { .. } => self.log.head().map(|head| head.position.0),
            Of::Stream { stream, .. } => self
                .log
                .stream_head(stream)
                .map(|head| head.map_or(0, |head| head.seq.0)),
        };
        match count {
            Ok(found) => {
                let what = What::Count { of, found };
                self.notes.add(called, self.notes.now(), what);
            }
            Err(error) => self.may_not_read(&error),
        }
    }

    fn may_not_read(&self, error: &Error) {
        let expected = matches!(error, Error::Closed) || self.disk.is_unreadable();
        assert!(expected, "{error:?}");
    }
}

/// Somebody who follows the log, over all of its lives.
struct Tailed {
    of: Of,
    next: Position,
    called: u64,
    given: Vec<(u64, Entry)>,
    notes: Arc<Notes>,
}

impl Tailed {
    fn new(n: u8, notes: &Arc<Notes>) -> Self {
        Self {
            of: match n {
                0 => Of::All { from: 1 },
                n => Of::Stream {
                    stream: session(n),
                    from: 1,
                },
            },
            next: Position::FIRST,
            called: notes.now(),
            given: Vec::new(),
            notes: Arc::clone(notes),
        }
    }

    async fn follow(mut self, log: Log) -> Self {
        let select = match self.of {
            Of::All { .. } => Select::All,
            Of::Stream { stream, .. } => Select::Streams(vec![stream]),
        };
        let mut tail = log.tail(select, self.next);
        // Or it would wait for itself: a log ends when nobody holds it.
        drop(log);
        while let Some(Ok(recorded)) = tail.next().await {
            self.given.push((self.notes.now(), entry(&recorded)));
            self.next = recorded.position.next();
        }
        self
    }

    fn noted(self) -> Operation {
        Operation {
            called: self.called,
            returned: self.notes.now(),
            what: What::Tail {
                of: self.of,
                given: self.given,
            },
        }
    }
}
