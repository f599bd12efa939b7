//! What must hold of the reminders topic after a run.

use super::witness::Attempt;
use crate::equation;
use foretell::event::reminder::Announcement;
use foretell::event::{Fact, Position, Topic, codec, key};
use foretell::log::memory::Log as MemoryLog;
use foretell::log::{NewRecord, Record};
use foretell::remind::plan::{self, Context, Policy, Status};
use foretell::view::Place;
use foretell::view::client::{self, Appointments};
use foretell::view::sent::{self, Reminders as SentFold};
use std::collections::BTreeMap;

/// How many ids were announced, or the first one that is on the topic twice.
pub fn announced_once(log: &MemoryLog) -> Result<usize, String> {
    let mut ids = BTreeMap::new();
    for record in equation::records(log, Topic::Reminders) {
        let event = codec::decode(&record).map_err(|faults| format!("{:?}: {faults}", record.position))?;
        let Fact::ReminderDue(announcement) = event.fact else { continue };
        let at = (record.position, record.timestamp_ms - crate::clock::BEGIN_MS);
        if let Some(first) = ids.insert(announcement.reminder_id.clone(), at) {
            return Err(format!("{announcement:?} was announced twice, at {first:?} and at {at:?}"));
        }
    }
    Ok(ids.len())
}

/// How many announcements were handed to the log, or the first for a visit that was not on, at that start, at any
/// moment between the end that its tick had taken and its append.
pub fn announced_if_on(log: &MemoryLog, attempts: &[Attempt]) -> Result<usize, String> {
    let mut held = 0;
    let events = equation::events(log, Topic::Appointments);
    for Attempt { record, partition, ends } in attempts {
        let event = codec::decode(&stored(record)).map_err(|faults| faults.to_string())?;
        let Fact::ReminderDue(announcement) = event.fact else { continue };
        if !ends.clone().any(|end| was_on(&events, &announcement, *partition, end)) {
            return Err(format!("{announcement:?} held at no end of {ends:?}"));
        }
        held += 1;
    }
    Ok(held)
}

/// Whether a visit was on, at the start that was announced, in the rows of everything below `end`.
fn was_on(events: &equation::Events, announcement: &Announcement, partition: u32, end: i64) -> bool {
    let below = |at: Place| at.partition == partition && at.offset < end;
    let rows = equation::fold(Appointments::default(), events, below);
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

/// How many steps fell due in fair weather and were sent, or the first one that was not.
pub fn due_is_sent(log: &MemoryLog, calm_ms: i64, now_ms: i64) -> Result<usize, String> {
    let clients = equation::fold(Appointments::default(), &equation::events(log, Topic::Appointments), |_| true);
    let announced = equation::fold(SentFold::default(), &equation::events(log, Topic::Reminders), |_| true);
    let (policy, mut due) = (Policy::default(), 0);
    for client_id in (0..super::CLIENTS).map(|n| format!("c{n}")) {
        let key = key::of("t", &client_id);
        let client = clients.owner(&client::row_key("t", &client_id)).cloned().unwrap_or_default();
        let sent = announced.owner(&sent::row_key("t", &client_id)).cloned().unwrap_or_default();
        let context = Context { key: &key, client: &client, sent: &sent, policy: &policy, now_ms };
        for id in client.appointments.keys() {
            for reminder in plan::story(&context, id).into_iter().filter(|r| r.due_at_ms >= calm_ms) {
                match reminder.status {
                    Status::Sent => due += 1,
                    Status::Failed => return Err(format!("{id} of {client_id} missed {reminder:?}")),
                    _ => {}
                }
            }
        }
    }
    Ok(due)
}
