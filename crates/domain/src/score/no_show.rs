//! How likely a visit is to be missed, and what to do about it.
//!
//! Two models compute scores: [`counters`], which need only rows and work for every tenant, and a trained [`model`], if
//! the tenant has published one that was trained on its own visits. [`calibration`] corrects a trained model by recent
//! outcomes. In both, effects add up, and [`bands`] derive a level from the score.
//!
//! Excluded on purpose: reminders that were sent, because they are treatments, and attributes that the settings list as
//! protected. The score decides which clients to remind and to call; it must never decide which clients to turn away.

pub mod bands;
pub mod calibration;
pub mod context;
pub mod counters;
pub mod input;
pub mod model;
mod reasons;

pub use counters::Rates;

use super::{InvalidConfig, OnUnavailable, Reason, RecommendedAction, RiskLevel, logistic};
use crate::view::client::snapshot::Snapshot;
use crate::view::client::{Client, ClientHistory};
use crate::view::lead::Lead;
use bands::{BandThresholds, Bands};
use calibration::Calibration;
use model::NoShowModel;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Weights, priors and thresholds of no-show scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `w`: how much the client's own record counts; 0 ignores it.
    pub weight: f64,
    /// `k`: missed days, observed and expected, that every client is credited with.
    pub prior_no_shows: f64,
    /// Visits at the tenant's rate that each lead bucket is credited with.
    pub prior_visits: f64,
    /// The rate, between 0 and 1, of a tenant without outcomes.
    pub prior_rate: f64,
    /// Visits at `prior_rate` that each tenant is credited with.
    pub prior_rate_visits: f64,
    /// Level medium from this many times the tenant's rate.
    pub medium_at: f64,
    /// Level high from this many times the tenant's rate; not below `medium_at`.
    pub high_at: f64,
    /// What to answer if the client's row cannot be read in time: an error, or a score by the tenant's rates alone.
    pub on_unavailable: OnUnavailable,
    /// What is recommended at each level.
    pub actions: Actions,
    /// Where levels begin.
    pub bands: Bands,
    /// Names of attributes, case-insensitive, that no score may depend on: training ignores them, and a published model
    /// that uses one is rejected.
    pub protected_attributes: Vec<String>,
    /// Days after which an outcome counts half as much for the calibration of a trained model.
    pub recalibration_half_life_days: f64,
    /// Days that it looks back; at most [`RECALIBRATION_DAYS_MAX`].
    pub recalibration_days: u16,
}

/// Most days that a calibration may look back.
pub(crate) const RECALIBRATION_DAYS_MAX: u16 = 366;

/// Attributes that no score should depend on unless the tenant decides so deliberately.
const PROTECTED: [&str; 14] = [
    "gender",
    "sex",
    "race",
    "ethnicity",
    "ethnic_group",
    "religion",
    "disability",
    "handicap",
    "nationality",
    "citizenship",
    "sexual_orientation",
    "political_opinion",
    "trade_union",
    "pregnancy",
];

/// What is recommended at each level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// At level low.
    pub low: RecommendedAction,
    /// At level medium.
    pub medium: RecommendedAction,
    /// At level high.
    pub high: RecommendedAction,
}

impl Default for Actions {
    fn default() -> Self {
        Self { low: RecommendedAction::Remind, medium: RecommendedAction::Remind, high: RecommendedAction::Call }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weight: 1.0,
            prior_no_shows: 1.5,
            prior_visits: 20.0,
            prior_rate: 0.1,
            prior_rate_visits: 20.0,
            medium_at: 1.0,
            high_at: 2.0,
            on_unavailable: OnUnavailable::Challenge,
            actions: Actions::default(),
            bands: Bands::default(),
            protected_attributes: PROTECTED.map(str::to_owned).into(),
            recalibration_half_life_days: 28.0,
            recalibration_days: 56,
        }
    }
}

impl Config {
    /// Whether scores can be computed with it.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let weight = self.weight.is_finite() && self.weight >= 0.0;
        InvalidConfig::unless(weight, "weight", "a finite number, 0 or more")?;
        InvalidConfig::unless_positive(self.prior_no_shows, "prior_no_shows")?;
        InvalidConfig::unless_positive(self.prior_visits, "prior_visits")?;
        let is_rate = self.prior_rate > 0.0 && self.prior_rate < 1.0;
        InvalidConfig::unless(is_rate, "prior_rate", "between 0 and 1")?;
        InvalidConfig::unless_positive(self.prior_rate_visits, "prior_rate_visits")?;
        InvalidConfig::unless_positive(self.medium_at, "medium_at")?;
        let ordered = self.high_at.is_finite() && self.high_at >= self.medium_at;
        InvalidConfig::unless(ordered, "high_at", "a finite number, medium_at or more")?;
        self.bands.validate()?;
        let half_life = self.recalibration_half_life_days.is_finite() && self.recalibration_half_life_days >= 1.0;
        InvalidConfig::unless(half_life, "recalibration_half_life_days", "a finite number, 1 or more")?;
        let days = (1..=RECALIBRATION_DAYS_MAX).contains(&self.recalibration_days);
        InvalidConfig::unless(days, "recalibration_days", "from 1 to 366")
    }
}

/// The inputs of a visit's score.
#[derive(Debug, Clone, Copy)]
pub struct VisitEvidence<'a> {
    /// The client's row; none for a client never seen.
    pub client: Option<&'a Client>,
    /// The tenant's outcomes, merged over their source partitions.
    pub lead: &'a Lead,
    /// Whole days from booking to visit, in the visit's zone; below 0 counts as 0.
    pub lead_days: i32,
}

/// The model that computed a score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoShowModelVersion {
    /// Its name.
    pub id: &'static str,
    /// The version of the published model; for the two counters, raised when the same rows give a different score.
    pub version: Cow<'static, str>,
}

/// The model for a tenant that has published none.
pub const TWO_COUNTERS: NoShowModelVersion =
    NoShowModelVersion { id: "no-show-two-counters", version: Cow::Borrowed("1") };
/// The name of trained models.
pub const TRAINED: &str = "no-show-trained";

/// A trained model in force.
#[derive(Debug, Clone, Copy)]
pub struct ModelInForce<'a> {
    /// The model.
    pub model: &'a NoShowModel,
    /// Its version.
    pub version: &'a str,
    /// The correction of its scores.
    pub calibration: &'a Calibration,
}

/// A scored visit.
#[derive(Debug, Clone, PartialEq)]
pub struct VisitScore {
    /// Probability of a no-show, between 0 and 1.
    pub score: f64,
    /// How risky it is, compared with the tenant's own rate; never unscored.
    pub level: RiskLevel,
    /// What to do about it.
    pub recommended_action: RecommendedAction,
    /// Why; the effects add up to the log-odds of the score.
    pub reasons: Vec<Reason>,
    /// How the client has kept their appointments.
    pub history: ClientHistory,
    /// The model that computed it.
    pub model: NoShowModelVersion,
}

/// Scores a visit by two counters, without recent scores.
pub fn score(evidence: &VisitEvidence<'_>, config: &Config) -> VisitScore {
    score_by_counters(evidence, None, config)
}

/// Scores a visit by two counters; quantiles are taken from `recent`.
pub(crate) fn score_by_counters(
    evidence: &VisitEvidence<'_>,
    recent: Option<&Calibration>,
    config: &Config,
) -> VisitScore {
    let rates = Rates::of(evidence.lead, config);
    let reasons = counters::reasons(evidence, &rates, config);
    finish(reasons, TWO_COUNTERS, evidence.client, BandThresholds::of(&rates, recent, config), config)
}

/// Scores a visit by a trained model.
pub fn score_by_model(
    visit: &Snapshot,
    client: Option<&Client>,
    lead: &Lead,
    by: ModelInForce<'_>,
    config: &Config,
) -> VisitScore {
    let thresholds = BandThresholds::of(&Rates::of(lead, config), Some(by.calibration), config);
    let model = NoShowModelVersion { id: TRAINED, version: Cow::Owned(by.version.to_owned()) };
    finish(reasons::of(visit, by.model, by.calibration), model, client, thresholds, config)
}

fn finish(
    reasons: Vec<Reason>,
    model: NoShowModelVersion,
    client: Option<&Client>,
    thresholds: BandThresholds,
    config: &Config,
) -> VisitScore {
    let score = logistic(reasons.iter().map(|reason| reason.effect).sum());
    let level = thresholds.level(score);
    let recommended_action = match level {
        RiskLevel::High => config.actions.high,
        RiskLevel::Medium => config.actions.medium,
        RiskLevel::Low | RiskLevel::Unscored => config.actions.low,
    };
    let history = client.map(|client| client.history).unwrap_or_default();
    VisitScore { score, level, recommended_action, reasons, history, model }
}

#[cfg(test)]
mod tests;
