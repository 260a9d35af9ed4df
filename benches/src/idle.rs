//! What sessions cost that nobody uses: the memory of each, and starting an engine over all of them.
//!
//! Each is opened through the engine and has had a message answered, and the application keeps its handle.

use crate::agent::Agent;
use crate::bench::Bench;
use crate::part::Part;

/// Measures so many sessions.
///
/// # Panics
///
/// If the disk is full, or the engine fails.
pub fn run(bench: &mut Bench) {
    let sessions = bench.pick(2000, 100_000);
    let folder = bench.folder();
    let path = folder.path().join("data");
    bench.say(&format!("idle: {sessions} sessions, each answered once"));
    let agent = Agent::start();
    let url = agent.url().to_owned();
    let [all, count] = Part::Idle { url, sessions }.numbers(&path);
    bench.say("idle: starting over them");
    let [micros, memory] = Part::Restart.numbers(&path);
    let each = all / count;
    let table = &mut bench.table;
    table.less_is_better("idle, memory", sessions, "B/session", &[("recount", each)]);
    let millis = micros / 1000.0;
    table.less_is_better("idle, restart", sessions, "ms", &[("recount", millis)]);
    let mebibytes = memory / f64::from(1 << 20);
    let name = "idle, restart, memory";
    table.less_is_better(name, sessions, "MiB", &[("recount", mebibytes)]);
}
