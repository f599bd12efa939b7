//! An instance: everything that runs over one log and one store, composed in one place.
//!
//! ```text
//!   Ports, Config ─► Instance ─┬─► fold    the folds of a family, with the tasks of its owners
//!                              ├─► tasks   what the owner of a partition also does: plans reminders
//!                              ├─► jobs    verify, rebuild, reports, dead letters
//!                              └─► parts   the API, from which routers are made
//! ```
//!
//! The binary opens log and store by URL and decides which of these parts a process runs. Tests, simulations and
//! benchmarks provide ports of their own, in memory or with faults, and run the same composition.

use crate::assess::Assessor;
use crate::decisions::reading::DecisionReportJob;
use crate::decisions::{self, Recorder};
use crate::http::auth::Keys;
use crate::http::{self, Parts, Scoring};
use crate::policies::{self, Policies};
use crate::ports::Ports;
use crate::remind::assess::ByRows;
use crate::remind::{self, Assess, ReminderTask};
use crate::report::reading::NoShowReportJob;
use foretell_domain::address::Family;
use foretell_domain::score::{login, no_show};
use foretell_domain::view::{self, Fold, FoldVisitor, Limits};
use foretell_engine::dead_letters::DeadLetters;
use foretell_engine::jobs::Jobs;
use foretell_engine::pipeline::family::{self, Views};
use foretell_engine::pipeline::task::OwnerTasks;
use foretell_engine::pipeline::{self, Memory, task};
use foretell_engine::progress::{self, Progress};
use foretell_engine::rebuild::Rebuilder;
use foretell_engine::rows::{self, Rows};
use foretell_engine::verify::Verifier;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::{self, Retention};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The settings of the parts of an instance.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix of the names of topics, with its dot.
    pub topic_prefix: String,
    /// How long records are kept if no row is folded from them.
    pub retention: Retention,
    /// What the folds depend on.
    pub fold: Limits,
    /// How partitions are folded.
    pub pipeline: pipeline::Config,
    /// How rows are read.
    pub reads: rows::Config,
    /// How often checkpoints are read.
    pub progress: progress::Config,
    /// The policy for logins of tenants that have published none.
    pub login: login::LoginPolicy,
    /// How visits are scored.
    pub no_show: no_show::Config,
    /// When and how reminders are planned.
    pub reminders: remind::Config,
    /// How decision records are kept.
    pub decisions: decisions::Config,
    /// How requests are served.
    pub http: http::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            topic_prefix: "foretell.".into(),
            retention: Retention::default(),
            fold: Limits::default(),
            pipeline: pipeline::Config::default(),
            reads: rows::Config::default(),
            progress: progress::Config::default(),
            login: login::LoginPolicy::default(),
            no_show: no_show::Config::default(),
            reminders: remind::Config::default(),
            decisions: decisions::Config::default(),
            http: http::Config::default(),
        }
    }
}

/// The parts of an instance, and what they share.
#[derive(Clone)]
pub struct Instance {
    ports: Ports,
    config: Arc<Config>,
    rows: Arc<Rows>,
    policies: Policies,
    assessor: Arc<Assessor>,
    memory: Memory,
}

impl Instance {
    /// An instance over these ports. Nothing is read or started yet.
    pub fn new(config: Config, ports: Ports) -> Self {
        let rows = Arc::new(Rows::cached(ports.store.clone(), &config.reads, &config.fold));
        let settings = policies::Settings {
            login: config.login.clone(),
            reminders: config.reminders.policy.clone(),
            protected_attributes: config.no_show.protected_attributes.clone(),
        };
        let policies = Policies::new(&rows, settings, config.reads.stale_ms_max);
        let assessor = Assessor::new(rows.clone(), config.no_show.clone(), policies.no_show_model.clone());
        Self {
            ports,
            config: Arc::new(config),
            rows,
            policies,
            assessor: Arc::new(assessor),
            memory: Memory::default(),
        }
    }

    /// What the generations of a family share.
    pub fn views<F: Fold>(&self, fold: F) -> Views<F> {
        let (Ports { log, store, misplaced, .. }, topic) = (self.ports.clone(), F::FAMILY.topic());
        Views {
            fold,
            partitions: log.partitions(topic),
            topic_name: self.topic_name(topic),
            log,
            store,
            misplaced,
            memory: self.memory.clone(),
            live: self.rows.live().clone(),
            config: self.config.pipeline.clone(),
        }
    }

    /// Ensures that a family has a pointer, and that its rows belong to the current topic.
    ///
    /// Fatal if they are the fold of another topic.
    pub fn ensure_pointer(&self, family: Family) -> BoxFuture<'_, Result<(), Error>> {
        family.with_fold(self.config.fold.clone(), EnsuringPointer(self))
    }

    /// Folds a family until shutdown; `tasks` returns what the owners of a generation also do.
    pub fn fold(
        &self,
        family: Family,
        tasks: OwnerTasks,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        family.with_fold(self.config.fold.clone(), FamilyRun { instance: self, tasks, shutdown })
    }

    /// The tasks of the owners of a family's generations.
    pub fn tasks(&self, family: Family) -> OwnerTasks {
        if family != Family::Reminders {
            return task::none();
        }
        let (assessor, read_ms_max) = (self.assessor.clone(), self.config.reminders.catch_up_ms_max);
        self.planner(Arc::new(ByRows { assessor, read_ms_max }))
    }

    /// The planner of reminders, as the task of the owners of the view `sent`.
    pub fn planner(&self, assess: Arc<dyn Assess>) -> OwnerTasks {
        let instance = self.clone();
        Box::new(move |sent| {
            vec![Arc::new(ReminderTask {
                log: instance.ports.log.clone(),
                topic_name: instance.topic_name(Topic::Reminders),
                store: instance.ports.store.clone(),
                clock: instance.ports.clock.clone(),
                pointers: instance.rows.pointers().clone(),
                sent,
                assess: assess.clone(),
                policies: instance.policies.reminders.clone(),
                config: instance.config.reminders.clone(),
            })]
        })
    }

    /// Compares the rows with the log.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            log: self.ports.log.clone(),
            store: self.ports.store.clone(),
            limits: self.config.fold.clone(),
            config: self.config.pipeline.clone(),
            topic_prefix: self.config.topic_prefix.clone(),
            scratches: self.ports.scratches.clone(),
        }
    }

    /// Rebuilds views.
    pub fn rebuilder(&self) -> Rebuilder {
        Rebuilder {
            log: self.ports.log.clone(),
            store: self.ports.store.clone(),
            verifier: self.verifier(),
            fingerprint: view::fingerprint(&self.config.fold),
            generation_grace_ms: self.config.pipeline.generation_grace_ms,
        }
    }

    /// The jobs that operators can run on every instance.
    pub fn jobs(&self) -> Jobs {
        let Ports { log, store, clock, .. } = self.ports.clone();
        let (topic_prefix, retention) = (self.config.topic_prefix.clone(), self.config.retention);
        let pointers = self.rows.pointers().clone();
        Jobs::default()
            .with(self.verifier())
            .with(self.rebuilder())
            .with(DeadLetters { log: log.clone(), clock: clock.clone(), topic_prefix })
            .with(DecisionReportJob { log: log.clone(), store: store.clone(), clock: clock.clone(), retention })
            .with(NoShowReportJob { log, store, pointers, clock, retention })
    }

    /// The parts of the API, which offers these jobs to operators. Starts to observe the progress of the folds.
    ///
    /// Without `keys`, requests need no key. The API drains when `shutdown` is cancelled.
    pub fn parts(&self, jobs: Jobs, keys: Option<Keys>, shutdown: CancellationToken) -> Parts {
        let (Ports { log, store, clock, .. }, config) = (self.ports.clone(), &self.config);
        let decisions = Recorder::start(log.clone(), &config.decisions);
        let progress = Progress::start(log, store, self.rows.clone(), clock, config.progress.clone());
        Parts {
            ports: self.ports.clone(),
            rows: self.rows.clone(),
            progress: Arc::new(progress),
            keys,
            decisions,
            policies: self.policies.clone(),
            assessor: self.assessor.clone(),
            scoring: Scoring::new(config.no_show.clone(), config.fold.time_zone_default.clone()),
            retention: config.retention,
            topic_prefix: config.topic_prefix.clone(),
            jobs,
            shutdown,
            config: config.http.clone(),
        }
    }

    fn topic_name(&self, topic: Topic) -> String {
        log::present_name(self.ports.log.as_ref(), &self.config.topic_prefix, topic)
    }
}

/// Reads or creates the pointer of a family.
struct EnsuringPointer<'a>(&'a Instance);

impl<'a> FoldVisitor for EnsuringPointer<'a> {
    type Output = BoxFuture<'a, Result<(), Error>>;

    fn visit<F: Fold>(self, fold: F) -> Self::Output {
        Box::pin(async move { self.0.views(fold).pointer().await.map(drop) })
    }
}

/// Folds a family until shutdown.
struct FamilyRun<'a> {
    instance: &'a Instance,
    tasks: OwnerTasks,
    shutdown: CancellationToken,
}

impl FoldVisitor for FamilyRun<'_> {
    type Output = BoxFuture<'static, Result<(), Error>>;

    fn visit<F: Fold>(self, fold: F) -> Self::Output {
        Box::pin(family::run(self.instance.views(fold), self.tasks, self.shutdown))
    }
}
