//! End in good order, within a deadline, in the middle of an answer: what is open stays open in the log.
//!
//! `cargo run -p recount-engine --example shutdown`

use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Error, MessageState, OpenSession, Options, SessionManager};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let agent = Scripted::new(Script::always(vec![Step::text("Well,", 1), Step::Stall]));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();
    let session = manager.open(OpenSession::new("scripted", here)).await?;
    let message = session.send("this takes long", None).await?;
    session
        .wait(|state| {
            let message = state.queue.get(message)?;
            (message.state == MessageState::Running).then_some(())
        })
        .await?;

    // In a program this stands behind `tokio::signal::ctrl_c()`. Whoever waits is told.
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.settled(message).await }
    });
    // Calls are refused from here on, what was gathered is recorded, servers are stopped, the log is closed.
    let left = manager.shut_down_within(Duration::from_secs(30)).await?;
    println!(
        "left behind: {} sessions, {} connections",
        left.sessions, left.connections
    );
    println!("who waited is told: {}", waiting.await?.is_err());
    let refused = session.send("one more", None).await;
    println!(
        "who calls is told: {}",
        matches!(refused, Err(Error::ShutDown))
    );
    // The message is open in the log: see the example `recovery` for what becomes of it.
    Ok(())
}
