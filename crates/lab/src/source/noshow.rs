//! Appointments in the layout of the public data set "Medical Appointment No Shows".
//!
//! A row becomes two events: the booking at `ScheduledDay`, and at 24:00 of `AppointmentDay`, when it is known, whether
//! the client came. The set contains no time of day, so a visit starts at 00:00 of its day, in UTC; a same-day visit
//! then starts before it was booked, but its lead is still 0, because leads count days.
//!
//! Rows with a negative lead or age are errors of the set: skipped and counted. `PatientId` is kept as text, because it
//! is not always a whole number. `SMS_received` is left out: it is a treatment after the booking, and a model trained
//! on it would learn the clinic's policy.

use super::table::{Column, ColumnAt, Fields, Kind, Table, TableRow, number, text};
use super::{Error, Origin, Rows, Sourced};
use foretell_events::Event;
use foretell_events::codec;
use foretell_events::time::DAY_MS;
use serde_json::{Map, Value, json};
use std::io::BufRead;

/// The `source` of the events.
pub const SOURCE: &str = "urn:foretell:import:noshow";

const IDS: [Column; 2] = [text("AppointmentID", "appointment_id"), text("PatientId", "client_id")];

const ATTRIBUTES: [Column; 8] = [
    number("Age", "age"),
    text("Gender", "gender"),
    text("Neighbourhood", "neighbourhood"),
    number("Scholarship", "scholarship"),
    number("Hipertension", "hypertension"),
    number("Diabetes", "diabetes"),
    number("Alcoholism", "alcoholism"),
    number("Handcap", "handicap"),
];

/// Reads all rows.
pub(super) fn read(input: &mut dyn BufRead, rows: &mut Rows<'_>) -> Result<(), Error> {
    let origin = rows.origin;
    let mut table = Table::open(input, origin)?;
    let layout = Layout::of(&table, origin)?;
    while let Some(row) = table.next(rows)? {
        match layout.read(row, origin)? {
            Some([booked, outcome]) => {
                rows.push(booked)?;
                rows.push(outcome)?;
            }
            None => rows.skipped += 1,
        }
    }
    Ok(())
}

/// The columns of a file.
struct Layout {
    ids: Fields,
    attributes: Fields,
    numbers: Vec<ColumnAt>,
    scheduled: ColumnAt,
    day: ColumnAt,
    missed: ColumnAt,
}

impl Layout {
    fn of(table: &Table<'_>, origin: Origin<'_>) -> Result<Self, Error> {
        let numbers = ATTRIBUTES.iter().filter(|column| column.kind == Kind::Number);
        Ok(Self {
            ids: table.fields(&IDS, origin)?,
            attributes: table.fields(&ATTRIBUTES, origin)?,
            numbers: numbers.map(|column| table.find(column.name, origin)).collect::<Result<_, _>>()?,
            scheduled: table.find("ScheduledDay", origin)?,
            day: table.find("AppointmentDay", origin)?,
            missed: table.find("No-show", origin)?,
        })
    }

    /// The two events of a row, or none if it is skipped.
    fn read(&self, row: TableRow<'_>, origin: Origin<'_>) -> Result<Option<[Sourced; 2]>, Error> {
        let booked_ms = row.time_ms(self.scheduled, "", origin)?;
        let day_ms = midnight(row.time_ms(self.day, "", origin)?);
        let type_name = match row.flag(self.missed, ("yes", "no"), origin)? {
            true => "foretell.appointment.missed",
            false => "foretell.appointment.attended",
        };
        let attributes = self.attributes(row, origin)?;
        let age = attributes.get("age").and_then(Value::as_f64);
        if midnight(booked_ms) > day_ms || age.is_some_and(|age| age < 0.0) {
            return Ok(None);
        }
        let ids = row.object(&self.ids);
        let id = |end: &str| format!("{}-{end}", ids.get("appointment_id").and_then(Value::as_str).unwrap_or_default());
        let mut booking = ids.clone();
        booking.extend([
            ("starts_at".to_owned(), json!(codec::rfc3339(day_ms))),
            ("time_zone".to_owned(), json!("UTC")),
            ("booked_at".to_owned(), json!(codec::rfc3339(booked_ms))),
            ("attributes".to_owned(), Value::Object(attributes)),
        ]);
        let event = |type_name, data, (id, time_ms)| {
            let fact = row.fact(type_name, data, &self.ids, origin)?;
            Ok(Sourced::of_row(Event { envelope: origin.envelope(id, SOURCE, time_ms), fact }, None))
        };
        let booked = event("foretell.appointment.booked", &booking, (id("booked"), booked_ms))?;
        let outcome = event(type_name, &ids, (id("outcome"), day_ms + DAY_MS))?;
        Ok(Some([booked, outcome]))
    }

    /// The attributes of the client at the booking.
    fn attributes(&self, row: TableRow<'_>, origin: Origin<'_>) -> Result<Map<String, Value>, Error> {
        for column in &self.numbers {
            if row.value(*column).is_some_and(|text| !text.parse().is_ok_and(f64::is_finite)) {
                return Err(origin.bad(row.line, column.name, "is not a number"));
            }
        }
        Ok(row.object(&self.attributes))
    }
}

/// 00:00 of the day of an instant, in UTC.
fn midnight(at_ms: i64) -> i64 {
    at_ms - at_ms.rem_euclid(DAY_MS)
}
