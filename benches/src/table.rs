//! The table that a run ends with.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::Measured;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub workload: &'static str,
    /// Who did it.
    pub subject: &'static str,
    /// How many appenders, or events.
    pub n: u32,
    /// The figure.
    pub value: f64,
    /// What it counts.
    pub unit: &'static str,
    /// How many times better the log is than this subject; above 1 the log is ahead.
    pub ratio: f64,
}

/// The figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds what the subjects took for `per` of something.
    ///
    /// Shown as so many a second where `unit` ends with `/s`, else in milliseconds.
    pub fn add(
        &mut self,
        workload: &'static str,
        n: u32,
        unit: &'static str,
        per: u32,
        measured: &[Measured],
    ) {
        self.rows.extend(measured.iter().map(|measured| Row {
            workload,
            subject: measured.name,
            n,
            value: if unit.ends_with("/s") {
                f64::from(per) / measured.seconds
            } else {
                measured.seconds * 1000.0
            },
            unit,
            ratio: measured.ratio,
        }));
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
            "{:<20} {:>9}  {:<26} {:>12} {:<9} {:>13}",
            "workload", "n", "subject", "value", "unit", "log/subject"
        )?;
        for row in &self.rows {
            let precision = if row.value < 100.0 { 2 } else { 0 };
            writeln!(
                f,
                "{:<20} {:>9}  {:<26} {:>12.precision$} {:<9} {:>13.2}",
                row.workload, row.n, row.subject, row.value, row.unit, row.ratio,
            )?;
        }
        Ok(())
    }
}
