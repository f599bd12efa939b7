//! How much likelier an attempt is from an attacker than from its user.
//!
//! The likelihood ratio is the one of Freeman, Jain, Dürmuth, Biggio and Giacinto, *Who Are You? A Statistical
//! Approach to Measuring User Authenticity* (NDSS 2016), in the form that Wiefling, Dürmuth and Lo Iacono published
//! for public login services, without attack data. Two features, the address and the client software, are each
//! compared at several levels, from the whole value (the strongest) to the country or the device type:
//!
//! ```text
//! S      = g/l of the address × g/l of the client × N / (U · N_u)
//! g      = w₁ · n/(n + m) · max(c₁, 1)/(N + M) + Σ_{h ≥ 2} w_h · c_h/N       everybody's logins
//! l      = Σ_h w_h · cu_h/N_u                                                 the user's logins
//! score  = S'/(1 + S'),  S' = S × the factor of each signal
//! ```
//!
//! with `N` logins of `U` accounts, `N_u` of them the user's; `c_h` (`cu_h`) of them with the attempt's value at
//! level `h`; `n = c₁`; `M` and `m` one more than the distinct values of the lower levels, in all logins and in
//! the `n`. Only successes count. Where nothing matches, the ratio of a feature is [`UNKNOWN_RATIO`].
//!
//! The publication has a weakness that [`Mode::Monotone`] repairs: an attempt of which only a weak level matches
//! can score far above one of which nothing matches at all. There the ratio is the smallest that any matched level
//! gives together with the levels below it, and at most [`UNKNOWN_RATIO`]; so one more match never raises S.
//!
//! The levels that an attempt lacks (no geography data, say) leave both sums: they are neutral.

mod likelihood;
mod signal;
#[cfg(test)]
mod tests;

pub use likelihood::UNKNOWN_RATIO;

use super::{Code, Decision, InvalidConfig, Level as Risk, Model, Reason};
use crate::event::login::Attempt;
use crate::store::RowKey;
use crate::view::Aggregate;
use crate::view::feature::{self, Feature, Level};
use crate::view::materialized::Materialized;
use crate::view::user::{Logins, User};
use likelihood::{ADDRESS, Base, CLIENT};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// How weak matches count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As it was published.
    Faithful,
    /// One more match never raises the risk.
    #[default]
    Monotone,
}

/// Thresholds and factors of login scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How weak matches count.
    pub mode: Mode,
    /// Score, 0 to 1, from which the decision is a challenge and the level medium.
    pub challenge_at: f64,
    /// Score, 0 to 1, from which the decision is to deny and the level high; not below `challenge_at`.
    pub deny_at: f64,
    /// Factor on S for a device that is not among the user's known ones.
    pub new_device_factor: f64,
    /// Factor on S for a country that is new for the user.
    pub new_country_factor: f64,
    /// Factor on S for many recent failures of the account.
    pub failure_burst_factor: f64,
    /// Failures of the account within 15 minutes from which they are many.
    pub failure_burst_min: usize,
    /// Factor on S for an address or network where many accounts failed of late.
    pub ip_fan_out_factor: f64,
    /// Accounts that failed at the address within 30 minutes from which they are many.
    pub ip_fan_out_users_min: usize,
    /// Accounts that failed in the /24 or /48 within 30 minutes from which they are many.
    pub network_fan_out_users_min: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Monotone,
            challenge_at: 0.5,
            deny_at: 10.0 / 11.0,
            new_device_factor: 3.0,
            new_country_factor: 2.0,
            failure_burst_factor: 3.0,
            failure_burst_min: 5,
            ip_fan_out_factor: 10.0,
            ip_fan_out_users_min: 6,
            network_fan_out_users_min: 20,
        }
    }
}

impl Config {
    /// Whether scores can be computed with it.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        InvalidConfig::unless(is_share(self.challenge_at), "challenge_at", "from 0 to 1")?;
        let ordered = is_share(self.deny_at) && self.deny_at >= self.challenge_at;
        InvalidConfig::unless(ordered, "deny_at", "from challenge_at to 1")?;
        InvalidConfig::unless_positive(self.new_device_factor, "new_device_factor")?;
        InvalidConfig::unless_positive(self.new_country_factor, "new_country_factor")?;
        InvalidConfig::unless_positive(self.failure_burst_factor, "failure_burst_factor")?;
        InvalidConfig::unless_positive(self.ip_fan_out_factor, "ip_fan_out_factor")
    }

    /// What computes the scores.
    pub const fn model(&self) -> Model {
        match self.mode {
            Mode::Faithful => Model { id: "login-likelihood-faithful", version: "1" },
            Mode::Monotone => Model { id: "login-likelihood-monotone", version: "1" },
        }
    }
}

/// The feature rows that belong to an attempt, merged over their source partitions.
#[derive(Debug, Clone, Default)]
pub struct Features(BTreeMap<Level, Arc<Feature>>);

impl Features {
    /// The rows to read for an attempt: the tenant's totals and one for each value that it has.
    pub fn keys(tenant: &str, attempt: &Attempt) -> Vec<(Level, RowKey)> {
        std::iter::once(Level::All)
            .chain(Level::VALUES)
            .filter_map(|level| Some((level, feature::key(tenant, level, &level.value(attempt)?))))
            .collect()
    }

    /// What rows in memory hold for an attempt.
    pub fn of(rows: &Materialized<Logins>, tenant: &str, attempt: &Attempt) -> Self {
        let mut features = Self::default();
        for (level, key) in Self::keys(tenant, attempt) {
            for partial in rows.partials(&key) {
                if let Aggregate::Feature(feature) = partial {
                    features.merge(level, feature);
                }
            }
        }
        features
    }

    /// Takes one partial of a row in.
    pub fn merge(&mut self, level: Level, partial: &Feature) {
        Arc::make_mut(self.0.entry(level).or_default()).merge(partial);
    }

    /// Takes a row in whose partials are merged already.
    pub fn insert(&mut self, level: Level, merged: Arc<Feature>) {
        self.0.insert(level, merged);
    }

    fn get(&self, level: Level) -> Option<&Feature> {
        self.0.get(&level).map(AsRef::as_ref)
    }

    fn successes(&self, level: Level) -> u64 {
        self.get(level).map_or(0, |row| row.successes)
    }

    /// `M` or `m`: one more than the distinct values of the lower levels of `feature` in the row of `level`.
    fn distinct_below(&self, level: Level, feature: &[(Level, f64)]) -> f64 {
        let distinct = |row: &Feature| feature.iter().skip(1).map(|(lower, _)| row.distinct(*lower)).sum::<u64>();
        1.0 + self.get(level).map_or(0, distinct) as f64
    }
}

/// What a login is scored by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The user's row; none for a user never seen.
    pub user: Option<&'a User>,
    /// See [`Features::keys`].
    pub features: &'a Features,
    /// What the attempt looks like.
    pub attempt: &'a Attempt,
    /// When it happens.
    pub at_ms: i64,
}

/// A user's history, as far as answers show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Successful logins.
    pub successes: u64,
    /// Failures in the last 15 minutes.
    pub failures_recent: usize,
    /// Earliest attempt.
    pub first_seen_ms: Option<i64>,
    /// Latest success.
    pub last_success_ms: Option<i64>,
}

impl History {
    /// The history at an instant.
    pub fn at(user: &User, at_ms: i64) -> Self {
        Self {
            successes: user.successes,
            failures_recent: user.failures_at(at_ms),
            first_seen_ms: user.first_seen_ms,
            last_success_ms: user.last_success_ms,
        }
    }
}

/// A scored login.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// `S'/(1 + S')`, 0 to 1; none where the user has no history.
    pub score: Option<f64>,
    /// S before the factors of signals; none where the user has no history.
    pub likelihood_ratio: Option<f64>,
    /// How risky it is.
    pub level: Risk,
    /// What to do.
    pub decision: Decision,
    /// Why; the effects add up to `ln S'`, and are all 0 where nothing was scored.
    pub reasons: Vec<Reason>,
    /// The user's history.
    pub history: History,
}

/// Scores an attempt. Without a success of the user there is nothing to compare with: unscored, to be challenged.
pub fn score(evidence: &Evidence<'_>, config: &Config) -> Score {
    match evidence.user.filter(|user| user.successes > 0) {
        Some(user) => scored(evidence, user, config),
        None => unscored(evidence, config),
    }
}

fn scored(evidence: &Evidence<'_>, user: &User, config: &Config) -> Score {
    let base = Base::of(evidence, user);
    let address = base.compare(ADDRESS, config.mode);
    let client = base.compare(CLIENT, config.mode);
    let likelihood_ratio = address.ratio * client.ratio * base.prior();
    let signals = signal::all(evidence, user, config);
    let odds = signals.iter().fold(likelihood_ratio, |odds, signal| odds * signal.factor).min(f64::MAX);
    let score = odds / (1.0 + odds);

    let (level, decision) = match score {
        score if score >= config.deny_at => (Risk::High, Decision::Deny),
        score if score >= config.challenge_at => (Risk::Medium, Decision::Challenge),
        _ => (Risk::Low, Decision::Allow),
    };
    let mut reasons = vec![base.reason()];
    reasons.extend(address.reasons(&[Code::NewIp, Code::NewNetwork], Code::KnownIp));
    reasons.extend(client.reasons(&[Code::NewUserAgent], Code::KnownUserAgent));
    reasons.extend(signals.into_iter().map(|signal| signal.reason(signal.factor.ln())));
    let history = History::at(user, evidence.at_ms);
    Score { score: Some(score), likelihood_ratio: Some(likelihood_ratio), level, decision, reasons, history }
}

fn unscored(evidence: &Evidence<'_>, config: &Config) -> Score {
    let text = "The account has no successful login yet that this one could be compared with.";
    let mut reasons = vec![Reason::new(Code::FirstLogin, 0.0, text)];
    reasons.extend(signal::attacks(evidence, config).into_iter().map(|signal| signal.reason(0.0)));
    let history = evidence.user.map(|user| History::at(user, evidence.at_ms)).unwrap_or_default();
    let (level, decision) = (Risk::Unscored, Decision::Challenge);
    Score { score: None, likelihood_ratio: None, level, decision, reasons, history }
}
