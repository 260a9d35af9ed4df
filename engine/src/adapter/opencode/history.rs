//! A session's messages as a server lists them, and which of them belong to one of ours.

use std::ops::Range;

use super::calls::{Calls, parse};
use super::wire::{Listed, Meaning, Part, Role};
use crate::adapter::{AgentSession, Answer, AnswerItem, CallError, Endpoint, ReportedAnswer};

/// How many messages are asked for at once: a page with long texts stays well under the bound of a response.
const PAGE: &str = "20";

/// How many pages are read back at most; 2,000 messages.
const PAGES_MAX: usize = 100;

/// The messages of one session.
#[derive(Clone, Copy)]
pub(super) struct History<'a> {
    pub(super) calls: &'a Calls,
    pub(super) endpoint: &'a Endpoint,
    pub(super) session: &'a AgentSession,
}

/// Some messages, oldest first, and where those before them are.
pub(super) struct Page {
    pub(super) messages: Vec<Message>,
    pub(super) before: Option<String>,
}

impl History<'_> {
    /// The newest messages, back to where they are `enough` or there are no more: 2,000 at most.
    pub(super) async fn back(
        self,
        enough: impl Fn(&[Message]) -> bool + Send + Sync,
    ) -> Result<Page, CallError> {
        let mut read = self.page(None).await?;
        for _ in 1..PAGES_MAX {
            let Some(before) = read.before.as_deref().filter(|_| !enough(&read.messages)) else {
                break;
            };
            let mut page = self.page(Some(before)).await?;
            page.messages.append(&mut read.messages);
            read = page;
        }
        Ok(read)
    }

    /// A page of messages: the newest ones, or those that `before` points at.
    pub(super) async fn page(self, before: Option<&str>) -> Result<Page, CallError> {
        let mut query = vec![
            ("directory", self.session.directory.as_str()),
            ("limit", PAGE),
        ];
        query.extend(before.map(|before| ("before", before)));
        let path = ["session", &self.session.id, "message"];
        let reply = self.calls.get(self.endpoint, &path, &query).await?;
        let reply = reply.accept().await?;
        let before = reply.next_cursor();
        let (asked, body) = reply.body().await?;
        let messages: Vec<Listed<'_>> = parse(&asked, &body)?;
        Ok(Page {
            messages: messages.into_iter().map(Message::of).collect(),
            before,
        })
    }
}

/// A message in our words.
#[derive(Debug, Clone)]
pub(super) enum Message {
    User {
        id: String,
        /// What the user wrote in it.
        text: String,
        origin: Origin,
    },
    Assistant(ReportedAnswer),
}

/// Who wrote a message that stands in the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The user, as far as the message says.
    User,
    /// The agent, which compacts its context.
    Compaction,
    /// The agent, which tells itself to go on.
    GoOn,
}

impl Message {
    pub(super) fn of(listed: Listed<'_>) -> Self {
        let Listed { info, parts } = listed;
        match info.role {
            Role::User => {
                let origin = if parts
                    .iter()
                    .any(|part| part.kind == "compaction" && part.auto)
                {
                    Origin::Compaction
                } else if !parts.is_empty() && parts.iter().all(|part| part.synthetic) {
                    Origin::GoOn
                } else {
                    Origin::User
                };
                let texts = parts.into_iter().filter(|part| !part.synthetic);
                Self::User {
                    id: info.id,
                    text: texts.map(|part| part.text).collect(),
                    origin,
                }
            }
            Role::Assistant => Self::Assistant(ReportedAnswer {
                answer: Answer::from(info),
                refused: parts.iter().any(Part::is_refused),
                items: parts
                    .into_iter()
                    .filter_map(|part| match part.meaning() {
                        Meaning::Item(item) => Some(item),
                        Meaning::Nothing | Meaning::Unknown => None,
                    })
                    .collect::<Vec<AnswerItem>>(),
            }),
        }
    }

    /// The id of a message that stands in the user's name.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::User { id, .. } => Some(id),
            Self::Assistant(_) => None,
        }
    }
}

/// Where the message `id` stands among `messages`, oldest first, with what follows it up to the next message that is
/// not the agent's own; `None` where it is not among them.
///
/// The agent's own messages belong to ours as long as nobody else's came between: it writes them
/// while it works on ours, and the answer to ours may hang on them. Seen: a compaction, followed by
/// "Continue if you have next steps…", or, where the context was too long for ours, by our own
/// message once more under another id.
pub(super) fn turn(messages: &[Message], id: &str) -> Option<Range<usize>> {
    let (at, ours) = messages
        .iter()
        .enumerate()
        .find_map(|(at, message)| match message {
            Message::User { id: user, text, .. } if user == id => Some((at, text)),
            _ => None,
        })?;
    let mut compacted = false;
    let next = messages[at + 1..].iter().position(|message| {
        let Message::User { text, origin, .. } = message else {
            return false;
        };
        let by_agent = *origin != Origin::User || (compacted && text == ours);
        compacted = *origin == Origin::Compaction;
        !by_agent
    });
    let end = next.map_or(messages.len(), |next| at + 1 + next);
    Some(at..end)
}

/// The answers among `messages` to those of `turn`, with where they stand: also those that came after it.
pub(super) fn answers<'a>(
    messages: &'a [Message],
    turn: &Range<usize>,
) -> impl Iterator<Item = (usize, &'a ReportedAnswer)> {
    let parents = messages[turn.clone()].iter().filter_map(Message::user);
    let parents: Vec<&str> = parents.collect();
    let after = messages.iter().enumerate().skip(turn.start);
    after.filter_map(move |(at, message)| match message {
        Message::Assistant(answer) if parents.contains(&answer.answer.parent.as_str()) => {
            Some((at, answer))
        }
        _ => None,
    })
}
