//! A user's row.

use crate::build::*;
use foretell_domain::address::View;
use foretell_domain::view::feature::FeatureLevel;
use foretell_domain::view::user::{self, DEVICE_KNOWN_MS, FAILURES_WINDOW_MS, LoginFold, User, UserDecision};
use foretell_domain::view::{Aggregate, Fold, FoldOutcome, Limits, RecordPosition, Skip};
use foretell_events::login::{Attempt, DeviceRef, LoginFact, UserErasure, Verdict};
use foretell_events::{Envelope, Event, Fact};
use proptest::prelude::*;

fn attempt(device_id: Option<&str>, browser: Option<&str>) -> Attempt {
    let mut attempt = Attempt::from_ip("198.51.100.7".parse().unwrap());
    (attempt.device_id, attempt.browser) = (device_id.map(str::to_owned), browser.map(str::to_owned));
    attempt
}

fn success(device_id: Option<&str>, browser: Option<&str>) -> Fact {
    login("u", true, attempt(device_id, browser))
}

fn failure() -> Fact {
    login("u", false, attempt(Some("d"), None))
}

fn device(device_id: &str) -> DeviceRef {
    DeviceRef { user_id: "u".into(), device_id: device_id.into(), idempotency_digest: None }
}

fn trusted(device_id: &str) -> Fact {
    LoginFact::DeviceTrusted(device(device_id)).into()
}

fn revoked(device_id: &str) -> Fact {
    LoginFact::DeviceRevoked(device(device_id)).into()
}

fn erased() -> Fact {
    LoginFact::UserErased(UserErasure { user_id: "u".into() }).into()
}

fn limited(limits: Limits, events: impl IntoIterator<Item = (i64, Fact)>) -> User {
    let views = Views::new(LoginFold { limits }, PARTITIONS).all(events);
    views.rows.owner(&user::row_key("t", "u")).cloned().unwrap_or_default()
}

fn user(events: impl IntoIterator<Item = (i64, Fact)>) -> User {
    limited(Limits::default(), events)
}

#[test]
fn a_device_is_known_by_these_rules() {
    let named = || success(Some("d"), Some("Firefox 1.0"));
    let unnamed = || success(None, Some("Firefox 1.0"));
    let known = DEVICE_KNOWN_MS;
    let (by_id, other_id, by_looks) =
        ((Some("d"), None), (Some("x"), Some("Firefox 1.0")), (None, Some("Firefox 2.0")));
    for (name, events, (id, browser), now, wanted) in [
        ("never seen", vec![], by_id, 10, Some(false)),
        ("by its id", vec![(1, named())], by_id, 10, Some(true)),
        ("another id of the same looks", vec![(1, named())], other_id, 10, Some(false)),
        ("unnamed, of the looks of a known one", vec![(1, named())], by_looks, 10, Some(true)),
        ("unnamed, of other looks", vec![(1, named())], (None, Some("Opera 1.0")), 10, Some(false)),
        ("named, where the unnamed is known", vec![(1, unnamed())], by_id, 10, Some(false)),
        ("nothing to be seen", vec![(1, named())], (None, None), 10, None),
        ("a failure makes none", vec![(1, failure())], by_id, 10, Some(false)),
        ("nearly 90 days", vec![(1, named())], by_id, known, Some(true)),
        ("90 days", vec![(1, named())], by_id, 1 + known, Some(false)),
        ("looks of 90 days ago", vec![(1, named())], by_looks, 1 + known, Some(false)),
        ("trusted stays", vec![(1, named()), (2, trusted("d"))], by_id, 10 * known, Some(true)),
        ("trusted unseen", vec![(2, trusted("d"))], by_id, 10 * known, Some(true)),
        ("revoked", vec![(1, named()), (2, revoked("d"))], by_id, 10, Some(false)),
        ("revoked, by looks", vec![(1, named()), (2, revoked("d"))], by_looks, 10, Some(false)),
        ("trusted, revoked", vec![(1, trusted("d")), (2, revoked("d"))], by_id, 10, Some(false)),
        ("revoked, trusted", vec![(1, revoked("d")), (2, trusted("d"))], by_id, 10, Some(true)),
        ("the later of two decides", vec![(2, revoked("d")), (1, trusted("d"))], by_id, 10, Some(false)),
        ("seen since", vec![(2, revoked("d")), (3, named())], by_id, 10, Some(true)),
        ("seen since, revoked before", vec![(3, named()), (2, revoked("d"))], by_id, 10, Some(true)),
        ("seen before, revoked since", vec![(2, revoked("d")), (1, named())], by_id, 10, Some(false)),
        ("seen at that instant", vec![(2, revoked("d")), (2, named())], by_id, 10, Some(false)),
        (
            "seen since, and no longer trusted",
            vec![(1, trusted("d")), (2, revoked("d")), (3, named())],
            by_id,
            3 + known,
            Some(false),
        ),
    ] {
        assert_eq!(user(events).device_known(&attempt(id, browser), now), wanted, "{name}");
    }
}

#[test]
fn a_device_says_what_was_last_seen_of_it_in_any_order() {
    let seen = [(1, "Firefox 1.0"), (3, "Firefox 3.0"), (2, "Opera 2.0")];
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let row = user(order.map(|n| (seen[n].0, success(Some("d"), Some(seen[n].1)))));
        let device = &row.devices["d"];
        assert_eq!((device.label.as_str(), device.logins), ("Firefox", 3));
        assert_eq!((device.first_seen_ms, device.last_seen_ms), (1, 3));
        assert_eq!((row.first_seen_ms, row.last_success_ms), (Some(1), Some(3)));
    }
}

#[test]
fn failures_count_in_a_window_that_is_closed_at_both_ends_and_bounded() {
    let row = user([(1_000, failure()), (0, failure()), (500, failure())]);
    assert_eq!(row.failed_at_ms, [0, 500, 1_000], "whatever the order");
    for (now, wanted) in [(-1, 0), (0, 1), (1_000, 3), (FAILURES_WINDOW_MS, 3), (FAILURES_WINDOW_MS + 1, 2)] {
        assert_eq!(row.failures_at(now), wanted, "at {now}");
    }
    let limits = Limits { user_failures_max: 3, ..Limits::default() };
    let row = limited(limits, [5, 1, 4, 2, 3].map(|at| (at, failure())));
    assert_eq!((row.failed_at_ms, row.failures), (vec![3, 4, 5], 5), "the oldest is forgotten first");
}

#[test]
fn full_maps_forget_in_their_order() {
    let limits = Limits { user_devices_max: 3, user_values_max: 2, ..Limits::default() };
    let devices = |events: Vec<(i64, Fact)>| limited(limits.clone(), events).devices.into_keys().collect::<Vec<_>>();
    let seen = |at, id: &str| (at, success(Some(id), None));
    assert_eq!(
        devices(vec![seen(2, "b"), seen(1, "a"), seen(3, "c"), seen(4, "d")]),
        ["b", "c", "d"],
        "seen longest ago"
    );
    assert_eq!(
        devices(vec![seen(1, "a"), (2, trusted("a")), seen(3, "c"), seen(4, "d"), seen(5, "e")]),
        ["a", "d", "e"]
    );
    assert_eq!(
        devices(vec![seen(1, "a"), seen(3, "c"), seen(4, "d"), (5, revoked("d")), seen(6, "e")]),
        ["a", "c", "e"]
    );
    assert_eq!(
        devices(vec![seen(2, "b"), seen(3, "c"), seen(4, "d"), seen(1, "a")]),
        ["a", "c", "d"],
        "the new one stays"
    );

    let seen = |at, browser: &str| (at, success(None, Some(browser)));
    let row = limited(limits, [seen(1, "A"), seen(2, "A"), seen(5, "B"), seen(4, "C")]);
    let counts = ["A", "B", "C"].map(|value| row.count(FeatureLevel::Browser, value));
    assert_eq!(counts, [2, 0, 1], "the rarest other one");
}

#[test]
fn a_first_success_comes_once_until_erasure() {
    let mut row = User::default();
    let mut fold = |time_ms, fact: Fact| {
        LoginFold::default().fold(&mut row, &event(time_ms, fact), RecordPosition { partition: 0, offset: 0 })
    };
    let seen = |first_success| FoldOutcome::Applied(UserDecision { first_success, ..UserDecision::default() });
    assert_eq!(fold(1, failure()), seen(false));
    assert_eq!(fold(5, success(None, None)), seen(true));
    assert_eq!(fold(3, success(None, None)), seen(false), "an earlier one that comes later");
    assert_eq!(fold(6, erased()), seen(false));
    assert_eq!(fold(6, success(None, None)), FoldOutcome::Skipped(Skip::Erased));
    assert_eq!(fold(2, erased()), FoldOutcome::Skipped(Skip::Erased));
    assert_eq!(fold(7, success(None, None)), seen(true), "starts over");
}

/// A success for which a score was requested.
fn scored(decision_id: &str, device_id: &str, browser: &str) -> Fact {
    let Fact::Login(LoginFact::Attempted(mut login)) = success(Some(device_id), Some(browser)) else {
        unreachable!("a login was built")
    };
    login.decision_id = Some(decision_id.into());
    LoginFact::Attempted(login).into()
}

fn verdict(decision_id: &str) -> Box<Verdict> {
    Box::new(Verdict {
        user_id: "u".into(),
        decision_id: decision_id.into(),
        reported_by: None,
        ip: None,
        device_id: None,
        asn: None,
        country: None,
        user_agent: None,
        idempotency_digest: None,
    })
}

fn reported(decision_id: &str) -> Fact {
    LoginFact::Reported(verdict(decision_id)).into()
}

fn confirmed(decision_id: &str) -> Fact {
    LoginFact::Confirmed(verdict(decision_id)).into()
}

/// Successes and first successes in the tenant's totals.
fn totals(views: &Views<LoginFold>) -> (u64, u64) {
    let of = |aggregate: &Aggregate| match aggregate {
        Aggregate::Feature(feature) => (feature.successes, feature.first_successes),
        _ => (0, 0),
    };
    let all = views.aggregates(View::Feature).into_iter().filter(|(key, ..)| key.key == "t:all:");
    all.map(|(_, _, aggregate)| of(&aggregate)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}

#[test]
fn a_reported_login_leaves_the_history_and_a_confirmed_one_comes_back() {
    let logins = [(1, scored("one", "laptop", "Firefox 1.0")), (2, scored("two", "phone", "Opera 2.0"))];
    let after =
        |more: &[(i64, Fact)]| Views::new(LoginFold::default(), PARTITIONS).all(logins.iter().chain(more).cloned());
    let row = |views: &Views<LoginFold>| views.rows.owner(&user::row_key("t", "u")).cloned().unwrap();
    let before = after(&[]);
    let taken = after(&[(3, reported("two"))]);
    assert_eq!((totals(&before), totals(&taken)), ((2, 1), (1, 1)));
    let (known, phone) = (row(&taken), attempt(Some("phone"), Some("Opera 2.0")));
    assert_eq!((known.successes, known.last_success_ms, known.reported), (1, Some(1), 1));
    assert_eq!(
        (known.count(FeatureLevel::Browser, "Opera 2.0"), known.count(FeatureLevel::Browser, "Firefox 1.0")),
        (0, 1)
    );
    assert_eq!((known.device_known(&phone, 4), row(&before).device_known(&phone, 4)), (Some(false), Some(true)));
    assert!(known.was_reported(&phone, 4) && !known.was_reported(&phone, 3 + user::REPORTED_MS));
    assert_eq!(row(&after(&[(3, reported("two")), (4, reported("two"))])).successes, 1, "once is enough");

    let back = after(&[(3, reported("two")), (4, confirmed("two"))]);
    assert_eq!((totals(&back), totals(&before)), ((2, 1), (2, 1)));
    let history = |user: &User| (user.successes, user.last_success_ms, user.values.clone(), user.latest.clone());
    assert_eq!(history(&row(&back)), history(&row(&before)));
    assert_eq!(row(&back).device_known(&phone, 5), Some(true));
    assert!(!row(&back).was_reported(&phone, 5));
    // All logins are reported: there is no history, and the next success is a first one again.
    let none = after(&[(3, reported("two")), (4, reported("one"))]);
    assert_eq!((totals(&none), row(&none).last_success_ms), ((0, 0), None));
    assert_eq!(totals(&after(&[(3, reported("two")), (4, reported("one")), (5, success(None, None))])), (1, 1));
    assert_eq!(totals(&after(&[(3, reported("two")), (4, reported("one")), (5, confirmed("one"))])), (1, 1));
}

#[test]
fn the_first_request_under_an_idempotency_key_holds() {
    let (mut row, fold) = (User::default(), LoginFold::default());
    let mut folded = |offset, id: &str, fact: Fact| {
        let mut event = event(10, fact);
        event.envelope.id = id.into();
        fold.fold(&mut row, &event, RecordPosition { partition: 0, offset })
    };
    let keyed = |fact: fn(Box<Verdict>) -> LoginFact, digest: &str| -> Fact {
        fact(Box::new(Verdict { idempotency_digest: Some(digest.into()), ..*verdict("d") })).into()
    };
    let fraud = keyed(LoginFact::Reported, "a body");
    assert!(matches!(folded(1, "key", fraud.clone()), FoldOutcome::Applied(_)));
    assert_eq!(folded(2, "key", fraud), FoldOutcome::Skipped(Skip::Repeated), "sent again");
    assert_eq!(
        folded(3, "key", keyed(LoginFact::Confirmed, "another body")),
        FoldOutcome::Skipped(Skip::Repeated),
        "another body"
    );
    let (first, labelled) = (*row.keyed("key").unwrap(), (row.reported, row.confirmed));
    assert_eq!((first.offset, first.is_applied, labelled), (1, true, (1, 0)));
    assert!(first.is("a body") && !first.is("another body"));
    // However many events come in between, as long as the key is remembered.
    for offset in 4..200 {
        let failed = event(offset, failure());
        LoginFold::default().fold(&mut row, &failed, RecordPosition { partition: 0, offset });
    }
    let under = |key: &str, fact: Fact| {
        let Event { envelope, fact } = event(300, fact);
        Event { envelope: Envelope { id: key.into(), ..envelope }, fact }
    };
    let again = under("key", keyed(LoginFact::Confirmed, "another body"));
    assert_eq!(
        LoginFold::default().fold(&mut row, &again, RecordPosition { partition: 0, offset: 300 }),
        FoldOutcome::Skipped(Skip::Repeated)
    );
    for n in 0..user::KEYED_MAX as i64 {
        let other = under(&format!("key {n}"), keyed(LoginFact::Reported, "a body"));
        LoginFold::default().fold(&mut row, &other, RecordPosition { partition: 0, offset: 301 + n });
    }
    assert_eq!((row.keyed("key"), row.keyed.len()), (None, user::KEYED_MAX), "the oldest is forgotten");
    let outcome = LoginFold::default().fold(&mut row, &again, RecordPosition { partition: 0, offset: 900 });
    assert!(matches!(outcome, FoldOutcome::Applied(_)), "and its key is new again: {outcome:?}");
}

#[test]
fn a_verdict_beyond_the_latest_logins_changes_no_history_and_reports_it() {
    let limits = Limits { user_logins_max: 2, ..Limits::default() };
    let mut row = User::default();
    let fold = LoginFold { limits };
    let mut folded =
        |time_ms, fact: Fact| fold.fold(&mut row, &event(time_ms, fact), RecordPosition { partition: 0, offset: 0 });
    for n in 1..=3 {
        folded(n, scored(&format!("d{n}"), "laptop", "Firefox 1.0"));
    }
    for (decision_id, is_too_late) in [("d1", true), ("never", true), ("d2", false)] {
        let FoldOutcome::Applied(decision) = folded(9, reported(decision_id)) else {
            unreachable!("nothing is repeated")
        };
        assert_eq!((decision.is_too_late, decision.success.is_none()), (is_too_late, is_too_late), "{decision_id}");
    }
    assert_eq!((row.successes, row.reported, row.latest.len()), (2, 3, 2));
}

#[test]
fn a_report_without_the_login_marks_what_it_names() {
    let named = Box::new(Verdict {
        ip: Some("203.0.113.66".parse().unwrap()),
        device_id: Some("stolen".into()),
        ..*verdict("never")
    });
    let row = user([(1, scored("one", "laptop", "Firefox 1.0")), (2, LoginFact::Reported(named).into())]);
    let from = |ip: &str| Attempt { ip: ip.parse().unwrap(), ..attempt(Some("laptop"), None) };
    assert!(row.was_reported(&from("203.0.113.66"), 3) && !row.was_reported(&from("203.0.113.67"), 3));
    assert!(row.was_reported(&attempt(Some("stolen"), None), 3));
    assert_eq!(row.successes, 1);
    let many = (0..50).map(|n| {
        let named = Verdict { device_id: Some(format!("d{n}")), ..*verdict("never") };
        (n, LoginFact::Reported(Box::new(named)).into())
    });
    let row = user(many);
    assert_eq!(row.reported_at_ms.len(), user::REPORTED_MAX);
    assert!(row.was_reported(&attempt(Some("d49"), None), 50) && !row.was_reported(&attempt(Some("d0"), None), 50));
}

#[test]
fn a_verdict_given_again_changes_nothing_and_one_that_returns_counts() {
    let login = [(1, scored("one", "laptop", "Firefox 1.0"))];
    let after = |more: &[(i64, Fact)]| user(login.iter().chain(more).cloned());
    let counts = |user: &User| (user.confirmed, user.reported, user.successes);
    for (what, facts, expected) in [
        ("reported twice", vec![(3, reported("one")), (4, reported("one"))], (0, 1, 0)),
        ("confirmed twice", vec![(3, confirmed("one")), (4, confirmed("one"))], (1, 0, 1)),
        ("thought again", vec![(3, reported("one")), (4, confirmed("one"))], (1, 0, 1)),
        ("and again", vec![(3, reported("one")), (4, confirmed("one")), (5, reported("one"))], (0, 1, 0)),
        ("of no login", vec![(3, reported("x")), (4, reported("x")), (5, reported("y"))], (0, 2, 1)),
    ] {
        assert_eq!(counts(&after(&facts)), expected, "{what}");
    }
    let reported_once = after(&[(3, reported("one"))]);
    assert_eq!(after(&[(3, reported("one")), (9, reported("one"))]).reported_at_ms, reported_once.reported_at_ms);
    // A login that arrives after its report is removed when the report is repeated.
    let late = user([
        (1, scored("zero", "phone", "Opera 2.0")),
        (2, reported("one")),
        (3, scored("one", "laptop", "Firefox 1.0")),
        (4, reported("one")),
    ]);
    assert_eq!(counts(&late), (0, 1, 1));
    // A decision about the device after the report is not reverted by a repetition of the report.
    let trusted_since = after(&[(3, reported("one")), (4, trusted("laptop")), (5, reported("one"))]);
    assert_eq!(trusted_since.device_known(&attempt(Some("laptop"), None), 6), Some(true));
}

#[test]
fn verdicts_are_remembered_up_to_their_bound_the_oldest_forgotten_first() {
    let many = (0..70).map(|n| (n, reported(&format!("d{n}"))));
    let row = user(many.clone());
    assert_eq!((row.verdicts.len(), row.reported), (user::VERDICTS_MAX, 70));
    assert_eq!(user(many.clone().chain([(100, reported("d69"))])).reported, 70);
    assert_eq!(user(many.chain([(100, reported("d0"))])).reported, 71, "forgotten, so it counts again");
}

#[test]
fn a_confirmation_takes_back_what_a_report_revoked_and_nothing_else() {
    let login = (1, scored("one", "laptop", "Firefox 1.0"));
    let laptop = attempt(Some("laptop"), None);
    for (what, events, is_known) in [
        ("a report", vec![(3, reported("one")), (4, confirmed("one"))], true),
        ("revoked before", vec![(2, revoked("laptop")), (3, reported("one")), (4, confirmed("one"))], false),
        ("revoked since", vec![(3, reported("one")), (4, revoked("laptop")), (5, confirmed("one"))], false),
        ("trusted since", vec![(3, reported("one")), (4, trusted("laptop")), (5, confirmed("one"))], true),
    ] {
        let row = user([login.clone()].into_iter().chain(events));
        assert_eq!(row.device_known(&laptop, 9), Some(is_known), "{what}");
    }
    let named = |decision_id: &str| Box::new(Verdict { device_id: Some("laptop".into()), ..*verdict(decision_id) });
    let row = user([
        login,
        (3, LoginFact::Reported(named("never")).into()),
        (4, LoginFact::Confirmed(named("never")).into()),
    ]);
    assert_eq!(row.device_known(&laptop, 9), Some(true), "of an attempt that never got in");
}

/// The visible part of a row: without the times of the latest statements and the list of folded events.
fn visible(user: &User) -> User {
    let mut seen = User { recent: Default::default(), ..user.clone() };
    for device in seen.devices.values_mut() {
        device.decided_at_ms = 0;
        device.revoked_at_ms = device.revoked_at_ms.map(|_| 0);
    }
    seen
}

proptest! {
    #[test]
    fn stating_again_what_holds_changes_no_row(
        steps in prop::collection::vec((0_u8..6, 0_u8..3), 1..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let mut events: Vec<_> = steps.iter().enumerate().map(|(at, (kind, n))| {
            let (decision, device) = (format!("one{n}"), format!("d{n}"));
            let fact = match kind {
                0 => scored(&decision, &device, "Firefox 1.0"),
                1 => trusted(&device),
                2 => revoked(&device),
                3 => reported(&decision),
                4 => confirmed(&decision),
                _ => failure(),
            };
            (at as i64 * DAY, fact)
        }).collect();
        let fold = |events: &[(i64, Fact)]| Views::new(LoginFold::default(), PARTITIONS).all(events.iter().cloned());
        let row = |views: &Views<LoginFold>| views.rows.owner(&user::row_key("t", "u")).cloned().unwrap_or_default();
        let before = fold(&events);
        let known = row(&before);
        let mut holds: Vec<Fact> = Vec::new();
        for (id, device) in known.devices.iter() {
            holds.extend(device.trusted.then(|| trusted(id)));
            // That a reported device is revoked as well is new, see `LoginFold::decided`.
            holds.extend(device.revoked_at_ms.filter(|_| !device.is_reported).map(|_| revoked(id)));
        }
        for n in 0..3 {
            let name = format!("one{n}");
            // A login that arrived after its verdict is new to the verdict.
            let is_about = |fact: &Fact| match fact {
                Fact::Login(LoginFact::Reported(verdict) | LoginFact::Confirmed(verdict)) => verdict.decision_id == name,
                Fact::Login(LoginFact::Attempted(login)) => login.decision_id.as_ref() == Some(&name),
                _ => false,
            };
            let last = events.iter().rev().map(|(_, fact)| fact).find(|fact| is_about(fact));
            holds.extend(last.filter(|fact| !matches!(fact, Fact::Login(LoginFact::Attempted(_)))).cloned());
        }
        prop_assume!(!holds.is_empty());
        let end = events.len() as i64 * DAY;
        for (at, index) in again.iter().enumerate() {
            events.push((end + at as i64, index.get(&holds).clone()));
        }
        let after = fold(&events);
        prop_assert_eq!(visible(&row(&after)), visible(&known));
        prop_assert_eq!(totals(&after), totals(&before));
    }

    #[test]
    fn no_request_with_a_key_is_skipped_as_repeated_unless_its_key_is_remembered(
        keys in prop::collection::vec(0_u8..110, 100..500),
    ) {
        let (mut row, fold) = (User::default(), LoginFold::default());
        for (offset, key) in (0..).zip(keys) {
            let keyed = Verdict { idempotency_digest: Some("a body".into()), ..*verdict("d") };
            let mut event = event(offset, if key < 90 { LoginFact::Reported(Box::new(keyed)).into() } else { failure() });
            if key < 90 {
                event.envelope.id = format!("key {key}");
            }
            let is_remembered = row.keyed(&event.envelope.id).is_some();
            let outcome = fold.fold(&mut row, &event, RecordPosition { partition: 0, offset });
            prop_assert_eq!(matches!(outcome, FoldOutcome::Skipped(Skip::Repeated)), is_remembered);
            prop_assert!(key >= 90 || row.keyed(&event.envelope.id).is_some());
        }
    }
}

#[test]
fn a_reported_device_can_be_revoked_as_well() {
    let mut views = Views::new(LoginFold::default(), PARTITIONS).all([(1, scored("one", "laptop", "Firefox 1.0"))]);
    for (fact, is_applied) in [(reported("one"), true), (revoked("laptop"), true), (revoked("laptop"), false)] {
        assert_eq!(views.fold(&event(2, fact.clone())), is_applied, "{fact:?}");
    }
}

#[test]
fn the_revocation_of_an_unknown_device_displaces_no_known_one() {
    let limits = Limits { user_devices_max: 2, ..Limits::default() };
    let devices = |fact: Fact| {
        let known = [(1, success(Some("a"), None)), (2, success(Some("b"), None)), (3, fact)];
        limited(limits.clone(), known).devices.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(devices(revoked("x")), ["a", "b"]);
    assert_eq!(devices(trusted("x")), ["b", "x"]);
    let after_a_revocation = [(1, success(Some("a"), None)), (2, revoked("x")), (3, revoked("y"))];
    let row = limited(limits.clone(), after_a_revocation);
    assert!(row.devices.keys().eq(["a", "y"]), "the older revocation goes");
}

#[test]
fn erasure_empties_the_row_and_leaves_anonymous_counts() {
    let mut views = Views::new(LoginFold::default(), PARTITIONS).all([(1, success(Some("d"), None)), (5, erased())]);
    let row = views.rows.owner(&user::row_key("t", "u")).cloned();
    assert_eq!(row, Some(User { erased_at_ms: Some(5), ..User::default() }));
    assert!(!views.fold(&event(5, failure())) && views.fold(&event(6, failure())));
    assert!(!views.aggregates(View::Feature).is_empty());
}

#[test]
fn repetitions_change_nothing_among_the_last_64() {
    let mut views = Views::new(LoginFold::default(), PARTITIONS);
    let first = event(1, success(None, None));
    assert!(views.fold(&first) && !views.fold(&first));
    for _ in 0..63 {
        views.fold(&event(2, failure()));
    }
    assert!(!views.fold(&first), "63 others since");
    views.fold(&event(2, failure()));
    assert!(views.fold(&first), "64 others since: counts again");
}

fn any_events() -> impl Strategy<Value = Vec<(i64, Fact)>> {
    let one = (0_i64..200, 0_u8..12, 0_u8..6);
    prop::collection::vec(
        one.prop_map(|(day, kind, n)| {
            let (id, browser) = (format!("d{n}"), format!("Browser {n}.0"));
            let fact = match kind {
                0..=4 => success((n % 2 == 0).then_some(id.as_str()), Some(&browser)),
                5..=7 => failure(),
                8 => trusted(&id),
                9 => revoked(&id),
                10 if n == 0 => erased(),
                _ => success(Some(&id), None),
            };
            (day * DAY, fact)
        }),
        0..80,
    )
}

proptest! {
    #[test]
    fn no_map_outgrows_its_bound_and_totals_are_the_sum_of_the_values(events in any_events()) {
        let limits = Limits { user_devices_max: 3, user_values_max: 2, user_failures_max: 4, ..Limits::default() };
        let views = Views::new(LoginFold { limits: limits.clone() }, PARTITIONS).all(events);
        if let Some(row) = views.rows.owner(&user::row_key("t", "u")) {
            prop_assert!(row.devices.len() <= limits.user_devices_max);
            prop_assert!(row.values.values().all(|values| values.len() <= limits.user_values_max));
            prop_assert!(row.failed_at_ms.len() <= limits.user_failures_max && row.failed_at_ms.is_sorted());
            prop_assert!(row.devices.values().all(|d| d.first_seen_ms <= d.last_seen_ms && !(d.trusted && d.revoked_at_ms.is_some())));
        }
        let (mut total, mut by_address) = ((0, 0), (0, 0));
        for (key, _, row) in views.aggregates(View::Feature) {
            let Aggregate::Feature(row) = row else { panic!("a feature row") };
            let sum = if key.key.starts_with("t:all:") { &mut total } else if key.key.starts_with("t:ip:") { &mut by_address } else { continue };
            *sum = (sum.0 + row.successes, sum.1 + row.failures);
        }
        prop_assert_eq!(total, by_address);
    }
}
