//! The weather of a run: what happens to calls, processes and backends, as its seed has it.

use crate::random::Random;
use crate::tally::{Kind, Tally};
use foretell_ports::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Something that can be away as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Log,
    Letters,
    Store,
}

impl Part {
    const fn kind(self) -> Kind {
        match self {
            Self::Log => Kind::LogAway,
            Self::Letters => Kind::LettersAway,
            Self::Store => Kind::StoreAway,
        }
    }
}

/// What happened in a run, in order, and how often what.
#[derive(Clone)]
pub struct Journal {
    began: Instant,
    trace: Arc<Mutex<Vec<String>>>,
    tally: Arc<Mutex<Tally>>,
}

impl Journal {
    pub fn begin() -> Self {
        Self { began: Instant::now(), trace: Arc::default(), tally: Arc::default() }
    }

    pub fn note(&self, what: &str) {
        let line = format!("{:>9} ms: {what}", self.began.elapsed().as_millis());
        self.trace.lock().unwrap().push(line);
    }

    pub fn inject(&self, kind: Kind, who: &'static str, operation: &'static str) {
        self.tally.lock().unwrap().count(kind, who, operation);
    }

    pub fn checked(&self, what: &'static str, number: usize) {
        self.tally.lock().unwrap().checked(what, number);
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }
}

/// How bad the weather is. Of a thousand calls so many are faulty, and as many slow.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    pub permille: u64,
    pub slow_ms_max: u64,
    /// The same for calls that are seldom made: those that append, flush, take over or join.
    pub seldom_permille: u64,
    pub seldom_slow_ms_max: u64,
}

impl Climate {
    const FAIR: Self = Self { permille: 0, slow_ms_max: 1, seldom_permille: 0, seldom_slow_ms_max: 1 };
}

/// What all processes of a run have over them.
#[derive(Clone)]
pub struct Weather {
    pub random: Random,
    pub journal: Journal,
    climate: Climate,
    away: Arc<Mutex<BTreeMap<Part, Instant>>>,
    /// Which process was last given a partition: every other one that still writes to it is late.
    owners: Arc<Mutex<BTreeMap<(String, u32), usize>>>,
}

impl Weather {
    pub fn new(random: Random, climate: Climate) -> Self {
        Self { random, journal: Journal::begin(), climate, away: Arc::default(), owners: Arc::default() }
    }

    pub fn fair(&self) -> Self {
        Self { climate: Climate::FAIR, ..self.clone() }
    }

    pub fn is_fair(&self) -> bool {
        self.climate.permille == 0
    }

    /// Share of faults, and the longest wait, at a call.
    fn at(&self, operation: &str) -> (u64, u64) {
        let Climate { permille, slow_ms_max, seldom_permille, seldom_slow_ms_max } = self.climate;
        match operation {
            "apply" | "append" | "append letters" | "fence" | "fenced append" | "subscribe" | "swap pointer"
            | "drop" => (seldom_permille, seldom_slow_ms_max),
            _ => (permille, slow_ms_max),
        }
    }

    /// Takes a part away for so long.
    pub fn take_away(&self, part: Part, ms: u64) {
        self.journal.note(&format!("{part:?} away for {ms} ms"));
        self.journal.inject(part.kind(), "the world", "all calls");
        self.away.lock().unwrap().insert(part, Instant::now() + Duration::from_millis(ms));
    }

    pub fn clear(&self) {
        self.away.lock().unwrap().clear();
    }

    fn is_away(&self, part: Part) -> bool {
        self.away.lock().unwrap().get(&part).is_some_and(|until| Instant::now() < *until)
    }

    pub fn assigned(&self, group: &str, partition: u32, process: usize) {
        self.owners.lock().unwrap().insert((group.to_owned(), partition), process);
    }

    /// Which process was last given a partition.
    pub fn owner(&self, group: &str, partition: u32) -> Option<usize> {
        self.owners.lock().unwrap().get(&(group.to_owned(), partition)).copied()
    }

    pub fn is_late(&self, group: &str, partition: u32, process: usize) -> bool {
        self.owner(group, partition).is_some_and(|owner| owner != process)
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Fair,
    /// Its part is away, which was counted when it went.
    Away,
    ErrorBefore,
    ErrorAfter,
    CrashBefore,
    CrashAfter,
}

impl Fate {
    const fn kind(self) -> Option<Kind> {
        match self {
            Self::Fair | Self::Away => None,
            Self::ErrorBefore => Some(Kind::Error),
            Self::ErrorAfter => Some(Kind::AnswerLost),
            Self::CrashBefore => Some(Kind::CrashBefore),
            Self::CrashAfter => Some(Kind::CrashAfter),
        }
    }
}

/// What a process suffers: its calls, its stops and its end.
#[derive(Clone)]
pub struct Fates {
    pub weather: Weather,
    /// Which process.
    pub number: usize,
    /// What it does here: `views`, `planner` or `desk`.
    pub who: &'static str,
    pub killed: CancellationToken,
    frozen: Arc<Mutex<Option<Instant>>>,
}

impl Fates {
    pub fn new(weather: Weather, number: usize, killed: CancellationToken) -> Self {
        Self { weather, number, who: "views", killed, frozen: Arc::default() }
    }

    /// The same process, doing something else.
    pub fn as_who(&self, who: &'static str) -> Self {
        Self { who, ..self.clone() }
    }

    /// Lets all its calls wait, as a stopped virtual machine does, or a long pause of a disk.
    pub fn freeze(&self, ms: u64) {
        self.weather.journal.note(&format!("process {} stands still for {ms} ms", self.number));
        self.weather.journal.inject(Kind::Frozen, "the world", "all calls");
        *self.frozen.lock().unwrap() = Some(Instant::now() + Duration::from_millis(ms));
    }

    /// Counts something that was done to a call of this process.
    pub fn inject(&self, kind: Kind, operation: &'static str) {
        self.weather.journal.inject(kind, self.who, operation);
    }

    /// Decides about a call, after what it has to wait for.
    pub async fn draw(&self, part: Part, operation: &'static str) -> Fate {
        let random = &self.weather.random;
        let until = *self.frozen.lock().unwrap();
        if let Some(until) = until {
            sleep_until(until).await;
        }
        if self.killed.is_cancelled() {
            // Whatever a dead process had begun ends here.
            std::future::pending::<()>().await;
        }
        if self.weather.is_away(part) {
            return Fate::Away;
        }
        if self.weather.is_fair() {
            return Fate::Fair;
        }
        let (permille, slow_ms_max) = self.weather.at(operation);
        if random.chance_of_thousand(permille) {
            self.inject(Kind::Slow, operation);
            sleep(Duration::from_millis(1 + random.below(slow_ms_max))).await;
        }
        if !random.chance_of_thousand(permille) {
            return Fate::Fair;
        }
        let fate = match random.below(10) {
            0..=3 => Fate::ErrorBefore,
            4..=6 => Fate::ErrorAfter,
            7 => Fate::CrashBefore,
            _ => Fate::CrashAfter,
        };
        self.weather.journal.note(&format!("process {} {} {operation}: {fate:?}", self.number, self.who));
        fate
    }

    /// Does the call, or not, and answers, or not, as fate has it.
    pub async fn endure<T>(
        &self,
        part: Part,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let fate = self.draw(part, operation).await;
        if let Some(kind) = fate.kind() {
            self.inject(kind, operation);
        }
        match fate {
            Fate::Fair => call.await,
            Fate::Away => Err(Error::retry(operation, "it is away")),
            Fate::ErrorBefore => Err(Error::retry(operation, "injected before")),
            Fate::ErrorAfter => {
                let _ = call.await;
                Err(Error::retry(operation, "injected after"))
            }
            Fate::CrashBefore => self.die().await,
            Fate::CrashAfter => {
                let _ = call.await;
                self.die().await
            }
        }
    }

    /// Ends the process in the midst of a call.
    pub async fn die<T>(&self) -> T {
        self.killed.cancel();
        std::future::pending().await
    }
}
