//! What an instance runs over: log, store, clock and data files, opened by its composition.

use foretell_engine::pipeline::misplaced::Misplaced;
use foretell_engine::verify::Scratches;
use foretell_enrich::Enricher;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use std::sync::Arc;

/// What an instance runs over.
#[derive(Clone)]
pub struct Ports {
    /// Contains the facts.
    pub log: Arc<dyn Log>,
    /// Contains the rows.
    pub store: Arc<dyn Store>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Data files about addresses.
    pub enricher: Arc<Enricher>,
    /// Creates the stores in which verification folds the log again.
    pub scratches: Arc<Scratches>,
    /// Notices about the backends for operators, as sentences.
    pub notices: Vec<String>,
    /// Records in wrong partitions that the folds over these ports have seen.
    pub misplaced: Arc<Misplaced>,
}

impl Ports {
    /// Ports without data files, notices and scratch stores: verification fails.
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            log,
            store,
            enricher: Enricher::new(&foretell_enrich::Config::default(), clock.clone()),
            clock,
            scratches: Arc::new(|| Err(Error::fatal("verify the views", "there is no scratch store here"))),
            notices: Vec::new(),
            misplaced: Arc::default(),
        }
    }
}
