//! Policies in real processes: what one of them publishes decides in all, survives them, and is the fold of the log.

use crate::deployment::{Deployment, stderr, stdout};
use crate::facts;
use crate::process::{Service, until};
use foretell::clock::{Clock, System};
use foretell::event::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use reqwest::Method;
use serde_json::{Value, json};

const LOGIN: &str = "/v1/policies/login";

/// A policy that decides so about everybody's telephones.
fn phones(decision: &str) -> Value {
    json!({"rules": [{"code": "PHONES", "when": "device_id == 'phone'", "decision": decision}]})
}

async fn put(service: &Service, document: &Value) -> Value {
    service.answer(service.ask(Method::PUT, LOGIN).json(document)).await.good()
}

/// Decision and version of the policy about an attempt from a telephone.
async fn judged(service: &Service) -> (String, String) {
    let asked = json!({"user_id": "ada", "ip": "198.51.100.7", "device_id": "phone"});
    let score = service.post("/v1/risk/logins", &asked).await.good();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&score["decision"]), text(&score["policy"]["version"]))
}

fn assert_verified(deployment: &Deployment) {
    let said = deployment.output(&["verify", "policy", "--json"]);
    let last: Value = serde_json::from_str(said.lines().last().expect("a summary")).expect("JSON");
    assert_eq!(last["differences"], 0, "{said}");
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
        ("syntax.toml", "challenge_at = ", "TOML parse error"),
        ("word.toml", "chalenge_at = 0.2", "/chalenge_at"),
        ("bad.json", "{", "EOF"),
        ("rule.toml", "[[rules]]\ncode = \"OURS\"\nwhen = \"contry == 'NO'\"\nfactor = 2.0\n", "did you mean country?"),
        ("large.toml", &"# \n".repeat(40_000), "longer than"),
    ] {
        let said = deployment.failure(1, &["policy", "check", &file(name, text)]);
        assert!(said.contains(expected) && said.contains(name), "{said}");
    }
    let rba = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rba-sample.csv.gz");
    let tested = deployment.output(&["policy", "test", &good, "--against", rba, "--format", "rba", "--limit", "2"]);
    assert!(tested.contains("allow became challenge") && tested.contains("OURS in the shadow"), "{tested}");
    assert_eq!(tested.lines().filter(|line| line.contains("allow -> challenge")).count(), 2, "{tested}");
    let same =
        deployment.output(&["policy", "test", &good, "--against", rba, "--format", "rba", "--instead-of", &good]);
    assert!(same.starts_with("logins 2000, decided otherwise 0"), "{same}");
    assert!(deployment.output(&["policy", "schema"]).contains("urn:foretell:schema:policy.login"));
    assert!(deployment.output(&["policy", "variables"]).contains("likelihood_ratio"));
}
