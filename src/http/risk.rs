//! Scores: read the rows of one subject, compute, explain.
//!
//! ```text
//!   body ─► Fields ─► view (how far folded) ─► rows, one read, ≤ score_deadline_ms ─► score (pure) ─► answer
//!                                                      └ too late: what the policy says, with DEGRADED
//! ```
//!
//! `view` is read before the rows, so the rows contain at least what it says. Subjects never seen are scored like
//! any other; only an appointment that is named must be known.

use super::answer::{Standing, at};
use super::auth::Caller;
use super::problem::{Code, Problem};
use super::request::{Ids, Object};
use super::{Api, answer};
use crate::event::appointment::StartsAt;
use crate::event::codec::{Fault, Fields, TIME_IN_FUTURE, attempt};
use crate::event::login::Attempt;
use crate::event::{AHEAD_MS_MAX, zone};
use crate::score::login::{self, Evidence, Features};
use crate::score::{Action, Decision, Level, OnUnavailable, Reason, no_show};
use crate::store::Family;
use crate::telemetry;
use crate::view::client::Client;
use crate::view::feature::Level as FeatureLevel;
use crate::view::lead::Lead;
use crate::view::user::User;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// The rows could not be read in time: the answer is what the policy says for that case.
const DEGRADED: &str = "DEGRADED";

/// A request to score an attempt to log in.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents what the fields of the body are; they are read one by one, to tell all faults")]
#[schema(example = json!({"user_id": "u-1", "ip": "198.51.100.7", "device_id": "d-1", "country": "IE", "asn": 64500}))]
pub struct LoginRequest {
    /// The account.
    user_id: String,
    /// The address it comes from, IPv4 or IPv6.
    ip: String,
    /// The whole `User-Agent` string.
    user_agent: Option<String>,
    /// The caller's own device id.
    device_id: Option<String>,
    /// The session that would begin.
    session_id: Option<String>,
    /// When it happens, RFC 3339; default: now.
    occurred_at: Option<String>,
    /// ISO 3166-1 alpha-2.
    country: Option<String>,
    /// Autonomous system number.
    asn: Option<u32>,
    /// City.
    city: Option<String>,
    /// Degrees, -90 to 90.
    latitude: Option<f64>,
    /// Degrees, -180 to 180.
    longitude: Option<f64>,
    /// Browser and version.
    browser: Option<String>,
    /// Operating system and version.
    os: Option<String>,
    /// As in `mobile` or `desktop`.
    device_type: Option<String>,
    /// Round-trip time in milliseconds.
    rtt_ms: Option<f64>,
    /// What the caller knows besides: strings, numbers, booleans.
    attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Which policy decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Policy {
    /// Its name.
    pub id: &'static str,
    /// A digest of its settings.
    pub version: String,
}

/// What computed a login's score.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LoginModel {
    /// Its name.
    pub id: &'static str,
    /// Raised when the same rows give another score than before.
    pub version: &'static str,
    /// S before policy effects; null for a user without history.
    pub likelihood_ratio: Option<f64>,
}

/// The answer for an attempt to log in.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginAnswer {
    /// Names this answer; send it as `decision_id` with the login.
    pub id: String,
    /// `login`.
    pub kind: &'static str,
    /// The account.
    pub user_id: String,
    /// 0 to 1, higher is riskier; null for a user without history.
    pub score: Option<f64>,
    /// How risky it is.
    pub level: Level,
    /// What to do.
    pub decision: Decision,
    /// Why; effects are contributions in log-odds.
    pub reasons: Vec<Reason>,
    /// Which policy decided.
    pub policy: Policy,
    /// What computed the score.
    pub model: LoginModel,
    /// The user's history.
    pub history: answer::LoginHistory,
    /// How far the user's partition is folded.
    pub view: Standing,
    /// When this was computed.
    pub evaluated_at: String,
    /// Stable codes; `DEGRADED`: the rows could not be read in time.
    pub warnings: Vec<&'static str>,
}

struct LoginAsked {
    user_id: String,
    attempt: Attempt,
    at_ms: i64,
}

/// Scores an attempt to log in.
#[utoipa::path(
    post, path = "/v1/risk/logins", tag = "risk",
    params(("Foretell-Tenant" = Option<String>, Header)),
    request_body = LoginRequest,
    responses(
        (status = 200, body = LoginAnswer),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn login(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Object,
) -> Result<Json<LoginAnswer>, Problem> {
    let now_ms = api.clock.now_ms();
    let asked = body.read(|f| read_login(f, now_ms))?;
    let view = api.standing(Family::Logins, &caller.tenant, &asked.user_id);
    let read = in_time(&api, read_user(&api, &caller.tenant, &asked)).await;
    let config = &api.scoring.login;
    let (score, warnings) = match read {
        Ok((user, features)) => {
            let attempt = &asked.attempt;
            let evidence = Evidence { user: user.as_ref(), features: &features, attempt, at_ms: asked.at_ms };
            (login::score(&evidence, config), vec![])
        }
        Err(problem) => (degraded_login(problem, api.config.on_unavailable)?, vec![DEGRADED]),
    };
    count("login", score.level, &warnings);
    let model = config.model();
    Ok(Json(LoginAnswer {
        id: answer::new_id(),
        kind: "login",
        user_id: asked.user_id,
        score: score.score,
        level: score.level,
        decision: score.decision,
        reasons: score.reasons,
        policy: Policy { id: "login", version: api.scoring.login_version.clone() },
        model: LoginModel { id: model.id, version: model.version, likelihood_ratio: score.likelihood_ratio },
        history: score.history.into(),
        view,
        evaluated_at: at(now_ms),
        warnings,
    }))
}

fn read_login(f: &mut Fields<'_, '_>, now_ms: i64) -> LoginAsked {
    let asked =
        LoginAsked { user_id: f.id("user_id"), attempt: attempt(f), at_ms: f.instant("occurred_at").unwrap_or(now_ms) };
    f.optional_id("session_id");
    f.attributes("attributes");
    if asked.at_ms > now_ms + AHEAD_MS_MAX {
        f.fault("occurred_at", TIME_IN_FUTURE, format!("more than {AHEAD_MS_MAX} ms ahead"));
    }
    asked
}

async fn read_user(api: &Api, tenant: &str, asked: &LoginAsked) -> Result<(Option<User>, Features), Problem> {
    let (levels, keys): (Vec<FeatureLevel>, Vec<_>) = Features::keys(tenant, &asked.attempt).into_iter().unzip();
    let (user, rows) = api.rows.login(tenant, &asked.user_id, &keys).await.map_err(answer::unreadable)?;
    let mut features = Features::default();
    levels.into_iter().zip(rows).for_each(|(level, row)| features.insert(level, row));
    Ok((user, features))
}

/// Runs a read of rows for at most `score_deadline_ms`.
async fn in_time<T>(api: &Api, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let deadline = Duration::from_millis(api.config.score_deadline_ms);
    tokio::time::timeout(deadline, read).await.unwrap_or_else(|_| {
        let detail = format!("the rows could not be read within {} ms", deadline.as_millis());
        Err(Problem::new(Code::ViewsUnavailable, detail))
    })
}

/// The score of a login of which nothing can be known, if the policy has one.
fn degraded_login(problem: Problem, policy: OnUnavailable) -> Result<login::Score, Problem> {
    let decision = match policy {
        OnUnavailable::Allow => Decision::Allow,
        OnUnavailable::Challenge => Decision::Challenge,
        OnUnavailable::Error => return Err(problem),
    };
    Ok(login::Score {
        score: None,
        likelihood_ratio: None,
        level: Level::Unscored,
        decision,
        reasons: Vec::new(),
        history: login::History::default(),
    })
}

/// A request to score a visit: a booked one by its id, or one that is only considered.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents what the fields of the body are; they are read one by one, to tell all faults")]
#[schema(example = json!({"client_id": "c-1", "starts_at": "2026-03-29T09:30:00", "time_zone": "Europe/Dublin"}))]
pub struct AppointmentRequest {
    /// A booked appointment; then nothing else is needed.
    appointment_id: Option<String>,
    /// The client, of a visit that is only considered.
    client_id: Option<String>,
    /// RFC 3339 with offset, or a local date-time together with `time_zone`.
    starts_at: Option<String>,
    /// IANA zone; default: the client's, else the configured one.
    time_zone: Option<String>,
    /// When it is booked, RFC 3339; default: now.
    booked_at: Option<String>,
    /// What for.
    service: Option<String>,
    /// Where.
    location_id: Option<String>,
    /// What the caller knows besides: strings, numbers, booleans.
    attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What computed a visit's score.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AppointmentModel {
    /// Its name.
    pub id: &'static str,
    /// Raised when the same rows give another score than before.
    pub version: &'static str,
}

/// The answer for a visit.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppointmentAnswer {
    /// Names this answer.
    pub id: String,
    /// `appointment`.
    pub kind: &'static str,
    /// The appointment; absent where it is only considered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appointment_id: Option<String>,
    /// The client.
    pub client_id: String,
    /// Probability of a no-show, 0 to 1.
    pub score: f64,
    /// How risky it is, compared with the tenant's own rate.
    pub level: Level,
    /// What to do about it.
    pub recommended_action: Action,
    /// Why; effects are contributions in log-odds and add up to those of the score.
    pub reasons: Vec<Reason>,
    /// Which policy decided.
    pub policy: Policy,
    /// What computed the score.
    pub model: AppointmentModel,
    /// How the client kept their appointments.
    pub history: answer::VisitHistory,
    /// How far the client's partition is folded.
    pub view: Standing,
    /// When this was computed.
    pub evaluated_at: String,
    /// Stable codes; `DEGRADED`: the rows could not be read in time.
    pub warnings: Vec<&'static str>,
}

enum VisitAsked {
    Booked(String),
    Considered(Considered),
}

struct Considered {
    client_id: String,
    starts_at: StartsAt,
    booked_at_ms: i64,
}

/// Scores a visit, booked or considered.
#[utoipa::path(
    post, path = "/v1/risk/appointments", tag = "risk",
    params(("Foretell-Tenant" = Option<String>, Header)),
    request_body = AppointmentRequest,
    responses(
        (status = 200, body = AppointmentAnswer),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn appointment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Object,
) -> Result<Json<AppointmentAnswer>, Problem> {
    let now_ms = api.clock.now_ms();
    match body.read(|f| read_visit(f, now_ms))? {
        VisitAsked::Considered(visit) => considered(&api, &caller.tenant, visit, now_ms).await.map(Json),
        VisitAsked::Booked(id) => match booked(&api, &caller.tenant, &id, now_ms).await {
            // It was named in the body, so the input is at fault and not the path.
            Err(problem) if problem.code() == Code::AppointmentNotFound => {
                let detail = "this tenant has no such appointment";
                Err(Problem::invalid(vec![Fault::new("/appointment_id", "UNKNOWN_APPOINTMENT", detail)]))
            }
            answered => answered.map(Json),
        },
    }
}

/// Scores a booked appointment.
#[utoipa::path(
    get, path = "/v1/risk/appointments/{appointment_id}", tag = "risk",
    params(("appointment_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, body = AppointmentAnswer),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn booked_appointment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(id): Ids<String>,
) -> Result<Json<AppointmentAnswer>, Problem> {
    booked(&api, &caller.tenant, &id, api.clock.now_ms()).await.map(Json)
}

fn read_visit(f: &mut Fields<'_, '_>, now_ms: i64) -> VisitAsked {
    if let Some(id) = f.optional_id("appointment_id") {
        return VisitAsked::Booked(id);
    }
    let considered = Considered {
        client_id: f.id("client_id"),
        starts_at: f.starts_at(),
        booked_at_ms: f.instant("booked_at").unwrap_or(now_ms),
    };
    f.text("service");
    f.optional_id("location_id");
    f.attributes("attributes");
    VisitAsked::Considered(considered)
}

async fn booked(api: &Api, tenant: &str, id: &str, now_ms: i64) -> Result<AppointmentAnswer, Problem> {
    in_time(api, async {
        let client_id = api.client_of(tenant, id).await?;
        let view = api.standing(Family::Appointments, tenant, &client_id);
        let (client, lead) = api.rows.appointment(tenant, &client_id).await.map_err(answer::unreadable)?;
        let appointment = client.as_ref().and_then(|client| client.appointments.get(id));
        let lead_days = appointment.and_then(|appointment| appointment.lead_days());
        let lead_days = lead_days.ok_or_else(answer::unknown_appointment)?;
        let scored = Visit { client: client.as_ref(), lead: &lead, lead_days, view, now_ms };
        Ok(scored.answer(api, Some(id.to_owned()), client_id))
    })
    .await
}

async fn considered(api: &Api, tenant: &str, visit: Considered, now_ms: i64) -> Result<AppointmentAnswer, Problem> {
    let view = api.standing(Family::Appointments, tenant, &visit.client_id);
    let read = async { api.rows.appointment(tenant, &visit.client_id).await.map_err(answer::unreadable) };
    let ((client, lead), degraded) = match in_time(api, read).await {
        Ok(rows) => (rows, false),
        Err(problem) if api.config.on_unavailable == OnUnavailable::Error => return Err(problem),
        Err(_) => ((None, Arc::default()), true),
    };
    let lead_days = lead_days(api, client.as_ref(), &visit);
    let scored = Visit { client: client.as_ref(), lead: &lead, lead_days, view, now_ms };
    let mut answered = scored.answer(api, None, visit.client_id);
    if degraded {
        answered.warnings.push(DEGRADED);
        metrics::counter!(telemetry::SCORES_DEGRADED, telemetry::KIND => "appointment").increment(1);
    }
    Ok(answered)
}

/// Days from booking to visit in the zone that it names, else the client's, else the configured one.
fn lead_days(api: &Api, client: Option<&Client>, visit: &Considered) -> i32 {
    let (at_ms, rules) = match &visit.starts_at {
        StartsAt::Local { local, zone } => {
            let rules = zone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC);
            (zone::instant_ms(*local, &rules), rules)
        }
        StartsAt::Instant { at_ms, zone } => {
            let named = zone.as_deref().or(client.and_then(|client| client.time_zone.as_deref()));
            let rules = zone::get(named.unwrap_or(&api.scoring.time_zone_default));
            (*at_ms, rules.unwrap_or(jiff::tz::TimeZone::UTC))
        }
    };
    zone::lead_days(visit.booked_at_ms, at_ms, &rules).max(0)
}

/// A visit with all that its score is computed from.
struct Visit<'a> {
    client: Option<&'a Client>,
    lead: &'a Lead,
    lead_days: i32,
    view: Standing,
    now_ms: i64,
}

impl Visit<'_> {
    fn answer(&self, api: &Api, appointment_id: Option<String>, client_id: String) -> AppointmentAnswer {
        let config = &api.scoring.no_show;
        let evidence = no_show::Evidence { client: self.client, lead: self.lead, lead_days: self.lead_days };
        let score = no_show::score(&evidence, config);
        count("appointment", score.level, &[]);
        let model = config.model();
        AppointmentAnswer {
            id: answer::new_id(),
            kind: "appointment",
            appointment_id,
            client_id,
            score: score.score,
            level: score.level,
            recommended_action: score.recommended_action,
            reasons: score.reasons,
            policy: Policy { id: "no-show", version: api.scoring.no_show_version.clone() },
            model: AppointmentModel { id: model.id, version: model.version },
            history: score.history.into(),
            view: self.view.clone(),
            evaluated_at: at(self.now_ms),
            warnings: Vec::new(),
        }
    }
}

fn count(kind: &'static str, level: Level, warnings: &[&str]) {
    metrics::counter!(telemetry::SCORES, telemetry::KIND => kind, telemetry::LEVEL => level.name()).increment(1);
    if !warnings.is_empty() {
        metrics::counter!(telemetry::SCORES_DEGRADED, telemetry::KIND => kind).increment(1);
    }
}
