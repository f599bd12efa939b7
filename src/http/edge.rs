//! The edge of the API: what every request passes before its handler, and every answer after it.
//!
//! One middleware for all of it, because each one costs every request a copy of all that stands behind it.

use super::Api;
use super::problem::{Code, Problem};
use crate::telemetry::{self, trace};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// Traces and counts a request, and bounds it within: so every problem can name its trace.
pub(super) async fn passed(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let inflight = Inflight::new();
    // The template and not the path: paths hold ids, and labels must be few.
    let route = request.extensions().get::<MatchedPath>().map_or("none", |matched| matched.as_str()).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    let caller = trace::caller(request.headers());
    let response = trace::scope(caller, &span, bounded(&api, request, next).instrument(span.clone())).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    drop(inflight);
    let seconds = begun.elapsed().as_secs_f64();
    let labels = [
        (telemetry::ROUTE, route.clone()),
        (telemetry::METHOD, method.to_string()),
        (telemetry::STATUS, status.as_str().to_owned()),
    ];
    metrics::counter!(telemetry::HTTP_REQUESTS, &labels).increment(1);
    metrics::histogram!(telemetry::HTTP_SECONDS, telemetry::ROUTE => route).record(seconds);
    span.in_scope(|| tracing::debug!(status = status.as_u16(), seconds, "answered"));
    response
}

/// Counts a request for as long as it is being answered, also when its connection is gone.
struct Inflight;

impl Inflight {
    fn new() -> Self {
        metrics::gauge!(telemetry::HTTP_INFLIGHT).increment(1.0);
        Self
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::HTTP_INFLIGHT).decrement(1.0);
    }
}

/// Answers at once when too many requests are being answered, or when one takes too long. Nothing queues.
async fn bounded(api: &Api, request: Request, next: Next) -> Response {
    let is_unbounded = is_unbounded(request.uri().path());
    let answer = caught(next.run(request));
    if is_unbounded {
        return answer.await;
    }
    let Ok(_place) = api.requests.try_acquire() else {
        let detail = format!("{} requests are being answered", api.config.requests_max);
        return Problem::new(Code::Overloaded, detail).into_response();
    };
    let longest = Duration::from_millis(api.config.request_ms_max);
    match tokio::time::timeout(longest, answer).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} ms; what was to be appended may be stored", longest.as_millis());
            Problem::new(Code::Timeout, detail).into_response()
        }
    }
}

/// Orchestrators and dashboards must hear of an overload.
fn is_unbounded(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

/// A handler that panicked has a bug; the client hears of it as of any other fault of the service.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Problem::internal(format!("a handler panicked: {}", text.unwrap_or_default())).into_response()
    })
}
