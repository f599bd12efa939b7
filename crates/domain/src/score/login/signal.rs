//! Signals: observations in addition to the likelihood ratio, each with a factor on it.
//!
//! | code | window | boundary |
//! |---|---|---|
//! | `NEW_DEVICE` | a device is known for 90 days | the attempt's is none of them |
//! | `DEVICE_WITHHELD` | the same | the attempt has no id, and all known devices that look the same have one |
//! | `OWN_ADDRESS` | the user's addresses | the attempt's is one of them, and few accounts ever tried from it |
//! | `OWN_NETWORK` | the user's networks | the attempt's is one of them |
//! | `NEW_COUNTRY` | the user's countries | the attempt's is none of them |
//! | `IMPOSSIBLE_TRAVEL` | the latest successes | farther than the tolerated distance, and faster than anyone travels |
//! | `FAILURE_BURST` | 15 minutes | at least the configured number of failures of the account |
//! | `SUCCESS_AFTER_FAILURES` | an hour, since the last success | the same |
//! | `IP_FAN_OUT` | 30 minutes | at least the configured number of accounts failed at the address or in its network |
//! | `DENYLISTED_NETWORK` | the lists as they are | the address is on one |
//! | `AUTOMATED_CLIENT` | an hour | an empty user agent or that of a program, or eight regular attempts |
//! | `DORMANT_ACCOUNT` | the last success | longer ago than the configured days |
//! | `REPORTED_BY_USER` | 90 days, unless it is confirmed | the device or the address was reported |
//!
//! Windows are in event time and include both ends. An attempt is evaluated by what is known of the time before it,
//! regardless of later arrivals.

pub mod settings;

use super::Evidence;
use crate::score::{Code, Reason};
use crate::view::feature::{Feature, Level};
use crate::view::user::{Place, Success, User, address_mark};
use foretell_events::agent;
use foretell_events::login::Attempt;
use settings::{FanOut, OwnAddress, Signals, Switch, Travel};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The window of SUCCESS_AFTER_FAILURES.
pub(crate) const AFTER_FAILURES_WINDOW_MS: i64 = HOUR_MS;
/// How far back another login at the same place is evidence that the user is at home in both places.
pub(crate) const TWO_PLACES_WINDOW_MS: i64 = DAY_MS;
/// Two logins at the same instant count as a minute apart, so that a speed can be computed.
const JOURNEY_MS_MIN: i64 = 60_000;
/// Attempts that are enough to detect regular pauses, the present one among them.
pub(crate) const CLOCKWORK_ATTEMPTS_MIN: usize = 8;
/// The window in which they must lie.
pub(crate) const CLOCKWORK_WINDOW_MS: i64 = HOUR_MS;
/// How far each pause between them may lie from the mean one.
pub(crate) const CLOCKWORK_DEVIATION_MAX: f64 = 0.05;

/// An observation in addition to the likelihood ratio, with its factor on S.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub(super) code: Code,
    description: String,
    mode: Switch,
    pub(super) factor: f64,
}

impl Signal {
    /// Whether it changes the score.
    pub(super) fn counts(&self) -> bool {
        self.mode == Switch::On
    }

    pub(super) fn reason(&self, effect: f64) -> Reason {
        Reason::new(self.code.clone(), effect, self.description.clone())
    }
}

/// All signals of an attempt, including those in shadow mode; not those that are switched off.
pub(super) fn all(evidence: &Evidence<'_>, signals: &Signals) -> Vec<Signal> {
    let own = evidence.scored_user().map(|user| of_history(evidence, user, signals));
    own.into_iter().flatten().chain(of_attacks(evidence, signals)).filter(|seen| seen.mode != Switch::Off).collect()
}

/// The signals that need a history.
fn of_history(evidence: &Evidence<'_>, user: &User, signals: &Signals) -> Vec<Signal> {
    let Evidence { attempt, at_ms, .. } = *evidence;
    // An attempt without a device is neutral.
    let withheld = user.device_withheld(attempt, at_ms).then(|| Signal {
        code: Code::DeviceWithheld,
        description: "The attempt has no device id, but the user's devices that look the same have one.".into(),
        mode: signals.device_withheld.mode,
        factor: signals.device_withheld.factor,
    });
    let new_device = (user.device_known(attempt, at_ms) == Some(false)).then(|| Signal {
        code: Code::NewDevice,
        description: "The device is not one of the user's known devices.".into(),
        mode: signals.new_device.mode,
        factor: signals.new_device.factor,
    });
    let is_own_network = attempt.asn.is_some_and(|asn| user.count(Level::Asn, &asn.to_string()) > 0);
    let own_network = is_own_network.then(|| Signal {
        code: Code::OwnNetwork,
        description: "The user has logged in from this network before.".into(),
        mode: signals.own_network.mode,
        factor: signals.own_network.factor,
    });
    let new_country = is_new_country(attempt, user).then(|| Signal {
        code: Code::NewCountry,
        description: "The user has never logged in from this country.".into(),
        mode: signals.new_country.mode,
        factor: signals.new_country.factor,
    });
    let days = user.last_success_ms.map_or(0, |last| (at_ms - last).max(0));
    let dormant = (days > i64::from(signals.dormant_account.days_max) * DAY_MS).then(|| Signal {
        code: Code::DormantAccount,
        description: format!("The account's last successful login was {} days ago.", days / DAY_MS),
        mode: signals.dormant_account.mode,
        factor: signals.dormant_account.factor,
    });
    let travel = travel(evidence, user, &signals.impossible_travel);
    let own_address = own_address(evidence, user, &signals.own_address);
    [new_device, withheld, own_address, own_network, new_country, travel, dormant].into_iter().flatten().collect()
}

/// A household's address distinguishes people from attackers; the address of a carrier or an office does not. For IPv6,
/// another network of the same site also counts.
fn own_address(evidence: &Evidence<'_>, user: &User, limits: &OwnAddress) -> Option<Signal> {
    let is_own = |level: Level| {
        let is_known = level.value(evidence.attempt).is_some_and(|value| user.count(level, &value) > 0);
        let users = evidence.features.get(level).map(|row: &Feature| row.users.count());
        is_known && users.is_some_and(|users| users <= limits.users_max)
    };
    [Level::Ip, Level::Site].into_iter().any(is_own).then(|| Signal {
        code: Code::OwnAddress,
        description: "The user has logged in from this address before, and few other accounts have.".into(),
        mode: limits.mode,
        factor: limits.factor,
    })
}

/// Only where both the attempt and the user's history have a country.
pub(super) fn is_new_country(attempt: &Attempt, user: &User) -> bool {
    let has_history = user.values.get(&Level::Country).is_some_and(|seen| !seen.is_empty());
    let is_unknown = |country: &str| user.count(Level::Country, country) == 0;
    has_history && attempt.country.as_deref().is_some_and(is_unknown)
}

/// The journey from the place of the last success to the place of the attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Journey {
    /// Great-circle distance.
    pub(super) distance_km: f64,
    /// In the time between the two, regardless of their order.
    pub(super) speed_kmh: f64,
}

/// The journey to the attempt; none if a place is not known.
///
/// A user with the same address has not travelled, even if a newer file gives it another place. A place without a city
/// may be the middle of a country, so it is compared only with its like: with places of a source that never names a
/// city.
pub(super) fn journey(evidence: &Evidence<'_>, user: &User) -> Option<Journey> {
    let here = Place::of(evidence.attempt)?;
    let last = user.latest().find(|success| success.time_ms <= evidence.at_ms).or(user.latest().last())?;
    let there = last.place.filter(|there| there.has_city == here.has_city)?;
    if last.address == address_mark(evidence.attempt.ip) {
        return None;
    }
    let distance_km = here.distance_km(there);
    let took_ms = (evidence.at_ms - last.time_ms).abs().max(JOURNEY_MS_MIN);
    Some(Journey { distance_km, speed_kmh: distance_km / (took_ms as f64 / HOUR_MS as f64) })
}

/// Two cases give no signal: a network on an allow list, such as a relay's, which is in no place, and a user who was at
/// this place within a day. With a phone on its carrier's network and a computer on an office's network, a user is at
/// both places.
fn travel(evidence: &Evidence<'_>, user: &User, limits: &Travel) -> Option<Signal> {
    if evidence.listed.exempt {
        return None;
    }
    let is_too_far = |journey: &Journey| journey.distance_km > limits.distance_km_max;
    let journey = journey(evidence, user).filter(is_too_far).filter(|j| j.speed_kmh > limits.speed_kmh_max)?;
    let (here, address) = (Place::of(evidence.attempt)?, address_mark(evidence.attempt.ip));
    let was_here = |success: &Success| {
        let is_near = success.place.is_some_and(|place| place.distance_km(here) <= limits.distance_km_max);
        (is_near || success.address == address) && (evidence.at_ms - success.time_ms).abs() <= TWO_PLACES_WINDOW_MS
    };
    (!user.latest().any(was_here)).then(|| Signal {
        code: Code::ImpossibleTravel,
        description: format!(
            "The last successful login was {:.0} km away, and too recent for that distance.",
            journey.distance_km
        ),
        mode: limits.mode,
        factor: limits.factor,
    })
}

/// What indicates an attack, with or without a history.
fn of_attacks(evidence: &Evidence<'_>, signals: &Signals) -> Vec<Signal> {
    let Evidence { attempt, at_ms, .. } = *evidence;
    let failures = evidence.user.map_or(0, |user| user.failures_at(at_ms));
    let burst = (failures >= signals.failure_burst.failures_min.max(1)).then(|| Signal {
        code: Code::FailureBurst,
        description: format!("{failures} failed logins of the account within 15 minutes."),
        mode: signals.failure_burst.mode,
        factor: signals.failure_burst.factor,
    });
    let since = evidence.user.map_or(0, |user| failures_since_success(user, at_ms));
    let after_failures = (since >= signals.success_after_failures.failures_min.max(1)).then(|| Signal {
        code: Code::SuccessAfterFailures,
        description: format!("{since} failed logins of the account within an hour, and no success since."),
        mode: signals.success_after_failures.mode,
        factor: signals.success_after_failures.factor,
    });
    let denied = (evidence.listed.denied && !evidence.listed.exempt).then(|| Signal {
        code: Code::DenylistedNetwork,
        description: "The address is on a deny list.".into(),
        mode: signals.denylisted_network.mode,
        factor: signals.denylisted_network.factor,
    });
    let reported = evidence.user.is_some_and(|user| user.was_reported(attempt, at_ms)).then(|| Signal {
        code: Code::ReportedByUser,
        description: "The user has reported this device or address.".into(),
        mode: signals.reported_by_user.mode,
        factor: signals.reported_by_user.factor,
    });
    let automated = automated(evidence).map(|description| Signal {
        code: Code::AutomatedClient,
        description: description.into(),
        mode: signals.automated_client.mode,
        factor: signals.automated_client.factor,
    });
    let fan_out = fan_out(evidence, &signals.ip_fan_out);
    [burst, after_failures, fan_out, denied, automated, reported].into_iter().flatten().collect()
}

fn failures_since_success(user: &User, at_ms: i64) -> usize {
    let begin_ms = at_ms - AFTER_FAILURES_WINDOW_MS;
    let last_ms = user.latest().map(|success| success.time_ms).filter(|success| *success <= at_ms).max();
    let is_counted = |failed: i64| (begin_ms..=at_ms).contains(&failed) && last_ms.is_none_or(|last| failed > last);
    user.failed_at_ms.iter().filter(|failed| is_counted(**failed)).count()
}

fn automated(evidence: &Evidence<'_>) -> Option<&'static str> {
    if agent::is_scripted(evidence.attempt) {
        return Some("The client is a program, or sends an empty user agent.");
    }
    let is_clockwork = evidence.user.is_some_and(|user| is_clockwork(user, evidence.at_ms));
    is_clockwork.then_some("The account's attempts come at regular intervals.")
}

/// Whether the latest attempts, including this one, come at equal pauses.
fn is_clockwork(user: &User, at_ms: i64) -> bool {
    let begin_ms = at_ms - CLOCKWORK_WINDOW_MS;
    let successes = user.latest().map(|success| success.time_ms);
    let attempts = user.failed_at_ms.iter().copied().chain(successes);
    let mut times: Vec<_> = attempts.filter(|time| (begin_ms..=at_ms).contains(time)).chain([at_ms]).collect();
    times.sort_unstable();
    if times.len() < CLOCKWORK_ATTEMPTS_MIN {
        return false;
    }
    let latest = &times[times.len() - CLOCKWORK_ATTEMPTS_MIN..];
    let pauses: Vec<_> = latest.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
    pauses.iter().all(|pause| (pause - mean).abs() <= mean * CLOCKWORK_DEVIATION_MAX)
}

fn fan_out(evidence: &Evidence<'_>, limits: &FanOut) -> Option<Signal> {
    if evidence.listed.exempt {
        return None;
    }
    let failed = |level| evidence.features.get(level).map_or(0, |row: &Feature| row.failed_users_at(evidence.at_ms));
    let (address, network) = (failed(Level::Ip).max(failed(Level::Site)), failed(Level::Network));
    let description = if address >= limits.address_users_min.max(1) {
        format!("{address} accounts failed to log in from this address within 30 minutes.")
    } else if network >= limits.network_users_min.max(1) {
        format!("{network} accounts failed to log in from this address's network within 30 minutes.")
    } else {
        return None;
    };
    Some(Signal { code: Code::IpFanOut, description, mode: limits.mode, factor: limits.factor })
}
