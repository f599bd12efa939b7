//! Typed reads of the left side: `rows(view)`, for scores, answers and `inspect`.
//!
//! ```text
//!   family ─► Pointers (≤ pointer_stale_ms_max old) ─► generation
//!   keys ─┬─ owner row ──────► in memory, if exact ──────────────────► Store::read of its own partition
//!         └─ aggregate rows ─► in memory, if exact or ≤ stale_ms_max ─► Store::read of the others ─► merge of partials
//! ```
//!
//! Reads that belong to one answer go to the store together. A row in memory is as new as the store if this process
//! folds all partitions that write it: see [`live`]. Otherwise an owner row is always read, because a user who has just
//! trusted a device expects the effect in the next request, and an aggregate, which counts over many owners, may be
//! `stale_ms_max` old.

pub mod agenda;
pub mod live;
pub mod outcomes;
mod pointers;

pub use live::LiveRows;
pub use pointers::Pointers;

use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::cell::{self, Cell, Corrupt};
use foretell_domain::view::client::{self, Client};
use foretell_domain::view::feature::FeatureCounts;
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
use live::{Found, LiveAggregate, LiveOwner, Ticket};
use metrics::{counter, histogram};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// How old the rows that readers see may be, and how many are cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for decoded rows, in bytes.
    #[serde(skip)]
    pub live_bytes_max: usize,
    /// Maximum age of an aggregate that an HTTP answer is computed from, in milliseconds.
    pub stale_ms_max: u64,
    /// How long after a swap readers may still read the previous generation, in milliseconds.
    pub pointer_stale_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { live_bytes_max: 64 << 20, stale_ms_max: 1_000, pointer_stale_ms_max: 1_000 }
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
    live: Arc<LiveRows>,
}

/// The rows that could be read for the score of a login.
#[derive(Debug)]
pub struct LoginRows {
    /// The user's row; `Ok(None)` for a user without any event.
    pub user: Result<Option<Arc<User>>, Error>,
    /// The requested features, in the order of the request; none for a missing one.
    pub features: Vec<Option<Arc<FeatureCounts>>>,
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
    /// A reader that keeps rows in memory.
    pub fn cached(store: Arc<dyn Store>, config: &Config, limits: &Limits) -> Self {
        let live = LiveRows::new(config.live_bytes_max, Duration::from_millis(config.stale_ms_max));
        let pointers = Arc::new(Pointers::new(store.clone(), config.pointer_stale_ms_max, view::fingerprint(limits)));
        Self { store, pointers, live }
    }

    /// The rows in memory, for the folds that change them.
    pub fn live(&self) -> &Arc<LiveRows> {
        &self.live
    }

    /// The pointers that this reader uses.
    pub fn pointers(&self) -> &Arc<Pointers> {
        &self.pointers
    }

    /// The generation that serves a family; at most `pointer_stale_ms_max` old.
    pub async fn generation(&self, family: Family) -> Result<Generation, Error> {
        self.pointers.generation(family).await
    }

    /// From now on, rows contain everything that was folded before. Rows that this process folds always do.
    pub(crate) async fn refresh(&self, family: Family) {
        let pointer = self.pointers.get(family).await;
        if !pointer.is_ok_and(|pointer| self.live.are_all_own(pointer.serving(family), pointer.partitions)) {
            self.live.invalidate(family);
        }
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
        let pointer = self.pointers.get(key.view.family()).await?;
        Ok(self.aggregates(&pointer, key.view.family(), &[key]).await?.into_iter().next().unwrap_or_default())
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
        let (user, rows) = tokio::join!(
            in_time(deadline, self.live_owner(&pointer, &owner)),
            in_time(deadline, self.aggregates(&pointer, Family::Logins, keys))
        );
        let features = match rows {
            Ok(rows) => rows.into_iter().map(Some).collect(),
            Err(error) => {
                tracing::debug!(%error, "a score is computed without features");
                self.in_memory(&pointer, Family::Logins, keys).into_iter().map(Result::ok).collect()
            }
        };
        LoginRows { user, features }
    }

    /// What an appointment's score is computed from, in one read: the client's row and the tenant's outcomes.
    pub async fn appointment(&self, tenant: &str, client_id: &str) -> Result<(Option<Arc<Client>>, Arc<Lead>), Error> {
        let owner = client::row_key(tenant, client_id);
        let keys = [lead::row_key(tenant)];
        let pointer = self.pointers.get(Family::Appointments).await?;
        let rows = self.aggregates(&pointer, Family::Appointments, &keys);
        let (client, leads) = tokio::try_join!(self.live_owner(&pointer, &owner), rows)?;
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

    /// The same, from memory if it is as new there as in the store.
    async fn live_owner<T: LiveOwner + DeserializeOwned>(
        &self,
        pointer: &Pointer,
        key: &RowKey,
    ) -> Result<Option<Arc<T>>, Error> {
        let source = key::partition(key.key.as_bytes(), pointer.partitions);
        let generation = pointer.serving(key.view.family());
        let mut ticket = None;
        if self.live.is_own(generation, source) {
            match self.live.get(generation, key, true) {
                Found::Row(row) => {
                    if let Some(row) = T::row(row) {
                        return Ok(row);
                    }
                }
                Found::Missing(given) => ticket = given,
            }
        }
        let rows = self.read(generation, Some(source), std::slice::from_ref(key)).await?;
        let stored = rows.first().and_then(|rows| rows.first());
        let row = stored.map(decode).transpose()?.map(Arc::new);
        if let Some(ticket) = ticket {
            ticket.fill(T::live(row.clone()), stored.map_or(0, |row| row.cell.len()));
        }
        Ok(row)
    }

    /// The merged rows at `keys`, in their order; those that are not in memory are read.
    async fn aggregates<A: LiveAggregate>(
        &self,
        pointer: &Pointer,
        family: Family,
        keys: &[RowKey],
    ) -> Result<Vec<Arc<A>>, Error> {
        let found = self.in_memory::<A>(pointer, family, keys);
        let missing: Vec<_> =
            keys.iter().zip(&found).filter(|(_, row)| row.is_err()).map(|(key, _)| key.clone()).collect();
        let mut read = self.read(pointer.serving(family), None, &missing).await?.into_iter();
        let mut rows = Vec::with_capacity(keys.len());
        for found in found {
            rows.push(match found {
                Ok(row) => row,
                Err(ticket) => {
                    let partials = read.next().unwrap_or_default();
                    let row = Arc::new(A::of(merge(&partials)?));
                    if let Some(ticket) = ticket {
                        ticket.fill(A::live(row.clone()), partials.iter().map(|row| row.cell.len()).sum());
                    }
                    row
                }
            });
        }
        Ok(rows)
    }

    /// The merged rows of one view that are in memory, in the order of `keys`; for others, the permit to keep them.
    fn in_memory<A: LiveAggregate>(
        &self,
        pointer: &Pointer,
        family: Family,
        keys: &[RowKey],
    ) -> Vec<Result<Arc<A>, Option<Ticket>>> {
        let generation = pointer.serving(family);
        let is_exact = self.live.are_all_own(generation, pointer.partitions);
        let of = |key| match self.live.get(generation, key, is_exact) {
            Found::Row(row) => A::row(row).ok_or(None),
            Found::Missing(ticket) => Err(ticket),
        };
        let found: Vec<_> = keys.iter().map(of).collect();
        let hits = found.iter().filter(|row| row.is_ok()).count();
        if let Some(key) = keys.first() {
            for (result, count) in [("hit", hits), ("miss", keys.len() - hits)] {
                counter!(CACHE_READS, VIEW => key.view.name(), RESULT => result).increment(count as u64);
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
