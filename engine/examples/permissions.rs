//! Answer what an agent asks before it uses its tools.
//!
//! `cargo run -p recount-engine --example permissions`

use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted, Step};
use recount_engine::{Event, OpenSession, Options, PermissionAnswer, SessionManager, Update};

/// A tool that wants to be allowed.
fn command(line: &str) -> Step {
    Step::Tool {
        name: "bash".to_owned(),
        input: serde_json::json!({ "command": line }),
        output: "done".to_owned(),
        permission: Some(line.to_owned()),
        delay: Duration::ZERO,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let steps = vec![command("ls"), command("rm -rf /"), Step::text("Tidy.", 1)];
    let agent = Scripted::new(Script::always(steps));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    let manager = SessionManager::start(options).await?;
    let here = folder.path().display().to_string();
    let session = manager.open(OpenSession::new("scripted", here)).await?;
    let mut updates = session.subscribe();
    let message = session.send("tidy up", None).await?;

    while let Some(update) = updates.next().await? {
        let Update::Recorded(recorded) = update else {
            continue;
        };
        match &recorded.event {
            Event::PermissionAsked {
                permission, detail, ..
            } => {
                // A person is asked here. The turn waits for as long as the policy lets it.
                let answer = match detail.as_str() {
                    "ls" => PermissionAnswer::Once,
                    _ => PermissionAnswer::Reject,
                };
                println!("{detail}: {answer:?}");
                session.answer(Some(permission), answer).await?;
            }
            Event::TurnCompleted { .. } | Event::TurnFailed { .. } | Event::TurnAborted { .. } => {
                break;
            }
            _ => {}
        }
    }
    println!("{}", session.settled(message).await?.name());
    manager.shut_down().await?;
    Ok(())
}
