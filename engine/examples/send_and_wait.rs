//! Send a message, wait for its end, read the answer. And again with the same key: it is the same message.
//!
//! `cargo run -p recount-engine --example send_and_wait`

use std::sync::Arc;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{OpenSession, Options, SessionManager};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // An agent inside this program stands for a real one. Without it, "opencode" would be the name below.
    let agent = Scripted::new(Script::new(|prompt, _| {
        vec![Step::text(format!("You said: {prompt}"), 3)]
    }));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();
    let session = manager.open(OpenSession::new("scripted", here)).await?;

    // Durable when it comes back. The key is yours: a ticket, a build, whatever asks only once.
    let message = session.send("fix the tests", Some("ticket-17")).await?;
    println!("{}", session.settled(message).await?.name());
    let transcript = session.transcript()?;
    if let Some(turn) = transcript.turn_of(message) {
        println!("{}", turn.text());
    }

    let again = session.send("fix the tests", Some("ticket-17")).await?;
    println!("asked once: {}", again == message);
    manager.shut_down().await?;
    Ok(())
}
