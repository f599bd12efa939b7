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
//! - **updated** changes the fields that it names, each unless a later event named it; **requested** asks for a reminder by hand.
//! - **erased** empties the row and takes out its look-up and agenda entries; a tenant's counts stay.
//!
//! For the tenant's rates several visits of one client on one day (of their zone) count once: as attended if any
//! was attended. The history counts appointments.

use super::agenda::{self, Kind};
use super::lead::{self, Counted, Outcomes};
use super::recent::Recent;
use super::{Contribution, Delta, Fold, Limits, Outcome, Place, lookup};
use crate::event::appointment::{Booking, CancelledBy, Change, Channel, ClientUpdate, Consent, QuietHours, StartsAt};
use crate::event::reminder::{self, Request};
use crate::event::{Envelope, Event, Fact, key, zone};
use crate::store::{Family, RowKey, View};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A cancellation closer than this to the start is a late one.
pub const LATE_CANCEL_MS: i64 = 24 * 60 * 60 * 1000;
const DAY_S: i64 = 24 * 60 * 60;

/// The state of a client's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Repetitions.
    pub recent: Recent,
    /// How they kept their appointments.
    pub history: History,
    /// Kept and missed days by lead bucket, for the no-shows that the tenant's rates would expect.
    pub days: [Outcomes; lead::BUCKETS.len()],
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
    /// What for.
    pub service: Option<String>,
    /// Where.
    pub location_id: Option<String>,
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

impl Appointment {
    fn unplaced(time_ms: i64) -> Self {
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
            service: None,
            location_id: None,
        }
    }

    /// Whole days from booking to visit, in the visit's zone; 0 where the start lies before the booking.
    pub fn lead_days(&self) -> Option<i32> {
        self.start.as_ref().map(|start| start.lead_days(self.booked_at_ms))
    }

    /// The local day of a visit of which it is known how it went.
    fn resolved_day(&self) -> Option<i64> {
        let start = self.start.as_ref().filter(|_| self.status.is_resolved())?;
        Some(start.day())
    }

    /// When that was decided which an event of `status` must not be older than. A confirmation confirms a booking and
    /// decides nothing else, so that what an older event says of the visit still holds.
    fn decided_at_ms(&self, status: Status) -> i64 {
        if self.status == Status::Confirmed && status != Status::Confirmed {
            self.placed_at_ms
        } else {
            self.status_at_ms
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

/// What one appointment puts into the history, and where it must be found.
#[derive(Debug, Default, PartialEq)]
struct Footprint {
    history: History,
    agenda_at_ms: Option<i64>,
    placed_at_ms: Option<i64>,
    requested_at_ms: BTreeSet<i64>,
}

impl Footprint {
    fn of(appointment: Option<&Appointment>) -> Self {
        let mut print = Self::default();
        let Some(appointment) = appointment else { return print };
        print.requested_at_ms = appointment.requests.iter().map(|asked| asked.at_ms).collect();
        let Some(start) = &appointment.start else { return print };
        if appointment.status == Status::Deleted {
            return print;
        }
        print.placed_at_ms = Some(appointment.placed_at_ms);
        print.agenda_at_ms = appointment.status.is_open().then_some(start.at_ms);
        print.history.rescheduled = i64::from(appointment.rescheduled);
        match appointment.status {
            Status::Attended => print.history.attended = 1,
            Status::Missed => print.history.missed = 1,
            Status::Cancelled if appointment.is_late_cancelled() => print.history.late_cancelled = 1,
            Status::Cancelled => print.history.cancelled = 1,
            _ => {}
        }
        print
    }
}

/// Day (since the epoch, local) to the outcome it counts with: lead bucket, missed.
type Days = BTreeMap<i64, (u8, bool)>;

impl Client {
    /// The outcomes of those `days` that have a known one, where `own` stands for the appointment `id`: attended if any
    /// visit was, with the lead of the first such visit by id.
    fn outcomes(&self, days: &BTreeSet<i64>, id: &str, own: Option<&Appointment>) -> Days {
        let others = self.appointments.iter().filter(|(other, _)| *other != id).map(|(other, a)| (other.as_str(), a));
        let mut firsts = BTreeMap::new();
        for (id, appointment) in others.chain(own.map(|own| (id, own))) {
            let Some(day) = appointment.resolved_day().filter(|day| days.contains(day)) else { continue };
            let visit = (appointment.status == Status::Missed, id, appointment);
            let first = firsts.entry(day).or_insert(visit);
            if (visit.0, visit.1) < (first.0, first.1) {
                *first = visit;
            }
        }
        let outcome = |(missed, _, visit): (bool, &str, &Appointment)| Some((lead::bucket(visit.lead_days()?), missed));
        firsts.into_iter().filter_map(|(day, visit)| Some((day, outcome(visit)?))).collect()
    }

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
        // Of the same instant, an outcome is what came last.
        let undoes = time_ms > appointment.status_at_ms || !appointment.status.is_resolved();
        if undoes && time_ms >= appointment.status_at_ms {
            appointment.status = Status::Booked;
            appointment.status_at_ms = time_ms;
            appointment.status_by.clone_from(&envelope.id);
            appointment.cancelled_by = None;
        }
    }

    fn book(&mut self, booking: &Booking, envelope: &Envelope, zone: String) {
        let time_ms = envelope.time_ms;
        let known = self.appointments.get(&booking.appointment_id).is_some_and(|a| a.start.is_some());
        self.place(booking, envelope, zone);
        let Some(appointment) = self.appointments.get_mut(&booking.appointment_id) else { return };
        let booked_at_ms = booking.booked_at_ms.unwrap_or(time_ms);
        appointment.booked_at_ms = if known { appointment.booked_at_ms.min(booked_at_ms) } else { booked_at_ms };
    }

    fn reschedule(&mut self, booking: &Booking, envelope: &Envelope, zone: String) {
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
    }

    fn set_status(&mut self, appointment_id: &str, envelope: &Envelope, status: Status, by: Option<CancelledBy>) {
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

    fn ask(&mut self, request: &Request, envelope: &Envelope, requests_max: usize) {
        let appointment = self
            .appointments
            .entry(request.appointment_id.clone())
            .or_insert_with(|| Appointment::unplaced(envelope.time_ms));
        let reminder_id = reminder::manual_id(&envelope.tenant, &request.appointment_id, &envelope.id);
        // The same request again, long after it has left the recent ones: the first one holds.
        if appointment.requests.iter().any(|asked| asked.reminder_id == reminder_id) {
            return;
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
        if appointment.requests.len() > requests_max {
            appointment.requests.remove(0);
        }
    }

    fn update(&mut self, update: &ClientUpdate, time_ms: i64) {
        self.updated_at_ms = self.updated_at_ms.max(Some(time_ms));
        let at = &mut self.updated;
        change(&mut self.time_zone, &mut at.time_zone_ms, &update.time_zone, time_ms);
        change(&mut self.language, &mut at.language_ms, &update.language, time_ms);
        change(&mut self.channels, &mut at.channels_ms, &update.channels, time_ms);
        change(&mut self.quiet_hours, &mut at.quiet_hours_ms, &update.quiet_hours, time_ms);
    }

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

fn seconds(local: jiff::civil::DateTime) -> i64 {
    zone::instant_ms(local, &jiff::tz::TimeZone::UTC).div_euclid(1000)
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
            _ => {}
        }
    }

    /// Makes room for the appointment of an event, and lets go of an outcome that a reschedule leaves behind; answers
    /// the zone of the visit that was left.
    fn make_room(&self, client: &mut Client, event: &Event, scribe: &mut Scribe<'_>) -> Option<String> {
        let id = appointment_id(&event.fact)?;
        let mut kept_zone = None;
        let places = matches!(event.fact, Fact::Booked(_) | Fact::Rescheduled(_));
        let leaves_outcome =
            |a: &Appointment| places && a.status.is_resolved() && event.envelope.time_ms > a.status_at_ms;
        if client.appointments.get(id).is_some_and(leaves_outcome) {
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
        *client = Client { erased_at_ms: Some(time_ms), ..Client::default() };
    }
}

/// Writes down what an event changes in other rows.
struct Scribe<'a> {
    envelope: &'a Envelope,
    client_id: &'a str,
    partition: u32,
    agenda: BTreeMap<i64, agenda::Delta>,
    lookup: BTreeMap<String, lookup::Delta>,
    lead: lead::Delta,
}

impl<'a> Scribe<'a> {
    fn new(event: &'a Event, place: Place) -> Self {
        Self {
            envelope: &event.envelope,
            client_id: event.fact.subject(),
            partition: place.partition,
            agenda: BTreeMap::new(),
            lookup: BTreeMap::new(),
            lead: Vec::new(),
        }
    }

    /// Forgets an appointment: its entries go, what it counted stays.
    fn release(&mut self, client: &mut Client, id: &str) -> Option<Appointment> {
        let gone = client.appointments.remove(id);
        let before = Footprint::of(gone.as_ref());
        if before.history.missed > 0 {
            let start = gone.as_ref().and_then(|gone| gone.start.as_ref());
            client.forgotten_missed_ms = client.forgotten_missed_ms.max(start.map(|start| start.at_ms));
        }
        self.entries(id, &before, &Footprint::default());
        gone
    }

    fn entries(&mut self, id: &str, before: &Footprint, after: &Footprint) {
        if before.agenda_at_ms != after.agenda_at_ms {
            before.agenda_at_ms.into_iter().for_each(|at| self.agenda(Kind::Starts, at, id, -1));
            after.agenda_at_ms.into_iter().for_each(|at| self.agenda(Kind::Starts, at, id, 1));
        }
        let (gone, come) =
            (&before.requested_at_ms - &after.requested_at_ms, &after.requested_at_ms - &before.requested_at_ms);
        gone.into_iter().for_each(|at| self.agenda(Kind::Requested, at, id, -1));
        come.into_iter().for_each(|at| self.agenda(Kind::Requested, at, id, 1));
        if before.placed_at_ms != after.placed_at_ms {
            let client_id = self.client_id.to_owned();
            let delta = match after.placed_at_ms {
                Some(placed_at_ms) => lookup::Delta::Claim { client_id, placed_at_ms },
                None => lookup::Delta::Release { client_id },
            };
            self.lookup.insert(id.to_owned(), delta);
        }
    }

    fn agenda(&mut self, kind: Kind, at_ms: i64, entry: &str, times: i32) {
        let bucket = agenda::bucket(kind, at_ms, self.partition);
        self.agenda.entry(bucket).or_default().push((entry.to_owned(), times));
    }

    /// What changed from `before` to what the appointment is now, in the client's own counts as well.
    fn difference(&mut self, client: &mut Client, id: &str, before: Option<&Appointment>) {
        let after = client.appointments.get(id);
        let days = [before, after].into_iter().flatten().filter_map(Appointment::resolved_day).collect();
        let days_before = client.outcomes(&days, id, before);
        let days_after = client.outcomes(&days, id, after);
        let (before, after) = (Footprint::of(before), Footprint::of(after));
        client.history.replace(before.history, after.history);
        self.outcomes(client, &days_before, &days_after);
        self.entries(id, &before, &after);
    }

    /// What changed between two lists of daily outcomes.
    fn outcomes(&mut self, client: &mut Client, before: &Days, after: &Days) {
        let gone = before.iter().filter(|(day, outcome)| after.get(day) != Some(outcome)).map(|(_, o)| (o, -1));
        let come = after.iter().filter(|(day, outcome)| before.get(day) != Some(outcome)).map(|(_, o)| (o, 1));
        for ((bucket, missed), sign) in gone.chain(come) {
            self.lead.push(Counted { bucket: *bucket, missed: *missed, sign });
            if let Some(day) = client.days.get_mut(usize::from(*bucket)) {
                day.count(*missed, i64::from(sign));
            }
        }
    }

    fn finish(self) -> Vec<Contribution> {
        let tenant = &self.envelope.tenant;
        let agenda = self.agenda.into_iter().map(|(bucket, delta)| {
            let key = agenda::row_key(View::Agenda, bucket, tenant, self.client_id);
            Contribution::new(key, Delta::Agenda(delta))
        });
        let lookup = self
            .lookup
            .into_iter()
            .map(|(id, delta)| Contribution::new(lookup::row_key(tenant, &id), Delta::Lookup(delta)));
        let lead = (!self.lead.is_empty()).then(|| Contribution::new(lead::row_key(tenant), Delta::Lead(self.lead)));
        agenda.chain(lookup).chain(lead).collect()
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
            return Outcome::Skipped;
        }
        if !client.recent.insert(event.envelope.fingerprint()) {
            return Outcome::Skipped;
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

    fn contributions(&self, _: &Event, decision: &Decision, _: Place) -> Vec<Contribution> {
        decision.clone()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl History {
    fn replace(&mut self, before: Self, after: Self) {
        self.attended += after.attended - before.attended;
        self.missed += after.missed - before.missed;
        self.cancelled += after.cancelled - before.cancelled;
        self.late_cancelled += after.late_cancelled - before.late_cancelled;
        self.rescheduled += after.rescheduled - before.rescheduled;
    }
}

/// The address of a client's row.
pub fn row_key(tenant: &str, client_id: &str) -> RowKey {
    RowKey::hashed(View::Client, key::of(tenant, client_id))
}
