//! Data that an earlier version wrote is opened, rebuilt and verified by this one: `tests/data/fold7`.
//!
//! Retention would delete what has grown old since it was written, so the settings keep everything.

use crate::deployment::{Deployment, stderr, stdout};
use crate::process::Service;
use foretell_disk::log as disk;
use foretell_disk::log::Config;
use foretell_events::{Topic, codec};
use foretell_ports::clock;
use foretell_ports::log::Log;
use foretell_ports::log::walk::Walk;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const WRITTEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fold7");
/// Records of each topic in the directory, see its README.
const RECORDS: [(Topic, i64); 4] =
    [(Topic::Logins, 413), (Topic::Appointments, 626), (Topic::Policies, 5), (Topic::DeadLetters, 5)];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { std::fs::copy(&from, &to).map(drop).expect("copied") }
    }
}

/// An instance on a copy of the directory. It has the same name as when it was written, because journals refer to it.
fn deployment() -> Deployment {
    Deployment::with(|scratch| {
        copy(Path::new(WRITTEN), scratch);
        let settings = [
            ("LOG", "disk:data"),
            ("STORE", "disk:data"),
            ("TOPICS__DECISION_RETENTION_DAYS", "36500"),
            ("TOPICS__DEAD_LETTER_RETENTION_DAYS", "36500"),
        ];
        settings.map(|(key, value)| (key, value.to_owned())).to_vec()
    })
}

/// Records of a topic, from the output of a command: only processes use the directory of the settings.
fn records(deployment: &Deployment, topic: Topic) -> i64 {
    let topics: Value = serde_json::from_str(&deployment.output(&["inspect", "topics", "--json"])).expect("JSON");
    let name = format!("foretell.{}", topic.name());
    let topic = topics.as_array().expect("topics").iter().find(|found| found["topic"] == name.as_str());
    let partitions = topic.expect("the topic")["partitions"].as_array().expect("partitions").iter();
    partitions.map(|extent| extent[1].as_i64().expect("an end")).sum()
}

#[tokio::test]
async fn a_directory_of_an_earlier_version_is_rebuilt_and_every_record_of_it_still_folds() {
    let deployment = deployment();
    let service = Service::ready(&deployment, &["--auto-rebuild"]).await;
    let verified = deployment.output(&["verify"]);
    assert!(verified.ends_with("; 0 differ\n"), "{verified}");
    service.process.stop().await;
    for (topic, count) in RECORDS {
        assert_eq!(records(&deployment, topic), count, "of {}", topic.name());
    }
    let positions: Value = serde_json::from_str(&deployment.output(&["inspect", "positions", "--json"])).expect("JSON");
    let generations = positions.as_array().expect("positions").iter().map(|at| at["generation"].as_i64());
    assert!(generations.len() > 0, "no rows: {positions}");
    assert!(generations.clone().all(|generation| generation > Some(1)), "new rows: {positions}");
}

#[tokio::test]
async fn what_an_earlier_version_answered_is_still_answered() {
    let deployment = deployment();
    let service = Service::ready(&deployment, &["--auto-rebuild"]).await;
    for id in std::fs::read_to_string(Path::new(WRITTEN).join("decisions")).expect("ids").lines() {
        assert_eq!(service.get(&format!("/v1/decisions/{id}")).await.good()["id"], id);
    }
    let policy = service.get("/v1/policies/login").await.good();
    assert_eq!(policy["version"], json!("3"), "{policy}");
    assert_eq!(service.get("/v1/users/user-9").await.status, 404, "erased");
    assert_eq!(service.get("/v1/clients/client-9").await.status, 404, "erased");
    let visit = service.get("/v1/appointments/visit-1").await.good();
    assert_eq!((&visit["client_id"], &visit["status"]), (&json!("client-1"), &json!("missed")), "{visit}");
    let letters = deployment.output(&["dead-letters", "list", "--all", "--json"]);
    let states: Vec<Value> = letters.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(states.len(), 3, "{letters}");
    service.process.stop().await;
}

#[tokio::test]
async fn an_import_that_an_earlier_version_finished_is_finished() {
    let deployment = deployment();
    for (kind, file, events) in [("logins", "logins.jsonl", 400), ("appointments", "visits.jsonl", 617)] {
        let again = deployment.run(&["import", kind, file, "--format", "events"]);
        let messages = stdout(&again) + &stderr(&again);
        assert!(messages.contains(&format!("0 events appended, {events} already present")), "{messages}");
    }
}

/// A rebuild writes no dead letters for records that the serving rows have passed, so its rejections are only visible
/// here.
#[tokio::test]
async fn every_record_that_an_earlier_version_folded_is_still_read() {
    let scratch = tempfile::tempdir().expect("a directory");
    copy(&Path::new(WRITTEN).join("data"), scratch.path());
    let held = disk::lock(scratch.path()).expect("it is free");
    let log = disk::Log::open(&held, |_| 1, Config::default(), Arc::new(clock::System)).expect("opens");
    let (mut read, mut refused) = (0, Vec::new());
    for topic in [Topic::Logins, Topic::Appointments, Topic::Policies, Topic::Reminders] {
        for partition in 0..log.partitions(topic) {
            let extent = log.extent(topic, partition).await.expect("an extent");
            let mut walk = Walk::begin(&log, topic, partition, extent, "read all").await.expect("begins");
            while let Some(records) = walk.next().await.expect("read") {
                for record in records {
                    read += 1;
                    let event = codec::decode(&record);
                    let checked = event.and_then(|event| codec::check_record(&event, &record, log.partitions(topic)));
                    let code = checked.err().map(|faults| faults.first().code.to_owned());
                    refused.extend(code.map(|code| (topic.name(), record.position.offset, code)));
                }
            }
        }
    }
    let letters = [274, 275, 276].map(|offset| ("logins", offset, "TIME_IN_FUTURE".to_owned()));
    assert_eq!(refused, letters, "what was a dead letter when it was written, and nothing else");
    assert_eq!(read, 1_048);
}
