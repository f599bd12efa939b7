//! Logins in the layout of the public RBA data set, and of synthetic histories made for it.
//!
//! Which of the two a file is, its first line says:
//! - the data set: `index`, `Login Timestamp` (`YYYY-MM-DD HH:MM:SS.mmm`, UTC), `User ID`, `IP Address` and so on.
//!   `Login Successful` chooses the type. `Is Attack IP` and `Is Account Takeover` become the [`Label`] and never
//!   part of an event. City and region are the publisher's inventions, as addresses in 10.0.0.0/8 are; the city is
//!   read all the same, being for people only.
//! - a synthetic history: `index`, `timestamp` (`YYYY-MM-DDTHH:MM:SS`, UTC), `user_id`, `ip` and so on, all
//!   successful, without labels.
//!
//! An event's id is its index. A country code that names none, as data files once had them for proxies (`A1`) and
//! for regions (`EU`), is absent, and counted.

use super::table::{Column, Fields, Place, Row, Table, number, text};
use super::{Error, Label, Origin, Rows, Sourced};
use foretell_events::{Event, country};
use serde_json::Value;
use std::io::BufRead;

/// The `source` of events of the data set.
pub const SOURCE: &str = "urn:foretell:import:rba";
/// The `source` of events of a synthetic history.
pub const SOURCE_SYNTHETIC: &str = "urn:foretell:import:rba-synthetic";

const COLUMNS: [Column; 10] = [
    text("User ID", "user_id"),
    number("Round-Trip Time [ms]", "rtt_ms"),
    text("IP Address", "ip"),
    text("Country", "country"),
    text("City", "city"),
    number("ASN", "asn"),
    text("User Agent String", "user_agent"),
    text("Browser Name and Version", "browser"),
    text("OS Name and Version", "os"),
    text("Device Type", "device_type"),
];

const COLUMNS_SYNTHETIC: [Column; 8] = [
    text("user_id", "user_id"),
    text("ip", "ip"),
    number("asn", "asn"),
    text("country", "country"),
    text("ua", "user_agent"),
    text("browser", "browser"),
    text("os", "os"),
    text("device_type", "device_type"),
];

/// Reads all rows.
pub(super) fn read(input: &mut dyn BufRead, rows: &mut Rows<'_>) -> Result<(), Error> {
    let origin = rows.origin;
    let mut table = Table::open(input, origin)?;
    let layout = Layout::of(&table, origin)?;
    while let Some(row) = table.next(rows)? {
        let (sourced, is_without_country) = layout.read(row, origin)?;
        rows.without_country += u64::from(is_without_country);
        rows.push(sourced)?;
    }
    Ok(())
}

/// Where everything is in a certain file.
struct Layout {
    source: &'static str,
    index: Place,
    time: Place,
    fields: Fields,
    /// Absent: all rows are successful.
    succeeded: Option<Place>,
    /// `Is Attack IP` and `Is Account Takeover`, where both are there.
    labels: Option<(Place, Place)>,
}

impl Layout {
    fn of(table: &Table<'_>, origin: Origin<'_>) -> Result<Self, Error> {
        let index = table.place("index", origin)?;
        if table.has("timestamp") {
            return Ok(Self {
                source: SOURCE_SYNTHETIC,
                index,
                time: table.place("timestamp", origin)?,
                fields: table.fields(&COLUMNS_SYNTHETIC, origin)?,
                succeeded: None,
                labels: None,
            });
        }
        let labels = ("Is Attack IP", "Is Account Takeover");
        Ok(Self {
            source: SOURCE,
            index,
            time: table.place("Login Timestamp", origin)?,
            fields: table.fields(&COLUMNS, origin)?,
            succeeded: Some(table.place("Login Successful", origin)?),
            labels: table.place(labels.0, origin).ok().zip(table.place(labels.1, origin).ok()),
        })
    }

    /// The event of a row, and whether its country code names no country.
    fn read(&self, row: Row<'_>, origin: Origin<'_>) -> Result<(Sourced, bool), Error> {
        let flag = |place| row.flag(place, ("true", "false"), origin);
        let type_name = match self.succeeded.map(flag).transpose()? {
            Some(false) => "foretell.login.failed",
            Some(true) | None => "foretell.login.succeeded",
        };
        let mut data = row.object(&self.fields);
        let is_without_country = data.get("country").and_then(Value::as_str).is_some_and(names_no_country);
        if is_without_country {
            data.remove("country");
        }
        let fact = row.fact(type_name, &data, &self.fields, origin)?;
        let id = row.required(self.index, origin)?.to_owned();
        let envelope = origin.envelope(id, self.source, row.time_ms(self.time, "Z", origin)?);
        let label = match self.labels {
            Some((attack, takeover)) => {
                Some(Label::Row { attack_ip: flag(attack)?, account_takeover: flag(takeover)? })
            }
            None => None,
        };
        Ok((Sourced::of_row(Event { envelope, fact }, label), is_without_country))
    }
}

/// Whether it is of a code's length and not one; anything longer is a mistake in the file, and refused as one.
fn names_no_country(code: &str) -> bool {
    code.len() == 2 && !country::exists(&code.to_ascii_uppercase())
}
