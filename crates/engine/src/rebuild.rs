//! Rebuilds the rows of a family while the old ones serve, and swaps them when the new ones are verified.
//!
//! ```text
//!   begin ─► fold from the first record ─► catch up ─► verify ─► catch up ─► swap ─► grace ─► drop the old rows
//!     │        by every process that can               │                      │
//!     pointer                                           └ differs: refused     pointer
//! ```
//!
//! All decisions are in the pointer, which changes by compare-and-set. So a rebuild can stop at any step, and the next
//! one continues from the pointer; if several run at the same time, each step is done by one of them. A rebuild folds
//! nothing itself: [`family`](crate::pipeline::family) does, in each process with the same rules that folds the family.

use crate::jobs::{self, Job, JobContext, JobEvent, JobProgress};
use crate::pipeline::family;
use crate::verify::{self, Verifier, VerifyFinding};
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::{Building, Pointer};
use foretell_domain::view;
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use futures::future::{BoxFuture, try_join_all};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "rebuild the views";
/// Time between two reads of the new rows' checkpoints.
const POLL_MS: u64 = 500;

/// The steps of a rebuild. The tag is part of the output of `foretell rebuild --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum RebuildStep {
    /// A generation is being built, from the beginning or after an interruption.
    Begun {
        /// The generation that serves.
        serving: u32,
        /// The generation that is being built.
        building: u32,
    },
    /// The generation has caught up, and is being compared with the log.
    Verifying {
        /// A finding of the comparison.
        verify: VerifyFinding,
    },
    /// The new generation serves.
    Serving {
        /// Its number.
        generation: u32,
        /// Summary of the comparison; none if another process has already swapped the generations.
        summary: Option<verify::VerifySummary>,
    },
    /// Rows that are no longer needed are being dropped, after their last readers.
    Dropping {
        /// The generation that they belong to.
        generation: u32,
    },
}

/// How a rebuild ended. The tag is part of the output of `foretell rebuild --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename = "done")]
pub struct Rebuilt {
    /// The generation that serves.
    pub serving: u32,
}

/// The request for a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildQuery {
    /// The family.
    pub family: Family,
    /// Whether to rebuild or to cancel.
    pub order: RebuildAction,
}

/// What to do with a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildAction {
    /// Start a rebuild, or continue one.
    Build,
    /// Drop the generation that is being built.
    Cancel,
}

/// Rebuilds families.
#[derive(Clone)]
pub struct Rebuilder {
    /// The log to fold.
    pub log: Arc<dyn Log>,
    /// The store with the rows.
    pub store: Arc<dyn Store>,
    /// Compares new rows with the log before they serve.
    pub verifier: Verifier,
    /// The fingerprint of the folds of this build and its settings.
    pub fingerprint: String,
    /// How long processes continue to fold a generation after the pointer stopped naming it.
    pub generation_grace_ms: u64,
}

/// A family that is being rebuilt, and the context of its job.
#[derive(Clone, Copy)]
struct RebuildRun<'a> {
    family: Family,
    context: &'a JobContext<RebuildStep>,
}

#[async_trait]
impl Job for Rebuilder {
    const NAME: &'static str = "rebuild";
    const OPERATION: &'static str = OPERATION;
    const WHEN_CUT_OFF: &'static str = "run it again to continue";
    type Query = RebuildQuery;
    type Item = RebuildStep;
    type Report = Rebuilt;

    /// A cancelled job leaves an unfinished rebuild; the next job continues it.
    async fn run(&self, query: RebuildQuery, context: &JobContext<RebuildStep>) -> Result<Rebuilt, Error> {
        let run = RebuildRun { family: query.family, context };
        let serving = match query.order {
            RebuildAction::Build => self.build(run).await?,
            RebuildAction::Cancel => self.cancel(run).await?,
        };
        Ok(Rebuilt { serving })
    }
}

impl Rebuilder {
    async fn build(&self, run: RebuildRun<'_>) -> Result<u32, Error> {
        let RebuildRun { family, context } = run;
        let target = self.begin(run).await?;
        self.catch_up(run, target).await?;
        let summary = self.verify(run, target).await?;
        loop {
            context.check()?;
            let pointer = self.pointer(family).await?;
            if pointer.serving == target {
                break;
            }
            check_named(&pointer, target)?;
            // If the new rows contained fewer records than the old ones, readers would see the view go back in time.
            if self.has_caught_up(family, &pointer).await? && self.swap(family, &pointer, &pointer.swap()).await? {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        context.item(RebuildStep::Serving { generation: target, summary }).await?;
        self.sweep(run).await
    }

    /// The number of the generation to build: the one of the pointer, or a new one.
    async fn begin(&self, run: RebuildRun<'_>) -> Result<u32, Error> {
        let RebuildRun { family, context } = run;
        loop {
            let pointer = self.pointer(family).await?;
            self.check_topic(family, &pointer).await?;
            let number = match &pointer.building {
                Some(building) if building.fingerprint == self.fingerprint => building.number,
                Some(building) => return Err(self.foreign(family, building)),
                None => {
                    let gated_from_ms = family::gate_time(self.log.as_ref(), family).await?;
                    let begun = pointer.begin(self.fingerprint.clone()).gated(gated_from_ms);
                    if !self.swap(family, &pointer, &begun).await? {
                        continue;
                    }
                    begun.latest
                }
            };
            context.item(RebuildStep::Begun { serving: pointer.serving, building: number }).await?;
            return Ok(number);
        }
    }

    fn foreign(&self, family: Family, building: &Building) -> Error {
        let Building { number, fingerprint, .. } = building;
        let (name, ours) = (family.name(), &self.fingerprint);
        let detail = format!(
            "generation {number} of {name} is being built as {fingerprint}, but this version folds as {ours}: let the \
             version that began it finish, or cancel it with `foretell rebuild {name} --cancel`"
        );
        Error::fatal(OPERATION, detail)
    }

    /// Fatal if the log does not contain all records from the first one on.
    async fn check_topic(&self, family: Family, pointer: &Pointer) -> Result<(), Error> {
        family::check(family, pointer, self.log.as_ref())?;
        let topic = family.topic();
        for partition in 0..pointer.partitions {
            verify::check_beginning(self.log.as_ref(), topic, partition).await?;
        }
        Ok(())
    }

    /// Waits until every record that was in the log at the start is folded.
    async fn catch_up(&self, run: RebuildRun<'_>, target: u32) -> Result<(), Error> {
        let RebuildRun { family, context } = run;
        let topic = family.topic();
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions(topic) {
            ends.push(self.log.extent(topic, partition).await?.end);
        }
        context.begin("offsets", ends.iter().map(|end| end.unsigned_abs()).sum()).await?;
        loop {
            let pointer = self.pointer(family).await?;
            if pointer.serving == target {
                return Ok(());
            }
            let building = check_named(&pointer, target)?;
            let generation = Generation { family, number: building.number, epoch: pointer.epoch };
            let mut offsets = 0;
            let mut is_complete = true;
            for (partition, end) in (0..).zip(&ends) {
                let next = self.next(generation, partition).await?;
                offsets += next.min(*end).unsigned_abs();
                is_complete &= next >= *end;
            }
            context.reach(offsets).await?;
            if is_complete {
                return Ok(());
            }
            sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Whether the new rows are folded at least as far as the serving ones.
    async fn has_caught_up(&self, family: Family, pointer: &Pointer) -> Result<bool, Error> {
        let Some(building) = pointer.building(family) else { return Ok(false) };
        for partition in 0..pointer.partitions {
            let served = self.next(pointer.serving(family), partition).await?;
            if self.next(building, partition).await? < served {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn next(&self, generation: Generation, partition: u32) -> Result<i64, Error> {
        Ok(self.store.checkpoint(generation, partition).await?.map_or(0, |checkpoint| checkpoint.next))
    }

    /// Compares the new rows with the log; none if another process has already swapped the generations.
    async fn verify(&self, run: RebuildRun<'_>, target: u32) -> Result<Option<verify::VerifySummary>, Error> {
        let RebuildRun { family, context } = run;
        let pointer = self.pointer(family).await?;
        if pointer.serving == target {
            return Ok(None);
        }
        check_named(&pointer, target)?;
        let generation = Generation { family, number: target, epoch: pointer.epoch };
        let findings = context.map(|verify| RebuildStep::Verifying { verify });
        let summary = self.verifier.generation(generation, &findings).await?;
        if summary.differences == 0 {
            return Ok(Some(summary));
        }
        let detail = format!(
            "{} of {} rows of generation {target} differ from the fold of the log, so it does not serve; see \
             docs/operations/upgrade.md",
            summary.differences, summary.rows
        );
        Err(Error::fatal(OPERATION, detail))
    }

    /// Drops generations that are no longer needed, after their last readers and folds; returns the serving generation.
    async fn sweep(&self, run: RebuildRun<'_>) -> Result<u32, Error> {
        let RebuildRun { family, context } = run;
        let pointer = self.pointer(family).await?;
        let droppable = pointer.droppable(family);
        if droppable.is_empty() {
            return Ok(pointer.serving);
        }
        for generation in &droppable {
            context.item(RebuildStep::Dropping { generation: generation.number }).await?;
        }
        sleep(Duration::from_millis(self.generation_grace_ms.saturating_mul(3) / 2)).await;
        for generation in droppable {
            self.store.drop_generation(generation).await?;
        }
        // If the pointer was changed concurrently, they are dropped again later, which has no effect.
        self.swap(family, &pointer, &pointer.dropped()).await?;
        Ok(pointer.serving)
    }

    async fn cancel(&self, run: RebuildRun<'_>) -> Result<u32, Error> {
        let family = run.family;
        loop {
            let pointer = self.pointer(family).await?;
            if pointer.building.is_none() {
                return Err(Error::reject(OPERATION, format!("nothing is being built for {}", family.name())));
            }
            if self.swap(family, &pointer, &pointer.cancel()).await? {
                return self.sweep(run).await;
            }
        }
    }

    async fn pointer(&self, family: Family) -> Result<Pointer, Error> {
        let pointer = self.store.pointer(family).await?;
        pointer.ok_or_else(|| Error::fatal(OPERATION, "no views have been folded into this store yet"))
    }

    async fn swap(&self, family: Family, expected: &Pointer, new: &Pointer) -> Result<bool, Error> {
        self.store.swap_pointer(family, Some(expected), new).await
    }
}

/// The building generation of a pointer; Fatal if it is not `target`.
fn check_named(pointer: &Pointer, target: u32) -> Result<&Building, Error> {
    let building = pointer.building.as_ref().filter(|building| building.number == target);
    building.ok_or_else(|| Error::fatal(OPERATION, format!("generation {target} was cancelled")))
}

/// Rebuilds every family whose rows were folded by older rules than those of this build; ends then, or at the shutdown.
///
/// Rows of a newer fold are not rebuilt: while a newer build is being rolled out, this one must not replace its rows.
pub fn all_due(
    rebuilder: Rebuilder,
    families: Vec<Family>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that a caller does not compile it again.
    Box::pin(async move {
        let built = families.into_iter().map(|family| if_due(&rebuilder, family));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            built = try_join_all(built) => built.map(drop),
        }
    })
}

async fn if_due(rebuilder: &Rebuilder, family: Family) -> Result<(), Error> {
    let pointer = rebuilder.pointer(family).await?;
    if !is_due(&pointer, &rebuilder.fingerprint) {
        return Ok(());
    }
    let query = RebuildQuery { family, order: RebuildAction::Build };
    let mut events = jobs::start(rebuilder.clone(), query);
    let mut log = ProgressLog::default();
    while let Some(event) = events.recv().await {
        match event {
            JobEvent::Failed { detail } => return Err(Error::fatal(OPERATION, detail)),
            event => log.write(family, &event),
        }
    }
    Ok(())
}

/// Whether to rebuild without a command of an operator.
fn is_due(pointer: &Pointer, ours: &str) -> bool {
    let is_begun = pointer.building.as_ref().is_some_and(|building| building.fingerprint == ours);
    is_begun || (pointer.fingerprint != ours && view::fold_version(&pointer.fingerprint) <= Some(view::FOLD_VERSION))
}

/// Logs the steps of a rebuild, and its progress at most once in 10 seconds.
#[derive(Default)]
struct ProgressLog {
    written: Option<Instant>,
    is_verifying: bool,
}

impl ProgressLog {
    fn write(&mut self, family: Family, event: &JobEvent<RebuildStep, Rebuilt>) {
        let family = family.name();
        match event {
            JobEvent::Item(RebuildStep::Begun { serving, building }) => {
                tracing::info!(family, serving, building, "rebuilding");
            }
            JobEvent::Item(RebuildStep::Verifying { .. }) => self.is_verifying = true,
            JobEvent::Item(RebuildStep::Serving { generation, .. }) => {
                tracing::info!(family, generation, "the new rows serve");
            }
            JobEvent::Item(RebuildStep::Dropping { generation }) => {
                tracing::info!(family, generation, "dropping the previous rows");
            }
            JobEvent::Progress(JobProgress { done, total, .. }) if !self.is_verifying => {
                if self.written.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                    self.written = Some(Instant::now());
                    tracing::info!(family, offsets = done, of = total, "rebuilding");
                }
            }
            JobEvent::Progress(_) | JobEvent::Done(_) | JobEvent::Failed { .. } => {}
        }
    }
}
