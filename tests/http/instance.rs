//! A whole instance: log and store in memory, pipelines, planner and API, listening on a loopback port.

use crate::contract;
use foretell::app::training::TrainingJob;
use foretell_domain::address::Family;
use foretell_domain::view::{Fold, Limits};
use foretell_engine::pipeline::family::Views;
use foretell_engine::pipeline::misplaced::Misplaced;
use foretell_engine::verify::{ScratchStore, Verifier};
use foretell_engine::{pipeline, progress, rows};
use foretell_ports::clock::Clock;
use foretell_ports::store::{Store, memory};
use foretell_service::http::{Api, Config, Parts, router, serve};
use foretell_service::instance::{self, Instance as Composed};
use foretell_service::ports::Ports;
use foretell_service::remind;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// 1 March 2026, 10:00 UTC: the time at which every test begins.
pub(crate) const NOW_MS: i64 = 1_772_359_200_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const PARTITIONS: u32 = 3;
/// Longer than pointers are cached here.
pub(crate) const GRACE_MS: u64 = 200;

/// A clock that only changes when it is set; at a negative time it panics.
pub(crate) struct Manual(AtomicI64);

impl Clock for Manual {
    fn now_ms(&self) -> i64 {
        let now_ms = self.0.load(Ordering::SeqCst);
        assert!(now_ms >= 0, "the clock of this test is broken");
        now_ms
    }
}

impl Manual {
    pub(crate) fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

/// What instances share: a log, a store and a clock.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<Manual>,
    pub(crate) log: Arc<foretell_ports::log::memory::Log>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) misplaced: Arc<Misplaced>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(Manual(AtomicI64::new(NOW_MS)));
        let log = Arc::new(foretell_ports::log::memory::Log::new(|_| PARTITIONS, clock.clone()));
        Self { clock, log, store: Arc::new(memory::Store::new()), misplaced: Arc::default() }
    }

    /// The ports of this world.
    pub(crate) fn ports(&self) -> Ports {
        Ports {
            scratches: Arc::new(|| Ok(ScratchStore { store: Arc::new(memory::Store::new()), place: None })),
            misplaced: self.misplaced.clone(),
            ..Ports::new(self.log.clone(), self.store.clone(), self.clock.clone())
        }
    }

    /// The parts of an instance over this world, with settings for speed.
    pub(crate) fn composed(&self) -> Composed {
        Composed::new(config(), self.ports())
    }

    /// Folds and plans until the token is cancelled.
    pub(crate) async fn views(&self, shutdown: CancellationToken) -> JoinSet<()> {
        let (mut tasks, composed) = (JoinSet::new(), self.composed());
        for family in Family::ALL {
            composed.ensure_pointer(family).await.unwrap();
            let folding = composed.fold(family, composed.tasks(family), shutdown.clone());
            tasks.spawn(async move { folding.await.unwrap() });
        }
        tasks
    }

    /// The fold of a family in this world.
    pub(crate) fn family<F: Fold>(&self, fold: F) -> Views<F> {
        self.composed().views(fold)
    }

    /// A verifier of the rows of a store against the log of this world.
    pub(crate) fn verifier(&self, store: Arc<dyn Store>) -> Verifier {
        Verifier { store, ..self.composed().verifier() }
    }

    /// The parts of an API over this world.
    pub(crate) fn parts(&self) -> Parts {
        let composed = self.composed();
        let Ports { log, store, clock, .. } = self.ports();
        let (config, limits) = (Default::default(), Limits::default());
        let jobs = composed.jobs().with(TrainingJob { log, store, clock, config, limits });
        composed.parts(jobs, None, CancellationToken::new())
    }
}

/// Settings under which nothing waits longer than a test must.
fn config() -> instance::Config {
    let pipeline = pipeline::Config {
        batch_age_ms_max: 1,
        pointer_look_ms: 20,
        generation_grace_ms: GRACE_MS,
        ..pipeline::Config::default()
    };
    instance::Config {
        pipeline,
        reads: rows::Config { pointer_stale_ms_max: 100, ..rows::Config::default() },
        progress: progress::Config { wait_ms: 1, idle_ms: 10 },
        reminders: remind::Config { tick_ms: 5, ..remind::Config::default() },
        http: Config { drain_ms: 2_000, score_deadline_ms: 10_000, ..Config::default() },
        ..instance::Config::default()
    }
}

/// An API that listens, and views if it has any; everything ends when it is dropped.
pub(crate) struct Instance {
    pub(crate) world: World,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: tokio::task::JoinHandle<()>,
    _views: JoinSet<()>,
    client: reqwest::Client,
}

impl Instance {
    /// A whole instance in a new world.
    pub(crate) async fn start() -> Self {
        let world = World::new();
        let parts = world.parts();
        Self::with(world, parts).await
    }

    /// A whole instance with these parts.
    pub(crate) async fn with(world: World, parts: Parts) -> Self {
        let views = world.views(parts.shutdown.clone()).await;
        Self::listen(world, parts, views).await
    }

    /// An API without views, like a process of the role `http`.
    pub(crate) async fn without_views(world: World, parts: Parts) -> Self {
        Self::listen(world, parts, JoinSet::new()).await
    }

    async fn listen(world: World, parts: Parts, views: JoinSet<()>) -> Self {
        let shutdown = parts.shutdown.clone();
        let api = Api::new(parts);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, config, token) = (router(&api), api.config.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { serve(listener, move || router.clone(), &config, token).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { world, address, shutdown, serving, _views: views, client }
    }

    /// The metrics of the process, for all instances in it, as operators see them.
    pub(crate) fn metrics() -> String {
        let prometheus = foretell_telemetry::prometheus().expect("the only recorder");
        prometheus.run_upkeep();
        prometheus.render()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).timeout(Duration::from_secs(30))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    /// Appends events and waits until the views contain them.
    pub(crate) async fn fold(&self, events: &[Value]) -> Answer {
        let request = self.request(Method::POST, "/v1/events").header("prefer", "wait=20");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let answer = Answer::of(request.body(json!(events).to_string()).send().await.unwrap()).await;
        assert_eq!((answer.status, &answer.body["folded"]), (200, &json!(true)), "{}", answer.body);
        answer
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let path = response.url().path().to_owned();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let answer = Self { status, headers, body };
        contract::hold(&path, status, answer.header("content-type"), &answer.body);
        answer
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a problem document, checked for its form.
    pub(crate) fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let code = self.body["code"].as_str().unwrap();
        let kind = format!("urn:foretell:problem:{}", code.to_lowercase().replace('_', "-"));
        assert_eq!(self.body["type"], kind);
        assert_eq!(self.body["status"], self.status);
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        assert_eq!(self.body["trace_id"].as_str().map(str::len), Some(32));
        let is_transient = self.status == 503 || code == "TENANT_OVERLOADED";
        assert_eq!(is_transient, !self.header("retry-after").is_empty());
        (self.status, code)
    }
}

/// A CloudEvent in structured form, at the time at which every test begins.
pub(crate) fn event(id: &str, kind: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "urn:test", "type": format!("foretell.{kind}"),
        "time": "2026-03-01T10:00:00Z", "data": data,
    })
}

pub(crate) fn login(id: &str, user: &str) -> Value {
    event(id, "login.succeeded", json!({"user_id": user, "ip": "198.51.100.7", "device_id": "laptop", "country": "IE"}))
}

pub(crate) fn booked(id: &str, client: &str, appointment: &str, starts_at: &str) -> Value {
    event(
        id,
        "appointment.booked",
        json!({"appointment_id": appointment, "client_id": client, "starts_at": starts_at, "time_zone": "Europe/Dublin"}),
    )
}

/// Waits for a condition that another task fulfils.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition comes true");
}
