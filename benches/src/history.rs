//! What the log and its peers are given to keep: sessions as agents have them.
//!
//! A session is turn after turn of a hundred events: the message and its delivery, some reasoning, a
//! tool call, the answer in pieces, the end. Texts are words and not one letter, since some peers compress.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::LazyLock;

use recount_store::{
    ConnectionId, Event, Expected, Json, Log, MessageId, NewEvent, OutputKind, Placement,
    SessionId, StreamId, Timestamp, ToolOutcome, derived,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::group::{Row, Sink};

/// The name of a stream as peers keep it.
pub type Key = [u8; StreamId::LEN];

/// What the log puts around a payload: place, time, cause, hash.
pub const ENVELOPE: usize = 86;

/// The stream of the n-th session.
#[must_use]
pub fn stream(n: u32) -> StreamId {
    StreamId::Session(SessionId::from_random(u128::from(n)))
}

/// A piece of output whose payload has so many bytes: at least [`AROUND`].
///
/// # Panics
///
/// Below that.
#[must_use]
pub fn output(payload: usize) -> Event {
    said(0, 0, OutputKind::Text, payload - AROUND)
}

/// The bytes of a payload around the text of a piece of output: the message (10), the run (4), three
/// lengths or choices of a part and a text (8 + 4 + 4 + 8), and the name of the part (14).
pub const AROUND: usize = 10 + 4 + 8 + 4 + 4 + 8 + 14;

fn said(turn: u64, number: u64, kind: OutputKind, length: usize) -> Event {
    Event::OutputAppended {
        message: message(turn),
        run: 1,
        part: format!("prt_{:010}", turn * 2 + u64::from(kind == OutputKind::Text)),
        kind,
        placement: Placement::End,
        text: text(turn * TURN + number, length).to_owned(),
    }
}

fn message(turn: u64) -> MessageId {
    MessageId::from_random(u128::from(turn) + 1)
}

/// Some words, `length` bytes of them.
pub(crate) fn text(number: u64, length: usize) -> &'static str {
    static WORDS: LazyLock<String> = LazyLock::new(|| {
        let common = "the of and to in is it you that he was for on are with as his they be at one have this \
            from or had by hot but some what there we can out other were all your when up use word how said \
            an each she which do their time if will way about many then them would write like so these her \
            long make thing see him two has look more day could go come did my sound no most number who over";
        let common: Vec<_> = common.split_whitespace().collect();
        let mut chance = 1;
        let mut words = String::new();
        while words.len() < 1 << 20 {
            words.push_str(common[usize::from(random(&mut chance)) % common.len()]);
            words.push(' ');
        }
        words
    });
    let mut chance = number;
    let from = (usize::from(random(&mut chance)) << 4 | usize::from(random(&mut chance)) & 15)
        % (WORDS.len() - length);
    &WORDS[from..from + length]
}

/// The next of a row of numbers that look like chance.
fn random(state: &mut u64) -> u16 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 48) as u16
}

/// The events of a turn.
const TURN: u64 = 100;

/// The events of one session, in order and without end; each piece of text has a length of this range.
pub fn session(text_bytes: RangeInclusive<usize>) -> impl Iterator<Item = Event> {
    let (least, most) = text_bytes.into_inner();
    (0..).map(move |index| {
        let (turn, number) = (index / TURN, index % TURN);
        let message = message(turn);
        let mut chance = index;
        let length = least + usize::from(random(&mut chance)) % (most - least + 1);
        let call = || format!("call_{turn:010}");
        match number {
            0 if turn == 0 => Event::SessionOpened {
                connection: ConnectionId::from_random(1),
                agent: "opencode".to_owned(),
                directory: "/home/somebody/project".to_owned(),
                model: None,
                title: None,
            },
            0 => Event::TurnCompleted {
                message: self::message(turn - 1),
                run: 1,
                finish: "stop".to_owned(),
            },
            1 => Event::MessageQueued {
                message,
                key: None,
                text: text(index, 120).to_owned(),
            },
            2 => Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: format!("msg_{turn:026}"),
            },
            3 => Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
            4 => Event::TurnRequested { message, run: 1 },
            5 => Event::TurnStarted { message, run: 1 },
            30 => Event::ToolCallStarted {
                message,
                run: 1,
                call: call(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command":"cargo test --workspace","timeout":120000}"#.to_vec()),
            },
            31 => Event::ToolCallEnded {
                message,
                run: 1,
                call: call(),
                outcome: ToolOutcome::Completed,
                output: text(index, 400).to_owned(),
            },
            6..30 => said(turn, number, OutputKind::Reasoning, length),
            _ => said(turn, number, OutputKind::Text, length),
        }
    })
}

/// The payload of an event as the log encodes it, for a peer to keep the same bytes.
///
/// # Panics
///
/// On an event that [`session`] does not give.
#[must_use]
pub fn payload(event: &Event) -> Vec<u8> {
    match event {
        Event::SessionOpened {
            connection,
            agent,
            directory,
            model,
            title,
        } => derived::encode(&(connection, agent, directory, model, title)),
        Event::MessageQueued { message, key, text } => derived::encode(&(message, key, text)),
        Event::DeliveryStarted {
            message,
            attempt,
            agent_message,
        } => derived::encode(&(message, attempt, agent_message)),
        Event::DeliveryAccepted { message, attempt } => derived::encode(&(message, attempt)),
        Event::TurnRequested { message, run } | Event::TurnStarted { message, run } => {
            derived::encode(&(message, run))
        }
        Event::ToolCallStarted {
            message,
            run,
            call,
            tool,
            input,
        } => {
            let input = String::from_utf8_lossy(&input.0);
            derived::encode(&(message, run, call, tool, input))
        }
        Event::ToolCallEnded {
            message,
            run,
            call,
            outcome,
            output,
        } => derived::encode(&(message, run, call, *outcome as u32, output)),
        Event::OutputAppended {
            message,
            run,
            part,
            kind,
            placement,
            text,
        } => derived::encode(&(message, run, part, *kind as u32, *placement as u32, text)),
        Event::TurnCompleted {
            message,
            run,
            finish,
        } => derived::encode(&(message, run, finish)),
        other => panic!("no session has {}", other.type_name()),
    }
}

/// Who is in a log: so many sessions, appended to in turn.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many sessions.
    pub sessions: u32,
    /// How many events each of them has.
    pub each: u32,
    /// How many events of one stand next to each other.
    pub run: u32,
    /// How long pieces of text are.
    pub text_bytes: RangeInclusive<usize>,
}

impl Shape {
    /// The events of all sessions.
    #[must_use]
    pub fn events(&self) -> u64 {
        u64::from(self.sessions) * u64::from(self.each)
    }

    /// What is appended to all sessions in one turn, turn by turn: the session, the number of its first event, and its events.
    fn turns(&self) -> impl Iterator<Item = Vec<(u32, u64, Vec<Event>)>> {
        let mut sessions: Vec<_> = (0..self.sessions)
            .map(|_| session(self.text_bytes.clone()))
            .collect();
        let (each, run) = (self.each, self.run);
        (0..each).step_by(run as usize).map(move |first| {
            let length = run.min(each - first) as usize;
            (0..)
                .zip(&mut sessions)
                .map(|(n, events)| {
                    let events = events.take(length).collect();
                    (n, u64::from(first) + 1, events)
                })
                .collect()
        })
    }

    /// Makes a log with this history, and closes it.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn fill_log(&self, runtime: &Runtime, folder: &Path) {
        self.fill_log_from(runtime, folder, |_, _| {});
    }

    /// The same, where each event is first shown with the log that it goes to.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn fill_log_from(
        &self,
        runtime: &Runtime,
        folder: &Path,
        mut first: impl FnMut(&Log, &mut NewEvent),
    ) {
        runtime.block_on(async {
            let log = Log::open(folder).expect("a log");
            for turn in self.turns() {
                let mut appends = JoinSet::new();
                for (n, _, events) in turn {
                    let log = log.clone();
                    let events = events
                        .into_iter()
                        .map(|event| {
                            let mut event = NewEvent::live(event, Timestamp(1));
                            first(&log, &mut event);
                            event
                        })
                        .collect();
                    appends.spawn(async move {
                        log.append(stream(n), Expected::Any, events)
                            .await
                            .expect("appended");
                    });
                }
                appends.join_all().await;
            }
            log.close().await.expect("closed");
        });
    }

    /// Gives a peer this history, some ten thousand rows a commit: quick, and no burden on memory.
    pub fn fill_peer(&self, peer: &mut impl Sink) {
        let mut rows = Vec::new();
        for turn in self.turns() {
            for (n, first, events) in turn {
                rows.extend((first..).zip(&events).map(|(seq, event)| Row {
                    session: stream(n).to_bytes(),
                    seq,
                    bytes: payload(event),
                }));
            }
            if rows.len() >= 10_000 {
                peer.commit(&std::mem::take(&mut rows));
            }
        }
        if !rows.is_empty() {
            peer.commit(&rows);
        }
    }

    /// The bytes of the payloads of one session.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        session(self.text_bytes.clone())
            .take(self.each as usize)
            .map(|event| payload(&event).len() as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use recount_projections::MessageState::{Completed, Running};
    use recount_projections::{Projection as _, Session};
    use recount_store::{LogReader, Seq};

    use super::*;

    #[test]
    fn output_has_the_payload_that_was_asked_for() {
        for bytes in [64, 256, 4096] {
            assert_eq!(payload(&output(bytes)).len(), bytes);
        }
    }

    #[test]
    fn the_log_keeps_what_was_made_and_the_fold_moves() {
        let shape = Shape {
            sessions: 2,
            each: 250,
            run: 7,
            text_bytes: 10..=20,
        };
        let folder = tempfile::tempdir().expect("a folder");
        shape.fill_log(&crate::bench::runtime(), folder.path());
        let reader = LogReader::open(folder.path()).expect("a log");
        let recorded: Vec<_> = reader
            .read(stream(1), Seq::FIRST)
            .collect::<Result<_, _>>()
            .expect("events");
        let events: Vec<_> = recorded.iter().map(|one| one.event.clone()).collect();
        assert_eq!(events, session(10..=20).take(250).collect::<Vec<_>>());
        let mut state = Session::default();
        for one in &recorded {
            state.apply(one);
        }
        let states: Vec<_> = state
            .queue
            .messages()
            .iter()
            .map(|message| message.state)
            .collect();
        assert_eq!(states, [Completed, Completed, Running]);
    }
}
