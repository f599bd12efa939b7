//! What all clients of a cluster share: their settings, their log lines, and the query client.

use super::config::Config;
use super::fault;
use foretell_ports::Error;
use foretell_ports::file::{self, SECRET_BYTES_MAX};
use foretell_ports::log::Extent;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

/// Longest time without a poll before the group revokes the partitions. Both waits of a rebalance callback are well
/// below it.
const POLL_INTERVAL_MS_MAX: u32 = 300_000;
/// Prefetched data per partition inside librdkafka, in KiB.
const PREFETCH_KIB_MAX: u32 = 4 * 1024;
/// Records queued in the producer; further ones wait outside of it.
const PRODUCER_RECORDS_MAX: u32 = 100_000;
/// Data queued in the producer, in KiB.
const PRODUCER_KIB_MAX: u32 = 128 * 1024;
/// Largest message that clients and topics accept: a record of [`foretell_events::record::RECORD_BYTES_MAX`] and its
/// frame.
pub(super) const MESSAGE_BYTES_MAX: usize = 2 * foretell_events::record::RECORD_BYTES_MAX;

/// The settings that all clients of a log are created from.
#[derive(Clone)]
pub(super) struct Settings {
    common: ClientConfig,
    config: Config,
}

impl Settings {
    /// Fatal when the URL is invalid, or when a file with a secret cannot be read.
    pub(super) fn new(url: &str, config: &Config) -> Result<Self, Error> {
        let unreadable = |detail: String| Error::fatal("open the log", detail);
        let brokers = url
            .strip_prefix("kafka://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|brokers| !brokers.is_empty() && !brokers.contains('/'))
            .ok_or_else(|| unreadable(format!("{url} is not of the form kafka://host:port,host:port")))?;
        if config.start_ms.max(config.drain_ms) >= POLL_INTERVAL_MS_MAX {
            let detail = format!("kafka.start_ms and kafka.drain_ms must be below {POLL_INTERVAL_MS_MAX}");
            return Err(unreadable(detail));
        }
        let mut common = ClientConfig::new();
        common
            .set("bootstrap.servers", brokers)
            .set("client.id", "foretell")
            .set("security.protocol", config.security_protocol.name())
            .set("socket.keepalive.enable", "true")
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
        let mut optional = |property: &str, value: Option<String>| {
            if let Some(value) = value {
                common.set(property, value);
            }
        };
        let path = |file: &Option<std::path::PathBuf>| file.as_ref().map(|file| file.display().to_string());
        optional("sasl.mechanism", config.sasl_mechanism.clone());
        optional("sasl.username", config.username.clone());
        optional("sasl.password", password(config)?);
        optional("ssl.ca.location", path(&config.ca_file));
        optional("ssl.certificate.location", path(&config.certificate_file));
        optional("ssl.key.location", path(&config.key_file));
        Ok(Self { common, config: config.clone() })
    }

    /// The configuration that the settings were made from.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The timeout of one request.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.request_timeout_ms))
    }

    /// Settings for administration.
    pub(super) fn admin(&self) -> ClientConfig {
        self.with(&[], &[])
    }

    /// Settings of a producer.
    ///
    /// lz4: it compresses 200,000 JSON events of 360 bytes to 27 %, and is faster to write and to read than no
    /// compression. zstd compresses them to 15 %, but writes a third fewer records per second. If disks cost more than
    /// processors, set `compression.type` in `properties`.
    pub(super) fn producer(&self) -> ClientConfig {
        let speed = [
            ("compression.type", "lz4".to_owned()),
            ("linger.ms", self.config.linger_ms.to_string()),
            ("queue.buffering.max.messages", PRODUCER_RECORDS_MAX.to_string()),
            ("queue.buffering.max.kbytes", PRODUCER_KIB_MAX.to_string()),
        ];
        let promises = [
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("partitioner", "murmur2_random".to_owned()),
            ("delivery.timeout.ms", self.config.request_timeout_ms.to_string()),
        ];
        self.with(&speed, &promises)
    }

    /// Settings of a transactional producer.
    pub(super) fn transactional(&self, id: &str) -> ClientConfig {
        let mut settings = self.producer();
        // An open transaction hides all records after it until it times out or is fenced.
        settings.set("transactional.id", id).set("transaction.timeout.ms", "60000");
        settings
    }

    /// Settings of a consumer, with or without a group.
    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let speed = [
            // The default of 500 ms would delay every end of partition by that much.
            ("fetch.wait.max.ms", "100".to_owned()),
            ("fetch.error.backoff.ms", "100".to_owned()),
            // With the default of one second, a partition whose queue was full once would stop for that long.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("queued.min.messages", "100000".to_owned()),
            ("queued.max.messages.kbytes", PREFETCH_KIB_MAX.to_string()),
            ("session.timeout.ms", self.config.session_timeout_ms.to_string()),
            ("heartbeat.interval.ms", (self.config.session_timeout_ms / 5).max(1).to_string()),
        ];
        let promises = [
            ("group.id", group.to_owned()),
            ("group.protocol", "classic".to_owned()),
            ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
            ("max.poll.interval.ms", POLL_INTERVAL_MS_MAX.to_string()),
            ("auto.offset.reset", "error".to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("enable.partition.eof", "true".to_owned()),
            ("isolation.level", "read_committed".to_owned()),
        ];
        self.with(&speed, &promises)
    }

    fn query(&self) -> ClientConfig {
        self.with(&[], &[("isolation.level", "read_committed".to_owned())])
    }

    fn with(&self, speed: &[(&str, String)], promises: &[(&str, String)]) -> ClientConfig {
        let mut settings = self.common.clone();
        let further = self.config.properties.iter().map(|(name, value)| (name.as_str(), value));
        let all = speed.iter().map(|(name, value)| (*name, value)).chain(further);
        for (name, value) in all.chain(promises.iter().map(|(name, value)| (*name, value))) {
            settings.set(name, value);
        }
        settings
    }
}

fn password(config: &Config) -> Result<Option<String>, Error> {
    let Some(path) = &config.password_file else { return Ok(config.password.clone()) };
    let read = file::text(path, SECRET_BYTES_MAX)
        .map_err(|error| Error::fatal("open the log", format!("{}: {error}", path.display())))?;
    Ok(Some(read.trim().to_owned()))
}

/// Forwards librdkafka's own log lines. A broken connection is not an error here: librdkafka reconnects, and every
/// request has a timeout.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Events;

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info => tracing::debug!(facility, message, "kafka client"),
            RDKafkaLogLevel::Notice => tracing::info!(facility, message, "kafka client"),
            _ => tracing::warn!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            // librdkafka logs the same as a warning.
            _ if fault::is_outage(&error) => tracing::debug!(%error, reason, "kafka client"),
            _ => tracing::warn!(%error, reason, "kafka client"),
        }
    }
}

impl ConsumerContext for Events {}

/// A client that only queries: partition counts, extents and metadata.
pub(super) struct Query {
    consumer: BaseConsumer<Events>,
    brokers: String,
    timeout: Duration,
}

impl Query {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let consumer =
            settings.query().create_with_context(Events).map_err(|error| Error::fatal("open the log", error))?;
        let brokers = settings.common.get("bootstrap.servers").unwrap_or_default().to_owned();
        Ok(Self { consumer, brokers, timeout: settings.request_timeout() })
    }

    /// The partition count of a topic; none if it does not exist.
    pub(super) async fn partition_count(query: &Arc<Self>, name: String) -> Result<Option<u32>, Error> {
        Self::run(query, "read the metadata", move |consumer, timeout| {
            let metadata = consumer.fetch_metadata(Some(&name), timeout)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            Ok(u32::try_from(count).ok().filter(|count| *count > 0))
        })
        .await
    }

    /// The names of all topics with a prefix.
    pub(super) async fn names(query: &Arc<Self>, prefix: String) -> Result<Vec<String>, Error> {
        Self::run(query, "read the metadata", move |consumer, timeout| {
            let metadata = consumer.fetch_metadata(None, timeout)?;
            let names = metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(&prefix));
            Ok(names.map(str::to_owned).collect())
        })
        .await
    }

    /// Copies of each record of a topic.
    pub(super) async fn replication(query: &Arc<Self>, name: String) -> Result<usize, Error> {
        Self::run(query, "read the metadata", move |consumer, timeout| {
            let metadata = consumer.fetch_metadata(Some(&name), timeout)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            Ok(partitions.map(|partition| partition.replicas().len()).max().unwrap_or(1))
        })
        .await
    }

    /// The number of members of a consumer group.
    pub(super) async fn members(query: &Arc<Self>, group: String) -> Result<usize, Error> {
        Self::run(query, "describe a group", move |consumer, timeout| {
            let groups = consumer.fetch_group_list(Some(&group), timeout)?;
            Ok(groups.groups().iter().map(|group| group.members().len()).sum())
        })
        .await
    }

    /// See [`super::Kafka::extent`].
    pub(super) async fn extent(query: &Arc<Self>, name: String, partition: u32) -> Result<Extent, Error> {
        let partition = fault::partition(partition)?;
        Self::run(query, "read the extent", move |consumer, timeout| {
            let (start, end) = consumer.fetch_watermarks(&name, partition, timeout)?;
            Ok(Extent { start, end })
        })
        .await
    }

    /// The first offset whose record is not older than `time_ms`; none if all records are older.
    ///
    /// The brokers answer from their index of times. The offset may be that of a transaction marker.
    pub(super) async fn offset_at(
        query: &Arc<Self>,
        name: String,
        partition: u32,
        time_ms: i64,
    ) -> Result<Option<i64>, Error> {
        let partition = fault::partition(partition)?;
        Self::run(query, "find an offset by time", move |consumer, timeout| {
            let mut times = TopicPartitionList::new();
            // Negative numbers have other meanings, such as the latest offset.
            times.add_partition_offset(&name, partition, Offset::Offset(time_ms.max(0)))?;
            let found = consumer.offsets_for_times(times, timeout)?;
            let found = found.find_partition(&name, partition).map(|found| (found.error(), found.offset()));
            match found {
                Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
                Some((Err(error), _)) => Err(error),
                Some((Ok(()), _)) | None => Ok(None),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        query: &Arc<Self>,
        operation: &'static str,
        question: impl FnOnce(&BaseConsumer<Events>, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let brokers = query.brokers.clone();
        let query = Arc::clone(query);
        let queried = tokio::task::spawn_blocking(move || {
            // Serves the client's log callbacks; otherwise they accumulate.
            drop(query.consumer.poll(Duration::ZERO));
            question(&query.consumer, query.timeout)
        });
        match queried.await {
            Ok(answer) => answer.map_err(|error| Error::retry(operation, format!("{brokers}: {error}"))),
            Err(ended) => Err(Error::retry(operation, ended)),
        }
    }
}
