//! Reminders by hand, and the stream of all of them.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, World, booked, event};
use foretell::store::Family;
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;

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
async fn two_bodies_that_race_under_one_key_are_told_apart() {
    let world = World::new();
    let one = Instance::with(world.clone(), world.parts()).await;
    let two = Instance::without_views(world.clone(), world.parts()).await;
    one.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    for round in 0..20 {
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

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    kind: String,
    id: String,
    data: Value,
}

struct Subscriber {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Subscriber {
    async fn open(instance: &Instance, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = instance.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches(": ").to_owned()))
                };
                let sent = field("data").map(|data| Sent {
                    kind: field("event").unwrap(),
                    id: field("id").unwrap(),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.text = rest.to_owned();
                match sent {
                    Some(sent) => return Some(sent),
                    None => continue, // A comment that keeps the stream open.
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.bytes.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk.ok()?).unwrap());
        }
    }
}

/// Books a visit that both steps of are to come, for each of several clients, and announces the first step.
async fn announce(instance: &Instance, tenant: &str, clients: &[&str]) {
    let events: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut event = booked(&format!("b-{client}"), client, &format!("a-{client}"), "2026-03-05T12:00:00");
            event["tenant"] = json!(tenant);
            event
        })
        .collect();
    instance.fold(&events).await;
}

/// 72 hours before the visits of [`announce`].
const DUE_MS: i64 = NOW_MS + 26 * HOUR_MS;

#[tokio::test]
async fn the_stream_tells_each_reminder_of_the_tenant_and_resumes_exactly() {
    let instance = Instance::start().await;
    announce(&instance, "default", &["c1", "c2", "c3", "c4", "c5", "c6"]).await;
    announce(&instance, "other", &["x1", "x2"]).await;
    let stream = "/v1/reminders/stream";
    let mut subscriber = Subscriber::open(&instance, stream, &[]).await;
    instance.world.clock.set(DUE_MS);
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(subscriber.next().await.unwrap());
    }
    let mut clients: Vec<_> = all.iter().map(|sent| sent.data["data"]["client_id"].as_str().unwrap()).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["c1", "c2", "c3", "c4", "c5", "c6"], "and none of the other tenant");
    for sent in &all {
        assert_eq!(sent.kind, "foretell.reminder.due");
        assert_eq!((&sent.data["specversion"], &sent.data["type"]), (&json!("1.0"), &json!(sent.kind)));
        assert_eq!(sent.data["id"], sent.data["data"]["reminder_id"]);
        assert_eq!(sent.data["tenant"], "default");
    }
    drop(subscriber);
    for at in 0..6 {
        // Another reader may see the partitions in another order, but never less, and never what was before.
        let mut resumed = Subscriber::open(&instance, stream, &[("last-event-id", &all[at].id)]).await;
        let mut rest = Vec::new();
        for _ in at + 1..6 {
            rest.push(resumed.next().await.unwrap().data["id"].as_str().unwrap().to_owned());
        }
        let mut expected: Vec<_> = all[at + 1..].iter().map(|s| s.data["id"].as_str().unwrap().to_owned()).collect();
        rest.sort_unstable();
        expected.sort_unstable();
        assert_eq!(rest, expected, "resumed behind event {at}");
    }
    let mut others = Subscriber::open(&instance, stream, &[("foretell-tenant", "other")]).await;
    assert_eq!(others.next().await.unwrap().data["tenant"], "other");
    let mut latest = Subscriber::open(&instance, &format!("{stream}?from=latest"), &[]).await;
    instance
        .fold(&[event("cancel", "appointment.cancelled", json!({"appointment_id": "a-c3", "client_id": "c3"}))])
        .await;
    let withdrawn = latest.next().await.unwrap();
    assert_eq!(withdrawn.kind, "foretell.reminder.withdrawn");
    assert_eq!(withdrawn.data["data"]["reason"], "cancelled");
    let story = instance.get("/v1/appointments/a-c1").await.body["reminders"].clone();
    let stands: Vec<_> = story.as_array().unwrap().iter().map(|r| (&r["step"], &r["status"])).collect();
    assert_eq!(stands, [(&json!("72h"), &json!("sent")), (&json!("24h"), &json!("planned"))]);
}

#[tokio::test]
async fn cursors_that_cannot_be_resumed_are_refused() {
    let instance = Instance::start().await;
    let get = async |path: &str, cursor: &str| {
        let request = instance.request(Method::GET, path).header("last-event-id", cursor);
        Answer::of(request.send().await.unwrap()).await.problem().0
    };
    let stream = "/v1/reminders/stream";
    for (cursor, status) in [("garbage", 400), ("0-0-0", 410), ("1-0-0-0", 410), ("0-0-0-99", 410), ("0-0-0-0-0", 410)]
    {
        assert_eq!(get(stream, cursor).await, status, "{cursor}");
    }
    assert_eq!(instance.get("/v1/reminders/stream?from=yesterday").await.problem(), (400, "MALFORMED_REQUEST"));
    let pointer = instance.world.store.pointer(Family::Reminders).await.unwrap().unwrap();
    assert_eq!(pointer.epoch, 0, "the cursors above are of this epoch, or not");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_process() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.streams_max = 1;
    let instance = Instance::with(world, parts).await;
    let mut only = Subscriber::open(&instance, "/v1/reminders/stream", &[]).await;
    assert_eq!(instance.get("/v1/reminders/stream").await.problem(), (503, "TOO_MANY_STREAMS"));
    instance.shutdown.cancel();
    assert_eq!(only.next().await, None);
}
