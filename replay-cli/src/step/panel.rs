//! What stands beside the timeline: the state at the cursor, and the event there, as lines.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use recount_projections::breaker;
use recount_projections::turn::{CallOutcome, Item, Turn, TurnState};
use recount_projections::{Message, MessageState, Session};
use recount_store::{Recorded, Timestamp};

use super::moments::Moment;
use crate::render::event::{self, Weight};
use crate::render::{text, time};

/// No part of an answer is shown with more bytes of its end, nor a message with more of its beginning: more than
/// any screen holds.
const TEXT_MAX: usize = 16 << 10;

/// A message is told in so many lines.
const MESSAGE_LINES_MAX: usize = 3;

/// How lines of this weight look.
pub(super) fn style(weight: Weight, colour: bool) -> Style {
    let painted = match weight {
        Weight::Plain => return Style::new(),
        Weight::Good => Style::new().fg(Color::Green),
        Weight::Warning => Style::new().fg(Color::Yellow),
        Weight::Bad => Style::new().fg(Color::Red),
    };
    if colour { painted } else { Style::new() }
}

/// How lines are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paper<'a> {
    /// How many columns a line has.
    pub(super) width: usize,
    /// Whether colours may be used.
    pub(super) colour: bool,
    /// In which zone times are told.
    pub(super) zone: &'a jiff::tz::TimeZone,
}

impl Paper<'_> {
    fn line(&self, weight: Weight, says: &str) -> Line<'static> {
        let says = text::clip(&text::one_line(says), self.width).into_owned();
        Line::styled(says, style(weight, self.colour))
    }

    fn field(&self, name: &str, weight: Weight, says: &str) -> Line<'static> {
        let says = format!("{name:<11}{says}");
        self.line(weight, &says)
    }

    /// The text in lines as wide as the paper, each behind an indent.
    fn wrapped(&self, says: &str, indent: &str, style: Style) -> Vec<Line<'static>> {
        let width = self.width.saturating_sub(text::width(indent)).max(1);
        text::lines(says)
            .lines()
            .flat_map(|line| text::wrapped(line, width))
            .map(|line| {
                Line::from(vec![
                    Span::raw(indent.to_owned()),
                    Span::styled(line, style),
                ])
            })
            .collect()
    }
}

/// The state: what stands fast, and what may be too long, of which the end counts.
pub(super) fn state(
    moment: &Moment,
    now: Timestamp,
    paper: Paper<'_>,
) -> (Vec<Line<'static>>, Vec<Line<'static>>) {
    let session = &moment.session;
    let mut lines = Vec::new();
    if let Some(opening) = &session.opening {
        let model = opening.model.as_ref().map(|model| format!(" with {model}"));
        let says = format!(
            "{} in {}{}",
            opening.agent,
            opening.directory,
            model.unwrap_or_default()
        );
        lines.push(paper.field("agent", Weight::Plain, &says));
    }
    lines.push(paper.field("messages", Weight::Plain, &messages(session)));
    lines.extend(link(moment, now, paper));
    let head = session.head().map(|(message, _)| message);
    let last = || {
        let turn = session.turn.as_ref()?;
        session.queue.get(turn.message)
    };
    let Some(message) = head.or_else(last) else {
        return (lines, Vec::new());
    };
    lines.push(Line::default());
    lines.extend(message_lines(message, paper));
    let mut said = Vec::new();
    if let Some(turn) = session.turn_of(message.id) {
        lines.extend(turn_lines(turn, now, paper));
        for item in &turn.run().items {
            said.extend(item_lines(item, paper));
        }
    }
    (lines, said)
}

/// How many messages there are, by where they stand.
fn messages(session: &Session) -> String {
    let mut counts: Vec<(MessageState, u64)> = Vec::new();
    for message in session.queue.messages() {
        match counts.iter_mut().find(|(state, _)| *state == message.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((message.state, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(state, count)| format!("{count} {}", word(*state)))
        .collect();
    if counts.is_empty() {
        return "none yet".to_owned();
    }
    counts.join(", ")
}

const fn word(state: MessageState) -> &'static str {
    match state {
        MessageState::DeadLettered => "dead-lettered",
        state => state.name(),
    }
}

fn link(moment: &Moment, now: Timestamp, paper: Paper<'_>) -> Vec<Line<'static>> {
    let connection = &moment.connection;
    let mut says = event::connection_state(connection.state).to_owned();
    if connection.since != Timestamp::default() {
        says = format!("{says} for {}", time::span(now.since(connection.since)));
    }
    if connection.failures > 0 {
        says = format!("{says}, try {}", connection.attempt());
    }
    let mut lines = vec![paper.field("connection", Weight::Plain, &says)];
    if let Some(ready) = &connection.ready {
        let says = format!("{} version {}", ready.url, ready.version);
        lines.push(paper.field("server", Weight::Plain, &says));
    }
    let full = |at| time::full(at, paper.zone);
    match moment.breaker.state {
        breaker::State::Closed => {}
        breaker::State::Open { until } => {
            let says = format!("open until {}", full(until));
            lines.push(paper.field("breaker", Weight::Bad, &says));
        }
        breaker::State::HalfOpen => {
            lines.push(paper.field("breaker", Weight::Warning, "half open"));
        }
    }
    if let Some(error) = &connection.last_error {
        lines.push(paper.field("last error", Weight::Warning, error));
    }
    if let Some(next) = connection.next_try {
        let says = format!("not before {}", full(next));
        lines.push(paper.field("next try", Weight::Plain, &says));
    }
    lines
}

fn message_lines(message: &Message, paper: Paper<'_>) -> Vec<Line<'static>> {
    let weight = match message.state {
        MessageState::Completed => Weight::Good,
        MessageState::Failed | MessageState::DeadLettered => Weight::Bad,
        MessageState::Aborted
        | MessageState::Cancelled
        | MessageState::Waiting
        | MessageState::Interrupted
        | MessageState::Unknown
        | MessageState::Refused => Weight::Warning,
        _ => Weight::Plain,
    };
    let attempts = text::count(u64::from(message.attempts), "attempt");
    let says = format!("{}, {attempts}", word(message.state));
    let name = format!("message {}", event::short(message.id));
    let mut lines = vec![Line::from(vec![
        Span::styled(name, Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("  "),
        Span::styled(says, style(weight, paper.colour)),
    ])];
    if let Some(words) = &message.text {
        let words = paper.wrapped(beginning(words), "  > ", Style::new());
        let more = words.len() > MESSAGE_LINES_MAX;
        lines.extend(words.into_iter().take(MESSAGE_LINES_MAX));
        if more {
            lines.push(paper.line(Weight::Plain, "  > …"));
        }
    }
    if let Some(reason) = &message.reason {
        lines.push(paper.line(Weight::Warning, &format!("  {reason}")));
    }
    if let Some(at) = message.retry_at {
        let says = format!("  next attempt not before {}", time::full(at, paper.zone));
        lines.push(paper.line(Weight::Plain, &says));
    }
    lines
}

fn turn_lines(turn: &Turn, now: Timestamp, paper: Paper<'_>) -> Vec<Line<'static>> {
    let (weight, state) = match turn.state {
        TurnState::Requested => (Weight::Plain, "the agent is asked to begin"),
        TurnState::Running => (Weight::Plain, "the agent works on it"),
        TurnState::Interrupted => (Weight::Warning, "the agent died in it"),
        TurnState::Waiting => (
            Weight::Warning,
            "the agent died in it, and a person has to say what comes next",
        ),
        TurnState::Completed => (Weight::Good, "completed"),
        TurnState::Failed => (Weight::Bad, "failed"),
        TurnState::Aborted => (Weight::Warning, "aborted"),
    };
    let ended = matches!(
        turn.state,
        TurnState::Completed | TurnState::Failed | TurnState::Aborted
    );
    let since = if ended {
        String::new()
    } else {
        format!(", after {}", time::span(now.since(turn.begun_at)))
    };
    let run = match turn.run().number {
        1 => String::new(),
        run => format!(", run {run}"),
    };
    let mut lines = vec![paper.line(weight, &format!("  = {state}{run}{since}"))];
    let mut say = |what: &str, says: &str| {
        lines.push(paper.line(Weight::Warning, &format!("    {what}: {says}")));
    };
    if let Some(stalled) = &turn.stalled {
        say("stalled", stalled);
    }
    if let Some(error) = &turn.agent_error {
        say("its error", error);
    }
    if turn.state == TurnState::Failed
        && let Some(ending) = &turn.ending
    {
        say("since", ending);
    }
    for question in turn.open_questions() {
        say("it asks", &question.asks.to_string());
    }
    lines
}

fn item_lines(item: &Item, paper: Paper<'_>) -> Vec<Line<'static>> {
    let dim = Style::new().add_modifier(Modifier::DIM);
    match item {
        Item::Part(part) => {
            let (indent, style) = if part.reasoning {
                ("  ~ ", dim)
            } else {
                ("  ", Style::new())
            };
            let mut lines = paper.wrapped(end(&part.text), indent, style);
            if !part.after_hole.is_empty() {
                lines.push(paper.line(Weight::Warning, "  [something is missing here]"));
                lines.extend(paper.wrapped(end(&part.after_hole), indent, style));
            }
            lines
        }
        Item::Call(call) => {
            let (weight, outcome) = match call.outcome {
                Some((CallOutcome::Completed, _)) => (Weight::Good, "completed"),
                Some((CallOutcome::Failed, _)) => (Weight::Bad, "failed"),
                Some((CallOutcome::Lost, _)) => (Weight::Warning, "lost"),
                None => (Weight::Plain, "running"),
            };
            let called = format!("{} {}", call.tool, beginning(&call.input));
            let called = text::one_line(&called);
            let room = paper.width.saturating_sub(outcome.len() + 5);
            let says = format!("  [{}] {outcome}", text::clip(&called, room));
            vec![paper.line(weight, &says)]
        }
    }
}

/// The event: what is around it, and all that it says.
pub(super) fn event(recorded: &Recorded, paper: Paper<'_>) -> Vec<Line<'static>> {
    let weight = event::weight(&recorded.event);
    let name = event::name(&recorded.event);
    let mut lines = vec![Line::styled(
        name,
        style(weight, paper.colour).add_modifier(Modifier::BOLD),
    )];
    let stream = recorded.stream.to_string();
    lines.push(paper.field(
        "number",
        Weight::Plain,
        &format!("{} of {stream}", recorded.seq),
    ));
    let position = match recorded.cause {
        Some(cause) => format!("{}, caused by {cause}", recorded.position),
        None => recorded.position.to_string(),
    };
    lines.push(paper.field("position", Weight::Plain, &position));
    let known = format!("{}, {}", recorded.class.name(), recorded.provenance.name());
    lines.push(paper.field("known as", Weight::Plain, &known));
    lines.push(paper.field("at", Weight::Plain, &time::rfc3339(recorded.at)));
    if let Some(frame) = recorded.frame {
        lines.push(paper.field("frame", Weight::Plain, &frame.to_string()));
    }
    for (name, value) in event::data(&recorded.event) {
        let line = format!("{name}: {value}");
        if line.contains('\n') || text::width(&line) > paper.width {
            lines.push(paper.line(Weight::Plain, &format!("{name}:")));
            lines.extend(paper.wrapped(beginning(&value), "  ", Style::new()));
        } else {
            lines.push(paper.line(Weight::Plain, &line));
        }
    }
    lines
}

/// As much of the beginning of a text as may be shown.
fn beginning(text: &str) -> &str {
    let mut to = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    &text[..to]
}

/// As much of its end.
fn end(text: &str) -> &str {
    let mut from = text.len().saturating_sub(TEXT_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
