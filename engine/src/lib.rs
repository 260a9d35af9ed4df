//! What to do next, and doing it: connections, delivery, turns, recovery.

pub mod adapter;
pub mod limits;
