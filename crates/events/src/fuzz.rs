//! Shared by the fuzz targets of several crates: how their input is read, and the properties of an accepted event.

use crate::Position;
use crate::codec::{self, Parsed};
use crate::gate::{self, GateContext, UNKNOWN_BYTES_MAX};
use crate::record::{Header, NewRecord, Record};
use bytes::Bytes;
use serde_json::Value;

/// 1 March 2026, 10:00 UTC: when every input arrives.
pub const NOW_MS: i64 = 1_772_359_200_000;

/// Headers, one per line as `name: value`, and the body after an empty line.
pub fn message(bytes: &[u8]) -> (Vec<Header>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        rest = behind;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b": ").unwrap_or_default();
        headers.push((String::from_utf8_lossy(name).into_owned(), Bytes::copy_from_slice(value)));
    }
    (headers, rest)
}

/// A record as it is read after being appended.
pub fn written(record: NewRecord) -> Record {
    let NewRecord { topic, key, value, headers } = record;
    Record { position: Position { topic, partition: 0, offset: 7 }, timestamp_ms: NOW_MS, key, value, headers }
}

/// An accepted event is appended, folded as it was parsed, and passed on within its limits.
pub fn admitted(parsed: Parsed) {
    let event = codec::completed(codec::arrived(parsed.event.clone(), NOW_MS));
    let known = parsed.event.fact.data();
    let Ok(admitted) = GateContext::of_operator(NOW_MS).admit(parsed) else { return };
    let (record, _) = admitted.into_record();
    let record = written(record);
    assert_eq!(codec::decode(&record).as_ref(), Ok(&event), "an admitted event is folded as it was understood");
    assert_eq!(gate::record(&record).as_ref(), Ok(&event), "and passes the gate of the pipeline");
    assert_eq!(codec::check_record(&event, &record, 1), Ok(()));
    let sent: Value = serde_json::from_slice(&record.value).expect("invariant: the data is JSON");
    let unknown = sent.as_object().into_iter().flatten().filter(|(name, _)| !known.contains_key(*name));
    let unknown: usize = unknown.map(|(name, value)| name.len() + value.to_string().len()).sum();
    assert!(unknown <= UNKNOWN_BYTES_MAX, "{unknown} bytes of unknown fields");
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(headers < UNKNOWN_BYTES_MAX + 4 * 1024, "{headers} bytes of headers");
}
