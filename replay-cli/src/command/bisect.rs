//! `recount bisect`: when something became true of a session.

use recount_store::{LogReader, Recorded, SessionId, StreamId};
use serde_json::{Map, Value};

use crate::args;
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::{Output, note};
use crate::progress::with_bar;
use crate::query::{Condition, shape};
use crate::render::event::{Lines, json_line_beside};
use crate::render::show::Standing;
use crate::render::text;
use crate::timeline::Timeline;

/// Prints the first moment at which a condition became true, or each at which it changed.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    asked: &args::Bisect,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let condition = Condition::parse(&asked.condition, &shape::SESSION)
        .map_err(|mistake| super::not_a_condition(&mistake))?;
    if let Some(cut) = Cut::of(reader, StreamId::Session(id))? {
        note(&format!("recount: {}", cut.told(&output.look)));
    }
    let mut printer = Printer {
        id,
        condition: &condition,
        json,
        lines: Lines::default(),
        output,
    };
    let mut found = false;
    let events = changes(reader, id, &condition, |recorded, standing, holds| {
        found = true;
        printer.print(recorded, standing, holds)?;
        Ok(asked.all)
    })?;
    if found {
        return Ok(());
    }
    let events = text::count(events, "event");
    Err(Failure::new(format!(
        "of session {id} it was never true that {condition}, over {events}"
    ))
    .try_next(format!(
        "recount show {id} --json    shows what it is asked of"
    )))
}

/// Tells of each change of a condition over the life of a session, the first being to true, until `each` has had
/// enough. Gives the number of events that were looked at.
fn changes(
    reader: &LogReader,
    id: SessionId,
    condition: &Condition,
    mut each: impl FnMut(&Recorded, &Standing, bool) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let mut standing = timeline.prologue(reader)?;
    let (mut held, mut done) = (false, 0);
    let events = timeline.events(reader, through, true);
    for recorded in with_bar(events, "asking", timeline.count(reader)?) {
        let recorded = recorded?;
        standing.apply(&recorded);
        done += 1;
        let holds = condition.holds(&standing.view(id));
        if holds != held {
            held = holds;
            if !each(&recorded, &standing, holds)? {
                break;
            }
        }
    }
    Ok(done)
}

struct Printer<'a> {
    id: SessionId,
    condition: &'a Condition,
    json: bool,
    lines: Lines,
    output: &'a mut Output,
}

impl Printer<'_> {
    /// Prints the event that changed it, and what is there now that the condition asks for.
    fn print(
        &mut self,
        recorded: &Recorded,
        standing: &Standing,
        holds: bool,
    ) -> Result<(), Failure> {
        let view = standing.view(self.id);
        let paths = self.condition.paths().into_iter();
        let there = paths.map(|path| (path.to_string(), path.all_in(&view)));
        if self.json {
            let there: Map<String, Value> =
                there.map(|(path, all)| (path, Value::Array(all))).collect();
            let mut beside = Map::new();
            beside.insert("holds".to_owned(), holds.into());
            beside.insert("there".to_owned(), there.into());
            let line = json_line_beside(recorded, None, &beside)?;
            return Ok(self.output.line(&line)?);
        }
        let look = &self.output.look;
        let line = self.lines.next(recorded, look);
        let became = if holds { "became true" } else { "became false" };
        let there: Vec<String> = there
            .map(|(path, all)| {
                let all: Vec<String> = all.iter().map(Value::to_string).collect();
                let all = if all.is_empty() {
                    "nothing".to_owned()
                } else {
                    all.join(", ")
                };
                format!("{path} is {all}")
            })
            .collect();
        let there = format!("{became}: {}", there.join("; "));
        let there = text::one_line(&there);
        let there = match look.width {
            Some(width) => text::clip(&there, width.saturating_sub(20).max(20)),
            None => there,
        };
        self.output.line(&line)?;
        let there = format!("{:20}{}", "", self.output.look.dim(&there));
        Ok(self.output.line(&there)?)
    }
}
