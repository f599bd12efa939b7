//! Events in every form in which they can be sent, and what the answer guarantees.

use crate::instance::{Answer, Instance, PARTITIONS, World, booked, event, login};
use foretell_events::{Topic, key};
use foretell_ports::log::record_at;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn structured_binary_and_batch_become_the_same_records() {
    let instance = Instance::start().await;
    let data = json!({"user_id": "u", "ip": "198.51.100.7", "extra": {"kept": true}});
    let mut whole = event("one", "login.failed", data.clone());
    whole["partner"] = json!("p1");
    let send = async |content_type: &str, headers: &[(&str, &str)], body: String| {
        let mut request = instance.request(Method::POST, "/v1/events").header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "one"),
        ("ce-source", "urn:test"),
        ("ce-type", "foretell.login.failed"),
        ("ce-time", "2026-03-01T10:00:00Z"),
        ("ce-partner", "p1"),
    ];
    let answers = [
        send("application/cloudevents+json; charset=utf-8", &[], whole.to_string()).await,
        send("application/json", &attributes, data.to_string()).await,
        send("application/cloudevents-batch+json", &[], json!([whole]).to_string()).await,
    ];
    let partition = key::partition(b"default:u", PARTITIONS);
    let mut records = Vec::new();
    for (offset, answer) in (0..).zip(&answers) {
        assert_eq!(answer.status, 202, "{}", answer.body);
        let position = json!({"id": "one", "topic": "foretell.logins", "partition": partition, "offset": offset});
        assert_eq!(answer.body, json!({"accepted": 1, "positions": [position]}));
        let record = record_at(instance.world.log.as_ref(), Topic::Logins, partition, offset).await.unwrap().unwrap();
        assert_eq!(record.key.as_deref(), Some(b"default:u".as_slice()));
        let headers: Vec<_> = record.headers.into_iter().filter(|(name, _)| name != "traceparent").collect();
        records.push((record.value, headers));
    }
    assert_eq!(records[0], records[1]);
    assert_eq!(records[0], records[2]);
    let value: serde_json::Value = serde_json::from_slice(&records[0].0).unwrap();
    assert_eq!(value["extra"]["kept"], true, "what is not known is kept");
    assert!(records[0].1.iter().any(|(name, value)| name == "ce_partner" && value == "p1"));
}

#[tokio::test]
async fn an_empty_batch_is_nothing() {
    let instance = Instance::start().await;
    let request = instance.request(Method::POST, "/v1/events");
    let request = request.header("content-type", "application/cloudevents-batch+json").body("[]");
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.body), (202, json!({"accepted": 0, "positions": []})));
}

#[tokio::test]
async fn after_a_wait_every_read_contains_the_events() {
    let instance = Instance::start().await;
    for n in 1..=20 {
        // The earlier scores fill the cache, from which the later read must not be answered.
        let attempt = json!({"user_id": "u", "ip": "198.51.100.7", "country": "IE"});
        instance.post("/v1/risk/logins", &attempt).await;
        let answer = instance.fold(&[login(&format!("e{n}"), "u")]).await;
        let score = instance.post("/v1/risk/logins", &attempt).await.body;
        assert_eq!(score["history"]["successes"], n);
        assert!(score["view"]["offset"].as_i64() > answer.body["positions"][0]["offset"].as_i64());
        let average = format!("the average account has {n}.0");
        assert!(score["reasons"][0]["description"].as_str().unwrap().contains(&average), "{}", score["reasons"][0]);
    }
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_202() {
    let world = World::new();
    let parts = world.parts();
    let instance = Instance::without_views(world, parts).await;
    let request = instance.request(Method::POST, "/v1/events").header("prefer", "wait=0");
    let request = request.header("content-type", "application/cloudevents+json");
    let answer = Answer::of(request.body(login("e", "u").to_string()).send().await.unwrap()).await;
    assert_eq!((answer.status, &answer.body["folded"]), (202, &json!(false)));
}

#[tokio::test]
async fn a_repeated_event_changes_nothing() {
    let instance = Instance::start().await;
    instance.fold(&[login("same", "u"), login("same", "u")]).await;
    instance.fold(&[login("same", "u"), login("other", "u")]).await;
    assert_eq!(instance.get("/v1/users/u").await.body["history"]["successes"], 2);
}

#[tokio::test]
async fn the_callers_trace_goes_on_into_records_and_problems() {
    let instance = Instance::start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let send = async |body: String| {
        let request =
            instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
        let request = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    assert_eq!(send("{}".into()).await.body["trace_id"], trace);
    let answer = send(booked("e", "c", "a", "2026-03-29T09:30:00").to_string()).await;
    let (partition, offset) = (&answer.body["positions"][0]["partition"], &answer.body["positions"][0]["offset"]);
    let (partition, offset) = (partition.as_u64().unwrap() as u32, offset.as_i64().unwrap());
    let record = record_at(instance.world.log.as_ref(), Topic::Appointments, partition, offset).await.unwrap().unwrap();
    let header = String::from_utf8(record.header("traceparent").unwrap().to_vec()).unwrap();
    assert!(header.starts_with(&format!("00-{trace}-")) && !header.contains("b7ad6b7169203331"), "{header}");
}

#[tokio::test]
async fn each_event_that_is_waited_for_is_answered_with_its_outcome() {
    let instance = Instance::start().await;
    let mut before = login("before", "gone");
    before["time"] = json!("2026-03-01T09:00:00Z");
    let visit = |id: &str| event(id, "appointment.confirmed", json!({"appointment_id": "a", "client_id": "c"}));
    let answer = instance
        .fold(&[
            login("one", "u"),
            login("one", "u"),
            login("two", "u"),
            event("erased", "user.erased", json!({"user_id": "gone"})),
            before,
            booked("b", "c", "a", "2026-03-29T09:30:00"),
            visit("first"),
            visit("again"),
            event("trusted", "device.trusted", json!({"user_id": "u", "device_id": "d"})),
            event("trusted again", "device.trusted", json!({"user_id": "u", "device_id": "d"})),
        ])
        .await;
    let (applied, skipped) = ("applied", "skipped");
    let expected = [applied, skipped, applied, applied, skipped, applied, applied, skipped, applied, skipped];
    assert_eq!(answer.body["outcomes"], json!(expected));
    // Without a wait, the answer does not state whether it was folded.
    let request = instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let answer = Answer::of(request.body(login("three", "u").to_string()).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.body.get("folded"), answer.body.get("outcomes")), (202, None, None));
}

#[tokio::test]
async fn what_finds_no_room_or_is_impossible_is_answered_as_that_and_not_as_a_repetition() {
    let instance = Instance::start().await;
    let date = |n: i16| jiff::civil::date(2026, 4, 1).checked_add(jiff::Span::new().days(n)).unwrap();
    let visit = |n: i16| booked(&format!("b{n}"), "c", &format!("a{n}"), &format!("{}T09:30:00", date(n)));
    let kept: Vec<_> = (0..256).map(visit).collect();
    for batch in kept.chunks(64) {
        assert_eq!(instance.fold(batch).await.body["outcomes"], json!(vec!["applied"; 64]));
    }
    let missed = event("m", "appointment.missed", json!({"appointment_id": "a9", "client_id": "c"}));
    let again = visit(300);
    let answer = instance.fold(&[visit(299), again.clone(), again, missed.clone(), missed, visit(3)]).await;
    let (over_capacity, impossible) = ("no_room", "impossible");
    assert_eq!(
        answer.body["outcomes"],
        json!([over_capacity, over_capacity, over_capacity, impossible, impossible, "skipped"])
    );
}

/// The row changes all the time, and an API without views reads the outcomes of events from it.
#[tokio::test]
async fn outcomes_are_exact_while_many_write_about_one_user_from_another_process() {
    let world = World::new();
    let _folding = Instance::with(world.clone(), world.parts()).await;
    let instance = Instance::without_views(world.clone(), world.parts()).await;
    let send = |id: String| {
        let request = instance.request(Method::POST, "/v1/events").header("prefer", "wait=20");
        let request = request.header("content-type", "application/cloudevents+json");
        let request = request.body(login(&id, "u").to_string());
        async move { Answer::of(request.send().await.unwrap()).await.body["outcomes"].clone() }
    };
    for round in 0..6 {
        // Each id four times: one of them is applied.
        let sent = (0..40).map(|n| send(format!("{round}-{}", n % 10)));
        let outcomes = futures::future::join_all(sent).await;
        for id in 0..10 {
            let mut of: Vec<_> = outcomes.iter().skip(id).step_by(10).map(ToString::to_string).collect();
            of.sort();
            assert_eq!(of, [r#"["applied"]"#, r#"["skipped"]"#, r#"["skipped"]"#, r#"["skipped"]"#], "{round} {id}");
        }
    }
}

#[tokio::test]
async fn an_erasure_that_is_dated_ahead_counts_from_its_arrival() {
    let instance = Instance::start().await;
    let ahead = |id: &str, kind: &str, data| {
        let mut erased = event(id, kind, data);
        erased["time"] = json!("2026-03-01T10:04:50Z");
        erased
    };
    let answer = instance
        .fold(&[
            login("before", "u"),
            ahead("x", "user.erased", json!({"user_id": "u"})),
            ahead("y", "client.erased", json!({"client_id": "c"})),
        ])
        .await;
    assert_eq!(answer.body["outcomes"], json!(["applied", "applied", "applied"]));
    instance.world.clock.set(crate::instance::NOW_MS + 1);
    let mut again = [login("after", "u"), booked("b", "c", "a", "2026-03-29T09:30:00")];
    again.iter_mut().for_each(|event| event["time"] = json!("2026-03-01T10:00:00.001Z"));
    assert_eq!(instance.fold(&again).await.body["outcomes"], json!(["applied", "applied"]));
    assert_eq!(instance.get("/v1/users/u").await.status, 200);
    assert_eq!(instance.get("/v1/appointments/a").await.status, 200);
}
