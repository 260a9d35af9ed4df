//! The least that a disk can do.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::group::{Row, Sink};

/// A file that is appended to, and its data synchronised. It can find nothing again.
#[derive(Debug)]
pub struct Bare {
    file: File,
    buffer: Vec<u8>,
}

impl Bare {
    /// Opens or makes a file.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("a file");
        Self {
            file,
            buffer: Vec::new(),
        }
    }

    /// The bytes of a file, read in order and counted.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> u64 {
        let mut file = File::open(path).expect("a file");
        let mut buffer = vec![0; 64 << 10];
        let mut count = 0;
        loop {
            match file.read(&mut buffer).expect("bytes") {
                0 => return count,
                read => count += read as u64,
            }
        }
    }
}

impl Sink for Bare {
    fn commit(&mut self, rows: &[Row]) {
        gather(&mut self.buffer, rows);
        self.file.write_all(&self.buffer).expect("written");
        self.file.sync_data().expect("synchronised");
    }
}

/// A file whose blocks are there already, written over from front to back and round again, and its data
/// synchronised: no block is allotted and no length changes, so the disk does nothing but keep the bytes.
#[derive(Debug)]
pub struct Preallocated {
    file: File,
    next: u64,
    buffer: Vec<u8>,
}

impl Preallocated {
    /// Below what a disk's own cache holds, above any commit.
    const LENGTH: u64 = 64 << 20;

    /// Makes a file and fills it.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    #[must_use]
    pub fn create(path: &Path) -> Self {
        let mut file = File::create(path).expect("a file");
        let zeros = vec![0; 1 << 20];
        for _ in 0..Self::LENGTH >> 20 {
            file.write_all(&zeros).expect("written");
        }
        file.sync_all().expect("synchronised");
        Self {
            file,
            next: 0,
            buffer: Vec::new(),
        }
    }
}

impl Sink for Preallocated {
    fn commit(&mut self, rows: &[Row]) {
        gather(&mut self.buffer, rows);
        let length = self.buffer.len() as u64;
        assert!(length <= Self::LENGTH, "a commit of {length} bytes");
        if self.next + length > Self::LENGTH {
            self.next = 0;
        }
        self.file
            .write_all_at(&self.buffer, self.next)
            .expect("written");
        self.next += length;
        self.file.sync_data().expect("synchronised");
    }
}

fn gather(buffer: &mut Vec<u8>, rows: &[Row]) {
    buffer.clear();
    for row in rows {
        buffer.extend_from_slice(&row.bytes);
    }
}
