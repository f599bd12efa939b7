//! Looks up addresses in MMDB files: autonomous system, country, city and coordinates.
//!
//! Records of two layouts are read: that of MaxMind's files (`country.iso_code`, `city.names.en`,
//! `location.latitude`) and the flat one of the ip-location-db project (`country_code`, `city`, `latitude`).
//!
//! The file is memory-mapped: of a hundred megabytes only the pages that are used are in memory, and the kernel may
//! evict them. What is mapped is not the file itself but an unnamed copy in the temporary directory. If the file itself
//! were mapped and then overwritten in place or truncated, the process would end with SIGBUS; the copy is out of
//! reach. If no copy can be made (on a read-only file system), the file is read into memory.

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

/// Largest file; today's largest city files have about 200 MB.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Longest name of a city, in bytes; the same as in events.
const CITY_BYTES_MAX: usize = foretell_events::codec::bounds::TEXT_BYTES_MAX;

/// Largest usable `accuracy_radius` of a location, in kilometres. A record with a larger one describes a region or a
/// country, whose centre is not where the user is. The value is the largest distance at which two locations still
/// count as the same, see
/// [`Travel::distance_km_max`](foretell_domain::score::login::signal::settings::Travel::distance_km_max).
const ACCURACY_KM_MAX: f64 = 100.0;

/// An open data file.
pub struct Geo {
    reader: Reader<Bytes>,
}

/// What a file contains about an address; each part may be missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Location {
    /// Autonomous system.
    pub asn: Option<u32>,
    /// ISO 3166-1 alpha-2; never a placeholder.
    pub country: Option<String>,
    /// English name.
    pub city: Option<String>,
    /// Latitude and longitude in degrees, if they are precise enough to detect travel.
    pub coordinates: Option<(f64, f64)>,
}

impl Geo {
    /// Opens a file. Fails with a sentence if it cannot be read or is not an MMDB file. A truncated file is not one,
    /// because its metadata is at the end.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::metadata(path).map_err(|cause| cause.to_string())?.len();
        if bytes > BYTES_MAX {
            return Err(format!("{bytes} bytes, more than {BYTES_MAX}"));
        }
        let bytes = Bytes::read(path).map_err(|cause| cause.to_string())?;
        let reader = Reader::from_source(bytes).map_err(|cause| cause.to_string())?;
        Ok(Self { reader })
    }

    /// Opens the content of a file.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(Bytes::Held(bytes)).map_err(|cause| cause.to_string())?;
        Ok(Self { reader })
    }

    /// When the file was built, in milliseconds since the epoch.
    pub fn built_ms(&self) -> i64 {
        i64::try_from(self.reader.metadata().build_epoch).unwrap_or(i64::MAX).saturating_mul(1000)
    }

    /// The location of an address; empty if the file has no record of it. Fails if the record is damaged.
    pub fn locate(&self, ip: IpAddr) -> Result<Location, maxminddb::MaxMindDbError> {
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Location::default());
        }
        let record: Option<Record<'_>> = self.reader.lookup(ip)?.decode()?;
        Ok(record.map(Record::location).unwrap_or_default())
    }
}

/// The content of a file, which cannot change.
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
                tracing::debug!(%cause, path = %path.display(), "reading a data file into memory");
                std::fs::read(path).map(Self::Held)
            }
        }
    }
}

/// A mapping of a copy, which is unlinked as soon as it is mapped.
fn mapped_copy(path: &Path) -> io::Result<FileData> {
    let mut copy = tempfile::NamedTempFile::new()?;
    io::copy(&mut File::open(path)?, copy.as_file_mut())?;
    mmap_guard::map_file(copy.path())
}

/// A record in either layout; other fields are not read.
#[derive(Deserialize)]
struct Record<'a> {
    autonomous_system_number: Option<Number>,
    #[serde(borrow)]
    country: Option<Country<'a>>,
    country_code: Option<&'a str>,
    city: Option<City<'a>>,
    location: Option<Point>,
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
struct Point {
    accuracy_radius: Option<Number>,
    latitude: Option<Number>,
    longitude: Option<Number>,
}

/// A number in any type that files use: an integer, a float of either precision, or a text.
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
                // An empty text is not a number, but no reason to discard the record.
                Ok(Number(text.trim().parse().unwrap_or(f64::NAN)))
            }
        }
        file.deserialize_any(Any)
    }
}

impl Record<'_> {
    fn location(self) -> Location {
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
        let coordinates = coordinates.filter(|point| !is_coarse && *point != (0.0, 0.0));
        let exist = |(latitude, longitude): &(f64, f64)| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        let asn = self.autonomous_system_number.map(|asn| asn.0);
        Location {
            // In range, so the conversion is exact.
            asn: asn.filter(|asn| (1.0..=f64::from(u32::MAX)).contains(asn)).map(|asn| asn as u32),
            country,
            city: city.map(str::to_owned),
            coordinates: coordinates.filter(exist),
        }
    }
}
