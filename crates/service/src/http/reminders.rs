//! `POST /v1/appointments/{appointment_id}/reminders`: request a reminder now.
//!
//! **Idempotency without a table of keys**, as in [`idempotency`](super::idempotency); the key applies to the
//! appointment. A request is answered after its own event is folded: with the reminder if the row contains its digest,
//! with 422 if it contains another one. If the fold takes too long the answer is 503, and sending the same request
//! again is safe. The row of an appointment keeps the requests of a day, up to `appointment_requests_max`; further ones
//! are answered 429. The key of an older request, which has been removed from the row since, is also answered 429, or
//! creates a new request.

use super::answer;
use super::auth::Caller;
use super::clients::Visits;
use super::events::publish;
use super::problem::{Problem, ProblemCode};
use super::request::{Ids, Object};
use super::{Api, idempotency};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use foretell_domain::remind::plan::ReminderStatus;
use foretell_domain::view::client::OnDemandRequest;
use foretell_engine::ingest::OwnFact;
use foretell_engine::rows::outcomes::RecordOutcome;
use foretell_events::appointment::{AppointmentFact, Channel};
use foretell_events::codec::Fields;
use foretell_events::codec::bounds::CHANNELS_MAX;
use foretell_events::reminder::{Request, manual_id};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A request for a reminder now. All fields are optional.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"channels": ["sms"], "reason": "The visit was moved by phone"}))]
pub struct ReminderRequest {
    /// Replaces the client's own channels; consent still applies. Of `whatsapp`, `sms`, `email`, `push`, `call`.
    #[schema(nullable = false)]
    channels: Option<Vec<Channel>>,
    /// Replaces the configured template.
    #[schema(nullable = false)]
    template: Option<String>,
    /// The reason, for the record.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The requested reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReminderAnswer {
    /// Its id, as in `foretell.reminder.due`.
    pub reminder_id: String,
    /// `planned` until it is announced; then `sent`. `suppressed` or another status if it will not be announced.
    pub status: ReminderStatus,
    /// Whether the serving views contain the request; until they do, the status is always `planned`.
    pub folded: bool,
    /// The outcome of the request, as for events; not present unless `folded` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcomes: Option<Vec<RecordOutcome>>,
}

/// Requests a reminder now.
///
/// With `Idempotency-Key` the same request can be sent again: same key and body, same `reminder_id`; same key and
/// another body, 422. The key applies to the tenant and the appointment, across processes.
#[utoipa::path(
    post, path = "/v1/appointments/{appointment_id}/reminders", operation_id = "requestReminder", tag = "reminders",
    params(
        ("appointment_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    request_body(content = Option<ReminderRequest>),
    responses(
        (status = 202, description = "The request is durable", body = ReminderAnswer),
        (status = 404),
    )
)]
pub(super) async fn request(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(appointment_id): Ids<String>,
    headers: HeaderMap,
    body: Object,
) -> Result<(StatusCode, Json<ReminderAnswer>), Problem> {
    let key = idempotency::of(&headers)?;
    let tenant = caller.tenant;
    let client_id = api.client_of(&tenant, &appointment_id).await?;
    let mut request = body.read(read)?.of(&appointment_id, &client_id);
    request.idempotency_digest = key.map(|_| digest(&request));
    let event_id = key.map_or_else(answer::new_id, |key| event_id(&tenant, &appointment_id, key));
    let reminder_id = manual_id(&tenant, &appointment_id, &event_id);

    let visits = Visits::read(&api, &tenant, &client_id).await?;
    let known = visits.placed(&appointment_id)?.0.requests.iter().find(|known| known.reminder_id == reminder_id);
    let keyed = request.idempotency_digest.clone();
    let (visits, seen) = match known {
        Some(first) => {
            same(first, keyed.as_deref())?;
            (visits, RequestState::Folded)
        }
        None => submit(&api, RequestInput { tenant: &tenant, event_id, request }).await?,
    };
    let first = visits.placed(&appointment_id)?.0.requests.iter().find(|known| known.reminder_id == reminder_id);
    match (first, seen) {
        (Some(first), _) => same(first, keyed.as_deref())?,
        (None, RequestState::Stored) => {}
        (None, RequestState::Folded) => {
            let detail = "the appointment has reached its maximum number of requests in 24 hours, or the key belongs \
                          to an older request: try again later with another key";
            return Err(Problem::new(ProblemCode::TooManyReminders, detail));
        }
    }
    let story = visits.story(&api, &appointment_id);
    let status = story.iter().find(|reminder| reminder.reminder_id == reminder_id).map(|reminder| reminder.status);
    let status = status.unwrap_or(ReminderStatus::Planned);
    let folded = matches!(seen, RequestState::Folded);
    // A request that the row contains was applied, by this event or by the first one with its key.
    let outcomes = folded.then(|| vec![RecordOutcome::Applied]);
    Ok((StatusCode::ACCEPTED, Json(ReminderAnswer { reminder_id, status, folded, outcomes })))
}

/// The progress of a request.
#[derive(Clone, Copy)]
enum RequestState {
    /// It is in the log.
    Stored,
    /// The rows were read after its fold.
    Folded,
}

struct RequestInput<'a> {
    tenant: &'a str,
    event_id: String,
    request: Request,
}

/// Appends the request and reads the rows after its fold. Without a key, the answer does not depend on the fold.
async fn submit(api: &Api, input: RequestInput<'_>) -> Result<(Visits, RequestState), Problem> {
    let RequestInput { tenant, event_id, request } = input;
    let client_id = request.client_id.clone();
    let keyed = request.idempotency_digest.is_some();
    let fact = AppointmentFact::ReminderRequested(Box::new(request)).into();
    let at = publish(api, OwnFact { tenant, id: event_id, fact }).await?;
    let deadline = Instant::now() + Duration::from_millis(api.config.fold_wait_ms_max);
    let seen = if api.progress.wait(&[at], deadline).await { RequestState::Folded } else { RequestState::Stored };
    if matches!(seen, RequestState::Stored) && keyed {
        let detail = "the request is stored but not folded yet; send the same request again";
        return Err(Problem::new(ProblemCode::ViewsUnavailable, detail));
    }
    Ok((Visits::read(api, tenant, &client_id).await?, seen))
}

fn same(first: &OnDemandRequest, digest: Option<&str>) -> Result<(), Problem> {
    if first.digest.as_deref() == digest {
        return Ok(());
    }
    Err(idempotency::reused())
}

fn read(f: &mut Fields<'_, '_>) -> ReminderRequest {
    ReminderRequest {
        channels: f.list("channels", CHANNELS_MAX, |entry| entry.choice(Channel::parse)),
        template: f.text("template"),
        reason: f.text("reason"),
    }
}

impl ReminderRequest {
    /// The request for a reminder of an appointment.
    fn of(self, appointment_id: &str, client_id: &str) -> Request {
        Request {
            appointment_id: appointment_id.to_owned(),
            client_id: client_id.to_owned(),
            channels: self.channels.unwrap_or_default(),
            template: self.template,
            reason: self.reason,
            idempotency_digest: None,
        }
    }
}

/// The digest by which requests are compared: of the content, since a repeated request may have its bytes in another
/// order.
fn digest(request: &Request) -> String {
    idempotency::digest(&serde_json::json!([request.channels, request.template, request.reason]))
}

fn event_id(tenant: &str, appointment_id: &str, key: &str) -> String {
    idempotency::event_id(tenant, &format!("/v1/appointments/{appointment_id}/reminders"), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::documents;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        documents::<ReminderRequest, _>(&[], read);
    }
}
