//! The composition root: settings become ports, ports become roles. Only its `ports` and `backup` name a backend.
//!
//! ```text
//!   Config ─► open: log, store ─► Instance ─┬─► http       routers over its parts
//!                                           ├─► views      folds of logins, appointments and policies
//!                                           └─► reminders  the fold of reminders, with the planner as a task
//! ```
//!
//! A role is a value, not a build: `serve --roles` accepts any of them, and every process serves its health and, to
//! operators, its metrics. If a cluster is unreachable at the start, the process listens and reports what it waits for.

pub mod backend_urls;
pub mod backup;
pub mod descriptors;
mod ports;
mod reach;
pub mod repartition;
pub mod training;
mod waiting;

pub use ports::{Backends, data_directory, disk_directory, migrate, open};

use crate::config::Config;
use axum::routing::get;
use axum::{Json, Router};
use foretell_domain::address::Family;
use foretell_engine::pipeline::{self, family};
use foretell_engine::rebuild;
use foretell_events::agent;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::LogAdmin;
use foretell_ports::retry::{Backoff, retry};
use foretell_service::decisions::Recorder;
use foretell_service::http::auth::Keys;
use foretell_service::http::{self, Api};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of an instance's socket in its data directory.
pub const SOCKET: &str = "foretell.sock";
/// How long requests of operators may continue after everything else has ended, in milliseconds.
const OPS_DRAIN_MS: u64 = 1_000;
/// The first pause while log and store do not respond at the start.
const OPEN_RETRY_FIRST: Duration = Duration::from_millis(500);

/// A part of the service that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// Answer requests
    Http,
    /// Fold the views of logins, appointments and policies
    Views,
    /// Fold the view of announced reminders, and announce reminders
    Reminders,
}

impl Role {
    /// The role that folds a family: `reminders` for reminders, `views` for all others.
    fn that_folds(family: Family) -> Self {
        if family == Family::Reminders { Self::Reminders } else { Self::Views }
    }

    /// The name in `--roles` and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Views => "views",
            Self::Reminders => "reminders",
        }
    }
}

/// A process that serves: its settings, roles and keys.
pub struct Service {
    config: Config,
    clock: Arc<dyn Clock>,
    roles: Vec<Role>,
    keys: Option<Keys>,
    auto_rebuild: bool,
    shutdown: CancellationToken,
}

impl Service {
    /// A service with these roles; it ends when `shutdown` is cancelled.
    pub fn new(config: Config, clock: Arc<dyn Clock>, roles: Vec<Role>, shutdown: CancellationToken) -> Self {
        Self { config, clock, roles, keys: None, auto_rebuild: false, shutdown }
    }

    /// The roles of the process.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The same service, which accepts only requests with one of these keys.
    pub fn with_keys(self, keys: Option<Keys>) -> Self {
        Self { keys, ..self }
    }

    /// The same service, which immediately rebuilds views that were folded by older rules.
    pub fn rebuilding(self) -> Self {
        Self { auto_rebuild: true, ..self }
    }

    /// Serves until shutdown. Fails if a part cannot continue, after all other parts have ended in order. Operators are
    /// served to the end, so that they see it drain.
    pub async fn run(mut self, listener: TcpListener, ops: Option<TcpListener>) -> Result<(), Error> {
        // A name or a short form may mean loopback: the protection of loopback from web pages depends on the address.
        if let Ok(address) = listener.local_addr() {
            self.config.http.listen = address.to_string();
        }
        let began = Instant::now();
        let routers = waiting::StartupRouters::default();
        let mut tasks = JoinSet::new();
        let (config, shutdown) = (self.config.http.clone(), self.shutdown.clone());
        let (behind, open) = (routers.callers.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            http::serve(waiting::no_delay(listener), move || behind.current(), &config, shutdown).await;
            Ok(())
        });
        let drained = CancellationToken::new();
        let ops = ops.map(|ops| {
            let (behind, drained, config) =
                (routers.operators.clone(), drained.clone(), self.config.http.for_operators());
            let config = http::Config { drain_ms: OPS_DRAIN_MS, ..config };
            tokio::spawn(async move {
                http::serve(waiting::no_delay(ops), move || behind.current(), &config, drained).await;
            })
        });
        let started = tokio::select! {
            () = open.cancelled() => Ok(None),
            started = self.start(&routers, &mut tasks) => started,
        };
        let (mut ended, decisions) = match started {
            Ok(decisions) => {
                if decisions.is_some() {
                    tracing::info!(after_ms = began.elapsed().as_millis() as u64, "ready");
                }
                (Ok(()), decisions)
            }
            Err(error) => (Err(error), None),
        };
        while ended.is_ok() {
            match tasks.join_next().await {
                None => break,
                Some(task) => ended = task.unwrap_or_else(|panic| Err(Error::fatal("serve", panic))),
            }
        }
        self.shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        if let Some(decisions) = decisions {
            // No more requests arrive.
            decisions.drain().await;
        }
        drained.cancel();
        if let Some(Err(panic)) = futures::future::OptionFuture::from(ops).await {
            tracing::error!(%panic, "the operators' listener ended early");
        }
        ended
    }

    /// Opens the ports and starts the roles; returns what to drain after they have ended.
    async fn start(
        &self,
        routers: &waiting::StartupRouters,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Option<Recorder>, Error> {
        let backends = self.open_with_retry(routers).await?;
        let (ports, instance) = (&backends.ports, backends.instance(&self.config));
        ports.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
        blocking("read the rules for user agents", agent::warm).await?;
        if self.roles.contains(&Role::Http) || backends.directory.is_some() {
            let (enricher, shutdown) = (ports.enricher.clone(), self.shutdown.clone());
            let files = enricher.clone();
            blocking("check the data files", move || files.reload()).await?;
            tasks.spawn(async move {
                enricher.watch(shutdown).await;
                Ok(())
            });
        }
        tasks.spawn(end_with(backends.admin.clone(), self.shutdown.clone()));
        for family in Family::ALL {
            routers.wait_for(format!("the views of {}", family.name()));
            pipeline::retry(&self.config.pipeline, || instance.ensure_pointer(family)).await?;
        }
        let folded = self.folded_families();
        for family in &folded {
            tasks.spawn(instance.fold(*family, instance.tasks(*family), self.shutdown.clone()));
        }
        let others = Family::ALL.into_iter().filter(|family| !folded.contains(family)).collect();
        let (log, store, pipeline) = (ports.log.clone(), ports.store.clone(), self.config.pipeline.clone());
        tasks.spawn(family::watch(others, log, store, pipeline, self.shutdown.clone()));
        let jobs = backends.jobs(&instance, &self.config);
        let parts = instance.parts(jobs, self.keys.clone(), self.shutdown.clone());
        let decisions = parts.decisions.clone();
        if self.auto_rebuild {
            tasks.spawn(rebuild::all_due(instance.rebuilder(), folded, self.shutdown.clone()));
        }
        let api = Api::new(parts);
        tasks.spawn(api.clone().log_refusals().map(Ok));
        routers.callers.replace(match self.roles.contains(&Role::Http) {
            true => http::router(&api),
            false => http::health_router(&api),
        });
        // After the router of callers: its probes may report readiness at once.
        routers.operators.replace(http::ops::router(&api));
        if let Some(directory) = &backends.directory {
            let socket = backend_urls::bind_socket(&directory.join(SOCKET))?;
            let own = backend_urls::BackendUrls::of(&self.config);
            let shown = Router::new().route(backend_urls::PATH, get(move || std::future::ready(Json(own.clone()))));
            let (router, config) = (http::admin_router(&api).merge(shown), self.config.http.for_socket());
            let shutdown = self.shutdown.clone();
            tasks.spawn(async move {
                http::serve(socket, move || router.clone(), &config, shutdown).await;
                Ok(())
            });
        }
        Ok(Some(decisions))
    }

    /// Waits for clusters that do not respond yet, with a log line per attempt.
    async fn open_with_retry(&self, routers: &waiting::StartupRouters) -> Result<Backends, Error> {
        let (log, store) = (&self.config.log, &self.config.store);
        routers.wait_for(format!("{log} and {store}"));
        let notify = |error: &Error, pause: Duration| {
            tracing::warn!(%error, log, store, pause_ms = pause.as_millis() as u64, "waiting for log and store");
            routers.wait_for(format!("{log} and {store}: {error}"));
        };
        let longest = Duration::from_millis(self.config.pipeline.retry_ms_max.max(1));
        retry(Backoff::doubling(OPEN_RETRY_FIRST, longest), notify, || open(&self.config, self.clock.clone())).await
    }

    /// The families that this process folds.
    fn folded_families(&self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| self.roles.contains(&Role::that_folds(*family))).collect()
    }
}

/// Runs blocking work that the first request would otherwise wait for.
async fn blocking(operation: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| Error::fatal(operation, panic))
}

/// Ends the service when its log is broken: a supervisor starts it again, and the log is verified at the start.
async fn end_with(log: Arc<dyn LogAdmin>, shutdown: CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = log.broken() => Err(error),
    }
}
