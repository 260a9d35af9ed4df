//! Frames over whole engines: all that an agent sent is kept as it was sent, and takes little room.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{MessageState, OpenSession, Options, SessionManager};
use recount_projections::{Projection as _, Transcript};
use recount_store::{Event, FrameContent, FrameNumber, LogReader, Seq, StreamId, verify};
use redb::{ReadOnlyDatabase, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde_json::Value;

/// How many sessions answer at once, and in how many pieces each.
const SESSIONS: usize = 20;
const PIECES: usize = 1000;

/// The characters of a piece: about what a model says at once.
const PIECE_CHARS: usize = 5;

/// Longer than this test takes anywhere.
const PATIENCE: Duration = Duration::from_secs(600);

/// What people write, to be said by the agent: no text of which a part foretells the rest.
fn prose() -> Vec<char> {
    let pages = [
        include_str!("../../ARCHITECTURE.md"),
        include_str!("../../store/FORMAT.md"),
        include_str!("../../README.md"),
        include_str!("../../store/src/event.rs"),
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
    let mut options = Options::new(data).with_adapter(agent);
    // On a busy machine frames come late, and a look at the agent's history must not end a turn before them.
    options.policy.session.request_grace = PATIENCE;
    options.policy.session.request_grace_max = PATIENCE;
    options.policy.session.look_every = PATIENCE;
    let manager = SessionManager::start(options).await.unwrap();
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

/// What the frame is about: the agent's session, and the text where it is a delta.
fn about(frame: &[u8]) -> (Option<String>, Option<String>) {
    let frame: Value = serde_json::from_slice(frame).unwrap();
    let payload = &frame["payload"];
    let properties = &payload["properties"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let delta = payload["type"] == "message.part.delta";
    let delta = delta.then(|| text(&properties["delta"])).flatten();
    (text(&properties["sessionID"]), delta)
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
    let mut received = 0;
    let mut sessions = Vec::new();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for frame in log.frames(FrameNumber::FIRST) {
        let frame = frame.unwrap();
        let FrameContent::Received(bytes) = frame.content else {
            panic!("{:?} was not kept", frame.number);
        };
        received += bytes.len() as u64;
        let (session, delta) = about(&bytes);
        if let (Some(session), Some(delta)) = (&session, delta) {
            said.entry(session.clone()).or_default().push_str(&delta);
        }
        sessions.push(session);
        assert_eq!(frame.number, FrameNumber(sessions.len() as u64));
    }
    let count = sessions.len() as u64;
    assert_eq!(verify(&log, None).unwrap().frames, count);

    // What was recorded of a session is what its frames say, and each event names a frame of that session.
    let streams = log.streams().unwrap().into_iter();
    let streams = streams.filter(|(stream, _)| matches!(stream, StreamId::Session(_)));
    let mut recorded = BTreeMap::new();
    for (stream, _) in streams {
        let mut session = None;
        let mut transcript = Transcript::default();
        for event in log.read(stream, Seq::FIRST) {
            let event = event.unwrap();
            if let Event::AgentSessionBound { agent_session } = &event.event {
                session = Some(agent_session.clone());
            }
            if let Some(FrameNumber(number)) = event.frame {
                let place = usize::try_from(number - 1).unwrap();
                assert_eq!(sessions[place], session, "{event:?}");
            }
            transcript.apply(&event);
        }
        recorded.insert(session.unwrap(), transcript.turns[0].text());
    }
    let differ: Vec<_> = said
        .iter()
        .filter(|(session, text)| recorded.get(*session) != Some(text))
        .map(|(session, _)| session)
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(recorded.len(), SESSIONS);

    drop(log);
    let file = std::fs::metadata(data.join("log.redb")).unwrap().len();
    let tables = ["frames", "blocks"].map(|name| (name, table_bytes(&data, name)));
    println!("{count} frames of {received} bytes: {file} bytes on disk, {tables:?} in tables");
    assert!(file * 2 <= received, "{file} bytes for {received}");
}
