//! The scripted agent through its adapter: the same calls and frames as the real one's.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use recount_store::{Choice, Json, MessageId, OutputKind, PermissionAnswer, Prompt, Timestamp};
use serde_json::json;

use super::*;
use crate::adapter::http::{self, NoAnswer, Transport};
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
        [
            "abort",
            "fork",
            "history",
            "permissions",
            "questions",
            "two_phases"
        ]
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
async fn a_death_between_how_an_answer_ended_and_that_it_did_leaves_it_whole() {
    let script = Script::always(vec![Step::text("Hello, world", 2), Step::DieEnding]);
    let mut world = World::new(script).await;
    let mut stream = world.stream().await;
    let delivery = world.delivery(1, "hi");
    world.deliver(&delivery).await;
    while let Some(Ok(_)) = stream.next().await {}

    world.restart().await;
    {
        let store = locked(&world.agent.shared.store);
        let kept = store.session(&world.session.id).expect("a session");
        let info = kept.message(ANSWER).expect("an answer").info();
        assert_eq!(info["time"].get("completed"), None, "{info}");
    }
    let whole = ReportedAnswer {
        answer: answer(ANSWER, &delivery.agent_message, Some("stop")),
        refused: false,
        items: vec![AnswerItem::Output(text(PART, "Hello, world", true))],
    };
    let report = world.report(&delivery).await;
    assert_eq!(report.answers, [whole]);

    // Asked again it does nothing, as the real agent does.
    world.deliver(&delivery).await;
    assert_eq!(world.report(&delivery).await, report);
    assert_eq!(world.agent.runs("hi"), 1);
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

/// What to do for a prompt: each answer is the prompt's own, and one calls a tool first.
fn echo() -> Script {
    Script::new(|prompt, _| {
        let answer = Step::text(format!("answer to {prompt}"), 2);
        if prompt != "two" {
            return vec![answer];
        }
        let tool = Step::Tool {
            name: "bash".into(),
            input: json!({"command": "ls"}),
            output: "files".into(),
            permission: None,
            delay: Duration::ZERO,
        };
        vec![Step::text("looking", 1), tool, answer]
    })
}

impl World {
    /// A session of three turns, the middle one with a tool; and what was delivered.
    async fn three_turns(script: Script) -> (Self, [Delivery; 3]) {
        let world = Self::new(script).await;
        let mut stream = world.stream().await;
        let deliveries = [(1, "one"), (2, "two"), (3, "three")];
        let deliveries = deliveries.map(|(n, text)| world.delivery(n, text));
        for delivery in &deliveries {
            world.deliver(delivery).await;
            world.ended(&mut stream).await;
        }
        (world, deliveries)
    }

    /// Copies the session through the message that the agent knows by this name.
    async fn fork(&self, through: &str) -> Result<AgentSession, CallError> {
        self.fork_of(&self.session.id, through).await
    }

    async fn fork_of(&self, session: &str, through: &str) -> Result<AgentSession, CallError> {
        let origin = Origin {
            agent_session: session.to_owned(),
            through: through.to_owned(),
        };
        let spec = self.spec_of_copy();
        let copy = self.agent.fork_session(&self.endpoint, &spec, &origin);
        Ok(AgentSession {
            id: copy.await?,
            directory: spec.directory,
        })
    }

    fn spec_of_copy(&self) -> SessionSpec {
        SessionSpec {
            directory: self.session.directory.clone(),
            title: "a copy".into(),
        }
    }

    async fn find_copy(&self) -> Option<String> {
        let spec = self.spec_of_copy();
        let found = self.agent.find_session(&self.endpoint, &spec).await;
        found.expect("an answer")
    }

    /// A session's messages as they are listed, without what is a copy's own: ids are told as places of messages.
    fn said(&self, session: &AgentSession) -> Vec<serde_json::Value> {
        let store = locked(&self.agent.shared.store);
        let session = store.session(&session.id).expect("it is kept");
        let place = |id: &str| session.messages.iter().position(|m| m.id == id);
        let listed = session.messages.iter().enumerate().map(|(at, message)| {
            let mut listed = message.listed();
            assert_eq!(listed["info"]["sessionID"], session.id);
            listed["info"]["sessionID"] = json!(null);
            listed["info"]["id"] = json!(at);
            if let Some(parent) = listed["info"]["parentID"].as_str() {
                let parent = place(parent).expect("it answers a message of its own session");
                listed["info"]["parentID"] = json!(parent);
            }
            for part in listed["parts"].as_array_mut().into_iter().flatten() {
                assert_eq!(part["messageID"], message.id);
                assert_eq!(part["sessionID"], session.id);
                for own in ["id", "messageID", "sessionID"] {
                    part[own] = json!(null);
                }
            }
            listed
        });
        listed.collect()
    }
}

#[tokio::test]
async fn a_copy_holds_everything_through_a_message_and_the_original_stays() {
    let (world, deliveries) = World::three_turns(echo()).await;
    let original = world.said(&world.session);
    // A message and an answer, then two answers since there is a tool between them, then as the first.
    for (delivery, messages) in deliveries.iter().zip([2, 5, 7]) {
        let copy = world.fork(&delivery.agent_message).await;
        let copy = copy.expect("a copy");
        assert_eq!(world.said(&copy), original[..messages]);
        assert_ne!(copy.id, world.session.id);
    }
    assert_eq!(world.said(&world.session), original);
    let spec = SessionSpec {
        directory: "/project".into(),
        title: "a session".into(),
    };
    let found = world.agent.find_session(&world.endpoint, &spec).await;
    assert_eq!(found, Ok(Some(world.session.id.clone())));
}

#[tokio::test]
async fn a_copy_is_worked_in_like_any_other() {
    let (world, [_, second, third]) = World::three_turns(echo()).await;
    let original = world.said(&world.session);
    let copy = world.fork(&second.agent_message).await.expect("a copy");
    assert_eq!(world.find_copy().await, Some(copy.id.clone()));
    let mut stream = world.stream().await;
    let delivery = Delivery {
        session: copy.clone(),
        ..world.delivery(4, "four")
    };
    world.deliver(&delivery).await;
    world.ended(&mut stream).await;
    let report = world.report(&delivery).await;
    let items: Vec<_> = report.answers.into_iter().flat_map(|a| a.items).collect();
    let [AnswerItem::Output(part)] = &items[..] else {
        panic!("one text: {items:#?}")
    };
    assert_eq!(part.text, "answer to four");
    // What it holds is its own: the messages before the copy are known by other names in it.
    let known = Delivery {
        session: copy,
        ..third
    };
    assert!(!world.report(&known).await.stored);
    assert_eq!(world.said(&world.session), original);
    assert_eq!(world.agent.runs("two"), 1, "a copy asks no model");
}

#[tokio::test]
async fn a_copy_is_told_before_what_is_in_it() {
    let (world, [first, ..]) = World::three_turns(echo()).await;
    let mut stream = world.stream().await;
    let copy = world.fork(&first.agent_message).await.expect("a copy");
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "session.updated") {
        let item = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let item = item.unwrap_or_else(|_| panic!("silent after {kinds:#?}"));
        let StreamItem::Frame(frame) = item.expect("a stream").expect("a frame") else {
            continue;
        };
        let frame: serde_json::Value = serde_json::from_str(&frame.data).expect("JSON");
        let (payload, kind) = (&frame["payload"], &frame["payload"]["type"]);
        if payload["properties"]["sessionID"] == copy.id {
            kinds.push(kind.as_str().expect("a kind").to_owned());
        }
    }
    let message = ["message.updated", "message.part.updated"];
    let told = [
        &["session.created"][..],
        &message,
        &message,
        &["session.updated"],
    ];
    assert_eq!(kinds, told.concat());
}

#[tokio::test]
async fn a_copy_that_cannot_be_is_refused_for_good() {
    let (world, [first, ..]) = World::three_turns(echo()).await;
    let id = &world.session.id;
    let refused = |why: &str| {
        let reason = format!("the session {id} cannot be copied: {why}");
        Err(CallError::RefusedForGood { reason })
    };
    let unknown = world.fork("msg_unknown").await;
    assert_eq!(unknown, refused("it has no message msg_unknown"));
    // The agent's own messages are no messages of ours.
    let by_agent = world.fork(ANSWER).await;
    assert_eq!(by_agent, refused(&format!("it has no message {ANSWER}")));
    assert_eq!(
        world.fork_of("ses_unknown", &first.agent_message).await,
        Err(CallError::NoSuchSession {
            reason: "GET /session/ses_unknown/message: HTTP 404: Session not found".into(),
        })
    );
    // Run again behind the others, it is answered there.
    let mut stream = world.stream().await;
    world.deliver(&first).await;
    world.ended(&mut stream).await;
    let late = world.report(&first).await.answers.pop();
    let late = late.expect("an answer").answer.id;
    assert_eq!(
        world.fork(&first.agent_message).await,
        refused(&format!(
            "{late}, an answer to {}, came after the next message",
            first.agent_message
        ))
    );
    assert_eq!(world.agent.sessions(), 1);
}

#[tokio::test]
async fn an_agent_that_cannot_copy_says_so() {
    let (world, [first, ..]) = World::three_turns(echo().without_fork()).await;
    let refused = world.fork(&first.agent_message).await;
    assert!(
        matches!(refused, Err(CallError::Unsupported { .. })),
        "{refused:?}"
    );
    assert_eq!(world.agent.sessions(), 1);
    let words = world.agent.capabilities(&world.endpoint).await;
    assert!(!words.expect("an answer").contains(&"fork".to_owned()));
}

#[tokio::test]
async fn a_copy_of_unknown_outcome_is_found_or_made_anew() {
    let (world, [first, ..]) = World::three_turns(echo()).await;
    let through = &first.agent_message;
    let is_unknown = |copy| matches!(copy, Err(CallError::Unknown { .. }));

    // It was made, and never got its title: it stays, and another one is made.
    world.agent.fault("POST fork", 1, Fault::LoseAnswer);
    assert!(is_unknown(world.fork(through).await));
    assert_eq!(world.find_copy().await, None);
    assert_eq!(world.agent.sessions(), 2);

    // It got its title.
    let rename = "PATCH ses_000000000002Scripted000000";
    world.agent.fault(rename, 1, Fault::LoseAnswer);
    assert!(is_unknown(world.fork(through).await));
    let copy = world.find_copy().await.expect("it has its title");
    let copy = AgentSession {
        id: copy,
        directory: "/project".into(),
    };
    assert_eq!(world.said(&copy), world.said(&world.session)[..2]);
}

/// A way to a server on which something happens before a copy is made.
#[derive(Debug)]
struct Meanwhile {
    server: PortlessServer,
    agent: Scripted,
    change: fn(&mut Store, &str),
}

#[async_trait]
impl Transport for Meanwhile {
    async fn send(&self, request: http::Request) -> Result<http::Response, NoAnswer> {
        let path = request.url.path().to_owned();
        if let Some(session) = path
            .strip_prefix("/session/")
            .and_then(|path| path.strip_suffix("/fork"))
        {
            (self.change)(&mut locked(&self.agent.shared.store), session);
        }
        let answer = self.server.answer(request).await;
        Ok(answer.expect("a server that lives"))
    }
}

#[tokio::test]
async fn a_copy_that_holds_other_messages_than_it_should_gets_no_title() {
    let (world, [_, second, third]) = World::three_turns(echo()).await;
    let copy_after = async |through: &Delivery, change| {
        let meanwhile = Meanwhile {
            server: world.agent.serve_without_port("/project", None),
            agent: world.agent.clone(),
            change,
        };
        let opencode = OpenCode::over(Arc::new(meanwhile));
        let origin = Origin {
            agent_session: world.session.id.clone(),
            through: through.agent_message.clone(),
        };
        let spec = world.spec_of_copy();
        opencode.fork_session(&world.endpoint, &spec, &origin).await
    };
    let other = |copy: usize, held: usize, expected: usize| {
        Err(CallError::Unknown {
            reason: format!(
                "the copy ses_{copy:012x}Scripted000000 holds other messages than it should: \
                 {held} instead of {expected}"
            ),
        })
    };

    // One comes behind the last.
    let copy = copy_after(&third, |store, session| {
        let number = store.session(session).expect("it is kept").number();
        let kept = store.keep(number, "msg_more", vec![], 0);
        kept.expect("it is kept");
    });
    assert_eq!(copy.await, other(1, 8, 7));

    // The first that is not to be copied goes: then everything is copied.
    let copy = copy_after(&second, |store, session| {
        let session = store.session_mut(session).expect("it is kept");
        session.messages.remove(5);
    });
    assert_eq!(copy.await, other(2, 7, 5));
    assert_eq!(world.find_copy().await, None);
}

#[test]
fn a_copy_is_called_after_what_it_is_a_copy_of() {
    for (title, copy) in [
        ("a session", "a session (fork #1)"),
        ("a session (fork #1)", "a session (fork #2)"),
        ("(fork #x)", "(fork #x) (fork #1)"),
    ] {
        assert_eq!(store::title_of_copy(title), copy);
    }
}
