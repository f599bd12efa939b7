//! Properties of every simulated history, whatever its seed.

use super::world::{Kind, Network, distance_km};
use super::*;
use crate::source::{self, Origin, SourceFormat, SourceLabel};
use foretell_events::Fact;
use std::collections::{BTreeMap, BTreeSet};

fn history(users: u32, days: u32, seed: u64) -> Vec<Simulated> {
    SimulatedHistory::new(HistorySize { users, days, seed }).unwrap().collect()
}

fn login(simulated: &Simulated) -> &Login {
    let Fact::Login(LoginFact::Attempted(login)) = &simulated.event.fact else { panic!("{simulated:?}") };
    login
}

fn lines(users: u32, days: u32, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut days_reported = Vec::new();
    let history = SimulatedHistory::new(HistorySize { users, days, seed }).unwrap();
    let events = write(history, &mut out, &mut |day| days_reported.push(day)).unwrap();
    assert_eq!(events as usize, out.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(days_reported.last(), Some(&u64::from(days)));
    out
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_one_others() {
    assert_eq!(lines(40, 60, 7), lines(40, 60, 7));
    assert_ne!(lines(40, 60, 7), lines(40, 60, 8));
}

#[test]
fn a_history_is_in_order_and_is_read_as_it_was_made() {
    let made = history(60, 120, 3);
    let times: Vec<_> = made.iter().map(|simulated| simulated.event.envelope.time_ms).collect();
    assert!(times.is_sorted());
    let ids: BTreeSet<_> = made.iter().map(|simulated| &simulated.event.envelope.id).collect();
    assert_eq!(ids.len(), made.len());
    let read = source::read_from(&lines(60, 120, 3)[..], Origin::default(), SourceFormat::Events).unwrap();
    let read: Vec<_> = read.events.into_iter().map(|sourced| (sourced.event, sourced.label)).collect();
    let label = |simulated: Simulated| (simulated.event, Some(SourceLabel::Simulated(simulated.author)));
    assert_eq!(read, made.into_iter().map(label).collect::<Vec<_>>());
}

#[test]
fn attackers_make_the_configured_attempts_and_know_what_is_published() {
    let made = history(300, 200, 1);
    let of = |author| made.iter().filter(move |simulated| simulated.author == author).map(login);
    let homes: BTreeMap<_, _> = SimulatedHistory::new(HistorySize { users: 300, days: 200, seed: 1 })
        .unwrap()
        .people
        .into_iter()
        .map(|person| (person.user_id(), person.town()))
        .collect();
    let own: BTreeSet<_> =
        of(Author::Legitimate).map(|login| (&login.user_id, login.attempt.device_id.as_ref())).collect();
    for author in Author::ATTACKERS {
        assert_eq!(of(author).count() as u64, 300 * ATTACKS);
        for attack in of(author) {
            assert!(!attack.succeeded, "an import must not learn from it");
            let (town, attempt) = (homes[&attack.user_id], &attack.attempt);
            let has_country = attempt.country.as_deref() == Some(town.country().code);
            let kind = Network::of_asn(attempt.asn.unwrap()).kind();
            match author {
                Author::Targeted => {
                    assert_eq!((attempt.city.as_deref(), kind), (Some(town.city().name), Kind::Access));
                }
                Author::Vpn => assert!(has_country && kind == Kind::Hosting),
                _ => {}
            }
            let has_id = attempt.device_id.is_some();
            assert!(
                !has_id || !own.contains(&(&attack.user_id, attempt.device_id.as_ref())),
                "none of them has the cookie"
            );
        }
    }
    let foreign = of(Author::Naive).filter(|login| login.attempt.country.as_deref() != Some("DE")).count();
    assert!(foreign > 500, "{foreign} from anywhere");
    let succeeded = of(Author::Legitimate).filter(|login| login.succeeded).count() as f64;
    let expected = 300.0 * 200.0 * 24.0 / 365.0;
    assert!((0.6..1.4).contains(&(succeeded / expected)), "{succeeded} of {expected}");
    let failed = of(Author::Legitimate).filter(|login| !login.succeeded).count() as f64;
    assert!((0.06..0.2).contains(&(failed / succeeded)), "{failed} mistyped for {succeeded}");
}

#[test]
fn travel_is_never_faster_than_an_airliner_except_through_carriers_and_vpns() {
    let mut last: BTreeMap<String, (i64, (f64, f64))> = BTreeMap::new();
    let (mut flights, mut jumps) = (0, 0);
    for simulated in history(400, 365, 5).iter().filter(|simulated| simulated.author == Author::Legitimate) {
        let login = login(simulated);
        let point = (login.attempt.latitude.unwrap(), login.attempt.longitude.unwrap());
        let kind = Network::of_asn(login.attempt.asn.unwrap()).kind();
        let at_ms = simulated.event.envelope.time_ms;
        if matches!(kind, Kind::Carrier | Kind::Hosting) {
            jumps += 1;
            continue;
        }
        if let Some((before_ms, before)) = last.insert(login.user_id.clone(), (at_ms, point)) {
            let km = distance_km(before, point);
            let hours = (at_ms - before_ms).max(1) as f64 / HOUR_MS as f64;
            assert!(km < 1.0 || km / hours < 900.0, "{} flew {km} km in {hours} hours", login.user_id);
            flights += usize::from(km > 1_000.0);
        }
    }
    assert!(flights > 20 && jumps > 500, "{flights} {jumps}");
}

#[test]
fn people_differ_in_what_they_do_and_have() {
    let made = history(500, 365, 2);
    let mut accounts: BTreeMap<&str, Vec<&Login>> = BTreeMap::new();
    for simulated in made.iter().filter(|simulated| simulated.author == Author::Legitimate) {
        accounts.entry(&login(simulated).user_id).or_default().push(login(simulated));
    }
    let mut counts: Vec<_> = accounts.values().map(Vec::len).collect();
    counts.sort_unstable();
    let top: usize = counts.iter().rev().take(50).sum();
    let share = top as f64 / counts.iter().sum::<usize>() as f64;
    assert!((0.35..0.6).contains(&share), "a tenth of the accounts makes {share} of the logins");
    let all = || accounts.values().flatten();
    let share =
        |holds: &dyn Fn(&Login) -> bool| all().filter(|login| holds(login)).count() as f64 / all().count() as f64;
    let is_in = |kind| move |login: &Login| Network::of_asn(login.attempt.asn.unwrap()).kind() == kind;
    for (kind, least, most) in [
        (Kind::Access, 0.5, 0.75),
        (Kind::Carrier, 0.1, 0.3),
        (Kind::Business, 0.03, 0.2),
        (Kind::Hotel, 0.005, 0.06),
        (Kind::Hosting, 0.005, 0.04),
    ] {
        let share = share(&is_in(kind));
        assert!((least..most).contains(&share), "{kind:?}: {share}");
    }
    let nameless = share(&|login| login.attempt.device_id.is_none());
    assert!((0.005..0.08).contains(&nameless), "{nameless} refuse cookies");
    let mobile = share(&|login| login.attempt.device_type.as_deref() == Some("mobile"));
    assert!((0.35..0.65).contains(&mobile), "{mobile}");
    let night = made.iter().filter(|simulated| simulated.author == Author::Legitimate);
    let night = night.filter(|simulated| simulated.event.envelope.time_ms / HOUR_MS % 24 < 4).count();
    assert!(night > 0, "some are awake at night");
}

#[test]
fn limits_are_reported() {
    for (users, days, expected) in [
        (0, 10, "0 users: 1 to 100000 can be simulated"),
        (100_001, 10, "100001 users"),
        (10, 0, "0 days: 1 to 731 can be simulated"),
        (10, 732, "732 days"),
        (100_000, 731, "users multiplied by days can be at most 36500000"),
    ] {
        let error = SimulatedHistory::new(HistorySize { users, days, seed: 1 }).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
