//! Tests with small histories, whose output is checked line by line.

use super::reminders::{Happened, ReminderOptions, reminders};
use super::*;
use crate::source::{self, Origin, SourceData, SourceFormat};
use serde_json::{Value, json};

fn load(text: &str, format: SourceFormat) -> SourceData {
    source::read_from(text.as_bytes(), Origin::default(), format).unwrap()
}

/// JSON Lines of events `(time, type, data)`; the id is the index in the list.
fn events(list: &[(&str, &str, Value)]) -> SourceData {
    let line = |(id, (time, kind, data)): (usize, &(&str, &str, Value))| {
        let id = id.to_string();
        let kind = format!("foretell.{kind}");
        json!({"specversion": "1.0", "id": id, "source": "t", "type": kind, "time": time, "data": data}).to_string()
    };
    load(&list.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"), SourceFormat::Events)
}

fn lines(out: &[u8]) -> Vec<Value> {
    out.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn run_logins(loaded: &SourceData, options: &LoginOptions) -> (Vec<Value>, EvaluationSummary) {
    let mut out = Vec::new();
    let summary = logins(loaded, options, &mut out, &mut |_, _| {}).unwrap();
    (lines(&out), summary)
}

fn run_appointments(loaded: &SourceData, options: &AppointmentOptions) -> (Vec<Value>, EvaluationSummary) {
    let mut out = Vec::new();
    let summary = appointments(loaded, options, &mut out, &mut |_, _| {}).unwrap();
    (lines(&out), summary)
}

fn login(user_id: &str) -> Value {
    json!({"user_id": user_id, "ip": "192.0.2.1", "user_agent": "agent"})
}

fn visit(id: &str) -> Value {
    json!({"appointment_id": id, "client_id": "c"})
}

fn booking(id: &str, starts_at: &str) -> Value {
    json!({"appointment_id": id, "client_id": "c", "starts_at": starts_at})
}

fn ms(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn every_login_is_scored_from_what_came_before_it() {
    let loaded = events(&[
        ("2026-01-01T00:00:00Z", "login.failed", login("u")),
        ("2026-01-02T00:00:00Z", "login.succeeded", login("u")),
        ("2026-01-03T00:00:00Z", "device.trusted", json!({"user_id": "u", "device_id": "d"})),
        ("2026-01-04T00:00:00Z", "login.failed", login("u")),
        ("2026-01-05T00:00:00Z", "login.succeeded", login("v")),
    ]);
    let (lines, summary) = run_logins(&loaded, &LoginOptions::default());
    let unscored = |id: &str| json!({"event_id": id, "likelihood_ratio": null, "score": null, "decision": "challenge"});
    assert_eq!([&lines[0], &lines[1], &lines[3]], [&unscored("0"), &unscored("1"), &unscored("4")]);
    assert_eq!((lines.len(), summary.lines, summary.scored), (4, 4, 1));
    // N = U = N_u = 1: the address has g/l = 1/2 · 1/2, and so has the user agent.
    let ratio = lines[2]["likelihood_ratio"].as_f64().unwrap();
    assert!((ratio - 0.25 * 0.25).abs() < 1e-12, "{ratio}");
    assert_eq!((&lines[2]["event_id"], &lines[2]["decision"]), (&json!("3"), &json!("allow")));
    assert_eq!(summary.answers, [("challenge", 3), ("allow", 1)]);
    assert_eq!(summary.measures, [], "no labels");
    assert!(summary.to_string().contains("no labels"), "{summary}");
}

/// The layout of the RBA data set, with invented rows. The second login of each user is scored, and one is an attack.
const LABELLED: &str = "\
index,Login Timestamp,User ID,Round-Trip Time [ms],IP Address,Country,Region,City,ASN,User Agent String,Browser Name and Version,OS Name and Version,Device Type,Login Successful,Is Attack IP,Is Account Takeover
a,2026-01-01 00:00:00.000,1,,192.0.2.1,IE,-,-,1,UA 1,B 1,O 1,mobile,True,False,False
b,2026-01-01 00:01:00.000,2,,192.0.2.2,IE,-,-,1,UA 2,B 2,O 2,mobile,True,False,False
c,2026-01-02 00:00:00.000,1,,192.0.2.1,IE,-,-,1,UA 1,B 1,O 1,mobile,True,False,False
d,2026-01-03 00:00:00.000,2,,198.51.100.1,US,-,-,9,UA 9,B 9,O 9,desktop,False,True,False
";

#[test]
fn labels_measure_scored_logins_after_the_training() {
    for (train_until, cases, positives, roc_auc) in [
        (None, 2, 1, Some(1.0)),
        (Some("2026-01-01T23:59:59.999Z"), 2, 1, Some(1.0)),
        (Some("2026-01-02T00:00:00Z"), 1, 1, None),
    ] {
        let options = LoginOptions { train_until_ms: train_until.map(ms), ..LoginOptions::default() };
        let (lines, summary) = run_logins(&load(LABELLED, SourceFormat::Rba), &options);
        assert_eq!((lines.len(), summary.scored), (4, 2), "every row has its line");
        let [attack, takeover] = &summary.measures[..] else { panic!("{summary}") };
        assert_eq!((attack.metrics.cases, attack.metrics.positives), (cases, positives), "{train_until:?}");
        assert_eq!(attack.metrics.roc_auc, roc_auc, "{train_until:?}");
        assert_eq!((takeover.metrics.positives, takeover.metrics.roc_auc), (0, None));
    }
    let (lines, summary) = run_logins(&load(LABELLED, SourceFormat::Rba), &LoginOptions::default());
    assert_eq!(lines[3]["decision"], "challenge", "another location, another machine");
    assert!(summary.to_string().contains("attack address"), "{summary}");
}

/// The layout of the no-show data set, with invented rows: a client with two visits, one with one, and a skipped row.
const VISITS: &str = "\
PatientId,AppointmentID,Gender,ScheduledDay,AppointmentDay,Age,Neighbourhood,Scholarship,Hipertension,Diabetes,Alcoholism,Handcap,SMS_received,No-show
1,10,F,2026-03-01T09:00:00Z,2026-03-03T00:00:00Z,33,N,0,0,0,0,0,1,Yes
1,11,F,2026-03-03T09:00:00Z,2026-03-05T00:00:00Z,33,N,0,0,0,0,0,0,No
1,12,F,2026-03-04T09:00:00Z,2026-03-04T00:00:00Z,33,N,0,0,0,0,0,0,No
2,13,F,2026-03-04T09:00:00Z,2026-03-06T00:00:00Z,33,N,0,0,0,0,0,0,Yes
2,14,F,2026-03-04T09:00:00Z,2026-03-03T00:00:00Z,33,N,0,0,0,0,0,0,No
";

#[test]
fn bookings_are_scored_with_the_outcomes_that_had_arrived() {
    let (lines, summary) = run_appointments(&load(VISITS, SourceFormat::Noshow), &AppointmentOptions::default());
    let shape = |line: &Value| {
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        (text("appointment_id"), text("outcome"), line["lead_days"].as_i64().unwrap())
    };
    let expected = [("10", "missed", 2), ("11", "attended", 2), ("12", "attended", 0), ("13", "missed", 2)];
    assert_eq!(lines.iter().map(shape).collect::<Vec<_>>(), expected.map(|(id, o, lead)| (id.into(), o.into(), lead)));
    assert_eq!(
        lines[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["appointment_id", "score", "outcome", "lead_days"]
    );
    let score: Vec<_> = lines.iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!((score[0] - 0.1).abs() < 1e-12, "nothing known: the prior");
    assert_eq!(score[1], score[0], "the missed visit of the day is not known before its end");
    assert!(score[3] > score[1], "known now, and of the same lead: {score:?}");
    assert!(score[2] > score[0], "and the client's own: {score:?}");
    assert_eq!((summary.rows, summary.skipped, summary.lines), (5, 1, 4));
    let names: Vec<_> = summary.measures.iter().map(|m| (m.name, m.metrics.cases, m.metrics.positives)).collect();
    assert_eq!(names, [("overall", 4, 2), ("lead >= 1 day", 3, 2)]);
}

#[test]
fn the_summary_covers_what_was_booked_after_the_training() {
    for (train_until, cases) in [("2026-03-03T08:59:59Z", 3), ("2026-03-03T09:00:00Z", 2), ("2026-04-01T00:00:00Z", 0)]
    {
        let options = AppointmentOptions { train_until_ms: Some(ms(train_until)), ..AppointmentOptions::default() };
        let (lines, summary) = run_appointments(&load(VISITS, SourceFormat::Noshow), &options);
        assert_eq!((lines.len(), summary.scored), (4, 4), "every row has its line");
        assert_eq!(summary.measures.first().map_or(0, |m| m.metrics.cases), cases, "{train_until}");
    }
}

#[test]
fn scores_do_not_depend_on_how_many_partitions_the_log_has() {
    let of = |partitions| {
        let options = AppointmentOptions { partitions, ..AppointmentOptions::default() };
        run_appointments(&load(VISITS, SourceFormat::Noshow), &options).0
    };
    assert_eq!(of(1), of(5));
}

#[test]
fn the_day_before_knows_more_and_leaves_same_day_visits_out() {
    let options = AppointmentOptions { at: At::DayBefore, ..AppointmentOptions::default() };
    let (lines, summary) = run_appointments(&load(VISITS, SourceFormat::Noshow), &options);
    let ids: Vec<_> = lines.iter().map(|line| line["appointment_id"].as_str().unwrap()).collect();
    // Visit 11 at 00:00 on the 4th, when the outcome of the 3rd is known; 13 at 00:00 on the 5th.
    assert_eq!(ids, ["10", "11", "13"]);
    let score = |at: usize| lines[at]["score"].as_f64().unwrap();
    assert!(score(1) > score(0), "the miss at the end of the 3rd is known at 00:00 of the 4th");
    assert_eq!(summary.measures[0].metrics.cases, 3);
    assert_eq!(summary.measures[0].metrics, summary.measures[1].metrics, "all of them have a lead");
}

#[test]
fn the_day_before_scores_what_is_still_on_where_it_then_is() {
    let loaded = events(&[
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("kept", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("called-off", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("called-off-late", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("put-off", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("put-forward", "2026-05-20T09:00:00Z")),
        ("2026-05-02T08:00:00Z", "appointment.cancelled", visit("called-off")),
        ("2026-05-02T08:00:00Z", "appointment.rescheduled", booking("put-off", "2026-05-12T09:00:00Z")),
        ("2026-05-02T08:00:00Z", "appointment.rescheduled", booking("put-forward", "2026-05-08T09:00:00Z")),
        ("2026-05-08T10:00:00Z", "appointment.attended", visit("put-forward")),
        ("2026-05-10T08:00:00Z", "appointment.cancelled", visit("called-off-late")),
        ("2026-05-10T10:00:00Z", "appointment.missed", visit("kept")),
        ("2026-05-10T11:00:00Z", "appointment.attended", visit("kept")),
        ("2026-05-12T08:30:00Z", "appointment.booked", booking("same-day", "2026-05-12T15:00:00Z")),
        ("2026-05-13T08:30:00Z", "appointment.booked", booking("soon", "2026-05-14T07:00:00Z")),
    ]);
    let options = AppointmentOptions { at: At::DayBefore, ..AppointmentOptions::default() };
    let (lines, summary) = run_appointments(&loaded, &options);
    let got: Vec<_> =
        lines.iter().map(|line| (line["appointment_id"].as_str().unwrap(), line["outcome"].as_str())).collect();
    let expected = [
        ("put-forward", Some("attended")),
        ("called-off-late", Some("late_cancelled")),
        ("kept", Some("attended")),
        ("put-off", None),
        ("soon", None),
    ];
    assert_eq!(got, expected);
    assert_eq!(lines[0]["lead_days"], 7);
    assert_eq!(summary.measures[0].metrics.cases, 2, "only kept and missed visits are judged");
}

#[test]
fn an_outcome_that_came_before_its_booking_is_not_known_to_the_booking() {
    let missed = |id: &str| ("2026-05-01T00:00:00Z", "appointment.missed", visit(id));
    let loaded = events(&[
        missed("a"),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("a", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("b", "2026-05-10T09:00:00Z")),
        ("2026-05-01T09:00:00Z", "appointment.booked", booking("b", "2026-05-11T09:00:00Z")),
    ]);
    let (lines, _) = run_appointments(&loaded, &AppointmentOptions::default());
    assert_eq!(lines.len(), 2, "a repeated booking is scored once");
    assert!((lines[0]["score"].as_f64().unwrap() - 0.1).abs() < 1e-12, "{}", lines[0]);
}

#[test]
fn an_outcome_is_of_the_start_at_which_it_came() {
    let loaded = events(&[
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("made-up", "2026-05-10T09:00:00Z")),
        ("2026-05-01T08:00:00Z", "appointment.booked", booking("moved", "2026-05-10T09:00:00Z")),
        ("2026-05-02T08:00:00Z", "appointment.rescheduled", booking("moved", "2026-05-12T09:00:00Z")),
        ("2026-05-10T10:00:00Z", "appointment.missed", visit("made-up")),
        ("2026-05-11T08:00:00Z", "appointment.rescheduled", booking("made-up", "2026-05-20T09:00:00Z")),
        ("2026-05-12T10:00:00Z", "appointment.attended", visit("moved")),
        ("2026-05-20T10:00:00Z", "appointment.attended", visit("made-up")),
    ]);
    for (at, expected) in [
        (At::Booking, [("made-up", Some("missed")), ("moved", None), ("made-up", Some("attended"))]),
        (At::DayBefore, [("made-up", Some("missed")), ("moved", Some("attended")), ("made-up", Some("attended"))]),
    ] {
        let (lines, summary) = run_appointments(&loaded, &AppointmentOptions { at, ..AppointmentOptions::default() });
        let shape = |line: &Value| {
            (line["appointment_id"].as_str().unwrap().to_owned(), line["outcome"].as_str().map(str::to_owned))
        };
        let expected = expected.map(|(id, outcome)| (id.to_owned(), outcome.map(str::to_owned)));
        assert_eq!(lines.iter().map(shape).collect::<Vec<_>>(), expected, "{at:?}");
        assert_eq!(summary.measures[0].metrics.positives, 1, "{at:?}");
    }
}

#[test]
fn progress_reaches_the_end_and_a_broken_output_is_an_error() {
    let loaded = load(VISITS, SourceFormat::Noshow);
    let mut calls = Vec::new();
    let options = AppointmentOptions::default();
    appointments(&loaded, &options, &mut Vec::new(), &mut |done, total| calls.push((done, total))).unwrap();
    assert_eq!(calls, [(8, 8)]);
    let refused = appointments(&loaded, &options, &mut &mut [0_u8; 10][..], &mut |_, _| {});
    assert!(refused.is_err());
    let refused =
        logins(&load(LABELLED, SourceFormat::Rba), &LoginOptions::default(), &mut &mut [0_u8; 10][..], &mut |_, _| {});
    assert!(refused.is_err());
}

#[test]
fn moments_are_known_by_name() {
    for at in [At::Booking, At::DayBefore] {
        assert_eq!(At::parse(at.name()), Some(at));
    }
    assert_eq!(At::parse("72h"), None);
}

/// The actions of a policy, as `time status what`.
fn run_reminders(loaded: &SourceData, policy: &Value) -> Vec<String> {
    let policy = foretell_domain::remind::policy::ReminderPolicy::read(policy, &Default::default()).unwrap();
    let options = ReminderOptions { policy, ..ReminderOptions::default() };
    let mut lines = Vec::new();
    let mut happened = |one: Happened| {
        let what = if one.status == "announced" { one.step } else { one.reason };
        lines.push(format!("{} {} {}", &one.time[5..16], one.status, what.unwrap_or_default()));
        Ok::<_, std::convert::Infallible>(())
    };
    let sums = reminders(loaded, &options, &mut happened, &mut |_, _| {}).unwrap();
    assert_eq!(sums.counts.values().sum::<u64>() as usize, lines.len(), "{sums}");
    lines
}

#[test]
fn a_policy_is_tested_as_time_would_have_passed() {
    let booked = |client: &str, id: &str, starts_at: &str| {
        let zone = "Europe/Dublin";
        json!({"appointment_id": id, "client_id": client, "starts_at": starts_at, "time_zone": zone})
    };
    let of = |client: &str, id: &str| json!({"appointment_id": id, "client_id": client});
    let loaded = events(&[
        ("2026-06-01T10:00:00Z", "appointment.booked", booked("c", "a", "2026-06-10T12:00:00")),
        ("2026-06-01T11:00:00Z", "appointment.booked", booked("d", "b", "2026-06-11T07:00:00")),
        ("2026-06-08T10:00:00Z", "appointment.cancelled", of("c", "a")),
        ("2026-06-09T10:00:00Z", "appointment.booked", booked("e", "f", "2026-06-09T18:00:00")),
    ]);
    assert_eq!(
        run_reminders(&loaded, &json!({})),
        [
            "06-07T11:00 announced 72h",
            // At 07:00 in Dublin, quiet hours last for another hour.
            "06-08T06:00 deferred quiet_hours",
            "06-08T07:00 announced 72h",
            "06-08T10:00 withdrawn cancelled",
            "06-10T06:00 deferred quiet_hours",
            "06-10T07:00 announced 24h",
        ]
    );
    let steps = json!({"steps": [{"id": "confirmation", "at_booking": true}, {"id": "x", "before_days": 1}]});
    assert_eq!(
        run_reminders(&loaded, &steps),
        [
            "06-01T10:00 announced confirmation",
            "06-01T11:00 announced confirmation",
            "06-08T10:00 withdrawn cancelled",
            "06-09T10:00 announced confirmation",
            "06-10T06:00 deferred quiet_hours",
            "06-10T07:00 announced x",
        ]
    );
}
