//! A full row of a client: it drops what matters least, and events without capacity are skipped.

use crate::build::*;
use foretell_domain::address::View;
use foretell_domain::view::client::{AppointmentFold, AppointmentStatus, Client};
use foretell_domain::view::{Aggregate, Fold, FoldOutcome, Limits, RecordPosition, Skip};
use foretell_events::Fact;
use foretell_events::appointment::AppointmentFact;
use foretell_events::reminder::Request;
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: i64 = 1_000 * DAY;

fn limits(appointments: usize) -> Limits {
    Limits { client_appointments_max: appointments, ..Limits::default() }
}

/// A visit this many days from now, booked now.
fn ahead(id: &str, days: i64) -> (i64, Fact) {
    (NOW, booked(id, NOW + days * DAY))
}

fn kept(events: impl IntoIterator<Item = (i64, Fact)>, appointments: usize) -> Vec<String> {
    limited(limits(appointments), events).client("c").appointments.into_keys().collect()
}

/// The outcome of each event.
fn outcomes(limits: Limits, events: Vec<(i64, Fact)>) -> (Vec<FoldOutcome<bool>>, Client) {
    let (fold, mut client) = (AppointmentFold { limits }, Client::default());
    let take = |(time_ms, fact)| match fold.fold(
        &mut client,
        &event(time_ms, fact),
        RecordPosition { partition: 0, offset: 0 },
    ) {
        FoldOutcome::Applied(decision) => FoldOutcome::Applied(AppointmentFold::has_displaced(&decision)),
        FoldOutcome::Skipped(reason) => FoldOutcome::Skipped(reason),
    };
    let outcomes = events.into_iter().map(take).collect();
    (outcomes, client)
}

#[test]
fn a_client_with_more_visits_than_are_kept_keeps_the_next_ones() {
    let max = Limits::default().client_appointments_max;
    let visits: Vec<_> = (1..=max as i64 + 40).map(|days| ahead(&format!("v{days:03}"), days)).collect();
    let wanted: Vec<_> = (1..=max).map(|days| format!("v{days:03}")).collect();
    for (name, events) in [("near ones first", visits.clone()), ("far ones first", visits.into_iter().rev().collect())]
    {
        let views = limited(Limits::default(), events.clone());
        assert!(views.client("c").appointments.keys().eq(&wanted), "{name}");
        // All of them are found, and nothing else is.
        let entries = views.aggregates(View::Agenda).into_iter().flat_map(|(.., row)| {
            let Aggregate::Agenda(row) = row else { panic!("an agenda row") };
            row.entries.into_keys()
        });
        let listed: BTreeSet<_> = entries.collect();
        assert!(listed.iter().eq(&wanted), "{name}");
        let (outcomes, _) = outcomes(Limits::default(), events);
        let skipped = outcomes.iter().filter(|outcome| **outcome == FoldOutcome::Skipped(Skip::NoRoom)).count();
        let displaced = outcomes.iter().filter(|outcome| **outcome == FoldOutcome::Applied(true)).count();
        assert_eq!((skipped, displaced), if name.starts_with("near") { (40, 0) } else { (0, 40) }, "{name}");
    }
}

#[test]
fn what_matters_least_is_forgotten_first() {
    let full = vec![
        (NOW - 9 * DAY, booked("long ago", NOW - 8 * DAY)),
        (NOW - 9 * DAY, booked("unresolved", NOW - 5 * DAY)),
        (NOW - 9 * DAY, booked("today", NOW - 2 * HOUR)),
        (NOW - 8 * DAY, attended("long ago")),
        (NOW, booked("off", NOW + 7 * DAY)),
        (NOW, cancelled("off", None)),
        (NOW, missed("unknown")),
        ahead("near", 1),
        ahead("far", 90),
    ];
    let mut row = vec!["far", "long ago", "near", "off", "today", "unknown", "unresolved"];
    assert_eq!(kept(full.clone(), 7), row);
    let mut events = full;
    for (gone, come) in [("unknown", "b"), ("long ago", "c"), ("off", "d"), ("unresolved", "e"), ("far", "f")] {
        events.push(ahead(come, 2));
        row.retain(|id| *id != gone);
        row.push(come);
        row.sort_unstable();
        assert_eq!(kept(events.clone(), 7), row, "{gone} goes");
    }
    // Of visits with the same start the one with the greater id is kept.
    events.push(ahead("g", 2));
    assert_eq!(kept(events.clone(), 7), ["c", "d", "e", "f", "g", "near", "today"]);
    events.push(ahead("a", 2));
    assert_eq!(kept(events, 7), ["c", "d", "e", "f", "g", "near", "today"], "the least is the event's own");
}

#[test]
fn events_about_unknown_appointments_never_displace_a_visit() {
    let request = AppointmentFact::ReminderRequested(Box::new(Request {
        appointment_id: "unknown".into(),
        client_id: "c".into(),
        channels: vec![],
        template: None,
        reason: None,
        idempotency_digest: None,
    }))
    .into();
    for word in [attended("unknown"), cancelled("unknown", None), deleted("unknown"), request] {
        let name = word.type_name();
        let (got, client) = outcomes(limits(2), vec![ahead("a", 1), ahead("b", 2), (NOW + 1, word)]);
        assert_eq!(got[2], FoldOutcome::Skipped(Skip::NoRoom), "{name}");
        assert!(client.appointments.keys().eq(["a", "b"]), "{name}");
    }
}

#[test]
fn past_and_future_are_separated_by_the_latest_event_time_of_the_row() {
    let events = vec![
        (NOW - 9 * DAY, booked("past", NOW - 5 * DAY)),
        ahead("near", 1),
        ahead("far", 90),
        // A source that dates its bookings by when they were made, months ago.
        (NOW - 60 * DAY, booked("old booking", NOW + DAY)),
    ];
    assert_eq!(kept(events, 3), ["far", "near", "old booking"]);
}

#[test]
fn an_event_without_room_is_applied_when_it_is_sent_again_and_there_is_room() {
    let far = event(NOW, booked("far", NOW + 90 * DAY));
    let mut views = limited(limits(2), [ahead("a", 1), ahead("b", 2)]);
    assert!(!views.fold(&far));
    assert!(!views.fold(&event(NOW, booked("far", NOW + 90 * DAY))), "sent again while there is none");
    views.fold(&event(NOW + DAY + HOUR, attended("a")));
    assert!(views.fold(&far), "the very same event: it is not remembered as a repetition");
    assert_eq!(views.client("c").appointments["far"].status, AppointmentStatus::Booked);
    assert!(!views.fold(&far));
}

proptest! {
    #[test]
    fn visits_to_come_are_kept_by_their_start_whatever_the_order(
        days in prop::collection::btree_set(1_i64..400, 0..40).prop_map(|days| days.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        max in 1_usize..20,
    ) {
        let id = |days: i64| format!("v{days:03}");
        let views = limited(limits(max), days.iter().map(|days| ahead(&id(*days), *days)));
        let mut nearest = days.clone();
        nearest.sort_unstable();
        nearest.truncate(max);
        prop_assert!(views.client("c").appointments.into_keys().eq(nearest.into_iter().map(id)));
    }

    #[test]
    fn a_row_never_holds_more_than_it_may(
        events in prop::collection::vec((0_i64..40, 0_u8..30, -20_i64..20, 0_u8..5), 0..80),
        max in 1_usize..6,
    ) {
        let mut views = limited(limits(max), []);
        for (hours, visit, days, kind) in events {
            let (id, time_ms) = (format!("v{visit}"), NOW + hours * HOUR);
            let fact = match kind {
                0..=2 => booked(&id, NOW + days * DAY),
                3 => attended(&id),
                _ => cancelled(&id, None),
            };
            views.fold(&event(time_ms, fact));
            prop_assert!(views.client("c").appointments.len() <= max);
        }
    }
}
