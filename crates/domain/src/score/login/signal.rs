//! Signals: observations in addition to the likelihood ratio, each with a factor on it.
//!
//! The table in [`settings`] lists them and states what each observes. Here is one function per signal, with the name
//! of its settings: it returns what it observed, as a text for staff, or none if the signal does not apply.
//!
//! Windows are in event time and include both ends. An attempt is evaluated by what is known of the time before it,
//! regardless of later arrivals.

pub mod settings;

use super::LoginEvidence;
use crate::score::{Reason, ReasonCode};
use crate::view::feature::FeatureLevel;
use crate::view::user::{Coordinates, Success, User, address_hash};
use foretell_events::agent;
use foretell_events::login::Attempt;
use foretell_events::time::{DAY_MS, HOUR_MS};
use settings::{Dormant, Effect, Failures, FanOut, OwnAddress, Signals, Switch, Travel};
use std::borrow::Cow;

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

/// What a signal needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// A history, which the attempt is compared with.
    History,
    /// Nothing: it is a sign of an attack, with or without a history.
    Attack,
}

/// An observation in addition to the likelihood ratio, with its factor on S.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub(super) code: ReasonCode,
    description: Cow<'static, str>,
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

/// What a signal observed, for staff; none if it does not apply.
type Observed = Option<Cow<'static, str>>;

/// Generates the search for signals.
macro_rules! search {
    (signals {$(
        $(#[$what:meta])*
        $code:ident = $name:literal of $basis:ident, $field:ident: $settings:ident { $($default:tt)* };
    )+}) => {
        /// All signals of an attempt, including those in shadow mode; not those that are switched off. Those that need
        /// a history come first.
        pub(super) fn all(evidence: &LoginEvidence<'_>, signals: &Signals) -> Vec<Signal> {
            let mut found = Vec::new();
            for basis in [Basis::History, Basis::Attack] {$(
                let $settings { mode, factor, .. } = signals.$field;
                if basis == Basis::$basis
                    && mode != Switch::Off
                    && let Some(description) = $field(evidence, &signals.$field)
                {
                    found.push(Signal { code: ReasonCode::$code, description, mode, factor });
                }
            )+}
            found
        }
    };
}

settings::table!(search);

fn new_device(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let is_known = evidence.scored_user()?.device_known(evidence.attempt, evidence.at_ms);
    (is_known == Some(false)).then_some("The device is not one of the user's known devices.".into())
}

/// An attempt without a device is neutral, unless the user's devices that look the same have an id.
fn device_withheld(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let is_withheld = evidence.scored_user()?.device_withheld(evidence.attempt, evidence.at_ms);
    is_withheld.then_some("The attempt has no device id, but the user's devices that look the same have one.".into())
}

/// A household's address distinguishes people from attackers; the address of a carrier or an office does not. For IPv6,
/// another network of the same site also counts.
fn own_address(evidence: &LoginEvidence<'_>, limits: &OwnAddress) -> Observed {
    let user = evidence.scored_user()?;
    let is_own = |level: FeatureLevel| {
        let is_known = level.value(evidence.attempt).is_some_and(|value| user.count(level, &value) > 0);
        let users = evidence.features.get(level).map(|row| row.users);
        is_known && users.is_some_and(|users| users <= limits.users_max)
    };
    let is_any = [FeatureLevel::Ip, FeatureLevel::Site].into_iter().any(is_own);
    is_any.then_some("The user has logged in from this address before, and few other accounts have.".into())
}

fn own_network(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let (user, asn) = (evidence.scored_user()?, evidence.attempt.asn?);
    (user.count(FeatureLevel::Asn, &asn.to_string()) > 0)
        .then_some("The user has logged in from this network before.".into())
}

fn new_country(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let is_new = is_new_country(evidence.attempt, evidence.scored_user()?);
    is_new.then_some("The user has never logged in from this country.".into())
}

/// Only where both the attempt and the user's history have a country.
pub(super) fn is_new_country(attempt: &Attempt, user: &User) -> bool {
    let has_history = user.values.get(&FeatureLevel::Country).is_some_and(|seen| !seen.is_empty());
    let is_unknown = |country: &str| user.count(FeatureLevel::Country, country) == 0;
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
pub(super) fn journey(evidence: &LoginEvidence<'_>, user: &User) -> Option<Journey> {
    let here = Coordinates::of(evidence.attempt)?;
    let last = user.latest().find(|success| success.time_ms <= evidence.at_ms).or(user.latest().last())?;
    let there = last.place.filter(|there| there.has_city == here.has_city)?;
    if last.address == address_hash(evidence.attempt.ip) {
        return None;
    }
    let distance_km = here.distance_km(there);
    let took_ms = (evidence.at_ms - last.time_ms).abs().max(JOURNEY_MS_MIN);
    Some(Journey { distance_km, speed_kmh: distance_km / (took_ms as f64 / HOUR_MS as f64) })
}

/// Two cases give no signal: a network on an allow list, such as a relay's, which is in no place, and a user who was at
/// this place within a day. With a phone on its carrier's network and a computer on an office's network, a user is at
/// both places.
fn impossible_travel(evidence: &LoginEvidence<'_>, limits: &Travel) -> Observed {
    let user = evidence.scored_user().filter(|_| !evidence.listed.exempt)?;
    let is_too_far = |journey: &Journey| journey.distance_km > limits.distance_km_max;
    let journey = journey(evidence, user).filter(is_too_far).filter(|j| j.speed_kmh > limits.speed_kmh_max)?;
    let (here, address) = (Coordinates::of(evidence.attempt)?, address_hash(evidence.attempt.ip));
    let was_here = |success: &Success| {
        let is_near = success.place.is_some_and(|place| place.distance_km(here) <= limits.distance_km_max);
        (is_near || success.address == address) && (evidence.at_ms - success.time_ms).abs() <= TWO_PLACES_WINDOW_MS
    };
    let text = || {
        format!("The last successful login was {:.0} km away, and too recent for that distance.", journey.distance_km)
            .into()
    };
    (!user.latest().any(was_here)).then(text)
}

fn dormant_account(evidence: &LoginEvidence<'_>, limits: &Dormant) -> Observed {
    let ago_ms = evidence.at_ms - evidence.scored_user()?.last_success_ms?;
    let is_dormant = ago_ms > i64::from(limits.days_max) * DAY_MS;
    is_dormant.then(|| format!("The account's last successful login was {} days ago.", ago_ms / DAY_MS).into())
}

fn failure_burst(evidence: &LoginEvidence<'_>, limits: &Failures) -> Observed {
    let failures = evidence.user?.failures_at(evidence.at_ms);
    let is_burst = failures >= limits.failures_min.max(1);
    is_burst.then(|| format!("{failures} failed logins of the account within 15 minutes.").into())
}

fn success_after_failures(evidence: &LoginEvidence<'_>, limits: &Failures) -> Observed {
    let failures = failures_since_success(evidence.user?, evidence.at_ms);
    let text = || format!("{failures} failed logins of the account within an hour, and no success since.").into();
    (failures >= limits.failures_min.max(1)).then(text)
}

fn failures_since_success(user: &User, at_ms: i64) -> usize {
    let begin_ms = at_ms - AFTER_FAILURES_WINDOW_MS;
    let last_ms = user.latest().map(|success| success.time_ms).filter(|success| *success <= at_ms).max();
    let is_counted = |failed: i64| (begin_ms..=at_ms).contains(&failed) && last_ms.is_none_or(|last| failed > last);
    user.failed_at_ms.iter().filter(|failed| is_counted(**failed)).count()
}

fn denylisted_network(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let is_denied = evidence.listed.denied && !evidence.listed.exempt;
    is_denied.then_some("The address is on a deny list.".into())
}

fn automated_client(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    if agent::is_scripted(evidence.attempt) {
        return Some("The client is a program, or sends an empty user agent.".into());
    }
    let is_clockwork = is_clockwork(evidence.user?, evidence.at_ms);
    is_clockwork.then_some("The account's attempts come at regular intervals.".into())
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

fn ip_fan_out(evidence: &LoginEvidence<'_>, limits: &FanOut) -> Observed {
    if evidence.listed.exempt {
        return None;
    }
    let failed = |level| evidence.features.get(level).map_or(0, |row| row.failed_users_at(evidence.at_ms));
    let (address, network) = (failed(FeatureLevel::Ip).max(failed(FeatureLevel::Site)), failed(FeatureLevel::Network));
    if address >= limits.address_users_min.max(1) {
        Some(format!("{address} accounts failed to log in from this address within 30 minutes.").into())
    } else if network >= limits.network_users_min.max(1) {
        Some(format!("{network} accounts failed to log in from this address's network within 30 minutes.").into())
    } else {
        None
    }
}

fn reported_by_user(evidence: &LoginEvidence<'_>, _: &Effect) -> Observed {
    let was_reported = evidence.user?.was_reported(evidence.attempt, evidence.at_ms);
    was_reported.then_some("The user has reported this device or address.".into())
}
