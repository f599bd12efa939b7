//! `Idempotency-Key`: sending a request again with its key has no second effect.
//!
//! There is no table of keys. The id of the event that a request appends is a hash of tenant, scope and key, and the
//! event contains a digest of the request. The fold keeps the first event with an id, and its digest, in the row of its
//! subject. So regardless of which process received which request, one of them is first in the log, and all processes
//! read the same one: a repetition is answered like the first, and another request with the key is answered 422.

use super::Api;
use super::answer;
use super::events::{self, Folded};
use super::problem::{Problem, ProblemCode};
use axum::http::HeaderMap;
use axum::response::Response;
use foretell_engine::ingest::OwnFact;
use foretell_engine::rows::outcomes::RecordOutcome;
use foretell_events::{Fact, ID_BYTES_MAX, Position, Topic, key};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;

/// The key of a request, if it has one.
///
/// # Errors
/// [`ProblemCode::MalformedRequest`] if it is empty, longer than an id, or not visible ASCII, or if there are several.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= ID_BYTES_MAX && values.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::new(
            ProblemCode::MalformedRequest,
            "Idempotency-Key must be 1 to 512 visible ASCII characters",
        )),
    }
}

/// The id of the event that a request with a key appends; `scope` is what the key applies to, in addition to the
/// tenant.
pub(super) fn event_id(tenant: &str, scope: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [tenant, scope, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("idempotent-{}", hex::encode(hash.finalize()))
}

/// The digest by which requests are compared: of the content, since a repeated request may order its bytes differently.
pub(super) fn digest(meaning: &Value) -> String {
    hex::encode(Sha256::digest(meaning.to_string()))
}

/// The problem for another request with a used key.
pub(super) fn reused() -> Problem {
    Problem::new(ProblemCode::IdempotencyKeyReused, "use a different key for a different request")
}

/// Appends a fact about a user and returns its position: with a key at most once, without a key each time.
///
/// # Errors [`ProblemCode::IdempotencyKeyReused`]; errors of appending and of reading rows.
pub(super) async fn append(
    api: &Api,
    tenant: String,
    mut fact: Fact,
    key: Option<&str>,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let user_id = fact.subject().to_owned();
    let Some(key) = key else {
        let (id, deadline) = (answer::new_id(), wait.map(|wait| Instant::now() + wait));
        let at = [events::publish(api, OwnFact { tenant: &tenant, id: id.clone(), fact }).await?];
        let folded = events::folded(api, &at, &[key::of(&tenant, &user_id)], deadline).await;
        return Ok(events::accepted(api, vec![id], &at, folded));
    };
    let id = event_id(&tenant, &format!("/v1/users/{user_id}"), key);
    let digest = digest(&json!([fact.type_name(), fact.data()]));
    fact.set_idempotency_digest(&digest);
    let request = Keyed { id: &id, digest: &digest };
    let first = match request.first(api, &tenant, &user_id).await? {
        Some(first) => first,
        None => {
            let at = events::publish(api, OwnFact { tenant: &tenant, id: id.clone(), fact }).await?;
            let longest = Duration::from_millis(api.config.fold_wait_ms_max).max(wait.unwrap_or_default());
            if !api.progress.wait(&[at], Instant::now() + longest).await {
                let detail = "the request is stored but not folded yet; send the same request again";
                return Err(Problem::new(ProblemCode::ViewsUnavailable, detail));
            }
            let unknown = First { offset: at.offset, outcome: RecordOutcome::Unknown };
            // An erasure in between removes its trace, and so do more requests than a row remembers.
            request.first(api, &tenant, &user_id).await?.unwrap_or(unknown)
        }
    };
    let partitions = api.ports.log.partitions(Topic::Logins);
    let partition = key::partition(key::of(&tenant, &user_id).as_bytes(), partitions);
    let position = Position { topic: Topic::Logins, partition, offset: first.offset };
    let folded = wait.map(|_| Folded::Yes(vec![first.outcome]));
    Ok(events::accepted(api, vec![id], &[position], folded))
}

/// A request about a user with a key.
struct Keyed<'a> {
    /// The id of its event.
    id: &'a str,
    digest: &'a str,
}

/// The first request with a key.
struct First {
    offset: i64,
    outcome: RecordOutcome,
}

impl Keyed<'_> {
    /// The first request with the key, if the user's row remembers one.
    async fn first(&self, api: &Api, tenant: &str, user_id: &str) -> Result<Option<First>, Problem> {
        let user = api.rows.user(tenant, user_id).await.map_err(answer::unreadable)?;
        match user.as_ref().and_then(|user| user.keyed(self.id)) {
            None => Ok(None),
            Some(first) if !first.is(self.digest) => Err(reused()),
            Some(first) => {
                let outcome = if first.is_applied { RecordOutcome::Applied } else { RecordOutcome::Skipped };
                Ok(Some(First { offset: first.offset, outcome }))
            }
        }
    }
}
