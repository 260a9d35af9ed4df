//! A disk that fails: the first failure is final, and says so to everyone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use recount_store::{Error, Expected, Log, Options, Position};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::{runtime, said, session};

/// Memory whose sync fails when it is told to.
#[derive(Debug)]
struct Failing {
    memory: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[test]
fn a_failed_commit_is_final() {
    runtime().block_on(async {
        let fails = Arc::new(AtomicBool::new(false));
        let file = || Failing {
            memory: InMemoryBackend::new(),
            fails: Arc::clone(&fails),
        };
        let journal: [Arc<dyn StorageBackend>; 2] = [Arc::new(file()), Arc::new(file())];
        let log = Log::with_backends(file(), journal, Options::default()).expect("a log");
        log.append(session(1), Expected::Any, vec![said("good")])
            .await
            .expect("appended");

        fails.store(true, Ordering::SeqCst);
        let appends: Vec<_> = (0..10)
            .map(|n| {
                let log = log.clone();
                tokio::spawn(async move {
                    log.append(session(n), Expected::Any, vec![said("bad")])
                        .await
                })
            })
            .collect();
        for append in appends {
            let error = append.await.expect("no panic").expect_err("it failed");
            assert!(
                matches!(&error, Error::Failed { cause } if cause.contains("the disk is gone")),
                "{error:?}"
            );
        }
        // A disk that is well again changes nothing: what it lost in between nobody knows.
        fails.store(false, Ordering::SeqCst);
        let late = log
            .append(session(1), Expected::Any, vec![said("late")])
            .await;
        assert!(matches!(late, Err(Error::Failed { .. })), "{late:?}");
        assert_eq!(log.head().expect("a head").position, Position(1));
        assert!(matches!(log.close().await, Err(Error::Failed { .. })));
    });
}
