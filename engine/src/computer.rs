//! The computer under the engine, as far as the servers concern that it starts: processes and ports.
//!
//! One seam below what the engine does with a server, so that a test can put a computer of its own there, whose
//! processes begin and die as it wants. [`System`] is what everybody else uses.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};

/// A program that is to run as a process of its own, at the head of a group of its own.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// The program: a path, or a name that is looked up on the `PATH`.
    pub program: &'a str,
    /// Its arguments.
    pub args: &'a [String],
    /// What is added to this process's environment; may hold secrets, so it is never shown.
    pub env: &'a [(String, String)],
    /// The folder to start in: absolute.
    pub directory: &'a str,
    /// The file that what it writes is appended to.
    pub output: &'a Path,
}

/// A process that this one started. It lives on where this is dropped.
#[async_trait]
pub trait Child: Send + Sync {
    /// Its id; `None` where it is gone already.
    fn pid(&self) -> Option<u32>;
    /// Resolves once it is gone, with how. Dropping the future loses nothing.
    async fn exited(&mut self) -> String;
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it has ended, and waits for its parent to notice.
    pub ended: bool,
    /// When it began, in clock ticks since boot; 0 where unknown.
    pub started: u64,
}

/// What a signal is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Ask to end.
    Ask,
    /// End.
    Kill,
}

/// What the engine asks of the computer that its servers run on.
pub trait Computer: fmt::Debug + Send + Sync + 'static {
    /// Whether its answers take time, so that many of them are waited for beside the tasks.
    fn takes_time(&self) -> bool {
        true
    }

    /// The id of this process.
    fn own_pid(&self) -> u32;

    /// The ids of all processes, as far as it tells.
    fn pids(&self) -> Vec<u32>;

    /// What is known of a process; `None` where there is none.
    fn stat(&self, pid: u32) -> Option<Stat>;

    /// The words of a process's command line, each ended by a zero byte; `None` where that is not told.
    fn command(&self, pid: u32) -> Option<Vec<u8>>;

    /// The entries of a process's environment, each ended by a zero byte; `None` where that is not told.
    fn environment(&self, pid: u32) -> Option<Vec<u8>>;

    /// Starts a process.
    ///
    /// # Errors
    ///
    /// Where the program, the folder or the file for its output is not there, or not permitted.
    fn start(&self, program: &Program) -> io::Result<Box<dyn Child>>;

    /// Ends a process, and with `group` the group that it leads. One that is gone is none.
    fn end(&self, pid: u32, group: bool, end: End);

    /// Whether something listens on this port of loopback.
    fn is_taken(&self, port: u16) -> bool;
}

/// Does work that asks the computer much.
pub(crate) async fn beside<T: Send + 'static>(
    computer: &Arc<dyn Computer>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if !computer.takes_time() {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
}

/// The computer that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Computer for System {
    fn own_pid(&self) -> u32 {
        std::process::id()
    }

    fn pids(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        if !cfg!(target_os = "linux") {
            let lives = rustix::process::test_kill_process(named(pid)?).is_ok();
            return lives.then_some(Stat {
                ended: false,
                started: 0,
            });
        }
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold some itself. After it come field 3, the state, and on.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let started = fields.nth(18)?.parse().ok()?;
        Some(Stat { ended, started })
    }

    fn command(&self, pid: u32) -> Option<Vec<u8>> {
        std::fs::read(format!("/proc/{pid}/cmdline")).ok()
    }

    fn environment(&self, pid: u32) -> Option<Vec<u8>> {
        std::fs::read(format!("/proc/{pid}/environ")).ok()
    }

    fn start(&self, program: &Program) -> io::Result<Box<dyn Child>> {
        // Appending, so that the file can be emptied while the process writes.
        let output = OpenOptions::new().append(true).open(program.output)?;
        let mut command = tokio::process::Command::new(program.program);
        command
            .args(program.args)
            .envs(program.env.iter().cloned())
            .current_dir(program.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        #[cfg(unix)]
        command.process_group(0);
        Ok(Box::new(command.spawn()?))
    }

    fn end(&self, pid: u32, group: bool, end: End) {
        let Some(pid) = named(pid) else { return };
        let signal = match end {
            End::Ask => Signal::TERM,
            End::Kill => Signal::KILL,
        };
        // One that leads no group is meant alone. It may end by itself in this instant: then there is nothing to do.
        if !group || rustix::process::kill_process_group(pid, signal).is_err() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn is_taken(&self, port: u16) -> bool {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    }
}

fn named(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[async_trait]
impl Child for tokio::process::Child {
    fn pid(&self) -> Option<u32> {
        self.id()
    }

    async fn exited(&mut self) -> String {
        match self.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}
