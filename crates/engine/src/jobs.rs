//! Long work with progress, under one protocol: verify, rebuild, redrive, report, train, back up.
//!
//! ```text
//!   query ─► Job::run ─┬─► progress  what is counted, done and total
//!                      ├─► items     findings or steps, one by one
//!                      └─► done, with a report · or failed, with the reason
//! ```
//!
//! A job runs in the background and sends [`JobEvent`]s; over HTTP each is a line of JSON. A job is cancelled by
//! dropping the receiver, for example because a client disconnects: its next report of progress or of an item fails,
//! and with it the job. So every job must report at least once per page.

use async_trait::async_trait;
use foretell_ports::Error;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

/// Events that are buffered for a slow reader before the job waits.
const EVENTS_MAX: usize = 64;

/// A long operation. [`Jobs`] runs it by name, [`start`] runs it in this process.
#[async_trait]
pub trait Job: Clone + Send + Sync + 'static {
    /// The last part of its path, `POST /admin/jobs/{NAME}`.
    const NAME: &'static str;
    /// The operation in error messages, as in `verify the views`.
    const OPERATION: &'static str;
    /// Advice if the connection ends before the job does.
    const WHEN_CUT_OFF: &'static str = "run it again";
    /// Whether a process runs only one at a time, because of the memory that it needs.
    const ONE_AT_A_TIME: bool = false;
    /// What to do.
    type Query: DeserializeOwned + Serialize + Send + Sync + 'static;
    /// An intermediate result.
    type Item: DeserializeOwned + Serialize + Send + 'static;
    /// The final result.
    type Report: DeserializeOwned + Serialize + Send + 'static;

    /// Validates a query before the job starts.
    ///
    /// # Errors
    /// The query is not valid, regardless of the contents of log and store.
    fn check(&self, _query: &Self::Query) -> Result<(), JobRefusal> {
        Ok(())
    }

    /// Runs the job.
    ///
    /// # Errors
    /// Those of the ports, and a Retry if the receiver was dropped.
    async fn run(&self, query: Self::Query, context: &JobContext<Self::Item>) -> Result<Self::Report, Error>;
}

/// The progress of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// What is counted, as in `offsets of logins`.
    pub what: String,
    /// Number that is done.
    pub done: u64,
    /// Total number.
    pub total: u64,
}

/// An event of a job; the last one is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEvent<I, R> {
    /// The progress changed.
    Progress(JobProgress),
    /// An intermediate result.
    Item(I),
    /// The job is complete.
    Done(R),
    /// The job did not complete.
    Failed {
        /// The reason, in a sentence.
        detail: String,
    },
}

/// The events of a job. Dropping it cancels the job.
pub type JobEvents<J> = mpsc::Receiver<JobEvent<<J as Job>::Item, <J as Job>::Report>>;

/// Runs a job in the background.
pub fn start<J: Job>(job: J, query: J::Query) -> JobEvents<J> {
    start_in(job, query, None)
}

/// Runs a job that holds its slot until it has ended, even if its receiver is dropped earlier.
fn start_in<J: Job>(job: J, query: J::Query, slot: Option<OwnedSemaphorePermit>) -> JobEvents<J> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let _slot = slot;
        let context = JobContext::new(J::OPERATION, Arc::new(Channel(sender.clone())));
        let last = match job.run(query, &context).await {
            Ok(report) => JobEvent::Done(report),
            Err(error) => JobEvent::Failed { detail: error.to_string() },
        };
        // Without a receiver there is no one to inform.
        let _ = sender.send(last).await;
    });
    receiver
}

/// Receives the reports of a running job. Clones share their progress.
pub struct JobContext<I> {
    operation: &'static str,
    sink: Arc<dyn Sink<I>>,
    /// Locked while it is sent, so that reports arrive in order.
    progress: Arc<Mutex<JobProgress>>,
}

impl<I> Clone for JobContext<I> {
    fn clone(&self) -> Self {
        Self { operation: self.operation, sink: self.sink.clone(), progress: self.progress.clone() }
    }
}

impl<I: Send + 'static> JobContext<I> {
    fn new(operation: &'static str, sink: Arc<dyn Sink<I>>) -> Self {
        Self { operation, sink, progress: Arc::default() }
    }

    /// Starts a new count.
    pub async fn begin(&self, what: impl Into<String>, total: u64) -> Result<(), Error> {
        self.update(JobProgress { what: what.into(), done: 0, total }).await
    }

    /// Counts `by` more.
    pub async fn advance(&self, by: u64) -> Result<(), Error> {
        self.change(|progress| progress.done += by).await
    }

    /// Sets the count to `done`.
    pub async fn reach(&self, done: u64) -> Result<(), Error> {
        self.change(|progress| progress.done = done).await
    }

    /// Changes the description of the count.
    pub async fn describe(&self, what: impl Into<String>) -> Result<(), Error> {
        self.change(|progress| progress.what = what.into()).await
    }

    /// Sends an item.
    pub async fn item(&self, item: I) -> Result<(), Error> {
        self.sink.send(Signal::Item(item)).await.map_err(|Disconnected| self.disconnected())
    }

    /// Reports progress without waiting: a slow reader misses it.
    pub fn report_now(&self, progress: JobProgress) -> Result<(), Error> {
        self.sink.offer(progress);
        self.check()
    }

    /// Adds `by` to the count if that can be sent at once; returns whether it was. For a future that may be dropped
    /// before it is ready, and must neither lose nor repeat a report.
    pub(crate) fn advance_now(&self, by: u64) -> Result<bool, Error> {
        self.check()?;
        let Ok(mut progress) = self.progress.try_lock() else { return Ok(false) };
        let advanced = JobProgress { done: progress.done + by, ..progress.clone() };
        let is_sent = self.sink.offer(advanced.clone());
        if is_sent {
            *progress = advanced;
        }
        Ok(is_sent)
    }

    /// Fails if the job is cancelled.
    pub fn check(&self) -> Result<(), Error> {
        if self.sink.is_closed() { Err(self.disconnected()) } else { Ok(()) }
    }

    /// The context of a part of the job, whose items are wrapped in items of the job.
    pub fn map<J: Send + 'static>(&self, wrap: impl Fn(J) -> I + Send + Sync + 'static) -> JobContext<J> {
        let sink = Arc::new(Mapped { inner: self.sink.clone(), wrap });
        JobContext { operation: self.operation, sink, progress: self.progress.clone() }
    }

    async fn update(&self, progress: JobProgress) -> Result<(), Error> {
        self.change(|held| *held = progress).await
    }

    async fn change(&self, change: impl FnOnce(&mut JobProgress)) -> Result<(), Error> {
        let mut progress = self.progress.lock().await;
        change(&mut progress);
        let sent = self.sink.send(Signal::Progress(progress.clone())).await;
        sent.map_err(|Disconnected| self.disconnected())
    }

    /// The context of a test that receives from `sender`'s channel.
    #[cfg(test)]
    pub(crate) fn of_test(sender: mpsc::Sender<JobEvent<I, ()>>) -> Self {
        Self::new("test", Arc::new(Channel(sender)))
    }

    fn disconnected(&self) -> Error {
        Error::retry(self.operation, "the client disconnected")
    }
}

enum Signal<I> {
    Progress(JobProgress),
    Item(I),
}

/// The receiver was dropped.
struct Disconnected;

/// Destination of progress and items.
trait Sink<I>: Send + Sync {
    fn send(&self, signal: Signal<I>) -> BoxFuture<'_, Result<(), Disconnected>>;
    /// Sends progress if that is possible at once; returns whether it was.
    fn offer(&self, progress: JobProgress) -> bool;
    fn is_closed(&self) -> bool;
}

struct Channel<I, R>(mpsc::Sender<JobEvent<I, R>>);

impl<I: Send + 'static, R: Send + 'static> Sink<I> for Channel<I, R> {
    fn send(&self, signal: Signal<I>) -> BoxFuture<'_, Result<(), Disconnected>> {
        let event = match signal {
            Signal::Progress(progress) => JobEvent::Progress(progress),
            Signal::Item(item) => JobEvent::Item(item),
        };
        Box::pin(async move { self.0.send(event).await.map_err(|_| Disconnected) })
    }

    fn offer(&self, progress: JobProgress) -> bool {
        self.0.try_send(JobEvent::Progress(progress)).is_ok()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

struct Mapped<O, F> {
    inner: Arc<dyn Sink<O>>,
    wrap: F,
}

impl<I: Send + 'static, O, F: Fn(I) -> O + Send + Sync> Sink<I> for Mapped<O, F> {
    fn send(&self, signal: Signal<I>) -> BoxFuture<'_, Result<(), Disconnected>> {
        self.inner.send(match signal {
            Signal::Progress(progress) => Signal::Progress(progress),
            Signal::Item(item) => Signal::Item((self.wrap)(item)),
        })
    }

    fn offer(&self, progress: JobProgress) -> bool {
        self.inner.offer(progress)
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

/// Why a job did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobRefusal {
    /// There is no such job, or nothing that the query names.
    NotFound(String),
    /// The query is malformed.
    Malformed(String),
    /// The job is already running, and runs only once at a time.
    Busy(String),
}

impl fmt::Display for JobRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotFound(detail) | Self::Malformed(detail) | Self::Busy(detail)) = self;
        f.write_str(detail)
    }
}

/// The events of a job as lines of JSON. Dropping it cancels the job.
pub type JobLines = BoxStream<'static, Result<String, serde_json::Error>>;

/// The jobs of a process, by name. Clones share the slots.
#[derive(Clone, Default)]
pub struct Jobs {
    jobs: BTreeMap<&'static str, Arc<dyn Entry>>,
}

impl Jobs {
    /// Adds a job.
    pub fn with<J: Job>(mut self, job: J) -> Self {
        let slot = J::ONE_AT_A_TIME.then(|| Arc::new(Semaphore::new(1)));
        self.jobs.insert(J::NAME, Arc::new(Registered { job, slot }));
        self
    }

    /// Starts a job.
    ///
    /// # Errors
    /// No job has this name, its query is malformed, or it is already running and runs only once at a time.
    pub fn start(&self, name: &str, query: Value) -> Result<JobLines, JobRefusal> {
        let names = || self.jobs.keys().copied().collect::<Vec<_>>().join(", ");
        let job = self.jobs.get(name).ok_or_else(|| JobRefusal::NotFound(format!("jobs are {}", names())))?;
        job.start(query)
    }
}

/// A job without its types.
trait Entry: Send + Sync {
    fn start(&self, query: Value) -> Result<JobLines, JobRefusal>;
}

struct Registered<J> {
    job: J,
    slot: Option<Arc<Semaphore>>,
}

impl<J: Job> Entry for Registered<J> {
    fn start(&self, query: Value) -> Result<JobLines, JobRefusal> {
        let query = serde_json::from_value(query).map_err(|error| JobRefusal::Malformed(error.to_string()))?;
        self.job.check(&query)?;
        let slot = match &self.slot {
            None => None,
            Some(slot) => Some(slot.clone().try_acquire_owned().map_err(|_| {
                JobRefusal::Busy(format!("{} is already running; only one can run at a time", J::NAME))
            })?),
        };
        let events = start_in(self.job.clone(), query, slot);
        let lines = stream::unfold(events, |mut events| async {
            let line = serde_json::to_string(&events.recv().await?).map(|line| line + "\n");
            Some((line, events))
        });
        Ok(lines.boxed())
    }
}

#[cfg(test)]
mod tests;
