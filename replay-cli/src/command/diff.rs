//! `recount diff`: a session at two moments, or two sessions.

use recount_projections::{Session, state_store};
use recount_store::{LogReader, Position, Recorded, Seq, SessionId, StreamId};
use serde_json::{Map, Value, json};

use crate::align::{Difference, Forest, Node, align};
use crate::args::{self, At};
use crate::change::{Change, changes};
use crate::failure::Failure;
use crate::output::Output;
use crate::pick;
use crate::progress::with_bar;
use crate::render::event::{json_value, line};
use crate::render::show::Standing;
use crate::render::{Look, text};
use crate::timeline::Timeline;

/// How many differences between two sessions a person is shown.
const SHOWN_MAX: usize = 20;

/// What says where a moment is, and is another at each.
const OF_THE_MOMENT: [&str; 2] = ["at", "events"];

/// Compares a session with itself at another moment, or with another.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    asked: &args::Diff,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(b) = &asked.b else {
        let other =
            pick::session(reader, &asked.a).map_err(|failure| match asked.a.parse::<At>() {
                Ok(_) => {
                    Failure::usage(format!("compare {} with which moment?", asked.a)).try_next(
                        format!("recount diff {id} {} B    names the other one", asked.a),
                    )
                }
                Err(_) => failure,
            })?;
        return sessions(reader, [id, other], json, output);
    };
    let moment = |text: &str| {
        text.parse::<At>().map_err(|why| {
            Failure::usage(format!("{text:?} is no moment: {why}"))
                .try_next(format!("recount log {id}    numbers the events"))
        })
    };
    moments(reader, id, [moment(&asked.a)?, moment(b)?], json, output)
}

/// Compares how a session stood at two moments.
fn moments(
    reader: &LogReader,
    id: SessionId,
    moments: [At; 2],
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let [from, to] = moments;
    let timeline = Timeline::of(reader, id)?;
    let mut standing = timeline.prologue(reader)?;
    let mut before: Option<(Value, Seq)> = None;
    let mut between = Between::default();
    let through = reader.head()?.position;
    let (mut last, mut done) = (Seq::default(), false);
    let events = timeline.events(reader, through, true);
    for recorded in with_bar(events, "folding", timeline.count(reader)?) {
        let recorded = recorded?;
        let is_in = |moment, standing: &Standing| within(moment, &recorded, standing);
        if !is_in(to, &standing) {
            if is_in(from, &standing) {
                let what = "the second moment is before the first";
                return Err(Failure::usage(what).try_next("name the earlier one first"));
            }
            done = true;
            break;
        }
        if !is_in(from, &standing) {
            if before.is_none() {
                before = Some((view(&standing, id)?, standing.session.seq));
            }
            between.count(&recorded);
        }
        standing.apply(&recorded);
        if let StreamId::Session(_) = recorded.stream {
            last = recorded.seq;
        }
    }
    let mut beyond = [from, to].into_iter().filter_map(|moment| match moment {
        At::Number(number) if number > last => Some(number),
        At::Number(_) | At::Time(_) => None,
    });
    if let Some(number) = beyond.next().filter(|_| !done) {
        let events = text::count(last.0, "event");
        return Err(Failure::new(format!(
            "session {id} has {events}, and none with number {number}"
        ))
        .try_next(format!("recount log {id}    numbers them")));
    }
    let after = view(&standing, id)?;
    let seq = standing.session.seq;
    let (before, from) = before.unwrap_or_else(|| (after.clone(), seq));
    if from == Seq::default() {
        return Err(Failure::new(format!(
            "session {id} did not exist at the first moment"
        )));
    }
    let mut changed = changes(&before, &after);
    changed.retain(|change| !OF_THE_MOMENT.contains(&change.path.as_str()));
    if json {
        let view: Vec<Value> = changed.iter().map(Change::view).collect();
        return Ok(output.json(&json!({
            "session": id,
            "from": from,
            "to": seq,
            "changes": view,
            "events": between.view(),
        }))?);
    }
    let look = output.look.clone();
    let head = format!(
        "{} {id}  from event {from} to event {seq}",
        look.bold("session")
    );
    output.line(&head)?;
    if changed.is_empty() {
        output.line("  nothing is otherwise")?;
    }
    for change in &changed {
        let line = format!("  {}", change.line());
        if look.width.is_some_and(|width| text::width(&line) > width) {
            // The end of a path says more than its beginning, and what changed more than both.
            output.line(&clipped(&format!("  {}:", change.path), &look))?;
            output.line(&clipped(&format!("      {}", change.told()), &look))?;
        } else {
            output.line(&line)?;
        }
    }
    output.line(&format!("between: {}", between.told()))?;
    Ok(())
}

/// Whether an event is not after a moment, by how the session stood before it.
///
/// What happens on the connection after the session's event N, and before its next, is after N.
fn within(moment: At, recorded: &Recorded, before: &Standing) -> bool {
    match (moment, recorded.stream) {
        (At::Time(time), _) => recorded.at <= time,
        (At::Number(number), StreamId::Session(_)) => recorded.seq <= number,
        (At::Number(number), _) => before.session.seq < number,
    }
}

/// How a session stood, as JSON; without the texts that are only what their parts say.
fn view(standing: &Standing, id: SessionId) -> Result<Value, Failure> {
    let mut view = serde_json::to_value(standing.view(id))
        .map_err(|error| Failure::because("cannot say how it stood", error))?;
    let list = |value: &mut Value, name: &str| -> Vec<Value> {
        value
            .get_mut(name)
            .and_then(Value::as_array_mut)
            .map(std::mem::take)
            .unwrap_or_default()
    };
    let without_text = |mut value: Value| {
        if let Some(members) = value.as_object_mut() {
            members.remove("text");
        }
        value
    };
    let turns = list(&mut view, "turns").into_iter().map(|mut turn| {
        let runs = list(&mut turn, "runs")
            .into_iter()
            .map(without_text)
            .collect();
        turn["runs"] = runs;
        without_text(turn)
    });
    view["turns"] = turns.collect();
    Ok(view)
}

/// The line as far as there is room for it.
fn clipped(line: &str, look: &Look) -> String {
    let line = text::one_line(line);
    match look.width {
        Some(width) => text::clip(&line, width).into_owned(),
        None => line.into_owned(),
    }
}

/// The events between two moments, by type, in the order in which each was first there.
#[derive(Default)]
struct Between {
    counts: Vec<(&'static str, u64)>,
}

impl Between {
    fn count(&mut self, recorded: &Recorded) {
        let name = recorded.event.type_name();
        match self.counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((name, 1)),
        }
    }

    fn told(&self) -> String {
        let told = self.counts.iter().map(|(name, count)| match count {
            1 => (*name).to_owned(),
            count => format!("{count} {name}"),
        });
        let told: Vec<String> = told.collect();
        match told.len() {
            0 => "no events".to_owned(),
            _ => told.join(", "),
        }
    }

    fn view(&self) -> Value {
        let counts = self.counts.iter();
        let counts: Map<String, Value> = counts
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        counts.into()
    }
}

/// Lays two sessions beside each other, and prints where they differ.
fn sessions(
    reader: &LogReader,
    ids: [SessionId; 2],
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let through = reader.head()?.position;
    let fork = Parting::of(reader, ids)?;
    let after = fork
        .as_ref()
        .map_or([Position::default(); 2], |fork| fork.after);
    let forked_at = fork.map(|fork| fork.at);
    let [first, second] = [
        forest(reader, ids[0], after[0], through)?,
        forest(reader, ids[1], after[1], through)?,
    ];
    let aligned = align(&first, &second);
    let pair = |difference| match difference {
        Difference::OnlyFirst(a, more) => ("only_first", Some(&first.nodes[a]), None, more - 1),
        Difference::OnlySecond(b, more) => ("only_second", None, Some(&second.nodes[b]), more - 1),
        Difference::Content(a, b) => {
            let (a, b) = (&first.nodes[a], &second.nodes[b]);
            ("content", Some(a), Some(b), 0)
        }
    };
    if json {
        for difference in &aligned.differences {
            let (name, a, b, more) = pair(*difference);
            let event =
                |node: Option<&Node>| node.map(|node| json_value(&node.recorded)).transpose();
            output.json(&json!({
                "difference": name,
                "first": event(a)?,
                "second": event(b)?,
                "followed_by": more,
            }))?;
        }
        return Ok(output.json(&json!({
            "sessions": ids,
            "forked_at": forked_at,
            "alike": aligned.alike,
            "differences": aligned.differences.len(),
        }))?);
    }
    let look = output.look.clone();
    let [a, b] = ids.map(|id| id.to_string());
    let alike = text::count(aligned.alike as u64, "event");
    let parted = forked_at.map(|at| format!(", since they parted at event {at}"));
    let parted = parted.unwrap_or_default();
    let Some((one, others)) = aligned.differences.split_first() else {
        return Ok(output.line(&format!("{a} and {b} are alike{parted}: {alike}"))?);
    };
    let count = text::count(aligned.differences.len() as u64, "difference");
    output.line(&format!("- {a} and + {b}{parted}: {alike} alike, {count}"))?;
    output.line(&look.bold("the first difference"))?;
    let print = |difference: &Difference, output: &mut Output| -> Result<(), Failure> {
        let (_, a, b, more) = pair(*difference);
        for (side, node) in [("-", a), ("+", b)] {
            if let Some(node) = node {
                let more = match node.more {
                    0 => String::new(),
                    more => format!("  (and {more} more)"),
                };
                let told = line(&node.recorded, &look.beside(2 + more.len()));
                output.line(&format!("{side} {told}{}", look.dim(&more)))?;
            }
        }
        if more > 0 {
            let more = text::count(more as u64, "event");
            output.line(&look.dim(&format!("{:22}{more} followed from it", "")))?;
        }
        if let (Some(a), Some(b)) = (a, b) {
            for change in changes(a.content(), b.content()) {
                let told = format!("{:22}{}", "", change.line());
                output.line(&look.dim(&clipped(&told, &look)))?;
            }
        }
        Ok(())
    };
    print(one, output)?;
    if !others.is_empty() {
        output.line(&look.bold("and after it"))?;
    }
    for difference in others.iter().take(SHOWN_MAX) {
        print(difference, output)?;
    }
    let left = others.len().saturating_sub(SHOWN_MAX);
    if left > 0 {
        output.line(&format!("and {left} more: --json gives all"))?;
    }
    Ok(())
}

/// Where one of two sessions was forked from the other: what was before it, both have.
struct Parting {
    /// The last event of the other one that both have.
    at: Seq,
    /// The last event of each that is not compared.
    after: [Position; 2],
}

impl Parting {
    fn of(reader: &LogReader, ids: [SessionId; 2]) -> Result<Option<Self>, Failure> {
        for (new, old) in [(1, 0), (0, 1)] {
            let state: Session = state_store::load(reader, StreamId::Session(ids[new]))?;
            let Some(fork) = state.fork.filter(|fork| fork.from == ids[old]) else {
                continue;
            };
            let position = |id, seq: Seq| -> Result<Position, Failure> {
                let event = reader.read(StreamId::Session(id), seq).next();
                let event = event.transpose()?;
                Ok(event.map_or(Position::default(), |event| event.position))
            };
            let mut after = [Position::default(); 2];
            after[old] = position(ids[old], fork.at)?;
            // Its opening, and beside it where it began.
            after[new] = position(ids[new], Seq::FIRST.next())?;
            return Ok(Some(Self { at: fork.at, after }));
        }
        Ok(None)
    }
}

/// The events of a session and its connection after one of them.
fn forest(
    reader: &LogReader,
    id: SessionId,
    after: Position,
    through: Position,
) -> Result<Forest, Failure> {
    let timeline = Timeline::of(reader, id)?;
    let events = timeline.events(reader, through, false);
    let count = timeline.count(reader)?;
    let events = with_bar(events, "reading", count).filter(|event| match event {
        Ok(recorded) => recorded.position > after,
        Err(_) => true,
    });
    Ok(Forest::of(events)?)
}
