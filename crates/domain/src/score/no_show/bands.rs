//! Where levels begin: at multiples of the tenant's own rate, at quantiles of its recent scores, or where a step pays
//! off.
//!
//! Base rates differ by field, so no fixed threshold fits every tenant. **Multiples** need only the rate. **Quantiles**
//! state how many visits staff can call about: the riskiest fifth, for example. **Costs** determine when a step is
//! worth more than it costs: a call pays off from the score at which `score × missed × what a call prevents` reaches
//! its price.
//!
//! Quantiles need recent visits with outcomes; until a tenant has some, multiples are used.

use super::calibration::Calibration;
use super::{Config, Rates};
use crate::score::{InvalidConfig, RiskLevel};
use serde::{Deserialize, Serialize};

/// Where levels begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bands {
    /// What decides.
    pub by: BandMethod,
    /// Share of recent visits below level medium, 0 to 1.
    pub medium_quantile: f64,
    /// Share of recent visits below level high, 0 to 1; not below `medium_quantile`.
    pub high_quantile: f64,
    /// What a missed visit costs, in any unit.
    pub missed_cost: f64,
    /// What the step of level medium costs, in the same unit.
    pub medium_cost: f64,
    /// What the step of level high costs, in the same unit.
    pub high_cost: f64,
    /// Share of missed visits, 0 to 1, that the step of level medium prevents.
    pub medium_prevents: f64,
    /// Share of missed visits, 0 to 1, that the step of level high prevents.
    pub high_prevents: f64,
}

/// What decides where levels begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BandMethod {
    /// [`Config::medium_at`] and [`Config::high_at`] times the tenant's rate.
    #[default]
    Multiples,
    /// The quantiles of recent scores.
    Quantiles,
    /// The scores from which a step pays off.
    Costs,
}

impl Default for Bands {
    fn default() -> Self {
        Self {
            by: BandMethod::Multiples,
            medium_quantile: 0.5,
            high_quantile: 0.8,
            missed_cost: 50.0,
            medium_cost: 0.1,
            high_cost: 4.0,
            // Relative risks of a no-show: 0.77 after a text, 0.61 after a call.
            medium_prevents: 0.23,
            high_prevents: 0.39,
        }
    }
}

impl Bands {
    /// Whether levels can be computed from it.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        InvalidConfig::unless(share(self.medium_quantile), "bands.medium_quantile", "from 0 to 1")?;
        let ordered = share(self.high_quantile) && self.high_quantile >= self.medium_quantile;
        InvalidConfig::unless(ordered, "bands.high_quantile", "between medium_quantile and 1")?;
        InvalidConfig::unless_positive(self.missed_cost, "bands.missed_cost")?;
        let cost = |value: f64| value.is_finite() && value >= 0.0;
        InvalidConfig::unless(cost(self.medium_cost), "bands.medium_cost", "a finite number, 0 or more")?;
        InvalidConfig::unless(cost(self.high_cost), "bands.high_cost", "a finite number, 0 or more")?;
        let prevents = |value: f64| value > 0.0 && value <= 1.0;
        InvalidConfig::unless(prevents(self.medium_prevents), "bands.medium_prevents", "above 0, up to 1")?;
        InvalidConfig::unless(prevents(self.high_prevents), "bands.high_prevents", "above 0, up to 1")
    }
}

/// The scores at which levels begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandThresholds {
    /// Of level medium.
    pub medium: f64,
    /// Of level high.
    pub high: f64,
}

impl BandThresholds {
    /// The thresholds of a tenant with these rates and recent visits.
    pub fn of(rates: &Rates, recent: Option<&Calibration>, config: &Config) -> Self {
        let multiples = Self { medium: rates.tenant * config.medium_at, high: rates.tenant * config.high_at };
        let bands = &config.bands;
        match bands.by {
            BandMethod::Multiples => multiples,
            BandMethod::Quantiles => {
                let quantile = |share| recent.and_then(|recent| recent.quantile(share));
                let quantiles = quantile(bands.medium_quantile).zip(quantile(bands.high_quantile));
                quantiles.map_or(multiples, |(medium, high)| Self { medium, high })
            }
            BandMethod::Costs => {
                let pays = |cost: f64, prevents: f64| cost / (bands.missed_cost * prevents);
                let (medium, high) =
                    (pays(bands.medium_cost, bands.medium_prevents), pays(bands.high_cost, bands.high_prevents));
                Self { medium, high }
            }
        }
    }

    /// The level of a score.
    pub fn level(&self, score: f64) -> RiskLevel {
        match score {
            score if score >= self.high => RiskLevel::High,
            score if score >= self.medium => RiskLevel::Medium,
            _ => RiskLevel::Low,
        }
    }
}
