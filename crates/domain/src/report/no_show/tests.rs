//! Counts of rows that are folded from events, and of the risks before them.

use super::*;
use crate::decision::id::Id;
use crate::view::client::AppointmentFold;
use crate::view::{Fold, RecordPosition};
use foretell_events::codec::{Defaults, decode_structured, rfc3339};
use foretell_events::reminder::ReminderFact;
use foretell_events::time::{DAY_MS, HOUR_MS};
use foretell_events::{Position, Topic};
use serde_json::{Value, json};

/// 1 March 2026, 10:00 UTC.
const NOW_MS: i64 = 1_772_359_200_000;
/// The reported period: the ten days before.
const WINDOW: Range<i64> = NOW_MS - 10 * DAY_MS..NOW_MS;

fn event(kind: &str, at_ms: i64, data: &Value) -> Event {
    let event = json!({"specversion": "1.0", "id": format!("{kind} {at_ms} {data}"), "source": "s",
        "type": format!("foretell.{kind}"), "time": rfc3339(at_ms), "data": data});
    decode_structured(&event, Defaults { tenant: "t", time_ms: 0 }).unwrap().event
}

/// The history of an appointment: `booked` a number of days ahead, and later events.
struct Story {
    id: &'static str,
    starts_at_ms: i64,
    lead_days: i64,
    then: &'static [(&'static str, i64)],
}

const fn story(id: &'static str, starts_at_ms: i64, lead_days: i64, then: &'static [(&'static str, i64)]) -> Story {
    Story { id, starts_at_ms, lead_days, then }
}

/// The row of a client with these stories; times of later events are relative to the start.
fn client(stories: &[Story]) -> Client {
    let (fold, mut client) = (AppointmentFold::default(), Client::default());
    let mut take = |event: &Event| drop(fold.fold(&mut client, event, RecordPosition { partition: 0, offset: 0 }));
    for Story { id, starts_at_ms, lead_days, then } in stories {
        let booked_ms = starts_at_ms - lead_days * DAY_MS;
        let data = json!({"appointment_id": id, "client_id": "c", "starts_at": rfc3339(*starts_at_ms)});
        take(&event("appointment.booked", booked_ms, &data));
        for (kind, at_ms) in *then {
            let mut data = json!({"appointment_id": id, "client_id": "c"});
            if *kind == "rescheduled" {
                data["starts_at"] = json!(rfc3339(starts_at_ms + DAY_MS));
            }
            take(&event(&format!("appointment.{kind}"), starts_at_ms + at_ms, &data));
        }
    }
    client
}

fn decision(appointment: &str, starts_at_ms: i64, at_ms: i64, (score, level): (f64, &str)) -> Record {
    let value = json!({"id": Id::new(at_ms, 0, 7).to_string(), "kind": "appointment", "appointment_id": appointment,
        "score": score, "level": level, "model": {"id": "counters", "version": if score < 0.5 { "1" } else { "2" }}, "visit": {"lead_days": 3, "starts_at": rfc3339(starts_at_ms)}});
    record(&value)
}

fn record(value: &Value) -> Record {
    let position = Position { topic: Topic::Decisions, partition: 0, offset: 0 };
    let headers = vec![("ce_type".to_owned(), DECISION.name.into())];
    Record { position, timestamp_ms: 0, key: Some("t:c".into()), value: value.to_string().into(), headers }
}

fn reminder(appointment: &str, starts_at_ms: i64, at_ms: i64, step: &str, risk: Option<(f64, &str)>) -> Event {
    let mut data = json!({"reminder_id": format!("{appointment} {step} {at_ms}"), "appointment_id": appointment,
        "client_id": "c", "starts_at": rfc3339(starts_at_ms), "local_start": "2026-02-20T10:00:00", "time_zone": "UTC",
        "step": step, "channels": ["sms"], "template": "x", "expires_at": rfc3339(starts_at_ms)});
    if let Some((score, level)) = risk {
        data["risk"] = json!({"score": score, "level": level});
    }
    event("reminder.due", at_ms, &data)
}

fn row<'a>(rows: &'a [NoShowReportRow], name: &str) -> &'a NoShowReportRow {
    rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

/// Known, missed, cancelled late, cancelled early, unknown.
fn counts(row: &NoShowReportRow) -> [u64; 5] {
    [row.known, row.missed, row.late_cancelled, row.cancelled, row.unknown]
}

#[test]
fn each_visit_is_of_one_class_and_of_the_bucket_of_its_lead() {
    let at = |days: i64| NOW_MS - days * DAY_MS;
    let stories = [
        story("attended", at(2), 0, &[("attended", HOUR_MS)]),
        story("missed", at(2), 3, &[("confirmed", -DAY_MS), ("missed", HOUR_MS)]),
        story("corrected", at(3), 3, &[("missed", HOUR_MS), ("attended", 2 * HOUR_MS)]),
        story("late", at(2), 3, &[("cancelled", -HOUR_MS)]),
        story("early", at(2), 5, &[("cancelled", -30 * HOUR_MS)]),
        story("deleted", at(2), 5, &[("missed", HOUR_MS), ("deleted", 2 * HOUR_MS)]),
        story("unknown", at(1), 95, &[("confirmed", -HOUR_MS)]),
        story("moved", at(4), 6, &[("rescheduled", -HOUR_MS), ("missed", 25 * HOUR_MS)]),
        // Moved after its outcome, a day ahead: the outcome stays with the client, and this row has only one of the two
        // visits.
        story("again", at(5), 1, &[("missed", HOUR_MS), ("rescheduled", 2 * HOUR_MS), ("attended", 26 * HOUR_MS)]),
        story("first", WINDOW.start, 7, &[("attended", HOUR_MS)]),
        story("before", WINDOW.start - 1, 7, &[("missed", HOUR_MS)]),
        story("to come", NOW_MS, 7, &[]),
    ];
    let mut tally = NoShowTally::new(WINDOW);
    tally.client("t:c", &client(&stories));
    let report = tally.report(3);
    assert_eq!(counts(&report.total), [6, 2, 1, 1, 1]);
    for (name, expected) in [
        ("0", [1, 0, 0, 0, 0]),
        ("1", [1, 0, 0, 0, 0]),
        ("2", [0, 0, 0, 0, 0]),
        ("3", [2, 1, 1, 0, 0]),
        ("4-6", [0, 0, 0, 1, 0]),
        ("7", [2, 1, 0, 0, 0]),
        ("90+", [0, 0, 0, 0, 1]),
    ] {
        assert_eq!(counts(row(&report.by_lead, name)), expected, "{name}: {:?}", report.by_lead);
    }
    let names: Vec<_> = report.by_lead.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["0", "1", "2", "3", "4-6", "7", "8-13", "14-20", "21-29", "30-59", "60-89", "90+"]);
    let three = row(&report.by_lead, "3");
    assert_eq!((three.rate, three.expected), (Some(0.5), None));
    let (low, high) = three.interval.unwrap();
    assert!((low - 0.0945).abs() < 1e-4 && (high - 0.9055).abs() < 1e-4, "Wilson's, 1 of 2: {low} {high}");
    assert_eq!(row(&report.by_lead, "2").rate, None, "nothing is said of no visit");
    assert_eq!((report.forgotten, report.unfolded, report.elsewhere), (1, 3, 0));
    assert_eq!((report.by_level.len(), counts(row(&report.by_level, "(not scored)"))), (1, [6, 2, 1, 1, 1]));
}

#[test]
fn what_was_said_last_before_the_start_is_judged() {
    let start = NOW_MS - DAY_MS;
    let stories = [
        story("a", start, 3, &[("missed", HOUR_MS)]),
        story("b", start, 3, &[("attended", HOUR_MS)]),
        story("c", start, 3, &[("attended", HOUR_MS)]),
        story("late", start, 3, &[("cancelled", -HOUR_MS)]),
    ];
    let mut tally = NoShowTally::new(WINDOW);
    for risk in [
        decision("a", start, start - 9 * HOUR_MS, (0.1, "low")),
        decision("a", start, start - 5 * HOUR_MS, (0.2, "medium")),
        // Written late, but made before.
        decision("a", start, start - 8 * HOUR_MS, (0.3, "low")),
        // After the start, a risk no longer counts.
        decision("a", start, start, (0.9, "low")),
        decision("b", start, start - HOUR_MS, (0.6, "high")),
        decision("late", start, start - 2 * HOUR_MS, (0.7, "high")),
        // For a start that was moved, for a future visit, and for one that does not exist.
        decision("b", start - HOUR_MS, start - 3 * HOUR_MS, (0.9, "high")),
        decision("a", NOW_MS + 1, NOW_MS, (0.9, "high")),
        decision("z", start, start - HOUR_MS, (0.9, "high")),
        record(&json!({"id": Id::new(1, 0, 1).to_string(), "kind": "login", "score": 0.5})),
        record(&json!({"id": Id::new(1, 0, 1).to_string(), "kind": "appointment", "score": 0.5, "level": "low"})),
        record(&json!({"id": "x", "kind": "appointment", "appointment_id": "a", "score": 0.5, "level": "low"})),
        record(&json!([])),
    ] {
        tally.decision(&risk).unwrap();
    }
    // The reminder of `a` is older than the requested score, that of `b` newer; `c` has only a step.
    tally.reminder(&reminder("a", start, start - 6 * HOUR_MS, "72h", Some((0.4, "high")))).unwrap();
    tally.reminder(&reminder("b", start, start - HOUR_MS / 2, "24h", Some((0.5, "medium")))).unwrap();
    tally.reminder(&reminder("c", start, start - HOUR_MS, "24h", None)).unwrap();
    tally.client("t:c", &client(&stories));
    // The same ids of another client.
    tally.client("t:d", &client(&[story("a", start, 3, &[("missed", HOUR_MS)])]));
    let report = tally.report(0);
    assert_eq!((report.elsewhere, report.unreadable), (2, 2));
    for (name, expected, mean) in [
        ("medium", [2, 1, 0, 0, 0], Some(0.35)),
        ("high", [0, 0, 1, 0, 0], None),
        ("(not scored)", [2, 1, 0, 0, 0], None),
    ] {
        let row = row(&report.by_level, name);
        assert_eq!((counts(row), row.expected), (expected, mean), "{name}");
    }
    // Scores: 0.2 for a missed visit and 0.5 for a kept one.
    let Metrics { cases, positives, brier, log_loss, roc_auc, ece } = report.last.metrics;
    assert_eq!((cases, positives, roc_auc), (2, 1, Some(0.0)));
    assert!((brier.unwrap() - (0.64 + 0.25) / 2.0).abs() < 1e-12, "{brier:?}");
    assert!((log_loss.unwrap() + (0.2_f64.ln() + 0.5_f64.ln()) / 2.0).abs() < 1e-12, "{log_loss:?}");
    assert!((ece.unwrap() - (0.8 + 0.5) / 2.0).abs() < 1e-12, "{ece:?}");
    let tenths: Vec<_> = report.last.bins.iter().map(|bin| (bin.cases, bin.mean_score, bin.rate)).collect();
    assert_eq!(tenths, [(1, 0.2, 1.0), (1, 0.5, 0.0)]);
    assert_eq!((report.asked.cases, report.asked.roc_auc), (2, Some(0.0)), "0.2 and 0.6");
    let models: Vec<_> =
        report.by_model.iter().map(|of| (of.name.as_str(), of.metrics.cases, of.metrics.positives)).collect();
    assert_eq!(models, [("counters 1", 1, 1), ("counters 2", 1, 0)]);
    assert_eq!((report.reminded.cases, report.reminded.roc_auc), (2, Some(0.0)), "0.4 and 0.5");
}

#[test]
fn visits_are_told_apart_by_the_reminders_that_they_got() {
    let start = NOW_MS - DAY_MS;
    let missed: &[(&str, i64)] = &[("missed", HOUR_MS)];
    let attended: &[(&str, i64)] = &[("attended", HOUR_MS)];
    let visits = [("a", missed), ("b", attended), ("c", attended), ("d", attended), ("e", missed)];
    let stories = visits.map(|(id, then)| Story { id, starts_at_ms: start, lead_days: 9, then });
    let mut tally = NoShowTally::new(WINDOW);
    let at = |hours: i64| start - hours * HOUR_MS;
    for (visit, step, at_ms) in [
        ("b", "24h", at(24)),
        ("c", "24h", at(24)),
        ("c", "72h", at(72)),
        // Announced twice, which can happen to an id after a loss: one step.
        ("c", "72h", at(71)),
        ("d", "72h", at(72)),
        ("d", "24h", at(24)),
        // Too late to be a reminder.
        ("a", "manual", start),
    ] {
        tally.reminder(&reminder(visit, start, at_ms, step, Some((0.3, "medium")))).unwrap();
    }
    // A message that also names another visit: its risk is that of the first.
    let mut both = reminder("d", start, at(4), "manual", None);
    let Fact::Reminder(ReminderFact::Due(due)) = &mut both.fact else { panic!("{both:?}") };
    let named = |id: &str| json!({"appointment_id": id, "starts_at": rfc3339(start), "local_start": "x"});
    due.visits = ["d", "e"].map(|id| serde_json::from_value(named(id)).unwrap()).to_vec();
    due.risk = serde_json::from_value(json!({"score": 0.9, "level": "high"})).unwrap();
    tally.reminder(&both).unwrap();
    let withdrawn = json!({"reminder_id": "x", "appointment_id": "b", "client_id": "c", "reason": "cancelled"});
    tally.reminder(&event("reminder.withdrawn", at(1), &withdrawn)).unwrap();
    tally.client("t:c", &client(&stories));
    let report = tally.report(0);
    let found: Vec<_> =
        report.by_steps.iter().map(|row| (row.name.as_str(), row.known, row.missed, row.expected)).collect();
    let expected = [
        ("none", 1, 1, None),
        ("24h", 1, 0, Some(0.3)),
        ("24h + 72h", 1, 0, Some(0.3)),
        ("24h + 72h + manual", 1, 0, Some(0.9)),
        ("manual", 1, 1, None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn limits_are_kept_and_said() {
    let start = NOW_MS - DAY_MS;
    let mut tally = NoShowTally::new(WINDOW);
    tally.recorded = (0..VISITS_MAX as u128).map(|visit| (visit, VisitRecord::default())).collect();
    let risk = decision("a", start, start - 1, (0.1, "low"));
    assert_eq!(tally.decision(&risk), Err(TooManyVisits));
    let risk = decision("a", WINDOW.end, start, (0.1, "low"));
    assert_eq!(tally.decision(&risk), Ok(()), "what is not asked for takes no room");
    // More steps than bits, and more sets than rows.
    let mut tally = NoShowTally::new(WINDOW);
    for n in 0..STEPS_MAX + 9 {
        tally.reminder(&reminder("a", start, start - 1, &format!("s{n:02}"), None)).unwrap();
    }
    assert_eq!(
        (tally.step("s00"), tally.step("s62"), tally.step("s63"), tally.step("new")),
        (1, 1 << 62, 1 << 63, 1 << 63)
    );
    for n in 0..MODELS_MAX + 5 {
        let model = tally.model(&ModelFields { id: "m".into(), version: n.to_string() });
        assert_eq!(usize::from(model), n.min(MODELS_MAX));
    }
    for set in 0..STEP_SETS_MAX as u64 + 5 {
        let recorded = VisitRecord { steps: set, ..VisitRecord::default() };
        tally.count(VisitOutcome::Missed, 0, recorded);
    }
    let report = tally.report(0);
    let others = report.by_steps.last().unwrap();
    assert_eq!((report.by_steps.len(), others.name.as_str(), others.known), (STEP_SETS_MAX + 1, OTHERS, 5));
    assert_eq!(report.total.known, STEP_SETS_MAX as u64 + 5);
}
