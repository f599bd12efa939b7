//! Tables with both sides of each boundary, and the properties that are true of any history.

use super::*;
use crate::view::RecordPosition;
use crate::view::user;
use foretell_events::login::{Login, LoginFact};
use foretell_events::time::{DAY_MS, MINUTE_MS};
use foretell_events::{Envelope, Event, Fact};
use proptest::prelude::*;

const TENANT: &str = "t";
/// When the attempts of the tables happen.
const NOW_MS: i64 = 1_000 * DAY_MS;

/// A log that is folded as it is written.
struct World {
    rows: Materialized<LoginFold>,
    offset: i64,
}

impl World {
    fn new() -> Self {
        Self { rows: Materialized::new(LoginFold::default()), offset: 0 }
    }

    fn login(&mut self, user_id: &str, attempt: &Attempt, succeeded: bool, time_ms: i64) {
        let login = Login {
            user_id: user_id.into(),
            succeeded,
            attempt: attempt.clone(),
            decision_id: None,
            session_id: None,
            method: None,
            failure_reason: None,
        };
        self.fact(LoginFact::Attempted(Box::new(login)).into(), time_ms);
    }

    fn fact(&mut self, fact: Fact, time_ms: i64) {
        let envelope = Envelope { id: self.offset.to_string(), source: "test".into(), tenant: TENANT.into(), time_ms };
        let event = Event { envelope, fact };
        self.rows.take(&event, RecordPosition { partition: (self.offset % 3) as u32, offset: self.offset });
        self.offset += 1;
    }

    fn score(&self, user_id: &str, attempt: &Attempt, at_ms: i64, policy: &LoginPolicy) -> LoginScore {
        let features = Features::of(&self.rows, TENANT, attempt);
        let user = self.rows.owner(&user::row_key(TENANT, user_id));
        score(&LoginEvidence::of(user, &features, attempt, at_ms), policy)
    }

    /// Scores at [`NOW_MS`] with the defaults.
    fn now(&self, user_id: &str, attempt: &Attempt) -> LoginScore {
        self.score(user_id, attempt, NOW_MS, &LoginPolicy::default())
    }
}

/// An attempt whose levels are drawn from small sets, so that histories overlap.
fn attempt(ip: u8, asn: u32, country: &str, [agent, browser, os]: [u8; 3]) -> Attempt {
    Attempt {
        asn: Some(asn),
        country: Some(country.into()),
        user_agent: Some(format!("agent {agent}")),
        browser: Some(format!("Browser {browser}")),
        os: Some(format!("System {os}")),
        device_type: Some(if os < 2 { "mobile".into() } else { "desktop".into() }),
        ..Attempt::from_ip(std::net::Ipv4Addr::new(198, 51, 100, ip).into())
    }
}

fn home() -> Attempt {
    attempt(1, 1, "IE", [1, 1, 1])
}

/// A user with some history at home, among others.
fn settled() -> World {
    let mut world = World::new();
    for day in 1..=20 {
        world.login("ann", &home(), true, NOW_MS - day * DAY_MS);
        world.login("bob", &attempt(2, 2, "NO", [2, 2, 2]), true, NOW_MS - day * DAY_MS);
    }
    world
}

fn codes(score: &LoginScore) -> Vec<ReasonCode> {
    score.reasons.iter().map(|reason| reason.code.clone()).collect()
}

fn sum(score: &LoginScore) -> f64 {
    score.reasons.iter().map(|reason| reason.effect).sum()
}

#[test]
fn the_usual_attempt_is_allowed_and_a_stolen_password_is_not() {
    let world = settled();
    let usual = world.now("ann", &home());
    assert_eq!((usual.level, usual.decision), (RiskLevel::Low, LoginDecision::Allow));
    assert_eq!(
        codes(&usual),
        [
            ReasonCode::History,
            ReasonCode::KnownIp,
            ReasonCode::KnownUserAgent,
            ReasonCode::OwnAddress,
            ReasonCode::OwnNetwork
        ]
    );
    let stolen = world.now("ann", &attempt(9, 9, "XX", [9, 9, 9]));
    assert_eq!((stolen.level, stolen.decision), (RiskLevel::Medium, LoginDecision::Challenge));
    let expected = [
        ReasonCode::History,
        ReasonCode::NewIp,
        ReasonCode::NewNetwork,
        ReasonCode::NewUserAgent,
        ReasonCode::NewDevice,
        ReasonCode::NewCountry,
    ];
    assert_eq!(codes(&stolen), expected);
    assert!(stolen.score > usual.score);
}

#[test]
fn nobody_is_scored_without_a_success() {
    let mut world = settled();
    for (user_id, failures) in [("nobody", 0), ("failed", 3), ("attacked", 5)] {
        for minute in 0..failures {
            world.login(user_id, &home(), false, NOW_MS - minute * MINUTE_MS);
        }
        let first = world.now(user_id, &home());
        assert_eq!((first.score, first.likelihood_ratio), (None, None), "{user_id}");
        assert_eq!((first.level, first.decision), (RiskLevel::Unscored, LoginDecision::Challenge), "{user_id}");
        assert_eq!(first.reasons[0].code, ReasonCode::FirstLogin);
        assert_eq!(codes(&first).contains(&ReasonCode::FailureBurst), failures == 5, "{user_id}");
        assert_eq!(sum(&first), 0.0, "nothing was scored, so nothing contributes");
        assert_eq!(first.history.failures_recent, failures as usize);
    }
}

/// The effect of a code in a score, if it is a reason.
fn effect(score: &LoginScore, code: &ReasonCode) -> Option<f64> {
    score.reasons.iter().find(|reason| reason.code == *code).map(|reason| reason.effect)
}

#[test]
fn signals_of_failures_begin_and_end_at_their_boundaries() {
    /// Failures of accounts at last octets, a number of milliseconds before the attempt; the code, and whether it is
    /// there.
    struct Case(&'static str, Vec<(String, u8, i64)>, ReasonCode, bool);
    let own = |failures: i64, ms: i64| (0..failures).map(|_| ("ann".to_owned(), 200, ms)).collect::<Vec<_>>();
    let others = |accounts: u8, octet: fn(u8) -> u8, ms: i64| {
        (0..accounts).map(|account| (format!("u{account}"), octet(account), ms)).collect::<Vec<_>>()
    };
    let (burst, fan_out, after) =
        (user::FAILURES_WINDOW_MS, feature::FAN_OUT_WINDOW_MS, signal::AFTER_FAILURES_WINDOW_MS);
    let every = |pause_ms: i64, attempts: i64| (1..=attempts).map(|n| ("ann".to_owned(), 200, n * pause_ms)).collect();
    for Case(what, failures, code, is_seen) in [
        Case("4 failures", own(4, 0), ReasonCode::FailureBurst, false),
        Case("5 failures", own(5, 0), ReasonCode::FailureBurst, true),
        Case("5 failures, 15 minutes ago", own(5, burst), ReasonCode::FailureBurst, true),
        Case("5 failures, longer ago", own(5, burst + 1), ReasonCode::FailureBurst, false),
        Case("2 failures since", own(2, 0), ReasonCode::SuccessAfterFailures, false),
        Case("3 failures since", own(3, 0), ReasonCode::SuccessAfterFailures, true),
        Case("3 failures, an hour ago", own(3, after), ReasonCode::SuccessAfterFailures, true),
        Case("3 failures, longer ago", own(3, after + 1), ReasonCode::SuccessAfterFailures, false),
        Case("5 accounts at the address", others(5, |_| 1, 0), ReasonCode::IpFanOut, false),
        Case("6 accounts at the address", others(6, |_| 1, 0), ReasonCode::IpFanOut, true),
        Case("6 accounts, 30 minutes ago", others(6, |_| 1, fan_out), ReasonCode::IpFanOut, true),
        Case("6 accounts, longer ago", others(6, |_| 1, fan_out + 1), ReasonCode::IpFanOut, false),
        Case("19 accounts in the network", others(19, |n| 100 + n, 0), ReasonCode::IpFanOut, false),
        Case("20 accounts in the network", others(20, |n| 100 + n, 0), ReasonCode::IpFanOut, true),
        Case("7 at equal pauses", every(MINUTE_MS, 6), ReasonCode::AutomatedClient, false),
        Case("8 at equal pauses", every(MINUTE_MS, 7), ReasonCode::AutomatedClient, true),
        Case("8 in longer than an hour", every(9 * MINUTE_MS, 7), ReasonCode::AutomatedClient, false),
    ] {
        let mut world = settled();
        let before = world.now("ann", &home());
        for (account, octet, ago_ms) in failures {
            world.login(&account, &attempt(octet, 1, "IE", [1, 1, 1]), false, NOW_MS - ago_ms);
        }
        let after = world.now("ann", &home());
        assert_eq!(codes(&after).contains(&code), is_seen, "{what}");
        assert_eq!(after.likelihood_ratio, before.likelihood_ratio, "{what}: failures are no history");
        let factor = match code {
            ReasonCode::SuccessAfterFailures => 1.5_f64,
            ReasonCode::IpFanOut => 10.0,
            _ => 3.0,
        };
        let expected = is_seen.then(|| factor.ln());
        assert_eq!(effect(&after, &code), expected, "{what}");
    }
}

#[test]
fn a_success_ends_what_failures_before_it_say() {
    let mut world = settled();
    let ago = |minutes: i64| NOW_MS - minutes * MINUTE_MS;
    (0..4).for_each(|n| world.login("ann", &home(), false, ago(20 + n)));
    assert!(codes(&world.now("ann", &home())).contains(&ReasonCode::SuccessAfterFailures));
    world.login("ann", &home(), true, ago(10));
    assert!(!codes(&world.now("ann", &home())).contains(&ReasonCode::SuccessAfterFailures));
    // A late event from before the success changes nothing.
    world.login("ann", &home(), false, ago(15));
    assert!(!codes(&world.now("ann", &home())).contains(&ReasonCode::SuccessAfterFailures));
}

#[test]
fn irregular_attempts_are_a_person_and_an_empty_user_agent_is_not() {
    let mut world = settled();
    for (n, jitter) in [0, 4_000, -3_500, 5_000, 0, -4_000, 3_900].into_iter().enumerate() {
        world.login("ann", &home(), false, NOW_MS - (n as i64 + 1) * MINUTE_MS + jitter);
    }
    assert!(!codes(&world.now("ann", &home())).contains(&ReasonCode::AutomatedClient));
    for (user_agent, is_scripted) in [(Some(""), true), (Some(" "), true), (None, false), (Some("agent 1"), false)] {
        let asked = Attempt { user_agent: user_agent.map(str::to_owned), ..home() };
        let got = settled().now("ann", &asked);
        assert_eq!(codes(&got).contains(&ReasonCode::AutomatedClient), is_scripted, "{user_agent:?}");
    }
}

#[test]
fn an_account_sleeps_after_90_days() {
    for (days, ms, is_dormant) in [(90, 0, false), (90, 1, true), (1, 0, false)] {
        let mut world = World::new();
        world.login("ann", &home(), true, NOW_MS - days * DAY_MS - ms);
        let effect = effect(&world.now("ann", &home()), &ReasonCode::DormantAccount);
        assert_eq!(effect, is_dormant.then(|| 2.0_f64.ln()), "{days} days and {ms} ms");
    }
}

/// An attempt from a point on the equator that is `km` kilometres east of the origin, each with its own address.
fn at_km(km: f64) -> Attempt {
    let ip = std::net::Ipv4Addr::from_bits(0xcb00_7100 | (km as u32 % 251));
    Attempt { ip: ip.into(), latitude: Some(0.0), longitude: Some((km / 6_371.0).to_degrees()), ..home() }
}

#[test]
fn travel_is_impossible_when_it_is_too_far_and_too_fast() {
    const HOUR_MS: i64 = 60 * MINUTE_MS;
    for (what, km, took_ms, is_seen) in [
        ("jitter of a database, at once", 99.0, 0, false),
        ("beyond jitter, at once: the time is a minute", 101.0, 0, true),
        ("a flight", 1_790.0, 2 * HOUR_MS, false),
        ("faster than a flight", 1_810.0, 2 * HOUR_MS, true),
        ("around the globe in a day", 19_000.0, 24 * HOUR_MS, false),
    ] {
        let mut world = settled();
        world.login("ann", &at_km(0.0), true, NOW_MS - took_ms);
        let got = effect(&world.now("ann", &at_km(km)), &ReasonCode::ImpossibleTravel);
        assert_eq!(got, is_seen.then(|| 5.0_f64.ln()), "{what}");
    }
}

#[test]
fn travel_knows_exempt_networks_two_places_and_places_unknown() {
    let far = at_km(5_000.0);
    let mut world = settled();
    world.login("ann", &at_km(0.0), true, NOW_MS - MINUTE_MS);
    let seen = |world: &World, attempt: &Attempt, listed| {
        let features = Features::of(&world.rows, TENANT, attempt);
        let user = world.rows.owner(&user::row_key(TENANT, "ann"));
        let evidence = LoginEvidence { listed, ..LoginEvidence::of(user, &features, attempt, NOW_MS) };
        codes(&score(&evidence, &LoginPolicy::default())).contains(&ReasonCode::ImpossibleTravel)
    };
    let nowhere = ListMatches::default();
    assert!(seen(&world, &far, nowhere));
    assert!(!seen(&world, &far, ListMatches { exempt: true, ..nowhere }), "a relay is in no place");
    assert!(!seen(&world, &home(), nowhere), "an attempt without a place");
    // A login that happened after the attempt was folded before it: the way back counts as well.
    let mut later = settled();
    later.login("ann", &at_km(0.0), true, NOW_MS + MINUTE_MS);
    assert!(!seen(&later, &far, nowhere), "the last success before the attempt is at no known place");
    let mut both = World::new();
    both.login("ann", &at_km(0.0), true, NOW_MS + MINUTE_MS);
    assert!(seen(&both, &far, nowhere), "only a later one is known");
    for (hours, is_seen) in [(24, false), (25, true)] {
        let mut world = settled();
        world.login("ann", &far, true, NOW_MS - hours * 60 * MINUTE_MS);
        world.login("ann", &at_km(0.0), true, NOW_MS - MINUTE_MS);
        assert_eq!(seen(&world, &far, nowhere), is_seen, "there {hours} hours ago as well");
    }
}

fn at_place(ip: &str, km: f64, city: Option<&str>) -> Attempt {
    Attempt { ip: ip.parse().unwrap(), city: city.map(str::to_owned), ..at_km(km) }
}

#[test]
fn an_address_that_has_not_changed_has_not_travelled() {
    for (what, before, now, is_seen) in [
        ("another address", "203.0.113.20", "203.0.113.21", true),
        ("the same", "203.0.113.20", "203.0.113.20", false),
        ("the same through a translator", "203.0.113.20", "64:ff9b::203.0.113.20", false),
        ("another one of the household", "2001:db8:1:2::1", "2001:db8:1:2:a:b:c:d", false),
        ("another household", "2001:db8:1:2::1", "2001:db8:1:3::1", true),
    ] {
        let mut world = settled();
        world.login("ann", &at_place(before, 0.0, None), true, NOW_MS - MINUTE_MS);
        let got = world.now("ann", &at_place(now, 5_000.0, None));
        assert_eq!(codes(&got).contains(&ReasonCode::ImpossibleTravel), is_seen, "{what}");
    }
    // A telephone between two logins at an address whose place a newer file has moved.
    let mut world = settled();
    world.login("ann", &at_place("203.0.113.20", 0.0, None), true, NOW_MS - 60 * MINUTE_MS);
    world.login("ann", &at_place("198.51.100.9", 0.0, None), true, NOW_MS - MINUTE_MS);
    let moved = world.now("ann", &at_place("203.0.113.20", 5_000.0, None));
    assert!(!codes(&moved).contains(&ReasonCode::ImpossibleTravel));
    let distance = LoginPolicy::read(
        &serde_json::json!({"rules": [{"code": "FAR", "when": "distance_km > 1.0", "factor": 2.0}]}),
        &LoginPolicy::default(),
    );
    let same = world.score("ann", &at_place("198.51.100.9", 5_000.0, None), NOW_MS, &distance.unwrap());
    assert!(!codes(&same).contains(&ReasonCode::Rule("FAR".into())), "rules see no journey either");
}

#[test]
fn a_place_without_a_city_is_compared_with_its_like_alone() {
    for (before, now, is_seen) in [
        (None, None, true),
        (Some("Cork"), Some("Oslo"), true),
        (Some("Cork"), None, false),
        (None, Some("Oslo"), false),
    ] {
        let mut world = settled();
        world.login("ann", &at_place("203.0.113.20", 0.0, before), true, NOW_MS - MINUTE_MS);
        let got = world.now("ann", &at_place("203.0.113.21", 5_000.0, now));
        assert_eq!(codes(&got).contains(&ReasonCode::ImpossibleTravel), is_seen, "{before:?} {now:?}");
    }
}

/// An attempt of which only the address is known.
fn from_ip(ip: &str) -> Attempt {
    Attempt::from_ip(ip.parse().unwrap())
}

#[test]
fn a_temporary_address_makes_no_stranger_of_its_household() {
    let mut world = World::new();
    for day in 1..=6 {
        world.login("ann", &from_ip(&format!("2001:db8:7:100::{day}")), true, NOW_MS - day * DAY_MS);
        world.login("bob", &from_ip(&format!("2001:db8:9:{day}::1")), true, NOW_MS - day * DAY_MS);
    }
    let at = |ip: &str| world.now("ann", &from_ip(ip));
    let (known, site, elsewhere) = (at("2001:db8:7:100:a:b:c:d"), at("2001:db8:7:1ff::1"), at("2001:db8:8:1::1"));
    assert_eq!(codes(&known), [ReasonCode::History, ReasonCode::KnownIp, ReasonCode::OwnAddress]);
    assert_eq!(
        codes(&site),
        [ReasonCode::History, ReasonCode::NewIp, ReasonCode::OwnAddress],
        "another network of the same home"
    );
    assert_eq!(codes(&elsewhere), [ReasonCode::History, ReasonCode::NewIp]);
    assert!(known.score < site.score && site.score < elsewhere.score);
    // The protocols differ in nothing else: the same history over IPv4 has the same score.
    let mut v4 = World::new();
    for day in 1..=6 {
        v4.login("ann", &from_ip("198.51.100.7"), true, NOW_MS - day * DAY_MS);
        v4.login("bob", &from_ip(&format!("203.0.113.{day}")), true, NOW_MS - day * DAY_MS);
    }
    assert_eq!(known.score, v4.now("ann", &from_ip("198.51.100.7")).score);
    assert_eq!(elsewhere.score, v4.now("ann", &from_ip("192.0.2.7")).score);
}

#[test]
fn accounts_that_fail_within_a_household_a_site_or_a_network_are_seen_whatever_the_address() {
    type Address = fn(u32) -> String;
    for (what, accounts, address, is_seen) in [
        ("5 in a /64", 5, (|n| format!("2001:db8:1:200:{n:x}::9")) as Address, false),
        ("6 in a /64", 6, |n| format!("2001:db8:1:200:{n:x}::9"), true),
        ("5 in a /56", 5, |n| format!("2001:db8:1:2{n:02x}::9"), false),
        ("6 in a /56", 6, |n| format!("2001:db8:1:2{n:02x}::9"), true),
        ("19 in a /48", 19, |n| format!("2001:db8:1:{n:x}00::9"), false),
        ("20 in a /48", 20, |n| format!("2001:db8:1:{n:x}00::9"), true),
        ("20 in a /47", 20, |n| format!("2001:db8:{}:{n:x}00::9", n % 2), false),
        ("6 by one translator", 6, |n| format!("64:ff9b::198.51.{n}.7"), false),
        ("6 at one translated address", 6, |n| format!("2002:c633:6407:{n:x}::9"), true),
    ] {
        let mut world = settled();
        (0..accounts).for_each(|n| world.login(&format!("u{n}"), &from_ip(&address(n)), false, NOW_MS));
        let got = world.now("ann", &from_ip(&address(0)));
        assert_eq!(codes(&got).contains(&ReasonCode::IpFanOut), is_seen, "{what}");
    }
}

#[test]
fn a_reported_address_is_that_of_its_household() {
    let mut world = World::new();
    let login = |decision_id: &str| Login {
        user_id: "ann".into(),
        succeeded: true,
        attempt: from_ip("2001:db8:1:2::1"),
        decision_id: Some(decision_id.into()),
        session_id: None,
        method: None,
        failure_reason: None,
    };
    world.fact(LoginFact::Attempted(Box::new(login("mine"))).into(), NOW_MS - DAY_MS);
    world.fact(LoginFact::Attempted(Box::new(login("theirs"))).into(), NOW_MS - DAY_MS);
    let verdict = foretell_events::login::Verdict {
        user_id: "ann".into(),
        decision_id: "theirs".into(),
        reported_by: None,
        ip: None,
        device_id: None,
        asn: None,
        country: None,
        user_agent: None,
        idempotency_digest: None,
    };
    world.fact(LoginFact::Reported(Box::new(verdict)).into(), NOW_MS - MINUTE_MS);
    let is_reported = |ip: &str| codes(&world.now("ann", &from_ip(ip))).contains(&ReasonCode::ReportedByUser);
    assert!(is_reported("2001:db8:1:2:ffff::7") && !is_reported("2001:db8:1:3::1"));
}

#[test]
fn lists_and_exemptions_decide_about_networks() {
    let mut world = settled();
    (0..6).for_each(|n| world.login(&format!("u{n}"), &home(), false, NOW_MS));
    let attempt = home();
    let features = Features::of(&world.rows, TENANT, &attempt);
    let user = world.rows.owner(&user::row_key(TENANT, "ann"));
    for (denied, exempt, expected) in [
        (false, false, vec![ReasonCode::IpFanOut]),
        (true, false, vec![ReasonCode::IpFanOut, ReasonCode::DenylistedNetwork]),
        (true, true, vec![]),
        (false, true, vec![]),
    ] {
        let listed = ListMatches { denied, exempt };
        let evidence = LoginEvidence { listed, ..LoginEvidence::of(user, &features, &attempt, NOW_MS) };
        let got = codes(&score(&evidence, &LoginPolicy::default()));
        let got: Vec<_> = got
            .into_iter()
            .filter(|code| matches!(code, ReasonCode::IpFanOut | ReasonCode::DenylistedNetwork))
            .collect();
        assert_eq!(got, expected, "{listed:?}");
    }
}

#[test]
fn an_address_is_the_users_own_while_few_others_try_from_it() {
    for (others, is_own) in [(7, true), (8, false)] {
        let mut world = settled();
        (0..others).for_each(|n| world.login(&format!("u{n}"), &home(), true, NOW_MS - DAY_MS));
        let got = effect(&world.now("ann", &home()), &ReasonCode::OwnAddress);
        assert_eq!(got, is_own.then(|| 0.02_f64.ln()), "{others} others");
    }
    let elsewhere = attempt(9, 1, "IE", [1, 1, 1]);
    assert!(!codes(&settled().now("ann", &elsewhere)).contains(&ReasonCode::OwnAddress));
}

#[test]
fn a_network_of_the_users_is_told_from_others() {
    for (asn, is_own) in [(Some(1), true), (Some(2), false), (None, false)] {
        let asked = Attempt { asn, ..home() };
        let got = effect(&settled().now("ann", &asked), &ReasonCode::OwnNetwork);
        assert_eq!(got, is_own.then(|| 0.1_f64.ln()), "{asn:?}");
    }
}

#[test]
fn an_id_that_is_withheld_tells_where_all_that_look_alike_have_one() {
    let named = |id: &str| Attempt { device_id: Some(id.into()), ..home() };
    for (what, history, asked, is_withheld) in [
        ("its devices have ids", vec![named("laptop")], home(), true),
        ("it has its id", vec![named("laptop")], named("laptop"), false),
        ("one never had an id", vec![named("laptop"), home()], home(), false),
        ("none looks like it", vec![named("laptop")], attempt(1, 1, "IE", [7, 7, 3]), false),
        ("nothing is known", vec![], home(), false),
    ] {
        let mut world = World::new();
        world.login("ann", &attempt(1, 1, "IE", [5, 5, 5]), true, NOW_MS - 2 * DAY_MS);
        history.iter().for_each(|past| world.login("ann", past, true, NOW_MS - DAY_MS));
        let got = effect(&world.now("ann", &asked), &ReasonCode::DeviceWithheld);
        assert_eq!(got, is_withheld.then(|| 1_000.0_f64.ln()), "{what}");
    }
}

#[test]
fn signals_in_the_shadow_are_told_and_change_nothing_and_those_off_are_not_looked_for() {
    let world = settled();
    let stranger = Attempt { device_id: Some("new".into()), ..home() };
    let by = |mode| {
        let mut policy = LoginPolicy::default();
        policy.signals.new_device.mode = mode;
        world.score("ann", &stranger, NOW_MS, &policy)
    };
    let (on, shadow, off) = (by(Switch::On), by(Switch::Shadow), by(Switch::Off));
    let factor = LoginPolicy::default().signals.new_device.factor;
    assert_eq!(effect(&on, &ReasonCode::NewDevice), Some(factor.ln()));
    assert_eq!((shadow.score, effect(&shadow, &ReasonCode::NewDevice)), (off.score, None));
    assert_eq!(
        shadow.shadow.iter().map(|r| (&r.code, r.effect)).collect::<Vec<_>>(),
        [(&ReasonCode::NewDevice, factor.ln())]
    );
    assert!(on.shadow.is_empty() && off.shadow.is_empty() && on.score > off.score);
}

#[test]
fn devices_are_known_for_90_days_and_unshown_ones_are_neutral() {
    let named = |id: &str| Attempt { device_id: Some(id.into()), ..home() };
    let bare = Attempt::from_ip(home().ip);
    let mut world = World::new();
    world.login("ann", &named("laptop"), true, NOW_MS);
    for (what, attempt, days, is_new) in [
        ("the same", named("laptop"), 1, false),
        ("unnamed, looks the same", home(), 1, false),
        ("another name, looks the same", named("phone"), 1, true),
        ("unnamed, looks different", attempt(1, 1, "IE", [7, 7, 3]), 1, true),
        ("shows no device", bare, 1, false),
        ("the same, after 90 days", named("laptop"), 90, true),
    ] {
        let at_ms = NOW_MS + days * DAY_MS;
        let score = world.score("ann", &attempt, at_ms, &LoginPolicy::default());
        assert_eq!(codes(&score).contains(&ReasonCode::NewDevice), is_new, "{what}");
    }
}

#[test]
fn a_new_country_counts_only_where_both_sides_have_one() {
    let without = Attempt { country: None, ..home() };
    for (history, attempt, is_new) in [
        (home(), Attempt { country: Some("NO".into()), ..home() }, true),
        (home(), home(), false),
        (home(), without.clone(), false),
        (without, home(), false),
    ] {
        let mut world = World::new();
        world.login("ann", &history, true, NOW_MS - DAY_MS);
        let score = world.now("ann", &attempt);
        assert_eq!(codes(&score).contains(&ReasonCode::NewCountry), is_new, "{history:?} {attempt:?}");
    }
}

#[test]
fn thresholds_belong_to_the_level_above() {
    let world = settled();
    let attempt = attempt(9, 9, "XX", [9, 9, 9]);
    let score = world.now("ann", &attempt).score.unwrap();
    for (challenge_at, deny_at, expected) in [
        (score, 1.0, (RiskLevel::Medium, LoginDecision::Challenge)),
        (score.next_up(), 1.0, (RiskLevel::Low, LoginDecision::Allow)),
        (0.1, score, (RiskLevel::High, LoginDecision::Deny)),
        (0.1, score.next_up(), (RiskLevel::Medium, LoginDecision::Challenge)),
    ] {
        let policy = LoginPolicy { challenge_at, deny_at, ..LoginPolicy::default() };
        let got = world.score("ann", &attempt, NOW_MS, &policy);
        assert_eq!((got.level, got.decision), expected, "{challenge_at} {deny_at}");
    }
}

#[test]
fn levels_that_an_attempt_lacks_are_neutral() {
    let world = settled();
    let bare = world.now("ann", &Attempt::from_ip(home().ip));
    assert_eq!(
        codes(&bare),
        [ReasonCode::History, ReasonCode::KnownIp, ReasonCode::OwnAddress],
        "no client software, no comparison of it"
    );
    let mut alone = World::new();
    alone.login("ann", &Attempt::from_ip(home().ip), true, NOW_MS - DAY_MS);
    // N = U = N_u = 1; c = cu = 1, M = m = 1: g = 0.6 · 1/2 · 1/2, l = 0.6.
    let ratio = alone.now("ann", &Attempt::from_ip(home().ip)).likelihood_ratio.unwrap();
    assert!((ratio - 0.25).abs() < 1e-15, "{ratio}");
}

#[test]
fn only_the_faithful_mode_lets_a_weak_match_look_worse_than_none() {
    let mut world = World::new();
    // All others use desktop systems; ann used one once, among many mobile logins.
    for day in 0..30 {
        world.login("bob", &attempt(2, 2, "NO", [2, 2, 2]), true, NOW_MS - day * DAY_MS);
        world.login("ann", &home(), true, NOW_MS - day * DAY_MS);
    }
    world.login("ann", &attempt(1, 1, "IE", [4, 4, 4]), true, NOW_MS - DAY_MS);
    // Its system and browser are bob's; only the device type matches ann's history, once.
    let weak = attempt(1, 1, "IE", [2, 2, 2]);
    let ratio = |mode| {
        let policy = LoginPolicy { mode, ..LoginPolicy::default() };
        let score = world.score("ann", &weak, NOW_MS, &policy);
        let client: f64 = score.reasons.iter().filter(|r| r.code == ReasonCode::NewUserAgent).map(|r| r.effect).sum();
        client.exp()
    };
    assert!(ratio(Mode::Faithful) > 100.0, "{}", ratio(Mode::Faithful));
    assert!(ratio(Mode::Monotone) <= likelihood::UNKNOWN_RATIO + 1e-12, "{}", ratio(Mode::Monotone));
}

#[test]
fn rows_that_are_a_step_apart_still_give_a_score() {
    let mut world = World::new();
    world.login("ann", &home(), true, NOW_MS - DAY_MS);
    let user = world.rows.owner(&user::row_key(TENANT, "ann"));
    let (features, home) = (Features::default(), home());
    let evidence = LoginEvidence::of(user, &features, &home, NOW_MS);
    for mode in [Mode::Faithful, Mode::Monotone] {
        let score = score(&evidence, &LoginPolicy { mode, ..LoginPolicy::default() });
        assert!(score.score.is_some_and(|score| score > 0.0 && score < 1.0), "{score:?}");
    }
}

#[test]
fn unusable_settings_are_named() {
    let valid = LoginPolicy::default();
    assert_eq!(valid.validate(), Ok(()));
    let with = |change: fn(&mut LoginPolicy)| {
        let mut policy = valid.clone();
        change(&mut policy);
        policy
    };
    for (policy, field) in [
        (with(|policy| policy.challenge_at = -0.1), "challenge_at"),
        (with(|policy| policy.challenge_at = f64::NAN), "challenge_at"),
        (with(|policy| policy.deny_at = 0.3), "deny_at"),
        (with(|policy| policy.deny_at = 1.1), "deny_at"),
        (with(|policy| policy.signals.new_device.factor = 0.0), "signals.new_device.factor"),
        (with(|policy| policy.signals.new_country.factor = f64::INFINITY), "signals.new_country.factor"),
        (with(|policy| policy.signals.failure_burst.factor = -1.0), "signals.failure_burst.factor"),
        (with(|policy| policy.signals.ip_fan_out.factor = f64::NAN), "signals.ip_fan_out.factor"),
        (with(|policy| policy.signals.dormant_account.factor = 10_000.1), "signals.dormant_account.factor"),
        (
            with(|policy| policy.signals.impossible_travel.speed_kmh_max = 0.0),
            "signals.impossible_travel.speed_kmh_max",
        ),
    ] {
        assert_eq!(policy.validate().unwrap_err().field, field);
    }
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let levels = (0_u8..6, 0_u32..4, 0_usize..3, 0_u8..6, 0_u8..4, 0_u8..4, 0_u8..8);
    levels.prop_map(|(ip, asn, country, agent, browser, os, lacks)| {
        let mut drawn = attempt(ip, asn, ["IE", "NO", "DE"][country], [agent, browser, os]);
        match lacks {
            0 => drawn.asn = None,
            1 => drawn.country = None,
            2 => drawn.user_agent = None,
            3 => drawn.device_type = None,
            _ => {}
        }
        drawn
    })
}

/// Up to 60 logins of four users.
fn any_history() -> impl Strategy<Value = Vec<(usize, Attempt, bool)>> {
    prop::collection::vec((0_usize..4, any_attempt(), prop::bool::weighted(0.85)), 1..60)
}

fn fold(history: &[(usize, Attempt, bool)]) -> World {
    let mut world = World::new();
    for (minute, (user, attempt, succeeded)) in history.iter().enumerate() {
        world.login(USERS[*user], attempt, *succeeded, NOW_MS + minute as i64 * MINUTE_MS);
    }
    world
}

const USERS: [&str; 4] = ["ann", "bob", "cid", "dot"];

/// Makes one level match the user's history and leaves those below it as they are. Stronger levels are replaced in
/// both attempts, by values that the user never had.
fn pair(target: &Attempt, past: &Attempt, level: FeatureLevel) -> (Attempt, Attempt) {
    let mut worse = target.clone();
    let unseen = Some("unseen".to_owned());
    if matches!(level, FeatureLevel::Ip | FeatureLevel::Asn | FeatureLevel::Country) {
        worse.ip = "203.0.113.1".parse().unwrap();
    }
    match level {
        FeatureLevel::Asn => worse.asn = Some(999),
        FeatureLevel::Country => (worse.asn, worse.country) = (Some(999), unseen),
        FeatureLevel::UserAgent => worse.user_agent = unseen,
        FeatureLevel::Browser => (worse.user_agent, worse.browser) = (unseen.clone(), unseen),
        FeatureLevel::Os => (worse.user_agent, worse.browser, worse.os) = (unseen.clone(), unseen.clone(), unseen),
        FeatureLevel::DeviceType => {
            (worse.user_agent, worse.browser) = (unseen.clone(), unseen.clone());
            (worse.os, worse.device_type) = (unseen.clone(), unseen);
        }
        _ => {}
    }
    let mut better = worse.clone();
    match level {
        FeatureLevel::Ip => better.ip = past.ip,
        FeatureLevel::Asn => better.asn = past.asn,
        FeatureLevel::Country => better.country = past.country.clone(),
        FeatureLevel::UserAgent => better.user_agent = past.user_agent.clone(),
        FeatureLevel::Browser => better.browser = past.browser.clone(),
        FeatureLevel::Os => better.os = past.os.clone(),
        _ => better.device_type = past.device_type.clone(),
    }
    (worse, better)
}

const COMPARED: [FeatureLevel; 7] = [
    FeatureLevel::Ip,
    FeatureLevel::Asn,
    FeatureLevel::Country,
    FeatureLevel::UserAgent,
    FeatureLevel::Browser,
    FeatureLevel::Os,
    FeatureLevel::DeviceType,
];

/// A /64 that is not a translation prefix, and two addresses in it.
fn two_of_a_household() -> impl Strategy<Value = (std::net::IpAddr, std::net::IpAddr)> {
    let network = (0x2003_u64..0x3fff).prop_flat_map(|first| (0_u64..1 << 48).prop_map(move |rest| first << 48 | rest));
    (network, any::<u64>(), any::<u64>()).prop_map(|(network, one, other)| {
        let of = |low: u64| std::net::Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(low)).into();
        (of(one), of(other))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// After any actions of one address, the other gets the same rows and the same score.
    #[test]
    fn two_addresses_of_a_64_have_the_same_rows_and_scores(
        (one, other) in two_of_a_household(),
        history in any_history(),
        moved in prop::collection::vec(any::<bool>(), 60),
        target in any_attempt(),
    ) {
        let with = |ip, attempt: &Attempt| Attempt { ip, ..attempt.clone() };
        prop_assert_eq!(Features::keys(TENANT, &with(one, &target)), Features::keys(TENANT, &with(other, &target)));
        let fold = |second: std::net::IpAddr| {
            let history: Vec<_> = history.iter().zip(&moved).map(|((user, attempt, succeeded), is_moved)| {
                (*user, with(if *is_moved { second } else { one }, attempt), *succeeded)
            }).collect();
            fold(&history)
        };
        let at_ms = NOW_MS + history.len() as i64 * MINUTE_MS;
        let score = |world: &World, ip| world.score("ann", &with(ip, &target), at_ms, &LoginPolicy::default());
        let (steady, changing) = (fold(one), fold(other));
        prop_assert_eq!(score(&steady, one), score(&steady, other));
        prop_assert_eq!(score(&steady, one), score(&changing, other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// 400 histories with 56 pairs each.
    #[test]
    fn one_more_match_never_raises_the_ratio(
        history in any_history(),
        targets in prop::collection::vec((any_attempt(), 0_usize..60), 8),
    ) {
        let world = fold(&history);
        for (target, nth) in &targets {
            let (user, past, succeeded) = &history[nth % history.len()];
            if !succeeded {
                continue;
            }
            for level in COMPARED.into_iter().filter(|level| level.value(past).is_some()) {
                let (worse, better) = pair(target, past, level);
                let ratio = |attempt| world.now(USERS[*user], attempt).likelihood_ratio.unwrap();
                let (worse_ratio, better_ratio) = (ratio(&worse), ratio(&better));
                prop_assert!(
                    better_ratio <= worse_ratio * (1.0 + 1e-12),
                    "{level:?}: {better_ratio} > {worse_ratio}\n{worse:?}\n{better:?}"
                );
            }
        }
    }

    #[test]
    fn effects_add_up_to_the_log_odds(history in any_history(), target in any_attempt(), user in 0_usize..4) {
        let world = fold(&history);
        let at_ms = NOW_MS + history.len() as i64 * MINUTE_MS;
        for mode in [Mode::Faithful, Mode::Monotone] {
            let rules = serde_json::json!({"rules": [
                {"code": "NIGHT", "when": "hour_utc < 12", "factor": 0.5},
                {"code": "ABROAD", "when": "new_country && !known_device", "factor": 7.0},
            ]});
            let policy = LoginPolicy::read(&rules, &LoginPolicy { mode, ..LoginPolicy::default() }).unwrap();
            let got = world.score(USERS[user], &target, at_ms, &policy);
            match got.score {
                Some(score) => {
                    prop_assert!(score > 0.0 && score < 1.0);
                    let log_odds = (score / (1.0 - score)).ln();
                    prop_assert!((sum(&got) - log_odds).abs() < 1e-9, "{} {log_odds}", sum(&got));
                    prop_assert_eq!(score >= policy.deny_at, got.decision == LoginDecision::Deny);
                    prop_assert_eq!(score >= policy.challenge_at, got.decision != LoginDecision::Allow);
                }
                None => prop_assert!(got.reasons.iter().all(|reason| reason.effect == 0.0)),
            }
        }
    }
}
