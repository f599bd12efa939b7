//! The way of one partition from librdkafka's queue to its reader.
//!
//! The poll thread takes messages from the queue only while the lane has room. What it does not take stays in
//! librdkafka, which stops fetching the partition when its own bound is reached: nothing is paused, purged or
//! fetched twice, and other partitions do not notice.

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

/// Batches that wait for a reader: at most 4,000 records, or 8 MiB and a record each.
const LANE_BATCHES_MAX: usize = 4;

/// What the poll thread and its readers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Wakes the poll thread.
    pub(super) signal: Arc<Signal>,
    stop: AtomicBool,
    ending: OnceLock<Error>,
    /// The next offset that each partition's owner has asked to commit.
    commits: Mutex<BTreeMap<i32, i64>>,
}

impl Shared {
    /// Ends the thread; the first reason is the one that is told.
    pub(super) fn end(&self, reason: Option<Error>) {
        if let Some(error) = reason {
            tracing::warn!(%error, "consumer ends");
            drop(self.ending.set(error));
        }
        self.stop.store(true, Ordering::Release);
        self.signal.raise();
    }

    /// Whether the thread is to end.
    pub(super) fn ended(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Why it ended.
    pub(super) fn reason(&self) -> Error {
        self.ending.get().cloned().unwrap_or_else(|| Error::retry("read the log", "the consumer has ended"))
    }

    /// Takes what is to be committed.
    pub(super) fn take_commits(&self) -> BTreeMap<i32, i64> {
        std::mem::take(&mut *self.commits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn commit(&self, partition: i32, next: i64) {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next);
        self.signal.raise();
    }
}

/// The poll thread's end.
pub(super) struct Lane<C: ConsumerContext> {
    partition: i32,
    topic: Topic,
    batches: mpsc::Sender<Next>,
    revoke: oneshot::Sender<Acknowledge>,
    queue: Option<PartitionQueue<C>>,
    /// Everything below was taken from the queue.
    next: i64,
    /// An end that came behind records and waits for room of its own.
    end: Option<i64>,
}

/// What a look into the queue brought.
pub(super) enum Pumped {
    /// There was nothing to move, or no room for it.
    Nothing,
    /// Something moved; there may be more.
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

    /// The owner has said where it begins: messages come from this queue.
    pub(super) fn start(&mut self, from: i64, queue: PartitionQueue<C>) {
        self.next = from;
        self.queue = Some(queue);
    }

    /// Takes no more: a queue keeps its consumer alive.
    pub(super) fn close(&mut self) {
        self.queue = None;
    }

    /// Asks the owner to flush and let go; none when there is no owner any more.
    pub(super) fn revoke(self) -> Option<oneshot::Receiver<()>> {
        let (acknowledge, released) = Acknowledge::new();
        self.revoke.send(acknowledge).is_ok().then_some(released)
    }

    /// Moves one batch, if there is one and room for it. `position` tells the consumer's position in the partition.
    pub(super) fn pump(&mut self, position: impl Fn(i32) -> Option<i64>) -> Result<Pumped, KafkaError> {
        let Ok(room) = self.batches.try_reserve() else { return Ok(Pumped::Nothing) };
        if let Some(end) = self.end.take() {
            room.send(Next::End(end));
            return Ok(Pumped::Something);
        }
        let Some(queue) = &self.queue else { return Ok(Pumped::Nothing) };
        let mut batch = Batch::default();
        let mut failed = None;
        while batch.has_room() {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => batch.push(self.topic, &message),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let seen = batch.next().unwrap_or(self.next);
                    // The position is past the markers of transactions, which are no records.
                    self.end = Some(position(self.partition).unwrap_or(seen).max(seen));
                    break;
                }
                Some(Err(error)) => {
                    // What was taken before it is gone from the queue: it must reach the reader all the same.
                    failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        self.next = batch.next().unwrap_or(self.next).max(self.end.unwrap_or(0));
        let moved = if !batch.records.is_empty() {
            room.send(Next::Records(batch.records));
            Pumped::Something
        } else if let Some(end) = self.end.take() {
            room.send(Next::End(end));
            Pumped::Something
        } else {
            Pumped::Nothing
        };
        failed.map_or(Ok(moved), Err)
    }
}

/// The owner's end.
pub(super) struct LaneReader {
    partition: i32,
    batches: mpsc::Receiver<Next>,
    revoked: Option<oneshot::Receiver<Acknowledge>>,
    shared: Arc<Shared>,
    /// A reader outside of a group is the only user of its consumer, and ends it.
    owns: bool,
}

impl LaneReader {
    /// Ends the consumer when it is dropped, and is never revoked.
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
                // A partition that goes elsewhere is not read any further: what waits in the lane is dropped.
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
