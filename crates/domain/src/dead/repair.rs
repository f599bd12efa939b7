//! From a letter to the record that is appended again: patched, with the right key, or rejected with a sentence.
//!
//! The event is read like an event over HTTP and written like all events of Foretell: in binary mode, with unchanged
//! data, and with unknown fields up to [the gate's limit](gate::UNKNOWN_BYTES_MAX); the number of omitted ones is
//! reported. `ce_id` and `ce_source` stay, by which the fold recognises a repetition. An event without a time keeps
//! that of its original record, because the time of its new record would change it. The key is built from tenant and
//! subject, regardless of the old one. The topic is that of the event's type, which is the source topic unless the
//! record was sent to the wrong one.

use super::{ATTEMPT, FIRST_FAILURE, Letter, original_headers, patch};
use bytes::Bytes;
use foretell_events::codec::{self, Defaults, Faults, rfc3339};
use foretell_events::record::{Header, NewRecord, RECORD_BYTES_MAX, Record};
use foretell_events::{DEFAULT_TENANT, Position, gate};
use json_patch::Patch;

/// The conditions under which records are redriven.
#[derive(Debug, Clone, Copy)]
pub struct RepairContext<'a> {
    /// RFC 6902, applied to the event in structured form.
    pub patch: Option<&'a Patch>,
    /// A record that was rejected this many times is not redriven.
    pub attempts_max: u32,
    /// The present: when the new record would be appended.
    pub now_ms: i64,
}

/// Why a record is not redriven.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It was rejected too often.
    #[error("it was rejected {attempt} times; after {attempts_max} it is not sent again (--attempts-max)")]
    Attempts {
        /// How many times it was rejected.
        attempt: u32,
        /// The limit of attempts.
        attempts_max: u32,
    },
    /// There is no event that a patch could be applied to.
    #[error("it is not a CloudEvent: {0}")]
    NoEvent(Faults),
    /// The patch does not fit, or exceeds a limit.
    #[error("the patch cannot be applied: {0}")]
    Patch(patch::Error),
    /// It would be rejected again.
    #[error("it would be rejected again: {0}")]
    Faulty(Faults),
    /// Only the planner may write to the reminders topic.
    #[error("it belongs to the topic reminders, to which only the planner writes; drop it")]
    Reminder,
    /// The result is too large.
    #[error("the record would have {0} bytes; at most {RECORD_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

/// The record to append for a letter, and how many unknown fields and attributes it omits. `record` is the letter
/// itself, or the original record if the letter omits the value.
pub fn repair(letter: &Letter, record: &Record, terms: &RepairContext<'_>) -> Result<(NewRecord, usize), Refusal> {
    let (attempt, attempts_max) = (letter.attempt, terms.attempts_max);
    if attempt >= attempts_max {
        return Err(Refusal::Attempts { attempt, attempts_max });
    }
    let mut event = codec::structured(record).map_err(Refusal::NoEvent)?;
    if let Some(patch) = terms.patch {
        patch::apply(&mut event, patch).map_err(Refusal::Patch)?;
    }
    let defaults = Defaults { tenant: DEFAULT_TENANT, time_ms: letter.first_failure_ms };
    let parsed = codec::decode_structured(&event, defaults).map_err(Refusal::Faulty)?;
    if !parsed.event.fact.topic().takes_producers() {
        return Err(Refusal::Reminder);
    }
    let admitted = gate::GateContext::of_operator(terms.now_ms).admit(parsed).map_err(Refusal::Faulty)?;
    let (mut repaired, dropped) = admitted.into_record();
    repaired.headers.extend(carried(letter, record));
    check(&repaired, terms.now_ms)?;
    Ok((repaired, dropped))
}

/// The record's headers outside the event, and the attempt count, which prevents endless repetition.
fn carried(letter: &Letter, record: &Record) -> Vec<Header> {
    let is_event = |name: &str| name.starts_with("ce_") || name.eq_ignore_ascii_case("content-type");
    let foreign = original_headers(&record.headers).filter(|(name, _)| !is_event(name)).cloned();
    let ours = [(ATTEMPT, letter.attempt.to_string()), (FIRST_FAILURE, rfc3339(letter.first_failure_ms))];
    foreign.chain(ours.map(|(name, value)| (name.to_owned(), Bytes::from(value)))).collect()
}

/// Runs the checks of the fold in advance; with a topic of one partition, because the log chooses the partition by the
/// key.
fn check(repaired: &NewRecord, now_ms: i64) -> Result<(), Refusal> {
    let bytes = repaired.bytes();
    if bytes > RECORD_BYTES_MAX {
        return Err(Refusal::TooLarge(bytes));
    }
    let NewRecord { topic, key, value, headers } = repaired.clone();
    let position = Position { topic, partition: 0, offset: 0 };
    let record = Record { position, timestamp_ms: now_ms, key, value, headers };
    let event = gate::record(&record).map_err(Refusal::Faulty)?;
    codec::check_record(&event, &record, 1).map_err(Refusal::Faulty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead;
    use foretell_events::Topic;
    use foretell_events::codec::{Fault, MISSING_FIELD};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NOW_MS: i64 = 1_772_359_200_000;
    const TERMS: RepairContext<'_> = RepairContext { patch: None, attempts_max: 3, now_ms: NOW_MS };

    /// The record of a letter, as the topic delivers it, and the letter.
    fn letter(key: &[u8], headers: &[(&str, &str)], value: &str) -> (Letter, Record) {
        let source = Record {
            position: Position { topic: Topic::Logins, partition: 1, offset: 5 },
            timestamp_ms: NOW_MS - 60_000,
            key: Some(Bytes::copy_from_slice(key)),
            value: Bytes::copy_from_slice(value.as_bytes()),
            headers: headers.iter().map(|(n, v)| ((*n).into(), Bytes::copy_from_slice(v.as_bytes()))).collect(),
        };
        let faults = Faults::one(Fault::new("/data/ip", MISSING_FIELD, "is required"));
        let new = dead::letter(&source, "foretell.logins", &faults);
        let position = Position { topic: Topic::DeadLetters, partition: 0, offset: 0 };
        let (key, value, headers) = (new.key, new.value, new.headers);
        let record = Record { position, timestamp_ms: NOW_MS - 50_000, key, value, headers };
        (Letter::read(&record).unwrap(), record)
    }

    fn structured(data: &Value) -> String {
        json!({"specversion": "1.0", "id": "e", "source": "urn:t", "type": "foretell.login.succeeded", "data": data})
            .to_string()
    }

    const STRUCTURED: [(&str, &str); 2] = [("content-type", "application/cloudevents+json"), ("x-hop", "7")];

    fn repaired((record, _): (NewRecord, usize)) -> (foretell_events::Event, Record) {
        let NewRecord { topic, key, value, headers } = record;
        let position = Position { topic, partition: 0, offset: 0 };
        let record = Record { position, timestamp_ms: NOW_MS, key, value, headers };
        (codec::decode(&record).unwrap(), record)
    }

    #[test]
    fn a_wrong_key_is_put_right_and_a_missing_time_stays_where_it_was() {
        let (letter, record) =
            letter(b"acme:eve", &STRUCTURED, &structured(&json!({"user_id": "ada", "ip": "192.0.2.1", "new": [1]})));
        let (event, record) = repaired(repair(&letter, &record, &TERMS).unwrap());
        assert_eq!(record.key.as_deref(), Some(&b"default:ada"[..]));
        assert_eq!((event.envelope.id.as_str(), event.envelope.source.as_str()), ("e", "urn:t"));
        assert_eq!(event.envelope.time_ms, NOW_MS - 60_000, "the time of the first record, not of the new one");
        assert_eq!(record.header("x-hop"), Some(&b"7"[..]), "foreign headers go along");
        assert_eq!(record.header(ATTEMPT), Some(&b"1"[..]));
        assert_eq!(record.header(dead::TOPIC), None);
        let data: Value = serde_json::from_slice(&record.value).unwrap();
        assert_eq!(data["new"], json!([1]), "unknown fields go along");
        // If it were rejected nevertheless, the next letter would count the attempt.
        let again = dead::letter(&record, "foretell.logins", &Faults::one(Fault::new("", MISSING_FIELD, "x")));
        let position = Position { topic: Topic::DeadLetters, partition: 0, offset: 1 };
        let (key, value, headers) = (again.key, again.value, again.headers);
        let again = Letter::read(&Record { position, timestamp_ms: NOW_MS, key, value, headers }).unwrap();
        assert_eq!((again.attempt, again.first_failure_ms), (2, NOW_MS - 60_000));
    }

    #[test]
    fn a_patch_mends_both_modes() {
        let patch: Patch =
            serde_json::from_value(json!([{"op": "add", "path": "/data/ip", "value": "192.0.2.9"}])).unwrap();
        let binary = [
            ("ce_specversion", "1.0"),
            ("ce_id", "e"),
            ("ce_source", "urn:t"),
            ("ce_type", "foretell.login.succeeded"),
            ("ce_tenant", "acme"),
        ];
        for (headers, value, key) in [
            (&STRUCTURED[..], structured(&json!({"user_id": "ada"})), "default:ada"),
            (&binary[..], json!({"user_id": "ada"}).to_string(), "acme:ada"),
        ] {
            let (letter, record) = letter(b"x", headers, &value);
            let unpatched = repair(&letter, &record, &TERMS).unwrap_err();
            assert!(matches!(&unpatched, Refusal::Faulty(f) if f.first().pointer == "/data/ip"), "{unpatched}");
            let mended = repair(&letter, &record, &RepairContext { patch: Some(&patch), ..TERMS }).unwrap();
            let (event, record) = repaired(mended);
            assert_eq!((event.fact.subject(), record.key.as_deref()), ("ada", Some(key.as_bytes())));
        }
    }

    #[test]
    fn what_cannot_be_mended_is_refused_with_a_sentence() {
        let good = structured(&json!({"user_id": "ada", "ip": "192.0.2.1"}));
        let reminder = json!({"specversion": "1.0", "id": "e", "source": "urn:t", "type": "foretell.reminder.withdrawn",
            "data": {"reminder_id": "r", "appointment_id": "a", "client_id": "c", "reason": "cancelled"}});
        let mut future: Value = serde_json::from_str(&good).unwrap();
        future["time"] = json!(rfc3339(NOW_MS + foretell_events::AHEAD_MS_MAX + 1));
        let test: Patch = serde_json::from_value(json!([{"op": "test", "path": "/id", "value": "other"}])).unwrap();
        for (value, patch, told) in [
            ("{", None, "is not a CloudEvent: MALFORMED_JSON"),
            (good.as_str(), Some(&test), "the patch cannot be applied"),
            (&reminder.to_string(), None, "reminders"),
            (&future.to_string(), None, "TIME_IN_FUTURE at /time"),
        ] {
            let (letter, record) = letter(b"default:ada", &STRUCTURED, value);
            let refusal = repair(&letter, &record, &RepairContext { patch, ..TERMS }).unwrap_err().to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
        // Headers outside the event are kept, regardless of their size.
        let (letter, mut record) = letter(b"default:ada", &STRUCTURED, &good);
        record.headers.push(("x-heavy".into(), Bytes::from(vec![b'x'; RECORD_BYTES_MAX])));
        let refusal = repair(&letter, &record, &TERMS).unwrap_err();
        assert!(matches!(refusal, Refusal::TooLarge(bytes) if bytes > RECORD_BYTES_MAX), "{refusal}");
    }

    /// The patch comes from a caller, and the value that it builds would end the process.
    #[test]
    fn a_patch_that_nests_without_end_is_refused_with_its_code() {
        let mut operations = vec![json!({"op": "add", "path": "/data/x", "value": []})];
        for doubling in 0..16 {
            let path = format!("/data/x{}/-", "/0".repeat((1 << doubling) - 1));
            operations.push(json!({"op": "copy", "from": "/data/x", "path": path}));
        }
        let patch: Patch = serde_json::from_value(Value::Array(operations)).unwrap();
        let (letter, record) = letter(b"x", &STRUCTURED, &structured(&json!({"user_id": "ada", "ip": "192.0.2.1"})));
        let refusal =
            repair(&letter, &record, &RepairContext { patch: Some(&patch), ..TERMS }).unwrap_err().to_string();
        assert!(refusal.contains(patch::PATCH_TOO_LARGE) && refusal.contains("operation /7"), "{refusal}");
    }

    #[test]
    fn what_is_left_out_of_a_repaired_record_is_reported() {
        let data = json!({"user_id": "ada", "ip": "192.0.2.1", "large": "x".repeat(5_000), "small": 1});
        let mut event: Value = serde_json::from_str(&structured(&data)).unwrap();
        event["note"] = json!("x".repeat(2_000));
        let (letter, record) = letter(b"x", &STRUCTURED, &event.to_string());
        let (record, dropped) = repair(&letter, &record, &TERMS).unwrap();
        assert_eq!(dropped, 2, "a field and an attribute");
        assert_eq!(serde_json::from_slice::<Value>(&record.value).unwrap()["small"], 1);
    }

    #[test]
    fn attempts_have_an_end() {
        let (letter, record) = letter(b"x", &STRUCTURED, &structured(&json!({"user_id": "ada", "ip": "192.0.2.1"})));
        for (attempt, attempts_max, refused) in
            [(1, 3, false), (2, 3, false), (3, 3, true), (4, 3, true), (4, 5, false)]
        {
            let letter = Letter { attempt, ..letter.clone() };
            let answer = repair(&letter, &record, &RepairContext { attempts_max, ..TERMS });
            assert_eq!(answer.is_err(), refused, "{attempt} of {attempts_max}");
            if let Ok(record) = answer {
                assert_eq!(repaired(record).1.header(ATTEMPT), Some(attempt.to_string().as_bytes()));
            }
        }
    }

    proptest! {
        /// For any key and any subject, the result is the same event in the right partition.
        #[test]
        fn a_repaired_record_is_the_event_in_its_place(
            user in "[^\\x00-\\x1f]{1,40}", id in "[a-z0-9-]{1,40}", key in proptest::collection::vec(any::<u8>(), 0..40),
            tenant in "[a-z0-9-]{1,20}", at_ms in 0..NOW_MS,
        ) {
            let value = json!({
                "specversion": "1.0", "id": id, "source": "urn:t", "type": "foretell.login.failed", "tenant": tenant,
                "time": rfc3339(at_ms), "data": {"user_id": user, "ip": "192.0.2.1"},
            });
            let (letter, record) = letter(&key, &STRUCTURED, &value.to_string());
            let original = codec::decode(&record).unwrap();
            let (event, record) = repaired(repair(&letter, &record, &TERMS).unwrap());
            prop_assert_eq!(&event, &original);
            prop_assert_eq!(record.key.unwrap(), event.key().into_bytes());
        }
    }
}
