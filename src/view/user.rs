//! The owner row of logins: a user's devices and login history.
//!
//! What each event does:
//! - a **success** counts in the history, makes or renews a device, and contributes to every level of its
//!   attempt; the first one is also counted as such, for the number of accounts with history;
//! - a **failure** is kept for the short window and contributes as a failure; it makes no device;
//! - **trusted** and **revoked** change one device, known or not;
//! - **reported** takes the login of its decision out of the history again, revokes its device, and marks device and
//!   address as reported; **confirmed** takes marks and revocation away, and puts the login back. Both find the login
//!   among the latest successes alone: beyond those they are counted, and the history stays;
//! - **erased** empties the row. Events of before that come again are skipped, those after it begin anew;
//!   counts in aggregate rows, which name nobody, stay.
//!
//! Events may come in any order: times are compared, never assumed to rise.

use super::feature::{self, Change, Delta, Level};
use super::recent::Recent;
use super::sketch::hash;
use super::{Contribution, Fold, Limits, Outcome};
use crate::event::login::{Attempt, Login, Verdict};
use crate::event::{Event, Fact, key};
use crate::store::{Family, RowKey, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How long a device stays known after its last success.
pub const DEVICE_KNOWN_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// The window of `failures_recent` and of FAILURE_BURST.
pub const FAILURES_WINDOW_MS: i64 = 15 * 60 * 1000;
/// How long a device or an address stays reported, unless it is confirmed.
pub const REPORTED_MS: i64 = DEVICE_KNOWN_MS;
/// Devices and addresses that are remembered as reported; the mark set longest ago is forgotten first.
pub const REPORTED_MAX: usize = 32;
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
    /// Latest successes, rising by time.
    pub latest: Vec<Success>,
    /// Devices and addresses that the person reported, by [`device_mark`] and [`address_mark`], with when.
    pub reported_at_ms: BTreeMap<u64, i64>,
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

/// A successful login, as far as it can be taken out again and compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// When.
    pub time_ms: i64,
    /// Hash of the id of the score that was asked for it; 0 where none was.
    pub decision: u64,
    /// Its device, by [`DeviceKey::text`].
    pub device: Option<String>,
    /// Where it came from.
    pub place: Option<Place>,
    /// Hash of its address.
    pub address: u64,
    /// Its values: the level, the hash by which the user counts it, and how the rows of all users are named by it.
    pub values: Vec<(Level, u64, String)>,
    /// A report took it out of the history.
    pub is_withdrawn: bool,
}

impl Success {
    fn of(login: &Login, time_ms: i64) -> Self {
        let attempt = &login.attempt;
        let value = |level: Level| {
            let value = level.value(attempt)?;
            Some((level, hash(&value), feature::stored(value)))
        };
        Self {
            time_ms,
            decision: login.decision_id.as_deref().map_or(0, hash),
            device: DeviceKey::of(attempt).map(|key| key.text()),
            place: Place::of(attempt),
            address: address_mark(attempt.ip),
            values: Level::VALUES.into_iter().filter_map(value).collect(),
            is_withdrawn: false,
        }
    }
}

/// A point on the globe, in ten-thousandths of a degree: eleven metres, which no database of addresses knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// North.
    pub latitude: i32,
    /// East.
    pub longitude: i32,
}

impl Place {
    /// Where an attempt comes from, if it has both coordinates.
    pub fn of(attempt: &Attempt) -> Option<Self> {
        let fixed = |degrees: f64| (degrees * 10_000.0).round() as i32;
        let (latitude, longitude) = attempt.latitude.zip(attempt.longitude)?;
        Some(Self { latitude: fixed(latitude), longitude: fixed(longitude) })
    }

    /// Great-circle distance in kilometres, by the haversine formula on a sphere of the earth's mean radius.
    pub fn distance_km(self, other: Self) -> f64 {
        const RADIUS_KM: f64 = 6_371.0;
        let radians = |fixed: i32| (f64::from(fixed) / 10_000.0).to_radians();
        let (from, to) = (radians(self.latitude), radians(other.latitude));
        let (north, east) = (to - from, radians(other.longitude) - radians(self.longitude));
        let half = (north / 2.0).sin().powi(2) + from.cos() * to.cos() * (east / 2.0).sin().powi(2);
        2.0 * RADIUS_KM * half.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// Names a device among those that were reported.
pub fn device_mark(device_id: &str) -> u64 {
    hash(&format!("device:{device_id}"))
}

/// Names an address among those that were reported.
pub fn address_mark(ip: IpAddr) -> u64 {
    hash(&format!("ip:{ip}"))
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

    /// The same, for people who see it in a list.
    fn unnamed(time_ms: i64) -> Self {
        Self { label: "unknown device".into(), ..Self::unseen(time_ms) }
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

    /// Whether the device or the address of an attempt at `at_ms` was reported in the [`REPORTED_MS`] before.
    pub fn was_reported(&self, attempt: &Attempt, at_ms: i64) -> bool {
        if self.reported_at_ms.is_empty() {
            return false;
        }
        let device = DeviceKey::of(attempt).map(|key| device_mark(&key.text()));
        let mut marks = device.into_iter().chain([address_mark(attempt.ip)]);
        marks.any(|mark| self.reported_at_ms.get(&mark).is_some_and(|marked| *marked > at_ms - REPORTED_MS))
    }

    /// The latest successes that count, the last one first.
    pub fn latest(&self) -> impl Iterator<Item = &Success> {
        self.latest.iter().rev().filter(|success| !success.is_withdrawn)
    }

    fn succeeded(&mut self, login: &Login, time_ms: i64, limits: &Limits) {
        let success = Success::of(login, time_ms);
        self.count_in(&success, limits);
        if let Some(key) = &success.device {
            self.device_seen(key, &login.attempt, time_ms);
            self.forget_devices(key, limits.user_devices_max);
        }
        let at = self.latest.partition_point(|other| other.time_ms <= time_ms);
        self.latest.insert(at, success);
        if self.latest.len() > limits.user_logins_max {
            self.latest.remove(0);
        }
    }

    fn count_in(&mut self, success: &Success, limits: &Limits) {
        self.successes += 1;
        self.last_success_ms = self.last_success_ms.max(Some(success.time_ms));
        for (level, value, _) in success.values.iter().filter(|(level, ..)| *level != Level::Network) {
            see(self.values.entry(*level).or_default(), *value, success.time_ms, limits.user_values_max);
        }
    }

    fn count_out(&mut self, success: &Success) {
        self.successes = self.successes.saturating_sub(1);
        for (level, value, _) in &success.values {
            let Some(seen) = self.values.get_mut(level) else { continue };
            let left = seen.get_mut(value).map(|seen| {
                seen.count = seen.count.saturating_sub(1);
                seen.count
            });
            if left == Some(0) {
                seen.remove(value);
            }
        }
        // What came before the latest ones is only known not to be later than they are.
        let latest = self.latest().map(|success| success.time_ms).max();
        self.last_success_ms = latest.or(self.last_success_ms).filter(|_| self.successes > 0);
    }

    /// The person says that a login was not theirs. Answers what of the history is taken out.
    fn report(&mut self, verdict: &Verdict, time_ms: i64) -> Option<Success> {
        self.reported += 1;
        let at = self.find(verdict);
        for mark in self.marks(verdict, at) {
            let marked = self.reported_at_ms.entry(mark).or_insert(time_ms);
            *marked = time_ms.max(*marked);
        }
        while self.reported_at_ms.len() > REPORTED_MAX {
            let oldest = self.reported_at_ms.iter().min_by_key(|(mark, at)| (**at, **mark)).map(|(mark, _)| *mark);
            oldest.and_then(|mark| self.reported_at_ms.remove(&mark));
        }
        let device = at.and_then(|at| self.latest[at].device.clone()).or_else(|| verdict.device_id.clone());
        if let Some(device) = device.filter(|device| self.devices.contains_key(device)) {
            self.decide(&device, time_ms, Trust::Revoked);
        }
        let success = self.latest.get_mut(at?).filter(|success| !success.is_withdrawn)?;
        success.is_withdrawn = true;
        let success = success.clone();
        self.count_out(&success);
        if let Some(device) = success.device.as_ref().and_then(|device| self.devices.get_mut(device)) {
            device.logins = device.logins.saturating_sub(1);
        }
        Some(success)
    }

    /// The person says that a login was theirs. Answers what of the history is put back.
    fn confirm(&mut self, verdict: &Verdict, limits: &Limits) -> Option<Success> {
        self.confirmed += 1;
        let at = self.find(verdict);
        let reported_at_ms: Vec<_> =
            self.marks(verdict, at).into_iter().filter_map(|mark| self.reported_at_ms.remove(&mark)).collect();
        let success = self.latest.get_mut(at?).filter(|success| success.is_withdrawn)?;
        success.is_withdrawn = false;
        let success = success.clone();
        self.count_in(&success, limits);
        if let Some(device) = success.device.as_ref().and_then(|device| self.devices.get_mut(device)) {
            device.logins += 1;
            device.revoked_at_ms = device.revoked_at_ms.filter(|revoked| !reported_at_ms.contains(revoked));
        }
        Some(success)
    }

    /// The login that a verdict is about, among the latest ones.
    fn find(&self, verdict: &Verdict) -> Option<usize> {
        self.latest.iter().rposition(|success| success.decision == hash(&verdict.decision_id))
    }

    /// The device and the address that a verdict is about: of the login at `at`, else those that it names.
    fn marks(&self, verdict: &Verdict, at: Option<usize>) -> Vec<u64> {
        let success = at.and_then(|at| self.latest.get(at));
        let device = success.and_then(|success| success.device.as_ref()).or(verdict.device_id.as_ref());
        let address = success.map(|success| success.address).or(verdict.ip.map(address_mark));
        device.map(|key| device_mark(key)).into_iter().chain(address).collect()
    }

    fn device_seen(&mut self, key: &str, attempt: &Attempt, time_ms: i64) {
        let looks = fingerprint(attempt).unwrap_or_default();
        let device = self.devices.entry(key.to_owned()).or_insert_with(|| Device::unseen(time_ms));
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
        let device = self.devices.entry(device_id.to_owned()).or_insert_with(|| Device::unnamed(time_ms));
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

/// What the row decided about an event: with the event, all that its contributions need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// It is the account's first success, or the last one that a report takes out.
    pub first_success: bool,
    /// The login that a report takes out, or that a confirmation puts back.
    pub success: Option<Success>,
    /// A report or a confirmation is of no login that is remembered, so the history stays as it is.
    pub is_too_late: bool,
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

    fn fold(&self, user: &mut User, event: &Event, _: super::Place) -> Outcome<Decision> {
        let time_ms = event.envelope.time_ms;
        if user.erased_at_ms.is_some_and(|erased| time_ms <= erased) {
            return Outcome::Skipped;
        }
        if !user.recent.insert(event.envelope.fingerprint()) {
            return Outcome::Skipped;
        }
        let mut decision = Decision::default();
        match &event.fact {
            Fact::Login(login) => {
                user.first_seen_ms = Some(user.first_seen_ms.map_or(time_ms, |first| first.min(time_ms)));
                if login.succeeded {
                    decision.first_success = user.successes == 0;
                    user.succeeded(login, time_ms, &self.limits);
                } else {
                    user.failed(time_ms, &self.limits);
                }
            }
            Fact::LoginConfirmed(verdict) => {
                decision.is_too_late = user.find(verdict).is_none();
                decision.first_success = user.successes == 0;
                decision.success = user.confirm(verdict, &self.limits);
            }
            Fact::LoginReported(verdict) => {
                decision.is_too_late = user.find(verdict).is_none();
                decision.success = user.report(verdict, time_ms);
                decision.first_success = user.successes == 0;
            }
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

    fn is_too_late(decision: &Decision) -> bool {
        decision.is_too_late
    }

    fn contributions(&self, event: &Event, decision: &Decision, _: super::Place) -> Vec<Contribution> {
        let tenant = &event.envelope.tenant;
        let contribution = |level, value: &str, delta| {
            Contribution::new(feature::key(tenant, level, value), super::Delta::Feature(delta))
        };
        let history = |change: Change| {
            let user = hash(event.fact.subject());
            let delta = move |level| Delta { level, change, user, time_ms: event.envelope.time_ms, lower: Vec::new() };
            let success = decision.success.iter();
            let values =
                success.flat_map(|success| &success.values).map(|(level, _, stored)| (*level, stored.as_str()));
            let all = decision.success.iter().map(|_| (Level::All, ""));
            all.chain(values).map(|(level, value)| contribution(level, value, delta(level))).collect()
        };
        match &event.fact {
            Fact::Login(login) => std::iter::once(Level::All)
                .chain(Level::VALUES)
                .filter_map(|level| {
                    let value = level.value(&login.attempt)?;
                    Some(contribution(level, &value, delta(level, login, event.envelope.time_ms, decision)))
                })
                .collect(),
            Fact::LoginReported(_) => history(Change::Withdrawn { last: decision.first_success }),
            Fact::LoginConfirmed(_) => history(Change::Succeeded { first: decision.first_success }),
            _ => Vec::new(),
        }
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn delta(level: Level, login: &Login, time_ms: i64, decision: &Decision) -> Delta {
    let change = match login.succeeded {
        true => Change::Succeeded { first: decision.first_success },
        false => Change::Failed,
    };
    Delta::of(level, &login.attempt, &login.user_id, change, time_ms)
}

/// The address of a user's row.
pub fn row_key(tenant: &str, user_id: &str) -> RowKey {
    RowKey::hashed(View::User, key::of(tenant, user_id))
}
