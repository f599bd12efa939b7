//! The topic of reminders as a subscriber reads it.

use super::rules::{Entry, What};
use foretell_events::record::Record;
use foretell_events::reminder::{Announcement, ReminderFact};
use foretell_events::{Fact, codec};
use std::collections::BTreeMap;

/// An entry of the topic.
#[derive(Debug, Clone)]
pub struct Observed {
    pub at_ms: i64,
    pub reminder_id: String,
    pub entry: Entry,
    /// When the reminder must no longer be sent; none for a withdrawal.
    pub expires_ms: Option<i64>,
}

/// Remembers the reminder of each id.
#[derive(Default)]
pub struct Observer {
    /// Step, and start by appointment.
    known: BTreeMap<String, (String, BTreeMap<String, i64>)>,
}

impl Observer {
    /// The entry of a record; fails if it is not a reminder, or withdraws what was never announced.
    pub fn observe(&mut self, record: &Record) -> Result<Observed, String> {
        let event = codec::decode(record).map_err(|faults| format!("{record:?}: {faults}"))?;
        let (at_ms, key) = (event.envelope.time_ms, (event.envelope.tenant.clone(), event.fact.subject().to_owned()));
        match event.fact {
            Fact::Reminder(ReminderFact::Due(due)) => {
                let Announcement { reminder_id, appointment_id, step, local_start, time_zone, channels, .. } = *due;
                let start_ms = instant_ms(&due.starts_at)?;
                let mut named = Vec::new();
                for visit in due.visits {
                    named.push((visit.appointment_id, instant_ms(&visit.starts_at)?));
                }
                let own = (appointment_id.clone(), start_ms);
                if named.first().is_some_and(|first| *first != own) {
                    return Err(format!("{reminder_id} of {own:?} names {named:?}"));
                }
                let others = named.into_iter().skip(1).collect::<Vec<_>>();
                let starts = others.iter().cloned().chain([own]).collect();
                self.known.insert(reminder_id.clone(), (step.clone(), starts));
                let expires_ms = Some(instant_ms(&due.expires_at)?);
                let what = What::Due { step, local_start, zone: time_zone, start_ms, channels, others };
                Ok(Observed { at_ms, reminder_id, entry: Entry { key, appointment: appointment_id, what }, expires_ms })
            }
            Fact::Reminder(ReminderFact::Withdrawn(gone)) => {
                let known = self
                    .known
                    .get(&gone.reminder_id)
                    .and_then(|(step, starts)| Some((step.clone(), *starts.get(&gone.appointment_id)?)));
                let (step, start_ms) = known.ok_or_else(|| format!("{gone:?} was never announced"))?;
                let reasons = ["cancelled", "deleted", "rescheduled", "erased"];
                let reason = reasons.into_iter().find(|reason| *reason == gone.reason);
                let reason = reason.ok_or_else(|| format!("{gone:?} for no reason"))?;
                let entry =
                    Entry { key, appointment: gone.appointment_id, what: What::Withdrawn { step, start_ms, reason } };
                Ok(Observed { at_ms, reminder_id: gone.reminder_id, entry, expires_ms: None })
            }
            other => Err(format!("{other:?} among the reminders")),
        }
    }
}

fn instant_ms(text: &str) -> Result<i64, String> {
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).map_err(|error| error.to_string())
}
