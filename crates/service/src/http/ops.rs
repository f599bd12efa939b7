//! The operators' listener: probes and metrics, apart from the API.
//!
//! Whoever asks for scores needs no metrics, and whoever watches the service must reach it however many ask for scores:
//! so these routes have a listener of their own, for every role, with connections of their own. It asks for no key and
//! says nothing about anybody, but it names hosts: it is for those who run the service, not for the world.

use super::serve::host_port;
use super::{Api, finish, health, open_routes};
use axum::Router;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where operators are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; with port 0 any that is free. `none`: nowhere.
    pub listen: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into() }
    }
}

impl Config {
    /// Where to listen, if anywhere.
    pub fn address(&self) -> Option<&str> {
        Some(self.listen.as_str()).filter(|listen| !matches!(*listen, "none" | ""))
    }

    /// Whether the address is one.
    ///
    /// # Errors
    /// The setting and what is wrong with it.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        self.address().map_or(Ok(()), |address| {
            host_port(address).map(drop).map_err(|message| ("listen", format!("{message}; \"none\" listens nowhere")))
        })
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

/// Metrics alone, for a process that does not have an API yet.
pub fn metrics_router() -> Router {
    Router::new().route(METRICS, get(health::metrics))
}
