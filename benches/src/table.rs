//! The figures that a run ends with: as a table, as JSON, and as the tables of BENCHMARKS.md.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Measured;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub workload: String,
    /// Who did it.
    pub subject: String,
    /// How many appenders, events, subscribers or megabytes.
    pub n: u32,
    /// The figure.
    pub value: f64,
    /// What it counts.
    pub unit: String,
    /// How many times better the log is than this subject; above 1 the log is ahead. `None` where the log's
    /// figure is zero: a subscriber may have an event before it is acknowledged.
    pub ratio: Option<f64>,
}

/// The figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds how many events a second the subjects did, where each measured time was for `per` of them.
    pub fn rates(&mut self, workload: &str, n: u32, per: u32, measured: &[Measured]) {
        self.rates_of(workload, n, per, "events/s", measured);
    }

    /// The same for something else than events.
    pub fn rates_of(
        &mut self,
        workload: &str,
        n: u32,
        per: u32,
        unit: &str,
        measured: &[Measured],
    ) {
        for one in measured {
            let rate = f64::from(per) / one.seconds;
            self.push(workload, one.name, n, rate, unit, one.ratio);
        }
    }

    /// Adds how many milliseconds the subjects took.
    pub fn times(&mut self, workload: &str, n: u32, measured: &[Measured]) {
        for one in measured {
            self.push(workload, one.name, n, one.seconds * 1000.0, "ms", one.ratio);
        }
    }

    /// Adds figures of which less is better, the log's first; their ratios follow from them.
    pub fn less_is_better(&mut self, workload: &str, n: u32, unit: &str, values: &[(&str, f64)]) {
        for (subject, value) in values {
            self.push(workload, subject, n, *value, unit, value / values[0].1);
        }
    }

    fn push(&mut self, workload: &str, subject: &str, n: u32, value: f64, unit: &str, ratio: f64) {
        self.rows.push(Row {
            workload: workload.to_owned(),
            subject: subject.to_owned(),
            n,
            value,
            unit: unit.to_owned(),
            ratio: ratio.is_finite().then_some(ratio),
        });
    }

    /// Writes the rows as JSON.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(&self.rows)?)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28} {:>9}  {:<26} {:>12} {:<9} {:>13}",
            "workload", "n", "subject", "value", "unit", "log/subject"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<28} {:>9}  {:<26} {:>12} {:<9} {:>13}",
                row.workload,
                row.n,
                row.subject,
                figure(row.value),
                row.unit,
                ratio(row.ratio),
            )?;
        }
        Ok(())
    }
}

/// A ratio, or that there is none.
fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A figure with as many digits as it deserves, its thousands apart.
fn figure(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut apart = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// The last run's figures as the tables of BENCHMARKS.md: one a workload, a line for each n, a column for each subject.
///
/// # Errors
///
/// What the system says, where there was no run.
pub fn markdown(figures: &Path, machine: &Path) -> io::Result<String> {
    let rows: Vec<Row> = serde_json::from_slice(&fs::read(figures)?)?;
    let mut out = format!("{}.\n", Machine::load(machine)?);
    for workload in in_order(rows.iter().map(|row| row.workload.as_str())) {
        let rows: Vec<_> = rows.iter().filter(|row| row.workload == workload).collect();
        tabulate(&mut out, workload, &rows).map_err(io::Error::other)?;
    }
    Ok(out)
}

fn tabulate(out: &mut String, workload: &str, rows: &[&Row]) -> fmt::Result {
    let unit = &rows[0].unit;
    let subjects = in_order(rows.iter().map(|row| row.subject.as_str()));
    writeln!(out, "\n### {workload} ({unit})\n")?;
    writeln!(out, "| n | {} |", subjects.join(" | "))?;
    writeln!(out, "| ---: |{}", " ---: |".repeat(subjects.len()))?;
    for n in in_order(rows.iter().map(|row| row.n)) {
        write!(out, "| {} |", figure_of_count(n))?;
        for (column, subject) in subjects.iter().enumerate() {
            match rows
                .iter()
                .find(|row| row.n == n && row.subject == *subject)
            {
                None => write!(out, " – |")?,
                Some(row) if column == 0 => write!(out, " {} |", figure(row.value))?,
                Some(row) => write!(out, " {} ({}×) |", figure(row.value), ratio(row.ratio))?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn figure_of_count(n: u32) -> String {
    if n < 100 {
        n.to_string()
    } else {
        figure(f64::from(n))
    }
}

/// Each value once, in the order in which it first comes.
fn in_order<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values.filter(|value| seen.insert(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_they_deserve() {
        let figures = [0.123, 99.9, 100.4, 1234.5, 1_234_567.0].map(figure);
        assert_eq!(figures, ["0.12", "99.90", "100", "1,234", "1,234,567"]);
    }

    #[test]
    fn a_workload_becomes_a_table_with_a_column_for_each_subject() {
        let mut table = Table::default();
        table.less_is_better("size", 7, "B", &[("recount", 50.0), ("peer", 100.0)]);
        table.less_is_better("size", 1000, "B", &[("recount", 40.0)]);
        let mut out = String::new();
        let rows: Vec<_> = table.rows.iter().collect();
        tabulate(&mut out, "size", &rows).expect("a text takes all");
        assert_eq!(
            out,
            "\n### size (B)\n\n\
             | n | recount | peer |\n\
             | ---: | ---: | ---: |\n\
             | 7 | 50.00 | 100 (2.00×) |\n\
             | 1,000 | 40.00 | – |\n"
        );
    }
}
