//! Facts to import: a public sample, and reproducible files made here.

use foretell_events::codec::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Logins of the RBA data set, see `tests/data/README.md`.
pub const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rba-sample.csv.gz");
/// Rows of the sample.
pub const SAMPLE_ROWS: usize = 2_000;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 1 February 2026, 00:00 UTC.
const BEGIN_MS: i64 = 1_769_904_000_000;

/// A number below `below` that only depends on `seed` and `index`.
pub fn drawn(seed: u64, index: u64, below: u64) -> u64 {
    xxh3_64_with_seed(&index.to_le_bytes(), seed) % below
}

/// One row of the sample.
#[derive(Debug, Clone)]
pub struct SampleRow {
    pub user_id: String,
    pub ip: String,
    pub succeeded: bool,
}

/// The sample, read without Foretell.
pub fn sample() -> Vec<SampleRow> {
    let file = flate2::read::GzDecoder::new(File::open(SAMPLE).expect("the sample"));
    let mut reader = csv::Reader::from_reader(file);
    let rows = reader.records().map(|row| {
        let row = row.expect("a row");
        SampleRow { user_id: row[2].to_owned(), ip: row[4].to_owned(), succeeded: row[13].eq("TRUE") }
    });
    rows.collect()
}

/// A CloudEvent in structured form.
pub fn event(id: &str, kind: &str, time_ms: i64, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "urn:test", "type": format!("foretell.{kind}"),
        "time": rfc3339(time_ms), "datacontenttype": "application/json", "data": data,
    })
}

/// Writes this many logins as JSON Lines. One user has a quarter of them, so that batches end early, and many share an
/// address and a network, so that most rows are counted over users.
pub fn write_logins(path: &Path, count: u64) {
    let lines = (0..count).map(|n| {
        let user = if drawn(1, n, 4) == 0 { 0 } else { drawn(2, n, 300) };
        let kind = if drawn(3, n, 5) == 0 { "login.failed" } else { "login.succeeded" };
        let country = ["IE", "DE", "FR"][drawn(6, n, 3) as usize];
        let data = json!({
            "user_id": format!("user-{user}"), "ip": format!("198.51.100.{}", drawn(4, n, 40)),
            "asn": 64_500 + drawn(5, n, 6), "country": country,
            "device_id": format!("device-{}", drawn(7, n, 3)), "user_agent": format!("agent-{}", drawn(8, n, 9)),
        });
        event(&format!("login-{n}"), kind, BEGIN_MS + n as i64 * 30_000, &data).to_string() + "\n"
    });
    std::fs::write(path, lines.collect::<String>()).expect("written");
}

/// Writes the events of this many visits as JSON Lines: booked, sometimes moved, then kept, missed or cancelled.
pub fn write_visits(path: &Path, count: u64) {
    let mut events = Vec::new();
    for n in 0..count {
        let client = if drawn(11, n, 5) == 0 { 0 } else { drawn(12, n, 150) };
        let ids = json!({"appointment_id": format!("visit-{n}"), "client_id": format!("client-{client}")});
        let with = |name: &str, value: Value| {
            let mut data = ids.clone();
            data[name] = value;
            data
        };
        let booked_ms = BEGIN_MS + n as i64 * 60_000;
        let starts_ms = booked_ms + (1 + drawn(13, n, 30) as i64) * DAY_MS;
        let mut add = |kind: &str, time_ms, data: &Value| {
            let added = event(&format!("{n}-{kind}"), &format!("appointment.{kind}"), time_ms, data);
            events.push((time_ms, added.to_string()));
        };
        add("booked", booked_ms, &with("starts_at", json!(rfc3339(starts_ms))));
        if drawn(14, n, 6) == 0 {
            add("rescheduled", booked_ms + 1_000, &with("starts_at", json!(rfc3339(starts_ms + DAY_MS))));
        }
        match drawn(15, n, 6) {
            0 => add("missed", starts_ms + 2 * DAY_MS, &ids),
            1 => add("cancelled", starts_ms - 3_600_000, &with("cancelled_by", json!("client"))),
            _ => add("attended", starts_ms + 2 * DAY_MS, &ids),
        }
    }
    events.sort();
    let lines = events.into_iter().map(|(_, line)| line + "\n");
    std::fs::write(path, lines.collect::<String>()).expect("written");
}

/// The history of a client of [`write_noshow`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    pub attended: u64,
    pub missed: u64,
}

/// Writes invented appointments in the layout `noshow`; returns the history of each client, and the number of invalid
/// rows that must be skipped.
pub fn write_noshow(path: &Path, rows: u64) -> (BTreeMap<String, Kept>, u64) {
    let mut text = String::from(
        "PatientId,AppointmentID,Gender,ScheduledDay,AppointmentDay,Age,Neighbourhood,Scholarship,Hipertension,\
         Diabetes,Alcoholism,Handcap,SMS_received,No-show\n",
    );
    let (mut clients, mut faulty): (BTreeMap<String, Kept>, u64) = Default::default();
    for n in 0..rows {
        let client = format!("{}", 7_000 + drawn(21, n, 60));
        let scheduled_ms = BEGIN_MS + drawn(22, n, 40 * 86_400) as i64 * 1_000;
        let day_ms = scheduled_ms - scheduled_ms.rem_euclid(DAY_MS) + drawn(23, n, 25) as i64 * DAY_MS;
        // Sometimes a visit before its booking, or a client not born yet.
        let (day_ms, age) = match drawn(24, n, 50) {
            0 => (scheduled_ms - 2 * DAY_MS, 30),
            1 => (day_ms, -1),
            age => (day_ms, age as i64),
        };
        let missed = drawn(25, n, 5) == 0;
        match age < 0 || day_ms < scheduled_ms - DAY_MS {
            true => faulty += 1,
            false if missed => clients.entry(client.clone()).or_default().missed += 1,
            false => clients.entry(client.clone()).or_default().attended += 1,
        }
        let [scheduled, day] = [scheduled_ms, day_ms].map(|ms| rfc3339(ms)[..19].to_owned() + "Z");
        let outcome = if missed { "Yes" } else { "No" };
        let gender = ["F", "M"][drawn(26, n, 2) as usize];
        writeln!(text, "{client},{},{gender},{scheduled},{day},{age},CENTRO,0,0,0,0,0,0,{outcome}", 50_000 + n)
            .expect("text grows");
    }
    std::fs::write(path, text).expect("written");
    (clients, faulty)
}

/// A visit in 22 hours that was booked long ago, of a client without quiet hours: a reminder is due.
pub fn booked(client: u64, now_ms: i64) -> [Value; 2] {
    let profile = json!({"client_id": format!("due-{client}"), "quiet_hours": {"from": "00:00", "to": "00:00"}});
    let visit = json!({
        "client_id": format!("due-{client}"), "appointment_id": format!("visit-due-{client}"), "time_zone": "UTC",
        "starts_at": rfc3339(now_ms + 22 * HOUR_MS), "booked_at": rfc3339(now_ms - 240 * HOUR_MS),
    });
    [
        event(&format!("{client}-profile"), "client.updated", now_ms - 241 * HOUR_MS, &profile),
        event(&format!("{client}-booked"), "appointment.booked", now_ms - 240 * HOUR_MS, &visit),
    ]
}
