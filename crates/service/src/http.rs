//! The HTTP API: facts in, scores and views out.
//!
//! ```text
//!   connection ─► trace, count ─► key, tenant ─► body ────► place ───► time ─► scope ─► handler ─► answer
//!     a place                      401, 400, 403  408, 413   429, 503   503      403
//! ```
//!
//! The route table below is all there is; each route is listed under the scopes that open it. Handlers use the log
//! only to append, and to look at decisions and reminders, and the store only through [`Rows`]. Health is outside of
//! the limits, so that an overloaded process can still say so; metrics have a listener of their own ([`ops`]). Whatever
//! fails is answered with a problem document, panics included.
//!
//! What is absent: quotas for a caller (a gateway's work), TLS (as well), and any write on the public port that is not
//! an event.

pub mod admin;
mod admission;
pub mod agenda;
pub mod answer;
mod aside;
pub mod auth;
pub mod clients;
mod config;
mod cors;
pub mod decisions;
pub mod edge;
mod encoding;
pub mod events;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
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
pub mod tickets;
pub mod users;
mod webhook;
pub mod zeros;

pub use config::Config;
pub use refusals::UNKNOWN as UNKNOWN_KEY;
pub use serve::{RESERVE, listen, serve};

use crate::assess::Assessor;
use crate::decisions::Recorder;
use crate::policies::Policies;
use crate::room::Room;
use answer::Standing;
use aside::Aside;
use auth::{Keys, Scope, Scopes};
use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use foretell_domain::address::Family;
use foretell_domain::score::no_show;
use foretell_domain::view::lookup::{self, Lookup};
use foretell_engine::ingest::Ingest;
use foretell_engine::pipeline::misplaced::Misplaced;
use foretell_engine::progress::Progress;
use foretell_engine::rebuild::Rebuilder;
use foretell_engine::rows::Rows;
use foretell_engine::verify::Verifier;
use foretell_enrich::Enricher;
use foretell_events::Topic;
use foretell_ports::clock::Clock;
use foretell_ports::log::{Backup, Log, Retention};
use foretell_ports::store::Store;
use problem::{Code, Problem};
use refusals::Refusals;
use serde::Serialize;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
pub type BackUp = dyn Fn(&Path, &mut dyn FnMut(u64, u64)) -> Result<Backup, foretell_ports::Error> + Send + Sync;

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
    /// What `/readyz?verbose` also says to operators, as that the store may lose acknowledged writes.
    pub notices: Vec<String>,
    /// What it says of records in wrong partitions.
    pub misplaced: Arc<Misplaced>,
    /// Holds the rows against the log, for operators.
    pub verifier: Verifier,
    /// Folds families anew, for operators.
    pub rebuilder: Rebuilder,
    /// Learns models, for operators.
    pub trainer: Arc<dyn admin::train::Trainer>,
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
    /// Where events go in: over the parts' log, clock and data files.
    ingest: Ingest,
    requests: Arc<Room<1>>,
    /// Answers that need no key: documents.
    documents: Arc<Room<1>>,
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
    /// Looks for decisions in the log.
    looks: Aside,
    /// One place to learn a model in: a history takes as much memory as all else.
    lessons: Arc<Semaphore>,
    /// One change of a policy at a time, and one of each tenant at most in line.
    changes: Aside,
    tail: stream::tail::Shared,
    tickets: tickets::Tickets,
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
        let config = &parts.config;
        let ingest =
            Ingest::new(parts.log.clone(), parts.clock.clone(), parts.enricher.clone(), parts.topic_prefix.clone());
        let shared = |all: usize, tenant: usize| Room::with_share([all as u64], [tenant as u64]);
        Arc::new(Self {
            requests: shared(config.requests_max, config.requests_tenant_max),
            documents: shared(admission::DOCUMENTS_MAX, admission::DOCUMENTS_MAX),
            bodies: Room::with_share([config.bodies_bytes_max], [config.bodies_bytes_max / 2]),
            streams: shared(config.streams_max, config.streams_tenant_max),
            agendas: Aside::new(aside::lanes(config.agendas_max), config.agendas_tenant_max),
            long: Aside::new(aside::lanes(0) + 1, aside::lanes(0)),
            refusals: Refusals::default(),
            is_open_to_browsers: parts.keys.is_none() && guard::is_loopback(&config.listen),
            parts,
            ingest,
            lookups: Room::new([decisions::WAITING_MAX]),
            looks: Aside::new(decisions::LOOKS_MAX, decisions::LOOKS_MAX / 2),
            lessons: Arc::new(Semaphore::new(1)),
            changes: Aside::new(1, 1),
            tail: stream::tail::Shared::default(),
            tickets: tickets::Tickets::new(),
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
        let key = foretell_events::key::of(tenant, subject);
        self.progress.view(family, foretell_events::key::partition(key.as_bytes(), partitions)).into()
    }

    /// The client who has an appointment.
    async fn client_of(&self, tenant: &str, appointment_id: &str) -> Result<String, Problem> {
        // Not from memory: a client that has just booked may look the appointment up by its id.
        let lookup: Lookup =
            self.rows.merged(&lookup::row_key(tenant, appointment_id)).await.map_err(answer::unreadable)?;
        lookup.client_id().map(str::to_owned).ok_or_else(answer::unknown_appointment)
    }

    fn topic_name(&self, topic: Topic) -> String {
        foretell_ports::log::present_name(self.log.as_ref(), &self.topic_prefix, topic)
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
        .routes(routes!(stream::reminders))
        .routes(routes!(tickets::create));
    let logins_or_visits = OpenApiRouter::new()
        .routes(routes!(policies::get))
        .routes(routes!(policies::versions))
        .routes(routes!(decisions::get));
    let publishing = OpenApiRouter::new().routes(routes!(policies::put)).routes(routes!(models::put));
    OpenApiRouter::with_openapi(openapi::base())
        .merge(under(&Scope::APPENDING, appending))
        .merge(under(&[Scope::EventsLogins], devices))
        .merge(under(&[Scope::DecisionsLabel], labels))
        .merge(under(&[Scope::RemindersWrite], reminders))
        .merge(under(&[Scope::RiskRead], scores))
        .merge(under(&[Scope::LoginsRead], logins))
        .merge(under(&[Scope::VisitsRead], visits))
        .merge(under(&[Scope::LoginsRead, Scope::VisitsRead], logins_or_visits))
        .merge(under(&[Scope::PoliciesWrite], publishing))
        .merge(open_routes())
}

/// Routes that need no key: they say nothing about anybody.
fn open_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready))
}

/// Health alone, for a process without the role of answering requests.
pub fn health_router(api: &Arc<Api>) -> Router {
    let (routes, _) = open_routes().split_for_parts();
    finish(api, routes, "this process answers /livez and /readyz alone: it does not have the role http")
}

fn under(scopes: Scopes, routes: OpenApiRouter<Arc<Api>>) -> OpenApiRouter<Arc<Api>> {
    openapi::scoped(scopes, routes).route_layer(Extension(scopes))
}

/// The public API.
pub fn router(api: &Arc<Api>) -> Router {
    let (routes, document) = routes().split_for_parts();
    crate::http::zeros::routes(&document);
    let ui =
        utoipa_swagger_ui::SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", openapi::served().clone());
    // People open the address that a log line names.
    crate::http::zeros::route("/", "GET");
    finish(api, routes.merge(ui).route("/", get(|| async { Redirect::temporary("/docs") })), problem::SEE_DOCS)
}

/// The public API without keys, and what operators may see: for the instance's own socket alone.
pub fn admin_router(api: &Arc<Api>) -> Router {
    let trusted = Api::new(Parts { keys: None, ..api.parts.clone() });
    let (routes, _) = routes().split_for_parts();
    let routes = routes
        .route("/openapi.json", get(|| async { axum::Json(openapi::served()) }))
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
    finish(&trusted, routes, problem::SEE_DOCS)
}

fn finish(api: &Arc<Api>, routes: Router<Arc<Api>>, hint: &'static str) -> Router {
    routes
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed, "see Allow for the methods") })
        .fallback(move || async move { Problem::new(Code::PathNotFound, hint) })
        .layer(DefaultBodyLimit::max(api.config.body_bytes_max))
        .layer(middleware::from_fn_with_state(api.clone(), edge::passed))
        .with_state(api.clone())
}
