//! The log: the right side of `rows = fold(log)`.
//!
//! ```text
//!             append ──► [ 0 | 1 | 2 |   | 4 | 5 ]  one partition; offsets rise, with holes
//!                          ▲               ▲       ▲
//!                        start         position   end
//!
//!   subscribe(group, topic) ─► Membership ─► Assigned { partition, start, reader }
//!                                                  │ the owner answers where to begin
//!                                                  ▼
//!                                reader.next() ─► Records … Records, End(p), Records …, Revoked
//! ```
//!
//! Promises, held by one conformance suite for memory, disk and Kafka:
//! - What [`Log::append`] acknowledged is kept, in the order of the call for records of one partition.
//! - A key lives in one partition, [`key::partition`](foretell_events::key::partition) of the stored count.
//! - A reader sees committed records only, in rising offsets, each at least once, none before where it began.
//! - A partition has one reader per group, except while an old one has not yet learned of its revocation.
//! - Slow readers stop the fetching of their partition and nothing else.
//!
//! - Records of facts are kept for ever; of decisions and dead letters the oldest go after a time ([`Retention`]).
//!
//! What is absent: deletion by whoever uses it, compaction and seeking. A reader that must start elsewhere is opened anew.

pub mod backend;
pub mod group;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
#[cfg(any(test, feature = "memory"))]
mod paged;
pub mod walk;

#[cfg(any(test, feature = "memory"))]
pub use paged::Paged;

use crate::Error;
use async_trait::async_trait;
use foretell_events::record::{NewRecord, Record};
use foretell_events::topic::full_name;
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

/// What one look into a partition brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In rising offsets; empty at the end, and where only holes lie before it.
    pub records: Vec<Record>,
    /// Everything below it, from where the look began, is in `records`.
    pub next: i64,
}

/// How long records are kept of the topics that no row is folded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days of decisions, at least 1.
    pub decision_days: u32,
    /// Days of dead letters, at least 1.
    pub dead_letter_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { decision_days: 90, dead_letter_days: 90 }
    }
}

impl Retention {
    /// Milliseconds that records of a topic are kept for; none: for ever, because rows are their fold.
    pub fn ms(self, topic: Topic) -> Option<i64> {
        let days = match topic {
            Topic::Logins | Topic::Appointments | Topic::Reminders | Topic::Policies => return None,
            Topic::Decisions => self.decision_days,
            Topic::DeadLetters => self.dead_letter_days,
        };
        Some(i64::from(days) * 24 * 60 * 60 * 1000)
    }
}

/// What a copy of an embedded log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Offsets that the partitions hold, added up.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

/// What a reader brings next.
#[derive(Debug)]
pub enum Next {
    /// One or more records in rising offsets.
    Records(Vec<Record>),
    /// Everything below this offset has been brought; more may come. Said once each time the end is reached.
    End(i64),
    /// The partition goes to somebody else. Flush, then drop the acknowledgement; nothing follows.
    Revoked(Acknowledge),
}

/// Held while a revoked partition is drained: the next owner waits for its drop, but not for ever.
#[derive(Debug)]
pub struct Acknowledge(#[allow(dead_code, reason = "its drop is the message")] Option<oneshot::Sender<()>>);

impl Acknowledge {
    /// An acknowledgement and the end that waits for it: the receiver errs when it is dropped.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }
}

/// Reads one partition.
#[async_trait]
pub trait Reader: Send {
    /// What comes next; waits for it. Cancel-safe: a cancelled call loses nothing.
    async fn next(&mut self) -> Result<Next, Error>;

    /// Tells the group that everything below `next` is folded. Advice: the store's checkpoint decides.
    ///
    /// A reader without a group answers `Ok` and does nothing.
    async fn commit(&mut self, next: i64) -> Result<(), Error>;
}

/// A partition that was given to this member.
pub struct Assigned {
    /// The partition.
    pub partition: u32,
    /// What the group last committed, if anything.
    pub committed: Option<i64>,
    /// The owner sends the offset to begin at; dropping it gives the partition back.
    pub start: oneshot::Sender<i64>,
    /// Brings nothing before `start` was answered.
    pub reader: Box<dyn Reader>,
}

/// A member of a consumer group; dropping it leaves the group.
#[async_trait]
pub trait Membership: Send {
    /// The next partition that is given to this member; waits for one. Cancel-safe.
    async fn next(&mut self) -> Result<Assigned, Error>;

    /// Leaves the group and answers when the group knows it, or after a bounded time.
    ///
    /// A process that ends right after a mere drop may be a member until its session ends, and its partitions idle.
    async fn leave(self: Box<Self>) {
        drop(self);
    }
}

/// Appends to one partition for its owner alone.
#[async_trait]
pub trait Fenced: Send {
    /// Appends all or nothing, in order, to the fenced partition; durable when it answers.
    ///
    /// Fatal when another owner has fenced this one: the caller ends and takes over anew.
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error>;
}

/// An ordered, durable, partitioned log.
#[async_trait]
pub trait Log: Send + Sync {
    /// The number of partitions of a topic, as it was read when the log was opened; at least 1.
    fn partitions(&self, topic: Topic) -> u32;

    /// The name of the system in traces, as `messaging.system`.
    fn system(&self) -> &'static str {
        "foretell"
    }

    /// Which incarnation of a topic it is: rises when the topic gets another partition count. At most 100.
    fn epoch(&self, _topic: Topic) -> u8 {
        0
    }

    /// Appends records of any topics; durable when it answers, positions in the order given.
    ///
    /// Retry: some of them may have been appended. Reject: a record is too large, none was appended.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error>;

    /// What a partition holds now.
    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error>;

    /// Joins a consumer group on a topic.
    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error>;

    /// Reads a partition outside of any group, from the first record at or above `from`; never revoked.
    ///
    /// Fatal where `from` lies below what the partition holds, as retention has left it.
    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error>;

    /// Looks once at what a reader that began at `from` would bring first, and does not stay. A page is a batch.
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

    /// Becomes the only one who can append to a partition through a [`Fenced`]; fences the previous one.
    ///
    /// Plain [`Log::append`] is not fenced.
    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error>;

    /// Begins the topics of the next epoch.
    ///
    /// Reject where somebody reads the present ones in a group that is named, where what lies in the way may be of
    /// use to somebody, and where a log has no way to exchange topics, as one in memory.
    async fn successors(&self, _exchange: &Exchange) -> Result<Box<dyn Successors>, Error> {
        Err(Error::reject("exchange a topic", "the topics of this log keep their partitions"))
    }

    /// Waits until this process can never append again, and answers why: it should end, and be started anew.
    ///
    /// Waits for ever on a log to which that does not happen, as a cluster's, which heals. Cancel-safe.
    async fn broken(&self) -> Error {
        std::future::pending().await
    }
}

/// Topics that are to have another partition count, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The topics.
    pub topics: Vec<Topic>,
    /// Partitions that each of them is to have, at least 1.
    pub partitions: u32,
    /// Groups that have the topics to themselves while they have members.
    pub groups: Vec<String>,
    /// What to do with records that are in a topic of the next epoch already.
    pub remains: Remains,
}

/// Records in a topic of the next epoch, before it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// An earlier attempt has left them: they are wiped.
    Wipe,
    /// No attempt is known: they are not touched, and the exchange is refused.
    Refuse,
}

/// The topics of the next epoch, while they are filled from the present ones: the way to another partition count.
///
/// Nobody else reads or writes them. What is dropped unfinished, as by a crash, is wiped by the next attempt.
#[async_trait]
pub trait Successors: Send {
    /// Adds records of the present topics behind what is there, in order; keys decide the partitions anew. Timestamps
    /// never fall within a partition: what is given in their order keeps its own, if the log can write them.
    /// Durable when it is [finished](Self::finish).
    async fn add(&mut self, records: Vec<Record>) -> Result<(), Error>;

    /// Makes all of it durable and ready to be opened in place of the present topics. A log that keeps the epochs of
    /// its topics itself is opened with the new ones from then on.
    async fn finish(self: Box<Self>) -> Result<(), Error>;

    /// Gives them up, and frees the space that they took.
    async fn discard(self: Box<Self>) -> Result<(), Error>;
}

/// The full name of a topic as it is now.
pub fn present_name(log: &dyn Log, prefix: &str, topic: Topic) -> String {
    full_name(prefix, topic, log.epoch(topic))
}

/// The record at `offset`, if that very offset holds one.
pub async fn record_at(log: &dyn Log, topic: Topic, partition: u32, offset: i64) -> Result<Option<Record>, Error> {
    let extent = log.extent(topic, partition).await?;
    if offset < extent.start || offset >= extent.end {
        return Ok(None);
    }
    let page = log.page(topic, partition, offset).await?;
    Ok(page.records.into_iter().next().filter(|record| record.position.offset == offset))
}
