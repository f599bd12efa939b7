//! The producer that all callers of `append` share.

use super::client::{Events, Settings};
use super::{TopicNames, fault};
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::backend::{check_sizes, partition_of};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{Delivery, DeliveryFuture};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long to wait before the next attempt to enter a full queue.
const QUEUE_FULL_WAIT_MS: u64 = 5;

/// The destination of a record.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) partition: u32,
    /// Set for a topic that keeps the timestamps of producers.
    pub(super) timestamp_ms: Option<i64>,
}

/// librdkafka's producer, re-created after an error that it does not recover from.
pub(super) struct Producer {
    settings: Settings,
    current: Mutex<FutureProducer<Events>>,
}

impl Producer {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { settings: settings.clone(), current: Mutex::new(create(settings)?) })
    }

    /// Sends all records and waits for their acknowledgements. See [`foretell_ports::log::Log::append`].
    pub(super) async fn append(
        &self,
        names: &TopicNames,
        partitions: impl Fn(Topic) -> u32,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Position>, Error> {
        check_sizes(&records)?;
        let target = |record: &NewRecord| Target {
            name: names.of(record.topic),
            partition: partition_of(record, partitions(record.topic)),
            timestamp_ms: None,
        };
        self.send(records.iter().map(|record| (record, target(record)))).await
    }

    /// Sends each record to its target and waits for all; keeps the order of the call within a partition.
    pub(super) async fn send(
        &self,
        records: impl Iterator<Item = (&NewRecord, Target)>,
    ) -> Result<Vec<Position>, Error> {
        let producer = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let delivered = send_all(&producer, records).await;
        if delivered.is_err() {
            self.renew(producer);
        }
        delivered
    }

    /// Replaces a producer after a fatal error; it recovers from all others by itself.
    fn renew(&self, failed: FutureProducer<Events>) {
        let Some((code, reason)) = failed.client().fatal_error() else { return };
        tracing::warn!(?code, reason, "producer failed and is replaced");
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.client().fatal_error().is_none() {
            return; // Another caller was first.
        }
        match create(&self.settings) {
            Ok(new) => {
                let old = std::mem::replace(&mut *current, new);
                // Dropping it waits for its thread.
                tokio::task::spawn_blocking(move || drop((old, failed)));
            }
            Err(error) => tracing::warn!(%error, "producer was not replaced"),
        }
    }
}

fn create(settings: &Settings) -> Result<FutureProducer<Events>, Error> {
    settings.producer().create_with_context(Events).map_err(|error| Error::fatal("create a producer", error))
}

/// Sends in order, waits for all, and returns the positions in order, or the first failure.
async fn send_all(
    producer: &FutureProducer<Events>,
    records: impl Iterator<Item = (&NewRecord, Target)>,
) -> Result<Vec<Position>, Error> {
    let (mut waiting, mut positions) = (VecDeque::new(), Vec::new());
    let mut failure = None;
    for (record, target) in records {
        let mut unsent = future_record(&target.name, fault::partition(target.partition)?, record);
        unsent.timestamp = target.timestamp_ms;
        loop {
            match producer.send_result(unsent) {
                Ok(delivery) => {
                    waiting.push_back((record.topic, delivery));
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    unsent = returned;
                    wait_for_space(&mut waiting, &mut positions).await.unwrap_or_else(|error| failure = Some(error));
                }
                Err((error, _)) => {
                    failure = Some(fault::delivery(&error));
                    break;
                }
            }
        }
        if failure.is_some() {
            break;
        }
    }
    while let Some((topic, delivery)) = waiting.pop_front() {
        match delivered(topic, delivery).await {
            Ok(position) => positions.push(position),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(positions), Err)
}

/// Waits until the queue has space: for the oldest record of this call, or for those of others.
async fn wait_for_space(
    waiting: &mut VecDeque<(Topic, DeliveryFuture)>,
    positions: &mut Vec<Position>,
) -> Result<(), Error> {
    match waiting.pop_front() {
        Some((topic, delivery)) => positions.push(delivered(topic, delivery).await?),
        None => tokio::time::sleep(Duration::from_millis(QUEUE_FULL_WAIT_MS)).await,
    }
    Ok(())
}

/// A record for a given partition.
pub(super) fn future_record<'a>(name: &'a str, partition: i32, record: &'a NewRecord) -> FutureRecord<'a, [u8], [u8]> {
    let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, header| {
        all.insert(Header { key: &header.0, value: Some(&header.1[..]) })
    });
    let mut sent = FutureRecord::to(name).partition(partition).payload(&record.value[..]).headers(headers);
    sent.key = record.key.as_deref();
    sent
}

/// The position of a delivered record.
pub(super) async fn delivered(topic: Topic, delivery: DeliveryFuture) -> Result<Position, Error> {
    match delivery.await {
        Ok(Ok(Delivery { partition, offset, .. })) => {
            Ok(Position { topic, partition: u32::try_from(partition).unwrap_or_default(), offset })
        }
        Ok(Err((error, _))) => Err(fault::delivery(&error)),
        Err(_) => Err(Error::retry("append", "the producer has ended")),
    }
}
