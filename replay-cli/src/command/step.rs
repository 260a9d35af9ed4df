//! `recount step`: a session gone through on a whole screen.

use std::io::IsTerminal as _;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use ratatui::DefaultTerminal;
use recount_store::{LogReader, SessionId};

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
    // From here on the terminal is ours: it is given back at the end, and by a panic, too.
    let mut terminal = ratatui::try_init().map_err(cannot_draw)?;
    let done = go_through(
        &mut terminal,
        &mut walker,
        &mut model,
        at,
        output.look.colour,
    );
    ratatui::restore();
    done
}

fn go_through(
    terminal: &mut DefaultTerminal,
    walker: &mut Walker,
    model: &mut Model,
    at: Option<At>,
    colour: bool,
) -> Result<(), Failure> {
    let size = terminal.size().map_err(cannot_draw)?;
    model.page = page(size.width, size.height);
    walker.see(Where::Last, model)?;
    if let Some(at) = at {
        walker.see(Where::Moment(at), model)?;
    }
    let mut changed = true;
    loop {
        if changed {
            terminal
                .draw(|frame| draw(frame, model, colour))
                .map_err(cannot_draw)?;
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

fn cannot_draw(error: std::io::Error) -> Failure {
    Failure::because("cannot use the terminal", error)
}
