//! The settings of pipelines: the section `pipeline`.

use foretell_domain::address::Family;
use foretell_domain::view::Skip;
use foretell_domain::view::client::RESOLVED_AS;
use foretell_events::codec::CODES;
use foretell_ports::component::Component;
use foretell_telemetry::{
    DEAD_LETTERS_CLOSED, FLUSH_SECONDS, LOGINS_WITHOUT_NETWORK, REBUILD_DUE, RECORDS, REJECTED, RESTARTS, RETRIES,
    ROWS_WRITTEN, SKIPPED, STORE_FORGOT, TOO_LATE, VISITS, VISITS_DISPLACED,
};
use metrics::{counter, gauge, histogram};
use serde::{Deserialize, Serialize};

/// Operations that are retried while a dependency is unreachable, as far as alerts may watch them. Others appear when
/// they first happen.
const REPEATED: [&str; 4] = ["append", "read the log", "read rows", "run a transaction"];

/// Bounds on what a pipeline uses at once, and on how long it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Records of a batch; a full batch is flushed at once.
    pub batch_records_max: usize,
    /// How long an open batch waits for further records, counted from its first one, when none is available.
    pub batch_linger_ms: u64,
    /// Age at which a batch is flushed even while records keep arriving: the longest time until an event is visible,
    /// not counting the flush itself.
    pub batch_age_ms_max: u64,
    /// Records of a batch while the fold is far behind the head of the log.
    pub behind_records_max: usize,
    /// Memory for the rows of all partitions that are far behind, in bytes; a batch is flushed earlier when the share of
    /// its partition is used up.
    pub behind_bytes_max: usize,
    /// Age at which a batch is flushed while the fold is far behind.
    #[serde(skip)]
    pub behind_age_ms_max: u64,
    /// Bytes of outcomes since the last flush that the row of one owner carries: the batch is flushed when one has more.
    #[serde(skip)]
    pub owner_pending_bytes_max: usize,
    /// Decoded rows of a partition that are kept at the head of the log; beyond this number, rows that were not used
    /// recently are read again when needed.
    #[serde(skip)]
    pub cached_rows_max: usize,
    /// The same bound in bytes.
    #[serde(skip)]
    pub cached_bytes_max: usize,
    /// How long a revoked partition may flush before the next owner continues without it.
    pub drain_ms_max: u64,
    /// Records rejected in a row before a partition stops; 0 sets no bound.
    pub rejected_run_max: u32,
    /// Share of rejected records, in percent of the family's latest ones in this process, beyond which a partition
    /// stops; 100 sets no bound.
    pub rejected_percent_max: u32,
    /// Size of the window of latest records; a share counts once half of the window is filled.
    pub rejected_window_records: u32,
    /// The same window for records that are rejected with one code, which have one cause; 0 sets no bound.
    pub rejected_code_window_records: u32,
    /// Longest pause between two attempts while a port does not respond.
    #[serde(skip)]
    pub retry_ms_max: u64,
    /// Time between two reads of the pointer, which determines the generations to fold.
    #[serde(skip)]
    pub pointer_look_ms: u64,
    /// How long a generation is still folded after the pointer stopped naming it, and half as long again until its rows
    /// are dropped: the pointers that readers cache are younger.
    pub generation_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_records_max: 2_000,
            batch_linger_ms: 10,
            batch_age_ms_max: 100,
            behind_records_max: 20_000,
            behind_bytes_max: 256 << 20,
            behind_age_ms_max: 5_000,
            owner_pending_bytes_max: 64 << 10,
            cached_rows_max: 10_000,
            cached_bytes_max: 16 << 20,
            drain_ms_max: 8_000,
            rejected_run_max: 1_000,
            rejected_percent_max: 50,
            rejected_window_records: 10_000,
            rejected_code_window_records: 1_000,
            retry_ms_max: 5_000,
            pointer_look_ms: 1_000,
            generation_grace_ms: 10_000,
        }
    }
}

impl Component for Config {
    fn section(&self) -> &'static str {
        "pipeline"
    }

    fn register_metrics(&self) {
        Family::ALL.into_iter().for_each(register);
        for operation in REPEATED {
            counter!(RETRIES, "operation" => operation).increment(0);
        }
        for outcome in ["redriven", "dropped"] {
            counter!(DEAD_LETTERS_CLOSED, "outcome" => outcome).increment(0);
        }
        for outcome in RESOLVED_AS {
            counter!(VISITS, "outcome" => outcome).increment(0);
        }
        for level in ["asn", "country"] {
            counter!(LOGINS_WITHOUT_NETWORK, "level" => level).increment(0);
        }
        counter!(VISITS_DISPLACED).increment(0);
    }
}

/// Exports the metrics of a family at zero.
fn register(family: Family) {
    let name = family.name();
    for outcome in ["applied", "skipped", "rejected"] {
        counter!(RECORDS, "family" => name, "outcome" => outcome).increment(0);
    }
    for reason in Skip::ALL {
        counter!(SKIPPED, "family" => name, "reason" => reason.name()).increment(0);
    }
    for code in CODES {
        counter!(REJECTED, "family" => name, "code" => code).increment(0);
    }
    for counted in [RESTARTS, STORE_FORGOT, ROWS_WRITTEN, TOO_LATE] {
        counter!(counted, "family" => name).increment(0);
    }
    gauge!(REBUILD_DUE, "family" => name).increment(0.0);
    drop(histogram!(FLUSH_SECONDS, "family" => name));
}
