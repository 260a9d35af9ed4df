//! The choices of a session that are not laws: each with its default and its reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Bounds;
use crate::policy::{Backoff, duration};

/// What becomes of a turn that the agent died in, or that it may have begun before it lost its memory. Running it again
/// asks the model again, and a tool may already have done its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RerunPolicy {
    /// Run it again, whatever it had begun.
    Auto,
    /// Run it again where no tool was seen to begin; else wait for a person.
    #[default]
    Ask,
    /// Never run it again: it has failed.
    Never,
}

/// What becomes of a message of which the agent cannot say whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownPolicy {
    /// Wait for a person, who may know more. Nothing else of the session is sent meanwhile.
    #[default]
    Ask,
    /// Send it again. The agent may then have it twice.
    Resend,
    /// Give it up. The agent may have it all the same.
    DeadLetter,
}

/// How a message is tried again after one kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many attempts a message may have had, whatever became of the others, before such a failure is its last.
    pub attempts_max: u32,
    /// The pauses before the next attempt, from the second on.
    pub backoff: Backoff,
}

/// How a message is tried again, by what became of its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// It never left. Cheap to try again, and mostly soon over: a server restarts.
    pub never_sent: Retry,
    /// The agent refused it for now. It is busy or limited, so it is left alone for longer.
    pub for_now: Retry,
    /// The agent refused it for good. The same words meet the same answer, so one attempt is all.
    pub for_good: Retry,
    /// It was sent and did not arrive. Proved by a look, or decided by [`UnknownPolicy`].
    pub unknown: Retry,
    /// The longest `Retry-After` that is honoured: one may be of days.
    #[serde(with = "duration")]
    pub retry_after_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        let quick = Retry {
            // Two minutes: a link that died unnoticed is found dead before that.
            attempts_max: 12,
            backoff: Backoff {
                delay_min: Duration::from_millis(100),
                delay_max: Duration::from_secs(30),
            },
        };
        let slow = Backoff {
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
        };
        Self {
            never_sent: quick,
            for_now: Retry {
                attempts_max: 8,
                backoff: slow,
            },
            for_good: Retry {
                attempts_max: 1,
                backoff: slow,
            },
            unknown: quick,
            retry_after_max: Duration::from_secs(300),
        }
    }
}

/// The bounds and choices of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionPolicy {
    /// How many messages may wait. More are refused: a queue that only grows is an outage in hiding.
    pub queue_depth_max: usize,
    /// How many bytes of text may wait. A queue is kept in memory, and a few of the longest messages are plenty.
    pub queue_bytes_max: usize,
    /// How a message is tried again before it is dead-lettered.
    pub retries: Retries,
    /// What becomes of a message of which the agent cannot say whether it arrived.
    pub unknown: UnknownPolicy,
    /// How often one server is asked to begin one run before the turn has failed.
    pub requests_max: u32,
    /// How long after a request the agent may show no sign before it is looked at, doubled with each further
    /// request: a cold server takes 2 s, on a busy machine many times that.
    #[serde(with = "duration")]
    pub request_grace: Duration,
    /// The longest that it is doubled to.
    #[serde(with = "duration")]
    pub request_grace_max: Duration,
    /// How long an agent that seems idle with the turn unfinished, or that has no session where one was asked for, is left
    /// before it is looked at once more.
    #[serde(with = "duration")]
    pub second_look_after: Duration,
    /// How often a look may fail in a row, with the connection standing, before it is given up.
    pub looks_max: u32,
    /// The pauses between looks that fail.
    pub look_backoff: Backoff,
    /// How long a running turn is left unseen before it is looked at: its end may have been missed.
    #[serde(with = "duration")]
    pub look_every: Duration,
    /// What becomes of a turn that the agent died in.
    pub rerun: RerunPolicy,
    /// How many runs a turn may have.
    pub runs_max: u32,
    /// How often a turn that stalled is run again, as `rerun` allows and once the agent was seen at rest: none, since what
    /// stalled once mostly does so again, and each run asks the model anew.
    pub stalls_rerun_max: u32,
    /// How long a turn that has begun may be silent, no question being open, before it is ended.
    #[serde(with = "duration")]
    pub silence_max: Duration,
    /// How long one run of a turn may take in all, no question being open. With each question that is
    /// answered or gone it begins to count anew: a person is there, and may end the turn.
    #[serde(with = "duration")]
    pub turn_max: Duration,
    /// How long a permission or a question may wait for an answer before it is refused in nobody's name. A day:
    /// people sleep, and what nobody answers until then nobody will; till then the session holds its agent.
    #[serde(with = "duration")]
    pub question_patience: Duration,
    /// How far ahead the agent's own next try may lie: it may be days ahead.
    #[serde(with = "duration")]
    pub agent_retry_max: Duration,
    /// How long an abort may take before the turn is ended without the agent's word.
    #[serde(with = "duration")]
    pub abort_patience: Duration,
    /// How long the head of the queue waits once the connection's breaker has opened, before it is given
    /// up; one that was queued after that has as long from then.
    #[serde(with = "duration")]
    pub unreachable_patience: Duration,
    /// How long a piece of output is gathered before it is recorded.
    #[serde(with = "duration")]
    pub gather: Duration,
    /// How much output is gathered at most before it is recorded, in bytes.
    pub gather_bytes: usize,
    /// How much of what the agent says may wait for the session, in bytes. Beyond it something is missed, and
    /// looked up in the agent's history. A long answer fits; a thousand sessions that stand still hold a gigabyte.
    pub inbox_bytes: usize,
    /// How much a subscriber may leave untaken, in bytes, before it misses the oldest and is told so. Seconds of
    /// the quickest agent; what was missed is in the log.
    pub subscriber_bytes: usize,
    /// How long a session with nothing open stays in memory: what the agent says late is still about the turn
    /// that has ended, and who answers does so within seconds.
    /// Where more than [`crate::limits::SESSIONS_LINGERING_MAX`] have a task, such a session does not stay.
    #[serde(with = "duration")]
    pub idle_after: Duration,
    /// How often in a row a session may fail by a mistake of the engine's own before it is left alone: a mistake
    /// that is met again with the same log is met for ever.
    pub panics_max: u32,
}

impl SessionPolicy {
    /// What a session takes under this policy; whether its agent `steers` is the agent's to say.
    #[must_use]
    pub const fn bounds(&self, steers: bool) -> Bounds {
        Bounds {
            queue_depth_max: self.queue_depth_max,
            queue_bytes_max: self.queue_bytes_max,
            steers,
        }
    }
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            queue_depth_max: 1000,
            queue_bytes_max: 32 << 20,
            retries: Retries::default(),
            unknown: UnknownPolicy::Ask,
            requests_max: 8,
            request_grace: Duration::from_secs(3),
            request_grace_max: Duration::from_secs(60),
            second_look_after: Duration::from_millis(500),
            // Two minutes: a link that died unnoticed is found dead before that, and then it is waited for.
            looks_max: 12,
            look_backoff: Backoff {
                delay_min: Duration::from_millis(100),
                delay_max: Duration::from_secs(30),
            },
            look_every: Duration::from_secs(30),
            rerun: RerunPolicy::Ask,
            runs_max: 10,
            stalls_rerun_max: 0,
            silence_max: Duration::from_secs(300),
            turn_max: Duration::from_secs(3600),
            question_patience: Duration::from_secs(24 * 3600),
            agent_retry_max: Duration::from_secs(300),
            abort_patience: Duration::from_secs(10),
            unreachable_patience: Duration::from_secs(600),
            gather: Duration::from_millis(25),
            gather_bytes: 32 << 10,
            inbox_bytes: 1 << 20,
            subscriber_bytes: 4 << 20,
            idle_after: Duration::from_secs(30),
            panics_max: 3,
        }
    }
}
