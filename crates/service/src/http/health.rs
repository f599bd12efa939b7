//! Liveness, readiness and metrics.
//!
//! Liveness does not depend on anything else: a process whose store is unavailable must not be restarted because of it.
//! Readiness states whether answers can be trusted: the views have reached the end that the log had when the process
//! started, and log and store respond.

use super::Api;
use super::problem::Problem;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use foretell_engine::progress::MissingPartition;
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Whether the process is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Liveness)]
pub struct Alive {
    /// `ok`.
    pub status: &'static str,
}

/// Whether the process is ready, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `starting` or `draining`.
    pub status: &'static str,
    /// Partitions that have not caught up yet; only with `?verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub missing: Option<Vec<MissingPartition>>,
    /// Notices for operators that do not prevent it from being ready; only with `?verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub notices: Option<Vec<String>>,
}

/// Whether a path is that of a probe, which is answered regardless of the load of the process.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Answers as long as the process runs.
///
/// Log and store are not checked: a process that waits for them is alive.
#[utoipa::path(
    get, path = "/livez", operation_id = "getLiveness", tag = "operation",
    responses((status = 200, description = "The process runs", body = Alive))
)]
pub(super) async fn live() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Whether requests should be sent to this process.
///
/// 200 if the views have reached the end that the log had at start, and log and store respond; else 503.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "operation",
    params(("verbose" = Option<String>, Query, description = "Lists what is missing")),
    responses(
        (status = 200, description = "The process is ready", body = Readiness),
        (status = 503, description = "The process is not ready yet, or no longer ready", body = Readiness),
    )
)]
pub(super) async fn ready(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let missing = api.progress.missing();
    let (code, status) = match missing.is_empty() {
        _ if api.shutdown.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
    };
    let mut parameters = query.as_deref().unwrap_or_default().split('&');
    let verbose = parameters.any(|parameter| parameter.split('=').next() == Some("verbose"));
    let readiness = Readiness { status, missing: verbose.then_some(missing), notices: verbose.then(|| notices(&api)) };
    (code, Json(readiness)).into_response()
}

fn notices(api: &Api) -> Vec<String> {
    let files = api.ports.enricher.problems().into_iter().chain(api.ports.enricher.stale());
    let misplaced = api.ports.misplaced.notices(Instant::now());
    api.ports.notices.iter().cloned().chain(files).chain(misplaced).collect()
}

/// Metrics in the text format of Prometheus.
pub(super) async fn metrics() -> Result<Response, Problem> {
    let text = foretell_telemetry::exposition().ok_or_else(|| Problem::internal("no recorder of metrics"))?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, text).into_response())
}
