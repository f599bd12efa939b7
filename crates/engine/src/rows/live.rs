//! Decoded rows in memory, for scores.
//!
//! A process that folds a partition knows when one of its rows changes: its own flush changes it. So rows of such
//! partitions are kept until then, however long, and are never older than the store:
//!
//! ```text
//!   reader:  get ─► miss ─► Ticket ─► Store::read ─► fill, unless the ticket was cancelled
//!   flush:   begin ─► drop the rows, cancel the tickets ─► Store::apply ─► end: new tickets again
//! ```
//!
//! While a flush is being written, a read may return either of the two states, so its rows are read from the
//! store and not kept. A request that has seen the checkpoint of a flush never finds a row from before it: the row was
//! dropped before the checkpoint was written.
//!
//! A row is **exact** if this process folds every partition that writes it: an owner row has one, an aggregate row all of
//! the family. Aggregates that are not exact are kept for `reads.stale_ms_max`, and others are not kept. When a partition
//! is acquired or lost, all rows of its generation are dropped. If another process has written the checkpoint of a
//! partition that this one seems to own, it was lost without notice; [`LiveRows::observe`] drops it.

mod row;
#[cfg(test)]
mod tests;

pub(super) use row::{LiveAggregate, LiveOwner, LiveRow};

use foretell_domain::address::{Family, Generation, RowKey};
use hashbrown::{DefaultHashBuilder, HashMap};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Locks of reads and flushes in progress; a power of two.
const SHARDS: usize = 64;
/// Expected size of a row in memory, in bytes.
const ROW_BYTES: usize = 512;
/// Memory of an entry besides its key and row, in bytes.
const ENTRY_BYTES: usize = 160;
/// Bytes in memory per stored byte of a decoded row: maps of few entries, and strings with their own allocation. A user
/// of 570 stored bytes takes 2 to 5 KB.
pub(crate) const BYTES_PER_STORED_BYTE: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    generation: Generation,
    key: RowKey,
}

#[derive(Clone, Copy, Hash)]
struct KeyRef<'a> {
    generation: Generation,
    key: &'a RowKey,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, other: &Key) -> bool {
        self.generation == other.generation && *self.key == other.key
    }
}

#[derive(Debug, Clone)]
struct Entry {
    row: LiveRow,
    /// The version of the family, and when the read began.
    version: u64,
    read_at: Instant,
    bytes: u32,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        (key.key.key.len() + ENTRY_BYTES) as u64 + u64::from(entry.bytes)
    }
}

/// Reads and flushes in progress, by the hash of the row.
#[derive(Default)]
struct InProgress {
    reads: HashMap<u64, OpenReads>,
    /// How many flushes are writing the row.
    flushes: HashMap<u64, u32>,
}

struct OpenReads {
    count: u32,
    /// A flush began after they did.
    is_cancelled: bool,
}

/// A partition that this process folds.
struct OwnPartition {
    /// The highest checkpoint that this process has written or is about to write.
    checkpoint: AtomicI64,
}

/// Rows in memory. See the module.
pub struct LiveRows {
    rows: Cache<Key, Entry, Bytes, DefaultHashBuilder>,
    hasher: DefaultHashBuilder,
    in_progress: Vec<Mutex<InProgress>>,
    own: RwLock<BTreeMap<(Generation, u32), Arc<OwnPartition>>>,
    /// Rows of earlier versions are not used.
    versions: [AtomicU64; Family::ALL.len()],
    stale_max: Duration,
}

/// What is in memory.
pub(super) enum Found<R> {
    /// The row.
    Row(R),
    /// It must be read.
    Missing(Option<Ticket>),
}

/// Permits one reader to keep what it reads. Cancelled by a flush of the row that begins before it is used.
pub(super) struct Ticket {
    live: Arc<LiveRows>,
    key: Key,
    hash: u64,
    version: u64,
    read_at: Instant,
    is_used: bool,
}

/// A flush that is being written: its rows are not kept until it is dropped.
pub(crate) struct Flushing {
    live: Arc<LiveRows>,
    hashes: Vec<u64>,
}

/// A partition that this process folds, for as long as it exists.
pub(crate) struct Owned {
    live: Arc<LiveRows>,
    generation: Generation,
    partition: u32,
    own: Arc<OwnPartition>,
}

impl LiveRows {
    /// No rows yet. They use at most about `bytes_max`; aggregates that are not exact are kept for `stale_max`.
    pub fn new(bytes_max: usize, stale_max: Duration) -> Arc<Self> {
        let hasher = DefaultHashBuilder::default();
        let expected = bytes_max / ROW_BYTES;
        Arc::new(Self {
            rows: Cache::with(expected, bytes_max as u64, Bytes, hasher.clone(), DefaultLifecycle::default()),
            hasher,
            in_progress: (0..SHARDS).map(|_| Mutex::default()).collect(),
            own: RwLock::default(),
            versions: Default::default(),
            stale_max,
        })
    }

    /// Keeps nothing: for folds whose rows no one asks for.
    pub fn none() -> Arc<Self> {
        Self::new(0, Duration::ZERO)
    }

    /// Notes that this process folds a partition from this checkpoint on.
    pub(crate) fn own(self: &Arc<Self>, generation: Generation, partition: u32, checkpoint: i64) -> Owned {
        let own = Arc::new(OwnPartition { checkpoint: AtomicI64::new(checkpoint) });
        self.write_own().insert((generation, partition), own.clone());
        self.invalidate(generation.family);
        Owned { live: self.clone(), generation, partition, own }
    }

    /// Compares the stored checkpoint of a partition with what this process has written: if it is higher, another process
    /// folds the partition.
    pub(crate) fn observe(&self, generation: Generation, partition: u32, checkpoint: i64) {
        let is_lost = |own: &Arc<OwnPartition>| own.checkpoint.load(Ordering::Acquire) < checkpoint;
        if self.read_own().get(&(generation, partition)).is_some_and(is_lost) {
            let removed = self.write_own().remove(&(generation, partition));
            if removed.is_some() {
                self.invalidate(generation.family);
            }
        }
    }

    /// Whether this process folds a partition.
    pub(super) fn is_own(&self, generation: Generation, partition: u32) -> bool {
        self.read_own().contains_key(&(generation, partition))
    }

    /// Whether this process folds all partitions of a generation.
    pub(crate) fn are_all_own(&self, generation: Generation, partitions: u32) -> bool {
        self.read_own().range((generation, 0)..(generation, partitions)).count() == partitions as usize
    }

    /// From now on no row of the family that was read before is used.
    pub(crate) fn invalidate(&self, family: Family) {
        self.version_of(family).fetch_add(1, Ordering::AcqRel);
    }

    /// A row. `is_exact`: this process folds every partition that writes it; `is_kept`: it may be kept otherwise.
    pub(super) fn get(self: &Arc<Self>, generation: Generation, key: &RowKey, is_exact: bool) -> Found<LiveRow> {
        let version = self.version_of(generation.family).load(Ordering::Acquire);
        let by = KeyRef { generation, key };
        if let Some(entry) = self.rows.get(&by) {
            let is_fresh = is_exact || entry.read_at.elapsed() < self.stale_max;
            if entry.version == version && is_fresh {
                return Found::Row(entry.row);
            }
        }
        Found::Missing(self.ticket(by, version))
    }

    fn ticket(self: &Arc<Self>, by: KeyRef<'_>, version: u64) -> Option<Ticket> {
        let hash = self.hasher.hash_one(by);
        let mut in_progress = self.in_progress(hash);
        if in_progress.flushes.contains_key(&hash) {
            return None;
        }
        let reads = in_progress.reads.entry(hash).or_insert(OpenReads { count: 0, is_cancelled: false });
        if reads.is_cancelled {
            return None;
        }
        reads.count += 1;
        let key = Key { generation: by.generation, key: by.key.clone() };
        Some(Ticket { live: self.clone(), key, hash, version, read_at: Instant::now(), is_used: false })
    }

    /// Begins a flush: its rows are dropped, and what is being read is not kept.
    pub(crate) fn flush<'a>(
        self: &Arc<Self>,
        generation: Generation,
        keys: impl ExactSizeIterator<Item = &'a RowKey>,
    ) -> Flushing {
        let mut hashes = Vec::with_capacity(keys.len());
        // Without memory for rows there are none to drop.
        for key in keys.filter(|_| self.rows.capacity() > 0) {
            let by = KeyRef { generation, key };
            let hash = self.hasher.hash_one(by);
            let mut in_progress = self.in_progress(hash);
            *in_progress.flushes.entry(hash).or_default() += 1;
            if let Some(reads) = in_progress.reads.get_mut(&hash) {
                reads.is_cancelled = true;
            }
            self.rows.remove(&by);
            hashes.push(hash);
        }
        Flushing { live: self.clone(), hashes }
    }

    fn in_progress(&self, hash: u64) -> MutexGuard<'_, InProgress> {
        // The upper bits: the tables use the lower ones.
        let shard = (hash >> 48) as usize % SHARDS;
        self.in_progress[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version_of(&self, family: Family) -> &AtomicU64 {
        let at = Family::ALL.iter().position(|other| *other == family).expect("invariant: ALL has every family");
        &self.versions[at]
    }

    fn read_own(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<(Generation, u32), Arc<OwnPartition>>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_own(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<(Generation, u32), Arc<OwnPartition>>> {
        self.own.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Keeps what was read, unless a flush of the row has begun since. `stored_bytes` is its size in the store.
    pub(super) fn fill(mut self, row: LiveRow, stored_bytes: usize) {
        self.is_used = true;
        let bytes = match &row {
            LiveRow::Feature(counts) => counts.bytes(),
            _ => stored_bytes.saturating_mul(BYTES_PER_STORED_BYTE),
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut in_progress = self.live.in_progress(self.hash);
        if in_progress.end_read(self.hash) {
            let entry = Entry { row, version: self.version, read_at: self.read_at, bytes };
            // Under the lock, so that a flush drops it or has cancelled the ticket.
            self.live.rows.insert(self.key.clone(), entry);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_used {
            self.live.in_progress(self.hash).end_read(self.hash);
        }
    }
}

impl InProgress {
    /// Ends a read; returns whether its result may be kept.
    fn end_read(&mut self, hash: u64) -> bool {
        let Some(reads) = self.reads.get_mut(&hash) else { return false };
        reads.count -= 1;
        let is_kept = !reads.is_cancelled;
        if reads.count == 0 {
            self.reads.remove(&hash);
        }
        is_kept
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        for hash in &self.hashes {
            let mut in_progress = self.live.in_progress(*hash);
            if let Some(flushes) = in_progress.flushes.get_mut(hash) {
                *flushes -= 1;
                if *flushes == 0 {
                    in_progress.flushes.remove(hash);
                }
            }
        }
    }
}

impl Owned {
    /// Notes a checkpoint that is about to be written.
    pub(crate) fn advance(&self, checkpoint: i64) {
        self.own.checkpoint.fetch_max(checkpoint, Ordering::AcqRel);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let place = (self.generation, self.partition);
        let mut own = self.live.write_own();
        // A later owner of the same partition in this process has its own entry.
        if own.get(&place).is_some_and(|current| Arc::ptr_eq(current, &self.own)) {
            own.remove(&place);
        }
        drop(own);
        self.live.invalidate(self.generation.family);
    }
}
