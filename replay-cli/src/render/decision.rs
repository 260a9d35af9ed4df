//! Decisions beside what would be decided: in words, as a table, and as JSON.

use std::fmt::Write as _;

use recount_store::{Class, Event, Position, Recorded, Seq, StreamId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::event::{name, summary};
use super::{Look, text, time};

/// From this width on a table of decisions has times; below, the room is for the decisions.
const TIMES_WIDTH_MIN: usize = 100;

/// The narrowest that a column of decisions is; below, the terminal wraps.
const COLUMN_WIDTH_MIN: usize = 24;

/// An event in a phrase: its name, and what it says.
pub(crate) fn phrase(event: &Event) -> String {
    let phrase = format!("{} {}", name(event), summary(event));
    text::one_line(phrase.trim_end()).into_owned()
}

/// In which way what is recorded is not one of these, which would be there instead.
pub(crate) fn why(recorded: &Recorded, instead: &[Event]) -> String {
    if recorded.class != Class::Decided {
        return "a decision is lacking before it".to_owned();
    }
    if instead.is_empty() {
        return "nothing would be decided there".to_owned();
    }
    let nearest = instead
        .iter()
        .filter_map(|event| fields_that_differ(&recorded.event, event))
        .min_by_key(Vec::len);
    match nearest {
        Some(fields) if fields.is_empty() => {
            "it could be decided, but not with what comes after it".to_owned()
        }
        Some(fields) => fields.join("; "),
        None => "another decision would be made".to_owned(),
    }
}

/// What of an event would be otherwise, field by field; words for people apart. None where the other one is of
/// another type.
pub(crate) fn fields_that_differ(recorded: &Event, other: &Event) -> Option<Vec<String>> {
    let (name, of_recorded) = fields(recorded);
    let (other_name, of_other) = fields(other);
    if name != other_name {
        return None;
    }
    let differ = of_recorded.iter().filter_map(|(field, value)| {
        let would = of_other.get(field)?;
        (field != "reason" && value != would).then(|| {
            let (value, would) = (told(field, value), told(field, would));
            format!("{field} is {value}, and would be {would}")
        })
    });
    Some(differ.collect())
}

/// The type of an event, and its data.
fn fields(event: &Event) -> (String, Map<String, Value>) {
    let Ok(Value::Object(mut tagged)) = serde_json::to_value(event) else {
        return (name(event), Map::new());
    };
    match tagged.remove("data") {
        Some(Value::Object(data)) => (name(event), data),
        _ => (name(event), Map::new()),
    }
}

/// A field for people: a moment as a time.
fn told(field: &str, value: &Value) -> String {
    match (field, value.as_u64()) {
        ("at" | "until" | "next", Some(micros)) => time::rfc3339(recount_store::Timestamp(micros)),
        _ => value.to_string(),
    }
}

/// One decision of the log, and what would be in its place.
#[derive(Debug)]
pub(crate) struct Row {
    /// What the log has.
    pub(crate) recorded: Recorded,
    /// What would be decided instead; none where the same would be.
    pub(crate) would: Option<Vec<Event>>,
}

impl Row {
    /// The row as a line of JSON. `first` says that it is the first that would be another.
    pub(crate) fn json(&self, first: bool) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            position: Position,
            stream: String,
            seq: Seq,
            at: String,
            recorded: &'a Event,
            would: Option<&'a [Event]>,
            why: Option<String>,
            first: bool,
        }
        serde_json::to_string(&Line {
            position: self.recorded.position,
            stream: self.recorded.stream.to_string(),
            seq: self.recorded.seq,
            at: time::rfc3339(self.recorded.at),
            recorded: &self.recorded.event,
            would: self.would.as_deref(),
            why: self.why(),
            first,
        })
    }

    fn why(&self) -> Option<String> {
        let would = self.would.as_ref()?;
        Some(why(&self.recorded, would))
    }
}

/// The rows side by side: what was decided at the left, what would be at the right, each over as many lines as it takes.
pub(crate) fn table(rows: &[Row], right: &str, look: &Look) -> String {
    let times = look.width.is_none_or(|width| width >= TIMES_WIDTH_MIN);
    // The mark, the number, and the time.
    let before = 2 + 6 + if times { 14 } else { 1 };
    let column = look
        .width
        .map(|width| (width.saturating_sub(before + 2) / 2).max(COLUMN_WIDTH_MIN));
    let left_width = column.unwrap_or_else(|| {
        let widths = rows
            .iter()
            .map(|row| text::width(&phrase(&row.recorded.event)));
        widths.max().unwrap_or_default()
    });
    let mut out = look.dim(&format!("{:before$}{:left_width$}  {right}", "", "DECIDED"));
    let mut differs = false;
    for row in rows {
        let would = match row.would.as_deref() {
            None => vec!["the same".to_owned()],
            Some([]) => vec!["nothing".to_owned()],
            Some(events) => wrapped(events.iter().map(phrase), column),
        };
        let left = wrapped([phrase(&row.recorded.event)], column);
        let first = row.would.is_some() && !differs;
        differs |= row.would.is_some();
        for n in 0..left.len().max(would.len()) {
            let empty = String::new();
            let (left, would) = (
                left.get(n).unwrap_or(&empty),
                would.get(n).unwrap_or(&empty),
            );
            let head = if n == 0 {
                head(row, first, times, look)
            } else {
                " ".repeat(before)
            };
            let pad = left_width.saturating_sub(text::width(left));
            let would = match &row.would {
                None => look.dim(would),
                Some(_) if first => look.bold(would),
                Some(_) => look.warn(would),
            };
            let line = format!("{head}{left}{:pad$}  {would}", "");
            let _ = write!(out, "\n{}", line.trim_end());
        }
    }
    out
}

/// What stands before a decision: whether it is the first that would be another, its number, and when it was made.
fn head(row: &Row, first: bool, times: bool, look: &Look) -> String {
    let recorded = &row.recorded;
    let mark = match (&row.would, first) {
        (None, _) => ' ',
        (Some(_), true) => '>',
        (Some(_), false) => '*',
    };
    let number = match recorded.stream {
        StreamId::Session(_) => recorded.seq.to_string(),
        StreamId::Connection(_) | StreamId::Engine => format!("~{}", recorded.seq),
    };
    if times {
        let clock = look.dim(&time::clock(recorded.at, &look.zone));
        format!("{mark} {number:>5} {clock}  ")
    } else {
        format!("{mark} {number:>5}  ")
    }
}

/// Texts in lines of so many columns, one below the other; what goes on is indented.
fn wrapped(texts: impl IntoIterator<Item = String>, column: Option<usize>) -> Vec<String> {
    let mut lines = Vec::new();
    for text in texts {
        match column {
            Some(column) => lines.extend(text::hanging(&text, column)),
            None => lines.push(text),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use recount_store::Timestamp;

    use super::*;
    use crate::render::fixture::{at, connection_event, message, plain, session_event};

    fn retry(attempt: u32, at: Timestamp) -> Event {
        Event::RetryScheduled {
            message: message(),
            attempt,
            at,
        }
    }

    fn given_up(reason: &str) -> Event {
        Event::MessageDeadLettered {
            message: message(),
            reason: reason.to_owned(),
        }
    }

    fn rows() -> Vec<Row> {
        let reconnect = |seconds| Event::ReconnectScheduled {
            attempt: 2,
            at: at(seconds),
        };
        vec![
            Row {
                recorded: session_event(
                    3,
                    Event::TurnRequested {
                        message: message(),
                        run: 1,
                    },
                ),
                would: None,
            },
            Row {
                recorded: session_event(12, retry(2, at(13))),
                would: Some(vec![given_up(
                    "it was refused 2 times, which is as often as it may be",
                )]),
            },
            Row {
                recorded: connection_event(14, reconnect(15)),
                would: Some(vec![reconnect(20)]),
            },
            Row {
                recorded: session_event(15, given_up("no more")),
                would: Some(Vec::new()),
            },
        ]
    }

    #[test]
    fn it_is_said_in_which_way_a_decision_differs() {
        let recorded = session_event(3, retry(2, at(5)));
        let told = |instead: &[Event]| why(&recorded, instead);
        assert_eq!(told(&[]), "nothing would be decided there");
        assert_eq!(told(&[given_up("")]), "another decision would be made");
        assert_eq!(
            told(&[given_up(""), retry(3, at(6)), retry(2, at(6))]),
            "at is 2026-11-22T09:14:08.000000Z, and would be 2026-11-22T09:14:09.000000Z"
        );
        assert_eq!(told(&[retry(3, at(5))]), "attempt is 2, and would be 3");
        assert_eq!(
            told(&[retry(2, at(5))]),
            "it could be decided, but not with what comes after it"
        );
        let observed = session_event(3, Event::SessionClosed);
        assert_eq!(
            why(&observed, &[retry(2, at(5))]),
            "a decision is lacking before it"
        );
    }

    #[test]
    fn decisions_stand_side_by_side_as_wide_as_it_is() {
        let rows = rows();
        let wide = |width| Look { width, ..plain() };
        let mut told = String::new();
        for width in [Some(80), Some(120), None] {
            let table = table(&rows, "UNDER strict.toml", &wide(width));
            let widest = table.lines().map(text::width).max();
            assert!(width.is_none() || widest <= width, "{widest:?}\n{table}");
            told.push_str(&table);
            told.push_str("\n\n");
        }
        expect![[r#"
                     DECIDED                             UNDER strict.toml
                  3  TurnRequested 040g20                the same
            >    12  RetryScheduled 040g20 attempt 2     MessageDeadLettered 040g20: it
                       not before                          was refused 2 times, which is as
                       2026-11-22T09:14:16.000000Z         often as it may be
            *   ~14  ReconnectScheduled try 2 not        ReconnectScheduled try 2 not
                       before                              before
                       2026-11-22T09:14:18.000000Z         2026-11-22T09:14:23.000000Z
            *    15  MessageDeadLettered 040g20: no      nothing
                       more

                                  DECIDED                                           UNDER strict.toml
                  3 09:14:06.000  TurnRequested 040g20                              the same
            >    12 09:14:15.000  RetryScheduled 040g20 attempt 2 not before        MessageDeadLettered 040g20: it was refused 2
                                    2026-11-22T09:14:16.000000Z                       times, which is as often as it may be
            *   ~14 09:14:17.000  ReconnectScheduled try 2 not before               ReconnectScheduled try 2 not before
                                    2026-11-22T09:14:18.000000Z                       2026-11-22T09:14:23.000000Z
            *    15 09:14:18.000  MessageDeadLettered 040g20: no more               nothing

                                  DECIDED                                                                 UNDER strict.toml
                  3 09:14:06.000  TurnRequested 040g20                                                    the same
            >    12 09:14:15.000  RetryScheduled 040g20 attempt 2 not before 2026-11-22T09:14:16.000000Z  MessageDeadLettered 040g20: it was refused 2 times, which is as often as it may be
            *   ~14 09:14:17.000  ReconnectScheduled try 2 not before 2026-11-22T09:14:18.000000Z         ReconnectScheduled try 2 not before 2026-11-22T09:14:23.000000Z
            *    15 09:14:18.000  MessageDeadLettered 040g20: no more                                     nothing

        "#]].assert_eq(&told);
    }

    #[test]
    fn json_has_the_agreed_members() {
        let lines: Vec<_> = rows()
            .iter()
            .enumerate()
            .map(|(n, row)| row.json(n == 1))
            .collect();
        let lines: Result<Vec<_>, _> = lines.into_iter().collect();
        expect![[r#"
            {"position":3,"stream":"session/081040g2081040g2","seq":3,"at":"2026-11-22T09:14:06.000000Z","recorded":{"type":"TurnRequested","data":{"message":"040g2081040g2081","run":1}},"would":null,"why":null,"first":false}
            {"position":12,"stream":"session/081040g2081040g2","seq":12,"at":"2026-11-22T09:14:15.000000Z","recorded":{"type":"RetryScheduled","data":{"message":"040g2081040g2081","attempt":2,"at":1795338856000000}},"would":[{"type":"MessageDeadLettered","data":{"message":"040g2081040g2081","reason":"it was refused 2 times, which is as often as it may be"}}],"why":"another decision would be made","first":true}
            {"position":14,"stream":"connection/0c1g60r30c1g60r3","seq":14,"at":"2026-11-22T09:14:17.000000Z","recorded":{"type":"ReconnectScheduled","data":{"attempt":2,"at":1795338858000000}},"would":[{"type":"ReconnectScheduled","data":{"attempt":2,"at":1795338863000000}}],"why":"at is 2026-11-22T09:14:18.000000Z, and would be 2026-11-22T09:14:23.000000Z","first":false}
            {"position":15,"stream":"session/081040g2081040g2","seq":15,"at":"2026-11-22T09:14:18.000000Z","recorded":{"type":"MessageDeadLettered","data":{"message":"040g2081040g2081","reason":"no more"}},"would":[],"why":"nothing would be decided there","first":false}"#]].assert_eq(&lines.expect("it can be said").join("\n"));
    }
}
