//! The one owner of session state: on disk as events and snapshots, in memory as folds, bounded.

mod milestone;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::{
    Expected, Log, LogReader, NewEvent, Position, Progress, Recorded, Result, Seq, SessionId,
    Snapshot, StreamHead, StreamId, derived,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Projection;
use crate::pending::Pending;
use crate::session::Session;

use milestone::Milestones;
pub use milestone::{keep_milestone, kept_through, load_connection, load_through};

/// How many events a session may have beyond its snapshot: what a load folds at most, more or less.
const SNAPSHOT_EVERY: u64 = 1000;

/// How many bytes of a snapshot are worth one event more before the next: about what an event is long, so
/// that snapshots of a session that has become large do not write more than the session itself did.
const SNAPSHOT_BYTES_PER_EVENT: u64 = 256;

/// Session states in memory, loaded from snapshot and tail, and kept in step with the log.
///
/// Cheap to clone; all clones are the same store. What nobody uses is forgotten, the longest unused
/// first, once there are more than the bound; the log has it all.
#[derive(Clone)]
pub struct StateStore {
    log: Log,
    cache: Arc<Mutex<Cache>>,
}

struct Cache {
    entries: HashMap<SessionId, Entry>,
    /// Counts uses; an entry's stamp is the count at its last use.
    uses: u64,
    capacity: usize,
    /// How many entries there may be before some are forgotten again: those that are in use are looked
    /// through in vain, so that is not to happen with each new one.
    entries_max: usize,
}

#[derive(Default)]
struct Entry {
    state: SharedSession,
    used: u64,
}

/// A session's state, shared between the store and the one task that moves it.
#[derive(Clone, Default)]
pub struct SharedSession(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    session: Session,
    /// Whether the state was read from the log. Until then it is nobody's answer.
    loaded: bool,
    /// The number of the first event at which a snapshot is due.
    snapshot_due: u64,
    milestones: Milestones,
}

impl Held {
    fn load(&mut self, log: &Log, stream: StreamId) -> Result<()> {
        let kept = snapshot::<Session>(log, stream)?.unwrap_or_default();
        self.snapshot_due = kept.due();
        self.session = fold_on(log, stream, kept, Seq(u64::MAX))?;
        self.milestones = Milestones::at(self.session.seq);
        self.loaded = true;
        Ok(())
    }
}

impl SharedSession {
    /// Looks at the state; what `look` gives comes back. Must not take long: appends wait for it.
    pub fn with<T>(&self, look: impl FnOnce(&Session) -> T) -> T {
        look(&lock(&self.0).session)
    }

    /// The state as it is now.
    #[must_use]
    pub fn copy(&self) -> Session {
        self.with(Clone::clone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A fold that panicked is our own mistake and has ended its task; what it left is read no further than here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore {
    /// A store over this log that keeps up to `capacity` unused sessions in memory.
    #[must_use]
    pub fn new(log: Log, capacity: usize) -> Self {
        let cache = Cache {
            entries: HashMap::new(),
            uses: 0,
            capacity,
            entries_max: capacity,
        };
        Self {
            log,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    /// The log underneath.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The state of a session, from memory or from the log; an empty one where it has no events.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn session(&self, id: SessionId) -> Result<SharedSession> {
        let shared = lock(&self.cache).find(id);
        // Under its own lock: a long session delays nobody else, and no event passes it by while it is read.
        let mut held = lock(&shared.0);
        if !held.loaded {
            held.load(&self.log, StreamId::Session(id))?;
        }
        drop(held);
        Ok(shared)
    }

    /// Has the state of a session read from the log again: what is in memory may be half of a step.
    pub fn forget(&self, id: SessionId) {
        lock(&self.cache).entries.remove(&id);
    }

    /// Appends to a session's stream, and moves its state once the events are durable.
    ///
    /// # Errors
    ///
    /// As [`Log::append`]; the state is then as it was.
    pub async fn append(
        &self,
        id: SessionId,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Recorded>> {
        let shared = self.session(id)?;
        let stream = StreamId::Session(id);
        let recorded = self.log.append(stream, expected, events).await?;
        let mut held = lock(&shared.0);
        for event in &recorded {
            // Two appenders of one session may come back in either order; the log's order holds.
            if event.seq == held.session.seq.next() {
                held.session.apply(event);
            } else if event.seq > held.session.seq {
                held.load(&self.log, stream)?;
            }
        }
        if held.session.seq.0 >= held.snapshot_due {
            let seq = held.session.seq;
            let bytes = put_snapshot(&self.log, stream, seq, &held.session);
            held.snapshot_due = snapshot_due(seq, bytes);
        }
        let Held {
            session,
            milestones,
            ..
        } = &mut *held;
        milestones.pass(&self.log, stream, session.seq, session);
        Ok(recorded)
    }

    /// What is open in the whole log. Each call reads what came since the one before.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn pending(&self) -> Result<Pending> {
        snapshot_pending(&self.log)
    }

    /// Keeps a snapshot of what is open, so that the next start reads only what comes after.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn snapshot_pending(&self) -> Result<()> {
        snapshot_pending(&self.log).map(drop)
    }
}

/// Keeps a snapshot of each long session and of what is open, and milestones along sessions and connections, as an
/// engine does by and by: for a log that lost all of them. Gives how many sessions that were.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn snapshot_all(log: &Log, mut report: impl FnMut(Progress)) -> Result<u64> {
    let mut streams = log.streams()?;
    streams.retain(|(_, head)| head.seq.0 >= head.from.0 + SNAPSHOT_EVERY);
    let length = |head: &StreamHead| head.seq.0 - head.from.0 + 1;
    let mut progress = Progress {
        doing: "folding sessions and connections",
        done: 0,
        total: streams.iter().map(|(_, head)| length(head)).sum(),
    };
    let mut sessions = 0;
    for (stream, head) in &streams {
        match stream {
            StreamId::Session(_) => {
                snapshot_session(log, *stream)?;
                sessions += 1;
            }
            StreamId::Connection(_) => milestone::keep_of_connection(log, *stream)?,
            StreamId::Engine => {}
        }
        progress.done += length(head);
        report(progress);
    }
    snapshot_pending(log)?;
    Ok(sessions)
}

fn snapshot_session(log: &Log, stream: StreamId) -> Result<()> {
    let mut milestones = Milestones::at(Seq(0));
    let mut session = Session::default();
    for recorded in log.read(stream, Seq::FIRST) {
        session.apply(&recorded?);
        milestones.pass(log, stream, session.seq, &session);
    }
    put_snapshot(log, stream, session.seq, &session);
    Ok(())
}

fn snapshot_pending(log: &Log) -> Result<Pending> {
    let pending = pending(log)?;
    let seq = Seq(pending.position.0);
    put_snapshot(log, StreamId::Engine, seq, &pending);
    Ok(pending)
}

impl Cache {
    fn find(&mut self, id: SessionId) -> SharedSession {
        self.uses += 1;
        let entry = self.entries.entry(id).or_default();
        entry.used = self.uses;
        let found = entry.state.clone();
        if self.entries.len() > self.entries_max {
            self.forget();
            self.entries_max = self.capacity.max(self.entries.len() + self.capacity / 2);
        }
        found
    }

    /// Forgets the older half of what nobody holds: seldom, so that it costs little each time.
    fn forget(&mut self) {
        let mut stamps: Vec<u64> = self
            .entries
            .values()
            .filter(|entry| Arc::strong_count(&entry.state.0) == 1)
            .map(|entry| entry.used)
            .collect();
        let middle = stamps.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, median, _) = stamps.select_nth_unstable(middle);
        let median = *median;
        self.entries
            .retain(|_, entry| Arc::strong_count(&entry.state.0) > 1 || entry.used >= median);
    }
}

/// Gives how many bytes it has.
fn put_snapshot<P: Projection + Serialize>(
    log: &Log,
    stream: StreamId,
    seq: Seq,
    state: &P,
) -> usize {
    let bytes = derived::encode(state);
    let length = bytes.len();
    let snapshot = Snapshot {
        fold_version: P::VERSION,
        seq,
        bytes,
    };
    log.put_snapshot(stream, P::NAME, snapshot);
    length
}

/// At which event the next snapshot is due after one at `seq` of so many bytes.
fn snapshot_due(seq: Seq, bytes: usize) -> u64 {
    seq.0 + SNAPSHOT_EVERY.max(bytes as u64 / SNAPSHOT_BYTES_PER_EVENT)
}

/// A state as it was kept; by default, that of nothing.
struct Kept<P> {
    state: P,
    seq: Seq,
    bytes: usize,
}

impl<P: Default> Default for Kept<P> {
    fn default() -> Self {
        Self {
            state: P::default(),
            seq: Seq(0),
            bytes: 0,
        }
    }
}

impl<P> Kept<P> {
    fn due(&self) -> u64 {
        snapshot_due(self.seq, self.bytes)
    }
}

/// The state of a stream: its last snapshot, and the events after it.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn load<P: Projection + DeserializeOwned>(reader: &LogReader, stream: StreamId) -> Result<P> {
    let kept = snapshot::<P>(reader, stream)?.unwrap_or_default();
    fold_on(reader, stream, kept, Seq(u64::MAX))
}

/// What a kept state had become by the event of this number.
fn fold_on<P: Projection>(
    reader: &LogReader,
    stream: StreamId,
    kept: Kept<P>,
    through: Seq,
) -> Result<P> {
    let Kept { mut state, seq, .. } = kept;
    for recorded in reader.read(stream, seq.next()) {
        let recorded = recorded?;
        if recorded.seq > through {
            break;
        }
        state.apply(&recorded);
    }
    Ok(state)
}

fn snapshot<P: Projection + DeserializeOwned>(
    reader: &LogReader,
    stream: StreamId,
) -> Result<Option<Kept<P>>> {
    named(reader, stream, P::NAME)
}

/// The state that was kept under a name, if this build can read it.
fn named<P: Projection + DeserializeOwned>(
    reader: &LogReader,
    stream: StreamId,
    name: &str,
) -> Result<Option<Kept<P>>> {
    let Some(kept) = reader.snapshot(stream, name)? else {
        return Ok(None);
    };
    if kept.fold_version != P::VERSION {
        return Ok(None);
    }
    // One that cannot be read is as good as none: nothing but time is lost.
    let (seq, bytes) = (kept.seq, kept.bytes.len());
    let state = derived::decode(&kept.bytes).ok();
    Ok(state.map(|state| Kept { state, seq, bytes }))
}

/// What is open in the whole log: the last snapshot of it, and the events after it.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn pending(reader: &LogReader) -> Result<Pending> {
    let kept = snapshot::<Pending>(reader, StreamId::Engine)?.unwrap_or_default();
    let mut pending = kept.state;
    let from = Position(pending.position.0).next();
    for recorded in reader.read_all(from) {
        pending.apply(&recorded?);
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use recount_store::{Event, MessageId, Timestamp};

    use super::*;

    fn id(number: u8) -> SessionId {
        SessionId::from_bytes([number; 10])
    }

    fn queued(number: u8) -> Vec<NewEvent> {
        let event = Event::MessageQueued {
            message: MessageId::from_bytes([number; 10]),
            key: None,
            text: "hello".to_owned(),
        };
        vec![NewEvent::live(event, Timestamp(1))]
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten_and_read_again() {
        const CAPACITY: usize = 4;
        let states = StateStore::new(Log::in_memory().expect("a log"), CAPACITY);
        let held: Vec<_> = (0..10)
            .map(|number| states.session(id(number)).expect("it is empty"))
            .collect();
        for number in 0..100 {
            let appended = states.append(id(number), Expected::Any, queued(number));
            appended.await.expect("it is recorded");
            let kept = lock(&states.cache).entries.len();
            assert!(kept <= held.len() + 2 * CAPACITY, "{kept} are kept");
        }
        for (number, held) in (0..100).zip(held.iter().map(Some).chain([None].repeat(90))) {
            let again = states.session(id(number)).expect("it can be read");
            assert_eq!(again.with(|session| session.seq), Seq(1));
            let same = held.is_none_or(|held| Arc::ptr_eq(&held.0, &again.0));
            assert!(same, "what is held is the one that moves");
        }
        // Half of a step that somebody died in is not what is read next.
        lock(&held[0].0).session = Session::default();
        states.forget(id(0));
        let again = states.session(id(0)).expect("it can be read");
        assert_eq!(again.with(|session| session.seq), Seq(1));
    }

    #[test]
    fn snapshots_of_what_is_large_are_seldom() {
        assert_eq!(snapshot_due(Seq(7), 0), 1007);
        assert_eq!(snapshot_due(Seq(7), 1 << 20), 7 + 4096);
    }
}
