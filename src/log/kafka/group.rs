//! What happens on the poll thread: assignments, revocations and the moving of messages.
//!
//! librdkafka calls [`Group::rebalance`] from inside of a poll. It answers in two steps: it asks the owners and
//! waits for them, within limits, and while it waits it goes on serving the partitions that stay.

use super::client::Events;
use super::lane::{Lane, Pumped, Shared};
use super::signal::Answer;
use super::{Names, fault};
use crate::event::Topic;
use crate::log::{Assigned, Error};
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

/// The state of one consumer.
pub(super) struct Group {
    topic: Topic,
    name: String,
    limits: Limits,
    pub(super) shared: Arc<Shared>,
    assigned: mpsc::Sender<Assigned>,
    lanes: Mutex<BTreeMap<i32, Lane>>,
    /// The consumer that this is the state of: queues are split off from a counted handle.
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    /// A callback ran: the poll that ran it may have left something behind.
    served: AtomicBool,
}

/// How long a callback may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For owners to say where they begin.
    pub(super) start: Duration,
    /// For owners to let go.
    pub(super) drain: Duration,
    /// For the brokers.
    pub(super) request: Duration,
}

impl Group {
    pub(super) fn new(topic: Topic, names: &Names, limits: Limits, assigned: mpsc::Sender<Assigned>) -> Self {
        Self {
            topic,
            name: names.of(topic),
            limits,
            shared: Arc::default(),
            assigned,
            lanes: Mutex::default(),
            consumer: OnceLock::new(),
            served: AtomicBool::new(false),
        }
    }

    /// Learns whose state it is.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        drop(self.consumer.set(Arc::downgrade(consumer)));
    }

    /// Opens the way of a partition that begins at `from`.
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

    /// One turn of the poll thread; answers whether there may be more to do at once.
    pub(super) fn turn(&self, consumer: &Arc<BaseConsumer<Self>>) -> bool {
        self.served.store(false, Ordering::Relaxed);
        // Messages come through their partitions' own queues. What comes here are callbacks and errors.
        match consumer.poll(Duration::ZERO) {
            Some(Err(error)) => self.fault(None, &error),
            Some(Ok(stray)) => {
                let lost = format!("{}[{}] at {} came unasked", self.name, stray.partition(), stray.offset());
                self.shared.end(Some(Error::retry("read the log", lost)));
            }
            None => {}
        }
        self.commit(consumer);
        self.pump(consumer) || self.served.load(Ordering::Relaxed)
    }

    /// Gives up the queues, each of which keeps the consumer alive.
    pub(super) fn close(&self) {
        self.lanes().values_mut().for_each(Lane::close);
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<i32, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what owners have committed; a commit that fails is advice that was not heard.
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

    /// Moves what there is and has room; answers whether anything moved.
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
        if let Some(error) = fault::consumption(&self.name, partition, error) {
            self.shared.end(Some(error));
        }
    }

    /// Asks the owners where the new partitions begin, and begins there.
    fn assign(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<(), Error> {
        let asked = self.ask(consumer, given)?;
        let deadline = Instant::now() + self.limits.start;
        let mut starts = Vec::new();
        for (lane, partition, mut start) in asked {
            let from = match self.shared.signal.answer(&mut start, deadline, || {
                self.pump(consumer);
            }) {
                Answer::Given(from) => from,
                Answer::Refused => return Err(self.unanswered(partition, "nobody wants it")),
                Answer::Late => return Err(self.unanswered(partition, "nobody said in time where it begins")),
            };
            self.check_range(consumer, partition, from)?;
            self.open(lane, partition, from)?;
            starts.push((partition, Offset::Offset(from)));
        }
        list(&self.name, starts.into_iter())
            .and_then(|starts| consumer.incremental_assign(&starts))
            .map_err(|error| Error::retry("take over partitions", error))
    }

    fn ask(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<Vec<Asked>, Error> {
        let take_over = "take over partitions";
        let mut asked = Vec::new();
        if given.count() == 0 {
            return Ok(asked);
        }
        let committed = consumer
            .committed_offsets(given.clone(), self.limits.request)
            .map_err(|error| Error::retry(take_over, error))?;
        for element in committed.elements() {
            let partition = element.partition();
            let (lane, reader) = Lane::open(self.topic, partition, &self.shared);
            let (start, begins) = oneshot::channel();
            let assigned = Assigned {
                partition: u32::try_from(partition).unwrap_or_default(),
                committed: element.offset().to_raw().filter(|offset| *offset >= 0),
                start,
                reader: Box::new(reader),
            };
            self.assigned.try_send(assigned).map_err(|_| self.unanswered(partition, "nobody takes it"))?;
            asked.push((lane, partition, begins));
        }
        Ok(asked)
    }

    fn unanswered(&self, partition: i32, why: &str) -> Error {
        Error::retry("take over partitions", format!("{}[{partition}]: {why}", self.name))
    }

    /// Says precisely what librdkafka would only say in a code.
    fn check_range(&self, consumer: &BaseConsumer<Self>, partition: i32, from: i64) -> Result<(), Error> {
        let (start, end) = consumer
            .fetch_watermarks(&self.name, partition, self.limits.request)
            .map_err(|error| Error::retry("take over partitions", error))?;
        if (start..=end).contains(&from) {
            return Ok(());
        }
        let place = format!("{}[{partition}]", self.name);
        Err(fault::out_of_range(&place, &format!("wanted {from}, it holds {start} to {end}")))
    }

    /// Asks the owners to flush and let go, waits for them, and gives the partitions back.
    fn revoke(&self, consumer: &BaseConsumer<Self>, taken: &TopicPartitionList) -> Result<(), Error> {
        let lanes: Vec<Lane> = {
            let mut lanes = self.lanes();
            taken.elements().iter().filter_map(|element| lanes.remove(&element.partition())).collect()
        };
        let released: Vec<_> = lanes.into_iter().filter_map(Lane::revoke).collect();
        // A lost partition has a new owner already: nobody is helped by waiting.
        if !consumer.assignment_lost() {
            let deadline = Instant::now() + self.limits.drain;
            for mut released in released {
                let answer = self.shared.signal.answer(&mut released, deadline, || {
                    self.pump(consumer);
                });
                if answer == Answer::Late {
                    tracing::warn!(topic = self.name, "revoked partition was not flushed in time");
                }
            }
            self.commit(consumer);
        }
        consumer.incremental_unassign(taken).map_err(|error| Error::retry("give partitions back", error))
    }
}

type Asked = (Lane, i32, oneshot::Receiver<i64>);

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
            // Nobody reads what is assigned to a consumer that ends; the group only waits for the answer.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if self.shared.ended() => {
                consumer.incremental_assign(&TopicPartitionList::new()).map_err(|error| Error::retry("leave", error))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let done = self.assign(consumer, list);
                if done.is_err() {
                    // librdkafka waits for an answer in any case, also while it closes.
                    drop(consumer.incremental_assign(&TopicPartitionList::new()));
                }
                done
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
            tracing::debug!(%error, topic = self.name, "commit was refused");
        }
    }
}
