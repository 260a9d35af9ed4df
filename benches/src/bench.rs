//! One run: how much is measured, with what, and what came out so far.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::Criterion;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::table::Table;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// To see that it runs and about where it stands.
    Quick,
    /// To compare.
    Full,
}

/// One run.
pub struct Bench {
    /// How much is measured.
    pub scale: Scale,
    /// What repeats the work.
    pub criterion: Criterion,
    /// The threads that all subjects are driven by.
    pub runtime: Runtime,
    /// What came out so far.
    pub table: Table,
    folder: PathBuf,
    begun: Instant,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bench").field(&self.scale).finish()
    }
}

impl Bench {
    /// A run that leaves its files below `folder`.
    ///
    /// # Panics
    ///
    /// If the system gives no threads.
    #[must_use]
    pub fn new(scale: Scale, folder: &Path) -> Self {
        let (warm_up, measurement) = match scale {
            Scale::Quick => (300, 2000),
            Scale::Full => (2000, 15_000),
        };
        Self {
            scale,
            criterion: Criterion::default()
                .warm_up_time(Duration::from_millis(warm_up))
                .measurement_time(Duration::from_millis(measurement))
                .sample_size(10)
                .without_plots(),
            runtime: runtime(),
            table: Table::default(),
            folder: folder.to_owned(),
            begun: Instant::now(),
        }
    }

    /// One of two, by the scale.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }

    /// Says on standard error what is being done.
    pub fn say(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.begun.elapsed().as_secs());
    }

    /// A new folder for one workload, which goes away with it: what one wrote is no load on the disk for the next.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    #[must_use]
    pub fn folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.folder).expect("a folder")
    }
}

/// As many threads as the smallest machine that is measured on has cores.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}
