//! Lists, redrives and drops dead letters: the part that reads and appends.
//!
//! Each partition of the topic is read twice, up to its end when the job started: once for the resolution records,
//! which come after their letters, and once for the letters. So the job holds only the state of the letters, never
//! the letters themselves, and does not read what its own redrives append. All of it can be repeated: a resolved letter
//! is skipped, and one whose resolution record was lost in a crash is appended again as the same event.

use crate::jobs::{Job, JobContext, JobRefusal};
use async_trait::async_trait;
use foretell_domain::dead::details::{DeadLetterDetails, DeadLetterEntry, LetterState, details};
use foretell_domain::dead::query::{
    DeadLetterAction, DeadLetterItem, DeadLetterQuery, DeadLetterScope, DeadLetterSummary, LetterOutcome, RATE_MAX,
    Redrive, Run,
};
use foretell_domain::dead::repair::{RepairContext, repair};
use foretell_domain::dead::resolution::{REASON_BYTES_MAX, Resolution, ResolutionRecord};
use foretell_domain::dead::{Address, Id, Identity, Letter};
use foretell_events::codec::rfc3339;
use foretell_events::record::Record;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{self, Extent, Log, record_at};
use foretell_telemetry::meter;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

const OPERATION: &str = "process dead letters";
/// Maximum number of resolution records, and of selected letters, that are held of one partition: about 60 bytes each.
const IDENTITIES_MAX: usize = 1_000_000;

/// Reads and resolves dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    /// The log that contains them.
    pub log: Arc<dyn Log>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
}

#[async_trait]
impl Job for DeadLetters {
    const NAME: &'static str = "dead-letters";
    const OPERATION: &'static str = OPERATION;
    type Query = DeadLetterQuery;
    type Item = DeadLetterItem;
    type Report = DeadLetterSummary;

    fn check(&self, query: &DeadLetterQuery) -> Result<(), JobRefusal> {
        check(query).map_err(JobRefusal::Malformed)
    }

    async fn run(
        &self,
        query: DeadLetterQuery,
        context: &JobContext<DeadLetterItem>,
    ) -> Result<DeadLetterSummary, Error> {
        let pace = pace(&query.action);
        let mut work = DeadLetterRun { letters: self, query, context, pace, summary: DeadLetterSummary::default() };
        work.run().await?;
        Ok(work.summary)
    }
}

fn check(query: &DeadLetterQuery) -> Result<(), String> {
    if query.limit == 0 {
        return Err("the limit must be at least 1".into());
    }
    let reason = match &query.action {
        DeadLetterAction::List(_) => None,
        DeadLetterAction::Redrive(Redrive { rate, .. }) if !(1..=RATE_MAX).contains(rate) => {
            return Err(format!("the rate must be 1 to {RATE_MAX} records per second"));
        }
        DeadLetterAction::Redrive(Redrive { reason, .. }) => reason.as_ref(),
        DeadLetterAction::Drop { reason, .. } if reason.trim().is_empty() => {
            return Err("give a reason, with --reason".into());
        }
        DeadLetterAction::Drop { reason, .. } => Some(reason),
    };
    match reason {
        Some(reason) if reason.len() > REASON_BYTES_MAX => {
            Err(format!("the reason is longer than {REASON_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

fn pace(action: &DeadLetterAction) -> Option<Interval> {
    let DeadLetterAction::Redrive(Redrive { run: Run::Real, rate, .. }) = action else { return None };
    let mut pace = interval(Duration::from_secs(1) / (*rate).clamp(1, RATE_MAX));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(pace)
}

impl DeadLetters {
    /// A complete letter; none if it does not exist.
    pub async fn show(&self, id: Id) -> Result<Option<DeadLetterDetails>, Error> {
        if id.partition >= self.log.partitions(Topic::DeadLetters) {
            return Ok(None);
        }
        let Some(record) = record_at(self.log.as_ref(), Topic::DeadLetters, id.partition, id.offset).await? else {
            return Ok(None);
        };
        let Some(letter) = Letter::read(&record) else { return Ok(None) };
        let closed = self.closed(id.partition).await?.1.get(&letter.identity()).copied();
        let resolution = match closed {
            None => None,
            Some(Closed { by, .. }) => {
                let record = record_at(self.log.as_ref(), Topic::DeadLetters, by.partition, by.offset).await?;
                record.as_ref().and_then(ResolutionRecord::read)
            }
        };
        let source = self
            .topic(&letter.source.topic)
            .map(|(topic, epoch)| (topic, (epoch == self.log.epoch(topic)).then(|| self.log.partitions(topic))));
        let content = self.content(&letter, record.clone()).await?;
        Ok(Some(details(&letter, &record, &content, source, resolution)))
    }

    /// The letter's record, or the one at its source if the letter omits the value.
    async fn content(&self, letter: &Letter, record: Record) -> Result<Record, Error> {
        let Address { topic, partition, offset } = &letter.source;
        // In a topic of another epoch, the same position has another record.
        let is_there =
            |(topic, epoch): &(Topic, u8)| *epoch == self.log.epoch(*topic) && *partition < self.log.partitions(*topic);
        let topic = self.topic(topic).filter(is_there).filter(|_| letter.omitted_bytes.is_some());
        let Some((topic, _)) = topic else { return Ok(record) };
        let source = record_at(self.log.as_ref(), topic, *partition, *offset).await?;
        Ok(source.unwrap_or(record))
    }

    /// The topic of a full name, and its epoch.
    fn topic(&self, full: &str) -> Option<(Topic, u8)> {
        let (full, epoch) = foretell_events::topic::without_epoch(full);
        let name = full.strip_prefix(&self.topic_prefix)?;
        Topic::ALL.into_iter().find(|topic| topic.name() == name).map(|topic| (topic, epoch))
    }

    fn name(&self, topic: Topic) -> String {
        log::present_name(self.log.as_ref(), &self.topic_prefix, topic)
    }

    /// The extent of a partition, and its closed letters; the first of several resolution records counts.
    async fn closed(&self, partition: u32) -> Result<(Extent, HashMap<Identity, Closed>), Error> {
        let extent = self.log.extent(Topic::DeadLetters, partition).await?;
        let mut closed = HashMap::new();
        let mut walk = walk(self.log.as_ref(), partition, extent).await?;
        while let Some(records) = walk.next().await? {
            for record in records {
                let Some(resolved) = ResolutionRecord::read(&record) else { continue };
                let is_dropped = resolved.resolution == Resolution::Dropped;
                let state = if is_dropped { LetterState::Dropped } else { LetterState::Redriven };
                closed.entry(resolved.identity()).or_insert(Closed { state, by: record.position.into() });
                bounded(closed.len(), partition)?;
            }
        }
        Ok((extent, closed))
    }

    /// Appends a resolution record, after the resolution is done.
    async fn close(
        &self,
        letter: &Letter,
        record: &Record,
        resolution: Resolution,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let (id, at) = (Id::from(record.position), rfc3339(self.clock.now_ms()));
        let resolved = ResolutionRecord::of(letter, id, resolution, at, reason);
        self.log.append(vec![resolved.record(record.key.clone())]).await?;
        let (outcome, reason) = (resolved.resolution.name(), resolved.reason.as_deref());
        meter::dead_letter_closed(outcome);
        tracing::info!(letter = %id, outcome, reason, "closed a dead letter");
        Ok(())
    }
}

/// The part of a resolution record that is held in memory.
#[derive(Debug, Clone, Copy)]
struct Closed {
    state: LetterState,
    /// The resolution record.
    by: Id,
}

fn bounded(count: usize, partition: u32) -> Result<(), Error> {
    if count <= IDENTITIES_MAX {
        return Ok(());
    }
    let detail = format!(
        "more than {IDENTITIES_MAX} letters in partition {partition}: narrow the selection by topic, code, key or time"
    );
    Err(Error::reject(OPERATION, detail))
}

/// A walk over the letters of a partition.
async fn walk(log: &dyn Log, partition: u32, extent: Extent) -> Result<Walk, Error> {
    Walk::begin(log, Topic::DeadLetters, partition, extent, OPERATION).await
}

/// A running job.
struct DeadLetterRun<'a> {
    letters: &'a DeadLetters,
    query: DeadLetterQuery,
    context: &'a JobContext<DeadLetterItem>,
    pace: Option<Interval>,
    summary: DeadLetterSummary,
}

impl DeadLetterRun<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut missing = self.query.filter.ids.clone();
        let log = self.letters.log.as_ref();
        let partitions = 0..log.partitions(Topic::DeadLetters);
        let partitions: Vec<_> = partitions.filter(|partition| self.query.filter.concerns(*partition)).collect();
        let mut offsets = 0;
        for partition in &partitions {
            let extent = log.extent(Topic::DeadLetters, *partition).await?;
            offsets += (extent.end - extent.start).unsigned_abs();
        }
        self.context.begin("offsets of dead letters", offsets).await?;
        for partition in partitions {
            self.partition(partition, &mut missing).await?;
            if self.summary.more {
                return Ok(());
            }
        }
        for id in missing {
            self.context.item(DeadLetterItem::Missing(id)).await?;
        }
        Ok(())
    }

    async fn partition(&mut self, partition: u32, missing: &mut BTreeSet<Id>) -> Result<(), Error> {
        let (extent, closed) = self.letters.closed(partition).await?;
        let mut walk = walk(self.letters.log.as_ref(), partition, extent).await?;
        let mut seen = HashSet::new();
        let mut read = extent.start;
        while let Some(records) = walk.next().await? {
            for record in records {
                let Some(letter) = Letter::read(&record) else { continue };
                let id = record.position.into();
                missing.remove(&id);
                if !self.query.filter.matches(id, &letter, record.key.as_deref()) {
                    continue;
                }
                let state = closed.get(&letter.identity()).map_or(LetterState::Open, |closed| closed.state);
                if !self.is_wanted(state) || !seen.insert(letter.identity()) {
                    continue;
                }
                bounded(seen.len(), partition)?;
                if self.summary.letters >= self.query.limit as u64 {
                    self.summary.more = true;
                    return Ok(());
                }
                self.letter(&letter, record, state).await?;
            }
            let next = walk.next_offset();
            self.context.advance((next - read).unsigned_abs()).await?;
            read = next;
        }
        Ok(())
    }

    /// Closed letters are skipped, except in a list of all letters, and where the query names their ids.
    fn is_wanted(&self, state: LetterState) -> bool {
        state == LetterState::Open
            || self.query.action == DeadLetterAction::List(DeadLetterScope::All)
            || !self.query.filter.ids.is_empty()
    }

    async fn letter(&mut self, letter: &Letter, record: Record, state: LetterState) -> Result<(), Error> {
        let listed = Box::new(DeadLetterEntry::new(letter, &record, state));
        let action = self.query.action.clone();
        let outcome = match (action, state) {
            (DeadLetterAction::List(_), _) => LetterOutcome::Listed,
            (_, LetterState::Redriven) => refused("it was redriven before; `show` prints when and why"),
            (_, LetterState::Dropped) => refused("it was dropped before; `show` prints when and why"),
            (DeadLetterAction::Drop { run: Run::Dry, .. }, LetterState::Open) => LetterOutcome::WouldDrop,
            (DeadLetterAction::Drop { run: Run::Real, reason }, LetterState::Open) => {
                self.letters.close(letter, &record, Resolution::Dropped, Some(reason)).await?;
                LetterOutcome::Dropped
            }
            (DeadLetterAction::Redrive(redrive), LetterState::Open) => self.redrive(letter, record, &redrive).await?,
        };
        self.summary.letters += 1;
        self.summary.refused += u64::from(matches!(outcome, LetterOutcome::Refused { .. }));
        self.context.item(DeadLetterItem::Letter { letter: listed, outcome }).await
    }

    async fn redrive(&mut self, letter: &Letter, record: Record, how: &Redrive) -> Result<LetterOutcome, Error> {
        let content = self.letters.content(letter, record.clone()).await?;
        let now_ms = self.letters.clock.now_ms();
        let terms = RepairContext { patch: how.patch.as_ref(), attempts_max: how.attempts_max, now_ms };
        let (new, dropped) = match repair(letter, &content, &terms) {
            Ok(new) => new,
            Err(refusal) => return Ok(refused(refusal.to_string())),
        };
        let family = new.topic.name();
        let topic = self.letters.name(new.topic);
        if how.run == Run::Dry {
            let key = String::from_utf8_lossy(new.key.as_deref().unwrap_or_default()).into_owned();
            return Ok(LetterOutcome::WouldRedrive { topic, key, dropped });
        }
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        let positions = self.letters.log.append(vec![new]).await?;
        let Some(&Position { partition, offset, .. }) = positions.first() else {
            return Err(Error::fatal(OPERATION, "the log returned no position"));
        };
        meter::fields_dropped(family, dropped);
        let to = Address { topic, partition, offset };
        let resolution = Resolution::Redriven { to: to.clone() };
        self.letters.close(letter, &record, resolution, how.reason.clone()).await?;
        Ok(LetterOutcome::Redriven { to, dropped })
    }
}

fn refused(detail: impl Into<String>) -> LetterOutcome {
    LetterOutcome::Refused { detail: detail.into() }
}
