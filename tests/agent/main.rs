//! Whole engines with an agent: the real one, and in `frames` the scripted one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faulty;
mod forked;
mod frames;
mod killed;
mod real_agent;
mod recovered;
mod terminal;
