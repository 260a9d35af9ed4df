//! `recount doctor`: what is wrong with a data directory, and what to do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use recount_engine::computer::{Computer as _, System};
use recount_projections::connection::{Connection, Process};
use recount_projections::{Pending, Projection as _, Session, state_store};
use recount_store::{Error, LogReader, Position, StreamId, verify_all};
use serde_json::json;

use super::engine;
use crate::failure::Failure;
use crate::health::{Facts, Finding, Presence, Severity, findings};
use crate::output::Output;
use crate::progress::Bar;
use crate::render::{Look, text};

/// The files of a log that its owner alone may read.
const PRIVATE: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

/// Says what is wrong with a directory: the one that was named, or where this user's data is. It changes nothing.
pub(crate) fn run(
    named: Option<&Path>,
    data: &Path,
    quick: bool,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let directory = named.unwrap_or(data);
    let presence = match named {
        _ if directory.exists() => Presence::There,
        Some(_) => Presence::Mistaken,
        None => Presence::NotYet,
    };
    let found = findings(&look_at(directory, presence, quick));
    let needed = found.iter().filter(|one| one.severity > Severity::Note);
    let needed = needed.count() as u64;
    if json {
        output.json(&json!({
            "directory": directory,
            "healthy": needed == 0,
            "findings": found,
        }))?;
    } else {
        for finding in &found {
            let told = told(finding, &output.look);
            output.text(&told)?;
        }
        if needed == 0 {
            output.line(&output.look.good("nothing needs doing"))?;
        }
    }
    output.flush()?;
    if needed == 0 {
        return Ok(());
    }
    let what = match needed {
        1 => "1 thing needs doing".to_owned(),
        more => format!("{more} things need doing"),
    };
    Err(Failure::new(format!("{what} in {}", directory.display())))
}

fn told(finding: &Finding, look: &Look) -> String {
    let head = match finding.severity {
        Severity::Note => look.dim("note"),
        Severity::Warning => look.warn("warning"),
        Severity::Error => look.bad("error"),
    };
    let mut out = format!("{head}: {}\n", text::one_line(&finding.what));
    let _ = writeln!(out, "  {}", text::one_line(&finding.means));
    for line in finding.next.iter().flat_map(|next| next.lines()) {
        let _ = writeln!(out, "    {}", text::one_line(line));
    }
    out
}

/// Sees what there is to see.
fn look_at(directory: &Path, presence: Presence, quick: bool) -> Facts {
    let mut facts = Facts {
        directory: directory.to_owned(),
        presence,
        open_to_others: if directory.is_file() {
            Vec::new()
        } else {
            open_to_others(directory)
        },
        log: None,
        writer: LogReader::writer(directory).ok().flatten(),
        journal: PRIVATE[1..]
            .iter()
            .any(|name| fs::metadata(directory.join(name)).is_ok_and(|file| file.len() > 0)),
        damage: None,
        events: Position::default(),
        snapshot: false,
        room: room(directory),
        policy: policy(directory),
        unfinished: unfinished(directory),
        servers: Vec::new(),
        left_over: 0,
        open: 0,
        waiting: 0,
        dead_letters: 0,
    };
    match LogReader::open(directory).map_err(|error| crate::directory::not_ours(directory, error)) {
        Ok(reader) => {
            if let Err(error) = look_into(&reader, &mut facts) {
                facts.damage = Some(error);
            }
            // What is found first in going through all of it is the first bad place.
            if (!quick || facts.damage.is_some())
                && let Err(error) = proven(&reader)
            {
                facts.damage = Some(error);
            }
        }
        Err(error) => facts.log = Some(error),
    }
    facts
}

fn proven(reader: &LogReader) -> Result<(), Error> {
    let mut bar = Bar::new();
    verify_all(reader, |progress| bar.show(progress)).map(drop)
}

/// Sees what the log says.
fn look_into(reader: &LogReader, facts: &mut Facts) -> Result<(), Error> {
    facts.events = reader.head()?.position;
    // Where each stream stands is looked at in a hurry, too.
    for (stream, head) in reader.streams()? {
        reader.read(stream, head.seq).next().transpose()?;
    }
    facts.snapshot = reader.snapshot(StreamId::Engine, Pending::NAME)?.is_some();
    let pending = state_store::pending(reader)?;
    facts.dead_letters = pending
        .dead_letters
        .values()
        .map(|of| of.len() as u64)
        .sum();
    facts.open = pending.sessions.values().map(|of| of.len() as u64).sum();
    for session in pending.sessions.keys() {
        let state: Session = state_store::load(reader, StreamId::Session(*session))?;
        facts.waiting += u64::from(state.waits().is_some());
    }
    let mut marks = BTreeSet::new();
    for connection in &pending.servers {
        let state: Connection = state_store::load(reader, StreamId::Connection(*connection))?;
        let Some(server) = state.server else {
            continue;
        };
        let alive = server.process.filter(|process| is_alive(*process));
        facts
            .servers
            .push((*connection, alive.map(|process| process.pid)));
        marks.insert(server.mark);
    }
    let files = names(&facts.directory.join("servers"));
    let stems = files.iter().map(|name| {
        let (stem, _) = name.split_once('.').unwrap_or((name, ""));
        stem.to_owned()
    });
    let kept: BTreeSet<String> = stems.collect();
    facts.left_over = kept.difference(&marks).count() as u64;
    Ok(())
}

/// Whether a process lives, and is the one that is meant: ids are given again.
fn is_alive(process: Process) -> bool {
    System.stat(process.pid).is_some_and(|stat| {
        !stat.ended && (process.started == 0 || stat.started == process.started)
    })
}

/// What others than its owner may read, and the mode of it.
fn open_to_others(directory: &Path) -> Vec<(PathBuf, u32)> {
    let servers = directory.join("servers");
    let secrets = names(&servers).into_iter().map(|name| servers.join(name));
    let files = PRIVATE.iter().map(|name| directory.join(name));
    let all = [directory.to_owned()]
        .into_iter()
        .chain(files)
        .chain(secrets);
    all.filter_map(|path| {
        let mode = mode(&path)?;
        (mode & 0o077 != 0).then_some((path, mode))
    })
    .collect()
}

/// Who may do what with a file; `None` where it is not there.
fn mode(path: &Path) -> Option<u32> {
    let about = fs::symlink_metadata(path).ok()?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions());
        Some(mode & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = about;
        None
    }
}

/// How many bytes a disk has left for who is not its administrator.
fn room(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}

fn policy(directory: &Path) -> Option<String> {
    let error = engine::policy(directory, None).err()?;
    let told = error.message().unwrap_or_default();
    let told = told.trim().strip_prefix("recount: ").unwrap_or(&told);
    Some(told.to_owned())
}

fn unfinished(directory: &Path) -> Vec<String> {
    let mut names = names(directory);
    names.retain(|name| name.starts_with("log.redb.new-"));
    names
}

/// The names in a directory, in order; none where it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}
