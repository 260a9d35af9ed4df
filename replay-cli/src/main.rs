//! The `recount` command: running a session, and looking back at one.
#![cfg_attr(
    test,
    allow(
        clippy::needless_raw_string_hashes,
        reason = "expect-test writes snapshots like that"
    )
)]

mod align;
mod args;
mod change;
mod command;
mod complete;
mod directory;
mod export;
mod failure;
mod find;
mod front;
mod health;
mod key_file;
mod knew;
mod output;
mod pager;
mod pick;
mod progress;
mod query;
mod render;
mod stage;
mod step;
mod terminal;
mod timeline;
mod tree;
mod wire;

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use recount_store::{FrameNumber, Log, LogReader, SessionId};
use tracing_subscriber::EnvFilter;

use args::{Cli, Key, KeyVerb, PolicyOf, PolicyVerb, Verb};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    complete::answer_shell();
    // Before the line is parsed: times are read as they are told.
    if std::env::args_os().any(|word| word == "--utc") {
        output::tell_times_in_utc();
    }
    // Wrong use ends here with code 2, help and version with 0.
    let cli = Cli::parse();
    if let Err(failure) = trace(cli.verbose).and_then(|()| run(cli)) {
        if let Some(message) = failure.message() {
            // Where even this cannot be written, the code says it.
            let _ = std::io::stderr().write_all(message.as_bytes());
        }
        return ExitCode::from(failure.code());
    }
    ExitCode::SUCCESS
}

/// Has diagnostics go to standard error, as far as they are wanted.
fn trace(verbose: u8) -> Result<(), Failure> {
    let wanted = match std::env::var("RECOUNT_LOG") {
        Ok(filter) => filter,
        Err(_) => match verbose {
            0 => return Ok(()),
            1 => "info".to_owned(),
            2 => "debug".to_owned(),
            _ => "trace".to_owned(),
        },
    };
    let filter = EnvFilter::try_new(wanted)
        .map_err(|error| Failure::because("cannot use RECOUNT_LOG", error))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::Output::stderr().look.colour)
        .init();
    Ok(())
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli {
        data,
        json,
        no_pager,
        verb,
        ..
    } = cli;
    let mut output = if verb.is_paged() && !no_pager {
        Output::paged()
    } else {
        Output::stdout()
    };
    // These need no data directory to be named.
    match &verb {
        Verb::Demo(demo) => {
            let named = data.clone().unwrap_or_default();
            return command::demo::run(data, &demo.keeping, json, output)
                .map_err(|failure| failure.about_the_log_in(&named));
        }
        Verb::Key(Key {
            verb: KeyVerb::New(new),
        }) => {
            command::key::new(&new.file, json, &mut output)?;
            return Ok(output.flush()?);
        }
        Verb::Bundle(args::Bundle {
            check: Some(file),
            public_key,
            ..
        }) => {
            command::bundle::check(file, public_key.as_deref(), json, &mut output)?;
            return Ok(output.flush()?);
        }
        Verb::Policy(PolicyOf {
            verb: Some(PolicyVerb::Check { file }),
            ..
        }) => {
            command::policy::check(file, json, &mut output)?;
            return Ok(output.flush()?);
        }
        Verb::Salvage(salvage) => {
            return command::salvage::run(salvage, json, &mut output);
        }
        Verb::Completions(completions) => {
            command::reference::completions(completions.shell, &mut output)?;
            return Ok(output.flush()?);
        }
        Verb::Man(man) => {
            command::reference::man(man.out.as_deref(), json, &mut output)?;
            return Ok(output.flush()?);
        }
        _ => {}
    }
    let data = directory::find(data)?;
    on_a_log(verb, &data, json, output).map_err(|failure| failure.about_the_log_in(&data))
}

/// Runs a verb on the log in a directory.
fn on_a_log(verb: Verb, data: &Path, json: bool, mut output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Run(run) => return command::run::run(data, &run, json, output),
        Verb::Recover(recover) => {
            return command::recover::run(data, &recover, json, &mut output);
        }
        Verb::DeadLetters(only) => {
            if let Some(reader) = command::sessions::open(data)? {
                let only = only.session.map(|text| pick::session(&reader, &text));
                command::dead_letters::run(&reader, only.transpose()?, json, &mut output)?;
            }
        }
        Verb::Requeue(requeue) => {
            let log = directory::open_to_write(data)?;
            let work = command::requeue::run(&log, data, &requeue, json, &mut output);
            command::change(Some(&log), work)?;
        }
        Verb::Resolve(resolve) => {
            let (reader, log) = open_unless_dry(data, resolve.word.is_none())?;
            let work = command::resolve::run(&reader, log.as_ref(), &resolve, json, &mut output);
            command::change(log.as_ref(), work)?;
        }
        Verb::Fork(fork) => {
            let log = directory::open_to_write(data)?;
            let work = command::fork::run(&log, &fork, json, &mut output);
            command::change(Some(&log), work)?;
        }
        Verb::WhatIf(wanted) => {
            let (reader, id) = open(data, &wanted.session.id)?;
            command::decisions::what_if(&reader, id, &wanted, json, &mut output)?;
        }
        Verb::Demo(_) | Verb::Key(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Salvage(_) => {}
        Verb::Policy(policy) => {
            command::policy::run(data, policy.file.path.as_deref(), json, &mut output)?;
        }
        Verb::Sessions(_) => {
            if let Some(reader) = command::sessions::open(data)? {
                if !json {
                    command::hint_at_nobody(&reader, None);
                }
                command::sessions::run(&reader, json, &mut output)?;
            }
        }
        Verb::Show(show) => {
            let (reader, id) = open(data, &show.session.id)?;
            if !json && show.at.is_none() {
                command::hint_at_nobody(&reader, Some(id));
            }
            command::show::run(&reader, id, &show, json, &mut output)?;
        }
        Verb::Step(step) => {
            command::step::needs_terminal(json, &output)?;
            let (reader, id) = open(data, &step.session.id)?;
            return command::step::run(reader, id, step.at, &output);
        }
        Verb::Log(log) => {
            let (reader, id) = open(data, &log.session.id)?;
            let output = &mut output;
            until_interrupted(command::log::run(&reader, id, &log, json, output))?;
        }
        Verb::Find(find) => {
            let reader = directory::open(data)?;
            command::find::run(&reader, &find, json, &mut output)?;
        }
        Verb::Bisect(bisect) => {
            let (reader, id) = open(data, &bisect.session.id)?;
            command::bisect::run(&reader, id, &bisect, json, &mut output)?;
        }
        Verb::Why(why) => {
            let (reader, id) = open(data, &why.session.id)?;
            command::why::run(&reader, id, &why, json, &mut output)?;
        }
        Verb::Diff(diff) => {
            let (reader, id) = open(data, &diff.session.id)?;
            command::diff::run(&reader, id, &diff, json, &mut output)?;
        }
        Verb::Frames(frames) => {
            let reader = directory::open(data)?;
            let only = frames
                .connection
                .map(|text| pick::connection(&reader, &text));
            let range = (FrameNumber(frames.from), frames.limit.unwrap_or(u64::MAX));
            command::frames::run(&reader, range, only.transpose()?, json, &mut output)?;
        }
        Verb::Replay(replay) => {
            let (reader, id) = open(data, &replay.session.id)?;
            if replay.wire {
                command::wire::run(&reader, id, json, &mut output)?;
                return Ok(output.flush()?);
            }
            let speed = (!replay.instant).then_some(replay.speed);
            return until_interrupted(command::replay::run(&reader, id, speed, json, output));
        }
        Verb::Incidents(wanted) => {
            let reader = directory::open(data)?;
            command::incidents::run(&reader, &wanted, json, &mut output)?;
        }
        Verb::Verify(verify) => {
            let reader = directory::open(data)?;
            if let Some(signed) = verify.signed {
                let key = verify.public_key.as_deref();
                command::verify::signed(&reader, &signed, key, json, &mut output)?;
            } else {
                let only = verify.session.map(|text| pick::session(&reader, &text));
                let decisions = verify.decisions;
                command::verify::run(&reader, only.transpose()?, decisions, json, &mut output)?;
            }
        }
        Verb::Doctor(doctor) => {
            let named = doctor.directory.as_deref();
            command::doctor::run(named, data, doctor.quick, json, &mut output)?;
        }
        Verb::Export(export) => {
            let reader = directory::open(data)?;
            command::export::run(&reader, &export, json, &mut output)?;
        }
        Verb::Import(import) => {
            let directory = import.into.as_deref().unwrap_or(data);
            command::import::run(&import.file, directory, json, &mut output)?;
        }
        Verb::Bundle(bundle) => {
            let reader = directory::open(data)?;
            command::bundle::run(&reader, &bundle, json, &mut output)?;
        }
        Verb::Sign(sign) => {
            // The key first: a long look at the log would be in vain without it.
            let key = key_file::private(&sign.key)?;
            let reader = directory::open(data)?;
            command::sign::run(&reader, &key, sign.out.as_deref(), json, &mut output)?;
        }
        Verb::Close(close) => {
            let log = directory::open_to_write(data)?;
            command::change(Some(&log), async {
                let id = pick::session(&log, &close.session.id)?;
                command::close::run(&log, id, json, &mut output).await
            })?;
        }
        Verb::Cut(cut) => {
            let (reader, log) = open_unless_dry(data, cut.dry_run)?;
            let work = command::cut::run(&reader, log.as_ref(), &cut, json, &mut output);
            command::change(log.as_ref(), work)?;
        }
        Verb::Retain(retain) => {
            let (reader, log) = open_unless_dry(data, retain.dry_run)?;
            let work = command::retain::run(&reader, log.as_ref(), &retain, json, &mut output);
            command::change(log.as_ref(), work)?;
        }
        Verb::Compact(_) => {
            let log = directory::open_to_write(data)?;
            command::change(Some(&log), command::compact::run(&log, json, &mut output))?;
        }
        Verb::Rebuild(_) => {
            let log = directory::open_to_write(data)?;
            command::change(Some(&log), command::rebuild::run(&log, json, &mut output))?;
        }
    }
    output.flush()?;
    Ok(())
}

/// The log in a directory, and the session in it that a text means.
fn open(data: &Path, text: &str) -> Result<(LogReader, SessionId), Failure> {
    let reader = directory::open(data)?;
    let id = pick::session(&reader, text)?;
    Ok((reader, id))
}

/// The log in a directory to read, and to change unless it is only looked at.
fn open_unless_dry(data: &Path, dry_run: bool) -> Result<(LogReader, Option<Log>), Failure> {
    if dry_run {
        return Ok((directory::open(data)?, None));
    }
    let log = directory::open_to_write(data)?;
    let reader = LogReader::clone(&log);
    Ok((reader, Some(log)))
}

/// Does the work on this thread, and leaves it where it stands on Ctrl-C.
fn until_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot begin", error))?;
    runtime.block_on(async {
        tokio::select! {
            // While the work does not wait, Ctrl-C ends the process as it always does.
            biased;
            done = work => done,
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    })
}
