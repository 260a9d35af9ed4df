//! `recount replay`: a session played again as it happened.

use std::io;
use std::time::Duration;

use recount_store::{LogReader, Recorded, SessionId, StreamId, Timestamp};

use super::log::Printer;
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::{Output, note};
use crate::render::time;
use crate::stage::Stage;
use crate::timeline::Timeline;

/// No pause is longer: nobody waits an hour to see what happened after it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Plays a session again, `speed` times as fast as it happened; without pauses where there is no speed.
pub(crate) async fn run(
    reader: &LogReader,
    id: SessionId,
    speed: Option<f64>,
    json: bool,
    mut output: Output,
) -> Result<(), Failure> {
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let look = output.look.clone();
    let mut player = if json {
        Player::Lines(Printer::new(true), output)
    } else {
        let title = format!("session {id}");
        output.line(&output.look.dim(&title))?;
        Player::Stage(Box::new(Stage::whole(output, true)))
    };
    if let Some(cut) = Cut::of(reader, StreamId::Session(id))? {
        player.notice(&cut.told(&look))?;
    }
    let mut before: Option<Timestamp> = None;
    for recorded in timeline.events(reader, through, false) {
        let recorded = recorded?;
        if let (Some(speed), Some(before)) = (speed, before) {
            let pause = recorded.at.since(before).div_f64(speed);
            if pause > PAUSE_MAX {
                player.notice(&format!("a pause of {}, shortened", time::span(pause)))?;
            }
            if !pause.is_zero() {
                player.flush()?;
                tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            }
        }
        // What was read in later may have happened before.
        before = before.max(Some(recorded.at));
        player.play(&recorded)?;
    }
    player.end()?;
    Ok(())
}

/// Who plays.
enum Player {
    Lines(Printer, Output),
    Stage(Box<Stage>),
}

impl Player {
    fn play(&mut self, recorded: &Recorded) -> io::Result<()> {
        match self {
            Self::Lines(printer, output) => printer.print(recorded, output),
            Self::Stage(stage) => stage.play(recorded),
        }
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Lines(..) => {
                note(&format!("recount: {text}"));
                Ok(())
            }
            Self::Stage(stage) => stage.notice(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Lines(_, output) => output.flush(),
            Self::Stage(stage) => stage.flush(),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if let Self::Stage(stage) = self {
            stage.end_line()?;
        }
        self.flush()
    }
}
