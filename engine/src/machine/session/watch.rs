//! A turn that was asked for: its questions, its end on request or by a bound, and its next run where the agent died.

use recount_projections::turn::Asks;
use recount_projections::{Message, Session, Turn};
use recount_store::{Event, Provenance, Rerun, Timestamp};

use super::draft::Draft;
use super::policy::RerunPolicy;
use super::steer::may_be_overtaken;
use super::{Effect, Flight, Looks, SessionMachine, Step, look, observe};
use crate::adapter::{AnswerOutcome, CallError};

impl SessionMachine {
    /// A turn that was asked for: answer questions, end it where it must end, look where nothing was seen.
    pub(super) fn watch(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        now: Timestamp,
    ) -> Step {
        if !self.is_up() {
            return Step::default();
        }
        if let Some(step) = self.expire(message, turn, now) {
            return step;
        }
        if let Some(step) = self.answer_questions(state, turn, now) {
            return step;
        }
        if self.flight == Some(Flight::Starting) {
            return Step::default();
        }
        if message.abort_asked || turn.stalled.is_some() {
            if let Some(step) = self.abort(state, message, turn, now) {
                return step;
            }
        } else if let Some(step) = self.stall(message, turn, now) {
            return step;
        }
        let due = self.looks.due.unwrap_or_else(|| {
            let seen = self.last_activity.max(self.looks.last);
            seen.plus(self.policy.look_every)
        });
        self.look_when_due(state, message, due, now)
    }

    /// Refuses what nobody answers. What an earlier engine saw asked counts once it is known to be alive.
    fn expire(&mut self, message: &Message, turn: &Turn, now: Timestamp) -> Option<Step> {
        if !self.confirmed {
            return None;
        }
        let oldest = turn
            .open_questions()
            .min_by_key(|question| question.asked_at)?;
        let due = oldest.asked_at.plus(self.policy.question_patience);
        if now < due {
            self.wake_at(due);
            return None;
        }
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::QuestionExpired {
                message: message.id,
                question: oldest.id.clone(),
                reason: format!("nobody answered within {:?}", self.policy.question_patience),
            },
            Provenance::Live,
        );
        Some(draft.step())
    }

    fn answer_questions(&mut self, state: &Session, turn: &Turn, now: Timestamp) -> Option<Step> {
        let session = Self::agent_session(state)?;
        let (question, answer) = turn.questions.iter().find_map(|question| {
            let answer = question.answer.as_ref().filter(|_| !question.settled)?;
            (!self.answering.contains(&question.id)).then_some((question, answer))
        })?;
        self.answering.insert(question.id.clone());
        // While the question was open the agent's silence was ours.
        self.last_activity = self.last_activity.max(now);
        let id = question.id.clone();
        Some(Step::act(match (&question.asks, answer.permission()) {
            (Asks::Permission { .. }, Some(answer)) => Effect::AnswerPermission {
                session,
                permission: id,
                answer,
            },
            _ => Effect::AnswerQuestion {
                session,
                question: id,
                answers: answer.words().map(<[_]>::to_vec),
            },
        }))
    }

    pub(super) fn answered(
        &mut self,
        state: &Session,
        question: &str,
        outcome: &Result<AnswerOutcome, CallError>,
        now: Timestamp,
    ) -> Step {
        let Some((message, Some(turn))) = state.head() else {
            return Step::default();
        };
        let Ok(outcome) = outcome else {
            // Stays in `answering`: the next opening of the stream, or a look, tries again.
            self.look_at(now.plus(self.policy.second_look_after));
            return Step::act(Effect::Suspect);
        };
        let ours = turn.question(question);
        let taken = ours.filter(|_| *outcome == AnswerOutcome::Taken);
        let answer = taken.and_then(|question| question.answer.clone());
        let mut draft = Draft::after(message.moved, now);
        observe::settle(&mut draft, turn, (question, answer), Provenance::Live);
        draft.step()
    }

    fn abort(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        now: Timestamp,
    ) -> Option<Step> {
        let since = *self.aborting.get_or_insert(now);
        let due = since.plus(self.policy.abort_patience);
        if now < due {
            self.wake_at(due);
            if std::mem::replace(&mut self.abort_sent, true) {
                return None;
            }
            self.look_at(now.plus(self.policy.second_look_after));
            return Self::agent_session(state).map(|session| Step::act(Effect::Abort(session)));
        }
        if !self.gather.is_empty() {
            return Some(self.flush(state, now));
        }
        self.looks = Looks::default();
        let mut draft = Draft::after(message.moved, now);
        draft.push(look::ended_on_request(message, turn), Provenance::Inferred);
        Some(draft.step())
    }

    fn stall(&mut self, message: &Message, turn: &Turn, now: Timestamp) -> Option<Step> {
        // A person may take as long as a question may wait, and the turn takes none of its time meanwhile.
        if turn.open_questions().next().is_some() {
            return None;
        }
        let whole = turn.counts_from.plus(self.policy.turn_max);
        let heard = self.last_activity.max(turn.counts_from);
        let silent = heard.plus(self.policy.silence_max);
        // Before it has begun an agent may have to boot: how long that may take is `request_grace`'s to say.
        let due = if turn.run().started {
            whole.min(silent)
        } else {
            whole
        };
        if now < due {
            self.wake_at(due);
            return None;
        }
        let reason = if now >= whole {
            format!("the turn took longer than {:?}", self.policy.turn_max)
        } else {
            format!(
                "nothing came from the agent for {:?}",
                self.policy.silence_max
            )
        };
        Some(Self::stalled(message, turn, reason, now))
    }

    fn stalled(message: &Message, turn: &Turn, reason: String, now: Timestamp) -> Step {
        let mut draft = Draft::after(message.moved, now);
        let run = turn.run().number;
        draft.push(
            Event::TurnStalled {
                message: message.id,
                run,
                reason,
            },
            Provenance::Live,
        );
        draft.step()
    }

    pub(super) fn decide_rerun(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        now: Timestamp,
    ) -> Step {
        let run = turn.run().number;
        let mut draft = Draft::after(message.moved, now);
        let stalled = turn.stalled.as_ref();
        if message.abort_asked || (stalled.is_some() && !self.may_run_again(message, turn)) {
            draft.push(look::ended_on_request(message, turn), Provenance::Inferred);
            return draft.step();
        }
        let (rerun, why) = self.choose_rerun(state, message, turn);
        let (reason, end) = match stalled {
            Some(bound) => (
                format!("{why}; it stalled: {bound}"),
                format!("{bound}, and it is not run again: {why}"),
            ),
            None => (
                why.clone(),
                format!("the agent died in it, and it is not run again: {why}"),
            ),
        };
        if rerun == Rerun::Wait {
            // A person may take days, and may work in the agent's session meanwhile.
            self.newest = None;
        }
        draft.then(
            Event::RerunDecided {
                message: message.id,
                run,
                rerun,
                reason,
            },
            Provenance::Live,
        );
        if rerun == Rerun::GiveUp {
            draft.push(
                Event::TurnFailed {
                    message: message.id,
                    run,
                    reason: end,
                },
                Provenance::Inferred,
            );
        }
        draft.step()
    }

    /// Whether a turn that stalled may have another run, the agent having let go of this one.
    pub(super) fn may_run_again(&self, message: &Message, turn: &Turn) -> bool {
        let within = turn.stalls <= self.policy.stalls_rerun_max;
        turn.stalled.is_some() && within && !message.abort_asked
    }

    fn choose_rerun(&self, state: &Session, message: &Message, turn: &Turn) -> (Rerun, String) {
        let tools: Vec<&str> = turn.tools_begun().collect();
        if turn.run().number >= self.policy.runs_max {
            let why = match self.policy.runs_max {
                0 | 1 => "no run but the first is allowed".to_owned(),
                runs => format!("the agent died in all {runs} runs"),
            };
            return (Rerun::GiveUp, why);
        }
        if self.is_newest(message) == Some(false) || may_be_overtaken(state) {
            return (Rerun::GiveUp, look::NOT_THE_NEWEST.to_owned());
        }
        match self.policy.rerun {
            RerunPolicy::Never => (Rerun::GiveUp, "the policy is never".to_owned()),
            RerunPolicy::Auto => (Rerun::Run, "the policy is auto".to_owned()),
            RerunPolicy::Ask if tools.is_empty() => (Rerun::Run, "no tool had begun".to_owned()),
            RerunPolicy::Ask => (
                Rerun::Wait,
                format!(
                    "tools had begun and may have done work: {}",
                    tools.join(", ")
                ),
            ),
        }
    }
}
