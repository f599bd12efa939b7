//! How long records are kept in topics that are not folded into rows: decisions and dead letters.
//!
//! Whole segments are deleted, the oldest first, once the last record of a segment has expired. The segment that is
//! being written is never deleted, so a topic with few records would keep them for long; in these topics a segment is
//! therefore also full once it has been written to for a thirtieth of the retention time. A record thus outlives its
//! retention time by little more than a thirtieth of it, as long as anything is appended to the log; a log without
//! appends deletes its expired segments when it is opened.
//!
//! The writer checks when the log is opened, and hourly after a commit. A segment first disappears for readers, then
//! from the directory, and the directory is synced before the next one is deleted: after a crash, the remaining
//! segments are the end of the partition without a gap. The mark is synced first, so that after a power loss no mark
//! refers to a deleted file.
//!
//! Topics of facts have no retention time ([`Retention::ms`](foretell_ports::log::Retention::ms)), and a topic of
//! facts whose beginning is missing is not opened (`recover`).

use super::segment::Segment;
use foretell_ports::Error;
use std::sync::{Arc, RwLock, RwLockWriteGuard};

/// Time between two checks.
const CHECK_MS: i64 = 60 * 60 * 1000;
/// A segment is full after this fraction of the retention time.
const PARTS: i64 = 30;

/// How long the records of a partition are kept, and since when the newest segment has been written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetentionState {
    retention_ms: i64,
    began_ms: Option<i64>,
}

impl RetentionState {
    /// A retention time, with the given segment as the newest.
    pub(super) fn from(retention_ms: i64, newest: &Segment) -> Result<Self, Error> {
        let first = newest.first("open the log")?;
        Ok(Self { retention_ms, began_ms: first.map(|header| header.timestamp_ms) })
    }

    /// The newest segment gets its first block.
    pub(super) fn begins(&mut self, at_ms: i64) {
        self.began_ms = Some(at_ms);
    }

    /// Whether the newest segment has been written to for long enough to be closed.
    pub(super) fn is_old(&self, now_ms: i64) -> bool {
        self.began_ms.is_some_and(|began_ms| now_ms - began_ms > self.retention_ms / PARTS)
    }

    /// Records before this time have expired.
    pub(super) fn since_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.retention_ms
    }
}

/// Decides when to check for expired segments.
pub(super) struct ExpiryCheck {
    /// Write-locked while segments are deleted; a backup holds a read lock, which prevents that.
    cuts: Arc<RwLock<()>>,
    checked_ms: Option<i64>,
}

impl ExpiryCheck {
    pub(super) fn new(cuts: Arc<RwLock<()>>) -> Self {
        Self { cuts, checked_ms: None }
    }

    /// The lock under which segments are deleted: given if a check is due and no backup is in progress.
    pub(super) fn begin_check(&mut self, now_ms: i64) -> Option<RwLockWriteGuard<'_, ()>> {
        if self.checked_ms.is_some_and(|checked_ms| now_ms - checked_ms < CHECK_MS) {
            return None;
        }
        let alone = self.cuts.try_write().ok()?;
        self.checked_ms = Some(now_ms);
        Some(alone)
    }
}
