//! On-demand requests: a person wants a reminder now, and knows why. They are independent of all steps.

use super::step::{PlannedStep, channels, sent, undelivered};
use super::{Announce, MANUAL, PlanContext, PlannedReminder, ReminderStatus};
use crate::view::client::{Appointment, OnDemandRequest, REQUEST_EXPIRES_MS};

/// The state of every request.
pub(super) fn all(context: &PlanContext<'_>) -> Vec<PlannedStep> {
    let of = |(id, visit): (&str, &Appointment)| {
        visit.requests.iter().filter_map(|request| step(context, id, visit, request)).collect::<Vec<_>>()
    };
    context.client.visits().flat_map(of).collect()
}

/// The state of a request for an appointment; none if it was withdrawn, because it is then listed among the withdrawn
/// ones.
fn step(context: &PlanContext<'_>, id: &str, visit: &Appointment, request: &OnDemandRequest) -> Option<PlannedStep> {
    let (is_open, due_at_ms) = (visit.status.is_open(), request.at_ms);
    let step =
        |reminder, announce| PlannedStep { appointment_id: id.to_owned(), is_open, due_at_ms, reminder, announce };
    if let Some(announced) = context.sent.of(id).iter().find(|a| a.reminder_id == request.reminder_id) {
        let announcement = sent(announced, visit, None);
        let failed = undelivered(visit, &announced.reminder_id).map(|_| PlannedReminder {
            status: ReminderStatus::Failed,
            reason: Some("delivery_failed".to_owned()),
            ..announcement.clone()
        });
        return announced.withdrawn.is_none().then(|| step(failed.unwrap_or(announcement), None));
    }
    let starts_at_ms = visit.start.as_ref().map_or(i64::MAX, |start| start.at_ms);
    let expires_at_ms = starts_at_ms.min(request.at_ms + REQUEST_EXPIRES_MS);
    let channels = channels(context, &request.channels);
    let (status, reason) = match &visit.start {
        None => (ReminderStatus::Suppressed, Some("unknown_appointment")),
        Some(_) if !visit.status.is_open() => (ReminderStatus::Suppressed, Some(visit.status.name())),
        Some(_) if channels.is_empty() => (ReminderStatus::Suppressed, Some("no_consented_channel")),
        Some(_) if context.now_ms >= expires_at_ms => (ReminderStatus::Failed, Some("expired")),
        Some(_) => (ReminderStatus::Planned, None),
    };
    let is_due = status == ReminderStatus::Planned && request.at_ms <= context.now_ms;
    let reminder = PlannedReminder {
        reminder_id: request.reminder_id.clone(),
        step: MANUAL.to_owned(),
        due_at_ms: request.at_ms,
        status,
        reason: reason.map(str::to_owned),
        receipt: None,
    };
    let announce = visit.start.as_ref().filter(|_| is_due).map(|start| Announce {
        reminder_id: request.reminder_id.clone(),
        appointment_id: id.to_owned(),
        step: MANUAL.to_owned(),
        start: start.clone(),
        due_at_ms: request.at_ms,
        expires_at_ms,
        channels,
        template: request.template.clone().unwrap_or_else(|| context.policy.template_default.clone()),
        risk: context.risks.get(id).cloned(),
        visits: Vec::new(),
        caused_by: request.event_id.clone(),
    });
    Some(step(reminder, announce))
}
