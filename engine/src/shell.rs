//! The async shell. Its rule: record, then do.
//!
//! A task owns a machine and everything that is open for it. What happens goes in as an input, the
//! events that come out are appended in one commit, and only then the effects are begun.

pub mod session_manager;
pub mod session;
mod presence;
pub mod subscription;
pub mod connection_manager;
pub mod connection;
pub mod inbox;
pub mod dead_letter;
mod told;
mod panics;
mod route;
mod server;
mod process;
