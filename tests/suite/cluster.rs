//! Kafka and Cassandra: the suites of both ports, and tests that only a cluster can fail.
//!
//! Requires running services: `scripts/services up -k 1 -c 1 -- cargo test --test suite cluster`.

use bytes::Bytes;
use foretell_cassandra::{Cassandra, schema};
use foretell_domain::address::{Family, Generation};
use foretell_events::Topic;
use foretell_events::key;
use foretell_events::record::{NewRecord, Record};
use foretell_kafka::topics::{self, TopicSettings};
use foretell_kafka::{Kafka, TopicNames};
use foretell_ports::Kind;
use foretell_ports::log::{Assigned, Log, Membership, Next, Reader};
use foretell_ports::store::{Checkpoint, Flush, Store};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Longer than anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run this under `scripts/services up -k 1 -c 1 -- cargo test --test suite cluster`"
        )
    })
}

fn log_url() -> String {
    format!("kafka://{}", service("KAFKA_BROKERS"))
}

/// Names that no other test uses.
fn unique() -> String {
    format!("t{}", Uuid::new_v4().simple())
}

fn prefix() -> String {
    format!("{}.", unique())
}

fn store_url() -> String {
    format!("cassandra://{}/{}", service("CASSANDRA_NODES"), unique())
}

fn kafka_config() -> foretell_kafka::Config {
    foretell_kafka::Config { session_timeout_ms: 6_000, ..foretell_kafka::Config::default() }
}

fn cassandra_config() -> foretell_cassandra::Config {
    foretell_cassandra::Config { replication_factor: 1, ..foretell_cassandra::Config::default() }
}

fn shape(partitions: u32) -> TopicSettings {
    TopicSettings { partitions, replication_factor: 1, min_insync_replicas: 1, ..TopicSettings::default() }
}

/// A log on topics of its own.
async fn open_log(prefix: &str, partitions: u32) -> Kafka {
    let names = TopicNames::new(prefix);
    topics::ensure(&log_url(), &names, &kafka_config(), &shape(partitions)).await.expect("topics");
    Kafka::open(&log_url(), names, &kafka_config()).await.expect("a log")
}

/// A store in a keyspace of its own.
async fn open_store() -> Cassandra {
    let url = store_url();
    schema::migrate(&url, &cassandra_config()).await.expect("a schema");
    Cassandra::open(&url, &cassandra_config()).await.expect("a store")
}

fn record(topic: Topic, key: &str, value: &str) -> NewRecord {
    NewRecord {
        topic,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: vec![("ce_id".to_owned(), Bytes::from_static(b"1"))],
    }
}

/// A key that belongs to a partition.
fn key_of(partition: u32, partitions: u32) -> String {
    let mut keys = (0..).map(|n| format!("default:{n}"));
    keys.find(|candidate| key::partition(candidate.as_bytes(), partitions) == partition).expect("numbers are endless")
}

fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
}

async fn next(reader: &mut dyn Reader) -> Next {
    timeout(PATIENCE, reader.next()).await.expect("something within the time limit").expect("no error")
}

async fn assigned(membership: &mut dyn Membership) -> Assigned {
    timeout(PATIENCE, membership.next()).await.expect("an assignment within the time limit").expect("no error")
}

/// Reads until everything below `end` was returned.
async fn read_until(reader: &mut dyn Reader, end: i64) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        match next(reader).await {
            Next::Records(records) => all.extend(records),
            Next::End(at) if at >= end => return all,
            Next::End(_) => {}
            Next::Revoked(_) => panic!("revoked"),
        }
    }
}

/// The records of a partition.
async fn contents(log: &Kafka, topic: Topic, partition: u32) -> Vec<Record> {
    let extent = log.extent(topic, partition).await.expect("an extent");
    let mut reader = log.read(topic, partition, extent.start).await.expect("a reader");
    read_until(reader.as_mut(), extent.end).await
}

// --- the suites of both ports

mod log_on_kafka {
    use super::{Arc, Log, open_log, prefix};
    use crate::Fixture;

    async fn make() -> Fixture<dyn Log> {
        Fixture { port: Arc::new(open_log(&prefix(), 4).await), keep: Box::new(()) }
    }

    crate::log_promises!(make);
}

mod admin_on_kafka {
    use super::{Arc, Kafka, TopicNames, kafka_config, log_url, open_log, prefix};
    use crate::admin_suite::{MOVED, Reopened};
    use foretell_ports::log::LogAdmin;

    async fn make() -> Reopened {
        let prefix = prefix();
        let log = Arc::new(open_log(&prefix, 2).await);
        let open = move |epoch| -> futures::future::BoxFuture<'static, Arc<dyn LogAdmin>> {
            let names = MOVED.into_iter().fold(TopicNames::new(&prefix), |names, topic| names.at(topic, epoch));
            Box::pin(async move {
                Arc::new(Kafka::open(&log_url(), names, &kafka_config()).await.expect("a log")) as Arc<dyn LogAdmin>
            })
        };
        Reopened { log, open: Box::new(open), keep: Box::new(()) }
    }

    crate::log_admin_promises!(make);
}

mod store_on_cassandra {
    use super::{Arc, Store, open_store};
    use crate::Fixture;

    async fn make() -> Fixture<dyn Store> {
        Fixture { port: Arc::new(open_store().await), keep: Box::new(()) }
    }

    crate::store_promises!(make);
}

// --- topics

#[tokio::test]
async fn topics_are_created_once_and_found_good() {
    let names = TopicNames::new(&prefix());
    let (url, config) = (log_url(), kafka_config());
    let missing = topics::check(&url, &names, &config).await.expect("an answer");
    assert_eq!(missing.len(), Topic::ALL.len(), "{missing:?}");

    let error = Kafka::open(&url, names.clone(), &config).await.err().expect("there are no topics");
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.detail.contains("foretell migrate"), "{error}");

    // Two at once: afterwards each topic exists, whichever created it.
    let shape = shape(3);
    let (one, other) =
        tokio::join!(topics::ensure(&url, &names, &config, &shape), topics::ensure(&url, &names, &config, &shape));
    one.expect("the one succeeds");
    other.expect("the other succeeds");
    assert_eq!(topics::ensure(&url, &names, &config, &shape).await.expect("nothing to do"), Vec::<String>::new());
    assert_eq!(topics::check(&url, &names, &config).await.expect("an answer"), Vec::<String>::new());

    let log = Kafka::open(&url, names.clone(), &config).await.expect("a log");
    assert!(Topic::ALL.iter().all(|topic| log.partitions(*topic) == topic.partitions(3)));
    let beyond = log.extent(Topic::Logins, 3).await.expect_err("partitions are 0 to 2");
    assert_eq!(beyond.kind, Kind::Reject);
}

#[tokio::test]
async fn topics_of_another_shape_are_named_and_left_alone() {
    let prefix = prefix();
    let names = TopicNames::new(&prefix);
    let (url, config) = (log_url(), kafka_config());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", service("KAFKA_BROKERS")).create().expect("a client");
    let (logins, reminders) = (format!("{prefix}logins"), format!("{prefix}reminders"));
    let foreign = [
        NewTopic::new(&logins, 2, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "CreateTime")
            .set("retention.ms", "86400000"),
        NewTopic::new(&reminders, 5, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
            .set("max.message.bytes", "2097152"),
    ];
    let created = admin.create_topics(&foreign, &AdminOptions::new()).await.expect("an answer");
    assert!(created.iter().all(Result::is_ok), "{created:?}");

    topics::ensure(&url, &names, &config, &shape(2)).await.expect("the rest is created");
    let problems = topics::check(&url, &names, &config).await.expect("an answer").join("\n");
    for part in ["message.timestamp.type=CreateTime", "retention.ms=86400000", "max.message.bytes", "5"] {
        assert!(problems.contains(part), "{part} is not in:\n{problems}");
    }
    assert_eq!(problems.lines().count(), 4, "{problems}");
}

// --- transactions

#[tokio::test]
async fn a_fenced_owner_is_refused_and_leaves_nothing_behind() {
    let log = open_log(&prefix(), 1).await;
    let reminder = |value| vec![record(Topic::Reminders, "default:c", value)];
    let mut first = log.fence(Topic::Reminders, 0).await.expect("the first owner");
    let positions =
        first.append(vec![record(Topic::Reminders, "default:a", "1"), record(Topic::Reminders, "default:b", "2")]);
    assert_eq!(positions.await.expect("appended").iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 1]);

    let mut second = log.fence(Topic::Reminders, 0).await.expect("the second owner");
    for _ in 0..2 {
        let refused = first.append(reminder("late")).await.expect_err("the first owner is fenced");
        assert_eq!(refused.kind, Kind::Fatal, "{refused}");
    }
    let appended = second.append(reminder("3")).await.expect("the second owner appends");
    let extent = log.extent(Topic::Reminders, 0).await.expect("an extent");
    assert!(appended[0].offset < extent.end, "what is acknowledged can be read");
    let stray = second.append(vec![record(Topic::Logins, "default:c", "x")]).await.expect_err("another topic");
    assert_eq!(stray.kind, Kind::Reject);
    assert_eq!(values(&contents(&log, Topic::Reminders, 0).await), ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fenced_append_waits_for_a_poll_that_sleeps() {
    let log = open_log(&prefix(), 1).await;
    let mut owner = log.fence(Topic::Reminders, 0).await.expect("the owner");
    let mut quickest = Duration::MAX;
    for n in 0..20 {
        let began = Instant::now();
        owner.append(vec![record(Topic::Reminders, "default:c", &n.to_string())]).await.expect("appended");
        quickest = quickest.min(began.elapsed());
    }
    // A poll of the bindings sleeps for 100 ms, and a commit that flushes waits for one every time.
    assert!(quickest < Duration::from_millis(90), "{quickest:?}");
}

#[tokio::test]
async fn an_open_transaction_hides_what_follows_until_it_ends() {
    let prefix = prefix();
    let log = open_log(&prefix, 1).await;
    let plain = |value| vec![record(Topic::Logins, "default:u", value)];
    log.append(plain("before")).await.expect("appended");

    let foreign: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", service("KAFKA_BROKERS"))
        .set("transactional.id", &prefix)
        .create()
        .expect("a producer");
    let transaction = foreign.clone();
    let topic = format!("{prefix}logins");
    let sent = tokio::task::spawn_blocking(move || {
        transaction.init_transactions(PATIENCE)?;
        transaction.begin_transaction()
    });
    sent.await.expect("no panic").expect("a transaction");
    let undecided = FutureRecord::to(&topic).partition(0).key("default:u").payload("undecided");
    foreign.send(undecided, PATIENCE).await.expect("sent");
    log.append(plain("behind")).await.expect("appended");

    let extent = log.extent(Topic::Logins, 0).await.expect("an extent");
    assert_eq!((extent.start, extent.end), (0, 1), "the end is the last stable offset");
    let mut reader = log.read(Topic::Logins, 0, 0).await.expect("a reader");
    assert_eq!(values(&read_until(reader.as_mut(), extent.end).await), ["before"]);

    let aborted = tokio::task::spawn_blocking(move || foreign.abort_transaction(PATIENCE));
    aborted.await.expect("no panic").expect("aborted");
    // Three records and the marker, which the brokers write a moment after they have acknowledged the commit.
    assert_eq!(values(&read_until(reader.as_mut(), 4).await), ["behind"]);
    let extent = log.extent(Topic::Logins, 0).await.expect("an extent");
    assert_eq!(extent.end, 4);

    // A reader that starts after the last record returns the end, including the marker.
    let mut late = log.read(Topic::Logins, 0, 3).await.expect("a reader");
    assert_eq!(read_until(late.as_mut(), extent.end).await, []);
}

// --- groups

#[tokio::test]
async fn a_partition_without_a_reader_does_not_stop_the_others() {
    let log = open_log(&prefix(), 2).await;
    let body = "x".repeat(1024);
    let count = 12_000;
    for partition in 0..2 {
        let key = key_of(partition, 2);
        let records: Vec<_> = (0..count).map(|_| record(Topic::Logins, &key, &body)).collect();
        for chunk in records.chunks(2_000) {
            log.append(chunk.to_vec()).await.expect("appended");
        }
    }
    let mut membership = log.subscribe(&unique(), Topic::Logins).await.expect("a membership");
    let mut readers = BTreeMap::new();
    for _ in 0..2 {
        let Assigned { partition, start, reader, committed } = assigned(membership.as_mut()).await;
        assert_eq!(committed, None);
        start.send(0).expect("the group waits");
        readers.insert(partition, reader);
    }
    let mut slow = readers.remove(&0).expect("partition 0");
    let mut fast = readers.remove(&1).expect("partition 1");
    // Partition 0 has more than its lane holds, and is not read.
    assert_eq!(read_until(fast.as_mut(), count).await.len(), count as usize);
    log.append(vec![record(Topic::Logins, &key_of(1, 2), "more")]).await.expect("appended");
    assert_eq!(values(&read_until(fast.as_mut(), count + 1).await), ["more"]);
    // Once it is read it returns everything, in order.
    let all = read_until(slow.as_mut(), count).await;
    assert!(all.iter().map(|record| record.position.offset).eq(0..count));
}

/// An owner like the pipelines: it starts at the store's checkpoint and flushes when it is revoked.
async fn own(store: Arc<Cassandra>, generation: Generation, taken: Assigned) -> (u32, Vec<Record>) {
    let Assigned { partition, start, mut reader, .. } = taken;
    let stored = store.checkpoint(generation, partition).await.expect("a checkpoint or none");
    let mut checkpoint = stored.unwrap_or(Checkpoint { next: 0, last: None });
    start.send(checkpoint.next).expect("the group waits");
    let mut mine = Vec::new();
    loop {
        match reader.next().await.expect("no error") {
            Next::Records(records) => {
                checkpoint.next = records.last().expect("never empty").position.offset + 1;
                mine.extend(records);
            }
            Next::End(_) => {}
            Next::Revoked(acknowledge) => {
                let flush = Flush { generation, partition, rows: Vec::new(), checkpoint };
                store.apply(&flush).await.expect("flushed");
                reader.commit(checkpoint.next).await.expect("advice");
                drop(acknowledge);
                return (partition, mine);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_handed_over_at_the_checkpoint_that_its_owner_flushed() {
    let partitions = 4;
    let log = Arc::new(open_log(&prefix(), partitions).await);
    let store = Arc::new(open_store().await);
    let generation = Generation { family: Family::Logins, number: 1, epoch: 0 };
    let group = unique();
    let keys: Vec<_> = (0..partitions).map(|partition| key_of(partition, partitions)).collect();
    let append = async |values: std::ops::Range<u32>| {
        let records = values.flat_map(|n| keys.iter().map(move |key| record(Topic::Logins, key, &n.to_string())));
        log.append(records.collect()).await.expect("appended");
    };
    append(0..500).await;

    let mut first = log.subscribe(&group, Topic::Logins).await.expect("the first member");
    let mut owners = tokio::task::JoinSet::new();
    for _ in 0..partitions {
        owners.spawn(own(Arc::clone(&store), generation, assigned(first.as_mut()).await));
    }
    // The second member gets half of them, each after its owner has flushed.
    let mut second = log.subscribe(&group, Topic::Logins).await.expect("the second member");
    let mut seen: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for _ in 0..partitions / 2 {
        let (partition, mine) =
            timeout(PATIENCE, owners.join_next()).await.expect("revoked").expect("one").expect("ok");
        let stored = store.checkpoint(generation, partition).await.expect("readable").expect("flushed");
        assert_eq!(stored.next, mine.last().map_or(0, |record| record.position.offset + 1));
        seen.entry(partition).or_default().extend(mine);
    }
    let mut moved = Vec::new();
    for _ in 0..partitions / 2 {
        let taken = assigned(second.as_mut()).await;
        let stored = store.checkpoint(generation, taken.partition).await.expect("readable").expect("flushed");
        assert_eq!(taken.committed, Some(stored.next), "the group has it too");
        moved.push(taken.partition);
        owners.spawn(own(Arc::clone(&store), generation, taken));
    }
    assert!(moved.iter().all(|partition| seen.contains_key(partition)), "{moved:?} of {seen:?}");
    append(500..600).await;

    // Readers are at the end when the log is; then both members leave, and every owner flushes.
    for partition in 0..partitions {
        assert_eq!(contents(&log, Topic::Logins, partition).await.len(), 600);
    }
    drop((first, second));
    while let Some(done) = timeout(PATIENCE, owners.join_next()).await.expect("revoked") {
        let (partition, mine) = done.expect("no panic");
        seen.entry(partition).or_default().extend(mine);
    }
    let mut third = log.subscribe(&group, Topic::Logins).await.expect("the next member");
    let mut rest = Vec::new();
    for _ in 0..partitions {
        let Assigned { partition, start, reader, .. } = assigned(third.as_mut()).await;
        let stored = store.checkpoint(generation, partition).await.expect("readable").expect("flushed");
        start.send(stored.next).expect("the group waits");
        rest.push((partition, reader));
    }
    for (partition, mut reader) in rest {
        seen.entry(partition).or_default().extend(read_until(reader.as_mut(), 600).await);
    }
    for (partition, records) in seen {
        assert!(records.iter().map(|record| record.position.offset).eq(0..600), "partition {partition}");
    }
}

/// The number of members that the brokers count in a group.
async fn members(prefix: &str, group: &str) -> usize {
    let name = format!("{prefix}{group}");
    let counted = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", service("KAFKA_BROKERS")).create().expect("a client");
        let list = client.fetch_group_list(Some(&name), PATIENCE).expect("an answer");
        list.groups().iter().map(|group| group.members().len()).sum()
    });
    counted.await.expect("no panic")
}

/// Reads a partition until it is revoked, and releases it immediately.
async fn hold(taken: Assigned) {
    let Assigned { start, mut reader, .. } = taken;
    start.send(0).expect("the group waits");
    loop {
        match reader.next().await {
            Ok(Next::Revoked(_)) | Err(_) => return,
            Ok(Next::Records(_) | Next::End(_)) => {}
        }
    }
}

#[tokio::test]
async fn a_member_that_has_left_is_out_of_its_group_and_its_partitions_go_on() {
    let (prefix, group) = (prefix(), unique());
    open_log(&prefix, 4).await;
    // No test waits for the end of such a session: only a member that reports its end has left.
    let heartbeat = ("heartbeat.interval.ms".to_owned(), "300".to_owned());
    let config = foretell_kafka::Config {
        session_timeout_ms: 240_000,
        properties: BTreeMap::from([heartbeat]),
        ..foretell_kafka::Config::default()
    };
    let log = Kafka::open(&log_url(), TopicNames::new(&prefix), &config).await.expect("a log");
    let mut owners = tokio::task::JoinSet::new();
    let mut first = log.subscribe(&group, Topic::Logins).await.expect("the first member");
    for _ in 0..4 {
        owners.spawn(hold(assigned(first.as_mut()).await));
    }
    let mut second = log.subscribe(&group, Topic::Logins).await.expect("the second member");
    for _ in 0..2 {
        owners.spawn(hold(assigned(second.as_mut()).await));
    }
    assert_eq!(members(&prefix, &group).await, 2);
    first.leave().await;
    assert_eq!(members(&prefix, &group).await, 1, "it returns when the group has registered it");
    for _ in 0..2 {
        owners.spawn(hold(assigned(second.as_mut()).await));
    }
    // Leaving waits for an owner that has to finish something, and until then it is a member.
    let mut third = log.subscribe(&group, Topic::Logins).await.expect("a third member");
    let Assigned { start, mut reader, .. } = assigned(third.as_mut()).await;
    start.send(0).expect("the group waits");
    let Next::End(0) = next(reader.as_mut()).await else { panic!("nothing was appended") };
    let leaving = tokio::spawn(third.leave());
    let Next::Revoked(unfinished) = next(reader.as_mut()).await else { panic!("nothing was appended") };
    assert_eq!(members(&prefix, &group).await, 2);
    assert!(!leaving.is_finished(), "its partition is still held");
    drop(unfinished);
    timeout(PATIENCE, leaving).await.expect("it has left").expect("no panic");
    assert_eq!(members(&prefix, &group).await, 1);
    second.leave().await;
    assert_eq!(members(&prefix, &group).await, 0);
    while let Some(done) = timeout(PATIENCE, owners.join_next()).await.expect("revoked") {
        done.expect("no panic");
    }
}

#[tokio::test]
async fn an_owner_that_does_not_answer_ends_its_membership_and_nothing_else() {
    let log = open_log(&prefix(), 1).await;
    log.append(vec![record(Topic::Logins, "default:u", "1")]).await.expect("appended");
    let group = unique();
    let mut silent = log.subscribe(&group, Topic::Logins).await.expect("a member");
    drop(assigned(silent.as_mut()).await.start);
    let ended = timeout(PATIENCE, silent.next()).await.expect("an end").err().expect("an error");
    assert_eq!(ended.kind, Kind::Retry, "{ended}");

    let mut other = log.subscribe(&group, Topic::Logins).await.expect("another member");
    let Assigned { start, mut reader, .. } = assigned(other.as_mut()).await;
    start.send(0).expect("the group waits");
    assert_eq!(values(&read_until(reader.as_mut(), 1).await), ["1"]);
}

#[tokio::test]
async fn an_offset_that_the_log_does_not_hold_is_fatal_and_explained() {
    let log = open_log(&prefix(), 1).await;
    log.append(vec![record(Topic::Logins, "default:u", "1")]).await.expect("appended");
    let error = log.read(Topic::Logins, 0, 7).await.err().expect("there is no 7");
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.detail.contains("offset 7 was requested; the partition contains 0 to 1"), "{error}");

    let mut membership = log.subscribe(&unique(), Topic::Logins).await.expect("a member");
    assigned(membership.as_mut()).await.start.send(7).expect("the group waits");
    let ended = timeout(PATIENCE, membership.next()).await.expect("an end").err().expect("an error");
    assert_eq!(ended.kind, Kind::Fatal);
    assert!(ended.detail.contains("offset 7 was requested; the partition contains 0 to 1"), "{ended}");
}

#[tokio::test]
async fn the_largest_record_passes_and_a_larger_one_takes_none_along() {
    let log = open_log(&prefix(), 1).await;
    // Random bytes do not compress, so the brokers see the full size.
    let noise: Vec<u8> = (0..1 << 16).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
    let of = |bytes: usize| NewRecord {
        topic: Topic::Logins,
        key: Some(Bytes::from_static(b"default:u")),
        value: Bytes::copy_from_slice(&noise[..bytes]),
        headers: Vec::new(),
    };
    let largest = foretell_events::record::RECORD_BYTES_MAX - "default:u".len();
    log.append(vec![of(largest)]).await.expect("the largest passes");
    let refused = log.append(vec![of(1), of(largest + 1)]).await.expect_err("one byte more");
    assert_eq!(refused.kind, Kind::Reject);
    let kept: Vec<_> = contents(&log, Topic::Logins, 0).await.iter().map(|record| record.value.len()).collect();
    assert_eq!(kept, [largest]);
}

// --- schema

async fn raw_session(url: &str) -> Session {
    let session = SessionBuilder::new().known_nodes(service("CASSANDRA_NODES").split(',')).build().await;
    let session = session.expect("a session");
    let keyspace = url.rsplit('/').next().expect("a keyspace");
    session.use_keyspace(keyspace, true).await.expect("the keyspace");
    session
}

#[tokio::test]
async fn migrations_are_applied_once_however_often_and_by_however_many() {
    let (url, config) = (store_url(), cassandra_config());
    let before = Cassandra::open(&url, &config).await.err().expect("there is no keyspace");
    assert_eq!(before.kind, Kind::Fatal);
    assert!(before.detail.contains("foretell migrate"), "{before}");

    let (one, two, three) =
        tokio::join!(schema::migrate(&url, &config), schema::migrate(&url, &config), schema::migrate(&url, &config));
    let mut applied: Vec<_> = [one, two, three].into_iter().flat_map(|done| done.expect("migrated").applied).collect();
    applied.sort();
    assert_eq!(applied, ["0001_rows", "0002_checkpoints", "0003_pointers"]);

    let again = schema::migrate(&url, &config).await.expect("nothing to do");
    assert_eq!(again.applied, Vec::<String>::new());
    assert!(again.warnings.iter().any(|warning| warning.contains("keeps 1 replicas")), "{:?}", again.warnings);
    Cassandra::open(&url, &config).await.expect("a store");
}

#[tokio::test]
async fn a_schema_that_is_not_this_programs_is_refused() {
    let config = cassandra_config();
    for (change, complaint, migrates) in [
        ("DELETE FROM migrations WHERE version = 3", "lacks 0003_pointers", true),
        (
            "INSERT INTO migrations (version, name, digest) VALUES (99, '0099_next', 'x')",
            "0099_next is unknown to this version",
            false,
        ),
        ("UPDATE migrations SET digest = 'x' WHERE version = 1", "a different content", false),
    ] {
        let url = store_url();
        schema::migrate(&url, &config).await.expect("migrated");
        raw_session(&url).await.query_unpaged(change, ()).await.expect("changed");
        let refused = Cassandra::open(&url, &config).await.err().expect("another schema");
        assert_eq!(refused.kind, Kind::Fatal);
        assert!(refused.detail.contains(complaint), "{refused}");
        assert_eq!(schema::migrate(&url, &config).await.is_ok(), migrates, "{complaint}");
    }
}
