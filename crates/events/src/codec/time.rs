//! Times in events: RFC 3339 with an offset, or a wall-clock time without one.
//!
//! The grammar is exactly that of RFC 3339. Date libraries accept much more (week dates, missing seconds, zones in
//! brackets), and a producer that relies on it breaks with the next library. Fractions beyond the millisecond are
//! truncated. A leap second is read as the second before it.

use super::bounds::TIME_MS_END;
use super::fault::{self, quoted};
use super::value::ReadResult;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::Offset;

/// A parsed start.
pub(super) enum Start {
    /// With an offset: milliseconds since the epoch.
    Instant(i64),
    /// Without one.
    Local(DateTime),
}

/// An RFC 3339 instant within the years 1970 to 2100, in milliseconds since the epoch.
pub(super) fn instant_ms(text: &str) -> ReadResult<i64> {
    let at_ms = parse(text)
        // An instant beyond the representable range is still a time, and is out of range below.
        .and_then(|(local, rest)| Some(offset(rest)?.to_timestamp(local).map_or(i64::MAX, |at| at.as_millisecond())))
        .ok_or_else(|| {
            (
                fault::INVALID_TIME,
                format!("{} is not an RFC 3339 time with an offset, such as 2026-05-01T09:30:00Z", quoted(text)),
            )
        })?;
    in_range((0..TIME_MS_END).contains(&at_ms), at_ms)
}

/// A wall-clock time, in whole seconds, that some zone shows within the years 1970 to 2100 of UTC.
pub(super) fn local(text: &str) -> ReadResult<DateTime> {
    let local = parse(text).filter(|(_, rest)| rest.is_empty()).and_then(|(local, _)| {
        DateTime::from_parts(local.date(), local.time()).with().subsec_nanosecond(0).build().ok()
    });
    let local =
        local.ok_or_else(|| (fault::INVALID_TIME, format!("{} is not an existing date and time", quoted(text))))?;
    in_range((date(1969, 12, 31)..=date(2101, 1, 1)).contains(&local.date()), local)
}

/// Either of the two, distinguished by what follows the seconds.
pub(super) fn start(text: &str) -> ReadResult<Start> {
    match parse(text) {
        Some((_, [])) => {
            local(text).and_then(|local| in_range((1970..=2100).contains(&local.year()), Start::Local(local)))
        }
        _ => instant_ms(text).map(Start::Instant),
    }
}

/// `HH:MM` from 00:00 to 23:59, as minutes after midnight.
pub(super) fn minute_of_day(text: &str) -> ReadResult<u16> {
    let minutes = match *text.as_bytes() {
        [h1, h2, b':', m1, m2] => digits(&[h1, h2]).zip(digits(&[m1, m2])),
        _ => None,
    };
    minutes
        .filter(|(hours, minutes)| *hours < 24 && *minutes < 60)
        .and_then(|(hours, minutes)| u16::try_from(hours * 60 + minutes).ok())
        .ok_or_else(|| (fault::INVALID_TIME, format!("{} is not a time of day, HH:MM", quoted(text))))
}

/// `HH:MM` of minutes after midnight.
pub(super) fn time_of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// RFC 3339 in UTC with milliseconds, the format of all written times.
pub(super) fn rfc3339(at_ms: i64) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    PRINTER.timestamp_to_string(&crate::zone::timestamp(at_ms))
}

/// `YYYY-MM-DDTHH:MM:SS`.
pub(super) fn wall_clock(local: DateTime) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    PRINTER.datetime_to_string(&local)
}

/// Whether the instant of a wall-clock time in a zone lies within the years 1970 to 2100 of UTC.
pub(super) fn meant(local: DateTime, zone: &str) -> ReadResult<()> {
    let at_ms = crate::zone::get(zone).map(|rules| crate::zone::instant_ms(local, &rules));
    if at_ms.is_none_or(|at_ms| (0..TIME_MS_END).contains(&at_ms)) {
        return Ok(());
    }
    let detail = format!("{} in {} is not within the years 1970 to 2100 UTC", wall_clock(local), quoted(zone));
    Err((fault::INVALID_TIME, detail))
}

fn in_range<T>(is: bool, value: T) -> ReadResult<T> {
    if is { Ok(value) } else { Err((fault::INVALID_VALUE, "must be within the years 1970 to 2100".to_owned())) }
}

/// `YYYY-MM-DDTHH:MM:SS`, an optional fraction, and the rest.
fn parse(text: &str) -> Option<(DateTime, &[u8])> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    let marks = (head[4], head[7], head[10].to_ascii_uppercase(), head[13], head[16]);
    if marks != (b'-', b'-', b'T', b':', b':') {
        return None;
    }
    let (year, month, day) = (digits(&head[..4])?, digits(&head[5..7])?, digits(&head[8..10])?);
    let (hour, minute, second) = (digits(&head[11..13])?, digits(&head[14..16])?, digits(&head[17..])?);
    let second = if second == 60 { 59 } else { second };
    let (nanosecond, rest) = fraction(rest)?;
    let local = DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok()?,
        nanosecond,
    )
    .ok()?;
    Some((local, rest))
}

/// The fraction of a second, truncated to milliseconds, in nanoseconds; zero if there is none.
fn fraction(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let Some(bytes) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let length = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (fraction, rest) = bytes.split_at(length);
    if fraction.is_empty() {
        return None;
    }
    let milliseconds = (0..3).fold(0, |sum, place| sum * 10 + fraction.get(place).map_or(0, |b| i32::from(b - b'0')));
    Some((milliseconds * 1_000_000, rest))
}

/// `Z`, `z` or `±HH:MM`.
fn offset(bytes: &[u8]) -> Option<Offset> {
    let (sign, rest) = match bytes {
        b"Z" | b"z" => return Some(Offset::UTC),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2] = *rest else { return None };
    let (hours, minutes) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn digits(bytes: &[u8]) -> Option<i32> {
    bytes.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i32::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_are_rfc_3339_and_nothing_wider() {
        for (text, read) in [
            ("2026-03-01T10:00:00Z", Ok(1_772_359_200_000)),
            ("2026-03-01t10:00:00z", Ok(1_772_359_200_000)),
            ("2026-03-01T10:00:00.1239Z", Ok(1_772_359_200_123)),
            ("2026-03-01T10:00:00.5+05:45", Ok(1_772_338_500_500)),
            ("2026-02-28T23:59:60Z", Ok(1_772_323_199_000)),
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("1970-01-01T00:00:00+00:01", Err(fault::INVALID_VALUE)),
            ("2100-12-31T23:59:59.999Z", Ok(TIME_MS_END - 1)),
            ("2101-01-01T00:00:00Z", Err(fault::INVALID_VALUE)),
            ("0001-01-01T00:00:00Z", Err(fault::INVALID_VALUE)),
            ("2026-02-29T10:00:00Z", Err(fault::INVALID_TIME)),
            ("2026-03-01T24:00:00Z", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:00", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00Z", Err(fault::INVALID_TIME)),
            ("2026-03-01 10:00:00Z", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:00.Z", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:00+0100", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:00+24:00", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:00Z[Europe/Dublin]", Err(fault::INVALID_TIME)),
            ("20260301T100000Z", Err(fault::INVALID_TIME)),
            ("2026-03-01T10:00:0💥Z", Err(fault::INVALID_TIME)),
            ("", Err(fault::INVALID_TIME)),
        ] {
            assert_eq!(instant_ms(text).map_err(|(code, _)| code), read, "{text}");
        }
    }

    #[test]
    fn wall_clock_times_exist_on_a_calendar() {
        for (text, code) in [
            ("2026-03-29T01:30:00", None),
            ("2028-02-29T01:30:00.250", None),
            ("2026-02-29T01:30:00", Some(fault::INVALID_TIME)),
            ("2026-13-01T01:30:00", Some(fault::INVALID_TIME)),
            ("2026-01-01T25:30:00", Some(fault::INVALID_TIME)),
            ("2026-01-01T01:30", Some(fault::INVALID_TIME)),
            ("1969-12-31T00:00:00", None),
            ("1969-12-30T23:59:59", Some(fault::INVALID_VALUE)),
            ("2101-01-01T23:59:59", None),
            ("2101-01-02T00:00:00", Some(fault::INVALID_VALUE)),
        ] {
            assert_eq!(local(text).err().map(|(code, _)| code), code, "{text}");
        }
        assert_eq!(local("2026-03-29T01:30:07.9").map(wall_clock).unwrap(), "2026-03-29T01:30:07");
    }

    #[test]
    fn a_start_lies_within_the_years_by_the_clocks_of_its_zone() {
        for (text, zone, is_within) in [
            ("2100-12-31T23:59:59", "UTC", true),
            ("2100-12-31T23:59:59", "America/Los_Angeles", false),
            ("2101-01-01T13:59:59", "Pacific/Kiritimati", true),
            ("2101-01-01T14:00:00", "Pacific/Kiritimati", false),
            ("1970-01-01T00:30:00", "Europe/Berlin", false),
            ("1969-12-31T19:00:00", "America/New_York", true),
        ] {
            assert_eq!(meant(local(text).unwrap(), zone).is_ok(), is_within, "{text} {zone}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(at_ms in 0..TIME_MS_END) {
            prop_assert_eq!(instant_ms(&rfc3339(at_ms)), Ok(at_ms));
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC*|[0-9TZ:.+ -]{15,30}|2026-0[0-3]-[0-3][0-9]T.{0,20}") {
            let _ = start(&text);
            let _ = local(&text);
            let _ = instant_ms(&text);
        }
    }
}
