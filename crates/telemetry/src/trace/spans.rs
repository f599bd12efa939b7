//! The exported spans, with names and attributes of OpenTelemetry's semantic conventions.

use super::carrier::value;
use super::{
    CURRENT, FOLDED, TARGET, TRACEPARENT, extract, inject_context, is_exporting, is_valid, unrecorded, within,
};
use foretell_events::Position;
use foretell_events::record::{Header, Record};
use foretell_ports::clock::{Clock, System};
use http::{Request, header};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Records older than this, in milliseconds, are folded without a span: otherwise a rebuild would export a span for
/// every record of the log.
const FOLDED_AGE_MS_MAX: i64 = 3_600_000;

/// The span of a request to this server; disabled if spans are not exported.
pub fn request<B>(request: &Request<B>, method: &'static str, route: &str) -> Span {
    if !is_exporting() {
        return Span::none();
    }
    let name = format!("{method} {route}");
    let span = tracing::info_span!(target: TARGET, "request", otel.name = name, otel.kind = "server");
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("http.request.method", if method == "other" { "_OTHER" } else { method }.into()),
        ("http.route", route.to_owned().into()),
        ("url.path", request.uri().path().to_owned().into()),
        // TLS is terminated in front of this process.
        ("url.scheme", "http".into()),
        ("network.protocol.version", format!("{:?}", request.version()).trim_start_matches("HTTP/").to_owned().into()),
    ];
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse().ok()).or_else(|| request.uri().authority().cloned());
    if let Some(authority) = authority {
        attributes.push(("server.address", authority.host().to_owned().into()));
        attributes.extend(authority.port_u16().map(|port| ("server.port", i64::from(port).into())));
    }
    attributes.into_iter().for_each(|(name, value)| span.set_attribute(name, value));
    span
}

/// A request was answered with this status.
pub fn requested(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_attribute("error.type", status.to_string());
        span.set_status(Status::error(""));
    }
}

/// The span of an append by a request; disabled outside of a request, and if spans are not exported.
pub fn sending(system: &'static str, destination: impl FnOnce() -> String, records: usize) -> Span {
    if !is_exporting() || CURRENT.try_with(|_| ()).is_err() {
        return Span::none();
    }
    let destination = destination();
    let span = sender(system, &destination);
    if records > 1 {
        span.set_attribute("messaging.batch.message_count", records as i64);
    }
    span
}

fn sender(system: &'static str, destination: &str) -> Span {
    tracing::info_span!(
        target: TARGET, "send",
        otel.name = format!("send {destination}"), otel.kind = "producer",
        messaging.system = system, messaging.destination.name = destination,
        messaging.operation.name = "send", "messaging.operation.type" = "send",
    )
}

/// Records the positions of the appended records, or the failure.
pub fn sent<E>(span: &Span, positions: &Result<Vec<Position>, E>) {
    if span.is_disabled() {
        return;
    }
    match positions {
        Ok(positions) => {
            if let [Position { partition, offset, .. }] = positions.as_slice() {
                span.set_attribute("messaging.destination.partition.id", partition.to_string());
                span.set_attribute("messaging.kafka.offset", *offset);
            }
        }
        Err(_) => failed(span, "append"),
    }
}

fn failed(span: &Span, error: &'static str) {
    span.set_attribute("error.type", error);
    span.set_status(Status::error(""));
}

/// A read of rows by a request.
pub struct Reading(Span);

/// The span of a read from a store by a request; disabled outside of a request, and if spans are not exported.
pub fn reading(system: &'static str, collection: &'static str, rows: usize) -> Reading {
    if !is_exporting() || CURRENT.try_with(|_| ()).is_err() {
        return Reading(Span::none());
    }
    Reading(tracing::info_span!(
        target: TARGET, "read",
        otel.name = format!("read {collection}"), otel.kind = "client",
        db.system.name = system, db.operation.name = "read", db.collection.name = collection,
        db.operation.batch.size = rows as i64,
    ))
}

impl Reading {
    /// The span, to instrument the read with.
    pub fn span(&self) -> Span {
        self.0.clone()
    }

    /// The read failed.
    pub fn failed(&self) {
        if !self.0.is_disabled() {
            failed(&self.0, "read");
        }
    }
}

/// Folds a record within the trace of its headers, if they contain one.
pub fn folding<T>(system: &'static str, topic: &str, record: &Record, fold: impl FnOnce() -> T) -> T {
    let Some(traceparent) = value(&record.headers, TRACEPARENT) else { return fold() };
    let span = if is_exporting() { processing(system, topic, record) } else { Span::none() };
    match span.is_disabled() {
        true => FOLDED.sync_scope(traceparent.clone(), fold),
        false => within(&span, fold),
    }
}

fn processing(system: &'static str, topic: &str, record: &Record) -> Span {
    if !is_recent(record, System.now_ms()) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TARGET, parent: None, "process",
        otel.name = format!("process {topic}"), otel.kind = "consumer",
        messaging.system = system, messaging.destination.name = topic,
        messaging.operation.name = "process", "messaging.operation.type" = "process",
        messaging.destination.partition.id = record.position.partition.to_string(),
        messaging.kafka.offset = record.position.offset,
    );
    let _ = span.set_parent(extract(&record.headers));
    span
}

/// Whether the fold of a record is traced.
pub(super) const fn is_recent(record: &Record, now_ms: i64) -> bool {
    now_ms - record.timestamp_ms <= FOLDED_AGE_MS_MAX
}

/// The span of an announcement, which ends when it is dropped; its trace is added to the headers of the record.
///
/// If `is_requested`, it belongs to the trace of the request that waits for it. A scheduled one has its own trace with
/// a link to its cause, because traces do not last for weeks. Without an exporter the ids are derived from the id of
/// the reminder, so that a reminder that is announced twice has one trace.
pub fn announcing(
    system: &'static str,
    topic: &str,
    cause: &Context,
    is_requested: bool,
    event_id: &str,
    headers: &mut Vec<Header>,
) -> Span {
    let parent = if is_requested { cause.clone() } else { Context::new() };
    let span = if is_exporting() { sender(system, topic) } else { Span::none() };
    let _ = span.set_parent(parent.clone());
    if !is_requested && !span.is_disabled() {
        span.add_link(cause.span().span_context().clone());
    }
    let exported = Some(&span).filter(|span| !span.is_disabled()).map(OpenTelemetrySpanExt::context);
    let derived = || {
        let hash = xxhash_rust::xxh3::xxh3_128(event_id.as_bytes());
        unrecorded(&parent, hash.max(1), ((hash >> 64) as u64).max(1))
    };
    inject_context(&exported.filter(is_valid).unwrap_or_else(derived), headers);
    span
}
