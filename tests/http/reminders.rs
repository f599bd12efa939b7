//! Manual reminders.

use crate::instance::{Answer, Instance, NOW_MS, World, booked, event, until};
use foretell_domain::view::client::REQUEST_EXPIRES_MS;
use reqwest::Method;
use serde_json::{Value, json};

/// Requests per appointment and day, by default.
const REQUESTS_MAX: usize = 8;

async fn remind(instance: &Instance, key: Option<&str>, body: &Value) -> Answer {
    let mut request = instance.request(Method::POST, "/v1/appointments/a/reminders");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    Answer::of(request.json(body).send().await.unwrap()).await
}

#[tokio::test]
async fn the_same_key_asks_once_across_processes() {
    let world = World::new();
    let one = Instance::with(world.clone(), world.parts()).await;
    let two = Instance::without_views(world.clone(), world.parts()).await;
    one.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let body = json!({"channels": ["email"], "reason": "asked by phone"});
    let first = remind(&one, Some("k1"), &body).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let id = first.body["reminder_id"].as_str().unwrap().to_owned();
    let folded = |answer: &Answer| (answer.body["folded"].clone(), answer.body["outcomes"].clone());
    assert_eq!(folded(&first), (json!(true), json!(["applied"])));
    for (instance, body) in [(&one, &body), (&two, &json!({"reason": "asked by phone", "channels": ["email"]}))] {
        let again = remind(instance, Some("k1"), body).await;
        assert_eq!((again.status, again.body["reminder_id"].as_str()), (202, Some(id.as_str())), "{}", again.body);
        assert_eq!(folded(&again), folded(&first));
    }
    for instance in [&one, &two] {
        let other = remind(instance, Some("k1"), &json!({"channels": ["sms"]})).await;
        assert_eq!(other.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
    }
    let others =
        [remind(&two, Some("k2"), &body).await, remind(&two, None, &body).await, remind(&two, None, &body).await];
    let mut ids: Vec<_> = others.iter().map(|other| other.body["reminder_id"].as_str().unwrap().to_owned()).collect();
    ids.push(id.clone());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "another key, or none, is another reminder");
    let story = one.get("/v1/appointments/a").await.body["reminders"].clone();
    assert_eq!(story.as_array().unwrap().iter().filter(|r| r["reminder_id"] == id.as_str()).count(), 1);
    assert_eq!(remind(&one, Some(""), &body).await.problem(), (400, "MALFORMED_REQUEST"));
}

#[tokio::test]
async fn more_requests_than_a_day_may_have_are_refused_and_none_that_was_taken_is_lost() {
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let key = |at: usize| format!("k{at}");
    for at in 0..REQUESTS_MAX {
        assert_eq!(remind(&instance, Some(&key(at)), &json!({})).await.status, 202);
    }
    for another in [Some("another"), None] {
        assert_eq!(remind(&instance, another, &json!({})).await.problem(), (429, "TOO_MANY_REMINDERS"));
    }
    for at in 0..REQUESTS_MAX {
        assert_eq!(remind(&instance, Some(&key(at)), &json!({})).await.status, 202, "requested before");
    }
    instance.world.clock.set(NOW_MS + REQUEST_EXPIRES_MS);
    assert_eq!(remind(&instance, Some("tomorrow"), &json!({})).await.status, 202);
}

#[tokio::test]
async fn two_bodies_that_race_under_one_key_are_distinguished() {
    let world = World::new();
    let one = Instance::with(world.clone(), world.parts()).await;
    let two = Instance::without_views(world.clone(), world.parts()).await;
    one.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    for round in 0..REQUESTS_MAX {
        let key = format!("k{round}");
        let (sms, email) = (json!({"channels": ["sms"]}), json!({"channels": ["email"]}));
        let (a, b) = tokio::join!(remind(&one, Some(&key), &sms), remind(&two, Some(&key), &email));
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 422], "{} {}", a.body, b.body);
    }
}

#[tokio::test]
async fn a_keyed_request_that_is_not_folded_in_time_can_be_sent_again() {
    let world = World::new();
    let one = Instance::with(world.clone(), world.parts()).await;
    one.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    one.shutdown.cancel();
    let mut parts = world.parts();
    parts.config.fold_wait_ms_max = 1;
    let alone = Instance::without_views(world.clone(), parts).await;
    assert_eq!(remind(&alone, Some("k"), &json!({})).await.problem(), (503, "VIEWS_UNAVAILABLE"));
    let three = Instance::with(world.clone(), world.parts()).await;
    let first = remind(&three, Some("k"), &json!({})).await;
    assert_eq!(first.status, 202);
    assert_eq!(remind(&three, Some("k"), &json!({"template": "t"})).await.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
}

const POLICY: &str = "/v1/policies/reminders";

/// The reminders of an appointment, as `step status reason`.
async fn story(instance: &Instance, id: &str) -> Vec<String> {
    let answer = instance.get(&format!("/v1/appointments/{id}")).await.body;
    let text = |reminder: &Value, field: &str| reminder[field].as_str().unwrap_or("-").to_owned();
    let line = |r: &Value| format!("{} {} {}", text(r, "step"), text(r, "status"), text(r, "reason"));
    answer["reminders"].as_array().unwrap().iter().map(line).collect()
}

async fn until_story(instance: &Instance, id: &str, wanted: &[&str]) {
    until(async || story(instance, id).await == wanted).await;
}

#[tokio::test]
async fn an_edited_policy_replans_unsent_reminders_and_repeats_none() {
    let instance = Instance::start().await;
    // In 60 hours: one step is due at once, because it was not sent when it was due.
    let booked = json!({"appointment_id": "a", "client_id": "c", "starts_at": "2026-03-03T22:00:00Z"});
    let mut booked = event("b", "appointment.booked", booked);
    booked["time"] = json!("2026-02-01T10:00:00Z");
    instance.fold(&[booked]).await;
    until_story(&instance, "a", &["72h sent -", "24h planned -"]).await;
    let steps =
        |later: u32| json!({"steps": [{"id": "72h", "before_hours": 70}, {"id": "late", "before_hours": later}]});
    let put = |document: Value| instance.request(Method::PUT, POLICY).json(&document).send();
    let answer = Answer::of(put(steps(30)).await.unwrap()).await;
    assert_eq!((answer.status, &answer.body["effective"]["group_same_day"]), (200, &json!(true)), "{}", answer.body);
    until_story(&instance, "a", &["72h sent -", "late planned -"]).await;
    // Another edit makes it due, and it is sent once.
    assert_eq!(put(steps(61)).await.unwrap().status(), 200);
    until_story(&instance, "a", &["72h sent -", "late sent -"]).await;
    assert_eq!(put(steps(62)).await.unwrap().status(), 200);
    until_story(&instance, "a", &["72h sent -", "late sent -"]).await;
    let refused = Answer::of(put(json!({"steps": [{"id": "x", "before_hours": 0}]})).await.unwrap()).await;
    assert_eq!(refused.problem(), (422, "VALIDATION_FAILED"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/steps/0/before_hours");
    assert_eq!(instance.get(POLICY).await.body["version"], "3");
}

#[tokio::test]
async fn reports_of_senders_lead_to_the_next_channel_and_are_shown() {
    let instance = Instance::start().await;
    let channels = json!([{"channel": "whatsapp", "consent": true}, {"channel": "sms", "consent": true}]);
    let mut facts = [
        event("u", "client.updated", json!({"client_id": "c", "channels": channels})),
        event(
            "b",
            "appointment.booked",
            json!({"appointment_id": "a", "client_id": "c", "starts_at": "2026-03-02T06:00:00Z"}),
        ),
    ];
    facts.iter_mut().for_each(|fact| fact["time"] = json!("2026-02-01T10:00:00Z"));
    instance.fold(&facts).await;
    until_story(&instance, "a", &["72h failed expired", "24h sent -"]).await;
    let reminder = async || {
        let answer = instance.get("/v1/appointments/a").await.body;
        answer["reminders"].as_array().unwrap().last().unwrap().clone()
    };
    let first = reminder().await["reminder_id"].clone();
    let about = |id: &Value, channel: &str| json!({"reminder_id": id, "appointment_id": "a", "client_id": "c", "channel": channel, "reason": "unknown"});
    instance.fold(&[event("f", "reminder.failed", about(&first, "whatsapp"))]).await;
    until(async || reminder().await["reminder_id"] != first && reminder().await["status"] == "sent").await;
    let second = reminder().await["reminder_id"].clone();
    instance.fold(&[event("k", "reminder.confirmed_by_client", about(&second, "sms"))]).await;
    let last = reminder().await;
    assert_eq!((&last["receipt"]["received"], &last["receipt"]["channel"]), (&json!("confirmed"), &json!("sms")));
    assert_eq!(instance.get("/v1/appointments/a").await.body["status"], "confirmed");
    // Refused and erased: nothing is left to send, and the client is forgotten with everything that was planned.
    let refused = json!([{"channel": "sms", "consent": false}, {"channel": "whatsapp", "consent": false}]);
    instance.fold(&[event("r", "client.updated", json!({"client_id": "c", "channels": refused}))]).await;
    instance.fold(&[event("f2", "reminder.failed", about(&second, "sms"))]).await;
    assert_eq!(reminder().await["status"], "failed", "{}", reminder().await);
    instance.fold(&[event("e", "client.erased", json!({"client_id": "c"}))]).await;
    assert_eq!(instance.get("/v1/clients/c").await.status, 404);
}
