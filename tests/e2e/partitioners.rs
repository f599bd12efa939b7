//! Producers with a different partitioner than Foretell's, on a real broker: the operator learns which one it is and
//! which setting fixes it, and redrives the dead letters.

use crate::deployment::{Deployment, PARTITIONS};
use crate::facts;
use crate::process::{Service, until};
use foretell_events::Topic;
use foretell_events::key;
use foretell_events::partitioner::Partitioner;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use std::time::Duration;

const LOGINS: u32 = 200;
const AT_MS: i64 = 1_767_225_600_000;

/// Sends logins of this many users to the partitions that a partitioner chooses; returns how many are misplaced.
async fn send(deployment: &Deployment, partitioner: Partitioner) -> usize {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", deployment.brokers()).create().expect("a producer");
    let topic = deployment.topic(Topic::Logins);
    let mut sent = Vec::new();
    let mut wrong = 0;
    for n in 0..LOGINS {
        let user = format!("{partitioner:?}-{n}");
        let key = key::of("default", &user);
        let partition = partitioner.partition(key.as_bytes(), PARTITIONS);
        wrong += usize::from(partition != key::partition(key.as_bytes(), PARTITIONS));
        let value = facts::event(&user, "login.succeeded", AT_MS, &json!({"user_id": user, "ip": "192.0.2.1"}));
        let (value, producer, topic) = (value.to_string(), producer.clone(), topic.clone());
        sent.push(async move {
            let content_type = Header { key: "content-type", value: Some("application/cloudevents+json") };
            let record = FutureRecord::to(&topic).partition(partition.cast_signed()).key(&key).payload(&value);
            let record = record.headers(OwnedHeaders::new().insert(content_type));
            producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).expect("it is sent");
        });
    }
    futures::future::join_all(sent).await;
    wrong
}

fn listed(deployment: &Deployment) -> Vec<Value> {
    let lines = deployment.output(&["dead-letters", "list", "--code", "WRONG_PARTITION", "--limit", "1000", "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_partitioner_is_warned_of_once_with_its_setting_and_its_records_are_sent_again() {
    let deployment = Deployment::cluster();
    let service = Service::ready(&deployment, &[]).await;
    let warned = |service: &Service| -> Vec<String> {
        let messages = service.process.stderr();
        messages.lines().filter(|line| line.contains("in a wrong partition of")).map(str::to_owned).collect()
    };
    let mut letters = 0;
    for (round, (partitioner, setting)) in
        [(Partitioner::Crc32, "partitioner=murmur2_random"), (Partitioner::Fnv1a, "kafka.Murmur2Balancer{}")]
            .into_iter()
            .enumerate()
    {
        letters += send(&deployment, partitioner).await;
        let line = until("a warning names the setting", async || {
            warned(&service).into_iter().find(|line| line.contains(partitioner.clients()))
        })
        .await;
        for part in ["WARN", "logins", partitioner.name(), setting, "foretell dead-letters redrive"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        until("all records are counted in the notice", async || {
            let notices = service.get("/readyz?verbose").await.good()["notices"].to_string();
            let is_all = notices.contains(&format!("{letters} records are")) && notices.contains(setting);
            is_all.then_some(())
        })
        .await;
        assert_eq!(warned(&service).len(), round + 1, "once for each partitioner: {}", service.process.stderr());
    }
    let listed = listed(&deployment);
    assert_eq!(listed.len(), letters);
    for letter in &listed {
        let message = letter["message"].as_str().expect("text");
        assert!(message.contains("murmur2_random") || message.contains("Murmur2Balancer"), "{message}");
    }
    let redrive = ["dead-letters", "redrive", "--code", "WRONG_PARTITION", "--rate", "10000", "--execute"];
    deployment.output(&redrive);
    for partitioner in [Partitioner::Crc32, Partitioner::Fnv1a] {
        for n in 0..LOGINS {
            until("every login is folded", async || {
                let user = service.get(&format!("/v1/users/{partitioner:?}-{n}")).await;
                (user.body["history"]["successes"] == 1).then_some(())
            })
            .await;
        }
    }
    service.process.stop().await;
}
