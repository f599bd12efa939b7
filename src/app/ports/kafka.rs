//! The log on Kafka. The epochs of its topics are read from the store.

use crate::config::Config;
use foretell_domain::address::Family;
use foretell_events::topic::full_name;
use foretell_kafka::topics::{self, TopicSettings};
use foretell_kafka::{Kafka, TopicNames};
use foretell_ports::Error;
use foretell_ports::log::LogAdmin;
use foretell_ports::store::Store;
use std::sync::Arc;

/// Opens the log with the topics that belong to the store. Fatal if one of them is not valid.
pub(super) async fn open(config: &Config, store: &dyn Store) -> Result<Arc<dyn LogAdmin>, Error> {
    let names = names(config, store).await?;
    let kafka = Kafka::open(&config.log, names, &config.kafka).await?;
    let problems = kafka.check_topics().await?;
    if problems.is_empty() { Ok(Arc::new(kafka)) } else { Err(Error::fatal("use the topics", problems.join(" "))) }
}

/// Creates missing topics; returns what was done, and notices for operators.
pub(super) async fn migrate(config: &Config, store: &dyn Store) -> Result<Vec<String>, Error> {
    let settings = &config.topics;
    let shape = TopicSettings {
        partitions: settings.partitions,
        replication_factor: settings.replication_factor,
        min_insync_replicas: settings.min_insync_replicas,
        retention: settings.retention(),
    };
    let names = names(config, store).await?;
    let created = topics::ensure(&config.log, &names, &config.kafka, &shape).await?;
    let mut done: Vec<_> = created.into_iter().map(|name| format!("created topic {name}")).collect();
    done.extend(topics::check(&config.log, &names, &config.kafka).await?);
    Ok(done)
}

/// The names of the topics that belong to this store. Fatal if neither the store nor the settings determine them.
async fn names(config: &Config, store: &dyn Store) -> Result<TopicNames, Error> {
    let mut names = TopicNames::new(&config.topics.prefix);
    for family in Family::ALL {
        let (topic, lead) = (family.topic(), family.lead());
        let epoch = match store.pointer(lead).await? {
            Some(pointer) => pointer.topic_epoch(),
            None => beginning(config, family).await?,
        };
        names = names.at(topic, epoch);
    }
    Ok(names)
}

/// The epoch of a topic for an empty store.
async fn beginning(config: &Config, family: Family) -> Result<u8, Error> {
    let (topic, set) = (family.topic(), config.topics.epochs.of(family));
    let newest = topics::newest(&config.log, &config.topics.prefix, &config.kafka).await?;
    let newest = newest.get(&topic).copied().unwrap_or(0);
    if set > 0 || newest == 0 {
        return Ok(set);
    }
    let detail = format!(
        "the store has no views, and the topic of {} has been repartitioned: set topics.epochs.{} = {newest} if {} is \
         the one in use, or delete it if it is left over from an interrupted attempt",
        family.name(),
        family.lead().name(),
        full_name(&config.topics.prefix, topic, newest)
    );
    Err(Error::fatal("use the topics", detail))
}
