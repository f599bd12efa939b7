//! The environment of a process: directories in use, unavailable dependencies, and foreign records in its topics.

use crate::deployment::{Deployment, PARTITIONS, service};
use crate::facts;
use crate::process::{PATIENCE, Service, free_port, until};
use foretell_events::Topic;
use foretell_events::codec::rfc3339;
use foretell_events::key;
use foretell_events::record::Record;
use foretell_ports::log::{Log, Next, record_at};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_left_alone_and_the_second_process_names_the_first() {
    let deployment = Deployment::disk();
    let first = Service::ready(&deployment, &[]).await;
    let mut second = Service::start(&deployment, &[]);
    assert_eq!(second.process.end().await.code(), Some(1));
    let messages = second.process.stderr();
    let pid = std::fs::read_to_string(deployment.scratch().join("data/lock")).expect("readable");
    assert!(messages.contains(&format!("is in use by another process (pid {})", pid.trim())), "{messages}");
    let taken = deployment.failure(1, &["serve", "--listen", first.url.trim_start_matches("http://")]);
    assert!(taken.contains("cannot listen on"), "{taken}");
    first.get("/readyz").await.good();
    first.process.stop().await;
}

/// `/dev/null` accepts every write and rejects every sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_ends_when_its_log_cannot_be_synced() {
    let deployment = Deployment::disk();
    for partition in 0..PARTITIONS {
        let directory = deployment.scratch().join(format!("data/log/logins/{partition}"));
        std::fs::create_dir_all(&directory).expect("writable");
        std::os::unix::fs::symlink("/dev/null", directory.join(format!("{:020}.log", 0))).expect("writable");
    }
    let mut service = Service::ready(&deployment, &[]).await;
    let login = json!({"user_id": "ann", "ip": "198.51.100.1"});
    let event = facts::event("1", "login.succeeded", 0, &login).to_string();
    let request = service.ask(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let answer = service.answer(request.body(event)).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("LOG_UNAVAILABLE")), "{}", answer.body);
    assert_eq!(service.process.end().await.code(), Some(1));
    let messages = service.process.stderr();
    assert!(messages.contains("cannot append: ") && messages.contains("data/log/logins/"), "{messages}");
}

#[test]
fn without_keys_only_loopback_is_served() {
    let deployment = Deployment::disk();
    let messages = deployment.failure(1, &["serve", "--listen", &format!("0.0.0.0:{}", free_port())]);
    assert!(messages.contains("--insecure"), "{messages}");
}

/// A service that waits for a cluster that is not available.
async fn waits(log: Option<String>, store: Option<String>, what: &str) {
    let deployment = Deployment::with(|scratch| {
        let disk = format!("disk:{}", scratch.join("data").display());
        vec![("LOG", log.unwrap_or_else(|| disk.clone())), ("STORE", store.unwrap_or(disk))]
    });
    let mut service = Service::start(&deployment, &[]);
    let answer = until("it reports what it waits for", async || {
        assert_eq!(service.process.ended(), None, "it ended: {}", service.process.stderr());
        let response = service.ask(reqwest::Method::GET, "/readyz?verbose").send().await.ok()?;
        assert_eq!(response.status(), 503);
        let body: Value = response.json().await.expect("JSON");
        body["detail"].as_str().is_some_and(|detail| detail.contains(what)).then_some(body)
    })
    .await;
    assert_eq!(answer["code"], "STARTING", "{answer}");
    service.get("/livez").await.good();
    assert_eq!(service.get("/v1/users/ada").await.status, 503);
    let messages = service.process.stderr();
    assert!(!messages.contains("ERROR"), "no action is needed yet: {messages}");
    let began = Instant::now();
    service.process.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "it ended after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_kafka_and_reports_it() {
    let address = format!("127.0.0.1:{}", free_port());
    waits(Some(format!("kafka://{address}")), None, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_cassandra_and_reports_it() {
    let address = format!("127.0.0.1:{}", free_port());
    waits(None, Some(format!("cassandra://{address}/foretell")), &address).await;
}

/// All records of a partition.
async fn contents(log: &dyn Log, topic: Topic, partition: u32) -> Vec<Record> {
    let end = log.extent(topic, partition).await.expect("an extent").end;
    let mut reader = log.read(topic, partition, 0).await.expect("a reader");
    let mut all = Vec::new();
    loop {
        match timeout(PATIENCE, reader.next()).await.expect("in time").expect("readable") {
            Next::Records(records) => all.extend(records),
            Next::End(at) if at >= end => return all,
            Next::End(_) => {}
            Next::Revoked(_) => panic!("a reader outside of any group keeps its partition"),
        }
    }
}

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let values: Vec<_> = record.headers.iter().filter(|(is, _)| is == name).collect();
    let [(_, value)] = values.as_slice() else { panic!("{name} occurs once: {:?}", record.headers) };
    std::str::from_utf8(value).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_folded_becomes_a_dead_letter_and_the_partition_goes_on() {
    let deployment = Deployment::cluster();
    let service_up = Service::ready(&deployment, &[]).await;
    let ada = "default:ada";
    let partition = key::partition(ada.as_bytes(), PARTITIONS);
    let mut others = (0..).map(|n| format!("default:eve-{n}"));
    let eve = others.find(|eve| key::partition(eve.as_bytes(), PARTITIONS) == partition).expect("sooner or later");
    let login =
        facts::event("stray", "login.succeeded", 1_767_225_600_000, &json!({"user_id": "ada", "ip": "192.0.2.1"}));
    let login = login.to_string();

    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", service("KAFKA_BROKERS")).create().expect("a producer");
    let topic = deployment.topic(Topic::Logins);
    for (key, value) in [(ada, "{\"specversion\": \"1.0\", "), (&eve, &login)] {
        let content_type = Header { key: "content-type", value: Some("application/cloudevents+json") };
        let headers =
            OwnedHeaders::new().insert(content_type).insert(Header { key: "x-hop", value: Some(&b"\xfe1"[..]) });
        let record = FutureRecord::to(&topic).partition(partition as i32).key(key).payload(value).headers(headers);
        producer.send(record, PATIENCE).await.expect("sent");
    }
    let good =
        facts::event("good", "login.succeeded", 1_767_225_600_000, &json!({"user_id": "ada", "ip": "192.0.2.1"}));
    service_up.fold(&[good]).await;
    let user = service_up.get("/v1/users/ada").await.good();
    assert_eq!(user["history"]["successes"], 1, "{user}");
    service_up.process.stop().await;

    let log = deployment.open().await.log;
    let mut letters = Vec::new();
    for partition in 0..PARTITIONS {
        letters.extend(contents(log.as_ref(), Topic::DeadLetters, partition).await);
    }
    letters.sort_by_key(|letter| header(letter, "__connect.errors.offset").to_owned());
    assert_eq!(letters.len(), 2);
    let expected = [(ada, "{\"specversion\": \"1.0\", ", "MALFORMED_JSON"), (&eve, &login, "KEY_MISMATCH")];
    for ((offset, letter), (key, value, code)) in (0..).zip(&letters).zip(expected) {
        let source = record_at(log.as_ref(), Topic::Logins, partition, offset).await.expect("readable");
        let source = source.expect("the record that was sent");
        assert_eq!((letter.key.as_deref(), letter.value.as_ref()), (Some(key.as_bytes()), value.as_bytes()));
        assert_eq!(letter.headers[..2], source.headers[..], "the original ones come first, untouched");
        for (name, value) in [
            ("__connect.errors.topic", topic.as_str()),
            ("__connect.errors.partition", &partition.to_string()),
            ("__connect.errors.offset", &offset.to_string()),
            ("__connect.errors.stage", "decode"),
            ("foretell_error_code", code),
            ("foretell_attempt", "1"),
            ("foretell_first_failure", &rfc3339(source.timestamp_ms)),
        ] {
            assert_eq!(header(letter, name), value, "{name}");
        }
        assert!(header(letter, "__connect.errors.exception.message").starts_with(code));
        assert_eq!(letter.headers.len(), 2 + 8);
    }
}
