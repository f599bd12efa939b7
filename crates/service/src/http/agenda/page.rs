//! A page of the agenda: the first visits after a cursor, found by scoring the whole list.

use super::query::{AgendaOrder, AgendaQuery, Cursor, List, SortKey};
use super::{AgendaVisit, Totals};
use crate::http::Api;
use crate::http::answer::{self, at};
use crate::http::problem::{Problem, ProblemCode};
use foretell_domain::score::no_show::VisitScore;
use foretell_domain::score::{ReasonCode, RiskLevel};
use foretell_domain::view::client::{Appointment, AppointmentStatus, Client, Start};
use foretell_engine::rows::agenda::ScheduledScan;
use foretell_events::codec::wall_clock;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Reasons that are returned for a visit: those with the greatest effect.
const REASONS_MAX: usize = 3;

/// The first visits of a list after a cursor, and the totals of the whole list.
pub(super) struct Page {
    after: Option<SortKey>,
    /// One more than the page has, if there is one more.
    pub(super) firsts: BTreeMap<SortKey, AgendaVisit>,
    firsts_max: usize,
    pub(super) totals: Totals,
    /// The places of all visits as one number, independent of the order in which they were read.
    pub(super) digest: u64,
    /// Stable codes of what could not be taken into account.
    pub(super) warnings: Vec<&'static str>,
}

impl Page {
    /// Scores the whole window.
    pub(super) async fn read(api: &Api, tenant: &str, query: &AgendaQuery) -> Result<Self, Problem> {
        let visits_max = api.config.agenda_visits_max;
        let scan =
            api.rows.scheduled(tenant, query.list.window.clone(), visits_max).await.map_err(answer::unreadable)?;
        let ScheduledScan::Scheduled(scheduled) = scan else {
            let detail = format!("the window contains more than {visits_max} visits: narrow it with from and to");
            return Err(Problem::new(ProblemCode::AgendaTooLarge, detail));
        };
        let deadline = Instant::now() + Duration::from_millis(api.config.score_deadline_ms);
        let now_ms = query.list.now_ms;
        // Calibrated as of now, as every other answer is, and not as of the first page.
        let basis = api.assessor.basis(tenant, api.ports.clock.now_ms(), deadline).await.map_err(answer::unreadable)?;
        let after = query.after.as_ref().map(|cursor| cursor.last.clone());
        let (firsts, firsts_max) = (BTreeMap::new(), query.limit + 1);
        let mut page =
            Self { after, firsts, firsts_max, totals: Totals::default(), digest: 0, warnings: basis.warnings.clone() };
        let mut batches = api.rows.clients(tenant, scheduled);
        while let Some(clients) = batches.try_next().await.map_err(answer::unreadable)? {
            // If the caller has disconnected, the work ends here.
            tokio::task::yield_now().await;
            for (client_id, client) in clients {
                for visit in visits(&query.list, &client_id, &client) {
                    let Some(subject) = visit.appointment.subject(visit.appointment_id) else { continue };
                    page.take(query.list.order, basis.score(Some(visit.client), subject, now_ms), &visit);
                }
            }
        }
        Ok(page)
    }

    fn take(&mut self, order: AgendaOrder, score: VisitScore, visit: &OpenVisit<'_>) {
        self.totals.add(visit.appointment.status, score.level);
        let place = SortKey::new(order, score.score, visit.start.at_ms, visit.appointment_id, visit.client_id);
        self.digest = self.digest.wrapping_add(place.digest());
        let is_told = self.after.as_ref().is_some_and(|after| place <= *after);
        let is_full = self.firsts.len() >= self.firsts_max;
        if is_told || is_full && self.firsts.last_key_value().is_some_and(|(last, _)| place > *last) {
            return;
        }
        self.firsts.insert(place, visit.to_answer(score));
        if is_full {
            self.firsts.pop_last();
        }
    }

    /// The cursor of the next page, if there is one.
    pub(super) fn next(&self, query: &AgendaQuery) -> Option<String> {
        if self.firsts.len() <= query.limit {
            return None;
        }
        let last = self.firsts.keys().nth(query.limit - 1)?.clone();
        let digest = query.after.as_ref().map_or(self.digest, |first| first.digest);
        Some(Cursor { list: query.list.clone(), last, digest }.encode())
    }
}

impl Totals {
    fn add(&mut self, status: AppointmentStatus, level: RiskLevel) {
        self.visits += 1;
        self.confirmed += usize::from(status == AppointmentStatus::Confirmed);
        self.low += usize::from(level == RiskLevel::Low);
        self.medium += usize::from(level == RiskLevel::Medium);
        self.high += usize::from(level == RiskLevel::High);
    }
}

/// An open visit of the window, from its client's row.
#[derive(Debug, Clone, Copy)]
struct OpenVisit<'a> {
    client_id: &'a str,
    client: &'a Client,
    appointment_id: &'a str,
    appointment: &'a Appointment,
    start: &'a Start,
    lead_days: i32,
}

/// The visits of a client that belong to a list: the row decides; the agenda only serves to find the client.
fn visits<'a>(list: &'a List, client_id: &'a str, client: &'a Client) -> impl Iterator<Item = OpenVisit<'a>> {
    client.appointments.iter().filter_map(move |(appointment_id, appointment)| {
        let start = appointment.start.as_ref().filter(|start| list.window.contains(&start.at_ms))?;
        let is_there = list.location_id.is_none() || list.location_id == appointment.location_id;
        let lead_days = appointment.lead_days()?;
        (appointment.status.is_open() && is_there).then_some(OpenVisit {
            client_id,
            client,
            appointment_id,
            appointment,
            start,
            lead_days,
        })
    })
}

impl OpenVisit<'_> {
    fn to_answer(self, score: VisitScore) -> AgendaVisit {
        let Self { appointment, start, .. } = self;
        let mut reasons = score.reasons;
        // The base rate is the same for every visit, so it does not explain any of them.
        reasons.retain(|reason| reason.code != ReasonCode::BaseRate);
        reasons.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        reasons.truncate(REASONS_MAX);
        AgendaVisit {
            appointment_id: self.appointment_id.to_owned(),
            client_id: self.client_id.to_owned(),
            status: appointment.status,
            starts_at: at(start.at_ms),
            local_start: wall_clock(start.local()),
            time_zone: start.zone.clone(),
            location_id: appointment.location_id.clone(),
            service: appointment.service.clone(),
            lead_days: self.lead_days,
            score: score.score,
            level: score.level,
            recommended_action: score.recommended_action,
            reasons,
            next_reminder: None,
        }
    }
}
