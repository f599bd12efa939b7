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
//! and every fault is reported, each with its place; unknown fields of the data are never faults. Behind this module
//! nothing checks an event again. All of it is pure: no clock, no I/O, no panic whatever the bytes are.
//!
//! There are two readings. What comes in ([`decode_structured`], [`decode_binary`]) is held to the letter of
//! CloudEvents (`letter`) and names no member of JSON twice ([`json`]). What is in the log ([`decode`]) was taken
//! before and is read as it was then: of a doubled member the last one counts, and what is no attribute is ignored.
//!
//! Decisions that the schemas cannot show:
//! - `subject` is written and not read: user or client are in the data, and two truths would have to be compared.
//! - Without `time` an event happened when it arrived: at its record's timestamp, or when HTTP took it.
//! - `data_base64` is the JSON of the data as bytes, whatever mode an SDK was in when it wrote it so.
//! - Without `content-type` a record with attributes in its headers is binary, and one whose value has `specversion`
//!   is structured.
//! - An optional text that is empty is absent, save a user agent, whose emptiness means something.
//! - A record that is read gets browser, system and kind of device from its user agent where it has none
//!   ([`agent::complete`]); an event on its way into the log does not, because better rules may come.
//! - A user agent is kept up to [`bounds::USER_AGENT_KEPT_BYTES`]; zone names get the letter case of the database.

mod attributes;
pub mod bounds;
mod cursor;
mod facts;
mod fault;
pub mod json;
mod letter;
pub mod media;
mod time;
mod value;
mod write;

pub use attributes::{Defaults, is_tenant};
pub use cursor::{Entry, Fields};
pub use facts::attempt;
pub use fault::*;
pub use value::Read;
pub use write::*;

use super::login::Attempt;
use super::{AHEAD_MS_MAX, DEFAULT_TENANT, Envelope, Event, Fact, agent, key, partitioner};
use crate::catalog;
use crate::document;
use crate::login::LoginFact;
use crate::record::Record;
use attributes::Attributes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// An event and the data that it came with, for passing on what this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What was understood.
    pub event: Event,
    /// The data as it was sent, unknown fields included.
    pub data: Map<String, Value>,
    /// Extension attributes other than `tenant`, at most [`bounds::EXTENSIONS_MAX`], as texts.
    pub extensions: Vec<(String, String)>,
    /// How many extension attributes were left out on reading, because they are too long or too many.
    pub dropped: usize,
}

impl Parsed {
    /// An event that began here, with its data as it is written.
    pub fn of(event: Event) -> Self {
        Self { data: event.fact.data(), event, extensions: Vec::new(), dropped: 0 }
    }

    /// Lets `add` fill in what the attempt of a login lacks, and puts what it added into the data as well.
    pub fn fill_in(&mut self, add: impl FnOnce(&mut Attempt)) {
        let Fact::Login(LoginFact::Attempted(login)) = &mut self.event.fact else { return };
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
/// Whether it is in its place is checked by [`check_record`], so that a redrive can read first and place then.
pub fn decode(record: &Record) -> Result<Event, Faults> {
    read_record(record, Reading::Kept)
}

/// Reads a record as [`decode`] does, and applies the rules for incoming events.
pub fn decode_incoming(record: &Record) -> Result<Event, Faults> {
    read_record(record, Reading::Incoming)
}

/// The two readings of a record: see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It is in the log.
    Kept,
    /// It comes in.
    Incoming,
}

impl Reading {
    fn parse(self, body: &[u8], place: &str) -> Result<Value, Faults> {
        match self {
            Self::Kept => Ok(parse(body, place)?),
            Self::Incoming => json::parse(body, place),
        }
    }

    /// Parses the bytes of a `data_base64`, which may begin with a byte order mark. No version read them before the
    /// two readings differed, so neither has records to keep to.
    fn parse_data_base64(self, bytes: &[u8], place: &str) -> Result<Value, Faults> {
        match self {
            Self::Kept => self.parse(document::without_mark(bytes), place),
            Self::Incoming => self.parse(bytes, place),
        }
    }

    /// The faults that `strict` finds, as far as this reading requires it.
    fn faults(self, strict: impl FnOnce() -> Vec<Fault>) -> Vec<Fault> {
        if self == Self::Incoming { strict() } else { Vec::new() }
    }
}

fn read_record(record: &Record, reading: Reading) -> Result<Event, Faults> {
    let defaults = Defaults { tenant: DEFAULT_TENANT, time_ms: record.timestamp_ms };
    let event = match Sent::of(record, reading)? {
        Sent::Structured(event) => {
            let data = data_of(&event, |bytes, place| reading.parse_data_base64(bytes, place));
            let strict = reading.faults(|| letter::of_structured(&event, &record.headers));
            read(&Attributes::of_object(&event), data.as_deref(), defaults, strict)?
        }
        Sent::Binary => {
            let attributes = Attributes::of_record(record);
            let data = reading.parse(&record.value, "/data");
            read(&attributes, data.as_ref(), defaults, reading.faults(|| letter::of_headers(&record.headers)))?
        }
    };
    Ok(completed(arrived(event, record.timestamp_ms)))
}

/// The event as it is folded when it arrived at that time: an erasure counts from its arrival at the latest, because
/// dated ahead it would swallow what happens until then. One that is too far ahead to be folded stays as it is.
pub fn arrived(mut event: Event, arrived_at_ms: i64) -> Event {
    if event.fact.is_erasure() && ahead(&event, arrived_at_ms).is_none() {
        event.envelope.time_ms = event.envelope.time_ms.min(arrived_at_ms);
    }
    event
}

/// An event as it is folded: see [`agent::complete`].
pub fn completed(mut event: Event) -> Event {
    if let Fact::Login(LoginFact::Attempted(login)) = &mut event.fact {
        agent::complete(&mut login.attempt);
    }
    event
}

/// Reads a structured event that comes in, as HTTP carries it.
pub fn decode_structured(value: &Value, defaults: Defaults<'_>) -> Result<Parsed, Faults> {
    let Value::Object(object) = value else { return Err(Faults::one(not_a_cloudevent())) };
    let attributes = Attributes::of_object(object);
    let data = data_of(object, json::parse);
    let event = read(&attributes, data.as_deref(), defaults, letter::of_object(object))?;
    Ok(parsed(event, data.map(into_object), attributes))
}

/// Reads the data of a type by itself, as it comes out of files; pointers begin with `/data` all the same.
pub fn decode_data(type_name: &str, data: &Map<String, Value>) -> Result<Fact, Faults> {
    let mut faults = Vec::new();
    match read_fact(type_name, data, &mut faults) {
        Some(fact) => Faults::none_of(fact, faults),
        None => Err(Faults::all_of(faults)),
    }
}

/// Reads a binary event that comes in: attribute names without `ce-`, in lower case, and `datacontenttype` for the
/// `Content-Type` of the message, if it has one; an error is why a value has no text.
pub fn decode_binary(
    attributes: &[(&str, Read<String>)],
    body: &[u8],
    defaults: Defaults<'_>,
) -> Result<Parsed, Faults> {
    let strict = letter::of_pairs(attributes);
    let attributes = Attributes::of_pairs(attributes);
    let data = json::parse(body, "/data");
    let event = read(&attributes, data.as_ref(), defaults, strict)?;
    Ok(parsed(event, data.map(|data| into_object(Cow::Owned(data))), attributes))
}

fn parsed(event: Event, data: Result<Map<String, Value>, Faults>, attributes: Attributes<'_>) -> Parsed {
    let dropped = attributes.dropped;
    Parsed { event, data: data.unwrap_or_default(), extensions: attributes.into_extensions(), dropped }
}

/// How a record carries its event.
enum Sent {
    /// Attributes in headers, data in the value.
    Binary,
    /// All of it in the value.
    Structured(Map<String, Value>),
}

impl Sent {
    fn of(record: &Record, reading: Reading) -> Result<Self, Faults> {
        let content_type = record.header("content-type");
        if attributes::is_structured(content_type)? {
            return Ok(Self::Structured(object(reading.parse(&record.value, "")?)?));
        }
        if content_type.is_some() || Attributes::of_record(record).any() {
            return Ok(Self::Binary);
        }
        let body = if reading == Reading::Kept { &record.value } else { document::without_mark(&record.value) };
        match parse(body, "") {
            Ok(Value::Object(event)) if event.contains_key("specversion") => {
                // It says itself what it is; now all of it is read as this reading requires.
                let event = if reading == Reading::Kept { event } else { object(reading.parse(body, "")?)? };
                Ok(Self::Structured(event))
            }
            _ => Ok(Self::Binary),
        }
    }
}

/// The data of a structured event, in `data` or as bytes in `data_base64`, which `parse` reads.
fn data_of(
    event: &Map<String, Value>,
    parse: impl FnOnce(&[u8], &str) -> Result<Value, Faults>,
) -> Result<Cow<'_, Value>, Faults> {
    const PLACE: &str = "/data_base64";
    let present = |name| event.get(name).filter(|value| !value.is_null());
    match (present("data"), present("data_base64")) {
        (None, None) => Err(Fault::new("/data", MISSING_FIELD, "data is required").into()),
        (Some(data), None) => Ok(Cow::Borrowed(data)),
        (Some(_), Some(_)) => {
            Err(Fault::new(PLACE, INVALID_VALUE, "the event has data as well; send one of the two").into())
        }
        (None, Some(Value::String(text))) => match STANDARD.decode(text) {
            Ok(bytes) => parse(&bytes, PLACE).map(Cow::Owned),
            Err(error) => Err(Fault::new(PLACE, INVALID_VALUE, format!("is not Base64 (RFC 4648, 4): {error}")).into()),
        },
        (None, Some(other)) => {
            let (code, detail) = value::wrong("a string", other);
            Err(Fault::new(PLACE, code, detail).into())
        }
    }
}

fn into_object(data: Cow<'_, Value>) -> Map<String, Value> {
    object(data.into_owned()).unwrap_or_default()
}

/// The event of attributes and data; faults of the data stand for its fields, and of the `strict` ones those are
/// reported whose attribute has no other.
fn read(
    attributes: &Attributes<'_>,
    data: Result<&Value, &Faults>,
    defaults: Defaults<'_>,
    strict: Vec<Fault>,
) -> Result<Event, Faults> {
    if !attributes.any() {
        return Err(Faults::one(not_a_cloudevent()));
    }
    let mut faults = Vec::new();
    let (envelope, type_name) = attributes.envelope(defaults, &mut faults);
    attributes::check_json(&attributes.content_type, &mut faults);
    let further = strict.into_iter().filter(|fault| faults.iter().all(|known| known.pointer != fault.pointer));
    let further: Vec<_> = further.collect();
    faults.extend(further);
    let fact = match data {
        Ok(Value::Object(data)) => read_fact(type_name, data, &mut faults),
        Ok(other) => {
            faults.push(Fault::new("/data", WRONG_TYPE, value::wrong("an object", other).1));
            None
        }
        Err(found) => {
            faults.extend(found.iter().cloned());
            None
        }
    };
    match fact {
        Some(fact) => Faults::none_of(Event { envelope, fact }, faults),
        None => Err(Faults::all_of(faults)),
    }
}

fn read_fact(type_name: &str, data: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Fact> {
    let fact = Fact::read(type_name, &mut Fields::new(data, "/data", faults));
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
        let mut detail =
            format!("the key belongs to partition {partition} of {partitions}, not {}", position.partition);
        let reason = partitioner::explain(record.key.as_deref(), position.partition, partitions);
        if !reason.is_empty() {
            detail.extend(["; ", &reason]);
        }
        faults.push(Fault::new("", WRONG_PARTITION, detail));
    }
    faults.extend(ahead(event, record.timestamp_ms));
    Faults::none_of((), faults)
}

/// Whether id and source of an event hold nothing that CloudEvents forbids. What comes in as a CloudEvent was checked
/// before; what comes out of other files is checked here.
pub fn check_texts(envelope: &Envelope) -> Result<(), Faults> {
    Faults::none_of((), letter::of_texts([("id", &envelope.id), ("source", &envelope.source)]))
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
