//! Invalid inputs, one row each: the input, and the status, code and pointer of the answer.

use crate::instance::{Answer, Instance, World, booked, event, login};
use foretell_ports::log::Log;
use reqwest::Method;
use serde_json::{Value, json};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";

/// Path, content type, body, status, code, and for input errors one pointer with its code.
type Row = (&'static str, &'static str, String, u16, &'static str, Option<(&'static str, &'static str)>);

async fn check(instance: &Instance, rows: Vec<Row>) {
    for (path, content_type, body, status, code, place) in rows {
        let request = instance.request(Method::POST, path).header("content-type", content_type);
        let answer = Answer::of(request.body(body.clone()).send().await.unwrap()).await;
        let shown: String = body.chars().take(200).collect();
        assert_eq!(answer.problem(), (status, code), "{path} {content_type} {shown}: {}", answer.body);
        let places: Vec<_> = answer.body["errors"].as_array().into_iter().flatten().collect();
        match place {
            None => {}
            Some((pointer, code)) => assert!(
                places.iter().any(|error| error["pointer"] == pointer && error["code"] == code),
                "{path} {shown}: {places:?}"
            ),
        }
    }
}

fn with(mut event: Value, pointer: &str, value: Value) -> String {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name)
    } else {
        parent.insert(name.to_owned(), value)
    };
    event.to_string()
}

#[tokio::test]
async fn events_that_are_refused() {
    let instance = Instance::start().await;
    let events = "/v1/events";
    let one = || login("e", "u");
    let many = |n: usize, user: fn(usize) -> String| {
        let events: Vec<_> = (0..n).map(|i| login(&format!("e{i}"), &user(i))).collect();
        json!(events).to_string()
    };
    let invalid = |body: String, pointer: &'static str, code: &'static str| -> Row {
        (events, STRUCTURED, body, 422, "VALIDATION_FAILED", Some((pointer, code)))
    };
    check(
        &instance,
        vec![
            (events, STRUCTURED, "{".into(), 400, "MALFORMED_JSON", None),
            (events, BATCH, "[{]".into(), 400, "MALFORMED_JSON", None),
            (events, STRUCTURED, String::new(), 400, "MALFORMED_JSON", None),
            (events, "text/plain", "hello".into(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (events, JSON, one().to_string(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (events, "application/cloudevents+avro", "x".into(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (events, BATCH, one().to_string(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (events, STRUCTURED, "[]".into(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (events, STRUCTURED, "7".into(), 422, "VALIDATION_FAILED", Some(("", "NOT_A_CLOUDEVENT"))),
            (events, STRUCTURED, "x".repeat(1024 * 1024 + 1), 413, "BODY_TOO_LARGE", None),
            (events, BATCH, many(1_001, |i| format!("u{i}")), 413, "TOO_MANY_EVENTS", None),
            (
                events,
                BATCH,
                many(65, |_| "u".into()),
                422,
                "TOO_MANY_PER_SUBJECT",
                Some(("/64", "TOO_MANY_PER_SUBJECT")),
            ),
            invalid(with(one(), "/id", json!(null)), "/id", "MISSING_FIELD"),
            invalid(with(one(), "/specversion", json!("0.3")), "/specversion", "UNSUPPORTED_SPECVERSION"),
            invalid(with(one(), "/type", json!("foretell.login.succeded")), "/type", "UNKNOWN_TYPE"),
            invalid(with(one(), "/tenant", json!("Acme")), "/tenant", "INVALID_VALUE"),
            invalid(with(one(), "/time", json!("yesterday")), "/time", "INVALID_TIME"),
            invalid(with(one(), "/time", json!("2026-03-01T10:05:01Z")), "/time", "TIME_IN_FUTURE"),
            invalid(with(one(), "/data", json!([])), "/data", "WRONG_TYPE"),
            invalid(with(one(), "/data/user_id", json!(null)), "/data/user_id", "MISSING_FIELD"),
            invalid(with(one(), "/data/user_id", json!("x".repeat(513))), "/data/user_id", "TOO_LONG"),
            invalid(with(one(), "/data/ip", json!("300.1.1.1")), "/data/ip", "INVALID_ADDRESS"),
            invalid(with(one(), "/data/country", json!("Ireland")), "/data/country", "INVALID_VALUE"),
            invalid(booked("e", "c", "a", "2026-02-30T09:00:00").to_string(), "/data/starts_at", "INVALID_TIME"),
            invalid(
                with(booked("e", "c", "a", "2026-03-30T09:00:00"), "/data/time_zone", json!("Europe/Atlantis")),
                "/data/time_zone",
                "UNKNOWN_TIME_ZONE",
            ),
            invalid(
                event(
                    "e",
                    "reminder.withdrawn",
                    json!({
                        "reminder_id": "r", "appointment_id": "a", "client_id": "c", "reason": "cancelled"
                    }),
                )
                .to_string(),
                "/type",
                "NOT_ACCEPTED",
            ),
        ],
    )
    .await;
    let topic = foretell_events::Topic::Logins;
    for partition in 0..crate::instance::PARTITIONS {
        assert_eq!(instance.world.log.extent(topic, partition).await.unwrap().end, 0, "nothing was appended");
    }
}

#[tokio::test]
async fn every_faulty_event_of_a_batch_is_named_and_none_is_appended() {
    let instance = Instance::start().await;
    let mut events: Vec<_> = (0..5).map(|i| login(&format!("e{i}"), "u")).collect();
    events[1]["data"]["ip"] = json!("nowhere");
    events[3]["data"]["user_id"] = json!(7);
    events[3]["id"] = json!("");
    let request = instance.request(Method::POST, "/v1/events").header("content-type", BATCH);
    let answer = Answer::of(request.body(json!(events).to_string()).send().await.unwrap()).await;
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"));
    let places: Vec<_> = answer.body["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(places, ["/1/data/ip", "/3/id", "/3/data/user_id"]);
    assert_eq!(instance.get("/v1/users/u").await.problem(), (404, "USER_NOT_FOUND"));
}

#[tokio::test]
async fn questions_that_are_refused() {
    let instance = Instance::start().await;
    let (logins, visits) = ("/v1/risk/logins", "/v1/risk/appointments");
    let invalid = |path, body: Value, pointer: &'static str, code: &'static str| -> Row {
        (path, JSON, body.to_string(), 422, "VALIDATION_FAILED", Some((pointer, code)))
    };
    check(
        &instance,
        vec![
            (logins, JSON, "{\"user_id\"".into(), 400, "MALFORMED_JSON", None),
            (logins, JSON, "[]".into(), 422, "VALIDATION_FAILED", Some(("", "WRONG_TYPE"))),
            (logins, "application/x-www-form-urlencoded", "a=b".into(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (logins, JSON, format!("\"{}\"", "x".repeat(1024 * 1024)), 413, "BODY_TOO_LARGE", None),
            invalid(logins, json!({}), "/user_id", "MISSING_FIELD"),
            invalid(logins, json!({}), "/ip", "MISSING_FIELD"),
            invalid(logins, json!({"user_id": "u", "ip": "x"}), "/ip", "INVALID_ADDRESS"),
            invalid(logins, json!({"user_id": "u", "ip": "::1", "latitude": 91}), "/latitude", "INVALID_VALUE"),
            invalid(logins, json!({"user_id": "u", "ip": "::1", "asn": "AS1"}), "/asn", "WRONG_TYPE"),
            invalid(
                logins,
                json!({"user_id": "u", "ip": "::1", "occurred_at": "2026-03-01T10:05:01Z"}),
                "/occurred_at",
                "TIME_IN_FUTURE",
            ),
            invalid(
                logins,
                json!({"user_id": "u", "ip": "::1", "attributes": {"a": {}}}),
                "/attributes/a",
                "WRONG_TYPE",
            ),
            invalid(visits, json!({}), "/client_id", "MISSING_FIELD"),
            invalid(visits, json!({"client_id": "c"}), "/starts_at", "MISSING_FIELD"),
            invalid(
                visits,
                json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00"}),
                "/time_zone",
                "MISSING_FIELD",
            ),
            invalid(visits, json!({"appointment_id": "nobody's"}), "/appointment_id", "UNKNOWN_APPOINTMENT"),
            ("/v1/appointments/a/reminders", JSON, "{}".into(), 404, "APPOINTMENT_NOT_FOUND", None),
            ("/v1/nowhere", JSON, "{}".into(), 404, "PATH_NOT_FOUND", None),
            ("/livez", JSON, "{}".into(), 405, "METHOD_NOT_ALLOWED", None),
            invalid("/v1/feedback", json!({}), "/decision_id", "MISSING_FIELD"),
            invalid("/v1/feedback", json!({}), "/label", "MISSING_FIELD"),
            invalid("/v1/feedback", json!({"decision_id": "d", "label": "maybe"}), "/label", "INVALID_VALUE"),
            invalid("/v1/feedback", json!({"decision_id": 7, "label": "fraud"}), "/decision_id", "WRONG_TYPE"),
            invalid(
                "/v1/feedback",
                json!({"decision_id": "d", "label": "fraud", "reported_by": 1}),
                "/reported_by",
                "WRONG_TYPE",
            ),
            (
                "/v1/feedback",
                JSON,
                json!({"decision_id": "d", "label": "fraud"}).to_string(),
                404,
                "DECISION_NOT_FOUND",
                None,
            ),
        ],
    )
    .await;
    for (path, status, code) in [
        ("/v1/users/nobody", 404, "USER_NOT_FOUND"),
        ("/v1/clients/nobody", 404, "CLIENT_NOT_FOUND"),
        ("/v1/appointments/none", 404, "APPOINTMENT_NOT_FOUND"),
        ("/v1/decisions/none", 404, "DECISION_NOT_FOUND"),
        ("/v1/risk/appointments/none", 404, "APPOINTMENT_NOT_FOUND"),
        ("/v1/risk/logins", 405, "METHOD_NOT_ALLOWED"),
        ("/v1/users/%FF", 400, "MALFORMED_REQUEST"),
        ("/nowhere", 404, "PATH_NOT_FOUND"),
    ] {
        assert_eq!(instance.get(path).await.problem(), (status, code), "{path}");
    }
    let long = format!("/v1/users/{}/devices/d", "x".repeat(513));
    let answer = Answer::of(instance.request(Method::PUT, &long).send().await.unwrap()).await;
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"));
}

#[tokio::test]
async fn tenants_that_contradict() {
    let instance = Instance::start().await;
    let send = async |tenant: &str, event: Value| {
        let request = instance.request(Method::POST, "/v1/events").header("content-type", STRUCTURED);
        Answer::of(request.header("foretell-tenant", tenant).body(event.to_string()).send().await.unwrap()).await
    };
    let mut named = login("e", "u");
    named["tenant"] = json!("other");
    let refused = send("acme", named.clone()).await;
    assert_eq!(refused.problem(), (422, "VALIDATION_FAILED"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/tenant");
    assert_eq!(refused.body["errors"][0]["code"], "TENANT_MISMATCH");
    assert_eq!(send("Not A Tenant", login("e", "u")).await.problem(), (400, "MALFORMED_REQUEST"));
    assert_eq!(send("other", named.clone()).await.status, 202);
    assert_eq!(instance.fold(&[named]).await.status, 200, "without a header the event's own tenant holds");
    let of = async |tenant: &str| {
        let request = instance.request(Method::GET, "/v1/users/u").header("foretell-tenant", tenant);
        Answer::of(request.send().await.unwrap()).await.status
    };
    assert_eq!((of("other").await, of("acme").await, of("default").await), (200, 404, 404));
}

#[tokio::test]
async fn keys_open_their_tenant_and_their_scopes_only() {
    let world = World::new();
    let mut parts = world.parts();
    let key = |name: &str, tenant: &str, scopes: &str| {
        let hash = foretell_service::http::auth::hash(name);
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ntenant = \"{tenant}\"\nscopes = [{scopes}]\n")
    };
    let file = key("writer", "acme", "\"events:write\"")
        + &key("reader", "acme", "\"views:read\", \"risk:read\"")
        + &key("root", "globex", "\"admin\"");
    parts.keys = Some(foretell_service::http::auth::Keys::parse(&file).unwrap());
    let instance = Instance::with(world, parts).await;
    let get = async |path: &str, key: &str, tenant: &str| {
        let mut request = instance.request(Method::GET, path);
        for (name, value) in [("authorization", key), ("foretell-tenant", tenant)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        Answer::of(request.send().await.unwrap()).await
    };
    let events = instance.request(Method::POST, "/v1/events").header("content-type", STRUCTURED);
    let events = events.header("authorization", "Bearer writer").header("prefer", "wait=20");
    let answer = Answer::of(events.body(login("e", "u").to_string()).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for (path, key, tenant, status, code) in [
        ("/v1/users/u", "", "", 401, "UNAUTHENTICATED"),
        ("/v1/users/u", "Bearer guess", "", 401, "UNAUTHENTICATED"),
        ("/v1/users/u", "Basic reader", "", 401, "UNAUTHENTICATED"),
        ("/v1/users/u", "Bearer writer", "", 403, "SCOPE_MISSING"),
        ("/v1/users/u", "Bearer reader", "globex", 403, "TENANT_FORBIDDEN"),
        ("/v1/users/u", "Bearer root", "", 404, "USER_NOT_FOUND"),
        ("/v1/reminders/stream", "", "", 401, "UNAUTHENTICATED"),
    ] {
        assert_eq!(get(path, key, tenant).await.problem(), (status, code), "{path} {key} {tenant}");
    }
    assert_eq!(get("/v1/users/u", "Bearer reader", "").await.status, 200);
    assert_eq!(get("/v1/users/u", "bearer reader", "acme").await.status, 200);
    assert_eq!(get("/livez", "", "").await.status, 200);
}

#[tokio::test]
async fn keys_append_events_of_their_scopes_only_and_erasure_needs_its_own() {
    let world = World::new();
    let mut parts = world.parts();
    let keys = [
        ("logins", "events:logins"),
        ("appointments", "events:appointments"),
        ("label", "decisions:label"),
        ("feedback", "feedback:write"),
        ("reminders", "reminders:write"),
        ("events", "events:write"),
        ("erase", "erase"),
        ("admin", "admin"),
        ("reader", "views:read"),
    ];
    let key = |(name, scope): &(&str, &str)| {
        let hash = foretell_service::http::auth::hash(name);
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ntenant = \"acme\"\nscopes = [\"{scope}\"]\n")
    };
    parts.keys = Some(foretell_service::http::auth::Keys::parse(&keys.iter().map(key).collect::<String>()).unwrap());
    let instance = Instance::with(world, parts).await;
    let send = async |key: &str, media: &str, body: &Value| {
        let request = instance.request(Method::POST, "/v1/events").header("content-type", media);
        Answer::of(request.bearer_auth(key).body(body.to_string()).send().await.unwrap()).await
    };
    let device = json!({"user_id": "u", "device_id": "d"});
    let visit = json!({"appointment_id": "a", "client_id": "c"});
    let receipt = json!({"reminder_id": "r", "appointment_id": "a", "client_id": "c"});
    let verdict = json!({"user_id": "u", "decision_id": "d"});
    for (kind, data, opens) in [
        ("device.trusted", &device, &["logins", "events", "admin"][..]),
        ("appointment.missed", &visit, &["appointments", "events", "admin"]),
        ("client.updated", &json!({"client_id": "c"}), &["appointments", "events", "admin"]),
        ("reminder.delivered", &receipt, &["appointments", "events", "admin"]),
        ("login.reported", &verdict, &["label", "feedback", "events", "admin"]),
        ("reminder.requested", &visit, &["reminders", "events", "admin"]),
        ("user.erased", &json!({"user_id": "u"}), &["erase", "admin"]),
        ("client.erased", &json!({"client_id": "c"}), &["erase", "admin"]),
    ] {
        for (name, _) in keys {
            let answer = send(name, STRUCTURED, &event("e", kind, data.clone())).await;
            match opens.contains(&name) {
                true => assert_eq!(answer.status, 202, "{name} {kind}: {}", answer.body),
                false => assert_eq!(answer.problem(), (403, "SCOPE_MISSING"), "{name} {kind}"),
            }
        }
    }
    let batch = json!([login("e1", "other"), event("e2", "user.erased", json!({"user_id": "other"}))]);
    let refused = send("events", BATCH, &batch).await;
    assert_eq!(refused.problem(), (403, "SCOPE_MISSING"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/1/type");
    assert_eq!(refused.body["errors"][0]["detail"], "foretell.user.erased needs the scope erase");
    let of = |path: &str, key: &str| instance.request(Method::GET, path).bearer_auth(key).send();
    assert_eq!(of("/v1/users/other", "reader").await.unwrap().status(), 404, "nothing of the batch was appended");
}

#[tokio::test]
async fn reading_is_split_into_logins_and_visits() {
    let world = World::new();
    let mut parts = world.parts();
    let key = |scope: &str| {
        let hash = foretell_service::http::auth::hash(scope);
        format!("[[keys]]\nname = \"{scope}\"\nsha256 = \"{hash}\"\ntenant = \"acme\"\nscopes = [\"{scope}\"]\n")
    };
    let scopes = ["logins:read", "visits:read", "views:read", "risk:read", "policies:write", "admin"];
    parts.keys = Some(foretell_service::http::auth::Keys::parse(&scopes.map(key).concat()).unwrap());
    let instance = Instance::with(world, parts).await;
    let scored = async |path: &str, body: Value| {
        let request = instance.request(Method::POST, path).bearer_auth("risk:read").json(&body);
        let id = Answer::of(request.send().await.unwrap()).await.body["id"].clone();
        format!("/v1/decisions/{}", id.as_str().unwrap())
    };
    let of_login = scored("/v1/risk/logins", json!({"user_id": "u", "ip": "198.51.100.7"})).await;
    let of_visit =
        scored("/v1/risk/appointments", json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00Z"})).await;
    let (logins, visits) = (["logins:read", "views:read", "admin"], ["visits:read", "views:read", "admin"]);
    for (method, path, opens) in [
        (Method::GET, "/v1/users/u", &logins[..]),
        (Method::GET, "/v1/policies/login", &logins),
        (Method::GET, "/v1/policies/login/versions", &logins),
        (Method::GET, &of_login, &logins),
        (Method::GET, "/v1/clients/c", &visits),
        (Method::GET, "/v1/appointments/a", &visits),
        (Method::GET, "/v1/agenda", &visits),
        (Method::GET, "/v1/policies/reminders", &visits),
        (Method::GET, "/v1/policies/reminders/versions", &visits),
        (Method::GET, "/v1/models/no-show", &visits),
        (Method::GET, "/v1/models/no-show/versions", &visits),
        (Method::HEAD, "/v1/reminders/stream", &visits),
        (Method::POST, "/v1/streams/tickets", &visits),
        (Method::GET, &of_visit, &visits),
        (Method::PUT, "/v1/policies/login", &["policies:write", "admin"]),
        (Method::PUT, "/v1/models/no-show", &["policies:write", "admin"]),
    ] {
        for scope in scopes {
            let request = instance.request(method.clone(), path).bearer_auth(scope).header("content-type", JSON);
            let request = if method == Method::PUT { request.body("{}") } else { request };
            let status = request.send().await.unwrap().status().as_u16();
            let closed = match path.starts_with("/v1/decisions/") && ["logins:read", "visits:read"].contains(&scope) {
                // Some decisions are visible to it; the answer does not reveal that this one exists.
                true => 404,
                false => 403,
            };
            assert_eq!(status != closed, opens.contains(&scope), "{scope} {method} {path}: {status}");
            assert_ne!(status, 401, "{scope}");
        }
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_everywhere() {
    let instance = Instance::start().await;
    let document: Value = instance.get("/openapi.json").await.body;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["/livez", "/readyz"].contains(&path.as_str()) {
                continue;
            }
            let path = path.replace("{policy}", "login").replace(['{', '}'], "");
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = Answer::of(instance.request(method, &format!("{path}?lmit=1")).send().await.unwrap()).await;
            assert_eq!(answer.problem(), (400, "UNKNOWN_PARAMETER"), "{path}: {}", answer.body);
            assert_eq!(answer.body["errors"][0]["pointer"], "/lmit");
            assert_eq!(answer.body["errors"][0]["code"], "UNKNOWN_PARAMETER");
        }
    }
    let agenda = instance.get("/v1/agenda?lmit=1").await;
    assert_eq!(agenda.body["detail"], "there is no query parameter lmit; did you mean limit?");
    assert_eq!(instance.get("/v1/agenda?limit=1").await.status, 200);
    assert_eq!(instance.get("/v1/agenda?limit=1&limit=2").await.problem(), (400, "MALFORMED_REQUEST"));
    assert_eq!(instance.get("/v1/agenda?").await.status, 200);
    assert_eq!(instance.get("/livez").await.status, 200);
    assert!(instance.get("/readyz?verbose").await.body["missing"].is_array());
}

/// Inputs that a caller may send by mistake or on purpose, and that are scored nevertheless.
#[tokio::test]
async fn odd_attempts_are_scored() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let attempt = |more: Value| {
        let mut attempt = json!({"user_id": "u", "ip": "198.51.100.7"});
        attempt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attempt
    };
    for more in [
        json!({"occurred_at": "1970-01-01T00:00:00Z"}),
        json!({"occurred_at": "2026-03-01T10:05:00Z"}),
        json!({"user_agent": "x".repeat(64 * 1024)}),
        json!({"user_agent": "\u{0}\u{7f}\u{202e}"}),
        json!({"ip": "::ffff:198.51.100.7", "latitude": 90, "longitude": -180}),
        json!({"ip": "0.0.0.0"}),
        json!({"latitude": -90.0}),
    ] {
        let answer = instance.post("/v1/risk/logins", &attempt(more.clone())).await;
        assert_eq!(answer.status, 200, "{more:.80}: {}", answer.body);
        let score = answer.body["score"].as_f64().unwrap();
        assert!(score > 0.0 && score < 1.0, "{more:.80}: {score}");
    }
    // And one of 1970 in the history, which arrives after all others and changes nothing that is later.
    let mut first = login("old", "u");
    first["time"] = json!("1970-01-01T00:00:00Z");
    instance.fold(&[first]).await;
    let user = instance.get("/v1/users/u").await.body;
    assert_eq!(user["history"]["last_success"], "2026-03-01T10:00:00.000Z");
    assert_eq!(user["history"]["first_seen"], "1970-01-01T00:00:00.000Z");
}

/// Bytes that are not text, where text is expected.
#[tokio::test]
async fn bytes_that_are_no_utf8_are_refused() {
    let instance = Instance::start().await;
    for (path, media) in [("/v1/risk/logins", JSON), ("/v1/events", STRUCTURED), ("/v1/events", BATCH)] {
        let mut body = br#"{"user_id": "u", "ip": "::1", "user_agent": ""#.to_vec();
        body.extend([0xff, 0xfe, b'"', b'}']);
        let request = instance.request(Method::POST, path).header("content-type", media).body(body);
        assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (400, "MALFORMED_JSON"), "{path}");
    }
}
