//! A disk that fails at any of its operations: nothing is acknowledged that is not durable, the first
//! failure is final and says so to everyone, and what is left opens again.

use recount_store::{Error, Expected, Position};

use crate::disk::{Disk, Fate, Fault, File};
use crate::life::{Life, alone, new_disk, revive};
use crate::{runtime, said, session};

/// Enough to append, to read, to close and to open again.
const STEPS: u64 = 14;

/// Lives with a fault at one operation after the other.
fn with_faults(seed: u64, step: usize, fault: impl Fn(u64) -> Fault, then: impl Fn(&Disk, &Life)) {
    let operations = alone(&new_disk(), seed, STEPS).trace.len();
    for at in (1..=operations).step_by(step) {
        let disk = new_disk();
        disk.expect(fault(at));
        let life = alone(&disk, seed, STEPS);
        then(&disk, &life);
    }
}

/// The log has said what is wrong, and what is left of it is whole.
fn failed_well(disk: &Disk, life: &Life, cause: &str) {
    if disk.failures() > 0 && !life.untold {
        let failed = life.failed.as_ref().or(life.failed_before.as_ref());
        let said = match (failed, &life.refused) {
            (Some(failed), _) => failed.to_string(),
            (None, Some(refused)) => refused.to_string(),
            (None, None) => panic!("nobody was told"),
        };
        assert!(said.contains(cause), "{said}");
    }
    let chance = Fate::Chance(disk.operations());
    for fate in [Fate::Lost, Fate::Applied, chance] {
        revive(&disk.survivors(fate), life.allowed(u64::MAX));
    }
    // Only the process is started again: it sees what it wrote, but not whether that is on the disk.
    if !disk.is_unreadable() {
        disk.mend();
        let next = revive(disk, life.allowed(u64::MAX));
        let mut replay = next.trace.replay();
        while replay.step() {
            if replay.done >= next.opened {
                revive(&replay.survivors(Fate::Lost), next.allowed(replay.done));
            }
        }
    }
}

#[test]
fn a_sync_that_fails() {
    for at in alone(&new_disk(), 1, STEPS).trace.syncs() {
        let disk = new_disk();
        disk.expect(Fault::FailedSync { from: at });
        let life = alone(&disk, 1, STEPS);
        failed_well(&disk, &life, "the sync failed");
    }
}

#[test]
fn a_disk_that_fills_up() {
    let fault = |from| Fault::Full { from };
    with_faults(2, 3, fault, |disk, life| {
        failed_well(disk, life, "no storage space");
    });
}

#[test]
fn a_disk_that_may_not_be_written_any_more() {
    let fault = |from| Fault::ReadOnly { from };
    with_faults(3, 3, fault, |disk, life| {
        failed_well(disk, life, "read-only");
    });
}

#[test]
fn a_disk_that_is_gone() {
    let fault = |at| Fault::Crash { at };
    with_faults(4, 3, fault, |disk, life| {
        failed_well(disk, life, "the power is lost");
    });
}

/// Nobody can keep what somebody else takes away. But nothing comes of it that was not there.
#[test]
fn a_file_that_is_cut_short() {
    let shrunk = [
        (File::Database, 100),
        (File::Database, 8192),
        (File::Database, 1 << 20),
        (File::JournalA, 0),
        (File::JournalA, 8192),
        (File::JournalB, 4096),
    ];
    for (seed, (file, len)) in (5..).zip(shrunk) {
        let fault = |at| Fault::Shrunk { at, file, len };
        with_faults(seed, 7, fault, |disk, life| {
            let left = disk.survivors(Fate::Applied);
            if left.open().is_ok() {
                revive(&left, life.allowed(u64::MAX).or_less(life));
            }
        });
    }
}

#[test]
fn a_failed_commit_is_final() {
    runtime().block_on(async {
        let disk = new_disk();
        let log = disk.open().expect("a log");
        log.append(session(1), Expected::Any, vec![said("good")])
            .await
            .expect("appended");

        disk.expect(Fault::FailedSync { from: 0 });
        let appends: Vec<_> = (0..10)
            .map(|n| {
                let log = log.clone();
                tokio::spawn(async move {
                    log.append(session(n), Expected::Any, vec![said("bad")])
                        .await
                })
            })
            .collect();
        for append in appends {
            let error = append.await.expect("no panic").expect_err("it failed");
            assert!(
                matches!(&error, Error::Failed { cause } if cause.contains("the sync failed")),
                "{error:?}"
            );
        }
        // The disk is well again, which changes nothing: what it lost in between nobody knows.
        let late = log
            .append(session(1), Expected::Any, vec![said("late")])
            .await;
        assert!(matches!(late, Err(Error::Failed { .. })), "{late:?}");
        let compacted = log.compact(|_| {}).await;
        assert!(
            matches!(compacted, Err(Error::Failed { .. })),
            "{compacted:?}"
        );
        let rebuilt = log.rebuild(|_| {}).await;
        assert!(matches!(rebuilt, Err(Error::Failed { .. })), "{rebuilt:?}");
        assert_eq!(log.head().expect("a head").position, Position(1));
        assert!(matches!(log.close().await, Err(Error::Failed { .. })));
    });
}
