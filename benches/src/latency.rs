//! What the engine adds to a message's way to the agent and to a piece's way back, in one quiet session.
//!
//! A [`Tap`] between client and agent notes when a request has reached the wire, and when a piece is put on it.
//! Before a request the engine has recorded what it is about to do: the time of such a commit stands beside.

use std::time::{Duration, Instant};

use recount_engine::{Event, Update};
use recount_store::{Expected, Log, NewEvent, Timestamp};

use crate::agent::{Agent, DIRECTORY, pace, paced, say};
use crate::bench::Bench;
use crate::engine;
use crate::history::{output, stream};
use crate::measure::quantile;
use crate::peers::{BareClient, Heard, Parser};
use crate::tap::{Noted, Tap};

/// The pause before each piece: long enough for nothing else to be under way.
const PAUSE: Duration = Duration::from_millis(40);

/// The pause between two messages: whatever follows a turn has been done by then.
const REST: Duration = Duration::from_millis(30);

/// Measures so many messages and pieces.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    let messages = bench.pick(40, 400);
    let pieces = bench.pick(50, 500);
    bench.say(&format!("latency: {messages} messages, {pieces} pieces"));
    let (ours, bare) = (ours(bench, messages, pieces), bare(bench, messages, pieces));
    let commits = commits(bench, messages);
    let counted = |bench: &mut Bench, what: &str, n: u32, values: &[(&str, &[f64])]| {
        for (share, word) in [(0.5, "median"), (0.99, "99 of 100")] {
            let value = |values: &[f64]| quantile(values.iter().copied(), share);
            let values: Vec<_> = values.iter().map(|(who, all)| (*who, value(all))).collect();
            let name = format!("latency, {what}, {word}");
            bench.table.less_is_better(&name, n, "ms", &values);
        }
    };
    for (what, ours, bare) in [
        ("send to store", &ours.store, &bare.store),
        ("stored to start", &ours.start, &bare.start),
    ] {
        let values: [(&str, &[f64]); 3] = [
            ("recount", ours),
            ("bare client", bare),
            ("a commit alone", &commits),
        ];
        counted(bench, what, messages, &values);
    }
    let values: [(&str, &[f64]); 2] = [("recount", &ours.delta), ("bare client", &bare.delta)];
    counted(bench, "delta to subscriber", pieces, &values);
}

/// Milliseconds, one each.
#[derive(Default)]
struct Delays {
    /// From asking for a message to be sent to its store request on the wire.
    store: Vec<f64>,
    /// From the answer to that to its start request on the wire.
    start: Vec<f64>,
    /// From a piece on the wire to who waits for it.
    delta: Vec<f64>,
}

impl Delays {
    fn sent(&mut self, begun: Instant, noted: &Noted) {
        let between = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
        self.store.push(between(begun, noted.stores[0]));
        self.start.push(between(noted.stored[0], noted.starts[0]));
    }

    fn heard(&mut self, noted: &Noted, seen: &[Instant]) {
        assert_eq!(noted.deltas.len(), seen.len(), "each piece was noted");
        let pieces = noted.deltas.iter().zip(seen);
        let delays = pieces.map(|(passed, seen)| seen.duration_since(*passed));
        self.delta
            .extend(delays.map(|delay| delay.as_secs_f64() * 1000.0));
    }
}

fn ours(bench: &Bench, messages: u32, pieces: u32) -> Delays {
    let agent = Agent::start();
    let folder = bench.folder();
    bench.runtime.block_on(async {
        let tap = Tap::on(agent.url()).await;
        let manager = engine::usual(&folder.path().join("data")).await;
        let session = engine::open(&manager, &tap.url()).await;
        let mut delays = Delays::default();
        // The first finds the server, and makes the agent's session.
        for number in 0..=messages {
            let _ = tap.take();
            let begun = Instant::now();
            let message = session.send(&say(1, number), None).await.expect("queued");
            session.settled(message).await.expect("answered");
            if number > 0 {
                delays.sent(begun, &tap.take());
            }
            tokio::time::sleep(REST).await;
        }
        let _ = tap.take();
        let mut updates = session.subscribe();
        let sent = session.send(&pace(pieces, PAUSE), None).await;
        sent.expect("queued");
        let mut seen = Vec::new();
        loop {
            match updates.next().await.expect("it keeps up") {
                Some(Update::Output { text, .. }) => note(&mut seen, &text),
                Some(Update::Recorded(recorded)) => {
                    if matches!(recorded.event, Event::TurnCompleted { .. }) {
                        break;
                    }
                }
                None => panic!("the session ended"),
            }
        }
        delays.heard(&tap.take(), &seen);
        manager.shut_down().await.expect("the log is closed");
        delays
    })
}

fn bare(bench: &Bench, messages: u32, pieces: u32) -> Delays {
    let agent = Agent::start();
    bench.runtime.block_on(async {
        let tap = Tap::on(agent.url()).await;
        let mut client = BareClient::connect(&tap.url(), Parser::Usual).await;
        let session = client.calls().create_session(DIRECTORY).await;
        let mut delays = Delays::default();
        for number in 0..=messages {
            let _ = tap.take();
            let begun = Instant::now();
            client.calls().prompt(&session, &say(1, number)).await;
            while client.next().await != Heard::Idle {}
            if number > 0 {
                delays.sent(begun, &tap.take());
            }
            tokio::time::sleep(REST).await;
        }
        let _ = tap.take();
        client.calls().prompt(&session, &pace(pieces, PAUSE)).await;
        let mut seen = Vec::new();
        loop {
            match client.next().await {
                Heard::Delta(text) => note(&mut seen, &text),
                Heard::Idle => break,
                Heard::Other => {}
            }
        }
        delays.heard(&tap.take(), &seen);
        delays
    })
}

/// Notes that the pieces in a text are there: one at least, and more where they came together.
fn note(seen: &mut Vec<Instant>, text: &str) {
    let now = Instant::now();
    let mut rest = text;
    while !rest.is_empty() {
        let number = u32::try_from(seen.len()).expect("a few hundred pieces");
        rest = rest.strip_prefix(&paced(number)).expect("the next piece");
        seen.push(now);
    }
}

/// How long an append takes by itself, in milliseconds.
fn commits(bench: &Bench, count: u32) -> Vec<f64> {
    let folder = bench.folder();
    let log = Log::open(folder.path().join("log")).expect("a log");
    bench.runtime.block_on(async {
        let mut took = Vec::new();
        for _ in 0..count {
            tokio::time::sleep(REST).await;
            let event = vec![NewEvent::live(output(128), Timestamp(1))];
            let begun = Instant::now();
            let appended = log.append(stream(0), Expected::Any, event).await;
            appended.expect("appended");
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        log.close().await.expect("closed");
        took
    })
}
