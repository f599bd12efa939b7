//! What files at hand say of an address: where it is, in whose network, and whether somebody has listed it.
//!
//! ```text
//!   geo_asn, geo_city (MMDB) ──┐ look every reload_ms, swap      ingestion ─► enrich(attempt) ─► the event, as logged
//!   deny_lists, allow_lists ───┴──────────► Enricher ──────────► scoring ───► enrich(attempt), listed(address)
//! ```
//!
//! An address is resolved when an event is taken and when an attempt is scored, and never in a fold: the same log
//! must give the same rows in ten years, when the address is somebody else's. What was resolved is therefore written
//! into the event. What the event says itself always wins, and a file's place is left alone where it contradicts
//! the event's country or city, so that no attempt comes from Sydney in Norway.
//!
//! Whatever is missing is neutral. A file that is absent, damaged or too old adds nothing, the level stays out of the
//! likelihood, and the answer says so with a warning; it never blocks anybody.
//!
//! Which addresses are looked up, and which are listed, is the table in [`foretell_events::address`].

pub mod geo;
pub mod netset;
pub mod watch;

use foretell_events::address;
use foretell_events::login::{Attempt, Listed};
use foretell_ports::clock::Clock;
use foretell_ports::file;
use geo::{Geo, Place};
use netset::{Bogons, Netset};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use watch::Watched;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Most lists; each is asked in turn.
const LISTS_MAX: usize = 64;
/// Largest list, in bytes.
const LIST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Which files, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// MMDB file of autonomous systems.
    pub geo_asn: Option<PathBuf>,
    /// MMDB file of cities, or of countries alone.
    pub geo_city: Option<PathBuf>,
    /// Netsets of addresses that speak against an attempt.
    pub deny_lists: Vec<PathBuf>,
    /// Netsets of addresses that say little about place and person; what is in one is never denied.
    pub allow_lists: Vec<PathBuf>,
    /// Most prefixes of a netset; a longer one is refused.
    #[serde(skip)]
    pub netset_prefixes_max: usize,
    /// Days after which an MMDB file is stale, and said to be.
    pub stale_days: u32,
    /// Days after which it is asked no more; at least `stale_days`.
    pub expired_days: u32,
    /// Between two looks at the files, in milliseconds; at least 100.
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
    /// What serde cannot see. Errs with the key and a sentence.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.reload_ms < 100 {
            return Err(("reload_ms", format!("{} is less than 100", self.reload_ms)));
        }
        if self.expired_days < self.stale_days {
            return Err(("expired_days", format!("{} is less than stale_days", self.expired_days)));
        }
        if self.deny_lists.len() + self.allow_lists.len() > LISTS_MAX {
            return Err(("deny_lists", format!("there are more than {LISTS_MAX} lists")));
        }
        Ok(())
    }

    /// What is wrong with the files, each in a sentence; for whoever asks before they serve. Blocks.
    pub fn check(&self, clock: Arc<dyn Clock>) -> Vec<String> {
        Enricher::looked(self, clock).troubles()
    }
}

/// A file that is configured could not be asked what the attempt lacks.
pub const GEO_UNAVAILABLE: &str = "GEO_UNAVAILABLE";
/// A file that was asked is older than it should be.
pub const GEO_STALE: &str = "GEO_STALE";
/// What data files are for, as the keys of the settings.
pub const FILES: [&str; 4] = ["geo_asn", "geo_city", "deny_lists", "allow_lists"];
/// A list that is configured is not in force.
pub const LIST_UNAVAILABLE: &str = "LIST_UNAVAILABLE";

/// Adds to attempts what files say of their addresses. Cheap to ask from many threads; files are swapped beneath.
pub struct Enricher {
    config: Config,
    clock: Arc<dyn Clock>,
    asn: Option<Watched<Geo>>,
    city: Option<Watched<Geo>>,
    deny: Vec<Watched<Netset>>,
    allow: Vec<Watched<Netset>>,
}

impl Enricher {
    /// One that has looked at no file yet, and knows nothing until it [looks](Self::look).
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

    /// One that has looked once. Blocks.
    pub fn looked(config: &Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        let enricher = Self::new(config, clock);
        enricher.look();
        enricher
    }

    /// Looks at all files and loads those that are new; says what cannot be used, which is neutral. Blocks.
    pub fn look(&self) {
        let prefixes_max = self.config.netset_prefixes_max;
        self.geos().for_each(|geo| geo.look(Geo::open));
        self.deny.iter().for_each(|list| list.look(|path| read_list(path, prefixes_max, Bogons::Leave)));
        self.allow.iter().for_each(|list| list.look(|path| read_list(path, prefixes_max, Bogons::Take)));
    }

    /// Says which files are stale, and looks again and again, until shutdown; off the threads that answer.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        if self.geos().next().is_none() && self.lists().next().is_none() {
            return;
        }
        self.stale().iter().for_each(|told| tracing::warn!(%told, "a data file is stale"));
        let pause = Duration::from_millis(self.config.reload_ms);
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let files = Arc::clone(&self);
            if let Err(panic) = tokio::task::spawn_blocking(move || files.look()).await {
                tracing::error!(%panic, "a look at the data files failed");
            }
        }
    }

    /// Which files cannot be used at present, in sentences for operators.
    pub fn troubles(&self) -> Vec<String> {
        self.geos().filter_map(Watched::trouble).chain(self.lists().filter_map(Watched::trouble)).collect()
    }

    /// Which files are stale, in sentences for operators.
    pub fn stale(&self) -> Vec<String> {
        let now_ms = self.clock.now_ms();
        let told = |geo: &Watched<Geo>| {
            let days = (now_ms - geo.current().as_ref()?.built_ms()) / DAY_MS;
            let (stale, expired) = (i64::from(self.config.stale_days), i64::from(self.config.expired_days));
            let asked = if days > expired { "and is asked no more" } else { "and should be replaced" };
            (days > stale).then(|| format!("{}: it was built {days} days ago {asked}", geo.name()))
        };
        self.geos().filter_map(told).collect()
    }

    /// Fills in what an attempt lacks and the files know of its address; answers what they could not say.
    ///
    /// Latitude and longitude are filled in together or not at all.
    pub fn enrich(&self, attempt: &mut Attempt) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let lacks_place = attempt.country.is_none() || attempt.city.is_none() || lacks_coordinates(attempt);
        if !lacks_place && attempt.asn.is_some() {
            return warnings;
        }
        let Some(ip) = address::placed(attempt.ip) else { return warnings };
        let by_city = self.ask(self.city.as_ref(), ip, lacks_place, &mut warnings);
        let by_asn = self.ask(self.asn.as_ref(), ip, attempt.asn.is_none(), &mut warnings);
        attempt.asn = attempt.asn.or(by_asn.asn).or(by_city.asn);
        settle(attempt, by_city);
        settle(attempt, by_asn);
        for code in &warnings {
            metrics::counter!(foretell_telemetry::ENRICH_WARNINGS, foretell_telemetry::CODE => *code).increment(1);
        }
        warnings
    }

    /// What a file says of an address. Adds a warning where it cannot say it although it `is_needed`, or is stale.
    fn ask(&self, geo: Option<&Watched<Geo>>, ip: IpAddr, is_needed: bool, warnings: &mut Vec<&'static str>) -> Place {
        let Some(geo) = geo else { return Place::default() };
        let mut warn = |warning| {
            if is_needed && !warnings.contains(&warning) {
                warnings.push(warning);
            }
        };
        let current = geo.current();
        let Some(geo) = current.as_ref() else {
            warn(GEO_UNAVAILABLE);
            return Place::default();
        };
        let age_ms = self.clock.now_ms() - geo.built_ms();
        if age_ms > i64::from(self.config.stale_days) * DAY_MS {
            warn(GEO_STALE);
        }
        if age_ms > i64::from(self.config.expired_days) * DAY_MS {
            return Place::default();
        }
        geo.place(ip).unwrap_or_else(|error| {
            tracing::debug!(%error, "a record of a data file is damaged");
            warn(GEO_UNAVAILABLE);
            Place::default()
        })
    }

    /// Whether somebody has listed an address. A list that is not in force lists nobody.
    pub fn listed(&self, ip: IpAddr) -> Listed {
        let holds = |list: &Watched<Netset>| list.current().as_ref().is_some_and(|set| set.contains(ip));
        let exempt = self.allow.iter().any(holds);
        Listed { denied: !exempt && self.deny.iter().any(holds), exempt }
    }

    /// Whether a list that is configured is not in force.
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

/// Takes a place over, from the whole to its parts, as long as it agrees with what the attempt says already.
fn settle(attempt: &mut Attempt, place: Place) {
    let agrees = |said: &Option<String>, found: &Option<String>| match (said, found) {
        (Some(said), Some(found)) => said.eq_ignore_ascii_case(found),
        (Some(_), None) | (None, _) => true,
    };
    if !agrees(&attempt.country, &place.country) {
        return;
    }
    let same_city = agrees(&attempt.city, &place.city);
    attempt.country = attempt.country.take().or(place.country);
    if !same_city {
        return;
    }
    attempt.city = attempt.city.take().or(place.city);
    if let Some((latitude, longitude)) = place.coordinates.filter(|_| lacks_coordinates(attempt)) {
        (attempt.latitude, attempt.longitude) = (Some(latitude), Some(longitude));
    }
}

fn read_list(path: &Path, prefixes_max: usize, bogons: Bogons) -> Result<Netset, String> {
    let text = file::bytes(path, LIST_BYTES_MAX).map_err(|cause| cause.to_string())?;
    let read = netset::read(&text, prefixes_max, bogons).map_err(|error| error.to_string())?;
    if read.faulty > 0 {
        let (faulty, first) = (read.faulty, read.named.join(", "));
        tracing::warn!(path = %path.display(), faulty, first, "left out lines of a netset");
    }
    Ok(read.set)
}

#[cfg(test)]
mod tests;
