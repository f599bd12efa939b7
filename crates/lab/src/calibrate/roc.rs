//! Curves: the share of attacks that a threshold catches, and the share of users that it challenges.

use foretell_domain::score::metrics::{Case, roc_auc};
use serde::Serialize;

/// Maximum number of points of a curve; between them it is practically straight.
const POINTS_MAX: usize = 200;

/// The effect of one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Scores from this one on are challenged; none: no score is.
    pub threshold: Option<f64>,
    /// Share of people's logins that are challenged.
    pub challenged: f64,
    /// Share of attacks that are challenged: the true positive rate.
    pub caught: f64,
}

/// A receiver operating characteristic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roc {
    /// Area under the curve; none if one of the classes has no cases.
    pub auc: Option<f64>,
    /// From no challenges to only challenges.
    pub points: Vec<Point>,
}

/// Scores of two classes, each in falling order.
#[derive(Debug, Clone, Default)]
pub(super) struct Scores {
    people: Vec<f64>,
    attacks: Vec<f64>,
}

impl Scores {
    /// From scores in any order.
    pub(super) fn new(people: impl Iterator<Item = f64>, attacks: impl Iterator<Item = f64>) -> Self {
        let falling = |mut scores: Vec<f64>| {
            scores.sort_by(|a, b| b.total_cmp(a));
            scores
        };
        Self { people: falling(people.collect()), attacks: falling(attacks.collect()) }
    }

    /// The effect of a threshold.
    pub(super) fn at(&self, threshold: f64) -> Point {
        Point {
            threshold: Some(threshold),
            challenged: share_from(&self.people, threshold),
            caught: share_from(&self.attacks, threshold),
        }
    }

    /// The highest threshold that catches this share of the attacks; none if there are no attacks.
    pub(super) fn threshold_for(&self, share: f64) -> Option<f64> {
        let needed = (share * self.attacks.len() as f64).ceil().max(1.0) as usize;
        self.attacks.get(needed - 1).copied()
    }

    /// The lowest threshold that challenges at most this share of the users: just above the first one who passes.
    pub(super) fn threshold_sparing(&self, share: f64) -> f64 {
        let allowed = (share * self.people.len() as f64).floor() as usize;
        self.people.get(allowed).map_or(0.0, |spared| spared.next_up())
    }

    /// The whole curve.
    pub(super) fn roc(&self) -> Roc {
        let mut points = vec![Point { threshold: None, challenged: 0.0, caught: 0.0 }];
        // Regular steps over the users and over the attacks, so that neither class has gaps.
        let steps = |scores: &[f64]| {
            let step = scores.len().div_ceil(POINTS_MAX / 2).max(1);
            let last = scores.last().copied();
            scores.iter().copied().step_by(step).chain(last).collect::<Vec<_>>()
        };
        let mut thresholds = [steps(&self.people), steps(&self.attacks)].concat();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        points.extend(thresholds.into_iter().map(|threshold| self.at(threshold)));
        let case = |positive| move |score: &f64| Case { score: *score, positive };
        let cases = self.people.iter().map(case(false)).chain(self.attacks.iter().map(case(true)));
        Roc { auc: roc_auc(&cases.collect::<Vec<_>>()), points }
    }
}

/// The share of falling scores that are at least `threshold`; 0 if there are none.
fn share_from(falling: &[f64], threshold: f64) -> f64 {
    falling.partition_point(|score| *score >= threshold) as f64 / falling.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(people: &[f64], attacks: &[f64]) -> Scores {
        Scores::new(people.iter().copied(), attacks.iter().copied())
    }

    #[test]
    fn thresholds_keep_what_they_promise() {
        let scores = scores(&[0.1, 0.2, 0.3, 0.9], &[0.5, 0.25, 0.95, 0.25]);
        assert_eq!(scores.threshold_for(0.5), Some(0.5));
        assert_eq!(scores.threshold_for(0.51), Some(0.25));
        assert_eq!(scores.threshold_for(1.0), Some(0.25));
        assert_eq!(scores.threshold_for(0.0), Some(0.95), "one at least");
        assert_eq!(scores.at(0.25), Point { threshold: Some(0.25), challenged: 0.5, caught: 1.0 });
        assert_eq!(scores.at(scores.threshold_sparing(0.25)).challenged, 0.25);
        assert_eq!(scores.at(scores.threshold_sparing(0.24)).challenged, 0.0);
        assert_eq!(scores.threshold_sparing(1.0), 0.0);
        assert_eq!(scores.roc().auc, Some(11.0 / 16.0), "of 16 pairs 11 are in order");
        assert_eq!(Scores::default().threshold_for(0.9), None);
        assert_eq!(Scores::default().roc().auc, None);
    }

    proptest! {
        #[test]
        fn a_curve_rises_from_corner_to_corner(
            people in prop::collection::vec(0.0..1.0_f64, 1..600),
            attacks in prop::collection::vec(0.0..1.0_f64, 1..600),
            share in 0.0..1.0_f64,
        ) {
            let scores = scores(&people, &attacks);
            let Roc { points, .. } = scores.roc();
            prop_assert!(points.len() <= POINTS_MAX + 5);
            prop_assert!(points.is_sorted_by(|a, b| a.challenged <= b.challenged && a.caught <= b.caught));
            prop_assert_eq!(points.last().map(|last| (last.challenged, last.caught)), Some((1.0, 1.0)));
            let threshold = scores.threshold_for(share).unwrap();
            prop_assert!(scores.at(threshold).caught >= share);
            prop_assert!(scores.at(threshold.next_up()).caught < share.max(f64::MIN_POSITIVE));
            prop_assert!(scores.at(scores.threshold_sparing(share)).challenged <= share);
        }
    }
}
