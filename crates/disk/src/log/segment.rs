//! A segment file and the sparse index that finds an offset in it.
//!
//! The index has about one entry for each 64 KiB of the file: 16 KiB of memory for a segment of 64 MiB. The newest
//! segment is indexed as it grows; an older one by a walk over its headers, when a reader first starts inside it.

use super::block::{HEADER_BYTES, Header};
use foretell_ports::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const INDEX_BYTES: u64 = 64 * 1024;

/// One file of a partition; clones share the index.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Offset of its first record.
    pub(super) base: i64,
    pub(super) path: PathBuf,
    /// Offsets and where their blocks begin, rising in both; empty until it is first needed.
    index: Arc<Mutex<Vec<(i64, u64)>>>,
    /// Timestamp of its last block, once the segment is closed and the timestamp has been read.
    last_ms: Arc<OnceLock<i64>>,
}

impl Segment {
    pub(super) fn at(directory: &Path, base: i64) -> Self {
        Self { base, path: directory.join(format!("{base:020}.log")), index: Arc::default(), last_ms: Arc::default() }
    }

    /// Adds a block to the index, if it is far enough from the previous entry.
    pub(super) fn index(&self, offset: i64, at: u64) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if index.last().is_none_or(|(_, last)| at >= last + INDEX_BYTES) {
            index.push((offset, at));
        }
    }

    /// An indexed block at or before `offset`: its first offset, and where it begins.
    pub(super) fn find(&self, offset: i64) -> Result<(i64, u64), Error> {
        if offset <= self.base {
            return Ok((self.base, 0));
        }
        if self.index.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            for (at, header) in self.headers("read the log")? {
                self.index(header.base, at);
            }
        }
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let before = index.partition_point(|(first, _)| *first <= offset);
        Ok(before.checked_sub(1).map_or((self.base, 0), |last| index[last]))
    }

    pub(super) fn open(&self, operation: &'static str) -> Result<File, Error> {
        File::open(&self.path).map_err(|e| self.failed(operation, &e))
    }

    pub(super) fn read_all(&self, operation: &'static str) -> Result<Vec<u8>, Error> {
        std::fs::read(&self.path).map_err(|e| self.failed(operation, &e))
    }

    /// Byte positions and headers of all blocks, up to the first bytes that are not a header.
    pub(super) fn headers(&self, operation: &'static str) -> Result<Vec<(u64, Header)>, Error> {
        let file = self.open(operation)?;
        let mut found = Vec::new();
        let (mut at, mut bytes) = (0, [0; HEADER_BYTES]);
        loop {
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(found),
                Err(e) => return Err(self.failed(operation, &e)),
            }
            let Some(header) = Header::decode(&bytes) else { return Ok(found) };
            found.push((at, header));
            at += header.block_bytes() as u64;
        }
    }

    /// The header of its first block, if there is one.
    pub(super) fn first(&self, operation: &'static str) -> Result<Option<Header>, Error> {
        let mut bytes = [0; HEADER_BYTES];
        match self.open(operation)?.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Header::decode(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(self.failed(operation, &e)),
        }
    }

    /// Records when its last block was written.
    pub(super) fn close(&self, last_ms: i64) {
        // It may already be known from a walk over the segment; the value is the same.
        let _ = self.last_ms.set(last_ms);
    }

    /// When the last block of a closed segment was written.
    pub(super) fn last_ms(&self, operation: &'static str) -> Result<i64, Error> {
        if let Some(last_ms) = self.last_ms.get() {
            return Ok(*last_ms);
        }
        let last = self.headers(operation)?.last().map(|(_, header)| header.timestamp_ms);
        let last_ms = last.ok_or_else(|| self.damaged(operation, 0))?;
        self.close(last_ms);
        Ok(last_ms)
    }

    /// The error for a failure of the file system.
    pub(super) fn failed(&self, operation: &'static str, cause: &io::Error) -> Error {
        Error::fatal(operation, format!("{}: {cause}", self.path.display()))
    }

    /// The error for acknowledged bytes that have changed.
    pub(super) fn damaged(&self, operation: &'static str, at: u64) -> Error {
        let file = self.path.display();
        let detail = format!(
            "{file} is damaged at byte {at}, with acknowledged records there or after it; the file was not changed; \
             restore the directory from a backup"
        );
        Error::fatal(operation, detail)
    }
}
