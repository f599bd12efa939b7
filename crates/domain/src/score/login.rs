//! How much likelier an attempt is from an attacker than from its user.
//!
//! The likelihood ratio is the one of Freeman, Jain, Dürmuth, Biggio and Giacinto, *Who Are You? A Statistical
//! Approach to Measuring User Authenticity* (NDSS 2016), in the form that Wiefling, Dürmuth and Lo Iacono published
//! for public login services, without attack data. Two features, the address and the client software, are each
//! compared at several levels, from the whole value (the strongest) to the country or the device type:
//!
//! ```text
//! S      = g/l of the address × g/l of the client × N / (U · N_u)
//! g      = w₁ · n/(n + m) · max(c₁, 1)/(N + M) + Σ_{h ≥ 2} w_h · c_h/N       all users' logins
//! l      = Σ_h w_h · cu_h/N_u                                                 the user's logins
//! score  = S'/(1 + S'),  S' = S × the factor of each signal
//! ```
//!
//! with `N` logins of `U` accounts, `N_u` of them the user's; `c_h` (`cu_h`) of them with the attempt's value at
//! level `h`; `n = c₁`; `M` and `m` one more than the distinct values of the lower levels, in all logins and in
//! the `n`. Only successes count. Where nothing matches, the ratio of a feature is [`likelihood::UNKNOWN_RATIO`].
//!
//! The publication has a weakness that [`Mode::Monotone`] repairs: an attempt of which only a weak level matches can
//! score far above one of which nothing matches at all. There the ratio is the smallest that any matched level gives
//! together with the levels below it, and at most [`likelihood::UNKNOWN_RATIO`]; so one more match never raises S.
//!
//! The levels that an attempt lacks (no geography data, say) leave both sums: they are neutral.

mod likelihood;
pub mod policy;
pub mod rule;
pub mod signal;
#[cfg(test)]
mod tests;
pub mod variables;

pub use policy::{LoginPolicy, Mode};

use super::{LoginDecision, Reason, ReasonCode, RiskLevel};
use crate::address::RowKey;
use crate::view::feature::{self, Feature, FeatureCounts, FeatureLevel};
use crate::view::materialized::Materialized;
use crate::view::user::{LoginFold, User};
use crate::view::{Aggregate, Merge};
use foretell_events::appointment::Scalar;
use foretell_events::login::{Attempt, ListMatches};
use likelihood::{ADDRESS, Base, CLIENT};
use rule::Consequence;
use signal::settings::Switch;
use std::collections::BTreeMap;
use std::sync::Arc;
use variables::Variables;

/// The feature rows that belong to an attempt, merged over their source partitions.
#[derive(Debug, Clone, Default)]
pub struct Features(BTreeMap<FeatureLevel, Arc<FeatureCounts>>);

impl Features {
    /// The rows to read for an attempt: the tenant's totals, and one row for each value that the attempt has.
    pub fn keys(tenant: &str, attempt: &Attempt) -> Vec<(FeatureLevel, RowKey)> {
        std::iter::once(FeatureLevel::All)
            .chain(FeatureLevel::VALUES)
            .filter_map(|level| Some((level, feature::key(tenant, level, &level.value(attempt)?))))
            .collect()
    }

    /// The features of an attempt, from rows in memory.
    pub fn of(rows: &Materialized<LoginFold>, tenant: &str, attempt: &Attempt) -> Self {
        let mut features = Self::default();
        for (level, key) in Self::keys(tenant, attempt) {
            let mut merged: Option<Feature> = None;
            for partial in rows.partials(&key) {
                if let Aggregate::Feature(feature) = partial {
                    merged.get_or_insert_default().merge(feature);
                }
            }
            if let Some(merged) = merged {
                features.insert(level, Arc::new(FeatureCounts::from(&merged)));
            }
        }
        features
    }

    /// Adds the counts of a row whose partials are merged.
    pub fn insert(&mut self, level: FeatureLevel, merged: Arc<FeatureCounts>) {
        self.0.insert(level, merged);
    }

    fn get(&self, level: FeatureLevel) -> Option<&FeatureCounts> {
        self.0.get(&level).map(AsRef::as_ref)
    }

    fn successes(&self, level: FeatureLevel) -> u64 {
        self.get(level).map_or(0, |row| row.successes)
    }

    /// `M` or `m`: one more than the distinct values of the lower levels of `feature` in the row of `level`.
    fn distinct_below(&self, level: FeatureLevel, feature: &[(FeatureLevel, f64)]) -> f64 {
        let distinct = |row: &FeatureCounts| feature.iter().skip(1).map(|(lower, _)| row.distinct(*lower)).sum::<u64>();
        1.0 + self.get(level).map_or(0, distinct) as f64
    }
}

/// The inputs of a login's score.
#[derive(Debug, Clone, Copy)]
pub struct LoginEvidence<'a> {
    /// The user's row; none for a user never seen.
    pub user: Option<&'a User>,
    /// See [`Features::keys`].
    pub features: &'a Features,
    /// What the attempt looks like.
    pub attempt: &'a Attempt,
    /// When it happens.
    pub at_ms: i64,
    /// Which lists contain its address.
    pub listed: ListMatches,
    /// Further attributes from the caller, for rules.
    pub attributes: &'a BTreeMap<String, Scalar>,
}

impl<'a> LoginEvidence<'a> {
    /// Evidence from rows and attempt only: no lists were consulted, and there are no further attributes.
    pub fn of(user: Option<&'a User>, features: &'a Features, attempt: &'a Attempt, at_ms: i64) -> Self {
        static NOTHING: BTreeMap<String, Scalar> = BTreeMap::new();
        Self { user, features, attempt, at_ms, listed: ListMatches::default(), attributes: &NOTHING }
    }

    /// The user, if there is a history to compare with.
    fn scored_user(&self) -> Option<&'a User> {
        self.user.filter(|user| user.successes > 0)
    }
}

/// A user's history, as far as answers show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserHistory {
    /// Successful logins.
    pub successes: u64,
    /// Failures in the last 15 minutes.
    pub failures_recent: usize,
    /// Earliest attempt.
    pub first_seen_ms: Option<i64>,
    /// Latest success.
    pub last_success_ms: Option<i64>,
}

impl UserHistory {
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
pub struct LoginScore {
    /// `S'/(1 + S')`, 0 to 1; none if the user has no history.
    pub score: Option<f64>,
    /// S before the factors of signals; none if the user has no history.
    pub likelihood_ratio: Option<f64>,
    /// How risky it is.
    pub level: RiskLevel,
    /// What to do.
    pub decision: LoginDecision,
    /// Why; the effects add up to `ln S'`, and are all 0 if nothing was scored.
    pub reasons: Vec<Reason>,
    /// Reasons of signals and rules in shadow mode, each with the effect that it would have.
    pub shadow: Vec<Reason>,
    /// Whether a rule could not be evaluated and was therefore treated as not matching.
    pub is_rule_failed: bool,
    /// The user's history.
    pub history: UserHistory,
}

/// Scores an attempt. Without a success of the user there is nothing to compare with: the result is unscored, with the
/// policy's decision for first logins.
pub fn score(evidence: &LoginEvidence<'_>, policy: &LoginPolicy) -> LoginScore {
    let likelihood = evidence.scored_user().map(|user| Likelihood::of(evidence, user, policy.mode));
    let likelihood_ratio = likelihood.as_ref().map(|likelihood| likelihood.ratio);
    let signals = signal::all(evidence, &policy.signals);
    let variables = Variables::new(evidence, likelihood_ratio, &signals);
    let mut found = SignalEffects::new(likelihood_ratio);
    found.reasons.extend(likelihood.map_or_else(|| vec![first_login()], |likelihood| likelihood.reasons));
    for signal in &signals {
        let effect = found.weigh(signal.factor, signal.counts());
        found.report(signal.reason(effect), signal.counts());
    }
    policy.rules.iter().for_each(|rule| found.judge(rule, &variables));

    let score = found.odds.map(|odds| odds / (1.0 + odds));
    let (level, decided) = match score {
        None => (RiskLevel::Unscored, policy.first_login),
        Some(score) if score >= policy.deny_at => (RiskLevel::High, LoginDecision::Deny),
        Some(score) if score >= policy.challenge_at => (RiskLevel::Medium, LoginDecision::Challenge),
        Some(_) => (RiskLevel::Low, LoginDecision::Allow),
    };
    let history = evidence.user.map(|user| UserHistory::at(user, evidence.at_ms)).unwrap_or_default();
    let SignalEffects { forced, reasons, shadow, is_rule_failed, .. } = found;
    let decision = forced.unwrap_or(decided);
    LoginScore { score, likelihood_ratio, level, decision, reasons, shadow, is_rule_failed, history }
}

fn first_login() -> Reason {
    let text = "The account has no successful login yet to compare this one with.";
    Reason::new(ReasonCode::FirstLogin, 0.0, text)
}

/// How the attempt compares with what is usual.
struct Likelihood {
    /// S before signals and rules.
    ratio: f64,
    reasons: Vec<Reason>,
}

impl Likelihood {
    fn of(evidence: &LoginEvidence<'_>, user: &User, mode: Mode) -> Self {
        let base = Base::of(evidence, user);
        let (address, client) = (base.compare(ADDRESS, mode), base.compare(CLIENT, mode));
        let mut reasons = vec![base.reason()];
        reasons.extend(address.reasons(&[ReasonCode::NewIp, ReasonCode::NewNetwork], ReasonCode::KnownIp));
        reasons.extend(client.reasons(&[ReasonCode::NewUserAgent], ReasonCode::KnownUserAgent));
        Self { ratio: address.ratio * client.ratio * base.prior(), reasons }
    }
}

/// The result of signals and rules.
struct SignalEffects {
    /// S'; none where nothing is scored.
    odds: Option<f64>,
    /// What the rules decide.
    forced: Option<LoginDecision>,
    reasons: Vec<Reason>,
    shadow: Vec<Reason>,
    is_rule_failed: bool,
}

impl SignalEffects {
    fn new(likelihood_ratio: Option<f64>) -> Self {
        let (reasons, shadow) = (Vec::new(), Vec::new());
        Self { odds: likelihood_ratio, forced: None, reasons, shadow, is_rule_failed: false }
    }

    /// Multiplies S if it counts, and returns the effect that this has or would have.
    fn weigh(&mut self, factor: f64, counts: bool) -> f64 {
        let Some(odds) = self.odds else { return 0.0 };
        if counts {
            self.odds = Some((odds * factor).clamp(f64::MIN_POSITIVE, f64::MAX));
        }
        factor.ln()
    }

    fn report(&mut self, reason: Reason, counts: bool) {
        if counts {
            self.reasons.push(reason);
        } else {
            self.shadow.push(reason);
        }
    }

    fn judge(&mut self, rule: &rule::Rule, variables: &Variables<'_>) {
        if rule.mode() == Switch::Off {
            return;
        }
        let Some(holds) = rule.matches(variables) else {
            self.is_rule_failed = true;
            return;
        };
        if !holds {
            return;
        }
        let counts = rule.mode() == Switch::On;
        let effect = match rule.consequence() {
            Consequence::Factor(factor) => self.weigh(factor, counts),
            Consequence::Decision(decision) => {
                self.forced = self.forced.max(Some(decision).filter(|_| counts));
                0.0
            }
        };
        self.report(Reason::new(rule.code().clone(), effect, rule.description()), counts);
    }
}
