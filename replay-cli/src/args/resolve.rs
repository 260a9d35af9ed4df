//! The arguments of `recount resolve`.

use clap::{Args, ValueEnum};

/// Say what becomes of a message that waits for a person
///
/// Two things only a person can decide: what to do with a message of which the agent cannot say whether it arrived,
/// and whether a turn that the agent died in is run again though a tool had begun. First this shows what is known
/// about it: what the tools were that had begun, and what they gave. Without a WORD it shows that and changes nothing.
///
/// The word is recorded as a person's, with the reason if there is one. Nothing is sent by this: `recount recover`
/// carries on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount resolve latest                         what waits, and for which word
  recount resolve 7kq3 arrived --because \"it is in the agent's own list\"
  recount resolve 7kq3 rerun && recount recover

With --json one object: waits (what is known), word and because (null where nothing was changed).
Exit codes: 0 recorded, or shown; 1 not, for example since it waits for nobody; 2 wrong use.")]
pub(crate) struct Resolve {
    /// The message: its id, the beginning of it, or `latest`, the one that waits since last
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,

    /// What is said
    #[arg(value_enum, value_name = "WORD")]
    pub(crate) word: Option<Word>,

    /// Why, to be recorded with it
    #[arg(long, value_name = "TEXT", requires = "word", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) because: Option<String>,
}

/// A person's word on a message that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// The agent has it: its answer is waited for
    Arrived,
    /// The agent does not have it, or may have it twice: it is sent again
    Resend,
    /// It is given up; the agent may have it all the same
    DeadLetter,
    /// The turn is run again; a tool may do its work twice
    Rerun,
    /// The turn is given up: it has failed
    GiveUp,
}

impl Word {
    /// As it is typed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Resend => "resend",
            Self::DeadLetter => "dead-letter",
            Self::Rerun => "rerun",
            Self::GiveUp => "give-up",
        }
    }
}
