//! How a letter is shown: as much as can be read, and nothing that cannot be printed.

use super::resolution::ResolutionRecord;
use super::{Address, Id, Letter, original_headers};
use foretell_events::codec::{self, rfc3339};
use foretell_events::record::Record;
use foretell_events::{Position, Topic, gate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a letter was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Not resolved.
    Open,
    /// Its record was appended again.
    Redriven,
    /// It was dropped.
    Dropped,
}

/// A letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterEntry {
    /// Names it in commands: `PARTITION/OFFSET` in the dead-letters topic.
    pub id: Id,
    /// How it was resolved.
    pub state: LetterState,
    /// The position of the original record.
    pub source: Address,
    /// How many times it was rejected, from 1.
    pub attempt: u32,
    /// Code of the first fault.
    pub code: String,
    /// Every fault, truncated.
    pub message: String,
    /// When it was rejected first, RFC 3339.
    pub first_failure: String,
    /// The record's key; in hex after `0x` if it is not UTF-8.
    pub key: Option<String>,
}

impl DeadLetterEntry {
    /// A letter and the record that it was read from.
    pub fn new(letter: &Letter, record: &Record, state: LetterState) -> Self {
        Self {
            id: record.position.into(),
            state,
            source: letter.source.clone(),
            attempt: letter.attempt,
            code: letter.code.clone(),
            message: letter.message.clone(),
            first_failure: rfc3339(letter.first_failure_ms),
            key: record.key.as_deref().map(text),
        }
    }
}

/// A fault according to this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// JSON pointer (RFC 6901) into the event in structured form; empty for the whole.
    pub pointer: String,
    /// Stable code.
    pub code: String,
    /// A sentence for a person.
    pub detail: String,
}

/// A value, decoded as far as possible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It is JSON.
    Json(Value),
    /// It is UTF-8.
    Text(String),
    /// It is neither; two digits per byte.
    Hex(String),
}

/// All details of a letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterDetails {
    /// As in a list.
    #[serde(flatten)]
    pub listed: DeadLetterEntry,
    /// The stage of processing at which the record was rejected.
    pub stage: String,
    /// When the letter was written, RFC 3339.
    pub written_at: String,
    /// What is wrong with the record according to this version; empty if it is valid now.
    pub faults: Vec<Finding>,
    /// Headers of the original record, without those of the letter; values in hex after `0x` if not UTF-8.
    pub headers: Vec<(String, String)>,
    /// The event in structured form, to which a patch would be applied; none if it cannot be read.
    pub event: Option<Value>,
    /// The record's value.
    pub value: Body,
    /// Bytes of the value that the letter omits; if set, the value was read at the source.
    pub omitted_bytes: Option<u64>,
    /// How the letter was resolved.
    #[serde(rename = "mark")]
    pub resolution: Option<ResolutionRecord>,
}

/// Shows a letter.
///
/// `record` is the letter, and `content` is the same, or the original record if the letter omits the value; `source` is
/// the topic, if it is a known one, and its partition count, if it is the topic of the current epoch.
pub fn details(
    letter: &Letter,
    record: &Record,
    content: &Record,
    source: Option<(Topic, Option<u32>)>,
    resolution: Option<ResolutionRecord>,
) -> DeadLetterDetails {
    let state = match resolution.as_ref().map(|record| record.resolution.name()) {
        None => LetterState::Open,
        Some("redriven") => LetterState::Redriven,
        Some(_) => LetterState::Dropped,
    };
    DeadLetterDetails {
        listed: DeadLetterEntry::new(letter, record, state),
        stage: letter.stage.clone(),
        written_at: rfc3339(record.timestamp_ms),
        faults: findings(letter, record, content, source),
        headers: original_headers(&content.headers).map(|(name, value)| (name.clone(), text(value))).collect(),
        event: codec::structured(content).ok(),
        value: body(&content.value),
        omitted_bytes: letter.omitted_bytes,
        resolution,
    }
}

/// The faults of the record at its original position.
fn findings(letter: &Letter, record: &Record, content: &Record, source: Option<(Topic, Option<u32>)>) -> Vec<Finding> {
    let (topic, partitions) = source.unwrap_or((Topic::DeadLetters, Some(1)));
    let position = Position { topic, partition: letter.source.partition, offset: letter.source.offset };
    // The time of the original record; a later attempt does not preserve it, and was written shortly before its letter.
    let timestamp_ms = if letter.attempt == 1 { letter.first_failure_ms } else { record.timestamp_ms };
    let original = Record { position, timestamp_ms, ..content.clone() };
    let decoded = gate::record(&original);
    let checked = decoded.and_then(|event| codec::check_record(&event, &original, partitions.unwrap_or(1)));
    let faults = checked.err().map(codec::Faults::into_vec).unwrap_or_default().into_iter();
    // The partition count of a topic of an older epoch is no longer known.
    let faults = faults.filter(|fault| partitions.is_some() || fault.code != codec::WRONG_PARTITION);
    faults.map(|fault| Finding { pointer: fault.pointer, code: fault.code.to_owned(), detail: fault.detail }).collect()
}

fn body(value: &[u8]) -> Body {
    if let Ok(json) = serde_json::from_slice(value) {
        return Body::Json(json);
    }
    std::str::from_utf8(value).map_or_else(|_| Body::Hex(hex::encode(value)), |text| Body::Text(text.to_owned()))
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| format!("0x{}", hex::encode(bytes)), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead;
    use bytes::Bytes;
    use serde_json::json;

    fn show(key: &'static [u8], value: &'static [u8]) -> DeadLetterDetails {
        let source = Record {
            position: Position { topic: Topic::Logins, partition: 0, offset: 5 },
            timestamp_ms: 1_772_359_200_000,
            key: Some(Bytes::from_static(key)),
            value: Bytes::from_static(value),
            headers: vec![
                ("content-type".into(), Bytes::from_static(b"application/cloudevents+json")),
                ("x-hop".into(), Bytes::from_static(b"\xfe1")),
            ],
        };
        let faults = codec::decode(&source).and_then(|event| codec::check_record(&event, &source, 1)).unwrap_err();
        let new = dead::letter(&source, "foretell.logins", &faults);
        let position = Position { topic: Topic::DeadLetters, partition: 2, offset: 17 };
        let (key, value, headers) = (new.key, new.value, new.headers);
        let record = Record { position, timestamp_ms: 1_772_359_300_000, key, value, headers };
        let letter = Letter::read(&record).unwrap();
        let shown = details(&letter, &record, &record, Some((Topic::Logins, Some(1))), None);
        let told: Vec<_> = faults.iter().map(|f| (f.pointer.as_str(), f.code)).collect();
        let found: Vec<_> = shown.faults.iter().map(|f| (f.pointer.as_str(), f.code.as_str())).collect();
        assert_eq!(found, told, "the faults are found again");
        shown
    }

    #[test]
    fn a_letter_is_shown_as_far_as_it_can_be_read() {
        let value = br#"{"specversion":"1.0","id":"e","source":"s","type":"foretell.login.failed","data":{"ip":7}}"#;
        let read = show(b"default:ada", value);
        assert_eq!(read.listed.id.to_string(), "2/17");
        assert_eq!((read.listed.key.as_deref(), read.listed.state), (Some("default:ada"), LetterState::Open));
        assert_eq!(
            read.headers,
            [("content-type", "application/cloudevents+json"), ("x-hop", "0xfe31")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
        let pointers: Vec<_> = read.faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/data/user_id", "/data/ip"]);
        assert_eq!(read.event.as_ref().unwrap()["data"], json!({"ip": 7}));
        assert!(matches!(&read.value, Body::Json(value) if value["id"] == "e"));
        let back: DeadLetterDetails = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(back, read);
    }

    #[test]
    fn what_is_no_text_is_shown_in_hex() {
        let text = show(b"\xff\x00", b"{ not json");
        assert_eq!((text.listed.key.as_deref(), &text.value), (Some("0xff00"), &Body::Text("{ not json".into())));
        assert_eq!(text.event, None);
        assert_eq!(show(b"k", b"\x80\x01").value, Body::Hex("8001".into()));
    }

    #[test]
    fn a_wrong_key_is_found_again() {
        let value = br#"{"specversion":"1.0","id":"e","source":"s","type":"foretell.login.failed",
            "data":{"user_id":"ada","ip":"192.0.2.1"}}"#;
        assert_eq!(show(b"default:eve", value).faults[0].code, codec::KEY_MISMATCH);
    }
}
