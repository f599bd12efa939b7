//! Opens a partition, and distinguishes a torn tail from damage.
//!
//! Only the newest segment can be torn, because a new one begins after the old one was synced. It is verified
//! completely. The first bytes that are not the next block are a torn tail if they lie beyond the mark and no
//! valid block follows them: they were never acknowledged, so they are cut off, and this is logged. Everything else
//! is damage to acknowledged records, and an error: the log is not changed, and nothing is dropped silently.

use super::block::{self, HEADER_BYTES, Header, MAGIC};
use super::mark::Mark;
use super::segment::Segment;
use foretell_events::Topic;
use foretell_ports::Error;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

const OPERATION: &str = "open the log";

/// Where a partition continues.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tail {
    /// Bytes of the newest segment.
    pub(super) bytes: u64,
    /// The next offset.
    pub(super) end: i64,
    /// Sequence of the last block; 0 before the first.
    pub(super) sequence: u64,
    /// Timestamp of the last block.
    pub(super) timestamp_ms: i64,
}

/// The segments of a partition in rising order of their base offsets.
pub(super) fn list(directory: &Path) -> Result<Vec<Segment>, Error> {
    let fail = |e: io::Error| Error::fatal(OPERATION, format!("{}: {e}", directory.display()));
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|base| base.parse().ok());
        segments.extend(base.map(|base| Segment::at(directory, base)));
    }
    segments.sort_by_key(|segment| segment.base);
    Ok(segments)
}

/// Verifies the newest segment, cuts off its torn tail and indexes it.
///
/// Fatal if acknowledged bytes are damaged or missing.
pub(super) fn recover(segments: &[Segment], mark: Option<Mark>) -> Result<Tail, Error> {
    let Some(newest) = segments.last() else {
        return match mark {
            None => Ok(Tail::default()),
            Some(mark) => Err(missing(mark)),
        };
    };
    if let Some(mark) = mark.filter(|mark| !segments.iter().any(|segment| segment.base == mark.segment)) {
        return Err(missing(mark));
    }
    let bytes = newest.read_all(OPERATION)?;
    let before = match (block::verified(&bytes), segments.len().checked_sub(2)) {
        // There is no predecessor, or retention deleted it: the first block determines where to continue.
        (_, None) if newest.base == 0 => Tail::default(),
        (None, None) => Tail { end: newest.base, ..Tail::default() },
        (Some(first), _) => Tail { end: newest.base, sequence: first.sequence.saturating_sub(1), ..Tail::default() },
        // A crash between the creation of a segment and its first block: its predecessor determines where to continue.
        (None, Some(index)) => last_block(&segments[index], newest.base)?,
    };
    let acknowledged = mark.filter(|mark| mark.segment == newest.base).map_or(0, |mark| mark.end);
    let tail = walk(newest, &bytes, Tail { bytes: 0, ..before });
    if tail.bytes < acknowledged {
        let detail = format!(
            "{} is damaged at byte {}, and everything up to byte {acknowledged} was acknowledged; the file was not \
             changed; restore the directory from a backup",
            newest.path.display(),
            tail.bytes
        );
        return Err(Error::fatal(OPERATION, detail));
    }
    if tail.bytes < bytes.len() as u64 {
        cut(newest, &bytes, tail)?;
    }
    Ok(tail)
}

/// Rejects a topic of facts whose beginning is missing: rows are folded from there.
pub(super) fn check_beginning(topic: Topic, segments: &[Segment]) -> Result<(), Error> {
    match segments.first() {
        Some(first) if first.base > 0 && topic.is_folded() => {
            let detail = format!(
                "the segments before {} are missing, and rows are folded from the first record on; restore the \
                 directory from a backup",
                first.path.display()
            );
            Err(Error::fatal(OPERATION, detail))
        }
        _ => Ok(()),
    }
}

fn missing(mark: Mark) -> Error {
    let detail = format!(
        "the segment {:020}.log is missing, and records in it were acknowledged; restore the directory from a backup",
        mark.segment
    );
    Error::fatal(OPERATION, detail)
}

/// The tail after the last block of a full segment, read from its headers alone.
fn last_block(segment: &Segment, end: i64) -> Result<Tail, Error> {
    let last = segment.headers(OPERATION)?.last().copied();
    match last.filter(|(_, header)| header.end() == end) {
        Some((_, header)) => Ok(Tail { bytes: 0, end, sequence: header.sequence, timestamp_ms: header.timestamp_ms }),
        None => Err(segment.damaged(OPERATION, last.map_or(0, |(at, _)| at))),
    }
}

/// Continues block by block as long as each one follows the previous one.
fn walk(segment: &Segment, bytes: &[u8], mut tail: Tail) -> Tail {
    while let Some(header) = block::verified(&bytes[tail.bytes as usize..]) {
        if header.base != tail.end || header.sequence != tail.sequence + 1 {
            break;
        }
        segment.index(header.base, tail.bytes);
        tail = Tail {
            bytes: tail.bytes + header.block_bytes() as u64,
            end: header.end(),
            sequence: header.sequence,
            timestamp_ms: header.timestamp_ms,
        };
    }
    tail
}

fn cut(segment: &Segment, bytes: &[u8], tail: Tail) -> Result<(), Error> {
    let torn = &bytes[tail.bytes as usize..];
    if follows(torn, tail) {
        return Err(segment.damaged(OPERATION, tail.bytes));
    }
    let fail = |e: io::Error| Error::fatal(OPERATION, format!("{}: {e}", segment.path.display()));
    let file = OpenOptions::new().write(true).open(&segment.path).map_err(fail)?;
    file.set_len(tail.bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    tracing::warn!(file = %segment.path.display(), position = tail.bytes, bytes = torn.len(),
        "removed a torn tail: an append that was never acknowledged");
    Ok(())
}

/// Whether a valid, later block follows the first bytes that are not a block.
fn follows(torn: &[u8], tail: Tail) -> bool {
    let later = |header: Header| header.sequence > tail.sequence && header.base >= tail.end;
    let begins = |at: &usize| torn[*at..].starts_with(&MAGIC) && torn.len() - at >= HEADER_BYTES;
    (1..torn.len()).filter(begins).any(|at| block::verified(&torn[at..]).is_some_and(later))
}
