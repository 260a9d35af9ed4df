//! The arguments of the verbs that tell a computer about this command: `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print what a shell has to run so that it completes this command
///
/// Verbs, flags and their values; and what the log has to name: sessions, connections, messages that were given up or
/// that wait. The shell asks this command at each Tab, so what it was told is never out of date.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount completions bash > ~/.local/share/bash-completion/completions/recount
  recount completions zsh  > ~/.zfunc/_recount                    with ~/.zfunc in fpath
  recount completions fish > ~/.config/fish/completions/recount.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Print the manual page, or write those of all verbs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount man | man -l -
  recount man --out ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for the command and one for each verb into this directory; it is made where it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
