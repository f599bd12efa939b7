//! Outcomes before a visit, and starts that change after an outcome.

use crate::build::*;
use foretell_domain::view::client::{AppointmentFold, AppointmentStatus, Client, ClientHistory};
use foretell_domain::view::{Fold, FoldOutcome, RecordPosition, Skip};
use foretell_events::appointment::AppointmentFact;
use foretell_events::{Event, Fact};

const START: &str = "2026-06-10T09:00:00Z";
const NONE: ClientHistory = ClientHistory { attended: 0, missed: 0, cancelled: 0, late_cancelled: 0, rescheduled: 0 };

fn b() -> (i64, Fact) {
    (
        at("2026-06-01T09:00:00Z"),
        AppointmentFact::Booked(Box::new(booking("a", at(START), Some("Europe/Dublin")))).into(),
    )
}

/// Status and history after a booking and these facts, in the order of the log.
fn after(events: Vec<(i64, Fact)>) -> (AppointmentStatus, ClientHistory) {
    let client = appointments(events).client("c");
    (client.appointments["a"].status, client.history)
}

#[test]
fn a_visit_is_not_missed_before_its_start_nor_attended_before_its_day() {
    let (booked, attended_once) =
        ((AppointmentStatus::Booked, NONE), (AppointmentStatus::Attended, ClientHistory { attended: 1, ..NONE }));
    let missed_once = (AppointmentStatus::Missed, ClientHistory { missed: 1, ..NONE });
    for (name, fact, time, wanted) in [
        ("missed days ahead", missed("a"), "2026-06-05T09:00:00Z", booked),
        ("missed a moment ahead", missed("a"), "2026-06-10T08:59:59Z", booked),
        ("missed at the start", missed("a"), START, missed_once),
        ("attended days ahead", attended("a"), "2026-06-05T09:00:00Z", booked),
        // The visit's day begins at 23:00 UTC in Dublin.
        ("attended late on the day before", attended("a"), "2026-06-09T22:59:59Z", booked),
        ("attended in the small hours", attended("a"), "2026-06-09T23:00:00Z", attended_once),
        ("attended long after", attended("a"), "2026-07-09T23:00:00Z", attended_once),
    ] {
        let mut views = appointments([b()]);
        let is_applied = views.fold(&event(at(time), fact.clone()));
        assert_eq!(is_applied, wanted != booked, "{name}");
        assert_eq!(after(vec![b(), (at(time), fact.clone())]), wanted, "{name}");
        assert_eq!(after(vec![(at(time), fact), b()]), wanted, "{name}, before the booking");
    }
}

#[test]
fn an_outcome_is_never_taken_for_that_of_another_visit() {
    let start = at(START);
    let (missed_then, moved) = ((start + HOUR, missed("a")), |time_ms| (time_ms, rescheduled("a", start + 5 * DAY)));
    let moved_once = ClientHistory { rescheduled: 1, ..NONE };
    for (name, events, wanted) in [
        (
            "moved after its outcome, it is a new visit",
            vec![b(), missed_then.clone(), moved(start + 2 * HOUR)],
            (AppointmentStatus::Booked, ClientHistory { missed: 1, ..moved_once }),
        ),
        (
            "a correction of the old outcome is none of the new visit's",
            vec![b(), missed_then.clone(), moved(start + 2 * HOUR), (start + DAY, attended("a"))],
            (AppointmentStatus::Booked, ClientHistory { missed: 1, ..moved_once }),
        ),
        (
            "moved before its outcome, which comes first",
            vec![b(), missed_then.clone(), moved(start - 2 * HOUR)],
            (AppointmentStatus::Booked, moved_once),
        ),
        (
            "moved before its outcome, in order",
            vec![b(), moved(start - 2 * HOUR), missed_then.clone()],
            (AppointmentStatus::Booked, moved_once),
        ),
        (
            "moved to the morning, and missed there",
            vec![b(), (start - 9 * HOUR, rescheduled("a", start - HOUR)), (start - HOUR / 2, missed("a"))],
            (AppointmentStatus::Missed, ClientHistory { missed: 1, ..moved_once }),
        ),
        (
            "the start is corrected to before the outcome",
            vec![b(), missed_then.clone(), (start + 2 * HOUR, rescheduled("a", start + HOUR / 2))],
            (AppointmentStatus::Missed, ClientHistory { missed: 1, ..moved_once }),
        ),
        (
            "moved within its day after they came early, it is the same visit",
            vec![b(), (start - HOUR / 2, attended("a")), (start - HOUR / 3, rescheduled("a", start + HOUR / 4))],
            (AppointmentStatus::Attended, ClientHistory { attended: 1, ..moved_once }),
        ),
        (
            "moved to another day after they came early, it is a new visit",
            vec![b(), (start - HOUR / 2, attended("a")), (start - HOUR / 3, rescheduled("a", start + DAY))],
            (AppointmentStatus::Booked, ClientHistory { attended: 1, ..moved_once }),
        ),
        (
            "what happened before the new visit was booked is not about it",
            vec![b(), missed_then, moved(start + 3 * HOUR), (start - DAY, cancelled("a", None))],
            (AppointmentStatus::Booked, ClientHistory { missed: 1, ..moved_once }),
        ),
    ] {
        assert_eq!(after(events), wanted, "{name}");
    }
}

#[test]
fn an_outcome_that_was_impossible_can_be_sent_again_under_its_id_once_the_visit_was_moved() {
    let start = at(START);
    let missed_then: Event = event(start - HOUR / 2, missed("a"));
    let (fold, mut client) = (AppointmentFold::default(), Client::default());
    let mut folded = |event: &Event| fold.fold(&mut client, event, RecordPosition { partition: 0, offset: 0 });
    let (booked_at_ms, booked) = b();
    folded(&event(booked_at_ms, booked));
    assert_eq!(folded(&missed_then), FoldOutcome::Skipped(Skip::Impossible));
    assert_eq!(folded(&missed_then), FoldOutcome::Skipped(Skip::Impossible));
    folded(&event(start - 9 * HOUR, rescheduled("a", start - HOUR)));
    assert!(matches!(folded(&missed_then), FoldOutcome::Applied(_)));
    assert_eq!(folded(&missed_then), FoldOutcome::Skipped(Skip::Repeated));
}
