//! The owner row of appointments: a client, their appointments, and how they kept them.
//!
//! What each event does:
//! - **booked** and **rescheduled** place an appointment; the one with the later event time determines its start. A
//!   reschedule without a zone keeps the booked one. A reschedule of an unknown appointment books it, because events
//!   can arrive out of order. A booking or reschedule of a cancelled visit reinstates it if the stated start is in the
//!   future. For a visit with an older outcome it begins a new visit if a visit at its start cannot have had that
//!   outcome, and the old outcome stays; any other start corrects that of the visit that is over.
//! - **confirmed**, **cancelled**, **attended**, **missed** set its status. Of two, the one with the later event time
//!   wins, but a confirmation never replaces any of the others, even if it is later. A corrected outcome subtracts what
//!   the first one added. A visit cannot be missed before its start, nor attended before its day: such an outcome is
//!   skipped as impossible and not remembered, because after a late reschedule the same event may be right.
//! - **deleted** subtracts everything that the appointment added. The row remembers the deletion, so that an older
//!   booking that arrives later does not restore it.
//! - a status of an appointment that was never placed, or was forgotten, is noted and counts nothing until a booking of
//!   it arrives.
//! - **delivered**, **failed** are receipts of a reminder, for each channel; the one with the later event time wins.
//!   The plan responds to a failure with the remaining channels. **confirmed by client** is a response to a reminder:
//!   the reminder was delivered, and the appointment is confirmed.
//! - **updated** changes the fields that it contains, unless a later event changed them; **requested** requests a
//!   reminder on demand.
//! - **erased** empties the row, and removes its look-up and agenda entries and the samples of visits with an outcome;
//!   a tenant's counts stay.
//!
//! An event that restates the current state changes nothing, with any id and however often it is sent: the start of a
//! visit (unless it was cancelled and is in the future), its status, the fields of a profile, the receipt of a
//! reminder.
//!
//! A full row forgets the least important entries, relative to the latest event time that it has seen: notes about
//! appointments that were never placed, then visits that are cancelled or over, the farthest from that time first, then
//! future visits, the farthest ahead first. If that is the appointment of the event itself, the event is skipped.
//!
//! For the tenant's rates several visits of one client on one day (in the zone of each visit) count once: as attended
//! if any was attended. The history counts appointments. The counts of a visit stay when it is forgotten or a new visit
//! with its id begins, and the row remembers how its day counted, so that another visit on that day does not count it
//! twice; at most the latest [`SETTLED_DAYS_MAX`] such days.

mod appointment;
pub mod attribute;
mod change;
mod contributions;
mod placements;
pub mod snapshot;

pub use appointment::{
    Appointment, AppointmentStatus, Canceller, OnDemandRequest, RESOLVED_AS, Receipt, Received, RevertedCancellation,
    Start,
};
pub use placements::{Placement, Placements};

use super::lead::{self, Outcomes};
use super::recent::RecentEvents;
use super::{Contribution, Fold, FoldOutcome, Limits, RecordPosition, Skip};
use crate::address::{Family, RowKey, View};
use appointment::Weight;
use attribute::Attributes;
use change::Placing;
use contributions::{ContributionBuilder, Footprint};
use foretell_events::appointment::{AppointmentFact, AppointmentRef, Booking, Consent, QuietHours};
use foretell_events::reminder::Feedback;
use foretell_events::{Envelope, Event, Fact, key};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long an on-demand request may wait for its announcement.
pub const REQUEST_EXPIRES_MS: i64 = 24 * 60 * 60 * 1000;
/// Days that are kept after their visits were forgotten; the earliest is forgotten first.
pub(crate) const SETTLED_DAYS_MAX: usize = 32;

/// The state of a client's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The latest events, by which repetitions are recognised.
    pub recent: RecentEvents,
    /// The latest event time, which separates past from future when not all appointments can be kept.
    pub latest_ms: i64,
    /// How the client kept their appointments.
    pub history: ClientHistory,
    /// Kept and missed days by lead bucket, to compute how many no-shows the tenant's rates predict.
    pub days: [Outcomes; lead::BUCKETS.len()],
    /// How local days (since the epoch) count whose visits are no longer kept: lead bucket, missed.
    pub settled_days: BTreeMap<i64, (u8, bool)>,
    /// Day and hash of the samples of visits that are no longer kept, see [`outcome`](super::outcome): at most
    /// [`SETTLED_DAYS_MAX`].
    pub left_samples: BTreeSet<(i64, u64)>,
    /// The latest missed start among the appointments that are no longer kept.
    pub forgotten_missed_ms: Option<i64>,
    /// By appointment id. Most clients have one or two, and a map node has space for eleven values; they are boxed to
    /// keep nodes small.
    pub appointments: BTreeMap<String, Box<Appointment>>,
    /// IANA zone, if known.
    pub time_zone: Option<String>,
    /// BCP 47 tag, if known.
    pub language: Option<String>,
    /// Consents by channel; none if none were ever stored.
    pub channels: Option<Vec<Consent>>,
    /// When not to send, if known.
    pub quiet_hours: Option<QuietHours>,
    /// Further attributes from the tenant.
    pub attributes: Attributes,
    /// When the profile above was last changed.
    pub updated_at_ms: Option<i64>,
    /// When each of its fields was last changed, because updates that arrive out of order may contain different ones.
    pub updated: Updated,
    /// When everything before was forgotten.
    pub erased_at_ms: Option<i64>,
}

/// Event times of the events that determined the fields of a profile.
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

/// How a client kept their appointments. Signed, because corrections subtract what was added before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHistory {
    /// Appointments that they came to.
    pub attended: i64,
    /// Appointments that they did not come to.
    pub missed: i64,
    /// Appointments cancelled in time, or by the business.
    pub cancelled: i64,
    /// Appointments cancelled within [`appointment::LATE_CANCEL_MS`] before their start or later, by the client.
    pub late_cancelled: i64,
    /// How often appointments were moved.
    pub rescheduled: i64,
}

impl Client {
    /// The latest missed start, unless it was corrected.
    pub fn last_missed_ms(&self) -> Option<i64> {
        let missed = self.appointments.values().filter(|a| a.status == AppointmentStatus::Missed);
        missed.filter_map(|a| a.start.as_ref().map(|start| start.at_ms)).max().max(self.forgotten_missed_ms)
    }

    /// Every appointment with its id, in the order of ids.
    pub fn visits(&self) -> impl Iterator<Item = (&str, &Appointment)> {
        self.appointments.iter().map(|(id, visit)| (id.as_str(), visit.as_ref()))
    }

    /// Whether an event states an outcome that its visit cannot have at that time.
    fn is_impossible(&self, fact: &AppointmentFact, time_ms: i64) -> bool {
        let (visit, status) = match fact {
            AppointmentFact::Attended(visit) => (visit, AppointmentStatus::Attended),
            AppointmentFact::Missed(visit) => (visit, AppointmentStatus::Missed),
            AppointmentFact::Booked(_)
            | AppointmentFact::Rescheduled(_)
            | AppointmentFact::Confirmed(_)
            | AppointmentFact::Cancelled(_)
            | AppointmentFact::Deleted(_)
            | AppointmentFact::ClientUpdated(_)
            | AppointmentFact::ClientErased(_)
            | AppointmentFact::ReminderRequested(_)
            | AppointmentFact::ReminderDelivered(_)
            | AppointmentFact::ReminderFailed(_)
            | AppointmentFact::ReminderConfirmed(_) => return false,
        };
        let known = self.appointments.get(&visit.appointment_id).filter(|known| !known.is_past(time_ms));
        known.and_then(|known| known.start.as_ref()).is_some_and(|start| !start.admits(status, time_ms))
    }

    /// The least important appointment.
    fn least(&self) -> Option<(Weight, &str)> {
        let weights = self.visits().map(|(id, a)| (a.weight(self.latest_ms), id));
        weights.min()
    }
}

/// The appointment that an event is about.
pub fn appointment_id(fact: &AppointmentFact) -> Option<&str> {
    match fact {
        AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking) => Some(&booking.appointment_id),
        AppointmentFact::Confirmed(visit)
        | AppointmentFact::Attended(visit)
        | AppointmentFact::Missed(visit)
        | AppointmentFact::Deleted(visit) => Some(&visit.appointment_id),
        AppointmentFact::Cancelled(cancellation) => Some(&cancellation.appointment_id),
        AppointmentFact::ReminderRequested(request) => Some(&request.appointment_id),
        AppointmentFact::ReminderDelivered(feedback)
        | AppointmentFact::ReminderFailed(feedback)
        | AppointmentFact::ReminderConfirmed(feedback) => Some(&feedback.appointment_id),
        AppointmentFact::ClientUpdated(_) | AppointmentFact::ClientErased(_) => None,
    }
}

/// The booking of an event that places a visit.
fn booking(fact: &AppointmentFact) -> Option<&Booking> {
    match fact {
        AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking) => Some(booking),
        AppointmentFact::Confirmed(_)
        | AppointmentFact::Attended(_)
        | AppointmentFact::Missed(_)
        | AppointmentFact::Cancelled(_)
        | AppointmentFact::Deleted(_)
        | AppointmentFact::ClientUpdated(_)
        | AppointmentFact::ClientErased(_)
        | AppointmentFact::ReminderRequested(_)
        | AppointmentFact::ReminderDelivered(_)
        | AppointmentFact::ReminderFailed(_)
        | AppointmentFact::ReminderConfirmed(_) => None,
    }
}

/// The event's envelope and its fact from this topic.
#[derive(Clone, Copy)]
struct AppointmentEvent<'a> {
    envelope: &'a Envelope,
    fact: &'a AppointmentFact,
}

/// The fold of the appointments topic.
#[derive(Debug, Clone, Default)]
pub struct AppointmentFold {
    /// What it depends on in addition to the log.
    pub limits: Limits,
}

/// What one event changes in other rows. It depends on the previous state of the row, so it is the decision itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientDecision {
    /// Its contributions.
    pub contributions: Vec<Contribution>,
    /// Whether a future visit was forgotten for a nearer one.
    pub has_displaced: bool,
}

/// Space for the appointment of an event.
#[derive(Default)]
struct FreedSpace {
    /// The earlier visit with the same id that a new one replaces.
    left: Option<Appointment>,
    has_displaced: bool,
}

impl AppointmentFold {
    /// Applies an event to the row. Returns whether anything changed.
    fn change(&self, client: &mut Client, event: AppointmentEvent<'_>, left: Option<Appointment>) -> bool {
        let AppointmentEvent { envelope, fact } = event;
        let time_ms = envelope.time_ms;
        let zone = |client: &Client| client.time_zone.clone().unwrap_or(self.limits.time_zone_default.clone());
        let status = |client: &mut Client, visit: &AppointmentRef, status| {
            client.set_status(&visit.appointment_id, envelope, status, None)
        };
        match fact {
            AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking) => {
                let is_move = matches!(fact, AppointmentFact::Rescheduled(_));
                let placing = Placing { envelope, is_move, left };
                client.place(booking, placing, zone(client))
            }
            AppointmentFact::Confirmed(visit) => status(client, visit, AppointmentStatus::Confirmed),
            AppointmentFact::Attended(visit) => status(client, visit, AppointmentStatus::Attended),
            AppointmentFact::Missed(visit) => status(client, visit, AppointmentStatus::Missed),
            AppointmentFact::Deleted(visit) => status(client, visit, AppointmentStatus::Deleted),
            AppointmentFact::Cancelled(c) => {
                client.set_status(&c.appointment_id, envelope, AppointmentStatus::Cancelled, c.by)
            }
            AppointmentFact::ClientUpdated(update) => client.update(update, time_ms),
            AppointmentFact::ReminderRequested(request) => {
                client.add_request(request, envelope, self.limits.appointment_requests_max)
            }
            AppointmentFact::ReminderDelivered(feedback) => {
                self.record_receipt(client, feedback, time_ms, Received::Delivered)
            }
            AppointmentFact::ReminderFailed(feedback) => {
                self.record_receipt(client, feedback, time_ms, Received::Failed)
            }
            AppointmentFact::ReminderConfirmed(feedback) => {
                let is_received = self.record_receipt(client, feedback, time_ms, Received::Confirmed);
                client.set_status(&feedback.appointment_id, envelope, AppointmentStatus::Confirmed, None) || is_received
            }
            // An erasure clears the row before it gets here.
            AppointmentFact::ClientErased(_) => false,
        }
    }

    fn record_receipt(&self, client: &mut Client, feedback: &Feedback, at_ms: i64, received: Received) -> bool {
        client.record_receipt(feedback, at_ms, received, self.limits.appointment_receipts_max)
    }

    /// Makes space for the appointment of an event, and releases an earlier visit with its id if the event begins a new
    /// one. Returns `None` if the row is full of more important appointments.
    fn make_space(
        &self,
        client: &mut Client,
        event: AppointmentEvent<'_>,
        changes: &mut ContributionBuilder<'_>,
    ) -> Option<FreedSpace> {
        let Some(id) = appointment_id(event.fact) else { return Some(FreedSpace::default()) };
        let booking = booking(event.fact);
        if let Some(visit) = client.appointments.get(id) {
            let is_left = |booking: &&Booking| visit.is_replaced_by(&booking.starts_at, event.envelope.time_ms);
            let left = booking.filter(is_left).and_then(|_| changes.release(client, id));
            return Some(FreedSpace { left, has_displaced: false });
        }
        if client.appointments.len() < self.limits.client_appointments_max {
            return Some(FreedSpace::default());
        }
        let weight = match booking {
            Some(booking) => Weight::placed(Start::instant_ms(&booking.starts_at), true, client.latest_ms),
            None => Weight::noted(event.envelope.time_ms),
        };
        let (least, forgotten) = client.least().filter(|(least, other)| (*least, *other) < (weight, id))?;
        let forgotten = forgotten.to_owned();
        changes.release(client, &forgotten);
        Some(FreedSpace { left: None, has_displaced: least.is_upcoming() })
    }

    fn erase(client: &mut Client, time_ms: i64, changes: &mut ContributionBuilder<'_>) {
        for id in client.appointments.keys().cloned().collect::<Vec<_>>() {
            changes.release(client, &id);
        }
        changes.forget_samples(client);
        *client = Client { erased_at_ms: Some(time_ms), ..Client::default() };
    }
}

impl Fold for AppointmentFold {
    type Owner = Client;
    type Decision = ClientDecision;
    const FAMILY: Family = Family::Appointments;
    const OWNER: View = View::Client;

    fn fold(&self, client: &mut Client, event: &Event, place: RecordPosition) -> FoldOutcome<ClientDecision> {
        let Fact::Appointment(fact) = &event.fact else { return FoldOutcome::Skipped(Skip::Unchanged) };
        let time_ms = event.envelope.time_ms;
        if client.erased_at_ms.is_some_and(|erased| time_ms <= erased) {
            return FoldOutcome::Skipped(Skip::Erased);
        }
        let fingerprint = event.fingerprint();
        if client.recent.contains(fingerprint) {
            return FoldOutcome::Skipped(Skip::Repeated);
        }
        client.latest_ms = client.latest_ms.max(time_ms);
        let mut changes = ContributionBuilder::new(event, place);
        if matches!(fact, AppointmentFact::ClientErased(_)) {
            Self::erase(client, time_ms, &mut changes);
            return FoldOutcome::Applied(ClientDecision { contributions: changes.finish(), has_displaced: false });
        }
        if client.is_impossible(fact, time_ms) {
            return FoldOutcome::Skipped(Skip::Impossible);
        }
        let stated = AppointmentEvent { envelope: &event.envelope, fact };
        let Some(FreedSpace { left, has_displaced }) = self.make_space(client, stated, &mut changes) else {
            return FoldOutcome::Skipped(Skip::NoRoom);
        };
        client.recent.insert(fingerprint);
        let id = appointment_id(fact);
        let before = Footprint::of(id.and_then(|id| client.appointments.get(id)).map(Box::as_ref));
        if !self.change(client, stated, left) {
            return FoldOutcome::Skipped(Skip::Unchanged);
        }
        if let Some(id) = id {
            // A sample needs what was known before its own outcome was counted. Any other snapshot needs the counts
            // after this event: with a move if the event is one, and without a cancellation that it reverts.
            let is_over = client.appointments.get(id).is_some_and(|visit| visit.status.is_resolved());
            if is_over {
                client.take_snapshot(id, time_ms);
            }
            changes.difference(client, id, &before);
            client.take_snapshot(id, time_ms);
        }
        FoldOutcome::Applied(ClientDecision { contributions: changes.finish(), has_displaced })
    }

    fn has_displaced(decision: &ClientDecision) -> bool {
        decision.has_displaced
    }

    fn resolved_as(client: &Client, event: &Event) -> Option<&'static str> {
        let Fact::Appointment(fact) = &event.fact else { return None };
        let appointment = client.appointments.get(appointment_id(fact)?)?;
        let is_by_this = appointment.status_by == event.envelope.id;
        appointment.resolved_as().filter(|_| is_by_this)
    }

    fn contributions(&self, _: &Event, decision: &ClientDecision, _: RecordPosition) -> Vec<Contribution> {
        decision.contributions.clone()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The address of a client's row.
pub fn row_key(tenant: &str, client_id: &str) -> RowKey {
    RowKey::hashed(View::Client, key::of(tenant, client_id))
}
