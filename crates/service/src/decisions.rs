//! Decision records: kept in a topic, found by their id, and compared with the outcomes that become known later.
//!
//! ```text
//!   score ──► answer                                             ┌─► GET /v1/decisions/{id}
//!     └─ record ─► queue ─► one task ─► log: decisions ──────────┼─► POST /v1/feedback ─► confirmed, reported
//!          └ full, or no log for a minute: lost, and counted     └─► report: fraud and legitimate by reason
//! ```
//!
//! A score never fails because of its record: [`Recorder::record`] puts the record into a bounded queue. One task
//! appends the queued records, in order, and retries, since the log is only reached through its port. Tenants
//! [share](crate::limiter) the queue, so that the load of one does not drop the decisions of another. A record that
//! finds no capacity within `queue_wait_ms_max`, or that the log does not accept within [`DELAY_MS_MAX`], is lost;
//! losses are counted and logged. This bound also makes look-ups cheap, because they only search a limited time after a
//! decision was made.
//!
//! The topic is not folded, so its records are not kept forever: they expire after `topics.decision_retention_days`.
//! There is no index of it and no view. An id encodes the partition and the time ([`foretell_domain::decision::id`]),
//! and [`lookup`] reads there.

pub mod lookup;
pub mod reading;

use crate::limiter::{Limiter, Permit};
use foretell_domain::decision::id::Id;
use foretell_domain::decision::record::DecisionRecord;
use foretell_events::record::{NewRecord, RECORD_BYTES_MAX};
use foretell_events::{Topic, key};
use foretell_ports::component::Component;
use foretell_ports::log::Log;
use foretell_ports::retry::Backoff;
use foretell_ports::{Error, Kind};
use foretell_telemetry::{DECISIONS_LOST, DECISIONS_RECORDED, REASON, meter, trace};
use metrics::counter;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// The CloudEvents `source` of decisions.
pub const SOURCE: &str = foretell_events::gate::DECISIONS_SOURCE;
/// How long a decision may wait for the log before it is lost, in milliseconds.
pub(crate) const DELAY_MS_MAX: u64 = 60_000;
/// How long the first record of a batch waits for others: on disk each append syncs every partition that it touches,
/// and appends of facts should not wait for many of these.
const LINGER: Duration = Duration::from_millis(20);
/// Maximum records, and their bytes, per append: many, because the busier the process is, the less often the task that
/// appends runs.
const BATCH_RECORDS_MAX: usize = 4_000;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A batch with this many records does not wait for more.
const BATCH_RECORDS_ENOUGH: usize = 500;
/// The pauses before an append is retried.
const RETRIES: Backoff = Backoff::doubling(Duration::from_millis(50), Duration::from_secs(2));
/// Minimum time between two log lines about lost decisions.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Bounds of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Decisions that may wait for the log; further ones are lost. A tenant holds at most as many as are free. At least
    /// 1.
    pub queue_records_max: usize,
    /// Bytes of decisions that may wait for the log, shared in the same way; further ones are lost.
    pub queue_bytes_max: usize,
    /// How long a score waits for capacity in the queue before its decision record is lost, in milliseconds. There is
    /// no wait while the log is unavailable.
    pub queue_wait_ms_max: u64,
    /// How long decisions are still appended during shutdown, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_records_max: 10_000, queue_bytes_max: 32 * 1024 * 1024, queue_wait_ms_max: 50, drain_ms: 5_000 }
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "decisions"
    }

    fn register_metrics(&self) {
        counter!(DECISIONS_RECORDED).increment(0);
        for loss in Loss::ALL {
            counter!(DECISIONS_LOST, REASON => loss.name()).increment(0);
        }
    }
}

/// Keeps decision records; clones share a queue. When the last clone is dropped, the queued records are still appended.
#[derive(Clone)]
pub struct Recorder {
    log: Arc<dyn Log>,
    queue: mpsc::UnboundedSender<Queued>,
    limiter: Arc<Limiter<2>>,
    wait: Duration,
    /// The last append failed.
    is_log_down: Arc<AtomicBool>,
    losses: Arc<Losses>,
    closing: CancellationToken,
    ended: CancellationToken,
}

/// A decision record that waits for the log.
struct Queued {
    record: NewRecord,
    queued_at: Instant,
    _permit: Permit<2>,
}

/// Why a decision record was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The queue was full.
    Full,
    /// The log was unavailable for too long.
    Late,
    /// The log rejected it permanently.
    Refused,
    /// The process ended.
    Shutdown,
}

impl Recorder {
    /// Starts a recorder that appends to this log, with a task on the current runtime.
    pub fn start(log: Arc<dyn Log>, config: &Config) -> Self {
        // Bounded by the capacity that each queued record holds.
        let (queue, queued) = mpsc::unbounded_channel();
        let limiter = Limiter::new([config.queue_records_max.max(1) as u64, config.queue_bytes_max as u64]);
        let is_log_down = Arc::new(AtomicBool::new(false));
        let (losses, closing, ended) = <(Arc<Losses>, CancellationToken, CancellationToken)>::default();
        let writer = Writer {
            log: log.clone(),
            queued,
            batch: Vec::new(),
            is_log_down: is_log_down.clone(),
            losses: losses.clone(),
            closing: closing.clone(),
            drain: Duration::from_millis(config.drain_ms),
            _ended: ended.clone().drop_guard(),
        };
        tokio::spawn(writer.run());
        let wait = Duration::from_millis(config.queue_wait_ms_max);
        Self { log, queue, limiter, wait, is_log_down, losses, closing, ended }
    }

    /// A new id for a decision about a subject at this time.
    pub fn id(&self, tenant: &str, subject: &str, now_ms: i64) -> String {
        let partitions = self.log.partitions(Topic::Decisions);
        let partition = key::partition(key::of(tenant, subject).as_bytes(), partitions);
        let (_, random) = Uuid::new_v4().as_u64_pair();
        Id::new(now_ms, partition, random).to_string()
    }

    /// Queues a decision record, or counts it as lost; waits at most `queue_wait_ms_max` for capacity.
    pub async fn record(&self, made: &DecisionRecord<'_>) {
        let mut record = made.record(SOURCE);
        trace::inject(&mut record.headers);
        let bytes = record.bytes();
        if bytes > RECORD_BYTES_MAX {
            return self.losses.count(1, Loss::Refused);
        }
        // While appends fail, no capacity becomes free.
        let wait = if self.is_log_down.load(Ordering::Relaxed) { Duration::ZERO } else { self.wait };
        let Ok(permit) = self.limiter.acquire_within(made.tenant, [1, bytes as u64], wait).await else {
            return self.losses.count(1, Loss::Full);
        };
        if self.queue.send(Queued { record, queued_at: Instant::now(), _permit: permit }).is_err() {
            self.losses.count(1, Loss::Shutdown);
        }
    }

    /// Appends what is queued, for at most `drain_ms`. Later records are lost.
    pub async fn drain(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }
}

/// The only reader of the queue.
struct Writer {
    log: Arc<dyn Log>,
    queued: mpsc::UnboundedReceiver<Queued>,
    /// Dequeued and not yet acknowledged, the oldest first.
    batch: Vec<Queued>,
    is_log_down: Arc<AtomicBool>,
    losses: Arc<Losses>,
    closing: CancellationToken,
    drain: Duration,
    _ended: DropGuard,
}

impl Writer {
    async fn run(mut self) {
        let (closing, drain) = (self.closing.clone(), self.drain);
        let too_late = async {
            closing.cancelled().await;
            sleep(drain).await;
        };
        tokio::select! {
            () = self.work() => return,
            () = too_late => {}
        }
        let mut lost = std::mem::take(&mut self.batch).len() as u64;
        while self.queued.try_recv().is_ok() {
            lost += 1;
        }
        self.losses.count(lost, Loss::Shutdown);
    }

    /// Appends until the queue is closed and empty.
    async fn work(&mut self) {
        loop {
            let taken = tokio::select! {
                taken = self.queued.recv_many(&mut self.batch, BATCH_RECORDS_MAX) => taken,
                () = self.closing.cancelled(), if !self.queued.is_closed() => {
                    self.queued.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            self.linger().await;
            while !self.batch.is_empty() {
                self.append().await;
            }
        }
    }

    /// Collects more records for a moment, unless the batch is large enough or the queue is closed.
    async fn linger(&mut self) {
        if self.batch.len() >= BATCH_RECORDS_ENOUGH || self.queued.is_closed() {
            return;
        }
        sleep(LINGER).await;
        while self.batch.len() < BATCH_RECORDS_MAX
            && let Ok(queued) = self.queued.try_recv()
        {
            self.batch.push(queued);
        }
    }

    /// Appends the oldest records of the batch, or drops those that are too late.
    async fn append(&mut self) {
        let mut pauses = RETRIES.pauses();
        loop {
            let late = self.batch.iter().take_while(|queued| is_late(queued)).count();
            self.batch.drain(..late);
            self.losses.count(late as u64, Loss::Late);
            let count = fitting(&self.batch);
            if count == 0 {
                return;
            }
            let records = self.batch[..count].iter().map(|queued| queued.record.clone()).collect();
            let appended = self.log.append(records).await;
            self.is_log_down.store(appended.is_err(), Ordering::Relaxed);
            match appended {
                Ok(_) => {
                    self.batch.drain(..count);
                    metrics::counter!(foretell_telemetry::DECISIONS_RECORDED).increment(count as u64);
                    return;
                }
                Err(Error { kind: Kind::Retry, operation, detail }) => {
                    tracing::debug!(detail, "decision records wait for the log");
                    meter::retried(operation);
                    sleep(pauses.pause()).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the log rejected decision records");
                    self.batch.drain(..count);
                    return self.losses.count(count as u64, Loss::Refused);
                }
            }
        }
    }
}

fn is_late(queued: &Queued) -> bool {
    queued.queued_at.elapsed() > Duration::from_millis(DELAY_MS_MAX)
}

/// How many of the oldest records fit into one append: at least one, if there is any.
fn fitting(batch: &[Queued]) -> usize {
    let mut bytes = 0;
    let fits = |queued: &&Queued| {
        bytes += queued.record.bytes();
        bytes <= BATCH_BYTES_MAX
    };
    batch.iter().take_while(fits).count().max(usize::from(!batch.is_empty()))
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Full, Self::Late, Self::Refused, Self::Shutdown];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counts losses, and logs them at limited intervals.
#[derive(Default)]
struct Losses(Mutex<UnloggedLosses>);

#[derive(Default)]
struct UnloggedLosses {
    lost: u64,
    logged_at: Option<Instant>,
}

impl Losses {
    fn count(&self, lost: u64, loss: Loss) {
        if lost == 0 {
            return;
        }
        metrics::counter!(foretell_telemetry::DECISIONS_LOST, foretell_telemetry::REASON => loss.name())
            .increment(lost);
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.lost += lost;
        if loss == Loss::Shutdown || untold.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL) {
            let lost = std::mem::take(&mut untold.lost);
            untold.logged_at = Some(Instant::now());
            drop(untold);
            tracing::warn!(lost, reason = loss.name(), "decision records were lost; their scores were answered");
        }
    }
}
