//! Servers that the engine starts: their files, their processes, and how both end.
//!
//! A server must outlive a sudden death of the engine, so it has a process group of its own and writes
//! to a file, never into a pipe that closes with us. Every process carries the server's mark in its
//! environment: so it is found where its id was never recorded, and so its children are found after it.

mod files;
mod foreign;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use recount_projections::connection::{Process, Server};
use tokio::time::{Instant, sleep, timeout};

pub(super) use files::Files;

use foreign::{Foreign, Started};

use super::process;
use crate::adapter::{AgentAdapter, InProcessServer, Launch, LaunchSpec};
use crate::chance::Chance;
use crate::error::Error;
use crate::limits;
use crate::policy::ForeignServers;

/// The variable that carries a server's mark.
pub(super) const MARK_VARIABLE: &str = "RECOUNT_SERVER";

/// A name for a server that none had before.
pub(super) fn choose_mark(chance: &Chance) -> String {
    format!("{:032x}", chance.number())
}

fn port_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// A server that lives.
pub(super) enum Running {
    /// A child of this process.
    Child {
        child: tokio::process::Child,
        ready_prefix: &'static str,
    },
    /// A process that an earlier engine started.
    Adopted(Process),
    /// Inside this process.
    Inside(Arc<dyn InProcessServer>),
}

impl Running {
    /// Resolves once it is gone, with how.
    pub(super) async fn exited(&mut self) -> String {
        match self {
            Self::Child { child, .. } => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Adopted(process) => {
                process::gone(*process).await;
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
            Self::Adopted(_) | Self::Inside(_) => None,
        }
    }

    /// What tells whether it says that it listens.
    pub(super) fn announcement(&self) -> Announcement {
        match self {
            Self::Child { ready_prefix, .. } => Announcement::Line(ready_prefix),
            Self::Adopted(_) => Announcement::None,
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
    files: Files,
    adapter: Arc<dyn AgentAdapter>,
    program: Option<String>,
    directory: String,
    mark: String,
    port: u16,
    foreign: ForeignServers,
) -> Result<(Running, Process), Error> {
    let password = {
        let (files, mark) = (files.clone(), mark.clone());
        tokio::task::spawn_blocking(move || files.make_password(&mark))
            .await
            .map_err(|error| cannot_start(adapter.name(), io::Error::other(error)))??
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
            Ok((Running::Inside(server.into()), process::own()))
        }
        Launch::Process {
            program,
            args,
            env,
            ready_prefix,
        } => {
            let started = Started::by_us(&program, &args, &env);
            look_for_others(&files, &adapter, started, foreign).await?;
            let output = files
                .create_output(&mark)
                .and_then(|file| Ok((file.try_clone()?, file)));
            let (stdout, stderr) = output.map_err(|source| Error::ServerFile {
                action: "write",
                path: files.output(&mark),
                source: Arc::new(source),
            })?;
            let mut command = tokio::process::Command::new(&program);
            command
                .args(args)
                .envs(env)
                .env(MARK_VARIABLE, &mark)
                .current_dir(&spec.directory)
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(stderr);
            #[cfg(unix)]
            command.process_group(0);
            let child = command
                .spawn()
                .map_err(|error| not_spawned(adapter.name(), &program, &spec.directory, error))?;
            let process = child.id().map(process::of).unwrap_or_default();
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
    files: &Files,
    adapter: &Arc<dyn AgentAdapter>,
    started: Started,
    policy: ForeignServers,
) -> Result<(), Error> {
    let (files, agent) = (files.clone(), Arc::clone(adapter));
    let search = move || foreign::find(&*agent, &started, |mark| files.are_kept(mark));
    // That it cannot be looked for is no reason to start none.
    let found = tokio::task::spawn_blocking(search).await.unwrap_or(None);
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
pub(super) fn find(server: &Server) -> Result<Process, String> {
    match server.process {
        // A server inside a process is gone with it, even if that was this one.
        Some(process) if process.pid == std::process::id() => {
            Err("it ended with its engine".to_owned())
        }
        // After a restart of the computer even a process that began at the same moment may be a stranger.
        Some(process)
            if process::is_alive(process) && process::may_carry(process, &server.mark) =>
        {
            Ok(process)
        }
        Some(_) => Err("not running any more".to_owned()),
        None => process::marked(&server.mark)
            .into_iter()
            .min_by_key(|process| process.started)
            .ok_or_else(|| "no process carries its mark".to_owned()),
    }
}

/// Ends a server: asks it, then kills it and whatever it left. Gives how it ended, or `None` where it lives on.
pub(super) async fn stop(
    server: Server,
    running: Option<Running>,
    patience: Duration,
) -> Option<String> {
    let how = match running {
        Some(Running::Inside(inside)) => {
            timeout(patience, inside.stop()).await.ok()?;
            return Some("stopped".to_owned());
        }
        Some(mut running) => end(&server, &mut running, patience).await?,
        None => match find(&server) {
            Ok(process) => {
                let server = Server {
                    process: Some(process),
                    ..server.clone()
                };
                end(&server, &mut Running::Adopted(process), patience).await?
            }
            Err(how) => how,
        },
    };
    sweep(&server.mark).await;
    Some(how)
}

async fn end(server: &Server, running: &mut Running, patience: Duration) -> Option<String> {
    let process = server.process?;
    process::terminate_group(process);
    if let Ok(how) = timeout(patience, running.exited()).await {
        return Some(format!("stopped: {how}"));
    }
    process::kill_group(process);
    let how = timeout(patience, running.exited()).await.ok()?;
    Some(format!("killed: {how}"))
}

/// Removes the files of a server that is gone, and ends what it left behind.
pub(super) async fn clear_away(files: &Files, mark: &str) {
    sweep(mark).await;
    files.remove(mark);
}

/// Kills what a server left behind: tools that it ran outlive any signal to it.
pub(super) async fn sweep(mark: &str) {
    // One that is being killed may have had a child meanwhile, so this looks until nothing is found.
    for _ in 0..limits::SWEEPS_MAX {
        let mark = mark.to_owned();
        let swept = tokio::task::spawn_blocking(move || {
            let left = process::marked(&mark);
            for process in &left {
                process::kill(*process);
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
pub(super) fn lost_its_port(server: &Server) -> bool {
    port_taken(server.port)
}
