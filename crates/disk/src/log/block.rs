//! The bytes of a block: the records that one group commit adds to one partition.
//!
//! ```text
//!  0       4        8        12      16            24         32              40
//!  │ magic │ CRC-32C│ length │ count │ base offset │ sequence │ timestamp ms  │ payload: `count` records
//!          └ of everything after it ──────────────────────────────────────────────────────────────► `length`
//! ```
//! Integers are little-endian. A record is `key length` (`u32::MAX`: none), `value length`, `header count`, each
//! `u32`, then key, value, and for each header `name length`, `value length`, name, value.
//!
//! The sequence rises by one from block to block of a partition, across segments, so that a valid block in the wrong
//! position is detected.

use bytes::{Buf, Bytes};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Position, Topic};

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 40;
/// The first bytes of every block.
pub(super) const MAGIC: [u8; 4] = *b"FtB1";
const NO_KEY: u32 = u32::MAX;
/// Size of the smallest record: the lengths of key, value and headers.
const RECORD_BYTES_MIN: usize = 12;

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) crc: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
    /// Records, at least 1.
    pub(super) count: u32,
    /// Offset of the first record; the others follow without holes.
    pub(super) base: i64,
    /// Rises by one from block to block, from 1.
    pub(super) sequence: u64,
    /// When the log accepted the records.
    pub(super) timestamp_ms: i64,
}

impl Header {
    /// Reads a header; none if the bytes are not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.get(..HEADER_BYTES)?.strip_prefix(&MAGIC)?;
        let header = Self {
            crc: bytes.get_u32_le(),
            length: bytes.get_u32_le(),
            count: bytes.get_u32_le(),
            base: bytes.get_i64_le(),
            sequence: bytes.get_u64_le(),
            timestamp_ms: bytes.get_i64_le(),
        };
        let ends = header.base.checked_add(header.count.into());
        (header.count > 0 && header.base >= 0 && ends.is_some()).then_some(header)
    }

    /// Bytes of the whole block.
    pub(super) fn block_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }

    /// The offset after the last record.
    pub(super) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

/// The header of the block at the beginning of `bytes`, if the block is complete and its checksum is correct.
pub(super) fn verified(bytes: &[u8]) -> Option<Header> {
    let header = Header::decode(bytes)?;
    let block = bytes.get(..header.block_bytes())?;
    (crc32c::crc32c(&block[8..]) == header.crc).then_some(header)
}

/// A block under construction: records are added until it is sealed.
#[derive(Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    count: u32,
}

impl Builder {
    /// Records so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Adds a record. Topic and partition are not stored; the file determines them.
    pub(super) fn push(&mut self, record: &NewRecord) {
        if self.bytes.is_empty() {
            self.bytes.resize(HEADER_BYTES, 0);
        }
        self.count += 1;
        self.length(record.key.as_ref().map_or(NO_KEY, |key| key.len() as u32));
        self.length(record.value.len() as u32);
        self.length(record.headers.len() as u32);
        self.bytes.extend_from_slice(record.key.as_deref().unwrap_or_default());
        self.bytes.extend_from_slice(&record.value);
        for (name, value) in &record.headers {
            self.length(name.len() as u32);
            self.length(value.len() as u32);
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.extend_from_slice(value);
        }
    }

    fn length(&mut self, length: u32) {
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    /// The finished block.
    pub(super) fn seal(mut self, base: i64, sequence: u64, timestamp_ms: i64) -> Vec<u8> {
        let length = (self.bytes.len() - HEADER_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&MAGIC);
        self.bytes[8..12].copy_from_slice(&length.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&base.to_le_bytes());
        self.bytes[24..32].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[32..40].copy_from_slice(&timestamp_ms.to_le_bytes());
        let crc = crc32c::crc32c(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// The records of a verified block; none if the payload does not match the header.
///
/// Keys, values and headers share the memory of `block`.
pub(super) fn records(header: &Header, mut block: Bytes, topic: Topic, partition: u32) -> Option<Vec<Record>> {
    block.advance(HEADER_BYTES);
    // The record count of a header may be wrong; a record takes at least three lengths.
    let mut records = Vec::with_capacity((header.count as usize).min(block.len() / RECORD_BYTES_MIN));
    for offset in header.base..header.end() {
        let position = Position { topic, partition, offset };
        records.push(record(&mut block, position, header.timestamp_ms)?);
    }
    block.is_empty().then_some(records)
}

fn record(payload: &mut Bytes, position: Position, timestamp_ms: i64) -> Option<Record> {
    let (key, value, count) = (length(payload)?, length(payload)?, length(payload)?);
    let key = if key == NO_KEY { None } else { Some(take(payload, key)?) };
    let value = take(payload, value)?;
    let mut headers = Vec::with_capacity((count as usize).min(64));
    for _ in 0..count {
        let (name, value) = (length(payload)?, length(payload)?);
        let name = String::from_utf8(take(payload, name)?.to_vec()).ok()?;
        headers.push((name, take(payload, value)?));
    }
    Some(Record { position, timestamp_ms, key, value, headers })
}

fn length(payload: &mut Bytes) -> Option<u32> {
    payload.try_get_u32_le().ok()
}

fn take(payload: &mut Bytes, length: u32) -> Option<Bytes> {
    (payload.len() >= length as usize).then(|| payload.split_to(length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of one record whose header states another number of records, with a matching checksum.
    fn claiming(count: u32, base: i64) -> Vec<u8> {
        let mut builder = Builder::default();
        let (value, headers) = (Bytes::from_static(b"{}"), Vec::new());
        builder.push(&NewRecord { topic: Topic::Logins, key: None, value, headers });
        let mut block = builder.seal(base, 1, 0);
        block[12..16].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        block
    }

    #[test]
    fn a_header_that_claims_more_than_there_is_takes_no_memory_for_it() {
        for (count, base, is_read) in
            [(1, 0, Some(true)), (2, 0, Some(false)), (u32::MAX, 0, Some(false)), (u32::MAX, i64::MAX - 1, None)]
        {
            let block = claiming(count, base);
            let read = verified(&block).map(|header| {
                records(&header, Bytes::from(block.clone()), Topic::Logins, 0).is_some_and(|found| found.len() == 1)
            });
            assert_eq!(read, is_read, "{count} from {base}");
        }
    }
}
