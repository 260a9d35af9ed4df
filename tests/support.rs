//! What the other tests stand on holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use expect_test::expect;
use recount_tests::agent_http::{Agent, Message};
use recount_tests::chance::{Chance, Deck};
use recount_tests::fixture::{FIXTURES, fixture};
use recount_tests::opencode::{Home, Server, ServerOptions};
use recount_tests::process::{Running, recount};
use recount_tests::provider::script::{expected_text, expected_texts};
use recount_tests::provider::{Call, Outcome, Provider};
use recount_tests::proxy::{Fault, Faults, Proxy};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

/// Asks the model as an agent does.
async fn ask(provider: &Provider, messages: Value) -> Response {
    let body = json!({ "model": "fake-1", "stream": true, "messages": messages });
    let url = format!("{}/chat/completions", provider.url());
    Client::new().post(url).json(&body).send().await.unwrap()
}

async fn ask_user(provider: &Provider, prompt: &str) -> Response {
    ask(provider, json!([{ "role": "user", "content": prompt }])).await
}

/// Everything of an answer's body, piece by piece as it was read, and the error that it ended with.
async fn read(mut answer: Response) -> (Vec<Vec<u8>>, Option<reqwest::Error>) {
    let mut pieces = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => pieces.push(piece.to_vec()),
            Ok(None) => return (pieces, None),
            Err(error) => return (pieces, Some(error)),
        }
    }
}

/// The deltas of one field in an answer's body, joined.
fn joined(body: &[Vec<u8>], field: &str) -> String {
    let body = String::from_utf8(body.concat()).unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    chunks
        .filter_map(|c| Some(c["choices"][0]["delta"][field].as_str()?.to_owned()))
        .collect()
}

async fn answered_text(answer: Response) -> String {
    assert_eq!(answer.status(), StatusCode::OK);
    let (body, error) = read(answer).await;
    assert!(error.is_none(), "{error:?}");
    joined(&body, "content")
}

fn outcomes(calls: &[Call]) -> Vec<(u64, Outcome)> {
    calls
        .iter()
        .map(|call| (call.attempt, call.outcome.clone()))
        .collect()
}

#[tokio::test]
async fn what_is_sent_is_what_the_script_says() {
    let provider = Provider::start();
    let scripts = [
        "fake:plain words=20 chunks=5 delay=1",
        "fake:plain text=good+day",
        "fake:long words=500 chunks=100 delay=0",
        "fake:utf8 words=40 delay=0",
        "fake:huge bytes=300000",
        "fake:hang secs=0 delay=0",
        "fake:gate name=open",
        "no script at all",
    ];
    provider.open_gate("open");
    for script in scripts {
        let text = answered_text(ask_user(&provider, script).await).await;
        assert_eq!(text, expected_text(script));
        assert_eq!(provider.texts_for(script), [text]);
        assert_eq!(outcomes(&provider.calls_for(script)), [(1, Outcome::Done)]);
    }
    assert_eq!(provider.calls().len(), scripts.len());
    provider.reset();
    assert!(provider.calls().is_empty());
}

#[tokio::test]
async fn models_are_listed() {
    let provider = Provider::start();
    let answer = Client::new()
        .get(format!("{}/models", provider.url()))
        .send()
        .await
        .unwrap();
    let models: Value = answer.json().await.unwrap();
    assert_eq!(models["data"][0]["id"], "fake-1");
}

#[tokio::test]
async fn reasoning_is_apart_from_the_text() {
    let provider = Provider::start();
    let (body, _) = read(ask_user(&provider, "fake:reason words=3").await).await;
    assert_eq!(
        joined(&body, "content"),
        expected_text("fake:reason words=3")
    );
    assert!(joined(&body, "reasoning_content").starts_with("thinking about alpha0"));
    assert_eq!(
        provider.texts_for("fake:reason"),
        ["alpha0 bravo1 charlie2"]
    );
}

#[tokio::test]
async fn writes_are_split_inside_characters() {
    let provider = Provider::start();
    let (body, _) = read(ask_user(&provider, "fake:utf8 split=5 delay=0").await).await;
    assert!(body.iter().all(|piece| piece.len() <= 5));
    assert!(body.iter().any(|piece| std::str::from_utf8(piece).is_err()));
    assert_eq!(joined(&body, "content"), expected_text("fake:utf8"));
}

#[tokio::test]
async fn the_first_calls_fail_as_often_as_asked() {
    let provider = Provider::start();
    let prompt = "fake:error status=429 times=2 retry=3";
    for _ in 0..2 {
        let refused = ask_user(&provider, prompt).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "3");
    }
    let text = answered_text(ask_user(&provider, prompt).await).await;
    assert_eq!(text, "Recovered at call 3.");
    assert_eq!(text, expected_text(prompt));
    assert_eq!(
        outcomes(&provider.calls_for(prompt)),
        [
            (1, Outcome::Refused(429)),
            (2, Outcome::Refused(429)),
            (3, Outcome::Done)
        ]
    );
}

#[tokio::test]
async fn a_cut_lets_through_what_came_before_it() {
    let provider = Provider::start();
    for (prompt, reset) in [
        ("fake:cut after=2 delay=0", false),
        ("fake:cut after=2 rst=1", true),
    ] {
        let (body, error) = read(ask_user(&provider, prompt).await).await;
        let error = format!("{:?}", error.expect("the body breaks off"));
        assert_eq!(error.contains("ConnectionReset"), reset, "{error}");
        let part = joined(&body, "content");
        assert!(!part.is_empty() && part.len() < expected_text(prompt).len());
        let whole = answered_text(ask_user(&provider, prompt).await).await;
        assert_eq!(whole, expected_text(prompt));
        assert_eq!(provider.texts_for(prompt), [part, whole]);
        assert_eq!(
            outcomes(&provider.calls_for(prompt)),
            [(1, Outcome::Cut), (2, Outcome::Done)]
        );
    }
}

#[tokio::test]
async fn a_gate_holds_the_rest_back() {
    let provider = Provider::start();
    let prompt = "fake:gate name=middle after=2 chunks=4";
    let mut answer = ask_user(&provider, prompt).await;
    provider.reached_gate("middle").await;
    let before = provider.texts_for(prompt).concat();
    assert!(!before.is_empty() && before.len() < expected_text(prompt).len());
    let mut body = vec![answer.chunk().await.unwrap().unwrap().to_vec()];
    provider.open_gate("middle");
    let (rest, _) = read(answer).await;
    body.extend(rest);
    assert_eq!(joined(&body, "content"), expected_text(prompt));
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let provider = Provider::start();
    drop(ask_user(&provider, "fake:gate name=never").await);
    tokio::time::timeout(Duration::from_secs(10), async {
        while outcomes(&provider.calls()) != [(1, Outcome::ClientGone)] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn each_call_of_a_turn_plays_the_next_step() {
    let provider = Provider::start();
    let prompt = "fake:twotools cmd=ls cmd2=pwd";
    let (body, _) = read(ask_user(&provider, prompt).await).await;
    let body = String::from_utf8(body.concat()).unwrap();
    assert_eq!(body.matches(r#""name":"bash""#).count(), 2);
    assert!(body.contains(r#""finish_reason":"tool_calls""#));

    let history = json!([
        { "role": "user", "content": "fake:plain before" },
        { "role": "assistant", "content": "before" },
        { "role": "user", "content": [{ "type": "text", "text": prompt }] },
        { "role": "assistant", "content": null },
        { "role": "tool", "content": "out" },
        { "role": "tool", "content": "/" },
        { "role": "user", "content": "a reminder of the agent's own" },
    ]);
    assert_eq!(answered_text(ask(&provider, history).await).await, "Done.");
    assert_eq!(provider.texts_for(prompt), ["", "Done."]);
    assert_eq!(provider.texts_for(prompt), expected_texts(prompt));
}

#[tokio::test]
async fn a_title_plays_no_script() {
    let provider = Provider::start();
    let messages = json!([
        { "role": "system", "content": "You are a title generator." },
        { "role": "user", "content": "fake:error" },
    ]);
    assert_eq!(
        answered_text(ask(&provider, messages).await).await,
        "Scripted title"
    );
    assert!(provider.calls_for("fake:error").is_empty());
}

#[tokio::test]
async fn a_mistaken_script_is_refused_in_words() {
    let provider = Provider::start();
    let refused = ask_user(&provider, "fake:plian").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("there is no scenario")
    );
}

#[tokio::test]
async fn a_real_server_stores_what_the_provider_sent() {
    let provider = Provider::start();
    let home = Home::new(&provider);
    let mut server = Server::start(&home);
    let agent = Agent::new(&server, &home);
    let session = agent.create_session("support").await;
    let prompts = [
        "fake:plain words=20 chunks=5",
        "fake:utf8 words=40 split=5 delay=0",
        "fake:reason words=5",
        "fake:write path=made.txt content=by+the+model",
    ];
    for prompt in prompts {
        agent.prompt(&session, prompt).await;

        let messages = agent.messages(&session).await;
        let at = messages
            .iter()
            .rposition(|message| message.role == "user")
            .unwrap();
        let (asked, answers) = (&messages[at], &messages[at + 1..]);
        assert_eq!(asked.texts, [prompt]);
        let texts: Vec<_> = answers.iter().map(|answer| answer.texts.concat()).collect();
        assert_eq!(texts, provider.texts_for(prompt));
        assert_eq!(texts, expected_texts(prompt));
        let ended = |answer: &Message| answer.completed && answer.error.is_none();
        assert!(answers.iter().all(ended), "{answers:#?}");
        assert!(
            answers
                .iter()
                .all(|answer| answer.parent.as_ref() == Some(&asked.id))
        );
        assert_eq!(answers.last().unwrap().finish.as_deref(), Some("stop"));
    }
    let made = fs::read_to_string(home.project_dir().join("made.txt")).unwrap();
    assert_eq!(made, "by the model");
    assert!(agent.statuses().await.is_empty());

    assert!(home.marker().processes().contains_key(&server.pid()));
    server.kill();
    home.marker().assert_none_left();
}

#[tokio::test]
async fn a_real_server_comes_back_on_its_port_with_its_sessions() {
    let provider = Provider::start();
    let home = Home::new(&provider);
    let password = Some("secret".to_owned());
    let mut server = Server::start_with(
        &home,
        ServerOptions {
            port: None,
            password,
        },
    );
    let agent = Agent::new(&server, &home);
    let session = agent.create_session("to be kept").await;

    let same = ServerOptions {
        port: Some(server.port()),
        password: server.password().map(str::to_owned),
    };
    server.kill();
    let server = Server::start_with(&home, same);
    let sessions = agent.sessions().await;
    let found = sessions
        .iter()
        .find(|stored| stored.id == session)
        .expect("it was stored");
    assert_eq!(found.title, "to be kept");
    drop(server);
    home.marker().assert_none_left();
}

#[tokio::test]
async fn a_tool_outlives_its_server_but_not_its_home() {
    let provider = Provider::start();
    let home = Home::new(&provider);
    let mut server = Server::start(&home);
    let agent = Agent::new(&server, &home);
    let session = agent.create_session("tool").await;
    let tool_is_running = async {
        while home
            .marker()
            .processes()
            .values()
            .all(|line| line.trim() != "sleep 300")
        {
            for permission in agent.permissions().await {
                agent.answer_permission(&permission, "once").await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = agent.prompt(&session, "fake:bash cmd=sleep+300") => panic!("the tool has ended"),
        () = tool_is_running => {}
    }
    assert_eq!(
        agent.statuses().await,
        BTreeMap::from([(session, "busy".to_owned())])
    );

    server.kill();
    let left: Vec<u32> = home.marker().processes().into_keys().collect();
    assert!(!left.is_empty());
    drop(home);
    // Until somebody has asked how it ended, a process is listed, without an environment.
    let environment = |pid| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(left.into_iter().all(|pid| environment(pid).is_empty()));
}

#[test]
fn recount_runs_to_its_end() {
    let provider = Provider::start();
    let home = Home::new(&provider);
    let finished =
        Running::spawn(home.command(recount()).arg("--help")).finish(Duration::from_secs(30));
    assert!(finished.status.success(), "{finished:#?}");
}

#[test]
fn a_process_is_killed_while_it_writes() {
    let provider = Provider::start();
    let home = Home::new(&provider);
    let mut command = home.command("sh");
    let mut running = Running::spawn(command.args(["-c", "sleep 300 & echo begun; wait"]));
    let line = running.stdout_line("begun", Duration::from_secs(10));
    assert_eq!(line.as_deref(), Some("begun"));
    running.kill_9();
    assert!(
        !home.marker().processes().is_empty(),
        "kill -9 leaves the child"
    );
    drop(home);
}

/// A server that answers each request with the same, and counts them. It ends with the test's process.
fn count_requests(answer: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                while let Ok(1..) = client.read(&mut [0; 1024]) {
                    count.fetch_add(1, Ordering::Relaxed);
                    client.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    (port, seen)
}

/// Asks through a proxy, and gives what comes, and how that ends.
fn ask_through(proxy: &Proxy) -> (String, Option<io::ErrorKind>) {
    let mut server = match TcpStream::connect(proxy.address()) {
        Ok(server) => server,
        Err(error) => return (String::new(), Some(error.kind())),
    };
    // How long a connection must say nothing to count as half open.
    let silence = Duration::from_millis(400);
    server.set_read_timeout(Some(silence)).unwrap();
    server.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let end = server.read_to_end(&mut answer).err();
    let answer = String::from_utf8(answer).unwrap();
    (answer, end.map(|error| error.kind()))
}

#[test]
fn a_proxy_keeps_its_address_while_what_is_behind_it_changes() {
    let ((one, _), (two, _)) = (count_requests("one"), count_requests("two"));
    let proxy = Proxy::start(one);
    let open = Some(io::ErrorKind::WouldBlock);
    assert_eq!(ask_through(&proxy), ("one".into(), open));
    proxy.lead_to(two);
    assert_eq!(ask_through(&proxy), ("two".into(), open));

    // A connection that there is when it closes is reset.
    let mut kept = TcpStream::connect(proxy.address()).unwrap();
    proxy.close();
    let ended = kept.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
    let refused = Some(io::ErrorKind::ConnectionRefused);
    assert_eq!(ask_through(&proxy), (String::new(), refused));
    proxy.open();
    while ask_through(&proxy).1 == refused {}
    assert_eq!(ask_through(&proxy), ("two".into(), open));
}

#[test]
fn a_fault_of_the_proxy_is_what_its_name_says() {
    use Fault::{
        Cut, HalfOpenBefore, HalfOpenWithin, PageAfter, PageBefore, ResetAfter, ResetBefore,
        ResetWithin, Trickle,
    };
    use io::ErrorKind::{ConnectionReset, WouldBlock};
    let (server, seen) = count_requests("0123456789");
    let proxy = Proxy::start(server);
    let page = |status| {
        format!(
            "HTTP/1.1 {status} Gateway\r\ncontent-type: text/html\r\ncontent-length: 56\r\n\
             connection: close\r\n\r\n<!doctype html><title>Gateway</title><p>Come back later."
        )
    };
    let whole = || "0123456789".to_owned();
    let half = || "01234".to_owned();
    // How the answer looks, how it ends, and whether the server was asked.
    for (fault, answer, end, asked) in [
        (ResetBefore, String::new(), Some(ConnectionReset), 0),
        (ResetAfter, String::new(), Some(ConnectionReset), 1),
        (ResetWithin, half(), Some(ConnectionReset), 1),
        (Cut, half(), None, 1),
        (HalfOpenBefore, String::new(), Some(WouldBlock), 0),
        (HalfOpenWithin, half(), Some(WouldBlock), 1),
        (Trickle, whole(), Some(WouldBlock), 1),
        (PageBefore(503), page(503), None, 0),
        (PageAfter(502), page(502), None, 1),
    ] {
        seen.store(0, Ordering::Relaxed);
        proxy.suffer(Faults {
            chance: Chance::new(1),
            requests_each: 1,
            of_requests: vec![fault],
            stream_bytes_each: 1,
            of_streams: vec![fault],
        });
        assert_eq!(ask_through(&proxy), (answer, end), "{fault:?}");
        assert_eq!(seen.load(Ordering::Relaxed), asked, "{fault:?}");
        assert_eq!(proxy.met()[&fault], 1, "{fault:?}");
    }
    proxy.calm();
    assert_eq!(ask_through(&proxy), (whole(), Some(WouldBlock)));
}

#[test]
fn a_deck_deals_each_card_before_any_comes_again() {
    let mut chance = Chance::new(7);
    let mut deck = Deck::new([1, 2, 2, 3]);
    let mut orders = BTreeSet::new();
    for _ in 0..500 {
        let dealt: Vec<_> = (0..4).map(|_| deck.draw(&mut chance)).collect();
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 2, 3]);
        orders.insert(dealt);
    }
    assert_eq!(orders.len(), 12, "in any order");
    let draws = |seed| {
        let mut chance = Chance::new(seed);
        [(); 4].map(|()| chance.below(1_000_000))
    };
    assert_eq!(draws(7), draws(7));
    assert_ne!(draws(7), draws(8));
}

#[test]
fn fixtures_are_what_their_readme_says() {
    let told = FIXTURES.map(|name| format!("{name}: {}", fixture(name).told(&["verify"])));
    expect![[r#"
        clean: whole: 97 events in 4 streams; 177 frames
        head 5c0a2ccaf765dfa66ef3f2c3d6830f233a880f68e9824a7376cea07f4011848d at position 97
        --- exit 0
        week: whole: 5063 events in 17 streams; 84087 frames
        head 88702b97e5489385972a364fa56352180be39480c6f5d2ed5d91e5fef3f2e641 at position 5063
        --- exit 0
        torn: whole: 84 events in 4 streams; 134 frames
        head 208b42bbf6c263a0ca09efb4f86b029943260b5033edb0b63e4ebd46337271ae at position 84
        --- exit 0
        mangled: not whole
        --- stderr
        recount: the log is not whole: the log is damaged at position 52: its hash does not follow from it and the event before it in its stream
          recount doctor HERE/data                             says what is wrong with it, and what to do
          recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
        --- exit 1
        short: not whole
        --- stderr
        recount: the log is not whole: the log is damaged at position 1: its file is cut short
          recount doctor HERE/data                             says what is wrong with it, and what to do
          recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
        --- exit 1
        newer_event: whole: 98 events in 4 streams, 1 of them of a newer release; 177 frames
        head e99f3483613432ac1940cf00c99a8922f73cb4df5f18c721e73969f317dcd4cf at position 98
        --- exit 0
        newer_format: --- stderr
        recount: cannot open the log: HERE/data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
        --- exit 1
    "#]].assert_eq(&told.concat());
}
