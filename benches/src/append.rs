//! Appending: 256-byte events, each appender waits for its own acknowledgement before the next.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use recount_store::{
    Event, Expected, Log, MessageId, NewEvent, OutputKind, Placement, SessionId, StreamId,
    Timestamp,
};
use tokio::runtime::Runtime;

use crate::group::{Group, Row};
use crate::peers::{Bare, Sqlite};
use crate::table::Table;
use crate::{Plan, Subject, measure};

/// The bytes of a payload.
const PAYLOAD: usize = 256;
/// What the log puts around a payload; the bare file is given as much, to write the same bytes.
const ENVELOPE: usize = 85;

/// Measures 1, 16 and 256 appenders.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(plan: &Plan, criterion: &mut Criterion, folder: &Path, table: &mut Table) {
    if !plan.wants("append") {
        return;
    }
    let runtime = runtime();
    let mut group = criterion.benchmark_group("append");
    for appenders in [1, 16, 256] {
        let folder = folder.join(format!("append-{appenders}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let log = Log::open(folder.join("log")).expect("a log");
        let sqlite = Group::start(Sqlite::open(&folder.join("sqlite")));
        let bare = Group::start(Bare::open(&folder.join("bare")));
        let ours = |rounds| {
            let log = log.clone();
            drive(&runtime, appenders, rounds, move |n| {
                let (log, stream) = (log.clone(), stream(n));
                async move {
                    let event = vec![NewEvent::live(event(), Timestamp(1))];
                    log.append(stream, Expected::Any, event)
                        .await
                        .expect("appended");
                }
            })
        };
        group.throughput(Throughput::Elements(u64::from(appenders)));
        let measured = measure(
            &mut group,
            &appenders.to_string(),
            &mut [
                Subject::new("recount", ours),
                Subject::new("sqlite", peer(&runtime, sqlite, appenders, PAYLOAD)),
                Subject::new(
                    "bare file",
                    peer(&runtime, bare, appenders, PAYLOAD + ENVELOPE),
                ),
            ],
        );
        table.add("append", appenders, "events/s", appenders, &measured);
        drop(log);
        // What one workload wrote is no load on the disk for the next.
        std::fs::remove_dir_all(&folder).expect("the folder goes away");
    }
}

/// A runtime with as many threads as the smallest machine that is measured on has cores.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

/// The stream of the n-th session.
pub(crate) fn stream(n: u32) -> StreamId {
    StreamId::Session(SessionId::from_random(u128::from(n)))
}

/// An event whose payload has 256 bytes.
pub(crate) fn event() -> Event {
    // The message (10), the run (4), three lengths or choices of a part and a text (8 + 4 + 4 + 8).
    const AROUND: usize = 10 + 4 + 8 + 4 + 4 + 8;
    let part = "prt_0123456789".to_owned();
    Event::OutputAppended {
        message: MessageId::from_bytes([7; 10]),
        run: 1,
        kind: OutputKind::Text,
        placement: Placement::End,
        text: "x".repeat(PAYLOAD - AROUND - part.len()),
        part,
    }
}

/// So many rounds in which each appender appends one event, and how long that took.
fn drive<F>(
    runtime: &Runtime,
    appenders: u32,
    rounds: u64,
    append: impl Fn(u32) -> F + Send + Sync + 'static,
) -> Duration
where
    F: Future<Output = ()> + Send,
{
    let append = Arc::new(append);
    runtime.block_on(async {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..appenders)
            .map(|n| {
                let append = Arc::clone(&append);
                tokio::spawn(async move {
                    // Nobody waits for the others at the end of a round.
                    for _ in 0..rounds {
                        append(n).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("an appender ends well");
        }
        begun.elapsed()
    })
}

/// The same load on a peer.
fn peer(
    runtime: &Runtime,
    group: Group,
    appenders: u32,
    bytes: usize,
) -> impl FnMut(u64) -> Duration {
    let group = Arc::new(group);
    let seqs: Arc<Vec<AtomicU64>> = Arc::new((0..appenders).map(|_| AtomicU64::new(1)).collect());
    move |rounds| {
        let (group, seqs) = (Arc::clone(&group), Arc::clone(&seqs));
        drive(runtime, appenders, rounds, move |n| {
            let group = Arc::clone(&group);
            let row = Row {
                session: stream(n).to_bytes(),
                seq: seqs[n as usize].fetch_add(1, Ordering::Relaxed),
                bytes: vec![b'x'; bytes],
            };
            async move { group.append(row).await }
        })
    }
}
