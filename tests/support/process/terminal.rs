//! A terminal with a person at it: what a process shows there, and what is typed.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::{Captured, Finished, Running};

/// A process on a terminal of its own. It is hung up on when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    running: Running,
}

impl Terminal {
    /// Runs `setsid --ctty --wait`, with the program to be run among its arguments: only the first process of
    /// a session can be given a terminal, and that is what `setsid` is for.
    pub fn run(setsid: &mut Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let end = || Stdio::from(ioctl_tiocgptpeer(&controller, flags).unwrap());
        let child = setsid
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap_or_else(|error| panic!("{setsid:?} does not start: {error}"));
        // The command keeps its copies, and as long as one is open the screen has no end.
        setsid
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let screen = File::from(controller);
        let keyboard = screen.try_clone().unwrap();
        Self {
            keyboard,
            running: Running {
                child,
                stdout: Captured::read(screen),
                stderr: Captured::read(std::io::empty()),
            },
        }
    }

    /// Whether these words are shown before the time is over.
    pub fn shows(&self, words: &str, timeout: Duration) -> bool {
        self.running.stdout.holds(words, timeout)
    }

    /// Types these keys: `"\n"` is the return key, `"\x03"` Ctrl-C.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end. What was shown is the standard output, with a carriage return at each end of a line.
    pub fn finish(self, timeout: Duration) -> Finished {
        self.running.finish(timeout)
    }
}
