//! The `[cassandra]` section of the configuration.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// How to connect to the cluster. Nodes and keyspace come from the URL.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data centre whose nodes are used, and in which LOCAL_QUORUM counts; none: all nodes.
    pub datacenter: Option<String>,
    /// The user name for password authentication.
    pub username: Option<String>,
    /// The password; prefer `password_file`. Never written out.
    #[serde(skip_serializing)]
    pub password: Option<String>,
    /// A file whose trimmed content is the password.
    pub password_file: Option<PathBuf>,
    /// CA certificates that node certificates are verified with, PEM. Setting it enables TLS.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain, PEM.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// Longest time for one statement, including retries by the driver.
    pub request_timeout_ms: u32,
    /// Largest batch, in bytes of keys and cells.
    #[serde(skip)]
    pub batch_bytes_max: usize,
    /// Maximum number of concurrent statements per call.
    #[serde(skip)]
    pub concurrency_max: usize,
    /// Copies of each row in a keyspace created by `foretell migrate`.
    pub replication_factor: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            datacenter: None,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            request_timeout_ms: 5_000,
            batch_bytes_max: 512 * 1024,
            concurrency_max: 32,
            replication_factor: 3,
        }
    }
}

/// Contains no values, because some are secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("cassandra::Config").finish_non_exhaustive()
    }
}
