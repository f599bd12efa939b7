//! Another partition count: topics are copied, with kills and restarts, and the rows do not differ from those of topics
//! that had this count from the beginning.

use crate::deployment::{self, Deployment, Rows, assert_same};
use crate::facts;
use crate::process::{Process, Service, until};
use foretell_domain::address::Family;
use foretell_events::Topic;
use foretell_events::record::NewRecord;
use foretell_ports::clock::{Clock, System};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;

const LOGINS: u64 = 3_000;
const VISITS: u64 = 600;
/// Due reminders.
const DUE: u64 = 5;
/// Twice the original count, so that records that share a partition shared one before, and have an order.
const PARTITIONS: u32 = 8;

/// Appends the same facts everywhere, and an invalid record.
async fn import(deployment: &Deployment) {
    let (logins, visits) = (deployment.scratch_file("logins.jsonl"), deployment.scratch_file("visits.jsonl"));
    facts::write_logins(&logins, LOGINS);
    facts::write_visits(&visits, VISITS);
    for (kind, path) in [("logins", logins), ("appointments", visits)] {
        deployment.output(&["import", kind, path.to_str().expect("text"), "--format", "events"]);
    }
    let nonsense = NewRecord {
        topic: Topic::Logins,
        key: Some("default:user-1".into()),
        value: "nonsense".into(),
        headers: Vec::new(),
    };
    deployment.open().await.log.append(vec![nonsense]).await.expect("appended");
}

/// Serves until every due reminder is sent; returns the reminders, and a cursor of the stream.
async fn announce(deployment: &Deployment) -> (BTreeMap<String, usize>, String) {
    let service = Service::ready(deployment, &[]).await;
    let now_ms = System.now_ms();
    let bookings: Vec<_> = (0..DUE).flat_map(|client| facts::booked(client, now_ms)).collect();
    service.fold(&bookings).await;
    let mut stream = service.ask(Method::GET, "/v1/reminders/stream").send().await.expect("a stream");
    let mut text = String::new();
    while text.matches("event: foretell.reminder.due").count() < DUE as usize {
        let chunk = stream.chunk().await.expect("readable").expect("the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let cursor = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("a cursor").to_owned();
    drop(stream);
    service.process.stop().await;
    (deployment.reminders().await.0, cursor)
}

fn target(family: Family) -> String {
    format!("{}={PARTITIONS}", family.name())
}

/// Runs the command, and kills it at the first line of output, then at the second, and so on until it completes. No
/// service runs in between.
async fn moved_between_kills(deployment: &Deployment, family: Family) {
    let target = target(family);
    for lines in 1.. {
        let command = deployment.command(&["migrate", "--repartition", &target]);
        let mut process = Process::start(deployment, command);
        let ended = until("it has printed this much, or ended", async || {
            let ended = process.ended();
            (ended.is_some() || process.stdout().lines().count() >= lines).then_some(ended)
        })
        .await;
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0), "{}", process.stderr());
            return;
        }
        if !process.kill_if_running() {
            return;
        }
        let has_moved = process.stdout().lines().any(|line| line.contains(&format!(" of {} serves", family.name())));
        if !has_moved {
            let messages = deployment.failure(1, &["serve", "--listen", "127.0.0.1:0"]);
            assert!(messages.contains(&format!("`foretell migrate --repartition {target}` again")), "{messages}");
        }
    }
}

/// Rows that only one partition writes: the same ones, whichever partition that is.
fn owners(rows: &Rows) -> BTreeMap<(foretell_domain::address::View, String), Vec<u8>> {
    let owned = rows.iter().filter(|((view, ..), _)| ["user", "client"].contains(&view.name()));
    owned.map(|((view, _, key, _), state)| ((*view, key.clone()), state.clone())).collect()
}

async fn moves(deployment: Deployment) {
    import(&deployment).await;
    let (sent, cursor) = announce(&deployment).await;
    assert_eq!(sent.len() as u64, DUE, "{sent:?}");
    let before = deployment.rows().await;

    let letters = deployment.records(Topic::DeadLetters).await;
    moved_between_kills(&deployment, Family::Logins).await;
    moved_between_kills(&deployment, Family::Appointments).await;
    let again = deployment.output(&["migrate", "--repartition", &target(Family::Logins)]);
    assert!(again.starts_with(&format!("done: logins has {PARTITIONS} partitions; ")), "{again}");

    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));
    assert_eq!((deployment.records(Topic::DeadLetters).await, letters), (1, 1), "what was rejected stays so, once");
    let after = deployment.rows().await;
    assert_eq!(owners(&before), owners(&after), "keys keep their rows");
    assert!(!owners(&after).is_empty());

    let service = Service::ready(&deployment, &[]).await;
    let stream = service.ask(Method::GET, "/v1/reminders/stream").header("last-event-id", &cursor);
    let refused = service.answer(stream).await;
    assert_eq!(refused.status, 410, "{}", refused.body);
    let data = json!({"user_id": "user-1", "ip": "203.0.113.9"});
    service.fold(&[facts::event("afterwards", "login.succeeded", System.now_ms(), &data)]).await;
    let user = service.get("/v1/users/user-1").await.good();
    assert!(user["history"]["last_success"].as_str().is_some(), "{user}");
    service.fold(&facts::booked(DUE, System.now_ms())).await;
    let visit = format!("/v1/appointments/visit-due-{DUE}");
    until("the reminder of a new visit is sent", async || {
        service.get(&visit).await.body["reminders"].to_string().contains("\"sent\"").then_some(())
    })
    .await;
    service.process.stop().await;
    let (sent_since, partitions) = deployment.reminders().await;
    assert_eq!(partitions, PARTITIONS);
    assert_eq!(sent_since.len() as u64, DUE + 1, "{sent_since:?}");
    assert!(sent.iter().all(|(id, times)| sent_since.get(id) == Some(times)), "nothing is sent again");
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));

    let mut other = Deployment::disk();
    other.set("TOPICS__EMBEDDED_PARTITIONS", &PARTITIONS.to_string());
    import(&other).await;
    Service::ready(&other, &[]).await.process.stop().await;
    let logins =
        |rows: Rows| -> Rows { rows.into_iter().filter(|((view, ..), _)| view.family() == Family::Logins).collect() };
    assert_same(&logins(after), &logins(other.rows().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gets_other_partitions_between_kills() {
    moves(Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_get_other_partitions_between_kills() {
    moves(Deployment::cluster()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_garbage_is_kept_until_an_operator_drops_it() {
    const NONSENSE: i64 = 1_200;
    let mut deployment = Deployment::disk();
    import(&deployment).await;
    Service::ready(&deployment, &[]).await.process.stop().await;
    let records = (0..NONSENSE).map(|number| NewRecord {
        topic: Topic::Appointments,
        key: Some(format!("default:{number}").into()),
        value: "nonsense".into(),
        headers: Vec::new(),
    });
    deployment.open().await.log.append(records.collect()).await.expect("appended");

    let given_up = deployment.run(&["migrate", "--repartition", &target(Family::Appointments)]);
    let (printed, messages) = (deployment::stdout(&given_up), deployment::stderr(&given_up));
    assert_eq!(given_up.status.code(), Some(1), "{messages}");
    assert!(printed.ends_with("cancelled: appointments is unchanged\n"), "{printed}");
    assert!(messages.contains("pipeline.rejected_run_max = 0"), "{messages}");
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"), "nothing has moved");
    assert_eq!(deployment.reminders().await.1, deployment::PARTITIONS);
    let letters = deployment.records(Topic::DeadLetters).await;

    deployment.set("PIPELINE__REJECTED_RUN_MAX", "0");
    deployment.set("PIPELINE__REJECTED_PERCENT_MAX", "100");
    let moved = deployment.output(&["migrate", "--repartition", &target(Family::Appointments)]);
    assert!(
        moved.contains(&format!("; {NONSENSE} rejected records were not copied, {NONSENSE} of them are new")),
        "{moved}"
    );
    assert_eq!(deployment.records(Topic::DeadLetters).await - letters, NONSENSE);
    assert_eq!(deployment.reminders().await.1, PARTITIONS);
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));
}

/// What cluster administrators can do to a topic.
struct Admin(AdminClient<DefaultClientContext>);

impl Admin {
    fn of(deployment: &Deployment) -> Self {
        Self(ClientConfig::new().set("bootstrap.servers", deployment.brokers()).create().expect("a client"))
    }

    async fn raise(&self, topic: &str, partitions: usize) {
        let new = [NewPartitions::new(topic, partitions)];
        let raised = self.0.create_partitions(&new, &AdminOptions::new()).await.expect("an answer");
        assert_eq!(raised, [Ok(topic.to_owned())]);
    }

    /// Deletes a topic and creates an empty one with the same settings and name.
    async fn create_again(&self, topic: &str) {
        let deleted = self.0.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
        assert_eq!(deleted, [Ok(topic.to_owned())]);
        let new = NewTopic::new(topic, deployment::PARTITIONS as i32, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
            .set("max.message.bytes", "2097152");
        until("the topic can be made again", async || {
            let created = self.0.create_topics([&new], &AdminOptions::new()).await.expect("an answer");
            matches!(&created[..], [Ok(_)]).then_some(())
        })
        .await;
    }
}

/// Waits until a process ends with this error.
async fn ended_with(service: &mut Service, says: &str) {
    let status = service.process.end().await;
    let messages = service.process.stderr();
    assert_eq!(status.code(), Some(1), "{messages}");
    let last = messages.lines().last().expect("a reason");
    assert!(last.starts_with("foretell: ") && last.contains(says), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_changed_in_place_is_refused_until_it_is_copied() {
    let deployment = Deployment::cluster();
    import(&deployment).await;
    let settings = deployment.scratch_file("settings.toml");
    // How soon librdkafka notices changes of a topic.
    std::fs::write(&settings, "[kafka.properties]\n\"topic.metadata.refresh.interval.ms\" = \"500\"\n")
        .expect("written");
    let mut service = Service::ready(&deployment, &["--config", settings.to_str().expect("text")]).await;
    let mut answering = Service::ready(&deployment, &["--roles", "http"]).await;

    let refused = deployment.failure(1, &["migrate", "--repartition", "logins=6"]);
    assert!(refused.contains("stop producers, and every `foretell serve`"), "{refused}");
    let admin = Admin::of(&deployment);
    admin.raise(&deployment.topic(Topic::Logins), 6).await;
    ended_with(&mut service, "`foretell migrate --repartition").await;
    let refused = deployment.failure(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("run `foretell migrate --repartition logins=6`"), "{refused}");
    let refused = deployment.failure(1, &["verify"]);
    assert!(refused.contains("run `foretell migrate --repartition logins=6`"), "{refused}");

    until("the group is empty", async || {
        let moved = deployment.run(&["migrate", "--repartition", "logins=6"]);
        let messages = deployment::stderr(&moved);
        assert!(moved.status.success() || messages.contains("members"), "{messages}");
        moved.status.success().then_some(())
    })
    .await;
    ended_with(&mut answering, "logins").await;
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"));
    Service::ready(&deployment, &[]).await.process.stop().await;
    let rows = deployment.rows().await;
    empty_store_over(&deployment, &rows).await;

    admin.create_again(&deployment.topic(Topic::Appointments)).await;
    let refused = deployment.failure(1, &["verify"]);
    assert!(refused.contains("re-created or truncated"), "{refused}");
    let mut service = Service::start(&deployment, &[]);
    ended_with(&mut service, "re-created or truncated").await;
}

/// With an empty store, the epochs of the topics must be configured; it then has the same rows.
async fn empty_store_over(deployment: &Deployment, rows: &Rows) {
    let config = deployment.config();
    let (keyspaces, name) = config.store.rsplit_once('/').expect("a keyspace");
    let store = format!("{keyspaces}/{name}_again");
    let settings = vec![
        ("LOG", config.log.clone()),
        ("STORE", store),
        ("TOPICS__PREFIX", config.topics.prefix.clone()),
        ("CASSANDRA__REPLICATION_FACTOR", "1".to_owned()),
    ];
    let mut again = Deployment::with(|_| settings);
    let refused = deployment::stderr(&again.run(&["migrate"]));
    let present = format!("{}.e1", deployment.topic(Topic::Logins));
    assert!(refused.contains("set topics.epochs.logins = 1") && refused.contains(&present), "{refused}");
    again.set("TOPICS__EPOCHS__LOGINS", "1");
    again.output(&["migrate"]);
    Service::ready(&again, &[]).await.process.stop().await;
    assert_same(rows, &again.rows().await);
}
