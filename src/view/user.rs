//! The owner row of logins: a user's devices and login history.
//!
//! What each event does:
//! - a **success** counts in the history, makes or renews a device, and contributes to every level of its
//!   attempt; the first one is also counted as such, for the number of accounts with history;
//! - a **failure** is kept for the short window and contributes as a failure; it makes no device;
//! - **trusted** and **revoked** change one device, known or not;
//! - **confirmed** and **reported** are counted; they do not yet change the history;
//! - **erased** empties the row. Events of before that come again are skipped, those after it begin anew;
//!   counts in aggregate rows, which name nobody, stay.
//!
//! Events may come in any order: times are compared, never assumed to rise.

use super::feature::{self, Delta, Level};
use super::recent::Recent;
use super::sketch::hash;
use super::{Contribution, Fold, Limits, Outcome, Place};
use crate::event::login::{Attempt, Login};
use crate::event::{Event, Fact, key};
use crate::store::{Family, RowKey, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a device stays known after its last success.
pub const DEVICE_KNOWN_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// The window of `failures_recent` and of FAILURE_BURST.
pub const FAILURES_WINDOW_MS: i64 = 15 * 60 * 1000;
/// Longest label of a device, in characters.
const LABEL_CHARS_MAX: usize = 80;

/// The state of a user's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Repetitions.
    pub recent: Recent,
    /// Successful logins.
    pub successes: u64,
    /// Failed logins.
    pub failures: u64,
    /// Attempts that the person said were theirs.
    pub confirmed: u32,
    /// Attempts that the person said were not theirs.
    pub reported: u32,
    /// Earliest attempt.
    pub first_seen_ms: Option<i64>,
    /// Latest success.
    pub last_success_ms: Option<i64>,
    /// Times of the latest failures, rising.
    pub failed_at_ms: Vec<i64>,
    /// Values seen in successes, by level.
    pub values: BTreeMap<Level, BTreeMap<u64, Seen>>,
    /// Devices, by [`DeviceKey::text`].
    pub devices: BTreeMap<String, Device>,
    /// When everything before was forgotten.
    pub erased_at_ms: Option<i64>,
}

/// How often a value was seen in a user's successes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Times.
    pub count: u32,
    /// Last time.
    pub last_ms: i64,
}

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// For people: browser and system, as far as they are known.
    pub label: String,
    /// What its attempts look like, however they are named; 0 where unknown.
    pub fingerprint: u64,
    /// First success, or when it was first decided about.
    pub first_seen_ms: i64,
    /// Latest success, or when it was last decided about.
    pub last_seen_ms: i64,
    /// Successes.
    pub logins: u32,
    /// Stays known until it is revoked.
    pub trusted: bool,
    /// When it was revoked: new again until it is trusted, or seen in a success after this.
    pub revoked_at_ms: Option<i64>,
    /// When it was last trusted or revoked.
    pub decided_at_ms: i64,
}

impl Device {
    /// A device that nothing is known of but when it came up.
    fn unseen(time_ms: i64) -> Self {
        Self {
            label: String::new(),
            fingerprint: 0,
            first_seen_ms: time_ms,
            last_seen_ms: time_ms,
            logins: 0,
            trusted: false,
            revoked_at_ms: None,
            decided_at_ms: i64::MIN,
        }
    }

    /// Whether an attempt at `at_ms` from it is from a known device.
    pub fn known_at(&self, at_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && (self.trusted || self.last_seen_ms > at_ms - DEVICE_KNOWN_MS)
    }
}

/// What tells one device of a user from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKey {
    /// The caller named it.
    Id(String),
    /// Nobody named it; this is what it looks like.
    Fingerprint(u64),
}

impl DeviceKey {
    /// The device of an attempt; none where the attempt shows nothing of it.
    pub fn of(attempt: &Attempt) -> Option<Self> {
        match &attempt.device_id {
            Some(id) => Some(Self::Id(id.clone())),
            None => fingerprint(attempt).map(Self::Fingerprint),
        }
    }

    /// The key in [`User::devices`] and in the API: the caller's own id, or `fp-` and the fingerprint.
    pub fn text(&self) -> String {
        match self {
            Self::Id(id) => id.clone(),
            Self::Fingerprint(fingerprint) => format!("fp-{fingerprint:016x}"),
        }
    }
}

/// What an attempt's device looks like, without versions: browser family, system family, device type. Where none
/// of them is known, the user agent string without its digits. Versions are left out because they change weekly.
pub fn fingerprint(attempt: &Attempt) -> Option<u64> {
    let parts = [&attempt.browser, &attempt.os, &attempt.device_type];
    if parts.iter().any(|part| part.is_some()) {
        let families: Vec<_> = parts.iter().map(|part| part.as_deref().map(family).unwrap_or_default()).collect();
        return Some(hash(&families.join("|")));
    }
    let agent = attempt.user_agent.as_deref()?;
    Some(hash(&agent.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect::<String>()))
}

/// The name before its version: `Chrome Mobile` of `Chrome Mobile 46.0`.
fn family(name: &str) -> &str {
    let version = name.char_indices().find(|(at, c)| c.is_ascii_digit() && name[..*at].ends_with(' '));
    version.map_or(name, |(at, _)| name[..at].trim_end())
}

fn label(attempt: &Attempt) -> String {
    let label = match (&attempt.browser, &attempt.os) {
        (Some(browser), Some(os)) => format!("{} on {}", family(browser), family(os)),
        (Some(only), None) | (None, Some(only)) => family(only).to_owned(),
        (None, None) => attempt.user_agent.clone().unwrap_or_else(|| "unknown device".into()),
    };
    label.chars().take(LABEL_CHARS_MAX).collect()
}

impl User {
    /// Failures in the [`FAILURES_WINDOW_MS`] before `at_ms`, up to the limit that is kept.
    pub fn failures_at(&self, at_ms: i64) -> usize {
        self.failed_at_ms.iter().filter(|failed| (at_ms - FAILURES_WINDOW_MS..=at_ms).contains(*failed)).count()
    }

    /// Whether an attempt at `at_ms` comes from a known device; none where the attempt shows no device.
    ///
    /// A named device is known by its name alone; an unnamed one is known if any known device looks like it.
    pub fn device_known(&self, attempt: &Attempt, at_ms: i64) -> Option<bool> {
        Some(match DeviceKey::of(attempt)? {
            DeviceKey::Id(id) => self.devices.get(&id).is_some_and(|device| device.known_at(at_ms)),
            DeviceKey::Fingerprint(looks) => {
                self.devices.values().any(|device| device.fingerprint == looks && device.known_at(at_ms))
            }
        })
    }

    /// Whether a value was seen in a success.
    pub fn count(&self, level: Level, value: &str) -> u32 {
        self.values.get(&level).and_then(|seen| seen.get(&hash(value))).map_or(0, |seen| seen.count)
    }

    fn failed(&mut self, time_ms: i64, limits: &Limits) {
        self.failures += 1;
        let at = self.failed_at_ms.partition_point(|failed| *failed <= time_ms);
        self.failed_at_ms.insert(at, time_ms);
        if self.failed_at_ms.len() > limits.user_failures_max {
            self.failed_at_ms.remove(0);
        }
    }

    fn succeeded(&mut self, attempt: &Attempt, time_ms: i64, limits: &Limits) {
        self.successes += 1;
        self.last_success_ms = self.last_success_ms.max(Some(time_ms));
        for level in Level::VALUES.into_iter().filter(|level| *level != Level::Network) {
            if let Some(value) = level.value(attempt) {
                see(self.values.entry(level).or_default(), hash(&value), time_ms, limits.user_values_max);
            }
        }
        if let Some(key) = DeviceKey::of(attempt) {
            self.device_seen(&key, attempt, time_ms);
            self.forget_devices(&key.text(), limits.user_devices_max);
        }
    }

    fn device_seen(&mut self, key: &DeviceKey, attempt: &Attempt, time_ms: i64) {
        let looks = fingerprint(attempt).unwrap_or_default();
        let device = self.devices.entry(key.text()).or_insert_with(|| Device::unseen(time_ms));
        device.logins += 1;
        device.first_seen_ms = device.first_seen_ms.min(time_ms);
        if time_ms >= device.last_seen_ms || device.label.is_empty() {
            device.last_seen_ms = device.last_seen_ms.max(time_ms);
            device.label = label(attempt);
            device.fingerprint = looks;
        }
        if device.revoked_at_ms.is_some_and(|revoked| time_ms > revoked) {
            device.revoked_at_ms = None;
        }
    }

    /// Takes a decision about a device; an older one than the last changes nothing.
    fn decide(&mut self, device_id: &str, time_ms: i64, verdict: Trust) {
        let device = self
            .devices
            .entry(device_id.to_owned())
            .or_insert_with(|| Device { label: "unknown device".into(), ..Device::unseen(time_ms) });
        if time_ms < device.decided_at_ms {
            return;
        }
        device.decided_at_ms = time_ms;
        device.trusted = verdict == Trust::Trusted;
        let seen_since = device.logins > 0 && device.last_seen_ms > time_ms;
        device.revoked_at_ms = (verdict == Trust::Revoked && !seen_since).then_some(time_ms);
    }

    /// Keeps at most `devices_max`, and `kept` among them.
    fn forget_devices(&mut self, kept: &str, devices_max: usize) {
        if self.devices.len() <= devices_max {
            return;
        }
        let rank = |device: &Device| (device.revoked_at_ms.is_none(), device.trusted, device.last_seen_ms);
        let first = self.devices.iter().filter(|(key, _)| *key != kept).min_by_key(|(key, d)| (rank(d), *key));
        if let Some(key) = first.map(|(key, _)| key.clone()) {
            self.devices.remove(&key);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Trusted,
    Revoked,
}

/// Counts a value, and forgets the rarest other one when there are too many.
fn see(values: &mut BTreeMap<u64, Seen>, value: u64, time_ms: i64, values_max: usize) {
    let seen = values.entry(value).or_default();
    seen.count = seen.count.saturating_add(1);
    seen.last_ms = seen.last_ms.max(time_ms);
    if values.len() > values_max {
        let others = values.iter().filter(|(other, _)| **other != value);
        let rarest = others.min_by_key(|(other, seen)| (seen.count, seen.last_ms, **other)).map(|(other, _)| *other);
        rarest.and_then(|other| values.remove(&other));
    }
}

/// Whether a login was its account's first success: with the event, all that its contributions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// No success came before it.
    pub first_success: bool,
}

/// The fold of the logins topic.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    /// What it depends on besides the log.
    pub limits: Limits,
}

impl Fold for Logins {
    type Owner = User;
    type Decision = Decision;
    const FAMILY: Family = Family::Logins;
    const OWNER: View = View::User;

    fn fold(&self, user: &mut User, event: &Event, _: Place) -> Outcome<Decision> {
        let time_ms = event.envelope.time_ms;
        if user.erased_at_ms.is_some_and(|erased| time_ms <= erased) {
            return Outcome::Skipped;
        }
        if !user.recent.insert(event.envelope.fingerprint()) {
            return Outcome::Skipped;
        }
        let mut decision = Decision { first_success: false };
        match &event.fact {
            Fact::Login(login) => {
                user.first_seen_ms = Some(user.first_seen_ms.map_or(time_ms, |first| first.min(time_ms)));
                if login.succeeded {
                    decision.first_success = user.successes == 0;
                    user.succeeded(&login.attempt, time_ms, &self.limits);
                } else {
                    user.failed(time_ms, &self.limits);
                }
            }
            Fact::LoginConfirmed(_) => user.confirmed += 1,
            Fact::LoginReported(_) => user.reported += 1,
            Fact::DeviceTrusted(device) => {
                user.decide(&device.device_id, time_ms, Trust::Trusted);
                user.forget_devices(&device.device_id, self.limits.user_devices_max);
            }
            Fact::DeviceRevoked(device) => {
                user.decide(&device.device_id, time_ms, Trust::Revoked);
                user.forget_devices(&device.device_id, self.limits.user_devices_max);
            }
            Fact::UserErased { .. } => *user = User { erased_at_ms: Some(time_ms), ..User::default() },
            _ => {}
        }
        Outcome::Applied(decision)
    }

    fn contributions(&self, event: &Event, decision: &Decision, _: Place) -> Vec<Contribution> {
        let Fact::Login(login) = &event.fact else { return Vec::new() };
        let tenant = &event.envelope.tenant;
        std::iter::once(Level::All)
            .chain(Level::VALUES)
            .filter_map(|level| {
                let value = level.value(&login.attempt)?;
                let delta = delta(level, login, event.envelope.time_ms, *decision);
                Some(Contribution::new(feature::key(tenant, level, &value), super::Delta::Feature(delta)))
            })
            .collect()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn delta(level: Level, login: &Login, time_ms: i64, decision: Decision) -> Delta {
    Delta {
        succeeded: login.succeeded,
        first_success: decision.first_success,
        time_ms,
        ..Delta::of(level, &login.attempt, &login.user_id)
    }
}

/// The address of a user's row.
pub fn row_key(tenant: &str, user_id: &str) -> RowKey {
    RowKey::hashed(View::User, key::of(tenant, user_id))
}
