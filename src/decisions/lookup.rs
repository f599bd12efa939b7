//! Finding a decision by its id alone: one partition, and in it one moment.
//!
//! [`seek`] finds the moment by some pages of the log. From there on records are compared by the header `ce_id`, before
//! anything is decoded: first those of the next seconds, where a decision nearly always stands, then those of the
//! seconds before, for a log whose clock is behind, then those up to when it could have arrived at the latest. Holes
//! do not matter: a page answers the first record at or above an offset.

use super::DELAY_MS_MAX;
use super::id::Id;
use super::seek::seek;
use crate::event::Topic;
use crate::log::{Error, Log, Record};

/// Within so long after it was made a decision stands in the log, as long as nothing is wrong.
const SOON_MS: i64 = 2_000;
/// How far the log's clock may lie behind that of whoever makes decisions.
pub const BEHIND_MS_MAX: i64 = 10_000;
/// How long behind its own time a decision may stand in the log: its wait for the log, an append that takes as long
/// as it may, and a clock that is ahead.
pub const AFTER_MS_MAX: i64 = DELAY_MS_MAX as i64 + 60_000;

/// The record of a tenant's decision that was made at `since_ms` or later; none where there is none any more.
pub async fn find(log: &dyn Log, tenant: &str, id: Id, since_ms: i64) -> Result<Option<Record>, Error> {
    if id.at_ms() < since_ms {
        return Ok(None);
    }
    let text = id.to_string();
    for partition in id.partitions(log.partitions(Topic::Decisions)) {
        if let Some(record) = find_in(log, partition, &text, id.at_ms()).await? {
            let owner = record.key.as_deref().unwrap_or_default().strip_prefix(tenant.as_bytes());
            return Ok(owner.is_some_and(|rest| rest.first() == Some(&b':')).then_some(record));
        }
    }
    Ok(None)
}

async fn find_in(log: &dyn Log, partition: u32, id: &str, at_ms: i64) -> Result<Option<Record>, Error> {
    let end = log.extent(Topic::Decisions, partition).await?.end;
    let made = seek(log, Topic::Decisions, partition, at_ms).await?;
    let mut scan = Scan { log, partition, id, next: made };
    if let Some(found) = scan.until(end, at_ms + SOON_MS).await? {
        return Ok(Some(found));
    }
    let later = scan.next;
    scan.next = seek(log, Topic::Decisions, partition, at_ms - BEHIND_MS_MAX).await?;
    if let Some(found) = scan.until(made, at_ms).await? {
        return Ok(Some(found));
    }
    scan.next = later;
    scan.until(end, at_ms + AFTER_MS_MAX).await
}

/// Compares records with an id.
struct Scan<'a> {
    log: &'a dyn Log,
    partition: u32,
    id: &'a str,
    /// Everything that was to be compared below it has been.
    next: i64,
}

impl Scan<'_> {
    /// The record of that id below `end` and not newer than `until_ms`.
    async fn until(&mut self, end: i64, until_ms: i64) -> Result<Option<Record>, Error> {
        while self.next < end {
            let page = self.log.page(Topic::Decisions, self.partition, self.next).await?;
            for record in page.records {
                if record.timestamp_ms > until_ms || record.position.offset >= end {
                    return Ok(None);
                }
                self.next = record.position.offset + 1;
                if record.header("ce_id") == Some(self.id.as_bytes()) {
                    return Ok(Some(record));
                }
            }
            self.next = page.next.max(self.next + 1);
        }
        Ok(None)
    }
}
