//! What was known about a visit at one instant: everything that a score may use, and nothing that came later.
//!
//! The fold takes one of each visit at the event that determined its start, from the client's row at that moment, and
//! keeps it as long as the visit: with the outcome, the two are a sample for calibration. Scores at any other instant
//! take theirs from the current row. Both use this one function, so a model only gets inputs of the kind that it was
//! trained on.

use super::attribute::Attributes;
use super::{Client, Start};
use crate::view::lead;
use foretell_events::time::DAY_MS;
use foretell_events::zone;
use serde::{Deserialize, Serialize};

const DAY_S: i64 = 24 * 60 * 60;

/// A visit as seen at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whole days from booking to visit, in the visit's zone.
    pub lead_days: u16,
    /// Hour of the booking, 0 to 23, in the visit's zone.
    pub booking_hour: u8,
    /// Day of the visit: 0 is Monday.
    pub weekday: u8,
    /// Days with a known outcome by lead bucket; several visits on one day count as one.
    pub visits: [u16; lead::BUCKETS.len()],
    /// The missed ones among them.
    pub missed: u16,
    /// Days from the last missed visit to this one.
    pub missed_days_ago: Option<u16>,
    /// Other booked visits on the same local day.
    pub same_day: u16,
    /// Other booked visits on other days that are not over.
    pub open: u16,
    /// Other visits without a reported outcome a day after their start.
    pub unresolved: u16,
    /// Visits cancelled early.
    pub cancelled: u16,
    /// Visits cancelled late.
    pub late_cancelled: u16,
    /// How often other visits were moved.
    pub moved_others: u16,
    /// How often this one was moved.
    pub moved: u16,
    /// Whether the client confirmed it.
    pub is_confirmed: bool,
    /// Attributes of the client that the booking does not have.
    pub of_client: Attributes,
    /// Attributes of the booking.
    pub of_booking: Attributes,
}

/// The visit that a snapshot is of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its appointment id; none if it is only considered.
    pub id: Option<&'a str>,
    /// When it starts.
    pub start: &'a Start,
    /// When it was, or would be, booked.
    pub booked_at_ms: i64,
    /// Its attributes, including service and location.
    pub attributes: &'a Attributes,
}

impl Snapshot {
    /// The snapshot of a visit at the instant `now_ms`, by the row of the client; none for a client never seen.
    pub fn of(client: Option<&Client>, visit: Subject<'_>, now_ms: i64) -> Self {
        let mut snapshot = Self::of_booking(visit);
        let Some(client) = client else { return snapshot };
        for (known, outcomes) in snapshot.visits.iter_mut().zip(client.days) {
            *known = small(outcomes.visits());
        }
        snapshot.missed = small(client.days.iter().map(|outcomes| outcomes.missed.max(0)).sum());
        let ago = |missed_ms: i64| small((visit.start.at_ms - missed_ms).div_euclid(DAY_MS));
        snapshot.missed_days_ago = client.last_missed_ms().map(ago);
        snapshot.count_others(client, visit, now_ms);
        let own = visit.id.and_then(|id| client.appointments.get(id));
        let moved = own.map_or(0, |own| i64::from(own.rescheduled));
        snapshot.cancelled = small(client.history.cancelled);
        snapshot.late_cancelled = small(client.history.late_cancelled);
        snapshot.moved = small(moved);
        snapshot.moved_others = small(client.history.rescheduled - moved);
        snapshot.is_confirmed = own.is_some_and(|own| own.status == super::AppointmentStatus::Confirmed);
        snapshot.of_client = client.attributes.without(visit.attributes);
        snapshot
    }

    fn of_booking(visit: Subject<'_>) -> Self {
        let rules = zone::get(&visit.start.zone).unwrap_or(jiff::tz::TimeZone::UTC);
        Self {
            lead_days: small(visit.start.lead_days(visit.booked_at_ms).into()),
            booking_hour: zone::local(visit.booked_at_ms, &rules).hour().unsigned_abs(),
            weekday: visit.start.local().weekday().to_monday_zero_offset().unsigned_abs(),
            of_booking: visit.attributes.clone(),
            ..Self::default()
        }
    }

    fn count_others(&mut self, client: &Client, visit: Subject<'_>, now_ms: i64) {
        let day = visit.start.local_s.div_euclid(DAY_S);
        let others =
            client.appointments.iter().filter(|(id, other)| visit.id != Some(id.as_str()) && other.status.is_open());
        for start in others.filter_map(|(_, other)| other.start.as_ref()) {
            let count = match start.local_s.div_euclid(DAY_S) {
                same if same == day => &mut self.same_day,
                _ if start.at_ms + DAY_MS < now_ms => &mut self.unresolved,
                _ => &mut self.open,
            };
            *count = count.saturating_add(1);
        }
    }

    /// Days with a known outcome, over all leads.
    pub fn known_visits(&self) -> u32 {
        self.visits.iter().map(|visits| u32::from(*visits)).sum()
    }

    /// The lead bucket of the visit.
    pub fn lead_bucket(&self) -> u8 {
        lead::bucket(i32::from(self.lead_days))
    }
}

/// A count in the range of a row: from 0 to 65,535.
fn small(count: i64) -> u16 {
    count.clamp(0, i64::from(u16::MAX)) as u16
}
