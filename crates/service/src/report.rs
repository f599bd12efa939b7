//! Reports: what was predicted, compared with what happened, while the instance goes on.
//!
//! A report reads topics and rows once, in the background; nothing of it is kept. What is counted and how is a function
//! without I/O: [`foretell_domain::decision::report`] for logins, [`no_show`](foretell_domain::report::no_show) for
//! visits. This module is what their jobs have in common.

pub mod reading;

use foretell_engine::jobs::JobContext;
use foretell_events::record::Record;
use foretell_events::{Topic, key};
use foretell_ports::Error;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{Extent, Log};

/// Reads a topic from a time on up to its current end, one partition at a time.
pub(crate) async fn read_topic(
    context: &JobContext<()>,
    log: &dyn Log,
    records: Records<'_>,
    mut take: impl FnMut(&Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let Records { operation, topic, since_ms, .. } = records;
    let mut extents = Vec::new();
    for partition in 0..log.partitions(topic) {
        let extent = log.extent(topic, partition).await?;
        let start = match since_ms {
            Some(since_ms) => log.offset_at(topic, partition, since_ms).await?.min(extent.end),
            None => extent.start,
        };
        extents.push(Extent { start, ..extent });
    }
    let offsets = extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
    context.begin(format!("offsets of {}", topic.name()), offsets).await?;
    for (partition, extent) in (0..).zip(extents) {
        let mut walk = Walk::begin(log, topic, partition, extent, operation).await?;
        let mut read = extent.start;
        while let Some(page) = walk.next().await? {
            page.iter().filter(|record| records.contains(record)).try_for_each(&mut take)?;
            let next = walk.next_offset();
            context.advance((next - read).unsigned_abs()).await?;
            read = next;
        }
    }
    Ok(())
}

/// Selects records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Records<'a> {
    /// The operation, for error messages.
    pub(crate) operation: &'static str,
    /// The topic.
    pub(crate) topic: Topic,
    /// Records appended at this time or later, in milliseconds since the epoch; none: all in the log.
    pub(crate) since_ms: Option<i64>,
    /// Records of one tenant; none: of all.
    pub(crate) tenant: Option<&'a str>,
}

impl Records<'_> {
    fn contains(&self, record: &Record) -> bool {
        let Some(tenant) = self.tenant else { return true };
        record.key.as_deref().is_some_and(|key| key.starts_with(key::of(tenant, "").as_bytes()))
    }
}
