//! Servers that the engine starts: their files, their processes, and how both end.
//!
//! A server must outlive a sudden death of the engine, so it has a process group of its own and writes
//! to a file, never into a pipe that closes with us. Every process carries the server's mark in its
//! environment: so it is found where its id was never recorded, and so its children are found after it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use recount_projections::connection::{Process, Server};
use tokio::time::{Instant, sleep, timeout};

use super::process;
use crate::adapter::{AgentAdapter, InProcessServer, Launch, LaunchSpec, Secret};
use crate::error::Error;
use crate::limits;

/// The variable that carries a server's mark.
pub(super) const MARK_VARIABLE: &str = "RECOUNT_SERVER";

/// A name for a server that none had before.
pub(super) fn choose_mark() -> io::Result<String> {
    random_hex::<16>()
}

/// A port on loopback where nothing listens at this moment.
pub(super) fn choose_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::with_capacity(2 * N);
    for byte in bytes {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Ok(text)
}

fn port_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The files of servers: `MARK` holds the password, `MARK.out` what the server writes.
#[derive(Debug, Clone)]
pub(super) struct Files {
    directory: Arc<Path>,
}

impl Files {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Makes a password and keeps it, durably, before anybody can need it.
    fn make_password(&self, mark: &str) -> Result<Secret, Error> {
        let path = self.path(mark);
        let failed = |source| Error::ServerFile {
            action: "write the password to",
            path: path.clone(),
            source: Arc::new(source),
        };
        let password = random_hex::<32>().map_err(failed)?;
        self.write_durably(&path, &password).map_err(failed)?;
        Ok(Secret::new(password))
    }

    fn write_durably(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.directory)?;
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    /// The password of a server; `None` where there is no file of it.
    pub(super) fn password(&self, mark: &str) -> Option<Secret> {
        fs::read_to_string(self.path(mark)).ok().map(Secret::new)
    }

    fn create_output(&self, mark: &str) -> io::Result<File> {
        // Appending, so that the file can be emptied while the server writes.
        private(OpenOptions::new().append(true).create(true)).open(self.output(mark))
    }

    /// Empties what a server has written, once it is long.
    pub(super) fn bound_output(&self, mark: &str) {
        let path = self.output(mark);
        if fs::metadata(&path).is_ok_and(|about| about.len() > limits::SERVER_OUTPUT_BYTES_MAX) {
            let _ = OpenOptions::new().write(true).truncate(true).open(path);
        }
    }

    /// The address in the line that says the server listens.
    fn announced(&self, mark: &str, prefix: &str) -> Option<String> {
        let file = File::open(self.output(mark)).ok()?;
        let mut bytes = Vec::new();
        file.take(limits::SERVER_OUTPUT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .ok()?;
        // A line without its end may still grow.
        String::from_utf8_lossy(&bytes)
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .find_map(|line| line.trim().strip_prefix(prefix))
            .map(|address| address.trim().to_owned())
    }

    /// The end of what a server wrote, for an error; its password, should it be there, is not.
    pub(super) fn last_words(&self, mark: &str) -> Option<String> {
        let mut file = File::open(self.output(mark)).ok()?;
        let length = file.metadata().ok()?.len();
        let from = length.saturating_sub(limits::LAST_WORDS_BYTES_MAX as u64);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(limits::LAST_WORDS_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .ok()?;
        let mut words = String::from_utf8_lossy(&bytes).trim().to_owned();
        if let Some(password) = self.password(mark) {
            words = words.replace(password.reveal(), "…");
        }
        (!words.is_empty()).then_some(words)
    }

    /// Removes what is kept about a server.
    pub(super) fn remove(&self, mark: &str) {
        for path in [self.path(mark), self.output(mark)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "remove a server's file");
            }
        }
    }

    fn path(&self, mark: &str) -> PathBuf {
        // A mark is ours, but it is read back from the log: nothing in it may lead elsewhere.
        let name: String = mark.chars().filter(char::is_ascii_alphanumeric).collect();
        self.directory.join(name)
    }

    fn output(&self, mark: &str) -> PathBuf {
        self.path(mark).with_extension("out")
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
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
        Some(process) if process::is_alive(process) => Ok(process),
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
pub(super) fn epitaph(files: &Files, mark: &str, how: &str) -> String {
    match files.last_words(mark) {
        Some(words) => format!("{how}: {words}"),
        None => how.to_owned(),
    }
}

/// Whether somebody else listens where a server that ended was told to.
pub(super) fn lost_its_port(server: &Server) -> bool {
    port_taken(server.port)
}
