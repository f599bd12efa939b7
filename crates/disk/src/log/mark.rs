//! The durable mark: how far a partition was acknowledged.
//!
//! A torn tail and a damaged log look alike: bytes that are not a block. The mark distinguishes them. It is written
//! after each sync, by one positioned write and without a sync of its own: it survives the end of the process. After a
//! power loss it may be outdated, but never ahead of the log.

use bytes::Buf;
use foretell_ports::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"FtM1";

/// The end of the last synced block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Base offset of its segment.
    pub(super) segment: i64,
    /// Where the block ends in the file, in bytes.
    pub(super) end: u64,
    /// The sequence of the block.
    pub(super) sequence: u64,
}

impl Mark {
    fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let crc = rest.get_u32_le();
        let valid = crc32c::crc32c(rest) == crc;
        valid.then(|| Self { segment: rest.get_i64_le(), end: rest.get_u64_le(), sequence: rest.get_u64_le() })
    }
}

/// The file that holds the mark of a partition.
pub(super) struct Sidecar(File);

impl Sidecar {
    /// Opens or creates the file and reads the mark; none if nothing was written, or only zeros reached the disk.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Mark>), Error> {
        let fail = |e: io::Error| Error::fatal("open the log", format!("{}: {e}", path.display()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        let mut bytes = [0; BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok((Self(file), None)),
            Err(e) => return Err(fail(e)),
        }
        if bytes == [0; BYTES] {
            return Ok((Self(file), None));
        }
        let mark = Mark::decode(&bytes).ok_or_else(|| {
            let detail = format!("{} is damaged at byte 0; restore the directory from a backup", path.display());
            Error::fatal("open the log", detail)
        })?;
        Ok((Self(file), Some(mark)))
    }

    /// Records that everything up to the mark is synced.
    pub(super) fn write(&self, mark: Mark) -> io::Result<()> {
        self.0.write_all_at(&mark.encode(), 0)
    }

    /// Syncs the mark, so that it survives a power loss: required before segments that an older mark refers to are
    /// deleted.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
