//! What the verbs that run an engine share: starting it, and answering what agents ask.

use std::path::Path;
use std::time::Duration;

use recount_engine::adapter::Secret;
use recount_engine::{
    Error, Left, Options, Policy, Rejection, RerunPolicy, Session, SessionManager, UnknownPolicy,
};
use recount_projections::turn::{Answered, Asks, Question};
use tokio::sync::{oneshot, watch};

use crate::args::{self, Keeping, Permission, Rerun, Unknown};
use crate::directory;
use crate::failure::Failure;
use crate::output::note;
use crate::terminal;

/// An engine as the command line wants it.
///
/// # Errors
///
/// Where the policy cannot be used.
pub(super) fn options(
    data: &Path,
    policy: &args::Policy,
    keeping: &Keeping,
) -> Result<Options, Failure> {
    let mut options = Options::new(data);
    options.policy = self::policy(data, policy.file.path.as_deref())?;
    options.policy.log.keep_frames &= keeping.frames();
    if let Some(asked) = policy.rerun {
        options.policy.session.rerun = rerun(asked);
    }
    if let Some(asked) = policy.unknown {
        options.policy.session.unknown = match asked {
            Unknown::Ask => UnknownPolicy::Ask,
            Unknown::Resend => UnknownPolicy::Resend,
            Unknown::DeadLetter => UnknownPolicy::DeadLetter,
        };
    }
    options.url_password = std::env::var("OPENCODE_SERVER_PASSWORD")
        .ok()
        .filter(|password| !password.is_empty())
        .map(Secret::new);
    Ok(options)
}

/// The policy in force: the command's defaults, over them a file, over that the environment.
///
/// # Errors
///
/// Where one of them cannot be used.
pub(super) fn policy(data: &Path, named: Option<&Path>) -> Result<Policy, Failure> {
    let mut policy = Policy::default();
    // A person waits: what cannot be reached is given up soon.
    policy.session.unreachable_patience = Duration::ZERO;
    // A turn at work is waited for, as long as it may take.
    policy.engine.recovery_max = policy.session.turn_max;
    let own = data.join(directory::POLICY);
    let file = named.or_else(|| own.exists().then_some(&own));
    let read = match file {
        Some(file) => policy.with_file(file),
        None => Ok(policy),
    };
    read.and_then(Policy::with_environment)
        .map_err(|error| Failure::because("cannot use the policy", error))
}

/// The engine's name for a policy.
pub(super) const fn rerun(rerun: Rerun) -> RerunPolicy {
    match rerun {
        Rerun::Auto => RerunPolicy::Auto,
        Rerun::Ask => RerunPolicy::Ask,
        Rerun::Never => RerunPolicy::Never,
    }
}

/// Starts an engine.
pub(super) async fn start(options: Options) -> Result<SessionManager, Failure> {
    SessionManager::start(options)
        .await
        .map_err(|error| match error {
            Error::Log(error) => directory::cannot_open(error),
            error => Failure::because("cannot start the engine", error),
        })
}

/// Ends an engine. What it could not end is in the log, and found by the next one.
pub(super) async fn shut_down(manager: &SessionManager) -> Result<(), Failure> {
    let ended = manager.shut_down().await;
    let left = ended.map_err(|error| Failure::because("cannot end cleanly", error))?;
    if left != Left::default() {
        note("recount: not everything ended in time; recount recover carries on with it");
    }
    Ok(())
}

/// Looks at where a session stands.
pub(super) fn look_at<T>(
    session: &Session,
    look: impl FnOnce(&recount_projections::Session) -> T,
) -> Result<T, Failure> {
    let seen = session.with_state(look);
    seen.map_err(|error| Failure::because("cannot read the session", error))
}

/// Has a turn that waits for a person run again or given up; says no where it is left to wait.
pub(super) async fn settle_waiting(session: &Session, rerun: Rerun) -> Result<bool, Failure> {
    let settled = match rerun {
        Rerun::Auto => session.rerun(true).await,
        Rerun::Never => session.rerun(false).await,
        Rerun::Ask => return Ok(false),
    };
    match settled {
        // The engine's own policy may have been first.
        Ok(()) | Err(Error::Rejected(Rejection::NotWaiting | Rejection::NothingOpen)) => Ok(true),
        Err(error) => Err(Failure::because("cannot settle the turn that waits", error)),
    }
}

/// The runtime that an engine lives in.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot begin", error))
}

/// Says when the first Ctrl-C comes. The second one ends the process at once.
pub(super) fn interrupts() -> watch::Receiver<bool> {
    let (first, came) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            first.send_replace(true);
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(Failure::Interrupted.code()));
            }
        }
    });
    came
}

/// The answer to a question of an agent's, by policy or by the person at the terminal; none where there
/// is no terminal to ask on. A yes answers no question in words: only a person does.
pub(super) async fn answer(permission: Permission, question: &Question) -> Option<Answered> {
    match (permission, &question.asks) {
        (Permission::Reject, _) => Some(Answered::Reject),
        (Permission::Allow, Asks::Permission { .. }) => Some(Answered::Once),
        (Permission::Allow | Permission::Ask, _) => ask(question.asks.clone()).await,
    }
}

/// Gives an answer to the agent; says no where it asks no such thing any more.
pub(super) async fn give(
    session: &Session,
    question: &Question,
    answer: Answered,
) -> Result<bool, Failure> {
    let id = Some(question.id.as_str());
    let given = match (&question.asks, answer.permission(), answer) {
        (Asks::Permission { .. }, Some(answer), _) => session.answer(id, answer).await,
        (_, _, Answered::Words(answers)) => session.answer_question(id, answers).await,
        _ => session.refuse_question(id).await,
    };
    match given {
        Ok(()) => Ok(true),
        // Gone, or answered elsewhere: there is nothing left to say.
        Err(Error::Rejected(_)) => Ok(false),
        Err(error) => Err(Failure::because("cannot answer the agent", error)),
    }
}

/// Asks the person at the terminal; none where there is no terminal.
async fn ask(asks: Asks) -> Option<Answered> {
    let (told, answer) = oneshot::channel();
    // A thread of its own, since nothing can wake it from reading; it is left behind where it is not needed any more.
    std::thread::spawn(move || {
        let _ = told.send(terminal::ask(&asks));
    });
    answer.await.ok().flatten()
}
