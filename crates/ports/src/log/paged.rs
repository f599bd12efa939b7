//! A log of one partition that can only be read by pages, to test code that reads a log backwards.

use super::{Extent, Fenced, Log, Membership, Page, Reader};
use crate::Error;
use async_trait::async_trait;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Position, Topic};

/// One partition. Missing offsets are holes, also at the end.
pub struct Paged {
    /// In rising offsets.
    pub records: Vec<Record>,
    /// Records per page, at least 1.
    pub page_records: usize,
    /// Empty offsets after the last record.
    pub holes: i64,
}

impl Paged {
    fn end(&self) -> i64 {
        self.records.last().map_or(0, |record| record.position.offset + 1) + self.holes
    }
}

#[async_trait]
impl Log for Paged {
    fn partitions(&self, _: Topic) -> u32 {
        1
    }

    async fn append(&self, _: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        Err(Error::reject("append", "this log is only read"))
    }

    async fn extent(&self, _: Topic, _: u32) -> Result<Extent, Error> {
        Ok(Extent { start: 0, end: self.end() })
    }

    async fn subscribe(&self, _: &str, _: Topic) -> Result<Box<dyn Membership>, Error> {
        Err(Error::reject("subscribe", "this log has no groups"))
    }

    async fn read(&self, _: Topic, _: u32, _: i64) -> Result<Box<dyn Reader>, Error> {
        Err(Error::reject("read", "this log can only be read by pages"))
    }

    async fn page(&self, _: Topic, _: u32, from: i64) -> Result<Page, Error> {
        let at = self.records.partition_point(|record| record.position.offset < from);
        let records: Vec<_> = self.records[at..].iter().take(self.page_records).cloned().collect();
        let next = records.last().map_or(self.end().max(from), |record| record.position.offset + 1);
        Ok(Page { records, next })
    }

    async fn fence(&self, _: Topic, _: u32) -> Result<Box<dyn Fenced>, Error> {
        Err(Error::reject("fence", "this log is only read"))
    }
}
