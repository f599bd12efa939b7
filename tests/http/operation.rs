//! What operators rely on: readiness, limits, draining, documents, the routes of the socket.

use crate::instance::{Answer, Instance, PARTITIONS, World, login, until};
use foretell_events::Topic;
use foretell_events::codec::{Defaults, decode_structured};
use foretell_ports::log::Log;
use foretell_service::http::{Api, admin_router, openapi, ops, serve};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn ready_means_that_the_views_have_reached_the_end_of_the_log_at_the_start() {
    let world = World::new();
    let first = Instance::with(world.clone(), world.parts()).await;
    until(async || first.get("/readyz").await.status == 200).await;
    first.shutdown.cancel();
    let behind = Instance::without_views(world.clone(), world.parts()).await;
    until(async || behind.get("/readyz").await.status == 200).await;
    let request = behind.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let answer = Answer::of(request.body(login("e", "u").to_string()).send().await.unwrap()).await;
    assert_eq!(answer.status, 202);
    assert_eq!(behind.get("/readyz").await.status, 200, "what came since does not count");
    let late = Instance::without_views(world.clone(), world.parts()).await;
    until(async || late.get("/readyz?verbose").await.body["missing"].as_array().is_some_and(|m| m.len() == 1)).await;
    let unready = late.get("/readyz?verbose").await;
    assert_eq!(unready.status, 503);
    let missing = &unready.body["missing"][0];
    assert_eq!((&missing["family"], &missing["offset"], &missing["target"]), (&json!("logins"), &json!(0), &json!(1)));
    assert_eq!(late.get("/readyz").await.body, json!({"status": "starting"}));
    assert_eq!(late.get("/livez").await.status, 200);
    let _views = world.views(late.shutdown.clone()).await;
    until(async || late.get("/readyz").await.status == 200).await;
    assert_eq!(late.get("/readyz").await.body, json!({"status": "ready"}));
}

#[tokio::test]
async fn holes_at_the_end_of_the_log_do_not_delay_readiness() {
    let world = World::new();
    let first = Instance::with(world.clone(), world.parts()).await;
    first.fold(&[login("e", "u")]).await;
    first.shutdown.cancel();
    for topic in [Topic::Logins, Topic::Appointments, Topic::Reminders] {
        // After the last record of one partition, and in partitions without any record.
        (0..PARTITIONS).for_each(|partition| world.log.skip(topic, partition, 2).unwrap());
    }
    let second = Instance::with(world.clone(), world.parts()).await;
    until(async || second.get("/readyz").await.status == 200).await;
    let user = second.get("/v1/users/u").await.body;
    assert_eq!((&user["view"]["offset"], &user["view"]["lag_ms"]), (&json!(3), &json!(0)));
}

#[tokio::test]
async fn an_overloaded_process_sheds_load_and_stays_alive() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.requests_max = 1;
    let instance = Instance::without_views(world.clone(), parts).await;
    let waiting = instance.request(Method::POST, "/v1/events").header("prefer", "wait=20");
    let waiting = waiting.header("content-type", "application/cloudevents+json").body(login("e", "u").to_string());
    let waiting = tokio::spawn(async move { Answer::of(waiting.send().await.unwrap()).await });
    let asked = json!({"user_id": "u", "ip": "198.51.100.7"});
    until(async || instance.post("/v1/risk/logins", &asked).await.status == 503).await;
    assert_eq!(instance.post("/v1/risk/logins", &asked).await.problem(), (503, "OVERLOADED"));
    assert_eq!(instance.get("/livez").await.status, 200);
    assert!(Instance::metrics().contains("foretell_http_requests_total"));
    let _views = world.views(instance.shutdown.clone()).await;
    assert_eq!(waiting.await.unwrap().status, 200, "the one that was let in is answered");
    assert_eq!(instance.post("/v1/risk/logins", &asked).await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.request_ms_max = 20;
    let instance = Instance::without_views(world, parts).await;
    let request = instance.request(Method::POST, "/v1/events").header("prefer", "wait=20");
    let request = request.header("content-type", "application/cloudevents+json").body(login("e", "u").to_string());
    assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (503, "TIMEOUT"));
}

#[tokio::test]
async fn a_panic_is_a_fault_of_the_service_and_ends_nothing() {
    let instance = Instance::start().await;
    instance.world.clock.set(-1);
    let asked = json!({"user_id": "u", "ip": "198.51.100.7"});
    let failed = instance.post("/v1/risk/logins", &asked).await;
    assert_eq!(failed.problem(), (500, "INTERNAL"));
    assert!(!failed.body.to_string().contains("clock"), "causes are logged, not told");
    instance.world.clock.set(crate::instance::NOW_MS);
    assert_eq!(instance.post("/v1/risk/logins", &asked).await.status, 200);
}

#[tokio::test]
async fn draining_answers_what_is_open_and_takes_nothing_new() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.drain_ms = 20_000;
    let mut instance = Instance::without_views(world.clone(), parts).await;
    let waiting = instance.request(Method::POST, "/v1/events").header("prefer", "wait=20");
    let waiting = waiting.header("content-type", "application/cloudevents+json").body(login("e", "u").to_string());
    let waiting = tokio::spawn(async move { Answer::of(waiting.send().await.unwrap()).await });
    let appended = async || {
        let partition = foretell_events::key::partition(b"default:u", PARTITIONS);
        world.log.extent(Topic::Logins, partition).await.unwrap().end == 1
    };
    until(appended).await;
    instance.shutdown.cancel();
    until(async || TcpStream::connect(instance.address).await.is_err()).await;
    let folding = tokio_util::sync::CancellationToken::new();
    let _views = world.views(folding.clone()).await;
    assert_eq!(waiting.await.unwrap().status, 200);
    tokio::time::timeout(Duration::from_secs(20), &mut instance.serving).await.unwrap().unwrap();
    folding.cancel();
}

#[tokio::test]
async fn draining_has_an_end() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.drain_ms = 50;
    let mut instance = Instance::without_views(world, parts).await;
    let mut half = TcpStream::connect(instance.address).await.unwrap();
    half.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123").await.unwrap();
    until(async || instance.get("/livez").await.status == 200).await;
    instance.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), &mut instance.serving).await.unwrap().unwrap();
    let mut rest = Vec::new();
    // Cut off: closed or reset, but without an answer that confirms the request.
    let _ = half.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.head_ms_max = 50;
    let instance = Instance::without_views(world, parts).await;
    let mut slow = TcpStream::connect(instance.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is closed");
}

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_is_there() {
    let instance = Instance::start().await;
    let served = instance.get("/openapi.json").await.body;
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    assert_eq!(served, document);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            operations.push(format!("{} {path}", method.to_uppercase()));
            let concrete = path.replace("{user_id}", "u").replace("{device_id}", "d").replace("{client_id}", "c");
            let concrete = concrete.replace("{appointment_id}", "a").replace("{policy}", "login");
            let request = instance.request(method.to_uppercase().parse().unwrap(), &concrete);
            // The stream would not end, but an invalid cursor is answered by its handler.
            let response = request.header("last-event-id", "x").send().await.unwrap();
            let answer = Answer::of(response).await;
            assert!(
                answer.body["code"] != "PATH_NOT_FOUND" && answer.status != 405,
                "{method} {path}: {}",
                answer.body
            );
        }
    }
    operations.sort_unstable();
    assert_eq!(
        operations,
        [
            "DELETE /v1/users/{user_id}/devices/{device_id}",
            "GET /livez",
            "GET /readyz",
            "GET /v1/agenda",
            "GET /v1/appointments/{appointment_id}",
            "GET /v1/clients/{client_id}",
            "GET /v1/decisions/{id}",
            "GET /v1/models/no-show",
            "GET /v1/models/no-show/versions",
            "GET /v1/policies/{policy}",
            "GET /v1/policies/{policy}/versions",
            "GET /v1/reminders/stream",
            "GET /v1/risk/appointments/{appointment_id}",
            "GET /v1/users/{user_id}",
            "OPTIONS /v1/events",
            "POST /v1/appointments/{appointment_id}/reminders",
            "POST /v1/events",
            "POST /v1/feedback",
            "POST /v1/risk/appointments",
            "POST /v1/risk/logins",
            "POST /v1/streams/tickets",
            "PUT /v1/models/no-show",
            "PUT /v1/policies/{policy}",
            "PUT /v1/users/{user_id}/devices/{device_id}",
        ]
    );
    let docs = instance.get("/docs/").await;
    let page = docs.body.as_str().unwrap();
    assert_eq!(docs.status, 200);
    assert!(page.contains("swagger-ui") && !page.contains("src=\"http"), "nothing is loaded from elsewhere");
}

#[tokio::test]
async fn documented_examples_are_accepted() {
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    let contents = &document["paths"]["/v1/events"]["post"]["requestBody"]["content"];
    let structured = &contents["application/cloudevents+json"]["example"];
    let defaults = Defaults { tenant: "default", time_ms: 0 };
    decode_structured(structured, defaults).unwrap();
    decode_structured(&contents["application/cloudevents-batch+json"]["example"][0], defaults).unwrap();
    let types: Vec<_> = contents.as_object().unwrap().keys().collect();
    assert!(types.iter().all(|name| name.starts_with("application/cloudevents")), "{types:?}");
    let instance = Instance::start().await;
    for (path, schema) in [("/v1/risk/logins", "LoginRequest"), ("/v1/risk/appointments", "AppointmentRequest")] {
        let example = &document["components"]["schemas"][schema]["example"];
        assert!(example.is_object(), "{schema}");
        let answer = instance.post(path, example).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        // Every field of the answer is documented, and every documented field is answered.
        let answered = document["components"]["schemas"][schema.replace("Request", "Answer")]["properties"].as_object();
        for field in answer.body.as_object().unwrap().keys() {
            assert!(answered.unwrap().contains_key(field), "{field} of {path}");
        }
    }
}

#[tokio::test]
async fn the_socket_shows_what_is_stored_and_appends_without_a_key() {
    let world = World::new();
    let mut parts = world.parts();
    let key = foretell_service::http::auth::hash("k");
    let file = format!("[[keys]]\nname = \"k\"\nsha256 = \"{key}\"\ntenant = \"acme\"\nscopes = [\"admin\"]\n");
    parts.keys = Some(foretell_service::http::auth::Keys::parse(&file).unwrap());
    let shutdown = parts.shutdown.clone();
    let _views = world.views(shutdown.clone()).await;
    let api = Api::new(parts);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (router, config, token) = (admin_router(&api), api.config.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { serve(listener, move || router.clone(), &config, token).await });
    let client = reqwest::Client::builder().unix_socket(path).build().unwrap();
    let send = async |request: reqwest::RequestBuilder| Answer::of(request.send().await.unwrap()).await;
    let post = client.post("http://localhost/v1/events").header("prefer", "wait=20");
    let post = post.header("content-type", "application/cloudevents+json").body(login("e", "u").to_string());
    assert_eq!(send(post).await.status, 200);
    let get = async |path: &str| send(client.get(format!("http://localhost/admin/{path}"))).await;
    let topics = get("topics").await.body;
    assert_eq!(topics[0]["topic"], "foretell.logins");
    let partition = foretell_events::key::partition(b"default:u", PARTITIONS) as usize;
    assert_eq!(topics[0]["partitions"][partition], json!([0, 1]));
    let positions = get("positions").await.body;
    let stands = positions.as_array().unwrap().iter().find(|p| p["family"] == "logins" && p["partition"] == partition);
    assert_eq!((&stands.unwrap()["next"], &stands.unwrap()["end"]), (&json!(1), &json!(1)));
    let row = get("rows/user?key=default:u").await.body;
    assert_eq!((&row[0]["position"], &row[0]["state"]["successes"]), (&json!(0), &json!(1)));
    assert_eq!(get("rows/feature?key=default:all:").await.body[0]["state"]["successes"], 1);
    assert_eq!(get("rows/user?key=default:nobody").await.body, json!([]));
    assert_eq!(get("rows/nothing?key=x").await.status, 404);
    assert_eq!(get("dead-letters/0/0").await.problem(), (404, "PATH_NOT_FOUND"));
    let asked = |limit: u64, action: Value| json!({"filter": {}, "limit": limit, "action": action}).to_string();
    let redrive = |rate: u64| json!({"redrive": {"run": "dry", "attempts_max": 1, "rate": rate}});
    let post = client.post("http://localhost/admin/jobs/dead-letters").body("{");
    assert_eq!(send(post).await.problem(), (400, "MALFORMED_JSON"));
    for body in [
        asked(0, json!({"list": "all"})),
        asked(1, json!({"burn": "all"})),
        asked(1, redrive(0)),
        asked(1, json!({"drop": {"run": "dry", "reason": " "}})),
        asked(1, json!({"drop": {"run": "dry", "reason": "x".repeat(1_025)}})),
    ] {
        let post = client.post("http://localhost/admin/jobs/dead-letters").body(body);
        assert_eq!(send(post).await.problem(), (400, "MALFORMED_REQUEST"));
    }
    for action in [json!({"list": "open"}), redrive(1)] {
        let post = client.post("http://localhost/admin/jobs/dead-letters").body(asked(1, action));
        let answer = send(post).await;
        let last: Value = serde_json::from_str(answer.body.as_str().unwrap().lines().last().unwrap()).unwrap();
        assert_eq!((answer.status, &last["done"]["letters"]), (200, &json!(0)), "{}", answer.body);
    }
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn operators_have_a_listener_of_their_own() {
    let world = World::new();
    let parts = world.parts();
    let shutdown = parts.shutdown.clone();
    let api = Api::new(parts);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (router, config, token) = (ops::router(&api), api.config.for_operators(), shutdown.clone());
    let serving = tokio::spawn(async move { serve(listener, move || router.clone(), &config, token).await });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| Answer::of(client.get(format!("{url}{path}")).send().await.unwrap()).await;
    assert_eq!(get("/livez").await.status, 200);
    assert_eq!(get("/readyz").await.body, json!({"status": "starting"}));
    let metrics = get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    assert!(metrics.body.as_str().unwrap().contains("foretell_http_requests_total{route=\"/livez\""));
    for path in ["/v1/users/u", "/openapi.json", "/docs/"] {
        assert_eq!(get(path).await.problem(), (404, "PATH_NOT_FOUND"), "{path}");
    }
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_public_port_has_no_routes_for_operators() {
    let instance = Instance::start().await;
    for path in
        ["/metrics", "/admin/topics", "/admin/positions", "/admin/rows/user?key=default:u", "/admin/dead-letters/0/0"]
    {
        assert_eq!(instance.get(path).await.problem(), (404, "PATH_NOT_FOUND"));
    }
    let asked = json!({"filter": {}, "limit": 1, "action": {"list": "open"}});
    assert_eq!(instance.post("/admin/jobs/dead-letters", &asked).await.problem(), (404, "PATH_NOT_FOUND"));
}
