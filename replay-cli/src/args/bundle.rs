//! `recount bundle`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use regex::Regex;

/// Put a session into one file that proves itself, or check one
///
/// The file holds the events of the session, those of its connection meanwhile, and what it takes to prove, without
/// the log and without network, that exactly these are in the log that was signed. Of all other events it holds a
/// hash each, and nothing else.
///
/// What `--redact` matches is withheld: the whole event that says it, with its time and its type left to see. The
/// proof still holds, since the event's hash stays. Whoever can guess all that an event says can also confirm the
/// guess by that hash: so redaction hides a text that cannot be guessed, not a yes or a no.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true), after_help = "\
Examples:
  recount sign --key recount.pem --out head.json
  recount bundle latest --signed head.json --out session.bundle
  recount bundle latest --signed head.json --redact '(?i)password' --redact 'sk-[a-z0-9]+'
  recount bundle --check session.bundle --public-key recount.pub

docs/export.md describes the file, so that anybody can check it with a program of their own.
Exit codes: 0 done, or proven; 1 failed, or not proven; 2 wrong use.")]
pub(crate) struct Bundle {
    /// The session: its id, the beginning of it, or `latest`
    #[arg(value_name = "ID", group = "what", requires = "signed")]
    pub(crate) id: Option<String>,

    /// Check this file instead; no log is needed
    #[arg(long, value_name = "FILE", group = "what", conflicts_with_all = ["signed", "redact", "out"])]
    pub(crate) check: Option<PathBuf>,

    /// A head of the log that `recount sign` signed after the session's events
    #[arg(long, value_name = "FILE")]
    pub(crate) signed: Option<PathBuf>,

    /// Withhold each event in which this matches: a regular expression; can be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) redact: Vec<Regex>,

    /// Into a new file, whole or not at all, instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// The key that must have signed: 64 hexadecimal digits, or a file of them or of PEM
    #[arg(long, value_name = "KEY|FILE", requires = "check")]
    pub(crate) public_key: Option<String>,
}
