//! The limits of an event's contents. The schemas under `catalog/` state the same limits.
//!
//! Lengths are UTF-8 bytes here and characters in JSON Schema, so a text beyond ASCII may match its schema and be too
//! long nevertheless.

/// Longest `source`, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024;
/// Longest tenant, in bytes.
pub(crate) const TENANT_BYTES_MAX: usize = 63;
/// Longest free text, in bytes: reasons, names, references.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest browser, operating system or device type, in bytes: they are keys of rows.
pub(crate) const LABEL_BYTES_MAX: usize = 256;
/// Longest `user_agent` that is accepted, in bytes.
pub(crate) const USER_AGENT_BYTES_MAX: usize = 64 * 1024;
/// How much of a `user_agent` the typed event keeps, in bytes, cut at a character boundary.
///
/// Browsers send 100 to 300 bytes. A longer one varies from request to request or is meant to fill a disk; its
/// beginning identifies it well enough, and rejecting the login would lose the fact that it happened.
pub(crate) const USER_AGENT_KEPT_BYTES: usize = 1024;
/// Longest language tag, in bytes.
pub(crate) const LANGUAGE_BYTES_MAX: usize = 64;
/// Most attributes of an appointment or a client.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest name of an attribute, in bytes.
pub(crate) const ATTRIBUTE_NAME_BYTES_MAX: usize = 128;
/// Longest text of an attribute, in bytes.
pub(crate) const ATTRIBUTE_TEXT_BYTES_MAX: usize = 1024;
/// Most channels of a client, a request or a reminder.
pub const CHANNELS_MAX: usize = 16;
/// Most visits that one reminder names.
pub const VISITS_MAX: usize = 64;
/// Longest visit, in minutes: 31 days.
pub(crate) const DURATION_MINUTES_MAX: u32 = 31 * 1440;
/// Longest round trip, in milliseconds: a day.
pub(crate) const RTT_MS_MAX: f64 = 86_400_000.0;
/// One past the last instant that an event may name: the end of the year 2100. The first is the epoch.
pub const TIME_MS_END: i64 = 4_133_980_800_000;
/// Most CloudEvents extension attributes that are kept; further ones are dropped.
pub(crate) const EXTENSIONS_MAX: usize = 64;
