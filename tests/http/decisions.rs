//! Decisions: kept, looked up, reported, and lost without an effect on scores.

use crate::gated::{Gated, Held};
use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, PARTITIONS, World, booked, event, login, until};
use async_trait::async_trait;
use foretell_domain::decision::id::Id;
use foretell_domain::view::user::User;
use foretell_events::catalog::DECISION;
use foretell_events::login::LoginFact;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Fact, Position, Topic, codec};
use foretell_ports::Error;
use foretell_ports::log::{self, Extent, Fenced, Log, Membership, Page, Reader};
use foretell_service::decisions::{Config, Recorder};
use foretell_service::http::Parts;
use foretell_service::ports::Ports;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const DAY_MS: i64 = 24 * HOUR_MS;

fn attempt() -> Value {
    json!({
        "user_id": "u", "ip": "198.51.100.7", "device_id": "laptop", "country": "IE", "asn": 64500,
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0",
        "occurred_at": "2026-03-01T09:59:00Z", "latitude": 53.3, "longitude": -6.2, "rtt_ms": 12.5,
    })
}

async fn as_tenant(instance: &Instance, method: Method, path: &str, tenant: &str, body: &Value) -> Answer {
    let request = instance.request(method, path).header("foretell-tenant", tenant).json(body);
    Answer::of(request.send().await.unwrap()).await
}

fn records(world: &World, topic: Topic) -> Vec<Record> {
    (0..PARTITIONS).flat_map(|partition| world.log.records(topic, partition).unwrap()).collect()
}

#[tokio::test]
async fn every_score_is_kept_as_it_was_answered_and_found_by_its_id() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u"), booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    let considered = json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00", "time_zone": "Europe/Dublin"});
    let considered = instance.post("/v1/risk/appointments", &considered).await.body;
    let named = instance.post("/v1/risk/appointments", &json!({"appointment_id": "a"})).await.body;
    let booked = instance.get("/v1/risk/appointments/a").await.body;
    let schema: Value = serde_json::from_str(DECISION.schema).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    for (answer, subject) in [(&scored, "u"), (&considered, "c"), (&named, "c"), (&booked, "c")] {
        let id = answer["id"].as_str().unwrap();
        let found = instance.get(&format!("/v1/decisions/{id}")).await;
        assert_eq!(found.status, 200, "{}", found.body);
        for (field, value) in answer.as_object().unwrap() {
            assert_eq!(&found.body[field], value, "{field}");
        }
        let problems: Vec<_> = schema.iter_errors(&found.body).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:?}: {}", found.body);
        let kept = records(&instance.world, Topic::Decisions);
        let kept: Vec<_> = kept.iter().filter(|r| r.header("ce_id") == Some(id.as_bytes())).collect();
        let [record] = kept.as_slice() else { panic!("{} records of {id}", kept.len()) };
        assert_eq!(record.key.as_deref(), Some(format!("default:{subject}").as_bytes()));
        assert_eq!(record.header("ce_type"), Some(DECISION.name.as_bytes()));
        assert_eq!(record.header("ce_tenant"), Some(b"default".as_slice()));
        assert!(record.header("traceparent").is_some());
        let structured = codec::structured(record).unwrap();
        assert_eq!((&structured["data"], &structured["subject"]), (&found.body, &json!(subject)));
        let id = Id::parse(id).unwrap();
        assert_eq!((id.at_ms(), id.partitions(PARTITIONS).collect()), (NOW_MS, vec![record.position.partition]));
    }
    let found = instance.get(&format!("/v1/decisions/{}", scored["id"].as_str().unwrap())).await.body;
    let mut expected = attempt();
    expected.as_object_mut().unwrap().remove("user_id");
    expected["occurred_at"] = json!("2026-03-01T09:59:00.000Z");
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&found["attempt"][field], value, "{field}");
    }
    let found = instance.get(&format!("/v1/decisions/{}", booked["id"].as_str().unwrap())).await.body;
    assert_eq!(found["visit"], json!({"lead_days": 28, "starts_at": "2026-03-29T08:30:00.000Z"}));
}

#[tokio::test]
async fn decisions_of_others_older_ones_and_invented_ones_are_unknown() {
    let instance = Instance::start().await;
    let ours = as_tenant(&instance, Method::POST, "/v1/risk/logins", "acme", &attempt()).await.body;
    let path = format!("/v1/decisions/{}", ours["id"].as_str().unwrap());
    let get = async |tenant| as_tenant(&instance, Method::GET, &path, tenant, &Value::Null).await;
    assert_eq!(get("acme").await.status, 200);
    // Long enough ago that no look-up waits for it.
    instance.world.clock.set(NOW_MS + 20_000);
    // A tenant whose name is the prefix of another's is a different tenant.
    for tenant in ["default", "acm", "acme-2"] {
        assert_eq!(get(tenant).await.problem(), (404, "DECISION_NOT_FOUND"), "{tenant}");
        let feedback = json!({"decision_id": ours["id"], "label": "fraud"});
        let answer = as_tenant(&instance, Method::POST, "/v1/feedback", tenant, &feedback).await;
        assert_eq!(answer.problem(), (404, "DECISION_NOT_FOUND"), "{tenant}");
    }
    let invented = (0..PARTITIONS).map(|partition| Id::new(NOW_MS - 20_000, partition, 7).to_string());
    let elsewhere = Id::new(NOW_MS, PARTITIONS, 7).to_string();
    for id in invented.chain([elsewhere, "936da01f-9abd-4d9d-80c7-02af85c822a8".into(), "x".into()]) {
        assert_eq!(instance.get(&format!("/v1/decisions/{id}")).await.problem(), (404, "DECISION_NOT_FOUND"), "{id}");
    }
    instance.world.clock.set(NOW_MS + 90 * DAY_MS);
    assert_eq!(get("acme").await.status, 200, "to the day");
    instance.world.clock.set(NOW_MS + 90 * DAY_MS + 1);
    assert_eq!(get("acme").await.problem(), (404, "DECISION_NOT_FOUND"), "the log has it, and it is not kept");
}

#[tokio::test]
async fn a_key_learns_nothing_of_decisions_that_it_may_not_read() {
    let world = World::new();
    let mut parts = world.parts();
    let key = |(name, scope): (&str, &str)| {
        let hash = foretell_service::http::auth::hash(name);
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ntenant = \"acme\"\nscopes = [\"{scope}\"]\n")
    };
    let keys = [("scores", "risk:read"), ("logins", "logins:read"), ("visits", "visits:read")].map(key).concat();
    parts.keys = Some(foretell_service::http::auth::Keys::parse(&keys).unwrap());
    let instance = Instance::with(world, parts).await;
    let attempt = json!({"user_id": "u", "ip": "198.51.100.7"});
    let request = instance.request(Method::POST, "/v1/risk/logins").bearer_auth("scores");
    let score = Answer::of(request.json(&attempt).send().await.unwrap()).await;
    let real = score.body["id"].as_str().unwrap().to_owned();
    let invented = Id::new(NOW_MS - HOUR_MS, 0, 7).to_string();
    let get = async |id: &str, key: &str| {
        let request = instance.request(Method::GET, &format!("/v1/decisions/{id}")).bearer_auth(key);
        let answer = Answer::of(request.send().await.unwrap()).await;
        (answer.status, answer.body["code"].clone(), answer.body["detail"].clone())
    };
    assert_eq!(get(&real, "logins").await.0, 200);
    assert_eq!(get(&real, "visits").await, get(&invented, "visits").await);
    assert_eq!(get(&real, "visits").await.0, 404);
}

#[tokio::test]
async fn a_decision_is_found_among_many_and_next_to_holes() {
    let instance = Instance::start().await;
    let mut ids = Vec::new();
    for n in 0..60 {
        for user in ["u", "v", "w"] {
            let attempt = json!({"user_id": user, "ip": "198.51.100.7"});
            ids.push(instance.post("/v1/risk/logins", &attempt).await.body["id"].as_str().unwrap().to_owned());
        }
        // All of it is in the log before the clock moves: timestamps are the log's.
        until(async || records(&instance.world, Topic::Decisions).len() == ids.len()).await;
        (0..PARTITIONS).for_each(|partition| instance.world.log.skip(Topic::Decisions, partition, 3).unwrap());
        instance.world.clock.set(NOW_MS + n * 15_000);
    }
    for partition in 0..PARTITIONS {
        let end = instance.world.log.extent(Topic::Decisions, partition).await.unwrap().end;
        instance.world.log.forget(Topic::Decisions, partition, end / 3).unwrap();
    }
    let left: Vec<_> = records(&instance.world, Topic::Decisions);
    let left = |id: &str| left.iter().any(|record| record.header("ce_id") == Some(id.as_bytes()));
    assert!(ids.iter().filter(|id| left(id)).count() > 100);
    for id in &ids {
        let found = instance.get(&format!("/v1/decisions/{id}")).await;
        assert_eq!(found.status, if left(id) { 200 } else { 404 }, "{id}");
    }
}

#[tokio::test]
async fn feedback_appends_the_label_with_the_fields_of_the_attempt() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    let send = async |label: &str| {
        let feedback = json!({"decision_id": scored["id"], "label": label, "reported_by": "support"});
        let request = instance.request(Method::POST, "/v1/feedback").header("prefer", "wait=20").json(&feedback);
        Answer::of(request.send().await.unwrap()).await
    };
    let answer = send("fraud").await;
    assert_eq!((answer.status, &answer.body["folded"]), (200, &json!(true)), "{}", answer.body);
    assert_eq!(answer.body["outcomes"], json!(["applied"]));
    assert_eq!(answer.body["positions"][0]["topic"], "foretell.logins");
    // The list of recent events may differ.
    let row = |user: User| User { recent: Default::default(), ..user };
    let rows = Rows::new(&instance);
    let once = rows.user("u").await.map(row);
    let again = send("fraud").await;
    assert_eq!((again.status, &again.body["outcomes"]), (200, &json!(["skipped"])));
    let events: Vec<_> = records(&instance.world, Topic::Logins).iter().map(|r| codec::decode(r).unwrap()).collect();
    let verdicts: Vec<_> = events[1..].iter().collect();
    assert_eq!(verdicts.len(), 2);
    for event in &verdicts {
        let Fact::Login(LoginFact::Reported(verdict)) = &event.fact else { panic!("{event:?}") };
        assert_eq!((verdict.user_id.as_str(), Some(verdict.decision_id.as_str())), ("u", scored["id"].as_str()));
        assert_eq!(verdict.reported_by.as_deref(), Some("support"));
        assert_eq!(verdict.ip.map(|ip| ip.to_string()).as_deref(), Some("198.51.100.7"));
        assert_eq!((verdict.device_id.as_deref(), verdict.country.as_deref()), (Some("laptop"), Some("IE")));
        assert_eq!((verdict.asn, verdict.user_agent.as_deref()), (Some(64500), attempt()["user_agent"].as_str()));
    }
    assert_ne!(verdicts[0].envelope.id, verdicts[1].envelope.id, "each request is a fact of its own");
    assert_eq!(rows.user("u").await.map(row), once, "and changes nothing");
    let confirmed = send("legitimate").await;
    assert_eq!(confirmed.status, 200);
    let last = records(&instance.world, Topic::Logins).pop().map(|record| codec::decode(&record).unwrap()).unwrap();
    assert!(
        matches!(&last.fact, Fact::Login(LoginFact::Confirmed(verdict)) if verdict.device_id.as_deref() == Some("laptop"))
    );
    assert_ne!(last.envelope.id, verdicts[0].envelope.id);
    let plain = json!({"decision_id": scored["id"], "label": "fraud"});
    assert_eq!(instance.post("/v1/feedback", &plain).await.status, 202);
}

/// The stored rows, as pipelines wrote them.
struct Rows(foretell_engine::rows::Rows);

impl Rows {
    fn new(instance: &Instance) -> Self {
        let (config, limits) = (foretell_engine::rows::Config::default(), foretell_domain::view::Limits::default());
        Self(foretell_engine::rows::Rows::cached(instance.world.store.clone(), &config, &limits))
    }

    async fn user(&self, user: &str) -> Option<User> {
        self.0.user("default", user).await.unwrap()
    }
}

#[tokio::test]
async fn feedback_to_a_visit_is_refused() {
    let instance = Instance::start().await;
    let visit = json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00Z"});
    let scored = instance.post("/v1/risk/appointments", &visit).await.body;
    let answer = instance.post("/v1/feedback", &json!({"decision_id": scored["id"], "label": "fraud"})).await;
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"));
    assert_eq!(answer.body["errors"][0]["pointer"], "/decision_id");
    assert_eq!(answer.body["errors"][0]["code"], "NOT_A_LOGIN");
    assert!(records(&instance.world, Topic::Logins).is_empty());
}

#[tokio::test]
async fn decisions_are_only_written_by_the_service() {
    let instance = Instance::start().await;
    let example = include_str!("../../catalog/examples/foretell.decision.made/login.json");
    let request = instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let answer = Answer::of(request.body(example).send().await.unwrap()).await;
    assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"));
    assert_eq!(answer.body["errors"][0]["code"], "UNKNOWN_TYPE");
    assert_eq!(answer.body["errors"][0]["detail"], "only Foretell writes foretell.decision.made");
}

/// The value of a counter, selected by the content of its line.
fn counted(words: &[&str]) -> u64 {
    let text = Instance::metrics();
    let line = text.lines().find(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_score_is_answered_when_its_decision_finds_no_room() {
    let world = World::new();
    let parts = world.parts();
    let log = Gated::new(&world, Held::Decisions, 0);
    let config = Config { queue_records_max: 8, queue_wait_ms_max: 5, ..Config::default() };
    let decisions = Recorder::start(log.clone(), &config);
    let instance = Instance::without_views(world.clone(), Parts { decisions: decisions.clone(), ..parts }).await;
    let full = [foretell_telemetry::DECISIONS_LOST, "full"];
    let before = counted(&full);
    for _ in 0..30 {
        assert_eq!(instance.post("/v1/risk/logins", &attempt()).await.status, 200);
    }
    // One tenant gets half of the queue, and keeps it until the log has accepted its content.
    let lost = counted(&full) - before;
    assert_eq!(lost, 30 - 4);
    log.gate.add_permits(100);
    decisions.drain().await;
    assert_eq!(records(&world, Topic::Decisions).len() as u64, 30 - lost, "what had room is kept");
    assert_eq!(instance.post("/v1/risk/logins", &attempt()).await.status, 200, "and after its end nothing is");
    assert_eq!(records(&world, Topic::Decisions).len() as u64, 30 - lost);
}

#[tokio::test]
async fn what_takes_more_bytes_than_the_queue_has_is_lost() {
    let world = World::new();
    let parts = world.parts();
    let decisions = Recorder::start(world.log.clone(), &Config { queue_bytes_max: 100, ..Config::default() });
    let instance = Instance::without_views(world.clone(), Parts { decisions: decisions.clone(), ..parts }).await;
    assert_eq!(instance.post("/v1/risk/logins", &attempt()).await.status, 200);
    decisions.drain().await;
    assert!(records(&world, Topic::Decisions).is_empty());
}

async fn recorded(recorder: &Recorder, tenant: &str, user: &str) {
    use foretell_domain::decision::record::{AnswerJson, DecisionRecord, ScoreInput, ScoredVisit};
    let id = recorder.id(tenant, user, NOW_MS);
    let (attempt, answer) =
        (ScoreInput::Visit(ScoredVisit { lead_days: 1, starts_at_ms: 0 }), AnswerJson::of(&json!({"id": id})));
    recorder
        .record(&DecisionRecord { id: &id, tenant, subject: user, at_ms: NOW_MS, input: attempt, answer: &answer })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_comes_back_gets_what_waited_and_one_that_does_not_loses_it() {
    let world = World::new();
    let log = Gated::new(&world, Held::Decisions, 100);
    log.away.store(true, Ordering::SeqCst);
    let recorder = Recorder::start(log.clone(), &Config::default());
    for n in 0..10 {
        recorded(&recorder, "t", &format!("early {n}")).await;
    }
    tokio::time::sleep(Duration::from_secs(50)).await;
    recorded(&recorder, "t", "late").await;
    assert!(records(&world, Topic::Decisions).is_empty());
    log.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(records(&world, Topic::Decisions).len(), 11, "patiently, and in one go");
    log.away.store(true, Ordering::SeqCst);
    for n in 0..10 {
        recorded(&recorder, "t", &format!("lost {n}")).await;
    }
    tokio::time::sleep(Duration::from_secs(70)).await;
    log.away.store(false, Ordering::SeqCst);
    recorded(&recorder, "t", "after").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = records(&world, Topic::Decisions);
    assert_eq!(kept.len(), 12, "what had waited for a minute is dropped");
    assert!(kept.iter().any(|record| record.key.as_deref() == Some(b"t:after")));
}

#[tokio::test(start_paused = true)]
async fn a_drain_has_an_end() {
    let world = World::new();
    let recorder = Recorder::start(Gated::new(&world, Held::Decisions, 0), &Config::default());
    for n in 0..10 {
        recorded(&recorder, "t", &n.to_string()).await;
    }
    let begun = tokio::time::Instant::now();
    recorder.drain().await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert!(records(&world, Topic::Decisions).is_empty());
    let recorder = Recorder::start(world.log.clone(), &Config::default());
    for n in 0..9_000 {
        recorded(&recorder, "t", &n.to_string()).await;
    }
    recorder.drain().await;
    assert_eq!(records(&world, Topic::Decisions).len(), 9_000, "several batches");
}

#[tokio::test]
async fn decisions_that_cannot_be_read_are_reported_as_unavailable() {
    let world = World::new();
    let parts = world.parts();
    let instance = Instance::without_views(
        world.clone(),
        Parts { ports: Ports { log: Arc::new(Unreadable(world.log.clone())), ..world.ports() }, ..parts },
    )
    .await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    let path = format!("/v1/decisions/{}", scored["id"].as_str().unwrap());
    assert_eq!(instance.get(&path).await.problem(), (503, "DECISIONS_UNAVAILABLE"));
}

/// A log that cannot be read.
struct Unreadable(Arc<log::memory::Log>);

#[async_trait]
impl Log for Unreadable {
    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.0.append(records).await
    }

    async fn extent(&self, _: Topic, _: u32) -> Result<Extent, Error> {
        Err(Error::retry("ask for an extent", "away"))
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.0.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.0.read(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        self.0.fence(topic, partition).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_load_of_one_tenant_does_not_drop_the_decisions_of_another() {
    let world = World::new();
    let log = Gated::new(&world, Held::Decisions, 0);
    let config = Config { queue_records_max: 100, queue_wait_ms_max: 50, ..Config::default() };
    let recorder = Recorder::start(log.clone(), &config);
    // The log accepts nothing for now, and one tenant scores more than the queue holds.
    for n in 0..60 {
        recorded(&recorder, "busy", &n.to_string()).await;
    }
    let begun = tokio::time::Instant::now();
    for n in 0..20 {
        recorded(&recorder, "quiet", &n.to_string()).await;
    }
    assert!(begun.elapsed().is_zero(), "room is there at once");
    log.gate.add_permits(100);
    recorder.drain().await;
    let of = |tenant: &str| {
        let all = records(&world, Topic::Decisions);
        all.iter().filter(|record| record.key.as_deref().unwrap().starts_with(tenant.as_bytes())).count()
    };
    assert_eq!((of("quiet:"), of("busy:")), (20, 50));
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_for_room_while_the_log_takes_records_and_not_while_it_is_away() {
    let world = World::new();
    let log = Gated::new(&world, Held::Decisions, 0);
    let config = Config { queue_records_max: 2, queue_wait_ms_max: 500, ..Config::default() };
    let recorder = Recorder::start(log.clone(), &config);
    recorded(&recorder, "t", "first").await;
    let opened = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        log.gate.add_permits(100);
    };
    tokio::join!(recorded(&recorder, "t", "second"), opened);
    recorded(&recorder, "t", "third").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(records(&world, Topic::Decisions).len(), 3);
    log.away.store(true, Ordering::SeqCst);
    recorded(&recorder, "t", "kept for later").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = tokio::time::Instant::now();
    recorded(&recorder, "t", "lost").await;
    assert!(begun.elapsed().is_zero(), "nothing becomes free while the log is away");
    log.away.store(false, Ordering::SeqCst);
    recorder.drain().await;
    assert_eq!(records(&world, Topic::Decisions).len(), 4);
}

#[tokio::test]
async fn an_erased_subject_has_no_decisions_and_feedback_writes_nothing() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u"), booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let of_login = instance.post("/v1/risk/logins", &attempt()).await.body["id"].clone();
    let of_visit = instance.get("/v1/risk/appointments/a").await.body["id"].clone();
    let path = |id: &Value| format!("/v1/decisions/{}", id.as_str().unwrap());
    assert_eq!(instance.get(&path(&of_login)).await.status, 200);
    assert_eq!(instance.get(&path(&of_visit)).await.status, 200);
    let erased =
        [event("x", "user.erased", json!({"user_id": "u"})), event("y", "client.erased", json!({"client_id": "c"}))];
    assert_eq!(instance.fold(&erased).await.body["outcomes"], json!(["applied", "applied"]));
    for id in [&of_login, &of_visit] {
        assert_eq!(instance.get(&path(id)).await.problem(), (404, "DECISION_NOT_FOUND"));
        let feedback = json!({"decision_id": id, "label": "fraud"});
        assert_eq!(instance.post("/v1/feedback", &feedback).await.problem(), (404, "DECISION_NOT_FOUND"));
    }
    assert_eq!(records(&instance.world, Topic::Logins).len(), 2, "the login and its erasure");
    // After the log has recovered, decisions are recorded again.
    instance.world.clock.set(NOW_MS + 1_000);
    let again = instance.post("/v1/risk/logins", &attempt()).await.body["id"].clone();
    assert_eq!(instance.get(&path(&again)).await.status, 200);
}

#[tokio::test]
async fn a_label_that_returns_holds_again() {
    let instance = Instance::start().await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    let mut followed = login("e", "u");
    followed["data"]["decision_id"] = scored["id"].clone();
    instance.fold(&[followed]).await;
    let rows = Rows::new(&instance);
    for (label, outcome, seen) in [
        ("fraud", "applied", (0, 1, 0)),
        ("fraud", "skipped", (0, 1, 0)),
        ("legitimate", "applied", (1, 0, 1)),
        ("fraud", "applied", (0, 1, 0)),
        ("legitimate", "applied", (1, 0, 1)),
        ("legitimate", "skipped", (1, 0, 1)),
    ] {
        let feedback = json!({"decision_id": scored["id"], "label": label});
        let request = instance.request(Method::POST, "/v1/feedback").header("prefer", "wait=20").json(&feedback);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!((answer.status, &answer.body["outcomes"]), (200, &json!([outcome])), "{label}");
        let user = rows.user("u").await.unwrap();
        assert_eq!((user.successes, user.reported, user.confirmed), seen, "{label}");
    }
}

/// With predictable ids, a caller could send an event first and make the report a repetition of it.
#[tokio::test]
async fn a_report_cannot_be_made_void_by_taking_its_id() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    for kind in ["login.failed", "login.reported"] {
        let data = json!({"user_id": "u", "ip": "198.51.100.7", "decision_id": "another"});
        let mut forged = event(&format!("{}:fraud", scored["id"].as_str().unwrap()), kind, data);
        forged["source"] = json!("urn:foretell:api");
        let request =
            instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
        // Whether it is accepted does not matter here.
        request.body(forged.to_string()).send().await.unwrap();
    }
    let feedback = json!({"decision_id": scored["id"], "label": "fraud"});
    let request = instance.request(Method::POST, "/v1/feedback").header("prefer", "wait=20").json(&feedback);
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!((answer.status, &answer.body["outcomes"]), (200, &json!(["applied"])), "{}", answer.body);
    assert!(Rows::new(&instance).user("u").await.unwrap().reported > 0);
}

#[tokio::test]
async fn a_request_under_an_idempotency_key_is_one_request() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u"), login("f", "v")]).await;
    let scored = instance.post("/v1/risk/logins", &attempt()).await.body;
    let send = async |method: Method, path: &str, key: &str, wait: &str, body: Option<Value>| {
        let request = instance.request(method, path).header("prefer", wait);
        let request = if key.is_empty() { request } else { request.header("idempotency-key", key) };
        let request = body.iter().fold(request, |request, body| request.json(body));
        Answer::of(request.send().await.unwrap()).await
    };
    let label = async |key: &str, label: &str| {
        let body = json!({"decision_id": scored["id"], "label": label});
        send(Method::POST, "/v1/feedback", key, "wait=20", Some(body)).await
    };
    let appended = || records(&instance.world, Topic::Logins).len();
    let first = label("one", "fraud").await;
    assert_eq!((first.status, &first.body["outcomes"]), (200, &json!(["applied"])), "{}", first.body);
    assert_eq!(label("", "legitimate").await.body["outcomes"], json!(["applied"]));
    let before = appended();
    let again = label("one", "fraud").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body), "the same answer, whatever came since");
    assert_eq!(label("one", "legitimate").await.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
    let (laptop, phone) = ("/v1/users/u/devices/laptop", "/v1/users/u/devices/phone");
    assert_eq!(send(Method::PUT, laptop, "one", "", None).await.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(appended(), before, "none of it is appended");
    assert_eq!(Rows::new(&instance).user("u").await.unwrap().reported, 0);

    let trusted = send(Method::PUT, laptop, "two", "", None).await;
    assert_eq!((trusted.status, &trusted.body["folded"]), (202, &Value::Null), "{}", trusted.body);
    assert_eq!(send(Method::DELETE, laptop, "", "wait=20", None).await.body["outcomes"], json!(["applied"]));
    let again = send(Method::PUT, laptop, "two", "wait=20", None).await;
    assert_eq!((again.status, &again.body["positions"]), (200, &trusted.body["positions"]));
    assert_eq!(send(Method::DELETE, laptop, "two", "", None).await.problem().1, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(send(Method::PUT, phone, "two", "", None).await.problem().1, "IDEMPOTENCY_KEY_REUSED");
    let device = Rows::new(&instance).user("u").await.unwrap().devices["laptop"].clone();
    assert!(!device.trusted && device.revoked_at_ms.is_some(), "the revocation in between holds");
    // Trusted again without the key, it is trusted again.
    assert_eq!(send(Method::PUT, laptop, "", "wait=20", None).await.body["outcomes"], json!(["applied"]));
    assert!(Rows::new(&instance).user("u").await.unwrap().devices["laptop"].trusted);
    // The key belongs to the user: another one may use the same.
    assert_eq!(send(Method::PUT, "/v1/users/v/devices/laptop", "two", "", None).await.status, 202);
    for key in ["", &"x".repeat(513), "é"] {
        let request = instance.request(Method::PUT, laptop).header("idempotency-key", key.as_bytes());
        assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (400, "MALFORMED_REQUEST"), "{key}");
    }
}

/// Of concurrent requests with one key, the first one counts, for all of them.
#[tokio::test]
async fn requests_under_one_key_at_once_are_one_request_across_processes() {
    let world = World::new();
    let instances = [
        Instance::with(world.clone(), world.parts()).await,
        Instance::without_views(world.clone(), world.parts()).await,
    ];
    let send = |n: usize| {
        let (method, instance) = (if n % 4 < 2 { Method::PUT } else { Method::DELETE }, &instances[n % 2]);
        let request = instance.request(method, "/v1/users/u/devices/d").header("idempotency-key", "k");
        async move { Answer::of(request.send().await.unwrap()).await }
    };
    let answers = futures::future::join_all((0..12).map(send)).await;
    let rows = Rows::new(&instances[0]);
    let first = rows.user("u").await.unwrap().devices["d"].trusted;
    for (n, answer) in answers.iter().enumerate() {
        let expected = if (n % 4 < 2) == first { 202 } else { 422 };
        assert_eq!(answer.status, expected, "{n}: {}", answer.body);
    }
    let taken: Vec<_> = answers.iter().filter(|answer| answer.status == 202).map(|answer| &answer.body).collect();
    assert!(!taken.is_empty() && taken.windows(2).all(|pair| pair[0] == pair[1]), "{taken:?}");
}

#[tokio::test]
async fn made_up_ids_of_the_present_wait_for_the_log_and_only_some_at_once() {
    let world = World::new();
    let parts = world.parts();
    let looked = Arc::new(Looked {
        log: world.log.clone(),
        pages: AtomicUsize::new(0),
        reading: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let ports = Ports { log: looked.clone(), ..world.ports() };
    let instance = Instance::with(world, Parts { ports, ..parts }).await;
    for n in 0..50 {
        let attempt = json!({"user_id": format!("u{n}"), "ip": "198.51.100.7"});
        assert_eq!(instance.post("/v1/risk/logins", &attempt).await.status, 200);
    }
    until(async || records(&instance.world, Topic::Decisions).len() == 50).await;
    let made_up = |n: u64| format!("/v1/decisions/{}", Id::new(NOW_MS, n as u32 % PARTITIONS, 1_000 + n));
    let old = |n: u64| format!("/v1/decisions/{}", Id::new(NOW_MS - HOUR_MS, n as u32 % PARTITIONS, n));
    let answers = futures::future::join_all((0..40).map(|n| {
        let (instance, path) = (&instance, old(n));
        async move { instance.get(&path).await }
    }));
    assert!(answers.await.iter().all(|answer| answer.status == 404), "they wait in line");
    let most = looked.most.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} look-ups of one tenant read the log at once");
    looked.pages.store(0, Ordering::SeqCst);
    assert_eq!(instance.get(&made_up(0)).await.problem(), (404, "DECISION_NOT_FOUND"));
    let once = looked.pages.load(Ordering::SeqCst);
    assert!(once <= 12, "{once} pages: the log is read once while nothing comes");
    let answers = futures::future::join_all((0..40).map(|n| {
        let (instance, path) = (&instance, made_up(n));
        async move { instance.get(&path).await }
    }));
    let statuses: Vec<_> = answers.await.iter().map(|answer| answer.problem().0).collect();
    let waited = statuses.iter().filter(|status| **status == 404).count();
    assert_eq!((waited, statuses.len() - waited), (8, 32), "a tenant alone gets half of the places");
    // A decision in flight arrives, however many look-ups wait.
    let attempt = json!({"user_id": "u", "ip": "198.51.100.7"});
    let id = instance.post("/v1/risk/logins", &attempt).await.body["id"].as_str().unwrap().to_owned();
    assert_eq!(instance.get(&format!("/v1/decisions/{id}")).await.status, 200);
}

/// A log that counts the pages of decisions that are read, and how many are read concurrently.
struct Looked {
    log: Arc<log::memory::Log>,
    pages: AtomicUsize,
    reading: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Log for Looked {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.log.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        self.log.extent(topic, partition).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.log.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.log.read(topic, partition, from).await
    }

    async fn page(&self, topic: Topic, partition: u32, from: i64) -> Result<Page, Error> {
        if topic != Topic::Decisions {
            return self.log.page(topic, partition, from).await;
        }
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.reading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Other readers have time to begin.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let page = self.log.page(topic, partition, from).await;
        self.reading.fetch_sub(1, Ordering::SeqCst);
        page
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        self.log.fence(topic, partition).await
    }
}
