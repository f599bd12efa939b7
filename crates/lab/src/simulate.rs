//! Histories that never happened and might have: the logins of a service, and the attacks that the publications
//! measure with, each labelled with who made it.
//!
//! ```text
//!  seed ─► people: homes, offices, machines, trips ─► their days ─┐
//!       └► attacks: one account, one moment each ─────────────────┴─► by time ─► JSON Lines of events
//! ```
//!
//! What is shared and what changes is what a score has to cope with: addresses that are leased for a day or a year, and
//! over IPv6 made up by the machine every day, carriers that put thousands behind one, offices, hotels, private
//! networks, browsers that are new every four weeks and reach their users late, cookies that are cleared. Each constant
//! stands beside its source, or is called chosen; `docs/EVALUATION.md` has all of them in one table. None was fitted to
//! a result.
//!
//! People pass every challenge, so theirs are successes, with mistyped passwords before some of them. Attacks are
//! failures: whoever imports the file gets a history without them. The label stands in the data, which an import
//! keeps and no fold reads.
//!
//! What is absent: several people at one machine, changes of clocks, people who move house or change their
//! provider, seasons, and attackers who know the model.

mod attack;
mod client;
mod person;
#[cfg(test)]
mod tests;
mod trip;
mod world;

use crate::source::draw::Draw;
use crate::source::{Author, LABEL};
use attack::Attack;
use client::Looks;
use foretell_events::codec::{self, Parsed};
use foretell_events::login::{Attempt, Login};
use foretell_events::{DEFAULT_TENANT, Envelope, Event, Fact};
use person::{Person, Stream, Visit};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Write};
use world::Spot;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The `source` of the events.
pub const SOURCE: &str = "urn:foretell:simulated";
/// The first moment: a Monday, 2024-01-01T00:00:00Z.
pub const START_MS: i64 = 1_704_067_200_000;
/// Most accounts.
pub const USERS_MAX: u32 = 100_000;
/// Most days: two years.
pub const DAYS_MAX: u32 = 731;
/// Most accounts times days, so that the file stays below [`crate::source::EVENTS_MAX`] events: 24 logins a year
/// on average, some mistyped passwords, and the attacks.
pub const USER_DAYS_MAX: u64 = 36_500_000;
/// Attempts of each kind of attacker on each account, at moments of their own.
pub const ATTACKS: u64 = 2;
/// Between two attempts with a wrong password.
const AGAIN_MS: i64 = 8_000;
/// How far local days reach over those of UTC, either way.
const ZONES_MS: i64 = 14 * HOUR_MS;

/// How much of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Accounts, 1 to [`USERS_MAX`].
    pub users: u32,
    /// Days, 1 to [`DAYS_MAX`].
    pub days: u32,
    /// Other seeds, other people.
    pub seed: u64,
}

/// A history that is too small or too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No or too many accounts.
    #[error("{0} users: 1 to {USERS_MAX} can be simulated")]
    Users(u32),
    /// No or too many days.
    #[error("{0} days: 1 to {DAYS_MAX} can be simulated")]
    Days(u32),
    /// Both in their bounds, and too much together.
    #[error("{users} users over {days} days: at most {USER_DAYS_MAX} days of users, or no file could be read again")]
    UserDays {
        /// The accounts.
        users: u32,
        /// The days.
        days: u32,
    },
}

/// An event and who made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// The event.
    pub event: Event,
    /// Who made it.
    pub author: Author,
}

impl Simulated {
    /// The event in structured form, with its label in the data.
    pub fn structured(&self) -> Value {
        let mut parsed = Parsed::of(self.event.clone());
        parsed.data.insert(LABEL.to_owned(), Value::from(self.author.name()));
        codec::structured_event(&parsed)
    }
}

/// The events of a history, times never falling.
#[derive(Debug, Clone)]
pub struct History {
    shape: Shape,
    people: Vec<Person>,
    /// Attacks by day: who, on whom, when.
    attacks: BTreeMap<i64, Vec<(Author, usize, i64)>>,
    /// The next day of people.
    day: i64,
    /// What happened, by time and in the order of its making; all before [`Self::sure_ms`] is there.
    waiting: BTreeMap<(i64, u64), (Author, Login)>,
    made: u64,
    told: u64,
}

impl History {
    /// From the first event on.
    pub fn new(shape: Shape) -> Result<Self, Error> {
        let Shape { users, days, seed } = shape;
        if !(1..=USERS_MAX).contains(&users) {
            return Err(Error::Users(users));
        }
        if !(1..=DAYS_MAX).contains(&days) {
            return Err(Error::Days(days));
        }
        if u64::from(users) * u64::from(days) > USER_DAYS_MAX {
            return Err(Error::UserDays { users, days });
        }
        let draw = Draw::new(seed);
        let people: Vec<_> = (0..u64::from(users)).map(|number| Person::new(draw, number, users, days)).collect();
        let mut attacks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, victim) in (0..people.len()).flat_map(|victim| (0..ATTACKS).map(move |_| victim)).enumerate() {
            let chance = &mut draw.sequence(Stream::Attack as u8, at as u64);
            for author in Author::ATTACKERS {
                let at_ms = chance.below(u64::from(days) * DAY_MS as u64) as i64;
                attacks.entry(at_ms / DAY_MS).or_default().push((author, victim, at_ms));
            }
        }
        Ok(Self { shape, people, attacks, day: 0, waiting: BTreeMap::new(), made: 0, told: 0 })
    }

    /// Days that are over.
    pub fn days_done(&self) -> u64 {
        self.day as u64
    }

    /// Makes all that happens on one more local day; a day ends half a day later in the west.
    fn live(&mut self) {
        let visits: Vec<_> = self.people.iter().map(|person| (person.user_id(), person.day(self.day))).collect();
        for (user_id, visits) in visits {
            visits.into_iter().for_each(|visit| self.visited(&user_id, visit));
        }
        for (author, victim, at_ms) in self.attacks.remove(&self.day).unwrap_or_default() {
            let chance = &mut Draw::new(self.shape.seed).sequence(Stream::Attack as u8, !self.made);
            let Attack { spot, looks, device_id } = Attack::new(author, &self.people[victim], at_ms, chance);
            let login = login(self.people[victim].user_id(), attempt(spot, looks, device_id));
            self.happened(at_ms, author, login);
        }
        self.day += 1;
    }

    fn visited(&mut self, user_id: &str, visit: Visit) {
        let Visit { at_ms, mistyped, spot, looks, device_id } = visit;
        let failed = login(user_id.to_owned(), attempt(spot, looks, device_id));
        let succeeded = Login { succeeded: true, failure_reason: None, ..failed.clone() };
        for time in 0..mistyped {
            self.happened(at_ms + time as i64 * AGAIN_MS, Author::Legitimate, failed.clone());
        }
        self.happened(at_ms + mistyped as i64 * AGAIN_MS, Author::Legitimate, succeeded);
    }

    fn happened(&mut self, at_ms: i64, author: Author, login: Login) {
        self.waiting.insert((at_ms, self.made), (author, login));
        self.made += 1;
    }

    /// Before which moment everything has happened.
    fn sure_ms(&self) -> i64 {
        if self.is_over() { i64::MAX } else { self.day * DAY_MS - ZONES_MS }
    }

    fn is_over(&self) -> bool {
        self.day >= i64::from(self.shape.days)
    }
}

impl Iterator for History {
    type Item = Simulated;

    fn next(&mut self) -> Option<Simulated> {
        while self.waiting.first_key_value().is_none_or(|((at_ms, _), _)| *at_ms >= self.sure_ms()) && !self.is_over() {
            self.live();
        }
        let ((at_ms, _), (author, login)) = self.waiting.pop_first()?;
        let id = format!("{}-{}", self.shape.seed, self.told);
        self.told += 1;
        let (source, tenant) = (SOURCE.to_owned(), DEFAULT_TENANT.to_owned());
        let envelope = Envelope { id, source, tenant, time_ms: START_MS + at_ms };
        Some(Simulated { event: Event { envelope, fact: Fact::Login(Box::new(login)) }, author })
    }
}

/// A login that failed, with the right password or not.
fn login(user_id: String, attempt: Attempt) -> Login {
    Login {
        user_id,
        succeeded: false,
        attempt,
        decision_id: None,
        session_id: None,
        method: Some("password".into()),
        failure_reason: Some("refused".into()),
    }
}

fn attempt(spot: Spot, looks: Looks, device_id: Option<String>) -> Attempt {
    let (latitude, longitude) = spot.town.city().place;
    Attempt {
        ip: spot.ip,
        user_agent: Some(looks.user_agent),
        device_id,
        country: Some(spot.town.country().code.to_owned()),
        asn: Some(spot.network.asn()),
        city: Some(spot.town.city().name.to_owned()),
        latitude: Some(latitude),
        longitude: Some(longitude),
        browser: Some(looks.browser),
        os: Some(looks.os),
        device_type: Some(looks.device_type.to_owned()),
        rtt_ms: None,
    }
}

/// Writes a history as JSON Lines; `progress` gets how many days are done. Answers how many events there were.
///
/// Errors are those of `out`.
pub fn write(history: History, out: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> io::Result<u64> {
    let (mut history, mut events, mut day) = (history, 0, 0);
    while let Some(simulated) = history.next() {
        serde_json::to_writer(&mut *out, &simulated.structured())?;
        out.write_all(b"\n")?;
        events += 1;
        if day < history.days_done() {
            day = history.days_done();
            progress(day);
        }
    }
    Ok(events)
}
