//! The settings of pipelines: the section `pipeline`.

use serde::{Deserialize, Serialize};

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
    /// Records of one owner in a batch; bounds the list that its row carries.
    #[serde(skip)]
    pub owner_records_max: usize,
    /// Decoded rows kept; beyond this number, rows that were not used recently are read again when needed.
    #[serde(skip)]
    pub cached_rows_max: usize,
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
            owner_records_max: 128,
            cached_rows_max: 10_000,
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
