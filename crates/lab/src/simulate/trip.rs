//! Trips: people do not log in while travelling, and are never faster than an airliner.

use super::world::Town;
use super::{DAY_MS, HOUR_MS};
use crate::source::draw::Sequence;

/// Trips per year, nights per trip, and the share abroad: 1.3 billion trips of 5.1 nights, 27 % of them abroad, by
/// about 430 million residents of the EU aged 15 and over in 2017 (Eurostat).
const TRIPS_A_YEAR: f64 = 3.0;
const NIGHTS_MAX: u64 = 9;
const ABROAD: f64 = 0.27;
/// Travel time: over land up to this distance, by air beyond it, with three hours for the airports.
const GROUND_KM: f64 = 500.0;
const GROUND_KM_AN_HOUR: f64 = 80.0;
const AIR_KM_AN_HOUR: f64 = 750.0;
const AIRPORT_HOURS: f64 = 3.0;

/// A stay away from home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trip {
    pub(super) leaves_ms: i64,
    pub(super) arrives_ms: i64,
    pub(super) departs_ms: i64,
    pub(super) returns_ms: i64,
    pub(super) town: Town,
    pub(super) hotel: u64,
}

/// The trips of a person who lives in `home`, in order and without overlap.
pub(super) fn trips(home: Town, days: u32, chance: &mut Sequence) -> Vec<Trip> {
    let mut trips: Vec<Trip> = Vec::new();
    for week in 0..i64::from(days) / 7 {
        let leaves_ms = week * 7 * DAY_MS + chance.below(7 * 24) as i64 * HOUR_MS;
        let is_back = trips.last().is_none_or(|last| last.returns_ms < leaves_ms);
        if is_back && chance.happens(TRIPS_A_YEAR * 7.0 / 365.0) {
            trips.push(trip(home, leaves_ms, chance));
        }
    }
    trips
}

fn trip(home: Town, leaves_ms: i64, chance: &mut Sequence) -> Trip {
    let town = if chance.happens(ABROAD) { Town::anywhere(chance) } else { Town::in_country(home.country, chance) };
    let under_way_ms = under_way_ms(home.distance_km(town));
    let arrives_ms = leaves_ms + under_way_ms;
    let departs_ms = arrives_ms + (1 + chance.below(NIGHTS_MAX)) as i64 * DAY_MS;
    Trip { leaves_ms, arrives_ms, departs_ms, returns_ms: departs_ms + under_way_ms, town, hotel: chance.bits() }
}

/// The total travel time, in whole hours.
fn under_way_ms(km: f64) -> i64 {
    let hours = if km <= GROUND_KM { km / GROUND_KM_AN_HOUR } else { AIRPORT_HOURS + km / AIR_KM_AN_HOUR };
    (hours.ceil() as i64 + 1) * HOUR_MS
}
