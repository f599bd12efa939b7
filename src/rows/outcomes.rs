//! What became of records, as the rows of their owners say: for requests that wait for their events.
//!
//! An owner row carries the outcomes of its latest records (see [`Carried`](crate::view::cell::Carried)), written in
//! the same cell as the state that they led to. So it makes no difference in which process the record was folded.

use super::{Rows, corrupt};
use crate::event::{Position, Topic};
use crate::store::{Error, Family, Row, RowKey, View};
use crate::view::cell::{self, Cell};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It changed rows.
    Applied,
    /// It changed nothing: a repetition, a restatement of what holds, or older than the erasure of its subject.
    Skipped,
    /// It could not be folded and is a dead letter, as where the clocks of two processes disagree about its time.
    Rejected,
    /// It was folded, and its row has taken in so much since that the outcome is no longer held.
    Unknown,
}

/// A record that is folded: where it stands, and its key, `tenant:subject`.
pub type Folded<'a> = (Position, &'a str);

impl Rows {
    /// What became of records that the serving views contain, in their order.
    ///
    /// # Errors
    /// What the store answers; the records are folded all the same.
    pub async fn became(&self, records: &[Folded<'_>]) -> Result<Vec<Became>, Error> {
        let mut owners: BTreeMap<(Family, u32), BTreeSet<RowKey>> = BTreeMap::new();
        for (position, key) in records {
            if let Some((family, view)) = owner(position.topic) {
                owners.entry((family, position.partition)).or_default().insert(RowKey::hashed(view, (*key).to_owned()));
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
            let Some((_, view)) = owner(position.topic) else { return Became::Unknown };
            let row = rows.get(&(position.partition, RowKey::hashed(view, (*key).to_owned())));
            row.map_or(Became::Rejected, |row| row.outcome(position.offset))
        };
        Ok(records.iter().map(outcome).collect())
    }
}

/// Whose row a record of a topic belongs to.
fn owner(topic: Topic) -> Option<(Family, View)> {
    match topic {
        Topic::Logins => Some((Family::Logins, View::User)),
        Topic::Appointments => Some((Family::Appointments, View::Client)),
        Topic::Reminders => Some((Family::Reminders, View::Sent)),
        Topic::Policies => Some((Family::Policies, View::Policy)),
        Topic::Decisions | Topic::DeadLetters => None,
    }
}

/// An owner row, as far as it says what became of records.
struct Carried {
    position: i64,
    latest: Vec<(i64, bool)>,
}

impl Carried {
    fn read(row: &Row) -> Result<Self, Error> {
        let cell = Cell::decode(&row.cell).map_err(corrupt)?;
        Ok(Self { position: cell.position, latest: cell::latest(cell.carried).map_err(corrupt)? })
    }

    /// The outcome of a record that is folded: a row whose position is below it never saw it.
    fn outcome(&self, offset: i64) -> Became {
        match self.latest.binary_search_by_key(&offset, |(at, _)| *at) {
            Ok(at) if self.latest[at].1 => Became::Applied,
            Ok(_) => Became::Skipped,
            Err(_) if self.position < offset => Became::Rejected,
            Err(_) => Became::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_became_of_its_latest_records_and_of_those_that_it_never_saw() {
        let row = Carried { position: 9, latest: vec![(4, true), (7, false), (9, true)] };
        for (offset, became) in [
            (3, Became::Unknown),
            (4, Became::Applied),
            (5, Became::Unknown),
            (7, Became::Skipped),
            (9, Became::Applied),
            (10, Became::Rejected),
        ] {
            assert_eq!(row.outcome(offset), became, "{offset}");
        }
    }
}
