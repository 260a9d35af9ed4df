//! The arguments of `recount whatif`.

use std::path::PathBuf;

use clap::Args;

use super::Session;

/// Show what another policy would have decided, beside what was decided
///
/// The rules that run today are put before each decision of a session and of its connection, with the policy that was
/// in force then and what the file says over it. Up to the first decision that would be another, all would have gone as
/// it went. After it the world would have gone another way: each answer that follows is one to what really happened.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount whatif latest --policy strict.toml
  recount whatif 7kq3 --policy strict.toml --different
  echo 'session.rerun = \"never\"' | recount whatif latest --policy -

Every key that a file may have: recount policy. With --json each line is a decision, and \"would\" says what would be
decided in its place, where that is something else.
Exit codes: 0 done, whether or not anything would be decided otherwise; 1 failed; 2 wrong use.")]
pub(crate) struct WhatIf {
    #[command(flatten)]
    pub(crate) session: Session,

    /// What is to be otherwise: a policy file, of one key or of all; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,

    /// Only the decisions that would be others
    #[arg(long)]
    pub(crate) different: bool,
}
