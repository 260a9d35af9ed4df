//! `recount demo`: a session that falls and recovers, with nothing installed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Scripted};
use recount_engine::{OpenSession, Options, SessionManager};
use recount_store::{Event, Recorded, SessionId, Target};
use tokio::time::timeout;

use super::engine;
use super::log::Printer;
use crate::args::{Agent, Keeping};
use crate::directory;
use crate::failure::Failure;
use crate::output::Output;
use crate::render::event::{self, Lines};
use crate::render::{Look, text, time};
use crate::stage::{self, Stage};
use crate::timeline::Timeline;

/// What the scripted agent is asked.
const PROMPT: &str = "What happens to your answer if your server dies?";

/// No demonstration takes longer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Plays the demonstration in a directory of its own, or in the one that was named.
pub(crate) fn run(
    named: Option<PathBuf>,
    keeping: &Keeping,
    json: bool,
    mut output: Output,
) -> Result<(), Failure> {
    let data = match named {
        Some(named) => named,
        None => fresh()?,
    };
    let mut view = if json {
        None
    } else {
        output.line(INTRODUCTION)?;
        Some(Stage::whole(output, false))
    };
    let id = engine::runtime()?.block_on(play(&data, keeping, view.as_mut()))?;
    let mut output = view.map_or_else(Output::stdout, Stage::into_front);
    let reader = directory::open(&data)?;
    let events: Vec<Recorded> = Timeline::of(&reader, id)?
        .events(&reader, reader.head()?.position, false)
        .collect::<Result<_, _>>()?;
    if json {
        let mut printer = Printer::new(true);
        for recorded in &events {
            printer.print(recorded, &mut output)?;
        }
    } else {
        let told = told(&events, &output.look);
        output.line(&told)?;
        let further = further(&data, id, &events, &output.look);
        output.line(&further)?;
    }
    output.flush()?;
    Ok(())
}

const INTRODUCTION: &str = "\
A scripted agent on this computer is asked something. Its server is killed in the middle of the answer.
";

/// A temporary directory that stays, so that one can look further.
fn fresh() -> Result<PathBuf, Failure> {
    tempfile::Builder::new()
        .prefix("recount-demo-")
        .tempdir()
        .map(tempfile::TempDir::keep)
        .map_err(|error| Failure::because("cannot make a temporary directory", error))
}

/// Has the agent asked, and its answer played to the end.
async fn play(
    data: &Path,
    keeping: &Keeping,
    stage: Option<&mut Stage>,
) -> Result<SessionId, Failure> {
    let mut interrupted = engine::interrupts();
    // Its own policy, whatever others there are: it is to show the same to everybody.
    let mut options = Options::new(data).with_adapter(Arc::new(Scripted::new(Script::demo())));
    options.policy.log.keep_frames = keeping.frames();
    let manager = engine::start(options).await?;
    let played = tokio::select! {
        played = timeout(TIME_MAX, converse(&manager, data, stage)) => played.unwrap_or_else(|_| {
            Err(Failure::new(format!("the demonstration took longer than {}", time::span(TIME_MAX))))
        }),
        _ = interrupted.wait_for(|is| *is) => Err(Failure::Interrupted),
    };
    let ended = engine::shut_down(&manager).await;
    let id = played?;
    ended?;
    Ok(id)
}

async fn converse(
    manager: &SessionManager,
    data: &Path,
    mut stage: Option<&mut Stage>,
) -> Result<SessionId, Failure> {
    let failed = |error| Failure::because("cannot play the demonstration", error);
    let directory = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let directory = directory.to_string_lossy().into_owned();
    let session = manager
        .open(OpenSession {
            id: None,
            agent: Agent::Scripted.name().to_owned(),
            target: Target::Managed {
                program: None,
                directory: directory.clone(),
            },
            directory,
            model: None,
            title: Some("demonstration".to_owned()),
        })
        .await
        .map_err(failed)?;
    let id = session.id();
    let timeline = Timeline::of(manager.log(), id)?;
    let mut tail = timeline.tail(manager.log(), timeline.first);
    let message = session.send(PROMPT, None).await.map_err(failed)?;
    while let Some(recorded) = tail.next().await {
        let recorded = recorded?;
        if let Some(stage) = &mut stage {
            stage.play(&recorded)?;
            stage.flush()?;
        }
        if recorded.event.message() == Some(message) && stage::ends(&recorded.event) {
            return match recorded.event {
                Event::TurnCompleted { .. } => Ok(id),
                event => Err(Failure::new(format!(
                    "the demonstration ended with {} instead of an answer: {}",
                    event::name(&event),
                    event::summary(&event)
                ))),
            };
        }
    }
    Err(failed(recount_engine::Error::Stopped))
}

/// What happened, as the log has it; of many pieces of an answer in a row, the first and the last.
fn told(events: &[Recorded], look: &Look) -> String {
    let mut out = look.bold("\nThe same as the log has it:");
    let mut lines = Lines::default();
    let same = |a: &Recorded, b: &Recorded| is_output(a) && is_output(b);
    for run in events.chunk_by(same) {
        let left_out = run.len().saturating_sub(2);
        for (n, recorded) in run.iter().enumerate() {
            if n == 0 || n > left_out {
                out.push('\n');
                out.push_str(&lines.next(recorded, look));
            } else if n == 1 {
                let pieces = text::count(left_out as u64, "more piece");
                out.push('\n');
                out.push_str(&look.dim(&format!("{:22}… {pieces} of the answer", "")));
            }
        }
    }
    out
}

fn is_output(recorded: &Recorded) -> bool {
    matches!(recorded.event, Event::OutputAppended { .. })
}

/// What came of it, and the commands with which to look further.
fn further(data: &Path, id: SessionId, events: &[Recorded], look: &Look) -> String {
    let count = |is: fn(&Event) -> bool| {
        let found = events.iter().filter(|recorded| is(&recorded.event)).count();
        found as u64
    };
    let asked = count(|event| matches!(event, Event::DeliveryStarted { .. }));
    let falls = count(|event| matches!(event, Event::StreamLost { .. }));
    let answered = count(|event| matches!(event, Event::TurnCompleted { .. }));
    let at = events
        .iter()
        .find(|recorded| matches!(recorded.event, Event::TurnInterrupted { .. }))
        .map_or(1, |recorded| recorded.seq.0);
    // As it was called, so that the lines can be used as they stand.
    let name = std::env::args().next();
    let name = name.as_deref().unwrap_or("recount");
    let command = format!("{name} --data {}", quoted(&data.to_string_lossy()));
    let mut out = look.bold("\nWhat came of it:");
    let _ = write!(
        out,
        " message sent {}, connection lost {}, answer completed {}.\n\n",
        times(asked),
        times(falls),
        times(answered)
    );
    out.push_str(&look.bold("Look further:"));
    for (verb, what) in [
        ("sessions".to_owned(), "what there is"),
        (format!("show {id}"), "how it stands"),
        (
            format!("show {id} --at {at}"),
            "how it stood when the agent had died",
        ),
        (format!("log {id}"), "every event"),
        (format!("replay {id}"), "all of it again, with its pauses"),
        ("verify".to_owned(), "that the log is whole"),
    ] {
        let _ = write!(out, "\n  {}\n      {command} {verb}", look.dim(what));
    }
    out
}

fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        number => format!("{number} times"),
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted("/tmp/recount-demo-a1"), "/tmp/recount-demo-a1");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
