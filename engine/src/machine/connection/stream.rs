//! The stream: opened, watched for silence, counted for gaps.

use recount_projections::breaker::State as Circuit;
use recount_store::{ConnectionState, Event, Timestamp};

use super::{Effect, Machine, Phase, Pulse};
use crate::machine::Step;

impl Machine {
    pub(super) fn stream_opened(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        let (Phase::Opening, Some(ready)) = (&self.phase, &self.connection.ready) else {
            return;
        };
        let url = ready.url.clone();
        self.record(step, Event::StreamOpened, now);
        self.change(step, ConnectionState::Connected, now);
        if self.breaker.state != Circuit::Closed {
            self.record(step, Event::CircuitClosed, now);
        }
        if self.connection.capabilities.is_none() {
            let url = url.clone();
            step.effects.push(Effect::AskCapabilities { url });
        }
        self.trying = false;
        self.phase = Phase::Streaming {
            url,
            heard: now,
            pulse: Pulse::default(),
            probed: now,
            probing: false,
            missed: 0,
        };
    }

    /// What the server can do is known; recorded where that is news.
    pub(super) fn capable(
        &self,
        step: &mut Step<Effect>,
        capabilities: Vec<String>,
        now: Timestamp,
    ) {
        let known = self.connection.capabilities.as_ref();
        if self.is_streaming() && known.is_none_or(|known| known.words != capabilities) {
            self.record(step, Event::CapabilitiesFound { capabilities }, now);
        }
    }

    pub(super) fn heard(&mut self, now: Timestamp) {
        if let Phase::Streaming { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    pub(super) fn watch(&mut self, now: Timestamp) -> Step<Effect> {
        let Phase::Streaming {
            url,
            heard,
            pulse,
            probed,
            probing,
            ..
        } = &mut self.phase
        else {
            return Step::default();
        };
        let patience = pulse.patience(&self.policy);
        let failing = self.connection.probe_failing.is_some();
        let silence_max = if failing {
            patience.silence_max
        } else {
            patience.silence_answering_max
        };
        let given_up_at = heard.plus(silence_max);
        if now >= given_up_at {
            let silence = now.since(*heard).as_secs();
            let health = if failing { ", nor to probes" } else { "" };
            let reason = format!("nothing came for {silence} s{health}");
            let mut step = Step::default();
            self.lose(&mut step, reason, now);
            return step;
        }
        let suspect_at = heard.plus(patience.suspect_after);
        let probe_at = if *probed < suspect_at {
            probed.plus(self.policy.probe_every).min(suspect_at)
        } else {
            probed.plus(patience.probe_again)
        };
        if *probing {
            return Step::wait(given_up_at);
        }
        if now < probe_at {
            return Step::wait(given_up_at.min(probe_at));
        }
        (*probing, *probed) = (true, now);
        Step {
            effects: vec![Effect::Probe { url: url.clone() }],
            wake_at: Some(given_up_at),
            ..Step::default()
        }
    }

    pub(super) fn counted(
        &mut self,
        step: &mut Step<Effect>,
        session: String,
        number: u64,
        now: Timestamp,
    ) {
        let Some(last) = self.counts.get_mut(&session) else {
            self.counts.insert(session, number);
            return;
        };
        let expected = last.saturating_add(1);
        *last = number.max(*last);
        if number > expected {
            let event = Event::GapFound {
                agent_session: session,
                from: expected,
                to: number,
            };
            self.record(step, event, now);
        }
    }
}
