//! The one thread that writes.
//!
//! It takes everything that waits, commits once for all of it, and answers all. While it commits, the
//! next batch gathers by itself; there is no timer, so an appender who is alone waits for one commit
//! and nothing else. The thread blocks on the disk, which is why it is a thread and no task.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::codec::Draft;
use crate::error::{Error, Result};
use crate::id::{Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Tip};
use crate::log::plan::{Placed, Plan};
use crate::log::reader::Shared;
use crate::log::storage::Fault;
use crate::log::{Expected, Hash, Head, table};

/// The way to the writer. The writer ends when it is asked to, or when this is dropped.
pub(crate) struct Handle {
    /// `None` only while this is dropped.
    queue: Option<mpsc::Sender<Message>>,
    /// One permit for each KiB that may wait.
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Append(Append),
    /// Write what is derived; nobody waits for it.
    WriteDerived,
    Close(oneshot::Sender<Result<()>>),
}

struct Append {
    stream: StreamId,
    expected: Expected,
    draft: Draft,
    answer: oneshot::Sender<Result<Placed>>,
    /// Given back when this is answered.
    _room: OwnedSemaphorePermit,
}

impl Handle {
    /// Starts the writer of a log that stands at `tip`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system gives no thread.
    pub(crate) fn start(
        shared: Arc<Shared>,
        tip: Tip,
        durable: watch::Sender<Head>,
    ) -> Result<Self> {
        let (queue, incoming) = mpsc::channel(limits::QUEUE_APPENDS_MAX);
        let path = shared.storage.path().to_owned();
        let writer = Writer {
            shared,
            tip,
            durable,
            incoming,
        };
        let thread = std::thread::Builder::new()
            .name("recount-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| Error::Io {
                action: "start the writer of",
                path,
                source: Arc::new(source),
            })?;
        Ok(Self {
            queue: Some(queue),
            room: Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX / 1024)),
            thread: Some(thread),
        })
    }

    /// Queues an append and resolves when it is durable, or refused.
    ///
    /// From the moment that it is queued it no longer depends on this future.
    pub(crate) async fn append(
        &self,
        stream: StreamId,
        expected: Expected,
        draft: Draft,
    ) -> Result<Placed> {
        // An append's own limit is below that of all that wait, so this is always possible.
        let size = u32::try_from(draft.len().div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(size)
            .await
            .map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.send(Message::Append(Append {
            stream,
            expected,
            draft,
            answer,
            _room: room,
        }))
        .await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Commits what waits, writes what is derived, and lets go of the file.
    pub(crate) async fn close(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        match self.send(Message::Close(answer)).await {
            Ok(()) => answered.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Asks for derived data to be written soon, unless the queue is full: then it comes by anyway.
    pub(crate) fn nudge(&self) {
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(Message::WriteDerived);
        }
    }

    async fn send(&self, message: Message) -> Result<()> {
        match &self.queue {
            Some(queue) => queue.send(message).await.map_err(|_| Error::Closed),
            None => Err(Error::Closed),
        }
    }
}

impl Drop for Handle {
    /// Waits for the writer to end, so that the file is free when this returns.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    tip: Tip,
    durable: watch::Sender<Head>,
    incoming: mpsc::Receiver<Message>,
}

impl Writer {
    fn run(mut self) {
        let mut failed = None;
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = self.incoming.blocking_recv() else {
                break;
            };
            let mut batch = Batch::default();
            self.gather(first, &mut batch);
            closing = batch.closing.take();
            if failed.is_none() {
                failed = self.write(batch).err();
            } else {
                batch.refuse(failed.as_ref());
            }
        }
        let derived = match failed {
            None => self.write_derived(),
            Some(error) => Err(error),
        };
        let closed = self
            .shared
            .storage
            .close()
            .map_err(|fault| fault.near(self.tip.position));
        if let Some(answer) = closing {
            let _ = answer.send(derived.and(closed));
        }
    }

    /// Takes what waits, up to what one commit may hold.
    ///
    /// Those who were just answered tend to come back together, but the first of them wakes this thread:
    /// a commit for it alone would let the others wait for two. So when nothing more is there the other
    /// threads get the processor once, and it goes on only while that brings something. Who is alone pays
    /// for one look at an empty queue.
    fn gather(&mut self, first: Message, batch: &mut Batch) {
        batch.take(first);
        let mut yielded = false;
        while !batch.is_full() {
            match self.incoming.try_recv() {
                Ok(message) => {
                    batch.take(message);
                    yielded = false;
                }
                Err(_) if yielded => break,
                Err(_) => {
                    std::thread::yield_now();
                    yielded = true;
                }
            }
        }
    }

    /// Commits a batch and answers all of it. An error is final: it is what all later appends get.
    fn write(&mut self, batch: Batch) -> Result<()> {
        let mut plan = Plan::after(self.tip);
        let mut answers = Vec::with_capacity(batch.appends.len());
        for append in batch.appends {
            let end = match self.end(&plan, append.stream) {
                Ok(end) => end,
                Err(error) => {
                    let _ = append.answer.send(Err(error));
                    continue;
                }
            };
            answers.push((
                append.answer,
                plan.add(append.stream, append.expected, append.draft, end),
            ));
        }
        let result = self.commit(plan, batch.write_derived);
        for (answer, planned) in answers {
            // An appender that went away needs no answer; what it wanted is done.
            let _ = answer.send(match &result {
                Ok(()) => planned,
                Err(error) => Err(error.clone()),
            });
        }
        result
    }

    /// The number and the hash of a stream's last record, with those that this commit will add.
    fn end(&self, plan: &Plan, stream: StreamId) -> Result<(Seq, Hash)> {
        let key = stream.to_bytes();
        if let Some(end) = plan.end(&key) {
            return Ok(end);
        }
        let known = self.shared.index().end_in_memory(&key);
        if let Some(end) = known {
            return Ok(end);
        }
        let end = self
            .shared
            .look_up(|index, transaction| index.end(transaction, &key))?;
        Ok(end.map_or((Seq(0), Hash::ZERO), |end| (end.head.seq, end.hash)))
    }

    fn commit(&mut self, plan: Plan, derived_asked: bool) -> Result<()> {
        let (tip, blocks) = plan.finish();
        let derived = derived_asked || self.shared.index().lags() || self.shared.snapshots.lags();
        if blocks.is_empty() && !derived {
            return Ok(());
        }
        self.change(derived, |transaction| {
            let mut table = transaction.open_table(table::BLOCKS)?;
            for (first, bytes) in &blocks {
                let old = table.insert(first.0, bytes.as_slice())?;
                assert!(old.is_none(), "a block is written once");
            }
            Ok(())
        })?;
        {
            let mut index = self.shared.index();
            for (first, bytes) in &blocks {
                index.note(Block::parse(first.0, bytes)?)?;
            }
        }
        self.tip = tip;
        self.durable.send_replace(tip.into());
        Ok(())
    }

    /// Writes what is derived and not written yet.
    fn write_derived(&mut self) -> Result<()> {
        if self.shared.index().is_flushed() && self.shared.snapshots.is_empty() {
            return Ok(());
        }
        self.change(true, |_| Ok(()))
    }

    /// One commit, with what is derived if so asked.
    fn change(
        &mut self,
        derived: bool,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Fault>,
    ) -> Result<()> {
        let shared = &self.shared;
        let rows = derived.then(|| shared.index().unflushed());
        let snapshots = shared
            .storage
            .change(|transaction| {
                change(transaction)?;
                let Some(rows) = &rows else {
                    return Ok(Vec::new());
                };
                rows.write(transaction)?;
                shared.snapshots.write(transaction)
            })
            .map_err(|fault| {
                let cause = fault.to_string();
                tracing::error!(%cause, "a commit failed; the log takes no more writes");
                Error::Failed {
                    cause: cause.into(),
                }
            })?;
        if let Some(rows) = &rows {
            shared.index().flushed(rows);
            shared.snapshots.written(&snapshots);
        }
        Ok(())
    }
}

/// What one commit is made for.
#[derive(Default)]
struct Batch {
    appends: Vec<Append>,
    bytes: usize,
    write_derived: bool,
    closing: Option<oneshot::Sender<Result<()>>>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Append(append) => {
                self.bytes += append.draft.len();
                self.appends.push(append);
            }
            Message::WriteDerived => self.write_derived = true,
            Message::Close(answer) => self.closing = Some(answer),
        }
    }

    /// Whether no more is taken: it is large, or nothing may come after what it has.
    fn is_full(&self) -> bool {
        self.bytes >= limits::COMMIT_BYTES_MAX || self.closing.is_some()
    }

    fn refuse(self, error: Option<&Error>) {
        for append in self.appends {
            let _ = append
                .answer
                .send(Err(error.cloned().unwrap_or(Error::Closed)));
        }
    }
}
