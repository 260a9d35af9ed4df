//! The engine in a simulated world: everything but the agents, the network, the disk and the people is real.
//!
//! One seed makes one world, in virtual time on one thread, and makes it the same each time. CONTRIBUTING.md says how
//! to run many, and how to look at one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "dice are small numbers")]

mod application;
mod book;
mod computer;
mod dice;
mod disk;
mod life;
mod network;
mod promises;
mod script;
mod storm;
mod trace;
mod world;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::world::Outcome;

/// How many worlds the suite looks at.
const SEEDS: u64 = 2000;

/// How many threads share them.
const THREADS: usize = 2;

thread_local! {
    /// The last panic of this thread: the runtime keeps those of tasks to itself.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn watch_for_panics() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let what = info.to_string();
            PANIC.with_borrow_mut(|last| last.get_or_insert(what).len());
        }));
    });
}

/// Lives through the world of a seed; `read` where somebody reads how. An error says what went wrong.
fn live(seed: u64, read: bool) -> (Option<Outcome>, Option<String>) {
    PANIC.take();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(world::live(seed, read))
    }));
    let outcome = outcome.ok();
    let broken = outcome.as_ref().and_then(|outcome| outcome.broken.as_ref());
    let wrong = PANIC.take().or_else(|| broken.map(ToString::to_string));
    (outcome, wrong)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// Every world keeps every promise. With `RECOUNT_SEED` one world, and its trace; with `RECOUNT_SEEDS` so many.
#[test]
fn every_promise_is_kept_in_every_world() {
    watch_for_panics();
    if let Some(seed) = number("RECOUNT_SEED") {
        let (outcome, wrong) = live(seed, true);
        for line in outcome.iter().flat_map(|outcome| &outcome.trace) {
            println!("{line}");
        }
        if let Some(wrong) = wrong {
            println!("{wrong}");
            std::process::exit(1);
        }
        return;
    }
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let seeds = number("RECOUNT_SEEDS").unwrap_or(SEEDS);
    let look = || {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            if let (_, Some(wrong)) = live(seed, false) {
                failed.push((seed, wrong));
                stop.store(number("RECOUNT_KEEP_GOING").is_none(), Ordering::Relaxed);
            }
        }
        failed
    };
    let mut failed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(look)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    failed.sort();
    for (seed, wrong) in &failed {
        println!("seed {seed}: {wrong}\n  again, with its trace: just sim-one {seed}");
    }
    if let Some((seed, _)) = failed.first() {
        println!(
            "after {} worlds, {} failed, first {seed}",
            next.into_inner().min(seeds),
            failed.len()
        );
        std::process::exit(1);
    }
}

/// The same seed gives the same world: every record and every line of the trace.
#[test]
fn a_seed_gives_the_same_world_twice() {
    watch_for_panics();
    for seed in 0..8 {
        let [(first, _), (second, _)] = [live(seed, true), live(seed, true)];
        let (first, second) = (first.unwrap(), second.unwrap());
        for (first, second) in first.trace.iter().zip(&second.trace) {
            if first != second {
                println!("seed {seed}:\n{first}\n{second}");
                std::process::exit(1);
            }
        }
        if first != second {
            println!("seed {seed} gave another world the second time");
            std::process::exit(1);
        }
    }
}

/// Makes the logs that are kept under `tests/fixtures` anew. What tests say of them has to be renewed then, too.
#[test]
#[ignore = "writes into the source tree"]
fn fixtures_are_made() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    watch_for_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let made = runtime.block_on(world::fixtures::make());
    world::fixtures::keep(made, &folder);
}
