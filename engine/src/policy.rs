//! What the engine is told about how to behave, with what it does where it is told nothing.

use std::time::Duration;

/// Delays that double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first, give or take a quarter.
    pub delay_min: Duration,
    /// What none is longer than.
    pub delay_max: Duration,
}

/// How connections are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionPolicy {
    /// How long is waited before a try.
    pub backoff: Backoff,
    /// How many tries may fail in a row before the circuit opens.
    pub circuit_failures: u32,
    /// The time over which the share of failures is looked at: a connection that comes and goes never fails
    /// often in a row. Each opening of the stream is a success, each loss of it and each failed try a failure.
    pub circuit_window: Duration,
    /// How many successes and failures there must have been in that time before their share says anything; what
    /// the fold remembers bounds it.
    pub circuit_volume: u32,
    /// Which share of failures opens the circuit, in percent; more than 100 never does.
    pub circuit_failed_percent: u32,
    /// How long the circuit stays open, each time longer until a connection held.
    pub circuit: Backoff,
    /// How long a connection must last to count as one that held.
    pub held_after: Duration,
    /// How often the server's health is probed while its stream is open.
    pub probe_every: Duration,
    /// After how long a silence of the stream, by bytes, the server is probed out of turn.
    pub suspect_after: Duration,
    /// After how long a silence the stream is given up if the server does not answer probes either.
    pub silence_max: Duration,
    /// After how long a silence the stream is given up though the server answers: the link itself has died.
    pub silence_answering_max: Duration,
    /// How long a server may take from its start to the word that it listens.
    pub start_timeout: Duration,
    /// How long a server that the engine started may live without answering before it is stopped.
    pub answer_timeout: Duration,
    /// How long a server is given to end by itself before it is killed.
    pub stop_timeout: Duration,
    /// How many retries all sessions of the connection together may make at once. Each takes a token, each call
    /// that succeeds brings one back.
    pub retry_tokens: u32,
    /// After how long one token comes back by itself.
    pub retry_refill: Duration,
}

impl Default for ConnectionPolicy {
    fn default() -> Self {
        Self {
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
            // A few sessions that meet one bad moment do not notice it; a thousand that share an outage make
            // one call a second until something succeeds.
            retry_tokens: 10,
            retry_refill: Duration::from_secs(1),
        }
    }
}
