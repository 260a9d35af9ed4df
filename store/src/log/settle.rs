//! Settling: what gathered in a file of the journal goes into the tables, all in one commit.
//!
//! A thread of its own does it, so that appends go on meanwhile. What it writes is durable already; what
//! it gains is order: blocks that are full, an index, and a file of the journal to use again.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use redb::WriteTransaction;

use crate::error::{Error, Result};
use crate::id::Position;
use crate::log::block;
use crate::log::frames;
use crate::log::reader::Shared;
use crate::log::recent::Generation;
use crate::log::storage::Fault;
use crate::log::table;

/// What the thread does.
pub(crate) enum Job {
    /// Settles a generation.
    Settle(Arc<Generation>),
    /// Does what cannot be done while something settles, and says by itself how that went.
    Upkeep(Upkeep),
}

/// See [`Job::Upkeep`]. It is given the log, or why it cannot be had.
pub(crate) type Upkeep = Box<dyn FnOnce(Result<&Shared>) + Send>;

/// The thread that settles; without one, a job is done as soon as it is begun.
pub(crate) struct Settler {
    /// `None` only while this is dropped.
    jobs: Option<Jobs>,
    outcomes: mpsc::Receiver<Result<()>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

/// Who does the jobs.
enum Jobs {
    Thread(mpsc::Sender<Job>),
    /// Whoever begins one, who leaves word how it went.
    Here(Arc<Shared>, mpsc::Sender<Result<()>>),
}

impl Settler {
    /// Starts the thread, where there is to be one.
    pub(crate) fn start(shared: Arc<Shared>, threads: bool) -> std::io::Result<Self> {
        let (answer, outcomes) = mpsc::channel();
        let (jobs, thread) = if threads {
            let (jobs, incoming) = mpsc::channel();
            let run = move || {
                for job in incoming {
                    if answer.send(perform(&shared, job)).is_err() {
                        break;
                    }
                }
            };
            let named = std::thread::Builder::new().name("recount-settle".to_owned());
            (Jobs::Thread(jobs), Some(named.spawn(run)?))
        } else {
            (Jobs::Here(shared, answer), None)
        };
        Ok(Self {
            jobs: Some(jobs),
            outcomes,
            busy: false,
            thread,
        })
    }

    /// Begins a job; none may be under way.
    pub(crate) fn begin(&mut self, job: Job) -> Result<()> {
        assert!(!self.busy, "one job at a time");
        let sent = match &self.jobs {
            Some(Jobs::Thread(jobs)) => jobs.send(job).is_ok(),
            Some(Jobs::Here(shared, answer)) => answer.send(perform(shared, job)).is_ok(),
            None => false,
        };
        self.busy = true;
        if sent { Ok(()) } else { Err(Error::Closed) }
    }

    /// Whether a job is under way.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] where settling failed: the log can go no further.
    pub(crate) fn is_busy(&mut self) -> Result<bool> {
        if self.busy {
            match self.outcomes.try_recv() {
                Err(mpsc::TryRecvError::Empty) => return Ok(true),
                outcome => {
                    self.busy = false;
                    outcome.unwrap_or(Err(Error::Closed))?;
                }
            }
        }
        Ok(false)
    }

    /// Waits until no job is under way.
    ///
    /// # Errors
    ///
    /// As [`Settler::is_busy`].
    pub(crate) fn wait(&mut self) -> Result<()> {
        if std::mem::take(&mut self.busy) {
            self.outcomes.recv().unwrap_or(Err(Error::Closed))?;
        }
        Ok(())
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn perform(shared: &Shared, job: Job) -> Result<()> {
    match job {
        Job::Settle(generation) => settle(shared, &generation),
        Job::Upkeep(upkeep) => {
            upkeep(Ok(shared));
            Ok(())
        }
    }
}

/// Settles a generation, and the snapshots that wait.
fn settle(shared: &Shared, generation: &Generation) -> Result<()> {
    let snapshots = shared
        .storage
        .change(|transaction| {
            write(transaction, generation)?;
            shared.snapshots.write(transaction)
        })
        .map_err(|fault| {
            let cause = fault.to_string();
            tracing::error!(%cause, "settling failed; the log takes no more writes");
            Error::Failed {
                cause: cause.into(),
            }
        })?;
    // Gathered before the lock is taken, which appends and readers wait for.
    let ends = generation.get().index.tips();
    shared.recent().settled(ends);
    shared.snapshots.written(&snapshots);
    Ok(())
}

fn write(transaction: &WriteTransaction, generation: &Generation) -> Result<(), Fault> {
    let inner = generation.get();
    let joined = block::join(&inner.blocks)?;
    let mut table = transaction.open_table(table::BLOCKS)?;
    for (first, bytes) in &joined {
        let old = table.insert(first.0, bytes.as_ref())?;
        assert!(old.is_none(), "a block is written once");
    }
    drop(table);
    let holder = |position: Position| {
        let after = joined.partition_point(|(first, _)| *first <= position);
        joined[after - 1].0
    };
    inner
        .index
        .write(transaction, inner.after.tip.position, holder)?;
    if !inner.frames.is_empty() {
        frames::settle(transaction, inner.frames.iter().map(|run| &**run))?;
    }
    Ok(())
}
