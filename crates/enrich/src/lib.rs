//! Adds to login attempts what local data files contain about an address: location, network, and whether it is listed.
//!
//! ```text
//!   geo_asn, geo_city (MMDB) ──┐ check every reload_ms, swap     ingestion ─► enrich(attempt) ─► the event, as logged
//!   deny_lists, allow_lists ───┴──────────► Enricher ──────────► scoring ───► enrich(attempt), listed(address)
//! ```
//!
//! An address is looked up when an event is accepted and when an attempt is scored, and never in a fold: the same log
//! must produce the same rows in ten years, when the address belongs to someone else. The result is therefore stored in
//! the event. What the event itself contains always takes precedence, and a location from a file is ignored if it
//! contradicts the event's country or city, so that no attempt is located in Sydney, Norway.
//!
//! Missing data is neutral. A file that is missing, damaged or too old adds nothing, the feature level is left out of
//! the likelihood, and the answer contains a warning; it never blocks a login.
//!
//! [`foretell_events::address`] has the table of addresses that are looked up, and that can be listed.

pub mod geo;
pub mod netset;
pub mod watch;

use foretell_events::address;
use foretell_events::login::{Attempt, ListMatches};
use foretell_events::time::DAY_MS;
use foretell_ports::clock::Clock;
use foretell_ports::component::{Component, InvalidSetting};
use foretell_ports::file;
use foretell_telemetry::{CODE, ENRICH_LOADS, ENRICH_WARNINGS, FILE, RESULT};
use geo::{Geo, Location};
use metrics::counter;
use netset::{Bogons, Netset};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use watch::Watched;

/// Maximum number of lists; each is searched in turn.
const LISTS_MAX: usize = 64;
/// Largest list, in bytes.
const LIST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The data files, and their limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// MMDB file of autonomous systems.
    pub geo_asn: Option<PathBuf>,
    /// MMDB file of cities, or only of countries.
    pub geo_city: Option<PathBuf>,
    /// Netsets of addresses that raise the risk of an attempt.
    pub deny_lists: Vec<PathBuf>,
    /// Netsets of addresses that say little about location and user; an address in one is never denied.
    pub allow_lists: Vec<PathBuf>,
    /// Maximum number of prefixes of a netset; a longer one is rejected.
    #[serde(skip)]
    pub netset_prefixes_max: usize,
    /// Days after which an MMDB file is stale, and reported as such.
    pub stale_days: u32,
    /// Days after which it is no longer used; at least `stale_days`.
    pub expired_days: u32,
    /// Interval between two checks of the files, in milliseconds; at least 100.
    #[serde(skip)]
    pub reload_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            geo_asn: None,
            geo_city: None,
            deny_lists: Vec::new(),
            allow_lists: Vec::new(),
            netset_prefixes_max: 2_000_000,
            stale_days: 60,
            expired_days: 365,
            reload_ms: 5_000,
        }
    }
}

impl Config {
    /// Problems of the files, one sentence each, for a check before serving. Blocks.
    pub fn check(&self, clock: Arc<dyn Clock>) -> Vec<String> {
        Enricher::loaded(self, clock).problems()
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "enrich"
    }

    fn validate(&self) -> Result<(), InvalidSetting> {
        if self.reload_ms < 100 {
            return Err(InvalidSetting::new("reload_ms", format!("{} is less than 100", self.reload_ms)));
        }
        if self.expired_days < self.stale_days {
            return Err(InvalidSetting::new("expired_days", format!("{} is less than stale_days", self.expired_days)));
        }
        if self.deny_lists.len() + self.allow_lists.len() > LISTS_MAX {
            return Err(InvalidSetting::new("deny_lists", format!("there are more than {LISTS_MAX} lists")));
        }
        Ok(())
    }

    fn register_metrics(&self) {
        for file in FILES {
            for result in ["loaded", "failed"] {
                counter!(ENRICH_LOADS, FILE => file, RESULT => result).increment(0);
            }
        }
        for code in [GEO_UNAVAILABLE, GEO_STALE] {
            counter!(ENRICH_WARNINGS, CODE => code).increment(0);
        }
    }
}

/// A configured file could not be searched for data that the attempt lacks.
pub const GEO_UNAVAILABLE: &str = "GEO_UNAVAILABLE";
/// A file that was used is older than it should be.
pub const GEO_STALE: &str = "GEO_STALE";
/// The purposes of data files, which are the keys of the settings.
pub const FILES: [&str; 4] = ["geo_asn", "geo_city", "deny_lists", "allow_lists"];
/// A configured list is not in force.
pub const LIST_UNAVAILABLE: &str = "LIST_UNAVAILABLE";

/// Adds to attempts what the files contain about their addresses. Cheap to call from many threads; files are swapped
/// without a lock.
pub struct Enricher {
    config: Config,
    clock: Arc<dyn Clock>,
    asn: Option<Watched<Geo>>,
    city: Option<Watched<Geo>>,
    deny: Vec<Watched<Netset>>,
    allow: Vec<Watched<Netset>>,
}

impl Enricher {
    /// An enricher that has not loaded any file; it is empty until [`Enricher::reload`] is called.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        let geo = |kind, path: &Option<PathBuf>| path.clone().map(|path| Watched::new(kind, path));
        let lists = |kind, paths: &[PathBuf]| paths.iter().map(|path| Watched::new(kind, path.clone())).collect();
        Arc::new(Self {
            asn: geo("geo_asn", &config.geo_asn),
            city: geo("geo_city", &config.geo_city),
            deny: lists("deny_lists", &config.deny_lists),
            allow: lists("allow_lists", &config.allow_lists),
            config: config.clone(),
            clock,
        })
    }

    /// An enricher that has loaded the files once. Blocks.
    pub fn loaded(config: &Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        let enricher = Self::new(config, clock);
        enricher.reload();
        enricher
    }

    /// Checks all files and loads new ones; logs files that cannot be used, which are neutral. Blocks.
    pub fn reload(&self) {
        let prefixes_max = self.config.netset_prefixes_max;
        self.geos().for_each(|geo| geo.reload(Geo::open));
        self.deny.iter().for_each(|list| list.reload(|path| read_list(path, prefixes_max, Bogons::Leave)));
        self.allow.iter().for_each(|list| list.reload(|path| read_list(path, prefixes_max, Bogons::Take)));
    }

    /// Logs which files are stale, and checks the files periodically until shutdown, on threads that may block.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        if self.geos().next().is_none() && self.lists().next().is_none() {
            return;
        }
        self.stale().iter().for_each(|problem| tracing::warn!(%problem, "a data file is stale"));
        let pause = Duration::from_millis(self.config.reload_ms);
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let files = Arc::clone(&self);
            if let Err(panic) = tokio::task::spawn_blocking(move || files.reload()).await {
                tracing::error!(%panic, "a check of the data files failed");
            }
        }
    }

    /// The files that cannot be used at present, one sentence each, for operators.
    pub fn problems(&self) -> Vec<String> {
        self.geos().filter_map(Watched::trouble).chain(self.lists().filter_map(Watched::trouble)).collect()
    }

    /// The files that are stale, one sentence each, for operators.
    pub fn stale(&self) -> Vec<String> {
        let now_ms = self.clock.now_ms();
        let describe = |geo: &Watched<Geo>| {
            let days = (now_ms - geo.current().as_ref()?.built_ms()) / DAY_MS;
            let (stale, expired) = (i64::from(self.config.stale_days), i64::from(self.config.expired_days));
            let effect = if days > expired { "and is no longer used" } else { "and should be replaced" };
            (days > stale).then(|| format!("{}: it was built {days} days ago {effect}", geo.name()))
        };
        self.geos().filter_map(describe).collect()
    }

    /// Fills in fields that the attempt lacks and the files contain; returns warnings for data that is unavailable.
    ///
    /// Latitude and longitude are filled in together or not at all.
    pub fn enrich(&self, attempt: &mut Attempt) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let lacks_location = attempt.country.is_none() || attempt.city.is_none() || lacks_coordinates(attempt);
        if !lacks_location && attempt.asn.is_some() {
            return warnings;
        }
        let Some(ip) = address::placed(attempt.ip) else { return warnings };
        let by_city = self.look_up(self.city.as_ref(), ip, lacks_location, &mut warnings);
        let by_asn = self.look_up(self.asn.as_ref(), ip, attempt.asn.is_none(), &mut warnings);
        attempt.asn = attempt.asn.or(by_asn.asn).or(by_city.asn);
        fill(attempt, by_city);
        fill(attempt, by_asn);
        for code in &warnings {
            metrics::counter!(foretell_telemetry::ENRICH_WARNINGS, foretell_telemetry::CODE => *code).increment(1);
        }
        warnings
    }

    /// The location of an address in one file. Adds a warning if the location `is_needed` and unavailable, or is stale.
    fn look_up(
        &self,
        geo: Option<&Watched<Geo>>,
        ip: IpAddr,
        is_needed: bool,
        warnings: &mut Vec<&'static str>,
    ) -> Location {
        let Some(geo) = geo else { return Location::default() };
        let mut warn = |warning| {
            if is_needed && !warnings.contains(&warning) {
                warnings.push(warning);
            }
        };
        let current = geo.current();
        let Some(geo) = current.as_ref() else {
            warn(GEO_UNAVAILABLE);
            return Location::default();
        };
        let age_ms = self.clock.now_ms() - geo.built_ms();
        if age_ms > i64::from(self.config.stale_days) * DAY_MS {
            warn(GEO_STALE);
        }
        if age_ms > i64::from(self.config.expired_days) * DAY_MS {
            return Location::default();
        }
        geo.locate(ip).unwrap_or_else(|error| {
            tracing::debug!(%error, "a record of a data file is damaged");
            warn(GEO_UNAVAILABLE);
            Location::default()
        })
    }

    /// The lists that contain an address. A list that is not in force contains none.
    pub fn listed(&self, ip: IpAddr) -> ListMatches {
        let holds = |list: &Watched<Netset>| list.current().as_ref().is_some_and(|set| set.contains(ip));
        let exempt = self.allow.iter().any(holds);
        ListMatches { denied: !exempt && self.deny.iter().any(holds), exempt }
    }

    /// A warning if a configured list is not in force.
    pub fn list_warning(&self) -> Option<&'static str> {
        self.lists().any(|list| list.current().is_none()).then_some(LIST_UNAVAILABLE)
    }

    fn geos(&self) -> impl Iterator<Item = &Watched<Geo>> {
        self.asn.iter().chain(&self.city)
    }

    fn lists(&self) -> impl Iterator<Item = &Watched<Netset>> {
        self.deny.iter().chain(&self.allow)
    }
}

fn lacks_coordinates(attempt: &Attempt) -> bool {
    attempt.latitude.is_none() && attempt.longitude.is_none()
}

/// Copies a location into the attempt, from the country down, as far as it agrees with what the attempt contains.
fn fill(attempt: &mut Attempt, location: Location) {
    let agrees = |stated: &Option<String>, found: &Option<String>| match (stated, found) {
        (Some(stated), Some(found)) => stated.eq_ignore_ascii_case(found),
        (Some(_), None) | (None, _) => true,
    };
    if !agrees(&attempt.country, &location.country) {
        return;
    }
    let same_city = agrees(&attempt.city, &location.city);
    attempt.country = attempt.country.take().or(location.country);
    if !same_city {
        return;
    }
    attempt.city = attempt.city.take().or(location.city);
    if let Some((latitude, longitude)) = location.coordinates.filter(|_| lacks_coordinates(attempt)) {
        (attempt.latitude, attempt.longitude) = (Some(latitude), Some(longitude));
    }
}

fn read_list(path: &Path, prefixes_max: usize, bogons: Bogons) -> Result<Netset, String> {
    let text = file::bytes(path, LIST_BYTES_MAX).map_err(|cause| cause.to_string())?;
    let read = netset::read(&text, prefixes_max, bogons).map_err(|error| error.to_string())?;
    if read.faulty > 0 {
        let (faulty, first) = (read.faulty, read.named.join(", "));
        tracing::warn!(path = %path.display(), faulty, first, "ignored invalid lines of a netset");
    }
    Ok(read.set)
}

#[cfg(test)]
mod tests;
