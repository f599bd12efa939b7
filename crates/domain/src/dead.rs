//! Dead letters: records that could not be folded, kept with their address and the reason.
//!
//! ```text
//!   record ──rejected──► letter ──► dead-letters topic ──► list, show
//!                                        ▲     │
//!               resolution: redriven ────┤     ├─► repair (patch, key, place) ─► a new record in its topic
//!               resolution: dropped  ────┘     └─► dropped
//! ```
//!
//! A letter is the original record, with its key, value and headers, and additional headers: the names that Kafka
//! Connect uses for the source and the error, and `foretell_*` for the rest. A record that was redriven and is rejected
//! again counts its attempts and keeps the time of its first failure. Replays write a letter again; two letters are the
//! same if source position and attempt are equal.
//!
//! History is never edited. A redrive appends a new record, and a [`resolution`], a record of the same topic, states
//! how a letter was resolved, so that everything follows from the log. Letters, filters and repairs are plain functions
//! in this module and its children; only the engine reads and appends.

pub mod details;
pub mod filter;
pub mod patch;
pub mod query;
pub mod repair;
pub mod resolution;

use bytes::Bytes;
use foretell_events::codec::{Faults, parse_rfc3339, rfc3339};
use foretell_events::record::{Header, NewRecord, RECORD_BYTES_MAX, Record};
use foretell_events::{Position, Topic};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Header: full name of the source topic.
pub const TOPIC: &str = "__connect.errors.topic";
/// Header: source partition.
pub const PARTITION: &str = "__connect.errors.partition";
/// Header: source offset.
pub const OFFSET: &str = "__connect.errors.offset";
/// Header: every fault, for a person.
pub const MESSAGE: &str = "__connect.errors.exception.message";
/// Header: the stage of processing at which the record was rejected.
pub(crate) const STAGE: &str = "__connect.errors.stage";
/// Header: stable code of the first fault.
pub const CODE: &str = "foretell_error_code";
/// Header: how many times the record was rejected, from 1.
pub const ATTEMPT: &str = "foretell_attempt";
/// Header: timestamp of the record that was rejected first, RFC 3339.
pub(crate) const FIRST_FAILURE: &str = "foretell_first_failure";

/// Header: bytes of the value, if the letter omits the value and foreign headers because it would otherwise be larger
/// than a record may be. The source position identifies the original.
pub(crate) const OMITTED: &str = "foretell_value_omitted_bytes";

const OURS: [&str; 9] = [TOPIC, PARTITION, OFFSET, MESSAGE, STAGE, CODE, ATTEMPT, FIRST_FAILURE, OMITTED];
/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 2_048;
/// Longest key of a letter without its value; `tenant:subject` is far shorter.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// Bytes reserved for the headers of a letter.
const HEADERS_BYTES_MAX: usize = 4_096;

/// The dead letter of a record.
pub fn letter(record: &Record, topic_name: &str, faults: &Faults) -> NewRecord {
    let before = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let attempt = before(ATTEMPT).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0).saturating_add(1);
    let first_failure = before(FIRST_FAILURE).map_or_else(|| rfc3339(record.timestamp_ms), str::to_owned);
    let mut message = faults.to_string();
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    let added = [
        (TOPIC, topic_name.to_owned()),
        (PARTITION, record.position.partition.to_string()),
        (OFFSET, record.position.offset.to_string()),
        (MESSAGE, message),
        (STAGE, "decode".to_owned()),
        (CODE, faults.first().code.to_owned()),
        (ATTEMPT, attempt.to_string()),
        (FIRST_FAILURE, first_failure),
    ];
    if record.bytes() + HEADERS_BYTES_MAX > RECORD_BYTES_MAX {
        // Only another producer writes such records. Its source topic is kept forever, so nothing is lost.
        let omitted = [(OMITTED, record.value.len().to_string())];
        let headers = added.into_iter().chain(omitted).map(|(name, value)| (name.to_owned(), Bytes::from(value)));
        let (key, value) = (record.key.clone().filter(|key| key.len() < KEY_BYTES_MAX), Bytes::new());
        return NewRecord { topic: Topic::DeadLetters, key, value, headers: headers.collect() };
    }
    let untouched = original_headers(&record.headers).cloned();
    let added = added.into_iter().map(|(name, value)| -> Header { (name.to_owned(), Bytes::from(value)) });
    NewRecord {
        topic: Topic::DeadLetters,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: untouched.chain(added).collect(),
    }
}

/// The position of a letter in its topic, written `PARTITION/OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id {
    /// The partition of the dead-letters topic, from 0.
    pub partition: u32,
    /// The offset in it, from 0.
    pub offset: i64,
}

impl From<Position> for Id {
    fn from(position: Position) -> Self {
        Self { partition: position.partition, offset: position.offset }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        parts
            .filter(|id| id.offset >= 0)
            .ok_or_else(|| format!("{text:?} is not of the form PARTITION/OFFSET, such as 0/17"))
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The position of a record, with the full name of its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Full name of the topic.
    pub topic: String,
    /// The partition, from 0.
    pub partition: u32,
    /// The offset, from 0.
    pub offset: i64,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// What two copies of a letter have in common: a hash of source topic, partition, offset and attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(u128);

/// The metadata of a letter about its original record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The position of the original record.
    pub source: Address,
    /// How many times it was rejected, from 1.
    pub attempt: u32,
    /// Code of the first fault.
    pub code: String,
    /// Every fault, truncated.
    pub message: String,
    /// The stage of processing at which it was rejected.
    pub stage: String,
    /// Timestamp of the record that was rejected first.
    pub first_failure_ms: i64,
    /// Bytes of the value, if the letter omits it.
    pub omitted_bytes: Option<u64>,
}

impl Letter {
    /// Reads a record of the topic; none if it is not a letter, such as a resolution record or a record of another
    /// producer.
    pub fn read(record: &Record) -> Option<Self> {
        let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let long = |name| text(name).map(str::to_owned).unwrap_or_default();
        let first_failure = text(FIRST_FAILURE).and_then(|time| parse_rfc3339(time).ok());
        Some(Self {
            source: Address {
                topic: text(TOPIC)?.to_owned(),
                partition: text(PARTITION)?.parse().ok()?,
                offset: text(OFFSET)?.parse().ok()?,
            },
            attempt: text(ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(1),
            code: long(CODE),
            message: long(MESSAGE),
            stage: long(STAGE),
            first_failure_ms: first_failure.unwrap_or(record.timestamp_ms),
            omitted_bytes: text(OMITTED).and_then(|bytes| bytes.parse().ok()),
        })
    }

    /// The identity that it shares with its copies.
    pub fn identity(&self) -> Identity {
        identity(&self.source, self.attempt)
    }
}

fn identity(source: &Address, attempt: u32) -> Identity {
    let Address { topic, partition, offset } = source;
    let text = format!("{topic}\0{partition}\0{offset}\0{attempt}");
    Identity(xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// The headers of a letter that the original record had.
pub fn original_headers(headers: &[Header]) -> impl Iterator<Item = &Header> {
    headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::Position;
    use foretell_events::codec::{Fault, MISSING_FIELD};

    fn record(headers: Vec<Header>) -> Record {
        Record {
            position: Position { topic: Topic::Logins, partition: 3, offset: 41 },
            timestamp_ms: 1_767_225_600_000,
            key: Some(Bytes::from_static(b"t:u")),
            value: Bytes::from_static(b"{\xff"),
            headers,
        }
    }

    fn text(letter: &NewRecord, name: &str) -> Option<String> {
        let found: Vec<_> = letter.headers.iter().filter(|(n, _)| n == name).collect();
        assert!(found.len() <= 1, "{name} stands there once");
        found.first().map(|(_, v)| String::from_utf8(v.to_vec()).unwrap())
    }

    #[test]
    fn every_header_says_what_its_name_says() {
        let original = ("ce_id".to_owned(), Bytes::from_static(b"\xfe7"));
        let faults = Faults::one(Fault::new("/data/ip", MISSING_FIELD, "is required"));
        let letter = letter(&record(vec![original.clone()]), "foretell.logins", &faults);
        assert_eq!(letter.key.as_deref(), Some(&b"t:u"[..]));
        assert_eq!(letter.value.as_ref(), b"{\xff");
        assert_eq!(letter.headers[0], original);
        for (name, value) in [
            ("__connect.errors.topic", "foretell.logins"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "41"),
            ("__connect.errors.exception.message", "MISSING_FIELD at /data/ip: is required"),
            ("__connect.errors.stage", "decode"),
            ("foretell_error_code", "MISSING_FIELD"),
            ("foretell_attempt", "1"),
            ("foretell_first_failure", "2026-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(text(&letter, name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn a_letter_never_outgrows_a_record() {
        let faults = Faults::one(Fault::new("", MISSING_FIELD, "no"));
        let mut large = record(vec![("foreign".into(), Bytes::from_static(b"x"))]);
        large.value = Bytes::from(vec![b'x'; RECORD_BYTES_MAX - 100]);
        let letter = letter(&large, "foretell.logins", &faults);
        assert!(letter.value.is_empty() && text(&letter, "foreign").is_none());
        assert_eq!(text(&letter, OMITTED), Some((RECORD_BYTES_MAX - 100).to_string()));
        assert_eq!(text(&letter, OFFSET).as_deref(), Some("41"));
        assert_eq!(letter.key.as_deref(), Some(&b"t:u"[..]));
    }

    #[test]
    fn a_record_rejected_again_counts_and_remembers() {
        let faults = Faults::one(Fault::new("", MISSING_FIELD, "x".repeat(10_000)));
        let first = letter(&record(vec![]), "a", &faults);
        let mut again = record(first.headers);
        again.timestamp_ms += 60_000;
        let second = letter(&again, "b", &faults);
        assert_eq!(text(&second, ATTEMPT).as_deref(), Some("2"));
        assert_eq!(text(&second, FIRST_FAILURE).as_deref(), Some("2026-01-01T00:00:00.000Z"));
        assert_eq!(text(&second, TOPIC).as_deref(), Some("b"));
        assert!(text(&second, MESSAGE).unwrap().len() <= MESSAGE_BYTES_MAX);
    }

    fn stored(letter: NewRecord, timestamp_ms: i64) -> Record {
        let NewRecord { topic, key, value, headers } = letter;
        let position = Position { topic, partition: 2, offset: 17 };
        Record { position, timestamp_ms, key, value, headers }
    }

    #[test]
    fn a_letter_is_read_as_it_was_written_and_its_copies_are_the_same() {
        let faults = Faults::one(Fault::new("/data/ip", MISSING_FIELD, "is required"));
        let written = letter(&record(vec![("x".into(), Bytes::from_static(b"1"))]), "foretell.logins", &faults);
        let first = stored(written.clone(), 1_767_225_600_500);
        let read = Letter::read(&first).unwrap();
        assert_eq!((read.source.to_string().as_str(), read.attempt), ("foretell.logins/3/41", 1));
        assert_eq!((read.code.as_str(), read.first_failure_ms), (MISSING_FIELD, 1_767_225_600_000));
        let copy = Letter::read(&stored(written, 1_767_999_999_999)).unwrap();
        assert_eq!(read.identity(), copy.identity());
        let source = || read.source.clone();
        for other in [
            Letter { source: Address { topic: "foretell.appointments".into(), ..source() }, ..read.clone() },
            Letter { source: Address { partition: 4, ..source() }, ..read.clone() },
            Letter { source: Address { offset: 42, ..source() }, ..read.clone() },
            Letter { attempt: 2, ..read.clone() },
        ] {
            assert_ne!(other.identity(), read.identity());
        }
        assert_eq!(original_headers(&first.headers).count(), 1);
        assert_eq!(Letter::read(&record(vec![])), None, "a record of a foreign producer");
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = Id { partition: 2, offset: 17 };
        assert_eq!((id.to_string().as_str(), "2/17".parse()), ("2/17", Ok(id)));
        for wrong in ["", "2", "2/", "/17", "2/-1", "-2/1", "2/17/1", "a/b", "2/17 "] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong:?}");
        }
    }
}
