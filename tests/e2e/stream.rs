//! A stream of events that flows in measured portions while faults are injected, so that each fault occurs in the
//! middle of a fold; and the expected result.
//!
//! ```text
//!   story ─► producer ─► topics ─► a process that is killed or frozen ───► rows and checkpoints
//!               ▲           │ ends                                               │
//!               └───────────┴── never more than a backlog ahead of the fold ◄────┘
//! ```

use crate::deployment::Deployment;
use crate::facts::drawn;
use crate::process::{PATIENCE, Process, until};
use crate::reminded::Reminded;
use crate::story::Story;
use foretell_domain::address::{Family, Generation, View};
use foretell_domain::view::cell::Cell;
use foretell_events::Topic;
use foretell_ports::{Error, Kind};
use foretell_service::ports::Ports;
use futures::future::{join_all, try_join_all};
use futures::stream::{self, StreamExt};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Records that may be in the log and not yet folded before the stream waits.
const BACKLOG_MAX: i64 = 1_000;
/// Records that may flow after a fault before the next one.
const PORTION: i64 = 1_500;
/// A fault is injected when at least this much of a story is folded, and within this much from there.
const FIRST_PERCENT: i64 = 5;
const SPAN_PERCENT: i64 = 80;
/// Longest time from the detection of a fold in progress to the fault, in milliseconds.
const JITTER_MS: u64 = 20;
/// Interval between two reads of logs and checkpoints.
const LOOK: Duration = Duration::from_millis(20);
/// Buckets that are read concurrently.
const BUCKETS_AT_ONCE: usize = 16;
/// More rows than any bucket has here.
const BUCKET_ROWS_MAX: usize = 10_000;

/// A partition of logins or of appointments.
pub type Place = (Family, u32);

/// How far every partition is folded, and its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<Place, (i64, i64)>);

impl Positions {
    /// Folded offsets.
    pub fn folded(&self) -> i64 {
        self.0.values().map(|(next, _)| next).sum()
    }

    /// Records in the log that are not folded.
    pub fn backlog(&self) -> i64 {
        self.0.values().map(|(next, end)| end - next).sum()
    }

    /// Records of these partitions that are in the log and not folded.
    pub fn backlog_of(&self, places: &BTreeSet<Place>) -> i64 {
        places.iter().filter_map(|place| self.0.get(place)).map(|(next, end)| end - next).sum()
    }

    /// The partitions with a backlog.
    pub fn behind(&self) -> impl Iterator<Item = Place> {
        self.0.iter().filter(|(_, (next, end))| next < end).map(|(place, _)| *place)
    }

    /// How far a partition is folded.
    pub fn next(&self, place: Place) -> i64 {
        self.0[&place].0
    }
}

/// Repeats a read of log or store until it succeeds: they may be busy.
async fn patiently<T>(mut read: impl AsyncFnMut() -> Result<T, Error>) -> T {
    until("log and store answer", async || match read().await {
        Ok(answer) => Some(answer),
        Err(error) if error.kind == Kind::Retry => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

/// Reads the log and the store of a deployment.
struct Lookout {
    ports: Ports,
    generations: Vec<(Generation, u32)>,
}

impl Lookout {
    async fn open(deployment: &Deployment) -> Self {
        let ports = deployment.open().await;
        let mut generations = Vec::new();
        for family in [Family::Logins, Family::Appointments] {
            let pointer = patiently(async || ports.store.pointer(family).await).await.expect("a serving generation");
            generations.push((pointer.serving(family), pointer.partitions));
        }
        Self { ports, generations }
    }

    /// Reads the ends first, so that an observed backlog existed. Fails while a dependency is unavailable.
    async fn look(&self) -> Result<Positions, Error> {
        let places = || {
            let of = |(generation, partitions): &(Generation, u32)| {
                (0..*partitions)
                    .map({
                        let generation = *generation;
                        move |partition| (generation, partition)
                    })
                    .collect::<Vec<_>>()
            };
            self.generations.iter().flat_map(of)
        };
        let log = &self.ports.log;
        let ends = places().map(|(generation, partition)| log.extent(generation.family.topic(), partition));
        let ends = try_join_all(ends).await?;
        let store = &self.ports.store;
        let checkpoints = places().map(|(generation, partition)| store.checkpoint(generation, partition));
        let checkpoints = try_join_all(checkpoints).await?;
        let both = checkpoints
            .into_iter()
            .zip(ends)
            .map(|(checkpoint, extent)| (checkpoint.map_or(0, |checkpoint| checkpoint.next), extent.end));
        Ok(Positions(places().map(|(generation, partition)| (generation.family, partition)).zip(both).collect()))
    }

    /// How many partials of each partition are above its checkpoint: the rows of an unfinished flush.
    async fn ahead(&self, at: &Positions) -> BTreeMap<Place, u64> {
        let mut buckets = Vec::new();
        for view in View::ALL {
            let of_view = self.generations.iter().find(|(generation, _)| generation.family == view.family());
            let Some((generation, _)) = of_view else { continue };
            let found = patiently(async || self.ports.store.buckets(*generation, view).await).await;
            buckets.extend(found.into_iter().map(|bucket| (*generation, view, bucket)));
        }
        let scans = stream::iter(buckets).map(|(generation, view, bucket)| async move {
            let scan = async || self.ports.store.scan(generation, view, bucket, None, BUCKET_ROWS_MAX).await;
            (generation.family, patiently(scan).await)
        });
        let mut ahead = BTreeMap::new();
        for (family, rows) in scans.buffer_unordered(BUCKETS_AT_ONCE).collect::<Vec<_>>().await {
            for (_, row) in rows {
                let place = (family, row.source);
                if Cell::decode(&row.cell).expect("a cell").position >= at.next(place) {
                    *ahead.entry(place).or_default() += 1;
                }
            }
        }
        ahead
    }
}

/// A story on its way into the log.
pub struct Stream {
    story: Story,
    /// Records of the whole story.
    total: i64,
    /// Records that may be sent for now.
    portion: watch::Sender<i64>,
    seen: watch::Receiver<Positions>,
    feeding: AbortOnDropHandle<u64>,
    _watching: AbortOnDropHandle<()>,
    lookout: Arc<Lookout>,
}

impl Stream {
    /// A stream of a story, with each batch sent this many times; nothing flows yet. The deployment has been served
    /// before.
    pub async fn open(deployment: &Deployment, story: Story, times: usize) -> Self {
        let lookout = Arc::new(Lookout::open(deployment).await);
        let (portion, allowed) = watch::channel(0);
        let (show, seen) = watch::channel(patiently(async || lookout.look().await).await);
        let watching = tokio::spawn(watch_on(Arc::clone(&lookout), show));
        let batches = story.batches().into_iter().flat_map(|batch| std::iter::repeat_n(batch, times)).collect();
        let total = (story.events.len() * times) as i64;
        let feeder = Feeder::new(deployment, allowed, seen.clone());
        let feeding = AbortOnDropHandle::new(tokio::spawn(feeder.feed(batches)));
        Self { story, total, portion, seen, feeding, _watching: AbortOnDropHandle::new(watching), lookout }
    }

    /// Waits until a fold is in progress: in the round's own part of the story, of this many rounds, a drawn share is
    /// folded, and there is a backlog in one of these partitions.
    pub async fn middle(&self, (round, rounds): (u64, u64), places: &BTreeSet<Place>) -> Positions {
        let share =
            |of: u64| self.total * FIRST_PERCENT / 100 + self.total * SPAN_PERCENT / 100 * of as i64 / rounds as i64;
        let (from, to) = (share(round), share(round + 1));
        let at = from + drawn(self.total as u64, round, (to - from) as u64 / 2) as i64;
        loop {
            self.until("a fold is in its middle", |seen| {
                self.portion.send_replace(at.max(seen.folded()) + PORTION);
                seen.folded() >= at && seen.backlog_of(places) > 0
            })
            .await;
            // Moves it away from the moment at which a checkpoint was seen to advance.
            sleep(Duration::from_millis(drawn(self.total as u64 + 1, round, JITTER_MS))).await;
            let seen = self.look().await;
            if self.is_middle(&seen, places) {
                return seen;
            }
        }
    }

    /// Stops a process in the middle of a fold of these partitions, which are its own. Their positions do not change
    /// until another process acquires them.
    pub async fn halt(&self, process: &Process, round: (u64, u64), places: &BTreeSet<Place>) -> Positions {
        loop {
            self.middle(round, places).await;
            process.signal("STOP");
            let seen = self.look().await;
            if self.is_middle(&seen, places) {
                return seen;
            }
            process.signal("CONT");
        }
    }

    fn is_middle(&self, seen: &Positions, places: &BTreeSet<Place>) -> bool {
        let share = seen.folded() * 100 / self.total;
        assert!((5..=95).contains(&share), "{share} % of {} were folded: {seen:?}", self.total);
        seen.backlog_of(places) > 0
    }

    /// All partitions of logins and appointments.
    pub fn places(&self) -> BTreeSet<Place> {
        self.seen.borrow().0.keys().copied().collect()
    }

    /// Waits for a condition on the positions.
    pub async fn until(&self, what: &str, so: impl FnMut(&Positions) -> bool) {
        let mut seen = self.seen.clone();
        let reached = timeout(PATIENCE, seen.wait_for(so)).await.is_ok_and(|seen| seen.is_ok());
        let allowed = *self.portion.borrow();
        assert!(reached, "waited {PATIENCE:?} until {what}: {allowed} records may flow, {:?}", self.seen.borrow());
    }

    /// Waits until the fold has advanced by this many records from there. Lets a portion more than these flow: of the
    /// portion before, almost all may already be folded.
    pub async fn advanced(&self, what: &str, from: &Positions, records: i64) {
        let end = from.folded() + records;
        self.portion.send_replace(end + PORTION);
        self.until(what, |seen| seen.folded() > end).await;
    }

    /// The positions, by a separate read.
    pub async fn look(&self) -> Positions {
        patiently(async || self.lookout.look().await).await
    }

    /// See [`Lookout::ahead`].
    pub async fn ahead(&self, at: &Positions) -> BTreeMap<Place, u64> {
        self.lookout.ahead(at).await
    }

    /// Lets the rest flow, and waits until all of it is in the log, in rows, and on the reminders topic; then stops the
    /// processes, and checks all guarantees. Returns a summary of what was sent and announced.
    pub async fn end(self, deployment: &Deployment, processes: Vec<Process>) -> String {
        self.portion.send_replace(i64::MAX);
        let again = self.feeding.await.expect("no panic");
        let at = until("everything is folded", async || {
            let at = self.lookout.look().await.ok()?;
            (at.backlog() == 0).then_some(at)
        })
        .await;
        let due: Vec<_> = self.story.due.iter().collect();
        until("every reminder is on the topic", async || {
            (Reminded::read(deployment).await.active() == due).then_some(())
        })
        .await;
        join_all(processes.into_iter().map(Process::stop)).await;
        assert!(at.folded() >= self.total, "{} of {} acknowledged records are there", at.folded(), self.total);
        assert_eq!(deployment.records(Topic::DeadLetters).await, 0, "every event was folded");
        let output = deployment.output(&["verify"]);
        assert!(output.ends_with("; 0 differ\n"), "{output}");
        let reminded = Reminded::read(deployment).await;
        reminded.check(&self.story.due);
        format!(
            "{} records of {} events ({again} batches were sent again), {} reminder events, {} of them active; \
             verify: {}",
            at.folded(),
            self.story.events.len(),
            reminded.ids.len(),
            due.len(),
            output.trim_end()
        )
    }
}

/// Reads periodically; while reads fail, the positions stay as they were.
async fn watch_on(lookout: Arc<Lookout>, show: watch::Sender<Positions>) {
    loop {
        if let Ok(positions) = lookout.look().await {
            show.send_replace(positions);
        }
        sleep(LOOK).await;
    }
}

/// A producer that does not use Foretell: sends batches one after the other, each until all of it is acknowledged.
struct Feeder {
    producer: FutureProducer,
    topics: [String; 2],
    allowed: watch::Receiver<i64>,
    seen: watch::Receiver<Positions>,
}

impl Feeder {
    fn new(deployment: &Deployment, allowed: watch::Receiver<i64>, seen: watch::Receiver<Positions>) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", deployment.brokers())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2")
            .create()
            .expect("a producer");
        Self {
            producer,
            topics: [Topic::Logins, Topic::Appointments].map(|topic| deployment.topic(topic)),
            allowed,
            seen,
        }
    }

    /// Returns how many batches were sent again.
    async fn feed(mut self, batches: Vec<Vec<Value>>) -> u64 {
        let (mut sent, mut again) = (0, 0);
        for batch in batches {
            sent += batch.len() as i64;
            self.allowed.wait_for(|allowed| *allowed >= sent).await.expect("the stream is there");
            self.seen.wait_for(|seen| seen.backlog() < BACKLOG_MAX).await.expect("the lookout is there");
            while let Err(error) = self.send(&batch).await {
                println!("the stream sends a batch again: {error}");
                again += 1;
            }
        }
        again
    }

    /// A batch that is not acknowledged may still be in the log.
    async fn send(&self, batch: &[Value]) -> Result<(), KafkaError> {
        let mut waiting = Vec::with_capacity(batch.len());
        for event in batch {
            let data = &event["data"];
            let (topic, subject) = match data["user_id"].as_str() {
                Some(user) => (&self.topics[0], user),
                None => (&self.topics[1], data["client_id"].as_str().expect("a client")),
            };
            let (key, value) = (format!("default:{subject}"), event.to_string());
            let headers =
                OwnedHeaders::new().insert(Header { key: "content-type", value: Some("application/cloudevents+json") });
            let record = FutureRecord::to(topic).key(&key).payload(&value).headers(headers);
            waiting.push(self.producer.send_result(record).map_err(|(error, _)| error)?);
        }
        for delivered in join_all(waiting).await {
            delivered.expect("the producer is there").map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

/// Prints how often a fault was injected, and its effect; also when the test passes.
pub fn report(line: &str) {
    // Not through `println`, which is only shown for failed tests.
    writeln!(std::io::stderr(), "injected: {line}").expect("stderr");
}
