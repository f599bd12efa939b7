//! CloudEvents to the letter: what senders of every kind may write, and what has no one reading and is refused.

use crate::instance::{Answer, Instance, World, booked, login};
use flate2::Compression;
use flate2::write::GzEncoder;
use foretell::http::auth::{Keys, hash};
use foretell::http::openapi;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use std::io::Write;

const STRUCTURED: &str = "application/cloudevents+json";
const JSON: &str = "application/json";

/// Sends a body with headers as they are written, repeated ones included.
async fn send(instance: &Instance, (method, path): (Method, &str), headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
    let mut request = instance.request(method, path).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    Answer::of(request.send().await.unwrap()).await
}

const EVENTS: (Method, &str) = (Method::POST, "/v1/events");

fn data(user: &str) -> Value {
    json!({"user_id": user, "ip": "198.51.100.7"})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Every route with a body, with one that it takes.
fn bodies() -> [((Method, &'static str), &'static str, Value, u16); 7] {
    let visit = json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00Z"});
    let feedback = json!({"decision_id": "nobody's", "label": "fraud"});
    [
        (EVENTS, STRUCTURED, login("e", "u"), 202),
        ((Method::POST, "/v1/risk/logins"), JSON, data("u"), 200),
        ((Method::POST, "/v1/risk/appointments"), JSON, visit, 200),
        ((Method::POST, "/v1/feedback"), JSON, feedback, 404),
        ((Method::POST, "/v1/appointments/a/reminders"), JSON, json!({"reason": "call"}), 202),
        ((Method::PUT, "/v1/policies/login"), JSON, json!({"challenge_at": 0.4}), 200),
        ((Method::PUT, "/v1/models/no-show"), JSON, json!({}), 200),
    ]
}

#[tokio::test]
async fn gzip_is_undone_on_every_route_and_a_body_that_lies_about_it_is_refused() {
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    for (route, media_type, body, status) in bodies() {
        let with = async |coding: &str, body: &[u8]| {
            let headers = [("content-type", media_type.as_bytes()), ("content-encoding", coding.as_bytes())];
            send(&instance, route.clone(), &headers, body).await
        };
        let plain = body.to_string().into_bytes();
        let packed = gzip(&plain);
        for (coding, body) in
            [("gzip", &packed), ("X-GZIP", &packed), ("identity", &plain), ("identity, gzip", &packed)]
        {
            let answer = with(coding, body).await;
            assert_eq!(answer.status, status, "{route:?} {coding}: {}", answer.body);
        }
        for coding in ["br", "deflate", "zstd", "gzip, gzip", "gzip, br"] {
            let answer = with(coding, &packed).await;
            assert_eq!(answer.problem(), (415, "UNSUPPORTED_CONTENT_ENCODING"), "{route:?} {coding}");
            assert!(answer.body["detail"].as_str().unwrap().contains("Content-Encoding"));
            assert_eq!(answer.header("accept-encoding"), "gzip");
        }
        let trailing = [&packed[..], b"x"].concat();
        for body in [&plain[..], &packed[..packed.len() - 3], &trailing, b""] {
            let answer = with("gzip", body).await;
            assert_eq!(answer.problem(), (400, "MALFORMED_REQUEST"), "{route:?} {body:?}");
        }
        let bomb = with("gzip", &gzip(&vec![b' '; 200 * 1024 * 1024])).await;
        assert_eq!(bomb.problem(), (413, "BODY_TOO_LARGE"), "{route:?}");
    }
}

#[tokio::test]
async fn a_sender_of_webhooks_gets_consent_where_it_may_deliver() {
    let world = World::new();
    let mut parts = world.parts();
    let key = |name: &str, scope: &str| {
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{}\"\ntenant = \"acme\"\nscopes = [\"{scope}\"]\n", hash(name))
    };
    parts.keys = Some(Keys::parse(&(key("writer", "events:write") + &key("reader", "views:read"))).unwrap());
    let instance = Instance::with(world, parts).await;
    let options = (Method::OPTIONS, "/v1/events");
    let ask = async |key: &str, headers: &[(&str, &[u8])]| {
        let mut headers = headers.to_vec();
        if !key.is_empty() {
            headers.push(("authorization", key.as_bytes()));
        }
        send(&instance, options.clone(), &headers, b"").await
    };
    let origin: (&str, &[u8]) = ("webhook-request-origin", b"eventgrid.azure.net");
    let consent = ask("Bearer writer", &[origin, ("webhook-request-rate", b"120")]).await;
    assert_eq!((consent.status, consent.header("allow")), (200, "OPTIONS, POST"));
    assert_eq!(consent.header("webhook-allowed-origin"), "eventgrid.azure.net");
    assert_eq!(consent.header("webhook-allowed-rate"), "*");
    let plain = ask("Bearer writer", &[]).await;
    assert_eq!((plain.status, plain.header("allow")), (200, "OPTIONS, POST"));
    assert_eq!((plain.header("webhook-allowed-origin"), plain.header("webhook-allowed-rate")), ("", ""));
    for (key, headers, status) in [
        ("", &[origin][..], 401),
        ("Bearer guess", &[origin], 401),
        ("Bearer reader", &[origin], 403),
        ("Bearer writer", &[("webhook-request-origin", b"https://a, b")], 400),
        ("Bearer writer", &[origin, origin], 400),
        ("Bearer writer", &[origin, ("webhook-request-rate", b"0")], 400),
    ] {
        let refused = ask(key, headers).await;
        assert_eq!(refused.problem().0, status, "{key} {headers:?}");
        assert_eq!(refused.header("webhook-allowed-origin"), "", "no consent: {key} {headers:?}");
    }
    let elsewhere = send(&instance, (Method::OPTIONS, "/v1/feedback"), &[origin], b"").await;
    assert_eq!((elsewhere.status, elsewhere.header("webhook-allowed-origin")), (405, ""));
}

#[tokio::test]
async fn no_body_of_the_document_takes_null_where_the_service_refuses_it() {
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    for ((method, path), media_type, _, _) in bodies() {
        let answer = send(&instance, (method.clone(), path), &[("content-type", media_type.as_bytes())], b"null").await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.body);
        let template = path
            .replace("appointments/a/", "appointments/{appointment_id}/")
            .replace("policies/login", "policies/{policy}");
        let body = &document["paths"][template.as_str()][method.as_str().to_lowercase()]["requestBody"];
        let schemas: Vec<_> = body["content"].as_object().unwrap().values().map(|content| &content["schema"]).collect();
        for schema in schemas {
            assert!(schema["$ref"].is_string() || schema["type"].is_string(), "{path}: {schema}");
            assert_ne!(schema["type"], "null", "{path}");
        }
    }
    let body = &document["paths"]["/v1/appointments/{appointment_id}/reminders"]["post"]["requestBody"];
    assert_ne!(body["required"], true, "it may be left out");
}
