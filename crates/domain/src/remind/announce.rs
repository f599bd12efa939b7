//! What the planner appends: the events of its actions.

use crate::remind::plan::{Announce, GroupedVisit, ReminderAction};
use foretell_events::codec::{rfc3339, wall_clock};
use foretell_events::gate::REMINDERS_SOURCE as SOURCE;
use foretell_events::reminder::{Announcement, NamedVisit, ReminderFact, Withdrawal, withdrawal_id};
use foretell_events::{Envelope, Event, Fact};

/// Extension attribute: the id of the event that caused a reminder or a withdrawal.
const CAUSE: &str = "causationid";

/// An event, and its extension attributes.
pub type OutgoingEvent = (Event, Vec<(String, String)>);

/// The event of an action about a client, at `now_ms`.
pub fn event_of(tenant: &str, client_id: &str, action: ReminderAction, now_ms: i64) -> OutgoingEvent {
    let envelope = |id| Envelope { id, source: SOURCE.into(), tenant: tenant.to_owned(), time_ms: now_ms };
    match action {
        ReminderAction::Announce(announce) => {
            let expires_at = rfc3339(announce.expires_at_ms);
            let extensions = vec![("expirytime".into(), expires_at), (CAUSE.into(), announce.caused_by.clone())];
            let envelope = envelope(announce.reminder_id.clone());
            (Event { envelope, fact: due(client_id, announce) }, extensions)
        }
        ReminderAction::Withdraw { reminder_id, appointment_id, announced_for, reason, caused_by } => {
            let client_id = client_id.to_owned();
            let withdrawal = Withdrawal { reminder_id, appointment_id, client_id, reason: reason.into() };
            let envelope = envelope(withdrawal_id(&withdrawal, &announced_for));
            let extensions = caused_by.map(|id| (CAUSE.into(), id)).into_iter().collect();
            (Event { envelope, fact: ReminderFact::Withdrawn(withdrawal).into() }, extensions)
        }
    }
}

fn due(client_id: &str, announce: Announce) -> Fact {
    ReminderFact::Due(Box::new(Announcement {
        reminder_id: announce.reminder_id,
        appointment_id: announce.appointment_id,
        client_id: client_id.to_owned(),
        starts_at: rfc3339(announce.start.at_ms),
        local_start: wall_clock(announce.start.local()),
        time_zone: announce.start.zone,
        step: announce.step,
        channels: announce.channels,
        template: announce.template,
        risk: announce.risk,
        visits: announce.visits.into_iter().map(named).collect(),
        expires_at: rfc3339(announce.expires_at_ms),
    }))
    .into()
}

fn named(visit: GroupedVisit) -> NamedVisit {
    NamedVisit {
        appointment_id: visit.appointment_id,
        starts_at: rfc3339(visit.start.at_ms),
        local_start: wall_clock(visit.start.local()),
    }
}
