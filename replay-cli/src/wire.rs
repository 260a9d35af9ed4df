//! Frames, translated again, held against the events that were recorded from them.
//!
//! Pure: it is told the frames of a session's connection in their order with what they say today, and the session's
//! events in theirs. An event that was seen live names the frame that told of it. So each of these is held against what
//! that frame says today; text, which is gathered from many frames, against what they add up to. What a frame says and
//! nobody recorded counts only while its run was at work, between the first and the last frame that something was
//! recorded from: what came too early or too late was left out on purpose.

use std::collections::{HashMap, HashSet};

use recount_engine::adapter::{Observation, ToolState, Translated};
use recount_projections::{Projection as _, Session};
use recount_store::{
    Class, Event, FrameNumber, Json, MessageId, OutputKind, Placement, Provenance, Recorded,
    Timestamp, ToolOutcome,
};

/// How many differences are kept to be shown; the others are counted.
pub(crate) const DIFFERENCES_MAX: usize = 100;

/// In which way a frame is read otherwise today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was recorded, and would not be today.
    Missing,
    /// It was not recorded, and would be today.
    Extra,
    /// It would be recorded otherwise.
    Other,
}

impl Kind {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Other => "other",
        }
    }
}

/// A frame that is read otherwise today.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    pub(crate) kind: Kind,
    pub(crate) frame: FrameNumber,
    /// When the frame came.
    pub(crate) at: Timestamp,
    /// What was recorded from it.
    pub(crate) recorded: Option<Recorded>,
    /// What would be today.
    pub(crate) today: Option<Event>,
    /// What the frame is today, in a word or two.
    pub(crate) said: &'static str,
}

/// What came of a comparison.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Compared {
    /// How many frames were translated.
    pub(crate) frames: u64,
    /// How many events were held against them.
    pub(crate) events: u64,
    /// How many events name frames that are not kept any more.
    pub(crate) not_kept: u64,
    /// How many differences there are.
    pub(crate) different: u64,
    /// The first of them.
    pub(crate) differences: Vec<Difference>,
}

/// A frame as it is read today.
pub(crate) struct Read {
    pub(crate) number: FrameNumber,
    pub(crate) at: Timestamp,
    /// None where the frame itself was not kept.
    pub(crate) translated: Option<Translated>,
}

/// Holds the events of one session against the frames of its connection.
#[derive(Default)]
pub(crate) struct Comparison {
    state: Session,
    /// The agent's names for this session.
    own: HashSet<String>,
    /// The sessions of its sub-agents: of what is said there only the questions are this one's.
    children: HashSet<String>,
    run: AtWork,
    compared: Compared,
}

/// What is known of the run at work.
#[derive(Default)]
struct AtWork {
    /// The text that frames brought for each part since the last event that took it in.
    heard: HashMap<String, Heard>,
    /// The text that a frame gave a part at its end.
    ended: HashMap<String, (FrameNumber, Timestamp, String)>,
    /// What frames said that was not recorded from them; it may be, from another.
    unrecorded: Vec<Difference>,
    /// What was recorded already, by its type and its name.
    known: HashSet<(&'static str, String)>,
    /// The first and the last frame that an event of this run names.
    ends: Option<(FrameNumber, FrameNumber)>,
    /// The last frame that was not kept.
    blind: Option<FrameNumber>,
}

struct Heard {
    since: FrameNumber,
    last: FrameNumber,
    at: Timestamp,
    text: String,
    answer: String,
}

impl Comparison {
    /// Takes an event that no frame is there for.
    pub(crate) fn event(&mut self, recorded: &Recorded) {
        if recorded.frame.is_some() && comes_from_a_frame(recorded) {
            self.compared.not_kept += 1;
        }
        self.apply(recorded);
    }

    /// Takes a frame, and the events that were recorded from it.
    pub(crate) fn frame(&mut self, read: Read, recorded: &[Recorded]) {
        let Read {
            number,
            at,
            translated,
        } = read;
        let Some(translated) = translated else {
            self.run.blind = Some(number);
            for recorded in recorded {
                self.event(recorded);
            }
            return;
        };
        let is_of = |sessions: &HashSet<String>| {
            let session = translated.session.as_ref();
            session.is_some_and(|session| sessions.contains(session))
        };
        let (own, of_child) = (is_of(&self.own), is_of(&self.children));
        if own || of_child || !recorded.is_empty() {
            self.compared.frames += 1;
        }
        self.hear(number, at, &translated, own);
        let frame = (number, at, &translated.observation);
        for recorded in recorded {
            if comes_from_a_frame(recorded) {
                self.compared.events += 1;
                let (first, _) = self.run.ends.unwrap_or((number, number));
                self.run.ends = Some((first, number));
                self.hold(recorded, frame);
            }
            self.apply(recorded);
        }
        if own || of_child {
            self.note_unrecorded(&translated.observation, (number, at), of_child);
        }
    }

    /// What came of it.
    pub(crate) fn end(mut self) -> Compared {
        self.end_run();
        let differences = &mut self.compared.differences;
        differences.sort_by_key(|difference| difference.frame);
        differences.truncate(DIFFERENCES_MAX);
        self.compared
    }

    fn apply(&mut self, recorded: &Recorded) {
        let ends = matches!(
            recorded.event,
            Event::TurnCompleted { .. }
                | Event::TurnFailed { .. }
                | Event::TurnAborted { .. }
                | Event::TurnInterrupted { .. }
                | Event::MessageDeadLettered { .. }
        );
        if ends {
            // While the run still stands in the fold.
            self.end_run();
        }
        if let Event::AgentSessionBound { agent_session }
        | Event::AgentSessionForked { agent_session } = &recorded.event
        {
            self.own.insert(agent_session.clone());
        }
        if let Some(subject) = subject(&recorded.event) {
            let subject = (recorded.event.type_name(), subject.to_owned());
            self.run.known.insert(subject);
        }
        self.state.apply(recorded);
    }

    /// Takes in what a frame adds to a text, and whose session is whose.
    fn hear(&mut self, number: FrameNumber, at: Timestamp, translated: &Translated, own: bool) {
        match &translated.observation {
            Observation::Delta { part, text, answer } if own => {
                let heard = self.run.heard.entry(part.clone());
                let heard = heard.or_insert_with(|| Heard {
                    since: number,
                    last: number,
                    at,
                    text: String::new(),
                    answer: answer.clone(),
                });
                heard.text.push_str(text);
                (heard.last, heard.at) = (number, at);
            }
            Observation::ChildOf { parent }
                if self.own.contains(parent) || self.children.contains(parent) =>
            {
                self.children.extend(translated.session.clone());
            }
            _ => {}
        }
    }

    /// Holds an event against the frame that it was recorded from.
    fn hold(
        &mut self,
        recorded: &Recorded,
        (frame, at, observation): (FrameNumber, Timestamp, &Observation),
    ) {
        let today = match &recorded.event {
            Event::OutputAppended { .. } | Event::OutputReplaced { .. } => {
                self.text_today(&recorded.event, observation)
            }
            event => {
                let (message, run) = turn_of(event);
                let mut says = says(observation, message, run);
                let same_type = |other: &Event| other.type_name() == event.type_name();
                let at = says.iter().position(same_type);
                at.map(|at| says.swap_remove(at))
            }
        };
        let kind = match &today {
            Some(today) if *today == recorded.event => return,
            Some(_) => Kind::Other,
            None => Kind::Missing,
        };
        self.differs(Difference {
            kind,
            frame,
            at,
            recorded: Some(recorded.clone()),
            today,
            said: word(observation),
        });
    }

    /// What the frames up to this one add up to, in place of an event that recorded text.
    fn text_today(&mut self, recorded: &Event, observation: &Observation) -> Option<Event> {
        let mut today = recorded.clone();
        let (part, kind, placement, text) = match &mut today {
            Event::OutputAppended {
                part,
                kind,
                placement,
                text,
                ..
            } => (part, Some(kind), Some(*placement), text),
            Event::OutputReplaced {
                part, kind, text, ..
            } => (part, Some(kind), None, text),
            _ => return None,
        };
        match observation {
            Observation::Delta { part: said, .. } if said == part => {
                let heard = self.run.heard.remove(part)?;
                let all_kept = self.run.blind.is_none_or(|blind| blind < heard.since);
                // Behind a hole, what came before the stream was understood again is in the hole.
                let behind_a_hole = placement == Some(Placement::AfterHole);
                if all_kept && !(behind_a_hole && heard.text.ends_with(text.as_str())) {
                    *text = heard.text;
                }
                Some(today)
            }
            Observation::PartEnded { part: said, .. } if said.id == *part => {
                self.run.heard.remove(part);
                if let Some(kind) = kind {
                    *kind = said.kind;
                }
                match placement {
                    // Whether it is what was lacking is seen where the run has ended, by the sum.
                    Some(_) if said.text.contains(text.as_str()) => {}
                    _ => text.clone_from(&said.text),
                }
                Some(today)
            }
            _ => None,
        }
    }

    /// Remembers what a frame says that was not recorded from it.
    fn note_unrecorded(
        &mut self,
        observation: &Observation,
        (frame, at): (FrameNumber, Timestamp),
        of_child: bool,
    ) {
        let Some(turn) = &self.state.turn else {
            return;
        };
        let dead = answer(observation).is_some_and(|answer| turn.dead_answers.contains(answer));
        if dead || turn.stalled.is_some() {
            return;
        }
        let run = turn.runs.last().map_or(1, |run| run.number);
        if let (Observation::PartEnded { part, .. }, false) = (observation, of_child) {
            let ended = (frame, at, part.text.clone());
            self.run.ended.insert(part.id.clone(), ended);
        }
        for event in says(observation, turn.message, run) {
            let of_tool = matches!(
                event,
                Event::ToolCallStarted { .. } | Event::ToolCallEnded { .. }
            );
            let Some(subject) = subject(&event).filter(|_| !(of_child && of_tool)) else {
                continue;
            };
            let unknown = (event.type_name(), subject.to_owned());
            if self.run.known.insert(unknown) {
                self.run.unrecorded.push(Difference {
                    kind: Kind::Extra,
                    frame,
                    at,
                    recorded: None,
                    today: Some(event),
                    said: word(observation),
                });
            }
        }
    }

    /// The run at work has ended: what was not recorded until now never is.
    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.run.blind = run.blind;
        let Some((turn, (first, last))) = self.state.turn.as_ref().zip(run.ends) else {
            return;
        };
        let (message, number) = (turn.message, turn.runs.last().map_or(1, |run| run.number));
        let recorded = |part: &str| {
            let run = turn.runs.last()?;
            run.part(part)
        };
        let text = |part: String, kind, text: String| Event::OutputAppended {
            message,
            run: number,
            part,
            kind,
            placement: Placement::End,
            text,
        };
        let mut differences = run.unrecorded;
        let mut sums: Vec<_> = run.ended.into_iter().collect();
        sums.sort_by_key(|(_, (frame, ..))| *frame);
        for (id, (frame, at, whole)) in sums {
            let known = recorded(&id);
            let same = known.map_or(whole.is_empty(), |part| {
                part.text == whole && part.after_hole.is_empty()
            });
            if !same {
                let kind = if known.is_some_and(|part| part.reasoning) {
                    OutputKind::Reasoning
                } else {
                    OutputKind::Text
                };
                differences.push(Difference {
                    kind: known.map_or(Kind::Extra, |_| Kind::Other),
                    frame,
                    at,
                    recorded: None,
                    today: Some(text(id, kind, whole)),
                    said: "the end of a part",
                });
            }
        }
        for (id, heard) in run.heard {
            let dead = turn.dead_answers.contains(&heard.answer);
            if recorded(&id).is_none() && !dead && !heard.text.is_empty() {
                differences.push(Difference {
                    kind: Kind::Extra,
                    frame: heard.last,
                    at: heard.at,
                    recorded: None,
                    today: Some(text(id, OutputKind::Text, heard.text)),
                    said: "a piece of a part",
                });
            }
        }
        differences.sort_by_key(|difference| difference.frame);
        // What came before the first frame that anything was recorded from, or after the last, is not of this run.
        differences.retain(|difference| (first..=last).contains(&difference.frame));
        for difference in differences {
            self.differs(difference);
        }
    }

    fn differs(&mut self, difference: Difference) {
        self.compared.different += 1;
        // Twice as many, since the last of a run are found before the first of the next are in order.
        if self.compared.differences.len() < 2 * DIFFERENCES_MAX {
            self.compared.differences.push(difference);
        }
    }
}

/// Whether what is recorded is what a frame said, and nothing else.
fn comes_from_a_frame(recorded: &Recorded) -> bool {
    recorded.frame.is_some()
        && recorded.class == Class::Observed
        && recorded.provenance == Provenance::Live
}

/// What a frame may lead to, in the words of the log, about this run.
fn says(observation: &Observation, message: MessageId, run: u32) -> Vec<Event> {
    let begins = Event::TurnStarted { message, run };
    match observation {
        Observation::AnswerUpdated(_)
        | Observation::PartOpened { .. }
        | Observation::PartEnded { .. } => vec![begins],
        Observation::Tool { call, .. } => {
            let (input, end) = match &call.state {
                ToolState::Pending => return vec![begins],
                ToolState::Running { input } => (input, None),
                ToolState::Completed { input, output } => {
                    (input, Some((ToolOutcome::Completed, output)))
                }
                ToolState::Failed { input, error } => (input, Some((ToolOutcome::Failed, error))),
            };
            let started = Event::ToolCallStarted {
                message,
                run,
                call: call.id.clone(),
                tool: call.tool.clone(),
                input: input.clone(),
            };
            let ended = end.map(|(outcome, output)| Event::ToolCallEnded {
                message,
                run,
                call: call.id.clone(),
                outcome,
                output: output.clone(),
            });
            [begins, started].into_iter().chain(ended).collect()
        }
        Observation::PermissionAsked(asked) => vec![Event::PermissionAsked {
            message,
            permission: asked.id.clone(),
            action: asked.action.clone(),
            detail: asked.detail.clone(),
            call: asked.call.clone(),
        }],
        Observation::PermissionReplied { permission, answer } => vec![Event::PermissionSettled {
            message,
            permission: permission.clone(),
            answer: *answer,
        }],
        Observation::QuestionAsked(asked) => vec![Event::QuestionAsked {
            message,
            question: asked.id.clone(),
            prompts: Json::of(&asked.prompts),
            call: asked.call.clone(),
        }],
        Observation::QuestionReplied { question, answers } => vec![Event::QuestionSettled {
            message,
            question: question.clone(),
            answers: Some(Json::of(answers)),
        }],
        Observation::Retrying {
            attempt,
            reason,
            next,
        } => vec![
            begins,
            Event::AgentRetried {
                message,
                attempt: *attempt,
                reason: reason.clone(),
                next: *next,
            },
        ],
        Observation::Error { name, reason } => vec![Event::AgentErrorReported {
            message,
            name: name.clone(),
            reason: reason.clone(),
        }],
        Observation::Unrecognised { kind, frame } => vec![Event::FrameUnrecognised {
            kind: kind.clone(),
            frame: frame.clone(),
        }],
        Observation::Connected
        | Observation::Heartbeat
        | Observation::Ignored
        | Observation::Counted { .. }
        | Observation::Missed
        | Observation::ChildOf { .. }
        | Observation::Delta { .. }
        | Observation::Busy
        | Observation::Idle => Vec::new(),
    }
}

/// What an event is about, where an agent has a name for it and tells of it once.
fn subject(event: &Event) -> Option<&str> {
    match event {
        Event::ToolCallStarted { call, .. } | Event::ToolCallEnded { call, .. } => Some(call),
        Event::PermissionAsked { permission, .. } | Event::PermissionSettled { permission, .. } => {
            Some(permission)
        }
        Event::QuestionAsked { question, .. } | Event::QuestionSettled { question, .. } => {
            Some(question)
        }
        _ => None,
    }
}

/// The answer that an observation is about.
fn answer(observation: &Observation) -> Option<&String> {
    match observation {
        Observation::PartEnded { answer, .. } | Observation::Tool { answer, .. } => Some(answer),
        _ => None,
    }
}

/// The message and the run that an event is about.
fn turn_of(event: &Event) -> (MessageId, u32) {
    let run = match event {
        Event::TurnStarted { run, .. }
        | Event::ToolCallStarted { run, .. }
        | Event::ToolCallEnded { run, .. } => *run,
        _ => 1,
    };
    let message = event.message();
    (
        message.unwrap_or_else(|| MessageId::from_bytes([0; 10])),
        run,
    )
}

/// What a frame is, in a word or two.
const fn word(observation: &Observation) -> &'static str {
    match observation {
        Observation::Connected => "the stream is open",
        Observation::Heartbeat => "a heartbeat",
        Observation::Ignored => "nothing to a turn",
        Observation::Counted { .. } => "a count",
        Observation::Missed => "a hole",
        Observation::ChildOf { .. } => "a sub-agent",
        Observation::AnswerUpdated(_) => "an answer",
        Observation::PartOpened { .. } => "the beginning of a part",
        Observation::Delta { .. } => "a piece of a part",
        Observation::PartEnded { .. } => "the end of a part",
        Observation::Tool { .. } => "a tool call",
        Observation::PermissionAsked(_) => "a permission asked for",
        Observation::PermissionReplied { .. } => "a permission answered",
        Observation::QuestionAsked(_) => "a question",
        Observation::QuestionReplied { .. } => "a question answered",
        Observation::Busy => "the agent works",
        Observation::Idle => "the agent does not work",
        Observation::Retrying { .. } => "the agent tries again",
        Observation::Error { .. } => "an error",
        Observation::Unrecognised { .. } => "not known",
    }
}

#[cfg(test)]
mod tests {
    use recount_engine::adapter::OutputPart;

    use super::*;
    use crate::render::fixture::{at, message, session_event};

    #[expect(clippy::unnecessary_wraps, reason = "beside frames that say nothing")]
    fn says(session: &str, observation: Observation) -> Option<Translated> {
        Some(Translated {
            session: Some(session.to_owned()),
            observation,
        })
    }

    fn delta(part: &str, text: &str) -> Observation {
        Observation::Delta {
            answer: "answer".to_owned(),
            part: part.to_owned(),
            text: text.to_owned(),
        }
    }

    fn ended(part: &str, text: &str) -> Observation {
        Observation::PartEnded {
            answer: "answer".to_owned(),
            part: OutputPart {
                id: part.to_owned(),
                kind: OutputKind::Text,
                text: text.to_owned(),
                ended: true,
            },
        }
    }

    fn opened() -> Observation {
        Observation::PartOpened {
            answer: "answer".to_owned(),
            part: "part".to_owned(),
            kind: OutputKind::Text,
        }
    }

    fn appended(placement: Placement, text: &str) -> Event {
        Event::OutputAppended {
            message: message(),
            run: 1,
            part: "part".to_owned(),
            kind: OutputKind::Text,
            placement,
            text: text.to_owned(),
        }
    }

    /// What comes of frames, in order, each with the event that was recorded from it, in a turn that began before the
    /// first and completed after the last.
    fn compared(frames: Vec<(Option<Translated>, Option<Event>)>) -> Compared {
        let message = message();
        let mut comparison = Comparison::default();
        let mut number = 0;
        let mut record = |event: Event, frame: Option<FrameNumber>| {
            number += 1;
            Recorded {
                frame,
                ..session_event(number, event)
            }
        };
        for event in [
            Event::MessageQueued {
                message,
                key: None,
                text: String::new(),
            },
            Event::AgentSessionBound {
                agent_session: "own".to_owned(),
            },
            Event::TurnRequested { message, run: 1 },
        ] {
            comparison.event(&record(event, None));
        }
        for (n, (translated, event)) in (1..).zip(frames) {
            let number = FrameNumber(n);
            let read = Read {
                number,
                at: at(n),
                translated,
            };
            let recorded = event.map(|event| record(event, Some(number)));
            comparison.frame(read, recorded.as_slice());
        }
        let finish = "stop".to_owned();
        let completed = Event::TurnCompleted {
            message,
            run: 1,
            finish,
        };
        comparison.event(&record(completed, None));
        comparison.end()
    }

    fn begun() -> (Option<Translated>, Option<Event>) {
        let started = Event::TurnStarted {
            message: message(),
            run: 1,
        };
        (says("own", opened()), Some(started))
    }

    /// Each difference: its kind, its frame, and the text that would be recorded.
    fn told(compared: &Compared) -> Vec<(&'static str, u64, String)> {
        let told = |difference: &Difference| {
            let text = match &difference.today {
                Some(Event::OutputAppended { text, .. }) => text.clone(),
                other => format!("{other:?}"),
            };
            (difference.kind.name(), difference.frame.0, text)
        };
        compared.differences.iter().map(told).collect()
    }

    #[test]
    fn pieces_are_compared_by_what_they_add_up_to() {
        let frames = |recorded: &str, rest: &str| {
            vec![
                begun(),
                (says("own", delta("part", "to")), None),
                (
                    says("own", delta("part", "ge")),
                    Some(appended(Placement::End, recorded)),
                ),
                (
                    says("own", ended("part", "together")),
                    Some(appended(Placement::End, rest)),
                ),
            ]
        };
        let same = compared(frames("toge", "ther"));
        assert_eq!((same.frames, same.events, told(&same)), (4, 3, Vec::new()));
        assert_eq!(
            told(&compared(frames("to", "ther"))),
            [
                ("other", 3, "toge".to_owned()),
                ("other", 4, "together".to_owned())
            ]
        );
    }

    #[test]
    fn behind_a_hole_only_what_was_recorded_has_to_be_there() {
        let behind = |recorded: &str| {
            compared(vec![
                begun(),
                (says("own", delta("part", "lost ")), None),
                (
                    says("own", delta("part", "found")),
                    Some(appended(Placement::AfterHole, recorded)),
                ),
            ])
        };
        assert_eq!(told(&behind("found")), []);
        assert_eq!(
            told(&behind("fund")),
            [("other", 3, "lost found".to_owned())]
        );
    }

    #[test]
    fn what_is_said_in_other_sessions_is_none_of_this_ones() {
        let child = Observation::ChildOf {
            parent: "own".to_owned(),
        };
        let compared = compared(vec![
            begun(),
            (says("child", child), None),
            (says("child", delta("theirs", "a child's")), None),
            (says("other", delta("others", "another's")), None),
            (says("own", delta("forgotten", "one's own")), None),
            (
                says("own", delta("part", "all")),
                Some(appended(Placement::End, "all")),
            ),
        ]);
        assert_eq!(told(&compared), [("extra", 5, "one's own".to_owned())]);
        assert_eq!(compared.frames, 4);
    }

    #[test]
    fn where_frames_are_not_there_nothing_is_held_against_them() {
        let compared = compared(vec![
            begun(),
            (says("own", delta("part", "a")), None),
            (None, None),
            (
                says("own", delta("part", "c")),
                Some(appended(Placement::End, "abc")),
            ),
            (None, Some(appended(Placement::End, "d"))),
            (
                says("own", delta("part", "e")),
                Some(appended(Placement::End, "e")),
            ),
        ]);
        assert_eq!((told(&compared), compared.not_kept), (Vec::new(), 1));
    }
}
