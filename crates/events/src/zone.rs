//! The only module that uses the rules of time zones.
//!
//! Zone rules change by decree several times a year, and a fold that used the rules of its host would give different
//! rows on another machine. So the rules are the ones bundled with the binary, or those that a process got at its start
//! ([`install`]). Their [`version`] is part of a generation's fingerprint, so that rows with other rules are rebuilt,
//! and no other module uses a zone database.
//!
//! A wall-clock time does not always name one instant. If clocks skip an hour, a time in the gap is moved forward by
//! the length of the gap; if they repeat one, the first of the two instants is used. [`quiet`] handles the hours
//! between two times of day, which may begin, end or lie within such an hour.

pub mod quiet;
mod rules;

pub use rules::{InvalidZoneRules, Rules};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};
use std::sync::OnceLock;

static RULES: OnceLock<Rules> = OnceLock::new();

/// The rules of this process: the bundled ones, if they are used before any others are installed.
fn rules() -> &'static Rules {
    RULES.get_or_init(Rules::default)
}

/// Sets the rules of this process, once and permanently: before it reads its first event.
///
/// Fails with the version that is already in use, if it is a different one.
pub fn install(rules: Rules) -> Result<(), &'static str> {
    let wanted = rules.version().to_owned();
    let installed = RULES.get_or_init(|| rules).version();
    if installed == wanted { Ok(()) } else { Err(installed) }
}

/// The name in the spelling of the database, for a name in any letter case; `None` if there is no such zone.
pub fn canonical(name: &str) -> Option<&'static str> {
    rules().canonical(name)
}

/// The rules of an IANA zone, by its name in any letter case. Parsed once per process and zone, then shared.
pub fn get(name: &str) -> Option<TimeZone> {
    rules().get(name)
}

/// The release of the rules, as in `2026a`, and the rules that override it.
pub fn version() -> &'static str {
    rules().version()
}

/// The instant of a wall-clock time, in milliseconds since the epoch.
///
/// A time in a gap is moved forward by its length; for a repeated time the first instant is used.
pub fn instant_ms(local: DateTime, zone: &TimeZone) -> i64 {
    match zone.to_ambiguous_timestamp(local).compatible() {
        Ok(at) => at.as_millisecond(),
        // Only within a day of the years -9999 and 9999, which no event can contain.
        Err(_) if local.year() < 0 => Timestamp::MIN.as_millisecond(),
        Err(_) => Timestamp::MAX.as_millisecond(),
    }
}

/// The wall-clock time of an instant; an instant outside of the calendar is moved to its nearest end.
pub fn local(at_ms: i64, zone: &TimeZone) -> DateTime {
    zone.to_datetime(timestamp(at_ms))
}

/// An instant within the calendar; one outside of it is moved to its nearest end.
pub(super) fn timestamp(at_ms: i64) -> Timestamp {
    let at_ms = at_ms.clamp(Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The instant at which clocks show the time of day of `local`, `days` calendar days earlier: a multiple of 24 hours
/// unless a clock change lies between.
pub fn days_before_ms(local: DateTime, days: u32, zone: &TimeZone) -> i64 {
    instant_ms(local.saturating_sub(Span::new().days(i64::from(days.min(DAYS_MAX)))), zone)
}

/// More days than the calendar has.
const DAYS_MAX: u32 = 7_304_484;

/// Whole calendar days from one instant to another, both in `zone`; negative if `to_ms` is on an earlier day.
///
/// A visit on the day of its booking is 0, one in the small hours of the next day is 1.
pub fn lead_days(from_ms: i64, to_ms: i64, zone: &TimeZone) -> i32 {
    let from = local(from_ms, zone).date();
    let to = local(to_ms, zone).date();
    from.until((Unit::Day, to)).map_or(0, |span| span.get_days())
}

#[cfg(test)]
mod tests;
