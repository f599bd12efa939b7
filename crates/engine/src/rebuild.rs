//! Builds the rows of a family anew, beside those that serve, and lets the new ones serve when they are right.
//!
//! ```text
//!   begin ─► fold from the first record ─► level ─► verify ─► level ─► swap ─► grace ─► drop what served before
//!     │        by every process that can            │                   │
//!     pointer                                        └ differs: refused  pointer
//! ```
//!
//! Everything that is decided stands in the pointer, which changes by compare and set. So this can end at any step,
//! and whoever begins it again goes on where the pointer is; several at once take each step once. It folds nothing
//! itself: [`family`](crate::pipeline::family) does, in each process that keeps views and has the rules.

use crate::pipeline::family;
use crate::verify::{self, Verifier};
use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::{Building, Pointer};
use foretell_domain::view;
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "rebuild the views";
/// Between two looks at how far the new rows are.
const LOOK_MS: u64 = 500;

/// What is told while a family is built anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// A generation is built, from its beginning or from where it was left.
    Begun {
        /// The one that serves.
        serving: u32,
        /// The one that is built.
        building: u32,
    },
    /// How far it is folded.
    Folded {
        /// Offsets below its checkpoints, holes included.
        offsets: u64,
        /// Of so many in the log.
        of: u64,
    },
    /// It is level, and now held against the log.
    Verifying {
        /// How that goes.
        verify: verify::Told,
    },
    /// It serves.
    Serving {
        /// Its number.
        generation: u32,
        /// What was compared before.
        summary: Option<verify::Summary>,
    },
    /// Rows that nobody needs any more are dropped, when readers have let go of them.
    Dropping {
        /// Whose.
        generation: u32,
    },
    /// All of it is done.
    Done {
        /// What serves.
        serving: u32,
    },
    /// It did not come to its end.
    Failed {
        /// Why, in a sentence.
        detail: String,
    },
}

/// What is to be done with a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Build it anew, or go on with it.
    Build,
    /// Give up what is built.
    Cancel,
}

/// Builds families anew.
#[derive(Clone)]
pub struct Rebuilder {
    /// The right side of the equation.
    pub log: Arc<dyn Log>,
    /// The left side.
    pub store: Arc<dyn Store>,
    /// Holds new rows against the log before they serve.
    pub verifier: Verifier,
    /// What this build and its settings fold as.
    pub fingerprint: String,
    /// How long a process that follows the pointer folds a generation on when it is named no longer.
    pub generation_grace_ms: u64,
}

/// Where it is told; fails when nobody listens any more, which ends the work.
struct Ear(mpsc::Sender<Told>);

impl Ear {
    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.0.send(told).await.map_err(|_| Error::retry(OPERATION, "nobody listens any more"))
    }
}

impl Rebuilder {
    /// Does what is ordered. The last thing told is `Done` or `Failed`.
    pub async fn run(&self, family: Family, order: Order, told: mpsc::Sender<Told>) {
        let ear = Ear(told);
        let done = match order {
            Order::Build => self.build(family, &ear).await,
            Order::Cancel => self.cancel(family, &ear).await,
        };
        let told = match done {
            Ok(serving) => Told::Done { serving },
            Err(error) => Told::Failed { detail: error.to_string() },
        };
        // Who does not listen does not miss it.
        let _ = ear.tell(told).await;
    }

    async fn build(&self, family: Family, ear: &Ear) -> Result<u32, Error> {
        let target = self.begin(family, ear).await?;
        self.level(family, target, ear).await?;
        let summary = self.verify(family, target, ear).await?;
        loop {
            let pointer = self.pointer(family).await?;
            if pointer.serving == target {
                break;
            }
            check_named(&pointer, target)?;
            // The new rows served late what the old ones have: nobody shall see a view go back.
            if self.is_level(family, &pointer).await? && self.swap(family, &pointer, &pointer.swap()).await? {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        ear.tell(Told::Serving { generation: target, summary }).await?;
        self.sweep(family, ear).await
    }

    /// The number of the generation that is built: the one of the pointer, or a new one.
    async fn begin(&self, family: Family, ear: &Ear) -> Result<u32, Error> {
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
            ear.tell(Told::Begun { serving: pointer.serving, building: number }).await?;
            return Ok(number);
        }
    }

    fn foreign(&self, family: Family, building: &Building) -> Error {
        let Building { number, fingerprint, .. } = building;
        let (name, ours) = (family.name(), &self.fingerprint);
        let detail = format!(
            "generation {number} of {name} is being built as {fingerprint}, this build folds as {ours}: let the build \
             that began it finish, or give it up with `foretell rebuild {name} --cancel`"
        );
        Error::fatal(OPERATION, detail)
    }

    /// Fatal where the log cannot give all rows again.
    async fn check_topic(&self, family: Family, pointer: &Pointer) -> Result<(), Error> {
        family::check(family, pointer, self.log.as_ref())?;
        let topic = family.topic();
        for partition in 0..pointer.partitions {
            verify::check_beginning(self.log.as_ref(), topic, partition).await?;
        }
        Ok(())
    }

    /// Waits until everything that was in the log at the first look is folded.
    async fn level(&self, family: Family, target: u32, ear: &Ear) -> Result<(), Error> {
        let topic = family.topic();
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions(topic) {
            ends.push(self.log.extent(topic, partition).await?.end);
        }
        let of = ends.iter().map(|end| end.unsigned_abs()).sum();
        loop {
            let pointer = self.pointer(family).await?;
            if pointer.serving == target {
                return Ok(());
            }
            let building = check_named(&pointer, target)?;
            let generation = Generation { family, number: building.number, epoch: pointer.epoch };
            let mut offsets = 0;
            let mut is_level = true;
            for (partition, end) in (0..).zip(&ends) {
                let next = self.next(generation, partition).await?;
                offsets += next.min(*end).unsigned_abs();
                is_level &= next >= *end;
            }
            ear.tell(Told::Folded { offsets, of }).await?;
            if is_level {
                return Ok(());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Whether the new rows hold at least what the serving ones do.
    async fn is_level(&self, family: Family, pointer: &Pointer) -> Result<bool, Error> {
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

    /// Holds the new rows against the log; none where somebody else has let them serve already.
    async fn verify(&self, family: Family, target: u32, ear: &Ear) -> Result<Option<verify::Summary>, Error> {
        let pointer = self.pointer(family).await?;
        if pointer.serving == target {
            return Ok(None);
        }
        check_named(&pointer, target)?;
        let generation = Generation { family, number: target, epoch: pointer.epoch };
        let (tell, mut told) = mpsc::channel(64);
        let listen = async {
            while let Some(told) = told.recv().await {
                ear.tell(Told::Verifying { verify: told }).await?;
            }
            Ok(())
        };
        let (summary, ()) = tokio::try_join!(self.verifier.generation(generation, tell), listen)?;
        if summary.differences == 0 {
            return Ok(Some(summary));
        }
        let detail = format!(
            "{} of {} rows of generation {target} are not the fold of the log, so it does not serve; see \
             docs/operations/upgrade.md",
            summary.differences, summary.rows
        );
        Err(Error::fatal(OPERATION, detail))
    }

    /// Drops what nobody needs any more, when nobody can be reading or folding it; answers what serves.
    async fn sweep(&self, family: Family, ear: &Ear) -> Result<u32, Error> {
        let pointer = self.pointer(family).await?;
        let droppable = pointer.droppable(family);
        if droppable.is_empty() {
            return Ok(pointer.serving);
        }
        for generation in &droppable {
            ear.tell(Told::Dropping { generation: generation.number }).await?;
        }
        sleep(Duration::from_millis(self.generation_grace_ms.saturating_mul(3) / 2)).await;
        for generation in droppable {
            self.store.drop_generation(generation).await?;
        }
        // Lost against another change, they are dropped again some day, which changes nothing.
        self.swap(family, &pointer, &pointer.dropped()).await?;
        Ok(pointer.serving)
    }

    async fn cancel(&self, family: Family, ear: &Ear) -> Result<u32, Error> {
        loop {
            let pointer = self.pointer(family).await?;
            if pointer.building.is_none() {
                return Err(Error::reject(OPERATION, format!("nothing is being built for {}", family.name())));
            }
            if self.swap(family, &pointer, &pointer.cancel()).await? {
                return self.sweep(family, ear).await;
            }
        }
    }

    async fn pointer(&self, family: Family) -> Result<Pointer, Error> {
        let pointer = self.store.pointer(family).await?;
        pointer.ok_or_else(|| Error::fatal(OPERATION, "no views were ever folded into this store"))
    }

    async fn swap(&self, family: Family, expected: &Pointer, new: &Pointer) -> Result<bool, Error> {
        self.store.swap_pointer(family, Some(expected), new).await
    }
}

/// The building generation of a pointer, if it still is this one.
fn check_named(pointer: &Pointer, target: u32) -> Result<&Building, Error> {
    let building = pointer.building.as_ref().filter(|building| building.number == target);
    building.ok_or_else(|| Error::fatal(OPERATION, format!("generation {target} was given up meanwhile")))
}

/// Builds every family anew whose rows were folded by older rules than this build has; ends then, or at the shutdown.
///
/// Rows of a newer fold are left alone: while a new build replaces this one, it shall not be replaced again.
pub async fn all_due(rebuilder: Rebuilder, families: Vec<Family>, shutdown: CancellationToken) -> Result<(), Error> {
    let built = families.into_iter().map(|family| if_due(&rebuilder, family));
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        built = try_join_all(built) => built.map(drop),
    }
}

async fn if_due(rebuilder: &Rebuilder, family: Family) -> Result<(), Error> {
    let pointer = rebuilder.pointer(family).await?;
    if !is_due(&pointer, &rebuilder.fingerprint) {
        return Ok(());
    }
    let mut told = spawn(rebuilder.clone(), family, Order::Build);
    let mut log = Progress::default();
    while let Some(told) = told.recv().await {
        match told {
            Told::Failed { detail } => return Err(Error::fatal(OPERATION, detail)),
            told => log.take(family, &told),
        }
    }
    Ok(())
}

/// Whether rows are to be built anew without being asked.
fn is_due(pointer: &Pointer, ours: &str) -> bool {
    let is_begun = pointer.building.as_ref().is_some_and(|building| building.fingerprint == ours);
    is_begun || (pointer.fingerprint != ours && view::fold_version(&pointer.fingerprint) <= Some(view::FOLD_VERSION))
}

/// Says now and then how far a rebuild is.
#[derive(Default)]
struct Progress {
    said: Option<Instant>,
}

impl Progress {
    fn take(&mut self, family: Family, told: &Told) {
        let family = family.name();
        match told {
            Told::Begun { serving, building } => tracing::info!(family, serving, building, "folding anew"),
            Told::Folded { offsets, of } => {
                if self.said.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                    self.said = Some(Instant::now());
                    tracing::info!(family, offsets, of, "folding anew");
                }
            }
            Told::Serving { generation, .. } => tracing::info!(family, generation, "the new rows serve"),
            Told::Dropping { generation } => tracing::info!(family, generation, "dropping what served before"),
            Told::Verifying { .. } | Told::Done { .. } | Told::Failed { .. } => {}
        }
    }
}

/// Does what is ordered in the background; what is told arrives here, and the work ends when the receiver is dropped.
/// What was begun stays begun.
pub fn spawn(rebuilder: Rebuilder, family: Family, order: Order) -> mpsc::Receiver<Told> {
    let (told, listening) = mpsc::channel(64);
    tokio::spawn(async move { rebuilder.run(family, order, told).await });
    listening
}
