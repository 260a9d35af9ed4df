//! `recount replay --wire`: does this release read an agent's frames as they were read then?

use recount_engine::Options;
use recount_engine::adapter::Frame as Item;
use recount_store::{
    Event, FrameNumber, LogReader, Progress, Recorded, Result, Seq, SessionId, StreamId,
};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::{Bar, with_bar};
use crate::render::decision::{fields_that_differ, phrase};
use crate::render::{Look, text, time};
use crate::timeline::Timeline;
use crate::wire::{Compared, Comparison, Difference, Kind, Read};

/// Translates the frames of a session again, and holds what they say against what was recorded from them.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let compared = compare(reader, id)?;
    if json {
        output.json(&json!({
            "ok": compared.different == 0,
            "frames": compared.frames,
            "events": compared.events,
            "not_kept": compared.not_kept,
            "different": compared.different,
            "differences": compared.differences.iter().map(view).collect::<Vec<_>>(),
        }))?;
    } else {
        tell(&compared, output)?;
    }
    output.flush()?;
    if compared.different == 0 {
        return Ok(());
    }
    Err(
        Failure::new("frames are read otherwise today than when they came").try_next(format!(
            "recount log {id} --frames    shows each event with its frame"
        )),
    )
}

fn compare(reader: &LogReader, id: SessionId) -> Result<Compared, Failure> {
    let mut comparison = Comparison::default();
    let timeline = Timeline::of(reader, id)?;
    let events = || reader.read(StreamId::Session(id), Seq::FIRST);
    let count = timeline.count(reader)?;
    let Some((agent, ends)) = ends(with_bar(events(), "looking for its frames", count))? else {
        return Ok(comparison.end());
    };
    let adapters = Options::new(reader.path()).adapters;
    let adapter = adapters.iter().find(|adapter| adapter.name() == agent);
    let adapter = adapter.ok_or_else(|| {
        Failure::new(format!(
            "this release has no adapter for the agent {agent:?}"
        ))
    })?;
    let mut events = events().peekable();
    let mut bar = Bar::over("frames");
    for frame in reader.frames(ends.0) {
        let frame = frame?;
        if frame.number > ends.1 {
            break;
        }
        bar.show(Progress {
            doing: "reading them again",
            done: frame.number.0 - ends.0.0,
            total: ends.1.0 - ends.0.0,
        });
        if Some(frame.connection) != timeline.connection {
            continue;
        }
        let before = |recorded: &Recorded| recorded.frame.is_none_or(|told| told < frame.number);
        while let Some(recorded) = events.next_if(|event| holds(event, before)) {
            comparison.event(&recorded?);
        }
        let mut from_it = Vec::new();
        let here = |recorded: &Recorded| recorded.frame == Some(frame.number);
        while let Some(recorded) = events.next_if(|event| holds(event, here)) {
            from_it.push(recorded?);
        }
        let translated = frame.bytes().map(|bytes| {
            let data = String::from_utf8_lossy(bytes).into_owned();
            adapter.translate(&Item { data })
        });
        let read = Read {
            number: frame.number,
            at: frame.at,
            translated,
        };
        comparison.frame(read, &from_it);
    }
    for recorded in events {
        comparison.event(&recorded?);
    }
    Ok(comparison.end())
}

/// Whether this is true of an event; what cannot be read is to be told at once.
fn holds(event: &Result<Recorded>, is_so: impl Fn(&Recorded) -> bool) -> bool {
    event.as_ref().map_or(true, is_so)
}

/// The agent of a session, and the first and the last frame that its events name; none where they name none.
fn ends(
    events: impl Iterator<Item = Result<Recorded>>,
) -> Result<Option<(String, (FrameNumber, FrameNumber))>> {
    let (mut agent, mut ends) = (String::new(), None);
    for recorded in events {
        let recorded = recorded?;
        if let Event::SessionOpened { agent: of, .. } = &recorded.event {
            agent.clone_from(of);
        }
        if let Some(frame) = recorded.frame {
            let (first, last) = ends.unwrap_or((frame, frame));
            ends = Some((frame.min(first), frame.max(last)));
        }
    }
    Ok(ends.map(|ends| (agent, ends)))
}

fn tell(compared: &Compared, output: &mut Output) -> std::io::Result<()> {
    let look = output.look.clone();
    for difference in &compared.differences {
        output.line(&told(difference, &look))?;
    }
    let more = compared.different - compared.differences.len() as u64;
    if more > 0 {
        output.line(&format!("and {more} more"))?;
    }
    let held = format!(
        "{} held against {}",
        text::count(compared.events, "event"),
        text::count(compared.frames, "frame")
    );
    let verdict = match compared.different {
        0 => "read as then".to_owned(),
        different => look.bad(&format!(
            "not read as then: {}",
            text::count(different, "difference")
        )),
    };
    output.line(&format!("{verdict}: {held}"))?;
    match compared.not_kept {
        0 => Ok(()),
        1 => output.line("1 event names a frame that is not kept any more"),
        many => output.line(&format!(
            "{many} events name frames that are not kept any more"
        )),
    }
}

/// A difference in a few lines.
fn told(difference: &Difference, look: &Look) -> String {
    let Difference {
        kind,
        frame,
        at,
        recorded,
        today,
        said,
    } = difference;
    let clock = look.dim(&time::clock(*at, &look.zone));
    let kind = look.bad(&format!("{:8}", kind.name()));
    let mut lines = vec![format!("{clock}  {kind} frame {frame}: {said}")];
    let mut row = |what: &str, says: &str| {
        let line = format!("{:14}{what:10}{says}", "");
        let line = match look.width {
            Some(width) => text::clip(&line, width.max(40)).into_owned(),
            None => line,
        };
        lines.push(line);
    };
    match recorded {
        Some(recorded) => row(
            "recorded",
            &format!("{} {}", recorded.seq, phrase(&recorded.event)),
        ),
        None => row("recorded", "nothing like it"),
    }
    match today {
        Some(today) => row("today", &phrase(today)),
        None => row("today", "nothing like it"),
    }
    if let Some(why) = why(difference) {
        row("why", &why);
    }
    lines.join("\n")
}

/// In which way the two differ, where they are of one type.
fn why(difference: &Difference) -> Option<String> {
    let (recorded, today) = difference
        .recorded
        .as_ref()
        .zip(difference.today.as_ref())?;
    let fields = fields_that_differ(&recorded.event, today)?;
    (difference.kind == Kind::Other && !fields.is_empty()).then(|| fields.join("; "))
}

fn view(difference: &Difference) -> serde_json::Value {
    let recorded = difference.recorded.as_ref();
    json!({
        "kind": difference.kind.name(),
        "frame": difference.frame,
        "at": time::rfc3339(difference.at),
        "position": recorded.map(|recorded| recorded.position),
        "seq": recorded.map(|recorded| recorded.seq),
        "recorded": recorded.map(|recorded| &recorded.event),
        "today": difference.today,
        "said": difference.said,
        "why": why(difference),
    })
}
