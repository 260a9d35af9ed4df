//! No secret leaves the engine by what it tells of itself. A process of its own, since who listens is one for all of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use recount_engine::adapter::Secret;
use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Error, Event, MessageState, OpenSession, Options, SessionManager, Target};
use recount_store::Position;

/// Everything that is traced, down to what the libraries below say.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    fn listen(&self) {
        let told = self.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || told.clone())
            .init();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files below a folder, but for those below `except`.
fn files(folder: &Path, except: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path == except {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, except));
        } else {
            found.push(fs::read(path).unwrap());
        }
    }
    found
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

#[tokio::test]
async fn secrets_are_in_no_trace_no_metric_and_no_log() {
    const FOREIGN: &str = "the-password-of-somebody-elses-server";
    const SAID: &str = "sk-a-key-that-somebody-typed";
    let told = Told::default();
    told.listen();
    let counts = DebuggingRecorder::new();
    let snapshotter = counts.snapshotter();
    counts.install().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let script = Script::new(|prompt, _| vec![Step::text(format!("{prompt}?"), 1)]);
    let mut options = Options::new(&data).with_adapter(Arc::new(Scripted::new(script)));
    options.url_password = Some(Secret::new(FOREIGN));
    options.policy.session.unreachable_patience = Duration::ZERO;
    let manager = SessionManager::start(options).await.unwrap();

    // A server of the engine's own, whose password it made.
    let here = folder.path().to_str().unwrap();
    let own = manager.open(OpenSession::new("scripted", here)).await;
    let own = own.unwrap();
    let message = own.send(SAID, None).await.unwrap();
    assert_eq!(own.settled(message).await.unwrap(), MessageState::Completed);
    let passwords: Vec<String> = files(&data.join("servers"), Path::new(""))
        .into_iter()
        .map(|bytes| String::from_utf8(bytes).unwrap().trim().to_owned())
        .filter(|text| text.len() >= 16)
        .collect();
    assert!(!passwords.is_empty());

    // The same server as somebody else's, with a password that it refuses.
    let url = manager.log().read_all(Position::FIRST);
    let url = url.filter_map(|recorded| match recorded.unwrap().event {
        Event::ServerReady { url, .. } => Some(url),
        _ => None,
    });
    let spec = OpenSession {
        target: Target::Url(url.last().unwrap()),
        ..OpenSession::new("scripted", here)
    };
    let with_password = OpenSession {
        target: Target::Url(format!("http://me:{FOREIGN}@127.0.0.1:1/")),
        ..spec.clone()
    };
    let refused = manager.open(with_password).await.err().unwrap();
    assert!(matches!(refused, Error::PasswordInUrl), "{refused}");
    let foreign = manager.open(spec).await.unwrap();
    let message = foreign.send(SAID, None).await.unwrap();
    let ended = foreign.settled(message).await.unwrap();
    assert_eq!(ended, MessageState::DeadLettered);
    let state = own.state().unwrap();
    manager.shut_down().await.unwrap();

    let traced = told.text();
    let counted = format!("{:?}", snapshotter.snapshot().into_vec());
    let recorded = files(&data, &data.join("servers")).concat();
    for secret in passwords.iter().map(String::as_str).chain([FOREIGN]) {
        assert!(!holds(traced.as_bytes(), secret), "traced");
        assert!(!holds(counted.as_bytes(), secret), "counted");
        assert!(!holds(&recorded, secret), "recorded");
    }
    // What people and agents say is in the log, and there alone.
    assert!(holds(&recorded, SAID));
    assert!(!holds(traced.as_bytes(), SAID), "{traced}");
    assert!(!holds(counted.as_bytes(), SAID));

    // Each call is inside the span of its session, and names its message and its attempt.
    let store = format!(
        "session{{session={} connection={}}}:call{{call=\"store_message\" message_id={} attempt=1 run=0}}",
        own.id(),
        state.opening.as_ref().unwrap().connection,
        state.queue.messages()[0].id,
    );
    assert!(traced.contains(&store), "no {store} in {traced}");
    assert!(traced.contains("}:call{call=\"health\"}"), "{traced}");
}
