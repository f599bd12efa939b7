//! The job that reports on no-shows: it reads the topics about visits, then the clients' rows.
//!
//! Rows come last, so that they contain at least everything that the topics do. They are those of the serving
//! generation, a page at a time. How far they are folded is read first: nothing in the report is newer than it states.

use super::{Records, read_topic};
use async_trait::async_trait;
use foretell_domain::address::{BUCKETS, Family, Generation, View};
use foretell_domain::report::no_show::{NoShowReport, NoShowTally};
use foretell_domain::view::client::Client;
use foretell_engine::jobs::{Job, JobContext};
use foretell_engine::rows::{self, Pointers};
use foretell_events::{Topic, key};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::{Log, Retention};
use foretell_ports::store::Store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const OPERATION: &str = "report on no-shows";
/// Rows per page.
const PAGE_ROWS: usize = 200;
/// Maximum time from the announcement of a reminder to its visit, except for a reminder at the booking. A reminder at
/// an earlier booking is not counted if the report is limited to visits since a time.
const REMINDED_MS_MAX: i64 = 8_760 * 60 * 60 * 1000;

/// Which visits to report on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoShowQuery {
    /// Visits that start at this time or later, in milliseconds since the epoch; none: all in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Visits that start before this time; none, or later than now: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Visits of one tenant; none: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Reports on no-shows.
#[derive(Clone)]
pub struct NoShowReportJob {
    /// Contains decisions and reminders.
    pub log: Arc<dyn Log>,
    /// Contains the client rows.
    pub store: Arc<dyn Store>,
    /// The generations that serve.
    pub pointers: Arc<Pointers>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// How long decisions are kept.
    pub retention: Retention,
}

#[async_trait]
impl Job for NoShowReportJob {
    const NAME: &'static str = "report-no-show";
    const OPERATION: &'static str = OPERATION;
    type Query = NoShowQuery;
    type Item = ();
    type Report = NoShowReport;

    async fn run(&self, query: NoShowQuery, context: &JobContext<()>) -> Result<NoShowReport, Error> {
        let (log, now_ms, operation) = (self.log.as_ref(), self.clock.now_ms(), OPERATION);
        let until_ms = query.until_ms.map_or(now_ms, |until_ms| until_ms.min(now_ms));
        let mut tally = NoShowTally::new(query.since_ms.unwrap_or(0)..until_ms);
        let tenant = query.tenant.as_deref();
        let since_ms = self.retention.ms(Topic::Decisions).map(|kept_ms| now_ms - kept_ms);
        let decisions = Records { operation, topic: Topic::Decisions, since_ms, tenant };
        let take = |record: &_| tally.decision(record).map_err(|too_many| Error::reject(OPERATION, too_many));
        read_topic(context, log, decisions, take).await?;
        let since_ms = query.since_ms.map(|since_ms| since_ms.saturating_sub(REMINDED_MS_MAX));
        let reminders = Records { operation, topic: Topic::Reminders, since_ms, tenant };
        let partitions = log.partitions(Topic::Reminders);
        let take = |record: &_| match foretell_events::judge::decode(record, partitions) {
            Ok(event) => tally.reminder(&event).map_err(|too_many| Error::reject(OPERATION, too_many)),
            // A record that cannot be folded is a dead letter, and was announced to no client.
            Err(_) => Ok(()),
        };
        read_topic(context, log, reminders, take).await?;
        let unfolded = self.clients(tenant, &mut tally, context).await?;
        Ok(tally.report(unfolded))
    }
}

impl NoShowReportJob {
    /// Counts all clients; returns how many records of appointments were not folded when it began.
    async fn clients(
        &self,
        tenant: Option<&str>,
        tally: &mut NoShowTally,
        context: &JobContext<()>,
    ) -> Result<u64, Error> {
        let pointer = self.pointers.get(Family::Appointments).await?;
        let generation = pointer.serving(Family::Appointments);
        let unfolded = self.unfolded(generation, pointer.partitions).await?;
        let prefix = tenant.map(|tenant| key::of(tenant, "")).unwrap_or_default();
        context.begin("buckets of clients", u64::from(BUCKETS)).await?;
        for bucket in 0..BUCKETS {
            self.bucket(generation, bucket.into(), &prefix, tally).await?;
            context.advance(1).await?;
        }
        Ok(unfolded)
    }

    async fn unfolded(&self, generation: Generation, partitions: u32) -> Result<u64, Error> {
        let mut unfolded = 0;
        for partition in 0..partitions {
            let extent = self.log.extent(Topic::Appointments, partition).await?;
            let checkpoint = self.store.checkpoint(generation, partition).await?;
            let next = checkpoint.map_or(extent.start, |checkpoint| checkpoint.next);
            unfolded += (extent.end - next).max(0).unsigned_abs();
        }
        Ok(unfolded)
    }

    /// Counts the clients of a bucket whose keys begin with a prefix.
    async fn bucket(
        &self,
        generation: Generation,
        bucket: i64,
        prefix: &str,
        tally: &mut NoShowTally,
    ) -> Result<(), Error> {
        let mut after = Some((prefix.to_owned(), 0)).filter(|(prefix, _)| !prefix.is_empty());
        loop {
            let start = after.as_ref().map(|(key, source)| (key.as_str(), *source));
            let page = self.store.scan(generation, View::Client, bucket, start, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            for (key, row) in page {
                if !key.starts_with(prefix) {
                    return Ok(());
                }
                tally.client(&key, &rows::decode::<Client>(&row)?);
                after = Some((key, row.source));
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
