//! The only writer: one thread that commits in groups.
//!
//! ```text
//!  append ─┐                      one block a partition      one sync a file     one write a mark
//!  append ─┼─► queue ─► take all ─► write ────────────────► fdatasync ─────────► mark ─► publish ─► answer
//!  fence  ─┘   (bounded by bytes)
//! ```
//! During a sync the queue fills, so the group grows with the load and the cost of a sync is shared. A fence passes
//! through the same queue: everything that the old owner appended is durable and visible before the fence is
//! acknowledged to the new owner.
//!
//! A failed write is undone and reported; the next may succeed, once there is space. After a failed sync the content
//! of the disk is unknown, so every later append is Fatal, and the reason is published for the process to end.

use super::appender::Appender;
use super::retention::ExpiryCheck;
use foretell_events::Position;
use foretell_events::record::NewRecord;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::backend::fenced_off;
use foretell_telemetry::meter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Bytes after which a group takes no further append.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Threads that sync the files of one group.
const SYNCS_AT_ONCE_MAX: usize = 8;

/// A request to the writer. Partitions are named by their index among all partitions of all topics.
pub(super) enum Job {
    Append {
        /// Each record with its partition.
        records: Vec<(usize, NewRecord)>,
        /// Partition and epoch of a fenced append.
        owner: Option<(usize, u64)>,
        answer: oneshot::Sender<Result<Vec<Position>, Error>>,
        /// Its share of the queue, released when it is answered.
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
    /// Why nothing can be appended any more, if so.
    broken: watch::Sender<Option<Error>>,
    retention: ExpiryCheck,
}

impl Writer {
    /// A writer; deletes expired segments first.
    pub(super) fn new(
        appenders: Vec<Appender>,
        clock: Arc<dyn Clock>,
        syncs: Arc<AtomicU64>,
        cuts: Arc<RwLock<()>>,
    ) -> Self {
        let mut writer =
            Self { appenders, clock, syncs, broken: watch::Sender::default(), retention: ExpiryCheck::new(cuts) };
        let now_ms = writer.clock.now_ms();
        writer.delete_expired(now_ms);
        writer
    }

    /// Publishes why nothing can be appended any more; closed when the writer ends.
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
            self.delete_expired(now_ms);
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
                // A caller that no longer waits needs no answer.
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
        (appender.epoch != epoch).then(|| fenced_off(appender.shared().topic, appender.shared().number))
    }

    /// Writes, syncs and publishes; returns the partitions that failed, and why.
    fn commit(&mut self, touched: &BTreeSet<usize>, now_ms: i64) -> BTreeMap<usize, Error> {
        let mut failed = BTreeMap::new();
        for &partition in touched {
            if let Err(error) = self.appenders[partition].write(now_ms) {
                if error.kind == foretell_ports::Kind::Fatal {
                    self.broken.send_replace(Some(error.clone()));
                }
                failed.insert(partition, error);
            }
        }
        let due = |(partition, _): &(usize, _)| touched.contains(partition) && !failed.contains_key(partition);
        let due: Vec<_> = self.appenders.iter_mut().enumerate().filter(due).collect();
        self.syncs.fetch_add(due.len() as u64, Ordering::Relaxed);
        meter::synced(due.len());
        for (partition, error) in sync_all(due) {
            self.broken.send_replace(Some(error.clone()));
            failed.insert(partition, error);
        }
        failed
    }

    /// Deletes expired segments, if a check is due. A deletion that fails is retried by the next check.
    fn delete_expired(&mut self, now_ms: i64) {
        let Some(_guard) = self.retention.begin_check(now_ms) else { return };
        for appender in &self.appenders {
            let (topic, partition) = (appender.shared().topic.name(), appender.shared().number);
            match appender.delete_expired(now_ms) {
                Ok(0) => {}
                Ok(segments) => {
                    let start = appender.shared().start();
                    tracing::info!(topic, partition, segments, start, "deleted expired segments");
                }
                Err(error) => tracing::warn!(topic, partition, %error, "cannot delete expired segments"),
            }
        }
    }
}

/// Syncs in parallel: file systems commit concurrent syncs together. Returns the failures.
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
        // A caller that no longer waits needs no answer.
        drop(answer.send(error.map_or(Ok(positions), |error| Err(error.clone()))));
    }
    for (answer, epoch) in group.fences {
        let _ = answer.send(epoch);
    }
}
