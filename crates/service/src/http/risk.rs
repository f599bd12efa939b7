//! Scores: read the rows of one subject, compute, explain.
//!
//! ```text
//!   body ─► Fields ─► view (how far folded) ─► rows, read together, ≤ score_deadline_ms ─► score (pure) ─► answer
//!              └ a login: user agent parsed,           └ late rows are missing, and the answer contains DEGRADED
//!                address resolved, lists checked
//! ```
//!
//! `view` is read before the rows, so the rows contain at least what it states. Unknown subjects are scored like any
//! other; only an appointment given by id must exist.

pub mod visits;

use super::answer::{ViewPosition, WrittenJson, at};
use super::auth::Caller;
use super::problem::{self, Problem};
use super::request::Object;
use super::{Api, answer};
use crate::policies::Active;
use axum::extract::State;
use foretell_domain::address::Family;
use foretell_domain::decision::record::{AnswerJson, DecisionRecord, ScoreInput, ScoredAttempt};
use foretell_domain::score::login::{self, Features, LoginEvidence};
use foretell_domain::score::{LoginDecision, OnUnavailable, Reason, ReasonCode, RiskLevel};
use foretell_domain::view::feature::FeatureLevel;
use foretell_domain::view::user::User;
use foretell_engine::rows::LoginRows;
use foretell_enrich::Enricher;
use foretell_events::appointment::Scalar;
use foretell_events::codec::{Fields, INVALID_VALUE, TIME_IN_FUTURE, attempt};
use foretell_events::login::{Attempt, ListMatches};
use foretell_events::{AHEAD_MS_MAX, agent, country};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Not all rows could be read in time. If the user's own is missing, the policy determines the decision.
const DEGRADED: &str = "DEGRADED";
/// A rule of the policy could not be evaluated, and therefore did not apply.
const RULE_FAILED: &str = "RULE_FAILED";

/// A request to score an attempt to log in.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the fields of the body, which a test compares with those that are read")]
#[schema(example = json!({"user_id": "u-1", "ip": "198.51.100.7", "device_id": "d-1", "country": "IE", "asn": 64500}))]
pub struct LoginRequest {
    /// The account.
    user_id: String,
    /// The address that it comes from, IPv4 or IPv6.
    ip: String,
    /// The complete `User-Agent` string.
    #[schema(nullable = false)]
    user_agent: Option<String>,
    /// The caller's own device id.
    #[schema(nullable = false)]
    device_id: Option<String>,
    /// The session that would begin.
    #[schema(nullable = false)]
    session_id: Option<String>,
    /// When it happens, RFC 3339; default: now.
    #[schema(format = DateTime, nullable = false)]
    occurred_at: Option<String>,
    /// ISO 3166-1 alpha-2; a placeholder such as `ZZ` or `XX` is the same as none.
    #[schema(nullable = false)]
    country: Option<String>,
    /// Autonomous system number.
    #[schema(nullable = false, value_type = Option<i64>, minimum = 0, maximum = 4_294_967_295_i64)]
    asn: Option<u32>,
    /// City.
    #[schema(nullable = false)]
    city: Option<String>,
    /// Degrees, -90 to 90. Latitude 0 with longitude 0 is the same as neither.
    #[schema(nullable = false)]
    latitude: Option<f64>,
    /// Degrees, -180 to 180.
    #[schema(nullable = false)]
    longitude: Option<f64>,
    /// Browser and version.
    #[schema(nullable = false)]
    browser: Option<String>,
    /// Operating system and version.
    #[schema(nullable = false)]
    os: Option<String>,
    /// For example `mobile` or `desktop`.
    #[schema(nullable = false)]
    device_type: Option<String>,
    /// Round-trip time in milliseconds.
    #[schema(nullable = false)]
    rtt_ms: Option<f64>,
    /// Additional attributes from the caller: strings, numbers, booleans.
    #[schema(nullable = false)]
    attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The policy that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PolicyReference {
    /// Its name.
    pub id: &'static str,
    /// A digest of its settings.
    pub version: String,
}

/// The scores at which the level and the decision of a login change, from the policy that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct LoginThresholds {
    /// Score from which the level is `medium` and the decision `challenge`, 0 to 1.
    pub challenge_at: f64,
    /// Score from which the level is `high` and the decision `deny`, 0 to 1; not below `challenge_at`.
    pub deny_at: f64,
}

impl LoginThresholds {
    const fn of(policy: &login::LoginPolicy) -> Self {
        Self { challenge_at: policy.challenge_at, deny_at: policy.deny_at }
    }
}

/// The model that computed a login's score.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LoginModel {
    /// Its name.
    pub id: &'static str,
    /// Changes when the same rows give another score than before.
    pub version: &'static str,
    /// S before policy effects; null for a user without history.
    #[schema(required)]
    pub likelihood_ratio: Option<f64>,
}

/// The answer for an attempt to log in.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginAnswer {
    /// Id of this answer; send it as `decision_id` with the login.
    pub id: String,
    /// `login`.
    pub kind: &'static str,
    /// The account.
    pub user_id: String,
    /// 0 to 1, higher is riskier; null for a user without history. Odds, not a probability of fraud: S/(1 + S), where S
    /// is how many times more typical the attempt is for all users than for this user. 0.5 means equally typical, 0.99
    /// means 99 times, and many legitimate logins are above it. Compare it with `thresholds`, or read `level`.
    #[schema(required)]
    pub score: Option<f64>,
    /// The level of `score` by `thresholds`: `low` below `challenge_at`, `medium` from there, `high` from `deny_at`;
    /// `unscored` without a score.
    pub level: RiskLevel,
    /// What to do: follows from the level, or is stricter if a rule of the policy demands it.
    pub decision: LoginDecision,
    /// The thresholds that determined the level.
    pub thresholds: LoginThresholds,
    /// Why; effects are contributions in log-odds.
    pub reasons: Vec<Reason>,
    /// Signals and rules in shadow mode that applied, with the effects that they would have.
    pub shadow: Vec<Reason>,
    /// The policy that was applied.
    pub policy: PolicyReference,
    /// The model that computed the score.
    pub model: LoginModel,
    /// The user's history.
    pub history: answer::LoginHistory,
    /// How far the user's partition is folded.
    pub view: ViewPosition,
    /// When this was computed.
    #[schema(format = DateTime)]
    pub evaluated_at: String,
    /// Stable codes; `DEGRADED`: not all rows could be read in time. `RULE_FAILED`: a rule could not be evaluated.
    /// `GEO_UNAVAILABLE`, `GEO_STALE`, `LIST_UNAVAILABLE`: a file about addresses is missing, old, or not in force, and
    /// the data that it should provide was not used.
    pub warnings: Vec<&'static str>,
}

struct LoginInput {
    user_id: String,
    attempt: Attempt,
    at_ms: i64,
    attributes: BTreeMap<String, Scalar>,
    listed: ListMatches,
}

impl LoginInput {
    /// Adds what the user agent and the data files contain; returns warnings about the files.
    fn complete(&mut self, enricher: &Enricher) -> Vec<&'static str> {
        agent::complete(&mut self.attempt);
        let mut warnings = enricher.enrich(&mut self.attempt);
        warnings.extend(enricher.list_warning());
        self.listed = enricher.listed(self.attempt.ip);
        warnings
    }

    /// The score from what could be read. If the user's row is missing, only signs of an attack can be scored, and the
    /// policy determines the decision.
    fn judge(
        &self,
        read: LoginData,
        policy: &login::LoginPolicy,
    ) -> Result<(login::LoginScore, Vec<&'static str>), Problem> {
        let LoginData { user, features, is_complete } = read;
        let score = |user: Option<&User>, policy: &login::LoginPolicy| {
            let known = LoginEvidence::of(user, &features, &self.attempt, self.at_ms);
            login::score(&LoginEvidence { attributes: &self.attributes, listed: self.listed, ..known }, policy)
        };
        let score = match user {
            Ok(user) => score(user.as_deref(), policy),
            Err(error) => {
                let first_login = degraded(answer::unreadable(error), policy.on_unavailable)?;
                let mut score = score(None, &login::LoginPolicy { first_login, ..policy.clone() });
                score.reasons.retain(|reason| reason.code != ReasonCode::FirstLogin);
                score
            }
        };
        let warnings = [(!is_complete, DEGRADED), (score.is_rule_failed, RULE_FAILED)];
        Ok((score, warnings.into_iter().filter_map(|(applies, warning)| applies.then_some(warning)).collect()))
    }
}

/// The rows of an attempt that were read in time.
struct LoginData {
    user: Result<Option<Arc<User>>, foretell_ports::Error>,
    features: Features,
    /// Nothing is missing.
    is_complete: bool,
}

/// Scores an attempt to log in.
#[utoipa::path(
    post, path = "/v1/risk/logins", operation_id = "scoreLogin", tag = "risk",
    params(("Foretell-Tenant" = Option<String>, Header)),
    request_body = LoginRequest,
    responses(
        (status = 200, description = "The score", body = LoginAnswer),
    )
)]
pub(super) async fn login(State(api): State<Arc<Api>>, caller: Caller, body: Object) -> Result<WrittenJson, Problem> {
    let now_ms = api.ports.clock.now_ms();
    let mut input = body.read(|f| read_login(f, now_ms))?;
    let mut warnings = input.complete(&api.ports.enricher);
    let view = api.view_position(Family::Logins, &caller.tenant, &input.user_id);
    let deadline = Instant::now() + Duration::from_millis(api.config.score_deadline_ms);
    let read = read_login_rows(&api, &caller.tenant, &input, deadline);
    let (active, read) = tokio::join!(api.policies.login.get(&caller.tenant, deadline), read);
    let (input, (score, found)) = judged(&api, &caller.tenant, input, read, &active).await?;
    warnings.extend(found.into_iter().chain(active.warning));
    count("login", score.level, &warnings);
    let model = active.policy.model();
    let answer = LoginAnswer {
        id: api.decisions.id(&caller.tenant, &input.user_id, now_ms),
        kind: "login",
        user_id: input.user_id.clone(),
        score: score.score,
        level: score.level,
        decision: score.decision,
        thresholds: LoginThresholds::of(&active.policy),
        reasons: score.reasons,
        shadow: score.shadow,
        policy: PolicyReference { id: "login", version: active.version.clone() },
        model: LoginModel { id: model.id, version: model.version, likelihood_ratio: score.likelihood_ratio },
        history: score.history.into(),
        view,
        evaluated_at: at(now_ms),
        warnings,
    };
    let (id, tenant, subject, at_ms) = (&answer.id, &caller.tenant, &input.user_id, now_ms);
    let attempted = ScoreInput::Attempt(ScoredAttempt { at_ms: input.at_ms, attempt: &input.attempt });
    let written = AnswerJson::of(&answer);
    api.decisions.record(&DecisionRecord { id, tenant, subject, at_ms, input: attempted, answer: &written }).await;
    Ok(written.into())
}

/// The score, computed on a separate thread if the policy takes long.
async fn judged(
    api: &Api,
    tenant: &str,
    input: LoginInput,
    read: LoginData,
    active: &Arc<Active<login::LoginPolicy>>,
) -> Result<(LoginInput, (login::LoginScore, Vec<&'static str>)), Problem> {
    let (is_long, active) = (active.policy.is_long(), active.clone());
    let judge = move || {
        let judged = input.judge(read, &active.policy)?;
        Ok((input, judged))
    };
    if is_long { api.slow_lanes.run(tenant, async move { judge() }).await? } else { judge() }
}

fn read_login(f: &mut Fields<'_, '_>, now_ms: i64) -> LoginInput {
    let input = LoginInput {
        user_id: f.id("user_id"),
        attempt: attempt(f),
        at_ms: f.instant("occurred_at").unwrap_or(now_ms),
        attributes: f.attributes("attributes").unwrap_or_default(),
        listed: ListMatches::default(),
    };
    f.optional_id("session_id");
    if let Some(code) = input.attempt.country.as_deref().filter(|code| !country::exists(code)) {
        f.fault("country", INVALID_VALUE, country::unknown(code));
    }
    if input.at_ms > now_ms + AHEAD_MS_MAX {
        f.fault("occurred_at", TIME_IN_FUTURE, format!("more than {AHEAD_MS_MAX} ms ahead"));
    }
    input
}

async fn read_login_rows(api: &Api, tenant: &str, input: &LoginInput, deadline: Instant) -> LoginData {
    let (levels, keys): (Vec<FeatureLevel>, Vec<_>) = Features::keys(tenant, &input.attempt).into_iter().unzip();
    let LoginRows { user, features: rows } = api.rows.login(tenant, &input.user_id, &keys, deadline).await;
    let is_complete = user.is_ok() && rows.iter().all(Option::is_some);
    let mut features = Features::default();
    let there = levels.into_iter().zip(rows).filter_map(|(level, row)| Some((level, row?)));
    there.for_each(|(level, row)| features.insert(level, row));
    LoginData { user, features, is_complete }
}

/// Runs a read of rows for at most `score_deadline_ms`.
async fn in_time<T>(api: &Api, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let deadline = Duration::from_millis(api.config.score_deadline_ms);
    tokio::time::timeout(deadline, read).await.unwrap_or_else(|_| {
        let detail = format!("the rows could not be read within {} ms", deadline.as_millis());
        Err(Problem::new(problem::ProblemCode::ViewsUnavailable, detail))
    })
}

/// The decision about a login if the user's row is missing and the policy provides one.
fn degraded(problem: Problem, policy: OnUnavailable) -> Result<LoginDecision, Problem> {
    match policy {
        OnUnavailable::Allow => Ok(LoginDecision::Allow),
        OnUnavailable::Challenge => Ok(LoginDecision::Challenge),
        OnUnavailable::Error => Err(problem),
    }
}

fn count(kind: &'static str, level: RiskLevel, warnings: &[&str]) {
    metrics::counter!(foretell_telemetry::SCORES, foretell_telemetry::KIND => kind, foretell_telemetry::LEVEL => level.name()).increment(1);
    if warnings.contains(&DEGRADED) {
        metrics::counter!(foretell_telemetry::SCORES_DEGRADED, foretell_telemetry::KIND => kind).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::documents;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        documents::<LoginRequest, _>(&[], |f| read_login(f, 0));
    }
}
