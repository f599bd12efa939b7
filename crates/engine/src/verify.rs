//! Verifies `rows = fold(log)`: folds the log again from its beginning, and compares the stored rows with the result.
//!
//! ```text
//!   log ─► pipelines that append nothing ─► scratch rows, up to the checkpoints of this moment ─┐
//!   store ─► rows, bucket by bucket ────────────────────────────────────────────────────────────┴─► equal position,
//!            a row above its checkpoint ─► kept; the scratch is folded exactly as far ─────────────► equal state?
//! ```
//!
//! Views change while they are read. A checkpoint guarantees that every row contains all records of its partition below
//! it. So a row with a lower position than the scratch row lacks records. A row with a position above the checkpoint
//! has moved; it is compared as it was read, after the scratch rows are folded up to exactly its position.
//!
//! The scratch rows are folded by the same pipelines as the views, from the same log into an empty store: they have
//! nothing to resume from and no competitor, so they are the fold. They are kept on disk, because rows may
//! not fit into memory.
//!
//! The pending list of an owner row is not part of the state, and is not compared.

mod compare;
mod refold;

use crate::jobs::{Job, JobContext, JobRefusal};
use crate::pipeline::{DeadLetterMode, Shared, family, generation};
use crate::rows::{LiveRows, Partial};
use async_trait::async_trait;
use compare::Comparison;
use foretell_domain::address::{Family, Generation, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::{self, Fold, FoldVisitor, Limits};
use foretell_events::Topic;
use foretell_events::judge::Gate;
use foretell_ports::Error;
use foretell_ports::log::{self, Log};
use foretell_ports::store::{Checkpoint, Store};
use futures::future::BoxFuture;
use refold::Refold;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const OPERATION: &str = "verify the views";

/// An empty store for rows that are folded again; deleted when it is dropped.
pub struct ScratchStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its directory; none if it is in memory.
    pub place: Option<tempfile::TempDir>,
}

/// Creates scratch stores.
pub type Scratches = dyn Fn() -> Result<ScratchStore, Error> + Send + Sync;

/// Verifies rows, by the rules of this process.
#[derive(Clone)]
pub struct Verifier {
    /// The log to fold.
    pub log: Arc<dyn Log>,
    /// The store with the rows.
    pub store: Arc<dyn Store>,
    /// What the folds depend on.
    pub limits: Limits,
    /// Bounds of the pipelines that fold again.
    pub config: crate::pipeline::Config,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
    /// Creates the stores that rows are folded into.
    pub scratches: Arc<Scratches>,
}

/// What to verify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    /// The name of a view; none: all views.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

/// Findings during verification. The tag is part of the output of `foretell rebuild --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum VerifyFinding {
    /// A family is being folded again.
    Begun {
        /// The family.
        family: Family,
        /// Offsets below the checkpoints, holes included.
        offsets: u64,
    },
    /// A row is not the fold of the log.
    Differs(Box<Difference>),
}

/// A row that is not the fold of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The view.
    pub view: View,
    /// The bucket.
    pub bucket: i64,
    /// Begins with `tenant:`.
    pub key: String,
    /// The partition whose partial it is.
    pub source: u32,
    /// The stored row; none if the store has no such row.
    pub stored: Option<Side>,
    /// The folded row; none if the fold has no such row.
    pub folded: Option<Side>,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Side {
    /// A row.
    Row(Partial),
    /// Bytes that are not a row of this view.
    Unreadable {
        /// The reason.
        unreadable: String,
    },
}

/// Totals of a verification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySummary {
    /// Offsets that were folded again, holes included.
    pub offsets: u64,
    /// Partials that were compared.
    pub rows: u64,
    /// Partials that moved during the verification, and were compared at their new position.
    pub moved: u64,
    /// Partials that differ.
    pub differences: u64,
}

/// The views of a generation to compare.
#[derive(Clone, Copy)]
struct Target<'a> {
    generation: Generation,
    views: &'a [View],
}

/// The context of a verification, and its totals.
struct VerifyRun<'a> {
    context: &'a JobContext<VerifyFinding>,
    summary: VerifySummary,
}

#[async_trait]
impl Job for Verifier {
    const NAME: &'static str = "verify";
    const OPERATION: &'static str = OPERATION;
    type Query = VerifyQuery;
    type Item = VerifyFinding;
    type Report = VerifySummary;

    fn check(&self, query: &VerifyQuery) -> Result<(), JobRefusal> {
        query.views().map(drop)
    }

    async fn run(&self, query: VerifyQuery, context: &JobContext<VerifyFinding>) -> Result<VerifySummary, Error> {
        let views = query.views().map_err(|refusal| Error::reject(OPERATION, refusal))?;
        let mut run = VerifyRun { context, summary: VerifySummary::default() };
        for family in Family::ALL {
            let views: Vec<_> = family.views().filter(|view| views.contains(view)).collect();
            if views.is_empty() {
                continue;
            }
            let pointer = self.store.pointer(family).await?;
            let pointer =
                pointer.ok_or_else(|| Error::retry(OPERATION, "no views have been folded into this store yet"))?;
            self.check_rules(family, &pointer)?;
            self.family(Target { generation: pointer.serving(family), views: &views }, &mut run).await?;
        }
        Ok(run.summary)
    }
}

impl VerifyQuery {
    fn views(&self) -> Result<Vec<View>, JobRefusal> {
        let Some(name) = &self.view else { return Ok(View::ALL.to_vec()) };
        let view = View::parse(name).ok_or_else(|| {
            let names: Vec<_> = View::ALL.iter().map(|view| view.name()).collect();
            JobRefusal::NotFound(format!("views are {}", names.join(", ")))
        })?;
        Ok(vec![view])
    }
}

impl Verifier {
    /// Verifies all views of a generation that was folded by the rules of this process, whether it serves or not.
    pub async fn generation(
        &self,
        generation: Generation,
        context: &JobContext<VerifyFinding>,
    ) -> Result<VerifySummary, Error> {
        let mut run = VerifyRun { context, summary: VerifySummary::default() };
        let views: Vec<_> = generation.family.views().collect();
        self.family(Target { generation, views: &views }, &mut run).await?;
        Ok(run.summary)
    }

    async fn family(&self, target: Target<'_>, run: &mut VerifyRun<'_>) -> Result<(), Error> {
        /// Compares a generation with the fold of the log.
        struct Compare<'a, 'c> {
            verifier: &'a Verifier,
            target: Target<'a>,
            run: &'a mut VerifyRun<'c>,
        }

        impl<'a> FoldVisitor for Compare<'a, '_> {
            type Output = BoxFuture<'a, Result<(), Error>>;

            fn visit<F: Fold>(self, fold: F) -> Self::Output {
                let Self { verifier, target, run } = self;
                Box::pin(verifier.compare(fold, target, run))
            }
        }

        let family = target.generation.family;
        family.with_fold(self.limits.clone(), Compare { verifier: self, target, run }).await
    }

    async fn compare<F: Fold>(&self, fold: F, target: Target<'_>, run: &mut VerifyRun<'_>) -> Result<(), Error> {
        let Target { generation, views } = target;
        let partitions = self.log.partitions(F::FAMILY.topic());
        let ends = self.ends(generation, partitions).await?;
        let scratch = Arc::new((self.scratches)()?);
        let pointer = self.store.pointer(F::FAMILY).await?;
        let from_ms = pointer.and_then(|pointer| pointer.gated_from_ms_of(generation));
        let shared = Shared {
            fold,
            generation,
            letters: DeadLetterMode::None,
            gate: Gate { from_ms, is_new: false },
            partitions,
            topic_name: log::present_name(self.log.as_ref(), &self.topic_prefix, F::FAMILY.topic()),
            log: Arc::clone(&self.log),
            store: Arc::clone(&scratch.store),
            shares: Default::default(),
            misplaced: Default::default(),
            memory: Default::default(),
            live: LiveRows::none(),
            config: self.config.clone(),
        };
        let again = Refold::new(Arc::new(shared), scratch, run.context.clone());
        let offsets = ends.iter().map(|end| end.unsigned_abs()).sum();
        run.context.item(VerifyFinding::Begun { family: F::FAMILY, offsets }).await?;
        run.context.begin(format!("offsets of {}", F::FAMILY.name()), offsets).await?;
        again.fold_all(&ends).await?;
        run.summary.offsets += offsets;
        let comparison =
            Comparison { stored: self.store.as_ref(), again: &again, generation, ends: &ends, context: run.context };
        comparison.compare(views, &mut run.summary).await
    }

    /// Fatal if the serving rows were folded by other rules than those of this build.
    fn check_rules(&self, family: Family, pointer: &Pointer) -> Result<(), Error> {
        let ours = view::fingerprint(&self.limits);
        if pointer.fingerprint != ours {
            let detail = format!(
                "the views of {} were folded as {}, but this version folds as {ours}: verify them with the version and \
                 the settings that fold them",
                family.name(),
                pointer.fingerprint
            );
            return Err(Error::fatal(OPERATION, detail));
        }
        family::check(family, pointer, self.log.as_ref())
    }

    /// The checkpoints of all partitions, each validated against the log, which must begin with its first record.
    async fn ends(&self, generation: Generation, partitions: u32) -> Result<Vec<i64>, Error> {
        let topic = generation.family.topic();
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let checkpoint = self.store.checkpoint(generation, partition).await?;
            let checkpoint = checkpoint.unwrap_or(Checkpoint { next: 0, last: None });
            generation::check(self.log.as_ref(), topic, partition, &checkpoint).await?;
            check_beginning(self.log.as_ref(), topic, partition).await?;
            ends.push(checkpoint.next);
        }
        Ok(ends)
    }
}

/// Fatal if a partition does not begin with its first record: deleted records cannot be folded again.
pub async fn check_beginning(log: &dyn Log, topic: Topic, partition: u32) -> Result<(), Error> {
    let start = log.extent(topic, partition).await?.start;
    if start == 0 {
        return Ok(());
    }
    let name = topic.name();
    let detail = format!("{name}/{partition} begins at {start}: earlier records cannot be folded again");
    Err(Error::fatal(OPERATION, detail))
}
