//! What the command line asks for.

use std::sync::LazyLock;

use crate::bench::{Bench, Scale};
use crate::{append, idle, latency, look, open, rebuild, recover, size, stream, tail};

/// One thing that is measured.
#[derive(Debug)]
pub struct Workload {
    /// The word for it.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&mut Bench),
}

/// Everything that is measured, in the order in which it is.
pub const WORKLOADS: [Workload; 10] = [
    Workload {
        name: "append",
        about: "durable appends, each appender waits for its own acknowledgement",
        run: append::run,
    },
    Workload {
        name: "rebuild",
        about: "read a session from the file, decode and fold each event",
        run: rebuild::run,
    },
    Workload {
        name: "open",
        about: "open after a kill, until the first append and until the first read",
        run: open::run,
    },
    Workload {
        name: "tail",
        about: "follow a live log, in the same process and from another",
        run: tail::run,
    },
    Workload {
        name: "size",
        about: "bytes on disk for events as they stream",
        run: size::run,
    },
    Workload {
        name: "stream",
        about: "turns at once through the whole engine, beside a bare client",
        run: stream::run,
    },
    Workload {
        name: "latency",
        about: "from a send to the request on the wire, from a delta on the wire to its subscriber",
        run: latency::run,
    },
    Workload {
        name: "idle",
        about: "memory of sessions that nobody uses, and starting over them",
        run: idle::run,
    },
    Workload {
        name: "recover",
        about: "carry what a killed engine left open to its end",
        run: recover::run,
    },
    Workload {
        name: "look",
        about: "verify, find and incidents over a large log, each in a process of its own",
        run: look::run,
    },
];

/// What `--help` prints.
pub static HELP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "Measures the log beside SQLite, fjall and a bare file, and the engine beside a bare client, in the same run.\n\n\
         Usage: cargo bench -p recount-benches [-- [WORKLOAD...] [--quick | --markdown]]\n\n\
         Workloads (all of them, if none is named):\n{}\n\
         Options:\n\
         \x20 --quick     about where things stand, in four minutes; without it, to compare, in half an hour\n\
         \x20 --markdown  measure nothing: print the figures of the last run as the tables of BENCHMARKS.md\n\
         \x20 --help      print this\n\n\
         The table comes on standard output and in target/bench.json, what is being done on standard error.\n\
         A ratio above 1 says that the log is ahead of that subject. Let nothing else run meanwhile.\n",
        known()
    )
});

fn known() -> String {
    let lines = WORKLOADS.map(|Workload { name, about, .. }| format!("  {name:<10}  {about}\n"));
    lines.concat()
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Wish {
    /// To be told how it is used.
    Help,
    /// To print the last figures.
    Markdown,
    /// To measure.
    Measure {
        /// What.
        workloads: Vec<&'static Workload>,
        /// How much of it.
        scale: Scale,
    },
    /// To play a part for a run that started this process; its words.
    Part(Vec<String>),
}

impl Wish {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    ///
    /// A word that means nothing, as a text for whoever wrote it.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut workloads, mut scale) = (Vec::new(), Scale::Full);
        let mut words = words.peekable();
        if words.next_if(|word| word == "part").is_some() {
            return Ok(Self::Part(words.collect()));
        }
        for word in words {
            match word.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--markdown" => return Ok(Self::Markdown),
                "--quick" => scale = Scale::Quick,
                // Cargo adds it.
                "--bench" => {}
                name => match WORKLOADS.iter().find(|workload| workload.name == name) {
                    Some(workload) => workloads.push(workload),
                    None => {
                        return Err(format!(
                            "there is no workload or option `{name}`; the workloads are\n{}and `--help` tells the rest",
                            known()
                        ));
                    }
                },
            }
        }
        if workloads.is_empty() {
            workloads.extend(&WORKLOADS);
        }
        Ok(Self::Measure { workloads, scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Wish, String> {
        Wish::parse(line.split_whitespace().map(str::to_owned))
    }

    fn measured(line: &str) -> (Vec<&'static str>, Scale) {
        match parse(line) {
            Ok(Wish::Measure { workloads, scale }) => {
                let names = workloads.iter().map(|workload| workload.name);
                (names.collect(), scale)
            }
            other => panic!("{line} measures nothing: {other:?}"),
        }
    }

    #[test]
    fn workloads_are_named_or_all() {
        let all = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(measured("--bench"), (all, Scale::Full));
        assert_eq!(
            measured("--quick size append --bench"),
            (vec!["size", "append"], Scale::Quick)
        );
    }

    #[test]
    fn a_word_that_means_nothing_is_answered_with_those_that_do() {
        let mistake = parse("appendix").expect_err("it is no workload");
        assert!(mistake.starts_with("there is no workload or option `appendix`"));
        for workload in &WORKLOADS {
            assert!(mistake.contains(workload.name), "{mistake}");
            assert!(HELP.contains(workload.name));
        }
    }
}
