//! The owner row of logins: a user's devices and login history.
//!
//! What each event does:
//! - a **success** counts in the history, adds or renews a device, and contributes to every level of its attempt; the
//!   first one is also counted as such, for the number of accounts with history;
//! - a **failure** is kept for the short window and contributes as a failure; it adds no device;
//! - **trusted** and **revoked** change one device, known or not;
//! - **reported** removes the login of its decision from the history, revokes its device, and marks device and address
//!   as reported; **confirmed** removes marks and revocation, and restores the login. Both find the login only among
//!   the latest successes: for older ones the verdict is counted, and the history is unchanged. The same verdict again,
//!   on a decision among the last [`VERDICTS_MAX`], changes nothing;
//! - **erased** empties the row. Repeated events from before it are skipped, those after it start a new history; counts
//!   in aggregate rows, which identify no person, stay.
//!
//! Events may arrive in any order: times are compared, never assumed to ascend.

mod device;
mod keyed;
mod verdict;

pub use device::{DeviceKey, UserDevice, fingerprint};
pub use keyed::{KEYED_MAX, KeyedRequest};
pub(crate) use verdict::address_hash;
pub use verdict::{Coordinates, LastVerdict, Success};

use super::feature::{self, Delta, FeatureLevel, LoginChange};
use super::recent::RecentEvents;
use super::sketch::hash;
use super::{Contribution, Fold, FoldOutcome, Limits, Skip};
use crate::address::{Family, RowKey, View};
use device::Trust;
use foretell_events::login::{Login, LoginFact};
use foretell_events::{Event, Fact, key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a device stays known after its last success.
pub const DEVICE_KNOWN_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// The window of `failures_recent` and of FAILURE_BURST.
pub const FAILURES_WINDOW_MS: i64 = 15 * 60 * 1000;
/// How long a device or an address stays reported, unless it is confirmed.
pub const REPORTED_MS: i64 = DEVICE_KNOWN_MS;
/// Devices and addresses that are remembered as reported; the one reported longest ago is forgotten first.
pub const REPORTED_MAX: usize = 32;
/// Decisions whose last verdict is remembered; the oldest verdict is forgotten first, and the same verdict on its
/// decision then counts as a new one.
pub const VERDICTS_MAX: usize = 64;

/// The state of a user's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The latest events, by which repetitions are recognised.
    pub recent: RecentEvents,
    /// Successful logins.
    pub successes: u64,
    /// Failed logins.
    pub failures: u64,
    /// Attempts whose last verdict is that they were the person's.
    pub confirmed: u32,
    /// Attempts whose last verdict is that they were not the person's.
    pub reported: u32,
    /// Earliest attempt.
    pub first_seen_ms: Option<i64>,
    /// Latest success.
    pub last_success_ms: Option<i64>,
    /// Times of the latest failures, ascending.
    pub failed_at_ms: Vec<i64>,
    /// Values seen in successes, by level.
    pub values: BTreeMap<FeatureLevel, BTreeMap<u64, ValueCount>>,
    /// Devices, by [`DeviceKey::text`].
    pub devices: BTreeMap<String, UserDevice>,
    /// Latest successes, ascending by time.
    pub latest: Vec<Success>,
    /// Devices and addresses that the person reported, by [`verdict::device_hash`] and [`verdict::address_hash`], with
    /// the time of the report.
    pub reported_at_ms: BTreeMap<u64, i64>,
    /// The last verdicts of the person, by the hash of the decision's id.
    pub verdicts: BTreeMap<u64, LastVerdict>,
    /// Latest requests with an idempotency key, in the order of their offsets.
    pub keyed: Vec<KeyedRequest>,
    /// When everything before was forgotten.
    pub erased_at_ms: Option<i64>,
}

/// How often a value was seen in a user's successes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCount {
    /// Times.
    pub count: u32,
    /// Last time.
    pub last_ms: i64,
}

impl User {
    /// Failures in the [`FAILURES_WINDOW_MS`] before `at_ms`, up to the limit of kept failures.
    pub fn failures_at(&self, at_ms: i64) -> usize {
        self.failed_at_ms.iter().filter(|failed| (at_ms - FAILURES_WINDOW_MS..=at_ms).contains(*failed)).count()
    }

    /// Whether a value was seen in a success.
    pub fn count(&self, level: FeatureLevel, value: &str) -> u32 {
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

    /// The latest successes that are not withdrawn, the last one first.
    pub fn latest(&self) -> impl Iterator<Item = &Success> {
        self.latest.iter().rev().filter(|success| !success.is_withdrawn)
    }

    fn succeeded(&mut self, login: &Login, time_ms: i64, limits: &Limits) {
        let mut success = Success::of(login, time_ms);
        self.count_in(&success, limits);
        if login.decision_id.is_none() {
            success.values = Vec::new();
        }
        if let Some(key) = &success.device {
            self.device_seen(key, &login.attempt, time_ms);
            self.forget_devices(Some(key), limits.user_devices_max);
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
        for (level, value, _) in success.values.iter().filter(|(level, ..)| *level != FeatureLevel::Network) {
            count_value(self.values.entry(*level).or_default(), *value, success.time_ms, limits.user_values_max);
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
        // Successes before the latest ones are only known not to be later than they are.
        let latest = self.latest().map(|success| success.time_ms).max();
        self.last_success_ms = latest.or(self.last_success_ms).filter(|_| self.successes > 0);
    }
}

/// Counts a value, and forgets the rarest other one if there are too many.
fn count_value(values: &mut BTreeMap<u64, ValueCount>, value: u64, time_ms: i64, values_max: usize) {
    let seen = values.entry(value).or_default();
    seen.count = seen.count.saturating_add(1);
    seen.last_ms = seen.last_ms.max(time_ms);
    if values.len() > values_max {
        let others = values.iter().filter(|(other, _)| **other != value);
        let rarest = others.min_by_key(|(other, seen)| (seen.count, seen.last_ms, **other)).map(|(other, _)| *other);
        rarest.and_then(|other| values.remove(&other));
    }
}

/// The decision of the row about an event: with the event, all that its contributions need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDecision {
    /// It is the account's first success, or the last remaining one that a report removes.
    pub first_success: bool,
    /// The login that a report removes from the history, or that a confirmation restores.
    pub success: Option<Success>,
    /// A report or a confirmation refers to a login that is no longer remembered, so the history is unchanged.
    pub is_too_late: bool,
}

/// The fold of the logins topic.
#[derive(Debug, Clone, Default)]
pub struct LoginFold {
    /// What it depends on in addition to the log.
    pub limits: Limits,
}

impl LoginFold {
    fn change(&self, user: &mut User, fact: &LoginFact, time_ms: i64) -> FoldOutcome<UserDecision> {
        let mut decision = UserDecision::default();
        match fact {
            LoginFact::Attempted(login) => {
                user.first_seen_ms = Some(user.first_seen_ms.map_or(time_ms, |first| first.min(time_ms)));
                if login.succeeded {
                    decision.first_success = user.successes == 0;
                    user.succeeded(login, time_ms, &self.limits);
                } else {
                    user.failed(time_ms, &self.limits);
                }
            }
            LoginFact::Confirmed(verdict) if user.restates(verdict, false) => {
                return FoldOutcome::Skipped(Skip::Unchanged);
            }
            LoginFact::Reported(verdict) if user.restates(verdict, true) => {
                return FoldOutcome::Skipped(Skip::Unchanged);
            }
            LoginFact::Confirmed(verdict) => {
                decision.is_too_late = user.find(verdict).is_none();
                decision.first_success = user.successes == 0;
                decision.success = user.confirm(verdict, time_ms, &self.limits);
            }
            LoginFact::Reported(verdict) => {
                decision.is_too_late = user.find(verdict).is_none();
                decision.success = user.report(verdict, time_ms);
                decision.first_success = user.successes == 0;
            }
            LoginFact::DeviceTrusted(device) => return self.decided(user, &device.device_id, time_ms, Trust::Trusted),
            LoginFact::DeviceRevoked(device) => return self.decided(user, &device.device_id, time_ms, Trust::Revoked),
            LoginFact::UserErased(_) => *user = User { erased_at_ms: Some(time_ms), ..User::default() },
        }
        FoldOutcome::Applied(decision)
    }

    /// Applies a decision about a device; it changes nothing if it already holds, or if a later one does.
    fn decided(&self, user: &mut User, device_id: &str, time_ms: i64, trust: Trust) -> FoldOutcome<UserDecision> {
        let holds = |user: &User| {
            let device = user.devices.get(device_id)?;
            Some((device.trusted, device.revoked_at_ms.is_some(), device.is_reported))
        };
        let before = holds(user);
        user.decide(device_id, time_ms, trust);
        // The revocation of an unknown device is remembered only if there is space: it displaces no known one.
        let kept = (trust == Trust::Trusted).then_some(device_id);
        user.forget_devices(kept, self.limits.user_devices_max);
        if before == holds(user) {
            return FoldOutcome::Skipped(Skip::Unchanged);
        }
        FoldOutcome::Applied(UserDecision::default())
    }
}

impl Fold for LoginFold {
    type Owner = User;
    type Decision = UserDecision;
    const FAMILY: Family = Family::Logins;
    const OWNER: View = View::User;

    fn fold(&self, user: &mut User, event: &Event, place: super::RecordPosition) -> FoldOutcome<UserDecision> {
        let Fact::Login(fact) = &event.fact else { return FoldOutcome::Skipped(Skip::Unchanged) };
        let time_ms = event.envelope.time_ms;
        if user.erased_at_ms.is_some_and(|erased| time_ms <= erased) {
            return FoldOutcome::Skipped(Skip::Erased);
        }
        // A request that is recognised by its key is not also remembered by its event: the event would outlive the key.
        let (fingerprint, has_key) = (event.fingerprint(), event.fact.idempotency_digest().is_some());
        if user.recent.contains(fingerprint) || has_key && user.keyed(&event.envelope.id).is_some() {
            return FoldOutcome::Skipped(Skip::Repeated);
        }
        user.recent.insert(fingerprint);
        let outcome = self.change(user, fact, time_ms);
        user.remember_key(event, place, matches!(outcome, FoldOutcome::Applied(_)));
        outcome
    }

    fn is_too_late(decision: &UserDecision) -> bool {
        decision.is_too_late
    }

    fn contributions(&self, event: &Event, decision: &UserDecision, _: super::RecordPosition) -> Vec<Contribution> {
        let tenant = &event.envelope.tenant;
        let contribution = |level, value: &str, delta| {
            Contribution::new(feature::key(tenant, level, value), super::Delta::Feature(delta))
        };
        let history = |change: LoginChange| {
            let user = hash(event.fact.subject());
            let delta = move |level| Delta { level, change, user, time_ms: event.envelope.time_ms, lower: Vec::new() };
            let success = decision.success.iter();
            let values =
                success.flat_map(|success| &success.values).map(|(level, _, stored)| (*level, stored.as_str()));
            let all = decision.success.iter().map(|_| (FeatureLevel::All, ""));
            all.chain(values).map(|(level, value)| contribution(level, value, delta(level))).collect()
        };
        let Fact::Login(fact) = &event.fact else { return Vec::new() };
        match fact {
            LoginFact::Attempted(login) => std::iter::once(FeatureLevel::All)
                .chain(FeatureLevel::VALUES)
                .filter_map(|level| {
                    let value = level.value(&login.attempt)?;
                    Some(contribution(level, &value, delta(level, login, event.envelope.time_ms, decision)))
                })
                .collect(),
            LoginFact::Reported(_) => history(LoginChange::Withdrawn { last: decision.first_success }),
            LoginFact::Confirmed(_) => history(LoginChange::Succeeded { first: decision.first_success }),
            LoginFact::DeviceTrusted(_) | LoginFact::DeviceRevoked(_) | LoginFact::UserErased(_) => Vec::new(),
        }
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn delta(level: FeatureLevel, login: &Login, time_ms: i64, decision: &UserDecision) -> Delta {
    let change = match login.succeeded {
        true => LoginChange::Succeeded { first: decision.first_success },
        false => LoginChange::Failed,
    };
    Delta::of(level, &login.attempt, &login.user_id, change, time_ms)
}

/// The address of a user's row.
pub fn row_key(tenant: &str, user_id: &str) -> RowKey {
    RowKey::hashed(View::User, key::of(tenant, user_id))
}
