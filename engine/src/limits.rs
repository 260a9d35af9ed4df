//! Every bound of the engine, each with its reason.

use std::time::Duration;

/// The longest message text, in bytes: agents take seconds over more, and people never write it.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The longest frame of an agent's stream, in bytes: whole texts of a part come as one frame.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// How long a call may take until the first byte of its answer: a request that met a starting server is never answered.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a probe of health may take: a healthy server answers in a millisecond.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// How many observations may wait for one session before its connection's reader waits too.
pub const SESSION_INBOX_MAX: usize = 1024;
