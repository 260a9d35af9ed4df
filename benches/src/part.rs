//! What is done in a process of its own: to be killed, to be cold, or to be another one than the writer.
//!
//! The process is this program again, told by its arguments what to do. It says what it sees on its
//! standard output, a line at a time.

mod over_agent;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use recount_projections::{Projection as _, Session};
use recount_store::{
    Expected, Log, LogReader, NewEvent, Position, Select, Seq, StreamId, Timestamp,
};

use crate::agent;
use crate::bench::runtime;
use crate::group::{Group, Row};
use crate::history::{output, payload, stream};
use crate::machine::{memory, memory_peak};
use crate::peers::{Fjall, Sqlite};

/// How often another process's database is asked whether it moved; the log asks as often.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The sessions that are appended to, at once, until the process is killed.
pub(crate) const SESSIONS: u32 = 256;

/// Who is written to, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The log.
    Recount,
    /// `SQLite`.
    Sqlite,
    /// fjall.
    Fjall,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Append to `who` until killed; say `ready` when so many events are acknowledged. Numbers begin at `first`.
    Append {
        /// To whom.
        who: Who,
        /// How many events, before it is said.
        events: u64,
        /// The number that events of peers begin at.
        first: u64,
    },
    /// Read the session, fold it where `fold` says so, and say `EVENTS BYTES`: by how much memory grew at most.
    Rebuild {
        /// Which session.
        session: u32,
        /// Whether events are folded, too.
        fold: bool,
    },
    /// Say `ready`, then `POSITION MICROSECONDS` for so many events as they come.
    Follow {
        /// Whose.
        who: Who,
        /// How many.
        events: u64,
    },
    /// Be an agent's server in the folder that is the path: say where it listens, then `done` for each order.
    Serve,
    /// Have so many sessions answered once, and say by how many bytes memory has grown, and how many they are.
    Idle {
        /// Where the agent listens.
        url: String,
        /// How many.
        sessions: u32,
    },
    /// Start an engine, and say in how many microseconds it did, and by how many bytes memory has grown.
    Restart,
    /// Have a message under way in each of so many sessions, half of them held by the agent and half ignored; say
    /// `ready`, and wait to be killed.
    Interrupt {
        /// Where the agent listens.
        url: String,
        /// How many.
        sessions: u32,
    },
    /// Carry so many sessions to the end of what they were about, and say in how many microseconds from the start, and
    /// by how many bytes memory had grown at most.
    Recover {
        /// How many.
        sessions: u32,
    },
}

impl Part {
    /// Starts a process that plays this part on what is at `path`.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    pub fn start(&self, path: &Path) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .arg("part")
            .arg(path)
            .args(self.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again")
    }

    /// Has a process play this part to its end, and gives the numbers that it said.
    ///
    /// # Panics
    ///
    /// If it fails, or says others than so many numbers.
    #[must_use]
    pub fn numbers<const N: usize>(&self, path: &Path) -> [f64; N] {
        let output = self.start(path).wait_with_output().expect("it ends");
        assert!(output.status.success(), "{self:?}: {}", output.status);
        let line = String::from_utf8(output.stdout).expect("a line");
        let numbers = line.split_whitespace().map(|word| word.parse().ok());
        let numbers: Option<Vec<f64>> = numbers.collect();
        let numbers = numbers.expect("numbers");
        numbers.try_into().expect("so many of them")
    }

    /// Has a process play this part until it says `ready`, and kills it.
    ///
    /// # Panics
    ///
    /// If it ends before that.
    pub fn kill_when_ready(&self, path: &Path) {
        let mut process = self.start(path);
        let mut answers = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let answer = answers.next().expect("it speaks").expect("a line");
        assert_eq!(answer, "ready");
        process.kill().expect("killed");
        process.wait().expect("gone");
    }

    fn words(&self) -> Vec<String> {
        match self {
            Self::Serve => vec!["serve".into()],
            Self::Idle { url, sessions } => vec!["idle".into(), url.clone(), sessions.to_string()],
            Self::Restart => vec!["restart".into()],
            Self::Interrupt { url, sessions } => {
                vec!["interrupt".into(), url.clone(), sessions.to_string()]
            }
            Self::Recover { sessions } => vec!["recover".into(), sessions.to_string()],
            Self::Append { who, events, first } => {
                vec![
                    "append".into(),
                    who.word().into(),
                    events.to_string(),
                    first.to_string(),
                ]
            }
            Self::Rebuild { session, fold } => {
                vec!["rebuild".into(), session.to_string(), fold.to_string()]
            }
            Self::Follow { who, events } => {
                vec!["follow".into(), who.word().into(), events.to_string()]
            }
        }
    }

    fn parse(words: &[&str]) -> Option<Self> {
        Some(match words {
            ["append", who, events, first] => Self::Append {
                who: Who::parse(who)?,
                events: events.parse().ok()?,
                first: first.parse().ok()?,
            },
            ["rebuild", session, fold] => Self::Rebuild {
                session: session.parse().ok()?,
                fold: fold.parse().ok()?,
            },
            ["follow", who, events] => Self::Follow {
                who: Who::parse(who)?,
                events: events.parse().ok()?,
            },
            ["serve"] => Self::Serve,
            ["idle", url, sessions] => Self::Idle {
                url: (*url).to_owned(),
                sessions: sessions.parse().ok()?,
            },
            ["restart"] => Self::Restart,
            ["interrupt", url, sessions] => Self::Interrupt {
                url: (*url).to_owned(),
                sessions: sessions.parse().ok()?,
            },
            ["recover", sessions] => Self::Recover {
                sessions: sessions.parse().ok()?,
            },
            _ => return None,
        })
    }
}

impl Who {
    fn word(self) -> &'static str {
        match self {
            Self::Recount => "recount",
            Self::Sqlite => "sqlite",
            Self::Fjall => "fjall",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Recount, Self::Sqlite, Self::Fjall]
            .into_iter()
            .find(|who| who.word() == word)
    }
}

/// Plays the part that these words name: the path, then the part.
///
/// # Panics
///
/// On words that name none, and where the disk refuses.
pub fn play(words: &[String]) {
    let (path, words) = words.split_first().expect("a path comes first");
    let path = PathBuf::from(path);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match Part::parse(&words).expect("a part that a run starts") {
        Part::Append { who, events, first } => append(who, &path, events, first),
        Part::Rebuild { session, fold } => rebuild(&path, stream(session), fold),
        Part::Follow { who, events } => follow(who, &path, events),
        Part::Serve => agent::serve(&path.to_string_lossy(), say),
        Part::Idle { url, sessions } => over_agent::idle(&path, &url, sessions),
        Part::Restart => over_agent::restart(&path),
        Part::Interrupt { url, sessions } => over_agent::interrupt(&path, &url, sessions),
        Part::Recover { sessions } => over_agent::recover(&path, sessions),
    }
}

/// Says numbers, for [`Part::numbers`].
fn tell<const N: usize>(numbers: [u64; N]) {
    say(&numbers.map(|number| number.to_string()).join(" "));
}

fn say(line: &str) {
    // One call writes the line whole. Nobody listens any more when the run was given up.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn append(who: Who, path: &Path, events: u64, first: u64) {
    match who {
        Who::Recount => {
            let log = Log::open(path).expect("a log");
            runtime().block_on(append_for_ever(events, first, move |n, _| {
                let log = log.clone();
                async move {
                    let event = vec![NewEvent::live(output(256), Timestamp(1))];
                    log.append(stream(n), Expected::Any, event)
                        .await
                        .expect("appended");
                }
            }));
        }
        Who::Sqlite => append_to(Group::start(Sqlite::open(path)), events, first),
        Who::Fjall => append_to(Group::start(Fjall::open(path)), events, first),
    }
}

fn append_to(group: Group, events: u64, first: u64) {
    let group = Arc::new(group);
    runtime().block_on(append_for_ever(events, first, move |n, seq| {
        let group = Arc::clone(&group);
        let row = Row {
            session: stream(n).to_bytes(),
            seq,
            bytes: payload(&output(256)),
        };
        async move { group.append(row).await }
    }));
}

async fn append_for_ever<F>(
    events: u64,
    first: u64,
    append: impl Fn(u32, u64) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let append = Arc::new(append);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let (append, acknowledged) = (Arc::clone(&append), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                for seq in first.. {
                    append(n, seq).await;
                    if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == events {
                        say("ready");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it never ends");
    }
}

fn rebuild(path: &Path, stream: StreamId, fold: bool) {
    let before = memory();
    let reader = LogReader::open(path).expect("a log");
    let (mut events, mut session) = (0_u64, Session::default());
    for recorded in reader.read(stream, Seq::FIRST) {
        let recorded = recorded.expect("an event");
        if fold {
            session.apply(&recorded);
        }
        events += 1;
    }
    say(&format!("{events} {}", memory_peak() - before));
}

fn follow(who: Who, path: &Path, events: u64) {
    match who {
        Who::Recount => {
            let reader = LogReader::open(path).expect("a log");
            let from = reader.head().expect("a head").position.next();
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime")
                .block_on(async {
                    let mut tail = reader.tail(Select::All, from);
                    say("ready");
                    for _ in 0..events {
                        let event = tail.next().await.expect("it goes on").expect("an event");
                        seen(event.position);
                    }
                });
        }
        Who::Sqlite => {
            let peer = Sqlite::open(path);
            let mut position = peer.len();
            let end = position + events;
            say("ready");
            while position < end {
                for _ in 0..peer.after(position) {
                    position += 1;
                    seen(Position(position));
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        Who::Fjall => unreachable!("one process at a time has it"),
    }
}

fn seen(position: Position) {
    let now = Timestamp::from_system(SystemTime::now());
    say(&format!("{position} {}", now.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_understood_as_they_are_told() {
        for part in [
            Part::Append {
                who: Who::Fjall,
                events: 7,
                first: 8,
            },
            Part::Rebuild {
                session: 3,
                fold: true,
            },
            Part::Follow {
                who: Who::Sqlite,
                events: 9,
            },
            Part::Serve,
            Part::Idle {
                url: "http://127.0.0.1:1".into(),
                sessions: 10,
            },
            Part::Restart,
            Part::Interrupt {
                url: "http://127.0.0.1:2".into(),
                sessions: 11,
            },
            Part::Recover { sessions: 12 },
        ] {
            let words = part.words();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            assert_eq!(Part::parse(&words), Some(part));
        }
        assert_eq!(Part::parse(&["append", "nobody", "1", "1"]), None);
    }
}
