//! The conditions of a run: what happens to calls, processes and backends, as determined by its seed.

use crate::random::Random;
use crate::tally::{Kind, Tally};
use foretell_ports::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// A part that can be unavailable as a whole.
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

/// What happened in a run, in order, and how often each kind.
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

/// Fault rates: this many of a thousand calls are faulty, and as many slow.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub permille: u64,
    pub slow_ms_max: u64,
    /// The rate for rare calls: those that append, flush, acquire or join.
    pub seldom_permille: u64,
    pub seldom_slow_ms_max: u64,
}

impl Rates {
    const FAIR: Self = Self { permille: 0, slow_ms_max: 1, seldom_permille: 0, seldom_slow_ms_max: 1 };
}

/// What all processes of a run share.
#[derive(Clone)]
pub struct Conditions {
    pub random: Random,
    pub journal: Journal,
    rates: Rates,
    away: Arc<Mutex<BTreeMap<Part, Instant>>>,
    /// The process that each partition was assigned to last: any other one that still writes to it is late.
    owners: Arc<Mutex<BTreeMap<(String, u32), usize>>>,
}

impl Conditions {
    pub fn new(random: Random, rates: Rates) -> Self {
        Self { random, journal: Journal::begin(), rates, away: Arc::default(), owners: Arc::default() }
    }

    pub fn calm(&self) -> Self {
        Self { rates: Rates::FAIR, ..self.clone() }
    }

    pub fn is_calm(&self) -> bool {
        self.rates.permille == 0
    }

    /// The rate of faults, and the longest delay, of a call.
    fn at(&self, operation: &str) -> (u64, u64) {
        let Rates { permille, slow_ms_max, seldom_permille, seldom_slow_ms_max } = self.rates;
        match operation {
            "apply" | "append" | "append letters" | "fence" | "fenced append" | "subscribe" | "swap pointer"
            | "drop" => (seldom_permille, seldom_slow_ms_max),
            _ => (permille, slow_ms_max),
        }
    }

    /// Makes a part unavailable for this long.
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

    /// The process that a partition was assigned to last.
    pub fn owner(&self, group: &str, partition: u32) -> Option<usize> {
        self.owners.lock().unwrap().get(&(group.to_owned(), partition)).copied()
    }

    pub fn is_late(&self, group: &str, partition: u32, process: usize) -> bool {
        self.owner(group, partition).is_some_and(|owner| owner != process)
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    Fair,
    /// Its part is unavailable, which was counted when it began.
    Away,
    ErrorBefore,
    ErrorAfter,
    CrashBefore,
    CrashAfter,
}

impl CallFault {
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

/// The faults of a process: its calls, its pauses and its end.
#[derive(Clone)]
pub struct ProcessFaults {
    pub conditions: Conditions,
    /// The number of the process.
    pub number: usize,
    /// Its task here: `views`, `planner` or `redrive`.
    pub who: &'static str,
    pub killed: CancellationToken,
    frozen: Arc<Mutex<Option<Instant>>>,
}

impl ProcessFaults {
    pub fn new(conditions: Conditions, number: usize, killed: CancellationToken) -> Self {
        Self { conditions, number, who: "views", killed, frozen: Arc::default() }
    }

    /// The same process, with another task.
    pub fn as_who(&self, who: &'static str) -> Self {
        Self { who, ..self.clone() }
    }

    /// Delays all its calls, as a stopped virtual machine does, or a long pause of a disk.
    pub fn freeze(&self, ms: u64) {
        self.conditions.journal.note(&format!("process {} is frozen for {ms} ms", self.number));
        self.conditions.journal.inject(Kind::Frozen, "the world", "all calls");
        *self.frozen.lock().unwrap() = Some(Instant::now() + Duration::from_millis(ms));
    }

    /// Counts a fault of a call of this process.
    pub fn inject(&self, kind: Kind, operation: &'static str) {
        self.conditions.journal.inject(kind, self.who, operation);
    }

    /// Determines the fault of a call, after its delay.
    pub async fn draw(&self, part: Part, operation: &'static str) -> CallFault {
        let random = &self.conditions.random;
        let until = *self.frozen.lock().unwrap();
        if let Some(until) = until {
            sleep_until(until).await;
        }
        if self.killed.is_cancelled() {
            // Calls of a dead process never return.
            std::future::pending::<()>().await;
        }
        if self.conditions.is_away(part) {
            return CallFault::Away;
        }
        if self.conditions.is_calm() {
            return CallFault::Fair;
        }
        let (permille, slow_ms_max) = self.conditions.at(operation);
        if random.chance_of_thousand(permille) {
            self.inject(Kind::Slow, operation);
            sleep(Duration::from_millis(1 + random.below(slow_ms_max))).await;
        }
        if !random.chance_of_thousand(permille) {
            return CallFault::Fair;
        }
        let fault = match random.below(10) {
            0..=3 => CallFault::ErrorBefore,
            4..=6 => CallFault::ErrorAfter,
            7 => CallFault::CrashBefore,
            _ => CallFault::CrashAfter,
        };
        self.conditions.journal.note(&format!("process {} {} {operation}: {fault:?}", self.number, self.who));
        fault
    }

    /// Makes the call, or not, and returns its result, or not, as drawn.
    pub async fn endure<T>(
        &self,
        part: Part,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let fault = self.draw(part, operation).await;
        if let Some(kind) = fault.kind() {
            self.inject(kind, operation);
        }
        match fault {
            CallFault::Fair => call.await,
            CallFault::Away => Err(Error::retry(operation, "it is away")),
            CallFault::ErrorBefore => Err(Error::retry(operation, "injected before")),
            CallFault::ErrorAfter => {
                let _ = call.await;
                Err(Error::retry(operation, "injected after"))
            }
            CallFault::CrashBefore => self.die().await,
            CallFault::CrashAfter => {
                let _ = call.await;
                self.die().await
            }
        }
    }

    /// Ends the process during a call.
    pub async fn die<T>(&self) -> T {
        self.killed.cancel();
        std::future::pending().await
    }
}
