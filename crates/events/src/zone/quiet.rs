//! Quiet hours: between two times of day on the clocks of a zone.
//!
//! It is quiet whenever clocks show a time between the two, even repeatedly. So an end that clocks skip is reached at
//! the skip, and if they repeat the hour of the end, there may be an interval between that is not quiet.

use super::{local, timestamp};
use crate::appointment::QuietHours;
use crate::time::DAY_MS;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Clock changes within one period of quiet hours; no zone has had more than two within a day.
const CHANGES_MAX: usize = 8;

/// The first instant from `at_ms` on that is not quiet; none if `at_ms` itself is not quiet.
pub fn until_ms(at_ms: i64, quiet: QuietHours, zone: &TimeZone) -> Option<i64> {
    let mut end_ms = at_ms;
    // Between two changes clocks run evenly, so the end is where they show it.
    for _ in 0..CHANGES_MAX {
        match left_ms(quiet, local(end_ms, zone)) {
            None => break,
            Some(left_ms) => end_ms = change_ms(end_ms, zone).unwrap_or(i64::MAX).min(end_ms + left_ms),
        }
    }
    (end_ms > at_ms).then_some(end_ms)
}

/// How long quiet hours last from that time of day on, on a clock that runs evenly; none outside of them.
fn left_ms(quiet: QuietHours, local: DateTime) -> Option<i64> {
    let since_midnight = |minute: u16| i64::from(minute) * 60_000;
    let (from_ms, to_ms) = (since_midnight(quiet.from_minute), since_midnight(quiet.to_minute));
    let now_ms = local.time().duration_since(jiff::civil::Time::midnight()).as_millis() as i64;
    let is_quiet =
        if from_ms <= to_ms { (from_ms..to_ms).contains(&now_ms) } else { now_ms >= from_ms || now_ms < to_ms };
    is_quiet.then(|| (to_ms - now_ms).rem_euclid(DAY_MS))
}

/// The next clock change after an instant.
fn change_ms(at_ms: i64, zone: &TimeZone) -> Option<i64> {
    let at = zone.following(timestamp(at_ms)).next()?.timestamp();
    Some(at.as_millisecond())
}
