//! How to embed Recount: open a log, open a session, say something, watch the answer come.
//!
//! `cargo run -p recount-engine --example embed -- DATA-DIRECTORY [MESSAGE]`

use std::io::Write;

use recount_engine::{OpenSession, Options, SessionManager, Target, Update};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let data = args.next().ok_or("name a data directory")?;
    let text = args.next().unwrap_or_else(|| "Say hello.".to_owned());
    let here = std::env::current_dir()?.display().to_string();

    // The engine: one for each data directory. What an earlier one left open, it carries to its end.
    let manager = SessionManager::start(Options::new(data)).await?;
    let recovered = manager.recover(recount_engine::RerunPolicy::Ask).await?;
    println!("recovered: {recovered:?}");

    // A session with an agent. Nothing is started before there is something to send.
    let agent = std::env::var("AGENT").unwrap_or_else(|_| "scripted".to_owned());
    let target = Target::Managed {
        program: None,
        directory: here.clone(),
    };
    let spec = OpenSession {
        id: None,
        agent,
        target,
        directory: here,
        model: None,
        title: None,
    };
    let session = manager.open(spec).await?;
    let mut updates = session.subscribe();

    // When `send` comes back the message is durable: it will be answered once, or end visibly.
    let message = session.send(&text, None).await?;
    let watch = async {
        while let Ok(Some(update)) = updates.next().await {
            if let Update::Output { text, .. } = update {
                print!("{text}");
                let _ = std::io::stdout().flush();
            }
        }
    };
    tokio::select! {
        () = watch => {}
        state = session.settled(message) => println!("\n{}", state?.name()),
    }
    manager.shut_down().await?;
    Ok(())
}
