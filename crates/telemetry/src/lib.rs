//! Metrics and traces of a process: the names of metrics, their recorder, and the trace of a request.
//!
//! Names and labels of metrics are constants, here for reads and HTTP and in [`meter`] for the loops, so that
//! dashboards and code cannot disagree. Labels have a closed set of values, and never contain a tenant, a user, or a
//! method or path as it was sent. [`trace`] carries the trace of a request through the process and into record headers.

pub mod meter;
pub mod trace;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Reads of an aggregate row that may be answered from memory; labels [`VIEW`], [`RESULT`] (`hit`, `miss`).
pub const CACHE_READS: &str = "foretell_cache_reads_total";
/// Seconds that a read of rows took; label [`FAMILY`].
pub const STORE_READ_SECONDS: &str = "foretell_store_read_seconds";
/// Seconds that an append took to be durable.
pub const LOG_APPEND_SECONDS: &str = "foretell_log_append_seconds";
/// Age in seconds of the oldest record not yet folded; labels [`FAMILY`], [`PARTITION`].
pub const LAG_SECONDS: &str = "foretell_lag_seconds";
/// Records not yet folded, holes included; labels [`FAMILY`], [`PARTITION`].
pub const LAG_RECORDS: &str = "foretell_lag_records";
/// Requests answered; labels [`ROUTE`] (the template, not the path), [`METHOD`], [`STATUS`].
pub const HTTP_REQUESTS: &str = "foretell_http_requests_total";
/// Seconds from the head of a request to the head of its answer; label [`ROUTE`].
pub const HTTP_SECONDS: &str = "foretell_http_request_seconds";
/// Times that a request occupied a worker for more than 5 ms without a pause; label [`ROUTE`].
pub const HTTP_LONG_POLLS: &str = "foretell_http_long_polls_total";
/// Requests rejected because of a missing key or permission; labels [`KEY`], [`CODE`].
pub const HTTP_REFUSED: &str = "foretell_http_refused_total";
/// Requests being answered.
pub const HTTP_INFLIGHT: &str = "foretell_http_inflight";
/// Problems answered; label [`CODE`].
pub const HTTP_PROBLEMS: &str = "foretell_http_problems_total";
/// Open streams of reminders.
pub const HTTP_STREAMS: &str = "foretell_http_streams";
/// Events accepted over HTTP; label [`FAMILY`].
pub const EVENTS_ACCEPTED: &str = "foretell_events_accepted_total";
/// Scores returned; labels [`KIND`] (`login`, `appointment`), [`LEVEL`].
pub const SCORES: &str = "foretell_scores_total";
/// Scores computed without the rows, because those could not be read in time; label [`KIND`].
pub const SCORES_DEGRADED: &str = "foretell_scores_degraded_total";
/// Scores that were appended to the topic of decisions.
pub const DECISIONS_RECORDED: &str = "foretell_decisions_recorded_total";
/// Scores that could not be appended to the topic of decisions; label [`REASON`] (`full`, `late`, `refused`,
/// `shutdown`).
pub const DECISIONS_LOST: &str = "foretell_decisions_lost_total";
/// New data files, by the result of loading them; labels [`FILE`], [`RESULT`] (`loaded`, `failed`).
pub const ENRICH_LOADS: &str = "foretell_enrich_loads_total";
/// Attempts for which a data file was unavailable or stale; label [`CODE`] (the warning).
pub const ENRICH_WARNINGS: &str = "foretell_enrich_warnings_total";

/// Published policies that could not be used when they were read.
pub const POLICIES_REFUSED: &str = "foretell_policies_refused_total";

/// Always 1; labels `version` and `commit`.
pub const BUILD_INFO: &str = "foretell_build_info";

/// Label: a view.
pub const VIEW: &str = "view";
/// Label: the result.
pub const RESULT: &str = "result";
/// Label: a topic family.
pub const FAMILY: &str = "family";
/// Label: a partition.
pub const PARTITION: &str = "partition";
/// Label: the template of a path.
pub const ROUTE: &str = "route";
/// Label: an HTTP method.
pub const METHOD: &str = "method";
/// Label: an HTTP status.
pub const STATUS: &str = "status";
/// Label: the name of an API key, or `unknown`.
pub const KEY: &str = "key";
/// Label: a stable code.
pub const CODE: &str = "code";
/// Label: what was scored.
pub const KIND: &str = "kind";
/// Label: the reason.
pub const REASON: &str = "reason";
/// Label: the purpose of a data file, which is its key in the settings.
pub const FILE: &str = "file";
/// Label: a risk level.
pub const LEVEL: &str = "level";

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
        describe();
        handle.ok()
    };
    HANDLE.get_or_init(install).as_ref()
}

fn describe() {
    process().describe();
    describe_gauge!(BUILD_INFO, "1; version and commit of this process are its labels");
    describe_counter!(POLICIES_REFUSED, "Published policies that could not be used when they were read");
    describe_counter!(CACHE_READS, "Reads of aggregate rows that may be answered from memory");
    describe_histogram!(STORE_READ_SECONDS, Unit::Seconds, "Duration of reads from the store");
    describe_histogram!(LOG_APPEND_SECONDS, Unit::Seconds, "Duration of appends until they are durable");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "Age of the oldest record that is not folded yet");
    describe_gauge!(LAG_RECORDS, "Offsets between the serving checkpoint and the end of the log");
    describe_counter!(HTTP_REQUESTS, "Requests by route, method and status");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Duration of requests until the head of the answer");
    describe_counter!(HTTP_LONG_POLLS, "Times that a request occupied a worker for more than 5 ms at once, by route");
    describe_counter!(HTTP_REFUSED, "Requests rejected because of a missing key or permission, by the name of the key");
    describe_gauge!(HTTP_INFLIGHT, "Requests being answered");
    describe_counter!(HTTP_PROBLEMS, "Problems answered by code");
    describe_gauge!(HTTP_STREAMS, "Open streams of reminders");
    describe_counter!(EVENTS_ACCEPTED, "Events accepted over HTTP");
    describe_counter!(meter::FIELDS_DROPPED, "Unknown fields and attributes of events that were dropped");
    describe_counter!(SCORES, "Scores returned, by kind and level");
    describe_counter!(SCORES_DEGRADED, "Scores computed without the rows, because those could not be read in time");
    describe_counter!(DECISIONS_RECORDED, "Scores that were appended to the topic of decisions");
    describe_counter!(DECISIONS_LOST, "Scores that could not be appended to the topic of decisions, by reason");
    describe_counter!(ENRICH_LOADS, "New data files, by the result of loading them");
    describe_counter!(ENRICH_WARNINGS, "Attempts for which a data file was unavailable or stale");
    describe_counter!(meter::RECORDS, "Records by outcome");
    describe_counter!(meter::LOGINS_WITHOUT_NETWORK, "Logins that were folded without a level of their address");
    describe_counter!(meter::REJECTED, "Records that became dead letters, by code");
    describe_counter!(meter::DEAD_LETTERS_CLOSED, "Dead letters that were redriven or dropped");
    describe_counter!(meter::SKIPPED, "Records that changed nothing, by reason");
    describe_counter!(meter::TOO_LATE, "Events that changed nothing because they arrived too late");
    describe_counter!(meter::LOG_SYNCS, "Segment files of the embedded log that were synced");
    describe_counter!(
        meter::VISITS_DISPLACED,
        "Upcoming visits dropped from a full row of a client for an earlier one"
    );
    describe_counter!(meter::VISITS, "Visits with a known outcome, by outcome, including corrections");
    describe_histogram!(meter::FLUSH_SECONDS, Unit::Seconds, "Duration of flushes");
    describe_counter!(meter::ROWS_WRITTEN, "Rows written by flushes");
    describe_counter!(meter::RETRIES, "Operations repeated because a dependency was unavailable");
    describe_counter!(meter::RESTARTS, "Partitions that started over from the store's checkpoint");
    describe_counter!(meter::STORE_FORGOT, "Assignments at which the store had lost acknowledged writes");
    describe_gauge!(meter::STOPPED, "1 if a partition is stopped because too many of its records are rejected");
    describe_gauge!(
        meter::REBUILD_DUE,
        "1 if the views of a family were folded with rules that differ from this process's"
    );
    describe_counter!(meter::REMINDERS, "Reminders by status");
    describe_counter!(meter::REMINDERS_UNSENT, "Reminders that were due but not sent, by status and reason");
    describe_histogram!(
        meter::REMINDER_DELAY_SECONDS,
        Unit::Seconds,
        "Time from when a reminder was due until it was sent"
    );
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
