//! Logs and stores in memory, for tests and benchmarks: `memory:NAME`.
//!
//! A name is one log and one store until the process ends, so a test can end an instance as a crash would, and open
//! another one over what is left.

use foretell_ports::clock::Clock;
use foretell_ports::log::{LogAdmin, memory as log};
use foretell_ports::store::{Store, memory as store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

static LOGS: Mutex<BTreeMap<String, Arc<log::Log>>> = Mutex::new(BTreeMap::new());
static STORES: Mutex<BTreeMap<String, Arc<store::Store>>> = Mutex::new(BTreeMap::new());

/// The log of a `memory:` URL; a new one has this many partitions in each topic. None for another URL.
pub(super) fn log(url: &str, partitions: u32, clock: &Arc<dyn Clock>) -> Option<Arc<dyn LogAdmin>> {
    let name = url.strip_prefix("memory:")?;
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || Arc::new(log::Log::new(|_| partitions, clock.clone()));
    Some(logs.entry(name.to_owned()).or_insert_with(new).clone())
}

/// The store of a `memory:` URL; none for another URL.
pub(super) fn store(url: &str) -> Option<Arc<dyn Store>> {
    let name = url.strip_prefix("memory:")?;
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    Some(stores.entry(name.to_owned()).or_insert_with(|| Arc::new(store::Store::new())).clone())
}
