//! What was known of a visit, and its outcome: snapshots contain nothing from the future, samples follow outcomes.

use crate::build::*;
use foretell_domain::address::View;
use foretell_domain::view::client::attribute::{Attributes, Value, hash};
use foretell_domain::view::client::snapshot::Snapshot;
use foretell_domain::view::lead::Outcomes;
use foretell_domain::view::outcome::{self, DayOutcomes, Sample};
use foretell_domain::view::{Aggregate, AggregateView, Limits, Merge};
use foretell_events::Fact;
use foretell_events::appointment::{AppointmentFact, ClientErasure, FieldUpdate, Scalar};
use proptest::prelude::*;
use std::collections::BTreeMap;

const START: i64 = 1_000 * DAY + 9 * HOUR;

fn row(views: &Views<foretell_domain::view::client::AppointmentFold>, day: i64) -> DayOutcomes {
    let mut all = DayOutcomes::default();
    for partial in views.rows.partials(&outcome::row_key("t", day)) {
        let Aggregate::Outcome(partial) = partial else { panic!("an outcome row") };
        all.merge(partial);
    }
    all
}

type Views<F> = crate::build::Views<F>;

fn with(id: &str, starts_at_ms: i64, attributes: &[(&str, Scalar)]) -> Fact {
    let mut booking = booking(id, starts_at_ms, Some("UTC"));
    booking.attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    booking.service = Some("cut".into());
    AppointmentFact::Booked(Box::new(booking)).into()
}

fn snapshot(events: Vec<(i64, Fact)>, id: &str) -> Snapshot {
    *appointments(events).client("c").appointments[id].snapshot.clone().unwrap()
}

#[test]
fn a_snapshot_contains_what_was_known_when_the_visit_was_placed() {
    let past = |id: &'static str, day: i64, missed_it: bool| {
        let at = START - day * DAY;
        let outcome = if missed_it { missed(id) } else { attended(id) };
        [(at - 3 * DAY, booked(id, at)), (at + HOUR, outcome)]
    };
    let mut before = [past("kept", 30, false), past("missed", 20, true)].concat();
    before.extend([
        (START - 50 * DAY, booked("silent", START - 40 * DAY)),
        (START - 19 * DAY, booked("open", START + 5 * DAY)),
        (START - 18 * DAY, booked("same", START + HOUR)),
        (START - 17 * DAY, booked("early", START + 9 * DAY)),
        (START - 17 * DAY, rescheduled("early", START + 8 * DAY)),
        (START - 16 * DAY, cancelled("early", None)),
        (START - 15 * DAY, booked("gone", START + HOUR)),
        (START - 15 * DAY, deleted("gone")),
    ]);
    let mut events = before.clone();
    events.push((START - 10 * DAY + 5 * HOUR, booked("a", START)));
    let got = snapshot(events.clone(), "a");
    let mut visits = [0; 12];
    visits[3] = 2;
    let wanted = Snapshot {
        lead_days: 10,
        booking_hour: 14,
        weekday: u8::try_from((START / DAY + 3) % 7).unwrap(),
        visits,
        missed: 1,
        missed_days_ago: Some(20),
        same_day: 1,
        open: 1,
        unresolved: 1,
        cancelled: 1,
        moved_others: 1,
        ..Snapshot::default()
    };
    assert_eq!(got, wanted);
    // Later events change nothing in it.
    events.extend(past("later", 5, true));
    events.extend([(START - 2 * DAY, attended("same")), (START - DAY, confirmed("a"))]);
    assert_eq!(snapshot(events.clone(), "a"), wanted);
    // After a move it is another visit, of which more is known.
    events.push((START - DAY + HOUR, rescheduled("a", START + DAY)));
    let moved = snapshot(events, "a");
    assert_eq!((moved.missed, moved.missed_days_ago, moved.moved, moved.lead_days), (2, Some(6), 1, 11));
}

#[test]
fn a_snapshot_at_another_instant_sees_the_row_as_it_is_then() {
    let events = [(1, booked("a", START)), (2, booked("b", START - 3 * DAY)), (3, confirmed("a"))];
    let client = appointments(events).client("c");
    let subject = client.appointments["a"].subject("a").unwrap();
    let at = |now_ms| Snapshot::of(Some(&client), subject, now_ms);
    assert_eq!((at(4).open, at(4).unresolved, at(4).is_confirmed), (1, 0, true));
    let (open, late) = (at(START - 2 * DAY), at(START - 2 * DAY + 1));
    assert_eq!((open.open, open.unresolved), (1, 0), "a day after its start it may still be reported");
    assert_eq!((late.open, late.unresolved), (0, 1));
    assert_eq!(Snapshot::of(None, subject, 4).visits, [0; 12], "a client never seen");
}

#[test]
fn attributes_are_those_known_by_then() {
    let stated = |age: f64, town: &str| {
        let attributes =
            BTreeMap::from([("age".into(), Scalar::Number(age)), ("town".into(), Scalar::Text(town.into()))]);
        updated(|update| update.attributes = FieldUpdate::Set(attributes))
    };
    let views = appointments([
        (5, stated(30.0, "north")),
        (4, stated(99.0, "older")),
        (6, with("a", START, &[("age", Scalar::Number(31.0)), ("first", Scalar::Boolean(true))])),
        (7, stated(40.0, "south")),
    ]);
    let client = views.client("c");
    let known = client.appointments["a"].snapshot.clone().unwrap();
    let all = known.of_booking.over(&known.of_client);
    for (name, value) in [
        ("age", Value::Whole(31)),
        ("first", Value::Whole(1)),
        ("town", Value::Text(hash("north"))),
        ("service", Value::Text(hash("cut"))),
    ] {
        assert_eq!(all.get(hash(name)), Some(value), "{name}");
    }
    assert_eq!(client.attributes.get(hash("town")), Some(Value::Text(hash("south"))));
    let cleared =
        appointments([(5, stated(30.0, "north")), (6, updated(|update| update.attributes = FieldUpdate::Clear))]);
    assert_eq!(cleared.client("c").attributes, Attributes::default());
}

#[test]
fn a_sample_follows_its_outcome() {
    let day = START / DAY;
    let b = || (1, with("a", START, &[("age", Scalar::Number(30.0))]));
    for (name, events, kept) in [
        ("no outcome", vec![b()], None),
        ("missed", vec![b(), (START, missed("a"))], Some(true)),
        ("corrected", vec![b(), (START, missed("a")), (START + 1, attended("a"))], Some(false)),
        ("deleted", vec![b(), (START, missed("a")), (START + 1, deleted("a"))], None),
        ("cancelled", vec![b(), (START, missed("a")), (START + 1, cancelled("a", None))], None),
        ("never placed", vec![(START, missed("a"))], None),
        ("noted, then placed", vec![(START, missed("a")), b()], Some(true)),
        (
            "a new visit of the same id",
            vec![b(), (START, missed("a")), (START + 1, rescheduled("a", START + DAY))],
            Some(true),
        ),
    ] {
        let row = row(&appointments(events), day);
        let got = row.samples.get(&outcome::hash("c", "a"));
        assert_eq!(got.map(|sample| sample.missed), kept, "{name}");
        assert_eq!(row.seen.total().visits(), i64::from(kept.is_some()), "{name}");
        if let Some(Sample { snapshot, .. }) = got.filter(|_| name != "noted, then placed") {
            assert_eq!(snapshot.of_booking.get(hash("age")), Some(Value::Whole(30)), "{name}");
            assert_eq!(snapshot.known_visits(), 0, "{name}: its own outcome was not known");
        }
    }
}

#[test]
fn an_erased_client_leaves_counts_and_no_samples() {
    let erased = || AppointmentFact::ClientErased(ClientErasure { client_id: "c".into() }).into();
    let missed_once = [(1, booked("a", START)), (START, missed("a"))];
    let again = [(START + 1, rescheduled("a", START + 9 * DAY))];
    // As many more as a row can list, of other days.
    let many = (1..=40).flat_map(|visit| {
        let at = START + visit * 9 * DAY;
        [(at, missed("a")), (at + 1, rescheduled("a", at + 9 * DAY))]
    });
    let many: Vec<_> = again.iter().cloned().chain(many).collect();
    for (name, between) in [("at once", &[][..]), ("booked again under the same id", &again), ("often", &many)] {
        let end = between.last().map_or(START, |(at, _)| *at) + 1;
        let events = missed_once.iter().chain(between).cloned().chain([(end, erased())]);
        let views = appointments(events.collect::<Vec<_>>());
        let row = row(&views, START / DAY);
        assert_eq!((row.seen.total().missed, row.samples.len()), (1, 0), "{name}");
    }
}

#[test]
fn a_full_day_keeps_an_even_draw() {
    let limits = Limits { outcome_samples_max: 20, ..Limits::default() };
    let events = (0..200).flat_map(|n| {
        let id = format!("a{n}");
        [(n, booked(&id, START)), (START + n, if n % 4 == 0 { missed(&id) } else { attended(&id) })]
    });
    let limits = Limits { client_appointments_max: 500, ..limits };
    let row = row(&limited(limits, events), START / DAY);
    assert_eq!(row.seen.total(), Outcomes { attended: 150, missed: 50 });
    let mut hashes: Vec<_> = (0..200).map(|n| outcome::hash("c", &format!("a{n}"))).collect();
    hashes.sort_unstable();
    assert!(row.samples.keys().eq(&hashes[..20]), "the smallest hashes");
}

fn any_change() -> impl Strategy<Value = (u64, bool)> {
    (0_u64..300, any::<bool>())
}

fn day_of(changes: &[(u64, bool)], part: u64, samples_max: usize) -> DayOutcomes {
    let limits = Limits { outcome_samples_max: samples_max, ..Limits::default() };
    let mut row = DayOutcomes::default();
    let unique: BTreeMap<_, _> = changes.iter().map(|(visit, missed)| (visit * 3 + part, *missed)).collect();
    for (visit, missed) in unique {
        let sample = Sample { snapshot: Snapshot::default(), missed };
        row.apply(&vec![outcome::OutcomeChange::Put { visit, sample }], &limits);
    }
    row
}

proptest! {
    #[test]
    fn partials_merge_in_any_order(
        a in prop::collection::vec(any_change(), 0..40),
        b in prop::collection::vec(any_change(), 0..40),
        c in prop::collection::vec(any_change(), 0..40),
    ) {
        let parts = [day_of(&a, 0, 20), day_of(&b, 1, 20), day_of(&c, 2, 20)];
        crate::merge::agrees(&parts, DayOutcomes::merge)?;
        let mut merged = parts[0].clone();
        merged.merge(&parts[1]);
        prop_assert!(merged.samples.keys().all(|visit| *visit < merged.below));
    }

    #[test]
    fn an_event_and_its_correction_leave_what_was_there(
        others in prop::collection::vec((0_u8..6, any::<bool>()), 0..12),
        missed_first in any::<bool>(),
    ) {
        let mut events: Vec<(i64, Fact)> = Vec::new();
        for (n, (id, missed_it)) in others.into_iter().enumerate() {
            let (id, at) = (format!("o{id}"), START + 4 * i64::try_from(n).unwrap() * HOUR);
            events.push((at, booked(&id, at + HOUR)));
            events.push((at + 2 * HOUR, if missed_it { missed(&id) } else { attended(&id) }));
        }
        let outcomes = |views: &Views<_>| views.shared().into_iter().filter(|((key, _), _)| key.view == View::Outcome)
            .collect::<BTreeMap<_, _>>();
        let before = outcomes(&appointments(events.clone()));
        events.push((START, booked("a", START)));
        events.push((START + 1, if missed_first { missed("a") } else { attended("a") }));
        events.push((START + 2, if missed_first { attended("a") } else { missed("a") }));
        events.push((START + 3, deleted("a")));
        prop_assert_eq!(outcomes(&appointments(events)), before);
    }
}
