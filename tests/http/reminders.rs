//! Reminders by hand.

use crate::instance::{Answer, Instance, NOW_MS, World, booked};
use foretell::view::client::REQUEST_EXPIRES_MS;
use reqwest::Method;
use serde_json::{Value, json};

/// Requests that an appointment may have in a day, by default.
const REQUESTS_MAX: usize = 8;

async fn ask(instance: &Instance, key: Option<&str>, body: &Value) -> Answer {
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
    let first = ask(&one, Some("k1"), &body).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let id = first.body["reminder_id"].as_str().unwrap().to_owned();
    for (instance, body) in [(&one, &body), (&two, &json!({"reason": "asked by phone", "channels": ["email"]}))] {
        let again = ask(instance, Some("k1"), body).await;
        assert_eq!((again.status, again.body["reminder_id"].as_str()), (202, Some(id.as_str())), "{}", again.body);
    }
    for instance in [&one, &two] {
        let other = ask(instance, Some("k1"), &json!({"channels": ["sms"]})).await;
        assert_eq!(other.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
    }
    let others = [ask(&two, Some("k2"), &body).await, ask(&two, None, &body).await, ask(&two, None, &body).await];
    let mut ids: Vec<_> = others.iter().map(|other| other.body["reminder_id"].as_str().unwrap().to_owned()).collect();
    ids.push(id.clone());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "another key, or none, is another reminder");
    let story = one.get("/v1/appointments/a").await.body["reminders"].clone();
    assert_eq!(story.as_array().unwrap().iter().filter(|r| r["reminder_id"] == id.as_str()).count(), 1);
    assert_eq!(ask(&one, Some(""), &body).await.problem(), (400, "MALFORMED_REQUEST"));
}

#[tokio::test]
async fn more_requests_than_a_day_may_have_are_refused_and_none_that_was_taken_is_lost() {
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let key = |at: usize| format!("k{at}");
    for at in 0..REQUESTS_MAX {
        assert_eq!(ask(&instance, Some(&key(at)), &json!({})).await.status, 202);
    }
    for another in [Some("another"), None] {
        assert_eq!(ask(&instance, another, &json!({})).await.problem(), (429, "TOO_MANY_REMINDERS"));
    }
    for at in 0..REQUESTS_MAX {
        assert_eq!(ask(&instance, Some(&key(at)), &json!({})).await.status, 202, "asked before");
    }
    instance.world.clock.set(NOW_MS + REQUEST_EXPIRES_MS);
    assert_eq!(ask(&instance, Some("tomorrow"), &json!({})).await.status, 202);
}

#[tokio::test]
async fn two_bodies_that_race_under_one_key_are_told_apart() {
    let world = World::new();
    let one = Instance::with(world.clone(), world.parts()).await;
    let two = Instance::without_views(world.clone(), world.parts()).await;
    one.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    for round in 0..REQUESTS_MAX {
        let key = format!("k{round}");
        let (sms, email) = (json!({"channels": ["sms"]}), json!({"channels": ["email"]}));
        let (a, b) = tokio::join!(ask(&one, Some(&key), &sms), ask(&two, Some(&key), &email));
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
    assert_eq!(ask(&alone, Some("k"), &json!({})).await.problem(), (503, "VIEWS_UNAVAILABLE"));
    let three = Instance::with(world.clone(), world.parts()).await;
    let first = ask(&three, Some("k"), &json!({})).await;
    assert_eq!(first.status, 202);
    assert_eq!(ask(&three, Some("k"), &json!({"template": "t"})).await.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
}
