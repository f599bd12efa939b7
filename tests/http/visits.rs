//! Answers about visits: their tenant, their start, and which events are skipped.

use crate::instance::{Instance, NOW_MS, booked, event};
use foretell_domain::view::Limits;
use foretell_events::codec::rfc3339;
use serde_json::{Value, json};

fn outcome_event(id: &str, kind: &str, client: &str, time: &str) -> Value {
    let mut outcome_event =
        event(id, &format!("appointment.{kind}"), json!({"appointment_id": "a", "client_id": client}));
    outcome_event["time"] = json!(time);
    outcome_event
}

#[tokio::test]
async fn answers_about_a_group_are_about_a_client_whose_visit_is_on() {
    let instance = Instance::start().await;
    let mut second = booked("b2", "two", "a", "2026-03-05T09:30:00");
    second["time"] = json!("2026-03-01T10:00:01Z");
    instance.fold(&[booked("b1", "one", "a", "2026-03-05T09:30:00"), second]).await;
    assert_eq!(instance.get("/v1/appointments/a").await.body["client_id"], "two", "both are on: the later booking");
    instance.fold(&[outcome_event("off", "cancelled", "two", "2026-03-01T10:00:02Z")]).await;
    let seen = instance.get("/v1/appointments/a").await.body;
    assert_eq!((&seen["client_id"], &seen["status"]), (&json!("one"), &json!("booked")));
    assert_eq!(instance.get("/v1/risk/appointments/a").await.body["client_id"], "one");
    let requested = instance.post("/v1/appointments/a/reminders", &json!({})).await;
    assert_eq!((requested.status, &requested.body["status"]), (202, &json!("planned")), "{}", requested.body);
    for (client, upcoming) in [("one", 1), ("two", 0)] {
        let seen = instance.get(&format!("/v1/clients/{client}")).await.body;
        assert_eq!(seen["upcoming"].as_array().map(Vec::len), Some(upcoming), "{client}");
    }
}

#[tokio::test]
async fn an_id_used_for_two_types_is_two_events_and_each_can_be_repeated() {
    let instance = Instance::start().await;
    let (booked, cancelled) = (
        booked("4711", "c", "a", "2026-03-05T09:30:00"),
        outcome_event("4711", "cancelled", "c", "2026-03-01T10:00:01Z"),
    );
    let both = instance.fold(&[booked.clone(), cancelled.clone()]).await;
    assert_eq!(both.body["outcomes"], json!(["applied", "applied"]));
    for again in [booked, cancelled] {
        assert_eq!(instance.get("/v1/appointments/a").await.body["status"], "cancelled");
        assert_eq!(instance.fold(&[again]).await.body["outcomes"], json!(["skipped"]));
    }
    assert_eq!(instance.get("/v1/clients/c").await.body["history"]["cancelled"], 1);
}

#[tokio::test]
async fn an_outcome_before_the_visit_is_impossible() {
    foretell_telemetry::prometheus();
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-05T09:30:00")]).await;
    for outcome in ["missed", "attended"] {
        let answer = instance.fold(&[outcome_event(outcome, outcome, "c", "2026-03-01T10:00:01Z")]).await;
        assert_eq!(answer.body["outcomes"], json!(["impossible"]), "{outcome}");
        assert_eq!(instance.get("/v1/appointments/a").await.body["status"], "booked", "{outcome}");
    }
    let history = instance.get("/v1/clients/c").await.body["history"].clone();
    assert_eq!((&history["missed"], &history["attended"]), (&json!(0), &json!(0)));
    let metrics = Instance::metrics();
    let skipped = "foretell_skipped_records_total{family=\"appointments\",reason=\"impossible\"}";
    assert!(metrics.contains(skipped), "{metrics}");
}

#[tokio::test]
async fn a_full_client_keeps_the_next_visits_and_the_others_are_answered_as_skipped() {
    const FURTHER: usize = 20;
    const BATCH: usize = 60;
    let instance = Instance::start().await;
    let max = Limits::default().client_appointments_max;
    let day_ms = 24 * 60 * 60 * 1000;
    let visit =
        |days: usize| booked(&format!("b{days}"), "c", &format!("v{days}"), &rfc3339(NOW_MS + days as i64 * day_ms));
    let mut outcomes = Vec::new();
    for batch in (1..=max + FURTHER).collect::<Vec<_>>().chunks(BATCH) {
        let events: Vec<_> = batch.iter().map(|days| visit(*days)).collect();
        outcomes.extend(instance.fold(&events).await.body["outcomes"].as_array().unwrap().clone());
    }
    let taken = outcomes.iter().filter(|outcome| **outcome == "applied").count();
    assert_eq!((taken, &outcomes[..taken]), (max, &vec![json!("applied"); max][..]), "the farthest are skipped");
    assert_eq!(instance.get("/v1/appointments/v1").await.status, 200);
    let client = instance.get("/v1/clients/c").await.body;
    let upcoming = client["upcoming"].as_array().unwrap();
    assert_eq!((upcoming.len(), &upcoming[0]["appointment_id"]), (max, &json!("v1")));
    let far = max + FURTHER;
    assert_eq!(instance.get(&format!("/v1/appointments/v{far}")).await.status, 404);
    // When there is capacity, the same event is applied.
    instance.fold(&[event("off", "appointment.cancelled", json!({"appointment_id": "v1", "client_id": "c"}))]).await;
    assert_eq!(instance.fold(&[visit(far)]).await.body["outcomes"], json!(["applied"]));
    assert_eq!(instance.get(&format!("/v1/appointments/v{far}")).await.status, 200);
}

#[tokio::test]
async fn a_start_in_a_gap_is_shown_as_clocks_show_it() {
    let instance = Instance::start().await;
    // Clocks in Dublin skip from 1 to 2.
    instance.fold(&[booked("b", "c", "a", "2026-03-29T01:30:00")]).await;
    let agenda = instance.get("/v1/agenda?from=2026-03-29T00:00:00Z&to=2026-03-29T03:00:00Z").await.body;
    let client = instance.get("/v1/clients/c").await.body;
    let appointment = instance.get("/v1/appointments/a").await.body;
    for (name, seen) in [("agenda", &agenda["visits"][0]), ("client", &client["upcoming"][0]), ("own", &appointment)] {
        assert_eq!(seen["starts_at"], "2026-03-29T01:30:00.000Z", "{name}");
        assert_eq!(seen["local_start"], "2026-03-29T02:30:00", "{name}");
    }
}
