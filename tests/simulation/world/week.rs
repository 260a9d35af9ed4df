//! A week of somebody's agents on one log, with a share of everything that goes wrong: for those who look back.
//!
//! The other worlds show that promises are kept; this one is lived once and kept as a fixture. So its days have a
//! plan, most hours are fair, and nobody looks at promises.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use recount_engine::Policy;
use recount_engine::adapter::http::{NoAnswer, Request, Response, Transport};
use recount_engine::adapter::scripted::Scripted;
use recount_store::Timestamp;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Application, Arc, Chance, Dice, End, Habits, Life, Method, Network, Weather, World, at,
};
use crate::disk::Fault;
use crate::network::Wire;
use crate::script;

/// When it begins: 2026-11-02T08:00:00Z.
pub(super) const MONDAY: Timestamp = Timestamp(1_793_606_400_000_000);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Somebody at work: bursts of a few minutes, and long pauses.
const UNHURRIED: Habits = Habits {
    sessions_max: 14,
    pause: |dice| match dice.below(8) {
        0..6 => dice.millis(200, 30_000),
        6 => dice.millis(60_000, 600_000),
        _ => dice.millis(600_000, 6_000_000),
    },
};

/// What is planned for a day.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// How long the engine runs on it.
    runs: Duration,
    end: End,
    /// Whether the power is lost at the end.
    dark: bool,
    /// What goes wrong with the disk.
    fault: Option<(Fault, u64)>,
    /// The message to an agent at which the adapter panics, counted over the day.
    mistake: Option<u32>,
}

/// A day on which nothing is planned.
const PLAIN: Plan = Plan {
    runs: Duration::from_secs(16 * 3600),
    end: End::ShutDown,
    dark: false,
    fault: None,
    mistake: None,
};

const WEEK: [Plan; 7] = [
    PLAIN,
    Plan {
        runs: Duration::from_secs(11 * 3600),
        end: End::Killed,
        ..PLAIN
    },
    Plan {
        mistake: Some(9),
        ..PLAIN
    },
    Plan {
        fault: Some((Fault::Full, 700)),
        ..PLAIN
    },
    Plan {
        runs: Duration::from_secs(15 * 3600),
        end: End::Killed,
        dark: true,
        ..PLAIN
    },
    PLAIN,
    // As if it still ran.
    Plan {
        end: End::Killed,
        ..PLAIN
    },
];

/// Lives through the week of a seed, and gives what is on the disk then: the log's file, and the two of its journal.
pub(crate) async fn live(seed: u64) -> [Vec<u8>; 3] {
    let mut world = World::new(seed, MONDAY, false);
    world.chance = Chance::seeded(seed);
    world.policy = Policy::default();
    // A probe is no event where it passes: there is no sense in a million of them.
    world.policy.connection.probe_every = Duration::from_secs(60);
    let agent =
        || Scripted::with_clock(script::quieter(seed), Duration::from_secs(10), world.clock);
    world.agents = ["agent-0.test:4096", "agent-1.test:4096"]
        .map(|host| (host.to_owned(), agent()))
        .into();
    world.application = Application::new(
        Dice::of(seed, "application"),
        world.trace.clone(),
        world.book.clone(),
        world.agents.keys().map(|host| at(host)).collect(),
        UNHURRIED,
    );
    world.make_log().await;
    let keepers: Vec<_> = (0..)
        .zip(&world.agents)
        .map(|(n, (host, agent))| {
            let dice = Dice::of(seed, host);
            tokio::spawn(keep(
                host.clone(),
                agent.clone(),
                world.network.clone(),
                dice,
                n,
            ))
        })
        .collect();
    let sky = tokio::spawn(change(world.network.clone(), Dice::of(seed, "sky")));
    let begin = Instant::now();
    for (day, plan) in (0..).zip(WEEK) {
        sleep_until(begin + DAY * day).await;
        world.day(plan).await;
    }
    sky.abort();
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
    world.disk.files()
}

impl World {
    /// One day of the engine: it runs, and ends as planned. One whose log fails is started again after an hour.
    async fn day(&self, plan: Plan) {
        let end = Instant::now() + plan.runs;
        let mut fault = plan.fault;
        while Instant::now() < end {
            let life = Life::until(u64::MAX);
            let log = self.disk.open(&life, fault.take(), 0).expect("it opens");
            let wire = Clumsy {
                wire: self.network.wire(&life, (*log).clone()),
                left: AtomicU32::new(plan.mistake.unwrap_or(u32::MAX)),
            };
            let Ok(manager) = self.start_over(&life, Arc::new(wire), log).await else {
                life.kill();
                sleep(HOUR).await;
                continue;
            };
            let used = async {
                let _ = timeout(10 * Duration::from_secs(60), manager.recover()).await;
                self.application.use_engine(&manager).await
            };
            let failed = timeout(end - Instant::now(), used).await.is_ok();
            if !failed && matches!(plan.end, End::ShutDown) {
                let _ = manager.shut_down().await;
            }
            life.kill();
            if failed {
                sleep(HOUR).await;
            }
        }
        if plan.dark {
            self.disk.lose_power();
        }
    }
}

/// Starts an agent's server again when it has died, mostly soon. At the end of the week the first one stays down.
async fn keep(host: String, agent: Scripted, network: Network, dice: Dice, nth: u32) {
    let down = Instant::now() + DAY * 6 + PLAIN.runs - Duration::from_secs(40 * 60);
    loop {
        let server = agent.serve_without_port("/project", None);
        network.set_host(&host, Some(server.clone()));
        tokio::select! {
            biased;
            () = server.ended() => {}
            () = sleep(dice.millis(6 * 3_600_000, 60 * 3_600_000)) => server.die(),
            () = sleep_until(down), if nth == 0 => server.die(),
        }
        network.set_host(&host, None);
        if nth == 0 && Instant::now() >= down {
            return;
        }
        sleep(match dice.below(4) {
            0 => dice.millis(120_000, 1_500_000),
            _ => dice.millis(500, 20_000),
        })
        .await;
        if dice.percent(10) {
            agent.forget();
        }
    }
}

/// Fair weather, and now and then a while of something else.
async fn change(network: Network, dice: Dice) {
    loop {
        network.set_weather(Weather::default());
        sleep(dice.millis(3_600_000, 8 * 3_600_000)).await;
        network.set_weather(Weather::of(&dice));
        sleep(dice.millis(300_000, 3_600_000)).await;
    }
}

/// A transport that makes a mistake of its own, once.
#[derive(Debug)]
struct Clumsy {
    wire: Wire,
    /// How many messages are left before that.
    left: AtomicU32,
}

#[async_trait]
impl Transport for Clumsy {
    async fn send(&self, request: Request) -> Result<Response, NoAnswer> {
        let is_message = request.method == Method::POST && request.url.path().ends_with("/message");
        assert!(
            !is_message || self.left.fetch_sub(1, Ordering::Relaxed) != 0,
            "a transport that was never meant to panic"
        );
        self.wire.send(request).await
    }
}
