//! What to do next, and doing it: connections, delivery, turns, recovery.

pub mod adapter;
pub mod clock;
pub mod command;
pub mod error;
pub mod limits;
pub mod machine;
pub mod policy;
pub mod shell;

pub use clock::Clock;
pub use error::Error;
