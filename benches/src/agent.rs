//! The agent that is talked to: the scripted one behind its own HTTP and stream, in a process of its own,
//! so that what it takes of memory and threads is nobody else's.
//!
//! What a turn is like, its prompt says; see [`say`], [`pace`] and [`hold`].

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

use recount_engine::adapter::InProcessServer as _;
use recount_engine::adapter::scripted::{Fault, Script, Scripted, Step};

use crate::bench::runtime;
use crate::history::text;
use crate::part::Part;

/// The folder that all sessions work in.
pub(crate) const DIRECTORY: &str = "/home/somebody/project";

/// The bytes of one piece of an answer: about what a model says at once.
pub const PIECE_BYTES: usize = 6;

/// Where turns of [`hold`] wait.
const GATE: &str = "held";

/// A turn that says so many pieces at full speed; `number` makes its words others than another's.
#[must_use]
pub fn say(pieces: u32, number: u32) -> String {
    format!("say {pieces} {number}")
}

/// A turn that says so many pieces, each after a pause, and each with its number.
#[must_use]
pub fn pace(pieces: u32, pause: Duration) -> String {
    format!("pace {pieces} {}", pause.as_millis())
}

/// What [`pace`] says at this place.
#[must_use]
pub fn paced(number: u32) -> String {
    format!("[{number}]")
}

/// A turn that says so many pieces, waits until [`Agent::let_go`], and says as many again.
#[must_use]
pub fn hold(pieces: u32) -> String {
    format!("hold {pieces} 0")
}

fn steps(prompt: &str) -> Vec<Step> {
    let mut words = prompt.split(' ');
    let word = words.next().unwrap_or_default();
    let mut number = || -> u32 {
        let number = words.next().and_then(|word| word.parse().ok());
        number.expect("a prompt of a benchmark")
    };
    let (pieces, number) = (number(), number());
    let speech = || {
        let chunks = pieces as usize;
        let words = text(u64::from(number), chunks * PIECE_BYTES);
        Step::text(words, chunks)
    };
    match word {
        "say" => vec![speech()],
        "pace" => (0..pieces)
            .map(|place| Step::Text {
                text: paced(place),
                chunks: 1,
                delay: Duration::from_millis(u64::from(number)),
            })
            .collect(),
        "hold" => vec![speech(), Step::Gate(GATE.to_owned()), speech()],
        other => panic!("{other} is no prompt of a benchmark"),
    }
}

/// An agent's server in a process of its own, which ends with this.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Agent {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    pub fn start() -> Self {
        let mut process = Part::Serve.start(Path::new(DIRECTORY));
        let orders = process.stdin.take().expect("a pipe");
        let answers = process.stdout.take().expect("a pipe");
        let mut answers = BufReader::new(answers).lines();
        let url = answers.next().expect("it speaks").expect("a line");
        Self {
            process,
            orders,
            answers,
            url,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has it never answer the next so many messages that it is to keep, and keep none of them.
    pub fn ignore_messages(&mut self, count: u32) {
        self.order(&format!("ignore {count}"));
    }

    /// Lets all turns go on that it holds.
    pub fn let_go(&mut self) {
        self.order("let go");
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("it listens");
        let answer = self.answers.next().expect("it speaks").expect("a line");
        assert_eq!(answer, "done");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that ended already is gone as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until whoever started this process is gone.
pub(crate) fn serve(directory: &str, say: impl Fn(&str)) {
    let runtime = runtime();
    let agent = Scripted::new(Script::new(|prompt, _| steps(prompt)));
    let server = runtime.block_on(agent.serve(directory, 0, None));
    let server = server.expect("a port");
    say(&server.url());
    for order in std::io::stdin().lines() {
        let Ok(order) = order else { break };
        match order.split_once(' ') {
            Some(("ignore", count)) => {
                let count = count.parse().expect("a number");
                agent.fault("POST message", count, Fault::Hang);
            }
            _ => agent.open_gate(GATE),
        }
        say("done");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(steps: &[Step]) -> usize {
        let bytes = |step: &Step| match step {
            Step::Text { text, .. } => text.len(),
            _ => 0,
        };
        steps.iter().map(bytes).sum()
    }

    #[test]
    fn a_prompt_says_what_its_turn_is_like() {
        assert_eq!(said(&steps(&say(200, 7))), 200 * PIECE_BYTES);
        assert_ne!(steps(&say(200, 7)), steps(&say(200, 8)));
        let held = steps(&hold(3));
        assert_eq!(held[1], Step::Gate("held".to_owned()));
        assert_eq!(said(&held), 2 * 3 * PIECE_BYTES);
        let pause = Duration::from_millis(5);
        let piece = |text: &str| Step::Text {
            text: text.to_owned(),
            chunks: 1,
            delay: pause,
        };
        assert_eq!(steps(&pace(2, pause)), [piece("[0]"), piece("[1]")]);
    }
}
