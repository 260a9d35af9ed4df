//! The server: OpenCode's calls on a loopback port, over what one [`Agent`] holds.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::agent::{Agent, Kept, Running};
use super::hub::{Stream, locked};
use super::store::{Message, Refused, Session, Store};
use super::{Fault, Shared, run};
use crate::adapter::{InProcessServer, Secret, http};
use crate::limits;
use crate::watched;

/// A scripted agent's server, running.
#[derive(Debug)]
pub struct ScriptedServer {
    address: SocketAddr,
    server: PortlessServer,
}

impl ScriptedServer {
    /// Listens on loopback; port 0 is any free one.
    pub(super) async fn start(
        shared: Arc<Shared>,
        directory: String,
        port: u16,
        password: Option<Secret>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (server, work, end) = PortlessServer::new(shared, directory, password);
        let running = server.clone();
        tokio::spawn(async move {
            serve(listener, running, work).await;
            end.send_replace(true);
        });
        Ok(Self { address, server })
    }
}

#[async_trait]
impl InProcessServer for ScriptedServer {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn exited(&self) {
        self.server.ended().await;
    }

    async fn stop(&self) {
        self.server.die();
        self.server.ended().await;
    }
}

impl Drop for ScriptedServer {
    /// A server that nobody holds any more ends, as a process would whose parent kills it.
    fn drop(&mut self) {
        self.server.die();
    }
}

/// A scripted agent's server without a port: requests are handed to it. For networks that are not this computer's.
#[derive(Debug, Clone)]
pub struct PortlessServer {
    agent: Arc<Agent>,
    /// The header that a call must bring.
    wanted: Option<HeaderValue>,
    ended: watched::Receiver<bool>,
}

/// What a server has to carry: it ends with it.
type Work = mpsc::UnboundedReceiver<BoxFuture<'static, ()>>;

impl PortlessServer {
    fn new(
        shared: Arc<Shared>,
        directory: String,
        password: Option<Secret>,
    ) -> (Self, Work, watched::Sender<bool>) {
        let (tasks, work) = mpsc::unbounded_channel();
        let agent = Arc::new(Agent::new(shared, directory, tasks));
        agent.shared.servers().push(Arc::downgrade(&agent));
        let wanted = password.map(|password| authorization(&password));
        let (end, ended) = watched::channel(false);
        let server = Self {
            agent,
            wanted,
            ended,
        };
        (server, work, end)
    }

    /// Begins one, which lives until it dies.
    pub(super) fn start(shared: Arc<Shared>, directory: String, password: Option<Secret>) -> Self {
        let (server, work, end) = Self::new(shared, directory, password);
        let agent = Arc::clone(&server.agent);
        tokio::spawn(async move {
            carry(&agent, work).await;
            end.send_replace(true);
        });
        server
    }

    /// Answers a request; `None` where the connection is dropped instead.
    pub async fn answer(&self, request: http::Request) -> Option<http::Response> {
        let mut asked = Request::new(Full::new(request.body.unwrap_or_default()));
        *asked.method_mut() = request.method;
        *asked.uri_mut() = request.url.as_str().parse().ok()?;
        *asked.headers_mut() = request.headers;
        if let Some((_, password)) = &request.user {
            let headers = asked.headers_mut();
            headers.insert(AUTHORIZATION, authorization(password));
        }
        let answer = answer(&self.agent, self.wanted.as_ref(), asked).await;
        let (head, body) = answer.ok()?.into_parts();
        let chunks = BodyExt::into_data_stream(body);
        Some(http::Response {
            status: head.status,
            headers: head.headers,
            body: chunks
                .map(|chunk| chunk.map_err(|never| match never {}))
                .boxed(),
        })
    }

    /// Dies as by SIGKILL: from here on it keeps nothing, says nothing and answers nothing.
    pub fn die(&self) {
        self.agent.die();
    }

    /// Resolves once it has died, by itself or not, and all that it did has ended.
    pub async fn ended(&self) {
        // An error means that the server's task is gone, which is an end as well.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Whether it has died, by itself or not.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.agent.is_dead()
    }
}

/// Carries the work of a server, and its heartbeat, until it is dead; then drops everything at once.
async fn carry(agent: &Agent, mut work: Work) {
    let mut tasks = JoinSet::new();
    let beat = agent.shared.heartbeat;
    let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + beat, beat);
    loop {
        tokio::select! {
            biased;
            () = agent.died.notified() => break,
            Some(task) = work.recv() => { tasks.spawn(task); }
            Some(_) = tasks.join_next() => {}
            _ = heartbeat.tick() => {
                let frame = agent.server_frame("server.heartbeat");
                agent.tell_bytes(&frame);
            }
        }
    }
    tasks.shutdown().await;
}

/// Takes connections until the server is dead, then drops them.
async fn serve(listener: TcpListener, server: PortlessServer, work: Work) {
    let agent = Arc::clone(&server.agent);
    let mut connections = JoinSet::new();
    let carried = carry(&agent, work);
    tokio::pin!(carried);
    loop {
        tokio::select! {
            biased;
            () = &mut carried => break,
            accepted = listener.accept() => {
                // A connection that failed while it was taken is the client's to repeat.
                let Ok((stream, _)) = accepted else { continue };
                agent.shared.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(stream, server.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, server: PortlessServer) {
    // Without it small frames wait for acknowledgements; not having it is no reason to fail.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { answer(&server.agent, server.wanted.as_ref(), request).await }
    });
    // How a connection ended is of no interest: the client sees it too.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The header that a call must bring: made by the same code that clients use.
fn authorization(password: &Secret) -> HeaderValue {
    reqwest::Client::new()
        .get("http://localhost")
        .basic_auth(crate::adapter::opencode::USERNAME, Some(password.reveal()))
        .build()
        .ok()
        .and_then(|request| request.headers().get(AUTHORIZATION).cloned())
        .unwrap_or_else(|| HeaderValue::from_static("Basic"))
}

/// The connection is dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped, as the script's fault says")]
struct Dropped;

/// A body: whole, or a stream of events.
enum Answer {
    Whole(Option<Bytes>),
    Events(Stream),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(stream) => Pin::new(stream)
                .poll_take(cx)
                .map(|bytes| Some(Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json(body: &Value) -> Response<Answer> {
    whole(StatusCode::OK, "application/json", body.to_string())
}

fn error(status: StatusCode, name: &str, message: &str) -> Response<Answer> {
    let body = json!({"name": name, "data": {"message": message}});
    whole(status, "application/json", body.to_string())
}

fn not_found(what: &str) -> Response<Answer> {
    error(
        StatusCode::NOT_FOUND,
        "NotFoundError",
        &format!("{what} not found"),
    )
}

async fn answer<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>>(
    agent: &Arc<Agent>,
    wanted: Option<&HeaderValue>,
    request: Request<B>,
) -> Result<Response<Answer>, Dropped> {
    let call = request.uri().path().rsplit('/').next().unwrap_or_default();
    let fault = agent.shared.fault(&format!("{} {call}", request.method()));
    match &fault {
        Some(Fault::Html) => {
            return Ok(whole(StatusCode::OK, "text/html", "<!doctype html>"));
        }
        Some(Fault::Refuse {
            status,
            retry_after,
        }) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::IM_A_TEAPOT);
            let mut response = error(status, "ScriptedError", "refused by the script");
            if let Some(seconds) = retry_after {
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            return Ok(response);
        }
        Some(Fault::Reset) => return Err(Dropped),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::LoseAnswer) | None => {}
    }
    if wanted.is_some() && request.headers().get(AUTHORIZATION) != wanted {
        let mut response = whole(StatusCode::UNAUTHORIZED, "text/plain", "");
        let realm = HeaderValue::from_static("Basic realm=\"Secure Area\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        return Ok(response);
    }
    let response = route(agent, request).await;
    if fault.is_some() || agent.is_dead() {
        return Err(Dropped);
    }
    Ok(response)
}

/// The URL of a request, whether it names its server or not.
fn url_of(uri: &hyper::Uri) -> Option<reqwest::Url> {
    let path = uri.path_and_query()?;
    reqwest::Url::parse(&format!("http://localhost{path}")).ok()
}

/// What a call asks, taken apart.
struct Call<'a> {
    agent: &'a Arc<Agent>,
    query: Vec<(String, String)>,
    body: Value,
}

async fn route<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>>(
    agent: &Arc<Agent>,
    request: Request<B>,
) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let Some(url) = url_of(&head.uri) else {
        return not_found("Path");
    };
    let limit = limits::MESSAGE_BYTES_MAX * 8;
    let Ok(body) = Limited::new(body, limit).collect().await else {
        return error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BadRequest",
            "The body is too long",
        );
    };
    let body = body.to_bytes();
    let body = if body.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_slice(&body)
    };
    let Ok(body) = body else {
        return error(StatusCode::BAD_REQUEST, "BadRequest", "The body is no JSON");
    };
    let call = Call {
        agent,
        query: url.query_pairs().into_owned().collect(),
        body,
    };
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    match (&head.method, &path[..]) {
        (&Method::GET, ["global", "health"]) => {
            json(&json!({"healthy": true, "version": super::VERSION}))
        }
        (&Method::GET, ["global", "event"]) => call.events(),
        (&Method::GET, ["doc"]) => json(&description(agent.shared.script.can_fork())),
        (&Method::GET, ["path"]) => {
            let home = "scripted";
            json(&json!({
                "home": home, "state": home, "config": home,
                "worktree": agent.directory, "directory": call.directory(),
            }))
        }
        (&Method::GET, ["session"]) => call.sessions(),
        (&Method::POST, ["session"]) => call.create(),
        (&Method::GET, ["session", "status"]) => call.statuses(),
        (&Method::GET, ["session", id]) => call.with(id, |session| json(&session.info())),
        (&Method::PATCH, ["session", id]) => call.rename(id),
        (&Method::POST, ["session", id, "fork"]) => call.fork(id),
        (&Method::GET, ["session", id, "children"]) => call.with(id, |_| json(&json!([]))),
        (&Method::GET, ["session", id, "message"]) => {
            call.with(id, |session| call.messages(session))
        }
        (&Method::GET, ["session", id, "message", message]) => {
            call.with(id, |session| match session.message(message) {
                Some(message) => json(&message.listed()),
                None => not_found("Message"),
            })
        }
        (&Method::POST, ["session", id, "message"]) => call.store(id),
        (&Method::POST, ["session", id, "prompt_async"]) => call.start(id),
        (&Method::POST, ["session", id, "abort"]) => {
            if let Some(running) = locked(&agent.running).get(*id) {
                running.abort.notify_one();
            }
            json(&json!(true))
        }
        (&Method::GET, [kind @ ("permission" | "question")]) => call.questions(kind),
        (&Method::POST, [kind @ ("permission" | "question"), id, "reply"]) => call.reply(kind, id),
        (&Method::POST, ["question", id, "reject"]) => call.reject(id),
        _ => not_found("Path"),
    }
}

/// The call that an agent may do without: see [`Script::without_fork`](super::Script::without_fork).
const FORK: &str = "/session/{sessionID}/fork";

/// The calls that a client may look for before it makes them.
const DESCRIBED: &[&str] = &[
    "/global/event",
    "/global/health",
    "/permission",
    "/permission/{requestID}/reply",
    "/question",
    "/question/{requestID}/reject",
    "/question/{requestID}/reply",
    "/session",
    "/session/status",
    "/session/{sessionID}",
    "/session/{sessionID}/abort",
    FORK,
    "/session/{sessionID}/message",
    "/session/{sessionID}/message/{messageID}",
    "/session/{sessionID}/prompt_async",
];

fn description(can_fork: bool) -> Value {
    let known = DESCRIBED.iter().filter(|path| can_fork || **path != FORK);
    let paths = known.map(|path| ((*path).to_owned(), json!({})));
    let paths: serde_json::Map<String, Value> = paths.collect();
    json!({"openapi": "3.1.0", "info": {"title": "scripted", "version": super::VERSION}, "paths": paths})
}

impl Call<'_> {
    fn query(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(known, _)| known == name)?;
        Some(&pair.1)
    }

    fn directory(&self) -> &str {
        self.query("directory").unwrap_or(&self.agent.directory)
    }

    fn store_of(&self) -> std::sync::MutexGuard<'_, Store> {
        locked(&self.agent.shared.store)
    }

    fn with(&self, id: &str, show: impl FnOnce(&Session) -> Response<Answer>) -> Response<Answer> {
        match self.store_of().session(id) {
            Some(session) => show(session),
            None => not_found("Session"),
        }
    }

    fn events(&self) -> Response<Answer> {
        let connected = self.agent.server_frame("server.connected");
        let mut response = Response::new(Answer::Events(self.agent.hub.open(&connected)));
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    fn sessions(&self) -> Response<Answer> {
        let search = self.query("search").unwrap_or_default();
        let store = self.store_of();
        let found = store.sessions().iter().rev().filter(|session| {
            session.title.contains(search) && session.directory == self.directory()
        });
        json(&found.take(100).map(Session::info).collect())
    }

    fn create(&self) -> Response<Answer> {
        let title = self.body["title"].as_str().unwrap_or("New session");
        let made = self.agent.keep_in(|store| {
            let session = store.create_session(title, self.directory(), self.agent.now());
            let told = vec![session.told("session.created")];
            Some((session.id.clone(), session.info(), told))
        });
        made.map_or_else(|| not_found("Server"), |info| json(&info))
    }

    /// Copies a session, before the message that is named or as a whole.
    fn fork(&self, session: &str) -> Response<Answer> {
        if !self.agent.shared.script.can_fork() {
            // The words of an older server, at any path that it does not know.
            return whole(StatusCode::NOT_FOUND, "text/plain", "404 Not Found");
        }
        let before = self.body["messageID"].as_str();
        let now = self.agent.now();
        let made = self.agent.keep_in(|store| {
            let copy = store.copy_session(session, before, self.directory(), now)?;
            let copied = copy.messages.iter().flat_map(|message| told(message, now));
            let events = std::iter::once(copy.told("session.created")).chain(copied);
            Some((copy.id.clone(), copy.info(), events.collect()))
        });
        made.map_or_else(|| not_found("Session"), |info| json(&info))
    }

    fn rename(&self, session: &str) -> Response<Answer> {
        let renamed = self.agent.keep(session, |session| {
            if let Some(title) = self.body["title"].as_str() {
                title.clone_into(&mut session.title);
            }
            (session.info(), vec![session.told("session.updated")])
        });
        renamed.map_or_else(|| not_found("Session"), |info| json(&info))
    }

    fn statuses(&self) -> Response<Answer> {
        let store = self.store_of();
        let running = locked(&self.agent.running);
        let statuses = running.iter().filter(|(id, _)| {
            let session = store.session(id);
            session.is_some_and(|session| session.directory == self.directory())
        });
        json(
            &statuses
                .map(|(id, r)| (id.clone(), r.status.clone()))
                .collect(),
        )
    }

    /// A page of messages, oldest first; `before` is the id of the first of the page after it.
    fn messages(&self, session: &Session) -> Response<Answer> {
        let messages = &session.messages;
        let end = self.query("before").map_or(Some(messages.len()), |before| {
            messages.iter().position(|message| message.id == before)
        });
        let Some(end) = end else {
            return error(StatusCode::BAD_REQUEST, "BadRequest", "Unknown cursor");
        };
        let limit = self.query("limit").and_then(|limit| limit.parse().ok());
        let begin = end.saturating_sub(limit.unwrap_or(usize::MAX));
        let page = messages[begin..end].iter().map(Message::listed).collect();
        let mut response = json(&page);
        if let Some(first) = messages.get(begin).filter(|_| begin > 0)
            && let Ok(cursor) = HeaderValue::from_str(&first.id)
        {
            response.headers_mut().insert("x-next-cursor", cursor);
        }
        response
    }

    /// Keeps a message; working on it is for `prompt_async`.
    fn store(&self, session: &str) -> Response<Answer> {
        if self.body["noReply"] != true {
            let said = "The scripted agent takes only noReply here";
            return error(StatusCode::BAD_REQUEST, "BadRequest", said);
        }
        match self.prompt(session, false) {
            Ok(message) => self.with(session, |session| {
                let kept = session.message(&message).map(Message::listed);
                json(&kept.unwrap_or_default())
            }),
            Err(response) => response,
        }
    }

    /// Keeps a message and works on it, where that is to be done.
    fn start(&self, session: &str) -> Response<Answer> {
        match self.prompt(session, true) {
            Ok(_) => {
                let mut response = Response::new(Answer::Whole(None));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Err(response) => response,
        }
    }

    #[expect(clippy::result_large_err, reason = "both sides become the response")]
    fn prompt(&self, session: &str, start: bool) -> Result<String, Response<Answer>> {
        let bad = |said: &str| error(StatusCode::BAD_REQUEST, "BadRequest", said);
        let id = self.body["messageID"].as_str();
        let id = id.filter(|id| id.starts_with("msg"));
        let id = id.ok_or_else(|| bad("Expected a string starting with \"msg\""))?;
        let parts = self.body["parts"].as_array().into_iter().flatten();
        let parts: Vec<_> = parts
            .map(|part| {
                let text = part["text"].as_str().unwrap_or_default().to_owned();
                (part["id"].as_str().map(str::to_owned), text)
            })
            .collect();
        if parts
            .iter()
            .any(|(id, _)| id.as_ref().is_some_and(|id| !id.starts_with("prt")))
        {
            return Err(bad("Expected a string starting with \"prt\""));
        }
        let kept = self.agent.keep_in(|store| {
            let number = store.session(session)?.number();
            let kept = store.keep(number, id, parts, self.agent.now());
            let found = store.session(session)?;
            let events = match &kept {
                Ok(()) => found
                    .message(id)
                    .map(|message| told(message, self.agent.now()))
                    .unwrap_or_default(),
                Err(Refused::Taken) => Vec::new(),
            };
            let idle = kept.is_ok() && start && self.work(found, id);
            Some((session.to_owned(), kept.map(|()| idle), events))
        });
        match kept {
            None => Err(not_found("Session")),
            // The real agent answers so; what it had written by then is not copied here.
            Some(Err(Refused::Taken)) => Err(error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UnknownError",
                "Unexpected server error",
            )),
            Some(Ok(idle)) => {
                if idle {
                    let said = json!({"sessionID": session});
                    self.agent.tell(self.directory(), "session.idle", &said);
                }
                Ok(id.to_owned())
            }
        }
    }

    /// Starts work where none goes on and there is some; gives whether there is none.
    ///
    /// The newest message is not run again once it is answered. An older one is run again, whatever
    /// became of it: so does the real agent.
    fn work(&self, session: &Session, id: &str) -> bool {
        let mut running = locked(&self.agent.running);
        if running.contains_key(&session.id) {
            return false;
        }
        let newest = session.newest().is_some_and(|newest| newest.id == id);
        if newest && session.answered(id) {
            return true;
        }
        let abort = Arc::new(Notify::new());
        let entry = Running {
            status: json!({"type": "busy"}),
            abort: Arc::clone(&abort),
        };
        running.insert(session.id.clone(), entry);
        let work = run::work(
            Arc::clone(self.agent),
            session.id.clone(),
            id.to_owned(),
            abort,
        );
        // A server that ends takes no more work.
        let _ = self.agent.tasks.send(Box::pin(work));
        false
    }

    fn questions(&self, kind: &str) -> Response<Answer> {
        let questions = locked(&self.agent.questions);
        let here = questions
            .iter()
            .filter(|q| q.kind == kind && q.directory == self.directory());
        json(&here.map(|question| question.shown.clone()).collect())
    }

    fn reply(&self, kind: &str, id: &str) -> Response<Answer> {
        self.settle(kind, id, "replied", self.body.clone())
    }

    fn reject(&self, id: &str) -> Response<Answer> {
        self.settle("question", id, "rejected", Value::Null)
    }

    /// Settles a question, once, and tells how.
    fn settle(&self, kind: &str, id: &str, how: &str, reply: Value) -> Response<Answer> {
        let question = {
            let mut questions = locked(&self.agent.questions);
            let at = questions
                .iter()
                .position(|q| q.kind == kind && q.id == id && q.directory == self.directory());
            at.map(|at| questions.remove(at))
        };
        let Some(question) = question else {
            let name = if kind == "permission" {
                "Permission"
            } else {
                "Question"
            };
            let said = json!({"_tag": format!("{name}NotFoundError"), "requestID": id,
                "message": format!("{name} request not found: {id}")});
            return whole(StatusCode::NOT_FOUND, "application/json", said.to_string());
        };
        let mut said = match &reply {
            Value::Object(_) => reply.clone(),
            _ => json!({}),
        };
        said["sessionID"] = json!(question.session);
        said["requestID"] = json!(id);
        self.agent
            .tell(&question.directory, &format!("{kind}.{how}"), &said);
        // Nobody waits any more where the turn was aborted meanwhile.
        let _ = question.reply.send(reply);
        json(&json!(true))
    }
}

/// What is told of a message that was kept.
fn told(message: &Message, now: u64) -> Vec<Kept> {
    let parts = message.parts.iter();
    let parts = parts.map(|part| message.part_updated(part, now));
    std::iter::once(message.updated()).chain(parts).collect()
}
