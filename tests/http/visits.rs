//! Visits as answers tell of them: whose they are, when they begin, and what is not taken from an event.

use crate::instance::{Instance, booked, event};
use serde_json::{Value, json};

fn told(id: &str, kind: &str, client: &str, time: &str) -> Value {
    let mut told = event(id, &format!("appointment.{kind}"), json!({"appointment_id": "a", "client_id": client}));
    told["time"] = json!(time);
    told
}

#[tokio::test]
async fn of_a_group_that_shares_an_appointment_the_one_who_comes_is_told_of_and_reminded() {
    let instance = Instance::start().await;
    let mut second = booked("b2", "two", "a", "2026-03-05T09:30:00");
    second["time"] = json!("2026-03-01T10:00:01Z");
    instance.fold(&[booked("b1", "one", "a", "2026-03-05T09:30:00"), second]).await;
    assert_eq!(instance.get("/v1/appointments/a").await.body["client_id"], "two", "both are on: the later booking");
    instance.fold(&[told("off", "cancelled", "two", "2026-03-01T10:00:02Z")]).await;
    let seen = instance.get("/v1/appointments/a").await.body;
    assert_eq!((&seen["client_id"], &seen["status"]), (&json!("one"), &json!("booked")));
    assert_eq!(instance.get("/v1/risk/appointments/a").await.body["client_id"], "one");
    let asked = instance.post("/v1/appointments/a/reminders", &json!({})).await;
    assert_eq!((asked.status, &asked.body["status"]), (202, &json!("planned")), "{}", asked.body);
    for (client, upcoming) in [("one", 1), ("two", 0)] {
        let seen = instance.get(&format!("/v1/clients/{client}")).await.body;
        assert_eq!(seen["upcoming"].as_array().map(Vec::len), Some(upcoming), "{client}");
    }
}

#[tokio::test]
async fn one_id_for_a_booking_and_its_cancellation_is_two_events_and_each_is_one_when_it_is_sent_again() {
    let instance = Instance::start().await;
    let (booked, cancelled) =
        (booked("4711", "c", "a", "2026-03-05T09:30:00"), told("4711", "cancelled", "c", "2026-03-01T10:00:01Z"));
    instance.fold(&[booked.clone(), cancelled.clone()]).await;
    for again in [booked, cancelled] {
        assert_eq!(instance.get("/v1/appointments/a").await.body["status"], "cancelled");
        instance.fold(&[again]).await;
    }
    assert_eq!(instance.get("/v1/clients/c").await.body["history"]["cancelled"], 1);
}

#[tokio::test]
async fn a_visit_that_has_not_begun_stays_on_whatever_is_said_of_how_it_went() {
    foretell::telemetry::prometheus();
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-05T09:30:00")]).await;
    for outcome in ["missed", "attended"] {
        instance.fold(&[told(outcome, outcome, "c", "2026-03-01T10:00:01Z")]).await;
        assert_eq!(instance.get("/v1/appointments/a").await.body["status"], "booked", "{outcome}");
    }
    let history = instance.get("/v1/clients/c").await.body["history"].clone();
    assert_eq!((&history["missed"], &history["attended"]), (&json!(0), &json!(0)));
    let metrics = Instance::metrics();
    let skipped = "foretell_skipped_records_total{family=\"appointments\",reason=\"unchanged\"}";
    assert!(metrics.contains(skipped), "{metrics}");
}

#[tokio::test]
async fn a_start_that_clocks_skip_is_shown_everywhere_as_they_show_it() {
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
