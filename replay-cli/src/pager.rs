//! A program that shows a long answer a screen at a time, as git has one.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// What shows long answers where nobody named anything else: nothing is shown by it that fits on a screen, colours
/// stay, and the answer stays on the terminal.
const LESS: [&str; 2] = ["less", "-FRX"];

/// Standard output, through a pager once there is something to show. Dropping it waits until the person has read.
pub(crate) struct Pager {
    named: Option<String>,
    stands: Stands,
}

enum Stands {
    /// Nothing was written yet, so that a verb that fails shows its error alone.
    Waiting,
    Running(Child),
    /// There is no pager.
    Plain,
}

impl Pager {
    /// The pager that this person wants, by `RECOUNT_PAGER`, `PAGER`, or else less; none where one of them is empty
    /// or `cat`, or where the terminal cannot show one.
    pub(crate) fn wanted() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let named = variable("RECOUNT_PAGER").or_else(|| variable("PAGER"));
        let terminal = variable("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
        let unwanted = |name: &String| ["", "cat"].contains(&name.trim());
        (terminal && !named.as_ref().is_some_and(unwanted)).then_some(Self {
            named,
            stands: Stands::Waiting,
        })
    }

    fn start(&self) -> Stands {
        let mut command = match &self.named {
            Some(named) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", named]);
                shell
            }
            None => {
                let mut less = Command::new(LESS[0]);
                less.args(&LESS[1..]);
                less
            }
        };
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", LESS[1].trim_start_matches('-'));
        }
        match command.stdin(Stdio::piped()).spawn() {
            Ok(child) => {
                leave_interrupts_to_it();
                Stands::Running(child)
            }
            Err(_) => Stands::Plain,
        }
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if matches!(self.stands, Stands::Waiting) {
            self.stands = self.start();
        }
        match &mut self.stands {
            Stands::Running(Child {
                stdin: Some(stdin), ..
            }) => stdin.write(bytes),
            _ => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stands {
            Stands::Running(Child {
                stdin: Some(stdin), ..
            }) => stdin.flush(),
            Stands::Waiting => Ok(()),
            _ => io::stdout().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        if let Stands::Running(child) = &mut self.stands {
            // It learns that nothing more comes; how it ends is its own affair.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// From now on Ctrl-C is the pager's, which stops what it does by it: this process ends when the pager has.
fn leave_interrupts_to_it() {
    #[cfg(unix)]
    {
        // A thread of its own, since this may be called inside a runtime. What it sets stays set when it is gone.
        let set = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build()?;
            let _entered = runtime.enter();
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map(drop)
        };
        // Where it cannot be set, Ctrl-C ends both.
        let _ = std::thread::spawn(set).join();
    }
}
