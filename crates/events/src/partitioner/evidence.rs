//! Determines the partitioner of many records in wrong partitions.

use super::{Partitioner, fitting};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most keys that are considered: the latest ones.
const KEYS_MAX: usize = 64;
/// Keys from which it can be concluded that no known partitioner matches.
const KEYS_NONE_MIN: u32 = 20;
/// Share of the keys, in percent, that must match a partitioner before it is named.
const FITTING_PERCENT_MIN: u32 = 90;
/// Probability below which this number of matches is not considered chance.
const CHANCE_MAX: f64 = 0.001;

/// The partitioner, if known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnosis {
    /// Not known yet: too few keys, or keys of several producers.
    Open,
    /// This one.
    Known(Partitioner),
    /// Not a known one: round robin, random, or chosen explicitly.
    NoneKnown,
}

/// The latest keys in a wrong partition, and which partitioners match them.
///
/// A key counts once in each partition: a thousand records of one key are no more evidence than one.
#[derive(Debug, Clone, Default)]
pub struct Evidence(VecDeque<Sighting>);

#[derive(Debug, Clone, Copy)]
struct Sighting {
    digest: u64,
    fits: [bool; Partitioner::ALL.len()],
}

impl Evidence {
    /// Adds a record that is not in the partition of its key.
    pub fn see(&mut self, key: &[u8], partition: u32, partitions: u32) {
        let digest = xxh3_64_with_seed(key, u64::from(partition));
        if self.0.iter().any(|seen| seen.digest == digest) {
            return;
        }
        if self.0.len() == KEYS_MAX {
            self.0.pop_front();
        }
        let mut fits = [false; Partitioner::ALL.len()];
        fitting(key, partition, partitions).for_each(|fitting| fits[fitting as usize] = true);
        self.0.push_back(Sighting { digest, fits });
    }

    /// How many keys are considered; at most 64.
    pub fn keys(&self) -> u32 {
        self.0.len() as u32
    }

    /// How many of them match a partitioner.
    pub fn fitting(&self, partitioner: Partitioner) -> u32 {
        self.0.iter().filter(|seen| seen.fits[partitioner as usize]).count() as u32
    }

    /// The partitioner, for a topic of `partitions` partitions.
    ///
    /// One is named if nine of ten keys match it and that is not chance: a key in a random partition matches with a
    /// probability of 1 in `partitions`.
    pub fn diagnosis(&self, partitions: u32) -> Diagnosis {
        let keys = self.keys();
        let chance_max = CHANCE_MAX / Partitioner::ALL.len() as f64;
        let is_meant = |partitioner: &Partitioner| {
            let fitting = self.fitting(*partitioner);
            fitting * 100 >= keys * FITTING_PERCENT_MIN && chance(keys, fitting, partitions) < chance_max
        };
        let mut meant = Partitioner::ALL.into_iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(partitioner), None) => return Diagnosis::Known(partitioner),
            (Some(_), Some(_)) => return Diagnosis::Open,
            (None, _) => {}
        }
        // If several producers have known partitioners, each key matches one of them.
        let unexplained = self.0.iter().filter(|seen| !seen.fits.contains(&true)).count() as u32;
        if keys >= KEYS_NONE_MIN && unexplained * 100 > keys * (100 - FITTING_PERCENT_MIN) {
            return Diagnosis::NoneKnown;
        }
        Diagnosis::Open
    }
}

/// The probability that at least `fitting` of `keys` keys match if each is in a random partition.
fn chance(keys: u32, fitting: u32, partitions: u32) -> f64 {
    // A topic with one partition has no wrong partition.
    let hit = 1.0 / f64::from(partitions.max(2));
    let (mut exactly, mut at_least) = ((1.0 - hit).powi(keys.cast_signed()), 0.0);
    for hits in 0..=keys {
        if hits >= fitting {
            at_least += exactly;
        }
        exactly *= f64::from(keys - hits) / f64::from(hits + 1) * hit / (1.0 - hit);
    }
    at_least
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;
    use proptest::prelude::*;

    /// Evidence from `users` users, each in the partition that `place` returns.
    fn evidence(users: u32, partitions: u32, place: impl Fn(u32, &[u8]) -> u32) -> Evidence {
        let mut evidence = Evidence::default();
        for user in 0..users {
            let key = key::of("default", &format!("user-{user}"));
            let partition = place(user, key.as_bytes());
            if partition != key::partition(key.as_bytes(), partitions) {
                evidence.see(key.as_bytes(), partition, partitions);
            }
        }
        evidence
    }

    #[test]
    fn a_partitioner_is_named_once_chance_is_excluded() {
        for partitioner in Partitioner::ALL {
            for (partitions, keys_needed) in [(2, 11), (3, 7), (8, 4), (100, 2)] {
                let needed =
                    (1..).map(|users| evidence(users, partitions, |_, key| partitioner.partition(key, partitions)));
                let named = needed.take(1_000).find(|seen| seen.diagnosis(partitions) == Diagnosis::Known(partitioner));
                let keys = named.expect("it is named").keys();
                assert!((keys_needed..=keys_needed + 12).contains(&keys), "{partitioner:?} of {partitions}: {keys}");
            }
        }
    }

    #[test]
    fn round_robin_and_one_partition_for_all_are_none_of_the_known() {
        for partitions in [2, 3, 8, 64] {
            let robin = evidence(400, partitions, |user, _| user % partitions);
            assert_eq!(robin.diagnosis(partitions), Diagnosis::NoneKnown, "round robin of {partitions}");
            let by_hand = evidence(400, partitions, |_, _| 0);
            assert_eq!(by_hand.diagnosis(partitions), Diagnosis::NoneKnown, "one of {partitions}");
        }
    }

    #[test]
    fn little_evidence_and_that_of_two_producers_leave_it_open() {
        assert_eq!(Evidence::default().diagnosis(8), Diagnosis::Open);
        let few = evidence(10, 8, |user, _| user % 8);
        assert!(few.keys() < KEYS_NONE_MIN && few.diagnosis(8) == Diagnosis::Open);
        let two = evidence(400, 8, |user, key| Partitioner::ALL[user as usize % 2].partition(key, 8));
        assert_eq!((two.keys(), two.diagnosis(8)), (64, Diagnosis::Open));
        let mut one_key = Evidence::default();
        (0..1_000).for_each(|_| one_key.see(b"default:ada", Partitioner::Crc32.partition(b"default:ada", 8), 8));
        assert_eq!((one_key.keys(), one_key.diagnosis(8)), (1, Diagnosis::Open), "one key is one sighting");
    }

    #[test]
    fn the_latest_keys_decide_when_a_producer_changes() {
        let place = |user, key: &[u8]| Partitioner::ALL[usize::from(user >= 400)].partition(key, 8);
        assert_eq!(evidence(400, 8, place).diagnosis(8), Diagnosis::Known(Partitioner::Crc32));
        assert_eq!(evidence(800, 8, place).diagnosis(8), Diagnosis::Known(Partitioner::Fnv1a));
    }

    #[test]
    fn the_chance_is_that_of_independent_keys() {
        assert!((chance(4, 4, 8) - 8_f64.powi(-4)).abs() < 1e-12);
        assert!((chance(10, 9, 2) - 11.0 / 1024.0).abs() < 1e-12);
        assert!((chance(20, 0, 3) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn partitions_at_random_name_no_partitioner(
            seeds in prop::collection::vec(any::<u64>(), 400), partitions in 2_u32..64,
        ) {
            let random = evidence(400, partitions, |user, _| (seeds[user as usize] % u64::from(partitions)) as u32);
            prop_assert!(!matches!(random.diagnosis(partitions), Diagnosis::Known(_)));
        }
    }
}
