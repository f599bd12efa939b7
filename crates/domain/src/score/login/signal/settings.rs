//! The signals of a policy, one row each: which of them count, and with which factor.

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

/// The signals, one row each: the code, its name in answers, what it needs, and its settings with their defaults.
///
/// A signal `of History` compares the attempt with the user's history, and so needs one; a signal `of Attack` does not.
/// The settings have a mode and a factor in addition to what the row states. The function of the same name as the
/// settings, in `signal.rs`, decides whether the signal applies.
///
/// [`ReasonCode`](crate::score::ReasonCode) and its names follow from the table, and so do [`Signals`] and the search
/// for signals. The order is that of the settings in policies: the version of a policy is their digest, so rows are
/// only added at the end.
macro_rules! table {
    ($expand:ident $($before:tt)*) => {
        $expand! {
            $($before)*
            signals {
                /// Login: the device is not among the user's known ones. A device is known for 90 days.
                NewDevice = "NEW_DEVICE" of History, new_device: Effect { factor: 1_000.0 };
                /// Login: the attempt has no device id, although all known devices of the user that look the same have
                /// one.
                DeviceWithheld = "DEVICE_WITHHELD" of History, device_withheld: Effect { factor: 1_000.0 };
                /// Login: the address is one of the user's, and few accounts ever tried from it.
                OwnAddress = "OWN_ADDRESS" of History, own_address: OwnAddress { factor: 0.02, users_max: 8 };
                /// Login: the network (autonomous system) is one of the user's.
                OwnNetwork = "OWN_NETWORK" of History, own_network: Effect { factor: 0.1 };
                /// Login: the country is none of the user's.
                NewCountry = "NEW_COUNTRY" of History, new_country: Effect { factor: 2.0 };
                /// Login: the previous success is farther away than the tolerated distance, and too far to travel in
                /// the time.
                ImpossibleTravel = "IMPOSSIBLE_TRAVEL" of History,
                    impossible_travel: Travel { factor: 5.0, speed_kmh_max: 900.0, distance_km_max: 100.0 };
                /// Login: at least the configured number of failures of the account within 15 minutes.
                FailureBurst = "FAILURE_BURST" of Attack, failure_burst: Failures { factor: 3.0, failures_min: 5 };
                /// Login: at least the configured number of failures of the account within an hour and since its last
                /// success.
                SuccessAfterFailures = "SUCCESS_AFTER_FAILURES" of Attack,
                    success_after_failures: Failures { factor: 1.5, failures_min: 3 };
                /// Login: at least the configured number of accounts failed at the address or in its network within 30
                /// minutes.
                IpFanOut = "IP_FAN_OUT" of Attack,
                    ip_fan_out: FanOut { factor: 10.0, address_users_min: 6, network_users_min: 20 };
                /// Login: the address is on a deny list.
                DenylistedNetwork = "DENYLISTED_NETWORK" of Attack, denylisted_network: Effect { factor: 10.0 };
                /// Login: the user agent is empty or that of a program, or eight attempts within an hour are at equal
                /// intervals.
                AutomatedClient = "AUTOMATED_CLIENT" of Attack, automated_client: Effect { factor: 3.0 };
                /// Login: the last success is longer ago than the configured days.
                DormantAccount = "DORMANT_ACCOUNT" of History, dormant_account: Dormant { factor: 2.0, days_max: 90 };
                /// Login: the user reported the device or the address within 90 days, and has not confirmed it since.
                ReportedByUser = "REPORTED_BY_USER" of Attack, reported_by_user: Effect { factor: 10.0 };
            }
        }
    };
}

pub(crate) use table;

/// Generates the settings.
macro_rules! settings {
    (signals {$(
        $(#[$what:meta])*
        $code:ident = $name:literal of $basis:ident, $field:ident: $settings:ident { $($default:tt)* };
    )+}) => {
        /// The signals, each with its factor on S and whether it counts.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Signals {$(
            #[doc = concat!("See [`ReasonCode::", stringify!($code), "`](crate::score::ReasonCode::", stringify!($code), ").")]
            pub $field: $settings,
        )+}

        impl Default for Signals {
            fn default() -> Self {
                Self { $($field: $settings { mode: Switch::On, $($default)* },)+ }
            }
        }

        impl Signals {
            /// The factors, each with the name of its setting.
            const fn factors(&self) -> [(f64, &'static str); [$($name),+].len()] {
                [$((self.$field.factor, concat!("signals.", stringify!($field), ".factor"))),+]
            }
        }
    };
}

table!(settings);

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

impl Signals {
    pub(in crate::score::login) fn validate(&self) -> Result<(), InvalidConfig> {
        for (factor, field) in self.factors() {
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
