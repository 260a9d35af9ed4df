//! A small client, to see what the real server holds and to ask it without Recount.

use std::collections::BTreeMap;

use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::opencode::{Home, Server};

/// A server as seen by a test, for one project's folder.
#[derive(Debug)]
pub struct Agent {
    client: Client,
    url: String,
    directory: String,
    password: Option<String>,
}

impl Agent {
    /// Looks at a server that was started in a home.
    pub fn new(server: &Server, home: &Home) -> Self {
        Self::at(&server.url(), server.password(), home)
    }

    /// Looks at a server that somebody else started.
    pub fn at(url: &str, password: Option<&str>, home: &Home) -> Self {
        Self {
            // A connection kept from before a restart would fail the first request after it.
            client: Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            url: url.to_owned(),
            directory: home.project_dir().into_os_string().into_string().unwrap(),
            password: password.map(str::to_owned),
        }
    }

    /// Creates a session with a title, so that none is asked of the model, and returns its id.
    pub async fn create_session(&self, title: &str) -> String {
        let request = self
            .request(Method::POST, "/session")
            .json(&json!({ "title": title }));
        let session: Session = fetch(request).await;
        session.id
    }

    /// Sends a prompt and waits for the end of the run.
    pub async fn prompt(&self, session: &str, text: &str) {
        let body = json!({ "parts": [{ "type": "text", "text": text }] });
        let path = format!("/session/{session}/message");
        let _: Value = fetch(self.request(Method::POST, &path).json(&body)).await;
    }

    /// The sessions of the project.
    pub async fn sessions(&self) -> Vec<Session> {
        fetch(self.request(Method::GET, "/session")).await
    }

    /// The messages of a session, oldest first.
    pub async fn messages(&self, session: &str) -> Vec<Message> {
        let stored = self.history(session).await;
        let stored: Vec<Stored> = serde_json::from_value(stored).unwrap();
        stored.into_iter().map(Message::from).collect()
    }

    /// The same, as the server shows them.
    pub async fn history(&self, session: &str) -> Value {
        let path = format!("/session/{session}/message");
        fetch(self.request(Method::GET, &path)).await
    }

    /// What the sessions of this folder do, by session: `busy` or `retry`. Those at rest are absent.
    pub async fn statuses(&self) -> BTreeMap<String, String> {
        #[derive(Deserialize)]
        struct Status {
            r#type: String,
        }
        let statuses: BTreeMap<String, Status> =
            fetch(self.request(Method::GET, "/session/status")).await;
        statuses
            .into_iter()
            .map(|(session, status)| (session, status.r#type))
            .collect()
    }

    /// The ids of the permissions that wait for an answer in this folder.
    pub async fn permissions(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Permission {
            id: String,
        }
        let asked: Vec<Permission> = fetch(self.request(Method::GET, "/permission")).await;
        asked.into_iter().map(|permission| permission.id).collect()
    }

    /// Answers a permission: `once`, `always` or `reject`.
    pub async fn answer_permission(&self, id: &str, reply: &str) {
        let path = format!("/permission/{id}/reply");
        let body = json!({ "reply": reply });
        let _: Value = fetch(self.request(Method::POST, &path).json(&body)).await;
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .header("x-opencode-directory", &self.directory);
        match &self.password {
            Some(password) => request.basic_auth("opencode", Some(password)),
            None => request,
        }
    }
}

async fn fetch<T: for<'a> Deserialize<'a>>(request: RequestBuilder) -> T {
    request
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap()
}

/// A session that the server knows.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The folder that it works in.
    pub directory: String,
    /// The session that it is a part of.
    #[serde(rename = "parentID")]
    pub parent: Option<String>,
}

/// A message that the server has stored.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// `user` or `assistant`.
    pub role: String,
    /// The message that this one answers.
    pub parent: Option<String>,
    /// Its parts of text, in order.
    pub texts: Vec<String>,
    /// Whether the answer has come to its end. A server that is killed as it keeps that it has leaves the word for how it
    /// ended, and goes by that.
    pub completed: bool,
    /// Why it ended.
    pub finish: Option<String>,
    /// The name of the error that it ended with.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    info: Info,
    parts: Vec<Value>,
}

#[derive(Deserialize)]
struct Info {
    id: String,
    role: String,
    #[serde(rename = "parentID")]
    parent: Option<String>,
    finish: Option<String>,
    #[serde(default)]
    time: Value,
    #[serde(default)]
    error: Value,
}

impl From<Stored> for Message {
    fn from(Stored { info, parts }: Stored) -> Self {
        let text = |part: &Value| match part["type"].as_str() {
            Some("text") => part["text"].as_str().map(str::to_owned),
            _ => None,
        };
        Self {
            id: info.id,
            role: info.role,
            parent: info.parent,
            texts: parts.iter().filter_map(text).collect(),
            completed: info.time["completed"].is_number() || info.finish.as_deref() == Some("stop"),
            finish: info.finish,
            error: info.error["name"].as_str().map(str::to_owned),
        }
    }
}
