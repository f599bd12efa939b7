//! Fitting: regularised logistic regression on standardised columns, by `linfa-logistic`.
//!
//! The penalty is the same for every column, so that each of them is worth as much as it says; 1/[`ALPHA`] is the
//! variance that a weight of a standardised column is expected to have. A candidate is taken where it makes the log
//! loss of later visits smaller by [`GAIN_MIN`], or left: tried one after the other, which is quick, does the same
//! twice, and keeps out what was an accident of the earlier ones.

use super::design::{Candidate, columns, fit_a_document};
use super::history::Row;
use super::{Refused, Tell};
use foretell_domain::score::no_show::model::{FORMAT, Model, Record, Term, Training};
use foretell_domain::view::lead;
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use std::ops::ControlFlow;

/// Strength of the penalty on squared weights of standardised columns, beside the sum of log losses.
pub(super) const ALPHA: f64 = 20.0;
/// What a candidate must take off the log loss of later visits.
pub(super) const GAIN_MIN: f64 = 1e-5;
/// Most rows that candidates are tried on; evenly drawn where there are more.
const TRIED_ROWS_MAX: usize = 40_000;
const ITERATIONS_MAX: u64 = 200;
/// The gradient, per row, below which the weights are found.
const GRADIENT_MIN: f64 = 1e-6;
/// Columns that hardly differ from one row to the next say nothing.
const DEVIATION_MIN: f64 = 1e-9;
/// Rates are kept to this many parts of one.
const PARTS: f64 = 1e6;
/// Visits at the mean rate that each lead bucket's rate is credited with.
const PRIOR_VISITS: f64 = 20.0;

/// A part of the columns, with what they belong to.
struct Block {
    term: Term,
    columns: Vec<Column>,
}

/// A standardised column.
struct Column {
    values: Vec<f64>,
    mean: f64,
    deviation: f64,
}

impl Column {
    /// None of one that hardly changes.
    fn new(mut values: Vec<f64>) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
        if deviation < DEVIATION_MIN {
            return None;
        }
        values.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
        Some(Self { values, mean, deviation })
    }
}

/// The rates of the rows, by lead bucket, smoothed.
pub(super) fn lead_rates(rows: &[&Row]) -> [f64; lead::BUCKETS.len()] {
    let mut counts = [(0.0, 0.0); lead::BUCKETS.len()];
    for row in rows {
        if let Some((visits, missed)) = counts.get_mut(usize::from(row.snapshot.lead_bucket())) {
            *visits += 1.0;
            *missed += f64::from(u8::from(row.missed));
        }
    }
    let all: f64 = counts.iter().map(|(visits, _)| visits).sum();
    let missed: f64 = counts.iter().map(|(_, missed)| missed).sum();
    // Between 0 and 1 even where nothing, or everything, was missed.
    let mean = (missed + 1.0) / (all + 2.0);
    counts.map(|(visits, missed)| rounded((missed + mean * PRIOR_VISITS) / (visits + PRIOR_VISITS)))
}

/// A model of these terms that fits these rows.
pub(super) fn fit(rows: &[&Row], terms: &[Term], prior_no_shows: f64) -> Result<Model, Refused> {
    let lead_rates = lead_rates(rows);
    let records: Vec<_> = rows.iter().map(|row| Record::of(&row.snapshot, &lead_rates, prior_no_shows)).collect();
    let blocks: Vec<_> = terms.iter().map(|term| block(term, rows, &records)).collect();
    let (weights, intercept) = solve(&blocks, rows)?;
    let mut weights = weights.into_iter();
    let terms = blocks.iter().map(|block| block.weighted(&mut weights)).collect();
    let intercept = significant(intercept);
    Ok(Model { format: FORMAT, training: Training::default(), intercept, lead_rates, prior_no_shows, terms })
}

fn block(term: &Term, rows: &[&Row], records: &[Record]) -> Block {
    // A column that says nothing keeps its place, with a weight of 0.
    let idle = || Column { values: Vec::new(), mean: 0.0, deviation: 1.0 };
    let columns = columns(term, rows, records).into_iter().map(|values| Column::new(values).unwrap_or_else(idle));
    Block { term: term.clone(), columns: columns.collect() }
}

impl Block {
    fn live(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.values.is_empty())
    }

    /// The term, with the weights of its columns as they are in rows.
    fn weighted(&self, weights: &mut impl Iterator<Item = f64>) -> Term {
        let mut centre = 0.0;
        let mut own = self.columns.iter().map(|column| {
            let weight = if column.values.is_empty() { 0.0 } else { weights.next().unwrap_or_default() };
            let weight = significant(weight / column.deviation);
            centre += weight * column.mean;
            weight
        });
        let kept = own.by_ref().take(self.term.weights.len()).collect();
        let absent = own.next().unwrap_or_default();
        drop(own);
        Term { weights: kept, absent, centre: significant(centre), ..self.term.clone() }
    }
}

/// The weights of all live columns, in their order, and the intercept.
fn solve(blocks: &[Block], rows: &[&Row]) -> Result<(Vec<f64>, f64), Refused> {
    let live: Vec<_> = blocks.iter().flat_map(Block::live).collect();
    let matrix = Array2::from_shape_fn((rows.len(), live.len()), |(row, column)| live[column].values[row]);
    let missed: Array1<bool> = rows.iter().map(|row| row.missed).collect();
    let failed = |error: linfa_logistic::error::Error| Refused::Failed(error.to_string());
    let regression = LogisticRegression::default()
        .alpha(ALPHA)
        .max_iterations(ITERATIONS_MAX)
        .gradient_tolerance(GRADIENT_MIN * rows.len() as f64);
    let fitted = regression.fit(&DatasetBase::new(matrix, missed)).map_err(failed)?;
    // Which of the two outcomes is the one that weights speak for is the solver's choice.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let weights = fitted.params().iter().map(|weight| sign * weight).collect();
    Ok((weights, sign * fitted.intercept()))
}

/// The candidates that earn their place: fitted to `earlier`, judged by `later`. One is left out also where a document
/// has no room for it beside those before it, as with many long texts. Between two of them it is asked whether
/// to go on.
pub(super) fn select(
    (earlier, later): (&[&Row], &[&Row]),
    core: Candidate,
    candidates: Vec<Candidate>,
    prior_no_shows: f64,
    tell: &mut Tell<'_>,
) -> Result<Vec<Term>, Refused> {
    let every = earlier.len().div_ceil(TRIED_ROWS_MAX).max(1);
    let earlier: Vec<_> = earlier.iter().step_by(every).copied().collect();
    let loss = |terms: &[Term]| -> Result<f64, Refused> {
        let model = fit(&earlier, terms, prior_no_shows)?;
        Ok(later.iter().map(|row| log_loss(&model, row)).sum::<f64>() / later.len() as f64)
    };
    let (mut taken, all) = (core, candidates.len());
    let mut best = loss(&taken)?;
    for (at, candidate) in candidates.into_iter().enumerate() {
        go_on(tell(at, all))?;
        let tried: Vec<_> = taken.iter().cloned().chain(candidate).collect();
        if !fit_a_document(&tried) {
            continue;
        }
        let lost = loss(&tried)?;
        if lost < best - GAIN_MIN {
            (taken, best) = (tried, lost);
        }
    }
    go_on(tell(all, all))?;
    Ok(taken)
}

fn go_on(told: ControlFlow<()>) -> Result<(), Refused> {
    if told.is_break() { Err(Refused::Stopped) } else { Ok(()) }
}

fn log_loss(model: &Model, row: &Row) -> f64 {
    let log_odds = model.log_odds(&row.snapshot);
    // ln(1 + e^z), from the side on which nothing overflows.
    let towards = if row.missed { -log_odds } else { log_odds };
    towards.max(0.0) + (-towards.abs()).exp().ln_1p()
}

fn rounded(value: f64) -> f64 {
    (value * PARTS).round() / PARTS
}

/// Seven digits of a number: a weight is as exact whatever the unit of its attribute.
fn significant(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}
