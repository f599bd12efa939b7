//! A client's row, and the aggregate rows that it contributes to.

use crate::build::*;
use foretell_domain::address::{Bucket, RowKey, View};
use foretell_domain::view::client::{AppointmentStatus, Client, ClientHistory};
use foretell_domain::view::lead::{self, Lead};
use foretell_domain::view::lookup::{self, Lookup};
use foretell_domain::view::{Aggregate, Limits, Merge};
use foretell_events::appointment::{
    AppointmentFact, CancelledBy, Channel, ClientErasure, Consent, FieldUpdate, QuietHours, StartsAt,
};
use foretell_events::reminder::Request;
use foretell_events::{Fact, key};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const START: i64 = 1_000 * DAY + 9 * HOUR;
const NONE: ClientHistory = ClientHistory { attended: 0, missed: 0, cancelled: 0, late_cancelled: 0, rescheduled: 0 };

type Views = crate::build::Views<foretell_domain::view::client::AppointmentFold>;

fn requested(id: &str) -> Fact {
    let (appointment_id, client_id) = (id.into(), "c".into());
    AppointmentFact::ReminderRequested(Box::new(Request {
        appointment_id,
        client_id,
        channels: vec![],
        template: None,
        reason: None,
        idempotency_digest: None,
    }))
    .into()
}

fn erased() -> Fact {
    AppointmentFact::ClientErased(ClientErasure { client_id: "c".into() }).into()
}

fn history(events: impl IntoIterator<Item = (i64, Fact)>) -> ClientHistory {
    appointments(events).client("c").history
}

fn status(events: impl IntoIterator<Item = (i64, Fact)>) -> AppointmentStatus {
    appointments(events).client("c").appointments["a"].status
}

fn leads(views: &Views) -> Lead {
    let mut all = Lead::default();
    for (_, _, row) in views.aggregates(View::Lead) {
        let Aggregate::Lead(partial) = row else { panic!("a lead row") };
        all.merge(&partial);
    }
    all
}

fn holder(views: &Views, id: &str) -> Option<String> {
    let key = lookup::row_key("t", id);
    let mut all = Lookup::default();
    for partial in views.rows.partials(&key) {
        let Aggregate::Lookup(partial) = partial else { panic!("a lookup row") };
        all.merge(partial);
    }
    all.client_id().map(str::to_owned)
}

fn is_start(bucket: Bucket) -> bool {
    matches!(bucket, Bucket::Starts { .. })
}

fn is_request(bucket: Bucket) -> bool {
    matches!(bucket, Bucket::Requests { .. })
}

/// The entries of the agenda: bucket, row, appointment, count.
fn entries(views: &Views, of_kind: fn(Bucket) -> bool) -> Vec<(i64, String, String, i32)> {
    let mut all = Vec::new();
    for (RowKey { bucket, key, .. }, _, row) in views.aggregates(View::Agenda) {
        let Aggregate::Agenda(row) = row else { panic!("an agenda row") };
        let entries = row.entries.into_iter().filter(|_| of_kind(Bucket::unpack(bucket)));
        all.extend(entries.map(|(entry, count)| (bucket, key.clone(), entry, count)));
    }
    all
}

#[test]
fn each_event_changes_the_history_by_its_rule() {
    let b = || (1, booked("a", START));
    let late = START - 23 * HOUR;
    for (name, events, wanted) in [
        ("a booking counts nothing", vec![b()], NONE),
        ("attended", vec![b(), (START + 1, attended("a"))], ClientHistory { attended: 1, ..NONE }),
        ("missed", vec![b(), (START + 1, missed("a"))], ClientHistory { missed: 1, ..NONE }),
        ("off in time", vec![b(), (START - 25 * HOUR, cancelled("a", None))], ClientHistory { cancelled: 1, ..NONE }),
        ("exactly 24 h", vec![b(), (START - 24 * HOUR, cancelled("a", None))], ClientHistory { cancelled: 1, ..NONE }),
        (
            "within",
            vec![b(), (START - 24 * HOUR + 1, cancelled("a", None))],
            ClientHistory { late_cancelled: 1, ..NONE },
        ),
        (
            "late, by the business",
            vec![b(), (late, cancelled("a", Some(CancelledBy::Business)))],
            ClientHistory { cancelled: 1, ..NONE },
        ),
        (
            "late, after the start",
            vec![b(), (START + 1, cancelled("a", None))],
            ClientHistory { late_cancelled: 1, ..NONE },
        ),
        ("moved", vec![b(), (2, rescheduled("a", START + DAY))], ClientHistory { rescheduled: 1, ..NONE }),
        ("moved without booking", vec![(2, rescheduled("a", START + DAY))], ClientHistory { rescheduled: 1, ..NONE }),
        (
            "moved late makes a cancellation early",
            vec![b(), (2, rescheduled("a", START + DAY)), (START - HOUR, cancelled("a", None))],
            ClientHistory { rescheduled: 1, cancelled: 1, ..NONE },
        ),
        (
            "corrected",
            vec![b(), (START + 1, missed("a")), (START + 2, attended("a"))],
            ClientHistory { attended: 1, ..NONE },
        ),
        (
            "older correction",
            vec![b(), (START + 2, missed("a")), (START + 1, attended("a"))],
            ClientHistory { missed: 1, ..NONE },
        ),
        (
            "of one instant, the last",
            vec![b(), (START + 9, missed("a")), (START + 9, attended("a"))],
            ClientHistory { attended: 1, ..NONE },
        ),
        (
            "deleted",
            vec![b(), (2, rescheduled("a", START + 1)), (START + 3, missed("a")), (START + 4, deleted("a"))],
            NONE,
        ),
        ("never placed", vec![(5, missed("a"))], NONE),
        ("noted, then placed", vec![(START, missed("a")), b()], ClientHistory { missed: 1, ..NONE }),
        ("noted, and a later booking", vec![(5, missed("a")), (6, booked("a", START))], NONE),
        (
            "a new visit leaves the old outcome",
            vec![b(), (START, missed("a")), (START + 1, rescheduled("a", START + DAY)), (START + DAY, attended("a"))],
            ClientHistory { missed: 1, attended: 1, rescheduled: 1, ..NONE },
        ),
        (
            "an outcome at the instant of its booking",
            vec![(START, attended("a")), (START, booked("a", START))],
            ClientHistory { attended: 1, ..NONE },
        ),
        ("booked again", vec![b(), (2, cancelled("a", None)), (3, booked("a", START))], NONE),
        ("confirmed", vec![b(), (2, confirmed("a"))], NONE),
        ("erased", vec![b(), (START, missed("a")), (START + 1, erased())], NONE),
    ] {
        assert_eq!(history(events), wanted, "{name}");
    }
}

#[test]
fn the_later_of_two_words_about_a_visit_decides_in_either_order() {
    let by = Some(CancelledBy::Client);
    for (first, second, wanted) in [
        (attended("a"), missed("a"), AppointmentStatus::Missed),
        (missed("a"), attended("a"), AppointmentStatus::Attended),
        (confirmed("a"), cancelled("a", by), AppointmentStatus::Cancelled),
        (cancelled("a", by), confirmed("a"), AppointmentStatus::Cancelled),
        (attended("a"), confirmed("a"), AppointmentStatus::Attended),
        (missed("a"), confirmed("a"), AppointmentStatus::Missed),
        (deleted("a"), confirmed("a"), AppointmentStatus::Deleted),
        (confirmed("a"), rescheduled("a", START + DAY), AppointmentStatus::Booked),
        (cancelled("a", by), rescheduled("a", START + DAY), AppointmentStatus::Booked),
        (deleted("a"), booked("a", START + DAY), AppointmentStatus::Booked),
        (booked("a", START), deleted("a"), AppointmentStatus::Deleted),
    ] {
        let name = format!("{} then {}", first.type_name(), second.type_name());
        let b = (1, booked("a", START));
        assert_eq!(status([b.clone(), (START, first.clone()), (START + 1, second.clone())]), wanted, "{name}");
        assert_eq!(status([b, (START + 1, second), (START, first)]), wanted, "{name}, out of order");
    }
}

#[test]
fn a_confirmation_does_not_shield_a_rebooked_visit_from_nothing_but_older_words() {
    let b = |at| (at, booked("a", START));
    assert_eq!(status([b(1), b(4), (5, confirmed("a")), (3, cancelled("a", None))]), AppointmentStatus::Confirmed);
    assert_eq!(status([b(1), (5, confirmed("a")), (3, cancelled("a", None))]), AppointmentStatus::Cancelled);
}

#[test]
fn the_later_placement_decides_the_start_in_either_order() {
    let events = [(1, booked("a", START)), (2, rescheduled("a", START + DAY)), (3, rescheduled("a", START + 2 * DAY))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let client = appointments(order.map(|at| events[at].clone())).client("c");
        let appointment = &client.appointments["a"];
        assert_eq!(appointment.start.as_ref().unwrap().at_ms, START + 2 * DAY, "{order:?}");
        assert_eq!((appointment.rescheduled, appointment.booked_at_ms), (2, 1), "{order:?}");
    }
}

#[test]
fn a_start_finds_its_zone() {
    let in_zone = |zone: Option<&str>| AppointmentFact::Booked(Box::new(booking("a", START, zone))).into();
    let lives_in = |zone: &str| updated(|update| update.time_zone = FieldUpdate::Set(zone.into()));
    let local = |mut fact: Fact, text: &str, zone: &str| {
        if let Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking)) = &mut fact {
            booking.starts_at = StartsAt::Local { local: text.parse().unwrap(), zone: zone.into() };
        }
        fact
    };
    let moved = || rescheduled("a", START + DAY);
    let (dublin, paulo) = ("Europe/Dublin", "America/Sao_Paulo");
    for (name, events, wanted) in [
        ("named", vec![(1, lives_in(paulo)), (2, in_zone(Some(dublin)))], dublin),
        ("the client's", vec![(1, lives_in(paulo)), (2, in_zone(None))], paulo),
        ("the tenant's", vec![(2, in_zone(None))], "UTC"),
        ("a move keeps it", vec![(1, lives_in(paulo)), (2, in_zone(Some(dublin))), (3, moved())], dublin),
        (
            "a move of a visit that is over too",
            vec![(2, in_zone(Some(dublin))), (START, missed("a")), (START + 1, moved())],
            dublin,
        ),
        (
            "a move names one",
            vec![(2, in_zone(Some(dublin))), (3, local(moved(), "2026-01-05T10:00:00", paulo))],
            paulo,
        ),
        ("a move of an unknown visit", vec![(1, lives_in(paulo)), (2, moved())], paulo),
    ] {
        let client = appointments(events).client("c");
        assert_eq!(client.appointments["a"].start.as_ref().unwrap().zone, wanted, "{name}");
    }
}

#[test]
fn several_visits_of_one_day_count_once_for_the_tenant_and_each_in_the_history() {
    let day = |id: &str, hour: i64| (DAY, booked(id, 1_000 * DAY + hour * HOUR));
    let events = [day("a", 9), day("b", 11), day("d", 13)];
    let over = START + DAY;
    let bucket = usize::from(lead::bucket(999));
    for (name, more, wanted) in [
        ("all missed", vec![(over, missed("a")), (over, missed("b")), (over, missed("d"))], (0, 1)),
        ("one attended", vec![(over, missed("a")), (over, attended("b")), (over, missed("d"))], (1, 0)),
        ("corrected back", vec![(over, attended("a")), (over, missed("b")), (over + 1, missed("a"))], (0, 1)),
        ("deleted", vec![(over, attended("a")), (over, missed("b")), (over + 1, deleted("a"))], (0, 1)),
        ("all deleted", vec![(over, attended("a")), (over + 1, deleted("a"))], (0, 0)),
    ] {
        let views = appointments(events.iter().cloned().chain(more));
        let (total, client) = (leads(&views).buckets, views.client("c"));
        assert_eq!((total[bucket].attended, total[bucket].missed), wanted, "{name}");
        assert_eq!(client.days, total, "{name}: the only client is the tenant");
    }
}

#[test]
fn a_day_counts_once_also_when_one_of_its_visits_is_booked_again_or_forgotten() {
    let day = |id: &str, hour: i64| (DAY, booked(id, 1_000 * DAY + hour * HOUR));
    let over = START + DAY;
    let bucket = usize::from(lead::bucket(999));
    let again = |at: i64| (at, booked("a", START + 9 * DAY));
    for (name, events, wanted) in [
        ("both missed, then one booked again", vec![(over, missed("a")), (over, missed("b")), again(over + 1)], (0, 1)),
        ("the other one is missed later", vec![(over, missed("a")), again(over + 1), (over + 2, missed("b"))], (0, 1)),
        ("the other one came", vec![(over, missed("a")), again(over + 1), (over + 2, attended("b"))], (1, 0)),
        (
            "the other one came, and did not",
            vec![(over, missed("a")), again(over + 1), (over + 2, attended("b")), (over + 3, missed("b"))],
            (0, 1),
        ),
        (
            "the other one is deleted",
            vec![(over, missed("b")), (over, missed("a")), again(over + 1), (over + 2, deleted("b"))],
            (0, 1),
        ),
    ] {
        let views = appointments([day("a", 9), day("b", 11)].into_iter().chain(events));
        let total = leads(&views).buckets;
        assert_eq!((total[bucket].attended, total[bucket].missed), wanted, "{name}");
        assert_eq!(views.client("c").days, total, "{name}: the only client is the tenant");
    }
}

#[test]
fn days_are_those_of_the_visits_zone() {
    // 23:30 and 00:30 in Dublin are one UTC day, and two days there.
    let in_dublin =
        |id: &str, text: &str| AppointmentFact::Booked(Box::new(booking(id, at(text), Some("Europe/Dublin")))).into();
    let over = at("2026-07-03T00:00:00Z");
    let views = appointments([
        (at("2026-07-01T12:00:00Z"), in_dublin("a", "2026-07-01T22:30:00Z")),
        (at("2026-07-01T12:00:00Z"), in_dublin("b", "2026-07-01T23:30:00Z")),
        (over, missed("a")),
        (over, missed("b")),
    ]);
    let total = leads(&views);
    assert_eq!((total.buckets[0].missed, total.buckets[1].missed), (1, 1), "leads of 0 and of 1 day");
}

#[test]
fn an_event_and_its_correction_leave_the_shared_rows_as_they_were() {
    let b = || (1, booked("a", START));
    let over = START + HOUR;
    for (name, before, more) in [
        (
            "missed, attended",
            vec![b(), (over, attended("a"))],
            vec![(over + 1, missed("a")), (over + 2, attended("a"))],
        ),
        ("booked, deleted", vec![], vec![b(), (2, deleted("a"))]),
        (
            "cancelled, booked again",
            vec![b()],
            vec![(2, cancelled("a", None)), (1, booked("a", START)), (2, booked("a", START))],
        ),
        (
            "moved and back, by the same hand",
            vec![(3, booked("a", START))],
            vec![(3, rescheduled("a", START + DAY)), (3, rescheduled("a", START))],
        ),
        ("confirmed", vec![b()], vec![(2, confirmed("a"))]),
        ("booked, requested, erased", vec![], vec![b(), (2, requested("a")), (3, requested("a")), (4, erased())]),
    ] {
        let then = appointments(before.clone()).shared();
        let now = appointments(before.into_iter().chain(more)).shared();
        let placed = |rows: BTreeMap<(RowKey, u32), Vec<u8>>| -> BTreeMap<_, _> {
            // The look-up also contains when the claim was made; the owner of the visit is compared elsewhere.
            rows.into_iter()
                .filter(|((key, _), _)| name != "cancelled, booked again" || key.view != View::Lookup)
                .collect()
        };
        assert_eq!(placed(then), placed(now), "{name}");
    }
}

#[test]
fn a_visit_that_is_moved_to_another_client_is_found_there() {
    let of = |client: &str| {
        let mut booking = booking("a", START, Some("UTC"));
        booking.client_id = client.into();
        AppointmentFact::Booked(Box::new(booking)).into()
    };
    let other = (0..).map(|n| format!("c{n}")).find(|id| partition(id) != partition("c")).unwrap();
    let deleted = |client: &str| AppointmentFact::Deleted(visit("a", client)).into();
    for (name, events, wanted) in [
        ("deleted, booked", vec![(1, of("c")), (2, deleted("c")), (3, of(&other))], Some(other.clone())),
        ("booked, deleted", vec![(1, of("c")), (3, of(&other)), (2, deleted("c"))], Some(other.clone())),
        ("the new one first", vec![(3, of(&other)), (1, of("c")), (2, deleted("c"))], Some(other.clone())),
        ("never deleted", vec![(3, of(&other)), (1, of("c"))], Some(other.clone())),
        ("and back", vec![(1, of("c")), (3, of(&other)), (4, deleted(&other))], Some("c".into())),
        ("gone from both", vec![(1, of("c")), (2, deleted("c")), (3, of(&other)), (4, deleted(&other))], None),
        ("at one instant the smaller id", vec![(3, of(&other)), (3, of("c"))], Some("c".into())),
    ] {
        let views = appointments(events);
        assert_eq!(holder(&views, "a"), wanted, "{name}");
    }
    let both = appointments([(1, of("c")), (3, of(&other))]);
    assert_eq!(both.rows.partials(&lookup::row_key("t", "a")).count(), 2, "partials of two partitions were merged");
}

fn partition(client_id: &str) -> u32 {
    key::partition(key::of("t", client_id).as_bytes(), PARTITIONS)
}

#[test]
fn a_forgotten_visit_leaves_its_counts_and_no_entries() {
    let limits = Limits { client_appointments_max: 3, ..Limits::default() };
    let events = [
        (1, booked("over", START)),
        (START, missed("over")),
        (START + 1, requested("over")),
        (START + DAY, booked("late", START + 9 * DAY)),
        (START + DAY, booked("soon", START + 2 * DAY)),
        (START + DAY, booked("new", START + 3 * DAY)),
    ];
    let views = limited(limits.clone(), events.clone());
    let client = views.client("c");
    assert_eq!(client.appointments.keys().collect::<Vec<_>>(), ["late", "new", "soon"]);
    assert_eq!((client.history.missed, leads(&views).total().missed), (1, 1), "the counts stay");
    assert_eq!(client.last_missed_ms(), Some(START));
    assert_eq!((holder(&views, "over"), entries(&views, is_request)), (None, vec![]));
    assert_eq!(entries(&views, is_start).len(), 3);

    // A further event about it counts nothing.
    let more = [(START + 2 * DAY, attended("over"))];
    let client = limited(limits, events.into_iter().chain(more)).client("c");
    assert_eq!((client.history.missed, client.history.attended), (1, 0));
}

#[test]
fn an_appointment_id_of_a_group_finds_a_client_whose_visit_is_on() {
    let of = |client: &str, mut booking: foretell_events::appointment::Booking| {
        booking.client_id = client.into();
        AppointmentFact::Booked(Box::new(booking)).into()
    };
    let seat = |client: &str| of(client, booking("a", START, Some("UTC")));
    let off = |client: &str| {
        AppointmentFact::Cancelled(foretell_events::appointment::Cancellation {
            appointment_id: "a".into(),
            client_id: client.into(),
            reason: None,
            by: None,
        })
        .into()
    };
    let came = |client: &str| AppointmentFact::Attended(visit("a", client)).into();
    for (name, events, meant) in [
        ("the later one is off", vec![(1, seat("c0")), (2, seat("c1")), (3, off("c1"))], "c0"),
        ("the earlier one is off", vec![(1, seat("c0")), (2, seat("c1")), (3, off("c0"))], "c1"),
        ("both are on: the later booking", vec![(2, seat("c0")), (1, seat("c1"))], "c0"),
        ("both are off", vec![(2, seat("c0")), (1, seat("c1")), (3, off("c0")), (4, off("c1"))], "c0"),
        ("back on", vec![(1, seat("c0")), (2, seat("c1")), (3, off("c1")), (4, seat("c1"))], "c1"),
        ("one came", vec![(1, seat("c0")), (2, seat("c1")), (3, off("c1")), (START, came("c0"))], "c0"),
        ("one came, one is on: the later booking", vec![(1, seat("c0")), (2, seat("c1")), (START, came("c1"))], "c1"),
        ("repeated", vec![(1, seat("c0")), (2, seat("c1")), (3, seat("c0"))], "c1"),
    ] {
        assert_eq!(holder(&appointments(events), "a").as_deref(), Some(meant), "{name}");
    }
}

#[test]
fn a_start_is_what_clocks_show() {
    let local = |text: &str, zone: &str| {
        let mut booking = booking("a", 0, None);
        booking.starts_at = StartsAt::Local { local: text.parse().unwrap(), zone: zone.into() };
        AppointmentFact::Booked(Box::new(booking)).into()
    };
    let instant = |text: &str, zone: &str| AppointmentFact::Booked(Box::new(booking("a", at(text), Some(zone)))).into();
    for (booking, shown, starts_at) in [
        // Clocks skip from 2 to 3, on Lord Howe from 2 to half past, and in Apia a whole day.
        (local("2026-03-29T02:30:00", "Europe/Berlin"), "2026-03-29T03:30:00", "2026-03-29T01:30:00Z"),
        (local("2026-03-29T01:59:59", "Europe/Berlin"), "2026-03-29T01:59:59", "2026-03-29T00:59:59Z"),
        (local("2026-03-29T03:00:00", "Europe/Berlin"), "2026-03-29T03:00:00", "2026-03-29T01:00:00Z"),
        (local("2026-10-04T02:10:00", "Australia/Lord_Howe"), "2026-10-04T02:40:00", "2026-10-03T15:40:00Z"),
        (local("2011-12-30T10:00:00", "Pacific/Apia"), "2011-12-31T10:00:00", "2011-12-30T20:00:00Z"),
        (local("2018-11-04T00:30:00", "America/Sao_Paulo"), "2018-11-04T01:30:00", "2018-11-04T03:30:00Z"),
        // Of an hour that occurs twice the first is meant, unless the instant determines the second.
        (local("2026-10-25T02:30:00", "Europe/Berlin"), "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        (instant("2026-10-25T01:30:00Z", "Europe/Berlin"), "2026-10-25T02:30:00", "2026-10-25T01:30:00Z"),
    ] {
        let client = appointments([(1, booking)]).client("c");
        let start = client.appointments["a"].start.clone().unwrap();
        assert_eq!((start.local(), start.at_ms), (shown.parse().unwrap(), at(starts_at)), "{shown}");
        let rules = foretell_events::zone::get(&start.zone).unwrap();
        assert_eq!(start.local(), foretell_events::zone::local(start.at_ms, &rules), "{shown}");
    }
}

#[test]
fn a_corrected_miss_is_no_longer_the_last_one() {
    let events = [(1, booked("a", START)), (1, booked("b", START + DAY)), (START + 2 * DAY, missed("a"))];
    let more = [(START + 2 * DAY, missed("b"))];
    let corrected = [(START + 3 * DAY, attended("b"))];
    let last = |events: Vec<(i64, Fact)>| appointments(events).client("c").last_missed_ms();
    assert_eq!(last(events.to_vec()), Some(START));
    assert_eq!(last([&events[..], &more].concat()), Some(START + DAY));
    assert_eq!(last([&events[..], &more, &corrected].concat()), Some(START));
    assert_eq!(last(vec![(START, missed("a")), (1, booked("a", START))]), Some(START), "noted before it was booked");
}

#[test]
fn requests_are_kept_up_to_their_bound_and_none_is_forgotten_within_its_day() {
    let limits = Limits { appointment_requests_max: 2, ..Limits::default() };
    let after_requests = |times: &[i64]| {
        let events = times.iter().map(|hour| (hour * HOUR, requested("a")));
        limited(limits.clone(), [(1, booked("a", START))].into_iter().chain(events))
    };
    for (hours, expected) in
        [(&[3, 1, 5, 7][..], [1, 3]), (&[3, 1, 24], [1, 3]), (&[3, 1, 25], [3, 25]), (&[3, 1, 25, 26, 27, 2], [25, 27])]
    {
        let views = after_requests(hours);
        let requests = &views.client("c").appointments["a"].requests;
        let kept: Vec<_> = requests.iter().map(|after_requests| after_requests.at_ms / HOUR).collect();
        assert_eq!(kept, expected, "{hours:?}");
        let buckets: Vec<_> = entries(&views, is_request).into_iter().map(|(bucket, ..)| bucket).collect();
        assert_eq!(buckets, expected.map(|hour| Bucket::requests(hour * HOUR, partition("c")).pack()));
    }
}

#[test]
fn updates_change_the_fields_that_they_name_unless_a_later_one_did() {
    let refuse = || updated(|update| update.channels = FieldUpdate::Set(vec![]));
    let speaks = |tag: &str| {
        let tag = tag.to_owned();
        updated(|update| update.language = FieldUpdate::Set(tag))
    };
    let agree = || {
        let consent = Consent { channel: Channel::Sms, consent: true, address_ref: None };
        updated(|update| update.channels = FieldUpdate::Set(vec![consent]))
    };
    let quiet = || updated(|u| u.quiet_hours = FieldUpdate::Set(QuietHours { from_minute: 60, to_minute: 90 }));
    let clear = || updated(|u| u.quiet_hours = FieldUpdate::Clear);
    let client = |events: Vec<(i64, Fact)>| appointments(events).client("c");
    let refused = client(vec![(1, agree()), (3, speaks("pt")), (2, refuse())]);
    assert_eq!(refused.channels, Some(vec![]), "a late refusal applies: no later event contradicts it");
    assert_eq!((refused.language.as_deref(), refused.updated_at_ms), (Some("pt"), Some(3)));
    assert_eq!(client(vec![(2, refuse()), (1, agree())]).channels, Some(vec![]), "an older consent changes nothing");
    assert_eq!(client(vec![(1, quiet()), (2, speaks("pt"))]).quiet_hours.map(|q| q.to_minute), Some(90), "kept");
    assert_eq!(client(vec![(1, quiet()), (2, clear())]).quiet_hours, None);
    assert_eq!(client(vec![(2, clear()), (1, quiet())]).quiet_hours, None);
}

#[test]
fn erasure_empties_the_row_skips_older_events_and_starts_over() {
    let mut views = appointments([
        (1, booked("a", START)),
        (2, requested("a")),
        (2, updated(|u| u.language = FieldUpdate::Set("pt".into()))),
        (START, missed("a")),
        (START + 5, erased()),
    ]);
    assert_eq!(views.client("c"), Client { erased_at_ms: Some(START + 5), ..Client::default() });
    assert_eq!((holder(&views, "a"), entries(&views, is_request)), (None, vec![]));
    assert_eq!(leads(&views).total().missed, 1, "the tenant's counts are anonymous, and stay");
    for old in [1, START + 5] {
        assert!(!views.fold(&event(old, booked("b", START))), "at {old}");
    }
    assert!(views.fold(&event(START + 6, booked("b", START + DAY))));
    assert_eq!(views.client("c").appointments.len(), 1);
}

#[test]
fn repetitions_change_nothing_among_the_last_64() {
    let mut views = appointments([]);
    let first = event(1, booked("a", START));
    assert!(views.fold(&first));
    for n in 0..63 {
        views.fold(&event(n, confirmed("a")));
    }
    assert!(!views.fold(&first));
    views.fold(&event(1, cancelled("a", None)));
    assert!(views.fold(&first), "64 others since: it puts the visit back on");
}

/// Any events of two clients and three visits, at times of a few days.
fn any_events() -> impl Strategy<Value = Vec<(i64, Fact)>> {
    let one = (0_i64..60, 0_u8..12, 0_u8..3, 0_u8..2, 0_i64..5, any::<bool>());
    prop::collection::vec(one, 0..50).prop_map(|events| {
        events
            .into_iter()
            .map(|(hours, kind, a, c, days, flag)| {
                let (a, c) = (format!("a{a}"), format!("c{c}"));
                let visit = visit(&a, &c);
                let mut booking = booking(&a, days * DAY + 10 * HOUR, Some("Europe/Dublin"));
                booking.client_id = c.clone();
                let fact = match kind {
                    0..=2 => AppointmentFact::Booked(Box::new(booking)).into(),
                    3 => AppointmentFact::Rescheduled(Box::new(booking)).into(),
                    4 => AppointmentFact::Confirmed(visit).into(),
                    5..=6 => AppointmentFact::Attended(visit).into(),
                    7..=8 => AppointmentFact::Missed(visit).into(),
                    9 => AppointmentFact::Deleted(visit).into(),
                    10 if flag => AppointmentFact::ClientErased(ClientErasure { client_id: c }).into(),
                    _ => {
                        let by = flag.then_some(CancelledBy::Business);
                        let (appointment_id, client_id) = (a, c);
                        let (reason, by) = (None, by);
                        AppointmentFact::Cancelled(foretell_events::appointment::Cancellation {
                            appointment_id,
                            client_id,
                            reason,
                            by,
                        })
                        .into()
                    }
                };
                (hours * HOUR, fact)
            })
            .collect()
    })
}

/// The tenant's outcomes, counted from the client rows as they are.
fn recount(clients: &[Client]) -> Lead {
    let mut lead = Lead::default();
    for client in clients {
        let mut days: BTreeMap<i64, Vec<(bool, &str, u8)>> = BTreeMap::new();
        for (id, appointment) in &client.appointments {
            let (Some(start), true) = (&appointment.start, appointment.status.is_resolved()) else { continue };
            let outcome = (
                appointment.status == AppointmentStatus::Missed,
                id.as_str(),
                lead::bucket(appointment.lead_days().unwrap()),
            );
            days.entry(start.local_s.div_euclid(86_400)).or_default().push(outcome);
        }
        for (day, (bucket, missed)) in &client.settled_days {
            days.entry(*day).or_default().push((*missed, "", *bucket));
        }
        for day in days.values() {
            let (missed, _, bucket) = day.iter().min().unwrap();
            lead.buckets[usize::from(*bucket)].count(*missed, 1);
        }
    }
    lead
}

/// The events without those that drop an outcome whose count stays.
fn unforgetting(mut events: Vec<(i64, Fact)>) -> Vec<(i64, Fact)> {
    let mut outcomes = BTreeSet::new();
    events.retain(|(_, fact)| match fact {
        Fact::Appointment(AppointmentFact::Attended(v) | AppointmentFact::Missed(v)) => {
            outcomes.insert((v.client_id.clone(), v.appointment_id.clone()));
            true
        }
        Fact::Appointment(AppointmentFact::Booked(b) | AppointmentFact::Rescheduled(b)) => {
            !outcomes.contains(&(b.client_id.clone(), b.appointment_id.clone()))
        }
        Fact::Appointment(AppointmentFact::ClientErased(_)) => false,
        _ => true,
    });
    events
}

proptest! {
    #[test]
    fn shared_rows_are_what_a_recount_of_the_client_rows_gives(events in any_events()) {
        let views = appointments(events);
        let clients = ["c0", "c1"].map(|id| views.client(id));
        let mut open = Vec::new();
        for (id, client) in ["c0", "c1"].iter().zip(&clients) {
            for (a, appointment) in &client.appointments {
                let Some(start) = appointment.start.as_ref().filter(|_| appointment.status.is_open()) else { continue };
                let bucket = Bucket::starts(start.at_ms, partition(id)).pack();
                open.push((bucket, format!("t:{id}"), a.clone(), 1));
            }
        }
        open.sort();
        let mut listed = entries(&views, is_start);
        listed.sort();
        prop_assert_eq!(listed, open);
        for a in ["a0", "a1", "a2"] {
            let claims = ["c0", "c1"].iter().zip(&clients).filter_map(|(id, client)| {
                let held = client.appointments.get(a)?;
                let is_on = held.status != AppointmentStatus::Cancelled;
                let is_claimed = held.start.is_some() && held.status != AppointmentStatus::Deleted;
                is_claimed.then_some((is_on, held.placed_at_ms, std::cmp::Reverse(*id)))
            });
            prop_assert_eq!(holder(&views, a), claims.max().map(|(.., id)| id.0.to_owned()));
        }
    }

    #[test]
    fn leads_equal_a_recount_as_long_as_no_client_is_erased(mut events in any_events()) {
        events.retain(|(_, fact)| !matches!(fact, Fact::Appointment(AppointmentFact::ClientErased(_))));
        let views = appointments(events);
        prop_assert_eq!(leads(&views), recount(&["c0", "c1"].map(|id| views.client(id))));
    }

    #[test]
    fn what_a_client_counts_never_falls_below_nothing(events in any_events()) {
        let views = appointments(events);
        for client in ["c0", "c1"].map(|id| views.client(id)) {
            let ClientHistory { attended, missed, cancelled, late_cancelled, rescheduled } = client.history;
            prop_assert!([attended, missed, cancelled, late_cancelled, rescheduled].iter().all(|n| *n >= 0));
        }
    }

    #[test]
    fn deleting_every_visit_takes_everything_back(events in any_events()) {
        let clean_up = ["a0", "a1", "a2"].into_iter().flat_map(|a| {
            ["c0", "c1"].map(|c| (100 * DAY, AppointmentFact::Deleted(visit(a, c)).into()))
        });
        let views = appointments(unforgetting(events).into_iter().chain(clean_up));
        prop_assert_eq!(views.shared(), BTreeMap::new());
        for client in ["c0", "c1"].map(|id| views.client(id)) {
            prop_assert_eq!((client.history, client.days), (NONE, Client::default().days));
        }
    }

    #[test]
    fn a_word_that_is_corrected_leaves_what_the_correction_alone_would_have(
        events in any_events(), words in (0_u8..5, 0_u8..5), days in 0_i64..5,
    ) {
        // A repeated cancellation is the first one.
        let (first, second) = if words.0 >= 3 { (words.0, words.1 % 3) } else { words };
        let word = |kind| match kind {
            0 => AppointmentFact::Attended(visit("x", "c0")).into(),
            1 => AppointmentFact::Missed(visit("x", "c0")).into(),
            2 => AppointmentFact::Deleted(visit("x", "c0")).into(),
            kind => AppointmentFact::Cancelled(foretell_events::appointment::Cancellation {
                appointment_id: "x".into(),
                client_id: "c0".into(),
                reason: None,
                by: (kind == 3).then_some(CancelledBy::Business),
            }).into(),
        };
        let mut booked = booking("x", days * DAY + 10 * HOUR, Some("Europe/Dublin"));
        booked.client_id = "c0".into();
        let booked = (61 * HOUR, AppointmentFact::Booked(Box::new(booked)).into());
        let before = || events.clone().into_iter().chain([booked.clone()]);
        let corrected = appointments(before().chain([(90 * DAY, word(first)), (91 * DAY, word(second))]));
        let alone = appointments(before().chain([(91 * DAY, word(second))]));
        prop_assert_eq!(corrected.shared(), alone.shared());
        let counts = |views: &Views| views.client("c0");
        let (corrected, alone) = (counts(&corrected), counts(&alone));
        prop_assert_eq!((corrected.history, corrected.days), (alone.history, alone.days));
        prop_assert_eq!(corrected.last_missed_ms(), alone.last_missed_ms());
    }
}
