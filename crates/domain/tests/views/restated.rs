//! Restatements change nothing: no status, no plan, no history and no counts.

use crate::build::*;
use foretell_domain::address::RowKey;
use foretell_domain::view::client::{AppointmentFold, AppointmentStatus, Client, ClientHistory};
use foretell_domain::view::{Fold, FoldOutcome, RecordPosition, Skip};
use foretell_events::appointment::{
    AppointmentFact, CancelledBy, Channel, ClientErasure, Consent, FieldUpdate, QuietHours, Scalar,
};
use foretell_events::reminder::Feedback;
use foretell_events::{Event, Fact};
use proptest::prelude::*;
use std::collections::BTreeMap;

const START: i64 = 1_000 * DAY + 9 * HOUR;
const NONE: ClientHistory = ClientHistory { attended: 0, missed: 0, cancelled: 0, late_cancelled: 0, rescheduled: 0 };

/// A client's row without the times of the latest statements.
fn substance(mut client: Client) -> Client {
    client.recent = Default::default();
    client.latest_ms = 0;
    client.updated = Default::default();
    client.updated_at_ms = client.updated_at_ms.map(|_| 0);
    client.erased_at_ms = client.erased_at_ms.map(|_| 0);
    for visit in client.appointments.values_mut() {
        (visit.restated_at_ms, visit.status_restated_at_ms, visit.status_after_ms) = (0, 0, None);
        visit.on_at_ms = 0;
        (visit.placements, visit.taken_back) = (Default::default(), None);
        visit.cancelled_by.iter_mut().for_each(|named| named.at_ms = 0);
        visit.receipts.iter_mut().for_each(|receipt| receipt.restated_at_ms = 0);
    }
    client
}

/// Everything that can be read.
fn rows(views: &Views<AppointmentFold>) -> (Client, BTreeMap<(RowKey, u32), Vec<u8>>) {
    (substance(views.client("c")), views.shared())
}

fn feedback(received: fn(Box<Feedback>) -> AppointmentFact, reason: Option<&str>) -> Fact {
    let feedback = Feedback {
        reminder_id: "r".into(),
        appointment_id: "a".into(),
        client_id: "c".into(),
        channel: Some(Channel::Sms),
        reason: reason.map(str::to_owned),
    };
    received(Box::new(feedback)).into()
}

fn profile() -> Fact {
    updated(|update| {
        update.time_zone = FieldUpdate::Set("Europe/Dublin".into());
        update.language = FieldUpdate::Set("pt".into());
        update.channels = FieldUpdate::Set(vec![Consent { channel: Channel::Sms, consent: true, address_ref: None }]);
        update.quiet_hours = FieldUpdate::Set(QuietHours { from_minute: 60, to_minute: 90 });
        update.attributes = FieldUpdate::Set(BTreeMap::from([("age".into(), Scalar::Number(40.0))]));
    })
}

fn booked_by(hand: &str) -> Fact {
    let mut booking = booking("a", START, Some("Europe/Dublin"));
    booking.service = Some("cut".into());
    booking.practitioner_id = Some(hand.into());
    AppointmentFact::Booked(Box::new(booking)).into()
}

#[test]
fn a_restatement_changes_nothing_in_any_state() {
    let client = Some(CancelledBy::Client);
    let late = START - HOUR;
    let (b, again) = (|| (1, booked("a", START)), || booked("a", START));
    let over = START + HOUR;
    for (name, before, restated) in [
        ("booked", vec![b()], vec![again(), rescheduled("a", START)]),
        (
            "booked with all its details",
            vec![(1, booked_by("p"))],
            vec![
                booked_by("p"),
                rescheduled("a", START),
                AppointmentFact::Booked(Box::new(booking("a", START, None))).into(),
            ],
        ),
        ("confirmed", vec![b(), (2, confirmed("a"))], vec![again(), rescheduled("a", START), confirmed("a")]),
        ("moved", vec![b(), (2, rescheduled("a", START + DAY))], vec![rescheduled("a", START + DAY)]),
        ("moved by a booking", vec![b(), (2, rescheduled("a", START + DAY))], vec![booked("a", START + DAY)]),
        ("called off in time", vec![b(), (2, cancelled("a", None))], vec![cancelled("a", None)]),
        ("called off by the client", vec![b(), (late, cancelled("a", client))], vec![cancelled("a", None)]),
        ("attended", vec![b(), (over, attended("a"))], vec![attended("a"), again(), rescheduled("a", START)]),
        ("attended early", vec![b(), (START - HOUR, attended("a"))], vec![again(), attended("a")]),
        ("missed", vec![b(), (over, missed("a"))], vec![missed("a"), again(), confirmed("a")]),
        ("deleted", vec![b(), (2, deleted("a"))], vec![deleted("a"), confirmed("a")]),
        ("a confirmation of what is off", vec![b(), (2, cancelled("a", None))], vec![confirmed("a")]),
        ("never placed", vec![(2, missed("a"))], vec![missed("a")]),
        ("a profile", vec![(2, profile())], vec![profile(), updated(|_| {})]),
        (
            "a receipt",
            vec![b(), (2, feedback(AppointmentFact::ReminderFailed, Some("full")))],
            vec![
                feedback(AppointmentFact::ReminderFailed, Some("full")),
                feedback(AppointmentFact::ReminderFailed, None),
            ],
        ),
        (
            "an answer to a reminder",
            vec![b(), (2, feedback(AppointmentFact::ReminderConfirmed, None))],
            vec![feedback(AppointmentFact::ReminderConfirmed, None), confirmed("a"), again()],
        ),
        (
            "a new visit after the outcome of an earlier one",
            vec![b(), (over, missed("a")), (over + 1, booked("a", START + DAY))],
            vec![booked("a", START + DAY)],
        ),
        ("put back on", vec![b(), (2, cancelled("a", None)), (3, again())], vec![again(), rescheduled("a", START)]),
    ] {
        let mut views = appointments(before);
        let wanted = rows(&views);
        for (n, fact) in (1..).zip(restated) {
            let name = format!("{name}: {}", fact.type_name());
            assert!(!views.fold(&event(over + 2 * DAY + n, fact)), "{name} is skipped");
            assert_eq!(rows(&views), wanted, "{name}");
        }
    }
}

#[test]
fn an_event_that_differs_from_what_holds_counts() {
    let b = || (1, booked("a", START));
    for (name, events, status, history) in [
        (
            "a booking of a visit that was called off puts it back on",
            vec![b(), (2, cancelled("a", None)), (3, booked("a", START))],
            AppointmentStatus::Booked,
            NONE,
        ),
        (
            "and so does one of a visit that was deleted",
            vec![b(), (2, deleted("a")), (3, booked("a", START))],
            AppointmentStatus::Booked,
            NONE,
        ),
        (
            "another start takes a confirmation back",
            vec![b(), (2, confirmed("a")), (3, booked("a", START + HOUR))],
            AppointmentStatus::Booked,
            NONE,
        ),
        (
            "called off, and off again after it was back on",
            vec![b(), (2, cancelled("a", None)), (3, booked("a", START)), (START - HOUR, cancelled("a", None))],
            AppointmentStatus::Cancelled,
            ClientHistory { late_cancelled: 1, ..NONE },
        ),
        (
            "moved away and back is two moves",
            vec![b(), (2, rescheduled("a", START + DAY)), (3, rescheduled("a", START))],
            AppointmentStatus::Booked,
            ClientHistory { rescheduled: 2, ..NONE },
        ),
        (
            "a later word on who called it off",
            vec![b(), (START - HOUR, cancelled("a", None)), (START, cancelled("a", Some(CancelledBy::Business)))],
            AppointmentStatus::Cancelled,
            ClientHistory { cancelled: 1, ..NONE },
        ),
        (
            "the start of a visit that is over is corrected",
            vec![b(), (START + HOUR, attended("a")), (START + DAY, booked("a", START + HOUR / 2))],
            AppointmentStatus::Attended,
            ClientHistory { attended: 1, ..NONE },
        ),
        (
            "attended, then booked again",
            vec![b(), (START + HOUR, attended("a")), (START + DAY, booked("a", START + 9 * DAY))],
            AppointmentStatus::Booked,
            ClientHistory { attended: 1, ..NONE },
        ),
        (
            "attended, booked again, and attended again",
            vec![
                b(),
                (START + HOUR, attended("a")),
                (START + DAY, booked("a", START + 9 * DAY)),
                (START + 2 * DAY, attended("a")),
                (START + 9 * DAY, attended("a")),
                (START + 10 * DAY, attended("a")),
            ],
            AppointmentStatus::Attended,
            ClientHistory { attended: 2, ..NONE },
        ),
    ] {
        let client = appointments(events).client("c");
        assert_eq!((client.appointments["a"].status, client.history), (status, history), "{name}");
    }
}

#[test]
fn a_restatement_counts_from_the_first_event_in_either_order() {
    let b = (1, booked("a", START));
    let late = START - HOUR;
    for (first, second, history) in [
        ((2, cancelled("a", None)), (late, cancelled("a", None)), ClientHistory { cancelled: 1, ..NONE }),
        ((2, rescheduled("a", START + DAY)), (3, booked("a", START + DAY)), ClientHistory { rescheduled: 1, ..NONE }),
        ((1, booked("a", START)), (2, rescheduled("a", START)), NONE),
        ((START, attended("a")), (START + DAY, attended("a")), ClientHistory { attended: 1, ..NONE }),
    ] {
        let in_order = appointments([b.clone(), first.clone(), second.clone()]).client("c");
        let reversed = appointments([b.clone(), second.clone(), first.clone()]).client("c");
        assert_eq!((in_order.history, reversed.history), (history, history), "{first:?}");
        let holds = |client: &Client| {
            let visit = &client.appointments["a"];
            (visit.status, visit.start.clone(), visit.cancelled_by.map(|named| named.by), visit.booked_at_ms)
        };
        assert_eq!(holds(&in_order), holds(&reversed), "{first:?}");
    }
    let [moved, booked] = [(2, rescheduled("a", START)), (1, booked("a", START))];
    assert_eq!(appointments([moved, booked]).client("c").history, NONE, "the booking shows that it was no move");
}

#[test]
fn a_cancellation_counts_from_the_first_one_unless_the_visit_was_on_in_between() {
    let b = (1, booked("a", START));
    let late = (START - HOUR, cancelled("a", None));
    let early = || (2, cancelled("a", None));
    for between in [(3, booked("a", START + DAY)), (3, deleted("a"))] {
        for order in [[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0], [2, 1, 0]] {
            let events = [early(), between.clone(), late.clone()];
            let client =
                appointments([vec![b.clone()], order.map(|at| events[at].clone()).to_vec()].concat()).client("c");
            let visit = &client.appointments["a"];
            assert_eq!(
                (visit.status, visit.status_at_ms),
                (AppointmentStatus::Cancelled, START - HOUR),
                "{between:?} {order:?}"
            );
        }
    }
}

fn orders<T: Clone>(of: [T; 3]) -> [[T; 3]; 6] {
    let [a, b, c] = of;
    [[&a, &b, &c], [&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]]
        .map(|order| order.map(T::clone))
}

#[test]
fn an_outcome_counts_although_its_booking_was_stated_again_since_in_any_order() {
    for (outcome, status, history) in [
        (attended("a"), AppointmentStatus::Attended, ClientHistory { attended: 1, ..NONE }),
        (missed("a"), AppointmentStatus::Missed, ClientHistory { missed: 1, ..NONE }),
    ] {
        for again in [booked("a", START), rescheduled("a", START)] {
            for order in orders([(1, booked("a", START)), (START + HOUR, outcome.clone()), (START + DAY, again)]) {
                let client = appointments(order.clone()).client("c");
                let visit = &client.appointments["a"];
                assert_eq!((visit.status, visit.placed_at_ms, client.history), (status, 1, history), "{order:?}");
            }
        }
    }
}

#[test]
fn a_cancellation_counts_although_the_booking_was_stated_again_after_the_start_in_any_order() {
    for order in orders([(1, booked("a", START)), (2, cancelled("a", None)), (START + DAY, booked("a", START))]) {
        let client = appointments(order.clone()).client("c");
        let visit = &client.appointments["a"];
        assert_eq!((visit.status, visit.status_at_ms), (AppointmentStatus::Cancelled, 2), "{order:?}");
    }
}

#[test]
fn a_confirmation_counts_although_a_restatement_was_seen_before_the_booking() {
    let client = appointments([(9, booked("a", START)), (1, booked("a", START)), (5, confirmed("a"))]).client("c");
    assert_eq!(client.appointments["a"].status, AppointmentStatus::Confirmed);
}

#[test]
fn a_booking_of_a_visit_whose_start_has_passed_does_not_reinstate_it() {
    for off in [cancelled("a", None), deleted("a")] {
        let mut views = appointments([(1, booked("a", START)), (2, off)]);
        let wanted = rows(&views);
        for again in [booked("a", START), rescheduled("a", START)] {
            assert!(!views.fold(&event(START, again)));
        }
        assert_eq!(rows(&views), wanted);
        views.fold(&event(START, booked("a", START + 1)));
        assert_eq!(
            views.client("c").appointments["a"].status,
            AppointmentStatus::Booked,
            "a start to come reinstates it"
        );
    }
}

#[test]
fn a_sync_that_states_booking_and_cancellation_every_night_makes_no_cancellation_late() {
    let (first, business) = (START - 3 * DAY, Some(CancelledBy::Business));
    for by in [None, business] {
        let mut views = appointments([(1, booked("a", START)), (first, cancelled("a", by))]);
        for night in 0..6 {
            let night_ms = first + 12 * HOUR + night * DAY;
            views.fold(&event(night_ms, booked("a", START)));
            views.fold(&event(night_ms + HOUR, cancelled("a", None)));
            let client = views.client("c");
            let visit = &client.appointments["a"];
            assert_eq!((visit.status, visit.status_at_ms), (AppointmentStatus::Cancelled, first), "night {night}");
            assert_eq!(visit.cancelled_by.map(|named| named.by), by, "night {night}");
            assert_eq!(client.history, ClientHistory { cancelled: 1, ..NONE }, "night {night}");
        }
    }
}

#[test]
fn a_visit_that_was_on_again_for_a_while_is_cancelled_when_that_is_stated_last() {
    let late = START - 2 * HOUR;
    let last = || (late, cancelled("a", None));
    for (name, between) in [
        ("longer than an hour", vec![(late - HOUR - 1, booked("a", START))]),
        ("confirmed in between", vec![(late - 2, booked("a", START)), (late - 1, confirmed("a"))]),
        ("at another start", vec![(late - 1, booked("a", START + 1))]),
    ] {
        let events = [(1, booked("a", START)), (2, cancelled("a", None))].into_iter().chain(between).chain([last()]);
        let client = appointments(events).client("c");
        assert_eq!(client.appointments["a"].status_at_ms, late, "{name}");
        assert_eq!(client.history, ClientHistory { late_cancelled: 1, ..NONE }, "{name}");
    }
}

#[test]
fn who_cancelled_is_taken_from_the_latest_event_that_states_it() {
    let by = |time_ms, by| (time_ms, cancelled("a", by));
    let (client, business) = (Some(CancelledBy::Client), Some(CancelledBy::Business));
    for order in orders([by(2, client), by(3, business), by(5, None)]) {
        let visits = appointments([vec![(1, booked("a", START))], order.to_vec()].concat()).client("c").appointments;
        assert_eq!(visits["a"].cancelled_by.map(|named| named.by), business, "{order:?}");
    }
}

#[test]
fn a_late_restatement_of_a_move_is_no_move() {
    let first = [(1, booked("a", START)), (3, rescheduled("a", START + DAY)), (7, rescheduled("a", START + 2 * DAY))];
    let client = appointments([first.to_vec(), vec![(5, rescheduled("a", START + DAY))]].concat()).client("c");
    assert_eq!(client.history, ClientHistory { rescheduled: 2, ..NONE });
    let mut moved = booking("a", START, None);
    moved.booked_at_ms = Some(1);
    let known = [(5, AppointmentFact::Rescheduled(Box::new(moved)).into()), (1, booked("a", START))];
    assert_eq!(appointments(known).client("c").history, NONE, "the booking shows that it was no move");
}

#[test]
fn an_outcome_that_was_restated_after_a_late_reschedule_stays() {
    let start = START;
    let events = [
        (1, booked("a", start)),
        (start + HOUR, missed("a")),
        (start + 15 * HOUR, missed("a")),
        (5, rescheduled("a", start + 10 * HOUR)),
    ];
    let client = appointments(events).client("c");
    assert_eq!((client.appointments["a"].status, client.history.missed), (AppointmentStatus::Missed, 1));
}

#[test]
fn one_id_for_a_booking_and_its_cancellation_is_two_events() {
    let named = |time_ms, fact| {
        let mut event: Event = event(time_ms, fact);
        event.envelope.id = "booking-1".into();
        event
    };
    let mut views = appointments([]);
    assert!(views.fold(&named(1, booked("a", START))));
    assert!(views.fold(&named(2, cancelled("a", None))));
    assert_eq!(views.client("c").appointments["a"].status, AppointmentStatus::Cancelled);
    for repeated in [named(1, booked("a", START)), named(2, cancelled("a", None))] {
        let (fold, mut client) = (AppointmentFold::default(), views.client("c"));
        let outcome = fold.fold(&mut client, &repeated, RecordPosition { partition: 0, offset: 9 });
        assert_eq!(outcome, FoldOutcome::Skipped(Skip::Repeated));
    }
}

/// Possible events of a few visits of the client `c`, each some hours after the previous one.
fn any_life() -> impl Strategy<Value = Vec<(i64, Fact)>> {
    let one = (1_i64..40, 0_u8..17, 0_u8..3, -2_i64..6, any::<bool>());
    prop::collection::vec(one, 0..40).prop_map(|steps| {
        let mut now_ms = 0;
        let mut happens = |(hours, kind, visit, days, flag): (i64, u8, u8, i64, bool)| {
            now_ms += hours * HOUR;
            let (id, start_ms) = (format!("a{visit}"), (now_ms / DAY + days).max(0) * DAY + 10 * HOUR);
            let mut booking = booking(&id, start_ms, flag.then_some("Europe/Dublin"));
            booking.booked_at_ms = flag.then_some(now_ms - HOUR);
            booking.service = Some(format!("service {}", u8::from(flag)));
            let feedback = Feedback {
                reminder_id: format!("r{days}"),
                appointment_id: id.clone(),
                client_id: "c".into(),
                channel: flag.then_some(Channel::Sms),
                reason: None,
            };
            let fact = match kind {
                0..=4 => AppointmentFact::Booked(Box::new(booking)).into(),
                5..=6 => AppointmentFact::Rescheduled(Box::new(booking)).into(),
                7 => confirmed(&id),
                8..=9 => attended(&id),
                10..=11 => missed(&id),
                12 => deleted(&id),
                13 => AppointmentFact::ReminderFailed(Box::new(feedback)).into(),
                14 => AppointmentFact::ReminderConfirmed(Box::new(feedback)).into(),
                15 if days == 0 => AppointmentFact::ClientErased(ClientErasure { client_id: "c".into() }).into(),
                15 => profile(),
                _ => cancelled(&id, flag.then_some(CancelledBy::Business)),
            };
            (now_ms, fact)
        };
        steps.into_iter().map(&mut happens).collect()
    })
}

/// Every event that restates the current state at `now_ms`, as a nightly sync might send them.
fn what_holds(client: &Client, now_ms: i64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (id, visit) in &client.appointments {
        let by = visit.cancelled_by.map(|named| named.by);
        facts.extend(match visit.status {
            AppointmentStatus::Booked => None,
            AppointmentStatus::Confirmed => Some(confirmed(id)),
            AppointmentStatus::Attended => Some(attended(id)),
            AppointmentStatus::Missed => Some(missed(id)),
            AppointmentStatus::Deleted => Some(deleted(id)),
            AppointmentStatus::Cancelled => Some(cancelled(id, by)),
        });
        let is_off = matches!(visit.status, AppointmentStatus::Cancelled | AppointmentStatus::Deleted);
        // A booking of an upcoming cancelled visit reinstates it.
        if let Some(start) = visit.start.as_ref().filter(|start| !is_off || start.at_ms <= now_ms) {
            let own = |zone| Box::new(booking(id, start.at_ms, zone));
            facts.extend([
                AppointmentFact::Booked(own(None)).into(),
                AppointmentFact::Rescheduled(own(Some(start.zone.as_str()))).into(),
            ]);
        }
        for receipt in &visit.receipts {
            let feedback = Box::new(Feedback {
                reminder_id: receipt.reminder_id.clone(),
                appointment_id: id.clone(),
                client_id: "c".into(),
                channel: receipt.channel,
                reason: None,
            });
            facts.extend(match receipt.received {
                foretell_domain::view::client::Received::Failed => {
                    Some(AppointmentFact::ReminderFailed(feedback).into())
                }
                foretell_domain::view::client::Received::Delivered => {
                    Some(AppointmentFact::ReminderDelivered(feedback).into())
                }
                // It also confirms, which may no longer apply.
                foretell_domain::view::client::Received::Confirmed => None,
            });
        }
    }
    facts.extend(client.language.is_some().then(profile));
    facts
}

/// Whether the event states an outcome that the visit cannot have yet.
fn is_impossible(client: &Client, event: &Event) -> bool {
    let outcome =
        AppointmentFold::default().fold(&mut client.clone(), event, RecordPosition { partition: 0, offset: 0 });
    outcome == FoldOutcome::Skipped(Skip::Impossible)
}

proptest! {
    #[test]
    fn restatements_within_a_history_change_no_row(life in any_life(), asleep in prop::collection::vec(any::<bool>(), 40)) {
        let (mut plain, mut synced) = (appointments([]), appointments([]));
        for ((time_ms, fact), is_asleep) in life.into_iter().zip(asleep) {
            let event_of_both = event(time_ms, fact);
            plain.fold(&event_of_both);
            synced.fold(&event_of_both);
            for (n, restated) in (1..).zip(what_holds(&synced.client("c"), time_ms)).filter(|_| !is_asleep) {
                let name = format!("{restated:?}");
                prop_assert!(!synced.fold(&event(time_ms + n, restated)), "{}", name);
            }
        }
        prop_assert_eq!(rows(&synced), rows(&plain));
    }

    #[test]
    fn outcomes_and_confirmations_count_the_same_after_restatements_of_their_bookings(life in any_life()) {
        let (mut plain, mut synced) = (appointments([]), appointments([]));
        for (time_ms, fact) in life {
            let is_late = matches!(fact, Fact::Appointment(AppointmentFact::Attended(_) | AppointmentFact::Missed(_) | AppointmentFact::Confirmed(_)));
            let is_booking = |fact: &Fact| matches!(fact, Fact::Appointment(AppointmentFact::Booked(_) | AppointmentFact::Rescheduled(_)));
            let bookings = what_holds(&synced.client("c"), time_ms).into_iter().filter(|fact| is_late && is_booking(fact));
            for (n, booking) in (1..).zip(bookings) {
                synced.fold(&event(time_ms + n, booking));
            }
            let event_of_both = event(time_ms, fact);
            plain.fold(&event_of_both);
            synced.fold(&event_of_both);
        }
        prop_assert_eq!(rows(&synced), rows(&plain));
    }

    #[test]
    fn replaying_a_whole_history_changes_no_row(life in any_life()) {
        let mut views = appointments([]);
        // An outcome that a visit could not have yet is not remembered: sent again after a move, it counts.
        let mut remembered = Vec::new();
        for (time_ms, fact) in life {
            let event = event(time_ms, fact);
            if !is_impossible(&views.client("c"), &event) {
                views.fold(&event);
                remembered.push(event);
            }
        }
        let wanted = rows(&views);
        for event in &remembered {
            views.fold(event);
        }
        prop_assert_eq!(rows(&views), wanted);
    }
}
