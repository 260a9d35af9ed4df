//! `recount fork`: a new session that begins where an old one stood, as the command's text and in the log.

use expect_test::expect;
use recount_store::{Event, MessageId, NewEvent, SessionId, StreamId};
use recount_tests::place::Place;
use recount_tests::story::{self, CONNECTION, SESSION, after};
use serde_json::{Value, json};

fn message(number: u8) -> MessageId {
    MessageId::from_bytes([number; 10])
}

/// A message and its turn, without an end.
fn begun(number: u8, text: &str) -> Vec<Event> {
    let message = message(number);
    vec![
        story::queued(message, text),
        Event::DeliveryStarted {
            message,
            attempt: 1,
            agent_message: format!("msg_{number}"),
        },
        Event::DeliveryAccepted {
            message,
            attempt: 1,
        },
        Event::TurnRequested { message, run: 1 },
    ]
}

fn answered(number: u8, text: &str, answer: &str) -> Vec<Event> {
    let mut events = begun(number, text);
    let message = message(number);
    events.extend([
        story::said(message, 1, answer),
        Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        },
    ]);
    events
}

/// Two answers: events 3 to 8 and 9 to 14.
fn two_answers() -> Vec<Event> {
    let mut events = vec![
        story::opened(),
        Event::AgentSessionBound {
            agent_session: "ses_1".to_owned(),
        },
    ];
    events.extend(answered(1, "what is this?", "A parser."));
    events.extend(answered(2, "is it fast?", "No."));
    events
}

/// A log in which these happened in a session, a second after each other.
fn holding(events: Vec<Event>) -> Place {
    let linked = NewEvent::live(story::linked(), after(0));
    let linked = (StreamId::Connection(CONNECTION), vec![linked]);
    let events = (1..).zip(events).map(|(n, event)| {
        let event = NewEvent::live(event, after(n * 1000));
        (StreamId::Session(SESSION), vec![event])
    });
    Place::holding([linked].into_iter().chain(events))
}

/// Two answers, and a third message that is still worked on.
fn conversation() -> Place {
    let mut events = two_answers();
    events.extend(begun(3, "make it fast"));
    holding(events)
}

/// What a verb tells, the new session's id being NEW.
fn told(place: &Place, args: &[&str]) -> String {
    let told = place.told(args);
    let new = told.split("--session ").nth(1);
    let new = new.and_then(|rest| rest.split(' ').next());
    match new {
        Some(new) => told.replace(new, "NEW"),
        None => told,
    }
}

#[test]
fn it_begins_where_the_old_one_stood_at_an_event_or_at_a_time() {
    let place = conversation();
    let at = |at: &str| told(&place, &["fork", "0810", "--at", at]);
    expect![[r#"
        session NEW goes on from 081040g2081040g2 as of event 14, with 2 messages
        --- stderr
        · by a copy: the agent is asked to copy ses_1 when the first message is sent
          recount run --session NEW "…"    sends the first message
        --- exit 0
    "#]]
    .assert_eq(&at("14"));
    expect![[r#"
        session NEW goes on from 081040g2081040g2 as of event 12, with 1 message
        --- stderr
        · message 081040g2081040g2 had no end by then, and is no part of it
        · by a copy: the agent is asked to copy ses_1 when the first message is sent
          recount run --session NEW "…"    sends the first message
        --- exit 0
    "#]]
    .assert_eq(&at("12"));
    expect![[r#"
        session NEW goes on from 081040g2081040g2 as of event 1, with 0 messages
        --- stderr
        · nothing was said by then: the agent begins anew
          recount run --session NEW "…"    sends the first message
        --- exit 0
    "#]]
    .assert_eq(&at("2026-11-22T09:14:04Z"));
    expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 has 18 events, and none with number 19
          recount log 081040g2081040g2    numbers them
        --- exit 1
    "#]]
    .assert_eq(&at("19"));
    expect![[r#"
        --- stderr
        recount: session 081040g2081040g2 did not exist at 2026-11-22T09:14:03.000000Z: it was opened at 2026-11-22T09:14:04.000000Z
        --- exit 1
    "#]]
    .assert_eq(&at("2026-11-22T09:14:03Z"));
}

#[test]
fn it_is_recorded_as_such_and_the_old_one_stays_as_it_is() {
    let place = conversation();
    let old = place.printed(&["log", "0810", "--json"]);
    let forked = place.object(&[
        "fork",
        "0810",
        "--at",
        "14",
        "--model",
        "other/model",
        "--title",
        "again",
        "--json",
    ]);
    let new = forked["session"].as_str().unwrap();
    let context = "This conversation goes on from an earlier one. What was said there, oldest first:\n\
        <user>\nwhat is this?\n</user>\n<assistant>\nA parser.\n</assistant>\n\
        <user>\nis it fast?\n</user>\n<assistant>\nNo.\n</assistant>\n\
        What follows is new.\n\n";
    let expected = json!({
        "session": new,
        "from": SESSION,
        "at": 14,
        "messages": 2,
        "by": "copy",
        "agent_session": "ses_1",
        "through": "msg_2",
        "context_bytes": context.len(),
        "left_open": null,
    });
    assert_eq!(forked, expected);
    let recorded = place.json(&["log", new, "--json"]);
    let own = recorded
        .iter()
        .filter(|event| event["stream"] == format!("session/{new}"));
    let own: Vec<Value> = own
        .map(|event| json!([event["type"], event["cause"], event["class"], event["data"]]))
        .collect();
    let opened = json!({
        "connection": CONNECTION,
        "agent": "opencode",
        "directory": "/work",
        "model": "other/model",
        "title": "again",
    });
    let began = json!({
        "from": SESSION,
        "at": 14,
        "agent_session": "ses_1",
        "through": "msg_2",
        "context": context,
    });
    // The connection's only event is at position 1, so event 14 is at 15.
    assert_eq!(
        own,
        [
            json!(["SessionOpened", 15, "asked", opened]),
            json!(["SessionForked", 15, "asked", began]),
        ]
    );
    assert_eq!(place.printed(&["log", "0810", "--json"]), old);
    let show = place.object(&["show", new, "--json"]);
    assert_eq!(
        show["fork"],
        json!({"from": SESSION, "at": 14, "by": null, "refused": null, "added_to": null})
    );
    assert!(place.printed(&["verify"]).starts_with("whole: 21 events"));
}

#[test]
fn a_fork_can_be_forked_before_anything_was_said_in_it() {
    let place = conversation();
    let first = place.object(&["fork", "0810", "--at", "14", "--json"]);
    let second = place.object(&["fork", first["session"].as_str().unwrap(), "--json"]);
    let of = |forked: &Value| json!([forked["by"], forked["through"], forked["context_bytes"]]);
    assert_eq!(of(&second), of(&first));
    assert_eq!(
        (&second["from"], &second["at"]),
        (&first["session"], &json!(2))
    );
}

/// The same without the time at which something was cut, which is now.
fn when_cut_off(told: &str) -> String {
    let (before, rest) = told.split_once("were cut on ").unwrap();
    let (_, after) = rest.split_once(": event").unwrap();
    format!("{before}were cut on THEN: event{after}")
}

#[test]
fn what_was_cut_off_cannot_be_gone_on_from() {
    let mut events = two_answers();
    events.push(Event::SessionClosed);
    let place = holding(events);
    place.printed(&["cut", "0810", "--before", "10"]);
    expect![[r#"
        --- stderr
        recount: of session 081040g2081040g2, the events before number 10 were cut on THEN: event 4 is one of them
          recount log 081040g2081040g2    shows what remains
        --- exit 1
    "#]]
    .assert_eq(&when_cut_off(&told(&place, &["fork", "0810", "--at", "4"])));
    expect![[r#"
        --- stderr
        recount: cannot go on from there: the beginning of session 081040g2081040g2 was cut off, so where it stood is not known
        --- exit 1
    "#]].assert_eq(&told(&place, &["fork", "0810"]));
}

#[test]
fn an_agent_that_has_no_copy_is_told_what_was_said() {
    let place = Place::new();
    let run = |args: &[&str], text: &str| {
        let all = [&["run", "--permission", "allow"], args, &[text]].concat();
        place.printed(&all)
    };
    let script = "script: words=3 tool=bash delay=1ms";
    let scripted = [
        "--agent",
        "scripted",
        "--dir",
        place.folder().to_str().unwrap(),
    ];
    let answer = run(&scripted, script);
    // The scripted agent forgets everything when its server ends.
    let forked = place.object(&["fork", "latest", "--json"]);
    let new = forked["session"].as_str().unwrap();
    run(&["--session", new], "script: words=2");

    let events = place.json(&["log", new, "--json"]);
    let own = events
        .iter()
        .filter(|event| event["stream"] == format!("session/{new}"));
    let types: Vec<&str> = own
        .map(|event| event["type"].as_str().unwrap())
        .take(9)
        .collect();
    assert_eq!(
        types,
        [
            "SessionOpened",
            "SessionForked",
            "MessageQueued",
            "AgentSessionRequested",
            "AgentForkRefused",
            "DeliveryStarted",
            "AgentSessionRequested",
            "AgentSessionBound",
            "ContextAdded",
        ]
    );
    let show = place.object(&["show", new, "--json"]);
    assert_eq!(show["fork"]["by"], "text");
    assert_eq!(show["fork"]["added_to"], show["messages"][0]["id"]);
    assert_eq!(show["messages"][0]["state"], "completed");
    // What the agent read is what was said, and the new message after it.
    let context = events[..]
        .iter()
        .find(|event| event["type"] == "SessionForked")
        .unwrap()["data"]["context"]
        .as_str()
        .unwrap();
    assert!(
        context.contains(script) && context.contains(answer.trim()),
        "{context}"
    );
    assert!(
        place
            .printed(&["verify", "--decisions"])
            .contains("decided as today")
    );
    place.printed(&["replay", new, "--wire"]);
}

#[test]
fn what_came_after_a_fork_is_compared_and_not_what_was_before_it() {
    let mut events = two_answers();
    events.extend(answered(3, "make it fast", "It is faster now."));
    let place = holding(events);
    let forked = place.object(&["fork", "0810", "--at", "14", "--json"]);
    let new = forked["session"].as_str().unwrap();
    let id: SessionId = new.parse().unwrap();
    let again = answered(4, "make it fast, and keep it small", "It is faster now.");
    let again = again
        .into_iter()
        .map(|event| NewEvent::live(event, after(60_000)));
    story::record(&place.data(), [(StreamId::Session(id), again.collect())]);
    expect![[r#"
        - 081040g2081040g2 and + NEW, since they parted at event 14: 5 events alike, 1 difference
        the first difference
        - 09:14:18.000    15  MessageQueued          0c1g60 "make it fast"
        + 09:15:03.000     3  MessageQueued          0g2081 "make it fast, and keep it small"
                              text: went on ", and keep it small"
        --- exit 0
    "#]]
    .assert_eq(&place.told(&["diff", "0810", new]).replace(new, "NEW"));
    let page = place.printed(&["export", new, "--format", "markdown"]);
    assert!(
        page.contains("- Goes on from session `081040g2081040g2` as of event 14\n"),
        "{page}"
    );
    let other_way = place.json(&["diff", new, "0810", "--json"]);
    assert_eq!(other_way.last().unwrap()["forked_at"], 14);
}
