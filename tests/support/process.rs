//! Processes that a test starts: run to the end, killed, and never left behind.

mod finished;
pub mod marker;
pub mod terminal;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

pub use finished::Finished;

/// How long a process that has ended may take to hand over the rest of its output.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// The `recount` command, built from the present sources with the profile of this test.
pub fn recount() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile = match profile_dir().file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("a test runs in target/PROFILE/deps"),
        };
        // Cargo's own lock lets one test process build while the others wait. The whole workspace is named, and an
        // example of it, so that dependencies have the features that they have for its tests, and are not built again.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "build",
                "--workspace",
                "--bin",
                "recount",
                "--example",
                "embed",
            ])
            .args(["--profile", profile])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "recount does not build");
        let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        messages
            .filter_map(Result::ok)
            .filter(|message| message["target"]["name"] == "recount")
            .filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .last()
            .expect("cargo names what it built")
    })
}

/// The folder of all builds: `target`.
pub(crate) fn target_dir() -> &'static Path {
    let profile = profile_dir();
    // Cargo marks the folder if it made it; between it and the profile may stand a platform.
    let marked = profile
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    marked
        .or(profile.parent())
        .expect("a test runs in target/PROFILE/deps")
}

fn profile_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        test.ancestors()
            .nth(2)
            .expect("a test runs in target/PROFILE/deps")
            .to_owned()
    })
}

/// A process in a group of its own, its output collected; the group is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Starts a process, which reads nothing.
    pub fn spawn(command: &mut Command) -> Self {
        Self::reading(command, Stdio::null())
    }

    /// Starts a process with this on its standard input, of which it need not read all.
    pub fn given(command: &mut Command, input: Vec<u8>) -> Self {
        let mut running = Self::reading(command, Stdio::piped());
        let mut stdin = running.child.stdin.take().unwrap();
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        running
    }

    fn reading(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = Captured::read(child.stdout.take().unwrap());
        let stderr = Captured::read(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of standard output that holds these words.
    ///
    /// There is none when the output ends without it, or when the time is over.
    pub fn stdout_line(&self, words: &str, timeout: Duration) -> Option<String> {
        self.stdout.line(words, timeout)
    }

    /// Waits until this many lines of standard output are whole, and hands over all that are.
    ///
    /// There are fewer when the output ends before, or when the time is over.
    pub fn stdout_lines(&self, count: usize, timeout: Duration) -> Vec<String> {
        self.stdout.lines(count, timeout)
    }

    /// Asks the process to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end and hands over what was written.
    pub fn finish(mut self, timeout: Duration) -> Finished {
        let deadline = Instant::now() + timeout;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                None => panic!("no end after {timeout:?}: {self:?}"),
            }
        };
        // A child of its own may hold the pipe open for longer.
        self.stdout.wait_for_end(OUTPUT_GRACE);
        self.stderr.wait_for_end(OUTPUT_GRACE);
        Finished {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }

    /// Kills this one process, as `kill -9` does, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills the process and all of its group.
    pub fn kill_group(&mut self) {
        // The group outlives its leader, but once waited for, its number may be another's.
        if self.child.try_wait().unwrap().is_none() {
            let group = Pid::from_child(&self.child);
            kill_process_group(group, Signal::KILL).unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Output collected by a thread as it comes.
#[derive(Clone)]
struct Captured(Arc<(Mutex<Output>, Condvar)>);

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    ended: bool,
}

impl Captured {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let captured = Self(Arc::default());
        let shared = captured.clone();
        std::thread::spawn(move || {
            let (output, changed) = &*shared.0;
            let mut piece = [0; 8 * 1024];
            loop {
                let length = from.read(&mut piece).unwrap_or(0);
                let mut output = output.lock().unwrap();
                output.bytes.extend_from_slice(&piece[..length]);
                output.ended = length == 0;
                changed.notify_all();
                if output.ended {
                    return;
                }
            }
        });
        captured
    }

    fn line(&self, words: &str, timeout: Duration) -> Option<String> {
        let find = |output: &Output| {
            let text = String::from_utf8_lossy(&output.bytes);
            // The last line is whole only when its end is there.
            let (whole, _) = text.rsplit_once('\n')?;
            whole
                .lines()
                .find(|line| line.contains(words))
                .map(str::to_owned)
        };
        self.wait_until(timeout, |output| output.ended || find(output).is_some());
        find(&self.0.0.lock().unwrap())
    }

    fn lines(&self, count: usize, timeout: Duration) -> Vec<String> {
        let ends = |output: &Output| output.bytes.split(|&byte| byte == b'\n').count() - 1;
        self.wait_until(timeout, |output| output.ended || ends(output) >= count);
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    fn holds(&self, words: &str, timeout: Duration) -> bool {
        let find = |output: &Output| String::from_utf8_lossy(&output.bytes).contains(words);
        self.wait_until(timeout, |output| output.ended || find(output));
        find(&self.0.0.lock().unwrap())
    }

    fn wait_for_end(&self, timeout: Duration) {
        self.wait_until(timeout, |output| output.ended);
    }

    fn wait_until(&self, timeout: Duration, reached: impl Fn(&Output) -> bool) {
        let (output, changed) = &*self.0;
        let output = output.lock().unwrap();
        drop(
            changed
                .wait_timeout_while(output, timeout, |output| !reached(output))
                .unwrap(),
        );
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}
