//! Copies the topics of a family into their successors.
//!
//! Only records that this build folds are copied. A rejected record stays in the old topic: a copy of it might be
//! accepted later, such as one from the future once its time has come, and be folded while its dead letter is open. A
//! rejected record that was not folded before becomes a dead letter here.

use super::merge::Merge;
use super::{OPERATION, RepartitionStep, Repartitioner};
use crate::pipeline::tolerance::{Excess, Tolerance};
use foretell_domain::address::Family;
use foretell_domain::dead;
use foretell_events::Topic;
use foretell_events::judge::{Rejection, judge};
use foretell_events::record::{NewRecord, Record};
use foretell_events::topic::full_name;
use foretell_ports::Error;
use foretell_ports::log::{Extent, Successors, present_name};
use futures::future::BoxFuture;

/// Maximum number of records in a batch.
const BATCH_RECORDS_MAX: usize = 1_000;
/// Size at which a batch is full, in bytes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A topic to copy.
struct Source {
    family: Family,
    name: String,
    /// The partition count that its keys were assigned with.
    partitions: u32,
    /// The time from which on the gate checks records.
    gated_from_ms: Option<i64>,
    /// By partition: records below this offset were folded, and rejected ones have their dead letters.
    met: Vec<i64>,
    extents: Vec<Extent>,
}

/// A batch of records and dead letters.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    letters: Vec<NewRecord>,
    bytes: usize,
    passed: u64,
}

#[derive(Default)]
struct Counts {
    records: u64,
    rejected: u64,
    letters: u64,
}

impl Repartitioner {
    /// Copies every topic of the family completely. Reject if a producer appended during the copy, or if too much of a
    /// topic is rejected.
    pub fn copy<'a>(&'a self, successors: &'a mut dyn Successors) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.copy_topics(successors))
    }

    async fn copy_topics(&self, successors: &mut dyn Successors) -> Result<(), Error> {
        let mut sources = Vec::new();
        for family in self.query.families() {
            sources.push(self.source(family).await?);
        }
        for source in &sources {
            self.copy_topic(source, successors).await?;
        }
        for source in &sources {
            self.check_still(source).await?;
        }
        Ok(())
    }

    async fn source(&self, family: Family) -> Result<Source, Error> {
        let (pointer, topic) = (self.pointer(family).await?, family.topic());
        let mut met = Vec::new();
        for partition in 0..self.log().partitions(topic) {
            // A partition that was added in place has never been folded.
            met.push(self.checkpoint(pointer.serving(family), partition).await?.next);
        }
        Ok(Source {
            family,
            name: present_name(self.log(), &self.verifier.topic_prefix, topic),
            partitions: pointer.partitions,
            gated_from_ms: pointer.gated_from_ms,
            met,
            extents: self.extents(topic).await?,
        })
    }

    pub(super) async fn extents(&self, topic: Topic) -> Result<Vec<Extent>, Error> {
        let mut extents = Vec::new();
        for partition in 0..self.log().partitions(topic) {
            extents.push(self.log().extent(topic, partition).await?);
        }
        Ok(extents)
    }

    async fn copy_topic(&self, source: &Source, successors: &mut dyn Successors) -> Result<(), Error> {
        let topic = source.family.topic();
        let into = full_name(&self.verifier.topic_prefix, topic, self.log().epoch(topic) + 1);
        let offsets = source.extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
        let (name, partitions) = (source.name.clone(), self.query.partitions);
        let step = RepartitionStep::Copying { topic: name, into: into.clone(), partitions, offsets };
        self.context.item(step).await?;
        self.context.begin("offsets copied", offsets).await?;
        let (mut batch, mut counts, mut tolerance) = (Batch::default(), Counts::default(), Tolerance::default());
        let mut merge = Merge::begin(self.log(), topic, &source.extents).await?;
        while let Some(record) = merge.next().await? {
            batch.passed += 1;
            batch.bytes += record.bytes();
            match judge(&record, source.partitions, source.gated_from_ms) {
                Ok(_) => {
                    tolerance.fold();
                    batch.records.push(record);
                }
                Err(Rejection { faults, .. }) => {
                    counts.rejected += 1;
                    if source.is_new(&record) {
                        let code = faults.first().code;
                        let tolerated = tolerance.reject(code, &self.verifier.config);
                        tolerated.map_err(|excess| intolerable(source, &record, excess))?;
                        batch.letters.push(dead::letter(&record, &source.name, &faults));
                    }
                }
            }
            if batch.is_full() {
                self.pass_on(&mut batch, &mut counts, successors).await?;
            }
        }
        self.pass_on(&mut batch, &mut counts, successors).await?;
        let Counts { records, rejected, letters } = counts;
        self.context.item(RepartitionStep::Copied { topic: into, records, rejected, letters }).await
    }

    async fn pass_on(
        &self,
        batch: &mut Batch,
        counts: &mut Counts,
        successors: &mut dyn Successors,
    ) -> Result<(), Error> {
        let Batch { records, letters, passed, .. } = std::mem::take(batch);
        counts.records += records.len() as u64;
        counts.letters += letters.len() as u64;
        if !letters.is_empty() {
            self.log().append(letters).await?;
        }
        successors.add(records).await?;
        self.context.advance(passed).await
    }

    /// Checks that no record arrived during the copy: it would be missing in it.
    async fn check_still(&self, source: &Source) -> Result<(), Error> {
        let now = self.extents(source.family.topic()).await?;
        if now == source.extents {
            return Ok(());
        }
        let detail =
            format!("records were appended to {} during the copy: stop its producers, and run it again", source.name);
        Err(Error::reject(OPERATION, detail))
    }
}

impl Source {
    fn is_new(&self, record: &Record) -> bool {
        let met = self.met.get(record.position.partition as usize);
        met.is_none_or(|met| record.position.offset >= *met)
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.passed >= BATCH_RECORDS_MAX as u64 || self.bytes >= BATCH_BYTES_MAX
    }
}

fn intolerable(source: &Source, record: &Record, excess: Excess) -> Error {
    let detail = format!(
        "too many records of {} are rejected ({excess}), the last one in partition {} at offset {}: fix their \
         producer. If these records are to be dead letters, run it with pipeline.rejected_run_max = 0 and \
         rejected_percent_max = 100",
        source.name, record.position.partition, record.position.offset
    );
    Error::reject(OPERATION, detail)
}
