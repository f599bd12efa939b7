//! Fitting: regularised logistic regression on standardised columns, by `linfa-logistic`.
//!
//! The penalty is the same for every column, so that columns count by their information alone; 1/[`ALPHA`] is the
//! expected variance of the weight of a standardised column. A candidate is accepted if it reduces the log loss of
//! later visits by at least [`GAIN_MIN`]. Candidates are tried one after the other, which is fast, deterministic, and
//! excludes what was a coincidence of the earlier visits.

use super::design::{Candidate, columns, fit_a_document};
use super::history::TrainingRow;
use super::{OnCandidate, TrainingRefusal};
use foretell_domain::score::no_show::model::{AttendanceRecord, FORMAT, NoShowModel, Term, Training};
use foretell_domain::view::lead;
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use std::ops::ControlFlow;

/// Strength of the penalty on squared weights of standardised columns, relative to the sum of log losses.
pub(super) const ALPHA: f64 = 20.0;
/// Minimum reduction of the log loss of later visits by a candidate.
pub(super) const GAIN_MIN: f64 = 1e-5;
/// Maximum number of rows that candidates are tried on; a uniform sample if there are more.
const TRIED_ROWS_MAX: usize = 40_000;
const ITERATIONS_MAX: u64 = 200;
/// The optimisation ends when the gradient per row is below this.
const GRADIENT_MIN: f64 = 1e-6;
/// Columns with a smaller deviation contain no information.
const DEVIATION_MIN: f64 = 1e-9;
/// Rates are rounded to this many parts of one.
const PARTS: f64 = 1e6;
/// Pseudo-observations at the mean rate that smooth the rate of each lead bucket.
const PRIOR_VISITS: f64 = 20.0;

/// Columns that belong to the same term.
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
    /// None for a column with almost no variation.
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

/// The smoothed rates of the rows, by lead bucket.
pub(super) fn lead_rates(rows: &[&TrainingRow]) -> [f64; lead::BUCKETS.len()] {
    let mut counts = [(0.0, 0.0); lead::BUCKETS.len()];
    for row in rows {
        if let Some((visits, missed)) = counts.get_mut(usize::from(row.snapshot.lead_bucket())) {
            *visits += 1.0;
            *missed += f64::from(u8::from(row.missed));
        }
    }
    let all: f64 = counts.iter().map(|(visits, _)| visits).sum();
    let missed: f64 = counts.iter().map(|(_, missed)| missed).sum();
    // Between 0 and 1 even if nothing, or everything, was missed.
    let mean = (missed + 1.0) / (all + 2.0);
    counts.map(|(visits, missed)| rounded((missed + mean * PRIOR_VISITS) / (visits + PRIOR_VISITS)))
}

/// A model with these terms, fitted to these rows.
pub(super) fn fit(rows: &[&TrainingRow], terms: &[Term], prior_no_shows: f64) -> Result<NoShowModel, TrainingRefusal> {
    let lead_rates = lead_rates(rows);
    let records: Vec<_> =
        rows.iter().map(|row| AttendanceRecord::of(&row.snapshot, &lead_rates, prior_no_shows)).collect();
    let blocks: Vec<_> = terms.iter().map(|term| block(term, rows, &records)).collect();
    let (weights, intercept) = solve(&blocks, rows)?;
    let mut weights = weights.into_iter();
    let terms = blocks.iter().map(|block| block.weighted(&mut weights)).collect();
    let intercept = significant(intercept);
    Ok(NoShowModel { format: FORMAT, training: Training::default(), intercept, lead_rates, prior_no_shows, terms })
}

fn block(term: &Term, rows: &[&TrainingRow], records: &[AttendanceRecord]) -> Block {
    // A column without information keeps its position, with a weight of 0.
    let idle = || Column { values: Vec::new(), mean: 0.0, deviation: 1.0 };
    let columns = columns(term, rows, records).into_iter().map(|values| Column::new(values).unwrap_or_else(idle));
    Block { term: term.clone(), columns: columns.collect() }
}

impl Block {
    fn live(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.values.is_empty())
    }

    /// The term, with the weights of its columns in the original units.
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

/// The weights of all active columns, in their order, and the intercept.
fn solve(blocks: &[Block], rows: &[&TrainingRow]) -> Result<(Vec<f64>, f64), TrainingRefusal> {
    let live: Vec<_> = blocks.iter().flat_map(Block::live).collect();
    let matrix = Array2::from_shape_fn((rows.len(), live.len()), |(row, column)| live[column].values[row]);
    let missed: Array1<bool> = rows.iter().map(|row| row.missed).collect();
    let failed = |error: linfa_logistic::error::Error| TrainingRefusal::Failed(error.to_string());
    let regression = LogisticRegression::default()
        .alpha(ALPHA)
        .max_iterations(ITERATIONS_MAX)
        .gradient_tolerance(GRADIENT_MIN * rows.len() as f64);
    let fitted = regression.fit(&DatasetBase::new(matrix, missed)).map_err(failed)?;
    // The solver chooses which of the two outcomes positive weights represent.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let weights = fitted.params().iter().map(|weight| sign * weight).collect();
    Ok((weights, sign * fitted.intercept()))
}

/// The parts of a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split<'a> {
    /// A model is fitted to these rows.
    pub(super) earlier: &'a [&'a TrainingRow],
    /// It is evaluated on these.
    pub(super) later: &'a [&'a TrainingRow],
}

/// The candidates that are accepted: fitted to `earlier`, evaluated on `later`. A candidate that does not fit into a
/// document with the accepted ones, for example because of many long texts, is rejected as well. Between two
/// candidates, `on_candidate` determines whether to continue.
pub(super) fn select(
    split: Split<'_>,
    core: Candidate,
    candidates: Vec<Candidate>,
    prior_no_shows: f64,
    on_candidate: &mut OnCandidate<'_>,
) -> Result<Vec<Term>, TrainingRefusal> {
    let Split { earlier, later } = split;
    let every = earlier.len().div_ceil(TRIED_ROWS_MAX).max(1);
    let earlier: Vec<_> = earlier.iter().step_by(every).copied().collect();
    let loss = |terms: &[Term]| -> Result<f64, TrainingRefusal> {
        let model = fit(&earlier, terms, prior_no_shows)?;
        Ok(later.iter().map(|row| log_loss(&model, row)).sum::<f64>() / later.len() as f64)
    };
    let (mut taken, all) = (core, candidates.len());
    let mut best = loss(&taken)?;
    for (at, candidate) in candidates.into_iter().enumerate() {
        go_on(on_candidate(at, all))?;
        let tried: Vec<_> = taken.iter().cloned().chain(candidate).collect();
        if !fit_a_document(&tried) {
            continue;
        }
        let lost = loss(&tried)?;
        if lost < best - GAIN_MIN {
            (taken, best) = (tried, lost);
        }
    }
    go_on(on_candidate(all, all))?;
    Ok(taken)
}

fn go_on(decision: ControlFlow<()>) -> Result<(), TrainingRefusal> {
    if decision.is_break() { Err(TrainingRefusal::Stopped) } else { Ok(()) }
}

fn log_loss(model: &NoShowModel, row: &TrainingRow) -> f64 {
    let log_odds = model.log_odds(&row.snapshot);
    // ln(1 + e^z), computed on the side that does not overflow.
    let towards = if row.missed { -log_odds } else { log_odds };
    towards.max(0.0) + (-towards.abs()).exp().ln_1p()
}

fn rounded(value: f64) -> f64 {
    (value * PARTS).round() / PARTS
}

/// Rounds to seven significant digits, so that the precision of a weight is independent of the unit of its attribute.
fn significant(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}
