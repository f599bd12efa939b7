//! The reminders role in bad weather: processes that keep the views and plan reminders through faulty ports, over
//! days of virtual time, and what must hold of the reminders topic afterwards.

use crate::faults::{Ports, Protocol, Random, Weather};
use crate::history;
use crate::world::{Process, Virtual, paused};
use async_trait::async_trait;
use foretell::clock::Clock;
use foretell::event::reminder::Risk;
use foretell::event::{Envelope, Event, Fact, Position, Topic, codec};
use foretell::log::group::Handover;
use foretell::log::memory::Log as MemoryLog;
use foretell::log::{Error, Extent, Fenced, Log, Membership, NewRecord, Reader};
use foretell::pipeline::Config;
use foretell::pipeline::family::{self, Views};
use foretell::pipeline::keeper::{Alone, Companion};
use foretell::remind::plan::{self, Context, Policy, Status};
use foretell::remind::{self, Assess, Reminders};
use foretell::rows::Pointers;
use foretell::store::memory::Store as MemoryStore;
use foretell::store::{Generation, RowKey};
use foretell::view::cell::Cell;
use foretell::view::client::{self, Appointments, Client};
use foretell::view::materialized::Materialized;
use foretell::view::sent::{self, Reminders as SentFold, Sent};
use foretell::view::{Fold, Limits, Place, fingerprint};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
const HOUR_MS: u64 = 3_600_000;

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    pub difference: Option<String>,
    pub trace: Vec<String>,
    pub announced: usize,
    /// Steps that fell due in fair weather, and are on the topic.
    pub due: usize,
}

/// Runs a seed; the planners do not see the end of the `blind` topic, and so never wait for its views.
pub fn run(seed: u64, blind: Option<Topic>) -> Run {
    paused(async { World::new(Random::new(seed), blind).play().await })
}

/// An announcement as it was handed to the log: its partition, and the ends of the appointments partition when the
/// tick took it and when the record was appended.
struct Attempt {
    record: NewRecord,
    partition: u32,
    ends: std::ops::RangeInclusive<i64>,
}

/// The log as planners see it, with a memory of what they were told.
#[derive(Clone)]
struct Witness {
    inner: Arc<Ports<MemoryLog, MemoryStore>>,
    blind: Option<Topic>,
    taken: Arc<Mutex<BTreeMap<u32, i64>>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl Witness {
    async fn end(&self, partition: u32) -> Result<i64, Error> {
        Ok(self.inner.log.extent(Topic::Appointments, partition).await?.end)
    }
}

#[async_trait]
impl Log for Witness {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.inner.append(records).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        if topic == Topic::Appointments {
            let end = self.end(partition).await?;
            self.taken.lock().unwrap().insert(partition, end);
        }
        let extent = self.inner.extent(topic, partition).await?;
        Ok(if self.blind == Some(topic) { Extent { start: 0, end: 0 } } else { extent })
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        self.inner.subscribe(group, topic).await
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        self.inner.read(topic, partition, from).await
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        let inner = self.inner.fence(topic, partition).await?;
        Ok(Box::new(Watched { inner, partition, witness: self.clone() }))
    }
}

struct Watched {
    inner: Box<dyn Fenced>,
    partition: u32,
    witness: Witness,
}

#[async_trait]
impl Fenced for Watched {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let (partition, witness) = (self.partition, &self.witness);
        let now = witness.end(partition).await?;
        let taken = witness.taken.lock().unwrap().get(&partition).copied().unwrap_or(0);
        let attempts = records.iter().map(|record| Attempt { record: record.clone(), partition, ends: taken..=now });
        witness.attempts.lock().unwrap().extend(attempts);
        self.inner.append(records).await
    }
}

struct NoRisk;

#[async_trait]
impl Assess for NoRisk {
    async fn risk(&self, _: &str, _: &Client, _: &str) -> Option<Risk> {
        None
    }
}

struct World {
    log: MemoryLog,
    store: MemoryStore,
    clock: Arc<Virtual>,
    random: Random,
    weather: Weather,
    blind: Option<Topic>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    config: Config,
    processes: Vec<Process>,
    started: usize,
    events: u64,
}

impl World {
    fn new(random: Random, blind: Option<Topic>) -> Self {
        let clock = Arc::new(Virtual(Instant::now()));
        let weather = Weather {
            random: random.clone(),
            protocol: Protocol::Sound,
            trace: Arc::default(),
            injected: Arc::default(),
            percent: 1,
        };
        // Views that lag behind by more than a tick, or hardly at all.
        let batch_linger_ms = [10, 90_000][random.below(2) as usize];
        Self {
            log: MemoryLog::new(|_| PARTITIONS, clock.clone()),
            store: MemoryStore::new(),
            clock,
            random,
            weather,
            blind,
            attempts: Arc::default(),
            config: Config {
                pointer_look_ms: 3_600_000,
                batch_linger_ms,
                batch_age_ms_max: batch_linger_ms,
                drain_ms_max: 100,
                ..Config::default()
            },
            processes: Vec::new(),
            started: 0,
            events: 0,
        }
    }

    fn note(&self, what: &str) {
        self.weather.trace.lock().unwrap().push(format!("{:>9}: {what}", self.clock.now_ms()));
    }

    fn start(&mut self, percent: u64) {
        self.started += 1;
        let killed = CancellationToken::new();
        let ports = Arc::new(Ports {
            log: self.log.clone(),
            store: self.store.clone(),
            weather: Weather { percent, ..self.weather.clone() },
            killed: killed.clone(),
            name: self.started,
        });
        let attempts = self.attempts.clone();
        let witness = Witness { inner: ports.clone(), blind: self.blind, taken: Arc::default(), attempts };
        let (config, clock) = (self.config.clone(), self.clock.clone());
        self.note("a process starts");
        self.processes.push(Process::start(killed, serve(ports, witness, config, clock)));
    }

    async fn play(mut self) -> Run {
        for _ in 0..40 {
            self.step().await;
            sleep(Duration::from_millis(self.random.below(3 * HOUR_MS))).await;
        }
        let mut difference = None;
        for process in std::mem::take(&mut self.processes) {
            difference = difference.or(process.kill().await);
        }
        let calm_ms = self.clock.now_ms();
        self.start(0);
        sleep(Duration::from_millis(6 * 24 * HOUR_MS)).await;
        for process in std::mem::take(&mut self.processes) {
            difference = difference.or(process.kill().await);
        }
        let (announced, repeated) = self.announced();
        let difference = difference.or(repeated).or_else(|| self.compare(SentFold::default()));
        let difference = difference.or_else(|| self.compare(Appointments::default())).or_else(|| self.stale());
        let (due, missing) = self.due(calm_ms);
        let trace = self.weather.trace.lock().unwrap().clone();
        Run { difference: difference.or(missing), trace, announced, due }
    }

    async fn step(&mut self) {
        let over = self.processes.iter().position(Process::is_over);
        if let Some(over) = over {
            let _ = self.processes.remove(over).kill().await;
        }
        if self.processes.len() < 2 {
            self.start(self.weather.percent);
        }
        match self.random.below(10) {
            0 => drop(self.processes.remove(0).kill().await),
            1..=2 => {
                let handover =
                    [Handover::Drained, Handover::AtOnce, Handover::Unnoticed][self.random.below(3) as usize];
                let shift = self.random.below(2) as usize;
                self.log.rebalance("views.reminders.g1", Topic::Reminders, handover, |partition, members| {
                    (partition as usize + shift) % members.max(1)
                });
            }
            3 => self.log.tell("views.reminders.g1", Topic::Reminders),
            _ => {
                for _ in 0..1 + self.random.below(6) {
                    self.events += 1;
                    let time_ms = self.clock.now_ms();
                    let id = format!("e{}", self.events);
                    let envelope = Envelope { id, source: "urn:simulation".into(), tenant: "t".into(), time_ms };
                    let fact = history::appointment(&self.random, time_ms);
                    self.log.append(vec![codec::encode_event(&Event { envelope, fact }, &[])]).await.unwrap();
                }
            }
        }
    }

    /// Everything that was announced; the first id that is on the topic twice.
    fn announced(&self) -> (usize, Option<String>) {
        let mut ids = BTreeSet::new();
        let events = (0..PARTITIONS).flat_map(|partition| self.log.records(Topic::Reminders, partition).unwrap());
        let ids_of = events.map(|record| codec::decode(&record).unwrap()).filter_map(|event| match event.fact {
            Fact::ReminderDue(announcement) => Some(announcement.reminder_id),
            _ => None,
        });
        let repeated = ids_of.filter(|id| !ids.insert(id.clone())).last();
        (ids.len(), repeated.map(|id| format!("{id} was announced twice")))
    }

    /// The rows of a topic: everything below the offset that `below` answers for a partition.
    fn pure<F: Fold>(&self, fold: F, below: impl Fn(u32) -> i64) -> Materialized<F> {
        let mut pure = Materialized::new(fold);
        for partition in 0..PARTITIONS {
            let records = self.log.records(F::FAMILY.topic(), partition).unwrap();
            for record in records.iter().filter(|record| record.position.offset < below(partition)) {
                pure.take(&codec::decode(record).unwrap(), Place { partition, offset: record.position.offset });
            }
        }
        pure
    }

    fn compare<F: Fold>(&self, fold: F) -> Option<String> {
        let pure = self.pure(fold, |_| i64::MAX);
        let generation = Generation { family: F::FAMILY, number: 1, epoch: 0 };
        let stored = self.store.rows(generation).into_iter().map(|(key, row)| {
            let source = (key.view != F::OWNER).then_some(row.source);
            ((key, source), Cell::decode(&row.cell).unwrap().state.to_vec())
        });
        let stored: BTreeMap<(RowKey, Option<u32>), Vec<u8>> = stored.collect();
        let wanted: BTreeMap<_, _> = pure.states().map(|(key, source, state)| ((key.clone(), source), state)).collect();
        let keys: BTreeSet<_> = stored.keys().chain(wanted.keys()).collect();
        let differs = keys.into_iter().find(|key| stored.get(key) != wanted.get(key))?;
        Some(format!("{differs:?} is not the fold of its topic"))
    }

    /// The first announcement of a visit that was not on, at that start, at any moment between the end that its tick
    /// had taken and its append.
    fn stale(&self) -> Option<String> {
        for Attempt { record, partition, ends } in self.attempts.lock().unwrap().iter() {
            let event = codec::decode(&stored(record)).unwrap();
            let Fact::ReminderDue(announcement) = event.fact else { continue };
            let held = |end: i64| {
                let rows = self.pure(Appointments::default(), |of| if of == *partition { end } else { 0 });
                let client = rows.owner(&client::row_key("t", &announcement.client_id))?;
                let visit = client.appointments.get(&announcement.appointment_id)?;
                let starts_at = codec::rfc3339(visit.start.as_ref()?.at_ms);
                (visit.status.is_open() && starts_at == announcement.starts_at).then_some(())
            };
            if !ends.clone().any(|end| held(end).is_some()) {
                return Some(format!("{announcement:?} held at no end of {ends:?}"));
            }
        }
        None
    }

    /// How many steps fell due in fair weather and were sent; the first one that was not.
    fn due(&self, calm_ms: i64) -> (usize, Option<String>) {
        let clients = self.pure(Appointments::default(), |_| i64::MAX);
        let announced = self.pure(SentFold::default(), |_| i64::MAX);
        let (policy, now_ms, mut due) = (Policy::default(), self.clock.now_ms(), 0);
        for client_id in (0..4).map(|n| format!("c{n}")) {
            let client = clients.owner(&client::row_key("t", &client_id)).cloned().unwrap_or_default();
            let sent = announced.owner(&sent::row_key("t", &client_id)).cloned().unwrap_or(Sent::default());
            let context = Context { tenant: "t", client: &client, sent: &sent, policy: &policy, now_ms };
            for id in client.appointments.keys() {
                for reminder in plan::story(&context, id).into_iter().filter(|r| r.due_at_ms >= calm_ms) {
                    match reminder.status {
                        Status::Sent => due += 1,
                        Status::Failed => return (due, Some(format!("{id} of {client_id} missed {reminder:?}"))),
                        _ => {}
                    }
                }
            }
        }
        (due, None)
    }
}

fn stored(record: &NewRecord) -> foretell::log::Record {
    let position = Position { topic: record.topic, partition: 0, offset: 0 };
    let NewRecord { key, value, headers, .. } = record.clone();
    foretell::log::Record { position, timestamp_ms: 0, key, value, headers }
}

/// What a process of the views and reminders roles does.
async fn serve(
    ports: Arc<Ports<MemoryLog, MemoryStore>>,
    witness: Witness,
    config: Config,
    clock: Arc<Virtual>,
) -> Result<(), Error> {
    let pointers = Arc::new(Pointers::new(ports.clone(), 3_600_000, fingerprint(&Limits::default())));
    let log: Arc<dyn Log> = Arc::new(witness);
    let store = ports.clone();
    let planner = move |sent| -> Arc<dyn Companion> {
        Arc::new(Reminders {
            log: log.clone(),
            store: store.clone(),
            clock: clock.clone(),
            pointers: pointers.clone(),
            sent,
            assess: Arc::new(NoRisk),
            config: remind::Config { tick_ms: 60_000, catch_up_ms_max: 120_000, ..remind::Config::default() },
        })
    };
    let shutdown = CancellationToken::new();
    tokio::try_join!(
        family::keep(views(Appointments::default(), &ports, &config), |_| Arc::new(Alone), shutdown.clone()),
        family::keep(views(SentFold::default(), &ports, &config), planner, shutdown.clone()),
    )?;
    Ok(())
}

fn views<F: Fold>(fold: F, ports: &Arc<Ports<MemoryLog, MemoryStore>>, config: &Config) -> Views<F> {
    let topic_name = format!("foretell.{}", F::FAMILY.topic().name());
    let (log, store, config) = (ports.clone(), ports.clone(), config.clone());
    Views { fold, partitions: PARTITIONS, topic_name, log, store, config }
}
