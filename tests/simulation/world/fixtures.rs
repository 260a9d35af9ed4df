//! Logs that are kept, for all who look back: what a test finds under `tests/fixtures`, which has a word on each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{OpenSession, Policy};
use recount_store::{Event, Expected, Log, NewEvent, Position, SessionId, StreamId, Target};
use recount_tests::files::storage;
use recount_tests::fixture::FILES;
use redb::TableDefinition;
use serde_json::json;
use tokio::time::sleep;

use super::{Life, World, week};

/// The files of a data directory, in the order of [`FILES`].
type Bytes = [Vec<u8>; 3];

/// Where the host of the quiet worlds is.
const HOST: &str = "agent-0.test:4096";

/// Makes each fixture, by its name.
pub(crate) async fn make() -> Vec<(&'static str, Bytes)> {
    let clean = quiet(true).await;
    let [mut log, a, b] = quiet(false).await;
    let torn = [log.clone(), tear(a.clone()), b.clone()];
    mangle(&mut log);
    let mut short = clean.clone();
    short[0].truncate(clean[0].len() / 2);
    vec![
        ("week", week::live(WEEK_SEED).await),
        ("torn", torn),
        ("mangled", [log, a, b]),
        ("short", short),
        ("newer_event", changed(&clean, add_unknown)),
        ("newer_format", changed(&clean, raise_format)),
        ("clean", clean),
    ]
}

/// A week with something of everything.
const WEEK_SEED: u64 = 1;

/// Two sessions on a day without faults; the engine ends, or is killed in the middle of the last answer.
async fn quiet(ends: bool) -> Bytes {
    let mut world = World::new(7, week::MONDAY, false);
    world.policy = Policy::default();
    let agent = Scripted::with_clock(answers(), Duration::from_secs(10), world.clock);
    let server = agent.serve_without_port("/project", None);
    world.network.set_host(HOST, Some(server));
    world.make_log().await;
    let life = Life::until(u64::MAX);
    let log = world.disk.open(&life, None, 0).expect("it opens");
    let manager = world.start(&life, log).await.expect("it starts");
    let open = |n| OpenSession {
        id: Some(SessionId::from_bytes([n; 10])),
        target: Target::Url(format!("http://{HOST}")),
        title: Some("the parser".to_owned()),
        ..OpenSession::new("opencode", "/project")
    };
    let session = manager.open(open(1)).await.expect("it opens");
    for text in ["explain the parser", "fix its test", "and the docs?"] {
        let message = session.send(text, None).await.expect("it is queued");
        session.settled(message).await.expect("it is answered");
    }
    let session = manager.open(open(2)).await.expect("it opens");
    let message = session.send("run everything", Some("nightly-1")).await;
    let message = message.expect("it is queued");
    if ends {
        session.settled(message).await.expect("it is answered");
        manager.shut_down().await.expect("it ends");
    } else {
        sleep(Duration::from_millis(300)).await;
    }
    life.kill();
    world.disk.files()
}

fn answers() -> Script {
    Script::new(|prompt, _| {
        vec![
            Step::Tool {
                name: "bash".to_owned(),
                input: json!({"command": "cargo test"}),
                output: "ok. 42 passed\n".to_owned(),
                permission: None,
                delay: Duration::from_millis(40),
            },
            Step::Text {
                text: format!(
                    "You asked: {prompt}. Here is the answer, in a few words and pieces."
                ),
                chunks: 12,
                delay: Duration::from_millis(60),
            },
        ]
    })
}

/// The last entry of a journal is not whole, as when the power is lost while it is written.
fn tear(mut journal: Vec<u8>) -> Vec<u8> {
    let end = journal.iter().rposition(|byte| *byte != 0);
    let end = end.expect("something is in the journal") + 1;
    journal[end - 100..end].fill(0);
    journal
}

/// Bytes in the middle of the events are others, as from a bad disk.
fn mangle(log: &mut [u8]) {
    let text = b"and the docs?";
    let at = log.windows(text.len()).position(|bytes| bytes == text);
    let at = at.expect("it was said");
    log[at..at + 700].fill(0xa5);
}

/// The same log, after something was done to it.
fn changed(files: &Bytes, change: impl FnOnce(&Path)) -> Bytes {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in FILES.iter().zip(files) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    change(folder.path());
    FILES.map(|name| fs::read(folder.path().join(name)).unwrap())
}

/// An event of a type that no release knows yet stands in a session.
fn add_unknown(data: &Path) {
    let log = Log::open(data).unwrap();
    let last = log.read_all(Position::FIRST).last().unwrap().unwrap();
    let session = StreamId::Session(SessionId::from_bytes([2; 10]));
    let event = Event::Unknown {
        type_number: 199,
        type_version: 1,
        payload: b"from later".to_vec(),
    };
    let append = log.append(session, Expected::Any, vec![NewEvent::live(event, last.at)]);
    let done = async {
        append.await.unwrap();
        log.close().await.unwrap();
    };
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        scope.spawn(|| runtime.unwrap().block_on(done));
    });
}

/// The log says that it has a format that no release knows yet.
fn raise_format(data: &Path) {
    let database = storage(data);
    let transaction = database.begin_write().unwrap();
    let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let mut table = transaction.open_table(meta).unwrap();
    let format = 2_u32.to_le_bytes();
    table.insert("format", format.as_slice()).unwrap();
    drop(table);
    transaction.commit().unwrap();
}

/// Writes each fixture into a folder of its name, compressed.
pub(crate) fn keep(fixtures: Vec<(&'static str, Bytes)>, folder: &Path) {
    for (name, files) in fixtures {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in FILES.iter().zip(files) {
            let packed = zstd::encode_all(&bytes[..], 19).unwrap();
            fs::write(folder.join(format!("{file}.zst")), packed).unwrap();
        }
    }
}
