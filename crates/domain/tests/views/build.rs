//! Short helpers for events and rows. Everything belongs to the tenant `t`; every event has its own id.

use foretell_domain::address::{RowKey, View};
use foretell_domain::view::client::{self, AppointmentFold, Client};
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::{Aggregate, Fold, Limits, RecordPosition};
use foretell_events::appointment::{
    AppointmentFact, AppointmentRef, Booking, Cancellation, CancelledBy, ClientUpdate, StartsAt,
};
use foretell_events::login::{Attempt, Login, LoginFact};
use foretell_events::{Envelope, Event, Fact, key};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;
pub const PARTITIONS: u32 = 4;

/// An instant, as in `2026-06-01T09:00:00Z`.
pub fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// An event with a unique id.
pub fn event(time_ms: i64, fact: Fact) -> Event {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("e{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Event { envelope: Envelope { id, source: "urn:test".into(), tenant: "t".into(), time_ms }, fact }
}

pub fn visit(id: &str, client_id: &str) -> AppointmentRef {
    AppointmentRef { appointment_id: id.into(), client_id: client_id.into() }
}

/// A booking of client `c` that starts at an instant, in a zone if one is named.
pub fn booking(id: &str, starts_at_ms: i64, zone: Option<&str>) -> Booking {
    Booking {
        appointment_id: id.into(),
        client_id: "c".into(),
        starts_at: StartsAt::Instant { at_ms: starts_at_ms, zone: zone.map(str::to_owned) },
        duration_minutes: None,
        location_id: None,
        practitioner_id: None,
        service: None,
        booked_at_ms: None,
        attributes: BTreeMap::new(),
    }
}

pub fn booked(id: &str, starts_at_ms: i64) -> Fact {
    AppointmentFact::Booked(Box::new(booking(id, starts_at_ms, Some("UTC")))).into()
}

pub fn rescheduled(id: &str, starts_at_ms: i64) -> Fact {
    AppointmentFact::Rescheduled(Box::new(booking(id, starts_at_ms, None))).into()
}

pub fn confirmed(id: &str) -> Fact {
    AppointmentFact::Confirmed(visit(id, "c")).into()
}

pub fn attended(id: &str) -> Fact {
    AppointmentFact::Attended(visit(id, "c")).into()
}

pub fn missed(id: &str) -> Fact {
    AppointmentFact::Missed(visit(id, "c")).into()
}

pub fn deleted(id: &str) -> Fact {
    AppointmentFact::Deleted(visit(id, "c")).into()
}

pub fn cancelled(id: &str, by: Option<CancelledBy>) -> Fact {
    AppointmentFact::Cancelled(Cancellation { appointment_id: id.into(), client_id: "c".into(), reason: None, by })
        .into()
}

pub fn updated(change: impl FnOnce(&mut ClientUpdate)) -> Fact {
    let mut update = ClientUpdate { client_id: "c".into(), ..ClientUpdate::default() };
    change(&mut update);
    AppointmentFact::ClientUpdated(Box::new(update)).into()
}

pub fn login(user_id: &str, succeeded: bool, attempt: Attempt) -> Fact {
    LoginFact::Attempted(Box::new(Login {
        user_id: user_id.into(),
        succeeded,
        attempt,
        decision_id: None,
        session_id: None,
        method: None,
        failure_reason: None,
    }))
    .into()
}

/// The rows of a family and the offsets of its partitions.
pub struct Views<F: Fold> {
    pub rows: Materialized<F>,
    offset: i64,
    partitions: u32,
}

impl<F: Fold> Views<F> {
    pub fn new(fold: F, partitions: u32) -> Self {
        Self { rows: Materialized::new(fold), offset: 0, partitions }
    }

    /// Folds an event in its partition; returns whether it changed anything.
    pub fn fold(&mut self, event: &Event) -> bool {
        let partition = key::partition(event.key().as_bytes(), self.partitions);
        self.offset += 1;
        self.rows.take(event, RecordPosition { partition, offset: self.offset })
    }

    pub fn all(mut self, events: impl IntoIterator<Item = (i64, Fact)>) -> Self {
        events.into_iter().for_each(|(time_ms, fact)| {
            self.fold(&event(time_ms, fact));
        });
        self
    }

    /// The aggregate rows of a view, decoded.
    pub fn aggregates(&self, view: View) -> Vec<(RowKey, u32, Aggregate)> {
        let of_view = self.rows.states().filter(|(key, source, _)| key.view == view && source.is_some());
        let decode = |(key, source, state): (&RowKey, Option<u32>, Vec<u8>)| {
            (key.clone(), source.unwrap(), Aggregate::decode(key, &state).unwrap())
        };
        of_view.map(decode).collect()
    }

    /// The aggregate rows that are not empty.
    pub fn shared(&self) -> BTreeMap<(RowKey, u32), Vec<u8>> {
        let rows = self.rows.states().filter_map(|(key, source, state)| Some(((key.clone(), source?), state)));
        rows.filter(|((key, _), state)| Aggregate::empty(key).unwrap().encode() != *state).collect()
    }
}

/// The views of appointments, after these facts at these times.
pub fn appointments(events: impl IntoIterator<Item = (i64, Fact)>) -> Views<AppointmentFold> {
    Views::new(AppointmentFold::default(), PARTITIONS).all(events)
}

/// The same with other limits.
pub fn limited(limits: Limits, events: impl IntoIterator<Item = (i64, Fact)>) -> Views<AppointmentFold> {
    Views::new(AppointmentFold { limits }, PARTITIONS).all(events)
}

impl Views<AppointmentFold> {
    pub fn client(&self, client_id: &str) -> Client {
        self.rows.owner(&client::row_key("t", client_id)).cloned().unwrap_or_default()
    }
}
