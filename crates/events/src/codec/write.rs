//! Encodes events: into records, and from records into structured JSON.

use super::attributes::{self, Attributes};
use super::fault::{Fault, Faults};
use super::letter::{is_name, is_subject};
use super::{ContentMode, Parsed, Reading, data_of, parse, time};
use crate::record::{Header, NewRecord, Record};
use crate::{Envelope, Event, Topic, key};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// An event to be written.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: Topic,
    /// Id, source, tenant and time.
    pub envelope: &'a Envelope,
    /// The CloudEvents `type`.
    pub type_name: &'a str,
    /// The user or client; part of the key, and written as `subject` if CloudEvents allows its characters.
    pub subject: &'a str,
    /// The payload.
    pub data: &'a Map<String, Value>,
    /// Extension attributes without `tenant`; names consist of lower-case letters and digits.
    pub extensions: &'a [(String, String)],
}

/// Writes an event in binary mode: attributes as `ce_` headers, the data as JSON, `tenant:subject` as the key.
pub fn encode(event: &Outgoing<'_>) -> NewRecord {
    let Outgoing { topic, envelope, type_name, subject, data, extensions } = *event;
    // A map of strings and values always has a JSON form.
    let value = serde_json::to_vec(data).unwrap_or_default().into();
    let key = Some(key::of(&envelope.tenant, subject).into());
    NewRecord { topic, key, value, headers: binary(envelope, type_name, subject, extensions) }
}

/// The headers of an event in binary mode.
pub fn binary(envelope: &Envelope, type_name: &str, subject: &str, extensions: &[(String, String)]) -> Vec<Header> {
    let header = |name: &str, value: &str| -> Header { (name.to_owned(), Bytes::copy_from_slice(value.as_bytes())) };
    let mut headers = Vec::with_capacity(8 + extensions.len());
    headers.push(header("ce_specversion", "1.0"));
    headers.push(header("ce_id", &envelope.id));
    headers.push(header("ce_source", &envelope.source));
    headers.push(header("ce_type", type_name));
    headers.push(header("ce_time", &time::rfc3339(envelope.time_ms)));
    if is_subject(subject) {
        headers.push(header("ce_subject", subject));
    }
    headers.push(header("ce_tenant", &envelope.tenant));
    headers.extend(extensions.iter().map(|(name, value)| header(&format!("ce_{name}"), value)));
    headers.push(header("content-type", "application/json"));
    headers
}

/// Writes an event from outside: its data as it was sent, including unknown fields.
pub fn encode_parsed(parsed: &Parsed) -> NewRecord {
    encode(&outgoing(&parsed.event, &parsed.data, &parsed.extensions))
}

/// Writes an event that Foretell creates.
pub fn encode_event(event: &Event, extensions: &[(String, String)]) -> NewRecord {
    encode(&outgoing(event, &event.fact.data(), extensions))
}

fn outgoing<'a>(event: &'a Event, data: &'a Map<String, Value>, extensions: &'a [(String, String)]) -> Outgoing<'a> {
    Outgoing {
        topic: event.fact.topic(),
        envelope: &event.envelope,
        type_name: event.fact.type_name(),
        subject: event.fact.subject(),
        data,
        extensions,
    }
}

/// A stored record as a structured CloudEvent, for readers that do not process record headers.
///
/// The contents of the record are passed on without validation: attributes and data may be unknown here. Only a
/// `subject` that CloudEvents does not allow is omitted: earlier versions wrote it from the data. It fails only if the
/// record is not a CloudEvent with JSON data.
pub fn structured(record: &Record) -> Result<Value, Faults> {
    match ContentMode::of(record, Reading::Kept)? {
        ContentMode::Structured(event) => Ok(Value::Object(with_data(event))),
        ContentMode::Binary => {
            let mut faults = Vec::new();
            let found = Attributes::of_record(record);
            if !found.any() {
                return Err(Faults::one(super::not_a_cloudevent()));
            }
            attributes::check_json(&found.content_type, &mut faults);
            let data = parse(&record.value, "/data").map_err(|fault| faults.push(fault));
            Faults::none_of(object_of(record, data.unwrap_or_default()), faults)
        }
    }
}

/// The event with `data` instead of `data_base64`, if that can be read.
fn with_data(mut event: Map<String, Value>) -> Map<String, Value> {
    if event.get("data_base64").is_none_or(Value::is_null) {
        return event;
    }
    if let Ok(Cow::Owned(data)) = data_of(&event, |bytes, place| Reading::Kept.parse_data_base64(bytes, place)) {
        event.remove("data_base64");
        event.insert("data".to_owned(), data);
    }
    event
}

fn object_of(record: &Record, data: Value) -> Value {
    let mut object = Map::new();
    for (name, value) in &record.headers {
        let name = name.strip_prefix("ce_").filter(|name| is_name(name));
        if let (Some(name), Ok(text)) = (name, std::str::from_utf8(value))
            && (name != "subject" || is_subject(text))
        {
            object.insert(name.to_owned(), Value::String(text.to_owned()));
        }
    }
    object.insert("datacontenttype".to_owned(), Value::String("application/json".to_owned()));
    object.insert("data".to_owned(), data);
    Value::Object(object)
}

/// An event in structured form, as HTTP clients send it.
pub fn structured_event(parsed: &Parsed) -> Value {
    let event = &parsed.event;
    let mut object = Map::new();
    let mut put = |name: &str, text: &str| object.insert(name.to_owned(), Value::String(text.to_owned()));
    put("specversion", "1.0");
    put("id", &event.envelope.id);
    put("source", &event.envelope.source);
    put("type", event.fact.type_name());
    put("time", &time::rfc3339(event.envelope.time_ms));
    if is_subject(event.fact.subject()) {
        put("subject", event.fact.subject());
    }
    put("tenant", &event.envelope.tenant);
    for (name, text) in &parsed.extensions {
        put(name, text);
    }
    put("datacontenttype", "application/json");
    object.insert("data".to_owned(), Value::Object(parsed.data.clone()));
    Value::Object(object)
}

/// RFC 3339 in UTC with milliseconds, the format of times in events.
pub fn rfc3339(at_ms: i64) -> String {
    time::rfc3339(at_ms)
}

/// A wall-clock time in the format of events: `YYYY-MM-DDTHH:MM:SS`.
pub fn wall_clock(local: jiff::civil::DateTime) -> String {
    time::wall_clock(local)
}

/// An RFC 3339 time with an offset, within the years 1970 to 2100, in milliseconds since the epoch.
pub fn parse_rfc3339(text: &str) -> Result<i64, Fault> {
    time::instant_ms(text).map_err(|(code, detail)| Fault::new("", code, detail))
}
