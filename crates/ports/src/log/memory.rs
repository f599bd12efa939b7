//! A log in memory, for simulations and unit tests.
//!
//! It gives all guarantees of the contract, including consumer groups and fencing, and is deterministic: no
//! randomness, no order that depends on hashing, no time except the clock's. Beyond the contract it can simulate
//! what happens in a cluster: leave holes, delete the beginning of a partition, and move partitions between members,
//! early, late or without notifying the old owner.

use super::backend::{check_fenced, check_sizes, fenced_off, partition_of, unknown};
use super::group::{Groups, Handover};
use super::{Exchange, Extent, Fenced, Membership, Next, Reader};
use crate::Error;
use crate::clock::Clock;
use async_trait::async_trait;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Position, Topic};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Records per [`Next::Records`].
pub const BATCH_RECORDS_MAX: usize = 500;

/// The log; clones share everything.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    groups: Groups,
}

struct Shared {
    clock: Arc<dyn Clock>,
    topics: Mutex<Topics>,
    /// The epochs of topics that are not in their first one.
    epochs: BTreeMap<Topic, u8>,
    /// Successors that are complete; they replace the topics when the log is opened again.
    finished: Mutex<Topics>,
    appended: Notify,
}

type Topics = BTreeMap<Topic, Vec<Partition>>;

#[derive(Clone, Default)]
struct Partition {
    records: Vec<Record>,
    start: i64,
    end: i64,
    timestamp_ms: i64,
    /// How often the partition was fenced: only the last owner can append.
    epoch: u64,
}

impl Partition {
    fn append(&mut self, position: Position, record: NewRecord, now_ms: i64) -> Position {
        let position = Position { offset: self.end, ..position };
        self.timestamp_ms = self.timestamp_ms.max(now_ms);
        let NewRecord { key, value, headers, .. } = record;
        self.records.push(Record { position, timestamp_ms: self.timestamp_ms, key, value, headers });
        self.end += 1;
        position
    }

    fn from(&self, offset: i64, limit: usize) -> Vec<Record> {
        let first = self.records.partition_point(|record| record.position.offset < offset);
        self.records[first..].iter().take(limit).cloned().collect()
    }
}

impl Log {
    /// An empty log; `partitions` returns the partition count of a topic, at least 1.
    pub fn new(partitions: impl Fn(Topic) -> u32, clock: Arc<dyn Clock>) -> Self {
        let empty =
            |topic: Topic| (0..topic.partitions(partitions(topic)).max(1)).map(|_| Partition::default()).collect();
        Self::of(clock, Topic::ALL.into_iter().map(|topic| (topic, empty(topic))).collect(), BTreeMap::new())
    }

    fn of(clock: Arc<dyn Clock>, topics: Topics, epochs: BTreeMap<Topic, u8>) -> Self {
        let (topics, finished) = (Mutex::new(topics), Mutex::default());
        let shared = Shared { clock, topics, epochs, finished, appended: Notify::new() };
        Self { shared: Arc::new(shared), groups: Groups::default() }
    }

    /// The log as a process finds it that opens it now: topics with complete successors are replaced by them, in their
    /// next epoch. It shares nothing with this one, which no process uses any more.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let (mut topics, mut epochs) = (self.shared.lock().clone(), self.shared.epochs.clone());
        for (topic, partitions) in self.shared.finished().iter() {
            topics.insert(*topic, partitions.clone());
            *epochs.entry(*topic).or_default() += 1;
        }
        Self::of(Arc::clone(&self.shared.clock), topics, epochs)
    }

    /// Appends a record as an external producer might: to a partition of its choice.
    pub fn append_to(&self, partition: u32, record: NewRecord) -> Result<Position, Error> {
        let (topic, now_ms) = (record.topic, self.shared.clock.now_ms());
        let position = Position { topic, partition, offset: 0 };
        let position = self.shared.with(topic, partition, |log| log.append(position, record, now_ms))?;
        self.shared.appended.notify_waiters();
        Ok(position)
    }

    /// All records of a partition.
    ///
    /// A partition that does not exist is Reject.
    pub fn records(&self, topic: Topic, partition: u32) -> Result<Vec<Record>, Error> {
        self.shared.with(topic, partition, |partition| partition.records.clone())
    }

    /// Leaves a hole of `count` offsets after the last record, as a transaction marker does.
    ///
    /// A partition that does not exist is Reject.
    pub fn skip(&self, topic: Topic, partition: u32, count: u32) -> Result<(), Error> {
        self.shared.with(topic, partition, |partition| partition.end += i64::from(count))?;
        self.shared.appended.notify_waiters();
        Ok(())
    }

    /// Deletes the records below `start`, as retention does. This log never deletes records by itself.
    ///
    /// A partition that does not exist is Reject.
    pub fn forget(&self, topic: Topic, partition: u32, start: i64) -> Result<(), Error> {
        self.shared.with(topic, partition, |partition| {
            partition.start = start.clamp(partition.start, partition.end);
            partition.records.retain(|record| record.position.offset >= start);
        })
    }

    /// Moves partitions between the members of a group: `choose` returns the index of a member, in the order of
    /// joining, for a partition and the number of members. The assignment is valid until the next join or leave.
    pub fn rebalance(&self, group: &str, topic: Topic, handover: Handover, choose: impl FnMut(u32, usize) -> usize) {
        self.groups.rebalance(group, topic, handover, choose);
    }

    /// Notifies readers that lost their partition by [`Handover::Unnoticed`].
    pub fn notify_revoked(&self, group: &str, topic: Topic) {
        self.groups.notify_revoked(group, topic);
    }

    /// The offset that a group committed last for a partition.
    pub fn committed(&self, group: &str, topic: Topic, partition: u32) -> Option<i64> {
        self.groups.committed(group, topic, partition)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Topics> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, topic: Topic, partition: u32, act: impl FnOnce(&mut Partition) -> T) -> Result<T, Error> {
        let mut topics = self.lock();
        let found = topics.get_mut(&topic).and_then(|partitions| partitions.get_mut(partition as usize));
        found.map(act).ok_or_else(|| unknown(topic, partition))
    }
}

#[async_trait]
impl super::Log for Log {
    fn partitions(&self, topic: Topic) -> u32 {
        self.shared.lock().get(&topic).map_or(1, |partitions| partitions.len() as u32)
    }

    fn epoch(&self, topic: Topic) -> u8 {
        self.shared.epochs.get(&topic).copied().unwrap_or(0)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        check_sizes(&records)?;
        let now_ms = self.shared.clock.now_ms();
        let mut positions = Vec::with_capacity(records.len());
        {
            let mut topics = self.shared.lock();
            for record in records {
                let topic = record.topic;
                let partitions = topics.entry(topic).or_default();
                let partition = partition_of(&record, partitions.len() as u32);
                let position = Position { topic, partition, offset: 0 };
                positions.push(partitions[partition as usize].append(position, record, now_ms));
            }
        }
        self.shared.appended.notify_waiters();
        Ok(positions)
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        self.shared.with(topic, partition, |partition| Extent { start: partition.start, end: partition.end })
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        Ok(self.groups.join(Arc::new(self.clone()), group, topic))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        let start = self.shared.with(topic, partition, |partition| partition.start)?;
        if from < start {
            let name = topic.name();
            let detail = format!("partition {partition} of {name} begins at {start}; offset {from} was requested");
            return Err(Error::fatal("read the log", detail));
        }
        Ok(Box::new(Tail { shared: Arc::clone(&self.shared), topic, partition, next: from, reported_end: None }))
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let epoch = self.shared.with(topic, partition, |partition| {
            partition.epoch += 1;
            partition.epoch
        })?;
        let partitions = self.partitions(topic);
        Ok(Box::new(Owner { shared: Arc::clone(&self.shared), topic, partition, partitions, epoch }))
    }
}

#[async_trait]
impl super::LogAdmin for Log {
    async fn successors(&self, exchange: &Exchange) -> Result<Box<dyn super::Successors>, Error> {
        let empty = |topic: &Topic| (*topic, vec![Partition::default(); exchange.partitions.max(1) as usize]);
        self.shared.finished().retain(|topic, _| !exchange.topics.contains(topic));
        let topics = exchange.topics.iter().map(empty).collect();
        Ok(Box::new(Successors { shared: Arc::clone(&self.shared), topics }))
    }
}

struct Successors {
    shared: Arc<Shared>,
    topics: Topics,
}

#[async_trait]
impl super::Successors for Successors {
    async fn add(&mut self, records: Vec<Record>) -> Result<(), Error> {
        for Record { position, timestamp_ms, key, value, headers } in records {
            let record = NewRecord { topic: position.topic, key, value, headers };
            let unknown = || Error::reject("replace a topic", format!("{} is not part of it", record.topic.name()));
            let partitions = self.topics.get_mut(&record.topic).ok_or_else(unknown)?;
            let partition = partition_of(&record, partitions.len() as u32);
            partitions[partition as usize].append(Position { partition, ..position }, record, timestamp_ms);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        self.shared.finished().extend(self.topics);
        Ok(())
    }

    async fn discard(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// Follows the end of a partition.
struct Tail {
    shared: Arc<Shared>,
    topic: Topic,
    partition: u32,
    next: i64,
    /// The end that was reported last.
    reported_end: Option<i64>,
}

impl Tail {
    fn take(&mut self) -> Result<Option<Next>, Error> {
        let next = self.next;
        let (records, end) = self
            .shared
            .with(self.topic, self.partition, |partition| (partition.from(next, BATCH_RECORDS_MAX), partition.end))?;
        if let Some(last) = records.last() {
            self.next = last.position.offset + 1;
            return Ok(Some(Next::Records(records)));
        }
        self.next = self.next.max(end);
        let news = self.reported_end != Some(self.next);
        self.reported_end = Some(self.next);
        Ok(news.then_some(Next::End(self.next)))
    }
}

#[async_trait]
impl Reader for Tail {
    async fn next(&mut self) -> Result<Next, Error> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut appended = pin!(shared.appended.notified());
            appended.as_mut().enable();
            if let Some(next) = self.take()? {
                return Ok(next);
            }
            appended.await;
        }
    }

    async fn commit(&mut self, _: i64) -> Result<(), Error> {
        Ok(())
    }
}

struct Owner {
    shared: Arc<Shared>,
    topic: Topic,
    partition: u32,
    partitions: u32,
    epoch: u64,
}

#[async_trait]
impl Fenced for Owner {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let (topic, partition) = (self.topic, self.partition);
        check_sizes(&records)?;
        check_fenced(&records, topic, partition, self.partitions)?;
        let (epoch, now_ms) = (self.epoch, self.shared.clock.now_ms());
        let at = Position { topic, partition, offset: 0 };
        let positions: Option<Vec<Position>> = self.shared.with(topic, partition, |stored| {
            let owned = stored.epoch == epoch;
            owned.then(|| records.into_iter().map(|record| stored.append(at, record, now_ms)).collect())
        })?;
        self.shared.appended.notify_waiters();
        positions.ok_or_else(|| fenced_off(topic, partition))
    }
}
