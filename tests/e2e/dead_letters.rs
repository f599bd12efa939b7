//! Dead letters, as an operator handles them: over the socket of a running instance, and without a running service.

use crate::deployment::{Deployment, stderr, stdout};
use crate::facts;
use crate::process::{Service, until};
use bytes::Bytes;
use foretell_events::Topic;
use foretell_events::record::NewRecord;
use serde_json::{Value, json};

const AT_MS: i64 = 1_767_225_600_000;

fn record(key: &str, value: &impl ToString) -> NewRecord {
    let content_type = Bytes::from_static(b"application/cloudevents+json");
    let (key, value) = (Some(Bytes::from(key.to_owned())), value.to_string().into());
    NewRecord { topic: Topic::Logins, key, value, headers: vec![("content-type".into(), content_type)] }
}

/// The letters in a list.
fn listed(deployment: &Deployment, arguments: &[&str]) -> Vec<Value> {
    let all = [&["dead-letters", "list", "--json"], arguments].concat();
    let lines = deployment.output(&all);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().expect("an id")
}

/// Three records that cannot be folded, two of which can be repaired.
async fn spoil(deployment: &Deployment) {
    let login = |id: &str, data: Value| facts::event(id, "login.succeeded", AT_MS, &data);
    let bad = vec![
        record("default:ada", &login("no-ip", json!({"user_id": "ada", "device_id": "laptop"}))),
        record("default:eve", &login("wrong-key", json!({"user_id": "bob", "ip": "192.0.2.2"}))),
        record("default:cyd", &"{\u{1b}[2J"),
    ];
    deployment.open().await.log.append(bad).await.expect("appended");
}

async fn mended(deployment: &Deployment) {
    spoil(deployment).await;
    let service = Service::ready(deployment, &[]).await;
    let letters = listed(deployment, &[]);
    assert_eq!(letters.len(), 3, "{letters:?}");
    let of = |code: &str| listed(deployment, &["--code", code, "--topic", "logins"]).remove(0);
    let (no_ip, wrong_key, malformed) = (of("MISSING_FIELD"), of("KEY_MISMATCH"), of("MALFORMED_JSON"));
    assert_eq!(listed(deployment, &["--key", "default:ada"]), std::slice::from_ref(&no_ip));
    assert_eq!(listed(deployment, &["--until", "2026-01-01T00:00:00Z"]), Vec::<Value>::new());
    let cut = deployment.run(&["dead-letters", "list", "--limit", "2"]);
    let (table, messages) = (stdout(&cut), stderr(&cut));
    assert!(table.starts_with("ID ") && table.lines().count() == 5, "{table}");
    assert!(messages.contains("there are more than 2"), "{messages}");

    let shown = deployment.output(&["dead-letters", "show", id(&no_ip)]);
    for expected in ["MISSING_FIELD at /data/ip", "default:ada", "content-type: application/cloudevents+json", "no-ip"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let shown = deployment.output(&["dead-letters", "show", id(&malformed)]);
    assert!(shown.contains("MALFORMED_JSON") && !shown.contains('\u{1b}'), "{shown:?}");

    let patch = deployment.scratch_file("patch.json");
    let add = json!([{"op": "add", "path": "/data/ip", "value": "192.0.2.1"}]);
    std::fs::write(&patch, add.to_string()).expect("written");
    let patch = patch.to_str().expect("text");
    let redrive = |arguments: &[&str]| deployment.run(&[&["dead-letters", "redrive"], arguments].concat());
    let dry = redrive(&[id(&no_ip), "--patch", patch]);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(stdout(&dry).contains("would be appended to") && stderr(&dry).contains("--execute"), "{}", stdout(&dry));
    assert_eq!(listed(deployment, &[]).len(), 3, "nothing was done");
    let unmended = redrive(&["--topic", "logins", "--execute", "--reason", "the key was wrong"]);
    assert_eq!(unmended.status.code(), Some(1), "two are left: {}", stdout(&unmended));
    assert!(stderr(&unmended).contains("2 of 3 letters were left"), "{}", stderr(&unmended));
    let mended = redrive(&[id(&no_ip), "--patch", patch, "--execute"]);
    assert_eq!(mended.status.code(), Some(0), "{}", stderr(&mended));
    for user in ["ada", "bob"] {
        until("the repaired event is folded", async || {
            let user = service.get(&format!("/v1/users/{user}")).await;
            (user.body["history"]["successes"] == 1).then_some(())
        })
        .await;
    }

    deployment.output(&["dead-letters", "drop", id(&malformed), "--reason", "noise", "--execute"]);
    assert_eq!(listed(deployment, &[]), Vec::<Value>::new());
    let again = redrive(&["--topic", "logins", "--patch", patch, "--execute"]);
    assert_eq!((again.status.code(), stdout(&again).as_str()), (Some(0), ""), "{}", stderr(&again));
    let twice = redrive(&[id(&wrong_key), "--execute"]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(stdout(&twice).contains("redriven before"), "{}", stdout(&twice));
    let nowhere = deployment.failure(1, &["dead-letters", "show", "0/999"]);
    assert!(nowhere.contains("there is no dead letter 0/999"), "{nowhere}");

    let all = listed(deployment, &["--all"]);
    service.process.stop().await;
    assert_eq!(listed(deployment, &["--all"]), all, "the same without a running service");
    assert_eq!(all.len(), 3);
    let shown = deployment.output(&["dead-letters", "show", id(&wrong_key)]);
    assert!(shown.contains("redriven to") && shown.contains("the key was wrong"), "{shown}");
    let records = deployment.records(Topic::Logins).await;
    assert_eq!((records, deployment.records(Topic::DeadLetters).await), (5, 6), "two sent again, three marks");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_directory_are_repaired() {
    mended(&Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_cluster_are_repaired() {
    mended(&Deployment::cluster()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_changes_nothing() {
    let deployment = Deployment::disk();
    let scratch = deployment.scratch_file("patch.json");
    std::fs::write(&scratch, "{}").expect("written");
    for arguments in [
        &["list", "--since", "yesterday"][..],
        &["list", "--limit", "0"],
        &["show", "17"],
        &["redrive", "--execute"],
        &["redrive", "0/1", "--rate", "0"],
        &["drop", "0/1"],
        &["drop", "0/1", "--reason", " "],
        &["drop", "--reason", "all of them"],
    ] {
        let messages = deployment.failure(2, &[&["dead-letters"], arguments].concat());
        assert!(messages.starts_with("error: ") && messages.contains("--help"), "{arguments:?}: {messages}");
    }
    let patch = scratch.to_str().expect("text");
    let messages = deployment.failure(1, &["dead-letters", "redrive", "--topic", "logins", "--patch", patch]);
    assert!(messages.contains("not a JSON Patch"), "{messages}");
    let messages = deployment.failure(1, &["dead-letters", "redrive", "0/7", "--patch", "/nowhere.json"]);
    assert!(messages.contains("/nowhere.json"), "{messages}");
    assert!(!deployment.scratch().join("data").exists(), "nothing was opened");
}
