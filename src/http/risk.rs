//! Scores: read the rows of one subject, compute, explain.
//!
//! ```text
//!   body ─► Fields ─► view (how far folded) ─► rows, one read, ≤ score_deadline_ms ─► score (pure) ─► answer
//!                                                      └ too late: what the policy says, with DEGRADED
//! ```
//!
//! `view` is read before the rows, so the rows contain at least what it says. Subjects never seen are scored like
//! any other; only an appointment that is named must be known.

pub mod visits;

use super::answer::{Standing, at};
use super::auth::Caller;
use super::problem::{Code, Problem};
use super::request::Object;
use super::{Api, answer};
use crate::event::AHEAD_MS_MAX;
use crate::event::codec::{Fields, TIME_IN_FUTURE, attempt};
use crate::event::login::Attempt;
use crate::score::login::{self, Evidence, Features};
use crate::score::{Decision, Level, OnUnavailable, Reason};
use crate::store::Family;
use crate::telemetry;
use crate::view::feature::Level as FeatureLevel;
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

fn count(kind: &'static str, level: Level, warnings: &[&str]) {
    metrics::counter!(telemetry::SCORES, telemetry::KIND => kind, telemetry::LEVEL => level.name()).increment(1);
    if !warnings.is_empty() {
        metrics::counter!(telemetry::SCORES_DEGRADED, telemetry::KIND => kind).increment(1);
    }
}
