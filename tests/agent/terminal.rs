//! `recount run` on a terminal, with a person at it whom the real agent asks.

use recount_tests::aftermath::{count, log, verified};
use recount_tests::command::{VERB_TIMEOUT, on_terminal};
use recount_tests::engine::Scene;
use recount_tests::process::Finished;
use recount_tests::provider::Outcome;
use serde_json::{Value, json};

const PROMPT: &str = "fake:bash cmd=echo+x+>>+made";

/// What the person is asked.
const QUESTION: &str = "Allow bash: echo x >> made? [y]es, [a]lways, [N]o: ";

/// Runs the prompt on a terminal, and types this once it is asked.
fn answered_with(scene: &Scene, keys: &str) -> Finished {
    let mut terminal = on_terminal(&scene.home, &["run", PROMPT]);
    let asked = terminal.shows(QUESTION, VERB_TIMEOUT);
    assert!(asked, "{terminal:#?}");
    assert_eq!(made(scene), "", "it is asked first");
    terminal.type_in(keys);
    let finished = terminal.finish(VERB_TIMEOUT);
    scene.home.marker().assert_none_left();
    verified(scene);
    finished
}

/// What the tool has done.
fn made(scene: &Scene) -> String {
    std::fs::read_to_string(scene.home.project_dir().join("made")).unwrap_or_default()
}

/// What the log says was asked and answered, and how the turn ended.
fn story(scene: &Scene) -> Vec<Value> {
    let mut events = log(scene, "latest");
    let told = [
        "PermissionAsked",
        "PermissionAnswered",
        "PermissionSettled",
        "TurnCompleted",
        "TurnFailed",
        "TurnAborted",
    ];
    events.retain(|event| told.iter().any(|told| event["type"] == *told));
    let event = |event: Value| match event["data"].get("answer") {
        Some(answer) => json!([event["type"], answer]),
        None => event["type"].clone(),
    };
    events.into_iter().map(event).collect()
}

#[test]
fn a_person_says_yes_and_the_tool_runs() {
    let scene = Scene::new();
    let finished = answered_with(&scene, "y\n");
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert!(finished.stdout.contains("Done."), "{finished:#?}");
    assert_eq!(made(&scene), "x\n");
    assert_eq!(
        story(&scene),
        [
            json!("PermissionAsked"),
            json!(["PermissionAnswered", "once"]),
            json!(["PermissionSettled", "once"]),
            json!("TurnCompleted"),
        ]
    );
}

#[test]
fn a_person_presses_return_and_the_tool_does_not_run() {
    let scene = Scene::new();
    let finished = answered_with(&scene, "\n");
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    let refused = "permission was refused: bash echo x >> made";
    assert!(finished.stdout.contains(refused), "{finished:#?}");
    assert_eq!(made(&scene), "");
    assert_eq!(
        story(&scene),
        [
            json!("PermissionAsked"),
            json!(["PermissionAnswered", "reject"]),
            json!(["PermissionSettled", "reject"]),
            json!("TurnFailed"),
        ]
    );
}

#[test]
fn a_person_presses_ctrl_c_at_a_question_and_the_turn_ends() {
    let scene = Scene::new();
    let finished = answered_with(&scene, "\x03");
    assert_eq!(finished.status.code(), Some(130), "{finished:#?}");
    assert_eq!(made(&scene), "");
    let events = log(&scene, "latest");
    assert_eq!(count(&events, "TurnAborted"), 1, "{events:#?}");
    assert_eq!(count(&events, "PermissionAnswered"), 0, "{events:#?}");
    assert_eq!(scene.provider.outcomes_for(PROMPT), [Outcome::Done]);
}
