//! What one caller, with or without a key, can take from the others: labels, bodies, slots, streams, long answers.

use crate::instance::{Answer, Instance, World, event, login, until};
use foretell_service::http::Config;
use foretell_service::http::auth::{Keys, hash};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BATCH: &str = "application/cloudevents-batch+json";

/// Keys named after tenant and scope: `a-admin` belongs to the tenant `a`.
fn keys(names: &[&str]) -> Keys {
    let key = |name: &&str| {
        let (tenant, scope) = name.split_once('-').unwrap();
        let scope = scope.replace('.', ":");
        format!(
            "[[keys]]\nname = \"{name}\"\nsha256 = \"{}\"\ntenant = \"{tenant}\"\nscopes = [\"{scope}\"]\n",
            hash(name)
        )
    };
    Keys::parse(&names.iter().map(key).collect::<String>()).unwrap()
}

async fn instance(names: &[&str], change: impl FnOnce(&mut Config)) -> Instance {
    let world = World::new();
    let mut parts = world.parts();
    parts.keys = (!names.is_empty()).then(|| keys(names));
    change(&mut parts.config);
    Instance::without_views(world, parts).await
}

async fn get(instance: &Instance, path: &str, key: &str) -> Answer {
    Answer::of(instance.request(Method::GET, path).bearer_auth(key).send().await.unwrap()).await
}

/// Sends bytes and reads the answer until the other side closes.
async fn exchanged(instance: &Instance, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(instance.address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut read = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut read)).await.unwrap();
    String::from_utf8(read).unwrap()
}

/// A request whose body is announced but not sent; `connection: close`, so that the answer ends the connection.
fn withheld(key: &str) -> Vec<u8> {
    let head = "POST /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n";
    let body = "content-type: application/cloudevents+json\r\ncontent-length: 100\r\n";
    format!("{head}{body}authorization: Bearer {key}\r\n\r\n{{").into_bytes()
}

/// A request that is busy until the views contain its event, which they never do.
fn busy(instance: &Instance, key: &str, id: &str) -> tokio::task::JoinHandle<Answer> {
    let request = instance.request(Method::POST, "/v1/events").bearer_auth(key).header("prefer", "wait=20");
    let request = request.header("content-type", "application/cloudevents+json").body(login(id, id).to_string());
    tokio::spawn(async move { Answer::of(request.send().await.unwrap()).await })
}

#[tokio::test]
async fn unknown_methods_share_one_series() {
    let instance = instance(&[], |_| {}).await;
    for n in 0..1_000 {
        let method = Method::from_bytes(format!("METHOD{n}").as_bytes()).unwrap();
        assert_eq!(Answer::of(instance.request(method, "/nowhere").send().await.unwrap()).await.status, 404);
    }
    let metrics = Instance::metrics();
    assert!(!metrics.contains("METHOD1"), "a caller made up a label");
    assert_eq!(metrics.lines().filter(|line| line.contains("method=\"other\"")).count(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_no_place_and_has_a_deadline() {
    let instance = instance(&["a-admin", "b-admin"], |config| {
        (config.requests_max, config.requests_tenant_max, config.body_ms_max) = (1, 1, 300);
    })
    .await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        stream.write_all(&withheld("a-admin")).await.unwrap();
        waiting.push(stream);
    }
    assert_eq!(get(&instance, "/v1/policies/nothing", "b-admin").await.status, 404, "the only slot is free");
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("BODY_TIMEOUT"), "{answer}");
    }
}

#[tokio::test]
async fn bodies_share_room_of_which_a_tenant_has_half() {
    // Capacity for the beginnings of four bodies.
    let instance = instance(&["a-admin", "b-admin", "c-admin"], |config| {
        (config.bodies_bytes_max, config.body_ms_max) = (64 * 1024 + 100, 10_000);
    })
    .await;
    let mut waiting = Vec::new();
    for key in ["a-admin", "a-admin"] {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        stream.write_all(&withheld(key)).await.unwrap();
        waiting.push(stream);
    }
    let post = async |key: &str| {
        let request = instance.request(Method::POST, "/v1/events").bearer_auth(key);
        Answer::of(request.header("content-type", BATCH).body("[]").send().await.unwrap()).await
    };
    until(async || post("a-admin").await.status == 429).await;
    assert_eq!(post("a-admin").await.problem(), (429, "TENANT_OVERLOADED"));
    assert_eq!(post("b-admin").await.status, 202);
    for key in ["b-admin", "b-admin"] {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        stream.write_all(&withheld(key)).await.unwrap();
        waiting.push(stream);
    }
    until(async || post("c-admin").await.status == 503).await;
    assert_eq!(post("c-admin").await.problem(), (503, "OVERLOADED"));
    drop(waiting);
    until(async || post("c-admin").await.status == 202).await;
}

#[tokio::test]
async fn a_tenant_has_a_share_of_the_places() {
    let instance = instance(&["a-admin", "b-admin"], |config| {
        (config.requests_max, config.requests_tenant_max) = (3, 2);
    })
    .await;
    let _waiting = ["x", "y"].map(|id| busy(&instance, "a-admin", id));
    until(async || get(&instance, "/v1/policies/nothing", "a-admin").await.status == 429).await;
    assert_eq!(get(&instance, "/v1/policies/nothing", "a-admin").await.problem(), (429, "TENANT_OVERLOADED"));
    assert_eq!(get(&instance, "/v1/policies/nothing", "b-admin").await.status, 404);
    let _last = busy(&instance, "b-admin", "z");
    until(async || get(&instance, "/v1/policies/nothing", "b-admin").await.status == 503).await;
    assert_eq!(get(&instance, "/v1/policies/nothing", "b-admin").await.problem(), (503, "OVERLOADED"));
}

#[tokio::test]
async fn a_tenant_has_a_share_of_the_streams() {
    let world = World::new();
    let mut parts = world.parts();
    parts.keys = Some(keys(&["a-admin", "b-admin"]));
    (parts.config.streams_max, parts.config.streams_tenant_max) = (3, 2);
    let instance = Instance::with(world, parts).await;
    let open =
        async |key: &str| instance.request(Method::GET, "/v1/reminders/stream").bearer_auth(key).send().await.unwrap();
    let held = [open("a-admin").await, open("a-admin").await];
    assert_eq!(Answer::of(open("a-admin").await).await.problem(), (429, "TENANT_OVERLOADED"));
    let other = open("b-admin").await;
    assert_eq!(other.status(), 200);
    assert_eq!(Answer::of(open("b-admin").await).await.problem(), (503, "TOO_MANY_STREAMS"));
    drop(held);
    until(async || open("a-admin").await.status() == 200).await;
}

#[tokio::test]
async fn no_answer_reveals_anything_before_the_key_is_known() {
    let instance = instance(&["a-admin", "a-risk.read"], |_| {}).await;
    let sent = async |headers: &[(&str, &str)]| {
        let mut request = instance.request(Method::GET, "/v1/users/u");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        let (status, code) = answer.problem();
        (status, code.to_owned())
    };
    let key = ("authorization", "Bearer a-admin");
    for (headers, status, code) in [
        (&[("foretell-tenant", "NOT ONE")][..], 401, "UNAUTHENTICATED"),
        (&[("authorization", "Bearer x"), ("foretell-tenant", "")], 401, "UNAUTHENTICATED"),
        (&[("authorization", "Basic a-admin")], 401, "UNAUTHENTICATED"),
        (&[key, key], 400, "MALFORMED_REQUEST"),
        (&[key, ("authorization", "Bearer x")], 400, "MALFORMED_REQUEST"),
        (&[key, ("foretell-tenant", "NOT ONE")], 400, "MALFORMED_REQUEST"),
        (&[key, ("foretell-tenant", "a"), ("foretell-tenant", "a")], 400, "MALFORMED_REQUEST"),
        (&[key, ("foretell-tenant", "b")], 403, "TENANT_FORBIDDEN"),
        (&[("authorization", "Bearer a-risk.read")], 403, "SCOPE_MISSING"),
    ] {
        assert_eq!(sent(headers).await, (status, code.to_owned()), "{headers:?}");
    }
    // Its body is not read either.
    let answer = exchanged(&instance, &withheld("x")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let metrics = Instance::metrics();
    for counted in [
        "foretell_http_refused_total{key=\"a-risk.read\",code=\"SCOPE_MISSING\"}",
        "foretell_http_refused_total{key=\"a-admin\",code=\"TENANT_FORBIDDEN\"}",
        "foretell_http_refused_total{key=\"unknown\",code=\"UNAUTHENTICATED\"}",
    ] {
        assert!(metrics.contains(counted), "{counted}");
    }
}

#[tokio::test]
async fn answers_are_neither_kept_nor_guessed_at_nor_framed() {
    let instance = Instance::start().await;
    for path in ["/v1/users/nobody", "/v1/policies/login", "/nowhere", "/livez", "/openapi.json"] {
        let answer = instance.get(path).await;
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{path}");
    }
    for path in ["/docs/", "/docs/swagger-ui.css"] {
        let docs = instance.get(path).await;
        assert_eq!((docs.status, docs.header("x-content-type-options")), (200, "nosniff"));
        assert!(docs.header("content-security-policy").contains("script-src 'self';"), "{path}");
    }
    let page = instance.get("/docs/").await.body;
    let scripts = page.as_str().unwrap().matches("<script").count();
    assert_eq!(page.as_str().unwrap().matches("<script src=").count(), scripts, "the policy stops scripts in the page");
    for path in ["/docs/nothing", "/docs/%ff", "/docs/../x"] {
        let (status, _) = instance.get(path).await.problem();
        assert!([400, 404].contains(&status), "{path}");
    }
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    let instance = instance(&[], |_| {}).await;
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\nconnection: close\r\nhost: 127.0.0.1\r\n\r\n", "200"),
        ("GET /livez HTTP/1.0\r\n\r\n", "200"),
        ("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        ("GET /livez HTTP/1.1\r\nconnection: close\r\nhost: 127.0.0.1\r\nhost: 127.0.0.1\r\n\r\n", "400"),
        ("GET /livez HTTP/1.1\r\nconnection: close\r\nhost: a\r\nx: y\r\nHost: b\r\n\r\n", "400"),
    ] {
        let answer = exchanged(&instance, head.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head:?}: {answer}");
        for header in ["cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(answer.contains(header), "{head:?}: {answer}");
        }
    }
    let counted = "foretell_http_requests_total{route=\"none\",method=\"GET\",status=\"400\"}";
    assert!(Instance::metrics().contains(counted), "a refused request is counted");
}

#[tokio::test]
async fn what_leads_nowhere_has_its_body_not_read_and_takes_no_room() {
    // No capacity for any body.
    let instance = instance(&["a-admin"], |config| config.bodies_bytes_max = 1).await;
    for (path, status) in [("/nowhere", "404"), ("/livez", "405"), ("/docs/", "405"), ("/openapi.json", "405")] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{{");
        let answer = exchanged(&instance, head.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{path}: {answer}");
        assert!(answer.contains("connection: close"), "{path}: {answer}");
    }
    for path in ["/v1/nothing", "/v1/"] {
        assert_eq!(instance.get(path).await.problem(), (401, "UNAUTHENTICATED"), "{path}");
        assert_eq!(get(&instance, path, "a-admin").await.problem(), (404, "PATH_NOT_FOUND"), "{path}");
    }
    for path in ["/livez?x=1", "/livez?verbose=1&verbose=2", "/readyz?x=1"] {
        assert!([200, 503].contains(&instance.get(path).await.status), "{path}: a probe ignores what it does not know");
    }
}

#[tokio::test]
async fn objects_have_a_bound_of_their_own() {
    let instance = instance(&[], |_| {}).await;
    let post = async |body: String| {
        let request = instance.request(Method::POST, "/v1/risk/logins").header("content-type", "application/json");
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    let padded = |bytes: usize| format!("{{\"user_id\": \"u\"{}}}", " ".repeat(bytes - 16));
    assert_eq!(post(padded(128 * 1024)).await.status, 422, "the address is missing");
    assert_eq!(post(padded(128 * 1024 + 1)).await.problem(), (413, "BODY_TOO_LARGE"));
    let attempt = json!({"user_id": "u", "ip": "::1", "user_agent": "x".repeat(64 * 1024)});
    assert_ne!(post(attempt.to_string()).await.status, 413, "the longest text that an attempt may have");
}

#[tokio::test]
async fn without_keys_no_page_of_another_site_is_answered() {
    let (open, keyed) = (instance(&[], |_| {}).await, instance(&["a-admin"], |_| {}).await);
    let attempt = json!({"user_id": "u", "ip": "198.51.100.7"}).to_string();
    let json = ("content-type", "application/json");
    for (headers, status, code) in [
        (&[json, ("host", "rebound.example")][..], 403, "HOST_FORBIDDEN"),
        (&[json, ("host", "192.0.2.1:8080")], 403, "HOST_FORBIDDEN"),
        (&[json, ("sec-fetch-site", "cross-site")], 403, "ORIGIN_FORBIDDEN"),
        (&[json, ("sec-fetch-site", "same-site")], 403, "ORIGIN_FORBIDDEN"),
        (&[json, ("origin", "https://example.com")], 403, "ORIGIN_FORBIDDEN"),
        (&[json, ("origin", "null")], 403, "ORIGIN_FORBIDDEN"),
        (&[], 415, "UNSUPPORTED_MEDIA_TYPE"),
        (&[("content-type", "text/plain")], 415, "UNSUPPORTED_MEDIA_TYPE"),
        (&[json], 200, ""),
        (&[json, ("host", "localhost"), ("sec-fetch-site", "same-origin")], 200, ""),
    ] {
        for instance in [&open, &keyed] {
            let mut request =
                instance.request(Method::POST, "/v1/risk/logins").bearer_auth("a-admin").body(attempt.clone());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = Answer::of(request.send().await.unwrap()).await;
            let is_guarded = std::ptr::eq(instance, &raw const open);
            if is_guarded {
                assert_eq!(answer.status, status, "{headers:?}: {}", answer.body);
                assert_eq!(answer.body["code"].as_str().unwrap_or_default(), code, "{headers:?}");
            } else {
                assert_ne!(answer.status, 403, "a key is proof enough: {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_small_body_full_of_faults_has_no_large_answer() {
    let instance = instance(&[], |_| {}).await;
    let faulty = json!({"specversion": "0.1", "id": "", "source": "", "type": "x", "time": "t", "data": {}});
    let batch = Value::from(vec![faulty; 1_000]).to_string();
    let request = instance.request(Method::POST, "/v1/events").header("content-type", BATCH);
    let answer = Answer::of(request.body(batch).send().await.unwrap()).await;
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"));
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 100);
    let omitted = answer.body["errors_omitted"].as_u64().unwrap();
    assert!(omitted >= 900, "{omitted}");
    assert_eq!(answer.body["detail"], format!("{} validation errors", omitted + 100));
    assert!(answer.body.to_string().len() < 64 * 1024);
    let long = "é".repeat(100_000);
    let one = event(&long, "login.succeeded", json!({"user_id": long, "ip": long, "attributes": {long.clone(): []}}));
    let request = instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let answer = Answer::of(request.body(one.to_string()).send().await.unwrap()).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.to_string().len() < 16 * 1024, "{}", answer.body.to_string().len());
}

#[tokio::test]
async fn the_document_names_each_schema_once_and_says_the_bounds_of_parameters() {
    let document: Value = serde_json::from_str(&foretell_service::http::openapi::document().unwrap()).unwrap();
    let schemas = &document["components"]["schemas"];
    let answer = &document["paths"]["/v1/decisions/{id}"]["get"]["responses"]["200"]["content"]["application/json"];
    let named = answer["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(schemas[named]["properties"]["evaluated_at"].is_object(), "{}", schemas[named]);
    let decided = schemas["LoginAnswer"]["properties"]["decision"]["$ref"].as_str().unwrap();
    let decided = &schemas[decided.rsplit('/').next().unwrap()];
    assert_eq!(decided["enum"], json!(["allow", "challenge", "deny"]));
    let mut seen = std::collections::BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
                let bounds = match name {
                    "Foretell-Tenant" | "Idempotency-Key" => schema["pattern"].is_string(),
                    "limit" => (&schema["minimum"], &schema["maximum"]) == (&json!(1), &json!(1_000)),
                    "user_id" | "client_id" | "appointment_id" => schema["maxLength"] == 512,
                    _ => continue,
                };
                assert!(bounds, "{parameter}");
                seen.insert(name.to_owned());
            }
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}
