//! The model that scores a tenant's visits: which one it is, what it was trained on, and how its scores compare with
//! the outcomes of recent visits.
//!
//! A model is a document like a policy and is handled the same way: versions, `If-Match`, the fence of the topic, and a
//! rollback by publishing an earlier document. An empty document returns to two counters.

use super::Api;
use super::answer::{self, at};
use super::auth::Caller;
use super::policies::{self, PolicyVersions};
use super::problem::Problem;
use super::request::Body;
use super::risk::visits::AppointmentModel;
use crate::policies::Latest;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foretell_domain::score::no_show::calibration::{Line, ReliabilityBin};
use foretell_domain::score::no_show::model::{NoShowModel, Training};
use foretell_domain::score::no_show::{NoShowModelVersion, TRAINED, TWO_COUNTERS};
use foretell_events::policy::Kind;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The model that scores visits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelAnswer {
    /// The model as in answers; two counters if none is published.
    pub model: AppointmentModel,
    /// The version of the document: a number, or a digest if none was published. `ETag` contains the latest published
    /// version, which is a different one if it cannot be used.
    pub version: String,
    /// When it was published; null if none was.
    #[schema(format = DateTime, required)]
    pub published_at: Option<String>,
    /// What it was trained on, and its measures on later visits, by segment; null for two counters.
    #[schema(required, value_type = Option<Object>)]
    pub training: Option<Training>,
    /// The properties of a visit that it uses.
    pub inputs: Vec<String>,
    /// How recent outcomes correct it.
    pub calibration: Segments,
    /// The corrected scores of recent visits and their outcomes, in ten bins, the lowest scores first.
    pub reliability: Vec<ReliabilityBin>,
    /// The document; null for two counters.
    #[schema(required, value_type = Option<Object>)]
    pub document: Option<NoShowModel>,
    /// Stable codes; `POLICY_INVALID`: the latest document cannot be used.
    pub warnings: Vec<&'static str>,
}

/// Corrections of log-odds by segment: `middle + slope * (log_odds - middle) + intercept`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = CalibrationSegments)]
pub struct Segments {
    /// Of visits booked for the same day.
    pub same_day: Line,
    /// Of all others.
    pub later: Line,
}

/// The model that scores visits, with its measures and its reliability.
///
/// `ETag` is the latest version of the document, `Last-Modified` when it was published. A request with `If-None-Match`
/// or `If-Modified-Since` is answered 304 if the caller has that version; `calibration` and `reliability` depend on
/// recent visits and may have changed nevertheless.
#[utoipa::path(
    get, path = "/v1/models/no-show", operation_id = "getNoShowModel", tag = "models",
    params(
        ("Foretell-Tenant" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header, description = "The caller's versions, as in `ETag`"),
        ("If-Modified-Since" = Option<String>, Header, description = "`Last-Modified` of the caller's version"),
    ),
    responses(
        (status = 200, description = "The model", body = ModelAnswer, headers(
            ("ETag" = String, description = "The latest version"),
            ("Last-Modified" = String, description = "When it was published; missing for two counters"),
        )),
        (status = 304, description = "The caller has the latest version"),
    )
)]
pub(super) async fn get(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap) -> Result<Response, Problem> {
    let (answer, latest) = shown(&api, &caller.tenant).await?;
    policies::read(&headers, Json(answer), &latest)
}

/// The latest versions of the model, at most 16.
#[utoipa::path(
    get, path = "/v1/models/no-show/versions", operation_id = "listNoShowModelVersions", tag = "models",
    params(("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The versions", body = PolicyVersions),
    )
)]
pub(super) async fn versions(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<PolicyVersions>, Problem> {
    policies::remembered(&api, &caller.tenant, Kind::NoShowModel).await.map(Json)
}

/// Replaces the model: the document is the output of `foretell train no-show`; an empty one returns to two counters.
///
/// The model is in force in this process when the request is answered, and everywhere within a second or so.
/// Preconditions and `Idempotency-Key` are those of policies. A document that uses a protected attribute, or that
/// cannot be used, is rejected, and the one before it stays in force.
#[utoipa::path(
    put, path = "/v1/models/no-show", operation_id = "publishNoShowModel", tag = "models",
    params(
        ("Foretell-Tenant" = Option<String>, Header),
        ("If-Match" = Option<String>, Header, description = "Versions to replace, as in `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if no version has been published"),
        ("If-Unmodified-Since" = Option<String>, Header, description = "`Last-Modified` of the version to replace"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    request_body(description = "The document", content((Object = "application/json", example = json!({})))),
    responses(
        (
            status = 200, description = "The model in force", body = ModelAnswer,
            headers(("ETag" = String, description = "The latest version"))
        ),
        (status = 409), (status = 412),
    )
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    policies::replace(&api, &caller.tenant, Kind::NoShowModel, &headers, &body).await?;
    let (answer, latest) = shown(&api, &caller.tenant).await?;
    Ok(policies::tagged(Json(answer), policies::present(&latest)))
}

async fn shown(api: &Api, tenant: &str) -> Result<(ModelAnswer, Latest), Problem> {
    let active = api.assessor.models().read(tenant).await.map_err(answer::unreadable)?;
    let review = api.assessor.review(tenant, &active, api.ports.clock.now_ms()).await.map_err(answer::unreadable)?;
    let model = active.policy.model.as_deref();
    let NoShowModelVersion { id, version } = match model {
        Some(_) => NoShowModelVersion { id: TRAINED, version: active.version.clone().into() },
        None => TWO_COUNTERS,
    };
    let mut inputs: Vec<_> =
        model.map_or_else(Vec::new, |model| model.terms.iter().map(|term| term.input.to_string()).collect());
    inputs.dedup();
    let answer = ModelAnswer {
        model: AppointmentModel { id, version: version.into_owned() },
        version: active.version.clone(),
        published_at: active.published.as_ref().map(|version| at(version.published_at_ms)),
        training: model.map(|model| model.training.clone()),
        inputs,
        calibration: Segments { same_day: review.same_day, later: review.later },
        reliability: review.reliability,
        document: model.cloned(),
        warnings: active.warning.into_iter().collect(),
    };
    Ok((answer, active.latest.clone()))
}
