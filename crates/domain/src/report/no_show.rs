//! How visits ended, compared with the risks computed before them: rates of no-shows, and whether the risks came true.
//!
//! ```text
//!   decisions about visits ─► the last risk of a visit before it began    ─┐
//!   reminders              ─► the risk in them, and which steps were sent  ├─► rows and cases ─► Report
//!   client rows            ─► how each visit ended                        ─┘
//! ```
//!
//! Decisions and reminders are read first and kept by visit; then the rows of clients are read in any order, and each
//! is counted and forgotten. Rows are the fold of the appointments topic, so this module does not interpret events
//! about a visit in a second way. A visit is an appointment at one start: a risk from before it was moved is about
//! another visit.
//!
//! **Rates** are missed visits among those known to be missed or kept. Cancelled visits are neither: a late
//! cancellation is its own class, and an early one leaves time to give the slot to another client. A past visit without
//! a reported outcome is unknown, not kept. Appointments are counted, also if a client had several on one day.
//!
//! **Steps** show which reminders a visit got. They compare groups of people that differ: those who book late get fewer
//! reminders and come more often, and a tenant may remind doubtful clients more. For that reason each rate is shown
//! with the mean of the expected risk, and not even both together show the effect of a reminder.

mod recorded;
mod row;

pub use row::NoShowReportRow;

use crate::score::RiskLevel;
use crate::score::metrics::{self, Bin, Case, Metrics};
use crate::view::client::Client;
use crate::view::lead;
use foretell_events::catalog::DECISION;
use foretell_events::codec::parse_rfc3339;
use foretell_events::record::Record;
use foretell_events::reminder::ReminderFact;
use foretell_events::{Event, Fact};
use recorded::{DecisionFields, ModelFields, RecordedRisk, VisitRecord, later, level, visit};
use row::{Count, VisitOutcome};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Visits with a known risk or reminder that are kept in memory; each takes some 150 bytes.
pub const VISITS_MAX: usize = 1_000_000;
/// Different sets of steps that are counted separately; further ones are counted together.
pub(crate) const STEP_SETS_MAX: usize = 100;
/// Different models that are counted separately; further ones are counted together.
pub(crate) const MODELS_MAX: usize = 100;
/// Different steps that are distinguished.
const STEPS_MAX: usize = 63;
/// The name for steps and models beyond the limits.
const OTHERS: &str = "(others)";

/// How visits ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NoShowReport {
    /// Visits that began in this period, in milliseconds since the epoch.
    pub window: Range<i64>,
    /// All of them.
    pub total: NoShowReportRow,
    /// By whole days from booking to visit, in the buckets of the rates.
    pub by_lead: Vec<NoShowReportRow>,
    /// By the last level before the visit began.
    pub by_level: Vec<NoShowReportRow>,
    /// By the reminders that were announced before the visit began.
    pub by_steps: Vec<NoShowReportRow>,
    /// Of the last score before the visit began, from a decision or a reminder.
    pub last: ScoreAccuracy,
    /// Of the last score that was requested before the visit began.
    pub asked: Metrics,
    /// The same by model and version, sorted by name.
    pub by_model: Vec<ModelAccuracy>,
    /// Of the risk in the last reminder.
    pub reminded: Metrics,
    /// Visits with a risk or a reminder that are not among these: moved since, deleted, or forgotten.
    pub elsewhere: u64,
    /// Outcomes, at any time, whose visits the clients' rows have forgotten: they are not counted here.
    pub forgotten: u64,
    /// Records of appointments that were not folded yet: this report does not include them.
    pub unfolded: u64,
    /// Records that could not be read.
    pub unreadable: u64,
}

/// Whether the scores of one model came true.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelAccuracy {
    /// Its id and version, as in `no-show-two-counters 1`.
    pub name: String,
    /// Of the visits whose last score was requested and came from this model.
    pub metrics: Metrics,
}

/// Whether scores came true.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreAccuracy {
    /// As numbers.
    pub metrics: Metrics,
    /// By tenths of the scores.
    pub bins: Vec<Bin>,
}

/// There is more data than may be kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {VISITS_MAX} visits have data: use a later --since, an earlier --until or a --tenant")]
pub struct TooManyVisits;

/// The counts so far.
#[derive(Debug)]
pub struct NoShowTally {
    window: Range<i64>,
    /// By visit.
    recorded: HashMap<u128, VisitRecord>,
    steps: Vec<String>,
    models: Vec<String>,
    matched: u64,
    total: Count,
    by_lead: [Count; lead::BUCKETS.len()],
    by_level: BTreeMap<Option<RiskLevel>, Count>,
    by_steps: BTreeMap<u64, Count>,
    other_steps: Count,
    last: Vec<Case>,
    asked: Vec<(u16, Case)>,
    reminded: Vec<Case>,
    forgotten: u64,
    unreadable: u64,
}

impl NoShowTally {
    /// No counts, for visits that begin in the window.
    pub fn new(window: Range<i64>) -> Self {
        Self {
            window,
            recorded: HashMap::new(),
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

    /// Adds a record of the topic of decisions; all of them come before the rows. Decisions about logins, and about
    /// visits that were only considered, are ignored.
    pub fn decision(&mut self, record: &Record) -> Result<(), TooManyVisits> {
        let is_decision = record.header("ce_type") == Some(DECISION.name.as_bytes());
        let decided = is_decision.then(|| serde_json::from_slice::<DecisionFields>(&record.value).ok()).flatten();
        let Some(mut decided) = decided else {
            self.unreadable += 1;
            return Ok(());
        };
        if decided.kind != "appointment" || decided.appointment_id.is_none() {
            return Ok(());
        }
        let model = std::mem::take(&mut decided.model);
        let (Some(key), Some((appointment_id, starts_at_ms, risk))) = (record.key.as_deref(), decided.risk()) else {
            self.unreadable += 1;
            return Ok(());
        };
        let model = self.model(&model);
        if let Some(recorded) = self.recorded(visit(key, &appointment_id, starts_at_ms), starts_at_ms, risk.at_ms)? {
            later(&mut recorded.asked, RecordedRisk { model, ..risk });
        }
        Ok(())
    }

    /// Adds an event of the reminders topic; all of them come before the rows. A later withdrawal changes nothing,
    /// because the reminder had been announced.
    pub fn reminder(&mut self, event: &Event) -> Result<(), TooManyVisits> {
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
            let Some(recorded) = self.recorded(visit, starts_at_ms, at_ms)? else { continue };
            recorded.steps |= step;
            // The risk is that of the reminder's own visit.
            let risk = due.risk.as_ref().filter(|_| *appointment_id == due.appointment_id);
            if let Some((score, level)) = risk.and_then(|risk| Some((risk.score, level(&risk.level)?))) {
                later(&mut recorded.reminded, RecordedRisk { at_ms, score, level, model: 0 });
            }
        }
        Ok(())
    }

    /// The number of a model; models beyond the limit share one number, which has no name.
    fn model(&mut self, ModelFields { id, version }: &ModelFields) -> u16 {
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

    /// The entry of a visit of the window, for data from before it begins.
    fn recorded(
        &mut self,
        visit: u128,
        starts_at_ms: i64,
        at_ms: i64,
    ) -> Result<Option<&mut VisitRecord>, TooManyVisits> {
        if !self.window.contains(&starts_at_ms) || at_ms >= starts_at_ms {
            return Ok(None);
        }
        if self.recorded.len() >= VISITS_MAX && !self.recorded.contains_key(&visit) {
            return Err(TooManyVisits);
        }
        Ok(Some(self.recorded.entry(visit).or_default()))
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
            let Some(outcome) = VisitOutcome::of(appointment) else { continue };
            let recorded = self.recorded.get(&visit(key.as_bytes(), id, start.at_ms)).copied();
            self.matched += u64::from(recorded.is_some());
            self.count(outcome, start.lead_days(appointment.booked_at_ms), recorded.unwrap_or_default());
        }
    }

    fn count(&mut self, outcome: VisitOutcome, lead_days: i32, recorded: VisitRecord) {
        let last = recorded.last();
        let is_new = !self.by_steps.contains_key(&recorded.steps);
        let of_steps = if is_new && self.by_steps.len() >= STEP_SETS_MAX {
            &mut self.other_steps
        } else {
            self.by_steps.entry(recorded.steps).or_default()
        };
        of_steps.add(outcome, last);
        self.total.add(outcome, last);
        self.by_lead[usize::from(lead::bucket(lead_days))].add(outcome, last);
        self.by_level.entry(last.map(|risk| risk.level)).or_default().add(outcome, last);
        if outcome.is_known() {
            let positive = outcome == VisitOutcome::Missed;
            let of = |risk: Option<RecordedRisk>| risk.map(|RecordedRisk { score, .. }| Case { score, positive });
            self.last.extend(of(last));
            self.asked.extend(recorded.asked.and_then(|risk| Some((risk.model, of(recorded.asked)?))));
            self.reminded.extend(of(recorded.reminded));
        }
    }

    /// The report of all counts; `unfolded` records of appointments were not folded when the rows were read.
    pub fn report(self, unfolded: u64) -> NoShowReport {
        let levels = [Some(RiskLevel::Low), Some(RiskLevel::Medium), Some(RiskLevel::High), None];
        let of_level = |level: Option<RiskLevel>| {
            let count = self.by_level.get(&level)?;
            Some(count.row(level.map_or("(not scored)", RiskLevel::name)))
        };
        let mut by_steps: Vec<_> = self.by_steps.iter().map(|(set, count)| count.row(self.names(*set))).collect();
        // The sort is stable: rows of equal size stay in the order of their names, and the row without any reminder
        // comes first.
        by_steps.sort_by(|a, b| a.name.cmp(&b.name));
        by_steps.sort_by_key(|row| (row.name != NONE, std::cmp::Reverse(row.known)));
        let others = self.other_steps.row(OTHERS);
        by_steps.extend((others != Count::default().row(OTHERS)).then_some(others));
        NoShowReport {
            total: self.total.row("all"),
            by_lead: (0..).zip(self.by_lead).map(|(bucket, count)| count.row(lead_days(bucket))).collect(),
            by_level: levels.into_iter().filter_map(of_level).collect(),
            by_steps,
            last: ScoreAccuracy { metrics: Metrics::of(&self.last), bins: metrics::bins(&self.last) },
            asked: Metrics::of(&self.asked.iter().map(|(_, case)| *case).collect::<Vec<_>>()),
            by_model: self.by_model(),
            reminded: Metrics::of(&self.reminded),
            elsewhere: self.recorded.len() as u64 - self.matched,
            forgotten: self.forgotten,
            unfolded,
            unreadable: self.unreadable,
            window: self.window,
        }
    }

    fn by_model(&self) -> Vec<ModelAccuracy> {
        let mut cases = BTreeMap::<&str, Vec<Case>>::new();
        for (model, case) in &self.asked {
            let name = self.models.get(usize::from(*model)).map_or(OTHERS, String::as_str);
            cases.entry(name).or_default().push(*case);
        }
        cases
            .into_iter()
            .map(|(name, cases)| ModelAccuracy { name: name.to_owned(), metrics: Metrics::of(&cases) })
            .collect()
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
