//! `recount export`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

/// Write a session out: to keep it, to read it, or for another tool
///
/// A session comes with its connection; as jsonl, with the engine's own events, too. The log is only read; another
/// process may be writing it.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true), after_help = "\
Examples:
  recount export latest > session.jsonl                     recount import makes a log of it again
  recount export latest --format markdown --out session.md  to read, and to attach to a report
  recount export latest --format trace --out session.json   open it at https://ui.perfetto.dev
  recount export latest --format otlp | curl --json @- http://localhost:4318/v1/traces
  recount export --all --out everything.jsonl

docs/export.md describes each format.")]
pub(crate) struct Export {
    /// The session: its id, the beginning of it, or `latest`
    #[arg(value_name = "ID", group = "what")]
    pub(crate) id: Option<String>,

    /// Everything that the log holds
    #[arg(long, group = "what")]
    pub(crate) all: bool,

    /// As what
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Jsonl)]
    pub(crate) format: Format,

    /// Into a new file, whole or not at all, instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// In trace and otlp, also what was said: messages, answers, what tools were given and gave
    #[arg(long)]
    pub(crate) texts: bool,
}

/// What an export looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Each event with its proof: the only one that can be imported again
    Jsonl,
    /// The conversation, for a person
    Markdown,
    /// A picture of it over time, in Chrome's trace format, for Perfetto
    Trace,
    /// Spans with OpenTelemetry's conventions for agents, as a collector takes them
    Otlp,
}
