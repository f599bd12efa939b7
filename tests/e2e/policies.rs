//! Policies in real processes: a published one applies in all processes, survives them, and is the fold of the log.

use crate::deployment::{Deployment, stderr, stdout};
use crate::facts;
use crate::process::{Service, until};
use foretell_events::Topic;
use foretell_events::codec::rfc3339;
use foretell_ports::clock::{Clock, System};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use reqwest::Method;
use serde_json::{Value, json};

const LOGIN: &str = "/v1/policies/login";
const HOUR_MS: i64 = 3_600_000;

/// A policy with this decision for all logins from phones.
fn phones(decision: &str) -> Value {
    json!({"rules": [{"code": "PHONES", "when": "device_id == 'phone'", "decision": decision}]})
}

async fn put(service: &Service, document: &Value) -> Value {
    service.answer(service.ask(Method::PUT, LOGIN).json(document)).await.good()
}

/// The decision and the version of the policy for an attempt from a phone.
async fn judged(service: &Service) -> (String, String) {
    let attempt = json!({"user_id": "ada", "ip": "198.51.100.7", "device_id": "phone"});
    let score = service.post("/v1/risk/logins", &attempt).await.good();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&score["decision"]), text(&score["policy"]["version"]))
}

fn assert_verified(deployment: &Deployment) {
    let messages = deployment.output(&["verify", "policy", "--json"]);
    let last: Value = serde_json::from_str(messages.lines().last().expect("a summary")).expect("JSON");
    assert_eq!(last["differences"], 0, "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_outlives_its_process_in_a_directory() {
    let deployment = Deployment::disk();
    let mut service = Service::ready(&deployment, &[]).await;
    let attempt = json!({"user_id": "ada", "ip": "198.51.100.7"});
    service.fold(&[facts::event("l", "login.succeeded", System.now_ms(), &attempt)]).await;
    for (version, decision) in [("1", "deny"), ("2", "allow"), ("3", "deny")] {
        assert_eq!(put(&service, &phones(decision)).await["version"], version);
        assert_eq!(judged(&service).await, (decision.to_owned(), version.to_owned()));
    }
    service.process.kill();
    let service = Service::ready(&deployment, &[]).await;
    assert_eq!(judged(&service).await, ("deny".to_owned(), "3".to_owned()));
    assert_verified(&deployment);
    let rebuilt = deployment.run(&["rebuild", "policies"]);
    assert!(rebuilt.status.success(), "{}{}", stdout(&rebuilt), stderr(&rebuilt));
    until("the rebuilt policy decides", async || {
        (judged(&service).await == ("deny".to_owned(), "3".to_owned())).then_some(())
    })
    .await;
    service.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_one_process_decides_in_the_others() {
    let deployment = Deployment::cluster();
    let [mut one, mut other, mut views] = [&["--roles", "http"], &["--roles", "http"], &["--roles", "views,reminders"]]
        .map(|roles| Service::start(&deployment, roles));
    for service in [&mut one, &mut other, &mut views] {
        service.until_ready().await;
    }
    let attempt = json!({"user_id": "ada", "ip": "198.51.100.7"});
    one.fold(&[facts::event("l", "login.succeeded", System.now_ms(), &attempt)]).await;
    for (publisher, version, decision) in [(&one, "1", "deny"), (&other, "2", "allow"), (&one, "3", "deny")] {
        assert_eq!(put(publisher, &phones(decision)).await["version"], version);
        assert_eq!(judged(publisher).await, (decision.to_owned(), version.to_owned()));
        for service in [&one, &other] {
            until("everybody has it", async || (judged(service).await.1 == version).then_some(())).await;
        }
    }
    assert_eq!(cleanup_policy(&deployment.brokers(), &deployment.topic(Topic::Policies)).await, "compact");
    assert_verified(&deployment);
    for service in [one, other, views] {
        service.process.stop().await;
    }
}

fn reminders_on_the_command_line(deployment: &Deployment, file: &dyn Fn(&str, &str) -> String) {
    let kind = ["--kind", "reminders"];
    let steps = "[[steps]]\nid = \"day\"\nbefore_days = 1\n";
    let good = file("steps.toml", steps);
    let messages = deployment.output(&[&["policy", "check", &good], &kind[..]].concat());
    assert!(messages.contains("it has 1 steps"), "{messages}");
    let bad = file("bad-steps.toml", "[[steps]]\nid = \"day\"\nbefore_days = 31\n");
    let messages = deployment.failure(1, &[&["policy", "check", &bad], &kind[..]].concat());
    assert!(messages.contains("/steps/0/before_days: 1 to 30"), "{messages}");
    let booked = json!({"appointment_id": "v", "client_id": "c", "starts_at": "2026-06-10T12:00:00Z"});
    let cancelled = json!({"appointment_id": "v", "client_id": "c"});
    let lines = [("booked", 1_780_000_000_000, booked), ("cancelled", 1_781_080_000_000, cancelled)];
    let lines: Vec<_> = lines
        .iter()
        .map(|(kind, at, data)| facts::event(kind, &format!("appointment.{kind}"), *at, data).to_string())
        .collect();
    let events = file("events.jsonl", &lines.join("\n"));
    let test = ["policy", "test", &good, "--against", &events];
    let output = deployment.output(&[&test, &kind[..]].concat());
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "2026-06-09T12:00:00.000Z  c  v  announced day  sms", "{output}");
    assert_eq!(lines[1], "2026-06-10T08:26:40.000Z  c  v  withdrawn -  cancelled", "{output}");
    assert!(output.contains("1  announced day") && output.contains("1  withdrawn cancelled"), "{output}");
    let json = deployment.output(&[&test, &kind[..], &["--json"]].concat());
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["status"], &first["channels"]), (&json!("announced"), &json!(["sms"])), "{json}");
    assert!(
        deployment
            .output(&[&["policy", "schema"], &kind[..]].concat())
            .contains("urn:foretell:schema:policy.reminders")
    );
}

/// Steps and states of the reminders of a visit.
async fn reminders(service: &Service, id: &str) -> Vec<(String, String)> {
    let visit = service.get(&format!("/v1/appointments/{id}")).await.good();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let reminders = visit["reminders"].as_array().expect("a list");
    reminders.iter().map(|reminder| (text(&reminder["step"]), text(&reminder["status"]))).collect()
}

/// Publishes reminder policies in one process while another one plans, and stops the planner in between.
async fn edited(deployment: &Deployment) {
    let roles: [&[&str]; 2] = match deployment.config().log.starts_with("kafka") {
        true => [&["--roles", "http"], &["--roles", "views,reminders"]],
        // A directory belongs to one process.
        false => [&[], &[]],
    };
    let mut front = Service::start(deployment, roles[0]);
    let mut back = (!roles[1].is_empty()).then(|| Service::start(deployment, roles[1]));
    for service in std::iter::once(&mut front).chain(&mut back) {
        service.until_ready().await;
    }
    let now_ms = System.now_ms();
    let starts_at = rfc3339(now_ms + 60 * HOUR_MS);
    let profile = json!({"client_id": "c", "quiet_hours": {"from": "00:00", "to": "00:00"}});
    let visit = json!({"appointment_id": "v", "client_id": "c", "starts_at": starts_at, "time_zone": "UTC"});
    let events = [("client.updated", profile), ("appointment.booked", visit)];
    let booked_ms = now_ms - 20 * 24 * HOUR_MS;
    let events: Vec<_> = events.iter().map(|(kind, data)| facts::event(kind, kind, booked_ms, data)).collect();
    front.fold(&events).await;
    let is = async |wanted: &[(&str, &str)]| {
        let output = until("the plan follows", async || {
            let output = reminders(&front, "v").await;
            output
                .iter()
                .map(|(step, status)| (step.as_str(), status.as_str()))
                .eq(wanted.iter().copied())
                .then_some(output)
        });
        output.await;
    };
    is(&[("72h", "sent"), ("24h", "planned")]).await;
    let step = |id: &str, hours: u32| json!({"id": id, "before_hours": hours});
    let put = async |steps: Value| {
        front.ask(Method::PUT, "/v1/policies/reminders").json(&json!({"steps": steps})).send().await
    };
    // Moved, and one more that is due immediately.
    assert!(put(json!([step("72h", 70), step("x", 61)])).await.expect("an answer").status().is_success());
    is(&[("72h", "sent"), ("x", "sent")]).await;
    assert!(
        put(json!([step("72h", 70), step("x", 62), step("y", 60)])).await.expect("an answer").status().is_success()
    );
    // The planner is killed during the change, or after it.
    if let Some(back) = &mut back {
        back.process.kill();
        *back = Service::ready(deployment, roles[1]).await;
    }
    is(&[("72h", "sent"), ("x", "sent"), ("y", "sent")]).await;
    if let Some(back) = back {
        back.process.stop().await;
    }
    front.process.stop().await;
    let (announced, _) = deployment.reminders().await;
    assert_eq!((announced.len(), announced.values().max()), (3, Some(&1)), "{announced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reminders_follow_an_edited_policy_in_a_directory() {
    edited(&Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reminders_follow_an_edited_policy_in_other_processes() {
    edited(&Deployment::cluster()).await;
}

async fn cleanup_policy(brokers: &str, topic: &str) -> String {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let described = client.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await;
    let described = described.expect("an answer").remove(0).expect("the topic is there");
    described.get("cleanup.policy").and_then(|entry| entry.value.clone()).expect("a property")
}

#[test]
fn policies_are_checked_and_tested_on_the_command_line() {
    let deployment = Deployment::disk();
    let file = |name: &str, text: &str| {
        let path = deployment.scratch_file(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let good = file(
        "good.toml",
        "challenge_at = 0.001\n[[rules]]\ncode = \"OURS\"\nwhen = \"country == 'NO'\"\nfactor = 2.0\nmode = \"shadow\"\n",
    );
    assert!(deployment.output(&["policy", "check", &good]).contains("it has 1 rules"));
    let json = file("good.json", "{\"challenge_at\": 0.2}");
    assert_eq!(deployment.output(&["policy", "check", &json, "--json"]), "{\"usable\":true,\"rules\":0}\n");
    for (name, text, expected) in [
        ("syntax.toml", "challenge_at = ", "line 1, column 16"),
        ("word.toml", "chalenge_at = 0.2", "/chalenge_at"),
        ("bad.json", "{", "EOF"),
        ("rule.toml", "[[rules]]\ncode = \"OURS\"\nwhen = \"contry == 'NO'\"\nfactor = 2.0\n", "did you mean country?"),
        ("large.toml", &"# \n".repeat(40_000), "longer than"),
    ] {
        let messages = deployment.failure(1, &["policy", "check", &file(name, text)]);
        assert!(messages.contains(expected) && messages.contains(name), "{messages}");
    }
    let rba = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rba-sample.csv.gz");
    let tested = deployment.output(&["policy", "test", &good, "--against", rba, "--format", "rba", "--limit", "2"]);
    assert!(tested.contains("allow became challenge") && tested.contains("OURS in shadow mode"), "{tested}");
    assert_eq!(tested.lines().filter(|line| line.contains("allow -> challenge")).count(), 2, "{tested}");
    let same =
        deployment.output(&["policy", "test", &good, "--against", rba, "--format", "rba", "--instead-of", &good]);
    assert!(same.starts_with("logins 2000, decided differently 0"), "{same}");
    assert!(deployment.output(&["policy", "schema"]).contains("urn:foretell:schema:policy.login"));
    assert!(deployment.output(&["policy", "variables"]).contains("likelihood_ratio"));
    reminders_on_the_command_line(&deployment, &file);
}
