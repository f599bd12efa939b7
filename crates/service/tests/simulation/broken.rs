//! Ports that break one rule of the protocol: each shows that its rule is needed, and that the simulation can fail.

use crate::random::Random;
use async_trait::async_trait;
use bytes::Bytes;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::dead;
use foretell_domain::pointer::Pointer;
use foretell_domain::view::cell::{Carried, Cell, decode_state, encode_state};
use foretell_domain::view::{Fold, FoldOutcome, Skip};
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::memory::Log as MemoryLog;
use foretell_ports::log::{Assigned, Extent, Fenced, Log, Membership, Next, Reader};
use foretell_ports::store::memory::Store as MemoryStore;
use foretell_ports::store::{Checkpoint, Flush, Row, RowWrite, Store};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// None.
    Sound,
    /// Sometimes a checkpoint covers one record more than was folded.
    CheckpointAhead,
    /// A torn flush has its checkpoint written first.
    CheckpointBeforeRows,
    /// The last checkpoint to arrive wins, so that a late writer sets the partition back.
    LastCheckpointWins,
    /// The last row to arrive wins, whatever its position.
    LastRowWins,
    /// Owner rows are stored without their pending list.
    PendingDropped,
    /// A record below the position of its owner's row that is missing in the list counts as folded: no restart.
    NoRestart,
    /// A record is folded again into the row that has it as its last one.
    SkipOffByOne,
    /// Rows are read from a replica that has not seen every write.
    StaleReads,
    /// A row that is stored is taken for one that was never written.
    TakenForAbsent,
    /// The store acknowledges some rows and loses them.
    Forgetful,
    /// The new owner starts one record after its checkpoint.
    StartBehind,
    /// The new owner starts at the group's committed offset, which is only a hint, although its checkpoint differs.
    StartAtCommitted,
    /// Dead letters are acknowledged, and half of them are lost.
    LettersDropped,
    /// Dead letters are written after the rows and the checkpoint.
    LettersBehindRows,
    /// A dead letter names the offset after that of its record.
    LettersMisaddressed,
    /// A planner acquires a partition without reading the reminders topic.
    TakeoverBlind,
    /// A planner plans without waiting for the views of appointments.
    PlanBlind,
    /// Acquiring a partition does not end the appends of the previous planner.
    Unfenced,
    /// An append whose response was lost is sent again, as by a producer without idempotence.
    AppendTwice,
}

impl Protocol {
    /// Those that damage rows or dead letters.
    pub const OF_VIEWS: [Self; 15] = [
        Self::CheckpointAhead,
        Self::CheckpointBeforeRows,
        Self::LastCheckpointWins,
        Self::LastRowWins,
        Self::PendingDropped,
        Self::NoRestart,
        Self::SkipOffByOne,
        Self::StaleReads,
        Self::TakenForAbsent,
        Self::Forgetful,
        Self::StartBehind,
        Self::StartAtCommitted,
        Self::LettersDropped,
        Self::LettersBehindRows,
        Self::LettersMisaddressed,
    ];
    /// Those that damage reminders.
    pub const OF_REMINDERS: [Self; 4] = [Self::TakeoverBlind, Self::PlanBlind, Self::Unfenced, Self::AppendTwice];

    /// The rule of the last process, which runs without faults. A violation that only matters in other writers is
    /// repaired if the last one follows the rule.
    pub fn at_the_end(self) -> Self {
        match self {
            Self::PendingDropped | Self::LettersDropped => self,
            _ => Self::Sound,
        }
    }
}

/// A log that breaks a rule, for one process.
#[derive(Clone)]
pub struct BrokenLog {
    inner: MemoryLog,
    protocol: Protocol,
    random: Random,
    /// Letters that are acknowledged and wait for the next commit.
    deferred: Arc<Mutex<Vec<NewRecord>>>,
}

impl BrokenLog {
    pub fn new(inner: MemoryLog, protocol: Protocol, random: Random) -> Self {
        Self { inner, protocol, random, deferred: Arc::default() }
    }

    pub fn with(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }
}

fn misaddressed(mut record: NewRecord) -> NewRecord {
    for (name, value) in record.headers.iter_mut().filter(|(name, _)| name == dead::OFFSET) {
        let offset: i64 = String::from_utf8_lossy(value).parse().unwrap_or_else(|_| panic!("{name} is a number"));
        *value = Bytes::from((offset + 1).to_string());
    }
    record
}

#[async_trait]
impl Log for BrokenLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        match self.protocol {
            Protocol::LettersDropped if self.random.chance(50) => Ok(Vec::new()),
            Protocol::LettersBehindRows => {
                self.deferred.lock().unwrap().extend(records);
                Ok(Vec::new())
            }
            Protocol::LettersMisaddressed => self.inner.append(records.into_iter().map(misaddressed).collect()).await,
            _ => self.inner.append(records).await,
        }
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        match (self.protocol, topic) {
            (Protocol::TakeoverBlind, Topic::Reminders) | (Protocol::PlanBlind, Topic::Appointments) => {
                Ok(Extent { start: 0, end: 0 })
            }
            _ => self.inner.extent(topic, partition).await,
        }
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        let inner = self.inner.subscribe(group, topic).await?;
        Ok(Box::new(BrokenMembership { inner, log: self.clone() }))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.inner.read(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let inner = self.inner.fence(topic, partition).await?;
        Ok(Box::new(BrokenFenced { inner, log: self.clone() }))
    }
}

struct BrokenMembership {
    inner: Box<dyn Membership>,
    log: BrokenLog,
}

/// Forwards a changed answer.
fn changed(start: oneshot::Sender<i64>, change: impl FnOnce(i64) -> i64 + Send + 'static) -> oneshot::Sender<i64> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(from) = receiver.await {
            let _ = start.send(change(from));
        }
    });
    sender
}

#[async_trait]
impl Membership for BrokenMembership {
    async fn next(&mut self) -> Result<Assigned, Error> {
        let mut assigned = self.inner.next().await?;
        let committed = assigned.committed;
        assigned.start = match self.log.protocol {
            Protocol::StartBehind => changed(assigned.start, |from| if from > 0 { from + 1 } else { from }),
            Protocol::StartAtCommitted => changed(assigned.start, move |_| committed.unwrap_or(0)),
            _ => assigned.start,
        };
        assigned.reader = Box::new(BrokenReader { inner: assigned.reader, log: self.log.clone() });
        Ok(assigned)
    }
}

struct BrokenReader {
    inner: Box<dyn Reader>,
    log: BrokenLog,
}

#[async_trait]
impl Reader for BrokenReader {
    async fn next(&mut self) -> Result<Next, Error> {
        self.inner.next().await
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        let letters = std::mem::take(&mut *self.log.deferred.lock().unwrap());
        self.log.inner.append(letters).await?;
        self.inner.commit(next).await
    }
}

struct BrokenFenced {
    inner: Box<dyn Fenced>,
    log: BrokenLog,
}

#[async_trait]
impl Fenced for BrokenFenced {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        match self.log.protocol {
            Protocol::Unfenced => self.log.inner.append(records).await,
            Protocol::AppendTwice if self.log.random.chance(2) => {
                self.inner.append(records.clone()).await?;
                self.inner.append(records).await
            }
            _ => self.inner.append(records).await,
        }
    }
}

/// A store that breaks a rule; clones share everything.
#[derive(Clone)]
pub struct BrokenStore {
    inner: MemoryStore,
    protocol: Protocol,
    random: Random,
    /// A replica that misses writes.
    behind: MemoryStore,
    /// Writes so far.
    turn: Arc<AtomicI64>,
    /// The checkpoints that arrived last.
    arrived: Arc<Mutex<BTreeMap<(Generation, u32), Checkpoint>>>,
    /// Makes an owner's list state that everything below its position was folded.
    complete: fn(&Cell<'_>) -> Bytes,
}

/// Fills the gaps of an owner's list.
fn complete<F: Fold>(cell: &Cell<'_>) -> Bytes {
    let Carried { latest, mut pending } = decode_state::<Carried<F::Decision>>(cell.carried).unwrap();
    let known: Vec<i64> = pending.iter().map(|(offset, _)| *offset).collect();
    pending.extend(
        (0..=cell.position)
            .filter(|offset| !known.contains(offset))
            .map(|at| (at, FoldOutcome::Skipped(Skip::Repeated))),
    );
    pending.sort_by_key(|(offset, _)| *offset);
    Cell { carried: &encode_state(&Carried { latest, pending }), ..*cell }.encode()
}

impl BrokenStore {
    pub fn new<F: Fold>(inner: MemoryStore, protocol: Protocol, random: Random) -> Self {
        let (behind, turn, arrived) = (MemoryStore::new(), Arc::default(), Arc::default());
        Self { inner, protocol, random, behind, turn, arrived, complete: complete::<F> }
    }

    pub fn with(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }

    /// Writes some rows of a flush and stops; with the broken rule, the checkpoint before them.
    pub fn tear(&self, flush: &Flush, kept: impl FnMut(&RowWrite) -> bool) {
        if self.protocol == Protocol::CheckpointBeforeRows {
            let _ = self.inner.write_checkpoint(flush);
        }
        self.inner.write_rows(&self.bent(flush), kept);
    }

    /// A flush, correct or with its rule broken.
    fn bent(&self, flush: &Flush) -> Flush {
        let mut flush = flush.clone();
        let random = &self.random;
        match self.protocol {
            Protocol::CheckpointAhead if random.chance(20) => flush.checkpoint.next += 1,
            Protocol::PendingDropped => flush.rows.iter_mut().for_each(|row| {
                if let Ok(cell) = Cell::decode(&row.cell) {
                    // An empty list in its encoding: one byte of length.
                    let carried: &[u8] = if cell.carried.is_empty() { &[] } else { &[0, 0] };
                    row.cell = Cell { carried, ..cell }.encode();
                }
            }),
            Protocol::Forgetful => flush.rows.retain(|_| !random.chance(3)),
            // Each write has a later epoch than all earlier ones, so that the order of arrival decides.
            Protocol::LastRowWins => {
                let lift = self.turn.fetch_add(1, Ordering::Relaxed) << 24;
                flush.rows.iter_mut().for_each(|row| row.position += lift);
            }
            _ => {}
        }
        flush
    }

    fn read_as(&self, key: &RowKey, row: Row) -> Row {
        let is_owner = matches!(key.view, View::User | View::Client | View::Sent);
        let Ok(cell) = Cell::decode(&row.cell) else { return row };
        let cell = match (self.protocol, is_owner) {
            (Protocol::SkipOffByOne, false) => Cell { position: cell.position - 1, ..cell }.encode(),
            (Protocol::NoRestart, true) => (self.complete)(&cell),
            _ => return row,
        };
        Row { cell, ..row }
    }
}

#[async_trait]
impl Store for BrokenStore {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        if self.protocol == Protocol::LastCheckpointWins {
            return Ok(self.arrived.lock().unwrap().get(&(generation, partition)).copied());
        }
        self.inner.checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        let flush = self.bent(flush);
        if self.protocol == Protocol::StaleReads && self.random.chance(50) {
            self.behind.apply(&flush).await?;
        }
        self.arrived.lock().unwrap().insert((flush.generation, flush.partition), flush.checkpoint);
        self.inner.apply(&flush).await
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        let is_stale = self.protocol == Protocol::StaleReads && self.random.chance(20);
        let replica = if is_stale { &self.behind } else { &self.inner };
        let read = replica.read(generation, source, keys).await?;
        let read_as = |(key, rows): (&RowKey, Vec<Row>)| match self.protocol {
            Protocol::TakenForAbsent if self.random.chance(5) => Vec::new(),
            _ => rows.into_iter().map(|row| self.read_as(key, row)).collect(),
        };
        Ok(keys.iter().zip(read).map(read_as).collect())
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.inner.scan(generation, view, bucket, after, limit).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.inner.drop_generation(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.inner.buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.inner.pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.inner.swap_pointer(family, expected, new).await
    }
}
