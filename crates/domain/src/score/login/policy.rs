//! What determines decisions about logins: thresholds, signals and rules, as one document that a tenant can replace.
//!
//! The settings contain one under `[score.login]`, for tenants without their own. A tenant's document contains only its
//! differences: [`LoginPolicy::read`] merges it into that one as a JSON merge patch (RFC 7396), so a list of rules
//! replaces the list. A document that cannot be read, compiled or stored is rejected as a whole.

use super::rule::Rule;
use super::signal::settings::Signals;
use crate::score::{InvalidConfig, LoginDecision, ModelVersion, OnUnavailable, ReasonCode};
use foretell_events::policy::{self, Invalid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Most rules of a policy.
pub(crate) const RULES_MAX: usize = 64;
/// With at most this many rules with loops, a score takes a few milliseconds at most.
const LOOPS_SHORT_MAX: usize = 4;

/// How weak matches count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As published.
    Faithful,
    /// One more match never raises the risk.
    #[default]
    Monotone,
}

/// A policy: how a login's score is computed and judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginPolicy {
    /// How weak matches count.
    pub mode: Mode,
    /// Score, 0 to 1, from which the decision is a challenge and the level medium.
    pub challenge_at: f64,
    /// Score, 0 to 1, from which the decision is to deny and the level high; not below `challenge_at`.
    pub deny_at: f64,
    /// The decision for an account without history.
    pub first_login: LoginDecision,
    /// What to answer if the user's row cannot be read in time.
    pub on_unavailable: OnUnavailable,
    /// Observations that multiply the likelihood ratio.
    pub signals: Signals,
    /// The tenant's own conditions; at most [`RULES_MAX`].
    pub rules: Vec<Rule>,
}

impl Default for LoginPolicy {
    /// The thresholds are results of `scripts/calibrate`; see `docs/EVALUATION.md`.
    fn default() -> Self {
        Self {
            mode: Mode::Monotone,
            challenge_at: 0.354_364,
            deny_at: 0.999_995_351,
            first_login: LoginDecision::Challenge,
            on_unavailable: OnUnavailable::Challenge,
            signals: Signals::default(),
            rules: Vec::new(),
        }
    }
}

impl LoginPolicy {
    /// The policy of a document, with the values of `base` where the document has none.
    pub fn read(document: &Value, base: &Self) -> Result<Self, Invalid> {
        let policy: Self = policy::over(document, base)?;
        policy.validate().map_err(|error| Invalid::at(format!("/{}", error.field.replace('.', "/")), error))?;
        Ok(policy)
    }

    /// Whether a score by it may take more than a few milliseconds.
    pub fn is_long(&self) -> bool {
        self.rules.iter().filter(|rule| rule.has_loop()).count() > LOOPS_SHORT_MAX
    }

    /// Whether scores can be computed with it.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        InvalidConfig::unless(is_share(self.challenge_at), "challenge_at", "from 0 to 1")?;
        let ordered = is_share(self.deny_at) && self.deny_at >= self.challenge_at;
        InvalidConfig::unless(ordered, "deny_at", "between challenge_at and 1")?;
        self.signals.validate()?;
        InvalidConfig::unless(self.rules.len() <= RULES_MAX, "rules", "at most 64")?;
        let is_known = |rule: &Rule| self.rules.iter().filter(|other| other.code() == rule.code()).count() > 1;
        InvalidConfig::unless(!self.rules.iter().any(is_known), "rules", "rules with unique codes")
    }

    /// The model that computes the scores.
    pub const fn model(&self) -> ModelVersion {
        match self.mode {
            Mode::Faithful => ModelVersion { id: "login-likelihood-faithful", version: "2" },
            Mode::Monotone => ModelVersion { id: "login-likelihood-monotone", version: "2" },
        }
    }
}

impl ReasonCode {
    /// Whether a rule may not have this name, because Foretell uses it for its own reasons.
    pub(super) fn is_reserved(name: &str) -> bool {
        serde_json::from_value::<Self>(Value::from(name)).is_ok_and(|code| !matches!(code, Self::Rule(_)))
    }
}
