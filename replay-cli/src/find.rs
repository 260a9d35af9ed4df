//! What is looked for in events, as rules: whether an event is like that.

pub(crate) mod spans;

use std::collections::HashSet;

use recount_engine::machine::connection::UNWANTED;
use recount_projections::MessageState;
use recount_store::{
    Envelope, Event, EventId, FrameNumber, Position, Recorded, Rerun, Resolution, Seq, SessionId,
    StreamId, Timestamp, ToolOutcome, Verdict,
};
use regex::Regex;
use serde::{Serialize, Serializer};

use crate::query::{Condition, walk};
use crate::render::event::connection_state;
use crate::render::time::Said;

/// What an event has to be like; nothing asks for nothing.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The numbers of its type, if that matters.
    pub(crate) types: Option<HashSet<u16>>,
    /// The streams that it may be in, and from where on.
    pub(crate) streams: Option<(Vec<StreamId>, Position)>,
    /// Not before.
    pub(crate) since: Option<Timestamp>,
    /// Not after.
    pub(crate) until: Option<Timestamp>,
    /// The name of its class.
    pub(crate) class: Option<String>,
    /// The name of its provenance.
    pub(crate) provenance: Option<String>,
    /// The state that it moves something to.
    pub(crate) state: Option<String>,
    /// Whether it must tell of what went wrong.
    pub(crate) error: bool,
    /// What is to be in one of its texts.
    pub(crate) text: Option<Regex>,
    /// What has to be true of it.
    pub(crate) condition: Option<Condition>,
}

impl Wanted {
    /// Whether it may be wanted, by what is known before it is read.
    pub(crate) fn may_be(&self, envelope: &Envelope) -> bool {
        let of_type = |types: &HashSet<u16>| types.contains(&envelope.type_number);
        self.types.as_ref().is_none_or(of_type)
            && self.is_near(envelope.stream, envelope.position)
            && self.since.is_none_or(|since| envelope.at >= since)
            && self.until.is_none_or(|until| envelope.at <= until)
    }

    /// Whether an event of this stream may be wanted at all, whatever it is.
    pub(crate) fn is_near(&self, stream: Option<StreamId>, position: Position) -> bool {
        self.streams.as_ref().is_none_or(|(streams, from)| {
            // What no build knows the stream of is read, and told as what it is.
            position >= *from && stream.is_none_or(|stream| streams.contains(&stream))
        })
    }

    /// Whether it is wanted, all being known.
    pub(crate) fn is(&self, recorded: &Recorded) -> bool {
        let envelope = Envelope {
            position: recorded.position,
            stream: Some(recorded.stream),
            at: recorded.at,
            cause: recorded.cause,
            type_number: recorded.event.type_number(),
        };
        let class = |class: &String| class == recorded.class.name();
        let known = |known: &String| known == recorded.provenance.name();
        let state = |state: &String| moves_to(&recorded.event) == Some(state);
        let text = |text: &Regex| walk::any_text(&recorded.event, |said| text.is_match(said));
        let holds = |condition: &Condition| condition.holds(&View::of(recorded));
        self.may_be(&envelope)
            && self.class.as_ref().is_none_or(class)
            && self.provenance.as_ref().is_none_or(known)
            && self.state.as_ref().is_none_or(state)
            && (!self.error || went_wrong(&recorded.event))
            && self.text.as_ref().is_none_or(text)
            && self.condition.as_ref().is_none_or(holds)
    }
}

/// An event as conditions see it: what `--json` prints.
#[derive(Serialize)]
pub(crate) struct View<'a> {
    position: Position,
    #[serde(serialize_with = "stream_name")]
    stream: StreamId,
    session: Option<SessionId>,
    seq: Seq,
    at: Said,
    cause: Option<Position>,
    class: &'static str,
    provenance: &'static str,
    id: Option<EventId>,
    frame: Option<FrameNumber>,
    /// Its type and its data.
    #[serde(flatten)]
    event: &'a Event,
}

impl<'a> View<'a> {
    /// An event, to ask conditions of.
    pub(crate) fn of(recorded: &'a Recorded) -> Self {
        Self {
            position: recorded.position,
            stream: recorded.stream,
            session: session_of(recorded.stream),
            seq: recorded.seq,
            at: Said(recorded.at),
            cause: recorded.cause,
            class: recorded.class.name(),
            provenance: recorded.provenance.name(),
            id: recorded.id,
            frame: recorded.frame,
            event: &recorded.event,
        }
    }
}

/// The session whose stream it is.
pub(crate) const fn session_of(stream: StreamId) -> Option<SessionId> {
    match stream {
        StreamId::Session(id) => Some(id),
        StreamId::Engine | StreamId::Connection(_) => None,
    }
}

fn stream_name<S: Serializer>(stream: &StreamId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(stream)
}

/// The word for the state that an event moves something to: a message, a connection, a breaker or a session.
pub(crate) const fn moves_to(event: &Event) -> Option<&'static str> {
    let message = match event {
        Event::MessageQueued { .. } => MessageState::Queued,
        Event::MessageCancelled { .. } => MessageState::Cancelled,
        Event::DeliveryStarted { .. } => MessageState::Sending,
        Event::DeliveryAccepted { .. }
        | Event::DeliveryResolved {
            resolution: Resolution::Stored,
            ..
        }
        | Event::RerunDecided {
            rerun: Rerun::Run, ..
        }
        | Event::UnknownDecided {
            verdict: Verdict::Arrived,
            ..
        } => MessageState::Accepted,
        Event::DeliveryRejected { .. }
        | Event::DeliveryResolved {
            resolution: Resolution::Absent,
            ..
        }
        | Event::UnknownDecided {
            verdict: Verdict::Resend,
            ..
        } => MessageState::Refused,
        Event::DeliveryUnknown { .. } => MessageState::Unknown,
        Event::TurnRequested { .. } => MessageState::Requested,
        Event::TurnStarted { .. } => MessageState::Running,
        Event::TurnInterrupted { .. } => MessageState::Interrupted,
        Event::RerunDecided {
            rerun: Rerun::Wait, ..
        }
        | Event::UnknownDecided {
            verdict: Verdict::Wait,
            ..
        } => MessageState::Waiting,
        Event::TurnCompleted { .. } => MessageState::Completed,
        Event::TurnFailed { .. } => MessageState::Failed,
        Event::TurnAborted { .. } => MessageState::Aborted,
        Event::MessageDeadLettered { .. } => MessageState::DeadLettered,
        Event::ConnectionChanged { to, .. } => return Some(connection_state(*to)),
        Event::CircuitOpened { .. } => return Some("open"),
        Event::CircuitHalfOpened => return Some("half_open"),
        Event::CircuitClosed | Event::SessionClosed => return Some("closed"),
        _ => return None,
    };
    Some(message.name())
}

/// Whether an event tells of what went wrong. Of the end of a server, only [`stop_was_decided`] knows it all.
///
/// [`stop_was_decided`]: crate::timeline::stop_was_decided
pub(crate) fn went_wrong(event: &Event) -> bool {
    if let Event::StreamLost { reason } = event {
        return reason != UNWANTED;
    }
    matches!(
        event,
        Event::DeliveryRejected { .. }
            | Event::DeliveryUnknown { .. }
            | Event::MessageDeadLettered { .. }
            | Event::ToolCallEnded {
                outcome: ToolOutcome::Failed | ToolOutcome::Lost,
                ..
            }
            | Event::AgentRetried { .. }
            | Event::AgentErrorReported { .. }
            | Event::AgentSessionLost { .. }
            | Event::TurnFailed { .. }
            | Event::TurnInterrupted { .. }
            | Event::TurnStalled { .. }
            | Event::QuestionExpired { .. }
            | Event::ServerExited { .. }
            | Event::ConnectFailed { .. }
            | Event::ProbeFailed { .. }
            | Event::GapFound { .. }
            | Event::CircuitOpened { .. }
            | Event::TaskPanicked { .. }
    )
}

#[cfg(test)]
mod tests {
    use recount_projections::{Projection as _, Queue};
    use recount_store::{Provenance, Refusal};

    use super::*;
    use crate::query::shape;
    use crate::render::fixture;

    /// What is said of an event alone is what the fold makes of it.
    #[test]
    fn an_event_moves_to_where_the_fold_moves() {
        let message = fixture::message();
        let more = [
            Event::DeliveryRejected {
                message,
                attempt: 1,
                refusal: Refusal::NeverSent,
                reason: String::new(),
            },
            Event::DeliveryUnknown {
                message,
                attempt: 2,
                reason: String::new(),
            },
            Event::UnknownDecided {
                message,
                attempt: 2,
                verdict: Verdict::Wait,
                reason: String::new(),
            },
            Event::UnknownDecided {
                message,
                attempt: 2,
                verdict: Verdict::Resend,
                reason: String::new(),
            },
            Event::DeliveryResolved {
                message,
                attempt: 2,
                resolution: Resolution::Absent,
                evidence: String::new(),
            },
            Event::DeliveryResolved {
                message,
                attempt: 2,
                resolution: Resolution::Stored,
                evidence: String::new(),
            },
            Event::UnknownDecided {
                message,
                attempt: 2,
                verdict: Verdict::Arrived,
                reason: String::new(),
            },
            Event::TurnFailed {
                message,
                run: 1,
                reason: String::new(),
            },
        ];
        let more = (50..)
            .zip(more)
            .map(|(n, event)| fixture::session_event(n, event));
        let mut queue = Queue::default();
        let mut moved = 0;
        for recorded in fixture::story().into_iter().chain(more) {
            let before = queue.get(message).map(|message| message.moved);
            queue.apply(&recorded);
            let Some(known) = queue.get(message).filter(|now| Some(now.moved) != before) else {
                continue;
            };
            moved += 1;
            let name = recorded.event.type_name();
            assert_eq!(
                moves_to(&recorded.event),
                Some(known.state.name()),
                "{name}"
            );
        }
        assert_eq!(moved, 15);
    }

    fn found(wanted: &Wanted) -> Vec<u64> {
        let story = fixture::story();
        let found = story.iter().filter(|recorded| wanted.is(recorded));
        found.map(|recorded| recorded.position.0).collect()
    }

    #[test]
    fn all_that_is_asked_must_be_so() {
        assert_eq!(found(&Wanted::default()).len(), fixture::story().len());
        let wrong = || Wanted {
            error: true,
            ..Wanted::default()
        };
        assert_eq!(found(&wrong()), [14, 16, 18, 19]);
        let let_go = Event::StreamLost {
            reason: UNWANTED.to_owned(),
        };
        assert!(!went_wrong(&let_go));
        let condition = "type == \"StreamLost\" or data.outcome == \"lost\" or seq == 1";
        let condition = Condition::parse(condition, &shape::EVENT).expect("a condition");
        let both = Wanted {
            condition: Some(condition),
            ..wrong()
        };
        assert_eq!(found(&both), [14, 18]);
        let late = Wanted {
            since: Some(fixture::at(15)),
            until: Some(fixture::at(18)),
            ..wrong()
        };
        assert_eq!(found(&late), [16, 18]);
        let text = Wanted {
            text: Some(Regex::new("ma.e").expect("a pattern")),
            ..Wanted::default()
        };
        assert_eq!(found(&text), [13]);
        let state = |state: &str| Wanted {
            state: Some(state.to_owned()),
            ..Wanted::default()
        };
        assert_eq!(found(&state("disconnected")), [15]);
        assert_eq!(found(&state("waiting")), [20]);
        let of_connection = Wanted {
            streams: Some((
                vec![StreamId::Connection(fixture::connection())],
                Position(5),
            )),
            ..Wanted::default()
        };
        assert_eq!(found(&of_connection), [5, 6, 14, 15, 16, 17]);
    }

    /// The members that a condition may name are those that are printed.
    #[test]
    fn the_shape_of_an_event_is_what_is_printed() {
        let mut recorded = fixture::session_event(3, Event::SessionClosed);
        recorded.provenance = Provenance::Inferred;
        let value = serde_json::to_value(View::of(&recorded)).expect("its JSON");
        for member in value.as_object().expect("an object").keys() {
            assert!(shape::EVENT.member(member).is_some(), "{member}");
        }
    }
}
