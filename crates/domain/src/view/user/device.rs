//! The devices of a user: how they are distinguished, and when one is known.

use super::{DEVICE_KNOWN_MS, User};
use crate::view::sketch::hash;
use foretell_events::login::Attempt;
use serde::{Deserialize, Serialize};

/// Longest label of a device, in characters.
const LABEL_CHARS_MAX: usize = 80;

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDevice {
    /// For people: browser and system, if known.
    pub label: String,
    /// What its attempts look like, regardless of its id; 0 if unknown.
    pub fingerprint: u64,
    /// First success, or the first decision about it.
    pub first_seen_ms: i64,
    /// Latest success, or the latest decision about it.
    pub last_seen_ms: i64,
    /// Successes.
    pub logins: u32,
    /// Stays known until it is revoked.
    pub trusted: bool,
    /// When it was revoked: new again until it is trusted, or seen in a success after this.
    pub revoked_at_ms: Option<i64>,
    /// Only a report revoked it, so a confirmation reverts that.
    pub is_reported: bool,
    /// When it was last trusted or revoked.
    pub decided_at_ms: i64,
}

impl UserDevice {
    /// A device of which only the time is known.
    pub(super) fn unseen(time_ms: i64) -> Self {
        Self {
            label: String::new(),
            fingerprint: 0,
            first_seen_ms: time_ms,
            last_seen_ms: time_ms,
            logins: 0,
            trusted: false,
            revoked_at_ms: None,
            is_reported: false,
            decided_at_ms: i64::MIN,
        }
    }

    /// The same, with a label for lists that people read.
    pub(super) fn unnamed(time_ms: i64) -> Self {
        Self { label: "unknown device".into(), ..Self::unseen(time_ms) }
    }

    /// Whether an attempt at `at_ms` from it is from a known device.
    pub fn known_at(&self, at_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && (self.trusted || self.last_seen_ms > at_ms - DEVICE_KNOWN_MS)
    }
}

/// What distinguishes a device of a user from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKey {
    /// The caller's id of it.
    Id(String),
    /// Without an id; the hash of what it looks like.
    Fingerprint(u64),
}

impl DeviceKey {
    /// The device of an attempt; none if the attempt contains nothing about it.
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

/// The fingerprint of an attempt's device, without versions: browser family, system family, device type. If none of
/// them is known, the user agent string without its digits. Versions are excluded because they change weekly.
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

/// A decision about a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted,
    Revoked,
    /// Revoked by a report of a login.
    Reported,
}

impl User {
    /// Whether an attempt at `at_ms` has no device id, although all known devices that look like it have one: the
    /// attempt has the user's browser but not the cookie.
    pub(crate) fn device_withheld(&self, attempt: &Attempt, at_ms: i64) -> bool {
        let Some(DeviceKey::Fingerprint(looks)) = DeviceKey::of(attempt) else { return false };
        let unnamed = DeviceKey::Fingerprint(looks).text();
        let alike = || self.devices.iter().filter(|(_, device)| device.fingerprint == looks && device.known_at(at_ms));
        alike().next().is_some() && alike().all(|(key, _)| *key != unnamed)
    }

    /// Whether an attempt at `at_ms` comes from a known device; none if the attempt contains no device.
    ///
    /// A device with an id is known only by its id; one without is known if any known device looks like it.
    pub fn device_known(&self, attempt: &Attempt, at_ms: i64) -> Option<bool> {
        Some(match DeviceKey::of(attempt)? {
            DeviceKey::Id(id) => self.devices.get(&id).is_some_and(|device| device.known_at(at_ms)),
            DeviceKey::Fingerprint(looks) => {
                self.devices.values().any(|device| device.fingerprint == looks && device.known_at(at_ms))
            }
        })
    }

    pub(super) fn device_seen(&mut self, key: &str, attempt: &Attempt, time_ms: i64) {
        let looks = fingerprint(attempt).unwrap_or_default();
        let device = self.devices.entry(key.to_owned()).or_insert_with(|| UserDevice::unseen(time_ms));
        device.logins += 1;
        device.first_seen_ms = device.first_seen_ms.min(time_ms);
        if time_ms >= device.last_seen_ms || device.label.is_empty() {
            device.last_seen_ms = device.last_seen_ms.max(time_ms);
            device.label = label(attempt);
            device.fingerprint = looks;
        }
        if device.revoked_at_ms.is_some_and(|revoked| time_ms > revoked) {
            (device.revoked_at_ms, device.is_reported) = (None, false);
        }
    }

    /// Applies a decision about a device; one older than the last changes nothing.
    pub(super) fn decide(&mut self, device_id: &str, time_ms: i64, verdict: Trust) {
        let device = self.devices.entry(device_id.to_owned()).or_insert_with(|| UserDevice::unnamed(time_ms));
        if time_ms < device.decided_at_ms {
            return;
        }
        let seen_since = device.logins > 0 && device.last_seen_ms > time_ms;
        let was_revoked = device.revoked_at_ms.is_some();
        device.decided_at_ms = time_ms;
        device.trusted = verdict == Trust::Trusted;
        device.revoked_at_ms = (verdict != Trust::Trusted && !seen_since).then_some(time_ms);
        device.is_reported = verdict == Trust::Reported && (device.is_reported || !was_revoked);
    }

    /// Keeps at most `devices_max`, and `kept` among them: revoked ones are forgotten first, then those that are not
    /// trusted, the one seen longest ago before the others.
    pub(super) fn forget_devices(&mut self, kept: Option<&str>, devices_max: usize) {
        if self.devices.len() <= devices_max {
            return;
        }
        let rank = |device: &UserDevice| (device.revoked_at_ms.is_none(), device.trusted, device.last_seen_ms);
        let first =
            self.devices.iter().filter(|(key, _)| Some(key.as_str()) != kept).min_by_key(|(key, d)| (rank(d), *key));
        if let Some(key) = first.map(|(key, _)| key.clone()) {
            self.devices.remove(&key);
        }
    }
}
