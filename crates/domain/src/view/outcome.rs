//! How a tenant's visits of one day went, beside what was known when they were placed: what scores are calibrated by.
//!
//! A row is a day in the zone of the visits. It counts every outcome by lead, and keeps samples of them: those with the
//! smallest hashes, so that which ones are kept depends on neither order nor content. A sample is what a model is
//! asked about and what the answer should have been; it names nobody. Each model is calibrated by the same rows
//! ([`crate::score::no_show::calibration`]), so a new one is from its first minute; what was counted says how many
//! outcomes a sample stands for.
//!
//! A correction replaces a sample, a deletion takes it out. What has been let go of does not come back when others
//! are taken out: a row that was full once may hold fewer, and those are still drawn without regard to what they say.

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
    /// How it went.
    pub missed: bool,
}

/// A change of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An outcome came to be known.
    Put {
        /// See [`hash`].
        visit: u64,
        /// The outcome.
        sample: Sample,
    },
    /// An outcome was taken back.
    Take {
        /// See [`hash`].
        visit: u64,
        /// Its lead bucket.
        bucket: u8,
        /// The outcome that it was.
        missed: bool,
    },
    /// The client is erased, or their row cannot name the visit any more: the outcome stays counted, what was known
    /// before it goes.
    Forget {
        /// See [`hash`].
        visit: u64,
    },
}

/// All that one event changed in a day.
pub type Delta = Vec<Change>;

/// The state of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// All outcomes of the day, by lead.
    pub seen: Lead,
    /// Samples of them by the hash of their visit, all below `below`.
    pub samples: BTreeMap<u64, Sample>,
    /// Visits with this hash or a greater one are not kept: there are too many.
    pub below: u64,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { seen: Lead::default(), samples: BTreeMap::new(), below: u64::MAX }
    }
}

impl AggregateView for Outcome {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, limits: &Limits) {
        for change in delta {
            match change {
                Change::Put { visit, sample } => self.put(*visit, sample, limits.outcome_samples_max),
                Change::Take { visit, bucket, missed } => {
                    self.seen.count(*bucket, *missed, -1);
                    self.samples.remove(visit);
                }
                Change::Forget { visit } => {
                    self.samples.remove(visit);
                }
            }
        }
    }
}

impl Outcome {
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

impl Merge for Outcome {
    /// The samples of the other are drawn as these are, up to the lower of the bounds.
    fn merge(&mut self, other: &Self) {
        self.seen.merge(&other.seen);
        self.below = self.below.min(other.below);
        self.samples.extend(other.samples.iter().map(|(visit, sample)| (*visit, sample.clone())));
        self.samples.split_off(&self.below);
    }
}

/// The hash of a visit, which names it in its row; stored: never changed.
pub fn hash(client_id: &str, appointment_id: &str) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    // Ids may hold any character, so the length says where the first one ends.
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
