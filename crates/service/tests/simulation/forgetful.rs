//! A store that loses acknowledged writes, as after a power loss before a sync. This is outside of the guarantees: rows
//! may be wrong afterwards. What is guaranteed is that the loss is detected at the next assignment and reported, and
//! that a rebuild repairs the rows.

use crate::clock::{Virtual, paused};
use crate::conditions::{Conditions, ProcessFaults, Rates};
use crate::equation;
use crate::history::{History, Kind as Facts, Made};
use crate::operators;
use crate::process::Process;
use crate::random::Random;
use crate::world;
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::view::user::LoginFold;
use foretell_engine::pipeline::family::{self, Views};
use foretell_engine::pipeline::{Memory, generation, task};
use foretell_engine::rows::LiveRows;
use foretell_events::key;
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::log::memory::Log as MemoryLog;
use foretell_ports::store::memory::Store as MemoryStore;
use foretell_ports::store::{Checkpoint, Flush, Row, Store};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;

/// The result of a run with a store that lost writes.
#[derive(Debug)]
pub struct Run {
    /// Assignments at which the loss was detected.
    pub noticed: u64,
    /// Whether the views continued, or stopped with an error, which also reports the loss.
    pub stopped: Option<String>,
    /// How often the process was started during the rebuild.
    pub restarts: usize,
    /// Whether rows were wrong before the rebuild.
    pub was_wrong: bool,
    /// What was wrong after it.
    pub difference: Option<String>,
}

/// A store that keeps everything, until it loses the last flushes of each partition: their checkpoints, and those rows
/// that were not on disk yet by chance.
#[derive(Clone, Default)]
struct Forgetful {
    kept: Arc<Mutex<MemoryStore>>,
    flushes: Arc<Mutex<Vec<Flush>>>,
}

impl Forgetful {
    fn now(&self) -> MemoryStore {
        self.kept.lock().unwrap().clone()
    }

    async fn forget(&self, random: &Random) {
        let (before, after) = (self.now(), MemoryStore::new());
        for family in Family::ALL {
            if let Some(pointer) = before.pointer(family).await.unwrap() {
                assert!(after.swap_pointer(family, None, &pointer).await.unwrap());
            }
        }
        let flushes = std::mem::take(&mut *self.flushes.lock().unwrap());
        let lost = 1 + random.below(4) as usize;
        for (at, flush) in flushes.iter().enumerate() {
            let later = flushes[at + 1..].iter().filter(|later| later.partition == flush.partition).count();
            match later < lost {
                true => after.write_rows(flush, |_| random.chance(50)),
                false => after.apply(flush).await.unwrap(),
            }
        }
        *self.kept.lock().unwrap() = after;
    }
}

#[async_trait]
impl Store for Forgetful {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.now().checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        self.flushes.lock().unwrap().push(flush.clone());
        self.now().apply(flush).await
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.now().read(generation, source, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.now().scan(generation, view, bucket, after, limit).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.now().drop_generation(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.now().buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.now().pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.now().swap_pointer(family, expected, new).await
    }
}

struct World {
    log: MemoryLog,
    store: Forgetful,
    clock: Arc<Virtual>,
    random: Random,
    history: History,
    conditions: Conditions,
    process: Option<Process>,
    started: usize,
}

/// Runs a seed, with a metrics recorder of its own.
pub fn run(seed: u64) -> Run {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    metrics::with_local_recorder(&recorder, || paused(async { World::new(seed).play(&counted).await }))
}

impl World {
    fn new(seed: u64) -> Self {
        let (clock, random) = (Arc::new(Virtual::begin()), Random::new(seed));
        let rates = Rates { permille: 0, slow_ms_max: 1, seldom_permille: 0, seldom_slow_ms_max: 1 };
        Self {
            log: MemoryLog::new(|_| PARTITIONS, clock.clone()),
            store: Forgetful::default(),
            clock,
            history: History::new(Facts::Logins, random.clone()),
            conditions: Conditions::new(random.clone(), rates),
            random,
            process: None,
            started: 0,
        }
    }

    async fn play(mut self, counted: &PrometheusHandle) -> Run {
        self.produce().await;
        self.settle().await;
        assert_eq!(noticed(counted), 0, "nothing was forgotten yet");
        self.end().await;
        self.store.forget(&self.random).await;
        let stopped = self.produce().await.or(self.settle().await);
        let noticed = noticed(counted);
        let was_wrong = self.rows().await.is_err();
        let started = self.started;
        let difference = self.rebuild().await.err();
        let restarts = self.started - started;
        self.end().await;
        Run { noticed, stopped, restarts, was_wrong, difference }
    }

    /// Runs a process that keeps the views; a supervisor starts it again when it has ended.
    async fn keep(&mut self) -> Option<String> {
        let ended = match self.process.take_if(|process| process.is_over()) {
            None => None,
            Some(process) => process.kill().await,
        };
        if self.process.is_none() {
            self.started += 1;
            let faults = ProcessFaults::new(self.conditions.clone(), self.started, CancellationToken::new());
            let views = Views {
                fold: fold(),
                partitions: PARTITIONS,
                topic_name: format!("{}logins", equation::PREFIX),
                log: Arc::new(self.log.clone()),
                store: Arc::new(self.store.clone()),
                misplaced: Arc::default(),
                memory: Memory::default(),
                live: LiveRows::none(),
                config: world::config(),
            };
            let run = family::run(views, task::none(), CancellationToken::new());
            self.process = Some(Process::start(faults, run));
        }
        ended
    }

    async fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    async fn produce(&mut self) -> Option<String> {
        let mut ended = None;
        for _ in 0..30 {
            ended = ended.or(self.keep().await);
            for _ in 0..self.random.below(8) {
                let (Made::New(record) | Made::Again(record)) =
                    self.history.next(foretell_ports::clock::Clock::now_ms(&*self.clock));
                let partition = record.key.as_ref().map_or(0, |key| key::partition(key, PARTITIONS));
                self.log.append_to(partition, record).unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
        ended
    }

    /// Waits until the views are at the end and the group has registered it, or for half a minute.
    async fn settle(&mut self) -> Option<String> {
        let mut ended = None;
        for _ in 0..50 {
            ended = ended.or(self.keep().await);
            if self.is_level().await {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        ended
    }

    async fn serving(&self) -> Generation {
        self.store.pointer(Family::Logins).await.unwrap().unwrap().serving(Family::Logins)
    }

    async fn is_level(&self) -> bool {
        let (serving, topic) = (self.serving().await, Family::Logins.topic());
        for partition in 0..PARTITIONS {
            let end = self.log.extent(topic, partition).await.unwrap().end;
            let stored = self.store.checkpoint(serving, partition).await.unwrap().map_or(0, |stored| stored.next);
            let committed = self.log.committed(&generation::group(serving), topic, partition).unwrap_or(0);
            if stored < end || committed < end {
                return false;
            }
        }
        true
    }

    async fn rows(&self) -> Result<usize, String> {
        let facts = equation::Facts::of(&self.log, Family::Logins.topic());
        equation::rows(&facts, &self.store.now(), fold(), self.serving().await)
    }

    /// Rebuilds the views while the process is started again as often as it ends.
    async fn rebuild(&mut self) -> Result<usize, String> {
        let ports: (Arc<dyn Log>, Arc<dyn Store>) = (Arc::new(self.log.clone()), Arc::new(self.store.clone()));
        let mut message = operators::rebuild(ports, Family::Logins, fold().limits, operators::RebuildAction::Build);
        let mut last = None;
        for _ in 0..600 {
            self.keep().await;
            while let Ok(message) = message.try_recv() {
                last = Some(message);
            }
            if message.is_closed() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        if !matches!(last, Some(foretell_engine::jobs::JobEvent::Done(_))) {
            return Err(format!("the rebuild came to {last:?}"));
        }
        self.settle().await;
        self.rows().await
    }
}

fn fold() -> LoginFold {
    LoginFold { limits: world::small() }
}

/// How often an assignment detected that the store had lost something.
fn noticed(counted: &PrometheusHandle) -> u64 {
    let text = counted.render();
    let lines = text.lines().filter(|line| line.starts_with(foretell_telemetry::STORE_FORGOT));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
