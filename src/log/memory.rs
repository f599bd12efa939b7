//! A log in memory, for tests and simulations: groups, rebalances, fencing and holes, without a broker.
//!
//! Deterministic: partitions are dealt out in the order in which members joined, nothing depends on a hash or on
//! the wall clock, and it runs on a paused clock. [`Memory::rebalance`] moves partitions about, and
//! [`Memory::freeze`] takes them from a member that does not notice, which is how late writers come about.

use super::{
    Acknowledge, Assigned, Error, Extent, Fenced, Log, Membership, NewRecord, Next, RECORD_BYTES_MAX, Reader, Record,
};
use crate::clock::Clock;
use crate::event::{Position, Topic, key};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Most records that one `next` brings.
const RECORDS_MAX: usize = 500;

type Place = (Topic, u32);
type GroupName = (String, Topic);

#[derive(Default)]
struct State {
    /// By offset; a hole where a transaction marker would be.
    records: BTreeMap<Place, Vec<Option<Record>>>,
    fences: BTreeMap<Place, u64>,
    groups: BTreeMap<GroupName, Group>,
}

#[derive(Default)]
struct Group {
    joined: u64,
    members: BTreeMap<u64, mpsc::UnboundedSender<Assigned>>,
    /// Kept, so that a frozen member does not notice that it is out.
    frozen: Vec<mpsc::UnboundedSender<Assigned>>,
    leases: BTreeMap<u32, Lease>,
    committed: BTreeMap<u32, i64>,
}

/// Who has a partition, and how to tell them that they have it no longer.
struct Lease {
    member: u64,
    revoke: oneshot::Sender<Acknowledge>,
}

struct Inner {
    partitions: u32,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    appended: watch::Sender<u64>,
}

/// A log in memory; clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

impl Memory {
    /// An empty log whose topics all have `partitions` partitions.
    pub fn new(partitions: u32, clock: Arc<dyn Clock>) -> Self {
        let (appended, _) = watch::channel(0);
        Self(Arc::new(Inner { partitions: partitions.max(1), clock, state: Mutex::default(), appended }))
    }

    /// Leaves `holes` offsets without a record at the end of a partition, as transaction markers do.
    pub fn skip(&self, topic: Topic, partition: u32, holes: usize) {
        self.state().records.entry((topic, partition)).or_default().extend((0..holes).map(|_| None));
        self.0.appended.send_modify(|version| *version += 1);
    }

    /// Appends a record as some other producer might: into a partition of its choice.
    pub fn append_to(&self, partition: u32, record: NewRecord) -> Position {
        let position = self.push(&mut self.state(), partition, record);
        self.0.appended.send_modify(|version| *version += 1);
        position
    }

    /// Everything in a partition, in order.
    pub fn records(&self, topic: Topic, partition: u32) -> Vec<Record> {
        self.state().records.get(&(topic, partition)).into_iter().flatten().flatten().cloned().collect()
    }

    /// Deals the partitions of a group out anew: `choose` names, for each, the index of its member of so many.
    pub fn rebalance(&self, group: &str, topic: Topic, choose: impl FnMut(u32, usize) -> usize) {
        self.deal(&(group.to_owned(), topic), choose);
    }

    /// Gives the partitions of the member with this index to others without telling it: it goes on reading.
    /// The member is out of the group from then on.
    pub fn freeze(&self, group: &str, topic: Topic, member: usize) {
        let name = (group.to_owned(), topic);
        {
            let mut state = self.state();
            let Some(group) = state.groups.get_mut(&name) else { return };
            let Some(id) = group.members.keys().nth(member).copied() else { return };
            if group.members.len() < 2 {
                return;
            }
            group.frozen.extend(group.members.remove(&id));
            group.leases.retain(|_, lease| lease.member != id);
        }
        self.deal(&name, |partition, members| partition as usize % members);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &mut State, partition: u32, record: NewRecord) -> Position {
        let records = state.records.entry((record.topic, partition)).or_default();
        let position = Position { topic: record.topic, partition, offset: records.len() as i64 };
        records.push(Some(Record {
            position,
            timestamp_ms: self.0.clock.now_ms(),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }));
        position
    }

    fn deal(&self, name: &GroupName, mut choose: impl FnMut(u32, usize) -> usize) {
        let mut state = self.state();
        let Some(group) = state.groups.get_mut(name) else { return };
        let members: Vec<_> = group.members.keys().copied().collect();
        if members.is_empty() {
            group.leases.clear();
            return;
        }
        for partition in 0..self.0.partitions {
            let member = members[choose(partition, members.len()) % members.len()];
            if group.leases.get(&partition).is_none_or(|lease| lease.member != member) {
                self.give(name, group, partition, member);
            }
        }
    }

    /// Takes a partition from its owner, and hands it over when the owner has acknowledged that.
    fn give(&self, name: &GroupName, group: &mut Group, partition: u32, member: u64) {
        let (revoke, revoked) = oneshot::channel();
        let before = group.leases.insert(partition, Lease { member, revoke });
        let Some(to) = group.members.get(&member).cloned() else { return };
        let (log, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            if let Some(before) = before {
                let (acknowledge, acknowledged) = Acknowledge::new();
                if before.revoke.send(acknowledge).is_ok() {
                    let _dropped = acknowledged.await;
                }
            }
            let committed = log.state().groups.get(&name).and_then(|g| g.committed.get(&partition).copied());
            let (start, started) = oneshot::channel();
            let cursor = Cursor { log, place: (name.1, partition), start: Start::Waiting(started), end_said: None };
            let reader = MemoryReader { cursor, group: Some(name), revoked: Some(revoked) };
            // A member that has left meanwhile drops it, and its leaving deals the partition out again.
            let _ = to.send(Assigned { partition, committed, start, reader: Box::new(reader) });
        });
    }
}

#[async_trait]
impl Log for Memory {
    fn partitions(&self, _: Topic) -> u32 {
        self.0.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        if let Some(large) = records.iter().find(|record| record.bytes() > RECORD_BYTES_MAX) {
            let detail = format!("a record of {} bytes is over the bound of {RECORD_BYTES_MAX}", large.bytes());
            return Err(Error::reject("append", detail));
        }
        let mut state = self.state();
        let positions = records.into_iter().map(|record| {
            let partition = record.key.as_ref().map_or(0, |key| key::partition(key, self.0.partitions));
            self.push(&mut state, partition, record)
        });
        let positions = positions.collect();
        self.0.appended.send_modify(|version| *version += 1);
        Ok(positions)
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        let end = self.state().records.get(&(topic, partition)).map_or(0, Vec::len);
        Ok(Extent { start: 0, end: end as i64 })
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        let name = (group.to_owned(), topic);
        let (sender, assigned) = mpsc::unbounded_channel();
        let member = {
            let mut state = self.state();
            let group = state.groups.entry(name.clone()).or_default();
            group.joined += 1;
            group.members.insert(group.joined, sender);
            group.joined
        };
        self.deal(&name, |partition, members| partition as usize % members);
        Ok(Box::new(MemoryMembership { log: self.clone(), name, member, assigned }))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        let start = Start::At(from.max(0));
        let cursor = Cursor { log: self.clone(), place: (topic, partition), start, end_said: None };
        Ok(Box::new(MemoryReader { cursor, group: None, revoked: None }))
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let mut state = self.state();
        let token = state.fences.entry((topic, partition)).or_default();
        *token += 1;
        Ok(Box::new(MemoryFenced { log: self.clone(), place: (topic, partition), token: *token }))
    }
}

struct MemoryMembership {
    log: Memory,
    name: GroupName,
    member: u64,
    assigned: mpsc::UnboundedReceiver<Assigned>,
}

#[async_trait]
impl Membership for MemoryMembership {
    async fn next(&mut self) -> Result<Assigned, Error> {
        match self.assigned.recv().await {
            Some(assigned) => Ok(assigned),
            None => Err(Error::retry("join a group", "this member is not in the group any more")),
        }
    }
}

impl Drop for MemoryMembership {
    fn drop(&mut self) {
        if let Some(group) = self.log.state().groups.get_mut(&self.name) {
            group.members.remove(&self.member);
            group.leases.retain(|_, lease| lease.member != self.member);
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            self.log.deal(&self.name, |partition, members| partition as usize % members);
        }
    }
}

/// Where reading goes on, once somebody has said where it begins.
enum Start {
    Waiting(oneshot::Receiver<i64>),
    At(i64),
}

struct Cursor {
    log: Memory,
    place: Place,
    start: Start,
    end_said: Option<i64>,
}

impl Cursor {
    async fn started(&mut self) -> Result<i64, Error> {
        let answer = match &mut self.start {
            Start::At(at) => return Ok(*at),
            Start::Waiting(answer) => answer.await,
        };
        let at = answer.map_err(|_| Error::retry("read a partition", "nobody said where to begin"))?.max(0);
        self.start = Start::At(at);
        Ok(at)
    }

    /// Records from `at` on, and the offset behind them.
    fn batch(&self, at: i64) -> (Vec<Record>, i64) {
        let state = self.log.state();
        let all = state.records.get(&self.place).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(at).unwrap_or(0).min(all.len());
        let mut records = Vec::new();
        for (offset, record) in all.iter().enumerate().skip(from) {
            records.extend(record.clone());
            if records.len() == RECORDS_MAX {
                return (records, offset as i64 + 1);
            }
        }
        (records, (all.len() as i64).max(at))
    }

    async fn next(&mut self) -> Result<Next, Error> {
        let at = self.started().await?;
        let mut appended = self.log.0.appended.subscribe();
        loop {
            let (records, next) = self.batch(at);
            if !records.is_empty() {
                self.start = Start::At(next);
                return Ok(Next::Records(records));
            }
            if self.end_said != Some(next) {
                (self.start, self.end_said) = (Start::At(next), Some(next));
                return Ok(Next::End(next));
            }
            if appended.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct MemoryReader {
    cursor: Cursor,
    group: Option<GroupName>,
    revoked: Option<oneshot::Receiver<Acknowledge>>,
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<Next, Error> {
        if let Some(revoked) = &mut self.revoked {
            tokio::select! {
                biased;
                acknowledge = revoked => {
                    self.revoked = None;
                    // Otherwise nobody can revoke it any more: a frozen member reads on.
                    if let Ok(acknowledge) = acknowledge {
                        return Ok(Next::Revoked(acknowledge));
                    }
                }
                next = self.cursor.next() => return next,
            }
        }
        self.cursor.next().await
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        if let Some(name) = &self.group {
            let mut state = self.cursor.log.state();
            let group = state.groups.entry(name.clone()).or_default();
            group.committed.insert(self.cursor.place.1, next);
        }
        Ok(())
    }
}

struct MemoryFenced {
    log: Memory,
    place: Place,
    token: u64,
}

#[async_trait]
impl Fenced for MemoryFenced {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let mut state = self.log.state();
        if state.fences.get(&self.place) != Some(&self.token) {
            return Err(Error::fatal("append", "another owner of the partition has fenced this one"));
        }
        let positions = records.into_iter().map(|record| self.log.push(&mut state, self.place.1, record)).collect();
        self.log.0.appended.send_modify(|version| *version += 1);
        Ok(positions)
    }
}
