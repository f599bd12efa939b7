//! The trace that a request belongs to, as defined by W3C Trace Context, and the spans of this process in it.
//!
//! A request continues the trace of its `traceparent`, or starts one. The trace belongs to the task that answers the
//! request, so that problem documents and log lines can contain it, and appended records carry it as a header of the
//! same name. Traces work with and without a span exporter.
//!
//! Spans have their own [target](TARGET). Without an exporter nothing subscribes to it, so a span costs the check of
//! one flag, and its attributes are never computed.

mod carrier;
mod known;
mod spans;

pub use carrier::{caller, extract};
pub use known::Known;
pub use spans::{Reading, announcing, folding, reading, request, requested, sending, sent};

use bytes::Bytes;
use carrier::Outgoing;
use foretell_events::record::Header;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of exported spans, which nothing else uses.
pub const TARGET: &str = "foretell::trace";
/// The record header that contains its trace.
pub(crate) const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: Context;
    /// The `traceparent` of the record that is being folded: parsed only when a line is logged, which is rare.
    static FOLDED: Bytes;
}

/// Whether this process exports spans. The subscriber cannot be queried for this: its filters treat each query as a
/// line that is about to be logged, and would drop the next line instead.
static EXPORTS: AtomicBool = AtomicBool::new(false);

/// Enables the export of spans.
pub fn export() {
    EXPORTS.store(true, Ordering::Relaxed);
}

/// Whether spans are exported.
pub(crate) fn is_exporting() -> bool {
    EXPORTS.load(Ordering::Relaxed)
}

/// Runs `work` within the trace of its caller, else within a new one.
///
/// `span` becomes a child of the caller's span if spans are exported. `line` is the span that log lines show; it gets
/// the `trace_id`.
pub async fn scope<F: Future>(caller: Context, span: &Span, line: &Span, work: F) -> F::Output {
    // Fails if there is no exporter.
    let exported = span.set_parent(caller.clone()).is_ok().then(|| span.context()).filter(is_valid);
    let own = exported.unwrap_or_else(|| begun(&caller));
    line.record("trace_id", tracing::field::display(own.span().span_context().trace_id()));
    CURRENT.scope(own, work.instrument(line.clone()).instrument(span.clone())).await
}

fn is_valid(context: &Context) -> bool {
    context.span().span_context().is_valid()
}

/// A span of this process that is not recorded, in the caller's trace if there is one.
fn begun(caller: &Context) -> Context {
    let trace_id = uuid::Uuid::new_v4().as_u128();
    let (span_id, _) = uuid::Uuid::new_v4().as_u64_pair();
    unrecorded(caller, trace_id, span_id)
}

/// A span with this id that is not recorded, in the trace of `parent`, else in the one with that id.
fn unrecorded(parent: &Context, trace_id: u128, span_id: u64) -> Context {
    let parent = parent.span().span_context().clone();
    let trace_id = if parent.is_valid() { parent.trace_id() } else { TraceId::from(trace_id) };
    let flags = if parent.is_valid() { parent.trace_flags() } else { TraceFlags::NOT_SAMPLED };
    let state = if parent.is_valid() { parent.trace_state().clone() } else { TraceState::NONE };
    Context::new().with_remote_span_context(SpanContext::new(trace_id, SpanId::from(span_id), flags, true, state))
}

/// The trace of the request that this task answers, as 32 hexadecimal digits; none outside of a request.
pub fn current_id() -> Option<String> {
    CURRENT.try_with(|context| context.span().span_context().trace_id().to_string()).ok()
}

/// Trace and span of the request or record that this task works on, for log lines.
pub fn current() -> Option<(TraceId, SpanId)> {
    let ids = |context: &Context| {
        let span = context.span();
        let of = span.span_context();
        of.is_valid().then(|| (of.trace_id(), of.span_id()))
    };
    let folded = || FOLDED.try_with(|value| ids(&extract(&[(TRACEPARENT.to_owned(), value.clone())]))).ok();
    CURRENT.try_with(ids).ok().or_else(folded).flatten()
}

/// Adds the trace of the request that this task answers to the headers of a record.
pub fn inject(headers: &mut Vec<Header>) {
    let _ = CURRENT.try_with(|context| inject_context(context, headers));
}

/// Adds the trace to the headers of a record, with `span` as the parent of later spans; if the span is not exported,
/// the same as [`inject`].
pub fn inject_from(span: &Span, headers: &mut Vec<Header>) {
    if span.is_disabled() {
        return inject(headers);
    }
    match Some(span.context()).filter(is_valid) {
        Some(context) => inject_context(&context, headers),
        None => inject(headers),
    }
}

fn inject_context(context: &Context, headers: &mut Vec<Header>) {
    TraceContextPropagator::new().inject_context(context, &mut Outgoing(headers));
}

/// Runs `work` as a part of `span`, so that log lines name it.
fn within<T>(span: &Span, work: impl FnOnce() -> T) -> T {
    match Some(span.context()).filter(is_valid) {
        Some(context) => CURRENT.sync_scope(context, || span.in_scope(work)),
        None => work(),
    }
}

#[cfg(test)]
mod tests;
