//! OpenCode: its HTTP calls, its stream, and what they mean.
//!
//! Facts marked "seen" were seen with OpenCode 1.18.33.
#![allow(clippy::doc_markdown, reason = "OpenCode is a name, not an item")]

#[cfg(test)]
pub(crate) mod captured;

mod calls;
mod capabilities;
mod fork;
mod history;
mod identity;
mod look;
mod translate;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use recount_store::{MessageId, PermissionAnswer, Timestamp};

use self::calls::Calls;
use super::http::{Network, Transport};
use super::{
    AgentAdapter, AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream,
    Health, Launch, LaunchSpec, Observation, Origin, Report, SessionSpec, StreamItem, Translated,
    sse,
};
use crate::limits;

/// The user that calls are made as; the server's own default, and what servers are started with.
pub(crate) const USERNAME: &str = "opencode";

/// The oldest version that is used. Older ones compare message ids as strings: seen with 1.0, 1.2 and
/// 1.14, they asked the model hundreds of times for one message, or never ran it.
const VERSION_MIN: (u64, u64) = (1, 18);

/// How long after `server.connected` the stream is taken as listening: the frame is sent on
/// `/global/event` before the server listens. Seen: events lost within 10 ms of it, none later.
const LISTENING_AFTER: Duration = Duration::from_millis(25);

/// OpenCode's servers, from 1.18 on.
#[derive(Debug, Clone)]
pub struct OpenCode {
    calls: Calls,
}

impl OpenCode {
    /// An adapter over this computer's network; it holds idle HTTP connections and nothing else.
    ///
    /// # Panics
    ///
    /// Where no HTTP client can be built at all, which takes a broken system.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Arc::new(Network::new()))
    }

    /// An adapter whose requests `transport` carries.
    #[must_use]
    pub fn over(transport: Arc<dyn Transport>) -> Self {
        Self {
            calls: Calls::over(transport),
        }
    }
}

impl Default for OpenCode {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl AgentAdapter for OpenCode {
    fn name(&self) -> &'static str {
        "opencode"
    }

    fn launch(&self, spec: &LaunchSpec) -> Launch {
        let args = ["serve", "--hostname", "127.0.0.1", "--port"];
        Launch::Process {
            program: spec.program.clone().unwrap_or_else(|| "opencode".into()),
            args: args
                .into_iter()
                .map(str::to_owned)
                .chain([spec.port.to_string()])
                .collect(),
            env: vec![
                ("OPENCODE_SERVER_USERNAME".into(), USERNAME.into()),
                (
                    "OPENCODE_SERVER_PASSWORD".into(),
                    spec.password.reveal().into(),
                ),
            ],
            ready_prefix: "opencode server listening on ",
        }
    }

    fn data_home(
        &self,
        command: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Option<String> {
        // The program itself, or an interpreter and then the program.
        let mut programs = command.iter().take(2).enumerate();
        let (at, _) = programs.find(|(_, word)| {
            let name = Path::new(word).file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with("opencode"))
        })?;
        let serves = |word: &String| word == "serve" || word == "web";
        command.get(at + 1).filter(|word| serves(word))?;
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        if let Some(file) = set("OPENCODE_DB") {
            return Some(file.clone());
        }
        let data = match (set("XDG_DATA_HOME"), set("HOME")) {
            (Some(data), _) => Path::new(data).to_owned(),
            (None, Some(home)) => Path::new(home).join(".local/share"),
            (None, None) => return None,
        };
        Some(data.join("opencode").to_string_lossy().into_owned())
    }

    fn refuse_version(&self, version: &str) -> Option<String> {
        let (major, minor) = VERSION_MIN;
        let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(a)), Some(Ok(b))) if (a, b) >= VERSION_MIN => None,
            (Some(Ok(_)), Some(Ok(_))) => Some(format!(
                "OpenCode {version} is too old, {major}.{minor}.0 is the oldest that works: older \
                 ones can ask the model for one message without end"
            )),
            _ => Some(format!(
                "OpenCode's version {version:?} cannot be read, and versions before \
                 {major}.{minor}.0 can ask the model for one message without end"
            )),
        }
    }

    fn identity(&self, message: MessageId, now: Timestamp) -> String {
        identity::message(message, now)
    }

    fn can_steer(&self) -> bool {
        true
    }

    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        self.calls.health(endpoint).await
    }

    async fn capabilities(&self, endpoint: &Endpoint) -> Result<Vec<String>, CallError> {
        self.calls.capabilities(endpoint).await
    }

    async fn open_stream(&self, endpoint: &Endpoint) -> Result<FrameStream, CallError> {
        let response = self.calls.stream(endpoint).await?;
        let mut frames = sse::frames(response.body, endpoint.policy.frame_bytes_max);
        let lost = |reason: String| CallError::Unknown {
            reason: format!("GET /global/event: {reason}"),
        };
        // What comes before the stream is known to listen is given to the caller after all.
        let mut early = Vec::new();
        let connected = async {
            loop {
                let item = frames
                    .next()
                    .await
                    .ok_or_else(|| lost("ended before it began".into()))?
                    .map_err(|error| lost(error.to_string()))?;
                let connected = matches!(&item, StreamItem::Frame(frame)
                    if translate::translate(frame).observation == Observation::Connected);
                early.push(Ok(item));
                if connected {
                    return Ok(());
                }
                if early.len() > limits::EARLY_ITEMS_MAX {
                    return Err(lost("does not begin with server.connected".into()));
                }
            }
        };
        match tokio::time::timeout(endpoint.policy.timeout, connected).await {
            Ok(connected) => connected?,
            Err(_) => return Err(lost(format!("silent for {:?}", endpoint.policy.timeout))),
        }
        // Not read meanwhile: the socket keeps what comes.
        tokio::time::sleep(LISTENING_AFTER).await;
        Ok(futures_util::stream::iter(early).chain(frames).boxed())
    }

    fn translate(&self, frame: &Frame) -> Translated {
        translate::translate(frame)
    }

    async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError> {
        self.calls.create_session(endpoint, spec).await
    }

    async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        self.calls.find_session(endpoint, spec).await
    }

    async fn fork_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
        origin: &Origin,
    ) -> Result<String, CallError> {
        fork::fork_session(&self.calls, endpoint, spec, origin).await
    }

    async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        self.calls.store_message(endpoint, delivery).await
    }

    async fn start_turn(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<(), CallError> {
        self.calls.start_turn(endpoint, delivery).await
    }

    async fn look_up(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        agent_message: &str,
    ) -> Result<Report, CallError> {
        look::look_up(&self.calls, endpoint, session, agent_message).await
    }

    async fn abort(&self, endpoint: &Endpoint, session: &AgentSession) -> Result<(), CallError> {
        self.calls.abort(endpoint, session).await
    }

    async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        self.calls
            .answer_permission(endpoint, session, permission, answer)
            .await
    }

    async fn answer_question(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        question: &str,
        answers: Option<&[Vec<String>]>,
    ) -> Result<AnswerOutcome, CallError> {
        self.calls
            .answer_question(endpoint, session, question, answers)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Secret;

    #[test]
    fn versions_that_ask_the_model_without_end_are_refused() {
        let refused = |version| OpenCode::new().refuse_version(version).is_some();
        for version in ["1.18.0", "1.18.33", "1.18.33-scripted", "1.20.0", "2.0.0"] {
            assert!(!refused(version), "{version}");
        }
        for version in [
            "1.0.185",
            "1.2.27",
            "1.14.48",
            "1.17.99",
            "0.0.0-dev",
            "",
            "local",
        ] {
            assert!(refused(version), "{version}");
        }
    }

    #[test]
    fn a_server_is_started_on_the_port_it_is_given() {
        let launch = OpenCode::new().launch(&LaunchSpec {
            program: None,
            directory: "/project".into(),
            port: 4711,
            password: Secret::new("secret"),
        });
        let Launch::Process {
            program,
            args,
            env,
            ready_prefix,
        } = launch
        else {
            panic!("it is a process");
        };
        assert_eq!(program, "opencode");
        assert_eq!(args, ["serve", "--hostname", "127.0.0.1", "--port", "4711"]);
        let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            env,
            [
                ("OPENCODE_SERVER_USERNAME", "opencode"),
                ("OPENCODE_SERVER_PASSWORD", "secret"),
            ]
        );
        assert_eq!(ready_prefix, "opencode server listening on ");
    }
}
