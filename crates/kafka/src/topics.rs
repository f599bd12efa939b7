//! Creates missing topics, and checks existing ones.
//!
//! `foretell migrate` creates missing topics and never alters existing ones: a partition count that changes in place
//! breaks the order of keys, and the settings of a topic are the responsibility of the cluster's operators. `serve`
//! does not start on topics that would lose records or reorder time.

use super::client::{MESSAGE_BYTES_MAX, Query, Settings};
use super::{Config, TopicNames};
use foretell_events::Topic;
use foretell_events::record::RECORD_BYTES_MAX;
use foretell_events::topic::{full_name, without_epoch};
use foretell_ports::Error;
use foretell_ports::log::Retention;
use futures::future::BoxFuture;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigResource, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before checking again whether all brokers have a new topic.
const PROPAGATION_WAIT_MS: u64 = 100;
const CREATE: &str = "create a topic";
/// Bytes that a topic must allow beyond the largest record, for the frame of its batch.
const FRAME_BYTES: usize = 64 * 1024;

/// The settings of topics that are created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSettings {
    /// Partitions of each topic.
    pub partitions: u32,
    /// Copies of each record; with fewer than three, the failure of a broker can lose acknowledged records.
    pub replication_factor: u16,
    /// Copies that must exist before a record is acknowledged.
    pub min_insync_replicas: u16,
    /// How long records are kept in topics that are not folded into rows.
    pub retention: Retention,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { partitions: 8, replication_factor: 3, min_insync_replicas: 2, retention: Retention::default() }
    }
}

/// Creates missing topics; returns their names.
///
/// Two can run at the same time. Reject when the brokers reject the settings.
pub fn ensure<'a>(
    url: &'a str,
    names: &'a TopicNames,
    config: &'a Config,
    shape: &'a TopicSettings,
) -> BoxFuture<'a, Result<Vec<String>, Error>> {
    Box::pin(async move {
        let settings = Settings::new(url, config)?;
        let query = Arc::new(Query::new(&settings)?);
        let mut created = Vec::new();
        for topic in Topic::ALL {
            let name = names.of(topic);
            if Query::partition_count(&query, name.clone()).await?.is_none() {
                create(&settings, &name, topic, shape).await?;
                await_known(&query, &name, settings.request_timeout()).await?;
                created.push(name);
            }
        }
        Ok(created)
    })
}

/// Problems of the topics' settings, one sentence each; empty if there are none.
pub fn check<'a>(url: &'a str, names: &'a TopicNames, config: &'a Config) -> BoxFuture<'a, Result<Vec<String>, Error>> {
    Box::pin(async move {
        let settings = Settings::new(url, config)?;
        let query = Arc::new(Query::new(&settings)?);
        check_with(&settings, names, &query).await
    })
}

/// The highest existing epoch of each topic.
pub fn newest<'a>(
    url: &'a str,
    prefix: &'a str,
    config: &'a Config,
) -> BoxFuture<'a, Result<BTreeMap<Topic, u8>, Error>> {
    Box::pin(async move {
        let query = Arc::new(Query::new(&Settings::new(url, config)?)?);
        let mut newest = BTreeMap::new();
        for full in Query::names(&query, prefix.to_owned()).await? {
            let (name, epoch) = without_epoch(&full);
            if let Some(topic) = Topic::ALL.into_iter().find(|topic| full_name(prefix, *topic, 0) == name) {
                let highest = newest.entry(topic).or_insert(epoch);
                *highest = epoch.max(*highest);
            }
        }
        Ok(newest)
    })
}

pub(super) async fn check_with(
    settings: &Settings,
    names: &TopicNames,
    query: &Arc<Query>,
) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    let mut counts = BTreeMap::new();
    for topic in Topic::ALL {
        let name = names.of(topic);
        let Some(count) = Query::partition_count(query, name.clone()).await? else {
            problems.push(format!("The topic {name} does not exist; `foretell migrate` creates it."));
            continue;
        };
        counts.insert(topic, count);
        let properties = describe(settings, &name).await?;
        problems.extend(judge(topic, &name, |property| properties.get(property).map(String::as_str)));
    }
    if let (Some(appointments), Some(reminders)) = (counts.get(&Topic::Appointments), counts.get(&Topic::Reminders))
        && appointments != reminders
    {
        problems.push(format!(
            "{} has {appointments} partitions and {} has {reminders}; a client's reminders must be in the \
             partition of the same number.",
            names.of(Topic::Appointments),
            names.of(Topic::Reminders),
        ));
    }
    Ok(problems)
}

/// Compares a topic's properties with those that the fold requires.
fn judge<'a>(topic: Topic, name: &str, property: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |key: &str, wanted: &str, why: &str| match property(key) {
        Some(found) if found == wanted => {}
        found => problems.push(format!("{name} has {key}={}, not {wanted}: {why}", found.unwrap_or("unknown"))),
    };
    expect("message.timestamp.type", "LogAppendTime", "producers' clocks would decide what is too far ahead.");
    if topic.is_compacted() {
        expect("cleanup.policy", "compact", "a policy would be lost when its record expires.");
    } else if topic.is_folded() {
        expect("cleanup.policy", "delete", "compaction removes events that rows are folded from.");
        expect("retention.ms", "-1", "rows could not be folded from the beginning again.");
        expect("retention.bytes", "-1", "rows could not be folded from the beginning again.");
    }
    let allowed = property("max.message.bytes").and_then(|bytes| bytes.parse::<usize>().ok()).unwrap_or(0);
    if allowed < RECORD_BYTES_MAX + FRAME_BYTES {
        let wanted = RECORD_BYTES_MAX + FRAME_BYTES;
        problems.push(format!("{name} has max.message.bytes={allowed}: the largest records need {wanted}."));
    }
    problems
}

fn admin(settings: &Settings) -> Result<(AdminClient<DefaultClientContext>, AdminOptions), Error> {
    let client = settings.admin().create().map_err(|error| Error::fatal("administer topics", error))?;
    let timeout = settings.request_timeout();
    Ok((client, AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))))
}

async fn create(settings: &Settings, name: &str, topic: Topic, shape: &TopicSettings) -> Result<(), Error> {
    let partitions = topic.partitions(shape.partitions);
    let partitions = i32::try_from(partitions).map_err(|_| Error::reject(CREATE, partitions))?;
    let retention_ms = shape.retention.ms(topic).unwrap_or(-1).to_string();
    let min_insync = shape.min_insync_replicas.to_string();
    let max_message = MESSAGE_BYTES_MAX.to_string();
    let new = NewTopic::new(name, partitions, TopicReplication::Fixed(i32::from(shape.replication_factor)))
        .set("cleanup.policy", if topic.is_compacted() { "compact" } else { "delete" })
        .set("retention.ms", &retention_ms)
        .set("retention.bytes", "-1")
        .set("message.timestamp.type", "LogAppendTime")
        .set("min.insync.replicas", &min_insync)
        .set("max.message.bytes", &max_message);
    create_new(settings, &new).await
}

/// Creates a topic, if it does not exist.
pub(super) async fn create_new(settings: &Settings, new: &NewTopic<'_>) -> Result<(), Error> {
    let failed = CREATE;
    let (client, options) = admin(settings)?;
    let answers = client.create_topics([new], &options).await.map_err(|error| Error::retry(failed, error))?;
    let name = new.name;
    match answers.into_iter().next() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((name, code @ (RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::NotController)))) => {
            Err(Error::retry(failed, format!("{name}: {code}")))
        }
        Some(Err((name, code))) => Err(Error::reject(failed, format!("{name}: {code}"))),
        None => Err(Error::retry(failed, format!("{name}: no answer"))),
    }
}

pub(super) async fn await_known(query: &Arc<Query>, name: &str, at_most: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + at_most;
    while Query::partition_count(query, name.to_owned()).await?.is_none() {
        if Instant::now() > deadline {
            return Err(Error::retry(CREATE, format!("{name} was created, but not all brokers have it yet")));
        }
        tokio::time::sleep(Duration::from_millis(PROPAGATION_WAIT_MS)).await;
    }
    Ok(())
}

/// Deletes a topic, if it exists, and waits until no broker has it.
pub(super) async fn delete(settings: &Settings, query: &Arc<Query>, name: &str) -> Result<(), Error> {
    let failed = "delete a topic";
    let (client, options) = admin(settings)?;
    let answers = client.delete_topics(&[name], &options).await.map_err(|error| Error::retry(failed, error))?;
    match answers.into_iter().next() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => {}
        Some(Err((name, code))) => return Err(Error::reject(failed, format!("{name}: {code}"))),
        None => return Err(Error::retry(failed, format!("{name}: no answer"))),
    }
    let deadline = Instant::now() + settings.request_timeout();
    while Query::partition_count(query, name.to_owned()).await?.is_some() {
        if Instant::now() > deadline {
            return Err(Error::retry(failed, format!("{name} was deleted but still exists: run the command again")));
        }
        tokio::time::sleep(Duration::from_millis(PROPAGATION_WAIT_MS)).await;
    }
    Ok(())
}

/// Sets exactly these properties on a topic.
pub(super) async fn alter(settings: &Settings, name: &str, own: &BTreeMap<String, String>) -> Result<(), Error> {
    let failed = "set the properties of a topic";
    let (client, options) = admin(settings)?;
    let all = AlterConfig::new(ResourceSpecifier::Topic(name));
    let all = own.iter().fold(all, |all, (property, value)| all.set(property, value));
    let answers = client.alter_configs([&all], &options).await.map_err(|error| Error::retry(failed, error))?;
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(Error::reject(failed, format!("{name}: {code}"))),
        None => Err(Error::retry(failed, format!("{name}: no answer"))),
    }
}

/// The properties that are set on a topic itself, without the brokers' defaults.
pub(super) async fn own(settings: &Settings, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let entries = entries(settings, name).await?.into_iter();
    let own = entries.filter(|entry| matches!(entry.source, ConfigSource::DynamicTopic));
    Ok(own.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

async fn describe(settings: &Settings, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let entries = entries(settings, name).await?.into_iter();
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

async fn entries(settings: &Settings, name: &str) -> Result<Vec<ConfigEntry>, Error> {
    let failed = "describe a topic";
    let (client, options) = admin(settings)?;
    let answers = client.describe_configs([&ResourceSpecifier::Topic(name)], &options).await;
    let answer = answers.map_err(|error| Error::retry(failed, error))?.into_iter().next();
    let resource: ConfigResource = match answer {
        Some(Ok(resource)) => resource,
        Some(Err(code)) => return Err(Error::retry(failed, format!("{name}: {code}"))),
        None => return Err(Error::retry(failed, format!("{name}: no answer"))),
    };
    Ok(resource.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(topic: Topic, changed: Option<(&str, &str)>) -> Vec<String> {
        let good = [
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "2097152"),
        ];
        let properties: BTreeMap<_, _> = good.into_iter().chain(changed).collect();
        judge(topic, "t", |property| properties.get(property).copied())
    }

    #[test]
    fn each_property_that_the_fold_relies_on_is_missed_by_name() {
        assert_eq!(judged(Topic::Logins, None), Vec::<String>::new());
        for (property, value) in [
            ("message.timestamp.type", "CreateTime"),
            ("cleanup.policy", "compact"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1000"),
            ("max.message.bytes", "1048588"),
        ] {
            let problems = judged(Topic::Appointments, Some((property, value)));
            assert_eq!(problems.len(), 1, "{property}: {problems:?}");
            assert!(problems[0].contains(property) && problems[0].contains(value), "{problems:?}");
        }
        for topic in [Topic::Decisions, Topic::DeadLetters] {
            assert_eq!(judged(topic, Some(("retention.ms", "7776000000"))), Vec::<String>::new());
        }
    }
}
