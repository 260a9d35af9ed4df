//! How long things take: from the event that begins one to the event that ends it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use recount_engine::machine::connection::UNWANTED;
use recount_store::{ConnectionState, Event, MessageId, Position, Recorded, StreamId, Timestamp};

/// What has a beginning and an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// From its first request to its end, over all its runs.
    Turn,
    /// Until its outcome is known.
    Attempt,
    /// A tool call.
    ToolCall,
    /// A permission or a question in words, until it is settled.
    Question,
    /// A connection that is wanted and not there: until it is, or the engine ends.
    Outage,
}

impl Kind {
    /// The words for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Attempt => "attempt",
            Self::ToolCall => "tool call",
            Self::Question => "question",
            Self::Outage => "outage",
        }
    }
}

/// Something that took its time, or still does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    /// What it is.
    pub(crate) kind: Kind,
    /// How long it took, or goes on.
    pub(crate) took: Duration,
    /// The event that began it.
    pub(crate) began: Position,
    /// Whether it has ended.
    pub(crate) ended: bool,
}

/// What is going on at a moment of a log.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    open: HashMap<Key, Recorded>,
    /// The connections that the engine is letting go of.
    let_go: HashSet<StreamId>,
}

/// Which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    stream: StreamId,
    kind: Kind,
    message: Option<MessageId>,
    /// The agent's name for it, of what a turn has several of.
    name: String,
}

/// Whether an event of this type begins or ends anything.
pub(crate) fn matters(type_name: &str) -> bool {
    [
        "TurnRequested",
        "TurnCompleted",
        "TurnFailed",
        "TurnAborted",
        "DeliveryStarted",
        "DeliveryAccepted",
        "DeliveryRejected",
        "DeliveryResolved",
        "UnknownDecided",
        "MessageDeadLettered",
        "ToolCallStarted",
        "ToolCallEnded",
        "PermissionAsked",
        "PermissionSettled",
        "QuestionAsked",
        "QuestionSettled",
        "StreamLost",
        "ConnectionChanged",
        "ReconnectScheduled",
        "CircuitOpened",
        "EngineStopped",
    ]
    .contains(&type_name)
}

/// What an event is to what goes on.
enum Edge<'a> {
    Begins(Kind, &'a str),
    Ends(Kind, &'a str),
}

fn edge(event: &Event) -> Option<Edge<'_>> {
    Some(match event {
        Event::TurnRequested { .. } => Edge::Begins(Kind::Turn, ""),
        Event::TurnCompleted { .. } | Event::TurnFailed { .. } | Event::TurnAborted { .. } => {
            Edge::Ends(Kind::Turn, "")
        }
        Event::DeliveryStarted { .. } => Edge::Begins(Kind::Attempt, ""),
        Event::DeliveryAccepted { .. }
        | Event::DeliveryRejected { .. }
        | Event::DeliveryResolved { .. }
        | Event::UnknownDecided { .. }
        | Event::MessageDeadLettered { .. } => Edge::Ends(Kind::Attempt, ""),
        Event::ToolCallStarted { call, .. } => Edge::Begins(Kind::ToolCall, call),
        Event::ToolCallEnded { call, .. } => Edge::Ends(Kind::ToolCall, call),
        Event::PermissionAsked { permission, .. } => Edge::Begins(Kind::Question, permission),
        Event::PermissionSettled { permission, .. } => Edge::Ends(Kind::Question, permission),
        Event::QuestionAsked { question, .. } => Edge::Begins(Kind::Question, question),
        Event::QuestionSettled { question, .. } => Edge::Ends(Kind::Question, question),
        Event::ConnectionChanged {
            from: ConnectionState::Connected,
            ..
        }
        | Event::ReconnectScheduled { .. }
        | Event::CircuitOpened { .. } => Edge::Begins(Kind::Outage, ""),
        Event::ConnectionChanged {
            to: ConnectionState::Connected,
            ..
        } => Edge::Ends(Kind::Outage, ""),
        _ => return None,
    })
}

impl Spans {
    /// Takes an event in, and gives what it ends.
    pub(crate) fn take(&mut self, recorded: &Recorded) -> Option<Span> {
        match &recorded.event {
            Event::StreamLost { reason } if reason == UNWANTED => {
                self.let_go.insert(recorded.stream);
            }
            Event::ConnectionChanged { .. } if self.let_go.remove(&recorded.stream) => return None,
            // Nobody misses a connection now.
            Event::EngineStopped => self.open.retain(|key, _| key.kind != Kind::Outage),
            _ => {}
        }
        let (kind, name) = match edge(&recorded.event)? {
            Edge::Begins(kind, name) => {
                let key = key(recorded, kind, name);
                // A turn that is asked for again is the same turn, a connection tried again the same outage.
                self.open.entry(key).or_insert_with(|| recorded.clone());
                return None;
            }
            Edge::Ends(kind, name) => (kind, name),
        };
        let began = self.open.remove(&key(recorded, kind, name));
        if kind == Kind::Turn {
            // Nothing in a turn goes on after it.
            self.open.retain(|key, _| {
                key.stream != recorded.stream || key.message != recorded.event.message()
            });
        }
        let began = began?;
        Some(Span {
            kind,
            took: recorded.at.since(began.at),
            began: began.position,
            ended: true,
        })
    }

    /// What has not ended by a time, by its beginning.
    pub(crate) fn open_at(self, time: Timestamp) -> Vec<(Recorded, Span)> {
        let open = self.open.into_iter().map(|(key, began)| {
            let span = Span {
                kind: key.kind,
                took: time.since(began.at),
                began: began.position,
                ended: false,
            };
            (began, span)
        });
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|(began, _)| began.position);
        open
    }
}

fn key(recorded: &Recorded, kind: Kind, name: &str) -> Key {
    Key {
        stream: recorded.stream,
        kind,
        message: recorded.event.message(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn what_ends_is_measured_from_its_beginning() {
        let mut spans = Spans::default();
        let told: Vec<_> = fixture::story()
            .iter()
            .filter_map(|recorded| {
                assert!(edge(&recorded.event).is_none() || matters(recorded.event.type_name()));
                spans.take(recorded)
            })
            .map(|span| (span.kind, span.took.as_secs(), span.began.0))
            .collect();
        assert_eq!(told, [(Kind::Attempt, 1, 8), (Kind::ToolCall, 5, 13)]);
        let open: Vec<_> = spans
            .open_at(fixture::at(30))
            .into_iter()
            .map(|(began, span)| (began.position.0, span.kind, span.took.as_secs()))
            .collect();
        assert_eq!(open, [(10, Kind::Turn, 20), (15, Kind::Outage, 15)]);
    }

    #[test]
    fn nothing_of_a_turn_goes_on_after_it() {
        let mut spans = Spans::default();
        for recorded in fixture::story() {
            if !matches!(recorded.event, Event::ToolCallEnded { .. }) {
                spans.take(&recorded);
            }
        }
        let ended = fixture::session_event(
            40,
            Event::TurnAborted {
                message: fixture::message(),
                run: 1,
            },
        );
        let span = spans.take(&ended).expect("the turn ended");
        assert_eq!((span.kind, span.took.as_secs()), (Kind::Turn, 30));
        let open = spans.open_at(fixture::at(50));
        assert_eq!(open.len(), 1, "{open:?}");
    }

    /// What is not wanted is not missed, and what cannot be had from the beginning on is.
    #[test]
    fn an_outage_is_a_connection_that_is_missed() {
        use ConnectionState::{Connected, Connecting, Disconnected};
        let changed = |from, to| Event::ConnectionChanged { from, to };
        let again = || Event::ReconnectScheduled {
            attempt: 1,
            at: fixture::at(0),
        };
        let let_go = Event::StreamLost {
            reason: UNWANTED.to_owned(),
        };
        let tried = [
            changed(Disconnected, Connecting),
            changed(Connecting, Connected),
        ];
        let events = [
            // Let go of, and wanted again.
            vec![(1, let_go.clone()), (1, changed(Connected, Disconnected))],
            vec![(100, tried[0].clone()), (101, tried[1].clone())],
            // Lost.
            vec![(110, changed(Connected, Disconnected)), (111, again())],
            vec![(120, tried[0].clone()), (121, tried[1].clone())],
            // Let go of, wanted again, and not to be had.
            vec![(130, let_go), (130, changed(Connected, Disconnected))],
            vec![
                (200, tried[0].clone()),
                (201, changed(Connecting, Disconnected)),
            ],
            vec![
                (202, again()),
                (203, tried[0].clone()),
                (204, tried[1].clone()),
            ],
            // Lost, until nobody misses it.
            vec![(210, changed(Connected, Disconnected)), (211, again())],
        ];
        let mut spans = Spans::default();
        let mut take = |recorded: &Recorded| {
            let span = spans.take(recorded)?;
            Some((recorded.position.0, span.kind, span.took.as_secs()))
        };
        let found: Vec<_> = events
            .into_iter()
            .flatten()
            .filter_map(|(n, event)| take(&fixture::connection_event(n, event)))
            .collect();
        assert_eq!(found, [(121, Kind::Outage, 11), (204, Kind::Outage, 2)]);
        let mut stopped = fixture::connection_event(220, Event::EngineStopped);
        stopped.stream = StreamId::Engine;
        assert_eq!(spans.take(&stopped), None);
        assert_eq!(spans.open_at(fixture::at(300)), []);
    }
}
