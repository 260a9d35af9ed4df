//! The least that a client of an agent can do.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eventsource_stream::Eventsource as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use recount_engine::CallPolicy;
use recount_engine::adapter::{StreamItem, sse};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// A client that posts prompts and reads the stream. It records nothing, asks about nothing, and knows of
/// a frame no more than its kind, its session and its text.
pub struct BareClient {
    calls: Calls,
    frames: BoxStream<'static, String>,
    received: Arc<AtomicU64>,
}

/// What takes frames off the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parser {
    /// `eventsource-stream`, as it comes.
    Usual,
    /// The engine's, which cuts the bytes first.
    Engines,
}

/// What it makes its calls with.
#[derive(Debug, Clone)]
pub struct Calls {
    http: Client,
    url: String,
    messages: Arc<AtomicU64>,
}

/// What it understands of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A piece of a session's answer.
    Delta(String),
    /// A session's turn is over.
    Idle,
    /// Something else.
    Other,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize, Default)]
struct Properties {
    #[serde(default)]
    delta: String,
}

impl std::fmt::Debug for BareClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BareClient").field(&self.calls.url).finish()
    }
}

impl BareClient {
    /// Opens the stream of an agent's server.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn connect(url: &str, parser: Parser) -> Self {
        let calls = Calls {
            http: Client::builder()
                .no_proxy()
                .tcp_nodelay(true)
                .build()
                .expect("a client"),
            url: url.to_owned(),
            messages: Arc::default(),
        };
        let response = calls.http.get(format!("{url}/global/event")).send().await;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let bytes = response.expect("a stream").bytes_stream();
        let bytes = bytes.inspect(move |chunk| {
            let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            count.fetch_add(length, Ordering::Relaxed);
        });
        let frames = match parser {
            Parser::Usual => {
                let frames = bytes.eventsource();
                frames.map(|frame| frame.expect("a frame").data).boxed()
            }
            Parser::Engines => {
                let items = sse::frames(bytes, CallPolicy::default().frame_bytes_max);
                let frames = items.filter_map(async |item| match item.expect("a frame") {
                    StreamItem::Frame(frame) => Some(frame.data),
                    StreamItem::Alive => None,
                });
                frames.boxed()
            }
        };
        let mut client = Self {
            calls,
            frames,
            received,
        };
        assert_eq!(client.next().await, Heard::Other, "it says that it listens");
        client
    }

    /// What it makes calls with: cheap to clone, for tasks of their own.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// The bytes that came over the stream so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What comes next.
    ///
    /// # Panics
    ///
    /// If the stream ends.
    pub async fn next(&mut self) -> Heard {
        let data = self.frames.next().await.expect("it goes on");
        let frame: Frame<'_> = serde_json::from_str(&data).expect("an agent's frame");
        match &*frame.payload.kind {
            "message.part.delta" => Heard::Delta(frame.payload.properties.delta),
            "session.idle" => Heard::Idle,
            _ => Heard::Other,
        }
    }
}

impl Calls {
    /// Makes a session, and gives the agent's name for it.
    ///
    /// # Panics
    ///
    /// If the agent refuses.
    pub async fn create_session(&self, directory: &str) -> String {
        let path = format!("session?directory={directory}");
        let response = self.post(&path, &json!({"title": "a benchmark"})).await;
        let session: Value = response.json().await.expect("a session");
        session["id"].as_str().expect("its name").to_owned()
    }

    /// Has the agent keep a prompt, then work on it: the two calls that the engine makes, too.
    ///
    /// # Panics
    ///
    /// If the agent refuses.
    pub async fn prompt(&self, session: &str, text: &str) {
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        let mut body = json!({
            "messageID": format!("msg_{number:026}"),
            "parts": [{"type": "text", "id": format!("prt_{number:026}"), "text": text}],
            "noReply": true,
        });
        self.post(&format!("session/{session}/message"), &body)
            .await;
        body["noReply"] = json!(false);
        self.post(&format!("session/{session}/prompt_async"), &body)
            .await;
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.http.post(format!("{}/{path}", self.url)).json(body);
        let response = request.send().await.expect("an answer");
        response.error_for_status().expect("it takes it")
    }
}
