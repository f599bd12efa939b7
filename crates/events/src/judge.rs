//! Which records are folded. Pipelines, verification, reports and training use the same function, so that they all
//! count the same records.

use crate::record::Record;
use crate::{Event, codec, gate};

/// The start from which records are checked by the [gate](crate::gate)'s rules for producers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    /// By the log's clock, in milliseconds since the epoch; without it no record is checked. See `gated_from_ms` of the
    /// pointer in `foretell_domain::pointer`.
    pub from_ms: Option<i64>,
    /// Whether the serving generation checks no record, or has another start: then rejected records get no dead letter,
    /// regardless of how far that generation has progressed.
    pub is_new: bool,
}

/// Why a record is not folded.
pub struct Rejection {
    /// Every fault of it.
    pub faults: codec::Faults,
    /// Whether it would be folded without the gate.
    pub by_gate: bool,
}

/// The event of a record that is folded, in a topic of `partitions` partitions, with the gate's start. It depends only
/// on the record and these two, so that each later fold decides the same.
pub fn judge(record: &Record, partitions: u32, gated_from_ms: Option<i64>) -> Result<Event, Rejection> {
    if gated_from_ms.is_none_or(|from_ms| record.timestamp_ms < from_ms) {
        return decode(record, partitions).map_err(|faults| Rejection { faults, by_gate: false });
    }
    let judged = gate::record(record).and_then(|event| codec::check_record(&event, record, partitions).map(|()| event));
    judged.map_err(|faults| Rejection { faults, by_gate: decode(record, partitions).is_ok() })
}

/// The event of a record in the right topic and partition, of `partitions`; otherwise every fault.
pub fn decode(record: &Record, partitions: u32) -> Result<Event, codec::Faults> {
    let event = codec::decode(record)?;
    codec::check_record(&event, record, partitions)?;
    Ok(event)
}
