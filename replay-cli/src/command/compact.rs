//! `recount compact`: the space of what was cut off.

use recount_store::{Compacted, Log};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::text;

/// Gives back the space of what was cut off and dropped.
pub(crate) async fn run(log: &Log, json: bool, output: &mut Output) -> Result<(), Failure> {
    let mut bar = Bar::new();
    let compacted = log
        .compact(move |told| bar.show(told))
        .await
        .map_err(|error| Failure::because("cannot compact the log", error))?;
    let remaining: u64 = log
        .streams()?
        .iter()
        .map(|(_, head)| head.seq.0 + 1 - head.from.0)
        .sum();
    let Compacted {
        events,
        bytes_before,
        bytes_after,
    } = compacted;
    if json {
        output.json(&json!({
            "events_before": remaining + events,
            "events_after": remaining,
            "bytes_before": bytes_before,
            "bytes_after": bytes_after,
        }))?;
    } else {
        output.line(&format!(
            "compacted: {} before, {remaining} now; {} before, {} now",
            text::count(remaining + events, "event"),
            text::bytes(bytes_before),
            text::bytes(bytes_after),
        ))?;
    }
    Ok(())
}
