//! A terminal with a person at it: what a process shows there, and what is typed.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::{Captured, Finished, Running};

/// A process on a terminal of its own. It is hung up on when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    running: Running,
    columns: u16,
    rows: u16,
}

/// As wide as terminals have always been.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// What a program writes to hide the cursor.
const HIDE_CURSOR: &[u8] = b"\x1b[?25l";

impl Terminal {
    /// Runs a command, with the environment that was set for it and nothing of this process's.
    pub fn run(command: &Command) -> Self {
        Self::of_size(command, COLUMNS, ROWS)
    }

    /// The same on a terminal of so many columns and rows.
    pub fn of_size(command: &Command, columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&controller, size).unwrap();
        let end = || Stdio::from(ioctl_tiocgptpeer(&controller, flags).unwrap());
        let mut setsid = in_a_session(command);
        let child = setsid
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap_or_else(|error| panic!("{setsid:?} does not start: {error}"));
        // It keeps its copies of the other end, and as long as one is open the screen has no end.
        drop(setsid);
        let screen = File::from(controller);
        let keyboard = screen.try_clone().unwrap();
        Self {
            keyboard,
            running: Running {
                child,
                stdout: Captured::read(screen),
                stderr: Captured::read(std::io::empty()),
            },
            columns,
            rows,
        }
    }

    /// What is on the screen now, after all that was written to it.
    pub fn screen(&self) -> vt100::Screen {
        screen(
            self.running.stdout.text().as_bytes(),
            self.columns,
            self.rows,
        )
    }

    /// Waits until these words are on a screen that is drawn whole: full-screen programs end that by hiding the cursor.
    /// Gives the text that is on it then, or when the time is over.
    pub fn text_with(&self, words: &str, timeout: Duration) -> String {
        let (columns, rows) = (self.columns, self.rows);
        let held = |output: &super::Output| {
            let drawn = output.bytes.ends_with(HIDE_CURSOR);
            let shows = || text(&screen(&output.bytes, columns, rows)).contains(words);
            output.ended || (drawn && shows())
        };
        self.running.stdout.wait_until(timeout, held);
        text(&self.screen())
    }

    /// Whether the terminal takes lines and shows what is typed, as it does for a shell.
    pub fn is_tame(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits until the process has written its last; the terminal can still be looked at.
    pub fn wait_for_end(&self, timeout: Duration) {
        self.running.stdout.wait_for_end(timeout);
    }

    /// Whether these words are shown before the time is over.
    pub fn shows(&self, words: &str, timeout: Duration) -> bool {
        self.running.stdout.holds(words, timeout)
    }

    /// Types these keys: `"\n"` is the return key, `"\x03"` Ctrl-C.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for the end. What was shown is the standard output, with a carriage return at each end of a line.
    pub fn finish(self, timeout: Duration) -> Finished {
        self.running.finish(timeout)
    }
}

/// The same command by way of `setsid`: only the first process of a session can be given a terminal.
fn in_a_session(command: &Command) -> Command {
    let mut setsid = Command::new("setsid");
    setsid
        .args(["--ctty", "--wait"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    for (name, value) in command.get_envs() {
        setsid.envs(value.map(|value| (name, value)));
    }
    if let Some(folder) = command.get_current_dir() {
        setsid.current_dir(folder);
    }
    setsid
}

fn screen(bytes: &[u8], columns: u16, rows: u16) -> vt100::Screen {
    let some = |size| NonZero::new(size).expect("a terminal has a size");
    let mut parser = vt100::Parser::new(some(rows), some(columns), 0);
    parser.process(bytes);
    parser.screen().clone()
}

/// The lines of a screen, without the spaces at their ends.
fn text(screen: &vt100::Screen) -> String {
    let contents = screen.contents();
    let lines: Vec<&str> = contents.lines().map(str::trim_end).collect();
    lines.join("\n")
}
