//! Measuring subjects side by side.

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, SamplingMode};

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
    /// A subject that takes the time itself, and so may do more than is counted.
    pub fn new(name: &'static str, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        let work = Box::new(work);
        Self { name, work }
    }

    /// A subject of which all is counted.
    pub fn whole(name: &'static str, mut work: impl FnMut() + 'a) -> Self {
        Self::new(name, move |times| {
            let begun = Instant::now();
            for _ in 0..times {
                work();
            }
            begun.elapsed()
        })
    }
}

/// What one subject took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Who.
    pub name: &'static str,
    /// For one, at the median, in seconds.
    pub seconds: f64,
    /// For one, at the worst, in seconds.
    pub worst: f64,
    /// How many times as long as the first subject in the same moment, at the median.
    pub ratio: f64,
}

/// Measures subjects side by side, repeated as criterion wants it.
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
            let sample = sample(subjects, times);
            let ours = Duration::from_secs_f64(sample[0]);
            samples.push((times, sample));
            ours
        });
    });
    // In flat sampling all that count did the same number; the shorter ones before were to warm up.
    let counted = samples.last().map_or(0, |(times, _)| *times);
    samples.retain(|(times, _)| *times == counted);
    let samples: Vec<_> = samples.into_iter().map(|(_, took)| took).collect();
    compare(subjects, counted, &samples)
}

/// Measures subjects side by side, once a round: for work whose preparation takes far longer than itself.
///
/// # Panics
///
/// Without a subject.
pub fn rounds(rounds: u32, subjects: &mut [Subject<'_>]) -> Vec<Measured> {
    let samples: Vec<_> = (0..rounds).map(|_| sample(subjects, 1)).collect();
    compare(subjects, 1, &samples)
}

/// How long each subject took, in seconds.
fn sample(subjects: &mut [Subject<'_>], times: u64) -> Vec<f64> {
    subjects
        .iter_mut()
        .map(|subject| (subject.work)(times).as_secs_f64())
        .collect()
}

fn compare(subjects: &[Subject<'_>], times: u64, samples: &[Vec<f64>]) -> Vec<Measured> {
    #[expect(clippy::cast_precision_loss, reason = "nothing is done 2^52 times")]
    let times = times as f64;
    let measured = subjects.iter().enumerate().map(|(index, subject)| {
        let each = || samples.iter().map(|took| took[index] / times);
        Measured {
            name: subject.name,
            seconds: quantile(each(), 0.5),
            worst: quantile(each(), 1.0),
            ratio: quantile(samples.iter().map(|took| took[index] / took[0]), 0.5),
        }
    });
    measured.collect()
}

/// The value that this share of all values does not exceed.
///
/// # Panics
///
/// Without a value.
#[must_use]
pub fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small number, from 0 to 1"
    )]
    let index = ((values.len() - 1) as f64 * share).round() as usize;
    values[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(values.into_iter(), share));
        assert_eq!(
            found.map(f64::to_bits),
            [1.0, 3.0, 5.0, 5.0].map(f64::to_bits)
        );
    }

    #[test]
    fn ratios_are_taken_sample_by_sample() {
        let mut loud = [1.0, 10.0, 1.0].into_iter();
        let mut twice = [2.0, 20.0, 2.0].into_iter();
        let next = |times: &mut std::array::IntoIter<f64, 3>| {
            Duration::from_secs_f64(times.next().expect("three rounds"))
        };
        let mut subjects = [
            Subject::new("log", |_| next(&mut loud)),
            Subject::new("peer", |_| next(&mut twice)),
        ];
        let measured = |name, seconds, worst, ratio| Measured {
            name,
            seconds,
            worst,
            ratio,
        };
        assert_eq!(
            rounds(3, &mut subjects),
            [
                measured("log", 1.0, 10.0, 1.0),
                measured("peer", 2.0, 20.0, 2.0)
            ]
        );
    }
}
