//! A story that is sent while faults are injected: logins and visits of the last days in order of time, and the
//! reminders that must be on the topic when everything is folded.
//!
//! Every time is relative to now: some visits are near enough that a step is due while the story is sent. Nothing in it
//! changes when an hour passes, so that it is the same on a slow machine.

use crate::facts::{drawn, event};
use foretell_events::codec::rfc3339;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How long ago the story begins, and how long after that its last visit is booked.
const BEGAN_MS: i64 = 12 * DAY_MS;
const BOOKING_MS: i64 = 8 * DAY_MS;
const LOGGING_IN_MS: i64 = 10 * DAY_MS;

const USERS: u64 = 300;
const CLIENTS: u64 = 120;

/// Events of a batch, and of one user or client in it: few enough that repetitions are among the last 64.
const BATCH_EVENTS_MAX: usize = 400;
const BATCH_SUBJECT_EVENTS_MAX: usize = 60;

/// Events, and their expected consequences.
pub struct Story {
    /// CloudEvents in order of their times.
    pub events: Vec<Value>,
    /// Appointment and step of every reminder that is due and remains active.
    pub due: BTreeSet<(String, String)>,
}

/// The events of a visit with their times, and the step that is due now, if any.
struct Course {
    events: Vec<(i64, Value)>,
    due: Option<&'static str>,
}

impl Story {
    /// This many logins and visits, as of this moment.
    pub fn new(now_ms: i64, logins: u64, visits: u64) -> Self {
        let began_ms = now_ms - BEGAN_MS;
        let mut timed = Vec::new();
        let mut due = BTreeSet::new();
        for client in 0..CLIENTS {
            // Without quiet hours.
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
            let course = visit(n, began_ms + BOOKING_MS * n as i64 / visits as i64, now_ms);
            timed.extend(course.events);
            due.extend(course.due.map(|step| (appointment(n), step.to_owned())));
        }
        timed.sort_by_key(|(time_ms, _)| *time_ms);
        Self { events: timed.into_iter().map(|(_, event)| event).collect(), due }
    }

    /// The events in batches that may be sent again: every repetition is detected.
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

/// One user has a good part of them, so that owners fill batches, and many share addresses and networks, so that most
/// rows are counted over users.
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

fn visit(n: u64, booked_ms: i64, now_ms: i64) -> Course {
    let client = drawn(39, n, CLIENTS);
    let ids = json!({"client_id": format!("client-{client}"), "appointment_id": appointment(n)});
    let sent = |kind: &str, time_ms, data: &Value| {
        (time_ms, event(&format!("{n}-{kind}"), &format!("appointment.{kind}"), time_ms, data))
    };
    let placed = |kind: &str, time_ms, starts_ms| {
        let mut data = ids.clone();
        data["starts_at"] = json!(rfc3339(starts_ms));
        data["time_zone"] = json!("Europe/Dublin");
        sent(kind, time_ms, &data)
    };
    let minutes_ms = drawn(40, n, 60) as i64 * 60_000;
    let (in_22_h, in_48_h) = (now_ms + 22 * HOUR_MS + minutes_ms, now_ms + 48 * HOUR_MS + minutes_ms);
    let (booked, later_ms) = (|starts_ms| placed("booked", booked_ms, starts_ms), booked_ms + DAY_MS);
    let (events, due) = match drawn(41, n, 8) {
        number @ 0..3 => {
            let outcome = if number == 0 { "missed" } else { "attended" };
            (vec![booked(booked_ms + DAY_MS), sent(outcome, booked_ms + 2 * DAY_MS, &ids)], None)
        }
        3 => (vec![booked(in_22_h)], Some("24h")),
        4 => (vec![booked(in_48_h)], Some("72h")),
        5 => (vec![booked(in_22_h), sent("cancelled", later_ms, &ids)], None),
        6 => (vec![booked(in_22_h), placed("rescheduled", later_ms, in_48_h)], Some("72h")),
        _ => (vec![booked(in_48_h), placed("rescheduled", later_ms, in_22_h)], Some("24h")),
    };
    Course { events, due }
}
