//! Recovery: an engine was killed with a message of each session under way. Of half of them the agent never kept
//! anything; it worked on the others, and has finished meanwhile.

use crate::agent::Agent;
use crate::bench::Bench;
use crate::part::Part;

/// Measures so many sessions.
///
/// # Panics
///
/// If the disk is full, or the engine fails.
pub fn run(bench: &mut Bench) {
    let sessions = bench.pick(100, 1000);
    let folder = bench.folder();
    let path = folder.path().join("data");
    bench.say(&format!("recover: {sessions} messages under way"));
    let mut agent = Agent::start();
    agent.ignore_messages(sessions / 2);
    let url = agent.url().to_owned();
    Part::Interrupt { url, sessions }.kill_when_ready(&path);
    agent.let_go();
    bench.say("recover: until nothing is open");
    let [micros, memory] = Part::Recover { sessions }.numbers(&path);
    let table = &mut bench.table;
    let millis = micros / 1000.0;
    table.less_is_better("recover", sessions, "ms", &[("recount", millis)]);
    let mebibytes = memory / f64::from(1 << 20);
    let name = "recover, memory";
    table.less_is_better(name, sessions, "MiB", &[("recount", mebibytes)]);
}
