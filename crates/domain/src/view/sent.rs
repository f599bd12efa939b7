//! The owner row of reminders: what was announced to a client, and what was withdrawn.
//!
//! The reminders topic determines what counts as sent; this view is its fold. The planner subtracts it from what is
//! due, and finds in it the announcements whose start is no longer valid. For that, announcements are also listed by
//! the hour of the start that they named, and a [`Calendar`] lists the hours with any, however far ahead.

use super::agenda;
use super::recent::RecentEvents;
use super::{AggregateView, Contribution, Delta, Fold, FoldOutcome, Limits, RecordPosition, Skip};
use crate::address::{Bucket, Family, RowKey, View};
use foretell_events::appointment::Channel;
use foretell_events::reminder::{Announcement, ReminderFact};
use foretell_events::time::HOUR_MS;
use foretell_events::{Event, Fact, key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The step of an on-demand reminder.
pub const MANUAL_STEP: &str = "manual";
/// Hours that a calendar lists; the farthest ahead is forgotten first.
const CALENDAR_HOURS_MAX: usize = 10_000;
/// How long an hour stays in a calendar after it has passed, measured by the newest announcement.
const CALENDAR_PAST_HOURS: i64 = 48;

/// The state of a client's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentReminders {
    /// The latest events, by which repetitions are recognised.
    pub recent: RecentEvents,
    /// By appointment id.
    pub appointments: BTreeMap<String, Announcements>,
}

/// The announcements of one appointment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcements {
    /// In the order of the topic.
    pub list: Vec<Announced>,
    /// Withdrawn ones that are no longer in the list: ids are numbered after them, so that none is reused.
    pub forgotten: u32,
}

impl Announcements {
    /// How important they are at a time if those of all visits cannot be kept. In rising order: all announced starts
    /// have passed, the oldest first; all future ones are withdrawn, and are only kept so that their ids are not
    /// reused; a future one is valid, and must not be announced again. Of the future ones, the farthest ahead is the
    /// least important.
    fn weight(&self, now_ms: i64) -> (u8, i64) {
        let to_come = self.list.iter().filter(|announced| announced.last_start_ms() > now_ms);
        let next_ms = |is_holding: bool| {
            let of_kind = to_come.clone().filter(|announced| announced.withdrawn.is_none() == is_holding);
            of_kind.map(Announced::last_start_ms).min()
        };
        let passed_ms = || self.list.iter().map(Announced::last_start_ms).max().unwrap_or(i64::MIN);
        match (next_ms(true), next_ms(false)) {
            (Some(holding_ms), _) => (2, -holding_ms),
            (None, Some(withdrawn_ms)) => (1, -withdrawn_ms),
            (None, None) => (0, passed_ms()),
        }
    }

    /// Forgets withdrawn ones first, those of steps before on-demand ones, then those whose visits had begun when the
    /// latest was announced, then on-demand ones: a valid step must not look as if it were still to be announced.
    fn forget_one(&mut self) {
        let now_ms = self.list.last().map_or(i64::MIN, |latest| latest.at_ms);
        let rank = |a: &Announced| match (a.withdrawn.is_some(), a.step == MANUAL_STEP) {
            (true, false) => 0,
            (true, true) => 1,
            _ if a.last_start_ms() <= now_ms => 2,
            (false, true) => 3,
            (false, false) => 4,
        };
        let first = self.list.iter().enumerate().min_by_key(|(at, a)| (rank(a), *at)).map(|(at, _)| at);
        if let Some(first) = first {
            let gone = self.list.remove(first);
            self.forgotten = self.forgotten.saturating_add(u32::from(gone.withdrawn.is_some()));
        }
    }
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
    /// The channels, in order of preference.
    pub channels: Vec<Channel>,
    /// Why it was withdrawn, if it was.
    pub withdrawn: Option<String>,
    /// The other visits that it names.
    pub others: Vec<OtherVisit>,
}

/// Another visit that a reminder names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherVisit {
    /// The visit.
    pub appointment_id: String,
    /// The start that was named.
    pub starts_at_ms: i64,
    /// Why it was withdrawn, if it was.
    pub withdrawn: Option<String>,
}

impl Announced {
    /// The latest start that it named.
    fn last_start_ms(&self) -> i64 {
        self.others.iter().map(|other| other.starts_at_ms).fold(self.starts_at_ms, i64::max)
    }
}

impl SentReminders {
    /// Announcements of an appointment, in the order of the topic.
    pub fn of(&self, appointment_id: &str) -> &[Announced] {
        self.appointments.get(appointment_id).map_or(&[], |announced| announced.list.as_slice())
    }

    /// Every announcement, with the appointment that it was made for.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Announced)> {
        self.appointments.iter().flat_map(|(id, of)| of.list.iter().map(move |announced| (id.as_str(), announced)))
    }

    /// How often an announcement of a step of an appointment was withdrawn, at least.
    pub fn withdrawn(&self, appointment_id: &str, step: &str) -> u32 {
        let Some(announced) = self.appointments.get(appointment_id) else { return 0 };
        let withdrawn = announced.list.iter().filter(|a| a.step == step && a.withdrawn.is_some()).count();
        announced.forgotten.saturating_add(withdrawn as u32)
    }

    /// Adds an announcement; returns the latest start that it names, unless it was there before: an id is one reminder.
    fn announce(&mut self, announcement: &Announcement, at_ms: i64, limits: &Limits) -> Option<i64> {
        let starts_at_ms = instant_ms(&announcement.starts_at);
        let announced = self.appointments.entry(announcement.appointment_id.clone()).or_default();
        if announced.list.iter().any(|a| a.reminder_id == announcement.reminder_id) {
            return None;
        }
        let own = &announcement.appointment_id;
        let others = announcement.visits.iter().filter(|visit| visit.appointment_id != *own).map(|visit| OtherVisit {
            appointment_id: visit.appointment_id.clone(),
            starts_at_ms: instant_ms(&visit.starts_at),
            withdrawn: None,
        });
        let come = Announced {
            reminder_id: announcement.reminder_id.clone(),
            step: announcement.step.clone(),
            starts_at_ms,
            at_ms,
            channels: announcement.channels.clone(),
            withdrawn: None,
            others: others.collect(),
        };
        let last_start_ms = come.last_start_ms();
        announced.list.push(come);
        if announced.list.len() > limits.appointment_reminders_max {
            announced.forget_one();
        }
        if self.appointments.len() > limits.client_appointments_max {
            let weights = self.appointments.iter().map(|(id, of)| (of.weight(at_ms), id));
            let least = weights.min().map(|(_, id)| id.clone());
            least.and_then(|id| self.appointments.remove(&id));
        }
        Some(last_start_ms)
    }

    /// Marks an announcement as withdrawn, or only another visit that it names. Returns the latest start that it named
    /// if all of it was valid and is now withdrawn.
    fn withdraw(&mut self, appointment_id: &str, reminder_id: &str, reason: &str) -> Option<i64> {
        let all = self.appointments.iter_mut().flat_map(|(id, of)| of.list.iter_mut().map(move |a| (id, a)));
        let mut live = all.filter(|(_, a)| a.reminder_id == reminder_id && a.withdrawn.is_none());
        let (id, announced) = live.next()?;
        if id == appointment_id {
            announced.withdrawn = Some(reason.to_owned());
            return Some(announced.last_start_ms());
        }
        let other = announced.others.iter_mut().find(|other| other.appointment_id == appointment_id)?;
        other.withdrawn.get_or_insert_with(|| reason.to_owned());
        None
    }
}

fn instant_ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}

/// The hours of announced starts with announcements: one row per source partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Hours since the epoch, with the number of valid announcements.
    pub hours: BTreeMap<i64, i32>,
}

/// A new announcement, or a withdrawn one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarDelta {
    /// Hour of the announced start, since the epoch.
    pub hour: i64,
    /// Hour in which this happened.
    pub now_hour: i64,
    /// 1 or -1.
    pub times: i32,
}

impl AggregateView for Calendar {
    type Delta = CalendarDelta;

    fn apply(&mut self, delta: &CalendarDelta, _: &Limits) {
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

/// The address of the calendar of a source partition.
pub fn calendar_key(partition: u32) -> RowKey {
    RowKey::in_bucket(View::Announced, Bucket::Calendar { partition }, "calendar".into())
}

/// The start that an announcement added or a withdrawal removed, if any: with the event, all that its contributions
/// need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDecision {
    /// The latest start that the announcement names, or that the withdrawn one had named.
    pub start_ms: Option<i64>,
}

/// The fold of the reminders topic.
#[derive(Debug, Clone, Default)]
pub struct ReminderFold {
    /// What it depends on in addition to the log.
    pub limits: Limits,
}

impl Fold for ReminderFold {
    type Owner = SentReminders;
    type Decision = SentDecision;
    const FAMILY: Family = Family::Reminders;
    const OWNER: View = View::Sent;

    fn fold(&self, sent: &mut SentReminders, event: &Event, _: RecordPosition) -> FoldOutcome<SentDecision> {
        let Fact::Reminder(fact) = &event.fact else { return FoldOutcome::Skipped(Skip::Unchanged) };
        if !sent.recent.insert(event.fingerprint()) {
            return FoldOutcome::Skipped(Skip::Repeated);
        }
        let start_ms = match fact {
            ReminderFact::Due(announcement) => sent.announce(announcement, event.envelope.time_ms, &self.limits),
            ReminderFact::Withdrawn(w) => sent.withdraw(&w.appointment_id, &w.reminder_id, &w.reason),
        };
        FoldOutcome::Applied(SentDecision { start_ms })
    }

    fn contributions(&self, event: &Event, decision: &SentDecision, place: RecordPosition) -> Vec<Contribution> {
        let Fact::Reminder(fact) = &event.fact else { return Vec::new() };
        let (reminder_id, times) = match fact {
            ReminderFact::Due(announcement) => (&announcement.reminder_id, 1),
            ReminderFact::Withdrawn(withdrawal) => (&withdrawal.reminder_id, -1),
        };
        let Some(starts_at_ms) = decision.start_ms else { return Vec::new() };
        let bucket = Bucket::starts(starts_at_ms, place.partition);
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
