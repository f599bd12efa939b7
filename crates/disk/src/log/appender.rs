//! The end of one partition, which only its writer extends: a block is staged, written, synced, and then published.
//!
//! Readers do not see a block between its write and its sync. A block that cannot be written completely is removed,
//! so that the next one follows the last published block.

use super::Config;
use super::block::Builder;
use super::mark::{Mark, Sidecar};
use super::partition::{End, Opened, Partition};
use super::recover::Tail;
use super::retention::RetentionState;
use super::segment::Segment;
use foretell_events::Position;
use foretell_events::record::NewRecord;
use foretell_ports::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Segments of a partition that are deleted per retention check; the next check continues.
const REMOVED_AT_ONCE_MAX: u64 = 256;
const OPERATION: &str = "append";

pub(super) struct Appender {
    shared: Arc<Partition>,
    segment_bytes_max: u64,
    /// How long its records are kept; none: forever.
    retention: Option<RetentionState>,
    segment: Segment,
    file: File,
    sidecar: Sidecar,
    tail: Tail,
    /// The tail after the next sync.
    written: Option<Tail>,
    pending: Builder,
    /// The epoch of the owner that may append.
    pub(super) epoch: u64,
}

impl Appender {
    pub(super) fn new(opened: Opened, config: &Config) -> Result<Self, Error> {
        let Opened { partition, tail, sidecar } = opened;
        let segment = partition.newest();
        let file = open(&segment).map_err(|e| segment.failed("open the log", &e))?;
        let retention = config.retention.ms(partition.topic);
        let retention = retention.map(|retention_ms| RetentionState::from(retention_ms, &segment)).transpose()?;
        let segment_bytes_max = config.segment_bytes_max;
        let (shared, pending) = (Arc::new(partition), Builder::default());
        Ok(Self {
            shared,
            segment_bytes_max,
            retention,
            segment,
            file,
            sidecar,
            tail,
            written: None,
            pending,
            epoch: 0,
        })
    }

    pub(super) fn shared(&self) -> &Arc<Partition> {
        &self.shared
    }

    pub(super) fn stage(&mut self, record: &NewRecord) -> Position {
        let offset = self.tail.end + i64::from(self.pending.count());
        self.pending.push(record);
        Position { topic: self.shared.topic, partition: self.shared.number, offset }
    }

    /// Writes the pending block; a block that cannot be written completely is removed.
    pub(super) fn write(&mut self, now_ms: i64) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending);
        let timestamp_ms = self.tail.timestamp_ms.max(now_ms);
        let sequence = self.tail.sequence + 1;
        let end = self.tail.end + i64::from(pending.count());
        let block = pending.seal(self.tail.end, sequence, timestamp_ms);
        let is_full = self.tail.bytes + block.len() as u64 > self.segment_bytes_max;
        let is_old = self.retention.as_ref().is_some_and(|retention| retention.is_old(timestamp_ms));
        if self.tail.bytes > 0 && (is_full || is_old) {
            self.roll().map_err(|e| self.refused(&e))?;
        }
        if let Err(cause) = self.file.write_all_at(&block, self.tail.bytes) {
            self.file.set_len(self.tail.bytes).map_err(|e| self.segment.failed(OPERATION, &e))?;
            return Err(self.refused(&cause));
        }
        if let Some(retention) = self.retention.as_mut().filter(|_| self.tail.bytes == 0) {
            retention.begins(timestamp_ms);
        }
        let bytes = self.tail.bytes + block.len() as u64;
        self.written = Some(Tail { bytes, end, sequence, timestamp_ms });
        Ok(())
    }

    /// Adds records in a block of their own, with the given log time; durable after [`finish`](Self::finish).
    pub(super) fn add(&mut self, records: &[NewRecord], timestamp_ms: i64) -> Result<(), Error> {
        for record in records {
            self.stage(record);
        }
        self.write(timestamp_ms)?;
        if let Some(written) = self.written.take() {
            self.segment.index(self.tail.end, self.tail.bytes);
            self.tail = written;
        }
        Ok(())
    }

    /// Makes everything that was added durable, and writes the mark.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.written = (self.tail.bytes > 0).then_some(self.tail);
        self.sync()
    }

    fn roll(&mut self) -> io::Result<()> {
        // Recovery accepts a torn tail in the newest segment only; unsynced records are in the old one.
        self.file.sync_data()?;
        let segment = self.shared.roll(self.tail.end)?;
        self.segment.close(self.tail.timestamp_ms);
        self.file = open(&segment)?;
        self.segment = segment;
        self.tail.bytes = 0;
        Ok(())
    }

    /// Makes the written block durable, writes the mark and publishes the block to readers.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let Some(written) = self.written.take() else { return Ok(()) };
        let mark = Mark { segment: self.segment.base, end: written.bytes, sequence: written.sequence };
        let synced = self.file.sync_data().and_then(|()| self.sidecar.write(mark));
        synced.map_err(|e| self.segment.failed(OPERATION, &e))?;
        self.segment.index(self.tail.end, self.tail.bytes);
        self.tail = written;
        let end = End { offset: written.end, segment: self.segment.base, bytes: written.bytes };
        self.shared.end.send_replace(end);
        Ok(())
    }

    /// Deletes the segments whose last record has expired; returns how many.
    pub(super) fn delete_expired(&self, now_ms: i64) -> Result<u64, Error> {
        let Some(retention) = &self.retention else { return Ok(0) };
        let operation = "delete expired segments";
        let mut removed = 0;
        while let Some(oldest) = self.shared.oldest_closed().filter(|_| removed < REMOVED_AT_ONCE_MAX) {
            if oldest.last_ms(operation)? >= retention.since_ms(now_ms) {
                break;
            }
            if removed == 0 {
                self.sidecar.sync().map_err(|e| oldest.failed(operation, &e))?;
            }
            self.shared.remove(&oldest).map_err(|e| oldest.failed(operation, &e))?;
            removed += 1;
        }
        Ok(removed)
    }

    fn refused(&self, cause: &io::Error) -> Error {
        let directory = self.shared.directory.display();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::retry(OPERATION, format!("no space left on the device: free some in {directory}"))
            }
            _ => Error::retry(OPERATION, format!("cannot write to {directory}: {cause}")),
        }
    }
}

fn open(segment: &Segment) -> io::Result<File> {
    File::options().write(true).open(&segment.path)
}
