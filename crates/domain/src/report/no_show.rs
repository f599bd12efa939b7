//! How visits went, beside what was said of them before: rates of no-shows, and whether risks came true.
//!
//! ```text
//!   decisions about visits ─► what was said of a visit last, before it began ─┐
//!   reminders             ─► the risk they carried, and which steps came      ├─► rows and cases ─► Report
//!   client rows           ─► what became of each visit ───────────────────────┘
//! ```
//!
//! What was said comes first and is held, by visit; then the rows of clients, in any order, each of which is counted and
//! forgotten. Rows are the fold of the appointments topic, so nothing here reads an event about a visit a second way. A
//! visit is an appointment at one start: what was said of it before it was moved is about another visit.
//!
//! **Rates** are missed visits among those of which it is known that somebody came or did not. Visits that were called
//! off are none of these: a late cancellation is a class of its own, and an early one leaves time to give the place to
//! somebody else. A visit that is past and of which nobody has said anything is unknown, not kept. Appointments are
//! counted, also where a client had several on one day.
//!
//! **Steps** say which reminders a visit got, and compare people who are not alike: who books late gets fewer and comes
//! more often, and a tenant may remind the doubtful more. The mean of what was expected stands beside each rate for
//! that reason, and not even the two together say what a reminder does.

mod row;
mod said;

pub use row::Row;

use crate::score::Level;
use crate::score::metrics::{self, Bin, Case, Metrics};
use crate::view::client::Client;
use crate::view::lead;
use foretell_events::catalog::DECISION;
use foretell_events::codec::parse_rfc3339;
use foretell_events::record::Record;
use foretell_events::reminder::ReminderFact;
use foretell_events::{Event, Fact};
use row::{Count, Outcome};
use said::{Decided, Heard, Model, Said, later, level, visit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Visits that something was said of and that are held; each is some 150 bytes.
pub const VISITS_MAX: usize = 1_000_000;
/// Different sets of steps that are told apart; further ones are counted together.
pub const STEP_SETS_MAX: usize = 100;
/// Different models that are told apart; further ones are counted together.
pub const MODELS_MAX: usize = 100;
/// Different steps that are told apart.
const STEPS_MAX: usize = 63;
/// Under which names stand that are too many.
const OTHERS: &str = "(others)";

/// How visits went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Visits that began in this time, in milliseconds since the epoch.
    pub window: Range<i64>,
    /// All of them.
    pub total: Row,
    /// By whole days from booking to visit, in the buckets that rates are kept by.
    pub by_lead: Vec<Row>,
    /// By the level that was said last before the visit began.
    pub by_level: Vec<Row>,
    /// By the reminders that were announced before the visit began.
    pub by_steps: Vec<Row>,
    /// Of what was said last before the visit began, wherever it was said.
    pub last: Calibration,
    /// Of the last score that was asked for, before the visit began.
    pub asked: Metrics,
    /// The same by what computed it, by name: a model and its version.
    pub by_model: Vec<OfModel>,
    /// Of the risk that the last reminder carried.
    pub reminded: Metrics,
    /// Visits that something was said of and that are not among these: moved since, deleted, or forgotten.
    pub elsewhere: u64,
    /// Outcomes, of any time, whose visits the clients' rows have forgotten: they are counted nowhere here.
    pub forgotten: u64,
    /// Records of appointments that were not folded yet: what they say is missing here.
    pub unfolded: u64,
    /// Records that could not be read.
    pub unreadable: u64,
}

/// Whether the scores of one model came true.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OfModel {
    /// Its id and version, as in `no-show-two-counters 1`.
    pub name: String,
    /// Of the visits whose last score was asked of it.
    pub metrics: Metrics,
}

/// Whether scores came true.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// As numbers.
    pub metrics: Metrics,
    /// By tenths of the scores.
    pub bins: Vec<Bin>,
}

/// There is more to hold than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("something was said of more than {VISITS_MAX} visits: name a later --since, an earlier --until, or a --tenant")]
pub struct TooMany;

/// What is counted so far.
#[derive(Debug)]
pub struct Tally {
    window: Range<i64>,
    /// By visit.
    heard: HashMap<u128, Heard>,
    steps: Vec<String>,
    models: Vec<String>,
    matched: u64,
    total: Count,
    by_lead: [Count; lead::BUCKETS.len()],
    by_level: BTreeMap<Option<Level>, Count>,
    by_steps: BTreeMap<u64, Count>,
    other_steps: Count,
    last: Vec<Case>,
    asked: Vec<(u16, Case)>,
    reminded: Vec<Case>,
    forgotten: u64,
    unreadable: u64,
}

impl Tally {
    /// Nothing is counted yet, of visits that begin in the window.
    pub fn new(window: Range<i64>) -> Self {
        Self {
            window,
            heard: HashMap::new(),
            steps: Vec::new(),
            models: Vec::new(),
            matched: 0,
            total: Count::default(),
            by_lead: Default::default(),
            by_level: BTreeMap::new(),
            by_steps: BTreeMap::new(),
            other_steps: Count::default(),
            last: Vec::new(),
            asked: Vec::new(),
            reminded: Vec::new(),
            forgotten: 0,
            unreadable: 0,
        }
    }

    /// Hears a record of the topic of decisions; all of them come before the rows. Those about logins, and about visits
    /// that were only considered, are passed over.
    pub fn decision(&mut self, record: &Record) -> Result<(), TooMany> {
        let is_decision = record.header("ce_type") == Some(DECISION.name.as_bytes());
        let decided = is_decision.then(|| serde_json::from_slice::<Decided>(&record.value).ok()).flatten();
        let Some(mut decided) = decided else {
            self.unreadable += 1;
            return Ok(());
        };
        if decided.kind != "appointment" || decided.appointment_id.is_none() {
            return Ok(());
        }
        let model = std::mem::take(&mut decided.model);
        let (Some(key), Some((appointment_id, starts_at_ms, said))) = (record.key.as_deref(), decided.said()) else {
            self.unreadable += 1;
            return Ok(());
        };
        let model = self.model(&model);
        if let Some(heard) = self.heard(visit(key, &appointment_id, starts_at_ms), starts_at_ms, said.at_ms)? {
            later(&mut heard.asked, Said { model, ..said });
        }
        Ok(())
    }

    /// Hears an event of the reminders topic; all of them come before the rows. That one was withdrawn later changes
    /// nothing: it had been announced.
    pub fn reminder(&mut self, event: &Event) -> Result<(), TooMany> {
        let Fact::Reminder(ReminderFact::Due(due)) = &event.fact else { return Ok(()) };
        let (key, at_ms, step) = (event.key(), event.envelope.time_ms, self.step(&due.step));
        let others = due.visits.iter().filter(|other| other.appointment_id != due.appointment_id);
        let others = others.map(|other| (&other.appointment_id, &other.starts_at));
        for (appointment_id, starts_at) in [(&due.appointment_id, &due.starts_at)].into_iter().chain(others) {
            let Ok(starts_at_ms) = parse_rfc3339(starts_at) else {
                self.unreadable += 1;
                continue;
            };
            let visit = visit(key.as_bytes(), appointment_id, starts_at_ms);
            let Some(heard) = self.heard(visit, starts_at_ms, at_ms)? else { continue };
            heard.steps |= step;
            // The risk is that of the visit that the reminder is of.
            let risk = due.risk.as_ref().filter(|_| *appointment_id == due.appointment_id);
            if let Some((score, level)) = risk.and_then(|risk| Some((risk.score, level(&risk.level)?))) {
                later(&mut heard.reminded, Said { at_ms, score, level, model: 0 });
            }
        }
        Ok(())
    }

    /// The number of a model; of all that are too many the same one, which has no name.
    fn model(&mut self, Model { id, version }: &Model) -> u16 {
        let name = format!("{id} {version}");
        let known = self.models.iter().position(|model| *model == name);
        let at = known.unwrap_or(self.models.len());
        if known.is_none() && at < MODELS_MAX {
            self.models.push(name);
        }
        at.min(MODELS_MAX) as u16
    }

    /// The bit of a step.
    fn step(&mut self, name: &str) -> u64 {
        let known = self.steps.iter().position(|step| step == name);
        let at = known.unwrap_or_else(|| {
            if self.steps.len() < STEPS_MAX {
                self.steps.push(name.to_owned());
                self.steps.len() - 1
            } else {
                STEPS_MAX
            }
        });
        1 << at
    }

    /// What is held of a visit of the window of which something is said before it begins.
    fn heard(&mut self, visit: u128, starts_at_ms: i64, at_ms: i64) -> Result<Option<&mut Heard>, TooMany> {
        if !self.window.contains(&starts_at_ms) || at_ms >= starts_at_ms {
            return Ok(None);
        }
        if self.heard.len() >= VISITS_MAX && !self.heard.contains_key(&visit) {
            return Err(TooMany);
        }
        Ok(Some(self.heard.entry(visit).or_default()))
    }

    /// Counts the visits of a client, by their row and its key, `tenant:client_id`.
    pub fn client(&mut self, key: &str, client: &Client) {
        let kept = client.appointments.values().filter(|visit| visit.status.is_resolved() && visit.start.is_some());
        let known = client.history.attended + client.history.missed;
        self.forgotten += u64::try_from(known - kept.count() as i64).unwrap_or(0);
        for (id, appointment) in &client.appointments {
            let Some(start) = appointment.start.as_ref().filter(|start| self.window.contains(&start.at_ms)) else {
                continue;
            };
            let Some(outcome) = Outcome::of(appointment) else { continue };
            let heard = self.heard.get(&visit(key.as_bytes(), id, start.at_ms)).copied();
            self.matched += u64::from(heard.is_some());
            self.count(outcome, start.lead_days(appointment.booked_at_ms), heard.unwrap_or_default());
        }
    }

    fn count(&mut self, outcome: Outcome, lead_days: i32, heard: Heard) {
        let last = heard.last();
        let is_new = !self.by_steps.contains_key(&heard.steps);
        let of_steps = if is_new && self.by_steps.len() >= STEP_SETS_MAX {
            &mut self.other_steps
        } else {
            self.by_steps.entry(heard.steps).or_default()
        };
        of_steps.add(outcome, last);
        self.total.add(outcome, last);
        self.by_lead[usize::from(lead::bucket(lead_days))].add(outcome, last);
        self.by_level.entry(last.map(|said| said.level)).or_default().add(outcome, last);
        if outcome.is_known() {
            let positive = outcome == Outcome::Missed;
            let of = |said: Option<Said>| said.map(|Said { score, .. }| Case { score, positive });
            self.last.extend(of(last));
            self.asked.extend(heard.asked.and_then(|said| Some((said.model, of(heard.asked)?))));
            self.reminded.extend(of(heard.reminded));
        }
    }

    /// All of it is counted; so many records of appointments were not folded when the rows were read.
    pub fn report(self, unfolded: u64) -> Report {
        let levels = [Some(Level::Low), Some(Level::Medium), Some(Level::High), None];
        let of_level = |level: Option<Level>| {
            let count = self.by_level.get(&level)?;
            Some(count.row(level.map_or("(not scored)", Level::name)))
        };
        let mut by_steps: Vec<_> = self.by_steps.iter().map(|(set, count)| count.row(self.names(*set))).collect();
        // Stable: those of one size stay in the order of their names, and without any reminder comes first.
        by_steps.sort_by(|a, b| a.name.cmp(&b.name));
        by_steps.sort_by_key(|row| (row.name != NONE, std::cmp::Reverse(row.known)));
        let others = self.other_steps.row(OTHERS);
        by_steps.extend((others != Count::default().row(OTHERS)).then_some(others));
        Report {
            total: self.total.row("all"),
            by_lead: (0..).zip(self.by_lead).map(|(bucket, count)| count.row(lead_days(bucket))).collect(),
            by_level: levels.into_iter().filter_map(of_level).collect(),
            by_steps,
            last: Calibration { metrics: Metrics::of(&self.last), bins: metrics::bins(&self.last) },
            asked: Metrics::of(&self.asked.iter().map(|(_, case)| *case).collect::<Vec<_>>()),
            by_model: self.by_model(),
            reminded: Metrics::of(&self.reminded),
            elsewhere: self.heard.len() as u64 - self.matched,
            forgotten: self.forgotten,
            unfolded,
            unreadable: self.unreadable,
            window: self.window,
        }
    }

    fn by_model(&self) -> Vec<OfModel> {
        let mut cases = BTreeMap::<&str, Vec<Case>>::new();
        for (model, case) in &self.asked {
            let name = self.models.get(usize::from(*model)).map_or(OTHERS, String::as_str);
            cases.entry(name).or_default().push(*case);
        }
        cases.into_iter().map(|(name, cases)| OfModel { name: name.to_owned(), metrics: Metrics::of(&cases) }).collect()
    }

    /// The names of a set of steps.
    fn names(&self, set: u64) -> String {
        let named = self.steps.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, name)| name.as_str());
        let mut names: Vec<_> = named.chain((set & (1 << STEPS_MAX) != 0).then_some(OTHERS)).collect();
        names.sort_unstable();
        if names.is_empty() { NONE.to_owned() } else { names.join(" + ") }
    }
}

/// The set of no steps.
const NONE: &str = "none";

/// The days of a lead bucket.
fn lead_days(bucket: usize) -> String {
    let from = lead::BUCKETS[bucket];
    match lead::BUCKETS.get(bucket + 1) {
        None => format!("{from}+"),
        Some(next) if next - from == 1 => from.to_string(),
        Some(next) => format!("{from}-{}", next - 1),
    }
}

#[cfg(test)]
mod tests;
