//! Sharing commits, for the peers: the same as the log's writer does it, so that only the storage differs.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::history::Key;

/// What a peer is given to keep.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which session.
    pub session: Key,
    /// Its number in the session.
    pub seq: u64,
    /// The event.
    pub bytes: Vec<u8>,
}

/// Something that keeps rows.
pub trait Sink: Send + 'static {
    /// Keeps rows, and returns when they are durable.
    fn commit(&mut self, rows: &[Row]);
}

/// A thread that commits once for all who wait.
#[derive(Debug)]
pub struct Group {
    queue: Option<mpsc::Sender<(Row, oneshot::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    /// Starts the thread.
    pub fn start(mut sink: impl Sink) -> Self {
        let (queue, mut incoming) = mpsc::channel::<(Row, oneshot::Sender<()>)>(4096);
        let thread = std::thread::spawn(move || {
            let (mut rows, mut answers) = (Vec::new(), Vec::new());
            while let Some((row, answer)) = incoming.blocking_recv() {
                rows.push(row);
                answers.push(answer);
                let mut yielded = false;
                loop {
                    if let Ok((row, answer)) = incoming.try_recv() {
                        rows.push(row);
                        answers.push(answer);
                        yielded = false;
                    } else if yielded {
                        break;
                    } else {
                        std::thread::yield_now();
                        yielded = true;
                    }
                }
                sink.commit(&rows);
                rows.clear();
                for answer in answers.drain(..) {
                    let _ = answer.send(());
                }
            }
        });
        Self {
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    /// Appends a row and resolves when it is durable.
    ///
    /// # Panics
    ///
    /// If the thread did.
    pub async fn append(&self, row: Row) {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().expect("it is open until it is dropped");
        queue
            .send((row, answer))
            .await
            .expect("the thread is there");
        answered.await.expect("the thread answers");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread ends well");
        }
    }
}
