//! The one thread that writes.
//!
//! It takes everything that waits, makes it durable with one entry in the journal, and answers all. While
//! it does, the next batch gathers by itself; there is no timer, so an appender who is alone waits for one
//! commit and nothing else. The thread blocks on the disk, which is why it is a thread and no task.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{EventId, Position, Seq, StreamId};
use crate::limits;
use crate::log::follow::Last;
use crate::log::frames::Run;
use crate::log::journal::{Entry, Journal, Mark};
use crate::log::plan::{Before, Outcome, Part, Plan};
use crate::log::reader::Shared;
use crate::log::scan::Scan;
use crate::log::settle::{Job, Settler, Upkeep};
use crate::log::{Hash, Head, Select};

/// Which part of the time of a commit is spent on waiting for those who may come back. Measured: with 16
/// appenders a half brings a fifth more events than none, a whole no more than that.
const GATHER_FRACTION: u32 = 2;

/// The way to the writer. The writer ends when it is asked to, or when this is dropped.
pub(crate) struct Handle {
    way: Way,
    /// One permit for each KiB that may wait.
    room: Arc<Semaphore>,
}

/// Where the writer works.
enum Way {
    /// In a thread of its own.
    Thread {
        /// `None` only while the handle is dropped.
        queue: Option<mpsc::Sender<Message>>,
        thread: Option<JoinHandle<()>>,
    },
    /// In the thread of whoever asks, and at once: what happens when is then up to who asks.
    Here {
        /// `None` once it has ended.
        writer: Mutex<Option<Box<Writer>>>,
        pace: Pace,
    },
}

/// How long whoever appends waits for the answer once it is durable. For tests, whose disk takes no time of its own.
pub(crate) type Pace = Box<dyn Fn() -> Duration + Send + Sync>;

enum Message {
    Append(Append),
    /// Settle what has gathered; nobody waits for it.
    Settle,
    /// Write the frames that wait, if nobody appends; nobody waits for it.
    Frames,
    /// Settle everything, then do this.
    Upkeep(Upkeep),
    /// Let go of this when nothing is under way.
    Quiet(oneshot::Sender<()>),
    Close(oneshot::Sender<Result<()>>),
}

struct Append {
    parts: Vec<Part>,
    answer: oneshot::Sender<Result<Outcome>>,
    /// Given back when this is answered.
    _room: OwnedSemaphorePermit,
}

impl Handle {
    /// Starts the writer of a log that stands at `mark`, where `journal` goes on: in a thread, unless there is a pace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system gives no thread.
    pub(crate) fn start(
        shared: Arc<Shared>,
        mark: Mark,
        journal: Journal,
        durable: watch::Sender<Head>,
        pace: Option<Pace>,
    ) -> Result<Self> {
        let path = shared.storage.path().to_owned();
        let start = |source: io::Error| Error::Io {
            action: "start the writer of",
            path: path.clone(),
            source: Arc::new(source),
        };
        let mut settler = Settler::start(Arc::clone(&shared), pace.is_none()).map_err(start)?;
        let waiting = shared.recent().settling.clone();
        if let Some(waiting) = waiting {
            settler.begin(Job::Settle(waiting))?;
        }
        let writer = Writer {
            shared,
            mark,
            journal,
            settler,
            durable,
            answered: 0,
            commit_took: Duration::ZERO,
            failed: None,
        };
        let way = if let Some(pace) = pace {
            let writer = Mutex::new(Some(Box::new(writer)));
            Way::Here { writer, pace }
        } else {
            let (queue, incoming) = mpsc::channel(limits::QUEUE_APPENDS_MAX);
            let thread = std::thread::Builder::new()
                .name("recount-log".to_owned())
                .spawn(move || writer.run(incoming))
                .map_err(start)?;
            Way::Thread {
                queue: Some(queue),
                thread: Some(thread),
            }
        };
        Ok(Self {
            way,
            room: Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX / 1024)),
        })
    }

    /// Queues an append and resolves when it is durable, or refused.
    ///
    /// From the moment that it is queued it no longer depends on this future.
    pub(crate) async fn append(&self, parts: Vec<Part>) -> Result<Outcome> {
        // An append's own limit is below that of all that wait, so this is always possible.
        let bytes: usize = parts.iter().map(|part| part.draft.len()).sum();
        let size = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(size)
            .await
            .map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.send(Message::Append(Append {
            parts,
            answer,
            _room: room,
        }))
        .await?;
        let outcome = answered.await.map_err(|_| Error::Closed)?;
        if let Way::Here { pace, .. } = &self.way {
            let wait = pace();
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        outcome
    }

    /// Commits what waits, settles everything, and lets go of the files.
    pub(crate) async fn close(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        match self.send(Message::Close(answer)).await {
            Ok(()) => answered.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Does something to the settled log that cannot be done while something settles.
    pub(crate) async fn upkeep<T: Send + 'static>(
        &self,
        upkeep: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Upkeep(Box::new(move |shared| {
            // Whoever asked and went away needs no answer.
            let _ = answer.send(shared.and_then(upkeep));
        })))
        .await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Resolves when what was queued before is done, and nothing settles.
    pub(crate) async fn quiet(&self) {
        let (answer, answered) = oneshot::channel();
        if self.send(Message::Quiet(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Asks for settling soon, unless the queue is full: then it comes by anyway.
    pub(crate) fn settle_soon(&self) {
        self.nudge(Message::Settle);
    }

    /// Asks for the frames that wait to be written soon, unless the queue is full: then it comes by anyway.
    pub(crate) fn write_frames_soon(&self) {
        self.nudge(Message::Frames);
    }

    fn nudge(&self, message: Message) {
        match &self.way {
            Way::Thread { queue, .. } => {
                let _ = queue.as_ref().map(|queue| queue.try_send(message));
            }
            Way::Here { writer, .. } => {
                let _ = serve_here(writer, message);
            }
        }
    }

    async fn send(&self, message: Message) -> Result<()> {
        match &self.way {
            Way::Thread { queue, .. } => match queue {
                Some(queue) => queue.send(message).await.map_err(|_| Error::Closed),
                None => Err(Error::Closed),
            },
            Way::Here { writer, .. } => serve_here(writer, message),
        }
    }
}

/// Serves one message in this thread.
fn serve_here(writer: &Mutex<Option<Box<Writer>>>, message: Message) -> Result<()> {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = Batch::default();
    batch.take(message);
    let go = writer.as_mut().ok_or(Error::Closed)?.serve(batch);
    if go.is_break() {
        *writer = None;
    }
    Ok(())
}

impl Drop for Handle {
    /// Waits for the writer to end, so that the files are free when this returns.
    fn drop(&mut self) {
        match &mut self.way {
            Way::Thread { queue, thread } => {
                *queue = None;
                if let Some(thread) = thread.take() {
                    // A writer that panicked has nothing more to say.
                    let _ = thread.join();
                }
            }
            Way::Here { writer, .. } => {
                let writer = writer.get_mut().unwrap_or_else(PoisonError::into_inner);
                // Nobody is there any more to be told how it went.
                let _ = writer.as_mut().map(|writer| writer.close());
            }
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    mark: Mark,
    journal: Journal,
    settler: Settler,
    durable: watch::Sender<Head>,
    /// How many were answered last, and how long their commit took.
    answered: usize,
    commit_took: Duration,
    /// The first error, which is final.
    failed: Option<Error>,
}

impl Writer {
    fn run(mut self, mut incoming: mpsc::Receiver<Message>) {
        while let Some(first) = incoming.blocking_recv() {
            let batch = self.gather(first, &mut incoming);
            if self.serve(batch).is_break() {
                return;
            }
        }
        // Nobody is there any more to be told how it went.
        let _ = self.close();
    }

    /// Does all of a batch; breaks once that was the end of it.
    fn serve(&mut self, mut batch: Batch) -> ControlFlow<()> {
        let closing = batch.closing.take();
        let quiet = std::mem::take(&mut batch.quiet);
        if self.failed.is_none() {
            self.failed = self.write(batch).err();
        } else {
            batch.refuse(self.failed.as_ref());
        }
        if self.failed.is_none() && !quiet.is_empty() {
            self.failed = self.settler.wait().err();
        }
        let Some(answer) = closing else {
            return ControlFlow::Continue(());
        };
        let _ = answer.send(self.close());
        ControlFlow::Break(())
    }

    /// Takes what waits, up to what one commit may hold.
    ///
    /// Those who were just answered tend to come back together, but the first of them wakes this thread:
    /// a commit for it alone would let the others wait for two. So as long as fewer are here than were
    /// answered last, the other threads get the processor, for a fraction of what a commit takes. Who is
    /// alone was answered alone, and does not wait.
    fn gather(&self, first: Message, incoming: &mut mpsc::Receiver<Message>) -> Batch {
        let mut batch = Batch::default();
        batch.take(first);
        let begun = Instant::now();
        let patience = self.commit_took / GATHER_FRACTION;
        let mut yielded = false;
        while !batch.is_full() {
            match incoming.try_recv() {
                Ok(message) => {
                    batch.take(message);
                    yielded = false;
                }
                Err(_) if batch.appends.len() < self.answered && begun.elapsed() < patience => {
                    std::thread::yield_now();
                }
                Err(_) if yielded => break,
                Err(_) => {
                    std::thread::yield_now();
                    yielded = true;
                }
            }
        }
        batch
    }

    /// Commits a batch and answers all of it. An error is final: it is what all later appends get.
    fn write(&mut self, batch: Batch) -> Result<()> {
        let mut plan = Plan::after(self.mark.tip);
        let mut answers = Vec::with_capacity(batch.appends.len());
        for append in batch.appends {
            let planned = plan.add(append.parts, &*self.shared);
            answers.push((append.answer, planned));
        }
        let begun = Instant::now();
        let result = self.commit(plan);
        self.commit_took = begun.elapsed();
        self.answered = answers.len();
        for (answer, planned) in answers {
            // An appender that went away needs no answer; what it wanted is done.
            let _ = answer.send(match &result {
                Ok(()) => planned,
                Err(error) => Err(error.clone()),
            });
        }
        let ready = result.and_then(|()| match batch.upkeep {
            None => self.settle(batch.settle),
            Some(_) => self.settle_all(),
        });
        match (ready, batch.upkeep) {
            (Ok(()), Some(upkeep)) => self.settler.begin(Job::Upkeep(upkeep)),
            (Err(error), Some(upkeep)) => {
                upkeep(Err(error.clone()));
                Err(error)
            }
            (ready, None) => ready,
        }
    }

    fn commit(&mut self, plan: Plan) -> Result<()> {
        let (tip, blocks) = plan.finish();
        // After the appends: what they tell of is in it, or was in an earlier one.
        let frames = self.shared.gathering.take();
        if blocks.is_empty() && frames.is_none() {
            return Ok(());
        }
        let before = self.mark;
        let next_frame = frames.as_ref().map_or(before.next_frame, Run::next);
        let after = Mark { tip, next_frame };
        self.journal
            .append(before, &blocks, frames.as_ref())
            .map_err(|error| failed(&error))?;
        let growing = Arc::clone(&self.shared.recent().growing);
        growing.add(Entry {
            before,
            after,
            blocks,
            frames,
        })?;
        self.mark = after;
        self.durable.send_replace(tip.into());
        Ok(())
    }

    /// Lets settle what has gathered, if it is time.
    fn settle(&mut self, asked: bool) -> Result<()> {
        let due = asked || self.journal.is_full() || self.shared.snapshots.lags();
        if !due {
            return Ok(());
        }
        if self.settler.is_busy()? {
            // There is time, but not without end: what gathers is in memory.
            if !self.journal.is_overfull() {
                return Ok(());
            }
            self.settler.wait()?;
        }
        self.settle_growing()
    }

    /// Settles everything and lets go of the files.
    fn close(&mut self) -> Result<()> {
        let settled = match self.failed.take() {
            Some(error) => Err(error),
            None => self
                .settle_all()
                .and_then(|()| self.journal.clear().map_err(|error| failed(&error))),
        };
        // Nothing of ours reads or writes after this.
        let journal = self.journal.close().map_err(|error| failed(&error));
        let storage = self.shared.storage.close();
        let storage = storage.map_err(|fault| failed(&fault));
        settled.and(journal).and(storage)
    }

    fn settle_all(&mut self) -> Result<()> {
        self.commit(Plan::after(self.mark.tip))?;
        self.settler.wait()?;
        let nothing = self.shared.recent().growing.get().is_empty();
        if !nothing || !self.shared.snapshots.is_empty() {
            self.settle_growing()?;
            self.settler.wait()?;
        }
        Ok(())
    }

    /// Lets settle what has gathered, and goes on in the other file of the journal.
    fn settle_growing(&mut self) -> Result<()> {
        self.journal.switch().map_err(|error| failed(&error))?;
        let full = self.shared.recent().rotate();
        self.settler.begin(Job::Settle(full))
    }
}

fn failed(error: &impl ToString) -> Error {
    let cause = error.to_string();
    tracing::error!(%cause, "a write failed; the log takes no more");
    Error::Failed {
        cause: cause.into(),
    }
}

impl Before for Shared {
    fn end(&self, stream: StreamId) -> Result<(Seq, Hash)> {
        let key = stream.to_bytes();
        // The lock ends here: the look below takes it, too.
        let known = self.recent().end(&key);
        if let Some(end) = known {
            return Ok(end);
        }
        let end = self.look(|view| view.end(&key))?;
        Ok(end.map_or((Seq(0), Hash::ZERO), |end| (end.head.seq, end.hash)))
    }

    fn position_of(&self, id: EventId) -> Result<Option<Position>> {
        self.look(|view| view.position_of(id))
    }

    fn events(&self, from: Position, count: usize) -> Result<Vec<Recorded>> {
        let mut scan = Scan::new(Select::All, from);
        std::iter::from_fn(|| scan.next(self, Last::Sync))
            .take(count)
            .collect()
    }
}

/// What one commit is made for.
#[derive(Default)]
struct Batch {
    appends: Vec<Append>,
    bytes: usize,
    settle: bool,
    upkeep: Option<Upkeep>,
    quiet: Vec<oneshot::Sender<()>>,
    closing: Option<oneshot::Sender<Result<()>>>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Append(append) => {
                self.bytes += append
                    .parts
                    .iter()
                    .map(|part| part.draft.len())
                    .sum::<usize>();
                self.appends.push(append);
            }
            Message::Settle => self.settle = true,
            Message::Frames => {}
            Message::Upkeep(upkeep) => self.upkeep = Some(upkeep),
            Message::Quiet(answer) => self.quiet.push(answer),
            Message::Close(answer) => self.closing = Some(answer),
        }
    }

    /// Whether no more is taken: it is large, or nothing may come after what it has.
    fn is_full(&self) -> bool {
        self.bytes >= limits::COMMIT_BYTES_MAX || self.upkeep.is_some() || self.closing.is_some()
    }

    fn refuse(self, error: Option<&Error>) {
        let error = error.cloned().unwrap_or(Error::Closed);
        for append in self.appends {
            let _ = append.answer.send(Err(error.clone()));
        }
        if let Some(upkeep) = self.upkeep {
            upkeep(Err(error));
        }
    }
}
