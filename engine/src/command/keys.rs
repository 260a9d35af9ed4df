//! A key names one message for ever, whatever becomes of the message, of the process and of its snapshots.

use std::collections::HashMap;

use proptest::prelude::*;
use recount_projections::{Projection, fold};
use recount_store::{
    Event, Hash, MessageId, Position, Recorded, Refusal, Seq, SessionId, StreamId, Timestamp,
    derived,
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

/// What may happen between two calls with a key.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// An application queues a text with a key.
    Queues { key: u8, text: u8 },
    /// The oldest open message is moved on, to one end or the other.
    MovesOn { how: u8 },
    /// The oldest dead letter is queued again.
    Requeues,
    /// The state leaves memory and comes back from its snapshot.
    IsEvicted,
    /// The engine starts anew, and all snapshots are gone.
    IsRebuilt,
    /// The session is closed.
    Closes,
    /// The front of the stream is cut off; what was there is in snapshots at most.
    IsCut,
}

#[derive(Default)]
struct World {
    log: Vec<Recorded>,
    state: Session,
    /// What each key was first used for.
    used: HashMap<u8, (u8, MessageId)>,
    messages: u128,
}

impl World {
    fn record(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let number = self.state.seq.next();
            let stream = StreamId::Session(SessionId::from_bytes([7; 10]));
            let recorded = NewEvent::live(event, NOW).recorded(stream, number, Position(number.0));
            self.state.apply(&recorded);
            self.log.push(recorded);
        }
    }

    fn ask(&mut self, command: Command) -> Result<Receipt, Rejection> {
        let bounds = Bounds {
            queue_depth_max: 3,
            queue_bytes_max: 100,
            steers: false,
        };
        let (events, receipt) = decide(&self.state, command, bounds, NOW)?;
        self.record(events.into_iter().map(|new| new.event));
        Ok(receipt)
    }

    fn new_id(&mut self) -> MessageId {
        self.messages += 1;
        MessageId::from_random(self.messages)
    }

    fn queue(&mut self, key: u8, text: u8) {
        let message = self.new_id();
        let answer = self.ask(Command::Queue {
            message,
            key: Some(format!("key {key}")),
            text: format!("text {text}"),
        });
        let cut = self.state.queue.by_key(&format!("key {key}")).is_none();
        match (self.used.get(&key), answer) {
            // A log that lost its beginning, and its snapshots, takes nothing any more rather than something twice.
            (Some(_), Err(Rejection::Closed)) => assert!(cut && self.state.closed),
            (Some((known, first)), Ok(receipt)) => {
                assert_eq!((receipt.message, receipt.new), (Some(*first), false));
                assert_eq!(*known, text);
            }
            (Some((known, _)), Err(rejection)) => {
                assert!(matches!(rejection, Rejection::KeyConflict { .. }));
                assert_ne!(*known, text);
            }
            (None, Ok(receipt)) => {
                assert_eq!((receipt.message, receipt.new), (Some(message), true));
                self.used.insert(key, (text, message));
            }
            (None, Err(rejection)) => assert!(matches!(
                rejection,
                Rejection::Closed | Rejection::QueueFull { .. }
            )),
        }
    }

    fn move_on(&mut self, how: u8) {
        let Some(message) = self.state.queue.head().map(|message| message.id) else {
            return;
        };
        let attempt = 1;
        self.record([match how {
            0 => Event::DeliveryStarted {
                message,
                attempt,
                agent_message: "a".to_owned(),
            },
            1 => Event::DeliveryRejected {
                message,
                attempt,
                refusal: Refusal::ForGood,
                reason: String::new(),
            },
            2 => Event::TurnCompleted {
                message,
                run: 1,
                finish: "stop".to_owned(),
            },
            3 => Event::MessageCancelled { message },
            _ => Event::MessageDeadLettered {
                message,
                reason: String::new(),
            },
        }]);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Queues { key, text } => self.queue(key, text),
            Happening::MovesOn { how } => self.move_on(how),
            Happening::Requeues => {
                let dead = self.state.queue.dead_letters().next();
                if let Some(message) = dead.map(|(message, _)| message.id) {
                    let again = self.new_id();
                    let _ = self.ask(Command::Requeue {
                        message,
                        again,
                        text: "text".to_owned(),
                        even_if_it_may_double: true,
                    });
                }
            }
            Happening::IsEvicted => {
                let bytes = derived::encode(&self.state);
                self.state = derived::decode(&bytes).expect("it reads back");
            }
            Happening::IsRebuilt => self.state = fold(&self.log),
            Happening::Closes => {
                let _ = self.ask(Command::Close);
            }
            Happening::IsCut => {
                let middle = self.log.len() / 2;
                self.log.drain(..middle);
                let before = self.log.first().map_or(Seq::FIRST, |first| first.seq);
                let hash = Hash([7; 32]);
                self.record([Event::StreamCut { before, hash }]);
            }
        }
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        12 => (0_u8..4, 0_u8..2).prop_map(|(key, text)| Happening::Queues { key, text }),
        6 => (0_u8..5).prop_map(|how| Happening::MovesOn { how }),
        2 => Just(Happening::Requeues),
        2 => Just(Happening::IsEvicted),
        2 => Just(Happening::IsRebuilt),
        1 => Just(Happening::Closes),
        1 => Just(Happening::IsCut),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn a_key_names_one_message_for_ever(happenings in happenings()) {
        let mut world = World::default();
        for happening in happenings {
            world.happen(happening);
        }
    }
}
