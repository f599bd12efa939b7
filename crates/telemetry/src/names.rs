//! The metrics of a process, one row each: kind, name in code, name as it is exported, and the sentence that `/metrics`
//! and this documentation show. `docs/operations/observe.md` explains them for operators; a test compares the two.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number of events since the start, which never falls.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution of durations, in seconds.
    Histogram,
}

/// A metric as it is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// What it measures.
    pub kind: MetricKind,
    /// Its name.
    pub name: &'static str,
    /// The sentence that describes it.
    pub help: &'static str,
}

impl Metric {
    /// Sends the description to the recorder.
    pub(crate) fn describe(&self) {
        match self.kind {
            MetricKind::Counter => describe_counter!(self.name, self.help),
            MetricKind::Gauge => describe_gauge!(self.name, self.help),
            MetricKind::Histogram => describe_histogram!(self.name, Unit::Seconds, self.help),
        }
    }
}

macro_rules! metrics {
    ($($kind:ident $constant:ident = $name:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+
        /// All metrics of Foretell.
        pub const METRICS: &[Metric] =
            &[$(Metric { kind: MetricKind::$kind, name: $constant, help: $help }),+];
    };
}

metrics! {
    Counter CACHE_READS = "foretell_cache_reads_total",
        "Reads of aggregate rows that can be answered from memory; by `view`, `result` (`hit`, `miss`)";
    Histogram STORE_READ_SECONDS = "foretell_store_read_seconds",
        "Duration of reads of rows in seconds; by `family`";
    Histogram LOG_APPEND_SECONDS = "foretell_log_append_seconds",
        "Time until an append is durable, in seconds";
    Gauge LAG_SECONDS = "foretell_lag_seconds",
        "Age in seconds of the oldest record not yet folded; by `family`, `partition`";
    Gauge LAG_RECORDS = "foretell_lag_records",
        "Records not yet folded, including gaps; by `family`, `partition`";
    Counter HTTP_REQUESTS = "foretell_http_requests_total",
        "Requests answered; by `route` (the template, not the path), `method`, `status`";
    Histogram HTTP_SECONDS = "foretell_http_request_seconds",
        "Time from the head of a request to the head of its answer, in seconds; by `route`";
    Counter HTTP_LONG_POLLS = "foretell_http_long_polls_total",
        "Times that a request blocked a worker for more than 5 ms without a break; by `route`";
    Counter HTTP_REFUSED = "foretell_http_refused_total",
        "Requests rejected because of a missing key or permission; by `key`, `code`";
    Gauge HTTP_INFLIGHT = "foretell_http_inflight",
        "Requests being answered";
    Counter HTTP_PROBLEMS = "foretell_http_problems_total",
        "Problem responses; by `code`";
    Gauge HTTP_STREAMS = "foretell_http_streams",
        "Open streams of reminders";
    Counter EVENTS_ACCEPTED = "foretell_events_accepted_total",
        "Events accepted over HTTP; by `family`";
    Counter SCORES = "foretell_scores_total",
        "Scores returned; by `kind` (`login`, `appointment`), `level`";
    Counter SCORES_DEGRADED = "foretell_scores_degraded_total",
        "Scores computed without some rows, because these were not read in time; by `kind`";
    Counter DECISIONS_RECORDED = "foretell_decisions_recorded_total",
        "Scores that were appended to the topic of decisions";
    Counter DECISIONS_LOST = "foretell_decisions_lost_total",
        "Scores that could not be appended to the topic of decisions; by `reason` (`full`, `late`, `refused`, \
         `shutdown`)";
    Counter ENRICH_LOADS = "foretell_enrich_loads_total",
        "New data files, by the result of loading them; by `file`, `result` (`loaded`, `failed`)";
    Counter ENRICH_WARNINGS = "foretell_enrich_warnings_total",
        "Attempts for which a data file was unavailable or stale; by `code` (the warning)";
    Counter POLICIES_REFUSED = "foretell_policies_refused_total",
        "Published policies that could not be used when they were read";
    Gauge BUILD_INFO = "foretell_build_info",
        "Always 1; by `version` and `commit`";
    Counter RECORDS = "foretell_records_total",
        "Records by family and outcome: `applied`, `skipped`, `rejected`";
    Counter SKIPPED = "foretell_skipped_records_total",
        "Skipped records by family and reason: `repeated`, `erased`, `unchanged`, `no_room`, `impossible`";
    Counter LOGINS_WITHOUT_NETWORK = "foretell_logins_without_network_total",
        "Logins that were folded without a part of the location; by level: `asn`, `country`";
    Counter FIELDS_DROPPED = "foretell_unknown_fields_dropped_total",
        "Unknown fields and extension attributes that were dropped from new records because they exceeded the limits \
         of an event; by family";
    Counter REJECTED = "foretell_rejected_records_total",
        "Rejected records by family and code";
    Counter DEAD_LETTERS_CLOSED = "foretell_dead_letters_closed_total",
        "Dead letters that were closed, by outcome: `redriven`, `dropped`";
    Counter TOO_LATE = "foretell_events_too_late_total",
        "Events that arrived too late to change anything, such as a report of an old login; by family";
    Counter VISITS = "foretell_visits_total",
        "Visits with a known outcome, by outcome: `attended`, `missed`, `cancelled`, `late_cancelled`, `deleted`";
    Counter VISITS_DISPLACED = "foretell_visits_displaced_total",
        "Upcoming visits that were removed from a client's full row for a nearer one";
    Histogram FLUSH_SECONDS = "foretell_flush_seconds",
        "Duration of flushes in seconds, by family";
    Counter ROWS_WRITTEN = "foretell_rows_written_total",
        "Rows written by flushes, by family";
    Counter LOG_SYNCS = "foretell_disk_log_syncs_total",
        "Syncs of segment files of the embedded log: one for each partition of a group commit";
    Counter RETRIES = "foretell_port_retries_total",
        "Operations repeated because a dependency was unavailable, by operation";
    Counter RESTARTS = "foretell_pipeline_restarts_total",
        "Partitions that started over from the store's checkpoint, by family";
    Counter STORE_FORGOT = "foretell_store_forgot_total",
        "Assignments at which the store had lost acknowledged writes, by family. Alert on any increase";
    Gauge STOPPED = "foretell_partition_stopped",
        "Partitions that are stopped because too many of their records are rejected; by family and partition";
    Gauge REBUILD_DUE = "foretell_rebuild_due",
        "1 if the views of a family were folded with other rules than those of this process; by family";
    Counter REMINDERS = "foretell_reminders_total",
        "Reminders by status: `sent`, `withdrawn`";
    Counter REMINDERS_UNSENT = "foretell_reminders_unsent_total",
        "Reminders that were due but not sent, by status (`deferred`, `suppressed`, `failed`) and reason";
    Histogram REMINDER_DELAY_SECONDS = "foretell_reminder_delay_seconds",
        "Seconds from the due time of a reminder to its record on the topic";
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_described_and_documented_for_operators() {
        let page = include_str!("../../../docs/operations/observe.md");
        let cells = page.lines().filter_map(|line| line.strip_prefix("| `foretell_"));
        let documented: BTreeSet<_> =
            cells.filter_map(|cell| cell.split(['`', '{']).next()).map(|name| format!("foretell_{name}")).collect();
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
        assert_eq!(known.len(), METRICS.len(), "a name occurs once");
        assert_eq!(documented, known);
        for metric in METRICS {
            let suffix = match metric.kind {
                MetricKind::Counter => metric.name.ends_with("_total"),
                MetricKind::Histogram => metric.name.ends_with("_seconds"),
                MetricKind::Gauge => !metric.name.ends_with("_total"),
            };
            assert!(suffix && !metric.help.ends_with('.'), "{metric:?}");
        }
    }
}
