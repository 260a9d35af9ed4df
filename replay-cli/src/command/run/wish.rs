//! What a command line wishes for, before anything is touched: the message, and the session.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use recount_engine::limits::MESSAGE_BYTES_MAX;
use recount_engine::{OpenSession, Rejection};
use recount_projections::{Connection, Session, state_store};
use recount_store::{LogReader, SessionId, StreamId, Target};

use crate::args::{Agent, Run};
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::note;
use crate::{directory, pick};

/// The message: what stands on the command line, or what standard input gives.
pub(super) fn message(argument: &str) -> Result<String, Failure> {
    let text = if argument == "-" {
        from_stdin()?
    } else {
        argument.to_owned()
    };
    let refused = if text.trim().is_empty() {
        Rejection::Empty
    } else if text.len() > MESSAGE_BYTES_MAX {
        Rejection::TooLong {
            bytes: text.len(),
            limit: MESSAGE_BYTES_MAX,
        }
    } else {
        return Ok(text);
    };
    Err(Failure::usage(format!("cannot send this: {refused}")))
}

fn from_stdin() -> Result<String, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note("recount: reading the message from the terminal; Ctrl-D ends it");
    }
    let mut bytes = Vec::new();
    let taken = MESSAGE_BYTES_MAX as u64;
    let mut input = stdin.lock();
    let failed = |error| Failure::because("cannot read the message from standard input", error);
    (&mut input)
        .take(taken + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        // Read to its end without keeping it, so that the error can say how long it is.
        let rest = io::copy(&mut input, &mut io::sink()).map_err(failed)?;
        let refused = Rejection::TooLong {
            bytes: bytes
                .len()
                .saturating_add(usize::try_from(rest).unwrap_or(usize::MAX)),
            limit: MESSAGE_BYTES_MAX,
        };
        return Err(Failure::usage(format!("cannot send this: {refused}")));
    }
    String::from_utf8(bytes)
        .map_err(|error| Failure::usage(format!("cannot send this: it is no UTF-8 text: {error}")))
}

/// The session that is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// How it is, or is to be, opened.
    pub(super) open: OpenSession,
    /// Whether the log has it already.
    pub(super) known: bool,
}

impl Wish {
    /// Sees that the agent's program is there, so that nothing is queued that nobody can answer.
    pub(super) fn check_program(&self) -> Result<(), Failure> {
        let Target::Managed { program, .. } = &self.open.target else {
            return Ok(());
        };
        if self.open.agent != Agent::Opencode.name() {
            return Ok(());
        }
        let program = program.as_deref().unwrap_or(Agent::Opencode.name());
        if is_there(program, std::env::var_os("PATH").as_deref()) {
            return Ok(());
        }
        let place = if program.contains('/') {
            ""
        } else {
            " on the PATH"
        };
        Err(
            Failure::new(format!("cannot find the program {program:?}{place}")).try_next(
                "npm install -g opencode-ai    installs it\n\
                 --agent-bin PATH              names it where it is elsewhere\n\
                 --agent scripted              tries things out without it",
            ),
        )
    }
}

/// Whether a program can be found as the system would.
fn is_there(program: &str, path: Option<&OsStr>) -> bool {
    if program.contains('/') {
        return is_executable(Path::new(program));
    }
    path.is_some_and(|path| {
        std::env::split_paths(path).any(|folder| is_executable(&folder.join(program)))
    })
}

fn is_executable(file: &Path) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    metadata.is_file() && runs
}

/// Finds out which session is wished for, and that nothing contradicts it.
pub(super) fn session(data: &Path, run: &Run) -> Result<Wish, Failure> {
    let reader = match &run.session {
        Some(_) => Some(directory::open(data)?),
        None => directory::open_if_any(data)?.ok(),
    };
    let id = match (&run.session, &run.key, &reader) {
        (Some(text), _, Some(reader)) => Some(pick::session(reader, text)?),
        (_, Some(key), _) => Some(SessionId::from_text(key)),
        _ => None,
    };
    let known = match (id, &reader) {
        (Some(id), Some(reader)) => known(reader, id)?,
        _ => None,
    };
    let is_known = known.is_some();
    let open = match known {
        Some(known) => {
            contradictions(run, &known)?;
            known
        }
        None => new(run, id)?,
    };
    Ok(Wish {
        open,
        known: is_known,
    })
}

/// How a session of the log was opened; none where the log has no such session.
fn known(reader: &LogReader, id: SessionId) -> Result<Option<OpenSession>, Failure> {
    let session: Session = state_store::load(reader, StreamId::Session(id))?;
    let Some(opening) = session.opening else {
        return match Cut::of(reader, StreamId::Session(id))? {
            // What was said in it is not known any more, so a key that is repeated could be asked twice.
            Some(_) => Err(Failure::new(format!(
                "session {id} is closed, and its beginning was cut off: nothing can be said in it"
            ))
            .try_next("leave --session out, or choose another --key, to begin another session")),
            None => Ok(None),
        };
    };
    let connection: Connection =
        state_store::load(reader, StreamId::Connection(opening.connection))?;
    let target = connection
        .target
        .ok_or_else(|| Failure::new(format!("the log does not say where session {id} leads")))?;
    Ok(Some(OpenSession {
        id: Some(id),
        agent: opening.agent,
        target,
        directory: opening.directory,
        model: opening.model,
        title: opening.title,
    }))
}

/// What a new session is to be like.
fn new(run: &Run, id: Option<SessionId>) -> Result<OpenSession, Failure> {
    let directory = absolute(run.dir.as_deref().unwrap_or(Path::new(".")))?;
    let target = match &run.url {
        Some(url) => Target::Url(checked(url)?),
        None => Target::Managed {
            program: run.agent_bin.as_deref().map(program).transpose()?,
            directory: directory.clone(),
        },
    };
    Ok(OpenSession {
        id,
        agent: run.agent.unwrap_or(Agent::Opencode).name().to_owned(),
        target,
        directory,
        model: run.model.clone(),
        title: None,
    })
}

/// Refuses what contradicts how the session was opened.
fn contradictions(run: &Run, known: &OpenSession) -> Result<(), Failure> {
    let contradiction = |flag: &str, said: &str, is: &str| {
        let id = known.id.map(|id| format!(" {id}")).unwrap_or_default();
        let what = format!("{flag} {said} contradicts session{id}, which was opened with {is}");
        Err(Failure::usage(what).try_next(format!(
            "leave {flag} out to go on in it, or begin another session"
        )))
    };
    if let Some(agent) = run.agent
        && agent.name() != known.agent
    {
        return contradiction("--agent", agent.name(), &known.agent);
    }
    if let Some(model) = &run.model
        && Some(model) != known.model.as_ref()
    {
        let is = known.model.as_deref().unwrap_or("none");
        return contradiction("--model", model, is);
    }
    if let Some(dir) = &run.dir {
        let dir = absolute(dir)?;
        if dir != known.directory {
            return contradiction("--dir", &dir, &known.directory);
        }
    }
    let is = match &known.target {
        Target::Url(url) => format!("the server at {url}"),
        Target::Managed { program, .. } => {
            let program = program.as_deref().unwrap_or(&known.agent);
            format!("a server started with {program:?}")
        }
    };
    if let Some(url) = &run.url {
        let url = checked(url)?;
        if !matches!(&known.target, Target::Url(known) if known.trim_end_matches('/') == url) {
            return contradiction("--url", &url, &is);
        }
    }
    if let Some(file) = &run.agent_bin {
        let file = program(file)?;
        if !matches!(&known.target, Target::Managed { program: Some(known), .. } if *known == file)
        {
            return contradiction("--agent-bin", &file, &is);
        }
    }
    Ok(())
}

/// A folder by its absolute name.
fn absolute(folder: &Path) -> Result<String, Failure> {
    let cannot =
        |why: String| Failure::usage(format!("cannot use the folder {}: {why}", folder.display()));
    let whole = folder
        .canonicalize()
        .map_err(|error| cannot(error.to_string()))?;
    if !whole.is_dir() {
        return Err(cannot("it is a file".to_owned()));
    }
    text(whole).map_err(|()| cannot("its name is no UTF-8".to_owned()))
}

/// A program: a name to look up, or an absolute path, since the server is started elsewhere.
fn program(file: &Path) -> Result<String, Failure> {
    let cannot =
        |why: &str| Failure::usage(format!("cannot use the program {}: {why}", file.display()));
    let is_name = file.components().count() == 1 && !file.as_os_str().is_empty();
    let whole = if is_name && !file.exists() {
        file.to_owned()
    } else {
        std::path::absolute(file).map_err(|error| cannot(&error.to_string()))?
    };
    text(whole).map_err(|()| cannot("its name is no UTF-8"))
}

fn text(path: PathBuf) -> Result<String, ()> {
    path.into_os_string().into_string().map_err(drop)
}

/// A server's address, as far as can be seen without asking it.
fn checked(url: &str) -> Result<String, Failure> {
    let trimmed = url.trim_end_matches('/');
    let rest = trimmed
        .strip_prefix("http://")
        .or_else(|| trimmed.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
    else {
        return Err(Failure::usage(format!("{url:?} is no address of a server"))
            .try_next("one is like http://127.0.0.1:4096"));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        // Not repeated here, and kept out of the log: it may hold a password.
        return Err(
            Failure::usage("the address of the server holds a user or a password")
                .try_next("put the password into OPENCODE_SERVER_PASSWORD instead"),
        );
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Verb};

    fn parsed(args: &[&str]) -> Run {
        let all = ["recount", "run"].iter().chain(args).chain(&["hello"]);
        match Cli::try_parse_from(all).expect("it is well formed").verb {
            Verb::Run(run) => run,
            _ => panic!("it is another verb"),
        }
    }

    fn opened() -> OpenSession {
        OpenSession {
            id: Some(SessionId::from_text("k")),
            agent: "opencode".to_owned(),
            target: Target::Url("http://127.0.0.1:4096".to_owned()),
            directory: "/".to_owned(),
            model: Some("a/b".to_owned()),
            title: None,
        }
    }

    #[test]
    fn flags_that_agree_with_a_session_are_fine() {
        for agreeing in [
            &[][..],
            &["--agent", "opencode", "--model", "a/b", "--dir", "/"],
            &["--url", "http://127.0.0.1:4096/"],
        ] {
            assert!(
                contradictions(&parsed(agreeing), &opened()).is_ok(),
                "{agreeing:?}"
            );
        }
    }

    #[test]
    fn flags_that_contradict_a_session_are_refused() {
        for contradicting in [
            &["--agent", "scripted"][..],
            &["--model", "a/c"],
            &["--dir", "/tmp"],
            &["--url", "http://127.0.0.1:4097"],
            &["--agent-bin", "/bin/true"],
        ] {
            let refused = contradictions(&parsed(contradicting), &opened());
            assert_eq!(refused.map_err(|f| f.code()), Err(2), "{contradicting:?}");
        }
    }

    #[test]
    fn an_address_is_one_and_holds_no_password() {
        assert_eq!(
            checked("http://host:1/").ok().as_deref(),
            Some("http://host:1")
        );
        for bad in ["", "host:1", "http://", "ftp://host", "http://a b"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        let refused = checked("http://me:hunter2@host").expect_err("it holds a password");
        let message = refused.message().expect("something is said");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_message_that_says_nothing_is_refused() {
        assert_eq!(message("hello\n").ok().as_deref(), Some("hello\n"));
        for empty in ["", " \n\t"] {
            assert_eq!(message(empty).map_err(|f| f.code()), Err(2), "{empty:?}");
        }
        let long = "x".repeat(MESSAGE_BYTES_MAX + 1);
        assert_eq!(message(&long).map_err(|f| f.code()), Err(2));
    }

    #[test]
    fn programs_are_found_as_the_system_does() {
        assert!(is_there("/bin/sh", None));
        assert!(is_there("sh", Some(OsStr::new("/nowhere:/bin"))));
        assert!(!is_there("sh", Some(OsStr::new("/nowhere"))));
        assert!(!is_there("/etc/passwd", None), "it does not run");
    }
}
