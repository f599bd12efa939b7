//! Random histories: few subjects and few values, so that all combinations occur.

use crate::random::Random;
use foretell_events::appointment::{
    AppointmentFact, AppointmentRef, Booking, Cancellation, CancelledBy, ClientErasure, ClientUpdate, StartsAt,
};
use foretell_events::codec::encode_event;
use foretell_events::login::{Attempt, DeviceRef, Login, LoginFact, UserErasure, Verdict};
use foretell_events::record::NewRecord;
use foretell_events::reminder::Request;
use foretell_events::{Envelope, Event, Fact};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const HOUR_MS: i64 = 3_600_000;

/// The kind of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Logins,
    Appointments,
}

/// A record to append.
pub enum Made {
    New(NewRecord),
    /// The record of an event that was appended before.
    Again(NewRecord),
}

/// Generates the records of a history, including repetitions and garbage.
pub struct History {
    kind: Kind,
    random: Random,
    made: Vec<Event>,
    /// Users or clients: few, so that all combinations occur, or enough for rows to be evicted and read again.
    subjects: u64,
}

impl History {
    pub fn new(kind: Kind, random: Random) -> Self {
        let subjects = random.one_of(&[5, 16]);
        Self { kind, random, made: Vec::new(), subjects }
    }

    /// The next record; `now_ms` is the time at which it is appended.
    pub fn next(&mut self, now_ms: i64) -> Made {
        let random = self.random.clone();
        if !self.made.is_empty() && random.chance(12) {
            // A repetition, of a recent or an old record.
            let back = random.below(self.made.len().min(100) as u64) as usize;
            return Made::Again(encode_event(&self.made[self.made.len() - 1 - back], &[]));
        }
        let time_ms = now_ms - random.below(4) as i64 * HOUR_MS / 7;
        let fact = match self.kind {
            Kind::Logins => login(&random, self.subjects),
            Kind::Appointments => appointment(&random, now_ms, self.subjects - 1, 40),
        };
        let id = format!("e{}", self.made.len());
        let envelope = Envelope { id, source: "urn:simulation".into(), tenant: "t".into(), time_ms };
        let event = Event { envelope, fact };
        let mut record = encode_event(&event, &[]);
        if random.chance(6) {
            spoil(&mut record, &random);
            return Made::New(record);
        }
        self.made.push(event);
        Made::New(record)
    }
}

/// Turns a record into one that must become a dead letter.
fn spoil(record: &mut NewRecord, random: &Random) {
    match random.below(3) {
        0 => record.value = bytes::Bytes::from_static(b"{not json"),
        1 => record.headers.retain(|(name, _)| name != "ce_type"),
        _ => record.key = Some(bytes::Bytes::from_static(b"t:somebody-else")),
    }
}

fn login(random: &Random, users: u64) -> Fact {
    let user_id = format!("u{}", random.below(users));
    match random.below(20) {
        0 => return LoginFact::UserErased(UserErasure { user_id }).into(),
        1 => return LoginFact::DeviceTrusted(device(user_id, format!("d{}", random.below(4)))).into(),
        2 => return LoginFact::DeviceRevoked(device(user_id, format!("d{}", random.below(4)))).into(),
        3 => return LoginFact::Reported(verdict(random, user_id)).into(),
        4 => return LoginFact::Confirmed(verdict(random, user_id)).into(),
        _ => {}
    }
    let ip = IpAddr::V4(Ipv4Addr::new(198, 51, random.below(2) as u8, random.below(3) as u8));
    let mut attempt = Attempt::from_ip(ip);
    attempt.asn = Some(64_500 + random.below(2) as u32);
    attempt.country = Some(["DE", "NO", "BR"][random.below(3) as usize].into());
    attempt.browser = Some(format!("Firefox {}", random.below(3)));
    attempt.device_id = random.chance(50).then(|| format!("d{}", random.below(4)));
    LoginFact::Attempted(Box::new(Login {
        user_id,
        succeeded: random.chance(70),
        attempt,
        decision_id: random.chance(80).then(|| decision_id(random)),
        session_id: None,
        method: None,
        failure_reason: None,
    }))
    .into()
}

fn device(user_id: String, device_id: String) -> DeviceRef {
    DeviceRef { user_id, device_id, idempotency_digest: None }
}

/// One of a few, so that verdicts find their logins.
fn decision_id(random: &Random) -> String {
    format!("s{}", random.below(6))
}

fn verdict(random: &Random, user_id: String) -> Box<Verdict> {
    Box::new(Verdict {
        user_id,
        decision_id: decision_id(random),
        reported_by: None,
        ip: None,
        device_id: random.chance(30).then(|| format!("d{}", random.below(4))),
        asn: None,
        country: None,
        user_agent: None,
        idempotency_digest: None,
    })
}

/// An event about one of a few appointments of a few clients; outcomes only of visits that began at most this many
/// hours ago, because only those can be known.
pub fn appointment(random: &Random, now_ms: i64, clients: u64, past_hours: i64) -> Fact {
    let client_id = format!("c{}", random.below(clients));
    let appointment_id = format!("a{}", random.below(6));
    let visit = AppointmentRef { appointment_id: appointment_id.clone(), client_id: client_id.clone() };
    match random.below(24) {
        0..=7 => AppointmentFact::Booked(Box::new(booking(random, now_ms - past_hours * HOUR_MS, visit))).into(),
        8..=10 => AppointmentFact::Rescheduled(Box::new(booking(random, now_ms - past_hours * HOUR_MS, visit))).into(),
        11 => AppointmentFact::Confirmed(visit).into(),
        12..=14 => AppointmentFact::Attended(visit).into(),
        15..=17 => AppointmentFact::Missed(visit).into(),
        18..=19 => {
            let by = random.chance(50).then_some(CancelledBy::Client);
            AppointmentFact::Cancelled(Cancellation { appointment_id, client_id, reason: None, by }).into()
        }
        20 => AppointmentFact::Deleted(visit).into(),
        21 => AppointmentFact::ClientUpdated(Box::new(ClientUpdate { client_id, ..ClientUpdate::default() })).into(),
        22 if random.chance(30) => AppointmentFact::ClientErased(ClientErasure { client_id }).into(),
        _ => request(visit),
    }
}

/// A manual request for a reminder of one of those appointments, now.
pub fn by_hand(random: &Random, clients: u64) -> Fact {
    let (client, appointment) = (random.below(clients), random.below(6));
    request(AppointmentRef { appointment_id: format!("a{appointment}"), client_id: format!("c{client}") })
}

fn request(visit: AppointmentRef) -> Fact {
    AppointmentFact::ReminderRequested(Box::new(Request {
        appointment_id: visit.appointment_id,
        client_id: visit.client_id,
        channels: Vec::new(),
        template: None,
        reason: None,
        idempotency_digest: None,
    }))
    .into()
}

fn booking(random: &Random, from_ms: i64, visit: AppointmentRef) -> Booking {
    let at_ms = from_ms + random.below(120) as i64 * HOUR_MS;
    Booking {
        appointment_id: visit.appointment_id,
        client_id: visit.client_id,
        starts_at: StartsAt::Instant { at_ms, zone: Some("Europe/Dublin".into()) },
        duration_minutes: None,
        location_id: None,
        practitioner_id: None,
        service: None,
        booked_at_ms: None,
        attributes: BTreeMap::new(),
    }
}
