//! A story to tell while something goes wrong: logins and visits of the last days in order of time, and the reminders
//! that must stand on the topic when all of it is folded.
//!
//! Every instant is told from now: some visits are near enough that a step is due while the story is told. Nothing in
//! it changes by the mere passing of an hour, so that a slow machine is told the same story.

use crate::facts::{drawn, event};
use foretell_events::codec::rfc3339;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The story begins so long ago, and its last visit is booked so long after that.
const BEGAN_MS: i64 = 12 * DAY_MS;
const BOOKING_MS: i64 = 8 * DAY_MS;
const LOGGING_IN_MS: i64 = 10 * DAY_MS;

const USERS: u64 = 300;
const CLIENTS: u64 = 120;

/// Events of a batch, and those of one user or client in it: sent again, they are still among the last 64.
const BATCH_EVENTS_MAX: usize = 400;
const BATCH_SUBJECT_EVENTS_MAX: usize = 60;

/// What happened, and what must follow from it.
pub struct Story {
    /// CloudEvents in order of their times.
    pub events: Vec<Value>,
    /// Appointment and step of every reminder that is due and stays so.
    pub due: BTreeSet<(String, String)>,
}

/// What becomes of a visit: events and their times, and the step that is due now, if any.
struct Fate {
    events: Vec<(i64, Value)>,
    due: Option<&'static str>,
}

impl Story {
    /// So many logins and so many visits, told at this moment.
    pub fn new(now_ms: i64, logins: u64, visits: u64) -> Self {
        let began_ms = now_ms - BEGAN_MS;
        let mut timed = Vec::new();
        let mut due = BTreeSet::new();
        for client in 0..CLIENTS {
            // One may write to them at any hour.
            let data =
                json!({"client_id": format!("client-{client}"), "quiet_hours": {"from": "00:00", "to": "00:00"}});
            let time_ms = began_ms - HOUR_MS + client as i64;
            timed.push((time_ms, event(&format!("profile-{client}"), "client.updated", time_ms, &data)));
        }
        for n in 0..logins {
            let time_ms = began_ms + LOGGING_IN_MS * n as i64 / logins as i64;
            timed.push((time_ms, login(n, time_ms)));
        }
        for n in 0..visits {
            let fate = visit(n, began_ms + BOOKING_MS * n as i64 / visits as i64, now_ms);
            timed.extend(fate.events);
            due.extend(fate.due.map(|step| (appointment(n), step.to_owned())));
        }
        timed.sort_by_key(|(time_ms, _)| *time_ms);
        Self { events: timed.into_iter().map(|(_, event)| event).collect(), due }
    }

    /// The events in batches that may be sent again: every repetition is recognised.
    pub fn batches(&self) -> Vec<Vec<Value>> {
        let mut batches = vec![Vec::new()];
        let mut subjects: BTreeMap<String, usize> = BTreeMap::new();
        for event in &self.events {
            let data = &event["data"];
            let subject = data["user_id"].as_str().or(data["client_id"].as_str()).expect("a subject");
            let of_subject = subjects.get(subject).copied().unwrap_or(0);
            let last = batches.last().expect("at least one");
            if last.len() >= BATCH_EVENTS_MAX || of_subject >= BATCH_SUBJECT_EVENTS_MAX {
                batches.push(Vec::new());
                subjects.clear();
            }
            *subjects.entry(subject.to_owned()).or_default() += 1;
            batches.last_mut().expect("at least one").push(event.clone());
        }
        batches
    }
}

fn appointment(n: u64) -> String {
    format!("visit-{n}")
}

/// One user has a good part of them, so that owners fill batches, and addresses and networks are shared by many, so
/// that most rows are counted over users.
fn login(n: u64, time_ms: i64) -> Value {
    let user = if drawn(31, n, 8) == 0 { 0 } else { drawn(32, n, USERS) };
    let kind = if drawn(33, n, 5) == 0 { "login.failed" } else { "login.succeeded" };
    let country = ["IE", "DE", "FR"][drawn(36, n, 3) as usize];
    let data = json!({
        "user_id": format!("user-{user}"), "ip": format!("198.51.100.{}", drawn(34, n, 40)),
        "asn": 64_500 + drawn(35, n, 6), "country": country,
        "device_id": format!("device-{}", drawn(37, n, 3)), "user_agent": format!("agent-{}", drawn(38, n, 9)),
    });
    event(&format!("login-{n}"), kind, time_ms, &data)
}

fn visit(n: u64, booked_ms: i64, now_ms: i64) -> Fate {
    let client = drawn(39, n, CLIENTS);
    let ids = json!({"client_id": format!("client-{client}"), "appointment_id": appointment(n)});
    let told = |kind: &str, time_ms, data: &Value| {
        (time_ms, event(&format!("{n}-{kind}"), &format!("appointment.{kind}"), time_ms, data))
    };
    let placed = |kind: &str, time_ms, starts_ms| {
        let mut data = ids.clone();
        data["starts_at"] = json!(rfc3339(starts_ms));
        data["time_zone"] = json!("Europe/Dublin");
        told(kind, time_ms, &data)
    };
    let minutes_ms = drawn(40, n, 60) as i64 * 60_000;
    let (in_22_h, in_48_h) = (now_ms + 22 * HOUR_MS + minutes_ms, now_ms + 48 * HOUR_MS + minutes_ms);
    let (booked, later_ms) = (|starts_ms| placed("booked", booked_ms, starts_ms), booked_ms + DAY_MS);
    let (events, due) = match drawn(41, n, 8) {
        fate @ 0..3 => {
            let outcome = if fate == 0 { "missed" } else { "attended" };
            (vec![booked(booked_ms + DAY_MS), told(outcome, booked_ms + 2 * DAY_MS, &ids)], None)
        }
        3 => (vec![booked(in_22_h)], Some("24h")),
        4 => (vec![booked(in_48_h)], Some("72h")),
        5 => (vec![booked(in_22_h), told("cancelled", later_ms, &ids)], None),
        6 => (vec![booked(in_22_h), placed("rescheduled", later_ms, in_48_h)], Some("72h")),
        _ => (vec![booked(in_48_h), placed("rescheduled", later_ms, in_22_h)], Some("24h")),
    };
    Fate { events, due }
}
