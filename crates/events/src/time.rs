//! Lengths of time in milliseconds, the unit of every instant and duration here.

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60 * 1_000;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds of a day without a clock change.
pub const DAY_MS: i64 = 24 * HOUR_MS;
