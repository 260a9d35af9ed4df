//! `recount export` and `recount import`: what goes out is what the formats' own definitions say, and what comes in is
//! what went out.

mod trace_format;

use std::collections::{HashMap, HashSet};
use std::fs;

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use recount_store::{LogReader, SigningKey};
use recount_tests::place::Place;
use recount_tests::story::BEGIN;
use serde_json::Value;

use crate::leaving::with_a_log;

#[test]
fn an_import_is_the_same_log_and_is_exported_to_the_same_bytes() {
    let place = with_a_log();
    for (what, name) in [("--all", "all"), ("081", "one")] {
        let exported = place.printed(&["export", what]);
        place.write("session.jsonl", &exported);
        place.printed(&["import", "session.jsonl", "--into", name]);
        place.printed(&["--data", name, "verify"]);
        assert_eq!(place.printed(&["--data", name, "export", what]), exported);
        let log = |data: &str| place.printed(&["--data", data, "log", "081", "--json"]);
        assert_eq!(log(name), log("data"));
    }

    // All that was signed of the old log holds of the new one.
    let key = SigningKey::from_seed(&[7; 32]);
    let log = LogReader::open(place.path("data")).unwrap();
    let signed = log.head().unwrap().sign(BEGIN, &key);
    place.write("head.json", serde_json::to_string(&signed).unwrap());
    place.printed(&[
        "--data",
        "all",
        "verify",
        "--signed",
        "head.json",
        "--public-key",
        &key.public_key().to_string(),
    ]);
}

#[test]
fn what_was_imported_is_told() {
    let place = with_a_log();
    let exported = place.printed(&["export", "081", "--out", "session.jsonl"]);
    let length = fs::metadata(place.path("session.jsonl")).unwrap().len();
    assert_eq!(
        exported,
        format!("written: session.jsonl, {length} bytes\n")
    );
    place.check(
        &["import", "session.jsonl", "--into", "new"],
        &expect![[r#"
            imported: 21 events of 3 streams, proven
            the log stands at position 23 with hash 9b853e0efd7cd9f4e86365e78199da84faf5cd4c7f4a03a3f54c319462f45ee5
            look at it with: recount --data new sessions
            --- exit 0
        "#]],
    );
    place.check(
        &["import", "session.jsonl", "--into", "newer", "--json"],
        &expect![[r#"
            {"directory":"newer","events":21,"hash":"9b853e0efd7cd9f4e86365e78199da84faf5cd4c7f4a03a3f54c319462f45ee5","position":23,"streams":3}
            --- exit 0
        "#]],
    );
}

#[test]
fn what_cannot_be_proven_is_refused_by_its_line() {
    let place = with_a_log();
    let exported = place.printed(&["export", "081"]);
    let lines: Vec<&str> = exported.lines().collect();
    let refused = |name: &str, text: &str, expected: &Expect| {
        place.write(name, text);
        place.check(&["import", name, "--into", "new"], expected);
        assert!(!place.path("new").exists(), "{name} left something behind");
    };
    refused(
        "changed.jsonl",
        &exported.replace("с любовью", "now"),
        &expect![[r#"
            --- stderr
            recount: nothing was imported: changed.jsonl, line 5: what it says is not what its record holds
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );
    let mut swapped = lines.clone();
    swapped.swap(7, 8);
    refused(
        "swapped.jsonl",
        &(swapped.join("\n") + "\n"),
        &expect![[r#"
            --- stderr
            recount: nothing was imported: swapped.jsonl, line 8: another event stands in its place
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );
    refused(
        "cut.jsonl",
        &(lines[..lines.len() - 1].join("\n") + "\n"),
        &expect![[r#"
            --- stderr
            recount: nothing was imported: cut.jsonl, its end: the file is cut short: its last line is missing
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );
    refused(
        "half.jsonl",
        &format!("{}\n{}", lines[..5].join("\n"), &lines[5][..40]),
        &expect![[r#"
            --- stderr
            recount: nothing was imported: half.jsonl, line 6: the file is cut short: its last line is missing
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );
    refused(
        "log.jsonl",
        &place.printed(&["log", "081", "--json"]),
        &expect![[r#"
            --- stderr
            recount: nothing was imported: log.jsonl, line 1: the file is not an export: its first line is no "recount export v1"
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );
    refused(
        "empty.jsonl",
        "",
        &expect![[r#"
            --- stderr
            recount: nothing was imported: empty.jsonl, its end: the file is not an export: its first line is no "recount export v1"
              get the file again; recount export ID --out FILE writes what can be imported
            --- exit 1
        "#]],
    );

    place.write("bytes.jsonl", [0xff, 0, b'\n']);
    place.check(&["import", "bytes.jsonl", "--into", "new"], &expect![[r#"
        --- stderr
        recount: nothing was imported: bytes.jsonl, line 1: the file is not an export: its first line is no "recount export v1"
          get the file again; recount export ID --out FILE writes what can be imported
        --- exit 1
    "#]]);

    // What is there already is left as it is.
    place.write("session.jsonl", &exported);
    let before = place.printed(&["verify"]);
    place.check(
        &["import", "session.jsonl"],
        &expect![[r#"
        --- stderr
        recount: nothing was imported: there is a log in HERE/data already; name a new directory
          recount import FILE --into DIR    makes a log of its own
        --- exit 1
    "#]],
    );
    assert_eq!(place.printed(&["verify"]), before);
    place.check(
        &["export", "081", "--out", "session.jsonl"],
        &expect![[r#"
            --- stderr
            recount: session.jsonl is there already; it was left as it is
              name a file that does not exist
            --- exit 1
        "#]],
    );
    place.check(
        &["import", "nowhere.jsonl", "--into", "new"],
        &expect![[r#"
            --- stderr
            recount: cannot read nowhere.jsonl: No such file or directory (os error 2)
            --- exit 1
        "#]],
    );
    place.check(
        &["export", "081", "--texts"],
        &expect![[r#"
        --- stderr
        recount: --texts is for trace and otlp; jsonl and markdown hold what was said anyway
        --- exit 2
    "#]],
    );
    place.check(
        &["export", "--all", "--format", "markdown"],
        &expect![[r#"
            --- stderr
            recount: a transcript is of one session; everything at once has none
              recount sessions    shows what there is
            --- exit 2
        "#]],
    );
}

#[test]
fn a_conversation_is_told_in_markdown() {
    let place = with_a_log();
    place.check(
        &["export", "081", "--format", "markdown"],
        &expect![[r##"
            # A &lt;b&gt;title&lt;/b&gt;

            - Session: `081040g2081040g2`
            - Agent: opencode
            - Model: anthropic/claude

            ## 1. Message, 2026-11-22 09:14:03

            ````text
            Say it, с любовью
            ```
            ````

            - Attempt 1 to deliver it: rejected: connection refused

            ### Answer

            <details>
            <summary>Tool <code>bash</code>: completed</summary>

            ```json
            {"command":
            "true"}
            ```

            ```text
            done
            ```

            </details>

            > Well, *it* is said 💛

            **The agent asked:** bash true  
            **Answer:** allowed once

            *Ended after 1.7 s: stop.*
            --- exit 0
        "##]],
    );
}

#[test]
fn a_trace_is_what_the_format_says() {
    let place = with_a_log();
    for texts in [&["--texts"][..], &[]] {
        for what in ["081", "--all"] {
            let args = [&["export", what, "--format", "trace"], texts].concat();
            let printed = place.printed(&args);
            let found = trace_format::check(&serde_json::from_str(&printed).unwrap());
            assert_eq!(printed, place.printed(&args), "a second one is the same");
            let arrows = found.unwrap();
            assert!(arrows > 3, "only {arrows} arrows in {printed}");
        }
    }
}

#[test]
fn spans_are_read_by_the_official_definitions() {
    let place = with_a_log();
    let args = ["export", "081", "--format", "otlp", "--texts"];
    let printed = place.printed(&args);
    assert_eq!(printed, place.printed(&args), "a second export is the same");
    let ours: Value = serde_json::from_str(&printed).unwrap();
    let request: ExportTraceServiceRequest = serde_json::from_str(&printed).unwrap();
    // All that we say is understood, and none of it as something else.
    let theirs = serde_json::to_value(&request).unwrap();
    within(&ours, &theirs, "");

    let [resource] = &request.resource_spans[..] else {
        panic!("one resource")
    };
    let spans = &resource.scope_spans[0].spans;
    let mut ids = HashSet::new();
    for span in spans {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(
            ids.insert((&span.trace_id, &span.span_id)),
            "an id is there twice"
        );
    }
    let parents: HashMap<_, _> = spans
        .iter()
        .map(|span| (&span.span_id, span.name.as_str()))
        .collect();
    let tree: Vec<_> = spans
        .iter()
        .map(|span| {
            let parent = parents.get(&span.parent_span_id).copied();
            format!("{} < {}", span.name, parent.unwrap_or("none"))
        })
        .collect();
    expect![[r#"
        recount.message < none
        recount.connection connecting < none
        recount.delivery < recount.message
        recount.connection connected < none
        recount.delivery < recount.message
        invoke_agent opencode < recount.message
        execute_tool bash < invoke_agent opencode
        recount.wait_for_answer < invoke_agent opencode
        recount.connection disconnected < none"#]]
    .assert_eq(&tree.join("\n"));

    let private = place.printed(&args[..4]);
    for text in [
        "любовью",
        "is said",
        "\"done\"",
        "\\\"true\\\"",
        "bash true",
    ] {
        assert!(printed.contains(text), "{text}");
        assert!(
            !private.contains(text),
            "{text} left without being asked for"
        );
    }
}

/// Fails where something of `ours` is not in `theirs`.
fn within(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in ours {
                let path = format!("{path}.{name}");
                let other = theirs.get(name);
                // What has its default value may be left out.
                if other.is_none() && (value == &Value::from(0) || value == &serde_json::json!({}))
                {
                    continue;
                }
                within(
                    value,
                    other.unwrap_or_else(|| panic!("{path} is lost")),
                    &path,
                );
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                within(ours, theirs, &format!("{path}[{n}]"));
            }
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{path}"),
    }
}

/// A real engine's log: its causes, its recovery, and a connection that falls.
#[test]
fn the_demo_can_be_carried_elsewhere() {
    let place = Place::new();
    place.printed(&["demo", "--json"]);
    let exported = place.printed(&["export", "latest"]);
    place.write("demo.jsonl", &exported);
    place.printed(&["import", "demo.jsonl", "--into", "new"]);
    place.printed(&["--data", "new", "verify"]);
    assert_eq!(
        place.printed(&["--data", "new", "export", "latest"]),
        exported
    );
    let show = |data: &str| place.printed(&["--data", data, "show", "latest", "--json"]);
    assert_eq!(show("new"), show("data"));
    for format in ["trace", "otlp", "markdown"] {
        let of =
            |data: &str| place.printed(&["--data", data, "export", "latest", "--format", format]);
        assert_eq!(of("new"), of("data"), "{format}");
    }
    let trace = place.printed(&["export", "latest", "--format", "trace"]);
    trace_format::check(&serde_json::from_str(&trace).unwrap()).unwrap();
    let otlp = place.printed(&["export", "latest", "--format", "otlp"]);
    serde_json::from_str::<ExportTraceServiceRequest>(&otlp).unwrap();
}
