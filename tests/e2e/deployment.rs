//! Where an instance stores its data: in a directory, or in its own topics and keyspace on the clusters.

use crate::process::PATIENCE;
use crate::services::Services;
use foretell::app;
use foretell::config::{self, Config, Layers};
use foretell_domain::address::{Generation, View};
use foretell_domain::view::cell::Cell;
use foretell_events::{Topic, codec};
use foretell_ports::clock::System;
use foretell_service::ports::Ports;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use uuid::Uuid;

/// Partitions of every topic, so that rows of both deployments can be compared.
pub const PARTITIONS: u32 = 4;

/// More rows than any bucket has here.
const BUCKET_ROWS_MAX: usize = 10_000;

/// Every row of every view: view, bucket, key and source partition, and the state without its pending list.
pub type Rows = BTreeMap<(View, i64, String, u32), Vec<u8>>;

/// Settings, and a directory for everything that its processes write.
pub struct Deployment {
    scratch: tempfile::TempDir,
    settings: Vec<(String, String)>,
    files: AtomicU32,
}

impl Deployment {
    /// An instance in a new directory.
    pub fn disk() -> Self {
        Self::with(|scratch| {
            let url = format!("disk:{}", scratch.join("data").display());
            vec![("LOG", url.clone()), ("STORE", url)]
        })
    }

    /// An instance on the clusters, with topics and a schema created by `migrate`. A killed member is detected soon.
    pub fn cluster() -> Self {
        Self::cluster_of_sessions(3_000)
    }

    /// The same, with groups that remove a silent member after this time.
    pub fn cluster_of_sessions(session_timeout_ms: u32) -> Self {
        Self::migrated(&service("KAFKA_BROKERS"), &service("CASSANDRA_NODES"), 1, session_timeout_ms)
    }

    /// The same on separate services, with a copy of every row on every node.
    pub fn on(services: &Services) -> Self {
        Self::migrated(&services.brokers, &services.nodes, services.nodes.split(',').count(), 3_000)
    }

    fn migrated(brokers: &str, nodes: &str, copies: usize, session_timeout_ms: u32) -> Self {
        let name = format!("e2e{}", Uuid::new_v4().simple());
        let deployment = Self::with(|_| {
            vec![
                ("LOG", format!("kafka://{brokers}")),
                ("STORE", format!("cassandra://{nodes}/{name}")),
                ("TOPICS__PREFIX", format!("{name}.")),
                ("TOPICS__REPLICATION_FACTOR", "1".into()),
                ("TOPICS__MIN_INSYNC_REPLICAS", "1".into()),
                ("CASSANDRA__REPLICATION_FACTOR", copies.to_string()),
                ("KAFKA__SESSION_TIMEOUT_MS", session_timeout_ms.to_string()),
            ]
        });
        let began = Instant::now();
        let mut created = deployment.run(&["migrate"]);
        // Nodes of a new ring answer before they have found each other; migrating again is safe.
        while stderr(&created).contains("Not enough nodes are alive") && began.elapsed() < PATIENCE {
            created = deployment.run(&["migrate"]);
        }
        let lines = stdout(&created);
        assert!(created.status.success(), "{lines}{}", stderr(&created));
        for topic in Topic::ALL {
            assert!(lines.contains(&format!("created topic {name}.{}", topic.name())), "{lines}");
        }
        deployment
    }

    /// An instance with these settings; each key is the end of its environment variable.
    pub fn with(settings: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut settings = settings(scratch.path());
        settings.push(("TOPICS__PARTITIONS", PARTITIONS.to_string()));
        // Tests wait for rows, however busy the machine is.
        settings.push(("HTTP__SCORE_DEADLINE_MS", "20000".into()));
        settings.push(("TOPICS__EMBEDDED_PARTITIONS", PARTITIONS.to_string()));
        // One reminder for each visit and step, whatever else the client has on that day: stories count them.
        settings.push(("REMINDERS__POLICY__GROUP_SAME_DAY", "false".into()));
        settings.push(("REMINDERS__POLICY__CLIENT_DAY_REMINDERS_MAX", "64".into()));
        let steps = "[{id = '72h', before_hours = 72}, {id = '24h', before_hours = 24}]";
        settings.push(("REMINDERS__POLICY__STEPS", steps.into()));
        let settings = settings.into_iter().map(|(key, value)| (format!("FORETELL__{key}"), value)).collect();
        Self { scratch, settings, files: AtomicU32::new(0) }
    }

    /// Changes a setting, for processes that start from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((format!("FORETELL__{key}"), value.to_owned()));
    }

    /// Changes another environment variable.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// The directory for what its processes write; the data of [`Deployment::disk`] is in `data`.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A new path in the scratch directory.
    pub fn scratch_file(&self, name: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        self.scratch().join(format!("{number}-{name}"))
    }

    /// The full name of the topic here.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.config().topics.prefix, topic.name())
    }

    /// The brokers of its log, `host:port,...`; of a log on Kafka.
    pub fn brokers(&self) -> String {
        self.config().log.strip_prefix("kafka://").expect("a log on Kafka").to_owned()
    }

    /// The binary with this deployment's settings and nothing else of the test's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
        let temporary = self.scratch().join("tmp");
        std::fs::create_dir_all(&temporary).expect("a directory");
        command.env_clear().env("HOME", self.scratch()).env("TMPDIR", temporary).current_dir(self.scratch());
        command.envs(self.settings.iter().map(|(key, value)| (key, value))).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// Runs a command that succeeds; returns its output.
    pub fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs a command that fails with this code; returns its messages.
    pub fn failure(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}: messages go to stderr");
        stderr(&output)
    }

    /// The settings as its processes read them.
    pub fn config(&self) -> Config {
        config::load(Layers { environment: self.settings.clone(), ..Layers::default() }).expect("usable settings")
    }

    /// Log and store, opened here; a directory only while no process serves it.
    pub async fn open(&self) -> Ports {
        app::open(&self.config(), Arc::new(System)).await.expect("log and store").ports
    }

    /// Records of a topic that is not written in transactions.
    pub async fn records(&self, topic: Topic) -> i64 {
        let ports = self.open().await;
        let mut records = 0;
        for partition in 0..PARTITIONS {
            records += ports.log.extent(topic, partition).await.expect("an extent").end;
        }
        records
    }

    /// How often each reminder is on the topic, read committed, and the number of partitions of the topic.
    pub async fn reminders(&self) -> (BTreeMap<String, usize>, u32) {
        let log = self.open().await.log;
        let mut reminders = BTreeMap::new();
        for partition in 0..log.partitions(Topic::Reminders) {
            let end = log.extent(Topic::Reminders, partition).await.expect("an extent").end;
            let mut next = 0;
            while next < end {
                let page = log.page(Topic::Reminders, partition, next).await.expect("readable");
                for record in &page.records {
                    *reminders.entry(codec::decode(record).expect("valid").envelope.id).or_default() += 1;
                }
                next = page.next;
            }
        }
        (reminders, log.partitions(Topic::Reminders))
    }

    /// All rows of the serving generations.
    pub async fn rows(&self) -> Rows {
        let store = self.open().await.store;
        let mut rows = Rows::new();
        for view in View::ALL {
            let family = view.family();
            let pointer = store.pointer(family).await.expect("readable").expect("a serving generation");
            let generation = Generation { family, number: pointer.serving, epoch: pointer.epoch };
            for bucket in store.buckets(generation, view).await.expect("readable") {
                let all = store.scan(generation, view, bucket, None, BUCKET_ROWS_MAX).await.expect("readable");
                assert!(all.len() < BUCKET_ROWS_MAX, "the whole of the bucket was read");
                rows.extend(all.into_iter().map(|(key, row)| {
                    let state = Cell::decode(&row.cell).expect("a cell").state.to_vec();
                    ((view, bucket, key, row.source), state)
                }));
            }
        }
        rows
    }
}

/// Asserts that two instances have the same rows; names the first ones that differ.
pub fn assert_same(left: &Rows, right: &Rows) {
    let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(|key| left.get(*key) != right.get(*key)).collect();
    assert!(differing.is_empty(), "{} of {} rows differ: {differing:.3?}", differing.len(), left.len());
}

/// The address of a service from the environment.
pub fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run this under `scripts/services up -k 1 -c 1 -- cargo test --test e2e`")
    })
}

/// The output of a command.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The messages of a command.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}
