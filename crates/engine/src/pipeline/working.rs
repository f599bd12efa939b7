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
use super::slots::{SlotId, Slots};
use super::written::Written;
use foretell_domain::address::RowKey;
use foretell_domain::view::cell::{Carried, Cell, CellBuffer, Corrupt, decode_state, encoded_bytes};
use foretell_domain::view::{Aggregate, Delta, Fold, FoldOutcome, Mismatch, RecordPosition, Skip};
use foretell_events::Event;
use foretell_ports::Error;
use foretell_ports::store::{Row, RowWrite};
use foretell_telemetry::meter;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
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
    /// Bytes of the pending list in the row, at least.
    pending_bytes: usize,
}

// Not derived, because that would require a default of `F`.
impl<F: Fold> Default for OwnerEntry<F> {
    fn default() -> Self {
        Self { position: -1, state: F::Owner::default(), carried: Carried::default(), pending_bytes: 0 }
    }
}

struct AggregateEntry {
    position: i64,
    state: Aggregate,
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
    owners: Slots<OwnerEntry<F>>,
    aggregates: Slots<AggregateEntry>,
    /// Contributions that are not yet applied to the aggregates, by offset.
    decided: Vec<(i64, SlotId, Delta)>,
    /// Records since the last flush that were applied.
    applied: u64,
    /// Records since the last flush that were skipped, by reason.
    skipped: BTreeMap<Skip, u64>,
    /// Tenants whose events found no capacity in a row.
    crowded: FullRows,
}

impl<F: Fold> WorkingSet<F> {
    /// A partition without rows in memory, whose checkpoint is `durable`.
    pub fn new(shared: Arc<Shared<F>>, partition: u32, durable: i64) -> Self {
        let written = || if durable == 0 { Written::nothing() } else { Written::unknown() };
        Self {
            shared,
            partition,
            durable,
            flushes: VecDeque::new(),
            latest_from: i64::MIN,
            owners: Slots::new(written()),
            aggregates: Slots::new(written()),
            decided: Vec::new(),
            applied: 0,
            skipped: BTreeMap::new(),
            crowded: FullRows::default(),
        }
    }

    /// The slot of the row that owns an event; valid until the next [`evict`](Self::evict).
    pub(super) fn owner(&mut self, event: &Event) -> SlotId {
        self.owners.find(RowKey::hashed(F::OWNER, event.key()))
    }

    /// The owners that must be read before their events are folded, and their addresses, each once.
    pub(super) fn missing_owners(&mut self) -> (Vec<SlotId>, Vec<RowKey>) {
        let Ok(missing) = self.owners.take_missing(|_| Ok::<_, Infallible>(OwnerEntry::default()));
        let keys = self.owners.keys(&missing);
        (missing, keys)
    }

    /// Adds owner rows that were read, in the order of `owners`.
    pub(super) fn load_owners(&mut self, owners: Vec<SlotId>, read: Vec<Vec<Row>>) -> Result<(), Error> {
        for (id, partials) in owners.into_iter().zip(read) {
            let stored = self.own(&partials);
            let row = stored.map(|row| decode_owner(&row.cell)).transpose();
            let row = row.map_err(|corrupt| unreadable(self.owners.key(id), &corrupt))?.unwrap_or_default();
            self.owners.fill(id, row, stored.map_or(0, |row| row.cell.len()));
        }
        Ok(())
    }

    /// Whether the row of an owner carries as many bytes of outcomes as it may.
    pub(super) fn is_full(&mut self, owner: SlotId) -> bool {
        let (durable, most) = (self.durable, self.shared.config.owner_pending_bytes_max);
        let owner = self.owners.row(owner);
        owner.pending_bytes >= most && {
            owner.carried.pending.retain(|(offset, _)| *offset >= durable);
            owner.pending_bytes = owner.carried.pending.iter().map(encoded_bytes).sum();
            owner.pending_bytes >= most
        }
    }

    /// Folds an event into its owner, or finds the earlier outcome of the same record.
    pub(super) fn fold(&mut self, id: SlotId, event: &Event, place: RecordPosition) -> FoldControl {
        let fold = &self.shared.fold;
        let owner = self.owners.row(id);
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
                let pending = (place.offset, outcome.clone());
                owner.pending_bytes += encoded_bytes(&pending);
                owner.carried.pending.push(pending);
                self.owners.change(id);
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
                for contribution in fold.contributions(event, &decision, place) {
                    let (key, delta) = contribution.into_parts();
                    self.decided.push((place.offset, self.aggregates.find(key), delta));
                }
            }
        }
        FoldControl::Done
    }

    /// The aggregate rows that must be read before [`contribute`](Self::contribute), and their addresses, each once.
    pub(super) fn missing_aggregates(&mut self) -> Result<(Vec<SlotId>, Vec<RowKey>), Error> {
        let missing = self.aggregates.take_missing(AggregateEntry::empty)?;
        let keys = self.aggregates.keys(&missing);
        Ok((missing, keys))
    }

    /// Adds aggregate rows that were read, in the order of `aggregates`.
    pub(super) fn load_aggregates(&mut self, aggregates: Vec<SlotId>, read: Vec<Vec<Row>>) -> Result<(), Error> {
        for (id, partials) in aggregates.into_iter().zip(read) {
            let (key, stored) = (self.aggregates.key(id), self.own(&partials));
            let row = match stored {
                None => AggregateEntry::empty(key)?,
                Some(row) => decode_aggregate(key, &row.cell).map_err(|corrupt| unreadable(key, &corrupt))?,
            };
            self.aggregates.fill(id, row, stored.map_or(0, |row| row.cell.len()));
        }
        Ok(())
    }

    /// Applies contributions to the aggregate rows whose offset is lower. Fatal if a contribution does not fit its row.
    pub(super) fn contribute(&mut self) -> Result<(), Error> {
        for (offset, id, delta) in self.decided.drain(..) {
            let row = self.aggregates.row(id);
            if offset > row.position {
                let applied = row.state.apply(&delta, self.shared.fold.limits());
                row.position = offset;
                applied.map_err(|error| mismatched(self.aggregates.key(id), error))?;
                self.aggregates.change(id);
            }
        }
        Ok(())
    }

    /// The rows to write, in the order of their addresses. Each is returned once: the flush is repeated until it is
    /// acknowledged, or the rows are dropped with their pipeline.
    pub(super) fn take_changed(&mut self) -> Vec<RowWrite> {
        let Self { durable, latest_from, owners, aggregates, .. } = self;
        let mut rows = Vec::with_capacity(owners.changed() + aggregates.changed());
        let mut buffer = CellBuffer::default();
        owners.take_changed(|key, owner| {
            let Carried { latest, pending } = &mut owner.carried;
            pending.retain(|(offset, _)| *offset >= *durable);
            latest.retain(|(offset, _)| *offset >= *latest_from);
            latest.drain(..latest.len().saturating_sub(LATEST_MAX));
            let cell = buffer.owner(owner.position, &owner.state, &owner.carried);
            rows.push(RowWrite { key: key.clone(), position: owner.position, cell });
            rows.last().map_or(0, |row| row.cell.len())
        });
        aggregates.take_changed(|key, row| {
            let cell = buffer.aggregate(row.position, &row.state);
            rows.push(RowWrite { key: key.clone(), position: row.position, cell });
            rows.last().map_or(0, |row| row.cell.len())
        });
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows
    }

    /// Memory of the rows, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.owners.bytes() + self.aggregates.bytes()
    }

    /// Forgets rows that were not used recently, if there are more than the bounds. No slot that was returned before is
    /// valid any more, and no contribution may be open.
    pub(super) fn evict(&mut self, rows_max: usize, bytes_max: usize) {
        debug_assert!(self.decided.is_empty(), "contributions refer to slots");
        self.owners.evict(rows_max / 4, bytes_max / 2);
        self.aggregates.evict(rows_max, bytes_max / 2);
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
        pending_bytes: cell.carried.len(),
    })
}

impl AggregateEntry {
    fn empty(key: &RowKey) -> Result<Self, Error> {
        let state = Aggregate::empty(key).map_err(|error| mismatched(key, error))?;
        Ok(Self { position: -1, state })
    }
}

fn decode_aggregate(key: &RowKey, bytes: &[u8]) -> Result<AggregateEntry, Corrupt> {
    let cell = Cell::decode(bytes)?;
    Ok(AggregateEntry { position: cell.position, state: Aggregate::decode(key, cell.state)? })
}

fn mismatched(key: &RowKey, error: Mismatch) -> Error {
    Error::fatal("fold into a row", format!("{} {:?}: {error}", key.view.name(), key.key))
}

fn unreadable(key: &RowKey, corrupt: &Corrupt) -> Error {
    Error::fatal("read a row", format!("{} {:?}: {corrupt}", key.view.name(), key.key))
}
