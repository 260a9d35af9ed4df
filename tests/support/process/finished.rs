//! What is left of a process that has ended.

use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use super::Running;
use crate::command::{VERB_TIMEOUT, objects};

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code or the signal.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs a verb to its end. It reads nothing.
    pub fn of(command: &mut Command) -> Self {
        Running::spawn(command).finish(VERB_TIMEOUT)
    }

    /// The same with this on its standard input, of which it need not read all.
    pub fn given(command: &mut Command, input: Vec<u8>) -> Self {
        Running::given(command, input).finish(VERB_TIMEOUT)
    }

    /// The same with nobody who reads its standard output.
    pub fn unread(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        Self {
            status: output.status,
            stdout: String::new(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Both outputs and how it ended, as one text.
    pub fn text(&self) -> String {
        let mut text = self.stdout.clone();
        if !self.stderr.is_empty() {
            text.push_str("--- stderr\n");
            text.push_str(&self.stderr);
        }
        let code = self.status.code();
        let code = code.map_or("signal".to_owned(), |code| code.to_string());
        text + "--- exit " + &code + "\n"
    }

    /// What it printed, having succeeded.
    #[track_caller]
    pub fn printed(self) -> String {
        assert!(self.status.success(), "{self:#?}");
        self.stdout
    }

    /// The objects that it printed, one a line, having succeeded.
    #[track_caller]
    pub fn json(self) -> Vec<Value> {
        objects(self.printed().lines())
    }

    /// The same, where it is one.
    #[track_caller]
    pub fn object(self) -> Value {
        let [object] = <[Value; 1]>::try_from(self.json())
            .unwrap_or_else(|printed| panic!("one object is printed, not {printed:#?}"));
        object
    }
}
