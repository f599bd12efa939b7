//! The log on Apache Kafka, through librdkafka.
//!
//! ```text
//!   append ─► producer ─────────────► one for all callers: idempotent, acks=all, partition by key::partition
//!   fence ──► transactional producer ► one per partition; its id fences the previous owner
//!   extent ─► query client ──────────► low watermark and last stable offset
//!   page ───► kept consumers ────────► one read, without a thread or a client of its own
//!   subscribe, read ─► consumer ─► poll thread ─┬─► lane 0 ─► Reader
//!                                               └─► lane 3 ─► Reader      bounded; a full lane stops its
//!                                                                         partition's fetching, nothing else
//! ```
//!
//! librdkafka runs callbacks on the thread that polls it, but the start offset of a partition comes from an
//! asynchronous store. Every consumer therefore has its own thread, which only polls, runs callbacks and waits, and
//! communicates with the asynchronous side through channels.
//!
//! Not supported: automatic commits, automatic offset resets and automatic creation of topics. Each of them can turn a
//! mistake into lost records.

mod batch;
mod client;
mod config;
mod consumer;
mod exchange;
mod fault;
mod fence;
mod group;
mod lane;
mod page;
mod producer;
mod signal;
pub mod topics;

pub use config::{Config, SecurityProtocol};

use async_trait::async_trait;
use client::Query;
use foretell_events::record::NewRecord;
use foretell_events::topic::full_name;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::log::{Exchange, Extent, Fenced, Log, LogAdmin, Membership, Page, Reader};
use futures::future::BoxFuture;
use producer::Producer;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The log on a Kafka cluster.
pub struct Kafka {
    names: TopicNames,
    settings: client::Settings,
    counts: BTreeMap<Topic, u32>,
    query: Arc<Query>,
    producer: Producer,
    pages: page::Pages,
}

/// The names of the topics on the cluster.
#[derive(Debug, Clone)]
pub struct TopicNames {
    prefix: Arc<str>,
    /// The epochs of topics that are not in their first one.
    epochs: BTreeMap<Topic, u8>,
}

impl TopicNames {
    /// Topic names with a prefix, in their first epoch.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), epochs: BTreeMap::new() }
    }

    /// Sets the epoch of a topic.
    pub fn at(mut self, topic: Topic, epoch: u8) -> Self {
        self.epochs.insert(topic, epoch);
        self
    }

    /// The epoch of a topic.
    pub fn epoch(&self, topic: Topic) -> u8 {
        self.epochs.get(&topic).copied().unwrap_or(0)
    }

    /// The name of a topic, with prefix and epoch.
    pub fn of(&self, topic: Topic) -> String {
        full_name(&self.prefix, topic, self.epoch(topic))
    }

    /// The id of a consumer group, with the prefix: two deployments on one cluster must not share a group.
    pub(crate) fn of_group(&self, group: &str) -> String {
        format!("{}{group}", self.prefix)
    }

    /// The group id of readers without a group.
    pub(crate) fn of_reader(&self) -> String {
        format!("{}reader", self.prefix)
    }
}

impl Kafka {
    /// Connects to `kafka://host:port,host:port`.
    ///
    /// Reads the partition counts once. Fatal when a topic does not exist or a setting is invalid, Retry when no broker
    /// answers.
    pub fn open<'a>(url: &'a str, names: TopicNames, config: &'a Config) -> BoxFuture<'a, Result<Self, Error>> {
        // Boxed, so that a caller does not compile it again.
        Box::pin(Self::connect(url, names, config))
    }

    async fn connect(url: &str, names: TopicNames, config: &Config) -> Result<Self, Error> {
        let settings = client::Settings::new(url, config)?;
        let query = Arc::new(Query::new(&settings)?);
        let mut counts = BTreeMap::new();
        for topic in Topic::ALL {
            let name = names.of(topic);
            let Some(count) = Query::partition_count(&query, name.clone()).await? else {
                let missing = format!("the topic {name} does not exist; `foretell migrate` creates it");
                return Err(Error::fatal("open the log", missing));
            };
            counts.insert(topic, count);
        }
        let producer = Producer::new(&settings)?;
        let pages = page::Pages::new(&settings, &names, &query);
        Ok(Self { names, settings, counts, query, producer, pages })
    }

    /// Problems of the topics' settings, one sentence each; empty if there are none. See [`topics::check`].
    pub fn check_topics(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(topics::check_with(&self.settings, &self.names, &self.query))
    }

    fn check(&self, topic: Topic, partition: u32) -> Result<(), Error> {
        if partition < self.partitions(topic) {
            return Ok(());
        }
        Err(Error::reject("use a partition", format!("{} has no partition {partition}", self.names.of(topic))))
    }
}

#[async_trait]
impl Log for Kafka {
    fn system(&self) -> &'static str {
        "kafka"
    }

    fn partitions(&self, topic: Topic) -> u32 {
        self.counts.get(&topic).copied().unwrap_or(1)
    }

    fn epoch(&self, topic: Topic) -> u8 {
        self.names.epoch(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let count_of = |topic| self.partitions(topic);
        self.producer.append(&self.names, count_of, records).await
    }

    /// `end` is the last stable offset: the first offset of the oldest open transaction, or the high watermark if none
    /// is open. Records after an open transaction, from any producer, are not below `end`, because no reader sees them
    /// yet. Once the transaction has ended, `end` moves past its marker, and so does the position of a reader that
    /// returns `End`: if nothing more is appended, a reader that returns `End(position)` with `position >= end` has
    /// returned everything.
    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        self.check(topic, partition)?;
        Query::extent(&self.query, self.names.of(topic), partition).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        consumer::subscribe(&self.settings, &self.names, group, topic)
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.check(topic, partition)?;
        let at = consumer::At { topic, partition, from };
        consumer::read(&self.settings, &self.names, at, &self.query).await
    }

    async fn page(&self, topic: Topic, partition: u32, from: i64) -> Result<Page, Error> {
        self.check(topic, partition)?;
        self.pages.page(consumer::At { topic, partition, from }).await
    }

    /// One query to the leader of the partition. The brokers set the timestamps of records (`LogAppendTime`), so they
    /// only decrease where the clock of the next leader is behind.
    async fn offset_at(&self, topic: Topic, partition: u32, time_ms: i64) -> Result<i64, Error> {
        self.check(topic, partition)?;
        // Read first, so that a record appended in between is not skipped.
        let end = self.extent(topic, partition).await?.end;
        let found = Query::offset_at(&self.query, self.names.of(topic), partition, time_ms).await?;
        Ok(found.unwrap_or(end))
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        self.check(topic, partition)?;
        let owned = fence::Owned { topic, partition, partitions: self.partitions(topic) };
        fence::acquire(&self.settings, &self.names, owned, &self.query).await
    }
}

#[async_trait]
impl LogAdmin for Kafka {
    async fn successors(&self, exchange: &Exchange) -> Result<Box<dyn foretell_ports::log::Successors>, Error> {
        Ok(Box::new(exchange::Successors::begin(&self.settings, &self.names, &self.query, exchange).await?))
    }
}
