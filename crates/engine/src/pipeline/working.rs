//! The decoded rows of one partition, and the rule that makes effects exactly once.
//!
//! A flush is not atomic in Cassandra: an owner row may reach the store while an aggregate row does not. So a row
//! carries the offset of the last record folded into it, and a record is folded only into a row with a lower offset.
//! That alone would lose contributions: when a record is read again, its owner already contains it, and a new decision
//! from a later state could differ. The owner row therefore also carries the **pending list**: the outcomes of its
//! records after the last checkpoint that is known to be durable. A record that is read again takes its outcome from
//! the list, and each aggregate row applies the contributions if its offset is lower.
//!
//! If the owner is past a record that is not in the list, another process has trimmed the list, which happens only
//! after that process's checkpoint was durable. The store then has a later checkpoint, and the pipeline
//! [restarts](super::Exit::Restart) from there. Late writers lose because their positions are lower, and positions are write
//! timestamps. The simulation in `crates/service/tests/simulation` breaks each of these rules in turn.
//!
//! Next to the pending list, a row carries which of its records of the last second were skipped, and why. Folding does
//! not depend on it: requests that wait for their events are answered from it, in any process.

use super::Shared;
use super::full_rows::FullRows;
use foretell_domain::address::RowKey;
use foretell_domain::view::cell::{Carried, Cell, CellBuffer, Corrupt, decode_state};
use foretell_domain::view::{Aggregate, Delta, Fold, FoldOutcome, Mismatch, RecordPosition, Skip};
use foretell_events::Event;
use foretell_ports::Error;
use foretell_ports::store::{Row, RowWrite};
use foretell_telemetry::meter;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Whether folding can continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldControl {
    /// It can.
    Done,
    /// The partition starts over from the store's checkpoint.
    Restart,
    /// The partition stops until an operator decides.
    Stop,
}

/// How long a row carries the outcome of a record after its checkpoint was durable. A request that waits for the record
/// reads the checkpoint every few milliseconds, and then the row.
const LATEST_FOR: Duration = Duration::from_secs(1);
/// Outcomes of latest records that a row carries; the oldest is dropped first. Twice the number of events of one
/// subject that a request may contain.
const LATEST_MAX: usize = 128;

struct OwnerEntry<F: Fold> {
    position: i64,
    state: F::Owner,
    carried: Carried<F::Decision>,
    dirty: bool,
}

struct AggregateEntry {
    position: i64,
    state: Aggregate,
    dirty: bool,
}

/// Rows used in this turn and rows last used in the turn before; a row that is not used for a whole turn is dropped.
struct Cache<R> {
    hot: HashMap<RowKey, R>,
    cold: HashMap<RowKey, R>,
}

impl<R> Cache<R> {
    fn new() -> Self {
        Self { hot: HashMap::new(), cold: HashMap::new() }
    }

    /// The row, if it is cached.
    fn get(&mut self, key: &RowKey) -> Option<&mut R> {
        // Most rows are hot, and looking twice into one map costs less than looking into two.
        if !self.hot.contains_key(key)
            && let Some((key, row)) = self.cold.remove_entry(key)
        {
            self.hot.insert(key, row);
        }
        self.hot.get_mut(key)
    }

    fn rotate(&mut self, rows_max: usize) {
        if self.hot.len() > rows_max / 2 {
            // Keep the memory of the emptied map: it would be needed again.
            self.cold.clear();
            std::mem::swap(&mut self.hot, &mut self.cold);
        }
    }
}

/// The rows of a partition between two flushes.
pub struct WorkingSet<F: Fold> {
    shared: Arc<Shared<F>>,
    partition: u32,
    /// Checkpoint that is known to be durable: the offset below which no outcome is needed again.
    durable: i64,
    /// Checkpoints that became durable within [`LATEST_FOR`], the oldest first, and the offset below which no latest
    /// outcome is carried any more.
    flushes: VecDeque<(Instant, i64)>,
    latest_from: i64,
    owners: Cache<OwnerEntry<F>>,
    aggregates: Cache<AggregateEntry>,
    /// Contributions that are not yet applied to the aggregates, by offset.
    decided: Vec<(i64, RowKey, Delta)>,
    /// Records since the last flush that were applied.
    applied: u64,
    /// Records since the last flush that were skipped, by reason.
    skipped: BTreeMap<Skip, u64>,
    /// Tenants whose events found no capacity in a row.
    crowded: FullRows,
}

impl<F: Fold> WorkingSet<F> {
    /// A partition without rows.
    pub fn new(shared: Arc<Shared<F>>, partition: u32, durable: i64) -> Self {
        Self {
            shared,
            partition,
            durable,
            flushes: VecDeque::new(),
            latest_from: i64::MIN,
            owners: Cache::new(),
            aggregates: Cache::new(),
            decided: Vec::new(),
            applied: 0,
            skipped: BTreeMap::new(),
            crowded: FullRows::default(),
        }
    }

    /// The address of the row that owns an event.
    pub(crate) fn owner_key(event: &Event) -> RowKey {
        RowKey::hashed(F::OWNER, event.key())
    }

    /// The owners among these that must be read first, each once.
    pub(crate) fn missing_owners<'a>(&mut self, keys: impl Iterator<Item = &'a RowKey>) -> Vec<RowKey> {
        let missing: BTreeSet<_> = keys.filter(|key| self.owners.get(key).is_none()).collect();
        missing.into_iter().cloned().collect()
    }

    /// Adds owner rows that were read, in the order of `keys`.
    pub(crate) fn load_owners(&mut self, keys: Vec<RowKey>, read: Vec<Vec<Row>>) -> Result<(), Error> {
        for (key, partials) in keys.into_iter().zip(read) {
            let row = match self.own(&partials) {
                None => {
                    OwnerEntry { position: -1, state: F::Owner::default(), carried: Carried::default(), dirty: false }
                }
                Some(row) => decode_owner(&row.cell).map_err(|corrupt| unreadable(&key, &corrupt))?,
            };
            self.owners.hot.insert(key, row);
        }
        Ok(())
    }

    /// Whether an owner has as many open records as its row may carry.
    pub fn is_full(&mut self, owner: &RowKey) -> bool {
        let (durable, most) = (self.durable, self.shared.config.owner_records_max);
        self.owners.get(owner).is_some_and(|owner| {
            let pending = &mut owner.carried.pending;
            pending.len() >= most && {
                pending.retain(|(offset, _)| *offset >= durable);
                pending.len() >= most
            }
        })
    }

    /// Folds an event into its owner, or finds the earlier outcome of the same record.
    pub fn fold(&mut self, owner: &RowKey, event: &Event, place: RecordPosition) -> FoldControl {
        let fold = &self.shared.fold;
        let owner = self.owners.get(owner).expect("invariant: owners are loaded before their events are folded");
        let known = owner.carried.pending.binary_search_by_key(&place.offset, |(offset, _)| *offset);
        let outcome = match known {
            Ok(at) => owner.carried.pending[at].1.clone(),
            Err(_) if place.offset <= owner.position => return FoldControl::Restart,
            Err(_) => {
                let outcome = fold.fold(&mut owner.state, event, place);
                if let (FoldOutcome::Applied(_), Some(how)) = (&outcome, F::resolved_as(&owner.state, event)) {
                    meter::resolved_as(how);
                }
                owner.position = place.offset;
                owner.carried.latest.push((place.offset, outcome.skipped()));
                if outcome.skipped() == Some(Skip::NoRoom) {
                    self.crowded.note(&event.envelope.tenant);
                }
                owner.carried.pending.push((place.offset, outcome.clone()));
                owner.dirty = true;
                outcome
            }
        };
        match outcome {
            FoldOutcome::Skipped(reason) => *self.skipped.entry(reason).or_default() += 1,
            FoldOutcome::Applied(decision) => {
                self.applied += 1;
                if F::is_too_late(&decision) {
                    meter::too_late(F::FAMILY.name());
                }
                if F::has_displaced(&decision) {
                    meter::displaced();
                }
                self.decided.extend(fold.contributions(event, &decision, place).into_iter().map(|contribution| {
                    let (key, delta) = contribution.into_parts();
                    (place.offset, key, delta)
                }));
            }
        }
        FoldControl::Done
    }

    /// The aggregate rows that must be read before [`contribute`](Self::contribute), each once.
    pub(crate) fn missing_aggregates(&mut self) -> Vec<RowKey> {
        let keys = self.decided.iter().map(|(_, key, _)| key);
        let missing: BTreeSet<_> = keys.filter(|key| self.aggregates.get(key).is_none()).collect();
        missing.into_iter().cloned().collect()
    }

    /// Adds aggregate rows that were read, in the order of `keys`.
    pub(crate) fn load_aggregates(&mut self, keys: Vec<RowKey>, read: Vec<Vec<Row>>) -> Result<(), Error> {
        for (key, partials) in keys.into_iter().zip(read) {
            let row = match self.own(&partials) {
                None => {
                    let state = Aggregate::empty(&key).map_err(|error| mismatched(&key, error))?;
                    AggregateEntry { position: -1, state, dirty: false }
                }
                Some(row) => decode_shares(&key, &row.cell).map_err(|corrupt| unreadable(&key, &corrupt))?,
            };
            self.aggregates.hot.insert(key, row);
        }
        Ok(())
    }

    /// Applies contributions to the aggregate rows whose offset is lower. Fatal if a contribution does not fit its row.
    pub(crate) fn contribute(&mut self) -> Result<(), Error> {
        for (offset, key, delta) in std::mem::take(&mut self.decided) {
            let row = self.aggregates.get(&key).expect("invariant: aggregates are loaded before they are changed");
            if offset > row.position {
                row.state.apply(&delta, self.shared.fold.limits()).map_err(|error| mismatched(&key, error))?;
                row.position = offset;
                row.dirty = true;
            }
        }
        Ok(())
    }

    /// The rows to write, in the order of their addresses. Each is returned once: the flush is repeated until it is
    /// acknowledged, or the rows are dropped with their pipeline.
    pub(crate) fn take_dirty(&mut self) -> Vec<RowWrite> {
        let (durable, latest_from) = (self.durable, self.latest_from);
        let (mut rows, mut scratch) = (Vec::new(), CellBuffer::default());
        for (key, owner) in self.owners.hot.iter_mut().filter(|(_, owner)| owner.dirty) {
            owner.dirty = false;
            let Carried { latest, pending } = &mut owner.carried;
            pending.retain(|(offset, _)| *offset >= durable);
            latest.retain(|(offset, _)| *offset >= latest_from);
            latest.drain(..latest.len().saturating_sub(LATEST_MAX));
            let cell = scratch.owner(owner.position, &owner.state, &owner.carried);
            rows.push(RowWrite { key: key.clone(), position: owner.position, cell });
        }
        for (key, row) in self.aggregates.hot.iter_mut().filter(|(_, row)| row.dirty) {
            row.dirty = false;
            let cell = scratch.aggregate(row.position, &row.state);
            rows.push(RowWrite { key: key.clone(), position: row.position, cell });
        }
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows
    }

    /// Notes that the rows and the checkpoint of the last flush are durable.
    pub fn flushed(&mut self, durable: i64) {
        self.durable = durable;
        let now = Instant::now();
        self.flushes.push_back((now, durable));
        while let Some((at, passed)) = self.flushes.front().copied()
            && now.duration_since(at) >= LATEST_FOR
        {
            self.latest_from = passed;
            self.flushes.pop_front();
        }
        let (applied, skipped) = (std::mem::take(&mut self.applied), std::mem::take(&mut self.skipped));
        meter::folded(F::FAMILY.name(), applied, skipped.into_iter().map(|(reason, records)| (reason.name(), records)));
        self.crowded.report(now, F::FAMILY.name(), self.partition);
        self.owners.rotate(self.shared.config.cached_rows_max / 4);
        self.aggregates.rotate(self.shared.config.cached_rows_max);
    }

    fn own<'a>(&self, partials: &'a [Row]) -> Option<&'a Row> {
        partials.iter().find(|row| row.source == self.partition)
    }
}

fn decode_owner<F: Fold>(bytes: &[u8]) -> Result<OwnerEntry<F>, Corrupt> {
    let cell = Cell::decode(bytes)?;
    Ok(OwnerEntry {
        position: cell.position,
        state: decode_state(cell.state)?,
        carried: decode_state(cell.carried)?,
        dirty: false,
    })
}

fn decode_shares(key: &RowKey, bytes: &[u8]) -> Result<AggregateEntry, Corrupt> {
    let cell = Cell::decode(bytes)?;
    Ok(AggregateEntry { position: cell.position, state: Aggregate::decode(key, cell.state)?, dirty: false })
}

fn mismatched(key: &RowKey, error: Mismatch) -> Error {
    Error::fatal("fold into a row", format!("{} {:?}: {error}", key.view.name(), key.key))
}

fn unreadable(key: &RowKey, corrupt: &Corrupt) -> Error {
    Error::fatal("read a row", format!("{} {:?}: {corrupt}", key.view.name(), key.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::address::View;

    fn key(n: usize) -> RowKey {
        RowKey::hashed(View::User, n.to_string())
    }

    #[test]
    fn rows_that_are_not_used_for_a_turn_are_let_go_and_others_stay() {
        const ROWS_MAX: usize = 10;
        let mut cache = Cache::new();
        for n in 0..100 {
            cache.hot.insert(key(n), n);
            assert_eq!(cache.get(&key(0)), Some(&mut 0), "it is used in every turn");
            cache.rotate(ROWS_MAX);
            let held = cache.hot.len() + cache.cold.len();
            assert!(held <= ROWS_MAX + 2, "{held} rows after {n}");
        }
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.get(&key(99)), Some(&mut 99));
    }

    #[test]
    fn few_rows_are_kept_however_many_turns_pass() {
        let mut cache = Cache::new();
        cache.hot.extend((0..5).map(|n| (key(n), n)));
        (0..100).for_each(|_| cache.rotate(10));
        assert!((0..5).all(|n| cache.get(&key(n)).is_some()));
    }
}
