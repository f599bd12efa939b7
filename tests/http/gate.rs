//! The gate: the same events are rejected on every way in, and nothing that was once folded is rejected.

use crate::instance::{Answer, Instance, NOW_MS, PARTITIONS, World, event, login, until};
use crate::rebuild::{build, done, last};
use crate::verify::verified;
use foretell_domain::address::{Family, Generation};
use foretell_domain::dead;
use foretell_domain::pointer::Pointer;
use foretell_domain::view::{self, Limits};
use foretell_engine::rows::{self, Rows};
use foretell_events::codec::{self, Defaults};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Topic, gate};
use foretell_ports::log::Log;
use foretell_ports::log::walk::Walk;
use foretell_service::http::auth::{self, Keys};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const BATCH: &str = "application/cloudevents-batch+json";

async fn send(instance: &Instance, events: &Value, import: bool) -> Answer {
    let request = instance.request(Method::POST, "/v1/events").header("content-type", BATCH);
    let request = if import { request.header("foretell-import", "true") } else { request };
    Answer::of(request.body(events.to_string()).send().await.unwrap()).await
}

fn of(source: &str) -> Value {
    let mut event = login("e", "u");
    event["source"] = json!(source);
    event
}

/// A caller that could write with the service's own source could make its next event a repetition.
#[tokio::test]
async fn sources_of_the_service_are_refused_but_for_an_import() {
    let instance = Instance::start().await;
    for source in [gate::API_SOURCE, gate::REMINDERS_SOURCE, gate::DECISIONS_SOURCE, "URN:foretell:API"] {
        let refused = send(&instance, &json!([login("good", "u"), of(source)]), false).await;
        assert_eq!(refused.problem(), (422, "VALIDATION_FAILED"), "{source}");
        let error = &refused.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!("/1/source"), &json!("RESERVED_SOURCE")), "{source}");
        assert_eq!(send(&instance, &json!([of(source)]), true).await.status, 202, "{source}");
    }
    assert_eq!(send(&instance, &json!([of("urn:foretell:apiary")]), false).await.status, 202);
}

/// With keys, only `admin` may import what the service has written.
#[tokio::test]
async fn an_export_is_imported_by_an_admin_alone() {
    let world = World::new();
    let mut parts = world.parts();
    let key = |name: &str, scope: &str| {
        let hash = auth::hash(name);
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ntenant = \"acme\"\nscopes = [\"{scope}\"]\n")
    };
    parts.keys = Some(Keys::parse(&(key("writer", "events:write") + &key("root", "admin"))).unwrap());
    let instance = Instance::with(world, parts).await;
    for (key, import, status) in
        [("writer", false, 422), ("writer", true, 422), ("root", false, 422), ("root", true, 202)]
    {
        let request = instance.request(Method::POST, "/v1/events").header("content-type", BATCH).bearer_auth(key);
        let request = if import { request.header("foretell-import", "true") } else { request };
        let answer = Answer::of(request.body(json!([of(gate::API_SOURCE)]).to_string()).send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{key} {import}: {}", answer.body);
    }
}

#[tokio::test]
async fn unknown_fields_do_not_fill_the_log() {
    let instance = Instance::start().await;
    let mut event = login("e", "u");
    event["data"]["unknown"] = json!("x".repeat(500_000));
    event["data"]["note"] = json!("kept");
    event["tracestate"] = json!("kept");
    let answer = send(&instance, &json!([event]), false).await;
    let at = &answer.body["positions"][0];
    let (partition, offset) = (at["partition"].as_u64().unwrap() as u32, at["offset"].as_i64().unwrap());
    let page = instance.world.log.page(Topic::Logins, partition, offset).await.unwrap();
    let record = &page.records[0];
    assert!(record.bytes() < 1_000, "{} bytes", record.bytes());
    let data: Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!((&data["note"], &data["user_id"], data.get("unknown")), (&json!("kept"), &json!("u"), None));
    assert_eq!(record.header("ce_tracestate"), Some(&b"kept"[..]));
}

/// A record as a producer writes it.
fn produced(id: &str, country: &str) -> NewRecord {
    let data = json!({"user_id": "u", "ip": "198.51.100.7", "country": country});
    let defaults = Defaults { tenant: "default", time_ms: NOW_MS };
    codec::encode_parsed(&codec::decode_structured(&event(id, "login.succeeded", data), defaults).unwrap())
}

/// Waits until a generation has folded everything, and returns how many logins of the user its rows contain.
async fn successes(world: &World, number: u32) -> u64 {
    let generation = Generation { family: Family::Logins, number, epoch: 0 };
    for partition in 0..PARTITIONS {
        let end = world.log.extent(Topic::Logins, partition).await.unwrap().end;
        let next =
            async || world.store.checkpoint(generation, partition).await.unwrap().map_or(0, |stored| stored.next);
        until(async || next().await >= end).await;
    }
    let rows = Rows::cached(world.store.clone(), &rows::Config::default(), &Limits::default());
    rows.user("default", "u").await.unwrap().map_or(0, |user| user.successes)
}

async fn codes(world: &World) -> Vec<String> {
    let mut codes = Vec::new();
    for partition in 0..PARTITIONS {
        let extent = world.log.extent(Topic::DeadLetters, partition).await.unwrap();
        let mut walk = Walk::begin(world.log.as_ref(), Topic::DeadLetters, partition, extent, "test").await.unwrap();
        while let Some(records) = walk.next().await.unwrap() {
            let code = |record: &Record| String::from_utf8(record.header(dead::CODE).unwrap().to_vec()).unwrap();
            codes.extend(records.iter().map(code));
        }
    }
    codes
}

async fn differences(world: &World) -> u64 {
    verified(world, world.store.clone(), None).await.0.differences
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_producer_writes_is_refused_from_a_recorded_time_on_and_never_in_a_replay() {
    let world = World::new();
    world.log.append(vec![produced("1", "QQ"), produced("2", "IE")]).await.unwrap();
    world.clock.set(NOW_MS + 1_000);
    let shutdown = CancellationToken::new();
    tokio::spawn(world.views(shutdown.clone()).await.join_all());
    assert_eq!((successes(&world, 1).await, codes(&world).await.len()), (2, 0), "it was in the log before");

    world.log.append(vec![produced("3", "QQ"), produced("4", "DE"), produced("5", "ZZ")]).await.unwrap();
    assert_eq!((successes(&world, 1).await, codes(&world).await), (4, vec!["INVALID_VALUE".to_owned()]));
    assert_eq!(differences(&world).await, 0);

    world.clock.set(NOW_MS + 2_000);
    assert_eq!(last(build(&world)).await, done(2));
    assert_eq!((successes(&world, 2).await, codes(&world).await.len()), (4, 1), "a later fold decides the same");
    assert_eq!(differences(&world).await, 0);
    shutdown.cancel();
}

/// Rows of a version without a gate are still folded without it, and their next fold begins with it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_gate_get_one_when_they_are_rebuilt() {
    let world = World::new();
    let before = Pointer::first(PARTITIONS, view::fingerprint(&Limits::default()));
    assert!(world.store.swap_pointer(Family::Logins, None, &before).await.unwrap());
    let shutdown = CancellationToken::new();
    tokio::spawn(world.views(shutdown.clone()).await.join_all());
    world.log.append(vec![produced("1", "QQ")]).await.unwrap();
    assert_eq!((successes(&world, 1).await, codes(&world).await.len()), (1, 0));

    world.clock.set(NOW_MS + 1_000);
    assert_eq!(last(build(&world)).await, done(2));
    assert_eq!((successes(&world, 2).await, codes(&world).await.len()), (1, 0), "what was folded stays");
    world.log.append(vec![produced("2", "QQ"), produced("3", "IE")]).await.unwrap();
    assert_eq!((successes(&world, 2).await, codes(&world).await.len()), (2, 1));
    assert_eq!(differences(&world).await, 0);
    shutdown.cancel();
}
