//! Version 1 of every event's payload: frozen.
//!
//! A payload is the fields of its type in this order, encoded by bincode. Nothing here may change its
//! meaning: no field or variant is added, removed, moved or retyped. An event that needs another form
//! gets a type of version 2 in a file of its own, and this one stays to read old logs.
//!
//! Types borrow from the payload, so that decoding allocates for nothing that is not there.

use serde::{Deserialize, Serialize};

use super::payload;
use crate::event::{self, Class, Event, Json};
use crate::id::{ConnectionId, MessageId, Seq, SessionId, Timestamp};
use crate::log::Hash;

/// The version that all types of this file carry in their envelope.
pub(super) const VERSION: u8 = 1;

/// What a frozen type and the domain's type for the same thing are to each other.
trait Frozen<'a, Domain>: Sized {
    /// The frozen form, borrowing what is long.
    fn freeze(domain: &'a Domain) -> Self;
    /// The domain's form.
    fn thaw(self) -> Domain;
}

/// A row of the table of event types.
#[cfg(test)]
pub(super) struct Type {
    pub(super) number: u16,
    pub(super) class: Class,
    pub(super) name: &'static str,
    /// The names of its fields and their types in Rust, in order.
    pub(super) fields: &'static [(&'static str, &'static str)],
}

/// Makes, from the one table of event types: the frozen types, both directions, and their names.
macro_rules! events {
    ($(
        $number:literal $class:ident $name:ident $(<$life:lifetime>)? {
            $( $(#[$attribute:meta])* $field:ident: $wire:ty ),* $(,)?
        }
    )*) => {
        $(
            #[derive(Serialize, Deserialize)]
            struct $name $(<$life>)? { $( $(#[$attribute])* $field: $wire, )* }
        )*

        impl Event {
            /// The names of all types that this build knows, in the order of their numbers.
            pub const TYPE_NAMES: &'static [&'static str] = &[$( stringify!($name) ),*];

            /// The name of the type with this number in the log; none where this build does not know it.
            #[must_use]
            pub const fn type_name_of(number: u16) -> Option<&'static str> {
                match number {
                    $( $number => Some(stringify!($name)), )*
                    _ => None,
                }
            }

            /// The number that names this event's type in the log. It never changes.
            #[must_use]
            pub const fn type_number(&self) -> u16 {
                match self {
                    $( Self::$name { .. } => $number, )*
                    Self::Unknown { type_number, .. } => *type_number,
                }
            }

            /// The name of this event's type: `MessageQueued`; `Unknown` where this build does not know it.
            #[must_use]
            pub const fn type_name(&self) -> &'static str {
                match self {
                    $( Self::$name { .. } => stringify!($name), )*
                    Self::Unknown { .. } => "Unknown",
                }
            }

            /// Who an event of this type comes from.
            ///
            /// For a type that this build does not know it is told by the number; what the log holds
            /// is in [`Recorded::class`](crate::Recorded::class).
            #[must_use]
            pub const fn class(&self) -> Class {
                match self {
                    $( Self::$name { .. } => Class::$class, )*
                    Self::Unknown { type_number, .. } => class_of_number(*type_number),
                }
            }
        }

        /// The table.
        #[cfg(test)]
        pub(super) const TYPES: &[Type] = &[
            $( Type {
                number: $number,
                class: Class::$class,
                name: stringify!($name),
                fields: &[$( (stringify!($field), stringify!($wire)) ),*],
            } ),*
        ];

        /// Appends the payload of `event`.
        pub(crate) fn encode(event: &Event, out: &mut Vec<u8>) {
            match event {
                $( Event::$name { $( $field ),* } => {
                    payload::encode(&$name { $( $field: Frozen::freeze($field) ),* }, out);
                } )*
                Event::Unknown { payload, .. } => out.extend_from_slice(payload),
            }
        }

        /// The event of a type number and a payload of this version; `None` for a number that is not in the table.
        pub(crate) fn decode(number: u16, bytes: &[u8]) -> Option<Result<Event, String>> {
            match number {
                $( $number => Some(payload::decode::<$name>(bytes).map(
                    |$name { $( $field ),* }| Event::$name { $( $field: $field.thaw() ),* },
                )), )*
                _ => None,
            }
        }

        /// What another crate makes of a payload: the same bytes, written again.
        #[cfg(test)]
        pub(super) fn reencode_elsewhere(number: u16, bytes: &[u8]) -> Vec<u8> {
            use serde_wincode::{SerdeCompat, wincode::{Deserialize as _, Serialize as _}};
            match number {
                $( $number => {
                    let value = SerdeCompat::<$name>::deserialize(bytes).expect("the other crate reads it");
                    SerdeCompat::<$name>::serialize(&value).expect("the other crate writes it")
                } )*
                _ => panic!("{number} is not in the table"),
            }
        }

        #[cfg(test)]
        impl super::arbitrary::Arbitrary for Event {
            fn arbitrary(source: &mut super::arbitrary::Source) -> Self {
                Self::arbitrary_of(TYPES[source.below(TYPES.len())].number, source)
            }
        }

        #[cfg(test)]
        impl Event {
            /// Some event of one type.
            pub(super) fn arbitrary_of(number: u16, source: &mut super::arbitrary::Source) -> Self {
                match number {
                    $( $number => Self::$name { $( $field: super::arbitrary::Arbitrary::arbitrary(source) ),* }, )*
                    _ => panic!("{number} is not in the table"),
                }
            }
        }
    };
}

/// Who an event comes from by its number alone: each hundred of the table below has one class.
const fn class_of_number(number: u16) -> Class {
    match number {
        0..100 | 300..400 | 700..800 => Class::Asked,
        200..300 | 500..600 => Class::Decided,
        _ => Class::Observed,
    }
}

// The number of a type is for ever. A new type takes the next free number of its hundred.
events! {
    // Session.
    1 Asked SessionOpened<'a> { connection: Id, agent: &'a str, directory: &'a str, #[serde(borrow)] model: Option<&'a str>, #[serde(borrow)] title: Option<&'a str> }
    2 Asked MessageQueued<'a> { message: Id, #[serde(borrow)] key: Option<&'a str>, text: &'a str }
    3 Asked MessageCancelled { message: Id }
    4 Asked PermissionAnswered<'a> { message: Id, permission: &'a str, answer: PermissionAnswer }
    5 Asked TurnAbortAsked { message: Id }
    6 Asked SessionClosed {}
    7 Asked MessageRequeued { message: Id, again: Id }
    8 Asked MessageSteered { message: Id }
    9 Asked QuestionAnswered<'a> { message: Id, question: &'a str, #[serde(borrow)] answers: Option<Bytes<'a>> }
    10 Asked SessionForked<'a> { from: Id, at: Number, #[serde(borrow)] agent_session: Option<&'a str>, #[serde(borrow)] through: Option<&'a str>, #[serde(borrow)] context: Option<&'a str> }
    100 Observed AgentSessionBound<'a> { agent_session: &'a str }
    101 Observed DeliveryAccepted { message: Id, attempt: u32 }
    102 Observed DeliveryRejected<'a> { message: Id, attempt: u32, refusal: Refusal, reason: &'a str }
    103 Observed DeliveryUnknown<'a> { message: Id, attempt: u32, reason: &'a str }
    104 Observed DeliveryResolved<'a> { message: Id, attempt: u32, resolution: Resolution, evidence: &'a str }
    105 Observed TurnStarted { message: Id, run: u32 }
    106 Observed OutputAppended<'a> { message: Id, run: u32, part: &'a str, kind: OutputKind, placement: Placement, text: &'a str }
    107 Observed OutputReplaced<'a> { message: Id, run: u32, part: &'a str, kind: OutputKind, text: &'a str }
    108 Observed ToolCallStarted<'a> { message: Id, run: u32, call: &'a str, tool: &'a str, #[serde(borrow)] input: Bytes<'a> }
    109 Observed ToolCallEnded<'a> { message: Id, run: u32, call: &'a str, outcome: ToolOutcome, output: &'a str }
    110 Observed PermissionAsked<'a> { message: Id, permission: &'a str, action: &'a str, detail: &'a str, #[serde(borrow)] call: Option<&'a str> }
    111 Observed PermissionSettled<'a> { message: Id, permission: &'a str, answer: Option<PermissionAnswer> }
    112 Observed AgentRetried<'a> { message: Id, attempt: u32, reason: &'a str, next: Option<Time> }
    113 Observed AgentErrorReported<'a> { message: Id, name: &'a str, reason: &'a str }
    114 Observed TurnCompleted<'a> { message: Id, run: u32, finish: &'a str }
    115 Observed TurnFailed<'a> { message: Id, run: u32, reason: &'a str }
    116 Observed TurnAborted { message: Id, run: u32 }
    117 Observed TurnInterrupted<'a> { message: Id, run: u32, #[serde(borrow)] answers: Vec<&'a str>, evidence: &'a str }
    118 Observed FrameUnrecognised<'a> { kind: &'a str, #[serde(borrow)] frame: Bytes<'a> }
    119 Observed AgentSessionLost<'a> { agent_session: &'a str }
    120 Observed QuestionAsked<'a> { message: Id, question: &'a str, #[serde(borrow)] prompts: Bytes<'a>, #[serde(borrow)] call: Option<&'a str> }
    121 Observed QuestionSettled<'a> { message: Id, question: &'a str, #[serde(borrow)] answers: Option<Bytes<'a>> }
    122 Observed AgentForkRefused<'a> { reason: &'a str }
    123 Observed AgentSessionForked<'a> { agent_session: &'a str }
    124 Observed OutputOrdered<'a> { message: Id, run: u32, #[serde(borrow)] items: Vec<&'a str> }
    200 Decided AgentSessionRequested<'a> { marker: &'a str }
    201 Decided DeliveryStarted<'a> { message: Id, attempt: u32, agent_message: &'a str }
    202 Decided TurnRequested { message: Id, run: u32 }
    203 Decided RetryScheduled { message: Id, attempt: u32, at: Time }
    204 Decided MessageDeadLettered<'a> { message: Id, reason: &'a str }
    205 Decided TurnStalled<'a> { message: Id, run: u32, reason: &'a str }
    206 Decided RerunDecided<'a> { message: Id, run: u32, rerun: Rerun, reason: &'a str }
    207 Decided UnknownDecided<'a> { message: Id, attempt: u32, verdict: Verdict, reason: &'a str }
    208 Decided QuestionExpired<'a> { message: Id, question: &'a str, reason: &'a str }
    209 Decided ContextAdded { message: Id }

    // Connection.
    300 Asked ConnectionOpened<'a> { agent: &'a str, #[serde(borrow)] target: Target<'a> }
    400 Observed ServerSpawned { pid: u32, started: u64 }
    401 Observed ServerReady<'a> { url: &'a str, version: &'a str }
    402 Observed ServerExited<'a> { how: &'a str }
    403 Observed ConnectFailed<'a> { attempt: u32, reason: &'a str }
    404 Observed StreamOpened {}
    405 Observed StreamLost<'a> { reason: &'a str }
    406 Observed ProbeFailed<'a> { reason: &'a str }
    407 Observed ProbeRecovered {}
    408 Observed GapFound<'a> { agent_session: &'a str, from: u64, to: u64 }
    409 Observed GapFilled<'a> { agent_session: &'a str }
    410 Observed CapabilitiesFound<'a> { #[serde(borrow)] capabilities: Vec<&'a str> }
    500 Decided ConnectionChanged { from: ConnectionState, to: ConnectionState }
    501 Decided ServerStartDecided<'a> { mark: &'a str, port: u16 }
    502 Decided ServerStopDecided<'a> { reason: &'a str }
    503 Decided ReconnectScheduled { attempt: u32, at: Time }
    504 Decided CircuitOpened { failures: u32, until: Time }
    505 Decided CircuitHalfOpened {}
    506 Decided CircuitClosed {}

    // Engine.
    600 Observed EngineStarted<'a> { version: &'a str, pid: u32 }
    601 Observed RecoveryStarted { sessions: u64 }
    602 Observed RecoveryFinished { sessions: u64, resolved: u64, completed: u64, dead_lettered: u64, waiting: u64 }
    603 Observed EngineStopped {}

    // Any stream.
    700 Asked StreamCut { before: Number, hash: Digest }
    701 Asked PolicyAdopted<'a> { #[serde(borrow)] policy: Bytes<'a> }
    800 Observed TaskPanicked<'a> { reason: &'a str }
}

/// The number of [`Event::StreamCut`], which the log itself has to know.
pub(super) const STREAM_CUT: u16 = 700;

/// The bytes of a session's, a connection's or a message's id.
///
/// Serde would walk an array byte by byte. As two little-endian numbers the bytes are the same, and taken in two steps.
struct Id([u8; 10]);

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut head, mut tail) = ([0; 8], [0; 2]);
        head.copy_from_slice(&self.0[..8]);
        tail.copy_from_slice(&self.0[8..]);
        (u64::from_le_bytes(head), u16::from_le_bytes(tail)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (head, tail) = <(u64, u16)>::deserialize(deserializer)?;
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&head.to_le_bytes());
        bytes[8..].copy_from_slice(&tail.to_le_bytes());
        Ok(Self(bytes))
    }
}

/// Microseconds since 1970.
type Time = u64;

/// A number in a stream.
type Number = u64;

/// The bytes of a hash.
type Digest = [u8; 32];

macro_rules! same {
    ($($number:ty),*) => {
        $(
            impl Frozen<'_, $number> for $number {
                fn freeze(domain: &$number) -> Self {
                    *domain
                }
                fn thaw(self) -> $number {
                    self
                }
            }
        )*
    };
}
same!(u16, u32, u64);

macro_rules! ids {
    ($($id:ident),*) => {
        $(
            impl Frozen<'_, $id> for Id {
                fn freeze(domain: &$id) -> Self {
                    Self(domain.to_bytes())
                }
                fn thaw(self) -> $id {
                    $id::from_bytes(self.0)
                }
            }
        )*
    };
}
ids!(ConnectionId, MessageId, SessionId);

impl<'a> Frozen<'a, String> for &'a str {
    fn freeze(domain: &'a String) -> Self {
        domain
    }
    fn thaw(self) -> String {
        self.to_owned()
    }
}

impl<'a, D: 'a, F: Frozen<'a, D>> Frozen<'a, Option<D>> for Option<F> {
    fn freeze(domain: &'a Option<D>) -> Self {
        domain.as_ref().map(F::freeze)
    }
    fn thaw(self) -> Option<D> {
        self.map(F::thaw)
    }
}

impl<'a, D: 'a, F: Frozen<'a, D>> Frozen<'a, Vec<D>> for Vec<F> {
    fn freeze(domain: &'a Vec<D>) -> Self {
        domain.iter().map(F::freeze).collect()
    }
    fn thaw(self) -> Vec<D> {
        self.into_iter().map(F::thaw).collect()
    }
}

impl Frozen<'_, Timestamp> for Time {
    fn freeze(domain: &Timestamp) -> Self {
        domain.0
    }
    fn thaw(self) -> Timestamp {
        Timestamp(self)
    }
}

impl Frozen<'_, Seq> for Number {
    fn freeze(domain: &Seq) -> Self {
        domain.0
    }
    fn thaw(self) -> Seq {
        Seq(self)
    }
}

impl Frozen<'_, Hash> for Digest {
    fn freeze(domain: &Hash) -> Self {
        domain.0
    }
    fn thaw(self) -> Hash {
        Hash(self)
    }
}

/// A length and so many bytes; serde would take a slice for a sequence, and walk it byte by byte.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

impl<'a> Frozen<'a, Json> for Bytes<'a> {
    fn freeze(domain: &'a Json) -> Self {
        Self(&domain.0)
    }
    fn thaw(self) -> Json {
        Json(self.0.to_vec())
    }
}

/// Makes a frozen copy of a small enum: bincode writes the variant's place in this order, from 0, as four bytes.
macro_rules! choices {
    ($($name:ident { $($variant:ident),* })*) => {
        /// The choices without fields: their names and the names of their variants, in order.
        #[cfg(test)]
        pub(super) const CHOICES: &[(&str, &[&str])] = &[$( (stringify!($name), &[$( stringify!($variant) ),*]) ),*];

        $(
            #[derive(Serialize, Deserialize)]
            enum $name { $($variant),* }

            impl Frozen<'_, event::$name> for $name {
                fn freeze(domain: &event::$name) -> Self {
                    match domain { $( event::$name::$variant => Self::$variant ),* }
                }
                fn thaw(self) -> event::$name {
                    match self { $( Self::$variant => event::$name::$variant ),* }
                }
            }
        )*
    };
}

choices! {
    PermissionAnswer { Once, Always, Reject }
    OutputKind { Text, Reasoning }
    Placement { End, AfterHole, IntoHole }
    ToolOutcome { Completed, Failed, Lost }
    Resolution { Stored, Absent }
    Rerun { Run, Wait, GiveUp }
    ConnectionState { Disconnected, Connecting, Connected }
    Verdict { Wait, Resend, GiveUp, Arrived }
}

#[derive(Serialize, Deserialize)]
enum Refusal {
    NeverSent,
    ForNow { retry_after: Option<u64> },
    ForGood,
}

impl Frozen<'_, event::Refusal> for Refusal {
    fn freeze(domain: &event::Refusal) -> Self {
        match *domain {
            event::Refusal::NeverSent => Self::NeverSent,
            event::Refusal::ForNow { retry_after } => Self::ForNow { retry_after },
            event::Refusal::ForGood => Self::ForGood,
        }
    }
    fn thaw(self) -> event::Refusal {
        match self {
            Self::NeverSent => event::Refusal::NeverSent,
            Self::ForNow { retry_after } => event::Refusal::ForNow { retry_after },
            Self::ForGood => event::Refusal::ForGood,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Target<'a> {
    Url(&'a str),
    Managed {
        #[serde(borrow)]
        program: Option<&'a str>,
        directory: &'a str,
    },
}

impl<'a> Frozen<'a, event::Target> for Target<'a> {
    fn freeze(domain: &'a event::Target) -> Self {
        match domain {
            event::Target::Url(url) => Self::Url(url),
            event::Target::Managed { program, directory } => Self::Managed {
                program: program.as_deref(),
                directory,
            },
        }
    }
    fn thaw(self) -> event::Target {
        match self {
            Self::Url(url) => event::Target::Url(url.to_owned()),
            Self::Managed { program, directory } => event::Target::Managed {
                program: program.map(str::to_owned),
                directory: directory.to_owned(),
            },
        }
    }
}
