//! Servers that somebody else runs on the data of one that is to be started.
//!
//! Two servers on the same data each believe a session to be idle while the other works on it. Only Linux tells what
//! runs beside us; elsewhere none is found.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::adapter::AgentAdapter;
use crate::computer::Computer;

/// A server of the same agent on the same data, that none of this engine's connections started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) pid: u32,
    /// Where both keep what they know.
    pub(super) home: String,
}

/// What is known of a process: how it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

impl Started {
    /// What will be started: with our environment, and these entries over it.
    pub(super) fn by_us(program: &str, args: &[String], added: &[(String, String)]) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let ours = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        let command = [program.to_owned()].into_iter().chain(args.to_vec());
        Self {
            command: command.collect(),
            environment: ours.chain(added.to_vec()).collect(),
        }
    }

    /// From the words of a command line and an environment, each ended by a zero byte.
    fn of(command: &[u8], environment: &[u8]) -> Self {
        let words = |bytes: &[u8]| {
            let words = bytes
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty());
            let text = |word| String::from_utf8_lossy(word).into_owned();
            words.map(text).collect::<Vec<_>>()
        };
        let entries = words(environment).into_iter();
        let pair = |entry: String| {
            let (name, value) = entry.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self {
            command: words(command),
            environment: entries.filter_map(pair).collect(),
        }
    }
}

/// A foreign server beside the one that is to be started; `is_ours` says whether a mark is of this engine's servers.
pub(super) fn find(
    computer: &dyn Computer,
    adapter: &dyn AgentAdapter,
    ours: &Started,
    is_ours: impl Fn(&str) -> bool,
) -> Option<Foreign> {
    let home = adapter.data_home(&ours.command, &ours.environment)?;
    computer.pids().into_iter().find_map(|pid| {
        // What belongs to another user cannot be read, and keeps its data elsewhere.
        let (command, environment) = (computer.command(pid)?, computer.environment(pid)?);
        let started = Started::of(&command, &environment);
        let mark = started.environment.get(super::MARK_VARIABLE);
        let its_home = adapter.data_home(&started.command, &started.environment)?;
        let is_foreign = its_home == home && !mark.is_some_and(|mark| is_ours(mark));
        (is_foreign && pid != computer.own_pid()).then(|| Foreign {
            pid,
            home: home.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::opencode::OpenCode;

    fn started(command: &[u8], environment: &[u8]) -> Started {
        Started::of(command, environment)
    }

    #[test]
    fn a_process_is_read_as_the_system_tells_of_it() {
        let expected = Started {
            command: vec!["/bin/opencode".into(), "serve".into()],
            environment: BTreeMap::from([
                ("HOME".into(), "/home/a".into()),
                ("X".into(), "a=b".into()),
            ]),
        };
        let environment = b"HOME=/home/a\0X=a=b\0nonsense\0";
        assert_eq!(started(b"/bin/opencode\0serve\0", environment), expected);
        // A kernel thread has neither.
        let nothing = Started {
            command: Vec::new(),
            environment: BTreeMap::new(),
        };
        assert_eq!(started(b"", b""), nothing);
    }

    #[test]
    fn what_is_started_by_us_has_our_environment_and_its_own_over_it() {
        let args = ["serve".to_owned()];
        let own = [("PATH".to_owned(), "/own".to_owned())];
        let started = Started::by_us("opencode", &args, &own);
        assert_eq!(started.command, ["opencode", "serve"]);
        assert_eq!(started.environment["PATH"], "/own");
    }

    #[test]
    fn an_opencode_server_keeps_its_data_where_its_environment_says() {
        let home = |command: &[u8], environment: &[u8]| {
            let Started {
                command,
                environment,
            } = started(command, environment);
            OpenCode::new().data_home(&command, &environment)
        };
        let serves = b"/opt/bin/opencode\0serve\0--port\x004096\0".as_slice();
        for (environment, expected) in [
            (
                b"HOME=/home/a\0".as_slice(),
                Some("/home/a/.local/share/opencode"),
            ),
            (
                b"HOME=/home/a\0XDG_DATA_HOME=\0",
                Some("/home/a/.local/share/opencode"),
            ),
            (
                b"HOME=/home/a\0XDG_DATA_HOME=/data/\0",
                Some("/data/opencode"),
            ),
            (b"XDG_DATA_HOME=/data\0OPENCODE_DB=/x.db\0", Some("/x.db")),
            (b"", None),
        ] {
            assert_eq!(home(serves, environment).as_deref(), expected);
        }
        let environment = b"HOME=/home/a\0";
        for (command, is_server) in [
            (b"node\0/usr/bin/opencode\0web\0".as_slice(), true),
            (b"opencode\0run\0serve the cake\0", false),
            (b"opencode\0", false),
            (b"grep\0opencode\0serve\0", true),
            (b"vim\0serve\0", false),
        ] {
            assert_eq!(home(command, environment).is_some(), is_server);
        }
    }
}
