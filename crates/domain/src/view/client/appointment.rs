//! One appointment of a client: its start, its status, and the events that determined them.
//!
//! The start is an instant, a zone, and the local time that clocks of the zone show at that instant, so that reminders
//! can name the local time and leads count calendar days of the zone. A local time in a gap is stored as the time after
//! the gap that clocks show instead.
//!
//! Start and status each follow the latest event that states them. Both have two times: since when they are valid, and
//! when they were last stated. An event that restates the current value only changes the second one.

use super::attribute::Attributes;
use super::placements::Placements;
use super::snapshot::{Snapshot, Subject};
use foretell_events::appointment::{CancelledBy, Channel, StartsAt};
use foretell_events::codec::bounds::TIME_MS_END;
use foretell_events::time::DAY_MS;
use foretell_events::zone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A cancellation closer than this to the start is a late one.
pub(crate) const LATE_CANCEL_MS: i64 = 24 * 60 * 60 * 1000;
const DAY_S: i64 = 24 * 60 * 60;

/// The status of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppointmentStatus {
    /// It is booked.
    Booked,
    /// It is booked, and the client confirmed it.
    Confirmed,
    /// Cancelled.
    Cancelled,
    /// They came.
    Attended,
    /// They did not come.
    Missed,
    /// Entered in error.
    Deleted,
}

/// How a visit can end, as [`Appointment::resolved_as`] names it.
pub const RESOLVED_AS: [&str; 5] = ["attended", "missed", "cancelled", "late_cancelled", "deleted"];

impl AppointmentStatus {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Attended => "attended",
            Self::Missed => "missed",
            Self::Deleted => "deleted",
        }
    }

    /// Whether the visit is still expected to take place, according to the events so far.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Booked | Self::Confirmed)
    }

    /// Whether the outcome of the visit is known.
    pub const fn is_resolved(self) -> bool {
        matches!(self, Self::Attended | Self::Missed)
    }
}

/// The start of a visit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The time that clocks of the zone show at the start, in seconds as if it were UTC.
    pub local_s: i64,
    /// IANA zone of the visit.
    pub zone: String,
    /// The instant.
    pub at_ms: i64,
}

impl Start {
    /// The start of a booking; `fallback` is the zone if `starts_at` has none.
    pub fn of(starts_at: &StartsAt, fallback: String) -> Self {
        let at_ms = Self::instant_ms(starts_at);
        let zone = match starts_at {
            StartsAt::Local { zone, .. } => zone.clone(),
            StartsAt::Instant { zone, .. } => zone.clone().unwrap_or(fallback),
        };
        let rules = zone::get(&zone).unwrap_or(jiff::tz::TimeZone::UTC);
        Self { local_s: seconds(zone::local(at_ms, &rules)), zone, at_ms }
    }

    /// The instant of a start.
    pub fn instant_ms(starts_at: &StartsAt) -> i64 {
        match starts_at {
            StartsAt::Instant { at_ms, .. } => *at_ms,
            StartsAt::Local { local, zone } => {
                let at_ms = zone::get(zone).map_or(0, |rules| zone::instant_ms(*local, &rules));
                // Within the years of events, also with other rules for the zone: it is announced as it is.
                at_ms.clamp(0, TIME_MS_END - 1)
            }
        }
    }

    /// Whether a visit with this start can have this status at `time_ms`: it cannot be missed before its start, nor
    /// attended before its local day.
    pub(super) fn admits(&self, status: AppointmentStatus, time_ms: i64) -> bool {
        let is_of_day = || {
            let rules = zone::get(&self.zone).unwrap_or(jiff::tz::TimeZone::UTC);
            seconds(zone::local(time_ms, &rules)).div_euclid(DAY_S) >= self.day()
        };
        match status {
            AppointmentStatus::Missed => time_ms >= self.at_ms,
            AppointmentStatus::Attended => time_ms >= self.at_ms || is_of_day(),
            _ => true,
        }
    }

    /// Whole days from a booking to the start, in its zone; 0 if the start is before the booking.
    pub fn lead_days(&self, booked_at_ms: i64) -> i32 {
        zone::get(&self.zone).map_or(0, |zone| zone::lead_days(booked_at_ms, self.at_ms, &zone).max(0))
    }

    /// The wall-clock time.
    pub fn local(&self) -> jiff::civil::DateTime {
        jiff::Timestamp::from_second(self.local_s)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .datetime()
    }

    fn day(&self) -> i64 {
        self.local_s.div_euclid(DAY_S)
    }
}

/// A client's appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// None until a booking or a reschedule of it arrives.
    pub start: Option<Start>,
    /// When it was first booked.
    pub booked_at_ms: i64,
    /// Event time of the event that determined the start.
    pub placed_at_ms: i64,
    /// Latest event time that states the start; at first `placed_at_ms`.
    pub restated_at_ms: i64,
    /// Latest event time at which a booking states it as a future visit: older cancellations are ignored.
    pub on_at_ms: i64,
    /// Event time of the booking that began this visit after the outcome of an earlier one with the same id. Older
    /// events are about the earlier visit.
    pub begun_at_ms: Option<i64>,
    /// Its status.
    pub status: AppointmentStatus,
    /// Event time of the event that determined the status.
    pub status_at_ms: i64,
    /// Latest event time that states the status; at first `status_at_ms`.
    pub status_restated_at_ms: i64,
    /// Latest event time, before the status was last stated, at which another status is known to have been valid. The
    /// status of a visit that is cancelled or over does not count from an earlier time.
    pub status_after_ms: Option<i64>,
    /// Id of the event that determined the start: the cause of its reminders.
    pub placed_by: String,
    /// Id of the event that determined the status.
    pub status_by: String,
    /// Who cancelled it, if known.
    pub cancelled_by: Option<Canceller>,
    /// The cancellation that a booking at the same start reverted.
    pub taken_back: Option<RevertedCancellation>,
    /// How often it was moved.
    pub rescheduled: u32,
    /// Its latest starts, so that no move is counted twice.
    pub placements: Placements,
    /// On-demand requests for a reminder, ascending by time.
    pub requests: Vec<OnDemandRequest>,
    /// The receipts of its reminders, ascending by time.
    pub receipts: Vec<Receipt>,
    /// The service, such as a treatment.
    pub service: Option<String>,
    /// Where.
    pub location_id: Option<String>,
    /// Further attributes from the tenant, including service, location and practitioner.
    pub attributes: Attributes,
    /// What was known when its start was determined; with the outcome it is a sample.
    pub snapshot: Option<Box<Snapshot>>,
}

/// Who cancelled a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canceller {
    /// Who.
    pub by: CancelledBy,
    /// Event time of the event that names them.
    pub at_ms: i64,
}

/// A reverted cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertedCancellation {
    /// Event time from which it counted.
    pub at_ms: i64,
    /// Who cancelled.
    pub by: Option<Canceller>,
}

/// The importance of an appointment, see [`Appointment::weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight(Class, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Never placed.
    Noted,
    /// Cancelled, or over.
    Over,
    /// It is booked, and starts in the future or started less than a day ago.
    Upcoming,
}

impl Weight {
    /// That of an appointment that was never placed, noted at `time_ms`.
    pub(super) const fn noted(time_ms: i64) -> Self {
        Self(Class::Noted, time_ms)
    }

    /// That of a visit with a start.
    pub(super) const fn placed(starts_at_ms: i64, is_open: bool, now_ms: i64) -> Self {
        if is_open && starts_at_ms > now_ms.saturating_sub(DAY_MS) {
            Self(Class::Upcoming, -starts_at_ms)
        } else {
            Self(Class::Over, -(starts_at_ms - now_ms).abs())
        }
    }

    /// Whether it is that of a future visit.
    pub(super) fn is_upcoming(self) -> bool {
        self.0 == Class::Upcoming
    }
}

/// An on-demand request for a reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDemandRequest {
    /// Id of the request's event.
    pub event_id: String,
    /// The requested reminder.
    pub reminder_id: String,
    /// When it was requested.
    pub at_ms: i64,
    /// Used instead of the client's own channels.
    pub channels: Vec<Channel>,
    /// Used instead of the configured template.
    pub template: Option<String>,
    /// See [`foretell_events::reminder::Request::idempotency_digest`].
    pub digest: Option<String>,
}

/// How a reminder was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReminderReceived)]
pub enum Received {
    /// It reached the client.
    Delivered,
    /// It did not.
    Failed,
    /// The client confirmed the visit in response.
    Confirmed,
}

/// How a reminder was received on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The reminder.
    pub reminder_id: String,
    /// How it was received.
    pub received: Received,
    /// The channel; a failure without one means all that were announced.
    pub channel: Option<Channel>,
    /// Event time of the first event that stated it.
    pub at_ms: i64,
    /// Event time of the last event that stated it.
    pub restated_at_ms: i64,
    /// Why it failed, truncated to 256 bytes.
    pub reason: Option<String>,
}

impl Appointment {
    /// Whether a booking at `time_ms` begins another visit with this id: this one has an older outcome, and a visit at
    /// the new, different start cannot have had it.
    pub fn is_replaced_by(&self, starts_at: &StartsAt, time_ms: i64) -> bool {
        let is_ahead = || {
            let start = Start::of(starts_at, self.zone_or("UTC".to_owned()));
            let is_there = self.start.as_ref().is_some_and(|own| own.at_ms == start.at_ms);
            !is_there && !start.admits(self.status, self.status_at_ms)
        };
        self.status.is_resolved() && time_ms > self.status_at_ms && is_ahead()
    }

    /// The importance at a time if not all can be kept. In rising order: notes about appointments that were never
    /// placed, the oldest first; visits that are cancelled or over, the farthest from that time first; future visits,
    /// the farthest ahead first.
    pub(super) fn weight(&self, now_ms: i64) -> Weight {
        match &self.start {
            None => Weight::noted(self.booked_at_ms),
            Some(start) => Weight::placed(start.at_ms, self.status.is_open(), now_ms),
        }
    }

    pub(super) fn unplaced(time_ms: i64) -> Self {
        Self {
            start: None,
            booked_at_ms: time_ms,
            placed_at_ms: i64::MIN,
            restated_at_ms: i64::MIN,
            on_at_ms: i64::MIN,
            begun_at_ms: None,
            status: AppointmentStatus::Booked,
            status_at_ms: i64::MIN,
            status_restated_at_ms: i64::MIN,
            status_after_ms: None,
            placed_by: String::new(),
            status_by: String::new(),
            cancelled_by: None,
            taken_back: None,
            rescheduled: 0,
            placements: Placements::default(),
            requests: Vec::new(),
            receipts: Vec::new(),
            service: None,
            location_id: None,
            attributes: Attributes::default(),
            snapshot: None,
        }
    }

    /// The zone of the visit, or `zone` if it was not placed.
    pub(super) fn zone_or(&self, zone: String) -> String {
        self.start.as_ref().map_or(zone, |start| start.zone.clone())
    }

    /// Whole days from booking to visit, in the visit's zone; 0 if the start is before the booking.
    pub fn lead_days(&self) -> Option<i32> {
        self.start.as_ref().map(|start| start.lead_days(self.booked_at_ms))
    }

    /// The subject of a snapshot; none if it was not placed.
    pub fn subject<'a>(&'a self, id: &'a str) -> Option<Subject<'a>> {
        let (booked_at_ms, attributes) = (self.booked_at_ms, &self.attributes);
        Some(Subject { id: Some(id), start: self.start.as_ref()?, booked_at_ms, attributes })
    }

    /// The local day of a visit with a known outcome.
    pub(super) fn resolved_day(&self) -> Option<i64> {
        let start = self.start.as_ref().filter(|_| self.status.is_resolved())?;
        Some(start.day())
    }

    /// How the visit ended, by name; none if it has not ended or was never placed.
    pub fn resolved_as(&self) -> Option<&'static str> {
        self.start.as_ref()?;
        match self.status {
            AppointmentStatus::Booked | AppointmentStatus::Confirmed => None,
            AppointmentStatus::Cancelled if self.is_late_cancelled() => Some("late_cancelled"),
            AppointmentStatus::Cancelled
            | AppointmentStatus::Attended
            | AppointmentStatus::Missed
            | AppointmentStatus::Deleted => Some(self.status.name()),
        }
    }

    /// Whether the client, and not the business, cancelled it within [`LATE_CANCEL_MS`] before its start or later.
    pub fn is_late_cancelled(&self) -> bool {
        let late = |start: &Start| self.status_at_ms > start.at_ms - LATE_CANCEL_MS;
        self.status == AppointmentStatus::Cancelled
            && self.cancelled_by.is_none_or(|named| named.by != CancelledBy::Business)
            && self.start.as_ref().is_some_and(late)
    }
}

fn seconds(local: jiff::civil::DateTime) -> i64 {
    zone::instant_ms(local, &jiff::tz::TimeZone::UTC).div_euclid(1000)
}
