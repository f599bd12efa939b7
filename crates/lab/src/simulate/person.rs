//! A person: home and work, devices, login times, and travel.

use super::client::{Appearance, Class, Client};
use super::trip::{Trip, trips};
use super::world::{COUNTRIES, Home, Kind, Network, Spot, Town};
use crate::source::draw::{Draw, Sequence};
use foretell_events::time::{DAY_MS, MINUTE_MS};

/// Logins per year: log-normal, 24 on average. The telephone company of the second publication saw 9.5 attempts per
/// account and year; a service with shorter sessions has more. With this deviation a tenth of the accounts makes
/// nearly half of all logins.
const LOGINS_A_YEAR: f64 = 24.0;
const LOGINS_DEVIATION: f64 = 1.2;
/// Maximum number of logins per day.
const LOGINS_A_DAY_MAX: f64 = 3.0;
/// Distribution of logins over the day in six parts of four hours from midnight, for most and for night owls; chosen.
const DAY: [f64; 6] = [0.02, 0.08, 0.27, 0.25, 0.24, 0.14];
const NIGHT: [f64; 6] = [0.24, 0.05, 0.08, 0.16, 0.21, 0.26];
const NIGHT_OWLS: f64 = 0.12;

/// Devices per person, chosen: nearly all have a phone, most a computer, some two.
const PHONE: f64 = 0.92;
const COMPUTER: f64 = 0.75;
const SECOND_COMPUTER: f64 = 0.15;
/// Share of logins with a phone if there is also a computer: about half of all traffic is mobile (StatCounter).
const PHONE_LOGINS: f64 = 0.5;
/// How long a phone and a computer are used, in days, on average; chosen.
const PHONE_DAYS: i64 = 1_100;
const COMPUTER_DAYS: i64 = 1_800;
/// Logins on other people's machines; chosen.
const BORROWED: f64 = 0.01;

/// Phones are on Wi-Fi for 62 % of the time in the home market (OpenSignal 2016).
const PHONE_ON_CARRIER: f64 = 0.38;
/// Logins from another network in the home city, such as in cafés or at friends' homes; chosen.
const ELSEWHERE: f64 = 0.04;

/// People who work in an office with a company computer, and the share of its logins that are made there and not at
/// home; chosen.
const OFFICE_WORKERS: f64 = 0.35;
const WORK_COMPUTER_LOGINS: f64 = 0.35;
const IN_OFFICE: f64 = 0.7;
/// Office workers per office on average; a third of them are in the largest office of their city.
const OFFICE_WORKERS_EACH: u64 = 12;

/// People who sometimes use a VPN, how often, and how often it ends in their own country; chosen.
const VPN_PEOPLE: f64 = 0.05;
const VPN_LOGINS: f64 = 0.3;
const VPN_AT_HOME: f64 = 0.7;

/// Attempts with a wrong password before the right one: one to three, for six in a hundred logins; chosen.
const MISTYPED: f64 = 0.06;

/// How a person treats the device cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cookies {
    Kept,
    /// Cleared about once a month.
    Cleared,
    /// Cleared at the end of every session.
    ClearedAlways,
    /// Refused; attempts have no device id.
    Refused,
}

/// In percent. In a panel, 31 % of the computers deleted cookies within a month, 7 % of them more than four times
/// (comScore 2007: old, but the only source found); the share that refuses cookies is chosen.
const COOKIES: [(Cookies, u32); 4] =
    [(Cookies::Kept, 67), (Cookies::Cleared, 23), (Cookies::ClearedAlways, 7), (Cookies::Refused, 3)];

/// A machine.
#[derive(Debug, Clone, Copy)]
struct PersonDevice {
    client: Client,
    is_firms: bool,
    number: u64,
    lasts_ms: i64,
}

/// Where a person is at a given time.
enum UserLocation {
    AtHome,
    OnTheWay,
    Away(Trip),
}

/// An account and its owner.
#[derive(Debug, Clone)]
pub(super) struct Person {
    number: u64,
    draw: Draw,
    home: Home,
    carrier: Network,
    /// The number of the office.
    office: Option<u64>,
    a_day: f64,
    parts: &'static [f64; 6],
    cookies: Cookies,
    hides: bool,
    devices: Vec<PersonDevice>,
    trips: Vec<Trip>,
}

/// A login, and the number of mistyped passwords before it.
#[derive(Debug, Clone)]
pub(super) struct LoginVisit {
    pub(super) at_ms: i64,
    pub(super) mistyped: u64,
    pub(super) spot: Spot,
    pub(super) appearance: Appearance,
    pub(super) device_id: Option<String>,
}

impl Person {
    /// The person with this number among `users`, for `days` days from 0.
    pub(super) fn new(draw: Draw, number: u64, users: u32, days: u32) -> Self {
        let chance = &mut draw.sequence(Stream::Person as u8, number);
        let town = Town::of_account(chance);
        let end_ms = i64::from(days) * DAY_MS;
        let home = Home::new(town, chance);
        let mean = -LOGINS_DEVIATION * LOGINS_DEVIATION / 2.0;
        let a_day = LOGINS_A_YEAR / 365.0 * (mean + LOGINS_DEVIATION * chance.normal()).exp();
        let office = chance.happens(OFFICE_WORKERS).then(|| office(users, chance));
        let cookies = COOKIES[chance.weighted(COOKIES.iter().map(|(_, parts)| *parts))].0;
        let mut person = Self {
            number,
            draw,
            home,
            carrier: Network::of(Kind::Carrier, town.country, chance),
            office,
            a_day: a_day.min(LOGINS_A_DAY_MAX),
            parts: if chance.happens(NIGHT_OWLS) { &NIGHT } else { &DAY },
            cookies,
            hides: chance.happens(VPN_PEOPLE),
            devices: Vec::new(),
            trips: Vec::new(),
        };
        person.devices = person.buy(end_ms, chance);
        person.trips = trips(town, days, chance);
        person
    }

    /// The user id of the account.
    pub(super) fn user_id(&self) -> String {
        format!("user-{}", self.number)
    }

    /// The home town.
    pub(super) fn town(&self) -> Town {
        self.home.town
    }

    fn buy(&self, end_ms: i64, chance: &mut Sequence) -> Vec<PersonDevice> {
        let mut devices: Vec<PersonDevice> = Vec::new();
        let mut get = |class, is_firms, chance: &mut Sequence| {
            let days = if class == Class::Phone { PHONE_DAYS } else { COMPUTER_DAYS };
            let number = self.draw.bits(Stream::Device as u8, self.number * 8 + devices.len() as u64);
            devices.push(PersonDevice {
                client: Client::new(class, end_ms, chance),
                is_firms,
                number,
                lasts_ms: days * DAY_MS / 2 + chance.below((days * DAY_MS) as u64) as i64,
            });
        };
        let has_computer = chance.happens(COMPUTER);
        if chance.happens(PHONE) || !has_computer {
            get(Class::Phone, false, chance);
        }
        if has_computer {
            get(Class::Computer, false, chance);
        }
        if has_computer && chance.happens(SECOND_COMPUTER) {
            get(Class::Computer, false, chance);
        }
        if self.office.is_some() {
            get(Class::Computer, true, chance);
        }
        devices
    }

    /// The logins of a day, counted from 0, in local time at home; in no particular order.
    pub(super) fn day(&self, day: i64) -> Vec<LoginVisit> {
        let chance = &mut self.draw.sequence(Stream::Day as u8, self.number << 16 | day as u64);
        let mut visits = Vec::new();
        for (part, share) in self.parts.iter().enumerate() {
            if chance.happens(self.a_day * share) {
                let minute = part as i64 * 240 + chance.below(240) as i64;
                let at_ms = day * DAY_MS + minute * MINUTE_MS + chance.below(60_000) as i64 - self.town().zone_ms();
                visits.extend(self.visit(at_ms, chance));
            }
        }
        visits
    }

    fn visit(&self, at_ms: i64, chance: &mut Sequence) -> Option<LoginVisit> {
        let whereabouts = self.whereabouts(at_ms);
        let device = match whereabouts {
            UserLocation::OnTheWay => return None,
            UserLocation::AtHome => self.device(at_ms, chance),
            UserLocation::Away(_) => self.devices[0],
        };
        let spot = match whereabouts {
            _ if self.hides && chance.happens(VPN_LOGINS) => self.hidden(chance),
            UserLocation::Away(trip) => self.on_trip(device, trip, chance),
            _ => self.around_home(device, at_ms, chance),
        };
        let mistyped = if chance.happens(MISTYPED) { 1 + chance.below(3) } else { 0 };
        let is_borrowed = chance.happens(BORROWED);
        let device = if is_borrowed { borrowed(chance) } else { device };
        // Over IPv6 a machine generates a new address every day (RFC 8981).
        let host = Draw::new(device.number).bits(3, at_ms.div_euclid(DAY_MS) as u64);
        let (spot, appearance) = (spot.of_host(host), device.client.at(at_ms));
        Some(LoginVisit { at_ms, mistyped, spot, appearance, device_id: self.cookie(device, at_ms) })
    }

    /// The phone or a computer; at work, the company's.
    fn device(&self, at_ms: i64, chance: &mut Sequence) -> PersonDevice {
        let is_workday = at_ms.div_euclid(DAY_MS).rem_euclid(7) < 5;
        let firms = self.devices.iter().find(|device| device.is_firms).filter(|_| is_workday);
        if let Some(firms) = firms.filter(|_| chance.happens(WORK_COMPUTER_LOGINS)) {
            return *firms;
        }
        let own: Vec<_> = self.devices.iter().filter(|device| !device.is_firms).collect();
        let takes_first = own.len() == 1 || chance.happens(PHONE_LOGINS);
        if takes_first { *own[0] } else { *own[1 + chance.below(own.len() as u64 - 1) as usize] }
    }

    fn around_home(&self, device: PersonDevice, at_ms: i64, chance: &mut Sequence) -> Spot {
        let town = self.town();
        match self.office {
            Some(office) if device.is_firms && chance.happens(IN_OFFICE) => {
                Spot::new(Network::of(Kind::Business, town.country, chance), town, office * 3 + town.city as u64)
            }
            _ if device.client.class == Class::Phone && chance.happens(PHONE_ON_CARRIER) => self.on_carrier(chance),
            _ if chance.happens(ELSEWHERE) => {
                Spot::new(Network::of(Kind::Access, town.country, chance), town, chance.bits())
            }
            _ => self.home.at(at_ms),
        }
    }

    /// At the hotel, or through the home carrier, which also routes its customers' roaming traffic.
    fn on_trip(&self, device: PersonDevice, trip: Trip, chance: &mut Sequence) -> Spot {
        if device.client.class == Class::Phone && chance.happens(PHONE_ON_CARRIER) {
            return self.on_carrier(chance);
        }
        Spot::new(Network::of(Kind::Hotel, trip.town.country, chance), trip.town, trip.hotel)
    }

    fn on_carrier(&self, chance: &mut Sequence) -> Spot {
        Spot::new(self.carrier, self.town(), chance.bits())
    }

    fn hidden(&self, chance: &mut Sequence) -> Spot {
        let is_home = chance.happens(VPN_AT_HOME);
        let town = if is_home { self.town() } else { Town::anywhere(chance) };
        Spot::new(Network::of(Kind::Hosting, town.country, chance), town, chance.bits())
    }

    fn cookie(&self, device: PersonDevice, at_ms: i64) -> Option<String> {
        let since = |lasts_ms: i64| (at_ms + (device.number >> 24) as i64 % lasts_ms).div_euclid(lasts_ms);
        // A new machine has a new cookie.
        let machine = Draw::new(device.number).bits(0, since(device.lasts_ms) as u64);
        let cookie = match self.cookies {
            Cookies::Kept => machine,
            Cookies::Cleared => Draw::new(machine).bits(1, since(30 * DAY_MS) as u64),
            Cookies::ClearedAlways => Draw::new(machine).bits(2, at_ms as u64),
            Cookies::Refused => return None,
        };
        Some(format!("{cookie:016x}"))
    }

    fn whereabouts(&self, at_ms: i64) -> UserLocation {
        match self.trips.iter().find(|trip| (trip.leaves_ms..trip.returns_ms).contains(&at_ms)) {
            None => UserLocation::AtHome,
            Some(trip) if (trip.arrives_ms..trip.departs_ms).contains(&at_ms) => UserLocation::Away(*trip),
            Some(_) => UserLocation::OnTheWay,
        }
    }

    /// What the person's first machine sends, which is the one used most; known to a targeted attacker.
    pub(super) fn appearance(&self, at_ms: i64) -> Appearance {
        self.devices[0].client.at(at_ms)
    }
}

/// The purpose of a draw.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Person,
    Device,
    Day,
    Attack,
}

/// An office in the city: a third of the people work in the largest one.
fn office(users: u32, chance: &mut Sequence) -> u64 {
    let offices = u64::from(users) / OFFICE_WORKERS_EACH / COUNTRIES.len() as u64 + 1;
    if chance.happens(1.0 / 3.0) { 0 } else { chance.below(offices) }
}

fn borrowed(chance: &mut Sequence) -> PersonDevice {
    let client = Client::new(Class::Computer, 1, chance).latest();
    PersonDevice { client, is_firms: false, number: chance.bits(), lasts_ms: COMPUTER_DAYS * DAY_MS }
}
