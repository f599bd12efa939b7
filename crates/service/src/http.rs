//! The HTTP API: facts in, scores and views out.
//!
//! ```text
//!   connection ─► trace, count ─► key, tenant ─► body ────► slot ────► time ─► scope ─► handler ─► answer
//!     a slot                       401, 400, 403  408, 413   429, 503   503      403
//! ```
//!
//! The route table below is complete; each route is listed under the scopes that permit it. Handlers use the log only
//! to append, and to read decisions and reminders, and use the store only through [`Rows`]. Health is not subject to
//! the limits, so that an overloaded process can still report it; metrics have a listener of their own ([`ops`]). Every
//! failure is answered with a problem document, panics included.
//!
//! Not supported: quotas per caller and TLS, which are the job of a gateway, and any write on the public port that is
//! not an event.

pub mod admin;
mod admission;
pub mod agenda;
pub mod answer;
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
mod lanes;
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
mod zeros;

pub use config::Config;
pub use serve::{RESERVE, listen, serve};

use crate::assess::Assessor;
use crate::decisions::Recorder;
use crate::limiter::Limiter;
use crate::policies::Policies;
use crate::ports::Ports;
use answer::ViewPosition;
use auth::{Keys, Scope, Scopes};
use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use foretell_domain::address::Family;
use foretell_domain::score::no_show;
use foretell_domain::view::lookup::{self, Lookup};
use foretell_engine::ingest::Ingest;
use foretell_engine::jobs::Jobs;
use foretell_engine::progress::Progress;
use foretell_engine::rows::Rows;
use foretell_events::Topic;
use foretell_ports::log::Retention;
use lanes::Lanes;
use problem::{Problem, ProblemCode};
use refusals::Refusals;
use serde::Serialize;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
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
    /// IANA zone of considered visits that do not state one.
    pub time_zone_default: String,
}

impl Scoring {
    /// Scoring with these settings; equal settings have equal versions.
    pub fn new(no_show: no_show::Config, time_zone_default: String) -> Self {
        let no_show_version = version(&no_show);
        Self { no_show, no_show_version, time_zone_default }
    }
}

fn version(settings: &impl Serialize) -> String {
    let text = serde_json::to_string(settings).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// The components that the API uses.
#[derive(Clone)]
pub struct Parts {
    /// Log, store, clock and data files.
    pub ports: Ports,
    /// The views; the same instance that `progress` was started with.
    pub rows: Arc<Rows>,
    /// How far the views are folded.
    pub progress: Arc<Progress>,
    /// The API keys; none: every caller may do everything.
    pub keys: Option<Keys>,
    /// The policies that tenants have published.
    pub policies: Policies,
    /// Scores visits.
    pub assessor: Arc<Assessor>,
    /// How visits are scored.
    pub scoring: Scoring,
    /// Keeps decision records.
    pub decisions: Recorder,
    /// How long decision records can be looked up.
    pub retention: Retention,
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
    /// Long-running work for operators.
    pub jobs: Jobs,
    /// Cancelled when the process drains: streams end, and it is no longer ready.
    pub shutdown: CancellationToken,
    /// Limits.
    pub config: Config,
}

/// The state that handlers share: the components, and what is in progress.
pub struct Api {
    parts: Parts,
    /// Appends events, with the log, clock and data files of the components.
    ingest: Ingest,
    requests: Arc<Limiter<1>>,
    /// Slots for answers that need no key: documents.
    documents: Arc<Limiter<1>>,
    bodies: Arc<Limiter<1>>,
    streams: Arc<Limiter<1>>,
    agenda_lanes: Lanes,
    /// For large batches, and for scores by policies that take long.
    slow_lanes: Lanes,
    refusals: Refusals,
    /// There are no keys, and only programs on this machine can connect, which includes pages in its browsers.
    is_open_to_browsers: bool,
    /// Look-ups of decisions in progress.
    lookups: Arc<Limiter<1>>,
    /// Searches the log for decisions.
    lookup_lanes: Lanes,
    /// One change of a policy at a time; of each tenant, at most one waits for that.
    policy_lanes: Lanes,
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
    /// An API over these components.
    pub fn new(parts: Parts) -> Arc<Self> {
        let config = &parts.config;
        let Ports { log, clock, enricher, .. } = parts.ports.clone();
        let ingest = Ingest::new(log, clock, enricher, parts.topic_prefix.clone());
        let shared = |all: usize, tenant: usize| Limiter::with_share([all as u64], [tenant as u64]);
        Arc::new(Self {
            requests: shared(config.requests_max, config.requests_tenant_max),
            documents: shared(admission::DOCUMENTS_MAX, admission::DOCUMENTS_MAX),
            bodies: Limiter::with_share([config.bodies_bytes_max], [config.bodies_bytes_max / 2]),
            streams: shared(config.streams_max, config.streams_tenant_max),
            agenda_lanes: Lanes::new(lanes::lanes(config.agendas_max), config.agendas_tenant_max),
            slow_lanes: Lanes::new(lanes::lanes(0) + 1, lanes::lanes(0)),
            refusals: Refusals::default(),
            is_open_to_browsers: parts.keys.is_none() && guard::is_loopback(&config.listen),
            parts,
            ingest,
            lookups: Limiter::new([decisions::WAITING_MAX]),
            lookup_lanes: Lanes::new(decisions::LOOKUPS_MAX, decisions::LOOKUPS_MAX / 2),
            policy_lanes: Lanes::new(1, 1),
            tail: stream::tail::Shared::default(),
            tickets: tickets::Tickets::new(),
        })
    }

    /// Logs refused requests that were not logged at once, until shutdown.
    pub async fn log_refusals(self: Arc<Self>) {
        const INTERVAL: Duration = Duration::from_secs(5);
        while tokio::time::timeout(INTERVAL, self.shutdown.cancelled()).await.is_err() {
            self.refusals.log_due();
        }
        self.refusals.log_due();
    }

    /// How far the partition of a subject is folded. To be called before its rows are read.
    fn view_position(&self, family: Family, tenant: &str, subject: &str) -> ViewPosition {
        let partitions = self.ports.log.partitions(family.topic());
        let key = foretell_events::key::of(tenant, subject);
        self.progress.view(family, foretell_events::key::partition(key.as_bytes(), partitions)).into()
    }

    /// The client of an appointment.
    async fn client_of(&self, tenant: &str, appointment_id: &str) -> Result<String, Problem> {
        // Not from the cache: a client that has just booked may look the appointment up by its id.
        let lookup: Lookup =
            self.rows.merged(&lookup::row_key(tenant, appointment_id)).await.map_err(answer::unreadable)?;
        lookup.client_id().map(str::to_owned).ok_or_else(answer::unknown_appointment)
    }

    fn topic_name(&self, topic: Topic) -> String {
        foretell_ports::log::present_name(self.ports.log.as_ref(), &self.topic_prefix, topic)
    }
}

/// Every documented route, under the scopes that permit it.
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

/// Routes that need no key: they reveal nothing about any user or client.
fn open_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready))
}

/// Health only, for a process without the role `http`.
pub fn health_router(api: &Arc<Api>) -> Router {
    let (routes, _) = open_routes().split_for_parts();
    finish(api, routes, "this process answers only /livez and /readyz: it does not have the role http")
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
    // People open the address from the log line.
    crate::http::zeros::route("/", "GET");
    finish(api, routes.merge(ui).route("/", get(|| async { Redirect::temporary("/docs") })), problem::SEE_DOCS)
}

/// The public API without keys, and the routes for operators: only for the socket of the instance.
pub fn admin_router(api: &Arc<Api>) -> Router {
    let trusted = Api::new(Parts { keys: None, ..api.parts.clone() });
    let (routes, _) = routes().split_for_parts();
    let routes = routes
        .route("/openapi.json", get(|| async { axum::Json(openapi::served()) }))
        .route("/admin/topics", get(admin::topics))
        .route("/admin/positions", get(admin::positions))
        .route("/admin/rows/{view}", get(admin::row))
        .route("/admin/jobs/{name}", post(admin::job))
        .route("/admin/dead-letters/{partition}/{offset}", get(admin::dead_letters::show));
    finish(&trusted, routes, problem::SEE_DOCS)
}

fn finish(api: &Arc<Api>, routes: Router<Arc<Api>>, hint: &'static str) -> Router {
    routes
        .method_not_allowed_fallback(|| async {
            Problem::new(ProblemCode::MethodNotAllowed, "the header Allow lists the supported methods")
        })
        .fallback(move || async move { Problem::new(ProblemCode::PathNotFound, hint) })
        .layer(DefaultBodyLimit::max(api.config.body_bytes_max))
        .layer(middleware::from_fn_with_state(api.clone(), edge::passed))
        .with_state(api.clone())
}
