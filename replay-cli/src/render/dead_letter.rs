//! Messages that were given up.

use std::fmt::Write as _;

use recount_engine::DeadLetter;
use recount_store::{MessageId, SessionId};
use serde::Serialize;

use super::{Look, text, time};

/// How many columns of a message's text are shown.
const TEXT_WIDTH: usize = 72;

/// A message that was given up and not queued again.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    session: SessionId,
    message: MessageId,
    key: Option<String>,
    /// None where it was cut off the log.
    text: Option<String>,
    attempts: u32,
    reason: String,
    at: String,
    may_have_arrived: bool,
    /// None where the session is closed, and takes no message.
    requeue_with: Option<String>,
}

impl Row {
    /// The row of a dead letter; whether its session is `closed`.
    pub(crate) fn new(letter: DeadLetter, closed: bool) -> Self {
        let command = requeue_with(letter.message, letter.may_have_arrived);
        Self {
            session: letter.session,
            message: letter.message,
            key: letter.key,
            text: letter.text,
            attempts: letter.attempts,
            reason: letter.reason,
            at: time::rfc3339(letter.at),
            may_have_arrived: letter.may_have_arrived,
            requeue_with: (!closed).then_some(command),
        }
    }

    /// The lines for people.
    pub(crate) fn told(&self, look: &Look) -> String {
        let mut out = format!(
            "{}  session {}, given up at {} after {}\n",
            look.bold(&format!("message {}", self.message)),
            self.session,
            self.at,
            text::count(self.attempts.into(), "attempt"),
        );
        let beginning = match &self.text {
            Some(text) => text::one_line(text.trim()),
            None => "its text was cut off".into(),
        };
        let _ = writeln!(out, "  > {}", text::clip(&beginning, TEXT_WIDTH));
        if let Some(key) = &self.key {
            let _ = writeln!(out, "  key {:?}", text::one_line(key));
        }
        let _ = writeln!(out, "  {}", look.bad(&text::one_line(&self.reason)));
        if self.may_have_arrived {
            let warning =
                "the agent may have it all the same: queued again it may be answered twice";
            let _ = writeln!(out, "  {}", look.warn(warning));
        }
        let closed = "  its session is closed and takes no message";
        match &self.requeue_with {
            Some(command) => out + "    " + command,
            None => out + closed,
        }
    }
}

/// The command that queues a dead letter again.
pub(crate) fn requeue_with(message: MessageId, may_have_arrived: bool) -> String {
    let flag = if may_have_arrived {
        " --even-if-it-may-double"
    } else {
        ""
    };
    format!("recount requeue {message}{flag}")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::fixture;

    #[test]
    fn a_dead_letter_is_told_with_what_there_is_to_know() {
        let letter = DeadLetter {
            session: fixture::session(),
            message: fixture::message(),
            key: Some("build-17".to_owned()),
            text: Some(format!("Why did it fail?\n{}", "And why again? ".repeat(9))),
            attempts: 3,
            reason: "the agent\u{1b}[2J refused it".to_owned(),
            at: fixture::at(7),
            may_have_arrived: true,
        };
        let cut_off = DeadLetter {
            key: None,
            text: None,
            attempts: 1,
            may_have_arrived: false,
            ..letter.clone()
        };
        let told = [Row::new(letter, false), Row::new(cut_off, true)]
            .map(|row| row.told(&fixture::plain()))
            .join("\n");
        expect![[r#"
            message 040g2081040g2081  session 081040g2081040g2, given up at 2026-11-22T09:14:10.000000Z after 3 attempts
              > Why did it fail?\nAnd why again? And why again? And why again? And why …
              key "build-17"
              the agent\u{1b}[2J refused it
              the agent may have it all the same: queued again it may be answered twice
                recount requeue 040g2081040g2081 --even-if-it-may-double
            message 040g2081040g2081  session 081040g2081040g2, given up at 2026-11-22T09:14:10.000000Z after 1 attempt
              > its text was cut off
              the agent\u{1b}[2J refused it
              its session is closed and takes no message"#]].assert_eq(&told);
    }
}
