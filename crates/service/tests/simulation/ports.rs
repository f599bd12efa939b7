//! Ports that fail: every await of one may be slow, return an error before or after it had its effect, or be the last
//! call of its process.

use crate::broken::{BrokenLog, BrokenStore};
use crate::conditions::{CallFault, Part, ProcessFaults};
use crate::tally::Kind;
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_engine::pipeline::generation;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::{Assigned, Extent, Fenced, Log, Membership, Next, Reader};
use foretell_ports::store::{Checkpoint, Flush, Row, Store};
use std::sync::Arc;

/// The ports of one process.
#[derive(Clone)]
pub struct Ports {
    pub log: BrokenLog,
    pub store: BrokenStore,
    pub faults: ProcessFaults,
}

impl Ports {
    /// The same ports, used for another purpose.
    pub fn as_who(&self, who: &'static str) -> Self {
        Self { faults: self.faults.as_who(who), ..self.clone() }
    }

    /// As log and as store.
    pub fn both(self) -> (Arc<dyn Log>, Arc<dyn Store>) {
        let ports = Arc::new(self);
        (ports.clone(), ports)
    }
}

#[async_trait]
impl Log for Ports {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let are_letters = records.iter().any(|record| record.topic == Topic::DeadLetters);
        let (part, operation) = if are_letters { (Part::Letters, "append letters") } else { (Part::Log, "append") };
        self.faults.endure(part, operation, self.log.append(records)).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        let part = if topic == Topic::DeadLetters { Part::Letters } else { Part::Log };
        self.faults.endure(part, "extent", self.log.extent(topic, partition)).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        let inner = self.faults.endure(Part::Log, "subscribe", self.log.subscribe(group, topic)).await?;
        Ok(Box::new(FaultyMembership { inner, group: group.to_owned(), faults: self.faults.clone() }))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        let part = if topic == Topic::DeadLetters { Part::Letters } else { Part::Log };
        let inner = self.faults.endure(part, "read", self.log.read(topic, partition, from)).await?;
        Ok(Box::new(FaultyReader { inner, part, faults: self.faults.clone(), held: None }))
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let inner = self.faults.endure(Part::Log, "fence", self.log.fence(topic, partition)).await?;
        Ok(Box::new(FaultyFenced { inner, faults: self.faults.clone() }))
    }
}

struct FaultyMembership {
    inner: Box<dyn Membership>,
    group: String,
    faults: ProcessFaults,
}

#[async_trait]
impl Membership for FaultyMembership {
    async fn next(&mut self) -> Result<Assigned, Error> {
        // An assignment is received once, so its faults happen in its reader.
        let Assigned { partition, committed, start, reader } = self.inner.next().await?;
        self.faults.conditions.assigned(&self.group, partition, self.faults.number);
        let reader = Box::new(FaultyReader { inner: reader, part: Part::Log, faults: self.faults.clone(), held: None });
        Ok(Assigned { partition, committed, start, reader })
    }
}

struct FaultyReader {
    inner: Box<dyn Reader>,
    part: Part,
    faults: ProcessFaults,
    /// What was read but not yet returned, so that a cancelled call loses nothing.
    held: Option<Next>,
}

#[async_trait]
impl Reader for FaultyReader {
    async fn next(&mut self) -> Result<Next, Error> {
        if self.held.is_none() {
            self.held = Some(self.inner.next().await?);
        }
        match self.faults.draw(self.part, "next").await {
            CallFault::Fair => self.held.take().ok_or_else(|| Error::retry("next", "nothing held")),
            CallFault::Away => Err(Error::retry("next", "it is away")),
            CallFault::ErrorBefore | CallFault::ErrorAfter => {
                self.faults.inject(Kind::Disconnected, "next");
                Err(Error::retry("next", "the connection ended"))
            }
            CallFault::CrashBefore | CallFault::CrashAfter => {
                self.faults.inject(Kind::CrashAfter, "next");
                self.faults.die().await
            }
        }
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        self.faults.endure(self.part, "commit", self.inner.commit(next)).await
    }
}

struct FaultyFenced {
    inner: Box<dyn Fenced>,
    faults: ProcessFaults,
}

#[async_trait]
impl Fenced for FaultyFenced {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.faults.endure(Part::Log, "fenced append", self.inner.append(records)).await
    }
}

impl Ports {
    /// Writes some of a flush's rows.
    fn tear(&self, flush: &Flush) {
        let random = &self.faults.conditions.random;
        let kept = random.below(101);
        self.store.tear(flush, |_| random.chance(kept));
    }

    /// Detects a flush by an owner that has lost the partition, before it is written.
    async fn watch(&self, flush: &Flush) -> Result<(), Error> {
        let Flush { generation, partition, checkpoint, .. } = flush;
        if self.faults.conditions.is_late(&generation::group(*generation), *partition, self.faults.number) {
            self.faults.inject(Kind::LateFlush, "apply");
            let stored = self.store.checkpoint(*generation, *partition).await?;
            if stored.is_some_and(|stored| checkpoint.next > stored.next) {
                self.faults.inject(Kind::LatePassed, "apply");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Ports {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.faults.endure(Part::Store, "checkpoint", self.store.checkpoint(generation, partition)).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        let fault = self.faults.draw(Part::Store, "apply").await;
        self.watch(flush).await?;
        match fault {
            CallFault::Fair => self.store.apply(flush).await,
            CallFault::Away => Err(Error::retry("apply", "it is away")),
            CallFault::ErrorBefore => {
                self.faults.inject(Kind::TornFlush, "apply");
                self.tear(flush);
                Err(Error::retry("apply", "injected: torn"))
            }
            CallFault::ErrorAfter => {
                self.faults.inject(Kind::AnswerLost, "apply");
                self.store.apply(flush).await?;
                Err(Error::retry("apply", "injected after"))
            }
            CallFault::CrashBefore => {
                self.faults.inject(Kind::TornCrash, "apply");
                self.tear(flush);
                self.faults.die().await
            }
            CallFault::CrashAfter => {
                self.faults.inject(Kind::CrashAfter, "apply");
                self.store.apply(flush).await?;
                self.faults.die().await
            }
        }
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.faults.endure(Part::Store, "read rows", self.store.read(generation, source, keys)).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.faults.endure(Part::Store, "scan", self.store.scan(generation, view, bucket, after, limit)).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.faults.endure(Part::Store, "drop", self.store.drop_generation(generation)).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.faults.endure(Part::Store, "buckets", self.store.buckets(generation, view)).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.faults.endure(Part::Store, "pointer", self.store.pointer(family)).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.faults.endure(Part::Store, "swap pointer", self.store.swap_pointer(family, expected, new)).await
    }
}
