//! One appointment of a client: when it starts, where it stands, and who decided that.
//!
//! The start is kept as it was meant, a wall-clock time and a zone, beside the instant that follows from both, so that
//! reminders can name the time on the clock of the visit and leads count calendar days there.

use super::attribute::Attributes;
use super::snapshot::{Snapshot, Subject};
use crate::event::appointment::{CancelledBy, Channel, StartsAt};
use crate::event::codec::bounds::TIME_MS_END;
use crate::event::zone;
use crate::view::lookup::Standing;
use serde::{Deserialize, Serialize};

/// A cancellation closer than this to the start is a late one.
pub const LATE_CANCEL_MS: i64 = 24 * 60 * 60 * 1000;
const DAY_S: i64 = 24 * 60 * 60;

/// Where an appointment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Status {
    /// How near it is to a visit that takes place.
    pub(super) const fn standing(self) -> Standing {
        match self {
            Self::Booked | Self::Confirmed => Standing::On,
            Self::Attended | Self::Missed => Standing::Over,
            Self::Cancelled | Self::Deleted => Standing::Off,
        }
    }

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
    /// The wall-clock time, in seconds as if it were UTC; with the zone, what was meant.
    pub local_s: i64,
    /// IANA zone of the visit.
    pub zone: String,
    /// The instant that both give under the bundled zone rules.
    pub at_ms: i64,
}

impl Start {
    /// The start that was meant; `fallback` is the zone where `starts_at` names none.
    pub fn of(starts_at: &StartsAt, fallback: String) -> Self {
        match starts_at {
            StartsAt::Local { local, zone } => {
                let at_ms = zone::get(zone).map_or(0, |rules| zone::instant_ms(*local, &rules));
                // Within the years that events have, under other rules for the zone too: it is announced as it is.
                let at_ms = at_ms.clamp(0, TIME_MS_END - 1);
                Self { local_s: seconds(*local), zone: zone.clone(), at_ms }
            }
            StartsAt::Instant { at_ms, zone } => {
                let zone = zone.clone().unwrap_or(fallback);
                let rules = zone::get(&zone).unwrap_or(jiff::tz::TimeZone::UTC);
                Self { local_s: seconds(zone::local(*at_ms, &rules)), zone, at_ms: *at_ms }
            }
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
    /// Where it stands.
    pub status: Status,
    /// Event time of what decided the status.
    pub status_at_ms: i64,
    /// Id of the event that decided the start: what its reminders are caused by.
    pub placed_by: String,
    /// Id of the event that decided the status.
    pub status_by: String,
    /// Who called it off, where that was said.
    pub cancelled_by: Option<CancelledBy>,
    /// Times that it was moved.
    pub rescheduled: u32,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// When.
    pub at_ms: i64,
    /// Why it failed, at most 256 bytes of it.
    pub reason: Option<String>,
}

impl Appointment {
    /// Whether its outcome is older than this time: what places it then begins another visit.
    pub const fn is_over_at(&self, time_ms: i64) -> bool {
        self.status.is_resolved() && time_ms > self.status_at_ms
    }

    pub(super) fn unplaced(time_ms: i64) -> Self {
        Self {
            start: None,
            booked_at_ms: time_ms,
            placed_at_ms: i64::MIN,
            status: Status::Booked,
            status_at_ms: i64::MIN,
            placed_by: String::new(),
            status_by: String::new(),
            cancelled_by: None,
            rescheduled: 0,
            requests: Vec::new(),
            receipts: Vec::new(),
            service: None,
            location_id: None,
            attributes: Attributes::default(),
            snapshot: None,
        }
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

    /// When that was decided which an event of `status` must not be older than. A confirmation confirms a booking and
    /// decides nothing else, so that what an older event says of the visit still holds.
    pub(super) fn decided_at_ms(&self, status: Status) -> i64 {
        if self.status == Status::Confirmed && status != Status::Confirmed {
            self.placed_at_ms
        } else {
            self.status_at_ms
        }
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
            && self.cancelled_by != Some(CancelledBy::Business)
            && self.start.as_ref().is_some_and(late)
    }
}

fn seconds(local: jiff::civil::DateTime) -> i64 {
    zone::instant_ms(local, &jiff::tz::TimeZone::UTC).div_euclid(1000)
}
