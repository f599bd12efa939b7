//! Pages of other origins: configured ones may call the API and read every answer, and others learn nothing.

use crate::instance::{Answer, Instance, World};
use foretell_service::http::Config;
use foretell_service::http::auth::{Keys, hash};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DESK: &str = "https://desk.example.com";
const OTHER: &str = "https://other.example.com";
/// Headers of all kinds that callers send, including extension attributes of events.
const HEADERS: &str = "authorization,ce-id,ce-myextension,content-type,foretell-tenant,idempotency-key,if-match,\
                       if-none-match,last-event-id,prefer,traceparent";

/// An instance with one key of the scope `risk:read`, and pages of one origin.
async fn instance(change: impl FnOnce(&mut Config)) -> Instance {
    let world = World::new();
    let mut parts = world.parts();
    let file = format!(
        "[[keys]]\nname = \"k\"\nsha256 = \"{}\"\ntenant = \"acme\"\nscopes = [\"risk:read\", \"visits:read\"]\n",
        hash("k")
    );
    parts.keys = Some(Keys::parse(&file).unwrap());
    parts.config.cors_origins = vec!["http://localhost:3000".into(), DESK.into()];
    change(&mut parts.config);
    Instance::with(world, parts).await
}

async fn preflight(instance: &Instance, method: &str, path: &str, origin: &str) -> Response {
    let request = instance.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", method);
    request.header("access-control-request-headers", HEADERS).send().await.unwrap()
}

fn text<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_preflight_of_every_route_is_allowed_to_named_origins_without_a_key() {
    let instance = instance(|_| {}).await;
    let document: Value = instance.get("/openapi.json").await.body;
    let mut preflights = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|method| *method != "options") {
            let (method, path) = (method.to_uppercase(), path.replace(['{', '}'], ""));
            let allowed = preflight(&instance, &method, &path, DESK).await;
            assert_eq!(
                (allowed.status().as_u16(), text(&allowed, "access-control-allow-origin")),
                (200, DESK),
                "{path}"
            );
            let methods: Vec<_> = text(&allowed, "access-control-allow-methods").split(',').collect();
            assert!(methods.contains(&method.as_str()), "{path}: {methods:?}");
            assert_eq!(text(&allowed, "access-control-allow-headers"), HEADERS, "{path}");
            assert_eq!(text(&allowed, "access-control-max-age"), "7200");
            assert!(text(&allowed, "vary").contains("origin"));
            assert_eq!(text(&allowed, "x-content-type-options"), "nosniff");
            assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
            let refused = preflight(&instance, &method, &path, OTHER).await;
            assert!(!refused.headers().contains_key("access-control-allow-origin"), "{path}");
            preflights += 1;
        }
    }
    assert!(preflights > 20, "{preflights}");
    let counted = "foretell_http_requests_total{route=\"none\",method=\"OPTIONS\",status=\"200\"}";
    assert!(Instance::metrics().contains(counted));
}

#[tokio::test]
async fn a_page_reads_every_answer_and_refusal_where_its_origin_is_named() {
    let instance = instance(|config| (config.streams_max, config.streams_tenant_max) = (1, 1)).await;
    let get = async |path: &str, key: &str, origin: &str| {
        let request = instance.request(Method::GET, path).header("origin", origin);
        let request = if key.is_empty() { request } else { request.bearer_auth(key) };
        request.send().await.unwrap()
    };
    let stream = get("/v1/reminders/stream", "k", DESK).await;
    assert_eq!((stream.status().as_u16(), text(&stream, "access-control-allow-origin")), (200, DESK));
    for (path, key, status) in [
        ("/livez", "", 200),
        ("/v1/agenda", "", 401),
        ("/v1/agenda", "guess", 401),
        ("/v1/users/u", "k", 403),
        ("/v1/appointments/a", "k", 404),
        ("/v1/nothing", "k", 404),
        ("/nowhere", "", 404),
        ("/v1/agenda?limt=1", "k", 400),
        ("/v1/reminders/stream", "k", 503),
    ] {
        let answer = get(path, key, DESK).await;
        assert_eq!(answer.status().as_u16(), status, "{path} {key}");
        assert_eq!(text(&answer, "access-control-allow-origin"), DESK, "{path}");
        assert!(text(&answer, "vary").contains("origin"), "{path}");
        let exposed = text(&answer, "access-control-expose-headers");
        for name in ["etag", "retry-after", "www-authenticate", "allow", "accept-encoding", "preference-applied"] {
            assert!(exposed.split(',').any(|exposed| exposed == name), "{path}: {name} in {exposed}");
        }
        let kept = get(path, key, OTHER).await;
        assert!(!kept.headers().contains_key("access-control-allow-origin"), "{path}");
        assert!(text(&kept, "vary").contains("origin"), "{path}: a cache may have it for another page");
    }
    // Requests that do not reach the router.
    let mut socket = TcpStream::connect(instance.address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\norigin: {DESK}\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains(&format!("access-control-allow-origin: {DESK}\r\n")), "{answer}");
}

#[tokio::test]
async fn the_answer_to_an_overloaded_tenant_is_readable_by_a_page() {
    let instance = instance(|config| (config.streams_max, config.streams_tenant_max) = (2, 1)).await;
    let open = async || {
        let request = instance.request(Method::GET, "/v1/reminders/stream").bearer_auth("k").header("origin", DESK);
        request.send().await.unwrap()
    };
    let (_first, refused) = (open().await, open().await);
    assert_eq!((refused.status().as_u16(), text(&refused, "access-control-allow-origin")), (429, DESK));
    assert_eq!(Answer::of(refused).await.problem(), (429, "TENANT_OVERLOADED"));
}

#[tokio::test]
async fn without_configured_origins_no_cors_headers_are_sent() {
    let instance = instance(|config| config.cors_origins.clear()).await;
    let silent = |answer: &Response| {
        let names = answer.headers().keys().map(|name| name.as_str());
        names.filter(|name| name.starts_with("access-control-") || *name == "vary").count() == 0
    };
    for (path, key, status) in [("/livez", "", 200), ("/v1/agenda", "", 401), ("/v1/appointments/a", "k", 404)] {
        let request = instance.request(Method::GET, path).header("origin", DESK);
        let request = if key.is_empty() { request } else { request.bearer_auth(key) };
        let answer = request.send().await.unwrap();
        assert!(answer.status().as_u16() == status && silent(&answer), "{path}: {answer:?}");
    }
    let answer = preflight(&instance, "GET", "/v1/agenda", DESK).await;
    assert!(answer.status().as_u16() == 401 && silent(&answer), "{answer:?}");
}

#[tokio::test]
async fn the_handshake_of_webhooks_is_no_preflight() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.cors_origins = vec![DESK.into()];
    let instance = Instance::with(world, parts).await;
    let request = instance.request(Method::OPTIONS, "/v1/events").header("webhook-request-origin", "grid.example.com");
    let consent = request.send().await.unwrap();
    assert_eq!((consent.status().as_u16(), text(&consent, "allow")), (200, "OPTIONS, POST"));
    assert_eq!(text(&consent, "webhook-allowed-origin"), "grid.example.com");
    let keyed = self::instance(|_| {}).await;
    let request = keyed.request(Method::OPTIONS, "/v1/events").header("webhook-request-origin", "grid.example.com");
    let refused = request.header("origin", DESK).send().await.unwrap();
    assert_eq!(Answer::of(refused).await.problem(), (401, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn without_keys_pages_of_named_origins_alone_are_answered() {
    let world = World::new();
    let mut parts = world.parts();
    parts.config.cors_origins = vec![DESK.into()];
    let instance = Instance::with(world, parts).await;
    for (origin, status) in [(DESK, 404), (OTHER, 403), ("null", 403), ("https://desk.example.com.evil.example", 403)] {
        let request = instance.request(Method::GET, "/v1/appointments/a").header("origin", origin);
        let answer = request.header("sec-fetch-site", "cross-site").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{origin}");
    }
    // A picture, a script, a form: the browser sends no origin.
    let request = instance.request(Method::GET, "/v1/appointments/a").header("sec-fetch-site", "cross-site");
    let refused = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(refused.problem(), (403, "ORIGIN_FORBIDDEN"));
    assert!(refused.body["detail"].as_str().unwrap().contains("http.cors_origins"));
}
