//! How often a value of a login feature was seen, where, and by how many accounts.
//!
//! One row per tenant, [level](FeatureLevel) and value; the level [`FeatureLevel::All`] has one row per tenant, the
//! totals. Only successful logins count as history (`successes` and the sketches of lower levels). Failures are counted
//! separately, and in addresses, sites and networks the accounts with recent failures are listed individually, because
//! many accounts that fail at one place indicate an attack.
//!
//! | level | IPv4 | IPv6 | corresponds to |
//! |---|---|---|---|
//! | [`FeatureLevel::Ip`] | the address | the /64 | a household, or the many behind a gateway |
//! | [`FeatureLevel::Site`] | | the /56 | what a provider gives to a home or a small office, with up to 256 networks |
//! | [`FeatureLevel::Network`] | the /24 | the /48 | the neighbours, or a large customer |
//!
//! An IPv6 address that represents an IPv4 one (mapped, NAT64, 6to4) is counted as that.

use super::sketch::{Sketch, hash};
use super::{AggregateView, Limits, Merge};
use crate::address::{RowKey, View};
use foretell_events::address;
use foretell_events::login::Attempt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The period before an attempt in which accounts that failed at an address or network count.
pub(crate) const FAN_OUT_WINDOW_MS: i64 = 30 * 60 * 1000;
/// Longest value that a key contains literally, in bytes; a longer one is replaced by its 128-bit hash.
const VALUE_BYTES_MAX: usize = 256;

/// The levels of the login features: the kind of value that a row of [`Feature`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FeatureLevel {
    /// Everything: the totals of a tenant.
    All,
    /// The household: the IPv4 address, or the /64 of an IPv6 address.
    Ip,
    /// The /24 (IPv4) or /48 (IPv6) around the address: for fan-out only.
    Network,
    /// Autonomous system number.
    Asn,
    /// Country code.
    Country,
    /// The full user agent string.
    UserAgent,
    /// Browser and version.
    Browser,
    /// Operating system and version.
    Os,
    /// Device type.
    DeviceType,
    /// The /56 around an IPv6 address; an IPv4 address has none.
    Site,
}

impl FeatureLevel {
    /// Levels with one row per value.
    pub const VALUES: [Self; 9] = [
        Self::Ip,
        Self::Site,
        Self::Network,
        Self::Asn,
        Self::Country,
        Self::UserAgent,
        Self::Browser,
        Self::Os,
        Self::DeviceType,
    ];
    /// Levels at which accounts with recent failures are kept.
    pub(crate) const FAN_OUT: [Self; 3] = [Self::Ip, Self::Site, Self::Network];

    /// The name in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Ip => "ip",
            Self::Network => "network",
            Self::Asn => "asn",
            Self::Country => "country",
            Self::UserAgent => "user_agent",
            Self::Browser => "browser",
            Self::Os => "os",
            Self::DeviceType => "device_type",
            Self::Site => "site",
        }
    }

    /// The levels below this one in its feature: those whose distinct values are counted in its rows.
    pub const fn lower(self) -> &'static [Self] {
        match self {
            Self::All => &[Self::Asn, Self::Country, Self::Browser, Self::Os, Self::DeviceType],
            Self::Ip => &[Self::Asn, Self::Country],
            Self::UserAgent => &[Self::Browser, Self::Os, Self::DeviceType],
            _ => &[],
        }
    }

    /// The attempt's value at this level, if it has one.
    pub fn value(self, attempt: &Attempt) -> Option<String> {
        match self {
            Self::All => Some(String::new()),
            Self::Ip => Some(household(attempt.ip)),
            Self::Network => Some(network(attempt.ip)),
            Self::Asn => attempt.asn.map(|asn| asn.to_string()),
            Self::Country => attempt.country.clone(),
            Self::UserAgent => attempt.user_agent.clone(),
            Self::Browser => attempt.browser.clone(),
            Self::Os => attempt.os.clone(),
            Self::DeviceType => attempt.device_type.clone(),
            Self::Site => site(attempt.ip),
        }
    }
}

/// The address of the row that counts `value` at `level`.
pub fn key(tenant: &str, level: FeatureLevel, value: &str) -> RowKey {
    let name = level.name();
    let key = |value: &str| [tenant, ":", name, ":", value].concat();
    RowKey::hashed(View::Feature, if value.len() <= VALUE_BYTES_MAX { key(value) } else { key(&hashed(value)) })
}

/// The value as it is stored in a [`key`], which is the same for both.
pub fn stored(value: String) -> String {
    if value.len() <= VALUE_BYTES_MAX { value } else { hashed(&value) }
}

fn hashed(value: &str) -> String {
    format!("#{:032x}", xxhash_rust::xxh3::xxh3_128(value.as_bytes()))
}

/// The name of the [household](address::household) of an address: an IPv4 address, or a /64 in CIDR notation.
pub fn household(ip: IpAddr) -> String {
    match address::household(ip) {
        IpAddr::V6(ip) if address::household_bits(ip) == 64 => format!("{ip}/64"),
        ip => ip.to_string(),
    }
}

/// The /56 of an IPv6 address, in CIDR notation.
fn site(ip: IpAddr) -> Option<String> {
    match address::inner(ip) {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(format!("{}/56", Ipv6Addr::from_bits(ip.to_bits() & (!0 << 72)))),
    }
}

/// The /24 of an IPv4 address, the /48 of an IPv6 address, in CIDR notation.
pub fn network(ip: IpAddr) -> String {
    match address::inner(ip) {
        IpAddr::V4(ip) => format!("{}/24", Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8))),
        IpAddr::V6(ip) => format!("{}/48", Ipv6Addr::from_bits(ip.to_bits() & (!0 << 80))),
    }
}

/// What happened to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginChange {
    /// It failed.
    Failed,
    /// It succeeded, or was confirmed after a report.
    Succeeded {
        /// The account has no other success.
        first: bool,
    },
    /// It was reported as not the user's.
    Withdrawn {
        /// The account has no other success.
        last: bool,
    },
}

/// What a login changes in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The level of the row.
    pub level: FeatureLevel,
    /// What happened.
    pub change: LoginChange,
    /// Hash of the account.
    pub user: u64,
    /// When it happened.
    pub time_ms: i64,
    /// Hashes of its values at the levels below, if it has them.
    pub lower: Vec<(FeatureLevel, u64)>,
}

impl Delta {
    /// What `attempt` changes in the row of `level`.
    pub fn of(level: FeatureLevel, attempt: &Attempt, user_id: &str, change: LoginChange, time_ms: i64) -> Self {
        let lower = level.lower().iter().filter_map(|l| Some((*l, hash(&l.value(attempt)?))));
        Self { level, change, user: hash(user_id), time_ms, lower: lower.collect() }
    }
}

/// The state of a feature row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Successful logins with this value.
    pub successes: u64,
    /// Failed logins with this value.
    pub failures: u64,
    /// Accounts whose first success had this value; in the totals, the number of accounts with history.
    pub first_successes: u64,
    /// Distinct accounts that tried with this value.
    pub users: Sketch,
    /// Distinct values of the levels below among the successful logins with this value.
    pub lower: BTreeMap<FeatureLevel, Sketch>,
    /// Accounts (hashes) with recent failures here, and the time of each one's last failure; at levels of
    /// [`FeatureLevel::FAN_OUT`].
    pub failed_users: BTreeMap<u64, i64>,
}

impl AggregateView for Feature {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, limits: &Limits) {
        self.users.insert(delta.user);
        match delta.change {
            LoginChange::Failed => {
                self.failures += 1;
                if FeatureLevel::FAN_OUT.contains(&delta.level) {
                    self.failed(delta, limits.fan_out_users_max);
                }
                return;
            }
            LoginChange::Succeeded { first } => {
                self.successes += 1;
                self.first_successes += u64::from(first);
            }
            // The partition that subtracts it is the one that counted it, so neither falls below 0.
            LoginChange::Withdrawn { last } => {
                self.successes = self.successes.saturating_sub(1);
                self.first_successes = self.first_successes.saturating_sub(u64::from(last));
                return;
            }
        }
        for (level, value) in &delta.lower {
            self.lower.entry(*level).or_default().insert(*value);
        }
    }
}

impl Feature {
    fn failed(&mut self, delta: &Delta, users_max: usize) {
        let at = self.failed_users.entry(delta.user).or_insert(delta.time_ms);
        *at = delta.time_ms.max(*at);
        // A failure that is too old for the newest failure is too old for any later score.
        let newest = self.failed_users.values().copied().max().unwrap_or(delta.time_ms);
        self.failed_users.retain(|_, at| *at > newest - FAN_OUT_WINDOW_MS);
        if self.failed_users.len() > users_max {
            let oldest = self.failed_users.iter().min_by_key(|(user, at)| (**at, **user)).map(|(user, _)| *user);
            oldest.and_then(|user| self.failed_users.remove(&user));
        }
    }
}

impl Merge for Feature {
    fn merge(&mut self, other: &Self) {
        self.successes += other.successes;
        self.failures += other.failures;
        self.first_successes += other.first_successes;
        self.users.merge(&other.users);
        for (level, sketch) in &other.lower {
            self.lower.entry(*level).or_default().merge(sketch);
        }
        for (user, at) in &other.failed_users {
            let mine = self.failed_users.entry(*user).or_insert(*at);
            *mine = (*mine).max(*at);
        }
    }
}

/// What a score reads of a merged row: its sketches are counted when it is merged, and not by every score.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureCounts {
    /// [`Feature::successes`].
    pub successes: u64,
    /// [`Feature::first_successes`].
    pub first_successes: u64,
    /// Distinct accounts that tried with this value.
    pub users: u64,
    /// Distinct values of the levels below among the successes.
    lower: Box<[(FeatureLevel, u64)]>,
    /// When accounts last failed here, one time each.
    failed_at_ms: Box<[i64]>,
}

impl From<&Feature> for FeatureCounts {
    fn from(row: &Feature) -> Self {
        Self {
            successes: row.successes,
            first_successes: row.first_successes,
            users: row.users.count(),
            lower: row.lower.iter().map(|(level, values)| (*level, values.count())).collect(),
            failed_at_ms: row.failed_users.values().copied().collect(),
        }
    }
}

impl FeatureCounts {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self) + size_of_val(&*self.lower) + size_of_val(&*self.failed_at_ms)
    }

    /// Distinct values of a lower level among the successes.
    pub(crate) fn distinct(&self, level: FeatureLevel) -> u64 {
        self.lower.iter().find(|(lower, _)| *lower == level).map_or(0, |(_, values)| *values)
    }

    /// Accounts that failed here in the [`FAN_OUT_WINDOW_MS`] before `at_ms`, up to the limit of kept accounts.
    pub fn failed_users_at(&self, at_ms: i64) -> usize {
        self.failed_at_ms.iter().filter(|failed| (at_ms - FAN_OUT_WINDOW_MS..=at_ms).contains(failed)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(user: u64, time_ms: i64) -> Delta {
        Delta { level: FeatureLevel::Ip, change: LoginChange::Failed, user, time_ms, lower: vec![] }
    }

    #[test]
    fn an_address_is_of_a_household_a_site_and_a_network() {
        for (ip, of) in [
            ("198.51.100.77", ["198.51.100.77", "", "198.51.100.0/24"]),
            ("0.0.0.1", ["0.0.0.1", "", "0.0.0.0/24"]),
            ("2001:db8:aa:bbcc::1", ["2001:db8:aa:bbcc::/64", "2001:db8:aa:bb00::/56", "2001:db8:aa::/48"]),
            ("64:ff9b::c633:644d", ["198.51.100.77", "", "198.51.100.0/24"]),
            ("2002:c633:644d:1::9", ["198.51.100.77", "", "198.51.100.0/24"]),
        ] {
            let attempt = Attempt::from_ip(ip.parse().unwrap());
            let values = FeatureLevel::FAN_OUT.map(|level| level.value(&attempt).unwrap_or_default());
            assert_eq!(values, of, "{ip}");
        }
    }

    #[test]
    fn failing_accounts_leave_the_window_and_never_exceed_their_limit() {
        let mut row = Feature::default();
        let limits = Limits { fan_out_users_max: 8, ..Limits::default() };
        for user in 0..100 {
            row.apply(&failure(user, 1_000 + user as i64), &limits);
        }
        assert_eq!(row.failures, 100);
        assert_eq!(row.failed_users.keys().copied().collect::<Vec<_>>(), (92..100).collect::<Vec<_>>());
        assert_eq!(FeatureCounts::from(&row).failed_users_at(1_099), 8);
        let later = FeatureCounts::from(&row).failed_users_at(1_099 + FAN_OUT_WINDOW_MS);
        assert_eq!(later, 1, "the window is closed at both ends");
        row.apply(&failure(7, 1_100 + FAN_OUT_WINDOW_MS), &limits);
        assert_eq!(row.failed_users.len(), 1, "all others are out of the window");
    }

    #[test]
    fn long_values_stand_in_keys_as_hashes() {
        let long = "x".repeat(10_000);
        let key = key("t", FeatureLevel::UserAgent, &long);
        assert!(key.key.len() < 64 && key.key.starts_with("t:user_agent:#"));
    }
}
