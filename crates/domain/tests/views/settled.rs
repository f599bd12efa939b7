//! How outcomes of visits are counted: when an event determines one, once, with its class at that time.

use crate::build::{DAY, HOUR, at, attended, booked, cancelled, confirmed, deleted, event, missed, rescheduled};
use foretell_domain::view::client::{AppointmentFold, Client};
use foretell_domain::view::{Fold, RecordPosition};
use foretell_events::Fact;
use foretell_events::appointment::CancelledBy;

const START: &str = "2026-06-10T09:00:00Z";

/// The counted outcomes after a booking five days ahead and these facts, each this long before (or after) the start.
fn resolved_as(facts: Vec<(i64, Fact)>) -> Vec<Option<&'static str>> {
    let (fold, mut client) = (AppointmentFold::default(), Client::default());
    let start_ms = at(START);
    let mut take = |from_start_ms: i64, fact: Fact| {
        let event = event(start_ms + from_start_ms, fact);
        fold.fold(&mut client, &event, RecordPosition { partition: 0, offset: 0 });
        AppointmentFold::resolved_as(&client, &event)
    };
    assert_eq!(take(-5 * DAY, booked("a", start_ms)), None, "it is still to come");
    facts.into_iter().map(|(from_start_ms, fact)| take(from_start_ms, fact)).collect()
}

#[test]
fn an_event_that_decides_how_a_visit_ends_is_counted() {
    let by_business = Some(CancelledBy::Business);
    for (facts, expected) in [
        (vec![(-DAY, confirmed("a")), (HOUR, attended("a"))], vec![None, Some("attended")]),
        (vec![(HOUR, missed("a")), (2 * HOUR, attended("a"))], vec![Some("missed"), Some("attended")]),
        // It is older than what is known, so it changes nothing.
        (vec![(2 * HOUR, attended("a")), (HOUR, missed("a"))], vec![Some("attended"), None]),
        (vec![(-2 * DAY, cancelled("a", None))], vec![Some("cancelled")]),
        (vec![(-HOUR, cancelled("a", None))], vec![Some("late_cancelled")]),
        (vec![(-HOUR, cancelled("a", by_business))], vec![Some("cancelled")]),
        (vec![(-2 * DAY, deleted("a"))], vec![Some("deleted")]),
        (vec![(HOUR, missed("a")), (2 * HOUR, rescheduled("a", at(START) + DAY))], vec![Some("missed"), None]),
        // A visit that was never booked.
        (vec![(HOUR, missed("b"))], vec![None]),
    ] {
        assert_eq!(resolved_as(facts.clone()), expected, "{facts:?}");
    }
}
