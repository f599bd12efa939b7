//! The trace that a request belongs to, by W3C Trace Context.
//!
//! A request brings its trace in `traceparent`, or begins one. The trace goes with the task that answers the
//! request, so that problem documents can name it and appended records carry it on as a header of the same name.
//! It is there with and without an exporter of spans.

use crate::log::Header;
use axum::http::HeaderMap;
use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::future::Future;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

tokio::task_local! {
    static CURRENT: Context;
}

/// The trace that the headers of a request name; an empty one where they name none.
pub fn caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(headers))
}

/// Runs `work` within the trace of its caller, else within a new one.
///
/// `span` becomes a child of the caller's span where spans are exported.
pub async fn scope<F: Future>(caller: Context, span: &Span, work: F) -> F::Output {
    // Fails where no exporter listens.
    let exported = span.set_parent(caller.clone()).is_ok().then(|| span.context());
    let own = exported.filter(|own| own.span().span_context().is_valid()).unwrap_or_else(|| begun(&caller));
    span.record("trace_id", own.span().span_context().trace_id().to_string());
    CURRENT.scope(own, work).await
}

/// A span of this process that nobody records, in the caller's trace if there is one.
fn begun(caller: &Context) -> Context {
    let caller = caller.span().span_context().clone();
    let trace_id = if caller.is_valid() { caller.trace_id() } else { TraceId::from(uuid::Uuid::new_v4().as_u128()) };
    let (span_id, _) = uuid::Uuid::new_v4().as_u64_pair();
    let flags = if caller.is_valid() { caller.trace_flags() } else { TraceFlags::NOT_SAMPLED };
    let state = if caller.is_valid() { caller.trace_state().clone() } else { TraceState::NONE };
    Context::new().with_remote_span_context(SpanContext::new(trace_id, SpanId::from(span_id), flags, true, state))
}

/// The trace of the request that this task answers, as 32 hexadecimal digits; none outside of a request.
pub fn current_id() -> Option<String> {
    CURRENT.try_with(|context| context.span().span_context().trace_id().to_string()).ok()
}

/// Adds the trace of the request that this task answers to the headers of a record.
pub fn inject(headers: &mut Vec<Header>) {
    let _ = CURRENT.try_with(|context| {
        TraceContextPropagator::new().inject_context(context, &mut Outgoing(headers));
    });
}

/// The trace that a record's headers name; an empty one where they name none.
pub fn extract(headers: &[Header]) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Stored(headers))
}

/// The span of a record's fold, in the trace that its headers name; none where they name none.
pub fn folding(headers: &[Header], family: &'static str) -> Span {
    if !headers.iter().any(|(name, _)| name == "traceparent") {
        return Span::none();
    }
    let span = tracing::info_span!("fold", family);
    // Fails where no exporter listens, and then there is nothing to set.
    let _ = span.set_parent(extract(headers));
    span
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut Vec<Header>);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.retain(|(name, _)| name != key);
            self.0.push((key.to_owned(), Bytes::from(value)));
        }
    }
}

struct Stored<'a>(&'a [Header]);

impl Extractor for Stored<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        std::str::from_utf8(value).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(traceparent: &str) -> HeaderMap {
        HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
    }

    #[tokio::test]
    async fn a_callers_trace_is_carried_into_record_headers() {
        let headers = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let (id, carried) = scope(caller(&headers), &Span::none(), async {
            let mut headers = vec![("traceparent".to_owned(), Bytes::from_static(b"stale"))];
            inject(&mut headers);
            (current_id(), headers)
        })
        .await;
        assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let context = extract(&carried);
        let span = context.span().span_context().clone();
        assert_eq!(span.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(span.span_id().to_string(), "b7ad6b7169203331", "the record's parent is this process");
        assert!(span.is_sampled());
        assert_eq!(carried.iter().filter(|(name, _)| name == "traceparent").count(), 1);
    }

    #[tokio::test]
    async fn without_a_valid_caller_a_trace_begins() {
        for bad in ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "garbage"] {
            let id = scope(caller(&headers(bad)), &Span::none(), async { current_id() }).await.unwrap();
            assert!(id.len() == 32 && id.bytes().any(|digit| digit != b'0'), "{bad:?} gave {id}");
        }
        assert_eq!(current_id(), None);
    }
}
