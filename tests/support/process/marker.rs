//! A mark in the environment, by which all processes that a test caused are found.
//!
//! Children inherit it, whatever session or group they move to, and however their parents end. The
//! mark names the test process that it belongs to, so what a killed test left behind is found too.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const VARIABLE: &str = "RECOUNT_TEST";

/// How long a process that was told to end may take.
const END_GRACE: Duration = Duration::from_secs(5);

/// How long a process that becomes another program may have no environment: long enough on a busy machine.
const EXEC_GRACE: Duration = Duration::from_millis(200);

/// A mark of its own for one test; processes that still carry it are killed when it is dropped.
#[derive(Debug)]
pub struct Marker {
    /// `pid.start-time.number` of the test process.
    value: String,
}

impl Marker {
    /// A new mark. The first one also ends what test processes that are gone left behind.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep_orphans);
        let pid = std::process::id();
        let started = start_time(pid).expect("this process is running");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            value: format!("{pid}.{started}.{number}"),
        }
    }

    /// The variable to set for every process that is started.
    pub fn env(&self) -> (String, String) {
        (VARIABLE.into(), self.value.clone())
    }

    /// The processes that carry this mark: their ids and command lines.
    pub fn processes(&self) -> BTreeMap<u32, String> {
        marked(|value| value == self.value)
    }

    /// Fails if a process with this mark is left, after a moment for those that are about to end.
    pub fn assert_none_left(&self) {
        let deadline = Instant::now() + END_GRACE;
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.processes();
        assert!(left.is_empty(), "processes left behind: {left:#?}");
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        kill_marked(|value| value == self.value);
    }
}

fn sweep_orphans() {
    kill_marked(|value| {
        let mut parts = value.split('.').map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(pid)), Some(Ok(started))) => {
                u32::try_from(pid).ok().and_then(start_time) != Some(started)
            }
            // Not one of ours.
            _ => false,
        }
    });
}

/// Kills until none is left, since one that is about to be killed may start another.
fn kill_marked(wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + END_GRACE;
    loop {
        let found = marked(&wanted);
        if found.is_empty() {
            return;
        }
        for &pid in found.keys() {
            kill_if(pid, &wanted);
        }
        if Instant::now() > deadline {
            // No panic: this runs while tests are torn down.
            eprintln!("could not be killed: {found:#?}");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a process through a handle, so that nobody else is hit who was given the same number.
fn kill_if(pid: u32, wanted: impl Fn(&str) -> bool) {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    // It may be gone already, here and below.
    let Ok(handle) = pidfd_open(raw, PidfdFlags::empty()) else {
        return;
    };
    if mark_of(pid).is_some_and(|value| wanted(&value)) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

fn marked(wanted: impl Fn(&str) -> bool) -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| mark_of(pid).is_some_and(|value| wanted(&value)))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// The mark of a process, where it has one. A zombie has no environment any more.
fn mark_of(pid: u32) -> Option<String> {
    let environment = environment(pid)?;
    environment
        .split(|&byte| byte == 0)
        .filter_map(|variable| std::str::from_utf8(variable).ok()?.split_once('='))
        .find_map(|(name, value)| (name == VARIABLE).then(|| value.to_owned()))
}

/// The environment of a process.
///
/// While a process becomes another program, its old environment is cut off and the new one reads as empty
/// for a moment. So what was read counts once it was read twice the same, and an empty one only of a
/// process that has ended.
fn environment(pid: u32) -> Option<Vec<u8>> {
    let read = || fs::read(format!("/proc/{pid}/environ")).ok();
    let deadline = Instant::now() + EXEC_GRACE;
    let mut before = read()?;
    loop {
        let environment = read()?;
        let settled = before == environment && (!environment.is_empty() || !is_program(pid));
        if settled || Instant::now() > deadline {
            return Some(environment);
        }
        before = environment;
        std::thread::yield_now();
    }
}

/// Whether a process runs a program: a zombie does not any more, and a thread of the kernel never did.
fn is_program(pid: u32) -> bool {
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let Some(fields) = stat(pid) else {
        return false;
    };
    let mut fields = fields.split_whitespace();
    let running = fields
        .next()
        .is_some_and(|state| !matches!(state, "Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u32>().ok());
    running && flags.is_some_and(|flags| flags & KERNEL_THREAD == 0)
}

fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// When a process was started, in ticks since the machine was.
fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// What the system says about a process, from its state on.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn leftovers_of_a_dead_test_process_are_swept() {
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let mark = format!("{}.0.0", dead.id());
        let mut left = Command::new("sleep")
            .arg("300")
            .env(VARIABLE, &mark)
            .spawn()
            .unwrap();
        sweep_orphans();
        // Its environment goes before it does.
        let deadline = Instant::now() + END_GRACE;
        let ended = loop {
            match left.try_wait().unwrap() {
                None if Instant::now() < deadline => std::thread::yield_now(),
                ended => break ended,
            }
        };
        let _ = left.kill();
        assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    }

    #[test]
    fn a_process_that_becomes_another_program_is_found_all_along() {
        let marker = Marker::new();
        // A shell that replaces itself again and again.
        let script = r#"test "$1" -gt 0 && exec sh -c "$0" "$0" $(($1 - 1)); sleep 300"#;
        let mut shell = Command::new("sh")
            .args(["-c", script, script, "300"])
            .envs([marker.env()])
            .spawn()
            .unwrap();
        for _ in 0..20_000 {
            assert!(mark_of(shell.id()).is_some());
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn what_moved_to_another_session_is_found_and_ended() {
        let marker = Marker::new();
        let script = "setsid sleep 300 >/dev/null 2>&1 &";
        Command::new("sh")
            .args(["-c", script])
            .envs([marker.env()])
            .status()
            .unwrap();
        let deadline = Instant::now() + END_GRACE;
        let pid = loop {
            // Before it is `sleep`, it is the shell and then `setsid`.
            let found = marker.processes();
            if let Some((&pid, _)) = found.iter().find(|(_, line)| line.starts_with("sleep")) {
                break pid;
            }
            assert!(Instant::now() < deadline, "only {found:?}");
        };
        drop(marker);
        assert_eq!(mark_of(pid), None);
    }
}
