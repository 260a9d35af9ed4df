//! Whether a history is one that a single correct log could have given.
//!
//! The log itself, read at the end, is the order in which its appends took effect. Everything that was
//! answered on the way has to agree with that order, and with the clock. History in, violations out.

use std::collections::HashMap;
use std::fmt;

use recount_store::{Expected, StreamId};

/// What was asked of a log and answered, and what the log held at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) log: Vec<Entry>,
}

/// Something asked. Calls and returns have times of one logical clock, no two the same.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    /// From here on it can have no effect any more. Where the caller went away, the end of that log's life.
    pub(crate) returned: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Append(Vec<Part>, Outcome),
    /// Events from a place on, to the end if it is whole.
    Read {
        of: Of,
        found: Vec<Entry>,
        whole: bool,
    },
    /// How many events there are.
    Count {
        of: Of,
        found: u64,
    },
    /// Events as they came, each with the time.
    Tail {
        of: Of,
        given: Vec<(u64, Entry)>,
    },
}

/// An append to one stream, alone or together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    pub(crate) expected: Expected,
    /// What the events say: no two in a history say the same. An append may be asked for again.
    pub(crate) labels: Vec<String>,
}

/// The answer to an append.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Placed(Vec<Entry>),
    Conflict {
        stream: StreamId,
        actual: u64,
    },
    /// It may have happened, or not.
    Unknown,
}

/// What is looked at, from which number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    All { from: u64 },
    Stream { stream: StreamId, from: u64 },
}

/// An event in its place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
    pub(crate) label: String,
}

/// What no correct log does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The log does not go on here with the next position and the next number.
    Gap { position: u64 },
    /// It was acknowledged or shown, and is not there any more.
    Lost { label: String },
    /// It stands elsewhere than where it was said to be.
    Moved { label: String },
    /// It is there more than once.
    Doubled { label: String },
    /// It is there, or was shown, and nobody had asked for it by then, or it had been refused.
    Phantom { label: String },
    /// Its append is there in part, or not in one piece.
    Torn { label: String },
    /// The first had been answered before the second was called, and comes after it.
    Reordered { first: String, second: String },
    /// It was appended although its stream was not where the caller expected it.
    Unexpected { label: String },
    /// A conflict named a number that the stream did not have at that time.
    Unexplained { stream: StreamId, actual: u64 },
    /// What was looked at lacks an event that somebody had already been told of.
    Stale { called: u64, position: u64 },
    /// What was looked at is not a piece of the log: this does not belong there.
    Misread { called: u64, label: String },
}

/// Everything that is wrong with a history; nothing if it is right.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::new(history);
    checker.final_log();
    checker.appends();
    checker.order();
    checker.conflicts();
    checker.looks();
    checker.found
}

struct Checker<'a> {
    history: &'a History,
    /// The append that asked for a label.
    asked: HashMap<&'a str, Asked>,
    /// Where a label stands in the log at the end, counted from zero.
    places: HashMap<&'a str, usize>,
    /// The events of a stream at the end.
    streams: HashMap<StreamId, Vec<&'a Entry>>,
    found: Vec<Violation>,
}

/// When an append was called for the first time, when it had happened if it did, and what was said of it.
#[derive(Clone, Copy)]
struct Asked {
    called: u64,
    returned: u64,
    refused: bool,
    acknowledged: bool,
}

impl Asked {
    /// The same append was asked for more than once.
    fn and(self, other: Self) -> Self {
        Self {
            called: self.called.min(other.called),
            returned: match (self.acknowledged, other.acknowledged) {
                (true, false) => self.returned,
                (false, true) => other.returned,
                (true, true) => self.returned.min(other.returned),
                (false, false) => self.returned.max(other.returned),
            },
            refused: self.refused && other.refused,
            acknowledged: self.acknowledged || other.acknowledged,
        }
    }
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let mut asked: HashMap<&str, Asked> = HashMap::new();
        for operation in &history.operations {
            if let What::Append(parts, outcome) = &operation.what {
                let now = Asked {
                    called: operation.called,
                    returned: operation.returned,
                    refused: matches!(outcome, Outcome::Conflict { .. }),
                    acknowledged: matches!(outcome, Outcome::Placed(_)),
                };
                for label in parts.iter().flat_map(|part| &part.labels) {
                    let about = asked.entry(label).or_insert(now);
                    *about = about.and(now);
                }
            }
        }
        Self {
            history,
            asked,
            places: HashMap::new(),
            streams: HashMap::new(),
            found: Vec::new(),
        }
    }

    /// The log at the end has no gaps, nothing twice, and nothing that was not asked for.
    fn final_log(&mut self) {
        for (place, entry) in self.history.log.iter().enumerate() {
            let stream = self.streams.entry(entry.stream).or_default();
            stream.push(entry);
            let in_place = entry.position == place as u64 + 1;
            if !in_place || entry.seq != stream.len() as u64 {
                let position = entry.position;
                self.found.push(Violation::Gap { position });
            }
            let label = entry.label.clone();
            if self.places.insert(&entry.label, place).is_some() {
                self.found.push(Violation::Doubled { label });
            } else if self.asked.get(&*label).is_none_or(|asked| asked.refused) {
                self.found.push(Violation::Phantom { label });
            }
        }
    }

    /// Each append is there as it was acknowledged, or whole, or not at all; and where it was expected to be.
    fn appends(&mut self) {
        for operation in &self.history.operations {
            let What::Append(parts, outcome) = &operation.what else {
                continue;
            };
            if matches!(outcome, Outcome::Conflict { .. }) {
                continue;
            }
            let labels: Vec<&str> = parts
                .iter()
                .flat_map(|part| &part.labels)
                .map(String::as_str)
                .collect();
            if let Outcome::Placed(placed) = outcome {
                if !placed
                    .iter()
                    .map(|entry| &*entry.label)
                    .eq(labels.iter().copied())
                {
                    let label = labels[0].to_owned();
                    self.found.push(Violation::Torn { label });
                }
                for entry in placed {
                    self.stands(entry);
                }
            }
            let places: Vec<usize> = labels
                .iter()
                .filter_map(|label| self.places.get(label).copied())
                .collect();
            if places.is_empty() {
                continue;
            }
            let whole = places.len() == labels.len();
            if !whole || !places.is_sorted_by(|a, b| a + 1 == *b) {
                let label = labels[0].to_owned();
                self.found.push(Violation::Torn { label });
                continue;
            }
            let mut places = places.into_iter();
            for part in parts {
                let first = &self.history.log[places.next().expect("a part is not empty")];
                let as_expected = match part.expected {
                    Expected::Any => true,
                    Expected::NoStream => first.seq == 1,
                    Expected::Exact(seq) => first.seq == seq.0 + 1,
                };
                if !as_expected || first.stream != part.stream {
                    let label = first.label.clone();
                    self.found.push(Violation::Unexpected { label });
                }
                places.by_ref().take(part.labels.len() - 1).for_each(drop);
            }
        }
    }

    /// What was told of an event is still so at the end.
    fn stands(&mut self, entry: &Entry) {
        let label = entry.label.clone();
        match self.places.get(&*label) {
            None => self.found.push(Violation::Lost { label }),
            Some(place) if self.history.log[*place] != *entry => {
                self.found.push(Violation::Moved { label });
            }
            Some(_) => {}
        }
    }

    /// What had been answered before something else was called comes before it.
    fn order(&mut self) {
        let mut latest: Option<(u64, &Entry)> = None;
        for entry in &self.history.log {
            let Some(asked) = self.asked.get(&*entry.label) else {
                continue;
            };
            match latest {
                Some((called, second)) if asked.returned < called => {
                    self.found.push(Violation::Reordered {
                        first: entry.label.clone(),
                        second: second.label.clone(),
                    });
                }
                Some((called, _)) if called >= asked.called => {}
                _ => latest = Some((asked.called, entry)),
            }
        }
    }

    /// A stream had the number that a conflict named, at some moment while the append was under way.
    fn conflicts(&mut self) {
        for operation in &self.history.operations {
            let What::Append(parts, Outcome::Conflict { stream, actual }) = &operation.what else {
                continue;
            };
            let events = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
            let index = usize::try_from(*actual).expect("small");
            let asked = |n: usize| events.get(n).and_then(|e| self.asked.get(&*e.label));
            // It had this number at the earliest when the append of that event was called...
            let from = match index.checked_sub(1) {
                None => Some(0),
                Some(last) => asked(last).map(|asked| asked.called),
            };
            // ...and until the next one was answered; or longer, if it never was.
            let until = match asked(index) {
                Some(next) if next.acknowledged => next.returned,
                _ => u64::MAX,
            };
            let possible =
                from.is_some_and(|from| from < operation.returned && operation.called < until);
            let others = parts.iter().any(|part| {
                part.stream == *stream
                    && match part.expected {
                        Expected::Any => false,
                        Expected::NoStream => *actual != 0,
                        Expected::Exact(seq) => *actual != seq.0,
                    }
            });
            if !possible || !others {
                self.found.push(Violation::Unexplained {
                    stream: *stream,
                    actual: *actual,
                });
            }
        }
    }

    /// Whatever was looked at is a piece of the log, with all that anybody had been told of by then.
    fn looks(&mut self) {
        let told = self.told();
        for operation in &self.history.operations {
            let called = operation.called;
            let known = told
                .partition_point(|(when, _)| *when < called)
                .checked_sub(1)
                .map_or(0, |last| told[last].1);
            match &operation.what {
                What::Append(..) => {}
                What::Read { of, found, whole } => {
                    let times = found.iter().map(|entry| (operation.returned, entry));
                    self.piece(*of, called, times);
                    if *whole {
                        self.complete(*of, called, found.len() as u64, known);
                    }
                }
                What::Count { of, found } => {
                    self.complete(*of, called, *found, known);
                    let events = self.of(*of);
                    let last = usize::try_from(*found).expect("small").checked_sub(1);
                    match last.map(|last| events.get(last)) {
                        None => {}
                        Some(Some(last)) => self.not_before_asked(operation.returned, last),
                        // It counts events that are not there at the end.
                        Some(None) => self.found.push(Violation::Misread {
                            called,
                            label: format!("event {found}"),
                        }),
                    }
                }
                What::Tail { of, given } => {
                    let given = given.iter().map(|(when, entry)| (*when, entry));
                    self.piece(*of, called, given);
                }
            }
        }
    }

    /// The highest position that anybody had been told of, by the time, ascending.
    fn told(&self) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        for operation in &self.history.operations {
            let returned = operation.returned;
            match &operation.what {
                What::Append(_, Outcome::Placed(placed)) => {
                    told.extend(placed.iter().map(|entry| (returned, entry.position)));
                }
                What::Append(..) => {}
                What::Read { found, .. } => {
                    told.extend(found.iter().map(|entry| (returned, entry.position)));
                }
                What::Count { of, found } => {
                    let counted = found
                        .checked_sub(1)
                        .and_then(|last| usize::try_from(last).ok());
                    let last = counted.and_then(|last| self.of(*of).get(last).copied());
                    told.extend(last.map(|entry| (returned, entry.position)));
                }
                What::Tail { given, .. } => {
                    told.extend(given.iter().map(|(when, entry)| (*when, entry.position)));
                }
            }
        }
        told.sort_unstable();
        let mut highest = 0;
        for (_, position) in &mut told {
            highest = highest.max(*position);
            *position = highest;
        }
        told
    }

    /// The events that a look is about, at the end.
    fn of(&self, of: Of) -> Vec<&'a Entry> {
        let (events, from) = match of {
            Of::All { from } => (self.history.log.iter().collect(), from),
            Of::Stream { stream, from } => {
                (self.streams.get(&stream).cloned().unwrap_or_default(), from)
            }
        };
        let skipped = usize::try_from(from.max(1) - 1).expect("small");
        events.into_iter().skip(skipped).collect()
    }

    /// What was given, each with its time, is what the log holds there, in order, without gap or repeat.
    fn piece<'b>(&mut self, of: Of, called: u64, given: impl Iterator<Item = (u64, &'b Entry)>) {
        let mut expected = self.of(of).into_iter();
        for (when, entry) in given {
            if expected.next() == Some(entry) {
                self.not_before_asked(when, entry);
                continue;
            }
            let label = entry.label.clone();
            self.found.push(if !self.asked.contains_key(&*label) {
                Violation::Phantom { label }
            } else if !self.places.contains_key(&*label) {
                Violation::Lost { label }
            } else {
                Violation::Misread { called, label }
            });
            return;
        }
    }

    fn not_before_asked(&mut self, when: u64, entry: &Entry) {
        let asked = self.asked.get(&*entry.label);
        if asked.is_some_and(|asked| asked.called > when) {
            let label = entry.label.clone();
            self.found.push(Violation::Phantom { label });
        }
    }

    /// A look that found so many events lacks none that is known.
    fn complete(&mut self, of: Of, called: u64, found: u64, known: u64) {
        let missing = self
            .of(of)
            .into_iter()
            .skip(usize::try_from(found).expect("small"));
        if let Some(first) = missing.take(1).find(|entry| entry.position <= known) {
            let position = first.position;
            self.found.push(Violation::Stale { called, position });
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            position,
            stream,
            seq,
            label,
        } = self;
        write!(f, "{position}={stream}#{seq}:{label}")
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut operations: Vec<_> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.called);
        for operation in operations {
            let Operation {
                called,
                returned,
                what,
            } = operation;
            writeln!(f, "{called}..{returned} {what:?}")?;
        }
        writeln!(f, "in the end:")?;
        self.log
            .iter()
            .try_for_each(|entry| writeln!(f, "{entry:?}"))
    }
}

#[cfg(test)]
mod tests {
    use recount_store::Seq;

    use super::*;
    use crate::session;

    const A: u8 = 1;
    const B: u8 = 2;

    fn entry(position: u64, stream: u8, seq: u64, label: &str) -> Entry {
        Entry {
            position,
            stream: session(stream),
            seq,
            label: label.to_owned(),
        }
    }

    fn part(stream: u8, expected: Expected, labels: &[&str]) -> Part {
        Part {
            stream: session(stream),
            expected,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        }
    }

    fn operation(called: u64, returned: u64, what: What) -> Operation {
        Operation {
            called,
            returned,
            what,
        }
    }

    /// An append that was acknowledged, in the place that its entries name.
    fn placed(called: u64, returned: u64, entries: &[Entry]) -> Operation {
        let labels: Vec<_> = entries.iter().map(|entry| &*entry.label).collect();
        let StreamId::Session(_) = entries[0].stream else {
            panic!("of a session");
        };
        let part = Part {
            stream: entries[0].stream,
            expected: Expected::Any,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        };
        let outcome = Outcome::Placed(entries.to_vec());
        operation(called, returned, What::Append(vec![part], outcome))
    }

    fn unknown(called: u64, returned: u64, parts: Vec<Part>) -> Operation {
        operation(called, returned, What::Append(parts, Outcome::Unknown))
    }

    fn conflict(called: u64, returned: u64, asked: Part, actual: u64) -> Operation {
        let stream = asked.stream;
        let outcome = Outcome::Conflict { stream, actual };
        operation(called, returned, What::Append(vec![asked], outcome))
    }

    fn read(called: u64, returned: u64, of: Of, found: &[Entry]) -> Operation {
        let found = found.to_vec();
        let whole = true;
        operation(called, returned, What::Read { of, found, whole })
    }

    const ALL: Of = Of::All { from: 1 };

    fn of(stream: u8, from: u64) -> Of {
        let stream = session(stream);
        Of::Stream { stream, from }
    }

    /// Three events, two streams: `a` and `c` in one, `b` in the other.
    fn abc() -> Vec<Entry> {
        vec![
            entry(1, A, 1, "a"),
            entry(2, B, 1, "b"),
            entry(3, A, 2, "c"),
        ]
    }

    /// They were appended one after the other.
    fn appended() -> Vec<Operation> {
        let log = abc();
        vec![
            placed(10, 19, &log[..1]),
            placed(20, 29, &log[1..2]),
            placed(30, 39, &log[2..]),
        ]
    }

    fn violations(operations: Vec<Operation>, log: Vec<Entry>) -> Vec<Violation> {
        check(&History { operations, log })
    }

    /// What is found when this was done besides.
    fn with(more: Operation) -> Vec<Violation> {
        let mut operations = appended();
        operations.push(more);
        violations(operations, abc())
    }

    fn label(label: &str) -> String {
        label.to_owned()
    }

    #[test]
    fn a_history_that_is_right() {
        let log = abc();
        let tail = What::Tail {
            of: of(A, 1),
            given: vec![(15, log[0].clone()), (35, log[2].clone())],
        };
        let mut operations = appended();
        operations.extend([
            read(1, 2, ALL, &[]),
            read(11, 12, ALL, &log[..1]),
            read(13, 22, ALL, &log[..2]),
            read(31, 40, of(A, 2), &log[2..]),
            read(41, 42, of(B, 2), &[]),
            operation(43, 44, What::Count { of: ALL, found: 3 }),
            operation(5, 50, tail),
            unknown(45, 46, vec![part(A, Expected::Any, &["d", "e"])]),
            conflict(14, 16, part(A, Expected::Exact(Seq(7)), &["f"]), 1),
            conflict(17, 18, part(B, Expected::Exact(Seq(7)), &["g"]), 0),
        ]);
        assert_eq!(violations(operations.clone(), log.clone()), []);

        // What is unknown may be there.
        let more = [entry(4, A, 3, "d"), entry(5, A, 4, "e")];
        assert_eq!(violations(operations, [log, more.to_vec()].concat()), []);
    }

    #[test]
    fn an_append_that_is_asked_for_again() {
        let log = abc();
        let mut operations = appended();
        let again = unknown(22, 45, vec![part(A, Expected::Any, &["c"])]);
        operations.extend([again, placed(50, 51, &log[2..])]);
        assert_eq!(violations(operations.clone(), log.clone()), []);
        // It is there twice.
        let twice = [log, vec![entry(4, A, 3, "c")]].concat();
        operations.push(placed(60, 61, &twice[3..]));
        let found = violations(operations, twice);
        assert_eq!(found[0], Violation::Doubled { label: label("c") });
    }

    #[test]
    fn a_lost_acknowledgement() {
        let lost = vec![Violation::Lost { label: label("c") }];
        assert_eq!(violations(appended(), abc()[..2].to_vec()), lost);
    }

    #[test]
    fn an_event_that_was_shown_and_is_gone() {
        let more = [entry(4, A, 3, "d")];
        let shown = read(45, 46, ALL, &[abc(), more.to_vec()].concat());
        let mut operations = appended();
        operations.extend([unknown(40, 49, vec![part(A, Expected::Any, &["d"])]), shown]);
        let lost = vec![Violation::Lost { label: label("d") }];
        assert_eq!(violations(operations, abc()), lost);
    }

    #[test]
    fn an_event_that_moved() {
        let mut operations = appended();
        let moved = entry(4, A, 2, "c");
        operations[2] = placed(30, 39, &[moved]);
        let moved = vec![Violation::Moved { label: label("c") }];
        assert_eq!(violations(operations, abc()), moved);
    }

    #[test]
    fn a_doubled_event() {
        let mut log = abc();
        log.push(entry(4, A, 3, "a"));
        let found = violations(appended(), log);
        assert_eq!(found[0], Violation::Doubled { label: label("a") });
    }

    #[test]
    fn a_gap_in_positions_or_numbers() {
        let mut log = abc();
        log[2].position = 4;
        let found = violations(appended(), log);
        assert_eq!(found[0], Violation::Gap { position: 4 });
        let mut log = abc();
        log[2].seq = 3;
        let found = violations(appended(), log);
        assert_eq!(found[0], Violation::Gap { position: 3 });
    }

    #[test]
    fn a_phantom() {
        let phantom = vec![Violation::Phantom { label: label("d") }];
        let mut log = abc();
        log.push(entry(4, A, 3, "d"));
        assert_eq!(violations(appended(), log.clone()), phantom);
        // It was asked for, and refused.
        let mut operations = appended();
        operations.push(conflict(40, 41, part(A, Expected::NoStream, &["d"]), 2));
        assert_eq!(violations(operations, log.clone()), phantom);
        // It was shown, and nobody asked.
        assert_eq!(with(read(40, 41, ALL, &log)), phantom);
        // It was shown before anybody asked.
        let early = read(24, 26, ALL, &abc());
        let found = with(early);
        assert_eq!(found, [Violation::Phantom { label: label("c") }]);
        // It was counted before anybody asked.
        let early = operation(24, 26, What::Count { of: ALL, found: 3 });
        assert_eq!(with(early)[0], Violation::Phantom { label: label("c") });
    }

    #[test]
    fn an_append_in_part() {
        let mut operations = appended();
        let torn = vec![Violation::Torn { label: label("d") }];
        operations.push(unknown(40, 41, vec![part(A, Expected::Any, &["d", "e"])]));
        let log = [abc(), vec![entry(4, A, 3, "d")]].concat();
        assert_eq!(violations(operations.clone(), log), torn);
        // All of it, with something in between.
        operations.push(placed(40, 41, &[entry(5, B, 2, "f")]));
        let apart = [
            entry(4, A, 3, "d"),
            entry(5, B, 2, "f"),
            entry(6, A, 4, "e"),
        ];
        let log = [abc(), apart.to_vec()].concat();
        assert_eq!(violations(operations, log), torn);
        // One stream of two.
        let mut operations = appended();
        let parts = vec![
            part(A, Expected::Any, &["d"]),
            part(B, Expected::Any, &["e"]),
        ];
        operations.push(unknown(40, 41, parts));
        let log = [abc(), vec![entry(4, A, 3, "d")]].concat();
        assert_eq!(violations(operations, log), torn);
    }

    #[test]
    fn a_later_append_before_an_earlier_one() {
        let log = abc();
        let operations = vec![
            placed(10, 19, &log[..1]),
            placed(30, 39, &log[1..2]),
            placed(20, 29, &log[2..]),
        ];
        let reordered = Violation::Reordered {
            first: label("c"),
            second: label("b"),
        };
        assert_eq!(violations(operations, log.clone()), [reordered]);
        // At the same time, either order is right.
        let operations = vec![
            placed(10, 19, &log[..1]),
            placed(28, 39, &log[1..2]),
            placed(20, 29, &log[2..]),
        ];
        assert_eq!(violations(operations, log), []);
    }

    #[test]
    fn an_append_against_its_expectation() {
        let mut operations = appended();
        let What::Append(parts, _) = &mut operations[2].what else {
            panic!("an append");
        };
        parts[0].expected = Expected::NoStream;
        let unexpected = vec![Violation::Unexpected { label: label("c") }];
        assert_eq!(violations(operations, abc()), unexpected);
    }

    #[test]
    fn a_conflict_that_nothing_explains() {
        let unexplained = |stream, actual| {
            let stream = session(stream);
            vec![Violation::Unexplained { stream, actual }]
        };
        let wrong = |stream| part(stream, Expected::Exact(Seq(7)), &["d"]);
        // The number was not there yet, not any more, or never.
        assert_eq!(with(conflict(21, 28, wrong(A), 2)), unexplained(A, 2));
        assert_eq!(with(conflict(40, 41, wrong(A), 1)), unexplained(A, 1));
        assert_eq!(with(conflict(40, 41, wrong(A), 9)), unexplained(A, 9));
        assert_eq!(with(conflict(40, 41, wrong(B), 0)), unexplained(B, 0));
        // It was what the caller expected.
        let right = part(A, Expected::Exact(Seq(2)), &["d"]);
        assert_eq!(with(conflict(40, 41, right, 2)), unexplained(A, 2));
        let any = part(A, Expected::Any, &["d"]);
        assert_eq!(with(conflict(40, 41, any, 2)), unexplained(A, 2));
    }

    #[test]
    fn a_stale_look() {
        let log = abc();
        let stale = |called, position| vec![Violation::Stale { called, position }];
        assert_eq!(with(read(40, 41, ALL, &log[..2])), stale(40, 3));
        assert_eq!(with(read(40, 41, of(A, 1), &log[..1])), stale(40, 3));
        assert_eq!(with(read(40, 41, of(A, 2), &[])), stale(40, 3));
        let count = What::Count {
            of: of(B, 1),
            found: 0,
        };
        assert_eq!(with(operation(40, 41, count)), stale(40, 2));
        // Not acknowledged yet, but somebody else had seen it.
        let mut operations = appended();
        operations.extend([read(31, 32, ALL, &log), read(33, 34, ALL, &log[..2])]);
        assert_eq!(violations(operations, log), stale(33, 3));
    }

    #[test]
    fn a_tail_that_leaves_out_or_repeats() {
        let log = abc();
        let tail = |places: &[usize]| {
            let given = (40..).zip(places.iter().map(|n| log[*n].clone()));
            let given = given.collect();
            operation(5, 60, What::Tail { of: ALL, given })
        };
        assert_eq!(with(tail(&[0, 1, 2])), []);
        for (places, strange) in [(&[0, 2][..], "c"), (&[0, 0], "a"), (&[1, 0], "b")] {
            let misread = Violation::Misread {
                called: 5,
                label: label(strange),
            };
            assert_eq!(with(tail(places)), [misread]);
        }
    }

    #[test]
    fn a_read_of_another_stream_or_place() {
        let misread = |strange| Violation::Misread {
            called: 40,
            label: label(strange),
        };
        assert_eq!(with(read(40, 41, of(A, 1), &abc()))[0], misread("b"));
        let mut renumbered = abc();
        renumbered[1].seq = 2;
        assert_eq!(with(read(40, 41, ALL, &renumbered))[0], misread("b"));
        let count = What::Count { of: ALL, found: 4 };
        assert_eq!(with(operation(40, 41, count)), [misread("event 4")]);
    }
}
