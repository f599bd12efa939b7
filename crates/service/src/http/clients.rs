//! Clients and appointments: the views, with what is planned and sent for each visit.

use super::Api;
use super::answer::{self, ViewPosition, VisitHistory, at};
use super::auth::Caller;
use super::problem::{Problem, ProblemCode};
use super::request::Ids;
use crate::policies::Active;
use axum::Json;
use axum::extract::State;
use foretell_domain::address::Family;
use foretell_domain::remind::plan::{self, PlanContext};
use foretell_domain::remind::policy::ReminderPolicy;
use foretell_domain::remind::risk;
use foretell_domain::score::no_show::context::ScoringContext;
use foretell_domain::view::client::{Appointment, AppointmentStatus, Client, Received, Start};
use foretell_domain::view::sent::SentReminders;
use foretell_events::appointment::Channel;
use foretell_events::codec::wall_clock;
use foretell_events::key;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// An upcoming visit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = UpcomingVisit)]
pub struct Upcoming {
    /// The appointment.
    pub appointment_id: String,
    /// `booked` or `confirmed`.
    #[schema(value_type = AppointmentStatus)]
    pub status: String,
    /// RFC 3339 in UTC.
    #[schema(format = DateTime)]
    pub starts_at: String,
    /// IANA zone of the visit.
    pub time_zone: String,
    /// The start in that zone.
    pub local_start: String,
}

/// A client's attendance history and upcoming visits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientAnswer {
    /// The client.
    pub client_id: String,
    /// The attendance history.
    pub history: VisitHistory,
    /// Upcoming visits, the earliest first.
    pub upcoming: Vec<Upcoming>,
    /// How far the client's partition is folded.
    pub view: ViewPosition,
}

/// A reminder and its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reminder {
    /// Id of the reminder; deterministic.
    pub reminder_id: String,
    /// A step of the policy, such as `72h` or `24h`; or `manual`.
    pub step: String,
    /// When it is due, or was sent.
    #[schema(format = DateTime)]
    pub due_at: String,
    /// `planned`, `sent`, `deferred`, `suppressed`, `withdrawn` or `failed`.
    pub status: plan::ReminderStatus,
    /// Why, if the status alone does not explain it.
    #[schema(required)]
    pub reason: Option<String>,
    /// The result of sending it, if a receipt reports one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub receipt: Option<ReminderReceipt>,
}

/// The result of sending a reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReminderReceipt {
    /// `delivered`, `failed` or `confirmed`.
    pub received: Received,
    /// The channel, if the receipt contains it.
    #[schema(required)]
    pub channel: Option<Channel>,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Why it failed, if the receipt contains it.
    #[schema(required)]
    pub reason: Option<String>,
}

/// An appointment and its reminders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppointmentView {
    /// The appointment.
    pub appointment_id: String,
    /// Its client.
    pub client_id: String,
    /// `booked`, `confirmed`, `cancelled`, `attended` or `missed`.
    pub status: AppointmentStatus,
    /// RFC 3339 in UTC.
    #[schema(format = DateTime)]
    pub starts_at: String,
    /// IANA zone of the visit.
    pub time_zone: String,
    /// The start in that zone.
    pub local_start: String,
    /// All reminders, by when they are due.
    pub reminders: Vec<Reminder>,
    /// How far the client's partition is folded.
    pub view: ViewPosition,
}

/// A client's attendance history and upcoming visits.
#[utoipa::path(
    get, path = "/v1/clients/{client_id}", operation_id = "getClient", tag = "views",
    params(("client_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The client", body = ClientAnswer),
        (status = 404),
    )
)]
pub(super) async fn client(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(client_id): Ids<String>,
) -> Result<Json<ClientAnswer>, Problem> {
    let now_ms = api.ports.clock.now_ms();
    let view = api.view_position(Family::Appointments, &caller.tenant, &client_id);
    let client = api.rows.client(&caller.tenant, &client_id).await.map_err(answer::unreadable)?;
    // The row of an erased client is empty.
    let known = |client: &Client| !client.appointments.is_empty() || client.updated_at_ms.is_some();
    let Some(client) = client.filter(known) else {
        return Err(Problem::new(ProblemCode::ClientNotFound, "this tenant has no such client"));
    };
    let to_come = |(id, appointment): (&str, &Appointment)| {
        let start = appointment.start.as_ref().filter(|start| start.at_ms > now_ms)?;
        appointment.status.is_open().then(|| (start.at_ms, upcoming(id, appointment.status, start)))
    };
    let mut upcoming: Vec<_> = client.visits().filter_map(to_come).collect();
    upcoming.sort_by(|(a_ms, a), (b_ms, b)| (a_ms, &a.appointment_id).cmp(&(b_ms, &b.appointment_id)));
    let upcoming = upcoming.into_iter().map(|(_, visit)| visit).collect();
    Ok(Json(ClientAnswer { client_id, history: client.history.into(), upcoming, view }))
}

fn upcoming(id: &str, status: AppointmentStatus, start: &Start) -> Upcoming {
    Upcoming {
        appointment_id: id.to_owned(),
        status: status.name().to_owned(),
        starts_at: at(start.at_ms),
        time_zone: start.zone.clone(),
        local_start: wall_clock(start.local()),
    }
}

/// An appointment, and the status of each of its reminders.
#[utoipa::path(
    get, path = "/v1/appointments/{appointment_id}", operation_id = "getAppointment", tag = "views",
    params(("appointment_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The appointment", body = AppointmentView),
        (status = 404),
    )
)]
pub(super) async fn appointment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(appointment_id): Ids<String>,
) -> Result<Json<AppointmentView>, Problem> {
    let client_id = api.client_of(&caller.tenant, &appointment_id).await?;
    let view = api.view_position(Family::Appointments, &caller.tenant, &client_id);
    let visits = Visits::read(&api, &caller.tenant, &client_id).await?;
    let (appointment, start) = visits.placed(&appointment_id)?;
    let reminders = visits.story(&api, &appointment_id).into_iter().map(reminder).collect();
    Ok(Json(AppointmentView {
        client_id,
        status: appointment.status,
        starts_at: at(start.at_ms),
        time_zone: start.zone.clone(),
        local_start: wall_clock(start.local()),
        reminders,
        view,
        appointment_id,
    }))
}

fn reminder(reminder: plan::PlannedReminder) -> Reminder {
    Reminder {
        reminder_id: reminder.reminder_id,
        step: reminder.step,
        due_at: at(reminder.due_at_ms),
        status: reminder.status,
        reason: reminder.reason,
        receipt: reminder.receipt.map(|receipt| ReminderReceipt {
            received: receipt.received,
            channel: receipt.channel,
            at: at(receipt.at_ms),
            reason: receipt.reason,
        }),
    }
}

/// A client's rows of both families: appointments and announcements.
pub(super) struct Visits {
    key: String,
    client: Arc<Client>,
    sent: SentReminders,
    policy: Arc<Active<ReminderPolicy>>,
    basis: ScoringContext,
}

impl Visits {
    pub(super) async fn read(api: &Api, tenant: &str, client_id: &str) -> Result<Self, Problem> {
        let rows = (api.rows.appointment(tenant, client_id), api.rows.sent(tenant, client_id));
        let deadline = Instant::now() + Duration::from_millis(api.config.score_deadline_ms);
        let policy = api.policies.reminders.get(tenant, deadline);
        let ((client, lead), sent, policy) =
            futures::try_join!(rows.0, rows.1, policy.map(Ok)).map_err(answer::unreadable)?;
        let (client, sent) = (client.unwrap_or_default(), sent.unwrap_or_default());
        let basis = api.assessor.with(lead, tenant, api.ports.clock.now_ms(), deadline).await;
        Ok(Self { key: key::of(tenant, client_id), client, sent, policy, basis })
    }

    /// An appointment that was placed and not deleted.
    pub(super) fn placed(&self, id: &str) -> Result<(&Appointment, &Start), Problem> {
        let appointment =
            self.client.appointments.get(id).map(Box::as_ref).filter(|a| a.status != AppointmentStatus::Deleted);
        let placed = appointment.and_then(|appointment| Some((appointment, appointment.start.as_ref()?)));
        placed.ok_or_else(answer::unknown_appointment)
    }

    pub(super) fn story(&self, api: &Api, id: &str) -> Vec<plan::PlannedReminder> {
        let now_ms = api.ports.clock.now_ms();
        let Self { key, client, sent, policy, basis } = self;
        let risks = risk::risks(client, basis, now_ms);
        let context = PlanContext { key, client, sent, policy: &policy.policy, risks: &risks, now_ms };
        plan::timeline(&context, id)
    }
}
