//! `recount cut`: letting go of the front of a stream.

use recount_store::{Log, LogReader};

use crate::args;
use crate::failure::Failure;
use crate::front::{self, Front};
use crate::output::{Output, note};
use crate::pick;

/// Cuts the front of a stream, or says what would go where there is no log to write.
pub(crate) async fn run(
    reader: &LogReader,
    log: Option<&Log>,
    cut: &args::Cut,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let stream = pick::stream(reader, &cut.stream)?;
    let front = front::wanted(reader, stream, cut.before)?;
    if let Some(log) = log {
        go(log, &front).await?;
    }
    tell(&front, log.is_some(), json, output)?;
    if log.is_some() && !json {
        note("· recount compact    gives its space back");
    }
    Ok(())
}

/// Cuts off a front.
pub(super) async fn go(log: &Log, front: &Front) -> Result<(), Failure> {
    log.cut(front.stream, front.before, super::now())
        .await
        .map_err(|error| Failure::because("cannot cut", error))?;
    Ok(())
}

/// Says what went, or what would go.
pub(super) fn tell(
    front: &Front,
    gone: bool,
    json: bool,
    output: &mut Output,
) -> std::io::Result<()> {
    if json {
        let mut view = front.view();
        view["cut"] = gone.into();
        return output.json(&view);
    }
    let verb = if gone { "cut" } else { "would cut" };
    let told = front.told(&output.look);
    output.line(&format!("{verb}: {told}"))
}
