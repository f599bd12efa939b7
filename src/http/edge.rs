//! The edge of the API: what every request passes before its handler, and every answer after it.

use super::Api;
use super::problem::{Code, Problem};
use crate::telemetry::{self, trace};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// Traces and counts a request. Outermost, so that every problem can name its trace.
pub(super) async fn traced(request: Request, next: Next) -> Response {
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
    let response = trace::scope(caller, &span, next.run(request).instrument(span.clone())).await;
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
pub(super) async fn bounded(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if is_unbounded(request.uri().path()) {
        return next.run(request).await;
    }
    let Ok(_place) = api.requests.try_acquire() else {
        let detail = format!("{} requests are being answered", api.config.requests_max);
        return Problem::new(Code::Overloaded, detail).into_response();
    };
    let longest = Duration::from_millis(api.config.request_ms_max);
    match tokio::time::timeout(longest, next.run(request)).await {
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
#[allow(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Problem::internal(format!("a handler panicked: {}", text.unwrap_or_default())).into_response()
}
