//! Addresses as bytes, ordered as a scan returns them.
//!
//! ```text
//!  │ view │ generation │ epoch │ bucket │ key, escaped │ 0 0 │ source │
//!     1        4           1       8                            4          big-endian, the bucket's sign flipped
//! ```
//! A zero byte inside the key is written as `0 255`, so that the end of a key, `0 0`, sorts before every longer one
//! and no key is the beginning of another's address.

use foretell_domain::address::{Generation, View};

const PREFIX_BYTES: usize = 14;
const EPOCH_AT: usize = 5;
const BUCKET_AT: usize = 6;
const SOURCE_BYTES: usize = 4;

/// The prefix of all addresses of a bucket.
pub(super) struct Prefix([u8; PREFIX_BYTES]);

impl Prefix {
    pub(super) fn new(generation: Generation, view: View, bucket: i64) -> Self {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[0] = view.tag();
        bytes[1..5].copy_from_slice(&generation.number.to_be_bytes());
        bytes[5] = generation.epoch;
        bytes[BUCKET_AT..].copy_from_slice(&(bucket ^ i64::MIN).to_be_bytes());
        Self(bytes)
    }

    /// The prefix of all addresses of a view's generation, in all epochs.
    pub(super) fn generation(&self) -> &[u8] {
        &self.0[..EPOCH_AT]
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The prefix of the addresses of a key's partials.
    pub(super) fn key(&self, key: &str) -> Vec<u8> {
        let mut address = Vec::with_capacity(PREFIX_BYTES + key.len() + 2 + SOURCE_BYTES);
        address.extend_from_slice(&self.0);
        for byte in key.bytes() {
            address.push(byte);
            if byte == 0 {
                address.push(255);
            }
        }
        address.extend_from_slice(&[0, 0]);
        address
    }

    /// The address of one partial.
    pub(super) fn row(&self, key: &str, source: u32) -> Vec<u8> {
        let mut address = self.key(key);
        address.extend_from_slice(&source.to_be_bytes());
        address
    }

    /// The bucket of an address, if it belongs to the same view and generation.
    pub(super) fn bucket_of(&self, address: &[u8]) -> Option<i64> {
        let bucket = address.strip_prefix(&self.0[..BUCKET_AT])?.first_chunk()?;
        Some(i64::from_be_bytes(*bucket) ^ i64::MIN)
    }
}

/// Key and source partition of an address.
pub(super) fn parse(address: &[u8]) -> Option<(String, u32)> {
    let (escaped, source) = address.get(PREFIX_BYTES..)?.split_last_chunk::<SOURCE_BYTES>()?;
    let mut bytes = escaped.strip_suffix(&[0, 0])?.iter();
    let mut key = Vec::with_capacity(bytes.len());
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 {
            bytes.next();
        }
    }
    Some((String::from_utf8(key).ok()?, u32::from_be_bytes(*source)))
}

/// The address of a checkpoint.
pub(super) fn checkpoint(generation: Generation, partition: u32) -> Vec<u8> {
    let mut address = checkpoints(generation);
    address.push(generation.epoch);
    address.extend_from_slice(&partition.to_be_bytes());
    address
}

/// The prefix of the addresses of all checkpoints of a generation, in all epochs.
pub(super) fn checkpoints(generation: Generation) -> Vec<u8> {
    let mut address = vec![generation.family.tag()];
    address.extend_from_slice(&generation.number.to_be_bytes());
    address
}

/// The source partition of a checkpoint address: its last four bytes.
pub(super) fn source_of_checkpoint(address: &[u8]) -> u32 {
    address.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
