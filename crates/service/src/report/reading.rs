//! Reads what a report on no-shows is made of: the topics that say something of visits, then the clients' rows.
//!
//! Rows come last, so that they know at least of everything that was said. They are those of the generation that
//! serves, a page at a time, and how far they are is asked before: nothing in the report is newer than it says.

use super::{Records, Telling, Told};
use foretell_domain::address::{BUCKETS, Family, Generation, View};
use foretell_domain::report::no_show::{Report, Tally};
use foretell_domain::view::client::Client;
use foretell_engine::rows::{self, Pointers};
use foretell_events::{Topic, key};
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;

const OPERATION: &str = "report on no-shows";
/// Rows of a page.
const PAGE_ROWS: usize = 200;
/// No step before the start is announced earlier before its visit. What was announced at a booking farther ahead is not
/// counted where visits are asked for since a time.
const REMINDED_MS_MAX: i64 = 8_760 * 60 * 60 * 1000;

/// Which visits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Those that begin at this time or later, in milliseconds since the epoch; none: all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Those that begin before this time; none, or later than now: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Those of one tenant; none: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// What is read.
#[derive(Clone)]
pub struct Sources {
    /// Decisions and reminders.
    pub log: Arc<dyn Log>,
    /// Client rows.
    pub store: Arc<dyn Store>,
    /// Which of them serve.
    pub pointers: Arc<Pointers>,
    /// Decisions are kept from here on.
    pub decisions_since_ms: Option<i64>,
    /// The present.
    pub now_ms: i64,
}

/// Reads in the background; what is told arrives here, and the reading ends when the receiver is dropped.
pub fn spawn(sources: Sources, asked: Asked) -> mpsc::Receiver<Told<Report>> {
    Telling::spawn(OPERATION, |telling| Reading { sources, asked, telling }.run())
}

struct Reading {
    sources: Sources,
    asked: Asked,
    telling: Telling<Report>,
}

impl Reading {
    async fn run(self) -> Result<Report, Error> {
        let Sources { log, now_ms, decisions_since_ms, .. } = &self.sources;
        let until_ms = self.asked.until_ms.map_or(*now_ms, |until_ms| until_ms.min(*now_ms));
        let mut tally = Tally::new(self.asked.since_ms.unwrap_or(0)..until_ms);
        let tenant = self.asked.tenant.as_deref();
        let decisions = Records { topic: Topic::Decisions, since_ms: *decisions_since_ms, tenant };
        let take = |record: &_| tally.decision(record).map_err(|too_many| Error::reject(OPERATION, too_many));
        self.telling.topic(log.as_ref(), decisions, take).await?;
        let reminded_ms = self.asked.since_ms.map(|since_ms| since_ms.saturating_sub(REMINDED_MS_MAX));
        let reminders = Records { topic: Topic::Reminders, since_ms: reminded_ms, tenant };
        let partitions = log.partitions(Topic::Reminders);
        let take = |record: &_| match foretell_events::judge::decode(record, partitions) {
            Ok(event) => tally.reminder(&event).map_err(|too_many| Error::reject(OPERATION, too_many)),
            // What cannot be folded is a dead letter, and was announced to nobody.
            Err(_) => Ok(()),
        };
        self.telling.topic(log.as_ref(), reminders, take).await?;
        let unfolded = self.clients(&mut tally).await?;
        Ok(tally.report(unfolded))
    }

    /// Counts all clients; answers how many records of appointments were not folded before.
    async fn clients(&self, tally: &mut Tally) -> Result<u64, Error> {
        let pointer = self.sources.pointers.get(Family::Appointments).await?;
        let generation = pointer.serving(Family::Appointments);
        let unfolded = self.unfolded(generation, pointer.partitions).await?;
        self.telling.begin("buckets of clients", u64::from(BUCKETS)).await?;
        for bucket in 0..BUCKETS {
            self.bucket(generation, bucket.into(), tally).await?;
            self.telling.read(1).await?;
        }
        Ok(unfolded)
    }

    async fn unfolded(&self, generation: Generation, partitions: u32) -> Result<u64, Error> {
        let mut unfolded = 0;
        for partition in 0..partitions {
            let extent = self.sources.log.extent(Topic::Appointments, partition).await?;
            let checkpoint = self.sources.store.checkpoint(generation, partition).await?;
            let next = checkpoint.map_or(extent.start, |checkpoint| checkpoint.next);
            unfolded += (extent.end - next).max(0).unsigned_abs();
        }
        Ok(unfolded)
    }

    /// Counts the clients of a bucket: those of the tenant stand together.
    async fn bucket(&self, generation: Generation, bucket: i64, tally: &mut Tally) -> Result<(), Error> {
        let prefix = self.asked.tenant.as_deref().map(|tenant| key::of(tenant, "")).unwrap_or_default();
        let mut after = Some((prefix.clone(), 0)).filter(|(prefix, _)| !prefix.is_empty());
        loop {
            let behind = after.as_ref().map(|(key, source)| (key.as_str(), *source));
            let page = self.sources.store.scan(generation, View::Client, bucket, behind, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            for (key, row) in page {
                if !key.starts_with(&prefix) {
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
