//! A hundred turns at once from an agent at full speed: how many pieces of answers a second the engine takes,
//! records and hands to a subscriber of each session, beside a client that does none of it.
//!
//! Each subject has an agent of its own, since everybody hears all that an agent says. A round is over when the
//! last turn is, and all of it was read.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use recount_engine::{Event, Session, SessionManager, Update};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::agent::{Agent, DIRECTORY, PIECE_BYTES, say};
use crate::bench::Bench;
use crate::engine;
use crate::machine::processor_time;
use crate::measure::{Subject, quantile, rounds};
use crate::peers::{BareClient, Heard, Parser};
use crate::size::on_disk;

/// How many turns there are at once, each in a session of its own.
const TURNS: u32 = 100;

/// Measures so many pieces of so many turns.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    let pieces = bench.pick(500, 2000);
    let count = bench.pick(3, 9);
    let deltas = TURNS * pieces;
    let folder = bench.folder();
    let path = |name: &str| folder.path().join(name);
    bench.say(&format!("stream: {TURNS} turns of {pieces} pieces"));
    let runtime = &bench.runtime;
    let mut ours = Ours::start(runtime, &path("frames"), true);
    let mut lean = Ours::start(runtime, &path("lean"), false);
    let mut bare = Bare::start(runtime, Parser::Usual);
    let mut quick = Bare::start(runtime, Parser::Engines);
    // All are warm before it counts.
    let _ = (ours.turns(1), lean.turns(1), bare.turns(1), quick.turns(1));
    let processor: [RefCell<Vec<f64>>; 4] = Default::default();
    let counted = |place: usize, work: &mut dyn FnMut() -> Duration| {
        let begun = processor_time();
        let took = work();
        let seconds = processor_time().saturating_sub(begun).as_secs_f64();
        processor[place].borrow_mut().push(seconds);
        took
    };
    let measured = rounds(
        count,
        &mut [
            Subject::new("recount", |_| counted(0, &mut || ours.turns(pieces))),
            Subject::new("recount, no frames", |_| {
                counted(1, &mut || lean.turns(pieces))
            }),
            Subject::new("bare client", |_| counted(2, &mut || bare.turns(pieces))),
            Subject::new("bare, engine's parser", |_| {
                counted(3, &mut || quick.turns(pieces))
            }),
        ],
    );
    let received = bare.client.received();
    ours.end();
    lean.end();
    let name = "stream";
    bench
        .table
        .rates_of(name, deltas, deltas, "deltas/s", &measured);
    let [ours, lean, bare, quick] = processor.map(|seconds| {
        quantile(seconds.into_inner().into_iter(), 0.5) / f64::from(deltas) * 1_000_000.0
    });
    let values = [
        ("recount", ours),
        ("recount, no frames", lean),
        ("bare client", bare),
        ("bare, engine's parser", quick),
    ];
    let name = "stream, processor time";
    bench
        .table
        .less_is_better(name, deltas, "µs/delta", &values);
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let each = |bytes: u64| bytes as f64 / f64::from(deltas * count);
    let values = [
        ("recount", each(on_disk(&path("frames")))),
        ("recount, no frames", each(on_disk(&path("lean")))),
        ("received", each(received)),
    ];
    let name = "stream, bytes on disk";
    bench.table.less_is_better(name, deltas, "B/delta", &values);
}

/// The engine, with its sessions open and a subscriber for each turn.
struct Ours<'a> {
    runtime: &'a Runtime,
    manager: SessionManager,
    sessions: Vec<Session>,
    // Last, so that it outlives who talks to it.
    _agent: Agent,
}

impl<'a> Ours<'a> {
    fn start(runtime: &'a Runtime, data: &Path, keep_frames: bool) -> Self {
        let agent = Agent::start();
        runtime.block_on(async {
            let manager = engine::patient(data, keep_frames).await;
            let mut sessions = Vec::new();
            for _ in 0..TURNS {
                sessions.push(engine::open(&manager, agent.url()).await);
            }
            Self {
                runtime,
                manager,
                sessions,
                _agent: agent,
            }
        })
    }

    fn turns(&mut self, pieces: u32) -> Duration {
        self.runtime.block_on(async {
            let begun = Instant::now();
            let mut turns = JoinSet::new();
            for (number, session) in (0..).zip(&self.sessions) {
                turns.spawn(turn(session.clone(), say(pieces, number)));
            }
            let mut bytes = 0;
            while let Some(turn) = turns.join_next().await {
                bytes += turn.expect("it ends");
            }
            let took = begun.elapsed();
            assert_eq!(bytes, said(pieces), "every subscriber read all of it");
            took
        })
    }

    fn end(self) {
        let ended = self.runtime.block_on(self.manager.shut_down());
        ended.expect("the log is closed");
    }
}

/// Sends a prompt, reads every update until its turn is over, and gives how much text there was in them.
async fn turn(session: Session, prompt: String) -> usize {
    let mut updates = session.subscribe();
    session.send(&prompt, None).await.expect("it is queued");
    let mut bytes = 0;
    loop {
        match updates.next().await.expect("it keeps up") {
            Some(Update::Output { text, .. }) => bytes += text.len(),
            Some(Update::Recorded(recorded)) => {
                if matches!(recorded.event, Event::TurnCompleted { .. }) {
                    return bytes;
                }
            }
            None => panic!("the session ended"),
        }
    }
}

/// The client, and the sessions that it made.
struct Bare<'a> {
    runtime: &'a Runtime,
    client: BareClient,
    sessions: Vec<String>,
    _agent: Agent,
}

impl<'a> Bare<'a> {
    fn start(runtime: &'a Runtime, parser: Parser) -> Self {
        let agent = Agent::start();
        runtime.block_on(async {
            let client = BareClient::connect(agent.url(), parser).await;
            let mut sessions = Vec::new();
            for _ in 0..TURNS {
                sessions.push(client.calls().create_session(DIRECTORY).await);
            }
            Self {
                runtime,
                client,
                sessions,
                _agent: agent,
            }
        })
    }

    fn turns(&mut self, pieces: u32) -> Duration {
        self.runtime.block_on(async {
            let begun = Instant::now();
            let mut prompts = JoinSet::new();
            for (number, session) in (0..).zip(self.sessions.clone()) {
                let calls = self.client.calls();
                prompts.spawn(async move { calls.prompt(&session, &say(pieces, number)).await });
            }
            let (mut bytes, mut idle) = (0, 0);
            while idle < TURNS {
                match self.client.next().await {
                    Heard::Delta(text) => bytes += text.len(),
                    Heard::Idle => idle += 1,
                    Heard::Other => {}
                }
            }
            let took = begun.elapsed();
            prompts.join_all().await;
            assert_eq!(bytes, said(pieces), "it read all of it");
            took
        })
    }
}

/// How much text the turns of a round have together, in bytes.
fn said(pieces: u32) -> usize {
    TURNS as usize * pieces as usize * PIECE_BYTES
}
