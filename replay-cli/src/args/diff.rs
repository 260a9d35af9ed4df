//! What `recount diff` can be asked for.

use clap::Args;

use super::Session;

/// Compare a session with itself at another moment, or with another session
///
/// With two moments: what `recount show` would show otherwise, and which events happened between. With another session:
/// the events of both with those of their connections, laid beside each other by what they followed from, and not by
/// number; the first that differ are named. When something happened is no difference, nor are ids, ports and process
/// numbers, nor into how many pieces a text was cut. Of two sessions one of which was forked from the other, what came after
/// that is compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount diff latest 12 40
  recount diff 7kq3 2026-11-22T09:14:03Z 2026-11-22T09:15:00Z
  recount diff 7kq3 9wm2                   two sessions that were asked the same

With --json two moments are one object: `from`, `to`, `changes` with `path`, `before` and `after`, and `events` by type. \
Two sessions are a line for each difference, the first one first: `difference` is only_first, only_second or \
content, `first` and `second` are the events; then a line with the counts, and `forked_at` where one was forked. Alike is what has no difference.")]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) session: Session,

    /// A moment of it: after event N, or at a TIME (RFC 3339, `2026-11-22 09:14` or `09:14`); without B, another session
    #[arg(value_name = "A|ID")]
    pub(crate) a: String,

    /// A later moment of it
    #[arg(value_name = "B")]
    pub(crate) b: Option<String>,
}
