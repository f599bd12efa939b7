//! Spans as a collector receives them over OTLP, and the log line when there is no collector.

use crate::deployment::Deployment;
use crate::facts;
use crate::process::{Service, WORKER, until};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use foretell_events::Topic;
use foretell_events::codec::rfc3339;
use foretell_ports::clock::{Clock, System};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER_ID: &str = "b7ad6b7169203331";
/// The path of requests for a reminder of the visit.
const REMINDERS: &str = "/v1/appointments/visit/reminders";
const DAY_MS: i64 = 24 * 3_600_000;

/// A receiver of traces on loopback, which answers everything with one status.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<(String, Bytes)>>>,
}

impl Collector {
    async fn start(status: StatusCode) -> Self {
        let received = Arc::<Mutex<Vec<_>>>::default();
        let take = async move |State(received): State<Arc<Mutex<Vec<_>>>>, uri: Uri, body: Bytes| {
            received.lock().expect("no panic").push((uri.path().to_owned(), body));
            status
        };
        let router = axum::Router::new().fallback(take).with_state(received.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received }
    }

    fn count(&self) -> usize {
        self.received.lock().expect("no panic").len()
    }

    /// What was received: attributes of the resource, and spans.
    fn spans(&self) -> (Vec<KeyValue>, Vec<Span>) {
        let (mut resource, mut spans) = (Vec::new(), Vec::new());
        for (path, body) in self.received.lock().expect("no panic").iter() {
            assert_eq!(path, "/v1/traces");
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("spans");
            for part in request.resource_spans {
                resource = part.resource.expect("a resource").attributes;
                spans.extend(part.scope_spans.into_iter().flat_map(|part| part.spans));
            }
        }
        (resource, spans)
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(of: &[KeyValue]) -> BTreeMap<&str, serde_json::Value> {
    let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::IntValue(number)) => json!(number),
        other => panic!("{other:?}"),
    };
    of.iter().map(|attribute| (attribute.key.as_str(), value(&attribute.value))).collect()
}

/// The only span with this name and kind.
fn one<'a>(spans: &'a [Span], name: &str, kind: SpanKind) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.kind == kind as i32).collect();
    let names: Vec<_> = spans.iter().map(|span| (&span.name, span.kind)).collect();
    assert_eq!(found.len(), 1, "{name} {kind:?} in {names:?}");
    found[0]
}

/// A visit in three days, of a client without quiet hours.
async fn book(service: &Service) {
    let now_ms = System.now_ms();
    let client = json!({
        "client_id": "carol", "quiet_hours": {"from": "00:00", "to": "00:00"}, "time_zone": "Europe/Dublin",
        "channels": [{"channel": "sms", "consent": true}],
    });
    let visit = json!({
        "appointment_id": "visit", "client_id": "carol", "starts_at": rfc3339(now_ms + 5 * DAY_MS),
        "time_zone": "Europe/Dublin",
    });
    let events = [
        facts::event("c", "client.updated", now_ms - 2_000, &client),
        facts::event("v", "appointment.booked", now_ms - 1_000, &visit),
    ];
    service.fold(&events).await;
}

/// Books a visit, requests a reminder of it within the trace of a caller, and waits until it is sent.
async fn remind(service: &Service) {
    book(service).await;
    let request = service.ask(Method::POST, REMINDERS).header("traceparent", format!("00-{TRACE_ID}-{CALLER_ID}-01"));
    let answer = service.answer(request.json(&json!({"channels": ["sms"]}))).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    until("the reminder is sent", async || {
        let story = service.get("/v1/appointments/visit").await.good();
        story["reminders"].as_array()?.iter().any(|it| it["step"] == "manual" && it["status"] == "sent").then_some(())
    })
    .await;
}

/// The spans from a request for a reminder to the fold of its announcement, and a read of the request.
struct Path<'a> {
    requested: &'a Span,
    folded: &'a Span,
    announced: &'a Span,
    read: &'a Span,
}

/// Checks the parents of all spans in the trace of the caller.
fn path<'a>(spans: &'a [Span], deployment: &Deployment) -> Path<'a> {
    let [visits, reminders] = [Topic::Appointments, Topic::Reminders].map(|topic| deployment.topic(topic));
    let requested = one(spans, "POST /v1/appointments/{appointment_id}/reminders", SpanKind::Server);
    let sent = one(spans, &format!("send {visits}"), SpanKind::Producer);
    let folded = one(spans, &format!("process {visits}"), SpanKind::Consumer);
    let announced = one(spans, &format!("send {reminders}"), SpanKind::Producer);
    let remembered = one(spans, &format!("process {reminders}"), SpanKind::Consumer);
    let read = spans.iter().find(|span| span.name == "read client").expect("a read of the client");
    assert_eq!(hex(&requested.parent_span_id), CALLER_ID);
    for (child, parent) in
        [(read, requested), (sent, requested), (folded, sent), (announced, sent), (remembered, announced)]
    {
        assert_eq!(child.parent_span_id, parent.span_id, "{} below {}", child.name, parent.name);
    }
    Path { requested, folded, announced, read }
}

fn in_trace(spans: &[Span]) -> Vec<Span> {
    spans.iter().filter(|span| hex(&span.trace_id) == TRACE_ID).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_through_append_and_fold_to_the_reminder() {
    let collector = Collector::start(StatusCode::OK).await;
    let mut deployment = Deployment::disk();
    deployment.set_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    deployment.set_variable("OTEL_SERVICE_NAME", "risk");
    deployment.set("HTTP__STREAMS_MAX", "1");
    deployment.set("HTTP__STREAMS_TENANT_MAX", "1");
    let service = Service::ready(&deployment, &[]).await;
    remind(&service).await;
    let _stream = service.ask(Method::GET, "/v1/reminders/stream").send().await.expect("a stream");
    let other = service.ask(Method::GET, "/v1/reminders/stream").header("foretell-tenant", "other");
    assert_eq!(service.answer(other).await.status, 503);
    service.ops("/metrics").await;
    service.process.stop().await;

    let (resource, all) = collector.spans();
    let resource = attributes(&resource);
    assert_eq!(resource["service.name"], "risk");
    assert_eq!(resource["service.version"], foretell::version::VERSION);
    assert_eq!(resource["service.instance.id"].as_str().map(str::len), Some(36));

    let spans = in_trace(&all);
    let Path { requested, folded, read, .. } = path(&spans, &deployment);
    let found = attributes(&requested.attributes);
    for (key, value) in [
        ("http.request.method", json!("POST")),
        ("http.response.status_code", json!(202)),
        ("http.route", json!("/v1/appointments/{appointment_id}/reminders")),
        ("url.path", json!(REMINDERS)),
        ("url.scheme", json!("http")),
        ("server.address", json!("127.0.0.1")),
    ] {
        assert_eq!(found[key], value, "{key} of {found:?}");
    }
    assert!(found["server.port"].is_i64() && !found.contains_key("error.type"), "{found:?}");
    let found = attributes(&folded.attributes);
    assert_eq!(found["messaging.destination.name"], "foretell.appointments");
    assert_eq!(found["messaging.operation.type"], "process");
    assert!(found["messaging.destination.partition.id"].is_string() && found["messaging.kafka.offset"].is_i64());
    let found = attributes(&read.attributes);
    assert_eq!((&found["db.system.name"], &found["db.operation.name"]), (&json!("foretell"), &json!("read")));

    let failed =
        all.iter().find(|span| attributes(&span.attributes).get("http.response.status_code") == Some(&json!(503)));
    let failed = failed.expect("the stream that was refused");
    assert_eq!(attributes(&failed.attributes)["error.type"], "503");
    assert_eq!(failed.status.as_ref().map(|status| status.code), Some(2), "an error");
    for span in &all {
        assert!(!["/livez", "/readyz", "/metrics"].iter().any(|probe| span.name.ends_with(probe)), "{}", span.name);
        for noise in ["code.", "thread.", "target", "busy_ns", "idle_ns", "trace_id", "level"] {
            assert!(!span.attributes.iter().any(|attribute| attribute.key.starts_with(noise)), "{noise} in {span:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_span_and_no_log_line_names_a_ticket() {
    let collector = Collector::start(StatusCode::OK).await;
    let mut deployment = Deployment::disk();
    deployment.set_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    deployment.set("TELEMETRY__LOG_FILTER", "trace");
    let service = Service::ready(&deployment, &[]).await;
    let given = service.answer(service.ask(Method::POST, "/v1/streams/tickets")).await;
    let ticket = given.body["ticket"].as_str().expect("a ticket");
    let stream = || service.ask(Method::GET, &format!("/v1/reminders/stream?ticket={ticket}"));
    assert_eq!(stream().send().await.expect("a stream").status(), 200);
    assert_eq!(service.answer(stream()).await.status, 401);
    let refused = || service.process.stderr().contains("rejected requests").then_some(());
    until("the refusal is a line", async || refused()).await;
    let messages = service.process.stderr();
    service.process.stop().await;
    assert!(messages.contains("answered") && messages.contains("/v1/reminders/stream"), "{messages}");
    assert!(!messages.contains(ticket), "{messages}");
    let (_, spans) = collector.spans();
    let streams = spans.iter().filter(|span| span.name == "GET /v1/reminders/stream").count();
    assert_eq!(streams, 2);
    assert!(!format!("{spans:?}").contains(ticket), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_through_the_processes_of_a_cluster() {
    let collector = Collector::start(StatusCode::OK).await;
    let mut deployment = Deployment::cluster();
    deployment.set_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let worker = Service::ready(&deployment, &WORKER).await;
    let service = Service::ready(&deployment, &["--roles", "http"]).await;
    remind(&service).await;
    service.process.stop().await;
    worker.process.stop().await;
    let (_, all) = collector.spans();
    let spans = in_trace(&all);
    let Path { folded, announced, read, .. } = path(&spans, &deployment);
    for span in [folded, announced] {
        assert_eq!(attributes(&span.attributes)["messaging.system"], "kafka", "{}", span.name);
    }
    assert_eq!(attributes(&read.attributes)["db.system.name"], "cassandra");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_no_spans_is_logged_once_a_minute() {
    const LOST: &str = "spans were not exported and are lost";
    let refusing = Collector::start(StatusCode::NOT_FOUND).await;
    let dead = "http://127.0.0.1:9".to_owned();
    for (url, requests) in [(refusing.url.clone(), 4), (dead, 0)] {
        let mut deployment = Deployment::disk();
        deployment.set("TELEMETRY__OTLP_ENDPOINT", &url);
        deployment.set_variable("OTEL_BSP_SCHEDULE_DELAY", "20");
        let service = Service::ready(&deployment, &[]).await;
        until("spans are lost", async || {
            assert_eq!(service.get("/v1/users/nobody").await.status, 404);
            (refusing.count() >= requests && service.process.stderr().contains(LOST)).then_some(())
        })
        .await;
        let messages = service.process.stderr();
        let lines: Vec<_> = messages.lines().filter(|line| line.contains(LOST)).collect();
        assert_eq!(lines.len(), 1, "{messages}");
        let line = lines[0];
        assert!(
            line.contains("WARN") && line.contains(&format!("{url}/v1/traces")) && line.contains("spans="),
            "{line}"
        );
        service.process.stop().await;
    }
}
