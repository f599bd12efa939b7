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

use super::{Code, Decision, InvalidConfig, Level as Risk, Model, Reason};
use crate::event::login::Attempt;
use crate::store::RowKey;
use crate::view::feature::{self, Feature, Level};
use crate::view::user::User;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// The ratio of a feature of which no level matches the user's history.
pub const UNKNOWN_RATIO: f64 = 4.0;

/// Levels of the address with their weights, the strongest first.
const ADDRESS: &[(Level, f64)] = &[(Level::Ip, 0.6), (Level::Asn, 0.3), (Level::Country, 0.1)];
/// Levels of the client software with their weights, the strongest first.
const CLIENT: &[(Level, f64)] = &[
    (Level::UserAgent, 0.538_665_384_055_135_9),
    (Level::Browser, 0.268_045_149_862_566_6),
    (Level::Os, 0.188_182_951_001_095_36),
    (Level::DeviceType, 0.005_106_515_081_202_152_5),
];

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
    let signals = [device(evidence, user, config), country(evidence, user, config)];
    let attacks = attacks(evidence, config);
    let signals: Vec<_> = signals.into_iter().flatten().chain(attacks).collect();
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
    reasons.extend(attacks(evidence, config).into_iter().map(|signal| signal.reason(0.0)));
    let history = evidence.user.map(|user| History::at(user, evidence.at_ms)).unwrap_or_default();
    let (level, decision) = (Risk::Unscored, Decision::Challenge);
    Score { score: None, likelihood_ratio: None, level, decision, reasons, history }
}

/// What both features are compared on.
struct Base<'a> {
    evidence: &'a Evidence<'a>,
    user: &'a User,
    /// `N`
    logins: f64,
    /// `U`
    users: f64,
    /// `N_u`
    own: f64,
}

impl<'a> Base<'a> {
    fn of(evidence: &'a Evidence<'a>, user: &'a User) -> Self {
        let totals = evidence.features.get(Level::All);
        // The rows are read one after the other, so the user's may be a step ahead of the totals.
        let logins = totals.map_or(0, |totals| totals.successes).max(user.successes);
        let users = totals.map_or(0, |totals| totals.first_successes).max(1);
        Self { evidence, user, logins: logins as f64, users: users as f64, own: user.successes as f64 }
    }

    fn prior(&self) -> f64 {
        self.logins / (self.users * self.own)
    }

    fn reason(&self) -> Reason {
        let times = if self.own == 1.0 { "login" } else { "logins" };
        let average = self.logins / self.users;
        let text = format!("The account has {} successful {times}; the average has {average:.1}.", self.own);
        Reason::new(Code::History, self.prior().ln(), text)
    }

    fn compare(&self, feature: &[(Level, f64)], mode: Mode) -> Comparison {
        let mut terms = Vec::with_capacity(feature.len());
        for (rank, (level, weight)) in feature.iter().enumerate() {
            let Some(value) = level.value(self.evidence.attempt) else { continue };
            let own = self.user.count(*level, &value);
            let everybody = self.evidence.features.successes(*level).max(u64::from(own)) as f64;
            let global = if rank == 0 { self.smoothed(*level, everybody, feature) } else { everybody / self.logins };
            let local = f64::from(own) / self.own;
            terms.push(Term { level: *level, weight: *weight, global: weight * global, local: weight * local });
        }
        let ratio = match mode {
            _ if terms.is_empty() => 1.0,
            Mode::Faithful => faithful(&terms),
            Mode::Monotone => monotone(&terms),
        };
        Comparison { ratio, terms }
    }

    /// How likely the whole value is, when a value that nobody had before must be possible too.
    fn smoothed(&self, top: Level, everybody: f64, feature: &[(Level, f64)]) -> f64 {
        let features = self.evidence.features;
        let unseen = features.distinct_below(Level::All, feature);
        let inner = if everybody > 0.0 { everybody / (everybody + features.distinct_below(top, feature)) } else { 1.0 };
        inner * everybody.max(1.0) / (self.logins + unseen)
    }
}

/// A level of a feature that the attempt has a value at.
struct Term {
    level: Level,
    weight: f64,
    /// Weighted share of everybody's logins.
    global: f64,
    /// Weighted share of the user's logins.
    local: f64,
}

fn quotient(terms: &[Term]) -> f64 {
    let local: f64 = terms.iter().map(|term| term.local).sum();
    if local > 0.0 { terms.iter().map(|term| term.global).sum::<f64>() / local } else { UNKNOWN_RATIO }
}

fn faithful(terms: &[Term]) -> f64 {
    quotient(terms)
}

/// The smallest quotient of a matched level and those below it; what is above it says nothing.
fn monotone(terms: &[Term]) -> f64 {
    let matched = (0..terms.len()).filter(|at| terms[*at].local > 0.0);
    matched.map(|at| quotient(&terms[at..])).fold(UNKNOWN_RATIO, f64::min)
}

/// How a feature of the attempt compares with the user's history.
struct Comparison {
    ratio: f64,
    terms: Vec<Term>,
}

impl Comparison {
    /// One reason for each of the strongest levels that does not match, up to the first that does; `codes` names
    /// them from the strongest on. Each takes a share of the effect by its weight.
    fn reasons(&self, codes: &[Code], known: Code) -> Vec<Reason> {
        let effect = self.ratio.ln();
        let new: Vec<_> = self.new_levels(codes).collect();
        let weights: f64 = new.iter().map(|(_, weight)| weight).sum();
        if self.terms.is_empty() {
            return Vec::new();
        }
        if new.is_empty() {
            return vec![Reason::new(known, effect, describe(known))];
        }
        new.into_iter().map(|(code, weight)| Reason::new(code, effect * weight / weights, describe(code))).collect()
    }

    fn new_levels(&self, codes: &[Code]) -> impl Iterator<Item = (Code, f64)> {
        let new = self.terms.iter().take_while(|term| term.local == 0.0);
        new.filter_map(|term| Some((code_of(term.level).filter(|code| codes.contains(code))?, term.weight)))
    }
}

fn code_of(level: Level) -> Option<Code> {
    match level {
        Level::Ip => Some(Code::NewIp),
        Level::Asn => Some(Code::NewNetwork),
        Level::UserAgent => Some(Code::NewUserAgent),
        _ => None,
    }
}

fn describe(code: Code) -> &'static str {
    match code {
        Code::NewIp => "The user never logged in from this address.",
        Code::NewNetwork => "The user never logged in from this network.",
        Code::NewUserAgent => "The user never logged in with this browser and version.",
        Code::KnownIp => "The address fits the user's earlier logins.",
        _ => "The browser and system fit the user's earlier logins.",
    }
}

/// Something seen beside the likelihood, with its factor on S.
struct Signal {
    code: Code,
    description: String,
    factor: f64,
}

impl Signal {
    fn reason(&self, effect: f64) -> Reason {
        Reason::new(self.code, effect, self.description.clone())
    }
}

/// An attempt that shows no device is neutral.
fn device(evidence: &Evidence<'_>, user: &User, config: &Config) -> Option<Signal> {
    let is_new = user.device_known(evidence.attempt, evidence.at_ms) == Some(false);
    let description = "The device is not among the user's known ones.".into();
    is_new.then_some(Signal { code: Code::NewDevice, description, factor: config.new_device_factor })
}

/// Only where both the attempt and the user's history have a country.
fn country(evidence: &Evidence<'_>, user: &User, config: &Config) -> Option<Signal> {
    let country = evidence.attempt.country.as_deref()?;
    let has_history = user.values.get(&Level::Country).is_some_and(|seen| !seen.is_empty());
    let is_new = has_history && user.count(Level::Country, country) == 0;
    let description = "The user never logged in from this country.".into();
    is_new.then_some(Signal { code: Code::NewCountry, description, factor: config.new_country_factor })
}

/// What points to an attack whoever the user is.
fn attacks(evidence: &Evidence<'_>, config: &Config) -> Vec<Signal> {
    let failures = evidence.user.map_or(0, |user| user.failures_at(evidence.at_ms));
    let burst = (failures >= config.failure_burst_min).then(|| Signal {
        code: Code::FailureBurst,
        description: format!("The account failed {failures} times within 15 minutes."),
        factor: config.failure_burst_factor,
    });
    burst.into_iter().chain(fan_out(evidence, config)).collect()
}

fn fan_out(evidence: &Evidence<'_>, config: &Config) -> Option<Signal> {
    let failed = |level| evidence.features.get(level).map_or(0, |row: &Feature| row.failed_users_at(evidence.at_ms));
    let (address, network) = (failed(Level::Ip), failed(Level::Network));
    let description = if address >= config.ip_fan_out_users_min {
        format!("{address} accounts failed at this address within 30 minutes.")
    } else if network >= config.network_fan_out_users_min {
        format!("{network} accounts failed in the network around this address within 30 minutes.")
    } else {
        return None;
    };
    Some(Signal { code: Code::IpFanOut, description, factor: config.ip_fan_out_factor })
}
