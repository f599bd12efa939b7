//! Tables at both sides of each boundary, and the properties that hold for any history.

use super::*;
use crate::event::login::Login;
use crate::event::{Envelope, Event, Fact};
use crate::view::Place;
use crate::view::user;
use proptest::prelude::*;

const TENANT: &str = "t";
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// When the attempts of the tables happen.
const NOW_MS: i64 = 1_000 * DAY_MS;

/// A log that is folded as it is written.
struct World {
    rows: Materialized<Logins>,
    offset: i64,
}

impl World {
    fn new() -> Self {
        Self { rows: Materialized::new(Logins::default()), offset: 0 }
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
        let envelope = Envelope { id: self.offset.to_string(), source: "test".into(), tenant: TENANT.into(), time_ms };
        let event = Event { envelope, fact: Fact::Login(Box::new(login)) };
        self.rows.take(&event, Place { partition: (self.offset % 3) as u32, offset: self.offset });
        self.offset += 1;
    }

    fn score(&self, user_id: &str, attempt: &Attempt, at_ms: i64, config: &Config) -> Score {
        let features = Features::of(&self.rows, TENANT, attempt);
        let user = self.rows.owner(&user::row_key(TENANT, user_id));
        score(&Evidence { user, features: &features, attempt, at_ms }, config)
    }

    /// Scores at [`NOW_MS`] with the defaults.
    fn now(&self, user_id: &str, attempt: &Attempt) -> Score {
        self.score(user_id, attempt, NOW_MS, &Config::default())
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

fn codes(score: &Score) -> Vec<Code> {
    score.reasons.iter().map(|reason| reason.code).collect()
}

fn sum(score: &Score) -> f64 {
    score.reasons.iter().map(|reason| reason.effect).sum()
}

#[test]
fn the_usual_attempt_is_allowed_and_a_stolen_password_is_not() {
    let world = settled();
    let usual = world.now("ann", &home());
    assert_eq!((usual.level, usual.decision), (Risk::Low, Decision::Allow));
    assert_eq!(codes(&usual), [Code::History, Code::KnownIp, Code::KnownUserAgent]);
    let stolen = world.now("ann", &attempt(9, 9, "XX", [9, 9, 9]));
    assert_eq!((stolen.level, stolen.decision), (Risk::High, Decision::Deny));
    let expected =
        [Code::History, Code::NewIp, Code::NewNetwork, Code::NewUserAgent, Code::NewDevice, Code::NewCountry];
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
        assert_eq!((first.level, first.decision), (Risk::Unscored, Decision::Challenge), "{user_id}");
        assert_eq!(first.reasons[0].code, Code::FirstLogin);
        assert_eq!(codes(&first).contains(&Code::FailureBurst), failures == 5, "{user_id}");
        assert_eq!(sum(&first), 0.0, "nothing was scored, so nothing contributes");
        assert_eq!(first.history.failures_recent, failures as usize);
    }
}

#[test]
fn signals_begin_and_end_at_their_boundaries() {
    /// Failures of accounts at last octets, a number of minutes before the attempt.
    struct Case(&'static str, Vec<(String, u8, i64)>, Option<Code>);
    let own = |failures: i64, ms: i64| (0..failures).map(|_| ("ann".to_owned(), 200, ms)).collect::<Vec<_>>();
    let others = |accounts: u8, octet: fn(u8) -> u8, ms: i64| {
        (0..accounts).map(|account| (format!("u{account}"), octet(account), ms)).collect::<Vec<_>>()
    };
    let (burst, fan_out) = (user::FAILURES_WINDOW_MS, feature::FAN_OUT_WINDOW_MS);
    for Case(what, failures, code) in [
        Case("4 failures", own(4, 0), None),
        Case("5 failures", own(5, 0), Some(Code::FailureBurst)),
        Case("5 failures, 15 minutes ago", own(5, burst), Some(Code::FailureBurst)),
        Case("5 failures, longer ago", own(5, burst + 1), None),
        Case("5 accounts at the address", others(5, |_| 1, 0), None),
        Case("6 accounts at the address", others(6, |_| 1, 0), Some(Code::IpFanOut)),
        Case("6 accounts, 30 minutes ago", others(6, |_| 1, fan_out), Some(Code::IpFanOut)),
        Case("6 accounts, longer ago", others(6, |_| 1, fan_out + 1), None),
        Case("19 accounts in the network", others(19, |n| 100 + n, 0), None),
        Case("20 accounts in the network", others(20, |n| 100 + n, 0), Some(Code::IpFanOut)),
    ] {
        let mut world = settled();
        let before = world.now("ann", &home());
        for (account, octet, ago_ms) in failures {
            world.login(&account, &attempt(octet, 1, "IE", [1, 1, 1]), false, NOW_MS - ago_ms);
        }
        let after = world.now("ann", &home());
        let seen = codes(&after).into_iter().find(|code| matches!(code, Code::FailureBurst | Code::IpFanOut));
        assert_eq!(seen, code, "{what}");
        let factor = match code {
            Some(Code::FailureBurst) => 3.0_f64,
            Some(_) => 10.0,
            None => 1.0,
        };
        assert_eq!(after.likelihood_ratio, before.likelihood_ratio, "{what}: failures are no history");
        assert!((sum(&after) - sum(&before) - factor.ln()).abs() < 1e-9, "{what}");
    }
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
        let score = world.score("ann", &attempt, at_ms, &Config::default());
        assert_eq!(codes(&score).contains(&Code::NewDevice), is_new, "{what}");
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
        assert_eq!(codes(&score).contains(&Code::NewCountry), is_new, "{history:?} {attempt:?}");
    }
}

#[test]
fn thresholds_belong_to_the_level_above() {
    let world = settled();
    let attempt = attempt(9, 9, "XX", [9, 9, 9]);
    let score = world.now("ann", &attempt).score.unwrap();
    for (challenge_at, deny_at, expected) in [
        (score, 1.0, (Risk::Medium, Decision::Challenge)),
        (score.next_up(), 1.0, (Risk::Low, Decision::Allow)),
        (0.1, score, (Risk::High, Decision::Deny)),
        (0.1, score.next_up(), (Risk::Medium, Decision::Challenge)),
    ] {
        let config = Config { challenge_at, deny_at, ..Config::default() };
        let got = world.score("ann", &attempt, NOW_MS, &config);
        assert_eq!((got.level, got.decision), expected, "{challenge_at} {deny_at}");
    }
}

#[test]
fn ten_to_one_is_denied_to_the_bit() {
    assert_eq!(10.0 / (1.0 + 10.0), Config::default().deny_at);
    assert_eq!(1.0 / (1.0 + 1.0), Config::default().challenge_at);
}

#[test]
fn levels_that_an_attempt_lacks_are_neutral() {
    let world = settled();
    let bare = world.now("ann", &Attempt::from_ip(home().ip));
    assert_eq!(codes(&bare), [Code::History, Code::KnownIp], "no client software, no comparison of it");
    let mut alone = World::new();
    alone.login("ann", &Attempt::from_ip(home().ip), true, NOW_MS - DAY_MS);
    // N = U = N_u = 1; c = cu = 1, M = m = 1: g = 0.6 · 1/2 · 1/2, l = 0.6.
    let ratio = alone.now("ann", &Attempt::from_ip(home().ip)).likelihood_ratio.unwrap();
    assert!((ratio - 0.25).abs() < 1e-15, "{ratio}");
}

#[test]
fn only_the_faithful_mode_lets_a_weak_match_look_worse_than_none() {
    let mut world = World::new();
    // Everybody else is on desktop systems; ann was there once among many mobile logins.
    for day in 0..30 {
        world.login("bob", &attempt(2, 2, "NO", [2, 2, 2]), true, NOW_MS - day * DAY_MS);
        world.login("ann", &home(), true, NOW_MS - day * DAY_MS);
    }
    world.login("ann", &attempt(1, 1, "IE", [4, 4, 4]), true, NOW_MS - DAY_MS);
    // Its system and browser are bob's; of ann's history the device type alone matches, once.
    let weak = attempt(1, 1, "IE", [2, 2, 2]);
    let ratio = |mode| {
        let config = Config { mode, ..Config::default() };
        let score = world.score("ann", &weak, NOW_MS, &config);
        let client: f64 = score.reasons.iter().filter(|r| r.code == Code::NewUserAgent).map(|r| r.effect).sum();
        client.exp()
    };
    assert!(ratio(Mode::Faithful) > 100.0, "{}", ratio(Mode::Faithful));
    assert!(ratio(Mode::Monotone) <= UNKNOWN_RATIO + 1e-12, "{}", ratio(Mode::Monotone));
}

#[test]
fn rows_that_are_a_step_apart_still_give_a_score() {
    let mut world = World::new();
    world.login("ann", &home(), true, NOW_MS - DAY_MS);
    let user = world.rows.owner(&user::row_key(TENANT, "ann"));
    let evidence = Evidence { user, features: &Features::default(), attempt: &home(), at_ms: NOW_MS };
    for mode in [Mode::Faithful, Mode::Monotone] {
        let score = score(&evidence, &Config { mode, ..Config::default() });
        assert!(score.score.is_some_and(|score| score > 0.0 && score < 1.0), "{score:?}");
    }
}

#[test]
fn unusable_settings_are_named() {
    let valid = Config::default();
    assert_eq!(valid.validate(), Ok(()));
    for (config, field) in [
        (Config { challenge_at: -0.1, ..valid.clone() }, "challenge_at"),
        (Config { challenge_at: f64::NAN, ..valid.clone() }, "challenge_at"),
        (Config { deny_at: 0.4, ..valid.clone() }, "deny_at"),
        (Config { deny_at: 1.1, ..valid.clone() }, "deny_at"),
        (Config { new_device_factor: 0.0, ..valid.clone() }, "new_device_factor"),
        (Config { new_country_factor: f64::INFINITY, ..valid.clone() }, "new_country_factor"),
        (Config { failure_burst_factor: -1.0, ..valid.clone() }, "failure_burst_factor"),
        (Config { ip_fan_out_factor: f64::NAN, ..valid }, "ip_fan_out_factor"),
    ] {
        assert_eq!(config.validate().unwrap_err().field, field);
    }
    assert!(serde_json::from_str::<Config>(r#"{"mode": "faithful"}"#).is_ok_and(|c| c.mode == Mode::Faithful));
    assert!(serde_json::from_str::<Config>(r#"{"modus": "faithful"}"#).is_err());
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
fn pair(target: &Attempt, past: &Attempt, level: Level) -> (Attempt, Attempt) {
    let mut worse = target.clone();
    let unseen = Some("unseen".to_owned());
    if matches!(level, Level::Ip | Level::Asn | Level::Country) {
        worse.ip = "203.0.113.1".parse().unwrap();
    }
    match level {
        Level::Asn => worse.asn = Some(999),
        Level::Country => (worse.asn, worse.country) = (Some(999), unseen),
        Level::UserAgent => worse.user_agent = unseen,
        Level::Browser => (worse.user_agent, worse.browser) = (unseen.clone(), unseen),
        Level::Os => (worse.user_agent, worse.browser, worse.os) = (unseen.clone(), unseen.clone(), unseen),
        Level::DeviceType => {
            (worse.user_agent, worse.browser) = (unseen.clone(), unseen.clone());
            (worse.os, worse.device_type) = (unseen.clone(), unseen);
        }
        _ => {}
    }
    let mut better = worse.clone();
    match level {
        Level::Ip => better.ip = past.ip,
        Level::Asn => better.asn = past.asn,
        Level::Country => better.country = past.country.clone(),
        Level::UserAgent => better.user_agent = past.user_agent.clone(),
        Level::Browser => better.browser = past.browser.clone(),
        Level::Os => better.os = past.os.clone(),
        _ => better.device_type = past.device_type.clone(),
    }
    (worse, better)
}

const COMPARED: [Level; 7] =
    [Level::Ip, Level::Asn, Level::Country, Level::UserAgent, Level::Browser, Level::Os, Level::DeviceType];

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
            let config = Config { mode, ..Config::default() };
            let got = world.score(USERS[user], &target, at_ms, &config);
            match got.score {
                Some(score) => {
                    prop_assert!(score > 0.0 && score < 1.0);
                    let log_odds = (score / (1.0 - score)).ln();
                    prop_assert!((sum(&got) - log_odds).abs() < 1e-9, "{} {log_odds}", sum(&got));
                    prop_assert_eq!(score >= config.deny_at, got.decision == Decision::Deny);
                    prop_assert_eq!(score >= config.challenge_at, got.decision != Decision::Allow);
                }
                None => prop_assert!(got.reasons.iter().all(|reason| reason.effect == 0.0)),
            }
        }
    }
}
