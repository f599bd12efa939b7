//! The report on no-shows, as an operator uses it: over a running instance and without a running service, as a table,
//! as JSON and as a plot.

use crate::deployment::Deployment;
use crate::facts;
use crate::process::{Service, until};
use foretell_events::codec::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// From the bookings to the start of the visits: everything is scored and announced by then, however busy the machine
/// is.
const AHEAD_MS: i64 = 20_000;
/// Visits, each of a different client.
const VISITS: usize = 8;

#[allow(clippy::disallowed_methods, reason = "visits begin while the test runs")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

fn about(kind: &str, n: usize, at_ms: i64, data: &Value) -> Value {
    let mut all = json!({"appointment_id": format!("visit-{n}"), "client_id": format!("client-{n}")});
    all.as_object_mut().expect("an object").extend(data.as_object().expect("an object").clone());
    facts::event(&format!("{kind}-{n}"), &format!("appointment.{kind}"), at_ms, &all)
}

/// Books and scores visits, and requests a reminder for every other one; returns their start, and their scores.
async fn announced(service: &Service) -> (i64, Vec<f64>) {
    let starts_ms = now_ms() + AHEAD_MS;
    let placed = json!({"starts_at": rfc3339(starts_ms), "booked_at": rfc3339(starts_ms - 30 * 86_400_000)});
    service.fold(&(0..VISITS).map(|n| about("booked", n, now_ms(), &placed)).collect::<Vec<_>>()).await;
    let mut scores = Vec::new();
    for n in 0..VISITS {
        let score = service.get(&format!("/v1/risk/appointments/visit-{n}")).await.good();
        scores.push(score["score"].as_f64().expect("a score"));
        if n.is_multiple_of(2) {
            let path = format!("/v1/appointments/visit-{n}/reminders");
            assert_eq!(service.post(&path, &json!({})).await.status, 202);
        }
    }
    for n in (0..VISITS).step_by(2) {
        until("the reminder is announced", async || {
            let story = service.get(&format!("/v1/appointments/visit-{n}")).await.good();
            let mut reminders = story["reminders"].as_array().expect("a list").iter();
            reminders.any(|reminder| reminder["status"] == "sent").then_some(())
        })
        .await;
    }
    let agenda = service.get("/v1/agenda?limit=5").await.good();
    let rest = format!("/v1/agenda?limit=5&cursor={}", agenda["next"].as_str().expect("a second page"));
    let rest = service.get(&rest).await.good();
    assert_eq!((&rest["next"], &rest["warnings"]), (&Value::Null, &json!([])));
    let listed = [&agenda, &rest].into_iter().flat_map(|page| page["visits"].as_array().expect("visits"));
    let listed: BTreeMap<_, _> =
        listed.map(|visit| (visit["appointment_id"].as_str().expect("an id"), visit["score"].as_f64())).collect();
    let ids: Vec<_> = (0..VISITS).map(|n| format!("visit-{n}")).collect();
    let expected = ids.iter().map(String::as_str).zip(scores.iter().copied().map(Some)).collect();
    assert_eq!(listed, expected, "all are listed, by the scores that they have alone");
    assert!(now_ms() < starts_ms, "everything happened before the visits began");
    (starts_ms, scores)
}

fn report(deployment: &Deployment, arguments: &[&str]) -> Value {
    let all = [&["report", "no-show", "--json"], arguments].concat();
    serde_json::from_str(&deployment.output(&all)).expect("JSON")
}

/// Known, missed, cancelled late, cancelled early, unknown.
fn counts(row: &Value) -> [u64; 5] {
    ["known", "missed", "late_cancelled", "cancelled", "unknown"].map(|field| row[field].as_u64().expect("a number"))
}

fn row<'a>(rows: &'a Value, name: &str) -> &'a Value {
    let mut all = rows.as_array().expect("rows").iter();
    all.find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {rows}"))
}

async fn reported_and_plotted(deployment: &Deployment) {
    let service = Service::ready(deployment, &[]).await;
    let (starts_ms, scores) = announced(&service).await;
    assert_eq!(counts(&report(deployment, &[])["total"]), [0; 5], "none has begun");
    until("the visits begin", async || (now_ms() > starts_ms).then_some(())).await;
    let nothing = json!({});
    let (none, at_ms) = (&nothing, now_ms());
    let outcomes: Vec<_> =
        [(0, "missed"), (1, "missed"), (2, "attended"), (3, "missed"), (4, "attended"), (5, "attended")]
            .into_iter()
            .map(|(n, kind)| about(kind, n, at_ms, none))
            .chain([about("cancelled", 6, starts_ms - 1, &json!({"cancelled_by": "client"}))])
            .collect();
    service.fold(&outcomes).await;
    let picture = deployment.scratch_file("calibration.svg");
    let serving = report(deployment, &["--svg", picture.to_str().expect("text")]);
    assert_eq!(counts(&serving["total"]), [6, 3, 1, 0, 1], "{serving}");
    assert_eq!(counts(row(&serving["by_lead"], "30-59")), [6, 3, 1, 0, 1]);
    assert_eq!(counts(row(&serving["by_steps"], "manual")), [3, 1, 1, 0, 0], "{serving}");
    assert_eq!(counts(row(&serving["by_steps"], "none")), [3, 2, 0, 0, 1], "{serving}");
    let metrics = &serving["last"]["metrics"];
    let missed = |n: usize| matches!(n, 0 | 1 | 3);
    let error = |(n, score): (usize, &f64)| (score - f64::from(u8::from(missed(n)))).powi(2);
    let brier = scores.iter().take(6).enumerate().map(error).sum::<f64>() / 6.0;
    assert!((metrics["brier"].as_f64().expect("a number") - brier).abs() < 1e-6, "{metrics} {scores:?}");
    assert_eq!((&serving["asked"]["cases"], &serving["reminded"]["cases"]), (&json!(6), &json!(3)));
    let drawn = std::fs::read_to_string(&picture).expect("drawn");
    assert!(drawn.starts_with("<svg") && drawn.contains("n = 6"), "{drawn}");
    let table = deployment.output(&["report", "no-show"]);
    let line = table.lines().find(|line| line.starts_with("manual")).expect("a line");
    let words: Vec<_> = line.split_whitespace().take(5).collect();
    assert_eq!(words, ["manual", "3", "1", "33.3", "%"], "{table}");
    assert!(table.contains("not the effect of a reminder"), "{table}");
    service.process.stop().await;
    let later = report(deployment, &["--tenant", "default", "--since", &rfc3339(starts_ms)]);
    for field in ["total", "by_lead", "by_level", "by_steps", "last", "asked", "reminded"] {
        assert_eq!(later[field], serving[field], "{field}, without a running service");
    }
    assert_eq!(counts(&report(deployment, &["--until", &rfc3339(starts_ms)])["total"]), [0; 5]);
    assert_eq!(counts(&report(deployment, &["--tenant", "other"])["total"]), [0; 5]);
    let messages = deployment.failure(1, &["report", "no-show", "--svg", "/nowhere/at/all.svg"]);
    assert!(messages.contains("cannot write /nowhere/at/all.svg"), "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_in_a_directory_are_reported_and_drawn() {
    reported_and_plotted(&Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_on_a_cluster_are_reported_and_drawn() {
    reported_and_plotted(&Deployment::cluster()).await;
}
