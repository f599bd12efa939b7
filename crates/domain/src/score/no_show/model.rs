//! The trained model: a logistic regression over steps, slopes and levels of what is known about a visit.
//!
//! ```text
//! log-odds = intercept + Σ over terms of ( weights · columns(input) − centre )
//! ```
//!
//! It is additive on purpose: each term's share is exactly the effect that its reason names, a model is a few kilobytes
//! that a person can read, and a score takes microseconds. Boosted trees were no better on later bookings
//! ([EVALUATION.md](https://github.com/foretell-rs/foretell/blob/main/docs/EVALUATION.md)).
//!
//! `centre` is a term's mean over the visits that it was trained on, so an effect is relative to the usual visit. The
//! lead rates by which a client's record is judged are those of the training and part of the model, because a weight is
//! valid only for the rates that it was trained with.
//!
//! `foretell train no-show` writes the document, the topic carries it, and the history of versions keeps it. It names
//! no person. Its numbers are validated when it is read, so its scores are always finite.

use super::input::{Input, InputValue};
use crate::score::metrics::Metrics;
use crate::view::client::attribute;
use crate::view::client::snapshot::Snapshot;
use crate::view::lead;
use foretell_events::policy::{self, DOCUMENT_BYTES_MAX, Invalid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// Most terms of a model.
pub(crate) const TERMS_MAX: usize = 64;
/// Most columns of a term.
pub const COLUMNS_MAX: usize = 64;
/// Largest number, regardless of sign, that a model may contain: beyond it, sums would lose small terms.
const NUMBER_MAX: f64 = 1e6;
/// No rate is closer to 0 or 1 than this, and no prior smaller, so that their logarithms stay small numbers.
const SMALLEST: f64 = 1e-6;

/// A trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoShowModel {
    /// [`FORMAT`].
    pub format: u32,
    /// What it was trained on.
    pub training: Training,
    /// Log-odds of the usual visit.
    pub intercept: f64,
    /// Rate of no-shows by lead bucket, each between 0 and 1, over the training.
    pub lead_rates: [f64; lead::BUCKETS.len()],
    /// `k` of [`Input::Record`]: missed days, observed and expected, that every client is credited with.
    pub prior_no_shows: f64,
    /// The terms of the sum.
    pub terms: Vec<Term>,
}

/// What a model was trained on, and how good it was on later data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// When it was trained, RFC 3339.
    pub trained_at: Option<String>,
    /// The first scoring instant, RFC 3339.
    pub from: String,
    /// The training did not know outcomes after this time, RFC 3339.
    pub until: String,
    /// Scoring instants that it was trained on: one or two per visit.
    pub rows: u64,
    /// Of them, those of visits that were missed.
    pub missed: u64,
    /// Measures on the later part of the data, of models that were trained on the earlier part.
    pub validation: Vec<SegmentMetrics>,
}

/// How good the model's scores were, compared with those of the two counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentMetrics {
    /// Which rows.
    pub segment: String,
    /// The model's.
    pub model: Metrics,
    /// Those of the two counters.
    pub two_counters: Metrics,
}

/// One term of a model's sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Its input.
    pub input: Input,
    /// Which visits it applies to.
    #[serde(default)]
    pub of: VisitFilter,
    /// How a value is turned into columns.
    pub basis: Basis,
    /// A weight for each column.
    pub weights: Vec<f64>,
    /// The effect if the value is not known.
    pub absent: f64,
    /// The mean effect over the training.
    pub centre: f64,
}

/// Which visits a term applies to; it has no effect on others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisitFilter {
    /// All.
    #[default]
    All,
    /// Those that were booked for the same day.
    SameDay,
}

impl VisitFilter {
    fn contains(self, visit: &Snapshot) -> bool {
        self == Self::All || visit.lead_days == 0
    }
}

/// How a value is turned into columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The number.
    Linear,
    /// One column per number: 1 if the value is at least this number.
    Steps(Vec<f64>),
    /// One column per number: how far the value is above it.
    Hinges(Vec<f64>),
    /// One column per text: 1 if the value is this text.
    Levels(Vec<Category>),
}

/// A text that is a possible value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Category {
    text: String,
    hash: u32,
}

impl From<String> for Category {
    fn from(text: String) -> Self {
        Self { hash: attribute::hash(&text), text }
    }
}

impl From<Category> for String {
    fn from(level: Category) -> Self {
        level.text
    }
}

impl Basis {
    /// The number of columns.
    pub fn columns(&self) -> usize {
        match self {
            Self::Linear => 1,
            Self::Steps(edges) => edges.len(),
            Self::Hinges(knots) => knots.len(),
            Self::Levels(levels) => levels.len(),
        }
    }

    /// Calls `set_column` for each column that is not 0; `None` if the value has no meaning for this basis.
    pub fn spread(&self, answer: InputValue, mut set_column: impl FnMut(usize, f64)) -> Option<()> {
        match (self, answer) {
            (Self::Linear, InputValue::Number(x)) => set_column(0, x),
            (Self::Steps(edges), InputValue::Number(x)) => {
                edges.iter().take_while(|edge| x >= **edge).enumerate().for_each(|(at, _)| set_column(at, 1.0));
            }
            (Self::Hinges(knots), InputValue::Number(x)) => {
                knots.iter().take_while(|knot| x > **knot).enumerate().for_each(|(at, knot)| set_column(at, x - knot));
            }
            (Self::Levels(levels), InputValue::Text(hash)) => {
                levels.iter().position(|level| level.hash == hash).into_iter().for_each(|at| set_column(at, 1.0));
            }
            _ => return None,
        }
        Some(())
    }

    fn numbers(&self) -> &[f64] {
        match self {
            Self::Steps(numbers) | Self::Hinges(numbers) => numbers,
            Self::Linear | Self::Levels(_) => &[],
        }
    }
}

impl Term {
    /// The effect for a visit, relative to the mean.
    pub fn effect(&self, visit: &Snapshot, record: f64) -> f64 {
        if !self.of.contains(visit) {
            return -self.centre;
        }
        let mut effect = 0.0;
        let add = |at: usize, value: f64| effect += value * self.weights.get(at).copied().unwrap_or_default();
        let known = self.basis.spread(self.input.answer(visit, record), add);
        known.map_or(self.absent, |()| effect) - self.centre
    }
}

/// What a tenant has published: a model, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PublishedDocument {
    /// The model; none: two counters.
    pub model: Option<Arc<NoShowModel>>,
    /// Attributes that no model may use.
    #[serde(skip)]
    protected: Vec<String>,
}

impl PublishedDocument {
    /// No model; later models may not use attributes with these names.
    pub fn nothing(protected: Vec<String>) -> Self {
        Self { model: None, protected }
    }

    /// The model of a document; an empty document returns to two counters.
    pub fn read(document: &Value, settings: &Self) -> Result<Self, Invalid> {
        let protected = settings.protected.clone();
        if !document.is_object() {
            return Err(Invalid::at("", "must be a table"));
        }
        if document.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(Self::nothing(protected));
        }
        if document.to_string().len() > DOCUMENT_BYTES_MAX {
            return Err(Invalid::at("", format!("longer than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let model: NoShowModel = policy::read(document)?;
        model.validate(&protected)?;
        Ok(Self { model: Some(Arc::new(model)), protected })
    }
}

/// A client's record, compared with what a model's rates predict for their leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttendanceRecord {
    /// Days with a known outcome.
    pub visits: u32,
    /// Of them, those missed.
    pub observed: u16,
    /// How many missed days the rates predict.
    pub expected: f64,
    /// See [`Input::Record`].
    pub ratio: f64,
}

impl AttendanceRecord {
    /// The record of a snapshot, by these rates.
    pub fn of(visit: &Snapshot, rates: &[f64; lead::BUCKETS.len()], prior_no_shows: f64) -> Self {
        let expected: f64 = visit.visits.iter().zip(rates).map(|(visits, rate)| f64::from(*visits) * rate).sum();
        let ratio = ((f64::from(visit.missed) + prior_no_shows) / (expected + prior_no_shows)).ln();
        Self { visits: visit.known_visits(), observed: visit.missed, expected, ratio }
    }
}

impl NoShowModel {
    /// The record of a snapshot, by the rates of the model.
    pub fn record(&self, visit: &Snapshot) -> AttendanceRecord {
        AttendanceRecord::of(visit, &self.lead_rates, self.prior_no_shows)
    }

    /// Log-odds of a no-show, before any calibration.
    pub fn log_odds(&self, visit: &Snapshot) -> f64 {
        let record = self.record(visit).ratio;
        self.intercept + self.terms.iter().map(|term| term.effect(visit, record)).sum::<f64>()
    }

    /// Whether scores can be computed with it, and whether it uses only permitted attributes: `protected` are names of
    /// attributes.
    pub fn validate(&self, protected: &[String]) -> Result<(), Invalid> {
        if self.format != FORMAT {
            return Err(Invalid::at("/format", format!("{} is not the supported format, {FORMAT}", self.format)));
        }
        number("/intercept", self.intercept)?;
        for (at, rate) in self.lead_rates.iter().enumerate() {
            if !(SMALLEST..=1.0 - SMALLEST).contains(rate) {
                let detail = format!("must be from {SMALLEST} to {}", 1.0 - SMALLEST);
                return Err(Invalid::at(format!("/lead_rates/{at}"), detail));
            }
        }
        if !(SMALLEST..=NUMBER_MAX).contains(&self.prior_no_shows) {
            return Err(Invalid::at("/prior_no_shows", format!("must be from {SMALLEST} to {NUMBER_MAX}")));
        }
        if self.terms.len() > TERMS_MAX {
            return Err(Invalid::at("/terms", format!("more than {TERMS_MAX}")));
        }
        self.terms.iter().enumerate().try_for_each(|(at, term)| term.validate(&format!("/terms/{at}"), protected))
    }
}

impl Term {
    fn validate(&self, pointer: &str, protected: &[String]) -> Result<(), Invalid> {
        if let Input::Attribute(attribute) = &self.input
            && is_protected(&attribute.name, protected)
        {
            let detail = format!("`{}` is protected: no score may depend on it", attribute.name);
            return Err(Invalid::at(format!("{pointer}/input"), detail));
        }
        let columns = self.basis.columns();
        if columns != self.weights.len() || columns > COLUMNS_MAX {
            let detail = format!("{} weights for {columns} columns; at most {COLUMNS_MAX}", self.weights.len());
            return Err(Invalid::at(format!("{pointer}/weights"), detail));
        }
        if !self.basis.numbers().is_sorted() {
            return Err(Invalid::at(format!("{pointer}/basis"), "must increase"));
        }
        let numbers = self.weights.iter().chain(self.basis.numbers()).chain([&self.absent, &self.centre]);
        numbers.copied().try_for_each(|value| number(pointer, value))
    }
}

/// Whether an attribute is protected, regardless of its spelling.
pub fn is_protected(name: &str, protected: &[String]) -> bool {
    // Case, spaces and punctuation are ignored.
    let letters =
        |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    protected.iter().any(|protected| letters(protected) == letters(name))
}

fn number(pointer: &str, value: f64) -> Result<(), Invalid> {
    if value.abs() <= NUMBER_MAX {
        return Ok(());
    }
    Err(Invalid::at(pointer, format!("{value} is not a number from -{NUMBER_MAX} to {NUMBER_MAX}")))
}
