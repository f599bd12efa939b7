//! The records of all partitions of a topic as one sequence, in the order in which the log accepted them.
//!
//! Within a partition the order is that of the log. Between partitions the timestamps decide: so the new partitions
//! look as if the topic had always had this partition count, and rows that count over many owners see events in about
//! the order in which they happened. Partitions are read page by page, with at most one page of each in memory.

use foretell_events::Topic;
use foretell_events::record::Record;
use foretell_ports::Error;
use foretell_ports::log::{Extent, Log};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A partition that is read up to its end at the start of the copy.
struct Source {
    next: i64,
    end: i64,
    page: VecDeque<Record>,
}

/// All partitions of a topic, up to their ends at the start of the copy.
pub(super) struct Merge<'a> {
    log: &'a dyn Log,
    topic: Topic,
    sources: Vec<Source>,
    /// Partitions with a next record, by its timestamp.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
}

impl<'a> Merge<'a> {
    /// Reads the first page of every partition.
    pub(super) async fn begin(log: &'a dyn Log, topic: Topic, extents: &[Extent]) -> Result<Self, Error> {
        let source = |extent: &Extent| Source { next: extent.start, end: extent.end, page: VecDeque::new() };
        let sources = extents.iter().map(source).collect();
        let mut merge = Self { log, topic, sources, heads: BinaryHeap::new() };
        for partition in 0..extents.len() {
            merge.fill(partition).await?;
        }
        Ok(merge)
    }

    /// The next record of all partitions.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some(Reverse((_, partition))) = self.heads.pop() else { return Ok(None) };
        let record = self.sources[partition].page.pop_front();
        self.fill(partition).await?;
        Ok(record)
    }

    /// Queues the next record of a partition, if there is one; reads the next page if the current one is used up.
    async fn fill(&mut self, partition: usize) -> Result<(), Error> {
        let source = &mut self.sources[partition];
        while source.page.is_empty() && source.next < source.end {
            let page = self.log.page(self.topic, partition as u32, source.next).await?;
            let end = source.end;
            source.page = page.records.into_iter().filter(|record| record.position.offset < end).collect();
            source.next = page.next;
        }
        self.heads.extend(source.page.front().map(|record| Reverse((record.timestamp_ms, partition))));
        Ok(())
    }
}
