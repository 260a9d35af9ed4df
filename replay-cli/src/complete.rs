//! What a shell is told when somebody presses Tab: verbs and flags from the same description as the help, and what the
//! log has to name.
//!
//! The shell asks this command itself, by [`ASKED_IN`] in its environment, so that nothing it was told earlier can be
//! out of date. Whoever types wants an answer at once or none: what cannot be read has no names.

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::{CompleteEnv, Shell};
use recount_projections::{Session, state_store};
use recount_store::{Event, LogReader, StreamId};

use crate::args::Cli;
use crate::command::{requeue, resolve};
use crate::failure::Failure;
use crate::pick::{self, Candidate};
use crate::render::{text, time};
use crate::{command, directory};

/// Where a shell names itself, when it asks.
const ASKED_IN: &str = "RECOUNT_COMPLETE";

/// How many ids are offered: who has more types the beginning of one.
const OFFERED_MAX: usize = 100;

/// Answers a shell that asks, and ends the process then.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(described)
        .var(ASKED_IN)
        .bin("recount")
        .complete();
}

/// What a shell has to run once, so that it asks.
pub(crate) fn script(shell: Shell) -> String {
    let ask = format!("{ASKED_IN}={shell} recount");
    match shell {
        Shell::Zsh => format!(
            "#compdef recount\nsource <({ask})\n# Loaded by the first Tab, it has to answer that, too.\nif [ \"$funcstack[1]\" = \"_recount\" ]; then\n    _clap_dynamic_completer_recount \"$@\"\nfi\n"
        ),
        Shell::Fish => format!("{ask} | source\n"),
        Shell::Elvish => {
            format!("eval (env {ask} | slurp)\n")
        }
        Shell::PowerShell => format!(
            "$env:{ASKED_IN} = \"powershell\"\nrecount | Out-String | Invoke-Expression\nRemove-Item Env:\\{ASKED_IN}\n"
        ),
        _ => format!("source <({ask})\n"),
    }
}

/// The command line, with what the log has to name.
fn described() -> Command {
    let named = |verb: Command| {
        let name = verb.get_name().to_owned();
        verb.mut_args(|arg| with_names(&name, arg))
    };
    Cli::command().mut_subcommands(named)
}

fn with_names(verb: &str, arg: Arg) -> Arg {
    let names = arg.get_value_names().unwrap_or_default();
    let is = |name: &str| names.iter().any(|known| known == name);
    if arg.get_id() == "connection" {
        arg.add(ArgValueCompleter::new(connections))
    } else if is("ID") || is("A|ID") {
        arg.add(ArgValueCompleter::new(sessions))
    } else if is("EVENT") {
        arg.add(ArgValueCompleter::new(events))
    } else if is("MESSAGE") && verb == "requeue" {
        arg.add(ArgValueCompleter::new(dead_letters))
    } else if is("MESSAGE") && verb == "resolve" {
        arg.add(ArgValueCompleter::new(waiting))
    } else {
        arg
    }
}

fn sessions(typed: &OsStr) -> Vec<CompletionCandidate> {
    offered(typed, |reader| {
        let now = command::seen_at();
        Ok(named(typed, pick::newest_first(reader)?, |id, head| {
            let stream = StreamId::Session(*id);
            let Ok(state) = state_store::load::<Session>(reader, stream) else {
                return "cannot be read".to_owned();
            };
            let about = state.opening.as_ref().map_or("", |opening| {
                opening.title.as_deref().unwrap_or(&opening.directory)
            });
            let (status, age) = (state.status().name(), time::age(head.at, now));
            format!("{status}, {age}  {about}")
        }))
    })
}

fn connections(typed: &OsStr) -> Vec<CompletionCandidate> {
    offered(typed, |reader| {
        let now = command::seen_at();
        Ok(named(typed, pick::connections(reader)?, |_, head| {
            time::age(head.at, now)
        }))
    })
}

fn dead_letters(typed: &OsStr) -> Vec<CompletionCandidate> {
    offered(typed, |reader| {
        Ok(messages(typed, requeue::given_up(reader)?))
    })
}

fn waiting(typed: &OsStr) -> Vec<CompletionCandidate> {
    offered(typed, |reader| {
        Ok(messages(typed, resolve::waiting(reader)?))
    })
}

fn messages(typed: &OsStr, found: Vec<Candidate>) -> Vec<CompletionCandidate> {
    let found = found.into_iter().map(|found| (found.message, found.about));
    named(typed, found, |_, about| text::one_line(about).into_owned())
}

/// An event by its type, since nobody knows numbers by heart.
fn events(typed: &OsStr) -> Vec<CompletionCandidate> {
    let newest = Event::TYPE_NAMES.iter().map(|name| format!("last:{name}"));
    let events = std::iter::once("last".to_owned()).chain(newest);
    let matching = events.filter(|event| begins(event, typed));
    matching.map(CompletionCandidate::new).collect()
}

/// What the log has to offer, and `latest`; nothing where there is no log, or none that can be read.
fn offered(
    typed: &OsStr,
    look: impl FnOnce(&LogReader) -> Result<Vec<CompletionCandidate>, Failure>,
) -> Vec<CompletionCandidate> {
    let Ok(Ok(reader)) = data().and_then(|data| directory::open_if_any(&data)) else {
        return Vec::new();
    };
    let mut found = look(&reader).unwrap_or_default();
    if begins("latest", typed) {
        found.insert(
            0,
            CompletionCandidate::new("latest").help(Some("the newest".into())),
        );
    }
    // Else a shell has them by the alphabet.
    let ordered = found.into_iter().enumerate();
    ordered
        .map(|(n, candidate)| candidate.display_order(Some(n)))
        .collect()
}

/// Each of these whose id begins as what was typed, with what to know it by.
fn named<I: Display, T>(
    typed: &OsStr,
    all: impl IntoIterator<Item = (I, T)>,
    about: impl Fn(&I, &T) -> String,
) -> Vec<CompletionCandidate> {
    let all = all
        .into_iter()
        .map(|(id, known)| (id.to_string(), id, known));
    all.filter(|(name, ..)| begins(name, typed))
        .take(OFFERED_MAX)
        .map(|(name, id, known)| {
            CompletionCandidate::new(name).help(Some(StyledStr::from(about(&id, &known))))
        })
        .collect()
}

fn begins(name: &str, typed: &OsStr) -> bool {
    typed.to_str().is_some_and(|typed| name.starts_with(typed))
}

/// The data directory that the line names which is typed, else the environment's or the platform's.
fn data() -> Result<PathBuf, Failure> {
    let mut words = std::env::args_os().filter_map(|word| word.into_string().ok());
    let mut named = std::env::var_os("RECOUNT_DATA").map(PathBuf::from);
    while let Some(word) = words.next() {
        let said = match word.strip_prefix("--data") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        named = said.map(at_home).or(named);
    }
    directory::find(named)
}

/// A shell puts the home where a `~` is only once the line is done.
fn at_home(path: String) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}
