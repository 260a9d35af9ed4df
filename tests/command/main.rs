//! The command as its text: what each verb says and leaves behind, on logs that are written or kept, or over the scripted
//! agent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

mod bundle;
mod by_hand;
mod cli;
mod completions;
mod decided;
mod export;
mod fork;
mod incidents;
mod leaving;
mod look;
mod manners;
mod refused;
mod show;
mod sign;
mod step;
mod told;
mod upkeep;
