//! Which records are folded. Pipelines, verification, reports and training decide by the same function, so that none of
//! them counts a record that another leaves out.

use crate::record::Record;
use crate::{Event, codec, gate};

/// From when on records are checked by the [gate](crate::gate)'s rules for producers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    /// By the log's clock, in milliseconds since the epoch; without it no record is checked. See
    /// [`Pointer::gated_from_ms`](foretell_domain::pointer::Pointer).
    pub from_ms: Option<i64>,
    /// Whether the generation that serves checks no record, or from another time on: what is refused has no letter
    /// then, however far that generation is.
    pub is_new: bool,
}

/// Why a record is not folded.
pub struct Rejection {
    /// Every fault of it.
    pub faults: codec::Faults,
    /// Whether it would be folded without the gate.
    pub by_gate: bool,
}

/// The event of a record that is folded; of so many partitions, with the gate from a time on. It follows from the
/// record and these two alone, so that each later fold decides the same.
pub fn judge(record: &Record, partitions: u32, gated_from_ms: Option<i64>) -> Result<Event, Rejection> {
    if gated_from_ms.is_none_or(|from_ms| record.timestamp_ms < from_ms) {
        return decode(record, partitions).map_err(|faults| Rejection { faults, by_gate: false });
    }
    let judged = gate::record(record).and_then(|event| codec::check_record(&event, record, partitions).map(|()| event));
    judged.map_err(|faults| Rejection { faults, by_gate: decode(record, partitions).is_ok() })
}

/// The event of a record that is in its place, of so many partitions; every fault of any other.
pub fn decode(record: &Record, partitions: u32) -> Result<Event, codec::Faults> {
    let event = codec::decode(record)?;
    codec::check_record(&event, record, partitions)?;
    Ok(event)
}
