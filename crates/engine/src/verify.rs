//! Checks the equation: folds the log again from its beginning, and holds the rows that are there against it.
//!
//! ```text
//!   log ─► pipelines that append nothing ─► scratch rows, up to the checkpoints of this moment ─┐
//!   store ─► rows, bucket by bucket ────────────────────────────────────────────────────────────┴─► equal position,
//!            a row above its checkpoint ─► kept; the scratch is folded exactly as far ─────────────► equal state?
//! ```
//!
//! Views move while they are looked at. A checkpoint is a promise: every row holds all that its partition has below
//! it. So a row that stands lower than the scratch row lacks something; one that stands above the checkpoint has
//! moved on, and is compared as it was read, after the scratch has been folded up to its very position.
//!
//! The scratch rows are folded by the pipelines that fold the views, from an undisturbed log into an empty store:
//! there is nothing to resume from and nobody to compete with, so what they write is the fold. They are kept on disk,
//! because rows may outgrow the memory.
//!
//! What is not part of the state is not compared: the pending list of an owner row.

mod again;
mod compare;

use crate::pipeline::{Letters, Shared, family, keeper};
use crate::rows::Partial;
use again::Again;
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
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

const OPERATION: &str = "verify the views";

/// An empty store for rows that are folded again; removed when it is dropped.
pub struct Scratch {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where it is; none in memory.
    pub place: Option<tempfile::TempDir>,
}

/// Makes scratch stores.
pub type Scratches = dyn Fn() -> Result<Scratch, Error> + Send + Sync;

/// What is checked, and by which rules.
#[derive(Clone)]
pub struct Verifier {
    /// The right side of the equation.
    pub log: Arc<dyn Log>,
    /// The left side.
    pub store: Arc<dyn Store>,
    /// What the folds depend on.
    pub limits: Limits,
    /// Bounds of the pipelines that fold again.
    pub config: crate::pipeline::Config,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
    /// Where rows are folded again.
    pub scratches: Arc<Scratches>,
}

/// What is told while rows are verified, in this order for each family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// So many offsets of a family are folded again.
    Begun {
        /// The family.
        family: Family,
        /// Offsets below the checkpoints, holes included.
        offsets: u64,
    },
    /// So many more of them are.
    Folded {
        /// Offsets, holes included.
        offsets: u64,
    },
    /// So many more rows of a view were compared.
    Compared {
        /// The view.
        view: View,
        /// Partials; a row that was written by two partitions counts twice.
        rows: u64,
    },
    /// A row is not what the log makes of it.
    Differs(Box<Difference>),
    /// All of it was looked at.
    Done(Summary),
    /// It could not be looked at to the end.
    Failed {
        /// Why, in a sentence.
        detail: String,
    },
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
    /// What the store has; none where it has no such row.
    pub stored: Option<Side>,
    /// What the log gives; none where it gives no such row.
    pub folded: Option<Side>,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Side {
    /// A row.
    Row(Partial),
    /// Bytes that are no row of this view.
    Unreadable {
        /// Why not.
        unreadable: String,
    },
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Offsets that were folded again, holes included.
    pub offsets: u64,
    /// Partials that were compared.
    pub rows: u64,
    /// Of these, partials that moved meanwhile and were compared at the position that they had moved to.
    pub moved: u64,
    /// Partials that differ.
    pub differences: u64,
}

/// Where it is told; fails when nobody listens any more, which ends the work.
#[derive(Clone)]
struct Ear(mpsc::Sender<Told>);

impl Ear {
    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.0.send(told).await.map_err(|_| Error::retry(OPERATION, "nobody listens any more"))
    }
}

impl Verifier {
    /// Verifies `views`; without any, all of them. The last thing told is `Done` or `Failed`.
    pub async fn verify(&self, views: &BTreeSet<View>, told: mpsc::Sender<Told>) {
        let ear = Ear(told);
        let told = match self.families(views, &ear).await {
            Ok(summary) => Told::Done(summary),
            Err(error) => Told::Failed { detail: error.to_string() },
        };
        // Who does not listen does not miss it.
        let _ = ear.tell(told).await;
    }

    async fn families(&self, views: &BTreeSet<View>, ear: &Ear) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let asked = |view: &View| views.is_empty() || views.contains(view);
        for family in Family::ALL {
            let views: Vec<_> = family.views().filter(asked).collect();
            if views.is_empty() {
                continue;
            }
            let pointer = self.store.pointer(family).await?;
            let pointer =
                pointer.ok_or_else(|| Error::retry(OPERATION, "no views were ever folded into this store"))?;
            self.check_rules(family, &pointer)?;
            self.family(pointer.serving(family), &views, ear, &mut summary).await?;
        }
        Ok(summary)
    }

    /// Verifies all views of a generation that was folded by the rules of this process, whether it serves or not.
    pub async fn generation(&self, generation: Generation, told: mpsc::Sender<Told>) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let views: Vec<_> = generation.family.views().collect();
        self.family(generation, &views, &Ear(told), &mut summary).await?;
        Ok(summary)
    }

    async fn family(
        &self,
        generation: Generation,
        views: &[View],
        ear: &Ear,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        /// Compares a generation with what the fold of its family makes of the log.
        struct Compare<'a>(&'a Verifier, Generation, &'a [View], &'a Ear, &'a mut Summary);

        impl<'a> FoldVisitor for Compare<'a> {
            type Output = BoxFuture<'a, Result<(), Error>>;

            fn visit<F: Fold>(self, fold: F) -> Self::Output {
                let Self(verifier, generation, views, ear, summary) = self;
                Box::pin(verifier.compare(fold, generation, views, (ear, summary)))
            }
        }

        generation.family.with_fold(self.limits.clone(), Compare(self, generation, views, ear, summary)).await
    }

    async fn compare<F: Fold>(
        &self,
        fold: F,
        generation: Generation,
        views: &[View],
        (ear, summary): (&Ear, &mut Summary),
    ) -> Result<(), Error> {
        let partitions = self.log.partitions(F::FAMILY.topic());
        let ends = self.ends(generation, partitions).await?;
        let scratch = Arc::new((self.scratches)()?);
        let pointer = self.store.pointer(F::FAMILY).await?;
        let from_ms = pointer.and_then(|pointer| pointer.gated_from_ms_of(generation));
        let shared = Shared {
            fold,
            generation,
            letters: Letters::None,
            gate: Gate { from_ms, is_new: false },
            partitions,
            topic_name: log::present_name(self.log.as_ref(), &self.topic_prefix, F::FAMILY.topic()),
            log: Arc::clone(&self.log),
            store: Arc::clone(&scratch.store),
            shares: Default::default(),
            misplaced: Default::default(),
            config: self.config.clone(),
        };
        let again = Again::new(Arc::new(shared), scratch, ear.clone());
        let offsets = ends.iter().map(|end| end.unsigned_abs()).sum();
        ear.tell(Told::Begun { family: F::FAMILY, offsets }).await?;
        again.fold_all(&ends).await?;
        summary.offsets += offsets;
        let comparison = Comparison { stored: self.store.as_ref(), again: &again, generation, ends: &ends, ear };
        comparison.compare(views, summary).await
    }

    /// Fatal where this build would not fold what serves as it was folded.
    fn check_rules(&self, family: Family, pointer: &Pointer) -> Result<(), Error> {
        let ours = view::fingerprint(&self.limits);
        if pointer.fingerprint != ours {
            let detail = format!(
                "the views of {} were folded as {}, this build folds as {ours}: verify them with the build and the \
                 settings that fold them",
                family.name(),
                pointer.fingerprint
            );
            return Err(Error::fatal(OPERATION, detail));
        }
        family::check(family, pointer, self.log.as_ref())
    }

    /// The checkpoints of all partitions, each checked against the log, whose beginning must be there.
    async fn ends(&self, generation: Generation, partitions: u32) -> Result<Vec<i64>, Error> {
        let topic = generation.family.topic();
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let checkpoint = self.store.checkpoint(generation, partition).await?;
            let checkpoint = checkpoint.unwrap_or(Checkpoint { next: 0, last: None });
            keeper::check(self.log.as_ref(), topic, partition, &checkpoint).await?;
            check_beginning(self.log.as_ref(), topic, partition).await?;
            ends.push(checkpoint.next);
        }
        Ok(ends)
    }
}

/// Fatal where a partition does not begin with its first record: what came before cannot be folded again.
pub async fn check_beginning(log: &dyn Log, topic: Topic, partition: u32) -> Result<(), Error> {
    let start = log.extent(topic, partition).await?.start;
    if start == 0 {
        return Ok(());
    }
    let name = topic.name();
    let detail = format!("{name}/{partition} begins at {start}: what came before cannot be folded again");
    Err(Error::fatal(OPERATION, detail))
}

/// Verifies in the background; what is told arrives here, and the work ends when the receiver is dropped.
pub fn spawn(verifier: Verifier, views: BTreeSet<View>) -> mpsc::Receiver<Told> {
    let (told, listening) = mpsc::channel(64);
    tokio::spawn(async move { verifier.verify(&views, told).await });
    listening
}
