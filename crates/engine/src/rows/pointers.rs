//! Which generation serves: the pointers of all families, no older than a bound.

use foretell_domain::address::{Family, Generation};
use foretell_domain::pointer::Pointer;
use foretell_ports::Error;
use foretell_ports::store::Store;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// The serving pointers of all families, each read again when it is older than its bound. Only pointers to rows that
/// were folded with this process's fingerprint: it could misread others.
pub struct Pointers {
    store: Arc<dyn Store>,
    fingerprint: String,
    stale_max: Duration,
    known: RwLock<BTreeMap<Family, (Arc<Pointer>, Instant)>>,
}

impl Pointers {
    /// Pointers of `store`, at most `stale_ms_max` milliseconds old, to rows with this fingerprint.
    pub fn new(store: Arc<dyn Store>, stale_ms_max: u64, fingerprint: String) -> Self {
        Self { store, fingerprint, stale_max: Duration::from_millis(stale_ms_max), known: RwLock::default() }
    }

    /// The pointer of a family. Retry if none was ever written, or if rows of another fingerprint serve: until a
    /// rebuild.
    pub async fn get(&self, family: Family) -> Result<Arc<Pointer>, Error> {
        if let Some(pointer) = self.fresh(family) {
            return Ok(pointer);
        }
        let read_at = Instant::now();
        let pointer = self.store.pointer(family).await?;
        let pointer = Arc::new(pointer.ok_or_else(|| {
            Error::retry(
                "read the serving generation",
                format!(
                    "{} has none yet: the first `foretell serve` with a role that folds it creates one",
                    family.name()
                ),
            )
        })?);
        if pointer.fingerprint != self.fingerprint {
            let (name, stored, ours) = (family.name(), &pointer.fingerprint, &self.fingerprint);
            let detail = format!(
                "the views of {name} were folded as {stored}, but this process reads {ours}: run `foretell rebuild \
                 {name}`"
            );
            return Err(Error::retry("read the serving generation", detail));
        }
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(family, (pointer.clone(), read_at));
        Ok(pointer)
    }

    /// The generation that serves a family.
    pub async fn generation(&self, family: Family) -> Result<Generation, Error> {
        Ok(self.get(family).await?.serving(family))
    }

    fn fresh(&self, family: Family) -> Option<Arc<Pointer>> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pointer, read_at) = known.get(&family)?;
        (read_at.elapsed() < self.stale_max).then(|| pointer.clone())
    }
}
