//! What a look found, as events: the one place where a turn ends.
//!
//! The stream shows output as it comes, but no frame of it is taken for the end of a turn: an agent says
//! "idle" early, twice, and for its sub-agents (seen with `OpenCode` 1.18). The end is what its own history
//! says while it does not work; so the same rules serve a turn that was watched and one that was missed.

use recount_projections::turn::{Answered, Asks, Question, Run};
use recount_projections::{Message, MessageState, Session, Turn, TurnState, WaitsFor};
use recount_store::{Event, MessageId, Placement, Provenance, Resolution, Timestamp, ToolOutcome};

use super::deliver::NOT_TOLD;
use super::draft::Draft;
use super::observe::{ask, ask_permission, reconcile_call, settle};
use super::order::{self, Name};
use super::{Effect, Flight, Looks, SessionMachine, Step};
use crate::adapter::{Activity, Answer, AnswerItem, CallError, OutputPart, Report, ReportedAnswer};
use crate::machine::backoff;

/// Why a message is not worked on any more: asked for it, the agent would answer the newer one.
pub(super) const NOT_THE_NEWEST: &str = "a newer message is in the agent's session";

/// Why the agent does not hold what it held.
const SESSION_LOST: &str = "the agent lost the session";
const ENDED_STALLED: &str = "it was ended since it stalled";
const NOT_HELD: &str = "the agent's history does not hold it any more";

impl SessionMachine {
    pub(super) fn looked(
        &mut self,
        state: &Session,
        outcome: Result<Report, CallError>,
        now: Timestamp,
    ) -> Step {
        let about = match self.flight.take() {
            Some(Flight::Looking(message)) => Some(message),
            _ => None,
        };
        let Some((message, turn)) = state.head() else {
            return Step::default();
        };
        // The turn that it was about may have ended: of interest is then whether the agent rests.
        let about = about.unwrap_or(message.id);
        let ours = about == message.id;
        let report = match outcome {
            Ok(report) => report,
            Err(CallError::NoSuchSession { .. }) => {
                let mut draft = Draft::after(message.moved, now);
                self.session_lost(&mut draft, state);
                return draft.step();
            }
            Err(_) if !ours && !self.awaits_rest(state, message) => return Step::default(),
            Err(error) => return self.look_failed(message, turn, &error, now),
        };
        self.looks.failures = 0;
        self.looks.last = now;
        if !ours {
            self.rest_seen(state, report.activity == Activity::Idle, now);
            return Step::default();
        }
        // One that does not work asks nothing: what its history means is decided with another look.
        self.confirmed = report.activity != Activity::Idle;
        self.newest = report.stored.then_some((about, report.newest));
        if turn.is_none() && !report.answers.is_empty() {
            // What is answered already is not asked for: the next look takes it up.
            self.newest = None;
        }
        match (message.state, turn) {
            (MessageState::Unknown, _) => Self::resolved(message, &report, now),
            (MessageState::Waiting, _) if message.waits_for == Some(WaitsFor::Outcome) => {
                Self::resolved(message, &report, now)
            }
            (MessageState::Accepted, _) if !report.stored => Self::forgotten(message, now),
            (MessageState::Accepted, None) if !report.answers.is_empty() => {
                self.taken_up(message, &report, now)
            }
            (MessageState::Requested | MessageState::Running, Some(turn)) => {
                self.conclude(state, message, turn, report, now)
            }
            _ => Step::default(),
        }
    }

    /// What a look says of an agent that may still work on an earlier message.
    fn rest_seen(&mut self, state: &Session, idle: bool, now: Timestamp) {
        if self.may_be_at_work(state).is_none() {
            return;
        }
        if idle {
            self.rested = state.turn.as_ref().map(|turn| turn.message);
            self.working_on = None;
        } else {
            self.working_on.get_or_insert(now);
            self.look_at(now.plus(self.policy.look_every));
        }
    }

    fn look_failed(
        &mut self,
        message: &Message,
        turn: Option<&Turn>,
        error: &CallError,
        now: Timestamp,
    ) -> Step {
        if message.state == MessageState::Waiting {
            // Nothing new: whoever is asked is still asked.
            return Step::default();
        }
        self.looks.failures += 1;
        // One that will not tell is not asked again.
        let refused = matches!(error, CallError::RefusedForGood { .. });
        let is_final = refused && message.state == MessageState::Unknown;
        if !is_final && (self.looks.failures < self.policy.looks_max || !self.is_up()) {
            let pause = backoff::delay(&self.policy.look_backoff, 0, self.looks.failures);
            self.look_at(now.plus(pause));
            return Step::act(Effect::Suspect);
        }
        self.looks = Looks::default();
        let mut draft = Draft::after(message.moved, now);
        let id = message.id;
        let event = match message.state {
            MessageState::Queued | MessageState::Refused => Event::MessageDeadLettered {
                message: id,
                reason: format!(
                    "whether the agent works on an earlier message cannot be found out: {error}"
                ),
            },
            MessageState::Unknown => {
                let why = format!("{NOT_TOLD}: {error}");
                return self.decide_unknown(message, turn, &why, now);
            }
            _ => Event::TurnFailed {
                message: id,
                run: turn.map_or(0, |turn| turn.run().number),
                reason: format!("how it stands cannot be found out: {error}"),
            },
        };
        draft.push(event, Provenance::Inferred);
        draft.step()
    }

    /// The agent has lost the session: what it held of the message is gone, and a run with it.
    pub(super) fn session_lost(&mut self, draft: &mut Draft, state: &Session) {
        self.newest = None;
        lost(draft, state);
        let Some((message, turn)) = state.head() else {
            return;
        };
        match (message.state, turn) {
            // It was not sent yet: nothing of it was lost.
            (MessageState::Queued | MessageState::Refused, _) => {}
            // One that showed no sign may have begun all the same, and nothing is left that could tell.
            (MessageState::Requested | MessageState::Running, Some(turn)) => {
                interrupted(draft, message, turn, (Vec::new(), SESSION_LOST));
            }
            _ => absent(draft, message, SESSION_LOST),
        }
    }

    fn resolved(message: &Message, report: &Report, now: Timestamp) -> Step {
        let (resolution, evidence) = if report.stored {
            (Resolution::Stored, "the agent's history holds it")
        } else {
            (Resolution::Absent, "the agent's history does not hold it")
        };
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::DeliveryResolved {
                message: message.id,
                attempt: message.attempts,
                resolution,
                evidence: evidence.to_owned(),
            },
            Provenance::Backfilled,
        );
        draft.step()
    }

    /// What the agent's history means for a turn that was asked for.
    fn conclude(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        report: Report,
        now: Timestamp,
    ) -> Step {
        let mut draft = Draft::after(message.moved, now);
        let idle = report.activity == Activity::Idle;
        let answers: Vec<ReportedAnswer> = report
            .answers
            .into_iter()
            .filter(|reported| !turn.dead_answers.contains(&reported.answer.id))
            .collect();
        let wanted = !message.abort_asked && turn.stalled.is_none();
        if !report.stored && idle && answers.is_empty() && !turn.run().started && wanted {
            // What kept no message kept no trace of a run either.
            interrupted(&mut draft, message, turn, (Vec::new(), NOT_HELD));
            return draft.step();
        }
        if turn.state == TurnState::Requested && !(answers.is_empty() && idle) {
            let seen = if idle {
                Provenance::Backfilled
            } else {
                Provenance::Live
            };
            let run = turn.run().number;
            draft.then(
                Event::TurnStarted {
                    message: message.id,
                    run,
                },
                seen,
            );
            // From here on it may be silent.
            self.last_activity = self.last_activity.max(now);
        }
        let last = answers
            .last()
            .map(|last| (last.answer.clone(), last.refused));
        let ids: Vec<String> = answers
            .iter()
            .map(|reported| reported.answer.id.clone())
            .collect();
        self.answers.extend(ids.iter().cloned());
        let ending = last
            .as_ref()
            .filter(|_| idle || report.went_on)
            .and_then(|(last, refused)| ending(message, turn, last, (*refused, report.went_on)));
        let completed = matches!(ending, Some(Event::TurnCompleted { .. }));
        let let_go = idle && ending == Some(ended_on_request(message, turn));
        let theirs: Vec<Name> = answers
            .iter()
            .flat_map(|answer| &answer.items)
            .map(Name::reported)
            .collect();
        for reported in answers {
            self.backfill(&mut draft, message, turn, reported, completed);
        }
        order::keep(&mut draft, turn, &theirs);
        if let_go && self.may_run_again(message, turn) {
            if !draft.is_empty() {
                // First what it did until then, so that no tool counts as lost that ended.
                self.look_at(now);
                return draft.step();
            }
            interrupted(&mut draft, message, turn, (ids, ENDED_STALLED));
            return draft.step();
        }
        if let Some(ending) = ending {
            self.looks = Looks::default();
            draft.push(ending, Provenance::Live);
            return draft.step();
        }
        if idle {
            return self.idle_unfinished(state, message, turn, (ids, draft), now);
        }
        self.looks.idle = 0;
        // An abort that came before the agent began met nothing.
        self.abort_sent = false;
        for question in std::mem::take(&mut self.open_before) {
            let permissions = report.permissions.iter().map(|listed| &listed.id);
            let questions = report.questions.iter().map(|listed| &listed.id);
            if !permissions
                .chain(questions)
                .any(|listed| *listed == question)
            {
                settle(&mut draft, turn, (&question, None), Provenance::Backfilled);
            }
        }
        let is_past = |id: &String| state.stale_questions.contains(id);
        for permission in report.permissions {
            if !is_past(&permission.id) {
                ask_permission(&mut draft, turn, permission, Provenance::Backfilled);
            }
        }
        for question in report.questions {
            if !is_past(&question.id) {
                ask(&mut draft, turn, question, Provenance::Backfilled);
            }
        }
        for question in turn.questions.iter().filter(|question| !question.settled) {
            // An answer that did not get through is given again.
            self.answering.remove(&question.id);
        }
        if let Activity::Retrying {
            attempt,
            reason,
            next,
        } = report.activity
        {
            self.agent_retries(&mut draft, turn, (attempt, reason, next), now);
        }
        draft.step()
    }

    /// The agent does not hold a message any more that it had accepted, and was not asked to begin with: it is sent
    /// again.
    fn forgotten(message: &Message, now: Timestamp) -> Step {
        let mut draft = Draft::after(message.moved, now);
        absent(&mut draft, message, NOT_HELD);
        draft.step()
    }

    /// The session that held a message was lost, and its run with it: it is sent again, for the next one.
    pub(super) fn lost_with_its_session(message: &Message, now: Timestamp) -> Step {
        let mut draft = Draft::after(message.moved, now);
        absent(&mut draft, message, SESSION_LOST);
        draft.step()
    }

    /// Records what an answer holds and the log does not.
    fn backfill(
        &mut self,
        draft: &mut Draft,
        message: &Message,
        turn: &Turn,
        reported: ReportedAnswer,
        turn_completed: bool,
    ) {
        for item in reported.items {
            match item {
                AnswerItem::Output(part) => {
                    let event = reconcile_part(message.id, turn.run(), &part, turn_completed);
                    if part.ended {
                        // It is known whole: its last deltas may still be on their way here.
                        self.kinds.remove(&part.id);
                    } else {
                        self.kinds.entry(part.id).or_insert(part.kind);
                    }
                    if let Some(event) = event {
                        // Read from the history, even where its beginning was streamed: a stream that says nothing
                        // any more looks like one that is slow.
                        draft.push(event, Provenance::Backfilled);
                    }
                }
                AnswerItem::Tool(call) => {
                    reconcile_call(draft, message, turn, call, Provenance::Backfilled);
                }
            }
        }
    }

    /// The agent does not work, and the turn is not finished. One look more, since it may just have begun or
    /// ended; then it never began, or the agent died in it.
    fn idle_unfinished(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        (answers, mut draft): (Vec<String>, Draft),
        now: Timestamp,
    ) -> Step {
        if self.may_run_again(message, turn) {
            if draft.is_empty() {
                interrupted(&mut draft, message, turn, (answers, ENDED_STALLED));
            } else {
                self.look_at(now);
            }
            return draft.step();
        }
        if message.abort_asked || turn.stalled.is_some() {
            draft.push(ended_on_request(message, turn), Provenance::Inferred);
            return draft.step();
        }
        // What just came to light is no rest yet.
        self.looks.idle = if draft.is_empty() {
            self.looks.idle + 1
        } else {
            1
        };
        let begun = turn.run().started || !answers.is_empty();
        if self.looks.idle < 2 {
            let soon = now.plus(self.policy.second_look_after);
            let grace = turn.requested_at.plus(self.request_grace());
            self.looks.due = Some(if begun { soon } else { soon.max(grace) });
            return draft.step();
        }
        self.looks.idle = 0;
        if begun {
            let evidence = "the agent does not work on it, and its answer has no end";
            interrupted(&mut draft, message, turn, (answers, evidence));
            return draft.step();
        }
        if let Some(reason) = self.never_began(message, turn) {
            let run = turn.run().number;
            draft.push(
                Event::TurnFailed {
                    message: message.id,
                    run,
                    reason,
                },
                Provenance::Live,
            );
            return draft.step();
        }
        self.request_run(state, message, turn.run().number, now)
    }

    /// Why a run that has not begun is not asked for again; `None` where it is.
    fn never_began(&self, message: &Message, turn: &Turn) -> Option<String> {
        if let Some(error) = &turn.agent_error {
            return Some(error.clone());
        }
        if let Some(reason) = &self.start_refused {
            return Some(format!("the agent refused to begin: {reason}"));
        }
        if self.is_newest(message) == Some(false) {
            return Some(NOT_THE_NEWEST.to_owned());
        }
        (self.requests >= self.policy.requests_max).then(|| {
            format!(
                "the agent was asked {} times and never began",
                self.requests
            )
        })
    }
}

/// The agent knows nothing of its session any more.
pub(super) fn lost(draft: &mut Draft, state: &Session) {
    if let Some(agent_session) = state.agent_session.clone() {
        draft.then(Event::AgentSessionLost { agent_session }, Provenance::Live);
    }
}

/// A message that the agent does not hold may be sent again.
fn absent(draft: &mut Draft, message: &Message, evidence: &str) {
    draft.push(
        Event::DeliveryResolved {
            message: message.id,
            attempt: message.attempts,
            resolution: Resolution::Absent,
            evidence: evidence.to_owned(),
        },
        Provenance::Backfilled,
    );
}

/// The agent died in a run.
fn interrupted(
    draft: &mut Draft,
    message: &Message,
    turn: &Turn,
    (answers, evidence): (Vec<String>, &str),
) {
    let run = turn.run().number;
    draft.then(
        Event::TurnInterrupted {
            message: message.id,
            run,
            answers,
            evidence: evidence.to_owned(),
        },
        Provenance::Inferred,
    );
    for call in turn.run().calls().filter(|call| call.outcome.is_none()) {
        draft.push(
            Event::ToolCallEnded {
                message: message.id,
                run,
                call: call.id.clone(),
                outcome: ToolOutcome::Lost,
                output: String::new(),
            },
            Provenance::Inferred,
        );
    }
}

/// How a turn ends that somebody, or a bound, wanted ended.
pub(super) fn ended_on_request(message: &Message, turn: &Turn) -> Event {
    let (message, run) = (message.id, turn.run().number);
    match &turn.stalled {
        Some(reason) => Event::TurnFailed {
            message,
            run,
            reason: reason.clone(),
        },
        None => Event::TurnAborted { message, run },
    }
}

/// How the turn ended, if its last answer is an end.
///
/// An answer that ended in tool calls is none, since another follows it; unless the calls were refused,
/// which ends an agent's work, or the agent went on to a newer message, on which the rest hangs then (seen with
/// `OpenCode` 1.18).
fn ending(
    message: &Message,
    turn: &Turn,
    last: &Answer,
    (refused, went_on): (bool, bool),
) -> Option<Event> {
    if !last.completed {
        return None;
    }
    let (id, run) = (message.id, turn.run().number);
    let failed = |reason: String| Event::TurnFailed {
        message: id,
        run,
        reason,
    };
    let requested = message.abort_asked || turn.stalled.is_some();
    if let Some(error) = &last.error {
        return Some(match (error.aborted, requested) {
            (true, true) => ended_on_request(message, turn),
            (true, false) => {
                failed("aborted at the agent, by somebody else or by its restart".to_owned())
            }
            (false, _) => failed(format!("{}: {}", error.name, error.reason)),
        });
    }
    match last.finish.as_deref() {
        Some("tool-calls" | "unknown") if !went_on => {
            let mut questions = turn.questions.iter();
            match questions.find(|q| q.answer == Some(Answered::Reject)) {
                Some(question) => Some(failed(refusal(question))),
                // Somebody else's refusal, while nobody here was listening.
                None => refused.then(|| failed("what it wanted was refused".to_owned())),
            }
        }
        Some(finish) => Some(Event::TurnCompleted {
            message: id,
            run,
            finish: finish.to_owned(),
        }),
        None if requested => Some(ended_on_request(message, turn)),
        None => Some(failed(
            "the agent ended its answer without an answer or an error".to_owned(),
        )),
    }
}

/// Why a turn failed that ended with the refusal of this question.
fn refusal(question: &Question) -> String {
    let what = match &question.asks {
        Asks::Permission { .. } => "permission was refused",
        Asks::Words(_) => "its question was refused",
    };
    match &question.expired {
        Some(bound) => format!("{what}, since {bound}: {}", question.asks),
        None => format!("{what}: {}", question.asks),
    }
}

/// What is to be recorded so that the log reads as the agent's own record of a part; `None` where it does.
pub(super) fn reconcile_part(
    message: MessageId,
    run: &Run,
    part: &OutputPart,
    turn_completed: bool,
) -> Option<Event> {
    let (number, kind) = (run.number, part.kind);
    let append = |placement: Placement, text: &str| Event::OutputAppended {
        message,
        run: number,
        part: part.id.clone(),
        kind,
        placement,
        text: text.to_owned(),
    };
    let replace = || Event::OutputReplaced {
        message,
        run: number,
        part: part.id.clone(),
        kind,
        text: part.text.clone(),
    };
    let Some(known) = run.part(&part.id) else {
        return (!part.text.is_empty()).then(|| append(Placement::End, &part.text));
    };
    let rest = part.text.strip_prefix(known.text.as_str());
    if !part.ended {
        // The agent keeps no text of a part that has not ended: what was streamed is all there is, unless the
        // answer was completed without it; then the agent gave that part up and began another.
        return match rest {
            Some(rest) if !rest.is_empty() && known.after_hole.is_empty() => {
                Some(append(Placement::End, rest))
            }
            _ if turn_completed && part.text.is_empty() && !known.is_empty() => Some(replace()),
            _ => None,
        };
    }
    match rest {
        Some("") if known.after_hole.is_empty() => None,
        Some(rest) if known.after_hole.is_empty() => Some(append(Placement::End, rest)),
        Some(rest) => Some(match rest.strip_suffix(known.after_hole.as_str()) {
            Some(hole) => append(Placement::IntoHole, hole),
            None => replace(),
        }),
        None => Some(replace()),
    }
}
