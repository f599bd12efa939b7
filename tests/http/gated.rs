//! A log that performs one operation only while its gate is open, or returns that it is unavailable.

use crate::instance::World;
use async_trait::async_trait;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::{self, Extent, Fenced, Log, Membership, Reader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// The operation that waits at the gate.
#[derive(PartialEq, Eq)]
pub(crate) enum Held {
    /// An append of decisions.
    Decisions,
    /// Reading the extent of the first partition of appointments.
    Appointments,
}

pub(crate) struct Gated {
    inner: Arc<log::memory::Log>,
    held: Held,
    /// Whether the operation fails.
    pub(crate) away: AtomicBool,
    /// One permit for each time that it may proceed.
    pub(crate) gate: Semaphore,
}

impl Gated {
    pub(crate) fn new(world: &World, held: Held, places: usize) -> Arc<Self> {
        let (away, gate) = (AtomicBool::new(false), Semaphore::new(places));
        Arc::new(Self { inner: world.log.clone(), held, away, gate })
    }

    async fn pass(&self, operation: &'static str) -> Result<(), Error> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::retry(operation, "away"));
        }
        self.gate.acquire().await.unwrap().forget();
        Ok(())
    }
}

#[async_trait]
impl Log for Gated {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        if self.held == Held::Decisions && records.iter().any(|record| record.topic == Topic::Decisions) {
            self.pass("append").await?;
        }
        self.inner.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        if self.held == Held::Appointments && (topic, partition) == (Topic::Appointments, 0) {
            self.pass("look how far a partition reaches").await?;
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
        self.inner.fence(topic, partition).await
    }
}
