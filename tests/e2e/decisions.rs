//! Decisions, as callers and analysts see them: kept beyond the end of a process, found by their id, labelled, and
//! counted by reason, over a running instance and without a running service.

use crate::deployment::Deployment;
use crate::facts;
use crate::process::Service;
use foretell_events::Topic;
use foretell_events::codec::{decode, rfc3339};
use foretell_events::login::LoginFact;
use foretell_events::{Fact, key};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

#[allow(clippy::disallowed_methods, reason = "events are dated relative to now")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

fn attempt(n: usize) -> Value {
    let device = if n.is_multiple_of(2) { "laptop" } else { "stolen" };
    json!({"user_id": format!("user-{}", n % 3), "ip": "198.51.100.7", "device_id": device, "country": "IE"})
}

/// Scores of three users with a history, from their own devices and from others.
async fn scored(service: &Service) -> Vec<Value> {
    let mut decisions = Vec::new();
    for n in 0..12 {
        decisions.push(service.post("/v1/risk/logins", &attempt(n)).await.good());
    }
    decisions
}

/// Creates the history of the users.
async fn begun(service: &Service) {
    let login = |n: usize| facts::event(&format!("e{n}"), "login.succeeded", now_ms() - 3_600_000, &attempt(2 * n));
    service.fold(&(0..9).map(login).collect::<Vec<_>>()).await;
}

async fn label(service: &Service, decision: &Value, label: &str) {
    let request = service.ask(reqwest::Method::POST, "/v1/feedback").header("prefer", "wait=30");
    let body = json!({"decision_id": decision["id"], "label": label, "reported_by": "the user"});
    let answer = service.answer(request.json(&body)).await.good();
    assert_eq!(answer["folded"], true, "{answer}");
}

fn report(deployment: &Deployment, arguments: &[&str]) -> Value {
    let all = [&["report", "decisions", "--json"], arguments].concat();
    serde_json::from_str(&deployment.output(&all)).expect("JSON")
}

/// How often each reason was given, and how often for fraud, computed from the answers alone.
fn by_reason(decisions: &[(Value, Option<&str>)]) -> BTreeMap<String, (u64, u64, u64)> {
    let mut counts = BTreeMap::<String, (u64, u64, u64)>::new();
    for (decision, label) in decisions {
        for reason in decision["reasons"].as_array().expect("reasons") {
            let count = counts.entry(reason["code"].as_str().expect("a code").to_owned()).or_default();
            count.0 += 1;
            count.1 += u64::from(*label == Some("fraud"));
            count.2 += u64::from(*label == Some("legitimate"));
        }
    }
    counts
}

async fn labelled_and_reported(deployment: &Deployment) {
    let mut service = Service::ready(deployment, &[]).await;
    begun(&service).await;
    let decisions = scored(&service).await;
    let path = |decision: &Value| format!("/v1/decisions/{}", decision["id"].as_str().expect("an id"));
    for decision in &decisions {
        let found = service.get(&path(decision)).await.good();
        assert_eq!((&found["reasons"], &found["score"]), (&decision["reasons"], &decision["score"]));
    }
    service.process.kill();
    let service = Service::ready(deployment, &[]).await;
    for decision in &decisions {
        assert_eq!(service.get(&path(decision)).await.good()["id"], decision["id"], "it outlives the process");
    }
    // All suspicious ones but one are fraud; familiar ones are legitimate, if they are labelled.
    let labels = |n: usize| match n {
        1 | 3 | 5 => Some("fraud"),
        0 | 2 | 7 => Some("legitimate"),
        _ => None,
    };
    for (n, decision) in decisions.iter().enumerate() {
        if let Some(stated) = labels(n) {
            label(&service, decision, stated).await;
        }
    }
    let mut outcome = attempt(0);
    outcome["decision_id"] = decisions[0]["id"].clone();
    service.fold(&[facts::event("outcome", "login.succeeded", now_ms(), &outcome)]).await;
    let labelled: Vec<_> = decisions.iter().cloned().enumerate().map(|(n, made)| (made, labels(n))).collect();
    let serving = report(deployment, &[]);
    assert_eq!((&serving["total"]["given"], &serving["total"]["labelled"]), (&json!(12), &json!(6)), "{serving}");
    assert_eq!(serving["total"]["succeeded"], 1);
    let rows = serving["by_reason"].as_array().expect("rows").iter();
    let found: BTreeMap<_, _> = rows
        .map(|row| {
            let number = |name: &str| row[name].as_u64().expect("a number");
            let name = row["name"].as_str().expect("a name").to_owned();
            (name, (number("given"), number("fraud"), number("legitimate")))
        })
        .collect();
    assert_eq!(found, by_reason(&labelled));
    assert_eq!(found.get("NEW_DEVICE"), Some(&(6, 3, 1)), "{found:?}");
    let table = deployment.output(&["report", "decisions"]);
    let words: Vec<_> = table.lines().find(|line| line.starts_with("NEW_DEVICE")).expect("a line").split(' ').collect();
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).take(6).collect();
    assert_eq!(words, ["NEW_DEVICE", "6", "4", "3", "1", "0.75"], "{table}");

    // The last score before the end is kept as well: the process drains.
    let last = service.post("/v1/risk/logins", &attempt(1)).await.good();
    service.process.stop().await;
    let later = report(deployment, &["--tenant", "default"]);
    assert_eq!(later["total"]["given"], 13, "without a running service, and including the last one");
    assert_eq!(later["total"]["labelled"], serving["total"]["labelled"]);
    assert_eq!(report(deployment, &["--tenant", "other"])["total"]["given"], 0);
    let tomorrow = rfc3339(now_ms() + 86_400_000);
    assert_eq!(report(deployment, &["--since", &tomorrow])["total"]["given"], 0);
    let ports = deployment.open().await;
    let partition = key::partition(b"default:user-1", ports.log.partitions(Topic::Decisions));
    let mut ids = Vec::new();
    let end = ports.log.extent(Topic::Decisions, partition).await.expect("an extent").end;
    let mut next = 0;
    while next < end {
        let page = ports.log.page(Topic::Decisions, partition, next).await.expect("a page");
        ids.extend(page.records.iter().filter_map(|r| String::from_utf8(r.header("ce_id")?.to_vec()).ok()));
        next = page.next;
    }
    assert!(ids.iter().any(|id| last["id"] == id.as_str()), "{ids:?}");
    let verdicts = verdicts(&ports).await;
    assert_eq!(verdicts.len(), 6);
    assert!(verdicts.iter().all(|device| matches!(device.as_deref(), Some("laptop" | "stolen"))), "{verdicts:?}");
}

/// The devices in verdicts.
async fn verdicts(ports: &foretell_service::ports::Ports) -> Vec<Option<String>> {
    let mut devices = Vec::new();
    for partition in 0..ports.log.partitions(Topic::Logins) {
        let end = ports.log.extent(Topic::Logins, partition).await.expect("an extent").end;
        let mut next = 0;
        while next < end {
            let page = ports.log.page(Topic::Logins, partition, next).await.expect("a page");
            for record in &page.records {
                if let Fact::Login(LoginFact::Reported(verdict) | LoginFact::Confirmed(verdict)) =
                    decode(record).expect("valid").fact
                {
                    devices.push(verdict.device_id);
                }
            }
            next = page.next;
        }
    }
    devices
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_in_a_directory_are_listed_and_reported() {
    labelled_and_reported(&Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_on_a_cluster_are_listed_and_reported() {
    labelled_and_reported(&Deployment::cluster()).await;
}
