//! The agenda: upcoming visits by risk, with the recommended action for each. The list that a reception works from.
//!
//! ```text
//!   query, cursor ─► Asked ─► Rows::scheduled ─► Rows::clients, a batch at a time ─► each open visit, scored
//!                              hours of the window                                      │ after the cursor
//!                                                              the first `limit` places ◄┘
//!   answer ◄─ next reminder, from the same plan as everywhere, for the visits of the page alone
//! ```
//!
//! The order by risk is known only when everything is scored, so each page scores its whole window and keeps only one
//! page of the result. Windows are therefore limited: in days, because every hour is read in every partition, and in
//! visits ([`Config::agenda_visits_max`](super::Config::agenda_visits_max)). It still takes long, so it runs on
//! separate threads, a few lists at a time, of which a tenant has a share: see [`super::lanes`].
//!
//! All pages of a list are scored as of one time, that of the first page, so no visit is lost or duplicated while the
//! rows do not change. If they change, a visit can move across the end of a page. Each later page then contains the
//! warning `AGENDA_CHANGED`, which is possible because the cursor contains a digest of all places. A caller that needs
//! a list that cannot change requests it as one page.
//!
//! These scores are not kept as decision records. A list is read many times a day, and does not show which of its
//! visits were acted on. A score that is to be evaluated later has to be requested for its visit alone.

mod page;
mod query;

pub use query::AgendaOrder;

use super::Api;
use super::answer::{ViewPosition, at};
use super::auth::Caller;
use super::clients::Visits;
use super::problem::{Problem, ProblemCode};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use foretell_domain::address::Family;
use foretell_domain::remind::plan;
use foretell_domain::score::{Reason, RecommendedAction, RiskLevel};
use foretell_domain::view::client::AppointmentStatus;
use futures::{StreamExt, TryStreamExt, stream};
use page::Page;
use query::AgendaQuery;
#[cfg(feature = "fuzz")]
pub(super) use query::Cursor;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use utoipa::ToSchema;

/// The visits of the window, or their order, have changed since the first page.
const AGENDA_CHANGED: &str = "AGENDA_CHANGED";
/// Clients of a page whose plans are read concurrently.
const PLANS_AT_ONCE: usize = 16;

/// An upcoming visit, and the recommended action.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AgendaVisit {
    /// The appointment.
    pub appointment_id: String,
    /// Its client.
    pub client_id: String,
    /// `booked` or `confirmed`.
    pub status: AppointmentStatus,
    /// RFC 3339 in UTC.
    #[schema(format = DateTime)]
    pub starts_at: String,
    /// The start in the visit's time zone, as local time.
    pub local_start: String,
    /// IANA zone of the visit.
    pub time_zone: String,
    /// Location; null if unknown.
    #[schema(required)]
    pub location_id: Option<String>,
    /// Service; null if unknown.
    #[schema(required)]
    pub service: Option<String>,
    /// Days from the booking to the visit.
    pub lead_days: i32,
    /// Probability of a no-show, 0 to 1.
    pub score: f64,
    /// The risk, compared with the tenant's own rate.
    pub level: RiskLevel,
    /// The recommended action.
    pub recommended_action: RecommendedAction,
    /// Why: the three reasons with the greatest effect, the greatest first, without the tenant's own rate.
    pub reasons: Vec<Reason>,
    /// The next reminder that is planned or deferred; null if there is none.
    #[schema(required)]
    pub next_reminder: Option<NextReminder>,
}

/// An upcoming reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NextReminder {
    /// `72h`, `24h`, `manual`.
    pub step: String,
    /// When it is due.
    #[schema(format = DateTime)]
    pub due_at: String,
    /// `planned`, or `deferred` to the end of quiet hours.
    pub status: plan::ReminderStatus,
}

/// Counts of the whole list, not only of this page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AgendaTotals)]
pub struct Totals {
    /// All visits.
    pub visits: usize,
    /// Visits that the client confirmed.
    pub confirmed: usize,
    /// Visits of level low.
    pub low: usize,
    /// Visits of level medium.
    pub medium: usize,
    /// Visits of level high.
    pub high: usize,
}

/// A page of the agenda.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgendaAnswer {
    /// Earliest start, inclusive.
    #[schema(format = DateTime)]
    pub from: String,
    /// Latest start, exclusive.
    #[schema(format = DateTime)]
    pub to: String,
    /// The order of the list.
    pub order: AgendaOrder,
    /// The visits of the page, in order.
    pub visits: Vec<AgendaVisit>,
    /// Counts of the whole list.
    pub totals: Totals,
    /// The `cursor` of the next page; null on the last one.
    #[schema(required)]
    pub next: Option<String>,
    /// How far each partition of appointments is folded.
    pub view: Vec<ViewPosition>,
    /// The time as of which all pages of the list are scored.
    #[schema(format = DateTime)]
    pub evaluated_at: String,
    /// Stable codes; `AGENDA_CHANGED`: visits or their risks have changed since the first page, so visits may be
    /// duplicated or missing; if that matters, begin again without a cursor.
    pub warnings: Vec<&'static str>,
}

/// Upcoming visits by risk: open ones that start in a window, with the recommended action for each.
///
/// The window is at most 31 days and contains at most `http.agenda_visits_max` visits (20,000), over all locations. All
/// pages of a list are scored as of the time of the first one. With a `cursor`, all parameters other than `limit` can
/// be omitted; if they are sent, they must be unchanged.
#[utoipa::path(
    get, path = "/v1/agenda", operation_id = "listAgenda", tag = "views",
    params(
        ("from" = Option<String>, Query, description = "Earliest start, inclusive, RFC 3339; default: now"),
        ("to" = Option<String>, Query, description = "Latest start, exclusive; default: 24 hours after `from`"),
        ("location_id" = Option<String>, Query, description = "Only visits at this location"),
        ("order" = Option<AgendaOrder>, Query, description = "`risk` (default): the highest first, then the earliest start, then by id; `start`: the earliest first, then by id"),
        ("limit" = Option<u32>, Query, description = "Visits per page, 1 to 1,000; default: 100"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page"),
        ("Foretell-Tenant" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "A page of the agenda", body = AgendaAnswer),
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<query::Query>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::new(ProblemCode::MalformedRequest, rejection.body_text()))?;
    let query = AgendaQuery::read(&query, api.ports.clock.now_ms())?;
    let (listing, tenant) = (api.clone(), caller.tenant.clone());
    // Serialized there, too: a long list is half a megabyte.
    let listed = async move { listed(&listing, &tenant, &query).await.map(|answer| Json(answer).into_response()) };
    api.agenda_lanes.run(&caller.tenant, listed).await?
}

async fn listed(api: &Api, tenant: &str, query: &AgendaQuery) -> Result<AgendaAnswer, Problem> {
    let view = (0..api.ports.log.partitions(Family::Appointments.topic()))
        .map(|partition| api.progress.view(Family::Appointments, partition).into())
        .collect();
    let page = Page::read(api, tenant, query).await?;
    let next = page.next(query);
    let Page { firsts, totals, digest, .. } = page;
    let mut visits: Vec<_> = firsts.into_values().take(query.limit).collect();
    remind(api, tenant, &mut visits).await?;
    let is_changed = query.after.as_ref().is_some_and(|cursor| cursor.digest != digest);
    Ok(AgendaAnswer {
        from: at(query.list.window.start),
        to: at(query.list.window.end),
        order: query.list.order,
        visits,
        totals,
        next,
        view,
        evaluated_at: at(query.list.now_ms),
        warnings: page.warnings.iter().copied().chain(is_changed.then_some(AGENDA_CHANGED)).collect(),
    })
}

/// Adds to each visit its next reminder, from the client's current rows.
async fn remind(api: &Api, tenant: &str, visits: &mut [AgendaVisit]) -> Result<(), Problem> {
    let clients: BTreeSet<String> = visits.iter().map(|visit| visit.client_id.clone()).collect();
    let reads = clients.into_iter().map(|client_id| async {
        let rows = Visits::read(api, tenant, &client_id).await?;
        Ok::<_, Problem>((client_id, rows))
    });
    let rows: BTreeMap<_, _> = stream::iter(reads).buffer_unordered(PLANS_AT_ONCE).try_collect().await?;
    for visit in visits {
        let Some(rows) = rows.get(&visit.client_id) else { continue };
        let mut story = rows.story(api, &visit.appointment_id).into_iter();
        let next = story
            .find(|reminder| matches!(reminder.status, plan::ReminderStatus::Planned | plan::ReminderStatus::Deferred));
        visit.next_reminder = next.map(|reminder| NextReminder {
            step: reminder.step,
            due_at: at(reminder.due_at_ms),
            status: reminder.status,
        });
    }
    Ok(())
}
