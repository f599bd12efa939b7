//! Typed reads of the left side: `rows(view)`, for scores, answers and `inspect`.
//!
//! ```text
//!   family ─► Pointers (≤ pointer_stale_ms_max old) ─► generation
//!   keys ─┬─ owner row ───────────────────────────────► Store::read of its own partition, always
//!         └─ aggregate rows ─► cache (≤ stale_ms_max) ─► Store::read of the misses ─► merge of all partials
//! ```
//!
//! Reads that belong to one answer go to the store together. Owner rows are never cached, because a user who has just
//! trusted a device expects the effect in the next request. Aggregates count over many owners and may be `stale_ms_max`
//! old.
//!
//! Cache entries carry the *cache version* of their family. [`Rows::invalidate`] begins the next one, and from then on
//! no result of an earlier read is used, not even of a read that was running and finished later.

pub mod agenda;
mod cache;
pub mod outcomes;
mod pointers;

pub use pointers::Pointers;

use cache::{Begun, Cache, Cached};
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::cell::{self, Cell, Corrupt};
use foretell_domain::view::client::{self, Client};
use foretell_domain::view::feature::Feature;
use foretell_domain::view::lead::{self, Lead};
use foretell_domain::view::outcome::{self, DayOutcomes};
use foretell_domain::view::policy::{self, PolicyRow};
use foretell_domain::view::sent::{self, SentReminders};
use foretell_domain::view::user::{self, User};
use foretell_domain::view::{self, Limits, Merge};
use foretell_events::key;
use foretell_events::policy::Kind;
use foretell_ports::Error;
use foretell_ports::component::Component;
use foretell_ports::store::{Row, Store};
use foretell_telemetry::{CACHE_READS, FAMILY, RESULT, STORE_READ_SECONDS, VIEW, trace};
use metrics::{counter, histogram};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// How old the rows that readers see may be, and how many are cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Merged aggregate rows kept in memory; 0 keeps none.
    #[serde(skip)]
    pub cache_entries_max: usize,
    /// Maximum age of an aggregate that an HTTP answer is computed from, in milliseconds.
    pub stale_ms_max: u64,
    /// How long after a swap readers may still read the previous generation, in milliseconds.
    pub pointer_stale_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_entries_max: 100_000, stale_ms_max: 1_000, pointer_stale_ms_max: 1_000 }
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "reads"
    }

    fn register_metrics(&self) {
        for family in Family::ALL {
            drop(histogram!(STORE_READ_SECONDS, FAMILY => family.name()));
            for view in family.views() {
                for result in ["hit", "miss"] {
                    counter!(CACHE_READS, VIEW => view.name(), RESULT => result).increment(0);
                }
            }
        }
    }
}

/// Reads rows of the serving generations.
pub struct Rows {
    store: Arc<dyn Store>,
    pointers: Arc<Pointers>,
    cache: Option<Cache>,
    cache_versions: [AtomicU64; Family::ALL.len()],
}

/// The rows that could be read for the score of a login.
#[derive(Debug)]
pub struct LoginRows {
    /// The user's row; `Ok(None)` for a user without any event.
    pub user: Result<Option<User>, Error>,
    /// The requested features, in the order of the request; none for a missing one.
    pub features: Vec<Option<Arc<Feature>>>,
}

/// One stored partial of a row, decoded for display.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The source partition that wrote it.
    pub source: u32,
    /// Offset of the last record folded into it.
    pub position: i64,
    /// The state.
    pub state: serde_json::Value,
}

impl Rows {
    /// A reader that answers aggregates from memory while they are fresh.
    pub fn cached(store: Arc<dyn Store>, config: &Config, limits: &Limits) -> Self {
        let stale_max = Duration::from_millis(config.stale_ms_max);
        let is_kept = config.cache_entries_max > 0 && config.stale_ms_max > 0;
        let cache = is_kept.then(|| Cache::new(config.cache_entries_max, stale_max));
        let pointers = Arc::new(Pointers::new(store.clone(), config.pointer_stale_ms_max, view::fingerprint(limits)));
        Self { store, pointers, cache, cache_versions: Default::default() }
    }

    /// The pointers that this reader uses.
    pub fn pointers(&self) -> &Arc<Pointers> {
        &self.pointers
    }

    /// The generation that serves a family; at most `pointer_stale_ms_max` old.
    pub async fn generation(&self, family: Family) -> Result<Generation, Error> {
        self.pointers.generation(family).await
    }

    /// From now on no row of the family that was read before is answered from memory.
    pub(crate) fn invalidate(&self, family: Family) {
        self.cache_version_of(family).fetch_add(1, Ordering::AcqRel);
    }

    /// A user's row; none for a user without any event.
    pub async fn user(&self, tenant: &str, user_id: &str) -> Result<Option<User>, Error> {
        self.owner(&user::row_key(tenant, user_id)).await
    }

    /// A client's row; none for a client without any event.
    pub async fn client(&self, tenant: &str, client_id: &str) -> Result<Option<Client>, Error> {
        self.owner(&client::row_key(tenant, client_id)).await
    }

    /// The reminders that were announced to a client; none if there never were any.
    pub async fn sent(&self, tenant: &str, client_id: &str) -> Result<Option<SentReminders>, Error> {
        self.owner(&sent::row_key(tenant, client_id)).await
    }

    /// A tenant's policy of a kind; none if no document was ever published.
    pub async fn policy(&self, tenant: &str, kind: Kind) -> Result<Option<PolicyRow>, Error> {
        self.owner(&policy::row_key(tenant, kind)).await
    }

    /// The aggregate row at `key`, merged from all partitions and never from memory; empty if nothing was counted.
    pub async fn merged<A: Merge>(&self, key: &RowKey) -> Result<A, Error> {
        let generation = self.generation(key.view.family()).await?;
        let partials = self.read(generation, None, std::slice::from_ref(key)).await?;
        merge(partials.first().map_or(&[], Vec::as_slice))
    }

    /// A tenant's outcomes by lead bucket, merged from all partitions.
    pub async fn lead(&self, tenant: &str) -> Result<Arc<Lead>, Error> {
        let key = lead::row_key(tenant);
        let generation = self.generation(key.view.family()).await?;
        Ok(self.aggregates(generation, &[key]).await?.into_iter().next().unwrap_or_default())
    }

    /// A tenant's outcomes of some local days (since the epoch), in their order, each merged from all partitions. Not
    /// from memory: calibration, which uses them, caches its result.
    pub async fn outcomes(&self, tenant: &str, days: impl Iterator<Item = i64>) -> Result<Vec<DayOutcomes>, Error> {
        let keys: Vec<_> = days.map(|day| outcome::row_key(tenant, day)).collect();
        let generation = self.generation(Family::Appointments).await?;
        let read = self.read(generation, None, &keys).await?;
        read.iter().map(|partials| merge(partials)).collect()
    }

    /// What a login's score is computed from, read together: the user's row and the features at `keys`. A read that
    /// fails or misses the deadline leaves its rows out.
    pub async fn login(&self, tenant: &str, user_id: &str, keys: &[RowKey], deadline: Instant) -> LoginRows {
        let pointer = match in_time(deadline, self.pointers.get(Family::Logins)).await {
            Ok(pointer) => pointer,
            Err(error) => return LoginRows { user: Err(error), features: vec![None; keys.len()] },
        };
        let owner = user::row_key(tenant, user_id);
        let generation = pointer.serving(Family::Logins);
        let (user, rows) = tokio::join!(
            in_time(deadline, self.owner_of(&pointer, &owner)),
            in_time(deadline, self.aggregates(generation, keys))
        );
        let features = match rows {
            Ok(rows) => rows.into_iter().map(Some).collect(),
            Err(error) => {
                tracing::debug!(%error, "a score is computed without features");
                self.cached_rows(generation, keys, self.begin(Family::Logins))
            }
        };
        LoginRows { user, features }
    }

    /// What an appointment's score is computed from, in one read: the client's row and the tenant's outcomes.
    pub async fn appointment(&self, tenant: &str, client_id: &str) -> Result<(Option<Client>, Arc<Lead>), Error> {
        let owner = client::row_key(tenant, client_id);
        let keys = [lead::row_key(tenant)];
        let pointer = self.pointers.get(Family::Appointments).await?;
        let rows = self.aggregates(pointer.serving(Family::Appointments), &keys);
        let (client, leads) = tokio::try_join!(self.owner_of(&pointer, &owner), rows)?;
        Ok((client, leads.into_iter().next().unwrap_or_default()))
    }

    /// The partials of any row as they are stored, for display; empty if there are none.
    pub async fn partials(&self, key: &RowKey) -> Result<Vec<Partial>, Error> {
        let generation = self.generation(key.view.family()).await?;
        let partials = self.read(generation, None, std::slice::from_ref(key)).await?;
        partials.into_iter().flatten().map(|row| partial(key, &row)).collect()
    }

    async fn owner<T: DeserializeOwned>(&self, key: &RowKey) -> Result<Option<T>, Error> {
        let pointer = self.pointers.get(key.view.family()).await?;
        self.owner_of(&pointer, key).await
    }

    /// The owner row at `key`, from its own partition: no other partition writes it, because a record in a partition
    /// that its key does not belong to is rejected.
    async fn owner_of<T: DeserializeOwned>(&self, pointer: &Pointer, key: &RowKey) -> Result<Option<T>, Error> {
        let source = key::partition(key.key.as_bytes(), pointer.partitions);
        let generation = pointer.serving(key.view.family());
        let rows = self.read(generation, Some(source), std::slice::from_ref(key)).await?;
        rows.first().and_then(|rows| rows.first()).map(decode).transpose()
    }

    /// The merged rows at `keys`, in their order; those that are not cached are read.
    async fn aggregates<A: Cached>(&self, generation: Generation, keys: &[RowKey]) -> Result<Vec<Arc<A>>, Error> {
        let begun = self.begin(generation.family);
        let mut found = self.cached_rows(generation, keys, begun);
        let missing: Vec<_> =
            keys.iter().zip(&found).filter(|(_, hit)| hit.is_none()).map(|(key, _)| key.clone()).collect();
        let read = self.read(generation, None, &missing).await?;
        let mut read = missing.into_iter().zip(read);
        for slot in found.iter_mut().filter(|slot| slot.is_none()) {
            let Some((key, partials)) = read.next() else { break };
            let merged = Arc::new(merge::<A>(&partials)?);
            if let Some(cache) = &self.cache {
                cache.insert((generation, key), merged.clone(), begun);
            }
            *slot = Some(merged);
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn begin(&self, family: Family) -> Begun {
        Begun { at: Instant::now(), version: self.cache_version_of(family).load(Ordering::Acquire) }
    }

    fn cache_version_of(&self, family: Family) -> &AtomicU64 {
        let at = Family::ALL.iter().position(|other| *other == family).expect("invariant: ALL has every family");
        &self.cache_versions[at]
    }

    /// The cached rows of one view, in the order of `keys`.
    fn cached_rows<A: Cached>(&self, generation: Generation, keys: &[RowKey], now: Begun) -> Vec<Option<Arc<A>>> {
        let Some(cache) = &self.cache else { return vec![None; keys.len()] };
        let found: Vec<_> = keys.iter().map(|key| cache.get(&(generation, key.clone()), now)).collect();
        let hits = found.iter().flatten().count();
        if let Some(key) = keys.first() {
            for (result, count) in [("hit", hits), ("miss", keys.len() - hits)] {
                metrics::counter!(foretell_telemetry::CACHE_READS, foretell_telemetry::VIEW => key.view.name(), foretell_telemetry::RESULT => result)
                    .increment(count as u64);
            }
        }
        found
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let reading = trace::reading(self.store.system(), keys[0].view.name(), keys.len());
        let read = self.store.read(generation, source, keys).instrument(reading.span()).await;
        if read.is_err() {
            reading.failed();
        }
        metrics::histogram!(foretell_telemetry::STORE_READ_SECONDS, foretell_telemetry::FAMILY => generation.family.name())
            .record(begun.elapsed().as_secs_f64());
        read
    }
}

/// The address of a row from what an operator types: tenant and the rest of the key, joined by a colon.
///
/// Rows of the agenda and of announced reminders also need their `bucket`; other views derive it from the key.
pub fn row_key(view: View, bucket: Option<i64>, key: String) -> RowKey {
    match bucket {
        Some(bucket) => RowKey { view, bucket, key },
        None => RowKey::hashed(view, key),
    }
}

/// The partition that `tenant:subject` belongs to.
pub fn partition(pointer: &Pointer, tenant: &str, subject: &str) -> u32 {
    key::partition(key::of(tenant, subject).as_bytes(), pointer.partitions)
}

/// The result of a read; Retry if it is not there by the deadline.
async fn in_time<T>(deadline: Instant, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Err(Error::retry("read rows", "they were not read in time"));
    tokio::time::timeout_at(deadline, read).await.unwrap_or_else(late)
}

/// The state of a stored row; Fatal if it cannot be decoded.
pub fn decode<T: DeserializeOwned>(row: &Row) -> Result<T, Error> {
    let cell = Cell::decode(&row.cell).map_err(corrupt)?;
    cell::decode_state(cell.state).map_err(corrupt)
}

/// One state merged from all partials.
fn merge<A: Merge>(partials: &[Row]) -> Result<A, Error> {
    let Some((first, others)) = partials.split_first() else { return Ok(A::default()) };
    let mut merged: A = decode(first)?;
    for other in others {
        merged.merge(&decode(other)?);
    }
    Ok(merged)
}

/// A stored partial, decoded for display; Fatal if it cannot be decoded.
pub fn partial(key: &RowKey, row: &Row) -> Result<Partial, Error> {
    let cell = Cell::decode(&row.cell).map_err(corrupt)?;
    let state = view::print(key, cell.state).map_err(corrupt)?;
    Ok(Partial { source: row.source, position: cell.position, state })
}

fn corrupt(error: Corrupt) -> Error {
    Error::fatal("decode a row", error)
}
