//! The model, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

use super::model::{Mode, Model, Pane};
use super::panel::{self, Paper};
use crate::render::{Look, event, text, time};

/// From so many columns on, the state stands beside the timeline, and not below it.
const WIDE: u16 = 110;

/// The keys, as `?` tells them.
const KEYS: &[(&str, &str)] = &[
    ("↓ ↑  j k  ← →", "next event, the one before"),
    ("PgDn PgUp", "a page on, a page back (also space, b)"),
    ("Home End  g G", "first event, last event"),
    ("r R", "next retry, the one before"),
    ("e E", "next error, the one before"),
    ("d D", "next disconnect, the one before"),
    ("p P", "next permission or question, the one before"),
    ("t T", "next turn, the one before"),
    ("/", "search in the lines; n N the next, the one before"),
    (":", "go to a number, a time of the day, or a time"),
    ("f", "follow what comes, or stop"),
    ("Tab", "state or event, on a narrow screen"),
    ("J K", "scroll the event"),
    ("Esc", "stop a search, leave a prompt"),
    ("q", "leave (also Ctrl-C)"),
];

/// How many events fit onto a screen of this size.
pub(crate) fn page(columns: u16, rows: u16) -> usize {
    let [_, body, _] = rows_of(Rect::new(0, 0, columns, rows));
    let [timeline, _] = panes_of(body);
    usize::from(timeline.height.max(1))
}

/// Draws what the model has.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, colour: bool) {
    let [head, body, foot] = rows_of(frame.area());
    let [timeline, side] = panes_of(body);
    draw_head(frame, head, model);
    draw_timeline(frame, timeline, model, colour);
    if body.width >= WIDE {
        let [state, event] =
            Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(side);
        let left = Borders::LEFT | Borders::TOP;
        draw_state(frame, state, left, model, colour);
        draw_event(frame, event, left, model, colour);
    } else {
        match model.pane {
            Pane::State => draw_state(frame, side, Borders::TOP, model, colour),
            Pane::Event => draw_event(frame, side, Borders::TOP, model, colour),
        }
    }
    draw_foot(frame, foot, model);
    if model.mode == Mode::Help {
        draw_help(frame, body);
    }
}

fn rows_of(area: Rect) -> [Rect; 3] {
    let one = Constraint::Length(1);
    Layout::vertical([one, Constraint::Fill(1), one]).areas(area)
}

/// The timeline, and what is beside or below it.
fn panes_of(body: Rect) -> [Rect; 2] {
    if body.width >= WIDE {
        return Layout::horizontal([Constraint::Fill(5), Constraint::Fill(4)]).areas(body);
    }
    Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(body)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let session = &model.view.moment.session;
    let mut says = format!(
        " {}  {}  event {} of {}",
        model.session,
        session.status().name(),
        session.seq,
        model.view.last
    );
    if let Some(here) = model.here() {
        let at = time::full(here.at, &model.zone);
        says = format!("{says}  {at}");
    }
    if model.following {
        says.push_str("  following");
    }
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Line::raw(says).style(reversed), area);
}

fn draw_timeline(frame: &mut Frame<'_>, area: Rect, model: &Model, colour: bool) {
    let look = Look {
        colour: false,
        width: Some(usize::from(area.width.saturating_sub(2))),
        zone: model.zone.clone(),
    };
    let (rows, cursor) = (&model.view.rows, model.view.cursor);
    // The cursor is in the middle, as far as there are events on both sides.
    let height = usize::from(area.height);
    let top = cursor.saturating_sub(height / 2);
    let top = top.min(rows.len().saturating_sub(height));
    let lines = rows.iter().enumerate().skip(top).take(height);
    let lines: Vec<Line<'_>> = lines
        .map(|(n, recorded)| {
            let line = event::line(recorded, &look);
            let style = panel::style(event::weight(&recorded.event), colour);
            if n == cursor {
                let style = style.add_modifier(Modifier::REVERSED);
                return Line::styled(format!("> {line}"), style);
            }
            Line::styled(format!("  {line}"), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_state(frame: &mut Frame<'_>, area: Rect, borders: Borders, model: &Model, colour: bool) {
    let inner = framed(frame, area, borders, " state ");
    let now = model.here().map_or_else(Default::default, |here| here.at);
    let (mut lines, said) = panel::state(&model.view.moment, now, paper(inner, model, colour));
    // Of what is said, the end is what is new.
    let room = usize::from(inner.height).saturating_sub(lines.len());
    lines.extend(said[said.len().saturating_sub(room)..].iter().cloned());
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_event(frame: &mut Frame<'_>, area: Rect, borders: Borders, model: &Model, colour: bool) {
    let inner = framed(frame, area, borders, " event ");
    let Some(here) = model.here() else {
        return;
    };
    let lines = panel::event(here, paper(inner, model, colour));
    let height = usize::from(inner.height);
    let top = model.scrolled.min(lines.len().saturating_sub(height));
    let more = lines.len() - top > height;
    let mut lines: Vec<_> = lines.into_iter().skip(top).take(height).collect();
    if more && let Some(last) = lines.last_mut() {
        *last = Line::raw("… (J for more)");
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn paper(inner: Rect, model: &Model, colour: bool) -> Paper<'_> {
    Paper {
        width: usize::from(inner.width),
        colour,
        zone: &model.zone,
    }
}

fn framed(frame: &mut Frame<'_>, area: Rect, borders: Borders, title: &'static str) -> Rect {
    let block = Block::new().borders(borders).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let prompt = |sign: &'static str, text: &str| {
        let text = text::one_line(text).into_owned();
        let cursor = Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED));
        Line::from(vec![Span::raw(sign), Span::raw(text), cursor])
    };
    let line = match (&model.mode, &model.note) {
        (Mode::Searching(text), _) => prompt("/", text),
        (Mode::Going(text), _) => prompt(":", text),
        (Mode::Waiting(percent), _) => {
            Line::raw(format!(" searching, {percent} %; any key stops it"))
        }
        (Mode::Moving | Mode::Help, Some(note)) => Line::raw(format!(" {note}")),
        (Mode::Moving | Mode::Help, None) => Line::styled(
            " ? keys  / search  : go to  r e d p t jump  f follow  q leave",
            Style::new().add_modifier(Modifier::DIM),
        ),
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame<'_>, body: Rect) {
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(keys, what)| Line::raw(format!(" {keys:<14} {what}")))
        .collect();
    let height = u16::try_from(KEYS.len()).unwrap_or(u16::MAX) + 2;
    let area = body.centered(Constraint::Max(68), Constraint::Max(height));
    frame.render_widget(Clear, area);
    let block = Block::new().borders(Borders::ALL).title(" keys ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
