//! Carry on after a death: what an earlier engine left open is brought to its end.
//!
//! `cargo run -p recount-engine --example recovery`

use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{MessageState, OpenSession, Options, Policy, SessionManager};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let here = folder.path().display().to_string();

    // An engine that ends in the middle of an answer. Had it been killed, nothing below would be different.
    let stalls = Scripted::new(Script::always(vec![Step::text("Well,", 1), Step::Stall]));
    let options = Options::new(&data).with_adapter(Arc::new(stalls));
    let manager = SessionManager::start(options).await?;
    let session = manager.open(OpenSession::new("scripted", here)).await?;
    let (id, message) = (session.id(), session.send("go on", None).await?);
    session
        .wait(|state| {
            let message = state.queue.get(message)?;
            (message.state == MessageState::Running).then_some(())
        })
        .await?;
    manager.shut_down_within(Duration::from_secs(30)).await?;

    // The next one. What becomes of a turn that the agent died in is a policy: the default runs it again
    // unless a tool had begun, and leaves it to a person then.
    let answers = Scripted::new(Script::always(vec![Step::text("Here I am again.", 2)]));
    let mut options = Options::new(&data).with_adapter(Arc::new(answers));
    options.policy = Policy::from_toml("session.rerun = 'ask'")?;
    let manager = SessionManager::start(options).await?;
    println!("open: {}", manager.pending()?.sessions.len());
    // At every start. It comes back when nothing is open that can go on without a person.
    let recovered = manager.recover().await?;
    println!(
        "recovered: {} completed, {} waiting, {} open",
        recovered.completed, recovered.waiting, recovered.open
    );
    let session = manager.find(id).await?;
    if let Some(turn) = session.transcript()?.turn_of(message) {
        println!("run {}: {}", turn.runs.len(), turn.text());
    }
    manager.shut_down().await?;
    Ok(())
}
