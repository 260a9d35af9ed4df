//! Where a run was made, as the system tells it; no name of a machine or a person is in it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Zoned;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::bench::Scale;

/// Where, when and with what a run was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    date: String,
    scale: Scale,
    cores: usize,
    processor: String,
    memory_mib: u64,
    kernel: String,
    file_system: String,
    disk: String,
    peers: Vec<String>,
}

impl Machine {
    /// Looks at the machine, and at the disk that `folder` is on.
    #[must_use]
    pub fn look(folder: &Path, scale: Scale) -> Self {
        let (file_system, disk) = disk_of(folder).unwrap_or_default();
        Self {
            date: Zoned::now().date().to_string(),
            scale,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            memory_mib: kib("/proc/meminfo", "MemTotal").unwrap_or_default() / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |release| release.trim().to_owned()),
            file_system,
            disk,
            peers: vec![
                format!("SQLite {}", rusqlite::version()),
                format!("fjall {}", locked_version("fjall").unwrap_or("?")),
            ],
        }
    }

    /// Keeps it beside the figures.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    /// What [`Machine::save`] kept.
    ///
    /// # Errors
    ///
    /// What the system says, or where the file is another one.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            date,
            scale,
            cores,
            processor,
            memory_mib,
            kernel,
            file_system,
            disk,
            peers,
        } = self;
        let scale = match scale {
            Scale::Quick => "quick",
            Scale::Full => "full",
        };
        write!(
            f,
            "{date}, {scale} run: {cores} cores ({processor}), {memory_mib} MiB of memory, Linux {kernel}, \
             {file_system} on {disk}; beside {}",
            peers.join(" and "),
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The value behind `name:` in a file of the system.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

/// The same, where it is so many kB.
fn kib(path: &str, name: &str) -> Option<u64> {
    field(path, name)?.split(' ').next()?.parse().ok()
}

/// The kind of the file system that a folder is on, and of the disk below it.
fn disk_of(folder: &Path) -> Option<(String, String)> {
    let folder = folder.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // Its lines: id, parent, major:minor, root, mounted at, options…, "-", file system, source, options.
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let (place, what) = line.split_once(" - ")?;
            let place: Vec<_> = place.split(' ').collect();
            let mut what = what.split(' ');
            Some((*place.get(2)?, Path::new(*place.get(4)?), what.next()?))
        })
        .filter(|(_, at, _)| folder.starts_with(at))
        // Of two at the same place the later one hides the earlier.
        .max_by_key(|(_, at, _)| at.components().count())?;
    let (device, _, file_system) = mount;
    let block = fs::canonicalize(format!("/sys/dev/block/{device}")).ok();
    let disk = block.as_deref().map_or_else(unknown, |block| {
        let name = block.file_name().unwrap_or_default().to_string_lossy();
        // A partition has no queue of its own.
        let rotates = [block.join("queue"), block.join("../queue")]
            .iter()
            .find_map(|queue| fs::read_to_string(queue.join("rotational")).ok());
        match rotates.as_deref().map(str::trim) {
            Some("0") => format!("{name} (says that it does not rotate)"),
            Some(_) => format!("{name} (says that it rotates)"),
            None => name.into_owned(),
        }
    });
    Some((file_system.to_owned(), disk))
}

/// The version of a dependency that this was built with.
fn locked_version(name: &str) -> Option<&'static str> {
    let lock = include_str!("../../Cargo.lock");
    let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    package.split('"').next()
}

/// The bytes of memory that this process has now.
#[must_use]
pub fn memory() -> u64 {
    kib("/proc/self/status", "VmRSS").unwrap_or_default() << 10
}

/// The most bytes of memory that this process ever had.
#[must_use]
pub fn memory_peak() -> u64 {
    peak("self")
}

/// The most bytes of memory that another process ever had; zero once it has ended.
#[must_use]
pub fn memory_peak_of(pid: u32) -> u64 {
    peak(&pid.to_string())
}

fn peak(process: &str) -> u64 {
    kib(&format!("/proc/{process}/status"), "VmHWM").unwrap_or_default() << 10
}

/// The time that processors have spent on this process, all threads together.
#[must_use]
pub fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_versions_are_known() {
        assert!(locked_version("fjall").is_some_and(|version| version.starts_with("3.")));
        assert_eq!(locked_version("nobody"), None);
    }
}
