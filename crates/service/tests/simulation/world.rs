//! A run of the views: processes that fold a growing log under faults, and what must hold at the end.

use crate::broken::{BrokenLog, BrokenStore, Protocol};
use crate::clock::{Virtual, paused};
use crate::conditions::{Conditions, Part, ProcessFaults, Rates};
use crate::equation;
use crate::history::{History, Kind as Facts, Made};
use crate::operators::{self, Operators};
use crate::ports::Ports;
use crate::process::Process;
use crate::random::Random;
use crate::tally::{Kind, Tally};
use foretell_domain::address::Generation;
use foretell_domain::pointer::Pointer;
use foretell_domain::view::client::AppointmentFold;
use foretell_domain::view::user::LoginFold;
use foretell_domain::view::{Fold, Limits, fingerprint};
use foretell_engine::jobs::JobEvent;
use foretell_engine::pipeline::family::{self, Views};
use foretell_engine::pipeline::{Config, Memory, generation, task};
use foretell_engine::rebuild::RebuildAction;
use foretell_engine::rows::LiveRows;
use foretell_events::key;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::log::group::Handover;
use foretell_ports::log::memory::Log as MemoryLog;
use foretell_ports::store::Store;
use foretell_ports::store::memory::Store as MemoryStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
const PROCESSES_MAX: usize = 3;

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// The first thing that does not hold.
    pub difference: Option<String>,
    pub tally: Tally,
    pub trace: Vec<String>,
}

/// The run of a seed: odd ones fold logins, even ones appointments.
pub fn run(seed: u64, protocol: Protocol) -> Run {
    let random = Random::new(seed);
    let limits = small();
    if seed % 2 == 1 {
        paused(async { World::new(Facts::Logins, LoginFold { limits }, random, protocol).play().await })
    } else {
        paused(async { World::new(Facts::Appointments, AppointmentFold { limits }, random, protocol).play().await })
    }
}

/// Small limits, so that rows drop entries.
pub fn small() -> Limits {
    Limits {
        user_devices_max: 3,
        user_values_max: 3,
        user_logins_max: 3,
        user_failures_max: 4,
        fan_out_users_max: 3,
        client_appointments_max: 4,
        ..Limits::default()
    }
}

/// Small limits, so that batches close.
pub fn config() -> Config {
    Config {
        batch_records_max: 40,
        behind_records_max: 120,
        owner_pending_bytes_max: 60,
        cached_rows_max: 24,
        drain_ms_max: 100,
        pointer_look_ms: 300,
        generation_grace_ms: 1_000,
        ..Config::default()
    }
}

/// Batches of any size, at the head of the log and behind it, and memory that flushes them early or keeps few rows.
fn any_batches(random: &Random) -> Config {
    Config {
        batch_records_max: random.one_of(&[2, 10, 40]),
        behind_records_max: random.one_of(&[1, 30, 400]),
        behind_age_ms_max: random.one_of(&[20, 2_000]),
        behind_bytes_max: random.one_of(&[2_000, 20_000, 1 << 30]),
        cached_bytes_max: random.one_of(&[2_000, 20_000, 1 << 30]),
        owner_pending_bytes_max: random.one_of(&[10, 60, 1_000]),
        ..config()
    }
}

/// A process of the views role.
pub async fn keep<F: Fold>(ports: Arc<Ports>, fold: F, config: Config) -> Result<(), foretell_ports::Error> {
    let topic_name = format!("{}{}", equation::PREFIX, F::FAMILY.topic().name());
    let (log, store) = (ports.clone(), ports);
    let (misplaced, memory, live) = (Arc::default(), Memory::default(), LiveRows::none());
    let views = Views { fold, partitions: PARTITIONS, topic_name, log, store, misplaced, memory, live, config };
    family::run(views, task::none(), CancellationToken::new()).await
}

/// The kinds of faults in a run.
#[derive(Debug, Clone, Copy)]
enum Scene {
    /// Everything.
    Storm,
    /// Two owners of the same partition overtake each other: the owner freezes, loses the partition unnoticed, and
    /// continues late while its successor is frozen.
    Duel,
}

impl Scene {
    fn rates(self, random: &Random) -> Rates {
        let permille = match self {
            Self::Storm => random.one_of(&[20, 60, 120]),
            // A crashed process is not late.
            Self::Duel => random.one_of(&[2, 20]),
        };
        Rates { permille, slow_ms_max: 300, seldom_permille: 2 * permille, seldom_slow_ms_max: 600 }
    }
}

struct World<F: Fold + Clone> {
    fold: F,
    log: MemoryLog,
    store: MemoryStore,
    broken: BrokenStore,
    protocol: Protocol,
    clock: Arc<Virtual>,
    random: Random,
    conditions: Conditions,
    history: History,
    processes: Vec<Process>,
    started: usize,
    operators: Operators,
    /// The first failure during the run.
    failed: Option<String>,
    scene: Scene,
}

impl<F: Fold + Clone> World<F> {
    fn new(facts: Facts, fold: F, random: Random, protocol: Protocol) -> Self {
        let clock = Arc::new(Virtual::begin());
        let store = MemoryStore::new();
        let scene = random.one_of(&[Scene::Storm, Scene::Storm, Scene::Duel]);
        Self {
            fold,
            log: MemoryLog::new(|_| PARTITIONS, clock.clone()),
            broken: BrokenStore::new::<F>(store.clone(), protocol, random.clone()),
            store,
            protocol,
            clock,
            history: History::new(facts, random.clone()),
            conditions: Conditions::new(random.clone(), scene.rates(&random)),
            processes: Vec::new(),
            started: 0,
            operators: Operators::default(),
            failed: None,
            scene,
            random,
        }
    }

    fn note(&self, what: &str) {
        self.conditions.journal.note(what);
    }

    fn ports(&mut self, conditions: Conditions, protocol: Protocol) -> Ports {
        self.started += 1;
        let faults = ProcessFaults::new(conditions, self.started, CancellationToken::new());
        let log = BrokenLog::new(self.log.clone(), protocol, self.random.clone());
        Ports { log, store: self.broken.with(protocol), faults }
    }

    /// Starts a process that keeps the views.
    fn start(&mut self, conditions: Conditions, protocol: Protocol) {
        let ports = self.ports(conditions, protocol);
        self.note(&format!("process {} starts", self.started));
        let faults = ports.faults.clone();
        self.processes
            .push(Process::start(faults, keep(Arc::new(ports), self.fold.clone(), any_batches(&self.random))));
    }

    async fn play(mut self) -> Run {
        self.storm().await;
        let mut difference = self.failed.take();
        difference = difference.or(self.calm().await.err());
        difference = difference.or(self.judge().await.err());
        Run { difference, tally: self.conditions.journal.tally(), trace: self.conditions.journal.trace() }
    }

    /// The phase with faults, for a few hundred records.
    async fn storm(&mut self) {
        for _ in 0..40 + self.random.below(120) {
            self.step().await;
            while let Some(over) = self.processes.iter().position(Process::is_over) {
                self.end(over).await;
            }
            self.failed = self.failed.take().or(self.operators.listen());
            sleep(Duration::from_millis(self.random.below(150))).await;
        }
        self.operators.cut_redrives(&self.conditions.journal);
        self.operators.cut_rebuilds(&self.conditions.journal);
        while !self.processes.is_empty() {
            self.end(0).await;
        }
        self.conditions.clear();
    }

    async fn end(&mut self, process: usize) {
        let ended = self.processes.remove(process).kill().await;
        self.failed = self.failed.take().or(ended);
    }

    async fn step(&mut self) {
        match self.scene {
            Scene::Storm => self.step_of_storm().await,
            Scene::Duel => self.step_of_duel().await,
        }
    }

    async fn step_of_duel(&mut self) {
        match self.random.below(20) {
            0..=10 => self.produce(),
            11..=13 => {
                self.freeze().await;
                self.rebalance(Handover::Unnoticed).await;
            }
            14..=16 => self.freeze().await,
            17 if self.random.chance(30) => self.kill().await,
            17 => self.rebuild(),
            _ if self.processes.len() < 2 => self.start(self.conditions.clone(), self.protocol),
            _ => {}
        }
    }

    async fn step_of_storm(&mut self) {
        let topic = F::FAMILY.topic();
        match self.random.below(26) {
            0..=11 => self.produce(),
            12 => {
                self.conditions.journal.inject(Kind::Hole, "the world", "log");
                self.log.skip(topic, self.random.below(2) as u32, 1).unwrap();
            }
            13..=15 => {
                let handover = self.random.one_of(&[Handover::Drained, Handover::AtOnce, Handover::Unnoticed]);
                self.rebalance(handover).await;
            }
            16 if self.random.chance(50) => self.log.notify_revoked(&self.group().await, topic),
            17 => self.kill().await,
            18 => self.freeze().await,
            19 => {
                let part = self.random.one_of(&[Part::Letters, Part::Letters, Part::Log, Part::Store]);
                self.conditions.take_away(part, 100 + self.random.below(5_000));
            }
            20 if self.random.chance(50) => self.operators.cut_redrives(&self.conditions.journal),
            20 => self.redrive(),
            21 => self.rebuild(),
            _ if self.processes.len() < PROCESSES_MAX => self.start(self.conditions.clone(), self.protocol),
            _ => {}
        }
    }

    async fn pointer(&self) -> Pointer {
        let pointer = self.store.pointer(F::FAMILY).await.unwrap();
        pointer.unwrap_or_else(|| Pointer::first(PARTITIONS, fingerprint(self.fold.limits())))
    }

    async fn serving(&self) -> Generation {
        self.pointer().await.serving(F::FAMILY)
    }

    /// The group of the serving generation, or of the building one.
    async fn group(&self) -> String {
        let pointer = self.pointer().await;
        let building = pointer.building(F::FAMILY).filter(|_| self.random.chance(50));
        generation::group(building.unwrap_or_else(|| pointer.serving(F::FAMILY)))
    }

    fn produce(&mut self) {
        let burst = 1 + self.random.below(if self.random.chance(10) { 60 } else { 8 });
        for _ in 0..burst {
            let made = self.history.next(self.clock.now_ms());
            if let Made::Again(_) = made {
                self.conditions.journal.inject(Kind::Repeated, "the world", "append");
            }
            let (Made::New(record) | Made::Again(record)) = made;
            let partition = record.key.as_ref().map_or(0, |key| key::partition(key, PARTITIONS));
            // Sometimes to the wrong one.
            let partition = if self.random.chance(2) { (partition + 1) % PARTITIONS } else { partition };
            self.log.append_to(partition, record).unwrap();
        }
        self.note(&format!("{burst} records"));
    }

    async fn kill(&mut self) {
        if !self.processes.is_empty() {
            let victim = self.random.below(self.processes.len() as u64) as usize;
            self.note(&format!("kills {victim}"));
            self.conditions.journal.inject(Kind::Killed, "the world", "anywhere");
            self.end(victim).await;
        }
    }

    /// Unnoticed moves create late writers: the old owner continues until it is notified.
    async fn rebalance(&mut self, handover: Handover) {
        let kind = match handover {
            Handover::Drained => Kind::MovedDrained,
            Handover::AtOnce => Kind::MovedAtOnce,
            Handover::Unnoticed => Kind::MovedUnnoticed,
        };
        let shift = self.random.below(3) as usize;
        self.note(&format!("rebalance by {shift}, {handover:?}"));
        self.conditions.journal.inject(kind, "the world", "group");
        self.log.rebalance(&self.group().await, F::FAMILY.topic(), handover, |partition, members| {
            (partition as usize + shift) % members.max(1)
        });
    }

    /// Freezes the owner of some partition. One that loses it meanwhile continues very late; one that has just acquired
    /// it is overtaken by the previous one.
    async fn freeze(&self) {
        let owner = self.conditions.owner(&self.group().await, self.random.below(PARTITIONS.into()) as u32);
        if let Some(process) = self.processes.iter().find(|process| Some(process.number()) == owner) {
            process.freeze(100 + self.random.below(self.random.one_of(&[1_000, 1_000, 1_000, 20_000])));
        }
    }

    fn redrive(&mut self) {
        let ports = self.ports(self.conditions.clone(), Protocol::Sound);
        self.operators.begin_redrive(&ports, self.clock.clone(), &self.random);
    }

    /// Rebuilds the views, continues a rebuild, cancels it, or interrupts it.
    fn rebuild(&mut self) {
        let order = match self.random.below(10) {
            0..=5 => RebuildAction::Build,
            6 => RebuildAction::Cancel,
            _ => return self.operators.cut_rebuilds(&self.conditions.journal),
        };
        let ports = self.ports(self.conditions.clone(), Protocol::Sound);
        self.operators.begin_rebuild(&ports, F::FAMILY, self.fold.limits().clone(), order);
    }

    /// The phase without faults: one healthy process finishes, repairable letters are redriven, and half of the time
    /// the views are rebuilt.
    async fn calm(&mut self) -> Result<(), String> {
        self.start(self.conditions.calm(), self.protocol.at_the_end());
        let finished = self.finish().await;
        let ended = match self.processes.pop() {
            None => None,
            Some(process) => process.kill().await,
        };
        ended.map_or(finished, Err)
    }

    async fn finish(&mut self) -> Result<(), String> {
        self.settle().await?;
        let ports = self.ports(self.conditions.calm(), Protocol::Sound);
        let message = operators::last(operators::redrive(&ports, self.clock.clone(), &self.random)).await;
        if !matches!(message, Some(JobEvent::Done(_))) {
            return Err(format!("the redrive ended: {message:?}"));
        }
        self.settle().await?;
        if self.random.chance(50) {
            let (ports, limits) = (self.ports(self.conditions.calm(), Protocol::Sound), self.fold.limits().clone());
            let message = operators::last(operators::rebuild(
                ports.as_who("rebuild").both(),
                F::FAMILY,
                limits,
                RebuildAction::Build,
            ))
            .await;
            if !matches!(message, Some(JobEvent::Done(_))) {
                return Err(format!("the rebuild ended: {message:?}"));
            }
            self.conditions.journal.checked("rebuilds that served", 1);
        }
        self.settle().await
    }

    /// Waits until the views are at the end of the log.
    async fn settle(&self) -> Result<(), String> {
        let began = Instant::now();
        for partition in 0..PARTITIONS {
            loop {
                let end = self.log.extent(F::FAMILY.topic(), partition).await.unwrap().end;
                let stored = self.store.checkpoint(self.serving().await, partition).await.unwrap();
                let reached = stored.map_or(0, |checkpoint| checkpoint.next);
                if reached >= end {
                    break;
                }
                if self.processes.iter().any(Process::is_over) || began.elapsed() > Duration::from_secs(600) {
                    return Err(format!("partition {partition} stuck at {reached} of {end}"));
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    async fn judge(&self) -> Result<(), String> {
        let (journal, topic) = (&self.conditions.journal, F::FAMILY.topic());
        let facts = equation::Facts::of(&self.log, topic);
        journal.checked("rows", equation::rows(&facts, &self.store, self.fold.clone(), self.serving().await)?);
        journal.checked("rejected records", equation::letters(&facts, &self.log, topic)?);
        journal.checked("redriven letters", equation::redriven(&facts, &self.log)?);
        Ok(())
    }
}
