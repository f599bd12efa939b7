//! Runs a family: folds every generation of it that this process can fold, for as long as the pointer names it.
//!
//! ```text
//!   pointer, periodically ─┬─► serving, if its fingerprint is that of this build ──┬─► one keeper each
//!                          ├─► building, if its fingerprint is that of this build ─┘
//!                          └─► neither ─► nothing is folded, and an error is logged
//! ```
//!
//! A generation that the pointer no longer names is folded for a grace period, because readers may still use the
//! previous pointer. Fingerprints alone decide which of two builds folds a generation: during an upgrade the old
//! processes fold the old generation, the new ones fold the new one in parallel, and no row is written by two rules.
//!
//! A generation that can no longer be folded ends the process, unless another one can: when a store has lost part of
//! the serving rows, the rows that are being rebuilt in parallel replace them.

use super::generation;
use super::misplaced::Misplaced;
use super::task::OwnerTasks;
use super::tolerance::Shares;
use super::{Config, DeadLetterMode, Memory, Shared, retry};
use crate::rows::LiveRows;
use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::{self, Fold};
use foretell_events::Topic;
use foretell_events::judge::Gate;
use foretell_ports::Error;
use foretell_ports::log::{Extent, Log};
use foretell_ports::store::Store;
use foretell_telemetry::meter;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "keep a family";
/// What all generations of a family in this process share.
pub struct Views<F> {
    /// How events become rows.
    pub fold: F,
    /// Partition count of the topic.
    pub partitions: u32,
    /// Full name of the source topic.
    pub topic_name: String,
    /// Source of facts, and destination of dead letters.
    pub log: Arc<dyn Log>,
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// Reports which partitioner put records into wrong partitions.
    pub misplaced: Arc<Misplaced>,
    /// Divides the memory among the partitions of the process.
    pub memory: Memory,
    /// The rows that answers of this process have in memory.
    pub live: Arc<LiveRows>,
    /// Bounds.
    pub config: Config,
}

impl<F: Fold> Views<F> {
    /// What the pipelines of one generation share.
    pub fn of(&self, foldable: Foldable) -> Shared<F> {
        let Foldable { generation, letters, gate } = foldable;
        Shared {
            fold: self.fold.clone(),
            generation,
            letters,
            gate,
            partitions: self.partitions,
            topic_name: self.topic_name.clone(),
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            shares: Shares::default(),
            misplaced: Arc::clone(&self.misplaced),
            memory: self.memory.clone(),
            live: Arc::clone(&self.live),
            config: self.config.clone(),
        }
    }

    /// The pointer of the family; creates the first one if there is none.
    ///
    /// Fatal if the rows are not the fold of this topic: see [`check`].
    pub async fn pointer(&self) -> Result<Pointer, Error> {
        let fingerprint = view::fingerprint(self.fold.limits());
        let pointer = ensure_pointer(self.store.as_ref(), self.log.as_ref(), F::FAMILY, fingerprint).await?;
        check(F::FAMILY, &pointer, self.log.as_ref())?;
        Ok(pointer)
    }
}

/// The pointer of a family, whichever topic it belongs to; creates the first one if there is none.
pub(crate) async fn ensure_pointer(
    store: &dyn Store,
    log: &dyn Log,
    family: Family,
    fingerprint: String,
) -> Result<Pointer, Error> {
    if let Some(pointer) = store.pointer(family).await? {
        return Ok(pointer);
    }
    let (partitions, epoch) = (log.partitions(family.topic()), log.epoch(family.topic()));
    let first = Pointer { epoch, ..Pointer::first(partitions, fingerprint) }.gated(gate_time(log, family).await?);
    if store.swap_pointer(family, None, &first).await? {
        return Ok(first);
    }
    store.pointer(family).await?.ok_or_else(|| Error::retry(OPERATION, "the pointer was changed concurrently"))
}

/// The time from which on the gate checks the records of a family, for the serving rows.
pub async fn gated_from_ms(store: &dyn Store, family: Family) -> Result<Option<i64>, Error> {
    Ok(store.pointer(family).await?.and_then(|pointer| pointer.gated_from_ms))
}

/// The time from which on the gate is to check the records of a family: later than everything in the log. None if
/// producers do not write to the topic directly.
///
/// It is a time of the log's own clock, because records keep their time when their topic is copied into another one.
pub(crate) async fn gate_time(log: &dyn Log, family: Family) -> Result<Option<i64>, Error> {
    /// Offsets of a step back when the last ones contain no record.
    const STEP: i64 = 1_000;
    let topic = family.topic();
    if !topic.takes_producers() {
        return Ok(None);
    }
    let mut newest_ms = -1;
    for partition in 0..log.partitions(topic) {
        let Extent { start, end } = log.extent(topic, partition).await?;
        let (mut from, mut last_ms) = (end, None);
        while from > start && last_ms.is_none() {
            let behind = from;
            from = (from - if from == end { 1 } else { STEP }).max(start);
            last_ms = newest_between(log, topic, partition, from..behind).await?;
        }
        newest_ms = newest_ms.max(last_ms.unwrap_or(-1));
    }
    Ok(Some(newest_ms + 1))
}

/// The latest time of the records at these offsets, over any number of pages; none if all of them are holes.
async fn newest_between(
    log: &dyn Log,
    topic: Topic,
    partition: u32,
    offsets: Range<i64>,
) -> Result<Option<i64>, Error> {
    let (mut from, mut newest_ms) = (offsets.start, None);
    while from < offsets.end {
        let page = log.page(topic, partition, from).await?;
        newest_ms = newest_ms.max(page.records.iter().map(|record| record.timestamp_ms).max());
        if page.next <= from {
            break;
        }
        from = page.next;
    }
    Ok(newest_ms)
}

/// Fatal if the rows of a pointer are not the fold of this topic, or a repartitioning is in progress.
pub fn check(family: Family, pointer: &Pointer, log: &dyn Log) -> Result<(), Error> {
    let (name, partitions, epoch) = (family.name(), log.partitions(family.topic()), log.epoch(family.topic()));
    let command = |partitions| format!("`foretell migrate --repartition {}={partitions}`", family.lead().name());
    let detail = if let Some(moving) = &pointer.moving {
        let command = command(moving.partitions);
        format!(
            "{name} is being repartitioned to {} partitions: run {command} again until it completes",
            moving.partitions
        )
    } else if pointer.epoch != epoch {
        format!(
            "the views of {name} are those of epoch {} of its topic, and the log has epoch {epoch}: log and store are \
             from different times. Restore the one that is older, or start with an empty store",
            pointer.epoch
        )
    } else if pointer.partitions != partitions {
        format!(
            "the topic of {name} has {partitions} partitions and its views were folded from {}: keys have moved. \
             Partition counts are never changed in place: stop producers, and run {}",
            pointer.partitions,
            command(partitions)
        )
    } else {
        return Ok(());
    };
    Err(Error::fatal(OPERATION, detail))
}

/// Reads the pointers of these families periodically, and fails when one moves to another topic: a process that does
/// not fold it would read, and append to, the old one. Ends at the shutdown.
pub async fn watch(
    families: Vec<Family>,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut ticks = interval(Duration::from_millis(config.pointer_look_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        for &family in &families {
            let pointer = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                pointer = retry(&config, || store.pointer(family)) => pointer?,
            };
            pointer.map_or(Ok(()), |pointer| check(family, &pointer, log.as_ref()))?;
        }
    }
}

/// A generation that can be folded, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foldable {
    /// The generation.
    pub generation: Generation,
    /// Which dead letters are written.
    pub letters: DeadLetterMode,
    /// Which records are checked by the gate as well as by the codec.
    pub gate: Gate,
}

/// The generations of a pointer that a build with this fingerprint folds.
fn foldable(family: Family, pointer: &Pointer, fingerprint: &str) -> Vec<Foldable> {
    let serving = pointer.serving(family);
    let of = |generation, letters| {
        let from_ms = pointer.gated_from_ms_of(generation);
        Foldable { generation, letters, gate: Gate { from_ms, is_new: from_ms != pointer.gated_from_ms } }
    };
    let is_ours = pointer.building.as_ref().is_some_and(|building| building.fingerprint == fingerprint);
    let served = (pointer.fingerprint == fingerprint).then(|| of(serving, DeadLetterMode::All));
    let building = pointer.building(family).filter(|_| is_ours);
    served.into_iter().chain(building.map(|built| of(built, DeadLetterMode::Beyond(serving)))).collect()
}

/// A generation that is being folded.
struct RunningGeneration {
    stop: CancellationToken,
    /// When the pointer was first seen without it.
    unnamed: Option<Instant>,
    /// Why it is no longer folded, although the pointer names it.
    failed: Option<Error>,
}

/// Folds a family until `shutdown`; every error that it returns is Fatal.
pub async fn run<F: Fold>(views: Views<F>, tasks: OwnerTasks, shutdown: CancellationToken) -> Result<(), Error> {
    let mut runner = FamilyRunner { views: &views, running: BTreeMap::new(), is_due: false };
    let mut generations = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(views.config.pointer_look_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            Some(ended) = generations.join_next() => match ended {
                Ok((number, Ok(()))) => drop(runner.running.remove(&number)),
                Ok((number, Err(error))) => runner.fail(number, error),
                Err(panic) => break Err(Error::fatal(OPERATION, panic)),
            },
            pointer = next_pointer(&views, &mut ticks) => match pointer {
                Ok(pointer) => for (shared, stop) in runner.follow(&pointer, &shutdown) {
                    let (number, tasks) = (shared.generation.number, tasks(shared.generation));
                    generations.spawn(async move { (number, generation::run(Arc::new(shared), tasks, stop).await) });
                },
                Err(error) => break Err(error),
            },
        }
        if let Some(error) = runner.end() {
            break Err(error);
        }
    };
    runner.running.values().for_each(|running| running.stop.cancel());
    while generations.join_next().await.is_some() {}
    ended
}

async fn next_pointer<F: Fold>(views: &Views<F>, ticks: &mut Interval) -> Result<Pointer, Error> {
    ticks.tick().await;
    retry(&views.config, || views.pointer()).await
}

struct FamilyRunner<'a, F> {
    views: &'a Views<F>,
    running: BTreeMap<u32, RunningGeneration>,
    /// Whether nothing could be folded when the pointer was last read.
    is_due: bool,
}

impl<F: Fold> FamilyRunner<'_, F> {
    /// Stops generations that are no longer named; returns those to start folding.
    fn follow(&mut self, pointer: &Pointer, shutdown: &CancellationToken) -> Vec<(Shared<F>, CancellationToken)> {
        let named = foldable(F::FAMILY, pointer, &view::fingerprint(self.views.fold.limits()));
        self.log_state(pointer, named.is_empty());
        let grace = Duration::from_millis(self.views.config.generation_grace_ms);
        for (number, running) in &mut self.running {
            if named.iter().any(|named| named.generation.number == *number) {
                running.unnamed = None;
            } else if running.unnamed.get_or_insert_with(Instant::now).elapsed() >= grace {
                running.stop.cancel();
            }
        }
        self.running.retain(|_, running| running.failed.is_none() || running.unnamed.is_none());
        let mut begun = Vec::new();
        for foldable in named {
            if let Entry::Vacant(vacant) = self.running.entry(foldable.generation.number) {
                let stop = vacant
                    .insert(RunningGeneration { stop: shutdown.child_token(), unnamed: None, failed: None })
                    .stop
                    .clone();
                begun.push((self.views.of(foldable), stop));
            }
        }
        begun
    }

    /// Handles a generation that cannot be folded any more; it is not started again while this process runs.
    fn fail(&mut self, number: u32, error: Error) {
        let family = F::FAMILY.name();
        tracing::error!(family, generation = number, %error, "a generation can no longer be folded");
        if let Some(running) = self.running.get_mut(&number) {
            running.failed = Some(error);
        }
    }

    /// The error with which the process should end, once every generation that it should fold has failed.
    fn end(&mut self) -> Option<Error> {
        if self.running.values().any(|running| running.failed.is_none()) {
            return None;
        }
        self.running.values_mut().find_map(|running| running.failed.take())
    }

    /// Logs once when nothing can be folded, and once when folding is possible again.
    fn log_state(&mut self, pointer: &Pointer, is_due: bool) {
        let family = F::FAMILY.name();
        meter::rebuild_due(family, is_due);
        match (self.is_due, is_due) {
            (false, true) => tracing::error!(
                family,
                stored = pointer.fingerprint,
                ours = view::fingerprint(self.views.fold.limits()),
                "the views were folded with other rules or settings than those of this process, so it neither folds \
                 nor reads them: run `foretell rebuild {family}`, or serve with --auto-rebuild"
            ),
            (true, false) => tracing::info!(family, "the views can be folded again"),
            _ => {}
        }
        self.is_due = is_due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use foretell_events::Position;
    use foretell_events::record::Record;
    use foretell_ports::log::Paged;

    #[tokio::test]
    async fn the_gate_begins_behind_all_records_however_many_holes_and_pages_lie_at_the_end() {
        let record = |offset: i64| Record {
            position: Position { topic: Topic::Logins, partition: 0, offset },
            timestamp_ms: 5 * offset,
            key: None,
            value: Bytes::new(),
            headers: Vec::new(),
        };
        for (records, holes) in [(1_i64, 0), (1, 1), (700, 1), (2_500, 1), (2_500, 400), (2_500, 1_700), (2_500, 4_000)]
        {
            for page_records in [1, 7, 5_000] {
                let log = Paged { records: (0..records).map(record).collect(), page_records, holes };
                let gate = gate_time(&log, Family::Logins).await.unwrap();
                assert_eq!(
                    gate,
                    Some(5 * (records - 1) + 1),
                    "{records} records, {holes} holes, {page_records} a page"
                );
            }
        }
        let empty = |holes| Paged { records: Vec::new(), page_records: 1, holes };
        assert_eq!(gate_time(&empty(0), Family::Logins).await.unwrap(), Some(0));
        assert_eq!(gate_time(&empty(1_500), Family::Logins).await.unwrap(), Some(0));
    }

    #[test]
    fn a_build_folds_what_has_its_fingerprint_and_nothing_else() {
        let family = Family::Logins;
        let folds = |pointer: &Pointer, ours: &str| {
            let foldable = foldable(family, pointer, ours).into_iter();
            foldable.map(|foldable| (foldable.generation.number, foldable.letters)).collect::<Vec<_>>()
        };
        let one = Pointer::first(8, "a".to_owned());
        let serving = one.serving(family);
        assert_eq!(folds(&one, "a"), [(1, DeadLetterMode::All)]);
        assert_eq!(folds(&one, "b"), []);
        let upgrade = one.begin("b".to_owned());
        assert_eq!(folds(&upgrade, "a"), [(1, DeadLetterMode::All)]);
        assert_eq!(folds(&upgrade, "b"), [(2, DeadLetterMode::Beyond(serving))]);
        assert_eq!(folds(&upgrade, "c"), []);
        assert_eq!(folds(&upgrade.swap(), "a"), []);
        assert_eq!(folds(&upgrade.swap(), "b"), [(2, DeadLetterMode::All)]);
        assert_eq!(
            folds(&one.begin("a".to_owned()), "a"),
            [(1, DeadLetterMode::All), (2, DeadLetterMode::Beyond(serving))]
        );
    }
}
