//! Messages of librdkafka as records of the log, a bounded number at a time.

use bytes::{Bytes, BytesMut};
use foretell_events::record::Record;
use foretell_events::{Position, Topic};
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// Records that a reader receives at once.
const BATCH_RECORDS_MAX: usize = 500;
/// A batch of this many bytes or more accepts no further record.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Records of one partition, in rising offsets.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    bytes: usize,
}

impl Batch {
    /// Whether it accepts a further record.
    pub(super) fn has_capacity(&self) -> bool {
        self.records.len() < BATCH_RECORDS_MAX && self.bytes < BATCH_BYTES_MAX
    }

    /// The offset after the last record; none while the batch is empty.
    pub(super) fn next(&self) -> Option<i64> {
        self.records.last().map(|record| record.position.offset + 1)
    }

    /// Copies a message into it.
    pub(super) fn push(&mut self, topic: Topic, message: &BorrowedMessage<'_>) {
        let record = record(topic, message);
        self.bytes += record.value.len() + record.key.as_ref().map_or(0, Bytes::len);
        self.records.push(record);
    }
}

/// Copies a message out of librdkafka's memory, into one allocation that key, value and headers share.
fn record(topic: Topic, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers();
    let header_bytes = headers.map_or(0, |all| all.iter().map(|header| header.value.map_or(0, <[u8]>::len)).sum());
    let mut memory = BytesMut::with_capacity(message.payload_len() + message.key_len() + header_bytes);
    let mut keep = |part: &[u8]| {
        memory.extend_from_slice(part);
        memory.split().freeze()
    };
    Record {
        position: Position {
            topic,
            partition: u32::try_from(message.partition()).unwrap_or_default(),
            offset: message.offset(),
        },
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(&mut keep),
        value: keep(message.payload().unwrap_or_default()),
        headers: headers.map_or_else(Vec::new, |all| {
            all.iter().map(|header| (header.key.to_owned(), keep(header.value.unwrap_or_default()))).collect()
        }),
    }
}
