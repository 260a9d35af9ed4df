//! `recount show` of a long session, or a long connection: what is left out, and that milestones change nothing but the time.

use expect_test::expect;
use recount_store::{Event, LogReader, MessageId, NewEvent, Seq, StreamId};
use recount_tests::place::Place;
use recount_tests::story::{CONNECTION, SESSION, after, opened, queued, said};
use serde_json::{Value, json};

/// How many messages the session has, and how many events each.
const MESSAGES: u64 = 25;
const EACH: u64 = 2800;

/// Message after message, each with a long answer; the events are a tenth of a second after each other.
fn events() -> impl Iterator<Item = NewEvent> {
    let events = (0..MESSAGES).flat_map(|number| {
        let message = MessageId::from_random(u128::from(number) + 1);
        let queued = queued(message, &format!("question {number}"));
        let said = move |n| said(message, 1, &format!("{n} "));
        let completed = Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        };
        [queued, Event::TurnRequested { message, run: 1 }]
            .into_iter()
            .chain((0..EACH - 3).map(said))
            .chain([completed])
    });
    (0..)
        .zip(events)
        .map(|(n, event)| NewEvent::live(event, after(n * 100)))
}

#[test]
fn any_moment_is_shown_the_same_with_milestones_and_without() {
    let session = StreamId::Session(SESSION);
    let all: Vec<_> = events().collect();
    let place = Place::holding(all.chunks(1000).map(|batch| (session, batch.to_vec())));
    let shown = |args: &[&str]| place.object(&[&["show", "latest", "--json"], args].concat());

    // Both ends of a milestone, and the middle of an answer; by number and by time.
    let moments = [
        "1",
        "32767",
        "32768",
        "32769",
        "69999",
        "2026-11-22T10:14:03.05Z",
    ];
    let show = |at: &&str| shown(&["--at", at]);
    let before: Vec<_> = moments.iter().map(show).collect();
    let numbers: Vec<_> = before.iter().map(|shown| shown["events"].clone()).collect();
    assert_eq!(
        numbers,
        [1, 32_767, 32_768, 32_769, 69_999, 36_001].map(Value::from)
    );
    let whole = shown(&[]);
    let last = shown(&["--last", "20"]);

    place.printed(&["rebuild"]);
    let reader = LogReader::open(place.data()).unwrap();
    let milestone = |number| {
        let kept = reader.snapshot(session, &format!("session@{number}"));
        kept.unwrap().map(|kept| kept.seq)
    };
    assert_eq!(
        [1, 2, 3].map(milestone),
        [Some(Seq(32_768)), Some(Seq(65_536)), None]
    );
    drop(reader);
    assert_eq!(moments.iter().map(show).collect::<Vec<_>>(), before);
    assert_eq!(shown(&[]), whole);
    assert_eq!(shown(&["--last", "20"]), last);

    // A program gets all, or the last ones that it asks for, each with its whole answer.
    let (messages, turns) = (
        whole["messages"].as_array().unwrap(),
        whole["turns"].as_array().unwrap(),
    );
    assert_eq!((&whole["earlier"], messages.len()), (&json!(0), 25));
    assert_eq!(last["earlier"], 5);
    assert_eq!(last["messages"], json!(messages[5..]));
    assert_eq!(last["turns"], json!(turns[5..]));
    assert_eq!(shown(&["--all"]), whole);
    assert_eq!(shown(&["--last", "25"]), whole);
    let none = shown(&["--last", "0"]);
    assert_eq!(
        [&none["earlier"], &none["messages"], &none["turns"]],
        [&json!(25), &json!([]), &json!([])]
    );

    let text = place.printed(&["show", "latest", "--at", "69999"]);
    let from = text.find("5 earlier").unwrap();
    let lines: Vec<&str> = text[from..].lines().take(4).collect();
    expect![[r#"
        5 earlier messages, with all that was done about them: --all shows them

        message 6 0000000000000006  completed, 0 attempts
          > question 5"#]]
    .assert_eq(&lines.join("\n"));
    for (more, left_out) in [("--all", None), ("--last=3", Some("22 earlier"))] {
        let text = place.printed(&["show", "latest", more]);
        let says = text.lines().find(|line| line.contains("earlier message"));
        let says = says.and_then(|line| line.split(" message").next());
        assert_eq!(says.map(str::trim), left_out, "{more}");
    }
}

/// A session on a connection that is lost again and again: so many events on it before the session, and after.
fn on_a_long_connection(events: u64) -> Place {
    let connection = StreamId::Connection(CONNECTION);
    let lost = |attempt: u64| {
        let event = Event::ConnectFailed {
            attempt: u32::try_from(attempt).unwrap(),
            reason: format!("it broke, time {attempt}"),
        };
        NewEvent::live(event, after(attempt))
    };
    let batches = |from: u64, to: u64| {
        let firsts = (from..to).step_by(5000);
        firsts.map(move |first| {
            (
                connection,
                (first..to.min(first + 5000)).map(lost).collect(),
            )
        })
    };
    let session = |event, at| (StreamId::Session(SESSION), vec![NewEvent::live(event, at)]);
    let begins = batches(0, events).chain([session(opened(), after(events))]);
    let goes_on = batches(events, 2 * events);
    let ends = [session(Event::SessionClosed, after(2 * events))];
    Place::holding(begins.chain(goes_on).chain(ends))
}

#[test]
fn a_long_connection_is_shown_the_same_with_milestones_and_without() {
    let place = on_a_long_connection(40_000);
    let moments = ["1", "2", "2026-11-22T09:14:55.5Z"];
    let show = |at: &&str| {
        let shown = place.object(&["show", "latest", "--json", "--at", at]);
        shown["connection"].clone()
    };
    let before: Vec<_> = moments.iter().map(show).collect();
    let errors: Vec<_> = before
        .iter()
        .map(|shown| shown["last_error"].clone())
        .collect();
    assert_eq!(
        errors,
        [39_999, 79_999, 52_500].map(|n| json!(format!("it broke, time {n}")))
    );

    place.printed(&["rebuild"]);
    let reader = LogReader::open(place.data()).unwrap();
    let milestone = |name| {
        let kept = reader.snapshot(StreamId::Connection(CONNECTION), name);
        kept.unwrap().map(|kept| kept.seq)
    };
    let kept = ["connection@1", "breaker@2", "connection@3"].map(milestone);
    assert_eq!(kept, [Some(Seq(32_768)), Some(Seq(65_536)), None]);
    drop(reader);
    assert_eq!(moments.iter().map(show).collect::<Vec<_>>(), before);
}
