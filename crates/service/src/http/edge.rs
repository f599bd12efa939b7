//! The edge of the API: what every request passes before its handler, and every answer after it.
//!
//! This is a single middleware, because each middleware copies the rest of the stack for every request. What a request
//! must have before a handler receives it is decided by [`super::admission`].

use super::Api;
use super::admission;
use super::problem::{self, Problem, ProblemCode};
use super::{health, ops};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foretell_telemetry::trace;
use futures::FutureExt;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Span;

/// The route label of requests without a route.
pub(super) const NO_ROUTE: &str = "none";

/// Traces and counts a request, and applies its limits within the trace, so every problem can contain its trace id.
pub(super) async fn passed(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let inflight = Inflight::new();
    // The template and not the path: paths contain ids, and labels must have few values.
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, |matched| matched.as_str()).to_owned();
    let method = method(request.method());
    let line = tracing::info_span!(
        "request",
        http.request.method = method,
        http.route = route,
        trace_id = tracing::field::Empty,
    );
    // Probes and scrapes would be the majority of the traces of a quiet service.
    let is_traced = !health::is_probe(&route) && route != ops::METRICS;
    let span = if is_traced { trace::request(&request, method, &route) } else { Span::none() };
    let caller = trace::caller(request.headers());
    let answer = admission::answer(&api, &route, request, next).map(|response| explained(response, &route));
    let mut response = trace::scope(caller, &span, &line, answer).await;
    let status = response.status();
    trace::requested(&span, status.as_u16());
    drop(inflight);
    let seconds = begun.elapsed().as_secs_f64();
    finish(&mut response, &route, method);
    metrics::histogram!(foretell_telemetry::HTTP_SECONDS, foretell_telemetry::ROUTE => route).record(seconds);
    line.in_scope(|| tracing::debug!(status = status.as_u16(), seconds, "answered"));
    response
}

/// The answer to a request that does not reach the router.
pub(super) async fn refused(sent: &Method, headers: &HeaderMap, problem: Problem) -> Response {
    let answer = async { problem.into_response() };
    let mut response = trace::scope(trace::caller(headers), &Span::none(), &Span::none(), answer).await;
    finish(&mut response, NO_ROUTE, method(sent));
    response
}

/// The same for every request to a router that answers before the API exists.
pub async fn without_api(request: Request, next: Next) -> Response {
    let method = method(request.method());
    let mut response = next.run(request).await;
    finish(&mut response, NO_ROUTE, method);
    response
}

/// Applied to every answer: its headers are hardened, and it is counted.
pub(super) fn finish(response: &mut Response, route: &str, method: &'static str) {
    harden(response.headers_mut(), route);
    let labels = [
        (foretell_telemetry::ROUTE, route.to_owned()),
        (foretell_telemetry::METHOD, method.to_owned()),
        (foretell_telemetry::STATUS, response.status().as_str().to_owned()),
    ];
    metrics::counter!(foretell_telemetry::HTTP_REQUESTS, &labels).increment(1);
}

/// The name of a method in labels and spans: one of nine, or `other`, so that callers cannot create labels.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Counts a request as long as it is being answered, even if its connection is closed.
struct Inflight(metrics::Gauge);

impl Inflight {
    fn new() -> Self {
        let inflight = metrics::gauge!(foretell_telemetry::HTTP_INFLIGHT);
        inflight.increment(1.0);
        Self(inflight)
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The same answer, or a problem document in place of an error from a library that does not explain it.
fn explained(response: Response, route: &str) -> Response {
    let status = response.status();
    let is_failure = status.is_client_error() || status.is_server_error();
    let media_type = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !is_failure || media_type.ends_with(b"json") {
        return response;
    }
    match status {
        StatusCode::NOT_FOUND => Problem::new(ProblemCode::PathNotFound, problem::SEE_DOCS),
        status if status.is_client_error() => Problem::new(
            ProblemCode::MalformedRequest,
            format!("the request was rejected with status {}", status.as_u16()),
        ),
        status => Problem::internal(format!("{route} answered {status} without a problem document")),
    }
    .into_response()
}

/// No answer may be cached, sniffed for its type by a browser, or embedded in another site's page.
fn harden(headers: &mut HeaderMap, route: &str) {
    /// The page at /docs: its own scripts and styles (including inline styles), and images from data URLs.
    const DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                        connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    const DATA: &str = "default-src 'none'; frame-ancestors 'none'";
    let is_docs = route.starts_with("/docs");
    let policy = HeaderValue::from_static(if is_docs { DOCS } else { DATA });
    let caching = HeaderValue::from_static(if is_docs { "no-cache" } else { "no-store" });
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::CACHE_CONTROL, caching);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_nobody_knows_have_one_name() {
        for known in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
            assert_eq!(method(&Method::from_bytes(known.as_bytes()).unwrap()), known);
        }
        for unknown in ["get", "M1", "PROPFIND", "GETT", &"X".repeat(60_000)] {
            assert_eq!(method(&Method::from_bytes(unknown.as_bytes()).unwrap()), "other");
        }
    }

    #[test]
    fn failures_are_explained_and_answers_left_alone() {
        let plain = |status: u16| (StatusCode::from_u16(status).unwrap(), "text").into_response();
        for (status, explained_as) in [(200, 200), (304, 304), (400, 400), (404, 404), (418, 400), (502, 500)] {
            let explained = explained(plain(status), "/docs/{*rest}");
            assert_eq!(explained.status().as_u16(), explained_as);
            let media_type = explained.headers()[header::CONTENT_TYPE].to_str().unwrap();
            assert_eq!(media_type == "application/problem+json", status >= 400, "{status}");
        }
        let own = (StatusCode::SERVICE_UNAVAILABLE, axum::Json("starting")).into_response();
        assert_eq!(explained(own, "/readyz").headers()[header::CONTENT_TYPE], "application/json");
    }
}
