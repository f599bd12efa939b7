//! The log: the right side of `rows = fold(log)`.
//!
//! ```text
//!             append ──► [ 0 | 1 | 2 |   | 4 | 5 ]  one partition; offsets rise, with holes
//!                          ▲               ▲       ▲
//!                        start         position   end
//!
//!   subscribe(group, topic) ─► Membership ─► Assigned { partition, start, reader }
//!                                                  │ the owner sends the offset to start at
//!                                                  ▼
//!                                reader.next() ─► Records … Records, End(p), Records …, Revoked
//! ```
//!
//! Guarantees, tested by one conformance suite for memory, disk and Kafka:
//! - Records that [`Log::append`] acknowledged are kept; those of one partition keep the order of the call.
//! - All records of a key are in one partition: [`key::partition`](foretell_events::key::partition) of the stored
//!   count.
//! - A reader returns only committed records, with rising offsets, each at least once, and none below its start.
//! - A partition has one reader per group, except while a previous reader has not yet noticed its revocation.
//! - A slow reader delays the fetching of its own partition and no other.
//!
//! - Records of facts are kept forever; decisions and dead letters are deleted after a time ([`Retention`]).
//!
//! Not supported: deletion by callers, compaction and seeking. To read from another offset, open a new reader.

pub mod backend;
pub mod group;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
#[cfg(any(test, feature = "memory"))]
mod paged;
mod seek;
pub mod walk;

#[cfg(any(test, feature = "memory"))]
pub use paged::Paged;

use crate::Error;
use async_trait::async_trait;
use foretell_events::record::{NewRecord, Record};
use foretell_events::topic::{Lifetime, full_name};
use foretell_events::{Position, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// The offsets that a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The lowest offset that can still be read.
    pub start: i64,
    /// One past the highest committed offset; trailing holes may lie before it.
    pub end: i64,
}

/// The result of one read of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In rising offsets; empty at the end of the partition, and if only holes remain before it.
    pub records: Vec<Record>,
    /// All records below this offset, from the start of the read, are in `records`.
    pub next: i64,
}

/// How long records are kept in topics that are not folded into rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that decisions are kept, at least 1.
    pub decision_days: u32,
    /// Days that dead letters are kept, at least 1.
    pub dead_letter_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { decision_days: 90, dead_letter_days: 90 }
    }
}

impl Retention {
    /// How long records of a topic are kept, in milliseconds; none: forever, because rows are their fold.
    pub fn ms(self, topic: Topic) -> Option<i64> {
        let days = match topic.lifetime() {
            Lifetime::Forever => return None,
            Lifetime::AsDecisions => self.decision_days,
            Lifetime::AsDeadLetters => self.dead_letter_days,
        };
        Some(i64::from(days) * 24 * 60 * 60 * 1000)
    }
}

/// The size of a backup of an embedded log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Sum of the offsets that the partitions contain.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

/// The next result of a reader.
#[derive(Debug)]
pub enum Next {
    /// One or more records in rising offsets.
    Records(Vec<Record>),
    /// Everything below this offset has been returned; more may follow. Returned once each time the end is reached.
    End(i64),
    /// The partition is assigned to another member. Flush, then drop the acknowledgement; nothing follows.
    Revoked(Acknowledge),
}

/// Held while a revoked partition drains: the next owner waits for its drop, for a limited time.
#[derive(Debug)]
pub struct Acknowledge(#[allow(dead_code, reason = "its drop is the message")] Option<oneshot::Sender<()>>);

impl Acknowledge {
    /// An acknowledgement and the receiver that waits for it: the receiver fails when the acknowledgement is dropped.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }
}

/// Reads one partition.
#[async_trait]
pub trait Reader: Send {
    /// Waits for the next result. Cancel-safe: a cancelled call loses nothing.
    async fn next(&mut self) -> Result<Next, Error>;

    /// Reports to the group that everything below `next` is folded. Only a hint: the store's checkpoint decides.
    ///
    /// A reader without a group returns `Ok` and does nothing.
    async fn commit(&mut self, next: i64) -> Result<(), Error>;
}

/// A partition that is assigned to this member.
pub struct Assigned {
    /// The partition.
    pub partition: u32,
    /// The offset that the group committed last, if any.
    pub committed: Option<i64>,
    /// The owner sends the offset to start at; dropping it releases the partition.
    pub start: oneshot::Sender<i64>,
    /// Returns nothing until `start` has been sent.
    pub reader: Box<dyn Reader>,
}

/// A member of a consumer group; dropping it leaves the group.
#[async_trait]
pub trait Membership: Send {
    /// Waits for the next partition that is assigned to this member. Cancel-safe.
    async fn next(&mut self) -> Result<Assigned, Error>;

    /// Leaves the group. Returns when the group has registered it, or after a bounded time.
    ///
    /// A process that only drops the membership and ends may remain a member until its session expires; its partitions
    /// are idle until then.
    async fn leave(self: Box<Self>) {
        drop(self);
    }
}

/// Appends to one partition, exclusively for its owner.
#[async_trait]
pub trait Fenced: Send {
    /// Appends all records, in order, to the fenced partition, or none of them. They are durable when it returns.
    ///
    /// Fatal when another owner has fenced this one: the caller ends and acquires the partition again.
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error>;
}

/// An ordered, durable, partitioned log. Exchanging topics is in [`LogAdmin`].
#[async_trait]
pub trait Log: Send + Sync {
    /// The number of partitions of a topic, as read when the log was opened; at least 1.
    fn partitions(&self, topic: Topic) -> u32;

    /// The name of the messaging system in traces: `messaging.system`.
    fn system(&self) -> &'static str {
        "foretell"
    }

    /// The incarnation of a topic: it rises when the partition count of the topic changes. At most 100. An offset has a
    /// meaning only together with it, so positions that are stored elsewhere contain it.
    fn epoch(&self, _topic: Topic) -> u8 {
        0
    }

    /// Appends records of any topics. They are durable when it returns; the positions are in the order of the records.
    ///
    /// Retry: some of the records may have been appended. Reject: a record is too large, and none was appended.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error>;

    /// The offsets that a partition holds now.
    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error>;

    /// Joins a consumer group on a topic.
    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error>;

    /// Reads a partition outside of any group, from the first record at or above `from`; never revoked.
    ///
    /// Fatal if retention has already deleted the record at `from`.
    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error>;

    /// Returns the first batch that a reader from `from` would return, without keeping a reader open.
    async fn page(&self, topic: Topic, partition: u32, from: i64) -> Result<Page, Error> {
        let mut reader = self.read(topic, partition, from).await?;
        Ok(match reader.next().await? {
            Next::Records(records) => {
                let next = records.last().map_or(from, |record| record.position.offset + 1);
                Page { records, next }
            }
            Next::End(next) => Page { records: Vec::new(), next },
            Next::Revoked(_) => Page { records: Vec::new(), next: from },
        })
    }

    /// The offset from which to read for all records of a partition that are not older than `time_ms`: the first one
    /// that is not older, or the end. Holes may follow it. A few reads, or one query.
    ///
    /// Timestamps are those of the records. They never decrease within a partition as long as the clock that sets them
    /// does not; after it was set back, the offset may be that of a later record.
    async fn offset_at(&self, topic: Topic, partition: u32, time_ms: i64) -> Result<i64, Error> {
        seek::offset_at(self, topic, partition, time_ms).await
    }

    /// Acquires the exclusive right to append to a partition through a [`Fenced`], and fences the previous owner.
    ///
    /// Plain [`Log::append`] is not fenced.
    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error>;
}

/// What only the composition of a process and its commands need of a log: to exchange topics, and to learn that the
/// log is broken.
#[async_trait]
pub trait LogAdmin: Log {
    /// Creates the topics of the next epoch.
    ///
    /// Reject if one of the named groups still has members that read the current topics, or if existing data is in the
    /// way and may still be needed.
    async fn successors(&self, exchange: &Exchange) -> Result<Box<dyn Successors>, Error>;

    /// Waits until this process can never append again, and returns the reason. The process should then be restarted.
    ///
    /// Never returns on a log that recovers by itself, such as a cluster. Cancel-safe.
    async fn broken(&self) -> Error {
        std::future::pending().await
    }
}

/// Topics whose partition counts change together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The topics.
    pub topics: Vec<Topic>,
    /// The new partition count of each topic, at least 1.
    pub partitions: u32,
    /// Groups that must have no members while the topics are exchanged.
    pub groups: Vec<String>,
    /// What to do with records that already exist in a topic of the next epoch.
    pub remains: Remains,
}

/// How to handle records in a topic of the next epoch that exist before the exchange begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// They are left from an earlier attempt: delete them.
    Wipe,
    /// No earlier attempt is known: keep them, and reject the exchange.
    Refuse,
}

/// The topics of the next epoch, while they are filled with the records of the current ones.
///
/// Nothing else reads or writes them. An unfinished exchange, for example after a crash, is deleted by the next one.
#[async_trait]
pub trait Successors: Send {
    /// Appends records of the current topics in order; their keys determine the new partitions. Timestamps never fall
    /// within a partition: records that arrive in the order of their timestamps keep them, if the log supports it.
    /// Durable after [`finish`](Self::finish).
    async fn add(&mut self, records: Vec<Record>) -> Result<(), Error>;

    /// Makes everything durable and ready to replace the current topics. A log that stores the epochs of its topics
    /// itself opens the new ones from then on.
    async fn finish(self: Box<Self>) -> Result<(), Error>;

    /// Discards the new topics and frees their space.
    async fn discard(self: Box<Self>) -> Result<(), Error>;
}

/// The full name of a topic in its current epoch.
pub fn present_name(log: &dyn Log, prefix: &str, topic: Topic) -> String {
    full_name(prefix, topic, log.epoch(topic))
}

/// The record at exactly `offset`, if there is one.
pub async fn record_at(log: &dyn Log, topic: Topic, partition: u32, offset: i64) -> Result<Option<Record>, Error> {
    let extent = log.extent(topic, partition).await?;
    if offset < extent.start || offset >= extent.end {
        return Ok(None);
    }
    let page = log.page(topic, partition, offset).await?;
    Ok(page.records.into_iter().next().filter(|record| record.position.offset == offset))
}
