//! What is wrong with a data directory, from what was seen of it: pure.

use std::io::ErrorKind;
use std::path::PathBuf;

use recount_store::{ConnectionId, Error, Holder, Position};
use serde::Serialize;

use crate::render::text;

/// Less room than this is as good as none: the journal alone grows by half a megabyte at a time, and settles eight.
const ROOM_NEEDED: u64 = 32 << 20;

/// Less room than this is gone within days of much use.
const ROOM_WANTED: u64 = 512 << 20;

/// Whether a directory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is.
    There,
    /// It is not, and nobody said that it was: nothing was recorded yet.
    NotYet,
    /// It is not, and was named as the one to look at.
    Mistaken,
}

/// What was seen of a data directory.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its path.
    pub(crate) directory: PathBuf,
    /// Whether it is there at all.
    pub(crate) presence: Presence,
    /// What others than its owner may read, and the mode of it.
    pub(crate) open_to_others: Vec<(PathBuf, u32)>,
    /// Why its log cannot be opened, if it cannot.
    pub(crate) log: Option<Error>,
    /// The process that writes it.
    pub(crate) writer: Option<Holder>,
    /// Whether its journal holds something.
    pub(crate) journal: bool,
    /// What is not whole in it, if anything is.
    pub(crate) damage: Option<Error>,
    /// How many events it has.
    pub(crate) events: Position,
    /// Whether what would be found at the start is kept as a snapshot.
    pub(crate) snapshot: bool,
    /// How many bytes its disk has left.
    pub(crate) room: Option<u64>,
    /// What is wrong with its policy.
    pub(crate) policy: Option<String>,
    /// The files of logs that were never finished.
    pub(crate) unfinished: Vec<String>,
    /// The servers that the log says were started and not seen to end: whether each lives, and its process.
    pub(crate) servers: Vec<(ConnectionId, Option<u32>)>,
    /// How many servers there are files of that the log knows nothing open about.
    pub(crate) left_over: u64,
    /// How many messages are open, how many of them wait for a person, and how many were given up.
    pub(crate) open: u64,
    pub(crate) waiting: u64,
    pub(crate) dead_letters: u64,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Good to know; nothing needs doing.
    Note,
    /// Something needs doing, and nothing is lost meanwhile.
    Warning,
    /// It does not work, or something is lost.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What is there.
    pub(crate) what: String,
    /// What that means.
    pub(crate) means: String,
    /// What to do.
    pub(crate) next: Option<String>,
}

impl Finding {
    fn new(severity: Severity, what: impl Into<String>, means: impl Into<String>) -> Self {
        Self {
            severity,
            what: what.into(),
            means: means.into(),
            next: None,
        }
    }

    fn note(what: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(Severity::Note, what, means)
    }

    fn warning(what: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(Severity::Warning, what, means)
    }

    fn error(what: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(Severity::Error, what, means)
    }

    fn then(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// What is to be said about what was seen, the worst first.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(opening(facts));
    found.extend(damage(facts));
    found.extend(room(facts));
    found.extend(policy(facts));
    found.extend(modes(facts));
    found.extend(writing(facts));
    found.extend(servers(facts));
    found.extend(open(facts));
    found.extend(derived(facts));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn opening(facts: &Facts) -> Option<Finding> {
    let directory = facts.directory.display();
    match facts.presence {
        Presence::There => {}
        Presence::NotYet => {
            let what = format!("there is no directory {directory}");
            let means = "nothing was recorded there, or its name is mistyped";
            let begin = "recount run MESSAGE    begins a session, and makes it";
            return Some(Finding::note(what, means).then(begin));
        }
        Presence::Mistaken => {
            let what = format!("there is no directory {directory}");
            let means = "its name is mistyped, or it was moved away";
            let next = "recount doctor    looks at the data directory that is used without a name";
            return Some(Finding::error(what, means).then(next));
        }
    }
    let error = facts.log.as_ref()?;
    let what = error.to_string();
    let salvage =
        format!("recount salvage {directory} --into NEW-DIR    takes out what can still be proven");
    Some(match error {
        Error::NoLog { .. } => Finding::note(what, "it is empty, and ready to be used")
            .then("recount run MESSAGE    begins a session"),
        Error::NotADataDirectory { .. } => {
            Finding::error(what, "its name is mistyped, or the log was moved away")
                .then("name another one: --data DIR, or RECOUNT_DATA")
        }
        Error::NewerLog { .. } => Finding::error(what, "nothing is wrong with it")
            .then("recount --version    says which release this is"),
        Error::NotALog { .. } => Finding::error(
            what,
            "another program's file stands in its place, or its first pages are damaged",
        )
        .then(salvage),
        Error::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => {
            Finding::error(what, "it is a file, and not a data directory")
                .then(crate::directory::OF_THE_FILE)
        }
        Error::Io { .. } => Finding::error(what, "the system does not let it be read")
            .then("see to its owner and its mode, or run this as its owner"),
        _ => Finding::error(what, "what leads to its events is damaged").then(salvage),
    })
}

fn damage(facts: &Facts) -> Option<Finding> {
    let error = facts.damage.as_ref()?;
    let what = error.to_string();
    Some(match error {
        Error::CorruptFrame { .. } => Finding::warning(
            what,
            "what agents sent cannot be looked at there; all events are whole, and do not need it",
        )
        .then("recount retain --frames-older-than 0s    lets go of the frames"),
        Error::Corrupt { what: index, .. } if index.contains("the index") => {
            Finding::error(what, "all events are whole; what helps to find them is not")
                .then("recount rebuild    makes it anew")
        }
        Error::Corrupt { position, .. } => Finding::error(
            what,
            match position.0 {
                0 | 1 => "it cannot be read from its beginning on; much of it may still be there".to_owned(),
                _ => format!(
                    "what was recorded before position {position} can be read; what follows may not be what was recorded"
                ),
            },
        )
        .then(format!(
            "recount salvage {} --into NEW-DIR    takes out what can still be proven",
            facts.directory.display()
        )),
        _ => Finding::error(what, "whether it is whole is not known")
            .then("recount verify    tries again"),
    })
}

fn room(facts: &Facts) -> Option<Finding> {
    let room = facts.room?;
    let what = format!("its disk has {} left", text::bytes(room));
    if room < ROOM_NEEDED {
        let means =
            "the next write may fail; what was acknowledged is safe then, and no more is taken";
        return Some(
            Finding::error(what, means)
                .then("make room; recount retain --older-than 30d --compact helps"),
        );
    }
    (room < ROOM_WANTED).then(|| {
        Finding::warning(what, "it may be full soon")
            .then("make room; recount retain --older-than 30d --compact helps")
    })
}

fn policy(facts: &Facts) -> Option<Finding> {
    let what = facts.policy.as_ref()?;
    let means = "no engine starts with it";
    Some(
        Finding::error(what.clone(), means)
            .then("recount policy check FILE    says what is allowed"),
    )
}

fn modes(facts: &Facts) -> Option<Finding> {
    let directory = facts.directory.display();
    let open = &facts.open_to_others;
    let files = open.iter().filter(|(path, _)| *path != facts.directory);
    let files = text::count(files.count() as u64, "file");
    let what = match &open[..] {
        [] => return None,
        [(path, mode)] => format!("{} has mode {mode:04o}", path.display()),
        [(path, _), ..] if *path == facts.directory => {
            format!("{directory} and {files} in it are open to others")
        }
        _ => format!("{files} in {directory} are open to others"),
    };
    let means = "others than its owner can read what was said, or passwords of servers";
    let close = match &open[..] {
        [(path, _)] => format!("chmod go= {}", path.display()),
        _ => format!("chmod -R go= {directory}"),
    };
    Some(Finding::warning(what, means).then(close))
}

fn writing(facts: &Facts) -> Option<Finding> {
    if let Some(writer) = facts.writer {
        let pid = writer
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let what = format!("another process{pid} writes the log");
        let means = "it can be looked at meanwhile; whatever changes it has to wait for that process to end";
        return Some(Finding::note(what, means));
    }
    (facts.journal && facts.log.is_none()).then(|| {
        let means = "nothing is lost: what its journal holds is read, and settles when the log is next opened to be written";
        Finding::note("the last process that wrote the log was killed", means)
    })
}

fn servers(facts: &Facts) -> Vec<Finding> {
    // Whoever writes sees to its servers itself.
    if facts.writer.is_some() {
        return Vec::new();
    }
    let recover = "recount recover    uses it again, or stops it";
    let mut found: Vec<Finding> = facts
        .servers
        .iter()
        .map(|(connection, pid)| {
            let server = format!("the server of connection {connection}");
            if let Some(pid) = pid {
                let means = "an engine started it and died before it could stop it";
                return Finding::warning(format!("{server} still runs (pid {pid})"), means)
                    .then(recover);
            }
            let means = "nobody has recorded that yet";
            Finding::note(format!("{server} is gone"), means).then("recount recover    does")
        })
        .collect();
    if facts.left_over > 0 {
        let what = format!(
            "files of {} are left over",
            text::count(facts.left_over, "server")
        );
        let means = "their passwords are of no use any more";
        found.push(Finding::note(what, means).then("recount recover    clears them away"));
    }
    found
}

fn open(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let at_work = facts.open - facts.waiting;
    if at_work > 0 && facts.writer.is_none() {
        let messages = text::count(at_work, "message");
        let (are, them) = match at_work {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        let what = format!("{messages} {are} open, and nobody works on {them}");
        let means = "the engine ended before that; nothing happens by itself";
        let carries = format!("recount recover    carries {them} to the end");
        found.push(Finding::warning(what, means).then(carries));
    }
    if facts.waiting > 0 {
        let wait = if facts.waiting == 1 { "waits" } else { "wait" };
        let what = format!("{} {wait} for you", text::count(facts.waiting, "message"));
        let means = "only a person can say how it goes on";
        found.push(Finding::warning(what, means).then(
            "recount resolve latest    shows the newest, and takes your word on it\n\
             recount recover           lists all of them",
        ));
    }
    if facts.dead_letters > 0 {
        let messages = text::count(facts.dead_letters, "message");
        let (was, lists) = match facts.dead_letters {
            1 => ("was", "recount dead-letters    shows it"),
            _ => ("were", "recount dead-letters    lists them"),
        };
        let means = "nothing is lost, and nothing happens by itself";
        found.push(Finding::note(format!("{messages} {was} given up"), means).then(lists));
    }
    found
}

/// So many events are folded in no time.
const FOLDED_AT_ONCE: u64 = 100_000;

fn derived(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if facts.events.0 > FOLDED_AT_ONCE && !facts.snapshot && facts.log.is_none() {
        let means = "the next start takes longer, and makes it";
        let what = "there is no snapshot of what is open";
        found.push(Finding::note(what, means).then("recount rebuild    makes it now"));
    }
    if !facts.unfinished.is_empty() && facts.writer.is_none() {
        let what = format!("{} was never finished", facts.unfinished.join(", "));
        let means = "a process was killed while it made a log; it is cleared away when the log is next opened to be written";
        found.push(Finding::note(what, means));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;

    fn well() -> Facts {
        Facts {
            directory: "/data".into(),
            presence: Presence::There,
            open_to_others: Vec::new(),
            log: None,
            writer: None,
            journal: false,
            damage: None,
            events: Position(7),
            snapshot: false,
            room: Some(1 << 40),
            policy: None,
            unfinished: Vec::new(),
            servers: Vec::new(),
            left_over: 0,
            open: 0,
            waiting: 0,
            dead_letters: 0,
        }
    }

    fn check(change: impl FnOnce(&mut Facts), expected: &Expect) {
        let mut facts = well();
        change(&mut facts);
        let told: Vec<String> = findings(&facts)
            .iter()
            .map(|found| {
                let next = found.next.as_deref().unwrap_or("-");
                format!(
                    "{:?}: {}\n  {}\n  {next}\n",
                    found.severity, found.what, found.means
                )
            })
            .collect();
        expected.assert_eq(&told.concat());
    }

    #[test]
    fn of_what_is_well_nothing_is_said() {
        assert_eq!(findings(&well()), []);
    }

    #[test]
    fn the_worst_comes_first() {
        check(
            |facts| {
                facts.journal = true;
                facts.open = 3;
                facts.waiting = 1;
                facts.dead_letters = 2;
                facts.room = Some(5 << 20);
                facts.policy = Some("session.runs_max: 0 is not allowed".to_owned());
                facts.open_to_others =
                    vec![("/data".into(), 0o755), ("/data/log.redb".into(), 0o644)];
                facts.servers = vec![
                    (ConnectionId::from_bytes([1; 10]), Some(4711)),
                    (ConnectionId::from_bytes([2; 10]), None),
                ];
                facts.left_over = 1;
                facts.unfinished = vec!["log.redb.new-17-0".to_owned()];
            },
            &expect![[r#"
                Error: its disk has 5.2 MB left
                  the next write may fail; what was acknowledged is safe then, and no more is taken
                  make room; recount retain --older-than 30d --compact helps
                Error: session.runs_max: 0 is not allowed
                  no engine starts with it
                  recount policy check FILE    says what is allowed
                Warning: /data and 1 file in it are open to others
                  others than its owner can read what was said, or passwords of servers
                  chmod -R go= /data
                Warning: the server of connection 040g2081040g2081 still runs (pid 4711)
                  an engine started it and died before it could stop it
                  recount recover    uses it again, or stops it
                Warning: 2 messages are open, and nobody works on them
                  the engine ended before that; nothing happens by itself
                  recount recover    carries them to the end
                Warning: 1 message waits for you
                  only a person can say how it goes on
                  recount resolve latest    shows the newest, and takes your word on it
                recount recover           lists all of them
                Note: the last process that wrote the log was killed
                  nothing is lost: what its journal holds is read, and settles when the log is next opened to be written
                  -
                Note: the server of connection 081040g2081040g2 is gone
                  nobody has recorded that yet
                  recount recover    does
                Note: files of 1 server are left over
                  their passwords are of no use any more
                  recount recover    clears them away
                Note: 2 messages were given up
                  nothing is lost, and nothing happens by itself
                  recount dead-letters    lists them
                Note: log.redb.new-17-0 was never finished
                  a process was killed while it made a log; it is cleared away when the log is next opened to be written
                  -
            "#]],
        );
    }

    #[test]
    fn one_of_a_kind_is_told_of_as_one() {
        check(
            |facts| {
                (facts.open, facts.dead_letters) = (1, 1);
                facts.open_to_others = vec![("/data/log.redb".into(), 0o644)];
            },
            &expect![[r#"
                Warning: /data/log.redb has mode 0644
                  others than its owner can read what was said, or passwords of servers
                  chmod go= /data/log.redb
                Warning: 1 message is open, and nobody works on it
                  the engine ended before that; nothing happens by itself
                  recount recover    carries it to the end
                Note: 1 message was given up
                  nothing is lost, and nothing happens by itself
                  recount dead-letters    shows it
            "#]],
        );
    }

    #[test]
    fn what_a_writer_sees_to_is_not_told_of() {
        check(
            |facts| {
                facts.writer = Some(Holder { pid: Some(4711) });
                facts.journal = true;
                facts.open = 3;
                facts.waiting = 1;
                facts.servers = vec![(ConnectionId::from_bytes([1; 10]), Some(4712))];
                facts.left_over = 1;
                facts.room = Some(100 << 20);
                facts.events = Position(FOLDED_AT_ONCE + 1);
            },
            &expect![[r#"
                Warning: its disk has 104.8 MB left
                  it may be full soon
                  make room; recount retain --older-than 30d --compact helps
                Warning: 1 message waits for you
                  only a person can say how it goes on
                  recount resolve latest    shows the newest, and takes your word on it
                recount recover           lists all of them
                Note: another process (pid 4711) writes the log
                  it can be looked at meanwhile; whatever changes it has to wait for that process to end
                  -
                Note: there is no snapshot of what is open
                  the next start takes longer, and makes it
                  recount rebuild    makes it now
            "#]],
        );
    }

    #[test]
    fn what_is_damaged_is_told_with_what_can_still_be_had() {
        let position = Position(17);
        let corrupt = |what: &str| Error::Corrupt {
            position,
            what: what.to_owned(),
        };
        let path = PathBuf::from("/data/log.redb");
        let damages = [
            corrupt("its hash does not follow"),
            corrupt("the index does not agree with the blocks of its stream"),
            Error::CorruptFrame {
                number: recount_store::FrameNumber(3),
                what: "it is missing".to_owned(),
            },
        ];
        let refusals = [
            Error::NotALog {
                path: path.clone(),
                reason: "it is empty".to_owned(),
            },
            Error::NewerLog {
                path: path.clone(),
                found: 9,
                known: 1,
            },
            Error::Io {
                action: "open",
                path,
                source: Arc::new(std::io::ErrorKind::PermissionDenied.into()),
            },
            Error::Read {
                reason: "it panicked".to_owned(),
            },
        ];
        let mut told = String::new();
        for damage in damages {
            let facts = Facts {
                damage: Some(damage),
                ..well()
            };
            let _ = writeln!(told, "{:#?}", findings(&facts));
        }
        for refusal in refusals {
            let facts = Facts {
                log: Some(refusal),
                ..well()
            };
            let _ = writeln!(told, "{:#?}", findings(&facts));
        }
        expect![[r#"
            [
                Finding {
                    severity: Error,
                    what: "the log is damaged at position 17: its hash does not follow",
                    means: "what was recorded before position 17 can be read; what follows may not be what was recorded",
                    next: Some(
                        "recount salvage /data --into NEW-DIR    takes out what can still be proven",
                    ),
                },
            ]
            [
                Finding {
                    severity: Error,
                    what: "the log is damaged at position 17: the index does not agree with the blocks of its stream",
                    means: "all events are whole; what helps to find them is not",
                    next: Some(
                        "recount rebuild    makes it anew",
                    ),
                },
            ]
            [
                Finding {
                    severity: Warning,
                    what: "the frames as received are damaged at number 3: it is missing",
                    means: "what agents sent cannot be looked at there; all events are whole, and do not need it",
                    next: Some(
                        "recount retain --frames-older-than 0s    lets go of the frames",
                    ),
                },
            ]
            [
                Finding {
                    severity: Error,
                    what: "/data/log.redb is not a log of recount (it is empty); it was left as it is: move it away, or name another data directory",
                    means: "another program's file stands in its place, or its first pages are damaged",
                    next: Some(
                        "recount salvage /data --into NEW-DIR    takes out what can still be proven",
                    ),
                },
            ]
            [
                Finding {
                    severity: Error,
                    what: "/data/log.redb has format 9, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one",
                    means: "nothing is wrong with it",
                    next: Some(
                        "recount --version    says which release this is",
                    ),
                },
            ]
            [
                Finding {
                    severity: Error,
                    what: "cannot open /data/log.redb: permission denied",
                    means: "the system does not let it be read",
                    next: Some(
                        "see to its owner and its mode, or run this as its owner",
                    ),
                },
            ]
            [
                Finding {
                    severity: Error,
                    what: "cannot read the log: it panicked",
                    means: "what leads to its events is damaged",
                    next: Some(
                        "recount salvage /data --into NEW-DIR    takes out what can still be proven",
                    ),
                },
            ]
        "#]].assert_eq(&told);
    }
}
