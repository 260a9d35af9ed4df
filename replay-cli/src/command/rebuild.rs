//! `recount rebuild`: what is derived, made anew.

use std::collections::BTreeMap;

use recount_projections::state_store;
use recount_store::{Error, Log, LogReader, Position, Seq, StreamId, Timestamp};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::text;

/// Makes the index and the snapshots anew, and says whether all streams stand where they stood.
pub(crate) async fn run(log: &Log, json: bool, output: &mut Output) -> Result<(), Failure> {
    let failed = |error| Failure::because("cannot rebuild", error);
    let before = match stands(log) {
        // An index that cannot be read is what this is for.
        Err(Error::Corrupt { .. }) => BTreeMap::new(),
        stands => stands.map_err(failed)?,
    };
    let position = log.head()?.position;
    let mut bar = Bar::new();
    log.rebuild(move |told| bar.show(told))
        .await
        .map_err(failed)?;
    let mut bar = Bar::new();
    let snapshots = state_store::snapshot_all(log, |told| bar.show(told)).map_err(failed)?;
    drop(bar);
    let after = stands(log).map_err(failed)?;

    let names = before.keys().chain(after.keys());
    let mut moved: Vec<StreamId> = names
        .filter(|stream| before.get(stream) != after.get(stream))
        .copied()
        .collect();
    moved.sort_unstable();
    moved.dedup();
    if json {
        let moved: Vec<_> = moved.iter().map(StreamId::to_string).collect();
        output.json(&json!({
            "position": position,
            "streams": after.len(),
            "snapshots": snapshots,
            "same": moved.is_empty(),
            "moved": moved,
        }))?;
    } else {
        output.line(&format!(
            "rebuilt: the index up to position {position}, {}, {}",
            text::count(after.len() as u64, "stream"),
            text::count(snapshots, "snapshot"),
        ))?;
        if moved.is_empty() {
            output.line("the same: every stream stands where it stood")?;
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    output.flush()?;
    let moved_names: Vec<_> = moved.iter().map(StreamId::to_string).collect();
    Err(Failure::new(format!(
        "the index was wrong before, about {}: {}; it is mended",
        text::count(moved.len() as u64, "stream"),
        moved_names.join(", ")
    ))
    .try_next("recount verify    proves that the events are whole"))
}

/// What of a stream is the same after a rebuild: its last event, and the first that can be read.
type Stand = (Seq, Seq, Position, Timestamp);

fn stands(reader: &LogReader) -> Result<BTreeMap<StreamId, Stand>, Error> {
    let streams = reader.streams()?.into_iter();
    Ok(streams
        .map(|(stream, head)| (stream, (head.from, head.seq, head.last, head.at)))
        .collect())
}
