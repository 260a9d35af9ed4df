//! `recount step`: a session gone through on a whole screen.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use ratatui::DefaultTerminal;
use recount_store::{LogReader, SessionId};
use tokio::runtime::Runtime;

use crate::args::At;
use crate::failure::Failure;
use crate::output::Output;
use crate::step::{Mode, Model, Walker, Where, Wish, draw, page};

/// How long a log that somebody else writes is not looked at, while no key is pressed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Says whether there is a screen to go through a session on.
///
/// # Errors
///
/// Where there is none.
pub(crate) fn needs_terminal(json: bool, output: &Output) -> Result<(), Failure> {
    let elsewhere =
        "recount log ID           prints the events\nrecount show ID --at N   prints how it stood";
    if json {
        let failure = Failure::usage("`recount step` is a screen for a person, and prints no JSON");
        return Err(failure.try_next(elsewhere));
    }
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !output.terminal || !std::io::stdin().is_terminal() || is_dumb {
        let failure =
            Failure::usage("`recount step` needs a terminal to draw on and to read keys from");
        return Err(failure.try_next(elsewhere));
    }
    Ok(())
}

/// Goes through a session, from its end or from a moment on, until the person leaves.
pub(crate) fn run(
    reader: LogReader,
    id: SessionId,
    at: Option<At>,
    output: &Output,
) -> Result<(), Failure> {
    let mut model = Model::of(id, output.look.zone.clone());
    let mut walker = Walker::through(reader, id)?;
    let signals = Signals::caught()?;
    // From here on the terminal is ours: it is given back at the end, by a signal, and by a panic, too.
    let mut terminal = ratatui::try_init().map_err(cannot_draw)?;
    let done = go_through(
        &mut terminal,
        &mut walker,
        &mut model,
        at,
        output.look.colour,
        &signals,
    );
    // Where it cannot be given back there is none any more.
    let _ = ratatui::try_restore();
    done
}

/// Signals that end a process: caught, since they would leave the terminal as it was drawn on.
struct Signals {
    /// The number of the one that came; 0 before.
    came: Arc<AtomicU8>,
    _runtime: Runtime,
}

impl Signals {
    fn caught() -> Result<Self, Failure> {
        let runtime = super::engine::runtime()?;
        let came = Arc::new(AtomicU8::new(0));
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};

            let _entered = runtime.enter();
            for kind in [
                SignalKind::hangup(),
                SignalKind::interrupt(),
                SignalKind::quit(),
                SignalKind::terminate(),
            ] {
                let mut signal = signal(kind)
                    .map_err(|error| Failure::because("cannot catch signals", error))?;
                let came = Arc::clone(&came);
                runtime.spawn(async move {
                    signal.recv().await;
                    let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
                    came.store(number, Ordering::Relaxed);
                });
            }
        }
        Ok(Self {
            came,
            _runtime: runtime,
        })
    }

    /// Whether to go on.
    fn none_came(&self) -> Result<(), Failure> {
        match self.came.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(Failure::Signalled(number)),
        }
    }
}

fn go_through(
    terminal: &mut DefaultTerminal,
    walker: &mut Walker,
    model: &mut Model,
    at: Option<At>,
    colour: bool,
    signals: &Signals,
) -> Result<(), Failure> {
    let size = terminal.size().map_err(cannot_draw)?;
    model.page = page(size.width, size.height);
    walker.see(Where::Last, model)?;
    if let Some(at) = at {
        walker.see(Where::Moment(at), model)?;
    }
    let mut changed = true;
    loop {
        signals.none_came()?;
        if changed {
            terminal
                .draw(|frame| draw(frame, model, colour))
                .map_err(cannot_draw)?;
            fail_if_asked();
        }
        // While it searches, keys are only looked for.
        let patience = match model.mode {
            Mode::Waiting(_) => Duration::ZERO,
            _ => LOOK_INTERVAL,
        };
        if !event::poll(patience).map_err(cannot_draw)? {
            changed = match model.mode {
                Mode::Waiting(_) => walker.seek_on(model)?,
                _ => walker.refresh(model)?,
            };
            continue;
        }
        changed = true;
        let wish = match event::read().map_err(cannot_draw)? {
            Event::Key(key) if key.kind != KeyEventKind::Release => model.handle(key),
            Event::Resize(columns, rows) => {
                model.page = page(columns, rows);
                let here = model.here().map(|here| Where::At(here.position));
                here.map(Wish::See)
            }
            _ => None,
        };
        match wish {
            None => {}
            Some(Wish::See(wished)) => {
                walker.see(wished, model)?;
                walker.seek_on(model)?;
            }
            Some(Wish::Leave) => return Ok(()),
            Some(Wish::Interrupt) => return Err(Failure::Interrupted),
        }
    }
}

/// Panics, so that a test can see what becomes of the terminal then.
fn fail_if_asked() {
    assert!(
        !cfg!(debug_assertions) || std::env::var_os("RECOUNT_FAIL_DRAWN").is_none(),
        "as a test asked for"
    );
}

fn cannot_draw(error: std::io::Error) -> Failure {
    Failure::because("cannot use the terminal", error)
}
