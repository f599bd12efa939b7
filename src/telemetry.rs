//! Telemetry of the process: log lines on stderr, spans over OTLP, and every metric from the start.

mod lines;
mod otlp;

use crate::version::{COMMIT, VERSION};
use foretell_ports::component::Component;
use foretell_telemetry::{BUILD_INFO, prometheus, trace};
use metrics::gauge;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::filter::{Directive, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Directives for libraries that log errors which they also return: Cassandra's driver logs each of its attempts at
/// error level, dozens of them while a cluster is unreachable. Foretell logs the returned error instead.
pub const QUIET: &str = "scylla=off";

/// Targets of log lines: the part after `foretell::` when all code was one crate, and the part after `foretell_` now.
const RENAMED: [(&str, &str); 16] = [
    ("assess", "service::assess"),
    ("decisions", "service::decisions"),
    ("enrich", "enrich"),
    ("http", "service::http"),
    ("log::disk", "disk::log"),
    ("log::kafka", "kafka"),
    ("pipeline", "engine::pipeline"),
    ("policies", "service::policies"),
    ("progress", "engine::progress"),
    ("rebuild", "engine::rebuild"),
    ("remind", "service::remind"),
    ("repartition", "engine::repartition"),
    ("rows", "engine::rows"),
    ("store::cassandra", "cassandra"),
    ("store::disk", "disk::store"),
    ("verify", "engine::verify"),
];

/// A filter with the current targets, so that a filter from an earlier version still selects its lines.
fn renamed(filter: &str) -> String {
    let rename = |filter: String, (before, now): &(&str, &str)| {
        filter.replace(&format!("foretell::{before}"), &format!("foretell_{now}"))
    };
    RENAMED.iter().fold(filter.to_owned(), rename)
}

/// What is logged and exported, in which format, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which log lines are written: directives as in `info,foretell_engine::pipeline=debug`.
    pub log_filter: String,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Where spans are exported to, with OTLP over HTTP, as in `http://localhost:4318`. If none: the endpoint of the
    /// `OTEL_*` variables, if any. A URL without a path is a base, and traces go to `/v1/traces`.
    pub otlp_endpoint: Option<String>,
    /// Name of the process in traces.
    pub service_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_filter: format!("info,fjall=warn,lsm_tree=warn,{QUIET}"),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            service_name: "foretell".into(),
        }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Plain text; coloured on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// Why telemetry cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directive of the filter cannot be parsed.
    #[error("telemetry.log_filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An endpoint is not a URL; with the setting or variable that contains it.
    #[error("{0}: {1}")]
    Endpoint(&'static str, String),
    /// The exporter cannot be built.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Another subscriber is already installed.
    #[error("install the log subscriber: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Exports the remaining spans when it is dropped.
#[derive(Debug)]
#[must_use = "spans are flushed when it is dropped"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "cannot export the last spans");
        }
    }
}

/// Starts to write log lines to stderr, to export spans and to count; all metrics of `components` are exported from the
/// start. Once per process.
pub fn install(config: &Config, components: &[&dyn Component]) -> Result<Guard, Error> {
    // Spans for the exporter do not belong in log lines, which show spans of their own.
    let no_spans = format!("{}={}", trace::TARGET, LevelFilter::OFF).parse::<Directive>()?;
    let filter = EnvFilter::try_new(renamed(&config.log_filter))?.add_directive(no_spans);
    let variable = |name: &str| std::env::var(name).ok();
    let endpoint = otlp::endpoint(config.otlp_endpoint.as_deref(), &variable)?;
    let provider = endpoint.as_ref().map(|endpoint| otlp::provider(endpoint, config)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("foretell"));
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
        layer.with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == trace::TARGET))
    });
    // A filter of one layer keeps per thread what it rejected until the next line, so it is only used if there are two
    // layers.
    match spans {
        None => tracing_subscriber::registry().with(filter).with(lines(config.log_format)).try_init()?,
        Some(spans) => {
            let lines = lines(config.log_format).with_filter(filter);
            tracing_subscriber::registry().with(lines).with(spans).try_init()?;
            trace::export();
        }
    }
    if let Some(notice) = endpoint.and_then(|endpoint| otlp::notice(&endpoint, &variable)) {
        tracing::warn!("{notice}");
    }
    if prometheus().is_some() {
        gauge!(BUILD_INFO, "version" => VERSION, "commit" => COMMIT).set(1.0);
        components.iter().for_each(|component| component.register_metrics());
    }
    Ok(Guard(provider))
}

/// Whether to colour text on `stream`: on a terminal, unless `NO_COLOR` is set.
pub fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !is_dumb && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Log lines on stderr.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let is_coloured = is_coloured(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_coloured);
    match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().event_format(lines::Traced::new()).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_an_earlier_version_selects_the_same_lines() {
        let filter = "info,foretell::pipeline::working=debug,foretell::app=warn,foretell::log::kafka=trace";
        let now = "info,foretell_engine::pipeline::working=debug,foretell::app=warn,foretell_kafka=trace";
        assert_eq!(renamed(filter), now);
        assert_eq!(renamed(now), now);
    }
}
