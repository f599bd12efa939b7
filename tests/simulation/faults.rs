//! Ports that fail: every await of one may answer late, answer an error before or after it had its effect, or be
//! the last thing its process does. And ports that break a rule of the protocol, to show that it is needed.

use async_trait::async_trait;
use foretell::event::{Position, Topic};
use foretell::log::{Assigned, Error, Extent, Fenced, Log, Membership, NewRecord, Next, Reader};
use foretell::store::memory::Store as MemoryStore;
use foretell::store::{Checkpoint, Family, Flush, Generation, Pointer, Row, RowKey, Store, View};
use foretell::view::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choices, and the same on every machine.
#[derive(Clone)]
pub struct Random(Arc<AtomicU64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    pub fn below(&self, bound: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Which rule of the protocol is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// None.
    Sound,
    /// The checkpoint names one record more than was folded.
    CheckpointAhead,
    /// A torn flush has its checkpoint written first.
    CheckpointBeforeRows,
    /// Owner rows are stored without their pending list.
    PendingDropped,
    /// The last writer wins, whatever its position.
    TimestampsIgnored,
    /// The store acknowledges some rows and forgets them.
    Forgetful,
    /// Dead letters are acknowledged and not kept.
    DeadLettersDropped,
}

impl Protocol {
    pub const BROKEN: [Self; 6] = [
        Self::CheckpointAhead,
        Self::CheckpointBeforeRows,
        Self::PendingDropped,
        Self::TimestampsIgnored,
        Self::Forgetful,
        Self::DeadLettersDropped,
    ];
}

/// What the run has injected so far, and whether it still may.
#[derive(Clone)]
pub struct Weather {
    pub random: Random,
    pub protocol: Protocol,
    pub trace: Arc<Mutex<Vec<String>>>,
    pub injected: Arc<AtomicU64>,
    /// Percent of port calls that are faulty; 0 is fair weather.
    pub percent: u64,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fair,
    ErrorBefore,
    ErrorAfter,
    CrashBefore,
    CrashAfter,
}

/// The ports of one process, and the switch that its crashes press.
#[derive(Clone)]
pub struct Ports<L, S> {
    pub log: L,
    pub store: S,
    pub weather: Weather,
    pub killed: CancellationToken,
    pub name: usize,
}

impl<L, S> Ports<L, S> {
    async fn fate(&self, operation: &'static str) -> Fate {
        let random = &self.weather.random;
        if self.weather.percent == 0 {
            return Fate::Fair;
        }
        if random.chance(self.weather.percent) {
            tokio::time::sleep(Duration::from_millis(1 + random.below(300))).await;
        }
        if !random.chance(self.weather.percent) {
            return Fate::Fair;
        }
        let fate = match random.below(10) {
            0..=3 => Fate::ErrorBefore,
            4..=6 => Fate::ErrorAfter,
            7 => Fate::CrashBefore,
            _ => Fate::CrashAfter,
        };
        self.weather.injected.fetch_add(1, Ordering::Relaxed);
        self.weather.trace.lock().unwrap().push(format!("process {} {operation}: {fate:?}", self.name));
        fate
    }

    /// Does the call, or not, and answers, or not, as fate has it.
    async fn endure<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.fate(operation).await {
            Fate::Fair => call.await,
            Fate::ErrorBefore => Err(Error::retry(operation, "injected before")),
            Fate::ErrorAfter => {
                let _ = call.await;
                Err(Error::retry(operation, "injected after"))
            }
            Fate::CrashBefore => self.die().await,
            Fate::CrashAfter => {
                let _ = call.await;
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.killed.cancel();
        std::future::pending().await
    }
}

#[async_trait]
impl<L: Log + Clone + 'static, S: Clone + Send + Sync + 'static> Log for Ports<L, S> {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        if self.weather.protocol == Protocol::DeadLettersDropped && self.weather.random.chance(50) {
            return Ok(Vec::new());
        }
        self.endure("append", self.log.append(records)).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        self.endure("extent", self.log.extent(topic, partition)).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        let inner = self.endure("subscribe", self.log.subscribe(group, topic)).await?;
        let ports =
            Ports { log: (), store: (), weather: self.weather.clone(), killed: self.killed.clone(), name: self.name };
        Ok(Box::new(FaultyMembership { inner, ports }))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.endure("read", self.log.read(topic, partition, from)).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let inner = self.endure("fence", self.log.fence(topic, partition)).await?;
        let ports =
            Ports { log: (), store: (), weather: self.weather.clone(), killed: self.killed.clone(), name: self.name };
        Ok(Box::new(FaultyFenced { inner, ports }))
    }
}

struct FaultyMembership {
    inner: Box<dyn Membership>,
    ports: Ports<(), ()>,
}

#[async_trait]
impl Membership for FaultyMembership {
    async fn next(&mut self) -> Result<Assigned, Error> {
        // The fault comes behind the wait, so that a cancelled wait loses nothing.
        let assigned = self.inner.next().await?;
        let Assigned { partition, committed, start, reader } = assigned;
        let reader = Box::new(FaultyReader { inner: reader, ports: self.ports.clone(), held: None });
        Ok(Assigned { partition, committed, start, reader })
    }
}

struct FaultyReader {
    inner: Box<dyn Reader>,
    ports: Ports<(), ()>,
    held: Option<Next>,
}

#[async_trait]
impl Reader for FaultyReader {
    async fn next(&mut self) -> Result<Next, Error> {
        if self.held.is_none() {
            self.held = Some(self.inner.next().await?);
        }
        match self.ports.fate("next").await {
            Fate::Fair => self.held.take().ok_or_else(|| Error::retry("next", "nothing held")),
            Fate::ErrorBefore | Fate::ErrorAfter => Err(Error::retry("next", "the connection ended")),
            Fate::CrashBefore | Fate::CrashAfter => self.ports.die().await,
        }
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        self.ports.endure("commit", self.inner.commit(next)).await
    }
}

struct FaultyFenced {
    inner: Box<dyn Fenced>,
    ports: Ports<(), ()>,
}

#[async_trait]
impl Fenced for FaultyFenced {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.ports.endure("fenced append", self.inner.append(records)).await
    }
}

impl<L: Send + Sync> Ports<L, MemoryStore> {
    /// A flush, as the protocol has it, or with its rule broken.
    fn bent(&self, flush: &Flush) -> Flush {
        let mut flush = flush.clone();
        let random = &self.weather.random;
        match self.weather.protocol {
            Protocol::CheckpointAhead if random.chance(20) => flush.checkpoint.next += 1,
            Protocol::PendingDropped => flush.rows.iter_mut().for_each(|row| {
                if let Ok(cell) = Cell::decode(&row.cell) {
                    // An empty list in its encoding: one byte of length.
                    let pending: &[u8] = if cell.pending.is_empty() { &[] } else { &[0] };
                    row.cell = Cell { pending, ..cell }.encode();
                }
            }),
            Protocol::Forgetful => flush.rows.retain(|_| !random.chance(3)),
            _ => {}
        }
        flush
    }

    async fn write(&self, flush: &Flush) -> Result<(), Error> {
        if self.weather.protocol == Protocol::TimestampsIgnored {
            // Each write bears a later epoch than all before it, so that arrival decides.
            let turn = self.weather.injected.fetch_add(1, Ordering::Relaxed).min(100_000);
            let mut later = flush.clone();
            let lift = (turn as i64) << 24;
            later.rows.iter_mut().for_each(|row| row.position += lift);
            self.store.write_rows(&later, |_| true);
            return self.store.write_checkpoint(flush);
        }
        self.store.apply(flush).await
    }

    /// Writes some of a flush's rows; with the broken rule, the checkpoint before them.
    fn tear(&self, flush: &Flush) {
        let random = &self.weather.random;
        if self.weather.protocol == Protocol::CheckpointBeforeRows {
            let _ = self.store.write_checkpoint(flush);
        }
        let kept = random.below(101);
        self.store.write_rows(flush, |_| random.chance(kept));
    }
}

#[async_trait]
impl<L: Send + Sync + Clone + 'static> Store for Ports<L, MemoryStore> {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.endure("checkpoint", self.store.checkpoint(generation, partition)).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        let flush = self.bent(flush);
        match self.fate("apply").await {
            Fate::Fair => self.write(&flush).await,
            Fate::ErrorBefore => {
                self.tear(&flush);
                Err(Error::retry("apply", "injected: torn"))
            }
            Fate::ErrorAfter => {
                self.write(&flush).await?;
                Err(Error::retry("apply", "injected after"))
            }
            Fate::CrashBefore => {
                self.tear(&flush);
                self.die().await
            }
            Fate::CrashAfter => {
                self.write(&flush).await?;
                self.die().await
            }
        }
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.endure("read rows", self.store.read(generation, source, keys)).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.endure("scan", self.store.scan(generation, view, bucket, after, limit)).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.endure("drop", self.store.drop_generation(generation)).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.store.buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.endure("pointer", self.store.pointer(family)).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.endure("swap pointer", self.store.swap_pointer(family, expected, new)).await
    }
}
