//! Opens the backends of the settings: only this module, and the copy of an embedded log, name backends.
//!
//! Kafka and Cassandra are features of the build, and for tests and benchmarks logs and stores in memory are. Without a
//! feature, a module with the same functions replaces its own, and opens nothing.

#[cfg_attr(not(feature = "cassandra"), path = "ports/without_cassandra.rs")]
mod cassandra;
#[cfg_attr(not(feature = "kafka"), path = "ports/without_kafka.rs")]
mod kafka;
#[cfg_attr(not(feature = "memory"), path = "ports/without_memory.rs")]
mod memory;

use super::backup::{self, BackUp, BackupJob};
use super::reach;
use super::training::TrainingJob;
use crate::config::Config;
use foretell_engine::jobs::Jobs;
use foretell_engine::verify::ScratchStore;
use foretell_enrich::Enricher;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::LogAdmin;
use foretell_ports::store::Store;
use foretell_service::instance::Instance;
use foretell_service::ports::Ports;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The backends of a configuration.
pub struct Backends {
    /// Log and store, with what else an instance runs over; no data file is read yet.
    pub ports: Ports,
    /// The same log, for what only the process and its commands do with it.
    pub admin: Arc<dyn LogAdmin>,
    /// The data directory of an embedded log or store, locked.
    pub directory: Option<PathBuf>,
    /// Backs up an embedded log; none if the log is not embedded.
    pub back_up: Option<Arc<BackUp>>,
}

impl Backends {
    /// An instance with these settings over the backends.
    pub fn instance(&self, config: &Config) -> Instance {
        Instance::new(config.instance(), self.ports.clone())
    }

    /// The jobs of an instance, and those that need a backend or the tools of the lab.
    pub fn jobs(&self, instance: &Instance, config: &Config) -> Jobs {
        let Ports { log, store, clock, .. } = self.ports.clone();
        let (no_show, limits) = (config.score.no_show.clone(), config.fold.clone());
        let jobs = instance.jobs().with(BackupJob { back_up: self.back_up.clone() });
        jobs.with(TrainingJob { log, store, clock, config: no_show, limits })
    }
}

/// The directory of a `disk:` URL.
pub fn disk_directory(url: &str) -> Option<&Path> {
    url.strip_prefix("disk:").map(Path::new)
}

/// The directory of an instance, with its socket: that of the log, else that of the store; none if both are clusters.
pub fn data_directory(config: &Config) -> Option<&Path> {
    disk_directory(&config.log).or_else(|| disk_directory(&config.store))
}

/// Opens log and store. Fatal if a URL, a schema, a topic or a directory is not valid; Retry if a cluster does not
/// respond.
pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Backends, Error> {
    reach::check(&config.log).await?;
    reach::check(&config.store).await?;
    let (log_dir, store_dir) = (disk_directory(&config.log), disk_directory(&config.store));
    let partitions = config.topics.embedded_partitions;
    let lock = |dir: Option<&Path>| dir.map(foretell_disk::log::lock).transpose();
    let log_lock = lock(log_dir)?;
    let store_lock = if store_dir == log_dir { log_lock.clone() } else { lock(store_dir)? };
    let mut notices: Vec<_> =
        [&log_lock, &store_lock].into_iter().flatten().filter_map(|held| held.warning()).collect();
    notices.dedup();
    let store: Arc<dyn Store> = match &store_lock {
        Some(directory) => Arc::new(tokio::task::block_in_place(|| foretell_disk::store::Store::open(directory))?),
        None => match memory::store(&config.store) {
            Some(store) => store,
            None => {
                let (store, warnings) = cassandra::open(config).await?;
                notices.extend(warnings);
                store
            }
        },
    };
    let (admin, back_up): (Arc<dyn LogAdmin>, Option<Arc<BackUp>>) = match &log_lock {
        Some(directory) => {
            let sizes = foretell_disk::log::Config {
                retention: config.topics.retention(),
                ..foretell_disk::log::Config::default()
            };
            let clock = clock.clone();
            let open = || foretell_disk::log::Log::open(directory, |_| partitions, sizes, clock);
            let log = tokio::task::block_in_place(open)?;
            let (copied, directory) = (log.clone(), Arc::clone(directory));
            let back_up: Arc<BackUp> =
                Arc::new(move |to, on_progress| backup::back_up(&copied, directory.path(), to, on_progress));
            (Arc::new(log), Some(back_up))
        }
        None => match memory::log(&config.log, partitions, &clock) {
            Some(log) => (log, None),
            None => (kafka::open(config, store.as_ref()).await?, None),
        },
    };
    let directory = data_directory(config).map(Path::to_owned);
    let enricher = Enricher::new(&config.enrich, clock.clone());
    let ports = Ports { enricher, scratches: Arc::new(scratch), notices, ..Ports::new(admin.clone(), store, clock) };
    Ok(Backends { ports, admin, directory, back_up })
}

/// Runs `migrate`: creates missing schemas and topics; returns what was done, and notices for operators.
pub async fn migrate(config: &Config) -> Result<Vec<String>, Error> {
    reach::check(&config.log).await?;
    reach::check(&config.store).await?;
    let mut done = Vec::new();
    let store: Arc<dyn Store> = match disk_directory(&config.store) {
        Some(_) if disk_directory(&config.log).is_some() => return Ok(done),
        Some(directory) => Arc::new(foretell_disk::store::Store::open(&foretell_disk::log::lock(directory)?)?),
        None => {
            done.extend(cassandra::migrate(config).await?);
            cassandra::open(config).await?.0
        }
    };
    if disk_directory(&config.log).is_none() {
        done.extend(kafka::migrate(config, store.as_ref()).await?);
    }
    Ok(done)
}

/// A store in a temporary directory.
fn scratch() -> Result<ScratchStore, Error> {
    let place = tempfile::Builder::new().prefix("foretell-").tempdir();
    let place = place.map_err(|cause| Error::fatal("make a temporary directory", cause))?;
    let store = foretell_disk::store::Store::open(&foretell_disk::log::lock(place.path())?)?;
    Ok(ScratchStore { store: Arc::new(store), place: Some(place) })
}
