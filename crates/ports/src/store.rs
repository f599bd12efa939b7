//! The store: the left side of `rows = fold(log)`.
//!
//! ```text
//!   view, generation ─┬─ bucket ─┬─ key ─┬─ source partition 0 ─► position + state   (one cell, written whole)
//!                     │          │       └─ source partition 3 ─► position + state
//!                     │          └─ key …
//!                     └─ bucket …                      one bucket = one Cassandra partition = one atomic batch
//!   family, generation ─── partition ─► checkpoint     decides where a new owner starts
//!   family ─► pointer { serving, building, epoch, fingerprint }   see [`pointer`]
//! ```
//!
//! Guarantees, tested by one conformance suite for memory, disk and Cassandra:
//! - [`Store::apply`] writes rows first and the checkpoint last. On disk both are one atomic batch. In Cassandra a
//!   crash can leave any subset of the buckets' rows written without the checkpoint.
//! - A row with a lower position never replaces one with a higher position, and the same holds for checkpoints, in
//!   whatever order they are written: positions are the write timestamps.
//! - Acknowledged writes are kept and visible to every later read by this process.
//!
//! Not supported: deleting rows, expiry, counters, partial updates. Only a whole generation can be dropped.

#[cfg(any(test, feature = "memory"))]
pub mod memory;

use crate::Error;
use async_trait::async_trait;
use bytes::Bytes;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use serde::{Deserialize, Serialize};

/// One stored partial of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The source partition that wrote the partial.
    pub source: u32,
    /// Position and state; see [`foretell_domain::view::cell`].
    pub cell: Bytes,
}

/// A row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// The address of the row.
    pub key: RowKey,
    /// The offset of the last record folded into it.
    pub position: i64,
    /// Position and state.
    pub cell: Bytes,
}

/// How far a partition is folded: all records below `next` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The lowest offset that is not folded.
    pub next: i64,
    /// The last record folded and its [digest](foretell_events::record::Record::digest); none before the first.
    pub last: Option<LastRecord>,
}

/// The last record below a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its offset.
    pub offset: i64,
    /// Its digest.
    pub digest: u64,
    /// Its timestamp.
    pub timestamp_ms: i64,
}

/// Everything that one flush of one partition writes.
#[derive(Debug, Clone)]
pub struct Flush {
    /// The generation of the rows.
    pub generation: Generation,
    /// The source partition.
    pub partition: u32,
    /// In any order, each key at most once.
    pub rows: Vec<RowWrite>,
    /// Written after all rows.
    pub checkpoint: Checkpoint,
}

/// Keeps rows, checkpoints and pointers.
#[async_trait]
pub trait Store: Send + Sync {
    /// The name of the system in traces, as `db.system.name`.
    fn system(&self) -> &'static str {
        "foretell"
    }

    /// The offset at which a new owner of the partition starts.
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error>;

    /// Writes all rows, then the checkpoint. Retry: parts may have been written; the same flush can be applied again.
    async fn apply(&self, flush: &Flush) -> Result<(), Error>;

    /// The partials of each key, in the order of `keys`; if `source` is set, only those of that source partition.
    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error>;

    /// The rows of a bucket in the order of (key, source), starting after `after`; fewer than `limit` only at the end.
    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error>;

    /// Drops the rows and checkpoints of a generation, in all epochs. Rows that a late writer adds afterwards may
    /// remain. Dropping what does not exist succeeds. Retry: parts may have been dropped; the call can be repeated.
    async fn drop_generation(&self, generation: Generation) -> Result<(), Error>;

    /// The buckets of a view that contain rows, in rising order.
    ///
    /// Reads no rows, but is not for requests. Its cost rises with the number of buckets: one seek for each bucket of
    /// the view on disk; in Cassandra, a scan of the partition keys of all views and generations, by all nodes. A view
    /// has up to 256 buckets, or those of an hour and source partition (`agenda`, `announced`): 24 for each partition
    /// and day with a visit. Callers are verification, the drop of a generation in Cassandra, and a planner of a tenant
    /// that confirms bookings: once when it acquires a partition, and once after each edit of a policy.
    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error>;

    /// The pointer of a family.
    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error>;

    /// Sets the pointer if it still equals `expected`; returns whether it was set.
    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error>;
}
