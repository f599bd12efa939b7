//! Learning, for operators: read from the log while the instance goes on.

use super::lines;
use crate::event::codec::rfc3339;
use crate::http::problem::{Code, Problem};
use crate::http::request::{self, Body};
use crate::http::{Api, answer};
use crate::pipeline::family;
use crate::store::Family;
use crate::train::reading::{self, Asked, Settings};
use axum::extract::State;
use axum::response::IntoResponse;
use std::sync::Arc;

/// `POST /admin/train/no-show`: a model of a tenant's history, told as JSON Lines of
/// [`Told`](crate::train::reading::Told). Publishes nothing. One at a time; ends when nobody reads any more.
pub(in crate::http) async fn no_show(
    State(api): State<Arc<Api>>,
    Body(body): Body,
) -> Result<impl IntoResponse, Problem> {
    let asked: Asked = serde_json::from_value(request::json(&body)?)
        .map_err(|error| Problem::new(Code::MalformedJson, format!("not a question for a model: {error}")))?;
    let Ok(place) = api.lessons.clone().try_acquire_owned() else {
        return Err(Problem::new(Code::Overloaded, "a model is being learnt already, and only one is at a time"));
    };
    let (config, limits) = (api.scoring.no_show.clone(), api.verifier.limits.clone());
    let gated_from_ms = family::gated_from_ms(api.store.as_ref(), Family::Appointments).await;
    let gated_from_ms = gated_from_ms.map_err(answer::unreadable)?;
    let settings = Settings { config, limits, now: rfc3339(api.clock.now_ms()), gated_from_ms };
    Ok(lines(reading::spawn(api.log.clone(), asked, settings, place)))
}
