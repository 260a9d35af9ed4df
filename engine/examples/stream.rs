//! Show an answer while it comes, and follow what is recorded.
//!
//! `cargo run -p recount-engine --example stream`

use std::io::Write as _;
use std::sync::Arc;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Error, Event, OpenSession, Options, SessionManager, Update};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let words = "Each piece is shown at once, and recorded a moment later.";
    let agent = Scripted::new(Script::always(vec![Step::text(words, 12)]));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();
    let session = manager.open(OpenSession::new("scripted", here)).await?;

    // Subscribe first: what is said before is in the log alone.
    let mut updates = session.subscribe();
    session.send("say something", None).await?;
    loop {
        match updates.next().await {
            // Not durable yet, but what a person wants to see.
            Ok(Some(Update::Output { text, .. })) => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            // Durable, in order, each exactly once.
            Ok(Some(Update::Recorded(recorded))) => match &recorded.event {
                Event::TurnCompleted { .. } => break println!("\ncompleted"),
                Event::TurnFailed { reason, .. } => break println!("\nfailed: {reason}"),
                Event::MessageDeadLettered { .. } => break println!("\ngiven up"),
                _ => {}
            },
            // Too slow: nothing waits for a reader. The log has what was missed.
            Err(Error::Lagged { missed }) => println!("\n({missed} updates missed)"),
            Err(error) => return Err(error.into()),
            Ok(None) => break,
        }
    }
    manager.shut_down().await?;
    Ok(())
}
