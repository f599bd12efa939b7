//! What subscribers receive: the reminders topic, read committed, by a consumer that does not use Foretell.

use crate::deployment::{Deployment, PARTITIONS};
use crate::process::PATIENCE;
use foretell_events::Topic;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The content of the topic.
#[derive(Debug, Default)]
pub struct Reminded {
    /// Ids of all events, in the order in which they were read.
    pub ids: Vec<String>,
    /// Appointment and step by reminder, of all announcements.
    due: BTreeMap<String, (String, String)>,
    /// Withdrawn reminders.
    withdrawn: BTreeSet<String>,
}

impl Reminded {
    /// Reads all partitions from their beginnings to their ends.
    pub async fn read(deployment: &Deployment) -> Self {
        let brokers = deployment.brokers();
        let topic = deployment.topic(Topic::Reminders);
        let read = tokio::task::spawn_blocking(move || Self::read_blocking(&brokers, &topic));
        read.await.expect("no panic")
    }

    fn read_blocking(brokers: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", format!("{topic}.subscriber"))
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS as i32 {
            all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("assigned");
        let mut read = Self::default();
        let mut ended = BTreeSet::new();
        while ended.len() < PARTITIONS as usize {
            match consumer.poll(PATIENCE).expect("a record, or the end of a partition") {
                Ok(message) => read.take(&message),
                Err(KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
                Err(error) => println!("a subscriber continues after {error}"),
            }
        }
        read
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let headers = message.headers().expect("headers");
        let header = |name| {
            let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
            std::str::from_utf8(value.expect("an attribute")).expect("text").to_owned()
        };
        let data: Value = serde_json::from_slice(message.payload().expect("a payload")).expect("JSON");
        let field = |name: &str| data[name].as_str().expect("text").to_owned();
        self.ids.push(header("ce_id"));
        match header("ce_type").as_str() {
            "foretell.reminder.due" => {
                assert_eq!(header("ce_id"), field("reminder_id"));
                self.due.insert(field("reminder_id"), (field("appointment_id"), field("step")));
            }
            "foretell.reminder.withdrawn" => drop(self.withdrawn.insert(field("reminder_id"))),
            other => panic!("a {other} among the reminders"),
        }
    }

    /// Appointment and step of announcements that were not withdrawn, in order.
    pub fn active(&self) -> Vec<&(String, String)> {
        let mut active: Vec<_> =
            self.due.iter().filter(|(id, _)| !self.withdrawn.contains(*id)).map(|(_, what)| what).collect();
        active.sort();
        active
    }

    /// Checks that each id occurs once, that nothing was withdrawn without an announcement, and that exactly these
    /// reminders are active.
    pub fn check(&self, due: &BTreeSet<(String, String)>) {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for id in &self.ids {
            *counts.entry(id).or_default() += 1;
        }
        let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(repeated.is_empty(), "these ids occur more than once: {repeated:?}");
        let unannounced: Vec<_> = self.withdrawn.iter().filter(|id| !self.due.contains_key(*id)).collect();
        assert!(unannounced.is_empty(), "withdrawn and never announced: {unannounced:?}");
        assert_eq!(self.active(), due.iter().collect::<Vec<_>>());
    }
}
