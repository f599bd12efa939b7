//! The fold of a log, computed in memory: its events are folded one by one into rows.
//!
//! This is what `rows(view) = fold(log)` means, without batches, checkpoints or stores. The pipeline must agree
//! with it after any history of crashes, `evaluate` scores from it, and tests compare against it.

use super::cell::encode_state;
use super::lead::{self, Lead};
use super::{Aggregate, Fold, FoldOutcome, Merge, RecordPosition};
use crate::address::RowKey;
use foretell_events::Event;
use std::collections::BTreeMap;

const MATCHES: &str = "invariant: each contribution of a fold is a change of the row that it names";

/// All rows of one family, by address and source partition.
#[derive(Debug)]
pub struct Materialized<F: Fold> {
    fold: F,
    owners: BTreeMap<RowKey, F::Owner>,
    aggregates: BTreeMap<(RowKey, u32), Aggregate>,
}

impl<F: Fold> Materialized<F> {
    /// The rows of an empty log.
    pub fn new(fold: F) -> Self {
        Self { fold, owners: BTreeMap::new(), aggregates: BTreeMap::new() }
    }

    /// Folds the next event of a partition; returns whether it changed anything.
    pub fn take(&mut self, event: &Event, place: RecordPosition) -> bool {
        let owner = self.owners.entry(RowKey::hashed(F::OWNER, event.key())).or_default();
        let FoldOutcome::Applied(decision) = self.fold.fold(owner, event, place) else { return false };
        for contribution in self.fold.contributions(event, &decision, place) {
            let (key, delta) = contribution.into_parts();
            let row = self.aggregates.entry((key, place.partition));
            let row = row.or_insert_with_key(|(key, _)| Aggregate::empty(key).expect(MATCHES));
            row.apply(&delta, self.fold.limits()).expect(MATCHES);
        }
        true
    }

    /// The row of an owner.
    pub fn owner(&self, key: &RowKey) -> Option<&F::Owner> {
        self.owners.get(key)
    }

    /// The partials of an aggregate row.
    pub fn partials<'a>(&'a self, key: &'a RowKey) -> impl Iterator<Item = &'a Aggregate> {
        self.aggregates.range((key.clone(), 0)..=(key.clone(), u32::MAX)).map(|(_, row)| row)
    }

    /// A tenant's outcomes by lead, of all partitions together.
    pub fn lead(&self, tenant: &str) -> Lead {
        let mut lead = Lead::default();
        for partial in self.partials(&lead::row_key(tenant)) {
            if let Aggregate::Lead(partial) = partial {
                lead.merge(partial);
            }
        }
        lead
    }

    /// Every row's address, source partition (none for owners) and canonical state.
    pub fn states(&self) -> impl Iterator<Item = (&RowKey, Option<u32>, Vec<u8>)> {
        let owners = self.owners.iter().map(|(key, row)| (key, None, encode_state(row)));
        let aggregates = self.aggregates.iter().map(|((key, source), row)| (key, Some(*source), row.encode()));
        owners.chain(aggregates)
    }
}
