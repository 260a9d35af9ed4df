//! Sessions with coding agents that survive whatever dies: the engine of Recount, to embed.
//!
//! A program hands its messages to the engine. It owns the connections to the agents' servers, delivers each
//! message once and in order, and records everything that happens as events in one log. State is a fold of that log,
//! so a program that was killed goes on where it was.
//!
//! # The paved path
//!
//! ```
//! # use std::sync::Arc;
//! # use recount_engine::adapter::scripted::{Script, Scripted, Step};
//! use recount_engine::{MessageState, OpenSession, Options, SessionManager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (data, project) = (folder.path().join("data"), folder.path().display().to_string());
//! # let script = Script::new(|prompt, _| vec![Step::text(format!("{prompt}? Done."), 2)]);
//! // One engine for each data directory. The scripted agent is built in; "opencode" is the real one.
//! let options = Options::new(data);
//! # let options = options.with_adapter(Arc::new(Scripted::new(script)));
//! let manager = SessionManager::start(options).await?;
//! // What an earlier engine left open is carried to its end.
//! manager.recover().await?;
//!
//! let session = manager.open(OpenSession::new("scripted", project)).await?;
//! // Durable when it comes back. With a key it is safe to repeat.
//! let message = session.send("fix the tests", Some("ticket-17")).await?;
//! assert_eq!(session.settled(message).await?, MessageState::Completed);
//! let transcript = session.transcript()?;
//! assert_eq!(transcript.turns[0].text(), "fix the tests? Done.");
//!
//! manager.shut_down().await?;
//! # Ok(()) }
//! ```
//!
//! # What an application does
//!
//! | what | with | example |
//! | --- | --- | --- |
//! | send a message and wait for its end | [`Session::send`], [`Session::settled`] | `send_and_wait` |
//! | say something while the agent works | [`Session::steer`] | |
//! | show an answer while it comes | [`Session::subscribe`], [`Update`] | `stream` |
//! | answer what an agent asks | [`Session::answer`], [`Session::answer_question`] | `permissions` |
//! | keep many sessions | [`SessionManager::open`], [`SessionManager::find`] | `many_sessions` |
//! | try again from an earlier moment | [`SessionManager::fork`] | `fork` |
//! | take back, or end | [`Session::cancel`], [`Session::abort`] | |
//! | see to what was given up | [`Session::dead_letters`], [`Session::requeue`] | |
//! | decide what only a person can | [`Session::rerun`], [`Session::resolve`] | |
//! | end in good order | [`SessionManager::shut_down`], [`SessionManager::shut_down_within`] | `shutdown` |
//! | carry on after a death | [`SessionManager::recover`] | `recovery` |
//! | look back | [`SessionManager::log`], [`Session::transcript`] | |
//! | see whether today's rules still decide so, or how others would | [`decisions::derive`](fn@decisions::derive), [`decisions::what_if`] | |
//!
//! Each example runs with nothing installed: `cargo run -p recount-engine --example stream`.
//!
//! [`SessionManager`] and [`Session`] are cheap to clone; all clones are the same one. Dropping a future of theirs takes
//! nothing back: what was sent stays sent. A session whose handles are all dropped goes on, and leaves memory when nothing
//! is open in it.
//!
//! # Policy
//!
//! Every bound and choice is one value, [`Policy`]: how often is tried again, how long is waited, how much is held, what
//! becomes of a turn that the agent died in. It is read from TOML and the environment, checked before the engine starts,
//! and recorded where it changes.
//!
//! ```
//! use recount_engine::{Options, Policy};
//!
//! let mut options = Options::new("data");
//! options.policy = Policy::from_toml("session.rerun = 'never'")?.with_environment()?;
//!
//! let refused = Policy::from_toml("session.runs_max = 0").unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "the policy: session.runs_max is 0; it must be at least 1"
//! );
//! # Ok::<_, recount_engine::policy::Error>(())
//! ```
//!
//! # Errors
//!
//! An [`Error`] carries what whoever acts on it needs. [`Error::Rejected`] is an answer to the caller: the session does
//! not take this, as it stands. [`Error::Log`] means that nothing more is recorded, so nothing more is done; open the
//! engine anew. What goes wrong with an agent is no error here: it is an event, a state of the message
//! ([`MessageState`]), and at last an end that can be seen.
//!
//! # What is told while it runs
//!
//! Metrics through the `metrics` facade: [`mod@metrics`] has the table. `tracing` spans `session`, `connection` and
//! `call` name session, connection, message, attempt and run; `info` tells what begins and ends, `debug` each event,
//! `trace` each frame. Neither tells what people and agents say, nor a secret.
//!
//! # What is promised
//!
//! - **Acknowledged means durable.** What [`Session::send`] gave a receipt for survives `kill -9` and power loss.
//! - **Record, then act.** Nothing is sent, started or answered before the event that says so is durable.
//! - **A message reaches the agent once, in order, and is answered once, or ends visibly.** A send whose answer was lost is a
//!   state of its own, resolved by asking the agent. When the *agent* dies in the middle of a turn, running it again asks the model
//!   again: that is [`RerunPolicy`].
//! - **Everything that started has an end**, and every wait a bound in the policy.
//!
//! The design, and the tests that hold each promise, are in the project's `ARCHITECTURE.md`.

pub mod adapter;
pub mod chance;
pub mod clock;
pub mod command;
pub mod computer;
pub mod decisions;
pub mod error;
pub mod fork;
pub mod limits;
pub mod machine;
pub mod metrics;
pub mod policy;
pub mod shell;
mod watched;

pub use chance::Chance;
pub use clock::Clock;
pub use command::{Rejection, Word};
pub use error::Error;
pub use policy::{
    CallPolicy, ConnectionPolicy, EnginePolicy, Policy, RerunPolicy, Retries, Retry, SessionPolicy,
    UnknownPolicy,
};
pub use recount_projections::{MessageState, Status, Transcript};
pub use recount_store::{Event, MessageId, PermissionAnswer, SessionId, Target};
pub use shell::connection::{Standing, Transitions};
pub use shell::dead_letter::DeadLetter;
pub use shell::session::Session;
pub use shell::session_manager::{
    ForkSession, Left, OpenSession, Options, Recovered, SessionManager,
};
pub use shell::subscription::{Subscription, Update};
