//! The listener for operators: probes and metrics, separate from the API.
//!
//! API callers do not need metrics, and monitoring must reach the service however many requests it has. So these routes
//! have a listener of their own, for every role, with its own connection limits. It needs no key and reveals nothing
//! about users or clients, but it contains host names: it is for operators, not for the public.

use super::serve::host_port;
use super::{Api, finish, health, open_routes};
use axum::Router;
use axum::routing::get;
use foretell_ports::component::{Component, InvalidSetting};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The address on which operators are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; with port 0 any free port is used. `none`: do not listen.
    pub listen: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into() }
    }
}

impl Config {
    /// The address to listen on, if any.
    pub fn address(&self) -> Option<&str> {
        Some(self.listen.as_str()).filter(|listen| !matches!(*listen, "none" | ""))
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "ops"
    }

    fn validate(&self) -> Result<(), InvalidSetting> {
        let Some(address) = self.address() else { return Ok(()) };
        let checked = host_port(address).map(drop);
        checked.map_err(|message| InvalidSetting::new("listen", format!("{message}; \"none\" turns the listener off")))
    }
}

/// Probes and metrics.
pub fn router(api: &Arc<Api>) -> Router {
    let (routes, document) = open_routes().split_for_parts();
    crate::http::zeros::routes(&document);
    crate::http::zeros::route(METRICS, "GET");
    finish(
        api,
        routes.route(METRICS, get(health::metrics)),
        "see /livez, /readyz and /metrics; the API has another port",
    )
}

/// The path of metrics.
pub const METRICS: &str = "/metrics";

/// Metrics only, for a process that does not have an API yet.
pub fn metrics_router() -> Router {
    Router::new().route(METRICS, get(health::metrics))
}
