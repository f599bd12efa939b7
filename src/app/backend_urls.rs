//! The log and store of an instance, which a command compares with its own settings.
//!
//! A command sends its requests to the process that serves its data directory. That process may use another log or
//! store, for example if only one of the two was set: the command would then change data that its user did not name.

use super::ports::disk_directory;
use crate::config::Config;
use foretell_ports::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tokio::net::UnixListener;

/// Path at which a process reports its log and store, on the socket in its data directory.
pub const PATH: &str = "/admin/instance";

/// URLs of a log and a store; those of directories are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendUrls {
    /// The log.
    pub log: String,
    /// The store.
    pub store: String,
}

impl BackendUrls {
    /// Log and store of the settings, relative to the working directory of this process.
    pub fn of(config: &Config) -> Self {
        Self { log: absolute(&config.log), store: absolute(&config.store) }
    }
}

fn absolute(url: &str) -> String {
    let path = disk_directory(url).and_then(|directory| directory.canonicalize().ok());
    path.map_or_else(|| url.to_owned(), |path| format!("disk:{}", path.display()))
}

/// The socket of the instance, for every user with access to its directory.
pub(super) fn bind_socket(path: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let fail =
        |cause: std::io::Error| Error::fatal("listen on the instance's socket", format!("{}: {cause}", path.display()));
    // The directory is locked, so an existing socket belongs to a process that has ended.
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(fail(cause)),
        _ => {}
    }
    let socket = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::data_directory;
    use crate::config::{self, Layers};

    #[test]
    fn one_directory_has_one_name_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, round) = (directory.path().display(), format!("{}/./", directory.path().display()));
        let of = |log: String, store: &str| {
            let flags = vec![("log", log), ("store", store.to_owned())];
            config::load(Layers { flags, ..Layers::default() }).unwrap()
        };
        let cassandra = "cassandra://node:9042/foretell";
        let (one, other) = (of(format!("disk:{plain}"), cassandra), of(format!("disk:{round}"), cassandra));
        assert_eq!(BackendUrls::of(&one), BackendUrls::of(&other));
        assert_eq!(BackendUrls::of(&one).store, cassandra);
        assert_eq!(data_directory(&one), Some(directory.path()));
        assert_eq!(data_directory(&of("kafka://broker:9092".into(), cassandra)), None);
    }
}
