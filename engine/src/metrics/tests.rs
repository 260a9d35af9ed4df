use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};

use super::*;
use crate::adapter::scripted::{Script, Scripted, Step};
use crate::{MessageState, OpenSession, Options, SessionManager};

/// What is in the table.
fn listed() -> Vec<[&'static str; 3]> {
    include_str!("../metrics.rs")
        .lines()
        .filter_map(row)
        .collect()
}

/// Counters and gauges as `name{label}`; of histograms, how many values there were.
fn told(snapshot: Snapshot) -> BTreeMap<String, i64> {
    let metrics = snapshot.into_vec().into_iter();
    metrics
        .map(|(key, _, _, value)| {
            let labels = key.key().labels().map(|label| label.value().to_owned());
            let labels: Vec<_> = labels.collect();
            let name = match labels.as_slice() {
                [] => key.key().name().to_owned(),
                labels => format!("{}{{{}}}", key.key().name(), labels.join(",")),
            };
            #[allow(clippy::cast_possible_truncation, reason = "these gauges are counts")]
            let value = match value {
                DebugValue::Counter(count) => i64::try_from(count).unwrap(),
                DebugValue::Gauge(value) => value.into_inner() as i64,
                DebugValue::Histogram(values) => i64::try_from(values.len()).unwrap(),
            };
            (name, value)
        })
        .collect()
}

#[tokio::test]
async fn a_session_is_counted_from_its_beginning_to_its_end() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test lives on one thread, and so do the tasks that it starts.
    let _guard = ::metrics::set_default_local_recorder(&recorder);
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new(|prompt, _| vec![Step::text(format!("{prompt}!"), 1)]);
    let options = Options::new(folder.path().join("data"));
    let options = options.with_adapter(Arc::new(Scripted::new(script)));
    let manager = SessionManager::start(options).await.unwrap();
    let here = folder.path().to_str().unwrap();
    let session = manager.open(OpenSession::new("scripted", here)).await;
    let session = session.unwrap();
    let mut messages = Vec::new();
    for text in ["one", "two", "three"] {
        messages.push(session.send(text, None).await.unwrap());
    }
    session.cancel(messages[2]).await.unwrap();
    for message in &messages[..2] {
        let state = session.settled(*message).await.unwrap();
        assert_eq!(state, MessageState::Completed);
    }
    let mut met = told(snapshotter.snapshot());
    let before = met.clone();
    // How often it looked, how much was said at once, and what the bytes were, differs from day to day.
    let mut varied = |name: &str| met.remove(name).unwrap_or_default() > 0;
    assert!(varied("recount_frames_total"));
    assert!(varied("recount_frames_bytes_total"));
    assert!(varied("recount_append_seconds"));
    assert!(varied("recount_call_seconds{look_up}"));
    let expected = [
        ("recount_attempts_total", 2),
        ("recount_call_seconds{create_session}", 1),
        ("recount_call_seconds{start_turn}", 2),
        ("recount_call_seconds{store_message}", 2),
        ("recount_circuits_open", 0),
        ("recount_connections", 1),
        ("recount_messages_queued_total", 3),
        ("recount_messages_settled_total{cancelled}", 1),
        ("recount_messages_settled_total{completed}", 2),
        ("recount_queue_depth", 0),
        ("recount_runs_total", 2),
        ("recount_servers_started_total", 1),
        ("recount_sessions", 1),
        ("recount_streams_opened_total", 1),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    let mut expected = BTreeMap::from(expected);
    // What was described and never moved stands at nothing.
    met.retain(|name, value| *value != 0 || expected.contains_key(name));
    // A gauge that never moved was never told.
    expected.retain(|name, value| *value != 0 || met.contains_key(name));
    assert_eq!(met, expected);

    manager.shut_down().await.unwrap();
    drop((session, manager));
    tokio::task::yield_now().await;
    // A snapshot takes what it tells, so this is what was given back since.
    let after = told(snapshotter.snapshot());
    for gauge in [QUEUE_DEPTH, SESSIONS, CONNECTIONS, CIRCUITS_OPEN] {
        let of = |met: &BTreeMap<String, i64>| met.get(gauge).copied().unwrap_or_default();
        assert_eq!(of(&before) + of(&after), 0, "{gauge}");
    }
}

#[test]
fn what_is_counted_is_what_the_table_lists() {
    let code = include_str!("../metrics.rs");
    let code = code.split_once("\nuse ").unwrap().1;
    let mut named: Vec<&str> = code
        .split('"')
        .filter(|text| text.starts_with("recount_"))
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut listed: Vec<_> = listed().into_iter().map(|[name, ..]| name).collect();
    listed.sort_unstable();
    assert_eq!(named, listed);
}

#[test]
fn each_is_described_with_its_unit() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        describe();
        frame(7);
        count(&Event::StreamOpened);
        appended(Duration::from_millis(3));
    });
    let mut described: Vec<_> = snapshotter.snapshot().into_vec();
    described.sort_by_key(|(key, ..)| key.key().name().to_owned());
    let described: Vec<_> = described
        .into_iter()
        .map(|(key, unit, text, value)| (key.key().name().to_owned(), unit, text, value))
        .collect();
    let of = |name: &str, unit, text: &'static str, value| {
        (name.to_owned(), Some(unit), Some(text.into()), value)
    };
    assert_eq!(
        described,
        [
            of(
                APPEND,
                Unit::Seconds,
                "how long it took until a session's events were durable, in seconds",
                DebugValue::Histogram(vec![0.003.into()])
            ),
            of(
                FRAMES_BYTES,
                Unit::Bytes,
                "their bytes",
                DebugValue::Counter(7)
            ),
            of(
                FRAMES,
                Unit::Count,
                "frames that came off streams",
                DebugValue::Counter(1)
            ),
            of(
                "recount_streams_opened_total",
                Unit::Count,
                "streams of agents' servers that were opened",
                DebugValue::Counter(1)
            ),
        ]
    );
}
