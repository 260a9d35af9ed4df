//! Frames: what agents said, exactly as it was received.
//!
//! An adapter says what a frame means, and may be mistaken. Events are what it said; the frames are kept
//! beside them, so that a mistake can be found and mended later. An event names the frame that told of it.
//!
//! **What is kept of a frame**: the data of one server-sent event, byte for byte: the values of its `data` lines,
//! joined with line feeds. Nothing else of the stream is: no headers, no comments, no other fields. So
//! nothing that lets anyone in at an agent's server is among it.

use crate::id::{ConnectionId, FrameNumber, Timestamp};

/// One item of what was received over all connections, with its place in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its place: 1 for the first, without gaps over the whole log.
    pub number: FrameNumber,
    /// The connection that it came over.
    pub connection: ConnectionId,
    /// When it came, by the clock of the machine that kept it.
    pub at: Timestamp,
    /// What came.
    pub content: FrameContent,
}

impl Frame {
    /// The bytes that were received; `None` where they were not kept.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            FrameContent::Received(bytes) => Some(bytes),
            FrameContent::Skipped(_) => None,
        }
    }
}

/// What a place among the frames holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameContent {
    /// A frame.
    Received(Vec<u8>),
    /// So many frames of this connection came here, the first at this time, and were not kept: too much
    /// waited to be written, or they were not to be kept. They share one number, so that no loss is silent.
    Skipped(u32),
}

/// Which of the kept frames are old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramesBefore {
    /// Those before this one.
    Number(FrameNumber),
    /// Those that came before this time.
    Time(Timestamp),
}
