//! A run of the reminders role: processes that keep the views and plan reminders through faulty ports, over days of
//! virtual time.

mod observed;
mod promises;

use crate::broken::{BrokenLog, BrokenStore, Protocol};
use crate::clock::{Virtual, paused};
use crate::conditions::{Conditions, Part, ProcessFaults, Rates};
use crate::equation::{self, Facts};
use crate::history;
use crate::low::Low;
use crate::operators::Operators;
use crate::ports::Ports;
use crate::process::Process;
use crate::random::Random;
use crate::tally::Kind;
use crate::world::Run;
use foretell_domain::address::{Family, Generation};
use foretell_domain::view::Limits;
use foretell_domain::view::client::AppointmentFold;
use foretell_domain::view::sent::ReminderFold;
use foretell_engine::pipeline::{Config, generation, task};
use foretell_engine::rebuild::RebuildAction;
use foretell_engine::rows;
use foretell_events::{Envelope, Event, Topic, codec};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::log::group::Handover;
use foretell_ports::log::memory::Log as MemoryLog;
use foretell_ports::store::Store;
use foretell_ports::store::memory::Store as MemoryStore;
use foretell_service::instance::{self, Instance};
use foretell_service::{ports as service_ports, remind};
use observed::{Attempt, ObservedLog};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
const CLIENTS: u64 = 4;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const STEPS: u32 = 60;
const TICK_MS: u64 = 3 * MINUTE_MS;
/// How long a planner uses a pointer that it has read.
const POINTER_STALE_MS: u64 = 10 * MINUTE_MS;
/// Longer than the longest step, and a night of quiet hours.
const CALM_MS: u64 = 4 * 24 * HOUR_MS;
/// Many calls per day, and few that matter. Fencing is for appends that arrive minutes late.
const RATES: Rates = Rates { permille: 2, slow_ms_max: 300, seldom_permille: 80, seldom_slow_ms_max: 10 * MINUTE_MS };

/// The run of a seed. Only planners break the rule: the views that they plan from follow it.
pub fn run(seed: u64, protocol: Protocol) -> Run {
    paused(async { World::new(Random::new(seed), protocol).play().await })
}

struct World {
    log: MemoryLog,
    store: MemoryStore,
    clock: Arc<Virtual>,
    random: Random,
    conditions: Conditions,
    protocol: Protocol,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    config: Config,
    processes: Vec<Process>,
    operators: Operators,
    /// The first failure during the run.
    failed: Option<String>,
    started: usize,
    events: u64,
}

impl World {
    fn new(random: Random, protocol: Protocol) -> Self {
        let clock = Arc::new(Virtual::begin());
        // Views that lag by more than a tick, or hardly at all.
        let linger_ms = random.one_of(&[10, 90_000, 90_000]);
        Self {
            log: MemoryLog::new(|_| PARTITIONS, clock.clone()),
            store: MemoryStore::new(),
            clock,
            conditions: Conditions::new(random.clone(), RATES),
            random,
            protocol,
            attempts: Arc::default(),
            config: Config {
                batch_linger_ms: linger_ms,
                batch_age_ms_max: linger_ms,
                drain_ms_max: 100,
                pointer_look_ms: 20 * MINUTE_MS,
                generation_grace_ms: HOUR_MS,
                ..Config::default()
            },
            processes: Vec::new(),
            operators: Operators::default(),
            failed: None,
            started: 0,
            events: 0,
        }
    }

    /// The ports of another process; they follow every rule.
    fn ports(&mut self, conditions: Conditions) -> Ports {
        self.started += 1;
        Ports {
            log: BrokenLog::new(self.log.clone(), Protocol::Sound, self.random.clone()),
            store: BrokenStore::new::<AppointmentFold>(self.store.clone(), Protocol::Sound, self.random.clone()),
            faults: ProcessFaults::new(conditions, self.started, CancellationToken::new()),
        }
    }

    fn start(&mut self, conditions: Conditions) {
        let sound = self.ports(conditions);
        let faults = sound.faults.clone();
        self.conditions.journal.note(&format!("process {} starts", self.started));
        let planner = Ports { log: sound.log.with(self.protocol), ..sound.as_who("planner") };
        let observed = ObservedLog::new(planner.clone(), self.attempts.clone());
        let planner = Planning { observed, store: planner, clock: self.clock.clone() };
        self.processes.push(Process::start(faults, serve(Arc::new(sound), planner, self.config.clone())));
    }

    async fn play(mut self) -> Run {
        for _ in 0..STEPS {
            self.step().await;
            self.failed = self.failed.take().or(self.operators.listen());
            let pause_ms = self.random.one_of(&[3 * HOUR_MS, 5 * MINUTE_MS]);
            sleep(Duration::from_millis(self.random.below(pause_ms))).await;
        }
        self.operators.cut_rebuilds(&self.conditions.journal);
        self.stop().await;
        self.conditions.clear();
        let calm_ms = self.clock.now_ms();
        self.start(self.conditions.calm());
        sleep(Duration::from_millis(CALM_MS)).await;
        self.stop().await;
        let difference = self.failed.take().or(self.judge(calm_ms).await.err());
        Run { difference, tally: self.conditions.journal.tally(), trace: self.conditions.journal.trace() }
    }

    async fn stop(&mut self) {
        while !self.processes.is_empty() {
            self.end(0).await;
        }
    }

    async fn end(&mut self, process: usize) {
        let ended = self.processes.remove(process).kill().await;
        self.failed = self.failed.take().or(ended);
    }

    async fn step(&mut self) {
        while let Some(over) = self.processes.iter().position(Process::is_over) {
            self.end(over).await;
        }
        while self.processes.len() < 3 {
            self.start(self.conditions.clone());
        }
        match self.random.below(14) {
            0 => {
                self.conditions.journal.inject(Kind::Killed, "the world", "anywhere");
                self.end(0).await;
            }
            1..=2 => self.rebalance().await,
            3 => self.log.notify_revoked(&self.group().await, Topic::Reminders),
            4 => {
                let long = self.random.one_of(&[MINUTE_MS, HOUR_MS]);
                self.processes[0].freeze(self.random.below(long));
            }
            5 => {
                let part = self.random.one_of(&[Part::Log, Part::Store]);
                self.conditions.take_away(part, self.random.below(HOUR_MS));
            }
            6 => self.rebuild(),
            _ => self.produce().await,
        }
    }

    async fn serving(&self, family: Family) -> Generation {
        let pointer = self.store.pointer(family).await.unwrap();
        pointer.map_or(Generation { family, number: 1, epoch: 0 }, |pointer| pointer.serving(family))
    }

    async fn group(&self) -> String {
        generation::group(self.serving(Family::Reminders).await)
    }

    /// Rebuilds the views that planners plan from, or the view of what they have announced.
    fn rebuild(&mut self) {
        if self.random.chance(30) {
            return self.operators.cut_rebuilds(&self.conditions.journal);
        }
        let family = self.random.one_of(&[Family::Appointments, Family::Reminders]);
        let order = self.random.one_of(&[RebuildAction::Build, RebuildAction::Build, RebuildAction::Cancel]);
        let ports = self.ports(self.conditions.clone());
        self.operators.begin_rebuild(&ports, family, Limits::default(), order);
    }

    async fn rebalance(&self) {
        let (handover, kind) = self.random.one_of(&[
            (Handover::Drained, Kind::MovedDrained),
            (Handover::AtOnce, Kind::MovedAtOnce),
            (Handover::Unnoticed, Kind::MovedUnnoticed),
            (Handover::Unnoticed, Kind::MovedUnnoticed),
        ]);
        let shift = self.random.below(3) as usize;
        self.conditions.journal.inject(kind, "the world", "group");
        self.log.rebalance(&self.group().await, Topic::Reminders, handover, |partition, members| {
            (partition as usize + shift) % members.max(1)
        });
    }

    async fn produce(&mut self) {
        for _ in 0..1 + self.random.below(12) {
            self.events += 1;
            let time_ms = self.clock.now_ms();
            let id = format!("e{}", self.events);
            let envelope = Envelope { id, source: "urn:simulation".into(), tenant: "t".into(), time_ms };
            let fact = match self.random.chance(20) {
                true => history::by_hand(&self.random, CLIENTS),
                false => history::appointment(&self.random, time_ms, CLIENTS, 10),
            };
            self.log.append(vec![codec::encode_event(&Event { envelope, fact }, &[])]).await.unwrap();
        }
    }

    async fn judge(&self, calm_ms: i64) -> Result<(), String> {
        let journal = &self.conditions.journal;
        let (visits, sent) = (Facts::of(&self.log, Topic::Appointments), Facts::of(&self.log, Topic::Reminders));
        journal.checked("reminders announced", promises::announced_once(&sent)?);
        let rows =
            equation::rows(&visits, &self.store, AppointmentFold::default(), self.serving(Family::Appointments).await)?;
        journal.checked("rows", rows);
        let rows = equation::rows(&sent, &self.store, ReminderFold::default(), self.serving(Family::Reminders).await)?;
        journal.checked("rows", rows);
        journal.checked("announcements tried", promises::announced_if_on(&visits, &self.attempts.lock().unwrap())?);
        let due = promises::due_is_sent((&visits, &sent), calm_ms, self.clock.now_ms())?;
        journal.checked("reminders due in calm conditions", due);
        Ok(())
    }
}

/// What a planner works with.
struct Planning {
    observed: ObservedLog,
    store: Ports,
    clock: Arc<Virtual>,
}

/// A process of the views and reminders roles. Its planner has ports of its own.
async fn serve(ports: Arc<Ports>, planning: Planning, pipeline: Config) -> Result<(), Error> {
    let Planning { observed, store, clock } = planning;
    let config = instance::Config {
        pipeline,
        reads: rows::Config { pointer_stale_ms_max: POINTER_STALE_MS, ..rows::Config::default() },
        reminders: remind::Config { tick_ms: TICK_MS, catch_up_ms_max: 2 * MINUTE_MS, ..remind::Config::default() },
        ..instance::Config::default()
    };
    let folds = Instance::new(config.clone(), service_ports::Ports::new(ports.clone(), ports, clock.clone()));
    let planner = Instance::new(config, service_ports::Ports::new(Arc::new(observed), Arc::new(store), clock))
        .planner(Arc::new(Low));
    let shutdown = CancellationToken::new();
    tokio::try_join!(
        folds.fold(Family::Appointments, task::none(), shutdown.clone()),
        folds.fold(Family::Reminders, planner, shutdown.clone()),
    )?;
    Ok(())
}
