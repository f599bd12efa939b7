//! The faults of an event, described so that its sender can correct all of them at once.
//!
//! A sender who gets one fault per response needs as many requests as there are faults. So an event is read to its end
//! and all of its faults are collected, each with the place in the structured form, a stable code and a sentence. The
//! sentences quote at most a few characters of the input, because they are included in problem documents and dead
//! letters.

use serde::Serialize;
use std::fmt;

/// The body is not JSON, or nested beyond 128 levels.
pub const MALFORMED_JSON: &str = "MALFORMED_JSON";
/// None of the attributes that identify a CloudEvent is present, or the body is not a JSON object.
pub const NOT_A_CLOUDEVENT: &str = "NOT_A_CLOUDEVENT";
/// A required attribute or field is missing or `null`.
pub const MISSING_FIELD: &str = "MISSING_FIELD";
/// A value has a different JSON type than its field.
pub const WRONG_TYPE: &str = "WRONG_TYPE";
/// A value has the right type but is outside of its field's range.
pub const INVALID_VALUE: &str = "INVALID_VALUE";
/// A text, list or map is longer than its limit.
pub const TOO_LONG: &str = "TOO_LONG";
/// The event's `type` is not in the catalog.
pub const UNKNOWN_TYPE: &str = "UNKNOWN_TYPE";
/// The zone is not in the IANA database.
pub const UNKNOWN_TIME_ZONE: &str = "UNKNOWN_TIME_ZONE";
/// Not RFC 3339, or a date or time of day that does not exist.
pub const INVALID_TIME: &str = "INVALID_TIME";
/// Neither an IPv4 nor an IPv6 address.
pub const INVALID_ADDRESS: &str = "INVALID_ADDRESS";
/// The content type of the data is not JSON.
pub const UNSUPPORTED_CONTENT_TYPE: &str = "UNSUPPORTED_CONTENT_TYPE";
/// `specversion` is not `1.0`.
pub const UNSUPPORTED_SPECVERSION: &str = "UNSUPPORTED_SPECVERSION";
/// The record's key is not `tenant:subject` of the event.
pub const KEY_MISMATCH: &str = "KEY_MISMATCH";
/// The record is not in the partition of its key.
pub const WRONG_PARTITION: &str = "WRONG_PARTITION";
/// The record is not in the topic of its type.
pub(crate) const WRONG_TOPIC: &str = "WRONG_TOPIC";
/// `time` is more than five minutes after the arrival of the event.
pub const TIME_IN_FUTURE: &str = "TIME_IN_FUTURE";
/// An object has a duplicate member, or a message has an attribute or a content type twice.
pub const DUPLICATE_MEMBER: &str = "DUPLICATE_MEMBER";
/// The name of an attribute contains characters other than `a-z` and `0-9`.
pub const INVALID_NAME: &str = "INVALID_NAME";

/// Every code above, for documents and tests.
pub const CODES: [&str; 18] = [
    MALFORMED_JSON,
    NOT_A_CLOUDEVENT,
    MISSING_FIELD,
    WRONG_TYPE,
    INVALID_VALUE,
    TOO_LONG,
    UNKNOWN_TYPE,
    UNKNOWN_TIME_ZONE,
    INVALID_TIME,
    INVALID_ADDRESS,
    UNSUPPORTED_CONTENT_TYPE,
    UNSUPPORTED_SPECVERSION,
    KEY_MISMATCH,
    WRONG_PARTITION,
    WRONG_TOPIC,
    TIME_IN_FUTURE,
    DUPLICATE_MEMBER,
    INVALID_NAME,
];

/// One fault of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the event in structured form, as in `/data/user_id`; empty for the whole.
    pub pointer: String,
    /// One of [`CODES`].
    pub code: &'static str,
    /// A sentence for a person.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => write!(f, "{}: {}", self.code, self.detail),
            pointer => write!(f, "{} at {pointer}: {}", self.code, self.detail),
        }
    }
}

/// All faults of an event: at least one, in the order of reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// A single fault.
    pub fn one(fault: Fault) -> Self {
        Self(vec![fault])
    }

    /// The value, if there are no faults.
    pub(crate) fn none_of<T>(value: T, faults: Vec<Fault>) -> Result<T, Self> {
        if faults.is_empty() { Ok(value) } else { Err(Self(faults)) }
    }

    /// These faults; at least one is expected, and an unnamed one is used if there is none.
    pub(super) fn all_of(faults: Vec<Fault>) -> Self {
        if faults.is_empty() { Self::one(Fault::new("", NOT_A_CLOUDEVENT, "cannot be read")) } else { Self(faults) }
    }

    /// The faults, in the order of reading.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// The fault whose code is used if only one code can be given.
    pub fn first(&self) -> &Fault {
        &self.0[0]
    }

    /// The faults of one event among many: each pointer is prefixed with the event's place, as in `/3`.
    pub fn within(mut self, place: &str) -> Self {
        for fault in &mut self.0 {
            fault.pointer.insert_str(0, place);
        }
        self
    }

    /// The list of faults; never empty.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An attribute in headers whose bytes are not text.
pub(super) fn not_utf8() -> (&'static str, String) {
    (INVALID_VALUE, "must be UTF-8".to_owned())
}

/// At most 64 characters of the input, without control characters, in quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String =
        text.chars().take(64).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if shown.len() < text.len() && text.chars().nth(64).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self::one(fault)
    }
}
