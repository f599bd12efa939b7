//! JSON Lines of structured CloudEvents, one per line; empty lines are skipped.
//!
//! The same events that `POST /v1/events` accepts, with one more requirement: `time` must be present, because events of
//! the past have no time of arrival. Data and extension attributes are kept unchanged, unknown ones within the limit
//! of the [gate](gate::UNKNOWN_BYTES_MAX). A `label` in the data that names an [`Author`] is the label of a simulated
//! history; any other value is an ordinary unknown field.

use super::{Author, Error, LABEL, RawEvent, Rows, SourceLabel, Sourced};
use foretell_events::codec::{self, Defaults, Faults, MALFORMED_JSON, Parsed};
use foretell_events::gate;
use foretell_events::record::RECORD_BYTES_MAX;
use serde_json::Value;
use std::io::{BufRead, Read};

/// Reads all lines.
pub(super) fn read(input: &mut dyn BufRead, rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        line.clear();
        let count = input
            .take(RECORD_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|cause| rows.origin.unreadable(number, &cause))?;
        if count == 0 {
            return Ok(());
        }
        if line.len() > RECORD_BYTES_MAX {
            return Err(rows.origin.unreadable(number, &format!("longer than {RECORD_BYTES_MAX} bytes")));
        }
        if !line.trim_ascii().is_empty() {
            let sourced = event(&line, number, rows)?;
            rows.count += 1;
            rows.push(sourced)?;
        }
    }
}

/// The error for a line that is not JSON, with the most likely cause.
fn explained(detail: &str, line: &[u8]) -> String {
    let hint = match line.trim_ascii_start().first() {
        Some(b'{') => return detail.to_owned(),
        Some(b'[') => "an array? Write one event per line, as `jq -c '.[]'` does",
        _ => "a CSV file? --format rba reads that of the RBA data set, --format noshow that of appointments",
    };
    format!("{detail}. The format events has one CloudEvent in JSON on each line: is this {hint}")
}

fn event(line: &[u8], number: u64, rows: &mut Rows<'_>) -> Result<Sourced, Error> {
    let origin = rows.origin;
    let refused = |faults: Faults| {
        let fault = faults.first();
        if fault.pointer.is_empty() && fault.code == MALFORMED_JSON {
            return origin.unreadable(number, &explained(&fault.detail, line));
        }
        let at = if fault.pointer.is_empty() { "the event" } else { &fault.pointer };
        origin.bad(number, at, format!("{}: {}", fault.code, fault.detail))
    };
    let value = codec::json::parse(line, "").map_err(refused)?;
    if value.is_array() {
        return Err(origin.unreadable(number, &explained("not an object", line)));
    }
    if value.get("time").is_none_or(Value::is_null) {
        return Err(origin.bad(number, "/time", "time is required in a file"));
    }
    let defaults = Defaults { tenant: origin.tenant, time_ms: 0 };
    let mut parsed = codec::decode_structured(&value, defaults).map_err(refused)?;
    let author = parsed.data.get(LABEL).and_then(Value::as_str).and_then(Author::parse);
    // Trimmed here and not at the append, so that the result is the same on every path.
    rows.dropped += gate::trim(&mut parsed) as u64;
    let Parsed { event, data, extensions, .. } = parsed;
    Ok(Sourced {
        event,
        sent: Some(Box::new(RawEvent { data, extensions })),
        label: author.map(SourceLabel::Simulated),
    })
}
