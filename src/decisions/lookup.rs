//! Finding a decision by its id alone: one partition, and in it one moment.
//!
//! Timestamps of a partition's records rise, so the moment is found by halving the range of offsets, a page of the log
//! at a time: some twenty pages for ten million records. From there on records are compared by the header `ce_id`,
//! before anything is decoded, up to when a decision could have arrived at the latest. Holes do not matter: a page
//! answers the first record at or above an offset.

use super::DELAY_MS_MAX;
use super::id::Id;
use crate::event::Topic;
use crate::log::{Error, Log, Page, Record};

/// How far the log's clock may lie behind that of whoever makes decisions.
pub const BEHIND_MS_MAX: i64 = 10_000;
/// How long behind its own time a decision may stand in the log: its wait for the log, an append that takes as long
/// as it may, and a clock that is ahead.
pub const AFTER_MS_MAX: i64 = DELAY_MS_MAX as i64 + 60_000;

/// The first offset of a partition whose record is not older than `from_ms`, or the end.
pub async fn seek(log: &dyn Log, topic: Topic, partition: u32, from_ms: i64) -> Result<i64, Error> {
    let extent = log.extent(topic, partition).await?;
    // All records below `low` are older; none at or above `high` is.
    let (mut low, mut high) = (extent.start, extent.end);
    while low < high {
        let middle = low + (high - low) / 2;
        let Page { records, .. } = log.page(topic, partition, middle).await?;
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            // Only holes lie behind it.
            high = middle;
            continue;
        };
        if first.timestamp_ms >= from_ms {
            high = middle;
        } else if last.timestamp_ms < from_ms {
            low = last.position.offset + 1;
        } else {
            let begins = records.iter().find(|record| record.timestamp_ms >= from_ms);
            return Ok(begins.map_or(high, |record| record.position.offset));
        }
    }
    Ok(low.min(extent.end))
}

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
    let topic = Topic::Decisions;
    let mut next = seek(log, topic, partition, at_ms - BEHIND_MS_MAX).await?;
    let end = log.extent(topic, partition).await?.end;
    while next < end {
        let page = log.page(topic, partition, next).await?;
        for record in page.records {
            if record.timestamp_ms > at_ms + AFTER_MS_MAX {
                return Ok(None);
            }
            if record.header("ce_id") == Some(id.as_bytes()) {
                return Ok(Some(record));
            }
        }
        next = page.next.max(next + 1);
    }
    Ok(None)
}
