//! `recount sign`: a head of the log that can be held against it later.

use std::path::Path;

use recount_store::{LogReader, Position, SigningKey, verify_all};

use crate::failure::Failure;
use crate::key_file;
use crate::output::Output;
use crate::progress::Bar;

/// Proves that the log is whole, and signs where it stands.
pub(crate) fn run(
    reader: &LogReader,
    key: &SigningKey,
    out: Option<&Path>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut bar = Bar::new();
    // Nobody should put their name to what a file merely says of itself.
    let verified = verify_all(reader, |progress| bar.show(progress))
        .map_err(|error| Failure::because("nothing was signed", error))?;
    drop(bar);
    let head = verified.head;
    if head.position == Position(0) {
        return Err(Failure::new("the log is empty: there is nothing to sign")
            .try_next("recount sessions    shows what there is"));
    }
    let signed = head.sign(super::now(), key);
    if let Some(path) = out {
        let text = serde_json::to_string(&signed)
            .map_err(|error| Failure::because("cannot write the signed head", error))?;
        key_file::create(path, false, &(text + "\n"))?;
    }
    if out.is_none() || json {
        output.json(&signed)?;
    } else {
        output.line(&format!(
            "signed: position {} with hash {}",
            head.position, head.hash
        ))?;
    }
    Ok(())
}
