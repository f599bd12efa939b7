//! Policies: the document in force for a tenant, since when, and the versions before it.
//!
//! A change is validated as a whole, and appended through the fence of the topic's only partition after the view has
//! reached its end. So if two changes are sent at once, one is rejected with a conflict, and preconditions (`If-Match`,
//! `If-None-Match`, dates) hold across processes: no caller replaces a version that it has not seen.

use super::answer::{self, at};
use super::auth::{Caller, Scope};
use super::precondition::{ConditionalRead, CurrentVersion, Preconditions};
use super::problem::{Problem, ProblemCode};
use super::request::{Body, Ids, media_type};
use super::{Api, idempotency};
use crate::policies::Latest;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foretell_domain::view::policy::PolicyRow;
use foretell_engine::ingest::{self, OwnFact};
use foretell_events::codec::Fault;
use foretell_events::document::{self, Syntax};
use foretell_events::policy::{EARLIER_MAX, Kind, PolicyFact, Publication, TEXT_BYTES_MAX, Version};
use foretell_events::{Position, Topic};
use foretell_ports::Kind as Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A policy of the tenant.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PolicyAnswer {
    /// What it is for: `login` or `reminders`.
    pub policy: String,
    /// The version that answers contain: a number, or a digest if the settings are in force. `ETag` contains the latest
    /// published version, which is a different one if it cannot be used.
    pub version: String,
    /// When it was published; null if the settings are in force.
    #[schema(format = DateTime, required)]
    pub published_at: Option<String>,
    /// The values that the tenant has changed from the settings.
    pub document: Value,
    /// The complete policy, with the values from the settings.
    pub effective: Value,
    /// Stable codes; `POLICY_INVALID`: the latest document cannot be used.
    pub warnings: Vec<&'static str>,
}

/// A version of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// From 1.
    pub version: u32,
    /// When it was published.
    #[schema(format = DateTime)]
    pub published_at: String,
    /// Its document.
    pub document: Value,
}

/// The versions of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersions {
    /// The latest first; at most 16 are remembered.
    pub versions: Vec<PolicyVersion>,
}

/// The policy in force.
///
/// `ETag` is the latest published version, `Last-Modified` the time when it was published. A request with
/// `If-None-Match` or `If-Modified-Since` is answered 304 if the caller has that version. Both refer only to what was
/// published: `effective` also changes with the settings of the service, and the `ETag` does not change then.
#[utoipa::path(
    get, path = "/v1/policies/{policy}", operation_id = "getPolicy", tag = "policies",
    params(
        ("policy" = String, Path, description = "`login` or `reminders`"), ("Foretell-Tenant" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header, description = "The caller's versions, as in `ETag`"),
        ("If-Modified-Since" = Option<String>, Header, description = "`Last-Modified` of the caller's version"),
    ),
    responses(
        (status = 200, description = "The policy", body = PolicyAnswer, headers(
            ("ETag" = String, description = "The latest version"),
            ("Last-Modified" = String, description = "When it was published; missing if the settings are in force"),
        )),
        (status = 304, description = "The caller has the latest version"),
        (status = 404),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(policy): Ids<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = kind(&policy)?;
    caller.needs(reading(kind))?;
    let (answer, latest) = shown(&api, kind, &caller.tenant).await?;
    read(&headers, Json(answer), &latest)
}

/// The latest versions of a policy, at most 16.
#[utoipa::path(
    get, path = "/v1/policies/{policy}/versions", operation_id = "listPolicyVersions", tag = "policies",
    params(("policy" = String, Path, description = "`login` or `reminders`"), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The versions", body = PolicyVersions),
        (status = 404),
    )
)]
pub(super) async fn versions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(policy): Ids<String>,
) -> Result<Json<PolicyVersions>, Problem> {
    let kind = kind(&policy)?;
    caller.needs(reading(kind))?;
    remembered(&api, &caller.tenant, kind).await.map(Json)
}

/// The scope that reading a policy needs.
fn reading(kind: Kind) -> Scope {
    match kind {
        Kind::Login => Scope::LoginsRead,
        Kind::Reminders | Kind::NoShowModel => Scope::VisitsRead,
    }
}

/// The latest versions of a document.
pub(super) async fn remembered(api: &Api, tenant: &str, kind: Kind) -> Result<PolicyVersions, Problem> {
    let row = read_row(api, tenant, kind).await?;
    let versions = row.versions().map(|version| PolicyVersion {
        version: version.version,
        published_at: at(version.published_at_ms),
        document: parsed(&version.document),
    });
    Ok(PolicyVersions { versions: versions.collect() })
}

/// Replaces the policy: the document contains the values that differ from the settings.
///
/// The policy is in force in this process when the request is answered, and everywhere within a second or so. With
/// `If-Match` only one of the given versions is replaced, with `If-None-Match: *` the request succeeds only if no
/// policy has been published, with `If-Unmodified-Since` only if none is newer; else 412. A document that equals the
/// one in force is not published again. With `Idempotency-Key` it is published once, so that its version stores the
/// key: sending the same request again then publishes nothing, as long as its version is among the 16 that are
/// remembered. A document that cannot be used is rejected, and the one before it stays in force.
#[utoipa::path(
    put, path = "/v1/policies/{policy}", operation_id = "publishPolicy", tag = "policies",
    params(
        ("policy" = String, Path, description = "`login` or `reminders`"), ("Foretell-Tenant" = Option<String>, Header),
        ("If-Match" = Option<String>, Header, description = "Versions to replace, as in `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if no version has been published"),
        ("If-Unmodified-Since" = Option<String>, Header, description = "`Last-Modified` of the version to replace"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    request_body(
        description = "The document, in JSON or TOML",
        content(
            (
                ref("#/components/schemas/PolicyDocument") = "application/json",
                example = json!({"challenge_at": 0.4, "signals": {"new_device": {"factor": 4.0}}})
            ),
            (String = "application/toml", example = "challenge_at = 0.4\n"),
        )
    ),
    responses(
        (
            status = 200, description = "The policy in force", body = PolicyAnswer,
            headers(("ETag" = String, description = "The latest version"))
        ),
        (status = 404), (status = 409), (status = 412),
    )
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(policy): Ids<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let kind = kind(&policy)?;
    replace(&api, &caller.tenant, kind, &headers, &body).await?;
    let (answer, latest) = shown(&api, kind, &caller.tenant).await?;
    Ok(tagged(Json(answer), present(&latest)))
}

/// Publishes a document of a kind, if it can be used and its preconditions hold.
pub(super) async fn replace(
    api: &Api,
    tenant: &str,
    kind: Kind,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Problem> {
    let preconditions = Preconditions::of(headers)?;
    let document = document(headers, body)?;
    validated(api, kind, &document).await?;
    let request = idempotency::of(headers)?
        .map(|key| idempotency::event_id(tenant, &format!("/v1/policies/{}", kind.name()), key));
    let change = PolicyChange { kind, tenant, document, preconditions, request };
    // Changes in this process are made one after the other, and tenants take turns; the fence is for other processes.
    let _turn = api.policy_lanes.acquire(tenant).await;
    publish(api, change).await
}

struct PolicyChange<'a> {
    kind: Kind,
    tenant: &'a str,
    document: Value,
    preconditions: Preconditions,
    /// The digest of the request, if it has an idempotency key.
    request: Option<String>,
}

fn kind(name: &str) -> Result<Kind, Problem> {
    // A model is returned with its reliability: see `models`.
    Kind::parse(name)
        .filter(|kind| *kind != Kind::NoShowModel)
        .ok_or_else(|| Problem::new(ProblemCode::PolicyNotFound, "the policies are login and reminders"))
}

fn document(headers: &HeaderMap, body: &[u8]) -> Result<Value, Problem> {
    let (syntax, malformed) = match media_type(headers)? {
        None => (Syntax::Json, ProblemCode::MalformedJson),
        Some(media) if media.is_json() => (Syntax::Json, ProblemCode::MalformedJson),
        Some(media) if media.essence() == "application/toml" => (Syntax::Toml, ProblemCode::MalformedToml),
        Some(_) => {
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, "send application/json or application/toml"));
        }
    };
    document::parse(body, syntax, TEXT_BYTES_MAX).map_err(|error| match error {
        document::Error::TooLong { .. } => Problem::invalid(vec![Fault::new("", INVALID_POLICY, error.to_string())]),
        document::Error::Json(faults) => faults.into(),
        _ => Problem::new(malformed, format!("the document: {error}")).at(""),
    })
}

/// Whether it can be used. Rules are parsed on a separate thread, where that does not delay other requests.
async fn validated(api: &Api, kind: Kind, document: &Value) -> Result<(), Problem> {
    let (document, policies) = (document.clone(), api.policies.of(kind));
    let read = tokio::task::spawn_blocking(move || policies.check(&document)).await;
    let read = read.map_err(|_| Problem::new(ProblemCode::Internal, "the policy could not be read"))?;
    read.map_err(|invalid| Problem::invalid(vec![Fault::new(invalid.pointer, INVALID_POLICY, invalid.detail)]))
}

/// The code of an error in a policy that cannot be used.
const INVALID_POLICY: &str = "INVALID_POLICY";

async fn publish(api: &Api, change: PolicyChange<'_>) -> Result<(), Problem> {
    const PARTITION: u32 = 0;
    let deadline = Instant::now() + Duration::from_millis(api.config.fold_wait_ms_max);
    let mut fenced = api.ports.log.fence(Topic::Policies, PARTITION).await.map_err(unwritable)?;
    let end = api.ports.log.extent(Topic::Policies, PARTITION).await.map_err(unwritable)?.end;
    let last = Position { topic: Topic::Policies, partition: PARTITION, offset: end - 1 };
    if end > 0 && !api.progress.wait(&[last], deadline).await {
        return Err(Problem::new(ProblemCode::ViewsUnavailable, "the policies are not folded yet"));
    }
    let row = read_row(api, change.tenant, change.kind).await?;
    if let Some(published) =
        row.versions().find(|version| version.request.is_some() && version.request == change.request)
    {
        // The request was sent again: it has been applied, regardless of what was published since.
        return if parsed(&published.document) == change.document { Ok(()) } else { Err(idempotency::reused()) };
    }
    let latest = api.policies.of(change.kind).latest(&row);
    if !change.preconditions.write(present(&latest)) {
        let detail = format!("the current version is {}: read it again", latest.version);
        return Err(Problem::new(ProblemCode::PreconditionFailed, detail));
    }
    if change.request.is_none() && row.version > 0 && parsed(&row.document) == change.document {
        // It is in force already, so no version is published. With a key it is, because the version stores the key.
        return Ok(());
    }
    let publication = Publication {
        kind: change.kind,
        version: row.version.saturating_add(1),
        document: change.document.to_string(),
        published_by: None,
        request: change.request,
        earlier: row.versions().take(EARLIER_MAX).collect(),
    };
    let fact = PolicyFact::Published(Box::new(publication)).into();
    let own = OwnFact { tenant: change.tenant, id: answer::new_id(), fact };
    let published = api.ingest.publish_fenced(fenced.as_mut(), own).await;
    let position = published.map_err(|error| match error {
        ingest::Error::Faulty(faults) => faults.into(),
        ingest::Error::Log(error) if error.kind == Failure::Fatal => {
            Problem::new(ProblemCode::PolicyConflict, "another process is changing a policy: read it again")
        }
        ingest::Error::Log(error) => unwritable(error),
    })?;
    if api.progress.wait(&[position], deadline).await {
        return Ok(());
    }
    let detail = "the policy is stored but not folded yet; it takes effect as soon as it is folded";
    Err(Problem::new(ProblemCode::ViewsUnavailable, detail))
}

#[allow(clippy::needless_pass_by_value, reason = "has the signature that map_err requires")]
fn unwritable(error: foretell_ports::Error) -> Problem {
    tracing::warn!(%error, "cannot append a policy");
    Problem::new(ProblemCode::LogUnavailable, "the policy may have been stored: read it before you send it again")
}

async fn read_row(api: &Api, tenant: &str, kind: Kind) -> Result<PolicyRow, Problem> {
    Ok(api.rows.policy(tenant, kind).await.map_err(answer::unreadable)?.unwrap_or_default())
}

fn parsed(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or_default()
}

async fn shown(api: &Api, kind: Kind, tenant: &str) -> Result<(PolicyAnswer, Latest), Problem> {
    let active = api.policies.of(kind).show(tenant).await.map_err(answer::unreadable)?;
    let document = active.published.as_ref().map_or_else(|| Value::Object(serde_json::Map::new()), own);
    let answer = PolicyAnswer {
        policy: kind.name().to_owned(),
        version: active.version,
        published_at: active.published.as_ref().map(|version| at(version.published_at_ms)),
        document,
        effective: active.policy,
        warnings: active.warning.into_iter().collect(),
    };
    Ok((answer, active.latest))
}

/// The answer to a request that reads a document, depending on its preconditions.
pub(super) fn read(headers: &HeaderMap, answer: impl IntoResponse, latest: &Latest) -> Result<Response, Problem> {
    let present = present(latest);
    match Preconditions::of(headers)?.read(present) {
        ConditionalRead::Full => Ok(tagged(answer, present)),
        ConditionalRead::NotModified => Ok(tagged(StatusCode::NOT_MODIFIED, present)),
        ConditionalRead::Failed => {
            Err(Problem::new(ProblemCode::PreconditionFailed, format!("the current version is {}", latest.version)))
        }
    }
}

/// The values that preconditions are compared with.
pub(super) fn present(latest: &Latest) -> CurrentVersion<'_> {
    let Latest { version, published_at_ms, is_dated_alone } = latest;
    CurrentVersion { version, published_at_ms: *published_at_ms, is_dated_alone: *is_dated_alone }
}

/// An answer whose `ETag` is the version that a change replaces, and whose `Last-Modified` is when it was published.
pub(super) fn tagged(answer: impl IntoResponse, present: CurrentVersion<'_>) -> Response {
    let mut response = answer.into_response();
    let headers = [(header::ETAG, present.etag()), (header::LAST_MODIFIED, present.last_modified())];
    for (name, value) in headers {
        value.and_then(|value| response.headers_mut().insert(name, value));
    }
    response
}

fn own(version: &Version) -> Value {
    parsed(&version.document)
}
