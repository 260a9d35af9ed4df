//! `recount find`: events in all sessions.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use recount_store::{
    Error, Event, LogReader, Position, Progress, Recorded, Result, StreamId, Timestamp,
};
use regex::RegexBuilder;
use serde_json::{Map, Value, json};

use crate::args;
use crate::failure::Failure;
use crate::find::spans::{self, Span, Spans};
use crate::find::{Wanted, session_of};
use crate::output::Output;
use crate::pick;
use crate::progress::Bar;
use crate::query::{Condition, shape};
use crate::render::event::{Lines, json_line_beside};
use crate::render::{text, time};
use crate::timeline::{Timeline, stop_was_decided};

/// How many positions are looked at in one go: what is found is shown that soon, and a worker that is ahead holds no
/// more than a few times as many events.
const GO: u64 = 1 << 12;

/// More threads than this find nothing sooner: what is left is the one that prints.
const WORKERS_MAX: usize = 8;

/// Prints the events that are like what is wanted, as they are found.
pub(crate) fn run(
    reader: &LogReader,
    asked: &args::Find,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let wanted = Arc::new(wanted(reader, asked)?);
    let mut printer = Printer {
        json,
        lines: Lines::default(),
        left: asked.limit.unwrap_or(u64::MAX),
        found: 0,
        output,
    };
    let range = range(reader, asked, &wanted)?;
    let looked = range
        .end()
        .0
        .saturating_sub(range.start().0.saturating_sub(1));
    match asked.longer_than {
        None => {
            let keep = Arc::clone(&wanted);
            let scan = Scan {
                reader,
                range,
                backwards: asked.newest_first,
            };
            scan.run(
                move |envelope| keep.may_be(envelope),
                |recorded| wanted.is(recorded),
                |recorded| {
                    if asked.error && stop_was_decided(reader, &recorded)? {
                        return Ok(true);
                    }
                    printer.print(&recorded, None)
                },
            )?;
        }
        Some(longer_than) => {
            let spans = Measured {
                longer_than,
                newest_first: asked.newest_first,
                until: asked.until,
            };
            spans.run(reader, range, &wanted, &mut printer)?;
        }
    }
    if printer.found == 0 {
        let events = text::count(looked, "event");
        return Err(Failure::new(format!("nothing is like that in {events}")));
    }
    Ok(())
}

/// What the flags ask for.
fn wanted(reader: &LogReader, asked: &args::Find) -> Result<Wanted, Failure> {
    let text = asked.text.as_deref().map(|pattern| {
        let built = RegexBuilder::new(pattern)
            .case_insensitive(!means_large_letters(pattern))
            .build();
        built.map_err(|error| {
            Failure::usage(format!("{pattern:?} is no regular expression"))
                .try_next(error.to_string())
        })
    });
    let condition = asked.condition.as_deref().map(|text| {
        Condition::parse(text, &shape::EVENT).map_err(|mistake| super::not_a_condition(&mistake))
    });
    let streams = asked.session.as_deref().map(|text| {
        let timeline = Timeline::of(reader, pick::session(reader, text)?)?;
        let connection = timeline.connection.map(StreamId::Connection);
        let streams = [StreamId::Session(timeline.session)];
        Ok::<_, Failure>((
            streams.into_iter().chain(connection).collect(),
            timeline.first,
        ))
    });
    let types =
        (!asked.types.is_empty()).then(|| numbers(|name| asked.types.iter().any(|t| t == name)));
    Ok(Wanted {
        types,
        streams: streams.transpose()?,
        since: asked.since,
        until: asked.until,
        class: asked.class.clone(),
        provenance: asked.provenance.clone(),
        state: asked.state.clone(),
        error: asked.error,
        text: text.transpose()?,
        condition: condition.transpose()?,
    })
}

/// Whether a pattern has a large letter: who types one means it. Those of classes, like `\S`, are none.
fn means_large_letters(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let is_letter = !escaped && c.is_uppercase();
        escaped = !escaped && c == '\\';
        is_letter
    })
}

/// The numbers of the types whose names are wanted.
fn numbers(wanted: impl Fn(&str) -> bool) -> std::collections::HashSet<u16> {
    let named = |number: &u16| Event::type_name_of(*number).is_some_and(&wanted);
    (0..u16::MAX).filter(named).collect()
}

/// The positions to look at: by time where only some of it is asked for.
fn range(
    reader: &LogReader,
    asked: &args::Find,
    wanted: &Wanted,
) -> Result<RangeInclusive<Position>> {
    let head = reader.head()?.position;
    let first = wanted
        .streams
        .as_ref()
        .map_or(Position::FIRST, |(_, first)| *first);
    // What ends within the time may have begun before it.
    let from = match asked.since.filter(|_| asked.longer_than.is_none()) {
        Some(since) => reader.position_at(since)?.max(first),
        None => first,
    };
    let through = match asked.until {
        Some(Timestamp(until)) => {
            let after = reader.position_at(Timestamp(until.saturating_add(1)))?;
            head.min(Position(after.0.saturating_sub(1)))
        }
        None => head,
    };
    Ok(from..=through)
}

/// Going over a range of the log with many hands.
struct Scan<'a> {
    reader: &'a LogReader,
    range: RangeInclusive<Position>,
    backwards: bool,
}

impl Scan<'_> {
    /// Hands on, in order, the events that both rules want, until `each` has had enough.
    ///
    /// A worker takes each n-th go, and reads no further ahead than it is asked.
    fn run(
        &self,
        may_be: impl Fn(&recount_store::Envelope) -> bool + Clone + Send + 'static,
        is: impl Fn(&Recorded) -> bool + Sync,
        mut each: impl FnMut(Recorded) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let (first, last) = (self.range.start().0, self.range.end().0);
        let goes = (last + 1).saturating_sub(first).div_ceil(GO);
        let go = |n: u64| {
            let n = if self.backwards { goes - 1 - n } else { n };
            let from = first + n * GO;
            Position(from)..=Position(last.min(from + GO - 1))
        };
        let hands = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = hands
            .min(WORKERS_MAX)
            .min(usize::try_from(goes).unwrap_or(WORKERS_MAX));
        std::thread::scope(|scope| {
            let begin = |worker: usize| -> Receiver<Finds> {
                let (found, finds) = sync_channel(2);
                let (may_be, is, go) = (may_be.clone(), &is, &go);
                let reader = self.reader.clone();
                scope.spawn(move || {
                    for n in (worker as u64..goes).step_by(workers) {
                        let finds = Finds::of(reader.read_range(go(n), may_be.clone()), is);
                        let broken = finds.error.is_some();
                        // Nobody waits for it where enough was found.
                        if found.send(finds).is_err() || broken {
                            break;
                        }
                    }
                });
                finds
            };
            let finds: Vec<_> = (0..workers).map(begin).collect();
            let mut bar = Bar::new();
            for (n, worker) in (0..goes).zip((0..workers).cycle()) {
                let Finds { mut found, error } = finds[worker]
                    .recv()
                    .expect("a worker ends after its last go or its first error");
                if self.backwards {
                    found.reverse();
                }
                for recorded in found {
                    if !each(recorded)? {
                        return Ok(());
                    }
                }
                if let Some(error) = error {
                    return Err(error.into());
                }
                bar.show(Progress {
                    doing: "looking",
                    done: (n + 1) * GO,
                    total: last + 1 - first,
                });
            }
            Ok(())
        })
    }
}

/// What was found in one go.
struct Finds {
    found: Vec<Recorded>,
    /// What ended it early: what stands before a bad place was found all the same.
    error: Option<Error>,
}

impl Finds {
    fn of(events: impl Iterator<Item = Result<Recorded>>, is: impl Fn(&Recorded) -> bool) -> Self {
        let mut found = Vec::new();
        for event in events {
            match event {
                Ok(recorded) if is(&recorded) => found.push(recorded),
                Ok(_) => {}
                Err(error) => {
                    let error = Some(error);
                    return Self { found, error };
                }
            }
        }
        Self { found, error: None }
    }
}

/// What is asked of how long things take.
struct Measured {
    longer_than: Duration,
    newest_first: bool,
    until: Option<Timestamp>,
}

impl Measured {
    fn run(
        &self,
        reader: &LogReader,
        range: RangeInclusive<Position>,
        wanted: &Arc<Wanted>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let (from, through) = (*range.start(), *range.end());
        let types = numbers(spans::matters);
        let near = Arc::clone(wanted);
        let scan = Scan {
            reader,
            range,
            backwards: false,
        };
        let mut going_on = Spans::default();
        let mut found = Vec::new();
        let mut enough = false;
        scan.run(
            move |envelope| {
                // The end of the engine ends what it waited for.
                types.contains(&envelope.type_number)
                    && (near.is_near(envelope.stream, envelope.position)
                        || envelope.stream == Some(StreamId::Engine))
            },
            |_| true,
            |recorded| {
                let ended = going_on.take(&recorded);
                let Some(ended) = ended.filter(|ended| ended.took > self.longer_than) else {
                    return Ok(true);
                };
                if !wanted.is(&recorded) {
                    return Ok(true);
                }
                if self.newest_first {
                    found.push((recorded, ended));
                    return Ok(true);
                }
                let more = printer.print(&recorded, Some(&ended))?;
                enough = !more;
                Ok(more)
            },
        )?;
        if enough {
            return Ok(());
        }
        let end = match self.until {
            Some(until) => until,
            None => last_time(reader, from..=through)?,
        };
        let open = going_on.open_at(end).into_iter();
        let long = open.filter(|(_, span)| span.took > self.longer_than);
        found.extend(long.filter(|(began, _)| wanted.is(began)));
        if self.newest_first {
            found.reverse();
        }
        for (recorded, span) in found {
            if !printer.print(&recorded, Some(&span))? {
                break;
            }
        }
        Ok(())
    }
}

/// When the last event of a range happened.
fn last_time(reader: &LogReader, range: RangeInclusive<Position>) -> Result<Timestamp> {
    let last = reader.read_all_backwards(*range.end()).next();
    Ok(last
        .transpose()?
        .map_or(Timestamp::default(), |last| last.at))
}

/// Prints what is found, and counts it.
struct Printer<'a> {
    json: bool,
    lines: Lines,
    left: u64,
    found: u64,
    output: &'a mut Output,
}

impl Printer<'_> {
    /// Prints an event; false where no more are wanted.
    fn print(&mut self, recorded: &Recorded, span: Option<&Span>) -> Result<bool, Failure> {
        if self.json {
            let line = json_line_beside(recorded, None, &beside(recorded, span))?;
            self.output.line(&line)?;
        } else {
            let look = &self.output.look;
            let span = span.map_or_else(String::new, |span| {
                let still = if span.ended { "took" } else { "goes on for" };
                let (kind, took) = (span.kind.name(), time::span(span.took));
                format!("  ({kind} {still} {took})")
            });
            let line = self.lines.next_of_many(recorded, span.len(), look);
            self.output.line(&format!("{line}{}", look.dim(&span)))?;
        }
        if self.output.terminal {
            self.output.flush()?;
        }
        self.found += 1;
        self.left -= 1;
        Ok(self.left > 0)
    }
}

/// What stands beside an event in JSON.
fn beside(recorded: &Recorded, span: Option<&Span>) -> Map<String, Value> {
    let mut beside = Map::new();
    beside.insert("session".to_owned(), json!(session_of(recorded.stream)));
    if let Some(span) = span {
        let span = json!({
            "of": span.kind.name(),
            "milliseconds": u64::try_from(span.took.as_millis()).unwrap_or(u64::MAX),
            "began": span.began,
            "ended": span.ended,
        });
        beside.insert("span".to_owned(), span);
    }
    beside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn a_large_letter_is_meant_and_a_class_is_none() {
        for (pattern, large) in [
            ("mend", false),
            ("Mend", true),
            (r"\S+", false),
            (r"\\S", true),
        ] {
            assert_eq!(means_large_letters(pattern), large, "{pattern}");
        }
    }

    #[test]
    fn what_stands_before_a_bad_place_is_found() {
        let event = |n| Ok(fixture::session_event(n, Event::SessionClosed));
        let finds = Finds::of(
            [event(1), event(2), Err(Error::Closed), event(3)].into_iter(),
            |recorded| recorded.position.0 > 1,
        );
        let found: Vec<_> = finds.found.iter().map(|found| found.position.0).collect();
        assert_eq!(found, [2]);
        assert!(matches!(finds.error, Some(Error::Closed)));
    }
}
