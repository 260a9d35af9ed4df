//! The list of sessions.

use std::fmt::Write as _;

use recount_projections::{Session, Status};
use recount_store::{SessionId, Timestamp};
use serde::Serialize;

use super::{Look, text, time};
use crate::front::Cut;

/// One session in the list.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    session: SessionId,
    status: Status,
    messages: usize,
    events: u64,
    agent: Option<String>,
    directory: Option<String>,
    model: Option<String>,
    title: Option<String>,
    opened_at: Option<String>,
    last_at: String,
    cut: Option<Cut>,
    #[serde(skip)]
    at: Timestamp,
    #[serde(skip)]
    last: String,
}

impl Row {
    /// The row of a session; `last` is the name of its last event, `cut` what it was cut of.
    pub(crate) fn new(id: SessionId, session: &Session, last: String, cut: Option<Cut>) -> Self {
        let opening = session.opening.as_ref();
        Self {
            session: id,
            status: session.status(),
            messages: session.queue.messages().len(),
            events: session.seq.0,
            agent: opening.map(|opening| opening.agent.clone()),
            directory: opening.map(|opening| opening.directory.clone()),
            model: opening.and_then(|opening| opening.model.clone()),
            title: opening.and_then(|opening| opening.title.clone()),
            opened_at: opening.map(|opening| time::rfc3339(opening.at)),
            last_at: time::rfc3339(session.last_at),
            cut,
            at: session.last_at,
            last,
        }
    }
}

/// The rows as a table with aligned columns.
pub(crate) fn table(rows: &[Row], now: Timestamp, look: &Look) -> String {
    const HEAD: [&str; 6] = ["SESSION", "AGENT", "STATE", "MESSAGES", "LAST EVENT", "AGE"];
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let agent = row.agent.as_deref().unwrap_or("?");
            [
                row.session.to_string(),
                text::one_line(agent).into_owned(),
                row.status.name().to_owned(),
                row.messages.to_string(),
                row.last.clone(),
                time::age(row.at, now),
            ]
        })
        .collect();
    let mut widths = HEAD.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let line = |cells: &[String; 6]| {
        let mut line = String::new();
        for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let pad = width - text::width(cell);
            // Numbers stand at the right.
            let (before, after) = if n == 3 { (pad, 0) } else { (0, pad) };
            let _ = write!(line, "{:before$}{cell}{:after$}  ", "", "");
        }
        line.trim_end().to_owned()
    };
    let mut out = look.dim(&line(&HEAD.map(str::to_owned)));
    for (row, cells) in rows.iter().zip(&cells) {
        out.push('\n');
        let mut line = line(cells);
        if let Some(cut) = row.cut {
            let _ = write!(line, "  ({})", cut.told(look));
        }
        out.push_str(&match row.status {
            Status::Busy | Status::Queued => look.good(&line),
            Status::Waiting => look.warn(&line),
            Status::Idle => line,
            Status::Closed => look.dim(&line),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use recount_projections::fold;
    use recount_store::{Recorded, Seq, StreamId};

    use super::*;
    use crate::render::fixture;

    #[test]
    fn a_line_each() {
        let in_session = |event: &Recorded| matches!(event.stream, StreamId::Session(_));
        let mut events = fixture::story();
        events.retain(in_session);
        let row = |session: &Session| {
            Row::new(
                fixture::session(),
                session,
                "TurnInterrupted".to_owned(),
                None,
            )
        };
        let cut = Cut {
            before: Seq(7),
            at: fixture::at(100),
        };
        let rows = [
            row(&fold(&events[..1])),
            row(&fold(&events)),
            Row {
                cut: Some(cut),
                ..row(&Session::default())
            },
        ];
        let table = table(&rows, fixture::at(200), &fixture::plain());
        expect![[r#"
            SESSION           AGENT     STATE    MESSAGES  LAST EVENT       AGE
            081040g2081040g2  opencode  idle            0  TurnInterrupted  3 min ago
            081040g2081040g2  opencode  waiting         1  TurnInterrupted  3 min ago
            081040g2081040g2  ?         idle            0  TurnInterrupted  20779 d ago  (the events before number 7 were cut on 2026-11-22 09:15:43)"#]]
        .assert_eq(&table);
        let json = serde_json::to_string(&rows[1]).expect("it can be said");
        expect![[r#"{"session":"081040g2081040g2","status":"waiting","messages":1,"events":12,"agent":"opencode","directory":"/home/project","model":"test/model","title":null,"opened_at":"2026-11-22T09:14:04.000000Z","last_at":"2026-11-22T09:14:23.000000Z","cut":null}"#]].assert_eq(&json);
    }
}
