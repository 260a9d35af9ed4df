//! A world from a seed: agents, network, disk, application, and the lives of an engine in it.

pub(crate) mod fixtures;
mod week;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recount_engine::adapter::http::{Request, Transport};
use recount_engine::adapter::opencode::OpenCode;
use recount_engine::adapter::scripted::{PortlessServer, Scripted};
use recount_engine::{Chance, Clock, Error, Options, Policy, RerunPolicy, SessionManager};
use recount_store::{Log, Target, Timestamp};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use futures_util::StreamExt;

use crate::application::{Application, Habits};
use crate::book::{Book, Broken};
use crate::computer::Desk;
use crate::dice::Dice;
use crate::disk::{self, Disk};
use crate::life::Life;
use crate::network::{Network, Weather};
use crate::promises::{self, Ended, History};
use crate::script::script;
use crate::storm::Storm;
use crate::trace::{Line, Trace};

/// When a world begins whose promises are looked at.
const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000);

/// How long a calm world may take to come to rest: longer than any bound of the policy, and all of them in a row.
const REST_MAX: Duration = Duration::from_secs(48 * 3600);

/// How long an engine may take to end on request.
const SHUT_DOWN_MAX: Duration = Duration::from_secs(60);

/// What became of a world.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) trace: Vec<Line>,
    /// Every record of the log, as text.
    pub(crate) records: Vec<String>,
    pub(crate) broken: Option<Broken>,
}

pub(crate) struct World {
    dice: Dice,
    clock: Clock,
    chance: Chance,
    trace: Trace,
    book: Book,
    disk: Disk,
    network: Network,
    /// The agents that somebody else keeps, by the host that their server is at.
    agents: BTreeMap<String, Scripted>,
    /// The one whose server the engine starts, by the name of its folder.
    own: Option<(String, Scripted)>,
    desk: Desk,
    application: Application,
    storm: Storm,
    policy: Policy,
}

/// How a life of the engine ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Killed,
    Failed,
    ShutDown,
}

/// Lives through the world of a seed. `read`: somebody will read the trace and the records.
pub(crate) async fn live(seed: u64, read: bool) -> Outcome {
    let mut world = World::new(seed, BEGIN, read);
    let book = world.book.clone();
    let lived = tokio::select! {
        biased;
        lived = world.run() => lived,
        // One that breaks a promise may never come to its end.
        () = book.breaks() => Ok(()),
    };
    world.book.check(lived);
    Outcome {
        trace: world.trace.lines(),
        records: world.book.with(|pages| {
            let events = pages.events.iter().filter(|_| read);
            events.map(|event| format!("{event:?}")).collect()
        }),
        broken: world.book.broken(),
    }
}

impl World {
    fn new(seed: u64, begin: Timestamp, read: bool) -> Self {
        let (dice, trace) = (Dice::of(seed, "world"), Trace::new(begin, read));
        let book = Book::new(trace.clone());
        let clock = Clock::starting_at(begin);
        let network = Network::new(Dice::of(seed, "network"), trace.clone(), book.clone());
        let copies = !Dice::of(seed, "copies").percent(20);
        let script = || match script(seed) {
            script if copies => script,
            script => script.without_fork(),
        };
        let agent = || Scripted::with_clock(script(), Duration::from_secs(10), clock);
        let mut agents: BTreeMap<_, _> = (0..dice.between(1, 2))
            .map(|n| (format!("agent-{n}.test:4096"), agent()))
            .collect();
        let mut targets: Vec<_> = agents.keys().map(|host| at(host)).collect();
        let own = Dice::of(seed, "own").percent(33).then(|| {
            agents.pop_last();
            targets.pop();
            ("own.test".to_owned(), agent())
        });
        targets.extend(own.iter().map(|(name, _)| in_folder(name)));
        let application = Application::new(
            Dice::of(seed, "application"),
            trace.clone(),
            book.clone(),
            targets,
            Habits::HURRIED,
        );
        let storm = Storm::default();
        let desk = Desk::new(
            own.iter().cloned().collect(),
            network.clone(),
            storm.clone(),
            Dice::of(seed, "desk"),
            trace.clone(),
            book.clone(),
        );
        let mut policy = Policy::default();
        policy.session.rerun =
            dice.pick(&[RerunPolicy::Ask, RerunPolicy::Auto, RerunPolicy::Never]);
        policy.session.queue_depth_max = dice.pick(&[2, 5, 1000]);
        policy.session.retries.for_now.attempts_max = dice.pick(&[3, 8]);
        policy.session.retries.never_sent.attempts_max = dice.pick(&[3, 8]);
        policy.session.retries.unknown.attempts_max = dice.pick(&[3, 8]);
        let day = policy.session.question_patience;
        policy.session.question_patience = dice.pick(&[day, day, Duration::from_secs(20)]);
        Self {
            clock,
            chance: Chance::seeded(seed),
            disk: Disk::new(Dice::of(seed, "disk"), trace.clone()),
            trace,
            book,
            network,
            agents,
            own,
            desk,
            application,
            storm,
            policy,
            dice,
        }
    }

    async fn run(&mut self) -> Result<(), Broken> {
        self.make_log().await;
        let keepers: Vec<_> = self
            .agents
            .iter()
            .map(|(host, agent)| {
                let keeper = Keeper {
                    host: host.clone(),
                    agent: agent.clone(),
                    network: self.network.clone(),
                    dice: Dice::new(self.dice.number()),
                    trace: self.trace.clone(),
                    storm: self.storm.clone(),
                };
                tokio::spawn(keeper.keep())
            })
            .collect();
        let desk = self
            .own
            .is_some()
            .then(|| tokio::spawn(self.desk.clone().be_used()));
        let intruded = self.dice.percent(25) && !self.agents.is_empty();
        let stranger = intruded.then(|| {
            let (dice, network) = (Dice::new(self.dice.number()), self.network.clone());
            let hosts = self.agents.keys().cloned().collect();
            let (trace, book) = (self.trace.clone(), self.book.clone());
            tokio::spawn(intrude(hosts, network, dice, trace, book))
        });
        let weather = Weather::of(&self.dice);
        for _ in 0..self.dice.between(1, 3) {
            // Quiet days are part of every life.
            let today = if self.dice.percent(25) {
                Weather::default()
            } else {
                weather
            };
            self.network.set_weather(today);
            let end = self.live_once().await;
            self.trace
                .say("world", format!("the engine ended: {end:?}"));
            if self.book.broken().is_some() {
                return Ok(());
            }
            if matches!(end, End::Killed) && self.dice.percent(60) {
                self.disk.lose_power();
                self.desk.lose_power();
            }
            sleep(self.dice.millis(0, 20_000)).await;
        }
        self.trace.say("world", "is calm");
        self.network.set_weather(Weather::default());
        self.storm.end();
        if let Some(stranger) = stranger {
            stranger.abort();
        }
        let ended = self.live_to_the_end().await;
        for task in keepers.into_iter().chain(desk) {
            task.abort();
        }
        ended
    }

    /// A log is made whole under another name before it gets its own, so none is ever half made.
    async fn make_log(&self) {
        let made = self.disk.open(&Life::until(u64::MAX), None, 0);
        let made = made.expect("an empty disk takes a log");
        made.close().await.expect("it is closed");
    }

    fn open(
        &self,
        life: &Life,
        fault: Option<(disk::Fault, u64)>,
        slow: u32,
    ) -> Result<Log, Error> {
        let log = self.disk.open(life, fault, slow).inspect_err(|error| {
            self.trace.say("disk", format!("does not open: {error}"));
            // A death takes what was not synchronised, and nothing else.
            if let recount_store::Error::Corrupt { .. } = error {
                self.book.check(Err(Broken {
                    promise: "promise_1_acknowledged_means_durable",
                    what: error.to_string(),
                }));
            }
        })?;
        self.book.reopened(&log);
        Ok(log)
    }

    async fn start(&self, life: &Life, log: Log) -> Result<SessionManager, Error> {
        let wire = self.network.wire(life, (*log).clone());
        self.start_over(life, Arc::new(wire), log).await
    }

    async fn start_over(
        &self,
        life: &Life,
        wire: Arc<dyn Transport>,
        log: Log,
    ) -> Result<SessionManager, Error> {
        let mut options = Options::new(self.desk.folder());
        options.adapters = vec![Arc::new(OpenCode::over(wire))];
        options.policy = self.policy.clone();
        options.clock = self.clock;
        options.chance = self.chance.clone();
        options.computer = Arc::new(self.desk.seat(life, (*log).clone()));
        SessionManager::start_over(log, options).await
    }

    /// One life of the engine, to whatever end.
    async fn live_once(&self) -> End {
        let dice = &self.dice;
        let life = Life::until(match dice.below(4) {
            0 => u64::MAX,
            1 => dice.between(1, 60),
            _ => dice.between(60, 2000),
        });
        let fault = match dice.below(6) {
            0 => Some((
                dice.pick(&[disk::Fault::Sync, disk::Fault::Full]),
                dice.between(1, 300),
            )),
            _ => None,
        };
        let slow = dice.pick(&[0, 0, 10, 50]);
        let (Ok(log), lasts) = (self.open(&life, fault, slow), dice.millis(1000, 300_000)) else {
            return if life.is_dead() {
                End::Killed
            } else {
                End::Failed
            };
        };
        let Ok(manager) = self.start(&life, log).await else {
            return if life.is_dead() {
                End::Killed
            } else {
                End::Failed
            };
        };
        let recovers = dice.percent(75);
        let used = async {
            if recovers {
                let recovered = timeout(dice.millis(1000, 60_000), manager.recover());
                if let Ok(recovered) = recovered.await {
                    recovered?;
                }
            }
            self.application.use_engine(&manager).await
        };
        let failed = tokio::select! {
            biased;
            () = life.died() => false,
            failed = timeout(lasts, used) => failed.is_ok(),
        };
        let end = if life.is_dead() {
            End::Killed
        } else if failed {
            End::Failed
        } else if dice.percent(50) {
            match timeout(SHUT_DOWN_MAX, manager.shut_down()).await {
                _ if life.is_dead() => End::Killed,
                Ok(Ok(_)) => End::ShutDown,
                Ok(Err(_)) => End::Failed,
                Err(_) => {
                    self.book.check(Err(Broken {
                        promise: "promise_9_everything_is_bounded",
                        what: "the engine does not shut down".to_owned(),
                    }));
                    End::Failed
                }
            }
        } else {
            End::Killed
        };
        self.book.read_on(manager.log());
        // Nothing that is left of it does anything from here on.
        life.kill();
        end
    }

    /// The last life, in a calm world: everything comes to its end, and then all promises are looked at.
    async fn live_to_the_end(&self) -> Result<(), Broken> {
        let fails = |what: String| Broken {
            promise: "promise_4_everything_has_an_end",
            what,
        };
        let life = Life::until(u64::MAX);
        let log = self
            .open(&life, None, 0)
            .map_err(|error| fails(error.to_string()))?;
        let manager = self
            .start(&life, log)
            .await
            .map_err(|error| fails(error.to_string()))?;
        let settled = async {
            manager.recover().await?;
            self.application.settle(&manager).await?;
            manager.recover().await
        };
        match timeout(REST_MAX, settled).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(fails(error.to_string())),
            Err(_) => return Err(fails(format!("not at rest after {REST_MAX:?}"))),
        }
        let log = (**manager.log()).clone();
        self.book.read_on(&log);
        if self.book.broken().is_some() {
            return Ok(());
        }
        let histories = self.histories().await;
        let mut held = BTreeMap::new();
        for id in self.application.sessions() {
            if let Ok(session) = manager.find(id).await {
                held.insert(
                    id,
                    session.state().map_err(|error| fails(error.to_string()))?,
                );
            }
        }
        self.book.with(|pages| {
            let ended = Ended {
                pages,
                manager: &manager,
                policy: &self.policy,
                histories: &histories,
                hosts: &self.application.hosts_of_sessions(),
                asked: &|text| self.agents().map(|(_, agent)| agent.runs(text)).sum(),
            };
            promises::promise_1_acknowledged_means_durable(pages, &log)?;
            promises::promise_3_once_in_order_and_answered(&ended)?;
            promises::promise_3_a_fork_knows_what_was_said(&ended)?;
            promises::promise_4_everything_has_an_end(&ended)?;
            promises::promise_5_the_log_is_the_only_truth(&log, &held)?;
            promises::promise_6_what_was_not_seen_live_says_so(&ended)?;
            promises::promise_7_the_log_proves_that_it_is_whole(&log)?;
            promises::promise_8_decisions_can_be_derived_again(&log)?;
            promises::promise_9_everything_is_bounded(&ended)
        })?;
        match timeout(SHUT_DOWN_MAX, manager.shut_down()).await {
            Ok(Ok(_)) => promises::promise_4_nothing_is_left(&self.desk.left()),
            Ok(Err(error)) => Err(fails(error.to_string())),
            Err(_) => Err(fails("the engine does not shut down".to_owned())),
        }
    }

    /// All agents, by what they are called.
    fn agents(&self) -> impl Iterator<Item = (&String, &Scripted)> {
        let own = self.own.iter().map(|(name, agent)| (name, agent));
        self.agents.iter().chain(own)
    }

    /// What all agents hold, asked past the network.
    async fn histories(&self) -> Vec<History> {
        let mut histories = Vec::new();
        for (host, agent) in self.agents() {
            let server = agent.serve_without_port("/project", None);
            for session in list(&server, "/session").await {
                let id = session["id"].as_str().unwrap_or_default().to_owned();
                let messages = list(&server, &format!("/session/{id}/message")).await;
                let host = host.clone();
                histories.push(History { host, id, messages });
            }
            server.die();
        }
        histories
    }
}

/// The target that is a server at a host.
fn at(host: &str) -> Target {
    Target::Url(format!("http://{host}"))
}

/// The target that is a server which the engine starts in the folder of this name.
fn in_folder(name: &str) -> Target {
    Target::Managed {
        program: None,
        directory: format!("/{name}"),
    }
}

async fn list(server: &PortlessServer, path: &str) -> Vec<Value> {
    let answer = ask(server, Method::GET, path, None).await;
    serde_json::from_slice(&answer).expect("a list")
}

/// Asks a server past the network, and gives the body of its answer; an empty one where it is dead.
async fn ask(server: &PortlessServer, method: Method, path: &str, body: Option<Value>) -> Vec<u8> {
    let request = Request {
        method,
        url: Url::parse(&format!("http://agent.test{path}")).expect("a URL"),
        headers: HeaderMap::new(),
        user: None,
        body: body.map(|body| body.to_string().into()),
        alone: true,
    };
    let mut bytes = Vec::new();
    let Some(mut answer) = server.answer(request).await else {
        return bytes;
    };
    while let Some(Ok(chunk)) = answer.body.next().await {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// Somebody who works in the agents themselves, and in the engine's sessions there.
async fn intrude(hosts: Vec<String>, network: Network, dice: Dice, trace: Trace, book: Book) {
    for n in 0_u32.. {
        sleep(dice.millis(1000, 120_000)).await;
        let Some(server) = network.host(&hosts[dice.below(hosts.len())]) else {
            continue;
        };
        let sessions = ask(&server, Method::GET, "/session", None).await;
        let sessions: Vec<Value> = serde_json::from_slice(&sessions).unwrap_or_default();
        if let Some(session) = sessions.get(dice.below(sessions.len())) {
            let id = session["id"].as_str().unwrap_or_default();
            trace.say("stranger", format!("writes in {id}"));
            book.with(|pages| pages.shared.insert(id.to_owned()));
            let body = json!({
                "messageID": format!("{}{n:04}", promises::STRANGE),
                "parts": [{"type": "text", "text": format!("strange {n:04}")}],
            });
            let path = format!("/session/{id}/prompt_async");
            ask(&server, Method::POST, &path, Some(body)).await;
        }
    }
}

/// Who starts an agent's server again when it has died; and death, as long as there is a storm.
struct Keeper {
    host: String,
    agent: Scripted,
    network: Network,
    dice: Dice,
    trace: Trace,
    storm: Storm,
}

impl Keeper {
    async fn keep(self) {
        let mortal = self.dice.percent(50);
        let forgetful = self.dice.pick(&[0, 0, 0, 30]);
        loop {
            let server = self.agent.serve_without_port("/project", None);
            self.network.set_host(&self.host, Some(server.clone()));
            self.trace.say("agent", format!("{} is up", self.host));
            let storm = !self.storm.is_over();
            let lives = if mortal && storm {
                self.dice.millis(1000, 300_000)
            } else {
                Duration::MAX
            };
            tokio::select! {
                biased;
                () = server.ended() => {}
                () = sleep(lives) => server.die(),
                () = self.storm.over(), if storm => {
                    // What is half dead may stay so no longer than the storm.
                    server.die();
                }
            }
            self.network.set_host(&self.host, None);
            self.trace.say("agent", format!("{} is dead", self.host));
            let storm = !self.storm.is_over();
            let longest = if storm { 60_000 } else { 5000 };
            sleep(self.dice.millis(0, longest)).await;
            if storm && self.dice.percent(forgetful) {
                self.trace
                    .say("agent", format!("{} forgets everything", self.host));
                self.agent.forget();
            }
        }
    }
}
