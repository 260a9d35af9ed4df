use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use recount_projections::{Connection as State, MessageState, Transcript, state_store};
use recount_store::{
    ConnectionId, Event, LogReader, MessageId, PermissionAnswer, Recorded, Seq, StreamId,
};
use tokio::time::sleep;

use super::*;
use crate::adapter::scripted::Step;
use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream, Health, Launch,
    LaunchSpec, Observation, Report, SessionSpec, Translated,
};
use crate::command::{Rejection, Word};
use crate::policy::RerunPolicy;
use crate::shell::subscription::{Subscription, Update};

type Outcome = Box<dyn Fn(&str, u32) -> Option<CallError> + Send + Sync>;

/// A scripted agent with somebody between it and the engine.
struct Tampered {
    inner: Scripted,
    /// Told of each call before it is made.
    called: Box<dyn Fn(&str) + Send + Sync>,
    /// What a call of this name comes back with instead, by how many of that name were made before.
    outcome: Outcome,
    stored: AtomicU32,
    looked: AtomicU32,
    /// Changes what the frames mean.
    translated: Box<dyn Fn(Translated) -> Translated + Send + Sync>,
}

impl Tampered {
    fn new(script: Script) -> Self {
        Self {
            inner: Scripted::new(script),
            called: Box::new(|_| {}),
            outcome: Box::new(|_, _| None),
            stored: AtomicU32::new(0),
            looked: AtomicU32::new(0),
            translated: Box::new(|translated| translated),
        }
    }

    /// An agent whose adapter panics at the first so many calls of this name.
    fn panics(call: &'static str, times: u32) -> Self {
        let left = AtomicU32::new(times);
        Self {
            called: Box::new(move |called| {
                let counts = |left: u32| left.checked_sub(1);
                let due = called == call
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, counts)
                        .is_ok();
                assert!(!due, "a mistake in {call}");
            }),
            ..Self::new(Script::default())
        }
    }
}

#[async_trait]
impl AgentAdapter for Tampered {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn launch(&self, spec: &LaunchSpec) -> Launch {
        self.inner.launch(spec)
    }
    fn refuse_version(&self, version: &str) -> Option<String> {
        self.inner.refuse_version(version)
    }
    fn identity(&self, message: recount_store::MessageId, now: recount_store::Timestamp) -> String {
        self.inner.identity(message, now)
    }
    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        self.inner.health(endpoint).await
    }
    async fn open_stream(&self, endpoint: &Endpoint) -> Result<FrameStream, CallError> {
        self.inner.open_stream(endpoint).await
    }
    fn translate(&self, frame: &Frame) -> Translated {
        (self.translated)(self.inner.translate(frame))
    }
    async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError> {
        self.inner.create_session(endpoint, spec).await
    }
    async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        self.inner.find_session(endpoint, spec).await
    }
    async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        (self.called)("store_message");
        let count = self.stored.fetch_add(1, Ordering::SeqCst);
        match (self.outcome)("store_message", count) {
            Some(error @ CallError::NeverSent { .. }) => Err(error),
            Some(error) => {
                self.inner.store_message(endpoint, delivery).await?;
                Err(error)
            }
            None => self.inner.store_message(endpoint, delivery).await,
        }
    }
    async fn start_turn(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<(), CallError> {
        (self.called)("start_turn");
        self.inner.start_turn(endpoint, delivery).await
    }
    async fn look_up(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        agent_message: &str,
    ) -> Result<Report, CallError> {
        (self.called)("look_up");
        let count = self.looked.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = (self.outcome)("look_up", count) {
            return Err(error);
        }
        self.inner.look_up(endpoint, session, agent_message).await
    }
    async fn abort(&self, endpoint: &Endpoint, session: &AgentSession) -> Result<(), CallError> {
        self.inner.abort(endpoint, session).await
    }
    async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        let inner = &self.inner;
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
        let inner = &self.inner;
        inner
            .answer_question(endpoint, session, question, answers)
            .await
    }
}

/// An engine in a folder of its own.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn options(&self, agent: impl AgentAdapter) -> Options {
        Options::new(self.folder.path().join("data")).with_adapter(Arc::new(agent))
    }

    fn spec(&self) -> OpenSession {
        OpenSession::new("scripted", self.folder.path().display().to_string())
    }

    fn events(&self, id: SessionId) -> Vec<Recorded> {
        let reader = LogReader::open(self.folder.path().join("data")).expect("a log");
        let events = reader.read(StreamId::Session(id), Seq::FIRST);
        events
            .map(|recorded| recorded.expect("it can be read"))
            .collect()
    }

    fn count(&self, id: SessionId, which: impl Fn(&Event) -> bool) -> usize {
        let events = self.events(id);
        events.iter().filter(|event| which(&event.event)).count()
    }
}

async fn start(options: Options) -> SessionManager {
    SessionManager::start(options).await.expect("it starts")
}

/// Waits until this holds, as long as a test may take.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The events that a subscription tells of, to its end.
async fn told(mut updates: Subscription) -> Vec<Recorded> {
    let mut told = Vec::new();
    while let Some(update) = updates.next().await.expect("it is quick enough") {
        if let Update::Recorded(recorded) = update {
            told.push((*recorded).clone());
        }
    }
    told
}

fn is_panic(event: &Event) -> bool {
    matches!(event, Event::TaskPanicked { .. })
}

#[tokio::test]
async fn a_gap_is_filled_by_the_look_that_follows() {
    let world = World::new();
    // A count that jumps: as if frames had been lost on the way.
    let agent = Tampered {
        translated: Box::new(|mut translated| {
            if let Observation::Counted { number } = &mut translated.observation
                && *number > 3
            {
                *number += 10;
            }
            translated
        }),
        ..Tampered::new(Script::default())
    };
    let manager = start(world.options(agent)).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let settled = session.settled(message).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    let connection = session
        .state()
        .expect("it is there")
        .opening
        .expect("it was opened")
        .connection;
    manager.shut_down().await.expect("it ends in order");

    let reader = LogReader::open(world.folder.path().join("data")).expect("a log");
    let stream = StreamId::Connection(connection);
    let events: Vec<Event> = reader
        .read(stream, Seq::FIRST)
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

#[tokio::test]
async fn a_policy_is_recorded_where_it_is_another_than_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let adopted = async |policy: &Policy| {
        let mut options = Options::new(&data);
        options.policy = policy.clone();
        let manager = SessionManager::start(options).await.unwrap();
        let started = manager.inner.started;
        let events = manager.log().read_all(started).map(|r| r.unwrap().event);
        let events: Vec<_> = events.skip(1).collect();
        manager.shut_down().await.unwrap();
        events
    };
    let event = |policy: &Policy| Event::PolicyAdopted {
        policy: policy.to_json(),
    };
    let usual = Policy::default();
    let mut strict = Policy::default();
    strict.session.rerun = RerunPolicy::Never;

    assert_eq!(adopted(&usual).await, [event(&usual)]);
    assert_eq!(adopted(&usual).await, []);
    assert_eq!(adopted(&strict).await, [event(&strict)]);
    assert_eq!(adopted(&usual).await, [event(&usual)]);
    // Said again once it was said so long ago that it is not looked for.
    let mut again = 0;
    for _ in 0..limits::POLICY_LOOKBACK / 2 + 1 {
        again += adopted(&usual).await.len();
    }
    assert_eq!(again, 1);
}

#[tokio::test]
async fn a_policy_that_cannot_work_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut options = Options::new(&data);
    options.policy.session.runs_max = 0;
    let refused = SessionManager::start(options).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        "the policy: session.runs_max is 0; it must be at least 1"
    );
    assert!(!data.exists());
}

#[tokio::test]
async fn an_idle_session_leaves_memory_and_comes_back_when_it_is_called() {
    let world = World::new();
    let mut options = world.options(Tampered::new(Script::default()));
    options.policy.session.idle_after = Duration::ZERO;
    let manager = start(options).await;
    let presences = &manager.inner.presences;
    let session = manager.open(world.spec()).await.expect("it opens");
    assert_eq!(presences.count(), 0, "opening it is no reason to keep it");

    let updates = session.subscribe();
    for prompt in ["one", "two"] {
        let message = session.send(prompt, None).await.expect("it is queued");
        let settled = session.settled(message).await;
        assert_eq!(settled.expect("it ends"), MessageState::Completed);
        eventually("it sleeps", || presences.awake().is_empty()).await;
        assert_eq!(presences.count(), 1, "somebody listens");
        assert_eq!(session.at_rest().await.expect("it rests"), Status::Idle);
    }
    let listener = tokio::spawn(told(updates));
    // The subscription is where it was: another one leaves nothing behind.
    drop(session.subscribe());
    assert_eq!(presences.count(), 1);

    manager.shut_down().await.expect("it ends in order");
    let told = listener.await.expect("it has listened to the end");
    assert_eq!(told, world.events(session.id())[1..]);
    assert_eq!(presences.count(), 0, "nobody listens any more");
}

#[tokio::test]
async fn whoever_calls_while_it_falls_asleep_is_answered() {
    let world = World::new();
    let agent = Tampered::new(Script::always(vec![Step::text("yes", 1)]));
    let mut options = world.options(agent);
    options.policy.session.idle_after = Duration::ZERO;
    let manager = start(options).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    // Each of them is refused: no task has anything to do, and begins and ends with each call.
    let calls = (0..200).map(|_| {
        let session = session.clone();
        tokio::spawn(async move { session.abort().await })
    });
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.expect("it comes back");
        assert!(matches!(answer, Err(Error::Rejected(_))), "{answer:?}");
    }
    manager.shut_down().await.expect("it ends in order");
}

#[tokio::test]
async fn a_panic_ends_its_own_session_alone_and_that_one_begins_anew() {
    let world = World::new();
    let manager = start(world.options(Tampered::panics("store_message", 1))).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let settled = session.settled(message).await;
    assert_eq!(settled.expect("it ends"), MessageState::Completed);
    let held = session.state().expect("it is there");
    manager.shut_down().await.expect("it ends in order");

    let events = world.events(session.id());
    let panics = events.iter().filter(|event| is_panic(&event.event));
    let said: Vec<&Event> = panics.map(|event| &event.event).collect();
    let expected = Event::TaskPanicked {
        reason: "a mistake in store_message".to_owned(),
    };
    assert_eq!(said, [&expected]);
    let cold: recount_projections::Session = recount_projections::fold(&events);
    assert_eq!(held, cold, "what was in memory is what is in the log");
}

#[tokio::test]
async fn a_session_that_panics_again_and_again_stands_still_until_the_next_start() {
    let world = World::new();
    let panics_max = SessionPolicy::default().panics_max;
    // It begins with the delivery, and meets the mistake in each look that follows.
    let agent = Tampered {
        called: Box::new(|called| {
            assert!(!["store_message", "look_up"].contains(&called), "a mistake");
        }),
        ..Tampered::new(Script::default())
    };
    let manager = start(world.options(agent)).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let updates = session.subscribe();
    let message = session.send("hello", None).await.expect("it is queued");
    let stands_still = Error::StandsStill {
        session: session.id(),
        reason: "a mistake".to_owned(),
    };
    let is_that = |error: Error| assert_eq!(error.to_string(), stands_still.to_string());
    is_that(session.settled(message).await.expect_err("it stands still"));
    is_that(
        session
            .send("more", None)
            .await
            .expect_err("it stands still"),
    );
    let told = told(updates).await;
    assert_eq!(told, world.events(session.id())[1..]);
    assert_eq!(world.count(session.id(), is_panic), panics_max as usize);
    // Nobody looks at it any more: that does not make it try again.
    let found = manager
        .find(session.id())
        .await
        .expect("it can be looked at");
    assert_eq!(found.state().expect("it is there").status(), Status::Queued);
    is_that(found.at_rest().await.expect_err("it stands still"));
    let recovered = manager.recover().await.expect("it says so");
    assert_eq!((recovered.sessions, recovered.open), (1, 1));
    assert_eq!(world.count(session.id(), is_panic), panics_max as usize);
    manager.shut_down().await.expect("it ends in order");

    let manager = start(world.options(Tampered::new(Script::default()))).await;
    let recovered = manager.recover().await.expect("it recovers");
    let expected = Recovered {
        sessions: 1,
        resolved: 1,
        completed: 1,
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
    manager.shut_down().await.expect("it ends in order");
}

#[tokio::test]
async fn a_session_that_misses_most_of_what_is_said_ends_with_the_whole_answer() {
    let world = World::new();
    let text = "word ".repeat(500);
    let script = Script::always(vec![Step::text(text.clone(), 500)]);
    let mut options = world.options(Tampered::new(script));
    // Room for one piece, and a commit for each that was taken: the log is slower than the agent.
    options.policy.session.inbox_bytes = 1;
    options.policy.session.gather_bytes = 1;
    let manager = start(options).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let settled = session.settled(message).await;
    assert_eq!(settled.expect("it ends"), MessageState::Completed);
    manager.shut_down().await.expect("it ends in order");
    let events = world.events(session.id());
    let outputs = |event: &Event| matches!(event, Event::OutputAppended { .. });
    let pieces = world.count(session.id(), outputs);
    assert!(pieces < 500, "something was missed");
    let transcript: Transcript = recount_projections::fold(&events);
    assert_eq!(transcript.turns[0].text(), text);
}

/// So many sessions with a message each that no engine has seen.
async fn left_open(world: &World, sessions: u64) -> Vec<(SessionId, MessageId)> {
    let manager = start(world.options(Tampered::new(Script::default()))).await;
    let opening = manager.open(world.spec()).await.expect("it opens");
    let opening = opening.state().expect("it is there").opening;
    let connection: ConnectionId = opening.expect("it was opened").connection;
    let mut left = Vec::new();
    for n in 0..sessions {
        let (id, message) = (
            SessionId::from_random(n.into()),
            MessageId::from_random(n.into()),
        );
        let opened = Event::SessionOpened {
            connection,
            agent: "scripted".to_owned(),
            directory: world.folder.path().display().to_string(),
            model: None,
            title: None,
        };
        let queued = Event::MessageQueued {
            message,
            key: None,
            text: "hello".to_owned(),
        };
        let now = manager.inner.clock.now();
        let events = [opened, queued].map(|event| NewEvent::live(event, now));
        let append = manager
            .log()
            .append(StreamId::Session(id), Expected::NoStream, events.into());
        append.await.expect("it is recorded");
        left.push((id, message));
    }
    manager.shut_down().await.expect("it ends in order");
    left
}

#[tokio::test]
async fn recovery_run_twice_finds_nothing_new() {
    let world = World::new();
    let left = left_open(&world, 20).await;
    let script = Script::always(vec![Step::text("yes", 1)]);
    let manager = start(world.options(Tampered::new(script))).await;
    let recovered = manager.recover().await.expect("it recovers");
    let expected = Recovered {
        sessions: 20,
        completed: 20,
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
    let events = |(id, _): &(SessionId, MessageId)| world.events(*id);
    let before: Vec<_> = left.iter().map(events).collect();
    let again = manager.recover().await.expect("it recovers");
    assert_eq!(again, Recovered::default());
    assert_eq!(left.iter().map(events).collect::<Vec<_>>(), before);
    manager.shut_down().await.expect("it ends in order");
}

#[tokio::test]
async fn what_takes_longer_than_a_recovery_may_goes_on_by_itself() {
    let world = World::new();
    let left = left_open(&world, 3).await;
    let agent = Tampered::new(Script::always(vec![Step::Gate("end".to_owned())]));
    let scripted = agent.inner.clone();
    let mut options = world.options(agent);
    options.policy.engine.recovery_max = Duration::ZERO;
    let manager = start(options).await;
    let recovered = manager.recover().await.expect("it recovers");
    let expected = Recovered {
        sessions: 3,
        open: 3,
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
    scripted.open_gate("end");
    for (id, message) in left {
        let session = manager.find(id).await.expect("it is there");
        let settled = session.settled(message).await;
        assert_eq!(settled.expect("it ends"), MessageState::Completed);
    }
    manager.shut_down().await.expect("it ends in order");
}

#[tokio::test]
async fn shutting_down_has_an_end_and_says_what_it_left() {
    let world = World::new();
    let agent = || Tampered::new(Script::always(vec![Step::text("half", 1), Step::Stall]));
    let manager = start(world.options(agent())).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let updates = session.subscribe();
    let message = session.send("hello", None).await.expect("it is queued");
    let running = |state: &recount_projections::Session| {
        let message = state.queue.get(message)?;
        (message.state == MessageState::Running).then_some(())
    };
    session.wait(running).await.expect("it runs");
    let left = manager.shut_down_within(Duration::ZERO).await;
    let expected = Left {
        sessions: 1,
        connections: 1,
    };
    assert_eq!(left.expect("the log is closed"), expected);
    for refused in [
        session.send("more", None).await.err(),
        session.settled(message).await.err(),
        manager.open(world.spec()).await.err(),
    ] {
        let refused = refused.expect("it is refused");
        let ended = matches!(
            refused,
            Error::ShutDown | Error::Log(recount_store::Error::Closed)
        );
        assert!(ended, "{refused:?}");
    }
    told(updates).await;

    // With the time that it takes, nothing is left.
    let manager = start(world.options(agent())).await;
    let session = manager.find(session.id()).await.expect("it is there");
    session.wait(running).await.expect("it runs");
    let left = manager.shut_down_within(Duration::from_secs(60)).await;
    assert_eq!(left.expect("the log is closed"), Left::default());
}

#[tokio::test]
async fn an_engine_that_nobody_holds_lets_go_of_its_log() {
    let world = World::new();
    let agent = Tampered::new(Script::always(vec![Step::Stall]));
    let manager = start(world.options(agent)).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let mut updates = session.subscribe();
    session.send("hello", None).await.expect("it is queued");
    drop((manager, session));
    while let Ok(Some(_)) = updates.next().await {}
    let agent = || Tampered::new(Script::default());
    for _ in 0..1000 {
        if SessionManager::start(world.options(agent())).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is still held");
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
    assert_eq!(
        texts(session.state().expect("it is there")),
        [content, content]
    );
    manager.shut_down().await.expect("it ends in order");
}

#[tokio::test]
async fn what_never_left_is_sent_again_by_leave_of_its_connection() {
    let world = World::new();
    let reason = || "it did not leave".to_owned();
    let agent = Tampered {
        outcome: Box::new(move |call, count| {
            let fails = call == "store_message" && count < 2;
            fails.then(|| CallError::NeverSent { reason: reason() })
        }),
        ..Tampered::new(Script::default())
    };
    let manager = start(world.options(agent)).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let settled = session.settled(message).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    manager.shut_down().await.expect("it ends in order");
    let attempts = world.count(session.id(), |event| {
        matches!(event, Event::DeliveryStarted { .. })
    });
    assert_eq!(attempts, 3);
}

#[tokio::test]
async fn a_person_is_asked_what_the_agent_will_not_tell() {
    let world = World::new();
    let reason = || "it is not said".to_owned();
    let agent = Tampered {
        outcome: Box::new(move |call, count| match (call, count) {
            ("store_message", 0) => Some(CallError::Unknown { reason: reason() }),
            ("look_up", 0) => Some(CallError::RefusedForGood { reason: reason() }),
            _ => None,
        }),
        ..Tampered::new(Script::default())
    };
    let manager = start(world.options(agent)).await;
    let session = manager.open(world.spec()).await.expect("it opens");
    let message = session.send("hello", None).await.expect("it is queued");
    let rests = session.at_rest().await.expect("it rests");
    assert_eq!(rests, Status::Waiting);
    session
        .resolve(Word::Arrived)
        .await
        .expect("it waits for that");
    let settled = session.settled(message).await.expect("it ends");
    assert_eq!(settled, MessageState::Completed);
    manager.shut_down().await.expect("it ends in order");
    let sent = world.count(session.id(), |event| {
        matches!(event, Event::DeliveryStarted { .. })
    });
    assert_eq!(sent, 1);
}
