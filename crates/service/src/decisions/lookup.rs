//! Finds a decision by its id alone: the id encodes one partition and one point in time.
//!
//! [`Log::offset_at`] finds the offset of that time. From there on records are compared by the header `ce_id`, before
//! anything is decoded: first those of the next seconds, where nearly every decision is, then those of the seconds
//! before, for a log whose clock is slow, then those up to the latest time at which it can have been appended. Gaps do
//! not matter: a page returns the first record at or above an offset.

use super::DELAY_MS_MAX;
use foretell_domain::decision::id::Id;
use foretell_events::Topic;
use foretell_events::record::Record;
use foretell_ports::Error;
use foretell_ports::log::Log;
use std::collections::BTreeMap;

/// A decision is in the log within this time after it was made, unless something is wrong.
const SOON_MS: i64 = 2_000;
/// How much the log's clock may be slower than that of the process that makes decisions.
pub(crate) const BEFORE_MS_MAX: i64 = 10_000;
/// The latest that a decision can be in the log after its own time: its wait for the log, an append of maximum
/// duration, and a clock that is fast.
pub(crate) const AFTER_MS_MAX: i64 = DELAY_MS_MAX as i64 + 60_000;

/// A look-up of one decision. The first read covers every offset where it can be; each later one covers only what has
/// been appended since, because a decision that was made just now may not have been appended yet.
pub struct DecisionLookup<'a> {
    log: &'a dyn Log,
    tenant: &'a str,
    id: Id,
    text: String,
    /// By partition, the end of the log at the last read.
    ends: BTreeMap<u32, i64>,
}

impl<'a> DecisionLookup<'a> {
    /// A look-up of a tenant's decision.
    pub fn new(log: &'a dyn Log, tenant: &'a str, id: Id) -> Self {
        Self { log, tenant, id, text: id.to_string(), ends: BTreeMap::new() }
    }

    /// The record, if it exists and belongs to the tenant.
    ///
    /// # Errors Errors of the log; the look-up has then ended.
    pub async fn find(&mut self) -> Result<Option<Record>, Error> {
        for partition in self.id.partitions(self.log.partitions(Topic::Decisions)) {
            let end = self.log.extent(Topic::Decisions, partition).await?.end;
            let mut scan = Scan { log: self.log, partition, id: &self.text, next: 0 };
            let found = match self.ends.insert(partition, end) {
                None => scan.around(self.id.at_ms(), end).await?,
                Some(seen) => {
                    scan.next = seen;
                    scan.until(end, i64::MAX).await?
                }
            };
            if let Some(record) = found.filter(|record| self.is_ours(record)) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn is_ours(&self, record: &Record) -> bool {
        let subject = record.key.as_deref().and_then(|key| key.strip_prefix(self.tenant.as_bytes()));
        subject.is_some_and(|rest| rest.first() == Some(&b':'))
    }
}

/// Compares records with an id.
struct Scan<'a> {
    log: &'a dyn Log,
    partition: u32,
    id: &'a str,
    /// Everything below it that had to be compared has been compared.
    next: i64,
}

impl Scan<'_> {
    /// The record below `end` that was made at `at_ms`: searched first where nearly every decision is, then where it is
    /// if the log's clock is slow, then up to the latest possible time.
    async fn around(&mut self, at_ms: i64, end: i64) -> Result<Option<Record>, Error> {
        let made = self.log.offset_at(Topic::Decisions, self.partition, at_ms).await?;
        self.next = made;
        if let Some(found) = self.until(end, at_ms + SOON_MS).await? {
            return Ok(Some(found));
        }
        let later = self.next;
        self.next = self.log.offset_at(Topic::Decisions, self.partition, at_ms - BEFORE_MS_MAX).await?;
        if let Some(found) = self.until(made, at_ms).await? {
            return Ok(Some(found));
        }
        self.next = later;
        self.until(end, at_ms + AFTER_MS_MAX).await
    }

    /// The record with the id below `end` and not newer than `until_ms`.
    async fn until(&mut self, end: i64, until_ms: i64) -> Result<Option<Record>, Error> {
        while self.next < end {
            let from = self.next;
            let page = self.log.page(Topic::Decisions, self.partition, from).await?;
            for record in page.records {
                if record.timestamp_ms > until_ms || record.position.offset >= end {
                    return Ok(None);
                }
                self.next = record.position.offset + 1;
                if record.header("ce_id") == Some(self.id.as_bytes()) {
                    return Ok(Some(record));
                }
            }
            // An empty page that does not advance is not read again; after records the next offset counts.
            self.next = self.next.max(page.next).max(from + 1);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::Position;
    use foretell_ports::log::Paged;
    use proptest::prelude::*;

    const NOW_MS: i64 = 1_772_359_200_000;

    fn record(offset: i64, timestamp_ms: i64, id: Id) -> Record {
        Record {
            position: Position { topic: Topic::Decisions, partition: 0, offset },
            timestamp_ms,
            key: Some("acme:u".into()),
            value: bytes::Bytes::new(),
            headers: vec![("ce_id".into(), id.to_string().into())],
        }
    }

    proptest! {
        /// Whatever the log contains and however small its pages are, a decision that is in it is found.
        #[test]
        fn every_decision_in_the_log_is_found_page_by_page(
            steps in proptest::collection::vec((1..4_i64, 0..400_i64, -9_000..100_000_i64), 1..60),
            page_records in 1..4_usize,
        ) {
            let (mut offset, mut at_ms) = (-1, NOW_MS);
            let mut ids = Vec::new();
            let records = steps.iter().enumerate().map(|(n, (skip, later, delay))| {
                (offset, at_ms) = (offset + skip, at_ms + later);
                // It may have waited for the log, or the clock of the process may be ahead of the log's.
                let id = Id::new(at_ms - delay, 0, n as u64);
                ids.push(id);
                record(offset, at_ms, id)
            });
            let log = Paged { records: records.collect(), page_records, holes: 0 };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for id in ids {
                let look = |tenant| runtime.block_on(DecisionLookup::new(&log, tenant, id).find()).unwrap();
                let found = look("acme").and_then(|record| record.header("ce_id").map(<[u8]>::to_vec));
                prop_assert_eq!(found, Some(id.to_string().into_bytes()));
                prop_assert_eq!(look("acm"), None);
            }
        }
    }

    #[tokio::test]
    async fn a_later_look_sees_what_has_come_since() {
        let id = |n| Id::new(NOW_MS, 0, n);
        let mut log = Paged { records: vec![record(0, NOW_MS, id(0))], page_records: 1, holes: 0 };
        let ends = {
            let mut lookup = DecisionLookup::new(&log, "acme", id(5));
            assert_eq!(lookup.find().await.unwrap(), None);
            assert_eq!(lookup.find().await.unwrap(), None);
            lookup.ends
        };
        log.records.extend((1..6).map(|n| record(2 * n, NOW_MS + n, id(n as u64))));
        let mut lookup = DecisionLookup { ends, ..DecisionLookup::new(&log, "acme", id(5)) };
        assert_eq!(lookup.find().await.unwrap().map(|record| record.position.offset), Some(10));
    }
}
