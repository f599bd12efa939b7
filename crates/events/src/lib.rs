//! The vocabulary: what can happen, to which user or client, and the position of each event in the log.
//!
//! An [`Event`] is a fact that a caller sent. [`codec`] decodes it once, and it is trusted from there on: the addresses
//! are addresses, the zones exist, the dates exist, the ids are within their limits. All code after the codec uses
//! these types and never sees JSON.
//!
//! Times are milliseconds since the Unix epoch, UTC, in fields that end in `_ms`.

pub mod address;
pub mod agent;
pub mod appointment;
pub mod catalog;
pub mod codec;
pub mod country;
pub mod document;
pub mod fact;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod gate;
pub mod judge;
pub mod key;
pub mod login;
pub mod partitioner;
pub mod policy;
pub mod record;
pub mod reminder;
pub mod suggest;
pub mod time;
pub mod topic;
pub mod zone;

pub use fact::Fact;
pub use topic::Topic;

/// Longest id, in bytes, of a user, client, appointment, device, session or event.
pub const ID_BYTES_MAX: usize = 512;
/// How far an event's `time` may be ahead of its record's own timestamp.
pub const AHEAD_MS_MAX: i64 = 5 * time::MINUTE_MS;
/// The tenant of callers that specify none.
pub const DEFAULT_TENANT: &str = "default";

/// The position of a record; positions of different topics, partitions or epochs are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: u32,
    /// The offset in the partition, from 0, with gaps on Kafka.
    pub offset: i64,
}

/// Source and time: the CloudEvents attributes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique within `source`; at most [`ID_BYTES_MAX`] bytes.
    pub id: String,
    /// Who sent it, a URI reference.
    pub source: String,
    /// `[a-z0-9-]{1,63}`.
    pub tenant: String,
    /// When it happened.
    pub time_ms: i64,
}

/// One fact: its envelope and what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Source and time.
    pub envelope: Envelope,
    /// What happened.
    pub fact: Fact,
}

impl Event {
    /// The 64-bit fingerprint of source, id and type by which repetitions are recognised (XXH3).
    ///
    /// The type is included because producers reuse ids: a producer that uses the number of its booking as the id of
    /// both the booking and the cancellation means two events.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [&self.envelope.source, &self.envelope.id, self.fact.type_name()] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        hash.digest()
    }

    /// The record key: `tenant:subject`. A tenant has no colon, so the first one separates.
    pub fn key(&self) -> String {
        key::of(&self.envelope.tenant, self.fact.subject())
    }
}
