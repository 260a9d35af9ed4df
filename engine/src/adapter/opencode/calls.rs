//! OpenCode's HTTP calls, one at a time, each bounded in time and size.
//!
//! The kinds of [`CallError`] are decided here. A refused connection is the one proof that nothing was
//! sent; an answer of the 500 kind proves nothing, since 1.18.33 was seen to keep a message and answer
//! 500. Reasons name the method and the path, never the address or a secret.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use recount_store::PermissionAnswer;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::capabilities::Description;
use super::identity;
use super::wire::{HealthInfo, SessionInfo, bounded};
use crate::adapter::http::{self, NoAnswer, Response, Transport};
use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Health, SessionSpec,
};
use crate::policy::CallPolicy;

/// How much of an error's body is read, in bytes, to find its message.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// How much longer a copy of a session may take for each message in it. 1.18.33 writes and tells each part of each message
/// one by one: seen were 10 to 20 ms for a message of one part on a busy machine. It answers other calls meanwhile.
const COPY_TIME_PER_MESSAGE: Duration = Duration::from_millis(100);

/// A header that says where the page before this one is.
const NEXT_CURSOR: &str = "x-next-cursor";

#[derive(Debug, Clone)]
pub(super) struct Calls {
    transport: Arc<dyn Transport>,
}

/// An answer, and what was asked, for reasons.
pub(super) struct Reply {
    asked: String,
    response: Response,
    policy: CallPolicy,
}

impl Calls {
    pub(super) fn over(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    pub(super) async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        let within = endpoint.policy.probe_timeout;
        let probe = async {
            let mut request = Request::get(endpoint, &["global", "health"], &[])?;
            // A server that was stopped and continued, or that starts, leaves requests on old connections
            // unanswered, and a probe is to tell of the server and not of a connection.
            request.alone = true;
            let reply = request.send(self, within).await?;
            let asked = reply.asked.clone();
            if reply.status() == StatusCode::NOT_FOUND {
                return Err(CallError::Unsupported {
                    reason: format!("{asked}: no OpenCode server answers there (404)"),
                });
            }
            let health: HealthInfo = reply.accept().await?.json().await?;
            if health.healthy {
                Ok(Health {
                    version: health.version,
                })
            } else {
                Err(CallError::RefusedForNow {
                    retry_after: None,
                    reason: format!("{asked}: the server says that it is not healthy"),
                })
            }
        };
        tokio::time::timeout(within, probe)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::Unknown {
                    reason: format!("GET /global/health: no answer within {within:?}"),
                })
            })
    }

    /// The first such call takes 1.18.33 two seconds of its only thread, the next ones a few milliseconds.
    pub(super) async fn capabilities(&self, endpoint: &Endpoint) -> Result<Vec<String>, CallError> {
        let request = Request::get(endpoint, &["doc"], &[])?;
        let reply = request
            .send(self, endpoint.policy.capabilities_timeout)
            .await?;
        let description: Description = reply.accept().await?.json().await?;
        Ok(description.capabilities())
    }

    /// The stream of all events; its first bytes are not waited for.
    pub(super) async fn stream(&self, endpoint: &Endpoint) -> Result<Response, CallError> {
        let mut request = Request::get(endpoint, &["global", "event"], &[])?;
        request.accept = "text/event-stream";
        // A connection of its own, since it never becomes free again.
        request.alone = true;
        Ok(self.call(request).await?.accept().await?.response)
    }

    pub(super) async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError> {
        let request = Request::post(
            endpoint,
            &["session"],
            &[("directory", &spec.directory)],
            json!({"title": spec.title}),
        )?;
        let session: SessionInfo = self.call(request).await?.accept().await?.json().await?;
        Ok(session.id)
    }

    pub(super) async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        let query = [
            ("directory", spec.directory.as_str()),
            // The list is cut at 100 sessions; titles are looked for before that.
            ("search", &spec.title),
        ];
        let request = Request::get(endpoint, &["session"], &query)?;
        let sessions: Vec<SessionInfo> = self.call(request).await?.accept().await?.json().await?;
        Ok(sessions
            .into_iter()
            .find(|session| session.title == spec.title)
            .map(|session| session.id))
    }

    /// Copies what stands in a session before the message `before`, or everything. So does 1.18.33 with a message that
    /// it does not hold. There are to be so many messages in it.
    pub(super) async fn copy_session(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        before: Option<&str>,
        messages: u32,
    ) -> Result<String, CallError> {
        let path = ["session", &session.id, "fork"];
        let query = [("directory", session.directory.as_str())];
        let body = before.map_or(json!({}), |before| json!({"messageID": before}));
        let longer = COPY_TIME_PER_MESSAGE * messages;
        let within = endpoint.policy.timeout.saturating_add(longer);
        let request = Request::post(endpoint, &path, &query, body)?;
        let reply = request.send(self, within).await?;
        if reply.says_missing() {
            return Err(reply.missing_session_or_call().await);
        }
        let copy: SessionInfo = reply.accept().await?.json().await?;
        Ok(copy.id)
    }

    pub(super) async fn rename_session(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        title: &str,
    ) -> Result<(), CallError> {
        let path = ["session", session.id.as_str()];
        let query = [("directory", session.directory.as_str())];
        let request = Request::patch(endpoint, &path, &query, json!({"title": title}))?;
        let reply = self.call(request).await?.accept().await?;
        reply.finish().await;
        Ok(())
    }

    pub(super) async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        let mut body = prompt(delivery)?;
        body["noReply"] = Value::Bool(true);
        self.prompt(endpoint, delivery, "message", body).await
    }

    pub(super) async fn start_turn(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        let body = prompt(delivery)?;
        self.prompt(endpoint, delivery, "prompt_async", body).await
    }

    async fn prompt(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        call: &str,
        body: Value,
    ) -> Result<(), CallError> {
        let AgentSession { id, directory } = &delivery.session;
        let path = ["session", id, call];
        let request = Request::post(endpoint, &path, &[("directory", directory)], body)?;
        let reply = self.call(request).await?.accept().await?;
        reply.finish().await;
        Ok(())
    }

    pub(super) async fn abort(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
    ) -> Result<(), CallError> {
        let path = ["session", &session.id, "abort"];
        let query = [("directory", session.directory.as_str())];
        let request = Request::post(endpoint, &path, &query, json!({}))?;
        let reply = self.call(request).await?.accept().await?;
        reply.finish().await;
        Ok(())
    }

    pub(super) async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        let answer = match answer {
            PermissionAnswer::Once => "once",
            PermissionAnswer::Always => "always",
            PermissionAnswer::Reject => "reject",
        };
        let path = ["permission", permission, "reply"];
        let body = json!({"reply": answer});
        self.answer(endpoint, session, &path, body).await
    }

    pub(super) async fn answer_question(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        question: &str,
        answers: Option<&[Vec<String>]>,
    ) -> Result<AnswerOutcome, CallError> {
        let (call, body) = match answers {
            Some(answers) => ("reply", json!({"answers": answers})),
            None => ("reject", json!({})),
        };
        let path = ["question", question, call];
        self.answer(endpoint, session, &path, body).await
    }

    async fn answer(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        path: &[&str],
        body: Value,
    ) -> Result<AnswerOutcome, CallError> {
        // Without the directory the server looks in another place and answers 404.
        let query = [("directory", session.directory.as_str())];
        let request = Request::post(endpoint, path, &query, body)?;
        let reply = self.call(request).await?;
        if reply.says_missing() {
            return Ok(AnswerOutcome::Gone);
        }
        let reply = reply.accept().await?;
        reply.finish().await;
        Ok(AnswerOutcome::Taken)
    }

    /// Gets something; what becomes of a status is the caller's.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Reply, CallError> {
        self.call(Request::get(endpoint, path, query)?).await
    }

    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let within = request.policy.timeout;
        request.send(self, within).await
    }
}

/// The body that keeps a message, and that starts work on it. Message and part are written over where
/// they exist; without the part's id its text would be added again.
fn prompt(delivery: &Delivery) -> Result<Value, CallError> {
    let mut body = json!({
        "messageID": delivery.agent_message,
        "parts": [{
            "type": "text",
            "id": identity::part(&delivery.agent_message),
            "text": delivery.text,
        }],
    });
    if let Some(model) = &delivery.model {
        let Some((provider, model)) = model.split_once('/') else {
            return Err(CallError::RefusedForGood {
                reason: format!(
                    "the model {:?} is not written as PROVIDER/MODEL",
                    bounded(model.clone())
                ),
            });
        };
        body["model"] = json!({"providerID": provider, "modelID": model});
    }
    Ok(body)
}

/// A request that is ready to be sent.
struct Request {
    asked: String,
    method: Method,
    url: Url,
    password: Option<crate::adapter::Secret>,
    accept: &'static str,
    body: Option<Value>,
    alone: bool,
    policy: CallPolicy,
}

impl Request {
    fn get(endpoint: &Endpoint, path: &[&str], query: &[(&str, &str)]) -> Result<Self, CallError> {
        let asked = format!("GET /{}", path.join("/"));
        let unusable = || CallError::NeverSent {
            reason: format!("{asked}: the server's address is no http:// address"),
        };
        let mut url = Url::parse(&endpoint.url).map_err(|_| unusable())?;
        if url.scheme() != "http" {
            return Err(unusable());
        }
        // Segments are escaped, whatever an id holds.
        url.path_segments_mut()
            .map_err(|()| unusable())?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(Self {
            asked,
            method: Method::GET,
            url,
            password: endpoint.password.clone(),
            accept: "application/json",
            body: None,
            alone: false,
            policy: endpoint.policy,
        })
    }

    fn post(
        endpoint: &Endpoint,
        path: &[&str],
        query: &[(&str, &str)],
        body: Value,
    ) -> Result<Self, CallError> {
        Self::with_body(Method::POST, endpoint, path, query, body)
    }

    fn patch(
        endpoint: &Endpoint,
        path: &[&str],
        query: &[(&str, &str)],
        body: Value,
    ) -> Result<Self, CallError> {
        Self::with_body(Method::PATCH, endpoint, path, query, body)
    }

    fn with_body(
        method: Method,
        endpoint: &Endpoint,
        path: &[&str],
        query: &[(&str, &str)],
        body: Value,
    ) -> Result<Self, CallError> {
        Ok(Self {
            asked: format!("{method} /{}", path.join("/")),
            method,
            body: Some(body),
            ..Self::get(endpoint, path, query)?
        })
    }

    /// Sends it and waits for the head of the answer.
    async fn send(self, calls: &Calls, timeout: Duration) -> Result<Reply, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        let body = self.body.map(|body| Bytes::from(body.to_string()));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = http::Request {
            method: self.method,
            url: self.url,
            headers,
            user: self.password.map(|password| (super::USERNAME, password)),
            body,
            alone: self.alone,
        };
        let (asked, policy) = (self.asked, self.policy);
        match tokio::time::timeout(timeout, calls.transport.send(request)).await {
            Ok(Ok(response)) => {
                let reply = Reply {
                    asked,
                    response,
                    policy,
                };
                reply.expect_type(self.accept)?;
                Ok(reply)
            }
            Ok(Err(NoAnswer { never_sent, reason })) => {
                let reason = format!("{asked}: {reason}");
                Err(if never_sent {
                    CallError::NeverSent { reason }
                } else {
                    CallError::Unknown { reason }
                })
            }
            Err(_) => Err(CallError::Unknown {
                reason: format!("{asked}: no answer within {timeout:?}"),
            }),
        }
    }
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status
    }

    /// Where the page before this one is.
    pub(super) fn next_cursor(&self) -> Option<String> {
        let cursor = self.response.headers.get(NEXT_CURSOR)?.to_str().ok()?;
        Some(cursor.to_owned())
    }

    /// The answer, where it is a success; else what it says.
    pub(super) async fn accept(self) -> Result<Self, CallError> {
        let status = self.status();
        if status.is_success() {
            return Ok(self);
        }
        let asked = self.asked.clone();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(CallError::RefusedForGood {
                reason: format!(
                    "{asked}: the server wants another password than it was given (HTTP {}): \
                     OPENCODE_SERVER_PASSWORD is missing or wrong",
                    status.as_u16()
                ),
            });
        }
        let retry_after = retry_after(&self.response.headers);
        // Under `/session/ID` nothing but the session itself can be missing, as the calls here are made.
        let about_session = self.asked.contains(" /session/ses");
        let said = message(&self.error().await);
        let reason = format!("{asked}: HTTP {}{said}", status.as_u16());
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                CallError::RefusedForNow {
                    retry_after,
                    reason,
                }
            }
            StatusCode::NOT_FOUND if about_session => CallError::NoSuchSession { reason },
            _ if status.is_client_error() => CallError::RefusedForGood { reason },
            _ if status.is_server_error() => CallError::Unknown { reason },
            _ => CallError::Unsupported { reason },
        })
    }

    /// The JSON of a success.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (asked, body) = self.body().await?;
        parse(&asked, &body)
    }

    /// The bytes of a success, with what was asked.
    pub(super) async fn body(mut self) -> Result<(String, Vec<u8>), CallError> {
        let mut body = Vec::new();
        loop {
            let lost = |why: String| CallError::Unknown {
                reason: format!("{}: the answer broke off: {why}", self.asked),
            };
            let next = self.response.body.next();
            let chunk = match tokio::time::timeout(self.policy.timeout, next).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(why))) => return Err(lost(why)),
                Ok(None) => return Ok((self.asked, body)),
                Err(_) => return Err(lost("it stopped in the middle".into())),
            };
            if body.len() + chunk.len() > self.policy.answer_bytes_max {
                return Err(CallError::Unknown {
                    reason: format!(
                        "{}: an answer of more than {} bytes",
                        self.asked, self.policy.answer_bytes_max
                    ),
                });
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Whether the server says that it does not hold what was asked for.
    pub(super) fn says_missing(&self) -> bool {
        self.status() == StatusCode::NOT_FOUND
    }

    /// Whether such a server may have answered, by the type of the answer and whatever its status: a page of HTML
    /// says nothing of a session or a message, a 404 least of all. Looked at before anything else, so that no call
    /// takes one for an answer.
    fn expect_type(&self, wanted: &str) -> Result<(), CallError> {
        const JSON: &str = "application/json";
        let header = self.response.headers.get(CONTENT_TYPE);
        let found = header.and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = found
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        let status = self.status();
        let fits = match essence.as_str() {
            // Trouble may be without words, or in plain ones. What is refused for good, or is not there, has to be
            // said in JSON: a gateway that has lost its way says such things too.
            "" | "text/plain" => {
                status.is_server_error()
                    || matches!(
                        status,
                        StatusCode::NO_CONTENT
                            | StatusCode::UNAUTHORIZED
                            | StatusCode::FORBIDDEN
                            | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            JSON if !status.is_success() => true,
            found => found == wanted,
        };
        if fits {
            return Ok(());
        }
        Err(CallError::Unsupported {
            reason: format!(
                "{}: no OpenCode server answers there: {} where {wanted} was expected",
                self.asked,
                if essence.is_empty() {
                    "an answer without a type"
                } else {
                    &essence
                }
            ),
        })
    }

    /// Reads a little more, so that the connection can be used again; what it says is of no interest.
    async fn finish(mut self) {
        let read = async { while let Some(Ok(_)) = self.response.body.next().await {} };
        let _ = tokio::time::timeout(self.policy.probe_timeout, read).await;
    }

    /// What a 404 says of a call that an older server may not know: such a server answers so to any path that it has
    /// nothing at, and one that knows the call names the error.
    async fn missing_session_or_call(self) -> CallError {
        let asked = self.asked.clone();
        let error = self.error().await;
        let reason = format!("{asked}: HTTP 404{}", message(&error));
        if error["name"] == "NotFoundError" {
            CallError::NoSuchSession { reason }
        } else {
            CallError::Unsupported { reason }
        }
    }

    /// The body of an error; `null` where it is no JSON, or does not come.
    async fn error(mut self) -> Value {
        let mut body = Vec::new();
        let read = async {
            while let Some(Ok(chunk)) = self.response.body.next().await {
                body.extend_from_slice(&chunk);
                if body.len() > ERROR_BYTES_MAX {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(self.policy.probe_timeout, read).await;
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

/// The message of an error's body, to be put behind its status.
fn message(error: &Value) -> String {
    let message = error["data"]["message"].as_str();
    message
        .or(error["message"].as_str())
        .map_or_else(String::new, |message| {
            format!(": {}", bounded(message.to_owned()))
        })
}

/// Reads a success's JSON.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(
    asked: &str,
    body: &'a [u8],
) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| CallError::Unsupported {
        reason: format!("{asked}: the answer cannot be read: {error}"),
    })
}

/// `Retry-After` in seconds; the form with a date is not used by such servers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::stream;

    use super::*;
    use crate::adapter::Origin;
    use crate::adapter::opencode::{fork, look};

    /// Answers every request with this.
    #[derive(Debug)]
    struct Always {
        status: u16,
        kind: Option<&'static str>,
        body: &'static str,
    }

    #[async_trait]
    impl Transport for Always {
        async fn send(&self, _: http::Request) -> Result<Response, NoAnswer> {
            let mut headers = HeaderMap::new();
            if let Some(kind) = self.kind {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            let body = stream::iter([Ok(Bytes::from_static(self.body.as_bytes()))]);
            Ok(Response {
                status: StatusCode::from_u16(self.status).expect("a status"),
                headers,
                body: body.boxed(),
            })
        }
    }

    fn always(status: u16, kind: Option<&'static str>, body: &'static str) -> Calls {
        Calls::over(Arc::new(Always { status, kind, body }))
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            url: "http://127.0.0.1:1".to_owned(),
            password: None,
            policy: CallPolicy::default(),
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            session: AgentSession {
                id: "ses_1".to_owned(),
                directory: "/srv".to_owned(),
            },
            agent_message: "msg_1".to_owned(),
            text: "hi".to_owned(),
            model: None,
        }
    }

    /// What went wrong with each call there is.
    async fn failures(calls: &Calls) -> Vec<(&'static str, CallError)> {
        let (endpoint, delivery) = (endpoint(), delivery());
        let session = &delivery.session;
        let spec = SessionSpec {
            directory: "/srv".to_owned(),
            title: "t".to_owned(),
        };
        let once = PermissionAnswer::Once;
        let origin = Origin {
            agent_session: session.id.clone(),
            through: delivery.agent_message.clone(),
        };
        let failed = [
            ("health", calls.health(&endpoint).await.err()),
            ("capabilities", calls.capabilities(&endpoint).await.err()),
            ("stream", calls.stream(&endpoint).await.err()),
            ("create", calls.create_session(&endpoint, &spec).await.err()),
            ("find", calls.find_session(&endpoint, &spec).await.err()),
            (
                "fork",
                fork::fork_session(calls, &endpoint, &spec, &origin)
                    .await
                    .err(),
            ),
            (
                "copy",
                calls.copy_session(&endpoint, session, None, 1).await.err(),
            ),
            (
                "rename",
                calls.rename_session(&endpoint, session, "t").await.err(),
            ),
            (
                "store",
                calls.store_message(&endpoint, &delivery).await.err(),
            ),
            ("start", calls.start_turn(&endpoint, &delivery).await.err()),
            ("abort", calls.abort(&endpoint, session).await.err()),
            (
                "answer",
                calls
                    .answer_permission(&endpoint, session, "per_1", once)
                    .await
                    .err(),
            ),
            (
                "look",
                look::look_up(calls, &endpoint, session, "msg_1")
                    .await
                    .err(),
            ),
            (
                "stored",
                look::stored(calls, &endpoint, session, "msg_1").await.err(),
            ),
        ];
        let failed = failed.into_iter();
        failed
            .filter_map(|(call, error)| Some((call, error?)))
            .collect()
    }

    #[tokio::test]
    async fn a_page_of_html_is_no_answer_whatever_its_status() {
        for status in [200, 201, 301, 400, 401, 404, 429, 500, 502, 503] {
            let calls = always(status, Some("text/html; charset=utf-8"), "<!doctype html>");
            let failures = failures(&calls).await;
            assert_eq!(failures.len(), 14, "{status}: {failures:?}");
            for (call, error) in failures {
                let unsupported = matches!(&error, CallError::Unsupported { reason }
                    if reason.contains("no OpenCode server answers there: text/html where "));
                assert!(unsupported, "{call} met {status}: {error:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_server_does_not_hold_or_take_only_the_server_itself_can_say() {
        for (status, kind) in [(404, None), (404, Some("text/plain")), (400, None)] {
            let failures = failures(&always(status, kind, "Not Found")).await;
            assert_eq!(failures.len(), 14, "{failures:?}");
            for (call, error) in failures {
                let unsupported = matches!(error, CallError::Unsupported { .. });
                assert!(unsupported, "{call} met {status} {kind:?}: {error:?}");
            }
        }
        let json = always(404, Some("application/json"), "{}");
        let delivery = delivery();
        let stored = look::stored(&json, &endpoint(), &delivery.session, "msg_1").await;
        assert_eq!(stored, Ok(false));
        let lost = json.store_message(&endpoint(), &delivery).await;
        assert!(
            matches!(lost, Err(CallError::NoSuchSession { .. })),
            "{lost:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_cannot_copy_a_session_is_told_from_one_that_has_no_such_session() {
        let copy = async |body| {
            let calls = always(404, Some("application/json"), body);
            let session = delivery().session;
            calls.copy_session(&endpoint(), &session, None, 1).await
        };
        let said = r#"{"name":"NotFoundError","data":{"message":"Session not found: ses_1"}}"#;
        assert_eq!(
            copy(said).await,
            Err(CallError::NoSuchSession {
                reason: "POST /session/ses_1/fork: HTTP 404: Session not found: ses_1".to_owned(),
            })
        );
        for said in ["{}", r#"{"name":"NoRouteError"}"#, ""] {
            assert_eq!(
                copy(said).await,
                Err(CallError::Unsupported {
                    reason: "POST /session/ses_1/fork: HTTP 404".to_owned(),
                })
            );
        }
    }

    /// Never answers.
    #[derive(Debug)]
    struct Never;

    #[async_trait]
    impl Transport for Never {
        async fn send(&self, _: http::Request) -> Result<Response, NoAnswer> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_copy_may_take_longer_for_each_message_in_it_and_not_for_ever() {
        let (session, mut endpoint) = (delivery().session, endpoint());
        endpoint.policy.timeout = Duration::from_millis(3);
        let calls = Calls::over(Arc::new(Never));
        let copy = calls.copy_session(&endpoint, &session, None, 2).await;
        let reason = "POST /session/ses_1/fork: no answer within 203ms".to_owned();
        assert_eq!(copy, Err(CallError::Unknown { reason }));
    }

    #[tokio::test]
    async fn a_refusal_may_be_without_words_and_means_what_its_status_says() {
        for kind in [None, Some("text/plain"), Some("application/json")] {
            let store = async |status| {
                let calls = always(status, kind, "");
                calls.store_message(&endpoint(), &delivery()).await
            };
            let failed = store(500).await;
            assert!(
                matches!(failed, Err(CallError::Unknown { .. })),
                "{failed:?}"
            );
            let later = store(503).await;
            assert!(
                matches!(later, Err(CallError::RefusedForNow { .. })),
                "{later:?}"
            );
            let never = store(401).await;
            assert!(
                matches!(never, Err(CallError::RefusedForGood { .. })),
                "{never:?}"
            );
        }
        let done = always(204, None, "");
        assert_eq!(done.start_turn(&endpoint(), &delivery()).await, Ok(()));
    }
}
