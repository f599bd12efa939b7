//! How good scores were, once the outcomes are known.
//!
//! Ranking and calibration are different qualities: [`roc_auc`] depends only on the order of the scores, [`ece`] only
//! on whether a score of 20 % comes true one time in five, [`brier`] and [`log_loss`] on both. None of them is defined
//! without cases, and ranking is not defined for cases of one class only.

use serde::{Deserialize, Serialize};

/// Bins of [`ece`] and [`bins`].
const BINS: usize = 10;
/// Scores of 0 and 1 are moved this far inwards before their logarithm is taken.
const LOG_LOSS_EPSILON: f64 = 1e-15;
/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A score, 0 to 1, and whether the predicted event happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// The score.
    pub score: f64,
    /// The outcome.
    pub positive: bool,
}

impl Case {
    fn outcome(self) -> f64 {
        f64::from(u8::from(self.positive))
    }
}

/// All measures of the same cases; none if the cases do not determine it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Cases.
    pub cases: usize,
    /// Cases in which the event happened.
    pub positives: usize,
    /// See [`roc_auc`].
    pub roc_auc: Option<f64>,
    /// See [`brier`].
    pub brier: Option<f64>,
    /// See [`log_loss`].
    pub log_loss: Option<f64>,
    /// See [`ece`].
    pub ece: Option<f64>,
}

impl Metrics {
    /// Measures `cases`.
    pub fn of(cases: &[Case]) -> Self {
        Self {
            cases: cases.len(),
            positives: positives(cases),
            roc_auc: roc_auc(cases),
            brier: brier(cases),
            log_loss: log_loss(cases),
            ece: ece(cases),
        }
    }
}

/// Area under the receiver operating characteristic: the chance that a positive case has a higher score than a
/// negative one, where equal scores count one half. From the rank sum of the positives (Mann and Whitney 1947).
pub fn roc_auc(cases: &[Case]) -> Option<f64> {
    let positives = positives(cases);
    let negatives = cases.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let sorted = by_score(cases);
    let (mut below, mut rank_sum) = (0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        // Ranks begin at 1, and equal scores share the mean of theirs.
        let rank = below as f64 + (tied.len() + 1) as f64 / 2.0;
        rank_sum += rank * self::positives(tied) as f64;
        below += tied.len();
    }
    let (positives, negatives) = (positives as f64, negatives as f64);
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Mean squared difference of score and outcome (Brier 1950); 0 is best.
pub fn brier(cases: &[Case]) -> Option<f64> {
    mean(cases, |case| (case.score - case.outcome()).powi(2))
}

/// Mean negative logarithm of the probability that the score gave to the actual outcome; 0 is best.
pub fn log_loss(cases: &[Case]) -> Option<f64> {
    mean(cases, |case| {
        let given = if case.positive { case.score } else { 1.0 - case.score };
        -given.clamp(LOG_LOSS_EPSILON, 1.0).ln()
    })
}

/// Expected calibration error: the cases are sorted by score and split into ten bins of equal size; it is the mean over
/// all cases of the difference between the bin's mean score and its share of positives.
pub fn ece(cases: &[Case]) -> Option<f64> {
    let gap = |bin: &Bin| bin.cases as f64 * (bin.mean_score - bin.rate).abs();
    let gaps = bins(cases).iter().map(gap).sum::<f64>();
    (!cases.is_empty()).then(|| gaps / cases.len() as f64)
}

/// A tenth of the cases, sorted by score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Cases, at least one.
    pub cases: usize,
    /// Cases in which the event happened.
    pub positives: usize,
    /// Mean of their scores.
    pub mean_score: f64,
    /// Share of cases in which the event happened.
    pub rate: f64,
}

/// The cases, sorted by score and split into ten bins of equal size: a table of calibration. With fewer than ten cases
/// there are fewer bins.
pub fn bins(cases: &[Case]) -> Vec<Bin> {
    let sorted = by_score(cases);
    let bounds = (0..=BINS).map(|bin| bin * sorted.len() / BINS).collect::<Vec<_>>();
    let tenths = bounds.windows(2).filter_map(|ends| sorted.get(ends[0]..ends[1]));
    tenths.filter(|tenth| !tenth.is_empty()).map(bin).collect()
}

fn bin(cases: &[Case]) -> Bin {
    let (count, positives) = (cases.len(), positives(cases));
    let mean_score = cases.iter().map(|case| case.score).sum::<f64>() / count as f64;
    Bin { cases: count, positives, mean_score, rate: positives as f64 / count as f64 }
}

/// Wilson's score interval of a share among `n`, with a confidence of 95 %: also valid for few cases.
pub fn wilson(share: f64, n: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let middle = share + z2 / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((middle - spread) / scale).max(0.0), ((middle + spread) / scale).min(1.0))
}

fn positives(cases: &[Case]) -> usize {
    cases.iter().filter(|case| case.positive).count()
}

fn by_score(cases: &[Case]) -> Vec<Case> {
    let mut sorted = cases.to_vec();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    sorted
}

fn mean(cases: &[Case], value: impl Fn(Case) -> f64) -> Option<f64> {
    (!cases.is_empty()).then(|| cases.iter().copied().map(value).sum::<f64>() / cases.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `cases("0.1- 0.8+")`: scores with their outcomes.
    fn cases(text: &str) -> Vec<Case> {
        let case = |word: &str| Case { score: word[..word.len() - 1].parse().unwrap(), positive: word.ends_with('+') };
        text.split_whitespace().map(case).collect()
    }

    fn near(got: Option<f64>, expected: Option<f64>) -> bool {
        match (got, expected) {
            (Some(got), Some(expected)) => (got - expected).abs() < 1e-12,
            (got, expected) => got == expected,
        }
    }

    #[test]
    fn ranking_counts_ties_one_half() {
        for (text, expected) in [
            ("", None),
            ("0.3+ 0.4+", None),
            ("0.3-", None),
            ("0.1- 0.2- 0.8+ 0.9+", Some(1.0)),
            ("0.1+ 0.9-", Some(0.0)),
            ("0.5+ 0.5- 0.5-", Some(0.5)),
            // Of 4 pairs 3 are in order.
            ("0.1- 0.4+ 0.35- 0.8+", Some(1.0)),
            ("0.1- 0.4- 0.35+ 0.8+", Some(0.75)),
            // 0.4+ beats 0.1-, ties 0.4-; 0.8+ beats both: 3.5 of 4.
            ("0.1- 0.4- 0.4+ 0.8+", Some(0.875)),
            ("1- 1+ 0- 0+", Some(0.5)),
        ] {
            assert!(near(roc_auc(&cases(text)), expected), "{text}: {:?}", roc_auc(&cases(text)));
        }
    }

    #[test]
    fn calibration_measures_are_means_over_cases() {
        for (text, brier_expected, log_loss_expected) in [
            ("", None, None),
            ("1+ 0-", Some(0.0), Some(0.0)),
            ("0.5+ 0.5-", Some(0.25), Some(2.0_f64.ln())),
            ("0.8+ 0.2+", Some((0.04 + 0.64) / 2.0), Some(-(0.8_f64.ln() + 0.2_f64.ln()) / 2.0)),
            // Certain and wrong: bounded.
            ("0+", Some(1.0), Some(-LOG_LOSS_EPSILON.ln())),
        ] {
            let cases = cases(text);
            assert!(near(brier(&cases), brier_expected), "{text}: {:?}", brier(&cases));
            assert!(near(log_loss(&cases), log_loss_expected), "{text}: {:?}", log_loss(&cases));
        }
    }

    #[test]
    fn ece_compares_each_tenth_with_its_outcomes() {
        let bins = |case: fn(usize) -> Case| (0..100).map(case).collect::<Vec<_>>();
        // Each bin of ten has one score; none of the first bin is positive, one in ten of the second, and so on.
        let perfect = bins(|at| Case { score: (at / 10) as f64 / 10.0, positive: at % 10 < at / 10 });
        assert!(near(ece(&perfect), Some(0.0)), "{:?}", ece(&perfect));
        let over = bins(|at| Case { score: (at / 10) as f64 / 10.0 + 0.05, positive: at % 10 < at / 10 });
        assert!(near(ece(&over), Some(0.05)), "{:?}", ece(&over));
        // Two halves, off by 0.2 up and by 0.3 down.
        let halves = bins(|at| Case { score: if at < 50 { 0.2 } else { 0.7 }, positive: at >= 50 });
        assert!(near(ece(&halves), Some(0.25)), "{:?}", ece(&halves));
        assert!(near(ece(&cases("0.4+")), Some(0.6)), "fewer cases than bins");
        assert_eq!(ece(&[]), None);
    }

    #[test]
    fn bins_are_tenths_in_the_order_of_scores() {
        let hundred: Vec<_> = (0..100).map(|at| Case { score: at as f64 / 100.0, positive: at % 20 == 0 }).collect();
        let tenths = bins(&hundred);
        assert_eq!(tenths.len(), 10);
        assert!(tenths.iter().all(|bin| bin.cases == 10) && tenths.is_sorted_by(|a, b| a.mean_score < b.mean_score));
        assert!((tenths[0].mean_score - 0.045).abs() < 1e-12, "{:?}", tenths[0]);
        assert_eq!((tenths[0].positives, tenths[0].rate, tenths[1].positives), (1, 0.1, 0));
        let few = bins(&cases("0.9+ 0.1- 0.5-"));
        assert_eq!(
            few.iter().map(|bin| (bin.cases, bin.mean_score)).collect::<Vec<_>>(),
            [(1, 0.1), (1, 0.5), (1, 0.9)]
        );
        assert_eq!(bins(&[]), []);
    }

    /// Values of Wilson's interval from statistical tables.
    #[test]
    fn intervals_are_wilsons() {
        for (positives, n, low, high) in [
            (0.0, 10.0, 0.0, 0.2775),
            (5.0, 10.0, 0.2366, 0.7634),
            (10.0, 10.0, 0.7225, 1.0),
            (81.0, 263.0, 0.2553, 0.3662),
        ] {
            let (found_low, found_high) = wilson(positives / n, n);
            assert!(
                (found_low - low).abs() < 1e-4 && (found_high - high).abs() < 1e-4,
                "{positives}/{n}: {found_low} {found_high}"
            );
        }
    }

    proptest! {
        #[test]
        fn ranking_agrees_with_counting_all_pairs(drawn in prop::collection::vec((0_u8..8, any::<bool>()), 0..60)) {
            let cases: Vec<_> =
                drawn.iter().map(|(s, positive)| Case { score: f64::from(*s) / 8.0, positive: *positive }).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for above in cases.iter().filter(|case| case.positive) {
                for below in cases.iter().filter(|case| !case.positive) {
                    pairs += 1.0;
                    won += if above.score > below.score { 1.0 } else if above.score == below.score { 0.5 } else { 0.0 };
                }
            }
            prop_assert!(near(roc_auc(&cases), (pairs > 0.0).then(|| won / pairs)));
        }
    }
}
