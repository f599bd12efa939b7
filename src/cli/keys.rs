//! API keys: those of the settings, and the first one of an embedded instance.
//!
//! An instance that other machines can reach needs API keys, and at the first start of a container there are none. With
//! `serve --first-key` the instance creates one itself, in its data directory, the only place that it can write to.

use super::ending::Failure;
use crate::app;
use crate::config::Config;
use foretell_events::DEFAULT_TENANT;
use foretell_ports::file;
use foretell_service::http::auth::{self, Keys, Scope};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Largest file of API keys, in bytes: 10,000 keys, with space for comments.
const KEYS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The file of keys, in the data directory.
const FILE: &str = "api-keys.toml";

/// The keys in the file that the settings name.
///
/// # Errors
/// The file cannot be read or used.
pub(super) fn of_settings(path: &Path) -> Result<Keys, Failure> {
    of_file("http.api_keys_file", path)
}

/// Reads a file of keys; errors begin with the name of the setting or flag.
fn of_file(named_by: &str, path: &Path) -> Result<Keys, Failure> {
    let failed = |cause: &dyn std::fmt::Display| Failure::Other(format!("{named_by}: {}: {cause}", path.display()));
    let text = file::text(path, KEYS_BYTES_MAX).map_err(|cause| failed(&cause))?;
    Keys::parse(&text).map_err(|cause| failed(&cause))
}

/// The keys in the data directory. If there are none, one is created, and printed to `messages` once.
///
/// # Errors
/// The log is not a directory, the directory cannot be written, or its file of keys cannot be used.
pub(super) fn first(config: &Config, messages: &mut dyn Write) -> Result<Keys, Failure> {
    let Some(directory) = app::disk_directory(&config.log) else {
        return Err(Failure::Other(format!(
            "--first-key keeps its key in a data directory, and the log is {}: name a file of keys in \
             http.api_keys_file instead",
            config.log
        )));
    };
    let path = directory.join(FILE);
    ensure(directory, &path, messages).map_err(|cause| {
        Failure::Other(format!(
            "--first-key: cannot write {}: {cause}; let this user write to the directory, or name a file of keys in \
             http.api_keys_file",
            path.display()
        ))
    })?;
    of_file("--first-key", &path)
}

/// Creates a key if there is no file of keys. It is printed only after its digest is on disk, so it works from then on.
fn ensure(directory: &Path, path: &Path, messages: &mut dyn Write) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    std::fs::create_dir_all(directory)?;
    let key = auth::generate();
    // Readable only by its owner from the beginning, and complete before it gets its name.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(document(&key).as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        // Another process has created one concurrently, and printed it.
        Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        persisted => persisted?,
    };
    File::open(directory)?.sync_all()?;
    messages.write_all(announcement(&key, path).as_bytes())
}

/// The contents of a file of keys with only this key.
fn document(key: &str) -> String {
    format!(
        "# Created by `foretell serve --first-key`. Add further [[keys]] here; the documentation describes \
         them.\n[[keys]]\nname = \"first\"\nsha256 = \"{}\"\ntenant = \"{DEFAULT_TENANT}\"\nscopes = [\"{}\"]\n",
        auth::hash(key),
        Scope::Admin.name()
    )
}

fn announcement(key: &str, path: &Path) -> String {
    format!(
        "foretell: this is the first API key (tenant {DEFAULT_TENANT}, scope {}). It is not shown again:\n\
         {key}\n\
         foretell: send it as \"Authorization: Bearer KEY\". To replace it, delete {} and restart.\n",
        Scope::Admin.name(),
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Layers};
    use std::os::unix::fs::PermissionsExt;

    fn config(log: &str) -> Config {
        config::load(Layers { flags: vec![("log", log.to_owned())], ..Layers::default() }).unwrap()
    }

    fn said(log: &str) -> Result<String, String> {
        let mut messages = Vec::new();
        first(&config(log), &mut messages).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(messages).unwrap())
    }

    #[test]
    fn the_first_key_is_shown_once_and_only_its_digest_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let log = format!("disk:{}", data.display());
        let first = said(&log).unwrap();
        let key = first.lines().find(|line| line.starts_with("fk_")).unwrap();
        assert!(first.contains("Authorization: Bearer"), "{first}");
        let kept = std::fs::read_to_string(data.join(FILE)).unwrap();
        assert!(kept.contains(&auth::hash(key)) && !kept.contains(key), "{kept}");
        assert!(Keys::parse(&kept).is_ok(), "{kept}");
        let mode = std::fs::metadata(data.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(said(&log).unwrap(), "", "the next start prints nothing");
        assert_eq!(std::fs::read_to_string(data.join(FILE)).unwrap(), kept);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_first_key_that_cannot_be_kept_is_refused_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("disk:{}", place.path().join(name).display());
        std::fs::write(place.path().join("file"), "").unwrap();
        std::fs::create_dir(place.path().join("damaged")).unwrap();
        std::fs::write(place.path().join("damaged").join(FILE), "keys = 1").unwrap();
        for (log, words) in [
            ("kafka://localhost:9092".to_owned(), ["kafka://localhost:9092", "http.api_keys_file"]),
            (at("file"), ["cannot write", "http.api_keys_file"]),
            (at("damaged"), ["--first-key", FILE]),
        ] {
            let refusal = said(&log).unwrap_err();
            assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
        }
    }
}
