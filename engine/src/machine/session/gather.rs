//! Deltas, gathered for a moment: one event for many, and each piece stored once.

use recount_store::{Event, FrameNumber, MessageId, OutputKind, Placement, Timestamp};

use super::Input;
use super::policy::SessionPolicy;
use crate::adapter::Observation;

/// The piece of output that is being gathered; of one part, in one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Gather(Option<Piece>);

#[derive(Debug, Clone)]
pub(super) struct Piece {
    part: String,
    kind: OutputKind,
    placement: Placement,
    text: String,
    since: Timestamp,
    /// The last frame that added to it.
    frame: Option<FrameNumber>,
}

impl Piece {
    pub(super) fn add(&mut self, text: &str, frame: Option<FrameNumber>) {
        self.text.push_str(text);
        self.frame = frame;
    }
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Whether this input only adds to what is gathered, or says nothing that has an order.
    pub(super) fn goes_on_with(&self, input: &Input) -> bool {
        let Some(piece) = &self.0 else { return true };
        match input {
            Input::Observed {
                observation,
                from_child: false,
                ..
            } => match observation {
                Observation::Delta { part, .. } => *part == piece.part,
                Observation::Connected
                | Observation::Ignored
                | Observation::Counted { .. }
                | Observation::Busy => true,
                _ => false,
            },
            Input::Woke => true,
            _ => false,
        }
    }

    /// What is gathered, or from now on is.
    pub(super) fn piece(
        &mut self,
        part: String,
        kind: OutputKind,
        placement: Placement,
        now: Timestamp,
    ) -> &mut Piece {
        self.0.get_or_insert_with(|| Piece {
            part,
            kind,
            placement,
            text: String::new(),
            since: now,
            frame: None,
        })
    }

    /// When it is to be recorded.
    pub(super) fn due(&self, policy: &SessionPolicy) -> Option<Timestamp> {
        let piece = self.0.as_ref()?;
        let pause = if piece.text.len() >= policy.gather_bytes {
            std::time::Duration::ZERO
        } else {
            policy.gather
        };
        Some(piece.since.plus(pause))
    }

    /// The event that records what was gathered, and the last frame that told of it.
    pub(super) fn flush(
        &mut self,
        message: MessageId,
        run: u32,
    ) -> Option<(Event, Option<FrameNumber>)> {
        let Piece {
            part,
            kind,
            placement,
            text,
            frame,
            ..
        } = self.0.take()?;
        let event = Event::OutputAppended {
            message,
            run,
            part,
            kind,
            placement,
            text,
        };
        Some((event, frame))
    }
}
