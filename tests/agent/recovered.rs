//! `recount recover` with the real agent: killed itself, and where the agent had asked a question when things fell.

use std::time::Duration;

use recount_store::{Event, LogReader, Select};
use recount_tests::aftermath::{
    count, entries, log, nothing_open, recovers, server_pid, servers, stored_once, verified,
};
use recount_tests::command::{VERB_TIMEOUT, finish, object_of, objects, verb};
use recount_tests::engine::{Scene, kill_9};
use recount_tests::opencode::Server;
use recount_tests::process::Running;
use recount_tests::provider::Outcome;
use recount_tests::provider::script::expected_text;
use recount_tests::timing::within;
use rusqlite::Connection;
use serde_json::{Value, json};

/// How soon the first events of a recovery come, and those after its agent's turn.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a prompt until an event of this name is printed, and kills the command, and not its server.
fn killed_run(scene: &Scene, prompt: &str, told: &str) {
    let mut running = Running::spawn(&mut verb(&scene.home, &["run", "--json", prompt]));
    let line = running.stdout_line(&format!(r#""type":"{told}""#), VERB_TIMEOUT);
    assert!(line.is_some(), "{told}: {running:#?}");
    running.kill_9();
}

/// The one server that is left.
fn server_left(scene: &Scene) -> u32 {
    let [server] = servers(scene)[..] else {
        panic!("one server is left: {:#?}", scene.home.marker().processes())
    };
    server
}

/// Where a recovery is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// So many milliseconds after the process was begun.
    Begun(u64),
    /// Once it has recorded so many events.
    Recorded(usize),
}

/// Recovers, and kills that at a point; says whether it had ended by itself before that.
async fn killed_recovery(scene: &Scene, point: Point) -> bool {
    let reader = LogReader::open(scene.home.path("recount")).unwrap();
    let head = reader.head().unwrap().position;
    let mut tail = reader.tail(Select::All, head.next());
    let mut recovering = Running::spawn(&mut verb(&scene.home, &["recover", "--json"]));
    let ended = match point {
        Point::Begun(after) => {
            std::thread::sleep(Duration::from_millis(after));
            false
        }
        Point::Recorded(events) => {
            let mut last = None;
            for n in 0..events {
                let what = format!("event {n} after {last:?}: {recovering:#?}");
                let next = within(EVENTS_TIMEOUT, &what, tail.next()).await;
                last = Some(next.expect("the log goes on").unwrap().event);
                if last == Some(Event::EngineStopped) {
                    break;
                }
            }
            last == Some(Event::EngineStopped)
        }
    };
    recovering.kill_9();
    ended
}

/// Holds the newest session to one whole answer, for which the model was called so, by so many servers.
fn answered(scene: &Scene, prompt: &str, outcomes: &[Outcome], servers: usize, at: &str) {
    let stands = object_of(&scene.home, &["show", "latest", "--json"]);
    assert_eq!(entries(&stands, "messages", "text"), [prompt], "{at}");
    assert_eq!(entries(&stands, "messages", "state"), ["completed"], "{at}");
    let texts = entries(&stands, "turns", "text");
    assert_eq!(texts, [expected_text(prompt)], "{at}");
    assert_eq!(scene.provider.outcomes_for(prompt), outcomes, "{at}");
    let events = log(scene, "latest");
    let counts = ["MessageQueued", "TurnCompleted", "ServerSpawned"];
    let counts = counts.map(|name| count(&events, name));
    assert_eq!(counts, [1, 1, servers], "{at}: {events:#?}");
}

#[tokio::test]
async fn a_recovery_killed_at_any_point_is_carried_on() {
    let scene = Scene::new();
    let mut prompts = Vec::new();
    let points = [
        ("MessageQueued", Point::Recorded(4)),
        ("ServerSpawned", Point::Begun(0)),
        ("ServerSpawned", Point::Recorded(6)),
        ("AgentSessionRequested", Point::Recorded(8)),
        ("DeliveryStarted", Point::Recorded(10)),
        ("TurnRequested", Point::Begun(20)),
        ("TurnRequested", Point::Recorded(3)),
        ("TurnRequested", Point::Recorded(7)),
        ("OutputAppended", Point::Begun(60)),
        ("OutputAppended", Point::Begun(250)),
        ("OutputAppended", Point::Recorded(9)),
        ("OutputAppended", Point::Recorded(12)),
    ];
    for (n, (told, point)) in points.into_iter().enumerate() {
        let at = format!("{told}, {point:?}");
        let prompt = format!("fake:plain words=40 chunks=20 delay=40 id={n:03}");
        killed_run(&scene, &prompt, told);
        let ended = killed_recovery(&scene, point).await;
        println!("{at}: ended by itself: {ended}");
        recovers(&scene, &at);
        answered(&scene, &prompt, &[Outcome::Done], 1, &at);
        prompts.push(prompt);
    }
    verified(&scene);
    stored_once(&scene, &prompts).await;
}

#[tokio::test]
async fn a_recovery_that_ran_a_turn_again_and_was_killed_is_carried_on() {
    let scene = Scene::new();
    let mut prompts = Vec::new();
    for events in [8, 14, 17, 20, 24] {
        let at = format!("{events} events");
        let gate = format!("after-{events}");
        let prompt = format!("fake:gate name={gate} after=2 words=40 chunks=20 delay=40");
        killed_run(&scene, &prompt, "OutputAppended");
        kill_9(server_left(&scene));
        scene.home.marker().assert_none_left();
        scene.provider.ended(&prompt, &Outcome::ClientGone).await;
        scene.provider.open_gate(&gate);
        let ended = killed_recovery(&scene, Point::Recorded(events)).await;
        println!("{at}: ended by itself: {ended}");
        recovers(&scene, &at);
        let outcomes = [Outcome::ClientGone, Outcome::Done];
        answered(&scene, &prompt, &outcomes, 2, &at);
        prompts.push(prompt);
    }
    verified(&scene);
    stored_once(&scene, &prompts).await;
}

#[tokio::test]
async fn a_recovery_killed_again_and_again_comes_to_the_end() {
    /// Every recovery records so many events before it can but wait for the model.
    const BEFORE_ITS_WAIT: usize = 6;
    /// More than any recovery has to record.
    const EVENTS_MAX: usize = 40;
    let scene = Scene::new();
    let prompt = "fake:gate name=middle after=2 chunks=6 words=60";
    killed_run(&scene, prompt, "OutputAppended");
    let mut events = 0;
    let ended = loop {
        events += 1;
        if events > BEFORE_ITS_WAIT {
            scene.provider.open_gate("middle");
        }
        if killed_recovery(&scene, Point::Recorded(events)).await || events > EVENTS_MAX {
            break events;
        }
    };
    println!("ended by itself before event {ended}");
    assert!(ended <= EVENTS_MAX);
    recovers(&scene, &"the end");
    answered(&scene, prompt, &[Outcome::Done], 1, "the end");
    verified(&scene);
    stored_once(&scene, &[prompt.to_owned()]).await;
}

/// A turn that asks for permission once its gate is open, again if the first time is cut off.
fn asking(gate: &str) -> String {
    let tool = json!([{
        "name": "bash",
        "args": { "command": "echo x >> made", "description": "a scripted step" },
    }]);
    let steps = json!({ "steps": [
        { "text": "I will do it. ", "gate": gate, "tools": tool },
        { "text": "Once more. ", "tools": tool },
        { "text": "Done." },
    ]});
    format!("fake:{steps}")
}

/// Kills a run before the agent asks; then it does, and nobody is there. Gives the server.
async fn asks_nobody(scene: &Scene, prompt: &str) -> u32 {
    killed_run(scene, prompt, "OutputAppended");
    let server = server_left(scene);
    scene.provider.open_gate("ask");
    scene.provider.asked(prompt, 1).await;
    scene.provider.ended(prompt, &Outcome::Done).await;
    server
}

/// What `recover` reports of the only session's only message: it stands so, and counts as this.
fn report(scene: &Scene, state: &str, count: &str, settle_with: &[&str]) -> Value {
    let stands = object_of(&scene.home, &["show", "latest", "--json"]);
    let session = stands["session"].clone();
    let message = stands["messages"][0]["id"].clone();
    assert_eq!(stands["messages"][0]["state"], state, "{stands:#}");
    let reason = stands["messages"][0]["reason"].clone();
    let mut report = json!({
        "sessions": 1, "resolved": 0, "completed": 0, "failed": 0, "dead_lettered": 0, "waiting": 0, "open": 0,
        "messages": [{ "session": session, "message": message, "state": state, "reason": reason }],
        "waits": [],
    });
    report[count] = json!(1);
    if !settle_with.is_empty() {
        // A word is about this message, and is named by it.
        let words: &[&str] = if settle_with == RERUNS {
            &["rerun", "give-up"]
        } else {
            &[]
        };
        let id = message.as_str().unwrap();
        let words = words
            .iter()
            .map(|word| format!("recount resolve {id} {word}"));
        let policies = settle_with.iter().map(|command| (*command).to_owned());
        let settle_with: Vec<String> = words.chain(policies).collect();
        report["waits"] = json!([
            { "session": session, "message": message, "settle_with": settle_with },
        ]);
    }
    report
}

/// The commands that settle a question.
const ANSWERS: [&str; 2] = [
    "recount recover --permission allow",
    "recount recover --permission reject",
];

/// The commands that settle a turn that may be run again.
const RERUNS: [&str; 2] = [
    "recount recover --rerun auto",
    "recount recover --rerun never",
];

/// Recovers with these flags, and gives the report; the exit code is 0.
fn recover(scene: &Scene, flags: &[&str]) -> Value {
    let args: Vec<_> = ["recover", "--json"]
        .into_iter()
        .chain(flags.iter().copied())
        .collect();
    let mut report = object_of(&scene.home, &args);
    // What there is to know about it is long, and not what these tests are about.
    for waits in report["waits"].as_array_mut().into_iter().flatten() {
        let waits = waits.as_object_mut().unwrap();
        for known in ["since", "questions", "tools"] {
            assert!(waits.remove(known).is_some(), "{known}");
        }
    }
    report
}

/// What the tool has done.
fn made(scene: &Scene) -> String {
    std::fs::read_to_string(scene.home.project_dir().join("made")).unwrap_or_default()
}

#[tokio::test]
async fn a_question_waits_with_its_server_until_it_is_answered() {
    let scene = Scene::new();
    let prompt = asking("ask");
    let server = asks_nobody(&scene, &prompt).await;
    // Nobody is at a terminal, however often it is said.
    for _ in 0..2 {
        let recovered = recover(&scene, &[]);
        assert_eq!(recovered, report(&scene, "running", "waiting", &ANSWERS));
        assert_eq!(servers(&scene), [server]);
    }
    // One who listened to the question is killed too, and it is asked only once all the same.
    killed_recovery(&scene, Point::Recorded(6)).await;
    assert_eq!(servers(&scene), [server]);
    assert_eq!(count(&log(&scene, "latest"), "PermissionAsked"), 1);
    assert_eq!(made(&scene), "");

    let recovered = recover(&scene, &["--permission", "allow"]);
    assert_eq!(recovered, report(&scene, "completed", "completed", &[]));
    scene.home.marker().assert_none_left();
    assert_eq!(made(&scene), "x\nx\n");
    answered(
        &scene,
        &prompt,
        &[Outcome::Done, Outcome::Done, Outcome::Done],
        1,
        "the end",
    );
    assert!(nothing_open(&recover(&scene, &[])));
    verified(&scene);
}

#[tokio::test]
async fn a_question_that_died_with_its_server_is_not_waited_for() {
    let scene = Scene::new();
    let prompt = asking("ask");
    let server = asks_nobody(&scene, &prompt).await;
    let recovered = recover(&scene, &[]);
    assert_eq!(recovered, report(&scene, "running", "waiting", &ANSWERS));
    assert_eq!(servers(&scene), [server]);
    kill_9(server);
    scene.home.marker().assert_none_left();

    // A tool had begun, so a person says what becomes of it. There is no server to be kept for that.
    let recovered = recover(&scene, &[]);
    assert_eq!(recovered, report(&scene, "waiting", "waiting", &RERUNS));
    scene.home.marker().assert_none_left();

    // Run again, it asks again.
    let recovered = recover(&scene, &["--rerun", "auto"]);
    assert_eq!(recovered, report(&scene, "running", "waiting", &ANSWERS));
    let [server] = servers(&scene)[..] else {
        panic!("one server is left: {:#?}", scene.home.marker().processes())
    };
    assert_eq!(made(&scene), "");
    let recovered = recover(&scene, &["--permission", "allow"]);
    assert_eq!(recovered, report(&scene, "completed", "completed", &[]));
    scene.home.marker().assert_none_left();
    assert_eq!(made(&scene), "x\n");
    assert_eq!(
        scene.provider.outcomes_for(&prompt),
        [Outcome::Done, Outcome::Done, Outcome::Done]
    );
    let events = log(&scene, "latest");
    assert_eq!(server_pid(&events), server);
    let counts = [
        "PermissionAsked",
        "PermissionAnswered",
        "TurnInterrupted",
        "TurnCompleted",
    ];
    assert_eq!(
        counts.map(|name| count(&events, name)),
        [2, 1, 1, 1],
        "{events:#?}"
    );
    assert!(nothing_open(&recover(&scene, &[])));
    verified(&scene);
}

#[tokio::test]
async fn a_turn_that_died_with_its_question_is_run_again_in_one_go() {
    let scene = Scene::new();
    let prompt = asking("ask");
    let server = asks_nobody(&scene, &prompt).await;
    recover(&scene, &[]);
    kill_9(server);
    scene.home.marker().assert_none_left();

    let recovered = recover(&scene, &["--rerun", "auto", "--permission", "allow"]);
    assert_eq!(recovered, report(&scene, "completed", "completed", &[]));
    scene.home.marker().assert_none_left();
    assert_eq!(made(&scene), "x\n");
    assert_eq!(
        scene.provider.outcomes_for(&prompt),
        [Outcome::Done, Outcome::Done, Outcome::Done]
    );
    assert!(nothing_open(&recover(&scene, &[])));
    verified(&scene);
}

#[tokio::test]
async fn a_turn_that_is_never_to_be_run_again_is_given_up() {
    let scene = Scene::new();
    let prompt = "fake:gate name=never after=2 chunks=6";
    killed_run(&scene, prompt, "OutputAppended");
    kill_9(server_left(&scene));
    scene.home.marker().assert_none_left();

    let finished = finish(&scene.home, &["recover", "--json", "--rerun", "never"]);
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    let recovered = objects(finished.stdout.lines());
    assert_eq!(recovered, [report(&scene, "failed", "failed", &[])]);
    scene.home.marker().assert_none_left();
    assert_eq!(scene.provider.outcomes_for(prompt), [Outcome::ClientGone]);
    let events = log(&scene, "latest");
    let counts = ["TurnInterrupted", "RerunDecided", "TurnFailed"];
    assert_eq!(
        counts.map(|name| count(&events, name)),
        [1, 1, 1],
        "{events:#?}"
    );
    assert!(nothing_open(&recover(&scene, &[])));
    verified(&scene);
}

/// The times at which answers ended, as the agent's database has them.
fn ends(database: &Connection) -> Vec<Option<i64>> {
    let asked = "SELECT json_extract(data, '$.time.completed') FROM message
                 WHERE json_extract(data, '$.role') = 'assistant'";
    let mut asked = database.prepare(asked).unwrap();
    let ends = asked.query_map([], |row| row.get(0)).unwrap();
    ends.map(Result::unwrap).collect()
}

/// The agent keeps how an answer ended a moment before it keeps that it did, and dies between the two: a death too rare to
/// be met by killing, so the end is taken out of its database.
#[tokio::test]
async fn an_answer_whose_end_died_with_its_server_is_taken_for_whole() {
    let scene = Scene::new();
    let prompt = "fake:gate name=end after=3 chunks=6 words=60";
    killed_run(&scene, prompt, "OutputAppended");
    let server = server_left(&scene);
    scene.provider.open_gate("end");
    let database = Connection::open(scene.home.path("data/opencode/opencode.db")).unwrap();
    let ended = async {
        while !matches!(ends(&database)[..], [Some(_)]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(EVENTS_TIMEOUT, "the answer to end", ended).await;
    kill_9(server);
    scene.home.marker().assert_none_left();
    let lost = "UPDATE message SET data = json_remove(data, '$.time.completed')
                WHERE json_extract(data, '$.finish') = 'stop'";
    assert_eq!(database.execute(lost, []), Ok(1));
    assert_eq!(ends(&database), [None]);
    drop(database);

    recovers(&scene, &"without an end");
    answered(&scene, prompt, &[Outcome::Done], 2, "without an end");
    verified(&scene);
}

#[test]
fn a_server_that_somebody_else_started_outlives_every_end_of_the_engine() {
    let scene = Scene::new();
    let server = Server::start(&scene.home);
    let url = server.url();
    let run = |prompt: &str| {
        let args = ["run", "--json", "--url", &url, prompt];
        Running::spawn(&mut verb(&scene.home, &args))
    };
    let ours = ["ServerSpawned", "ServerStopDecided", "ServerExited"];

    // One that is killed, and one that carries on.
    let prompt = "fake:gate name=middle after=2 chunks=6 words=60";
    let mut killed = run(prompt);
    let told = killed.stdout_line(r#""type":"OutputAppended""#, VERB_TIMEOUT);
    assert!(told.is_some(), "{killed:#?}");
    killed.kill_9();
    assert_eq!(servers(&scene), [server.pid()]);
    scene.provider.open_gate("middle");
    let recovered = recover(&scene, &[]);
    assert_eq!(
        recovered,
        report(&scene, "completed", "completed", &[]),
        "{recovered:#}"
    );
    assert_eq!(servers(&scene), [server.pid()]);
    answered(&scene, prompt, &[Outcome::Done], 0, "recovered");
    let events = log(&scene, "latest");
    assert_eq!(ours.map(|name| count(&events, name)), [0, 0, 0]);

    // One that ends by itself.
    let prompt = "fake:plain words=20";
    let finished = run(prompt).finish(VERB_TIMEOUT);
    assert!(finished.status.success(), "{finished:#?}");
    assert_eq!(servers(&scene), [server.pid()]);
    answered(&scene, prompt, &[Outcome::Done], 0, "run");
    drop(server);
    scene.home.marker().assert_none_left();
    verified(&scene);
}
