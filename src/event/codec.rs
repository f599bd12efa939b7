//! Bytes to [`Event`], once, and events to bytes.
//!
//! ```text
//!   record ── headers ce_*, body ────┐
//!          └─ body (structured) ───┐ │
//!   HTTP ─── JSON (structured) ────┤ ├─► attributes ─► envelope ─┐
//!          └ headers ce-*, body ───┼─┘                           ├─► Event, or all Faults
//!                                  └───────► data ──► fact ──────┘
//! ```
//!
//! Events are CloudEvents 1.0 in JSON, in binary or structured mode; binary is written. An event is read to its end
//! and every fault is told, each with its place; unknown fields are never faults. Behind this module nothing
//! checks an event again. All of it is pure: no clock, no I/O, no panic whatever the bytes are.
//!
//! Decisions that the schemas cannot show:
//! - `subject` is written and not read: user or client are in the data, and two truths would have to be compared.
//! - Without `time` an event happened when it arrived: at its record's timestamp, or when HTTP took it.
//! - Without `content-type` a record is read as binary JSON, which is what most producers mean.
//! - An optional text that is empty is absent, save a user agent, whose emptiness means something.
//! - A record that is read gets browser, system and kind of device from its user agent where it has none
//!   ([`agent::complete`]); an event on its way into the log does not, because better rules may come.
//! - A user agent is kept up to [`bounds::USER_AGENT_KEPT_BYTES`]; zone names get the letter case of the database.

mod attributes;
pub mod bounds;
mod cursor;
mod facts;
mod fault;
mod time;
mod value;
mod write;

pub use attributes::{Defaults, is_tenant};
pub use cursor::{Entry, Fields};
pub use facts::{attempt, fact_data};
pub use fault::*;
pub use value::Read;
pub use write::*;

use super::login::Attempt;
use super::{AHEAD_MS_MAX, DEFAULT_TENANT, Event, Fact, agent, key};
use crate::catalog;
use crate::log::Record;
use attributes::{Attributes, Mode};
use serde_json::{Map, Value};

/// An event and the data that it came with, for passing on what this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What was understood.
    pub event: Event,
    /// The data as it was sent, unknown fields included.
    pub data: Map<String, Value>,
    /// Extension attributes other than `tenant`, at most [`bounds::EXTENSIONS_MAX`], as texts.
    pub extensions: Vec<(String, String)>,
}

impl Parsed {
    /// Lets `add` fill in what the attempt of a login lacks, and puts what it added into the data as well.
    pub fn fill_in(&mut self, add: impl FnOnce(&mut Attempt)) {
        let Fact::Login(login) = &mut self.event.fact else { return };
        let before = facts::place_data(&login.attempt);
        add(&mut login.attempt);
        for ((name, value), (_, known)) in facts::place_data(&login.attempt).into_iter().zip(before) {
            // What was sent and read as absent (an empty city, a placeholder) is replaced as well.
            if known.is_null() && !value.is_null() {
                self.data.insert(name.to_owned(), value);
            }
        }
    }
}

/// Reads a record, in either mode, as it is folded: a login is completed from its user agent.
///
/// Whether it stands where it belongs is asked by [`check_record`], so that a redrive can read first and place then.
pub fn decode(record: &Record) -> Result<Event, Faults> {
    let defaults = Defaults { tenant: DEFAULT_TENANT, time_ms: record.timestamp_ms };
    let event = match attributes::mode(record.header("content-type"))? {
        Mode::Structured => {
            let event = object(parse(&record.value, "")?)?;
            read_structured(&event, defaults)?.0
        }
        Mode::Binary => {
            let attributes = Attributes::of_record(record);
            read(&attributes, parse(&record.value, "/data").as_ref(), defaults)?
        }
    };
    Ok(completed(event))
}

/// An event as it is folded: see [`agent::complete`].
pub fn completed(mut event: Event) -> Event {
    if let Fact::Login(login) = &mut event.fact {
        agent::complete(&mut login.attempt);
    }
    event
}

/// Reads a structured event, as HTTP carries it.
pub fn decode_structured(value: &Value, defaults: Defaults<'_>) -> Result<Parsed, Faults> {
    let Value::Object(object) = value else { return Err(Faults::one(not_a_cloudevent())) };
    let (event, attributes) = read_structured(object, defaults)?;
    let data = object.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(Parsed { event, data, extensions: attributes.into_extensions() })
}

/// Reads the data of a type by itself, as it comes out of files; pointers begin with `/data` all the same.
pub fn decode_data(type_name: &str, data: &Map<String, Value>) -> Result<Fact, Faults> {
    let mut faults = Vec::new();
    match read_fact(type_name, data, &mut faults) {
        Some(fact) => Faults::none_of(fact, faults),
        None => Err(Faults::all_of(faults)),
    }
}

/// Reads a binary event: attribute names without `ce_` or `ce-`, in lower case, and `datacontenttype` for the
/// `Content-Type` of the message, if it has one.
pub fn decode_binary<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    body: &[u8],
    defaults: Defaults<'_>,
) -> Result<Parsed, Faults> {
    let attributes = Attributes::of_pairs(attributes);
    let data = parse(body, "/data");
    let event = read(&attributes, data.as_ref(), defaults)?;
    let data = data.ok().and_then(|data| object(data).ok()).unwrap_or_default();
    Ok(Parsed { event, data, extensions: attributes.into_extensions() })
}

fn read_structured<'a>(
    event: &'a Map<String, Value>,
    defaults: Defaults<'_>,
) -> Result<(Event, Attributes<'a>), Faults> {
    let attributes = Attributes::of_object(event);
    let present = |name| event.get(name).filter(|value| !value.is_null());
    let data = match (present("data"), present("data_base64")) {
        (_, Some(_)) => Err(attributes::unsupported("/data_base64", "data_base64")),
        (None, None) => Err(Fault::new("/data", MISSING_FIELD, "data is required")),
        (Some(data), None) => Ok(data),
    };
    Ok((read(&attributes, data, defaults)?, attributes))
}

/// The event of attributes and data; a fault of the data stands for its fields.
fn read(
    attributes: &Attributes<'_>,
    data: Result<&Value, impl std::borrow::Borrow<Fault>>,
    defaults: Defaults<'_>,
) -> Result<Event, Faults> {
    if !attributes.any() {
        return Err(Faults::one(not_a_cloudevent()));
    }
    let mut faults = Vec::new();
    let (envelope, type_name) = attributes.envelope(defaults, &mut faults);
    attributes::check_json(&attributes.content_type, &mut faults);
    let fact = match data {
        Ok(Value::Object(data)) => read_fact(type_name, data, &mut faults),
        Ok(other) => {
            faults.push(Fault::new("/data", WRONG_TYPE, value::wrong("an object", other).1));
            None
        }
        Err(fault) => {
            faults.push(fault.borrow().clone());
            None
        }
    };
    match fact {
        Some(fact) => Faults::none_of(Event { envelope, fact }, faults),
        None => Err(Faults::all_of(faults)),
    }
}

fn read_fact(type_name: &str, data: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Fact> {
    let fact = facts::read(type_name, &mut Fields::new(data, "/data", faults));
    if fact.is_none() && !type_name.is_empty() {
        let detail = match catalog::suggest(type_name) {
            _ if type_name == catalog::DECISION.name => format!("{type_name} is written by Foretell alone"),
            Some(known) => format!("{} is no type here; did you mean {known}?", fault::quoted(type_name)),
            None => format!("{} is no type here", fault::quoted(type_name)),
        };
        faults.push(Fault::new("/type", UNKNOWN_TYPE, detail));
    }
    fact
}

fn parse(body: &[u8], place: &str) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::new(place, MALFORMED_JSON, error.to_string()))
}

fn object(value: Value) -> Result<Map<String, Value>, Fault> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(not_a_cloudevent()),
    }
}

fn not_a_cloudevent() -> Fault {
    let detail = "neither the headers nor the body carry id, source, specversion and type of a CloudEvent";
    Fault::new("", NOT_A_CLOUDEVENT, detail)
}

/// Whether a record stands where its event belongs: topic, key, partition of `partitions`, and not in the future.
pub fn check_record(event: &Event, record: &Record, partitions: u32) -> Result<(), Faults> {
    let mut faults = Vec::new();
    let position = record.position;
    if event.fact.topic() != position.topic {
        let detail = format!("{} belongs to {}", event.fact.type_name(), event.fact.topic().name());
        faults.push(Fault::new("", WRONG_TOPIC, detail));
    }
    let key = event.key();
    if record.key.as_deref() != Some(key.as_bytes()) {
        faults.push(Fault::new("", KEY_MISMATCH, "the record's key is not tenant:subject of its event"));
    }
    let partition = key::partition(key.as_bytes(), partitions);
    if partition != position.partition {
        let detail = format!("the key belongs to partition {partition} of {partitions}, not {}", position.partition);
        faults.push(Fault::new("", WRONG_PARTITION, detail));
    }
    faults.extend(ahead(event, record.timestamp_ms));
    Faults::none_of((), faults)
}

/// Whether an event happened no more than five minutes after `now_ms`.
pub fn check_time(event: &Event, now_ms: i64) -> Result<(), Faults> {
    Faults::none_of((), ahead(event, now_ms).into_iter().collect())
}

fn ahead(event: &Event, now_ms: i64) -> Option<Fault> {
    let ahead_ms = event.envelope.time_ms.saturating_sub(now_ms);
    (ahead_ms > AHEAD_MS_MAX).then(|| {
        let detail = format!("{ahead_ms} ms ahead of its arrival, more than {AHEAD_MS_MAX} ms");
        Fault::new("/time", TIME_IN_FUTURE, detail)
    })
}

#[cfg(test)]
mod tests;
