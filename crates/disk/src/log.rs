//! A log in a directory: the embedded default.
//!
//! ```text
//!  DIR/lock                                     one process
//!  DIR/log/logins/partitions                    the stored partition count
//!  DIR/log/logins/epoch                         which incarnation of the topic it is; none: the first, 0
//!  DIR/log/logins/0/00000000000000000000.log    blocks, appended only: see `block`
//!  DIR/log/logins/0/00000000000000218112.log    the newest segment
//!  DIR/log/logins/0/mark                        how far it was acknowledged: see `mark`
//! ```
//! Acknowledged records are synced, one group at a time (`writer`). When the directory is opened, bytes that were
//! never acknowledged are cut off and logged; damage to acknowledged records is an error that names file and position
//! (`recover`). Segments of facts are only ever added; those of decisions and dead letters are deleted once all of
//! their records have expired (`retention`). A backup can be taken at any time (`backup`). The partition count of a
//! topic changes through a successor in the same directory, which replaces the topic at the next opening
//! (`successor`).
//!
//! Consumer groups live in the process, because the directory belongs to one process. Committed offsets are kept in
//! memory and lost with the process: they are only hints, and the checkpoint in the store decides.

mod appender;
mod backup;
mod block;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod lock;
mod mark;
mod partition;
mod reader;
mod recover;
mod retention;
mod segment;
mod successor;
mod writer;

pub use backup::{Cut, OnProgress};
pub use lock::{Directory, lock};

use appender::Appender;
use async_trait::async_trait;
use foretell_events::record::NewRecord;
use foretell_events::{Position, Topic};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::backend::check_fenced;
use foretell_ports::log::backend::{check_sizes, partition_of};
use foretell_ports::log::group::Groups;
use foretell_ports::log::{Extent, Fenced, Membership, Reader, Retention};
use partition::Partition;
use reader::Tailer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use writer::{Job, Writer};

/// Largest append, in bytes of all its records; a larger one is Reject.
pub(crate) const APPEND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of all appends that wait for the writer; further ones wait before they enter the queue.
const QUEUE_BYTES_MAX: usize = 2 * APPEND_BYTES_MAX;
/// The unit of [`QUEUE_BYTES_MAX`]: the overhead of a record in addition to its own bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// Sizes of files and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A new segment is begun before this size is exceeded; a larger block gets a segment of its own.
    pub segment_bytes_max: u64,
    /// Records that a reader returns at once.
    pub batch_records_max: usize,
    /// Bytes of keys and values after which a reader adds no further record to a batch.
    pub batch_bytes_max: usize,
    /// How long records are kept in topics that are not folded into rows.
    pub retention: Retention,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes_max: 64 * 1024 * 1024,
            batch_records_max: 2_000,
            batch_bytes_max: 1024 * 1024,
            retention: Retention::default(),
        }
    }
}

/// The log; clones share everything. Dropping the last one finishes the queue and unlocks the directory.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
    groups: Groups,
}

struct Inner {
    topics: BTreeMap<Topic, Vec<Arc<Partition>>>,
    epochs: BTreeMap<Topic, u8>,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    queue: Arc<Semaphore>,
    syncs: Arc<AtomicU64>,
    broken: watch::Receiver<Option<Error>>,
    writer: Option<JoinHandle<()>>,
    config: Config,
    /// Read-locked during a backup: no segment is deleted in that time.
    cuts: Arc<RwLock<()>>,
    /// Held as long as the log is open.
    directory: Arc<Directory>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }
}

impl Log {
    /// Opens the log of a directory; `partitions` returns the partition count for a topic that does not exist yet, at
    /// least 1. An existing topic keeps its own count. Blocks on the disk.
    ///
    /// Fatal if acknowledged records are damaged or missing.
    pub fn open(
        directory: &Arc<Directory>,
        partitions: impl Fn(Topic) -> u32,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let root = directory.path().join("log");
        successor::install(&root)?;
        let (mut topics, mut epochs) = (BTreeMap::new(), BTreeMap::new());
        let mut appenders = Vec::new();
        for topic in Topic::ALL {
            let path = root.join(topic.name());
            let count = stored_count(&path, topic.partitions(partitions(topic)).max(1))?;
            epochs.insert(topic, successor::stored_epoch(&path)?);
            let mut opened = Vec::new();
            for number in 0..count {
                let partition = Partition::open(topic, number, path.join(number.to_string()))?;
                let appender = Appender::new(partition, &config)?;
                opened.push(Arc::clone(appender.shared()));
                appenders.push(appender);
            }
            topics.insert(topic, opened);
        }
        let syncs = Arc::new(AtomicU64::new(0));
        let cuts = Arc::default();
        let writer = Writer::new(appenders, clock, Arc::clone(&syncs), Arc::clone(&cuts));
        let broken = writer.broken();
        let (jobs, queued) = mpsc::unbounded_channel();
        let spawned = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(queued));
        let writer = Some(spawned.map_err(|e| Error::fatal("open the log", e))?);
        let queue = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / RECORD_OVERHEAD_BYTES));
        let directory = Arc::clone(directory);
        let inner = Inner { topics, epochs, jobs: Some(jobs), queue, syncs, broken, writer, config, cuts, directory };
        Ok(Self { inner: Arc::new(inner), groups: Groups::default() })
    }

    /// Syncs of segment files since the log was opened.
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    fn partition(&self, topic: Topic, partition: u32) -> Result<&Arc<Partition>, Error> {
        let found = self.inner.topics.get(&topic).and_then(|partitions| partitions.get(partition as usize));
        found.ok_or_else(|| foretell_ports::log::backend::unknown(topic, partition))
    }

    /// The index of a partition among all partitions of all topics, as the writer numbers them.
    fn index(&self, topic: Topic, partition: u32) -> usize {
        let before = self.inner.topics.range(..topic).map(|(_, partitions)| partitions.len());
        before.sum::<usize>() + partition as usize
    }

    async fn send(&self, records: Vec<NewRecord>, owner: Option<(usize, u64)>) -> Result<Vec<Position>, Error> {
        check_sizes(&records)?;
        let bytes: usize = records.iter().map(|record| record.bytes() + RECORD_OVERHEAD_BYTES).sum();
        if bytes > APPEND_BYTES_MAX {
            let detail =
                format!("{bytes} bytes in one append; at most {APPEND_BYTES_MAX} are allowed; nothing was appended");
            return Err(Error::reject("append", detail));
        }
        let share = u32::try_from(bytes / RECORD_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.inner.queue).acquire_many_owned(share).await.map_err(|_| closed())?;
        let assign = |record: NewRecord| {
            let partition = partition_of(&record, foretell_ports::log::Log::partitions(self, record.topic));
            (self.index(record.topic, partition), record)
        };
        let records = records.into_iter().map(assign).collect();
        let (answer, answered) = oneshot::channel();
        self.queue(Job::Append { records, owner, answer, permit })?;
        answered.await.map_err(|_| closed())?
    }

    fn queue(&self, job: Job) -> Result<(), Error> {
        let jobs = self.inner.jobs.as_ref().ok_or_else(closed)?;
        jobs.send(job).map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::fatal("append", "the log writer has ended")
}

/// The partition count of a topic, written when the topic is created.
fn stored_count(path: &Path, configured: u32) -> Result<u32, Error> {
    let file = path.join("partitions");
    let fail = |e: io::Error| Error::fatal("open the log", format!("{}: {e}", file.display()));
    match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            let detail = format!("{} does not contain a partition count; restore it from a backup", file.display());
            Error::fatal("open the log", detail)
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(fail)?;
            write_whole(&file, &format!("{configured}\n")).map_err(fail)?;
            Ok(configured)
        }
        Err(e) => Err(fail(e)),
    }
}

/// Writes a small file so that a crash leaves all of it or none of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    // The file's name is an entry of the directory, which is synced separately.
    path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())
}

#[async_trait]
impl foretell_ports::log::Log for Log {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.topics.get(&topic).map_or(1, |partitions| partitions.len() as u32)
    }

    fn epoch(&self, topic: Topic) -> u8 {
        self.inner.epochs.get(&topic).copied().unwrap_or(0)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        self.send(records, None).await
    }

    async fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, Error> {
        let partition = self.partition(topic, partition)?;
        let end = partition.end.borrow().offset;
        Ok(Extent { start: partition.start(), end })
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Membership>, Error> {
        Ok(self.groups.join(Arc::new(self.clone()), group, topic))
    }

    async fn read(&self, topic: Topic, partition: u32, from: i64) -> Result<Box<dyn Reader>, Error> {
        let partition = Arc::clone(self.partition(topic, partition)?);
        let config = self.inner.config;
        let opened = tokio::task::spawn_blocking(move || Tailer::open(partition, from, config)).await;
        Ok(Box::new(opened.map_err(|e| Error::retry("read the log", e))??))
    }

    async fn fence(&self, topic: Topic, partition: u32) -> Result<Box<dyn Fenced>, Error> {
        self.partition(topic, partition)?;
        let index = self.index(topic, partition);
        let (answer, answered) = oneshot::channel();
        self.queue(Job::Fence { partition: index, answer })?;
        let epoch = answered.await.map_err(|_| closed())?;
        Ok(Box::new(Owner { log: self.clone(), topic, partition, index, epoch }))
    }
}

#[async_trait]
impl foretell_ports::log::LogAdmin for Log {
    async fn successors(
        &self,
        exchange: &foretell_ports::log::Exchange,
    ) -> Result<Box<dyn foretell_ports::log::Successors>, Error> {
        // This process has locked the directory, so everything next to the topics belongs to this log.
        let foretell_ports::log::Exchange { topics, partitions, .. } = exchange;
        let Inner { directory, config, .. } = self.inner.as_ref();
        let begin = || successor::Successors::begin(directory, topics, *partitions, *config);
        Ok(Box::new(tokio::task::block_in_place(begin)?))
    }

    async fn broken(&self) -> Error {
        let mut broken = self.inner.broken.clone();
        // The writer ends before the log only when it has panicked.
        let reason = broken.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        reason.unwrap_or_else(closed)
    }
}

struct Owner {
    log: Log,
    topic: Topic,
    partition: u32,
    index: usize,
    epoch: u64,
}

#[async_trait]
impl Fenced for Owner {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, Error> {
        let partitions = foretell_ports::log::Log::partitions(&self.log, self.topic);
        check_fenced(&records, self.topic, self.partition, partitions)?;
        self.log.send(records, Some((self.index, self.epoch))).await
    }
}
