//! How to embed Recount: open a log, open a session, say something, watch the answer come.
//!
//! `cargo run -p recount-engine --example embed -- DATA-DIRECTORY [MESSAGE]`

use std::io::Write;

use recount_engine::{Event, OpenSession, Options, PermissionAnswer, SessionManager, Update};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let data = args.next().ok_or("name a data directory")?;
    let text = args.next().unwrap_or_else(|| "Say hello.".to_owned());
    let here = std::env::current_dir()?.display().to_string();

    // The engine: one for each data directory. What an earlier one left open, it carries to its end.
    let manager = SessionManager::start(Options::new(data)).await?;
    let recovered = manager.recover().await?;
    println!("recovered: {recovered:?}");

    // A session with an agent. Nothing is started before there is something to send.
    let agent = std::env::var("AGENT").unwrap_or_else(|_| "scripted".to_owned());
    let session = manager.open(OpenSession::new(agent, here)).await?;
    let mut updates = session.subscribe();

    // When `send` comes back the message is durable: it will be answered once, or end visibly.
    let message = session.send(&text, None).await?;
    while let Some(update) = updates.next().await? {
        match update {
            Update::Output { text, .. } => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            Update::Recorded(recorded) => match recorded.event {
                // This is where a user would be asked.
                Event::PermissionAsked { .. } => {
                    session.answer(None, PermissionAnswer::Reject).await?;
                }
                Event::TurnCompleted { .. }
                | Event::TurnFailed { .. }
                | Event::TurnAborted { .. }
                | Event::MessageDeadLettered { .. } => break,
                _ => {}
            },
        }
    }
    println!("\n{}", session.settled(message).await?.name());
    manager.shut_down().await?;
    Ok(())
}
