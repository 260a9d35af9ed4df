//! `recount retain`: letting go of what is old.

use recount_store::{FrameNumber, FramesBefore, Log, LogReader, StreamHead, StreamId, Timestamp};
use serde_json::json;

use super::{compact, cut};
use crate::args::{Age, Retain};
use crate::failure::Failure;
use crate::front::{self, Front};
use crate::output::{Output, note};
use crate::render::text;

/// Cuts off what is old, or says what would go where there is no log to write.
pub(crate) async fn run(
    reader: &LogReader,
    log: Option<&Log>,
    retain: &Retain,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let now = super::now();
    let fronts = match retain.older_than {
        Some(age) => old_fronts(reader, before(now, age))?,
        None => Vec::new(),
    };
    for front in &fronts {
        if let Some(log) = log {
            cut::go(log, front).await?;
        }
        cut::tell(front, log.is_some(), json, output)?;
    }
    let frames = match retain.frames_older_than {
        Some(age) => drop_frames(reader, log, before(now, age)).await?,
        None => 0,
    };
    if frames > 0 {
        if json {
            output.json(&json!({"frames": frames, "dropped": log.is_some()}))?;
        } else if log.is_some() {
            output.line(&format!("dropped: {}", text::count(frames, "frame")))?;
        } else {
            let frames = text::count(frames, "frame");
            output.line(&format!("would drop: up to {frames}"))?;
        }
    }
    if fronts.is_empty() && frames == 0 && !json {
        output.line("nothing is so old")?;
    }
    match log {
        Some(log) if retain.compact => compact::run(log, json, output).await,
        Some(_) if !json && (!fronts.is_empty() || frames > 0) => {
            note("· recount compact    gives the space back");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The time that something of this age has.
fn before(now: Timestamp, Age(age): Age) -> Timestamp {
    let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    Timestamp(now.0.saturating_sub(micros))
}

/// The fronts that are older than a time and that nothing follows from any more.
fn old_fronts(reader: &LogReader, time: Timestamp) -> Result<Vec<Front>, Failure> {
    let mut fronts = Vec::new();
    for (stream, head) in reader.streams()? {
        fronts.extend(old_front(reader, stream, head, time)?);
    }
    Ok(fronts)
}

fn old_front(
    reader: &LogReader,
    stream: StreamId,
    head: StreamHead,
    time: Timestamp,
) -> Result<Option<Front>, Failure> {
    match stream {
        StreamId::Session(_) if head.at < time && front::is_over(reader, stream)? => {
            Ok(Front::all(reader, stream)?)
        }
        StreamId::Engine => match Front::older(reader, stream, time)? {
            Some(old) => Ok(old.up_to(reader, front::first_of_engine(reader)?)?),
            None => Ok(None),
        },
        // A connection is folded from its first event on, whatever becomes of its sessions.
        StreamId::Session(_) | StreamId::Connection(_) => Ok(None),
    }
}

/// Drops the frames that came before a time, or counts them; gives how many.
async fn drop_frames(
    reader: &LogReader,
    log: Option<&Log>,
    time: Timestamp,
) -> Result<u64, Failure> {
    let mut frames = reader.frames(FrameNumber::FIRST);
    let Some(first) = frames.next().transpose()? else {
        return Ok(0);
    };
    if let Some(log) = log {
        let remaining = log
            .drop_frames(FramesBefore::Time(time))
            .await
            .map_err(|error| Failure::because("cannot drop frames", error))?;
        return Ok(remaining.0.saturating_sub(first.number.0));
    }
    let mut old = u64::from(first.at < time);
    for frame in frames {
        if frame?.at >= time {
            break;
        }
        old += 1;
    }
    Ok(old)
}
