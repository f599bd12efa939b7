//! On-demand requests: a person wants a reminder now, and knows why. They are independent of all steps.

use super::step::{Step, channels, sent, undelivered};
use super::{Announce, Context, MANUAL, Reminder, Status};
use crate::view::client::{Appointment, Asked, REQUEST_EXPIRES_MS};

/// The state of every request.
pub(super) fn all(context: &Context<'_>) -> Vec<Step> {
    let of = |(id, visit): (&str, &Appointment)| {
        visit.requests.iter().filter_map(|asked| step(context, id, visit, asked)).collect::<Vec<_>>()
    };
    context.client.visits().flat_map(of).collect()
}

/// The state of a request for an appointment; none if it was withdrawn, because it is then listed among the withdrawn
/// ones.
fn step(context: &Context<'_>, id: &str, visit: &Appointment, asked: &Asked) -> Option<Step> {
    let (is_open, due_at_ms) = (visit.status.is_open(), asked.at_ms);
    let step = |reminder, announce| Step { appointment_id: id.to_owned(), is_open, due_at_ms, reminder, announce };
    if let Some(announced) = context.sent.of(id).iter().find(|a| a.reminder_id == asked.reminder_id) {
        let told = sent(announced, visit, None);
        let failed = undelivered(visit, &announced.reminder_id).map(|_| Reminder {
            status: Status::Failed,
            reason: Some("delivery_failed".to_owned()),
            ..told.clone()
        });
        return announced.withdrawn.is_none().then(|| step(failed.unwrap_or(told), None));
    }
    let starts_at_ms = visit.start.as_ref().map_or(i64::MAX, |start| start.at_ms);
    let expires_at_ms = starts_at_ms.min(asked.at_ms + REQUEST_EXPIRES_MS);
    let channels = channels(context, &asked.channels);
    let (status, reason) = match &visit.start {
        None => (Status::Suppressed, Some("unknown_appointment")),
        Some(_) if !visit.status.is_open() => (Status::Suppressed, Some(visit.status.name())),
        Some(_) if channels.is_empty() => (Status::Suppressed, Some("no_consented_channel")),
        Some(_) if context.now_ms >= expires_at_ms => (Status::Failed, Some("expired")),
        Some(_) => (Status::Planned, None),
    };
    let is_due = status == Status::Planned && asked.at_ms <= context.now_ms;
    let reminder = Reminder {
        reminder_id: asked.reminder_id.clone(),
        step: MANUAL.to_owned(),
        due_at_ms: asked.at_ms,
        status,
        reason: reason.map(str::to_owned),
        receipt: None,
    };
    let announce = visit.start.as_ref().filter(|_| is_due).map(|start| Announce {
        reminder_id: asked.reminder_id.clone(),
        appointment_id: id.to_owned(),
        step: MANUAL.to_owned(),
        start: start.clone(),
        due_at_ms: asked.at_ms,
        expires_at_ms,
        channels,
        template: asked.template.clone().unwrap_or_else(|| context.policy.template_default.clone()),
        risk: context.risks.get(id).cloned(),
        visits: Vec::new(),
        caused_by: asked.event_id.clone(),
    });
    Some(step(reminder, announce))
}
