//! What the tests stand on: a scripted model provider, the real agent, and processes under watch.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::must_use_candidate,
    reason = "a test that ignores an answer tests nothing, visibly"
)]

pub mod provider;
