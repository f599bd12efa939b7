//! The one place that knows the rules of time zones.
//!
//! Zone rules change by decree several times a year, and a fold that asked its host for them would give other rows
//! on another machine. So the rules are the ones bundled with the binary, or those that a process was given at its
//! start ([`install`]); their [`version`] is part of what a generation is named by, so that rows of other rules are
//! folded anew, and no other module touches a database of zones.
//!
//! A wall-clock time does not always name one instant. Where clocks skip an hour, a time in the gap moves forward
//! by the length of the gap; where they repeat one, the first of the two is meant. [`quiet`] has the hours between
//! two times of day, which may begin, end or lie within such an hour.

pub mod quiet;
mod rules;

pub use rules::{Fault, Rules};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};
use std::sync::OnceLock;

static RULES: OnceLock<Rules> = OnceLock::new();

/// The rules of this process: the bundled ones, if it asks before any others are installed.
fn rules() -> &'static Rules {
    RULES.get_or_init(Rules::default)
}

/// Gives this process its rules, once and for all: before it reads its first event.
///
/// Errs with the version that it has by then, where that is another one.
pub fn install(rules: Rules) -> Result<(), &'static str> {
    let wanted = rules.version().to_owned();
    let installed = RULES.get_or_init(|| rules).version();
    if installed == wanted { Ok(()) } else { Err(installed) }
}

/// The name as the database writes it, for a name in any letter case; `None` where there is no such zone.
pub fn canonical(name: &str) -> Option<&'static str> {
    rules().canonical(name)
}

/// The rules of an IANA zone, by its name in any letter case. Parsed once a process and zone, then shared.
pub fn get(name: &str) -> Option<TimeZone> {
    rules().get(name)
}

/// The release of the rules, as in `2026a`, and what stands over it.
pub fn version() -> &'static str {
    rules().version()
}

/// The instant of a wall-clock time, in milliseconds since the epoch.
///
/// A time in a gap moves forward by its length; of a repeated time the first is taken.
pub fn instant_ms(local: DateTime, zone: &TimeZone) -> i64 {
    match zone.to_ambiguous_timestamp(local).compatible() {
        Ok(at) => at.as_millisecond(),
        // Only within a day of the years -9999 and 9999, which no event can name.
        Err(_) if local.year() < 0 => Timestamp::MIN.as_millisecond(),
        Err(_) => Timestamp::MAX.as_millisecond(),
    }
}

/// The wall-clock time of an instant; instants that no calendar has are moved to the nearest one that it has.
pub fn local(at_ms: i64, zone: &TimeZone) -> DateTime {
    zone.to_datetime(timestamp(at_ms))
}

/// An instant as a calendar has it; one that no calendar has is moved to the nearest one that it has.
pub(super) fn timestamp(at_ms: i64) -> Timestamp {
    let at_ms = at_ms.clamp(Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The instant at which clocks show the time of day of `local` so many calendar days before it: between two changes
/// of clocks a multiple of 24 hours, and not across one.
pub fn days_before_ms(local: DateTime, days: u32, zone: &TimeZone) -> i64 {
    instant_ms(local.saturating_sub(Span::new().days(i64::from(days.min(DAYS_MAX)))), zone)
}

/// More days than that no calendar has.
const DAYS_MAX: u32 = 7_304_484;

/// Whole calendar days from one instant to another, both seen in `zone`; negative when `to_ms` is an earlier day.
///
/// A visit on the day of its booking is 0, one in the small hours of the next day is 1.
pub fn lead_days(from_ms: i64, to_ms: i64, zone: &TimeZone) -> i32 {
    let from = local(from_ms, zone).date();
    let to = local(to_ms, zone).date();
    from.until((Unit::Day, to)).map_or(0, |span| span.get_days())
}

#[cfg(test)]
mod tests;
