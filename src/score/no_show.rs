//! How likely a visit is to be missed: two counters, the tenant's by lead and the client's own.
//!
//! ```text
//! log-odds = logit(rate of the visit's lead bucket) + w · ln((O + k)/(E + k))
//! ```
//!
//! `O` is how many days the client missed, `E` how many a client with their leads would have missed at the tenant's
//! rates, `k` how much of both everybody is credited with, so that one missed visit does not brand a client. Only
//! outcomes that have arrived count: a past visit that nobody reported on is unknown, not kept.
//!
//! A bucket's rate is smoothed towards the tenant's, and the tenant's towards [`Config::prior_rate`], which alone
//! speaks for a tenant without outcomes. Rates are read from the rows at each score, so outcomes recalibrate the
//! model as they arrive.
//!
//! What is absent on purpose: attributes of people (age, sex, place) and reminders sent, which are treatments. The
//! score decides whom to remind and to call; it must never decide whom to turn away.

use super::{Action, Code, InvalidConfig, Level, Model, Reason, logistic, logit};
use crate::view::client::{Client, History};
use crate::view::lead::{self, Lead, Outcomes};
use serde::{Deserialize, Serialize};

/// Weights, priors and thresholds of no-show scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `w`: how much the client's own record counts; 0 leaves it out.
    pub weight: f64,
    /// `k`: missed days, observed and expected, that everybody is credited with.
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
    /// What is recommended at each level.
    pub actions: Actions,
}

/// What is recommended at each level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// At level low.
    pub low: Action,
    /// At level medium.
    pub medium: Action,
    /// At level high.
    pub high: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Self { low: Action::Remind, medium: Action::Remind, high: Action::Call }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weight: 1.0,
            prior_no_shows: 2.0,
            prior_visits: 20.0,
            prior_rate: 0.1,
            prior_rate_visits: 20.0,
            medium_at: 1.0,
            high_at: 2.0,
            actions: Actions::default(),
        }
    }
}

impl Config {
    /// Whether scores can be computed with it.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let weight = self.weight.is_finite() && self.weight >= 0.0;
        InvalidConfig::unless(weight, "weight", "a finite number from 0")?;
        InvalidConfig::unless_positive(self.prior_no_shows, "prior_no_shows")?;
        InvalidConfig::unless_positive(self.prior_visits, "prior_visits")?;
        let is_rate = self.prior_rate > 0.0 && self.prior_rate < 1.0;
        InvalidConfig::unless(is_rate, "prior_rate", "between 0 and 1")?;
        InvalidConfig::unless_positive(self.prior_rate_visits, "prior_rate_visits")?;
        InvalidConfig::unless_positive(self.medium_at, "medium_at")?;
        let ordered = self.high_at.is_finite() && self.high_at >= self.medium_at;
        InvalidConfig::unless(ordered, "high_at", "a finite number from medium_at")
    }

    /// What computes the scores.
    pub const fn model(&self) -> Model {
        Model { id: "no-show-two-counters", version: "1" }
    }
}

/// What a visit is scored by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The client's row; none for a client never seen.
    pub client: Option<&'a Client>,
    /// The tenant's outcomes, merged over their source partitions.
    pub lead: &'a Lead,
    /// Whole days from booking to visit, in the visit's zone; below 0 counts as 0.
    pub lead_days: i32,
}

/// A scored visit.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Probability of a no-show, between 0 and 1.
    pub score: f64,
    /// How risky it is, compared with the tenant's own rate; never unscored.
    pub level: Level,
    /// What to do about it.
    pub recommended_action: Action,
    /// Why; the effects add up to the log-odds of the score.
    pub reasons: Vec<Reason>,
    /// How the client kept their appointments.
    pub history: History,
}

/// Scores a visit.
pub fn score(evidence: &Evidence<'_>, config: &Config) -> Score {
    let rates = Rates::of(evidence.lead, config);
    let reasons = [base(&rates), lead_time(&rates, evidence.lead_days), record(&rates, evidence.client, config)];
    let reasons: Vec<_> = reasons.into_iter().flatten().collect();
    let score = logistic(reasons.iter().map(|reason| reason.effect).sum());
    let (level, recommended_action) = match score / rates.tenant {
        times if times >= config.high_at => (Level::High, config.actions.high),
        times if times >= config.medium_at => (Level::Medium, config.actions.medium),
        _ => (Level::Low, config.actions.low),
    };
    let history = evidence.client.map(|client| client.history).unwrap_or_default();
    Score { score, level, recommended_action, reasons, history }
}

/// A tenant's smoothed rates of no-shows, each between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Over all visits.
    pub tenant: f64,
    /// By lead bucket.
    pub buckets: [f64; lead::BUCKETS.len()],
}

impl Rates {
    /// The rates that the outcomes known so far give.
    pub fn of(lead: &Lead, config: &Config) -> Self {
        let tenant = smoothed(lead.total(), config.prior_rate, config.prior_rate_visits);
        Self { tenant, buckets: lead.buckets.map(|outcomes| smoothed(outcomes, tenant, config.prior_visits)) }
    }

    fn bucket(&self, lead_days: i32) -> f64 {
        self.buckets.get(usize::from(lead::bucket(lead_days))).copied().unwrap_or(self.tenant)
    }
}

/// The rate of outcomes that are credited with `visits` at the rate `prior`.
fn smoothed(outcomes: Outcomes, prior: f64, visits: f64) -> f64 {
    // Partials that are read while a correction is under way may count below nothing.
    let (missed, attended) = (outcomes.missed.max(0) as f64, outcomes.attended.max(0) as f64);
    (missed + prior * visits) / (missed + attended + visits)
}

fn base(rates: &Rates) -> Option<Reason> {
    let text = format!("Of all visits here {:.1} % are missed.", rates.tenant * 100.0);
    Some(Reason::new(Code::BaseRate, logit(rates.tenant), text))
}

fn lead_time(rates: &Rates, lead_days: i32) -> Option<Reason> {
    let rate = rates.bucket(lead_days);
    let effect = logit(rate) - logit(rates.tenant);
    let percent = rate * 100.0;
    Some(match lead_days {
        ..=0 => {
            let text = format!("Booked for the same day; of such visits {percent:.1} % are missed.");
            Reason::new(Code::SameDayBooking, effect, text)
        }
        1 => Reason::new(
            Code::LeadTime,
            effect,
            format!("Booked a day ahead; of such visits {percent:.1} % are missed."),
        ),
        days => {
            let text = format!("Booked {days} days ahead; of such visits {percent:.1} % are missed.");
            Reason::new(Code::LeadTime, effect, text)
        }
    })
}

/// The client's own record, against what the tenant's rates would expect of their leads.
fn record(rates: &Rates, client: Option<&Client>, config: &Config) -> Option<Reason> {
    let days = client.map(|client| client.days).unwrap_or_default();
    let visits: i64 = days.iter().map(|outcomes| outcomes.visits().max(0)).sum();
    if visits == 0 {
        return Some(Reason::new(Code::NewClient, 0.0, "No visit of the client has a known outcome yet."));
    }
    let observed = days.iter().map(|outcomes| outcomes.missed.max(0)).sum::<i64>();
    let expected: f64 = days.iter().zip(rates.buckets).map(|(o, rate)| o.visits().max(0) as f64 * rate).sum();
    let effect = config.weight * ((observed as f64 + config.prior_no_shows) / (expected + config.prior_no_shows)).ln();
    let code = if effect > 0.0 { Code::PastNoShows } else { Code::PastAttendance };
    let text = format!("Missed {observed} of {visits} days with a visit; {expected:.1} would be usual.");
    Some(Reason::new(code, effect, text))
}
