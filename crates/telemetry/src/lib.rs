//! Metrics and traces of a process: the names of metrics, their recorder, and the trace of a request.
//!
//! Names and labels of metrics are constants of one table, so that dashboards and code cannot disagree; [`meter`] has a
//! function for each event that the loops count. Labels have a closed set of values, and never contain a tenant, a
//! user, or a method or path as it was sent. [`trace`] carries the trace of a request through the process and into
//! record headers.

pub mod meter;
mod names;
pub mod trace;

pub use names::*;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Upper bounds in seconds of all histograms of durations: from a read in memory to a request that timed out.
const SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics of this process. Counting begins with the first call; earlier counts are lost.
///
/// `None` if another recorder was installed before.
pub fn prometheus() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
        let handle = builder.and_then(PrometheusBuilder::install_recorder);
        if let Err(error) = &handle {
            tracing::error!(%error, "no metrics: another metrics recorder is installed");
        }
        process().describe();
        METRICS.iter().for_each(Metric::describe);
        handle.ok()
    };
    HANDLE.get_or_init(install).as_ref()
}

/// Metrics of the operating system about this process, as all Prometheus clients export them.
fn process() -> &'static metrics_process::Collector {
    static PROCESS: OnceLock<metrics_process::Collector> = OnceLock::new();
    PROCESS.get_or_init(metrics_process::Collector::default)
}

/// The metrics in the text format of Prometheus, including the current metrics of the process. Blocks for reads of
/// `/proc`, about 0.1 ms. `None` as with [`prometheus`].
pub fn exposition() -> Option<String> {
    let handle = prometheus()?;
    process().collect();
    handle.run_upkeep();
    Some(handle.render())
}

/// Aggregates what histograms have collected; call it every few seconds.
pub fn upkeep() {
    if let Some(handle) = prometheus() {
        handle.run_upkeep();
    }
}
