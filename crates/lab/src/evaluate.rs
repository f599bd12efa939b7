//! Backtests: replays a history in memory, and scores each row with what was known just before it.
//!
//! ```text
//!  events by time ─┬─► score (rows as they are) ─► one line each
//!                  └─► fold ─► rows                                  then, with the outcomes: the summary
//! ```
//!
//! The rows are the ones that the pipelines keep (see [`foretell_domain::view::materialized`]) and the scores are those
//! of `serve`, so the measured scores are the ones that the service would have returned.
//!
//! **Training.** The login score has constants, which are configuration, and counts, which are rows; nothing is fitted.
//! For appointments, `train_until` trains a [model](crate::train) on what was known by that time. Later outcomes are
//! still counted, as in service, where they recalibrate the model. The summary then covers only later rows. No row is
//! ever scored with an outcome that had not arrived.
//!
//! Not supported: scores for rows that the format leaves out, and measures for files without labels.

mod appointments;
pub(crate) mod logins;
pub mod policies;
pub mod reminders;

pub use appointments::appointments;
pub use logins::logins;

pub use crate::train::moments::At;

use crate::train::TrainingRefusal;
use foretell_domain::score::metrics::{Case, Metrics};
use foretell_domain::score::no_show::model::NoShowModel;
use foretell_domain::score::{login, no_show};
use foretell_domain::view::Limits;
use serde::Serialize;
use std::fmt;

/// Events between two calls of a progress callback.
const PROGRESS_EVENTS: usize = 1_000;

/// What a backtest of logins depends on in addition to the file.
#[derive(Debug, Clone, Default)]
pub struct LoginOptions {
    /// The policy.
    pub score: login::LoginPolicy,
    /// The limits of the fold.
    pub limits: Limits,
    /// Only later logins are in the summary.
    pub train_until_ms: Option<i64>,
}

/// What a backtest of appointments depends on in addition to the file.
#[derive(Debug, Clone, Default)]
pub struct AppointmentOptions {
    /// See [`no_show::Config`].
    pub score: no_show::Config,
    /// The limits of the fold.
    pub limits: Limits,
    /// Partitions of the log that the file represents; 0 means 1. Each keeps its own samples of outcomes.
    pub partitions: u32,
    /// When an appointment is scored.
    pub at: At,
    /// Only appointments that were booked later are in the summary.
    pub train_until_ms: Option<i64>,
}

/// The quality of the scores of a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EvaluationSummary {
    /// Rows of the file that were read.
    pub rows: u64,
    /// Rows that were left out by the format.
    pub skipped: u64,
    /// Lines written.
    pub lines: u64,
    /// Lines with a score.
    pub scored: u64,
    /// How often each decision, or each level, was returned.
    pub answers: Vec<(&'static str, u64)>,
    /// The results of training on the appointments up to `train_until`, by tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taught: Vec<TrainingResult>,
    /// Measures of the scored rows with a label or an outcome, limited to the rows of the summary.
    pub measures: Vec<Measure>,
}

/// The result of training for one tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingResult {
    /// The tenant.
    pub tenant: String,
    /// Rows that the model was trained on; 0 if there is none.
    pub rows: u64,
    /// Why there is no model, in which case two counters were used throughout.
    pub refused: Option<String>,
}

impl TrainingResult {
    fn new(tenant: &str, trained: &Result<NoShowModel, TrainingRefusal>) -> Self {
        let rows = trained.as_ref().map_or(0, |model| model.training.rows);
        Self { tenant: tenant.to_owned(), rows, refused: trained.as_ref().err().map(TrainingRefusal::to_string) }
    }
}

impl fmt::Display for TrainingResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            Some(why) => write!(f, "tenant {}: two counters; {why}", self.tenant),
            None => write!(f, "tenant {}: a model trained on {} rows", self.tenant, self.rows),
        }
    }
}

/// The measures of a group of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// The rows, and what counts as positive.
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

impl EvaluationSummary {
    fn answered(&mut self, answer: &'static str) {
        match self.answers.iter_mut().find(|(name, _)| *name == answer) {
            Some((_, count)) => *count += 1,
            None => self.answers.push((answer, 1)),
        }
    }
}

impl fmt::Display for EvaluationSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, skipped, lines, scored, .. } = self;
        writeln!(f, "rows {rows}, skipped {skipped}, lines {lines}, scored {scored}")?;
        let answers: Vec<_> = self.answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "{}", answers.join(", "))?;
        self.taught.iter().try_for_each(|taught| writeln!(f, "{taught}"))?;
        if self.measures.is_empty() {
            return writeln!(
                f,
                "the scores cannot be measured: the file has no labels, or none after the end of the training"
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

/// Reports the progress of a replay periodically.
struct Progress<'a> {
    report: &'a mut dyn FnMut(u64, u64),
    total: usize,
}

impl Progress<'_> {
    fn done(&mut self, done: usize) {
        if done == self.total || done.is_multiple_of(PROGRESS_EVENTS) {
            (self.report)(done as u64, self.total as u64);
        }
    }
}

#[cfg(test)]
mod tests;
