//! The reasons of a trained model's score: the terms of its sum, grouped into what staff would consider one thing.

use super::calibration::Calibration;
use super::input::{Input, InputValue};
use super::model::{AttendanceRecord, NoShowModel};
use crate::score::{Reason, ReasonCode, logistic};
use crate::view::client::snapshot::Snapshot;

/// The reasons of a visit's score: base rate, each input of the model, calibration. Effects add up to the log-odds.
pub(super) fn of(visit: &Snapshot, model: &NoShowModel, calibration: &Calibration) -> Vec<Reason> {
    let record = model.record(visit);
    let base = logistic(model.intercept) * 100.0;
    let mut reasons = Vec::with_capacity(model.terms.len() + 2);
    reasons.push(Reason::new(
        ReasonCode::BaseRate,
        model.intercept,
        format!("A typical visit is missed in {base:.1} % of cases."),
    ));
    let mut log_odds = model.intercept;
    // Adjacent terms with the same input are one reason.
    for terms in model.terms.chunk_by(|a, b| a.input == b.input) {
        let effect: f64 = terms.iter().map(|term| term.effect(visit, record.ratio)).sum();
        log_odds += effect;
        let input = terms.first().map(|term| &term.input);
        reasons
            .extend(input.map(|input| Reason::new(code(input, visit, &record), effect, text(input, visit, &record))));
    }
    let corrected = calibration.apply(log_odds, visit.lead_days == 0);
    let text = "Correction by the recent outcomes of such scores.";
    reasons.push(Reason::new(ReasonCode::Calibration, corrected - log_odds, text));
    reasons
}

/// The code describes the record, not the direction of the effect, which is relative to the usual visit.
fn code(input: &Input, visit: &Snapshot, record: &AttendanceRecord) -> ReasonCode {
    match input {
        Input::LeadDays if visit.lead_days == 0 => ReasonCode::SameDayBooking,
        Input::Record | Input::KnownVisits | Input::MissedDaysAgo if visit.known_visits() == 0 => ReasonCode::NewClient,
        Input::Record if record.ratio <= 0.0 => ReasonCode::PastAttendance,
        _ => input.code(),
    }
}

fn text(input: &Input, visit: &Snapshot, record: &AttendanceRecord) -> String {
    let AttendanceRecord { visits, observed, expected, .. } = record;
    match input {
        Input::LeadDays => match visit.lead_days {
            0 => "Booked for the same day.".into(),
            1 => "Booked a day ahead.".into(),
            days => format!("Booked {days} days ahead."),
        },
        Input::Record if *visits == 0 => "No visit of the client has a known outcome yet.".into(),
        Input::Record => format!("Missed {observed} of {visits} days with a visit; {expected:.1} would be usual."),
        Input::KnownVisits => format!("{visits} days with a visit have a known outcome."),
        Input::MissedDaysAgo => match visit.missed_days_ago {
            Some(days) => format!("The last missed visit was {days} days before this one."),
            None => "No missed visit is known.".into(),
        },
        Input::SameDayVisits => format!("{} other visits on the same day.", visit.same_day),
        Input::OpenVisits => format!("{} other upcoming visits.", visit.open),
        Input::Unresolved => format!("{} past visits without a known outcome.", visit.unresolved),
        Input::Cancelled => format!("{} visits cancelled in time.", visit.cancelled),
        Input::LateCancelled => format!("{} visits cancelled late.", visit.late_cancelled),
        Input::Moved => format!("The visit was moved {} times.", visit.moved),
        Input::MovedOthers => format!("Other visits were moved {} times.", visit.moved_others),
        Input::Confirmed if visit.is_confirmed => "The client has confirmed the visit.".into(),
        Input::Confirmed => "The client has not confirmed the visit.".into(),
        Input::BookingHour => format!("Booked between {0}:00 and {0}:59.", visit.booking_hour),
        Input::Weekday => "The day of the week.".into(),
        Input::Attribute(attribute) => match input.answer(visit, record.ratio) {
            InputValue::Absent => format!("`{}` is not known.", attribute.name),
            InputValue::Number(_) | InputValue::Text(_) => format!("The value of the attribute `{}`.", attribute.name),
        },
    }
}
