//! Replays a history, with a callback at each instant at which a visit would be scored.
//!
//! ```text
//!  events by time ─┬─► what is due: 24 hours before a start ───┐
//!                  ├─► a booking, just before it is folded ────┼─► Moment: rows as they are, nothing later
//!                  └─► fold ─► rows
//! ```
//!
//! Backtests score these moments and training uses them, so both see the data that an answer would have been computed
//! from. Each visit has each moment once, and a visit is an appointment at one start: a rescheduled one has the moments
//! of its new start as well, and one that is booked again after its outcome is a new visit.

use foretell_domain::view::client::attribute::Attributes;
use foretell_domain::view::client::snapshot::{Snapshot, Subject};
use foretell_domain::view::client::{self, Appointment, AppointmentFold, Client, Start};
use foretell_domain::view::lead::Lead;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::outcome::{self, DayOutcomes};
use foretell_domain::view::{Aggregate, Limits, Merge, RecordPosition};
use foretell_events::appointment::{AppointmentFact, Booking};
use foretell_events::time::DAY_MS;
use foretell_events::{Event, Fact, key};
use std::collections::{BTreeSet, HashSet};

/// The moment at which an appointment is scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// Just before its first booking is folded, or the booking that follows an outcome.
    #[default]
    Booking,
    /// 24 hours before it starts, or at the booking if that is later; only if the lead is a day or more, and the visit
    /// has not been cancelled. In a file without times of day this is 00:00 of the day before.
    DayBefore,
}

impl At {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::DayBefore => "24h",
        }
    }

    /// The moment with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Booking, Self::DayBefore].into_iter().find(|at| at.name() == name)
    }
}

/// An appointment among those of all tenants and clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The tenant.
    pub tenant: String,
    /// The client.
    pub client_id: String,
    /// The appointment.
    pub appointment_id: String,
}

impl Id {
    /// The appointment of an event, if it has one.
    pub fn of(event: &Event) -> Option<Self> {
        let Fact::Appointment(fact) = &event.fact else { return None };
        let appointment_id = client::appointment_id(fact)?.to_owned();
        let (tenant, client_id) = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        Some(Self { tenant, client_id, appointment_id })
    }
}

/// An appointment at one start: after a reschedule it is another visit, and so is a make-up visit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrainingVisit {
    /// The appointment.
    pub id: Id,
    /// The start.
    pub starts_at_ms: i64,
}

/// An instant at which a visit would be scored.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The visit.
    pub visit: &'a TrainingVisit,
    /// The kind of moment.
    pub at: At,
    /// The instant.
    pub at_ms: i64,
    /// When it was booked.
    pub booked_at_ms: i64,
    /// What is known of it.
    pub snapshot: Snapshot,
    /// The client's row; none if the client is new.
    pub client: Option<&'a Client>,
    /// The tenant's outcomes by lead.
    pub lead: Lead,
}

/// A moment that is due, without what the rows contain.
struct Due {
    visit: TrainingVisit,
    at: At,
    at_ms: i64,
    booked_at_ms: i64,
}

/// The rows so far, and the times of the next moments.
pub struct Replay {
    rows: Materialized<AppointmentFold>,
    limits: Limits,
    partitions: u32,
    moments: Vec<At>,
    had: HashSet<(TrainingVisit, At)>,
    due: BTreeSet<(i64, Id)>,
}

impl Replay {
    /// A replay with these moments, of a log with this many partitions (0 means 1): limits of rows apply to each.
    pub fn new(limits: Limits, partitions: u32, moments: &[At]) -> Self {
        let rows = Materialized::new(AppointmentFold { limits: limits.clone() });
        Self { rows, limits, partitions, moments: moments.to_vec(), had: HashSet::new(), due: BTreeSet::new() }
    }

    /// Folds the next event, after the moments that are due before it.
    pub fn take(&mut self, event: &Event, offset: i64, emit: &mut dyn FnMut(&Self, Moment<'_>)) {
        // What happens at the time of a score is known by then.
        self.until(event.envelope.time_ms, emit);
        let id = Id::of(event);
        if let (Some(id), Some(booking)) = (&id, self.begun_by(event)) {
            self.booking(id, booking, event.envelope.time_ms, emit);
        }
        let key = key::of(&event.envelope.tenant, event.fact.subject());
        self.rows.take(event, RecordPosition { partition: key::partition(key.as_bytes(), self.partitions), offset });
        let Some(id) = id.filter(|_| self.moments.contains(&At::DayBefore)) else { return };
        if matches!(event.fact, Fact::Appointment(AppointmentFact::Booked(_) | AppointmentFact::Rescheduled(_))) {
            let moment = self.appointment(&id).and_then(day_before);
            self.due.extend(moment.map(|at_ms| (at_ms, id)));
        }
    }

    /// Handles the moments that are due before `now_ms`, unless the visit was cancelled or moved to another day.
    pub fn until(&mut self, now_ms: i64, emit: &mut dyn FnMut(&Self, Moment<'_>)) {
        while let Some((at_ms, id)) = self.due.pop_first() {
            if at_ms >= now_ms {
                self.due.insert((at_ms, id));
                return;
            }
            let is_on = |visit: &&Appointment| visit.status.is_open() && day_before(visit) == Some(at_ms);
            let Some(visit) = self.appointment(&id).filter(is_on) else { continue };
            let booked_at_ms = visit.booked_at_ms;
            let Some(subject) = visit.subject(&id.appointment_id) else { continue };
            let starts_at_ms = subject.start.at_ms;
            let snapshot = Snapshot::of(self.client(&id), subject, at_ms);
            let visit = TrainingVisit { id, starts_at_ms };
            self.emit(Due { visit, at: At::DayBefore, at_ms, booked_at_ms }, snapshot, emit);
        }
    }

    /// The booking of an event, if it begins a visit: if the appointment is not placed, or has an outcome that is older
    /// than the start. Otherwise the event moves the visit, or restates its start.
    fn begun_by<'e>(&self, event: &'e Event) -> Option<&'e Booking> {
        let placed = Id::of(event).and_then(|id| self.appointment(&id)).filter(|visit| visit.start.is_some());
        match (&event.fact, placed) {
            (Fact::Appointment(AppointmentFact::Booked(booking)), None) => Some(booking),
            (
                Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking)),
                Some(visit),
            ) => visit.is_replaced_by(&booking.starts_at, event.envelope.time_ms).then_some(booking),
            _ => None,
        }
    }

    fn booking(&mut self, id: &Id, booking: &Booking, time_ms: i64, emit: &mut dyn FnMut(&Self, Moment<'_>)) {
        if !self.moments.contains(&At::Booking) {
            return;
        }
        let left = self.appointment(id).and_then(|left| left.start.as_ref());
        let zone = left.map(|start| start.zone.clone()).or_else(|| self.client(id)?.time_zone.clone());
        let zone = zone.unwrap_or_else(|| self.limits.time_zone_default.clone());
        let booked_at_ms = booking.booked_at_ms.unwrap_or(time_ms);
        let (start, attributes) = (Start::of(&booking.starts_at, zone), Attributes::of_booking(booking));
        // If the id belongs to a visit that this one makes up for, its row describes the other visit.
        let id_of = Some(id.appointment_id.as_str()).filter(|_| left.is_none());
        let subject = Subject { id: id_of, start: &start, booked_at_ms, attributes: &attributes };
        let snapshot = Snapshot::of(self.client(id), subject, time_ms);
        let visit = TrainingVisit { id: id.clone(), starts_at_ms: start.at_ms };
        self.emit(Due { visit, at: At::Booking, at_ms: time_ms, booked_at_ms }, snapshot, emit);
    }

    fn emit(&mut self, due: Due, snapshot: Snapshot, emit: &mut dyn FnMut(&Self, Moment<'_>)) {
        let Due { visit, at, at_ms, booked_at_ms } = due;
        if !self.had.insert((visit.clone(), at)) {
            return;
        }
        let (visit, client, lead) = (&visit, self.client(&visit.id), self.rows.lead(&visit.id.tenant));
        emit(self, Moment { visit, at, at_ms, booked_at_ms, snapshot, client, lead });
    }

    /// The row of a visit's client.
    pub fn client(&self, id: &Id) -> Option<&Client> {
        self.rows.owner(&client::row_key(&id.tenant, &id.client_id))
    }

    /// The visit of an event that was just folded, as in its row; none while it is not placed.
    pub fn visit(&self, event: &Event) -> Option<(TrainingVisit, &Appointment)> {
        let id = Id::of(event)?;
        let appointment = self.appointment(&id)?;
        let starts_at_ms = appointment.start.as_ref()?.at_ms;
        Some((TrainingVisit { id, starts_at_ms }, appointment))
    }

    /// An appointment as in its row.
    fn appointment(&self, id: &Id) -> Option<&Appointment> {
        self.client(id)?.appointments.get(&id.appointment_id).map(Box::as_ref)
    }

    /// A tenant's outcomes of a local day, if there are any.
    pub fn outcomes(&self, tenant: &str, day: i64) -> Option<DayOutcomes> {
        let key = outcome::row_key(tenant, day);
        let mut all: Option<DayOutcomes> = None;
        for partial in self.rows.partials(&key) {
            if let Aggregate::Outcome(partial) = partial {
                all.get_or_insert_default().merge(partial);
            }
        }
        all
    }
}

/// See [`At::DayBefore`]; none for a visit on the day of its booking.
fn day_before(visit: &Appointment) -> Option<i64> {
    let start = visit.start.as_ref().filter(|_| visit.lead_days() >= Some(1))?;
    Some(visit.booked_at_ms.max(start.at_ms - DAY_MS))
}
