//! A backup of the log while it is being written: everything that was acknowledged before the backup began.
//!
//! The ends of all partitions are read first, at one moment, and the log is then copied up to there: segments only
//! grow, and none is deleted meanwhile. Reminders are read before the appointments that cause them, so that a backup
//! never contains a reminder without its cause. Every block is verified while it is copied, and the copy is opened at
//! the end as a start would open it: only a readable backup counts.

use super::block;
use super::partition::{End, Partition};
use super::segment::Segment;
use super::{Log, stored_count, successor};
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::Backup;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

const OPERATION: &str = "back up the log";

/// The ends of all partitions at one moment.
pub struct Cut<'a> {
    ends: Vec<(&'a Arc<Partition>, End)>,
    /// No segment that it includes is deleted while this lives.
    held: RwLockReadGuard<'a, ()>,
}

/// Receives how many bytes of the total are copied; an error from it ends the copy.
pub type OnProgress<'a> = dyn FnMut(u64, u64) -> Result<(), Error> + 'a;

impl Log {
    /// Everything that is acknowledged now.
    pub fn cut(&self) -> Cut<'_> {
        let held = self.inner.cuts.read().unwrap_or_else(PoisonError::into_inner);
        let partitions =
            Topic::EFFECTS_FIRST.iter().flat_map(|topic| self.inner.topics.get(topic).into_iter().flatten());
        Cut { ends: partitions.map(|partition| (partition, *partition.end.borrow())).collect(), held }
    }

    /// Copies the log up to a cut into a directory without a log; durable when it returns. Blocks on the disk.
    ///
    /// `progress` receives the bytes copied so far and the total. Fatal if the log is damaged; the copy must then not
    /// be used.
    pub fn backup(&self, cut: Cut<'_>, to: &Path, progress: &mut OnProgress<'_>) -> Result<Backup, Error> {
        let Cut { ends, held: _held } = cut;
        let mut total = 0;
        for (partition, end) in &ends {
            for segment in partition.until(*end) {
                total += bytes_of(&segment, *end)?;
            }
        }
        let mut backup = Backup::default();
        for (partition, end) in ends {
            let directory = to.join("log").join(partition.topic.name());
            let target = directory.join(partition.number.to_string());
            fs::create_dir_all(&target).map_err(|e| failed(&target, &e))?;
            let count = self.inner.topics.get(&partition.topic).map_or(0, Vec::len);
            stored_count(&directory, count as u32)?;
            successor::store_epoch(&directory, self.inner.epochs.get(&partition.topic).copied().unwrap_or(0))?;
            for segment in partition.until(end) {
                backup.bytes += copy(&segment, end, &target)?;
                progress(backup.bytes, total)?;
            }
            let copied = Partition::open(partition.topic, partition.number, target.clone())?.tail;
            if copied.end != end.offset {
                let detail = format!("the copy in {} ends at {}, not at {}", target.display(), copied.end, end.offset);
                return Err(Error::fatal(OPERATION, detail));
            }
            backup.records += (end.offset - partition.start()).unsigned_abs();
            for directory in [&target, &directory] {
                sync(directory)?;
            }
        }
        sync(&to.join("log"))?;
        sync(to)?;
        Ok(backup)
    }
}

fn bytes_of(segment: &Segment, end: End) -> Result<u64, Error> {
    if segment.base == end.segment {
        return Ok(end.bytes);
    }
    segment.path.metadata().map(|file| file.len()).map_err(|e| failed(&segment.path, &e))
}

/// Copies the durable part of a segment, block by block; returns its bytes.
fn copy(segment: &Segment, end: End, target: &Path) -> Result<u64, Error> {
    let mut bytes = segment.read_all(OPERATION)?;
    let durable = bytes_of(segment, end)? as usize;
    bytes.truncate(durable);
    let mut at = 0;
    while at < durable {
        let header = block::verified(&bytes[at..]).ok_or_else(|| segment.damaged(OPERATION, at as u64))?;
        at += header.block_bytes();
    }
    let name = segment.path.file_name().unwrap_or_default();
    let copy = target.join(name);
    let written = File::create_new(&copy).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(|e| failed(&copy, &e))?;
    Ok(durable as u64)
}

/// Syncs a directory, so that the names in it survive a power loss.
fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|e| failed(directory, &e))
}

fn failed(path: &Path, cause: &io::Error) -> Error {
    Error::fatal(OPERATION, format!("{}: {cause}", path.display()))
}
