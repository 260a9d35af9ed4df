//! The computer that the engine starts servers on: processes that begin late or not at all, die, do not hear and
//! leave tools behind; and strangers, who are given the ids of those that are gone.
//!
//! Processes outlive the engine that started them, and no loss of power. What the engine keeps beside its log is in a
//! real folder, since nothing goes wrong with that here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use recount_engine::adapter::Secret;
use recount_engine::adapter::scripted::{PortlessServer, Scripted};
use recount_engine::computer::{Child, Computer, End, Program, Stat};
use recount_store::LogReader;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};

use crate::book::Book;
use crate::dice::Dice;
use crate::life::{Life, Operation};
use crate::network::Network;
use crate::promises;
use crate::storm::Storm;
use crate::trace::Trace;

/// The entry of an environment that makes a process the engine's.
const MARK: &str = "RECOUNT_SERVER=";

/// Clones are the same computer.
#[derive(Debug, Clone)]
pub(crate) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    folder: TempDir,
    /// The agents whose servers can be started, by the folder that they are started in.
    agents: BTreeMap<String, Scripted>,
    faults: Faults,
    network: Network,
    storm: Storm,
    dice: Dice,
    trace: Trace,
    book: Book,
}

#[derive(Debug)]
struct State {
    booted: Instant,
    processes: BTreeMap<u32, Process>,
    /// The id that was given last.
    last: u32,
    /// The ids of servers that are gone: a stranger gets one of them.
    free: Vec<u32>,
    /// The ports that somebody else listens on.
    taken: BTreeSet<u16>,
}

/// A process.
#[derive(Debug)]
struct Process {
    started: u64,
    /// The mark that it carries, where it is the engine's.
    mark: Option<String>,
    server: Option<Server>,
    /// How it ended, for who started it.
    ended: watch::Sender<Option<String>>,
}

/// A process that is a server.
#[derive(Debug)]
struct Server {
    /// The folder that it was started in, which is its agent's name.
    name: String,
    port: u16,
    password: Secret,
    /// There once it listens.
    listening: Option<PortlessServer>,
}

/// How often things go wrong with processes, in percent, as long as there is a storm.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// None can be started.
    refused: u32,
    /// It takes long until it listens; perhaps too long.
    late: u32,
    /// It ends before it listens.
    early: u32,
    /// Somebody else has its port.
    port: u32,
    /// It does not end when it is asked to.
    deaf: u32,
    /// It dies some time.
    mortal: u32,
    /// It loses what it knew when it ends.
    forgetful: u32,
}

impl Desk {
    /// A computer that servers of these agents can be started on.
    pub(crate) fn new(
        agents: BTreeMap<String, Scripted>,
        network: Network,
        storm: Storm,
        dice: Dice,
        trace: Trace,
        book: Book,
    ) -> Self {
        // In memory where there is such a place: each password is synchronised.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let faults = Faults {
            refused: dice.pick(&[0, 0, 10, 30]),
            late: dice.pick(&[0, 20, 50]),
            early: dice.pick(&[0, 0, 10, 30]),
            port: dice.pick(&[0, 0, 10]),
            deaf: dice.pick(&[0, 20, 50]),
            mortal: dice.pick(&[0, 50, 100]),
            forgetful: dice.pick(&[0, 0, 0, 30]),
        };
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                booted: Instant::now(),
                processes: BTreeMap::new(),
                last: 1,
                free: Vec::new(),
                taken: BTreeSet::new(),
            }),
            folder: folder.expect("a folder"),
            agents,
            faults,
            network,
            storm,
            dice,
            trace,
            book,
        }))
    }

    /// Where the engine keeps what it keeps beside its log.
    pub(crate) fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// The computer as one life of the engine has it.
    pub(crate) fn seat(&self, life: &Life, log: LogReader) -> Seat {
        let pid = self.0.state.lock().unwrap().next_pid();
        Seat {
            desk: self.clone(),
            life: life.clone(),
            log,
            pid,
        }
    }

    /// All processes are gone at once; ids are given from the first again, and beginnings counted anew.
    pub(crate) fn lose_power(&self) {
        let pids: Vec<u32> = {
            let state = self.0.state.lock().unwrap();
            state.processes.keys().copied().collect()
        };
        let lost: Vec<_> = pids.iter().filter_map(|pid| self.gone(*pid, "")).collect();
        let mut state = self.0.state.lock().unwrap();
        state.booted = Instant::now();
        for (pid, process) in lost {
            // What is started as the computer starts gets the same ids at the same moments each time.
            if self.0.dice.percent(30) {
                self.0.trace.say("computer", format!("{pid} is a stranger"));
                state.processes.insert(pid, stranger(process.started));
            }
        }
    }

    /// Strangers come, for ever.
    pub(crate) async fn be_used(self) {
        loop {
            sleep(self.0.dice.millis(1000, 60_000)).await;
            let mut state = self.0.state.lock().unwrap();
            let again = state.free.pop().filter(|_| self.0.dice.percent(50));
            let pid = again.unwrap_or_else(|| state.next_pid());
            let started = state.ticks();
            let is_free = !state.processes.contains_key(&pid);
            if is_free && state.processes.len() < 30 {
                self.0.trace.say("computer", format!("{pid} is a stranger"));
                state.processes.insert(pid, stranger(started));
            }
        }
    }

    /// What is left of the engine's: marks of processes, and names of files.
    pub(crate) fn left(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        let marks = state.processes.values().filter_map(|one| one.mark.clone());
        let files = std::fs::read_dir(self.folder().join("servers"));
        let files = files.into_iter().flatten().flatten();
        marks
            .chain(files.map(|file| file.file_name().display().to_string()))
            .collect()
    }

    /// Ends a process at once; gives it where there was one.
    fn gone(&self, pid: u32, how: &str) -> Option<(u32, Process)> {
        let mut state = self.0.state.lock().unwrap();
        let process = state.processes.remove(&pid)?;
        self.0
            .trace
            .say("computer", format!("{pid} is gone: {how}"));
        process.ended.send_replace(Some(how.to_owned()));
        if let Some(server) = &process.server {
            state.free.push(pid);
            self.0.network.set_host(&at(server.port), None);
            if let Some(listening) = &server.listening {
                listening.die();
            }
            if self.storms(self.0.faults.forgetful) {
                self.0
                    .trace
                    .say("agent", format!("{} forgets everything", server.name));
                self.0.agents[&server.name].forget();
            }
        }
        Some((pid, process))
    }

    /// The same, where it is still the one that began then.
    fn ends(&self, pid: u32, started: u64, how: &str) {
        let stat = self.stat(pid);
        if stat.is_some_and(|stat| stat.started == started) {
            self.gone(pid, how);
        }
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        let state = self.0.state.lock().unwrap();
        state.processes.get(&pid).map(|process| Stat {
            ended: false,
            started: process.started,
        })
    }

    fn storms(&self, percent: u32) -> bool {
        !self.0.storm.is_over() && self.0.dice.percent(percent)
    }

    fn begin(&self, process: Process) -> (u32, u64) {
        let mut state = self.0.state.lock().unwrap();
        let (pid, started) = (state.next_pid(), process.started);
        state.processes.insert(pid, process);
        (pid, started)
    }

    /// What a server does from its start to its end.
    async fn serve(self, pid: u32, started: u64, output: std::path::PathBuf) {
        let Inner { faults, dice, .. } = &*self.0;
        let say = |line: &str| {
            let file = OpenOptions::new().append(true).open(&output);
            // Whoever started it may have cleared it away.
            let _ = file.and_then(|mut file| writeln!(file, "{line}"));
        };
        let wait = if self.storms(faults.late) {
            dice.millis(2000, 45_000)
        } else {
            dice.millis(0, 2000)
        };
        let early = self.storms(faults.early);
        sleep(wait).await;
        if early {
            say("something is wrong with its configuration");
            return self.ends(pid, started, "exit status: 1");
        }
        let listens = {
            let mut state = self.0.state.lock().unwrap();
            let State {
                processes, taken, ..
            } = &mut *state;
            let process = processes.get_mut(&pid);
            let Some(process) = process.filter(|process| process.started == started) else {
                return;
            };
            let Some(server) = &mut process.server else {
                return;
            };
            let agent = &self.0.agents[&server.name];
            let free = !taken.contains(&server.port);
            let begin = || agent.serve_without_port("/project", Some(server.password.clone()));
            server.listening = free.then(begin);
            server.listening.clone().map(|listening| {
                let authority = at(server.port);
                self.0.network.set_name(&authority, &server.name);
                self.0.network.set_host(&authority, Some(listening.clone()));
                (listening, authority)
            })
        };
        let Some((listening, authority)) = listens else {
            say("Failed to start server. Is its port in use?");
            return self.ends(pid, started, "exit status: 1");
        };
        self.0
            .trace
            .say("computer", format!("{pid} listens at {authority}"));
        say(&format!("opencode server listening on http://{authority}"));
        let storm = !self.0.storm.is_over();
        let lives = if self.storms(faults.mortal) {
            dice.millis(1000, 300_000)
        } else {
            Duration::MAX
        };
        tokio::select! {
            biased;
            () = listening.ended() => {}
            () = sleep(lives) => {}
            // What is half dead may stay so no longer than the storm.
            () = self.0.storm.over(), if storm => {}
        }
        if self.storms(30) {
            self.leave_a_tool(pid, started);
        }
        self.ends(pid, started, "signal: 9 (SIGKILL)");
    }

    /// A tool that a server ran, which outlives it.
    fn leave_a_tool(&self, pid: u32, started: u64) {
        let mark = {
            let state = self.0.state.lock().unwrap();
            let server = state.processes.get(&pid);
            let server = server.filter(|server| server.started == started);
            server.and_then(|server| server.mark.clone())
        };
        let started = self.0.state.lock().unwrap().ticks();
        if let Some(mark) = mark {
            let (tool, _) = self.begin(Process {
                mark: Some(mark),
                ..stranger(started)
            });
            self.0
                .trace
                .say("computer", format!("{tool} is a tool of {pid}"));
        }
    }
}

/// Where a server on this computer listens.
fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A process that has nothing to do with the engine.
fn stranger(started: u64) -> Process {
    Process {
        started,
        mark: None,
        server: None,
        ended: watch::Sender::default(),
    }
}

impl State {
    fn next_pid(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// How many clock ticks ago the computer was started.
    fn ticks(&self) -> u64 {
        1 + self.booted.elapsed().as_millis() as u64 / 10
    }
}

/// See [`Desk::seat`].
#[derive(Debug)]
pub(crate) struct Seat {
    desk: Desk,
    life: Life,
    log: LogReader,
    pid: u32,
}

impl Seat {
    /// Whether this is still done. The last operation of a life is, or is not.
    fn does(&self) -> bool {
        match self.life.operate() {
            Operation::Done => true,
            Operation::Last => self.desk.0.dice.percent(50),
            Operation::Never => false,
        }
    }
}

impl Computer for Seat {
    fn takes_time(&self) -> bool {
        false
    }

    fn own_pid(&self) -> u32 {
        self.pid
    }

    fn pids(&self) -> Vec<u32> {
        let state = self.desk.0.state.lock().unwrap();
        state.processes.keys().copied().collect()
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        self.desk.stat(pid)
    }

    fn command(&self, _: u32) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn environment(&self, pid: u32) -> Option<Vec<u8>> {
        let state = self.desk.0.state.lock().unwrap();
        let mark = state.processes.get(&pid)?.mark.clone();
        Some(mark.map_or_else(Vec::new, |mark| format!("{MARK}{mark}\0").into_bytes()))
    }

    fn start(&self, program: &Program) -> io::Result<Box<dyn Child>> {
        let Inner {
            faults,
            trace,
            book,
            ..
        } = &*self.desk.0;
        let set = |name: &str| {
            let entry = program.env.iter().find(|(known, _)| known == name);
            entry.map_or_else(String::new, |(_, value)| value.clone())
        };
        if !self.does() {
            return Err(io::Error::other("there is nobody to do this"));
        }
        let mark = set("RECOUNT_SERVER");
        let port = program.args.last().and_then(|port| port.parse().ok());
        let port: u16 = port.expect("a port");
        book.read_on(&self.log);
        book.check(
            book.with(|pages| promises::promise_2_started_on_record(&pages.events, &mark, port)),
        );
        if self.desk.storms(faults.refused) {
            trace.say("computer", format!("cannot start {mark}"));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.desk.storms(faults.port) {
            self.desk.0.state.lock().unwrap().taken.insert(port);
        }
        let name = program.directory.trim_start_matches('/').to_owned();
        let others: Vec<u32> = {
            let state = self.desk.0.state.lock().unwrap();
            let same = |server: &Server| server.name == name;
            let others = state.processes.iter();
            others
                .filter(|(_, process)| process.server.as_ref().is_some_and(same))
                .map(|(pid, _)| *pid)
                .collect()
        };
        book.check(promises::promise_9_one_server_at_a_time(&name, &others));
        let (ended, ends) = watch::channel(None);
        let started = self.desk.0.state.lock().unwrap().ticks();
        let (pid, started) = self.desk.begin(Process {
            started,
            mark: Some(mark.clone()),
            server: Some(Server {
                name,
                port,
                password: Secret::new(set("OPENCODE_SERVER_PASSWORD")),
                listening: None,
            }),
            ended,
        });
        trace.say("computer", format!("{pid} is started as {mark}"));
        let serves = self.desk.clone().serve(pid, started, program.output.into());
        tokio::spawn(serves);
        Ok(Box::new(Started { pid, ends }))
    }

    fn end(&self, pid: u32, _: bool, end: End) {
        let Inner {
            dice,
            faults,
            trace,
            book,
            ..
        } = &*self.desk.0;
        if !self.does() {
            return;
        }
        let known = {
            let state = self.desk.0.state.lock().unwrap();
            let process = state.processes.get(&pid);
            process.map(|process| (process.mark.clone(), process.started))
        };
        let Some((mark, started)) = known else { return };
        trace.say("computer", format!("{pid} is ended: {end:?}"));
        book.read_on(&self.log);
        book.check(book.with(|pages| {
            let mark = promises::promise_4_no_stranger_is_ended(pid, mark.as_deref())?;
            promises::promise_2_ended_on_record(&pages.events, mark)
        }));
        if end == End::Kill {
            self.desk.gone(pid, "signal: 9 (SIGKILL)");
        } else if !self.desk.storms(faults.deaf) {
            let (desk, wait) = (self.desk.clone(), dice.millis(0, 1000));
            tokio::spawn(async move {
                sleep(wait).await;
                desk.ends(pid, started, "exit status: 0");
            });
        }
    }

    fn is_taken(&self, port: u16) -> bool {
        let state = self.desk.0.state.lock().unwrap();
        state.taken.contains(&port)
    }
}

/// A process, for who started it.
struct Started {
    pid: u32,
    ends: watch::Receiver<Option<String>>,
}

#[async_trait]
impl Child for Started {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    async fn exited(&mut self) -> String {
        let how = self.ends.wait_for(Option::is_some).await;
        how.ok().and_then(|how| how.clone()).unwrap_or_default()
    }
}
