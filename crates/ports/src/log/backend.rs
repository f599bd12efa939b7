//! What all backends of the log share: checks before an append, and errors with the same meaning everywhere.

use crate::Error;
use foretell_events::record::{NewRecord, RECORD_BYTES_MAX};
use foretell_events::{Topic, key};

/// Checks that every backend makes before it appends. Reject if a record is larger than [`RECORD_BYTES_MAX`].
pub fn check_sizes(records: &[NewRecord]) -> Result<(), Error> {
    match records.iter().position(|record| record.bytes() > RECORD_BYTES_MAX) {
        None => Ok(()),
        Some(index) => {
            let bytes = records[index].bytes();
            let detail = format!(
                "record {index} has {bytes} bytes; at most {RECORD_BYTES_MAX} are allowed; nothing was appended"
            );
            Err(Error::reject("append", detail))
        }
    }
}

/// The partition that a record belongs to. Computed here for every backend, so that no client library can choose
/// another one.
pub fn partition_of(record: &NewRecord, partitions: u32) -> u32 {
    record.key.as_ref().map_or(0, |key| key::partition(key, partitions))
}

/// Reject if a record does not belong to the fenced partition.
pub fn check_fenced(records: &[NewRecord], topic: Topic, at: u32, partitions: u32) -> Result<(), Error> {
    let stray = |record: &&NewRecord| record.topic != topic || partition_of(record, partitions) != at;
    match records.iter().find(stray) {
        None => Ok(()),
        Some(stray) => {
            let (stray, name) = (stray.topic.name(), topic.name());
            let detail =
                format!("a record of {stray} does not belong to partition {at} of {name}; nothing was appended");
            Err(Error::reject("append", detail))
        }
    }
}

/// The error for a partition that does not exist.
pub fn unknown(topic: Topic, partition: u32) -> Error {
    Error::reject("use a partition", format!("there is no partition {partition} of {}", topic.name()))
}

/// The error for an owner that has been fenced.
pub fn fenced_off(topic: Topic, partition: u32) -> Error {
    let detail = format!("another owner has acquired partition {partition} of {}", topic.name());
    Error::fatal("append as the only owner", detail)
}
