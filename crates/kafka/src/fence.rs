//! Appending exclusively as the owner of a partition, through a transactional producer with one id per partition.
//!
//! Its initialisation makes the brokers reject every earlier producer with the same id, and ends that producer's open
//! transaction. An append is one transaction: readers see all of it or nothing.

use super::client::{Events, Query, Settings};
use super::producer::{delivered, future_record};
use super::{TopicNames, fault};
use async_trait::async_trait;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::Fenced;
use foretell_ports::log::backend::{check_sizes, partition_of};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, Producer as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before the next request to a coordinator that is still loading.
const COORDINATOR_WAIT_MS: u64 = 200;

/// How long to wait before checking again whether a commit is visible.
const VISIBLE_WAIT_MS: u64 = 2;

/// How long to wait before checking again whether delivery reports have been processed.
const REPORT_WAIT_MS: u64 = 1;

type Transactional = FutureProducer<Events>;

/// The fenced partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    /// The topic's partition count, which determines the partition of a key.
    pub(super) partitions: u32,
}

impl Owned {
    fn holds(self, record: &NewRecord) -> bool {
        record.topic == self.topic && partition_of(record, self.partitions) == self.partition
    }
}

/// Creates and initialises the producer of a partition.
pub(super) async fn acquire(
    settings: &Settings,
    names: &TopicNames,
    owned: Owned,
    query: &Arc<Query>,
) -> Result<Box<dyn Fenced>, Error> {
    let name = names.of(owned.topic);
    let number = fault::partition(owned.partition)?;
    let producer: Transactional = settings
        .transactional(&format!("{name}-{number}"))
        .create_with_context(Events)
        .map_err(|error| Error::fatal("create a producer", error))?;
    let timeout = settings.request_timeout();
    initialise(&producer, timeout).await?;
    Ok(Box::new(Fence { producer, owned, name, number, timeout, state: State::Ready, query: Arc::clone(query) }))
}

/// The first transactions of a cluster find the coordinator still loading, for about a second.
async fn initialise(producer: &Transactional, timeout: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let initialised = blocking(producer, move |producer| producer.init_transactions(timeout)).await?;
        match initialised {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(COORDINATOR_WAIT_MS)).await;
            }
            Err(error) => return Err(Error::retry("fence a partition", error)),
        }
    }
}

/// librdkafka's transaction calls block.
async fn blocking<T: Send + 'static>(
    producer: &Transactional,
    call: impl FnOnce(&Transactional) -> T + Send + 'static,
) -> Result<T, Error> {
    let producer = producer.clone();
    let called = tokio::task::spawn_blocking(move || call(&producer));
    called.await.map_err(|ended| Error::retry("run a transaction", ended))
}

struct Fence {
    producer: Transactional,
    owned: Owned,
    name: String,
    number: i32,
    timeout: Duration,
    state: State,
    query: Arc<Query>,
}

/// Whether another append is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// A transaction is open, or the outcome of the last one is unknown.
    Open,
}

#[async_trait]
impl Fenced for Fence {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        check_sizes(&records)?;
        if let Some(stray) = records.iter().find(|record| !self.owned.holds(record)) {
            let detail =
                format!("a record of {} does not belong to {}[{}]", stray.topic.name(), self.name, self.number);
            return Err(Error::reject("append to a fenced partition", detail));
        }
        if self.state == State::Open {
            return Err(self.over("an earlier append did not finish"));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // Remains so if the call is cancelled.
        self.state = State::Open;
        self.producer.begin_transaction().map_err(|error| self.over(&error.to_string()))?;
        let positions = match self.send(&records).await {
            Ok(positions) => positions,
            Err(error) => {
                self.abort().await?;
                return Err(error);
            }
        };
        self.state = State::Ready;
        self.await_visible(&positions).await;
        Ok(positions)
    }
}

impl Fence {
    /// A commit returns before its marker is written. Until then the records are not below the end of the extent, and
    /// an owner that reads up to there would miss its own records. The commit is valid in any case.
    async fn await_visible(&self, positions: &[Position]) {
        let last = positions.last().map_or(0, |position| position.offset);
        let deadline = Instant::now() + self.timeout;
        while Instant::now() < deadline {
            match Query::extent(&self.query, self.name.clone(), self.owned.partition).await {
                Ok(extent) if extent.end > last => return,
                _ => tokio::time::sleep(Duration::from_millis(VISIBLE_WAIT_MS)).await,
            }
        }
        tracing::warn!(topic = self.name, partition = self.number, "committed records cannot be read yet");
    }

    /// Sends all records and commits. After an error the transaction must be aborted, unless the state is final.
    ///
    /// The commit begins when everything is delivered. A commit with undelivered records would flush them first, which
    /// polls for their delivery reports concurrently with the producer's own thread: whichever of the two does not get
    /// the report sleeps for the 100 ms of the bindings' poll timeout. A report counts as undelivered until the thread
    /// has processed it, shortly after it is received here.
    async fn send(&self, records: &[NewRecord]) -> Result<Vec<Position>, Error> {
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            let unsent = future_record(&self.name, self.number, record);
            waiting.push(self.producer.send_result(unsent).map_err(|(error, _)| fault::delivery(&error))?);
        }
        let mut positions = Vec::with_capacity(records.len());
        for delivery in waiting {
            positions.push(delivered(self.owned.topic, delivery).await?);
        }
        self.commit().await?;
        Ok(positions)
    }

    /// Commits; repeats the request while the outcome is open.
    async fn commit(&self) -> Result<(), Error> {
        let timeout = self.timeout;
        let deadline = Instant::now() + timeout;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(REPORT_WAIT_MS)).await;
        }
        loop {
            match blocking(&self.producer, move |producer| producer.commit_transaction(timeout)).await? {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(Error::retry("append", error)),
            }
        }
    }

    /// Aborts the open transaction. Fatal if that is impossible: fenced, or the outcome is unknown.
    async fn abort(&mut self) -> Result<(), Error> {
        let timeout = self.timeout;
        match blocking(&self.producer, move |producer| producer.abort_transaction(timeout)).await? {
            Ok(()) => {
                self.state = State::Ready;
                Ok(())
            }
            Err(error) => Err(self.over(&error.to_string())),
        }
    }

    fn over(&self, why: &str) -> Error {
        let cause = self.producer.client().fatal_error().map_or_else(|| why.to_owned(), |(_, reason)| reason);
        let detail = format!("{}[{}]: acquire it again: {cause}", self.name, self.number);
        Error::fatal("append to a fenced partition", detail)
    }
}
