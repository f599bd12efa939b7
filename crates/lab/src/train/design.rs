//! The possible terms of a model: candidates from the rows, and the columns that they result in.
//!
//! Lead and record are always inputs; everything else is a **candidate** that must improve the prediction of later
//! visits (see [`super::fit`]). The steps and slopes of an attribute are derived from the distribution of its values.

use super::history::{HashedNames, TrainingRow};
use foretell_domain::score::no_show::input::{Attribute, Input, InputValue};
use foretell_domain::score::no_show::model::{
    AttendanceRecord, Basis, COLUMNS_MAX, Category, Term, VisitFilter, is_protected,
};
use foretell_domain::view::lead;
use foretell_events::policy::DOCUMENT_BYTES_MAX;
use foretell_events::time::DAY_MS;
use std::collections::BTreeMap;

/// Maximum number of attributes that are candidates: those that most rows have.
const ATTRIBUTES_MAX: usize = 24;
/// Share of the rows that must have an attribute, or a text, for it to be a candidate.
const SHARE_MIN: f64 = 0.005;
/// Maximum number of texts of an attribute that become levels; rarer ones are treated as missing.
const LEVELS_MAX: usize = 32;
/// An attribute with at most this many different numbers has a step for each.
const STEPS_MAX: usize = 6;
/// The slopes of other numbers change at each tenth of the rows.
const KNOTS: usize = 10;
/// Maximum size of the terms of a model: the description of the training takes some 1,600 bytes of the document.
const TERMS_BYTES_MAX: usize = DOCUMENT_BYTES_MAX - 2 * 1024;
/// Maximum size of a weight in a document.
const WEIGHT_BYTES_MAX: usize = 16;

/// While the log is young, counts of a client's past grow with the log and not with the client; they are candidates
/// only if the rows span at least this many days.
const HISTORY_DAYS_MIN: i64 = 180;

/// Terms that are accepted or rejected together.
pub(super) type Candidate = Vec<Term>;

/// The terms of every model.
pub(super) fn core() -> Candidate {
    let leads = lead::BUCKETS.iter().skip(1).map(|from| f64::from(*from)).collect();
    let record = |of| term(Input::Record, of, Basis::Linear);
    vec![
        term(Input::LeadDays, VisitFilter::All, Basis::Steps(leads)),
        record(VisitFilter::All),
        record(VisitFilter::SameDay),
    ]
}

/// The candidates, in the order in which they are tried.
pub(super) fn candidates(rows: &[&TrainingRow], names: &HashedNames, protected: &[String]) -> Vec<Candidate> {
    let steps = |input: Input, edges: &[f64]| vec![term(input, VisitFilter::All, Basis::Steps(edges.to_vec()))];
    let mut candidates = vec![
        steps(Input::SameDayVisits, &[1.0, 2.0]),
        steps(Input::BookingHour, &[8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 16.0, 18.0]),
    ];
    candidates.extend(attributes(rows, names, protected));
    candidates.extend([
        steps(Input::Moved, &[1.0, 2.0]),
        steps(Input::Confirmed, &[1.0]),
        steps(Input::Unresolved, &[1.0]),
    ]);
    if span_days(rows) < HISTORY_DAYS_MIN {
        return candidates;
    }
    candidates.extend([
        steps(Input::LateCancelled, &[1.0, 2.0]),
        steps(Input::Cancelled, &[1.0, 3.0]),
        steps(Input::MovedOthers, &[1.0, 3.0]),
        steps(Input::OpenVisits, &[1.0, 2.0, 4.0]),
        steps(Input::MissedDaysAgo, &[8.0, 15.0, 31.0, 91.0]),
        steps(Input::KnownVisits, &[1.0, 2.0, 4.0]),
    ]);
    candidates
}

/// Days between the 5th and the 95th percentile of the instants of the rows.
fn span_days(rows: &[&TrainingRow]) -> i64 {
    let twentieth = rows.len() / 20;
    let (from, to) = (rows.get(twentieth), rows.get(rows.len() - 1 - twentieth));
    from.zip(to).map_or(0, |(from, to)| (to.at_ms - from.at_ms) / DAY_MS)
}

/// Whether these terms fit into a document, whatever their weights are.
pub(super) fn fit_a_document(terms: &[Term]) -> bool {
    let weights: usize = terms.iter().map(|term| term.weights.len() + 2).sum();
    let bytes = serde_json::to_string(terms).map_or(usize::MAX, |text| text.len());
    bytes.saturating_add(weights * WEIGHT_BYTES_MAX) <= TERMS_BYTES_MAX
}

fn term(input: Input, of: VisitFilter, basis: Basis) -> Term {
    let weights = vec![0.0; basis.columns()];
    Term { input, of, basis, weights, absent: 0.0, centre: 0.0 }
}

/// The values of an attribute over the rows.
#[derive(Default)]
struct Spread {
    numbers: Vec<f64>,
    texts: BTreeMap<u32, usize>,
}

fn attributes(rows: &[&TrainingRow], names: &HashedNames, protected: &[String]) -> Vec<Candidate> {
    let mut spreads: BTreeMap<u32, Spread> = BTreeMap::new();
    for row in rows {
        let attributes = row.snapshot.of_booking.over(&row.snapshot.of_client);
        for (name, value) in attributes.iter() {
            let spread = spreads.entry(name).or_default();
            // As for scoring, which treats numbers above the limit as missing.
            match InputValue::from(value) {
                InputValue::Number(number) => spread.numbers.push(number),
                InputValue::Text(text) => *spread.texts.entry(text).or_default() += 1,
                InputValue::Absent => {}
            }
        }
    }
    let least = ((rows.len() as f64 * SHARE_MIN) as usize).max(1);
    let count = |spread: &Spread| spread.numbers.len() + spread.texts.values().sum::<usize>();
    let mut spreads: Vec<_> = spreads
        .into_iter()
        .filter_map(|(hash, spread)| Some((names.attributes.get(&hash)?, hash, spread)))
        .filter(|(name, _, spread)| !is_protected(name, protected) && count(spread) >= least)
        .collect();
    spreads.sort_by_key(|(name, _, spread)| (std::cmp::Reverse(count(spread)), *name));
    spreads.truncate(ATTRIBUTES_MAX);
    let basis = |hash, spread: Spread| match spread.numbers.len() >= least {
        true => numeric(spread.numbers),
        false => levels(hash, &spread.texts, names, least),
    };
    spreads
        .into_iter()
        .filter_map(|(name, hash, spread)| {
            let basis = basis(hash, spread)?;
            Some(vec![term(Input::Attribute(Attribute::new(name)), VisitFilter::All, basis)])
        })
        .collect()
}

fn numeric(mut numbers: Vec<f64>) -> Option<Basis> {
    numbers.sort_by(f64::total_cmp);
    let mut different = numbers.clone();
    different.dedup();
    if different.len() <= STEPS_MAX {
        let steps: Vec<_> = different.into_iter().skip(1).collect();
        return (!steps.is_empty()).then_some(Basis::Steps(steps));
    }
    let mut knots: Vec<_> =
        (0..KNOTS).filter_map(|tenth| numbers.get(tenth * numbers.len() / KNOTS)).copied().collect();
    knots.dedup();
    Some(Basis::Hinges(knots))
}

fn levels(name: u32, texts: &BTreeMap<u32, usize>, names: &HashedNames, least: usize) -> Option<Basis> {
    let known = texts.iter().filter(|(_, count)| **count >= least);
    let mut known: Vec<_> =
        known.filter_map(|(text, count)| Some((names.texts.get(&(name, *text))?, *count))).collect();
    known.sort_by_key(|(text, count)| (std::cmp::Reverse(*count), *text));
    known.truncate(LEVELS_MAX.min(COLUMNS_MAX));
    let levels: Vec<_> = known.into_iter().map(|(text, _)| Category::from(text.clone())).collect();
    (levels.len() > 1).then_some(Basis::Levels(levels))
}

/// The columns of a term over rows: one for each weight, and one for missing values. Each has one number per row.
pub(super) fn columns(term: &Term, rows: &[&TrainingRow], records: &[AttendanceRecord]) -> Vec<Vec<f64>> {
    let mut columns = vec![vec![0.0; rows.len()]; term.weights.len() + 1];
    for (at, (row, record)) in rows.iter().zip(records).enumerate() {
        if term.of == VisitFilter::SameDay && row.snapshot.lead_days > 0 {
            continue;
        }
        let answer: InputValue = term.input.answer(&row.snapshot, record.ratio);
        let spread = term.basis.spread(answer, |column, value| {
            if let Some(column) = columns.get_mut(column) {
                column[at] = value;
            }
        });
        if spread.is_none()
            && let Some(absent) = columns.last_mut()
        {
            absent[at] = 1.0;
        }
    }
    columns
}
