//! Folds a topic into its views: one pipeline per partition, from its assignment to its revocation.
//!
//! ```text
//!  reader.next() ─► decode, check ─► working rows: fold, contribute ─► flush: dead letters, rows, checkpoint, commit
//!                        │ Rejected                     │ Skipped                      │ Failed: wait, try again
//!                        └────────► dead letters        └─► nothing changes            └─► the partition waits
//! ```
//!
//! Each record ends in exactly one of four outcomes: it is **applied**, **skipped** (a repetition), **rejected** (kept
//! as a dead letter, by a rule that gives the same result at every replay) or **failed** (a transient error; the
//! partition waits and tries again, in order). Nothing is dropped.
//!
//! Effects are exactly once because positions decide, not because deliveries are unique: see [`working`]. The cache of
//! decoded rows belongs to the pipeline and is dropped with it, so that a new owner reads what is stored.

mod batch;
mod config;
pub mod family;
pub mod follow;
mod full_rows;
pub mod generation;
mod memory;
pub mod misplaced;
mod shared;
mod slots;
pub mod task;
pub mod tolerance;
pub mod working;
mod written;

pub use config::Config;
pub use memory::Memory;
pub use shared::{DeadLetterMode, Shared, retry};

use crate::rows::live::Owned;
use batch::Batch;
use foretell_domain::dead;
use foretell_domain::view::{Fold, RecordPosition};
use foretell_events::codec::WRONG_PARTITION;
use foretell_events::judge::{Rejection, judge};
use foretell_events::login::LoginFact;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Event, Fact};
use foretell_ports::Error;
use foretell_ports::log::{Acknowledge, Next, Reader};
use foretell_ports::store::{Checkpoint, Flush, LastRecord};
use foretell_telemetry::meter;
use foretell_telemetry::trace;
use futures::FutureExt;
use slots::SlotId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tolerance::{Excess, Tolerance};
use working::{FoldControl, WorkingSet};

/// Records, and their bytes, that are read together while the fold is behind: enough for several keys in each look-up.
const GATHERED_RECORDS_MAX: usize = 8_000;
const GATHERED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a stopped partition repeats its log line.
const STOPPED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a pipeline ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The partition was revoked, or the process ends.
    Revoked,
    /// A row is past a record whose outcome it no longer carries: another process has moved the checkpoint on, so the
    /// partition starts over from the store's checkpoint. The offset is the checkpoint that this pipeline started from.
    Restart(i64),
}

/// The result of folding what was read.
enum Handled {
    /// Everything was folded.
    Folded,
    /// The partition starts over from the store's checkpoint.
    Restart,
    /// The partition stops until an operator decides.
    Stop,
    /// The next owner waits.
    Revoked(Acknowledge),
}

/// An event and the slot of its owner's row, or why the record cannot be folded.
type Decoded = Result<(SlotId, Event), Rejection>;

/// Folds one partition.
pub struct Pipeline<F: Fold> {
    shared: Arc<Shared<F>>,
    reader: Box<dyn Reader>,
    partition: u32,
    rows: WorkingSet<F>,
    dead: Vec<NewRecord>,
    /// Records below are rejected without a dead letter.
    letters_from: i64,
    tolerance: Tolerance,
    /// Why the partition stopped; none while it folds.
    excess: Option<Excess>,
    /// When the next warning about records in wrong partitions is due.
    misplaced_warning_at: Option<Instant>,
    checkpoint: Checkpoint,
    /// The checkpoint that the store has acknowledged.
    durable: i64,
    started_at: i64,
    batch: Batch,
    owned: Owned,
}

impl<F: Fold> Pipeline<F> {
    /// A pipeline that continues from a checkpoint; the reader returns records from `checkpoint.next` on.
    pub fn new(shared: Arc<Shared<F>>, partition: u32, checkpoint: Checkpoint, reader: Box<dyn Reader>) -> Self {
        meter::folds(F::FAMILY.name(), partition);
        let rows = WorkingSet::new(Arc::clone(&shared), partition, checkpoint.next);
        let tolerance = Tolerance::of(shared.shares.clone());
        let batch = Batch::new(shared.memory.share());
        let owned = shared.live.own(shared.generation, partition, checkpoint.next);
        Self {
            shared,
            reader,
            partition,
            rows,
            dead: Vec::new(),
            letters_from: i64::MAX,
            tolerance,
            excess: None,
            misplaced_warning_at: None,
            checkpoint,
            durable: checkpoint.next,
            started_at: checkpoint.next,
            batch,
            owned,
        }
    }

    /// Folds until the partition is revoked or `shutdown` is cancelled; everything read is flushed before it returns.
    ///
    /// An error of kind Retry means that the reader's connection ended: the caller joins the group again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<Exit, Error> {
        self.letters_from = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(Exit::Revoked),
            from = self.shared.letters_from(self.partition) => from?,
        };
        loop {
            if self.batch.is_overdue(&self.shared.config) {
                // Before anything else, so that a fast log cannot starve it.
                self.flush().await?;
            }
            self.warn_misplaced();
            let due = self.batch.due(&self.shared.config);
            let warning_due = self.misplaced_warning_at.unwrap_or(due);
            tokio::select! {
                biased; // Available records join the batch: the fuller it is, the less a row costs.
                () = shutdown.cancelled() => return self.drain(None).await,
                next = self.reader.next() => match self.handle(next?).await? {
                    Handled::Folded => {}
                    Handled::Restart => return Ok(Exit::Restart(self.started_at)),
                    Handled::Stop => return self.wait_stopped(shutdown).await,
                    Handled::Revoked(acknowledge) => return self.drain(Some(acknowledge)).await,
                },
                () = sleep_until(due), if self.batch.is_open() => self.flush().await?,
                () = sleep_until(warning_due), if self.misplaced_warning_at.is_some() => {}
            }
        }
    }

    /// Folds what was read.
    async fn handle(&mut self, next: Next) -> Result<Handled, Error> {
        let mut upcoming = Some(next);
        while let Some(next) = upcoming.take() {
            match next {
                Next::Records(mut records) => {
                    upcoming = self.gather(&mut records)?;
                    if self.batch.read(records.len(), &self.shared.config) {
                        self.measure(&records).await;
                    }
                    match self.take(records).await? {
                        FoldControl::Done => {}
                        FoldControl::Restart => return Ok(Handled::Restart),
                        FoldControl::Stop => match upcoming {
                            Some(Next::Revoked(acknowledge)) => return Ok(Handled::Revoked(acknowledge)),
                            _ => return Ok(Handled::Stop),
                        },
                    }
                }
                Next::End(next) => self.reached(next),
                Next::Revoked(acknowledge) => return Ok(Handled::Revoked(acknowledge)),
            }
        }
        Ok(Handled::Folded)
    }

    /// Behind the head, adds records that are available, so that the rows of all of them are read together. Returns
    /// what followed them.
    fn gather(&mut self, records: &mut Vec<Record>) -> Result<Option<Next>, Error> {
        let mut bytes = 0;
        while self.batch.is_behind() && records.len() < GATHERED_RECORDS_MAX && bytes < GATHERED_BYTES_MAX {
            match self.reader.next().now_or_never().transpose()? {
                Some(Next::Records(more)) => {
                    bytes += more.iter().map(|record| record.value.len()).sum::<usize>();
                    records.extend(more);
                }
                other => return Ok(other),
            }
        }
        Ok(None)
    }

    /// Measures how far the last of these records is from the end of the log.
    async fn measure(&mut self, records: &[Record]) {
        // If the log cannot be queried, what was known before still applies.
        if let (Some(last), Ok(extent)) =
            (records.last(), self.shared.log.extent(self.shared.topic(), self.partition).await)
        {
            self.batch.measure(extent.end - last.position.offset, &self.shared.config);
        }
    }

    /// Warns of records in wrong partitions when a warning is due.
    fn warn_misplaced(&mut self) {
        let now = Instant::now();
        if self.misplaced_warning_at.take_if(|due| *due <= now).is_some() {
            self.shared.misplaced.warn(F::FAMILY, now);
        }
    }

    /// Flushes the open batch, for as long as the next owner waits. A late flush is harmless: positions decide which
    /// write wins.
    async fn drain(mut self, acknowledge: Option<Acknowledge>) -> Result<Exit, Error> {
        let drain = Duration::from_millis(self.shared.config.drain_ms_max);
        if timeout(drain, self.flush()).await.is_err() {
            tracing::warn!(
                topic = self.shared.topic().name(),
                self.partition,
                "released a partition before its flush finished"
            );
        }
        drop(acknowledge);
        Ok(Exit::Revoked)
    }

    /// Stops folding until the partition is revoked: too many of its records are rejected, and an operator must decide.
    async fn wait_stopped(mut self, shutdown: CancellationToken) -> Result<Exit, Error> {
        let (family, offset) = (F::FAMILY.name(), self.checkpoint.next);
        let excess = self.excess.map(|excess| excess.to_string()).unwrap_or_default();
        let _stopped = meter::Stopped::new(family, self.partition);
        loop {
            tracing::error!(
                topic = %self.shared.topic_name, self.partition, offset,
                "stopped: {excess}, too many for isolated bad records. Fix the producer; if these records are to be dead \
                 letters, start with pipeline.rejected_run_max = 0 and rejected_percent_max = 100"
            );
            let reminded = Instant::now() + STOPPED_LOG_INTERVAL;
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return self.drain(None).await,
                    () = sleep_until(reminded) => break,
                    () = sleep_until(self.misplaced_warning_at.unwrap_or(reminded)), if self.misplaced_warning_at.is_some() => {
                        self.warn_misplaced();
                    }
                    next = self.reader.next() => if let Next::Revoked(acknowledge) = next? {
                        return self.drain(Some(acknowledge)).await;
                    },
                }
            }
        }
    }

    /// Handles the end of the partition: offsets below it without a record are holes and count as folded.
    fn reached(&mut self, next: i64) {
        self.batch.reach_head();
        if next > self.checkpoint.next {
            self.checkpoint.next = next;
            self.batch.open();
        }
    }

    async fn take(&mut self, records: Vec<Record>) -> Result<FoldControl, Error> {
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let capacity = self.batch.capacity(&self.shared.config);
            let (chunk, later) = rest.split_at(capacity.min(rest.len()));
            rest = later;
            match self.fold(chunk).await? {
                FoldControl::Done => {}
                FoldControl::Restart => return Ok(FoldControl::Restart),
                FoldControl::Stop => {
                    self.contribute().await?;
                    self.flush().await?;
                    return Ok(FoldControl::Stop);
                }
            }
            if self.batch.is_full(&self.shared.config, self.rows.bytes()) {
                self.flush().await?;
            }
        }
        Ok(FoldControl::Done)
    }

    /// Decodes and folds; flushes in between where one owner has too many open records.
    async fn fold(&mut self, records: &[Record]) -> Result<FoldControl, Error> {
        let decode = |record| {
            let event = judge(record, self.shared.partitions, self.shared.gate.from_ms)?;
            Ok((self.rows.owner(&event), event))
        };
        let decoded: Vec<Decoded> = records.iter().map(decode).collect();
        self.load_owners().await?;
        for (record, decoded) in records.iter().zip(&decoded) {
            self.batch.open();
            match decoded {
                Err(rejection) => {
                    if !self.reject(record, rejection) {
                        return Ok(FoldControl::Stop);
                    }
                }
                Ok((owner, event)) => {
                    if self.rows.is_full(*owner) {
                        self.contribute().await?;
                        // Slots of later events stay valid: nothing is evicted.
                        self.write().await?;
                    }
                    count_without_network(event);
                    let place = RecordPosition { partition: self.partition, offset: record.position.offset };
                    let (system, topic) = (self.shared.log.system(), &self.shared.topic_name);
                    let fold = || self.rows.fold(*owner, event, place);
                    if trace::folding(system, topic, record, fold) == FoldControl::Restart {
                        return Ok(FoldControl::Restart);
                    }
                    self.tolerance.fold();
                }
            }
            self.batch.add();
            self.checkpoint = Checkpoint { next: record.position.offset + 1, last: Some(last_record(record)) };
        }
        self.tolerance.commit_good(&self.shared.config);
        self.contribute().await?;
        self.batch.open();
        Ok(FoldControl::Done)
    }

    /// Keeps a record as a dead letter; returns false if it is one rejection too many.
    fn reject(&mut self, record: &Record, Rejection { faults, by_gate }: &Rejection) -> bool {
        let has_letter = record.position.offset < self.letters_from && !(*by_gate && self.shared.gate.is_new);
        if has_letter || self.shared.letters == DeadLetterMode::None {
            return true;
        }
        let fault = faults.first();
        self.excess = self.tolerance.reject(fault.code, &self.shared.config).err();
        if self.excess.is_some() {
            return false;
        }
        meter::rejected(F::FAMILY.name(), fault.code);
        tracing::debug!(position = ?record.position, %faults, "rejected a record");
        if fault.code == WRONG_PARTITION {
            let Shared { misplaced, topic_name, partitions, .. } = &*self.shared;
            self.misplaced_warning_at =
                Some(misplaced.count(F::FAMILY, topic_name, *partitions, record, Instant::now()));
            self.warn_misplaced();
        }
        self.dead.push(dead::letter(record, &self.shared.topic_name, faults));
        true
    }

    async fn load_owners(&mut self) -> Result<(), Error> {
        let (owners, keys) = self.rows.missing_owners();
        let read = self.shared.read(self.partition, &keys).await?;
        self.rows.load_owners(owners, read)
    }

    async fn contribute(&mut self) -> Result<(), Error> {
        let (aggregates, keys) = self.rows.missing_aggregates()?;
        let read = self.shared.read(self.partition, &keys).await?;
        self.rows.load_aggregates(aggregates, read)?;
        self.rows.contribute()
    }

    /// Writes the batch, and then forgets rows that exceed the memory of the partition.
    async fn flush(&mut self) -> Result<(), Error> {
        self.write().await?;
        let config = &self.shared.config;
        self.rows.evict(self.batch.rows_max(config), self.batch.bytes_max(config));
        Ok(())
    }

    /// Writes dead letters, rows, the checkpoint, and then the group's offset, which is only a hint.
    async fn write(&mut self) -> Result<(), Error> {
        self.batch.close();
        if self.checkpoint.next == self.durable && self.dead.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let config = &self.shared.config;
        if !self.dead.is_empty() {
            retry(config, || self.shared.log.append(self.dead.clone())).await?;
            self.dead.clear();
        }
        let rows = self.rows.take_changed();
        self.owned.advance(self.checkpoint.next);
        let flushing = self.shared.live.flush(self.shared.generation, rows.iter().map(|row| &row.key));
        let flush =
            Flush { generation: self.shared.generation, partition: self.partition, rows, checkpoint: self.checkpoint };
        retry(config, || self.shared.store.apply(&flush)).await?;
        drop(flushing);
        self.durable = self.checkpoint.next;
        self.rows.flushed(self.durable);
        meter::flushed(F::FAMILY.name(), flush.rows.len(), began.elapsed());
        if let Err(error) = self.reader.commit(self.durable).await {
            tracing::debug!(%error, "the group's offset was not committed; the checkpoint decides");
        }
        Ok(())
    }
}

/// Counts logins without a network or country: no one resolved the address before it was logged, and a fold cannot.
fn count_without_network(event: &Event) {
    let Fact::Login(LoginFact::Attempted(login)) = &event.fact else { return };
    if login.attempt.asn.is_none() {
        meter::login_without("asn");
    }
    if login.attempt.country.is_none() {
        meter::login_without("country");
    }
}

fn last_record(record: &Record) -> LastRecord {
    LastRecord { offset: record.position.offset, digest: record.digest(), timestamp_ms: record.timestamp_ms }
}
