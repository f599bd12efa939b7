//! The HTTP API: facts in, scores and views out.
//!
//! ```text
//!   connection ─► trace, count ─► key, tenant ─► body ────► place ───► time ─► scope ─► handler ─► answer
//!     a place                      401, 400, 403  408, 413   429, 503   503      403
//! ```
//!
//! The route table below is all there is; the scope that a route needs stands beside it. Handlers touch the log only
//! to append, and to look at decisions and reminders, and the store only through [`Rows`]. Health stands outside of the limits, so that an
//! overloaded process can still say so; metrics have a listener of their own ([`ops`]). Whatever fails is answered with a problem document, panics included.
//!
//! What is absent: quotas a caller (a gateway's work), TLS (as well), and any write on the public port that is not an event.

pub mod admin;
mod admission;
pub mod agenda;
pub mod answer;
mod aside;
pub mod auth;
pub mod clients;
pub mod decisions;
mod edge;
mod encoding;
pub mod events;
pub(crate) mod fuzz;
mod guard;
pub mod health;
mod idempotency;
pub mod models;
pub mod openapi;
pub mod ops;
pub mod policies;
mod precondition;
pub mod problem;
mod query;
mod refusals;
pub mod reminders;
mod request;
pub mod risk;
pub mod serve;
pub mod stream;
pub mod users;
mod webhook;

pub use serve::{RESERVE, listen, serve};

use crate::assess::Assessor;
use crate::clock::Clock;
use crate::decisions::Recorder;
use crate::enrich::Enricher;
use crate::event::Topic;
use crate::log::{Backup, Log, Retention};
use crate::policies::Policies;
use crate::progress::Progress;
use crate::rebuild::Rebuilder;
use crate::room::Room;
use crate::rows::Rows;
use crate::score::no_show;
use crate::store::{Family, Store};
use crate::telemetry;
use crate::verify::Verifier;
use answer::Standing;
use aside::Aside;
use auth::{Keys, Scope, Scopes};
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use problem::{Code, Problem};
use refusals::Refusals;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use crate::event::gate::API_SOURCE as SOURCE;

/// Limits of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: String,
    /// TOML file of API keys; without one everybody who can connect may do everything.
    pub api_keys_file: Option<std::path::PathBuf>,
    /// Requests answered at once, each from when its body is there; further ones are answered 503.
    pub requests_max: usize,
    /// Of these, those of one tenant; further ones are answered 429.
    pub requests_tenant_max: usize,
    /// Open connections; a further one takes the place of the one that is quiet longest, if any is.
    pub connections_max: usize,
    /// Open connections of one peer: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_peer_max: usize,
    /// Open streams of reminders; further ones are answered 503.
    pub streams_max: usize,
    /// Of these, those of one tenant; further ones are answered 429.
    pub streams_tenant_max: usize,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time until the whole body of a request is received, in milliseconds; then 408.
    pub body_ms_max: u64,
    /// Bodies held at once, in bytes, of which a tenant may hold half; beyond, 503 and 429.
    pub bodies_bytes_max: u64,
    /// Longest time from a whole request until the head of its answer, in milliseconds; then 503.
    pub request_ms_max: u64,
    /// Longest time from the begin of a connection until the first head of a request is received, in milliseconds; then
    /// the connection is closed.
    pub head_ms_max: u64,
    /// Longest time from an answer until the next head of a request is received, in milliseconds; then the connection
    /// is closed.
    pub idle_ms_max: u64,
    /// Longest time that a part of an answer waits for its reader, in milliseconds; then the connection is closed, or
    /// the stream of HTTP/2 reset.
    pub write_ms_max: u64,
    /// Longest `Prefer: wait`, in milliseconds; longer ones are cut. Below `request_ms_max`.
    pub wait_ms_max: u64,
    /// How long a request for a reminder waits for its own fold, in milliseconds.
    pub fold_wait_ms_max: u64,
    /// How long a score may wait for its rows, in milliseconds; then it is answered from those that are there.
    pub score_deadline_ms: u64,
    /// Agendas computed at once, beside the workers; further ones wait. 0: half as many as there are processors.
    pub agendas_max: usize,
    /// Of these, those of one tenant.
    pub agendas_tenant_max: usize,
    /// Visits that one answer of the agenda may look at; a window that holds more is answered 422.
    pub agenda_visits_max: usize,
    /// Between two comments that keep a quiet stream open, in milliseconds.
    pub stream_keep_alive_ms: u64,
    /// How long open requests may go on after shutdown began, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            api_keys_file: None,
            requests_max: 512,
            requests_tenant_max: 256,
            connections_max: 4_096,
            connections_peer_max: 2_048,
            streams_max: 64,
            streams_tenant_max: 16,
            body_bytes_max: 1024 * 1024,
            body_ms_max: 5_000,
            bodies_bytes_max: 64 * 1024 * 1024,
            request_ms_max: 35_000,
            head_ms_max: 10_000,
            idle_ms_max: 75_000,
            write_ms_max: 30_000,
            wait_ms_max: 30_000,
            fold_wait_ms_max: 5_000,
            score_deadline_ms: 50,
            agendas_max: 0,
            agendas_tenant_max: 1,
            agenda_visits_max: 20_000,
            stream_keep_alive_ms: 15_000,
            drain_ms: 10_000,
        }
    }
}

impl Config {
    /// The same for a listener of operators: few connections, and readers that may pause for long, as a command whose
    /// output somebody pages through.
    #[must_use]
    pub fn for_operators(&self) -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1_000;
        Self { connections_max: 64, connections_peer_max: 64, write_ms_max: HOUR_MS, ..self.clone() }
    }
}

/// How visits are scored.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// The model's settings.
    pub no_show: no_show::Config,
    /// Digest of the settings: the version of their policy.
    pub no_show_version: String,
    /// IANA zone of visits that are considered without one.
    pub time_zone_default: String,
}

impl Scoring {
    /// Scores by these settings; equal settings have equal versions.
    pub fn new(no_show: no_show::Config, time_zone_default: String) -> Self {
        let no_show_version = version(&no_show);
        Self { no_show, no_show_version, time_zone_default }
    }
}

fn version(settings: &impl Serialize) -> String {
    let text = serde_json::to_string(settings).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// Copies the embedded log and what belongs to it into a directory, and tells how many bytes it has copied, of how
/// many. Blocks.
pub type BackUp = dyn Fn(&Path, &mut dyn FnMut(u64, u64)) -> Result<Backup, crate::port::Error> + Send + Sync;

/// What the API is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where events are appended, and where the stream reads.
    pub log: Arc<dyn Log>,
    /// Where checkpoints are, for operators.
    pub store: Arc<dyn Store>,
    /// The views; the same that `progress` was started with.
    pub rows: Arc<Rows>,
    /// How far they are.
    pub progress: Arc<Progress>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Who may ask; none: everybody.
    pub keys: Option<Keys>,
    /// What is known of addresses.
    pub enricher: Arc<Enricher>,
    /// What tenants have decided.
    pub policies: Policies,
    /// Scores visits.
    pub assessor: Arc<Assessor>,
    /// How visits are scored.
    pub scoring: Scoring,
    /// Keeps the scores that are given.
    pub decisions: Recorder,
    /// How long they can be looked up.
    pub retention: Retention,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
    /// What `/readyz?verbose` tells operators besides, as that the store may lose acknowledged writes.
    pub notices: Vec<String>,
    /// Holds the rows against the log, for operators.
    pub verifier: Verifier,
    /// Folds families anew, for operators.
    pub rebuilder: Rebuilder,
    /// Backs the log up, for operators; none where it is not embedded.
    pub back_up: Option<Arc<BackUp>>,
    /// Cancelled when the process drains: streams end, readiness ends.
    pub shutdown: CancellationToken,
    /// Limits.
    pub config: Config,
}

/// What handlers share: the parts, and what is open at the moment.
pub struct Api {
    parts: Parts,
    requests: Arc<Room<1>>,
    bodies: Arc<Room<1>>,
    streams: Arc<Room<1>>,
    agendas: Aside,
    /// Long batches, and scores by policies that take long.
    long: Aside,
    refusals: Refusals,
    /// There are no keys, and who can connect is on this machine, as the pages of a browser are.
    is_open_to_browsers: bool,
    /// Look-ups of decisions that are on their way.
    lookups: Arc<Room<1>>,
    /// One place to learn a model in: a history takes as much memory as all else.
    lessons: Arc<Semaphore>,
    policy_turn: Mutex<()>,
    tail: stream::tail::Shared,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Api {
    /// An API over these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        metrics::counter!(telemetry::HTTP_LONG_POLLS, telemetry::ROUTE => "none").increment(0);
        let config = &parts.config;
        let shared = |all: usize, tenant: usize| Room::with_share([all as u64], [tenant as u64]);
        Arc::new(Self {
            requests: shared(config.requests_max, config.requests_tenant_max),
            bodies: Room::with_share([config.bodies_bytes_max], [config.bodies_bytes_max / 2]),
            streams: shared(config.streams_max, config.streams_tenant_max),
            agendas: Aside::new(aside::lanes(config.agendas_max), config.agendas_tenant_max),
            long: Aside::new(aside::lanes(0) + 1, aside::lanes(0)),
            refusals: Refusals::default(),
            is_open_to_browsers: parts.keys.is_none() && guard::is_loopback(&config.listen),
            parts,
            lookups: Room::new([decisions::WAITING_MAX]),
            lessons: Arc::new(Semaphore::new(1)),
            policy_turn: Mutex::new(()),
            tail: stream::tail::Shared::default(),
        })
    }

    /// Tells operators of refused requests that were not told at once, until shutdown.
    pub async fn tell_refusals(self: Arc<Self>) {
        const LOOK: Duration = Duration::from_secs(5);
        while tokio::time::timeout(LOOK, self.shutdown.cancelled()).await.is_err() {
            self.refusals.tell_due();
        }
        self.refusals.tell_due();
    }

    /// How far the partition of a subject is folded. To be asked before its rows are read.
    fn standing(&self, family: Family, tenant: &str, subject: &str) -> Standing {
        let partitions = self.log.partitions(family.topic());
        let key = crate::event::key::of(tenant, subject);
        self.progress.view(family, crate::event::key::partition(key.as_bytes(), partitions)).into()
    }

    /// The client who has an appointment.
    async fn client_of(&self, tenant: &str, appointment_id: &str) -> Result<String, Problem> {
        let lookup = self.rows.lookup(tenant, appointment_id).await.map_err(answer::unreadable)?;
        lookup.client_id().map(str::to_owned).ok_or_else(answer::unknown_appointment)
    }

    fn topic_name(&self, topic: Topic) -> String {
        crate::log::present_name(self.log.as_ref(), &self.topic_prefix, topic)
    }
}

/// Every route that is documented, under the scopes that open it.
fn routes() -> OpenApiRouter<Arc<Api>> {
    let appending = OpenApiRouter::new().routes(routes!(events::post, webhook::consent));
    let devices = OpenApiRouter::new().routes(routes!(users::trust, users::revoke));
    let labels = OpenApiRouter::new().routes(routes!(decisions::feedback));
    let reminders = OpenApiRouter::new().routes(routes!(reminders::request));
    let scores = OpenApiRouter::new()
        .routes(routes!(risk::login))
        .routes(routes!(risk::visits::appointment))
        .routes(routes!(risk::visits::booked_appointment));
    let logins = OpenApiRouter::new().routes(routes!(users::get));
    let visits = OpenApiRouter::new()
        .routes(routes!(clients::client))
        .routes(routes!(clients::appointment))
        .routes(routes!(agenda::list))
        .routes(routes!(models::get))
        .routes(routes!(models::versions))
        .routes(routes!(stream::reminders));
    let logins_or_visits = OpenApiRouter::new()
        .routes(routes!(policies::get))
        .routes(routes!(policies::versions))
        .routes(routes!(decisions::get));
    let publishing = OpenApiRouter::new().routes(routes!(policies::put)).routes(routes!(models::put));
    let routes = OpenApiRouter::with_openapi(openapi::base())
        .merge(under(&Scope::APPENDING, appending))
        .merge(under(&[Scope::EventsLogins], devices))
        .merge(under(&[Scope::DecisionsLabel], labels))
        .merge(under(&[Scope::RemindersWrite], reminders))
        .merge(under(&[Scope::RiskRead], scores))
        .merge(under(&[Scope::LoginsRead], logins))
        .merge(under(&[Scope::VisitsRead], visits))
        .merge(under(&[Scope::LoginsRead, Scope::VisitsRead], logins_or_visits))
        .merge(under(&[Scope::PoliciesWrite], publishing))
        .merge(open_routes());
    openapi::with_bounds(openapi::without_null_bodies(routes))
}

/// Routes that need no key: they say nothing about anybody.
fn open_routes() -> OpenApiRouter<Arc<Api>> {
    let routes = OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready));
    routes.route_layer(middleware::from_fn(query::checked))
}

/// Health alone, for a process without the role of answering requests.
pub fn health_router(api: &Arc<Api>) -> Router {
    let (routes, _) = open_routes().split_for_parts();
    finish(api, routes)
}

fn under(scopes: Scopes, routes: OpenApiRouter<Arc<Api>>) -> OpenApiRouter<Arc<Api>> {
    openapi::scoped(scopes, routes).route_layer(Extension(scopes))
}

/// The public API.
pub fn router(api: &Arc<Api>) -> Router {
    let (routes, document) = routes().split_for_parts();
    let ui = utoipa_swagger_ui::SwaggerUi::new("/docs").url("/openapi.json", document);
    finish(api, routes.merge(ui))
}

/// The public API without keys, and what operators may see: for the instance's own socket alone.
pub fn admin_router(api: &Arc<Api>) -> Router {
    let trusted = Api::new(Parts { keys: None, ..api.parts.clone() });
    let (routes, document) = routes().split_for_parts();
    let routes = routes
        .route("/openapi.json", get(move || async move { axum::Json(document) }))
        .route("/admin/topics", get(admin::topics))
        .route("/admin/positions", get(admin::positions))
        .route("/admin/rows/{view}", get(admin::row))
        .route("/admin/verify", get(admin::verify))
        .route("/admin/rebuild", post(admin::rebuild))
        .route("/admin/backup", post(admin::back_up))
        .route("/admin/report/decisions", get(admin::report::decisions))
        .route("/admin/report/no-show", get(admin::report::no_show))
        .route("/admin/train/no-show", post(admin::train::no_show))
        .route("/admin/dead-letters", post(admin::dead_letters::work))
        .route("/admin/dead-letters/{partition}/{offset}", get(admin::dead_letters::show));
    finish(&trusted, routes)
}

fn finish(api: &Arc<Api>, routes: Router<Arc<Api>>) -> Router {
    routes
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed, "see Allow for the methods") })
        .fallback(|| async { Problem::new(Code::PathNotFound, "see /openapi.json for the paths") })
        .layer(DefaultBodyLimit::max(api.config.body_bytes_max))
        .layer(middleware::from_fn_with_state(api.clone(), edge::passed))
        .with_state(api.clone())
}
