//! Appending: each appender waits for its own acknowledgement before the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Throughput;
use recount_store::{Expected, Log, NewEvent, Timestamp};
use tokio::runtime::Runtime;

use crate::bench::Bench;
use crate::group::{Group, Row};
use crate::history::{ENVELOPE, output, payload, stream};
use crate::measure::{Subject, measure};
use crate::peers::{Bare, Fjall, Preallocated, Sqlite};

/// Payloads, and how many append them.
const QUICK: [(usize, &[u32]); 3] = [(64, &[16]), (256, &[1, 16, 256]), (4096, &[16])];
const FULL: [(usize, &[u32]); 3] = [
    (64, &[1, 16, 256, 4096]),
    (256, &[1, 16, 256, 4096]),
    (4096, &[1, 16, 256, 4096]),
];

/// Measures so many appenders, with payloads of so many bytes.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    for (bytes, all_appenders) in bench.pick(QUICK, FULL) {
        for &appenders in all_appenders {
            bench.say(&format!("append: {appenders} x {bytes} bytes"));
            workload(bench, bytes, appenders);
        }
    }
}

fn workload(bench: &mut Bench, bytes: usize, appenders: u32) {
    let folder = bench.folder();
    let path = |name: &str| folder.path().join(name);
    let runtime = &bench.runtime;
    let log = Log::open(path("log")).expect("a log");
    let ours = |rounds| {
        let log = log.clone();
        drive(runtime, appenders, rounds, move |n| {
            let log = log.clone();
            async move {
                let event = vec![NewEvent::live(output(bytes), Timestamp(1))];
                log.append(stream(n), Expected::Any, event)
                    .await
                    .expect("appended");
            }
        })
    };
    let peer = |group, surplus| peer(runtime, group, appenders, bytes, surplus);
    let sqlite = Group::start(Sqlite::open(&path("sqlite")));
    let fjall = Group::start(Fjall::open(&path("fjall")));
    let bare = Group::start(Bare::open(&path("bare")));
    let preallocated = Group::start(Preallocated::create(&path("preallocated")));
    let name = format!("append, {bytes} B");
    let mut group = bench.criterion.benchmark_group(&name);
    group.throughput(Throughput::Elements(u64::from(appenders)));
    let measured = measure(
        &mut group,
        &appenders.to_string(),
        &mut [
            Subject::new("recount", ours),
            Subject::new("SQLite", peer(sqlite, 0)),
            Subject::new("fjall", peer(fjall, 0)),
            Subject::new("bare file", peer(bare, ENVELOPE)),
            Subject::new("preallocated file", peer(preallocated, ENVELOPE)),
        ],
    );
    group.finish();
    bench.table.rates(&name, appenders, appenders, &measured);
    runtime.block_on(log.close()).expect("closed");
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

/// The same load on a peer, each row with `surplus` bytes more.
fn peer(
    runtime: &Runtime,
    group: Group,
    appenders: u32,
    bytes: usize,
    surplus: usize,
) -> impl FnMut(u64) -> Duration {
    let group = Arc::new(group);
    let seqs: Arc<Vec<AtomicU64>> = Arc::new((0..appenders).map(|_| AtomicU64::new(1)).collect());
    move |rounds| {
        let (group, seqs) = (Arc::clone(&group), Arc::clone(&seqs));
        drive(runtime, appenders, rounds, move |n| {
            let group = Arc::clone(&group);
            let mut bytes = payload(&output(bytes));
            bytes.resize(bytes.len() + surplus, b'x');
            let row = Row {
                session: stream(n).to_bytes(),
                seq: seqs[n as usize].fetch_add(1, Ordering::Relaxed),
                bytes,
            };
            async move { group.append(row).await }
        })
    }
}
