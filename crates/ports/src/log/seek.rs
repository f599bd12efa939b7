//! Finds the offset of a point in time in a partition with few reads, for logs that have no index of times.
//!
//! Timestamps within a partition never decrease, so a range of offsets can be bisected. Two things make it quick. Most
//! searches are for recent times, so the first read is at the end. And records arrive at a fairly even rate, so if the
//! times at both ends of a range are known, every second read is at the offset interpolated between them. It alternates
//! with bisection, so that a night without records costs a few reads and not thousands.

use super::{Log, Page};
use crate::Error;
use foretell_events::Topic;

/// Reads begin this many records before the expected offset, because a page continues forward.
const BEFORE: i64 = 200;

/// See [`Log::offset_at`].
pub(super) async fn offset_at<L>(log: &L, topic: Topic, partition: u32, time_ms: i64) -> Result<i64, Error>
where
    L: Log + ?Sized,
{
    let extent = log.extent(topic, partition).await?;
    let mut search = Search::new(extent.start, extent.end, time_ms);
    while let Some(offset) = search.next() {
        search.learn(offset, &log.page(topic, partition, offset).await?);
    }
    Ok(search.low.0)
}

/// An end of the remaining range: an offset, and the time there, if known.
type Bound = (i64, Option<i64>);

/// What is known about the offset of a point in time.
struct Search {
    from_ms: i64,
    /// Every record below it is older.
    low: Bound,
    /// No record at or above it is older.
    high: Bound,
    looks: u32,
}

impl Search {
    fn new(start: i64, end: i64, from_ms: i64) -> Self {
        Self { from_ms, low: (start, None), high: (end, None), looks: 0 }
    }

    /// Where to read next; none once the offset is found, and then it is `low`.
    fn next(&self) -> Option<i64> {
        let ((low, low_ms), (high, high_ms)) = (self.low, self.high);
        if low >= high {
            return None;
        }
        let middle = low + (high - low) / 2;
        let place = match (self.looks, low_ms, high_ms) {
            (0, ..) => high - BEFORE,
            (1, ..) => low,
            (looks, Some(low_ms), Some(high_ms)) if looks % 2 == 0 && low_ms < high_ms => {
                let share = (self.from_ms - low_ms) as f64 / (high_ms - low_ms) as f64;
                low + ((high - low) as f64 * share) as i64 - BEFORE
            }
            _ => middle,
        };
        Some(place.clamp(low, high - 1))
    }

    /// Narrows the range by a page read at an offset.
    fn learn(&mut self, offset: i64, page: &Page) {
        self.looks += 1;
        let (Some(first), Some(last)) = (page.records.first(), page.records.last()) else {
            // Only gaps follow it.
            self.high = (offset, self.high.1);
            return;
        };
        if first.timestamp_ms >= self.from_ms {
            self.high = (offset, Some(first.timestamp_ms));
        } else if last.timestamp_ms < self.from_ms {
            self.low = ((last.position.offset + 1).min(self.high.0), Some(last.timestamp_ms));
        } else {
            let begins = page.records.partition_point(|record| record.timestamp_ms < self.from_ms);
            let found = page.records.get(begins).map_or(self.high.0, |record| record.position.offset);
            (self.low.0, self.high.0) = (found, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::Position;
    use foretell_events::record::Record;

    /// A partition with records at these times; every offset that is divisible by `hole` is a gap.
    struct Partition {
        records: Vec<Record>,
        end: i64,
    }

    impl Partition {
        fn new(times: impl Iterator<Item = i64>, hole: i64) -> Self {
            let offsets = (0..).filter(|offset| offset % hole != 0);
            let record = |(offset, timestamp_ms)| Record {
                position: Position { topic: Topic::Decisions, partition: 0, offset },
                timestamp_ms,
                key: None,
                value: bytes::Bytes::new(),
                headers: Vec::new(),
            };
            let records: Vec<_> = offsets.zip(times).map(record).collect();
            let end = records.last().map_or(0, |record| record.position.offset + 3);
            Self { records, end }
        }

        /// The offset found, and how many reads that took.
        fn seek(&self, start: i64, from_ms: i64) -> (i64, u32) {
            let mut search = Search::new(start, self.end, from_ms);
            while let Some(offset) = search.next() {
                assert!((start..self.end).contains(&offset) && search.looks < 200, "{offset}");
                let first = self.records.partition_point(|record| record.position.offset < offset);
                let records: Vec<_> = self.records[first..].iter().take(500).cloned().collect();
                let next = records.last().map_or(self.end, |record| record.position.offset + 1);
                search.learn(offset, &Page { records, next });
            }
            (search.low.0, search.looks)
        }

        /// The first record that is not older, if there is one: the offset found must lead to it.
        fn expected(&self, start: i64, from_ms: i64) -> Option<i64> {
            let held = self.records.iter().filter(|record| record.position.offset >= start);
            held.filter(|record| record.timestamp_ms >= from_ms).map(|record| record.position.offset).next()
        }

        fn check(&self, start: i64, from_ms: i64, looks_max: u32) {
            let (place, looks) = self.seek(start, from_ms);
            let held = self.records.partition_point(|record| record.position.offset < place.max(start));
            let leads_to = self.records.get(held).map(|record| record.position.offset);
            assert_eq!(leads_to, self.expected(start, from_ms), "{from_ms} from {start}: {place}");
            assert!(looks <= looks_max, "{looks} looks for {from_ms} from {start}");
        }
    }

    #[test]
    fn an_even_flow_takes_a_handful_of_looks() {
        let partition = Partition::new((0..300_000).map(|n| n * 7), 1_000);
        for from_ms in (0..2_100_000).step_by(31_111) {
            partition.check(0, from_ms, 5);
            partition.check(100_000, from_ms, 5);
        }
        partition.check(0, -1, 3);
        partition.check(0, 2_099_000, 1);
        partition.check(0, 8_000_000, 2);
    }

    #[test]
    fn any_flow_takes_no_more_than_twice_what_halving_would() {
        let nightly = (0..300_000_i64).map(|n| n + n / 10_000 * 1_000_000_000);
        let bursts = (0..300_000_i64).map(|n| n / 2_500 * 60_000);
        let rising = (0..300_000_i64).map(|n| n * n / 1_000);
        let flows: [Box<dyn Iterator<Item = i64>>; 3] = [Box::new(nightly), Box::new(bursts), Box::new(rising)];
        for flow in flows {
            let partition = Partition::new(flow, 7);
            let last = partition.records.last().map_or(0, |record| record.timestamp_ms);
            for step in 0..=60 {
                partition.check(0, last / 60 * step, 24);
                partition.check(1_000, last / 60 * step + 1, 24);
            }
        }
    }

    #[test]
    fn small_and_empty_partitions_have_a_place_too() {
        for count in 0..5 {
            let partition = Partition::new((0..count).map(|n| n * 10), 2);
            for from_ms in -1..50 {
                partition.check(0, from_ms, 10);
            }
        }
    }
}
