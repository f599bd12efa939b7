//! Records: the contents of a log, after encoding and before decoding.

use crate::Position;
use crate::topic::Topic;
use bytes::Bytes;

/// A header of a record: UTF-8 name, any bytes.
pub type Header = (String, Bytes);

/// Largest record, in bytes of key, value and headers together; `append` rejects a larger one (Reject).
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// A record to append; its key determines its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// The topic.
    pub topic: Topic,
    /// Determines the partition; without one, partition 0.
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
    /// Its position.
    pub position: Position,
    /// When the log accepted it (LogAppendTime), in milliseconds since the epoch.
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

    /// The last header with that name, which is the one that consumers use.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
    }

    /// XXH3 of key and value: detects that another record is at the same offset.
    pub fn digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(self.key.as_deref().unwrap_or_default());
        hash.update(&[0]);
        hash.update(&self.value);
        hash.digest()
    }
}
