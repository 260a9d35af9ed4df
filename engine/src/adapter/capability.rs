//! The words for what a server can do, the same for all agents: what [`super::AgentAdapter::capabilities`] answers
//! with and the log keeps. A word once written stays: old logs hold it.

/// Work on a session can be ended.
pub const ABORT: &str = "abort";

/// What was missed of a session can be read from the agent's own log of events, by number.
pub const EVENT_LOG: &str = "event_log";

/// A session can be continued as two.
pub const FORK: &str = "fork";

/// What was said in a session can be read.
pub const HISTORY: &str = "history";

/// The agent asks for permissions, and takes answers.
pub const PERMISSIONS: &str = "permissions";

/// The agent asks questions in words, and takes answers.
pub const QUESTIONS: &str = "questions";

/// A session can be taken back to an earlier message.
pub const REVERT: &str = "revert";

/// A message can be kept without work on it, and the work be started apart: the two phases of a delivery.
pub const TWO_PHASES: &str = "two_phases";
