//! Processes of the system: which one is meant, whether it lives, and its end.
//!
//! A process is named by its id and the moment it began, since ids are given again. Elsewhere than on
//! Linux the moment is unknown and no process can be found by its mark: what an earlier engine left is
//! then found by its id alone.

use std::sync::Arc;

use recount_projections::connection::Process;
use tokio::time::sleep;

use crate::computer::{Computer, End};
use crate::limits;

/// The processes of the computer that servers run on. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Processes(Arc<dyn Computer>);

impl Processes {
    pub(super) fn new(computer: Arc<dyn Computer>) -> Self {
        Self(computer)
    }

    /// What they are of.
    pub(super) fn computer(&self) -> &Arc<dyn Computer> {
        &self.0
    }

    /// This process.
    pub(super) fn own(&self) -> Process {
        self.of(self.0.own_pid())
    }

    /// The process that has this id now.
    pub(super) fn of(&self, pid: u32) -> Process {
        Process {
            pid,
            started: self.0.stat(pid).map_or(0, |stat| stat.started),
        }
    }

    /// Whether it lives. One that has ended and waits for its parent to notice does not.
    pub(super) fn is_alive(&self, process: Process) -> bool {
        self.0.stat(process.pid).is_some_and(|stat| {
            !stat.ended && (process.started == 0 || stat.started == process.started)
        })
    }

    /// Resolves once it does not live.
    pub(super) async fn gone(&self, process: Process) {
        while self.is_alive(process) {
            sleep(limits::PROCESS_POLL).await;
        }
    }

    /// Asks it and its group to end.
    pub(super) fn terminate_group(&self, process: Process) {
        self.end(process, true, End::Ask);
    }

    /// Ends it and its group.
    pub(super) fn kill_group(&self, process: Process) {
        self.end(process, true, End::Kill);
    }

    /// Ends it alone.
    pub(super) fn kill(&self, process: Process) {
        self.end(process, false, End::Kill);
    }

    fn end(&self, process: Process, group: bool, end: End) {
        // The group has the id of its first process; once that is gone the id may be anybody's.
        if self.may_be_ended(process) && self.is_alive(process) {
            self.0.end(process.pid, group, end);
        }
    }

    /// Whether its id is one that may be sent signals: neither the first process nor this one, nor all.
    fn may_be_ended(&self, process: Process) -> bool {
        let names_one = i32::try_from(process.pid).is_ok_and(|pid| pid > 1);
        names_one && process.pid != self.0.own_pid()
    }

    /// The living processes, but this one, that carry a server's mark.
    pub(super) fn marked(&self, mark: &str) -> Vec<Process> {
        let entry = entry_of(mark);
        let pids = self.0.pids().into_iter();
        pids.filter(|pid| *pid != self.0.own_pid() && self.carries(*pid, entry.as_bytes()))
            .map(|pid| self.of(pid))
            .filter(|process| self.is_alive(*process))
            .collect()
    }

    /// Whether it carries a server's mark, as far as the system tells.
    pub(super) fn may_carry(&self, process: Process, mark: &str) -> bool {
        !cfg!(target_os = "linux") || self.carries(process.pid, entry_of(mark).as_bytes())
    }

    fn carries(&self, pid: u32, entry: &[u8]) -> bool {
        // What belongs to another user cannot be read, and is not ours.
        self.0.environment(pid).is_some_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|each| each == entry)
        })
    }
}

fn entry_of(mark: &str) -> String {
    format!("{}={mark}", super::server::MARK_VARIABLE)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::computer::System;

    #[test]
    fn this_process_lives_and_one_of_another_beginning_does_not() {
        let processes = Processes::new(Arc::new(System));
        let own = processes.own();
        assert!(own.started > 0);
        assert!(processes.is_alive(own));
        let other = Process {
            started: own.started + 1,
            ..own
        };
        assert!(!processes.is_alive(other));
    }

    #[test]
    fn neither_this_process_nor_the_first_nor_all_can_be_meant() {
        let processes = Processes::new(Arc::new(System));
        for pid in [0, 1, std::process::id(), u32::MAX] {
            assert!(!processes.may_be_ended(Process { pid, started: 0 }));
        }
    }
}
