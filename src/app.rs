//! The composition root: settings become ports, ports become roles. Only this file and its `backup` name a backend.
//!
//! ```text
//!   Config ─► open: log, store ─┬─► http       router over Rows and Progress
//!                               ├─► views      a keeper for logins, one for appointments
//!                               └─► reminders  a keeper for reminders, with the planner as companion
//! ```
//!
//! A role is a value, not a build: `serve --roles` takes any of them, and every process serves its health and
//! metrics. While a cluster is away at the start the process listens already and says what it waits for.

mod backup;
pub mod repartition;
mod waiting;

use crate::clock::Clock;
use crate::config::Config;
use crate::decisions::Recorder;
use crate::enrich::Enricher;
use crate::event::agent;
use crate::http::auth::Keys;
use crate::http::{self, Api, BackUp, Parts, Scoring};
use crate::log::{self, Error, Kind, Log};
use crate::pipeline::family::{self, Views};
use crate::pipeline::keeper::{Alone, Companion};
use crate::pipeline::patiently;
use crate::policies::Policies;
use crate::progress::Progress;
use crate::rebuild::{self, Rebuilder};
use crate::remind::{Reminders, assess::ByRows};
use crate::rows::Rows;
use crate::store::{self, Family, Generation, Store};
use crate::verify::{Scratch, Verifier};
use crate::view::{self, Fold, client::Appointments, policy, sent, user::Logins};
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The socket of an instance that serves a data directory, inside that directory.
pub const SOCKET: &str = "foretell.sock";

/// A part of the service that a process can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// Answers requests.
    Http,
    /// Keeps the views of logins and appointments.
    Views,
    /// Keeps the view of what was sent, and announces reminders.
    Reminders,
}

/// The backends of a configuration.
pub struct Ports {
    /// Where facts are.
    pub log: Arc<dyn Log>,
    /// Where rows are.
    pub store: Arc<dyn Store>,
    /// The data directory of an embedded log or store, locked.
    pub directory: Option<PathBuf>,
    /// Backs an embedded log up.
    pub back_up: Option<Arc<BackUp>>,
    /// What files say of addresses; it has looked at none yet.
    pub enricher: Arc<Enricher>,
    /// What operators should know about the backends, in plain sentences.
    pub notices: Vec<String>,
}

/// The directory of a `disk:` URL.
pub fn disk_directory(url: &str) -> Option<&Path> {
    url.strip_prefix("disk:").map(Path::new)
}

/// Opens log and store. Fatal where a URL, a schema, a topic or a directory is not as it must be; Retry where a
/// cluster does not answer.
pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Ports, Error> {
    let (log_dir, store_dir) = (disk_directory(&config.log), disk_directory(&config.store));
    let lock = |dir: Option<&Path>| dir.map(lock).transpose();
    let log_lock = lock(log_dir)?;
    let store_lock = if store_dir == log_dir { log_lock.clone() } else { lock(store_dir)? };
    let mut notices = Vec::new();
    let store: Arc<dyn Store> = match &store_lock {
        Some(directory) => Arc::new(tokio::task::block_in_place(|| store::disk::Store::open(directory))?),
        None => {
            check_scheme(&config.store, "cassandra://", "store")?;
            let cassandra = store::cassandra::Cassandra::open(&config.store, &config.cassandra).await?;
            notices.extend(cassandra.warnings().await?);
            Arc::new(cassandra)
        }
    };
    let (log, back_up): (Arc<dyn Log>, Option<Arc<BackUp>>) = match &log_lock {
        Some(directory) => {
            let partitions = config.topics.embedded_partitions;
            let sizes = log::disk::Config { retention: config.topics.retention(), ..log::disk::Config::default() };
            let clock = clock.clone();
            let open = || log::disk::Log::open(directory, |_| partitions, sizes, clock);
            let log = tokio::task::block_in_place(open)?;
            let (copied, directory) = (log.clone(), Arc::clone(directory));
            let back_up: Arc<BackUp> = Arc::new(move |to, tell| backup::back_up(&copied, directory.path(), to, tell));
            (Arc::new(log), Some(back_up))
        }
        None => (Arc::new(open_kafka(config, store.as_ref()).await?), None),
    };
    let directory = log_dir.or(store_dir).map(Path::to_owned);
    let enricher = Enricher::new(&config.enrich, clock);
    Ok(Ports { log, store, directory, back_up, enricher, notices })
}

fn lock(directory: &Path) -> Result<Arc<log::disk::Directory>, Error> {
    if directory.as_os_str().is_empty() {
        return Err(Error::fatal("read the settings", "disk: names no directory, as disk:./data does"));
    }
    log::disk::lock(directory)
}

async fn open_kafka(config: &Config, store: &dyn Store) -> Result<log::kafka::Kafka, Error> {
    check_scheme(&config.log, "kafka://", "log")?;
    let names = names(config, store).await?;
    let kafka = log::kafka::Kafka::open(&config.log, names, &config.kafka).await?;
    let problems = kafka.check_topics().await?;
    if problems.is_empty() { Ok(kafka) } else { Err(Error::fatal("use the topics", problems.join(" "))) }
}

/// Which topics on Kafka are those of this store. Fatal where it knows nothing, and the settings do not say it either.
async fn names(config: &Config, store: &dyn Store) -> Result<log::kafka::Names, Error> {
    let mut names = log::kafka::Names::new(&config.topics.prefix);
    for family in Family::ALL {
        let (topic, lead) = (family.topic(), family.lead());
        let epoch = match store.pointer(lead).await? {
            Some(pointer) => pointer.topic_epoch(),
            None => beginning(config, family).await?,
        };
        names = names.at(topic, epoch);
    }
    Ok(names)
}

/// The epoch of a topic that an empty store begins with.
async fn beginning(config: &Config, family: Family) -> Result<u8, Error> {
    let (topic, set) = (family.topic(), config.topics.epochs.of(family));
    let newest = log::kafka::topics::newest(&config.log, &config.topics.prefix, &config.kafka).await?;
    let newest = newest.get(&topic).copied().unwrap_or(0);
    if set > 0 || newest == 0 {
        return Ok(set);
    }
    let detail = format!(
        "the store has no views, and the topic of {} has been re-partitioned: set topics.epochs.{} = {newest} if {} \
         is the one in use, or delete it if it is left from an attempt that did not come to its end",
        family.name(),
        family.lead().name(),
        log::full_name(&config.topics.prefix, topic, newest)
    );
    Err(Error::fatal("use the topics", detail))
}

fn check_scheme(url: &str, scheme: &str, key: &'static str) -> Result<(), Error> {
    if url.starts_with(scheme) {
        return Ok(());
    }
    Err(Error::fatal("read the settings", format!("{key} = {url:?} begins with neither disk: nor {scheme}")))
}

/// What `migrate` does: creates schema and topics where they are missing; answers what was done and what to know.
pub async fn migrate(config: &Config) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    let store: Arc<dyn Store> = match disk_directory(&config.store) {
        Some(_) if disk_directory(&config.log).is_some() => return Ok(done),
        Some(directory) => Arc::new(store::disk::Store::open(&lock(directory)?)?),
        None => {
            check_scheme(&config.store, "cassandra://", "store")?;
            let migrated = store::cassandra::schema::migrate(&config.store, &config.cassandra).await?;
            done.extend(migrated.applied.into_iter().map(|name| format!("applied {name}")));
            done.extend(migrated.warnings);
            Arc::new(store::cassandra::Cassandra::open(&config.store, &config.cassandra).await?)
        }
    };
    if disk_directory(&config.log).is_none() {
        check_scheme(&config.log, "kafka://", "log")?;
        let topics = &config.topics;
        let shape = log::kafka::topics::Shape {
            partitions: topics.partitions,
            replication_factor: topics.replication_factor,
            min_insync_replicas: topics.min_insync_replicas,
            retention: topics.retention(),
        };
        let names = names(config, store.as_ref()).await?;
        let created = log::kafka::topics::ensure(&config.log, &names, &config.kafka, &shape).await?;
        done.extend(created.into_iter().map(|name| format!("created topic {name}")));
        done.extend(log::kafka::topics::check(&config.log, &names, &config.kafka).await?);
    }
    Ok(done)
}

/// A process that serves: what it was told, and what it listens on.
pub struct Service {
    config: Config,
    clock: Arc<dyn Clock>,
    roles: Vec<Role>,
    keys: Option<Keys>,
    auto_rebuild: bool,
    shutdown: CancellationToken,
}

impl Service {
    /// A service of these roles; it ends when `shutdown` says so.
    pub fn new(config: Config, clock: Arc<dyn Clock>, roles: Vec<Role>, shutdown: CancellationToken) -> Self {
        Self { config, clock, roles, keys: None, auto_rebuild: false, shutdown }
    }

    /// What it does.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The same, for those alone who have one of these keys.
    pub fn with_keys(self, keys: Option<Keys>) -> Self {
        Self { keys, ..self }
    }

    /// The same; views that were folded by older rules are folded anew at once.
    pub fn rebuilding(self) -> Self {
        Self { auto_rebuild: true, ..self }
    }

    /// Serves until shutdown. Errs when a part cannot go on; everything else is ended in order first.
    pub async fn run(self, listener: TcpListener) -> Result<(), Error> {
        let door = waiting::Door::default();
        let mut tasks = JoinSet::new();
        let (config, shutdown) = (self.config.http.clone(), self.shutdown.clone());
        let (behind, open) = (door.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            http::serve(waiting::no_delay(listener), move || behind.behind(), &config, shutdown).await;
            Ok(())
        });
        let started = tokio::select! {
            () = open.cancelled() => Ok(None),
            started = self.start(&door, &mut tasks) => started,
        };
        let (mut ended, decisions) = match started {
            Ok(decisions) => (Ok(()), decisions),
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
            // Nobody asks any more.
            decisions.drain().await;
        }
        ended
    }

    /// Opens the ports and starts the roles; answers what is to be drained when they have ended.
    async fn start(
        &self,
        door: &waiting::Door,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Option<Recorder>, Error> {
        let ports = self.open_patiently(door).await?;
        blocking("read the rules for user agents", agent::warm).await?;
        if self.roles.contains(&Role::Http) || ports.directory.is_some() {
            let (enricher, shutdown) = (ports.enricher.clone(), self.shutdown.clone());
            let looking = enricher.clone();
            blocking("look at the data files", move || looking.look()).await?;
            tasks.spawn(async move {
                enricher.watch(shutdown).await;
                Ok(())
            });
        }
        tasks.spawn(end_with(ports.log.clone(), self.shutdown.clone()));
        for family in Family::ALL {
            door.missing(format!("the views of {}", family.name()));
            patiently(&self.config.pipeline, || take_up(&self.config, &ports, family)).await?;
        }
        let rows = Arc::new(Rows::cached(ports.store.clone(), &self.config.reads, &self.config.fold));
        let kept = self.kept();
        for family in &kept {
            let planner = self.planner(&ports, rows.clone());
            tasks.spawn(keep(&self.config, &ports, *family, planner, self.shutdown.clone()));
        }
        let others = Family::ALL.into_iter().filter(|family| !kept.contains(family)).collect();
        let (log, store, pipeline) = (ports.log.clone(), ports.store.clone(), self.config.pipeline.clone());
        tasks.spawn(family::watch(others, (log, store), pipeline, self.shutdown.clone()));
        let parts = self.parts(&ports, rows);
        let decisions = parts.decisions.clone();
        if self.auto_rebuild {
            tasks.spawn(rebuild::all_due(parts.rebuilder.clone(), kept, self.shutdown.clone()));
        }
        let api = Api::new(parts);
        door.open(match self.roles.contains(&Role::Http) {
            true => http::router(&api),
            false => http::health_router(&api),
        });
        if let Some(directory) = &ports.directory {
            let socket = bind_socket(&directory.join(SOCKET))?;
            let (router, config) = (http::admin_router(&api), self.config.http.clone());
            let shutdown = self.shutdown.clone();
            tasks.spawn(async move {
                http::serve(socket, move || router.clone(), &config, shutdown).await;
                Ok(())
            });
        }
        Ok(Some(decisions))
    }

    /// Waits for clusters that do not answer yet, with a line per attempt.
    async fn open_patiently(&self, door: &waiting::Door) -> Result<Ports, Error> {
        let mut pause_ms = 500;
        door.missing(format!("{} and {}", self.config.log, self.config.store));
        loop {
            match open(&self.config, self.clock.clone()).await {
                Err(error) if error.kind == Kind::Retry => {
                    let (log, store) = (&self.config.log, &self.config.store);
                    tracing::warn!(%error, log, store, pause_ms, "waiting for log and store");
                    door.missing(format!("{log} and {store}: {error}"));
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(self.config.pipeline.retry_ms_max.max(1));
                }
                opened => return opened,
            }
        }
    }

    /// The families that this process folds.
    fn kept(&self) -> Vec<Family> {
        let role = |family: &Family| match family {
            Family::Logins | Family::Appointments | Family::Policies => Role::Views,
            Family::Reminders => Role::Reminders,
        };
        Family::ALL.into_iter().filter(|family| self.roles.contains(&role(family))).collect()
    }

    /// Makes the planner that accompanies a generation of what was sent.
    fn planner(&self, ports: &Ports, rows: Arc<Rows>) -> impl Fn(Generation) -> Arc<dyn Companion> + Send + 'static {
        let (log, store, clock) = (ports.log.clone(), ports.store.clone(), self.clock.clone());
        let (no_show, config) = (self.config.score.no_show.clone(), self.config.reminders.clone());
        move |sent| {
            Arc::new(Reminders {
                log: log.clone(),
                store: store.clone(),
                clock: clock.clone(),
                pointers: rows.pointers().clone(),
                sent,
                assess: Arc::new(ByRows { rows: rows.clone(), config: no_show.clone() }),
                config: config.clone(),
            })
        }
    }

    fn parts(&self, ports: &Ports, rows: Arc<Rows>) -> Parts {
        let (clock, keys, shutdown) = (self.clock.clone(), self.keys.clone(), self.shutdown.clone());
        parts(&self.config, ports, rows, Process { clock, keys, shutdown })
    }
}

/// Does what blocks, and what the first request would else wait for.
async fn blocking(operation: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| Error::fatal(operation, panic))
}

/// How a family is folded over these ports.
fn views<F: Fold>(config: &Config, ports: &Ports, fold: F) -> Views<F> {
    let topic = F::FAMILY.topic();
    Views {
        fold,
        partitions: ports.log.partitions(topic),
        topic_name: log::present_name(ports.log.as_ref(), &config.topics.prefix, topic),
        log: ports.log.clone(),
        store: ports.store.clone(),
        config: config.pipeline.clone(),
    }
}

/// Sees to it that a family has a pointer, and that its rows are of the topic that is there.
async fn take_up(config: &Config, ports: &Ports, family: Family) -> Result<(), Error> {
    let limits = config.fold.clone();
    let pointer = match family {
        Family::Logins => views(config, ports, Logins { limits }).pointer().await,
        Family::Appointments => views(config, ports, Appointments { limits }).pointer().await,
        Family::Reminders => views(config, ports, sent::Reminders { limits }).pointer().await,
        Family::Policies => views(config, ports, policy::Policies { limits }).pointer().await,
    };
    pointer.map(drop)
}

/// Keeps a family until shutdown; with a planner, where reminders are announced as well.
pub fn keep(
    config: &Config,
    ports: &Ports,
    family: Family,
    planner: impl Fn(Generation) -> Arc<dyn Companion> + Send + 'static,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    let limits = config.fold.clone();
    match family {
        Family::Logins => Box::pin(family::keep(views(config, ports, Logins { limits }), alone, shutdown)),
        Family::Appointments => Box::pin(family::keep(views(config, ports, Appointments { limits }), alone, shutdown)),
        Family::Reminders => {
            Box::pin(family::keep(views(config, ports, sent::Reminders { limits }), planner, shutdown))
        }
        Family::Policies => Box::pin(family::keep(views(config, ports, policy::Policies { limits }), alone, shutdown)),
    }
}

/// The companion of those who only fold.
pub fn alone(_: Generation) -> Arc<dyn Companion> {
    Arc::new(Alone)
}

/// Ends the service when its log is beyond repair: a supervisor starts it again, and the log is verified.
async fn end_with(log: Arc<dyn Log>, shutdown: CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = log.broken() => Err(error),
    }
}

/// What the parts of a process share besides its ports.
pub struct Process {
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Who may ask; none: everybody.
    pub keys: Option<Keys>,
    /// Cancelled when the process drains.
    pub shutdown: CancellationToken,
}

/// What the API is made of, over open ports.
pub fn parts(config: &Config, ports: &Ports, rows: Arc<Rows>, process: Process) -> Parts {
    let Process { clock, keys, shutdown } = process;
    let (log, store) = (ports.log.clone(), ports.store.clone());
    let progress = Progress::start(log.clone(), store.clone(), rows.clone(), clock.clone(), config.progress.clone());
    let policies = Policies::new(rows.clone(), config.score.login.clone(), config.reads.stale_ms_max);
    let verifier = verifier(config, ports);
    let rebuilder = Rebuilder {
        log: log.clone(),
        store: store.clone(),
        verifier: verifier.clone(),
        fingerprint: view::fingerprint(&config.fold),
        generation_grace_ms: config.pipeline.generation_grace_ms,
    };
    Parts {
        verifier,
        rebuilder,
        log,
        store,
        rows,
        progress: Arc::new(progress),
        clock,
        keys,
        policies: Arc::new(policies),
        decisions: Recorder::start(ports.log.clone(), &config.decisions),
        retention: config.topics.retention(),
        enricher: ports.enricher.clone(),
        scoring: Scoring::new(config.score.no_show.clone(), config.fold.time_zone_default.clone()),
        reminder_policy: config.reminders.policy.clone(),
        topic_prefix: config.topics.prefix.clone(),
        notices: ports.notices.clone(),
        back_up: ports.back_up.clone(),
        shutdown,
        config: config.http.clone(),
    }
}

/// Holds the rows of these ports against their log.
fn verifier(config: &Config, ports: &Ports) -> Verifier {
    Verifier {
        log: ports.log.clone(),
        store: ports.store.clone(),
        limits: config.fold.clone(),
        config: config.pipeline.clone(),
        topic_prefix: config.topics.prefix.clone(),
        scratches: Arc::new(scratch),
    }
}

/// A store in a temporary directory.
fn scratch() -> Result<Scratch, Error> {
    let place = tempfile::Builder::new().prefix("foretell-").tempdir();
    let place = place.map_err(|cause| Error::fatal("make a temporary directory", cause))?;
    let store = store::disk::Store::open(&log::disk::lock(place.path())?)?;
    Ok(Scratch { store: Arc::new(store), place: Some(place) })
}

/// The instance's own socket, for whoever may read its directory.
fn bind_socket(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let fail =
        |cause: std::io::Error| Error::fatal("listen on the instance's socket", format!("{}: {cause}", path.display()));
    // The directory is locked, so a socket in it belongs to a process that is gone.
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(fail(cause)),
        _ => {}
    }
    let socket = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(socket)
}
