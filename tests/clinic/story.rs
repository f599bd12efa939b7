//! Every reminder that was due and not announced has a reason in the story of its appointment.

use super::rules::Key;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use tower::ServiceExt;

/// Stories that are requested, spread over all.
const STORIES_MAX: usize = 400;
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How many steps have a reason, or the first one without.
pub async fn explained(api: &Router, unsent: &[(Key, String, &'static str)]) -> Result<usize, String> {
    let every = unsent.len() / STORIES_MAX + 1;
    for ((tenant, client), appointment, step) in unsent.iter().step_by(every) {
        let visit = ask(api, tenant, appointment).await?;
        let reminders = visit["reminders"].as_array().cloned().unwrap_or_default();
        let is_announced = |r: &Value| r["step"] == *step && r["reason"].is_string() && r["status"] != "planned";
        if visit["client_id"] != **client || !reminders.iter().any(is_announced) {
            return Err(format!("no reason why {step} of {appointment} was not announced to {client}: {visit}"));
        }
    }
    Ok(unsent.len().div_ceil(every))
}

async fn ask(api: &Router, tenant: &str, appointment: &str) -> Result<Value, String> {
    let request = Request::get(format!("/v1/appointments/{appointment}")).header("foretell-tenant", tenant);
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = api.clone().oneshot(request).await.map_err(|error| error.to_string())?;
    let body = to_bytes(answer.into_body(), BODY_BYTES_MAX).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
