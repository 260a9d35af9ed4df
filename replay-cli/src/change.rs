//! What is otherwise in one JSON value than in another, by paths.

use serde_json::{Map, Value, json};

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// Where: members with dots; an item of a list by what it is called, or else by its place.
    pub(crate) path: String,
    /// What was there; none where nothing was.
    pub(crate) before: Option<Value>,
    /// What is there; none where nothing is.
    pub(crate) after: Option<Value>,
}

impl Change {
    /// As JSON: what is not there has no member.
    pub(crate) fn view(&self) -> Value {
        let mut view = Map::new();
        view.insert("path".to_owned(), json!(self.path));
        let sides = [("before", &self.before), ("after", &self.after)];
        for (side, value) in sides {
            if let Some(value) = value {
                view.insert(side.to_owned(), value.clone());
            }
        }
        view.into()
    }

    /// As a line.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}", self.path, self.told())
    }

    /// What changed, without where.
    pub(crate) fn told(&self) -> String {
        match (&self.before, &self.after) {
            (Some(Value::String(before)), Some(Value::String(after)))
                if !before.is_empty() && after.starts_with(before.as_str()) =>
            {
                let more = Value::from(&after[before.len()..]);
                format!("went on {more}")
            }
            (Some(before), Some(after)) => format!("{before} -> {after}"),
            (None, Some(after)) => format!("new {after}"),
            (Some(before), None) => format!("gone {before}"),
            (None, None) => String::new(),
        }
    }
}

/// What is otherwise in `after`: members in the order in which it has them, then those that it lacks.
pub(crate) fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), before, after, &mut changes);
    changes
}

fn compare(path: String, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    let mut change = |path, before: Option<&Value>, after: Option<&Value>| {
        let (before, after) = (before.cloned(), after.cloned());
        changes.push(Change {
            path,
            before,
            after,
        });
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let path = member(&path, name);
                match old.get(name) {
                    Some(old) => compare(path, old, value, changes),
                    None => changes.push(Change {
                        path,
                        before: None,
                        after: Some(value.clone()),
                    }),
                }
            }
            for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                changes.push(Change {
                    path: member(&path, name),
                    before: Some(value.clone()),
                    after: None,
                });
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let old: Vec<_> = named(old).collect();
            let new: Vec<_> = named(new).collect();
            for (name, value) in &new {
                let path = format!("{path}[{name}]");
                match old.iter().find(|(known, _)| known == name) {
                    Some((_, old)) => compare(path, old, value, changes),
                    None => changes.push(Change {
                        path,
                        before: None,
                        after: Some((*value).clone()),
                    }),
                }
            }
            let gone = old
                .iter()
                .filter(|(name, _)| new.iter().all(|(n, _)| n != name));
            for (name, value) in gone {
                changes.push(Change {
                    path: format!("{path}[{name}]"),
                    before: Some((*value).clone()),
                    after: None,
                });
            }
        }
        (before, after) if before != after => change(path, Some(before), Some(after)),
        _ => {}
    }
}

fn member(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

/// The items of a list with what they are called; those that are not called anything, with their places.
fn named(items: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    items.iter().enumerate().map(|(place, item)| {
        let names = ["id", "message", "run"].into_iter();
        let name = names
            .filter_map(|name| item.get(name))
            .find_map(|name| match name {
                Value::String(name) => Some(name.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
        (name.unwrap_or_else(|| place.to_string()), item)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_told_by_where_they_are() {
        let before = json!({
            "status": "queued",
            "messages": [{"id": "a", "state": "queued"}, {"id": "b", "state": "queued"}],
            "text": "Well",
            "same": [1, {"x": null}],
            "error": "it broke",
        });
        let after = json!({
            "status": "busy",
            "messages": [{"id": "b", "state": "queued"}, {"id": "a", "state": "running"}, {"id": "c"}],
            "text": "Well, \"now\"",
            "same": [1, {"x": null}],
        });
        let told: Vec<_> = changes(&before, &after).iter().map(Change::line).collect();
        assert_eq!(
            told,
            [
                "messages[a].state: \"queued\" -> \"running\"",
                "messages[c]: new {\"id\":\"c\"}",
                "status: \"queued\" -> \"busy\"",
                "text: went on \", \\\"now\\\"\"",
                "error: gone \"it broke\"",
            ]
        );
        assert_eq!(
            changes(&before, &after)[4].view(),
            json!({"path": "error", "before": "it broke"})
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[a-b]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|members| Value::from(Map::from_iter(members)))
            ]
        })
    }

    proptest! {
        /// What is the same has no changes, and what has none is the same.
        #[test]
        fn no_change_is_missed_and_none_invented(before in values(), after in values()) {
            prop_assert_eq!(changes(&before, &before), []);
            // Items of a list that only stand elsewhere are no change; lists here have no names.
            prop_assert_eq!(changes(&before, &after).is_empty(), before == after);
        }
    }
}
