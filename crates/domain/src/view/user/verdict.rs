//! The person's verdicts on their logins: a reported login is removed from the history, a confirmed one is restored.
//!
//! Both find the login by the id of its decision among the latest successes, which contain enough of it to subtract it.
//! The verdict on a decision is remembered, so that repeating it changes nothing: a system that sends all of its labels
//! every night neither counts an attempt twice nor reverts later decisions about a device.
//!
//! A report also revokes the device and marks device and address as reported, according to the login or, if it is not
//! among the latest, according to the report.

use super::device::{DeviceKey, Trust};
use super::{REPORTED_MAX, REPORTED_MS, User, VERDICTS_MAX};
use crate::view::Limits;
use crate::view::feature::{self, FeatureLevel};
use crate::view::sketch::hash;
use foretell_events::login::{self, Attempt, Login};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A successful login, with what is needed to subtract it again and to compare with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// When.
    pub time_ms: i64,
    /// Hash of the id of the decision that was requested for it; 0 if there is none.
    pub decision: u64,
    /// Its device, by [`DeviceKey::text`].
    pub device: Option<String>,
    /// The place of the attempt.
    pub place: Option<Coordinates>,
    /// Hash of its address.
    pub address: u64,
    /// Its values: the level, the hash by which the user counts it, and its name in the rows of all users. None if no
    /// decision was requested for it: it cannot be reported, and the row stays small.
    pub values: Vec<(FeatureLevel, u64, String)>,
    /// Whether a report removed it from the history.
    pub is_withdrawn: bool,
}

impl Success {
    pub(super) fn of(login: &Login, time_ms: i64) -> Self {
        let attempt = &login.attempt;
        let value = |level: FeatureLevel| {
            let value = level.value(attempt)?;
            Some((level, hash(&value), feature::stored(value)))
        };
        Self {
            time_ms,
            decision: login.decision_id.as_deref().map_or(0, hash),
            device: DeviceKey::of(attempt).map(|key| key.text()),
            place: Coordinates::of(attempt),
            address: address_hash(attempt.ip),
            values: FeatureLevel::VALUES.into_iter().filter_map(value).collect(),
            is_withdrawn: false,
        }
    }
}

/// The person's last verdict on an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerdict {
    /// Whether it was not the person's.
    pub is_fraud: bool,
    /// Hash of the device and the address in the verdict.
    pub named: u64,
    /// When.
    pub time_ms: i64,
}

impl LastVerdict {
    fn named(verdict: &login::Verdict) -> u64 {
        hash(&format!("{:?} {:?}", verdict.device_id, verdict.ip.map(feature::household)))
    }
}

/// A point on the globe, in ten-thousandths of a degree: eleven metres, more precise than any address database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    /// North.
    pub latitude: i32,
    /// East.
    pub longitude: i32,
    /// Whether a city is known. Without one the point may be the middle of a country.
    pub has_city: bool,
}

impl Coordinates {
    /// The place of an attempt, if it has both coordinates.
    pub fn of(attempt: &Attempt) -> Option<Self> {
        let fixed = |degrees: f64| (degrees * 10_000.0).round() as i32;
        let (latitude, longitude) = attempt.latitude.zip(attempt.longitude)?;
        Some(Self { latitude: fixed(latitude), longitude: fixed(longitude), has_city: attempt.city.is_some() })
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

/// The mark of a reported device.
pub(crate) fn device_hash(device_id: &str) -> u64 {
    hash(&format!("device:{device_id}"))
}

/// The mark of the household of a reported address.
pub(crate) fn address_hash(ip: IpAddr) -> u64 {
    hash(&format!("ip:{}", feature::household(ip)))
}

impl User {
    /// Whether the device or the address of an attempt at `at_ms` was reported in the [`REPORTED_MS`] before.
    pub fn was_reported(&self, attempt: &Attempt, at_ms: i64) -> bool {
        if self.reported_at_ms.is_empty() {
            return false;
        }
        let device = DeviceKey::of(attempt).map(|key| device_hash(&key.text()));
        let mut marks = device.into_iter().chain([address_hash(attempt.ip)]);
        marks.any(|mark| self.reported_at_ms.get(&mark).is_some_and(|marked| *marked > at_ms - REPORTED_MS))
    }

    /// Whether a verdict changes nothing: it was the last one on its decision, and the login, if it is among the
    /// latest, is already in the history or removed accordingly. A login may be folded after the report about it.
    pub(super) fn restates(&self, verdict: &login::Verdict, is_fraud: bool) -> bool {
        let last = self.verdicts.get(&hash(&verdict.decision_id));
        let is_same = last.is_some_and(|last| last.is_fraud == is_fraud && last.named == LastVerdict::named(verdict));
        is_same && self.find(verdict).is_none_or(|at| self.latest[at].is_withdrawn == is_fraud)
    }

    /// Remembers and counts a verdict on a decision.
    fn record(&mut self, verdict: &login::Verdict, is_fraud: bool, time_ms: i64) {
        let decision = hash(&verdict.decision_id);
        let latest = LastVerdict { is_fraud, named: LastVerdict::named(verdict), time_ms };
        let before = self.verdicts.insert(decision, latest).map(|before| before.is_fraud);
        for (fraud, count) in [(false, &mut self.confirmed), (true, &mut self.reported)] {
            let change = u32::from(fraud == is_fraud).wrapping_sub(u32::from(before == Some(fraud)));
            *count = count.saturating_add_signed(change.cast_signed());
        }
        if self.verdicts.len() > VERDICTS_MAX {
            let others = self.verdicts.iter().filter(|(other, _)| **other != decision);
            let oldest = others.min_by_key(|(other, latest)| (latest.time_ms, **other)).map(|(other, _)| *other);
            oldest.and_then(|other| self.verdicts.remove(&other));
        }
    }

    /// Applies a report that a login was not the person's. Returns the login that is removed from the history.
    pub(super) fn report(&mut self, verdict: &login::Verdict, time_ms: i64) -> Option<Success> {
        self.record(verdict, true, time_ms);
        let at = self.find(verdict);
        for mark in self.reported_hashes(verdict, at) {
            let marked = self.reported_at_ms.entry(mark).or_insert(time_ms);
            *marked = time_ms.max(*marked);
        }
        while self.reported_at_ms.len() > REPORTED_MAX {
            let oldest = self.reported_at_ms.iter().min_by_key(|(mark, at)| (**at, **mark)).map(|(mark, _)| *mark);
            oldest.and_then(|mark| self.reported_at_ms.remove(&mark));
        }
        if let Some(device) = self.device(verdict, at).filter(|device| self.devices.contains_key(device)) {
            self.decide(&device, time_ms, Trust::Reported);
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

    /// Applies a confirmation that a login was the person's. Returns the login that is restored to the history.
    pub(super) fn confirm(&mut self, verdict: &login::Verdict, time_ms: i64, limits: &Limits) -> Option<Success> {
        self.record(verdict, false, time_ms);
        let at = self.find(verdict);
        for mark in self.reported_hashes(verdict, at) {
            self.reported_at_ms.remove(&mark);
        }
        let device = self.device(verdict, at);
        if let Some(device) =
            device.and_then(|device| self.devices.get_mut(&device)).filter(|device| device.is_reported)
        {
            (device.revoked_at_ms, device.is_reported) = (None, false);
        }
        let success = self.latest.get_mut(at?).filter(|success| success.is_withdrawn)?;
        success.is_withdrawn = false;
        let success = success.clone();
        self.count_in(&success, limits);
        if let Some(device) = success.device.as_ref().and_then(|device| self.devices.get_mut(device)) {
            device.logins += 1;
        }
        Some(success)
    }

    /// The login of a verdict, among the latest ones.
    pub(super) fn find(&self, verdict: &login::Verdict) -> Option<usize> {
        self.latest.iter().rposition(|success| success.decision == hash(&verdict.decision_id))
    }

    /// The device of a verdict: of the login at `at`, or else the one in the verdict.
    fn device(&self, verdict: &login::Verdict, at: Option<usize>) -> Option<String> {
        let success = at.and_then(|at| self.latest.get(at));
        success.and_then(|success| success.device.clone()).or_else(|| verdict.device_id.clone())
    }

    /// The device and the address of a verdict: of the login at `at`, or else those in the verdict.
    fn reported_hashes(&self, verdict: &login::Verdict, at: Option<usize>) -> Vec<u64> {
        let success = at.and_then(|at| self.latest.get(at));
        let device = success.and_then(|success| success.device.as_ref()).or(verdict.device_id.as_ref());
        let address = success.map(|success| success.address).or(verdict.ip.map(address_hash));
        device.map(|key| device_hash(key)).into_iter().chain(address).collect()
    }
}
