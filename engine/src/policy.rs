//! What the engine is told about how to behave, with what it does where it is told nothing.
//!
//! A [`Policy`] is one value: every bound and choice of an engine. It is written as TOML, and each of its keys
//! can be set in the environment, too. A field that is added to one of these structs is a key of the file, a
//! variable of the environment and part of what is recorded, without more (`recount.toml` has to tell of it, says a
//! test); what it has to obey stands in `policy/check.rs`.
//!
//! Durations are texts with a unit (`250ms`, `30s`, `5m`, `24h`), sizes are numbers of bytes.

mod check;
pub(crate) mod duration;
mod error;
mod recorded;
mod source;

use std::time::Duration;

use recount_store::event::Json;
use serde::{Deserialize, Serialize};

pub use self::error::Error;
pub use self::source::VARIABLE_PREFIX;
pub use crate::machine::session::policy::{
    RerunPolicy, Retries, Retry, SessionPolicy, UnknownPolicy,
};

/// Every bound and choice of an engine.
///
/// ```
/// use std::time::Duration;
/// use recount_engine::Policy;
///
/// let policy = Policy::from_toml("session.runs_max = 3\nsession.turn_max = '20m'")?;
/// assert_eq!(policy.session.runs_max, 3);
/// assert_eq!(policy.session.turn_max, Duration::from_secs(20 * 60));
/// // What is not said stays as it is by default.
/// assert_eq!(policy.connection, Policy::default().connection);
/// # Ok::<_, recount_engine::policy::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How sessions behave.
    pub session: SessionPolicy,
    /// How connections behave.
    pub connection: ConnectionPolicy,
    /// What the engine holds in memory.
    pub engine: EnginePolicy,
    /// How the log is kept.
    pub log: recount_store::Options,
}

impl Policy {
    /// The policy as TOML, each key with its value: what [`Policy::from_toml`] reads.
    ///
    /// # Panics
    ///
    /// Where a count is larger than TOML can say, which [`Policy::validate`] refuses.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("counts, texts and tables of them are TOML")
    }

    /// The policy as a JSON object with the names of the file: what is recorded of it.
    ///
    /// # Panics
    ///
    /// Never: there is nothing in a policy that JSON cannot say.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let text = serde_json::to_string(self).expect("a policy is plain data");
        Json(text.into())
    }
}

/// What the engine holds in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginePolicy {
    /// How many sessions that nobody uses have their state in memory.
    pub sessions_cached_max: usize,
    /// How long a recovery is waited for. What takes longer is a turn at work, and goes on by itself.
    #[serde(with = "duration")]
    pub recovery_max: Duration,
    /// How many sessions are carried on at once by a recovery.
    pub recovered_at_once: usize,
    /// How long the engine may take to end, where nothing else is said. The log's own end is always waited for.
    #[serde(with = "duration")]
    pub shut_down_timeout: Duration,
}

impl Default for EnginePolicy {
    fn default() -> Self {
        Self {
            sessions_cached_max: 1024,
            recovery_max: Duration::from_secs(600),
            // Enough to keep a server busy, and little memory where thousands are open.
            recovered_at_once: 256,
            shut_down_timeout: Duration::from_secs(10),
        }
    }
}

/// Delays that double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first, give or take a quarter.
    #[serde(with = "duration")]
    pub delay_min: Duration,
    /// What none is longer than.
    #[serde(with = "duration")]
    pub delay_max: Duration,
}

/// What a call to an agent's server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallPolicy {
    /// How long a call may take until the first byte of its answer, and from each piece of it to the next: a
    /// request that met a starting server is never answered.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How long a probe of health may take: a healthy server answers in a millisecond.
    #[serde(with = "duration")]
    pub probe_timeout: Duration,
    /// How long a server may take to say what it can do: some make up the answer when they are first asked.
    #[serde(with = "duration")]
    pub capabilities_timeout: Duration,
    /// The longest answer, in bytes: a page of messages with the longest texts fits.
    pub answer_bytes_max: usize,
    /// The longest frame of a stream, in bytes: whole texts of a part come as one frame.
    pub frame_bytes_max: usize,
}

impl Default for CallPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            probe_timeout: Duration::from_millis(500),
            capabilities_timeout: Duration::from_secs(30),
            answer_bytes_max: 128 << 20,
            frame_bytes_max: 64 << 20,
        }
    }
}

/// What is done where a server is to be started and somebody else runs one on the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignServers {
    /// It is started all the same, and the traces say so. Each session is then worked on by the server that is asked
    /// to: nobody may go on with one of the engine's sessions at the other server.
    #[default]
    Allow,
    /// It is not started, with an error that names the other one.
    Refuse,
}

/// How connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionPolicy {
    /// What a call to the agent's server may take.
    pub calls: CallPolicy,
    /// How long is waited before a try.
    pub backoff: Backoff,
    /// How many tries may fail in a row before the circuit opens.
    pub circuit_failures: u32,
    /// The time over which the share of failures is looked at: a connection that comes and goes never fails
    /// often in a row. Each opening of the stream is a success, each loss of it and each failed try a failure.
    #[serde(with = "duration")]
    pub circuit_window: Duration,
    /// How many successes and failures there must have been in that time before their share says anything; what
    /// the fold remembers bounds it.
    pub circuit_volume: u32,
    /// Which share of failures opens the circuit, in percent; more than 100 never does.
    pub circuit_failed_percent: u32,
    /// How long the circuit stays open, each time longer until a connection held.
    pub circuit: Backoff,
    /// How long a connection must last to count as one that held.
    #[serde(with = "duration")]
    pub held_after: Duration,
    /// How often the server's health is probed while its stream is open.
    #[serde(with = "duration")]
    pub probe_every: Duration,
    /// After how long a silence of the stream, by bytes, the server is probed out of turn.
    #[serde(with = "duration")]
    pub suspect_after: Duration,
    /// After how long a silence the stream is given up if the server does not answer probes either.
    #[serde(with = "duration")]
    pub silence_max: Duration,
    /// After how long a silence the stream is given up though the server answers: the link itself has died.
    #[serde(with = "duration")]
    pub silence_answering_max: Duration,
    /// How long a server may take from its start to the word that it listens.
    #[serde(with = "duration")]
    pub start_timeout: Duration,
    /// How long a server that the engine started may live without answering before it is stopped.
    #[serde(with = "duration")]
    pub answer_timeout: Duration,
    /// How long a server is given to end by itself before it is killed.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
    /// What is done where somebody else runs a server on the same data. Seen on Linux alone.
    pub foreign_servers: ForeignServers,
    /// How often in a row the connection's own task may panic before it is left alone, until somebody asks for the
    /// connection again. Each time it begins anew from the log, after a pause as before a try.
    pub panics_max: u32,
    /// How many retries all sessions of the connection together may make at once. Each takes a token, each call
    /// that succeeds brings one back.
    pub retry_tokens: u32,
    /// After how long one token comes back by itself.
    #[serde(with = "duration")]
    pub retry_refill: Duration,
}

impl Default for ConnectionPolicy {
    fn default() -> Self {
        Self {
            calls: CallPolicy::default(),
            // An address where nothing listens opens the circuit after three seconds.
            backoff: Backoff {
                delay_min: Duration::from_millis(100),
                delay_max: Duration::from_secs(30),
            },
            circuit_failures: 5,
            // Five openings and five losses in two minutes: whatever is there, no turn comes to its end on it.
            circuit_window: Duration::from_secs(120),
            circuit_volume: 10,
            circuit_failed_percent: 50,
            circuit: Backoff {
                delay_min: Duration::from_secs(10),
                delay_max: Duration::from_secs(60),
            },
            held_after: Duration::from_secs(10),
            probe_every: Duration::from_secs(5),
            // OpenCode's heartbeat comes every ten seconds: two were missed.
            suspect_after: Duration::from_secs(25),
            silence_max: Duration::from_secs(40),
            silence_answering_max: Duration::from_secs(60),
            // A second or two when idle; machines under load take ten times as long.
            start_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(3),
            // People run the agent beside us, in sessions of their own.
            foreign_servers: ForeignServers::Allow,
            // A frame that panics comes once, a mistake in our own rules every time.
            panics_max: 5,
            // A few sessions that meet one bad moment do not notice it; a thousand that share an outage make
            // one call a second until something succeeds.
            retry_tokens: 10,
            retry_refill: Duration::from_secs(1),
        }
    }
}
