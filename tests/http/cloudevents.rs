//! CloudEvents in detail: what senders of every kind may write, and what is ambiguous and rejected.

use crate::instance::{Answer, Instance, World, booked, login};
use flate2::Compression;
use flate2::write::GzEncoder;
use foretell_events::Topic;
use foretell_ports::log::Log;
use foretell_service::http::auth::{Keys, hash};
use foretell_service::http::openapi;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use std::io::Write;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";

/// Sends a body with headers exactly as given, including repeated ones.
async fn send(instance: &Instance, (method, path): (Method, &str), headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
    let mut request = instance.request(method, path).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    Answer::of(request.send().await.unwrap()).await
}

const EVENTS: (Method, &str) = (Method::POST, "/v1/events");

/// A login in binary mode, with these headers replacing or extending the usual ones.
async fn binary(instance: &Instance, headers: &[(&str, &[u8])], data: &Value) -> Answer {
    let usual: [(&str, &[u8]); 6] = [
        ("content-type", b"application/json"),
        ("prefer", b"wait=20"),
        ("ce-specversion", b"1.0"),
        ("ce-source", b"urn:test"),
        ("ce-type", b"foretell.login.succeeded"),
        ("ce-id", b"e"),
    ];
    let is_given = |name: &str| headers.iter().any(|(given, _)| *given == name);
    let all: Vec<_> = usual.iter().filter(|(name, _)| !is_given(name)).chain(headers).copied().collect();
    send(instance, EVENTS, &all, data.to_string().as_bytes()).await
}

fn data(user: &str) -> Value {
    json!({"user_id": user, "ip": "198.51.100.7"})
}

/// The first error of a problem: `pointer code`.
fn first(answer: &Answer) -> String {
    let error = &answer.body["errors"][0];
    format!("{} {}", error["pointer"].as_str().unwrap_or("?"), error["code"].as_str().unwrap_or("?"))
}

async fn appended(instance: &Instance) -> i64 {
    let mut count = 0;
    for topic in [Topic::Logins, Topic::Appointments] {
        for partition in 0..crate::instance::PARTITIONS {
            count += instance.world.log.extent(topic, partition).await.unwrap().end;
        }
    }
    count
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_header_value_is_read_as_the_structured_event_says_it() {
    let instance = Instance::start().await;
    for (user, id, sent) in [
        ("quoted", "a \"b\" c", &b"\"a \\\"b\\\" c\""[..]),
        ("encoded", "a \"b\" c", b"a%20%22b%22%20c"),
        ("percent", "100% sure", b"100%25%20sure"),
        ("twice", "a%20b", b"a%2520b"),
        ("words", "clínica 7 💊", b"cl%c3%ADnica%207%20%F0%9F%92%8A"),
        ("raw", "clínica", "clínica".as_bytes()),
        ("backslash", "a\\b", b"a\\b"),
        ("quoted backslash", "a\\b", b"\"a\\\\b\""),
        ("quoted and encoded", "é", b"\"%C3%A9\""),
    ] {
        let answer = binary(&instance, &[("ce-id", sent)], &data(user)).await;
        assert_eq!((answer.status, &answer.body["positions"][0]["id"]), (200, &json!(id)), "{user}: {}", answer.body);
        let mut structured = login(id, user);
        structured["data"] = data(user);
        instance.fold(&[structured]).await;
        let history = &instance.get(&format!("/v1/users/{user}")).await.body["history"];
        assert_eq!(history["successes"], 1, "{user}: the same event in two modes");
    }
}

#[tokio::test]
async fn a_header_value_without_one_reading_is_refused_with_its_place() {
    let instance = Instance::start().await;
    for value in [&b"%FF"[..], b"%C0%A0", b"\xe9", b"\"open", b"a\"b", b"\"a\"b\"", b"\"a\\\"", b"100%", b"%zz", b"%00"]
    {
        for (name, pointer) in [("ce-id", "/id"), ("ce-source", "/source"), ("ce-partner", "/partner")] {
            let answer = binary(&instance, &[(name, value)], &data("u")).await;
            assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{name}: {}", String::from_utf8_lossy(value));
            assert_eq!(first(&answer), format!("{pointer} INVALID_VALUE"), "{}", answer.body);
        }
    }
    assert_eq!(appended(&instance).await, 0);
}

#[tokio::test]
async fn attributes_stand_once_and_under_names_that_cloudevents_allows() {
    let instance = Instance::start().await;
    for (headers, expected) in [
        (&[("ce-id", &b"a"[..]), ("ce-id", b"b")][..], "/id DUPLICATE_MEMBER"),
        (&[("ce-id", b"a"), ("ce-id", b"a")], "/id DUPLICATE_MEMBER"),
        (&[("ce-partner", b"a"), ("ce-partner", b"b")], "/partner DUPLICATE_MEMBER"),
        (&[("ce-my_ext", b"a")], "/my_ext INVALID_NAME"),
        (&[("ce-my-ext", b"a")], "/my-ext INVALID_NAME"),
        (&[("ce-", b"a")], "/ INVALID_NAME"),
        (&[("ce-data", b"{}")], "/data INVALID_NAME"),
        (&[("ce-datacontenttype", b"application/json")], "/datacontenttype INVALID_VALUE"),
        (&[("ce-specversion", b"0.3")], "/specversion UNSUPPORTED_SPECVERSION"),
        (&[("ce-specversion", b"1.1")], "/specversion UNSUPPORTED_SPECVERSION"),
        (&[("ce-specversion", b"")], "/specversion INVALID_VALUE"),
        (&[("ce-subject", b"")], "/subject INVALID_VALUE"),
        (&[("ce-time", b"yesterday")], "/time INVALID_TIME"),
    ] {
        let answer = binary(&instance, headers, &data("u")).await;
        assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{headers:?}");
        assert_eq!(first(&answer), expected, "{}", answer.body);
    }
    for (name, value, expected) in [
        ("My-Ext", json!("a"), "/My-Ext INVALID_NAME"),
        ("traceId", json!(null), "/traceId INVALID_NAME"),
        ("partner", json!({"a": 1}), "/partner WRONG_TYPE"),
        ("partner", json!(1.5), "/partner INVALID_VALUE"),
        ("partner", json!(2_147_483_648_u64), "/partner INVALID_VALUE"),
        ("partner", json!("a\u{7}"), "/partner INVALID_VALUE"),
        ("id", json!("a\u{ffff}"), "/id INVALID_VALUE"),
        ("subject", json!(7), "/subject WRONG_TYPE"),
        ("subject", json!(""), "/subject INVALID_VALUE"),
        ("dataschema", json!(true), "/dataschema WRONG_TYPE"),
    ] {
        let mut event = login("e", "u");
        event[name] = value;
        let answer =
            send(&instance, EVENTS, &[("content-type", STRUCTURED.as_bytes())], event.to_string().as_bytes()).await;
        assert_eq!((answer.problem(), first(&answer).as_str()), ((422, "VALIDATION_FAILED"), expected), "{event}");
    }
    assert_eq!(appended(&instance).await, 0);
    let mut whole = login("e", "u");
    let extensions =
        [("partner", json!("p")), ("sampled", json!(true)), ("retries", json!(-3)), ("unset", json!(null))];
    extensions.iter().for_each(|(name, value)| whole[*name] = value.clone());
    instance.fold(&[whole]).await;
}

#[tokio::test]
async fn data_base64_is_the_same_data() {
    let instance = Instance::start().await;
    // {"user_id":"b64","ip":"198.51.100.7"}
    let encoded = "eyJ1c2VyX2lkIjoiYjY0IiwiaXAiOiIxOTguNTEuMTAwLjcifQ==";
    let event = |id: &str, members: Value| {
        let mut event =
            json!({"specversion": "1.0", "id": id, "source": "urn:test", "type": "foretell.login.succeeded"});
        event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        event
    };
    instance
        .fold(&[
            event("1", json!({"data_base64": encoded, "datacontenttype": "application/json"})),
            event("2", json!({"data_base64": encoded, "data": null})),
            event("1", json!({"data": {"user_id": "b64", "ip": "198.51.100.7"}, "data_base64": null})),
        ])
        .await;
    assert_eq!(instance.get("/v1/users/b64").await.body["history"]["successes"], 2);
    for (members, status, expected) in [
        (json!({"data_base64": encoded, "data": {"user_id": "b64", "ip": "::1"}}), 422, "/data_base64 INVALID_VALUE"),
        (json!({"data_base64": encoded.trim_end_matches('=')}), 422, "/data_base64 INVALID_VALUE"),
        (json!({"data_base64": encoded.replace('J', "-")}), 422, "/data_base64 INVALID_VALUE"),
        (json!({"data_base64": {"user_id": "b64"}}), 422, "/data_base64 WRONG_TYPE"),
        (json!({"data_base64": ""}), 400, "/data_base64 MALFORMED_JSON"),
        (json!({"data_base64": "bm8ganNvbg=="}), 400, "/data_base64 MALFORMED_JSON"),
        (json!({"data_base64": "W10="}), 422, "/data WRONG_TYPE"),
        // {"a":1,"a":2}
        (json!({"data_base64": "eyJhIjoxLCJhIjoyfQ=="}), 422, "/data_base64/a DUPLICATE_MEMBER"),
        (
            json!({"data_base64": encoded, "datacontenttype": "text/csv"}),
            422,
            "/datacontenttype UNSUPPORTED_CONTENT_TYPE",
        ),
        (json!({"data": null, "data_base64": null}), 422, "/data MISSING_FIELD"),
    ] {
        let body = event("3", members).to_string();
        let answer = send(&instance, EVENTS, &[("content-type", STRUCTURED.as_bytes())], body.as_bytes()).await;
        assert_eq!((answer.status, first(&answer).as_str()), (status, expected), "{body}");
    }
}

#[tokio::test]
async fn json_is_a_subtype_with_any_parameters_and_utf_8() {
    let instance = Instance::start().await;
    let names = [
        (JSON, true),
        ("text/json", true),
        ("application/vnd.crm.login.v2+json", true),
        ("application/JSON;charset=\"UTF-8\"", true),
        ("application/json ; profile=x", true),
        ("application/json; charset=iso-8859-1", false),
        ("application/json; charset=utf-16", false),
        ("application/json;; charset", false),
        ("application/xml", false),
        ("json", false),
    ];
    for (media_type, is_taken) in names {
        let answer = binary(&instance, &[("content-type", media_type.as_bytes())], &data("u")).await;
        let expected = if is_taken { (200, "null") } else { (415, "\"UNSUPPORTED_MEDIA_TYPE\"") };
        assert_eq!((answer.status, answer.body["code"].to_string().as_str()), expected, "binary {media_type}");
        let mut event = login("e", "u");
        event["datacontenttype"] = json!(media_type);
        let answer =
            send(&instance, EVENTS, &[("content-type", STRUCTURED.as_bytes())], event.to_string().as_bytes()).await;
        assert_eq!(answer.status, if is_taken { 202 } else { 422 }, "structured {media_type}: {}", answer.body);
        let attempt = data("u").to_string();
        let risk = (Method::POST, "/v1/risk/logins");
        let answer = send(&instance, risk, &[("content-type", media_type.as_bytes())], attempt.as_bytes()).await;
        assert_eq!(answer.status, if is_taken { 200 } else { 415 }, "risk {media_type}: {}", answer.body);
    }
    for media_type in ["Application/CloudEvents+JSON; charset=UTF-8", "application/cloudevents+json;charset=utf-8"] {
        let body = login("e", "u").to_string();
        let answer = send(&instance, EVENTS, &[("content-type", media_type.as_bytes())], body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{media_type}: {}", answer.body);
    }
    let twice: [(&str, &[u8]); 2] = [("content-type", STRUCTURED.as_bytes()), ("content-type", JSON.as_bytes())];
    let answer = send(&instance, EVENTS, &twice, login("e", "u").to_string().as_bytes()).await;
    assert_eq!(answer.problem(), (415, "UNSUPPORTED_MEDIA_TYPE"));
}

#[tokio::test]
async fn a_body_under_another_modes_media_type_is_answered_with_its_own() {
    let instance = Instance::start().await;
    let (one, many) = (login("e", "u"), json!([login("e", "u"), login("f", "u")]));
    for (media_type, body, right) in [
        (STRUCTURED, &many, BATCH),
        (STRUCTURED, &json!([]), BATCH),
        (JSON, &many, BATCH),
        ("text/json", &many, BATCH),
        (BATCH, &one, STRUCTURED),
        (JSON, &one, STRUCTURED),
        (JSON, &data("u"), JSON),
    ] {
        let answer =
            send(&instance, EVENTS, &[("content-type", media_type.as_bytes())], body.to_string().as_bytes()).await;
        assert_eq!(answer.problem(), (415, "UNSUPPORTED_MEDIA_TYPE"), "{media_type}: {body}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains(&format!("send it as {right}")) || (right == JSON && detail.contains(right)),
            "{detail}"
        );
    }
    assert_eq!(appended(&instance).await, 0);
}

/// Every route with a body, with one that it accepts.
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
async fn a_doubled_member_is_refused_on_every_route_with_its_place() {
    let instance = Instance::start().await;
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let before = appended(&instance).await;
    let twice = |body: &Value| {
        let text = body.to_string();
        format!("{},\"x\":{{\"y\":[{{\"k\":1,\"k\":1}}]}}}}", text.strip_suffix('}').unwrap()).replace("{,", "{")
    };
    for (route, media_type, body, _) in bodies() {
        let body = twice(&body);
        let answer = send(&instance, route.clone(), &[("content-type", media_type.as_bytes())], body.as_bytes()).await;
        assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{route:?} {body}");
        assert_eq!(first(&answer), "/x/y/0/k DUPLICATE_MEMBER", "{route:?} {}", answer.body);
    }
    let event = login("e", "u").to_string();
    for (media_type, body, place) in [
        (STRUCTURED, event.replace("\"id\":", "\"id\":\"first\",\"id\":"), "/id"),
        (STRUCTURED, event.replace("\"user_id\":", "\"user_id\":\"mallory\",\"user\\u005fid\":"), "/data/user_id"),
        (BATCH, format!("[{event},{}]", event.replace("\"ip\":", "\"ip\":\"::1\",\"ip\":")), "/1/data/ip"),
    ] {
        let answer = send(&instance, EVENTS, &[("content-type", media_type.as_bytes())], body.as_bytes()).await;
        assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{body}");
        assert_eq!(first(&answer), format!("{place} DUPLICATE_MEMBER"), "{body}");
    }
    let headers: [(&str, &[u8]); 5] = [
        ("content-type", JSON.as_bytes()),
        ("ce-specversion", b"1.0"),
        ("ce-id", b"e"),
        ("ce-source", b"urn:test"),
        ("ce-type", b"foretell.login.succeeded"),
    ];
    let answer = send(&instance, EVENTS, &headers, br#"{"user_id":"a","user_id":"b","ip":"::1"}"#).await;
    assert_eq!((answer.status, first(&answer).as_str()), (422, "/data/user_id DUPLICATE_MEMBER"));
    assert_eq!(appended(&instance).await, before);
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
    let post = async |key: &str, headers: &[(&str, &[u8])]| {
        let mut headers = headers.to_vec();
        if !key.is_empty() {
            headers.push(("authorization", key.as_bytes()));
        }
        send(&instance, options.clone(), &headers, b"").await
    };
    let origin: (&str, &[u8]) = ("webhook-request-origin", b"eventgrid.azure.net");
    let consent = post("Bearer writer", &[origin, ("webhook-request-rate", b"120")]).await;
    assert_eq!((consent.status, consent.header("allow")), (200, "OPTIONS, POST"));
    assert_eq!(consent.header("webhook-allowed-origin"), "eventgrid.azure.net");
    assert_eq!(consent.header("webhook-allowed-rate"), "*");
    let plain = post("Bearer writer", &[]).await;
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
        let refused = post(key, headers).await;
        assert_eq!(refused.problem().0, status, "{key} {headers:?}");
        assert_eq!(refused.header("webhook-allowed-origin"), "", "no consent: {key} {headers:?}");
    }
    let elsewhere =
        send(&instance, (Method::OPTIONS, "/v1/feedback"), &[origin, ("authorization", b"Bearer writer")], b"").await;
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
