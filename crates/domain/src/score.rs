//! Scores: how risky an attempt or a visit is according to the rows, and why.
//!
//! A score is a pure function of rows, request, instant and configuration: no clock, no I/O. Each score comes with its
//! [`Reason`]s, whose effects are contributions in log-odds. They add up to the log-odds of the score, so a reader can
//! verify the sum. A property test checks this for each model.
//!
//! [`login`] estimates how much likelier an attempt is from an attacker than from its user; [`no_show`] estimates how
//! likely a visit is to be missed; [`metrics`] measures how good such numbers were, once the outcomes are known.
//!
//! Scoring does not learn. Only the rows change between two scores; weights and thresholds are configuration, a
//! tenant's [policy](login::policy), or a published [model](no_show::model) that `foretell_lab::train` produced.

pub mod login;
pub mod metrics;
pub mod no_show;

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How risky it is, for people and simple rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskLevel {
    /// Below the first threshold.
    Low,
    /// From the first threshold.
    Medium,
    /// From the second threshold.
    High,
    /// There is no history to score by.
    Unscored,
}

impl RiskLevel {
    /// Every level.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Unscored];

    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Unscored => "unscored",
        }
    }
}

/// What to do with an attempt to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginDecision {
    /// Allow it.
    Allow,
    /// Require another proof of identity first.
    Challenge,
    /// Deny it.
    Deny,
}

impl LoginDecision {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Challenge => "challenge",
            Self::Deny => "deny",
        }
    }
}

/// What to do about a visit that may be missed. A score never recommends turning a client away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecommendedAction {
    /// Nothing.
    None,
    /// Send the usual reminders.
    Remind,
    /// Have a person call as well.
    Call,
    /// Request a deposit; only if a tenant configures it.
    Deposit,
}

impl RecommendedAction {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Remind => "remind",
            Self::Call => "call",
            Self::Deposit => "deposit",
        }
    }
}

/// What to answer if the row of a user or client cannot be read in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// Allow it, with a warning.
    Allow,
    /// Require another proof of identity, with a warning.
    #[default]
    Challenge,
    /// Answer that the service is unavailable.
    Error,
}

/// Generates the codes of reasons: those of signals come from the table of the signals.
macro_rules! codes {
    (
        others {$(
            $(#[$means:meta])*
            $other:ident = $other_name:literal;
        )+}
        signals {$(
            $(#[$what:meta])*
            $code:ident = $name:literal of $basis:ident, $field:ident: $settings:ident { $($default:tt)* };
        )+}
    ) => {
        /// Stable names of reasons; a published name never changes.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ReasonCode {
            $($(#[$means])* #[serde(rename = $other_name)] $other,)+
            $($(#[$what])* #[serde(rename = $name)] $code,)+
            /// A rule of the tenant's policy, named by its code in the policy.
            #[serde(untagged)]
            Rule(Arc<str>),
        }

        impl ReasonCode {
            /// The name in answers.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$other => $other_name,)+
                    $(Self::$code => $name,)+
                    Self::Rule(code) => code,
                }
            }
        }
    };
}

login::signal::settings::table! {
    codes
    others {
        /// Login: how often the account is used, compared with the others.
        History = "HISTORY";
        /// Login: the address was seen in the user's logins.
        KnownIp = "KNOWN_IP";
        /// Login: the client software was seen in the user's logins.
        KnownUserAgent = "KNOWN_USER_AGENT";
        /// Login: the whole user agent string is new for the user.
        NewUserAgent = "NEW_USER_AGENT";
        /// Login: the address is new for the user.
        NewIp = "NEW_IP";
        /// Login: the network (autonomous system) is new for the user.
        NewNetwork = "NEW_NETWORK";
        /// Login: the account has no successful login to compare with.
        FirstLogin = "FIRST_LOGIN";
        /// Visit: how often the tenant's visits are missed.
        BaseRate = "BASE_RATE";
        /// Visit: how long ahead it was booked.
        LeadTime = "LEAD_TIME";
        /// Visit: it was booked for the same day.
        SameDayBooking = "SAME_DAY_BOOKING";
        /// Visit: the client missed more visits than their leads would explain.
        PastNoShows = "PAST_NO_SHOWS";
        /// Visit: the client kept more visits than their leads would explain.
        PastAttendance = "PAST_ATTENDANCE";
        /// Visit: the client has no outcome yet.
        NewClient = "NEW_CLIENT";
        /// Visit: it was moved often.
        RescheduledOften = "RESCHEDULED_OFTEN";
        /// Visit: the client cancelled late before.
        LateCancels = "LATE_CANCELS";
        /// Visit: whether the client confirmed it.
        Unconfirmed = "UNCONFIRMED";
        /// Visit: what else the client has booked.
        OtherVisits = "OTHER_VISITS";
        /// Visit: when it was booked, and for which day of the week.
        TimeOfWeek = "TIME_OF_WEEK";
        /// Visit: an attribute of it or of the client, supplied by the tenant.
        Attribute = "ATTRIBUTE";
        /// Visit: how recent outcomes correct the model's scores.
        Calibration = "CALIBRATION";
    }
}

/// One component of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ScoreReason)]
pub struct Reason {
    /// Its stable name.
    #[schema(value_type = String, example = "NEW_DEVICE")]
    pub code: ReasonCode,
    /// For staff: describes what was observed, without addresses, devices or secrets.
    pub description: String,
    /// Contribution to the log-odds of the score (natural logarithm); above 0 it raises the risk. 0 if nothing was
    /// scored.
    pub effect: f64,
}

impl Reason {
    fn new(code: ReasonCode, effect: f64, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), effect }
    }
}

/// What computed a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelVersion {
    /// Its name.
    pub id: &'static str,
    /// Raised when the same rows and configuration give a different score than before.
    pub version: &'static str,
}

/// A setting with which no score can be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct InvalidConfig {
    /// The setting, relative to the section of its model.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl InvalidConfig {
    fn unless(holds: bool, field: &'static str, expected: &'static str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { field, expected }) }
    }

    fn unless_positive(value: f64, field: &'static str) -> Result<(), Self> {
        Self::unless(value.is_finite() && value > 0.0, field, "a finite number above 0")
    }
}

/// `ln(p / (1 - p))`.
pub(crate) fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// The probability of log-odds.
pub fn logistic(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}
