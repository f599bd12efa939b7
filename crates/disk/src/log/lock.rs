//! One data directory, one process.
//!
//! Log and store of a directory belong to one process at a time. This is enforced by the operating system's lock on a
//! file in the directory, which is released whenever the process ends; the process id written into the file is only
//! used for the error message.

use foretell_ports::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const OPERATION: &str = "open the data directory";
/// How long to wait for a process that holds the directory, in case it is ending.
const ENDING_MS_MAX: u64 = 1_000;
/// Between two attempts.
const PAUSE_MS: u64 = 10;

/// A data directory that belongs to this process until the last clone of it is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Never read: the lock is released when the file is closed.
    _lock: File,
}

impl Directory {
    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A warning if other users may open the directory; none if only its owner may, as in a directory that this version
    /// created.
    pub fn warning(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.path).ok()?.permissions().mode() & 0o777;
        let path = self.path.display();
        (mode & 0o077 != 0).then(|| {
            format!("the data directory {path} has mode {mode:04o}, so other users may read it: chmod -R go= {path}")
        })
    }
}

/// Locks a data directory for this process; creates it if it does not exist. Waits up to [`ENDING_MS_MAX`] if another
/// process holds it, which may be ending: a lock also remains while a child of its owner is between its fork and its
/// exec.
///
/// Fatal if another process holds it, or if it cannot be created.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_may_read_is_named_with_its_mode() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = lock(parent.path()).expect("locked");
        for (mode, named) in [(0o700, None), (0o750, Some("0750")), (0o755, Some("0755")), (0o701, Some("0701"))] {
            std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(mode)).expect("set");
            let warning = directory.warning();
            assert_eq!(warning.is_some(), named.is_some(), "{mode:o}: {warning:?}");
            assert!(named.is_none_or(|named| warning.as_ref().is_some_and(|text| text.contains(named))), "{warning:?}");
        }
    }
}
