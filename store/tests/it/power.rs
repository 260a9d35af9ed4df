//! The power is lost between any two operations on the disk, and what is left is a log.
//!
//! A *life* of a log is made by chance from a seed, on a [disk] that remembers each operation. Then the
//! power is lost after each of them, and of what was not synced nothing survives, or all, or what chance
//! leaves. What is left is opened, [checked](crate::life) and lives on for a little; that life is cut
//! short in turn after each of its operations, and some of those lives again.
//!
//! A loss that fails names its place, and `RECOUNT_CRASH_SEED=PLACE` repeats it alone: `7/117.2/5.0` is
//! the life of seed 7, cut after operation 117 with fate 2, whose next life was cut after operation 5
//! with fate 0. The place `7` repeats all losses of that life. `RECOUNT_CRASH_POINTS` says how many
//! losses there are to be.
//!
//! # What these tests find
//!
//! The log was made wrong by hand, one mistake at a time, to see it found. By the losses of power:
//!
//! - an append acknowledged before its entry was synced;
//! - an entry's checksum not looked at;
//! - an entry of the journal taken that does not follow on the state before it;
//! - the journal emptied at closing before its entries had settled;
//! - settling without making the tables durable, and then using the journal's file again;
//! - frames left out of the entry of the append that names them;
//! - ids forgotten, in memory or in the tables; a stream's expected number not looked at.
//!
//! By the failing disk ([`failure`](crate::failure)), besides most of those: appends that go on after a
//! failure, readers that are shown an event before it is durable, and an entry that a failed sync left in
//! doubt taken for durable when the log is opened again, since reads show it. By the histories
//! ([`history`](crate::history)), besides most of those, since threads have to meet: a file of the journal
//! used again before what it held had settled, and events that are seen twice while they settle.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chance::Chance;
use crate::disk::Fate;
use crate::life::{Life, alone, crowd, new_disk, revive};

/// How many losses a run of the tests makes; `RECOUNT_CRASH_POINTS` says otherwise.
const LOSSES: u64 = 10_000;

/// How much happens in a life.
const STEPS: u64 = 24;

#[test]
fn every_loss_of_power_leaves_a_log() {
    if let Ok(place) = std::env::var("RECOUNT_CRASH_SEED") {
        let place: Place = place.parse().expect("a place, as a failure prints it");
        return place.repeat();
    }
    let wanted = match std::env::var("RECOUNT_CRASH_POINTS") {
        Ok(points) => points.parse().expect("a number"),
        Err(_) => LOSSES,
    };
    let losses = AtomicU64::new(0);
    let seeds = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while losses.load(Ordering::Relaxed) < wanted {
                    let place = Place::new(seeds.fetch_add(1, Ordering::Relaxed));
                    losses.fetch_add(place.explore(), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{losses:?} losses of power");
}

#[test]
fn a_seed_gives_the_same_life_each_time() {
    for seed in 0..10 {
        let again = || alone(&new_disk(), seed, STEPS).trace.operations();
        assert_eq!(again(), again(), "seed {seed}");
    }
}

#[test]
fn every_loss_of_power_leaves_a_log_of_many_appenders() {
    for seed in 0..4 {
        let life = crowd(&new_disk(), seed);
        let mut chance = Chance::new(seed);
        let mut replay = life.trace.replay();
        loop {
            // Threads take turns as they like, so the place alone does not bring this back.
            let fate = Fate::Chance(chance.number());
            revive(&replay.survivors(fate), life.allowed(replay.done));
            if !replay.step() {
                break;
            }
        }
    }
}

/// Where the power was lost: the life, then each loss and the life after it.
#[derive(Clone)]
struct Place {
    seed: u64,
    losses: Vec<(u64, u64)>,
}

impl Place {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            losses: Vec::new(),
        }
    }

    fn then(&self, after: u64, fate: u64) -> Self {
        let mut place = self.clone();
        place.losses.push((after, fate));
        place
    }

    /// Loses the power at each operation of a life; gives how many losses there were.
    fn explore(&self) -> u64 {
        let _here = Here(self);
        let life = alone(&new_disk(), self.seed, STEPS);
        let mut chance = Chance::new(self.seed);
        self.explore_life(&life, &mut chance)
    }

    fn explore_life(&self, life: &Life, chance: &mut Chance) -> u64 {
        let depth = self.losses.len();
        let mut losses = 0;
        let mut replay = life.trace.replay();
        loop {
            let by_chance = 2 + chance.number() % 1_000_000;
            let fates = match depth {
                0 => vec![0, 1, by_chance],
                1 => vec![by_chance],
                _ if chance.percent(20) => vec![by_chance],
                _ => vec![],
            };
            for fate in fates {
                let place = self.then(replay.done, fate);
                let _here = Here(&place);
                let allowed = life.allowed(replay.done);
                let next = revive(&replay.survivors(fate_of(fate)), allowed);
                losses += 1;
                if depth < 2 && chance.percent(2) {
                    losses += place.explore_life(&next, chance);
                }
            }
            if !replay.step() {
                return losses;
            }
        }
    }

    /// Loses the power here alone; in a life that was not cut, everywhere.
    fn repeat(&self) {
        if self.losses.is_empty() {
            self.explore();
            return;
        }
        let mut life = alone(&new_disk(), self.seed, STEPS);
        for (after, fate) in &self.losses {
            let survivors = life.trace.survivors(*after, fate_of(*fate));
            life = revive(&survivors, life.allowed(*after));
        }
    }
}

fn fate_of(number: u64) -> Fate {
    match number {
        0 => Fate::Lost,
        1 => Fate::Applied,
        seed => Fate::Chance(seed),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for (after, fate) in &self.losses {
            write!(f, "/{after}.{fate}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Place {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let mut place = Self::new(parts.next().unwrap_or_default().parse()?);
        for part in parts {
            let (after, fate) = part.split_once('.').unwrap_or((part, ""));
            place = place.then(after.parse()?, fate.parse()?);
        }
        Ok(place)
    }
}

/// Names a place when what happens there panics.
struct Here<'a>(&'a Place);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it alone: RECOUNT_CRASH_SEED={}", self.0);
        }
    }
}
