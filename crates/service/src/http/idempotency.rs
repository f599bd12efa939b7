//! `Idempotency-Key`: a request that is sent again under its key is one request.
//!
//! There is no table of keys. The id of the event that a request appends is a hash of tenant, scope and key, and the
//! event carries a digest of the request. The fold keeps the first event under an id, with its digest, in the row of
//! its subject. So whichever process took whichever request, one of them is first in the log, and all of them read
//! which: a repetition is answered like the first, another request under the key is 422.

use super::Api;
use super::answer;
use super::auth::hex;
use super::events::{self, Folded};
use super::problem::{Code, Problem};
use axum::http::HeaderMap;
use axum::response::Response;
use foretell_engine::ingest::Own;
use foretell_engine::rows::outcomes::RecordOutcome;
use foretell_events::{Fact, ID_BYTES_MAX, Position, Topic, key};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;

/// The key of a request, if it has one.
///
/// # Errors
/// [`Code::MalformedRequest`] for one that is empty, longer than an id, or no visible ASCII, and for several.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= ID_BYTES_MAX && values.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::new(Code::MalformedRequest, "Idempotency-Key must be 1 to 512 visible ASCII characters")),
    }
}

/// The id of the event that a request under a key appends; `scope` is what the key holds for, besides the tenant.
pub(super) fn event_id(tenant: &str, scope: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [tenant, scope, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("idempotent-{}", hex(&hash.finalize()))
}

/// What tells one request from another: its meaning, as a repeated request may order its bytes otherwise.
pub(super) fn digest(meaning: &Value) -> String {
    hex(&Sha256::digest(meaning.to_string()))
}

/// The problem of another request under a key that was used.
pub(super) fn reused() -> Problem {
    Problem::new(Code::IdempotencyKeyReused, "use another key for another request")
}

/// Appends a fact about a user and answers where it stands: under a key at most once, without one each time.
///
/// # Errors
/// [`Code::IdempotencyKeyReused`]; what appending and reading rows answer.
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
        let at = [events::publish(api, Own { tenant: &tenant, id: id.clone(), fact }).await?];
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
            let at = events::publish(api, Own { tenant: &tenant, id: id.clone(), fact }).await?;
            let longest = Duration::from_millis(api.config.fold_wait_ms_max).max(wait.unwrap_or_default());
            if !api.progress.wait(&[at], Instant::now() + longest).await {
                let detail = "the request is stored and not yet folded; send the same again";
                return Err(Problem::new(Code::ViewsUnavailable, detail));
            }
            let unknown = First { offset: at.offset, outcome: RecordOutcome::Unknown };
            // An erasure in between leaves no trace of it, and neither do more requests than a row remembers.
            request.first(api, &tenant, &user_id).await?.unwrap_or(unknown)
        }
    };
    let partitions = api.log.partitions(Topic::Logins);
    let partition = key::partition(key::of(&tenant, &user_id).as_bytes(), partitions);
    let position = Position { topic: Topic::Logins, partition, offset: first.offset };
    let folded = wait.map(|_| Folded::Yes(vec![first.outcome]));
    Ok(events::accepted(api, vec![id], &[position], folded))
}

/// A request about a user that has a key.
struct Keyed<'a> {
    /// Of its event.
    id: &'a str,
    digest: &'a str,
}

/// The request that came first under a key.
struct First {
    offset: i64,
    outcome: RecordOutcome,
}

impl Keyed<'_> {
    /// The first request under the key, if the user's row remembers one.
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
