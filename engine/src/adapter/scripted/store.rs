//! What a scripted agent keeps. It outlives its servers, as the real agent's database does.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::agent::Kept;

/// Everything that is kept.
#[derive(Debug, Default)]
pub(super) struct Store {
    sessions: Vec<Session>,
    /// How many sessions it had and lost: their names are never given again.
    forgotten: usize,
    by_id: HashMap<String, usize>,
    /// Which session a message is in; ids are unique over all.
    owners: HashMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct Session {
    number: usize,
    pub(super) id: String,
    pub(super) title: String,
    pub(super) directory: String,
    created: u64,
    /// The number of the next event, from 0, without gaps.
    pub(super) seq: u64,
    ids: u64,
    pub(super) messages: Vec<Message>,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    session: String,
    created: u64,
    pub(super) role: Role,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone)]
pub(super) enum Role {
    User {
        /// How often it was run.
        runs: u32,
    },
    Assistant {
        parent: String,
        completed: Option<u64>,
        finish: Option<&'static str>,
        /// Name and message.
        error: Option<(String, String)>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) body: PartBody,
}

#[derive(Debug, Clone)]
pub(super) enum PartBody {
    /// What the user wrote.
    Prompt(String),
    /// What the agent says or thinks: `text` or `reasoning`. Empty until it has ended.
    Output {
        kind: &'static str,
        text: String,
        start: u64,
        end: Option<u64>,
    },
    /// A tool call; `state` is kept as it is shown.
    Tool {
        name: String,
        call: String,
        state: Value,
    },
}

/// Why a message could not be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its id is used in another session, or by the agent.
    Taken,
}

impl Store {
    pub(super) fn create_session(
        &mut self,
        title: &str,
        directory: &str,
        now: u64,
    ) -> &mut Session {
        let number = self.forgotten + self.sessions.len();
        let id = format!("ses_{number:012x}Scripted000000");
        self.by_id.insert(id.clone(), number);
        self.sessions.push(Session {
            number,
            id,
            title: title.to_owned(),
            directory: directory.to_owned(),
            created: now,
            seq: 0,
            ids: 0,
            messages: Vec::new(),
        });
        let last = self.sessions.len() - 1;
        &mut self.sessions[last]
    }

    /// Copies what stands in a session before the message `before`; everything, where it has no such message or none is
    /// named. `None` where there is no such session.
    pub(super) fn copy_session(
        &mut self,
        id: &str,
        before: Option<&str>,
        directory: &str,
        now: u64,
    ) -> Option<&mut Session> {
        let source = self.session(id)?;
        let mut messages = source.messages.clone();
        let end = messages.iter().position(|m| Some(m.id.as_str()) == before);
        messages.truncate(end.unwrap_or(messages.len()));
        let title = title_of_copy(&source.title);
        let copy = self.create_session(&title, directory, now);
        let number = copy.number;
        let mut names = HashMap::new();
        for message in &mut messages {
            let name = copy.next_id("msg");
            let old = std::mem::replace(&mut message.id, name.clone());
            message.session.clone_from(&copy.id);
            for part in &mut message.parts {
                part.id = copy.next_id("prt");
            }
            match &mut message.role {
                // Its turn was never run here.
                Role::User { runs } => *runs = 0,
                Role::Assistant { parent, .. } => {
                    if let Some(name) = names.get(parent) {
                        parent.clone_from(name);
                    }
                }
            }
            names.insert(old, name);
        }
        copy.messages = messages;
        let owned = names.into_values().map(|name| (name, number));
        self.owners.extend(owned);
        self.sessions.last_mut()
    }

    /// Loses everything.
    pub(super) fn forget(&mut self) {
        self.forgotten += self.sessions.len();
        self.sessions.clear();
        self.by_id.clear();
        self.owners.clear();
    }

    pub(super) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(super) fn session(&self, id: &str) -> Option<&Session> {
        Some(&self.sessions[*self.by_id.get(id)? - self.forgotten])
    }

    pub(super) fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        Some(&mut self.sessions[*self.by_id.get(id)? - self.forgotten])
    }

    /// Keeps a user's message: written over where it exists, its parts by their ids.
    pub(super) fn keep(
        &mut self,
        session: usize,
        id: &str,
        parts: Vec<(Option<String>, String)>,
        now: u64,
    ) -> Result<(), Refused> {
        if *self.owners.entry(id.to_owned()).or_insert(session) != session {
            return Err(Refused::Taken);
        }
        let session = &mut self.sessions[session - self.forgotten];
        let at = session.messages.iter().rposition(|m| m.id == id);
        let at = at.unwrap_or_else(|| {
            session.messages.push(Message {
                id: id.to_owned(),
                session: session.id.clone(),
                created: now,
                role: Role::User { runs: 0 },
                parts: Vec::new(),
            });
            session.messages.len() - 1
        });
        if matches!(session.messages[at].role, Role::Assistant { .. }) {
            return Err(Refused::Taken);
        }
        for (part, text) in parts {
            let part = part.unwrap_or_else(|| session.next_id("prt"));
            let body = PartBody::Prompt(text);
            let parts = &mut session.messages[at].parts;
            match parts.iter_mut().find(|known| known.id == part) {
                Some(known) => known.body = body,
                None => parts.push(Part { id: part, body }),
            }
        }
        Ok(())
    }
}

/// What the copy of a session with this title is called.
pub(super) fn title_of_copy(title: &str) -> String {
    let copied = title.strip_suffix(')');
    let copied = copied.and_then(|title| title.rsplit_once(" (fork #"));
    let copied = copied.and_then(|(title, nth)| Some((title, nth.parse::<u64>().ok()?)));
    let (title, nth) = copied.unwrap_or((title, 0));
    format!("{title} (fork #{})", nth + 1)
}

impl Session {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The next id in this session: the same in every run of a program.
    pub(super) fn next_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!(
            "{prefix}_{:06x}{:06x}Scripted000000",
            self.number + 1,
            self.ids
        )
    }

    /// The event that says how it stands: `session.created`, `session.updated`.
    pub(super) fn told(&self, kind: &'static str) -> Kept {
        let told = json!({"sessionID": self.id, "info": self.info()});
        (kind, told)
    }

    /// Adds an answer, still empty.
    pub(super) fn answer(&mut self, parent: &str, now: u64) -> &Message {
        let id = self.next_id("msg");
        self.messages.push(Message {
            id,
            session: self.id.clone(),
            created: now,
            role: Role::Assistant {
                parent: parent.to_owned(),
                completed: None,
                finish: None,
                error: None,
            },
            parts: Vec::new(),
        });
        &self.messages[self.messages.len() - 1]
    }

    pub(super) fn message(&self, id: &str) -> Option<&Message> {
        // From the newest: that is where one looks.
        self.messages.iter().rev().find(|message| message.id == id)
    }

    pub(super) fn message_mut(&mut self, id: &str) -> Option<&mut Message> {
        self.messages.iter_mut().rev().find(|m| m.id == id)
    }

    /// The newest message of the user's.
    pub(super) fn newest(&self) -> Option<&Message> {
        let users = |message: &&Message| matches!(message.role, Role::User { .. });
        self.messages.iter().rev().find(users)
    }

    /// Whether a message has its whole answer: only then it is not run again. As with the real agent it need not be
    /// known when that ended.
    pub(super) fn answered(&self, id: &str) -> bool {
        self.messages.iter().any(|message| match &message.role {
            Role::Assistant {
                parent,
                finish: Some(finish),
                error: None,
                ..
            } => parent == id && *finish != "tool-calls",
            _ => false,
        })
    }

    pub(super) fn info(&self) -> Value {
        json!({
            "id": self.id, "slug": "scripted", "projectID": "global", "directory": self.directory,
            "title": self.title, "version": super::VERSION,
            "time": {"created": self.created, "updated": self.created},
        })
    }
}

impl Message {
    pub(super) fn info(&self) -> Value {
        match &self.role {
            Role::User { .. } => json!({
                "id": self.id, "role": "user", "sessionID": self.session, "agent": "build",
                "time": {"created": self.created},
            }),
            Role::Assistant {
                parent,
                completed,
                finish,
                error,
            } => {
                let mut info = json!({
                    "id": self.id, "role": "assistant", "sessionID": self.session,
                    "parentID": parent, "time": {"created": self.created},
                });
                if let Some(completed) = completed {
                    info["time"]["completed"] = json!(completed);
                }
                if let Some(finish) = finish {
                    info["finish"] = json!(finish);
                }
                if let Some((name, message)) = error {
                    info["error"] = json!({"name": name, "data": {"message": message}});
                }
                info
            }
        }
    }

    pub(super) fn listed(&self) -> Value {
        let parts: Vec<_> = self.parts.iter().map(|part| self.part(part)).collect();
        json!({"info": self.info(), "parts": parts})
    }

    /// The event that says how it stands.
    pub(super) fn updated(&self) -> Kept {
        let told = json!({"sessionID": self.session, "info": self.info()});
        ("message.updated", told)
    }

    /// The event that says how a part of it stands.
    pub(super) fn part_updated(&self, part: &Part, now: u64) -> Kept {
        let told = json!({"sessionID": self.session, "part": self.part(part), "time": now});
        ("message.part.updated", told)
    }

    fn part(&self, part: &Part) -> Value {
        let mut shown = match &part.body {
            PartBody::Prompt(text) => json!({"type": "text", "text": text}),
            PartBody::Output {
                kind,
                text,
                start,
                end,
            } => {
                let mut shown = json!({"type": kind, "text": text, "time": {"start": start}});
                if let Some(end) = end {
                    shown["time"]["end"] = json!(end);
                }
                shown
            }
            PartBody::Tool { name, call, state } => {
                json!({"type": "tool", "tool": name, "callID": call, "state": state})
            }
        };
        shown["id"] = json!(part.id);
        shown["messageID"] = json!(self.id);
        shown["sessionID"] = json!(self.session);
        shown
    }

    /// What the user wrote, all parts of it.
    pub(super) fn prompt(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match &part.body {
            PartBody::Prompt(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}
