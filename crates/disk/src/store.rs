//! A store in a directory: the embedded default, on the LSM tree of fjall.
//!
//! Rows and checkpoint of a flush are one atomic batch, so that they are kept or lost together. Flushes are not
//! synced: writes survive the end of the process in the memory of the operating system, and a power loss may lose the
//! newest batches, which are then folded again from the log. Writing the pointer syncs it and everything before it.
//!
//! # Lower positions lose, usually without a comparison
//! A row must be compared with the stored one before it is replaced. For the owner of a partition this would be a
//! look-up per row with a known result. The **high water** avoids it: stored with the checkpoint, it is one past the
//! highest position that this source partition ever wrote. A flush above it cannot meet a higher position and is
//! written without a comparison. Only repeated or late writes are compared row by row.
//!
//! # Limits
//! 32 MiB of block cache, memtables of 16 MiB, a journal of 64 MiB: the memory of the process is independent of the
//! size of the store.

mod address;

use crate::log::Directory;
use address::Prefix;
use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_ports::Error;
use foretell_ports::store::{Checkpoint, Flush, Row};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Up to five are in memory: one that fills, and four that wait to be written; after that, commits wait.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// One thread writes memtables, so that they never wait for a compaction of the other one: commits would wait as
/// well, in steps of 100 ms.
const WORKERS: usize = 2;
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
const OPEN_FILES_MAX: usize = 128;
const POSITION_BYTES: usize = 8;
/// Rows of a dropped generation that are removed in one batch.
const REMOVED_AT_ONCE: usize = 2_000;
/// Source partitions up to which the partials of a row are looked up one by one.
const POINT_READS_MAX: u32 = 16;

/// The store; clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    rows: Keyspace,
    checkpoints: Keyspace,
    pointers: Keyspace,
    /// Held from the first comparison to the commit.
    writing: Mutex<()>,
    /// One past the highest source partition that ever wrote: an upper bound for the partials of a row.
    sources: AtomicU32,
    /// Held as long as the store is open.
    _directory: Arc<Directory>,
}

/// A checkpoint as it is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stored {
    checkpoint: Checkpoint,
    /// One past the highest position that the source partition wrote.
    high: i64,
}

/// A flush in stored bytes.
struct Encoded {
    checkpoint_key: Vec<u8>,
    checkpoint: Checkpoint,
    /// Address and value: the position, then the cell.
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The lowest position and one past the highest.
    positions: Option<(i64, i64)>,
}

impl Store {
    /// Opens the store of a directory, and creates it if it does not exist. Blocks on the disk.
    ///
    /// Fatal if it is damaged: its rows can be rebuilt from the log.
    pub fn open(directory: &Arc<Directory>) -> Result<Self, Error> {
        let path = directory.path().join("store");
        let opened = Self::open_at(&path, directory);
        opened.map_err(|cause| failed(&path, "open the store", &cause))
    }

    fn open_at(path: &Path, directory: &Arc<Directory>) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(WORKERS)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let checkpoints = database.keyspace("checkpoints", options)?;
        let mut sources = 0;
        for entry in checkpoints.iter() {
            sources = sources.max(address::source_of_checkpoint(&entry.key()?).saturating_add(1));
        }
        let inner = Inner {
            path: path.to_owned(),
            rows: database.keyspace("rows", options)?,
            checkpoints,
            sources: AtomicU32::new(sources),
            pointers: database.keyspace("pointers", options)?,
            database,
            writing: Mutex::new(()),
            _directory: Arc::clone(directory),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// The error for a failure of the store. It states that the rows can be restored, because the log contains everything.
fn failed(path: &Path, operation: &'static str, cause: &fjall::Error) -> Error {
    let store = path.display();
    match cause {
        fjall::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
            Error::retry(operation, format!("no space left on the device: free some in {store}"))
        }
        fjall::Error::Io(e) => Error::fatal(operation, format!("{store}: {e}")),
        fjall::Error::Poisoned => {
            let detail = format!(
                "an earlier write to {store} failed, see the log lines above, and the store is closed; its data is \
                 intact: free space or repair the disk, then restart"
            );
            Error::fatal(operation, detail)
        }
        _ => damaged(path, operation, &format!("{cause:?}")),
    }
}

fn damaged(path: &Path, operation: &'static str, cause: &str) -> Error {
    let store = path.display();
    let detail = format!(
        "{store} is damaged ({cause}); its rows can be rebuilt from the log: stop the service, delete {store}, and \
         start it again"
    );
    Error::fatal(operation, detail)
}

impl Inner {
    fn failed(&self, operation: &'static str, cause: &fjall::Error) -> Error {
        failed(&self.path, operation, cause)
    }

    fn checkpoint(&self, key: &[u8]) -> Result<Option<Stored>, Error> {
        self.stored(&self.checkpoints, key, |stored| postcard::from_bytes(stored))
    }

    fn pointer(&self, key: &[u8]) -> Result<Option<Pointer>, Error> {
        self.stored(&self.pointers, key, |stored| serde_json::from_slice(stored))
    }

    fn stored<T, E: std::fmt::Display>(
        &self,
        keyspace: &Keyspace,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        const OPERATION: &str = "read the store";
        let stored = keyspace.get(key).map_err(|e| self.failed(OPERATION, &e))?;
        let decoded = stored.map(|stored| decode(&stored)).transpose();
        decoded.map_err(|e| damaged(&self.path, OPERATION, &e.to_string()))
    }

    /// Writes a flush as one atomic batch, without the rows that are older than the stored ones.
    fn write(&self, flush: Encoded) -> Result<(), Error> {
        const OPERATION: &str = "write the store";
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.checkpoint(&flush.checkpoint_key)?;
        let high = stored.map_or(0, |stored| stored.high);
        let above = flush.positions.is_none_or(|(lowest, _)| lowest >= high);
        let mut batch = self.database.batch();
        for (address, value) in flush.rows {
            if above || self.wins(&address, &value).map_err(|e| self.failed(OPERATION, &e))? {
                batch.insert(&self.rows, address, value);
            }
        }
        let checkpoint = match stored {
            Some(stored) if stored.checkpoint.next > flush.checkpoint.next => stored.checkpoint,
            _ => flush.checkpoint,
        };
        let high = high.max(checkpoint.next).max(flush.positions.map_or(0, |(_, above)| above));
        batch.insert(&self.checkpoints, flush.checkpoint_key, encoded(OPERATION, &Stored { checkpoint, high })?);
        batch.commit().map_err(|e| self.failed(OPERATION, &e))
    }

    /// Whether a value replaces the stored one: by its position, then by its bytes.
    fn wins(&self, address: &[u8], value: &[u8]) -> fjall::Result<bool> {
        let order = |value: &[u8]| value.split_first_chunk().map(|(position, _)| i64::from_le_bytes(*position));
        let stored = self.rows.get(address)?;
        Ok(stored.is_none_or(|stored| (order(value), value) >= (order(&stored), &stored[..])))
    }

    fn partials(&self, prefix: &Prefix, source: Option<u32>, key: &str) -> Result<Vec<Row>, Error> {
        const OPERATION: &str = "read rows";
        if let Some(source) = source {
            let value = self.rows.get(prefix.row(key, source)).map_err(|e| self.failed(OPERATION, &e))?;
            return Ok(value.into_iter().map(|value| Row { source, cell: cell(value) }).collect());
        }
        let sources = self.sources.load(Ordering::Acquire);
        if sources <= POINT_READS_MAX {
            // A few look-ups, most of which the filters answer when there is no row, cost a fraction of one range scan.
            let partials = (0..sources).map(|source| self.partials(prefix, Some(source), key));
            return partials.collect::<Result<Vec<_>, _>>().map(|partials| partials.concat());
        }
        let mut rows = Vec::new();
        for entry in self.rows.prefix(prefix.key(key)) {
            let (address, value) = entry.into_inner().map_err(|e| self.failed(OPERATION, &e))?;
            let (_, source) = self.parsed(OPERATION, &address)?;
            rows.push(Row { source, cell: cell(value) });
        }
        Ok(rows)
    }

    fn parsed(&self, operation: &'static str, address: &[u8]) -> Result<(String, u32), Error> {
        address::parse(address).ok_or_else(|| damaged(&self.path, operation, "a row address cannot be decoded"))
    }

    /// The bucket of the first row at or after an address, if the view of the address has one.
    fn bucket_from(&self, prefix: &Prefix) -> Result<Option<i64>, Error> {
        let first = self.rows.range(prefix.bytes()..).next();
        let key = first.map(fjall::Guard::key).transpose().map_err(|e| self.failed("list buckets", &e))?;
        Ok(key.and_then(|key| prefix.bucket_of(&key)))
    }

    /// Removes everything with this prefix in batches, so that commits do not have to wait for all of it.
    fn remove(&self, keyspace: &Keyspace, prefix: &[u8]) -> fjall::Result<()> {
        let mut from = prefix.to_vec();
        loop {
            let keys = keyspace.range(from..).take(REMOVED_AT_ONCE).map(fjall::Guard::key);
            let keys = keys.collect::<fjall::Result<Vec<_>>>()?;
            let mine: Vec<_> = keys.into_iter().take_while(|key| key.starts_with(prefix)).collect();
            let Some(last) = mine.last() else { return Ok(()) };
            from = last.to_vec();
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut batch = self.database.batch();
            mine.into_iter().for_each(|key| batch.remove(keyspace, key));
            batch.commit()?;
        }
    }

    fn drop_generation(&self, generation: Generation) -> fjall::Result<()> {
        for view in generation.family.views() {
            self.remove(&self.rows, Prefix::new(generation, view, 0).generation())?;
        }
        self.remove(&self.checkpoints, &address::checkpoints(generation))
    }

    fn swap(&self, key: &[u8], expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        const OPERATION: &str = "set the pointer";
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.pointer(key)?;
        if stored.as_ref() != expected {
            return Ok(false);
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        // In a format with field names, because pointers may get further fields.
        let new = serde_json::to_vec(new).map_err(|e| Error::fatal(OPERATION, e))?;
        batch.insert(&self.pointers, key, new);
        batch.commit().map_err(|e| self.failed(OPERATION, &e))?;
        Ok(true)
    }
}

/// The entry point of `scripts/fuzz` for stored values and addresses: see [`foretell::fuzz`].
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub fn fuzz_stored(bytes: &[u8]) {
    let _ = address::parse(bytes);
    let _ = address::source_of_checkpoint(bytes);
    if let Ok(stored) = postcard::from_bytes::<Stored>(bytes) {
        let again = postcard::to_stdvec(&stored).expect("invariant: a checkpoint has a form");
        assert!(postcard::from_bytes::<Stored>(&again).is_ok(), "a checkpoint is read as it is written");
    }
}

fn encoded<T: Serialize>(operation: &'static str, value: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(value).map_err(|e| Error::fatal(operation, e))
}

/// The cell of a stored value, without the position in front of it.
fn cell(value: UserValue) -> Bytes {
    let mut value = Bytes::from(value);
    value.advance(POSITION_BYTES.min(value.len()));
    value
}

fn encode(flush: &Flush) -> Encoded {
    let row = |row: &foretell_ports::store::RowWrite| {
        let address = Prefix::new(flush.generation, row.key.view, row.key.bucket).row(&row.key.key, flush.partition);
        let mut value = Vec::with_capacity(POSITION_BYTES + row.cell.len());
        value.put_i64_le(row.position);
        value.extend_from_slice(&row.cell);
        (address, value)
    };
    let positions = flush.rows.iter().map(|row| row.position);
    Encoded {
        checkpoint_key: address::checkpoint(flush.generation, flush.partition),
        checkpoint: flush.checkpoint,
        rows: flush.rows.iter().map(row).collect(),
        positions: positions.clone().min().zip(positions.max().map(|highest| highest + 1)),
    }
}

#[async_trait]
impl foretell_ports::store::Store for Store {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        let key = address::checkpoint(generation, partition);
        let stored = self.inner.checkpoint(&key)?;
        Ok(stored.map(|stored| stored.checkpoint))
    }

    /// On a thread that may block: a commit waits for the disk when memtables fill faster than they are flushed.
    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        // Before the rows are written: looking up too many partials is harmless, too few is not.
        self.inner.sources.fetch_max(flush.partition.saturating_add(1), Ordering::AcqRel);
        let (inner, flush) = (Arc::clone(&self.inner), encode(flush));
        let written = tokio::task::spawn_blocking(move || inner.write(flush)).await;
        written.map_err(|e| Error::fatal("write the store", e))?
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        let prefix = |key: &RowKey| Prefix::new(generation, key.view, key.bucket);
        keys.iter().map(|key| self.inner.partials(&prefix(key), source, &key.key)).collect()
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        const OPERATION: &str = "scan rows";
        let prefix = Prefix::new(generation, view, bucket);
        // Nothing sorts between an address and the same address followed by a zero.
        let successor = |(key, source)| [prefix.row(key, source), vec![0]].concat();
        let begin = after.map_or_else(|| prefix.bytes().to_vec(), successor);
        let mut rows = Vec::new();
        for entry in self.inner.rows.range(begin..).take(limit) {
            let (address, value) = entry.into_inner().map_err(|e| self.inner.failed(OPERATION, &e))?;
            if !address.starts_with(prefix.bytes()) {
                break;
            }
            let (key, source) = self.inner.parsed(OPERATION, &address)?;
            rows.push((key, Row { source, cell: cell(value) }));
        }
        Ok(rows)
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        const OPERATION: &str = "drop a generation";
        let inner = Arc::clone(&self.inner);
        let dropped = tokio::task::spawn_blocking(move || {
            inner.drop_generation(generation).map_err(|e| inner.failed(OPERATION, &e))
        });
        dropped.await.map_err(|e| Error::fatal(OPERATION, e))?
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        let mut buckets = Vec::new();
        let mut from = Some(i64::MIN);
        while let Some(bucket) = from {
            let found = self.inner.bucket_from(&Prefix::new(generation, view, bucket))?;
            buckets.extend(found);
            from = found.and_then(|found| found.checked_add(1));
        }
        Ok(buckets)
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.inner.pointer(family.name().as_bytes())
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        let (inner, expected, new) = (Arc::clone(&self.inner), expected.cloned(), new.clone());
        let key = family.name().as_bytes();
        let swapped = tokio::task::spawn_blocking(move || inner.swap(key, expected.as_ref(), &new)).await;
        swapped.map_err(|e| Error::fatal("set the pointer", e))?
    }
}
