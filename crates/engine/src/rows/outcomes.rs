//! The outcomes of records, from the rows of their owners: for requests that wait for their events.
//!
//! An owner row carries the outcomes of its latest records (see [`Carried`](foretell_domain::view::cell::Carried)),
//! written in the same cell as the state that they led to. So it makes no difference which process folded the record.

use super::{Rows, corrupt};
use foretell_domain::address::{Family, RowKey};
use foretell_domain::view::Skip;
use foretell_domain::view::cell::{self, Cell};
use foretell_events::Position;
use foretell_ports::Error;
use foretell_ports::store::Row;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// The outcome of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordOutcome {
    /// It changed rows.
    Applied,
    /// It changed nothing, and need not be sent again: a repetition, a restatement of the current state, overruled by a
    /// later event, or older than the erasure of its subject.
    Skipped,
    /// It changed nothing, because the client's row is full of visits that are nearer: send it again when the row has
    /// capacity.
    NoRoom,
    /// It changed nothing, because the visit cannot have that outcome yet: send it again if the visit was moved.
    Impossible,
    /// It could not be folded and is a dead letter, for example because the clocks of two processes disagree about its
    /// time.
    Rejected,
    /// It was folded, but its row has folded too many records since then to carry the outcome still.
    Unknown,
}

impl RecordOutcome {
    /// The outcome of a record that was folded, and possibly skipped for a reason.
    const fn of(skipped: Option<Skip>) -> Self {
        match skipped {
            None => Self::Applied,
            Some(Skip::NoRoom) => Self::NoRoom,
            Some(Skip::Impossible) => Self::Impossible,
            Some(Skip::Repeated | Skip::Erased | Skip::Unchanged) => Self::Skipped,
        }
    }
}

/// A record that is folded: its position, and its key, `tenant:subject`.
pub type Folded<'a> = (Position, &'a str);

impl Rows {
    /// The outcomes of records that the serving views contain, in their order.
    ///
    /// # Errors
    /// Those of the store; the records are folded all the same.
    pub async fn record_outcomes(&self, records: &[Folded<'_>]) -> Result<Vec<RecordOutcome>, Error> {
        let mut owners: BTreeMap<(Family, u32), BTreeSet<RowKey>> = BTreeMap::new();
        for (position, key) in records {
            if let Some(family) = Family::of(position.topic) {
                let key = RowKey::hashed(family.owner(), (*key).to_owned());
                owners.entry((family, position.partition)).or_default().insert(key);
            }
        }
        let mut rows: BTreeMap<(u32, RowKey), Carried> = BTreeMap::new();
        for ((family, source), keys) in owners {
            let (generation, keys) = (self.generation(family).await?, Vec::from_iter(keys));
            let read = self.read(generation, Some(source), &keys).await?;
            for (key, partials) in keys.into_iter().zip(read) {
                if let Some(row) = partials.first() {
                    rows.insert((source, key), Carried::read(row)?);
                }
            }
        }
        let outcome = |(position, key): &Folded<'_>| {
            let Some(family) = Family::of(position.topic) else { return RecordOutcome::Unknown };
            let row = rows.get(&(position.partition, RowKey::hashed(family.owner(), (*key).to_owned())));
            row.map_or(RecordOutcome::Rejected, |row| row.outcome(position.offset))
        };
        Ok(records.iter().map(outcome).collect())
    }
}

/// An owner row, reduced to the outcomes of records.
struct Carried {
    position: i64,
    latest: Vec<(i64, Option<Skip>)>,
}

impl Carried {
    fn read(row: &Row) -> Result<Self, Error> {
        let cell = Cell::decode(&row.cell).map_err(corrupt)?;
        Ok(Self { position: cell.position, latest: cell::latest(cell.carried).map_err(corrupt)? })
    }

    /// The outcome of a record that is folded: a row whose position is below it has never received it.
    fn outcome(&self, offset: i64) -> RecordOutcome {
        match self.latest.binary_search_by_key(&offset, |(at, _)| *at) {
            Ok(at) => RecordOutcome::of(self.latest[at].1),
            Err(_) if self.position < offset => RecordOutcome::Rejected,
            Err(_) => RecordOutcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_the_outcomes_of_its_latest_records_and_knows_those_that_it_never_saw() {
        let latest = [(4, None), (7, Some(Skip::Repeated)), (8, Some(Skip::NoRoom)), (9, Some(Skip::Impossible))];
        let row = Carried { position: 9, latest: latest.to_vec() };
        for (offset, outcome) in [
            (3, RecordOutcome::Unknown),
            (4, RecordOutcome::Applied),
            (5, RecordOutcome::Unknown),
            (7, RecordOutcome::Skipped),
            (8, RecordOutcome::NoRoom),
            (9, RecordOutcome::Impossible),
            (10, RecordOutcome::Rejected),
        ] {
            assert_eq!(row.outcome(offset), outcome, "{offset}");
        }
    }
}
