//! Announcements, and their calendar.

use crate::build::*;
use foretell_domain::address::View;
use foretell_domain::view::sent::{self, Calendar, CalendarDelta, ReminderFold, SentReminders};
use foretell_domain::view::{Aggregate, AggregateView, Limits};
use foretell_events::Fact;
use foretell_events::appointment::Channel;
use foretell_events::codec::rfc3339;
use foretell_events::reminder::{Announcement, ReminderFact, Withdrawal};

fn due(id: &str, appointment: &str, step: &str, start_hour: i64) -> Fact {
    ReminderFact::Due(Box::new(Announcement {
        reminder_id: id.into(),
        appointment_id: appointment.into(),
        client_id: "c".into(),
        starts_at: rfc3339(start_hour * HOUR),
        local_start: "2026-01-01T09:00:00".into(),
        time_zone: "UTC".into(),
        step: step.into(),
        channels: vec![Channel::Sms],
        template: "visit-reminder".into(),
        risk: None,
        expires_at: rfc3339(start_hour * HOUR),
        visits: vec![],
    }))
    .into()
}

fn withdrawn(id: &str, appointment: &str) -> Fact {
    let (reminder_id, appointment_id) = (id.into(), appointment.into());
    ReminderFact::Withdrawn(Withdrawal {
        reminder_id,
        appointment_id,
        client_id: "c".into(),
        reason: "cancelled".into(),
    })
    .into()
}

fn views(limits: Limits, facts: Vec<Fact>) -> Views<ReminderFold> {
    Views::new(ReminderFold { limits }, 1).all(facts.into_iter().map(|fact| (HOUR, fact)))
}

fn row(views: &Views<ReminderFold>) -> SentReminders {
    views.rows.owner(&sent::row_key("t", "c")).cloned().unwrap_or_default()
}

/// The hours of the calendar with their counts, and the reminders in the rows of hours.
fn listed(views: &Views<ReminderFold>) -> (Vec<(i64, i32)>, Vec<String>) {
    let (mut hours, mut reminders) = (Vec::new(), Vec::new());
    for (_, _, row) in views.aggregates(View::Announced) {
        match row {
            Aggregate::Calendar(calendar) => hours.extend(calendar.hours),
            Aggregate::Agenda(agenda) => reminders.extend(agenda.entries.into_keys()),
            _ => panic!("neither"),
        }
    }
    (hours, reminders)
}

#[test]
fn an_announcement_is_listed_until_it_is_withdrawn() {
    let all = Limits::default;
    for (name, facts, hours, reminders) in [
        ("announced", vec![due("r", "a", "72h", 9)], vec![(9, 1)], vec!["r"]),
        ("withdrawn", vec![due("r", "a", "72h", 9), withdrawn("r", "a")], vec![], vec![]),
        ("again", vec![due("r", "a", "72h", 9), withdrawn("r", "a"), due("s", "a", "72h", 9)], vec![(9, 1)], vec!["s"]),
        (
            "twice withdrawn",
            vec![due("r", "a", "72h", 9), due("s", "b", "72h", 9), withdrawn("r", "a"), withdrawn("r", "a")],
            vec![(9, 1)],
            vec!["s"],
        ),
        (
            "one id is one reminder",
            vec![due("r", "a", "72h", 9), due("r", "a", "72h", 9), withdrawn("r", "a")],
            vec![],
            vec![],
        ),
        ("never announced", vec![withdrawn("r", "a")], vec![], vec![]),
        ("two hours", vec![due("r", "a", "72h", 9), due("s", "b", "72h", 10)], vec![(9, 1), (10, 1)], vec!["r", "s"]),
    ] {
        let views = views(all(), facts);
        let (found_hours, mut found) = listed(&views);
        found.sort();
        assert_eq!(found_hours, hours, "{name}");
        assert_eq!(found, reminders, "{name}");
    }
}

#[test]
fn a_full_list_forgets_withdrawn_ones_then_those_by_hand_and_counts_on() {
    let limits = Limits { appointment_reminders_max: 3, ..Limits::default() };
    let ids = |facts: Vec<Fact>| {
        let sent = row(&views(limits.clone(), facts));
        (sent.of("a").iter().map(|a| a.reminder_id.clone()).collect::<Vec<_>>(), sent.withdrawn("a", "72h"))
    };
    let step = |id: &str| due(id, "a", "72h", 9);
    let hand = |id: &str| due(id, "a", sent::MANUAL_STEP, 9);
    let kept = |ids: [&str; 3]| ids.map(str::to_owned).to_vec();
    assert_eq!(ids(vec![hand("m"), step("r"), withdrawn("r", "a"), step("s"), step("t")]), (kept(["m", "s", "t"]), 1));
    assert_eq!(ids(vec![step("r"), hand("m"), hand("n"), hand("o")]), (kept(["r", "n", "o"]), 0));
    assert_eq!(ids(vec![step("r"), step("s"), step("t"), step("u")]), (kept(["s", "t", "u"]), 0));
    let begun = due("b", "a", "72h", 1);
    assert_eq!(ids(vec![hand("m"), step("r"), begun, step("s")]), (kept(["m", "r", "s"]), 0), "its visit is over");
    let taken_back = |id: &str| [step(id), withdrawn(id, "a")];
    let many = ["r", "s", "t", "u", "v"].iter().flat_map(|id| taken_back(id)).collect();
    assert_eq!(ids(many), (kept(["t", "u", "v"]), 5), "so that the next id is a new one");
}

#[test]
fn a_full_row_forgets_what_has_passed_then_what_is_withdrawn_then_the_farthest() {
    let limits = Limits { client_appointments_max: 2, ..Limits::default() };
    let kept = |facts: Vec<Fact>| row(&views(limits.clone(), facts)).appointments.into_keys().collect::<Vec<_>>();
    // It is one o'clock.
    let due = |appointment: &str, start_hour: i64| due(&format!("r{appointment}"), appointment, "72h", start_hour);
    assert_eq!(kept(vec![due("a", -9), due("b", 0), due("d", 8)]), ["b", "d"], "the oldest");
    assert_eq!(kept(vec![due("a", -9), due("b", 8), due("d", 7)]), ["b", "d"]);
    assert_eq!(kept(vec![due("a", 2), withdrawn("ra", "a"), due("b", 8), due("d", 7)]), ["b", "d"]);
    assert_eq!(kept(vec![due("a", 2), withdrawn("ra", "a"), due("b", 0), due("d", 7)]), ["a", "d"], "its id is used");
    assert_eq!(kept(vec![due("a", 9), due("b", 7), due("d", 8)]), ["b", "d"], "the farthest");
}

#[test]
fn a_calendar_drops_past_and_farthest_hours() {
    let mut calendar = Calendar::default();
    let come = |hour, now_hour| CalendarDelta { hour, now_hour, times: 1 };
    calendar.apply(&come(100, 50), &Limits::default());
    calendar.apply(&come(200, 148), &Limits::default());
    assert!(calendar.hours.contains_key(&100), "48 hours past");
    calendar.apply(&come(200, 149), &Limits::default());
    assert_eq!(calendar.hours.into_iter().collect::<Vec<_>>(), [(200, 2)]);
    let mut calendar = Calendar::default();
    (0..10_001).for_each(|hour| calendar.apply(&come(10_001 - hour, 0), &Limits::default()));
    assert_eq!((calendar.hours.len(), calendar.hours.last_key_value()), (10_000, Some((&10_000, &1))));
}
