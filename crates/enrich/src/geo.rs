//! What an MMDB file says of an address: its autonomous system, country, city and coordinates.
//!
//! Two layouts are read, whichever a record has: that of MaxMind's files (`country.iso_code`, `city.names.en`,
//! `location.latitude`) and the flat one of the ip-location-db project (`country_code`, `city`, `latitude`).
//!
//! The file is memory-mapped: of a hundred megabytes only the pages that are asked for are held, and the kernel may
//! drop them. It is not the file itself that is mapped but a copy without a name in the temporary directory. A file
//! that somebody overwrites in place, or cuts off, would change under the reader and end the process with SIGBUS;
//! nobody can reach the copy. Where no copy can be made (a read-only file system) the file is read into memory.

use foretell_events::country;
use maxminddb::Reader;
use mmap_guard::FileData;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Largest file; the largest city files of today have about 200 MB.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Longest name of a city, in bytes; as of events.
const CITY_BYTES_MAX: usize = foretell_events::codec::bounds::TEXT_BYTES_MAX;

/// Largest `accuracy_radius` of a place, in kilometres. Beyond it a record says a region or a country, whose middle
/// nobody has travelled from: it is as far as places may lie apart and still be taken for one, see
/// [`Travel::distance_km_max`](foretell_domain::score::login::signal::settings::Travel::distance_km_max).
const ACCURACY_KM_MAX: f64 = 100.0;

/// An open data file.
pub struct Geo {
    reader: Reader<Bytes>,
}

/// What a file says of an address, as far as it does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Place {
    /// Autonomous system.
    pub asn: Option<u32>,
    /// ISO 3166-1 alpha-2; never a placeholder.
    pub country: Option<String>,
    /// English name.
    pub city: Option<String>,
    /// Latitude and longitude in degrees, where the file knows them well enough to tell a journey.
    pub coordinates: Option<(f64, f64)>,
}

impl Geo {
    /// Opens a file. Errs with a sentence where it cannot be read or is no MMDB, as a truncated one is not: what
    /// describes the file stands at its end.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::metadata(path).map_err(|cause| cause.to_string())?.len();
        if bytes > BYTES_MAX {
            return Err(format!("{bytes} bytes, more than {BYTES_MAX}"));
        }
        let bytes = Bytes::read(path).map_err(|cause| cause.to_string())?;
        let reader = Reader::from_source(bytes).map_err(|cause| cause.to_string())?;
        Ok(Self { reader })
    }

    /// Opens the bytes of a file.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(Bytes::Held(bytes)).map_err(|cause| cause.to_string())?;
        Ok(Self { reader })
    }

    /// When the file was built, in milliseconds since the epoch.
    pub fn built_ms(&self) -> i64 {
        i64::try_from(self.reader.metadata().build_epoch).unwrap_or(i64::MAX).saturating_mul(1000)
    }

    /// What it says of an address; nothing where it knows none. Errs where the record is damaged.
    pub fn place(&self, ip: IpAddr) -> Result<Place, maxminddb::MaxMindDbError> {
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Place::default());
        }
        let record: Option<Record<'_>> = self.reader.lookup(ip)?.decode()?;
        Ok(record.map(Record::place).unwrap_or_default())
    }
}

/// The bytes of a file, which nobody changes.
enum Bytes {
    Mapped(FileData),
    Held(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(data) => data,
            Self::Held(bytes) => bytes,
        }
    }
}

impl Bytes {
    fn read(path: &Path) -> io::Result<Self> {
        match mapped_copy(path) {
            Ok(data) => Ok(Self::Mapped(data)),
            Err(cause) => {
                tracing::debug!(%cause, path = %path.display(), "holding a data file in memory");
                std::fs::read(path).map(Self::Held)
            }
        }
    }
}

/// A mapping of a copy, which loses its name as soon as it is mapped.
fn mapped_copy(path: &Path) -> io::Result<FileData> {
    let mut copy = tempfile::NamedTempFile::new()?;
    io::copy(&mut File::open(path)?, copy.as_file_mut())?;
    mmap_guard::map_file(copy.path())
}

/// A record in either layout; what else is in it is not read.
#[derive(Deserialize)]
struct Record<'a> {
    autonomous_system_number: Option<Number>,
    #[serde(borrow)]
    country: Option<Country<'a>>,
    country_code: Option<&'a str>,
    city: Option<City<'a>>,
    location: Option<Location>,
    latitude: Option<Number>,
    longitude: Option<Number>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum City<'a> {
    Flat(&'a str),
    Named {
        #[serde(borrow)]
        names: Names<'a>,
    },
    Other {},
}

#[derive(Deserialize)]
struct Names<'a> {
    en: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    accuracy_radius: Option<Number>,
    latitude: Option<Number>,
    longitude: Option<Number>,
}

/// A number of whatever type the file's maker chose: whole, of either precision, or as a text.
#[derive(Clone, Copy)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(file: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                // An empty one is no number, and no reason to give the record up.
                Ok(Number(text.trim().parse().unwrap_or(f64::NAN)))
            }
        }
        file.deserialize_any(Any)
    }
}

impl Record<'_> {
    fn place(self) -> Place {
        let country = self.country.and_then(|country| country.iso_code).or(self.country_code);
        let country = country.map(str::to_ascii_uppercase).filter(|code| country::exists(code));
        let city = match self.city {
            Some(City::Flat(name)) => Some(name),
            Some(City::Named { names }) => names.en,
            Some(City::Other {}) | None => None,
        };
        let city = city.map(str::trim).filter(|name| (1..=CITY_BYTES_MAX).contains(&name.len()));
        let (latitude, longitude, accuracy_km) = match self.location {
            Some(location) => (location.latitude, location.longitude, location.accuracy_radius),
            None => (self.latitude, self.longitude, None),
        };
        let coordinates = latitude.zip(longitude).map(|(latitude, longitude)| (latitude.0, longitude.0));
        let is_coarse = city.is_none() || accuracy_km.is_some_and(|radius| radius.0 > ACCURACY_KM_MAX);
        let coordinates = coordinates.filter(|place| !is_coarse && *place != (0.0, 0.0));
        let exist = |(latitude, longitude): &(f64, f64)| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        let asn = self.autonomous_system_number.map(|asn| asn.0);
        Place {
            // In range, so the conversion is exact.
            asn: asn.filter(|asn| (1.0..=f64::from(u32::MAX)).contains(asn)).map(|asn| asn as u32),
            country,
            city: city.map(str::to_owned),
            coordinates: coordinates.filter(exist),
        }
    }
}
