//! An instance of the clinic: log and store as configured, views and planners as in production, and a clock that only
//! changes when it is set.
//!
//! Before the clock is moved, the planners are paused between two checks: a check takes microseconds of a real day, and
//! would otherwise take hours of a simulated one.

use crate::low::Low;
use async_trait::async_trait;
use axum::Router;
use foretell::app::{self, Backends};
use foretell::config::Config;
use foretell_domain::address::{Family, Generation};
use foretell_engine::pipeline::task::{self, OwnerTasks};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Event, Position, Topic, codec};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::{Extent, Fenced, Log, Membership, Next, Page, Reader};
use foretell_service::http::{self, Api};
use foretell_service::instance::Instance;
use foretell_service::ports::Ports;
use foretell_service::remind;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two reads of a checkpoint: reading without a pause would slow down the folds.
const PAUSE: Duration = Duration::from_millis(1);

/// A clock that only changes when it is set.
pub struct Manual(AtomicI64);

impl Manual {
    pub fn at(now_ms: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now_ms)))
    }

    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// State of planners and readers that survives crashes.
#[derive(Default)]
struct Seen {
    planners: Mutex<Planners>,
    /// The topic of reminders, by partition, as read so far.
    topic: Vec<Mutex<Vec<Record>>>,
    changed: Notify,
}

/// Planners that own a partition, or assume so.
#[derive(Default)]
struct Planners {
    /// By process and partition: whether it is checking.
    looking: BTreeMap<(u64, u32), bool>,
    is_held: bool,
}

/// The instance, across restarts of its process.
pub struct World {
    config: Config,
    clock: Arc<Manual>,
    seen: Arc<Seen>,
    process: Option<Process>,
    /// A second planner of every partition, in parallel to that of the process.
    rivals: JoinSet<()>,
    pub crashes: usize,
    pub takeovers: usize,
}

struct Process {
    backends: Backends,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl World {
    pub async fn start(config: Config, clock: Arc<Manual>) -> Self {
        let seen = Arc::default();
        let mut world = Self { config, clock, seen, process: None, rivals: JoinSet::new(), crashes: 0, takeovers: 0 };
        let backends = world.open().await;
        let partitions = backends.ports.log.partitions(Topic::Reminders);
        world.seen = Arc::new(Seen {
            planners: Mutex::default(),
            topic: (0..partitions).map(|_| Mutex::default()).collect(),
            changed: Notify::new(),
        });
        world.serve(backends);
        world
    }

    pub fn log(&self) -> &Arc<dyn Log> {
        &self.process.as_ref().expect("a process runs").backends.ports.log
    }

    pub fn ports(&self) -> &Ports {
        &self.process.as_ref().expect("a process runs").backends.ports
    }

    /// A directory is free when the last task of the previous process has ended, including blocking ones.
    async fn open(&self) -> Backends {
        let opened = async {
            loop {
                match app::open(&self.config, self.clock.clone()).await {
                    Ok(backends) => return backends,
                    Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(PATIENCE, opened).await.expect("the directory is free")
    }

    fn serve(&mut self, backends: Backends) {
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let instance = backends.instance(&self.config);
        let ports = &backends.ports;
        let folds = [
            instance.fold(Family::Appointments, task::none(), shutdown.clone()),
            instance.fold(Family::Policies, task::none(), shutdown.clone()),
            instance.fold(Family::Reminders, self.planners(ports), shutdown.clone()),
        ];
        for fold in folds {
            tasks.spawn(async move { fold.await.expect("nothing here is beyond repair") });
        }
        for partition in 0..self.seen.topic.len() {
            let (log, seen) = (ports.log.clone(), self.seen.clone());
            tasks.spawn(async move { seen.read(log, partition).await });
        }
        self.process = Some(Process { backends, tasks, shutdown });
    }

    /// The planners of a process: what each of them reads and when is observed.
    fn planners(&self, ports: &Ports) -> OwnerTasks {
        static PROCESSES: AtomicU64 = AtomicU64::new(0);
        let process = PROCESSES.fetch_add(1, Ordering::Relaxed);
        let watched = Watched { log: ports.log.clone(), seen: self.seen.clone(), process };
        let ports = Ports { log: Arc::new(watched), ..ports.clone() };
        Instance::new(self.config.instance(), ports).planner(Arc::new(Low))
    }

    /// Appends events.
    pub async fn append(&self, events: &[Event]) {
        let records = events.iter().map(|event| codec::encode_event(event, &[])).collect();
        self.log().append(records).await.expect("appended");
    }

    pub fn set(&self, now_ms: i64) {
        self.clock.set(now_ms);
    }

    /// Waits until no planner is checking, and lets none begin.
    pub async fn hold(&self) {
        self.seen.with(|planners| planners.is_held = true);
        let held = self.seen.until(|| self.seen.with(|planners| planners.looking.values().all(|is| !is)));
        held.await.expect("every look comes to its end");
    }

    /// Waits until views contain everything that is in the log: planners would wait for them too, and longer.
    pub async fn fold(&self) {
        let ports = self.ports();
        let folded = async {
            for family in [Family::Appointments, Family::Reminders, Family::Policies] {
                let serving = serving(ports, family).await;
                let folded = (0..ports.log.partitions(family.topic())).map(async |partition| {
                    let end = ports.log.extent(family.topic(), partition).await.expect("an extent").end;
                    let is_folded = async || {
                        let checkpoint = ports.store.checkpoint(serving, partition).await.expect("readable");
                        checkpoint.map_or(0, |checkpoint| checkpoint.next) >= end
                    };
                    while !is_folded().await {
                        tokio::time::sleep(PAUSE).await;
                    }
                });
                futures::future::join_all(folded).await;
            }
        };
        timeout(PATIENCE, folded).await.expect("views come to the end of the log");
    }

    /// Lets planners continue.
    pub fn go_on(&self) {
        self.seen.with(|planners| planners.is_held = false);
        self.seen.changed.notify_waiters();
    }

    /// Waits until the topic has this many records; fails with a sentence if it takes too long.
    pub async fn await_records(&self, records: usize) -> Result<(), String> {
        let arrived = self.seen.until(|| self.seen.count() >= records);
        arrived.await.map_err(|()| format!("{} of {records} records arrived", self.seen.count()))
    }

    /// New records of the topic; `taken` counts those of each partition that were returned before.
    pub fn take(&self, taken: &mut [usize]) -> Vec<Record> {
        let mut records = Vec::new();
        for (partition, taken) in self.seen.topic.iter().zip(taken) {
            let partition = partition.lock().expect("no panic");
            records.extend(partition[*taken..].iter().cloned());
            *taken = partition.len();
        }
        records
    }

    pub fn partitions(&self) -> usize {
        self.seen.topic.len()
    }

    /// Ends the process as a power loss would, whatever it is doing, and starts another one.
    pub async fn crash(&mut self) {
        self.crashes += 1;
        self.depose().await;
        let Process { backends, mut tasks, .. } = self.process.take().expect("a process runs");
        tasks.shutdown().await;
        drop(backends);
        let backends = self.open().await;
        self.serve(backends);
    }

    /// Other planners acquire every partition, and the previous owners do not notice.
    pub async fn usurp(&mut self) {
        self.takeovers += 1;
        self.depose().await;
        let ports = self.ports();
        for planner in self.planners(ports)(serving(ports, Family::Reminders).await) {
            for partition in 0..self.partitions() as u32 {
                let planner = planner.clone();
                self.rivals.spawn(async move {
                    // Until it is fenced in turn.
                    drop(planner.run(partition).await);
                });
            }
        }
    }

    /// The rivals end.
    pub async fn depose(&mut self) {
        self.rivals.shutdown().await;
    }

    /// The API for the stories of appointments.
    pub fn api(&self) -> Router {
        let instance = Instance::new(self.config.instance(), self.ports().clone());
        http::router(&Api::new(instance.parts(instance.jobs(), None, CancellationToken::new())))
    }

    /// Shuts down in order.
    pub async fn stop(mut self) -> Backends {
        self.depose().await;
        let Process { backends, mut tasks, shutdown } = self.process.take().expect("a process runs");
        shutdown.cancel();
        // Readers of the topic do not end by themselves.
        while tasks.len() > self.partitions() {
            tasks.join_next().await.expect("a task").expect("no panic");
        }
        backends
    }
}

/// The serving generation, as soon as there is one.
async fn serving(ports: &Ports, family: Family) -> Generation {
    loop {
        match ports.store.pointer(family).await.expect("readable") {
            Some(pointer) => return pointer.serving(family),
            None => tokio::task::yield_now().await,
        }
    }
}

impl Seen {
    fn with<T>(&self, change: impl FnOnce(&mut Planners) -> T) -> T {
        change(&mut self.planners.lock().expect("no panic"))
    }

    /// Begins a check, as soon as planners are not paused.
    async fn look(&self, planner: (u64, u32)) {
        self.rest(planner);
        loop {
            let changed = self.changed.notified();
            let begins = self.with(|planners| {
                if !planners.is_held {
                    planners.looking.insert(planner, true);
                }
                !planners.is_held
            });
            if begins {
                return;
            }
            changed.await;
        }
    }

    fn rest(&self, planner: (u64, u32)) {
        self.with(|planners| planners.looking.insert(planner, false));
        self.changed.notify_waiters();
    }

    fn count(&self) -> usize {
        self.topic.iter().map(|partition| partition.lock().expect("no panic").len()).sum()
    }

    async fn until(&self, is_done: impl Fn() -> bool) -> Result<(), ()> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if is_done() {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.map_err(drop)
    }

    /// Continues to read a partition of the topic.
    async fn read(&self, log: Arc<dyn Log>, partition: usize) {
        let last = self.topic[partition].lock().expect("no panic").last().map(|record| record.position.offset);
        let from = last.map_or(0, |last| last + 1);
        let mut reader = log.read(Topic::Reminders, partition as u32, from).await.expect("readable");
        loop {
            if let Next::Records(records) = reader.next().await.expect("readable") {
                self.topic[partition].lock().expect("no panic").extend(records);
                self.changed.notify_waiters();
            }
        }
    }
}

/// The log as the planners of a process see it: each check begins with the end of appointments.
struct Watched {
    log: Arc<dyn Log>,
    seen: Arc<Seen>,
    process: u64,
}

/// A planner for as long as it has a partition.
struct Owner {
    fenced: Box<dyn Fenced>,
    seen: Arc<Seen>,
    planner: (u64, u32),
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.seen.with(|planners| planners.looking.remove(&self.planner));
        self.seen.changed.notify_waiters();
    }
}

#[async_trait]
impl Fenced for Owner {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.fenced.append(records).await
    }
}

#[async_trait]
impl Log for Watched {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.log.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        if topic == Topic::Appointments {
            self.seen.look((self.process, partition)).await;
        }
        self.log.extent(topic, partition).await
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.log.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.log.read(topic, partition, from).await
    }

    async fn page(&self, topic: Topic, partition: u32, from: i64) -> Result<Page, Error> {
        self.log.page(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let fenced = self.log.fence(topic, partition).await?;
        let planner = (self.process, partition);
        self.seen.rest(planner);
        Ok(Box::new(Owner { fenced, seen: self.seen.clone(), planner }))
    }
}

/// Settings for speed: planners check again immediately, views are written immediately, and batches are not delayed.
pub fn hurried(config: &mut Config) {
    config.reminders = remind::Config { tick_ms: 1, ..config.reminders.clone() };
    config.pipeline.batch_linger_ms = 0;
    config.pipeline.batch_age_ms_max = 5;
    config.pipeline.retry_ms_max = 200;
    // A broker answers immediately that there is nothing yet, instead of waiting.
    config.kafka.properties.insert("fetch.wait.max.ms".into(), "2".into());
}
