//! Changed rules: the rows are rebuilt while the old ones serve, by a process that is killed meanwhile, and with an old
//! and a new version serving in parallel.

use crate::deployment::{Deployment, Rows, assert_same};
use crate::facts;
use crate::process::{Process, Service, until};
use foretell_events::Topic;
use foretell_ports::clock::{Clock, System};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const LOGINS: u64 = 5_000;
const VISITS: u64 = 1_000;
/// A setting that changes rows: fewer devices per user than in the file.
const RULE: (&str, &str) = ("FOLD__USER_DEVICES_MAX", "1");

/// Appends the files of every test here.
fn import(deployment: &Deployment) {
    let (logins, visits) = (deployment.scratch_file("logins.jsonl"), deployment.scratch_file("visits.jsonl"));
    facts::write_logins(&logins, LOGINS);
    facts::write_visits(&visits, VISITS);
    for (kind, path) in [("logins", logins), ("appointments", visits)] {
        deployment.output(&["import", kind, path.to_str().expect("text"), "--format", "events"]);
    }
}

async fn rows_of_new_rules() -> Rows {
    let mut deployment = Deployment::disk();
    deployment.set(RULE.0, RULE.1);
    import(&deployment);
    Service::ready(&deployment, &[]).await.process.stop().await;
    deployment.rows().await
}

/// Waits until a service reports that it waits for a rebuild.
async fn due(service: &Service) {
    until("a rebuild is due", async || {
        let ready = service.get("/readyz?verbose").await;
        (ready.status == 503 && ready.body.to_string().contains("foretell rebuild logins")).then_some(())
    })
    .await;
}

async fn survives_kills_of_a_rebuild(mut deployment: Deployment) {
    import(&deployment);
    Service::ready(&deployment, &[]).await.process.stop().await;
    let before = deployment.rows().await;
    deployment.set(RULE.0, RULE.1);
    let mut service = Service::start(&deployment, &[]);
    until("it listens", async || service.ask(reqwest::Method::GET, "/livez").send().await.ok()).await;
    due(&service).await;

    let mut rebuild = Process::start(&deployment, deployment.command(&["rebuild", "logins"]));
    until("the new rows are begun", async || {
        let positions: Value = serde_json::from_str(&deployment.output(&["inspect", "positions", "--json"])).ok()?;
        let mut building = positions.as_array()?.iter().filter(|at| at["stage"] == "building");
        building.any(|at| at["next"].as_i64() > Some(0)).then_some(())
    })
    .await;
    rebuild.kill();
    service.process.kill();

    let service = Service::ready(&deployment, &["--auto-rebuild"]).await;
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));
    let refused = deployment.failure(1, &["rebuild", "logins", "--cancel"]);
    assert!(refused.contains("nothing is being built"), "{refused}");
    service.process.stop().await;
    let after = deployment.rows().await;
    assert_ne!(before, after, "the rules make a difference");
    assert_same(&rows_of_new_rules().await, &after);
    assert_eq!(deployment.records(Topic::DeadLetters).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rebuild_goes_on_by_itself() {
    survives_kills_of_a_rebuild(Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rebuild_on_the_clusters_goes_on_by_itself() {
    survives_kills_of_a_rebuild(Deployment::cluster()).await;
}

/// Posts bookings with a due reminder, one after the other, until it is stopped; returns how many.
async fn keep_booking(url: String, stop: CancellationToken) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut booked_clients = 0;
    while !stop.is_cancelled() {
        let body = Value::from(facts::booked(booked_clients, System.now_ms()).to_vec()).to_string();
        let post = client.post(format!("{url}/v1/events"));
        let post = post.header("content-type", "application/cloudevents-batch+json").body(body);
        assert_eq!(post.send().await.expect("an answer").status(), 202);
        booked_clients += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    booked_clients
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_other_rules_rolls_while_events_come_and_reminders_go() {
    let mut deployment = Deployment::cluster();
    import(&deployment);
    let old = Service::ready(&deployment, &[]).await;
    deployment.set(RULE.0, RULE.1);
    let mut new = Service::start(&deployment, &[]);
    until("the new one listens", async || new.ask(reqwest::Method::GET, "/livez").send().await.ok()).await;
    due(&new).await;

    let stop = CancellationToken::new();
    // The old one accepts events as long as it runs: appending them requires no rows.
    let bookings = tokio::spawn(keep_booking(old.url.clone(), stop.clone()));
    for family in ["logins", "appointments", "reminders", "policies"] {
        assert_eq!(old.get("/v1/users/nobody").await.status, if family == "logins" { 404 } else { 503 });
        let output = deployment.output(&["rebuild", family]);
        assert!(output.contains(&format!("generation 2 of {family} serves")), "{output}");
    }
    new.until_ready().await;
    until("the old one is no longer ready", async || (old.get("/readyz").await.status == 503).then_some(())).await;
    stop.cancel();
    let booked = bookings.await.expect("no panic") as usize;
    old.process.stop().await;

    until("every reminder is announced", async || (deployment.reminders().await.0.len() >= booked).then_some(())).await;
    let output = deployment.output(&["verify"]);
    assert!(output.ends_with("; 0 differ\n"), "{output}");
    new.process.stop().await;
    let reminders = deployment.reminders().await.0;
    let twice: Vec<_> = reminders.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(reminders.len(), booked, "one for each visit");
    assert!(booked > 100, "{booked} visits");
    assert_eq!(deployment.records(Topic::DeadLetters).await, 0);
}
