//! Actions of operators during a run: redrive dead letters, rebuild views, cancel a rebuild, and crash during either.

use crate::conditions::Journal;
use crate::equation;
use crate::ports::Ports;
use crate::random::Random;
use crate::tally::Kind;
use crate::world;
use foretell_domain::address::Family;
use foretell_domain::dead::filter::Filter;
use foretell_domain::dead::query::{DeadLetterAction, DeadLetterQuery, RATE_MAX, Redrive, Run};
use foretell_domain::view::{Limits, fingerprint};
use foretell_engine::dead_letters::DeadLetters;
use foretell_engine::jobs::{self, JobEvent, JobEvents};
pub use foretell_engine::rebuild::RebuildAction;
use foretell_engine::rebuild::{RebuildQuery, RebuildStep, Rebuilder};
use foretell_engine::verify::{ScratchStore, Verifier, VerifyFinding};
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use foretell_ports::store::memory::Store as MemoryStore;
use std::sync::Arc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver};

/// Operations in progress, by the messages they send.
#[derive(Default)]
pub struct Operators {
    redrives: Vec<JobEvents<DeadLetters>>,
    rebuilds: Vec<JobEvents<Rebuilder>>,
}

impl Operators {
    /// Reads the messages so far, and removes finished operations. Returns what should not have been reported: a
    /// rebuilt row that is not the fold, while others continue to fold.
    pub fn listen(&mut self) -> Option<String> {
        let mut differs = None;
        self.redrives.retain_mut(|message| continues(message, |_| {}));
        self.rebuilds.retain_mut(|message| {
            continues(message, |message| {
                if let JobEvent::Item(RebuildStep::Verifying { verify: VerifyFinding::Differs(row) }) = message {
                    differs = Some(format!("a rebuild found {row:?}"));
                }
            })
        });
        differs
    }

    pub fn begin_redrive(&mut self, ports: &Ports, clock: Arc<dyn Clock>, random: &Random) {
        ports.faults.conditions.journal.inject(Kind::Redrive, "the world", "letters");
        self.redrives.push(redrive(ports, clock, random));
    }

    pub fn begin_rebuild(&mut self, ports: &Ports, family: Family, limits: Limits, order: RebuildAction) {
        ports.faults.conditions.journal.note(&format!("rebuild of {}: {order:?}", family.name()));
        ports.faults.conditions.journal.inject(Kind::Rebuild, "the world", "pointer");
        self.rebuilds.push(rebuild(ports.as_who("rebuild").both(), family, limits, order));
    }

    /// Ends all redrives in progress.
    pub fn cut_redrives(&mut self, journal: &Journal) {
        for _ in self.redrives.drain(..) {
            journal.note("a redrive is cut off");
            journal.inject(Kind::RedriveCut, "the world", "letters");
        }
    }

    /// Ends all rebuilds in progress.
    pub fn cut_rebuilds(&mut self, journal: &Journal) {
        for _ in self.rebuilds.drain(..) {
            journal.note("a rebuild is cut off");
            journal.inject(Kind::RebuildCut, "the world", "pointer");
        }
    }
}

/// Reads available messages; returns whether more may come.
fn continues<T>(message: &mut Receiver<T>, mut take: impl FnMut(T)) -> bool {
    loop {
        match message.try_recv() {
            Ok(message) => take(message),
            Err(error) => return error == TryRecvError::Empty,
        }
    }
}

/// Redrives all letters that can be repaired.
pub fn redrive(ports: &Ports, clock: Arc<dyn Clock>, random: &Random) -> JobEvents<DeadLetters> {
    let patch = serde_json::json!([{"op": "test", "path": "/specversion", "value": "1.0"}]);
    let redrive = Redrive {
        run: Run::Real,
        patch: random.chance(50).then(|| serde_json::from_value(patch).unwrap()),
        attempts_max: 3,
        rate: RATE_MAX,
        reason: None,
    };
    let query =
        DeadLetterQuery { filter: Filter::default(), limit: usize::MAX, action: DeadLetterAction::Redrive(redrive) };
    let letters =
        DeadLetters { log: Arc::new(ports.as_who("redrive")), clock, topic_prefix: equation::PREFIX.to_owned() };
    jobs::start(letters, query)
}

/// Rebuilds a family, or continues or cancels a rebuild.
pub fn rebuild(
    (log, store): (Arc<dyn Log>, Arc<dyn Store>),
    family: Family,
    limits: Limits,
    order: RebuildAction,
) -> JobEvents<Rebuilder> {
    let (config, fingerprint) = (world::config(), fingerprint(&limits));
    let generation_grace_ms = config.generation_grace_ms;
    let verifier = Verifier {
        log: log.clone(),
        store: store.clone(),
        limits,
        config,
        topic_prefix: equation::PREFIX.to_owned(),
        scratches: Arc::new(|| Ok(ScratchStore { store: Arc::new(MemoryStore::new()), place: None })),
    };
    let rebuilder = Rebuilder { log, store, verifier, fingerprint, generation_grace_ms };
    jobs::start(rebuilder, RebuildQuery { family, order })
}

/// The last message.
pub async fn last<T>(mut message: mpsc::Receiver<T>) -> Option<T> {
    let mut last = None;
    while let Some(message) = message.recv().await {
        last = Some(message);
    }
    last
}
