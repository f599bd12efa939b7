//! The jobs that operators can run over the open ports of an instance.

use super::backup::BackupJob;
use super::ports::{Ports, scratch};
use super::training::TrainingJob;
use crate::config::Config;
use foretell_domain::view;
use foretell_engine::dead_letters::DeadLetters;
use foretell_engine::jobs::Jobs;
use foretell_engine::rebuild::Rebuilder;
use foretell_engine::rows::Pointers;
use foretell_engine::verify::Verifier;
use foretell_ports::clock::Clock;
use foretell_service::decisions::reading::DecisionReport;
use foretell_service::report::reading::NoShowReport;
use std::sync::Arc;

/// All jobs, by name.
pub(super) fn jobs(config: &Config, ports: &Ports, pointers: &Arc<Pointers>, clock: &Arc<dyn Clock>) -> Jobs {
    let (log, store, clock) = (ports.log.clone(), ports.store.clone(), clock.clone());
    let topic_prefix = config.topics.prefix.clone();
    let (no_show, limits, retention) = (config.score.no_show.clone(), config.fold.clone(), config.topics.retention());
    Jobs::default()
        .with(verifier(config, ports))
        .with(rebuilder(config, ports))
        .with(BackupJob { back_up: ports.back_up.clone() })
        .with(DeadLetters { log: log.clone(), clock: clock.clone(), topic_prefix })
        .with(DecisionReport { log: log.clone(), store: store.clone(), clock: clock.clone(), retention })
        .with(NoShowReport {
            log: log.clone(),
            store: store.clone(),
            pointers: pointers.clone(),
            clock: clock.clone(),
            retention,
        })
        .with(TrainingJob { log, store, clock, config: no_show, limits })
}

/// Rebuilds the families of these ports.
pub(super) fn rebuilder(config: &Config, ports: &Ports) -> Rebuilder {
    Rebuilder {
        log: ports.log.clone(),
        store: ports.store.clone(),
        verifier: verifier(config, ports),
        fingerprint: view::fingerprint(&config.fold),
        generation_grace_ms: config.pipeline.generation_grace_ms,
    }
}

/// Compares the rows of these ports with their log.
pub(super) fn verifier(config: &Config, ports: &Ports) -> Verifier {
    Verifier {
        log: ports.log.clone(),
        store: ports.store.clone(),
        limits: config.fold.clone(),
        config: config.pipeline.clone(),
        topic_prefix: config.topics.prefix.clone(),
        scratches: Arc::new(scratch),
    }
}
