//! What each event changes in the client's own row. Which of two events decides is settled by event time, in every
//! method for itself, because events come out of order.

use super::attribute::Attributes;
use super::snapshot::Snapshot;
use super::{Appointment, Asked, Client, REQUEST_EXPIRES_MS, Receipt, Received, Start, Status};
use crate::event::Envelope;
use crate::event::appointment::{Booking, CancelledBy, Change, ClientUpdate};
use crate::event::reminder::{self, Feedback, Request};

/// Longest reason of a receipt, in bytes.
const REASON_BYTES_MAX: usize = 256;

impl Client {
    /// Takes a booking or a reschedule in.
    fn place(&mut self, booking: &Booking, envelope: &Envelope, zone: String) {
        let time_ms = envelope.time_ms;
        let appointment =
            self.appointments.entry(booking.appointment_id.clone()).or_insert_with(|| Appointment::unplaced(time_ms));
        if time_ms < appointment.placed_at_ms {
            return;
        }
        let fallback = appointment.start.take().map_or(zone, |start| start.zone);
        appointment.start = Some(Start::of(&booking.starts_at, fallback));
        appointment.placed_at_ms = time_ms;
        appointment.placed_by.clone_from(&envelope.id);
        appointment.service = booking.service.clone().or(appointment.service.take());
        appointment.location_id = booking.location_id.clone().or(appointment.location_id.take());
        appointment.attributes = Attributes::told(booking).within(&appointment.attributes);
        // Another start is another visit to know of: see `witness`.
        appointment.snapshot = None;
        // Of the same instant, an outcome is what came last.
        let undoes = time_ms > appointment.status_at_ms || !appointment.status.is_resolved();
        if undoes && time_ms >= appointment.status_at_ms {
            appointment.status = Status::Booked;
            appointment.status_at_ms = time_ms;
            appointment.status_by.clone_from(&envelope.id);
            appointment.cancelled_by = None;
        }
    }

    /// Keeps what is known of a visit that has just been placed.
    fn witness(&mut self, appointment_id: &str, time_ms: i64) {
        let Some(visit) = self.appointments.get(appointment_id).filter(|visit| visit.snapshot.is_none()) else {
            return;
        };
        let snapshot = visit.subject(appointment_id).map(|visit| Box::new(Snapshot::of(Some(self), visit, time_ms)));
        if let Some(visit) = self.appointments.get_mut(appointment_id) {
            visit.snapshot = snapshot;
        }
    }

    pub(super) fn book(&mut self, booking: &Booking, envelope: &Envelope, zone: String) {
        let time_ms = envelope.time_ms;
        let known = self.appointments.get(&booking.appointment_id).is_some_and(|a| a.start.is_some());
        self.place(booking, envelope, zone);
        let Some(appointment) = self.appointments.get_mut(&booking.appointment_id) else { return };
        let booked_at_ms = booking.booked_at_ms.unwrap_or(time_ms);
        appointment.booked_at_ms = if known { appointment.booked_at_ms.min(booked_at_ms) } else { booked_at_ms };
        self.witness(&booking.appointment_id, time_ms);
    }

    pub(super) fn reschedule(&mut self, booking: &Booking, envelope: &Envelope, zone: String) {
        let time_ms = envelope.time_ms;
        let known = self.appointments.get(&booking.appointment_id).is_some_and(|a| a.start.is_some());
        self.place(booking, envelope, zone);
        let Some(appointment) = self.appointments.get_mut(&booking.appointment_id) else { return };
        appointment.rescheduled = appointment.rescheduled.saturating_add(1);
        match booking.booked_at_ms {
            Some(booked_at_ms) => appointment.booked_at_ms = booked_at_ms,
            None if known => {}
            None => appointment.booked_at_ms = time_ms,
        }
        self.witness(&booking.appointment_id, time_ms);
    }

    pub(super) fn set_status(
        &mut self,
        appointment_id: &str,
        envelope: &Envelope,
        status: Status,
        by: Option<CancelledBy>,
    ) {
        let time_ms = envelope.time_ms;
        let appointment =
            self.appointments.entry(appointment_id.to_owned()).or_insert_with(|| Appointment::unplaced(time_ms));
        let confirms_the_past = status == Status::Confirmed && !appointment.status.is_open();
        if time_ms < appointment.decided_at_ms(status) || confirms_the_past {
            return;
        }
        appointment.status = status;
        appointment.status_at_ms = time_ms;
        appointment.status_by.clone_from(&envelope.id);
        appointment.cancelled_by = by;
    }

    pub(super) fn ask(&mut self, request: &Request, envelope: &Envelope, requests_max: usize) {
        let appointment = self
            .appointments
            .entry(request.appointment_id.clone())
            .or_insert_with(|| Appointment::unplaced(envelope.time_ms));
        let reminder_id = reminder::manual_id(&envelope.tenant, &request.appointment_id, &envelope.id);
        // The same request again, long after it has left the recent ones: the first one holds.
        if appointment.requests.iter().any(|asked| asked.reminder_id == reminder_id) {
            return;
        }
        // A request that may still be announced is not forgotten for another one, which would never be told.
        let is_expired = |asked: &Asked| asked.at_ms <= envelope.time_ms.saturating_sub(REQUEST_EXPIRES_MS);
        if appointment.requests.len() >= requests_max {
            if !appointment.requests.first().is_some_and(is_expired) {
                return;
            }
            appointment.requests.remove(0);
        }
        appointment.requests.push(Asked {
            event_id: envelope.id.clone(),
            reminder_id,
            at_ms: envelope.time_ms,
            channels: request.channels.clone(),
            template: request.template.clone(),
            digest: request.idempotency_digest.clone(),
        });
        // Stable: of two at one time the one that is later in the log counts as later, and is kept longer.
        appointment.requests.sort_by_key(|asked| asked.at_ms);
    }

    /// Notes what became of a reminder. Of two receipts of one channel the later holds.
    pub(super) fn hear(&mut self, feedback: &Feedback, envelope: &Envelope, received: Received, receipts_max: usize) {
        let at_ms = envelope.time_ms;
        let appointment = self
            .appointments
            .entry(feedback.appointment_id.clone())
            .or_insert_with(|| Appointment::unplaced(envelope.time_ms));
        let receipts = &mut appointment.receipts;
        let is_same = |r: &Receipt| r.reminder_id == feedback.reminder_id && r.channel == feedback.channel;
        if receipts.iter().any(|receipt| is_same(receipt) && receipt.at_ms > at_ms) {
            return;
        }
        receipts.retain(|receipt| !is_same(receipt));
        let reason = feedback.reason.as_deref().map(|reason| {
            let end = reason.floor_char_boundary(REASON_BYTES_MAX);
            reason[..end].to_owned()
        });
        let reminder_id = feedback.reminder_id.clone();
        receipts.push(Receipt { reminder_id, received, channel: feedback.channel, at_ms, reason });
        receipts.sort_by_key(|receipt| receipt.at_ms);
        if receipts.len() > receipts_max {
            receipts.remove(0);
        }
    }

    pub(super) fn update(&mut self, update: &ClientUpdate, time_ms: i64) {
        self.updated_at_ms = self.updated_at_ms.max(Some(time_ms));
        let at = &mut self.updated;
        change(&mut self.time_zone, &mut at.time_zone_ms, &update.time_zone, time_ms);
        change(&mut self.language, &mut at.language_ms, &update.language, time_ms);
        change(&mut self.channels, &mut at.channels_ms, &update.channels, time_ms);
        change(&mut self.quiet_hours, &mut at.quiet_hours_ms, &update.quiet_hours, time_ms);
        let attributes = match &update.attributes {
            Change::Keep => Change::Keep,
            Change::Clear => Change::Set(Attributes::default()),
            Change::Set(attributes) => Change::Set(Attributes::of(attributes)),
        };
        let mut kept = Some(std::mem::take(&mut self.attributes));
        change(&mut kept, &mut at.attributes_ms, &attributes, time_ms);
        self.attributes = kept.unwrap_or_default();
    }
}

/// Changes a field, unless a later event has named it already.
fn change<T: Clone>(field: &mut Option<T>, at_ms: &mut Option<i64>, change: &Change<T>, time_ms: i64) {
    let value = match change {
        Change::Keep => return,
        Change::Clear => None,
        Change::Set(value) => Some(value.clone()),
    };
    if at_ms.is_none_or(|at| time_ms >= at) {
        (*field, *at_ms) = (value, Some(time_ms));
    }
}
