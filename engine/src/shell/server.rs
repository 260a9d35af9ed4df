//! Servers that the engine starts: their files, their processes, and how both end.
//!
//! A server must outlive a sudden death of the engine, so it has a process group of its own and writes
//! to a file, never into a pipe that closes with us. Every process carries the server's mark in its
//! environment: so it is found where its id was never recorded, and so its children are found after it.

mod files;
mod foreign;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use recount_projections::connection::{Process, Server};
use tokio::time::{Instant, sleep, timeout};

pub(super) use files::Files;

use foreign::{Foreign, Started};

use super::process::Processes;
use crate::adapter::{AgentAdapter, InProcessServer, Launch, LaunchSpec};
use crate::chance::Chance;
use crate::computer::{Child, Program, beside};
use crate::error::Error;
use crate::limits;
use crate::policy::ForeignServers;

/// The variable that carries a server's mark.
pub(super) const MARK_VARIABLE: &str = "RECOUNT_SERVER";

/// A name for a server that none had before.
pub(super) fn choose_mark(chance: &Chance) -> String {
    format!("{:032x}", chance.number())
}

/// Where servers live: what is kept about them, and their processes.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    pub(super) files: Files,
    pub(super) processes: Processes,
}

/// A server that lives.
pub(super) enum Running {
    /// A child of this process.
    Child {
        child: Box<dyn Child>,
        ready_prefix: &'static str,
    },
    /// A process that an earlier engine started.
    Adopted(Process, Processes),
    /// Inside this process.
    Inside(Arc<dyn InProcessServer>),
}

impl Running {
    /// Resolves once it is gone, with how.
    pub(super) async fn exited(&mut self) -> String {
        match self {
            Self::Child { child, .. } => child.exited().await,
            Self::Adopted(process, processes) => {
                processes.gone(*process).await;
                "not running any more".to_owned()
            }
            Self::Inside(server) => {
                server.exited().await;
                "it ended by itself".to_owned()
            }
        }
    }

    /// The beginning of the line that says it listens, where this process started it.
    pub(super) const fn ready_prefix(&self) -> Option<&'static str> {
        match self {
            Self::Child { ready_prefix, .. } => Some(ready_prefix),
            Self::Adopted(..) | Self::Inside(_) => None,
        }
    }

    /// What tells whether it says that it listens.
    pub(super) fn announcement(&self) -> Announcement {
        match self {
            Self::Child { ready_prefix, .. } => Announcement::Line(ready_prefix),
            Self::Adopted(..) => Announcement::None,
            Self::Inside(server) => Announcement::Made(server.url()),
        }
    }
}

/// How a server says that it listens.
pub(super) enum Announcement {
    /// With a line of its output that begins so.
    Line(&'static str),
    /// It has: there.
    Made(String),
    /// It has, and nobody listened.
    None,
}

/// Starts a server, its password kept before it lives.
pub(super) async fn spawn(
    servers: Servers,
    adapter: Arc<dyn AgentAdapter>,
    program: Option<String>,
    directory: String,
    mark: String,
    port: u16,
    foreign: ForeignServers,
) -> Result<(Running, Process), Error> {
    let Servers { files, processes } = &servers;
    let password = {
        let (files, mark) = (files.clone(), mark.clone());
        beside(processes.computer(), move || files.make_password(&mark))
            .await
            .map_err(|error| cannot_start(adapter.name(), error))??
    };
    let spec = LaunchSpec {
        program,
        directory,
        port,
        password,
    };
    match adapter.launch(&spec) {
        Launch::InProcess(starting) => {
            let server = starting
                .await
                .map_err(|error| cannot_start(adapter.name(), error))?;
            Ok((Running::Inside(server.into()), processes.own()))
        }
        Launch::Process {
            program,
            args,
            mut env,
            ready_prefix,
        } => {
            let started = Started::by_us(&program, &args, &env);
            look_for_others(&servers, &adapter, started, foreign).await?;
            files
                .create_output(&mark)
                .map_err(|source| Error::ServerFile {
                    action: "write",
                    path: files.output(&mark),
                    source: Arc::new(source),
                })?;
            env.push((MARK_VARIABLE.to_owned(), mark.clone()));
            let child = processes.computer().start(&Program {
                program: &program,
                args: &args,
                env: &env,
                directory: &spec.directory,
                output: &files.output(&mark),
            });
            let child = child
                .map_err(|error| not_spawned(adapter.name(), &program, &spec.directory, error))?;
            let process = child.pid().map(|pid| processes.of(pid)).unwrap_or_default();
            let running = Running::Child {
                child,
                ready_prefix,
            };
            Ok((running, process))
        }
    }
}

/// Whether a server may be started beside those that somebody else runs on the same data.
async fn look_for_others(
    servers: &Servers,
    adapter: &Arc<dyn AgentAdapter>,
    started: Started,
    policy: ForeignServers,
) -> Result<(), Error> {
    let computer = servers.processes.computer();
    let (files, agent, beside_us) = (
        servers.files.clone(),
        Arc::clone(adapter),
        Arc::clone(computer),
    );
    let search = move || foreign::find(&*beside_us, &*agent, &started, |mark| files.are_kept(mark));
    // That it cannot be looked for is no reason to start none.
    let found = beside(computer, search).await.unwrap_or(None);
    let Some(Foreign { pid, home }) = found else {
        return Ok(());
    };
    let agent = adapter.name();
    match policy {
        ForeignServers::Allow => {
            tracing::warn!(agent, pid, home, "somebody else serves the same data");
            Ok(())
        }
        ForeignServers::Refuse => Err(Error::ForeignServer {
            agent: agent.to_owned(),
            pid,
            home,
        }),
    }
}

fn not_spawned(agent: &str, program: &str, directory: &str, error: io::Error) -> Error {
    // The system says "not found" of a missing folder too.
    if error.kind() == io::ErrorKind::NotFound && Path::new(directory).is_dir() {
        return Error::ProgramNotFound {
            agent: agent.to_owned(),
            program: program.to_owned(),
        };
    }
    Error::Server {
        action: format!("start {program} in {directory}"),
        source: Arc::new(error),
    }
}

fn cannot_start(agent: &str, error: io::Error) -> Error {
    Error::Server {
        action: format!("start {agent}"),
        source: Arc::new(error),
    }
}

/// Waits for the line that says a server listens, and gives its address.
pub(super) async fn announced(
    files: &Files,
    mark: &str,
    prefix: &str,
    within: Duration,
) -> Option<String> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(url) = files.announced(mark, prefix) {
            return Some(url);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(limits::OUTPUT_POLL).await;
    }
}

/// Finds the process of a server that an earlier engine started, or was about to.
///
/// # Errors
///
/// How it shows that there is none.
pub(super) fn find(processes: &Processes, server: &Server) -> Result<Process, String> {
    match server.process {
        // A server inside a process is gone with it, even if that was this one.
        Some(process) if process.pid == processes.own().pid => {
            Err("it ended with its engine".to_owned())
        }
        // After a restart of the computer even a process that began at the same moment may be a stranger.
        Some(process)
            if processes.is_alive(process) && processes.may_carry(process, &server.mark) =>
        {
            Ok(process)
        }
        Some(_) => Err("not running any more".to_owned()),
        None => processes
            .marked(&server.mark)
            .into_iter()
            .min_by_key(|process| process.started)
            .ok_or_else(|| "no process carries its mark".to_owned()),
    }
}

/// Ends a server: asks it, then kills it and whatever it left. Gives how it ended, or `None` where it lives on.
pub(super) async fn stop(
    processes: Processes,
    server: Server,
    running: Option<Running>,
    patience: Duration,
) -> Option<String> {
    let how = match running {
        Some(Running::Inside(inside)) => {
            timeout(patience, inside.stop()).await.ok()?;
            return Some("stopped".to_owned());
        }
        Some(mut running) => end(&processes, &server, &mut running, patience).await?,
        None => match find(&processes, &server) {
            Ok(process) => {
                let server = Server {
                    process: Some(process),
                    ..server.clone()
                };
                let mut running = Running::Adopted(process, processes.clone());
                end(&processes, &server, &mut running, patience).await?
            }
            Err(how) => how,
        },
    };
    sweep(&processes, &server.mark).await;
    Some(how)
}

async fn end(
    processes: &Processes,
    server: &Server,
    running: &mut Running,
    patience: Duration,
) -> Option<String> {
    let process = server.process?;
    processes.terminate_group(process);
    if let Ok(how) = timeout(patience, running.exited()).await {
        return Some(format!("stopped: {how}"));
    }
    processes.kill_group(process);
    let how = timeout(patience, running.exited()).await.ok()?;
    Some(format!("killed: {how}"))
}

/// Removes the files of a server that is gone, and ends what it left behind.
pub(super) async fn clear_away(servers: &Servers, mark: &str) {
    sweep(&servers.processes, mark).await;
    servers.files.remove(mark);
}

/// Kills what a server left behind: tools that it ran outlive any signal to it.
pub(super) async fn sweep(processes: &Processes, mark: &str) {
    // One that is being killed may have had a child meanwhile, so this looks until nothing is found.
    for _ in 0..limits::SWEEPS_MAX {
        let (mark, swept) = (mark.to_owned(), processes.clone());
        let swept = beside(processes.computer(), move || {
            let left = swept.marked(&mark);
            for process in &left {
                swept.kill(*process);
            }
            left.len()
        });
        if matches!(swept.await, Ok(0) | Err(_)) {
            return;
        }
        sleep(limits::SWEEP_PAUSE).await;
    }
    tracing::warn!(mark, "what a server left behind does not end");
}

/// How a server that is gone ended, with its last words.
pub(super) fn epitaph(files: &Files, mark: &str, ready_prefix: Option<&str>, how: &str) -> String {
    match files.last_words(mark, ready_prefix) {
        Some(words) => format!("{how}: {words}"),
        None => how.to_owned(),
    }
}

/// Whether somebody else listens where a server that ended was told to.
pub(super) fn lost_its_port(processes: &Processes, server: &Server) -> bool {
    processes.computer().is_taken(server.port)
}
