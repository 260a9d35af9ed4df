//! How a connection ends, and what follows: the next try, an open circuit, or rest.

use recount_store::{Cause, ConnectionState, Event, Timestamp};

use super::{Effect, Failure, Machine, Phase, UNWANTED, Wish};
use crate::machine::{Step, backoff, breaker};

impl Machine {
    pub(super) fn unwanted(&mut self, step: &mut Step<Effect>, stop_too: bool, now: Timestamp) {
        self.wish = if stop_too { Wish::Stop } else { Wish::Nothing };
        self.asked_for = false;
        match self.phase {
            // What is begun there must be seen to its end; it is given up then.
            Phase::Spawning | Phase::Stopping { .. } => {}
            Phase::Streaming { .. } => {
                let reason = UNWANTED.to_owned();
                self.record(step, Event::StreamLost { reason }, now);
                self.abandon(step, now);
            }
            Phase::Resting if !self.trying => {}
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Starting
            | Phase::Probing { .. }
            | Phase::Opening => self.abandon(step, now),
        }
    }

    pub(super) fn abandon(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        self.change(step, ConnectionState::Disconnected, now);
        step.effects.push(Effect::Close);
        (self.trying, self.phase) = (false, Phase::Resting);
    }

    /// The stream is gone: schedule the next, soon if this one had held.
    pub(super) fn lose(&mut self, step: &mut Step<Effect>, reason: String, now: Timestamp) {
        let held = now.since(self.connection.since) >= self.policy.held_after;
        let failures = if held { 0 } else { self.connection.attempt() };
        self.record(step, Event::StreamLost { reason }, now);
        self.abandon(step, now);
        self.schedule(step, failures, Next::Backoff, now);
    }

    /// A server that does not do what it should: ours is stopped, another's is left alone.
    pub(super) fn stop_and_fail(
        &mut self,
        step: &mut Step<Effect>,
        reason: String,
        lasting: bool,
        now: Timestamp,
    ) {
        if self.connection.server.is_some() {
            let event = Event::ServerStopDecided {
                reason: reason.clone(),
            };
            self.record(step, event, now);
            step.effects.push(Effect::Close);
        }
        let next = if lasting { Next::Later } else { Next::Backoff };
        self.fail(step, reason, next, now);
    }

    pub(super) fn fail(
        &mut self,
        step: &mut Step<Effect>,
        reason: String,
        next: Next,
        now: Timestamp,
    ) {
        let attempt = self.connection.attempt();
        self.record(step, Event::ConnectFailed { attempt, reason }, now);
        self.change(step, ConnectionState::Disconnected, now);
        (self.trying, self.phase) = (false, Phase::Resting);
        self.schedule(step, attempt, next, now);
    }

    pub(super) fn schedule(
        &self,
        step: &mut Step<Effect>,
        failures: u32,
        next: Next,
        now: Timestamp,
    ) {
        if self.wish != Wish::Connection {
            return;
        }
        let lasting = next == Next::Later;
        let follows = |failures| {
            breaker::after_failure(
                &self.breaker,
                &self.policy,
                self.seed,
                failures,
                lasting,
                now,
            )
        };
        let event = match (follows(failures), next) {
            // Another port will do: the wait is that of a first try.
            (Event::ReconnectScheduled { attempt, .. }, Next::Soon) => Event::ReconnectScheduled {
                attempt,
                at: now.plus(backoff::delay(&self.policy.backoff, self.seed, 1)),
            },
            (event, _) => event,
        };
        self.record(step, event, now);
    }

    pub(super) fn change(&self, step: &mut Step<Effect>, to: ConnectionState, now: Timestamp) {
        let from = self.connection.state;
        self.record(step, Event::ConnectionChanged { from, to }, now);
    }

    pub(super) fn record(&self, step: &mut Step<Effect>, event: Event, now: Timestamp) {
        let cause = self.connection.moved.map_or(Cause::None, Cause::At);
        step.record(event, now, cause);
    }
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once, almost.
    Soon,
    /// After the delay of the try.
    Backoff,
    /// When the circuit lets one through.
    Later,
}

impl Next {
    pub(super) const fn of(failure: &Failure) -> Self {
        if failure.lasting {
            Self::Later
        } else {
            Self::Backoff
        }
    }
}
