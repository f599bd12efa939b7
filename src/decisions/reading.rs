//! Reads the two topics that a report is made of: what became known first, then the decisions.
//!
//! Both are read from the time that was asked for up to where they ended when the reading began. Only what
//! [`Tally`] holds is kept of it.

use super::report::{Report, Tally};
use super::seek::seek;
use crate::event::codec;
use crate::event::{Topic, key};
use crate::log::walk::Walk;
use crate::log::{Error, Extent, Log, Record};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;

const OPERATION: &str = "report on decisions";

/// Which decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Those of this time or later, in milliseconds since the epoch; none: all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Those of one tenant; none: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// A topic is being read.
    Begun {
        /// Its name, without the prefix.
        topic: Topic,
        /// Offsets that are to be read.
        offsets: u64,
    },
    /// More of it was read.
    Read {
        /// So many offsets.
        offsets: u64,
    },
    /// All of it.
    Done(Box<Report>),
    /// It came to no end.
    Failed {
        /// Why, in a sentence.
        detail: String,
    },
}

/// Reads in the background; what is told arrives here, and the reading ends when the receiver is dropped.
pub fn spawn(log: Arc<dyn Log>, asked: Asked) -> mpsc::Receiver<Told> {
    let (told, listening) = mpsc::channel(64);
    tokio::spawn(async move {
        let reading = Reading { log, asked, told };
        let last = match reading.run().await {
            Ok(report) => Told::Done(Box::new(report)),
            Err(error) => Told::Failed { detail: error.to_string() },
        };
        // Nobody may be listening any more.
        let _ = reading.told.send(last).await;
    });
    listening
}

struct Reading {
    log: Arc<dyn Log>,
    asked: Asked,
    told: mpsc::Sender<Told>,
}

impl Reading {
    async fn run(&self) -> Result<Report, Error> {
        let mut tally = Tally::new();
        self.topic(Topic::Logins, |record| {
            // What cannot be folded is a dead letter, and says nothing about anybody.
            match codec::decode(record) {
                Ok(event) => tally.hear(&event).map_err(|too_many| Error::reject(OPERATION, too_many)),
                Err(_) => Ok(()),
            }
        })
        .await?;
        self.topic(Topic::Decisions, |record| {
            tally.count(record);
            Ok(())
        })
        .await?;
        Ok(tally.report())
    }

    /// Reads a topic, a partition at a time.
    async fn topic(&self, topic: Topic, mut take: impl FnMut(&Record) -> Result<(), Error>) -> Result<(), Error> {
        let log = self.log.as_ref();
        let mut extents = Vec::new();
        for partition in 0..log.partitions(topic) {
            let extent = log.extent(topic, partition).await?;
            let start = match self.asked.since_ms {
                Some(since_ms) => seek(log, topic, partition, since_ms).await?.min(extent.end),
                None => extent.start,
            };
            extents.push(Extent { start, ..extent });
        }
        let offsets = extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
        self.tell(Told::Begun { topic, offsets }).await?;
        for (partition, extent) in (0..).zip(extents) {
            let mut walk = Walk::begin(log, topic, partition, extent, OPERATION).await?;
            let mut read = extent.start;
            while let Some(records) = walk.next().await? {
                records.iter().filter(|record| self.is_asked(record)).try_for_each(&mut take)?;
                let next = walk.next_offset();
                self.tell(Told::Read { offsets: (next - read).unsigned_abs() }).await?;
                read = next;
            }
        }
        Ok(())
    }

    fn is_asked(&self, record: &Record) -> bool {
        let Some(tenant) = &self.asked.tenant else { return true };
        record.key.as_deref().is_some_and(|key| key.starts_with(key::of(tenant, "").as_bytes()))
    }

    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.told.send(told).await.map_err(|_| Error::reject(OPERATION, "nobody listens any more"))
    }
}
