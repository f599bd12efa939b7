//! Changes the partition count of a family: by copying its topic into one of the next epoch, never in place.
//!
//! ```text
//!   move ─► copy, each partition in its order ─────► copied ─► fold from the first record ─► verify ─► moved ─► drop
//!    │        │ rejected: not copied, become            │                                                │
//!   pointer   └ dead letters                           pointer                                         pointer
//! ```
//!
//! No other process folds, reads or appends during the move: from the first step to the last, every process that reads
//! the pointer stops with an error that names the command. So the move can stop anywhere. The next run copies again, or
//! continues after the copy, according to the pointer.
//!
//! Appointments and reminders move together, because a client's reminders are in the partition of the same number. The
//! pointer of appointments leads: it is the first to start the move and the last to end it.

mod copy;
mod merge;
mod query;

pub use query::{RepartitionQuery, RepartitionStage};

use crate::jobs::JobContext;
use crate::pipeline::generation;
use crate::pipeline::{DeadLetterMode, Shared, family};
use crate::rows::LiveRows;
use crate::verify::{self, Verifier, VerifyFinding};
use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::{self, Fold, FoldVisitor};
use foretell_events::judge::Gate;
use foretell_ports::Error;
use foretell_ports::log::{Exchange, Log, Remains};
use foretell_ports::store::{Checkpoint, Store};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "repartition a topic";
/// Time between two reads of the new rows' checkpoints.
const POLL_MS: u64 = 100;
/// The last epoch of a topic: positions of later ones would not fit into write timestamps.
const EPOCH_MAX: u8 = 100;

/// The steps of a repartitioning. The tag is part of the output of `foretell migrate --repartition --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum RepartitionStep {
    /// A topic is being copied.
    Copying {
        /// Its full name.
        topic: String,
        /// The full name of the copy.
        into: String,
        /// Partitions of the copy.
        partitions: u32,
        /// Offsets to read, holes included.
        offsets: u64,
    },
    /// A topic has been copied completely.
    Copied {
        /// The full name of the copy.
        topic: String,
        /// Records in it.
        records: u64,
        /// Records that were not copied, because they cannot be folded.
        rejected: u64,
        /// Rejected records that were not folded before, and are new dead letters.
        letters: u64,
    },
    /// A generation is being folded from the copy.
    Folding {
        /// Its family.
        family: Family,
        /// Its number.
        generation: u32,
    },
    /// The generation is being compared with the log.
    Verifying {
        /// A finding of the comparison.
        verify: VerifyFinding,
    },
    /// The generation serves, and the copy is the family's topic.
    Moved {
        /// The family.
        family: Family,
        /// The generation.
        generation: u32,
        /// The full name of its topic.
        topic: String,
        /// Partitions of the topic.
        partitions: u32,
        /// Rows that were verified.
        rows: u64,
    },
    /// A family is complete.
    Done {
        /// The family.
        family: Family,
        /// The epoch of its topic. The topics of earlier epochs are unchanged.
        epoch: u8,
        /// Partitions of the topic.
        partitions: u32,
    },
    /// The move was cancelled.
    GivenUp {
        /// The family that leads it.
        family: Family,
    },
}

/// Moves a family, over ports that no other process uses.
pub struct Repartitioner {
    /// Log and store, and the rules to fold and verify them.
    verifier: Verifier,
    query: RepartitionQuery,
    context: JobContext<RepartitionStep>,
}

impl Repartitioner {
    /// A mover that reports to the context of a job.
    pub fn new(verifier: Verifier, query: RepartitionQuery, context: JobContext<RepartitionStep>) -> Self {
        Self { verifier, query, context }
    }

    fn log(&self) -> &dyn Log {
        self.verifier.log.as_ref()
    }

    fn store(&self) -> &dyn Store {
        self.verifier.store.as_ref()
    }

    fn fingerprint(&self) -> String {
        view::fingerprint(&self.verifier.limits)
    }

    async fn pointer(&self, family: Family) -> Result<Pointer, Error> {
        family::ensure_pointer(self.store(), self.log(), family, self.fingerprint()).await
    }

    /// Changes a pointer by one step.
    async fn step(&self, family: Family, step: impl Fn(&Pointer) -> Pointer) -> Result<Pointer, Error> {
        let pointer = self.pointer(family).await?;
        let next = step(&pointer);
        if next == pointer || self.store().swap_pointer(family, Some(&pointer), &next).await? {
            return Ok(next);
        }
        Err(Error::retry(OPERATION, "another process has changed the pointer: is the command running twice?"))
    }

    /// The next stage. Reject or Fatal if the move is not possible.
    pub async fn stage(&self) -> Result<RepartitionStage, Error> {
        let lead = self.pointer(self.query.lead).await?;
        let topic = self.query.lead.topic();
        let topic = query::CurrentTopic { epoch: self.log().epoch(topic), partitions: self.log().partitions(topic) };
        let stage = query::stage(&lead, topic, self.query)?;
        if stage != RepartitionStage::Fold {
            for family in self.query.families() {
                self.check_source(family).await?;
            }
        }
        Ok(stage)
    }

    /// Checks that the topic can be copied: it is complete, and the rows were folded from it.
    async fn check_source(&self, family: Family) -> Result<(), Error> {
        let pointer = self.pointer(family).await?;
        if pointer.building.is_some() {
            let name = family.name();
            let detail =
                format!("{name} is being rebuilt: let `foretell rebuild {name}` complete, or cancel it with --cancel");
            return Err(Error::reject(OPERATION, detail));
        }
        if pointer.epoch >= EPOCH_MAX {
            return Err(Error::reject(
                OPERATION,
                format!("{} was moved {EPOCH_MAX} times, which is the limit", family.name()),
            ));
        }
        let topic = family.topic();
        for partition in 0..self.log().partitions(topic) {
            verify::check_beginning(self.log(), topic, partition).await?;
        }
        for partition in 0..pointer.partitions.min(self.log().partitions(topic)) {
            let checkpoint = self.checkpoint(pointer.serving(family), partition).await?;
            generation::check(self.log(), topic, partition, &checkpoint).await?;
        }
        Ok(())
    }

    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Checkpoint, Error> {
        let stored = self.store().checkpoint(generation, partition).await?;
        Ok(stored.unwrap_or(Checkpoint { next: 0, last: None }))
    }

    /// The topics to exchange at a stage.
    pub async fn exchange(&self, stage: RepartitionStage) -> Result<Exchange, Error> {
        let (mut topics, mut groups) = (Vec::new(), Vec::new());
        for family in self.query.families() {
            topics.push(family.topic());
            groups.push(generation::group(self.pointer(family).await?.serving(family)));
        }
        let remains = if stage == RepartitionStage::Begin { Remains::Refuse } else { Remains::Wipe };
        Ok(Exchange { topics, partitions: self.query.partitions, groups, remains })
    }

    /// Records in the pointers that the move has started: from here on no process serves.
    pub async fn begin(&self) -> Result<(), Error> {
        for family in self.query.families() {
            self.step(family, |pointer| pointer.move_to(self.query.partitions)).await?;
        }
        Ok(())
    }

    /// Cancels a move whose copy is not complete: the topics stay unchanged.
    pub async fn cancel(&self) -> Result<(), Error> {
        for family in self.query.families().rev() {
            self.step(family, Pointer::stay).await?;
        }
        self.context.item(RepartitionStep::GivenUp { family: self.query.lead }).await
    }

    /// Records in the pointer that all topics are copied.
    pub async fn copied(&self) -> Result<(), Error> {
        self.begin_fold(self.query.lead).await.map(drop)
    }

    /// Records in the pointer of a family that its copy is complete, and that a new generation is folded from it.
    async fn begin_fold(&self, family: Family) -> Result<Pointer, Error> {
        let gated_from_ms = family::gate_time(self.log(), family).await?;
        self.step(family, |pointer| pointer.copied(self.fingerprint()).gated(gated_from_ms)).await
    }

    /// Folds the copies, verifies the rows, and lets them serve. The log is open at the epoch of the copies.
    pub fn fold(&self) -> BoxFuture<'_, Result<(), Error>> {
        // Boxed, so that a caller does not compile the folds again.
        Box::pin(self.fold_copies())
    }

    async fn fold_copies(&self) -> Result<(), Error> {
        let mut targets = Vec::new();
        for family in self.query.families() {
            targets.extend(self.target(family).await?.map(|target| (family, target)));
        }
        let mut rows = Vec::new();
        for (_, target) in &targets {
            rows.push(self.build(*target).await?);
        }
        // The leader last: until then the move can be resumed.
        for ((family, target), rows) in targets.into_iter().zip(rows).rev() {
            let pointer = self.step(family, Pointer::moved).await?;
            let topic = foretell_ports::log::present_name(self.log(), &self.verifier.topic_prefix, family.topic());
            let (generation, partitions) = (target.number, pointer.partitions);
            self.context.item(RepartitionStep::Moved { family, generation, topic, partitions, rows }).await?;
        }
        for family in self.query.families() {
            let Pointer { epoch, partitions, .. } = self.sweep(family).await?;
            self.context.item(RepartitionStep::Done { family, epoch, partitions }).await?;
        }
        Ok(())
    }

    /// The generation to fold from a copy; a new one if there is none, or one of other rules. None
    /// if it already serves.
    async fn target(&self, family: Family) -> Result<Option<Generation>, Error> {
        let ours = self.fingerprint();
        let pointer = self.pointer(family).await?;
        let pointer = match &pointer.moving {
            Some(moving) if moving.into.as_ref().is_none_or(|into| into.fingerprint != ours) => {
                self.begin_fold(family).await?
            }
            _ => pointer,
        };
        Ok(pointer.target(family))
    }

    /// Folds a generation to the end of its topic and compares it with the log; returns its number of rows.
    async fn build(&self, target: Generation) -> Result<u64, Error> {
        self.context.item(RepartitionStep::Folding { family: target.family, generation: target.number }).await?;
        target.family.with_fold(self.verifier.limits.clone(), Fill(self, target)).await?;
        let findings = self.context.map(|verify| RepartitionStep::Verifying { verify });
        let summary = self.verifier.generation(target, &findings).await?;
        if summary.differences == 0 {
            return Ok(summary.rows);
        }
        // The next attempt starts with new rows.
        self.begin_fold(target.family).await?;
        let detail = format!(
            "{} of {} rows of generation {} of {} differ from the fold of the log, so it does not serve: run it again, \
             and see docs/operations/upgrade.md if it happens again",
            summary.differences,
            summary.rows,
            target.number,
            target.family.name()
        );
        Err(Error::fatal(OPERATION, detail))
    }

    async fn fill<F: Fold>(&self, fold: F, target: Generation) -> Result<(), Error> {
        let topic = F::FAMILY.topic();
        let from_ms = self.pointer(F::FAMILY).await?.gated_from_ms_of(target);
        let shared = Shared {
            fold,
            generation: target,
            letters: DeadLetterMode::All,
            gate: Gate { from_ms, is_new: false },
            partitions: self.log().partitions(topic),
            topic_name: foretell_ports::log::present_name(self.log(), &self.verifier.topic_prefix, topic),
            log: Arc::clone(&self.verifier.log),
            store: Arc::clone(&self.verifier.store),
            shares: Default::default(),
            misplaced: Default::default(),
            memory: Default::default(),
            live: LiveRows::none(),
            config: self.verifier.config.clone(),
        };
        let stop = CancellationToken::new();
        let mut fold = Box::pin(generation::run(Arc::new(shared), Vec::new(), stop.clone()));
        tokio::select! {
            ended = &mut fold => return ended.and(Err(Error::fatal(OPERATION, "the fold ended too early"))),
            level = self.wait_until_folded(target) => level?,
        }
        stop.cancel();
        fold.await
    }

    /// Waits until all records of the topic are folded.
    async fn wait_until_folded(&self, target: Generation) -> Result<(), Error> {
        let topic = target.family.topic();
        let ends: Vec<i64> = self.extents(topic).await?.iter().map(|extent| extent.end).collect();
        let total = ends.iter().map(|end| end.unsigned_abs()).sum();
        self.context.begin("offsets folded", total).await?;
        loop {
            let mut offsets = 0;
            for (partition, end) in (0..).zip(&ends) {
                offsets += self.checkpoint(target, partition).await?.next.min(*end).unsigned_abs();
            }
            self.context.reach(offsets).await?;
            if offsets == total {
                return Ok(());
            }
            sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Drops the previous rows, which have no readers; returns the new pointer.
    async fn sweep(&self, family: Family) -> Result<Pointer, Error> {
        let pointer = self.pointer(family).await?;
        for generation in pointer.droppable(family) {
            self.store().drop_generation(generation).await?;
        }
        self.step(family, Pointer::dropped).await
    }
}

/// Folds a generation to the end of its topic, with the fold of its family.
struct Fill<'a>(&'a Repartitioner, Generation);

impl<'a> FoldVisitor for Fill<'a> {
    type Output = BoxFuture<'a, Result<(), Error>>;

    fn visit<F: Fold>(self, fold: F) -> Self::Output {
        Box::pin(self.0.fill(fold, self.1))
    }
}
