//! A data file that can be replaced while it is in use.
//!
//! ```text
//!   check, every few seconds ─► same time, length, inode? ─ yes ─► nothing
//!                                   │ no
//!                                   ▼
//!                              load ─► unchanged meanwhile, and valid? ─ yes ─► swap
//!                                                        │ no
//!                                                        └─► the loaded file stays; logged once per change
//! ```
//!
//! Polling is more robust than notifications: for files that are replaced by a rename, links that Kubernetes moves, and
//! network file systems. A file that is being written during a check is loaded by a later one. Look-ups never wait:
//! they get the current state by one atomic read.

use arc_swap::ArcSwapOption;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The identity of a file at the time of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_s: i64,
    modified_ns: i64,
    bytes: u64,
    inode: u64,
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            bytes: metadata.size(),
            inode: metadata.ino(),
        }
    }
}

/// A file and its content that is in force.
pub struct Watched<T> {
    /// The purpose of the file, such as `geo_asn`.
    kind: &'static str,
    path: PathBuf,
    current: ArcSwapOption<T>,
    trouble: ArcSwapOption<String>,
    /// The file at the last check; locked while a file is loaded, so that only another check waits.
    seen: Mutex<Option<Stamp>>,
}

impl<T> Watched<T> {
    /// A file that has not been loaded yet.
    pub fn new(kind: &'static str, path: PathBuf) -> Self {
        Self { kind, path, current: ArcSwapOption::empty(), trouble: ArcSwapOption::empty(), seen: Mutex::default() }
    }

    /// The file's purpose and path.
    pub fn name(&self) -> String {
        format!("{} {}", self.kind, self.path.display())
    }

    /// The content in force; none until a valid file was loaded.
    pub fn current(&self) -> arc_swap::Guard<Option<Arc<T>>> {
        self.current.load()
    }

    /// What is wrong with the file at present, as a sentence that names it.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.load().as_deref().cloned()
    }

    /// Checks the file, and loads it if it has changed since the last check. Blocks.
    pub fn reload(&self, load: impl FnOnce(&Path) -> Result<T, String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.path);
        if stamp.as_ref().is_ok_and(|stamp| *seen == Some(*stamp)) {
            return;
        }
        match self.load(stamp, load) {
            Ok((stamp, loaded)) => {
                self.current.store(Some(Arc::new(loaded)));
                self.trouble.store(None);
                *seen = Some(stamp);
                self.count("loaded");
                tracing::info!(kind = self.kind, path = %self.path.display(), "loaded a data file");
            }
            Err((stamp, detail)) => {
                let is_loaded = self.current.load().is_some();
                let stays = if is_loaded { "the previous one stays in force" } else { "none is in force" };
                let trouble = format!("{}: {detail}; {stays}", self.name());
                if self.trouble().as_ref() != Some(&trouble) || stamp.is_some() {
                    self.count("failed");
                    tracing::warn!(%trouble, "cannot use a data file");
                }
                self.trouble.store(Some(Arc::new(trouble)));
                *seen = stamp;
            }
        }
    }

    /// Loads the file, if it is the same before and after it was read. An error has the stamp of the file if it stays
    /// invalid until it changes.
    fn load(
        &self,
        before: std::io::Result<Stamp>,
        load: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Result<(Stamp, T), (Option<Stamp>, String)> {
        let before = before.map_err(|cause| (None, cause.to_string()))?;
        let loaded = load(&self.path);
        match stamp(&self.path) {
            Ok(after) if after == before => {
                loaded.map(|loaded| (before, loaded)).map_err(|detail| (Some(before), detail))
            }
            _ => Err((None, "it changed while it was read".to_owned())),
        }
    }

    fn count(&self, result: &'static str) {
        let labels = [(foretell_telemetry::FILE, self.kind), (foretell_telemetry::RESULT, result)];
        metrics::counter!(foretell_telemetry::ENRICH_LOADS, &labels).increment(1);
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    std::fs::metadata(path).map(|metadata| Stamp::from(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(path: &Path) -> Result<u32, String> {
        let text = std::fs::read_to_string(path).map_err(|cause| cause.to_string())?;
        text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
    }

    #[test]
    fn a_file_is_loaded_again_when_it_is_another_one_and_good() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("data"), dir.path().join("aside"));
        let watched = Watched::new("test", path.clone());
        let look = || {
            watched.reload(number);
            (watched.current().as_deref().copied(), watched.trouble())
        };
        let rename = |text: &str| {
            std::fs::write(&aside, text).unwrap();
            std::fs::rename(&aside, &path).unwrap();
        };
        let (none, trouble) = look();
        assert!(none.is_none() && trouble.unwrap().ends_with("none is in force"));
        rename("1");
        assert_eq!(look(), (Some(1), None));
        rename("2"); // Of equal length, and perhaps of equal time, but with another inode.
        assert_eq!(look(), (Some(2), None));
        rename("garbage");
        let (kept, trouble) = look();
        assert!(
            kept == Some(2) && trouble.as_deref().unwrap().ends_with("the previous one stays in force"),
            "{trouble:?}"
        );
        assert_eq!(look(), (Some(2), trouble), "and it is not read again");
        std::fs::remove_file(&path).unwrap();
        assert!(look().0 == Some(2) && look().1.is_some());
        rename("3");
        assert_eq!(look(), (Some(3), None));
    }

    #[test]
    fn a_file_that_changes_under_the_reader_is_read_later() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1").unwrap();
        let watched = Watched::new("test", file.path().to_owned());
        watched.reload(|path| {
            let read = number(path);
            std::fs::write(path, "12").unwrap();
            read
        });
        assert!(watched.current().is_none() && watched.trouble().unwrap().contains("changed while it was read"));
        watched.reload(number);
        assert_eq!((watched.current().as_deref(), watched.trouble()), (Some(&12), None));
    }
}
