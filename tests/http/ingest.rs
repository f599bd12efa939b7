//! Ingestion: every path rejects the same events by the same codes, and appends the same records.
//!
//! The paths are those of callers (structured, binary, a batch) and of operators (a batch that is marked as an import,
//! the command `import` with a running service, and without one on a directory of its own). What Foretell publishes
//! itself is in the tests of `foretell_engine::ingest`.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, World, booked, event, login};
use foretell::config::{self, Config, Layers};
use foretell::ops::access::{Access, RemoteService};
use foretell::ops::import::{ImportTarget, Kind, import};
use foretell_events::codec::{self, rfc3339};
use foretell_events::gate::{self, UNKNOWN_BYTES_MAX};
use foretell_events::record::Record;
use foretell_events::{DEFAULT_TENANT, Topic};
use foretell_lab::source::{self, Origin, SourceFormat};
use foretell_ports::log::Log;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A path by which events reach a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Structured,
    Binary,
    Batch,
    /// A batch with `Foretell-Import`.
    ImportBatch,
    /// The command, through the URL of a service.
    ImportService,
    /// The command, which opens the directory itself.
    ImportDirectory,
}

impl Path {
    const ALL: [Self; 6] =
        [Self::Structured, Self::Binary, Self::Batch, Self::ImportBatch, Self::ImportService, Self::ImportDirectory];

    fn is_of_operator(self) -> bool {
        matches!(self, Self::ImportBatch | Self::ImportService | Self::ImportDirectory)
    }
}

/// A service in memory, and a directory that no service has open.
struct Paths {
    instance: Instance,
    config: Config,
    scratch: TempDir,
}

impl Paths {
    async fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let url = format!("disk:{}", scratch.path().join("data").display());
        let flags = vec![("log", url.clone()), ("store", url), ("topics.embedded_partitions", "1".to_owned())];
        let config = config::load(Layers { flags, ..Layers::default() }).unwrap();
        let world = World::new();
        let parts = world.parts();
        Self { instance: Instance::without_views(world, parts).await, config, scratch }
    }

    /// Sends an event for a tenant; answers the codes by which it was rejected, none where it was appended.
    async fn send(&self, path: Path, tenant: &str, event: &Value) -> Vec<String> {
        let post = || self.instance.request(Method::POST, "/v1/events").header("foretell-tenant", tenant);
        let batch =
            |body: Value| post().header("content-type", "application/cloudevents-batch+json").body(body.to_string());
        let remote = || RemoteService { url: Some(format!("http://{}", self.instance.address)), key: None };
        match path {
            Path::Structured => {
                let request = post().header("content-type", "application/cloudevents+json");
                answered(request.body(event.to_string())).await
            }
            Path::Binary => answered(binary(post(), event)).await,
            Path::Batch => answered(batch(json!([event]))).await,
            Path::ImportBatch => answered(batch(json!([event])).header("foretell-import", "true")).await,
            Path::ImportService => self.import(&Access::remote(remote()).unwrap(), tenant, event).await,
            Path::ImportDirectory => {
                let clock = self.instance.world.clock.clone();
                let access = Access::find(&self.config, RemoteService::default(), clock).await.unwrap();
                self.import(&access, tenant, event).await
            }
        }
    }

    async fn import(&self, access: &Access, tenant: &str, event: &Value) -> Vec<String> {
        let origin = Origin { file: "events.jsonl", tenant };
        let loaded = match source::read_from(event.to_string().as_bytes(), origin, SourceFormat::Events) {
            Ok(loaded) => loaded,
            Err(error) => return codes(&error.to_string()),
        };
        let journals = TempDir::new_in(&self.scratch).unwrap();
        let target = ImportTarget {
            access,
            name: "here".into(),
            journals: PathBuf::from(journals.path()),
            tenant: Some(tenant),
            now_ms: NOW_MS,
        };
        let imported = import(&loaded, Kind::Logins, &target, &mut |_| {}).await;
        imported.err().map(|error| codes(&error.to_string())).unwrap_or_default()
    }

    /// All logins behind a path.
    async fn records(&self, path: Path) -> Vec<Record> {
        let clock = self.instance.world.clock.clone();
        let opened = match path {
            Path::ImportDirectory => Some(foretell::app::open(&self.config, clock).await.unwrap()),
            _ => None,
        };
        let log: &dyn Log = match &opened {
            Some(backends) => backends.ports.log.as_ref(),
            None => self.instance.world.log.as_ref(),
        };
        let mut records = Vec::new();
        for topic in [Topic::Logins, Topic::Appointments, Topic::Reminders, Topic::Policies] {
            for partition in 0..log.partitions(topic) {
                records.extend(log.page(topic, partition, 0).await.unwrap().records);
            }
        }
        records
    }
}

/// An event in binary mode.
fn binary(request: RequestBuilder, event: &Value) -> RequestBuilder {
    let attributes = event.as_object().unwrap().iter().filter(|(name, _)| *name != "data");
    let request = attributes
        .fold(request, |request, (name, value)| request.header(format!("ce-{name}"), value.as_str().unwrap()));
    request.header("content-type", "application/json").body(event["data"].to_string())
}

/// The codes of a problem; none of an answer that accepts.
async fn answered(request: RequestBuilder) -> Vec<String> {
    let answer = Answer::of(request.send().await.unwrap()).await;
    if answer.status == 202 {
        return Vec::new();
    }
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{}", answer.body);
    let errors = answer.body["errors"].as_array().unwrap();
    errors.iter().map(|error| error["code"].as_str().unwrap().to_owned()).collect()
}

/// The codes in an error of the command.
fn codes(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    let is_code = |word: &&str| codec::CODES.contains(word) || gate::CODES.contains(word);
    words.filter(is_code).map(str::to_owned).collect()
}

fn with(pointer: &str, value: Value) -> Value {
    let mut event = login("e", "u");
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[name] = value;
    event
}

type Codes = &'static [&'static str];

/// A bad event, the codes that callers get, and those that operators get.
fn bad() -> Vec<(&'static str, Value, Codes, Codes)> {
    let same = |name: &'static str, event: Value, codes: Codes| (name, event, codes, codes);
    let reminder = json!({"reminder_id": "r", "appointment_id": "a", "client_id": "c", "reason": "cancelled"});
    let policy = json!({"policy": "login", "version": 1, "document": {}});
    let mut two = with("/tenant", json!("other"));
    two["time"] = json!(rfc3339(NOW_MS + HOUR_MS));
    vec![
        same("another tenant", with("/tenant", json!("other")), &["TENANT_MISMATCH"]),
        same("no tenant's name", with("/tenant", json!("Acme")), &["INVALID_VALUE"]),
        same("an unknown type", with("/type", json!("foretell.login.vanished")), &["UNKNOWN_TYPE"]),
        same("the planner's type", event("e", "reminder.withdrawn", reminder), &["NOT_ACCEPTED"]),
        same("the type of a policy", event("e", "policy.published", policy), &["NOT_ACCEPTED"]),
        same("the future", with("/time", json!(rfc3339(NOW_MS + HOUR_MS))), &["TIME_IN_FUTURE"]),
        same("no country", with("/data/country", json!("QQ")), &["INVALID_VALUE"]),
        same("too large a field", with("/data/user_id", json!("x".repeat(513))), &["TOO_LONG"]),
        same("too large an id", with("/id", json!("x".repeat(513))), &["TOO_LONG"]),
        same("no field", with("/data/ip", Value::Null), &["MISSING_FIELD"]),
        same("a bad attribute", with("/trace-id", json!("1")), &["INVALID_NAME"]),
        same("two faults", two, &["TENANT_MISMATCH", "TIME_IN_FUTURE"]),
        ("a source of Foretell", with("/source", json!(gate::API_SOURCE)), &["RESERVED_SOURCE"], &[]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_rejects_the_same_events_by_the_same_codes() {
    let paths = Paths::new().await;
    for path in Path::ALL {
        for (name, event, of_caller, of_operator) in bad() {
            let before = paths.records(path).await.len();
            let found = paths.send(path, DEFAULT_TENANT, &event).await;
            let wanted = if path.is_of_operator() { of_operator } else { of_caller };
            assert_eq!(found, wanted, "{name}, {path:?}");
            let appended = paths.records(path).await.len() - before;
            assert_eq!(appended, usize::from(wanted.is_empty()), "{name}, {path:?}");
        }
    }
}

/// History has old times, and fields that Foretell does not know.
#[tokio::test(flavor = "multi_thread")]
async fn every_path_appends_the_same_record() {
    let paths = Paths::new().await;
    let mut old = with("/time", json!("2009-02-13T23:31:30Z"));
    old["data"]["note"] = json!({"kept": true});
    old["data"]["large"] = json!("x".repeat(2 * UNKNOWN_BYTES_MAX));
    old["data"]["user_agent"] = json!("a".repeat(60_000));
    old["partner"] = json!("north");
    let mut seen: Vec<(Path, Record)> = Vec::new();
    for path in Path::ALL {
        assert_eq!(paths.send(path, "acme", &old).await, Vec::<String>::new(), "{path:?}");
        let records = paths.records(path).await;
        let newest = records.into_iter().max_by_key(|record| record.position.offset).unwrap();
        seen.push((path, newest));
    }
    let headers = |record: &Record| {
        // A request has a trace of its own, a command has none.
        record.headers.iter().filter(|(name, _)| name != "traceparent").cloned().collect::<Vec<_>>()
    };
    let (_, first) = &seen[0];
    let data: Value = serde_json::from_slice(&first.value).unwrap();
    assert_eq!((&data["note"]["kept"], data.get("large")), (&json!(true), None));
    assert!(first.bytes() < 2 * UNKNOWN_BYTES_MAX, "{} bytes", first.bytes());
    for (path, record) in &seen {
        assert_eq!((&record.key, headers(record)), (&first.key, headers(first)), "{path:?}");
        assert_eq!(serde_json::from_slice::<Value>(&record.value).unwrap(), data, "{path:?}");
    }
}

/// A file is of one topic; a caller may send events of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_rejected_whole_for_an_event_of_another_topic() {
    let paths = Paths::new().await;
    let visit = booked("e", "c", "a", "2026-03-30T09:00:00");
    for path in Path::ALL {
        let before = paths.records(path).await.len();
        let found = paths.send(path, DEFAULT_TENANT, &visit).await;
        let is_file = matches!(path, Path::ImportService | Path::ImportDirectory);
        assert_eq!(found, if is_file { vec!["NOT_ACCEPTED"] } else { vec![] }, "{path:?}");
        assert_eq!(paths.records(path).await.len() - before, usize::from(!is_file), "{path:?}");
    }
}

/// More than a record of the log may have is rejected before it is read.
#[tokio::test(flavor = "multi_thread")]
async fn no_path_reads_an_event_that_is_larger_than_a_record() {
    let paths = Paths::new().await;
    let large = with("/data/unknown", json!("x".repeat(1024 * 1024)));
    for (path, media_type) in [(Path::Structured, "cloudevents"), (Path::Batch, "cloudevents-batch")] {
        let body = if path == Path::Batch { json!([large]) } else { large.clone() };
        let request = paths.instance.request(Method::POST, "/v1/events").body(body.to_string());
        let request = request.header("content-type", format!("application/{media_type}+json"));
        assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (413, "BODY_TOO_LARGE"), "{path:?}");
    }
    let read = source::read_from(large.to_string().as_bytes(), Origin::default(), SourceFormat::Events);
    assert!(read.unwrap_err().to_string().contains("longer than 1048576 bytes"));
    assert!(paths.records(Path::Batch).await.is_empty());
}
