//! What the log and the engine are measured by, beside peers in the same run.
//!
//! Absolute figures belong to a machine and an hour; the ratios are what counts. Every subject gets the
//! same work, the same commits shared by all who wait, and a folder on the same disk.
//!
//! - The workloads of the log, a file each: [`append`], [`rebuild`], [`open`], [`tail`], [`size`].
//! - Those of the [`engine`], over an [`agent`]: [`stream`], [`latency`] (by a [`tap`]), [`idle`], [`recover`].
//! - Those of the command, over a log that is there: [`look`].
//! - [`measure`]: subjects side by side. [`history`]: what they are given to keep.
//! - [`peers`]: who they are, and [`group`]: how their commits are shared.
//! - [`part`]: what is done in a process of its own, to be killed or to be cold.
//! - [`table`] and [`machine`]: what comes out, and where it was measured.

pub mod agent;
pub mod append;
pub mod arguments;
pub mod bench;
pub mod engine;
pub mod group;
pub mod history;
pub mod idle;
pub mod latency;
pub mod look;
pub mod machine;
pub mod measure;
pub mod open;
pub mod part;
pub mod peers;
pub mod rebuild;
pub mod recover;
pub mod size;
pub mod stream;
pub mod table;
pub mod tail;
pub mod tap;
