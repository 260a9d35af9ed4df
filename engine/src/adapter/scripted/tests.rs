//! The scripted agent through its adapter: the same calls and frames as the real one's.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use recount_store::{Choice, Json, MessageId, OutputKind, PermissionAnswer, Prompt, Timestamp};
use serde_json::json;

use super::*;
use crate::adapter::{
    Activity, AgentError, Answer, AnswerItem, Observation, OutputPart, Permission, Question,
    ReportedAnswer, StreamError, StreamItem, ToolCall, ToolState,
};

/// A scripted agent with one server and one session.
struct World {
    agent: Scripted,
    server: ScriptedServer,
    endpoint: Endpoint,
    session: AgentSession,
}

impl World {
    async fn new(script: Script) -> Self {
        let agent = Scripted::new(script);
        let password = Secret::new("secret");
        let server = agent.serve("/project", 0, Some(password.clone())).await;
        let server = server.expect("a server");
        let endpoint = Endpoint {
            url: server.url(),
            password: Some(password),
            policy: crate::policy::CallPolicy::default(),
        };
        let spec = SessionSpec {
            directory: "/project".into(),
            title: "a session".into(),
        };
        let id = agent.create_session(&endpoint, &spec).await;
        let session = AgentSession {
            id: id.expect("a session"),
            directory: spec.directory,
        };
        Self {
            agent,
            server,
            endpoint,
            session,
        }
    }

    /// Another server in the place of one that died, on the same port, as the real one would be.
    async fn restart(&mut self) {
        self.server.exited().await;
        let port = self.server.url().rsplit(':').next().map(str::parse);
        let port = port.expect("a port").expect("a number");
        let password = self.endpoint.password.clone();
        let server = self.agent.serve("/project", port, password).await;
        self.server = server.expect("a server");
    }

    async fn stream(&self) -> FrameStream {
        let stream = self.agent.open_stream(&self.endpoint).await;
        stream.expect("a stream")
    }

    fn delivery(&self, n: u8, text: &str) -> Delivery {
        let now = Timestamp::from_system(SystemTime::now());
        Delivery {
            session: self.session.clone(),
            agent_message: self.agent.identity(MessageId::from_bytes([n; 10]), now),
            text: text.into(),
            model: None,
        }
    }

    async fn deliver(&self, delivery: &Delivery) {
        let stored = self.agent.store_message(&self.endpoint, delivery).await;
        assert_eq!(stored, Ok(()));
        let started = self.agent.start_turn(&self.endpoint, delivery).await;
        assert_eq!(started, Ok(()));
    }

    async fn report(&self, delivery: &Delivery) -> Report {
        let (session, id) = (&delivery.session, &delivery.agent_message);
        let report = self.agent.look_up(&self.endpoint, session, id).await;
        report.expect("a report")
    }

    /// What a stream says to the end of a turn that ends well: two kinds of frames say so.
    async fn ended(&self, stream: &mut FrameStream) -> Vec<Observation> {
        let mut said = self.until(stream, |said| *said == Observation::Idle).await;
        said.extend(self.until(stream, |said| *said == Observation::Idle).await);
        said
    }

    /// What a stream says up to `last`, without what means nothing here.
    async fn until(
        &self,
        stream: &mut FrameStream,
        last: impl Fn(&Observation) -> bool,
    ) -> Vec<Observation> {
        let mut said = Vec::new();
        loop {
            let item = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
            let item = item.unwrap_or_else(|_| panic!("silent after {said:#?}"));
            let StreamItem::Frame(frame) = item.expect("a stream").expect("a frame") else {
                continue;
            };
            match self.agent.translate(&frame).observation {
                Observation::Heartbeat
                | Observation::Ignored
                | Observation::Counted { .. }
                | Observation::Connected => {}
                seen if last(&seen) => {
                    said.push(seen);
                    return said;
                }
                seen => said.push(seen),
            }
        }
    }
}

fn answer(id: &str, parent: &str, finish: Option<&str>) -> Answer {
    Answer {
        id: id.into(),
        parent: parent.into(),
        completed: finish.is_some(),
        finish: finish.map(str::to_owned),
        error: None,
    }
}

fn text(id: &str, text: &str, ended: bool) -> OutputPart {
    OutputPart {
        id: id.into(),
        kind: OutputKind::Text,
        text: text.into(),
        ended,
    }
}

const ANSWER: &str = "msg_000001000001Scripted000000";
const PART: &str = "prt_000001000002Scripted000000";

#[tokio::test]
async fn a_turn_is_told_and_kept_as_by_the_real_agent() {
    let world = World::new(Script::always(vec![Step::text("Hello, world", 3)])).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    let parent = &delivery.agent_message;
    let nothing = Report {
        stored: false,
        newest: false,
        went_on: false,
        activity: Activity::Idle,
        answers: vec![],
        permissions: vec![],
        questions: vec![],
    };
    assert_eq!(world.report(&delivery).await, nothing);
    world.deliver(&delivery).await;
    let delta = |text: &str| Observation::Delta {
        answer: ANSWER.into(),
        part: PART.into(),
        text: text.into(),
    };
    assert_eq!(
        world.ended(&mut stream).await,
        [
            Observation::Busy,
            Observation::AnswerUpdated(answer(ANSWER, parent, None)),
            Observation::Busy,
            Observation::PartOpened {
                answer: ANSWER.into(),
                part: PART.into(),
                kind: OutputKind::Text,
            },
            delta("Hell"),
            delta("o, w"),
            delta("orld"),
            Observation::PartEnded {
                answer: ANSWER.into(),
                part: text(PART, "Hello, world", true),
            },
            Observation::AnswerUpdated(answer(ANSWER, parent, Some("stop"))),
            Observation::Idle,
            Observation::Idle,
        ]
    );
    let finished = Report {
        stored: true,
        newest: true,
        went_on: false,
        answers: vec![ReportedAnswer {
            answer: answer(ANSWER, parent, Some("stop")),
            refused: false,
            items: vec![AnswerItem::Output(text(PART, "Hello, world", true))],
        }],
        ..nothing
    };
    assert_eq!(world.report(&delivery).await, finished);
    // Sent again it is written over, and not run again.
    world.deliver(&delivery).await;
    assert_eq!(world.report(&delivery).await, finished);
    assert_eq!(world.agent.runs("hi"), 1);
}

#[tokio::test]
async fn it_says_what_it_can_do() {
    let world = World::new(Script::default()).await;
    let words = world.agent.capabilities(&world.endpoint).await;
    let words = words.expect("an answer");
    assert_eq!(
        words,
        ["abort", "history", "permissions", "questions", "two_phases"]
    );
    world.agent.fault("GET doc", 1, Fault::Html);
    let none = world.agent.capabilities(&world.endpoint).await;
    assert!(
        matches!(none, Err(CallError::Unsupported { .. })),
        "{none:?}"
    );
}

#[tokio::test]
async fn what_is_kept_is_counted_without_gaps() {
    let world = World::new(Script::always(vec![Step::text("Hello", 1)])).await;
    let mut stream = world.stream().await;
    world.deliver(&world.delivery(1, "hi")).await;
    let mut numbers = Vec::new();
    while numbers.last() != Some(&8) {
        let item = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let item = item.unwrap_or_else(|_| panic!("silent after {numbers:?}"));
        let StreamItem::Frame(frame) = item.expect("a stream").expect("a frame") else {
            continue;
        };
        if let Observation::Counted { number } = world.agent.translate(&frame).observation {
            numbers.push(number);
        }
    }
    // The session itself was number 0, before the stream was opened.
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
}

fn tool_script(permission: bool) -> Script {
    Script::always(vec![
        Step::Tool {
            name: "bash".into(),
            input: json!({"command": "ls"}),
            output: "files".into(),
            permission: permission.then(|| "ls".into()),
            delay: Duration::ZERO,
        },
        Step::text("done", 1),
    ])
}

fn call(state: ToolState) -> AnswerItem {
    AnswerItem::Tool(ToolCall {
        id: "call_000001000003Scripted000000".into(),
        tool: "bash".into(),
        state,
    })
}

#[tokio::test]
async fn a_permission_is_asked_and_answered_once() {
    let world = World::new(tool_script(true)).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let asked = world.until(&mut stream, |said| {
        matches!(said, Observation::PermissionAsked(_))
    });
    let permission = Permission {
        id: "per_000001000004Scripted000000".into(),
        action: "bash".into(),
        detail: "ls".into(),
        call: Some("call_000001000003Scripted000000".into()),
    };
    assert_eq!(
        asked.await.last(),
        Some(&Observation::PermissionAsked(permission.clone()))
    );
    let report = world.report(&delivery).await;
    assert_eq!(report.permissions, std::slice::from_ref(&permission));
    assert_eq!(report.activity, Activity::Busy);
    let reply = || {
        let (endpoint, session) = (&world.endpoint, &world.session);
        let answer = PermissionAnswer::Once;
        world
            .agent
            .answer_permission(endpoint, session, &permission.id, answer)
    };
    assert_eq!(reply().await, Ok(AnswerOutcome::Taken));
    assert_eq!(reply().await, Ok(AnswerOutcome::Gone));
    let said = world.ended(&mut stream).await;
    assert!(said.contains(&Observation::PermissionReplied {
        permission: permission.id.clone(),
        answer: Some(PermissionAnswer::Once),
    }));
    let report = world.report(&delivery).await;
    let input = Json(br#"{"command":"ls"}"#.to_vec());
    let last = "msg_000001000005Scripted000000";
    assert_eq!(
        report.answers,
        [
            ReportedAnswer {
                answer: answer(ANSWER, &delivery.agent_message, Some("tool-calls")),
                refused: false,
                items: vec![call(ToolState::Completed {
                    input,
                    output: "files".into(),
                })],
            },
            ReportedAnswer {
                answer: answer(last, &delivery.agent_message, Some("stop")),
                refused: false,
                items: vec![AnswerItem::Output(text(
                    "prt_000001000006Scripted000000",
                    "done",
                    true
                ))],
            },
        ]
    );
}

#[tokio::test]
async fn a_refused_permission_ends_the_turn_without_an_error() {
    let world = World::new(tool_script(true)).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let asked = world.until(&mut stream, |said| {
        matches!(said, Observation::PermissionAsked(_))
    });
    let Some(Observation::PermissionAsked(asked)) = asked.await.pop() else {
        panic!("nothing was asked");
    };
    let (endpoint, session) = (&world.endpoint, &world.session);
    let answered =
        world
            .agent
            .answer_permission(endpoint, session, &asked.id, PermissionAnswer::Reject);
    assert_eq!(answered.await, Ok(AnswerOutcome::Taken));
    world.ended(&mut stream).await;
    let report = world.report(&delivery).await;
    assert_eq!(report.activity, Activity::Idle);
    assert_eq!(
        report.answers,
        [ReportedAnswer {
            answer: answer(ANSWER, &delivery.agent_message, Some("tool-calls")),
            refused: true,
            items: vec![call(ToolState::Failed {
                input: Json(br#"{"command":"ls"}"#.to_vec()),
                error: "The user rejected permission to use this specific tool call.".into(),
            })],
        }]
    );
}

fn prompts() -> Vec<Prompt> {
    let choice = |label: &str, about: &str| Choice {
        label: label.into(),
        about: about.into(),
    };
    vec![Prompt {
        header: "Colour".into(),
        text: "Which colour?".into(),
        options: vec![choice("red", "Like fire"), choice("blue", "Like water")],
        multiple: true,
        custom: true,
    }]
}

#[tokio::test]
async fn a_question_in_words_is_asked_and_answered_once() {
    let script = Script::always(vec![Step::Question(prompts()), Step::text("done", 1)]);
    let world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let asked = world.until(&mut stream, |said| {
        matches!(said, Observation::QuestionAsked(_))
    });
    let question = Question {
        id: "que_000001000004Scripted000000".into(),
        prompts: prompts(),
        call: Some("call_000001000003Scripted000000".into()),
    };
    assert_eq!(
        asked.await.last(),
        Some(&Observation::QuestionAsked(question.clone()))
    );
    let report = world.report(&delivery).await;
    assert_eq!(report.questions, std::slice::from_ref(&question));
    assert_eq!(report.permissions, []);
    let answers = vec![vec!["blue".to_owned(), "green".to_owned()]];
    let reply = || {
        let (endpoint, session) = (&world.endpoint, &world.session);
        world
            .agent
            .answer_question(endpoint, session, &question.id, Some(&answers))
    };
    assert_eq!(reply().await, Ok(AnswerOutcome::Taken));
    assert_eq!(reply().await, Ok(AnswerOutcome::Gone));
    let said = world.ended(&mut stream).await;
    assert!(said.contains(&Observation::QuestionReplied {
        question: question.id.clone(),
        answers: Some(answers.clone()),
    }));
    let output = said.iter().find_map(|said| match said {
        Observation::Tool { call, .. } => match &call.state {
            ToolState::Completed { output, .. } => Some(output.as_str()),
            _ => None,
        },
        _ => None,
    });
    let expected = r#"User has answered your questions: "Which colour?"="blue, green"."#;
    assert_eq!(output, Some(expected));
    let report = world.report(&delivery).await;
    assert_eq!(report.questions, []);
    assert_eq!(report.answers.len(), 2, "another answer follows");
}

#[tokio::test]
async fn a_question_that_is_refused_ends_the_turn_without_an_error() {
    let script = Script::always(vec![Step::Question(prompts()), Step::text("done", 1)]);
    let world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let asked = world.until(&mut stream, |said| {
        matches!(said, Observation::QuestionAsked(_))
    });
    let Some(Observation::QuestionAsked(asked)) = asked.await.pop() else {
        panic!("nothing was asked");
    };
    let (endpoint, session) = (&world.endpoint, &world.session);
    let refused = world
        .agent
        .answer_question(endpoint, session, &asked.id, None);
    assert_eq!(refused.await, Ok(AnswerOutcome::Taken));
    let said = world.ended(&mut stream).await;
    assert!(said.contains(&Observation::QuestionReplied {
        question: asked.id.clone(),
        answers: None,
    }));
    let report = world.report(&delivery).await;
    let ends: Vec<_> = report.answers.iter().map(|r| &r.answer).collect();
    let expected = answer(ANSWER, &delivery.agent_message, Some("tool-calls"));
    assert_eq!(ends, [&expected]);
}

#[tokio::test]
async fn a_death_takes_the_streamed_text_and_leaves_the_message() {
    let script = Script::new(|_, run| {
        let mut steps = vec![Step::text("Hello, ", 2), Step::text("world", 1)];
        if run == 1 {
            steps.insert(1, Step::Die);
        }
        steps
    });
    let mut world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let mut streamed = String::new();
    let broken = loop {
        match stream.next().await {
            Some(Ok(StreamItem::Frame(frame))) => {
                if let Observation::Delta { text, .. } = world.agent.translate(&frame).observation {
                    streamed.push_str(&text);
                }
            }
            Some(Ok(StreamItem::Alive)) => {}
            end => break end,
        }
    };
    assert!(
        matches!(broken, Some(Err(StreamError::Broken { .. }))),
        "{broken:?}"
    );
    assert_eq!(streamed, "Hello, ");

    world.restart().await;
    let interrupted = world.report(&delivery).await;
    let dead = ReportedAnswer {
        answer: answer(ANSWER, &delivery.agent_message, None),
        refused: false,
        items: vec![AnswerItem::Output(text(PART, "", false))],
    };
    let expected = Report {
        stored: true,
        newest: true,
        went_on: false,
        activity: Activity::Idle,
        answers: vec![dead.clone()],
        permissions: vec![],
        questions: vec![],
    };
    assert_eq!(interrupted, expected);
    assert_eq!(world.agent.runs("hi"), 1, "nothing resumes by itself");

    // Asked again it runs again, in a new answer; the dead one stays.
    let mut stream = world.stream().await;
    world.deliver(&delivery).await;
    world.ended(&mut stream).await;
    let second = ReportedAnswer {
        answer: answer(
            "msg_000001000003Scripted000000",
            &delivery.agent_message,
            Some("stop"),
        ),
        refused: false,
        items: vec![AnswerItem::Output(text(
            "prt_000001000004Scripted000000",
            "Hello, world",
            true,
        ))],
    };
    let expected = Report {
        answers: vec![dead, second],
        ..expected
    };
    assert_eq!(world.report(&delivery).await, expected);
    assert_eq!(world.agent.runs("hi"), 2);
}

#[tokio::test]
async fn a_death_takes_questions_and_leaves_tools_running() {
    let mut world = World::new(tool_script(true)).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let asked = |said: &Observation| matches!(said, Observation::PermissionAsked(_));
    world.until(&mut stream, asked).await;
    world.agent.kill();
    world.restart().await;
    let report = world.report(&delivery).await;
    assert_eq!(report.permissions, []);
    assert_eq!(
        report.answers[0].items,
        [call(ToolState::Running {
            input: Json(br#"{"command":"ls"}"#.to_vec()),
        })]
    );
}

#[tokio::test]
async fn an_older_message_that_is_sent_again_is_run_again() {
    let world = World::new(Script::always(vec![Step::text("Hello", 1)])).await;
    let mut stream = world.stream().await;
    let [first, second] = [(1, "one"), (2, "two")].map(|(n, text)| world.delivery(n, text));
    for delivery in [&first, &second, &first] {
        world.deliver(delivery).await;
        world.ended(&mut stream).await;
    }
    let report = world.report(&first).await;
    assert!(!report.newest);
    assert_eq!(report.answers.len(), 2);
    assert_eq!((world.agent.runs("one"), world.agent.runs("two")), (2, 1));
}

#[tokio::test]
async fn a_start_while_it_runs_does_not_double_it() {
    let script = Script::always(vec![Step::Gate("g".into()), Step::text("Hello", 1)]);
    let world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    world.deliver(&delivery).await;
    assert_eq!(world.report(&delivery).await.activity, Activity::Busy);
    world.agent.open_gate("g");
    world.ended(&mut stream).await;
    assert_eq!(world.report(&delivery).await.answers.len(), 1);
    assert_eq!(world.agent.runs("hi"), 1);
}

#[tokio::test]
async fn an_abort_ends_a_turn_that_stalls() {
    let script = Script::always(vec![Step::text("Hello", 1), Step::Stall]);
    let world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    let delta = |said: &Observation| matches!(said, Observation::Delta { .. });
    world.until(&mut stream, delta).await;
    let aborted = world.agent.abort(&world.endpoint, &world.session).await;
    assert_eq!(aborted, Ok(()));
    let error = Some(AgentError {
        name: "MessageAbortedError".into(),
        reason: "Aborted".into(),
        aborted: true,
    });
    let ended = Answer {
        completed: true,
        error,
        ..answer(ANSWER, &delivery.agent_message, None)
    };
    assert_eq!(
        world
            .until(&mut stream, |said| matches!(
                said,
                Observation::AnswerUpdated(_)
            ))
            .await,
        [
            Observation::Error {
                name: "MessageAbortedError".into(),
                reason: "Aborted".into(),
            },
            Observation::Idle,
            Observation::Idle,
            Observation::PartEnded {
                answer: ANSWER.into(),
                part: text(PART, "Hello", true),
            },
            Observation::AnswerUpdated(ended),
        ]
    );
    assert_eq!(world.report(&delivery).await.activity, Activity::Idle);
}

#[tokio::test]
async fn errors_say_what_is_certain() {
    let world = World::new(Script::always(vec![Step::text("Hello", 1)])).await;
    let delivery = world.delivery(1, "hi");
    let store = |endpoint: Endpoint| {
        let delivery = &delivery;
        let agent = &world.agent;
        async move { agent.store_message(&endpoint, delivery).await }
    };
    let path = format!("POST /session/{}/message", world.session.id);

    let wrong = Endpoint {
        password: Some(Secret::new("wrong")),
        policy: crate::policy::CallPolicy::default(),
        ..world.endpoint.clone()
    };
    let refused = format!(
        "{path}: the server wants another password than it was given (HTTP 401): \
         OPENCODE_SERVER_PASSWORD is missing or wrong"
    );
    assert_eq!(
        store(wrong).await,
        Err(CallError::RefusedForGood { reason: refused })
    );

    let later = Fault::Refuse {
        status: 429,
        retry_after: Some(7),
    };
    world.agent.fault("POST message", 1, later);
    assert_eq!(
        store(world.endpoint.clone()).await,
        Err(CallError::RefusedForNow {
            retry_after: Some(Duration::from_secs(7)),
            reason: format!("{path}: HTTP 429: refused by the script"),
        })
    );

    let failed = Fault::Refuse {
        status: 500,
        retry_after: None,
    };
    world.agent.fault("POST message", 1, failed);
    assert_eq!(
        store(world.endpoint.clone()).await,
        Err(CallError::Unknown {
            reason: format!("{path}: HTTP 500: refused by the script"),
        })
    );

    world.agent.fault("POST message", 1, Fault::Html);
    assert_eq!(
        store(world.endpoint.clone()).await,
        Err(CallError::Unsupported {
            reason: format!(
                "{path}: no OpenCode server answers there: text/html where application/json was expected"
            ),
        })
    );

    world.agent.fault("POST message", 1, Fault::LoseAnswer);
    let lost = store(world.endpoint.clone()).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert!(
        world.report(&delivery).await.stored,
        "it was done all the same"
    );

    world.agent.fault("GET health", 1, Fault::Hang);
    let slow = world.agent.health(&world.endpoint).await;
    assert!(matches!(slow, Err(CallError::Unknown { .. })), "{slow:?}");

    world.server.stop().await;
    let nobody = store(world.endpoint.clone()).await;
    assert!(
        matches!(nobody, Err(CallError::NeverSent { .. })),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn a_message_far_back_is_found() {
    let world = World::new(Script::always(vec![])).await;
    let first = world.delivery(0, "first");
    world.deliver(&first).await;
    for n in 1..50 {
        let delivery = world.delivery(n, "more");
        let stored = world.agent.store_message(&world.endpoint, &delivery).await;
        assert_eq!(stored, Ok(()));
    }
    let report = world.report(&first).await;
    assert_eq!((report.stored, report.newest), (true, false));
    assert_eq!(report.answers.len(), 1);
}

#[tokio::test]
async fn a_session_is_found_by_its_whole_title() {
    let world = World::new(Script::default()).await;
    let find = |title: &str| {
        let spec = SessionSpec {
            directory: "/project".into(),
            title: title.into(),
        };
        let (agent, endpoint) = (&world.agent, &world.endpoint);
        async move { agent.find_session(endpoint, &spec).await }
    };
    assert_eq!(find("a session").await, Ok(Some(world.session.id.clone())));
    assert_eq!(find("session").await, Ok(None));
}
