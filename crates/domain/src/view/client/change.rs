//! What each event changes in the client's own row, and whether it changes anything.
//!
//! Events arrive out of order, so every method compares event times to decide which of two events wins. An event that
//! restates the row leaves status, plan, history and counts unchanged. Only its time is kept, as the latest one that
//! stated the same, so that older events which arrive later still lose to it.

use super::appointment::{Canceller, RevertedCancellation};
use super::attribute::Attributes;
use super::placements::Placement;
use super::snapshot::Snapshot;
use super::{Appointment, AppointmentStatus, Client, OnDemandRequest, REQUEST_EXPIRES_MS, Receipt, Received, Start};
use foretell_events::Envelope;
use foretell_events::appointment::{Booking, CancelledBy, ClientUpdate, FieldUpdate};
use foretell_events::reminder::{self, Feedback, Request};
use std::collections::btree_map::Entry;

/// Longest reason of a receipt, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// A visit that a booking at the same start reinstated for at most this long before it was cancelled again counts as
/// cancelled since the first time: a sync that sends both events for every visit has not reinstated it.
const REINSTATED_MS_MIN: i64 = 60 * 60 * 1000;

/// How an event places a visit.
pub(super) struct Placing<'a> {
    pub(super) envelope: &'a Envelope,
    pub(super) is_move: bool,
    /// The earlier visit with the same id that this one replaces.
    pub(super) left: Option<Appointment>,
}

impl Appointment {
    /// Whether an event is about an earlier visit with this id.
    pub(super) fn is_past(&self, time_ms: i64) -> bool {
        self.begun_at_ms.is_some_and(|begun_at_ms| time_ms < begun_at_ms)
    }

    /// Applies the start of a booking, unless a later event has stated one. Returns whether anything changed.
    fn place(&mut self, booking: &Booking, envelope: &Envelope, start: Start) -> bool {
        let time_ms = envelope.time_ms;
        if time_ms < self.restated_at_ms {
            return false;
        }
        self.restated_at_ms = time_ms;
        let is_upcoming = start.at_ms > time_ms;
        if is_upcoming {
            self.on_at_ms = time_ms;
        }
        let is_there = self.start.as_ref().is_some_and(|own| own.at_ms == start.at_ms);
        let is_new = self.describe(booking, &start);
        let is_reinstated = self.is_reinstated_at(&start, time_ms);
        // A booking between two cancellations means that only the second one counts; outcomes are not affected.
        let is_brief = is_there && self.status_restated_at_ms.saturating_sub(time_ms) <= REINSTATED_MS_MIN;
        let is_redated = is_upcoming && !is_brief && !self.status.is_resolved() && self.interrupt(time_ms);
        self.start = Some(start);
        if is_there && !is_reinstated {
            return is_redated || is_new;
        }
        self.placed_at_ms = time_ms;
        self.placed_by.clone_from(&envelope.id);
        if is_reinstated || self.is_replaced_at(time_ms) {
            let cancelled = is_there && self.status == AppointmentStatus::Cancelled;
            let taken_back =
                cancelled.then_some(RevertedCancellation { at_ms: self.status_at_ms, by: self.cancelled_by });
            self.set(AppointmentStatus::Booked, envelope, None);
            self.status_after_ms = None;
            self.taken_back = taken_back;
        }
        // Another start needs another snapshot, see `take_snapshot`. A visit that is over keeps the one it was scored
        // by.
        if !self.status.is_resolved() {
            self.snapshot = None;
        }
        true
    }

    /// Whether a booking at `time_ms` reinstates a visit that was cancelled or deleted: it states a future start. A
    /// booking whose start has passed only describes a visit that did not take place.
    fn is_reinstated_at(&self, start: &Start, time_ms: i64) -> bool {
        let is_off = matches!(self.status, AppointmentStatus::Cancelled | AppointmentStatus::Deleted);
        is_off && time_ms >= self.status_restated_at_ms && start.at_ms > time_ms
    }

    /// Whether a booking at `time_ms` to another start replaces the status of a visit that is booked or over, so that
    /// the visit is booked.
    fn is_replaced_at(&self, time_ms: i64) -> bool {
        match self.status {
            // An outcome that is older than the booking stays: the booking corrects the start, see `is_replaced_by`.
            // A later one stays only if the visit can have had it at the new start when it was stated last.
            AppointmentStatus::Attended | AppointmentStatus::Missed => {
                let admits = |start: &Start| start.admits(self.status, self.status_restated_at_ms);
                time_ms <= self.status_at_ms && !self.start.as_ref().is_some_and(admits)
            }
            AppointmentStatus::Booked | AppointmentStatus::Confirmed => time_ms >= self.status_restated_at_ms,
            AppointmentStatus::Cancelled | AppointmentStatus::Deleted => false,
        }
    }

    /// Applies the other data of a booking. Returns whether anything changed, including the start.
    fn describe(&mut self, booking: &Booking, start: &Start) -> bool {
        let service = booking.service.clone().or_else(|| self.service.clone());
        let location_id = booking.location_id.clone().or_else(|| self.location_id.clone());
        let attributes = Attributes::of_booking(booking).within(&self.attributes);
        let is_new = (self.start.as_ref(), &self.service, &self.location_id, &self.attributes)
            != (Some(start), &service, &location_id, &attributes);
        (self.service, self.location_id, self.attributes) = (service, location_id, attributes);
        is_new
    }

    /// Remembers that an event states a start, and counts it if it is a move. If the event shows that the visit had its
    /// present start earlier than known so far, the visit counts as placed since then. Returns whether anything
    /// changed.
    fn remember_placement(&mut self, envelope: &Envelope, start_ms: i64, is_move: bool) -> bool {
        let before = self.placements.present();
        let stated = Placement { at_ms: envelope.time_ms, start_ms, is_move };
        let moves = self.placements.state(stated, self.restated_at_ms);
        self.rescheduled = self.rescheduled.saturating_add_signed(moves);
        let after = self.placements.present();
        let is_earlier = before.zip(after).is_some_and(|(before, after)| {
            before.start_ms == after.start_ms && before.at_ms == self.placed_at_ms && after.at_ms < before.at_ms
        });
        if is_earlier {
            self.placed_at_ms = envelope.time_ms;
            self.placed_by.clone_from(&envelope.id);
        }
        is_earlier || moves != 0
    }

    /// Applies a status, unless a later event has stated another one. Returns whether anything changed.
    fn set_status(&mut self, envelope: &Envelope, status: AppointmentStatus, by: Option<CancelledBy>) -> bool {
        let time_ms = envelope.time_ms;
        let confirms_the_past = status == AppointmentStatus::Confirmed && !self.status.is_open();
        if self.is_past(time_ms) || confirms_the_past {
            return false;
        }
        if status == self.status {
            return self.restate(time_ms, by);
        }
        if time_ms < self.decided_at_ms(status) {
            return self.interrupt(time_ms);
        }
        let is_brief =
            status == AppointmentStatus::Cancelled && time_ms.saturating_sub(self.placed_at_ms) <= REINSTATED_MS_MIN;
        let taken_back = self.taken_back.filter(|_| is_brief);
        self.status_after_ms = Some(self.status_restated_at_ms).filter(|_| !self.status.is_open());
        self.set(status, envelope, by);
        if let Some(first) = taken_back {
            self.status_at_ms = first.at_ms;
            self.cancelled_by = self.cancelled_by.or(first.by);
        }
        true
    }

    /// The event time that an event of another `status` must reach to replace the status. A confirmation only has to be
    /// as late as the booking that it confirms, and it does not protect that booking from older events. An outcome also
    /// does not have to be later than a restatement of the booking, or than the first event that makes the visit known.
    fn decided_at_ms(&self, status: AppointmentStatus) -> i64 {
        let start_ms =
            self.start.as_ref().filter(|_| !self.placements.is_moved()).map_or(i64::MAX, |start| start.at_ms);
        match (self.status, status) {
            (
                AppointmentStatus::Booked | AppointmentStatus::Confirmed,
                AppointmentStatus::Attended | AppointmentStatus::Missed,
            ) => self.placed_at_ms.min(start_ms),
            (AppointmentStatus::Booked, AppointmentStatus::Confirmed) => self.placed_at_ms,
            (AppointmentStatus::Booked | AppointmentStatus::Confirmed, _) => self.on_at_ms,
            _ => self.status_restated_at_ms,
        }
    }

    /// Applies an event that states the status again. If it is older than the first one known, the status counts from
    /// its time, unless another status is known in between: a visit counts as cancelled since the first cancellation.
    fn restate(&mut self, time_ms: i64, by: Option<CancelledBy>) -> bool {
        self.status_restated_at_ms = self.status_restated_at_ms.max(time_ms);
        let is_earlier = time_ms < self.status_at_ms
            && time_ms >= self.placed_at_ms
            && self.status_after_ms.is_none_or(|after_ms| time_ms > after_ms);
        if is_earlier {
            self.status_at_ms = time_ms;
        }
        let named = by.map(|by| Canceller { by, at_ms: time_ms }).filter(|_| time_ms >= self.status_at_ms);
        let named = named.filter(|named| self.cancelled_by.is_none_or(|known| named.at_ms >= known.at_ms));
        let is_by_another = named.is_some_and(|named| self.cancelled_by.is_none_or(|known| named.by != known.by));
        self.cancelled_by = named.or(self.cancelled_by);
        is_earlier || is_by_another
    }

    /// Notes that another status was valid at `time_ms`, before the present one was last stated. If the present one was
    /// assumed to be valid at that time already, it now counts from when it was last stated. Returns whether that
    /// changed it.
    fn interrupt(&mut self, time_ms: i64) -> bool {
        if self.status.is_open() || time_ms >= self.status_restated_at_ms {
            return false;
        }
        self.status_after_ms = self.status_after_ms.max(Some(time_ms));
        let is_within = self.status_at_ms <= time_ms;
        if is_within {
            self.status_at_ms = self.status_restated_at_ms;
            self.cancelled_by = self.cancelled_by.filter(|named| named.at_ms > time_ms);
        }
        is_within
    }

    fn set(&mut self, status: AppointmentStatus, envelope: &Envelope, by: Option<CancelledBy>) {
        self.status = status;
        self.status_at_ms = envelope.time_ms;
        self.status_restated_at_ms = envelope.time_ms;
        self.status_by.clone_from(&envelope.id);
        self.cancelled_by = by.map(|by| Canceller { by, at_ms: envelope.time_ms });
        self.taken_back = None;
    }

    /// Applies a receipt of a reminder: the later of two for one channel wins. Returns whether anything changed.
    fn record_receipt(&mut self, feedback: &Feedback, at_ms: i64, received: Received, receipts_max: usize) -> bool {
        let reason = feedback.reason.as_deref().map(|reason| {
            let end = reason.floor_char_boundary(REASON_BYTES_MAX);
            reason[..end].to_owned()
        });
        let is_same = |r: &&mut Receipt| r.reminder_id == feedback.reminder_id && r.channel == feedback.channel;
        if let Some(known) = self.receipts.iter_mut().find(is_same) {
            if at_ms < known.restated_at_ms {
                return false;
            }
            known.restated_at_ms = at_ms;
            if known.received == received && (reason.is_none() || reason == known.reason) {
                return false;
            }
            let since_ms = if known.received == received { known.at_ms } else { at_ms };
            (known.received, known.at_ms, known.reason) = (received, since_ms, reason);
        } else {
            let is_full = self.receipts.len() >= receipts_max;
            if is_full && self.receipts.first().is_none_or(|oldest| at_ms < oldest.at_ms) {
                return false;
            }
            if is_full {
                self.receipts.remove(0);
            }
            let (reminder_id, channel) = (feedback.reminder_id.clone(), feedback.channel);
            self.receipts.push(Receipt { reminder_id, received, channel, at_ms, restated_at_ms: at_ms, reason });
        }
        self.receipts.sort_by_key(|receipt| receipt.at_ms);
        true
    }
}

impl Client {
    /// The appointment of an event, and whether it is new in this row.
    fn appointment(&mut self, appointment_id: &str, time_ms: i64) -> (&mut Appointment, bool) {
        match self.appointments.entry(appointment_id.to_owned()) {
            Entry::Occupied(known) => (known.into_mut(), false),
            Entry::Vacant(unknown) => (unknown.insert(Box::new(Appointment::unplaced(time_ms))), true),
        }
    }

    /// Takes a snapshot of what is known about a visit that has none.
    pub(super) fn take_snapshot(&mut self, appointment_id: &str, time_ms: i64) {
        let Some(visit) = self.appointments.get(appointment_id).filter(|visit| visit.snapshot.is_none()) else {
            return;
        };
        let snapshot = visit.subject(appointment_id).map(|visit| Box::new(Snapshot::of(Some(self), visit, time_ms)));
        if let Some(visit) = self.appointments.get_mut(appointment_id) {
            visit.snapshot = snapshot;
        }
    }

    /// Applies a booking or a reschedule, in `zone` if neither it nor the visit names one. Returns whether anything
    /// changed. A reschedule to the present start is no move. Of several times of booking the earliest counts.
    pub(super) fn place(&mut self, booking: &Booking, placing: Placing<'_>, mut zone: String) -> bool {
        let Placing { envelope, is_move, left } = placing;
        let time_ms = envelope.time_ms;
        let (visit, _) = self.appointment(&booking.appointment_id, time_ms);
        if visit.is_past(time_ms) {
            return false;
        }
        if let Some(left) = left {
            visit.begun_at_ms = Some(time_ms);
            zone = left.zone_or(zone);
        }
        let known_ms = visit.start.as_ref().map(|start| start.at_ms);
        let start = Start::of(&booking.starts_at, visit.zone_or(zone));
        let mut is_new = visit.remember_placement(envelope, start.at_ms, is_move);
        is_new |= visit.place(booking, envelope, start);
        let booked_at_ms = match (known_ms, booking.booked_at_ms) {
            (None, booked_at_ms) => booked_at_ms.unwrap_or(time_ms),
            (Some(_), None) if is_move => visit.booked_at_ms,
            (Some(_), booked_at_ms) => visit.booked_at_ms.min(booked_at_ms.unwrap_or(time_ms)),
        };
        is_new |= visit.booked_at_ms != booked_at_ms;
        visit.booked_at_ms = booked_at_ms;
        is_new
    }

    /// Applies a status. Returns whether anything changed.
    pub(super) fn set_status(
        &mut self,
        appointment_id: &str,
        envelope: &Envelope,
        status: AppointmentStatus,
        by: Option<CancelledBy>,
    ) -> bool {
        let (appointment, is_new) = self.appointment(appointment_id, envelope.time_ms);
        appointment.set_status(envelope, status, by) || is_new
    }

    /// Applies a receipt of a reminder. Returns whether anything changed.
    pub(super) fn record_receipt(
        &mut self,
        feedback: &Feedback,
        at_ms: i64,
        received: Received,
        receipts_max: usize,
    ) -> bool {
        let (appointment, is_new) = self.appointment(&feedback.appointment_id, at_ms);
        let is_received =
            !appointment.is_past(at_ms) && appointment.record_receipt(feedback, at_ms, received, receipts_max);
        is_received || is_new
    }

    /// Adds an on-demand request, if there is space for it and it is not known. Returns whether anything changed.
    pub(super) fn add_request(&mut self, request: &Request, envelope: &Envelope, requests_max: usize) -> bool {
        let time_ms = envelope.time_ms;
        let reminder_id = reminder::manual_id(&envelope.tenant, &request.appointment_id, &envelope.id);
        let (appointment, is_new) = self.appointment(&request.appointment_id, time_ms);
        // The same request again, long after it has left the recent ones: the first one is kept.
        let is_known = appointment.requests.iter().any(|request| request.reminder_id == reminder_id);
        if is_known || appointment.is_past(time_ms) {
            return is_new;
        }
        // A request that may still be announced is not forgotten for another one, because it would never be announced.
        let is_expired = |request: &OnDemandRequest| request.at_ms <= time_ms.saturating_sub(REQUEST_EXPIRES_MS);
        if appointment.requests.len() >= requests_max {
            if !appointment.requests.first().is_some_and(is_expired) {
                return is_new;
            }
            appointment.requests.remove(0);
        }
        appointment.requests.push(OnDemandRequest {
            event_id: envelope.id.clone(),
            reminder_id,
            at_ms: time_ms,
            channels: request.channels.clone(),
            template: request.template.clone(),
            digest: request.idempotency_digest.clone(),
        });
        // The sort is stable: of two at the same time, the one later in the log counts as later, and is kept longer.
        appointment.requests.sort_by_key(|request| request.at_ms);
        true
    }

    /// Applies an update of the profile. Returns whether anything changed.
    pub(super) fn update(&mut self, update: &ClientUpdate, time_ms: i64) -> bool {
        let mut is_new = self.updated_at_ms.is_none();
        self.updated_at_ms = self.updated_at_ms.max(Some(time_ms));
        let at = &mut self.updated;
        is_new |= change(&mut self.time_zone, &mut at.time_zone_ms, &update.time_zone, time_ms);
        is_new |= change(&mut self.language, &mut at.language_ms, &update.language, time_ms);
        is_new |= change(&mut self.channels, &mut at.channels_ms, &update.channels, time_ms);
        is_new |= change(&mut self.quiet_hours, &mut at.quiet_hours_ms, &update.quiet_hours, time_ms);
        let attributes = match &update.attributes {
            FieldUpdate::Keep => FieldUpdate::Keep,
            FieldUpdate::Clear => FieldUpdate::Set(Attributes::default()),
            FieldUpdate::Set(attributes) => FieldUpdate::Set(Attributes::of(attributes)),
        };
        let mut kept = Some(std::mem::take(&mut self.attributes));
        is_new |= change(&mut kept, &mut at.attributes_ms, &attributes, time_ms);
        self.attributes = kept.unwrap_or_default();
        is_new
    }
}

/// Changes a field, unless a later event has already set it. Returns whether its value changed.
fn change<T: Clone + PartialEq>(
    field: &mut Option<T>,
    at_ms: &mut Option<i64>,
    change: &FieldUpdate<T>,
    time_ms: i64,
) -> bool {
    let value = match change {
        FieldUpdate::Keep => return false,
        FieldUpdate::Clear => None,
        FieldUpdate::Set(value) => Some(value.clone()),
    };
    if at_ms.is_some_and(|at| time_ms < at) {
        return false;
    }
    let is_new = *field != value;
    (*field, *at_ms) = (value, Some(time_ms));
    is_new
}
