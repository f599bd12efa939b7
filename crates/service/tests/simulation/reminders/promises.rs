//! What must hold of the reminders topic after a run.

use super::observed::Attempt;
use crate::equation::Facts;
use foretell_domain::remind::plan::{self, PlanContext, ReminderStatus};
use foretell_domain::remind::policy::ReminderPolicy;
use foretell_domain::view::client::{self, AppointmentFold};
use foretell_domain::view::sent::{self, ReminderFold};
use foretell_events::record::{NewRecord, Record};
use foretell_events::reminder::{Announcement, ReminderFact};
use foretell_events::{Fact, Position, codec, key};
use std::collections::BTreeMap;

/// Some ticks, and the longest lag of views without faults.
const SETTLED_MS: i64 = 15 * 60_000;

/// How many ids were announced, or the first one that is on the topic twice.
pub fn announced_once(sent: &Facts) -> Result<usize, String> {
    let mut ids = BTreeMap::new();
    for event in sent.events() {
        let Fact::Reminder(ReminderFact::Due(announcement)) = &event.fact else { continue };
        let at_ms = event.envelope.time_ms;
        if let Some(first_ms) = ids.insert(&announcement.reminder_id, at_ms) {
            return Err(format!("{announcement:?} was announced twice, at {first_ms} and at {at_ms}"));
        }
    }
    Ok(ids.len())
}

/// How many announcements were appended, or the first one for a visit that was not active with that start at any moment
/// between the end that its tick had read and its append.
pub fn announced_if_on(visits: &Facts, attempts: &[Attempt]) -> Result<usize, String> {
    let mut held = 0;
    for Attempt { record, partition, ends } in attempts {
        let event = codec::decode(&stored(record)).map_err(|faults| faults.to_string())?;
        let Fact::Reminder(ReminderFact::Due(announcement)) = event.fact else { continue };
        if !ends.clone().any(|end| was_on(visits, &announcement, *partition, end)) {
            return Err(format!("{announcement:?} held at no end of {ends:?}"));
        }
        held += 1;
    }
    Ok(held)
}

/// Whether a visit was active with the announced start, in the rows of everything below `end`.
fn was_on(visits: &Facts, announcement: &Announcement, partition: u32, end: i64) -> bool {
    let rows = visits.fold(AppointmentFold::default(), |at| at.partition == partition && at.offset < end);
    let row = rows.owner(&client::row_key("t", &announcement.client_id));
    let visit = row.and_then(|client| client.appointments.get(&announcement.appointment_id));
    visit.is_some_and(|visit| {
        let starts_at = visit.start.as_ref().map(|start| codec::rfc3339(start.at_ms));
        visit.status.is_open() && starts_at.as_ref() == Some(&announcement.starts_at)
    })
}

fn stored(record: &NewRecord) -> Record {
    let position = Position { topic: record.topic, partition: 0, offset: 0 };
    let NewRecord { key, value, headers, .. } = record.clone();
    Record { position, timestamp_ms: 0, key, value, headers }
}

/// How many steps were due without faults and were sent, or the first one that was not; also checks everything that the
/// planner had to do until recently, such as withdrawals.
pub fn due_is_sent((visits, sent): (&Facts, &Facts), calm_ms: i64, now_ms: i64) -> Result<usize, String> {
    let clients = visits.fold(AppointmentFold::default(), |_| true);
    let announced = sent.fold(ReminderFold::default(), |_| true);
    let (policy, mut due) = (ReminderPolicy::default(), 0);
    for client_id in (0..super::CLIENTS).map(|n| format!("c{n}")) {
        let key = key::of("t", &client_id);
        let client = clients.owner(&client::row_key("t", &client_id)).cloned().unwrap_or_default();
        let sent = announced.owner(&sent::row_key("t", &client_id)).cloned().unwrap_or_default();
        let risks = BTreeMap::new();
        let context = PlanContext { key: &key, client: &client, sent: &sent, policy: &policy, risks: &risks, now_ms };
        let lately = PlanContext { now_ms: now_ms - SETTLED_MS, ..context };
        if let Some(action) = plan::client(&lately).actions.first() {
            return Err(format!("{client_id}: {action:?} was not done"));
        }
        for id in client.appointments.keys() {
            for reminder in plan::timeline(&context, id).into_iter().filter(|r| r.due_at_ms >= calm_ms) {
                match reminder.status {
                    ReminderStatus::Sent => due += 1,
                    ReminderStatus::Failed => return Err(format!("{id} of {client_id} missed {reminder:?}")),
                    _ => {}
                }
            }
        }
    }
    Ok(due)
}
