//! Scores that were given: kept on a topic, found again by their id, held against what came of them.
//!
//! ```text
//!   score ──► answer                                             ┌─► GET /v1/decisions/{id}
//!     └─ record ─► queue ─► one task ─► log: decisions ──────────┼─► POST /v1/feedback ─► confirmed, reported
//!          └ full, or no log for a minute: lost, and counted     └─► report: fraud and legitimate by reason
//! ```
//!
//! A score never fails with its record: [`Recorder::record`] puts it into a bounded queue. One task appends what is
//! queued, in order, and patiently, as the log is reached through its port alone. Tenants [share](crate::room) the queue, so
//! that the load of one does not drop the decisions of another. What finds no room within `queue_wait_ms_max`, and
//! what the log did not take within [`DELAY_MS_MAX`], is lost: that is counted and logged. The bound also makes
//! look-ups cheap, which need not look for a decision long after it was made.
//!
//! The topic is not folded, so its records need not be kept for ever: they go after `topics.decision_retention_days`.
//! There is no index of it and no view. An id says in which partition and when ([`id`]), and [`lookup`] reads there.

pub mod lookup;
pub mod reading;
pub mod seek;

use crate::room::{Place, Room};
use foretell_domain::decision::id::Id;
use foretell_domain::decision::made::Made;
use foretell_events::record::{NewRecord, RECORD_BYTES_MAX};
use foretell_events::{Topic, key};
use foretell_ports::log::Log;
use foretell_ports::{Error, Kind};
use foretell_telemetry::{meter, trace};
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
pub const DELAY_MS_MAX: u64 = 60_000;
/// How long the first record of a batch waits for company: on disk each append is a sync of every partition that it
/// touches, and those of facts should not wait behind many of them.
const LINGER: Duration = Duration::from_millis(20);
/// Records, and bytes of them, that are appended at once: many, because the busier the process is, the less often the
/// task that appends has its turn.
const BATCH_RECORDS_MAX: usize = 4_000;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records with which a batch waits for no more.
const BATCH_RECORDS_ENOUGH: usize = 500;
/// The first pause before an append is tried again, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between two lines about lost decisions.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Bounds of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Decisions that wait for the log, of which a tenant holds at most as many as are free; further ones are lost. At
    /// least 1.
    pub queue_records_max: usize,
    /// Bytes of decisions that wait for the log, shared in the same way; what goes beyond it is lost.
    pub queue_bytes_max: usize,
    /// How long a score waits for room in the queue before its decision is lost, in milliseconds; not at all while the
    /// log is away.
    pub queue_wait_ms_max: u64,
    /// How long decisions are still appended when the process ends, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_records_max: 10_000, queue_bytes_max: 32 * 1024 * 1024, queue_wait_ms_max: 50, drain_ms: 5_000 }
    }
}

/// Keeps the scores that are given; clones share a queue. Dropping the last one appends what is queued.
#[derive(Clone)]
pub struct Recorder {
    log: Arc<dyn Log>,
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Room<2>>,
    wait: Duration,
    /// The log did not take the last append.
    is_away: Arc<AtomicBool>,
    losses: Arc<Losses>,
    closing: CancellationToken,
    ended: CancellationToken,
}

/// A decision on its way.
struct Queued {
    record: NewRecord,
    made: Instant,
    _place: Place<2>,
}

/// Why a decision is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The queue had no room.
    Full,
    /// The log was away for too long.
    Late,
    /// The log will never take it.
    Refused,
    /// The process ended.
    Shutdown,
}

impl Recorder {
    /// A recorder that appends to this log, by a task of the present runtime.
    pub fn start(log: Arc<dyn Log>, config: &Config) -> Self {
        // Bounded by the room that each record in it holds.
        let (queue, queued) = mpsc::unbounded_channel();
        let room = Room::new([config.queue_records_max.max(1) as u64, config.queue_bytes_max as u64]);
        let is_away = Arc::new(AtomicBool::new(false));
        let (losses, closing, ended) = <(Arc<Losses>, CancellationToken, CancellationToken)>::default();
        let writer = Writer {
            log: log.clone(),
            queued,
            batch: Vec::new(),
            is_away: is_away.clone(),
            losses: losses.clone(),
            closing: closing.clone(),
            drain: Duration::from_millis(config.drain_ms),
            _ended: ended.clone().drop_guard(),
        };
        tokio::spawn(writer.run());
        let wait = Duration::from_millis(config.queue_wait_ms_max);
        Self { log, queue, room, wait, is_away, losses, closing, ended }
    }

    /// A name for the decision about a subject that is made now.
    pub fn id(&self, tenant: &str, subject: &str, now_ms: i64) -> String {
        let partitions = self.log.partitions(Topic::Decisions);
        let partition = key::partition(key::of(tenant, subject).as_bytes(), partitions);
        let (_, random) = Uuid::new_v4().as_u64_pair();
        Id::new(now_ms, partition, random).to_string()
    }

    /// Keeps a decision, if it can; waits at most `queue_wait_ms_max` for room.
    pub async fn record(&self, made: &Made<'_>) {
        let mut record = made.record(SOURCE);
        trace::inject(&mut record.headers);
        let bytes = record.bytes();
        if bytes > RECORD_BYTES_MAX {
            return self.losses.count(1, Loss::Refused);
        }
        // While nothing is appended nothing becomes free.
        let wait = if self.is_away.load(Ordering::Relaxed) { Duration::ZERO } else { self.wait };
        let Ok(place) = self.room.take_within(made.tenant, [1, bytes as u64], wait).await else {
            return self.losses.count(1, Loss::Full);
        };
        if self.queue.send(Queued { record, made: Instant::now(), _place: place }).is_err() {
            self.losses.count(1, Loss::Shutdown);
        }
    }

    /// Appends what is queued, for as long as the settings allow; nothing is kept from then on.
    pub async fn drain(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }
}

/// The only one who takes from the queue.
struct Writer {
    log: Arc<dyn Log>,
    queued: mpsc::UnboundedReceiver<Queued>,
    /// Taken and not yet acknowledged, the oldest first.
    batch: Vec<Queued>,
    is_away: Arc<AtomicBool>,
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

    /// Appends until nothing more can come.
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

    /// Takes what comes within a moment, unless there is enough, or nothing comes any more.
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

    /// Appends the oldest of the batch, or lets them go.
    async fn append(&mut self) {
        let mut pause = PAUSE;
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
            self.is_away.store(appended.is_err(), Ordering::Relaxed);
            match appended {
                Ok(_) => {
                    self.batch.drain(..count);
                    metrics::counter!(foretell_telemetry::DECISIONS_RECORDED).increment(count as u64);
                    return;
                }
                Err(Error { kind: Kind::Retry, operation, detail }) => {
                    tracing::debug!(detail, "decisions wait for the log");
                    meter::retried(operation);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => {
                    tracing::error!(%error, "the log does not take decisions");
                    self.batch.drain(..count);
                    return self.losses.count(count as u64, Loss::Refused);
                }
            }
        }
    }
}

fn is_late(queued: &Queued) -> bool {
    queued.made.elapsed() > Duration::from_millis(DELAY_MS_MAX)
}

/// How many of the oldest are appended at once: at least one, if there is any.
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

/// Counts what is lost, and says so now and then.
#[derive(Default)]
struct Losses(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    lost: u64,
    told: Option<Instant>,
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
        if loss == Loss::Shutdown || untold.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let lost = std::mem::take(&mut untold.lost);
            untold.told = Some(Instant::now());
            drop(untold);
            tracing::warn!(lost, reason = loss.name(), "scores were answered and are not kept");
        }
    }
}
