//! Trains a no-show model on a tenant's own history.
//!
//! ```text
//!  events ─► Replay ─► moments ─► History ─► rows with known outcomes, in order of time
//!                                              │ the latest fifth is for evaluation
//!                                              ├─► candidates that improve it ─► measures, compared with two counters
//!                                              └─► all rows ─► the model
//! ```
//!
//! A row is what was known about a visit when it was booked, or 24 hours before it started, together with its outcome.
//! It contains nothing from after that instant, and no outcome from after `until`. Both kinds of rows are used
//! together: one model is used at every instant of a visit, and is as good at either as a separate model would be.
//!
//! Everything here is a function of events and settings: the same history results in the same model, to the last digit.

mod design;
mod fit;
pub mod history;
pub mod moments;
pub mod table;

use foretell_domain::score::metrics::{Case, Metrics};
use foretell_domain::score::no_show::model::{NoShowModel, PublishedDocument, SegmentMetrics, Training};
use foretell_domain::score::{logistic, no_show};
use foretell_events::codec::rfc3339;
use foretell_events::policy::Invalid;
use history::{HashedNames, TrainingHistory, TrainingRow};
use moments::At;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::ControlFlow;

/// Minimum number of rows for training.
pub(crate) const ROWS_MIN: usize = 2_000;
/// Minimum number of rows of missed visits, and of kept ones.
pub(crate) const MISSED_MIN: usize = 100;
/// Share of the rows, the latest ones, that is used for evaluation.
const LATER: f64 = 0.2;

/// Why there is no model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainingRefusal {
    /// The history is too short.
    #[error(
        "{rows} rows with known outcomes{part}, {missed} of them missed: a model needs {ROWS_MIN}, and {MISSED_MIN} of \
         each outcome; until then two counters are used"
    )]
    TooFew {
        /// The part of the history, as ` in its earlier part`; empty: all of it.
        part: &'static str,
        /// Rows.
        rows: usize,
        /// Missed visits among them.
        missed: usize,
    },
    /// There are no rows to evaluate a model with.
    #[error(
        "of the latest {rows} rows with known outcomes {missed} are missed: the evaluation needs both outcomes; until \
         then two counters are used"
    )]
    OneSided {
        /// Rows.
        rows: usize,
        /// Missed visits among them.
        missed: usize,
    },
    /// The caller no longer waits.
    #[error("the training was cancelled")]
    Stopped,
    /// The optimisation failed.
    #[error("the weights could not be fitted: {0}")]
    Failed(String),
    /// The model was trained, but is too large or otherwise not valid for publication.
    #[error("the trained model cannot be published: {0}")]
    Unusable(Invalid),
}

/// The input of a training.
#[derive(Debug, Clone, Copy)]
pub struct TrainingSet<'a> {
    /// Rows with known outcomes, in order of time.
    pub rows: &'a [TrainingRow],
    /// Names of attributes and texts.
    pub names: &'a HashedNames,
    /// Only outcomes known by then, and instants up to then, are used; none: all.
    pub until_ms: Option<i64>,
    /// The settings: protected attributes, and the prior of a client's record.
    pub config: &'a no_show::Config,
}

/// Receives how many candidates of the total were tried, and returns whether to continue.
pub type OnCandidate<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Trains a model, as long as `on_candidate` returns that it should continue.
pub fn train(set: TrainingSet<'_>, on_candidate: &mut OnCandidate<'_>) -> Result<NoShowModel, TrainingRefusal> {
    let TrainingSet { rows, names, until_ms, config } = set;
    let is_known = |row: &&TrainingRow, until: i64| row.known_ms <= until && row.at_ms <= until;
    let until = until_ms.unwrap_or(i64::MAX);
    let known: Vec<_> = rows.iter().filter(|row| is_known(row, until)).collect();
    enough(&known, "")?;
    let split_ms = known.get((known.len() as f64 * (1.0 - LATER)) as usize).map_or(until, |row| row.at_ms);
    let earlier: Vec<_> = known.iter().copied().filter(|row| is_known(row, split_ms)).collect();
    let later: Vec<_> = known.iter().copied().filter(|row| row.at_ms > split_ms).collect();
    enough(&earlier, " in its earlier part, which determines the inputs of the model")?;
    enough_to_judge(&later)?;
    let candidates = design::candidates(&earlier, names, &config.protected_attributes);
    let prior = config.prior_no_shows;
    let split = fit::Split { earlier: &earlier, later: &later };
    let terms = fit::select(split, design::core(), candidates, prior, on_candidate)?;
    let judged = fit::fit(&earlier, &terms, prior)?;
    let model = fit::fit(&known, &terms, prior)?;
    let missed = known.iter().filter(|row| row.missed).count();
    let time = |ms: Option<i64>| ms.map(rfc3339).unwrap_or_default();
    let training = Training {
        trained_at: None,
        from: time(known.first().map(|row| row.at_ms)),
        until: time(until_ms.or_else(|| known.iter().map(|row| row.known_ms).max())),
        rows: known.len() as u64,
        missed: missed as u64,
        validation: measures(&judged, &later),
    };
    let model = NoShowModel { training, ..model };
    usable(&model, config)?;
    Ok(model)
}

/// Rejects a model that would be rejected at its publication.
fn usable(model: &NoShowModel, config: &no_show::Config) -> Result<(), TrainingRefusal> {
    let document = serde_json::to_value(model).map_err(|error| TrainingRefusal::Failed(error.to_string()))?;
    let settings = PublishedDocument::nothing(config.protected_attributes.clone());
    PublishedDocument::read(&document, &settings).map(drop).map_err(TrainingRefusal::Unusable)
}

fn enough(rows: &[&TrainingRow], part: &'static str) -> Result<(), TrainingRefusal> {
    let missed = rows.iter().filter(|row| row.missed).count();
    if rows.len() < ROWS_MIN || missed.min(rows.len() - missed) < MISSED_MIN {
        return Err(TrainingRefusal::TooFew { part, rows: rows.len(), missed });
    }
    Ok(())
}

fn enough_to_judge(rows: &[&TrainingRow]) -> Result<(), TrainingRefusal> {
    let missed = rows.iter().filter(|row| row.missed).count();
    if missed == 0 || missed == rows.len() {
        return Err(TrainingRefusal::OneSided { rows: rows.len(), missed });
    }
    Ok(())
}

/// A group of rows with a name.
type Segment = (&'static str, fn(&TrainingRow) -> bool);

/// The segments that measures are reported for.
const SEGMENTS: [Segment; 4] = [
    ("at booking", |row| row.at == At::Booking),
    ("at booking, same day", |row| row.at == At::Booking && row.snapshot.lead_days == 0),
    ("at booking, lead >= 1 day", |row| row.at == At::Booking && row.snapshot.lead_days > 0),
    ("24 h before", |row| row.at == At::DayBefore),
];

fn measures(model: &NoShowModel, later: &[&TrainingRow]) -> Vec<SegmentMetrics> {
    let measured = |(name, contains): Segment| {
        let rows = || later.iter().filter(|row| contains(row));
        let case = |score: f64, row: &TrainingRow| Case { score, positive: row.missed };
        let trained: Vec<_> = rows().map(|row| case(logistic(model.log_odds(&row.snapshot)), row)).collect();
        let counted: Vec<_> = rows().map(|row| case(row.two_counters, row)).collect();
        let (model, two_counters) = (rounded(Metrics::of(&trained)), rounded(Metrics::of(&counted)));
        (!trained.is_empty()).then_some(SegmentMetrics { segment: name.to_owned(), model, two_counters })
    };
    SEGMENTS.into_iter().filter_map(measured).collect()
}

/// Rounds measures for the document: further digits are not significant.
fn rounded(metrics: Metrics) -> Metrics {
    let round = |value: Option<f64>| value.map(|value| (value * 1e5).round() / 1e5);
    let Metrics { cases, positives, roc_auc, brier, log_loss, ece } = metrics;
    let [roc_auc, brier, log_loss, ece] = [roc_auc, brier, log_loss, ece].map(round);
    Metrics { cases, positives, roc_auc, brier, log_loss, ece }
}

/// A model, and whether it is better than no model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedModel {
    /// The document to publish.
    pub model: NoShowModel,
}

impl TrainedModel {
    /// Why it should not be published: it ranks later visits no better than two counters do, and its predictions are
    /// further from their outcomes. None if it is better in either respect, or if that cannot be determined.
    pub fn objection(&self) -> Option<String> {
        let SegmentMetrics { model, two_counters, .. } = self.model.training.validation.first()?;
        let (ours, theirs) = (model.log_loss?, two_counters.log_loss?);
        let (rank, their_rank) = (model.roc_auc?, two_counters.roc_auc?);
        (ours > theirs && rank <= their_rank).then(|| {
            format!(
                "on later visits it is no better than two counters: log loss {ours:.4} and {theirs:.4}, ROC AUC \
                 {rank:.4} and {their_rank:.4}"
            )
        })
    }
}

impl fmt::Display for TrainedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Training { from, until, rows, missed, validation, .. } = &self.model.training;
        writeln!(f, "{rows} rows from {from}, outcomes until {until}; {missed} missed")?;
        let inputs: Vec<_> = self.model.terms.iter().map(|term| term.input.to_string()).collect();
        let mut listed = inputs.clone();
        listed.dedup();
        writeln!(f, "inputs: {}", listed.join(", "))?;
        writeln!(f, "\ntrained on the first four fifths, measured on the last, compared with two counters")?;
        writeln!(f, "{:<27}{:>7}{:>18}{:>18}{:>18}", "", "", "ROC AUC", "LOG LOSS", "ECE")?;
        let pair = format!("{:>9}{:>9}", "MODEL", "COUNTERS");
        writeln!(f, "{:<27}{:>7}{pair}{pair}{pair}", "VISITS", "CASES")?;
        for SegmentMetrics { segment, model, two_counters } in validation {
            let pair = |ours: Option<f64>, theirs: Option<f64>| {
                let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
                format!("{:>9}{:>9}", cell(ours), cell(theirs))
            };
            let auc = pair(model.roc_auc, two_counters.roc_auc);
            let (loss, ece) = (pair(model.log_loss, two_counters.log_loss), pair(model.ece, two_counters.ece));
            writeln!(f, "{segment:<27}{:>7}{auc}{loss}{ece}", model.cases)?;
        }
        Ok(())
    }
}

/// Replays events, in order of time, into a history; `on_candidate` receives their number, and returns whether to
/// continue.
pub fn replay<'a>(
    events: impl Iterator<Item = &'a foretell_events::Event>,
    config: &no_show::Config,
    limits: &foretell_domain::view::Limits,
    on_events: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<TrainingHistory, TrainingRefusal> {
    let mut history = TrainingHistory::new(config.clone());
    let mut replay = moments::Replay::new(limits.clone(), 1, &[At::Booking, At::DayBefore]);
    for (offset, event) in events.enumerate() {
        replay.take(event, offset as i64, &mut |_, moment| history.add(&moment));
        history.observe(event, &replay);
        if offset % 1_000 == 0 && on_events(offset as u64).is_break() {
            return Err(TrainingRefusal::Stopped);
        }
    }
    Ok(history)
}

#[cfg(test)]
mod tests;
