//! Logins in the layout of the public RBA data set, and of synthetic histories made for it.
//!
//! The first line determines which of the two a file is:
//! - the data set: `index`, `Login Timestamp` (`YYYY-MM-DD HH:MM:SS.mmm`, UTC), `User ID`, `IP Address` and so on.
//!   `Login Successful` determines the type. `Is Attack IP` and `Is Account Takeover` become the [`SourceLabel`] and
//!   are never part of an event. City and region are invented by the publisher, as are the addresses in 10.0.0.0/8; the
//!   city is still read, because it is only shown to people.
//! - a synthetic history: `index`, `timestamp` (`YYYY-MM-DDTHH:MM:SS`, UTC), `user_id`, `ip` and so on, all
//!   successful, without labels.
//!
//! An event's id is its index. An invalid country code, such as data files once used for proxies (`A1`) and regions
//! (`EU`), is treated as missing, and counted.

use super::table::{Column, ColumnAt, Fields, Table, TableRow, number, text};
use super::{Error, Origin, Rows, SourceLabel, Sourced};
use foretell_events::{Event, country};
use serde_json::Value;
use std::io::BufRead;

/// The `source` of events of the data set.
pub const SOURCE: &str = "urn:foretell:import:rba";
/// The `source` of events of a synthetic history.
pub(crate) const SOURCE_SYNTHETIC: &str = "urn:foretell:import:rba-synthetic";

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

/// The columns of a file.
struct Layout {
    source: &'static str,
    index: ColumnAt,
    time: ColumnAt,
    fields: Fields,
    /// Missing: all rows are successful.
    succeeded: Option<ColumnAt>,
    /// `Is Attack IP` and `Is Account Takeover`, if both exist.
    labels: Option<(ColumnAt, ColumnAt)>,
}

impl Layout {
    fn of(table: &Table<'_>, origin: Origin<'_>) -> Result<Self, Error> {
        let index = table.find("index", origin)?;
        if table.has("timestamp") {
            return Ok(Self {
                source: SOURCE_SYNTHETIC,
                index,
                time: table.find("timestamp", origin)?,
                fields: table.fields(&COLUMNS_SYNTHETIC, origin)?,
                succeeded: None,
                labels: None,
            });
        }
        let labels = ("Is Attack IP", "Is Account Takeover");
        Ok(Self {
            source: SOURCE,
            index,
            time: table.find("Login Timestamp", origin)?,
            fields: table.fields(&COLUMNS, origin)?,
            succeeded: Some(table.find("Login Successful", origin)?),
            labels: table.find(labels.0, origin).ok().zip(table.find(labels.1, origin).ok()),
        })
    }

    /// The event of a row, and whether its country code is invalid.
    fn read(&self, row: TableRow<'_>, origin: Origin<'_>) -> Result<(Sourced, bool), Error> {
        let flag = |column| row.flag(column, ("true", "false"), origin);
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
                Some(SourceLabel::Row { attack_ip: flag(attack)?, account_takeover: flag(takeover)? })
            }
            None => None,
        };
        Ok((Sourced::of_row(Event { envelope, fact }, label), is_without_country))
    }
}

/// Whether it has the length of a code but is not one; anything longer is an error in the file, and rejected.
fn names_no_country(code: &str) -> bool {
    code.len() == 2 && !country::exists(&code.to_ascii_uppercase())
}
