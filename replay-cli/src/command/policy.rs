//! `recount policy`: every bound and choice that is in force.

use std::path::Path;

use recount_engine::Policy;

use super::engine;
use crate::failure::Failure;
use crate::output::Output;

/// Prints the policy that a verb that runs an engine would run it with.
pub(crate) fn run(
    data: &Path,
    named: Option<&Path>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let policy = engine::policy(data, named)?;
    if json {
        output.json(&policy)?;
    } else {
        output.text(&policy.to_toml())?;
    }
    Ok(())
}

/// Says whether a policy file can work.
pub(crate) fn check(file: &Path, json: bool, output: &mut Output) -> Result<(), Failure> {
    let policy = Policy::read(file).map_err(|error| {
        Failure::because("cannot use the policy", error)
            .try_next("recount policy    prints every key, and what is in force")
    })?;
    if json {
        output.json(&policy)?;
    } else {
        output.line(&format!("{} can be used", file.display()))?;
    }
    Ok(())
}
