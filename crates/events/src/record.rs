//! Records: what a log keeps and brings, before it is decoded and after it is encoded.

use crate::Position;
use crate::topic::Topic;
use bytes::Bytes;

/// A header of a record: UTF-8 name, any bytes.
pub type Header = (String, Bytes);

/// Largest record, in bytes of key, value and headers together; a larger one is refused by `append` (Reject).
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// A record to append; its key decides its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Where it goes.
    pub topic: Topic,
    /// Decides the partition; without one, partition 0.
    pub key: Option<Bytes>,
    /// The payload.
    pub value: Bytes,
    /// In order; names may repeat.
    pub headers: Vec<Header>,
}

impl NewRecord {
    /// Bytes of key, value and headers together.
    pub fn bytes(&self) -> usize {
        bytes(self.key.as_ref(), &self.value, &self.headers)
    }
}

fn bytes(key: Option<&Bytes>, value: &Bytes, headers: &[Header]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    key.map_or(0, Bytes::len) + value.len() + headers
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// When the log took it (LogAppendTime), in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// See [`NewRecord::key`].
    pub key: Option<Bytes>,
    /// The payload; empty for a Kafka tombstone.
    pub value: Bytes,
    /// In order; names may repeat.
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes of key, value and headers together.
    pub fn bytes(&self) -> usize {
        bytes(self.key.as_ref(), &self.value, &self.headers)
    }

    /// The last header of that name, as the field's consumers read them.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
    }

    /// XXH3 of key and value: tells whether another record stands at the same offset.
    pub fn digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(self.key.as_deref().unwrap_or_default());
        hash.update(&[0]);
        hash.update(&self.value);
        hash.digest()
    }
}
