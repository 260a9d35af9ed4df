//! What can be asked for on the command line. The doc comments here are the help.

mod bisect;
mod bundle;
mod dead_letters;
mod diff;
mod doctor;
mod export;
mod find;
mod fork;
mod import;
mod incidents;
mod reference;
mod requeue;
mod resolve;
mod salvage;
mod step;
mod whatif;
mod why;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recount_store::{Seq, Timestamp};

pub(crate) use self::dead_letters::DeadLetters;
pub(crate) use self::doctor::Doctor;
pub(crate) use self::requeue::Requeue;
pub(crate) use self::resolve::{Resolve, Word};
pub(crate) use self::salvage::Salvage;
use crate::render::time;
use crate::{command, output};

pub(crate) use bisect::Bisect;
pub(crate) use bundle::Bundle;
pub(crate) use diff::Diff;
pub(crate) use export::{Export, Format};
pub(crate) use find::Find;
pub(crate) use fork::Fork;
pub(crate) use import::Import;
pub(crate) use incidents::Incidents;
pub(crate) use reference::{Completions, Man};
pub(crate) use step::Step;
pub(crate) use whatif::WhatIf;
pub(crate) use why::{Which, Why};

/// Runs agent sessions through a log, and looks back at them.
///
/// Everything that happens between you and a coding agent is kept as one event each in a log that only
/// grows: messages, attempts, retries, each piece of an answer, each fall of a connection. So a session
/// can be killed anywhere and carried on, and seen as it was at any moment.
#[derive(Debug, Parser)]
#[command(name = "recount", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The directory of the log [default: the platform's data folder]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "RECOUNT_DATA",
        hide_env_values = true,
        help_heading = EVERYWHERE
    )]
    pub(crate) data: Option<PathBuf>,

    /// Print JSON: one object, or one object a line
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,

    /// Tell times in UTC, and read those that name no zone so; not in the local zone (which is that of `TZ`)
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) utc: bool,

    /// Print long answers at once, without a pager (see also `RECOUNT_PAGER`, `PAGER`)
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) no_pager: bool,

    /// Say on standard error what goes on inside; twice says more (see also `RECOUNT_LOG`)
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = EVERYWHERE)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Above the options that every verb takes.
const EVERYWHERE: &str = "Options of every verb";

const EXAMPLES: &str = "\
Examples:
  recount demo                          see all of it at work, with nothing installed
  recount run \"explain this project\"    ask OpenCode, in this folder
  recount sessions                      what there is
  recount show latest                   how the newest session stands
  recount step latest                   go through it event by event, on a whole screen
  recount log latest --follow           what happens in it, as it happens
  recount find --error                  what went wrong, in all sessions
  recount why latest last               why the last thing happened
  recount fork latest --at 40           try again from there, in a new session
  recount recover                       carry on after a crash
  recount retain --older-than 90d       let go of what is old
  recount verify                        prove that the log is whole
  recount policy > recount.toml         every bound and choice, to be changed
  recount whatif latest --policy FILE   what would have been decided under others

Exit codes: 0 done; 1 failed; 2 wrong use; 130 ended by Ctrl-C.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Demo(Demo),
    Run(Run),
    Recover(Recover),
    DeadLetters(DeadLetters),
    Requeue(Requeue),
    Resolve(Resolve),
    Fork(Fork),
    Sessions(Sessions),
    Show(Show),
    Step(Step),
    Log(Log),
    Find(Find),
    Bisect(Bisect),
    Why(Why),
    Diff(Diff),
    Frames(Frames),
    Replay(Replay),
    Incidents(Incidents),
    Verify(Verify),
    Export(Export),
    Import(Import),
    Bundle(Bundle),
    Close(Close),
    Cut(Cut),
    Retain(Retain),
    Compact(Compact),
    Rebuild(Rebuild),
    Doctor(Doctor),
    Salvage(Salvage),
    Sign(Sign),
    Key(Key),
    Policy(PolicyOf),
    #[command(name = "whatif")]
    WhatIf(WhatIf),
    Completions(Completions),
    Man(Man),
}

impl Verb {
    /// Whether its answer is to be read and may be long: on a terminal a pager shows it.
    pub(crate) const fn is_paged(&self) -> bool {
        matches!(
            self,
            Self::Sessions(_)
                | Self::Show(_)
                | Self::Frames(_)
                | Self::Incidents(_)
                | Self::Policy(_)
                | Self::WhatIf(_)
                | Self::Find(_)
                | Self::Bisect(_)
                | Self::Why(_)
                | Self::Diff(_)
                | Self::Log(Log { follow: false, .. })
                | Self::Replay(Replay { wire: true, .. })
        )
    }
}

/// See a session fall and recover, with an agent that is built in
///
/// A scripted agent answers on loopback, and its server dies in the middle of the answer. You see the
/// answer come in, the connection fall and come back, the answer completed once, and the timeline of
/// it all. Takes a few seconds, needs nothing installed and no network. Without --data it uses a
/// fresh temporary directory, keeps it, and says where it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  recount demo")]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) keeping: Keeping,
}

/// Send a message to an agent and stream its answer
///
/// The message is in the log before anything else happens. If this command is killed, `recount
/// recover` carries on. The answer goes to standard output, all else to standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount run \"explain this project\"
  recount run --session latest \"now in one sentence\"
  recount run --permission reject - < question.txt
  recount run --url http://127.0.0.1:4096 \"hello\"     a server that runs already
  recount run --key build-17 \"why did it fail?\"       safe to repeat: asked once
  recount run --agent scripted \"script: words=40 delay=100ms die-once\"

With --json the events of the session go to standard output, as `recount log` prints them; with
--session, those from this message on.

The password of a server goes into OPENCODE_SERVER_PASSWORD.
Exit codes: 0 answered; 1 failed, aborted or given up; 2 wrong use; 130 ended by Ctrl-C.")]
pub(crate) struct Run {
    /// Which agent [default: opencode]
    #[arg(long, value_enum, value_name = "AGENT")]
    pub(crate) agent: Option<Agent>,

    /// A server that runs already; it is used and never stopped
    #[arg(long, value_name = "URL", conflicts_with = "agent_bin")]
    pub(crate) url: Option<String>,

    /// The agent's program [default: its name, on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) agent_bin: Option<PathBuf>,

    /// The folder that the agent works in [default: this one]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// The model [default: the agent's own choice]
    #[arg(long, value_name = "PROVIDER/MODEL", value_parser = model)]
    pub(crate) model: Option<String>,

    /// Go on in this session: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// Send once: the same key and message again give the recorded answer
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) key: Option<String>,

    #[command(flatten)]
    pub(crate) policy: Policy,

    #[command(flatten)]
    pub(crate) keeping: Keeping,

    /// How long the agent may say nothing before its turn is ended, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) silence: Option<u64>,

    /// What to say; `-` reads it from standard input
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,
}

/// Carry on after a crash, until nothing is open
///
/// Each message whose outcome is unknown is looked up at its agent, each turn that was cut off is read
/// in or run again, servers that were left running are found and used or stopped. Running it again
/// finds nothing new. What policy leaves to you is listed, with the command that settles it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount recover
  recount recover --rerun auto          also run again what had begun to use tools
  recount recover --rerun never         give up what was cut off
  recount recover --unknown resend      send again what may have been lost

Exit codes: 0 nothing is open (what waits for you does not count); 1 otherwise.")]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) policy: Policy,

    #[command(flatten)]
    pub(crate) keeping: Keeping,
}

/// What is kept beside the events.
#[derive(Debug, Args)]
pub(crate) struct Keeping {
    /// Keep no frames as they are received, only how many came (also: `RECOUNT_FRAMES=0`)
    ///
    /// Frames are what `recount frames` lists: they take about as much room as the events, and hold all that the
    /// agent says.
    #[arg(long)]
    no_frames: bool,

    /// For the environment: a flag says the opposite.
    #[arg(
        long = "frames",
        hide = true,
        env = "RECOUNT_FRAMES",
        action = clap::ArgAction::Set,
        value_parser = clap::builder::BoolishValueParser::new(),
        default_value_t = true
    )]
    frames: bool,
}

impl Keeping {
    /// Whether frames are kept.
    pub(crate) const fn frames(&self) -> bool {
        self.frames && !self.no_frames
    }
}

/// What is decided without asking.
#[derive(Debug, Default, Args)]
pub(crate) struct Policy {
    /// What to answer when the agent asks for permission; its questions in words are for a person, or rejected [default: ask]
    #[arg(long, value_enum, value_name = "ANSWER")]
    pub(crate) permission: Option<Permission>,

    /// Whether a turn that the agent died in is run again; `ask` does so unless a tool had begun [default: ask]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) rerun: Option<Rerun>,

    /// What to do with a message of which the agent cannot say whether it arrived [default: ask]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) unknown: Option<Unknown>,

    #[command(flatten)]
    pub(crate) file: PolicyFile,
}

/// Where bounds and choices are read.
#[derive(Debug, Default, Args)]
pub(crate) struct PolicyFile {
    /// Bounds and choices, in TOML [default: recount.toml in the data directory, if it is there]
    #[arg(
        long = "policy",
        value_name = "FILE",
        env = "RECOUNT_POLICY",
        hide_env_values = true
    )]
    pub(crate) path: Option<PathBuf>,
}

/// List the sessions, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount sessions
  recount sessions --json | jq -r 'select(.status == \"busy\").session'")]
pub(crate) struct Sessions {}

/// Show how a session stands, or stood
///
/// Queue, attempts, turns with their text, connection and breaker, folded from the log up to the end
/// or up to a moment: exactly what the engine believed then. Of a long session, the last twenty messages
/// are shown; --json leaves nothing out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount show latest
  recount show 7kq3 --at 12                      just after event 12, as `recount log` numbers them
  recount show 7kq3 --at 2026-11-22T09:14:03Z
  recount show 7kq3 --json --last 1 | jq -r '.turns[].text'    the last answer")]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) session: Session,

    /// As of event N of the session, or as of a TIME (RFC 3339, `2026-11-22 09:14` or `09:14`)
    #[arg(long, value_name = "N|TIME")]
    pub(crate) at: Option<At>,

    /// All messages, however many, as with --json
    #[arg(long)]
    pub(crate) all: bool,

    /// The last N messages, and the turns of these
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub(crate) last: Option<usize>,
}

/// Print the events of a session, with those of its connection between them
///
/// One line each: time, number, type, and what it says. Numbers with a ~ count in the connection's
/// stream, the others in the session's.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount log latest
  recount log latest --reverse --limit 20        the last 20, newest first
  recount log 7kq3 --since 2026-11-22T09:00:00Z --until 2026-11-22T10:00:00Z
  recount log latest --follow                    also while another process runs it
  recount log latest --frames                    what each was made from
  recount log 7kq3 --json | jq -c 'select(.class == \"decided\") | [.seq, .type]'")]
pub(crate) struct Log {
    #[command(flatten)]
    pub(crate) session: Session,

    /// Go on with what comes, until the session is closed or Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Newest first
    #[arg(long, conflicts_with = "follow")]
    pub(crate) reverse: bool,

    /// No more than so many events
    #[arg(long, value_name = "N", conflicts_with = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,

    /// Only events of this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) and later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,

    /// Only events of this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) and earlier
    #[arg(long, value_name = "TIME", conflicts_with = "follow", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,

    /// Under each event that an agent told of, the frame in which it did, as it was received
    ///
    /// Of an answer's text, which is gathered from many frames, it is the last of them. With --json the frame is
    /// in `received`, whole; on a terminal it is cut to a line. See `recount frames` for all of them.
    #[arg(long)]
    pub(crate) frames: bool,
}

/// List what agents sent, frame by frame, as it was received
///
/// A frame is one item of an agent's stream: the data of a server-sent event, byte for byte. Frames are kept beside
/// the events that were made from them, so that what was made can be held against what came: `recount log ID
/// --frames` shows both. Here is everything, in the order of arrival: the frames of all sessions of a
/// connection, and those that nothing was made from. They are numbered over the whole log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount frames --from 120 --limit 10
  recount frames --connection latest
  recount frames --json | jq -r '.received // empty | fromjson | .payload.type' | sort | uniq -c")]
pub(crate) struct Frames {
    /// Only those of this connection: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "ID")]
    pub(crate) connection: Option<String>,

    /// From frame N on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: u64,

    /// No more than so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// Play a session again as it happened, with its pauses
///
/// Pauses of more than five seconds are shortened to five, and said so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount replay latest
  recount replay 7kq3 --speed 4
  recount replay 7kq3 --instant
  recount replay 7kq3 --wire       does this release read the agent's frames as they were read then?

Exit codes: 0 done; with --wire 1 where a frame is read otherwise; 130 ended by Ctrl-C.")]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) session: Session,

    /// How much faster than it happened
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    pub(crate) speed: f64,

    /// Without pauses
    #[arg(long, conflicts_with = "speed")]
    pub(crate) instant: bool,

    /// Translate the frames again that were kept, and hold what they say against what was recorded from them
    ///
    /// Only what was seen live comes from frames. A text is gathered from many of them, so what they add up to is
    /// compared. What is missing today, what is extra and what is other is named, each with its frame.
    #[arg(long, conflicts_with_all = ["speed", "instant"])]
    pub(crate) wire: bool,
}

/// Prove that the log is whole
///
/// Numbers without gaps, each event readable, the chain of hashes unbroken; of everything, or of one
/// session and its connection. Names the first bad place. What no log can show by itself is that its end
/// was cut off, or that all of it was written again: `--signed` holds it against a head that was signed and
/// kept elsewhere. Needs no network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount verify
  recount verify latest
  recount verify --signed head.json --public-key recount.pub    what `recount sign` printed
  recount verify --decisions

With --json a log that is not proven has a \"reason\": corrupt (not whole), short (events are missing at
the end), differs (other events than were signed), cut_off (what was signed was taken out by retention),
bad_signature, other_key, newer_format; decisions (one is not what today's rules decide).
Exit codes: 0 whole, and as signed, and as decided; 1 not; 2 wrong use.")]
pub(crate) struct Verify {
    /// Only this session and its connection: its id, the beginning of it, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) session: Option<String>,

    /// Prove, too, that this is the log that was signed: a file that `recount sign` made
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    pub(crate) signed: Option<PathBuf>,

    /// The key that must have signed: 64 hexadecimal digits, or a file of them or of PEM
    #[arg(long, value_name = "KEY|FILE", requires = "signed")]
    pub(crate) public_key: Option<String>,

    /// Derive, too, each decision again from what was observed, by the rules of this release, and name the first
    /// that would be another
    #[arg(long, conflicts_with = "signed")]
    pub(crate) decisions: bool,
}

/// Sign where the log stands, to prove later that it was not changed
///
/// First it proves that the log is whole, as `recount verify` does. Then it prints one line of JSON: the
/// position of the last event, the hash over everything up to it, the time, and an ed25519 signature. Keep that
/// where nobody who can change the log can change it, too. The log is only read; another process may be
/// writing it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount key new recount.pem > recount.pub                     once
  recount sign --key recount.pem --out head-17.json             now and then
  recount verify --signed head-17.json --public-key recount.pub

Exit codes: 0 signed; 1 not, for example since the log is not whole; 2 wrong use.")]
pub(crate) struct Sign {
    /// The private key: ed25519, PEM (PKCS#8), readable by nobody else
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,

    /// Write it to this new file, not to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Make a key to sign with
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    New(NewKey),
}

/// Make a pair of keys: the private one into a file, the public one printed
///
/// The file is PEM (PKCS#8), as OpenSSL makes and reads it, and its owner's alone (mode 600). One that is there
/// is never overwritten. Give the public key to whoever is to verify.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount key new recount.pem > recount.pub
  openssl genpkey -algorithm ed25519 -out recount.pem           makes one as good
  openssl pkey -in recount.pem -pubout                          shows the public key again")]
pub(crate) struct NewKey {
    /// The file to make
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Print the policy in force: every bound and choice, as TOML
///
/// That is what `recount run` and `recount recover` would do, but for their own flags: the defaults, over them the
/// policy file, over that the environment. Each key has a variable: `session.runs_max` is
/// `RECOUNT_POLICY_SESSION_RUNS_MAX`. What each key is for stands in the recount.toml of the project.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  recount policy
  recount policy --policy strict.toml --json | jq .session.turn_max
  RECOUNT_POLICY_SESSION_RERUN=never recount policy
  recount policy check strict.toml

Exit codes: 0 it can work; 1 not, and why; 2 wrong use."
)]
pub(crate) struct PolicyOf {
    #[command(flatten)]
    pub(crate) file: PolicyFile,

    #[command(subcommand)]
    pub(crate) verb: Option<PolicyVerb>,
}

/// What else to do with a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Say whether a policy file can work, or which key cannot and what is allowed
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Close a session: it is looked at from then on, and nothing is said in it any more
///
/// What is open in it has to be settled before. Only a closed session can be cut.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount close latest
  recount close 7kq3 && recount cut 7kq3 --all

Exit codes: 0 closed now; 1 not, for example since it was closed already.")]
pub(crate) struct Close {
    #[command(flatten)]
    pub(crate) session: Session,
}

/// Cut off the front of a closed session's history
///
/// The events before the one that is named are gone for every reader at once, for good; one event that says so
/// stays in their place, and the rest still proves itself whole. The space comes back with `recount compact`.
///
/// A session that is not closed is refused: the engine decides by what it folds from the first event on, and
/// could not go on without it. A connection is refused for the same reason: its first events say where it leads, and
/// the others what server runs and whether it may be tried. The engine's own stream can be cut up to its last start and policy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount cut 7kq3 --before 100 --dry-run        what would go
  recount cut 7kq3 --before 100                  keep event 100 and what follows
  recount cut 7kq3 --before 2026-11-01T00:00:00Z
  recount cut 7kq3 --all                         all of it
  recount cut engine --before 2026-11-01T00:00:00Z

Exit codes: 0 cut; 1 not, for example since the session is not closed; 2 wrong use.")]
pub(crate) struct Cut {
    /// The session (its id, the beginning of it, or `latest`), or `engine`
    #[arg(value_name = "ID")]
    pub(crate) stream: String,

    /// Up to event N, as `recount log` numbers them, or up to a TIME (RFC 3339, `2026-11-22 09:14` or `09:14`); that event itself stays
    #[arg(long, value_name = "N|TIME", required_unless_present = "all")]
    pub(crate) before: Option<At>,

    /// Everything: only the event that says so remains
    #[arg(long, conflicts_with = "before")]
    pub(crate) all: bool,

    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Cut off what is old: closed sessions, the engine's own events, frames
///
/// All of a closed session goes once its last event is so old; one that is not closed is left alone, however old it
/// is. Of the engine's own stream the old events go, up to its last start and policy. Connections are left alone: where
/// they lead, what server runs and whether it may be tried is folded from all of their events, so a cut could
/// change what the engine does next. There are few of them.
///
/// Frames are what agents sent, kept as it was received. Events do not need them; `recount frames` lists them.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).multiple(true).args(["older_than", "frames_older_than"]),
    after_help = "\
Examples:
  recount retain --older-than 30d --dry-run
  recount retain --older-than 90d --frames-older-than 7d --compact
  recount retain --frames-older-than 12h

An AGE is a number and a unit: 90m, 12h, 30d, 8w. Run it when no engine writes the log, once a day maybe.
Exit codes: 0 done, also where nothing was old; 1 failed; 2 wrong use."
)]
pub(crate) struct Retain {
    /// Cut off closed sessions whose last event is older, and the engine's own events
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Age>,

    /// Drop the frames that came before; they are kept by the chunk, so some may stay longer
    #[arg(long, value_name = "AGE")]
    pub(crate) frames_older_than: Option<Age>,

    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Give back the space, too, as `recount compact` does
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) compact: bool,
}

/// Give back the space of what was cut off
///
/// It can be killed at any time, and goes on when it is run again. A process that reads the log meanwhile keeps the file
/// from becoming shorter; the space is then used again by what comes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount compact
  recount compact --json | jq '.bytes_before - .bytes_after'")]
pub(crate) struct Compact {}

/// Make anew what is derived from the events: the index and the snapshots
///
/// Only the events are the log; the rest is there to be quick, and can be made from them at any time. Says
/// whether all streams stand where they stood. It can be killed at any time: what is missing is made when the
/// log is opened again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  recount rebuild && recount verify

Exit codes: 0 made anew, and nothing reads otherwise; 1 failed, or the old index was wrong.")]
pub(crate) struct Rebuild {}

/// Which session.
#[derive(Debug, Args)]
pub(crate) struct Session {
    /// The session: its id, the beginning of it, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Which agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Agent {
    /// OpenCode
    Opencode,
    /// An agent that is built in and answers from a script
    Scripted,
}

impl Agent {
    /// Its name, as sessions record it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Opencode => "opencode",
            Self::Scripted => "scripted",
        }
    }
}

/// What to answer when the agent asks for permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Permission {
    /// Ask on the terminal; where there is none, `run` says no and `recover` leaves it waiting
    #[default]
    Ask,
    /// Yes
    Allow,
    /// No
    Reject,
}

/// Whether a turn that the agent died in is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Rerun {
    /// Run it again; a tool may do its work twice
    Auto,
    /// Run it again unless a tool had begun; then leave it to a person
    #[default]
    Ask,
    /// Give it up
    Never,
}

/// What becomes of a message of which the agent cannot say whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Unknown {
    /// Leave it to a person
    #[default]
    Ask,
    /// Send it again; the agent may then have it twice
    Resend,
    /// Give it up; the agent may have it all the same
    DeadLetter,
}

/// A moment in the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Just after the event with this number.
    Number(Seq),
    /// At this time.
    Time(Timestamp),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return match number {
                0 => Err("events are numbered from 1".to_owned()),
                number => Ok(Self::Number(Seq(number))),
            };
        }
        named(text).map(Self::Time).ok_or_else(|| {
            "neither the number of an event nor a time like 2026-11-22T09:14:03Z, 2026-11-22 or 09:14"
                .to_owned()
        })
    }
}

/// How old something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = || {
            let unit = text.chars().next_back()?;
            let seconds = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                'w' => 7 * 86_400,
                _ => return None,
            };
            let number = text.strip_suffix(unit)?;
            // Numbers with signs are parsed, too.
            let digits = number.bytes().all(|digit| digit.is_ascii_digit());
            let number: u64 = number.parse().ok().filter(|_| digits)?;
            number.checked_mul(seconds)
        };
        seconds()
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| "not an age like 30d, 12h or 90m".to_owned())
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    named(text)
        .or_else(|| ago(text, command::seen_at()))
        .ok_or_else(|| "not a time like 2026-11-22T09:14:03Z, 2026-11-22, 09:14 or 2h".to_owned())
}

/// The moment that is as long before `now` as an age says.
fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let Age(age) = text.parse().ok()?;
    let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    Some(Timestamp(now.0.saturating_sub(micros)))
}

/// A time as people name it, of today where it is one of the day.
fn named(text: &str) -> Option<Timestamp> {
    time::named(text, command::seen_at(), &output::zone())
}

fn model(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => Ok(text.to_owned()),
        _ => Err("a model is named PROVIDER/MODEL, like anthropic/claude-sonnet-4-5".to_owned()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("a speed is a number above 0, like 4 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_moment_may_be_so_long_ago() {
        let now = Timestamp::from_millis(10_000_000);
        assert_eq!(ago("2h", now), Some(Timestamp::from_millis(2_800_000)));
        // Before anything can have happened.
        assert_eq!(ago("1000d", now), Some(Timestamp(0)));
        for text in ["", "2", "yesterday", "-2h", "2 h", "09:14"] {
            assert_eq!(ago(text, now), None, "{text}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_is_a_number_or_a_time() {
        assert_eq!("12".parse(), Ok(At::Number(Seq(12))));
        assert_eq!(
            "1970-01-01T00:00:01.5+00:00".parse(),
            Ok(At::Time(Timestamp(1_500_000)))
        );
        for bad in ["0", "-1", "noon", "2026-11", ""] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        let seconds = |text: &str| text.parse().map(|Age(age)| age.as_secs());
        assert_eq!(seconds("45s"), Ok(45));
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        for bad in [
            "",
            "d",
            "30",
            "+3d",
            "-3d",
            "3 d",
            "3.5d",
            "3y",
            "3ü",
            "99999999999999999d",
        ] {
            assert!(bad.parse::<Age>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["recount", "replay", "latest", "--speed", "0"][..],
            &["recount", "replay", "latest", "--speed", "2", "--instant"],
            &["recount", "run", "--model", "gpt", "hello"],
            &["recount", "run", "--key", "", "hello"],
            &["recount", "run"],
            &["recount", "show"],
            &["recount", "cut", "latest"],
            &["recount", "cut", "latest", "--all", "--before", "3"],
            &["recount", "retain"],
            &["recount", "retain", "--compact"],
            &[
                "recount",
                "retain",
                "--older-than",
                "1d",
                "--dry-run",
                "--compact",
            ],
            &["recount", "log", "latest", "--follow", "--reverse"],
            &["recount", "export"],
            &["recount", "export", "latest", "--all"],
            &["recount", "export", "latest", "--format", "xml"],
            &["recount", "import"],
            &["recount", "bundle", "latest"],
            &["recount", "bundle", "--check", "a", "latest"],
            &[
                "recount", "bundle", "latest", "--signed", "a", "--redact", "(",
            ],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
