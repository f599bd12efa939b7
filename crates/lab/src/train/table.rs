//! Writes rows as a table, to compare the model with others on the same rows and inputs.
//!
//! One column per input, and per attribute that is not protected; missing values are empty. Ids of appointments are the
//! only identifiers in it.

use super::history::{HashedNames, TrainingRow};
use foretell_domain::score::no_show::Config;
use foretell_domain::score::no_show::input::{Attribute, Input, InputValue};
use foretell_domain::score::no_show::model::{AttendanceRecord, is_protected};
use foretell_events::codec::rfc3339;
use std::io::Write;

/// Columns before those of the inputs.
const HEAD: [&str; 7] = ["appointment_id", "at", "instant", "booked_at", "known_at", "missed", "two_counters"];

/// Writes rows as CSV. The record of a client is computed with the rates of the rows that were known by `until_ms`.
pub fn write(
    rows: &[TrainingRow],
    names: &HashedNames,
    config: &Config,
    until_ms: Option<i64>,
    out: &mut dyn Write,
) -> csv::Result<()> {
    let until = until_ms.unwrap_or(i64::MAX);
    let known: Vec<_> = rows.iter().filter(|row| row.known_ms <= until && row.at_ms <= until).collect();
    let rates = super::fit::lead_rates(&known);
    let allowed = names.attributes.values().filter(|name| !is_protected(name, &config.protected_attributes));
    let inputs: Vec<_> = Input::derived().chain(allowed.map(|name| Input::Attribute(Attribute::new(name)))).collect();
    let mut table = csv::Writer::from_writer(out);
    table.write_record(HEAD.map(str::to_owned).into_iter().chain(inputs.iter().map(Input::to_string)))?;
    for row in rows {
        let record = AttendanceRecord::of(&row.snapshot, &rates, config.prior_no_shows).ratio;
        let head = [
            row.appointment_id.clone(),
            row.at.name().to_owned(),
            rfc3339(row.at_ms),
            rfc3339(row.booked_at_ms),
            rfc3339(row.known_ms),
            u8::from(row.missed).to_string(),
            row.two_counters.to_string(),
        ];
        let cells = inputs.iter().map(|input| match (input, input.answer(&row.snapshot, record)) {
            (_, InputValue::Absent) => String::new(),
            (_, InputValue::Number(number)) => number.to_string(),
            (Input::Attribute(attribute), InputValue::Text(text)) => {
                names.texts.get(&(attribute.hash(), text)).cloned().unwrap_or_default()
            }
            (_, InputValue::Text(_)) => String::new(),
        });
        table.write_record(head.into_iter().chain(cells))?;
    }
    table.flush().map_err(csv::Error::from)
}
