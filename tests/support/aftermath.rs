//! What is to be found once something was killed and `recover` has carried it on.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use crate::agent_http::Agent;
use crate::command::{finish, json_of, object_of};
use crate::engine::Scene;
use crate::opencode::Server;
use crate::provider::script::expected_text;

/// What `recover` says when there is nothing to recover.
pub fn nothing_open(recovered: &Value) -> bool {
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

/// The events of a session. However a process died, none is durable without the frame that it names.
pub fn log(scene: &Scene, session: &str) -> Vec<Value> {
    let mut events = json_of(&scene.home, &["log", session, "--frames", "--json"]);
    for event in &mut events {
        assert_eq!(
            event["frame"].is_u64(),
            event["received"].is_string(),
            "{event:#}"
        );
        // Whoever prints an event without its frame prints the same but for this.
        event.as_object_mut().unwrap().remove("received");
    }
    events
}

/// How many events have this name.
pub fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["type"] == name).count()
}

/// The server's process that a log names last.
pub fn server_pid(events: &[Value]) -> u32 {
    let spawned = events
        .iter()
        .rfind(|event| event["type"] == "ServerSpawned");
    let pid = spawned.expect("a server was started")["data"]["pid"].as_u64();
    pid.unwrap().try_into().unwrap()
}

/// Servers are told from the engine by their command lines.
pub fn servers(scene: &Scene) -> Vec<u32> {
    let mut processes = scene.home.marker().processes();
    processes.retain(|_, line| line.contains(" serve "));
    processes.into_keys().collect()
}

/// Holds the log to being whole.
pub fn verified(scene: &Scene) {
    let verified = finish(&scene.home, &["verify"]);
    assert!(verified.status.success(), "{verified:#?}");
}

/// Recovers, to the end of everything that was open; a second time finds nothing.
pub fn recovers(scene: &Scene, point: &dyn Debug) {
    let recovered = object_of(&scene.home, &["recover", "--json"]);
    let left = ["dead_lettered", "failed", "waiting", "open"].map(|count| recovered[count].clone());
    assert_eq!(left, [0, 0, 0, 0], "{point:?}: {recovered:#}");
    let again = object_of(&scene.home, &["recover", "--json"]);
    assert!(nothing_open(&again), "{point:?}: {again:#}");
    scene.home.marker().assert_none_left();
}

/// One field of each entry in a list.
pub fn entries(stands: &Value, list: &str, field: &str) -> Vec<String> {
    let entries = stands[list].as_array().unwrap().iter();
    entries
        .map(|entry| entry[field].as_str().unwrap().to_owned())
        .collect()
}

/// The agent has a session for each prompt, with the message once, and one answer that has an end.
pub async fn stored_once(scene: &Scene, prompts: &[String]) {
    let server = Server::start(&scene.home);
    let agent = Agent::new(&server, &scene.home);
    let mut stored = BTreeMap::new();
    for session in agent.sessions().await {
        let messages = agent.messages(&session.id).await;
        let (asked, answers): (Vec<_>, Vec<_>) = messages.iter().partition(|m| m.role == "user");
        // A run that was killed between asking for a session and using it has left an empty one.
        let [asked] = asked[..] else {
            assert!(messages.is_empty(), "{messages:#?}");
            continue;
        };
        let answers = answers.into_iter().filter(|answer| answer.completed);
        let answers: Vec<_> = answers.map(|answer| answer.texts.concat()).collect();
        let twice = stored.insert(asked.texts.concat(), answers);
        assert_eq!(twice, None, "{asked:#?}");
    }
    let expected = prompts
        .iter()
        .map(|prompt| (prompt.clone(), vec![expected_text(prompt)]));
    assert_eq!(stored, expected.collect());
    drop(server);
    scene.home.marker().assert_none_left();
}
