//! What followed from an event, as a tree laid out in rows.

use std::collections::HashMap;

use recount_store::{Event, Position, Recorded};

/// One row of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// How many forks are above it. What follows alone stands under what it follows from, no deeper.
    pub(crate) depth: usize,
    /// Its place among the events.
    pub(crate) event: usize,
    /// How many pieces of the same output stand for themselves after it, and are left out.
    pub(crate) more: usize,
}

impl Row {
    /// A row for each event that it stands for.
    pub(crate) fn each(self, events: &[Recorded]) -> impl Iterator<Item = Row> {
        let of_same = move |event: &usize| {
            events[*event].cause == events[self.event].cause && is_output(&events[*event])
        };
        let others = (self.event + 1..events.len())
            .filter(of_same)
            .take(self.more);
        std::iter::once(self.event)
            .chain(others)
            .map(move |event| Row {
                depth: self.depth,
                event,
                more: 0,
            })
    }
}

/// The events that followed from the one at `root`, in the order of the tree; `events` come in the order of the log.
pub(crate) fn rows(root: Position, events: &[Recorded]) -> Vec<Row> {
    let mut children: HashMap<Position, Vec<usize>> = HashMap::new();
    for (n, recorded) in events.iter().enumerate() {
        if let Some(cause) = recorded.cause {
            children.entry(cause).or_default().push(n);
        }
    }
    let under = |position: Position| children.get(&position).map_or(&[][..], Vec::as_slice);
    let mut rows: Vec<Row> = Vec::new();
    let mut left: Vec<(usize, usize)> = Vec::new();
    let mut next = Some((root, 0));
    while let Some((position, depth)) = next.take() {
        let own = under(position);
        let deeper = depth + usize::from(own.len() > 1);
        left.extend(own.iter().rev().map(|event| (*event, deeper)));
        while let Some((event, depth)) = left.pop() {
            let recorded = &events[event];
            let leaf = under(recorded.position).is_empty();
            let before = rows.last_mut().filter(|row| {
                let before = &events[row.event];
                leaf && before.cause == recorded.cause
                    && is_output(before)
                    && is_output(recorded)
                    && under(before.position).is_empty()
            });
            match before {
                Some(row) => row.more += 1,
                None => rows.push(Row {
                    depth,
                    event,
                    more: 0,
                }),
            }
            if !leaf {
                next = Some((recorded.position, depth));
                break;
            }
        }
    }
    rows
}

fn is_output(recorded: &Recorded) -> bool {
    matches!(recorded.event, Event::OutputAppended { .. })
}

#[cfg(test)]
mod tests {
    use recount_store::{OutputKind, Placement};

    use super::*;
    use crate::render::fixture;

    fn event(n: u64, cause: u64, output: bool) -> Recorded {
        let event = if output {
            Event::OutputAppended {
                message: fixture::message(),
                run: 1,
                part: String::new(),
                kind: OutputKind::Text,
                placement: Placement::End,
                text: String::new(),
            }
        } else {
            Event::SessionClosed
        };
        Recorded {
            cause: Some(Position(cause)),
            ..fixture::session_event(n, event)
        }
    }

    #[test]
    fn a_tree_is_as_deep_as_it_forks() {
        let events = [
            event(11, 10, false),
            event(12, 11, false),
            event(13, 12, false),
            event(14, 12, false),
            event(15, 13, false),
            event(16, 11, false),
        ];
        let told: Vec<_> = rows(Position(10), &events)
            .iter()
            .map(|row| (events[row.event].position.0, row.depth))
            .collect();
        assert_eq!(told, [(11, 0), (12, 1), (13, 2), (15, 2), (14, 2), (16, 1)]);
        assert_eq!(rows(Position(99), &events), []);
    }

    #[test]
    fn pieces_of_output_stand_together() {
        let events = [
            event(11, 10, true),
            event(12, 10, true),
            event(13, 10, false),
            event(14, 10, true),
            event(15, 14, false),
        ];
        let rows = rows(Position(10), &events);
        let told: Vec<_> = rows.iter().map(|row| (row.event, row.more)).collect();
        assert_eq!(told, [(0, 1), (2, 0), (3, 0), (4, 0)]);
        let each: Vec<_> = rows
            .iter()
            .flat_map(|row| row.each(&events))
            .map(|row| row.event)
            .collect();
        assert_eq!(each, [0, 1, 2, 3, 4]);
    }
}
