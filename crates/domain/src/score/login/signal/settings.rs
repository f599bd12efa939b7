//! The signals of a policy: which of them count, and with which factor.

use crate::score::InvalidConfig;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest factor, and the reciprocal of the smallest, so that all of them together never make S 0 or infinite.
const FACTOR_MAX: f64 = 10_000.0;

/// Whether a signal or a rule counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// It counts.
    #[default]
    On,
    /// It is evaluated and reported, but changes nothing.
    Shadow,
    /// It is not evaluated.
    Off,
}

/// The signals, each with its factor on S and whether it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// See [`Code::NewDevice`].
    pub new_device: Effect,
    /// See [`Code::DeviceWithheld`].
    pub device_withheld: Effect,
    /// See [`Code::OwnAddress`].
    pub own_address: OwnAddress,
    /// See [`Code::OwnNetwork`].
    pub own_network: Effect,
    /// See [`Code::NewCountry`].
    pub new_country: Effect,
    /// See [`Code::ImpossibleTravel`].
    pub impossible_travel: Travel,
    /// See [`Code::FailureBurst`].
    pub failure_burst: Failures,
    /// See [`Code::SuccessAfterFailures`].
    pub success_after_failures: Failures,
    /// See [`Code::IpFanOut`].
    pub ip_fan_out: FanOut,
    /// See [`Code::DenylistedNetwork`].
    pub denylisted_network: Effect,
    /// See [`Code::AutomatedClient`].
    pub automated_client: Effect,
    /// See [`Code::DormantAccount`].
    pub dormant_account: Dormant,
    /// See [`Code::ReportedByUser`].
    pub reported_by_user: Effect,
}

/// A signal without a constant of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
}

/// A signal about an address that only the user, or few accounts, use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnAddress {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
    /// With more accounts than this that ever tried from the address, it counts as shared by many people, such as a
    /// carrier's or an office's.
    pub users_max: u64,
}

/// A signal about two places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Travel {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
    /// Speed, in kilometres per hour, that no traveller exceeds.
    pub speed_kmh_max: f64,
    /// Distance in kilometres up to which two places count as one, because address databases are imprecise.
    pub distance_km_max: f64,
}

/// A signal about failures of the account.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
    /// Failures from which there are many.
    pub failures_min: usize,
}

/// A signal about accounts that failed at one place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanOut {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
    /// Accounts that failed at the address from which there are many.
    pub address_users_min: usize,
    /// Accounts that failed in the /24 or /48 from which there are many.
    pub network_users_min: usize,
}

/// A signal about time since the last success.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dormant {
    /// Whether it counts.
    pub mode: Switch,
    /// Factor on S.
    pub factor: f64,
    /// Days since the last success above which an account is dormant.
    pub days_max: u32,
}

impl Default for Signals {
    fn default() -> Self {
        let mode = Switch::On;
        let effect = |factor| Effect { mode, factor };
        Self {
            new_device: effect(1_000.0),
            device_withheld: effect(1_000.0),
            own_address: OwnAddress { mode, factor: 0.02, users_max: 8 },
            own_network: effect(0.1),
            new_country: effect(2.0),
            impossible_travel: Travel { mode, factor: 5.0, speed_kmh_max: 900.0, distance_km_max: 100.0 },
            failure_burst: Failures { mode, factor: 3.0, failures_min: 5 },
            success_after_failures: Failures { mode, factor: 1.5, failures_min: 3 },
            ip_fan_out: FanOut { mode, factor: 10.0, address_users_min: 6, network_users_min: 20 },
            denylisted_network: effect(10.0),
            automated_client: effect(3.0),
            dormant_account: Dormant { mode, factor: 2.0, days_max: 90 },
            reported_by_user: effect(10.0),
        }
    }
}

impl Signals {
    pub(in crate::score::login) fn validate(&self) -> Result<(), InvalidConfig> {
        let factors = [
            (self.new_device.factor, "signals.new_device.factor"),
            (self.device_withheld.factor, "signals.device_withheld.factor"),
            (self.own_address.factor, "signals.own_address.factor"),
            (self.own_network.factor, "signals.own_network.factor"),
            (self.new_country.factor, "signals.new_country.factor"),
            (self.impossible_travel.factor, "signals.impossible_travel.factor"),
            (self.failure_burst.factor, "signals.failure_burst.factor"),
            (self.success_after_failures.factor, "signals.success_after_failures.factor"),
            (self.ip_fan_out.factor, "signals.ip_fan_out.factor"),
            (self.denylisted_network.factor, "signals.denylisted_network.factor"),
            (self.automated_client.factor, "signals.automated_client.factor"),
            (self.dormant_account.factor, "signals.dormant_account.factor"),
            (self.reported_by_user.factor, "signals.reported_by_user.factor"),
        ];
        for (factor, field) in factors {
            InvalidConfig::unless(is_factor(factor), field, "from 0.0001 to 10000")?;
        }
        let Travel { speed_kmh_max, distance_km_max, .. } = self.impossible_travel;
        InvalidConfig::unless_positive(speed_kmh_max, "signals.impossible_travel.speed_kmh_max")?;
        InvalidConfig::unless_positive(distance_km_max, "signals.impossible_travel.distance_km_max")
    }
}

/// Whether S may be multiplied by it: no single rule makes a score exactly 0 or 1.
pub(in crate::score::login) fn is_factor(factor: f64) -> bool {
    (1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&factor)
}
