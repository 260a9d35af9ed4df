//! Reading ahead: what is long is copied from the storage by one thread while another one decodes it.
//!
//! Most of what reading costs is not the reader's: half is the storage, which finds pages, copies them and gives them
//! room. So a reader that has come some way has a thread do that part, a chunk or two ahead.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};

use crate::error::Result;
use crate::event::Recorded;
use crate::limits;
use crate::log::scan::Chunk;

/// Where records come from, a chunk at a time.
pub(crate) trait Fill: Send + 'static {
    /// Fills a chunk that is empty with what comes next; false where nothing does.
    fn fill(&mut self, chunk: &mut Chunk) -> Result<bool>;
}

/// The events that something brings, to its end or the first error.
pub(crate) struct Events<S: Fill> {
    places: &'static Places,
    way: Option<Way<S>>,
    chunk: Chunk,
    /// How many chunks were filled here.
    filled: u32,
    over: bool,
}

/// Who fills the chunks.
enum Way<S> {
    /// Whoever reads.
    Here(S),
    Ahead(Ahead<S>),
}

impl<S: Fill> Events<S> {
    pub(crate) fn new(source: S) -> Self {
        Self::within(&PLACES, source)
    }

    /// The same for one of many readers that share the work already: nothing is read ahead.
    pub(crate) fn beside_others(source: S) -> Self {
        Self::within(&NO_PLACES, source)
    }

    fn within(places: &'static Places, source: S) -> Self {
        Self {
            places,
            way: Some(Way::Here(source)),
            chunk: Chunk::default(),
            filled: 0,
            over: false,
        }
    }

    /// Has the next chunk; false where nothing comes next.
    fn fill(&mut self) -> Result<bool> {
        loop {
            match self.way.take() {
                None => return Ok(false),
                Some(Way::Here(source)) if self.filled == limits::AHEAD_AFTER_CHUNKS => {
                    self.filled = 0;
                    self.way = Some(match Ahead::start(self.places, source) {
                        Ok(ahead) => Way::Ahead(ahead),
                        Err(source) => Way::Here(source),
                    });
                }
                Some(Way::Here(mut source)) => {
                    self.chunk.clear();
                    let filled = source.fill(&mut self.chunk);
                    self.filled += 1;
                    self.way = Some(Way::Here(source));
                    return filled;
                }
                Some(Way::Ahead(ahead)) => {
                    let used = std::mem::take(&mut self.chunk);
                    if let Some(chunk) = ahead.next(used) {
                        self.way = Some(Way::Ahead(ahead));
                        self.chunk = chunk?;
                        return Ok(true);
                    }
                    // It met the end. More may have come by the time at which that is asked for, so the reader looks.
                    let source = ahead.end();
                    self.way = Some(Way::Here(
                        source.unwrap_or_else(|panic| resume_unwind(panic)),
                    ));
                }
            }
        }
    }
}

impl<S: Fill> Iterator for Events<S> {
    type Item = Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            if let Some(record) = self.chunk.next() {
                let decoded = record.decode();
                self.over = decoded.is_err();
                return Some(decoded);
            }
            match self.fill() {
                Ok(filled) => self.over = !filled,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl<S: Fill> Drop for Events<S> {
    fn drop(&mut self) {
        // The log is let go of when this returns, and may be opened again at once.
        if let Some(Way::Ahead(ahead)) = self.way.take() {
            // Nobody wants to know any more how it went.
            drop(ahead.end());
        }
    }
}

/// A thread that fills chunks ahead of who reads them.
struct Ahead<S> {
    filled: Receiver<Result<Chunk>>,
    /// Chunks that were read, whose memory is used again.
    used: Sender<Chunk>,
    thread: JoinHandle<S>,
}

impl<S: Fill> Ahead<S> {
    /// Has a thread go on with this source; gives it back where there are enough such threads, or can be no more.
    fn start(places: &'static Places, source: S) -> Result<Self, S> {
        let Some(place) = Place::take(places) else {
            return Err(source);
        };
        let (full, filled) = mpsc::sync_channel(limits::AHEAD_CHUNKS);
        let (used, empty) = mpsc::channel();
        // What a thread takes with it is lost where it cannot be started, so it is sent to it.
        let (give, source_for) = mpsc::sync_channel::<S>(1);
        let work = move || {
            let _place = place;
            let mut source = source_for
                .recv()
                .expect("it is given to whoever was started");
            fill_all(&mut source, &full, &empty);
            source
        };
        match thread::Builder::new()
            .name("recount-ahead".to_owned())
            .spawn(work)
        {
            Ok(thread) => {
                // It waits for that.
                let _ = give.send(source);
                Ok(Self {
                    filled,
                    used,
                    thread,
                })
            }
            Err(_) => Err(source),
        }
    }

    /// The next chunk, in exchange for one that was read; `None` where the source had come to its end.
    fn next(&self, used: Chunk) -> Option<Result<Chunk>> {
        let _ = self.used.send(used);
        self.filled.recv().ok()
    }

    /// Ends the thread, and gives the source that it worked with; an error is its panic.
    fn end(self) -> thread::Result<S> {
        drop(self.filled);
        self.thread.join()
    }
}

/// Fills chunks until the source ends or fails, or nobody wants them.
fn fill_all(source: &mut impl Fill, full: &SyncSender<Result<Chunk>>, empty: &Receiver<Chunk>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.clear();
        let filled = source.fill(&mut chunk);
        let goes_on = matches!(filled, Ok(true));
        let next = match filled {
            Ok(true) => Ok(chunk),
            Ok(false) => return,
            Err(error) => Err(error),
        };
        if full.send(next).is_err() || !goes_on {
            return;
        }
    }
}

/// How many more threads may read ahead.
type Places = AtomicUsize;

static PLACES: Places = Places::new(limits::AHEAD_THREADS_MAX);
static NO_PLACES: Places = Places::new(0);

/// One of them, until it is dropped.
struct Place(&'static Places);

impl Place {
    fn take(places: &'static Places) -> Option<Self> {
        let less = |places: usize| places.checked_sub(1);
        let taken = places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.ok().map(|_| Self(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::*;
    use crate::codec::Draft;
    use crate::error::Error;
    use crate::event::{Event, NewEvent};
    use crate::id::{Position, Seq, SessionId, StreamId, Timestamp};
    use crate::log::Hash;

    /// What filling comes to, one after the other; then nothing.
    enum Step {
        Records(u64),
        End,
        Fail,
        Panic,
    }

    struct Steps {
        left: VecDeque<Step>,
        next: u64,
        /// Held as long as this is.
        held: Arc<()>,
    }

    fn steps(steps: impl IntoIterator<Item = Step>) -> Steps {
        Steps {
            left: steps.into_iter().collect(),
            next: 1,
            held: Arc::default(),
        }
    }

    fn bad() -> Error {
        Error::Corrupt {
            position: Position(7),
            what: "it is bad".to_owned(),
        }
    }

    impl Fill for Steps {
        fn fill(&mut self, chunk: &mut Chunk) -> Result<bool> {
            match self.left.pop_front().unwrap_or(Step::End) {
                Step::Records(count) => {
                    let stream = StreamId::Session(SessionId::from_bytes([1; 10]));
                    let event = NewEvent::live(Event::SessionClosed, Timestamp(5));
                    for _ in 0..count {
                        let draft = Draft::encode(stream, std::slice::from_ref(&event));
                        let place = (Position(self.next), Seq(self.next));
                        let push = |record: crate::codec::Record<'_>| chunk.push(record);
                        draft?.place(place.0, place.1, Hash::ZERO, push);
                        self.next += 1;
                    }
                    Ok(true)
                }
                Step::End => Ok(false),
                Step::Fail => Err(bad()),
                Step::Panic => panic!("a mistake"),
            }
        }
    }

    /// More than is read before a thread reads ahead.
    fn many() -> impl Iterator<Item = Step> {
        (0..20).map(|n| Step::Records(n % 3))
    }

    const IN_MANY: u64 = 6 * 3 + 1;

    /// Reads in a process in which nobody else does.
    fn events(steps: Steps) -> Events<Steps> {
        Events::within(Box::leak(Box::new(Places::new(1))), steps)
    }

    fn numbers(events: impl Iterator<Item = Result<Recorded>>) -> Vec<u64> {
        events.map(|event| event.expect("an event").seq.0).collect()
    }

    fn through(first: u64, last: u64) -> Vec<u64> {
        (first..=last).collect()
    }

    fn is_ahead<S: Fill>(events: &Events<S>) -> bool {
        matches!(events.way, Some(Way::Ahead(_)))
    }

    #[test]
    fn what_is_read_ahead_is_all_there_is_in_order() {
        let mut events = events(steps(many()));
        let first = numbers(events.by_ref().take(9));
        assert!(is_ahead(&events));
        assert_eq!([first, numbers(events)].concat(), through(1, IN_MANY));
    }

    #[test]
    fn what_comes_after_the_end_was_met_is_read() {
        let steps = steps(many().chain([Step::End, Step::Records(2), Step::End]));
        assert_eq!(numbers(events(steps)), through(1, IN_MANY + 2));
    }

    #[test]
    fn an_error_comes_after_what_stands_before_it_and_is_the_last() {
        let mut events = events(steps(many().chain([Step::Fail, Step::Records(1)])));
        let before = numbers(events.by_ref().take(19));
        assert_eq!(before, through(1, IN_MANY));
        let error = events.next().expect("something").expect_err("an error");
        assert_eq!(error.to_string(), bad().to_string());
        assert!(events.next().is_none());
    }

    #[test]
    #[should_panic(expected = "a mistake")]
    fn a_mistake_of_who_reads_ahead_is_the_readers() {
        events(steps(many().chain([Step::Panic]))).for_each(drop);
    }

    #[test]
    fn nothing_isheld_once_the_reader_is_gone() {
        let steps = steps(many());
        let held = Arc::clone(&steps.held);
        let mut events = events(steps);
        numbers(events.by_ref().take(9));
        assert!(is_ahead(&events));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(events);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn who_comes_when_all_threads_are_taken_reads_for_itself() {
        let places: &Places = Box::leak(Box::new(Places::new(2)));
        let reader = || {
            let mut reader = Events::within(places, steps(many()));
            assert_eq!(numbers(reader.by_ref().take(9)), through(1, 9));
            reader
        };
        let readers = [reader(), reader(), reader()];
        assert_eq!(readers.each_ref().map(is_ahead), [true, true, false]);
        for reader in readers {
            assert_eq!(numbers(reader), through(10, IN_MANY));
        }
        assert!(is_ahead(&reader()), "the places are free again");
    }
}
