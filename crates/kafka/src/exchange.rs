//! Topics of the next epoch on a cluster: `foretell.logins.e1` next to `foretell.logins`.
//!
//! A new topic has the properties of the current one. While it is being filled it keeps the timestamps of the records,
//! because an event without a time has the time of its record; afterwards the brokers set timestamps, as in all topics
//! of Foretell. The epoch that is read is not stored here, but in the store.

use super::client::{Query, Settings};
use super::producer::{Producer, Target};
use super::{TopicNames, topics};
use async_trait::async_trait;
use foretell_events::Topic;
use foretell_events::record::{NewRecord, Record};
use foretell_ports::Error;
use foretell_ports::log::backend::partition_of;
use foretell_ports::log::{Exchange, Remains};
use rdkafka::admin::{NewTopic, TopicReplication};
use std::collections::BTreeMap;
use std::sync::Arc;

const OPERATION: &str = "replace a topic";
const STAMPED: &str = "message.timestamp.type";

/// See [`foretell_ports::log::Successors`].
pub(super) struct Successors {
    settings: Settings,
    query: Arc<Query>,
    producer: Producer,
    /// By topic: its full name, and the properties to set when it is complete.
    topics: BTreeMap<Topic, (String, BTreeMap<String, String>)>,
    partitions: u32,
}

impl Successors {
    pub(super) async fn begin(
        settings: &Settings,
        names: &TopicNames,
        query: &Arc<Query>,
        exchange: &Exchange,
    ) -> Result<Self, Error> {
        check_groups(settings, names, query, &exchange.groups).await?;
        let mut topics = BTreeMap::new();
        for &topic in &exchange.topics {
            let next = names.clone().at(topic, names.epoch(topic) + 1).of(topic);
            clear(settings, query, &next, exchange.remains).await?;
            topics.insert(topic, (next, topics::own(settings, &names.of(topic)).await?));
        }
        for (topic, (next, own)) in &topics {
            let replication = Query::replication(query, names.of(*topic)).await?;
            create(settings, next, own, exchange.partitions, replication).await?;
            topics::await_known(query, next, settings.request_timeout()).await?;
        }
        let (producer, partitions) = (Producer::new(settings)?, exchange.partitions);
        Ok(Self { settings: settings.clone(), query: Arc::clone(query), producer, topics, partitions })
    }
}

/// Reject while a group has members.
async fn check_groups(
    settings: &Settings,
    names: &TopicNames,
    query: &Arc<Query>,
    groups: &[String],
) -> Result<(), Error> {
    for group in groups {
        let group = names.of_group(group);
        let members = Query::members(query, group.clone()).await?;
        if members > 0 {
            let detail = format!(
                "the group {group} has {members} members: stop producers, and every `foretell serve`. A killed process \
                 remains a member for another {} ms",
                settings.config().session_timeout_ms
            );
            return Err(Error::reject(OPERATION, detail));
        }
    }
    Ok(())
}

/// Ensures that a topic of the next epoch does not exist.
async fn clear(settings: &Settings, query: &Arc<Query>, name: &str, remains: Remains) -> Result<(), Error> {
    let Some(partitions) = Query::partition_count(query, name.to_owned()).await? else { return Ok(()) };
    for partition in 0..partitions {
        let extent = Query::extent(query, name.to_owned(), partition).await?;
        if extent.end > 0 && remains == Remains::Refuse {
            let detail = format!(
                "{name} exists and has records, but the store does not record how it was created: is the store an \
                 older one? If these records are not needed, delete {name}"
            );
            return Err(Error::reject(OPERATION, detail));
        }
    }
    topics::delete(settings, query, name).await
}

async fn create(
    settings: &Settings,
    name: &str,
    own: &BTreeMap<String, String>,
    partitions: u32,
    replication: usize,
) -> Result<(), Error> {
    let partitions = i32::try_from(partitions).map_err(|_| Error::reject(OPERATION, partitions))?;
    let replication = i32::try_from(replication).map_err(|_| Error::reject(OPERATION, replication))?;
    let new = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    let own = own.iter().filter(|(property, _)| *property != STAMPED);
    let new = own.fold(new, |new, (property, value)| new.set(property, value));
    topics::create_new(settings, &new.set(STAMPED, "CreateTime")).await
}

#[async_trait]
impl foretell_ports::log::Successors for Successors {
    async fn add(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let mut sent = Vec::with_capacity(records.len());
        for Record { position, timestamp_ms, key, value, headers } in records {
            let record = NewRecord { topic: position.topic, key, value, headers };
            let unknown =
                || Error::reject(OPERATION, format!("{} is not part of this repartitioning", record.topic.name()));
            let (name, _) = self.topics.get(&record.topic).ok_or_else(unknown)?;
            let partition = partition_of(&record, self.partitions);
            let target = Target { name: name.clone(), partition, timestamp_ms: Some(timestamp_ms) };
            sent.push((record, target));
        }
        let (records, places): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        self.producer.send(records.iter().zip(places)).await.map(drop)
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        for (name, own) in self.topics.values() {
            topics::alter(&self.settings, name, own).await?;
        }
        Ok(())
    }

    async fn discard(self: Box<Self>) -> Result<(), Error> {
        for (name, _) in self.topics.values() {
            topics::delete(&self.settings, &self.query, name).await?;
        }
        Ok(())
    }
}
