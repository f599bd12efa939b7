//! Gives a family another partition count: by copying its topic into one of the next epoch, never in place.
//!
//! ```text
//!   move ─► copy, each partition in its order ─────► copied ─► fold from the first record ─► verify ─► moved ─► drop
//!    │        │ rejected: stay where they are, as       │                                                │
//!   pointer   └ dead letters                           pointer                                         pointer
//! ```
//!
//! Nobody else folds, reads or appends meanwhile: from the first step to the last one every process that looks at the
//! pointer refuses to go on, and names the command. So this may end anywhere, and whoever runs it again begins the
//! copy anew, or goes on behind it, as the pointer says.
//!
//! Appointments and reminders are one move, as a client's reminders stand in the partition of the same number. The
//! pointer of appointments leads: it is the first to move and the last to have moved.

mod asked;
mod copy;
mod merge;

pub use asked::{Asked, PARTITIONS_MAX, Stage};

use crate::pipeline::keeper;
use crate::pipeline::{Letters, Shared, family};
use crate::verify::{self, Verifier};
use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::{self, Fold, FoldVisitor};
use foretell_events::judge::Gate;
use foretell_ports::Error;
use foretell_ports::log::{Exchange, Log, Remains};
use foretell_ports::store::{Checkpoint, Store};
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "re-partition a topic";
/// Between two looks at how far the new rows are.
const LOOK_MS: u64 = 100;
/// The last epoch of a topic: positions of later ones would not fit into write timestamps.
const EPOCH_MAX: u8 = 100;

/// What is told while a topic is moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// A topic is copied.
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
    /// So many more offsets are copied.
    Passed {
        /// Holes included.
        offsets: u64,
    },
    /// A topic is copied to its end.
    Copied {
        /// The full name of the copy.
        topic: String,
        /// Records in it.
        records: u64,
        /// Records that were left where they are, because they cannot be folded.
        rejected: u64,
        /// Of these, records that nobody had met before, and that are dead letters now.
        letters: u64,
    },
    /// A generation is folded from the copy.
    Folding {
        /// Of this family.
        family: Family,
        /// Its number.
        generation: u32,
    },
    /// How far it is folded.
    Folded {
        /// Offsets below its checkpoints, holes included.
        offsets: u64,
        /// Of so many in the topic.
        of: u64,
    },
    /// It is held against the log.
    Verifying {
        /// How that goes.
        verify: verify::Told,
    },
    /// It serves, and its topic is the family's.
    Moved {
        /// The family.
        family: Family,
        /// What serves.
        generation: u32,
        /// The full name of its topic.
        topic: String,
        /// Partitions of the topic.
        partitions: u32,
        /// Rows that were compared before.
        rows: u64,
    },
    /// Nothing is left to be done for a family.
    Done {
        /// The family.
        family: Family,
        /// The epoch of its topic. The topics of all epochs before are left as they were.
        epoch: u8,
        /// Partitions of the topic.
        partitions: u32,
    },
    /// The move was given up.
    GivenUp {
        /// The family that leads it.
        family: Family,
    },
}

/// Where it is told; fails when nobody listens any more, which ends the work.
#[derive(Clone)]
struct Ear(mpsc::Sender<Told>);

impl Ear {
    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.0.send(told).await.map_err(|_| Error::retry(OPERATION, "nobody listens any more"))
    }
}

/// Moves a family over ports that nobody else has.
pub struct Mover {
    /// Log and store, and how they are folded and verified.
    verifier: Verifier,
    asked: Asked,
    ear: Ear,
}

impl Mover {
    /// A mover that tells its progress.
    pub fn new(verifier: Verifier, asked: Asked, told: mpsc::Sender<Told>) -> Self {
        Self { verifier, asked, ear: Ear(told) }
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
        family::take_up(self.store(), self.log(), family, self.fingerprint()).await
    }

    /// Takes a step of a pointer.
    async fn step(&self, family: Family, step: impl Fn(&Pointer) -> Pointer) -> Result<Pointer, Error> {
        let pointer = self.pointer(family).await?;
        let next = step(&pointer);
        if next == pointer || self.store().swap_pointer(family, Some(&pointer), &next).await? {
            return Ok(next);
        }
        Err(Error::retry(OPERATION, "somebody else has changed the pointer: is this run twice at once?"))
    }

    /// What comes next. Reject or Fatal where it cannot be what was asked for.
    pub async fn stage(&self) -> Result<Stage, Error> {
        let lead = self.pointer(self.asked.lead).await?;
        let topic = self.asked.lead.topic();
        let there = asked::There { epoch: self.log().epoch(topic), partitions: self.log().partitions(topic) };
        let stage = asked::stage(&lead, there, self.asked)?;
        if stage != Stage::Fold {
            for family in self.asked.families() {
                self.check_source(family).await?;
            }
        }
        Ok(stage)
    }

    /// Whether the topic can be copied: all of it is there, and it is the one that the rows were folded from.
    async fn check_source(&self, family: Family) -> Result<(), Error> {
        let pointer = self.pointer(family).await?;
        if pointer.building.is_some() {
            let name = family.name();
            let detail = format!(
                "{name} is being rebuilt: let `foretell rebuild {name}` come to its end, or give it up with --cancel"
            );
            return Err(Error::reject(OPERATION, detail));
        }
        if pointer.epoch >= EPOCH_MAX {
            return Err(Error::reject(
                OPERATION,
                format!("{} has had {EPOCH_MAX} moves, and that is all", family.name()),
            ));
        }
        let topic = family.topic();
        for partition in 0..self.log().partitions(topic) {
            verify::check_beginning(self.log(), topic, partition).await?;
        }
        for partition in 0..pointer.partitions.min(self.log().partitions(topic)) {
            let checkpoint = self.checkpoint(pointer.serving(family), partition).await?;
            keeper::check(self.log(), topic, partition, &checkpoint).await?;
        }
        Ok(())
    }

    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Checkpoint, Error> {
        let stored = self.store().checkpoint(generation, partition).await?;
        Ok(stored.unwrap_or(Checkpoint { next: 0, last: None }))
    }

    /// The topics to exchange, at a stage.
    pub async fn exchange(&self, stage: Stage) -> Result<Exchange, Error> {
        let (mut topics, mut groups) = (Vec::new(), Vec::new());
        for family in self.asked.families() {
            topics.push(family.topic());
            groups.push(keeper::group(self.pointer(family).await?.serving(family)));
        }
        let remains = if stage == Stage::Begin { Remains::Refuse } else { Remains::Wipe };
        Ok(Exchange { topics, partitions: self.asked.partitions, groups, remains })
    }

    /// Says in the pointers that the move has begun: from here on nobody serves.
    pub async fn begin(&self) -> Result<(), Error> {
        for family in self.asked.families() {
            self.step(family, |pointer| pointer.move_to(self.asked.partitions)).await?;
        }
        Ok(())
    }

    /// Gives up what is not copied yet: the topics stay as they are.
    pub async fn give_up(&self) -> Result<(), Error> {
        for family in self.asked.families().rev() {
            self.step(family, Pointer::stay).await?;
        }
        self.ear.tell(Told::GivenUp { family: self.asked.lead }).await
    }

    /// Says in the pointer that everything is copied.
    pub async fn copied(&self) -> Result<(), Error> {
        self.begin_fold(self.asked.lead).await.map(drop)
    }

    /// Says in the pointer of a family that its copy is whole, and that a new generation is folded from it.
    async fn begin_fold(&self, family: Family) -> Result<Pointer, Error> {
        let gated_from_ms = family::gate_time(self.log(), family).await?;
        self.step(family, |pointer| pointer.copied(self.fingerprint()).gated(gated_from_ms)).await
    }

    /// Folds the copies, verifies the rows, and lets them serve. The log is open at the epoch of the copies.
    pub async fn fold(&self) -> Result<(), Error> {
        let mut targets = Vec::new();
        for family in self.asked.families() {
            targets.extend(self.target(family).await?.map(|target| (family, target)));
        }
        let mut rows = Vec::new();
        for (_, target) in &targets {
            rows.push(self.build(*target).await?);
        }
        // The leader last: until then the move can be taken up again.
        for ((family, target), rows) in targets.into_iter().zip(rows).rev() {
            let pointer = self.step(family, Pointer::moved).await?;
            let topic = foretell_ports::log::present_name(self.log(), &self.verifier.topic_prefix, family.topic());
            let (generation, partitions) = (target.number, pointer.partitions);
            self.ear.tell(Told::Moved { family, generation, topic, partitions, rows }).await?;
        }
        for family in self.asked.families() {
            let Pointer { epoch, partitions, .. } = self.sweep(family).await?;
            self.ear.tell(Told::Done { family, epoch, partitions }).await?;
        }
        Ok(())
    }

    /// The generation that is folded from a copy; a new one where none was begun, or by other rules than ours. None
    /// where it serves already.
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

    /// Folds a generation to the end of its topic and holds it against the log; answers how many rows it has.
    async fn build(&self, target: Generation) -> Result<u64, Error> {
        self.ear.tell(Told::Folding { family: target.family, generation: target.number }).await?;
        target.family.with_fold(self.verifier.limits.clone(), Fill(self, target)).await?;
        let (tell, mut told) = mpsc::channel(64);
        let listen = async {
            while let Some(told) = told.recv().await {
                self.ear.tell(Told::Verifying { verify: told }).await?;
            }
            Ok(())
        };
        let (summary, ()) = tokio::try_join!(self.verifier.generation(target, tell), listen)?;
        if summary.differences == 0 {
            return Ok(summary.rows);
        }
        // The next attempt begins with other rows.
        self.begin_fold(target.family).await?;
        let detail = format!(
            "{} of {} rows of generation {} of {} are not the fold of the log, so it does not serve: run it again, \
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
            letters: Letters::All,
            gate: Gate { from_ms, is_new: false },
            partitions: self.log().partitions(topic),
            topic_name: foretell_ports::log::present_name(self.log(), &self.verifier.topic_prefix, topic),
            log: Arc::clone(&self.verifier.log),
            store: Arc::clone(&self.verifier.store),
            shares: Default::default(),
            misplaced: Default::default(),
            config: self.verifier.config.clone(),
        };
        let stop = CancellationToken::new();
        let mut keeping = Box::pin(keeper::keep(Arc::new(shared), Vec::new(), stop.clone()));
        tokio::select! {
            ended = &mut keeping => return ended.and(Err(Error::fatal(OPERATION, "nobody folds any more"))),
            level = self.level(target) => level?,
        }
        stop.cancel();
        keeping.await
    }

    /// Waits until everything in the topic is folded.
    async fn level(&self, target: Generation) -> Result<(), Error> {
        let topic = target.family.topic();
        let ends: Vec<i64> = self.extents(topic).await?.iter().map(|extent| extent.end).collect();
        let of = ends.iter().map(|end| end.unsigned_abs()).sum();
        loop {
            let mut offsets = 0;
            for (partition, end) in (0..).zip(&ends) {
                offsets += self.checkpoint(target, partition).await?.next.min(*end).unsigned_abs();
            }
            self.ear.tell(Told::Folded { offsets, of }).await?;
            if offsets == of {
                return Ok(());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Drops the rows of before: nobody reads them, or could. Answers what is left.
    async fn sweep(&self, family: Family) -> Result<Pointer, Error> {
        let pointer = self.pointer(family).await?;
        for generation in pointer.droppable(family) {
            self.store().drop_generation(generation).await?;
        }
        self.step(family, Pointer::dropped).await
    }
}

/// Folds a generation to the end of its topic, with the fold of its family.
struct Fill<'a>(&'a Mover, Generation);

impl<'a> FoldVisitor for Fill<'a> {
    type Output = BoxFuture<'a, Result<(), Error>>;

    fn visit<F: Fold>(self, fold: F) -> Self::Output {
        Box::pin(self.0.fill(fold, self.1))
    }
}
