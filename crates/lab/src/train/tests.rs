//! Tests of training: what the model learns, what it ignores, and that nothing is learnt from the future.

use super::history::{HashedNames, TrainingRow};
use super::moments::At;
use super::*;
use foretell_domain::score::metrics::roc_auc;
use foretell_domain::score::no_show::Config;
use foretell_domain::score::no_show::model::Term;
use foretell_domain::view::Limits;
use foretell_events::appointment::{AppointmentFact, AppointmentRef, Booking, Cancellation, Scalar, StartsAt};
use foretell_events::time::DAY_MS;
use foretell_events::{Envelope, Event, Fact};
use std::collections::BTreeMap;

const CLIENTS: u64 = 400;

/// A number from 0 to 1 that is fixed for each visit.
fn draw(visit: u64, what: u64) -> f64 {
    let bits = xxhash_rust::xxh3::xxh3_64_with_seed(&visit.to_le_bytes(), what);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn booking(appointment_id: &str, client_id: &str, starts_ms: i64) -> Booking {
    Booking {
        appointment_id: appointment_id.into(),
        client_id: client_id.into(),
        starts_at: StartsAt::Instant { at_ms: starts_ms, zone: Some("UTC".into()) },
        duration_minutes: None,
        location_id: None,
        practitioner_id: None,
        service: None,
        booked_at_ms: None,
        attributes: BTreeMap::new(),
    }
}

fn event(id: &str, time_ms: i64, fact: Fact) -> Event {
    Event { envelope: Envelope { id: id.into(), source: "urn:test".into(), tenant: "t".into(), time_ms }, fact }
}

/// Visits of a tenant where young clients, long leads, and (by accident) men miss more of them.
fn events(visits: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for visit in 0..visits {
        let client = (draw(visit, 1) * CLIENTS as f64) as u64;
        let (age, gender) = (18.0 + (draw(client, 2) * 60.0).floor(), if draw(client, 3) < 0.5 { "m" } else { "f" });
        let lead_days = if draw(visit, 4) < 0.4 { 0 } else { 1 + (draw(visit, 5) * 20.0) as i64 };
        let odds = f64::from(u8::from(lead_days > 0)) * 1.5 + f64::from(u8::from(age < 40.0)) * 1.5 - 3.0;
        let odds = odds + if gender == "m" { 1.0 } else { 0.0 };
        let missed = draw(visit, 6) < logistic(odds);
        let booked_ms = visit as i64 * DAY_MS / 50;
        let starts_ms = (booked_ms / DAY_MS + lead_days) * DAY_MS + 23 * 3_600_000;
        let (appointment_id, client_id) = (format!("a{visit}"), format!("c{client}"));
        let attributes =
            BTreeMap::from([("age".into(), Scalar::Number(age)), ("gender".into(), Scalar::Text(gender.into()))]);
        let booking = Booking { attributes, ..booking(&appointment_id, &client_id, starts_ms) };
        let known = AppointmentRef { appointment_id, client_id };
        let outcome =
            if missed { AppointmentFact::Missed(known).into() } else { AppointmentFact::Attended(known).into() };
        let event = |end: &str, time_ms, fact| event(&format!("{visit}-{end}"), time_ms, fact);
        events.push(event("booked", booked_ms, AppointmentFact::Booked(Box::new(booking)).into()));
        // One visit in twenty has no outcome.
        if draw(visit, 7) > 0.05 {
            events.push(event("outcome", starts_ms + DAY_MS / 24, outcome));
        }
    }
    events.sort_by_key(|event| event.envelope.time_ms);
    events
}

/// The rows of all tenants, and the names.
type Read = (BTreeMap<String, Vec<TrainingRow>>, HashedNames);

fn history(events: &[Event]) -> Read {
    history_until(events, None)
}

fn history_until(events: &[Event], until_ms: Option<i64>) -> Read {
    let go_on = &mut |_| ControlFlow::Continue(());
    replay(events.iter(), &Config::default(), &Limits::default(), go_on).unwrap().into_rows(until_ms)
}

fn rows((tenants, _): &Read) -> &[TrainingRow] {
    tenants.get("t").map_or(&[], Vec::as_slice)
}

fn learn(history: &Read, until_ms: Option<i64>) -> Result<NoShowModel, TrainingRefusal> {
    learn_by(history, until_ms, &Config::default())
}

fn learn_by(history: &Read, until_ms: Option<i64>, config: &Config) -> Result<NoShowModel, TrainingRefusal> {
    let set = TrainingSet { rows: rows(history), names: &history.1, until_ms, config };
    train(set, &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn a_model_finds_the_effects_and_uses_nothing_protected() {
    let history = history(&events(4_000));
    let model = learn(&history, None).unwrap();
    let inputs: Vec<_> = model.terms.iter().map(|term| term.input.to_string()).collect();
    assert!(inputs.contains(&"attribute:age".to_owned()), "{inputs:?}");
    assert!(!inputs.iter().any(|input| input.contains("gender")), "{inputs:?}");
    assert_eq!(model.validate(&Config::default().protected_attributes), Ok(()));
    let judged = &model.training.validation[0];
    assert_eq!(judged.segment, "at booking");
    assert!(judged.model.roc_auc > judged.two_counters.roc_auc.map(|auc| auc + 0.01), "{judged:?}");
    assert!(judged.model.log_loss < judged.two_counters.log_loss, "{judged:?}");
    assert_eq!(TrainedModel { model: model.clone() }.objection(), None);
    let text = serde_json::to_string(&model).unwrap();
    assert!(text.len() < 8 * 1024, "{} bytes", text.len());
    assert_eq!(serde_json::from_str::<NoShowModel>(&text).unwrap(), model, "what is written is what is read");
    let rows = rows(&history);
    let cases: Vec<_> =
        rows.iter().map(|row| Case { score: logistic(model.log_odds(&row.snapshot)), positive: row.missed }).collect();
    assert!(roc_auc(&cases) > Some(0.72), "{:?}", roc_auc(&cases));
}

#[test]
fn nothing_is_learnt_from_the_future() {
    let all = events(4_000);
    let until_ms = all[6_000].envelope.time_ms;
    let then: Vec<_> = all.iter().filter(|event| event.envelope.time_ms <= until_ms).cloned().collect();
    let (later, then) =
        (learn(&history_until(&all, Some(until_ms)), Some(until_ms)), learn(&history(&then), Some(until_ms)));
    let (later, then) = (later.unwrap(), then.unwrap());
    assert_eq!(later, then, "what came later changes nothing");
    assert_eq!(later.training.until, foretell_events::codec::rfc3339(until_ms));
    let whole = learn(&history(&all), None).unwrap();
    assert!(whole.training.rows > later.training.rows);
}

#[test]
fn rows_are_moments_of_visits_with_a_known_outcome() {
    let mut all = events(300);
    let outcomes = all
        .iter()
        .filter(|event| {
            matches!(event.fact, Fact::Appointment(AppointmentFact::Attended(_) | AppointmentFact::Missed(_)))
        })
        .count();
    let of_other = |event: &Event| {
        let envelope = Envelope { tenant: "other".into(), ..event.envelope.clone() };
        Event { envelope, fact: event.fact.clone() }
    };
    let others: Vec<_> = all.iter().filter(|event| event.fact.subject().ends_with('7')).map(of_other).collect();
    assert!(!others.is_empty());
    all.extend(others);
    all.sort_by_key(|event| event.envelope.time_ms);
    let history = history(&all);
    let rows = rows(&history);
    assert_eq!(history.0.keys().collect::<Vec<_>>(), ["other", "t"]);
    assert!(rows.is_sorted_by_key(|row| row.at_ms));
    let at = |at: At| rows.iter().filter(|row| row.at == at).count();
    assert_eq!(at(At::Booking), outcomes, "a visit of unknown outcome is no row");
    assert_eq!(
        at(At::DayBefore),
        rows.iter().filter(|row| row.at == At::Booking && row.snapshot.lead_days > 0).count()
    );
    for TrainingRow { at_ms, booked_at_ms, known_ms, two_counters, .. } in rows {
        assert!(booked_at_ms <= at_ms && at_ms < known_ms);
        assert!((0.0..1.0).contains(two_counters));
    }
}

#[test]
fn a_called_off_visit_is_no_row_and_a_corrected_one_is_what_it_became() {
    let mut all = events(40);
    let (mut called_off, mut corrected) = (None, None);
    for event in all.clone() {
        let Fact::Appointment(AppointmentFact::Attended(visit)) = &event.fact else { continue };
        let mut envelope = event.envelope.clone();
        (envelope.id, envelope.time_ms) = (format!("{}-after", envelope.id), envelope.time_ms + 1);
        let fact = if called_off.is_none() {
            called_off = Some(visit.appointment_id.clone());
            AppointmentFact::Deleted(visit.clone()).into()
        } else if corrected.is_none() {
            corrected = Some(visit.appointment_id.clone());
            AppointmentFact::Missed(visit.clone()).into()
        } else {
            break;
        };
        all.push(Event { envelope, fact });
    }
    all.sort_by_key(|event| event.envelope.time_ms);
    let history = history(&all);
    let rows = rows(&history);
    let of =
        |id: Option<String>| rows.iter().filter(|row| Some(&row.appointment_id) == id.as_ref()).collect::<Vec<_>>();
    assert!(of(called_off).is_empty());
    let corrected = of(corrected);
    assert!(!corrected.is_empty() && corrected.iter().all(|row| row.missed), "{corrected:?}");
}

/// A statement about one appointment on a day, and the day that a booking or a move is for.
type Statement = (i64, &'static str, i64);

/// Noon of the day.
fn noon_ms(day: i64) -> i64 {
    day * DAY_MS + DAY_MS / 2
}

fn stated(statements: &[Statement]) -> Vec<Event> {
    let event = |(at, (day, what, for_day)): (usize, &Statement)| {
        let known = AppointmentRef { appointment_id: "a".into(), client_id: "c".into() };
        let booking = Box::new(booking("a", "c", noon_ms(*for_day)));
        let fact = match *what {
            "booked" => AppointmentFact::Booked(booking).into(),
            "moved" => AppointmentFact::Rescheduled(booking).into(),
            "attended" => AppointmentFact::Attended(known).into(),
            "missed" => AppointmentFact::Missed(known).into(),
            "cancelled" => {
                let AppointmentRef { appointment_id, client_id } = known;
                AppointmentFact::Cancelled(Cancellation { appointment_id, client_id, reason: None, by: None }).into()
            }
            _ => AppointmentFact::Deleted(known).into(),
        };
        event(&at.to_string(), noon_ms(*day) + at as i64, fact)
    };
    statements.iter().enumerate().map(event).collect()
}

#[test]
fn an_outcome_is_of_one_start_and_of_what_was_known_by_then() {
    let (kept, missed) = ((At::Booking, false), (At::Booking, true));
    let (kept_then, missed_then) = ((At::DayBefore, false), (At::DayBefore, true));
    let made_up = [(0, "booked", 5), (5, "missed", 0), (6, "moved", 10)];
    let corrected = [(0, "booked", 5), (5, "attended", 0), (7, "missed", 0), (9, "attended", 0)];
    let with = |more: Statement| [&made_up[..], &[more]].concat();
    for (statements, until, expected) in [
        (made_up.to_vec(), None, vec![missed, missed_then]),
        (with((10, "attended", 0)), None, vec![missed, missed_then, kept, kept_then]),
        (with((10, "missed", 0)), None, vec![missed, missed_then, missed, missed_then]),
        (with((8, "cancelled", 0)), None, vec![missed, missed_then]),
        (with((8, "deleted", 0)), None, vec![missed, missed_then]),
        // Booked again instead of moved, and on the day itself.
        (
            vec![(0, "booked", 2), (2, "missed", 0), (3, "booked", 3), (4, "attended", 0)],
            None,
            vec![missed, missed_then, kept],
        ),
        // The original start of a moved visit was neither kept nor missed.
        (vec![(0, "booked", 5), (2, "moved", 9), (9, "attended", 0)], None, vec![kept_then]),
        (vec![(0, "booked", 5), (1, "moved", 9), (2, "moved", 5), (5, "missed", 0)], None, vec![missed, missed_then]),
        (corrected[..3].to_vec(), None, vec![missed, missed_then]),
        (corrected.to_vec(), Some(5), vec![kept, kept_then]),
        (corrected.to_vec(), Some(8), vec![missed, missed_then]),
        (corrected.to_vec(), None, vec![kept, kept_then]),
        (vec![(0, "booked", 5), (5, "missed", 0), (6, "deleted", 0)], Some(5), vec![missed, missed_then]),
        (vec![(0, "booked", 5), (5, "missed", 0), (6, "deleted", 0)], Some(6), vec![]),
    ] {
        let until_ms = until.map(|day| noon_ms(day) + DAY_MS / 4);
        let history = history_until(&stated(&statements), until_ms);
        let rows = rows(&history);
        let got: Vec<_> = rows.iter().map(|row| (row.at, row.missed)).collect();
        assert_eq!(got, expected, "{statements:?} {until:?}");
        assert!(rows.iter().all(|row| row.known_ms <= until_ms.unwrap_or(i64::MAX)), "{rows:?}");
    }
}

#[test]
fn a_short_history_is_refused() {
    for visits in [0, 50, 600] {
        let refused = learn(&history(&events(visits)), None);
        assert!(matches!(refused, Err(TrainingRefusal::TooFew { .. })), "{visits}: {refused:?}");
    }
}

/// The visits, with an attribute of this name that is derived from the age and replaces it.
fn with_attribute(mut all: Vec<Event>, name: &str, of: fn(f64) -> Scalar) -> Vec<Event> {
    for event in &mut all {
        let Fact::Appointment(AppointmentFact::Booked(booking)) = &mut event.fact else { continue };
        let Some(Scalar::Number(age)) = booking.attributes.remove("age") else { continue };
        booking.attributes.insert(name.into(), of(age));
    }
    all
}

#[test]
fn whatever_attributes_hold_the_model_can_be_published() {
    let config = Config::default();
    let settings = PublishedDocument::nothing(config.protected_attributes.clone());
    let above: fn(f64) -> Scalar = |age| Scalar::Number((age - 30.0) * 1e5);
    let long: fn(f64) -> Scalar = |age| Scalar::Text(if age < 40.0 { "y" } else { "o" }.repeat(8_000));
    let short: fn(f64) -> Scalar = |age| Scalar::Text(if age < 40.0 { "y" } else { "o" }.repeat(80));
    for (name, of, is_input) in [("income", above, true), ("note", long, false), ("note", short, true)] {
        let model = learn(&history(&with_attribute(events(2_400), name, of)), None).unwrap();
        let inputs: Vec<_> = model.terms.iter().map(|term| term.input.to_string()).collect();
        assert_eq!(inputs.contains(&format!("attribute:{name}")), is_input, "{inputs:?}");
        let published = PublishedDocument::read(&serde_json::to_value(&model).unwrap(), &settings);
        assert_eq!(published.map(|published| published.model.is_some()), Ok(true), "{name}");
    }
    let refused = learn_by(&history(&events(2_400)), None, &Config { prior_no_shows: 1e-7, ..config });
    assert!(matches!(refused, Err(TrainingRefusal::Unusable(_))), "{refused:?}");
}

#[test]
fn a_slope_is_as_exact_whatever_the_unit() {
    let units: [fn(f64) -> Scalar; 2] = [Scalar::Number, |age| Scalar::Number(age * 1e4)];
    let [small, large] = units.map(|of| {
        let history = history(&with_attribute(events(600), "of_age", of));
        let rows: Vec<_> = rows(&history).iter().collect();
        let candidates = design::candidates(&rows, &history.1, &[]);
        let is_of_age = |term: &Term| term.input.to_string() == "attribute:of_age";
        let terms: Vec<_> = candidates.into_iter().flatten().filter(is_of_age).collect();
        let model = fit::fit(&rows, &terms, Config::default().prior_no_shows).unwrap();
        rows.iter().map(|row| model.log_odds(&row.snapshot)).collect::<Vec<_>>()
    });
    for (small, large) in small.iter().zip(large) {
        assert!((small - large).abs() < 1e-4, "{small} {large}");
    }
}

#[test]
fn training_stops_when_it_is_cancelled() {
    let all = events(4_000);
    let stop = |at: u64| move |reported| if reported < at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let stopped = replay(all.iter(), &Config::default(), &Limits::default(), &mut stop(2_000));
    assert_eq!(stopped.map(|_| ()), Err(TrainingRefusal::Stopped));
    let (history, config) = (history(&all), Config::default());
    for at in [0, 2] {
        let set = TrainingSet { rows: rows(&history), names: &history.1, until_ms: None, config: &config };
        let mut calls = Vec::new();
        let learnt = train(set, &mut |tried, _| {
            calls.push(tried);
            stop(at)(tried as u64)
        });
        assert_eq!((learnt, calls), (Err(TrainingRefusal::Stopped), (0..=at as usize).collect()));
    }
}

#[test]
fn a_model_that_is_no_better_is_objected_to() {
    let mut model = learn(&history(&events(4_000)), None).unwrap();
    let judged = &mut model.training.validation[0];
    (judged.model, judged.two_counters) = (judged.two_counters, judged.model);
    assert!(TrainedModel { model }.objection().is_some_and(|why| why.contains("two counters")));
}

#[test]
fn a_table_has_a_line_for_each_row_and_nothing_protected() {
    let history = history(&events(100));
    let rows = rows(&history);
    let mut written = Vec::new();
    table::write(rows, &history.1, &Config::default(), None, &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    let head: Vec<_> = text.lines().next().unwrap().split(',').collect();
    assert_eq!(text.lines().count(), rows.len() + 1);
    assert!(head.contains(&"attribute:age") && head.contains(&"lead_days"), "{head:?}");
    assert!(!text.contains("gender"), "{head:?}");
}
