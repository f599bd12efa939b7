//! The path of one partition's messages from librdkafka's queue to its reader.
//!
//! The poll thread takes messages from the queue only while the lane has capacity. Other messages stay in librdkafka,
//! which stops fetching the partition at its own limit: nothing is paused, purged or fetched twice, and other
//! partitions are not affected.

use super::batch::Batch;
use super::signal::Signal;
use async_trait::async_trait;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::{Acknowledge, Next, Reader};
use rdkafka::consumer::ConsumerContext;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Batches queued for a reader: at most 4,000 records, or 8 MiB and one record each.
const LANE_BATCHES_MAX: usize = 4;

/// State that the poll thread and its readers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Wakes the poll thread.
    pub(super) signal: Arc<Signal>,
    stop: AtomicBool,
    ending: OnceLock<Error>,
    /// The next offset that each partition's owner has requested to commit.
    commits: Mutex<BTreeMap<i32, i64>>,
}

impl Shared {
    /// Ends the thread; only the first reason is kept.
    pub(super) fn end(&self, reason: Option<Error>) {
        if let Some(error) = reason {
            tracing::warn!(%error, "consumer ends");
            drop(self.ending.set(error));
        }
        self.stop.store(true, Ordering::Release);
        self.signal.raise();
    }

    /// Whether the thread should end.
    pub(super) fn ended(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Why it ended.
    pub(super) fn reason(&self) -> Error {
        self.ending.get().cloned().unwrap_or_else(|| Error::retry("read the log", "the consumer has ended"))
    }

    /// Removes and returns the offsets to commit.
    pub(super) fn take_commits(&self) -> BTreeMap<i32, i64> {
        std::mem::take(&mut *self.commits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn commit(&self, partition: i32, next: i64) {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next);
        self.signal.raise();
    }
}

/// The poll thread's side.
pub(super) struct Lane<C: ConsumerContext> {
    partition: i32,
    topic: Topic,
    batches: mpsc::Sender<Next>,
    revoke: oneshot::Sender<Acknowledge>,
    queue: Option<PartitionQueue<C>>,
    /// Everything below this offset has been taken from the queue.
    next: i64,
    /// An end of partition that followed records and waits for its own slot in the lane.
    end: Option<i64>,
}

/// The result of one attempt to move messages.
pub(super) enum Pumped {
    /// There was nothing to move, or no capacity.
    Nothing,
    /// A batch moved; there may be more.
    Something,
}

impl<C: ConsumerContext> Lane<C> {
    /// A lane for a partition, and its reader.
    pub(super) fn open(topic: Topic, partition: i32, shared: &Arc<Shared>) -> (Self, LaneReader) {
        let (batches, receiver) = mpsc::channel(LANE_BATCHES_MAX);
        let (revoke, revoked) = oneshot::channel();
        let reader = LaneReader {
            partition,
            batches: receiver,
            revoked: Some(revoked),
            shared: Arc::clone(shared),
            owns: false,
        };
        (Self { partition, topic, batches, revoke, queue: None, next: 0, end: None }, reader)
    }

    /// Starts reading from `queue`, at the offset that the owner has sent.
    pub(super) fn start(&mut self, from: i64, queue: PartitionQueue<C>) {
        self.next = from;
        self.queue = Some(queue);
    }

    /// Stops reading: a queue keeps its consumer alive.
    pub(super) fn close(&mut self) {
        self.queue = None;
    }

    /// Requests the owner to flush and release the partition; none if the owner no longer exists.
    pub(super) fn revoke(self) -> Option<oneshot::Receiver<()>> {
        let (acknowledge, released) = Acknowledge::new();
        self.revoke.send(acknowledge).is_ok().then_some(released)
    }

    /// Moves one batch, if there is one and capacity for it. `position` returns the consumer's position in a partition.
    pub(super) fn pump(&mut self, position: impl Fn(i32) -> Option<i64>) -> Result<Pumped, KafkaError> {
        let Ok(slot) = self.batches.try_reserve() else { return Ok(Pumped::Nothing) };
        if let Some(end) = self.end.take() {
            slot.send(Next::End(end));
            return Ok(Pumped::Something);
        }
        let Some(queue) = &self.queue else { return Ok(Pumped::Nothing) };
        let mut batch = Batch::default();
        let mut failed = None;
        while batch.has_capacity() {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => batch.push(self.topic, &message),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let seen = batch.next().unwrap_or(self.next);
                    // The position is after the markers of transactions, which are not records.
                    self.end = Some(position(self.partition).unwrap_or(seen).max(seen));
                    break;
                }
                Some(Err(error)) => {
                    // Messages before the error have left the queue, so they must still reach the reader.
                    failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        self.next = batch.next().unwrap_or(self.next).max(self.end.unwrap_or(0));
        let moved = if !batch.records.is_empty() {
            slot.send(Next::Records(batch.records));
            Pumped::Something
        } else if let Some(end) = self.end.take() {
            slot.send(Next::End(end));
            Pumped::Something
        } else {
            Pumped::Nothing
        };
        failed.map_or(Ok(moved), Err)
    }
}

/// The owner's side.
pub(super) struct LaneReader {
    partition: i32,
    batches: mpsc::Receiver<Next>,
    revoked: Option<oneshot::Receiver<Acknowledge>>,
    shared: Arc<Shared>,
    /// Whether the reader is the only user of its consumer, as outside of a group, and ends it.
    owns: bool,
}

impl LaneReader {
    /// A reader that ends the consumer when it is dropped, and is never revoked.
    pub(super) fn owning(mut self) -> Self {
        self.owns = true;
        self.revoked = None;
        self
    }
}

impl Drop for LaneReader {
    fn drop(&mut self) {
        if self.owns {
            self.shared.end(None);
        }
    }
}

#[async_trait]
impl Reader for LaneReader {
    async fn next(&mut self) -> Result<Next, Error> {
        if let Some(revoked) = &mut self.revoked {
            tokio::select! {
                // A revoked partition is not read any further: batches queued in the lane are dropped.
                biased;
                acknowledge = revoked => {
                    self.revoked = None;
                    if let Ok(acknowledge) = acknowledge {
                        self.batches.close();
                        while self.batches.try_recv().is_ok() {}
                        return Ok(Next::Revoked(acknowledge));
                    }
                }
                next = self.batches.recv() => {
                    self.shared.signal.raise();
                    return next.ok_or_else(|| self.shared.reason());
                }
            }
        }
        let next = self.batches.recv().await;
        self.shared.signal.raise();
        next.ok_or_else(|| self.shared.reason())
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        if !self.owns {
            self.shared.commit(self.partition, next);
        }
        Ok(())
    }
}
