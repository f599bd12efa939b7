//! The `[cassandra]` section of the configuration.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// How the cluster is reached. Nodes and keyspace come from the URL.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data centre whose nodes are talked to, and which LOCAL_QUORUM counts; without one, all nodes.
    pub datacenter: Option<String>,
    /// The user of password authentication.
    pub username: Option<String>,
    /// The password; a file is the better place. Never written out.
    #[serde(skip_serializing)]
    pub password: Option<String>,
    /// A file whose trimmed content is the password.
    pub password_file: Option<PathBuf>,
    /// Certificates of the authorities that nodes are checked against, PEM. TLS is used when this is set.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain, PEM.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// Longest time for one statement, retries by the driver included.
    pub request_timeout_ms: u32,
    /// Largest batch, in bytes of keys and cells.
    #[serde(skip)]
    pub batch_bytes_max: usize,
    /// Most statements that one call has under way.
    #[serde(skip)]
    pub concurrency_max: usize,
    /// Copies of each row in a keyspace that `foretell migrate` creates.
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

/// Names no setting: a secret is among them.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("cassandra::Config").finish_non_exhaustive()
    }
}
