//! The report on no-shows: what was scored, announced and observed, over log and rows of an instance.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, PARTITIONS, World, event, until};
use bytes::Bytes;
use foretell_domain::report::no_show::{NoShowReport, NoShowReportRow};
use foretell_domain::score::metrics::{Case, Metrics};
use foretell_domain::view::{self, Limits};
use foretell_engine::jobs::{self, JobEvent, JobProgress};
use foretell_engine::rows::Pointers;
use foretell_events::codec::rfc3339;
use foretell_events::record::NewRecord;
use foretell_events::{Topic, key};
use foretell_ports::log::{Log, Retention};
use foretell_service::decisions::reading::DecisionReportJob;
use foretell_service::report::reading::{NoShowQuery, NoShowReportJob};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn job(world: &World) -> NoShowReportJob {
    let pointers = Pointers::new(world.store.clone(), 100, view::fingerprint(&Limits::default()));
    let (log, store, clock) = (world.log.clone(), world.store.clone(), world.clock.clone());
    NoShowReportJob { log, store, pointers: Arc::new(pointers), clock, retention: Retention::default() }
}

async fn report(world: &World, query: NoShowQuery) -> NoShowReport {
    let mut events = jobs::start(job(world), query);
    let mut parts = Vec::new();
    loop {
        match events.recv().await.expect("it comes to an end") {
            JobEvent::Progress(progress) => {
                let progress: JobProgress = progress;
                parts.retain(|part: &JobProgress| part.what != progress.what);
                parts.push(progress);
            }
            JobEvent::Failed { detail } => panic!("{detail}"),
            JobEvent::Item(()) => {}
            JobEvent::Done(report) => {
                let whats: Vec<_> = parts.iter().map(|part| part.what.as_str()).collect();
                assert_eq!(whats, ["offsets of decisions", "offsets of reminders", "buckets of clients"]);
                assert!(parts.iter().all(|part| part.done == part.total), "everything was read: {parts:?}");
                return report;
            }
        }
    }
}

fn row<'a>(rows: &'a [NoShowReportRow], name: &str) -> &'a NoShowReportRow {
    rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

fn visit(id: usize, starts_ms: i64, lead_days: i64) -> Value {
    let data = json!({"appointment_id": format!("a{id}"), "client_id": format!("c{id}"), "starts_at": rfc3339(starts_ms),
        "time_zone": "UTC", "booked_at": rfc3339(starts_ms - lead_days * 24 * HOUR_MS)});
    event(&format!("b{id}"), "appointment.booked", data)
}

fn told(id: usize, kind: &str, at_ms: i64) -> Value {
    let data = json!({"appointment_id": format!("a{id}"), "client_id": format!("c{id}")});
    let mut told = event(&format!("{kind} {id}"), &format!("appointment.{kind}"), data);
    told["time"] = json!(rfc3339(at_ms));
    told
}

async fn reminders(world: &World) -> usize {
    let mut records = 0;
    for partition in 0..world.log.partitions(Topic::Reminders) {
        records += world.log.records(Topic::Reminders, partition).unwrap().len();
    }
    records
}

/// Twelve visits four days ahead, all of them scored, and twelve this evening, half of them scored. Of each twelve, ten
/// get an outcome: four of the first are missed and two of the others. One of each is cancelled late, and one of each
/// has no outcome.
#[tokio::test]
async fn visits_are_compared_with_their_scores_and_announcements() {
    foretell_telemetry::prometheus();
    let instance = Instance::start().await;
    let (far_ms, near_ms) = (NOW_MS + 96 * HOUR_MS, NOW_MS + 8 * HOUR_MS);
    let bookings = (0..12).map(|n| visit(n, far_ms, 14)).chain((12..24).map(|n| visit(n, near_ms, 0)));
    instance.fold(&bookings.collect::<Vec<_>>()).await;
    let mut scored = Vec::new();
    for n in 0..18 {
        let answer = instance.get(&format!("/v1/risk/appointments/a{n}")).await;
        assert_eq!(answer.status, 200);
        scored.push((answer.body["score"].as_f64().unwrap(), answer.body["level"].as_str().unwrap().to_owned()));
    }
    let decided = async || {
        let partitions = 0..instance.world.log.partitions(Topic::Decisions);
        partitions.map(|p| instance.world.log.records(Topic::Decisions, p).unwrap().len()).sum::<usize>()
    };
    until(async || decided().await == 18).await;
    for (before_ms, count) in [(72 * HOUR_MS, 12), (24 * HOUR_MS, 24)] {
        instance.world.clock.set(far_ms - before_ms);
        until(async || reminders(&instance.world).await == count).await;
    }
    instance.world.clock.set(far_ms + HOUR_MS);
    let mut outcomes = Vec::new();
    for (first, starts_ms, missed) in [(0, far_ms, 4), (12, near_ms, 2)] {
        for n in 0..10 {
            let kind = if n < missed { "missed" } else { "attended" };
            outcomes.push(told(first + n, kind, starts_ms + HOUR_MS));
        }
        outcomes.push(told(first + 10, "cancelled", starts_ms - HOUR_MS));
    }
    instance.fold(&outcomes).await;
    let metrics = Instance::metrics();
    for outcome in ["missed", "attended", "late_cancelled"] {
        assert!(metrics.contains(&format!("foretell_visits_total{{outcome=\"{outcome}\"}}")), "{outcome}");
    }
    let all = report(&instance.world, NoShowQuery::default()).await;
    let counts = |row: &NoShowReportRow| [row.known, row.missed, row.late_cancelled, row.cancelled, row.unknown];
    assert_eq!(counts(&all.total), [20, 6, 2, 0, 2]);
    assert_eq!((all.window.end, all.unfolded, all.elsewhere, all.unreadable), (far_ms + HOUR_MS, 0, 0, 0));
    for (rows, name, expected) in [
        (&all.by_lead, "0", [10, 2, 1, 0, 1]),
        (&all.by_lead, "14-20", [10, 4, 1, 0, 1]),
        (&all.by_lead, "7", [0, 0, 0, 0, 0]),
        (&all.by_steps, "none", [10, 2, 1, 0, 1]),
        (&all.by_steps, "24h + 72h", [10, 4, 1, 0, 1]),
        (&all.by_level, "(not scored)", [4, 0, 1, 0, 1]),
    ] {
        assert_eq!(counts(row(rows, name)), expected, "{name}: {all:?}");
    }
    // The scored visits with known outcomes.
    let known = scored.iter().enumerate().filter(|(n, _)| *n < 10 || *n >= 12);
    let known: Vec<_> = known
        .map(|(n, (score, level))| (Case { score: *score, positive: n < 4 || n == 12 || n == 13 }, level))
        .collect();
    for level in ["low", "medium", "high"] {
        let of_level = known.iter().filter(|(_, of)| *of == level);
        let missed = of_level.clone().filter(|(case, _)| case.positive).count();
        let found = all.by_level.iter().find(|row| row.name == level).map_or((0, 0), |row| (row.known, row.missed));
        assert_eq!(found, (of_level.count() as u64, missed as u64), "{level}");
    }
    let far = row(&all.by_lead, "14-20");
    let expected = scored[..10].iter().map(|(score, _)| score).sum::<f64>() / 10.0;
    assert!((far.expected.unwrap() - expected).abs() < 1e-9 && far.rate == Some(0.4), "{far:?}");
    let metrics = Metrics::of(&known.iter().map(|(case, _)| *case).collect::<Vec<_>>());
    assert_eq!((all.last.metrics.cases, all.last.metrics.positives), (16, 6));
    assert_eq!(all.last.metrics.roc_auc, metrics.roc_auc);
    assert!((all.last.metrics.brier.unwrap() - metrics.brier.unwrap()).abs() < 1e-9);
    assert_eq!(all.last.bins.iter().map(|bin| bin.cases).sum::<usize>(), 16);
    assert_eq!((all.asked.cases, all.reminded.cases), (16, 10), "each reminder carries a risk");

    let near = report(&instance.world, NoShowQuery { until_ms: Some(far_ms), ..NoShowQuery::default() }).await;
    assert_eq!((counts(&near.total), near.by_steps.len()), ([10, 2, 1, 0, 1], 1));
    let since = NoShowQuery { since_ms: Some(far_ms), until_ms: Some(i64::MAX), tenant: Some("default".into()) };
    let far = report(&instance.world, since).await;
    assert_eq!((counts(&far.total), far.window), ([10, 4, 1, 0, 1], far_ms..far_ms + HOUR_MS));
    let other = NoShowQuery { tenant: Some("defaul".into()), ..NoShowQuery::default() };
    assert_eq!(counts(&report(&instance.world, other).await.total), [0; 5], "of another tenant nothing");
}

#[tokio::test]
async fn unfolded_events_are_reported() {
    let world = World::new();
    let folding = CancellationToken::new();
    let views = world.views(folding.clone()).await;
    let instance = Instance::without_views(world.clone(), world.parts()).await;
    instance.fold(&[visit(1, NOW_MS + HOUR_MS, 3)]).await;
    folding.cancel();
    views.join_all().await;
    // Folding has ended, and another event is appended.
    let request = instance.request(Method::POST, "/v1/events").body(told(1, "cancelled", NOW_MS).to_string());
    let request = request.header("content-type", "application/cloudevents+json");
    assert_eq!(Answer::of(request.send().await.unwrap()).await.status, 202);
    world.clock.set(NOW_MS + 2 * HOUR_MS);
    let behind = report(&world, NoShowQuery::default()).await;
    assert_eq!((behind.unfolded, behind.total.unknown, behind.total.late_cancelled), (1, 1, 0));
}

#[tokio::test]
async fn misplaced_records_are_ignored() {
    let instance = Instance::start().await;
    let world = &instance.world;
    world.clock.set(NOW_MS + 40 * 24 * HOUR_MS);
    for (stray, counted) in [(1, 0), (0, 1)] {
        for (topic, subject, text) in [
            (Topic::Reminders, "c-77", include_str!("../../catalog/examples/foretell.reminder.due/a-day-before.json")),
            (Topic::Logins, "u-4713", include_str!("../../catalog/examples/foretell.login.reported/least.json")),
        ] {
            let key = format!("default:{subject}");
            let partition = (key::partition(key.as_bytes(), PARTITIONS) + stray) % PARTITIONS;
            let headers = vec![("content-type".to_owned(), Bytes::from_static(b"application/cloudevents+json"))];
            let record = NewRecord { topic, key: Some(key.into()), value: text.into(), headers };
            world.log.append_to(partition, record).unwrap();
        }
        assert_eq!(report(world, NoShowQuery::default()).await.elsewhere, counted, "{stray}");
        let (log, store, clock) = (world.log.clone(), world.store.clone(), world.clock.clone());
        let decisions = DecisionReportJob { log, store, clock, retention: Retention::default() };
        let mut events = jobs::start(decisions, Default::default());
        let unmatched = loop {
            if let JobEvent::Done(report) = events.recv().await.expect("it comes to an end") {
                break report.unmatched;
            }
        };
        assert_eq!(unmatched, counted, "{stray}");
    }
}
