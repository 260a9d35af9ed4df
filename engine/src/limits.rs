//! The bounds that nobody has a reason to choose otherwise, each with why it is what it is. Those that somebody may
//! are in [`Policy`](crate::Policy).

use std::time::Duration;

/// The longest message text, in bytes: agents take seconds over more, and people never write it. No choice, since a
/// key that is repeated has to meet the same answer under every policy.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// How much of what was said in a session goes along where another one goes on from it, in bytes; beyond it, the oldest is
/// left out. A fifth or so of what models take at once.
pub const CONTEXT_BYTES_MAX: usize = 256 << 10;

/// How much of what a tool was given, and of what it gave, goes along there, in bytes.
pub const CONTEXT_TOOL_BYTES_MAX: usize = 4 << 10;

/// How many probes in a row a server has to miss until it counts as not answering: one that is busy misses one.
pub const PROBES_MISSED_MIN: u32 = 2;

/// How many gaps between an agent's heartbeats are remembered: one that came late is not forgotten at once.
pub const HEARTBEATS_KEPT: usize = 5;

/// The shortest gap between two heartbeats that tells anything: those that waited somewhere come together.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// How many items of a stream are taken in one turn of a connection's loop: commands and probes wait no longer than that.
pub const ITEMS_AT_ONCE: usize = 256;

/// How much may come off a stream before its first frame: pieces of headers and of that frame.
pub const EARLY_ITEMS_MAX: usize = 1024;

/// For how many observations an inbox that is empty again keeps its room: what comes in one turn of the loop.
pub const INBOX_ROOM_KEPT: usize = 16;

/// How long to wait before a starting server is probed again.
pub const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// How many commands may wait for a connection's task; more callers wait.
pub const CONNECTION_COMMANDS_MAX: usize = 256;

/// How many sub-agents' sessions a connection remembers the parents of; beyond it, the oldest are forgotten.
pub const CHILD_SESSIONS_MAX: usize = 10_000;

/// How much of what a server wrote is read for its word that it listens, and for its last words; beyond it the file is emptied.
pub const SERVER_OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How much of a server's last words goes into an error.
pub const LAST_WORDS_BYTES_MAX: usize = 600;

/// How often a process that is no child of this one is looked at.
pub const PROCESS_POLL: Duration = Duration::from_millis(250);

/// How long an engine may take to end, where nothing else is said.
pub const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// How deep sub-agents of sub-agents are followed.
pub const CHILD_DEPTH_MAX: usize = 32;

/// How often a starting server's output is looked at.
pub const OUTPUT_POLL: Duration = Duration::from_millis(25);

/// The shortest sleep of a loop: a wake-up that is due already must not spin.
pub const WAKE_MIN: Duration = Duration::from_millis(1);

/// How many of the engine's own events are searched for the policy that was in force last; beyond it, the policy is
/// recorded again. A start and an end are two, so an unchanged policy is recorded with every thirtieth start.
pub const POLICY_LOOKBACK: usize = 64;

/// How many sessions may have a task before one with nothing open falls asleep at once: each takes some 60 KB, and
/// an application that opens a thousand a second would have tens of thousands of them awake for nothing.
pub const SESSIONS_LINGERING_MAX: usize = if cfg!(test) { 8 } else { 1024 };

/// How many calls of an application may wait for one session before the next caller waits.
pub const SESSION_CALLS_MAX: usize = 64;

/// How often what a server left behind is looked for and killed, with [`SWEEP_PAUSE`] between: a second in all.
pub const SWEEPS_MAX: u32 = 50;

/// How long what was killed is given to be gone.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// How many transitions of connections a listener may lag behind before it is told that it missed some.
pub const TRANSITIONS_LAG_MAX: usize = 1024;
