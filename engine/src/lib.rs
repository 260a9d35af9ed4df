//! What to do next, and doing it: connections, delivery, turns, recovery.

pub mod adapter;
pub mod chance;
pub mod clock;
pub mod command;
pub mod decisions;
pub mod error;
pub mod limits;
pub mod machine;
pub mod policy;
pub mod shell;
mod watched;

pub use chance::Chance;
pub use clock::Clock;
pub use command::{Rejection, Word};
pub use error::Error;
pub use policy::{
    ConnectionPolicy, EnginePolicy, Policy, RerunPolicy, Retries, Retry, SessionPolicy,
    UnknownPolicy,
};
pub use recount_projections::{MessageState, Status};
pub use recount_store::{Event, MessageId, PermissionAnswer, SessionId, Target};
pub use shell::connection::{Standing, Transitions};
pub use shell::dead_letter::DeadLetter;
pub use shell::session::Session;
pub use shell::session_manager::{Left, OpenSession, Options, Recovered, SessionManager};
pub use shell::subscription::{Subscription, Update};
