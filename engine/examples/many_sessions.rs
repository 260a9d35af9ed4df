//! A hundred sessions at once with one agent: each keeps its order, none waits for another.
//!
//! `cargo run -p recount-engine --example many_sessions`

use std::sync::Arc;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Error, MessageState, OpenSession, Options, Policy, SessionManager};

const SESSIONS: usize = 100;

/// Two messages in a session of its own; how many of them were answered.
async fn converse(manager: SessionManager, here: String) -> Result<usize, Error> {
    let session = manager.open(OpenSession::new("scripted", here)).await?;
    let first = session.send("one", None).await?;
    // Queued behind the first: it is sent when that one is answered.
    let second = session.send("two", None).await?;
    let mut answered = 0;
    for message in [first, second] {
        if session.settled(message).await? == MessageState::Completed {
            answered += 1;
        }
    }
    Ok(answered)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let agent = Scripted::new(Script::new(|prompt, _| vec![Step::text(prompt, 1)]));
    let mut options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    // Every bound is a key of the policy: here few sessions are kept in memory once they are idle.
    options.policy = Policy::from_toml("engine.sessions_cached_max = 16")?;
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();

    // The engine is cheap to clone, and so is a session.
    let talks: Vec<_> = (0..SESSIONS)
        .map(|_| tokio::spawn(converse(manager.clone(), here.clone())))
        .collect();
    let mut answered = 0;
    for talk in talks {
        answered += talk.await??;
    }
    println!("{SESSIONS} sessions, {answered} messages answered");
    println!("{} open", manager.pending()?.sessions.len());
    manager.shut_down().await?;
    Ok(())
}
