//! Scores of visits: of a booked one, which must exist, and of a considered one, which need not.

use super::{DEGRADED, PolicyReference, count, in_time};
use crate::http::Api;
use crate::http::answer::{self, ViewPosition, WrittenJson, at};
use crate::http::auth::Caller;
use crate::http::problem::{Problem, ProblemCode};
use crate::http::request::{Ids, Object};
use axum::extract::State;
use foretell_domain::address::Family;
use foretell_domain::decision::record::{self, AnswerJson, DecisionRecord, ScoreInput};
use foretell_domain::score::no_show::context::ScoringContext;
use foretell_domain::score::{OnUnavailable, Reason, RecommendedAction, RiskLevel};
use foretell_domain::view::client::attribute::Attributes;
use foretell_domain::view::client::snapshot::Subject;
use foretell_domain::view::client::{Client, Start};
use foretell_events::appointment::StartsAt;
use foretell_events::codec::{Fault, Fields};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A request to score a visit: a booked one by its id, or a considered one.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the fields of the body, which a test compares with those that are read")]
#[schema(example = json!({"client_id": "c-1", "starts_at": "2026-03-29T09:30:00", "time_zone": "Europe/Dublin"}))]
pub struct AppointmentRequest {
    /// A booked appointment; then no other field is needed.
    #[schema(nullable = false)]
    appointment_id: Option<String>,
    /// The client of a considered visit.
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// RFC 3339 with offset, or a local date-time together with `time_zone`.
    #[schema(nullable = false)]
    starts_at: Option<String>,
    /// IANA zone; default: the client's, else the configured one.
    #[schema(nullable = false)]
    time_zone: Option<String>,
    /// When it is booked, RFC 3339; default: now.
    #[schema(format = DateTime, nullable = false)]
    booked_at: Option<String>,
    /// Service.
    #[schema(nullable = false)]
    service: Option<String>,
    /// Location.
    #[schema(nullable = false)]
    location_id: Option<String>,
    /// Staff member.
    #[schema(nullable = false)]
    practitioner_id: Option<String>,
    /// Additional attributes from the caller: strings, numbers, booleans.
    #[schema(nullable = false)]
    attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The model that computed a visit's score.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AppointmentModel {
    /// Its name.
    pub id: &'static str,
    /// For a trained model, its published version; otherwise changes when the same rows give another score than before.
    pub version: String,
}

/// The answer for a visit.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppointmentAnswer {
    /// Id of this answer.
    pub id: String,
    /// `appointment`.
    pub kind: &'static str,
    /// The appointment; not present for a considered visit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub appointment_id: Option<String>,
    /// The client.
    pub client_id: String,
    /// Probability of a no-show, 0 to 1, calibrated by outcomes: of visits scored 0.2, one in five is missed.
    pub score: f64,
    /// The risk, compared with the tenant's own rate.
    pub level: RiskLevel,
    /// The recommended action.
    pub recommended_action: RecommendedAction,
    /// Why; effects are contributions in log-odds and add up to those of the score.
    pub reasons: Vec<Reason>,
    /// The policy that was applied.
    pub policy: PolicyReference,
    /// The model that computed the score.
    pub model: AppointmentModel,
    /// The client's attendance history.
    pub history: answer::VisitHistory,
    /// How far the client's partition is folded.
    pub view: ViewPosition,
    /// When this was computed.
    #[schema(format = DateTime)]
    pub evaluated_at: String,
    /// Stable codes; `DEGRADED`: the rows could not be read in time. `POLICY_UNAVAILABLE`, `POLICY_INVALID`: the
    /// published model could not be read or used. `CALIBRATION_UNAVAILABLE`: recent outcomes are not taken into
    /// account.
    pub warnings: Vec<&'static str>,
}

enum VisitInput {
    Booked(String),
    Considered(Considered),
}

struct Considered {
    client_id: String,
    starts_at: StartsAt,
    booked_at_ms: i64,
    attributes: Attributes,
}

/// Scores a visit, booked or considered.
#[utoipa::path(
    post, path = "/v1/risk/appointments", operation_id = "scoreAppointment", tag = "risk",
    params(("Foretell-Tenant" = Option<String>, Header)),
    request_body = AppointmentRequest,
    responses(
        (status = 200, description = "The score", body = AppointmentAnswer),
    )
)]
pub(in crate::http) async fn appointment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Object,
) -> Result<WrittenJson, Problem> {
    let now_ms = api.ports.clock.now_ms();
    let answered = match body.read(|f| read_visit(f, now_ms))? {
        VisitInput::Considered(visit) => considered(&api, &caller.tenant, visit, now_ms).await,
        VisitInput::Booked(id) => match booked(&api, &caller.tenant, &id, now_ms).await {
            // The id is in the body, so the body is invalid and not the path.
            Err(problem) if problem.code() == ProblemCode::AppointmentNotFound => {
                let detail = "this tenant has no such appointment";
                Err(Problem::invalid(vec![Fault::new("/appointment_id", "UNKNOWN_APPOINTMENT", detail)]))
            }
            answered => answered,
        },
    };
    answered.map(WrittenJson::from)
}

/// Scores a booked appointment.
#[utoipa::path(
    get, path = "/v1/risk/appointments/{appointment_id}", operation_id = "scoreBookedAppointment", tag = "risk",
    params(("appointment_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The score", body = AppointmentAnswer),
        (status = 404),
    )
)]
pub(in crate::http) async fn booked_appointment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(id): Ids<String>,
) -> Result<WrittenJson, Problem> {
    booked(&api, &caller.tenant, &id, api.ports.clock.now_ms()).await.map(WrittenJson::from)
}

fn read_visit(f: &mut Fields<'_, '_>, now_ms: i64) -> VisitInput {
    if let Some(id) = f.optional_id("appointment_id") {
        return VisitInput::Booked(id);
    }
    let considered = Considered {
        client_id: f.id("client_id"),
        starts_at: f.starts_at(),
        booked_at_ms: f.instant("booked_at").unwrap_or(now_ms),
        attributes: Attributes::default(),
    };
    let mut attributes = Attributes::of(&f.attributes("attributes").unwrap_or_default());
    attributes.fill("service", f.text("service").as_deref());
    attributes.fill("location_id", f.optional_id("location_id").as_deref());
    attributes.fill("practitioner_id", f.optional_id("practitioner_id").as_deref());
    VisitInput::Considered(Considered { attributes, ..considered })
}

async fn booked(api: &Api, tenant: &str, id: &str, now_ms: i64) -> Result<AnswerJson, Problem> {
    let deadline = deadline(api);
    let (client_id, view, (client, lead)) = in_time(api, async {
        let client_id = api.client_of(tenant, id).await?;
        let view = api.view_position(Family::Appointments, tenant, &client_id);
        let rows = api.rows.appointment(tenant, &client_id).await.map_err(answer::unreadable)?;
        Ok((client_id, view, rows))
    })
    .await?;
    let appointment = client.as_ref().and_then(|client| client.appointments.get(id));
    let visit = appointment.and_then(|appointment| appointment.subject(id)).ok_or_else(answer::unknown_appointment)?;
    let basis = api.assessor.with(lead, tenant, now_ms, deadline).await;
    let scored = VisitScoring { client: client.as_deref(), basis, visit, view, now_ms, warnings: vec![] };
    Ok(scored.answer(api, tenant, Some(id.to_owned()), client_id).await)
}

async fn considered(api: &Api, tenant: &str, visit: Considered, now_ms: i64) -> Result<AnswerJson, Problem> {
    let view = api.view_position(Family::Appointments, tenant, &visit.client_id);
    let read = async { api.rows.appointment(tenant, &visit.client_id).await.map_err(answer::unreadable) };
    let deadline = deadline(api);
    let ((client, lead), degraded) = match in_time(api, read).await {
        Ok(rows) => (rows, false),
        Err(problem) if api.scoring.no_show.on_unavailable == OnUnavailable::Error => return Err(problem),
        Err(_) => ((None, Arc::default()), true),
    };
    let start = start(api, client.as_deref(), &visit);
    let Considered { client_id, booked_at_ms, attributes, .. } = visit;
    let basis = api.assessor.with(lead, tenant, now_ms, deadline).await;
    let warnings = if degraded { vec![DEGRADED] } else { vec![] };
    let subject = Subject { id: None, start: &start, booked_at_ms, attributes: &attributes };
    let scored = VisitScoring { client: client.as_deref(), basis, visit: subject, view, now_ms, warnings };
    Ok(scored.answer(api, tenant, None, client_id).await)
}

/// The deadline for everything that an answer is computed from.
fn deadline(api: &Api) -> Instant {
    Instant::now() + Duration::from_millis(api.config.score_deadline_ms)
}

/// When a considered visit starts, in the zone that it states, else the client's, else the configured one.
fn start(api: &Api, client: Option<&Client>, visit: &Considered) -> Start {
    let of_client = client.and_then(|client| client.time_zone.clone());
    Start::of(&visit.starts_at, of_client.unwrap_or_else(|| api.scoring.time_zone_default.clone()))
}

/// A visit with everything that its score is computed from.
struct VisitScoring<'a> {
    client: Option<&'a Client>,
    basis: ScoringContext,
    visit: Subject<'a>,
    view: ViewPosition,
    now_ms: i64,
    warnings: Vec<&'static str>,
}

impl VisitScoring<'_> {
    async fn answer(self, api: &Api, tenant: &str, appointment_id: Option<String>, client_id: String) -> AnswerJson {
        let Self { client, basis, visit, now_ms, .. } = self;
        let score = basis.score(client, visit, now_ms);
        let warnings: Vec<_> = self.warnings.into_iter().chain(basis.warnings).collect();
        count("appointment", score.level, &warnings);
        let answer = AppointmentAnswer {
            id: api.decisions.id(tenant, &client_id, now_ms),
            kind: "appointment",
            appointment_id,
            client_id,
            score: score.score,
            level: score.level,
            recommended_action: score.recommended_action,
            reasons: score.reasons,
            policy: PolicyReference { id: "no-show", version: api.scoring.no_show_version.clone() },
            model: AppointmentModel { id: score.model.id, version: score.model.version.into_owned() },
            history: score.history.into(),
            view: self.view,
            evaluated_at: at(now_ms),
            warnings,
        };
        let (id, subject) = (&answer.id, &answer.client_id);
        let lead_days = visit.start.lead_days(visit.booked_at_ms);
        let visit = ScoreInput::Visit(record::ScoredVisit { lead_days, starts_at_ms: visit.start.at_ms });
        let written = AnswerJson::of(&answer);
        api.decisions
            .record(&DecisionRecord { id, tenant, subject, at_ms: now_ms, input: visit, answer: &written })
            .await;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::documents;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        documents::<AppointmentRequest, _>(&["client_id", "starts_at"], |f| read_visit(f, 0));
    }
}
