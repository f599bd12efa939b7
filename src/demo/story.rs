//! The events of the demo, with times relative to the present: five people's logins, an attack, a clinic's visits.

use super::clinic;
use super::entry::Entry;
use foretell_events::Fact;
use foretell_events::login::{Attempt, Login, LoginFact};
use foretell_events::time::DAY_MS;
use foretell_lab::source::Sourced;
use std::net::{IpAddr, Ipv4Addr};

/// Address of the attacker: 203.0.113.66.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// A person with a location and devices.
struct Person {
    name: &'static str,
    ip: [u8; 4],
    asn: u32,
    country: &'static str,
    devices: &'static [Device],
}

struct Device {
    name: &'static str,
    browser: &'static str,
    os: &'static str,
    kind: &'static str,
}

const LAPTOP: Device = Device { name: "laptop", browser: "Firefox 149.0", os: "Linux", kind: "desktop" };
const PHONE: Device = Device { name: "phone", browser: "Chrome Mobile 146.0", os: "Android 17", kind: "mobile" };
const TABLET: Device = Device { name: "tablet", browser: "Safari 26.1", os: "iOS 26.1", kind: "tablet" };

const PEOPLE: [Person; 5] = [
    Person { name: "ada", ip: [198, 51, 100, 10], asn: 64_500, country: "DE", devices: &[LAPTOP, PHONE] },
    Person { name: "ben", ip: [198, 51, 100, 23], asn: 64_500, country: "DE", devices: &[PHONE] },
    Person { name: "chidi", ip: [192, 0, 2, 31], asn: 64_501, country: "FR", devices: &[LAPTOP] },
    Person { name: "dora", ip: [192, 0, 2, 40], asn: 64_501, country: "FR", devices: &[TABLET, PHONE] },
    Person { name: "emil", ip: [198, 51, 100, 77], asn: 64_502, country: "DE", devices: &[LAPTOP] },
];

/// The story up to `now_ms`, in order of time.
pub(super) fn events(now_ms: i64) -> Vec<Sourced> {
    let mut entries: Vec<_> = PEOPLE.iter().flat_map(|person| month(person, now_ms)).collect();
    entries.extend(attack(now_ms));
    entries.extend(clinic::entries(now_ms));
    entries.sort_by(|a, b| (a.time_ms, &a.id).cmp(&(b.time_ms, &b.id)));
    entries.into_iter().map(Entry::sourced).collect()
}

/// A login per day, with the person's devices in turn and an occasional mistyped password.
fn month(person: &Person, now_ms: i64) -> Vec<Entry> {
    let day = |day: i64| {
        let device = &person.devices[day as usize % person.devices.len()];
        let mut attempt = Attempt::from_ip(IpAddr::V4(Ipv4Addr::from(person.ip)));
        attempt.asn = Some(person.asn);
        attempt.country = Some(person.country.into());
        attempt.device_id = Some(format!("{}-{}", person.name, device.name));
        attempt.browser = Some(device.browser.into());
        attempt.os = Some(device.os.into());
        attempt.device_type = Some(device.kind.into());
        attempt.user_agent = Some(format!("{} on {}", device.browser, device.os));
        let time_ms = now_ms - day * DAY_MS - i64::from(person.ip[3]) * 60_000;
        let entry = |succeeded: bool, time_ms: i64| {
            let fact = login(person.name, succeeded, attempt.clone());
            Entry { id: format!("{}-{day}-{succeeded}", person.name), time_ms, fact }
        };
        let mistyped = (day % 9 == 4).then(|| entry(false, time_ms - 30_000));
        mistyped.into_iter().chain([entry(true, time_ms)])
    };
    (1..=30).flat_map(day).collect()
}

fn login(user_id: &str, succeeded: bool, attempt: Attempt) -> Fact {
    LoginFact::Attempted(Box::new(Login {
        user_id: user_id.into(),
        succeeded,
        attempt,
        decision_id: None,
        session_id: None,
        method: Some("password".into()),
        failure_reason: (!succeeded).then(|| "wrong password".into()),
    }))
    .into()
}

/// In the last ten minutes one address tries every account, and some that do not exist, twice each.
fn attack(now_ms: i64) -> Vec<Entry> {
    let names = PEOPLE.iter().map(|person| person.name).chain(["root", "admin", "test"]);
    let tries = names.enumerate().flat_map(|(at, name)| {
        (0..2).map(move |round| {
            let mut attempt = Attempt::from_ip(IpAddr::V4(ATTACKER));
            attempt.asn = Some(64_666);
            attempt.country = Some("SC".into());
            attempt.user_agent = Some("python-requests/2.34".into());
            let time_ms = now_ms - (10 - round) * 60_000 + at as i64 * 700;
            Entry { id: format!("attack-{name}-{round}"), time_ms, fact: login(name, false, attempt) }
        })
    });
    tries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::view::client::{self, AppointmentFold};
    use foretell_domain::view::feature::{self, FeatureCounts, FeatureLevel};
    use foretell_domain::view::materialized::Materialized;
    use foretell_domain::view::user::{self, LoginFold};
    use foretell_domain::view::{Aggregate, RecordPosition};

    #[test]
    fn every_event_of_the_story_changes_something() {
        let now_ms = 1_780_304_400_000;
        let mut logins = Materialized::new(LoginFold::default());
        let mut visits = Materialized::new(AppointmentFold::default());
        for (offset, sourced) in events(now_ms).iter().enumerate() {
            assert!(sourced.event.envelope.time_ms <= now_ms);
            let place = RecordPosition { partition: 0, offset: offset as i64 };
            let folded = logins.take(&sourced.event, place) | visits.take(&sourced.event, place);
            assert!(folded, "{:?} changes something", sourced.event.envelope.id);
        }
        let ada = logins.owner(&user::row_key("default", "ada")).unwrap();
        assert_eq!((ada.successes, ada.devices.len(), ada.failures), (30, 2, 5));
        let attacked = feature::key("default", FeatureLevel::Ip, &ATTACKER.to_string());
        let Aggregate::Feature(row) = logins.partials(&attacked).next().unwrap() else { panic!() };
        assert_eq!(FeatureCounts::from(&**row).failed_users_at(now_ms), 8);
        let george = visits.owner(&client::row_key("default", "george")).unwrap();
        assert_eq!((george.history.attended, george.history.missed), (2, 5));
    }
}
