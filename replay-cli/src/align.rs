//! Two sessions laid beside each other: what happened in both, by what it followed from.
//!
//! The events of a session are a forest: each names its cause. Two events are beside each other where their causes are,
//! and among those that follow from the same, as many are paired as keep their order, rather with what is alike than with
//! what is only of the same type. A session and its connection go on side by side, so only the order within
//! either counts.
//!
//! What is different each time is made equal first: times are left out, ids and process numbers are replaced by which
//! one in order they are, numbers in reasons by one sign; and the pieces of an answer are put together, since how it is cut is chance.

use std::collections::HashMap;

use recount_store::{Event, Position, Recorded, StreamId};
use serde_json::Value;

/// More pairs than this are not tried of what follows from one event; then they are paired as they stand.
const TRIES_MAX: usize = 1 << 24;

/// An event in its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The event; of pieces of output that were put together, the first.
    pub(crate) recorded: Recorded,
    /// How many pieces were put together, beside the first.
    pub(crate) more: usize,
    of_session: bool,
    /// What it says, made equal.
    content: Value,
    /// What follows from it, of the session and of its connection.
    follow: [Vec<usize>; 2],
}

impl Node {
    /// What it says, made equal.
    pub(crate) fn content(&self) -> &Value {
        &self.content
    }
}

/// A session as a forest.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Forest {
    /// In the order of the log.
    pub(crate) nodes: Vec<Node>,
    roots: [Vec<usize>; 2],
}

impl Forest {
    /// The forest of the events of a session and its connection.
    pub(crate) fn of<E>(events: impl IntoIterator<Item = Result<Recorded, E>>) -> Result<Self, E> {
        let mut forest = Self::default();
        let mut places: HashMap<Position, usize> = HashMap::new();
        let mut names = Names::default();
        let mut last_of_session: Option<usize> = None;
        for recorded in events {
            let recorded = recorded?;
            let position = recorded.position;
            let of_session = matches!(recorded.stream, StreamId::Session(_));
            if let Some(last) = last_of_session.filter(|_| of_session)
                && forest.nodes[last].takes(&recorded)
            {
                places.insert(position, last);
                continue;
            }
            let place = forest.nodes.len();
            places.insert(position, place);
            let cause = recorded.cause.and_then(|cause| places.get(&cause));
            let follow = match cause {
                Some(cause) => &mut forest.nodes[*cause].follow,
                None => &mut forest.roots,
            };
            follow[usize::from(!of_session)].push(place);
            let content = names.made_equal(&recorded.event);
            forest.nodes.push(Node {
                recorded,
                more: 0,
                of_session,
                content,
                follow: [Vec::new(), Vec::new()],
            });
            if of_session {
                last_of_session = Some(place);
            }
        }
        Ok(forest)
    }

    /// How many events are in what follows from one, with itself.
    fn weight(&self, place: usize) -> usize {
        let mut left = vec![place];
        let mut weight = 0;
        while let Some(place) = left.pop() {
            weight += 1;
            left.extend(self.nodes[place].follow.iter().flatten());
        }
        weight
    }
}

impl Node {
    /// Takes in what is only more of the same output; false where it is not.
    fn takes(&mut self, recorded: &Recorded) -> bool {
        let (
            Event::OutputAppended {
                message,
                run,
                part,
                kind,
                placement,
                ..
            },
            Event::OutputAppended {
                message: own_message,
                run: own_run,
                part: own_part,
                kind: own_kind,
                placement: own_placement,
                ..
            },
        ) = (&recorded.event, &self.recorded.event)
        else {
            return false;
        };
        let same = (message, run, part, kind, placement)
            == (own_message, own_run, own_part, own_kind, own_placement);
        if let (true, Event::OutputAppended { text, .. }, Some(Value::String(own))) =
            (same, &recorded.event, self.content.get_mut("text"))
        {
            own.push_str(text);
            self.more += 1;
        }
        same
    }
}

/// Which one in order each id of a kind is.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<(String, String), usize>,
}

/// The members that hold times.
const TIMES: [&str; 3] = ["at", "until", "next"];

/// The members with words for people, about what happened.
const WORDS: [&str; 3] = ["reason", "evidence", "how"];

/// The members whose values are different each time, and mean only which one of them is meant.
const NAMES: [&str; 18] = [
    "message",
    "again",
    "key",
    "connection",
    "agent_session",
    "agent_message",
    "part",
    "items",
    "call",
    "permission",
    "question",
    "marker",
    "mark",
    "pid",
    "started",
    "port",
    "url",
    "hash",
];

impl Names {
    fn made_equal(&mut self, event: &Event) -> Value {
        let own = serde_json::to_value(event).unwrap_or_default();
        let mut data = match own {
            Value::Object(mut own) => own.remove("data").unwrap_or_default(),
            other => other,
        };
        let Some(members) = data.as_object_mut() else {
            return data;
        };
        members.retain(|name, _| !TIMES.contains(&name.as_str()));
        for (name, value) in members.iter_mut() {
            if NAMES.contains(&name.as_str()) && !value.is_null() {
                let next = self.known.len();
                let key = (name.clone(), value.to_string());
                let number = *self.known.entry(key).or_insert(next);
                *value = Value::from(format!("{name} {number}"));
            } else if name == "answers" && matches!(event, Event::TurnInterrupted { .. }) {
                *value = Value::from(value.as_array().map_or(0, Vec::len));
            } else if let (Value::String(text), true) = (&*value, WORDS.contains(&name.as_str())) {
                *value = Value::from(equal_text(text));
            }
        }
        data
    }
}

/// A text with each number in it as one sign: ports, counts and times are in words for people, too.
fn equal_text(text: &str) -> String {
    let mut equal = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if equal.ends_with('#') => {}
            true => equal.push('#'),
            false => equal.push(c),
        }
    }
    equal
}

/// One difference between two sessions, by places in their forests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Only in the first, with so many events in all that followed from it.
    OnlyFirst(usize, usize),
    /// Only in the second, likewise.
    OnlySecond(usize, usize),
    /// In both, and it says something else.
    Content(usize, usize),
}

/// What two sessions have in common, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Aligned {
    /// How many events are the same in both.
    pub(crate) alike: usize,
    /// What is not, in the order in which it happened.
    pub(crate) differences: Vec<Difference>,
}

/// Lays the second beside the first.
pub(crate) fn align(first: &Forest, second: &Forest) -> Aligned {
    let mut alike = 0;
    // By where in the first it is, or what in the first it comes after.
    let mut differences: Vec<((usize, usize), Difference)> = Vec::new();
    let mut left = vec![(0, &first.roots, &second.roots)];
    while let Some((above, first_follow, second_follow)) = left.pop() {
        for (a, b) in first_follow.iter().zip(second_follow) {
            let mut after = above;
            for pair in pairs(first, a, second, b) {
                match pair {
                    (Some(a), Some(b)) => {
                        after = a;
                        let (of_first, of_second) = (&first.nodes[a], &second.nodes[b]);
                        if of_first.content == of_second.content {
                            alike += 1;
                        } else {
                            differences.push(((a, 0), Difference::Content(a, b)));
                        }
                        left.push((a, &of_first.follow, &of_second.follow));
                    }
                    (Some(a), None) => {
                        after = a;
                        differences.push(((a, 0), Difference::OnlyFirst(a, first.weight(a))));
                    }
                    (None, Some(b)) => {
                        let weight = second.weight(b);
                        differences.push(((after, 1 + b), Difference::OnlySecond(b, weight)));
                    }
                    (None, None) => {}
                }
            }
        }
    }
    differences.sort_by_key(|(order, _)| *order);
    Aligned {
        alike,
        differences: differences.into_iter().map(|(_, found)| found).collect(),
    }
}

type Pair = (Option<usize>, Option<usize>);

/// The best way to lay what follows from the same beside each other.
fn pairs(first: &Forest, a: &[usize], second: &Forest, b: &[usize]) -> Vec<Pair> {
    let worth = |a: usize, b: usize| {
        let (a, b) = (&first.nodes[a], &second.nodes[b]);
        match a.recorded.event.type_name() == b.recorded.event.type_name() {
            true if a.content == b.content => 3_u32,
            true => 1,
            false => 0,
        }
    };
    // Mostly all is alike, from both ends on.
    let same = |(a, b): &(&usize, &usize)| worth(**a, **b) == 3;
    let begin = a.iter().zip(b).take_while(same).count();
    let (rest_a, rest_b) = (&a[begin..], &b[begin..]);
    let end = rest_a
        .iter()
        .rev()
        .zip(rest_b.iter().rev())
        .take_while(same)
        .count();
    let (middle_a, middle_b) = (&rest_a[..rest_a.len() - end], &rest_b[..rest_b.len() - end]);
    let both = |(a, b): (&usize, &usize)| (Some(*a), Some(*b));
    let mut pairs: Vec<Pair> = a[..begin].iter().zip(b).map(both).collect();
    pairs.extend(middle(middle_a, middle_b, &worth));
    let tail_a = &rest_a[rest_a.len() - end..];
    let tail_b = &rest_b[rest_b.len() - end..];
    pairs.extend(tail_a.iter().zip(tail_b).map(both));
    pairs
}

/// The same where nothing is alike at the ends: the pairs of the greatest worth in all that keep their order.
fn middle(a: &[usize], b: &[usize], worth: &impl Fn(usize, usize) -> u32) -> Vec<Pair> {
    let width = b.len() + 1;
    if a.is_empty() || b.is_empty() || a.len().saturating_mul(width) > TRIES_MAX {
        return as_they_stand(a, b, worth);
    }
    // best[i][j]: what can be had of a[i..] and b[j..].
    let mut best = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            let pair = match worth(a[i], b[j]) {
                0 => 0,
                worth => worth + best[(i + 1) * width + j + 1],
            };
            let skip = best[(i + 1) * width + j].max(best[i * width + j + 1]);
            best[i * width + j] = pair.max(skip);
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < a.len() && j < b.len() {
        let own = worth(a[i], b[j]);
        if own > 0 && best[i * width + j] == own + best[(i + 1) * width + j + 1] {
            pairs.push((Some(a[i]), Some(b[j])));
            (i, j) = (i + 1, j + 1);
        } else if best[i * width + j] == best[(i + 1) * width + j] {
            pairs.push((Some(a[i]), None));
            i += 1;
        } else {
            pairs.push((None, Some(b[j])));
            j += 1;
        }
    }
    pairs.extend(a[i..].iter().map(|a| (Some(*a), None)));
    pairs.extend(b[j..].iter().map(|b| (None, Some(*b))));
    pairs
}

fn as_they_stand(a: &[usize], b: &[usize], worth: &impl Fn(usize, usize) -> u32) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for n in 0..a.len().max(b.len()) {
        match (a.get(n), b.get(n)) {
            (Some(a), Some(b)) if worth(*a, *b) > 0 => pairs.push((Some(*a), Some(*b))),
            (a, b) => {
                pairs.extend(a.map(|a| (Some(*a), None)));
                pairs.extend(b.map(|b| (None, Some(*b))));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use recount_store::{MessageId, OutputKind, Placement, Seq, Timestamp};

    use super::*;
    use crate::render::fixture;

    fn forest(events: Vec<Recorded>) -> Forest {
        let Ok(forest) = Forest::of(events.into_iter().map(Ok::<_, Infallible>));
        forest
    }

    /// The story with a chain of causes: each event follows from the one before in its stream.
    fn story() -> Vec<Recorded> {
        let mut story = fixture::story();
        let mut last: HashMap<StreamId, Position> = HashMap::new();
        for recorded in &mut story {
            recorded.cause = last.insert(recorded.stream, recorded.position);
        }
        story
    }

    fn said(n: u64, cause: u64, text: &str) -> Recorded {
        let event = Event::OutputAppended {
            message: fixture::message(),
            run: 1,
            part: "p".to_owned(),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: text.to_owned(),
        };
        Recorded {
            cause: Some(Position(cause)),
            ..fixture::session_event(n, event)
        }
    }

    #[test]
    fn times_numbers_ids_and_pieces_are_no_difference() {
        let mut other = story();
        for recorded in &mut other {
            recorded.position = Position(recorded.position.0 * 3 + 5);
            recorded.cause = recorded.cause.map(|cause| Position(cause.0 * 3 + 5));
            recorded.seq = Seq(recorded.seq.0 + 7);
            recorded.at = Timestamp(recorded.at.0 * 2);
            match &mut recorded.event {
                Event::ServerSpawned { pid, .. } => *pid = 7,
                Event::MessageQueued { message, .. } => *message = MessageId::from_bytes([9; 10]),
                Event::DeliveryStarted { agent_message, .. } => "other".clone_into(agent_message),
                Event::ReconnectScheduled { at, .. } => *at = Timestamp(3),
                _ => {}
            }
        }
        // The one id is another everywhere.
        let changed = |recorded: &Recorded| !matches!(recorded.event, Event::MessageQueued { .. });
        let one: Vec<_> = story().into_iter().filter(changed).collect();
        let two: Vec<_> = other.into_iter().filter(changed).collect();
        let nodes = one.len();
        let aligned = align(&forest(one), &forest(two));
        assert_eq!((aligned.alike, aligned.differences), (nodes, vec![]));

        let whole = vec![
            said(1, 0, "Well, it is said"),
            fixture::session_event(2, Event::SessionClosed),
        ];
        let pieces = vec![
            said(1, 0, "Well, "),
            said(2, 0, "it is"),
            said(3, 1, " said"),
            fixture::session_event(9, Event::SessionClosed),
        ];
        let aligned = align(&forest(whole), &forest(pieces));
        assert_eq!((aligned.alike, aligned.differences), (2, vec![]));
    }

    #[test]
    fn the_order_between_a_session_and_its_connection_is_chance() {
        let lost = || fixture::connection_event(2, Event::StreamOpened);
        let closed = || fixture::session_event(3, Event::SessionClosed);
        let aligned = align(
            &forest(vec![lost(), closed()]),
            &forest(vec![closed(), lost()]),
        );
        assert_eq!((aligned.alike, aligned.differences), (2, vec![]));
    }

    #[test]
    fn differences_are_named_in_order_with_what_follows_from_them() {
        let mut other = story();
        // The agent does not die: all that followed from it is not there, and the turn completes.
        other.truncate(13);
        let completed = Event::TurnCompleted {
            message: fixture::message(),
            run: 1,
            finish: "stop".to_owned(),
        };
        other.push(Recorded {
            cause: Some(Position(13)),
            ..fixture::session_event(14, completed)
        });
        if let Event::MessageQueued { text, .. } = &mut other[1].event {
            "Why?".clone_into(text);
        }
        let aligned = align(&forest(story()), &forest(other));
        assert_eq!(aligned.alike, 12);
        assert_eq!(
            aligned.differences,
            [
                Difference::Content(1, 1),
                Difference::OnlyFirst(13, 4),
                Difference::OnlyFirst(17, 3),
                Difference::OnlySecond(13, 1),
            ]
        );
    }

    fn events() -> impl Strategy<Value = Vec<Recorded>> {
        let one = (0..5_u32, 0..6_u64, any::<bool>());
        proptest::collection::vec(one, 0..20).prop_map(|all| {
            (1..)
                .zip(all)
                .map(|(n, (what, back, of_session))| {
                    let reason = "a".repeat(what as usize / 2);
                    let event = match what % 2 {
                        0 => Event::StreamLost { reason },
                        _ => Event::ServerExited { how: reason },
                    };
                    let recorded = if of_session {
                        fixture::session_event(n, event)
                    } else {
                        fixture::connection_event(n, event)
                    };
                    let cause = n
                        .checked_sub(back + 1)
                        .filter(|cause| *cause > 0)
                        .map(Position);
                    Recorded { cause, ..recorded }
                })
                .collect()
        })
    }

    proptest! {
        /// Each event is in one pair or in one difference, and a session is like itself.
        #[test]
        fn nothing_is_lost_and_nothing_is_counted_twice(one in events(), two in events()) {
            let (a, b) = (forest(one), forest(two));
            let aligned = align(&a, &b);
            let (mut of_first, mut of_second) = (aligned.alike, aligned.alike);
            for difference in aligned.differences {
                match difference {
                    Difference::OnlyFirst(_, weight) => of_first += weight,
                    Difference::OnlySecond(_, weight) => of_second += weight,
                    Difference::Content(..) => {
                        of_first += 1;
                        of_second += 1;
                    }
                }
            }
            prop_assert_eq!((of_first, of_second), (a.nodes.len(), b.nodes.len()));
            prop_assert_eq!(align(&a, &a).differences, []);
        }
    }
}
