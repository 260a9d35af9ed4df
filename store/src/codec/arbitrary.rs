//! Events out of thin air, for tests: any bytes make one, so that a failing one shrinks with its bytes.

use crate::event::{
    ConnectionState, Json, OutputKind, PermissionAnswer, Placement, Refusal, Rerun, Resolution,
    Target, ToolOutcome, Verdict,
};
use crate::id::{ConnectionId, EventId, FrameNumber, MessageId, Seq, SessionId, Timestamp};
use crate::log::Hash;

/// Where choices come from; zeros when it has run dry.
pub(crate) struct Source {
    bytes: std::vec::IntoIter<u8>,
}

impl Source {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into_iter(),
        }
    }

    /// A number smaller than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().unwrap_or(0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What can be made out of thin air.
pub(crate) trait Arbitrary {
    fn arbitrary(source: &mut Source) -> Self;
}

macro_rules! arbitrary {
    ($($type:ty: |$source:ident| $make:expr;)*) => {
        $(
            impl Arbitrary for $type {
                fn arbitrary($source: &mut Source) -> Self {
                    $make
                }
            }
        )*
    };
}

arbitrary! {
    u16: |source| u16::from_le_bytes(source.array());
    u32: |source| u32::from_le_bytes(source.array());
    u64: |source| u64::from_le_bytes(source.array());
    String: |source| {
        let length = source.below(12);
        (0..length).map(|_| source.pick(&['a', 'b', 'z', '0', ' ', '\n', '"', '\0', 'ß', '中', '🦀'])).collect()
    };
    Json: |source| {
        let length = source.below(12);
        Self((0..length).map(|_| source.byte()).collect())
    };
    ConnectionId: |source| Self::from_bytes(source.array());
    SessionId: |source| Self::from_bytes(source.array());
    MessageId: |source| Self::from_bytes(source.array());
    EventId: |source| Self::from_bytes(source.array());
    FrameNumber: |source| Self(u64::arbitrary(source));
    Seq: |source| Self(u64::arbitrary(source));
    Hash: |source| Self(source.array());
    Timestamp: |source| Self(u64::arbitrary(source));
    PermissionAnswer: |source| source.pick(&[Self::Once, Self::Always, Self::Reject]);
    OutputKind: |source| source.pick(&[Self::Text, Self::Reasoning]);
    Placement: |source| source.pick(&[Self::End, Self::AfterHole, Self::IntoHole]);
    ToolOutcome: |source| source.pick(&[Self::Completed, Self::Failed, Self::Lost]);
    Resolution: |source| source.pick(&[Self::Stored, Self::Absent]);
    Rerun: |source| source.pick(&[Self::Run, Self::Wait, Self::GiveUp]);
    ConnectionState: |source| source.pick(&[Self::Disconnected, Self::Connecting, Self::Connected]);
    Verdict: |source| source.pick(&[Self::Wait, Self::Resend, Self::GiveUp, Self::Arrived]);
    Refusal: |source| match source.below(3) {
        0 => Self::NeverSent,
        1 => Self::ForNow { retry_after: Option::arbitrary(source) },
        _ => Self::ForGood,
    };
    Target: |source| match source.below(2) {
        0 => Self::Url(String::arbitrary(source)),
        _ => Self::Managed { program: Option::arbitrary(source), directory: String::arbitrary(source) },
    };
}

impl<T: Arbitrary> Arbitrary for Vec<T> {
    fn arbitrary(source: &mut Source) -> Self {
        (0..source.below(4)).map(|_| T::arbitrary(source)).collect()
    }
}

impl<T: Arbitrary> Arbitrary for Option<T> {
    fn arbitrary(source: &mut Source) -> Self {
        (source.below(2) == 1).then(|| T::arbitrary(source))
    }
}
