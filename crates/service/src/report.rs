//! Reports: what was told, held against what became of it, while the instance goes on.
//!
//! A report reads topics and rows once, in the background, and tells how far it is; nothing of it is kept. What is
//! counted and how is a function without I/O: [`foretell_domain::decision::report`] for logins, [`no_show`] for visits. Here is
//! what reading has in common.

pub mod reading;

use crate::decisions::seek::seek;
use foretell_events::record::Record;
use foretell_events::{Topic, key};
use foretell_ports::Error;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{Extent, Log};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// How a report goes, and what comes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told<R> {
    /// Something is being read.
    Begun {
        /// What, and what is counted of it.
        what: String,
        /// How many of these are to be read.
        of: u64,
    },
    /// More of it was read.
    Read {
        /// So many.
        more: u64,
    },
    /// All of it.
    Done(Box<R>),
    /// It came to no end.
    Failed {
        /// Why, in a sentence.
        detail: String,
    },
}

/// Reads for somebody, and tells them how far it is.
pub struct Telling<R> {
    operation: &'static str,
    told: mpsc::Sender<Told<R>>,
}

impl<R: Send + 'static> Telling<R> {
    /// Works in the background; what is told arrives at the receiver, and the work ends when that is dropped.
    pub fn spawn<W>(operation: &'static str, work: impl FnOnce(Self) -> W) -> mpsc::Receiver<Told<R>>
    where
        W: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let (told, listening) = mpsc::channel(64);
        let work = work(Self { operation, told: told.clone() });
        tokio::spawn(async move {
            let last = match work.await {
                Ok(report) => Told::Done(Box::new(report)),
                Err(error) => Told::Failed { detail: error.to_string() },
            };
            // Nobody may be listening any more.
            let _ = told.send(last).await;
        });
        listening
    }

    /// Says that something is being read.
    pub async fn begin(&self, what: impl Into<String>, of: u64) -> Result<(), Error> {
        self.tell(Told::Begun { what: what.into(), of }).await
    }

    /// Says that more of it was.
    pub async fn read(&self, more: u64) -> Result<(), Error> {
        self.tell(Told::Read { more }).await
    }

    async fn tell(&self, told: Told<R>) -> Result<(), Error> {
        self.told.send(told).await.map_err(|_| Error::reject(self.operation, "nobody listens any more"))
    }

    /// Reads a topic from the time that is asked for up to where it ends now, a partition at a time.
    pub async fn topic(
        &self,
        log: &dyn Log,
        asked: Records<'_>,
        mut take: impl FnMut(&Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Records { topic, since_ms, .. } = asked;
        let mut extents = Vec::new();
        for partition in 0..log.partitions(topic) {
            let extent = log.extent(topic, partition).await?;
            let start = match since_ms {
                Some(since_ms) => seek(log, topic, partition, since_ms).await?.min(extent.end),
                None => extent.start,
            };
            extents.push(Extent { start, ..extent });
        }
        let offsets = extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
        self.begin(format!("offsets of {}", topic.name()), offsets).await?;
        for (partition, extent) in (0..).zip(extents) {
            let mut walk = Walk::begin(log, topic, partition, extent, self.operation).await?;
            let mut read = extent.start;
            while let Some(records) = walk.next().await? {
                records.iter().filter(|record| asked.is_asked(record)).try_for_each(&mut take)?;
                let next = walk.next_offset();
                self.read((next - read).unsigned_abs()).await?;
                read = next;
            }
        }
        Ok(())
    }
}

/// Which records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records<'a> {
    /// The topic.
    pub topic: Topic,
    /// Those that the log took at this time or later, in milliseconds since the epoch; none: all that it holds.
    pub since_ms: Option<i64>,
    /// Those of one tenant; none: of all.
    pub tenant: Option<&'a str>,
}

impl Records<'_> {
    fn is_asked(&self, record: &Record) -> bool {
        let Some(tenant) = self.tenant else { return true };
        record.key.as_deref().is_some_and(|key| key.starts_with(key::of(tenant, "").as_bytes()))
    }
}
