//! Snapshots: the state of a projection at some event, kept so that a fold need not begin at the first.
//!
//! Derived data, so none of it hurries: snapshots gather in memory, the newest of each projection of a
//! stream alone, and are written with some later commit.
//!
//! Nothing else in the file says what a snapshot should be, and a fold believes it. So a row begins with a
//! checksum over its key and the rest of it: one that was damaged or moved is as good as none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use redb::{ReadTransaction, WriteTransaction};

use crate::codec::StreamKey;
use crate::id::{Seq, StreamId};
use crate::limits;
use crate::log::index::optional;
use crate::log::storage::Fault;
use crate::log::{Snapshot, table};

/// Snapshots that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By table key.
    snapshots: HashMap<Vec<u8>, Snapshot>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a snapshot until it is written; true when so much waits that it should be.
    ///
    /// One that is too large, or comes when far too much waits already, is dropped.
    pub(crate) fn put(&self, stream: StreamId, projection: &str, snapshot: Snapshot) -> bool {
        let mut inner = self.lock();
        let size = snapshot.bytes.len();
        if size > limits::SNAPSHOT_BYTES_MAX
            || (inner.bytes + size > limits::SNAPSHOT_WAITING_BYTES_MAX && inner.bytes > 0)
        {
            return true;
        }
        let key = table::snapshot_key(stream, projection);
        inner.bytes += size;
        if let Some(old) = inner.snapshots.insert(key, snapshot) {
            inner.bytes -= old.bytes.len();
        }
        inner.bytes >= limits::SNAPSHOT_LAG_BYTES_MAX
    }

    /// The snapshot that waits, if one does.
    pub(crate) fn get(&self, stream: StreamId, projection: &str) -> Option<Snapshot> {
        let key = table::snapshot_key(stream, projection);
        self.lock().snapshots.get(&key).cloned()
    }

    /// Whether so much waits that it should be written.
    pub(crate) fn lags(&self) -> bool {
        self.lock().bytes >= limits::SNAPSHOT_LAG_BYTES_MAX
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().snapshots.is_empty()
    }

    /// Writes what waits. It waits on until [`Waiting::written`] is told that this is durable.
    pub(crate) fn write(
        &self,
        transaction: &WriteTransaction,
    ) -> Result<Vec<(Vec<u8>, Seq)>, Fault> {
        let mut rows: Vec<_> = {
            let inner = self.lock();
            let rows = inner.snapshots.iter();
            rows.map(|(key, snapshot)| (key.clone(), encode(key, snapshot), snapshot.seq))
                .collect()
        };
        rows.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut snapshots = transaction.open_table(table::SNAPSHOTS)?;
        for (key, value, _) in &rows {
            snapshots.insert(key.as_slice(), value.as_slice())?;
        }
        Ok(rows.into_iter().map(|(key, _, seq)| (key, seq)).collect())
    }

    /// Forgets what is durable now, but for what was replaced meanwhile.
    pub(crate) fn written(&self, rows: &[(Vec<u8>, Seq)]) {
        let mut inner = self.lock();
        for (key, seq) in rows {
            if inner
                .snapshots
                .get(key)
                .is_some_and(|kept| kept.seq == *seq)
                && let Some(snapshot) = inner.snapshots.remove(key)
            {
                inner.bytes -= snapshot.bytes.len();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing between two changes of it can panic but running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CHECKSUM_LEN: usize = 32;

/// The checksum of a row, by its key and what follows the checksum.
fn checksum(key: &[u8], rest: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key).update(rest);
    hasher.finalize().into()
}

/// The snapshot that was written last; one that cannot be read is as good as none.
pub(crate) fn read(
    transaction: &ReadTransaction,
    stream: StreamId,
    projection: &str,
) -> Result<Option<Snapshot>, Fault> {
    let Some(snapshots) = optional(transaction.open_table(table::SNAPSHOTS))? else {
        return Ok(None);
    };
    let key = table::snapshot_key(stream, projection);
    let row = snapshots.get(key.as_slice())?;
    Ok(row.and_then(|row| decode(&key, row.value())))
}

/// Deletes what was kept of a stream before the event that cut it: what was cut off is not to live on in a state.
pub(crate) fn drop_cut(
    transaction: &WriteTransaction,
    stream: &StreamKey,
    at: Seq,
) -> Result<(), Fault> {
    // No name holds this byte, which is in no UTF-8.
    let end = [stream.as_slice(), &[0xff]].concat();
    let mut snapshots = transaction.open_table(table::SNAPSHOTS)?;
    snapshots.retain_in(stream.as_slice()..end.as_slice(), |key, row| {
        decode(key, row).is_some_and(|snapshot| snapshot.seq >= at)
    })?;
    Ok(())
}

fn encode(key: &[u8], snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = vec![0; CHECKSUM_LEN];
    bytes.reserve_exact(12 + snapshot.bytes.len());
    bytes.extend_from_slice(&snapshot.fold_version.to_le_bytes());
    bytes.extend_from_slice(&snapshot.seq.0.to_le_bytes());
    bytes.extend_from_slice(&snapshot.bytes);
    let checksum = checksum(key, &bytes[CHECKSUM_LEN..]);
    bytes[..CHECKSUM_LEN].copy_from_slice(&checksum);
    bytes
}

fn decode(key: &[u8], bytes: &[u8]) -> Option<Snapshot> {
    let (found, rest) = bytes.split_first_chunk::<CHECKSUM_LEN>()?;
    if *found != checksum(key, rest) {
        return None;
    }
    let (fold_version, rest) = rest.split_first_chunk()?;
    let (seq, state) = rest.split_first_chunk()?;
    Some(Snapshot {
        fold_version: u32::from_le_bytes(*fold_version),
        seq: Seq(u64::from_le_bytes(*seq)),
        bytes: state.to_vec(),
    })
}
