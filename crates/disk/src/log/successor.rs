//! Topics with another partition count, written next to the current ones and then put in their place.
//!
//! ```text
//!  DIR/log/logins.new/     filled record by record; deleted if an attempt did not finish
//!  DIR/log/successors      names the topics whose successors are complete, and will replace them
//!
//!  logins ──rename──► logins.e0        when the directory is opened next
//!  logins.new ──rename──► logins
//! ```
//! The file `successors` is the decision, and opening the log carries it out: each rename checks what exists, so it
//! does not matter how far an earlier opening got. Several topics are replaced together or not at all. The old topic
//! is kept under the name of its epoch.

use super::appender::Appender;
use super::partition::Partition;
use super::{Config, Directory, stored_count, write_whole};
use async_trait::async_trait;
use foretell_events::Topic;
use foretell_events::record::{NewRecord, Record};
use foretell_ports::Error;
use foretell_ports::log::backend::partition_of;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const OPERATION: &str = "replace a topic";
/// Bytes of records after which a block is full.
const BLOCK_BYTES_MAX: usize = 1024 * 1024;

/// The topics of the next epoch in a directory whose log is open; see [`foretell_ports::log::Successors`].
pub(super) struct Successors {
    root: PathBuf,
    topics: BTreeMap<Topic, Vec<Block>>,
    /// Held while anything is written.
    _directory: Arc<Directory>,
}

/// A partition, and its records that are not written yet: records with the same timestamp share a block.
struct Block {
    appender: Appender,
    records: Vec<NewRecord>,
    bytes: usize,
    timestamp_ms: i64,
}

impl Successors {
    /// Begins successors of these topics with the given partition count, at least 1; deletes those of an earlier
    /// attempt. Blocks on the disk.
    ///
    /// Reject if the name that the current topic will get already exists.
    pub(super) fn begin(
        directory: &Arc<Directory>,
        topics: &[Topic],
        partitions: u32,
        config: Config,
    ) -> Result<Self, Error> {
        let root = directory.path().join("log");
        wipe(&root, topics)?;
        let mut begun = BTreeMap::new();
        for &topic in topics {
            let epoch = stored_epoch(&root.join(topic.name()))?;
            let old = retired(&root, topic, epoch);
            if old.exists() {
                let detail =
                    format!("{} is left over from an earlier repartitioning: move it elsewhere first", old.display());
                return Err(Error::reject(OPERATION, detail));
            }
            let path = successor(&root, topic);
            let count = stored_count(&path, partitions)?;
            store_epoch(&path, epoch + 1)?;
            let open = |number: u32| {
                let partition = Partition::open(topic, number, path.join(number.to_string()))?;
                let appender = Appender::new(partition, &config)?;
                Ok(Block { appender, records: Vec::new(), bytes: 0, timestamp_ms: 0 })
            };
            begun.insert(topic, (0..count).map(open).collect::<Result<_, Error>>()?);
        }
        Ok(Self { root, topics: begun, _directory: Arc::clone(directory) })
    }

    fn take(&mut self, records: Vec<Record>) -> Result<(), Error> {
        for record in records {
            let Record { position, timestamp_ms, key, value, headers } = record;
            let record = NewRecord { topic: position.topic, key, value, headers };
            let unknown =
                || Error::reject(OPERATION, format!("{} is not part of this repartitioning", record.topic.name()));
            let partitions = self.topics.get_mut(&record.topic).ok_or_else(unknown)?;
            let number = partition_of(&record, partitions.len() as u32) as usize;
            let block = &mut partitions[number];
            if block.timestamp_ms != timestamp_ms || block.bytes >= BLOCK_BYTES_MAX {
                block.write()?;
            }
            block.timestamp_ms = timestamp_ms;
            block.bytes += record.bytes();
            block.records.push(record);
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), Error> {
        let mut names = String::new();
        for (topic, partitions) in &mut self.topics {
            for block in partitions.iter_mut() {
                block.write()?;
                block.appender.finish()?;
            }
            let path = successor(&self.root, *topic);
            for number in 0..partitions.len() {
                sync(&path.join(number.to_string()))?;
            }
            sync(&path)?;
            names.extend([topic.name(), "\n"]);
        }
        sync(&self.root)?;
        let decision = decision(&self.root);
        write_whole(&decision, &names).map_err(|e| failed(&decision, &e))
    }
}

#[async_trait]
impl foretell_ports::log::Successors for Successors {
    async fn add(&mut self, records: Vec<Record>) -> Result<(), Error> {
        tokio::task::block_in_place(|| self.take(records))
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        tokio::task::block_in_place(|| self.close())
    }

    async fn discard(self: Box<Self>) -> Result<(), Error> {
        let topics: Vec<_> = self.topics.keys().copied().collect();
        tokio::task::block_in_place(|| wipe(&self.root, &topics))
    }
}

impl Block {
    fn write(&mut self) -> Result<(), Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.appender.add(&std::mem::take(&mut self.records), self.timestamp_ms)
    }
}

/// Replaces topics by their complete successors; called before a log is opened.
pub(super) fn install(root: &Path) -> Result<(), Error> {
    let decision = decision(root);
    let names = match fs::read_to_string(&decision) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| failed(&decision, &e))?,
    };
    for topic in Topic::ALL.into_iter().filter(|topic| names.lines().any(|name| name == topic.name())) {
        for (from, to) in renames(root, topic)? {
            fs::rename(&from, &to).map_err(|e| failed(&from, &e))?;
            sync(root)?;
        }
    }
    fs::remove_file(&decision).map_err(|e| failed(&decision, &e))?;
    sync(root)
}

/// The renames that are still needed until the successor of a topic is installed.
fn renames(root: &Path, topic: Topic) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let (new, current) = (successor(root, topic), root.join(topic.name()));
    if !new.exists() {
        return Ok(Vec::new());
    }
    let mut renames = Vec::new();
    if current.exists() {
        renames.push((current.clone(), retired(root, topic, stored_epoch(&current)?)));
    }
    renames.push((new, current));
    Ok(renames)
}

/// The epoch of a topic; 0 if none is stored.
pub(super) fn stored_epoch(topic: &Path) -> Result<u8, Error> {
    let file = topic.join("epoch");
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|_| {
            let detail = format!("{} does not contain an epoch; restore it from a backup", file.display());
            Error::fatal("open the log", detail)
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(failed(&file, &e)),
    }
}

/// Stores the epoch of a topic, unless it is the first.
pub(super) fn store_epoch(topic: &Path, epoch: u8) -> Result<(), Error> {
    let file = topic.join("epoch");
    match epoch {
        0 => Ok(()),
        _ => write_whole(&file, &format!("{epoch}\n")).map_err(|e| failed(&file, &e)),
    }
}

fn wipe(root: &Path, topics: &[Topic]) -> Result<(), Error> {
    for topic in topics {
        let path = successor(root, *topic);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&path, &e)),
            _ => {}
        }
    }
    Ok(())
}

fn successor(root: &Path, topic: Topic) -> PathBuf {
    root.join(format!("{}.new", topic.name()))
}

fn retired(root: &Path, topic: Topic, epoch: u8) -> PathBuf {
    root.join(format!("{}.e{epoch}", topic.name()))
}

fn decision(root: &Path) -> PathBuf {
    root.join("successors")
}

/// Syncs a directory, so that the names in it survive a power loss.
fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|e| failed(directory, &e))
}

fn failed(path: &Path, cause: &io::Error) -> Error {
    Error::fatal(OPERATION, format!("{}: {cause}", path.display()))
}
