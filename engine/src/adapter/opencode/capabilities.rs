//! What a server can do, by the paths in its own description of its calls.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::adapter::capability;

/// Each word, and the calls that it takes; parameters have no names here, since those differ between versions.
const TAKES: &[(&str, &[&str])] = &[
    (capability::ABORT, &["/session/{}/abort"]),
    (capability::EVENT_LOG, &["/sync/history"]),
    (capability::FORK, &["/session/{}/fork"]),
    (
        capability::HISTORY,
        &["/session/{}/message", "/session/{}/message/{}"],
    ),
    (
        capability::PERMISSIONS,
        &["/permission", "/permission/{}/reply"],
    ),
    (
        capability::QUESTIONS,
        &["/question", "/question/{}/reply", "/question/{}/reject"],
    ),
    (
        capability::REVERT,
        &["/session/{}/revert", "/session/{}/unrevert"],
    ),
    (
        capability::TWO_PHASES,
        &["/session/{}/message", "/session/{}/prompt_async"],
    ),
];

/// The part of an `OpenAPI` description that is looked at.
#[derive(Debug, Deserialize)]
#[expect(
    clippy::zero_sized_map_values,
    reason = "it is an object, of which only the keys are of interest"
)]
pub(super) struct Description {
    paths: BTreeMap<String, IgnoredAny>,
}

impl Description {
    /// The words for what it describes, in order.
    pub(super) fn capabilities(&self) -> Vec<String> {
        let paths: BTreeSet<String> = self.paths.keys().map(|path| unnamed(path)).collect();
        let can = |calls: &[&str]| calls.iter().all(|call| paths.contains(*call));
        TAKES
            .iter()
            .filter(|(_, calls)| can(calls))
            .map(|(word, _)| (*word).to_owned())
            .collect()
    }
}

/// A path without the names of its parameters.
fn unnamed(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            "{}"
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Vec<String> {
        let paths: serde_json::Map<_, _> = paths
            .iter()
            .map(|path| ((*path).to_owned(), serde_json::json!({"get": {}})))
            .collect();
        let description = serde_json::json!({"openapi": "3.1.0", "paths": paths}).to_string();
        let description: Description = serde_json::from_str(&description).expect("it is one");
        description.capabilities()
    }

    #[test]
    fn a_word_takes_all_of_its_calls_whatever_their_parameters_are_called() {
        assert_eq!(of(&[]), [""; 0]);
        assert_eq!(of(&["/session/{sessionID}/message", "/tui/{x}"]), [""; 0]);
        assert_eq!(
            of(&[
                "/session/{id}/message",
                "/session/{sessionID}/message/{messageID}",
                "/question",
                "/question/{requestID}/reply",
                "/sync/history",
            ]),
            ["event_log", "history"]
        );
    }

    #[test]
    fn the_words_are_in_order() {
        assert!(TAKES.is_sorted_by_key(|(word, _)| word));
    }
}
