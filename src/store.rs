//! The store: the left side of `rows = fold(log)`.
//!
//! ```text
//!   view, generation ─┬─ bucket ─┬─ key ─┬─ source partition 0 ─► position + state   (one cell, written whole)
//!                     │          │       └─ source partition 3 ─► position + state
//!                     │          └─ key …
//!                     └─ bucket …                      one bucket = one Cassandra partition = one atomic batch
//!   family, generation ─── partition ─► checkpoint     the truth about where a new owner starts
//!   family ─► pointer { serving, building, epoch, fingerprint }   see [`pointer`]
//! ```
//!
//! Promises, held by one conformance suite for memory, disk and Cassandra:
//! - [`Store::apply`] writes rows first and the checkpoint last. On disk both are one atomic batch; in Cassandra
//!   a crash may leave any subset of the buckets' rows written and the checkpoint not.
//! - A row at a lower position never replaces one at a higher position, and neither does a checkpoint, whoever
//!   writes last: positions are the write timestamps.
//! - What was acknowledged is kept and seen by every later read here.
//!
//! What is absent: deletes of rows, expiry, counters, partial updates. Only a whole generation is dropped.

pub mod cassandra;
pub mod disk;
pub mod memory;
pub mod pointer;

pub use crate::port::{Error, Kind};
pub(crate) use disk::fuzz_stored;
pub use pointer::{Building, Moving, Pointer};

use crate::event::{Topic, key};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Buckets of a view whose rows are spread by key. Part of the schema: changing it means a rebuild.
pub const BUCKETS: u32 = 256;

/// The rows that move together: one topic, one fold, one checkpoint a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(clap::ValueEnum)]
pub enum Family {
    /// Views of the logins topic.
    Logins,
    /// Views of the appointments topic.
    Appointments,
    /// Views of the reminders topic.
    Reminders,
    /// Views of the policies topic.
    Policies,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Logins, Self::Appointments, Self::Reminders, Self::Policies];

    /// The name in tables, groups, metrics and commands.
    pub const fn name(self) -> &'static str {
        self.topic().name()
    }

    /// The family that decides how many partitions this one has: reminders stand where their appointments do.
    pub const fn lead(self) -> Self {
        match self {
            Self::Logins => Self::Logins,
            Self::Appointments | Self::Reminders => Self::Appointments,
            Self::Policies => Self::Policies,
        }
    }

    /// The topic that it is the fold of.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Logins => Topic::Logins,
            Self::Appointments => Topic::Appointments,
            Self::Reminders => Topic::Reminders,
            Self::Policies => Topic::Policies,
        }
    }
}

/// A set of rows of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Owner rows of logins: known devices and login history of a user.
    User,
    /// How often a value of a login feature was seen, and by how many.
    Feature,
    /// Owner rows of appointments: a client, their appointments and their history.
    Client,
    /// A tenant's outcomes by lead bucket.
    Lead,
    /// Whom to look at, by hour.
    Agenda,
    /// Appointment to client.
    Lookup,
    /// Owner rows of reminders: what was announced to a client.
    Sent,
    /// Whom something was announced to, by hour of the announced start.
    Announced,
    /// Owner rows of policies: what decides for a tenant.
    Policy,
    /// A tenant's outcomes of one day, with what was known before.
    Outcome,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 10] = [
        Self::User,
        Self::Feature,
        Self::Client,
        Self::Lead,
        Self::Agenda,
        Self::Lookup,
        Self::Sent,
        Self::Announced,
        Self::Policy,
        Self::Outcome,
    ];

    /// The name in tables and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Feature => "feature",
            Self::Client => "client",
            Self::Lead => "lead",
            Self::Agenda => "agenda",
            Self::Lookup => "lookup",
            Self::Sent => "sent",
            Self::Announced => "announced",
            Self::Policy => "policy",
            Self::Outcome => "outcome",
        }
    }

    /// The family that it moves with.
    pub const fn family(self) -> Family {
        match self {
            Self::User | Self::Feature => Family::Logins,
            Self::Client | Self::Lead | Self::Agenda | Self::Lookup | Self::Outcome => Family::Appointments,
            Self::Sent | Self::Announced => Family::Reminders,
            Self::Policy => Family::Policies,
        }
    }

    /// The view of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.name() == name)
    }
}

/// The address of a row, save its source partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The view.
    pub view: View,
    /// The bucket: `murmur2(key) % BUCKETS` for most views, a point in time for those that are scanned.
    pub bucket: i64,
    /// Begins with `tenant:`; at most 1 KiB.
    pub key: String,
}

impl RowKey {
    /// The address of a row that is found by its key.
    pub fn hashed(view: View, key: String) -> Self {
        let bucket = i64::from(key::partition(key.as_bytes(), BUCKETS));
        Self { view, bucket, key }
    }
}

/// A complete set of rows of a family: folded from the beginning by one fold, within one epoch of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Whose rows.
    pub family: Family,
    /// From 1, never reused.
    pub number: u32,
    /// Which physical topic, from 0 to 100: counts its re-creations.
    pub epoch: u8,
}

/// One stored partial of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The source partition that wrote it.
    pub source: u32,
    /// Position and state; see [`crate::view::cell`].
    pub cell: Bytes,
}

/// A row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// Where.
    pub key: RowKey,
    /// The offset of the last record folded into it.
    pub position: i64,
    /// Position and state.
    pub cell: Bytes,
}

/// How far a partition is folded: all records below `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The lowest offset that is not folded.
    pub next: i64,
    /// The last record folded and its [digest](crate::log::Record::digest); none before the first.
    pub last: Option<Stand>,
}

/// The record that a checkpoint stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// Its offset.
    pub offset: i64,
    /// Its digest.
    pub digest: u64,
    /// Its timestamp.
    pub timestamp_ms: i64,
}

/// What one flush of one partition writes.
#[derive(Debug, Clone)]
pub struct Flush {
    /// Whose rows.
    pub generation: Generation,
    /// The source partition.
    pub partition: u32,
    /// In any order, each key at most once.
    pub rows: Vec<RowWrite>,
    /// Written when all rows are.
    pub checkpoint: Checkpoint,
}

/// Keeps rows, checkpoints and pointers.
#[async_trait]
pub trait Store: Send + Sync {
    /// The name of the system in traces, as `db.system.name`.
    fn system(&self) -> &'static str {
        "foretell"
    }

    /// Where a new owner of the partition starts.
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error>;

    /// Writes all rows, then the checkpoint. Retry: any of it may have been written; the same flush may follow.
    async fn apply(&self, flush: &Flush) -> Result<(), Error>;

    /// The partials of each key, in the order of `keys`; of one source partition only, where `source` names it.
    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error>;

    /// The rows of a bucket in order of (key, source) behind `after`; fewer than `limit` only at the end.
    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error>;

    /// Drops the rows and checkpoints of a generation, of whichever epoch; those that a late writer adds afterwards
    /// may stay. What is not there is no error. Retry: any of it may be dropped, and it may be done again.
    async fn drop_generation(&self, generation: Generation) -> Result<(), Error>;

    /// The buckets of a view that hold rows, rising. Reads everything: for operators and tests.
    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error>;

    /// The pointer of a family.
    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error>;

    /// Sets the pointer if it still is `expected`; answers whether it did.
    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error>;
}
