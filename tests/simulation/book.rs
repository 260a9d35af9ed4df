//! What was seen of a world while it went on: by who reads its log, and by its network.
//!
//! Promises that can be checked at once are, and the first one that was broken stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use recount_engine::adapter::http::Request;
use recount_store::{Event, LogReader, MessageId, Position, Recorded, SessionId, Timestamp};
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Notify;

use crate::promises::{self, Asked};
use crate::trace::Trace;

/// A promise that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// A message that the application was told is queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) session: SessionId,
    pub(crate) message: MessageId,
    pub(crate) key: Option<String>,
    pub(crate) text: String,
}

/// Clones are the same book.
#[derive(Debug, Clone)]
pub(crate) struct Book(Arc<(Mutex<Pages>, Notify)>, Trace);

/// How many calls an engine may make in a world: ten times as many as any has needed. One that goes round in a
/// circle makes more, and would never come to rest.
const CALLS_MAX: usize = 20_000;

/// What is in it.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Every event that a reader of the log has seen. Readers are shown what is durable, so each of them has to stay.
    pub(crate) events: Vec<Recorded>,
    /// How many calls were made.
    pub(crate) calls: usize,
    /// How often a request was sent, by what it asks.
    pub(crate) sent: BTreeMap<String, usize>,
    /// The deliveries that were sent, and of whose outcome the network told nobody: the agent's name for the message,
    /// and the attempt.
    pub(crate) untold: BTreeSet<(String, u32)>,
    /// How often an agent wrote a message, by its name for it.
    pub(crate) written: BTreeMap<String, usize>,
    /// Which message of the user's is the newest in an agent's session, by host and session, as the engine was shown.
    pub(crate) newest: BTreeMap<(String, String), String>,
    /// The messages there to which the engine was shown an answer that ended, by the agent's names for them.
    pub(crate) answered: BTreeMap<(String, String), BTreeSet<String>>,
    /// How many messages the engine has written there.
    pub(crate) writes: BTreeMap<(String, String), u64>,
    /// When an agent was asked how it stands, where, and of which of its sessions: `None` is all of them.
    pub(crate) looks: Vec<(Timestamp, String, Option<String>)>,
    /// When a call began to hang, and where.
    pub(crate) hung: Vec<(Timestamp, String)>,
    /// The agents' sessions that somebody else wrote in.
    pub(crate) shared: BTreeSet<String>,
    /// How many streams were opened.
    pub(crate) openings: u64,
    /// What streams brought of each part of an answer, by host and name: its text in pieces, by opening, and its
    /// whole text.
    pub(crate) pieces: BTreeMap<(String, u64), String>,
    pub(crate) wholes: BTreeMap<String, Vec<String>>,
    /// What the application was told.
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) broken: Option<Broken>,
}

/// The host that a call about a session goes to, and the agent's name for the session.
fn place(url: &Url) -> (String, String) {
    let session = url.path_segments().and_then(|mut path| path.nth(1));
    let session = session.unwrap_or_default().to_owned();
    (url.authority().to_owned(), session)
}

impl Pages {
    /// The last attempt to deliver a message, by the agent's name for it.
    fn attempt(&self, wanted: &str) -> u32 {
        let mut events = self.events.iter().rev();
        let attempt = events.find_map(|recorded| match &recorded.event {
            Event::DeliveryStarted {
                agent_message,
                attempt,
                ..
            } if agent_message == wanted => Some(*attempt),
            _ => None,
        });
        attempt.unwrap_or(0)
    }
}

impl Book {
    pub(crate) fn new(trace: Trace) -> Self {
        Self(Arc::default(), trace)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Pages) -> T) -> T {
        look(&mut self.0.0.lock().unwrap())
    }

    /// Keeps a promise that was broken, if it is the first.
    pub(crate) fn check(&self, checked: Result<(), Broken>) {
        if let Err(broken) = checked {
            self.1.say("BROKEN", broken.to_string());
            self.with(|pages| pages.broken.get_or_insert(broken).promise);
            self.0.1.notify_one();
        }
    }

    /// Resolves when a promise was broken. One task may wait.
    pub(crate) async fn breaks(&self) {
        self.0.1.notified().await;
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.with(|pages| pages.broken.clone())
    }

    /// Reads on in the log.
    pub(crate) fn read_on(&self, log: &LogReader) {
        self.with(|pages| {
            let last = pages.events.last();
            let from = last.map_or(Position::FIRST, |last| last.position.next());
            // A log that cannot be read belongs to an engine that is dead.
            for recorded in log.read_all(from).map_while(Result::ok) {
                if self.1.is_read() {
                    let text = format!("{} {:?}", recorded.stream, recorded.event);
                    let text = text.chars().take(260).collect();
                    self.1.say_at(recorded.at, "log", text);
                }
                pages.events.push(recorded);
            }
        });
    }

    /// The log was opened after a death: what was in it has to be in it.
    pub(crate) fn reopened(&self, log: &LogReader) {
        let checked = self.with(|pages| promises::promise_1_acknowledged_means_durable(pages, log));
        self.check(checked);
        self.read_on(log);
    }

    /// The engine sends a request, whatever becomes of it.
    pub(crate) fn sent(&self, log: &LogReader, request: &Request) {
        self.read_on(log);
        self.looked(request);
        let checked = self.with(|pages| {
            pages.calls += 1;
            promises::promise_9_calls_are_bounded(pages.calls, CALLS_MAX)
        });
        self.check(checked);
        let Some(asked) = Asked::of(request) else {
            return;
        };
        let checked = self.with(|pages| {
            if let Asked::Work { agent_message } = &asked {
                let place = place(&request.url);
                let newest = pages.newest.get(&place);
                promises::promise_3_only_the_newest_is_worked_on(agent_message, newest)?;
                promises::promise_3_what_is_answered_is_left(
                    agent_message,
                    pages.answered.get(&place),
                )?;
            }
            if let Asked::Keep { agent_message } = &asked {
                promises::promise_3_nothing_overtakes(&pages.events, agent_message)?;
                let attempt = pages.attempt(agent_message);
                pages.untold.insert((agent_message.clone(), attempt));
            }
            let sent = pages.sent.entry(format!("{asked:?}")).or_default();
            *sent += 1;
            let sent = *sent;
            promises::promise_2_recorded_before_it_is_done(&pages.events, &asked, sent)
        });
        self.check(checked);
    }

    /// The network tells the engine what became of what it sent, beyond any doubt.
    pub(crate) fn told(&self, asked: Option<&Asked>) {
        if let Some(Asked::Keep { agent_message }) = asked {
            self.with(|pages| {
                let attempt = pages.attempt(agent_message);
                pages.untold.remove(&(agent_message.clone(), attempt));
            });
        }
    }

    /// An agent did what it was asked.
    pub(crate) fn done(&self, url: &Url, asked: Option<&Asked>) {
        if let Some(Asked::Keep { agent_message }) = asked {
            self.with(|pages| {
                *pages.written.entry(agent_message.clone()).or_default() += 1;
                pages.newest.insert(place(url), agent_message.clone());
                *pages.writes.entry(place(url)).or_default() += 1;
            });
        }
    }

    /// How many messages the engine has written into the session that this is about.
    pub(crate) fn written(&self, url: &Url) -> u64 {
        self.with(|pages| pages.writes.get(&place(url)).copied().unwrap_or_default())
    }

    /// An answer came whole, which was given when so many were written.
    pub(crate) fn showed(&self, url: &Url, answer: &[u8], written: u64) {
        let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
        let is_newest_page = !url.query_pairs().any(|(name, _)| name == "before");
        let ["session", _, "message"] = path[..] else {
            return;
        };
        let listed: Vec<Value> = serde_json::from_slice(answer).unwrap_or_default();
        let ended = listed.iter().filter(|m| m["info"]["finish"] == "stop");
        let answered = ended.filter_map(|answer| answer["info"]["parentID"].as_str());
        self.with(|pages| {
            let known = pages.answered.entry(place(url)).or_default();
            known.extend(answered.map(str::to_owned));
        });
        let newest = listed.iter().rfind(|m| m["info"]["role"] == "user");
        let newest = newest.and_then(|message| message["info"]["id"].as_str());
        if let Some(newest) = newest.filter(|_| is_newest_page) {
            self.with(|pages| {
                // Whoever copies a session reads it, too, and may be shown what was before another one's message came.
                if pages.writes.get(&place(url)).copied().unwrap_or_default() == written {
                    pages.newest.insert(place(url), newest.to_owned());
                }
            });
        }
    }

    /// An agent is asked how it stands.
    fn looked(&self, request: &Request) {
        let path: Vec<&str> = request.url.path_segments().into_iter().flatten().collect();
        let session = match (request.method.as_str(), &path[..]) {
            ("GET", ["session", "status"]) => None,
            ("GET", ["session", id, "message", ..]) => Some((*id).to_owned()),
            _ => return,
        };
        let host = request.url.authority().to_owned();
        self.with(|pages| pages.looks.push((self.1.now(), host, session)));
    }

    /// A call will never be answered.
    pub(crate) fn hangs(&self, host: &str) {
        self.with(|pages| pages.hung.push((self.1.now(), host.to_owned())));
    }

    /// A stream was opened; gives which one it is.
    pub(crate) fn opened(&self) -> u64 {
        self.with(|pages| {
            pages.openings += 1;
            pages.openings
        })
    }

    /// A frame arrived over a stream.
    pub(crate) fn streamed(&self, host: &str, opening: u64, payload: &Value) {
        let said = &payload["properties"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let part = |value: &Value| format!("{host} {}", text(value));
        self.with(|pages| match payload["type"].as_str() {
            Some("message.part.delta") => {
                let pieces = pages.pieces.entry((part(&said["partID"]), opening));
                pieces.or_default().push_str(&text(&said["delta"]));
            }
            Some("message.part.updated") => {
                let wholes = pages.wholes.entry(part(&said["part"]["id"]));
                wholes.or_default().push(text(&said["part"]["text"]));
            }
            _ => {}
        });
    }
}
