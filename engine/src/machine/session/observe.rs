//! What the agent's stream says, as events.

use recount_projections::turn::{Answered, Asks};
use recount_projections::{Message, MessageState, Session, Turn, TurnState};
use recount_store::{Event, FrameNumber, Json, Placement, Provenance, Timestamp, ToolOutcome};

use super::draft::Draft;
use super::look::reconcile_part;
use super::{SessionMachine, Step};
use crate::adapter::{Answer, Observation, Permission, Question, ToolCall, ToolState};

/// How many kinds of unrecognised frames are recorded in one session: a new agent may have many.
const UNRECOGNISED_MAX: usize = 64;

/// How many answers to something else are remembered while they are written: an agent writes one at a time, and the end
/// of one may have been missed.
const BESIDE_MAX: usize = 64;

impl SessionMachine {
    pub(super) fn observed(
        &mut self,
        state: &Session,
        observation: Observation,
        told_by: Option<FrameNumber>,
        from_child: bool,
        now: Timestamp,
    ) -> Step {
        if let Observation::Unrecognised { kind, frame } = observation {
            return Self::unrecognised(state, kind, frame, now);
        }
        if observation == Observation::Idle && !from_child && self.working_on.is_some() {
            self.look_at(now);
        }
        if let Observation::AnswerUpdated(answer) = &observation
            && !from_child
        {
            self.notice(state, answer);
        }
        let Some((message, Some(turn))) = state.head() else {
            return Step::default();
        };
        // The message is asked, not its turn: one that the agent forgot is sent again, and its turn stays requested.
        if !is_at_work(message) {
            return Step::default();
        }
        if self.is_ahead(state, turn, &observation) {
            self.look_at(now);
            return Step::default();
        }
        let mut draft = Draft::after(message.moved, now);
        match observation {
            Observation::PermissionAsked(permission) => {
                self.confirmed = true;
                ask_permission(&mut draft, turn, permission, Provenance::Live);
            }
            Observation::QuestionAsked(question) => {
                self.confirmed = true;
                ask(&mut draft, turn, question, Provenance::Live);
            }
            Observation::PermissionReplied { permission, answer } => {
                let answer = answer.map(Answered::from);
                settle(&mut draft, turn, (&permission, answer), Provenance::Live);
            }
            Observation::QuestionReplied { question, answers } => {
                let answer = answers.map_or(Answered::Reject, Answered::Words);
                settle(
                    &mut draft,
                    turn,
                    (&question, Some(answer)),
                    Provenance::Live,
                );
            }
            // Of a sub-agent's session only its questions are ours; the rest shows that it is alive.
            _ if from_child => {}
            Observation::Connected
            | Observation::Heartbeat
            | Observation::Ignored
            | Observation::Counted { .. }
            | Observation::ChildOf { .. }
            | Observation::Busy
            | Observation::Unrecognised { .. } => {}
            Observation::AnswerUpdated(answer) => {
                if self.is_ours(state, message, turn, &answer) {
                    self.begin(&mut draft, message, turn);
                    self.answers.insert(answer.id);
                }
            }
            Observation::PartOpened { part, kind, answer } => {
                if !self.is_past(turn, &answer) {
                    self.begin(&mut draft, message, turn);
                    // One that has text already was shown by a look that overtook this frame.
                    if turn.run().part(&part).is_none() {
                        self.kinds.insert(part.clone(), kind);
                        self.opened.insert(part);
                    }
                }
            }
            Observation::Delta { part, text, answer } => {
                // A part that nothing has shown yet is known by the look that is due anyway.
                let Some(kind) = self.kinds.get(&part).copied() else {
                    return Step::default();
                };
                if self.is_past(turn, &answer) {
                    return Step::default();
                }
                let placement = if self.opened.contains(&part) {
                    Placement::End
                } else {
                    Placement::AfterHole
                };
                let piece = self.gather.piece(part, kind, placement, now);
                piece.add(&text, told_by);
            }
            Observation::PartEnded { part, answer } => {
                if !self.is_past(turn, &answer) {
                    self.begin(&mut draft, message, turn);
                    self.kinds.remove(&part.id);
                    let seen_whole =
                        self.opened.remove(&part.id) || turn.run().part(&part.id).is_none();
                    let provenance = if seen_whole {
                        Provenance::Live
                    } else {
                        Provenance::Backfilled
                    };
                    if let Some(event) = reconcile_part(message.id, turn.run(), &part, true) {
                        draft.push(event, provenance);
                    }
                }
            }
            Observation::Tool { call, answer } => {
                if !self.is_past(turn, &answer) {
                    self.begin(&mut draft, message, turn);
                    reconcile_call(&mut draft, message, turn, call, Provenance::Live);
                }
            }
            Observation::Missed => self.missed(now),
            Observation::Idle => self.look_at(now),
            Observation::Retrying {
                attempt,
                reason,
                next,
            } => {
                self.begin(&mut draft, message, turn);
                self.agent_retries(&mut draft, turn, (attempt, reason, next), now);
            }
            Observation::Error { name, reason } => {
                draft.push(
                    Event::AgentErrorReported {
                        message: message.id,
                        name,
                        reason,
                    },
                    Provenance::Live,
                );
                self.look_at(now.plus(self.policy.second_look_after));
            }
        }
        draft.step()
    }

    /// The agent waits before it asks its model again: recorded, and ended where it would wait too long.
    pub(super) fn agent_retries(
        &mut self,
        draft: &mut Draft,
        turn: &Turn,
        (attempt, reason, next): (u32, String, Option<Timestamp>),
        now: Timestamp,
    ) {
        if turn.stalled.is_some() {
            return;
        }
        // A look sees the same wait as the stream did, and as the look before.
        if turn.agent_retry != Some((attempt, next)) {
            draft.push(
                Event::AgentRetried {
                    message: turn.message,
                    attempt,
                    reason: reason.clone(),
                    next,
                },
                Provenance::Live,
            );
        }
        if let Some(next) = next {
            if next > now.plus(self.policy.agent_retry_max) {
                let run = turn.run().number;
                let reason = format!(
                    "the agent would wait for more than {:?} before it asks its model again: {reason}",
                    self.policy.agent_retry_max
                );
                draft.push(
                    Event::TurnStalled {
                        message: turn.message,
                        run,
                        reason,
                    },
                    Provenance::Live,
                );
            }
            // Its silence until then is announced.
            self.last_activity = self.last_activity.max(next);
        }
    }

    /// The first sign of work on a run.
    pub(super) fn begin(&mut self, draft: &mut Draft, message: &Message, turn: &Turn) {
        if turn.state == TurnState::Requested {
            let run = turn.run().number;
            draft.then(
                Event::TurnStarted {
                    message: message.id,
                    run,
                },
                Provenance::Live,
            );
            self.looks.due = None;
        }
        self.looks.idle = 0;
    }

    /// Remembers an answer to something else than the message at hand for as long as it is being written: a message
    /// that was taken back, or one of somebody else's that came while nothing of ours was worked on.
    fn notice(&mut self, state: &Session, answer: &Answer) {
        let parent = Some(answer.parent.as_str());
        let head = state.head().map(|(message, _)| message);
        let is_at_work = head.is_some_and(is_at_work);
        let is_head = head.is_some_and(|head| head.agent_message.as_deref() == parent);
        if answer.completed || is_head || (is_at_work && !is_known(state, &answer.parent)) {
            self.answers_beside.remove(&answer.id);
            return;
        }
        if self.answers_beside.len() >= BESIDE_MAX {
            self.answers_beside.clear();
        }
        self.answers_beside.insert(answer.id.clone());
    }

    /// Whether an answer belongs to a run that died, to the turn before, or to something else.
    pub(super) fn is_past(&self, turn: &Turn, answer: &String) -> bool {
        turn.dead_answers.contains(answer)
            || self.answers_before.contains(answer)
            || (self.answers_beside.contains(answer) && !self.answers.contains(answer))
    }

    /// Whether an answer belongs to the turn at hand: to its message, or to one that the agent wrote itself
    /// meanwhile (it may summarise, and carry on). Turns come one after the other, so what is not another's is ours.
    fn is_ours(&self, state: &Session, message: &Message, turn: &Turn, answer: &Answer) -> bool {
        if self.is_past(turn, &answer.id) {
            return false;
        }
        message.agent_message.as_deref() == Some(answer.parent.as_str())
            || !is_known(state, &answer.parent)
    }

    fn unrecognised(state: &Session, kind: String, frame: Json, now: Timestamp) -> Step {
        let mut draft = Draft::after(state.last, now);
        if !state.unrecognised.contains(&kind) && state.unrecognised.len() < UNRECOGNISED_MAX {
            draft.push(Event::FrameUnrecognised { kind, frame }, Provenance::Live);
        }
        draft.step()
    }
}

/// Whether the agent was asked to work on a message, and has not ended that.
const fn is_at_work(message: &Message) -> bool {
    matches!(
        message.state,
        MessageState::Requested | MessageState::Running
    )
}

/// Whether the agent knows one of our messages by this name.
fn is_known(state: &Session, agent_message: &str) -> bool {
    let mut messages = state.queue.messages().iter();
    messages.any(|message| message.agent_message.as_deref() == Some(agent_message))
}

/// Records that the agent asks for permission, unless it is known.
pub(super) fn ask_permission(
    draft: &mut Draft,
    turn: &Turn,
    permission: Permission,
    provenance: Provenance,
) {
    let Permission {
        id,
        action,
        detail,
        call,
    } = permission;
    if turn.question(&id).is_none() {
        let event = Event::PermissionAsked {
            message: turn.message,
            permission: id,
            action,
            detail,
            call,
        };
        draft.push(event, provenance);
    }
}

/// Records a question in words, unless it is known.
pub(super) fn ask(draft: &mut Draft, turn: &Turn, question: Question, provenance: Provenance) {
    let Question { id, prompts, call } = question;
    if turn.question(&id).is_none() {
        let event = Event::QuestionAsked {
            message: turn.message,
            question: id,
            prompts: Json::of(&prompts),
            call,
        };
        draft.push(event, provenance);
    }
}

/// Records that a question of this turn is settled, and by which answer, unless that is known.
pub(super) fn settle(
    draft: &mut Draft,
    turn: &Turn,
    (id, answer): (&str, Option<Answered>),
    provenance: Provenance,
) {
    let Some(question) = turn.question(id) else {
        return;
    };
    let told = question.answer.is_none() && answer.is_some();
    if question.settled && !told {
        return;
    }
    let message = turn.message;
    let id = id.to_owned();
    let event = match question.asks {
        Asks::Permission { .. } => Event::PermissionSettled {
            message,
            permission: id,
            answer: answer.as_ref().and_then(Answered::permission),
        },
        Asks::Words(_) => Event::QuestionSettled {
            message,
            question: id,
            answers: answer.as_ref().map(|answer| Json::of(&answer.words())),
        },
    };
    draft.push(event, provenance);
}

/// Records what is new about a tool call.
pub(super) fn reconcile_call(
    draft: &mut Draft,
    message: &Message,
    turn: &Turn,
    call: ToolCall,
    provenance: Provenance,
) {
    let ToolCall { id, tool, state } = call;
    let run = turn.run().number;
    let message = message.id;
    let known = turn.run().call(&id);
    let (input, end) = match state {
        ToolState::Pending => return,
        ToolState::Running { input } => (input, None),
        ToolState::Completed { input, output } => (input, Some((ToolOutcome::Completed, output))),
        ToolState::Failed { input, error } => (input, Some((ToolOutcome::Failed, error))),
    };
    if known.is_none() {
        let call = id.clone();
        draft.push(
            Event::ToolCallStarted {
                message,
                run,
                call,
                tool,
                input,
            },
            provenance,
        );
    }
    if let Some((outcome, output)) = end
        && known.is_none_or(|call| call.outcome.is_none())
    {
        draft.push(
            Event::ToolCallEnded {
                message,
                run,
                call: id,
                outcome,
                output,
            },
            provenance,
        );
    }
}
