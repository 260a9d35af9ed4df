//! The `recount` command with the real agent: killed at any point, alone or with its server, and carried on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use recount_tests::agent_http::Agent;
use recount_tests::command::{VERB_TIMEOUT, finish, json_of, object_of, objects, verb};
use recount_tests::engine::{Scene, kill_9};
use recount_tests::opencode::Server;
use recount_tests::process::Running;
use recount_tests::provider::Outcome;
use recount_tests::provider::script::expected_text;
use serde_json::{Value, json};

/// Runs a prompt, and gives what is printed for machines.
fn run(scene: &Scene, prompt: &str) -> Running {
    Running::spawn(&mut verb(
        &scene.home,
        &["run", "--json", "--permission", "allow", prompt],
    ))
}

/// What `recover` says when there is nothing to recover.
fn nothing_open(recovered: &Value) -> bool {
    let counts = [
        "sessions",
        "resolved",
        "completed",
        "dead_lettered",
        "waiting",
        "open",
    ];
    counts.iter().all(|count| recovered[count] == 0)
}

fn log(scene: &Scene, session: &str) -> Vec<Value> {
    json_of(&scene.home, &["log", session, "--json"])
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["type"] == name).count()
}

/// The server's process that a log names last.
fn server_pid(events: &[Value]) -> u32 {
    let spawned = events
        .iter()
        .rfind(|event| event["type"] == "ServerSpawned");
    let pid = spawned.expect("a server was started")["data"]["pid"].as_u64();
    pid.unwrap().try_into().unwrap()
}

/// Servers are told from the engine by their command lines.
fn servers(scene: &Scene) -> Vec<u32> {
    let mut processes = scene.home.marker().processes();
    processes.retain(|_, line| line.contains(" serve "));
    processes.into_keys().collect()
}

fn verified(scene: &Scene) {
    let verified = finish(&scene.home, &["verify"]);
    assert!(verified.status.success(), "{verified:#?}");
}

/// Where a run is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// So many milliseconds after the process was begun.
    Begun(u64),
    /// Once it has printed so many events, and so many milliseconds later.
    Printed(usize, u64),
}

/// Kills a run at each of these points, one session each, and recovers: every message that was acknowledged is
/// stored once, asked of the model once, and recorded whole, by the server that was there.
async fn killed_at(points: &[Point]) {
    let scene = Scene::new();
    let mut prompts = Vec::new();
    for (n, point) in points.iter().enumerate() {
        let prompt = format!("fake:plain words=40 chunks=8 delay=30 id={n:03}");
        let mut running = run(&scene, &prompt);
        let after = match *point {
            Point::Begun(after) => after,
            Point::Printed(events, after) => {
                running.stdout_lines(events, VERB_TIMEOUT);
                after
            }
        };
        std::thread::sleep(Duration::from_millis(after));
        running.kill_9();
        let left = servers(&scene);

        let recovered = object_of(&scene.home, &["recover", "--json"]);
        let of = ["dead_lettered", "waiting", "open"].map(|count| recovered[count].clone());
        assert_eq!(of, [0, 0, 0], "{point:?}: {recovered:#}");
        let again = object_of(&scene.home, &["recover", "--json"]);
        assert!(nothing_open(&again), "{point:?}: {again:#}");
        scene.home.marker().assert_none_left();

        let calls = scene.provider.calls_for(&prompt);
        // Killed early enough, it has not begun its log, or not come to its message.
        let sessions = finish(&scene.home, &["sessions", "--json"]);
        let sessions = objects(sessions.stdout.lines());
        let stands = sessions
            .first()
            .map(|_| object_of(&scene.home, &["show", "latest", "--json"]));
        let message = stands.as_ref().and_then(|stands| {
            let message = stands["messages"].as_array().unwrap().first()?;
            (message["text"] == prompt.as_str()).then(|| message.clone())
        });
        println!("{point:?}: {left:?} {} {recovered}", message.is_some());
        let (Some(stands), Some(message)) = (stands, message) else {
            assert_eq!(
                calls.len(),
                0,
                "{point:?}: asked, and nothing is known of it"
            );
            continue;
        };
        assert_eq!(message["state"], "completed", "{point:?}: {stands:#}");
        let outcomes: Vec<_> = calls.iter().map(|call| call.outcome.clone()).collect();
        assert_eq!(outcomes, [Outcome::Done], "{point:?}");
        let turns: Vec<_> = stands["turns"].as_array().unwrap().iter().collect();
        let texts: Vec<_> = turns
            .iter()
            .map(|turn| turn["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, [calls[0].sent.as_str()], "{point:?}");
        assert_eq!(texts, [expected_text(&prompt)], "{point:?}");
        let events = log(&scene, "latest");
        let spawned = count(&events, "ServerSpawned");
        let pids: Vec<_> = left
            .iter()
            .filter(|pid| **pid == server_pid(&events))
            .collect();
        assert!(
            left.is_empty() || pids.len() == 1,
            "{point:?}: {left:?} {events:#?}"
        );
        let _ = spawned;
        prompts.push(prompt);
    }
    assert!(
        prompts.len() >= points.len() / 2,
        "most points come after the message"
    );
    verified(&scene);

    // All sessions are the agent's too, each with its message and its answer once.
    let server = Server::start(&scene.home);
    let agent = Agent::new(&server, &scene.home);
    let mut stored = BTreeMap::new();
    for session in agent.sessions().await {
        let messages = agent.messages(&session.id).await;
        let [asked, answered] = &messages[..] else {
            panic!("one message, one answer: {messages:#?}")
        };
        assert_eq!(answered.parent.as_ref(), Some(&asked.id));
        stored.insert(asked.texts.concat(), answered.texts.concat());
    }
    let expected = prompts
        .iter()
        .map(|prompt| (prompt.clone(), expected_text(prompt)));
    assert_eq!(stored, expected.collect());
    drop(server);
    scene.home.marker().assert_none_left();
}

#[tokio::test]
async fn a_run_killed_before_its_server_answers_is_carried_on() {
    let points = [
        Point::Begun(0),
        Point::Begun(5),
        Point::Begun(20),
        Point::Printed(1, 0),
        Point::Printed(3, 0),
        Point::Printed(4, 0),
        Point::Printed(5, 0),
        Point::Printed(5, 200),
        Point::Printed(5, 800),
        Point::Printed(6, 0),
    ];
    killed_at(&points).await;
}

#[tokio::test]
async fn a_run_killed_while_its_message_is_delivered_or_answered_is_carried_on() {
    let points = [
        Point::Printed(8, 0),
        Point::Printed(9, 0),
        Point::Printed(11, 0),
        Point::Printed(11, 3),
        Point::Printed(12, 0),
        Point::Printed(13, 0),
        Point::Printed(14, 0),
        Point::Printed(16, 0),
        Point::Printed(18, 10),
        Point::Printed(24, 0),
    ];
    killed_at(&points).await;
}

#[test]
fn a_run_killed_with_its_server_in_an_answer_is_carried_on() {
    let scene = Scene::new();
    let prompt = "fake:gate name=middle after=2 chunks=6 words=60";
    let mut running = run(&scene, prompt);
    let output = running.stdout_line("OutputAppended", VERB_TIMEOUT);
    assert!(output.is_some(), "{running:#?}");
    let before = scene.provider.texts_for(prompt).concat();
    let left = servers(&scene);
    running.kill_9();
    left.iter().copied().for_each(kill_9);
    scene.home.marker().assert_none_left();

    scene.provider.open_gate("middle");
    let recovered = object_of(&scene.home, &["recover", "--json"]);
    let expected =
        json!({ "sessions": 1, "completed": 1, "dead_lettered": 0, "waiting": 0, "open": 0 });
    for (count, expected) in expected.as_object().unwrap() {
        assert_eq!(recovered[count], *expected, "{count}: {recovered:#}");
    }
    let again = object_of(&scene.home, &["recover", "--json"]);
    assert!(nothing_open(&again), "{again:#}");
    scene.home.marker().assert_none_left();
    let stands = object_of(&scene.home, &["show", "latest", "--json"]);
    assert_eq!(
        stands["turns"][0]["text"],
        expected_text(prompt),
        "{stands:#}"
    );
    // The model was asked again, and what it said the first time is kept.
    let outcomes: Vec<_> = scene
        .provider
        .calls_for(prompt)
        .into_iter()
        .map(|call| call.outcome)
        .collect();
    assert_eq!(outcomes, [Outcome::ClientGone, Outcome::Done]);
    let events = log(&scene, "latest");
    let first: String = events
        .iter()
        .filter(|event| event["type"] == "OutputAppended" && event["data"]["run"] == 1)
        .map(|event| event["data"]["text"].as_str().unwrap())
        .collect();
    assert!(
        !first.is_empty() && before.starts_with(&first),
        "{first:?} of {before:?}"
    );
    assert_eq!(count(&events, "TurnCompleted"), 1);
    verified(&scene);
}

#[tokio::test]
async fn another_process_follows_what_a_run_does() {
    let scene = Scene::new();
    let prompt = "fake:gate name=middle after=2 chunks=30 words=300 delay=5";
    let running = run(&scene, prompt);
    assert!(
        running.stdout_line("MessageQueued", VERB_TIMEOUT).is_some(),
        "{running:#?}"
    );
    let following = Running::spawn(&mut verb(
        &scene.home,
        &["log", "latest", "--follow", "--json"],
    ));
    assert!(
        following
            .stdout_line("MessageQueued", VERB_TIMEOUT)
            .is_some(),
        "{following:#?}"
    );
    scene.provider.reached_gate("middle").await;
    assert!(
        following
            .stdout_line("OutputAppended", VERB_TIMEOUT)
            .is_some()
    );
    scene.provider.open_gate("middle");
    let finished = running.finish(VERB_TIMEOUT);
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");

    let whole = log(&scene, "latest");
    let followed = following.stdout_lines(whole.len(), VERB_TIMEOUT);
    // It may have seen more of the connection, which goes on after the session's last event.
    let followed = objects(followed.iter().take(whole.len()).map(String::as_str));
    assert_eq!(followed, whole);
    // A run prints the same, up to the end of its turn.
    let printed = objects(finished.stdout.lines());
    assert_eq!(printed, whole[..printed.len()]);
    assert_eq!(printed.last().unwrap()["type"], "TurnCompleted");
    // Its servers are gone, the follower is not: it waits for what may come.
    assert!(servers(&scene).is_empty());
    drop(following);
    scene.home.marker().assert_none_left();
    verified(&scene);
}

#[tokio::test]
async fn a_run_that_is_interrupted_ends_its_turn_and_says_so() {
    let scene = Scene::new();
    let prompt = "fake:gate name=never";
    let running = run(&scene, prompt);
    scene.provider.reached_gate("never").await;
    assert!(
        running
            .stdout_line("OutputAppended", VERB_TIMEOUT)
            .is_some(),
        "{running:#?}"
    );
    running.interrupt();
    let finished = running.finish(VERB_TIMEOUT);
    assert_eq!(finished.status.code(), Some(130), "{finished:#?}");
    let events = log(&scene, "latest");
    assert_eq!(count(&events, "TurnAbortAsked"), 1, "{events:#?}");
    assert_eq!(count(&events, "TurnAborted"), 1, "{events:#?}");
    let outcomes: Vec<_> = scene
        .provider
        .calls_for(prompt)
        .into_iter()
        .map(|call| call.outcome)
        .collect();
    assert_eq!(outcomes, [Outcome::ClientGone]);
    let recovered = object_of(&scene.home, &["recover", "--json"]);
    assert!(nothing_open(&recovered), "{recovered:#}");
    scene.home.marker().assert_none_left();
    verified(&scene);
}

#[test]
fn how_a_turn_ends_is_the_exit_code() {
    let scene = Scene::new();
    let answered = finish(&scene.home, &["run", "fake:utf8 words=40 split=5"]);
    assert_eq!(answered.status.code(), Some(0), "{answered:#?}");
    assert_eq!(
        answered.stdout.trim_end_matches('\n'),
        expected_text("fake:utf8 words=40")
    );
    let permitted = finish(
        &scene.home,
        &[
            "run",
            "--session",
            "latest",
            "--permission",
            "allow",
            "fake:bash cmd=touch+made",
        ],
    );
    assert_eq!(permitted.status.code(), Some(0), "{permitted:#?}");
    assert!(scene.home.project_dir().join("made").exists());
    let refused = finish(
        &scene.home,
        &["run", "--session", "latest", "fake:bash cmd=touch+never"],
    );
    assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
    assert!(!scene.home.project_dir().join("never").exists());
    let failed = finish(
        &scene.home,
        &[
            "run",
            "--session",
            "latest",
            "fake:error status=401 times=9",
        ],
    );
    assert_eq!(failed.status.code(), Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("scripted HTTP 401"), "{failed:#?}");
    let states: Vec<_> = object_of(&scene.home, &["show", "latest", "--json"])["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["state"].clone())
        .collect();
    assert_eq!(states, ["completed", "completed", "failed", "failed"]);
    scene.home.marker().assert_none_left();
    verified(&scene);
}
