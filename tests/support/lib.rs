//! What the tests stand on: places with logs, a scripted model provider, the real agent, and processes under watch.
//!
//! A test of the command begins with a [`Place`](place::Place), whose log is a [`story`] of its own or a
//! [`fixture`](fixture::fixture), and holds what a verb prints there to a text.
//!
//! A test with the real agent begins with a [`Scene`](engine::Scene): a [`Provider`](provider::Provider) and a
//! [`Home`](opencode::Home) that knows it, where a [`Server`](opencode::Server), an engine or a `recount` runs. Its
//! prompts are scripts, and the provider tells afterwards what it was asked and what it sent. Dropping the home ends
//! whatever was started in it.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::must_use_candidate,
    reason = "a test that ignores an answer tests nothing, visibly"
)]

pub mod aftermath;
pub mod agent_http;
pub mod chance;
pub mod command;
pub mod engine;
pub mod files;
pub mod fixture;
pub mod opencode;
pub mod place;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod story;
pub mod timing;
