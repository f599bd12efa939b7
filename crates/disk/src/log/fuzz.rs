//! The entry points of `scripts/fuzz` for the files of a log: see the package `foretell-fuzz`.

use super::block::{self, HEADER_BYTES, MAGIC};
use bytes::Bytes;
use foretell_events::Topic;

/// Reads a block as it is, and again with a corrected checksum: damage that the checksum does not detect must not
/// cause more than an error.
pub fn block(bytes: &[u8]) {
    read(bytes);
    if bytes.len() >= HEADER_BYTES {
        let mut sealed = bytes.to_vec();
        sealed[..4].copy_from_slice(&MAGIC);
        let length = (sealed.len() - HEADER_BYTES) as u32;
        sealed[8..12].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&sealed[8..]);
        sealed[4..8].copy_from_slice(&crc.to_le_bytes());
        read(&sealed);
    }
}

fn read(bytes: &[u8]) {
    let Some(header) = block::verified(bytes) else { return };
    let block = Bytes::copy_from_slice(&bytes[..header.block_bytes()]);
    if let Some(records) = block::records(&header, block, Topic::Logins, 0) {
        assert_eq!(records.len(), header.count as usize);
        assert!(records.iter().zip(header.base..).all(|(record, offset)| record.position.offset == offset));
    }
}
