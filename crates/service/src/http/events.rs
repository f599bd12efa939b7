//! `POST /v1/events`: appends events to the log.
//!
//! ```text
//!   body ─► media type ─► codec, each event ─► gate ─► ingest: complete, one append ─► 202
//!                              └──── all errors of all events, by index ─► 422   wait for the fold ◄┘─► 200
//! ```
//!
//! Nothing is appended unless every event of the request is valid. After that only the log can fail, and then some
//! events may be stored: the sender repeats the request, and equal ids change nothing.

pub(super) mod headers;

use super::Api;
use super::auth::{Caller, Scope};
use super::problem::{InputError, Problem, ProblemCode};
use super::request::{Packed, Prefer, json, media_type};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use foretell_engine::ingest::{self, BATCH_EVENTS_MAX, BATCH_SUBJECT_EVENTS_MAX, OwnFact, ReadyRecord};
use foretell_engine::rows::outcomes::RecordOutcome;
use foretell_events::Position;
use foretell_events::codec::{self, Defaults, Faults, Parsed};
use foretell_events::gate::{Admitted, GateContext, Sender};
use foretell_ports::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Marks the events as an import of the caller's own export, which may contain Foretell's own sources. For `admin`.
pub const IMPORT_HEADER: &str = "foretell-import";

const BATCH: &str = "application/cloudevents-batch+json";
const STRUCTURED: &str = "application/cloudevents+json";

/// The answer to appended events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AppendAnswer)]
pub struct Accepted {
    /// How many events were appended.
    pub accepted: usize,
    /// The position of each event, in the order of the request.
    pub positions: Vec<Placed>,
    /// Whether the serving views contain them; not present unless `Prefer: wait` was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub folded: Option<bool>,
    /// The outcome of each, in the order of the request; not present unless `folded` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcomes: Option<Vec<RecordOutcome>>,
}

/// Whether the serving views contain events that a caller waits for.
pub(super) enum Folded {
    /// Not yet.
    No,
    /// They do; the outcome of each.
    Yes(Vec<RecordOutcome>),
}

/// The position of an event in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = EventPosition)]
pub struct Placed {
    /// Id of the event.
    pub id: String,
    /// Full name of the topic.
    #[schema(example = "foretell.logins")]
    pub topic: String,
    /// Partition, from 0.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: i64,
}

/// Appends events: one CloudEvent (structured, or binary with `ce-` headers), or a batch of at most 1,000 and 1 MiB.
///
/// In structured mode `data_base64` is read as `data`. The body may be compressed with gzip; 1 MiB is its size after
/// decompression. Answers 202 once the events are durable. With `Prefer: wait=SECONDS` it answers 200 as soon as the
/// serving views contain them, and 202 when the time is up. Validation is all or nothing, and reports every invalid
/// event. After a 503 some may be stored: send the same request again, equal ids of one type change nothing.
#[utoipa::path(
    post, path = "/v1/events", operation_id = "appendEvents", tag = "events",
    params(
        ("Foretell-Tenant" = Option<String>, Header, description = "Tenant of events without one"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`: answer when the views contain the events"),
        ("Foretell-Import" = Option<bool>, Header, description = "`true`, with the scope `admin`: the events are your \
                                                                  own export and may have Foretell's reserved sources"),
    ),
    request_body(
        // Binary mode with data alone is not documented here: its `ce-` headers are not declared as parameters, and
        // generated clients that find `application/json` among the types send whole events with that type.
        description = "A CloudEvent in structured mode, or a batch of them",
        content(
            (
                ref("#/components/schemas/Event") = "application/cloudevents+json",
                example = json!(super::openapi::login_event())
            ),
            (
                ref("#/components/schemas/EventBatch") = "application/cloudevents-batch+json",
                example = json!([super::openapi::login_event()])
            ),
        )
    ),
    responses(
        (status = 202, description = "Durable", body = Accepted),
        (status = 200, description = "Durable and folded into the serving views", body = Accepted),
    )
)]
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Prefer(wait): Prefer,
    headers: HeaderMap,
    body: Packed,
) -> Result<Response, Problem> {
    let ready = match body.unpacked_if_short()? {
        Ok(body) => read(&api, &caller, &headers, &body)?,
        Err(packed) => {
            let (tenant, intake) = (caller.tenant.clone(), api.clone());
            let long = async move {
                let body = packed.unpacked(intake.config.body_bytes_max)?;
                read(&intake, &caller, &headers, &body)
            };
            api.slow_lanes.run(&tenant, long).await??
        }
    };
    let deadline = wait.map(|wait| Instant::now() + wait);
    let (ids, keys): (Vec<_>, Vec<_>) = ready.iter().map(|one| (one.id().to_owned(), one.key().to_owned())).unzip();
    let positions = api.ingest.append(ready).await.map_err(|error| unappended(&error))?;
    let folded = folded(&api, &positions, &keys, deadline).await;
    Ok(accepted(&api, ids, &positions, folded))
}

/// The events of a body.
fn read(api: &Api, caller: &Caller, headers: &HeaderMap, body: &[u8]) -> Result<Vec<ReadyRecord>, Problem> {
    let events = Intake::new(api, caller, headers).read(headers, body)?;
    permitted(caller, &events)?;
    Ok(events.into_iter().map(|admitted| api.ingest.ready(admitted)).collect())
}

/// Waits until the serving views contain records, for a caller with a deadline.
pub(super) async fn folded(
    api: &Api,
    positions: &[Position],
    keys: &[String],
    deadline: Option<Instant>,
) -> Option<Folded> {
    match api.progress.wait(positions, deadline?).await {
        true => Some(Folded::Yes(outcomes(api, positions, keys).await)),
        false => Some(Folded::No),
    }
}

/// The outcomes of folded records; unknown if their rows cannot be read, because the records are folded regardless.
async fn outcomes(api: &Api, positions: &[Position], keys: &[String]) -> Vec<RecordOutcome> {
    let records: Vec<_> = positions.iter().copied().zip(keys.iter().map(String::as_str)).collect();
    api.rows.record_outcomes(&records).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the outcomes of events");
        vec![RecordOutcome::Unknown; records.len()]
    })
}

/// The answer to events appended at these positions.
pub(super) fn accepted(api: &Api, ids: Vec<String>, positions: &[Position], folded: Option<Folded>) -> Response {
    let placed = ids.into_iter().zip(positions).map(|(id, position)| Placed {
        id,
        topic: api.topic_name(position.topic),
        partition: position.partition,
        offset: position.offset,
    });
    let (folded, outcomes) = match folded {
        None => (None, None),
        Some(Folded::No) => (Some(false), None),
        Some(Folded::Yes(outcomes)) => (Some(true), Some(outcomes)),
    };
    let accepted = Accepted { accepted: positions.len(), positions: placed.collect(), folded, outcomes };
    let status = if folded == Some(true) { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(accepted)).into_response();
    if folded == Some(true) {
        let (name, value) = (HeaderName::from_static("preference-applied"), HeaderValue::from_static("wait"));
        response.headers_mut().insert(name, value);
    }
    response
}

/// Publishes a fact stated by a request.
pub(super) async fn publish(api: &Api, own: OwnFact<'_>) -> Result<Position, Problem> {
    api.ingest.publish(own).await.map_err(|error| match error {
        ingest::Error::Faulty(faults) => faults.into(),
        ingest::Error::Log(error) => unappended(&error),
    })
}

/// The problem for an append that failed.
fn unappended(error: &foretell_ports::Error) -> Problem {
    match error.kind {
        Kind::Reject => Problem::new(ProblemCode::BodyTooLarge, "an event is larger than a record of the log may be"),
        Kind::Retry | Kind::Fatal => {
            tracing::warn!(%error, "cannot append");
            Problem::new(
                ProblemCode::LogUnavailable,
                "some events may have been stored; send the same request again: duplicates and restatements change \
                 nothing",
            )
        }
    }
}

fn is_import(headers: &HeaderMap) -> bool {
    headers.get(IMPORT_HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Reads the events of a request.
struct Intake<'a> {
    defaults: Defaults<'a>,
    terms: GateContext<'a>,
}

impl<'a> Intake<'a> {
    fn new(api: &Api, caller: &'a Caller, headers: &HeaderMap) -> Self {
        let is_import = is_import(headers) && caller.may(Scope::Admin);
        let sender = if is_import { Sender::Operator { topic: None } } else { Sender::Caller };
        let terms = api.ingest.terms(sender, caller.named.then_some(caller.tenant.as_str()));
        Self { defaults: Defaults { tenant: &caller.tenant, time_ms: terms.now_ms }, terms }
    }

    fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Admitted>, Problem> {
        let media_type = media_type(headers)?;
        match media_type.as_ref().map(|media| (media.essence(), media.is_json())) {
            Some((BATCH, _)) => self.batch(json(body)?),
            Some((STRUCTURED, _)) => self.structured(&json(body)?),
            Some((other, is_json)) if !is_json || other.starts_with("application/cloudevents") => Err(unsupported()),
            _ => self.binary(headers, body),
        }
    }

    fn structured(&self, event: &Value) -> Result<Vec<Admitted>, Problem> {
        if event.is_array() {
            return Err(misnamed(BATCH));
        }
        Ok(vec![self.admitted(codec::decode_structured(event, self.defaults))?])
    }

    fn binary(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Admitted>, Problem> {
        let attributes = headers::attributes(headers);
        if attributes.iter().all(|(name, _)| *name == "datacontenttype") {
            return Err(without_attributes(body));
        }
        Ok(vec![self.admitted(codec::decode_binary(&attributes, body, self.defaults))?])
    }

    fn batch(&self, body: Value) -> Result<Vec<Admitted>, Problem> {
        let Value::Array(values) = body else { return Err(misnamed(STRUCTURED)) };
        if values.len() > BATCH_EVENTS_MAX {
            let detail = format!("{} events, more than {BATCH_EVENTS_MAX}", values.len());
            return Err(Problem::new(ProblemCode::TooManyEvents, detail));
        }
        let mut events = Vec::with_capacity(values.len());
        let mut faults = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match self.admitted(codec::decode_structured(value, self.defaults)) {
                Ok(admitted) => events.push(admitted),
                Err(found) => faults.extend(found.within(&format!("/{index}")).into_vec()),
            }
        }
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        bounded(&events)?;
        Ok(events)
    }

    fn admitted(&self, decoded: Result<Parsed, Faults>) -> Result<Admitted, Faults> {
        self.terms.admit(decoded?)
    }
}

fn unsupported() -> Problem {
    let detail = format!("send {STRUCTURED}, {BATCH}, or application/json with the attributes in ce- headers");
    Problem::new(ProblemCode::UnsupportedMediaType, detail)
}

/// The body is in a different mode than its media type states.
fn misnamed(media_type: &str) -> Problem {
    let what =
        if media_type == BATCH { "a batch, a list of CloudEvents" } else { "not a list, and therefore not a batch" };
    Problem::new(ProblemCode::UnsupportedMediaType, format!("the body is {what}; send it as {media_type}"))
}

/// JSON without `ce-` headers: the intended mode can mostly be detected.
fn without_attributes(body: &[u8]) -> Problem {
    match json(body) {
        Ok(Value::Array(_)) => misnamed(BATCH),
        Ok(Value::Object(event)) if event.contains_key("specversion") => {
            let detail = format!("the body is a CloudEvent in structured mode; send it as {STRUCTURED}");
            Problem::new(ProblemCode::UnsupportedMediaType, detail)
        }
        _ => unsupported(),
    }
}

/// Rejects events of types that the caller's scopes do not cover.
fn permitted(caller: &Caller, events: &[Admitted]) -> Result<(), Problem> {
    let lacking = events.iter().enumerate().filter_map(|(index, admitted)| {
        let fact = &admitted.event().fact;
        let needed = Scope::of(fact);
        (!caller.may(needed)).then(|| InputError {
            pointer: format!("/{index}/type"),
            code: ProblemCode::ScopeMissing.name().to_owned(),
            detail: format!("{} needs the scope {}", fact.type_name(), needed.name()),
        })
    });
    let lacking: Vec<_> = lacking.collect();
    match lacking.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(ProblemCode::ScopeMissing, first.detail.clone()).with(lacking)),
    }
}

/// At most [`BATCH_SUBJECT_EVENTS_MAX`] events of one user or client.
fn bounded(events: &[Admitted]) -> Result<(), Problem> {
    let errors = ingest::over_subject_limit(events).into_iter().map(|(index, number)| InputError {
        pointer: format!("/{index}"),
        code: ProblemCode::TooManyPerSubject.name().to_owned(),
        detail: format!("event {number} of one user or client"),
    });
    let errors: Vec<_> = errors.collect();
    if errors.is_empty() {
        return Ok(());
    }
    let detail = format!("at most {BATCH_SUBJECT_EVENTS_MAX} events of one user or client in a batch");
    Err(Problem::new(ProblemCode::TooManyPerSubject, detail).with(errors))
}
