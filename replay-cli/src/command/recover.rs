//! `recount recover`: carrying on after a crash.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use recount_engine::{Recovered, SessionManager};
use recount_projections::{MessageState, Pending};
use recount_store::{Event, Log, MessageId, Position, Recorded, Select, SessionId, StreamId};
use serde::Serialize;
use tokio::time::timeout;

use super::engine;
use crate::args::{self, Permission, Policy};
use crate::directory;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::render::waits::Waits;
use crate::render::{Look, scene, show, text};

/// How long the last lines of progress may take to be told.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(1);

/// Carries on with what an earlier engine left open, and says what it found and did.
pub(crate) fn run(
    data: &Path,
    recover: &args::Recover,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    // An engine would begin a log where there is none; a mistyped directory is no place to recover.
    if let Err(none) = directory::open_if_any(data)? {
        note(&format!("recount: {none}"));
        self::report(&Report::default(), json, output)?;
        output.flush()?;
        return Ok(());
    }
    let policy = &recover.policy;
    let done = engine::runtime()?.block_on(async {
        let mut interrupted = engine::interrupts();
        let manager = engine::start(engine::options(data, policy, &recover.keeping)?).await?;
        let from = manager.log().head()?.position.next();
        let progress = tokio::spawn(progress(manager.log().clone(), from));
        let done = tokio::select! {
            done = carry_on(&manager, policy) => done,
            _ = interrupted.wait_for(|is| *is) => Err(Failure::Interrupted),
        };
        let ended = engine::shut_down(&manager).await;
        // The log is closed, so it ends as soon as it has told everything; it is not waited for where that failed.
        let _ = timeout(PROGRESS_PATIENCE, progress).await;
        let done = done?;
        ended?;
        Ok::<_, Failure>(done)
    })?;
    self::report(&done, json, output)?;
    output.flush()?;
    if done.recovered.open > 0 {
        let open = text::count(done.recovered.open, "message");
        return Err(
            Failure::new(format!("{open} could not be carried to an end"))
                .try_next("recount recover    tries again"),
        );
    }
    Ok(())
}

/// What was found, and what became of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    #[serde(flatten)]
    recovered: Recovered,
    /// Each message that was open, and how it stands now.
    messages: Vec<Found>,
    /// What waits for a person.
    waits: Vec<Waits>,
}

/// A message that was open.
#[derive(Debug, Serialize)]
struct Found {
    session: SessionId,
    message: MessageId,
    state: MessageState,
    reason: Option<String>,
}

async fn carry_on(manager: &SessionManager, policy: &Policy) -> Result<Report, Failure> {
    let failed = |error| Failure::because("cannot recover", error);
    let permission = policy.permission.unwrap_or_default();
    let pending = manager.pending().map_err(failed)?;
    let recovered = to_rest(manager, permission, &pending).await?;
    let mut report = Report {
        recovered,
        ..Report::default()
    };
    for (id, messages) in &pending.sessions {
        let session = manager.find(*id).await.map_err(failed)?;
        engine::look_at(&session, |state| {
            let found = messages
                .iter()
                .filter_map(|message| state.queue.get(*message));
            report.messages.extend(found.map(|message| Found {
                session: *id,
                message: message.id,
                state: message.state,
                reason: message.reason.clone(),
            }));
            report.waits.extend(Waits::of(*id, state));
        })?;
    }
    Ok(report)
}

/// Recovers until nothing is open but what nobody answers.
async fn to_rest(
    manager: &SessionManager,
    permission: Permission,
    pending: &Pending,
) -> Result<Recovered, Failure> {
    let failed = |error| Failure::because("cannot recover", error);
    let mut sum = manager.recover().await.map_err(failed)?;
    // Each round answers something, and an agent's turn is bounded in time.
    while answer_questions(manager, permission, pending).await? {
        let more = manager.recover().await.map_err(failed)?;
        sum = Recovered {
            sessions: sum.sessions,
            resolved: sum.resolved + more.resolved,
            completed: sum.completed + more.completed,
            failed: sum.failed + more.failed,
            dead_lettered: sum.dead_lettered + more.dead_lettered,
            waiting: more.waiting,
            open: more.open,
        };
    }
    Ok(sum)
}

/// Answers what agents ask in these sessions; says whether anything was.
async fn answer_questions(
    manager: &SessionManager,
    permission: Permission,
    pending: &Pending,
) -> Result<bool, Failure> {
    let failed = |error| Failure::because("cannot recover", error);
    let mut any = false;
    for id in pending.sessions.keys() {
        let session = manager.find(*id).await.map_err(failed)?;
        let questions: Vec<_> = engine::look_at(&session, |state| {
            let turn = state.turn.iter().filter(|_| state.questions_open());
            turn.flat_map(|turn| turn.open_questions().cloned())
                .collect()
        })?;
        for question in questions {
            // Where there is nobody to ask, the question waits.
            let Some(answer) = engine::answer(permission, &question).await else {
                continue;
            };
            any |= engine::give(&session, &question, answer).await?;
        }
    }
    Ok(any)
}

/// Tells on standard error what happens, until the log is closed.
async fn progress(log: Log, from: Position) {
    let mut side = Output::stderr();
    let mut tail = log.tail(Select::All, from);
    // The tail ends with the log, and must not keep it open.
    drop(log);
    while let Some(Ok(recorded)) = tail.next().await {
        if let Some(line) = line(&recorded, &side.look) {
            // Whoever does not listen misses it, and nothing more.
            let _ = side.line(&line).and_then(|()| side.flush());
        }
    }
}

/// An event of any stream, as one line.
fn line(recorded: &Recorded, look: &Look) -> Option<String> {
    let aside = scene::aside(recorded, look);
    let (of, aside) = match (recorded.stream, &recorded.event) {
        (StreamId::Session(id), Event::TurnCompleted { .. }) => {
            (short(id), look.good("= completed"))
        }
        (StreamId::Session(id), _) => (short(id), aside?),
        (StreamId::Connection(id), _) => (format!("~{}", &id.to_string()[..6]), aside?),
        (StreamId::Engine, _) => return None,
    };
    Some(format!("{} {aside}", look.dim(&format!("{of:>7}"))))
}

/// The beginning of a session's id.
fn short(id: SessionId) -> String {
    id.to_string()[..6].to_owned()
}

fn report(report: &Report, json: bool, output: &mut Output) -> io::Result<()> {
    if json {
        return output.json(report);
    }
    let told = told(report, &output.look);
    output.line(&told)
}

/// A report for people.
fn told(report: &Report, look: &Look) -> String {
    let Recovered {
        sessions,
        resolved,
        completed,
        failed,
        dead_lettered,
        waiting,
        open,
    } = report.recovered;
    if sessions == 0 {
        return "nothing was open".to_owned();
    }
    let mut out = String::new();
    for found in &report.messages {
        let reason = found.reason.as_ref().filter(|_| !found.state.is_settled());
        let reason = reason.map(|reason| format!(": {}", text::one_line(reason)));
        let _ = writeln!(
            out,
            "{} message {}  {}{}",
            look.bold(&format!("session {}", found.session)),
            found.message,
            show::state(found.state, look),
            reason.unwrap_or_default()
        );
        for waits in report
            .waits
            .iter()
            .filter(|waits| waits.message == found.message)
        {
            out.push_str(&waits.known());
            out.push_str(&waits.commands());
        }
    }
    let mut counts = vec![format!("{} found open", text::count(sessions, "session"))];
    let numbers = [
        (resolved, "resolved"),
        (completed, "completed"),
        (failed, "failed"),
        (dead_lettered, "dead-lettered"),
        (waiting, "waiting for you"),
        (open, "still open"),
    ];
    let told = numbers.iter().filter(|(number, _)| *number > 0);
    counts.extend(told.map(|(number, what)| format!("{number} {what}")));
    out.push_str(&counts.join(", "));
    out
}
