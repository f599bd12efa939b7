//! How a letter was resolved: a record of the dead-letters topic that states it.
//!
//! A resolution record has the key of its letter, so it is in the same partition, after it. It closes the letter and
//! all its copies, earlier and later ones, for as long as the topic keeps it. It is written after what it reports: a
//! redrive whose resolution record was lost in a crash is done again, with the same CloudEvents id and source, by which
//! the fold recognises it.

use super::{Address, Id, Identity, Letter, TOPIC, identity};
use bytes::Bytes;
use foretell_events::record::{NewRecord, Record};
use serde::{Deserialize, Serialize};

/// Header: how the letter was resolved, `redriven` or `dropped`. The value contains the rest, as JSON.
pub(crate) const RESOLUTION: &str = "foretell_mark";
/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// How a letter was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Resolution {
    /// Its record was appended again.
    Redriven {
        /// The new record.
        to: Address,
    },
    /// It is not needed any more.
    Dropped,
}

impl Resolution {
    /// As in the header.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Redriven { .. } => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// The audit record of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolutionRecord {
    /// How it was resolved.
    #[serde(flatten)]
    pub resolution: Resolution,
    /// The letter that was acted upon.
    pub letter: Id,
    /// The original record of the letter.
    pub source: Address,
    /// The attempt of the letter.
    pub attempt: u32,
    /// When, RFC 3339.
    pub at: String,
    /// Why, in the operator's words; at most [`REASON_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ResolutionRecord {
    /// The resolution record of a letter.
    pub fn of(letter: &Letter, id: Id, resolution: Resolution, at: String, reason: Option<String>) -> Self {
        Self { resolution, letter: id, source: letter.source.clone(), attempt: letter.attempt, at, reason }
    }

    /// The record to append; `key` is that of the letter.
    pub fn record(&self, key: Option<Bytes>) -> NewRecord {
        let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from_static(value.as_bytes()));
        NewRecord {
            topic: foretell_events::Topic::DeadLetters,
            key,
            // Texts and numbers always have a JSON form.
            value: serde_json::to_vec(self).unwrap_or_default().into(),
            headers: vec![header(RESOLUTION, self.resolution.name()), header("content-type", "application/json")],
        }
    }

    /// Reads a record of the topic; none where it is no resolution record. A letter is none, whatever headers its
    /// producer chose.
    pub fn read(record: &Record) -> Option<Self> {
        if record.header(TOPIC).is_some() || record.header(RESOLUTION).is_none() {
            return None;
        }
        serde_json::from_slice(&record.value).ok()
    }

    /// The identity that its letter shares with the copies that it also closes.
    pub fn identity(&self) -> Identity {
        identity(&self.source, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::{Position, Topic};
    use serde_json::{Value, json};

    fn stored(new: NewRecord) -> Record {
        let position = Position { topic: Topic::DeadLetters, partition: 0, offset: 9 };
        Record { position, timestamp_ms: 0, key: new.key, value: new.value, headers: new.headers }
    }

    fn letter() -> Letter {
        Letter {
            source: Address { topic: "foretell.logins".into(), partition: 3, offset: 41 },
            attempt: 2,
            code: "MISSING_FIELD".into(),
            message: String::new(),
            stage: "decode".into(),
            first_failure_ms: 0,
            omitted_bytes: None,
        }
    }

    #[test]
    fn a_resolution_record_states_all_of_it() {
        let id = Id { partition: 0, offset: 7 };
        let to = Address { topic: "foretell.logins".into(), partition: 1, offset: 90 };
        let at = "2026-03-01T10:00:00.000Z".to_owned();
        let written = ResolutionRecord::of(&letter(), id, Resolution::Redriven { to }, at, Some("repaired".into()));
        let record = stored(written.record(Some(Bytes::from_static(b"t:u"))));
        assert_eq!((record.key.as_deref(), record.header(RESOLUTION)), (Some(&b"t:u"[..]), Some(&b"redriven"[..])));
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let expected = json!({
            "outcome": "redriven", "to": {"topic": "foretell.logins", "partition": 1, "offset": 90},
            "letter": "0/7", "source": {"topic": "foretell.logins", "partition": 3, "offset": 41}, "attempt": 2,
            "at": "2026-03-01T10:00:00.000Z", "reason": "repaired",
        });
        assert_eq!(value, expected);
        assert_eq!(ResolutionRecord::read(&record), Some(written.clone()));
        assert_eq!(written.identity(), letter().identity());
        assert_eq!(Letter::read(&record), None, "a resolution record is no letter");
    }

    #[test]
    fn a_letter_is_no_resolution_record_whatever_its_producer_wrote() {
        let written =
            ResolutionRecord::of(&letter(), Id { partition: 0, offset: 7 }, Resolution::Dropped, String::new(), None);
        let mut record = stored(written.record(None));
        assert_eq!(ResolutionRecord::read(&record), Some(written));
        record.headers.push((TOPIC.into(), Bytes::from_static(b"foretell.logins")));
        assert_eq!(ResolutionRecord::read(&record), None);
    }

    #[test]
    fn the_sample_in_the_documents_is_a_resolution_record() {
        let documents = include_str!("../../../../docs/operations/dead-letters.md");
        let (_, section) = documents.split_once("## Resolution records").unwrap();
        let sample = section.split("```").nth(1).unwrap().strip_prefix("json").unwrap();
        let written: ResolutionRecord = serde_json::from_str(sample).unwrap();
        assert_eq!(serde_json::to_value(&written).unwrap(), serde_json::from_str::<Value>(sample).unwrap());
    }
}
