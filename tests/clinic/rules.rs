//! A small reference model of the reminder rules, which shares no code with the planner.
//!
//! It receives the same events, and computes for an instant what must be on the topic then. The only thing that it uses
//! of the zone database is the UTC offset at an instant.

use super::timeline::{DAY_MS, HOUR_MS, MINUTE_MS};
use foretell_events::appointment::{AppointmentFact, Booking, Channel, Consent, FieldUpdate, QuietHours, StartsAt};
use foretell_events::{Event, Fact, zone};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The zone of a visit without one, of a client without one.
const ZONE_DEFAULT: &str = "UTC";
const DAY_S: i64 = 86_400;

/// Identifies a client: tenant and client.
pub type Key = (String, String);

/// An entry of the topic of reminders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub key: Key,
    pub appointment: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A reminder: its step, local time and zone of the visit, and the instant.
    Due {
        step: String,
        local_start: String,
        zone: String,
        start_ms: i64,
        channels: Vec<Channel>,
        /// Further visits of the day that it mentions, with their starts.
        others: Vec<(String, i64)>,
    },
    /// A withdrawal: of a step, for a start.
    Withdrawn { step: String, start_ms: i64, reason: &'static str },
}

/// A reminder of the policy.
#[derive(Debug, Clone)]
pub struct Step {
    pub id: &'static str,
    pub offset: Offset,
    /// Not for visits that the client has confirmed.
    pub skips_confirmed: bool,
}

/// When a reminder is due.
#[derive(Debug, Clone, Copy)]
pub enum Offset {
    /// Hours before the start.
    Hours(i64),
    /// Days before it, in local time of the visit.
    Days(i64),
    /// The same, counting only Mondays to Fridays.
    Weekdays(i64),
    /// When the visit is placed; not later than a day after.
    Booking,
}

/// The rules for reminders.
#[derive(Debug, Clone)]
pub struct Rules {
    pub steps: Vec<Step>,
    pub quiet: QuietHours,
    pub channels: Vec<Channel>,
    /// Reminders per client and day, not counting manual ones.
    pub day_max: usize,
    /// Visits of one day share a reminder.
    pub is_grouped: bool,
    /// Nothing is announced closer to the start.
    pub notice_ms: i64,
}

impl Step {
    pub fn due_ms(&self, start: &Start, placed_ms: i64) -> i64 {
        match self.offset {
            Offset::Hours(hours) => start.at_ms - hours * HOUR_MS,
            Offset::Days(days) => instant_ms(start.wall_s - days * DAY_S, &start.zone),
            Offset::Weekdays(days) => {
                let mut day = start.day();
                let mut left = days;
                while left > 0 {
                    day -= 1;
                    // 1 January 1970 was a Thursday; Saturday and Sunday are 2 and 3 days after one.
                    left -= i64::from(!matches!(day.rem_euclid(7), 2 | 3));
                }
                instant_ms(start.wall_s - (start.day() - day) * DAY_S, &start.zone)
            }
            Offset::Booking => placed_ms,
        }
    }
}

impl Rules {
    /// When a step expires: when the next one is due, at the latest at the start.
    pub fn ends_ms(&self, step: &Step, start: &Start, placed_ms: i64) -> i64 {
        let due_ms = step.due_ms(start, placed_ms);
        let next = self.steps.iter().map(|next| next.due_ms(start, placed_ms)).filter(|next_ms| *next_ms > due_ms);
        let a_day = matches!(step.offset, Offset::Booking).then_some(due_ms + DAY_MS);
        next.chain(a_day).min().unwrap_or(start.at_ms).min(start.at_ms)
    }
}

/// Which rules apply to which tenant, and since when.
#[derive(Debug, Clone)]
pub struct Decided {
    /// For tenants without a policy of their own.
    pub base: Rules,
    /// Rising in time.
    pub edits: Vec<(i64, &'static str, Rules)>,
}

impl Decided {
    /// The rules of a tenant at an instant, and when they took effect.
    pub fn at(&self, tenant: &str, at_ms: i64) -> (&Rules, i64) {
        let edits = self.edits.iter().rev().filter(|(from_ms, of, _)| *of == tenant && *from_ms <= at_ms);
        edits.map(|(from_ms, _, rules)| (rules, *from_ms)).next().unwrap_or((&self.base, i64::MIN))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VisitState {
    On,
    Off(&'static str),
    /// Since this event time.
    Over(i64),
}

/// The start of a visit.
#[derive(Debug, Clone)]
pub struct Start {
    /// Seconds as if the local clock were that of UTC.
    pub wall_s: i64,
    pub zone: String,
    pub at_ms: i64,
}

#[derive(Debug, Clone)]
struct Visit {
    start: Start,
    placed_ms: i64,
    state: VisitState,
    is_confirmed: bool,
    requests: Vec<Request>,
}

#[derive(Debug, Clone)]
struct Request {
    at_ms: i64,
    channels: Vec<Channel>,
    is_announced: bool,
}

/// An active reminder.
#[derive(Debug, Clone)]
struct Announced {
    appointment: String,
    step: String,
    start_ms: i64,
    others: Vec<(String, i64)>,
}

impl Announced {
    fn names(&self, appointment: &str, start_ms: i64) -> bool {
        let is_own = self.appointment == appointment && self.start_ms == start_ms;
        is_own || self.others.iter().any(|(other, other_ms)| other == appointment && *other_ms == start_ms)
    }
}

#[derive(Debug, Default, Clone)]
struct Client {
    zone: Option<String>,
    quiet: Option<QuietHours>,
    channels: Option<Vec<Consent>>,
    visits: BTreeMap<String, Visit>,
    announced: Vec<Announced>,
    /// When the client was reminded, except manually.
    had_ms: Vec<i64>,
    is_erased: bool,
}

/// All clients, and when to check them next.
pub struct Model {
    decided: Decided,
    clients: BTreeMap<Key, Client>,
    looks: BTreeSet<(i64, Key)>,
}

pub fn offset_s(at_s: i64, zone: &str) -> i64 {
    let rules = zone::get(zone).expect("a zone of the database");
    i64::from(rules.to_offset(Timestamp::from_second(at_s).expect("an instant")).seconds())
}

/// The instant at which local clocks show it: the first one, or as much later as they skip.
pub fn instant_ms(wall_s: i64, zone: &str) -> i64 {
    let (before_s, after_s) = (offset_s(wall_s - DAY_S, zone), offset_s(wall_s + DAY_S, zone));
    let shows = |offset: &i64| offset_s(wall_s - offset, zone) == *offset;
    let first = [before_s, after_s].into_iter().filter(shows).map(|offset| wall_s - offset).min();
    first.unwrap_or(wall_s - before_s) * 1000
}

pub fn minute_of_day(at_ms: i64, zone: &str) -> u16 {
    let at_s = at_ms.div_euclid(1000);
    ((at_s + offset_s(at_s, zone)).rem_euclid(DAY_S) / 60) as u16
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
    /// The local day of the visit, since 1970.
    pub fn day(&self) -> i64 {
        self.wall_s.div_euclid(DAY_S)
    }

    pub fn of(booking: &Booking, fallback: &str) -> Self {
        match &booking.starts_at {
            StartsAt::Local { local, zone } => {
                let as_utc = jiff::tz::Offset::UTC.to_timestamp(*local).expect("a time");
                let at_ms = instant_ms(as_utc.as_second(), zone);
                let at_s = at_ms.div_euclid(1000);
                // A local time that is skipped is the one to which clocks skip.
                Self { wall_s: at_s + offset_s(at_s, zone), zone: zone.clone(), at_ms }
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
    /// The channels that the client agrees to, of those requested.
    fn channels(&self, requested: &[Channel], rules: &Rules) -> Vec<Channel> {
        match &self.channels {
            None if requested.is_empty() => rules.channels.clone(),
            None => requested.to_vec(),
            Some(own) => {
                let agreed = own.iter().filter(|consent| consent.consent).map(|consent| consent.channel);
                agreed.filter(|channel| requested.is_empty() || requested.contains(channel)).collect()
            }
        }
    }

    fn place(&mut self, booking: &Booking, at_ms: i64) {
        let of_client = self.zone.clone().unwrap_or_else(|| ZONE_DEFAULT.to_owned());
        let visit = self.visits.remove(&booking.appointment_id);
        let fallback = visit.as_ref().map_or(of_client, |visit| visit.start.zone.clone());
        let start = Start::of(booking, &fallback);
        // The start in force is repeated, or the start of a past visit is corrected.
        if let Some(known) = &visit {
            let is_there = known.start.at_ms == start.at_ms;
            let is_settled = match known.state {
                VisitState::On => is_there,
                VisitState::Over(since_ms) => is_there || start.at_ms <= since_ms,
                VisitState::Off(_) => false,
            };
            if is_settled {
                self.visits.insert(booking.appointment_id.clone(), Visit { start, ..known.clone() });
                return;
            }
        }
        let visit = Visit {
            start,
            placed_ms: at_ms,
            state: VisitState::On,
            is_confirmed: false,
            requests: visit.map_or_else(Vec::new, |visit| visit.requests),
        };
        self.visits.insert(booking.appointment_id.clone(), visit);
    }

    fn set_state(&mut self, appointment: &str, state: VisitState) {
        if let Some(visit) = self.visits.get_mut(appointment) {
            visit.state = state;
        }
    }

    /// The client came, or did not; not before the visit, nor before its day.
    fn end(&mut self, appointment: &str, is_missed: bool, at_ms: i64) {
        let Some(visit) = self.visits.get_mut(appointment) else { return };
        let is_of_day = day_of(at_ms, &visit.start.zone) >= visit.start.day();
        let can_be = at_ms >= visit.start.at_ms || (!is_missed && is_of_day);
        if can_be && !matches!(visit.state, VisitState::Over(_)) {
            visit.state = VisitState::Over(at_ms);
        }
    }

    fn observe(&mut self, event: &Event) {
        match &event.fact {
            Fact::Appointment(AppointmentFact::Booked(booking) | AppointmentFact::Rescheduled(booking)) => {
                self.place(booking, event.envelope.time_ms);
            }
            Fact::Appointment(AppointmentFact::Cancelled(cancelled)) => {
                self.set_state(&cancelled.appointment_id, VisitState::Off("cancelled"));
            }
            Fact::Appointment(AppointmentFact::Deleted(visit)) => {
                self.set_state(&visit.appointment_id, VisitState::Off("deleted"));
            }
            Fact::Appointment(AppointmentFact::Attended(visit)) => {
                self.end(&visit.appointment_id, false, event.envelope.time_ms);
            }
            Fact::Appointment(AppointmentFact::Missed(visit)) => {
                self.end(&visit.appointment_id, true, event.envelope.time_ms);
            }
            Fact::Appointment(AppointmentFact::Confirmed(visit)) => {
                if let Some(visit) = self.visits.get_mut(&visit.appointment_id) {
                    visit.is_confirmed = true;
                }
            }
            Fact::Appointment(AppointmentFact::ReminderRequested(request)) => {
                if let Some(visit) = self.visits.get_mut(&request.appointment_id) {
                    let (at_ms, channels) = (event.envelope.time_ms, request.channels.clone());
                    visit.requests.push(Request { at_ms, channels, is_announced: false });
                }
            }
            Fact::Appointment(AppointmentFact::ClientUpdated(update)) => {
                change(&mut self.zone, &update.time_zone);
                change(&mut self.quiet, &update.quiet_hours);
                change(&mut self.channels, &update.channels);
            }
            Fact::Appointment(AppointmentFact::ClientErased(_)) => {
                let (announced, had_ms) = (std::mem::take(&mut self.announced), std::mem::take(&mut self.had_ms));
                *self = Self { announced, had_ms, is_erased: true, ..Self::default() };
            }
            _ => {}
        }
    }
}

fn change<T: Clone>(field: &mut Option<T>, change: &FieldUpdate<T>) {
    match change {
        FieldUpdate::Keep => {}
        FieldUpdate::Clear => *field = None,
        FieldUpdate::Set(value) => *field = Some(value.clone()),
    }
}

impl Model {
    pub fn new(decided: Decided) -> Self {
        Self { decided, clients: BTreeMap::new(), looks: BTreeSet::new() }
    }

    /// Applies an event.
    pub fn observe(&mut self, event: &Event) {
        let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        self.clients.entry(key.clone()).or_default().observe(event);
        self.looks.insert((event.envelope.time_ms, key));
    }

    /// A tenant has published a policy: all its clients are checked.
    pub fn edited(&mut self, tenant: &str, at_ms: i64) {
        let theirs = self.clients.keys().filter(|(of, _)| of == tenant).cloned();
        self.looks.extend(theirs.map(|key| (at_ms, key)));
    }

    /// The next time at which something is due without a further event.
    pub fn next_ms(&self) -> Option<i64> {
        self.looks.first().map(|(at_ms, _)| *at_ms)
    }

    /// When something will be due to the client of this latest event, as far as is known now.
    pub fn next_of(&self, event: &Event) -> Option<i64> {
        let key = (event.envelope.tenant.clone(), event.fact.subject().to_owned());
        let mut client = self.clients.get(&key).cloned().unwrap_or_default();
        let mut entries = Vec::new();
        look(&self.decided, &key, &mut client, event.envelope.time_ms, &mut entries)
    }

    /// Steps that were due by now and not announced for the current start, of visits that were not deleted.
    pub fn unsent(&self, now_ms: i64) -> Vec<(Key, String, &'static str)> {
        let of_client = |(key, client): (&Key, &Client)| {
            let (rules, _) = self.decided.at(&key.0, now_ms);
            let visits = client.visits.iter().filter(|(_, visit)| visit.state != VisitState::Off("deleted"));
            let unsent = visits.flat_map(|(id, visit)| {
                let is_due = |step: &&Step| step.due_ms(&visit.start, visit.placed_ms) <= now_ms;
                let is_announced =
                    |step: &&Step| client.announced.iter().any(|a| a.step == step.id && a.names(id, visit.start.at_ms));
                let steps = rules.steps.iter().filter(is_due).filter(move |step| !is_announced(step));
                steps.map(|step| (key.clone(), id.clone(), step.id)).collect::<Vec<_>>()
            });
            unsent.collect::<Vec<_>>()
        };
        self.clients.iter().flat_map(of_client).collect()
    }

    /// What must be announced by now and was not, in order.
    pub fn due(&mut self, now_ms: i64) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some((at_ms, key)) = self.looks.pop_first() {
            if at_ms > now_ms {
                self.looks.insert((at_ms, key));
                break;
            }
            let Some(client) = self.clients.get_mut(&key) else { continue };
            let next_ms = look(&self.decided, &key, client, now_ms, &mut entries);
            self.looks.extend(next_ms.map(|next_ms| (next_ms, key)));
        }
        entries.sort();
        entries
    }
}

/// Checks one client; returns when to check it next.
fn look(decided: &Decided, key: &Key, client: &mut Client, now_ms: i64, entries: &mut Vec<Entry>) -> Option<i64> {
    let (rules, _) = decided.at(&key.0, now_ms);
    let visits = std::mem::take(&mut client.visits);
    let mut look = Look { rules, now_ms, key, entries, next_ms: None };
    look.withdraw(client, &visits);
    for step in &rules.steps {
        look.step(client, &visits, step);
    }
    client.visits = visits;
    look.requests(client);
    look.next_ms
}

/// A check of one client.
struct Look<'a> {
    rules: &'a Rules,
    now_ms: i64,
    key: &'a Key,
    entries: &'a mut Vec<Entry>,
    next_ms: Option<i64>,
}

/// A visit that a step may be announced for.
struct Open<'a> {
    id: &'a str,
    start: &'a Start,
    due_ms: i64,
    /// Nothing is announced from then on.
    latest_ms: i64,
}

impl Look<'_> {
    fn again(&mut self, at_ms: i64) {
        if at_ms > self.now_ms {
            self.next_ms = Some(self.next_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms)));
        }
    }

    fn withdraw(&mut self, client: &mut Client, visits: &BTreeMap<String, Visit>) {
        let (now_ms, is_erased) = (self.now_ms, client.is_erased);
        let why = |appointment: &str, start_ms: i64| match visits.get(appointment) {
            _ if start_ms <= now_ms => None,
            None => is_erased.then_some("erased"),
            Some(Visit { state: VisitState::Off(why), .. }) => Some(*why),
            Some(visit) => (visit.start.at_ms != start_ms).then_some("rescheduled"),
        };
        for mut announced in std::mem::take(&mut client.announced) {
            if let Some(reason) = why(&announced.appointment, announced.start_ms) {
                // A withdrawal for its own visit withdraws all of it.
                self.withdrawn(&announced.appointment, &announced.step, announced.start_ms, reason);
                continue;
            }
            announced.others.retain(|(other, start_ms)| {
                let reason = why(other, *start_ms);
                reason.into_iter().for_each(|reason| self.withdrawn(other, &announced.step, *start_ms, reason));
                reason.is_none()
            });
            client.announced.push(announced);
        }
    }

    fn withdrawn(&mut self, appointment: &str, step: &str, start_ms: i64, reason: &'static str) {
        let what = What::Withdrawn { step: step.to_owned(), start_ms, reason };
        self.entries.push(Entry { key: self.key.clone(), appointment: appointment.to_owned(), what });
    }

    fn step<'v>(&mut self, client: &mut Client, visits: &'v BTreeMap<String, Visit>, step: &Step) {
        let channels = client.channels(&[], self.rules);
        let mut open: Vec<_> = visits.iter().filter_map(|(id, visit)| self.open(client, id, visit, step)).collect();
        if channels.is_empty() {
            return;
        }
        open.sort_by_key(|open| (open.start.at_ms, open.id));
        let mut days: Vec<Vec<Open<'v>>> = Vec::new();
        for open in open {
            self.again(open.due_ms);
            let is_shared = |day: &&mut Vec<Open<'v>>| day[0].start.day() == open.start.day();
            match days.iter_mut().rev().find(is_shared).filter(|_| self.rules.is_grouped) {
                Some(day) => day.push(open),
                None => days.push(vec![open]),
            }
        }
        days.into_iter().for_each(|day| self.day(client, step, &channels, day));
    }

    /// Whether a step may still be announced for a visit, now or later.
    fn open<'v>(&self, client: &Client, id: &'v str, visit: &'v Visit, step: &Step) -> Option<Open<'v>> {
        let start = &visit.start;
        let due_ms = step.due_ms(start, visit.placed_ms);
        let latest_ms = self.rules.ends_ms(step, start, visit.placed_ms).min(start.at_ms - self.rules.notice_ms);
        let is_announced = client.announced.iter().any(|a| a.step == step.id && a.names(id, start.at_ms));
        let is_passed_over = step.skips_confirmed && visit.is_confirmed;
        let is_open = visit.state == VisitState::On && due_ms >= visit.placed_ms && self.now_ms < latest_ms;
        (is_open && !is_announced && !is_passed_over).then_some(Open { id, start, due_ms, latest_ms })
    }

    /// The first visit of a day with enough time left leads, and the reminder mentions the others.
    fn day(&mut self, client: &mut Client, step: &Step, channels: &[Channel], day: Vec<Open<'_>>) {
        let mut day = day.into_iter();
        while let Some(leader) = day.next() {
            let slot_ms = self.slot_ms(client, leader.start, leader.due_ms.max(self.now_ms));
            if slot_ms >= leader.latest_ms {
                continue;
            }
            self.again(slot_ms);
            if leader.due_ms <= self.now_ms && slot_ms <= self.now_ms {
                let others = day.map(|other| (other.id.to_owned(), other.start.at_ms)).collect();
                client.had_ms.push(self.now_ms);
                self.announce(client, leader.id, leader.start, (step.id, channels.to_vec(), others));
            }
            return;
        }
    }

    /// The first instant that is not in quiet hours, on a day on which the client was not reminded too often.
    fn slot_ms(&self, client: &Client, start: &Start, wanted_ms: i64) -> i64 {
        let quiet = client.quiet.unwrap_or(self.rules.quiet);
        let zone = client.zone.as_deref().unwrap_or(&start.zone);
        let mut at_ms = wanted_ms;
        loop {
            if is_quiet(at_ms, quiet, zone) {
                let mut minutes = (1..).map(|n| (at_ms.div_euclid(MINUTE_MS) + n) * MINUTE_MS);
                at_ms = minutes.find(|at_ms| !is_quiet(*at_ms, quiet, zone)).unwrap_or(i64::MAX);
            }
            let day = day_of(at_ms, zone);
            if client.had_ms.iter().filter(|had_ms| day_of(**had_ms, zone) == day).count() < self.rules.day_max {
                return at_ms;
            }
            at_ms = instant_ms((day + 1) * DAY_S, zone);
        }
    }

    fn requests(&mut self, client: &mut Client) {
        let mut visits = std::mem::take(&mut client.visits);
        for (id, visit) in visits.iter_mut().filter(|(_, visit)| visit.state == VisitState::On) {
            for request in visit.requests.iter_mut().filter(|request| !request.is_announced) {
                let channels = client.channels(&request.channels, self.rules);
                let ends_ms = visit.start.at_ms.min(request.at_ms + DAY_MS);
                if self.now_ms < ends_ms && !channels.is_empty() {
                    request.is_announced = true;
                    self.announce(client, id, &visit.start, ("manual", channels, Vec::new()));
                }
            }
        }
        client.visits = visits;
    }

    fn announce(
        &mut self,
        client: &mut Client,
        id: &str,
        start: &Start,
        (step, channels, others): (&str, Vec<Channel>, Vec<(String, i64)>),
    ) {
        let (appointment, step) = (id.to_owned(), step.to_owned());
        let announced = Announced { appointment, step: step.clone(), start_ms: start.at_ms, others: others.clone() };
        client.announced.push(announced);
        self.entries.push(Entry {
            key: self.key.clone(),
            appointment: id.to_owned(),
            what: What::Due {
                step,
                local_start: written(start.wall_s),
                zone: start.zone.clone(),
                start_ms: start.at_ms,
                channels,
                others,
            },
        });
    }
}

/// The day in a time zone, since 1970.
pub fn day_of(at_ms: i64, zone: &str) -> i64 {
    let at_s = at_ms.div_euclid(1000);
    (at_s + offset_s(at_s, zone)).div_euclid(DAY_S)
}
