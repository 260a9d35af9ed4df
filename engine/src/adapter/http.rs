//! How requests travel: what an adapter asks of HTTP, and no more.
//!
//! One seam below the protocol, so that a test can put a network of its own under the adapter that is really
//! used. [`Network`] is what everybody else uses.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode, Url};

use super::Secret;

/// How long making a connection may take: servers are on this machine, or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next call. Less than servers keep idle ones, so that a call
/// does not meet one that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A request that is ready to be sent.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what.
    pub url: Url,
    /// What is said beside it, but for who asks.
    pub headers: HeaderMap,
    /// Who asks: a user's name and password.
    pub user: Option<(&'static str, Secret)>,
    /// What goes with it.
    pub body: Option<Bytes>,
    /// Whether it goes over a connection of its own, which nobody uses before or after it.
    pub alone: bool,
}

/// The head of an answer, and what is still to come.
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. An item that is an error says why it broke off, and is the last.
    pub body: Body,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Response");
        shown.field("status", &self.status).finish_non_exhaustive()
    }
}

/// The body of an answer as it comes.
pub type Body = BoxStream<'static, Result<Bytes, String>>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// Whether it is certain that the request never left.
    pub never_sent: bool,
    /// What went wrong, for a person.
    pub reason: String,
}

/// What carries requests. It has no limit in time: whoever asks has.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// Where none came.
    async fn send(&self, request: Request) -> Result<Response, NoAnswer>;
}

/// The network that this computer has.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Client,
    /// Keeps no connection.
    alone: Client,
}

impl Network {
    /// It holds idle connections and nothing else.
    ///
    /// # Panics
    ///
    /// Where no HTTP client can be built at all, which takes a broken system.
    #[must_use]
    pub fn new() -> Self {
        let client = || {
            Client::builder()
                // Passwords must not travel through a proxy that the environment names.
                .no_proxy()
                // A redirect is no answer of such a server.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .build()
                .expect("a client without TLS or proxies needs nothing from the system")
        };
        Self {
            shared: build(client().pool_idle_timeout(IDLE_TIMEOUT)),
            alone: build(client().pool_max_idle_per_host(0)),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for Network {
    async fn send(&self, request: Request) -> Result<Response, NoAnswer> {
        let client = if request.alone {
            &self.alone
        } else {
            &self.shared
        };
        let mut sent = client
            .request(request.method, request.url)
            .headers(request.headers);
        if let Some((user, password)) = &request.user {
            sent = sent.basic_auth(user, Some(password.reveal()));
        }
        if let Some(body) = request.body {
            sent = sent.body(body);
        }
        let mut response = sent.send().await.map_err(|error| NoAnswer {
            never_sent: error.is_connect() || error.is_builder(),
            reason: cause(&error),
        })?;
        Ok(Response {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: response
                .bytes_stream()
                .map(|chunk| chunk.map_err(|error| cause(&error)))
                .boxed(),
        })
    }
}

/// What is at the bottom of an error; what is above it repeats the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    match cause {
        Some(cause) => cause.to_string(),
        None if error.is_timeout() => "timed out".into(),
        None => "the request could not be made".into(),
    }
}
