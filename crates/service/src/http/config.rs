//! The limits of the API, and which of them contradict each other.

use super::admission::BODY_COST;
use super::cors;
use super::serve::host_port;
use super::zeros;
use foretell_ports::component::{Component, InvalidSetting};
use serde::{Deserialize, Serialize};

/// Limits of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: String,
    /// TOML file of API keys; without one, every caller that can connect may do everything.
    pub api_keys_file: Option<std::path::PathBuf>,
    /// Origins whose pages may read answers in a browser, such as `https://desk.example.com`; none: only the service's
    /// own.
    pub cors_origins: Vec<String>,
    /// Requests answered concurrently, each counted from when its body is complete; further ones are answered 503.
    pub requests_max: usize,
    /// Of these, the maximum for one tenant; further ones are answered 429.
    pub requests_tenant_max: usize,
    /// Open connections; a further one replaces an idle one of the peer that has most, if there is one.
    pub connections_max: usize,
    /// Open connections of one peer: an IPv4 address, or an IPv6 network of 56 bits.
    pub connections_peer_max: usize,
    /// Open streams of reminders; further ones are answered 503.
    pub streams_max: usize,
    /// Of these, the maximum for one tenant; further ones are answered 429.
    pub streams_tenant_max: usize,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time until the whole body of a request is received, in milliseconds; then 408.
    pub body_ms_max: u64,
    /// Total bytes of bodies in memory, of which a tenant may use half; beyond that, 503 and 429.
    pub bodies_bytes_max: u64,
    /// Longest time from a complete request until the head of its answer, in milliseconds; then 503.
    pub request_ms_max: u64,
    /// Longest time from the start of a connection until the first head of a request is received, in milliseconds; then
    /// the connection is closed.
    pub head_ms_max: u64,
    /// Longest time from an answer until the next head of a request is received, in milliseconds; then the connection
    /// is closed.
    pub idle_ms_max: u64,
    /// Longest time that a part of an answer waits for its reader, in milliseconds; then the connection is closed, or
    /// the HTTP/2 stream is reset.
    pub write_ms_max: u64,
    /// Longest `Prefer: wait`, in milliseconds; longer ones are shortened to it. Below `request_ms_max`.
    pub wait_ms_max: u64,
    /// How long a request for a reminder waits for its own fold, in milliseconds.
    pub fold_wait_ms_max: u64,
    /// How long a score may wait for its rows, in milliseconds; then it is computed from those that were read.
    pub score_deadline_ms: u64,
    /// Agendas computed concurrently, on threads other than the workers; further ones wait. 0: half as many as there
    /// are processors.
    pub agendas_max: usize,
    /// Of these, the maximum for one tenant.
    pub agendas_tenant_max: usize,
    /// Visits that one answer of the agenda may read; a window with more is answered 422.
    pub agenda_visits_max: usize,
    /// Interval of the comments that keep an idle stream open, in milliseconds.
    pub stream_keep_alive_ms: u64,
    /// How long open requests may continue after shutdown began, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            api_keys_file: None,
            cors_origins: Vec::new(),
            requests_max: 512,
            requests_tenant_max: 256,
            connections_max: 4_096,
            connections_peer_max: 2_048,
            streams_max: 64,
            streams_tenant_max: 16,
            body_bytes_max: 1024 * 1024,
            body_ms_max: 5_000,
            bodies_bytes_max: 64 * 1024 * 1024,
            request_ms_max: 35_000,
            head_ms_max: 10_000,
            idle_ms_max: 75_000,
            write_ms_max: 30_000,
            wait_ms_max: 30_000,
            fold_wait_ms_max: 5_000,
            score_deadline_ms: 50,
            agendas_max: 0,
            agendas_tenant_max: 1,
            agenda_visits_max: 20_000,
            stream_keep_alive_ms: 15_000,
            drain_ms: 10_000,
        }
    }
}

/// Concurrent connections of operators, and of one of them.
const OPERATORS_MAX: usize = 64;
const OPERATOR_MAX: usize = 16;

impl Config {
    /// The same for the listener of operators: few connections, and no pages.
    #[must_use]
    pub fn for_operators(&self) -> Self {
        let (connections_max, connections_peer_max) = (OPERATORS_MAX, OPERATOR_MAX);
        Self { connections_max, connections_peer_max, cors_origins: Vec::new(), ..self.clone() }
    }

    /// The same for the instance's own socket: few connections, only of the operator, and readers that may pause for
    /// long, such as a command whose output is paged.
    #[must_use]
    pub fn for_socket(&self) -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1_000;
        let (connections_max, connections_peer_max) = (OPERATORS_MAX, OPERATORS_MAX);
        Self { connections_max, connections_peer_max, write_ms_max: HOUR_MS, ..self.for_operators() }
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "http"
    }

    /// Checks that no limit is zero, that no share exceeds its total, and that every origin is in the form that
    /// browsers send.
    fn validate(&self) -> Result<(), InvalidSetting> {
        host_port(&self.listen).map_err(|message| InvalidSetting::new("listen", message))?;
        self.cors_origins
            .iter()
            .try_for_each(|origin| cors::check(origin))
            .map_err(|message| InvalidSetting::new("cors_origins", message))?;
        for (name, limit) in [
            ("requests_max", self.requests_max),
            ("requests_tenant_max", self.requests_tenant_max),
            ("connections_max", self.connections_max),
            ("connections_peer_max", self.connections_peer_max),
            ("streams_max", self.streams_max),
            ("streams_tenant_max", self.streams_tenant_max),
            ("body_bytes_max", self.body_bytes_max),
        ] {
            if limit == 0 {
                return Err(InvalidSetting::new(name, "0 would reject everything: set 1 or more"));
            }
        }
        for (name, share, whole_name, whole) in [
            ("requests_tenant_max", self.requests_tenant_max, "requests_max", self.requests_max),
            ("connections_peer_max", self.connections_peer_max, "connections_max", self.connections_max),
            ("streams_tenant_max", self.streams_tenant_max, "streams_max", self.streams_max),
            ("agendas_tenant_max", self.agendas_tenant_max, "agendas_max", self.agendas_max),
        ] {
            // With 0, `agendas_max` depends on the number of processors.
            if share > whole && whole > 0 {
                let message = format!("{share} is more than http.{whole_name}, {whole}: set both, this one to at most");
                let message = format!("{message} {whole}, or to half of it to keep capacity for others");
                return Err(InvalidSetting::new(name, message));
            }
        }
        let bodies_bytes_min = (self.body_bytes_max as u64).saturating_add(BODY_COST).saturating_mul(2);
        if self.bodies_bytes_max < bodies_bytes_min {
            let message = format!("{} is too small for a body of http.body_bytes_max", self.bodies_bytes_max);
            let reason =
                format!("because a tenant can use only half of it: set {bodies_bytes_min} or more, or a smaller body");
            let message = format!("{message}, {}, {reason}", self.body_bytes_max);
            return Err(InvalidSetting::new("bodies_bytes_max", message));
        }
        Ok(())
    }

    fn register_metrics(&self) {
        zeros::register();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused_with_the_settings_to_change() {
        type Change = fn(&mut Config);
        let refused: [(Change, &str, &str); 10] = [
            (|c| c.requests_max = 200, "requests_tenant_max", "http.requests_max, 200"),
            (|c| c.connections_max = 400, "connections_peer_max", "http.connections_max, 400"),
            (|c| c.streams_max = 8, "streams_tenant_max", "http.streams_max, 8"),
            (|c| (c.agendas_max, c.agendas_tenant_max) = (1, 2), "agendas_tenant_max", "http.agendas_max, 1"),
            (|c| c.connections_peer_max = 0, "connections_peer_max", "set 1 or more"),
            (|c| c.requests_max = 0, "requests_max", "set 1 or more"),
            (|c| c.body_bytes_max = 0, "body_bytes_max", "set 1 or more"),
            (|c| c.body_bytes_max = 40 << 20, "bodies_bytes_max", "set 83918848 or more"),
            (|c| c.body_bytes_max = usize::MAX, "bodies_bytes_max", "http.body_bytes_max"),
            (|c| c.cors_origins = vec!["*".into()], "cors_origins", "list each origin"),
        ];
        for (change, setting, said) in refused {
            let mut config = Config::default();
            change(&mut config);
            let InvalidSetting { key: name, message } = config.validate().unwrap_err();
            assert_eq!(name, setting, "{message}");
            assert!(message.contains(said), "{setting}: {message}");
        }
        let taken: [Change; 6] = [
            |_| {},
            |c| c.requests_tenant_max = c.requests_max,
            |c| (c.connections_max, c.connections_peer_max) = (1, 1),
            |c| c.bodies_bytes_max = 2 * (c.body_bytes_max as u64 + BODY_COST),
            |c| (c.agendas_max, c.agendas_tenant_max) = (0, 9),
            |c| c.cors_origins = vec!["https://desk.example.com".into(), "http://localhost:3000".into()],
        ];
        for (case, change) in taken.into_iter().enumerate() {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate(), Ok(()), "case {case}");
        }
    }

    #[test]
    fn one_operator_leaves_places_to_others_and_only_the_socket_waits_for_long_readers() {
        let config = Config { cors_origins: vec!["https://desk.example.com".into()], ..Config::default() };
        let (operators, socket) = (config.for_operators(), config.for_socket());
        assert!(operators.connections_peer_max < operators.connections_max);
        assert_eq!(operators.write_ms_max, config.write_ms_max);
        assert!(socket.write_ms_max > config.write_ms_max);
        assert!(
            operators.cors_origins.is_empty() && socket.cors_origins.is_empty(),
            "no page reads answers of this listener"
        );
    }
}
