//! The owner row of appointments: a client, their appointments, and how they kept them.
//!
//! What each event does:
//! - **booked** and **rescheduled** place an appointment; the one with the later event time decides its start. A
//!   reschedule keeps the booked zone where it names none. One of an appointment never seen books it, for events
//!   come out of order. One of a visit with an older outcome begins a new visit: the old outcome stays.
//! - **confirmed**, **cancelled**, **attended**, **missed** set its status; of two, the later event time decides,
//!   and a confirmation never undoes any of the others, whichever is the later. A corrected outcome takes out what the first one had put in.
//! - **deleted** takes everything out again that the appointment had put in; the row remembers that it was deleted,
//!   so that an older booking which arrives later does not bring it back.
//! - a status of an appointment that was never placed, or that is forgotten, is noted and counts nothing until a
//!   booking of it arrives.
//! - **delivered**, **failed** say what became of a reminder, channel by channel, the later event time deciding; the
//!   plan answers a failure with the channels that are left. **confirmed by client** is an answer to a reminder: it
//!   was delivered, and the appointment is confirmed.
//! - **updated** changes the fields that it names, each unless a later event named it; **requested** asks for a reminder by hand.
//! - **erased** empties the row, takes out its look-up and agenda entries and what was known of visits with an
//!   outcome; a tenant's counts stay.
//!
//! For the tenant's rates several visits of one client on one day (of their zone) count once: as attended if any
//! was attended. The history counts appointments. What a visit has counted stays when it is forgotten or begins anew,
//! and the row remembers how its day counted, so that another visit of that day does not count it twice; of the
//! latest [`SETTLED_DAYS_MAX`] such days.

mod appointment;
pub mod attribute;
mod change;
mod scribe;
pub mod snapshot;

pub use appointment::{Appointment, Asked, LATE_CANCEL_MS, Receipt, Received, Start, Status};

use super::lead::{self, Outcomes};
use super::recent::Recent;
use super::{Contribution, Fold, Limits, Outcome, Place, Skip};
use crate::event::appointment::{Consent, QuietHours};
use crate::event::reminder::Feedback;
use crate::event::{Envelope, Event, Fact, key};
use crate::store::{Family, RowKey, View};
use attribute::Attributes;
use scribe::Scribe;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long a request by hand may wait for its announcement.
pub const REQUEST_EXPIRES_MS: i64 = 24 * 60 * 60 * 1000;
/// Days kept whose count outlived their visits; the earliest is forgotten first.
pub const SETTLED_DAYS_MAX: usize = 32;

/// The state of a client's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Repetitions.
    pub recent: Recent,
    /// How they kept their appointments.
    pub history: History,
    /// Kept and missed days by lead bucket, for the no-shows that the tenant's rates would expect.
    pub days: [Outcomes; lead::BUCKETS.len()],
    /// How the local days (since the epoch) count that had visits which are not kept any more: lead bucket, missed.
    pub settled_days: BTreeMap<i64, (u8, bool)>,
    /// Day and hash of the samples of visits that are not kept any more, see [`outcome`](super::outcome): at most
    /// [`SETTLED_DAYS_MAX`].
    pub left_samples: BTreeSet<(i64, u64)>,
    /// The latest missed start among the appointments that are not kept any more.
    pub forgotten_missed_ms: Option<i64>,
    /// By appointment id.
    pub appointments: BTreeMap<String, Appointment>,
    /// IANA zone, where they said so.
    pub time_zone: Option<String>,
    /// BCP 47 tag, where they said so.
    pub language: Option<String>,
    /// How they may be reached; none: they were never asked.
    pub channels: Option<Vec<Consent>>,
    /// When not to send, where they said so.
    pub quiet_hours: Option<QuietHours>,
    /// What the tenant tells of them besides.
    pub attributes: Attributes,
    /// When the profile above was last changed.
    pub updated_at_ms: Option<i64>,
    /// When each of its fields was, because updates that come out of order may name different ones.
    pub updated: Updated,
    /// When everything before was forgotten.
    pub erased_at_ms: Option<i64>,
}

/// Event times of what decided the fields of a profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// Of [`Client::time_zone`].
    pub time_zone_ms: Option<i64>,
    /// Of [`Client::language`].
    pub language_ms: Option<i64>,
    /// Of [`Client::channels`].
    pub channels_ms: Option<i64>,
    /// Of [`Client::quiet_hours`].
    pub quiet_hours_ms: Option<i64>,
    /// Of [`Client::attributes`].
    pub attributes_ms: Option<i64>,
}

/// How a client kept their appointments. Signed, because corrections take out what they had put in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Appointments that they came to.
    pub attended: i64,
    /// Appointments that they did not come to.
    pub missed: i64,
    /// Appointments called off in time, or by the business.
    pub cancelled: i64,
    /// Appointments called off within [`LATE_CANCEL_MS`] of their start.
    pub late_cancelled: i64,
    /// Times that an appointment was moved.
    pub rescheduled: i64,
}

impl Client {
    /// The latest start that was missed, of all that is not corrected.
    pub fn last_missed_ms(&self) -> Option<i64> {
        let missed = self.appointments.values().filter(|a| a.status == Status::Missed);
        missed.filter_map(|a| a.start.as_ref().map(|start| start.at_ms)).max().max(self.forgotten_missed_ms)
    }

    /// The appointment to forget before another one comes: over ones first, then the one that starts first.
    fn first_to_forget(&self) -> Option<String> {
        let rank = |a: &Appointment| (a.status.is_open() && a.start.is_some(), a.start.as_ref().map(|s| s.at_ms));
        self.appointments.iter().min_by_key(|(id, a)| (rank(a), *id)).map(|(id, _)| id.clone())
    }
}

/// Which appointment an event is about.
pub fn appointment_id(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Booked(booking) | Fact::Rescheduled(booking) => Some(&booking.appointment_id),
        Fact::Confirmed(visit) | Fact::Attended(visit) | Fact::Missed(visit) | Fact::Deleted(visit) => {
            Some(&visit.appointment_id)
        }
        Fact::Cancelled(cancellation) => Some(&cancellation.appointment_id),
        Fact::ReminderRequested(request) => Some(&request.appointment_id),
        Fact::ReminderDelivered(feedback) | Fact::ReminderFailed(feedback) | Fact::ConfirmedByClient(feedback) => {
            Some(&feedback.appointment_id)
        }
        _ => None,
    }
}

/// The fold of the appointments topic.
#[derive(Debug, Clone, Default)]
pub struct Appointments {
    /// What it depends on besides the log.
    pub limits: Limits,
}

/// Contributions of one event: they depend on what the row was before, so they are the decision itself.
pub type Decision = Vec<Contribution>;

impl Appointments {
    fn change(&self, client: &mut Client, event: &Event, kept_zone: Option<String>) {
        let time_ms = event.envelope.time_ms;
        let zone = || kept_zone.or_else(|| client.time_zone.clone()).unwrap_or(self.limits.time_zone_default.clone());
        match &event.fact {
            Fact::Booked(booking) => {
                let zone = zone();
                client.book(booking, &event.envelope, zone);
            }
            Fact::Rescheduled(booking) => {
                let zone = zone();
                client.reschedule(booking, &event.envelope, zone);
            }
            Fact::Confirmed(visit) => {
                client.set_status(&visit.appointment_id, &event.envelope, Status::Confirmed, None);
            }
            Fact::Attended(visit) => client.set_status(&visit.appointment_id, &event.envelope, Status::Attended, None),
            Fact::Missed(visit) => client.set_status(&visit.appointment_id, &event.envelope, Status::Missed, None),
            Fact::Deleted(visit) => client.set_status(&visit.appointment_id, &event.envelope, Status::Deleted, None),
            Fact::Cancelled(c) => client.set_status(&c.appointment_id, &event.envelope, Status::Cancelled, c.by),
            Fact::ClientUpdated(update) => client.update(update, time_ms),
            Fact::ReminderRequested(request) => {
                client.ask(request, &event.envelope, self.limits.appointment_requests_max);
            }
            Fact::ReminderDelivered(feedback) => self.hear(client, feedback, &event.envelope, Received::Delivered),
            Fact::ReminderFailed(feedback) => self.hear(client, feedback, &event.envelope, Received::Failed),
            Fact::ConfirmedByClient(feedback) => {
                self.hear(client, feedback, &event.envelope, Received::Confirmed);
                client.set_status(&feedback.appointment_id, &event.envelope, Status::Confirmed, None);
            }
            _ => {}
        }
    }

    fn hear(&self, client: &mut Client, feedback: &Feedback, envelope: &Envelope, received: Received) {
        client.hear(feedback, envelope, received, self.limits.appointment_receipts_max);
    }

    /// Makes room for the appointment of an event, and lets go of an outcome that a reschedule leaves behind; answers
    /// the zone of the visit that was left.
    fn make_room(&self, client: &mut Client, event: &Event, scribe: &mut Scribe<'_>) -> Option<String> {
        let id = appointment_id(&event.fact)?;
        let mut kept_zone = None;
        let places = matches!(event.fact, Fact::Booked(_) | Fact::Rescheduled(_));
        let is_over = |a: &Appointment| places && a.is_over_at(event.envelope.time_ms);
        if client.appointments.get(id).is_some_and(is_over) {
            kept_zone = scribe.release(client, id).and_then(|left| left.start).map(|start| start.zone);
        }
        if !client.appointments.contains_key(id)
            && client.appointments.len() >= self.limits.client_appointments_max
            && let Some(forgotten) = client.first_to_forget()
        {
            scribe.release(client, &forgotten);
        }
        kept_zone
    }

    fn erase(client: &mut Client, time_ms: i64, scribe: &mut Scribe<'_>) {
        for id in client.appointments.keys().cloned().collect::<Vec<_>>() {
            scribe.release(client, &id);
        }
        scribe.forget_samples(client);
        *client = Client { erased_at_ms: Some(time_ms), ..Client::default() };
    }
}

impl Fold for Appointments {
    type Owner = Client;
    type Decision = Decision;
    const FAMILY: Family = Family::Appointments;
    const OWNER: View = View::Client;

    fn fold(&self, client: &mut Client, event: &Event, place: Place) -> Outcome<Decision> {
        let time_ms = event.envelope.time_ms;
        if client.erased_at_ms.is_some_and(|erased| time_ms <= erased) {
            return Outcome::Skipped(Skip::Erased);
        }
        if !client.recent.insert(event.fingerprint()) {
            return Outcome::Skipped(Skip::Repeated);
        }
        let mut scribe = Scribe::new(event, place);
        if matches!(event.fact, Fact::ClientErased { .. }) {
            Self::erase(client, time_ms, &mut scribe);
            return Outcome::Applied(scribe.finish());
        }
        let kept_zone = self.make_room(client, event, &mut scribe);
        let id = appointment_id(&event.fact);
        let before = id.and_then(|id| client.appointments.get(id)).cloned();
        self.change(client, event, kept_zone);
        if let Some(id) = id {
            scribe.difference(client, id, before.as_ref());
        }
        Outcome::Applied(scribe.finish())
    }

    fn settled(client: &Client, event: &Event) -> Option<&'static str> {
        let appointment = client.appointments.get(appointment_id(&event.fact)?)?;
        let is_by_this = appointment.status_by == event.envelope.id;
        appointment.settled().filter(|_| is_by_this)
    }

    fn contributions(&self, _: &Event, decision: &Decision, _: Place) -> Vec<Contribution> {
        decision.clone()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The address of a client's row.
pub fn row_key(tenant: &str, client_id: &str) -> RowKey {
    RowKey::hashed(View::Client, key::of(tenant, client_id))
}
