//! The outcomes of a tenant's visits of one day, with what was known when they were placed: the data that scores are
//! calibrated by.
//!
//! A row is a day in the zone of the visits. It counts every outcome by lead, and keeps samples of them: those with the
//! smallest hashes, so that the choice depends on neither order nor content. A sample consists of a model's inputs and
//! the actual outcome; it names no person. Each model is calibrated by the same rows
//! ([`crate::score::no_show::calibration`]), so a new one is calibrated from its first minute; the counts determine how
//! many outcomes a sample represents.
//!
//! A correction replaces a sample, a deletion removes it. Dropped samples do not return when others are removed: a row
//! that was full once may have fewer, and those are still chosen independently of their content.

use super::client::snapshot::Snapshot;
use super::lead::Lead;
use super::{AggregateView, Limits, Merge};
use crate::address::{RowKey, View};
use foretell_events::key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An outcome and what was known when the visit was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What was known.
    pub snapshot: Snapshot,
    /// Whether the visit was missed.
    pub missed: bool,
}

/// A change of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeChange {
    /// An outcome became known.
    Put {
        /// See [`hash`].
        visit: u64,
        /// The outcome.
        sample: Sample,
    },
    /// An outcome was reverted.
    Take {
        /// See [`hash`].
        visit: u64,
        /// Its lead bucket.
        bucket: u8,
        /// The reverted outcome.
        missed: bool,
    },
    /// The client was erased, or their row can no longer identify the visit: the outcome stays counted, and its sample
    /// is removed.
    Forget {
        /// See [`hash`].
        visit: u64,
    },
}

/// All changes of one event to a day.
pub type Delta = Vec<OutcomeChange>;

/// The state of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayOutcomes {
    /// All outcomes of the day, by lead.
    pub seen: Lead,
    /// Samples of them by the hash of their visit, all below `below`.
    pub samples: BTreeMap<u64, Sample>,
    /// Visits with this hash or a greater one are not kept, because there are too many.
    pub below: u64,
}

impl Default for DayOutcomes {
    fn default() -> Self {
        Self { seen: Lead::default(), samples: BTreeMap::new(), below: u64::MAX }
    }
}

impl AggregateView for DayOutcomes {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, limits: &Limits) {
        for change in delta {
            match change {
                OutcomeChange::Put { visit, sample } => self.put(*visit, sample, limits.outcome_samples_max),
                OutcomeChange::Take { visit, bucket, missed } => {
                    self.seen.count(*bucket, *missed, -1);
                    self.samples.remove(visit);
                }
                OutcomeChange::Forget { visit } => {
                    self.samples.remove(visit);
                }
            }
        }
    }
}

impl DayOutcomes {
    fn put(&mut self, visit: u64, sample: &Sample, samples_max: usize) {
        self.seen.count(sample.snapshot.lead_bucket(), sample.missed, 1);
        if visit < self.below {
            self.samples.insert(visit, sample.clone());
        }
        while self.samples.len() > samples_max
            && let Some((let_go, _)) = self.samples.pop_last()
        {
            self.below = let_go;
        }
    }
}

impl Merge for DayOutcomes {
    /// The samples of the other are chosen in the same way, up to the lower of the bounds.
    fn merge(&mut self, other: &Self) {
        self.seen.merge(&other.seen);
        self.below = self.below.min(other.below);
        self.samples.extend(other.samples.iter().map(|(visit, sample)| (*visit, sample.clone())));
        self.samples.split_off(&self.below);
    }
}

/// The hash of a visit, which identifies it in its row; stored, so it never changes.
pub fn hash(client_id: &str, appointment_id: &str) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    // Ids can contain any character, so the length marks the end of the first one.
    hash.update(&(client_id.len() as u64).to_le_bytes());
    hash.update(client_id.as_bytes());
    hash.update(appointment_id.as_bytes());
    hash.digest()
}

/// The address of a tenant's row of a day, in days since the epoch.
pub fn row_key(tenant: &str, day: i64) -> RowKey {
    RowKey::hashed(View::Outcome, key::of(tenant, &day.to_string()))
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn a_colon_in_an_id_makes_no_two_visits_one() {
        assert_ne!(hash("a:b", "c"), hash("a", "b:c"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_ne!(hash("", "a"), hash("a", ""));
    }
}
