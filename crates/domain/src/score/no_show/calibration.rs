//! Calibration: compares a model's scores of recent visits with their outcomes, and corrects them by an intercept and a
//! slope.
//!
//! Models drift before they forget how to rank: on later data each frozen model is 1 to 5 points too high or too low.
//! So its log-odds are corrected by a line, fitted to the outcomes that have arrived. The weight of a visit halves with
//! each half-life of its age. Visits booked for the same day have a line of their own, because they differ from all
//! others in everything.
//!
//! It is a pure function of rows and model: it has no state to keep, lose or migrate, and the same rows calibrate any
//! model that is published next. Rows keep samples, and count all outcomes by lead: a sample represents as many
//! outcomes as were counted with its lead and outcome (post-stratification), so the choice of samples on a busy day
//! changes no rate. A prior worth [`PRIOR_VISITS`] outcomes stabilises both lines if a tenant has few.

use super::Config;
use crate::score::logistic;
use crate::view::client::snapshot::Snapshot;
use crate::view::lead;
use crate::view::outcome::{DayOutcomes, Sample};
use foretell_events::time::DAY_MS;
use serde::Serialize;
use utoipa::ToSchema;

/// Outcomes, of the usual uncertainty, whose weight equals that of the prior "nothing to correct".
pub const PRIOR_VISITS: f64 = 100.0;
/// Bins of [`Calibration::reliability`].
const BINS: usize = 10;
/// A line is usually found in a few steps; if not, the last one is used.
const STEPS_MAX: usize = 25;
const STEP_MIN: f64 = 1e-9;
/// No line corrects by more than this, in log-odds at the middle, or changes the slope by more than this.
const INTERCEPT_MAX: f64 = 3.0;
const SLOPE: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// Log-odds beyond this are as good as certain.
const LOG_ODDS_MAX: f64 = 30.0;

/// A past visit: the model's score, and the outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationCase {
    /// The model's score, in log-odds.
    pub log_odds: f64,
    /// Whether the visit was missed.
    pub missed: bool,
    /// How many visits it represents today.
    pub weight: f64,
    /// Whether it was booked for the same day.
    pub is_same_day: bool,
}

/// The day, since the epoch, of an instant.
pub fn day(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

/// The days of visits that a calibration of `today` uses; they end tomorrow, because in some time zones it is already
/// tomorrow.
pub fn days(today: i64, config: &Config) -> std::ops::RangeInclusive<i64> {
    today - i64::from(config.recalibration_days)..=today + 1
}

/// Samples of recent days that are not yet turned into cases.
#[derive(Debug, Default)]
pub struct RecentSamples {
    /// Each has the weight of one outcome of its day; with its stratum.
    samples: Vec<(CalibrationCase, usize)>,
    /// Weight of all outcomes by stratum, those without a sample among them.
    seen: [f64; STRATA],
}

/// Leads by bucket, kept and missed.
const STRATA: usize = 2 * lead::BUCKETS.len();

fn stratum(bucket: usize, missed: bool) -> usize {
    2 * bucket + usize::from(missed)
}

impl RecentSamples {
    /// Adds the visits of a day `age_days` ago; `log_odds_of` computes the log-odds of each.
    pub fn add(
        &mut self,
        day: &DayOutcomes,
        log_odds_of: impl Fn(&Snapshot) -> f64,
        age_days: f64,
        half_life_days: f64,
    ) {
        let weight = (-age_days.max(0.0) / half_life_days * std::f64::consts::LN_2).exp();
        for (bucket, outcomes) in day.seen.buckets.iter().enumerate() {
            for (missed, count) in [(false, outcomes.attended), (true, outcomes.missed)] {
                self.seen[stratum(bucket, missed)] += weight * count.max(0) as f64;
            }
        }
        self.samples.extend(day.samples.values().map(|Sample { snapshot, missed }| {
            let case = CalibrationCase {
                log_odds: log_odds_of(snapshot),
                missed: *missed,
                weight,
                is_same_day: snapshot.lead_days == 0,
            };
            (case, stratum(usize::from(snapshot.lead_bucket()), *missed))
        }));
    }

    /// The samples, each weighted by the outcomes that it represents.
    pub fn cases(self) -> Vec<CalibrationCase> {
        let mut kept = [0.0; STRATA];
        self.samples.iter().for_each(|(case, stratum)| kept[*stratum] += case.weight);
        // Samples from long ago can have a weight of 0.
        let standing =
            |(case, stratum): (CalibrationCase, usize)| match case.weight * self.seen[stratum] / kept[stratum] {
                weight if weight.is_finite() => CalibrationCase { weight, ..case },
                _ => CalibrationCase { weight: 0.0, ..case },
            };
        self.samples.into_iter().map(standing).collect()
    }
}

/// How a model's log-odds are corrected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = CalibrationLine)]
pub struct Line {
    /// What is added at `middle`, in log-odds.
    pub intercept: f64,
    /// How much wider (above 1) or narrower scores are spread around `middle`.
    pub slope: f64,
    /// The mean log-odds of the visits that it was fitted to.
    pub middle: f64,
    /// How many outcomes it was fitted to, older ones in part.
    pub visits: f64,
}

impl Default for Line {
    fn default() -> Self {
        Self { intercept: 0.0, slope: 1.0, middle: 0.0, visits: 0.0 }
    }
}

impl Line {
    /// The line of these cases.
    pub fn fit(cases: &(impl Iterator<Item = CalibrationCase> + Clone)) -> Self {
        let visits: f64 = cases.clone().map(|case| case.weight).sum();
        if visits <= 0.0 {
            return Self::default();
        }
        let mean = |value: fn(&CalibrationCase) -> f64| {
            cases.clone().map(|case| case.weight * value(&case)).sum::<f64>() / visits
        };
        let middle = mean(|case| case.log_odds);
        // The information that the outcomes of the usual visit carry about a line; the prior is worth as much as
        // `PRIOR_VISITS` of them.
        let prior = mean(|case| logistic(case.log_odds) * (1.0 - logistic(case.log_odds))).max(1e-3) * PRIOR_VISITS;
        let mut line = Self { middle, visits, ..Self::default() };
        for _ in 0..STEPS_MAX {
            let (up, turn) = line.step(cases.clone(), prior);
            line.intercept = (line.intercept + up).clamp(-INTERCEPT_MAX, INTERCEPT_MAX);
            line.slope = (line.slope + turn).clamp(*SLOPE.start(), *SLOPE.end());
            if up.abs().max(turn.abs()) < STEP_MIN {
                break;
            }
        }
        line
    }

    /// A step of Newton's method: the changes of the intercept and of the slope.
    fn step(&self, cases: impl Iterator<Item = CalibrationCase>, prior: f64) -> (f64, f64) {
        let (mut up, mut turn) = (-prior * self.intercept, -prior * (self.slope - 1.0));
        let (mut uu, mut ut, mut tt) = (prior, 0.0, prior);
        for case in cases {
            let x = case.log_odds - self.middle;
            let score = logistic(self.apply(case.log_odds));
            let (gap, sure) = (f64::from(u8::from(case.missed)) - score, score * (1.0 - score) * case.weight);
            up += case.weight * gap;
            turn += case.weight * gap * x;
            uu += sure;
            ut += sure * x;
            tt += sure * x * x;
        }
        let determinant = uu * tt - ut * ut;
        ((tt * up - ut * turn) / determinant, (uu * turn - ut * up) / determinant)
    }

    /// Corrected log-odds.
    pub fn apply(&self, log_odds: f64) -> f64 {
        let turned = self.middle + self.slope * (log_odds - self.middle);
        (turned + self.intercept).clamp(-LOG_ODDS_MAX, LOG_ODDS_MAX)
    }
}

/// How a model is corrected for a tenant, and from what data: see the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Calibration {
    /// Of visits booked for the same day.
    pub same_day: Line,
    /// Of all others.
    pub later: Line,
    /// The outcomes of recent visits, by tenths of their corrected scores, the lowest first; empty without visits.
    pub reliability: Vec<ReliabilityBin>,
    /// The corrected scores below which these shares of recent visits lie, see [`Calibration::quantile`].
    #[serde(skip)]
    pub(super) quantiles: Vec<f64>,
}

/// A tenth of recent visits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct ReliabilityBin {
    /// The lowest score in it.
    pub from: f64,
    /// The mean of its scores.
    pub score: f64,
    /// The share that was missed.
    pub missed: f64,
    /// How many outcomes; older ones count in part.
    pub visits: f64,
}

/// Steps of the quantiles that are kept: hundredths.
const QUANTILES: usize = 100;
/// With fewer outcomes, where older ones count in part, quantiles are not reliable.
const QUANTILE_VISITS_MIN: f64 = 100.0;

impl Calibration {
    /// The calibration that these visits give.
    pub fn fit(cases: &[CalibrationCase]) -> Self {
        let of = |is_same_day: bool| Line::fit(&cases.iter().copied().filter(move |c| c.is_same_day == is_same_day));
        Self { same_day: of(true), later: of(false), ..Self::default() }.with_reliability(cases)
    }

    /// The outcomes of these visits, without any correction.
    pub fn uncorrected(cases: &[CalibrationCase]) -> Self {
        Self::default().with_reliability(cases)
    }

    fn with_reliability(self, cases: &[CalibrationCase]) -> Self {
        let mut calibration = self;
        let mut scored: Vec<_> =
            cases.iter().map(|case| (logistic(calibration.apply(case.log_odds, case.is_same_day)), *case)).collect();
        scored.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        calibration.reliability = bins(&scored);
        calibration.quantiles = quantiles(&scored);
        calibration
    }

    /// Corrected log-odds of a visit.
    pub fn apply(&self, log_odds: f64, is_same_day: bool) -> f64 {
        if is_same_day { self.same_day.apply(log_odds) } else { self.later.apply(log_odds) }
    }

    /// The score that a share, 0 to 1, of recent visits does not exceed; none with fewer than 100 visits.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        self.quantiles.get((share * QUANTILES as f64).round() as usize).copied()
    }
}

fn bins(scored: &[(f64, CalibrationCase)]) -> Vec<ReliabilityBin> {
    let bounds: Vec<_> = (0..=BINS).map(|bin| bin * scored.len() / BINS).collect();
    let bins = bounds.windows(2).filter_map(|ends| scored.get(ends[0]..ends[1])).filter(|bin| !bin.is_empty());
    bins.map(|bin| {
        let visits: f64 = bin.iter().map(|(_, case)| case.weight).sum();
        let mean = |value: &dyn Fn(&(f64, CalibrationCase)) -> f64| {
            bin.iter().map(|scored| scored.1.weight * value(scored)).sum::<f64>() / visits
        };
        let from = bin.first().map_or(0.0, |(score, _)| *score);
        let (score, missed) = (mean(&|(score, _)| *score), mean(&|(_, case)| f64::from(u8::from(case.missed))));
        ReliabilityBin { from, score, missed, visits }
    })
    .collect()
}

fn quantiles(scored: &[(f64, CalibrationCase)]) -> Vec<f64> {
    let all: f64 = scored.iter().map(|(_, case)| case.weight).sum();
    let (Some((highest, _)), true) = (scored.last(), all >= QUANTILE_VISITS_MIN) else { return Vec::new() };
    let mut rest = scored.iter();
    let (mut below, mut score) = (0.0, *highest);
    let quantile = |step: usize| {
        let wanted = all * step as f64 / QUANTILES as f64;
        while below <= wanted
            && let Some((next, case)) = rest.next()
        {
            (below, score) = (below + case.weight, *next);
        }
        score
    };
    (0..=QUANTILES).map(quantile).collect()
}
