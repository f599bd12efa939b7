//! The owner row of reminders: what was announced to a client, and what was withdrawn again.
//!
//! The reminders topic is the truth of what was sent; this view is its fold. The planner subtracts it from what
//! is due, and finds in it what was announced for a start that no longer holds. For that, announcements are also
//! listed by the hour of the start that they named, and a [`Calendar`] says which hours hold any, however far ahead.

use super::agenda::{self, HOUR_MS, Kind};
use super::recent::Recent;
use super::{Contribution, Delta, Fold, Limits, Outcome, Place};
use crate::event::reminder::Announcement;
use crate::event::{Event, Fact, key};
use crate::store::{Family, RowKey, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Hours that a calendar lists; the farthest ahead is forgotten first.
const CALENDAR_HOURS_MAX: usize = 10_000;
/// How long an hour stays in a calendar after it has passed, measured by the newest announcement.
const CALENDAR_PAST_HOURS: i64 = 48;
/// The lowest of the buckets that hold calendars: one a source partition, far from those of hours.
pub const CALENDAR_BUCKET: i64 = 1 << 60;

/// The state of a client's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Repetitions.
    pub recent: Recent,
    /// By appointment id.
    pub appointments: BTreeMap<String, Vec<Announced>>,
}

/// A reminder that was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its id.
    pub reminder_id: String,
    /// The step.
    pub step: String,
    /// The start that it named.
    pub starts_at_ms: i64,
    /// When it was announced.
    pub at_ms: i64,
    /// Why it was withdrawn, if it was.
    pub withdrawn: Option<String>,
}

impl Sent {
    /// Announcements of an appointment, in the order of the topic.
    pub fn of(&self, appointment_id: &str) -> &[Announced] {
        self.appointments.get(appointment_id).map_or(&[], Vec::as_slice)
    }

    fn announce(&mut self, announcement: &Announcement, at_ms: i64, limits: &Limits) {
        let starts_at_ms = starts_at_ms(announcement);
        let list = self.appointments.entry(announcement.appointment_id.clone()).or_default();
        list.push(Announced {
            reminder_id: announcement.reminder_id.clone(),
            step: announcement.step.clone(),
            starts_at_ms,
            at_ms,
            withdrawn: None,
        });
        if list.len() > limits.appointment_reminders_max {
            let oldest_withdrawn = list.iter().position(|a| a.withdrawn.is_some()).unwrap_or(0);
            list.remove(oldest_withdrawn);
        }
        if self.appointments.len() > limits.client_appointments_max {
            let start = |list: &Vec<Announced>| list.iter().map(|a| a.starts_at_ms).max();
            let first = self.appointments.iter().min_by_key(|(id, list)| (start(list), *id)).map(|(id, _)| id.clone());
            first.and_then(|id| self.appointments.remove(&id));
        }
    }

    /// Marks an announcement as withdrawn; answers the start it had named, if it still held.
    fn withdraw(&mut self, appointment_id: &str, reminder_id: &str, reason: &str) -> Option<i64> {
        let list = self.appointments.get_mut(appointment_id)?;
        let live = list.iter_mut().rev().find(|a| a.reminder_id == reminder_id && a.withdrawn.is_none())?;
        live.withdrawn = Some(reason.to_owned());
        Some(live.starts_at_ms)
    }
}

fn starts_at_ms(announcement: &Announcement) -> i64 {
    announcement.starts_at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}

/// The hours of announced starts that hold announcements: one row a source partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Hours since the epoch, with the number of announcements that hold.
    pub hours: BTreeMap<i64, i32>,
}

/// An announcement that came, or that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarDelta {
    /// Hour of the announced start, since the epoch.
    pub hour: i64,
    /// Hour in which this happened.
    pub now_hour: i64,
    /// 1 or -1.
    pub times: i32,
}

impl Calendar {
    /// Takes a change in.
    pub fn apply(&mut self, delta: &CalendarDelta) {
        let count = self.hours.entry(delta.hour).or_default();
        *count += delta.times;
        if *count <= 0 {
            self.hours.remove(&delta.hour);
        }
        self.hours.retain(|hour, _| *hour >= delta.now_hour - CALENDAR_PAST_HOURS);
        if self.hours.len() > CALENDAR_HOURS_MAX {
            self.hours.pop_last();
        }
    }
}

/// Whether a bucket of [`View::Announced`] holds a calendar.
pub fn is_calendar(bucket: i64) -> bool {
    bucket >= CALENDAR_BUCKET
}

/// The address of the calendar of a source partition.
pub fn calendar_key(partition: u32) -> RowKey {
    RowKey { view: View::Announced, bucket: CALENDAR_BUCKET + i64::from(partition), key: "calendar".into() }
}

/// The start that a withdrawal took back, if it took any: with the event, all that its contributions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Start that the withdrawn announcement had named.
    pub withdrawn_start_ms: Option<i64>,
}

/// The fold of the reminders topic.
#[derive(Debug, Clone, Default)]
pub struct Reminders {
    /// What it depends on besides the log.
    pub limits: Limits,
}

impl Fold for Reminders {
    type Owner = Sent;
    type Decision = Decision;
    const FAMILY: Family = Family::Reminders;
    const OWNER: View = View::Sent;

    fn fold(&self, sent: &mut Sent, event: &Event, _: Place) -> Outcome<Decision> {
        if !sent.recent.insert(event.envelope.fingerprint()) {
            return Outcome::Skipped;
        }
        let mut decision = Decision { withdrawn_start_ms: None };
        match &event.fact {
            Fact::ReminderDue(announcement) => sent.announce(announcement, event.envelope.time_ms, &self.limits),
            Fact::ReminderWithdrawn(w) => {
                decision.withdrawn_start_ms = sent.withdraw(&w.appointment_id, &w.reminder_id, &w.reason);
            }
            _ => {}
        }
        Outcome::Applied(decision)
    }

    fn contributions(&self, event: &Event, decision: &Decision, place: Place) -> Vec<Contribution> {
        let (starts_at_ms, reminder_id, times) = match &event.fact {
            Fact::ReminderDue(announcement) => (Some(starts_at_ms(announcement)), &announcement.reminder_id, 1),
            Fact::ReminderWithdrawn(withdrawal) => (decision.withdrawn_start_ms, &withdrawal.reminder_id, -1),
            _ => return Vec::new(),
        };
        let Some(starts_at_ms) = starts_at_ms else { return Vec::new() };
        let bucket = agenda::bucket(Kind::Starts, starts_at_ms, place.partition);
        let entry = agenda::row_key(View::Announced, bucket, &event.envelope.tenant, event.fact.subject());
        let calendar = CalendarDelta {
            hour: starts_at_ms.div_euclid(HOUR_MS),
            now_hour: event.envelope.time_ms.div_euclid(HOUR_MS),
            times,
        };
        vec![
            Contribution::new(entry, Delta::Agenda(vec![(reminder_id.clone(), times)])),
            Contribution::new(calendar_key(place.partition), Delta::Calendar(calendar)),
        ]
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The address of a client's row.
pub fn row_key(tenant: &str, client_id: &str) -> RowKey {
    RowKey::hashed(View::Sent, key::of(tenant, client_id))
}
