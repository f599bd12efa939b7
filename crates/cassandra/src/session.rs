//! Connecting: the URL, security, and the settings of all statements.

use super::config::Config;
use super::fault;
use foretell_ports::Error;
use foretell_ports::file::{self, SECRET_BYTES_MAX};
use openssl::ssl::{SslContext, SslContextBuilder, SslFiletype, SslMethod, SslVerifyMode};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::{Consistency, SerialConsistency};
use std::time::Duration;

/// Longest keyspace name that Cassandra accepts.
const KEYSPACE_BYTES_MAX: usize = 48;

/// Nodes and keyspace of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) nodes: Vec<String>,
    pub(super) keyspace: String,
}

impl Address {
    /// Fatal when the URL is not of the form `cassandra://host:port,host:port/keyspace`.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let parts = url.strip_prefix("cassandra://").and_then(|rest| rest.split_once('/'));
        parts
            .filter(|(nodes, keyspace)| !nodes.is_empty() && is_name(keyspace))
            .map(|(nodes, keyspace)| Self {
                nodes: nodes.split(',').map(str::to_owned).collect(),
                keyspace: keyspace.to_owned(),
            })
            .ok_or_else(|| {
                let form = "cassandra://host:port,host:port/keyspace, with a keyspace of a-z, 0-9 and _";
                Error::fatal("open the store", format!("{url} is not of the form {form}"))
            })
    }
}

fn is_name(keyspace: &str) -> bool {
    keyspace.len() <= KEYSPACE_BYTES_MAX
        && keyspace.starts_with(|first: char| first.is_ascii_lowercase())
        && keyspace.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Connects without a keyspace.
pub(super) async fn connect(address: &Address, config: &Config) -> Result<Session, Error> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &config.datacenter {
        policy = policy.prefer_datacenter(datacenter.clone());
    }
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(Duration::from_millis(u64::from(config.request_timeout_ms))))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&address.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .tls_context(tls(config)?);
    if let (Some(username), Some(password)) = (&config.username, password(config)?) {
        builder = builder.user(username, password);
    }
    builder.build().await.map_err(|error| fault::connection(&error))
}

fn password(config: &Config) -> Result<Option<String>, Error> {
    let Some(path) = &config.password_file else { return Ok(config.password.clone()) };
    let read = file::text(path, SECRET_BYTES_MAX)
        .map_err(|error| Error::fatal("open the store", format!("{}: {error}", path.display())))?;
    Ok(Some(read.trim().to_owned()))
}

/// Nodes must present a certificate of one of the configured authorities.
fn tls(config: &Config) -> Result<Option<SslContext>, Error> {
    let Some(ca_file) = &config.ca_file else { return Ok(None) };
    let build = || {
        let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
        context.set_ca_file(ca_file)?;
        context.set_verify(SslVerifyMode::PEER);
        if let Some(file) = &config.certificate_file {
            context.set_certificate_chain_file(file)?;
        }
        if let Some(file) = &config.key_file {
            context.set_private_key_file(file, SslFiletype::PEM)?;
        }
        Ok(Some(context.build()))
    };
    build().map_err(|error: openssl::error::ErrorStack| Error::fatal("open the store", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_nodes_and_a_plain_keyspace() {
        let address = Address::parse("cassandra://a:9042,b:9043/foretell_1").expect("a good URL");
        assert_eq!(address.nodes, ["a:9042", "b:9043"]);
        assert_eq!(address.keyspace, "foretell_1");
        for bad in ["", "cassandra://a:1", "cassandra:///k", "cassandra://a:1/", "cassandra://a:1/K", "kafka://a:1/k"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(Address::parse(&format!("cassandra://a:1/{}", "k".repeat(49))).is_err());
    }
}
