//! Copies of the real agent's sessions: what they hold, and what the model is asked in them.

use std::fs;
use std::time::{Duration, SystemTime};

use recount_engine::adapter::opencode::OpenCode;
use recount_engine::adapter::{
    Activity, AgentAdapter, AgentSession, CallError, Delivery, Endpoint, Origin, SessionSpec,
};
use recount_engine::policy::CallPolicy;
use recount_store::{MessageId, Timestamp};
use recount_tests::aftermath::{log, verified};
use recount_tests::agent_http::Agent;
use recount_tests::command::{finish, object_of};
use recount_tests::engine::Scene;
use recount_tests::opencode::{Home, Server};
use recount_tests::provider::{Call, Provider};
use recount_tests::timing::within;
use serde_json::{Value, json};

/// For what takes a second or two on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(60);

/// The real agent's server, spoken to by its adapter alone.
struct World {
    provider: Provider,
    home: Home,
    server: Server,
    endpoint: Endpoint,
    agent: OpenCode,
}

impl World {
    fn new() -> Self {
        let provider = Provider::start();
        let home = Home::new(&provider);
        let server = Server::start(&home);
        let endpoint = Endpoint {
            url: server.url(),
            password: None,
            policy: CallPolicy::default(),
        };
        Self {
            provider,
            home,
            server,
            endpoint,
            agent: OpenCode::new(),
        }
    }

    fn spec(&self, title: &str) -> SessionSpec {
        SessionSpec {
            directory: self
                .home
                .project_dir()
                .into_os_string()
                .into_string()
                .unwrap(),
            title: title.to_owned(),
        }
    }

    fn session(&self, id: String) -> AgentSession {
        AgentSession {
            id,
            directory: self.spec("").directory,
        }
    }

    async fn create(&self, title: &str) -> AgentSession {
        let spec = self.spec(title);
        let made = self.agent.create_session(&self.endpoint, &spec).await;
        self.session(made.unwrap())
    }

    async fn find(&self, title: &str) -> Option<AgentSession> {
        let spec = self.spec(title);
        let found = self.agent.find_session(&self.endpoint, &spec).await;
        found.unwrap().map(|id| self.session(id))
    }

    /// A session of three turns, the second with a tool, and the names of its messages.
    async fn three_turns(&self) -> (AgentSession, [String; 3]) {
        let session = self.create("the old [1]").await;
        let first = self.ask(&session, 1, "fake:plain words=5").await;
        let second = self
            .ask(&session, 2, "fake:write path=made.txt content=made")
            .await;
        let third = self.ask(&session, 3, LAST).await;
        (session, [first, second, third])
    }

    /// Has a message answered; gives its name.
    async fn ask(&self, session: &AgentSession, nth: u8, text: &str) -> String {
        let now = Timestamp::from_system(SystemTime::now());
        let delivery = Delivery {
            session: session.clone(),
            agent_message: self.agent.identity(MessageId::from_bytes([nth; 10]), now),
            text: text.to_owned(),
            model: None,
        };
        let endpoint = &self.endpoint;
        self.agent.store_message(endpoint, &delivery).await.unwrap();
        self.agent.start_turn(endpoint, &delivery).await.unwrap();
        let answered = async {
            loop {
                let report = self
                    .agent
                    .look_up(endpoint, session, &delivery.agent_message);
                let report = report.await.unwrap();
                let last = report.answers.last().map(|last| &last.answer);
                let is_end = last.is_some_and(|last| last.finish.as_deref() == Some("stop"));
                if is_end && report.activity == Activity::Idle {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(SOON, "the answer", answered).await;
        delivery.agent_message
    }

    async fn fork(
        &self,
        session: &str,
        through: &str,
        title: &str,
    ) -> Result<AgentSession, CallError> {
        let origin = Origin {
            agent_session: session.to_owned(),
            through: through.to_owned(),
        };
        let spec = self.spec(title);
        let copy = self.agent.fork_session(&self.endpoint, &spec, &origin);
        copy.await.map(|id| self.session(id))
    }

    /// A session's messages to the byte, each as the server shows it; what is a copy's own, the names of the session
    /// and of messages and parts, is told as the place of what has it.
    async fn history(&self, session: &AgentSession) -> Vec<String> {
        let history = Agent::new(&self.server, &self.home)
            .history(&session.id)
            .await;
        let messages = history.as_array().unwrap();
        let ids = messages.iter().flat_map(|message| {
            let parts = message["parts"].as_array().unwrap();
            std::iter::once(&message["info"]["id"]).chain(parts.iter().map(|part| &part["id"]))
        });
        let ids: Vec<&str> = ids.map(|id| id.as_str().unwrap()).collect();
        let neutral = |message: &Value| {
            let named = message.to_string().replace(&session.id, "SESSION");
            let places = ids.iter().enumerate();
            places.fold(named, |text, (at, id)| {
                text.replace(id, &format!("ID-{at}"))
            })
        };
        messages.iter().map(neutral).collect()
    }
}

/// What is asked in the third turn, and in a copy that has two.
const LAST: &str = "fake:plain text=the+end";

#[tokio::test]
async fn a_copy_holds_every_byte_through_a_message_and_goes_on_from_there() {
    let world = World::new();
    let (old, [_, second, third]) = world.three_turns().await;
    let before = world.history(&old).await;
    // A turn with a tool has two answers.
    assert_eq!(before.len(), 7);

    let copy = world.fork(&old.id, &second, "the new [2]").await.unwrap();
    assert_eq!(world.history(&copy).await, before[..5]);
    assert_eq!(world.find("the new [2]").await, Some(copy.clone()));

    // The model is asked the same as it was where the old session went on.
    world.ask(&copy, 4, LAST).await;
    let calls = world.provider.calls_for(LAST);
    let [in_old, in_copy] = &calls[..] else {
        panic!("two calls: {calls:#?}")
    };
    let roles = in_old.messages.iter().map(|m| m["role"].as_str().unwrap());
    assert_eq!(
        roles.collect::<Vec<_>>().join(" "),
        "system user assistant user assistant tool assistant user"
    );
    assert_eq!(in_copy.messages, in_old.messages);
    assert_eq!(world.history(&old).await, before);

    // Through the last one, all is copied; what was copied can be copied.
    let whole = world.fork(&old.id, &third, "the whole [3]").await.unwrap();
    assert_eq!(world.history(&whole).await, before);
    assert_eq!(world.provider.calls().len(), 5, "a copy asks no model");
}

#[tokio::test]
async fn a_copy_that_cannot_be_is_refused() {
    let world = World::new();
    let old = world.create("the old [1]").await;
    let message = world.ask(&old, 1, "fake:plain words=5").await;
    let unknown = world.fork(&old.id, "msg_unknown", "new").await;
    let reason = format!(
        "the session {} cannot be copied: it has no message msg_unknown",
        old.id
    );
    assert_eq!(unknown, Err(CallError::RefusedForGood { reason }));

    let id = "ses_000000000000000000000000";
    let reason = format!("GET /session/{id}/message: HTTP 404: Session not found: {id}");
    assert_eq!(
        world.fork(id, &message, "new").await,
        Err(CallError::NoSuchSession { reason })
    );
}

/// What the model is asked, as roles and texts; what the agent says of itself is told in a word.
fn asked(call: &Call) -> Vec<(String, String)> {
    let message = |message: &Value| {
        let role = message["role"].as_str().unwrap().to_owned();
        let text = match message["content"].as_str() {
            Some(_) if role == "system" => "…".to_owned(),
            Some(text) => text.to_owned(),
            None => message["content"][0]["text"].as_str().unwrap().to_owned(),
        };
        (role, text)
    };
    call.messages.iter().map(message).collect()
}

#[test]
fn a_person_tries_again_from_an_earlier_moment() {
    let scene = Scene::new();
    let run = |args: &[&str]| {
        let run = [&["run"], args].concat();
        finish(&scene.home, &run).printed()
    };
    run(&["fake:plain text=it+is+a+parser"]);
    run(&["--session", "latest", "fake:plain text=the+wrong+way"]);
    let old = log(&scene, "latest");
    let end = old.iter().find(|event| event["type"] == "TurnCompleted");
    let at = end.unwrap()["seq"].to_string();
    let id = object_of(&scene.home, &["show", "latest", "--json"])["session"].clone();
    let id = id.as_str().unwrap();

    let forked = object_of(&scene.home, &["fork", id, "--at", &at, "--json"]);
    assert_eq!(
        (&forked["by"], &forked["messages"]),
        (&json!("copy"), &json!(1))
    );
    let new = forked["session"].as_str().unwrap();
    let again = "fake:plain text=the+right+way";
    assert_eq!(run(&["--session", new, again]), "the right way\n");

    let calls = scene.provider.calls_for(again);
    let [call] = &calls[..] else {
        panic!("asked once: {calls:#?}")
    };
    let said = |role: &str, text: &str| (role.to_owned(), text.to_owned());
    assert_eq!(
        asked(call),
        [
            said("system", "…"),
            said("user", "fake:plain text=it+is+a+parser"),
            said("assistant", "it is a parser"),
            said("user", again),
        ]
    );
    let shown = object_of(&scene.home, &["show", new, "--json"]);
    assert_eq!(
        shown["fork"],
        json!({
            "from": id,
            "at": at.parse::<u64>().unwrap(),
            "by": "copy",
            "refused": null,
            "added_to": null,
        })
    );
    let own = |session: &str| {
        let mut events = log(&scene, session);
        events.retain(|event| event["stream"] == format!("session/{session}"));
        events
    };
    let types: Vec<Value> = own(new).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(
        types[..6],
        [
            "SessionOpened",
            "SessionForked",
            "MessageQueued",
            "AgentSessionRequested",
            "AgentSessionForked",
            "DeliveryStarted",
        ]
    );
    // The old one stays as it was.
    let of_old = old
        .iter()
        .filter(|event| event["stream"] == format!("session/{id}"));
    assert_eq!(own(id), of_old.cloned().collect::<Vec<_>>());
    let decided = finish(&scene.home, &["verify", "--decisions"]).printed();
    assert!(decided.contains("decided as today"), "{decided}");
    let wire = finish(&scene.home, &["replay", new, "--wire"]).printed();
    assert!(wire.starts_with("read as then"), "{wire}");
    verified(&scene);
}

#[test]
fn what_the_agent_has_forgotten_is_told_to_it() {
    let scene = Scene::new();
    let run = |args: &[&str]| {
        let run = [&["run"], args].concat();
        finish(&scene.home, &run).printed()
    };
    let first = "what is it?";
    let answer = run(&[first]);
    let forked = object_of(&scene.home, &["fork", "latest", "--json"]);
    let new = forked["session"].as_str().unwrap();
    fs::remove_dir_all(scene.home.path("data/opencode")).unwrap();
    let again = "fake:plain text=the+right+way";
    run(&["--session", new, again]);

    let shown = object_of(&scene.home, &["show", new, "--json"]);
    assert_eq!(shown["fork"]["by"], "text");
    assert_eq!(shown["messages"][0]["text"], again);
    let calls = scene.provider.calls();
    let asked = asked(calls.last().unwrap());
    let (role, text) = asked.last().unwrap();
    let said = format!("<user>\n{first}\n</user>\n<assistant>\n{answer}</assistant>\n");
    assert_eq!((role.as_str(), asked.len()), ("user", 2));
    assert!(text.contains(&said) && text.ends_with(again), "{text}");
    verified(&scene);
}
