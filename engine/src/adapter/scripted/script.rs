//! What a scripted agent does for a prompt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use recount_store::{Choice, Prompt};
use serde_json::{Value, json};

/// One thing that the agent does, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Says something. Texts that follow one another, with nothing between them but [`Step::Gate`], are one part.
    Text {
        /// What it says.
        text: String,
        /// In how many pieces it is streamed; at least one, at most one for each character.
        chunks: usize,
        /// How long before each piece. Zero is full speed.
        delay: Duration,
    },
    /// Thinks aloud; otherwise as [`Step::Text`].
    Reasoning {
        /// What it thinks.
        text: String,
        /// In how many pieces it is streamed.
        chunks: usize,
        /// How long before each piece.
        delay: Duration,
    },
    /// Calls a tool. As with the real agent, what comes after it is another answer to the same
    /// message, and a refused permission ends the turn.
    Tool {
        /// The tool: `bash`.
        name: String,
        /// What it is given.
        input: Value,
        /// What it gives back.
        output: String,
        /// What it asks permission for: the command, say. `None` asks nothing.
        permission: Option<String>,
        /// How long it works.
        delay: Duration,
    },
    /// Asks something in words, by its tool `question`, and waits for the answers, which are the tool's output.
    /// As with the real agent, what comes after it is another answer, and a refusal ends the turn.
    Question(Vec<Prompt>),
    /// Has trouble with its model and waits. An open text is dropped, as the real agent does.
    Retry {
        /// What went wrong.
        reason: String,
        /// How long it waits.
        wait: Duration,
    },
    /// Ends the turn with an error.
    Fail {
        /// The error's name: `APIError`.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// The server dies as by SIGKILL: no event, no end of any stream, nothing more is kept. What was
    /// streamed before has left it.
    Die,
    /// The same at the end of the turn: how the answer ended is kept, and not yet that it did, since the real agent
    /// keeps the one a moment before the other.
    DieEnding,
    /// Says nothing more and stays busy, until it is aborted or its server ends.
    Stall,
    /// Waits until the gate of this name is opened, then goes on. See [`super::Scripted::open_gate`].
    Gate(String),
}

impl Step {
    /// A text of one part in `chunks` pieces at full speed.
    #[must_use]
    pub fn text(text: impl Into<String>, chunks: usize) -> Self {
        Self::Text {
            text: text.into(),
            chunks,
            delay: Duration::ZERO,
        }
    }
}

type Play = dyn Fn(&str, u32) -> Vec<Step> + Send + Sync;

/// What a scripted agent does for each prompt: a function of the prompt and of how often its message
/// was run, from 1. The same arguments give the same steps.
///
/// The default is for people who try things out: a short friendly answer that repeats the prompt,
/// in words over about a second. Words behind `script:` in the prompt ask for more, in any order:
///
/// | word | the agent |
/// | --- | --- |
/// | `words=200` | answers in so many words |
/// | `delay=5ms`, `delay=1s` | waits so long before each word |
/// | `reasoning` | thinks first |
/// | `tool` | calls a tool first |
/// | `permission` | asks before it calls the tool |
/// | `question` | asks something in words first |
/// | `retry` | has trouble with its model first, for a second |
/// | `die-once` | dies in the middle of its first run |
/// | `fail` | fails in the middle |
/// | `stall` | falls silent in the middle |
#[derive(Clone)]
pub struct Script {
    play: Arc<Play>,
    can_fork: bool,
}

impl Script {
    /// The script that `play` is: what to do for a prompt when its message is run for the `run`th time, from 1.
    pub fn new(play: impl Fn(&str, u32) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self {
            play: Arc::new(play),
            can_fork: true,
        }
    }

    /// The same, for an agent that cannot copy a session: it answers as a server from before there was that call.
    #[must_use]
    pub fn without_fork(self) -> Self {
        Self {
            can_fork: false,
            ..self
        }
    }

    /// Whether the agent can copy a session.
    pub(super) fn can_fork(&self) -> bool {
        self.can_fork
    }

    /// The same steps for every prompt and run.
    #[must_use]
    pub fn always(steps: Vec<Step>) -> Self {
        Self::new(move |_, _| steps.clone())
    }

    /// An answer of a few sentences, word by word over about three seconds, whose server dies once, in
    /// the middle: what a person is shown first.
    #[must_use]
    pub fn demo() -> Self {
        Self::new(|prompt, run| {
            let text = format!(
                "You asked: {:?}. This answer is streamed in small pieces, and in the middle of its \
                 first run the agent's server is killed. The log holds every piece that had arrived, so \
                 nothing of it is lost. A new server is started, the message is found there, and the \
                 turn is run once more. You are reading the end of that second run now.",
                shortened(prompt)
            );
            let mut steps = words(&text, Duration::from_millis(45));
            if run == 1 {
                steps.truncate(steps.len() / 2);
                steps.push(Step::Die);
            }
            steps
        })
    }

    /// What to do for this prompt.
    #[must_use]
    pub fn steps(&self, prompt: &str, run: u32) -> Vec<Step> {
        (self.play)(prompt, run)
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new(|prompt, run| match prompt.split_once("script:") {
            Some((_, directives)) => directed(directives, run),
            None => words(
                &format!(
                    "Hello! You wrote: {:?}. I am a scripted agent, so this is all I can say to it.",
                    shortened(prompt)
                ),
                Duration::from_millis(50),
            ),
        })
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script(…)")
    }
}

/// A text word by word.
fn words(text: &str, delay: Duration) -> Vec<Step> {
    text.split_inclusive(' ')
        .map(|word| Step::Text {
            text: word.to_owned(),
            chunks: 1,
            delay,
        })
        .collect()
}

fn shortened(prompt: &str) -> String {
    let mut chars = prompt.chars();
    let mut short: String = chars.by_ref().take(60).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

fn directed(directives: &str, run: u32) -> Vec<Step> {
    let mut count = 20;
    let mut delay = Duration::from_millis(50);
    let asked: Vec<&str> = directives.split_whitespace().collect();
    for directive in &asked {
        match directive.split_once('=') {
            Some(("words", number)) => count = number.parse().unwrap_or(count).min(1_000_000),
            Some(("delay", time)) => delay = duration(time).unwrap_or(delay),
            _ => {}
        }
    }
    let wants = |word: &str| asked.contains(&word);
    let mut steps = Vec::new();
    if wants("reasoning") {
        steps.push(Step::Reasoning {
            text: "They want a demonstration, so I follow the script.".into(),
            chunks: 5,
            delay,
        });
    }
    if wants("retry") {
        steps.push(Step::Retry {
            reason: "the model is overloaded (scripted)".into(),
            wait: Duration::from_secs(1),
        });
    }
    if wants("tool") || wants("permission") {
        steps.push(Step::Tool {
            name: "bash".into(),
            input: json!({"command": "echo scripted", "description": "Show that tools work"}),
            output: "scripted\n".into(),
            permission: wants("permission").then(|| "echo scripted".into()),
            delay: Duration::from_millis(200),
        });
    }
    if wants("question") {
        let choice = |label: &str, about: &str| Choice {
            label: label.into(),
            about: about.into(),
        };
        steps.push(Step::Question(vec![Prompt {
            header: "Colour".into(),
            text: "Which colour shall it be?".into(),
            options: vec![choice("red", "Like fire"), choice("blue", "Like water")],
            multiple: false,
            custom: true,
        }]));
    }
    let text: Vec<_> = (1..=count).map(|n| format!("word{n}")).collect();
    let mut answer = words(&text.join(" "), delay);
    let middle = answer.len() / 2;
    if wants("die-once") && run == 1 {
        answer.insert(middle, Step::Die);
    } else if wants("fail") {
        let fail = Step::Fail {
            name: "APIError".into(),
            reason: "the model failed (scripted)".into(),
        };
        answer.insert(middle, fail);
    } else if wants("stall") {
        answer.insert(middle, Step::Stall);
    }
    steps.extend(answer);
    steps
}

/// `5ms` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s').unwrap_or(text);
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(steps: &[Step]) -> String {
        let text = |step: &Step| match step {
            Step::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        steps.iter().filter_map(text).collect()
    }

    #[test]
    fn the_default_answers_with_the_prompt() {
        let steps = Script::default().steps("Add a test", 1);
        assert!(said(&steps).contains("\"Add a test\""), "{}", said(&steps));
        assert_eq!(steps, Script::default().steps("Add a test", 1));
    }

    #[test]
    fn words_in_the_prompt_direct_it() {
        let prompt = "please script: words=4 delay=5ms permission die-once";
        let word = |text: &str| Step::Text {
            text: text.into(),
            chunks: 1,
            delay: Duration::from_millis(5),
        };
        let tool = Step::Tool {
            name: "bash".into(),
            input: json!({"command": "echo scripted", "description": "Show that tools work"}),
            output: "scripted\n".into(),
            permission: Some("echo scripted".into()),
            delay: Duration::from_millis(200),
        };
        let (a, b, c, d) = (
            word("word1 "),
            word("word2 "),
            word("word3 "),
            word("word4"),
        );
        let [first, second] = [1, 2].map(|run| Script::default().steps(prompt, run));
        assert_eq!(
            first,
            [
                tool.clone(),
                a.clone(),
                b.clone(),
                Step::Die,
                c.clone(),
                d.clone()
            ]
        );
        assert_eq!(second, [tool, a, b, c, d]);
    }

    #[test]
    fn the_demo_dies_once_in_the_middle() {
        let [first, second] = [1, 2].map(|run| Script::demo().steps("hi", run));
        assert_eq!(first.last(), Some(&Step::Die));
        assert_eq!(first[..first.len() - 1], second[..second.len() / 2]);
        assert!((40..80).contains(&second.len()), "{}", second.len());
    }
}
