//! Looking up what a server knows of a message, without being fooled by what happens meanwhile.
//!
//! The parts of a look are read one after the other, and a turn may begin or end between them:
//!
//! - The status is read first. Read last, it could say "idle" of a turn that ended after its messages
//!   were read, and the report would show an interrupted turn that was none. Read first, a stale
//!   "busy" is the worst, and the event of the end is then still to come.
//! - Idle and unfinished is looked at again after a moment. Seen: the status becomes busy up to 60 ms
//!   after a prompt's 204, and an aborted or failed turn is idle before its answer is completed.

use std::collections::HashSet;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::calls::{Calls, Reply};
use super::history::{self, History, Message};
use super::wire::{AskedIn, PermissionAsked, QuestionAsked, SessionInfo, Statuses};
use crate::adapter::{
    Activity, AgentSession, Answer, CallError, Endpoint, Permission, Question, Report,
    ReportedAnswer,
};

/// How long to wait before each further look at a turn that seems idle and unfinished.
const LOOK_AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(150)];

#[cfg(test)]
pub(super) async fn stored(
    calls: &Calls,
    endpoint: &Endpoint,
    session: &AgentSession,
    agent_message: &str,
) -> Result<bool, CallError> {
    let look = Look {
        calls,
        endpoint,
        session,
        agent_message,
    };
    look.stored().await
}

/// Looks up everything that the server knows of a message.
pub(super) async fn look_up(
    calls: &Calls,
    endpoint: &Endpoint,
    session: &AgentSession,
    agent_message: &str,
) -> Result<Report, CallError> {
    let look = Look {
        calls,
        endpoint,
        session,
        agent_message,
    };
    let mut report = look.once().await?;
    for wait in LOOK_AGAIN_AFTER {
        let known = report.went_on || finished(&report.answers);
        if !report.stored || report.activity != Activity::Idle || known {
            break;
        }
        tokio::time::sleep(wait).await;
        report = look.once().await?;
        // Nothing at all after a moment: it was kept and never begun.
        if report.answers.is_empty() {
            break;
        }
    }
    if report.activity == Activity::Idle {
        close(&mut report.answers);
    }
    Ok(report)
}

/// Whether the last answer is the end of a turn: completed, and not for the sake of a tool.
fn finished(answers: &[ReportedAnswer]) -> bool {
    answers.last().is_some_and(|last| {
        let answer = &last.answer;
        answer.completed && (is_final(answer) || answer.error.is_some() || last.refused)
    })
}

/// Whether the model's word for how it ended an answer says that nothing follows.
fn is_final(answer: &Answer) -> bool {
    !matches!(
        answer.finish.as_deref(),
        None | Some("tool-calls" | "unknown")
    )
}

/// Takes the last answer of an agent that rests for completed where it says how it ended.
///
/// 1.18.33 keeps how an answer ended a moment before it keeps that it did. A server that is killed between the two leaves
/// a whole answer with no time of its end, and so it stays: the next one takes the message for answered, and asked to work
/// on it says 204 and does nothing (seen, and made again by taking the time out of its database).
fn close(answers: &mut [ReportedAnswer]) {
    if let Some(last) = answers.last_mut() {
        last.answer.completed |= is_final(&last.answer);
    }
}

#[derive(Clone, Copy)]
struct Look<'a> {
    calls: &'a Calls,
    endpoint: &'a Endpoint,
    session: &'a AgentSession,
    agent_message: &'a str,
}

impl Look<'_> {
    async fn once(self) -> Result<Report, CallError> {
        let mut statuses: Statuses = self.get(&["session", "status"]).await?.json().await?;
        let activity = statuses
            .remove(&self.session.id)
            .map_or(Activity::Idle, Activity::from);
        let messages = self.messages().await?;
        let permissions = self.asked::<PermissionAsked>("permission").await?;
        let questions = self.asked::<QuestionAsked>("question").await?;
        Ok(Report {
            stored: messages.is_some(),
            newest: messages.as_ref().is_some_and(|found| found.newest),
            went_on: messages.as_ref().is_some_and(|found| found.went_on),
            activity,
            answers: messages.map(|found| found.answers).unwrap_or_default(),
            permissions: permissions.into_iter().map(Permission::from).collect(),
            questions: questions.into_iter().map(Question::from).collect(),
        })
    }

    async fn get(self, path: &[&str]) -> Result<Reply, CallError> {
        let query = [("directory", self.session.directory.as_str())];
        self.calls
            .get(self.endpoint, path, &query)
            .await?
            .accept()
            .await
    }

    /// Our message and what came after it; `None` where the server does not hold it.
    async fn messages(self) -> Result<Option<Found>, CallError> {
        let history = History {
            calls: self.calls,
            endpoint: self.endpoint,
            session: self.session,
        };
        let first = history.page(None).await?;
        if let Some(found) = Found::of(&first.messages, self.agent_message) {
            return Ok(Some(found));
        }
        if first.before.is_none() || !self.stored().await? {
            return Ok(None);
        }
        // It is further back. From the newest again, since one may have come meanwhile.
        let id = self.agent_message;
        let enough = |read: &[Message]| history::turn(read, id).is_some();
        let messages = history.back(enough).await?.messages;
        let lost = || CallError::Unknown {
            reason: format!(
                "GET /session/{}/message: {id} is kept, but not among the last {} messages",
                self.session.id,
                messages.len()
            ),
        };
        Found::of(&messages, id).ok_or_else(lost).map(Some)
    }

    /// Whether the server holds our message, wherever it is among the others.
    async fn stored(self) -> Result<bool, CallError> {
        let path = ["session", &self.session.id, "message", self.agent_message];
        let query = [("directory", self.session.directory.as_str())];
        let reply = self.calls.get(self.endpoint, &path, &query).await?;
        if reply.says_missing() {
            return Ok(false);
        }
        reply.accept().await?.body().await.map(|_| true)
    }

    /// What is asked, of this kind, in this session and its children.
    async fn asked<T: AskedIn + DeserializeOwned>(self, kind: &str) -> Result<Vec<T>, CallError> {
        let query = [("directory", self.session.directory.as_str())];
        let reply = self.calls.get(self.endpoint, &[kind], &query).await?;
        if reply.says_missing() {
            // A server that does not know the kind asks nothing of it.
            return Ok(Vec::new());
        }
        let mut asked: Vec<T> = reply.accept().await?.json().await?;
        if asked.iter().any(|asked| asked.session() != self.session.id) {
            let path = ["session", &self.session.id, "children"];
            let children: Vec<SessionInfo> = self.get(&path).await?.json().await?;
            let children: HashSet<String> = children.into_iter().map(|child| child.id).collect();
            asked.retain(|asked| {
                asked.session() == self.session.id || children.contains(asked.session())
            });
        }
        Ok(asked)
    }
}

/// What the list of messages says of one of them.
#[derive(Debug, PartialEq)]
struct Found {
    newest: bool,
    /// Whether a newer message of somebody's is being answered, or was.
    went_on: bool,
    answers: Vec<ReportedAnswer>,
}

impl Found {
    /// What `messages`, oldest first and up to the newest, say of the message `id`; `None` where it is not among them.
    fn of(messages: &[Message], id: &str) -> Option<Self> {
        let turn = history::turn(messages, id)?;
        let newer = messages[turn.end..].iter().filter_map(Message::user);
        let newer: HashSet<&str> = newer.collect();
        let went_on = messages[turn.end..].iter().any(|message| match message {
            Message::Assistant(answer) => newer.contains(answer.answer.parent.as_str()),
            Message::User { .. } => false,
        });
        let answers = history::answers(messages, &turn);
        Some(Self {
            newest: newer.is_empty(),
            went_on,
            answers: answers.map(|(_, answer)| answer.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as they are listed: `u` a user's, `c` a compaction of the agent's, `g` its "go on",
    /// `r` the text of `u1` again, `m` a compaction that a person wanted, `ID<PARENT` an answer.
    fn list(listed: &str) -> Vec<Message> {
        let message = |word: &str| {
            let (id, role) = match word.split_once('<') {
                Some((id, parent)) => (id, format!(r#""role":"assistant","parentID":"{parent}""#)),
                None => (word, r#""role":"user""#.to_owned()),
            };
            let part = match &word[..1] {
                "c" => r#""type":"compaction","auto":true"#,
                "m" => r#""type":"compaction","auto":false"#,
                "g" => r#""type":"text","text":"Continue","synthetic":true,"time":{"start":1}"#,
                "r" => r#""type":"text","text":"u1""#,
                _ => &format!(r#""type":"text","text":"{id}""#),
            };
            let json = format!(r#"{{"info":{{"id":"{id}",{role}}},"parts":[{{{part}}}]}}"#);
            Message::of(serde_json::from_str(&json).expect("a listed message"))
        };
        listed.split_whitespace().map(message).collect()
    }

    /// Whether a message is the newest, and its answers.
    fn found(listed: &str, id: &str) -> Option<(bool, Vec<String>)> {
        let found = Found::of(&list(listed), id)?;
        let answers = found.answers.into_iter().map(|answer| answer.answer.id);
        Some((found.newest, answers.collect()))
    }

    #[test]
    fn answers_hang_on_the_message_or_on_what_the_agent_wrote_while_it_worked_on_it() {
        let answers =
            |newest, ids: &[&str]| Some((newest, ids.iter().map(|&id| id.to_owned()).collect()));
        assert_eq!(found("u1 a1<u1", "u2"), None);
        assert_eq!(found("u1", "u1"), answers(true, &[]));
        assert_eq!(found("u1 a1<u1 a2<u1", "u1"), answers(true, &["a1", "a2"]));
        assert_eq!(found("u1 a1<u1 u2 a2<u2", "u1"), answers(false, &["a1"]));
        assert_eq!(found("u1 a1<u1 u2 a2<u2", "u2"), answers(true, &["a2"]));
        // Run again behind a newer one: the answer is ours, though the message is not the newest.
        assert_eq!(
            found("u1 a1<u1 u2 a2<u2 a3<u1", "u1"),
            answers(false, &["a1", "a3"])
        );
        let compacted = "u1 a1<u1 c1 a2<c1 g1 a3<g1";
        assert_eq!(found(compacted, "u1"), answers(true, &["a1", "a2", "a3"]));
        let overflown = "u1 a1<u1 c1 a2<c1 r1 a3<r1";
        assert_eq!(found(overflown, "u1"), answers(true, &["a1", "a2", "a3"]));
        // The same words again, with no compaction before them, are a message of their own.
        assert_eq!(found("u1 a1<u1 r1 a2<r1", "u1"), answers(false, &["a1"]));
        assert_eq!(found("u1 c1 a1<c1 u2 a2<u2", "u1"), answers(false, &["a1"]));
        // What follows somebody else's message belongs to that one.
        assert_eq!(found("u1 a1<u1 u2 c1 a2<c1", "u1"), answers(false, &["a1"]));
        assert_eq!(found("u1 a1<u1 m1 a2<m1", "u1"), answers(false, &["a1"]));
    }

    #[test]
    fn an_answer_that_says_how_it_ended_has_ended_where_the_agent_rests() {
        let closed = |info: &str| {
            let json = format!(r#"{{"info":{{"id":"a","role":"assistant",{info}}}}}"#);
            match Message::of(serde_json::from_str(&json).expect("a listed message")) {
                Message::Assistant(answer) => {
                    let mut answers = [answer];
                    close(&mut answers);
                    let [answer] = answers;
                    answer.answer.completed
                }
                Message::User { .. } => unreachable!(),
            }
        };
        let begun = r#""time":{"created":1}"#;
        assert!(closed(&format!(r#"{begun},"finish":"stop""#)));
        assert!(closed(&format!(r#"{begun},"finish":"length""#)));
        // Another answer was to follow, or it was never ended.
        assert!(!closed(&format!(r#"{begun},"finish":"tool-calls""#)));
        assert!(!closed(begun));
        assert!(closed(r#""time":{"created":1,"completed":2}"#));
    }

    #[test]
    fn a_turn_is_finished_by_an_answer_that_is_not_for_a_tool() {
        let finished = |info: &str| {
            let json = format!(r#"{{"info":{{"id":"a","role":"assistant",{info}}}}}"#);
            match Message::of(serde_json::from_str(&json).expect("a listed message")) {
                Message::Assistant(answer) => finished(&[answer]),
                Message::User { .. } => unreachable!(),
            }
        };
        let ended = r#""time":{"created":1,"completed":2}"#;
        assert!(finished(&format!(r#"{ended},"finish":"stop""#)));
        assert!(finished(&format!(r#"{ended},"error":{{"name":"E"}}"#)));
        assert!(!finished(&format!(r#"{ended},"finish":"tool-calls""#)));
        let refused = |error: &str| {
            let part = format!(
                r#"{{"type":"tool","callID":"c","tool":"bash","state":{{"status":"error","input":{{}},"error":"{error}"}}}}"#
            );
            let json = format!(
                r#"{{"info":{{"id":"a","role":"assistant",{ended},"finish":"tool-calls"}},"parts":[{part}]}}"#
            );
            match Message::of(serde_json::from_str(&json).expect("a listed message")) {
                Message::Assistant(answer) => super::finished(&[answer]),
                Message::User { .. } => unreachable!(),
            }
        };
        let text = "The user rejected permission to use this specific tool call";
        assert!(refused(&format!("{text}.")));
        assert!(refused("The user dismissed this question"));
        // With advice it goes on.
        assert!(!refused(&format!("{text} with the following feedback: no")));
        assert!(!refused("no such file"));
        // Aborted while it waited to try again: neither.
        assert!(!finished(ended));
        assert!(!finished(r#""time":{"created":1}"#));
    }
}
