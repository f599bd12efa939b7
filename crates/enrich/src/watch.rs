//! A data file that is replaced while it is used.
//!
//! ```text
//!   look, every few seconds ─► same time, length, inode? ─ yes ─► nothing
//!                                   │ no
//!                                   ▼
//!                              load aside ─► unchanged meanwhile, and good? ─ yes ─► swap
//!                                                        │ no
//!                                                        └─► what was loaded stays; said once a change
//! ```
//!
//! Looking is robust where notifications are not: files that are renamed over, links that Kubernetes moves, network
//! file systems. A file that is being written when it is looked at is loaded at a later look. What is asked never
//! waits: it takes the present state by one atomic read.

use arc_swap::ArcSwapOption;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a file was when it was looked at.
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

/// A file and what is in force of it.
pub struct Watched<T> {
    /// What the file is for, as in `geo_asn`.
    kind: &'static str,
    path: PathBuf,
    current: ArcSwapOption<T>,
    trouble: ArcSwapOption<String>,
    /// What was looked at last; held while a file is loaded, which only another look waits for.
    seen: Mutex<Option<Stamp>>,
}

impl<T> Watched<T> {
    /// A file of which nothing is loaded yet.
    pub fn new(kind: &'static str, path: PathBuf) -> Self {
        Self { kind, path, current: ArcSwapOption::empty(), trouble: ArcSwapOption::empty(), seen: Mutex::default() }
    }

    /// What it is for, and where it is.
    pub fn name(&self) -> String {
        format!("{} {}", self.kind, self.path.display())
    }

    /// What is in force; none until a first good file was there.
    pub fn current(&self) -> arc_swap::Guard<Option<Arc<T>>> {
        self.current.load()
    }

    /// What is wrong with the file at present, in a sentence that names it.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.load().as_deref().cloned()
    }

    /// Looks at the file, and loads it if it is not the one that was looked at before. Blocks.
    pub fn look(&self, load: impl FnOnce(&Path) -> Result<T, String>) {
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
                let stays = if is_loaded { "the one before stays in force" } else { "none is in force" };
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

    /// The file, if it is one and the same before and after it was read. An error has the stamp of a file that is bad
    /// until it changes.
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
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    }

    #[test]
    fn a_file_is_loaded_again_when_it_is_another_one_and_good() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("data"), dir.path().join("aside"));
        let watched = Watched::new("test", path.clone());
        let look = || {
            watched.look(number);
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
        rename("2"); // Of equal length, and perhaps of equal time: another inode all the same.
        assert_eq!(look(), (Some(2), None));
        rename("garbage");
        let (kept, trouble) = look();
        assert!(
            kept == Some(2) && trouble.as_deref().unwrap().ends_with("the one before stays in force"),
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
        watched.look(|path| {
            let read = number(path);
            std::fs::write(path, "12").unwrap();
            read
        });
        assert!(watched.current().is_none() && watched.trouble().unwrap().contains("changed while it was read"));
        watched.look(number);
        assert_eq!((watched.current().as_deref(), watched.trouble()), (Some(&12), None));
    }
}
