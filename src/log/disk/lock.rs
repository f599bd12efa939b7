//! One data directory, one process.
//!
//! Log and store of a directory belong to one process at a time. The operating system's lock on a file inside it
//! decides, so it ends with the process, however that ends; the number written into the file only serves the
//! message.

use crate::log::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const OPERATION: &str = "open the data directory";
/// How long a process that has the directory may take to end.
const ENDING_MS_MAX: u64 = 1_000;
/// Between two attempts.
const PAUSE_MS: u64 = 10;

/// A data directory that belongs to this process until the last clone of it is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held, never read: the lock goes with it.
    _lock: File,
}

impl Directory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes a data directory for this process alone; creates it if it does not exist. Waits [`ENDING_MS_MAX`] for one
/// that has it, for it may be ending: a lock also stays while a child of its owner is between its fork and its exec.
///
/// Fatal if another process has it, or if it cannot be created.
pub fn lock(path: &Path) -> Result<Arc<Directory>, Error> {
    let fail = |e: io::Error| Error::fatal(OPERATION, format!("{}: {e}", path.display()));
    std::fs::create_dir_all(path).map_err(fail)?;
    let file = path.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file).map_err(fail)?;
    match try_lock(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(fail)?;
            let detail = format!("{} is in use by another process (pid {})", path.display(), pid.trim());
            return Err(Error::fatal(OPERATION, detail));
        }
        Err(TryLockError::Error(e)) => return Err(fail(e)),
    }
    file.set_len(0).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(Arc::new(Directory { path: path.to_owned(), _lock: file }))
}

fn try_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..ENDING_MS_MAX / PAUSE_MS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(Duration::from_millis(PAUSE_MS)),
            answered => return answered,
        }
    }
    file.try_lock()
}
