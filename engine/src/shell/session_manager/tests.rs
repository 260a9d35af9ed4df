use std::sync::Arc;

use async_trait::async_trait;
use recount_projections::{Connection as State, MessageState, state_store};
use recount_store::{Event, PermissionAnswer, StreamId};

use super::*;
use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream, Health, Launch,
    LaunchSpec, Observation, Report, SessionSpec, Translated,
};
use crate::command::Rejection;

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

/// A session that an earlier engine gave these messages up in.
async fn given_up(folder: &std::path::Path, session: SessionId, events: Vec<Event>) {
    let manager = SessionManager::start(Options::new(folder.join("data")));
    let manager = manager.await.expect("it starts");
    let spec = OpenSession {
        id: Some(session),
        ..OpenSession::new("scripted", folder.display().to_string())
    };
    manager.open(spec).await.expect("it opens");
    manager.shut_down().await.expect("it ends in order");
    let log = Log::open(folder.join("data")).expect("a log");
    let events = events.into_iter();
    let events = events.map(|event| NewEvent::live(event, recount_store::Timestamp(7)));
    let stream = StreamId::Session(session);
    let appended = log.append(stream, Expected::Any, events.collect()).await;
    appended.expect("it is recorded");
    log.close().await.expect("it closes");
}

#[tokio::test]
async fn dead_letters_of_all_sessions_are_listed_and_each_is_queued_again_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, other] = [1, 2].map(|byte| SessionId::from_bytes([byte; 10]));
    let [m1, m2, m3] = [1, 2, 3].map(|byte| recount_store::MessageId::from_bytes([byte; 10]));
    let queued = |message, key: Option<&str>, text: &str| Event::MessageQueued {
        message,
        key: key.map(str::to_owned),
        text: text.to_owned(),
    };
    let sending = |message| Event::DeliveryStarted {
        message,
        attempt: 1,
        agent_message: "a".to_owned(),
    };
    let dead = |message| Event::MessageDeadLettered {
        message,
        reason: "it was in vain".to_owned(),
    };
    let first = vec![queued(m1, Some("k"), "one"), dead(m1)];
    given_up(folder.path(), ours, first).await;
    let second = vec![queued(m2, None, "two"), sending(m2), dead(m2)];
    given_up(folder.path(), other, second).await;

    let manager = SessionManager::start(Options::new(folder.path().join("data")));
    let manager = manager.await.expect("it starts");
    let letter = |session, message, key: Option<&str>, text: &str, attempts| DeadLetter {
        session,
        message,
        key: key.map(str::to_owned),
        text: Some(text.to_owned()),
        attempts,
        reason: "it was in vain".to_owned(),
        at: recount_store::Timestamp(7),
        may_have_arrived: attempts > 0,
    };
    let listed = || manager.dead_letters().expect("they can be read");
    let one = letter(ours, m1, Some("k"), "one", 0);
    let two = letter(other, m2, None, "two", 1);
    assert_eq!(listed(), [one.clone(), two.clone()]);

    let session = manager.find(ours).await.expect("it is there");
    assert_eq!(session.dead_letters().expect("they can be read"), [one]);
    let again = session.requeue(m1, false).await.expect("it is queued");
    let settled = session.settled(again).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    let repeated = session.requeue(m1, false).await.expect("it is known");
    assert_eq!(repeated, again);
    assert_eq!(listed(), [two]);

    let session = manager.find(other).await.expect("it is there");
    let refused = session.requeue(m3, false).await;
    let rejection = Rejection::UnknownMessage { message: m3 };
    assert_eq!(refused.unwrap_err().to_string(), rejection.to_string());
    let refused = session.requeue(m2, false).await;
    let rejection = Rejection::MayDouble { message: m2 };
    assert_eq!(refused.unwrap_err().to_string(), rejection.to_string());
    let again = session.requeue(m2, true).await.expect("it is queued");
    let settled = session.settled(again).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    assert_eq!(listed(), []);
    let texts = |state: recount_projections::Session| {
        let messages = state.queue.messages().iter();
        messages.map(|message| message.content).collect::<Vec<_>>()
    };
    let content = recount_projections::queue::content_hash("two");
    assert_eq!(texts(session.state()), [content, content]);
    manager.shut_down().await.expect("it ends in order");
}
