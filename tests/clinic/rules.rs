//! What must be announced, stated once more: a small model of the rules, which shares no code with the planner.
//!
//! It hears the same events, and answers for an instant what is to stand on the topic then. Times of day come from the
//! one thing that is asked of the zone database: the offset at an instant.

use super::timeline::{DAY_MS, HOUR_MS, MINUTE_MS};
use foretell::event::appointment::{Booking, Change, Channel, Consent, QuietHours, StartsAt};
use foretell::event::{Event, Fact, zone};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The zone of a visit that names none, of a client who named none.
const ZONE_DEFAULT: &str = "UTC";

/// What a client stands under: tenant and client.
pub type Key = (String, String);

/// Something that stands on the topic of reminders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub key: Key,
    pub appointment: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A reminder: its step, the time on the clock and the zone of the visit, and the instant.
    Due { step: String, local_start: String, zone: String, start_ms: i64, channels: Vec<Channel> },
    /// One is taken back: that of a step, for a start.
    Withdrawn { step: String, start_ms: i64, reason: &'static str },
}

/// A reminder of the policy.
#[derive(Debug, Clone)]
pub struct Step {
    pub id: &'static str,
    pub before_hours: i64,
}

/// When clients are reminded.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Rising in how late they are.
    pub steps: Vec<Step>,
    pub quiet: QuietHours,
    pub channels: Vec<Channel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    On,
    Off(&'static str),
    Over,
}

#[derive(Debug, Clone)]
struct Start {
    /// Seconds as if the clock were that of UTC.
    wall_s: i64,
    zone: String,
    at_ms: i64,
}

#[derive(Debug, Clone)]
struct Visit {
    start: Start,
    placed_ms: i64,
    standing: Standing,
    requests: Vec<Request>,
}

#[derive(Debug, Clone)]
struct Request {
    at_ms: i64,
    channels: Vec<Channel>,
    is_told: bool,
}

/// A reminder that holds.
#[derive(Debug, Clone)]
struct Announced {
    appointment: String,
    step: String,
    start_ms: i64,
}

#[derive(Debug, Default, Clone)]
struct Client {
    zone: Option<String>,
    quiet: Option<QuietHours>,
    channels: Option<Vec<Consent>>,
    visits: BTreeMap<String, Visit>,
    announced: Vec<Announced>,
    is_erased: bool,
}

/// Everybody, and when to look at them again.
pub struct Model {
    rules: Rules,
    clients: BTreeMap<Key, Client>,
    looks: BTreeSet<(i64, Key)>,
}

pub fn offset_s(at_s: i64, zone: &str) -> i64 {
    let rules = zone::get(zone).expect("a zone of the database");
    i64::from(rules.to_offset(Timestamp::from_second(at_s).expect("an instant")).seconds())
}

/// The instant at which clocks show it: the first, or as much later as they skip.
pub fn instant_ms(wall_s: i64, zone: &str) -> i64 {
    let (before_s, after_s) = (offset_s(wall_s - 86_400, zone), offset_s(wall_s + 86_400, zone));
    let shows = |offset: &i64| offset_s(wall_s - offset, zone) == *offset;
    let first = [before_s, after_s].into_iter().filter(shows).map(|offset| wall_s - offset).min();
    first.unwrap_or(wall_s - before_s) * 1000
}

pub fn minute_of_day(at_ms: i64, zone: &str) -> u16 {
    let at_s = at_ms.div_euclid(1000);
    ((at_s + offset_s(at_s, zone)).rem_euclid(86_400) / 60) as u16
}

pub fn is_quiet(at_ms: i64, quiet: QuietHours, zone: &str) -> bool {
    let (minute, from, to) = (minute_of_day(at_ms, zone), quiet.from_minute, quiet.to_minute);
    if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

/// `YYYY-MM-DDTHH:MM:SS`.
fn written(wall_s: i64) -> String {
    let at = Timestamp::from_second(wall_s).expect("a time").to_string();
    at.trim_end_matches('Z').to_owned()
}

impl Start {
    fn of(booking: &Booking, fallback: &str) -> Self {
        match &booking.starts_at {
            StartsAt::Local { local, zone } => {
                let as_utc = jiff::tz::Offset::UTC.to_timestamp(*local).expect("a time");
                let wall_s = as_utc.as_second();
                Self { wall_s, zone: zone.clone(), at_ms: instant_ms(wall_s, zone) }
            }
            StartsAt::Instant { at_ms, zone } => {
                let zone = zone.clone().unwrap_or_else(|| fallback.to_owned());
                let at_s = at_ms.div_euclid(1000);
                Self { wall_s: at_s + offset_s(at_s, &zone), zone, at_ms: *at_ms }
            }
        }
    }
}

impl Client {
    /// Channels that they agree to, of those asked for.
    fn channels(&self, asked: &[Channel], rules: &Rules) -> Vec<Channel> {
        match &self.channels {
            None if asked.is_empty() => rules.channels.clone(),
            None => asked.to_vec(),
            Some(own) => {
                let agreed = own.iter().filter(|consent| consent.consent).map(|consent| consent.channel);
                agreed.filter(|channel| asked.is_empty() || asked.contains(channel)).collect()
            }
        }
    }

    fn place(&mut self, booking: &Booking, at_ms: i64) {
        let of_client = self.zone.clone().unwrap_or_else(|| ZONE_DEFAULT.to_owned());
        let visit = self.visits.remove(&booking.appointment_id);
        let fallback = visit.as_ref().map_or(of_client, |visit| visit.start.zone.clone());
        let visit = Visit {
            start: Start::of(booking, &fallback),
            placed_ms: at_ms,
            standing: Standing::On,
            requests: visit.map_or_else(Vec::new, |visit| visit.requests),
        };
        self.visits.insert(booking.appointment_id.clone(), visit);
    }

    fn stand(&mut self, appointment: &str, standing: Standing) {
        if let Some(visit) = self.visits.get_mut(appointment) {
            visit.standing = standing;
        }
    }

    fn hear(&mut self, event: &Event) {
        match &event.fact {
            Fact::Booked(booking) | Fact::Rescheduled(booking) => self.place(booking, event.envelope.time_ms),
            Fact::Cancelled(cancelled) => self.stand(&cancelled.appointment_id, Standing::Off("cancelled")),
            Fact::Deleted(visit) => self.stand(&visit.appointment_id, Standing::Off("deleted")),
            Fact::Attended(visit) | Fact::Missed(visit) => self.stand(&visit.appointment_id, Standing::Over),
            Fact::ReminderRequested(request) => {
                if let Some(visit) = self.visits.get_mut(&request.appointment_id) {
                    let (at_ms, channels) = (event.envelope.time_ms, request.channels.clone());
                    visit.requests.push(Request { at_ms, channels, is_told: false });
                }
            }
            Fact::ClientUpdated(update) => {
                change(&mut self.zone, &update.time_zone);
                change(&mut self.quiet, &update.quiet_hours);
                change(&mut self.channels, &update.channels);
            }
            Fact::ClientErased { .. } => {
                let announced = std::mem::take(&mut self.announced);
                *self = Self { announced, is_erased: true, ..Self::default() };
            }
            _ => {}
        }
    }
}

fn change<T: Clone>(field: &mut Option<T>, change: &Change<T>) {
    match change {
        Change::Keep => {}
        Change::Clear => *field = None,
        Change::Set(value) => *field = Some(value.clone()),
    }
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self { rules, clients: BTreeMap::new(), looks: BTreeSet::new() }
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        self.clients.entry(key.clone()).or_default().hear(event);
        self.looks.insert((event.envelope.time_ms, key));
    }

    /// When something is due next by the mere passing of time.
    pub fn next_ms(&self) -> Option<i64> {
        self.looks.first().map(|(at_ms, _)| *at_ms)
    }

    /// When something will be due to a client of whom this was said last, as far as that is known now.
    pub fn next_of(&self, event: &Event) -> Option<i64> {
        let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        let mut client = self.clients.get(&key).cloned().unwrap_or_default();
        let (now_ms, mut told) = (event.envelope.time_ms, Vec::new());
        let mut look = Look { rules: &self.rules, now_ms, key: &key, told: &mut told, next_ms: None };
        look.at(&mut client);
        look.next_ms
    }

    /// What is to be told by now and was not, in order.
    pub fn due(&mut self, now_ms: i64) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some((at_ms, key)) = self.looks.pop_first() {
            if at_ms > now_ms {
                self.looks.insert((at_ms, key));
                break;
            }
            let Some(client) = self.clients.get_mut(&key) else { continue };
            let mut look = Look { rules: &self.rules, now_ms, key: &key, told: &mut told, next_ms: None };
            look.at(client);
            if let Some(next_ms) = look.next_ms {
                self.looks.insert((next_ms, key));
            }
        }
        told.sort();
        told
    }
}

/// A look at one client.
struct Look<'a> {
    rules: &'a Rules,
    now_ms: i64,
    key: &'a Key,
    told: &'a mut Vec<Told>,
    next_ms: Option<i64>,
}

impl Look<'_> {
    fn at(&mut self, client: &mut Client) {
        self.withdraw(client);
        let mut visits = std::mem::take(&mut client.visits);
        for (id, visit) in &mut visits {
            if visit.standing == Standing::On {
                self.steps(client, id, visit);
                self.requests(client, id, visit);
            }
        }
        client.visits = visits;
    }

    fn again(&mut self, at_ms: i64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms)));
    }

    fn withdraw(&mut self, client: &mut Client) {
        let (visits, is_erased) = (&client.visits, client.is_erased);
        let why = |announced: &Announced| match visits.get(&announced.appointment) {
            _ if announced.start_ms <= self.now_ms => None,
            None => is_erased.then_some("erased"),
            Some(Visit { standing: Standing::Off(why), .. }) => Some(*why),
            Some(visit) => (visit.start.at_ms != announced.start_ms).then_some("rescheduled"),
        };
        let (gone, holding) =
            client.announced.iter().cloned().partition::<Vec<_>, _>(|announced| why(announced).is_some());
        let gone = gone.into_iter().filter_map(|announced| Some((why(&announced)?, announced)));
        self.told.extend(gone.map(|(reason, announced)| Told {
            key: self.key.clone(),
            appointment: announced.appointment,
            what: What::Withdrawn { step: announced.step, start_ms: announced.start_ms, reason },
        }));
        client.announced = holding;
    }

    fn steps(&mut self, client: &mut Client, id: &str, visit: &Visit) {
        let start_ms = visit.start.at_ms;
        let rules = self.rules;
        for (at, step) in rules.steps.iter().enumerate() {
            let due_ms = start_ms - step.before_hours * HOUR_MS;
            let ends_ms = rules.steps.get(at + 1).map_or(start_ms, |next| start_ms - next.before_hours * HOUR_MS);
            let is_told = |a: &Announced| a.appointment == id && a.step == step.id && a.start_ms == start_ms;
            if client.announced.iter().any(is_told) || due_ms < visit.placed_ms || self.now_ms >= ends_ms {
                continue;
            }
            if due_ms > self.now_ms {
                self.again(due_ms);
                continue;
            }
            let quiet = client.quiet.unwrap_or(rules.quiet);
            let zone = client.zone.as_deref().unwrap_or(&visit.start.zone);
            if is_quiet(self.now_ms, quiet, zone) {
                let minutes = (1..=DAY_MS / MINUTE_MS).map(|n| (self.now_ms.div_euclid(MINUTE_MS) + n) * MINUTE_MS);
                if let Some(at_ms) = minutes.into_iter().find(|at_ms| !is_quiet(*at_ms, quiet, zone)) {
                    self.again(at_ms);
                }
                continue;
            }
            let channels = client.channels(&[], rules);
            if !channels.is_empty() {
                self.announce(client, id, &visit.start, step.id, channels);
            }
        }
    }

    fn requests(&mut self, client: &mut Client, id: &str, visit: &mut Visit) {
        for request in visit.requests.iter_mut().filter(|request| !request.is_told) {
            let channels = client.channels(&request.channels, self.rules);
            let ends_ms = visit.start.at_ms.min(request.at_ms + DAY_MS);
            if self.now_ms < ends_ms && !channels.is_empty() {
                request.is_told = true;
                self.announce(client, id, &visit.start, "manual", channels);
            }
        }
    }

    fn announce(&mut self, client: &mut Client, id: &str, start: &Start, step: &str, channels: Vec<Channel>) {
        client.announced.push(Announced { appointment: id.to_owned(), step: step.to_owned(), start_ms: start.at_ms });
        self.told.push(Told {
            key: self.key.clone(),
            appointment: id.to_owned(),
            what: What::Due {
                step: step.to_owned(),
                local_start: written(start.wall_s),
                zone: start.zone.clone(),
                start_ms: start.at_ms,
                channels,
            },
        });
    }
}
