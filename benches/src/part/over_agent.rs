//! Parts that open an engine over an agent.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recount_engine::{MessageState, Session, SessionManager};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::tell;
use crate::agent::{hold, say};
use crate::bench::runtime;
use crate::engine;
use crate::machine::{memory, memory_peak};

/// How many sessions are opened and answered at once.
const AT_ONCE: usize = 64;

/// How often it is looked at how many are where they are to be.
const LOOK: Duration = Duration::from_millis(50);

/// How long memory has to be the same until everything that can leave it has left it.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) fn idle(path: &Path, url: &str, sessions: u32) {
    runtime().block_on(async {
        let manager = engine::usual(path).await;
        // One of each kind of thing that all of them share is there before it counts.
        let first = answered(&manager, url, 0).await;
        let before = memory();
        let handles = all_answered(&manager, url, sessions).await;
        let after = settled_memory().await;
        tell([after.saturating_sub(before), handles.len() as u64]);
        drop((first, handles));
        manager.shut_down().await.expect("the log is closed");
    });
}

pub(super) fn restart(path: &Path) {
    let before = memory();
    runtime().block_on(async {
        let begun = Instant::now();
        let manager = engine::usual(path).await;
        let took = begun.elapsed();
        tell([micros(took), memory().saturating_sub(before)]);
        manager.shut_down().await.expect("the log is closed");
    });
}

/// Has a message under way in each session, and waits to be killed.
pub(super) fn interrupt(path: &Path, url: &str, sessions: u32) {
    runtime().block_on(async {
        let manager = engine::usual(path).await;
        let mut opened = Vec::new();
        for _ in 0..sessions {
            let session = engine::open(&manager, url).await;
            session.send(&hold(20), None).await.expect("it is queued");
            opened.push(session);
        }
        let ignored = sessions / 2;
        loop {
            let count = |state| -> usize {
                let is_there = |session: &&Session| {
                    let seen = session.with_state(|session| {
                        let head = session.queue.head();
                        head.is_some_and(|message| message.state == state)
                    });
                    seen.expect("it can be read")
                };
                opened.iter().filter(is_there).count()
            };
            let (sending, running) = (count(MessageState::Sending), count(MessageState::Running));
            if sending == ignored as usize && sending + running == opened.len() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        super::say("ready");
        std::future::pending::<()>().await;
    });
}

pub(super) fn recover(path: &Path, sessions: u32) {
    let before = memory();
    runtime().block_on(async {
        let begun = Instant::now();
        let manager = engine::usual(path).await;
        let recovered = manager.recover().await.expect("it ends");
        let took = begun.elapsed();
        assert_eq!(recovered.sessions, u64::from(sessions), "{recovered:?}");
        assert_eq!(recovered.completed, u64::from(sessions), "{recovered:?}");
        assert_eq!(recovered.open, 0, "{recovered:?}");
        tell([micros(took), memory_peak() - before]);
        manager.shut_down().await.expect("the log is closed");
    });
}

/// A session that has been answered once.
async fn answered(manager: &SessionManager, url: &str, number: u32) -> Session {
    let session = engine::open(manager, url).await;
    let message = session.send(&say(1, number), None).await.expect("queued");
    let state = session.settled(message).await.expect("it ends");
    assert_eq!(state, MessageState::Completed);
    session
}

async fn all_answered(manager: &SessionManager, url: &str, sessions: u32) -> Vec<Session> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    let mut handles = Vec::new();
    for number in 0..sessions {
        let permit = Arc::clone(&room).acquire_owned().await.expect("open");
        let (manager, url) = (manager.clone(), url.to_owned());
        opening.spawn(async move {
            let session = answered(&manager, &url, number).await;
            drop(permit);
            session
        });
        while let Some(session) = opening.try_join_next() {
            handles.push(session.expect("it is answered"));
        }
    }
    handles.extend(opening.join_all().await);
    handles
}

/// The memory of this process once it gets no smaller.
async fn settled_memory() -> u64 {
    let mut least = memory();
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        tokio::time::sleep(LOOK).await;
        let now = memory();
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
