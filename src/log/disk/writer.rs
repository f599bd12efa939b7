//! The only writer: one thread that commits in groups.
//!
//! ```text
//!  append ─┐                      one block a partition      one sync a file     one write a mark
//!  append ─┼─► queue ─► take all ─► write ────────────────► fdatasync ─────────► mark ─► publish ─► answer
//!  fence  ─┘   (bounded by bytes)
//! ```
//! While a sync is under way the queue fills, so the group grows with the load and the cost of a sync is shared.
//! A fence passes through the same queue: what the old owner appended is durable and visible before the new owner
//! is told that it is one.
//!
//! A failed write is taken back and answered; the next may succeed, once there is space. After a failed sync
//! nobody knows what the disk holds, so the log is Fatal from then on, and says so to whoever waits to end the process.

use super::block::Builder;
use super::mark::{Mark, Sidecar};
use super::partition::{End, Opened, Partition};
use super::recover::Tail;
use super::retention::{Keeper, Kept};
use super::segment::Segment;
use super::{Config, SYNCS};
use crate::clock::Clock;
use crate::event::Position;
use crate::log::memory::fenced_off;
use crate::log::{Error, NewRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Bytes after which a group takes no further append.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Threads that sync the files of one group.
const SYNCS_AT_ONCE_MAX: usize = 8;
/// Segments of a partition that are removed at a time: the rest goes with the next look.
const REMOVED_AT_ONCE_MAX: u64 = 256;
const OPERATION: &str = "append";

/// What the writer is asked for. Partitions are named by their index among all partitions of all topics.
pub(super) enum Job {
    Append {
        /// Each with its partition.
        records: Vec<(usize, NewRecord)>,
        /// Partition and epoch of a fenced append.
        owner: Option<(usize, u64)>,
        answer: oneshot::Sender<Result<Vec<Position>, Error>>,
        /// Its share of the queue, given back when it is answered.
        permit: OwnedSemaphorePermit,
    },
    Fence {
        partition: usize,
        /// The epoch of the new owner.
        answer: oneshot::Sender<u64>,
    },
}

/// An append that waits for its group.
struct Waiting {
    positions: Vec<Position>,
    touched: BTreeSet<usize>,
    answer: oneshot::Sender<Result<Vec<Position>, Error>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Group {
    bytes: usize,
    waiting: Vec<Waiting>,
    fences: Vec<(oneshot::Sender<u64>, u64)>,
    touched: BTreeSet<usize>,
}

pub(super) struct Writer {
    appenders: Vec<Appender>,
    clock: Arc<dyn Clock>,
    syncs: Arc<AtomicU64>,
    /// Why nothing can be appended any more.
    broken: watch::Sender<Option<Error>>,
    retention: Keeper,
}

impl Writer {
    /// A writer that lets go at once of what is older than it is kept.
    pub(super) fn new(
        appenders: Vec<Appender>,
        clock: Arc<dyn Clock>,
        syncs: Arc<AtomicU64>,
        cuts: Arc<RwLock<()>>,
    ) -> Self {
        let mut writer =
            Self { appenders, clock, syncs, broken: watch::Sender::default(), retention: Keeper::new(cuts) };
        let now_ms = writer.clock.now_ms();
        writer.retention.let_go(&mut writer.appenders, now_ms);
        writer
    }

    /// Tells why nothing can be appended any more; it ends with the writer.
    pub(super) fn broken(&self) -> watch::Receiver<Option<Error>> {
        self.broken.subscribe()
    }

    /// Commits until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = Group::default();
            self.stage(first, &mut group);
            while group.bytes < GROUP_BYTES_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                self.stage(job, &mut group);
            }
            let now_ms = self.clock.now_ms();
            let failed = self.commit(&group.touched, now_ms);
            answer(group, &failed);
            self.retention.let_go(&mut self.appenders, now_ms);
        }
    }

    fn stage(&mut self, job: Job, group: &mut Group) {
        match job {
            Job::Fence { partition, answer } => {
                let appender = &mut self.appenders[partition];
                appender.epoch += 1;
                group.fences.push((answer, appender.epoch));
            }
            Job::Append { records, owner, answer, permit } => match self.refusal(owner) {
                // A caller that does not wait any more does not need an answer.
                Some(refusal) => drop(answer.send(Err(refusal))),
                None => {
                    let mut waiting =
                        Waiting { positions: Vec::new(), touched: BTreeSet::new(), answer, _permit: permit };
                    for (partition, record) in records {
                        group.bytes += record.bytes();
                        waiting.positions.push(self.appenders[partition].stage(&record));
                        waiting.touched.insert(partition);
                    }
                    group.touched.extend(&waiting.touched);
                    group.waiting.push(waiting);
                }
            },
        }
    }

    fn refusal(&self, owner: Option<(usize, u64)>) -> Option<Error> {
        if let Some(broken) = self.broken.borrow().clone() {
            return Some(broken);
        }
        let (partition, epoch) = owner?;
        let appender = &self.appenders[partition];
        (appender.epoch != epoch).then(|| fenced_off(appender.shared.topic, appender.shared.number))
    }

    /// Writes, syncs and publishes; answers the partitions that failed, and why.
    fn commit(&mut self, touched: &BTreeSet<usize>, now_ms: i64) -> BTreeMap<usize, Error> {
        let mut failed = BTreeMap::new();
        for &partition in touched {
            if let Err(error) = self.appenders[partition].write(now_ms) {
                if error.kind == crate::log::Kind::Fatal {
                    self.broken.send_replace(Some(error.clone()));
                }
                failed.insert(partition, error);
            }
        }
        let due = |(partition, _): &(usize, _)| touched.contains(partition) && !failed.contains_key(partition);
        let due: Vec<_> = self.appenders.iter_mut().enumerate().filter(due).collect();
        self.syncs.fetch_add(due.len() as u64, Ordering::Relaxed);
        metrics::counter!(SYNCS).increment(due.len() as u64);
        for (partition, error) in sync_all(due) {
            self.broken.send_replace(Some(error.clone()));
            failed.insert(partition, error);
        }
        failed
    }
}

/// Syncs side by side: file systems commit what is asked for together in one go. Answers the failures.
fn sync_all(mut due: Vec<(usize, &mut Appender)>) -> Vec<(usize, Error)> {
    let sync = |(partition, appender): &mut (usize, &mut Appender)| appender.sync().err().map(|e| (*partition, e));
    let mut failed = Vec::new();
    for due in due.chunks_mut(SYNCS_AT_ONCE_MAX) {
        let Some((first, others)) = due.split_first_mut() else { continue };
        let outcomes = std::thread::scope(|scope| {
            let others: Vec<_> = others.iter_mut().map(|due| scope.spawn(move || sync(due))).collect();
            let first = sync(first);
            let join = |other: std::thread::ScopedJoinHandle<'_, _>| other.join().expect("invariant: a sync answers");
            std::iter::once(first).chain(others.into_iter().map(join)).collect::<Vec<_>>()
        });
        failed.extend(outcomes.into_iter().flatten());
    }
    failed
}

fn answer(group: Group, failed: &BTreeMap<usize, Error>) {
    for Waiting { positions, touched, answer, .. } in group.waiting {
        let error = touched.iter().find_map(|partition| failed.get(partition));
        // A caller that does not wait any more does not need an answer.
        drop(answer.send(error.map_or(Ok(positions), |error| Err(error.clone()))));
    }
    for (answer, epoch) in group.fences {
        let _ = answer.send(epoch);
    }
}

/// Writes one partition.
pub(super) struct Appender {
    shared: Arc<Partition>,
    segment_bytes_max: u64,
    /// For how long its records are kept; none: for ever.
    kept: Option<Kept>,
    segment: Segment,
    file: File,
    sidecar: Sidecar,
    tail: Tail,
    /// The tail after the sync that is due.
    written: Option<Tail>,
    pending: Builder,
    epoch: u64,
}

impl Appender {
    pub(super) fn new(opened: Opened, config: &Config) -> Result<Self, Error> {
        let Opened { partition, tail, sidecar } = opened;
        let segment = partition.newest();
        let file = open(&segment).map_err(|e| segment.failed("open the log", &e))?;
        let kept = config.retention.ms(partition.topic);
        let kept = kept.map(|kept_ms| Kept::from(kept_ms, &segment)).transpose()?;
        let segment_bytes_max = config.segment_bytes_max;
        let (shared, pending) = (Arc::new(partition), Builder::default());
        Ok(Self { shared, segment_bytes_max, kept, segment, file, sidecar, tail, written: None, pending, epoch: 0 })
    }

    pub(super) fn shared(&self) -> &Arc<Partition> {
        &self.shared
    }

    fn stage(&mut self, record: &NewRecord) -> Position {
        let offset = self.tail.end + i64::from(self.pending.count());
        self.pending.push(record);
        Position { topic: self.shared.topic, partition: self.shared.number, offset }
    }

    /// Writes the pending block; a block that cannot be written completely is taken back.
    fn write(&mut self, now_ms: i64) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending);
        let timestamp_ms = self.tail.timestamp_ms.max(now_ms);
        let sequence = self.tail.sequence + 1;
        let end = self.tail.end + i64::from(pending.count());
        let block = pending.seal(self.tail.end, sequence, timestamp_ms);
        let is_full = self.tail.bytes + block.len() as u64 > self.segment_bytes_max;
        let is_old = self.kept.as_ref().is_some_and(|kept| kept.is_old(timestamp_ms));
        if self.tail.bytes > 0 && (is_full || is_old) {
            self.roll().map_err(|e| self.refused(&e))?;
        }
        if let Err(cause) = self.file.write_all_at(&block, self.tail.bytes) {
            self.file.set_len(self.tail.bytes).map_err(|e| self.segment.failed(OPERATION, &e))?;
            return Err(self.refused(&cause));
        }
        if let Some(kept) = self.kept.as_mut().filter(|_| self.tail.bytes == 0) {
            kept.begins(timestamp_ms);
        }
        let bytes = self.tail.bytes + block.len() as u64;
        self.written = Some(Tail { bytes, end, sequence, timestamp_ms });
        Ok(())
    }

    /// Adds records in a block of their own, as the log had taken them then; durable when it is [finished](Self::finish).
    pub(super) fn add(&mut self, records: &[NewRecord], timestamp_ms: i64) -> Result<(), Error> {
        for record in records {
            self.stage(record);
        }
        self.write(timestamp_ms)?;
        if let Some(written) = self.written.take() {
            self.segment.index(self.tail.end, self.tail.bytes);
            self.tail = written;
        }
        Ok(())
    }

    /// Makes everything that was added durable, and marks it.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.written = (self.tail.bytes > 0).then_some(self.tail);
        self.sync()
    }

    fn roll(&mut self) -> io::Result<()> {
        // Only the newest segment may be torn; what was added without a sync is in the old one.
        self.file.sync_data()?;
        let segment = self.shared.roll(self.tail.end)?;
        self.segment.close(self.tail.timestamp_ms);
        self.file = open(&segment)?;
        self.segment = segment;
        self.tail.bytes = 0;
        Ok(())
    }

    /// Makes the written block durable, marks it and shows it to readers.
    fn sync(&mut self) -> Result<(), Error> {
        let Some(written) = self.written.take() else { return Ok(()) };
        let mark = Mark { segment: self.segment.base, end: written.bytes, sequence: written.sequence };
        let synced = self.file.sync_data().and_then(|()| self.sidecar.write(mark));
        synced.map_err(|e| self.segment.failed(OPERATION, &e))?;
        self.segment.index(self.tail.end, self.tail.bytes);
        self.tail = written;
        let end = End { offset: written.end, segment: self.segment.base, bytes: written.bytes };
        self.shared.end.send_replace(end);
        Ok(())
    }

    /// Removes the segments whose last record is older than it is kept; answers how many.
    pub(super) fn let_go(&self, now_ms: i64) -> Result<u64, Error> {
        let Some(kept) = &self.kept else { return Ok(0) };
        let operation = "let old records go";
        let mut removed = 0;
        while let Some(oldest) = self.shared.oldest_closed().filter(|_| removed < REMOVED_AT_ONCE_MAX) {
            if oldest.last_ms(operation)? >= kept.since_ms(now_ms) {
                break;
            }
            if removed == 0 {
                self.sidecar.sync().map_err(|e| oldest.failed(operation, &e))?;
            }
            self.shared.remove(&oldest).map_err(|e| oldest.failed(operation, &e))?;
            removed += 1;
        }
        Ok(removed)
    }

    fn refused(&self, cause: &io::Error) -> Error {
        let directory = self.shared.directory.display();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::retry(OPERATION, format!("no space left on the device: free some in {directory}"))
            }
            _ => Error::retry(OPERATION, format!("{directory} cannot be written: {cause}")),
        }
    }
}

fn open(segment: &Segment) -> io::Result<File> {
    File::options().write(true).open(&segment.path)
}
