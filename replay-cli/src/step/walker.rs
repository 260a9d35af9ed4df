//! Going through a log: reads what is to be seen.

use recount_store::{
    Event, LogReader, Position, Recorded, Result, Seq, SessionId, StreamId, Timestamp,
};

use super::model::{Mode, Model, Where};
use super::moments::Moments;
use super::sought::{Look, Sought, Way};
use crate::args::At;
use crate::render::event;
use crate::timeline::{Timeline, stop_was_decided};

/// How many events a search looks at before the keys are looked at again.
const STRIDE: usize = 10_000;

/// Reads one session for a [`Model`].
pub(crate) struct Walker {
    reader: LogReader,
    timeline: Timeline,
    moments: Moments,
    /// A search that is under way.
    seeking: Option<Seeking>,
    /// The last event of the timeline.
    end: Position,
    /// Where the log stood when that was found.
    head: Position,
}

impl Walker {
    /// Through a session that the log has events of.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn through(reader: LogReader, session: SessionId) -> Result<Self> {
        let timeline = Timeline::of(&reader, session)?;
        let mut walker = Self {
            moments: Moments::of(&reader, timeline),
            reader,
            timeline,
            seeking: None,
            end: Position::default(),
            head: Position::default(),
        };
        walker.look_for_end()?;
        Ok(walker)
    }

    /// Has the model see what is wished; a search begins, and [`Walker::seek_on`] goes on with it.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn see(&mut self, wished: Where, model: &mut Model) -> Result<()> {
        self.seeking = None;
        match wished {
            Where::At(position) => self.show(position, model),
            Where::First => self.show(self.timeline.first, model),
            Where::Last => self.up_to(self.end, model),
            Where::Moment(At::Number(number)) => self.numbered(number, model),
            Where::Moment(At::Time(Timestamp(time))) => {
                let after = self.reader.position_at(Timestamp(time.saturating_add(1)))?;
                let last = Position(after.0.saturating_sub(1));
                self.up_to(last.min(self.end), model)
            }
            Where::Next(sought, way) => {
                self.seeking = Some(self.seek(sought, way, model));
                Ok(())
            }
            Where::Here => Ok(()),
        }
    }

    /// Goes on with a search; false where none is under way. The model is told how far it has come.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn seek_on(&mut self, model: &mut Model) -> Result<bool> {
        let Some(seeking) = &mut self.seeking else {
            return Ok(false);
        };
        model.mode = Mode::Moving;
        match seeking.go_on()? {
            Found::NotYet(percent) => {
                model.mode = Mode::Waiting(percent);
                return Ok(true);
            }
            Found::Nowhere => model.note = Some(seeking.in_vain()),
            Found::At(position) => self.show(position, model)?,
        }
        self.seeking = None;
        Ok(true)
    }

    /// Has the model see what has come since; false where nothing has.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn refresh(&mut self, model: &mut Model) -> Result<bool> {
        if self.reader.head()?.position == self.head {
            return Ok(false);
        }
        self.look_for_end()?;
        let here = model.here().map(|here| here.position);
        match here.filter(|_| !model.following) {
            Some(position) => self.show(position, model)?,
            None => self.up_to(self.end, model)?,
        }
        Ok(true)
    }

    /// Has the model see what is around the event at a position.
    fn show(&mut self, position: Position, model: &mut Model) -> Result<()> {
        let moment = self.moments.at(position)?.clone();
        let span = model.page.max(1) * 2;
        let before = self.timeline.before(&self.reader, moment.place);
        let mut rows = before.take(span).collect::<Result<Vec<_>>>()?;
        rows.reverse();
        let cursor = rows.len().saturating_sub(1);
        let end = self.end;
        let within = |event: &Result<Recorded>| event.as_ref().map_or(true, |e| e.position <= end);
        let after = self.timeline.after(&self.reader, moment.place);
        for event in after.take_while(within).take(span) {
            rows.push(event?);
        }
        let stream = StreamId::Session(self.timeline.session);
        let head = self.reader.stream_head(stream)?;
        model.scrolled = 0;
        model.view.last = head.map_or(Seq::default(), |head| head.seq);
        model.view.rows = rows;
        model.view.cursor = cursor;
        model.view.moment = moment;
        Ok(())
    }

    /// Goes to the event of this number; where there is none, the model is told.
    fn numbered(&mut self, number: Seq, model: &mut Model) -> Result<()> {
        let stream = StreamId::Session(self.timeline.session);
        let event = self.reader.read(stream, number).next().transpose()?;
        match event {
            Some(event) if event.seq == number => return self.show(event.position, model),
            Some(event) => model.note = Some(event::cut(event.seq)),
            None => model.note = Some(format!("there is no event {number}")),
        }
        Ok(())
    }

    /// Begins to search from where the model stands.
    fn seek(&self, sought: Sought, way: Way, model: &Model) -> Seeking {
        let place = model.view.moment.place;
        let here = model.view.moment.position;
        let events: Box<dyn Iterator<Item = Result<Recorded>>> = match way {
            Way::On => Box::new(self.timeline.after(&self.reader, place)),
            // The first is the one at the cursor.
            Way::Back => Box::new(self.timeline.before(&self.reader, place).skip(1)),
        };
        let to = match way {
            Way::On => self.end,
            Way::Back => self.timeline.first,
        };
        Seeking {
            reader: self.reader.clone(),
            events,
            look: Look::for_(sought),
            way,
            from: here,
            to,
        }
    }

    /// Goes to the last event up to a position; to the first one where all come later.
    fn up_to(&mut self, position: Position, model: &mut Model) -> Result<()> {
        let place = self.timeline.place(&self.reader, position)?;
        let last = self
            .timeline
            .before(&self.reader, place)
            .next()
            .transpose()?;
        let last = last.map_or(self.timeline.first, |last| last.position);
        self.show(last, model)
    }

    /// The end of the timeline: the last event of a session that is over, else the last of the log.
    fn look_for_end(&mut self) -> Result<()> {
        self.head = self.reader.head()?.position;
        let stream = StreamId::Session(self.timeline.session);
        let mut back = self.reader.read_backwards(stream, Seq(u64::MAX));
        let last = back.next().transpose()?;
        self.end = match last {
            Some(Recorded {
                event: Event::SessionClosed | Event::StreamCut { .. },
                position,
                ..
            }) => position,
            _ => self.head,
        };
        Ok(())
    }
}

/// A search that is under way.
struct Seeking {
    reader: LogReader,
    events: Box<dyn Iterator<Item = Result<Recorded>>>,
    look: Look,
    way: Way,
    from: Position,
    to: Position,
}

impl Seeking {
    /// Looks at some more events.
    fn go_on(&mut self) -> Result<Found> {
        let mut at = self.from;
        for _ in 0..STRIDE {
            let Some(event) = self.events.next().transpose()? else {
                return Ok(Found::Nowhere);
            };
            if self.way == Way::On && event.position > self.to {
                return Ok(Found::Nowhere);
            }
            if self.look.finds(&event) && !self.was_meant(&event)? {
                return Ok(Found::At(event.position));
            }
            at = event.position;
        }
        let done = at.0.abs_diff(self.from.0);
        let all = self.to.0.abs_diff(self.from.0).max(1);
        Ok(Found::NotYet(done * 100 / all))
    }

    /// Whether an error is looked for, and this is none since the engine meant it.
    fn was_meant(&self, event: &Recorded) -> Result<bool> {
        Ok(*self.look.sought() == Sought::Error && stop_was_decided(&self.reader, event)?)
    }

    /// What a person is told where there is nothing like it.
    fn in_vain(&self) -> String {
        let side = match self.way {
            Way::On => "after",
            Way::Back => "before",
        };
        format!("no {} {side} this event", self.look.sought().name())
    }
}

/// What a search has come to.
enum Found {
    /// It is here.
    At(Position),
    /// It is nowhere.
    Nowhere,
    /// There is more to look at; so many percent are looked through.
    NotYet(u64),
}
