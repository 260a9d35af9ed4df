//! Which events say what must not leave.
//!
//! An answer comes in pieces, each an event, and a text may begin in one and end in the next. So answers are put
//! together before they are looked at, and each piece that a match touches is one of these events.

use std::collections::{BTreeSet, HashMap};

use recount_projections::turn::Asks;
use recount_store::{Event, Json, MessageId, Placement, Position, Recorded};
use regex::Regex;
use serde_json::Value;

/// Gathers what a session says, to find what must not leave.
#[derive(Debug)]
pub(crate) struct Redaction<'a> {
    patterns: &'a [Regex],
    found: BTreeSet<Position>,
    parts: HashMap<(MessageId, u32, String), Part>,
}

/// A part of an answer, as far as it has come.
#[derive(Debug, Default)]
struct Part {
    text: Pieces,
    /// What came after a hole, until the hole is closed.
    after_hole: Pieces,
}

/// Texts that follow one another, and the events that said them.
#[derive(Debug, Default)]
struct Pieces {
    text: String,
    /// Where each ends.
    ends: Vec<(usize, Position)>,
}

impl Pieces {
    fn push(&mut self, text: &str, position: Position) {
        self.text.push_str(text);
        self.ends.push((self.text.len(), position));
    }

    fn append(&mut self, after: Self) {
        let before = self.text.len();
        self.text.push_str(&after.text);
        let ends = after.ends.into_iter();
        self.ends
            .extend(ends.map(|(end, position)| (before + end, position)));
    }

    /// The events that say a part of what a pattern matches.
    fn touched<'a>(&'a self, patterns: &'a [Regex]) -> impl Iterator<Item = Position> + 'a {
        let matches = patterns
            .iter()
            .flat_map(|pattern| pattern.find_iter(&self.text));
        matches.flat_map(|found| {
            let begin = self.ends.partition_point(|(end, _)| *end <= found.start());
            self.ends[begin..]
                .iter()
                .scan(false, move |over, (end, position)| {
                    let seen = std::mem::replace(over, *end >= found.end());
                    (!seen).then_some(*position)
                })
        })
    }
}

impl<'a> Redaction<'a> {
    /// Looks for these.
    pub(crate) fn of(patterns: &'a [Regex]) -> Self {
        Self {
            patterns,
            found: BTreeSet::new(),
            parts: HashMap::new(),
        }
    }

    /// Looks at an event. They come in the order of the log.
    pub(crate) fn look(&mut self, recorded: &Recorded) {
        if self.patterns.is_empty() {
            return;
        }
        if texts(&recorded.event)
            .iter()
            .any(|text| self.patterns.iter().any(|pattern| pattern.is_match(text)))
        {
            self.found.insert(recorded.position);
        }
        if let Event::OutputAppended {
            message,
            run,
            part,
            placement,
            text,
            ..
        } = &recorded.event
        {
            let part = self
                .parts
                .entry((*message, *run, part.clone()))
                .or_default();
            match placement {
                Placement::End => part.text.push(text, recorded.position),
                Placement::AfterHole => part.after_hole.push(text, recorded.position),
                Placement::IntoHole => {
                    part.text.push(text, recorded.position);
                    part.text.append(std::mem::take(&mut part.after_hole));
                }
            }
        }
    }

    /// The positions of all events that say what must not leave.
    pub(crate) fn finish(mut self) -> BTreeSet<Position> {
        for part in self.parts.values() {
            self.found.extend(part.text.touched(self.patterns));
            self.found.extend(part.after_hole.touched(self.patterns));
        }
        self.found
    }
}

/// All that an event says, as it says it and as its JSON does.
fn texts(event: &Event) -> Vec<String> {
    let mut found = Vec::new();
    match event {
        Event::Unknown { payload, .. } => found.push(String::from_utf8_lossy(payload).into_owned()),
        // As a person reads it, too.
        Event::PermissionAsked { action, detail, .. } => {
            let (action, detail) = (action.clone(), detail.clone());
            found.push(Asks::Permission { action, detail }.to_string());
        }
        Event::ToolCallStarted {
            input: Json(input), ..
        } => found.push(String::from_utf8_lossy(input).into_owned()),
        _ => {}
    }
    if let Ok(json) = serde_json::to_value(event) {
        found.push(json["data"].to_string());
        gather(&json["data"], &mut found);
    }
    found
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| gather(value, found)),
        Value::Object(members) => {
            for (name, value) in members {
                found.push(name.clone());
                gather(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{OutputKind, SessionId};

    use super::*;
    use crate::render::fixture::{message, session_event};

    fn said(part: &str, placement: Placement, text: &str) -> Event {
        Event::OutputAppended {
            message: message(),
            run: 1,
            part: part.to_owned(),
            kind: OutputKind::Text,
            placement,
            text: text.to_owned(),
        }
    }

    fn found(patterns: &[&str], events: Vec<Event>) -> Vec<u64> {
        let patterns: Vec<Regex> = patterns
            .iter()
            .map(|text| Regex::new(text).expect("a pattern"))
            .collect();
        let mut redaction = Redaction::of(&patterns);
        for (n, event) in (1..).zip(events) {
            redaction.look(&session_event(n, event));
        }
        redaction
            .finish()
            .into_iter()
            .map(|position| position.0)
            .collect()
    }

    #[test]
    fn a_text_is_found_across_the_pieces_that_it_came_in() {
        let answer = || {
            vec![
                said("a", Placement::End, "the key is s"),
                said("b", Placement::End, "and nothing of this"),
                said("a", Placement::End, "k-"),
                said("a", Placement::End, "12"),
                said("a", Placement::End, ", keep it"),
            ]
        };
        assert_eq!(found(&["sk-[0-9]+"], answer()), [1, 3, 4]);
        assert_eq!(found(&["keep", "noth"], answer()), [2, 5]);
        assert_eq!(found(&["absent"], answer()), [0; 0]);
        assert_eq!(found(&[], answer()), [0; 0]);
    }

    #[test]
    fn a_text_is_found_where_a_hole_was_closed() {
        let answer = vec![
            said("a", Placement::End, "the key is s"),
            said("a", Placement::AfterHole, "12, keep it"),
            said("a", Placement::IntoHole, "k-"),
        ];
        assert_eq!(found(&["sk-[0-9]+"], answer), [1, 2, 3]);
    }

    #[test]
    fn a_text_is_found_wherever_an_event_says_it() {
        let tool = |input: &str| Event::ToolCallStarted {
            message: message(),
            run: 1,
            call: "call".to_owned(),
            tool: "bash".to_owned(),
            input: Json(input.as_bytes().to_vec()),
        };
        let events = || {
            vec![
                tool("{\"a\": [{\"b\": \"line\\n\\u0073ecret\"}]}"),
                tool("{\"secret\": 1}"),
                tool("{\"cut off: secr"),
                Event::Unknown {
                    type_number: 65_000,
                    type_version: 1,
                    payload: b"\x06\0\0secret".to_vec(),
                },
                Event::AgentSessionLost {
                    agent_session: SessionId::from_bytes([1; 10]).to_string(),
                },
            ]
        };
        assert_eq!(found(&["secret"], events()), [1, 2, 4]);
        assert_eq!(found(&["secr"], events()), [1, 2, 3, 4]);
        assert_eq!(found(&["line\nsecret"], events()), [1]);
    }
}
