//! An engine with the real agent: what the model said is what the log has, whatever happens on the way.

use std::time::Duration;

use recount_engine::{
    MessageState, PermissionAnswer, RerunPolicy, Session, SessionManager, Status,
};
use recount_projections::turn::{Answered, Asks, Question, Run};
use recount_projections::{Projection, TurnState};
use recount_store::{
    Choice, Event, Position, Prompt, Recorded, Rerun, Select, Snapshot, StreamId, derived,
};
use recount_tests::engine::{
    Scene, answer, ask, connection_events, events, kill_9, server_pid, settled, transcript,
};
use recount_tests::provider::Outcome;
use recount_tests::provider::script::expected_text;
use recount_tests::timing::within;
use serde_json::json;

/// For what takes a second or two on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(60);

/// An engine, and a session whose server it starts.
async fn begun() -> (Scene, SessionManager, Session) {
    let scene = Scene::new();
    let manager = SessionManager::start(scene.options()).await.unwrap();
    let session = scene.open(&manager).await;
    (scene, manager, session)
}

/// What an event is called.
fn name(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    json["type"].as_str().unwrap().to_owned()
}

fn count(events: &[Recorded], wanted: impl Fn(&Event) -> bool) -> usize {
    events
        .iter()
        .filter(|recorded| wanted(&recorded.event))
        .count()
}

#[tokio::test]
async fn an_answer_is_recorded_byte_for_byte() {
    let (scene, manager, session) = begun().await;
    let stream = StreamId::Session(session.id());
    for prompt in [
        "fake:plain words=20 chunks=5",
        "fake:utf8 words=200 split=5 delay=0",
        "fake:reason words=15",
        "fake:huge bytes=300000",
        "fake:long delay=0",
    ] {
        let message = ask(&session, prompt).await;
        let text = answer(manager.log(), &session, message);
        assert!(
            text == scene.provider.texts_for(prompt).concat(),
            "{prompt}"
        );
        assert!(text == expected_text(prompt), "{prompt}");
        assert_eq!(scene.provider.outcomes_for(prompt), [Outcome::Done]);
        // The end compares a load from a snapshot: this one, and what came after it.
        if prompt.starts_with("fake:reason") {
            let state = session.state().unwrap();
            let snapshot = Snapshot {
                fold_version: recount_projections::Session::VERSION,
                seq: state.seq,
                bytes: derived::encode(&state),
            };
            let name = recount_projections::Session::NAME;
            manager.log().put_snapshot(stream, name, snapshot);
        }
    }
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_tool_runs_once_it_is_permitted() {
    let (scene, manager, session) = begun().await;
    let prompt = "fake:bash cmd=echo+permitted";
    let message = session.send(prompt, None).await.unwrap();
    let question = question(&session).await;
    let asks = Asks::Permission {
        action: "bash".to_owned(),
        detail: "echo permitted".to_owned(),
    };
    assert_eq!(question.asks, asks);
    session.answer(None, PermissionAnswer::Once).await.unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Completed);

    let transcript = transcript(manager.log(), &session);
    let turn = transcript.turn_of(message).unwrap();
    assert_eq!(turn.text(), scene.provider.texts_for(prompt).concat());
    let calls: Vec<_> = turn.run().calls().collect();
    let [call] = calls[..] else {
        panic!("one call: {calls:#?}")
    };
    assert_eq!(call.tool, "bash");
    let (_, output) = call.outcome.as_ref().unwrap();
    assert_eq!(output.trim(), "permitted");
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_tool_that_is_refused_ends_the_turn() {
    let (scene, manager, session) = begun().await;
    let prompt = "fake:bash cmd=touch+made";
    let message = session.send(prompt, None).await.unwrap();
    question(&session).await;
    session
        .answer(None, PermissionAnswer::Reject)
        .await
        .unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Failed);
    let state = session.state().unwrap();
    assert_eq!(
        state.turn.unwrap().ending.unwrap(),
        "permission was refused: bash touch made"
    );
    assert!(!scene.home.project_dir().join("made").exists());
    assert_eq!(scene.provider.calls_for(prompt).len(), 1);
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_message_that_steers_is_answered_by_the_run_that_was_at_work() {
    let (scene, manager, session) = begun().await;
    let write = json!({"name": "write", "args": {"filePath": "made.txt", "content": "made"}});
    let steps = json!({"steps": [
        {"text": "I write. ", "gate": "steered", "tools": [write]},
        {"text": "What the steering message replaces."},
    ]});
    let (works, steers) = (format!("fake:{steps}"), "fake:plain text=Instead+this.");
    let first = session.send(&works, None).await.unwrap();
    scene.provider.reached_gate("steered").await;
    let second = session.steer(steers, None).await.unwrap();
    let held = session.wait(|state| {
        let second = state.queue.get(second)?;
        (second.state == MessageState::Accepted).then_some(())
    });
    within(SOON, "the agent to hold it", held).await.unwrap();
    scene.provider.open_gate("steered");
    for message in [first, second] {
        assert_eq!(settled(&session, message).await, MessageState::Completed);
    }

    // Each step of the one run asked the model once, and what it said stands in the turn that it answers.
    let log = manager.log();
    assert_eq!(answer(log, &session, first), "I write. ");
    assert_eq!(answer(log, &session, second), "Instead this.");
    assert_eq!(scene.provider.outcomes_for(&works), [Outcome::Done]);
    assert_eq!(scene.provider.outcomes_for(steers), [Outcome::Done]);
    assert!(scene.home.project_dir().join("made.txt").exists());
    let transcript = transcript(log, &session);
    let tools = |message| transcript.turn_of(message).unwrap().tools_begun().count();
    assert_eq!((tools(first), tools(second)), (1, 0));
    let all = events(log, StreamId::Session(session.id()));
    let requested = count(&all, |event| matches!(event, Event::TurnRequested { .. }));
    assert_eq!(requested, 1, "the second was not started: {all:#?}");
    scene.end(manager, &[session]).await;
}

/// A prompt whose model asks two questions in words by the agent's own tool, and then goes on.
fn asking() -> String {
    let option = |label: &str| json!({"label": label, "description": format!("Like {label}")});
    let questions = json!([
        {"header": "Colour", "question": "Which colour?", "options": [option("red"), option("blue")]},
        {"header": "Tests", "question": "Which tests?", "options": [option("unit"), option("sim")],
         "multiple": true},
    ]);
    let call = json!({"name": "question", "args": {"questions": questions}});
    let steps = json!({"steps": [{"text": "I ask. ", "tools": [call]}, {"text": "Done."}]});
    format!("fake:{steps}")
}

/// Waits until the agent asks, and gives what.
async fn question(session: &Session) -> Question {
    let asked = session.wait(|state| {
        let turn = state.turn.as_ref().filter(|_| state.questions_open())?;
        turn.open_questions().next().cloned()
    });
    within(SOON, "the question", asked).await.unwrap()
}

fn words(answers: [&[&str]; 2]) -> Vec<Vec<String>> {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    answers.map(texts).to_vec()
}

#[tokio::test]
async fn a_question_in_words_is_answered_in_words() {
    let (scene, manager, session) = begun().await;
    let prompt = asking();
    let message = session.send(&prompt, None).await.unwrap();
    let asked = question(&session).await;
    let choice = |label: &str| Choice {
        label: label.to_owned(),
        about: format!("Like {label}"),
    };
    let prompts = vec![
        Prompt {
            header: "Colour".to_owned(),
            text: "Which colour?".to_owned(),
            options: vec![choice("red"), choice("blue")],
            multiple: false,
            custom: true,
        },
        Prompt {
            header: "Tests".to_owned(),
            text: "Which tests?".to_owned(),
            options: vec![choice("unit"), choice("sim")],
            multiple: true,
            custom: true,
        },
    ];
    assert_eq!(asked.asks, Asks::Words(prompts));
    // One that is chosen, one that is written.
    let answers = words([&["blue"], &["unit", "my own"]]);
    let given = session.answer_question(Some(&asked.id), answers.clone());
    given.await.unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Completed);

    let transcript = transcript(manager.log(), &session);
    let turn = transcript.turn_of(message).unwrap();
    assert_eq!(turn.text(), "I ask. Done.");
    let answered = Question {
        answer: Some(Answered::Words(answers)),
        settled: true,
        ..asked
    };
    assert_eq!(turn.questions, [answered]);
    let calls: Vec<_> = turn.run().calls().collect();
    let [call] = calls[..] else {
        panic!("one call: {calls:#?}")
    };
    let (_, output) = call.outcome.as_ref().unwrap();
    let expected = r#""Which colour?"="blue", "Which tests?"="unit, my own""#;
    assert!(output.contains(expected), "{output}");
    assert_eq!(scene.provider.calls_for(&prompt).len(), 2);
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_question_that_is_refused_ends_the_turn() {
    let (scene, manager, session) = begun().await;
    let prompt = asking();
    let message = session.send(&prompt, None).await.unwrap();
    let asked = question(&session).await;
    session.refuse_question(Some(&asked.id)).await.unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Failed);
    let turn = session.state().unwrap().turn.unwrap();
    let refused = Question {
        answer: Some(Answered::Reject),
        settled: true,
        ..asked
    };
    assert_eq!(turn.questions, [refused]);
    assert_eq!(
        turn.ending.unwrap(),
        "its question was refused: Which colour? / Which tests?"
    );
    assert_eq!(scene.provider.calls_for(&prompt).len(), 1);
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn what_an_agent_asks_in_words_dies_with_it() {
    let scene = Scene::new();
    let mut options = scene.options();
    options.policy.session.rerun = RerunPolicy::Auto;
    let manager = SessionManager::start(options).await.unwrap();
    let session = scene.open(&manager).await;
    let message = session.send(&asking(), None).await.unwrap();
    let asked = question(&session).await;
    kill_9(server_pid(manager.log(), &session));
    // The next run sees that the tool was interrupted, and the script goes on behind it.
    assert_eq!(settled(&session, message).await, MessageState::Completed);
    let turn = session.state().unwrap().turn.unwrap();
    assert_eq!(turn.text(), "Done.");
    assert_eq!(turn.runs.len(), 2);
    let gone = Question {
        settled: true,
        ..asked
    };
    assert_eq!(turn.questions, [gone]);
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn two_sessions_share_a_server_and_a_stream_and_nothing_else() {
    let scene = Scene::new();
    let manager = SessionManager::start(scene.options()).await.unwrap();
    let sessions = [scene.open(&manager).await, scene.open(&manager).await];
    let prompts = ["left", "right"]
        .map(|name| format!("fake:gate name={name} after=2 chunks=40 words=400 delay=2 id={name}"));
    let mut messages = Vec::new();
    for (session, prompt) in sessions.iter().zip(&prompts) {
        messages.push(session.send(prompt, None).await.unwrap());
    }
    // Both are in the middle of their answers at the same time.
    for name in ["left", "right"] {
        scene.provider.reached_gate(name).await;
    }
    let servers = scene.home.marker().processes();
    assert_eq!(servers.len(), 1, "{servers:#?}");
    for name in ["left", "right"] {
        scene.provider.open_gate(name);
    }
    let agent = scene.agent(manager.log());
    for ((session, prompt), message) in sessions.iter().zip(&prompts).zip(messages) {
        assert_eq!(settled(session, message).await, MessageState::Completed);
        let text = answer(manager.log(), session, message);
        assert_eq!([text], *scene.provider.texts_for(prompt));
        let stored = agent
            .messages(&session.state().unwrap().agent_session.unwrap())
            .await;
        let roles: Vec<_> = stored.iter().map(|stored| stored.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant"]);
        assert_eq!(stored[0].texts, [prompt.as_str()]);
    }
    let connection = connection_events(manager.log(), &sessions[0]);
    assert_eq!(connection, connection_events(manager.log(), &sessions[1]));
    assert_eq!(
        count(&connection, |event| matches!(
            event,
            Event::ServerSpawned { .. }
        )),
        1
    );
    assert_eq!(
        count(&connection, |event| matches!(event, Event::StreamOpened)),
        1
    );
    scene.end(manager, &sessions).await;
}

#[tokio::test]
async fn a_server_killed_in_an_answer_is_started_again_and_the_message_answered_once() {
    let (scene, manager, session) = begun().await;
    let prompt = "fake:gate name=middle after=2 chunks=6 words=60";
    let message = session.send(prompt, None).await.unwrap();
    scene.provider.reached_gate("middle").await;
    let part = scene.provider.texts_for(prompt).concat();
    let seen = session.wait(|state| {
        let turn = state.turn.as_ref()?;
        (turn.text() == part).then_some(())
    });
    within(SOON, "what came before the gate", seen)
        .await
        .unwrap();
    let before = connection_events(manager.log(), &session);
    let first = server_pid(manager.log(), &session);
    kill_9(first);

    scene.provider.asked(prompt, 2).await;
    scene.provider.open_gate("middle");
    assert_eq!(settled(&session, message).await, MessageState::Completed);

    // Two runs, and the text of both is kept.
    assert_eq!(
        scene.provider.outcomes_for(prompt),
        [Outcome::ClientGone, Outcome::Done]
    );
    let transcript = transcript(manager.log(), &session);
    let turn = transcript.turn_of(message).unwrap();
    let runs: Vec<_> = turn.runs.iter().map(Run::text).collect();
    assert_eq!(runs, [part, expected_text(prompt)]);
    assert_eq!(runs, scene.provider.texts_for(prompt));

    // The fall and the return are in the log.
    assert_ne!(server_pid(manager.log(), &session), first);
    let mut after = connection_events(manager.log(), &session).split_off(before.len());
    // A busy machine is slow to answer probes; that is another matter.
    after.retain(|r| !matches!(r.event, Event::ProbeFailed { .. } | Event::ProbeRecovered));
    let mut after: Vec<_> = after.iter().map(|recorded| name(&recorded.event)).collect();
    // The end of the process and that of its stream are seen in either order.
    after[..4].sort_unstable();
    assert_eq!(
        after,
        [
            "ConnectionChanged",
            "ReconnectScheduled",
            "ServerExited",
            "StreamLost",
            "ConnectionChanged",
            "ServerStartDecided",
            "ServerSpawned",
            "ServerReady",
            "StreamOpened",
            "ConnectionChanged",
        ]
    );
    let events = events(manager.log(), StreamId::Session(session.id()));
    let interrupted = count(&events, |event| {
        matches!(event, Event::TurnInterrupted { run: 1, .. })
    });
    let decided = |event: &Event| {
        matches!(
            event,
            Event::RerunDecided {
                run: 1,
                rerun: Rerun::Run,
                ..
            }
        )
    };
    assert_eq!((interrupted, count(&events, decided)), (1, 1));

    // The agent holds the message once, and one answer that has an end.
    let stored = scene
        .agent(manager.log())
        .messages(&session.state().unwrap().agent_session.unwrap())
        .await;
    let asked: Vec<_> = stored
        .iter()
        .filter(|stored| stored.role == "user")
        .collect();
    let ended: Vec<_> = stored
        .iter()
        .filter(|stored| stored.role == "assistant" && stored.completed)
        .collect();
    assert_eq!((asked.len(), ended.len()), (1, 1), "{stored:#?}");
    assert_eq!(asked[0].texts, [prompt]);
    assert_eq!(ended[0].texts, [expected_text(prompt)]);
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn trouble_with_the_model_is_reported_as_the_agent_tells_it() {
    let (scene, manager, session) = begun().await;

    // What passes is retried by the agent itself: the message is delivered once, and answered.
    for (prompt, refused) in [
        (
            "fake:error status=429 times=1 retry=1",
            Outcome::Refused(429),
        ),
        ("fake:error status=500 times=1", Outcome::Refused(500)),
        ("fake:cut after=2 times=1 chunks=4", Outcome::Cut),
    ] {
        let from = session.state().unwrap().seq;
        let message = ask(&session, prompt).await;
        assert_eq!(
            scene.provider.outcomes_for(prompt),
            [refused, Outcome::Done]
        );
        let text = answer(manager.log(), &session, message);
        assert_eq!(text, expected_text(prompt));
        assert_eq!(Some(&text), scene.provider.texts_for(prompt).last());
        let events: Vec<_> = manager
            .log()
            .read(StreamId::Session(session.id()), from.next())
            .map(Result::unwrap)
            .collect();
        let retried = |event: &Event| matches!(event, Event::AgentRetried { attempt: 1, .. });
        assert_eq!(count(&events, retried), 1, "{prompt}: {events:#?}");
        let delivered = |event: &Event| matches!(event, Event::DeliveryStarted { .. });
        assert_eq!(count(&events, delivered), 1, "{prompt}");
    }

    // What does not pass ends the turn, and the next message is none the worse for it.
    let prompt = "fake:error status=401 times=1";
    let message = session.send(prompt, None).await.unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Failed);
    let ending = session.state().unwrap().turn.unwrap().ending.unwrap();
    assert!(ending.contains("scripted HTTP 401"), "{ending}");
    assert_eq!(scene.provider.outcomes_for(prompt), [Outcome::Refused(401)]);
    ask(&session, "fake:plain text=after+the+trouble").await;
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_model_that_never_answers_is_given_up_in_time() {
    let scene = Scene::new();
    let mut options = scene.options();
    // Longer than a cold server on a busy machine takes for its first sign.
    options.policy.session.silence_max = Duration::from_secs(20);
    let manager = SessionManager::start(options).await.unwrap();
    let session = scene.open(&manager).await;
    ask(&session, "fake:plain text=the+server+is+warm").await;

    let prompt = "fake:hang secs=600";
    let message = session.send(prompt, None).await.unwrap();
    let failed = within(SOON, "the turn to be given up", session.settled(message)).await;
    assert_eq!(failed.unwrap(), MessageState::Failed);
    let turn = session.state().unwrap().turn.unwrap();
    assert_eq!(turn.ending, turn.stalled, "{turn:#?}");
    assert_eq!(scene.provider.outcomes_for(prompt), [Outcome::ClientGone]);
    assert!(
        scene.agent(manager.log()).statuses().await.is_empty(),
        "the agent works on"
    );
    ask(&session, "fake:plain text=after+the+silence").await;
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn forty_messages_arrive_once_and_in_order_though_the_server_is_killed_again_and_again() {
    const SEED: u64 = 0x5eed;
    let scene = Scene::new();
    let mut options = scene.options();
    options.policy.session.rerun = RerunPolicy::Auto;
    options.policy.session.runs_max = 100;
    // Without it a server that dies young every time is left alone for longer each time.
    options.policy.connection.held_after = Duration::ZERO;
    let manager = SessionManager::start(options).await.unwrap();
    let session = scene.open(&manager).await;
    let prompts: Vec<_> = (0..40)
        .map(|n| format!("fake:plain words=8 chunks=8 delay=40 id={n:03}"))
        .collect();
    let mut messages = Vec::new();
    for prompt in &prompts {
        messages.push(session.send(prompt, None).await.unwrap());
    }
    // A server lives for so many events of the session, not for so long: thus it is killed at any point of a
    // delivery, and the messages come through on a machine of any speed.
    let killing = async {
        let mut chance = SEED;
        let mut draw = move |below: u64| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (chance >> 33) % below
        };
        let opening = session.state().unwrap().opening.unwrap();
        let streams = [
            StreamId::Connection(opening.connection),
            StreamId::Session(session.id()),
        ];
        let mut tail = manager
            .log()
            .tail(Select::Streams(streams.into()), Position(0).next());
        let (mut server, mut left) = (None, 0);
        for killed in 0.. {
            while server.is_none() || left > 0 {
                // One that was asked and says nothing more would live for minutes.
                let Ok(next) = tokio::time::timeout(Duration::from_secs(30), tail.next()).await
                else {
                    left = 0;
                    continue;
                };
                match next.unwrap().unwrap().event {
                    Event::ServerSpawned { pid, .. } => (server, left) = (Some(pid), draw(80)),
                    _ => left = left.saturating_sub(1),
                }
            }
            tokio::time::sleep(Duration::from_millis(draw(50))).await;
            kill_9(server.take().unwrap());
            println!("killed {} servers", killed + 1);
        }
    };
    let answering = session.settled(*messages.last().unwrap());
    tokio::select! {
        answered = within(Duration::from_secs(400), "40 answers", answering) => drop(answered.unwrap()),
        () = killing => unreachable!(),
    }
    let spawned = |event: &Event| matches!(event, Event::ServerSpawned { .. });
    let servers = count(&connection_events(manager.log(), &session), spawned);
    assert!(servers > 5, "only {servers} servers");

    // In the log: each answered, with what the model said last.
    let transcript = transcript(manager.log(), &session);
    for (message, prompt) in messages.iter().zip(&prompts) {
        let turn = transcript.turn_of(*message).unwrap();
        let ending = &turn.ending;
        assert_eq!(turn.state, TurnState::Completed, "{prompt}: {ending:?}");
        assert_eq!(turn.text(), expected_text(prompt), "{prompt}");
        assert!(
            scene.provider.calls_for(prompt).len() <= turn.runs.len(),
            "{prompt}"
        );
    }
    // At the agent: each once, in order, with one answer that has an end.
    let stored = scene
        .agent(manager.log())
        .messages(&session.state().unwrap().agent_session.unwrap())
        .await;
    let asked: Vec<_> = stored
        .iter()
        .filter(|stored| stored.role == "user")
        .collect();
    let texts: Vec<_> = asked.iter().map(|stored| stored.texts.concat()).collect();
    assert_eq!(texts, prompts);
    for (asked, prompt) in asked.iter().zip(&prompts) {
        let answers = stored
            .iter()
            .filter(|s| s.parent.as_ref() == Some(&asked.id) && s.completed);
        let answers: Vec<_> = answers.map(|answer| answer.texts.concat()).collect();
        assert_eq!(answers, [expected_text(prompt)], "{prompt}");
    }
    scene.end(manager, &[session]).await;
}

#[tokio::test]
async fn a_turn_that_dies_with_its_tool_at_work_waits_for_a_persons_word() {
    let (scene, manager, session) = begun().await;
    let prompt = "fake:bash cmd=sleep+300";
    let message = session.send(prompt, None).await.unwrap();
    question(&session).await;
    session.answer(None, PermissionAnswer::Once).await.unwrap();
    let tool = || {
        let mut processes = scene.home.marker().processes();
        processes.retain(|_, line| line.trim() == "sleep 300");
        processes.len()
    };
    let begun = async {
        while tool() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(SOON, "the tool to begin", begun).await;
    kill_9(server_pid(manager.log(), &session));

    let rest = within(
        Duration::from_secs(90),
        "the session to rest",
        session.at_rest(),
    );
    assert_eq!(rest.await.unwrap(), Status::Waiting);
    let state = session.state().unwrap();
    assert_eq!(
        state.queue.get(message).unwrap().state,
        MessageState::Waiting
    );
    assert_eq!(scene.provider.calls_for(prompt).len(), 1);
    // It outlived the server that ran it, and was ended all the same.
    assert_eq!(tool(), 0);

    session.rerun(false).await.unwrap();
    assert_eq!(settled(&session, message).await, MessageState::Failed);
    ask(&session, "fake:plain text=and+the+next+one").await;
    scene.end(manager, &[session]).await;
}
