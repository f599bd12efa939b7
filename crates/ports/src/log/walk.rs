//! Reads a partition once, up to its end at the time when the walk began.

use super::{Extent, Log, Next, Reader};
use crate::Error;
use foretell_events::Topic;
use foretell_events::record::Record;

/// A walk over the records of a partition.
pub struct Walk {
    operation: &'static str,
    reader: Option<Box<dyn Reader>>,
    next: i64,
    end: i64,
}

impl Walk {
    /// A walk from `extent.start` to `extent.end`. Errors name `operation`.
    pub async fn begin(
        log: &dyn Log,
        topic: Topic,
        partition: u32,
        extent: Extent,
        operation: &'static str,
    ) -> Result<Self, Error> {
        let Extent { start, end } = extent;
        let reader = if start < end { Some(log.read(topic, partition, start).await?) } else { None };
        Ok(Self { operation, reader, next: start, end })
    }

    /// The lowest offset that has not been returned yet.
    pub fn next_offset(&self) -> i64 {
        self.next.min(self.end)
    }

    /// The next records below the end, possibly an empty list; none once the end is reached.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, Error> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.next < self.end) else { return Ok(None) };
        match reader.next().await? {
            Next::Records(mut records) => {
                self.next = records.last().map_or(self.next, |record| record.position.offset + 1);
                records.retain(|record| record.position.offset < self.end);
                Ok(Some(records))
            }
            Next::End(next) => {
                self.next = next;
                Ok(Some(Vec::new()))
            }
            Next::Revoked(_) => Err(Error::fatal(self.operation, "a reader outside of any group lost its partition")),
        }
    }
}
