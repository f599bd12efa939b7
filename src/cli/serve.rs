//! `serve`: checks the requirements of a service before it starts, and logs where it listens.

use super::ending::{Failure, on_signal};
use super::keys;
use super::settings::{Data, Geo, Listen};
use crate::app::{Role, Service, descriptors};
use crate::config::Config;
use crate::version::{COMMIT, VERSION};
use clap::Args;
use clap::builder::FalseyValueParser;
use foretell_ports::clock::Clock;
use foretell_service::http;
use foretell_service::http::auth::{self, Insecure};
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What to serve, and where.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Roles of this process
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Role::Http, Role::Views, Role::Reminders])]
    roles: Vec<Role>,
    /// Allow all requests without API keys, from any machine that can connect
    ///
    /// Without API keys and without this flag, the service listens only on loopback addresses.
    #[arg(long)]
    insecure: bool,
    /// Create an API key if there is none
    ///
    /// For an embedded instance. The key is printed to stderr once; the data directory keeps its digest for every later
    /// start. A file in http.api_keys_file is used instead.
    #[arg(long, env = "FORETELL_FIRST_KEY", value_parser = FalseyValueParser::new())]
    first_key: bool,
    /// Rebuild views that were folded by another version or with other settings
    #[arg(long)]
    auto_rebuild: bool,
    #[command(flatten)]
    pub(super) data: Data,
    #[command(flatten)]
    pub(super) listen: Listen,
    #[command(flatten)]
    pub(super) geo: Geo,
}

/// Serves until a signal.
///
/// # Errors
/// Invalid settings, an address that is not available, and the error that ended the service.
pub(super) async fn run(config: Config, clock: Arc<dyn Clock>, args: Serve) -> Result<(), Failure> {
    let Serve { roles, insecure, first_key, auto_rebuild, .. } = args;
    let insecure = if insecure { Insecure::Accepted } else { Insecure::Refused };
    let shutdown = CancellationToken::new();
    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
    tracing::info!(version = VERSION, commit = COMMIT, roles = names.join(","), "starting");
    tracing::debug!(settings = %config.dump(), "settings");
    descriptors::check(descriptors::raise(), &config).map_err(Failure::Other)?;
    // The other roles only answer probes, which need no key.
    let serves_http = roles.contains(&Role::Http);
    let keys = match config.http.api_keys_file.as_deref() {
        _ if !serves_http => None,
        Some(path) => Some(keys::of_settings(path)?),
        None if first_key => Some(keys::first(&config, &mut std::io::stderr())?),
        None => None,
    };
    let listener = listen("http.listen", &config.http.listen).await?;
    let address = listener.local_addr()?;
    if serves_http {
        auth::check_listen(address, keys.as_ref(), insecure).map_err(Failure::Other)?;
    }
    let ops = listen_for_operators(&config.ops).await?;
    let operators = ops.as_ref().map(TcpListener::local_addr).transpose()?;
    let docs = serves_http.then(|| format!("http://{address}/docs"));
    let waits_for = match config.log == config.store {
        true => config.log.clone(),
        false => format!("{} and {}", config.log, config.store),
    };
    // One line with everything that is needed to call the service, even before its log and store respond.
    tracing::info!(
        url = format!("http://{address}"),
        docs,
        metrics = operators.map(|address| format!("http://{address}/metrics")),
        waits_for,
        "listening"
    );
    tokio::spawn(on_signal(shutdown.clone()));
    let service = Service::new(config, clock, roles, shutdown);
    let service = if auto_rebuild { service.rebuilding() } else { service };
    service.with_keys(keys).run(listener, ops).await?;
    tracing::info!("ended");
    Ok(())
}

/// Listens on the address of a setting; errors contain both.
async fn listen(setting: &str, address: &str) -> Result<TcpListener, Failure> {
    http::listen(address).await.map_err(|cause| {
        let advice = match cause.kind() {
            ErrorKind::AddrInUse => {
                format!("; choose another address with {setting}, or stop the process that uses it")
            }
            _ => String::new(),
        };
        Failure::Other(format!("cannot listen on {address}: {cause}{advice}"))
    })
}

/// The listener for operators, if it is enabled. Another process, such as a second instance on the machine, may already
/// use the default address: this one then continues without a listener.
async fn listen_for_operators(config: &http::ops::Config) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = config.address() else { return Ok(None) };
    match listen("ops.listen", address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *config == http::ops::Config::default() => {
            tracing::warn!(%error, "metrics are not served: set ops.listen to a free address, or to none");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
