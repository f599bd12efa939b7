//! Backtests: a file of the past replayed in memory, each row scored from what was known just before it.
//!
//! ```text
//!  events by time ─┬─► score (rows as they are) ─► one line each
//!                  └─► fold ─► rows                                  then, with the outcomes: the summary
//! ```
//!
//! The rows are the ones that the pipelines keep (see [`foretell_domain::view::materialized`]) and the scores are those that
//! `serve` gives, so what is measured here is what would have been answered.
//!
//! **Training.** What scores logins has constants, which are configuration, and counts, which are rows; nothing is
//! fitted. Of appointments `train_until` makes a [model](crate::train) of what was known by that time. Outcomes that
//! arrive later go on being counted, as they would in service, which recalibrates. The summary then covers only what
//! came later. Nothing is ever scored with an outcome that had not arrived.
//!
//! What is absent: a score for what the format leaves out, and a measure where the file has no labels.

mod appointments;
pub(crate) mod logins;
pub mod policies;
pub mod reminders;

pub use appointments::appointments;
pub use logins::logins;

pub use crate::train::moments::At;

use crate::train::Refused;
use foretell_domain::score::metrics::{Case, Metrics};
use foretell_domain::score::no_show::model::Model;
use foretell_domain::score::{login, no_show};
use foretell_domain::view::Limits;
use serde::Serialize;
use std::fmt;

/// Events between two calls of a progress callback.
const PROGRESS_EVENTS: usize = 1_000;

/// What a backtest of logins depends on besides the file.
#[derive(Debug, Clone, Default)]
pub struct LoginOptions {
    /// What decides.
    pub score: login::Policy,
    /// What the fold depends on.
    pub limits: Limits,
    /// Only later logins are in the summary.
    pub train_until_ms: Option<i64>,
}

/// What a backtest of appointments depends on besides the file.
#[derive(Debug, Clone, Default)]
pub struct AppointmentOptions {
    /// See [`no_show::Config`].
    pub score: no_show::Config,
    /// What the fold depends on.
    pub limits: Limits,
    /// Partitions of the log that the file stands for; 0 is 1. Samples of outcomes are kept of each.
    pub partitions: u32,
    /// When an appointment is scored.
    pub at: At,
    /// Only appointments that were booked later are in the summary.
    pub train_until_ms: Option<i64>,
}

/// How good the scores of a file were.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Rows of the file that were read.
    pub rows: u64,
    /// Rows that the format leaves out.
    pub skipped: u64,
    /// Lines written.
    pub lines: u64,
    /// Of them, those that had a score.
    pub scored: u64,
    /// How often each decision, or each level, was given.
    pub answers: Vec<(&'static str, u64)>,
    /// What was learnt from the appointments up to `train_until`, by tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taught: Vec<Taught>,
    /// Measures of the scored rows with a label or an outcome, as far as the summary covers them.
    pub measures: Vec<Measure>,
}

/// What was learnt of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Taught {
    /// The tenant.
    pub tenant: String,
    /// Rows that the model was learnt from; 0 where there is none.
    pub rows: u64,
    /// Why there is no model, so that two counters answered all along.
    pub refused: Option<String>,
}

impl Taught {
    fn new(tenant: &str, learnt: &Result<Model, Refused>) -> Self {
        let rows = learnt.as_ref().map_or(0, |model| model.training.rows);
        Self { tenant: tenant.to_owned(), rows, refused: learnt.as_ref().err().map(Refused::to_string) }
    }
}

impl fmt::Display for Taught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            Some(why) => write!(f, "tenant {}: two counters; {why}", self.tenant),
            None => write!(f, "tenant {}: a model learnt from {} rows", self.tenant, self.rows),
        }
    }
}

/// The measures of a group of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// Which rows, and what counts as positive.
    pub name: &'static str,
    /// The measures.
    #[serde(flatten)]
    pub metrics: Metrics,
}

impl Measure {
    fn of(name: &'static str, cases: &[Case]) -> Self {
        Self { name, metrics: Metrics::of(cases) }
    }
}

impl Summary {
    fn answered(&mut self, answer: &'static str) {
        match self.answers.iter_mut().find(|(name, _)| *name == answer) {
            Some((_, count)) => *count += 1,
            None => self.answers.push((answer, 1)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, skipped, lines, scored, .. } = self;
        writeln!(f, "rows {rows}, skipped {skipped}, lines {lines}, scored {scored}")?;
        let answers: Vec<_> = self.answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "{}", answers.join(", "))?;
        self.taught.iter().try_for_each(|taught| writeln!(f, "{taught}"))?;
        if self.measures.is_empty() {
            return writeln!(
                f,
                "nothing to measure the scores by: the file has no labels, or none behind the end of the training"
            );
        }
        let heads = ["", "cases", "positive", "ROC AUC", "Brier", "log loss", "ECE"];
        let [name, cases, positive, auc, brier, log_loss, ece] = heads;
        writeln!(f, "{name:<18}{cases:>9}{positive:>10}{auc:>9}{brier:>9}{log_loss:>10}{ece:>9}")?;
        for Measure { name, metrics } in &self.measures {
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
            let [auc, brier, log_loss, ece] = [metrics.roc_auc, metrics.brier, metrics.log_loss, metrics.ece].map(cell);
            let (cases, positive) = (metrics.cases, metrics.positives);
            writeln!(f, "{name:<18}{cases:>9}{positive:>10}{auc:>9}{brier:>9}{log_loss:>10}{ece:>9}")?;
        }
        Ok(())
    }
}

/// Tells how far a replay is, now and then.
struct Progress<'a> {
    tell: &'a mut dyn FnMut(u64, u64),
    total: usize,
}

impl Progress<'_> {
    fn done(&mut self, done: usize) {
        if done == self.total || done.is_multiple_of(PROGRESS_EVENTS) {
            (self.tell)(done as u64, self.total as u64);
        }
    }
}

#[cfg(test)]
mod tests;
