//! The `[kafka]` section of the configuration.

use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Replaces the value of a property that may be a secret.
const REDACTED: &str = "redacted";
/// Property names of librdkafka that contain one of these hold secrets; paths to keys are redacted as well.
const SECRET_NAMES: [&str; 5] = ["password", "secret", "key", "token", "jaas"];

/// The security protocol of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// None: for loopback and closed networks.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// The name that librdkafka uses.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// How to connect to the cluster. The brokers come from the URL.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The security protocol of connections.
    pub security_protocol: SecurityProtocol,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, with a `sasl_` protocol.
    pub sasl_mechanism: Option<String>,
    /// The SASL user.
    pub username: Option<String>,
    /// The SASL password; prefer `password_file`. Never written out.
    #[serde(skip_serializing)]
    pub password: Option<String>,
    /// A file whose trimmed content is the SASL password.
    pub password_file: Option<PathBuf>,
    /// CA certificates that broker certificates are verified with, PEM; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain, PEM.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// A member without a heartbeat for this long loses its partitions.
    pub session_timeout_ms: u32,
    /// Longest time for a request, and for the acknowledgement of a record.
    pub request_timeout_ms: u32,
    /// Longest time for the owner of a new partition to determine its start offset.
    pub start_ms: u32,
    /// Longest time for the owner of a revoked partition to flush before the next owner gets it.
    pub drain_ms: u32,
    /// How long a record may wait for a batch to fill. A higher value means more records per second and higher latency.
    #[serde(skip)]
    pub linger_ms: u32,
    /// Further librdkafka properties. They override defaults of speed and size; properties that the guarantees of the
    /// log depend on (acknowledgement, idempotence, isolation, offsets, assignment) cannot be overridden. Values of
    /// properties with a name that suggests a secret are never written out.
    #[serde(serialize_with = "without_secrets")]
    pub properties: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            security_protocol: SecurityProtocol::Plaintext,
            sasl_mechanism: None,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            session_timeout_ms: 15_000,
            request_timeout_ms: 30_000,
            start_ms: 60_000,
            drain_ms: 10_000,
            linger_ms: 2,
            properties: BTreeMap::new(),
        }
    }
}

/// Contains no values, because some are secrets, also in `properties`.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("kafka::Config").finish_non_exhaustive()
    }
}

fn without_secrets<S: Serializer>(properties: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .collect_map(properties.iter().map(|(name, value)| (name, if is_secret(name) { REDACTED } else { value })))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_may_be_secret_are_written_as_redacted() {
        for (name, expected) in [
            ("sasl.password", REDACTED),
            ("SSL.Key.Password", REDACTED),
            ("ssl.key.pem", REDACTED),
            ("sasl.oauthbearer.client.secret", REDACTED),
            ("sasl.oauthbearer.token.endpoint.url", REDACTED),
            ("sasl.jaas.config", REDACTED),
            ("socket.timeout.ms", "hunter2"),
        ] {
            let properties = BTreeMap::from([(name.to_owned(), "hunter2".to_owned())]);
            let written = serde_json::to_value(Config { properties, ..Config::default() }).unwrap();
            assert_eq!(written["properties"][name], expected, "{name}");
        }
    }
}
