//! What the log is measured by, beside peers in the same run.
//!
//! Absolute figures belong to a machine and an hour; the ratios are what counts. Every subject gets the
//! same appenders, the same commits shared by all who wait, and a folder on the same disk.

pub mod append;
pub mod group;
pub mod peers;
pub mod rebuild;
pub mod table;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How much.
    pub scale: Scale,
    /// What: workloads whose name has this in it; `None` is all.
    pub filter: Option<String>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// To see that it runs and about where it stands: below a minute.
    Quick,
    /// To compare.
    Full,
}

impl Plan {
    /// Criterion as it is set up for this plan.
    #[must_use]
    pub fn criterion(&self) -> Criterion {
        let (warm_up, measure) = match self.scale {
            Scale::Quick => (200, 1000),
            Scale::Full => (1000, 10_000),
        };
        Criterion::default()
            .warm_up_time(Duration::from_millis(warm_up))
            .measurement_time(Duration::from_millis(measure))
            .sample_size(10)
            .without_plots()
    }

    /// Whether a workload of this name is measured.
    #[must_use]
    pub fn wants(&self, workload: &str) -> bool {
        self.filter
            .as_deref()
            .is_none_or(|filter| workload.contains(filter))
    }

    /// One of two numbers.
    #[must_use]
    pub const fn pick(&self, quick: u32, full: u32) -> u32 {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }
}

/// Something to be measured: it does so many of what is measured, and says how long that took.
pub struct Subject<'a> {
    /// What it is called in the table.
    pub name: &'static str,
    /// Does the work.
    pub work: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Subject").field(&self.name).finish()
    }
}

impl<'a> Subject<'a> {
    /// A subject.
    pub fn new(name: &'static str, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        let work = Box::new(work);
        Self { name, work }
    }
}

/// What one subject took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Who.
    pub name: &'static str,
    /// For one, at the median.
    pub seconds: f64,
    /// How many times as long as the first subject in the same moment, at the median.
    pub ratio: f64,
}

/// Measures subjects side by side.
///
/// Criterion is told of the first, the log. Each of its samples is one of all subjects, one after the
/// other, so that whatever else the machine does in that moment is borne by all of them, and a ratio is
/// the median of ratios and not the ratio of two different minutes.
///
/// # Panics
///
/// Without a subject.
pub fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    subjects: &mut [Subject<'_>],
) -> Vec<Measured> {
    let mut samples: Vec<(u64, Vec<f64>)> = Vec::new();
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|times| {
            let took: Vec<Duration> = subjects
                .iter_mut()
                .map(|subject| (subject.work)(times))
                .collect();
            samples.push((times, took.iter().map(Duration::as_secs_f64).collect()));
            took[0]
        });
    });
    // In flat sampling all that count did the same number; the shorter ones before were to warm up.
    let counted = samples.last().map_or(0, |(times, _)| *times);
    samples.retain(|(times, _)| *times == counted);
    #[expect(clippy::cast_precision_loss, reason = "nothing is done 2^52 times")]
    let times = counted as f64;
    let measured = subjects
        .iter()
        .enumerate()
        .map(|(index, subject)| Measured {
            name: subject.name,
            seconds: median(samples.iter().map(|(_, took)| took[index] / times)),
            ratio: median(samples.iter().map(|(_, took)| took[index] / took[0])),
        });
    measured.collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
