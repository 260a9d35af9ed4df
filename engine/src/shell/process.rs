//! Processes of the system: which one is meant, whether it lives, and its end.
//!
//! A process is named by its id and the moment it began, since ids are given again. Elsewhere than on
//! Linux the moment is unknown and no process can be found by its mark: what an earlier engine left is
//! then found by its id alone.

use recount_projections::connection::Process;
use rustix::process::{Pid, Signal};
use tokio::time::sleep;

use crate::limits;

/// This process.
pub(super) fn own() -> Process {
    of(std::process::id())
}

/// The process that has this id now.
pub(super) fn of(pid: u32) -> Process {
    Process {
        pid,
        started: stat(pid).map_or(0, |stat| stat.started),
    }
}

/// Whether it lives. One that has ended and waits for its parent to notice does not.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    if cfg!(target_os = "linux") {
        return stat(process.pid).is_some_and(|stat| {
            !stat.ended && (process.started == 0 || stat.started == process.started)
        });
    }
    id(process).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// Resolves once it does not live.
pub(super) async fn gone(process: Process) {
    while is_alive(process) {
        sleep(limits::PROCESS_POLL).await;
    }
}

/// Asks it and its group to end.
pub(super) fn terminate_group(process: Process) {
    signal_group(process, Signal::TERM);
}

/// Ends it and its group.
pub(super) fn kill_group(process: Process) {
    signal_group(process, Signal::KILL);
}

/// Ends it alone.
pub(super) fn kill(process: Process) {
    if let Some(pid) = id(process).filter(|_| is_alive(process)) {
        // It may end by itself in this instant: then there is nothing to do.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn signal_group(process: Process, signal: Signal) {
    // The group has the id of its first process; once that is gone the id may be anybody's.
    if let Some(pid) = id(process).filter(|_| is_alive(process)) {
        // One that leads no group is meant alone.
        if rustix::process::kill_process_group(pid, signal).is_err() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// The id, where it is one that may be sent signals: neither the first process nor this one.
fn id(process: Process) -> Option<Pid> {
    let ours = process.pid == std::process::id();
    let pid = i32::try_from(process.pid).ok().filter(|pid| *pid > 1)?;
    Pid::from_raw(pid).filter(|_| !ours)
}

struct Stat {
    ended: bool,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself. After it come field 3, the state, and on.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { ended, started })
}

/// The living processes, but this one, that carry a server's mark.
pub(super) fn marked(mark: &str) -> Vec<Process> {
    let entry = entry_of(mark);
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id() && carries(*pid, entry.as_bytes()))
        .map(of)
        .filter(|process| is_alive(*process))
        .collect()
}

/// Whether it carries a server's mark, as far as the system tells.
pub(super) fn may_carry(process: Process, mark: &str) -> bool {
    !cfg!(target_os = "linux") || carries(process.pid, entry_of(mark).as_bytes())
}

fn entry_of(mark: &str) -> String {
    format!("{}={mark}", super::server::MARK_VARIABLE)
}

fn carries(pid: u32, entry: &[u8]) -> bool {
    // What belongs to another user cannot be read, and is not ours.
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|each| each == entry)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_one_of_another_beginning_does_not() {
        let own = own();
        assert!(own.started > 0);
        assert!(is_alive(own));
        let other = Process {
            started: own.started + 1,
            ..own
        };
        assert!(!is_alive(other));
    }

    #[test]
    fn neither_this_process_nor_the_first_nor_all_can_be_meant() {
        for pid in [0, 1, std::process::id(), u32::MAX] {
            assert_eq!(id(Process { pid, started: 0 }), None);
        }
    }
}
