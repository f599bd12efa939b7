//! The clinic of the demo: clients who keep and miss their visits, at times in clinic hours whenever the demo runs.
//!
//! Each upcoming visit is booked late enough that none of its reminders expired before the demo started, and early
//! enough that the current step is due: so a reminder of [`REMINDED`] is announced at once, at any hour and on any day.

use super::entry::Entry;
use foretell_events::appointment::{
    AppointmentFact, AppointmentRef, Booking, ClientUpdate, FieldUpdate, QuietHours, StartsAt,
};
use foretell_events::time::{DAY_MS, HOUR_MS};
use foretell_events::zone;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Time zone of the clinic.
pub(super) const ZONE: &str = "Europe/Berlin";
/// The appointment that gets a reminder at once.
pub(super) const REMINDED: &str = "fatima-next";
/// Local times at which visits start on work days: the clinic is open from 08:00 to 18:00.
const STARTS: [(i8, i8); 6] = [(8, 30), (10, 0), (11, 30), (14, 0), (15, 30), (17, 0)];
const VISIT_MINUTES: u32 = 30;
/// Upcoming visits start no earlier, so that a reminder is still useful while a user looks at the demo.
const AHEAD_MS_MIN: i64 = 3 * HOUR_MS;
/// Hours before the start at which the default policy sends reminders, the latest step first.
const STEPS_HOURS: [i64; 2] = [24, 72];
/// A step is due at least this long before it expires, and a visit is booked this long before its step is due.
const MARGIN_MS: i64 = HOUR_MS;

/// A client: numbers of past visits kept and missed, and which of the upcoming starts is the next visit's.
struct Client {
    name: &'static str,
    kept: u32,
    missed: u32,
    next: usize,
}

const CLIENTS: [Client; 6] = [
    Client { name: "fatima", kept: 9, missed: 0, next: 0 },
    Client { name: "karl", kept: 0, missed: 2, next: 1 },
    Client { name: "george", kept: 2, missed: 5, next: 21 },
    Client { name: "hana", kept: 6, missed: 1, next: 8 },
    Client { name: "ivan", kept: 1, missed: 3, next: 15 },
    Client { name: "jana", kept: 4, missed: 0, next: 2 },
];

/// The events of the clinic up to `now_ms`.
pub(super) fn entries(now_ms: i64) -> Vec<Entry> {
    CLIENTS.iter().flat_map(|client| visits(client, now_ms)).collect()
}

/// The rules of the clinic's time zone, which is in every release of the rules.
pub(super) fn rules() -> TimeZone {
    zone::get(ZONE).unwrap_or(TimeZone::UTC)
}

/// Starts of visits from an instant on, an endless sequence.
fn starts(from_ms: i64) -> impl Iterator<Item = i64> {
    let rules = rules();
    let is_work_day = |date: &jiff::civil::Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    let days = zone::local(from_ms, &rules).date().series(jiff::Span::new().days(1)).filter(is_work_day);
    days.flat_map(move |date| {
        let rules = rules.clone();
        STARTS.map(|(hour, minute)| zone::instant_ms(date.at(hour, minute, 0, 0), &rules))
    })
    .filter(move |at_ms| *at_ms >= from_ms)
}

/// Starts of upcoming visits, without those for which a step is about to expire.
fn starts_to_come(now_ms: i64) -> impl Iterator<Item = i64> {
    let is_clear = move |start_ms: &i64| {
        let ahead_ms = start_ms - now_ms;
        STEPS_HOURS.iter().all(|hours| !(hours * HOUR_MS..hours * HOUR_MS + MARGIN_MS).contains(&ahead_ms))
    };
    starts(now_ms + AHEAD_MS_MIN).filter(is_clear)
}

/// When a visit that starts at `start_ms` was booked: just before its current step was due, so that earlier steps do
/// not apply.
fn booked_ms(start_ms: i64, now_ms: i64) -> i64 {
    let step = STEPS_HOURS.iter().map(|hours| start_ms - hours * HOUR_MS).find(|due_ms| *due_ms <= now_ms);
    step.map_or(now_ms - 9 * DAY_MS, |due_ms| due_ms - MARGIN_MS)
}

/// Visits kept and missed in the last months, and an upcoming one. The client has no quiet hours, because a demo is
/// also started at night.
fn visits(client: &Client, now_ms: i64) -> Vec<Entry> {
    let Client { name, kept, missed, next } = *client;
    let no_quiet_hours = FieldUpdate::Set(QuietHours { from_minute: 0, to_minute: 0 });
    let update = ClientUpdate { client_id: name.into(), quiet_hours: no_quiet_hours, ..ClientUpdate::default() };
    let fact = AppointmentFact::ClientUpdated(Box::new(update)).into();
    let mut entries = vec![Entry { id: format!("{name}-profile"), time_ms: now_ms - 400 * DAY_MS, fact }];
    for (visit, start_ms) in (0..kept + missed).zip(past(now_ms)) {
        let id = format!("{name}-{visit}");
        let outcome = AppointmentRef { appointment_id: id.clone(), client_id: name.into() };
        // The missed ones are spread among the kept ones.
        let is_missed = (visit + 1) * missed / (kept + missed) > visit * missed / (kept + missed);
        let fact =
            if is_missed { AppointmentFact::Missed(outcome).into() } else { AppointmentFact::Attended(outcome).into() };
        entries.push(booked(name, &id, start_ms - (5 + i64::from(visit)) * DAY_MS, start_ms));
        entries.push(Entry { id: format!("{id}-outcome"), time_ms: start_ms + HOUR_MS, fact });
    }
    if let Some(start_ms) = starts_to_come(now_ms).nth(next) {
        entries.push(booked(name, &format!("{name}-next"), booked_ms(start_ms, now_ms), start_ms));
    }
    entries
}

/// Starts of past visits, three weeks apart and the latest first.
fn past(now_ms: i64) -> impl Iterator<Item = i64> {
    (1..).filter_map(move |visits: i64| starts(now_ms - visits * 21 * DAY_MS).next())
}

fn booked(client: &str, id: &str, booked_at_ms: i64, starts_at_ms: i64) -> Entry {
    let fact = AppointmentFact::Booked(Box::new(Booking {
        appointment_id: id.into(),
        client_id: client.into(),
        starts_at: StartsAt::Instant { at_ms: starts_at_ms, zone: Some(ZONE.into()) },
        duration_minutes: Some(VISIT_MINUTES),
        location_id: Some("main-street".into()),
        practitioner_id: None,
        service: Some("check-up".into()),
        booked_at_ms: None,
        attributes: BTreeMap::new(),
    }))
    .into();
    Entry { id: format!("{id}-booked"), time_ms: booked_at_ms, fact }
}

/// A local time of the clinic in a readable form, as in `Mon 30 Nov 08:30`.
pub(super) fn people_write(local: DateTime) -> String {
    local.strftime("%a %-d %b %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::remind::plan::{self, PlanContext, ReminderAction, ReminderStatus};
    use foretell_domain::remind::policy::ReminderPolicy;
    use foretell_domain::view::RecordPosition;
    use foretell_domain::view::client::{self, AppointmentFold};
    use foretell_domain::view::materialized::Materialized;
    use foretell_domain::view::sent::SentReminders;
    use foretell_events::Fact;

    /// A year of current times, 47 minutes apart: every hour of every day of the week, and both clock changes.
    fn a_year() -> impl Iterator<Item = i64> {
        let from_ms = 1_767_225_600_000;
        (0..).map(move |at: i64| from_ms + at * 47 * 60_000).take_while(move |at_ms| *at_ms < from_ms + 366 * DAY_MS)
    }

    #[test]
    fn visits_lie_in_clinic_hours_on_work_days_all_year() {
        for now_ms in a_year() {
            for (start_ms, booked_ms) in entries(now_ms).iter().filter_map(|entry| {
                let Fact::Appointment(AppointmentFact::Booked(booking)) = &entry.fact else { return None };
                let StartsAt::Instant { at_ms, .. } = booking.starts_at else { return None };
                Some((at_ms, entry.time_ms))
            }) {
                let (start, end) = (zone::local(start_ms, &rules()), zone::local(start_ms + 30 * 60_000, &rules()));
                assert!(!matches!(start.weekday(), Weekday::Saturday | Weekday::Sunday), "{now_ms}: {start}");
                assert!(start.hour() >= 8 && (end.hour() < 18), "{now_ms}: {start}");
                assert!(booked_ms < now_ms && booked_ms < start_ms, "{now_ms}: {start}");
                assert!(start_ms > now_ms + 2 * HOUR_MS || start_ms + HOUR_MS <= now_ms, "{now_ms}: {start}");
            }
        }
    }

    /// The planner itself confirms it, at any hour and on any day.
    #[test]
    fn a_reminder_is_due_at_once_and_none_has_expired_all_year() {
        for now_ms in a_year().step_by(7) {
            let mut rows = Materialized::new(AppointmentFold::default());
            let mut entries = entries(now_ms);
            entries.sort_by_key(|entry| entry.time_ms);
            for (offset, entry) in entries.into_iter().enumerate() {
                let Entry { id, time_ms, fact } = entry;
                let envelope = foretell_events::Envelope { id, source: "s".into(), tenant: "default".into(), time_ms };
                let event = foretell_events::Event { envelope, fact };
                assert!(rows.take(&event, RecordPosition { partition: 0, offset: offset as i64 }));
            }
            for Client { name, .. } in &CLIENTS {
                let key = client::row_key("default", name);
                let (sent, policy, risks) = (SentReminders::default(), ReminderPolicy::default(), BTreeMap::new());
                let row = rows.owner(&key).unwrap();
                let (key, id) = (format!("default:{name}"), format!("{name}-next"));
                let context =
                    PlanContext { key: &key, client: row, sent: &sent, policy: &policy, risks: &risks, now_ms };
                let plan = plan::client(&context);
                if id == REMINDED {
                    let [ReminderAction::Announce(announce)] = plan.actions.as_slice() else {
                        panic!("{now_ms}: {plan:?}")
                    };
                    assert_eq!(announce.appointment_id, REMINDED);
                    assert!(announce.expires_at_ms >= now_ms + MARGIN_MS, "{now_ms}: {announce:?}");
                }
                let story = plan::timeline(&context, &id);
                assert!(story.iter().all(|reminder| reminder.status != ReminderStatus::Failed), "{now_ms}: {story:?}");
            }
        }
    }
}
