//! Signals: what was seen beside the likelihood, each with a factor on it.

use super::{Config, Evidence};
use crate::score::{Code, Reason};
use crate::view::feature::{Feature, Level};
use crate::view::user::User;

/// Something seen beside the likelihood, with its factor on S.
pub(super) struct Signal {
    code: Code,
    description: String,
    pub(super) factor: f64,
}

impl Signal {
    pub(super) fn reason(&self, effect: f64) -> Reason {
        Reason::new(self.code, effect, self.description.clone())
    }
}

/// All that an attempt of a user with history shows.
pub(super) fn all(evidence: &Evidence<'_>, user: &User, config: &Config) -> Vec<Signal> {
    let own = [device(evidence, user, config), country(evidence, user, config)];
    own.into_iter().flatten().chain(attacks(evidence, config)).collect()
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
pub(super) fn attacks(evidence: &Evidence<'_>, config: &Config) -> Vec<Signal> {
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
