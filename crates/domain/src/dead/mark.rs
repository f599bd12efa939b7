//! The resolution record of a letter: a record of the dead-letters topic that states how the letter was resolved.
//!
//! It has the key of its letter, so it is in the same partition, after the letter. It closes the letter and all its
//! copies, earlier and later ones, for as long as the topic keeps it. It is written after the redrive or drop itself: a
//! redrive whose resolution record was lost in a crash is repeated with the same CloudEvents id and source, by which
//! the fold recognises it.

use super::{Address, Id, Identity, Letter, TOPIC, identity};
use bytes::Bytes;
use foretell_events::record::{NewRecord, Record};
use serde::{Deserialize, Serialize};

/// Header: how the letter was resolved, `redriven` or `dropped`. The value contains the rest, in JSON.
pub const MARK: &str = "foretell_mark";
/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// How a letter is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Fate {
    /// Its record was appended again.
    Redriven {
        /// The new record.
        to: Address,
    },
    /// It is no longer needed.
    Dropped,
}

impl Fate {
    /// The name in the header.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Redriven { .. } => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// The value of a resolution record: one line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How the letter was resolved.
    #[serde(flatten)]
    pub fate: Fate,
    /// The letter that was resolved.
    pub letter: Id,
    /// The original record of the letter.
    pub source: Address,
    /// The attempt of the letter.
    pub attempt: u32,
    /// When, RFC 3339.
    pub at: String,
    /// Why, in the words of the operator; at most [`REASON_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Mark {
    /// The resolution record of a letter.
    pub fn of(letter: &Letter, id: Id, fate: Fate, at: String, reason: Option<String>) -> Self {
        Self { fate, letter: id, source: letter.source.clone(), attempt: letter.attempt, at, reason }
    }

    /// The record to append; `key` is that of the letter.
    pub fn record(&self, key: Option<Bytes>) -> NewRecord {
        let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from_static(value.as_bytes()));
        NewRecord {
            topic: foretell_events::Topic::DeadLetters,
            key,
            // Texts and numbers always have a JSON form.
            value: serde_json::to_vec(self).unwrap_or_default().into(),
            headers: vec![header(MARK, self.fate.name()), header("content-type", "application/json")],
        }
    }

    /// Reads a record of the topic; none if it is not a resolution record. A letter never is, even if its producer
    /// chose the header.
    pub fn read(record: &Record) -> Option<Self> {
        if record.header(TOPIC).is_some() || record.header(MARK).is_none() {
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
    fn a_mark_is_a_record_that_says_all_of_it() {
        let id = Id { partition: 0, offset: 7 };
        let to = Address { topic: "foretell.logins".into(), partition: 1, offset: 90 };
        let at = "2026-03-01T10:00:00.000Z".to_owned();
        let mark = Mark::of(&letter(), id, Fate::Redriven { to }, at, Some("mended".into()));
        let record = stored(mark.record(Some(Bytes::from_static(b"t:u"))));
        assert_eq!((record.key.as_deref(), record.header(MARK)), (Some(&b"t:u"[..]), Some(&b"redriven"[..])));
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let expected = json!({
            "outcome": "redriven", "to": {"topic": "foretell.logins", "partition": 1, "offset": 90},
            "letter": "0/7", "source": {"topic": "foretell.logins", "partition": 3, "offset": 41}, "attempt": 2,
            "at": "2026-03-01T10:00:00.000Z", "reason": "mended",
        });
        assert_eq!(value, expected);
        assert_eq!(Mark::read(&record), Some(mark.clone()));
        assert_eq!(mark.identity(), letter().identity());
        assert_eq!(Letter::read(&record), None, "a mark is no letter");
    }

    #[test]
    fn a_letter_is_no_mark_whatever_its_producer_wrote() {
        let mark = Mark::of(&letter(), Id { partition: 0, offset: 7 }, Fate::Dropped, String::new(), None);
        let mut record = stored(mark.record(None));
        assert_eq!(Mark::read(&record), Some(mark));
        record.headers.push((TOPIC.into(), Bytes::from_static(b"foretell.logins")));
        assert_eq!(Mark::read(&record), None);
    }

    #[test]
    fn the_mark_in_the_documents_is_one() {
        let documents = include_str!("../../../../docs/operations/dead-letters.md");
        let (_, section) = documents.split_once("## Resolution records").unwrap();
        let sample = section.split("```").nth(1).unwrap().strip_prefix("json").unwrap();
        let mark: Mark = serde_json::from_str(sample).unwrap();
        assert_eq!(serde_json::to_value(&mark).unwrap(), serde_json::from_str::<Value>(sample).unwrap());
    }
}
