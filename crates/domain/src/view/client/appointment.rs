//! One appointment of a client: when it starts, where it stands, and which events decided that.
//!
//! The start is an instant, a zone, and the local time that clocks of the zone show at that instant, so that reminders
//! can name the local time and leads count calendar days of the zone. A local time in a gap is kept as the time after
//! the gap that clocks show instead.
//!
//! Start and status each follow the event with the latest time that states them. Both keep two times: since when they
//! hold, and when they were last stated. An event that restates what already holds only moves the second one.

use super::attribute::Attributes;
use super::placements::Placements;
use super::snapshot::{Snapshot, Subject};
use foretell_events::appointment::{CancelledBy, Channel, StartsAt};
use foretell_events::codec::bounds::TIME_MS_END;
use foretell_events::zone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A cancellation closer than this to the start is a late one.
pub const LATE_CANCEL_MS: i64 = 24 * 60 * 60 * 1000;
const DAY_S: i64 = 24 * 60 * 60;
/// How long after its start an open visit counts as one to come: until its outcome is late.
const DAY_MS: i64 = 1000 * DAY_S;

/// Where an appointment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppointmentStatus)]
pub enum Status {
    /// It is on.
    Booked,
    /// It is on, and the client said so.
    Confirmed,
    /// Called off.
    Cancelled,
    /// They came.
    Attended,
    /// They did not come.
    Missed,
    /// Entered in error.
    Deleted,
}

/// How a visit can end, as [`Appointment::settled`] names it.
pub const SETTLED: [&str; 5] = ["attended", "missed", "cancelled", "late_cancelled", "deleted"];

impl Status {
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

    /// Whether the visit is still to come, as far as anybody said.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Booked | Self::Confirmed)
    }

    /// Whether it is known how the visit went.
    pub const fn is_resolved(self) -> bool {
        matches!(self, Self::Attended | Self::Missed)
    }
}

/// When and where in time a visit starts.
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
    /// The start that was meant; `fallback` is the zone where `starts_at` names none.
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
                // Within the years that events have, under other rules for the zone too: it is announced as it is.
                at_ms.clamp(0, TIME_MS_END - 1)
            }
        }
    }

    /// Whether a visit that starts here can have this status at `time_ms`: it cannot be missed before its start, nor
    /// attended before its local day.
    pub(super) fn admits(&self, status: Status, time_ms: i64) -> bool {
        let is_of_day = || {
            let rules = zone::get(&self.zone).unwrap_or(jiff::tz::TimeZone::UTC);
            seconds(zone::local(time_ms, &rules)).div_euclid(DAY_S) >= self.day()
        };
        match status {
            Status::Missed => time_ms >= self.at_ms,
            Status::Attended => time_ms >= self.at_ms || is_of_day(),
            _ => true,
        }
    }

    /// Whole days from a booking to the start, in its zone; 0 where the start lies before the booking.
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
    /// Event time of what decided the start.
    pub placed_at_ms: i64,
    /// Latest event time that states the start; at first `placed_at_ms`.
    pub restated_at_ms: i64,
    /// Latest event time at which a booking states it to be still to come: older cancellations do not hold.
    pub on_at_ms: i64,
    /// Event time of the booking that began this visit after the outcome of an earlier one under the same id. Older events
    /// are about the earlier visit.
    pub begun_at_ms: Option<i64>,
    /// Where it stands.
    pub status: Status,
    /// Event time of what decided the status.
    pub status_at_ms: i64,
    /// Latest event time that states the status; at first `status_at_ms`.
    pub status_restated_at_ms: i64,
    /// Latest event time, before the status was stated last, at which another status is known to have held. The status of
    /// a visit that is off or over does not count from an earlier time.
    pub status_after_ms: Option<i64>,
    /// Id of the event that decided the start: what its reminders are caused by.
    pub placed_by: String,
    /// Id of the event that decided the status.
    pub status_by: String,
    /// Who cancelled it, where that was said.
    pub cancelled_by: Option<Named>,
    /// The cancellation that a booking at the same start took back.
    pub taken_back: Option<TakenBack>,
    /// Times that it was moved.
    pub rescheduled: u32,
    /// Its latest starts, so that no move is counted twice.
    pub placements: Placements,
    /// Requests for a reminder by hand, rising in time.
    pub requests: Vec<Asked>,
    /// What became of its reminders, rising in time.
    pub receipts: Vec<Receipt>,
    /// What for.
    pub service: Option<String>,
    /// Where.
    pub location_id: Option<String>,
    /// What the tenant told of it besides; service, location and practitioner are among it.
    pub attributes: Attributes,
    /// What was known when its start was decided; with the outcome it makes a sample.
    pub snapshot: Option<Box<Snapshot>>,
}

/// Who cancelled a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Who.
    pub by: CancelledBy,
    /// Event time of the event that said so.
    pub at_ms: i64,
}

/// A cancellation that does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// Event time from which it counted.
    pub at_ms: i64,
    /// Who cancelled.
    pub by: Option<Named>,
}

/// How much an appointment matters, see [`Appointment::weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight(Class, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Never placed.
    Noted,
    /// Off, or over.
    Over,
    /// It is on, and starts in the future or started less than a day ago.
    ToCome,
}

impl Weight {
    /// Of an appointment that was never placed, noted at `time_ms`.
    pub(super) const fn noted(time_ms: i64) -> Self {
        Self(Class::Noted, time_ms)
    }

    /// Of a visit with a start.
    pub(super) const fn placed(starts_at_ms: i64, is_open: bool, now_ms: i64) -> Self {
        if is_open && starts_at_ms > now_ms.saturating_sub(DAY_MS) {
            Self(Class::ToCome, -starts_at_ms)
        } else {
            Self(Class::Over, -(starts_at_ms - now_ms).abs())
        }
    }

    /// Whether it is that of a visit to come.
    pub(super) fn is_to_come(self) -> bool {
        self.0 == Class::ToCome
    }
}

/// A request for a reminder by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Id of the request's event.
    pub event_id: String,
    /// The reminder that it asks for.
    pub reminder_id: String,
    /// When it was asked for.
    pub at_ms: i64,
    /// Instead of the client's own channels.
    pub channels: Vec<Channel>,
    /// Instead of the configured template.
    pub template: Option<String>,
    /// See [`Request::idempotency_digest`].
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
    /// The client has answered it.
    Confirmed,
}

/// What became of a reminder by one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The reminder.
    pub reminder_id: String,
    /// How it was received.
    pub received: Received,
    /// By which channel; of a failure, none says all that were announced.
    pub channel: Option<Channel>,
    /// Event time of the first event that stated it.
    pub at_ms: i64,
    /// Event time of the last one.
    pub restated_at_ms: i64,
    /// Why it failed, at most 256 bytes of it.
    pub reason: Option<String>,
}

impl Appointment {
    /// Whether a booking at `time_ms` begins another visit under this id: this one has an older outcome, and a visit at the
    /// new start, which is another one, cannot have had it.
    pub fn is_left_by(&self, starts_at: &StartsAt, time_ms: i64) -> bool {
        let is_ahead = || {
            let start = Start::of(starts_at, self.zone_or("UTC".to_owned()));
            let is_there = self.start.as_ref().is_some_and(|own| own.at_ms == start.at_ms);
            !is_there && !start.admits(self.status, self.status_at_ms)
        };
        self.status.is_resolved() && time_ms > self.status_at_ms && is_ahead()
    }

    /// How much it matters at an instant if not all can be kept. In rising order: notes about appointments that were never
    /// placed, the oldest first; visits that are off or over, the farthest from the instant first; visits to come, the
    /// farthest ahead first.
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
            status: Status::Booked,
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

    /// The zone of the visit, or `zone` while it is not placed.
    pub(super) fn zone_or(&self, zone: String) -> String {
        self.start.as_ref().map_or(zone, |start| start.zone.clone())
    }

    /// Whole days from booking to visit, in the visit's zone; 0 where the start lies before the booking.
    pub fn lead_days(&self) -> Option<i32> {
        self.start.as_ref().map(|start| start.lead_days(self.booked_at_ms))
    }

    /// What a snapshot is taken of; none while it is not placed.
    pub fn subject<'a>(&'a self, id: &'a str) -> Option<Subject<'a>> {
        let (booked_at_ms, attributes) = (self.booked_at_ms, &self.attributes);
        Some(Subject { id: Some(id), start: self.start.as_ref()?, booked_at_ms, attributes })
    }

    /// The local day of a visit of which it is known how it went.
    pub(super) fn resolved_day(&self) -> Option<i64> {
        let start = self.start.as_ref().filter(|_| self.status.is_resolved())?;
        Some(start.day())
    }

    /// How the visit ended, by name; none while it is on, and of an appointment that was never placed.
    pub fn settled(&self) -> Option<&'static str> {
        self.start.as_ref()?;
        match self.status {
            Status::Booked | Status::Confirmed => None,
            Status::Cancelled if self.is_late_cancelled() => Some("late_cancelled"),
            Status::Cancelled | Status::Attended | Status::Missed | Status::Deleted => Some(self.status.name()),
        }
    }

    /// Whether it was called off within [`LATE_CANCEL_MS`] of its start, and not by the business.
    pub fn is_late_cancelled(&self) -> bool {
        let late = |start: &Start| self.status_at_ms > start.at_ms - LATE_CANCEL_MS;
        self.status == Status::Cancelled
            && self.cancelled_by.is_none_or(|named| named.by != CancelledBy::Business)
            && self.start.as_ref().is_some_and(late)
    }
}

fn seconds(local: jiff::civil::DateTime) -> i64 {
    zone::instant_ms(local, &jiff::tz::TimeZone::UTC).div_euclid(1000)
}
