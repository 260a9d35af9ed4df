//! What an application can ask of a session, and what is answered: pure.

use recount_projections::turn::{Asks, Question};
use recount_projections::{Message, MessageState, Session, WaitsFor, queue::content_hash};
use recount_store::{
    Cause, Event, Json, MessageId, NewEvent, PermissionAnswer, Prompt, Rerun, Timestamp, Verdict,
};

use crate::limits;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Queue a message. Safe to repeat with the same key and the same text.
    Queue {
        /// The id that it shall have, if it is new.
        message: MessageId,
        /// The application's idempotency key.
        key: Option<String>,
        /// What the agent is to read.
        text: String,
    },
    /// Queue a message that is to reach the agent while it works, not after, if nothing is queued before it. Safe to repeat
    /// like [`Command::Queue`].
    Steer {
        /// The id that it shall have, if it is new.
        message: MessageId,
        /// The application's idempotency key.
        key: Option<String>,
        /// What the agent is to read.
        text: String,
    },
    /// Take a message back that the agent certainly does not hold.
    Cancel {
        /// The message.
        message: MessageId,
    },
    /// End the work on the oldest open message.
    Abort,
    /// Answer when the agent asks for permission.
    Answer {
        /// The agent's name for it; `None` is the oldest open one.
        permission: Option<String>,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// Answer a question in words, or say that it will not be answered.
    AnswerQuestion {
        /// The agent's name for it; `None` is the oldest open one.
        question: Option<String>,
        /// The chosen or written texts for each prompt; `None` refuses it.
        answers: Option<Vec<Vec<String>>>,
    },
    /// Say what becomes of a turn that waits for a person.
    Rerun {
        /// Whether it is run again; else it has failed.
        run: bool,
    },
    /// Say what became of a message that waits for it, the agent being unable to tell.
    Resolve {
        /// A person's word.
        word: Word,
    },
    /// Queue a dead letter again, as a new message. Safe to repeat: there is one new message for each.
    Requeue {
        /// The dead letter.
        message: MessageId,
        /// The id that the new one shall have, if there is none yet.
        again: MessageId,
        /// Its text, which the state forgot when it was given up.
        text: String,
        /// Whether it is queued again even where the agent may hold it: it may then be answered twice.
        even_if_it_may_double: bool,
    },
    /// Close the session. Nothing can be queued any more; what is open is carried to its end.
    Close,
}

/// A person's word on a message of which the agent cannot say whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It arrived: it is taken as held, and worked on.
    Arrived,
    /// It did not, or may be doubled: it is sent again.
    Resend,
    /// It is given up.
    GiveUp,
}

/// What a session takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many messages may wait.
    pub queue_depth_max: usize,
    /// How many bytes of text may wait.
    pub queue_bytes_max: usize,
    /// Whether its agent reads a message while it works on the one before it.
    pub steers: bool,
}

/// What the asker gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message that was meant.
    pub message: Option<MessageId>,
    /// Whether this call changed anything: not where a repeated key named a message that is there.
    pub new: bool,
}

/// Why a command was refused. An answer to the asker: nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The session is closed.
    #[error("the session is closed: open another one")]
    Closed,
    /// There is nothing to say.
    #[error("the message is empty: there is nothing to send")]
    Empty,
    /// The message is too long.
    #[error(
        "the message has {bytes} bytes; at most {limit} are taken: put long material into a file that the agent can read"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Too many messages wait.
    #[error("{depth} messages wait already, and at most {limit} may: wait for some of them")]
    QueueFull {
        /// How many.
        depth: usize,
        /// The bound.
        limit: usize,
    },
    /// Too much text waits.
    #[error(
        "with this message {bytes} bytes would wait, and at most {limit} may: wait for some of them"
    )]
    QueueBytesFull {
        /// How many there would be.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The agent reads nothing while it works.
    #[error("this agent cannot be steered: queue the message, and it is read when its turn comes")]
    CannotSteer,
    /// The key was used for another text.
    #[error("the key {key:?} was used before for another text: a key names one message for ever")]
    KeyConflict {
        /// The key.
        key: String,
    },
    /// No such message.
    #[error("the session has no message {message}")]
    UnknownMessage {
        /// The id.
        message: MessageId,
    },
    /// The message cannot be taken back.
    #[error(
        "the message is {}: only one that the agent does not hold can be cancelled; abort its turn instead",
        state.name()
    )]
    AlreadySent {
        /// Where it stands.
        state: MessageState,
    },
    /// Nothing is open.
    #[error("nothing is open in this session")]
    NothingOpen,
    /// The agent asks nothing, or not that.
    #[error("the agent asks no such thing")]
    NoSuchQuestion,
    /// The answers do not fit the prompts of the question.
    #[error("the answers do not fit the question: {reason}")]
    NoAnswer {
        /// What does not fit.
        reason: String,
    },
    /// No message's outcome waits for a person.
    #[error("no message of this session waits for a person's word on whether it arrived")]
    OutcomeNotAsked,
    /// It was not given up.
    #[error("the message is {}: only a dead letter can be queued again", state.name())]
    NoDeadLetter {
        /// Where it stands.
        state: MessageState,
    },
    /// The agent may hold it.
    #[error(
        "nobody found out whether the agent got the message {message} before it was given up: queued again it may be answered twice; say that it may, to queue it all the same"
    )]
    MayDouble {
        /// The message.
        message: MessageId,
    },
    /// No turn waits for a person.
    #[error("no turn waits for a person's word in this session")]
    NotWaiting,
}

/// By which rule something was decided that only a person could decide.
const A_PERSONS_WORD: &str = "a person's word";

/// What a command leads to.
pub type Decision = Result<(Vec<NewEvent>, Receipt), Rejection>;

/// What follows from a command, given where the session stands.
///
/// # Errors
///
/// A [`Rejection`] where the session's state does not allow it.
pub fn decide(state: &Session, command: Command, bounds: Bounds, now: Timestamp) -> Decision {
    match command {
        Command::Queue { message, key, text } => queue(state, message, key, text, bounds, now),
        Command::Steer { message, key, text } => steer(state, message, key, text, bounds, now),
        Command::Cancel { message } => cancel(state, message, now),
        Command::Resolve { word } => resolve(state, word, now),
        Command::Requeue {
            message,
            again,
            text,
            even_if_it_may_double,
        } => requeue(
            state,
            (message, again),
            text,
            even_if_it_may_double,
            bounds,
            now,
        ),
        Command::Abort => {
            let known = state.queue.head().ok_or(Rejection::NothingOpen)?;
            if known.abort_asked {
                return Ok(unchanged(known));
            }
            Ok(about(
                known,
                Event::TurnAbortAsked { message: known.id },
                now,
            ))
        }
        Command::Answer { permission, answer } => {
            let (known, question, ()) = asked(state, permission.as_deref(), |asks| match asks {
                Asks::Permission { .. } => Some(()),
                Asks::Words(_) => None,
            })?;
            let permission = question.id.clone();
            let event = Event::PermissionAnswered {
                message: known.id,
                permission,
                answer,
            };
            Ok(about(known, event, now))
        }
        Command::AnswerQuestion { question, answers } => {
            let (known, question, prompts) =
                asked(state, question.as_deref(), |asks| match asks {
                    Asks::Permission { .. } => None,
                    Asks::Words(prompts) => Some(prompts),
                })?;
            if let Some(answers) = &answers {
                fits(prompts, answers)?;
            }
            let event = Event::QuestionAnswered {
                message: known.id,
                question: question.id.clone(),
                answers: answers.map(|answers| Json::of(&answers)),
            };
            Ok(about(known, event, now))
        }
        Command::Rerun { run } => {
            let (known, turn) = state.head().ok_or(Rejection::NothingOpen)?;
            let (Some(WaitsFor::Rerun), Some(turn)) = (known.waits_for, turn) else {
                return Err(Rejection::NotWaiting);
            };
            Ok(rerun(known, turn.run().number, run, now))
        }
        Command::Close => {
            if state.closed {
                return Err(Rejection::Closed);
            }
            let event = NewEvent::live(Event::SessionClosed, now).because(Cause::At(state.last));
            Ok((
                vec![event],
                Receipt {
                    message: None,
                    new: true,
                },
            ))
        }
    }
}

/// Has what a person decided say why, in that person's words, beside that it was a person.
pub fn explain(decided: &mut [NewEvent], because: &str) {
    for new in decided {
        if let Event::RerunDecided { reason, .. } | Event::UnknownDecided { reason, .. } =
            &mut new.event
        {
            *reason = format!("{A_PERSONS_WORD}: {because}");
        }
    }
}

fn queue(
    state: &Session,
    message: MessageId,
    key: Option<String>,
    text: String,
    bounds: Bounds,
    now: Timestamp,
) -> Decision {
    // First of all, so that a repeat gives the same receipt whatever happened since.
    if let Some(key) = &key
        && let Some(known) = state.queue.by_key(key)
    {
        return if known.content == content_hash(&text) {
            Ok(unchanged(known))
        } else {
            Err(Rejection::KeyConflict { key: key.clone() })
        };
    }
    if state.closed {
        return Err(Rejection::Closed);
    }
    if text.trim().is_empty() {
        return Err(Rejection::Empty);
    }
    if text.len() > limits::MESSAGE_BYTES_MAX {
        return Err(Rejection::TooLong {
            bytes: text.len(),
            limit: limits::MESSAGE_BYTES_MAX,
        });
    }
    let (depth, limit) = (state.queue.open().count(), bounds.queue_depth_max);
    if depth >= limit {
        return Err(Rejection::QueueFull { depth, limit });
    }
    let (bytes, limit) = (state.queue.bytes() + text.len(), bounds.queue_bytes_max);
    if bytes > limit {
        return Err(Rejection::QueueBytesFull { bytes, limit });
    }
    let event = NewEvent::live(Event::MessageQueued { message, key, text }, now);
    Ok((
        vec![event],
        Receipt {
            message: Some(message),
            new: true,
        },
    ))
}

/// The open question of this name, or the oldest, of those that are of a kind; with the message whose turn asks it.
fn asked<'a, T>(
    state: &'a Session,
    id: Option<&str>,
    kind: impl Fn(&'a Asks) -> Option<T>,
) -> Result<(&'a Message, &'a Question, T), Rejection> {
    let (known, turn) = state.head().ok_or(Rejection::NothingOpen)?;
    turn.into_iter()
        .flat_map(recount_projections::Turn::open_questions)
        .filter(|question| id.is_none_or(|id| id == question.id))
        .find_map(|question| Some((known, question, kind(&question.asks)?)))
        .ok_or(Rejection::NoSuchQuestion)
}

/// Refuses answers that an agent would take for others, or could not take.
fn fits(prompts: &[Prompt], answers: &[Vec<String>]) -> Result<(), Rejection> {
    let refused = |reason| Err(Rejection::NoAnswer { reason });
    if prompts.len() != answers.len() {
        return refused(format!(
            "it has {} prompts, and {} are answered",
            prompts.len(),
            answers.len()
        ));
    }
    for (prompt, texts) in prompts.iter().zip(answers) {
        if texts.len() > 1 && !prompt.multiple {
            return refused(format!("one answer is to be given to {:?}", prompt.text));
        }
        let offered = |text: &String| prompt.options.iter().any(|option| option.label == *text);
        if let Some(other) = texts.iter().find(|text| !prompt.custom && !offered(text)) {
            return refused(format!("{:?} does not offer {other:?}", prompt.text));
        }
    }
    let bytes = answers.iter().flatten().map(String::len).sum();
    if bytes > limits::MESSAGE_BYTES_MAX {
        return Err(Rejection::TooLong {
            bytes,
            limit: limits::MESSAGE_BYTES_MAX,
        });
    }
    Ok(())
}

fn steer(
    state: &Session,
    message: MessageId,
    key: Option<String>,
    text: String,
    bounds: Bounds,
    now: Timestamp,
) -> Decision {
    if !bounds.steers {
        return Err(Rejection::CannotSteer);
    }
    let (mut events, receipt) = queue(state, message, key, text, bounds, now)?;
    if receipt.new {
        let steered = Event::MessageSteered { message };
        events.push(NewEvent::live(steered, now).because(Cause::Sibling(0)));
    }
    Ok((events, receipt))
}

fn cancel(state: &Session, message: MessageId, now: Timestamp) -> Decision {
    let known = known(state, message)?;
    let event = Event::MessageCancelled { message };
    match known.state {
        MessageState::Queued => Ok(about(known, event, now)),
        // The agent never held it, or is proved not to.
        MessageState::Refused if !known.unproved => Ok(about(known, event, now)),
        MessageState::Cancelled => Ok(unchanged(known)),
        state => Err(Rejection::AlreadySent { state }),
    }
}

fn resolve(state: &Session, word: Word, now: Timestamp) -> Decision {
    let known = state.queue.head().ok_or(Rejection::NothingOpen)?;
    if known.waits_for != Some(WaitsFor::Outcome) {
        return Err(Rejection::OutcomeNotAsked);
    }
    let message = known.id;
    let verdict = match word {
        Word::Arrived => Verdict::Arrived,
        Word::Resend => Verdict::Resend,
        Word::GiveUp => Verdict::GiveUp,
    };
    let decided = Event::UnknownDecided {
        message,
        attempt: known.attempts,
        verdict,
        reason: A_PERSONS_WORD.to_owned(),
    };
    let (mut events, receipt) = about(known, decided, now);
    if word == Word::GiveUp {
        let reason = "nobody knows whether it arrived, and a person gave it up".to_owned();
        let given_up = Event::MessageDeadLettered { message, reason };
        events.push(NewEvent::live(given_up, now).because(Cause::Sibling(0)));
    }
    Ok((events, receipt))
}

fn requeue(
    state: &Session,
    (message, again): (MessageId, MessageId),
    text: String,
    even_if_it_may_double: bool,
    bounds: Bounds,
    now: Timestamp,
) -> Decision {
    let known = known(state, message)?;
    let Some(given_up) = known.given_up else {
        let state = known.state;
        return Err(Rejection::NoDeadLetter { state });
    };
    if let Some(again) = given_up.again {
        let receipt = Receipt {
            message: Some(again),
            new: false,
        };
        return Ok((Vec::new(), receipt));
    }
    if given_up.unknown && !even_if_it_may_double {
        return Err(Rejection::MayDouble { message });
    }
    let (mut events, receipt) = queue(state, again, None, text, bounds, now)?;
    for event in &mut events {
        event.cause = Cause::At(known.moved);
    }
    let requeued = Event::MessageRequeued { message, again };
    events.push(NewEvent::live(requeued, now).because(Cause::Sibling(0)));
    Ok((events, receipt))
}

fn known(state: &Session, message: MessageId) -> Result<&Message, Rejection> {
    let known = state.queue.get(message);
    known.ok_or(Rejection::UnknownMessage { message })
}

fn about(known: &Message, event: Event, now: Timestamp) -> (Vec<NewEvent>, Receipt) {
    let event = NewEvent::live(event, now).because(Cause::At(known.moved));
    (
        vec![event],
        Receipt {
            message: Some(known.id),
            new: true,
        },
    )
}

fn unchanged(known: &Message) -> (Vec<NewEvent>, Receipt) {
    (
        Vec::new(),
        Receipt {
            message: Some(known.id),
            new: false,
        },
    )
}

fn rerun(known: &Message, run: u32, again: bool, now: Timestamp) -> (Vec<NewEvent>, Receipt) {
    let message = known.id;
    let rerun = if again { Rerun::Run } else { Rerun::GiveUp };
    let reason = A_PERSONS_WORD.to_owned();
    let (mut events, receipt) = about(
        known,
        Event::RerunDecided {
            message,
            run,
            rerun,
            reason,
        },
        now,
    );
    if !again {
        let reason = "the agent died in it, and a person gave it up".to_owned();
        let failed = Event::TurnFailed {
            message,
            run,
            reason,
        };
        events.push(NewEvent::live(failed, now).because(Cause::Sibling(0)));
    }
    (events, receipt)
}

#[cfg(test)]
mod keys;

#[cfg(test)]
mod tests {
    use super::*;
    use recount_projections::fold;
    use recount_store::{
        Choice, Event as E, Position, Recorded, Refusal, Seq, SessionId, StreamId,
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
    const BOUNDS: Bounds = Bounds {
        queue_depth_max: 2,
        queue_bytes_max: 100,
        steers: true,
    };
    const M1: MessageId = MessageId::from_bytes([1; 10]);
    const M2: MessageId = MessageId::from_bytes([2; 10]);
    const M3: MessageId = MessageId::from_bytes([3; 10]);

    fn given(events: impl IntoIterator<Item = Event>) -> Session {
        let stream = StreamId::Session(SessionId::from_bytes([7; 10]));
        let recorded: Vec<Recorded> = (1..)
            .zip(events)
            .map(|(n, event)| NewEvent::live(event, NOW).recorded(stream, Seq(n), Position(n)))
            .collect();
        fold(&recorded)
    }

    fn when(state: &Session, command: Command) -> Decision {
        decide(state, command, BOUNDS, NOW)
    }

    /// These events follow, the first from the one at `cause`.
    // Whole decisions, here and below, so that they compare with what `when` gives.
    #[allow(clippy::unnecessary_wraps)]
    fn new(
        events: impl IntoIterator<Item = Event>,
        cause: Cause,
        message: Option<MessageId>,
    ) -> Decision {
        let events = events.into_iter().enumerate().map(|(index, event)| {
            let cause = index.checked_sub(1).map_or(cause, Cause::Sibling);
            NewEvent::live(event, NOW).because(cause)
        });
        Ok((events.collect(), Receipt { message, new: true }))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn known(message: MessageId) -> Decision {
        let message = Some(message);
        Ok((
            Vec::new(),
            Receipt {
                message,
                new: false,
            },
        ))
    }

    fn say(message: MessageId, key: Option<&str>, text: &str) -> Command {
        Command::Queue {
            message,
            key: key.map(str::to_owned),
            text: text.to_owned(),
        }
    }

    fn queued(message: MessageId, key: Option<&str>) -> Event {
        E::MessageQueued {
            message,
            key: key.map(str::to_owned),
            text: "hi".to_owned(),
        }
    }

    fn sending(message: MessageId) -> Event {
        E::DeliveryStarted {
            message,
            attempt: 1,
            agent_message: "a".to_owned(),
        }
    }

    fn cancelled(message: MessageId) -> Event {
        E::MessageCancelled { message }
    }

    fn abort_asked(message: MessageId) -> Event {
        E::TurnAbortAsked { message }
    }

    /// A message of which nobody knows whether it arrived.
    fn lost() -> Vec<Event> {
        let unknown = E::DeliveryUnknown {
            message: M1,
            attempt: 1,
            reason: String::new(),
        };
        vec![queued(M1, None), sending(M1), unknown]
    }

    fn unknown_decided(verdict: Verdict, reason: &str) -> Event {
        E::UnknownDecided {
            message: M1,
            attempt: 1,
            verdict,
            reason: reason.to_owned(),
        }
    }

    fn given_up(reason: &str) -> Event {
        E::MessageDeadLettered {
            message: M1,
            reason: reason.to_owned(),
        }
    }

    fn requeued(again: MessageId) -> Event {
        E::MessageRequeued { message: M1, again }
    }

    fn requeue(again: MessageId, even_if_it_may_double: bool) -> Command {
        Command::Requeue {
            message: M1,
            again,
            text: "hi".to_owned(),
            even_if_it_may_double,
        }
    }

    fn running() -> Vec<Event> {
        vec![
            queued(M1, None),
            sending(M1),
            E::TurnRequested {
                message: M1,
                run: 1,
            },
            E::TurnStarted {
                message: M1,
                run: 1,
            },
        ]
    }

    fn asked(permission: &str) -> Event {
        E::PermissionAsked {
            message: M1,
            permission: permission.to_owned(),
            action: "bash".to_owned(),
            detail: "ls".to_owned(),
            call: None,
        }
    }

    fn answered(permission: &str) -> Event {
        E::PermissionAnswered {
            message: M1,
            permission: permission.to_owned(),
            answer: PermissionAnswer::Once,
        }
    }

    fn answer(permission: Option<&str>) -> Command {
        Command::Answer {
            permission: permission.map(str::to_owned),
            answer: PermissionAnswer::Once,
        }
    }

    fn waiting() -> Vec<Event> {
        let mut events = running();
        events.push(E::TurnInterrupted {
            message: M1,
            run: 1,
            answers: Vec::new(),
            evidence: String::new(),
        });
        events.push(E::RerunDecided {
            message: M1,
            run: 1,
            rerun: Rerun::Wait,
            reason: String::new(),
        });
        events
    }

    fn decided(rerun: Rerun) -> Event {
        E::RerunDecided {
            message: M1,
            run: 1,
            rerun,
            reason: "a person's word".to_owned(),
        }
    }

    #[test]
    fn a_message_is_queued() {
        assert_eq!(
            when(&given([]), say(M1, Some("k"), "hi")),
            new([queued(M1, Some("k"))], Cause::None, Some(M1))
        );
    }

    #[test]
    fn the_same_key_and_text_give_the_same_receipt_whatever_happened_since() {
        let k = Some("k");
        for since in [
            vec![],
            vec![queued(M2, None)],
            vec![cancelled(M1)],
            vec![E::SessionClosed],
        ] {
            let state = given([vec![queued(M1, k)], since].concat());
            assert_eq!(when(&state, say(M3, k, "hi")), known(M1));
        }
    }

    #[test]
    fn a_message_that_steers_is_queued_as_one_and_once() {
        let steer = |message| Command::Steer {
            message,
            key: Some("k".to_owned()),
            text: "hi".to_owned(),
        };
        let steered = E::MessageSteered { message: M1 };
        let events = [queued(M1, Some("k")), steered];
        let expected = new(events.clone(), Cause::None, Some(M1));
        assert_eq!(when(&given([]), steer(M1)), expected);
        assert_eq!(when(&given(events), steer(M2)), known(M1));
        let bounds = Bounds {
            steers: false,
            ..BOUNDS
        };
        let refused = decide(&given([]), steer(M1), bounds, NOW);
        assert_eq!(refused, Err(Rejection::CannotSteer));
    }

    #[test]
    fn the_same_key_for_another_text_is_refused() {
        let state = given([queued(M1, Some("k"))]);
        let key = "k".to_owned();
        let conflict = Err(Rejection::KeyConflict { key });
        assert_eq!(when(&state, say(M2, Some("k"), "other")), conflict);
    }

    #[test]
    fn what_cannot_be_queued_is_refused() {
        let empty = given([]);
        let full = given([queued(M1, None), queued(M2, None)]);
        let closed = given([E::SessionClosed]);
        let bytes = limits::MESSAGE_BYTES_MAX + 1;
        let limit = limits::MESSAGE_BYTES_MAX;
        let long = "x".repeat(bytes);
        let one = given([queued(M1, None)]);
        let heavy = "x".repeat(99);
        let too_heavy = Rejection::QueueBytesFull {
            bytes: 101,
            limit: 100,
        };
        for (state, text, rejection) in [
            (&empty, " \n", Rejection::Empty),
            (&empty, &long, Rejection::TooLong { bytes, limit }),
            (&full, "hi", Rejection::QueueFull { depth: 2, limit: 2 }),
            (&one, &heavy, too_heavy),
            (&closed, "hi", Rejection::Closed),
        ] {
            assert_eq!(when(state, say(M3, None, text)), Err(rejection));
        }
    }

    #[test]
    fn only_what_was_not_sent_is_cancelled() {
        let cancel = |message| Command::Cancel { message };
        let state = given([queued(M1, None)]);
        assert_eq!(
            when(&state, cancel(M1)),
            new([cancelled(M1)], Cause::At(Position(1)), Some(M1))
        );
        assert_eq!(
            when(&state, cancel(M2)),
            Err(Rejection::UnknownMessage { message: M2 })
        );
        let state = given([queued(M1, None), cancelled(M1)]);
        assert_eq!(when(&state, cancel(M1)), known(M1));
        let state = MessageState::Sending;
        assert_eq!(
            when(&given([queued(M1, None), sending(M1)]), cancel(M1)),
            Err(Rejection::AlreadySent { state })
        );
    }

    #[test]
    fn what_certainly_did_not_arrive_is_cancelled_and_what_may_have_is_not() {
        let refused = || E::DeliveryRejected {
            message: M1,
            attempt: 1,
            refusal: Refusal::NeverSent,
            reason: String::new(),
        };
        let cancel = Command::Cancel { message: M1 };
        let events = [queued(M1, None), sending(M1), refused()];
        let expected = new([cancelled(M1)], Cause::At(Position(3)), Some(M1));
        assert_eq!(when(&given(events), cancel.clone()), expected);
        // Sent again though nobody knew, and refused then: the first one may have arrived.
        let resend = unknown_decided(Verdict::Resend, "");
        let mut events = lost();
        events.extend([resend, sending(M1), refused()]);
        let state = MessageState::Refused;
        let expected = Err(Rejection::AlreadySent { state });
        assert_eq!(when(&given(events), cancel), expected);
    }

    #[test]
    fn a_word_is_about_a_message_whose_outcome_waits_for_it() {
        let word = |word| Command::Resolve { word };
        let arrived = word(Word::Arrived);
        let nothing = Err(Rejection::NothingOpen);
        assert_eq!(when(&given([]), arrived.clone()), nothing);
        let not_asked = Err(Rejection::OutcomeNotAsked);
        assert_eq!(when(&given(lost()), arrived.clone()), not_asked);
        assert_eq!(when(&given(waiting()), arrived), not_asked);

        let mut events = lost();
        events.push(unknown_decided(Verdict::Wait, ""));
        let state = given(events);
        assert_eq!(
            when(&state, Command::Rerun { run: true }),
            Err(Rejection::NotWaiting)
        );
        let cause = Cause::At(Position(4));
        for (said, verdict) in [
            (Word::Arrived, Verdict::Arrived),
            (Word::Resend, Verdict::Resend),
        ] {
            let decided = unknown_decided(verdict, A_PERSONS_WORD);
            assert_eq!(when(&state, word(said)), new([decided], cause, Some(M1)));
        }
        let decided = unknown_decided(Verdict::GiveUp, A_PERSONS_WORD);
        let reason = "nobody knows whether it arrived, and a person gave it up";
        let expected = new([decided, given_up(reason)], cause, Some(M1));
        assert_eq!(when(&state, word(Word::GiveUp)), expected);
    }

    #[test]
    fn a_dead_letter_is_queued_again_once_as_another_message() {
        let dead = [queued(M1, Some("k")), given_up("")];
        let state = given(dead.clone());
        let expected = new(
            [queued(M2, None), requeued(M2)],
            Cause::At(Position(2)),
            Some(M2),
        );
        assert_eq!(when(&state, requeue(M2, false)), expected);
        // A repeat names the message that it is by now, whatever became of that one.
        let again = [queued(M2, None), requeued(M2)];
        for since in [vec![], vec![cancelled(M2)], vec![E::SessionClosed]] {
            let events = dead.iter().chain(&again).cloned().chain(since);
            assert_eq!(when(&given(events), requeue(M3, false)), known(M2));
        }
        // And the key names the first one for ever.
        assert_eq!(when(&state, say(M3, Some("k"), "hi")), known(M1));
    }

    #[test]
    fn only_a_dead_letter_is_queued_again_and_only_where_it_cannot_be_doubled_unasked() {
        let refused = |events: Vec<Event>, rejection| {
            assert_eq!(when(&given(events), requeue(M3, false)), Err(rejection));
        };
        refused(vec![], Rejection::UnknownMessage { message: M1 });
        let open = vec![queued(M1, None)];
        let state = MessageState::Queued;
        refused(open, Rejection::NoDeadLetter { state });
        let cancelled = vec![queued(M1, None), cancelled(M1)];
        let state = MessageState::Cancelled;
        refused(cancelled, Rejection::NoDeadLetter { state });
        let dead = vec![queued(M1, None), given_up("")];
        let closed = [dead.clone(), vec![E::SessionClosed]].concat();
        refused(closed, Rejection::Closed);
        let full = [dead, vec![queued(M2, None), queued(M3, None)]].concat();
        refused(full, Rejection::QueueFull { depth: 2, limit: 2 });

        let mut unknown = lost();
        unknown.push(given_up(""));
        refused(unknown.clone(), Rejection::MayDouble { message: M1 });
        assert!(when(&given(unknown), requeue(M3, true)).is_ok());
    }

    #[test]
    fn an_abort_is_of_the_oldest_open_message_and_recorded_once() {
        assert_eq!(
            when(&given([]), Command::Abort),
            Err(Rejection::NothingOpen)
        );
        let state = given([queued(M1, None), cancelled(M1), queued(M2, None)]);
        assert_eq!(
            when(&state, Command::Abort),
            new([abort_asked(M2)], Cause::At(Position(3)), Some(M2))
        );
        let state = given([queued(M1, None), abort_asked(M1)]);
        assert_eq!(when(&state, Command::Abort), known(M1));
    }

    #[test]
    fn an_answer_is_to_an_open_question() {
        assert_eq!(when(&given([]), answer(None)), Err(Rejection::NothingOpen));
        let none = given(running());
        assert_eq!(when(&none, answer(None)), Err(Rejection::NoSuchQuestion));
        let two = given([running(), vec![asked("p"), asked("q")]].concat());
        let cause = Cause::At(Position(4));
        for (permission, meant) in [(None, "p"), (Some("p"), "p"), (Some("q"), "q")] {
            let expected = new([answered(meant)], cause, Some(M1));
            assert_eq!(when(&two, answer(permission)), expected);
        }
        assert_eq!(
            when(&two, answer(Some("r"))),
            Err(Rejection::NoSuchQuestion)
        );
        let one = given([running(), vec![asked("p"), answered("p")]].concat());
        assert_eq!(when(&one, answer(None)), Err(Rejection::NoSuchQuestion));
    }

    #[test]
    fn an_answer_in_words_fits_its_question() {
        let prompt = |text: &str, multiple, custom| Prompt {
            header: String::new(),
            text: text.to_owned(),
            options: ["a", "b"]
                .map(|label| Choice {
                    label: label.to_owned(),
                    about: String::new(),
                })
                .to_vec(),
            multiple,
            custom,
        };
        let prompts = vec![prompt("one?", false, false), prompt("many?", true, true)];
        let asks = E::QuestionAsked {
            message: M1,
            question: "w".to_owned(),
            prompts: Json::of(&prompts),
            call: None,
        };
        let state = given([running(), vec![asked("p"), asks]].concat());
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let say = |question: Option<&str>, answers: &[&[&str]]| Command::AnswerQuestion {
            question: question.map(str::to_owned),
            answers: Some(answers.iter().map(|given| texts(given)).collect()),
        };
        let recorded = |answers: Option<&str>| {
            let event = E::QuestionAnswered {
                message: M1,
                question: "w".to_owned(),
                answers: answers.map(|json| Json(json.into())),
            };
            new([event], Cause::At(Position(4)), Some(M1))
        };
        for (given, json) in [
            (
                &[&["a"][..], &["a", "other"]][..],
                r#"[["a"],["a","other"]]"#,
            ),
            (&[&[][..], &[]][..], "[[],[]]"),
        ] {
            assert_eq!(when(&state, say(None, given)), recorded(Some(json)));
            assert_eq!(when(&state, say(Some("w"), given)), recorded(Some(json)));
        }
        let refuse = Command::AnswerQuestion {
            question: None,
            answers: None,
        };
        assert_eq!(when(&state, refuse), recorded(None));
        for (given, reason) in [
            (&[&["a"][..]][..], "it has 2 prompts, and 1 are answered"),
            (
                &[&["a", "b"][..], &[]][..],
                "one answer is to be given to \"one?\"",
            ),
            (&[&["c"][..], &[]][..], "\"one?\" does not offer \"c\""),
        ] {
            let reason = reason.to_owned();
            assert_eq!(
                when(&state, say(None, given)),
                Err(Rejection::NoAnswer { reason })
            );
        }
        let long = "x".repeat(limits::MESSAGE_BYTES_MAX + 1);
        assert_eq!(
            when(&state, say(None, &[&[], &[&long]])),
            Err(Rejection::TooLong {
                bytes: limits::MESSAGE_BYTES_MAX + 1,
                limit: limits::MESSAGE_BYTES_MAX,
            })
        );
        // A permission is no question in words, and the other way about.
        assert_eq!(
            when(&state, say(Some("p"), &[&[], &[]])),
            Err(Rejection::NoSuchQuestion)
        );
        assert_eq!(
            when(&state, answer(Some("w"))),
            Err(Rejection::NoSuchQuestion)
        );
    }

    #[test]
    fn a_persons_word_is_about_a_turn_that_waits_for_it() {
        let rerun = |run| Command::Rerun { run };
        assert_eq!(when(&given([]), rerun(true)), Err(Rejection::NothingOpen));
        let state = given(running());
        assert_eq!(when(&state, rerun(true)), Err(Rejection::NotWaiting));
        let state = given(waiting());
        let cause = Cause::At(Position(6));
        assert_eq!(
            when(&state, rerun(true)),
            new([decided(Rerun::Run)], cause, Some(M1))
        );
        let failed = E::TurnFailed {
            message: M1,
            run: 1,
            reason: "the agent died in it, and a person gave it up".to_owned(),
        };
        assert_eq!(
            when(&state, rerun(false)),
            new([decided(Rerun::GiveUp), failed], cause, Some(M1))
        );
    }

    #[test]
    fn a_persons_word_says_why_where_the_person_does() {
        let again = Command::Rerun { run: true };
        let (mut events, _) = when(&given(waiting()), again).expect("it waits for that");
        explain(&mut events, "the tool only reads");
        let said = "a person's word: the tool only reads".to_owned();
        let decided = E::RerunDecided {
            message: M1,
            run: 1,
            rerun: Rerun::Run,
            reason: said,
        };
        let expected = NewEvent::live(decided, NOW).because(Cause::At(Position(6)));
        assert_eq!(events, [expected]);
    }

    #[test]
    fn what_is_open_when_a_session_is_closed_can_still_be_brought_to_its_end() {
        assert_eq!(
            when(&given([queued(M1, None)]), Command::Close),
            new([E::SessionClosed], Cause::At(Position(1)), None)
        );
        let close = |mut events: Vec<Event>| {
            events.push(E::SessionClosed);
            given(events)
        };
        let idle = close(vec![]);
        assert_eq!(when(&idle, Command::Close), Err(Rejection::Closed));
        let asking = close([running(), vec![asked("p")]].concat());
        assert!(when(&asking, Command::Abort).is_ok());
        assert!(when(&asking, answer(None)).is_ok());
        assert!(when(&close(waiting()), Command::Rerun { run: false }).is_ok());
        let queue = close(vec![queued(M1, None)]);
        assert!(when(&queue, Command::Cancel { message: M1 }).is_ok());
    }
}
