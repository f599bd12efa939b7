//! State that the writer and the readers of a partition share: its segments, and how far it is durable.

use super::mark::{Mark, Sidecar};
use super::recover::{self, Tail};
use super::segment::Segment;
use foretell_events::Topic;
use foretell_ports::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;

/// How far a partition is durable. Readers stop there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The next offset.
    pub(super) offset: i64,
    /// Base offset of the newest segment with a durable block.
    pub(super) segment: i64,
    /// Durable bytes of that segment.
    pub(super) bytes: u64,
}

/// A partition on disk.
pub(super) struct Partition {
    pub(super) topic: Topic,
    pub(super) number: u32,
    pub(super) directory: PathBuf,
    segments: RwLock<Vec<Segment>>,
    pub(super) end: watch::Sender<End>,
}

/// An opened partition, for its only writer.
pub(super) struct Opened {
    pub(super) partition: Partition,
    pub(super) tail: Tail,
    pub(super) sidecar: Sidecar,
}

impl Partition {
    /// Opens or creates a partition, and repairs its torn tail.
    pub(super) fn open(topic: Topic, number: u32, directory: PathBuf) -> Result<Opened, Error> {
        let fail = |e: io::Error| Error::fatal("open the log", format!("{}: {e}", directory.display()));
        std::fs::create_dir_all(&directory).map_err(fail)?;
        let (sidecar, mark) = Sidecar::open(&directory.join("mark"))?;
        let mut segments = recover::list(&directory)?;
        let tail = recover::recover(&segments, mark)?;
        recover::check_beginning(topic, &segments)?;
        if segments.is_empty() {
            segments.push(create(&directory, tail.end).map_err(fail)?);
        }
        let newest = segments.last().map_or(0, |segment| segment.base);
        if tail.bytes > 0 {
            // After a failed sync, what was read may only have been in the page cache.
            File::open(&Segment::at(&directory, newest).path).and_then(|file| file.sync_all()).map_err(fail)?;
            let mark = Mark { segment: newest, end: tail.bytes, sequence: tail.sequence };
            sidecar.write(mark).map_err(fail)?;
        }
        let end = watch::Sender::new(End { offset: tail.end, segment: newest, bytes: tail.bytes });
        let partition = Self { topic, number, directory, segments: RwLock::new(segments), end };
        Ok(Opened { partition, tail, sidecar })
    }

    /// The segment that is being written.
    pub(super) fn newest(&self) -> Segment {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().cloned().unwrap_or_else(|| Segment::at(&self.directory, 0))
    }

    /// Begins a segment at an offset, or continues the one that an earlier attempt began.
    pub(super) fn roll(&self, base: i64) -> io::Result<Segment> {
        let newest = self.newest();
        if newest.base == base {
            return Ok(newest);
        }
        let segment = create(&self.directory, base)?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment.clone());
        Ok(segment)
    }

    /// The segments that contain durable blocks, as of `end`.
    pub(super) fn until(&self, end: End) -> Vec<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().filter(|segment| segment.base <= end.segment).cloned().collect()
    }

    /// The lowest offset that can be read.
    pub(super) fn start(&self) -> i64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(0, |segment| segment.base)
    }

    /// The oldest segment, unless it is the one that the mark refers to or a later one.
    pub(super) fn oldest_closed(&self) -> Option<Segment> {
        let end = *self.end.borrow();
        // If the newest segment is empty, as after a crash, recovery reads its predecessor.
        let marked = self.until(end).into_iter().rev().nth(usize::from(end.bytes == 0))?;
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().filter(|oldest| oldest.base < marked.base).cloned()
    }

    /// Deletes the oldest segment: first hides it from new readers, then deletes its file. Current readers continue.
    pub(super) fn remove(&self, oldest: &Segment) -> io::Result<()> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).retain(|segment| segment.base != oldest.base);
        std::fs::remove_file(&oldest.path)?;
        // Synced after each deletion, so that a power loss never restores an older segment without its successor.
        File::open(&self.directory)?.sync_all()
    }

    /// The error for an offset that has been deleted.
    pub(super) fn gone(&self, wanted: i64) -> Error {
        let (name, number, start) = (self.topic.name(), self.number, self.start());
        let detail = format!(
            "partition {number} of {name} begins at {start}; offset {wanted} was requested, and earlier records \
             have expired"
        );
        Error::fatal("read the log", detail)
    }

    /// The segment that contains an offset: the last one that begins at or before it.
    pub(super) fn holding(&self, offset: i64) -> Segment {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let before = segments.partition_point(|segment| segment.base <= offset);
        segments.get(before.saturating_sub(1)).cloned().unwrap_or_else(|| Segment::at(&self.directory, 0))
    }
}

/// Creates a segment and syncs its directory, so that its name survives a power loss.
fn create(directory: &Path, base: i64) -> io::Result<Segment> {
    let segment = Segment::at(directory, base);
    File::options().write(true).create(true).truncate(false).open(&segment.path)?;
    File::open(directory)?.sync_all()?;
    Ok(segment)
}
