//! How long records are kept that no row is folded from: decisions and dead letters.
//!
//! What goes is whole segments, the oldest first, when the last record of one is older than its topic is kept. The
//! segment that is written is never removed, so a topic that gets little would keep its records for long: there a
//! segment is also full when it has been written to for a thirtieth of that time. So a record outlives its time by
//! little more than a thirtieth of it, as long as anything is appended to the log; a log to which nothing is appended
//! lets go when it is opened.
//!
//! The writer looks when the log is opened, and hourly after a commit. A segment disappears for readers first, then
//! from the directory, and the directory is synced before the next one goes: whatever a crash leaves is the end of the
//! partition without a gap. Before, the mark is synced, so that none outlives a power loss that names a removed file.
//!
//! Topics of facts have no such time ([`Retention::ms`](foretell_ports::log::Retention::ms)), and one that has lost its beginning
//! is not opened (`recover`).

use super::segment::Segment;
use foretell_ports::Error;
use std::sync::{Arc, RwLock, RwLockWriteGuard};

/// Between two looks.
const LOOK_MS: i64 = 60 * 60 * 1000;
/// A segment is full after this part of the time that its records are kept.
const PARTS: i64 = 30;

/// How long the records of a partition are kept, and since when the newest segment is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    kept_ms: i64,
    began_ms: Option<i64>,
}

impl Kept {
    /// For so long, with this as the newest segment.
    pub(super) fn from(kept_ms: i64, newest: &Segment) -> Result<Self, Error> {
        let first = newest.first("open the log")?;
        Ok(Self { kept_ms, began_ms: first.map(|header| header.timestamp_ms) })
    }

    /// The newest segment gets its first block.
    pub(super) fn begins(&mut self, at_ms: i64) {
        self.began_ms = Some(at_ms);
    }

    /// Whether the newest segment has been written to for long enough.
    pub(super) fn is_old(&self, now_ms: i64) -> bool {
        self.began_ms.is_some_and(|began_ms| now_ms - began_ms > self.kept_ms / PARTS)
    }

    /// What is older than this is not kept.
    pub(super) fn since_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.kept_ms
    }
}

/// When to look for what is older than it is kept.
pub(super) struct Keeper {
    /// Written while something is let go of; whoever reads holds that off.
    cuts: Arc<RwLock<()>>,
    looked_ms: Option<i64>,
}

impl Keeper {
    pub(super) fn new(cuts: Arc<RwLock<()>>) -> Self {
        Self { cuts, looked_ms: None }
    }

    /// Held by whoever lets records go: given if it is time to look, and nobody makes a copy.
    pub(super) fn turn(&mut self, now_ms: i64) -> Option<RwLockWriteGuard<'_, ()>> {
        if self.looked_ms.is_some_and(|looked_ms| now_ms - looked_ms < LOOK_MS) {
            return None;
        }
        let alone = self.cuts.try_write().ok()?;
        self.looked_ms = Some(now_ms);
        Some(alone)
    }
}
