//! The log as a planner sees it, which records the ends that it returned and the announcements that it received.

use crate::broken::Protocol;
use crate::ports::Ports;
use async_trait::async_trait;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::{Extent, Fenced, Log, Membership, Reader};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

/// An announcement as it was appended: its partition, and the ends of the appointments partition when the tick read it
/// and when the record was appended.
pub struct Attempt {
    pub record: NewRecord,
    pub partition: u32,
    pub ends: RangeInclusive<i64>,
}

#[derive(Clone)]
pub struct ObservedLog {
    inner: Ports,
    /// The end of appointments that the current tick has read, by partition.
    taken: Arc<Mutex<BTreeMap<u32, i64>>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl ObservedLog {
    pub fn new(inner: Ports, attempts: Arc<Mutex<Vec<Attempt>>>) -> Self {
        Self { inner, taken: Arc::default(), attempts }
    }

    /// The true end, whatever the planner receives.
    async fn end(&self, partition: u32) -> Result<i64, Error> {
        Ok(self.inner.log.with(Protocol::Sound).extent(Topic::Appointments, partition).await?.end)
    }
}

#[async_trait]
impl Log for ObservedLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.inner.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        if topic == Topic::Appointments {
            let end = self.end(partition).await?;
            self.taken.lock().unwrap().insert(partition, end);
        }
        self.inner.extent(topic, partition).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.inner.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.inner.read(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let inner = self.inner.fence(topic, partition).await?;
        Ok(Box::new(Watched { inner, partition, observed: self.clone() }))
    }
}

struct Watched {
    inner: Box<dyn Fenced>,
    partition: u32,
    observed: ObservedLog,
}

#[async_trait]
impl Fenced for Watched {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let (partition, observed) = (self.partition, &self.observed);
        let now = observed.end(partition).await?;
        let taken = observed.taken.lock().unwrap().get(&partition).copied().unwrap_or(0);
        let attempts = records.iter().map(|record| Attempt { record: record.clone(), partition, ends: taken..=now });
        observed.attempts.lock().unwrap().extend(attempts);
        self.inner.append(records).await
    }
}
