//! Imports of past events into both deployments, which then answer alike and have the same rows.

use crate::deployment::{Deployment, assert_same};
use crate::facts::{self, SAMPLE, SAMPLE_ROWS};
use crate::process::{Process, Service, until};
use foretell_events::Topic;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const VISITS: u64 = 900;

/// The part of an answer that does not depend on where, when and by which process it was given.
fn lasting(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().expect("an object");
    for passing in ["id", "view", "evaluated_at"] {
        fields.shift_remove(passing);
    }
    answer
}

/// Queries users of the sample and clients of the file; every answer is checked against the files themselves.
async fn interview(service: &Service, clients: &BTreeMap<String, facts::Kept>) -> Vec<Value> {
    let mut answers = Vec::new();
    let rows = facts::sample();
    let mut successes: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &rows {
        *successes.entry(&row.user_id).or_default() += u64::from(row.succeeded);
    }
    for row in rows.iter().step_by(97) {
        let user = service.get(&format!("/v1/users/{}", row.user_id.replace('+', "%2B"))).await.good();
        assert_eq!(user["history"]["successes"], successes[row.user_id.as_str()], "{user}");
        let attempt = json!({"user_id": row.user_id, "ip": row.ip, "occurred_at": "2020-02-04T00:00:00Z"});
        let score = service.post("/v1/risk/logins", &attempt).await.good();
        assert_eq!(score["history"]["successes"], successes[row.user_id.as_str()], "{score}");
        assert_eq!(score["level"] == "unscored", successes[row.user_id.as_str()] == 0, "{score}");
        assert_eq!(score["warnings"], json!([]), "{score}");
        answers.extend([lasting(user), lasting(score)]);
    }
    for (client, kept) in clients {
        let seen = service.get(&format!("/v1/clients/{client}")).await.good();
        let [attended, missed] = ["attended", "missed"].map(|name| seen["history"][name].as_u64());
        assert_eq!((attended, missed), (Some(kept.attended), Some(kept.missed)), "{seen}");
        let visit =
            json!({"client_id": client, "starts_at": "2026-06-01T10:00:00Z", "booked_at": "2026-05-20T10:00:00Z"});
        let score = service.post("/v1/risk/appointments", &visit).await.good();
        assert!((0.0..=1.0).contains(&score["score"].as_f64().expect("a score")), "{score}");
        assert_eq!(score["warnings"], json!([]), "{score}");
        answers.extend([lasting(seen), lasting(score)]);
    }
    let unknown = service.get("/v1/users/nobody").await;
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!("USER_NOT_FOUND")));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn both_deployments_answer_alike_from_the_same_rows() {
    let deployments = [Deployment::disk(), Deployment::cluster()];
    let noshow = deployments[0].scratch_file("noshow.csv");
    let (clients, faulty) = facts::write_noshow(&noshow, VISITS);
    let noshow = noshow.to_str().expect("text");
    let mut seen = Vec::new();
    for deployment in &deployments {
        let logins = ["import", "logins", SAMPLE, "--format", "rba", "--json"];
        let visits = ["import", "appointments", noshow, "--format", "noshow", "--json"];
        let events = (VISITS - faulty) * 2;
        for (import, events, skipped) in [(&logins, SAMPLE_ROWS as u64, 0), (&visits, events, faulty)] {
            for before in [0, events] {
                let mut output: Value = serde_json::from_str(&deployment.output(import)).expect("JSON");
                let journal = output["journal"].take();
                assert!(Path::new(journal.as_str().expect("a path")).is_file(), "{journal}");
                assert_eq!(
                    output,
                    json!({
                        "events": events,
                        "before": before,
                        "skipped": skipped,
                        "dropped": 0,
                        "without_country": 0,
                        "journal": null,
                    })
                );
            }
        }
        assert_eq!(deployment.records(Topic::Logins).await, SAMPLE_ROWS as i64, "each event once");
        assert_eq!(deployment.records(Topic::Appointments).await, events as i64, "each event once");
        let service = Service::ready(deployment, &[]).await;
        let answers = interview(&service, &clients).await;
        service.process.stop().await;
        assert_eq!(deployment.records(Topic::DeadLetters).await, 0, "every event was folded");
        seen.push((answers, deployment.rows().await));
    }
    let [(disk, disk_rows), (cluster, cluster_rows)] = &seen[..] else { panic!("two deployments") };
    assert!(disk_rows.len() > SAMPLE_ROWS, "{} rows", disk_rows.len());
    assert_same(disk_rows, cluster_rows);
    assert_eq!(disk, cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_takes_an_import_through_its_url_or_its_socket() {
    let (whole, alone) = (Deployment::disk(), Deployment::disk());
    let file = whole.scratch_file("logins.jsonl");
    facts::write_logins(&file, 500);
    let service = Service::ready(&whole, &[]).await;
    let import = ["import", "logins", file.to_str().expect("text"), "--format", "events"];
    assert!(alone.output(&import).starts_with("500 events appended, 0 already present"));
    assert!(whole.output(&import).starts_with("500 events appended, 0 already present"), "through the socket");
    assert!(whole.output(&import).starts_with("0 events appended, 500 already present"));
    // With a journal of its own, so it is sent again; the views know every event.
    let through_url = [&import[..], &["--to", &service.url]].concat();
    assert!(whole.output(&through_url).starts_with("500 events appended"));
    assert!(whole.output(&through_url).starts_with("0 events appended, 500 already present"));
    let refused = alone.failure(1, &["import", "appointments", import[2], "--format", "events"]);
    assert!(refused.contains("nothing was appended"), "{refused}");
    service.process.stop().await;
    assert_eq!(whole.records(Topic::Logins).await, 1_000);
}

/// One gate for all ways in: an invalid file is rejected with the same code, as a whole, with a service and without
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_refuses_the_same_events_whichever_way_they_go() {
    let (whole, alone) = (Deployment::disk(), Deployment::disk());
    let service = Service::ready(&whole, &[]).await;
    let login = |change: &dyn Fn(&mut Value)| {
        let data = json!({"user_id": "u", "ip": "192.0.2.1", "country": "IE"});
        let mut event = facts::event("e", "login.succeeded", 0, &data);
        event["time"] = json!("2026-01-01T00:00:00Z");
        change(&mut event);
        event.to_string()
    };
    let good = login(&|_| {});
    for (name, line, code) in [
        ("no country", login(&|event| event["data"]["country"] = json!("QQ")), "INVALID_VALUE"),
        ("to come", login(&|event| event["time"] = json!("2099-01-01T00:00:00Z")), "TIME_IN_FUTURE"),
        ("of another tenant", login(&|event| event["tenant"] = json!("other")), "TENANT_MISMATCH"),
        ("a member twice", good.replacen("{", r#"{"id":"f","#, 1), "DUPLICATE_MEMBER"),
        ("an attribute", login(&|event| event["trace-id"] = json!("1")), "INVALID_NAME"),
    ] {
        let file = whole.scratch_file("logins.jsonl");
        std::fs::write(&file, format!("{good}\n{line}\n")).expect("written");
        let file = file.to_str().expect("text");
        let import = ["import", "logins", file, "--format", "events", "--tenant", "default"];
        for refused in [
            alone.failure(1, &import),
            whole.failure(1, &import),
            alone.failure(1, &[&import[..], &["--to", &service.url]].concat()),
        ] {
            assert!(refused.contains(code), "{name}: {refused}");
        }
    }
    // Exports of Foretell may be imported, and events of Windows tools, with more unknown fields than are kept.
    let export = login(&|event| {
        event["source"] = json!("urn:foretell:api");
        event["data"]["unknown"] = json!("x".repeat(900_000));
    });
    let file = whole.scratch_file("export.jsonl");
    std::fs::write(&file, format!("\u{feff}{export}\r\n")).expect("written");
    let import = ["import", "logins", file.to_str().expect("text"), "--format", "events"];
    for output in
        [alone.output(&import), whole.output(&import), alone.output(&[&import[..], &["--to", &service.url]].concat())]
    {
        assert!(output.starts_with("1 events appended") && output.contains("1 unknown fields dropped"), "{output}");
    }
    service.process.stop().await;
    assert_eq!((alone.records(Topic::Logins).await, whole.records(Topic::Logins).await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_during_an_import_is_a_directory_to_serve() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("logins.jsonl");
    facts::write_logins(&file, 5_000);
    let import = ["import", "logins", file.to_str().expect("text"), "--format", "events"];
    let service = Service::ready(&deployment, &[]).await;
    let mut running = Process::start(&deployment, deployment.command(&import));
    until("a part of the file is in the log", async || {
        let positions: Value = serde_json::from_str(&deployment.output(&["inspect", "positions", "--json"])).ok()?;
        positions.as_array()?.iter().any(|at| at["end"].as_i64() > Some(0)).then_some(())
    })
    .await;
    let copy = deployment.scratch().join("copy");
    let backup = ["backup", copy.to_str().expect("text")];
    let backed_up: Value =
        serde_json::from_str(&deployment.output(&[&backup[..], &["--json"]].concat())).expect("JSON");
    let records = backed_up["records"].as_i64().expect("a number");
    assert!(records > 0, "{backed_up}");
    assert!(deployment.failure(1, &backup).contains("exists: use"), "each backup has a directory of its own");
    assert!(!copy.with_file_name("copy.partial").exists());
    assert_eq!(running.end().await.code(), Some(0), "{}", running.stderr());
    service.process.stop().await;

    let url = format!("disk:{}", copy.display());
    let restored = Deployment::with(|_| vec![("LOG", url.clone()), ("STORE", url.clone())]);
    let service = Service::ready(&restored, &[]).await;
    let output = restored.output(&["verify"]);
    assert!(output.contains(&format!("the fold of {records} offsets")) && output.ends_with("; 0 differ\n"), "{output}");
    // The import continues where the backup left it: at most the batch in progress is sent again.
    restored.output(&import);
    assert!(restored.output(&["verify", "user"]).ends_with("; 0 differ\n"));
    service.process.stop().await;
    let records = restored.records(Topic::Logins).await;
    assert!((5_000..=6_000).contains(&records), "{records}");
}
