//! `demo`: a story in an empty directory, told in events whose times are relative to now.
//!
//! A handful of people log in for a month from their devices, and then somebody sprays stolen passwords. A clinic
//! has good and bad clients, and visits in the next days. [`story`] makes the events; [`run`] serves them, asks
//! the questions that a newcomer would ask, and goes on serving.

use crate::app::{Role, Service, descriptors};
use crate::cli::ending::{Failure, on_signal};
use crate::clock::{Clock, System};
use crate::config::Config;
use crate::event::appointment::{Booking, Change, ClientUpdate, QuietHours, StartsAt, Visit};
use crate::event::login::{Attempt, Login};
use crate::event::{Envelope, Event, Fact};
use crate::http;
use crate::source::Sourced;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the demo waits for its own instance.
const PATIENCE: Duration = Duration::from_secs(30);

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The CloudEvents `source` of the story.
const SOURCE: &str = "urn:foretell:demo";
/// Where the attack comes from.
pub const ATTACKER: &str = "203.0.113.66";

/// A person with a place and devices.
struct Person {
    name: &'static str,
    ip: [u8; 4],
    asn: u32,
    country: &'static str,
    devices: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

/// Name, browser, system, type.
const LAPTOP: (&str, &str, &str, &str) = ("laptop", "Firefox 149.0", "Linux", "desktop");
const PHONE: (&str, &str, &str, &str) = ("phone", "Chrome Mobile 146.0", "Android 17", "mobile");
const TABLET: (&str, &str, &str, &str) = ("tablet", "Safari 26.1", "iOS 26.1", "tablet");

const PEOPLE: [Person; 5] = [
    Person { name: "ada", ip: [198, 51, 100, 10], asn: 64_500, country: "DE", devices: &[LAPTOP, PHONE] },
    Person { name: "ben", ip: [198, 51, 100, 23], asn: 64_500, country: "DE", devices: &[PHONE] },
    Person { name: "chidi", ip: [192, 0, 2, 31], asn: 64_501, country: "FR", devices: &[LAPTOP] },
    Person { name: "dora", ip: [192, 0, 2, 40], asn: 64_501, country: "FR", devices: &[TABLET, PHONE] },
    Person { name: "emil", ip: [198, 51, 100, 77], asn: 64_502, country: "DE", devices: &[LAPTOP] },
];

/// A client of the clinic: how many of the last visits they kept and missed, and hours until the next one.
const CLIENTS: [(&str, u32, u32, i64); 6] = [
    ("fatima", 9, 0, 22),
    ("george", 2, 5, 23),
    ("hana", 6, 1, 47),
    ("ivan", 1, 3, 70),
    ("jana", 4, 0, 100),
    ("karl", 0, 2, 20),
];

/// The story up to `now_ms`, by time.
pub fn story(now_ms: i64) -> Vec<Sourced> {
    let mut events: Vec<_> = PEOPLE.iter().flat_map(|person| month(person, now_ms)).collect();
    events.extend(attack(now_ms));
    events.extend(CLIENTS.iter().flat_map(|client| visits(*client, now_ms)));
    events.sort_by(|a, b| (a.time_ms, &a.id).cmp(&(b.time_ms, &b.id)));
    events.into_iter().map(Told::sourced).collect()
}

/// An event in the making.
struct Told {
    id: String,
    time_ms: i64,
    fact: Fact,
}

impl Told {
    fn sourced(self) -> Sourced {
        let envelope = Envelope {
            id: self.id,
            source: SOURCE.into(),
            tenant: crate::event::DEFAULT_TENANT.into(),
            time_ms: self.time_ms,
        };
        Sourced { event: Event { envelope, fact: self.fact }, sent: None, label: None }
    }
}

/// A login a day, now from one device and now from another, with a mistyped password now and then.
fn month(person: &Person, now_ms: i64) -> Vec<Told> {
    let login = |day: i64| {
        let device = person.devices[day as usize % person.devices.len()];
        let mut attempt = Attempt::from_ip(IpAddr::V4(Ipv4Addr::from(person.ip)));
        attempt.asn = Some(person.asn);
        attempt.country = Some(person.country.into());
        attempt.device_id = Some(format!("{}-{}", person.name, device.0));
        attempt.browser = Some(device.1.into());
        attempt.os = Some(device.2.into());
        attempt.device_type = Some(device.3.into());
        attempt.user_agent = Some(format!("{} on {}", device.1, device.2));
        let time_ms = now_ms - day * DAY_MS - i64::from(person.ip[3]) * 60_000;
        let told = |succeeded: bool, time_ms: i64| {
            let fact = attempted(person.name, succeeded, attempt.clone());
            Told { id: format!("{}-{day}-{succeeded}", person.name), time_ms, fact }
        };
        let mistyped = (day % 9 == 4).then(|| told(false, time_ms - 30_000));
        mistyped.into_iter().chain([told(true, time_ms)])
    };
    (1..=30).flat_map(login).collect()
}

fn attempted(user_id: &str, succeeded: bool, attempt: Attempt) -> Fact {
    Fact::Login(Box::new(Login {
        user_id: user_id.into(),
        succeeded,
        attempt,
        decision_id: None,
        session_id: None,
        method: Some("password".into()),
        failure_reason: (!succeeded).then(|| "wrong password".into()),
    }))
}

/// In the last ten minutes one address tries everybody, and some who do not exist, a few times each.
fn attack(now_ms: i64) -> Vec<Told> {
    let victims = PEOPLE.iter().map(|person| person.name).chain(["root", "admin", "test"]);
    let tries = victims.enumerate().flat_map(|(at, victim)| {
        (0..2).map(move |round| {
            let mut attempt = Attempt::from_ip(ATTACKER.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            attempt.asn = Some(64_666);
            attempt.country = Some("SC".into());
            attempt.user_agent = Some("python-requests/2.34".into());
            let time_ms = now_ms - (10 - round) * 60_000 + at as i64 * 700;
            Told { id: format!("spray-{victim}-{round}"), time_ms, fact: attempted(victim, false, attempt) }
        })
    });
    tries.collect()
}

/// Visits kept and missed in the last months, and one to come. Nobody minds a reminder at night: it is a demo.
fn visits((client, kept, missed, ahead_hours): (&'static str, u32, u32, i64), now_ms: i64) -> Vec<Told> {
    let no_quiet = Change::Set(QuietHours { from_minute: 0, to_minute: 0 });
    let update = ClientUpdate { client_id: client.into(), quiet_hours: no_quiet, ..ClientUpdate::default() };
    let updated = Fact::ClientUpdated(Box::new(update));
    let mut events = vec![Told { id: format!("{client}-profile"), time_ms: now_ms - 400 * DAY_MS, fact: updated }];
    for visit in 0..kept + missed {
        let at_ms = now_ms - i64::from(visit + 1) * 21 * DAY_MS;
        let id = format!("{client}-{visit}");
        let outcome = Visit { appointment_id: id.clone(), client_id: client.into() };
        // The missed ones are spread among the kept ones.
        let is_missed = (visit + 1) * missed / (kept + missed) > visit * missed / (kept + missed);
        let outcome = if is_missed { Fact::Missed(outcome) } else { Fact::Attended(outcome) };
        events.push(booked(client, &id, at_ms - (5 + i64::from(visit)) * DAY_MS, at_ms));
        events.push(Told { id: format!("{id}-outcome"), time_ms: at_ms + HOUR_MS, fact: outcome });
    }
    events.push(booked(client, &format!("{client}-next"), now_ms - 9 * DAY_MS, now_ms + ahead_hours * HOUR_MS));
    events
}

fn booked(client: &str, id: &str, booked_at_ms: i64, starts_at_ms: i64) -> Told {
    let fact = Fact::Booked(Box::new(Booking {
        appointment_id: id.into(),
        client_id: client.into(),
        starts_at: StartsAt::Instant { at_ms: starts_at_ms, zone: Some("Europe/Berlin".into()) },
        duration_minutes: Some(30),
        location_id: Some("main-street".into()),
        practitioner_id: None,
        service: Some("check-up".into()),
        booked_at_ms: None,
        attributes: BTreeMap::new(),
    }));
    Told { id: format!("{id}-booked"), time_ms: booked_at_ms, fact }
}

/// Serves the story from a new temporary directory, prints what to try with the answers, and goes on until it is
/// interrupted. The directory is removed at the end.
pub async fn run(mut config: Config, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = tempfile::Builder::new().prefix("foretell-demo-").tempdir()?;
    config.log = format!("disk:{}", directory.path().display());
    config.store.clone_from(&config.log);
    descriptors::raise();
    let listener = match http::listen(&config.http.listen).await {
        Ok(listener) => listener,
        // The port is taken: any other will do for a demo.
        Err(_) => http::listen("127.0.0.1:0").await?,
    };
    let ops = match config.ops.address() {
        Some(address) => http::listen(address).await.ok(),
        None => None,
    };
    let url = format!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let roles = vec![Role::Http, Role::Views, Role::Reminders];
    let service = Service::new(config, Arc::new(System), roles, shutdown.clone());
    let mut served = tokio::spawn(service.run(listener, ops));
    // From the first moment on, so that whoever interrupts the story leaves no directory behind either.
    tokio::spawn(on_signal(shutdown.clone()));
    let told = tokio::select! {
        biased; // An interrupted demo stops answering its own questions, which is no failure.
        () = shutdown.cancelled() => Ok(()),
        ended = &mut served => return Ok(ended.map_err(|panic| Failure::Other(panic.to_string()))??),
        told = tell(&url, directory.path(), out) => told,
    };
    let told = if shutdown.is_cancelled() { Ok(()) } else { told };
    if told.is_ok() {
        shutdown.cancelled().await;
    }
    shutdown.cancel();
    served.await.map_err(|panic| Failure::Other(panic.to_string()))??;
    told
}

/// Appends the story, asks, and prints.
async fn tell(url: &str, directory: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(unreachable)?;
    let events: Vec<_> = story(System.now_ms()).iter().map(Sourced::structured).collect();
    writeln!(out, "An instance serves {url} from {}.", directory.display())?;
    writeln!(out, "{} events tell of five people's logins, one attack, and a clinic's visits.", events.len())?;
    out.flush()?;
    until(async || {
        let sent = client.post(format!("{url}/v1/events")).body(Value::from(events.clone()).to_string());
        let sent = sent.header("content-type", "application/cloudevents-batch+json").header("prefer", "wait=10");
        Ok(sent.send().await.map_err(unreachable)?.status() == 200)
    })
    .await?;
    // The planner takes them up at its next tick.
    until(async || {
        let appointment = get(&client, &format!("{url}/v1/appointments/fatima-next")).await?;
        Ok(appointment["reminders"].as_array().into_iter().flatten().any(|reminder| reminder["status"] == "sent"))
    })
    .await?;
    for question in questions() {
        writeln!(out, "\n# {}\n{}", question.about, question.command(url))?;
        let answer = match &question.body {
            None => get(&client, &format!("{url}{}", question.path)).await?,
            Some(body) => {
                let sent = client.post(format!("{url}{}", question.path)).json(body).send().await;
                sent.map_err(unreachable)?.json().await.map_err(unreachable)?
            }
        };
        writeln!(out, "{answer:#}")?;
    }
    writeln!(out, "\n# Reminders as they are announced, from the first one on:\ncurl -N {url}/v1/reminders/stream")?;
    let policy = r#"{"rules": [{"code": "AT_A_DESK", "when": "device_type == 'desktop'", "decision": "challenge"}]}"#;
    let command = format!("curl -X PUT {url}/v1/policies/login -H 'content-type: application/json' -d @-");
    writeln!(out, "\n# A policy of your own, in force at once; ask for Ada's score again, and she is challenged:")?;
    writeln!(out, "{command} <<'END'\n{policy}\nEND")?;
    writeln!(out, "\nThe API is described at {url}/docs. Ctrl-C ends the demo and removes its directory.")?;
    out.flush()?;
    Ok(())
}

/// A question worth asking.
struct Question {
    about: &'static str,
    path: &'static str,
    body: Option<Value>,
}

impl Question {
    fn command(&self, url: &str) -> String {
        match &self.body {
            None => format!("curl {url}{}", self.path),
            Some(body) => format!("curl {url}{} -H 'content-type: application/json' -d '{body}'", self.path),
        }
    }
}

fn questions() -> [Question; 4] {
    let risk = "/v1/risk/logins";
    let usual = json!({
        "user_id": "ada", "ip": "198.51.100.10", "asn": 64500, "country": "DE", "device_id": "ada-laptop",
        "browser": "Firefox 149.0", "os": "Linux", "device_type": "desktop", "user_agent": "Firefox 149.0 on Linux",
    });
    let stolen = json!({
        "user_id": "ada", "ip": ATTACKER, "asn": 64666, "country": "SC", "user_agent": "python-requests/2.34",
    });
    [
        Question { about: "Ada, as always: how risky is this login?", path: risk, body: Some(usual) },
        Question { about: "Ada's password, used by the attacker:", path: risk, body: Some(stolen) },
        Question { about: "Will George come?", path: "/v1/risk/appointments/george-next", body: None },
        Question { about: "What was Fatima told, and when?", path: "/v1/appointments/fatima-next", body: None },
    ]
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Value, Failure> {
    client.get(url).send().await.map_err(unreachable)?.json().await.map_err(unreachable)
}

#[allow(clippy::needless_pass_by_value, reason = "has the shape that map_err asks for")]
fn unreachable(error: reqwest::Error) -> Failure {
    Failure::Other(format!("cannot ask the demo: {error}"))
}

/// Asks again until the answer is yes; gives up after [`PATIENCE`].
async fn until(ask: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    while !ask().await? {
        if began.elapsed() > PATIENCE {
            return Err(Failure::Other("the demo did not become ready in time; see the messages above".into()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Place;
    use crate::view::client::{self, Appointments};
    use crate::view::feature::{self, Level};
    use crate::view::materialized::Materialized;
    use crate::view::user::{self, Logins};

    #[test]
    fn the_story_folds_into_what_it_tells() {
        let now_ms = 1_780_304_400_000;
        let (mut logins, mut visits) =
            (Materialized::new(Logins::default()), Materialized::new(Appointments::default()));
        for (offset, sourced) in story(now_ms).iter().enumerate() {
            assert!(sourced.event.envelope.time_ms <= now_ms);
            let place = Place { partition: 0, offset: offset as i64 };
            let folded = logins.take(&sourced.event, place) | visits.take(&sourced.event, place);
            assert!(folded, "{:?} changes something", sourced.event.envelope.id);
        }
        let ada = logins.owner(&user::row_key("default", "ada")).unwrap();
        assert_eq!((ada.successes, ada.devices.len(), ada.failures), (30, 2, 5));
        let sprayed = feature::key("default", Level::Ip, ATTACKER);
        let crate::view::Aggregate::Feature(row) = logins.partials(&sprayed).next().unwrap() else { panic!() };
        assert_eq!(row.failed_users_at(now_ms), 8);
        let george = visits.owner(&client::row_key("default", "george")).unwrap();
        assert_eq!((george.history.attended, george.history.missed), (2, 5));
    }
}
