//! What the log is measured by, beside peers in the same run.
//!
//! Absolute figures belong to a machine and an hour; the ratios are what counts. Every subject gets the
//! same appenders, the same commits shared by all who wait, and a folder on the same disk.

pub mod append;
pub mod group;
pub mod peers;
pub mod rebuild;
pub mod table;

use std::cell::RefCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// To see that it runs and about where it stands: below a minute.
    Quick,
    /// To compare.
    Full,
}

impl Scale {
    /// Criterion as it is set up for this scale, with what the command line says.
    #[must_use]
    pub fn criterion(self) -> Criterion {
        let (warm_up, measure) = match self {
            Self::Quick => (100, 700),
            Self::Full => (1000, 8000),
        };
        Criterion::default()
            .warm_up_time(Duration::from_millis(warm_up))
            .measurement_time(Duration::from_millis(measure))
            .sample_size(10)
            .without_plots()
            .configure_from_args()
    }

    /// One of two numbers.
    #[must_use]
    pub const fn pick(self, quick: u64, full: u64) -> u64 {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// Measures something that can be done many times, and gives the seconds that one takes; `None` where
/// the command line asked for something else.
///
/// `work` does so many, and says how long it took.
pub fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    subject: &str,
    mut work: impl FnMut(u64) -> Duration,
) -> Option<f64> {
    let samples = RefCell::new(Vec::new());
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(subject, |bencher| {
        bencher.iter_custom(|times| {
            let took = work(times);
            samples.borrow_mut().push((times, took));
            took
        });
    });
    let samples = samples.into_inner();
    // In flat sampling all that count did the same number; the shorter ones before were to warm up.
    let (counted, _) = *samples.last()?;
    let mut seconds: Vec<f64> = samples
        .iter()
        .filter(|(times, _)| *times == counted)
        .map(|(times, took)| took.as_secs_f64() / *times as f64)
        .collect();
    seconds.sort_by(f64::total_cmp);
    Some(seconds[seconds.len() / 2])
}
