//! How the effects of a connection are begun. What each comes to is an input of the loop.

use std::sync::Arc;

use recount_projections::connection::Server;
use recount_store::Target;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::{Done, Driver};
use crate::adapter::{CallError, Endpoint};
use crate::chance::Chance;
use crate::computer::beside;
use crate::machine::connection::{Effect, Failure, Input};
use crate::shell::server::{self, Announcement};

impl Driver {
    pub(super) async fn begin(&mut self, effect: Effect) {
        match effect {
            Effect::Adopt(server) => self.adopt(server),
            Effect::ChoosePort => {
                let chosen = choose(&self.setting.chance);
                self.doing = Some(Box::pin(async { Done::Input(chosen) }));
            }
            Effect::Spawn { mark, port } => self.spawn(mark, port),
            Effect::AwaitReady { mark } => self.await_ready(mark),
            Effect::Probe { url } => self.probe(url),
            Effect::AskCapabilities { url } => self.ask_capabilities(url),
            Effect::OpenStream { url } => self.open_stream(url),
            Effect::Close => {
                (self.doing, self.probing, self.asking) = (None, None, None);
                self.stream = None;
            }
            Effect::StopServer(server) => self.stop_server(server),
            Effect::Forget { mark } => {
                self.running = None;
                server::clear_away(&self.setting.servers, &mark).await;
            }
        }
    }

    fn adopt(&mut self, server: Server) {
        // A child of this process is watched already: had it ended, that would have been heard.
        let known = self.running.as_ref().and(server.process);
        let processes = self.setting.servers.processes.clone();
        self.doing = Some(Box::pin(async move {
            if let Some(process) = known {
                return Done::Found(Ok(process));
            }
            let found = {
                let processes = processes.clone();
                move || server::find(&processes, &server)
            };
            let found = beside(processes.computer(), found).await;
            Done::Found(found.unwrap_or_else(|error| Err(error.to_string())))
        }));
    }

    fn spawn(&mut self, mark: String, port: u16) {
        let (program, directory) = match &self.machine.connection().target {
            Some(Target::Managed { program, directory }) => (program.clone(), directory.clone()),
            Some(Target::Url(_)) | None => (None, String::new()),
        };
        let servers = self.setting.servers.clone();
        let adapter = Arc::clone(&self.adapter);
        let foreign = self.setting.policy.foreign_servers;
        let starting = server::spawn(servers, adapter, program, directory, mark, port, foreign);
        self.doing = Some(Box::pin(async move { Done::Started(starting.await) }));
    }

    fn await_ready(&mut self, mark: String) {
        let announcement = match &self.running {
            Some(running) => running.announcement(),
            None => Announcement::None,
        };
        let files = self.setting.servers.files.clone();
        let within = self.setting.policy.start_timeout;
        self.doing = Some(Box::pin(async move {
            let url = match announcement {
                Announcement::Line(prefix) => {
                    server::announced(&files, &mark, prefix, within).await
                }
                Announcement::Made(url) => Some(url),
                Announcement::None => None,
            };
            if let Some(url) = url {
                return Done::Input(Input::Listening { url });
            }
            let how = format!("the server did not say in {within:?} that it listens");
            let reason = server::epitaph(&files, &mark, None, &how);
            Done::Input(Input::NotReady { reason })
        }));
    }

    fn probe(&mut self, url: String) {
        if let Some(server) = &self.machine.connection().server {
            self.setting.servers.files.bound_output(&server.mark);
        }
        let endpoint = self.endpoint(url);
        let adapter = Arc::clone(&self.adapter);
        self.probing = Some(Box::pin(async move {
            // The adapter has its own limit; this one is for an adapter that has none.
            let patience = endpoint.policy.probe_timeout * 4;
            let asked = adapter.health(&endpoint).instrument(span("health"));
            let health = timeout(patience, asked).await;
            match health.unwrap_or_else(|_| Err(late("a probe"))) {
                Ok(health) => Input::ProbePassed {
                    refused: adapter.refuse_version(&health.version),
                    version: health.version,
                },
                Err(error) => Input::ProbeFailed(failure(&error)),
            }
        }));
    }

    fn ask_capabilities(&mut self, url: String) {
        let endpoint = self.endpoint(url);
        let adapter = Arc::clone(&self.adapter);
        self.asking = Some(Box::pin(async move {
            let asked = adapter.capabilities(&endpoint);
            let patience = endpoint.policy.capabilities_timeout * 2;
            let answer = timeout(patience, asked.instrument(span("capabilities"))).await;
            match answer.unwrap_or_else(|_| Err(late("what the server can do"))) {
                Ok(capabilities) => Input::Capable { capabilities },
                Err(error) => Input::NotCapable(failure(&error)),
            }
        }));
    }

    fn open_stream(&mut self, url: String) {
        let endpoint = self.endpoint(url);
        let adapter = Arc::clone(&self.adapter);
        self.doing = Some(Box::pin(async move {
            let patience = endpoint.policy.timeout * 2;
            let asked = adapter
                .open_stream(&endpoint)
                .instrument(span("open_stream"));
            let opened = timeout(patience, asked).await;
            Done::Opened(opened.unwrap_or_else(|_| Err(late("the stream"))))
        }));
    }

    fn stop_server(&mut self, server: Server) {
        let running = self.running.take();
        let processes = self.setting.servers.processes.clone();
        let patience = self.setting.policy.stop_timeout;
        self.doing = Some(Box::pin(async move {
            Done::Input(
                match server::stop(processes, server, running, patience).await {
                    Some(how) => Input::Exited {
                        how,
                        port_taken: false,
                    },
                    None => Input::StopFailed,
                },
            )
        }));
    }

    pub(super) fn endpoint(&self, url: String) -> Endpoint {
        let connection = self.machine.connection();
        let password = match (&connection.target, &connection.server) {
            (Some(Target::Managed { .. }), Some(server)) => {
                self.setting.servers.files.password(&server.mark)
            }
            (Some(Target::Managed { .. }), None) => None,
            (Some(Target::Url(_)) | None, _) => self.setting.url_password.clone(),
        };
        Endpoint {
            url,
            password,
            policy: self.setting.policy.calls,
        }
    }
}

fn choose(chance: &Chance) -> Input {
    match chance.port() {
        Ok(port) => Input::PortChosen {
            mark: server::choose_mark(chance),
            port,
        },
        Err(error) => Input::SpawnFailed(Failure {
            reason: format!("cannot find a free port: {error}"),
            lasting: false,
        }),
    }
}

/// The span of a call, inside its connection's.
fn span(call: &'static str) -> tracing::Span {
    tracing::info_span!("call", call)
}

fn late(what: &str) -> CallError {
    CallError::Unknown {
        reason: format!("{what} was not answered in time"),
    }
}

pub(super) fn failure(error: &CallError) -> Failure {
    let lasting = match error {
        CallError::RefusedForGood { .. } | CallError::Unsupported { .. } => true,
        CallError::NeverSent { .. }
        | CallError::NoSuchSession { .. }
        | CallError::RefusedForNow { .. }
        | CallError::Unknown { .. } => false,
    };
    Failure {
        reason: error.to_string(),
        lasting,
    }
}
