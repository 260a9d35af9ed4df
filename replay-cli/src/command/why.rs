//! `recount why`: the causes of an event, and what followed from it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use recount_store::{
    Class, Envelope, Event, Json, LogReader, Position, Progress, Recorded, Result, Seq, SessionId,
    StreamId,
};
use serde_json::{Map, Value, json};

use crate::args;
use crate::args::Which;
use crate::failure::Failure;
use crate::front;
use crate::knew::{self, Known};
use crate::output::{Output, note};
use crate::progress::{Bar, with_bar};
use crate::render::event::{Lines, json_line_beside, line};
use crate::render::{text, time};
use crate::timeline::Timeline;
use crate::tree::{Row, rows};

/// How many positions are looked at between two looks at the progress.
const GO: u64 = 1 << 16;

/// How many events of a chain are shown: a connection's reaches back over all its tries, to its first day.
const CHAIN_MAX: usize = 20;

/// Prints the chain of an event's causes, and with `effects` what followed from it.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    asked: &args::Why,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let timeline = Timeline::of(reader, id)?;
    let event = pick(reader, &timeline, asked.event)?;
    let chain = chain(reader, event)?;
    let known = known(reader, &timeline, &chain.events)?;
    let mut printer = Printer {
        timeline,
        json,
        lines: Lines::default(),
        output,
    };
    let between = if json || asked.all {
        0..0
    } else {
        between(chain.events.len())
    };
    for (n, (recorded, knew)) in chain.events.iter().zip(&known).enumerate() {
        if n == between.start && !between.is_empty() {
            printer.left_out(between.len(), &chain.events[n])?;
        }
        if between.contains(&n) {
            continue;
        }
        let relation = if n == 0 { "event" } else { "cause" };
        printer.link(recorded, knew.as_ref(), relation)?;
    }
    if let Some(gone) = chain.gone {
        note(&format!(
            "recount: it followed from event {gone} of the log, which was cut"
        ));
    }
    if asked.effects {
        let event = &chain.events[0];
        let effects = effects(reader, event.position)?;
        printer.effects(event, &effects)?;
    }
    Ok(())
}

/// Which events of a chain of so many are not shown: of a long one, what is between those that are near and the one
/// that began it all.
fn between(events: usize) -> Range<usize> {
    match events {
        0..=CHAIN_MAX => 0..0,
        events => CHAIN_MAX - 1..events - 1,
    }
}

/// The event that is meant.
fn pick(reader: &LogReader, timeline: &Timeline, which: Which) -> Result<Recorded, Failure> {
    let id = timeline.session;
    let (stream, number) = match which {
        Which::Number(number) => (StreamId::Session(id), number),
        Which::OfConnection(number) => {
            let connection = timeline.connection.ok_or_else(|| {
                Failure::new(format!(
                    "the log does not name the connection of session {id}"
                ))
            })?;
            (StreamId::Connection(connection), number)
        }
        Which::Last(wanted) => {
            for recorded in timeline.backwards(reader) {
                let recorded = recorded?;
                let is_it = match wanted {
                    Some(name) => recorded.event.type_name() == name,
                    None => recorded.stream == StreamId::Session(id),
                };
                if is_it {
                    return Ok(recorded);
                }
            }
            let what = wanted.unwrap_or("event");
            return Err(Failure::new(format!(
                "session {id} has no {what}, and its connection none in its time"
            ))
            .try_next(format!("recount log {id}    shows what there is")));
        }
    };
    let found = reader.read(stream, number).next().transpose()?;
    found.filter(|event| event.seq == number).ok_or_else(|| {
        let name = front::name(stream);
        Failure::new(format!("{name} has no event with number {number}"))
            .try_next(format!("recount log {id}    numbers them"))
    })
}

/// An event and what it followed from, back to the beginning.
struct Chain {
    events: Vec<Recorded>,
    /// Where the next cause was, if it is not in the log any more.
    gone: Option<Position>,
}

fn chain(reader: &LogReader, event: Recorded) -> Result<Chain> {
    let mut cause = event.cause;
    let mut events = vec![event];
    while let Some(position) = cause {
        let found = reader.read_range(position..=position, |_| true).next();
        let Some(found) = found.transpose()? else {
            return Ok(Chain {
                events,
                gone: Some(position),
            });
        };
        // A cause comes first; a log that says otherwise would lead in circles.
        cause = found.cause.filter(|cause| *cause < found.position);
        events.push(found);
    }
    Ok(Chain { events, gone: None })
}

/// What was known just before each of the decisions in a chain.
fn known(
    reader: &LogReader,
    timeline: &Timeline,
    chain: &[Recorded],
) -> Result<Vec<Option<Known>>, Failure> {
    let mut known = vec![None; chain.len()];
    let policies = policies(reader)?;
    let through = chain[0].position;
    let mut standing = crate::render::show::Standing::default();
    // The last of a chain is the first of the log.
    let mut left: Vec<usize> = (0..chain.len()).collect();
    let mut meet = |recorded: &Recorded, standing: &_| {
        while let Some(n) = left.last().copied() {
            if chain[n].position > recorded.position {
                break;
            }
            if chain[n].position == recorded.position && recorded.class == Class::Decided {
                let after = policies.partition_point(|(from, _)| *from < recorded.position);
                let policy = after.checked_sub(1).map(|n| &policies[n].1);
                known[n] = Some(knew::of(recorded, standing, policy));
            }
            left.pop();
        }
    };
    let before = timeline.connection.map(StreamId::Connection);
    let before = before.map(|stream| reader.read(stream, Seq::FIRST));
    let before = before.into_iter().flatten().take_while(|event| {
        let first = timeline.first;
        event.as_ref().map_or(true, |event| event.position < first)
    });
    let events = before.chain(timeline.events(reader, through, true));
    for recorded in with_bar(events, "folding", timeline.count(reader)?) {
        let recorded = recorded?;
        meet(&recorded, &standing);
        standing.apply(&recorded);
    }
    Ok(known)
}

/// The policies that were in force, each from a position on.
fn policies(reader: &LogReader) -> Result<Vec<(Position, Value)>> {
    let mut policies = Vec::new();
    for recorded in reader.read(StreamId::Engine, Seq::FIRST) {
        let recorded = recorded?;
        if let Event::PolicyAdopted { policy } = &recorded.event {
            let Json(bytes) = policy;
            let policy = serde_json::from_slice(bytes).unwrap_or_default();
            policies.push((recorded.position, policy));
        }
    }
    Ok(policies)
}

/// All events that followed from one, in the order of the log.
fn effects(reader: &LogReader, of: Position) -> Result<Vec<Recorded>> {
    let through = reader.head()?.position;
    let known = Arc::new(Mutex::new(HashSet::from([of])));
    // An event is asked about once, in order, and its cause was before it.
    let follows = move |envelope: &Envelope| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = envelope.cause.is_some_and(|cause| known.contains(&cause));
        follows && known.insert(envelope.position)
    };
    let mut effects = Vec::new();
    let mut bar = Bar::new();
    let mut from = of.next();
    while from <= through {
        let go = Position(through.0.min(from.0 + GO - 1));
        for recorded in reader.read_range(from..=go, follows.clone()) {
            effects.push(recorded?);
        }
        from = go.next();
        bar.show(Progress {
            doing: "following",
            done: go.0 - of.0,
            total: through.0 - of.0,
        });
    }
    Ok(effects)
}

struct Printer<'a> {
    timeline: Timeline,
    json: bool,
    lines: Lines,
    output: &'a mut Output,
}

impl Printer<'_> {
    /// Prints one event of the chain.
    fn link(
        &mut self,
        recorded: &Recorded,
        knew: Option<&Known>,
        relation: &str,
    ) -> Result<(), Failure> {
        if self.json {
            let mut beside = Map::new();
            beside.insert("is".to_owned(), relation.into());
            if let Some(knew) = knew {
                beside.insert("knew".to_owned(), knew.view());
            }
            return Ok(self
                .output
                .line(&json_line_beside(recorded, None, &beside)?)?);
        }
        let look = &self.output.look;
        let of = self.elsewhere(recorded);
        let of = of.map_or_else(String::new, |of| format!("  (of {of})"));
        let mut text = self.lines.next(recorded, &look.beside(of.len()));
        text.push_str(&look.dim(&of));
        let told = match recorded.class {
            _ if relation == "event" || recorded.cause.is_some() => None,
            Class::Asked => Some("somebody asked for it"),
            Class::Observed => Some("the world did it"),
            Class::Decided => Some("it was decided by itself"),
        };
        let knew = knew.into_iter().flat_map(Known::lines);
        let lines = knew.chain(told.map(str::to_owned));
        for line in lines {
            let _ = write!(text, "\n{:20}{}", "", look.dim(&text::one_line(&line)));
        }
        Ok(self.output.line(&text)?)
    }

    /// Says how many of the chain are not shown, and how far they reach back from this one on.
    fn left_out(&mut self, events: usize, last: &Recorded) -> Result<(), Failure> {
        let look = &self.output.look;
        let (causes, since) = (
            text::count(events as u64, "cause"),
            time::full(last.at, &look.zone),
        );
        let line = look.dim(&format!(
            "{:20}{causes} before {since}, between these: --all shows them",
            ""
        ));
        Ok(self.output.line(&line)?)
    }

    /// Prints what followed from an event.
    fn effects(&mut self, of: &Recorded, effects: &[Recorded]) -> Result<(), Failure> {
        let rows = rows(of.position, effects);
        if self.json {
            for Row { depth, event, .. } in rows.iter().flat_map(|row| row.each(effects)) {
                let mut beside = Map::new();
                beside.insert("is".to_owned(), "effect".into());
                beside.insert("depth".to_owned(), json!(depth));
                self.output
                    .line(&json_line_beside(&effects[event], None, &beside)?)?;
            }
            return Ok(());
        }
        let look = self.output.look.clone();
        let last = effects.last().map_or(of.at, |last| last.at);
        let events = text::count(effects.len() as u64, "event");
        let head = match effects.len() {
            0 => "nothing followed from it".to_owned(),
            _ => format!(
                "{events} followed from it, over {}",
                time::span(last.since(of.at))
            ),
        };
        self.output.line(&look.bold(&head))?;
        for row in &rows {
            let recorded = &effects[row.event];
            let indent = "  ".repeat(row.depth.min(INDENT_MAX));
            let of = self.elsewhere(recorded);
            let mut beside = of.map_or_else(String::new, |of| format!("  (of {of})"));
            if row.more > 0 {
                let _ = write!(beside, "  (and {} more)", row.more);
            }
            let line = line(recorded, &look.beside(indent.len() + beside.len()));
            self.output
                .line(&format!("{indent}{line}{}", look.dim(&beside)))?;
        }
        Ok(())
    }

    /// The stream of an event, where it is neither the session's nor its connection's.
    fn elsewhere(&self, recorded: &Recorded) -> Option<StreamId> {
        let own = match recorded.stream {
            StreamId::Session(id) => id == self.timeline.session,
            StreamId::Connection(id) => Some(id) == self.timeline.connection,
            StreamId::Engine => false,
        };
        (!own).then_some(recorded.stream)
    }
}

/// How deep a tree is shown as such: beyond that a screen has no room.
const INDENT_MAX: usize = 12;
