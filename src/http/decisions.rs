//! Decisions that were made: looked at by their id, and told by somebody who knows whether they were right.
//!
//! ```text
//!   id ─► partition and time ─► the log, there ─► the tenant's own? ─┬─► GET: all of it
//!          not there and just made: wait a little                    └─► feedback ─► the attempt's fields ─► logins
//! ```
//!
//! No row is read: see [`crate::decisions`]. An id is opaque to callers, so one that was never given out is as unknown
//! as one of another tenant, or one that is older than decisions are kept.

use super::auth::Caller;
use super::events::{self, Accepted};
use super::problem::{Code, Problem};
use super::request::{Ids, Object, Prefer};
use super::{Api, SOURCE};
use crate::decisions::id::Id;
use crate::decisions::lookup;
use crate::decisions::made::{Kept, Label};
use crate::event::codec::{Fault, Fields, encode_event};
use crate::event::{Envelope, Event, Fact, Topic};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

/// A decision that is no older may still be on its way into the log.
const FRESH_MS: i64 = 10_000;
/// How long one that may be on its way is waited for, and the first pause between two looks; each is twice as long.
const WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);
/// The decision is about a visit, whose outcome comes as an event.
const NOT_A_LOGIN: &str = "NOT_A_LOGIN";

/// A decision as it was made: the answer, and beside it what it was given to.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents what the stored object is; it is passed on as it is")]
#[schema(as = Decision)]
pub struct DecisionAnswer {
    /// Its name.
    id: String,
    /// `login` or `appointment`.
    kind: String,
    /// 0 to 1, higher is riskier; null where there was nothing to score by.
    score: Option<f64>,
    /// How risky it was.
    level: crate::score::Level,
    /// Why; effects are contributions in log-odds.
    reasons: Vec<crate::score::Reason>,
    /// When it was computed.
    evaluated_at: String,
    /// The attempt that was scored, of a login.
    attempt: Option<Map<String, Value>>,
    /// The visit that was scored, of an appointment.
    visit: Option<Map<String, Value>>,
}

/// Feedback to a decision about a login.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents what the fields of the body are; they are read one by one, to tell all faults")]
#[schema(example = json!({"decision_id": "019ca8d7-2d00-7002-9d3a-4f5b6c7d8e9f", "label": "fraud"}))]
pub struct FeedbackRequest {
    /// The `id` of the score.
    decision_id: String,
    /// What it was.
    label: Label,
    /// Who says so.
    reported_by: Option<String>,
}

struct Feedback {
    decision_id: String,
    label: Label,
    reported_by: Option<String>,
}

/// A decision by its id, for as long as decisions are kept (`topics.decision_retention_days`).
///
/// One that was made just now is waited for, at most a second.
#[utoipa::path(
    get, path = "/v1/decisions/{id}", tag = "decisions",
    params(("id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, body = DecisionAnswer),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(id): Ids<String>,
) -> Result<Json<Map<String, Value>>, Problem> {
    find(&api, &caller.tenant, &id).await.map(|kept| Json(kept.into_data()))
}

/// Says whether the person behind a scored login was who they said, and so changes the history that later logins are
/// compared with: appends `foretell.login.confirmed` or `foretell.login.reported` with the attempt's own fields.
///
/// The same feedback twice changes nothing. Answers 202 once it is durable; with `Prefer: wait=SECONDS` 200 as soon
/// as the serving views contain it.
#[utoipa::path(
    post, path = "/v1/feedback", tag = "decisions",
    params(("Foretell-Tenant" = Option<String>, Header), ("Prefer" = Option<String>, Header)),
    request_body = FeedbackRequest,
    responses(
        (status = 202, description = "Durable", body = Accepted),
        (status = 200, description = "Durable and folded into the serving views", body = Accepted),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn feedback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Prefer(wait): Prefer,
    body: Object,
) -> Result<Response, Problem> {
    let Feedback { decision_id, label, reported_by } = body.read(read_feedback)?;
    let kept = find(&api, &caller.tenant, &decision_id).await?;
    let verdict = kept.verdict(&decision_id, reported_by).ok_or_else(|| {
        let detail = "the decision is about a visit; its outcome is an event, as foretell.appointment.missed";
        Problem::invalid(vec![Fault::new("/decision_id", NOT_A_LOGIN, detail)])
    })?;
    let verdict = verdict.map_err(|faults| Problem::internal(format!("decision {decision_id}: {faults:?}")))?;
    // The same feedback is the same event, whoever sends it again.
    let id = format!("{decision_id}:{}", label.name());
    let envelope =
        Envelope { id: id.clone(), source: SOURCE.to_owned(), tenant: caller.tenant, time_ms: api.clock.now_ms() };
    let fact = match label {
        Label::Legitimate => Fact::LoginConfirmed(Box::new(verdict)),
        Label::Fraud => Fact::LoginReported(Box::new(verdict)),
    };
    let record = encode_event(&Event { envelope, fact }, &[]);
    events::answer(&api, vec![record], vec![id], wait).await
}

fn read_feedback(f: &mut Fields<'_, '_>) -> Feedback {
    Feedback {
        decision_id: f.id("decision_id"),
        label: f.required_choice("label", Label::Legitimate, Label::parse),
        reported_by: f.text("reported_by"),
    }
}

/// A tenant's decision; waits a little for one that was made just now.
async fn find(api: &Api, tenant: &str, id: &str) -> Result<Kept, Problem> {
    let unknown = || Problem::new(Code::DecisionNotFound, "this tenant has no such decision, or not any more");
    let id = Id::parse(id).ok_or_else(unknown)?;
    let now_ms = api.clock.now_ms();
    let since_ms = now_ms - api.retention.ms(Topic::Decisions).unwrap_or(now_ms);
    let (begun, mut pause) = (Instant::now(), PAUSE);
    loop {
        let found = lookup::find(api.log.as_ref(), tenant, id, since_ms).await.map_err(|error| {
            tracing::warn!(%error, "cannot read decisions");
            Problem::new(Code::DecisionsUnavailable, "try again")
        })?;
        if let Some(record) = found {
            return Kept::read(&record).ok_or_else(|| Problem::internal(format!("decision {id} cannot be read")));
        }
        let is_fresh = (now_ms - id.at_ms()).abs() < FRESH_MS;
        if !is_fresh || begun.elapsed() >= WAIT {
            return Err(unknown());
        }
        sleep(pause).await;
        pause *= 2;
    }
}
