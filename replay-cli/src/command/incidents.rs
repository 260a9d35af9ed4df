//! `recount incidents`: what went wrong.

use std::collections::BTreeMap;

use recount_projections::incident::{Incident, Incidents};
use recount_projections::{Session, state_store};
use recount_store::{LogReader, Position, Progress, Recorded, SessionId, StreamId};

use crate::args;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::pick;
use crate::progress::Bar;
use crate::render::incidents::{Row, table};
use crate::render::report::{Report, SESSIONS_MAX};

/// How many events are read between two looks at the clock.
const STRIDE: u64 = 4096;

/// Lists the incidents of a log, newest last, or reports one.
pub(crate) fn run(
    reader: &LogReader,
    wanted: &args::Incidents,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    if let Some(name) = &wanted.name {
        return report(reader, name, json, output);
    }
    let session = wanted.session.as_ref();
    let session = session
        .map(|text| pick::session(reader, text))
        .transpose()?;
    let (found, whole) = find(reader, |incident| is_wanted(incident, wanted, session))?;
    if json {
        for incident in &found {
            output.json(&Row::of(incident))?;
        }
    } else if !found.is_empty() {
        let table = table(&found, &output.look);
        output.line(&table)?;
    }
    output.flush()?;
    // What could be read is an answer, too.
    whole?;
    if found.is_empty() {
        note(if is_picky(wanted) {
            "recount: no such incident"
        } else {
            "recount: nothing went wrong"
        });
    }
    Ok(())
}

fn is_picky(wanted: &args::Incidents) -> bool {
    let args::Incidents {
        name: _,
        since,
        until,
        session,
        kind,
        open,
    } = wanted;
    *open || since.is_some() || until.is_some() || session.is_some() || kind.is_some()
}

fn is_wanted(incident: &Incident, wanted: &args::Incidents, session: Option<SessionId>) -> bool {
    let ended_before = |time| incident.end.is_some_and(|end| end < time);
    wanted.since.is_none_or(|since| !ended_before(since))
        && wanted.until.is_none_or(|until| incident.begin <= until)
        && wanted
            .kind
            .is_none_or(|kind| incident.kinds.contains_key(&kind))
        && session.is_none_or(|session| incident.sessions.contains_key(&session))
        && (incident.is_open() || !wanted.open)
}

/// The incidents that are wanted, in the order of their names: in one pass, with nothing else in memory. Beside them,
/// whether all of the log could be read.
fn find(
    reader: &LogReader,
    mut wanted: impl FnMut(&Incident) -> bool,
) -> Result<(Vec<Incident>, Result<(), Failure>), Failure> {
    let total = reader.head()?.position.0;
    let (mut incidents, mut found) = (Incidents::default(), Vec::new());
    let (mut whole, mut bar) = (Ok(()), Bar::new());
    for recorded in reader.read_all(Position::FIRST) {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => {
                whole = Err(error.into());
                break;
            }
        };
        incidents.apply(&recorded);
        if recorded.position.0.is_multiple_of(STRIDE) {
            found.extend(incidents.take().into_iter().filter(&mut wanted));
            bar.show(Progress {
                doing: "looking for incidents",
                done: recorded.position.0,
                total,
            });
        }
    }
    found.extend(incidents.finish().into_iter().filter(wanted));
    found.sort_by_key(|incident| incident.name);
    Ok((found, whole))
}

fn report(reader: &LogReader, name: &str, json: bool, output: &mut Output) -> Result<(), Failure> {
    let incident = pick(reader, name)?;
    let mut events: Vec<Recorded> = Vec::new();
    for position in &incident.evidence {
        // What was cut off since is not there any more.
        let recorded = reader.read_all(*position).next().transpose()?;
        events.extend(recorded.filter(|recorded| recorded.position == *position));
    }
    if json {
        output.json(&Row::with_timeline(&incident, &events)?)?;
        return Ok(());
    }
    let mut sessions = BTreeMap::new();
    for id in incident.sessions.keys().take(SESSIONS_MAX) {
        let session: Session = state_store::load(reader, StreamId::Session(*id))?;
        sessions.insert(*id, session);
    }
    let report = Report {
        incident: &incident,
        events: &events,
        sessions: &sessions,
    };
    let text = report.markdown(&output.look);
    output.text(&text)?;
    Ok(())
}

/// The incident that a text means: `latest`, a name, or any event of one.
fn pick(reader: &LogReader, text: &str) -> Result<Incident, Failure> {
    let newest = text == "latest";
    let number = text.strip_prefix('i').unwrap_or(text).parse();
    let (what, position) = match number.map(Position) {
        Ok(position) => (
            format!("no incident has event {position} of the log"),
            position,
        ),
        Err(_) if newest => ("nothing went wrong".to_owned(), Position::default()),
        Err(_) => {
            let what = format!("no incident is called {text:?}: names are like i1042");
            return Err(Failure::usage(what).try_next(LIST));
        }
    };
    let is_it = |incident: &Incident| newest || incident.evidence.contains(&position);
    let (mut found, whole) = find(reader, is_it)?;
    // One event may end several.
    let named = found
        .iter()
        .position(|incident| incident.name.0 == position);
    let last = found.len().checked_sub(1);
    if let Some(n) = named.or(last) {
        return Ok(found.swap_remove(n));
    }
    whole?;
    Err(Failure::new(what).try_next(LIST))
}

/// How to find the name of one.
const LIST: &str = "recount incidents    lists them";
