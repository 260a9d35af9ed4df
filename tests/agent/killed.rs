//! The `recount` command with the real agent: killed at any point, alone or with its server, and carried on.

use std::time::Duration;

use recount_tests::aftermath::{
    count, entries, log, nothing_open, recovers, server_pid, servers, stored_once, verified,
};
use recount_tests::command::{VERB_TIMEOUT, finish, object_of, objects, verb};
use recount_tests::engine::{Scene, kill_9};
use recount_tests::process::Running;
use recount_tests::provider::Outcome;
use recount_tests::provider::script::expected_text;

/// Runs a prompt, and gives what is printed for machines.
fn run(scene: &Scene, prompt: &str) -> Running {
    Running::spawn(&mut verb(
        &scene.home,
        &["run", "--json", "--permission", "allow", prompt],
    ))
}

/// Where a run is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// So many milliseconds after the process was begun.
    Begun(u64),
    /// Once it has printed an event of this name, and so many milliseconds later.
    Told(&'static str, u64),
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The command alone: the agent works on.
    Run,
    /// The command and the agent's server.
    RunAndServer,
}

/// Kills a run at this point.
fn kill_at(mut running: Running, point: Point) {
    let after = match point {
        Point::Begun(after) => after,
        Point::Told(name, after) => {
            let told = running.stdout_line(&format!(r#""type":"{name}""#), VERB_TIMEOUT);
            assert!(told.is_some(), "{point:?}: {running:#?}");
            after
        }
    };
    std::thread::sleep(Duration::from_millis(after));
    running.kill_9();
}

/// Kills runs, each at one of these points and in a session of its own, and recovers. Every message that was
/// acknowledged is then stored once and answered once, and recorded whole. Where the server was left alive it
/// is the one that is used, and asks the model once.
async fn killed_at(points: &[Point], victim: Victim) {
    let scene = Scene::new();
    let mut prompts = Vec::new();
    for (n, point) in points.iter().enumerate() {
        let prompt = format!("fake:plain words=40 chunks=20 delay=40 id={n:03}");
        kill_at(run(&scene, &prompt), *point);
        let mut left = servers(&scene);
        if victim == Victim::RunAndServer {
            left.drain(..).for_each(kill_9);
            scene.home.marker().assert_none_left();
        }
        recovers(&scene, point);
        let acknowledged = stands_answered(&scene, &prompt, victim, point);
        println!("{point:?}: acknowledged: {acknowledged}, servers left: {left:?}");
        if acknowledged {
            prompts.push(prompt);
        }
        if let ([server], true) = (&left[..], acknowledged) {
            let events = log(&scene, "latest");
            assert_eq!(count(&events, "ServerSpawned"), 1, "{point:?}: {events:#?}");
            assert_eq!(server_pid(&events), *server, "{point:?}: {events:#?}");
        }
    }
    assert!(
        prompts.len() >= points.len() / 2,
        "most points come after the message"
    );
    verified(&scene);
    stored_once(&scene, &prompts).await;
}

/// Whether the newest session is about this prompt; if so, it holds the whole answer to it.
fn stands_answered(scene: &Scene, prompt: &str, victim: Victim, point: &Point) -> bool {
    let calls = scene.provider.calls_for(prompt);
    // Killed early enough, it has not begun its log, or not come to its message.
    let sessions = finish(&scene.home, &["sessions", "--json"]);
    let newest = (!sessions.stdout.is_empty())
        .then(|| object_of(&scene.home, &["show", "latest", "--json"]))
        .filter(|newest| newest["messages"][0]["text"] == prompt);
    let Some(newest) = newest else {
        assert!(
            calls.is_empty(),
            "{point:?}: asked, and nothing is known of it: {calls:#?}"
        );
        return false;
    };
    let states: Vec<_> = entries(&newest, "messages", "state");
    assert_eq!(states, ["completed"], "{point:?}: {newest:#}");
    assert_eq!(
        entries(&newest, "turns", "text"),
        [expected_text(prompt)],
        "{point:?}"
    );
    let outcomes: Vec<_> = calls.iter().map(|call| call.outcome.clone()).collect();
    assert_eq!(outcomes.last(), Some(&Outcome::Done), "{point:?}");
    match victim {
        Victim::Run => assert_eq!(outcomes.len(), 1, "{point:?}: {outcomes:?}"),
        // The agent died in it, and is asked once more.
        Victim::RunAndServer => assert!(outcomes.len() <= 2, "{point:?}: {outcomes:?}"),
    }
    true
}

#[tokio::test]
async fn a_run_killed_before_its_server_answers_is_carried_on() {
    let points = [
        Point::Begun(0),
        Point::Begun(20),
        Point::Begun(60),
        Point::Told("MessageQueued", 0),
        Point::Told("ConnectionChanged", 0),
        Point::Told("ServerStartDecided", 0),
        Point::Told("ServerSpawned", 0),
        Point::Told("ServerSpawned", 300),
        Point::Told("ServerSpawned", 1200),
        Point::Told("ServerReady", 0),
    ];
    killed_at(&points, Victim::Run).await;
}

#[tokio::test]
async fn a_run_killed_while_its_message_is_delivered_or_answered_is_carried_on() {
    let points = [
        Point::Told("StreamOpened", 0),
        Point::Told("DeliveryStarted", 0),
        Point::Told("AgentSessionRequested", 0),
        Point::Told("AgentSessionBound", 0),
        Point::Told("DeliveryAccepted", 0),
        Point::Told("TurnRequested", 0),
        Point::Told("TurnRequested", 20),
        Point::Told("TurnStarted", 0),
        Point::Told("OutputAppended", 0),
        Point::Told("OutputAppended", 300),
        Point::Told("TurnCompleted", 0),
        Point::Told("TurnCompleted", 20),
    ];
    killed_at(&points, Victim::Run).await;
}

#[tokio::test]
async fn a_run_killed_together_with_its_server_is_carried_on() {
    let points = [
        Point::Told("ServerSpawned", 300),
        Point::Told("AgentSessionBound", 0),
        Point::Told("DeliveryAccepted", 0),
        Point::Told("TurnRequested", 0),
        Point::Told("OutputAppended", 0),
    ];
    killed_at(&points, Victim::RunAndServer).await;
}

#[tokio::test]
async fn what_was_said_before_both_were_killed_is_kept() {
    let scene = Scene::new();
    let prompt = "fake:gate name=middle after=2 chunks=6 words=60";
    let mut running = run(&scene, prompt);
    let output = running.stdout_line("OutputAppended", VERB_TIMEOUT);
    assert!(output.is_some(), "{running:#?}");
    let before = scene.provider.texts_for(prompt).concat();
    let left = servers(&scene);
    running.kill_9();
    left.into_iter().for_each(kill_9);
    scene.home.marker().assert_none_left();
    scene.provider.ended(prompt, &Outcome::ClientGone).await;
    scene.provider.open_gate("middle");

    recovers(&scene, &Point::Told("OutputAppended", 0));
    assert!(stands_answered(
        &scene,
        prompt,
        Victim::RunAndServer,
        &Point::Told("OutputAppended", 0)
    ));
    let outcomes = scene.provider.outcomes_for(prompt);
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
async fn a_run_with_a_key_is_asked_once_however_often_it_is_begun() {
    let scene = Scene::new();
    let mut prompts = Vec::new();
    let points = [
        Point::Begun(0),
        Point::Told("MessageQueued", 0),
        Point::Told("ServerSpawned", 0),
        Point::Told("DeliveryAccepted", 0),
        Point::Told("TurnRequested", 0),
        Point::Told("OutputAppended", 0),
        Point::Told("TurnCompleted", 0),
    ];
    for (n, point) in points.into_iter().enumerate() {
        let prompt = format!("fake:plain words=40 chunks=20 delay=40 id={n:03}");
        let key = format!("key-{n}");
        let mut args = vec!["run", "--key", &key, &prompt, "--json"];
        kill_at(Running::spawn(&mut verb(&scene.home, &args)), point);
        args.pop();
        // The second time is answered from the log.
        for _ in 0..2 {
            let finished = finish(&scene.home, &args);
            assert_eq!(finished.status.code(), Some(0), "{point:?}: {finished:#?}");
            let expected = format!("{}\n", expected_text(&prompt));
            assert_eq!(finished.stdout, expected, "{point:?}: {finished:#?}");
            scene.home.marker().assert_none_left();
        }
        assert!(stands_answered(&scene, &prompt, Victim::Run, &point));
        prompts.push(prompt);
    }
    let recovered = object_of(&scene.home, &["recover", "--json"]);
    assert!(nothing_open(&recovered), "{recovered:#}");
    verified(&scene);
    stored_once(&scene, &prompts).await;
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
    let outcomes = scene.provider.outcomes_for(prompt);
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
