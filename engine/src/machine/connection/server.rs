//! A server of our own: found again or started, announced, gone; and the health of any server.

use recount_projections::connection::{Process, Ready};
use recount_store::{Cause, Event, Timestamp};

use super::ends::Next;
use super::{Effect, Failure, Machine, Phase, Wish};
use crate::limits;
use crate::machine::Step;

impl Machine {
    pub(super) fn found(&mut self, step: &mut Step<Effect>, process: Process, now: Timestamp) {
        let (Phase::Looking, Some(server)) = (&self.phase, &self.connection.server) else {
            return;
        };
        let patience = match self.connection.ready {
            Some(_) => self.policy.answer_timeout,
            None => self.policy.start_timeout,
        };
        let url = match &self.connection.ready {
            Some(ready) => ready.url.clone(),
            None => format!("http://127.0.0.1:{}", server.port),
        };
        if server.process.is_none() {
            let Process { pid, started } = process;
            self.record(step, Event::ServerSpawned { pid, started }, now);
            step.inferred();
        }
        step.effects
            .extend(self.probe(url, now.plus(patience)).effects);
    }

    pub(super) fn missing(&mut self, step: &mut Step<Effect>, how: String, now: Timestamp) {
        if self.phase == Phase::Looking {
            self.phase = Phase::Resting;
            self.gone(step, how, now);
            step.inferred();
        }
    }

    pub(super) fn port_chosen(
        &mut self,
        step: &mut Step<Effect>,
        mark: String,
        port: u16,
        now: Timestamp,
    ) {
        if self.phase == Phase::Choosing {
            let event = Event::ServerStartDecided {
                mark: mark.clone(),
                port,
            };
            self.record(step, event, now);
            step.effects.push(Effect::Spawn { mark, port });
            self.phase = Phase::Spawning;
        }
    }

    pub(super) fn spawned(&mut self, step: &mut Step<Effect>, process: Process, now: Timestamp) {
        let (Phase::Spawning, Some(server)) = (&self.phase, &self.connection.server) else {
            return;
        };
        let mark = server.mark.clone();
        let Process { pid, started } = process;
        self.record(step, Event::ServerSpawned { pid, started }, now);
        if self.wish == Wish::Connection {
            step.effects.push(Effect::AwaitReady { mark });
            self.phase = Phase::Starting;
        } else {
            self.abandon(step, now);
        }
    }

    pub(super) fn spawn_failed(
        &mut self,
        step: &mut Step<Effect>,
        failure: &Failure,
        now: Timestamp,
    ) {
        if !matches!(self.phase, Phase::Choosing | Phase::Spawning) {
            return;
        }
        self.gone(step, "it did not start".to_owned(), now);
        self.fail(step, failure.reason.clone(), Next::of(failure), now);
    }

    pub(super) fn listening(&mut self, step: &mut Step<Effect>, url: String, now: Timestamp) {
        if self.phase == Phase::Starting {
            let until = now.plus(self.policy.answer_timeout);
            step.effects.extend(self.probe(url, until).effects);
        }
    }

    pub(super) fn exited(
        &mut self,
        step: &mut Step<Effect>,
        how: &str,
        port_taken: bool,
        now: Timestamp,
    ) {
        // While one is being started, only the start itself can tell of it.
        if self.connection.server.is_none() || self.phase == Phase::Spawning {
            return;
        }
        self.gone(step, how.to_owned(), now);
        match self.phase {
            Phase::Streaming { .. } => self.lose(step, format!("the server ended: {how}"), now),
            Phase::Looking | Phase::Starting | Phase::Probing { .. } | Phase::Opening => {
                let next = if port_taken {
                    Next::Soon
                } else {
                    Next::Backoff
                };
                step.effects.push(Effect::Close);
                self.fail(step, format!("the server ended: {how}"), next, now);
            }
            Phase::Stopping { .. } => self.phase = Phase::Resting,
            Phase::Resting | Phase::Choosing | Phase::Spawning => {}
        }
    }

    /// The server's process is gone: record it, and clear away what it left.
    pub(super) fn gone(&mut self, step: &mut Step<Effect>, how: String, now: Timestamp) {
        if let Some(server) = &self.connection.server {
            let cause = Cause::At(server.position);
            step.record(Event::ServerExited { how }, now, cause);
            step.effects.push(Effect::Forget {
                mark: server.mark.clone(),
            });
        }
    }

    // ---- health

    pub(super) fn probe_passed(
        &mut self,
        step: &mut Step<Effect>,
        version: String,
        refused: Option<String>,
        now: Timestamp,
    ) {
        match &mut self.phase {
            Phase::Probing { url, .. } => {
                let url = url.clone();
                match refused {
                    Some(reason) => self.stop_and_fail(step, reason, true, now),
                    None => self.answered(step, Ready { url, version }, now),
                }
            }
            Phase::Streaming {
                probing, missed, ..
            } => {
                (*probing, *missed) = (false, 0);
                self.recovered(step, now);
            }
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Spawning
            | Phase::Starting
            | Phase::Opening
            | Phase::Stopping { .. } => {}
        }
    }

    pub(super) fn answered(&mut self, step: &mut Step<Effect>, ready: Ready, now: Timestamp) {
        self.recovered(step, now);
        let url = ready.url.clone();
        if self.connection.ready.as_ref() != Some(&ready) {
            let Ready { url, version } = ready;
            self.record(step, Event::ServerReady { url, version }, now);
        }
        step.effects.push(Effect::OpenStream { url });
        self.phase = Phase::Opening;
    }

    pub(super) fn recovered(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        if let Some(failed) = self.connection.probe_failing {
            step.record(Event::ProbeRecovered, now, Cause::At(failed));
        }
    }

    pub(super) fn probe_failed(
        &mut self,
        step: &mut Step<Effect>,
        failure: &Failure,
        now: Timestamp,
    ) {
        match &mut self.phase {
            Phase::Probing { until, again, .. } if now < *until => {
                *again = Some(now.plus(limits::PROBE_PAUSE));
            }
            Phase::Probing { .. } => {
                self.stop_and_fail(step, failure.reason.clone(), failure.lasting, now);
            }
            Phase::Streaming {
                probing, missed, ..
            } => {
                (*probing, *missed) = (false, missed.saturating_add(1));
                let known = self.connection.probe_failing.is_some();
                if *missed >= limits::PROBES_MISSED_MIN && !known {
                    let reason = failure.reason.clone();
                    self.record(step, Event::ProbeFailed { reason }, now);
                }
            }
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Spawning
            | Phase::Starting
            | Phase::Opening
            | Phase::Stopping { .. } => {}
        }
    }
}
