//! One run: processes that fold a growing log in bad weather, and the comparison at the end.

use crate::faults::{Ports, Protocol, Random, Weather};
use crate::history::{History, Kind};
use foretell::clock::Clock;
use foretell::dead;
use foretell::event::{Topic, codec};
use foretell::log::group::Handover;
use foretell::log::memory::Log as MemoryLog;
use foretell::log::{Log, Record};
use foretell::pipeline::Config;
use foretell::pipeline::family::{self, Views};
use foretell::pipeline::keeper::Alone;
use foretell::store::memory::Store as MemoryStore;
use foretell::store::{Generation, Store};
use foretell::view::cell::Cell;
use foretell::view::client::Appointments;
use foretell::view::materialized::Materialized;
use foretell::view::user::Logins;
use foretell::view::{Fold, Limits, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
/// 1 June 2026, 09:00 UTC.
pub const BEGIN_MS: i64 = 1_780_304_400_000;

/// A clock that runs with the paused runtime.
pub struct Virtual(pub Instant);

impl Clock for Virtual {
    fn now_ms(&self) -> i64 {
        BEGIN_MS + self.0.elapsed().as_millis() as i64
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    pub difference: Option<String>,
    pub injected: u64,
    pub trace: Vec<String>,
}

/// Runs on a paused clock of its own.
pub fn paused<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run)
}

/// The run of a seed: odd ones fold logins, even ones appointments.
pub fn run(seed: u64, protocol: Protocol) -> Run {
    let random = Random::new(seed);
    // Small bounds, so that rows forget and batches close.
    let limits = Limits {
        user_devices_max: 3,
        user_values_max: 3,
        user_failures_max: 4,
        fan_out_users_max: 3,
        client_appointments_max: 4,
        ..Limits::default()
    };
    if seed % 2 == 1 {
        paused(async { World::new(Kind::Logins, Logins { limits }, random, protocol).play().await })
    } else {
        paused(async { World::new(Kind::Appointments, Appointments { limits }, random, protocol).play().await })
    }
}

/// A process: its task, and the switch that its own crash presses.
pub struct Process {
    task: JoinHandle<Result<(), foretell::port::Error>>,
    killed: CancellationToken,
}

impl Process {
    pub fn start(
        killed: CancellationToken,
        run: impl Future<Output = Result<(), foretell::port::Error>> + Send + 'static,
    ) -> Self {
        let end = killed.clone();
        // What is awaited is dropped at the crash, in the middle of whatever it did.
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => Ok(()),
                ended = run => ended,
            }
        });
        Self { task, killed }
    }

    /// Ends it, and answers how it had ended if it had by itself.
    pub async fn kill(self) -> Option<String> {
        self.killed.cancel();
        match self.task.await {
            Ok(Err(error)) => Some(format!("a process ended: {error}")),
            Err(panic) => Some(format!("a process panicked: {panic}")),
            Ok(Ok(())) => None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

struct World<F: Fold + Clone> {
    fold: F,
    log: MemoryLog,
    store: MemoryStore,
    clock: Arc<Virtual>,
    random: Random,
    weather: Weather,
    history: History,
    processes: Vec<Process>,
    started: usize,
}

impl<F: Fold + Clone> World<F> {
    fn new(kind: Kind, fold: F, random: Random, protocol: Protocol) -> Self {
        let clock = Arc::new(Virtual(Instant::now()));
        let weather = Weather {
            random: random.clone(),
            protocol,
            trace: Arc::default(),
            injected: Arc::default(),
            percent: [1, 3, 8][random.below(3) as usize],
        };
        Self {
            fold,
            log: MemoryLog::new(|_| PARTITIONS, clock.clone()),
            store: MemoryStore::new(),
            clock,
            history: History::new(kind, random.clone()),
            random,
            weather,
            processes: Vec::new(),
            started: 0,
        }
    }

    fn note(&self, what: &str) {
        self.weather.trace.lock().unwrap().push(format!("{:>7} ms: {what}", self.clock.now_ms() - BEGIN_MS));
    }

    /// Starts a process that keeps the views through ports of that weather.
    fn start(&mut self, weather: Weather) {
        self.started += 1;
        self.note(&format!("process {} starts", self.started));
        let killed = CancellationToken::new();
        let ports = Ports {
            log: self.log.clone(),
            store: self.store.clone(),
            weather,
            killed: killed.clone(),
            name: self.started,
        };
        let (fold, config) = (self.fold.clone(), config());
        let run = async move {
            let ports = Arc::new(ports);
            let topic_name = format!("foretell.{}", F::FAMILY.topic().name());
            let (log, store) = (ports.clone(), ports);
            let views = Views { fold, partitions: PARTITIONS, topic_name, log, store, config };
            family::keep(views, |_| Arc::new(Alone), CancellationToken::new()).await
        };
        self.processes.push(Process::start(killed, run));
    }

    async fn play(mut self) -> Run {
        let difference = self.storm().await.or(self.calm().await).or_else(|| self.compare()).or_else(|| self.letters());
        let trace = self.weather.trace.lock().unwrap().clone();
        Run { difference, injected: self.weather.injected.load(Ordering::Relaxed), trace }
    }

    /// Bad weather, for a few hundred records.
    async fn storm(&mut self) -> Option<String> {
        let mut failed = None;
        for _ in 0..20 + self.random.below(60) {
            self.step().await;
            let over = self.processes.iter().position(Process::is_over);
            if let Some(over) = over {
                failed = failed.or(self.processes.remove(over).kill().await);
            }
            sleep(Duration::from_millis(self.random.below(150))).await;
        }
        for process in std::mem::take(&mut self.processes) {
            failed = failed.or(process.kill().await);
        }
        failed
    }

    async fn step(&mut self) {
        let group = format!("views.{}.g1", F::FAMILY.name());
        let topic = F::FAMILY.topic();
        match self.random.below(20) {
            0..=11 => {
                let burst = 1 + self.random.below(if self.random.chance(10) { 60 } else { 8 });
                for _ in 0..burst {
                    let record = self.history.next(self.clock.now_ms());
                    let partition =
                        record.key.as_ref().map_or(0, |key| foretell::event::key::partition(key, PARTITIONS));
                    // Now and then into the wrong one.
                    let partition = if self.random.chance(2) { (partition + 1) % PARTITIONS } else { partition };
                    self.log.append_to(partition, record).unwrap();
                }
                self.note(&format!("{burst} records"));
            }
            12 => self.log.skip(topic, self.random.below(2) as u32, 1).unwrap(),
            13..=15 => {
                // Unnoticed is how late writers come about: the old owner goes on for a while.
                let handover =
                    [Handover::Drained, Handover::AtOnce, Handover::Unnoticed][self.random.below(3) as usize];
                let shift = self.random.below(3) as usize;
                self.note(&format!("rebalance by {shift}, {handover:?}"));
                self.log.rebalance(&group, topic, handover, |partition, members| {
                    (partition as usize + shift) % members.max(1)
                });
            }
            16 => self.log.tell(&group, topic),
            17 if !self.processes.is_empty() => {
                let victim = self.random.below(self.processes.len() as u64) as usize;
                self.note(&format!("kills {victim}"));
                let _ = self.processes.remove(victim).kill().await;
            }
            _ if self.processes.len() < 3 => self.start(self.weather.clone()),
            _ => {}
        }
    }

    /// Fair weather: one healthy process finishes.
    async fn calm(&mut self) -> Option<String> {
        let protocol = match self.weather.protocol {
            // Rules that hold only for some writers must hold for the last one too, or they heal themselves.
            broken @ (Protocol::PendingDropped | Protocol::DeadLettersDropped) => broken,
            _ => Protocol::Sound,
        };
        self.start(Weather { percent: 0, protocol, ..self.weather.clone() });
        let generation = Generation { family: F::FAMILY, number: 1, epoch: 0 };
        let began = Instant::now();
        for partition in 0..PARTITIONS {
            loop {
                let end = self.log.extent(F::FAMILY.topic(), partition).await.unwrap().end;
                let reached = self.store.checkpoint(generation, partition).await.unwrap().map_or(0, |c| c.next);
                if reached >= end {
                    break;
                }
                if self.processes.iter().any(Process::is_over) || began.elapsed() > Duration::from_secs(600) {
                    let ended = self.processes.pop().unwrap().kill().await;
                    return Some(ended.unwrap_or_else(|| format!("partition {partition} stuck at {reached} of {end}")));
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        self.processes.pop().unwrap().kill().await
    }

    fn sources(&self) -> Vec<Record> {
        (0..PARTITIONS).flat_map(|partition| self.log.records(F::FAMILY.topic(), partition).unwrap()).collect()
    }

    /// The first row that is not the pure fold of the log.
    fn compare(&self) -> Option<String> {
        let mut pure = Materialized::new(self.fold.clone());
        for record in self.sources() {
            let position = record.position;
            let Ok(event) = codec::decode(&record) else { continue };
            if codec::check_record(&event, &record, PARTITIONS).is_ok() {
                pure.take(&event, Place { partition: position.partition, offset: position.offset });
            }
        }
        let generation = Generation { family: F::FAMILY, number: 1, epoch: 0 };
        let stored = self.store.rows(generation).into_iter().map(|(key, row)| {
            let source = (key.view != F::OWNER).then_some(row.source);
            ((key, source), Cell::decode(&row.cell).unwrap().state.to_vec())
        });
        let stored: BTreeMap<_, _> = stored.collect();
        let wanted: BTreeMap<_, _> = pure.states().map(|(key, source, state)| ((key.clone(), source), state)).collect();
        let keys: BTreeSet<_> = stored.keys().chain(wanted.keys()).collect();
        let differs = keys.into_iter().find(|key| stored.get(key) != wanted.get(key))?;
        Some(format!("{differs:?}: stored {:?}, wanted {:?}", stored.get(differs), wanted.get(differs)))
    }

    /// The first rejected record without a dead letter, or the first dead letter without one.
    fn letters(&self) -> Option<String> {
        let rejected = self.sources().into_iter().filter(|record| {
            let checked = codec::decode(record).and_then(|event| codec::check_record(&event, record, PARTITIONS));
            checked.is_err()
        });
        let rejected: BTreeSet<_> =
            rejected.map(|r| (r.position.partition.to_string(), r.position.offset.to_string())).collect();
        let text =
            |record: &Record, name| String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned();
        let kept = (0..PARTITIONS).flat_map(|partition| self.log.records(Topic::DeadLetters, partition).unwrap());
        let kept: BTreeSet<_> = kept.map(|r| (text(&r, dead::PARTITION), text(&r, dead::OFFSET))).collect();
        let odd = rejected.symmetric_difference(&kept).next()?;
        Some(format!("record {odd:?} is rejected or has a dead letter, and not both"))
    }
}

fn config() -> Config {
    Config {
        batch_records_max: 40,
        owner_records_max: 6,
        cached_rows_max: 24,
        drain_ms_max: 100,
        pointer_look_ms: 5_000,
        ..Config::default()
    }
}
