//! The events in a chain of clinics within a year, generated from a seed.
//!
//! Bookings have the leads that clinics have, a third of them for the same day. Some visits are moved, away and back,
//! cancelled, entered in error, handed to another client; some clients live abroad, have unusual nights, refuse and
//! agree again. A few visits are in the nights in which clocks change. No event is on a quarter of an hour, when
//! reminders are due, so that a cancellation and a reminder always have a definite order.

use foretell_domain::view::client;
use foretell_events::appointment::{
    AppointmentFact, AppointmentRef, Booking, Cancellation, CancelledBy, Channel, ClientErasure, ClientUpdate, Consent,
    FieldUpdate, QuietHours, StartsAt,
};
use foretell_events::reminder::Request;
use foretell_events::{Envelope, Event, Fact, zone};
use foretell_lab::source::draw::{Draw, Sequence};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::collections::BTreeMap;

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// 1 July 2017, 00:00 UTC: within a year from then clocks change twice in Dublin, São Paulo and on Lord Howe.
pub const JULY_MS: i64 = 1_498_867_200_000;
/// 10 October 2017, 00:00 UTC: within three weeks from then clocks change in Dublin and São Paulo.
pub const OCTOBER_MS: i64 = 1_507_593_600_000;
const QUARTER_MS: i64 = 15 * MINUTE_MS;

/// Tenant and zone of each location. Kolkata opens at half past, so that visits begin with an hour of UTC there too.
pub const LOCATIONS: [(&str, &str); 5] = [
    ("north", "Europe/Dublin"),
    ("north", "UTC"),
    ("south", "America/Sao_Paulo"),
    ("south", "Australia/Lord_Howe"),
    ("east", "Asia/Kolkata"),
];
/// Zones of clients who live elsewhere.
const ABROAD: [&str; 6] = [
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "Europe/Lisbon",
    "America/St_Johns",
    "Africa/Casablanca",
];
/// Local hours at which visits begin.
const SLOTS: [i8; 4] = [9, 11, 14, 16];
/// Leads in days, from and to, with their share of the bookings in percent.
const LEADS: [(u32, i64, i64); 9] =
    [(35, 0, 0), (11, 1, 1), (14, 2, 3), (10, 4, 6), (8, 7, 7), (8, 8, 13), (6, 14, 20), (5, 21, 29), (3, 30, 80)];
/// Visits per client within the year.
const VISITS_OF_CLIENT: u64 = 4;

/// The size of a timeline.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub seed: u64,
    pub appointments: u64,
    pub begin_ms: i64,
    pub days: i64,
}

/// The events of a year, rising in time.
pub struct Timeline {
    pub events: Vec<Event>,
    pub begins_ms: i64,
    pub ends_ms: i64,
}

impl Timeline {
    /// The same for the same size, on every machine.
    pub fn of(size: Size) -> Self {
        let mut clinic = Clinic { size, draw: Draw::new(size.seed), stated: Vec::new() };
        (0..clinic.clients()).for_each(|client| clinic.live(client));
        (0..size.appointments).for_each(|visit| clinic.visit(visit));
        clinic.sync();
        let ends_ms = clinic.ends_ms();
        let mut stated = clinic.stated;
        stated.retain(|stated| stated.at_ms < ends_ms);
        stated.sort_by_key(|stated| stated.at_ms);
        let events = stated.into_iter().enumerate().map(|(n, stated)| Event {
            envelope: Envelope {
                id: format!("e{n}"),
                source: "urn:clinic".into(),
                tenant: stated.tenant.into(),
                time_ms: stated.at_ms,
            },
            fact: stated.fact,
        });
        Self { events: events.collect(), begins_ms: size.begin_ms, ends_ms }.and(Vec::new())
    }

    /// The same with these events, each at its own instant, so that the order of events is always definite.
    pub fn and(mut self, mut others: Vec<Event>) -> Self {
        others.append(&mut self.events);
        others.sort_by_key(|event| event.envelope.time_ms);
        let mut last_ms = i64::MIN;
        for event in &mut others {
            let time_ms = &mut event.envelope.time_ms;
            *time_ms = (*time_ms).max(last_ms + 1);
            last_ms = *time_ms;
        }
        Self { events: others, ..self }
    }
}

struct Statement {
    at_ms: i64,
    tenant: &'static str,
    fact: Fact,
}

struct Clinic {
    size: Size,
    draw: Draw,
    stated: Vec<Statement>,
}

/// An appointment while it is generated.
struct Life {
    tenant: &'static str,
    zone: &'static str,
    id: String,
    client: u64,
    wall: DateTime,
    /// The time of its last event.
    last_ms: i64,
    chance: Sequence,
}

impl Life {
    fn start_ms(&self) -> i64 {
        zone::instant_ms(self.wall, &rules(self.zone))
    }

    /// Some time after the last event and before `end_ms`, not on a quarter of an hour; none if there is none.
    fn before(&mut self, end_ms: i64) -> Option<i64> {
        let from = self.last_ms.div_euclid(QUARTER_MS) + 1;
        let quarters = end_ms.div_euclid(QUARTER_MS) - from;
        if quarters < 1 {
            return None;
        }
        let quarter = from + self.chance.below(quarters as u64) as i64;
        Some(quarter * QUARTER_MS + (1 + self.chance.below(14) as i64) * MINUTE_MS)
    }

    fn visit(&self) -> AppointmentRef {
        AppointmentRef { appointment_id: self.id.clone(), client_id: client_id(self.client) }
    }

    /// The start in one of the forms of bookings: local time, or the instant, with or without its zone.
    fn booking(&mut self) -> Box<Booking> {
        let starts_at = match self.chance.below(20) {
            0..=12 => StartsAt::Local { local: self.wall, zone: self.zone.into() },
            13..=17 => StartsAt::Instant { at_ms: self.start_ms(), zone: Some(self.zone.into()) },
            _ => StartsAt::Instant { at_ms: self.start_ms(), zone: None },
        };
        Box::new(Booking {
            appointment_id: self.id.clone(),
            client_id: client_id(self.client),
            starts_at,
            duration_minutes: Some(30),
            location_id: Some(self.zone.into()),
            practitioner_id: None,
            service: None,
            booked_at_ms: None,
            attributes: Default::default(),
        })
    }
}

fn client_id(client: u64) -> String {
    format!("c{client}")
}

fn rules(name: &str) -> TimeZone {
    zone::get(name).expect("a zone of the database")
}

fn civil(at_ms: i64) -> Date {
    zone::local(at_ms, &TimeZone::UTC).date()
}

impl Clinic {
    fn ends_ms(&self) -> i64 {
        self.size.begin_ms + self.size.days * DAY_MS
    }

    fn clients(&self) -> u64 {
        (self.size.appointments / VISITS_OF_CLIENT).max(LOCATIONS.len() as u64 * 2)
    }

    fn state(&mut self, at_ms: i64, tenant: &'static str, fact: Fact) {
        self.stated.push(Statement { at_ms, tenant, fact });
    }

    /// The profile of a client, at the beginning and later.
    fn live(&mut self, client: u64) {
        let (tenant, _) = LOCATIONS[client as usize % LOCATIONS.len()];
        let mut chance = self.draw.sequence(1, client);
        let days = self.size.days as u64;
        let begin_ms = self.size.begin_ms;
        let any = |chance: &mut Sequence, days: u64| {
            let quarter = chance.below(days * 96) as i64;
            begin_ms + quarter * QUARTER_MS + (1 + chance.below(14) as i64) * MINUTE_MS
        };
        let update = || ClientUpdate { client_id: client_id(client), ..ClientUpdate::default() };
        let mut changes = Vec::new();
        if chance.happens(0.12) {
            let zone = ABROAD[chance.below(ABROAD.len() as u64) as usize];
            let time_zone = FieldUpdate::Set(zone.to_owned());
            changes.push((any(&mut chance, days / 3 + 1), ClientUpdate { time_zone, ..update() }));
        }
        if chance.happens(0.15) {
            let of_day = |minute| minute as u16 * 15 % 1440;
            // Some have no night, some at noon, and the end of some nights is within the hour that clocks skip.
            let (from, to) = [(0, 0), (48, 56), (88, 28), (80, 6), (2, 40)][chance.below(5) as usize];
            let quiet = QuietHours { from_minute: of_day(from), to_minute: of_day(to) };
            let quiet_hours = FieldUpdate::Set(quiet);
            changes.push((any(&mut chance, days), ClientUpdate { quiet_hours, ..update() }));
        }
        let may = |consent| vec![Consent { channel: Channel::Email, consent, address_ref: Some("1".into()) }];
        if chance.happens(0.2) {
            let channels = FieldUpdate::Set(may(true));
            changes.push((any(&mut chance, days), ClientUpdate { channels, ..update() }));
        }
        if chance.happens(0.06) {
            let refused_ms = any(&mut chance, days);
            let refused = if chance.happens(0.5) { may(false) } else { Vec::new() };
            changes.push((refused_ms, ClientUpdate { channels: FieldUpdate::Set(refused), ..update() }));
            if chance.happens(0.6) {
                let agreed_ms = refused_ms + (1 + chance.below(20) as i64) * 7 * HOUR_MS;
                let channels = if chance.happens(0.5) { FieldUpdate::Clear } else { FieldUpdate::Set(may(true)) };
                changes.push((agreed_ms, ClientUpdate { channels, ..update() }));
            }
        }
        for (at_ms, update) in changes {
            self.state(at_ms, tenant, AppointmentFact::ClientUpdated(Box::new(update)).into());
        }
        if chance.happens(0.01) {
            let at_ms = any(&mut chance, days);
            self.state(
                at_ms,
                tenant,
                AppointmentFact::ClientErased(ClientErasure { client_id: client_id(client) }).into(),
            );
        }
    }

    /// An appointment from its booking to its outcome.
    fn visit(&mut self, number: u64) {
        let mut chance = self.draw.sequence(2, number);
        let clients = self.clients();
        let client = chance.below(clients);
        let (tenant, zone) = LOCATIONS[client as usize % LOCATIONS.len()];
        let day = civil(self.size.begin_ms) + (chance.below(self.size.days as u64) as i64).days();
        let hour = 8 + chance.below(10) as i8;
        let minute = (chance.below(4) * 15 + 1 + chance.below(14)) as i8;
        let booked_ms = zone::instant_ms(day.at(hour, minute, 0, 0), &rules(zone));
        let lead = LEADS[chance.weighted(LEADS.iter().map(|(weight, ..)| *weight))];
        let days = lead.1 + chance.below((lead.2 - lead.1 + 1) as u64) as i64;
        let half = if zone == "Asia/Kolkata" { 30 } else { 0 };
        let mut slots = SLOTS.iter().filter(|slot| days > 0 || **slot > hour + 1);
        let slot = chance.below(slots.clone().count() as u64) as usize;
        // Nothing is free today any more: tomorrow.
        let (date, slot) =
            slots.nth(slot).map_or((day.tomorrow(), SLOTS[0]), |slot| (day.checked_add(days.days()), *slot));
        let Ok(date) = date else { return };
        let mut wall = date.at(slot, half, 0, 0);
        if chance.happens(0.02)
            && let Some(night) = night_of_change(booked_ms + DAY_MS, zone)
        {
            wall = night.saturating_add((chance.below(9) as i64 * 30 - 120).minutes());
        }
        let id = format!("a{number}");
        let mut life = Life { tenant, zone, id, client, wall, last_ms: booked_ms, chance };
        let booking = life.booking();
        self.state(booked_ms, tenant, AppointmentFact::Booked(booking).into());
        if life.chance.happens(0.08) {
            self.another(number, &mut life, clients);
        }
        self.change(&mut life, clients);
        self.end(&mut life);
    }

    /// Another visit of the client on the same day, booked a little later.
    fn another(&mut self, number: u64, life: &mut Life, clients: u64) {
        let hours = [-2, 2, 5][life.chance.below(3) as usize];
        let mut other = Life {
            id: format!("b{number}"),
            wall: life.wall.saturating_add(jiff::Span::new().hours(hours)),
            chance: self.draw.sequence(3, number),
            ..*life
        };
        let booking = other.booking();
        let later_ms = 1_000 * (1 + other.chance.below(40) as i64);
        self.next(&mut other, life.last_ms + later_ms, AppointmentFact::Booked(booking).into());
        self.change(&mut other, clients);
        self.end(&mut other);
    }

    /// Changes before its start.
    fn change(&mut self, life: &mut Life, clients: u64) {
        if life.chance.happens(0.15)
            && let Some(at_ms) = life.before(life.start_ms())
        {
            self.next(life, at_ms, AppointmentFact::Confirmed(life.visit()).into());
        }
        self.ask(life, 0.02);
        if life.chance.happens(0.14) {
            let was = life.wall;
            let later = (1 + life.chance.below(12) as i64).days();
            self.reschedule(life, was.saturating_add(later));
            if life.chance.happens(0.4) {
                self.reschedule(life, was);
            }
        }
        if life.chance.happens(0.02)
            && let Some(at_ms) = life.before(life.start_ms())
        {
            // Of the same tenant and location: five clients further on.
            self.next(life, at_ms, AppointmentFact::Deleted(life.visit()).into());
            life.client = (life.client + LOCATIONS.len() as u64) % (clients - clients % LOCATIONS.len() as u64);
            let booking = life.booking();
            self.next(life, at_ms, AppointmentFact::Booked(booking).into());
        }
        self.ask(life, 0.02);
    }

    fn reschedule(&mut self, life: &mut Life, wall: DateTime) {
        let (start_ms, now) = (life.start_ms(), life.wall);
        life.wall = wall;
        let Some(at_ms) = life.before(start_ms.min(life.start_ms()) - HOUR_MS) else {
            life.wall = now;
            return;
        };
        let booking = life.booking();
        self.next(life, at_ms, AppointmentFact::Rescheduled(booking).into());
    }

    fn ask(&mut self, life: &mut Life, probability: f64) {
        if life.chance.happens(probability)
            && let Some(at_ms) = life.before(life.start_ms() + 3 * HOUR_MS)
        {
            let request = Request {
                appointment_id: life.id.clone(),
                client_id: client_id(life.client),
                channels: if life.chance.happens(0.3) { vec![Channel::Email] } else { Vec::new() },
                template: None,
                reason: None,
                idempotency_digest: None,
            };
            self.next(life, at_ms, AppointmentFact::ReminderRequested(Box::new(request)).into());
        }
    }

    /// Its end: cancelled, deleted, or with an outcome, which is sometimes corrected.
    fn end(&mut self, life: &mut Life) {
        let ending = life.chance.below(100);
        if ending < 12
            && let Some(at_ms) = life.before(life.start_ms())
        {
            let by = [Some(CancelledBy::Client), Some(CancelledBy::Business), None][life.chance.below(3) as usize];
            let AppointmentRef { appointment_id, client_id } = life.visit();
            self.next(
                life,
                at_ms,
                AppointmentFact::Cancelled(Cancellation { appointment_id, client_id, reason: None, by }).into(),
            );
            if life.chance.happens(0.1)
                && let Some(at_ms) = life.before(life.start_ms())
            {
                // And active again, by the same booking.
                let booking = life.booking();
                self.next(life, at_ms, AppointmentFact::Booked(booking).into());
            }
            return;
        }
        if ending < 14
            && let Some(at_ms) = life.before(life.start_ms())
        {
            return self.next(life, at_ms, AppointmentFact::Deleted(life.visit()).into());
        }
        life.last_ms = life.last_ms.max(life.start_ms());
        let Some(at_ms) = life.before(life.last_ms + 20 * HOUR_MS) else { return };
        let outcome = if ending < 26 {
            AppointmentFact::Missed(life.visit()).into()
        } else {
            AppointmentFact::Attended(life.visit()).into()
        };
        self.next(life, at_ms, outcome);
        if ending == 14
            && let Some(at_ms) = life.before(life.last_ms + 50 * HOUR_MS)
        {
            self.next(life, at_ms, AppointmentFact::Attended(life.visit()).into());
        }
    }

    /// Some clinics send all their data again and again: the booking in force, and the latest event about it, some time
    /// after it was first sent and before any other event.
    fn sync(&mut self) {
        self.stated.sort_by_key(|stated| stated.at_ms);
        let mut of: BTreeMap<_, Vec<&Statement>> = BTreeMap::new();
        for stated in &self.stated {
            of.entry(appointment_of(stated)).or_default().push(stated);
        }
        of.remove(&None);
        let mut again = Vec::new();
        for (number, stated) in (0..).zip(of.into_values()) {
            let mut chance = self.draw.sequence(4, number);
            let mut booking = None;
            for (at, statement) in stated.iter().enumerate() {
                match &statement.fact {
                    Fact::Appointment(AppointmentFact::Booked(_) | AppointmentFact::Rescheduled(_)) => {
                        booking = Some(*statement);
                    }
                    Fact::Appointment(AppointmentFact::Cancelled(_) | AppointmentFact::Deleted(_)) => booking = None,
                    _ => {}
                }
                let next_ms = stated.get(at + 1).map_or(statement.at_ms + 3 * DAY_MS, |next| next.at_ms);
                let quarters = (next_ms - statement.at_ms) / QUARTER_MS - 2;
                if quarters < 1 || !chance.happens(0.2) {
                    continue;
                }
                let quarter = statement.at_ms.div_euclid(QUARTER_MS) + 1 + chance.below(quarters as u64) as i64;
                let at_ms = quarter * QUARTER_MS + (1 + chance.below(14) as i64) * MINUTE_MS;
                let is_request = matches!(statement.fact, Fact::Appointment(AppointmentFact::ReminderRequested(_)));
                let statements = booking.into_iter().chain(Some(*statement).filter(|_| !is_request));
                again.extend(statements.map(|stated| Statement {
                    at_ms,
                    tenant: stated.tenant,
                    fact: stated.fact.clone(),
                }));
            }
        }
        self.stated.extend(again);
    }

    /// Adds an event about an appointment, a second later than the previous one.
    fn next(&mut self, life: &mut Life, at_ms: i64, fact: Fact) {
        let at_ms = at_ms.max(life.last_ms + 1_000);
        life.last_ms = at_ms;
        self.state(at_ms, life.tenant, fact);
    }
}

/// The appointment of an event.
fn appointment_of(stated: &Statement) -> Option<(&'static str, String)> {
    let Fact::Appointment(fact) = &stated.fact else { return None };
    Some((stated.tenant, client::appointment_id(fact)?.to_owned()))
}

/// The local time when the clocks of a zone change next.
fn night_of_change(after_ms: i64, zone: &str) -> Option<DateTime> {
    let rules = rules(zone);
    let change = rules.following(Timestamp::from_millisecond(after_ms).ok()?).next()?;
    let before_ms = change.timestamp().as_millisecond() - 1_000;
    (change.timestamp().as_millisecond() < after_ms + 80 * DAY_MS)
        .then(|| zone::local(before_ms, &rules).saturating_add(1.second()))
}
