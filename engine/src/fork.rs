//! Where a session stood at a moment, for another one that goes on from there.
//!
//! A turn that had not ended is no part of it, so that it can be tried again. What the agent is to copy is named by what
//! it knows; what was said is kept as text besides, for an agent that copies nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use recount_projections::session::{Opening, Origin};
use recount_projections::turn::{CallOutcome, Item, Run};
use recount_projections::{Message, MessageState, Projection as _, Session, Transcript};
use recount_store::{
    Cause, Event, LogReader, MessageId, NewEvent, Recorded, Resolution, Seq, SessionId, StreamId,
    Timestamp,
};

use crate::error::Error;
use crate::limits;

/// Where a session begins that goes on from another one: that one as it stood just after one of its events.
#[derive(Debug, Clone)]
pub struct Beginning {
    from: SessionId,
    opening: Opening,
    session: Session,
    transcript: Transcript,
    /// The messages that the agent's session of that moment held.
    held: BTreeSet<MessageId>,
}

impl Beginning {
    /// Just after this event of a session; `None` is its last one.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`] where the log has no such session, [`Error::NoSuchEvent`] where that has no such event,
    /// [`Error::BeginningCut`] where its own beginning was cut off, [`Error::Log`] where the log cannot be read.
    pub fn of(log: &LogReader, from: SessionId, at: Option<Seq>) -> Result<Self, Error> {
        let stream = StreamId::Session(from);
        let Some(head) = log.stream_head(stream)? else {
            return Err(Error::UnknownSession { session: from });
        };
        let (at, last) = (at.unwrap_or(head.seq), head.seq);
        if at > last || at < Seq::FIRST {
            let session = from;
            return Err(Error::NoSuchEvent { session, at, last });
        }
        let mut before = Before::default();
        for recorded in log.read(stream, Seq::FIRST) {
            let recorded = recorded?;
            if recorded.seq > at {
                break;
            }
            before.apply(&recorded);
        }
        before
            .beginning(from)
            .ok_or(Error::BeginningCut { session: from })
    }

    /// What the agent is to copy; none where it keeps nothing of what was said.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let fork = self.session.fork.as_ref();
        let own = self
            .session
            .agent_session
            .clone()
            .and_then(|agent_session| {
                let held = self
                    .ended()
                    .filter(|message| self.held.contains(&message.id));
                Some(Origin {
                    agent_session,
                    through: held.last()?.agent_message.clone()?,
                })
            });
        // Where nothing was said in it yet, what it began with itself is what is to be copied.
        own.or_else(|| fork?.origin.clone())
    }

    /// The message that was being worked on, or waited: it is no part of what was said.
    #[must_use]
    pub fn left_open(&self) -> Option<&Message> {
        self.session.queue.head()
    }

    /// How many messages were said and answered.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.ended().count()
    }

    /// How the other session was opened.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The first events of the session that begins so. It has the same agent and folder, and the same model and title where
    /// these are `None`.
    #[must_use]
    pub fn events(
        &self,
        model: Option<String>,
        title: Option<String>,
        now: Timestamp,
    ) -> Vec<NewEvent> {
        let opening = self.opening.clone();
        let opened = Event::SessionOpened {
            connection: opening.connection,
            agent: opening.agent,
            directory: opening.directory,
            model: model.or(opening.model),
            title: title.or(opening.title),
        };
        let (agent_session, through) = match self.origin() {
            Some(origin) => (Some(origin.agent_session), Some(origin.through)),
            None => (None, None),
        };
        let forked = Event::SessionForked {
            from: self.from,
            at: self.session.seq,
            agent_session,
            through,
            context: self.context(),
        };
        let cause = Cause::At(self.session.last);
        [opened, forked]
            .map(|event| NewEvent::live(event, now).because(cause))
            .into()
    }

    /// The messages that had come to an end with the agent, oldest first.
    fn ended(&self) -> impl Iterator<Item = &Message> {
        let messages = self.session.queue.messages().iter();
        messages
            .take_while(|message| message.state.is_settled())
            .filter(|message| {
                matches!(
                    message.state,
                    MessageState::Completed | MessageState::Failed | MessageState::Aborted
                )
            })
    }

    /// What was said, as text for an agent that copies nothing; none where nothing was.
    #[must_use]
    pub fn context(&self) -> Option<String> {
        let fork = self.session.fork.as_ref();
        let before = fork.and_then(|fork| fork.context.as_deref());
        let mut said = Vec::new();
        for message in self.ended() {
            let mut known = self.transcript.messages.iter();
            let Some((_, text)) = known.find(|(id, _)| *id == message.id) else {
                continue;
            };
            said.push(exchange(text, message, self.run_of(message)));
        }
        if said.is_empty() {
            return before.map(str::to_owned);
        }
        Some(framed(before, &said))
    }

    fn run_of(&self, message: &Message) -> Option<&Run> {
        Some(self.transcript.turn_of(message.id)?.run())
    }
}

/// What happened up to there.
#[derive(Default)]
struct Before {
    session: Session,
    transcript: Transcript,
    held: BTreeSet<MessageId>,
}

impl Before {
    fn apply(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::DeliveryAccepted { message, .. }
            | Event::DeliveryResolved {
                message,
                resolution: Resolution::Stored,
                ..
            }
            | Event::TurnRequested { message, .. }
            | Event::TurnStarted { message, .. } => {
                self.held.insert(*message);
            }
            Event::AgentSessionLost { .. } => self.held.clear(),
            _ => {}
        }
        self.session.apply(recorded);
        self.transcript.apply(recorded);
    }

    /// None where nobody knows how the session was opened.
    fn beginning(self, from: SessionId) -> Option<Beginning> {
        Some(Beginning {
            from,
            opening: self.session.opening.clone()?,
            session: self.session,
            transcript: self.transcript,
            held: self.held,
        })
    }
}

/// A message and what the agent did about it.
fn exchange(text: &str, message: &Message, run: Option<&Run>) -> String {
    let mut said = format!("<user>\n{text}\n</user>\n<assistant>\n");
    for item in run.into_iter().flat_map(|run| &run.items) {
        match item {
            Item::Part(part) if part.reasoning || part.text.is_empty() => {}
            Item::Part(part) => {
                said.push_str(&part.text);
                said.push('\n');
            }
            Item::Call(call) => {
                let (how, output) = match &call.outcome {
                    None => ("did not end", ""),
                    Some((CallOutcome::Completed, output)) => ("gave", output.as_str()),
                    Some((CallOutcome::Failed, output)) => ("failed", output.as_str()),
                    Some((CallOutcome::Lost, output)) => ("was lost", output.as_str()),
                };
                let (input, output) = (tool_text(&call.input), tool_text(output));
                let _ = writeln!(said, "[tool {} {input} {how}: {output}]", call.tool);
            }
        }
    }
    match message.state {
        MessageState::Aborted => said.push_str("[ended on request]\n"),
        MessageState::Failed => said.push_str("[failed]\n"),
        _ => {}
    }
    said.push_str("</assistant>\n");
    said
}

/// The beginning of what a tool was given or gave.
fn tool_text(text: &str) -> Cow<'_, str> {
    if text.len() <= limits::CONTEXT_TOOL_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=limits::CONTEXT_TOOL_BYTES_MAX)
        .rev()
        .find(|&at| text.is_char_boundary(at));
    Cow::Owned(format!("{}…", &text[..end.unwrap_or_default()]))
}

/// What stands before what was said, for an agent.
const HEAD: &str =
    "This conversation goes on from an earlier one. What was said there, oldest first:\n";

/// What stands after it.
const TAIL: &str = "What follows is new.\n\n";

/// What was said, the oldest left out where it is too long. `before` is the same of the session that this one was forked
/// from itself.
fn framed(before: Option<&str>, said: &[String]) -> String {
    let mut room = limits::CONTEXT_BYTES_MAX;
    let mut fits = |length: usize| {
        let left = room.checked_sub(length);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let kept = said
        .iter()
        .rev()
        .take_while(|text| fits(text.len()))
        .count();
    let left_out = said.len() - kept;
    let before = before.and_then(|before| before.strip_suffix(TAIL));
    let before = before.filter(|before| left_out == 0 && fits(before.len()));
    let mut context = before.unwrap_or(HEAD).to_owned();
    if left_out > 0 {
        let _ = writeln!(context, "({left_out} earlier messages are left out.)");
    }
    context.extend(said[left_out..].iter().map(String::as_str));
    context.push_str(TAIL);
    context
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use recount_store::{
        Class, ConnectionId, Json, OutputKind, Placement, Position, Provenance, Seq, StreamId,
        Timestamp, ToolOutcome,
    };

    use super::*;

    const M1: MessageId = MessageId::from_bytes([1; 10]);
    const M2: MessageId = MessageId::from_bytes([2; 10]);
    const OLD: SessionId = SessionId::from_bytes([7; 10]);

    fn beginning(events: impl IntoIterator<Item = Event>) -> Beginning {
        let mut before = Before::default();
        for (number, event) in (1..).zip(events) {
            before.apply(&Recorded {
                position: Position(number),
                stream: StreamId::Session(OLD),
                seq: Seq(number),
                at: Timestamp(number),
                cause: None,
                class: Class::Observed,
                provenance: Provenance::Live,
                id: None,
                frame: None,
                event,
            });
        }
        before.beginning(OLD).expect("it was opened")
    }

    /// The event that says where another session begins.
    fn forked(events: &[Event]) -> Event {
        let begins = beginning(events.to_vec()).events(None, None, Timestamp(99));
        let [opened, forked] = begins.try_into().expect("two events");
        assert_eq!((&opened.event, opened.at), (&events[0], Timestamp(99)));
        let last = Position(events.len() as u64);
        assert_eq!([opened.cause, forked.cause], [Cause::At(last); 2]);
        forked.event
    }

    /// What another session is told, and what its agent is to copy.
    #[track_caller]
    fn goes_on(events: &[Event], copies: Option<(&str, &str)>, told: &Expect) {
        let Event::SessionForked {
            from,
            at,
            agent_session,
            through,
            context,
        } = forked(events)
        else {
            panic!("it is a fork");
        };
        assert_eq!((from, at), (OLD, Seq(events.len() as u64)));
        let origin = agent_session.as_deref().zip(through.as_deref());
        assert_eq!(origin, copies);
        told.assert_eq(&context.unwrap_or_default());
    }

    fn opened() -> Vec<Event> {
        vec![
            Event::SessionOpened {
                connection: ConnectionId::from_bytes([9; 10]),
                agent: "scripted".to_owned(),
                directory: "/work".to_owned(),
                model: None,
                title: None,
            },
            Event::AgentSessionBound {
                agent_session: "ses".to_owned(),
            },
        ]
    }

    /// A message up to where the agent works on it.
    fn begun(message: MessageId, text: &str) -> Vec<Event> {
        vec![
            Event::MessageQueued {
                message,
                key: None,
                text: text.to_owned(),
            },
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: format!("agent:{text}"),
            },
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
            Event::TurnRequested { message, run: 1 },
        ]
    }

    fn said(message: MessageId, text: &str) -> Event {
        Event::OutputAppended {
            message,
            run: 1,
            part: format!("part of {text}"),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: text.to_owned(),
        }
    }

    fn completed(message: MessageId) -> Event {
        Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        }
    }

    fn answered(message: MessageId, text: &str, answer: &str) -> Vec<Event> {
        let mut events = begun(message, text);
        events.extend([said(message, answer), completed(message)]);
        events
    }

    #[test]
    fn a_turn_that_has_not_ended_is_no_part_of_it() {
        let mut events = opened();
        goes_on(&events, None, &expect![""]);
        events.extend(answered(M1, "one", "ONE"));
        let copied = Some(("ses", "agent:one"));
        let told = || {
            expect![[r"
                This conversation goes on from an earlier one. What was said there, oldest first:
                <user>
                one
                </user>
                <assistant>
                ONE
                </assistant>
                What follows is new.

            "]]
        };
        goes_on(&events, copied, &told());
        assert_eq!(beginning(events.clone()).left_open(), None);
        events.extend(begun(M2, "two"));
        goes_on(&events, copied, &told());
        let left_open = beginning(events).left_open().map(|message| message.id);
        assert_eq!(left_open, Some(M2));
    }

    #[test]
    fn how_a_turn_ended_and_what_tools_did_is_told() {
        let mut events = opened();
        events.extend(begun(M1, "one"));
        events.extend([
            Event::ToolCallStarted {
                message: M1,
                run: 1,
                call: "c".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command":"ls"}"#.to_vec()),
            },
            Event::ToolCallEnded {
                message: M1,
                run: 1,
                call: "c".to_owned(),
                outcome: ToolOutcome::Completed,
                output: "é".repeat(3000),
            },
            said(M1, "there is"),
            Event::TurnAborted {
                message: M1,
                run: 1,
            },
        ]);
        let context = beginning(events.clone()).context().unwrap();
        // Whole characters, and no more of them than are to go along.
        let cut = "é".repeat(2048);
        assert!(context.contains(&format!(" gave: {cut}…]")), "{context}");
        let context = context.replace(&cut, "é…é");
        expect![[r#"
            This conversation goes on from an earlier one. What was said there, oldest first:
            <user>
            one
            </user>
            <assistant>
            [tool bash {"command":"ls"} gave: é…é…]
            there is
            [ended on request]
            </assistant>
            What follows is new.

        "#]]
        .assert_eq(&context);
        assert_eq!(
            beginning(events).origin().map(|origin| origin.through),
            Some("agent:one".to_owned())
        );
    }

    #[test]
    fn what_the_agent_lost_is_told_and_not_copied() {
        let mut events = opened();
        events.extend(answered(M1, "one", "ONE"));
        events.push(Event::AgentSessionLost {
            agent_session: "ses".to_owned(),
        });
        assert_eq!(beginning(events.clone()).origin(), None);
        let told = beginning(events.clone()).context();
        assert!(told.is_some_and(|told| told.contains("ONE")));
        // What was said in the session that it has since can be copied.
        events.push(Event::AgentSessionBound {
            agent_session: "ses2".to_owned(),
        });
        assert_eq!(beginning(events.clone()).origin(), None);
        events.extend(answered(M2, "two", "TWO"));
        let origin = beginning(events).origin();
        assert_eq!(
            origin.map(|origin| origin.through).as_deref(),
            Some("agent:two")
        );
    }

    #[test]
    fn a_fork_of_a_fork_begins_where_that_one_began_until_something_is_said_in_it() {
        let mut old = opened();
        old.extend(answered(M1, "one", "ONE"));
        let mut events = vec![opened().remove(0), forked(&old)];
        let copied = Some(("ses", "agent:one"));
        goes_on(
            &events,
            copied,
            &expect![[r"
                This conversation goes on from an earlier one. What was said there, oldest first:
                <user>
                one
                </user>
                <assistant>
                ONE
                </assistant>
                What follows is new.

            "]],
        );
        events.push(Event::AgentSessionForked {
            agent_session: "copy".to_owned(),
        });
        events.extend(answered(M2, "two", "TWO"));
        goes_on(
            &events,
            Some(("copy", "agent:two")),
            &expect![[r"
                This conversation goes on from an earlier one. What was said there, oldest first:
                <user>
                one
                </user>
                <assistant>
                ONE
                </assistant>
                <user>
                two
                </user>
                <assistant>
                TWO
                </assistant>
                What follows is new.

            "]],
        );
    }

    #[test]
    fn the_oldest_is_left_out_where_it_is_too_long() {
        let long = |text: &str| text.repeat(limits::CONTEXT_BYTES_MAX / 3);
        let said = [long("a"), long("b"), long("c"), long("d")];
        let told = framed(Some(&format!("{HEAD}before\n{TAIL}")), &said);
        let kept = format!(
            "{HEAD}(1 earlier messages are left out.)\n{}{TAIL}",
            said[1..].concat()
        );
        assert!(told == kept, "{} {}", told.len(), kept.len());
        assert!(framed(None, &said[1..]) == format!("{HEAD}{}{TAIL}", said[1..].concat()));
    }
}
