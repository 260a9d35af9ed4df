//! The real agent behind a network and a machine that fail all the time: everything arrives once all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use recount_engine::{
    MessageState, Options, PermissionAnswer, RerunPolicy, Session, SessionManager,
};
use recount_projections::{Turn, TurnState};
use recount_store::{Event, LogReader, MessageId, Position, Select, StreamId, Timestamp};
use recount_tests::agent_http::{Agent, Message};
use recount_tests::chance::{Chance, Deck};
use recount_tests::engine::{Scene, connection_events, events, go_on, kill_9, pause, transcript};
use recount_tests::opencode::Server;
use recount_tests::provider::Outcome;
use recount_tests::provider::script::{expected_text, expected_texts};
use recount_tests::proxy::{Fault, Faults, Proxy};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

const SESSIONS: usize = 4;

const MESSAGES_EACH: usize = 50;

/// Each test has the machine to itself: what it is patient for is measured by the clock.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What a quiet machine does in two minutes.
const ALL_ANSWERED: Duration = Duration::from_secs(900);

/// What goes wrong with requests. A connection that is half open costs a whole call's time, so it is rarer
/// than what is over at once.
const OF_REQUESTS: [Fault; 19] = [
    Fault::ResetBefore,
    Fault::ResetBefore,
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::ResetAfter,
    Fault::ResetAfter,
    Fault::ResetWithin,
    Fault::ResetWithin,
    Fault::Cut,
    Fault::Cut,
    Fault::HalfOpenBefore,
    Fault::HalfOpenWithin,
    Fault::Stall,
    Fault::Trickle,
    Fault::PageBefore(200),
    Fault::PageBefore(404),
    Fault::PageBefore(503),
    Fault::PageAfter(200),
    Fault::PageAfter(502),
];

/// What goes wrong with an open stream of events.
const OF_STREAMS: [Fault; 9] = [
    Fault::ResetWithin,
    Fault::ResetWithin,
    Fault::ResetWithin,
    Fault::Cut,
    Fault::Cut,
    Fault::Cut,
    Fault::HalfOpenWithin,
    Fault::Stall,
    Fault::Trickle,
];

/// What befalls the server, or the way to it as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// It is killed, and started again on another port; the proxy leads there.
    Killed,
    /// It stands still for a moment.
    Paused,
    /// It stands still for longer than the stream is believed in.
    PausedForLong,
    /// Nobody listens where it was for a while.
    Unreachable,
}

/// What befalls, and how often beside the others.
const BLOWS: [Blow; 8] = [
    Blow::Killed,
    Blow::Killed,
    Blow::Killed,
    Blow::Paused,
    Blow::Paused,
    Blow::PausedForLong,
    Blow::Unreachable,
    Blow::Unreachable,
];

/// How much the engine records between two blows. A message is ten events or so.
const EVENTS_BETWEEN_BLOWS: Range<u64> = 60..240;

/// Policies with shorter patience, since the outages here take seconds and those that the defaults are
/// made for minutes. Nothing that decides what is right is changed by them but `rerun`.
fn impatient(mut options: Options) -> Options {
    let session = &mut options.policy.session;
    // Nobody is there to be asked, and no tool here does harm when it runs twice.
    session.rerun = RerunPolicy::Auto;
    session.runs_max = 100;
    let retries = &mut session.retries;
    for retry in [
        &mut retries.never_sent,
        &mut retries.for_now,
        &mut retries.unknown,
    ] {
        retry.attempts_max = 100;
        retry.backoff.delay_min = Duration::from_millis(100);
        retry.backoff.delay_max = Duration::from_secs(1);
    }
    // Turns whose stream went silent end by a look.
    session.look_every = Duration::from_secs(2);
    let connection = &mut options.policy.connection;
    connection.backoff.delay_max = Duration::from_secs(1);
    connection.circuit.delay_min = Duration::from_millis(100);
    connection.circuit.delay_max = Duration::from_millis(500);
    // Streams die young here, and that is no reason to wait longer for the next.
    connection.held_after = Duration::ZERO;
    connection.probe_every = Duration::from_secs(1);
    connection.suspect_after = Duration::from_secs(3);
    connection.silence_max = Duration::from_secs(6);
    // The agent's heartbeat comes every ten seconds.
    connection.silence_answering_max = Duration::from_secs(12);
    options
}

/// The prompts of a session: of each kind some.
fn prompts(session: usize) -> Vec<String> {
    let prompt = |n: usize| {
        let id = format!("id=s{session}n{n:03}");
        match n % 6 {
            0 => format!("fake:plain words=12 chunks=4 {id}"),
            1 => format!("fake:utf8 words=80 split=5 delay=2 {id}"),
            2 => format!("fake:write path=s{session}n{n:03}.txt content=kept {id}"),
            3 => format!("fake:reason words=20 chunks=8 delay=20 {id}"),
            4 => format!("fake:plain words=300 chunks=60 delay=5 {id}"),
            _ => format!("fake:bash cmd=echo+s{session}n{n:03} {id}"),
        }
    };
    (0..MESSAGES_EACH).map(prompt).collect()
}

/// The server, as the test has it in hand.
struct Hand<'a> {
    scene: &'a Scene,
    proxy: &'a Proxy,
    server: Server,
    chance: Chance,
    /// When it was killed, each time.
    killed: Vec<Timestamp>,
}

impl Hand<'_> {
    async fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Killed => {
                self.killed.push(Timestamp::from_system(SystemTime::now()));
                self.server.kill();
                self.wait(0..500).await;
                self.server = block_in_place(|| Server::start(&self.scene.home));
                self.proxy.lead_to(self.server.port());
            }
            Blow::Paused | Blow::PausedForLong => {
                pause(self.server.pid());
                let short = blow == Blow::Paused;
                self.wait(if short { 50..2_000 } else { 8_000..10_000 })
                    .await;
                go_on(self.server.pid());
            }
            Blow::Unreachable => {
                self.proxy.close();
                self.wait(50..2_500).await;
                self.proxy.open();
            }
        }
    }

    async fn wait(&mut self, millis: Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.chance.within(millis))).await;
    }
}

/// A session, and what it was asked.
struct Asked {
    session: Session,
    messages: Vec<(MessageId, String)>,
}

impl Asked {
    /// Queues all of these at once; they are answered in their own time.
    async fn send(session: Session, prompts: &[String]) -> Self {
        let mut messages = Vec::new();
        for prompt in prompts {
            messages.push((session.send(prompt, None).await.unwrap(), prompt.clone()));
        }
        Self { session, messages }
    }

    /// All of them, with a whole answer.
    async fn answered(&self, log: &LogReader) {
        for (message, prompt) in &self.messages {
            let settled = self.session.settled(*message).await.unwrap();
            let told = || {
                let state = self.session.state().unwrap();
                let told = state.queue.messages().iter().find(|m| m.id == *message);
                let transcript = transcript(log, &self.session);
                format!("{:?}\n{:?}", told, transcript.turn_of(*message))
            };
            let completed = settled == MessageState::Completed;
            assert!(completed, "{prompt}: {}", told());
        }
    }

    /// What is not answered, and how it stands.
    fn open(&self) -> String {
        let state = self.session.state().unwrap();
        let left = state.queue.messages().iter();
        let left: Vec<_> = left.filter(|message| !message.state.is_settled()).collect();
        format!(
            "{} open: {:#?}, {:#?}",
            left.len(),
            left.first(),
            state.turn
        )
    }
}

/// Waits until everything is answered.
async fn all_answered(log: &LogReader, asked: &[Asked]) {
    let answering = async {
        for asked in asked {
            asked.answered(log).await;
        }
    };
    if timeout(ALL_ANSWERED, answering).await.is_err() {
        let open: Vec<_> = asked.iter().map(Asked::open).collect();
        panic!("not all is answered: {}", open.join("\n"));
    }
}

/// Allows whatever is asked.
async fn permit(session: Session) {
    loop {
        let asked = session.wait(|state| state.questions_open().then_some(()));
        asked.await.unwrap();
        // Somebody else may have been quicker, or the agent may have died meanwhile.
        let _ = session.answer(None, PermissionAnswer::Once).await;
        let answered = session.wait(|state| (!state.questions_open()).then_some(()));
        answered.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_messages_arrive_once_through_a_network_that_fails_all_the_time() {
    let _alone = ALONE.lock().await;
    let mut chance = Chance::from_env("RECOUNT_FAULTS_SEED", 0x5eed);
    let scene = Scene::new();
    let server = block_in_place(|| Server::start(&scene.home));
    let proxy = Proxy::start(server.port());
    let options = impatient(scene.options());
    let manager = SessionManager::start(options).await.unwrap();
    proxy.suffer(Faults {
        chance: chance.branch(),
        requests_each: 20,
        of_requests: OF_REQUESTS.into(),
        stream_bytes_each: 40_000,
        of_streams: OF_STREAMS.into(),
    });

    let mut asked = Vec::new();
    let mut permitting = JoinSet::new();
    for n in 0..SESSIONS {
        let session = scene.open_at(&manager, proxy.url()).await;
        permitting.spawn(permit(session.clone()));
        asked.push(Asked::send(session, &prompts(n)).await);
    }
    let mut hand = Hand {
        scene: &scene,
        proxy: &proxy,
        server,
        chance: chance.branch(),
        killed: Vec::new(),
    };
    let (answered, mut is_answered) = watch::channel(false);
    let answering = async {
        all_answered(manager.log(), &asked).await;
        answered.send_replace(true);
    };
    // By what is recorded and not by the time, so that machines of any speed come through.
    let striking = async {
        let mut deck = Deck::new(BLOWS);
        let mut tail = manager.log().tail(Select::All, Position(0).next());
        let mut blows = BTreeMap::<Blow, u32>::new();
        loop {
            let after = chance.within(EVENTS_BETWEEN_BLOWS);
            let come = async {
                for _ in 0..after {
                    tail.next().await.unwrap().unwrap();
                }
            };
            tokio::select! {
                () = come => {}
                _ = is_answered.wait_for(|answered| *answered) => return blows,
            }
            let blow = deck.draw(&mut chance);
            println!("{blow:?}");
            *blows.entry(blow).or_default() += 1;
            hand.strike(blow).await;
        }
    };
    // To the end of a blow: the server is to be there when it is asked below.
    let ((), blows) = tokio::join!(answering, striking);
    permitting.abort_all();
    proxy.calm();
    println!("{blows:?}\n{:?}", proxy.met());
    for blow in BLOWS {
        assert!(
            blows.contains_key(&blow),
            "{blow:?} did not befall: {blows:?}"
        );
    }
    for fault in OF_REQUESTS.iter().chain(&OF_STREAMS) {
        assert!(proxy.met().contains_key(fault), "{fault:?} was not met");
    }

    let agent = Agent::new(&hand.server, &scene.home);
    assert_eq!(agent.statuses().await, BTreeMap::new());
    assert_eq!(agent.permissions().await, Vec::<String>::new());
    // Nothing was said beside the sessions that are used. An agent takes no name for a session that it is to make, so one
    // that it was still at when it was looked for, twice, is there and stays empty.
    let used = asked.iter().map(|asked| agent_session(&asked.session));
    let used: BTreeSet<_> = used.collect();
    assert_eq!(used.len(), SESSIONS);
    for known in agent.sessions().await {
        if !used.contains(&known.id) {
            let held = agent.messages(&known.id).await;
            assert!(held.is_empty(), "{known:?} holds {held:?}");
        }
    }
    for asked in &asked {
        let stored = agent.messages(&agent_session(&asked.session)).await;
        arrived_once(&scene, &manager, asked, &stored, &hand.killed);
    }

    // The server is not the engine's, and outlives it.
    let sessions: Vec<_> = asked.into_iter().map(|asked| asked.session).collect();
    scene.shut_down(manager).await;
    scene.whole(&sessions);
    assert_eq!(agent.statuses().await, BTreeMap::new());
    drop(hand);
    scene.home.marker().assert_none_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_once_though_the_engines_own_server_falls_and_stands_still() {
    let _alone = ALONE.lock().await;
    let mut chance = Chance::from_env("RECOUNT_FAULTS_SEED", 0x5eed);
    let scene = Scene::new();
    let mut options = impatient(scene.options());
    // A server of ours that stands still for longer is ended. One that has just started does for a while, and the
    // longer the busier the machine is: with less patience than that, none would ever come to its first turn.
    options.policy.connection.silence_max = Duration::from_secs(20);
    options.policy.connection.silence_answering_max = Duration::from_secs(30);
    options.policy.connection.stop_timeout = Duration::from_millis(500);
    let manager = SessionManager::start(options).await.unwrap();
    let mut asked = Vec::new();
    let mut permitting = JoinSet::new();
    for n in 0..2 {
        let session = scene.open(&manager).await;
        permitting.spawn(permit(session.clone()));
        asked.push(Asked::send(session, &prompts(n)[..12]).await);
    }
    let striking = async {
        // That it stands still for long costs half a minute, so it does so once.
        let often = [Blow::Paused, Blow::Killed].into_iter().cycle();
        let mut blows = [Blow::Killed, Blow::PausedForLong].into_iter().chain(often);
        let mut tail = manager.log().tail(Select::All, Position(0).next());
        // The server, and how much is recorded before it meets the next blow.
        let (mut server, mut left) = (None, 0);
        loop {
            match tail.next().await.unwrap().unwrap().event {
                Event::ServerSpawned { pid, .. } => (server, left) = (Some(pid), chance.below(80)),
                Event::ServerExited { .. } => server = None,
                _ => left = left.saturating_sub(1),
            }
            let (Some(pid), 0) = (server, left) else {
                continue;
            };
            let blow = blows.next().unwrap();
            println!("{blow:?}");
            match blow {
                Blow::Killed => kill_9(pid),
                Blow::Paused => {
                    pause(pid);
                    tokio::time::sleep(Duration::from_millis(chance.within(50..2_000))).await;
                    go_on(pid);
                }
                // It is the engine's to end.
                Blow::PausedForLong => pause(pid),
                Blow::Unreachable => unreachable!("there is no proxy"),
            }
            if blow == Blow::Paused {
                left = chance.within(20..80);
            } else {
                server = None;
            }
        }
    };
    tokio::select! {
        () = all_answered(manager.log(), &asked) => {}
        () = striking => unreachable!("it strikes until all is answered"),
    }
    permitting.abort_all();

    let connection = connection_events(manager.log(), &asked[0].session);
    let at = |wanted: fn(&Event) -> bool| -> Vec<Timestamp> {
        let wanted = connection.iter().filter(|recorded| wanted(&recorded.event));
        wanted.map(|recorded| recorded.at).collect()
    };
    let started = at(|event| matches!(event, Event::ServerSpawned { .. }));
    let ended = at(|event| matches!(event, Event::ServerExited { .. }));
    let stopped = at(|event| matches!(event, Event::ServerStopDecided { .. }));
    assert!(started.len() > 2, "only {} servers", started.len());
    assert!(!stopped.is_empty(), "none was stopped: {connection:#?}");
    let addresses = connection
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::ServerReady { url, .. } => Some(url),
            _ => None,
        });
    let addresses: BTreeSet<_> = addresses.collect();
    assert!(addresses.len() > 1, "always at {addresses:?}");

    let agent = scene.agent(manager.log());
    for asked in &asked {
        let stored = agent.messages(&agent_session(&asked.session)).await;
        arrived_once(&scene, &manager, asked, &stored, &ended);
    }
    let sessions: Vec<_> = asked.into_iter().map(|asked| asked.session).collect();
    scene.end(manager, &sessions).await;
}

fn agent_session(session: &Session) -> String {
    session.state().unwrap().agent_session.unwrap()
}

/// Holds a session to what was promised of it: in the log, at the agent, and by the provider's record.
fn arrived_once(
    scene: &Scene,
    manager: &SessionManager,
    Asked { session, messages }: &Asked,
    stored: &[Message],
    killed: &[Timestamp],
) {
    let state = session.state().unwrap();
    assert!(state.head().is_none(), "open: {:#?}", state.head());
    // At the agent: each once, and in order.
    let users: Vec<_> = stored.iter().filter(|m| m.role == "user").collect();
    let texts: Vec<_> = users.iter().map(|user| user.texts.concat()).collect();
    let prompts: Vec<_> = messages.iter().map(|(_, prompt)| prompt.clone()).collect();
    assert_eq!(texts, prompts);

    let transcript = transcript(manager.log(), session);
    let dead_runs = interrupted(manager, session);
    for (user, (message, prompt)) in users.iter().zip(messages) {
        let turn = transcript.turn_of(*message).unwrap();
        assert_eq!(
            turn.state,
            TurnState::Completed,
            "{prompt}: {:?}",
            turn.ending
        );
        // A run that died did so with its server.
        for run in dead_runs.iter().filter(|run| run.message == *message) {
            let died = killed.iter().any(|killed| run.span.contains(killed));
            assert!(died, "{prompt}: no server died in {run:#?}: {turn:#?}");
        }
        let answers: Vec<_> = stored
            .iter()
            .filter(|answer| answer.parent.as_ref() == Some(&user.id))
            .filter(|answer| !turn.dead_answers.contains(&answer.id))
            .collect();
        answered_once(scene, prompt, turn, &answers);
    }
}

/// Holds a turn to one whole answer, the same in the log, at the agent and by the provider's record.
fn answered_once(scene: &Scene, prompt: &str, turn: &Turn, answers: &[&Message]) {
    let ends = answers.iter().filter(|answer| {
        answer.completed && answer.error.is_none() && answer.finish.as_deref() == Some("stop")
    });
    assert_eq!(ends.count(), 1, "{prompt}: {answers:#?}");
    let held: String = answers
        .iter()
        .flat_map(|answer| answer.texts.clone())
        .collect();
    assert_eq!(turn.text(), held, "{prompt}");

    let calls = scene.provider.calls_for(prompt);
    let steps = expected_texts(prompt).len();
    if turn.runs.len() == 1 {
        assert_eq!(held, expected_text(prompt), "{prompt}");
        let sent: Vec<_> = calls.iter().map(|call| call.sent.clone()).collect();
        assert_eq!(sent, expected_texts(prompt), "{prompt}: {turn:#?}");
    } else {
        // Run again, the agent goes on after the tool calls that it holds.
        assert!(expected_text(prompt).ends_with(&held), "{prompt}: {held}");
        assert!(
            calls.len() <= turn.runs.len() * steps,
            "{prompt}: {calls:#?}"
        );
    }
    assert_eq!(calls.last().unwrap().outcome, Outcome::Done, "{prompt}");
}

/// A run that the log says the agent died in.
#[derive(Debug)]
struct DeadRun {
    message: MessageId,
    /// From when it was asked for to when it was found dead.
    span: Range<Timestamp>,
}

fn interrupted(manager: &SessionManager, session: &Session) -> Vec<DeadRun> {
    let mut asked_for = BTreeMap::new();
    let mut dead = Vec::new();
    for recorded in events(manager.log(), StreamId::Session(session.id())) {
        match recorded.event {
            Event::TurnRequested { message, run } => {
                asked_for.entry((message, run)).or_insert(recorded.at);
            }
            Event::TurnInterrupted { message, run, .. } => dead.push(DeadRun {
                message,
                span: asked_for[&(message, run)]..recorded.at,
            }),
            _ => {}
        }
    }
    dead
}
