//! Progress of the views: for answers, for requests that wait, and for readiness.
//!
//! ```text
//!                    ┌ watches ─ one task per (family, partition) ─ reads the serving checkpoint from the store
//!   Observation ◄────┤           every idle_ms, every wait_ms while a request waits,
//!   next, end, age   └           and the end of the log every idle_ms
//!     │      │    └──► ready(): has passed the end that the log had at the first look
//!     │      └───────► wait(): next > offset, then rows in memory that may be older are dropped
//!     └──────────────► view(): { partition, offset, lag_ms }
//! ```
//!
//! Only the store's checkpoints count, so it makes no difference which process folds the views. Progress is at most
//! `idle_ms` old and never ahead of the rows: a caller that reads progress first and rows second gets rows that are at
//! least that far. A checkpoint moves past the holes at the end of a partition, so holes alone cause no lag.
//!
//! **Age without reading the log.** A watch remembers when it last saw the end. If everything up to that end is folded
//! at the next look, the oldest open record arrived in between, and its age is known to within `idle_ms`. The record at
//! the checkpoint is read only if the fold is further behind, at most once in `PROBE_MS`.

use crate::rows::Rows;
use foretell_domain::address::Family;
use foretell_events::Position;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Minimum time between two reads of the record at a checkpoint, in milliseconds.
const PROBE_MS: i64 = 1_000;
/// If the last look is older than this many idle periods, store or log do not respond.
const MISSED_POLLS_MAX: u32 = 20;

/// How often the store is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between two looks at a partition for which a request waits, in milliseconds.
    pub wait_ms: u64,
    /// Time between two looks at any partition, in milliseconds; the maximum age of `view` in answers.
    pub idle_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { wait_ms: 5, idle_ms: 250 }
    }
}

/// How far one partition is folded, as answers report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The partition.
    pub partition: u32,
    /// The serving checkpoint: all records below this offset are folded.
    pub offset: i64,
    /// Age of the oldest record not yet folded, in milliseconds; 0 at the end.
    pub lag_ms: u64,
}

/// One partition as of the last look.
#[derive(Debug, Clone, Default)]
struct Observation {
    /// The checkpoint; none before the first look.
    next: Option<i64>,
    /// End of the log, and when it was seen.
    end: i64,
    seen_at_ms: i64,
    /// When the oldest open record arrived, and its offset, if it was read.
    oldest: Option<(i64, i64)>,
    probed_at_ms: i64,
    /// End of the log at the first look.
    target: Option<i64>,
    /// Why the last look failed.
    trouble: Option<String>,
    polled_at: Option<Instant>,
}

impl Observation {
    fn is_ready(&self) -> bool {
        self.target.zip(self.next).is_some_and(|(target, next)| next >= target)
    }

    fn lag_ms(&self, now_ms: i64) -> u64 {
        self.oldest.map_or(0, |(_, at_ms)| u64::try_from(now_ms - at_ms).unwrap_or(0))
    }
}

/// A partition that keeps a process from being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MissingPartition {
    /// The family.
    pub family: &'static str,
    /// The partition.
    pub partition: u32,
    /// The serving checkpoint; none before it was first read.
    #[schema(required)]
    pub offset: Option<i64>,
    /// End of the log when this process first saw it; none before that.
    #[schema(required)]
    pub target: Option<i64>,
    /// Why store or log could not be queried, for operators.
    #[schema(required)]
    pub trouble: Option<String>,
}

/// Watches every partition of every family.
pub struct Progress {
    watches: BTreeMap<(Family, u32), Arc<Watch>>,
    rows: Arc<Rows>,
    clock: Arc<dyn Clock>,
    fresh_max: Duration,
    _tasks: JoinSet<()>,
}

struct Watch {
    family: Family,
    partition: u32,
    observation: watch::Sender<Observation>,
    waiters: AtomicUsize,
    wake: Notify,
}

/// What a watch reads from.
#[derive(Clone)]
struct Sources {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    rows: Arc<Rows>,
    clock: Arc<dyn Clock>,
    config: Config,
}

impl Progress {
    /// Starts to watch; ends when the value is dropped. To be called within a tokio runtime.
    pub fn start(
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        clock: Arc<dyn Clock>,
        config: Config,
    ) -> Self {
        let fresh_max = Duration::from_millis(config.idle_ms) * MISSED_POLLS_MAX;
        let sources = Sources { log, store, rows: rows.clone(), clock: clock.clone(), config };
        let mut watches = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for family in Family::ALL {
            for partition in 0..sources.log.partitions(family.topic()) {
                let watch = Arc::new(Watch {
                    family,
                    partition,
                    observation: watch::channel(Observation::default()).0,
                    waiters: AtomicUsize::new(0),
                    wake: Notify::new(),
                });
                tasks.spawn(watch.clone().run(sources.clone()));
                watches.insert((family, partition), watch);
            }
        }
        Self { watches, rows, clock, fresh_max, _tasks: tasks }
    }

    /// How far a partition is folded; offset 0 before the first look. Call it before the rows are read.
    pub fn view(&self, family: Family, partition: u32) -> PartitionProgress {
        let observation = self.watches.get(&(family, partition)).map(|watch| watch.observation.borrow().clone());
        let observation = observation.unwrap_or_default();
        PartitionProgress {
            partition,
            offset: observation.next.unwrap_or(0),
            lag_ms: observation.lag_ms(self.clock.now_ms()),
        }
    }

    /// Waits until the serving views contain the records at `positions`; returns whether they do by `deadline`.
    ///
    /// After `true` every read of the rows that were passed to [`start`](Self::start) contains the records.
    pub async fn wait(&self, positions: &[Position], deadline: Instant) -> bool {
        let mut wanted: BTreeMap<(Family, u32), i64> = BTreeMap::new();
        for position in positions {
            let Some(family) = Family::of(position.topic) else { return false };
            let offset = wanted.entry((family, position.partition)).or_insert(position.offset);
            *offset = (*offset).max(position.offset);
        }
        let folded = wanted.iter().map(|(partition, offset)| async move {
            let Some(watch) = self.watches.get(partition) else { return false };
            watch.passed(*offset).await
        });
        let folded = tokio::time::timeout_at(deadline, futures::future::join_all(folded)).await;
        if !folded.is_ok_and(|all| all.into_iter().all(|passed| passed)) {
            return false;
        }
        let families: BTreeSet<Family> = wanted.keys().map(|(family, _)| *family).collect();
        for family in families {
            self.rows.refresh(family).await;
        }
        true
    }

    /// Whether the views have reached the end that the log had when this process first looked, and can be queried.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Partitions that keep the process from being ready, and why.
    pub fn missing(&self) -> Vec<MissingPartition> {
        let watches = self.watches.values();
        watches.filter_map(|watch| watch.missing(self.fresh_max)).collect()
    }
}

/// Counts a waiting request for as long as it lives.
struct Waiting<'a>(&'a Watch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch {
    async fn passed(&self, offset: i64) -> bool {
        self.waiters.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        self.wake.notify_one();
        let mut observation = self.observation.subscribe();
        observation.wait_for(|observation| observation.next.is_some_and(|next| next > offset)).await.is_ok()
    }

    fn missing(&self, fresh_max: Duration) -> Option<MissingPartition> {
        let observation = self.observation.borrow();
        let silent = observation.polled_at.is_none_or(|at| at.elapsed() > fresh_max);
        if observation.is_ready() && observation.trouble.is_none() && !silent {
            return None;
        }
        let trouble = observation.trouble.clone().or_else(|| silent.then(|| "no answer yet".to_owned()));
        Some(MissingPartition {
            family: self.family.name(),
            partition: self.partition,
            offset: observation.next,
            target: observation.target,
            trouble,
        })
    }

    async fn run(self: Arc<Self>, sources: Sources) {
        let idle = Duration::from_millis(sources.config.idle_ms.max(1));
        let wait = Duration::from_millis(sources.config.wait_ms.max(1));
        loop {
            let failed = self.poll(&sources).await.is_err();
            let waited_for = self.waiters.load(Ordering::Acquire) > 0;
            if waited_for && !failed {
                tokio::time::sleep(wait).await;
            } else {
                // A wake-up during the look is kept, so no request waits for a whole idle period.
                let _ = tokio::time::timeout(idle, self.wake.notified()).await;
            }
        }
    }

    /// Looks once and publishes the result to all waiting requests.
    async fn poll(&self, sources: &Sources) -> Result<(), Error> {
        let mut observation = self.observation.borrow().clone();
        let result = self.observe(sources, &mut observation).await;
        observation.polled_at = Some(Instant::now());
        let trouble = result.as_ref().err().map(ToString::to_string);
        if let (Some(trouble), None) = (&trouble, &observation.trouble) {
            tracing::info!(family = self.family.name(), partition = self.partition, trouble, "cannot read progress");
        }
        observation.trouble = trouble;
        self.report(&observation, sources.clock.now_ms());
        self.observation.send_replace(observation);
        result
    }

    async fn observe(&self, sources: &Sources, observation: &mut Observation) -> Result<(), Error> {
        let topic = self.family.topic();
        let generation = sources.rows.generation(self.family).await?;
        let checkpoint = sources.store.checkpoint(generation, self.partition).await?;
        if let Some(checkpoint) = &checkpoint {
            sources.rows.live().observe(generation, self.partition, checkpoint.next);
        }
        let now_ms = sources.clock.now_ms();
        let idle_ms = i64::try_from(sources.config.idle_ms).unwrap_or(i64::MAX);
        let before = (observation.end, observation.seen_at_ms);
        let poll_end = observation.target.is_none() || now_ms - observation.seen_at_ms >= idle_ms;
        if poll_end {
            let extent = sources.log.extent(topic, self.partition).await?;
            observation.next = Some(checkpoint.map_or(extent.start, |checkpoint| checkpoint.next));
            observation.target.get_or_insert(extent.end);
            observation.end = extent.end;
            observation.seen_at_ms = now_ms;
        } else if let Some(checkpoint) = checkpoint {
            observation.next = Some(checkpoint.next);
        }
        let next = observation.next.unwrap_or(0);
        if next >= observation.end {
            observation.oldest = None;
        } else if before.1 > 0 && poll_end && next >= before.0 {
            observation.oldest = Some((next, before.1));
        } else if observation.oldest.is_none_or(|(offset, _)| offset < next)
            && now_ms - observation.probed_at_ms >= PROBE_MS
        {
            observation.probed_at_ms = now_ms;
            let oldest = self.record_from(sources.log.as_ref(), next).await?;
            observation.oldest = oldest.or(observation.oldest);
        }
        Ok(())
    }

    /// Offset and time of the first record at or above `next`; none if only holes follow.
    async fn record_from(&self, log: &dyn Log, next: i64) -> Result<Option<(i64, i64)>, foretell_ports::Error> {
        let page = log.page(self.family.topic(), self.partition, next).await?;
        Ok(page.records.first().map(|record| (record.position.offset, record.timestamp_ms)))
    }

    fn report(&self, observation: &Observation, now_ms: i64) {
        let labels = [
            (foretell_telemetry::FAMILY, self.family.name().to_owned()),
            (foretell_telemetry::PARTITION, self.partition.to_string()),
        ];
        let open = observation.next.map_or(0, |next| (observation.end - next).max(0));
        metrics::gauge!(foretell_telemetry::LAG_RECORDS, &labels).set(open as f64);
        metrics::gauge!(foretell_telemetry::LAG_SECONDS, &labels).set(observation.lag_ms(now_ms) as f64 / 1_000.0);
    }
}
