//! Learning, for operators: read from the log while the instance goes on.

use super::lines;
use crate::event::codec::rfc3339;
use crate::http::Api;
use crate::http::problem::{Code, Problem};
use crate::train::reading::{self, Asked, Settings};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use std::sync::Arc;

/// `POST /admin/train/no-show`: a model of a tenant's history, told as JSON Lines of
/// [`Told`](crate::train::reading::Told). Publishes nothing.
pub(in crate::http) async fn no_show(State(api): State<Arc<Api>>, body: Bytes) -> Result<impl IntoResponse, Problem> {
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Code::MalformedJson, format!("not a question for a model: {error}")))?;
    let (config, limits) = (api.scoring.no_show.clone(), api.verifier.limits.clone());
    let settings = Settings { config, limits, now: rfc3339(api.clock.now_ms()) };
    Ok(lines(reading::spawn(api.log.clone(), asked, settings)))
}
