//! Reads single pages of a partition, with consumers that are kept for the next read.
//!
//! A new consumer for each page would mean a new client with its threads and connections every time, only to read a
//! record that verifies a checkpoint, determines the age of a lag or fills a gap of a stream.

use super::batch::Batch;
use super::client::{Events, Query, Settings};
use super::consumer::At;
use super::{TopicNames, fault};
use foretell_ports::Error;
use foretell_ports::log::{Extent, Page};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Concurrent page reads, and consumers kept for them; further reads wait.
const READS_MAX: usize = 4;

const OPERATION: &str = "read a page of the log";

/// The consumers for page reads, created on first use.
pub(super) struct Pages {
    settings: Settings,
    names: TopicNames,
    query: Arc<Query>,
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<BaseConsumer<Events>>>>,
}

/// One page read.
struct PageRequest {
    at: At,
    name: String,
    partition: i32,
    /// The extent of the partition just before the read.
    extent: Extent,
    deadline: Instant,
}

impl Pages {
    pub(super) fn new(settings: &Settings, names: &TopicNames, query: &Arc<Query>) -> Self {
        Self {
            settings: settings.clone(),
            names: names.clone(),
            query: Arc::clone(query),
            slots: Arc::new(Semaphore::new(READS_MAX)),
            idle: Arc::default(),
        }
    }

    /// See [`foretell_ports::log::Log::page`].
    pub(super) async fn page(&self, at: At) -> Result<Page, Error> {
        let (name, partition) = (self.names.of(at.topic), fault::partition(at.partition)?);
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|closed| Error::retry(OPERATION, closed))?;
        let extent = Query::extent(&self.query, name.clone(), at.partition).await?;
        fault::check_range(&name, partition, at.from, extent)?;
        if at.from == extent.end {
            return Ok(Page { records: Vec::new(), next: at.from });
        }
        let request =
            PageRequest { at, name, partition, extent, deadline: Instant::now() + self.settings.request_timeout() };
        let consumer = match lock(&self.idle).pop() {
            Some(kept) => kept,
            None => self.consumer()?,
        };
        let idle = Arc::clone(&self.idle);
        let page = tokio::task::spawn_blocking(move || {
            let page = request.page(&consumer);
            // A consumer that has failed may have anything in its queue: it is dropped, and a new one created later.
            if page.is_ok() {
                lock(&idle).push(consumer);
            }
            drop(slot);
            page
        });
        page.await.map_err(|ended| Error::retry(OPERATION, ended))?
    }

    fn consumer(&self) -> Result<BaseConsumer<Events>, Error> {
        let mut settings = self.settings.consumer(&self.names.of_reader());
        // One response of the broker is a page: nothing is prefetched, and no fetch of a finished read waits at the end
        // of a partition while the next read waits for its response.
        settings.set("queued.min.messages", "1").set("fetch.wait.max.ms", "1").set("fetch.queue.backoff.ms", "1");
        settings.create_with_context(Events).map_err(|error| Error::fatal("create a consumer", error))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        if !idle.is_empty() {
            // Closing a consumer blocks, and this may be a thread of the runtime.
            drop(std::thread::Builder::new().name("kafka pages".to_owned()).spawn(move || drop(idle)));
        }
    }
}

fn lock(idle: &Mutex<Vec<BaseConsumer<Events>>>) -> std::sync::MutexGuard<'_, Vec<BaseConsumer<Events>>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PageRequest {
    fn page(&self, consumer: &BaseConsumer<Events>) -> Result<Page, Error> {
        let failed = |error: KafkaError| Error::retry(OPERATION, error);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.name, self.partition, Offset::Offset(self.at.from)).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        let page = self.collect(consumer)?;
        consumer.unassign().map_err(failed)?;
        Ok(page)
    }

    /// Waits for the first record or the end, and collects what has arrived with it.
    fn collect(&self, consumer: &BaseConsumer<Events>) -> Result<Page, Error> {
        let mut batch = Batch::default();
        while batch.has_capacity() {
            let wait = match batch.next() {
                None => self.deadline.saturating_duration_since(Instant::now()),
                Some(_) => Duration::ZERO,
            };
            match consumer.poll(wait) {
                Some(Ok(message)) if self.is_ours(&message) => batch.push(self.at.topic, &message),
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == self.partition => {
                    // Holes after the last record count as read. The end that brokers reported before this read is
                    // below the end that it has reached.
                    let next = batch.next().unwrap_or(self.at.from).max(self.extent.end);
                    return Ok(Page { records: batch.records, next });
                }
                Some(Err(error)) => match fault::consumption(&self.name, Some(self.partition), &error) {
                    Some(error) => return Err(error),
                    None => tracing::debug!(topic = self.name, partition = self.partition, %error, "still reading"),
                },
                None if batch.records.is_empty() && Instant::now() >= self.deadline => {
                    return Err(Error::retry(OPERATION, format!("{}[{}]: no answer", self.name, self.partition)));
                }
                None if batch.records.is_empty() => {}
                None => break,
            }
        }
        Ok(Page { next: batch.next().unwrap_or(self.at.from), records: batch.records })
    }

    /// Rejects messages of an earlier read; otherwise a checkpoint could be compared with the wrong record.
    fn is_ours(&self, message: &impl Message) -> bool {
        message.partition() == self.partition && message.topic() == self.name && message.offset() >= self.at.from
    }
}
