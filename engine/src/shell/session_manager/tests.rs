use std::sync::Arc;

use async_trait::async_trait;
use recount_projections::{Connection as State, MessageState, state_store};
use recount_store::{Event, PermissionAnswer, StreamId};

use super::*;
use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream, Health, Launch,
    LaunchSpec, Observation, Report, SessionSpec, Translated,
};

/// A scripted agent whose count jumps: as if frames had been lost on the way.
struct Lossy(Scripted);

#[async_trait]
impl AgentAdapter for Lossy {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn launch(&self, spec: &LaunchSpec) -> Launch {
        self.0.launch(spec)
    }
    fn refuse_version(&self, version: &str) -> Option<String> {
        self.0.refuse_version(version)
    }
    fn identity(&self, message: recount_store::MessageId, now: recount_store::Timestamp) -> String {
        self.0.identity(message, now)
    }
    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        self.0.health(endpoint).await
    }
    async fn open_stream(&self, endpoint: &Endpoint) -> Result<FrameStream, CallError> {
        self.0.open_stream(endpoint).await
    }
    fn translate(&self, frame: &Frame) -> Translated {
        let mut translated = self.0.translate(frame);
        if let Observation::Counted { number } = &mut translated.observation
            && *number > 3
        {
            *number += 10;
        }
        translated
    }
    async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError> {
        self.0.create_session(endpoint, spec).await
    }
    async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        self.0.find_session(endpoint, spec).await
    }
    async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        self.0.store_message(endpoint, delivery).await
    }
    async fn start_turn(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<(), CallError> {
        self.0.start_turn(endpoint, delivery).await
    }
    async fn look_up(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        agent_message: &str,
    ) -> Result<Report, CallError> {
        self.0.look_up(endpoint, session, agent_message).await
    }
    async fn abort(&self, endpoint: &Endpoint, session: &AgentSession) -> Result<(), CallError> {
        self.0.abort(endpoint, session).await
    }
    async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        let inner = &self.0;
        inner
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
        let inner = &self.0;
        inner
            .answer_question(endpoint, session, question, answers)
            .await
    }
}

#[tokio::test]
async fn a_gap_is_filled_by_the_look_that_follows() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Lossy(Scripted::new(Script::default()));
    let options = Options::new(folder.path().join("data")).with_adapter(Arc::new(agent));
    let manager = SessionManager::start(options).await.expect("it starts");
    let spec = OpenSession::new("scripted", folder.path().display().to_string());
    let session = manager.open(spec).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let settled = session.settled(message).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    let connection = session.state().opening.expect("it was opened").connection;
    manager.shut_down().await.expect("it ends in order");

    let reader = recount_store::LogReader::open(folder.path().join("data")).expect("a log");
    let stream = StreamId::Connection(connection);
    let events: Vec<Event> = reader
        .read(stream, recount_store::Seq::FIRST)
        .map(|recorded| recorded.expect("it can be read").event)
        .collect();
    let found = events
        .iter()
        .filter(|event| matches!(event, Event::GapFound { .. }))
        .count();
    assert_eq!(found, 1, "{events:#?}");
    let state: State = state_store::load(&reader, stream).expect("it can be read");
    assert_eq!(state.gaps.len(), 0, "{events:#?}");
}
