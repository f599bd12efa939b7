//! Training on demand: on folded events, one model at a time, and only while the caller waits.

use crate::gated::{Gated, Held};
use crate::instance::{HOUR_MS, NOW_MS, PARTITIONS, World, event, until};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::response::Response;
use axum::{Router, http::StatusCode};
use foretell_events::codec::{self, Defaults, encode_event, rfc3339};
use foretell_events::key;
use foretell_service::http::{Api, Parts, admin_router};
use foretell_service::ports::Ports;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn post(router: &Router, path: &str, body: &str) -> Response {
    router.clone().oneshot(Request::post(path).body(Body::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn train(router: &Router) -> Response {
    post(router, "/admin/jobs/train-no-show", r#"{"tenant": "default"}"#).await
}

#[tokio::test]
async fn operators_requests_are_read_as_any_other_json() {
    let router = admin_router(&Api::new(World::new().parts()));
    for (path, body) in [
        ("/admin/jobs/train-no-show", r#"{"tenant": "default"}"#),
        ("/admin/jobs/dead-letters", r#"{"filter": {}, "limit": 1, "action": {"list": "open"}}"#),
    ] {
        assert_eq!(post(&router, path, &format!("\u{feff}{body}")).await.status(), StatusCode::OK, "{path}");
        let doubled = body.replacen('{', r#"{"tenant": "default", "limit": 1, "#, 1);
        let problem = lines(post(&router, path, &doubled).await).await.remove(0);
        assert_eq!(problem["errors"][0]["code"], "DUPLICATE_MEMBER", "{path}: {problem}");
    }
}

/// The lines of an answer, or the problem.
async fn lines(answer: Response) -> Vec<Value> {
    let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[tokio::test]
async fn one_model_is_trained_at_a_time_and_only_while_a_caller_waits() {
    let world = World::new();
    let held = Gated::new(&world, Held::Appointments, 0);
    let router =
        admin_router(&Api::new(Parts { ports: Ports { log: held.clone(), ..world.ports() }, ..world.parts() }));
    let first = train(&router).await;
    assert_eq!(first.status(), StatusCode::OK);
    let second = train(&router).await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem = lines(second).await.remove(0);
    assert_eq!(problem["code"], "OVERLOADED");
    assert!(problem["detail"].as_str().unwrap().contains("one can run at a time"), "{problem}");
    // The caller disconnects: the slot is released when the training has noticed.
    drop(first);
    assert_eq!(train(&router).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    held.gate.add_permits(1);
    until(async || train(&router).await.status() == StatusCode::OK).await;
}

#[tokio::test]
async fn what_is_not_folded_is_not_learnt_from() {
    let world = World::new();
    let record = |id: &str, kind: &str, at_ms: i64, data: Value| {
        let mut told = event(id, kind, data);
        told["time"] = json!(rfc3339(at_ms));
        let defaults = Defaults { tenant: "default", time_ms: NOW_MS };
        encode_event(&codec::decode_structured(&told, defaults).unwrap().event, &[])
    };
    let of = |client: &str| key::partition(key::of("default", client).as_bytes(), PARTITIONS);
    // A booking and an outcome each: one in the right partition, and three that the fold ignores.
    for (n, stray, other_key, ahead_ms) in [(0, 0, false, 0), (1, 1, false, 0), (2, 0, true, 0), (3, 0, false, HOUR_MS)]
    {
        let (id, client) = (format!("a{n}"), format!("c{n}"));
        let starts_at = rfc3339(NOW_MS - HOUR_MS);
        let data = json!({"appointment_id": id, "client_id": client, "starts_at": starts_at, "time_zone": "UTC"});
        let booked = record(&format!("b{n}"), "appointment.booked", NOW_MS - 2 * HOUR_MS, data);
        let data = json!({"appointment_id": id, "client_id": client});
        let missed = record(&format!("o{n}"), "appointment.missed", NOW_MS + ahead_ms, data);
        for mut told in [booked, missed] {
            if other_key {
                told.key = Some("default:somebody".into());
            }
            let partition = if other_key { of("somebody") } else { (of(&client) + stray) % PARTITIONS };
            world.log.append_to(partition, told).unwrap();
        }
    }
    let router = admin_router(&Api::new(world.parts()));
    let told = lines(train(&router).await).await;
    let refused = told.last().unwrap();
    let detail = refused["failed"]["detail"].as_str().unwrap();
    assert!(detail.contains("1 rows with known outcomes, 1 of them missed"), "{detail}");
}
