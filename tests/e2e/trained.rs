//! A model from the log to the answers, in real processes: trained, published, in force, and named.

use crate::deployment::{Deployment, stderr, stdout};
use crate::facts::{drawn, event};
use crate::process::Service;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const VISITS: u64 = 2_600;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 1 February 2026, 00:00 UTC.
const BEGIN_MS: i64 = 1_769_904_000_000;

/// Visits of a month; young clients miss three times as many as others.
fn write_visits(path: &Path) {
    let mut events = Vec::new();
    for n in 0..VISITS {
        let (age, lead_days) = (18 + drawn(1, n, 60), 1 + drawn(2, n, 5) as i64);
        let booked_ms = BEGIN_MS + n as i64 * 28 * DAY_MS / VISITS as i64;
        let start_ms = (booked_ms / DAY_MS + lead_days) * DAY_MS + 10 * HOUR_MS;
        let (id, client) = (format!("v{n}"), format!("c{}", drawn(3, n, 700)));
        let religion = if age % 2 == 0 { "a" } else { "b" };
        let booking = json!({
            "appointment_id": id, "client_id": client, "starts_at": foretell_events::codec::rfc3339(start_ms),
            "time_zone": "UTC", "attributes": {"age": age, "religion": religion},
        });
        let missed = drawn(4, n, 100) < if age < 40 { 45 } else { 15 };
        let kind = if missed { "appointment.missed" } else { "appointment.attended" };
        let known = json!({"appointment_id": id, "client_id": client});
        events.push((booked_ms, event(&format!("b{n}"), "appointment.booked", booked_ms, &booking)));
        events.push((start_ms + HOUR_MS, event(&format!("o{n}"), kind, start_ms + HOUR_MS, &known)));
    }
    events.sort_by_key(|(time_ms, _)| *time_ms);
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    for (_, event) in events {
        writeln!(file, "{event}").expect("a line");
    }
    file.flush().expect("a whole file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_learnt_from_the_log_published_and_named_in_answers() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("visits.jsonl");
    write_visits(&file);
    let name = file.to_str().expect("a name");
    deployment.output(&["import", "appointments", name, "--format", "events"]);
    let service = Service::ready(&deployment, &[]).await;
    let considered = |age: u64| {
        json!({
            "client_id": "somebody", "starts_at": "2026-03-20T10:00:00Z", "booked_at": "2026-03-18T10:00:00Z",
            "attributes": {"age": age},
        })
    };
    let before = service.post("/v1/risk/appointments", &considered(20)).await.good();
    assert_eq!(before["model"]["id"], "no-show-two-counters");
    // Through the socket of the running service.
    let published = deployment.run(&["train", "no-show", "--publish", "--json"]);
    assert!(published.status.success(), "{}", stderr(&published));
    assert!(stderr(&published).contains("published as version 1"), "{}", stderr(&published));
    let learnt: Value = serde_json::from_str(&stdout(&published)).expect("a model");
    let inputs: Vec<_> = learnt["terms"].as_array().expect("terms").iter().map(|term| &term["input"]).collect();
    assert!(inputs.contains(&&json!("attribute:age")) && !inputs.contains(&&json!("attribute:religion")), "{inputs:?}");
    let (young, old) = (
        service.post("/v1/risk/appointments", &considered(20)).await.good(),
        service.post("/v1/risk/appointments", &considered(70)).await.good(),
    );
    for answer in [&young, &old] {
        assert_eq!(answer["model"], json!({"id": "no-show-trained", "version": "1"}), "{answer}");
    }
    assert!(young["score"].as_f64() > old["score"].as_f64().map(|score| score + 0.1), "{young} {old}");
    let shown = service.get("/v1/models/no-show").await.good();
    assert_eq!(shown["training"]["rows"], learnt["training"]["rows"]);
    service.process.stop().await;
    // Training on a file has the same result as on the log that it was imported into, without a running service.
    let out = deployment.scratch_file("model.json");
    deployment.output(&["train", "no-show", name, "--out", out.to_str().expect("a name")]);
    let mut of_file: Value = serde_json::from_reader(File::open(&out).expect("a model")).expect("JSON");
    let mut of_log = learnt;
    for model in [&mut of_file, &mut of_log] {
        model["training"]["trained_at"] = Value::Null;
    }
    assert_eq!(of_file, of_log);
    let refused = deployment.failure(1, &["train", "no-show", "--tenant", "nobody"]);
    assert!(refused.contains("two counters are used"), "{refused}");
    let refused = deployment.failure(1, &["train", "no-show", "--to", "http://127.0.0.1:1"]);
    assert!(refused.contains("a FILE to train on"), "{refused}");
}
