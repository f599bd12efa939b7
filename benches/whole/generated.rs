//! The generated logins in the forms in which they are sent: records, CloudEvents, requests for a score.

use crate::Failure;
use foretell_events::codec::{self, Parsed};
use foretell_events::login::LoginFact;
use foretell_events::record::NewRecord;
use foretell_events::{Event, Fact};
use foretell_lab::source::generate::{GeneratedLogins, GeneratorParams};
use serde_json::{Map, Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

/// The logins of a seed.
pub(crate) fn logins(seed: u64) -> GeneratedLogins {
    GeneratedLogins::new(GeneratorParams { seed, ..GeneratorParams::default() })
}

/// A record as producers write it.
pub(crate) fn record(event: Event) -> NewRecord {
    codec::encode_parsed(&Parsed::of(event))
}

/// A structured CloudEvent.
pub(crate) fn cloud_event(event: Event) -> Value {
    codec::structured_event(&Parsed::of(event))
}

/// The body of a request for a score of such a login.
pub(crate) fn question(event: &Event) -> Value {
    let Fact::Login(LoginFact::Attempted(login)) = &event.fact else { return Value::Null };
    let attempt = &login.attempt;
    let mut body = Map::new();
    body.insert("user_id".into(), json!(login.user_id));
    body.insert("ip".into(), json!(attempt.ip));
    for (name, value) in
        [("user_agent", &attempt.user_agent), ("device_id", &attempt.device_id), ("country", &attempt.country)]
    {
        body.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    body.extend(attempt.asn.map(|asn| ("asn".to_owned(), json!(asn))));
    Value::Object(body)
}

/// Writes JSON Lines of structured CloudEvents.
pub(crate) fn write(file: &Path, events: usize) -> Result<(), Failure> {
    let mut lines = BufWriter::new(std::fs::File::create(file)?);
    for event in logins(1).take(events) {
        serde_json::to_writer(&mut lines, &cloud_event(event))?;
        lines.write_all(b"\n")?;
    }
    Ok(lines.flush()?)
}
