//! Runs on the poll thread: assignments, revocations and the transfer of messages.
//!
//! librdkafka calls [`Group::rebalance`] from within a poll. New partitions are offered to their owners, and each is
//! started once its owner has sent its start offset, so that a slow owner does not delay others. For revoked
//! partitions the callback waits, for a limited time, and meanwhile serves the partitions that remain.

use super::client::Events;
use super::lane::{self, Pumped, Shared};
use super::signal::QueryOutcome;
use super::{TopicNames, fault};
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::{Assigned, Extent};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type Lane = lane::Lane<Group>;

/// The state of one consumer.
pub(super) struct Group {
    topic: Topic,
    name: String,
    limits: Limits,
    pub(super) shared: Arc<Shared>,
    assigned: mpsc::Sender<Assigned>,
    /// Partitions that are being read.
    lanes: Mutex<BTreeMap<i32, Lane>>,
    /// Partitions whose owners have not sent a start offset yet.
    pending: Mutex<BTreeMap<i32, Pending>>,
    /// The consumer that this state belongs to; splitting off queues requires a reference-counted handle.
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    /// A callback ran, so the poll that ran it may have left further work.
    served: AtomicBool,
}

/// A partition that was offered to an owner.
struct Pending {
    lane: Lane,
    start: oneshot::Receiver<i64>,
    deadline: Instant,
}

/// Timeouts for owners and brokers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For owners to send the start offset.
    pub(super) start: Duration,
    /// For owners to flush and release a partition.
    pub(super) drain: Duration,
    /// For the brokers.
    pub(super) request: Duration,
}

impl Group {
    pub(super) fn new(topic: Topic, names: &TopicNames, limits: Limits, assigned: mpsc::Sender<Assigned>) -> Self {
        Self {
            topic,
            name: names.of(topic),
            limits,
            shared: Arc::default(),
            assigned,
            lanes: Mutex::default(),
            pending: Mutex::default(),
            consumer: OnceLock::new(),
            served: AtomicBool::new(false),
        }
    }

    /// Sets the consumer that this state belongs to.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        drop(self.consumer.set(Arc::downgrade(consumer)));
    }

    /// Starts the lane of a partition at `from`.
    ///
    /// Called before the partition is assigned: its messages then never enter the consumer's common queue.
    pub(super) fn open(&self, mut lane: Lane, partition: i32, from: i64) -> Result<(), Error> {
        let consumer = self.consumer.get().and_then(Weak::upgrade);
        let queue = consumer.and_then(|consumer| consumer.split_partition_queue(&self.name, partition));
        let mut queue = queue.ok_or_else(|| self.unanswered(partition, "it has no queue"))?;
        let signal = Arc::clone(&self.shared.signal);
        queue.set_nonempty_callback(move || signal.raise());
        lane.start(from, queue);
        self.lanes().insert(partition, lane);
        Ok(())
    }

    /// One iteration of the poll thread; returns whether there may be more to do immediately.
    pub(super) fn iterate(&self, consumer: &Arc<BaseConsumer<Self>>) -> bool {
        self.served.store(false, Ordering::Relaxed);
        // Messages arrive through the queues of their partitions; this poll serves callbacks and errors.
        match consumer.poll(Duration::ZERO) {
            Some(Err(error)) => self.fault(None, &error),
            Some(Ok(stray)) => {
                let lost =
                    format!("{}[{}] at {} was received unexpectedly", self.name, stray.partition(), stray.offset());
                self.shared.end(Some(Error::retry("read the log", lost)));
            }
            None => {}
        }
        if let Err(error) = self.start_pending(consumer) {
            self.shared.end(Some(error));
        }
        self.commit(consumer);
        self.pump(consumer) || self.served.load(Ordering::Relaxed)
    }

    /// Drops the queues, each of which keeps the consumer alive.
    pub(super) fn close(&self) {
        self.lanes().values_mut().for_each(Lane::close);
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<i32, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<i32, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the offsets that owners have committed. A failed commit is harmless, because commits are only hints.
    fn commit(&self, consumer: &BaseConsumer<Self>) {
        let commits = self.shared.take_commits();
        if commits.is_empty() {
            return;
        }
        let offsets = commits.into_iter().map(|(partition, next)| (partition, Offset::Offset(next)));
        let sent = list(&self.name, offsets).and_then(|offsets| consumer.commit(&offsets, CommitMode::Async));
        if let Err(error) = sent {
            tracing::debug!(%error, topic = self.name, "commit was not sent");
        }
    }

    /// Moves available messages while there is capacity; returns whether anything moved.
    fn pump(&self, consumer: &BaseConsumer<Self>) -> bool {
        let position = |partition| {
            let offset = consumer.position().ok()?.find_partition(&self.name, partition)?.offset();
            offset.to_raw().filter(|offset| *offset >= 0)
        };
        let mut moved = false;
        let mut faults = Vec::new();
        for (partition, lane) in self.lanes().iter_mut() {
            match lane.pump(position) {
                Ok(Pumped::Something) => moved = true,
                Ok(Pumped::Nothing) => {}
                Err(error) => faults.push((*partition, error)),
            }
        }
        for (partition, error) in faults {
            self.fault(Some(partition), &error);
        }
        moved
    }

    fn fault(&self, partition: Option<i32>, error: &KafkaError) {
        match fault::consumption(&self.name, partition, error) {
            Some(error) => self.shared.end(Some(error)),
            None if fault::is_outage(error) => {}
            None => tracing::warn!(topic = %self.name, partition, %error, "the client continues after an error"),
        }
    }

    /// Offers new partitions to their owners. librdkafka receives an empty assignment; the partitions start later.
    fn assign(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<(), Error> {
        if given.count() == 0 {
            return Ok(());
        }
        let committed = consumer
            .committed_offsets(given.clone(), self.limits.request)
            .map_err(|error| Error::retry("acquire partitions", error))?;
        let deadline = Instant::now() + self.limits.start;
        for element in committed.elements() {
            let partition = element.partition();
            let (lane, reader) = Lane::open(self.topic, partition, &self.shared);
            let (sender, start) = oneshot::channel();
            let assigned = Assigned {
                partition: u32::try_from(partition).unwrap_or_default(),
                committed: element.offset().to_raw().filter(|offset| *offset >= 0),
                start: sender,
                reader: Box::new(reader),
            };
            self.assigned.try_send(assigned).map_err(|_| self.unanswered(partition, "it was not received"))?;
            self.pending().insert(partition, Pending { lane, start, deadline });
        }
        Ok(())
    }

    /// Starts the partitions whose owners have answered since the last iteration.
    fn start_pending(&self, consumer: &BaseConsumer<Self>) -> Result<(), Error> {
        // Starting more partitions would make librdkafka forget that its assignment was lost.
        if self.pending().is_empty() || consumer.assignment_lost() {
            return Ok(());
        }
        let mut starts = Vec::new();
        for (partition, from, lane) in self.answered()? {
            self.check_range(consumer, partition, from)?;
            self.open(lane, partition, from)?;
            starts.push((partition, Offset::Offset(from)));
        }
        if starts.is_empty() {
            return Ok(());
        }
        list(&self.name, starts.into_iter())
            .and_then(|starts| consumer.incremental_assign(&starts))
            .map_err(|error| Error::retry("acquire partitions", error))
    }

    fn answered(&self) -> Result<Vec<(i32, i64, Lane)>, Error> {
        let mut pending = self.pending();
        let mut answers = Vec::new();
        for (partition, offer) in pending.iter_mut() {
            match self.shared.signal.poll(&mut offer.start, offer.deadline) {
                Some(QueryOutcome::Given(from)) => answers.push((*partition, from)),
                Some(QueryOutcome::Refused) => return Err(self.unanswered(*partition, "its owner rejected it")),
                Some(QueryOutcome::Late) => {
                    return Err(self.unanswered(*partition, "its owner sent no start offset in time"));
                }
                None => {}
            }
        }
        let taken =
            answers.into_iter().filter_map(|(partition, from)| Some((partition, from, pending.remove(&partition)?)));
        Ok(taken.map(|(partition, from, offer)| (partition, from, offer.lane)).collect())
    }

    fn unanswered(&self, partition: i32, why: &str) -> Error {
        Error::retry("acquire partitions", format!("{}[{partition}]: {why}", self.name))
    }

    fn check_range(&self, consumer: &BaseConsumer<Self>, partition: i32, from: i64) -> Result<(), Error> {
        let (start, end) = consumer
            .fetch_watermarks(&self.name, partition, self.limits.request)
            .map_err(|error| Error::retry("acquire partitions", error))?;
        fault::check_range(&self.name, partition, from, Extent { start, end })
    }

    /// Requests the owners to flush and release the partitions, waits for them, and unassigns the partitions.
    fn revoke(&self, consumer: &BaseConsumer<Self>, taken: &TopicPartitionList) -> Result<(), Error> {
        let partitions: Vec<i32> = taken.elements().iter().map(|element| element.partition()).collect();
        // Nothing of these has been read, so there is nothing to wait for.
        let unread: Vec<Pending> = partitions.iter().filter_map(|partition| self.pending().remove(partition)).collect();
        unread.into_iter().for_each(|offer| drop(offer.lane.revoke()));
        let begun: Vec<(i32, Lane)> = {
            let mut lanes = self.lanes();
            partitions.iter().filter_map(|partition| Some((*partition, lanes.remove(partition)?))).collect()
        };
        let given = list(&self.name, begun.iter().map(|(partition, _)| (*partition, Offset::Invalid)));
        let released = begun.into_iter().filter_map(|(_, lane)| lane.revoke()).collect();
        // Lost partitions already have new owners, so waiting is pointless.
        if !consumer.assignment_lost() {
            self.await_release(consumer, released);
            self.commit(consumer);
        }
        given
            .and_then(|given| consumer.incremental_unassign(&given))
            .map_err(|error| Error::retry("release partitions", error))
    }

    fn await_release(&self, consumer: &BaseConsumer<Self>, released: Vec<oneshot::Receiver<()>>) {
        let deadline = Instant::now() + self.limits.drain;
        for mut released in released {
            let meanwhile = || {
                self.pump(consumer);
            };
            if self.shared.signal.answer(&mut released, deadline, meanwhile) == QueryOutcome::Late {
                tracing::warn!(topic = self.name, "revoked partition was not flushed in time");
            }
        }
    }
}

fn list(name: &str, offsets: impl Iterator<Item = (i32, Offset)>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(name, partition, offset)?;
    }
    Ok(list)
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.store(true, Ordering::Relaxed);
        Events.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.store(true, Ordering::Relaxed);
        Events.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, cause: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.served.store(true, Ordering::Relaxed);
        tracing::info!(topic = self.name, partitions = list.count(), ?cause, "rebalance");
        let done = match cause {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                // The consumer is ending, so its partitions have no reader.
                let offered = if self.shared.ended() { Ok(()) } else { self.assign(consumer, list) };
                // librdkafka requires an assignment in any case, also while it closes.
                let answered = consumer.incremental_assign(&TopicPartitionList::new());
                offered.and(answered.map_err(|error| Error::retry("take over partitions", error)))
            }
            _ => self.revoke(consumer, list),
        };
        if let Err(error) = done {
            self.shared.end(Some(error));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.served.store(true, Ordering::Relaxed);
        if let Err(error) = result {
            tracing::debug!(%error, topic = self.name, "commit was rejected");
        }
    }
}
