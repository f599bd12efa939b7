//! Decision records: looked up by id, and labelled as legitimate or fraud.
//!
//! ```text
//!   id ─► partition and time ─► the log, there ─► of the tenant, subject not erased? ─┬─► GET: the whole record
//!          not found and just made: wait a little                                     └─► feedback ─► logins
//! ```
//!
//! Finding one reads no row: see [`crate::decisions`]. The row of its subject then shows whether the subject was erased
//! since. An id is opaque to callers, so one that was never issued is as unknown as one of another tenant, of an erased
//! subject, or one whose record has expired.
//!
//! An id can be made up, and a look-up of such an id searches two minutes of the log. So only few look-ups read the log
//! concurrently, and a tenant gets at most half of their number. A decision that was just made may not have been
//! appended yet: its look-up waits for the log to grow, and reads only what was appended since. Only few of them wait
//! concurrently, too.

use super::auth::{Caller, Scope};
use super::events::Accepted;
use super::problem::{Problem, ProblemCode};
use super::request::{Ids, Object, Prefer};
use super::{Api, answer, idempotency};
use crate::decisions::lookup::DecisionLookup;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foretell_domain::decision::id::Id;
use foretell_domain::decision::record::{FeedbackLabel, StoredDecision};
use foretell_events::Topic;
use foretell_events::codec::{Fault, Fields};
use foretell_events::login::LoginFact;
use foretell_events::record::Record;
use foretell_ports::retry::Backoff;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

/// A decision that is no older than this may not have been appended yet.
const FRESH_MS: i64 = 10_000;
/// How long a look-up waits for a decision that may not have been appended yet, and the pauses between its reads.
const WAIT: Duration = Duration::from_secs(1);
const READS: Backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(160));
/// Look-ups that wait concurrently, shared by tenants; further ones are answered 503.
pub(super) const WAITING_MAX: u64 = 16;
/// Look-ups that read the log concurrently, of which a tenant has half; further ones wait, within the time limit of a
/// request.
pub(super) const LOOKUPS_MAX: usize = 8;
/// The decision is about a visit, whose outcome is reported by an event.
const NOT_A_LOGIN: &str = "NOT_A_LOGIN";

/// Feedback on a decision about a login.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"decision_id": "019ca8d7-2d00-7002-9d3a-4f5b6c7d8e9f", "label": "fraud"}))]
pub struct FeedbackRequest {
    /// The `id` of the score.
    decision_id: String,
    /// What the login was.
    label: FeedbackLabel,
    /// Who reports it.
    #[schema(nullable = false)]
    reported_by: Option<String>,
}

/// A decision by its id, for as long as decisions are kept (`topics.decision_retention_days`).
///
/// The request waits at most a second for a decision that was just made. Decisions about users and clients who were
/// erased since are not found. One about a login needs `logins:read`, one about a visit `visits:read`.
#[utoipa::path(
    get, path = "/v1/decisions/{id}", operation_id = "getDecision", tag = "decisions",
    params(("id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The decision", body = ref("#/components/schemas/DecisionRecord")),
        (status = 404),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(id): Ids<String>,
) -> Result<Json<Map<String, Value>>, Problem> {
    let decision = find(&api, &caller.tenant, &id).await?;
    let needed = if decision.is_login() { Scope::LoginsRead } else { Scope::VisitsRead };
    // Any other answer would reveal that the decision exists, to a caller that may not know it.
    if caller.may(needed) { Ok(Json(decision.into_data())) } else { Err(unknown()) }
}

/// Labels a scored login as legitimate or fraud, and so changes the history that later logins are compared with:
/// appends `foretell.login.confirmed` or `foretell.login.reported` with the attempt's own fields.
///
/// The latest label counts; sending it again changes nothing. With `Idempotency-Key` the same request can be sent
/// again, even if another label was sent since: it appends nothing. Another request about the user with the same key is
/// answered 422. Answers 202 once the event is durable; with `Prefer: wait=SECONDS` 200 as soon as the serving views
/// contain it.
#[utoipa::path(
    post, path = "/v1/feedback", operation_id = "sendFeedback", tag = "decisions",
    params(
        ("Foretell-Tenant" = Option<String>, Header), ("Prefer" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    request_body = FeedbackRequest,
    responses(
        (status = 202, description = "Durable", body = Accepted),
        (status = 200, description = "Durable and folded into the serving views", body = Accepted),
        (status = 404),
    )
)]
pub(super) async fn feedback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Prefer(wait): Prefer,
    headers: HeaderMap,
    body: Object,
) -> Result<Response, Problem> {
    let key = idempotency::of(&headers)?;
    let FeedbackRequest { decision_id, label, reported_by } = body.read(read_feedback)?;
    let decision = find(&api, &caller.tenant, &decision_id).await?;
    let verdict = decision.verdict(&decision_id, reported_by).ok_or_else(|| {
        let detail = "the decision is about a visit; its outcome is an event, such as foretell.appointment.missed";
        Problem::invalid(vec![Fault::new("/decision_id", NOT_A_LOGIN, detail)])
    })?;
    let verdict = verdict.map_err(|faults| Problem::internal(format!("decision {decision_id}: {faults:?}")))?;
    let fact = match label {
        FeedbackLabel::Legitimate => LoginFact::Confirmed(Box::new(verdict)).into(),
        FeedbackLabel::Fraud => LoginFact::Reported(Box::new(verdict)).into(),
    };
    idempotency::append(&api, caller.tenant, fact, key, wait).await
}

fn read_feedback(f: &mut Fields<'_, '_>) -> FeedbackRequest {
    FeedbackRequest {
        decision_id: f.id("decision_id"),
        label: f.required_choice("label", FeedbackLabel::Legitimate, FeedbackLabel::parse),
        reported_by: f.text("reported_by"),
    }
}

fn unknown() -> Problem {
    Problem::new(ProblemCode::DecisionNotFound, "this tenant has no such decision, or it has expired")
}

/// A tenant's decision; waits a little for one that was just made.
async fn find(api: &Api, tenant: &str, id: &str) -> Result<StoredDecision, Problem> {
    let id = Id::parse(id).ok_or_else(unknown)?;
    let now_ms = api.ports.clock.now_ms();
    let since_ms = now_ms - api.retention.ms(Topic::Decisions).unwrap_or(now_ms);
    if id.at_ms() < since_ms {
        return Err(unknown());
    }
    let mut lookup = DecisionLookup::new(api.ports.log.as_ref(), tenant, id);
    let turn = api.lookup_lanes.acquire(tenant).await;
    let found = find_now(&mut lookup).await?;
    drop(turn);
    let record = match found {
        Some(record) => record,
        None if (now_ms - id.at_ms()).abs() < FRESH_MS => wait(api, tenant, &mut lookup).await?,
        None => return Err(unknown()),
    };
    let decision =
        StoredDecision::read(&record).ok_or_else(|| Problem::internal(format!("decision {id} cannot be read")))?;
    if is_erased(api, tenant, &record, &decision, id).await? {
        return Err(unknown());
    }
    Ok(decision)
}

async fn find_now(lookup: &mut DecisionLookup<'_>) -> Result<Option<Record>, Problem> {
    lookup.find().await.map_err(|error| {
        tracing::warn!(%error, "cannot read decisions");
        Problem::new(ProblemCode::DecisionsUnavailable, "try again")
    })
}

/// Reads again whenever the log has grown, for at most [`WAIT`].
async fn wait(api: &Api, tenant: &str, lookup: &mut DecisionLookup<'_>) -> Result<Record, Problem> {
    let Ok(_permit) = api.lookups.acquire(tenant, [1]) else {
        let detail = "too many look-ups wait for decisions that were made just now";
        return Err(Problem::new(ProblemCode::Overloaded, detail));
    };
    let (begun, mut pauses) = (Instant::now(), READS.pauses());
    while begun.elapsed() < WAIT {
        sleep(pauses.pause()).await;
        if let Some(record) = find_now(lookup).await? {
            return Ok(record);
        }
    }
    Err(unknown())
}

/// Whether the subject of a decision was erased after it was made.
async fn is_erased(
    api: &Api,
    tenant: &str,
    record: &Record,
    decision: &StoredDecision,
    id: Id,
) -> Result<bool, Problem> {
    let key = std::str::from_utf8(record.key.as_deref().unwrap_or_default()).unwrap_or_default();
    let subject = key.split_once(':').map_or("", |(_, subject)| subject);
    let erased_at_ms = if decision.is_login() {
        api.rows.user(tenant, subject).await.map(|user| user.and_then(|user| user.erased_at_ms))
    } else {
        api.rows.client(tenant, subject).await.map(|client| client.and_then(|client| client.erased_at_ms))
    };
    Ok(erased_at_ms.map_err(answer::unreadable)?.is_some_and(|erased_at_ms| covers(erased_at_ms, id.at_ms())))
}

/// Whether an erasure covers a decision made at a time. An erasure whose time is in whole seconds covers all of its
/// second, because its sender has truncated the time.
fn covers(erased_at_ms: i64, made_at_ms: i64) -> bool {
    let rest_ms = if erased_at_ms % 1_000 == 0 { 999 } else { 0 };
    made_at_ms <= erased_at_ms + rest_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::documents;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        documents::<FeedbackRequest, _>(&[], read_feedback);
    }

    #[test]
    fn an_erasure_in_whole_seconds_covers_its_second() {
        for (erased_at_ms, made_at_ms, is_covered) in [
            (5_000, 4_999, true),
            (5_000, 5_000, true),
            (5_000, 5_999, true),
            (5_000, 6_000, false),
            (5_001, 5_001, true),
            (5_001, 5_002, false),
        ] {
            assert_eq!(covers(erased_at_ms, made_at_ms), is_covered, "{erased_at_ms} {made_at_ms}");
        }
    }
}
