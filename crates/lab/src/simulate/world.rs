//! The world of a simulated history: countries, cities, and the networks in them.
//!
//! Cities and their coordinates are real, so that distances are. Networks are not: their numbers are private ones
//! (RFC 6996) and their addresses are in 10.0.0.0/8, one /16 per network, as in the public RBA data set. Networks that
//! give their customers IPv6 have addresses in fd00::/8, one /16 per network; the publications had only IPv4.

use crate::source::draw::{Draw, Sequence};
use foretell_events::time::HOUR_MS;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first private autonomous system number.
const ASN_FIRST: u32 = 4_200_000_000;
/// Networks per country.
const NETWORKS: usize = 12;
/// Market shares of access providers, in percent: a few large ones, as in most countries.
const ACCESS_SHARES: [u32; 4] = [40, 25, 20, 15];
/// Market shares of mobile carriers, in percent.
const CARRIER_SHARES: [u32; 3] = [40, 33, 27];
/// Addresses per country that a carrier translates its customers to.
const CARRIER_ADDRESSES: u64 = 1_024;
/// Addresses per country of a provider of servers and VPNs.
const HOSTING_ADDRESSES: u64 = 500;
/// Hotels and similar per country.
const HOTELS: u64 = 2_000;

/// A city.
#[derive(Debug, PartialEq)]
pub(super) struct City {
    pub(super) name: &'static str,
    /// Degrees north and east.
    pub(super) coordinates: (f64, f64),
    /// Hours that local time is ahead of UTC in winter; daylight saving time is not simulated.
    pub(super) zone_hours: f64,
}

/// A country; its first city is the largest, where its networks have their gateways.
#[derive(Debug, PartialEq)]
pub(super) struct Country {
    pub(super) code: &'static str,
    /// Share of the service's accounts with a home here, in percent.
    pub(super) accounts: u32,
    pub(super) cities: [City; 3],
}

const fn city(name: &'static str, north: f64, east: f64, zone_hours: f64) -> City {
    City { name, coordinates: (north, east), zone_hours }
}

const fn country(code: &'static str, accounts: u32, cities: [City; 3]) -> Country {
    Country { code, accounts, cities }
}

/// A service with one home market and some accounts elsewhere, as in both publications. The countries without accounts
/// are destinations of travel and sources of attacks.
pub(super) const COUNTRIES: [Country; 20] = [
    country(
        "DE",
        60,
        [city("Berlin", 52.5, 13.4, 1.0), city("Hamburg", 53.6, 10.0, 1.0), city("Munich", 48.1, 11.6, 1.0)],
    ),
    country("FR", 7, [city("Paris", 48.9, 2.4, 1.0), city("Lyon", 45.8, 4.8, 1.0), city("Marseille", 43.3, 5.4, 1.0)]),
    country(
        "GB",
        7,
        [city("London", 51.5, -0.1, 0.0), city("Manchester", 53.5, -2.2, 0.0), city("Leeds", 53.8, -1.5, 0.0)],
    ),
    country(
        "NL",
        5,
        [city("Amsterdam", 52.4, 4.9, 1.0), city("Rotterdam", 51.9, 4.5, 1.0), city("Utrecht", 52.1, 5.1, 1.0)],
    ),
    country("AT", 5, [city("Vienna", 48.2, 16.4, 1.0), city("Graz", 47.1, 15.4, 1.0), city("Linz", 48.3, 14.3, 1.0)]),
    country(
        "PL",
        4,
        [city("Warsaw", 52.2, 21.0, 1.0), city("Krakow", 50.1, 19.9, 1.0), city("Wroclaw", 51.1, 17.0, 1.0)],
    ),
    country(
        "ES",
        4,
        [city("Madrid", 40.4, -3.7, 1.0), city("Barcelona", 41.4, 2.2, 1.0), city("Valencia", 39.5, -0.4, 1.0)],
    ),
    country(
        "US",
        4,
        [city("New York", 40.7, -74.0, -5.0), city("Chicago", 41.9, -87.6, -6.0), city("Seattle", 47.6, -122.3, -8.0)],
    ),
    country(
        "IN",
        2,
        [city("Mumbai", 19.1, 72.9, 5.5), city("Delhi", 28.6, 77.2, 5.5), city("Chennai", 13.1, 80.3, 5.5)],
    ),
    country(
        "BR",
        2,
        [
            city("Sao Paulo", -23.6, -46.6, -3.0),
            city("Rio de Janeiro", -22.9, -43.2, -3.0),
            city("Recife", -8.1, -34.9, -3.0),
        ],
    ),
    country("IT", 0, [city("Rome", 41.9, 12.5, 1.0), city("Milan", 45.5, 9.2, 1.0), city("Naples", 40.9, 14.3, 1.0)]),
    country(
        "GR",
        0,
        [city("Athens", 38.0, 23.7, 2.0), city("Heraklion", 35.3, 25.1, 2.0), city("Rhodes", 36.4, 28.2, 2.0)],
    ),
    country(
        "TR",
        0,
        [city("Istanbul", 41.0, 29.0, 3.0), city("Antalya", 36.9, 30.7, 3.0), city("Izmir", 38.4, 27.1, 3.0)],
    ),
    country(
        "TH",
        0,
        [city("Bangkok", 13.8, 100.5, 7.0), city("Phuket", 7.9, 98.4, 7.0), city("Chiang Mai", 18.8, 99.0, 7.0)],
    ),
    country(
        "CN",
        0,
        [city("Shanghai", 31.2, 121.5, 8.0), city("Beijing", 39.9, 116.4, 8.0), city("Shenzhen", 22.5, 114.1, 8.0)],
    ),
    country("RU", 0, [city("Moscow", 55.8, 37.6, 3.0), city("Kazan", 55.8, 49.1, 3.0), city("Omsk", 55.0, 73.4, 6.0)]),
    country(
        "VN",
        0,
        [city("Hanoi", 21.0, 105.9, 7.0), city("Da Nang", 16.1, 108.2, 7.0), city("Hue", 16.5, 107.6, 7.0)],
    ),
    country(
        "ID",
        0,
        [city("Jakarta", -6.2, 106.8, 7.0), city("Surabaya", -7.3, 112.7, 7.0), city("Denpasar", -8.7, 115.2, 8.0)],
    ),
    country("NG", 0, [city("Lagos", 6.5, 3.4, 1.0), city("Abuja", 9.1, 7.4, 1.0), city("Kano", 12.0, 8.5, 1.0)]),
    country("UA", 0, [city("Kyiv", 50.5, 30.5, 2.0), city("Lviv", 49.8, 24.0, 2.0), city("Odesa", 46.5, 30.7, 2.0)]),
];

/// Relative numbers of people in the cities of a country.
const CITY_PARTS: [u32; 3] = [3, 2, 1];

/// A city, by the index of its country in [`COUNTRIES`] and its own index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Town {
    pub(super) country: usize,
    pub(super) city: usize,
}

impl Town {
    /// The home town of an account.
    pub(super) fn of_account(chance: &mut Sequence) -> Self {
        let country = chance.weighted(COUNTRIES.iter().map(|country| country.accounts));
        Self::in_country(country, chance)
    }

    /// A city of a country; larger ones are more likely.
    pub(super) fn in_country(country: usize, chance: &mut Sequence) -> Self {
        Self { country, city: chance.weighted(CITY_PARTS.into_iter()) }
    }

    /// A city of any country; all countries are equally likely.
    pub(super) fn anywhere(chance: &mut Sequence) -> Self {
        let country = chance.below(COUNTRIES.len() as u64) as usize;
        Self::in_country(country, chance)
    }

    pub(super) fn country(self) -> &'static Country {
        &COUNTRIES[self.country]
    }

    pub(super) fn city(self) -> &'static City {
        &self.country().cities[self.city]
    }

    /// The UTC offset of the city.
    pub(super) fn zone_ms(self) -> i64 {
        (self.city().zone_hours * HOUR_MS as f64) as i64
    }

    /// The distance to another city, in kilometres along the surface.
    pub(super) fn distance_km(self, other: Self) -> f64 {
        distance_km(self.city().coordinates, other.city().coordinates)
    }

    /// The location of the gateways of the country's networks.
    fn gateway(self) -> Self {
        Self { city: 0, ..self }
    }
}

/// The distance between two points in degrees, in kilometres along the surface of a sphere (haversine).
pub(super) fn distance_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    const EARTH_KM: f64 = 6_371.0;
    let (north, east) = ((b.0 - a.0).to_radians(), (b.1 - a.1).to_radians());
    let part =
        (north / 2.0).sin().powi(2) + a.0.to_radians().cos() * b.0.to_radians().cos() * (east / 2.0).sin().powi(2);
    2.0 * EARTH_KM * part.sqrt().asin()
}

/// The use of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Homes: each has its own address, for a time.
    Access,
    /// Phones: an address that thousands share, another one every time.
    Carrier,
    /// Offices: an address of the firm's own.
    Business,
    /// Hotels, trains, cafés.
    Hotel,
    /// Servers and private networks.
    Hosting,
}

/// A network of a country.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    country: usize,
    index: usize,
}

impl Network {
    /// A person's provider of this kind.
    pub(super) fn of(kind: Kind, country: usize, chance: &mut Sequence) -> Self {
        let index = match kind {
            Kind::Access => chance.weighted(ACCESS_SHARES.into_iter()),
            Kind::Carrier => 4 + chance.weighted(CARRIER_SHARES.into_iter()),
            Kind::Business => 7,
            Kind::Hotel => 8,
            Kind::Hosting => 9 + chance.below(3) as usize,
        };
        Self { country, index }
    }

    /// The network with this number, which [`Self::asn`] returned.
    #[cfg(test)]
    pub(super) fn of_asn(asn: u32) -> Self {
        let at = (asn - ASN_FIRST) as usize;
        Self { country: at / NETWORKS, index: at % NETWORKS }
    }

    pub(super) const fn kind(self) -> Kind {
        match self.index {
            0..=3 => Kind::Access,
            4..=6 => Kind::Carrier,
            7 => Kind::Business,
            8 => Kind::Hotel,
            _ => Kind::Hosting,
        }
    }

    pub(super) const fn asn(self) -> u32 {
        ASN_FIRST + self.octet() as u32
    }

    /// The largest access provider and the largest carrier of a country give their customers IPv6, which is 40 % of
    /// both: 45 % of Google's users use IPv6 (its statistics of 2024). Offices, hotels and servers have IPv4.
    const fn has_ipv6(self) -> bool {
        matches!(self.index, 0 | 4)
    }

    const fn octet(self) -> u8 {
        (self.country * NETWORKS + self.index) as u8
    }
}

/// The origin of an attempt, as a service sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spot {
    pub(super) ip: IpAddr,
    pub(super) network: Network,
    /// The town where databases locate the address.
    pub(super) town: Town,
}

impl Spot {
    /// The address of customer `number` of a network in a town.
    ///
    /// Carriers and providers of servers have few addresses, which databases locate at the gateway.
    pub(super) fn new(network: Network, town: Town, number: u64) -> Self {
        let (slot, town) = match network.kind() {
            // A quarter of the network for each city.
            Kind::Access => (number % (64 * 254) + (town.city * 64 * 254) as u64, town),
            Kind::Business => (number % (256 * 254), town),
            Kind::Hotel => (number % HOTELS * 3 + town.city as u64, town),
            Kind::Carrier => (number % CARRIER_ADDRESSES, town.gateway()),
            Kind::Hosting => (number % HOSTING_ADDRESSES, town.gateway()),
        };
        let ip = if network.has_ipv6() {
            // A home has a /56, of which it uses the first /64; a phone has a /64, a new one every time.
            let prefix = if network.kind() == Kind::Access { number << 24 >> 16 } else { number << 16 >> 16 };
            let first = 0xfd00_u64 | u64::from(network.octet());
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(first << 48 | prefix) << 64))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, network.octet(), (slot / 254) as u8, (slot % 254) as u8 + 1))
        };
        Self { ip, network, town }
    }

    /// The address of one host in it: over IPv6 the host generates the lower half itself.
    pub(super) fn of_host(self, host: u64) -> Self {
        match self.ip {
            IpAddr::V4(_) => self,
            IpAddr::V6(ip) => Self { ip: IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | u128::from(host))), ..self },
        }
    }
}

/// A connection at home, whose provider changes its address from time to time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) town: Town,
    pub(super) network: Network,
    line: u64,
    lease_ms: i64,
}

/// How long a home keeps an address, in days, and the share of lines in percent. Some providers change addresses every
/// day, most after an interruption, some hardly ever (Padmanabhan et al., *Reasons Dynamic Addresses Change*, IMC
/// 2016); people keep a ninth of all their addresses for more than a month (Mishra et al., *Don't Count Me Out*,
/// WWW 2020). The shares in between are chosen.
const LEASES: [(i64, u32); 4] = [(1, 10), (14, 30), (90, 40), (365, 20)];

impl Home {
    /// A line in a city.
    pub(super) fn new(town: Town, chance: &mut Sequence) -> Self {
        let network = Network::of(Kind::Access, town.country, chance);
        let (days, _) = LEASES[chance.weighted(LEASES.iter().map(|(_, share)| *share))];
        // Between half and one and a half times as long, except for lines with a daily change.
        let spread = if days == 1 { 1.0 } else { 0.5 + chance.share() };
        Self { town, network, line: chance.bits(), lease_ms: (days as f64 * spread * 24.0) as i64 * HOUR_MS }
    }

    /// The address and town at a given time.
    pub(super) fn at(&self, time_ms: i64) -> Spot {
        let lease = (time_ms + (self.line % 10_000) as i64 * HOUR_MS).div_euclid(self.lease_ms);
        Spot::new(self.network, self.town, Draw::new(self.line).bits(0, lease as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_numbers_and_addresses_of_their_own() {
        let mut chance = Draw::new(1).sequence(0, 0);
        for country in 0..COUNTRIES.len() {
            for kind in [Kind::Access, Kind::Carrier, Kind::Business, Kind::Hotel, Kind::Hosting] {
                let network = Network::of(kind, country, &mut chance);
                assert_eq!((network.kind(), Network::of_asn(network.asn())), (kind, network));
                let town = Town::in_country(country, &mut chance);
                let spot = Spot::new(network, town, chance.bits()).of_host(7);
                match spot.ip {
                    IpAddr::V4(ip) => assert_eq!((network.has_ipv6(), ip.octets()[1]), (false, network.octet())),
                    IpAddr::V6(ip) => {
                        let ends = (ip.segments()[0], ip.to_bits() as u64);
                        assert_eq!((network.has_ipv6(), ends), (true, (0xfd00 | u16::from(network.octet()), 7)));
                    }
                }
                assert_eq!(spot.town.country, country);
            }
        }
    }

    #[test]
    fn all_hosts_of_a_home_over_ipv6_share_one_64() {
        let mut chance = Draw::new(1).sequence(0, 2);
        let homes = std::iter::repeat_with(|| Home::new(Town { country: 0, city: 1 }, &mut chance)).take(200);
        let over_ipv6: Vec<_> = homes.filter(|home| home.network.has_ipv6()).collect();
        assert!((50..110).contains(&over_ipv6.len()), "{} of 200", over_ipv6.len());
        for home in over_ipv6 {
            let household = |host| foretell_events::address::household(home.at(1_700_000_000_000).of_host(host).ip);
            assert_eq!(household(1), household(u64::MAX));
            assert_ne!(home.at(0).of_host(1).ip, home.at(0).of_host(2).ip);
        }
    }

    #[test]
    fn a_home_keeps_its_address_for_its_lease() {
        let mut chance = Draw::new(1).sequence(0, 1);
        let day = |home: &Home, day: i64| home.at(1_700_000_000_000 + day * 24 * HOUR_MS).ip;
        let homes: Vec<_> = (0..500).map(|_| Home::new(Town { country: 0, city: 1 }, &mut chance)).collect();
        let kept = |days| homes.iter().filter(|home| day(home, 0) == day(home, days)).count();
        assert!((420..480).contains(&kept(1)), "{}: a tenth every day", kept(1));
        assert!((180..260).contains(&kept(30)), "{}: short leases are over", kept(30));
        assert!(kept(600) < 30, "{}", kept(600));
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        let (berlin, munich) = (Town { country: 0, city: 0 }, Town { country: 0, city: 2 });
        assert!((berlin.distance_km(munich) - 504.0).abs() < 10.0, "{}", berlin.distance_km(munich));
        assert_eq!(berlin.distance_km(berlin), 0.0);
    }
}
