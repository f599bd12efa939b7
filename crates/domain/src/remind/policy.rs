//! When and how clients are reminded: a tenant's decisions, as one document.
//!
//! The settings contain one under `[reminders.policy]`, for tenants without their own; a tenant's document contains
//! only its differences. A step keeps its id when its offset is edited: what was announced under it stays announced, so
//! that an edit re-plans what is unsent and repeats nothing.

use crate::score::RiskLevel;
use crate::view::client::Start;
use crate::view::sent::MANUAL_STEP;
use foretell_events::appointment::{Channel, QuietHours};
use foretell_events::policy::{self, Invalid};
use foretell_events::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use foretell_events::zone;
use jiff::civil::{Date, Weekday};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most steps of a policy.
pub const STEPS_MAX: usize = 8;
/// Most announcements of a step after the first one, for further channels.
pub(crate) const FALLBACKS_MAX: u32 = 4;
/// Most announcements of one visit by a policy: rows keep this many, so that no valid one is forgotten.
pub const ANNOUNCEMENTS_MAX: usize = STEPS_MAX * (1 + FALLBACKS_MAX as usize);
/// Longest time from a step to the start, in days.
pub(crate) const AHEAD_DAYS_MAX: u32 = 30;
/// Longest time in business days: with one free day a week within [`AHEAD_DAYS_MAX`], with one business day 20 weeks.
pub(crate) const BUSINESS_DAYS_MAX: u32 = 20;
/// Longest step id, in bytes.
pub(crate) const STEP_ID_BYTES_MAX: usize = 64;
/// Longest name of a template, in bytes.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 256;
/// How long after the booking a step at the booking may still be announced.
const AT_BOOKING_MS: i64 = 24 * HOUR_MS;

/// Which reminders are sent, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReminderPolicy {
    /// Steps, in any order; at most [`STEPS_MAX`].
    pub steps: Vec<ReminderStep>,
    /// Channels of a client without stored consents, in order of preference; at least one.
    pub channels_default: Vec<Channel>,
    /// Text that the sender should use.
    pub template_default: String,
    /// Quiet hours of a client without their own, in local minutes after midnight; equal values mean none.
    pub quiet_hours_default: QuietHours,
    /// Reminders that a client gets on one day of their time zone, 1 to 64; on-demand ones are not counted. Further
    /// ones wait for the next day, or are suppressed if that is too late.
    pub client_day_reminders_max: u32,
    /// One reminder names all visits of a client on one day; otherwise each visit has its own.
    pub group_same_day: bool,
    /// Minutes before the start in which no step is announced; 0 to 1440.
    pub notice_minutes_min: u32,
    /// How often a reminder that could not be delivered is announced again, for the remaining channels; 0 to 4.
    pub fallbacks_max: u32,
    /// Days of the week that count as business days; at least one.
    pub business_days: Vec<Day>,
}

/// A reminder before the start, or at the booking. Exactly one of `before_hours`, `before_days`, `before_business_days`
/// and `at_booking` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReminderStep {
    /// Its name in events, `[a-z0-9_-]`, at most [`STEP_ID_BYTES_MAX`]; survives edits of its offset.
    pub id: String,
    /// Absolute hours before the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_hours: Option<u32>,
    /// Days before the start, at the same local time of day in the visit's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_days: Option<u32>,
    /// Business days before the start, at the same local time of day in the visit's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_business_days: Option<u32>,
    /// When the visit is booked or moved: a confirmation. At most a day after that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_booking: bool,
    /// These channels in this order, limited to those with the client's consent; if empty, the client's own, in the
    /// client's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// Used instead of the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Only for visits at these risk levels; if empty, for all. Of `low`, `medium`, `high`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<RiskLevel>,
    /// Not for visits that the client has confirmed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_confirmed: bool,
    /// Minutes after the due time during which it may be announced, if that ends before the next step is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_minutes: Option<u32>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Day {
    /// Days are declared from Monday on.
    fn is(self, day: Weekday) -> bool {
        day.to_monday_zero_offset() == self as i8
    }
}

impl Default for ReminderPolicy {
    fn default() -> Self {
        let hours =
            |id: &str, hours| ReminderStep { id: id.into(), before_hours: Some(hours), ..ReminderStep::default() };
        let call = ReminderStep {
            id: "call".into(),
            before_business_days: Some(3),
            channels: vec![Channel::Call],
            levels: vec![RiskLevel::High],
            skip_confirmed: true,
            ..ReminderStep::default()
        };
        Self {
            steps: vec![ReminderStep { skip_confirmed: true, ..hours("72h", 72) }, hours("24h", 24), call],
            channels_default: vec![Channel::Sms],
            template_default: "visit-reminder".into(),
            quiet_hours_default: QuietHours { from_minute: 21 * 60, to_minute: 8 * 60 },
            client_day_reminders_max: 4,
            group_same_day: true,
            notice_minutes_min: 60,
            fallbacks_max: 2,
            business_days: vec![Day::Monday, Day::Tuesday, Day::Wednesday, Day::Thursday, Day::Friday],
        }
    }
}

/// When a step is due.
enum Offset {
    Hours(u32),
    Days(u32),
    BusinessDays(u32),
    AtBooking,
}

impl ReminderStep {
    /// When it is due; none unless it sets exactly one of the fields.
    fn offset(&self) -> Option<Offset> {
        let offsets = [
            self.before_hours.map(Offset::Hours),
            self.before_days.map(Offset::Days),
            self.before_business_days.map(Offset::BusinessDays),
            self.at_booking.then_some(Offset::AtBooking),
        ];
        let mut offsets = offsets.into_iter().flatten();
        offsets.next().filter(|_| offsets.next().is_none())
    }

    /// Whether it is for visits of every level: such a step ends the time of the previous one.
    pub(super) fn is_for_all(&self) -> bool {
        self.levels.is_empty()
    }

    /// When it is due for a visit that was placed at `placed_at_ms`.
    pub(super) fn due_ms(&self, policy: &ReminderPolicy, start: &Start, placed_at_ms: i64) -> i64 {
        let zone = || zone::get(&start.zone).unwrap_or(jiff::tz::TimeZone::UTC);
        let same_time = |date: Date| zone::instant_ms(date.to_datetime(start.local().time()), &zone());
        match self.offset() {
            Some(Offset::Hours(hours)) => start.at_ms - i64::from(hours) * HOUR_MS,
            Some(Offset::Days(days)) => zone::days_before_ms(start.local(), days, &zone()),
            Some(Offset::BusinessDays(days)) => same_time(policy.business_days_before(start.local().date(), days)),
            Some(Offset::AtBooking) | None => placed_at_ms,
        }
    }

    /// Until when it may be announced, if it has its own limit.
    pub(super) fn own_end_ms(&self, due_ms: i64) -> Option<i64> {
        let minutes = self.expires_minutes.map(|minutes| due_ms + i64::from(minutes) * MINUTE_MS);
        let at_booking = self.at_booking.then_some(due_ms + AT_BOOKING_MS);
        [minutes, at_booking].into_iter().flatten().min()
    }
}

impl ReminderPolicy {
    /// The policy of a document, with the values of `base` where the document has none.
    pub fn read(document: &Value, base: &Self) -> Result<Self, Invalid> {
        let policy: Self = policy::over(document, base)?;
        policy.validate()?;
        Ok(policy)
    }

    /// Whether plans can be computed with it; the error names the first invalid place.
    pub fn validate(&self) -> Result<(), Invalid> {
        let unless = |holds: bool, pointer: &str, detail: &str| {
            if holds { Ok(()) } else { Err(Invalid::at(pointer, detail)) }
        };
        unless(self.steps.len() <= STEPS_MAX, "/steps", "at most 8")?;
        for (at, step) in self.steps.iter().enumerate() {
            step.validate().map_err(|(place, detail)| Invalid::at(format!("/steps/{at}{place}"), detail))?;
            let is_new = self.steps.iter().take(at).all(|other| other.id != step.id);
            unless(is_new, &format!("/steps/{at}/id"), "a unique id")?;
        }
        let channels = &self.channels_default;
        unless(!channels.is_empty() && is_set(channels), "/channels_default", "at least one, without duplicates")?;
        unless(is_template(&self.template_default), "/template_default", "1 to 256 bytes")?;
        let minute = |minute: u16| minute < 24 * 60;
        let quiet = self.quiet_hours_default;
        unless(minute(quiet.from_minute), "/quiet_hours_default/from_minute", "0 to 1439")?;
        unless(minute(quiet.to_minute), "/quiet_hours_default/to_minute", "0 to 1439")?;
        unless((1..=64).contains(&self.client_day_reminders_max), "/client_day_reminders_max", "1 to 64")?;
        unless(self.notice_minutes_min <= 24 * 60, "/notice_minutes_min", "0 to 1440")?;
        unless(self.fallbacks_max <= FALLBACKS_MAX, "/fallbacks_max", "0 to 4")?;
        let days = &self.business_days;
        unless(!days.is_empty() && is_set(days), "/business_days", "at least one, without duplicates")
    }

    /// Whether a step is due when a visit is booked.
    pub fn confirms_bookings(&self) -> bool {
        self.steps.iter().any(|step| step.at_booking)
    }

    /// How long before its start a step of a visit can be due, except a step at the booking.
    pub fn longest_ms(&self) -> i64 {
        let of = |step: &ReminderStep| match step.offset() {
            Some(Offset::Hours(hours)) => i64::from(hours) * HOUR_MS,
            // One day more than the number of calendar days, because a day can have 25 hours.
            Some(Offset::Days(days)) => i64::from(days + 1) * DAY_MS,
            Some(Offset::BusinessDays(days)) => {
                let weeks = i64::from(days) / self.business_days.len().max(1) as i64 + 1;
                weeks * 7 * DAY_MS + DAY_MS
            }
            // The planner sees the booking among the changes, and a new owner of a partition also examines visits
            // farther ahead.
            Some(Offset::AtBooking) | None => 0,
        };
        self.steps.iter().map(of).max().unwrap_or(0)
    }

    /// The date that is `days` business days before `date`.
    fn business_days_before(&self, date: Date, days: u32) -> Date {
        let (mut date, mut left) = (date, days);
        while left > 0 {
            let Ok(before) = date.yesterday() else { return date };
            date = before;
            if self.business_days.iter().any(|day| day.is(date.weekday())) {
                left -= 1;
            }
        }
        date
    }
}

impl ReminderStep {
    /// The place within the step and what is expected there; a step that sets no time, or two, is wrong as a whole.
    fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let unless = |holds: bool, place, detail| if holds { Ok(()) } else { Err((place, detail)) };
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let is_id = (1..=STEP_ID_BYTES_MAX).contains(&self.id.len()) && self.id.bytes().all(is_plain);
        unless(is_id && self.id != MANUAL_STEP, "/id", "1 to 64 of [a-z0-9_-], and not \"manual\"")?;
        let within = |days: Option<u32>, max: u32| days.is_none_or(|days| (1..=max).contains(&days));
        unless(within(self.before_hours, AHEAD_DAYS_MAX * 24), "/before_hours", "1 to 720")?;
        unless(within(self.before_days, AHEAD_DAYS_MAX), "/before_days", "1 to 30")?;
        unless(within(self.before_business_days, BUSINESS_DAYS_MAX), "/before_business_days", "1 to 20")?;
        let offset = "one of before_hours, before_days, before_business_days and at_booking";
        unless(self.offset().is_some(), "", offset)?;
        unless(is_set(&self.channels), "/channels", "each once")?;
        unless(self.template.as_deref().is_none_or(is_template), "/template", "1 to 256 bytes")?;
        unless(!self.levels.contains(&RiskLevel::Unscored), "/levels", "low, medium or high")?;
        unless(within(self.expires_minutes, AHEAD_DAYS_MAX * 24 * 60), "/expires_minutes", "1 to 43200")
    }
}

/// Whether a list contains no duplicates.
fn is_set<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().all(|(at, entry)| !list[..at].contains(entry))
}

fn is_template(name: &str) -> bool {
    (1..=TEMPLATE_BYTES_MAX).contains(&name.len())
}
