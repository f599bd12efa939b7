//! A tenant's kept and missed visits by lead bucket.
//!
//! Lead is the number of whole days from booking to visit, in the visit's zone. Most of the risk of a no-show is
//! whether the visit was booked for the same day, so rates are kept by bucket of lead.

use super::{AggregateView, Limits, Merge};
use crate::address::{RowKey, View};
use foretell_events::key;
use serde::{Deserialize, Serialize};

/// Lower bounds of the buckets, in days: 0, 1, 2, 3, 4-6, 7, 8-13, 14-20, 21-29, 30-59, 60-89, 90 and more.
pub const BUCKETS: [i32; 12] = [0, 1, 2, 3, 4, 7, 8, 14, 21, 30, 60, 90];

/// The bucket, from 0, of a lead; a negative lead counts as 0.
pub fn bucket(lead_days: i32) -> u8 {
    BUCKETS.iter().rposition(|from| *from <= lead_days).unwrap_or(0) as u8
}

/// Visits with a known outcome. Signed, because corrections subtract what was added before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The client came.
    pub attended: i64,
    /// The client did not come.
    pub missed: i64,
}

impl Outcomes {
    /// All visits.
    pub fn visits(self) -> i64 {
        self.attended + self.missed
    }

    /// Adds `sign` times one outcome.
    pub fn count(&mut self, missed: bool, sign: i64) {
        if missed {
            self.missed += sign;
        } else {
            self.attended += sign;
        }
    }
}

/// An outcome that became known (`sign` 1), or was reverted (-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeadChange {
    /// See [`bucket`].
    pub bucket: u8,
    /// The outcome.
    pub missed: bool,
    /// 1 or -1.
    pub sign: i8,
}

/// All outcomes that one event changed.
pub type Delta = Vec<LeadChange>;

/// The state of a tenant's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// By bucket.
    pub buckets: [Outcomes; BUCKETS.len()],
}

impl AggregateView for Lead {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, _: &Limits) {
        delta.iter().for_each(|counted| self.count(counted.bucket, counted.missed, i64::from(counted.sign)));
    }
}

impl Merge for Lead {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            mine.attended += theirs.attended;
            mine.missed += theirs.missed;
        }
    }
}

impl Lead {
    /// Adds `sign` times one outcome to a bucket.
    pub fn count(&mut self, bucket: u8, missed: bool, sign: i64) {
        if let Some(outcomes) = self.buckets.get_mut(usize::from(bucket)) {
            outcomes.count(missed, sign);
        }
    }

    /// Outcomes of all buckets together.
    pub fn total(&self) -> Outcomes {
        self.buckets.iter().fold(Outcomes::default(), |sum, o| Outcomes {
            attended: sum.attended + o.attended,
            missed: sum.missed + o.missed,
        })
    }
}

/// The address of a tenant's row.
pub fn row_key(tenant: &str) -> RowKey {
    RowKey::hashed(View::Lead, key::of(tenant, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_where_they_say() {
        for (days, expected) in
            [(-3, 0), (0, 0), (1, 1), (3, 3), (4, 4), (6, 4), (7, 5), (8, 6), (13, 6), (29, 8), (89, 10), (4_000, 11)]
        {
            assert_eq!(bucket(days), expected, "{days}");
        }
    }
}
