use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::render::fixture;
use crate::render::show::Standing;

fn holds(condition: &str, value: &impl Serialize) -> bool {
    Condition::parse(condition, &Shape::Any)
        .unwrap_or_else(|mistake| panic!("{mistake}\n{}", mistake.shown()))
        .holds(value)
}

/// The standing at the end of the story, and some more that it lacks.
fn standing() -> Standing {
    let mut standing = Standing::default();
    for recorded in fixture::story() {
        standing.apply(&recorded);
    }
    standing
}

#[test]
fn conditions_mean_what_they_say() {
    let value = json!({
        "name": "Ada", "age": 36, "married": true, "title": null, "at": "2026-11-22T09:14:03.120000Z",
        "notes": [{"on": "engines", "pages": 3}, {"on": "birds", "pages": 0}], "none": [], "own": {"last": 7},
    });
    for right in [
        "name",
        "married",
        "age == 36",
        "age != 35",
        "age > 35.5 and age <= 36",
        "title == null",
        "not title",
        "name contains 'd'",
        r#"name matches "^a(?i)DA$" or name matches "(?i)^ADA$""#,
        "notes.pages == 3",
        "notes.pages == 0",
        "notes.pages != 3",
        "notes",
        "not none",
        "notes.count == 2 and none.count == 0",
        "notes[1].on == \"birds\" and notes.last.on == \"birds\"",
        "notes.first.on == \"engines\"",
        "own.last == 7",
        "at > \"2026-11-22T09:14:03Z\" and at < \"2026-11-22T10:14:04+01:00\"",
        "not (age == 1 or age == 2)",
        "not age == 1 and name",
        "age == 1 and name or married",
    ] {
        assert!(holds(right, &value), "{right}");
    }
    for wrong in [
        "title",
        "nobody",
        "nobody != 3",
        "nobody.knows == null",
        "name == \"ada\"",
        "age == \"36\"",
        "notes[2]",
        "none.last",
        "none.count",
        "age == 1 and (name or married)",
        "name < 3",
    ] {
        assert!(!holds(wrong, &value), "{wrong}");
    }
}

#[test]
fn what_an_agent_sent_is_looked_into() {
    let input = recount_store::Json(br#"{"command": "make", "args": [1, 2]}"#.to_vec());
    let event = recount_store::Event::ToolCallStarted {
        message: fixture::message(),
        run: 1,
        call: "c".to_owned(),
        tool: "bash".to_owned(),
        input,
    };
    assert!(holds("data.input.command == \"make\"", &event));
    assert!(holds("data.input.args.last == 2", &event));
    assert!(!holds("data.input contains \"make\"", &event));
    assert!(walk::any_text(&event, |text| text == "make"));
    let cut_off = recount_store::Json(br#"{"command": "ma"#.to_vec());
    assert!(holds(
        "frame contains \"ma\"",
        &json!({ "frame": &cut_off })
    ));
}

/// Whether a value is of a shape, all of it.
fn is_of(value: &Value, shape: &Shape) -> bool {
    match (shape, value) {
        (Shape::Any, _)
        | (_, Value::Null)
        | (Shape::Text, Value::String(_))
        | (Shape::Number, Value::Number(_))
        | (Shape::Flag, Value::Bool(_)) => true,
        (Shape::Words(words), Value::String(word)) => words.contains(&word.as_str()),
        (Shape::Time, Value::String(text)) => time::parse(text).is_some(),
        (Shape::List(item), Value::Array(items)) => items.iter().all(|value| is_of(value, item)),
        (Shape::Object(members), Value::Object(values)) => {
            // All that is known is said, and nothing else.
            members
                .iter()
                .all(|(name, shape)| values.get(*name).is_some_and(|value| is_of(value, shape)))
                && values.len() == members.len()
        }
        _ => false,
    }
}

#[test]
fn the_shape_of_a_session_is_what_show_prints() {
    for standing in [standing(), Standing::default()] {
        let value = serde_json::to_value(standing.view(fixture::session())).expect("its JSON");
        assert!(is_of(&value, &shape::SESSION), "{value:#}");
    }
}

#[test]
fn a_condition_on_what_is_shown_is_true_of_it_as_it_is_walked_and_as_it_is_printed() {
    let standing = standing();
    let view = standing.view(fixture::session());
    let printed = serde_json::to_value(&view).expect("its JSON");
    for (condition, expected) in [
        ("status == \"waiting\"", true),
        ("queue.open == 1 and queue.dead_letters == 0", true),
        (
            "messages.state == \"waiting\" and messages.count == 1",
            true,
        ),
        ("turns.last.text contains \"look\"", true),
        ("turns.runs.tools.input.command == \"make\"", true),
        ("turns.runs.tools.outcome == \"lost\"", true),
        ("turns.questions", false),
        (
            "connection.target.managed.directory contains \"home\"",
            true,
        ),
        ("connection.state == \"connected\"", false),
        ("connection.next_try > \"2026-11-22T09:14:00Z\"", true),
        ("breaker == \"open\"", false),
    ] {
        let parsed = Condition::parse(condition, &shape::SESSION).expect("a condition");
        assert_eq!(parsed.holds(&view), expected, "{condition}");
        assert_eq!(parsed.holds(&printed), expected, "{condition}");
    }
    let path = |text| match Condition::parse(text, &shape::SESSION).expect("a condition") {
        Condition::Test(path, _) => path.all_in(&view),
        other => panic!("{other}"),
    };
    assert_eq!(path("turns.runs.run"), [json!(1)]);
    assert_eq!(path("messages"), [json!({"items": 1})]);
}

fn check(condition: &str, expected: &Expect) {
    let mistake = Condition::parse(condition, &shape::SESSION).expect_err("it is none");
    expected.assert_eq(&format!("{mistake}\n{}\n", mistake.shown()));
}

#[test]
fn mistakes_are_pointed_at() {
    check(
        "conection.state == \"connected\"",
        &expect![[r#"
            there is no `conection` here
            conection.state == "connected"
            ^^^^^^^^^
            there are: session, agent, status, directory, model, title, agent_session, fork, opened_at, at, events, cut, earlier, queue, messages, turns, connection, breaker
        "#]],
    );
    check(
        "connection.state == \"down\"",
        &expect![[r#"
        it is never "down"
        connection.state == "down"
                            ^^^^^^
        it can be: disconnected, connecting, connected
    "#]],
    );
    check(
        "status == idle",
        &expect![[r#"
        a text stands in quotes
        status == idle
                  ^^^^
        "idle"
    "#]],
    );
    check(
        "events > \"3\"",
        &expect![[r#"
        a number belongs here, not a text
        events > "3"
                 ^^^
    "#]],
    );
    check(
        "events == \"3\"",
        &expect![[r#"
        this is compared with a number, and can never be the same
        events == "3"
                  ^^^
    "#]],
    );
    check(
        "messages.statte",
        &expect![[r#"
        there is no `statte` here
        messages.statte
                 ^^^^^^
        there are: first, last, count, id, key, state, attempts, text, agent_message, reason, retry_at, waits_for, may_have_arrived, queued_again_as, abort_asked
    "#]],
    );
    check(
        "queue.open = 3",
        &expect![[r#"
        `=` is no comparison
        queue.open = 3
                   ^
        whether it is the same is asked with ==
    "#]],
    );
    check(
        "(queue.open",
        &expect![[r#"
        `)` belongs here, not the end
        (queue.open
                   ^
    "#]],
    );
    check(
        "",
        &expect![[r#"
            the name of a member belongs here, not the end

            ^
            there are: session, agent, status, directory, model, title, agent_session, fork, opened_at, at, events, cut, earlier, queue, messages, turns, connection, breaker
        "#]],
    );
    check(
        "at > 2026-11-22",
        &expect![[r#"
        this is no number
        at > 2026-11-22
             ^^^^^^^^^^
        a time stands in quotes: "2026-11-22T09:14:03Z"
    "#]],
    );
    check(
        "title matches \"(\"",
        &expect![[r#"
        this is no regular expression
        title matches "("
                      ^^^
        error: unclosed group
    "#]],
    );
    check(
        "title == \"日本\" status",
        &expect![[r#"
        a comparison, `and`, `or` or the end belongs here, not `status`
        title == "日本" status
                        ^^^^^^
    "#]],
    );
    check(
        "title contains 'a",
        &expect![[r#"
        this text has no end
        title contains 'a
                       ^^
    "#]],
    );
    check(
        "status[0]",
        &expect![[r#"
        this picks from a list, and there is a word
        status[0]
               ^
    "#]],
    );
    check(
        "title & 3",
        &expect![[r#"
        this means nothing here
        title & 3
              ^
    "#]],
    );
    let deep = format!("{}status", "not ".repeat(100));
    let mistake = Condition::parse(&deep, &shape::SESSION).expect_err("it is too deep");
    assert_eq!(mistake.to_string(), "this is nested more than 64 deep");
}

fn paths() -> impl Strategy<Value = Path> {
    let name = prop_oneof![
        "[a-z_][a-z0-9_]{0,4}",
        any::<String>(),
        Just("not".to_owned())
    ];
    let step = prop_oneof![
        3 => name.clone().prop_map(Step::Member),
        1 => (0..100_usize).prop_map(Step::Item)
    ];
    (name, proptest::collection::vec(step, 0..3)).prop_map(|(first, rest)| {
        let first = Step::Member(first);
        Path(std::iter::once(first).chain(rest).collect())
    })
}

fn checks() -> impl Strategy<Value = Check> {
    let number = || (-1e15..1e15).prop_map(|n: f64| if n > 0.0 { n.round() } else { n });
    let literal = prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Flag),
        number().prop_map(Literal::Number),
        any::<String>().prop_map(Literal::Text)
    ];
    let time = (0..4_000_000_000_000_000_u64).prop_map(|at| Bound::Time(Timestamp(at)));
    let bound = prop_oneof![number().prop_map(Bound::Number), time];
    let order = prop_oneof![
        Just(Order::Less),
        Just(Order::LessOrEqual),
        Just(Order::Greater),
        Just(Order::GreaterOrEqual)
    ];
    let pattern = "[a-z]{0,3}(\\\\d|\\.|\\\\\\.|\"|\n){0,2}";
    prop_oneof![
        Just(Check::There),
        (any::<bool>(), literal).prop_map(|(equal, literal)| Check::Equal(equal, literal)),
        (order, bound).prop_map(|(order, bound)| Check::Order(order, bound)),
        any::<String>().prop_map(Check::Contains),
        pattern.prop_map(|text| Check::Matches(Pattern(Regex::new(&text).expect("one"))))
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    let test = (paths(), checks()).prop_map(|(path, check)| Condition::Test(path, check));
    test.prop_recursive(4, 24, 3, |inner| {
        let several = || proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            several().prop_map(Condition::Or),
            several().prop_map(Condition::And),
            inner
                .clone()
                .prop_map(|inner| Condition::Not(Box::new(inner)))
        ]
    })
}

proptest! {
    /// What is printed reads back as the same.
    #[test]
    fn what_is_printed_reads_back(condition in conditions()) {
        let printed = condition.to_string();
        prop_assert_eq!(Condition::parse(&printed, &Shape::Any), Ok(condition), "{}", printed);
    }

    /// Nothing that anybody types makes it panic, and what is wrong can be shown.
    #[test]
    fn any_text_is_a_condition_or_a_mistake(text in "([a-z.]{1,6}|[0-9\"'()=<>! -]|\\PC){0,12}") {
        if let Err(mistake) = Condition::parse(&text, &shape::SESSION) {
            prop_assert!(mistake.shown().contains('^'));
        }
    }
}
