//! Try again from where a session stood: another one begins there, and the old one stays as it is.
//!
//! `cargo run -p recount-engine --example fork`

use std::sync::Arc;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Error, ForkSession, OpenSession, Options, Session, SessionManager};

/// Says something and waits for the end of its turn.
async fn ask(session: &Session, text: &str) -> Result<(), Error> {
    let message = session.send(text, None).await?;
    session.settled(message).await.map(drop)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let agent = Scripted::new(Script::new(|prompt, _| {
        vec![Step::text(format!("You said: {prompt}"), 3)]
    }));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent.clone()));
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();
    let old = manager.open(OpenSession::new("scripted", here)).await?;
    ask(&old, "fix the tests").await?;
    // The number of its last event, which the log and `recount show` tell of any moment.
    let at = old.state()?.seq;
    ask(&old, "delete those that still fail").await?;

    let spec = ForkSession {
        at: Some(at),
        ..ForkSession::new(old.id())
    };
    let new = manager.fork(spec).await?;
    ask(&new, "leave those that still fail").await?;

    for (name, session) in [("old", &old), ("new", &new)] {
        for turn in &session.transcript()?.turns {
            println!("{name}: {}", turn.text());
        }
    }
    // An agent that copies no session is told what was said, in front of the first message.
    if let Some(fork) = new.state()?.fork {
        println!("copied by the agent: {}", fork.refused.is_none());
    }
    println!("first message asked: {}", agent.runs("fix the tests"));
    manager.shut_down().await?;
    Ok(())
}
