//! When a reminder may be sent: not in quiet hours, and not above the daily limit.

use super::{MANUAL, PlanContext};
use crate::view::client::Start;
use foretell_events::zone;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A wait for another day can end in quiet hours, and quiet hours can end on a day at its limit; each step can wait at
/// most this many times.
const LOOKS_MAX: usize = 64;

/// The first instant from `wanted_ms` at which a client may be reminded, and why it is later, where it is.
pub(super) struct Slot {
    pub(super) at_ms: i64,
    pub(super) reason: Option<&'static str>,
}

/// The slot of a reminder for a visit; `taken` counts the announcements of this very plan.
pub(super) fn slot(context: &PlanContext<'_>, start: &Start, wanted_ms: i64, taken: u32) -> Slot {
    let Some(zone) = client_zone(context, start) else { return Slot { at_ms: wanted_ms, reason: None } };
    let mut slot = Slot { at_ms: wanted_ms, reason: None };
    for _ in 0..LOOKS_MAX {
        if let Some(end_ms) = quiet_until(context, &zone, slot.at_ms) {
            slot = Slot { at_ms: end_ms, reason: slot.reason.or(Some("quiet_hours")) };
        }
        let day = zone::local(slot.at_ms, &zone).date();
        let now_day = zone::local(context.now_ms, &zone).date();
        let taken = if day == now_day { taken } else { 0 };
        let is_full = announced_on(context, &zone, day) + taken >= context.policy.client_day_reminders_max;
        let Some(tomorrow) = day.tomorrow().ok().filter(|_| is_full) else { return slot };
        let at_ms = zone::instant_ms(tomorrow.at(0, 0, 0, 0), &zone);
        slot = Slot { at_ms, reason: Some("frequency_cap") };
    }
    slot
}

/// The time zone of a client: their own, or else the visit's.
fn client_zone(context: &PlanContext<'_>, start: &Start) -> Option<TimeZone> {
    zone::get(context.client.time_zone.as_deref().unwrap_or(&start.zone))
}

/// Reminders that the client had on a day, without on-demand ones.
fn announced_on(context: &PlanContext<'_>, zone: &TimeZone, day: Date) -> u32 {
    let from_ms = zone::instant_ms(day.at(0, 0, 0, 0), zone);
    let of_day = |at_ms: i64| at_ms >= from_ms && zone::local(at_ms, zone).date() == day;
    context.sent.all().filter(|(_, a)| a.step != MANUAL && of_day(a.at_ms)).count() as u32
}

/// The end of the quiet hours that contain `at_ms`, if any do.
fn quiet_until(context: &PlanContext<'_>, zone: &TimeZone, at_ms: i64) -> Option<i64> {
    let quiet = context.client.quiet_hours.unwrap_or(context.policy.quiet_hours_default);
    zone::quiet::until_ms(at_ms, quiet, zone)
}
