//! Decodes bytes to [`Event`], once, and encodes events to bytes.
//!
//! ```text
//!   record ── headers ce_*, body ────┐
//!          └─ body (structured) ───┐ │
//!   HTTP ─── JSON (structured) ────┤ ├─► attributes ─► envelope ─┐
//!          └ headers ce-*, body ───┼─┘                           ├─► Event, or all Faults
//!                                  └───────► data ──► fact ──────┘
//! ```
//!
//! Events are CloudEvents 1.0 in JSON, in binary or structured mode; binary is written. An event is read to its end and
//! every fault is reported with its place; unknown fields of the data are never faults. After this module no code
//! checks an event again. All of it is pure: no clock, no I/O, and no panic for any bytes.
//!
//! There are two readings. Incoming events ([`decode_structured`], [`decode_binary`]) must follow CloudEvents strictly
//! (`letter`) and have no duplicate members in JSON ([`json`]). Records in the log ([`decode`]) were accepted before
//! and are read as they were then: the last of duplicate members counts, and names that are not attributes are ignored.
//!
//! Decisions that the schemas cannot express:
//! - `subject` is written and not read: the user or client is in the data, and two sources would have to be compared.
//! - An event without `time` happened when it arrived: at its record's timestamp, or when the HTTP request was
//!   received.
//! - `data_base64` contains the JSON of the data as bytes, whichever mode of an SDK produced it.
//! - Without `content-type` a record with attributes in its headers is binary, and one whose value has `specversion`
//!   is structured.
//! - An optional text that is empty counts as missing, except a user agent, because an empty one has a meaning.
//! - A record that is read gets missing browser, system and kind of device from its user agent ([`agent::complete`]);
//!   an event that is written to the log does not, because the rules may improve.
//! - A user agent is truncated to [`bounds::USER_AGENT_KEPT_BYTES`]; zone names get the letter case of the database.

mod attributes;
pub mod bounds;
mod cursor;
mod facts;
mod fault;
pub mod json;
mod letter;
#[cfg(feature = "fuzz")]
mod lookups;
pub mod media;
mod time;
mod value;
mod write;

pub use attributes::{Defaults, is_tenant};
pub use cursor::{Entry, Fields};
pub use facts::attempt;
pub use fault::*;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use lookups::lookups;
pub use value::ReadResult;
pub use write::*;

use super::login::Attempt;
use super::{AHEAD_MS_MAX, DEFAULT_TENANT, Envelope, Event, Fact, agent, key, partitioner};
use crate::catalog;
use crate::document;
use crate::fact::Purpose;
use crate::login::LoginFact;
use crate::record::Record;
use attributes::Attributes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// An event and its original data, so that fields unknown to this version are passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The typed event.
    pub event: Event,
    /// The data as it was sent, unknown fields included.
    pub data: Map<String, Value>,
    /// Extension attributes other than `tenant`, at most [`bounds::EXTENSIONS_MAX`], as texts.
    pub extensions: Vec<(String, String)>,
    /// How many extension attributes were omitted on reading, because they are too long or too many.
    pub dropped: usize,
}

impl Parsed {
    /// An event that Foretell creates, with its data as it is written.
    pub fn of(event: Event) -> Self {
        Self { data: event.fact.data(), event, extensions: Vec::new(), dropped: 0 }
    }

    /// `add` fills in missing fields of a login attempt; they are added to the data as well.
    pub fn fill_in(&mut self, add: impl FnOnce(&mut Attempt)) {
        let Fact::Login(LoginFact::Attempted(login)) = &mut self.event.fact else { return };
        let before = facts::place_data(&login.attempt);
        add(&mut login.attempt);
        for ((name, value), (_, known)) in facts::place_data(&login.attempt).into_iter().zip(before) {
            // Values that were sent but read as missing (an empty city, a placeholder) are replaced as well.
            if known.is_null() && !value.is_null() {
                self.data.insert(name.to_owned(), value);
            }
        }
    }
}

/// Reads a record, in either mode, for a fold: a login is completed from its user agent.
///
/// [`check_record`] checks separately whether it is in the right topic and partition, so that a redrive can read it
/// before choosing them.
pub fn decode(record: &Record) -> Result<Event, Faults> {
    read_record(record, Reading::Kept)
}

/// Reads a record as [`decode`] does, and applies the rules for incoming events.
pub(crate) fn decode_incoming(record: &Record) -> Result<Event, Faults> {
    read_record(record, Reading::Incoming)
}

/// The two readings of a record: see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It is in the log.
    Kept,
    /// It is incoming.
    Incoming,
}

impl Reading {
    fn parse(self, body: &[u8], place: &str) -> Result<Value, Faults> {
        match self {
            Self::Kept => Ok(parse(body, place)?),
            Self::Incoming => json::parse(body, place),
        }
    }

    /// Parses the bytes of a `data_base64`, which may begin with a byte order mark. No version read them before the two
    /// readings differed, so there are no records for which the older reading matters.
    fn parse_data_base64(self, bytes: &[u8], place: &str) -> Result<Value, Faults> {
        match self {
            Self::Kept => self.parse(document::without_byte_order_mark(bytes), place),
            Self::Incoming => self.parse(bytes, place),
        }
    }

    /// The faults that `strict` finds, if this reading requires them.
    fn faults(self, strict: impl FnOnce() -> Vec<Fault>) -> Vec<Fault> {
        if self == Self::Incoming { strict() } else { Vec::new() }
    }
}

fn read_record(record: &Record, reading: Reading) -> Result<Event, Faults> {
    let defaults = Defaults { tenant: DEFAULT_TENANT, time_ms: record.timestamp_ms };
    let event = match ContentMode::of(record, reading)? {
        ContentMode::Structured(event) => {
            let data = data_of(&event, |bytes, place| reading.parse_data_base64(bytes, place));
            let strict = reading.faults(|| letter::of_structured(&event, &record.headers));
            read(&Attributes::of_object(&event), data.as_deref(), defaults, strict)?
        }
        ContentMode::Binary => {
            let attributes = Attributes::of_record(record);
            let data = reading.parse(&record.value, "/data");
            read(&attributes, data.as_ref(), defaults, reading.faults(|| letter::of_headers(&record.headers)))?
        }
    };
    Ok(completed(arrived(event, record.timestamp_ms)))
}

/// The event as it is folded if it arrived at that time: an erasure takes effect at its arrival at the latest, because
/// with a future date it would also erase what happens until then. One that is too far ahead to be folded stays
/// unchanged.
pub fn arrived(mut event: Event, arrived_at_ms: i64) -> Event {
    if event.fact.purpose() == Purpose::Erase && ahead(&event, arrived_at_ms).is_none() {
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

/// Reads an incoming structured event, as in an HTTP request.
pub fn decode_structured(value: &Value, defaults: Defaults<'_>) -> Result<Parsed, Faults> {
    let Value::Object(object) = value else { return Err(Faults::one(not_a_cloudevent())) };
    let attributes = Attributes::of_object(object);
    let data = data_of(object, json::parse);
    let event = read(&attributes, data.as_deref(), defaults, letter::of_object(object))?;
    Ok(parsed(event, data.map(into_object), attributes))
}

/// Reads only the data of a type, for data from files; pointers begin with `/data` nevertheless.
pub fn decode_data(type_name: &str, data: &Map<String, Value>) -> Result<Fact, Faults> {
    let mut faults = Vec::new();
    match read_fact(type_name, data, &mut faults) {
        Some(fact) => Faults::none_of(fact, faults),
        None => Err(Faults::all_of(faults)),
    }
}

/// Reads an incoming binary event: attribute names without `ce-`, in lower case, and `datacontenttype` for the
/// `Content-Type` of the message, if it has one; an error states why a value has no text.
pub fn decode_binary(
    attributes: &[(&str, ReadResult<String>)],
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
enum ContentMode {
    /// Attributes in headers, data in the value.
    Binary,
    /// Everything in the value.
    Structured(Map<String, Value>),
}

impl ContentMode {
    fn of(record: &Record, reading: Reading) -> Result<Self, Faults> {
        let content_type = record.header("content-type");
        if attributes::is_structured(content_type)? {
            return Ok(Self::Structured(object(reading.parse(&record.value, "")?)?));
        }
        if content_type.is_some() || Attributes::of_record(record).any() {
            return Ok(Self::Binary);
        }
        let body =
            if reading == Reading::Kept { &record.value } else { document::without_byte_order_mark(&record.value) };
        match parse(body, "") {
            Ok(Value::Object(event)) if event.contains_key("specversion") => {
                // The body has `specversion`, so it is structured; now all of it is parsed as this reading requires.
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

/// The event of attributes and data. Faults of the data replace those of its fields, and a `strict` fault is reported
/// only if its attribute has no other fault.
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
            _ if type_name == catalog::DECISION.name => format!("only Foretell writes {type_name}"),
            Some(known) => format!("{} is not a known type; did you mean {known}?", fault::quoted(type_name)),
            None => format!("{} is not a known type", fault::quoted(type_name)),
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
    let detail = "neither the headers nor the body contain id, source, specversion and type of a CloudEvent";
    Fault::new("", NOT_A_CLOUDEVENT, detail)
}

/// Whether a record has the topic, the key and the partition, of `partitions`, of its event, and is not in the future.
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

/// Whether id and source of an event contain nothing that CloudEvents forbids. Incoming CloudEvents were already
/// checked; events from other files are checked here.
pub(crate) fn check_texts(envelope: &Envelope) -> Result<(), Faults> {
    Faults::none_of((), letter::of_texts([("id", &envelope.id), ("source", &envelope.source)]))
}

/// Whether an event happened no more than five minutes after `now_ms`.
pub(crate) fn check_time(event: &Event, now_ms: i64) -> Result<(), Faults> {
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
