//! The trained model: what it adds up, what it rejects, and how recent outcomes correct it.

use super::bands::{BandMethod, BandThresholds, Bands};
use super::calibration::{Calibration, CalibrationCase, Line, RecentSamples};
use super::input::{Attribute, Input};
use super::model::{Basis, NoShowModel, PublishedDocument, Term, Training, VisitFilter};
use super::*;
use crate::score::{ReasonCode, logit};
use crate::view::client::attribute::Attributes;
use crate::view::client::snapshot::Snapshot;
use crate::view::lead::{self, Outcomes};
use crate::view::outcome::{DayOutcomes, Sample};
use foretell_events::appointment::Scalar;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn term(input: Input, of: VisitFilter, basis: Basis, weights: &[f64]) -> Term {
    Term { input, of, basis, weights: weights.to_vec(), absent: 0.1, centre: 0.2 }
}

fn attribute(name: &str) -> Input {
    Input::Attribute(Attribute::new(name))
}

fn model() -> NoShowModel {
    NoShowModel {
        format: model::FORMAT,
        training: Training::default(),
        intercept: -1.5,
        lead_rates: [0.2; lead::BUCKETS.len()],
        prior_no_shows: 1.5,
        terms: vec![
            term(Input::LeadDays, VisitFilter::All, Basis::Steps(vec![1.0, 7.0]), &[0.5, 0.25]),
            term(Input::Record, VisitFilter::All, Basis::Linear, &[0.8]),
            term(Input::Record, VisitFilter::SameDay, Basis::Linear, &[-0.3]),
            term(attribute("age"), VisitFilter::All, Basis::Hinges(vec![0.0, 30.0]), &[0.01, -0.02]),
            term(attribute("town"), VisitFilter::All, Basis::Levels(vec!["north".to_owned().into()]), &[0.4]),
        ],
    }
}

fn told(age: f64, town: &str) -> Attributes {
    let told = BTreeMap::from([("age".into(), Scalar::Number(age)), ("town".into(), Scalar::Text(town.into()))]);
    Attributes::of(&told)
}

fn visit(lead_days: u16, age: f64, town: &str) -> Snapshot {
    Snapshot { lead_days, of_booking: told(age, town), ..Snapshot::default() }
}

#[test]
fn a_model_adds_up_what_its_terms_say() {
    let model = model();
    let base = -1.5 - 5.0 * 0.2;
    for (name, visit, log_odds) in [
        // Nothing is known about the client, so the record is 0; a term for other visits contributes only its mean.
        ("a week ahead", visit(7, 40.0, "north"), base + 0.75 + (0.4 - 0.2) + 0.4),
        ("the same day", visit(0, 20.0, "south"), base + 0.2),
        ("in a text where a number is meant", visit(1, 0.0, "south"), base + 0.5),
        ("nothing told", Snapshot { lead_days: 1, ..Snapshot::default() }, base + 0.5 + 0.1 + 0.1),
    ] {
        assert!((model.log_odds(&visit) - log_odds).abs() < 1e-12, "{name}: {}", model.log_odds(&visit));
    }
    let mut missed = visit(0, 20.0, "south");
    (missed.visits[0], missed.missed) = (1, 1);
    let record = (2.5_f64 / 1.7).ln();
    assert!((model.log_odds(&missed) - (base + 0.2 + (0.8 - 0.3) * record)).abs() < 1e-12);
}

#[test]
fn what_cannot_be_used_is_refused_by_its_place() {
    let settings = PublishedDocument::nothing(vec!["Gender".into()]);
    let whole = serde_json::to_value(model()).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut document = whole.clone();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        document
    };
    assert_eq!(PublishedDocument::read(&whole, &settings).unwrap().model.as_deref(), Some(&model()));
    assert_eq!(PublishedDocument::read(&json!({}), &settings).unwrap().model, None, "back to two counters");
    for (document, pointer) in [
        (with("/format", json!(2)), "/format"),
        (with("/intercept", json!(1e9)), "/intercept"),
        (with("/lead_rates/3", json!(1.0)), "/lead_rates/3"),
        (with("/lead_rates/3", json!(5e-324)), "/lead_rates/3"),
        (with("/prior_no_shows", json!(0)), "/prior_no_shows"),
        (with("/prior_no_shows", json!(5e-324)), "/prior_no_shows"),
        (with("/terms/0/input", json!("attribute: Gender\u{200b}")), "/terms/0/input"),
        (with("/terms/0/input", json!("attribute:gender")), "/terms/0/input"),
        (with("/terms/0/input", json!("attribute:GENDER")), "/terms/0/input"),
        (with("/terms/0/input", json!("shoe_size")), "/terms/0/input"),
        (with("/terms/0/weights", json!([0.5])), "/terms/0/weights"),
        (with("/terms/0/basis/steps", json!([7.0, 1.0])), "/terms/0/basis"),
        (with("/terms/1/weights", json!([1e7])), "/terms/1"),
        (with("/terms/1/basis", json!("cubic")), "/terms/1/basis"),
        (with("/terms", json!(vec![whole["terms"][1].clone(); 65])), "/terms"),
        (with("/training/from", json!("x".repeat(20_000))), ""),
        (json!([]), ""),
        (json!([1, whole["training"], -3.0, whole["lead_rates"], 1.5, []]), ""),
    ] {
        let refused = PublishedDocument::read(&document, &settings).expect_err(pointer);
        assert_eq!(refused.pointer, pointer, "{refused}");
    }
    assert!(
        PublishedDocument::read(&json!({"terms": [], "more": 1}), &settings).is_err(),
        "no field is taken that is unknown"
    );
}

#[test]
fn inputs_have_one_name() {
    for input in Input::derived().chain([attribute("age"), attribute("a:b")]) {
        assert_eq!(Input::try_from(input.to_string()), Ok(input));
    }
}

fn cases(count: usize, log_odds: f64, rate: f64, is_same_day: bool) -> Vec<CalibrationCase> {
    let missed = (count as f64 * rate) as usize;
    (0..count).map(|n| CalibrationCase { log_odds, missed: n < missed, weight: 1.0, is_same_day }).collect()
}

#[test]
fn a_line_finds_what_became_of_visits_and_a_few_move_it_little() {
    let many = |count| [cases(count, -2.0, 0.1, false), cases(count, 0.0, 0.3, false)].concat();
    let line = Line::fit(&many(20_000).into_iter());
    for (said, became) in [(-2.0, 0.1), (0.0, 0.3)] {
        let corrected = logistic(line.apply(said));
        assert!((corrected - became).abs() < 0.002, "{said}: {corrected}");
    }
    let few = Line::fit(&many(5).into_iter());
    assert!(few.intercept.abs() < 0.15 && (few.slope - 1.0).abs() < 0.15, "{few:?}");
    assert_eq!(Line::fit(&std::iter::empty()), Line::default());
}

#[test]
fn each_segment_has_its_own_line_and_old_outcomes_count_less() {
    let calibration = Calibration::fit(&[cases(5_000, -3.0, 0.1, true), cases(5_000, -1.0, 0.1, false)].concat());
    assert!(calibration.same_day.intercept > 0.5 && calibration.later.intercept < -0.5, "{calibration:?}");
    let mut aged = cases(5_000, -1.0, 0.1, false);
    aged.iter_mut().for_each(|case| case.weight = 0.001);
    aged.extend(cases(5_000, -1.0, 0.4, false));
    assert!((logistic(Calibration::fit(&aged).apply(-1.0, false)) - 0.4).abs() < 0.01);
    let bins = &calibration.reliability;
    assert_eq!(bins.len(), 10);
    assert!(bins.iter().all(|bin| bin.visits > 0.0) && bins.is_sorted_by_key(|bin| bin.from));
    let share: f64 = bins.iter().map(|bin| bin.missed * bin.visits).sum::<f64>() / 10_000.0;
    assert!((share - 0.1).abs() < 1e-9);
}

#[test]
fn a_sample_stands_for_what_was_counted_of_its_lead_and_outcome() {
    let mut day = DayOutcomes::default();
    day.seen.buckets[0] = Outcomes { attended: 90, missed: 10 };
    day.seen.buckets[5] = Outcomes { attended: 60, missed: 40 };
    // An unlucky sample: one in four of the same-day visits was missed, and three in four of those a week ahead.
    for (visit, (lead_days, missed)) in
        [(0, false), (0, false), (0, false), (0, true), (7, false), (7, true), (7, true), (7, true)].iter().enumerate()
    {
        let snapshot = Snapshot { lead_days: *lead_days, ..Snapshot::default() };
        day.samples.insert(visit as u64, Sample { snapshot, missed: *missed });
    }
    let mut recent = RecentSamples::default();
    recent.add(&day, |_| -1.0, 0.0, 7.0);
    // The same number of visits a week earlier, without samples of the same day.
    let mut before = day.clone();
    before.samples.retain(|_, sample| sample.snapshot.lead_days > 0);
    recent.add(&before, |_| -1.0, 7.0, 7.0);
    let cases = recent.cases();
    let weight = |is_same_day: bool, missed: bool| -> f64 {
        cases.iter().filter(|c| (c.is_same_day, c.missed) == (is_same_day, missed)).map(|c| c.weight).sum()
    };
    for (is_same_day, missed, expected) in
        [(true, false, 135.0), (true, true, 15.0), (false, false, 90.0), (false, true, 60.0)]
    {
        assert!((weight(is_same_day, missed) - expected).abs() < 1e-9, "{is_same_day} {missed}: {cases:?}");
    }
    let drawn: Vec<_> = cases.iter().filter(|case| !case.is_same_day && case.missed).map(|case| case.weight).collect();
    assert!((drawn[0] - 2.0 * drawn[3]).abs() < 1e-9, "those of a week ago count half: {drawn:?}");
    assert_eq!(RecentSamples::default().cases(), []);
    let mut ancient = RecentSamples::default();
    ancient.add(&day, |_| -1.0, 1e6, 7.0);
    assert!(ancient.cases().iter().all(|case| case.weight == 0.0), "as good as forgotten, and no division by it");
}

#[test]
fn quantiles_are_shares_of_visits_and_say_nothing_of_a_few() {
    let weighed = |weights: &[(f64, f64)]| {
        let case = |(log_odds, weight): &(f64, f64)| CalibrationCase {
            log_odds: *log_odds,
            missed: false,
            weight: *weight,
            is_same_day: false,
        };
        Calibration::uncorrected(&weights.iter().map(case).collect::<Vec<_>>())
    };
    // A few samples that represent many visits have the weight of many.
    let recent = weighed(&[(-2.0, 700.0), (-1.0, 200.0), (0.0, 50.0), (1.0, 50.0)]);
    for (share, log_odds) in
        [(0.0, -2.0), (0.5, -2.0), (0.69, -2.0), (0.71, -1.0), (0.92, 0.0), (0.96, 1.0), (1.0, 1.0)]
    {
        assert_eq!(recent.quantile(share), Some(logistic(log_odds)), "{share}");
    }
    assert_eq!(weighed(&[(-2.0, 60.0), (0.0, 39.0)]).quantile(0.5), None);
    assert_eq!(weighed(&[]).quantile(0.5), None);
}

#[test]
fn levels_begin_where_the_settings_say() {
    let mut lead = Lead::default();
    lead.buckets[5] = Outcomes { attended: 800_000, missed: 200_000 };
    let recent: Vec<_> = (0..=100_u8)
        .map(|n| CalibrationCase {
            log_odds: logit(0.001 + f64::from(n) / 200.0),
            missed: false,
            weight: 1.0,
            is_same_day: false,
        })
        .collect();
    let recent = Calibration::uncorrected(&recent);
    let of = |by, recent: Option<&Calibration>| {
        let config = Config { bands: Bands { by, ..Bands::default() }, ..Config::default() };
        BandThresholds::of(&Rates::of(&lead, &config), recent, &config)
    };
    for (by, recent, medium, high) in [
        (BandMethod::Multiples, Some(&recent), 0.2, 0.4),
        (BandMethod::Quantiles, Some(&recent), 0.251, 0.401),
        (BandMethod::Quantiles, None, 0.2, 0.4),
        (BandMethod::Costs, Some(&recent), 0.1 / (50.0 * 0.23), 4.0 / (50.0 * 0.39)),
    ] {
        let got = of(by, recent);
        assert!((got.medium - medium).abs() < 1e-4 && (got.high - high).abs() < 1e-4, "{by:?}: {got:?}");
        for (score, level) in
            [(got.high, RiskLevel::High), (got.medium, RiskLevel::Medium), (got.medium / 2.0, RiskLevel::Low)]
        {
            assert_eq!(got.level(score), level);
        }
    }
}

fn any_visit() -> impl Strategy<Value = Snapshot> {
    let counts = (0_u16..400, 0_u16..9, 0_u16..5, 0_u16..3);
    (counts, -1e9_f64..1e9, prop::sample::select(vec!["north", "south"])).prop_map(
        |((lead_days, visits, missed, open), age, town)| {
            let mut snapshot = visit(lead_days, age, town);
            snapshot.visits[3] = visits;
            (snapshot.missed, snapshot.open) = (missed.min(visits), open);
            snapshot
        },
    )
}

fn any_line() -> impl Strategy<Value = Line> {
    (-3.0..3.0, 0.25..4.0, -5.0..5.0).prop_map(|(intercept, slope, middle)| Line {
        intercept,
        slope,
        middle,
        visits: 1.0,
    })
}

proptest! {
    #[test]
    fn effects_of_a_trained_model_add_up(
        visit in any_visit(),
        weights in prop::collection::vec(-2.0_f64..2.0, 7),
        same_day in any_line(),
        later in any_line(),
    ) {
        let mut model = model();
        let mut weights = weights.into_iter();
        model.terms.iter_mut().flat_map(|term| &mut term.weights).for_each(|w| *w = weights.next().unwrap());
        // Slopes of values that any caller may send: small enough that no score is certain.
        model.terms[3].weights = vec![1e-6, -1e-6];
        let calibration = Calibration { same_day, later, ..Calibration::default() };
        let by = ModelInForce { model: &model, version: "7", calibration: &calibration };
        let score = score_by_model(&visit, None, &Lead::default(), by, &Config::default());
        let sum: f64 = score.reasons.iter().map(|reason| reason.effect).sum();
        prop_assert!(score.score > 0.0 && score.score < 1.0, "{}", score.score);
        prop_assert!((sum - calibration.apply(model.log_odds(&visit), visit.lead_days == 0)).abs() < 1e-9);
        prop_assert!((logistic(sum) - score.score).abs() < 1e-12);
        prop_assert_eq!(score.reasons.iter().filter(|reason| reason.code == ReasonCode::Calibration).count(), 1);
        prop_assert_eq!((score.model.id, score.model.version.as_ref()), (TRAINED, "7"));
        // The reason describes what the client did, regardless of how this model weighs it.
        let record = model.record(&visit);
        let said = match (record.visits, f64::from(record.observed) > record.expected) {
            (0, _) => ReasonCode::NewClient,
            (_, true) => ReasonCode::PastNoShows,
            (_, false) => ReasonCode::PastAttendance,
        };
        prop_assert!(score.reasons.iter().any(|reason| reason.code == said), "{said:?}: {:?}", score.reasons);
    }

    #[test]
    fn a_line_keeps_the_order_of_scores(
        said in prop::collection::vec((-6.0_f64..6.0, any::<bool>(), 0.01_f64..2.0), 0..200),
    ) {
        let cases = said.iter().map(|(log_odds, missed, weight)| {
            CalibrationCase { log_odds: *log_odds, missed: *missed, weight: *weight, is_same_day: false }
        });
        let line = Line::fit(&cases);
        prop_assert!(line.slope >= 0.25 && line.intercept.abs() <= 3.0, "{line:?}");
        prop_assert!(line.apply(1.0) > line.apply(0.5));
    }
}
