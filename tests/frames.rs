//! Frames over whole engines: all that an agent sent is kept as it was sent, and takes little room.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{MessageState, OpenSession, Options, SessionManager};
use recount_store::{
    Event, FrameContent, FrameNumber, LogReader, Position, Provenance, StreamId, verify,
};
use redb::{ReadOnlyDatabase, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde_json::Value;

/// How many sessions answer at once, and in how many pieces each.
const SESSIONS: usize = 20;
const PIECES: usize = 1000;

/// The characters of a piece: about what a model says at once.
const PIECE_CHARS: usize = 5;

/// What people write, to be said by the agent: no text of which a part foretells the rest.
fn prose() -> Vec<char> {
    let pages = [
        include_str!("../ARCHITECTURE.md"),
        include_str!("../store/FORMAT.md"),
        include_str!("../README.md"),
        include_str!("../store/src/event.rs"),
    ];
    pages.iter().flat_map(|page| page.chars()).collect()
}

/// What the sessions are told, each something else.
fn answers() -> Script {
    let prose = prose();
    Script::new(move |prompt, _| {
        let n: usize = prompt.parse().unwrap();
        let begin = n * prose.len() / SESSIONS;
        let said = prose.iter().cycle().skip(begin).take(PIECES * PIECE_CHARS);
        vec![Step::text(said.collect::<String>(), PIECES)]
    })
}

/// Has all sessions answer at once, at full speed.
async fn played(data: &Path) {
    let agent = Arc::new(Scripted::new(answers()));
    let manager = SessionManager::start(Options::new(data).with_adapter(agent))
        .await
        .unwrap();
    let mut turns = Vec::new();
    for n in 0..SESSIONS {
        let directory = data.to_str().unwrap();
        let session = manager
            .open(OpenSession::new("scripted", directory))
            .await
            .unwrap();
        turns.push(tokio::spawn(async move {
            let message = session.send(&n.to_string(), None).await.unwrap();
            session.settled(message).await.unwrap()
        }));
    }
    for turn in turns {
        assert_eq!(turn.await.unwrap(), MessageState::Completed);
    }
    manager.shut_down().await.unwrap();
}

/// The text of a delta, and the agent's session that it is of.
fn delta(frame: &[u8]) -> Option<(String, String)> {
    let frame: Value = serde_json::from_slice(frame).unwrap();
    let payload = &frame["payload"];
    let properties = &payload["properties"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    (payload["type"] == "message.part.delta")
        .then(|| Some((text(&properties["sessionID"])?, text(&properties["delta"])?)))?
}

/// What a table takes: its rows, and the rows with the pages around them.
fn table_bytes(data: &Path, name: &str) -> (u64, u64) {
    let database = ReadOnlyDatabase::open(data.join("log.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let table: TableDefinition<'_, u64, &[u8]> = TableDefinition::new(name);
    let stats = transaction.open_table(table).unwrap().stats().unwrap();
    let stored = stats.stored_bytes();
    (
        stored,
        stored + stats.metadata_bytes() + stats.fragmented_bytes(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_came_is_kept_and_takes_less_than_half_of_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    played(&data).await;

    let log = LogReader::open(&data).unwrap();
    let (mut received, mut count) = (0, 0);
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for frame in log.frames(FrameNumber::FIRST) {
        let frame = frame.unwrap();
        count += 1;
        assert_eq!(frame.number, FrameNumber(count));
        let FrameContent::Received(bytes) = frame.content else {
            panic!("{:?} was not kept", frame.number);
        };
        received += bytes.len() as u64;
        if let Some((session, text)) = delta(&bytes) {
            said.entry(session).or_default().push_str(&text);
        }
    }
    assert_eq!(verify(&log, None).unwrap().frames, count);

    // What was recorded of the stream is what the frames say, and each event names one of them.
    let mut recorded: BTreeMap<StreamId, (String, String)> = BTreeMap::new();
    for event in log.read_all(Position::FIRST) {
        let event = event.unwrap();
        let (session, text) = recorded.entry(event.stream).or_default();
        match event.event {
            Event::AgentSessionBound { agent_session } => *session = agent_session,
            Event::OutputAppended { text: piece, .. } => {
                assert_eq!(event.frame.is_some(), event.provenance == Provenance::Live);
                text.push_str(&piece);
            }
            _ => {}
        }
    }
    recorded.retain(|_, (session, _)| !session.is_empty());
    assert_eq!(recorded.len(), SESSIONS);
    assert_eq!(recorded.into_values().collect::<BTreeMap<_, _>>(), said);

    drop(log);
    let file = std::fs::metadata(data.join("log.redb")).unwrap().len();
    let tables = ["frames", "blocks"].map(|name| (name, table_bytes(&data, name)));
    println!("{count} frames of {received} bytes: {file} bytes on disk, {tables:?} in tables");
    assert!(file * 2 <= received, "{file} bytes for {received}");
}
