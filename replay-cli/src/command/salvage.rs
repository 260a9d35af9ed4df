//! `recount salvage`: what can still be proven of a damaged log, as a new one.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use recount_engine::decisions::SALVAGED;
use recount_projections::{Session, state_store};
use recount_store::{
    Cause, Error, Event, Expected, Log, LogReader, NewEvent, Recorded, Salvaged, SalvagedStream,
    Seq, SessionId, StreamId, salvage, verify_all,
};
use serde_json::{Value, json};

use crate::args::Salvage;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::{event, text};

/// Makes a new log of what can be proven, and sees to it that nobody takes its end for the end of what happened.
pub(crate) fn run(asked: &Salvage, json: bool, output: &mut Output) -> Result<(), Failure> {
    let Salvage {
        file,
        into,
        unproven,
    } = asked;
    refuse_newer(file)?;
    let mut rest = unproven.as_deref().map(create).transpose()?;
    let mut written = Ok(());
    let mut bar = Bar::over("bytes");
    let salvaged = salvage(
        file,
        into,
        |recorded| {
            if let (Some(rest), Ok(())) = (&mut rest, &written) {
                written = put(rest, &recorded);
            }
        },
        |progress| bar.show(progress),
    );
    drop(bar);
    let salvaged = salvaged.map_err(|error| cannot(error, into))?;
    let flushed = rest.map_or(Ok(()), |mut rest| rest.flush());
    written
        .and(flushed)
        .map_err(|error| Failure::because("cannot write what was not taken", error))?;

    let log =
        Log::open(into).map_err(|error| Failure::because("cannot open what was made", error))?;
    let mut settled = Settled::default();
    super::change(Some(&log), async {
        let mut bar = Bar::new();
        verify_all(&log, |progress| bar.show(progress))?;
        settled = settle(&log, &salvaged).await?;
        Ok(())
    })?;

    if json {
        output.json(&told_json(&salvaged, settled))?;
    } else {
        let told = told(&salvaged, settled, into);
        output.text(&told)?;
    }
    output.flush()?;
    if salvaged.is_whole() {
        return Ok(());
    }
    let failure = Failure::new("not everything could be taken");
    let found = |found: &SalvagedStream| !found.unproven.is_empty();
    Err(
        if unproven.is_none() && salvaged.streams.iter().any(found) {
            failure.try_next(
            "--unproven FILE, and another --into    writes what was found and not taken to a file",
        )
        } else {
            failure
        },
    )
}

/// Refuses a log of a newer release: nothing is known to be wrong with it, and its bytes may mean something else.
fn refuse_newer(file: &Path) -> Result<(), Failure> {
    let directory = match file.parent() {
        Some(parent) if !file.is_dir() => parent,
        _ => file,
    };
    match LogReader::open(directory) {
        Err(error @ Error::NewerLog { .. }) => Err(Failure::because("cannot salvage", error)),
        _ => Ok(()),
    }
}

/// What was done so that no engine goes on where something may be missing.
#[derive(Debug, Default, Clone, Copy)]
struct Settled {
    dead_letters: u64,
    closed: u64,
}

/// Gives up what is open, and closes the sessions of which something is known to be missing.
async fn settle(log: &Log, salvaged: &Salvaged) -> Result<Settled, Failure> {
    let mut settled = Settled::default();
    for found in &salvaged.streams {
        let (StreamId::Session(id), Some(_)) = (found.stream, found.taken) else {
            continue;
        };
        let state: Session = state_store::load(log, found.stream)?;
        if state.closed {
            continue;
        }
        let (events, of_it) = ended(&state, !found.reason.is_empty());
        append(log, id, &state, events).await?;
        settled.dead_letters += of_it.dead_letters;
        settled.closed += of_it.closed;
    }
    Ok(settled)
}

/// What is recorded of a session that was salvaged; whether something is known to be missing of it.
fn ended(state: &Session, is_short: bool) -> (Vec<NewEvent>, Settled) {
    let now = super::now();
    let mut settled = Settled::default();
    let mut events: Vec<NewEvent> = Vec::new();
    for open in state.queue.open() {
        let given_up = Event::MessageDeadLettered {
            message: open.id,
            reason: SALVAGED.to_owned(),
        };
        events.push(NewEvent::live(given_up, now).because(Cause::At(open.moved)));
        settled.dead_letters += 1;
    }
    if is_short {
        events.push(NewEvent::live(Event::SessionClosed, now).because(Cause::At(state.last)));
        settled.closed += 1;
    }
    (events, settled)
}

async fn append(
    log: &Log,
    id: SessionId,
    state: &Session,
    events: Vec<NewEvent>,
) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let expected = Expected::Exact(state.seq);
    log.append(StreamId::Session(id), expected, events)
        .await
        .map_err(|error| Failure::because("cannot end what was open", error))?;
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path);
    let file =
        file.map_err(|error| Failure::because(format!("cannot create {}", path.display()), error))?;
    Ok(BufWriter::new(file))
}

fn put(out: &mut impl io::Write, recorded: &Recorded) -> io::Result<()> {
    let line = event::json_line(recorded, None).map_err(io::Error::other)?;
    writeln!(out, "{line}")
}

fn cannot(error: Error, into: &Path) -> Failure {
    let taken = matches!(error, Error::LogExists { .. });
    let failure = Failure::because("cannot salvage", error);
    if taken {
        let into = into.display();
        failure.try_next(format!(
            "recount --data {into} sessions    looks at that one"
        ))
    } else {
        failure
    }
}

fn told_json(salvaged: &Salvaged, settled: Settled) -> Value {
    let range = |(from, to): (Seq, Seq)| json!([from, to]);
    let streams = salvaged.streams.iter().map(|found| {
        json!({
            "stream": found.stream.to_string(),
            "taken": found.taken.map(range),
            "unproven": found.unproven.iter().copied().map(range).collect::<Vec<_>>(),
            "reason": Some(&found.reason).filter(|reason| !reason.is_empty()),
        })
    });
    json!({
        "whole": salvaged.is_whole(),
        "events": salvaged.events,
        "streams": streams.collect::<Vec<_>>(),
        "missing": salvaged.missing,
        "last": salvaged.last,
        "whole_through": salvaged.whole_through,
        "unreadable": salvaged.unreadable,
        "dead_letters": settled.dead_letters,
        "closed": settled.closed,
    })
}

fn told(salvaged: &Salvaged, settled: Settled, into: &Path) -> String {
    let mut out = format!(
        "{} taken into {}\n",
        text::count(salvaged.events, "event"),
        into.display()
    );
    for SalvagedStream { stream, taken, .. } in &salvaged.streams {
        if let Some((from, to)) = taken {
            let _ = writeln!(out, "  {stream}  {}", events(*from, *to));
        }
    }
    let heads = match salvaged.whole_through {
        last if last == salvaged.last => "heads that were signed still hold".to_owned(),
        last if last.0 == 0 => "no head that was signed holds any more".to_owned(),
        last => format!("heads that were signed hold up to position {last}"),
    };
    let _ = writeln!(out, "each stands where it stood; {heads}");
    let left = salvaged.streams.iter();
    for found in left.filter(|found| !found.unproven.is_empty() || !found.reason.is_empty()) {
        for (from, to) in &found.unproven {
            let _ = writeln!(out, "not taken: {}  {}", found.stream, events(*from, *to));
        }
        let _ = writeln!(out, "  {}", found.reason);
    }
    if salvaged.missing > 0 {
        let missing = text::count(salvaged.missing, "event");
        let _ = writeln!(
            out,
            "not found: {missing} of those up to position {}; of which streams, nobody can say",
            salvaged.last
        );
    }
    if salvaged.unreadable > 0 {
        let unreadable = text::bytes(salvaged.unreadable);
        let _ = writeln!(out, "not read: {unreadable} that the disk does not give");
    }
    if settled.closed > 0 {
        let closed = text::count(settled.closed, "session");
        let _ = writeln!(out, "closed: {closed}, of which events are missing");
    }
    if settled.dead_letters > 0 {
        let open = text::count(settled.dead_letters, "message");
        let _ = writeln!(
            out,
            "given up: {open} that had not come to an end: nobody knows what came after\n  recount --data {} dead-letters",
            into.display()
        );
    }
    let _ = writeln!(
        out,
        "look at it with: recount --data {} sessions",
        into.display()
    );
    out
}

fn events(from: Seq, to: Seq) -> String {
    if from == to {
        return format!("event {from}");
    }
    format!("events {from} to {to}")
}
