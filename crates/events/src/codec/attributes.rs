//! The CloudEvents attributes, for all modes.
//!
//! In binary mode they are headers, in structured mode members of the JSON object. Both are first turned into one list
//! of names and texts, so that the remaining code exists once.

use super::bounds::*;
use super::fault::{self, Fault, Faults, quoted};
use super::letter::is_name;
use super::time;
use super::value::{ReadResult, wrong};
use crate::record::Record;
use crate::{Envelope, ID_BYTES_MAX};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The defaults of missing attributes.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// The tenant of an event without one.
    pub tenant: &'a str,
    /// The time of an event without one, in milliseconds since the epoch.
    pub time_ms: i64,
}

/// The attributes of one event, before validation; without `data`.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) specversion: Option<Attribute<'a>>,
    pub(super) id: Option<Attribute<'a>>,
    pub(super) source: Option<Attribute<'a>>,
    pub(super) type_name: Option<Attribute<'a>>,
    pub(super) time: Option<Attribute<'a>>,
    pub(super) tenant: Option<Attribute<'a>>,
    pub(super) content_type: Option<Attribute<'a>>,
    /// All others that are text, without `subject`, because the data contains it too.
    pub(super) extensions: Vec<(&'a str, Cow<'a, str>)>,
    /// How many of those are omitted, because they are too long or too many.
    pub(super) dropped: usize,
}

/// The text of an attribute, or why it has none.
type Attribute<'a> = ReadResult<&'a str>;

impl<'a> Attributes<'a> {
    /// From the headers of a record; the last one of a repeated name counts.
    pub(super) fn of_record(record: &'a Record) -> Self {
        let mut found = Self::default();
        for (name, value) in &record.headers {
            let text = std::str::from_utf8(value).map_err(|_| fault::not_utf8());
            match name.strip_prefix("ce_") {
                Some(name) => found.take(name, text),
                None if name.eq_ignore_ascii_case("content-type") => found.content_type = Some(text),
                None => {}
            }
        }
        found
    }

    /// From names without their prefix, and texts.
    pub(super) fn of_pairs(pairs: &'a [(&'a str, ReadResult<String>)]) -> Self {
        let mut found = Self::default();
        for (name, text) in pairs {
            found.take(name, text.as_deref().map_err(Clone::clone));
        }
        found
    }

    /// From the members of a structured event.
    pub(super) fn of_object(object: &'a Map<String, Value>) -> Self {
        let mut found = Self::default();
        for (name, value) in object {
            match value {
                Value::Null => {}
                _ if name == "data" || name == "data_base64" => {}
                Value::String(text) => found.take(name, Ok(text)),
                Value::Bool(_) | Value::Number(_) if !CONTEXT.contains(&name.as_str()) => {
                    found.extension(name, Cow::Owned(value.to_string()));
                }
                _ => found.take(name, Err(wrong("a string", value))),
            }
        }
        found
    }

    fn take(&mut self, name: &'a str, text: Attribute<'a>) {
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.type_name,
            "time" => &mut self.time,
            "tenant" => &mut self.tenant,
            "datacontenttype" => &mut self.content_type,
            _ => {
                if let Ok(text) = text {
                    self.extension(name, Cow::Borrowed(text));
                }
                return;
            }
        };
        *slot = Some(text);
    }

    /// Keeps an extension attribute; a name that cannot be one is ignored, and one beyond the bounds is counted.
    fn extension(&mut self, name: &'a str, text: Cow<'a, str>) {
        if !is_name(name) || matches!(name, "subject" | "data") {
            return;
        }
        if self.extensions.len() < EXTENSIONS_MAX && text.len() <= TEXT_BYTES_MAX {
            self.extensions.retain(|(known, _)| *known != name);
            self.extensions.push((name, text));
        } else {
            self.dropped += 1;
        }
    }

    /// Whether it has any attribute that identifies a CloudEvent.
    pub(super) fn any(&self) -> bool {
        self.specversion.is_some() || self.id.is_some() || self.source.is_some() || self.type_name.is_some()
    }

    /// The envelope and the type; a faulty attribute is replaced by a placeholder.
    pub(super) fn envelope(&self, defaults: Defaults<'_>, faults: &mut Vec<Fault>) -> (Envelope, &'a str) {
        if let Some(version) = required(&self.specversion, "specversion", 16, faults).filter(|v| *v != "1.0") {
            let detail = format!("{} is not 1.0", quoted(version));
            faults.push(Fault::new("/specversion", fault::UNSUPPORTED_SPECVERSION, detail));
        }
        let id = required(&self.id, "id", ID_BYTES_MAX, faults).unwrap_or_default();
        let source = required(&self.source, "source", SOURCE_BYTES_MAX, faults).unwrap_or_default();
        if source.chars().any(char::is_control) {
            let detail = "must be a URI reference, without control characters";
            faults.push(Fault::new("/source", fault::INVALID_VALUE, detail));
        }
        let type_name = required(&self.type_name, "type", TEXT_BYTES_MAX, faults).unwrap_or_default();
        let tenant = optional(&self.tenant, "tenant", TEXT_BYTES_MAX, faults).unwrap_or(defaults.tenant);
        if !is_tenant(tenant) {
            let detail = format!("{} is not a tenant: 1 to 63 of a-z, 0-9 and -", quoted(tenant));
            faults.push(Fault::new("/tenant", fault::INVALID_VALUE, detail));
        }
        let time = optional(&self.time, "time", TEXT_BYTES_MAX, faults);
        let time_ms = time.map_or(Ok(defaults.time_ms), time::instant_ms).unwrap_or_else(|(code, detail)| {
            faults.push(Fault::new("/time", code, detail));
            0
        });
        let envelope = Envelope { id: id.into(), source: source.into(), tenant: tenant.into(), time_ms };
        (envelope, type_name)
    }

    /// The extension attributes as owned texts.
    pub(super) fn into_extensions(self) -> Vec<(String, String)> {
        self.extensions.into_iter().map(|(name, text)| (name.to_owned(), text.into_owned())).collect()
    }
}

/// The attributes that CloudEvents defines as text and this codec reads.
pub(super) const CONTEXT: [&str; 8] =
    ["specversion", "id", "source", "type", "time", "tenant", "datacontenttype", "subject"];

/// Whether a text can be a tenant: 1 to 63 characters of `a-z`, `0-9` and `-`.
pub fn is_tenant(text: &str) -> bool {
    (1..=TENANT_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn required<'a>(
    attribute: &Option<Attribute<'a>>,
    name: &str,
    bytes_max: usize,
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    let place = || format!("/{name}");
    match attribute {
        None => faults.push(Fault::new(place(), fault::MISSING_FIELD, format!("{name} is required"))),
        Some(Ok("")) => faults.push(Fault::new(place(), fault::INVALID_VALUE, "must not be empty")),
        Some(_) => return optional(attribute, name, bytes_max, faults),
    }
    None
}

fn optional<'a>(
    attribute: &Option<Attribute<'a>>,
    name: &str,
    bytes_max: usize,
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    match attribute.as_ref()? {
        Ok(text) if text.len() <= bytes_max => return Some(text),
        Ok(_) => {
            let detail = format!("longer than {bytes_max} bytes");
            faults.push(Fault::new(format!("/{name}"), fault::TOO_LONG, detail));
        }
        Err((code, detail)) => faults.push(Fault::new(format!("/{name}"), code, detail.clone())),
    }
    None
}

/// Whether the content type means that the whole event is in the value. A record without one is binary.
pub(super) fn is_structured(content_type: Option<&[u8]>) -> Result<bool, Faults> {
    let Some(bytes) = content_type else { return Ok(false) };
    let text = String::from_utf8_lossy(bytes);
    let essence = essence(&text);
    match essence.strip_prefix("application/cloudevents") {
        None => Ok(false),
        Some("" | "+json") => Ok(true),
        Some(_) => Err(Faults::one(unsupported("", &essence))),
    }
}

/// A fault unless the content type is JSON or missing.
pub(super) fn check_json(content_type: &Option<Attribute<'_>>, faults: &mut Vec<Fault>) {
    match content_type {
        None => {}
        Some(Err((code, detail))) => faults.push(Fault::new("/datacontenttype", code, detail.clone())),
        Some(Ok(text)) => {
            let essence = essence(text);
            if !essence.ends_with("/json") && !essence.ends_with("+json") {
                faults.push(unsupported("/datacontenttype", &essence));
            }
        }
    }
}

/// The media type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn unsupported(place: &str, content_type: &str) -> Fault {
    let detail = format!("{} is not supported; send application/json", quoted(content_type));
    Fault::new(place, fault::UNSUPPORTED_CONTENT_TYPE, detail)
}
