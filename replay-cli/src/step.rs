//! A session gone through event by event, on a whole screen.
//!
//! The [`Model`] is what is shown and what keys mean; [`screen`] draws it. Both are pure. The [`Walker`] reads: it
//! knows the state at any moment, from checkpoints that it keeps in memory. Between them is a loop in
//! `command/step.rs`, which alone knows the terminal.

mod model;
mod moments;
mod panel;
mod screen;
mod sought;
mod walker;

pub(crate) use model::{Mode, Model, Where, Wish};
pub(crate) use screen::{draw, page};
pub(crate) use walker::Walker;

#[cfg(test)]
mod tests;
