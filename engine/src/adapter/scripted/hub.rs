//! The streams that are open, and what is on its way to them.
//!
//! Each frame is written once as bytes and copied to the end of each stream's buffer; a stream takes
//! its whole buffer at once. At full speed one write to a socket carries hundreds of frames.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// How many bytes may wait for one stream before the agent waits a little. The real agent's queue has
/// no bound; this one would otherwise hold a whole answer at full speed.
const WAITING_MAX: usize = 1 << 20;

/// How long the agent waits at most for one stream that is not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// All open streams of one server.
#[derive(Debug, Default)]
pub(super) struct Hub {
    streams: Mutex<Vec<Weak<Outbox>>>,
    taken: Arc<Notify>,
}

/// What is on its way to one stream.
#[derive(Debug)]
struct Outbox {
    waiting: Mutex<Waiting>,
    taken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: BytesMut,
    reader: Option<Waker>,
}

/// The reading end: the body of a response.
#[derive(Debug)]
pub(super) struct Stream(Arc<Outbox>);

impl Hub {
    /// Opens a stream that begins with `first`.
    pub(super) fn open(&self, first: &[u8]) -> Stream {
        let outbox = Arc::new(Outbox {
            waiting: Mutex::default(),
            taken: Arc::clone(&self.taken),
        });
        locked(&outbox.waiting).bytes.extend_from_slice(first);
        let mut streams = locked(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&outbox));
        Stream(outbox)
    }

    /// Sends bytes to all streams.
    pub(super) fn send(&self, bytes: &[u8]) {
        for stream in locked(&self.streams).iter().filter_map(Weak::upgrade) {
            let mut waiting = locked(&stream.waiting);
            waiting.bytes.extend_from_slice(bytes);
            let reader = waiting.reader.take();
            drop(waiting);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }

    /// How many streams are open.
    pub(super) fn open_streams(&self) -> usize {
        let streams = locked(&self.streams);
        streams.iter().filter(|s| s.strong_count() > 0).count()
    }

    /// Waits while too much is on its way.
    pub(super) async fn flow(&self) {
        self.wait_below(WAITING_MAX).await;
    }

    /// Waits until nothing is on its way.
    pub(super) async fn drained(&self) {
        self.wait_below(0).await;
    }

    async fn wait_below(&self, bytes_max: usize) {
        let below = async {
            loop {
                // Asked for before the look, so that what is taken between the two is not missed.
                let taken = self.taken.notified();
                let longest = {
                    let streams = locked(&self.streams);
                    let lengths = streams
                        .iter()
                        .filter_map(Weak::upgrade)
                        .map(|stream| locked(&stream.waiting).bytes.len());
                    lengths.max().unwrap_or(0)
                };
                if longest <= bytes_max {
                    return;
                }
                taken.await;
            }
        };
        // A stream that nobody reads holds nobody up for long.
        let _ = tokio::time::timeout(PATIENCE, below).await;
    }
}

impl Stream {
    /// All that has come since the last time.
    pub(super) fn poll_take(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Bytes> {
        let mut waiting = locked(&self.0.waiting);
        if waiting.bytes.is_empty() {
            waiting.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = waiting.bytes.split().freeze();
        drop(waiting);
        self.0.taken.notify_waiters();
        Poll::Ready(bytes)
    }
}

/// What a lock guards; a panic elsewhere leaves it usable, since no change is made in two steps.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
