//! The subscribers of `examples/`, as processes: killed while they print and started again, they print every reminder,
//! and continue where they were.

use crate::deployment::{Deployment, PARTITIONS};
use crate::facts;
use crate::process::{PATIENCE, Process, Service, free_port, until};
use foretell_events::Topic;
use foretell_events::codec::rfc3339;
use futures::future::join_all;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Visits with a manual reminder while the subscriber is down; every fifth is cancelled.
const PORTION: usize = 60;
/// How often the subscriber is killed while it prints.
const KILLS: usize = 4;

#[allow(clippy::disallowed_methods, reason = "events are dated relative to now")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// The program of an example, built with the same profile as this test.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        // target/PROFILE/deps/e2e-HASH
        let own = std::env::current_exe().expect("a path");
        let profile = own.ancestors().nth(2).expect("a test is in target/PROFILE/deps").to_owned();
        let target = profile.parent().expect("target").to_owned();
        let name = match profile.file_name().and_then(|name| name.to_str()).expect("a name") {
            "debug" => "dev".to_owned(),
            other => other.to_owned(),
        };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--examples", "--profile", &name, "--target-dir"]).arg(target);
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(built.success(), "the examples are built: {built}");
        profile.join("examples")
    });
    built.join(name)
}

/// Books visits for the day after tomorrow, and requests a reminder of each; cancels every fifth.
async fn announce(service: &Service, visits: Range<usize>) {
    let about = |n: usize| json!({"appointment_id": format!("visit-{n}"), "client_id": format!("client-{}", n % 7)});
    let booked = visits.clone().map(|n| {
        let mut data = about(n);
        data["starts_at"] = json!(rfc3339(now_ms() + 60 * 3_600_000));
        facts::event(&format!("booked-{n}"), "appointment.booked", now_ms(), &data)
    });
    service.fold(&booked.collect::<Vec<_>>()).await;
    let requests = visits.clone().map(|n| async move {
        let answer = service.post(&format!("/v1/appointments/visit-{n}/reminders"), &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    });
    join_all(requests).await;
    for n in visits.clone() {
        until("the reminder is announced", async || reminded(service, n, "sent").await).await;
    }
    let off: Vec<_> = visits.filter(|n| n % 5 == 0).collect();
    let cancelled = |n: &usize| facts::event(&format!("off-{n}"), "appointment.cancelled", now_ms(), &about(*n));
    service.fold(&off.iter().map(cancelled).collect::<Vec<_>>()).await;
    for n in off {
        until("the reminder is withdrawn", async || reminded(service, n, "withdrawn").await).await;
    }
}

async fn reminded(service: &Service, n: usize, status: &str) -> Option<()> {
    let story = service.get(&format!("/v1/appointments/visit-{n}")).await;
    let reminders = story.body["reminders"].as_array()?;
    reminders.iter().any(|reminder| reminder["step"] == "manual" && reminder["status"] == status).then_some(())
}

/// Events of this many visits: a reminder each, and a withdrawal of every fifth.
fn events(visits: usize) -> usize {
    visits + visits.div_ceil(5)
}

/// A subscriber, and the output of all its processes.
struct Subscriber<'a> {
    deployment: &'a Deployment,
    state: PathBuf,
    arguments: Vec<String>,
    program: PathBuf,
    printed: Vec<String>,
}

impl<'a> Subscriber<'a> {
    fn new(deployment: &'a Deployment, name: &str, arguments: &[&str]) -> Self {
        let state = deployment.scratch_file("state");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { deployment, state, arguments, program: example(name), printed: Vec::new() }
    }

    fn start(&self) -> Process {
        let mut command = Command::new(&self.program);
        command.env_clear().args(&self.arguments).arg(&self.state);
        Process::start(self.deployment, command)
    }

    /// Waits until a process has printed this many lines, without a pause in which it could get far ahead.
    async fn prints(&self, process: &mut Process, lines: usize) {
        let wait = async {
            while process.stdout().lines().count() < lines {
                assert_eq!(process.ended(), None, "it ended: {}", process.stderr());
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it prints");
    }

    /// Kills a process as a power loss would, and keeps its output; returns the number of its lines.
    fn kill(&mut self, mut process: Process) -> usize {
        process.kill();
        let text = process.stdout();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        self.printed.extend(lines.iter().cloned());
        lines.len()
    }

    /// The printed events, by id, and how often.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in &self.printed {
            *counts.entry(event_id(line)).or_default() += 1;
        }
        counts
    }

    /// Waits until a process has printed the reminder of a visit.
    async fn prints_visit(&self, process: &mut Process, n: usize) {
        let words = format!(" visit-{n} ");
        until("the reminder is printed", async || {
            assert_eq!(process.ended(), None, "it ended: {}", process.stderr());
            process.stdout().contains(&words).then_some(())
        })
        .await;
    }

    /// Kills it repeatedly while it prints what was announced during its absence; then lets it print the rest.
    async fn is_killed_and_goes_on(&mut self, service: &Service) {
        let mut cut = 0;
        for round in 0..KILLS {
            announce(service, round * PORTION..(round + 1) * PORTION).await;
            let mut process = self.start();
            self.prints(&mut process, 1).await;
            self.kill(process);
            cut += usize::from(self.counts().len() < events((round + 1) * PORTION));
        }
        assert!(cut > 0, "at least one of {KILLS} was killed in the middle");
        let mut process = self.start();
        announce(service, KILLS * PORTION..KILLS * PORTION + 5).await;
        let all = events(KILLS * PORTION + 5);
        let before: BTreeSet<_> = self.counts().into_keys().collect();
        until("none is missing", async || {
            assert_eq!(process.ended(), None, "it ended: {}", process.stderr());
            let now: BTreeSet<_> = process.stdout().lines().map(event_id).collect();
            (before.union(&now).count() >= all).then_some(())
        })
        .await;
        self.kill(process);
        let counts = self.counts();
        assert_eq!(counts.len(), all, "each is there: none is lost");
        let repeated = self.printed.len() - counts.len();
        assert!(repeated <= KILLS, "{repeated} lines were printed twice; a kill costs one at most");
    }
}

/// The event id in a line.
fn event_id(line: &str) -> String {
    let mut words = line.split(' ');
    let (kind, id) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match kind {
        "due" => id.to_owned(),
        "withdrawn" => format!("{id}-withdrawn"),
        _ => panic!("{line}"),
    }
}

/// Without its memory of ids it continues at its committed offsets: it prints only new events, and the one that it may
/// have printed just when it was killed.
async fn goes_on_without_ids(subscriber: &mut Subscriber<'_>, service: &Service) {
    std::fs::remove_file(subscriber.state.join("seen")).expect("a file of ids");
    announce(service, 1_001..1_002).await;
    let mut process = subscriber.start();
    subscriber.prints_visit(&mut process, 1_001).await;
    let lines = subscriber.kill(process);
    assert!((1..=2).contains(&lines), "{lines} lines, of {} in all", subscriber.printed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_subscriber_is_killed_and_prints_every_reminder() {
    let deployment = Deployment::cluster();
    let service = Service::ready(&deployment, &[]).await;
    let (brokers, topic) = (deployment.brokers(), deployment.topic(Topic::Reminders));
    let group = format!("{topic}.sender");
    let mut subscriber = Subscriber::new(&deployment, "kafka_subscriber", &[&brokers, &topic, &group]);
    subscriber.is_killed_and_goes_on(&service).await;
    // It commits after printing the line.
    let process = subscriber.start();
    committed(&deployment, &group).await;
    subscriber.kill(process);
    goes_on_without_ids(&mut subscriber, &service).await;
    let (announced, _) = deployment.reminders().await;
    assert!(announced.values().all(|times| *times == 1), "{announced:?}");
    assert_eq!(
        subscriber.counts().into_keys().collect::<BTreeSet<_>>(),
        announced.into_keys().collect(),
        "what is on the topic, and nothing else"
    );
}

/// Waits until a group has committed everything.
async fn committed(deployment: &Deployment, group: &str) {
    let log = deployment.open().await.log;
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let end = log.extent(Topic::Reminders, partition).await.expect("an extent").end;
        let mut next = 0;
        while next < end {
            let page = log.page(Topic::Reminders, partition, next).await.expect("readable");
            let last = page.records.last().map(|record| record.position.offset);
            ends.extend(last.map(|last| (partition as i32, Offset::Offset(last + 1))));
            next = page.next;
        }
    }
    let (brokers, topic, group) = (deployment.brokers(), deployment.topic(Topic::Reminders), group.to_owned());
    let asking = tokio::task::spawn_blocking(move || {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", brokers).set("group.id", group);
        let consumer: BaseConsumer = settings.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in ends.keys() {
            all.add_partition(&topic, *partition);
        }
        loop {
            let found = consumer.committed_offsets(all.clone(), Duration::from_secs(20)).expect("an answer");
            if found.elements().iter().all(|element| ends.get(&element.partition()) == Some(&element.offset())) {
                return;
            }
        }
    });
    tokio::time::timeout(PATIENCE, asking).await.expect("it commits").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sse_subscriber_is_killed_and_prints_every_reminder() {
    let deployment = Deployment::disk();
    let port = free_port();
    let mut service = Service::at(&deployment, port, &[]);
    service.until_ready().await;
    let url = service.url.clone();
    let mut subscriber = Subscriber::new(&deployment, "sse_subscriber", &[&url]);
    subscriber.is_killed_and_goes_on(&service).await;
    goes_on_without_ids(&mut subscriber, &service).await;
    // The service ends as well, and comes back at the same address: the subscriber reconnects by itself.
    let mut process = subscriber.start();
    announce(&service, 1_002..1_003).await;
    subscriber.prints_visit(&mut process, 1_002).await;
    service.process.kill();
    let mut service = Service::at(&deployment, port, &[]);
    service.until_ready().await;
    announce(&service, 1_003..1_004).await;
    subscriber.prints_visit(&mut process, 1_003).await;
    subscriber.kill(process);
    // Without its cursor it starts over, and recognises by their ids what it has printed.
    std::fs::remove_file(subscriber.state.join("cursor")).expect("a cursor");
    let known = std::fs::read_to_string(subscriber.state.join("seen")).expect("a file of ids");
    let known: BTreeSet<_> = known.lines().map(str::to_owned).collect();
    assert!(known.len() >= 2, "{known:?}");
    let mut process = subscriber.start();
    announce(&service, 1_004..1_005).await;
    subscriber.prints_visit(&mut process, 1_004).await;
    let again: BTreeSet<_> = process.stdout().lines().map(event_id).collect();
    assert_eq!(again.intersection(&known).count(), 0, "none that it has remembered");
    assert!(again.len() > PORTION, "and all others");
    subscriber.kill(process);
    service.process.stop().await;
    let (announced, _) = deployment.reminders().await;
    assert!(announced.values().all(|times| *times == 1), "{announced:?}");
    assert_eq!(
        subscriber.counts().into_keys().collect::<BTreeSet<_>>(),
        announced.into_keys().collect(),
        "what is on the topic, and nothing else"
    );
}
