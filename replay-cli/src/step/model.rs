//! What is on the screen, and what keys mean.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use recount_store::{Position, Recorded, Seq, SessionId};

use super::moments::Moment;
use super::sought::{Sought, Way};
use crate::args::At;
use crate::render::time;

/// What can be seen from where one stands.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Events around the cursor, in order: as many before and after it as there may be lines.
    pub(crate) rows: Vec<Recorded>,
    /// Which of them the cursor is on.
    pub(crate) cursor: usize,
    /// The state just after that event.
    pub(crate) moment: Moment,
    /// The number of the session's last event.
    pub(crate) last: Seq,
}

/// What the keys do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They move the cursor.
    Moving,
    /// They write the words to search for.
    Searching(String),
    /// They write the number or the time to go to.
    Going(String),
    /// They end a search that takes its time; so many percent are looked through.
    Waiting(u64),
    /// They close the list of keys.
    Help,
}

/// What is beside the timeline, where there is room for one thing alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    /// The state at the cursor.
    State,
    /// The event at the cursor.
    Event,
}

/// What a key asks for, beyond what the model does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To see something else.
    See(Where),
    /// Away.
    Leave,
    /// Away, by Ctrl-C.
    Interrupt,
}

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// The event at this position.
    At(Position),
    /// The first event.
    First,
    /// The last event.
    Last,
    /// A moment.
    Moment(At),
    /// The next such event.
    Next(Sought, Way),
    /// Here: the search is over.
    Here,
}

/// What is on the screen.
#[derive(Debug)]
pub(crate) struct Model {
    /// The session.
    pub(crate) session: SessionId,
    /// What can be seen of it.
    pub(crate) view: View,
    /// What the keys do.
    pub(crate) mode: Mode,
    /// What is beside the timeline.
    pub(crate) pane: Pane,
    /// How many lines of the event are above its pane.
    pub(crate) scrolled: usize,
    /// Whether the cursor goes with the last event.
    pub(crate) following: bool,
    /// What the last key had to say.
    pub(crate) note: Option<String>,
    /// How many lines a page has.
    pub(crate) page: usize,
    /// In which zone times are told.
    pub(crate) zone: TimeZone,
    /// What was looked for last.
    sought: Option<Sought>,
}

impl Model {
    /// Of a session, before anything is seen of it.
    pub(crate) fn of(session: SessionId, zone: TimeZone) -> Self {
        Self {
            session,
            view: View::default(),
            mode: Mode::Moving,
            pane: Pane::State,
            scrolled: 0,
            following: false,
            note: None,
            page: 1,
            zone,
            sought: None,
        }
    }

    /// The event at the cursor; none before anything is seen.
    pub(crate) fn here(&self) -> Option<&Recorded> {
        self.view.rows.get(self.view.cursor)
    }

    /// Does what a key means, and gives what is beyond that.
    pub(crate) fn handle(&mut self, key: KeyEvent) -> Option<Wish> {
        self.note = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Wish::Interrupt),
                KeyCode::Char('f') => self.by(self.page, Way::On),
                KeyCode::Char('b') => self.by(self.page, Way::Back),
                _ => None,
            };
        }
        match &mut self.mode {
            Mode::Moving => self.moving(key.code),
            Mode::Searching(text) | Mode::Going(text) => match key.code {
                KeyCode::Char(c) => {
                    text.push(c);
                    None
                }
                KeyCode::Backspace if text.pop().is_some() => None,
                KeyCode::Esc | KeyCode::Backspace => {
                    self.mode = Mode::Moving;
                    None
                }
                KeyCode::Enter => self.written(),
                _ => None,
            },
            Mode::Waiting(_) => {
                self.mode = Mode::Moving;
                self.note = Some("stopped".to_owned());
                Some(Wish::See(Where::Here))
            }
            Mode::Help => {
                self.mode = Mode::Moving;
                None
            }
        }
    }

    fn moving(&mut self, key: KeyCode) -> Option<Wish> {
        if let Some((sought, way)) = jump(key) {
            return Some(self.seek(sought, way));
        }
        match key {
            KeyCode::Down | KeyCode::Right | KeyCode::Enter | KeyCode::Char('j' | 'l') => {
                self.by(1, Way::On)
            }
            KeyCode::Up | KeyCode::Left | KeyCode::Char('k' | 'h') => self.by(1, Way::Back),
            KeyCode::PageDown | KeyCode::Char(' ') => self.by(self.page, Way::On),
            KeyCode::PageUp | KeyCode::Char('b') => self.by(self.page, Way::Back),
            KeyCode::Home | KeyCode::Char('g') => Some(self.away(Where::First)),
            KeyCode::End | KeyCode::Char('G') => Some(Wish::See(Where::Last)),
            KeyCode::Char('n') => self.again(Way::On),
            KeyCode::Char('N') => self.again(Way::Back),
            KeyCode::Char('/') => self.turn_to(Mode::Searching(String::new())),
            KeyCode::Char(':') => self.turn_to(Mode::Going(String::new())),
            KeyCode::Char('?') => self.turn_to(Mode::Help),
            KeyCode::Tab => {
                self.pane = match self.pane {
                    Pane::State => Pane::Event,
                    Pane::Event => Pane::State,
                };
                None
            }
            KeyCode::Char('J') => {
                self.scrolled += 1;
                None
            }
            KeyCode::Char('K') => {
                self.scrolled = self.scrolled.saturating_sub(1);
                None
            }
            KeyCode::Char('f') => {
                self.following = !self.following;
                self.following.then_some(Wish::See(Where::Last))
            }
            KeyCode::Char('q') => Some(Wish::Leave),
            _ => None,
        }
    }

    fn turn_to(&mut self, mode: Mode) -> Option<Wish> {
        self.mode = mode;
        None
    }

    /// Moves by so many events, or as far as there are some.
    fn by(&mut self, events: usize, way: Way) -> Option<Wish> {
        let View { rows, cursor, .. } = &self.view;
        let to = match way {
            Way::On => (cursor + events).min(rows.len().saturating_sub(1)),
            Way::Back => cursor.saturating_sub(events),
        };
        if to == *cursor {
            return None;
        }
        let to_see = Where::At(rows[to].position);
        if way == Way::Back {
            return Some(self.away(to_see));
        }
        Some(Wish::See(to_see))
    }

    /// A move away from the end.
    fn away(&mut self, to: Where) -> Wish {
        self.following = false;
        Wish::See(to)
    }

    fn seek(&mut self, sought: Sought, way: Way) -> Wish {
        self.sought = Some(sought.clone());
        self.away(Where::Next(sought, way))
    }

    fn again(&mut self, way: Way) -> Option<Wish> {
        let sought = self.sought.clone();
        if sought.is_none() {
            self.note = Some("nothing was searched for yet: / begins".to_owned());
        }
        sought.map(|sought| self.seek(sought, way))
    }

    /// What was written is whole.
    fn written(&mut self) -> Option<Wish> {
        match std::mem::replace(&mut self.mode, Mode::Moving) {
            Mode::Searching(words) if words.is_empty() => self.again(Way::On),
            Mode::Searching(words) => {
                let words = Sought::Words(words.to_lowercase());
                Some(self.seek(words, Way::On))
            }
            Mode::Going(text) => {
                let at = self.moment(&text);
                if at.is_none() {
                    self.note = Some(format!(
                        "{text:?} is neither a number nor a time like 09:14:03 or 2026-11-22T09:14:03Z"
                    ));
                }
                at.map(|at| self.away(Where::Moment(at)))
            }
            Mode::Moving | Mode::Waiting(_) | Mode::Help => None,
        }
    }

    /// The moment that a text means: a number, a time, or a time of the day that is on the screen.
    fn moment(&self, text: &str) -> Option<At> {
        let text = text.trim();
        // The day on the screen, and not today.
        let time = || time::named(text, self.here()?.at, &self.zone);
        time().map(At::Time).or_else(|| text.parse().ok())
    }
}

/// What a letter jumps to; a capital goes back.
fn jump(key: KeyCode) -> Option<(Sought, Way)> {
    let KeyCode::Char(letter) = key else {
        return None;
    };
    let sought = match letter.to_ascii_lowercase() {
        'r' => Sought::Retry,
        'e' => Sought::Error,
        'd' => Sought::Disconnect,
        'p' => Sought::Permission,
        't' => Sought::Turn,
        _ => return None,
    };
    let way = if letter.is_ascii_uppercase() {
        Way::Back
    } else {
        Way::On
    };
    Some((sought, way))
}
